"""Bad nights for the middle alone: faults drawn from a seed, one turn after another, then everything heals."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random  # noqa: TID251  chance of the test's own, by seed

from frozen import Watched, short_pool
from policy_world import TURN, instant

from failover.model import Admin, Health, Pool, Step, StepKind, Verb

FAULTY_TURNS = 150
HEALING_TURNS = 120


@dataclass
class Night:
    """What happened in one night: the world at its end, and what its watch saw."""

    world: Watched
    faults: list[str] = field(default_factory=list)
    forced_too_early: list[str] = field(default_factory=list)
    failed_back_too_early: list[str] = field(default_factory=list)
    blind_steps: list[str] = field(default_factory=list)
    two_without_a_silent_gate: float = 0.0


def night(seed: int, *, require: str = "reachable", by_hand: bool = True) -> Night:
    """One night of ``seed``."""
    random = Random(seed)
    pool: Pool = short_pool(require=require)
    world = Watched(pool, checks="l7" if require == "confirmed" else random.choice(["l7", "l7", "l4", "none"]))
    result = Night(world)
    failing: dict[str, list[bool]] = {n: [] for n in pool.names}
    fit: dict[str, list[bool]] = {n: [] for n in pool.names}
    for turn in range(FAULTY_TURNS + HEALING_TURNS):
        if turn == FAULTY_TURNS:
            _heal(world)
        elif turn < FAULTY_TURNS:
            _maybe_fault(world, random, result, by_hand=by_hand)
        seen = len(world.generations)
        steps = len(world.steps)
        world.observe()
        for name, track in world.board.tracks.items():
            bad = track.last is not None and (not track.last.ok or track.sync.value == "lagging")
            failing[name].append(bad)
            fit[name].append(world.board.tracks[name].fit_since is not None)
        active = world.active
        isolated = world.board.isolated
        running = world.assignment is not None and world.assignment.phase.value != "steady"
        paused = world.assignment is not None and world.assignment.paused is not None
        world.decide()
        if not running:
            _judge(result, world, seen, active, failing, fit)
        if len(world.steps) > steps and (isolated or (paused and not world.requests)):
            result.blind_steps.append(f"{world.t}: {world.steps[-1]}")
        silent = any(not d.answers or n in world.cut for n, d in world.doors.items())
        if len(world.admitted()) > 1 and not silent:
            result.two_without_a_silent_gate += TURN
        world.t += TURN
    return result


def _judge(
    result: Night,
    world: Watched,
    seen: int,
    active: str | None,
    failing: dict[str, list[bool]],
    fit: dict[str, list[bool]],
) -> None:
    policy = world.pool.policy
    for when, cause, target in world.generations[seen:]:
        if cause == "forced" and active is not None:
            window = failing[active][-int(2 * policy.fail_over_after / TURN) - 1 :]
            if sum(window) * TURN < policy.fail_over_after:  # a bad ping speaks for the time until the next one
                result.forced_too_early.append(f"{when}: {active} -> {target}, bad for {sum(window) * TURN} s")
        if cause == "voluntary" and target == world.pool.preferred and not _cordoned(world, active):
            needed = int(policy.fail_back_after / TURN)
            if not all(fit[target][-needed:]):
                result.failed_back_too_early.append(f"{when}: {target}")


def _cordoned(world: Watched, producer: str | None) -> bool:
    return world.assignment is not None and any(h.producer == producer for h in world.assignment.cordoned)


def _maybe_fault(world: Watched, random: Random, result: Night, *, by_hand: bool) -> None:
    if random.random() > 0.15:
        return
    name = random.choice(list(world.nodes))
    node, door_name = world.nodes[name], random.choice(list(world.doors))
    door = world.doors[door_name]
    kinds = [
        "die",
        "die",
        "live",
        "live",
        "hang",
        "lag",
        "silent",
        "silent",
        "answer",
        "answer",
        "cut",
        "uncut",
        "reload",
    ]
    if by_hand:
        kinds += ["open", "close", "ask", "force", "pause", "cordon", "restart", "lost"]
    kind = random.choice(kinds)
    result.faults.append(f"{world.t}: {kind} {name} {door_name}")
    if kind == "die":
        node.up = False
    elif kind == "live":
        node.up, node.hung, node.lag = True, False, 0
    elif kind == "hang":
        node.hung = True
    elif kind == "lag":
        node.lag = 0 if node.lag else 200
    elif kind in ("silent", "answer"):
        door.answers = kind == "answer"
    elif kind == "cut":
        world.cut.add(random.choice([name, door_name]))
    elif kind == "uncut":
        world.cut.clear()
    elif kind in ("deaf", "hear"):
        world.reference_up = kind == "hear"
    elif kind == "reload":
        door.process += "+"
    else:
        _by_hand(world, random, kind, name, door_name)


def _by_hand(world: Watched, random: Random, kind: str, name: str, door_name: str) -> None:
    door = world.doors[door_name]
    if kind in ("open", "close"):
        door.admin[name] = Admin.READY if kind == "open" else Admin.MAINT
    elif kind == "restart":
        door.process += "'"
        door.admin.update(dict.fromkeys(world.nodes, Admin.MAINT))
        door.admin[world.pool.preferred] = Admin.READY
    elif kind == "lost":
        lost = random.random()
        world.lose_steps = lambda step: step.kind is StepKind.OPEN and lost < 0.5
    elif kind == "pause":
        world.ask(Verb.PAUSE, seconds=60.0)
    elif kind == "cordon":
        world.ask(Verb.CORDON, name, seconds=100.0)
    else:
        world.ask(Verb.SWITCHOVER, name, force=kind == "force", seconds=200.0)


def _heal(world: Watched) -> None:
    for node in world.nodes.values():
        node.up, node.hung, node.lag, node.stuck_at = True, False, 0, None
    for door in world.doors.values():
        door.answers, door.blind_to = True, set()
    world.cut.clear()
    world.reference_up = True
    world.lose_steps = lambda step: False


__all__ = ["Health", "Night", "Step", "instant", "night"]
