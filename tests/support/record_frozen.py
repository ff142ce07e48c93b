"""Every starting state of a pool with one record, without any gate or beside two proxies, and bad nights for it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random  # noqa: TID251  chance of the test's own, by seed

from frozen import ASSIGNMENTS, HEALTHS, Breach, Watched
from policy_world import TURN, instant, make_gateless_pool, make_pool

from failover.model import Assignment, Cause, Phase, Pointing, RecordType, RRset, Verb

NAME = "bp.example.com."
BOTH = RRset(RecordType.A, ("203.0.113.10", "203.0.113.20"), 60)
NOBODY = RRset(RecordType.A, ("198.51.100.7",), 60)
FAULTS = (
    *("die", "die", "live", "live", "hang", "lag", "silent", "silent", "answer", "loses", "keeps"),
    *("hand", "empty", "several", "other", "frozen", "ask", "force"),
)
HOLDS = ("main", "backup", "both", "nothing", "nobody")


@dataclass(frozen=True)
class RecordStart:
    """One starting state: how the producers are, and the record, its provider and the assignment."""

    gateless: bool
    healths: tuple[str, str]
    holds: str
    answers: bool
    loses: bool
    assignment: tuple[str, str | None, str | None]


def record_starts() -> Iterator[RecordStart]:
    """All of them, in a fixed order."""
    healths = tuple(itertools.product(HEALTHS, repeat=2))
    for row in itertools.product((True, False), healths, HOLDS, (True, False), (True, False), ASSIGNMENTS):
        yield RecordStart(*row)  # type: ignore[arg-type]


class SignWatched(Watched):
    """A world that checks every change of a record, as it is sent, against what is true."""

    def point(self, pointings: tuple[Pointing, ...]) -> None:
        a = self.assignment
        for pointing in pointings:
            wanted = pointing.change.wanted
            if len(wanted.values) != 1 or wanted.ttl < 60:
                raise Breach(f"dns-never-empty: {wanted}")
            if a is None or a.phase is Phase.FENCING or pointing.producer != a.active:
                raise Breach(f"one-active: {pointing} sent in {a.phase.value if a else 'no phase'}")
            if not self.pool.gateless and a.phase is Phase.PROMOTING:
                self._fenced(pointing.producer)
            if self.board.isolated or a.released:
                raise Breach(f"not-blind: {pointing}")
        super().point(pointings)


def make_world(*, gateless: bool, active: str | None = None) -> SignWatched:
    pool = make_gateless_pool() if gateless else make_pool(records=(NAME,))
    pool = replace(pool, policy=replace(pool.policy, fail_over_after=60.0, fail_back_after=120.0))
    return SignWatched(pool, active=active, assigned=active is not None)


def build(start: RecordStart) -> SignWatched:
    """The world of a starting state."""
    w = make_world(gateless=start.gateless)
    for name, state in zip(("main", "backup"), start.healths, strict=True):
        node = w.nodes[name]
        node.up, node.hung = state != "down", state == "hung"
        node.lag = 200 if state == "lagging" else 0
    sign = w.signs[NAME]
    sign.answers, sign.loses = start.answers, start.loses
    held = {"both": BOTH, "nothing": None, "nobody": NOBODY}
    sign.rrset = held[start.holds] if start.holds in held else w.pool.records[0].wanted(start.holds)
    phase, active, target = start.assignment
    if active is not None:
        w.assignment = Assignment(
            1, 1, Phase(phase), active, target, Cause.FORCED, instant(0), "start", seen=("main", "backup")
        )
    return w


@dataclass
class RecordNight:
    """What happened in one night of faults, and after it all healed."""

    world: SignWatched
    faults: list[str] = field(default_factory=list)
    too_early: list[str] = field(default_factory=list)
    by_itself: list[str] = field(default_factory=list)


@functools.cache
def record_night(seed: int, *, gateless: bool) -> RecordNight:
    """150 turns with faults, 460 without: long enough for another hand to be forgotten."""
    random = Random(seed)
    w = make_world(gateless=gateless, active="main")
    result = RecordNight(w)
    bad: dict[str, list[bool]] = {n: [] for n in w.pool.names}
    for turn in range(610):
        if turn == 150:
            _heal(w)
        elif turn < 150 and random.random() < 0.2:
            result.faults.append(_fault(w, random))
        seen, active = len(w.generations), w.active
        running = w.assignment is not None and w.assignment.phase is not Phase.STEADY
        w.observe()
        for name, track in w.board.tracks.items():
            bad[name].append(track.last is not None and (not track.last.ok or track.sync.value == "lagging"))
        w.decide()
        for when, cause, target in () if running else w.generations[seen:]:
            if gateless and cause in ("voluntary", "unfit", "at-once"):
                result.by_itself.append(f"{when}: {cause} to {target}")
            if cause == "forced" and active is not None and sum(bad[active][-13:]) * TURN < 60.0:
                result.too_early.append(f"{when}: {active} -> {target}")
        w.t += TURN
    return result


def _fault(w: SignWatched, random: Random) -> str:
    name = random.choice(list(w.nodes))
    node, sign = w.nodes[name], w.signs[NAME]
    kind = random.choice(FAULTS)
    if kind in ("die", "live"):
        node.up, node.hung, node.lag = kind == "live", False, 0
    elif kind == "hang":
        node.hung = True
    elif kind == "lag":
        node.lag = 0 if node.lag else 200
    elif kind in ("silent", "answer"):
        sign.answers = kind == "answer"
    elif kind in ("loses", "keeps"):
        sign.loses = kind == "loses"
    elif kind == "frozen":
        sign.frozen ^= {"ns2"}
    elif kind in ("ask", "force"):
        w.ask(Verb.SWITCHOVER, name, force=kind == "force", seconds=200.0)
    else:
        foreign = {"hand": w.pool.records[0].wanted(name), "empty": None, "several": BOTH, "other": NOBODY}
        sign.rrset = foreign[kind]
    return f"{w.t}: {kind} {name}"


def _heal(w: SignWatched) -> None:
    for node in w.nodes.values():
        node.up, node.hung, node.lag = True, False, 0
    sign = w.signs[NAME]
    sign.answers, sign.loses = True, False
    sign.frozen.clear()
