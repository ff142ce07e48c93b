"""A history of who was up, played through the policy: what the controller would have done.

The same board and the same tick as in the daemon; only what they are fed is made up, from the history. A sample is
what every ping says until the next one. Where there is none, nothing is known, and nobody is pinged: a gap in the
history proves neither an outage nor health.

What is assumed: proxies answer, agree with the history, and obey at once (a record's provider likewise); references
answer; tips are not known, so nobody is lagging or stuck; nobody asks for anything by hand. Without any gate the
records are moved; beside proxies they are left out.

Theory of operation. A turn is one ping interval: observations are posted, then decisions are made and carried out
until nothing more is written. A turn can be left out when it would repeat the one before: the role is steady, every
producer's health has settled to what its samples say, and nothing that was asked for comes due. Then the tracks are
moved forward to shortly before the next change, as those pings would have done.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from failover import handover
from failover.board import Board
from failover.errors import FailoverError
from failover.health import Track
from failover.journal import iso, plain
from failover.model import (
    Admin,
    Assignment,
    Cause,
    Check,
    DnsAnswer,
    Health,
    Instant,
    Lease,
    Phase,
    Ping,
    Pointing,
    Pool,
    ProxyReading,
    RecordReading,
    RRset,
    ServerView,
    Step,
    StepKind,
)
from failover.simulator.prometheus import History, Sample
from failover.status import span
from failover.tick import Memory, Outcome, tick

GAP = 3  # steps from one sample to the next at most; in between longer ones nothing is known
BEFORE = 3  # turns that are played in full before something changes
ROUNDS = 12  # decisions in one turn at most: a handover has three, a redirected one five
ROUND = 0.01  # seconds between them: each phase wants readings that are younger than itself
MOST_ROWS = 200  # moves that are told one by one
REPORTS = 200  # times that progress is told
SESSIONS = 2  # of a server that serves
UP_FOR = 1e6  # seconds for which the proxies have been up: nothing is hidden by a reload
FORCED = (Cause.FORCED, Cause.AT_ONCE)


@dataclass(frozen=True, slots=True)
class Move:
    """One handover that would have been begun. ``at`` is in Unix seconds.

    ``what`` is failover (the active is down), failback (the preferred one has proved itself) or handover.
    ``up_again`` is after how many seconds ``origin`` was up again, if that made it a false alarm.
    """

    at: float
    what: str
    origin: str | None
    target: str | None
    cause: str
    reason: str
    up_again: float | None = None


@dataclass(frozen=True, slots=True)
class Outages:
    """How often, and for how many seconds, the history shows a producer down. ``known``: seconds that it tells of."""

    producer: str
    count: int
    longest: float
    total: float
    known: float


@dataclass(frozen=True, slots=True)
class Absence:
    """Seconds in which no producer that was up was admitted: in all, and the longest time at a stretch."""

    total: float
    longest: float


@dataclass(frozen=True, slots=True)
class Replay:
    """What would have been done, and what it would have been worth.

    ``controlled`` and ``alone`` (the preferred producer, and nobody to take over) are over the same seconds, those in
    which the history tells of both; ``nobody_up`` are those of them in which no producer was known to be up, so that
    no controller could have helped. ``unknown``: seconds of which the history tells nothing at all.
    ``single_samples`` is how often a script that moves at the first failed sample would have left the preferred one.
    ``turns`` were played in full.
    """

    pool: str
    start_utc: float
    end_utc: float
    step: float
    preferred: str
    gateless: bool
    moves: tuple[Move, ...]
    outages: tuple[Outages, ...]
    alarm_within: float
    single_samples: int
    controlled: Absence
    alone: Absence
    nobody_up: float
    unknown: float
    turns: int

    @property
    def failovers(self) -> int:
        """Handovers away from a producer that was down."""
        return sum(move.what == "failover" for move in self.moves)

    @property
    def failbacks(self) -> int:
        """Handovers back to the preferred producer, in order."""
        return sum(move.what == "failback" for move in self.moves)

    @property
    def false_alarms(self) -> int:
        """Failovers after which the old producer was up again so soon that waiting would have been as good."""
        return sum(move.up_again is not None for move in self.moves)

    @property
    def gained(self) -> float:
        """Seconds with a producer that would have been without one; negative if the controller made it worse."""
        return self.alone.total - self.controlled.total


def replay(
    pool: Pool,
    history: History,
    *,
    progress: Callable[[float], None] | None = None,
    alarm_within: float | None = None,
    every_ping: bool = False,
) -> Replay:
    """Play the history through this pool's policy.

    ``progress`` is told the share that is done, up to 1. ``alarm_within`` (seconds; as a rule ``fail_over_after``) is
    how soon after a failover the old producer must be up again for that to count as a false alarm. ``every_ping``
    leaves nothing out: slower, and the same outcome. Raises FailoverError for a history that is not this pool's.
    """
    strangers = [name for name in history.series if name not in pool.names]
    if strangers:
        raise FailoverError(
            f"the history tells of {plain(strangers[0])!r}, which is no producer of this pool; "
            f"there are {', '.join(pool.names)}",
            "let it tell of this pool's producers only",
        )
    pool = replace(pool, mode="act", records=pool.records if pool.gateless else ())
    lines = {name: _spans(history, history.series.get(name, ())) for name in pool.names}
    if not any(lines.values()):
        raise FailoverError("the history tells nothing of any producer", "ask for another time, or another query")
    play = _Play(pool, history, lines)
    play.run(progress or (lambda share: None), every_ping)
    within = pool.policy.fail_over_after if alarm_within is None else alarm_within
    return Replay(
        pool=pool.name,
        start_utc=history.start_utc,
        end_utc=history.end_utc,
        step=history.step,
        preferred=pool.preferred,
        gateless=pool.gateless,
        moves=tuple(_judged(move, lines, within) for move in play.moves),
        outages=tuple(_outages(name, lines[name]) for name in pool.names),
        alarm_within=within,
        single_samples=_single_samples(pool, lines),
        controlled=play.controlled.absence(),
        alone=play.alone.absence(),
        nobody_up=play.nobody_up * pool.health.interval,
        unknown=play.unknown * pool.health.interval,
        turns=play.turns,
    )


# ---------------------------------------------------------------- the history as spans


@dataclass(frozen=True, slots=True)
class _Span:
    """From when until when (Unix seconds) a producer was seen so."""

    begin: float
    end: float
    up: bool


def _spans(history: History, samples: tuple[Sample, ...]) -> tuple[_Span, ...]:
    """Spans in order; between those that do not touch nothing is known."""
    spans: list[_Span] = []
    for number, sample in enumerate(samples):
        following = samples[number + 1].at if number + 1 < len(samples) else math.inf
        if following <= sample.at:
            raise ValueError("samples are in order of time")
        end = following if following - sample.at <= (GAP + 0.5) * history.step else sample.at + history.step
        begin, end = max(sample.at, history.start_utc), min(end, history.end_utc)
        if end <= begin:
            continue
        if spans and spans[-1].end == begin and spans[-1].up is sample.up:
            spans[-1] = replace(spans[-1], end=end)
        else:
            spans.append(_Span(begin, end, sample.up))
    return tuple(spans)


def _outages(name: str, spans: tuple[_Span, ...]) -> Outages:
    lengths = [each.end - each.begin for each in spans if not each.up]
    known = sum(each.end - each.begin for each in spans)
    return Outages(name, len(lengths), max(lengths, default=0.0), sum(lengths), known)


def _single_samples(pool: Pool, lines: Mapping[str, tuple[_Span, ...]]) -> int:
    """How often the preferred producer's samples turn to down while another producer is known to be up."""
    others = [iter(lines[name]) for name in pool.others(pool.preferred)]
    present = [next(spans, None) for spans in others]
    count = 0
    for outage in lines[pool.preferred]:
        if outage.up:
            continue
        for number, spans in enumerate(others):
            while (at := present[number]) is not None and at.end <= outage.begin:
                present[number] = next(spans, None)
        count += any(at is not None and at.up and at.begin <= outage.begin for at in present)
    return count


def _judged(move: Move, lines: Mapping[str, tuple[_Span, ...]], within: float) -> Move:
    """The move, marked if it left a producer that was soon up again."""
    if move.what != "failover" or move.origin is None:
        return move
    spans = lines[move.origin]
    for each in spans[bisect_right(spans, move.at, key=lambda span: span.end) :]:
        again = max(0.0, each.begin - move.at)
        if each.up or again > within:
            return replace(move, up_again=again) if again <= within else move
    return move


class _Line:
    """One producer's spans in turns, asked for in order of time."""

    __slots__ = ("_index", "_spans")

    def __init__(self, spans: tuple[_Span, ...], start: float, interval: float) -> None:
        rows: list[tuple[int, int, bool]] = []
        for each in spans:
            first, end = (math.ceil((at - start) / interval) for at in (each.begin, each.end))
            if end <= first:
                continue  # between two pings
            if rows and rows[-1][1] == first and rows[-1][2] is each.up:
                rows[-1] = (rows[-1][0], end, each.up)
            else:
                rows.append((first, end, each.up))
        self._spans = rows
        self._index = 0

    def at(self, turn: int) -> tuple[bool | None, int | None]:
        """Up, down, or None for unknown, and the turn at which that changes (None: never)."""
        spans = self._spans
        while self._index < len(spans) and spans[self._index][1] <= turn:
            self._index += 1
        if self._index == len(spans):
            return None, None
        first, end, up = spans[self._index]
        return (up, end) if first <= turn else (None, first)


# ---------------------------------------------------------------- the play


class _Tally:
    """Turns without anybody, and how many of them at a stretch."""

    __slots__ = ("_interval", "_longest", "_now", "_total")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._total = self._now = self._longest = 0

    def add(self, turns: int, without: bool) -> None:
        self._now = self._now + turns if without else 0
        self._total += turns if without else 0
        self._longest = max(self._longest, self._now)

    def absence(self) -> Absence:
        return Absence(self._total * self._interval, self._longest * self._interval)


class _Play:
    """One run: the truth (the history, obedient gates), the board, and the controller's stored value."""

    def __init__(self, pool: Pool, history: History, lines: Mapping[str, tuple[_Span, ...]]) -> None:
        self.pool = pool
        self.interval = pool.health.interval
        self.start = self.begun = history.start_utc
        self.last = math.ceil((history.end_utc - history.start_utc) / self.interval)
        self.lines = {name: _Line(lines[name], self.start, self.interval) for name in pool.names}
        self.moves: list[Move] = []
        self.controlled = _Tally(self.interval)
        self.alone = _Tally(self.interval)
        self.nobody_up = self.unknown = self.turns = 0
        begin = self._instant(0)
        self.board = Board(pool, begin)
        self.board.lease = Lease("replay", 1, begin.after((self.last + 1) * self.interval))
        self.board.steering = True
        self.memory = Memory()
        self.assignment: Assignment | None = None
        self.open: dict[str, bool] = dict.fromkeys(pool.names, False)  # in every proxy alike
        self.holds: dict[str, RRset] = {}  # by record

    def run(self, progress: Callable[[float], None], every_ping: bool) -> None:
        turn, told = 0, 0
        while turn < self.last:
            states = {name: line.at(turn) for name, line in self.lines.items()}
            seen = {name: state for name, (state, _) in states.items()}
            changes = [change for _, change in states.values() if change is not None]
            change = min([self.last, *changes])
            if all(state is None for state in seen.values()):
                self._count(seen, change - turn)
                turn = change
            else:
                outcome, now = self._turn(turn, seen)
                ahead = turn + 1 if every_ping else self._ahead(turn, change, seen, outcome, now)
                self._count(seen, ahead - turn)
                if ahead > turn + 1:
                    self._skip(ahead - turn - 1, ahead - 1, seen)
                turn = ahead
            if turn * REPORTS >= (told + 1) * self.last:
                told = turn * REPORTS // self.last
                progress(turn / self.last)

    def _instant(self, turn: int, late: float = 0.0) -> Instant:
        seconds = turn * self.interval + late
        return Instant("replay", UP_FOR + seconds, self.start + seconds)

    # ------------------------------------------------------------ one turn

    def _turn(self, turn: int, seen: Mapping[str, bool | None]) -> tuple[Outcome, Instant]:
        """Post what is seen, then decide and carry out until nothing more is written."""
        self.turns += 1
        now = self._instant(turn)
        self.begun = now.utc
        if self.assignment is None:
            self._begin(seen, now)
        for name, up in seen.items():
            if up is not None:
                self.board.post_ping(name, _ping(up, now), self.board.yardstick(name, now))
        for name in self.board.references:
            self.board.post_reference(name, _ping(True, now))
        self._read(seen, now)
        for number in range(1, ROUNDS + 1):
            now = self._instant(turn, number * ROUND)
            outcome = self._decide(now)
            if not outcome.changed and not outcome.steps and not outcome.pointings:
                break
            self._send(outcome.steps)
            self._point(outcome.pointings, now)
            self._read(seen, self._instant(turn, (number + 0.5) * ROUND))
        return outcome, now

    def _begin(self, seen: Mapping[str, bool | None], now: Instant) -> None:
        """Steady on the preferred producer, or where that is down on the first that is up."""
        up = [name for name, state in seen.items() if state]
        preferred = self.pool.preferred
        active = preferred if seen[preferred] is not False or not up else up[0]
        reason = "the history begins"
        names = self.pool.names
        self.assignment = Assignment(1, 1, Phase.STEADY, active, None, Cause.ADOPTED, now, reason, term=1, seen=names)
        self.open[active] = True
        self.holds = {record.label: record.wanted(active) for record in self.pool.records}

    def _read(self, seen: Mapping[str, bool | None], at: Instant) -> None:
        for proxy in self.pool.proxies:
            self.board.post_reading(proxy.name, self._reading(seen, at), at)
        for label, rrset in self.holds.items():
            self.board.post_record(label, RecordReading(rrset), at)
            self.board.post_answers(label, (DnsAnswer("history", True, rrset),), at)

    def _reading(self, seen: Mapping[str, bool | None], at: Instant) -> ProxyReading:
        servers = {}
        for name, up in seen.items():
            check = Check.NONE if up is None else Check.PASSED_L7 if up else Check.FAILED
            if not self.open[name]:
                servers[name] = ServerView(Admin.MAINT, "MAINT", 0, check)
            elif up is False:
                servers[name] = ServerView(Admin.READY, "DOWN", 0, check)
            else:
                servers[name] = ServerView(Admin.READY, "UP", SESSIONS, check)
        return ProxyReading(servers, "1", at.mono)

    def _decide(self, now: Instant) -> Outcome:
        # A producer that the history never tells of is unknown, but nothing is waited for.
        view = replace(self.board.view(), pinged=frozenset(self.pool.names))
        before = self.assignment
        outcome = tick(self.pool, view, before, (), self.memory, now)
        self.memory, self.assignment = outcome.memory, outcome.assignment
        after = outcome.assignment
        if after is not None and before is not None and after.generation != before.generation:
            self.moves.append(self._move(before, after))
        return outcome

    def _move(self, before: Assignment, after: Assignment) -> Move:
        origin = before.active if before.phase is Phase.STEADY else before.target
        back = after.cause is Cause.VOLUNTARY and after.target == self.pool.preferred
        what = "failover" if after.cause in FORCED else "failback" if back else "handover"
        return Move(self.begun, what, origin, after.target, after.cause.value, after.reason)

    def _send(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            self.board.post_sent(step.gate.place, step.kind, step.gate.producer)
            self.open[step.gate.producer] = step.kind is StepKind.OPEN

    def _point(self, pointings: tuple[Pointing, ...], now: Instant) -> None:
        for pointing in pointings:
            wanted = pointing.change.wanted
            self.board.post_pointed(pointing.record, wanted, now)
            self.board.post_accepted(pointing.record, wanted, "", now, generation=pointing.generation)
            self.holds[pointing.record] = wanted

    # ------------------------------------------------------------ turns that repeat the one before

    def _ahead(self, turn: int, change: int, seen: Mapping[str, bool | None], outcome: Outcome, now: Instant) -> int:
        """The next turn that has to be played."""
        a = self.assignment
        busy = outcome.changed or outcome.steps or outcome.pointings
        if a is None or a.phase is not Phase.STEADY or busy:
            return turn + 1
        if not all(self._settled(self.board.tracks[name], up, now) for name, up in seen.items()):
            return turn + 1
        # Failovers are forgotten after a day: that shortens the wait for failback, and no rule asks to be woken for it.
        due = [failover.after(handover.DAY).mono - now.mono for failover in a.failovers]
        due = [seconds for seconds in due if seconds > -self.interval]  # at the very instant it still counts
        if outcome.wake_in is not None:
            due.append(outcome.wake_in)
        quiet = math.floor((min(due) + now.mono - UP_FOR) / self.interval) if due else change
        return max(turn + 1, min(change, quiet) - BEFORE)

    def _settled(self, track: Track, up: bool | None, now: Instant) -> bool:
        """Whether more pings like the last one change nothing but their number."""
        if up is None:
            return track.last is None or now.since(track.last.at) > self.pool.health.max_gap
        if up:
            return track.health is Health.UP and track.trouble_from is None
        return track.health is Health.DOWN

    def _skip(self, turns: int, last: int, seen: Mapping[str, bool | None]) -> None:
        """Count so many more pings like the last one, of which the last was in turn ``last``."""
        at = self._instant(last)
        for name, up in seen.items():
            track = self.board.tracks[name]
            if up is not None:
                oks, fails = (track.oks + turns, 0) if up else (0, track.fails + turns)
                self.board.tracks[name] = replace(track, oks=oks, fails=fails, last=_ping(up, at))

    # ------------------------------------------------------------ what it was worth

    def _count(self, seen: Mapping[str, bool | None], turns: int) -> None:
        if all(state is None for state in seen.values()):
            self.unknown += turns
            self.controlled.add(0, False)
            self.alone.add(0, False)
            return
        if self.pool.gateless:
            admitted = {r.points_to(self.holds[r.label]) for r in self.pool.records}
        else:
            admitted = {name for name, is_open in self.open.items() if is_open}
        preferred = seen[self.pool.preferred]
        if preferred is None or any(seen[name] is None for name in admitted if name is not None):
            self.controlled.add(0, False)  # not to be compared: a stretch ends here
            self.alone.add(0, False)
            return
        nobody = not any(name is not None and seen[name] for name in admitted)
        self.controlled.add(turns, nobody)
        self.alone.add(turns, not preferred)
        if not any(seen.values()):
            self.nobody_up += turns


def _ping(up: bool, at: Instant) -> Ping:
    return Ping(at, at, True) if up else Ping(at, at, False, stage="connect", error="the history says down")


# ---------------------------------------------------------------- telling it


def sentences(result: Replay) -> Iterator[str]:
    """The report as lines of plain text; at most ``MOST_ROWS`` moves are told one by one."""
    length = span(result.end_utc - result.start_utc)
    yield f"{result.pool}: {iso(result.start_utc)} to {iso(result.end_utc)} ({length}), a sample each {result.step:g} s"
    if result.unknown > GAP * result.step:
        yield f"Nothing is known of {span(result.unknown)} of it; nothing is assumed there."
    for each in result.outages:
        if each.known == 0:
            yield f"{each.producer}: the history tells nothing of it"
        elif each.count == 0:
            yield f"{each.producer}: never down"
        else:
            times = _times(each.count)
            yield f"{each.producer}: down {times}, at most {span(each.longest)}, {span(each.total)} in all"
    yield ""
    yield from _told(result)
    yield ""
    yield from _totals(result)


def _told(result: Replay) -> Iterator[str]:
    if not result.moves:
        yield "The role would never have been moved."
        return
    yield "What would have been done" + (" (by moving the records alone):" if result.gateless else ":")
    for move in result.moves[:MOST_ROWS]:
        again = ""
        if move.up_again is not None:
            again = f"; FALSE ALARM: {move.origin} was up again {span(move.up_again)} later"
        yield plain(f"{iso(move.at)}  {move.what}  {move.origin} -> {move.target} ({move.cause}): {move.reason}{again}")
    if len(result.moves) > MOST_ROWS:
        yield f"and {len(result.moves) - MOST_ROWS} more"


def _totals(result: Replay) -> Iterator[str]:
    yield (
        f"Failovers: {result.failovers}; failbacks: {result.failbacks}; false alarms: {result.false_alarms} "
        f"(up again within {span(result.alarm_within)})."
    )
    yield (
        f"A script that moves at the first failed sample would have left {result.preferred} "
        f"{_times(result.single_samples)}."
    )
    alone, controlled = result.alone, result.controlled
    yield (
        f"Without a producer, with {result.preferred} alone: {span(alone.total)}, "
        f"at most {span(alone.longest)} at a stretch."
    )
    yield (
        f"Without a producer, with the controller: {span(controlled.total)}, "
        f"at most {span(controlled.longest)} at a stretch."
    )
    if result.nobody_up:
        yield f"In {span(result.nobody_up)} of that no producer was up."
    yield f"Gained: {span(result.gained)}." if result.gained >= 0 else f"Lost: {span(-result.gained)}."


def _times(count: int) -> str:
    return "never" if count == 0 else "once" if count == 1 else f"{count} times"


def document(result: Replay) -> dict[str, Any]:
    """The report for ``--json``: stable keys, UTC times in ISO 8601, durations in seconds."""
    return {
        "pool": result.pool,
        "from": iso(result.start_utc),
        "to": iso(result.end_utc),
        "step": result.step,
        "unknown_seconds": result.unknown,
        "producers": [
            {
                "name": each.producer,
                "outages": each.count,
                "longest_seconds": each.longest,
                "down_seconds": each.total,
                "known_seconds": each.known,
            }
            for each in result.outages
        ],
        "moves": [
            {
                "at": iso(move.at),
                "what": move.what,
                "from": move.origin,
                "to": move.target,
                "cause": move.cause,
                "reason": move.reason,
                "false_alarm": move.up_again is not None,
                "up_again_seconds": move.up_again,
            }
            for move in result.moves
        ],
        "failovers": result.failovers,
        "failbacks": result.failbacks,
        "false_alarms": result.false_alarms,
        "false_alarm_within": result.alarm_within,
        "single_sample_alarms": result.single_samples,
        "without_producer": {
            "alone_seconds": result.alone.total,
            "alone_longest_seconds": result.alone.longest,
            "controlled_seconds": result.controlled.total,
            "controlled_longest_seconds": result.controlled.longest,
            "nobody_up_seconds": result.nobody_up,
        },
        "gained_seconds": result.gained,
    }
