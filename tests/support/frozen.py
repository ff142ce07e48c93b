"""Every starting state of a two-by-two pool, each run in a world that stays as it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from policy_world import World, instant, make_pool

from failover.model import Admin, Assignment, Cause, Phase, Pool, StepKind

HEALTHS = ("up", "hung", "lagging", "down")
ASSIGNMENTS = (
    ("none", None, None),
    ("steady", "main", None),
    ("steady", "backup", None),
    ("fencing", "main", "backup"),
    ("fencing", "backup", "main"),
    ("promoting", "main", "main"),
    ("promoting", "backup", "backup"),
)
ADMINS = tuple(itertools.product((Admin.READY, Admin.MAINT), repeat=2))


@dataclass(frozen=True)
class Start:
    """One starting state; ``admins`` is per proxy (main's, backup's)."""

    healths: tuple[str, str]
    answering: tuple[bool, bool]
    admins: tuple[tuple[Admin, Admin], tuple[Admin, Admin]]
    checks: str
    assignment: tuple[str, str | None, str | None]

    def __str__(self) -> str:
        admins = " ".join("/".join(a.value for a in pair) for pair in self.admins)
        return f"{self.healths} answering={self.answering} {admins} {self.checks} {self.assignment}"


def starts() -> Iterator[Start]:
    """All of them, in a fixed order."""
    healths = itertools.product(HEALTHS, repeat=2)
    answering = itertools.product((True, False), repeat=2)
    admins = itertools.product(ADMINS, repeat=2)
    for row in itertools.product(healths, answering, admins, ("l7", "l4", "none"), ASSIGNMENTS):
        yield Start(*row)  # type: ignore[arg-type]


def short_pool(**fields: str) -> Pool:
    """Patience of a minute and failback after two, so that a run is a few dozen turns."""
    pool = make_pool(**fields)  # type: ignore[arg-type]
    return replace(pool, policy=replace(pool.policy, fail_over_after=60.0, fail_back_after=120.0))


class Breach(AssertionError):
    """An invariant was broken; the message begins with its name."""


class Watched(World):
    """A world that checks every step, as it is sent, against what is true."""

    def send(self, steps):  # type: ignore[no-untyped-def]
        a = self.assignment
        for step in steps:
            if step.kind is StepKind.OPEN:
                assert a is not None
                let_in = a.active if a.phase is not Phase.FENCING else None
                if step.gate.producer != let_in:
                    raise Breach(f"one-active: {step.gate} opened in {a.phase.value}, where only {let_in} may be")
                self._fenced(step.gate.producer)
        super().send(steps)

    def _fenced(self, producer: str) -> None:
        for name, door in self.doors.items():
            if not door.answers or name in self.cut:
                continue
            for other, admin in door.admin.items():
                if other != producer and admin is not Admin.MAINT:
                    raise Breach(f"fence-first: {producer} opened while {other}@{name} is open")


def build(start: Start) -> Watched:
    """The world of a starting state; long ago enough that silences count from now."""
    w = Watched(short_pool(), checks=start.checks, assigned=False)
    for name, state in zip(("main", "backup"), start.healths, strict=True):
        node = w.nodes[name]
        node.up, node.hung = state != "down", state == "hung"
        node.lag = 200 if state == "lagging" else 0
    for name, answers, admins in zip(("p1", "p2"), start.answering, start.admins, strict=True):
        w.doors[name].answers = answers
        w.set(name, main=admins[0], backup=admins[1])
    for name, door in w.doors.items():  # what a silent proxy last said is known, as after any restart
        w.board.post_reading(name, w.reading(door), instant(-1.0))
    phase, active, target = start.assignment
    if active is not None:
        w.assignment = Assignment(
            1, 1, Phase(phase), active, target, Cause.FORCED, instant(0), "start", seen=("main", "backup")
        )
    return w


def reachable_conflict(w: World) -> bool:
    """Whether two producers are admitted through proxies whose management answers."""
    open_for = {
        n for n, node in w.nodes.items() if node.well and any(d.answers and d.admits(n) for d in w.doors.values())
    }
    return len(open_for) > 1
