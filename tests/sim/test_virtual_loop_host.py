"""One simulated machine: its clocks, what befalls them, its chance, and its workers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from failover.errors import WorkerBusy
from failover.ports import Host
from failover.simulator.host import UTC0, VirtualHost, draw, fraction
from failover.simulator.loop import VirtualLoop


def on_host(main: Callable[[VirtualHost], Coroutine[Any, Any, Any]], **given: Any) -> Any:
    loop = VirtualLoop()
    return loop.run(main(VirtualHost(loop, seed=given.pop("seed", 1), **given)))


async def ends(host: VirtualHost, seconds: float) -> float:
    """The loop's time at which a sleep of ``seconds`` ends."""
    await host.sleep(seconds)
    return host.loop.time()


# ---------------------------------------------------------------- clocks


def test_both_clocks_go_on_with_the_loop() -> None:
    async def main(host: Host) -> None:
        before = host.now()
        await host.sleep(12.5)
        after = host.now()
        assert (after.mono - before.mono, after.utc - before.utc) == (12.5, 12.5)
        assert before.utc == UTC0
        assert before.boot == "boot-1"

    on_host(main)


def test_waiting_for_a_deadline_always_ends_whatever_rounding_leaves() -> None:
    async def main(host: VirtualHost) -> None:
        for number in range(1, 2000):
            deadline = host.now().after(number / 7 + 0.1)
            for _ in range(4):
                if deadline.reached(now := host.now()):
                    break
                await host.sleep(deadline.mono - now.mono)
            assert deadline.reached(host.now())

    on_host(main)


@pytest.mark.parametrize(("ppm", "takes"), [(0, 1000.0), (1_000_000, 500.0), (-500_000, 2000.0)])
def test_a_drifting_machine_waits_by_its_own_clock(ppm: int, takes: float) -> None:
    async def main(host: VirtualHost) -> float:
        host.set_drift(ppm)
        start = host.now()
        await host.sleep(1000.0)
        assert host.now().since(start) >= 1000.0
        return host.loop.time()

    assert on_host(main) == pytest.approx(takes, abs=1e-6)


def test_drift_that_begins_in_the_middle_of_a_wait_counts_from_then_on() -> None:
    async def main(host: VirtualHost) -> float:
        asyncio.get_running_loop().call_later(100, host.set_drift, 1_000_000)
        return await ends(host, 300.0)

    assert on_host(main) == pytest.approx(200.0, abs=1e-6)


def test_a_sleep_on_a_drifting_clock_never_ends_early() -> None:
    async def main(host: VirtualHost) -> None:
        for ppm in (-333_333, -7, 3, 142_857):
            host.set_drift(ppm)
            deadline = host.now().after(1.0)
            await host.sleep(1.0)
            assert host.now().mono >= deadline.mono - 1e-12

    on_host(main)


def test_a_drift_that_stops_the_clock_is_refused() -> None:
    async def main(host: VirtualHost) -> None:
        with pytest.raises(ValueError, match="-1000000 ppm"):
            host.set_drift(-1_000_000)

    on_host(main)


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_stepping_utc_moves_no_timer(step: float) -> None:
    async def main(host: VirtualHost) -> None:
        asyncio.get_running_loop().call_later(1, host.step_utc, step)
        before = host.now()
        await host.sleep(10.0)
        after = host.now()
        assert after.mono - before.mono == 10.0
        assert after.utc - before.utc == 10.0 + step

    on_host(main)


def test_a_jump_ends_at_once_what_is_overdue_in_the_order_in_which_it_was_due() -> None:
    woken: list[tuple[str, float]] = []

    async def main(host: VirtualHost) -> None:
        async def wait(name: str, seconds: float) -> None:
            woken.append((name, await ends(host, seconds)))

        tasks = [asyncio.create_task(wait(*args)) for args in [("late", 50.0), ("early", 20.0), ("later", 200.0)]]
        await asyncio.sleep(10)  # noqa: TID251  by the loop's clock
        host.jump(100.0)
        for task in tasks:
            await task

    on_host(main)
    assert woken == [("early", 10.0), ("late", 10.0), ("later", 100.0)]


def test_a_jump_back_is_refused() -> None:
    async def main(host: VirtualHost) -> None:
        with pytest.raises(ValueError, match="step_utc"):
            host.jump(-1.0)

    on_host(main)


def test_a_suspended_machine_stands_still_while_its_clocks_and_other_machines_go_on() -> None:
    woken: list[tuple[str, float]] = []
    loop = VirtualLoop()

    async def main() -> None:
        sleeper, other = VirtualHost(loop, seed=1, name="a"), VirtualHost(loop, seed=1, name="b")

        async def wait(name: str, host: VirtualHost, seconds: float) -> None:
            before = host.now()
            at = await ends(host, seconds)
            assert host.now().since(before) == at
            woken.append((name, at))

        tasks = [
            asyncio.create_task(wait(*args))
            for args in [("a40", sleeper, 40.0), ("a20", sleeper, 20.0), ("a500", sleeper, 500.0), ("b30", other, 30.0)]
        ]
        await other.sleep(10.0)
        sleeper.suspend(100.0)
        for task in tasks:
            await task

    loop.run(main())
    assert woken == [("b30", 30.0), ("a20", 110.0), ("a40", 110.0), ("a500", 500.0)]


def test_nothing_begun_during_a_suspension_ends_before_it() -> None:
    async def main(host: VirtualHost) -> None:
        host.suspend(100.0)
        host.suspend(30.0)
        assert await ends(host, 0.0) == 100.0

    on_host(main)


# ---------------------------------------------------------------- timeouts


def test_a_timeout_ends_a_block_at_its_time_on_the_machines_clock() -> None:
    async def main(host: VirtualHost) -> float:
        host.set_drift(1_000_000)
        with pytest.raises(TimeoutError):
            async with host.timeout(30.0):
                await asyncio.Event().wait()
        return host.loop.time()

    assert on_host(main) == pytest.approx(15.0)


def test_a_block_that_ends_in_time_leaves_no_timer_behind() -> None:
    async def main(host: VirtualHost) -> None:
        async with host.timeout(1000.0):
            await host.sleep(1.0)
        host.jump(5000.0)
        await host.sleep(1.0)
        assert host.loop.time() == 2.0

    on_host(main)


@pytest.mark.parametrize("seconds", [math.inf, math.nan])
def test_a_wait_without_an_end_is_refused(seconds: float) -> None:
    async def main(host: VirtualHost) -> None:
        with pytest.raises(ValueError, match=str(seconds)):
            await host.sleep(seconds)
        with pytest.raises(ValueError, match=str(seconds)):
            async with host.timeout(seconds):
                await asyncio.Event().wait()

    on_host(main)


# ---------------------------------------------------------------- chance


def test_chance_is_a_function_of_its_key_alone() -> None:
    assert draw(7, "edge", 3) == draw(7, "edge", 3)
    assert len({draw(7, "edge", 3), draw(8, "edge", 3), draw(7, "edge", 4), draw(7, "edg", "e", 3)}) == 4
    assert fraction(2**64 - 1) < 1.0
    assert fraction(0) == 0.0


def test_machines_and_restarts_draw_and_name_differently_and_a_new_run_repeats_them() -> None:
    async def main(first: VirtualHost) -> list[tuple[float, str]]:
        hosts = [first, VirtualHost(first.loop, seed=1), VirtualHost(first.loop, seed=1, name="b")]
        return [(host.random(), host.new_id()) for host in hosts for _ in range(50)]

    drawn = on_host(main)
    assert len({number for number, _ in drawn}) == len({name for _, name in drawn}) == 150
    assert all(0.0 <= number < 1.0 for number, _ in drawn)
    assert on_host(main) == drawn
    assert on_host(main, seed=2) != drawn


# ---------------------------------------------------------------- workers


def test_a_function_runs_at_once_and_its_error_is_passed_on() -> None:
    async def main(host: VirtualHost) -> None:
        worker = host.worker("proxy-1")
        assert await worker.call(lambda: 42, 5.0) == 42
        with pytest.raises(ZeroDivisionError):
            await worker.call(lambda: 1 // 0, 5.0)
        assert host.loop.time() == 0.0

    on_host(main)


def test_a_call_takes_the_latency_of_its_edge() -> None:
    async def main(host: VirtualHost) -> None:
        host.latency = {"near": 0.25, "far": 2.0}.__getitem__
        near, far = host.worker("near"), host.worker("far")
        ran: list[float] = []
        await asyncio.gather(*(worker.call(lambda: ran.append(host.loop.time()), 5.0) for worker in (far, near)))
        assert ran == [0.25, 2.0]

    on_host(main)


def test_a_call_slower_than_its_timeout_is_given_up_on_and_takes_effect_later() -> None:
    async def main(host: VirtualHost) -> None:
        host.latency = lambda edge: 8.0
        worker = host.worker("proxy-1")
        ran: list[float] = []
        with pytest.raises(TimeoutError, match="proxy-1"):
            await worker.call(lambda: ran.append(host.loop.time()), 5.0)
        assert host.loop.time() == 5.0
        with pytest.raises(WorkerBusy):
            await worker.call(lambda: None, 5.0)
        await host.sleep(4.0)
        assert ran == [8.0]
        host.latency = None
        assert await worker.call(lambda: "next", 5.0) == "next"

    on_host(main)


@pytest.mark.parametrize("late", [True, False])
def test_a_hung_edge_times_out_then_is_busy_and_when_healed_takes_effect_late_if_told_so(late: bool) -> None:
    async def main(host: VirtualHost) -> None:
        worker, ran = host.worker("proxy-1"), []
        host.hang("proxy-1")
        with pytest.raises(TimeoutError):
            await worker.call(lambda: ran.append(host.loop.time()), 5.0)
        with pytest.raises(WorkerBusy):
            await worker.call(lambda: None, 5.0)
        assert (host.loop.time(), ran) == (5.0, [])
        await host.sleep(60.0)
        host.heal("proxy-1", late=late)
        assert ran == ([65.0] if late else [])
        assert await worker.call(lambda: "next", 5.0) == "next"

    on_host(main)


def test_an_edge_that_hangs_delays_no_other() -> None:
    async def main(host: VirtualHost) -> None:
        host.hang("proxy-1")
        hung = asyncio.create_task(host.worker("proxy-1").call(lambda: None, 5.0))
        await host.sleep(1.0)
        assert await host.worker("proxy-2").call(lambda: "answer", 5.0) == "answer"
        assert host.loop.time() == 1.0
        with pytest.raises(TimeoutError):
            await hung

    on_host(main)


def test_a_call_under_way_hangs_with_its_edge_and_is_answered_if_healed_in_time() -> None:
    async def main(host: VirtualHost) -> None:
        host.latency = lambda edge: 2.0
        call = asyncio.create_task(host.worker("proxy-1").call(host.loop.time, 10.0))
        await host.sleep(1.0)
        host.hang("proxy-1")
        await host.sleep(3.0)
        host.heal("proxy-1")
        assert await call == 4.0

    on_host(main)


def test_a_second_call_waits_for_its_turn_and_a_third_is_refused() -> None:
    async def main(host: VirtualHost) -> None:
        host.latency = lambda edge: 2.0
        worker = host.worker("proxy-1")
        calls = [asyncio.create_task(worker.call(host.loop.time, 10.0)) for _ in range(2)]
        await host.sleep(1.0)
        with pytest.raises(WorkerBusy):
            await worker.call(host.loop.time, 10.0)
        assert [await call for call in calls] == [2.0, 4.0]

    on_host(main)


def test_no_call_of_a_suspended_machine_is_answered() -> None:
    async def main(host: VirtualHost) -> None:
        host.latency = lambda edge: 1.0
        host.suspend(60.0)
        assert await host.worker("proxy-1").call(host.loop.time, 90.0) == 60.0

    on_host(main)


def test_a_closed_worker_takes_no_call() -> None:
    async def main(host: VirtualHost) -> None:
        worker = host.worker("proxy-1")
        worker.close()
        with pytest.raises(WorkerBusy, match="closed"):
            await worker.call(lambda: None, 5.0)

    on_host(main)
