"""Starting states of pools whose producers have gates of their own, each run in a world that stays as it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random  # noqa: TID251  chance of the test's own, by seed

from frozen import ASSIGNMENTS
from policy_world import TURN, Switch, World, instant, make_pool

from failover.model import (
    Admin,
    Assignment,
    Cause,
    Gate,
    GateKind,
    PassedOver,
    Phase,
    Pool,
    Step,
    StepKind,
)
from failover.situation import Situation

FORGING, FIREWALL, POWER = GateKind.FORGING, GateKind.FIREWALL, GateKind.POWER
HOUR = 3600.0
QUIET = 420.0  # seconds: longer than any rest that a handover or two leaves (failback twice as slow, another hand)

POOLS: dict[str, dict[str, object]] = {
    "forging": {"proxies": (), "gates": (FORGING,)},
    "proxies+forging": {"gates": (FORGING,)},
    "proxies+forging confirmed": {"gates": (FORGING,), "require": "confirmed"},
    "forging+power confirmed": {"proxies": (), "gates": (FORGING, POWER), "require": "confirmed"},
    "forging+firewall": {"proxies": (), "gates": (FORGING, FIREWALL)},
    "three": {"proxies": (), "gates": (FORGING,), "producers": ("main", "backup", "third")},
}
HEALTHS = ("up", "down", "hung", "lagging", "expired")
STATES = ("open", "closed", "unsure", "between", "silent-open", "silent-closed", "silent-never")
SILENT = frozenset(s for s in STATES if s.startswith("silent"))
SIDES = tuple(itertools.product(HEALTHS, STATES))
CAUSES = (Cause.FORCED, Cause.VOLUNTARY, Cause.TAKEN_BACK, Cause.BY_HAND)
Side = tuple[str, str]  # a producer's health, and the state of the gates on its host


@dataclass(frozen=True)
class GateStart:
    """One starting state; what it does not say (the cause, proxies, power, a third producer) is drawn from it."""

    pool: str
    assignment: tuple[str, str | None, str | None]
    sides: tuple[Side, Side]

    def __str__(self) -> str:
        return f"{self.pool}: {'/'.join(map(str, self.assignment))} main={self.sides[0]} backup={self.sides[1]}"


def gate_starts() -> Iterator[GateStart]:
    """All of them, in a fixed order."""
    for pool, assignment, main, backup in itertools.product(POOLS, ASSIGNMENTS, SIDES, SIDES):
        yield GateStart(pool, assignment, (main, backup))


def short_gates(kind: str) -> Pool:
    """Patience of a minute and failback after two, so that a run is a few dozen turns."""
    pool = make_pool(metrics=True, **POOLS[kind])  # type: ignore[arg-type]
    return replace(pool, policy=replace(pool.policy, fail_over_after=60.0, fail_back_after=120.0))


class Broken(AssertionError):
    """An invariant was broken; the message begins with its name."""


class GateWatched(World):
    """A world that checks every step, as it is sent, against what is true."""

    def __init__(self, pool: Pool, *, active: str | None = None) -> None:
        super().__init__(pool, active=active, assigned=active is not None)
        self.unrecorded: list[str] = []
        self.strict = pool.fence.require == "confirmed"

    # ------------------------------------------------------------ what is true

    def on_host(self, name: str, *kinds: GateKind) -> list[tuple[Gate, Switch]]:
        return [(g, s) for g, s in self.switches.items() if g.producer == name and g.kind in kinds]

    def heard(self, gate: Gate) -> bool:
        """Whether this gate answers the controller."""
        if gate.place in self.doors:
            return self.doors[gate.place].answers and gate.place not in self.cut
        return self.switches[gate].answers and gate.producer not in self.cut

    def not_shut(self, name: str) -> list[Gate]:
        """Every gate of the producer that is not shut, in truth: proxies, forging, firewall."""
        doors = [Gate(p, name) for p, door in self.doors.items() if door.admin[name] is not Admin.MAINT]
        return doors + [g for g, s in self.on_host(name, FORGING, FIREWALL) if self.may_pass(s)]

    def may_pass(self, switch: Switch) -> bool:
        """Whether blocks may pass; under ``confirmed`` also where a closed gate cannot show that it is."""
        return switch.open or switch.between or (self.strict and not switch.certain)

    def out(self, name: str) -> bool:
        """Whether its blocks may get out, in truth; a node that hangs may make some."""
        host = self.on_host(name, FORGING, FIREWALL)
        if not self.nodes[name].up or any(not s.open for _, s in self.on_host(name, POWER)):
            return False
        through = not self.doors or any(d.admin[name] is not Admin.MAINT for d in self.doors.values())
        return through and all(self.may_pass(s) for _, s in host)

    def fit(self, name: str) -> bool:
        node = self.nodes[name]
        return node.well and not node.lag and name not in self.expired

    # ------------------------------------------------------------ every step

    def send(self, steps: tuple[Step, ...]) -> None:
        a = self.assignment
        assert a is not None or not steps
        for step in steps:
            assert a is not None
            if self.board.isolated or a.released or self.pool.mode == "observe":
                raise Broken(f"not-blind: {step}")
            if step.kind is StepKind.OPEN:
                self._opens(a, step)
            else:
                self._closes(a, step)
        super().send(steps)

    def _opens(self, a: Assignment, step: Step) -> None:
        gate = step.gate
        if gate.kind is POWER:
            raise Broken(f"power: {gate} switched on")
        let_in = a.active if a.phase is not Phase.FENCING else None
        if gate.producer != let_in:
            raise Broken(f"one-active: {gate} opened in {a.phase.value}, where only {let_in} may be")
        for other in self.pool.others(gate.producer):
            if self.out(other):
                self._excused(a, gate, other)

    def _excused(self, a: Assignment, gate: Gate, other: str) -> None:
        """Another producer's blocks may get out: only through silent gates that were passed over, and said to be."""
        words = f"fence-first: {gate} opened at {self.t} in {a.phase.value} ({a.cause.value}) while {other} may get out"
        ways = self.not_shut(other)
        heard = [str(g) for g in ways if self.heard(g) and not (a.forced_by_hand and self._seen_shut(g))]
        if heard:
            raise Broken(f"{words}: {', '.join(heard)} answers and is open")
        if any(self._seen_shut(g) for g in ways) and (not self.strict or a.forced_by_hand):
            return  # moved while nobody could look
        recorded = [p.gate for p in a.passed_over if p.gate.producer == other and not self.heard(p.gate)]
        hasty = [str(g) for g in ways if self._silent_for(g) < self.pool.policy.fail_over_after - TURN]
        if hasty and (a.generation > 1 or not recorded):  # what was passed over before we looked was so in its time
            raise Broken(f"{words}: {', '.join(hasty)} has not been silent for long")
        if self.strict and not (recorded and (a.forced_by_hand or a.cause is Cause.BY_HAND)):
            raise Broken(f"{words}: nothing confirmed it")
        situation = Situation(self.pool, self.board.view(), a, instant(self.t))
        if not recorded and not situation.down(other):
            raise Broken(f"{words}, and is not down")
        if not recorded and a.phase is Phase.PROMOTING and a.generation > 1:
            raise Broken(f"{words}: passed over, and not recorded")
        told = " ".join(self.alerts)
        untold = [str(g) for g in ways if str(g) not in told and f"{g.place} has been silent" not in told]
        if untold:
            self.unrecorded.append(f"{words}: nobody was told of {', '.join(untold)}")

    def _silent_for(self, gate: Gate) -> float:
        tracks = self.board.gates if gate in self.board.gates else self.board.proxies
        since = tracks[gate if gate in self.board.gates else gate.place].silent_since  # type: ignore[index]
        return 0.0 if since is None else instant(self.t).since(since)

    def _seen_shut(self, gate: Gate) -> bool:
        if gate in self.board.gates:
            return self.board.gates[gate].is_open is False
        reading = self.board.proxies[gate.place].reading
        return reading is not None and reading.servers[gate.producer].admin is Admin.MAINT

    def _closes(self, a: Assignment, step: Step) -> None:
        gate = step.gate
        stays = a.target if a.phase is Phase.FENCING else a.active
        if gate.producer == stays:
            raise Broken(f"no-harm: {gate} closed in {a.phase.value}, where {stays} is to stay")
        if a.phase is Phase.STEADY and (stays is None or not self.nodes[stays].well):
            raise Broken(f"no-harm: {gate} closed while {stays}, the active, does not answer")
        if gate.kind is not POWER:
            return
        situation = Situation(self.pool, self.board.view(), a, instant(self.t))
        ways = [Gate(p, gate.producer) for p in self.doors]
        ways += [g for g, _ in self.on_host(gate.producer, FORGING, FIREWALL)]
        if a.phase is not Phase.FENCING or a.cause in (Cause.VOLUNTARY, Cause.UNFIT):
            raise Broken(f"power: {gate} switched off in {a.phase.value} ({a.cause.value})")
        if not situation.down(gate.producer):
            raise Broken(f"power: {gate} switched off, and {gate.producer} is not down")
        if all(self.heard(way) for way in ways) and not self.strict:  # there, what does not confirm counts as silence
            raise Broken(f"power: {gate} switched off, and every other gate of {gate.producer} answers")


# ---------------------------------------------------------------- frozen worlds


@dataclass
class Frozen:
    """How one starting state went on."""

    start: GateStart
    world: GateWatched
    sides: dict[str, Side]
    first: list[tuple[float, str, str | None]] = field(default_factory=list)


def build(start: GateStart) -> Frozen:
    """The world of a starting state, and what was known of it before."""
    random = Random(str(start))
    w = GateWatched(short_gates(start.pool))
    names = w.pool.names
    sides = dict(zip(names, (*start.sides, random.choice(SIDES)), strict=False))
    for name, (health, state) in sides.items():
        _place(w, name, health, state, random)
    for index, (name, door) in enumerate(w.doors.items()):
        right = start.assignment[1] or "main"
        for producer in names:
            ready = producer == right if random.random() < 0.8 else random.random() < 0.5
            door.admin[producer] = Admin.READY if ready else Admin.MAINT
        door.answers = index == 0 or random.random() < 0.85
        w.board.post_reading(name, w.reading(door), instant(-1.0))
    phase, active, target = start.assignment
    if active is not None:
        cause = random.choice(CAUSES)
        passed: tuple[PassedOver, ...] = ()
        if phase == "steady" and cause is Cause.FORCED and random.random() < 0.5:
            passed = tuple(
                PassedOver(g, instant(0)) for g, s in w.switches.items() if not s.answers and g.producer != active
            )
        w.assignment = Assignment(
            1,
            1,
            Phase(phase),
            active,
            target,
            cause,
            instant(0),
            "start",
            forced_by_hand=phase == "fencing" and cause is Cause.BY_HAND,
            passed_over=passed,
            seen=names,
        )
    if w.assignment is not None and w.assignment.passed_over:
        w.alerts.extend(str(p.gate) for p in w.assignment.passed_over)  # told when it was done
    return Frozen(start, w, sides)


def _place(w: GateWatched, name: str, health: str, state: str, random: Random) -> None:
    node = w.nodes[name]
    node.up, node.hung, node.lag = health != "down", health == "hung", 200 if health == "lagging" else 0
    if health == "expired":
        w.expired.add(name)
    for number, (gate, switch) in enumerate(w.on_host(name, FORGING, FIREWALL)):
        said = state if number == 0 or random.random() < 0.6 else random.choice(STATES)
        if number and (said in SILENT) != (state in SILENT):  # one agent answers for both
            said = state
        switch.open = said in ("open", "between", "silent-open", "silent-never")
        switch.between, switch.certain = said == "between", said != "unsure"
        if said != "silent-never":
            w.board.post_gate(gate, switch.reading(), instant(-1.0))
        switch.answers = said not in SILENT
    for gate, power in w.on_host(name, POWER):
        power.open = health != "down" or random.random() < 0.7
        power.answers = random.random() < 0.7
        w.board.post_gate(gate, power.reading(), instant(-1.0))


def stay(frozen: Frozen, *, shortcut: bool = True) -> Frozen:
    """An hour in a world that stays as it is; shorter once nothing has changed for longer than anything waits."""
    w = frozen.world
    was: object = None
    since = 0.0
    while w.t < HOUR:
        w.observe()
        outcome = w.decide()
        a = w.assignment
        now = (
            None if a is None else (a.generation, a.phase, a.barred, a.passed_over),
            (outcome.decision.rule, outcome.decision.verdict.key),
            tuple((s.open, w.nodes[g.producer].up) for g, s in w.switches.items()),
            tuple(s.gate for s in outcome.steps),
        )
        if now != was:
            was, since = now, w.t
        w.t += TURN
        slow = 1 if a is None else len(a.failovers)
        if shortcut and w.t - since > max(QUIET, 120.0 * (1 << min(3, slow)) + TURN):
            break
    return frozen


# ---------------------------------------------------------------- what must be so at the end


def odd(frozen: Frozen, *states: str) -> bool:
    """Whether a gate on a producer's host is as these words say."""
    w = frozen.world
    found = set()
    for _, switch in ((g, s) for name in w.pool.names for g, s in w.on_host(name, FORGING, FIREWALL)):
        found |= {"silent"} if not switch.answers else set()
        found |= {"between"} if switch.between else set()
        found |= {"unsure"} if not switch.certain else set()
    return bool(found & set(states))


def held_up(frozen: Frozen, target: str) -> bool:
    """Whether something silent, or something that cannot be shut, rightly keeps ``target`` from being let in."""
    w = frozen.world
    strict = w.pool.fence.require == "confirmed"
    for name in w.pool.others(target):
        gone = w.nodes[name].hung or not w.nodes[name].up
        host = w.on_host(name, FORGING, FIREWALL)
        if any(s.answers and not s.between and s.certain for _, s in host):
            continue
        if strict:
            return True
        if any(s.answers and s.between for _, s in host):
            return True
        if not gone and any(not s.answers for _, s in host):
            return True
    return False


def able(frozen: Frozen) -> list[str]:
    """The producers that are fit, can be opened, and that nothing holds up."""
    w = frozen.world
    found = []
    for name in w.pool.names:
        host = w.on_host(name, FORGING, FIREWALL)
        if w.fit(name) and all(s.answers and not s.between for _, s in host) and not held_up(frozen, name):
            found.append(name)
    return found


def all_doors(w: GateWatched) -> bool:
    """Whether every proxy answers."""
    return all(door.answers for door in w.doors.values())


__all__ = ["Broken", "Frozen", "GateStart", "GateWatched", "able", "all_doors", "build", "gate_starts", "odd", "stay"]
