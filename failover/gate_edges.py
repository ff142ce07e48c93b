"""The edges of gates: of a proxy, whose gates are all producers' servers in it; of a gate on a producer's own host."""

from __future__ import annotations

from typing import Any

from .board import Board, misdirected
from .edge import Edge
from .model import Admin, Gate, Step, StepKind
from .ports import GatePort, Host, ProxyPort


class ProxyEdge(Edge[Step]):
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

    def _note_sent(self, command: Step) -> None:
        self._board.post_sent(self.name, command.kind, command.producer)

    async def _send(self, command: Step) -> bool:
        return await self.port.set(command.kind, command.producer, self._step_timeout, lambda: self._valid(command))

    def _note_unknown(self, command: Step) -> None:
        if command.kind is StepKind.OPEN:
            self._board.post_unanswered(command.gate, self._host.now())

    def _shows(self, command: Step) -> bool:
        reading = self._board.proxies[self.name].reading
        server = None if reading is None else reading.servers.get(command.producer)
        if server is None:
            return False
        if command.kind is StepKind.OPEN:
            return server.admin is Admin.READY
        return server.admin is Admin.MAINT and server.sessions == 0


class GateEdge(Edge[Step]):
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

    def _note_sent(self, command: Step) -> None:
        self._before = self._board.gates[self.gate]
        self._board.post_gate_sent(self.gate, command.kind)

    def _note_unsent(self, command: Step) -> None:
        self._board.post_gate_unsent(self.gate, self._before)

    async def _send(self, command: Step) -> bool:
        return await self.port.set(command, self._step_timeout, lambda: self._valid(command))

    def _shows(self, command: Step) -> bool:
        return self._board.gates[self.gate].is_open is (command.kind is StepKind.OPEN)
