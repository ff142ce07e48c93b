"""RealHost: its clocks, its waits over a suspension of the machine, its chance.

Where a wait is tested, RealHost runs on a virtual loop and is given a clock, so nothing here sleeps for real. The
loop's clock plays CLOCK_MONOTONIC, which stands still while suspended; the clock given plays CLOCK_BOOTTIME.
"""

from __future__ import annotations

import asyncio
import math
import random  # noqa: TID251  the global generator is what must not matter
import time  # noqa: TID251  the kernel's clocks are what is compared with
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from failover.errors import FailoverError
from failover.host import RealHost
from failover.ports import Host
from failover.simulator.loop import VirtualLoop


class Machine:
    """A machine that can be suspended: its waking time is the loop's."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.suspended = 0.0
        self.host = RealHost(boottime=lambda: self.loop.time() + self.suspended)

    def suspend_at(self, waking: float, seconds: float) -> None:
        def leap() -> None:
            self.suspended += seconds

        self.loop.call_at(waking, leap)

    def awake_until(self, wait: Callable[[Host], Coroutine[Any, Any, None]]) -> float:
        """Seconds of waking time that ``wait`` took."""

        async def main() -> float:
            await wait(self.host)
            return self.loop.time()

        return self.loop.run(main())


def test_now_is_boottime_and_utc_within_the_kernels_boot() -> None:
    host = RealHost()
    before = time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    now = host.now()
    after = time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
    assert before[0] <= now.mono <= after[0]
    assert before[1] <= now.utc <= after[1]
    assert now.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize("content", [None, "", b"\xff"])
def test_a_machine_that_does_not_tell_its_boot_is_refused_by_name(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "boot_id"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FailoverError) as caught:
        RealHost(boot_id=path)
    assert str(path) in str(caught.value)
    assert caught.value.mend


def test_a_sleep_lasts_exactly_as_long_as_asked_when_nothing_happens() -> None:
    assert Machine().awake_until(lambda host: host.sleep(3600.25)) == pytest.approx(3600.25, abs=1e-6)


def test_a_sleep_that_a_suspension_outlasts_ends_within_a_second_of_waking() -> None:
    machine = Machine()
    machine.suspend_at(10.5, 7200.0)
    assert 10.5 <= machine.awake_until(lambda host: host.sleep(300.0)) <= 11.5


def test_a_sleep_counts_the_time_suspended() -> None:
    machine = Machine()
    machine.suspend_at(10.5, 200.0)
    assert machine.awake_until(lambda host: host.sleep(300.0)) == pytest.approx(100.0, abs=1e-6)


def test_a_sleep_never_ends_before_boottime_says_so() -> None:
    loop = VirtualLoop()
    slow = RealHost(boottime=lambda: loop.time() * 0.9)

    async def main() -> float:
        await slow.sleep(90.0)
        return slow.now().mono

    assert loop.run(main()) >= 90.0


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_sleep_of_nothing_takes_no_time_but_lets_others_run(seconds: float) -> None:
    machine = Machine()
    ran: list[str] = []

    async def wait(host: Host) -> None:
        machine.loop.call_soon(ran.append, "other")
        await host.sleep(seconds)
        ran.append("self")

    assert machine.awake_until(wait) == 0.0
    assert ran == ["other", "self"]


def test_a_timeout_ends_a_block_at_its_time() -> None:
    async def wait(host: Host) -> None:
        with pytest.raises(TimeoutError):
            async with host.timeout(45.5):
                await asyncio.Event().wait()

    assert Machine().awake_until(wait) == pytest.approx(45.5, abs=1e-6)


def test_a_timeout_that_a_suspension_outlasts_ends_within_a_second_of_waking() -> None:
    machine = Machine()
    machine.suspend_at(10.5, 7200.0)

    async def wait(host: Host) -> None:
        with pytest.raises(TimeoutError):
            async with host.timeout(300.0):
                await asyncio.Event().wait()

    assert 10.5 <= machine.awake_until(wait) <= 11.5


def test_a_block_that_ends_in_time_is_left_alone_afterwards() -> None:
    async def wait(host: Host) -> None:
        async with host.timeout(5.0):
            await host.sleep(4.0)
        await host.sleep(10.0)

    assert Machine().awake_until(wait) == pytest.approx(14.0, abs=1e-6)


@pytest.mark.parametrize(("inner", "outer", "seen"), [(1.0, 2.0, ["inner"]), (2.0, 1.0, ["outer"])])
def test_of_two_nested_timeouts_the_shorter_one_is_told(inner: float, outer: float, seen: list[str]) -> None:
    told: list[str] = []

    async def wait(host: Host) -> None:
        try:
            async with host.timeout(outer):
                try:
                    async with host.timeout(inner):
                        await asyncio.Event().wait()
                except TimeoutError:
                    told.append("inner")
        except TimeoutError:
            told.append("outer")

    Machine().awake_until(wait)
    assert told == seen


def test_a_cancelled_block_is_cancelled_and_not_timed_out() -> None:
    async def wait(host: Host) -> None:
        async def block() -> None:
            async with host.timeout(5.0):
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await host.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert Machine().awake_until(wait) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_a_timeout_of_nothing_ends_the_first_wait(seconds: float) -> None:
    async def wait(host: Host) -> None:
        with pytest.raises(TimeoutError):
            async with host.timeout(seconds):
                await asyncio.Event().wait()

    assert Machine().awake_until(wait) == 0.0


@pytest.mark.parametrize("seconds", [math.inf, math.nan])
def test_a_wait_without_an_end_is_refused(seconds: float) -> None:
    async def wait(host: Host) -> None:
        with pytest.raises(ValueError, match=str(seconds)):
            host.timeout(seconds)
        with pytest.raises(ValueError, match=str(seconds)):
            await host.sleep(seconds)

    Machine().awake_until(wait)


def test_two_hosts_draw_differently_even_if_a_library_seeds_the_global_generator() -> None:
    drawn = []
    for _ in range(2):
        random.seed(1)
        host = RealHost()
        drawn.append([host.random() for _ in range(4)])
    assert drawn[0] != drawn[1]
    assert all(0.0 <= number < 1.0 for numbers in drawn for number in numbers)


def test_identifiers_do_not_repeat_across_hosts() -> None:
    hosts = [RealHost(), RealHost()]
    assert len({host.new_id() for host in hosts for _ in range(100)}) == 200
