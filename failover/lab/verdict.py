"""What is judged of a whole story at its end: two producers at once, and a name that led to one and only one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from failover.lab.name_witness import NameWitness
from failover.lab.sessions import Interval, Overlap, hot, overlaps
from failover.lab.witness import Span, gate_overlaps

GRACE = 1.0  # seconds after a repair in which relays may still read the end of a session


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which two producers were made reachable on purpose; seconds on CLOCK_BOOTTIME."""

    what: str
    start: float
    end: float

    def covers(self, start: float, end: float) -> bool:
        """Whether an overlap from ``start`` to ``end`` is of its making."""
        return self.start <= start and end <= self.end + GRACE


@dataclass(frozen=True, slots=True)
class Verdict:
    """``false`` are the findings that spoil the story, in a few words; ``sentences`` say it all.

    ``numbers`` are for a program, JSON-ready.
    """

    false: tuple[str, ...]
    sentences: tuple[str, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(self.false + other.false, self.sentences + other.sentences, {**self.numbers, **other.numbers})


# ---------------------------------------------------------------- gates: never two


@dataclass(frozen=True, slots=True)
class Together:
    """How often two producers were reachable at once: by the relays' sessions, and by the proxies' statistics."""

    outside: tuple[str, ...]  # what was not forced, in words, each; must be empty
    forced: int  # pairs of sessions within the windows
    forced_seconds: float  # the longest of them


def judge(
    sessions: Sequence[Interval], looked: Sequence[Span], windows: Sequence[Window], *, tolerance: float
) -> Together:
    """Overlaps outside ``windows``, and the number of those inside. ``tolerance`` (seconds) is the relays'."""
    outside = [str(o) for o in overlaps(sessions, tolerance) if not _forced(o.start, o.end, windows)]
    outside += [words for start, end, words in gate_overlaps(looked) if not _forced(start, end, windows)]
    inside = [o for o in overlaps(sessions, 0.0) if _forced(o.start, o.end, windows)]
    return Together(tuple(outside), len(inside), _longest(inside))


def _forced(start: float, end: float, windows: Sequence[Window]) -> bool:
    return any(window.covers(start, end) for window in windows)


def _longest(found: Iterable[Overlap]) -> float:
    return max((o.end - o.start for o in found), default=0.0)


def gated(together: Together, windows: Sequence[Window], seen: Mapping[str, Any]) -> Verdict:
    """The verdict on a pool with proxies. ``seen``: sessions, looks and longest_gap of the witness."""
    found = len(together.outside)
    sentences = [
        f"Two producers reachable at once, outside what was forced: {found} times ({seen['sessions']} sessions that "
        f"the relays wrote down; {seen['looks']} looks at the proxies, at most {seen['longest_gap']:.2f} s apart)."
    ]
    sentences += [f"   {words}" for words in together.outside]
    if windows:
        when = ", ".join(f"{w.end - w.start:.2f} s after {w.what}" for w in windows)
        pairs = "1 pair" if together.forced == 1 else f"{together.forced} pairs"
        longest = f", the longest for {together.forced_seconds:.2f} s" if together.forced else ""
        sentences.append(f"Forced: {when}; relays had {pairs} of sessions with two producers in there{longest}.")
    numbers = {
        "overlaps": found,
        "overlapping": list(together.outside),
        "forced": {"overlaps": together.forced, "longest": round(together.forced_seconds, 3)},
        "windows": [{"what": w.what, "seconds": round(w.end - w.start, 3)} for w in windows],
        "witness": dict(seen),
    }
    return Verdict(("two producers at once",) if found else (), tuple(sentences), numbers)


# ---------------------------------------------------------------- names: always one


def gateless(sessions: Sequence[Interval]) -> Verdict:
    """What a pool without any gate cannot promise, in numbers: nothing of it is false."""
    fetched, connected = overlaps(hot(sessions)), overlaps(sessions)
    sentence = (
        f"Relays fetched blocks from two producers at once in {_pairs(fetched)}, and were connected to two in "
        f"{_pairs(connected)}: a record points, and shuts nobody out. Only a gate mends that."
    )
    numbers = {
        "sessions": len(sessions),
        "fetched": {"overlaps": len(fetched), "longest": round(_longest(fetched), 3)},
        "connected": {"overlaps": len(connected), "longest": round(_longest(connected), 3)},
    }
    return Verdict((), (sentence,), numbers)


def _pairs(found: Sequence[Overlap]) -> str:
    longest = f" (the longest for {_longest(found):.1f} s)" if found else ""
    return f"{len(found)} pair{'' if len(found) == 1 else 's'} of sessions{longest}"


def never_empty(names: NameWitness) -> Verdict:
    """The verdict on every answer of every DNS server."""
    wrong, count, gap = names.wrong(), names.count(), names.longest_gap()
    held = "had exactly one address" if not wrong else "should have had exactly one address, and did not"
    servers = " and ".join(names.looks)
    sentences = [f"Every one of {count} answers of {servers} for {names.name} {held} (at most {gap:.2f} s apart)."]
    sentences += [f"   {words}" for words in wrong]
    numbers = {"answers": {"count": count, "longest_gap": round(gap, 3), "wrong": wrong}}
    false = ("an answer without exactly one address",) if wrong or not count else ()
    return Verdict(false, tuple(sentences), numbers)
