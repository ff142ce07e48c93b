"""What every edge is: a task that reads one thing at a steady pace and carries out the commands that are meant for it.

It touches one port and the board. At most one batch of commands waits; a newer one replaces it. A proxy or a host that
hangs holds up its own task alone. Whether a command worked is not believed but read back.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from .board import Board
from .errors import GateError, GateTimeout, GateUnreachable, WorkerBusy
from .model import Event, EventKind, Instant, Kick, Pointing, Step
from .ports import Host

BACKOFF = 10.0  # seconds: the longest pause before a command that failed, or had no effect, is tried again
GRACE = 1.0  # seconds beyond its timeout after which a port is given up on

Command = TypeVar("Command", Step, Kick, Pointing)


@dataclass(frozen=True, slots=True)
class Order(Generic[Command]):
    """A command with the id under which the journal knows it."""

    id: str
    command: Command

    def begins(self, now: Instant) -> Event:
        """The journal's row for its beginning."""
        command = self.command
        words, detail = f"{command}: {command.reason}", {"step": self.id, **command.about}
        return Event(EventKind.STEP_STARTED, now, words, command.generation, command.producer, detail)

    def ends(self, kind: EventKind, now: Instant, words: str, result: str) -> Event:
        """The journal's row for its end."""
        command = self.command
        detail = {"step": self.id, **command.about, "result": result}
        return Event(kind, now, words, command.generation, command.producer, detail)


async def pause(host: Host, wake: asyncio.Event, seconds: float) -> None:
    """So long, or until woken; when no time is left, the others run for once."""
    if wake.is_set():
        return
    if seconds <= 0:
        await host.sleep(0)
        return
    try:
        async with host.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return


class Edge(ABC, Generic[Command]):
    """Reads and moves one thing: ``posted`` after every observation, ``report`` what became of commands."""

    def __init__(
        self,
        name: str,
        board: Board,
        host: Host,
        *,
        interval: float,
        read_timeout: float,
        step_timeout: float,
        valid: Callable[[Command], bool],
        posted: Callable[[], None],
        report: Callable[[Event], None],
    ) -> None:
        self.name = name
        self._board = board
        self._host = host
        self._interval = interval
        self._read_timeout = read_timeout
        self._step_timeout = step_timeout
        self._valid: Callable[[Command], bool] = valid
        self._posted = posted
        self._report = report
        self._orders: tuple[Order[Command], ...] = ()
        self._running: tuple[Command, ...] = ()
        self._wake = asyncio.Event()
        self._held: dict[Command, tuple[int, float]] = {}  # how often in vain, and until when it is held back

    def wants(self, command: Command) -> bool:
        """Whether this command is neither under way, nor waiting, nor held back after a failure."""
        plain = _plain(command)
        if any(plain == _plain(other) for other in (*self._running, *(order.command for order in self._orders))):
            return False
        return plain not in self._held or self._host.now().mono >= self._held[plain][1]

    def offer(self, orders: tuple[Order[Command], ...]) -> None:
        """Carry these out next; orders that still wait are replaced."""
        self._drop(self._orders)
        self._orders = orders
        self._wake.set()

    def refresh(self) -> None:
        """Read again now."""
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether a command is being carried out."""
        return bool(self._running)

    async def run(self) -> None:
        """Read, wait, carry out, for ever; ends only by cancellation."""
        while True:
            started = self._host.now()
            self._wake.clear()
            orders, self._orders = self._orders, ()
            self._running = tuple(order.command for order in orders)
            left = list(orders)
            try:
                while left:
                    if not await self._one(left.pop(0)):
                        break
                await self._read()  # a command counts as under way until its effect was read back
                for order in orders[: len(orders) - len(left)]:
                    self._hold_back(order.command)
            finally:
                self._running = ()
                self._drop(tuple(left))
            self._posted()
            await pause(self._host, self._wake, self._interval - self._host.now().since(started))

    @abstractmethod
    async def _observe(self, timeout: float) -> None:
        """Read once and post what was read. Raises GateError, WorkerBusy, TimeoutError."""

    @abstractmethod
    def _silence(self, error: str) -> None:
        """Post that reading failed."""

    def _note_sent(self, command: Command) -> None:
        """Post that a command is about to leave."""

    @abstractmethod
    async def _send(self, command: Command) -> bool:
        """Carry out one command through the port; False: it was overtaken, and not sent."""

    @abstractmethod
    def _shows(self, command: Command) -> bool:
        """Whether what was last read stands as the command wants it."""

    def _note_unsent(self, command: Command) -> None:
        """Post that a command did not leave, or not all of it."""

    def _note_unknown(self, command: Command) -> None:
        """Post that nobody knows whether a command took effect."""

    async def _read(self) -> None:
        try:
            async with self._host.timeout(self._read_timeout + GRACE):
                await self._observe(self._read_timeout)
        except (GateError, WorkerBusy) as error:
            self._silence(str(error))
        except TimeoutError:
            self._silence(f"{self.name} did not answer within {self._read_timeout:g} s")

    async def _one(self, order: Order[Command]) -> bool:
        """Carry out one command; False when nobody answers, so that the ones behind it are not tried now."""
        command = order.command
        self._note_sent(command)
        try:
            async with self._host.timeout(self._step_timeout + GRACE):
                sent = await self._send(command)
        except (GateTimeout, TimeoutError) as error:
            self._unknown(order, str(error) or f"{self.name} did not answer within {self._step_timeout:g} s")
        except asyncio.CancelledError:
            self._unknown(order, "abandoned on the way")
            raise
        except (GateUnreachable, WorkerBusy) as error:
            self._note_unsent(command)
            self._say(order, EventKind.STEP_FAILED, str(error), "unreachable")
        except GateError as error:
            self._say(order, EventKind.STEP_FAILED, str(error), "refused")
            return True
        else:
            result = "sent" if sent else "overtaken"
            if not sent:
                self._note_unsent(command)
            self._say(order, EventKind.STEP_DONE, f"{command}: {result}", result)
            return True
        return False

    def _hold_back(self, command: Command) -> None:
        """A command that was in vain is tried again after a pause that doubles; one that shows its effect, at once."""
        self._held = {held: at for held, at in self._held.items() if held.generation == command.generation}
        plain = _plain(command)
        if self._shows(command):
            self._held.pop(plain, None)
            return
        count = self._held.get(plain, (0, 0.0))[0] + 1
        self._held[plain] = (count, self._host.now().mono + min(BACKOFF, 0.25 * 2 ** min(count, 10)))

    def _drop(self, orders: tuple[Order[Command], ...]) -> None:
        """Say of commands that were journalled as begun that they were not sent after all."""
        for order in orders:
            self._say(order, EventKind.STEP_DONE, f"{order.command}: not sent", "overtaken")

    def _unknown(self, order: Order[Command], words: str) -> None:
        self._note_unknown(order.command)
        self._say(order, EventKind.STEP_FAILED, f"{words}; it may still take effect", "unknown")

    def _say(self, order: Order[Command], kind: EventKind, words: str, result: str) -> None:
        self._report(order.ends(kind, self._host.now(), words, result))


def _plain(command: Command) -> Command:
    """What it asks for, however it is worded."""
    return replace(command, reason="")
