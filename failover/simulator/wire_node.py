"""Simulated nodes that speak node-to-node, and the product's own ping in front of them."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Mapping, Sequence

from failover.model import Address, Tip
from failover.ouroboros.errors import ProtocolError
from failover.ouroboros.failures import explain
from failover.ouroboros.ping import Socket, SocketAddress, ping
from failover.ouroboros.server import Event, Server, TipAsked
from failover.probes.ping import LINGER
from failover.simulator.edges import Exit
from failover.simulator.nodes import Node, Process
from failover.simulator.streams import Connection, Listener, Take

AF_INET = 2  # of a name: it is looked up to itself


class WirePing:
    """PingPort: the product's ping, with simulated nodes at the addresses given."""

    def __init__(self, nodes_by_address: Mapping[Address, Node], way_out: Exit) -> None:
        self._nodes = {(_plain(a.host), a.port): node for a, node in nodes_by_address.items()}
        self._exit = way_out

    async def __call__(self, address: Address, magic: int, timeout: float) -> tuple[Tip, float]:
        """See PingPort. The nodes belong to whichever network is asked for."""
        way = self._exit
        self._live("ping: before", address)
        sockets = MemorySockets(way, lambda where: self._node(where, magic))
        linger = min(LINGER, timeout / 10)
        found = await ping(way.host, address, magic, timeout, resolver=_itself, linger=linger, sockets=sockets)
        self._live("ping: reply", address)
        return found.tip, found.duration_ms / 1e3

    def _live(self, moment: str, address: Address) -> None:
        if not self._exit.survives(moment):
            gone = ConnectionAbortedError(errno.ECONNABORTED, "this process was killed")
            raise explain(gone, "connect", str(address), 0)

    def _node(self, where: tuple[str, int], magic: int) -> tuple[str, Listener]:
        node = self._nodes[where]

        def listen(reply: Take) -> Take | None:
            if node.process in (Process.DOWN, Process.STARTING):
                return None
            return Responder(node, magic, reply, self._exit).take

        return node.name, listen


class Responder:
    """One connection, from the node's end. While the process hangs, bytes are taken and never answered."""

    def __init__(self, node: Node, magic: int, reply: Take, way_out: Exit) -> None:
        self._node = node
        self._reply = reply
        self._exit = way_out
        self._server = Server(magic)

    def take(self, data: bytes | None) -> None:
        """What has arrived."""
        if not data or not self._node.powered or self._node.process is Process.HUNG:
            return
        if not self._node.forges:
            self._reply(None)
            return
        try:
            for event in self._server.receive(data):
                self._owe(event)
        except ProtocolError:
            self._reply(None)

    def _owe(self, event: Event) -> None:
        if isinstance(event, TipAsked) and self._node.delay > 0:
            self._exit.nature.after(self._node.delay, lambda: self._answer(event))
        else:
            self._answer(event)

    def _answer(self, event: Event) -> None:
        now_us = int(self._exit.nature.now() * 1e6)
        if self._node.forges and (words := self._server.answer(event, self._node.tip(), now_us)):
            self._reply(words)


# ---------------------------------------------------------------- sockets


class MemorySockets:
    """Sockets (ouroboros/ping.py) of a simulated process. ``find``: who is at an address, by place and listener."""

    def __init__(self, way_out: Exit, find: Callable[[tuple[str, int]], tuple[str, Listener]]) -> None:
        self._exit = way_out
        self._find = find
        self._open: dict[int, MemorySocket] = {}
        self._next = 3

    def socket(self, family: int, kind: int) -> Socket:
        """A new one."""
        fd, self._next = self._next, self._next + 1
        made = self._open[fd] = MemorySocket(fd, self._exit, self._find)
        return made

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        """See asyncio's loop."""
        self._open[fd].readable = call
        self._open[fd].wake()

    def add_writer(self, fd: int, call: Callable[[], None]) -> None:
        """See asyncio's loop; called once, when the connection is made or refused."""
        self._open[fd].writable = call

    def remove_reader(self, fd: int) -> None:
        """See asyncio's loop."""
        self._open[fd].readable = None

    def remove_writer(self, fd: int) -> None:
        """See asyncio's loop."""
        self._open[fd].writable = None


class MemorySocket:
    """One non-blocking socket, as far as the ping uses it."""

    def __init__(self, fd: int, way_out: Exit, find: Callable[[tuple[str, int]], tuple[str, Listener]]) -> None:
        self.readable: Callable[[], None] | None = None
        self.writable: Callable[[], None] | None = None
        self._fd = fd
        self._exit = way_out
        self._find = find
        self._connection: Connection | None = None
        self._error = 0
        self._came = b""
        self._ended = False

    def fileno(self) -> int:
        """A number that no other socket of the same ping has."""
        return self._fd

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Of no meaning here."""

    def getsockopt(self, level: int, option: int, /) -> int:
        """SO_ERROR, whatever is asked for."""
        return self._error

    def connect_ex(self, address: Sequence[object], /) -> int:
        """Begin to connect."""
        if not self._exit.alive:
            return errno.ECONNABORTED
        place, listener = self._find((_plain(str(address[0])), int(str(address[1]))))
        self._connection = Connection(self._exit, place, listener, self._made, self._take)
        return errno.EINPROGRESS

    def send(self, data: bytes, /) -> int:
        """Let all of it leave."""
        if self._error:
            raise OSError(self._error, "Connection reset by peer")
        assert self._connection is not None  # noqa: S101  it was connected first
        self._connection.send(data)
        return len(data)

    def recv(self, most: int, /) -> bytes:
        """What has come. Raises BlockingIOError when nothing has, OSError after a reset."""
        if self._came:
            data, self._came = self._came[:most], self._came[most:]
            return data
        if self._error:
            raise OSError(self._error, "Connection reset by peer")
        if self._ended:
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing has come")

    def close(self) -> None:
        """Close it, at once."""
        if self._connection is not None:
            self._connection.close()

    def wake(self) -> None:
        """Call back whoever waits for something that is there already."""
        if self.readable is not None and (self._came or self._ended or self._error):
            self.readable()

    def _made(self, error: int) -> None:
        self._error = error
        if self.writable is not None:
            self.writable()

    def _take(self, data: bytes | None) -> None:
        if data is None:
            self._error = errno.ECONNRESET
        elif data:
            self._came += data
        else:
            self._ended = True
        self.wake()


async def _itself(name: str, port: int, timeout: float) -> Sequence[SocketAddress]:
    """Look a name up: there is no DNS between a controller and its nodes here."""
    return (SocketAddress(AF_INET, (name, port)),)


def _plain(host: str) -> str:
    """One spelling for each address."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
