"""An asyncio event loop on a virtual clock: hours pass in milliseconds, and a run repeats exactly.

The rules that make two runs alike, on every supported Python:

- One FIFO queue of what is ready. The clock, an integer of nanoseconds, moves only when that queue is empty, and then
  straight to the next timer. Timers due at the same instant fire in the order in which they were set.
- Tasks are hashed by a serial number, because asyncio keeps them in sets (TaskGroup, wait) and objects hashed by
  address come out of a set in another order each time. Plain futures are not: give ``asyncio.wait`` tasks.
- What would bring in the outside (sockets, threads, executors, subprocesses, signals) raises NotSimulated.

What cannot go on raises instead of hanging: Deadlock when nothing is ready and no timer is set, Stalled when the
clock no longer moves. A refused call, an error in a callback and an error of a task that nobody looked at make the
whole run fail, even if the code under test swallowed them.

``_run_once`` is replaced, not fed through a selector: asyncio's own orders timers by time alone, so that those due
together fire in heap order, and spends most of its time on what a simulation does not have.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from failover.host import finite

R = TypeVar("R")
Args = TypeVarTuple("Args")

NANO = 1_000_000_000  # nanoseconds in a second
OWNER: ContextVar[object | None] = ContextVar("owner", default=None)  # the process that a task belongs to
MOST_ROUNDS = 100_000  # rounds of the loop at one instant; a real burst takes some dozens
MOST_CANCELLED = 256  # cancelled timers that are kept before the heap is swept, or half of it


class NotSimulated(RuntimeError):
    """Code in the simulation reached for the outside world. ``str()`` names the call."""


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: the tasks named wait for ever."""


class Stalled(RuntimeError):
    """The clock stands still while tasks keep each other, or themselves, busy."""


class VirtualTask(asyncio.Task[Any]):
    """A task that is hashed by its serial number, so that sets of tasks have an order that repeats."""

    __slots__ = ("owner", "serial")

    def __init__(self, coro: Any, loop: VirtualLoop, name: str | None, context: Context | None) -> None:
        self.serial = serial = loop.count("task")  # first of all: asyncio puts the task in a set while it is made
        self.owner = OWNER.get()
        super().__init__(coro, loop=loop, name=name or f"task-{serial}", context=context)

    def __hash__(self) -> int:
        return self.serial


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. One of them is one run: ``VirtualLoop(seed=7).run(main())``.

    ``seed`` is for those who draw (simulator/host.py); the loop itself leaves nothing to chance.
    ``now_ns`` is the virtual clock; ``lines`` the last ``keep`` lines of the trace, as (nanoseconds, text).
    """

    # Of asyncio.BaseEventLoop, which does not declare them.
    _ready: deque[asyncio.Handle]
    _closed: bool
    _stopping: bool
    _exception_handler: Callable[..., Any] | None

    def __init__(self, *, seed: int = 0, keep: int = 100_000) -> None:
        super().__init__()
        self.seed = seed
        self.now_ns = 0
        self.lines: deque[tuple[int, str]] = deque(maxlen=keep)
        self._hash = hashlib.blake2b(digest_size=16)
        self._heap: list[tuple[int, int, asyncio.TimerHandle]] = []  # nanoseconds, order of setting, timer
        self._set = 0
        self._cancelled = 0
        self._rounds = 0
        self._counts: dict[str, int] = {}
        self._fault: BaseException | None = None
        self._ending = False
        self._owner = threading.get_ident()

    # ------------------------------------------------------------ a run

    def run(self, main: Coroutine[Any, Any, R]) -> R:
        """Run ``main`` to its end, cancel what it left behind in order of creation, and close the loop.

        Raises what ``main`` raises; Deadlock; Stalled; NotSimulated and errors of callbacks even if swallowed.
        """
        try:
            return self.run_until_complete(main)
        finally:
            self._ending = True
            try:
                self._cancel_leftovers()
            finally:
                self.close()
                if self._fault is not None:
                    raise self._fault

    def trace(self, text: str) -> None:
        """Note that ``text`` happened now."""
        self.lines.append((self.now_ns, text))
        data = text.encode()
        self._hash.update(b"%d %d " % (self.now_ns, len(data)))
        self._hash.update(data)

    def trace_hash(self) -> str:
        """32 hexadecimal digits over all that was traced so far, with its times."""
        return self._hash.hexdigest()

    def count(self, what: str) -> int:
        """How often this was asked for ``what`` before, from 0 on: serial numbers that repeat with the run."""
        number = self._counts.get(what, 0)
        self._counts[what] = number + 1
        return number

    def pending(self) -> list[VirtualTask]:
        """The tasks that have not ended, oldest first."""
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, VirtualTask)]
        return sorted(tasks, key=lambda task: task.serial)

    def discard(self, owner: object) -> None:
        """Throw away the tasks of a process that was killed. Cut its ways out first: their ``finally`` blocks run."""
        for task in self.pending():
            if task.owner is owner:
                task.cancel()

    # ------------------------------------------------------------ the clock and what is due

    def time(self) -> float:
        """The virtual clock in seconds."""
        return self.now_ns / NANO

    def call_soon(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        if threading.get_ident() != self._owner:
            self._refuse("call_soon_threadsafe from another thread")
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at_ns(self.now_ns + nanoseconds(delay), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at_ns(nanoseconds(when), callback, *args, context=context)

    def call_at_ns(
        self, when: int, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back when the clock reads ``when`` nanoseconds, or at once if it is past that."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        timer = asyncio.TimerHandle(when / NANO, callback, args, self, context)
        self._set = order = self._set + 1
        heapq.heappush(self._heap, (when, order, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        # Also counts timers cancelled after they fired; that only makes a sweep come sooner.
        self._cancelled += 1
        if self._cancelled > max(MOST_CANCELLED, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if not entry[2]._cancelled and entry[2] is not handle]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def _run_once(self) -> None:
        ready = self._ready
        self._rounds += 1
        if self._rounds > MOST_ROUNDS:
            raise Stalled(f"{MOST_ROUNDS} rounds at {self.time():.9f} s without waiting: {self._describe()}")
        if not ready and not self._stopping:
            self._advance()
        heap = self._heap
        now = self.now_ns
        while heap and heap[0][0] <= now:
            ready.append(heapq.heappop(heap)[2])
        handle: asyncio.Handle | None = None
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        # A traceback keeps this frame: without this a failed task would live, unseen, until the garbage collector runs.
        handle = None

    def _advance(self) -> None:
        """Move the clock to the next timer that is still wanted."""
        heap = self._heap
        while heap and heap[0][2]._cancelled:
            heapq.heappop(heap)
        if not heap:
            raise Deadlock(f"at {self.time():.9f} s nothing is due any more, and waiting for ever: {self._describe()}")
        when = heap[0][0]
        if when > self.now_ns:
            self.now_ns = when
            self._rounds = 0

    def _describe(self) -> str:
        tasks = self.pending()
        names = [f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in tasks[:20]]
        more = [f"and {len(tasks) - 20} more"] if len(tasks) > 20 else []
        return ", ".join(names + more) or "no task"

    # ------------------------------------------------------------ tasks, and how they end

    def create_task(  # type: ignore[override]  # asyncio's own stubs differ by version
        self,
        coro: Generator[Any, None, R] | Coroutine[Any, Any, R],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[R]:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        return VirtualTask(coro, self, name, context)

    def _cancel_leftovers(self) -> None:
        tasks = self.pending()
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        self._rounds = 0
        for outcome in self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True)):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                self._note(outcome)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Let the run fail for what asyncio would only log, unless the code under test set a handler."""
        error = context.get("exception")
        if self._exception_handler is None and isinstance(error, BaseException):
            self._note(error)
        else:
            super().call_exception_handler(context)

    def _note(self, fault: BaseException) -> None:
        """Stop here, so that the trace ends where it went wrong; the first fault is the one that is raised."""
        if self._fault is None:
            self._fault = fault
        if not self._ending:
            self.stop()

    def _refuse(self, what: str) -> NoReturn:
        fault = NotSimulated(f"{what}: there is no outside in a simulation; go through a Host or a simulated edge")
        self._note(fault)
        raise fault

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        # asyncio would run its finally blocks whenever the garbage collector comes by, so no two runs were alike.
        name = getattr(agen, "__qualname__", repr(agen))
        self._note(NotSimulated(f"async generator {name} was dropped before its end: use contextlib.aclosing"))


def nanoseconds(seconds: float) -> int:
    """Whole nanoseconds nearest to ``seconds``. Raises ValueError for infinity and NaN."""
    return round(finite(seconds) * NANO)


def run(main: Coroutine[Any, Any, R], *, seed: int = 0) -> R:
    """Run ``main`` on a new VirtualLoop; see its ``run``. Inside, ``asyncio.get_running_loop()`` is that loop."""
    return VirtualLoop(seed=seed).run(main)


_OUTSIDE = (
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "remove_reader",
    "remove_signal_handler",
    "remove_writer",
    "run_in_executor",
    "sendfile",
    "set_default_executor",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
)


def _refusing(what: str) -> Callable[..., NoReturn]:
    def refuse(self: VirtualLoop, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse(f"loop.{what}")

    refuse.__name__ = what
    return refuse


for _what in _OUTSIDE:
    setattr(VirtualLoop, _what, _refusing(_what))
