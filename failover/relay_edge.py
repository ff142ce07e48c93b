"""One relay's edge: the task that reads whom it is connected to, and ends its sessions with a loser when told to.

It touches one ``RelayPort`` and the board. At most one order waits. Whether it worked is read back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from .board import Board
from .errors import GateError, GateTimeout, WorkerBusy
from .model import KICK, Event, EventKind, Instant, Kick
from .ports import Host, RelayPort

GRACE = 1.0  # seconds beyond its timeout after which a port is given up on


@dataclass(frozen=True, slots=True)
class KickOrder:
    """A kick with the id under which the journal knows it."""

    id: str
    kick: Kick

    def begins(self, now: Instant) -> Event:
        """The journal's row for its beginning."""
        words = f"{self.kick}: {self.kick.reason}"
        return Event(
            EventKind.STEP_STARTED, now, words, self.kick.generation, self.kick.producer, _detail(self.id, self.kick)
        )


class RelayEdge:
    """Reads and kicks one relay. ``posted`` is called after every observation, ``report`` with what became of kicks."""

    def __init__(
        self,
        name: str,
        port: RelayPort,
        board: Board,
        host: Host,
        *,
        interval: float,
        timeout: float,
        valid: Callable[[Kick], bool],
        posted: Callable[[], None],
        report: Callable[[Event], None],
    ) -> None:
        self.name = name
        self.port = port
        self._board = board
        self._host = host
        self._interval = interval
        self._timeout = timeout
        self._valid = valid
        self._posted = posted
        self._report = report
        self._order: KickOrder | None = None
        self._running = False
        self._wake = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether a kick is being carried out."""
        return self._running

    def wants(self, kick: Kick) -> bool:
        """Whether no kick waits or is under way; when to try again, the board's dates decide."""
        return self._order is None and not self._running

    def offer(self, order: KickOrder) -> None:
        """Carry this out next."""
        self._order = order
        self._wake.set()

    async def run(self) -> None:
        """Read, wait, carry out, for ever; ends only by cancellation."""
        while True:
            started = self._host.now()
            self._wake.clear()
            order, self._order = self._order, None
            try:
                if order is not None:
                    self._running = True
                    await self._kick(order)
                await self._read()
            finally:
                self._running = False
            self._posted()
            await self._pause(self._interval - self._host.now().since(started))

    async def _pause(self, seconds: float) -> None:
        if self._wake.is_set() or seconds <= 0:
            await self._host.sleep(0)
            return
        try:
            async with self._host.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _read(self) -> None:
        try:
            async with self._host.timeout(self._timeout + GRACE):
                reading = await self.port.read(self._timeout)
        except (GateError, WorkerBusy) as error:
            self._board.post_relay_silence(self.name, self._host.now(), str(error))
        except TimeoutError:
            words = f"{self.name} did not answer within {self._timeout:g} s"
            self._board.post_relay_silence(self.name, self._host.now(), words)
        else:
            self._board.post_relay(self.name, reading, self._host.now())

    async def _kick(self, order: KickOrder) -> None:
        kick = order.kick
        try:
            async with self._host.timeout(self._timeout + GRACE):
                sent = await self.port.kick(kick, self._timeout, lambda: self._valid(kick))
        except (GateTimeout, TimeoutError) as error:
            words = str(error) or f"{self.name} did not answer within {self._timeout:g} s"
            self._say(order, EventKind.STEP_FAILED, f"{words}; it may still take effect", "unknown")
        except asyncio.CancelledError:
            self._say(order, EventKind.STEP_FAILED, "abandoned on the way", "unknown")
            raise
        except (GateError, WorkerBusy) as error:
            self._say(order, EventKind.STEP_FAILED, str(error), "refused")
        else:
            result = "sent" if sent else "overtaken"
            self._say(order, EventKind.STEP_DONE, f"{kick}: {result}", result)

    def _say(self, order: KickOrder, kind: EventKind, words: str, result: str) -> None:
        kick = order.kick
        detail = {**_detail(order.id, kick), "result": result}
        self._report(Event(kind, self._host.now(), words, kick.generation, kick.producer, detail))


def _detail(order: str, kick: Kick) -> dict[str, str]:
    return {"step": order, "kind": KICK, "relay": kick.relay}
