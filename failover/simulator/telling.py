"""A run in words: what happened, what the controller made of it, and what it cost."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from failover.journal import plain
from failover.simulator.faults import span

if TYPE_CHECKING:
    from failover.model import Pool
    from failover.simulator.run import Line, Run, Violation

WIDTH = 110
QUIET = 120.0  # seconds without a line that are told as such
SAME = 1.0  # seconds within which the same words are said once
ALERT, STEP, QUIETLY = "alert", "step", ""
SHOWN = {ALERT: "ALERT"}
COLUMN = 12  # of who says it
PHASES = ("fencing: ", "promoting: ", "steady: ")
OVERLAPS = {
    "hand": "let in by somebody else",
    "swap": "servers that lead to each other's producers",
    "passed-over": "let in by a proxy that could not be asked",
    "reload": "sessions that a reload hid",
    "lied": "a power command that said off, and it was not",
    "leak": "past the proxies",
    "gateless": "nothing shuts anybody out",
    "tampered": "after the state folder was tampered with",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a told timeline. ``at`` is in seconds; ``who`` is empty for a quiet time."""

    at: float
    who: str
    words: str


def rows(lines: Iterable[Line], seconds: float, *, steps: bool = False) -> list[Row]:
    """The timeline with what was said twice told once, and quiet times in one line each; steps only if wanted."""
    said: list[Row] = []
    for line in lines:
        who = line.who
        if who == STEP and not steps:
            if not _of_a_record(line):
                continue
            who = "controller"
        twice = _twin(said, line)
        if twice is None:
            said.append(Row(line.at, who, plain(line.words)))
        else:
            said[twice] = _merged(said[twice], line)
    return list(_with_quiet(said, seconds))


def _of_a_record(line: Line) -> bool:
    """A record's change that its provider has accepted: what phases do to proxies they say, this nobody else does."""
    return line.words.startswith("point ") and line.words.endswith(": accepted")


def _twin(said: list[Row], line: Line) -> int | None:
    """Where the same was said just now."""
    for number in range(len(said) - 1, -1, -1):
        if line.at - said[number].at > SAME:
            return None
        if {said[number].who, line.who} <= {"controller", ALERT} and _core(said[number].words) == _core(line.words):
            return number
    return None


def _core(words: str) -> str:
    for phase in PHASES:
        words = words.removeprefix(phase)
    return words


def _merged(row: Row, line: Line) -> Row:
    who = ALERT if ALERT in (row.who, line.who) else row.who
    return Row(row.at, who, max(row.words, plain(line.words), key=len))


def _with_quiet(said: list[Row], seconds: float) -> Iterator[Row]:
    before = 0.0
    for row in said:
        yield from _quiet(before, row.at)
        yield row
        before = row.at
    yield from _quiet(before, seconds)


def _quiet(begin: float, end: float) -> Iterator[Row]:
    if end - begin >= QUIET:
        yield Row(begin, QUIETLY, f"nothing for {span((end - begin) // 60 * 60)}")


def clock(seconds: float) -> str:
    """Time after the beginning: 5:07, or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def lines(row: Row) -> list[str]:
    """A row as it is printed; long words go on below themselves."""
    if row.who == QUIETLY:
        return [f"{'':>9}  ({row.words})"]
    head = f"{clock(row.at):>9}  {SHOWN.get(row.who, row.who):<{COLUMN}}"
    return textwrap.wrap(
        row.words,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]


def people(pool: Pool) -> str:
    """The pool in a few words."""
    kinds = list(dict.fromkeys(gate.kind.value for gate in pool.host_gates))
    own = f" ({' and '.join(kinds)})" if kinds else ""
    parts = [f"producers {', '.join(pool.names)}{own}"]
    if pool.proxies:
        parts.append(f"proxies {', '.join(proxy.name for proxy in pool.proxies)}")
    if pool.records:
        parts.append(f"records {', '.join(record.label for record in pool.records)}")
    managed = [relay.name for relay in pool.relays if relay.managed]
    if managed:
        parts.append(f"managed relays {', '.join(managed)}")
    return "; ".join(parts)


def seconds_in_words(seconds: float) -> str:
    """Seconds, and behind them minutes where there are several."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole} s ({span(whole // 60 * 60)})"


def summary(run: Run) -> list[tuple[str, str]]:
    """What it cost and what broke: titles and words."""
    found = [
        ("forging lost", f"{seconds_in_words(run.lost)}: no producer's blocks could reach a relay"),
        ("waited", f"{seconds_in_words(run.outage)}: one that was well could have been let in, and none was"),
    ]
    found.extend(
        ("two reachable", f"{seconds_in_words(lasted)}: {_allowed(run.pool, why)}")
        for why, lasted in run.overlap.items()
        if lasted
    )
    if not any(run.overlap.values()):
        found.append(("two reachable", "never"))
    found.append(("handovers", str(run.handovers)))
    found.extend(("BROKEN", broken(violation)) for violation in run.violations)
    if not run.violations:
        found.append(("invariants", "all held"))
    return found


def _allowed(pool: Pool, why: str) -> str:
    """What allowed two to be reachable."""
    words = OVERLAPS.get(why, why)
    return words if pool.proxies else words.replace("a proxy", "a gate")


def broken(violation: Violation) -> str:
    """An invariant that did not hold, in words."""
    return plain(f"{violation.name} at {clock(violation.at)}: {violation.words}")


def in_short(run: Run) -> str:
    """The summary on one line."""
    two = sum(run.overlap.values())
    parts = [f"lost {round(run.lost)} s", f"two {round(two)} s", _times(run.handovers)]
    if run.violations:
        parts.append(f"BROKEN {broken(run.violations[0])}")
    return ", ".join(parts)


def _times(handovers: int) -> str:
    return "1 handover" if handovers == 1 else f"{handovers} handovers"


def document(run: Run) -> dict[str, Any]:
    """A run for scripts: stable keys, seconds after the beginning, durations in seconds."""
    return {
        "pool": run.pool.name,
        "seed": run.seed,
        "seconds": run.seconds,
        "lost": run.lost,
        "outage": run.outage,
        "overlap": dict(run.overlap),
        "handovers": run.handovers,
        "violations": [{"name": v.name, "at": v.at, "words": v.words} for v in run.violations],
        "order": list(run.order),
        "timeline": [{"at": line.at, "who": line.who, "words": line.words} for line in run.timeline],
        "ticks": run.ticks,
        "trace_hash": run.trace_hash,
    }


def told(head: Iterable[str], run: Run, *, steps: bool = False) -> Iterator[tuple[str, str]]:
    """Everything about a run, line by line, each with a style: head, who says it, summary, broken."""
    for line in head:
        yield "head", line
    yield "", ""
    for row in rows(run.timeline, run.seconds, steps=steps):
        for line in lines(row):
            yield row.who or "quiet", line
    yield "", ""
    width = max(len(title) for title, _ in summary(run))
    for title, words in summary(run):
        first = f"  {title:<{width}}  "
        yield (
            "broken" if title == "BROKEN" else "summary",
            "\n".join(textwrap.wrap(words, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))),
        )


def styles() -> Mapping[str, Mapping[str, Any]]:
    """How a terminal shows each style; without colours the columns say it."""
    return {
        "head": {"bold": True},
        "world": {"fg": "cyan"},
        "operator": {"fg": "magenta"},
        ALERT: {"fg": "red", "bold": True},
        STEP: {"dim": True},
        "quiet": {"dim": True},
        "broken": {"fg": "red", "bold": True},
    }
