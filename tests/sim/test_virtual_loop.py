"""The virtual loop: order, time, what it refuses, and how it ends instead of hanging."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from failover.simulator import loop as virtual
from failover.simulator.loop import Deadlock, NotSimulated, Stalled, VirtualLoop, run

sleep = asyncio.sleep  # noqa: TID251  what it does on this loop is under test


def test_hours_pass_at_once_and_exactly() -> None:
    async def main() -> int:
        await sleep(3600 * 24 * 365)
        await sleep(0.000000001)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop.now_ns

    assert run(main()) == 3600 * 24 * 365 * 10**9 + 1


def test_timers_due_together_fire_in_the_order_in_which_they_were_set() -> None:
    fired: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(50):
            loop.call_at(7.0, fired.append, number)
        await sleep(8)

    run(main())
    assert fired == list(range(50))


def test_a_timer_for_the_present_fires_even_while_others_keep_busy() -> None:
    async def main() -> int:
        fired = asyncio.Event()
        asyncio.get_running_loop().call_later(0, fired.set)
        rounds = 0
        while not fired.is_set():
            rounds += 1
            await sleep(0)
        return rounds

    assert run(main()) <= 2


def test_a_cancelled_timer_neither_fires_nor_moves_the_clock() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(5, pytest.fail, "fired").cancel()
        with contextlib.suppress(Deadlock):
            await sleep(1)
        return loop.time()

    assert run(main()) == 1.0


def test_many_cancelled_timers_are_swept_and_the_others_still_fire_in_order() -> None:
    fired: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = [loop.call_at(10.0 + number % 7, fired.append, number) for number in range(2000)]
        for number, timer in enumerate(timers):
            if number % 10:
                timer.cancel()
        await sleep(20)

    run(main())
    assert fired == sorted(range(0, 2000, 10), key=lambda number: (number % 7, number))


def test_sets_of_tasks_have_the_order_of_creation() -> None:
    async def main() -> list[int]:
        async def wait(number: int) -> int:
            await sleep(1)
            return number

        done, _ = await asyncio.wait([asyncio.create_task(wait(number)) for number in range(20)])  # noqa: TID251
        return [task.result() for task in done]

    assert run(main()) == run(main())


def test_what_waits_for_ever_is_named() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        asyncio.create_task(stuck(), name="probe-main")  # noqa: RUF006  it is still referenced by the error
        await sleep(3)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"at 3\.000000000 s.*probe-main .*stuck"):
        run(main())


@pytest.mark.parametrize("seconds", [0.0, 1e-12])
def test_a_clock_that_stands_still_is_an_error_and_not_a_hang(seconds: float) -> None:
    async def main() -> None:
        while True:
            await sleep(seconds)

    with pytest.raises(Stalled, match="main"):
        run(main())


@pytest.mark.parametrize("seconds", [math.inf, math.nan])
def test_a_timer_that_never_comes_is_refused(seconds: float) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(seconds, print)

    with pytest.raises(ValueError, match=str(seconds)):
        run(main())


async def _thread() -> None:
    await asyncio.to_thread(print)  # noqa: TID251  it must be refused


async def _resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def _connect() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def _listen() -> None:
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)


async def _start() -> None:
    await asyncio.create_subprocess_exec("true")


async def _read() -> None:
    asyncio.get_running_loop().add_reader(0, print)


async def _signal() -> None:
    asyncio.get_running_loop().add_signal_handler(15, print)


OUTSIDE = [_thread, _resolve, _connect, _listen, _start, _read, _signal]


@pytest.mark.parametrize("reach", OUTSIDE, ids=lambda reach: reach.__name__)
def test_reaching_outside_is_refused(reach: Callable[[], Any]) -> None:
    with pytest.raises(NotSimulated):
        run(reach())


@pytest.mark.parametrize("reach", OUTSIDE, ids=lambda reach: reach.__name__)
def test_a_run_fails_for_reaching_outside_even_if_the_error_was_swallowed(reach: Callable[[], Any]) -> None:
    async def main() -> None:
        with contextlib.suppress(NotSimulated):
            await reach()

    with pytest.raises(NotSimulated):
        run(main())


def test_every_way_outside_that_asyncio_offers_is_refused() -> None:
    inside = {
        "call_at",
        "call_exception_handler",
        "call_later",
        "call_soon",
        "call_soon_threadsafe",
        "close",
        "create_future",
        "create_task",
        "default_exception_handler",
        "get_debug",
        "get_exception_handler",
        "get_task_factory",
        "is_closed",
        "is_running",
        "run_forever",
        "run_until_complete",
        "set_debug",
        "set_exception_handler",
        "set_task_factory",
        "shutdown_asyncgens",
        "shutdown_default_executor",
        "stop",
        "time",
    }
    offered = {name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")}
    assert offered - inside == set(virtual._OUTSIDE)


def test_another_thread_cannot_call_in() -> None:
    caught: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def intrude() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except NotSimulated as error:
                caught.append(error)

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()

    with pytest.raises(NotSimulated, match="another thread"):
        run(main())
    assert len(caught) == 1


def test_a_run_fails_for_an_error_in_a_callback() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(int, "x")
        await sleep(1)

    with pytest.raises(ValueError, match="invalid literal"):
        run(main())


def test_a_run_fails_for_a_task_that_failed_unseen() -> None:
    async def fail() -> None:
        raise LookupError("unseen")

    async def main() -> None:
        asyncio.create_task(fail())  # noqa: RUF006  nobody looks at it
        await sleep(1)

    with pytest.raises(LookupError, match="unseen"):
        run(main())


def test_a_run_fails_for_an_async_generator_dropped_before_its_end() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def main() -> None:
        async for _ in numbers():
            break
        await sleep(1)

    with pytest.raises(NotSimulated, match="aclosing"):
        run(main())


def test_what_is_left_at_the_end_is_cancelled_in_order_of_creation() -> None:
    ended: list[int] = []

    async def wait(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    async def main() -> None:
        tasks = [asyncio.create_task(wait(number)) for number in range(30)]
        await sleep(1)
        assert len(tasks) == 30

    run(main())
    assert ended == list(range(30))


def test_what_main_raises_is_raised_and_the_loop_is_closed() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        raise KeyError("main")

    with pytest.raises(KeyError, match="main"):
        loop.run(main())
    assert loop.is_closed()


def traced(first: str, second: str, *, pause: float = 1.0, keep: int = 100) -> VirtualLoop:
    loop = VirtualLoop(keep=keep)

    async def main() -> None:
        loop.trace(first)
        await sleep(pause)
        loop.trace(second)

    loop.run(main())
    return loop


def test_the_trace_holds_what_happened_and_when() -> None:
    assert list(traced("a", "b").lines) == [(0, "a"), (10**9, "b")]


def test_the_hash_tells_texts_times_and_borders_apart_and_does_not_depend_on_what_is_kept() -> None:
    hashes = [
        traced("a", "b").trace_hash(),
        traced("a", "c").trace_hash(),
        traced("a", "b", pause=1.000000001).trace_hash(),
        traced("ab", "").trace_hash(),
    ]
    assert len(set(hashes)) == 4
    assert traced("a", "b", keep=1).trace_hash() == hashes[0]
