"""Time and chance of the real machine: the only module that reads a clock, sleeps, draws and starts threads.

The core gets a ``Host`` (ports.py) passed in, so that the simulator can pass in another one. What both hosts must do
alike, giving up on a wait (``Deadline``) and taking turns at an edge (``EdgeWorker``), is written once, here, and
the simulator's host builds on it.

Suspension. Timers of asyncio run on CLOCK_MONOTONIC, which stands still while the machine is suspended; ours must not.
Every wait here therefore looks at CLOCK_BOOTTIME again at least once in ``SLICE`` seconds of waking time: a machine
that was suspended past a deadline notices at most that much later. One second is far below every interval of the
design and costs one wake-up a second for each waiter, some ten of them. (A timer descriptor on CLOCK_BOOTTIME would
need no slices; the standard library has one from Python 3.13 on.)
"""

from __future__ import annotations

import asyncio
import math
import os
import queue
import random  # noqa: TID251  this module is where chance comes from
import threading
import time  # noqa: TID251  this module is where time comes from
import uuid  # noqa: TID251  this module is where identifiers come from
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from failover.errors import FailoverError, WorkerBusy
from failover.model import Instant
from failover.ports import Worker

R = TypeVar("R")

SLICE = 1.0  # seconds of waking time after which a wait looks at the clock again
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Arm = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what shall be called once when time is up, and returns how to call that off."""


def finite(seconds: float) -> float:
    """``seconds``, if a wait can be that long. Raises ValueError for infinity and NaN: every wait has an end."""
    if not math.isfinite(seconds):
        raise ValueError(f"cannot wait for {seconds} seconds: give a finite number")
    return seconds


class Deadline(AbstractAsyncContextManager["Deadline"]):
    """``asyncio.timeout`` on a clock of one's own: the block raises TimeoutError once the armed alarm has rung.

    As there, a block that ends before it suspends never times out, however short the time was.
    """

    __slots__ = ("_arm", "_disarm", "_timeout")

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    async def __aenter__(self) -> Deadline:
        self._timeout = asyncio.timeout(None)  # noqa: TID251  the alarm is ours, the cancelling is asyncio's
        await self._timeout.__aenter__()
        self._disarm = self._arm(self._ring)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disarm()
        await self._timeout.__aexit__(kind, error, trace)

    def _ring(self) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time())


class Job(Generic[R]):
    """One function on its way through a worker. Whoever gets the claim first decides: it runs, or is withdrawn."""

    __slots__ = ("_claim", "_error", "_value", "done", "finished", "function")

    def __init__(self, function: Callable[[], R]) -> None:
        self.function = function
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finished = False  # nothing of it will happen any more
        self._claim = threading.Lock()
        self._value: R | None = None
        self._error: BaseException | None = None

    def claim(self) -> bool:
        """Whether the caller is the first to ask, and so owns what becomes of the function."""
        return self._claim.acquire(blocking=False)

    def run(self) -> None:
        """Call the function and keep what came of it. Never raises."""
        try:
            self._value = self.function()
        except BaseException as error:  # noqa: BLE001  it is raised again where the call was made
            self._error = error
        self.finished = True

    def settle(self) -> None:
        """Tell the caller, in its own loop, that the function has ended; drop the outcome if it no longer waits."""
        if self.done.done():
            self._value = self._error = None
        else:
            self.done.set_result(None)

    def outcome(self) -> R:
        """What the function returned or raised."""
        error, self._error = self._error, None
        if error is None:
            return cast(R, self._value)
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


class EdgeWorker(ABC):
    """Turn-taking at one edge: one call runs, at most one more waits for it, none waits behind one given up on.

    WorkerBusy always means that the function was not called and will not be. TimeoutError means that it was handed
    over: it may have run, or may yet (a function's own TimeoutError is passed on like any other error of its own).
    Subclasses say how a function is run (``_begin``).
    """

    def __init__(self, name: str, timeout: Callable[[float], AbstractAsyncContextManager[Any]]) -> None:
        self.name = name
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._waiting = False
        self._closed = False
        self._job: Job[Any] | None = None

    async def call(self, function: Callable[[], R], timeout: float) -> R:
        """Run ``function`` in this worker; ``timeout`` (seconds) covers waiting for the turn as well.

        Raises TimeoutError when the function has not ended by then: it goes on, and what comes of it is dropped.
        Raises WorkerBusy when it could not be begun: an earlier call still runs, or the worker is closed.
        Cancelling the caller is like giving up.
        """
        job: Job[R] | None = None
        try:
            async with self._timeout(timeout):
                await self._take_turn()
                try:
                    job = self._job = Job(function)
                    self._begin(job)
                    await job.done
                finally:
                    self._end_turn()
        except TimeoutError:
            if job is None:
                raise WorkerBusy(f"worker {self.name}: the call before took all of {timeout:g} s") from None
            raise TimeoutError(f"worker {self.name}: no answer within {timeout:g} s; the call goes on") from None
        return job.outcome()

    def close(self) -> None:
        """Take no more calls; do not wait for one that runs."""
        self._closed = True

    @abstractmethod
    def _begin(self, job: Job[Any]) -> None:
        """See to it that ``job`` is run, and settled in its caller's loop; do not block."""

    async def _take_turn(self) -> None:
        if self._waiting:
            raise WorkerBusy(f"worker {self.name}: a call runs and another one waits already")
        self._waiting = True
        try:
            await self._turn.acquire()
        finally:
            self._waiting = False
        if self._closed or (self._job is not None and not self._job.finished):
            self._turn.release()
            why = "it is closed" if self._closed else "a call that was given up on still runs"
            raise WorkerBusy(f"worker {self.name}: {why}")

    def _end_turn(self) -> None:
        """Withdraw what has not begun, and let the next one in."""
        job = self._job
        if job is not None and job.claim():
            job.finished = True
        if job is not None and job.finished:
            self._job = None
        self._turn.release()


class ThreadWorker(EdgeWorker):
    """A worker with one daemon thread, started at the first call.

    Not an executor: those share threads between edges, queue without a bound, and make the interpreter's exit wait
    for a hung call. A daemon thread is simply left behind.
    """

    def __init__(self, name: str, timeout: Callable[[float], AbstractAsyncContextManager[Any]]) -> None:
        super().__init__(name, timeout)
        self._handed: queue.SimpleQueue[tuple[Job[Any], asyncio.AbstractEventLoop] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """Take no more calls, and let the thread end after the one that runs; do not wait for it."""
        super().close()
        self._handed.put(None)

    def _begin(self, job: Job[Any]) -> None:
        if self._thread is None:
            thread = threading.Thread(target=_serve, args=(self._handed,), name=f"edge {self.name}", daemon=True)
            thread.start()
            self._thread = thread
        self._handed.put((job, asyncio.get_running_loop()))


def _serve(handed: queue.SimpleQueue[tuple[Job[Any], asyncio.AbstractEventLoop] | None]) -> None:
    """The thread of one worker: run what is handed over, one after the other, until None comes."""
    while (item := handed.get()) is not None:
        job, loop = item
        if not job.claim():
            continue
        job.run()
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(job.settle)
        del item, job, loop


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Alarm:
    """Calls ``ring`` when ``boottime`` has reached ``at``; see Suspension above."""

    __slots__ = ("_at", "_boottime", "_handle", "_ring")

    def __init__(self, boottime: Callable[[], float], at: float, ring: Callable[[], None]) -> None:
        self._boottime = boottime
        self._at = at
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._look()

    def _look(self) -> None:
        left = self._at - self._boottime()
        if left <= 0:
            self._ring()
        else:
            self._handle = asyncio.get_running_loop().call_later(min(left, SLICE), self._look)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class RealHost:
    """The machine that we run on. Implements ``Host``.

    ``boottime`` and ``boot_id`` are for tests. Raises FailoverError where the kernel does not tell its boot id.
    """

    def __init__(self, boottime: Callable[[], float] = _boottime, boot_id: Path = BOOT_ID) -> None:
        self._boottime = boottime
        self._boot = _read_boot_id(boot_id)
        # A generator of its own: a library that seeds the global one must not make two controllers draw alike.
        self._random = random.Random(os.urandom(32))  # noqa: S311  jitter, not secrets

    def now(self) -> Instant:
        """The present instant: CLOCK_BOOTTIME and UTC, in seconds."""
        return Instant(self._boot, self._boottime(), time.time())

    async def sleep(self, seconds: float) -> None:
        """Wait until CLOCK_BOOTTIME is ``seconds`` further, never less; suspended time counts (see Suspension).

        Lets others run once when ``seconds`` is not positive. Raises ValueError for infinity and NaN.
        """
        at = self._boottime() + finite(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)  # noqa: TID251  this is Host.sleep
        while (left := at - self._boottime()) > 0:  # noqa: ASYNC110  the clock is what is waited for
            await asyncio.sleep(min(left, SLICE))  # noqa: TID251

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[Any]:
        """A block that raises TimeoutError ``seconds`` after it was entered; suspended time counts as for sleep."""
        finite(seconds)
        return Deadline(lambda ring: _Alarm(self._boottime, self._boottime() + seconds, ring).cancel)

    def random(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def new_id(self) -> str:
        """32 hexadecimal digits, 122 of their 128 bits random."""
        return uuid.uuid4().hex

    def worker(self, name: str) -> Worker:
        """A new worker with a thread of its own for the edge ``name``."""
        return ThreadWorker(name, self.timeout)


def _read_boot_id(path: Path) -> str:
    try:
        boot = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        mend = "run on Linux with /proc mounted"
        raise FailoverError(f"{path}: cannot read which boot this is: {error}", mend) from error
    if not boot:
        raise FailoverError(f"{path}: empty, so nobody can tell which boot this is", "mount the real /proc")
    return boot
