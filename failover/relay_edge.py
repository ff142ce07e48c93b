"""One relay's edge: it reads whom the relay is connected to, and ends its sessions with a loser when told to."""

from __future__ import annotations

from typing import Any

from .board import Board
from .edge import Edge
from .model import Kick
from .ports import Host, RelayPort


class RelayEdge(Edge[Kick]):
    """The edge of one relay. When to try again what was in vain, the board's dates decide."""

    def __init__(self, name: str, port: RelayPort, board: Board, host: Host, **settings: Any) -> None:
        super().__init__(name, board, host, **settings)
        self.port = port

    def wants(self, command: Kick) -> bool:
        """Whether no kick waits or is under way."""
        return not self._orders and not self._running

    async def _observe(self, timeout: float) -> None:
        self._board.post_relay(self.name, await self.port.read(timeout), self._host.now())

    def _silence(self, error: str) -> None:
        self._board.post_relay_silence(self.name, self._host.now(), error)

    async def _send(self, command: Kick) -> bool:
        return await self.port.kick(command, self._step_timeout, lambda: self._valid(command))

    def _shows(self, command: Kick) -> bool:
        return True
