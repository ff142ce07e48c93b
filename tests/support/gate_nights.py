"""Bad nights for pools with gates on producers' own hosts: faults drawn from a seed, then everything heals."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random  # noqa: TID251  chance of the test's own, by seed

from gate_frozen import FIREWALL, FORGING, POOLS, POWER, Broken, GateWatched, short_gates
from policy_world import TURN, instant

from failover.board import Board
from failover.model import Admin, Phase, Verb
from failover.tick import Memory

FAULTY_TURNS = 70
HEALING_TURNS = 70
FAULTS = (
    *("die", "die", "die", "live", "live", "live", "hang", "hang", "lag", "expire", "renew"),
    *("silent", "answer", "answer", "one-silent", "host", "host", "host-back", "host-back", "cut", "uncut", "on"),
    *("hand", "hand", "stuck", "loose", "loose", "between", "between-over", "unsure", "sure", "node-restarts"),
    *("door-silent", "door-answers", "door-hand", "controller", "ask", "ask", "force", "pause", "cordon", "release"),
)


@dataclass
class GateNight:
    """What happened in one night, and after it all healed."""

    world: GateWatched
    faults: list[str] = field(default_factory=list)
    too_early: list[str] = field(default_factory=list)
    two: list[str] = field(default_factory=list)
    broken: str | None = None

    def wrong(self) -> str | None:
        """What is not as it should be at the end; None when all is well."""
        w = self.world
        last = w.outcomes[-1]
        reason = last.decision.verdict.reason
        if w.assignment is None or w.assignment.phase is not Phase.STEADY:
            return f"not steady: {reason}"
        if w.admitted() != {w.active}:
            return f"{w.active} is active, {sorted(w.admitted())} makes blocks: {reason}"
        return "split brain is said" if last.split_brain else None


def gate_night(seed: int) -> GateNight:
    """One night of ``seed``; pools take turns."""
    random = Random(seed)
    kind = list(POOLS)[seed % len(POOLS)]
    w = GateWatched(short_gates(kind), active="main")
    result = GateNight(w)
    bad: dict[str, list[bool]] = {n: [] for n in w.pool.names}
    strict = w.pool.fence.require == "confirmed"
    for turn in range(FAULTY_TURNS + HEALING_TURNS):
        if turn == FAULTY_TURNS:
            _heal(w)
        elif turn < FAULTY_TURNS and random.random() < 0.25:
            result.faults.append(_fault(w, random))
        seen, active = len(w.generations), w.active
        running = w.assignment is not None and w.assignment.phase is not Phase.STEADY
        before = w.admitted()
        w.observe()
        for name, track in w.board.tracks.items():
            bad[name].append(track.last is not None and (not track.last.ok or track.sync.value == "lagging"))
        try:
            w.decide()
        except Broken as broken:
            result.broken = f"{broken}; after {result.faults[-8:]}"
            return result
        for when, cause, target in () if running else w.generations[seen:]:
            if cause == "forced" and active is not None and sum(bad[active][-13:]) * TURN < 60.0:
                result.too_early.append(f"{when}: {active} -> {target}")
        forced = w.assignment is not None and w.assignment.forced_by_hand
        if strict and len(w.admitted()) > max(1, len(before)) and not forced:
            result.two.append(f"{w.t}: {sorted(w.admitted())}")
        w.t += TURN
    return result


def _fault(w: GateWatched, random: Random) -> str:
    name, kind = random.choice(list(w.nodes)), random.choice(FAULTS)
    node, host = w.nodes[name], w.on_host(name, FORGING, FIREWALL)
    gate, switch = random.choice(host)
    powered = all(s.open for _, s in w.on_host(name, POWER))
    if kind in ("die", "live"):
        node.up, node.hung, node.lag = kind == "live" and powered, False, 0
    elif kind == "hang":
        node.hung = True
    elif kind == "lag":
        node.lag = 0 if node.lag else 200
    elif kind in ("expire", "renew"):
        (w.expired.add if kind == "expire" else w.expired.discard)(name)
    elif kind in ("silent", "answer", "host", "host-back"):
        for _, each in host:
            each.answers = kind in ("answer", "host-back") and powered
        if kind.startswith("host"):
            node.up, node.hung = kind == "host-back" and powered, False
    elif kind == "one-silent":
        switch.answers = False
    elif kind in ("cut", "uncut"):
        w.cut ^= {name} if kind == "cut" else w.cut
    elif kind == "on":
        for _, each in w.on_host(name, POWER):
            each.open = each.answers = True
    elif kind in ("hand", "node-restarts"):
        switch.open = random.random() < 0.5
        switch.process += "+" if kind == "node-restarts" else ""
    elif kind in ("stuck", "loose"):
        switch.stuck = kind == "stuck"
    elif kind in ("between", "between-over"):
        switch.between = kind == "between"
    elif kind in ("unsure", "sure"):
        switch.certain = kind == "sure"
    else:
        _elsewhere(w, random, kind, name)
    return f"{w.t:g}: {kind} {name} {gate}"


def _elsewhere(w: GateWatched, random: Random, kind: str, name: str) -> None:
    if kind.startswith("door"):
        if not w.doors:
            return
        door = random.choice(list(w.doors.values()))
        if kind == "door-hand":
            door.admin[name] = random.choice((Admin.READY, Admin.MAINT))
        else:
            door.answers = kind == "door-answers"
    elif kind == "controller":
        restart(w)
    elif kind == "pause":
        w.ask(Verb.PAUSE, seconds=60.0)
    elif kind == "cordon":
        w.ask(Verb.CORDON, name, seconds=100.0)
    elif kind == "release":
        w.ask(Verb.RELEASE)
    else:
        w.ask(Verb.SWITCHOVER, name, force=kind == "force", seconds=200.0)


def restart(w: GateWatched) -> None:
    """Another controller goes on with what the one before had stored."""
    now, lease = instant(w.t), w.board.lease
    timers = json.loads(json.dumps(w.board.timers(now)))
    w.board = Board(w.pool, now, timers)
    w.board.lease = lease
    w.board.acting_since = now
    w.memory = Memory(ledger=w.board.ledger)


def _heal(w: GateWatched) -> None:
    for node in w.nodes.values():
        node.up, node.hung, node.lag = True, False, 0
    for gate, switch in w.switches.items():
        switch.answers, switch.stuck, switch.between, switch.certain = True, False, False, True
        switch.open = switch.open or gate.kind is POWER
    for door in w.doors.values():
        door.answers = True
    w.cut.clear()
    w.expired.clear()
    if w.assignment is not None and w.assignment.released:
        w.ask(Verb.RESUME)
