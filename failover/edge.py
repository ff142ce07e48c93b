"""One gate's edge: the task that reads it at a steady pace and carries out the steps that are meant for it.

It touches one port and the board: a proxy's, whose gates are all producers' servers in it (``ProxyEdge``), or that of
a gate on a producer's own host (``GateEdge``). At most one batch of steps waits; a newer one replaces it. A proxy or a
host that hangs holds up this task alone. Whether a step worked is not believed but read back.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .board import Board, misdirected
from .errors import GateError, GateTimeout, GateUnreachable, WorkerBusy
from .model import Admin, Event, EventKind, Gate, Instant, Step, StepKind
from .ports import GatePort, Host, ProxyPort

BACKOFF = 10.0  # seconds: the longest pause before a step that failed, or had no effect, is tried again
Key = tuple[StepKind, Gate, int, int]
GRACE = 1.0  # seconds beyond its timeout after which a port is given up on


@dataclass(frozen=True, slots=True)
class Order:
    """A step with the id under which the journal knows it."""

    id: str
    step: Step

    def begins(self, now: Instant) -> Event:
        """The journal's row for its beginning."""
        step = self.step
        detail = {"step": self.id, "kind": step.kind.value, "gate": str(step.gate)}
        words = f"{step.kind.value} {step.gate}: {step.reason}"
        return Event(EventKind.STEP_STARTED, now, words, step.generation, step.gate.producer, detail)


class Edge(ABC):
    """Reads and moves one thing. ``posted`` is called after every observation, ``report`` with what became of steps."""

    def __init__(
        self,
        name: str,
        board: Board,
        host: Host,
        *,
        interval: float,
        read_timeout: float,
        step_timeout: float,
        valid: Callable[[Step], bool],
        posted: Callable[[], None],
        report: Callable[[Event], None],
    ) -> None:
        self.name = name
        self._board = board
        self._host = host
        self._interval = interval
        self._read_timeout = read_timeout
        self._step_timeout = step_timeout
        self._valid = valid
        self._posted = posted
        self._report = report
        self._orders: tuple[Order, ...] = ()
        self._running: tuple[Step, ...] = ()
        self._wake = asyncio.Event()
        self._held: dict[Key, tuple[int, float]] = {}  # how often in vain, and until when it is held back

    def wants(self, step: Step) -> bool:
        """Whether this step is neither under way, nor waiting, nor held back after a failure."""
        key = _key(step)
        if any(key == _key(other) for other in (*self._running, *(order.step for order in self._orders))):
            return False
        return key not in self._held or self._host.now().mono >= self._held[key][1]

    def offer(self, orders: tuple[Order, ...]) -> None:
        """Carry these out next; orders that still wait are replaced."""
        self._drop(self._orders)
        self._orders = orders
        self._wake.set()

    def refresh(self) -> None:
        """Read again now."""
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether a step is being carried out."""
        return bool(self._running)

    async def run(self) -> None:
        """Read, wait, carry out, for ever; ends only by cancellation."""
        while True:
            started = self._host.now()
            self._wake.clear()
            orders, self._orders = self._orders, ()
            self._running = tuple(order.step for order in orders)
            left = list(orders)
            try:
                while left:
                    if not await self._one(left.pop(0)):
                        break
                await self._read()  # a step counts as under way until its effect was read back
                for order in orders[: len(orders) - len(left)]:
                    self._hold_back(order.step)
            finally:
                self._running = ()
                self._drop(tuple(left))
            self._posted()
            await self._pause(self._interval - self._host.now().since(started))

    async def _pause(self, seconds: float) -> None:
        if self._wake.is_set():
            return
        if seconds <= 0:  # it takes longer than its pace: let the others run
            await self._host.sleep(0)
            return
        try:
            async with self._host.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    @abstractmethod
    async def _observe(self, timeout: float) -> None:
        """Read once and post what was read. Raises GateError, WorkerBusy, TimeoutError."""

    @abstractmethod
    def _silence(self, error: str) -> None:
        """Post that reading failed."""

    @abstractmethod
    def _note_sent(self, step: Step) -> None:
        """Post that a step is about to leave."""

    @abstractmethod
    async def _send(self, step: Step) -> bool:
        """Carry out one step through the port."""

    @abstractmethod
    def _shows(self, step: Step) -> bool:
        """Whether what was last read stands as the step wants it."""

    @abstractmethod
    def _note_unsent(self, step: Step) -> None:
        """Post that a step did not leave, or not all of it."""

    @abstractmethod
    def _note_unknown(self, step: Step) -> None:
        """Post that nobody knows whether a step took effect."""

    async def _read(self) -> None:
        try:
            async with self._host.timeout(self._read_timeout + GRACE):
                await self._observe(self._read_timeout)
        except (GateError, WorkerBusy) as error:
            self._silence(str(error))
        except TimeoutError:
            self._silence(f"{self.name} did not answer within {self._read_timeout:g} s")

    async def _one(self, order: Order) -> bool:
        """Carry out one step; False when nobody answers, so that the ones behind it are not tried now."""
        step = order.step
        self._note_sent(step)
        try:
            async with self._host.timeout(self._step_timeout + GRACE):
                sent = await self._send(step)
        except (GateTimeout, TimeoutError) as error:
            self._unknown(order, str(error) or f"{self.name} did not answer within {self._step_timeout:g} s")
        except asyncio.CancelledError:
            self._unknown(order, "abandoned on the way")
            raise
        except (GateUnreachable, WorkerBusy) as error:
            self._note_unsent(step)
            self._say(order, EventKind.STEP_FAILED, str(error), "unreachable")
        except GateError as error:
            self._say(order, EventKind.STEP_FAILED, str(error), "refused")
            return True
        else:
            result = "sent" if sent else "overtaken"
            if not sent:
                self._note_unsent(step)
            self._say(order, EventKind.STEP_DONE, f"{step.kind.value} {step.gate}: {result}", result)
            return True
        return False

    def _hold_back(self, step: Step) -> None:
        """A step that was in vain is tried again after a pause that doubles; one that shows its effect, at once."""
        key = _key(step)
        self._held = {k: held for k, held in self._held.items() if k[2] == step.generation}
        if self._shows(step):
            self._held.pop(key, None)
            return
        count = self._held.get(key, (0, 0.0))[0] + 1
        self._held[key] = (count, self._host.now().mono + min(BACKOFF, 0.25 * 2 ** min(count, 10)))

    def _drop(self, orders: tuple[Order, ...]) -> None:
        """Say of steps that were journalled as begun that they were not sent after all."""
        for order in orders:
            self._say(order, EventKind.STEP_DONE, f"{order.step.kind.value} {order.step.gate}: not sent", "overtaken")

    def _unknown(self, order: Order, words: str) -> None:
        self._note_unknown(order.step)
        self._say(order, EventKind.STEP_FAILED, f"{words}; it may still take effect", "unknown")

    def _say(self, order: Order, kind: EventKind, words: str, result: str) -> None:
        step = order.step
        detail = {"step": order.id, "kind": step.kind.value, "gate": str(step.gate), "result": result}
        self._report(Event(kind, self._host.now(), words, step.generation, step.gate.producer, detail))


def _key(step: Step) -> Key:
    """What a step asks for, however it is worded."""
    return (step.kind, step.gate, step.generation, step.term)


class ProxyEdge(Edge):
    """The edge of one proxy."""

    def __init__(self, name: str, port: ProxyPort, board: Board, host: Host, **settings: Any) -> None:
        super().__init__(name, board, host, **settings)
        self.port = port

    async def _observe(self, timeout: float) -> None:
        reading = await self.port.read(timeout)
        if reading.stopping:
            self._silence(f"{self.name} answered from an old process that is stopping")
            return
        wrong = misdirected(self._board.pool, reading)
        if wrong is not None:
            self._silence(wrong)
            return
        self._board.post_reading(self.name, reading, self._host.now())

    def _silence(self, error: str) -> None:
        self._board.post_silence(self.name, self._host.now(), error)

    def _note_sent(self, step: Step) -> None:
        self._board.post_sent(self.name, step.kind, step.gate.producer)

    async def _send(self, step: Step) -> bool:
        return await self.port.set(step.kind, step.gate.producer, self._step_timeout, lambda: self._valid(step))

    def _note_unsent(self, step: Step) -> None:
        """Half of a closing may have left; the next reading tells."""

    def _note_unknown(self, step: Step) -> None:
        if step.kind is StepKind.OPEN:
            self._board.post_unanswered(step.gate, self._host.now())

    def _shows(self, step: Step) -> bool:
        reading = self._board.proxies[self.name].reading
        server = None if reading is None else reading.servers.get(step.gate.producer)
        if server is None:
            return False
        if step.kind is StepKind.OPEN:
            return server.admin is Admin.READY
        return server.admin is Admin.MAINT and server.sessions == 0


class GateEdge(Edge):
    """The edge of one gate on a producer's own host.

    An opening whose end is unknown taints nothing: the agent carries out orders one after the other, and refuses one
    that is older than what it has heard; what it says afterwards is how it stands.
    """

    def __init__(self, gate: Gate, port: GatePort, board: Board, host: Host, **settings: Any) -> None:
        super().__init__(str(gate), board, host, **settings)
        self.gate = gate
        self.port = port
        self._before = board.gates[gate]

    async def _observe(self, timeout: float) -> None:
        reading = await self.port.read(timeout)
        self._board.post_gate(self.gate, reading, self._host.now())

    def _silence(self, error: str) -> None:
        self._board.post_gate_silence(self.gate, self._host.now(), error)

    def _note_sent(self, step: Step) -> None:
        self._before = self._board.gates[self.gate]
        self._board.post_gate_sent(self.gate, step.kind)

    def _note_unsent(self, step: Step) -> None:
        self._board.post_gate_unsent(self.gate, self._before)

    async def _send(self, step: Step) -> bool:
        return await self.port.set(step, self._step_timeout, lambda: self._valid(step))

    def _note_unknown(self, step: Step) -> None:
        """Nothing follows from it, see above."""

    def _shows(self, step: Step) -> bool:
        return self._board.gates[self.gate].is_open is (step.kind is StepKind.OPEN)
