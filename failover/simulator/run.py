"""One run: a pool's world, its faults, and what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from failover.model import Pool
from failover.simulator.faults import Fault
from failover.simulator.judge import Judge, Point, Violation
from failover.simulator.loop import Deadlock, NotSimulated, Stalled, VirtualLoop
from failover.simulator.nemesis import Nemesis
from failover.simulator.world import Line, Setup, World

__all__ = ["Line", "Run", "Setup", "Violation", "play", "settle_time"]


PLAIN = Setup()


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run. Times and durations are in seconds of the simulated clock.

    ``lost``: seconds in which no producer's blocks could reach a relay; ``outage``: of these, seconds in which one
    could have been admitted and none was. ``overlap``: seconds with two producers reachable, by what allowed it.
    ``order``: phases and steps as they were, for comparison. ``edges``: moves of the phase table, and how often.
    """

    seed: int
    pool: Pool
    setup: Setup
    faults: tuple[Fault, ...]
    seconds: float
    violations: tuple[Violation, ...]
    timeline: tuple[Line, ...]
    handovers: int
    lost: float
    outage: float
    overlap: Mapping[str, float]
    order: tuple[str, ...]
    ticks: int
    trace_hash: str
    edges: Mapping[str, int]
    points: tuple[Point, ...]
    happened: tuple[Fault, ...]


def settle_time(pool: Pool) -> float:
    """Seconds in which everything has to come right once the last fault is over (DESIGN, convergence)."""
    health, action = pool.health, pool.lease.action_timeout
    observation = health.interval * (health.fall + health.rise) + health.timeout
    hidden = max((p.hard_stop_after or 0.0 for p in pool.proxies), default=0.0)
    contested, redial, records = 300.0, 170.0, 120.0 if pool.records else 0.0
    return pool.policy.fail_over_after + observation + 6 * action + 60.0 + hidden + contested + redial + records


def play(
    pool: Pool,
    faults: Sequence[Fault],
    seconds: float,
    *,
    seed: int = 0,
    setup: Setup = PLAIN,
    settle: bool = False,
) -> Run:
    """Play ``seconds`` of a world; ``settle``: then end every fault, and see that it comes right."""
    loop = VirtualLoop(seed=seed)
    world = World(pool, loop, seed, setup)
    world.judge = judge = Judge(world)
    if setup.wire:
        _speak_text(world)
    nemesis = Nemesis(world)
    whole = seconds + (settle_time(pool) if settle else 0.0)

    async def main() -> None:
        nemesis.schedule(faults)
        world.begin()
        await _until(world, seconds)
        if settle:
            nemesis.heal()
            judge.heal()
            await _until(world, whole)
        judge.close(settled=settle)
        for daemon in tuple(world.machine.daemons):
            daemon.sever()

    try:
        loop.run(main())
    except (Deadlock, Stalled, NotSimulated) as error:
        judge.broken("crashed", str(error))
    except Exception as error:  # noqa: BLE001  a bug that the run shows must not end the campaign
        judge.broken("crashed", f"{type(error).__name__}: {error}")
    return Run(
        seed,
        pool,
        setup,
        tuple(faults),
        whole,
        tuple(judge.violations),
        tuple(world.timeline),
        judge.handovers,
        judge.lost,
        judge.outage,
        dict(judge.overlap),
        tuple(world.order),
        judge.ticks,
        loop.trace_hash(),
        dict(judge.edges),
        tuple(judge.points),
        tuple(nemesis.done),
    )


async def _until(world: World, when: float) -> None:
    reached: asyncio.Future[None] = world.nature.loop.create_future()
    world.nature.after(when - world.nature.now(), lambda: reached.set_result(None))
    await reached


def _speak_text(world: World) -> None:
    from failover.simulator.wire import make_ping, make_proxy

    world.make_ping, world.make_proxy = make_ping, make_proxy
