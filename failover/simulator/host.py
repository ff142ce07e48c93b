"""Time and chance of one simulated machine, on a VirtualLoop.

Each machine has its own clock on top of the loop's: it may run fast or slow (``set_drift``), be stepped (``step_utc``),
leap (``jump``) and stand still for a while (``suspend``). All of it is integer arithmetic in nanoseconds, and chance is
a hash of (seed, name, how often asked), so a run repeats exactly wherever it runs.

Several machines may live on one loop; a restarted process is a new VirtualHost with the same name, a rebooted machine
one with another ``boot`` as well. Neither draws or names what its predecessor did.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from types import coroutine
from typing import Any

from failover.host import Deadline, EdgeWorker, Job
from failover.model import Instant
from failover.simulator.loop import NANO, VirtualLoop, nanoseconds

MILLION = 1_000_000
UTC0 = 1_767_225_600.0  # 2026-01-01T00:00:00Z
MONO0 = 1_000.0  # a machine that has been up for a while


def draw(seed: int, *key: str | int) -> int:
    """64 bits that depend on ``seed`` and ``key`` alone: the only source of chance in a simulation."""
    text = "\0".join([str(seed), *map(str, key)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def fraction(bits: int) -> float:
    """64 bits as a number in [0, 1), exact on every machine."""
    return (bits >> 11) / (1 << 53)


class _Timer:
    """Something to call when the machine's clock reads ``due`` (nanoseconds)."""

    __slots__ = ("_host", "callback", "due", "handle")

    def __init__(self, host: VirtualHost, due: int, callback: Callable[[], None]) -> None:
        self._host = host
        self.due = due
        self.callback = callback
        self.handle: asyncio.TimerHandle | None = None

    def fire(self) -> None:
        del self._host._timers[self]
        self.callback()

    def cancel(self) -> None:
        if self in self._host._timers:
            del self._host._timers[self]
            if self.handle is not None:
                self.handle.cancel()


class VirtualHost:
    """One simulated machine. Implements ``Host``.

    ``latency``, if set, gives the seconds that a worker's call takes, by the edge's name; without it a function is run
    at once and the caller never suspends, which no real worker does: set it where order matters.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        seed: int,
        boot: str = "boot-1",
        utc0: float = UTC0,
        mono0: float = MONO0,
        name: str = "",
    ) -> None:
        self.loop = loop
        self.name = name
        self.boot = boot
        self.latency: Callable[[str], float] | None = None
        self._seed = seed
        self._life = loop.count(f"host {name}")  # tells a restarted process from the one before
        self._asked = 0
        self._mono = nanoseconds(mono0)  # what the clock read ...
        self._since = loop.now_ns  # ... when the loop's read this,
        self._pace = MILLION  # and how much it goes on in a million nanoseconds of the loop's
        self._utc = nanoseconds(utc0) - self._mono  # UTC, less the clock
        self._timers: dict[_Timer, None] = {}  # in the order of setting
        self._asleep = 0  # suspensions that have not ended
        self._frozen = 0  # of these, those in which the clocks stand still
        self._delivered: deque[Callable[[], None]] = deque()
        self._hung: set[str] = set()
        self._workers: dict[str, list[VirtualWorker]] = {}

    # ------------------------------------------------------------ Host

    def now(self) -> Instant:
        """The present instant on this machine's clocks."""
        mono = self._clock()
        return Instant(self.boot, mono / NANO, (mono + self._utc) / NANO)

    async def sleep(self, seconds: float) -> None:
        """Wait on this machine's clock; lets others run once when ``seconds`` is not positive."""
        if seconds <= 0 and not self._asleep:
            await _once()
            return
        future = self.loop.create_future()
        timer = self._arm(seconds, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[Any]:
        """A block that raises TimeoutError ``seconds`` after it was entered, on this machine's clock."""
        return Deadline(lambda ring: self._arm(seconds, ring).cancel)

    def random(self) -> float:
        """A number in [0, 1), from the seed, the name and how often it was asked."""
        return fraction(draw(self._seed, self.name, self._life, "random", self._ask()))

    def new_id(self) -> str:
        """32 hexadecimal digits, unique among all machines of different names on this loop."""
        key = (self.name, self._life, "id", self._ask())
        return f"{draw(self._seed, *key):016x}{draw(self._seed, *key, 'more'):016x}"

    def worker(self, name: str) -> VirtualWorker:
        """A new worker for the edge ``name``."""
        worker = VirtualWorker(name, self)
        self._workers.setdefault(name, []).append(worker)
        return worker

    @property
    def asleep(self) -> bool:
        """Whether the machine stands still."""
        return self._asleep > 0

    # ------------------------------------------------------------ what happens to clocks

    def step_utc(self, seconds: float) -> None:
        """Set UTC forward, or back when negative, as an administrator or a time service does."""
        self._utc += nanoseconds(seconds)

    def set_drift(self, ppm: int) -> None:
        """Let the clock run ``ppm`` millionths faster than the loop's from now on, or slower when negative."""
        if ppm <= -MILLION:
            raise ValueError(f"a drift of {ppm} ppm stops the clock or turns it back: give more than -1000000")
        self._mono, self._since = self._clock(), self.loop.now_ns
        self._pace = MILLION + ppm
        self._rearm()

    def jump(self, seconds: float) -> None:
        """Let both clocks leap forward at once, as a suspension looks from inside; nobody else's time passes.

        Waits that are over by then end now, in the order in which they were due.
        """
        if seconds < 0:
            raise ValueError(f"CLOCK_BOOTTIME cannot go back by {-seconds} s: use step_utc for UTC")
        self._mono += nanoseconds(seconds)
        self._rearm()

    def suspend(self, seconds: float) -> None:
        """Stand still for ``seconds`` of the loop's time, while the clocks of this machine and all others go on.

        No sleep, timeout or worker of this machine ends meanwhile; what is overdue then ends in the order in which it
        was due. A task that waits for something else, such as an event that another machine sets, is not held up.
        """
        self._asleep += 1
        self._rearm()
        self.loop.call_at_ns(self.loop.now_ns + nanoseconds(seconds), self._resume)

    def wake(self) -> None:
        """End every suspension and every standstill now."""
        while self._frozen:
            self._thaw()
        while self._asleep:
            self._resume()

    def _resume(self) -> None:
        if not self._asleep:  # it was woken before its time
            return
        self._asleep -= 1
        self._rearm()
        while self._delivered and not self._asleep:
            self._delivered.popleft()()

    def freeze(self, seconds: float) -> None:
        """Stand still for ``seconds`` of the loop's time, and the clocks too, as a paused virtual machine does."""
        self._mono, self._since = self._clock(), self.loop.now_ns
        self._frozen += 1
        self._asleep += 1
        self._rearm()
        self.loop.call_at_ns(self.loop.now_ns + nanoseconds(seconds), self._thaw)

    def _thaw(self) -> None:
        if not self._frozen:
            return
        self._mono, self._since = self._clock(), self.loop.now_ns
        self._frozen -= 1
        self._resume()

    def deliver(self, call: Callable[[], None]) -> None:
        """Let something reach this machine from outside: now, or when it goes on."""
        if self._asleep:
            self._delivered.append(call)
        else:
            call()

    # ------------------------------------------------------------ what happens to edges

    def hang(self, name: str) -> None:
        """Let calls to the edge ``name`` hang from now on, those under way included."""
        self._hung.add(name)

    def heal(self, name: str, *, late: bool = False) -> None:
        """Let the edge ``name`` answer again.

        A call that its caller still waits for is run now. One that was given up on is forgotten, or, if ``late``, run
        now: an effect that nobody expects any more.
        """
        self._hung.discard(name)
        for worker in self._workers.get(name, ()):
            worker.heal(late)

    def is_hung(self, name: str) -> bool:
        """Whether calls to the edge ``name`` hang."""
        return name in self._hung

    # ------------------------------------------------------------ inside

    def _ask(self) -> int:
        self._asked += 1
        return self._asked

    def _clock(self) -> int:
        if self._frozen:
            return self._mono
        return self._mono + (self.loop.now_ns - self._since) * self._pace // MILLION

    def _arm(self, seconds: float, callback: Callable[[], None]) -> _Timer:
        # At least a nanosecond: waiting for a deadline that rounding left just ahead must bring it nearer.
        wait = max(1, nanoseconds(seconds)) if seconds > 0 else nanoseconds(seconds)
        timer = _Timer(self, self._clock() + wait, callback)
        self._timers[timer] = None
        if not self._asleep:
            self._set(timer)
        return timer

    def _set(self, timer: _Timer) -> None:
        ahead = -((self._mono - timer.due) * MILLION // self._pace)  # rounded up: never early
        timer.handle = self.loop.call_at_ns(self._since + ahead, timer.fire)

    def _rearm(self) -> None:
        """Set all timers anew, for the clock that they go by has changed. The loop orders those that are overdue."""
        for timer in self._timers:
            if timer.handle is not None:
                timer.handle.cancel()
                timer.handle = None
            if not self._asleep:
                self._set(timer)


class VirtualWorker(EdgeWorker):
    """A worker without a thread: it runs functions in the loop, after the host's latency, unless the edge hangs."""

    def __init__(self, name: str, host: VirtualHost) -> None:
        super().__init__(name, host.timeout)
        self._host = host
        self._hanging: Job[Any] | None = None

    def heal(self, late: bool) -> None:
        """End the call that hangs; see VirtualHost.heal."""
        job, self._hanging = self._hanging, None
        if job is None:
            return
        if late or not job.done.done():
            self._finish(job)
        else:
            job.finished = True

    def _begin(self, job: Job[Any]) -> None:
        job.claim()  # it is on its way: giving up does not call it back
        latency = self._host.latency
        seconds = latency(self.name) if latency is not None else 0.0
        if seconds > 0:
            self._host._arm(seconds, lambda: self._arrive(job))
        else:
            self._arrive(job)

    def _arrive(self, job: Job[Any]) -> None:
        if self._host.is_hung(self.name):
            self._hanging = job
        else:
            self._finish(job)

    def _finish(self, job: Job[Any]) -> None:
        job.run()
        job.settle()


@coroutine
def _once() -> Generator[None, None, None]:
    """Let the others run once."""
    yield
