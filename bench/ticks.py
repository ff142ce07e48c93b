# ruff: noqa: TID251  a bench reads the machine's clock
"""Figures of the decisions: the whole controller on the virtual-time loop, and the pure middle alone.

The whole loop is compared with tasks that do nothing but keep the same pace on the same loop: what is left when the
controller is taken out. The pure middle is run for more and more pools, and compared with itself for one.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import world
from bench.figure import Aim, Figure, Say, interleaved
from failover.board import Board, View
from failover.controller import STORE_POLL
from failover.model import Admin, Assignment, Instant, Lease, Ping, Pool, Tip
from failover.parts import READS_PER_PING
from failover.ports import Store
from failover.simulator.host import VirtualHost
from failover.simulator.loop import VirtualLoop
from failover.tick import Memory, tick

AIM = Aim(4000.0, at_least=True, of="measured")
LINEAR = Aim(1.25)

MakeStore = Callable[[VirtualHost, Pool], Store]


# ---------------------------------------------------------------- the whole loop


def _life(hours: float, make_store: MakeStore) -> Callable[[], float]:
    """Lives so many virtual hours: ticks per second."""

    def run() -> float:
        gc.collect()
        began = time.perf_counter()
        counter = world.live(hours, make_store)
        return counter.ticks / (time.perf_counter() - began)

    return run


def _sqlite_life(hours: float, folder: Path) -> Callable[[], float]:
    """The same with the real store, each time in a folder of its own below ``folder``."""
    numbers = iter(range(1_000_000))

    def run() -> float:
        state = folder / str(next(numbers))
        return _life(hours, lambda host, of: world.sqlite(state, host, of))()

    return run


def _pace(hours: float) -> Callable[[], float]:
    """Tasks at the controller's pace that decide nothing: turns per second."""

    async def main(loop: VirtualLoop) -> int:
        host, wake, of = VirtualHost(loop, seed=1), asyncio.Event(), world.pool()
        worker, turns = host.worker("store"), 0
        host.latency = lambda edge: world.LATENCY

        async def edge(name: str, interval: float, posts: bool) -> None:
            while True:
                async with host.timeout(5.0):
                    if posts:
                        await host.sleep(world.latency(name))
                    else:
                        await worker.call(int, 5.0)
                if posts:
                    wake.set()
                await host.sleep(interval)

        parts = [(str(a), of.health.interval) for a in (*(p.address for p in of.producers), *of.references)]
        parts += [(p.name, of.health.interval / READS_PER_PING) for p in of.proxies]
        tasks = [asyncio.create_task(edge(name, interval, True)) for name, interval in parts]
        tasks.append(asyncio.create_task(edge("store", STORE_POLL, False)))
        while loop.time() < hours * 3600:
            with suppress(TimeoutError):
                async with host.timeout(of.health.interval):
                    await wake.wait()
            wake.clear()
            turns += 1
        for task in tasks:
            task.cancel()
        return turns

    def run() -> float:
        gc.collect()
        loop, began = VirtualLoop(seed=1), time.perf_counter()
        return loop.run(main(loop)) / (time.perf_counter() - began)

    return run


# ---------------------------------------------------------------- the pure middle

Case = tuple[Pool, View, Assignment]


def _case(number: int, now: Instant) -> Case:
    """A pool in which all is well, as its board shows it."""
    of = world.pool(number)
    board = Board(of, now.after(-3600))
    board.lease = Lease("bench", 1, now.after(60))
    for back in (30.0, 20.0, 10.0, 0.0):
        at = now.after(-back)
        for producer in of.producers:
            best = board.yardstick(producer.name, at)
            board.post_ping(producer.name, Ping(at, at, True, Tip(int(at.mono), "ab" * 32, 1), 0.01), best)
        for reference in board.references:
            board.post_reference(reference, Ping(at, at, True, Tip(int(at.mono), "ab" * 32, 1), 0.01))
        for proxy in of.proxies:
            admin = {"main": Admin.READY, "backup": Admin.MAINT}
            board.post_reading(proxy.name, world.reading(admin, None, at.mono), at)
    return of, board.view(), world.steady("main", now.after(-1800))


def _middle(pools: int, ticks: int) -> Callable[[], float]:
    """Ticks of so many pools in turn: microseconds per tick."""
    now = Instant("boot", 100_000.0, 1_800_000_000.0)
    cases = [_case(number, now) for number in range(pools)]
    memories = [tick(*case, (), Memory(), now).memory for case in cases]
    rounds = max(1, ticks // pools)

    def run() -> float:
        gc.collect()
        began = time.perf_counter()
        for _ in range(rounds):
            for (of, view, assignment), memory in zip(cases, memories, strict=True):
                tick(of, view, assignment, (), memory, now)
        return (time.perf_counter() - began) / (rounds * pools) * 1e6

    return run


def figures(quick: bool, say: Say) -> list[Figure]:
    """The whole loop with each store, then the middle for each number of pools."""
    hours, rounds, ticks = (0.5, 1, 200) if quick else (2.0, 3, 2000)
    with TemporaryDirectory(prefix="failover-bench-") as folder:
        say(f"the whole loop, {rounds} rounds of {hours:g} virtual hours with each store")
        _life(0.25, _memory)()
        found = interleaved(rounds, _life(hours, _memory), _sqlite_life(hours, Path(folder)), _pace(hours))
    memory, sqlite, pace = (median(values) for values in found)
    note = f"the real Controller, {hours:g} virtual hours, main down for a quarter of each; median of {rounds}"
    bare = "tasks at the same pace that decide nothing"
    whole = [
        Figure("ticks", memory, "/s", pace, bare, AIM, f"store in memory; {note}"),
        Figure("ticks, sqlite", sqlite, "/s", pace, bare, None, "SqliteStore in a temporary folder, with its fsyncs"),
    ]
    sizes = (1, 10) if quick else (1, 10, 100, 1000)
    say(f"the pure middle for {', '.join(map(str, sizes))} pools, {rounds} rounds of {ticks} ticks")
    each = [median(values) for values in interleaved(rounds, *(_middle(size, ticks) for size in sizes))]
    middle = [
        Figure(
            f"middle, {size} pool{'s' if size > 1 else ''}", micros, "µs/tick", each[0] if size > 1 else None,
            "one pool" if size > 1 else "", LINEAR if size > 1 else None,
        )
        for size, micros in zip(sizes, each, strict=True)
    ]  # fmt: skip
    return [*whole, *middle]


def _memory(host: VirtualHost, of: Pool) -> Store:
    return world.MemoryStore(None)
