"""A simulated node: speaks the node-to-node protocol, and misbehaves as it is told.

``Node`` runs inside a program; ``python -m failover.lab.node`` runs one as a process of its own, so that SIGSTOP
works on it, and ``--control`` is where it can be told things. It ends idle sessions as a real node does, with a reset
(facts of ouroboros-network: ConnectionManager/Core.hs). It forges nothing: its tip is the lab's chain.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from failover.host import RealHost
from failover.lab import control, process
from failover.lab.chain import Chain
from failover.lab.haproxy import LabError
from failover.model import Address, Tip
from failover.ouroboros.errors import ProtocolError
from failover.ouroboros.server import Event, KeepAliveAsked, Proposed, Server, TipAsked
from failover.ports import Host

HANDSHAKE_WITHIN, IDLE, SILENT = 10.0, 5.0, 97.0  # seconds, at scale 1; see facts above
LEAST_LIMIT = 1.0  # seconds; scaled limits do not fall below, or a busy machine would end sessions
MOST_SESSIONS = 1000  # ended ones that are remembered
MOST_TOLD = 100  # of them that are told at once
MOST_WITHHELD = 1 << 16  # bytes that a hanging node owes one client
READ_SIZE = 1 << 16
BACKLOG = 1024  # a stopped node goes on taking connections, checks of many minutes too
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the node misbehaves at present; as it stands here, not at all."""

    hang: bool = False
    refuse: bool = False
    slow: float = 0.0  # seconds before each answer
    lag: int = 0  # slots
    frozen: float | None = None  # the moment at which its tip stood still
    magic: int | None = None  # another network's


@dataclass(frozen=True, slots=True)
class Command:
    """Something that a node can be told. ``argument`` is what its value is, or empty where it takes none."""

    meaning: str
    argument: str = ""
    read: Callable[[str], float | int] = int


COMMANDS: Mapping[str, Command] = {
    "hang": Command("take connections, answer nothing"),
    "refuse": Command("close the listening socket; sessions go on"),
    "slow": Command("wait before each answer", "SECONDS", float),
    "lag": Command("stay so many slots behind", "SLOTS"),
    "freeze": Command("let the tip stand still"),
    "magic": Command("belong to another network", "MAGIC"),
    "drop": Command("reset all connections, once"),
    "die": Command("end the process"),
    "heal": Command("end all misbehaviour"),
    "state": Command("tell how it is"),
    "sessions": Command("tell who is connected, and who was"),
}


@dataclass(slots=True)
class Session:
    """One connection, from accept to end. ``asked`` counts keep-alives and tips: a proxy's check asks none."""

    peer: str
    start: float
    end: float | None = None
    why: str = ""
    version: int | None = None
    asked: int = 0


class _Connection:
    """One client: its protocol session, and what a hanging node owes it."""

    def __init__(self, magic: int, record: Session, writer: asyncio.StreamWriter) -> None:
        self.server = Server(magic)
        self.record = record
        self.writer = writer
        self.withheld = b""
        self.why: str | None = None  # set by whoever ends it from outside

    def send(self, data: bytes, hang: bool) -> None:
        if not hang:
            self.writer.write(data)
        elif len(self.withheld) + len(data) > MOST_WITHHELD:
            raise ProtocolError("more questions than a hanging node remembers")
        else:
            self.withheld += data

    def release(self) -> None:
        self.writer.write(self.withheld)
        self.withheld = b""

    def end(self, why: str) -> None:
        self.why = self.why or why
        self.writer.transport.abort()


class Node:
    """A simulated node that listens at ``address`` (port 0: any; ``address`` then tells which).

    ``scale`` is how many times faster than in life it gives up on idle clients. ``died`` is set once it was told to.
    """

    def __init__(
        self, name: str, address: Address, magic: int, chain: Chain, *, scale: float = 1.0, host: Host | None = None
    ) -> None:
        self.name = name
        self.address = address
        self.behaviour = Behaviour()
        self.died = asyncio.Event()
        self._magic = magic
        self._chain = chain
        self._scale = scale
        self._host = host or RealHost()
        self._listener: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[Any] | None] = {}
        self._ended: deque[Session] = deque(maxlen=MOST_SESSIONS)

    async def __aenter__(self) -> Node:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def listen(self) -> None:
        """Take connections. Raises LabError when the address is taken."""
        if self._listener is not None:
            return
        host, port = self.address.host, self.address.port
        try:
            self._listener = await asyncio.start_server(self._serve, host, port, backlog=BACKLOG)
        except OSError as error:
            raise LabError(
                f"{self.name}: cannot listen at {self.address}: {os.strerror(error.errno or 0)}",
                "choose another port, or end what listens there",
            ) from None
        self.address = Address(host, self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Refuse connections, reset those that are there, and wait for their ends to be noted."""
        self._refuse()
        tasks = [task for task in self._connections.values() if task is not None]
        self._drop("the node ended")
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def tip(self) -> Tip:
        """What it says its tip is."""
        now = self._host.now().mono
        frozen = self.behaviour.frozen
        return self._chain.tip(now if frozen is None else frozen, self.name, self.behaviour.lag)

    # ------------------------------------------------ what it can be told

    async def tell(self, command: str, value: str | None = None) -> dict[str, Any]:
        """Carry out one of ``COMMANDS``, and tell how the node is then. Raises LabError."""
        number = _value(command, value)
        match command:
            case "hang":
                self.behaviour = replace(self.behaviour, hang=True)
            case "refuse":
                self.behaviour = replace(self.behaviour, refuse=True)
            case "slow":
                self.behaviour = replace(self.behaviour, slow=number)
            case "lag":
                self.behaviour = replace(self.behaviour, lag=int(number))
            case "magic":
                self.behaviour = replace(self.behaviour, magic=int(number))
            case "freeze":
                self.behaviour = replace(self.behaviour, frozen=self._host.now().mono)
            case "heal":
                self.behaviour = Behaviour()
                for connection in self._connections:
                    connection.release()
            case "drop":
                self._drop("told to drop it")
            case "die":
                self.died.set()
            case "sessions":
                return self._sessions()
        if self.behaviour.refuse or self.died.is_set():
            self._refuse()
        else:
            await self.listen()
        return {
            "name": self.name,
            "address": str(self.address),
            "tip": asdict(self.tip),
            "sessions": sum(1 for c in self._connections if c.record.asked),
            **asdict(self.behaviour),
        }

    def _sessions(self) -> dict[str, Any]:
        return {
            "open": [asdict(c.record) for c in self._connections][-MOST_TOLD:],
            "ended": [asdict(record) for record in self._ended][-MOST_TOLD:],
        }

    def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _drop(self, why: str) -> None:
        for connection in list(self._connections):
            connection.end(why)

    # ------------------------------------------------ one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        peer = "{}:{}".format(*(writer.get_extra_info("peername") or ("unknown", 0))[:2])
        magic = self._magic if self.behaviour.magic is None else self.behaviour.magic
        connection = _Connection(magic, Session(peer, self._host.now().mono), writer)
        self._connections[connection] = asyncio.current_task()
        try:
            connection.end(await self._talk(connection, reader))
        except (OSError, ProtocolError) as error:
            connection.end(str(error))
        finally:
            connection.end("the node ended")
            del self._connections[connection]
            record = connection.record
            record.end, record.why = self._host.now().mono, connection.why or ""
            if record.asked:  # proxies' checks would soon push out everything else
                self._ended.append(record)

    async def _talk(self, connection: _Connection, reader: asyncio.StreamReader) -> str:
        """Answer until the session ends; why it did."""
        while True:
            limit = self._patience(connection)
            try:
                async with self._host.timeout(limit):
                    data = await reader.read(READ_SIZE)
            except TimeoutError:
                if self.behaviour.hang:
                    continue
                return f"silent for {limit:g} s"
            if not data:
                return "closed by the other end"
            for event in connection.server.receive(data):
                await self._answer(connection, event)

    async def _answer(self, connection: _Connection, event: Event) -> None:
        if self.behaviour.slow:
            await self._host.sleep(self.behaviour.slow)
        now_us = int(self._host.now().mono * 1e6)
        connection.send(connection.server.answer(event, self.tip, now_us), self.behaviour.hang)
        if isinstance(event, Proposed):
            connection.record.version = connection.server.version
        elif isinstance(event, KeepAliveAsked | TipAsked):
            connection.record.asked += 1

    def _patience(self, connection: _Connection) -> float:
        server = connection.server
        if server.version is None:
            limit = HANDSHAKE_WITHIN
        else:
            limit = IDLE if server.finished or not connection.record.asked else SILENT
        return max(LEAST_LIMIT, limit / self._scale)


def _value(command: str, value: str | None) -> float | int:
    known = COMMANDS.get(command)
    if known is None:
        raise LabError(f"{command}: no such command", "a node knows: " + ", ".join(COMMANDS))
    if not known.argument:
        if value is not None:
            raise LabError(f"{command} takes no value, {value!r} was given", f"write: {command}")
        return 0
    try:
        number = known.read(value or "")
    except ValueError:
        number = -1
    if not 0 <= number < 2**32:
        given = "nothing" if value is None else repr(value)
        raise LabError(f"{command} needs {known.argument}, {given} was given", f"write for example: {command} 3")
    return number


# ---------------------------------------------------------------- as a process


def parse_address(text: str) -> Address:
    """``HOST:PORT`` as an address. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host or not 0 <= int(port) < 2**16:
        raise ValueError(text)
    return Address(host.strip("[]"), int(port))


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """What the process is told when it is started."""
    parser = argparse.ArgumentParser(prog, description="One simulated node, until it is ended.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--listen", required=True, type=parse_address, metavar="HOST:PORT")
    parser.add_argument("--magic", type=int, default=42)
    parser.add_argument("--chain-epoch", type=float, default=0.0, metavar="SECONDS", help="CLOCK_BOOTTIME of slot 0")
    parser.add_argument("--slot-seconds", type=float, default=1.0)
    parser.add_argument("--block-every", type=int, default=4, metavar="SLOTS")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times faster than in life it loses patience")
    parser.add_argument("--control", type=Path, metavar="PATH", help="a unix socket where it can be told things")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent process ends")
    return parser


async def run(given: argparse.Namespace) -> int:
    """Run one node until it is told to die. Raises LabError when it cannot listen."""
    chain = Chain(given.chain_epoch, given.slot_seconds, given.block_every)
    async with Node(given.name, given.listen, given.magic, chain, scale=given.scale) as node:

        async def handle(question: Mapping[str, Any]) -> Mapping[str, Any]:
            value = question.get("value")
            return await node.tell(question["command"], None if value is None else str(value))

        listener = await control.serve(given.control, handle) if given.control else None
        process.ready()
        await node.died.wait()
        await RealHost().sleep(0.05)  # the answer to "die" is still on its way
        if listener is not None:
            listener.close()
    return 1


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The process's exit status: 1 when it was told to die."""
    given = arguments(prog).parse_args(argv)
    if given.parent is not None:
        process.end_with_parent(given.parent)
    try:
        return asyncio.run(run(given))
    except LabError as error:
        raise SystemExit(f"{error}: {error.mend}") from None


if __name__ == "__main__":
    raise SystemExit(main())
