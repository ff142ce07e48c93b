"""Workers with real threads: one hung edge delays nobody, and nothing waits behind a call that was given up on.

Deadlines are rung by hand and functions hang until they are let go, so that nothing here depends on speed.
``PATIENCE`` only bounds how long a broken test hangs.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from failover.errors import WorkerBusy
from failover.host import Deadline, EdgeWorker, Job, RealHost, ThreadWorker

PATIENCE = 30.0
ROOT = Path(__file__).resolve().parents[2]


class Bells:
    """Deadlines that come when the test says so, oldest first."""

    def __init__(self) -> None:
        self._armed: list[Callable[[], None]] = []

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[Any]:
        def arm(ring: Callable[[], None]) -> Callable[[], None]:
            self._armed.append(ring)
            return lambda: self._armed.remove(ring) if ring in self._armed else None

        return Deadline(arm)

    def ring(self, which: int = 0) -> None:
        self._armed.pop(which)()


class Hang:
    """A function that hangs in its thread until it is let go."""

    def __init__(self, value: str = "late") -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()
        self._let_go = threading.Event()
        self.ended = threading.Event()
        self._value = value

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self._begun.set)
        self._let_go.wait(PATIENCE)
        self.ended.set()
        return self._value

    async def begun(self) -> None:
        await within(self._begun.wait())

    def let_go(self) -> None:
        self._let_go.set()


async def within(wait: Any) -> Any:
    async with asyncio.timeout(PATIENCE):  # noqa: TID251  real threads
        return await wait


async def idle(worker: ThreadWorker) -> None:
    """Wait until the worker takes calls again."""
    for _ in range(10_000):
        try:
            await within(worker.call(lambda: None, 1.0))
        except WorkerBusy:
            await asyncio.sleep(0.001)  # noqa: TID251  the thread ends when it ends
        else:
            return
    raise AssertionError("the worker stayed busy")


@pytest.fixture
async def bells() -> Bells:
    return Bells()


@pytest.fixture
async def worker(bells: Bells) -> AsyncIterator[ThreadWorker]:
    worker = ThreadWorker("proxy-1", bells.timeout)
    yield worker
    worker.close()


async def give_up_on(worker: ThreadWorker, bells: Bells, hang: Hang) -> None:
    call = asyncio.create_task(worker.call(hang, 2.0))
    await hang.begun()
    bells.ring()
    with pytest.raises(TimeoutError, match=r"proxy-1.*2 s"):
        await within(call)


async def test_six_hung_workers_do_not_delay_a_seventh() -> None:
    host = RealHost()
    workers = [host.worker(f"edge-{number}") for number in range(7)]
    hangs = [Hang() for _ in range(6)]
    hung = [asyncio.create_task(worker.call(hang, PATIENCE)) for worker, hang in zip(workers, hangs, strict=False)]
    for hang in hangs:
        await hang.begun()
    assert await within(workers[6].call(lambda: "answer", PATIENCE)) == "answer"
    assert not any(call.done() for call in hung)
    for hang in hangs:
        hang.let_go()
    assert [await within(call) for call in hung] == ["late"] * 6
    for worker in workers:
        worker.close()


async def test_a_call_runs_in_the_workers_own_thread_and_always_in_the_same(worker: ThreadWorker) -> None:
    first = await within(worker.call(threading.current_thread, 1.0))
    second = await within(worker.call(threading.current_thread, 1.0))
    assert first is second
    assert first is not threading.current_thread()
    assert first.daemon
    assert first.name == "edge proxy-1"


async def test_a_worker_that_is_never_called_has_no_thread() -> None:
    RealHost().worker("never called").close()
    assert "edge never called" not in [thread.name for thread in threading.enumerate()]


async def test_what_a_function_raises_is_raised_at_the_call(worker: ThreadWorker) -> None:
    error = ValueError("no such backend")

    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="no such backend") as caught:
        await within(worker.call(fail, 1.0))
    assert caught.value is error
    assert await within(worker.call(lambda: "next", 1.0)) == "next"


async def test_a_functions_own_timeout_is_passed_on_and_leaves_the_worker_free(worker: ThreadWorker) -> None:
    def fail() -> None:
        raise TimeoutError("read timed out")

    with pytest.raises(TimeoutError, match="read timed out"):
        await within(worker.call(fail, 1.0))
    assert await within(worker.call(lambda: "next", 1.0)) == "next"


async def test_a_worker_is_busy_until_the_call_that_was_given_up_on_has_ended(
    worker: ThreadWorker, bells: Bells
) -> None:
    hang = Hang()
    await give_up_on(worker, bells, hang)
    ran = threading.Event()
    with pytest.raises(WorkerBusy, match="proxy-1"):
        await within(worker.call(ran.set, 1.0))
    hang.let_go()
    await idle(worker)
    assert hang.ended.is_set()
    assert not ran.is_set()


async def test_the_result_of_a_call_that_was_given_up_on_is_dropped(worker: ThreadWorker, bells: Bells) -> None:
    hang = Hang("stale")
    await give_up_on(worker, bells, hang)
    hang.let_go()
    await idle(worker)
    assert await within(worker.call(lambda: "fresh", 1.0)) == "fresh"


async def test_a_cancelled_caller_leaves_the_worker_busy_like_one_that_gave_up(worker: ThreadWorker) -> None:
    hang = Hang()
    call = asyncio.create_task(worker.call(hang, 1.0))
    await hang.begun()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(call)
    with pytest.raises(WorkerBusy):
        await within(worker.call(lambda: None, 1.0))
    hang.let_go()
    await idle(worker)


async def test_a_second_call_waits_for_its_turn_and_a_third_is_refused(worker: ThreadWorker) -> None:
    hang = Hang("first")
    first = asyncio.create_task(worker.call(hang, 1.0))
    await hang.begun()
    second = asyncio.create_task(worker.call(lambda: hang.ended.is_set(), 1.0))
    await asyncio.sleep(0)  # noqa: TID251  let it queue
    with pytest.raises(WorkerBusy, match="waits already"):
        await within(worker.call(lambda: None, 1.0))
    hang.let_go()
    assert await within(first) == "first"
    assert await within(second) is True


async def test_a_call_whose_time_runs_out_before_its_turn_is_busy_and_never_runs(
    worker: ThreadWorker, bells: Bells
) -> None:
    hang = Hang("first")
    ran = threading.Event()
    first = asyncio.create_task(worker.call(hang, 1.0))
    await hang.begun()
    second = asyncio.create_task(worker.call(ran.set, 3.0))
    await asyncio.sleep(0)  # noqa: TID251  let it queue
    bells.ring(1)
    with pytest.raises(WorkerBusy, match="3 s"):
        await within(second)
    hang.let_go()
    assert await within(first) == "first"
    await idle(worker)
    assert not ran.is_set()


async def test_a_call_that_waits_behind_one_given_up_on_is_refused_at_once(worker: ThreadWorker, bells: Bells) -> None:
    hang = Hang()
    first = asyncio.create_task(worker.call(hang, 1.0))
    await hang.begun()
    second = asyncio.create_task(worker.call(lambda: None, 1.0))
    await asyncio.sleep(0)  # noqa: TID251  let it queue
    bells.ring()
    with pytest.raises(TimeoutError):
        await within(first)
    with pytest.raises(WorkerBusy, match="given up on"):
        await within(second)
    hang.let_go()


async def test_a_function_given_up_on_before_it_began_never_runs(bells: Bells) -> None:
    class Asleep(EdgeWorker):
        handed: Job[Any] | None = None

        def _begin(self, job: Job[Any]) -> None:
            self.handed = job

    worker = Asleep("slow", bells.timeout)
    for _ in range(2):  # the second time: it did not leave the worker busy either
        call = asyncio.create_task(worker.call(lambda: None, 1.0))
        await asyncio.sleep(0)  # noqa: TID251  let it begin
        bells.ring()
        with pytest.raises(TimeoutError):
            await within(call)
        assert worker.handed is not None
        assert not worker.handed.claim()


async def test_a_closed_worker_takes_no_call_and_lets_the_one_that_runs_end(worker: ThreadWorker) -> None:
    hang = Hang("done")
    call = asyncio.create_task(worker.call(hang, 1.0))
    await hang.begun()
    worker.close()
    hang.let_go()
    assert await within(call) == "done"
    with pytest.raises(WorkerBusy, match="closed"):
        await within(worker.call(lambda: None, 1.0))


async def test_closing_ends_the_thread(worker: ThreadWorker) -> None:
    thread = await within(worker.call(threading.current_thread, 1.0))
    worker.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_call_that_ends_after_its_loop_was_closed_is_dropped_silently() -> None:
    hangs: list[Hang] = []

    async def leave() -> threading.Thread:
        worker = RealHost().worker("left")
        thread = await worker.call(threading.current_thread, PATIENCE)
        hangs.append(hang := Hang())
        call = asyncio.create_task(worker.call(hang, PATIENCE))
        await hang.begun()
        call.cancel()
        worker.close()
        return thread

    thread = asyncio.run(leave())
    hangs[0].let_go()
    thread.join(PATIENCE)
    assert hangs[0].ended.is_set()
    assert not thread.is_alive()


def test_a_process_with_a_hung_worker_ends_by_itself() -> None:
    program = """
import asyncio, threading
from failover.host import RealHost

async def main():
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()
    def hang():
        loop.call_soon_threadsafe(begun.set)
        threading.Event().wait()
    worker = RealHost().worker("hung")
    call = asyncio.create_task(worker.call(hang, 3600))
    await begun.wait()
    call.cancel()
    worker.close()

asyncio.run(main())
print("left")
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "left\n", "")
