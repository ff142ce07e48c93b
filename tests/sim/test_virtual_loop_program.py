"""A program that uses all that is not deterministic in plain asyncio; standard library only, and no pytest.

Other interpreters run this file by itself, with a seed as argument, and print the hash of its trace
(test_virtual_loop_repeats.py).
"""

from __future__ import annotations

import asyncio
import sys

from failover.errors import WorkerBusy
from failover.simulator.host import VirtualHost
from failover.simulator.loop import VirtualLoop


async def abort(loop: VirtualLoop, host: VirtualHost) -> None:
    """A task group that one member brings down: the others end in the order of a set."""

    async def member(number: int) -> None:
        try:
            await host.sleep(host.random() * 5 + 1)
            loop.trace(f"member {number} ended")
            if number % 4 == 3:
                raise ValueError(number)
        except asyncio.CancelledError:
            loop.trace(f"member {number} cancelled")
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(member(number))
    except* ValueError as errors:
        loop.trace(f"group failed: {[str(error) for error in errors.exceptions]}")


async def first_of(loop: VirtualLoop, host: VirtualHost) -> None:
    """asyncio.wait, whose answer is a set; and gather."""

    async def number(value: int) -> int:
        await host.sleep(value % 3)
        return value

    tasks = [asyncio.create_task(number(value)) for value in range(9)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)  # noqa: TID251  its order is tested
    loop.trace(f"first {[task.result() for task in done]}")
    for task in pending:
        loop.trace(f"still {task.get_name()}")
    loop.trace(f"all {await asyncio.gather(*tasks)}")


async def edges(loop: VirtualLoop, host: VirtualHost) -> None:
    """Probes with latencies, timeouts, an edge that hangs and takes effect late, a queue between them."""
    host.latency = lambda name: host.random() * 2
    observations: asyncio.Queue[str] = asyncio.Queue(maxsize=2)

    async def probe(name: str) -> None:
        worker = host.worker(name)
        for turn in range(30):
            try:
                await worker.call(lambda: loop.trace(f"{name} runs"), 1.5)
                outcome = "ok"
            except TimeoutError:
                outcome = "timeout"
            except WorkerBusy:
                outcome = "busy"
            await observations.put(f"{name} {turn} {outcome} {host.now().mono:.9f} {host.now().utc:.6f}")
            await host.sleep(1)

    probes = [asyncio.create_task(probe(f"edge-{number}")) for number in range(5)]
    loop.call_at(5, host.hang, "edge-2")
    loop.call_at(9, lambda: host.heal("edge-2", late=True))
    loop.call_at(12, host.suspend, 4)
    loop.call_at(20, host.jump, 3.5)
    loop.call_at(22, host.step_utc, -600)
    for _ in range(150):
        loop.trace(await observations.get())
    for task in probes:
        await task


async def program(loop: VirtualLoop) -> None:
    """Two machines, one of them drifting, do all of it at once."""
    hosts = [VirtualHost(loop, seed=loop.seed, name=name) for name in ("a", "b")]
    hosts[1].set_drift(-1234)
    for part in (abort, first_of, edges):
        tasks = [asyncio.create_task(part(loop, host)) for host in hosts]
        for task in tasks:
            await task
    loop.trace(" ".join(host.new_id() for host in hosts))


def trace_hash(seed: int) -> str:
    """The hash of a run's trace, and how long it is."""
    loop = VirtualLoop(seed=seed)
    loop.run(program(loop))
    return f"{loop.trace_hash()} {len(loop.lines)}"


def test_a_run_repeats_within_one_process_and_another_seed_is_another_run() -> None:
    hashes = [trace_hash(seed) for seed in (1, 2, 3, 1, 2, 3)]
    assert hashes[:3] == hashes[3:]
    assert len(set(hashes)) == 3


if __name__ == "__main__":
    print(trace_hash(int(sys.argv[1])))
