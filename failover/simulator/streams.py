"""Connections of a simulated network, byte by byte: what a TCP connection does, on the virtual loop.

A listener is a function: given how to answer (bytes; empty ends that direction, None resets the connection), it
returns what takes the bytes that come, or None when nobody listens. Bytes come in order, in pieces, or not at all.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

from failover.simulator.edges import Exit
from failover.simulator.loop import nanoseconds
from failover.simulator.nature import Nature, Network

Take = Callable[[bytes | None], None]
Listener = Callable[[Take], Take | None]

SEGMENT = 1460  # bytes that travel together
MOST_UNDERWAY = 4096  # pieces; a peer that sends more than that unread is cut off


class Pipe:
    """One direction of one connection. What is lost stays lost, and with it all that comes behind it."""

    def __init__(self, nature: Nature, network: Network, origin: str, goal: str, take: Take) -> None:
        self._nature = nature
        self._network = network
        self._pair = (origin, goal)
        self._take = take
        self._last = 0  # nanoseconds, when the piece before arrives
        self._under_way = 0
        self._broken = False

    def send(self, data: bytes | None) -> None:
        """Let it travel: bytes, the end when empty, or a reset when None."""
        if not data:
            self._piece(data)
            return
        for start in range(0, len(data), SEGMENT):
            self._piece(data[start : start + SEGMENT])

    def _piece(self, data: bytes | None) -> None:
        trip = self._network.trip(*self._pair)
        if trip is None or self._under_way >= MOST_UNDERWAY:
            self._broken = True
        if self._broken or trip is None:
            return
        loop = self._nature.loop
        self._last = max(self._last, loop.now_ns + nanoseconds(trip))
        self._under_way += 1
        loop.call_at_ns(self._last, self._arrive, data)

    def _arrive(self, data: bytes | None) -> None:
        self._under_way -= 1
        self._take(data)


class Connection:
    """One connection out of a process. ``made`` is told 0 or an errno, ``take`` what comes; neither after ``close``.

    A peer that is cut off is silent: then nobody is told anything. To a process that was killed all ends in a reset.
    """

    def __init__(self, way_out: Exit, goal: str, listener: Listener, made: Callable[[int], None], take: Take) -> None:
        self._exit = way_out
        self._made = made
        self._told = take
        self._closed = False
        self._peer: Take | None = None
        nature, network = way_out.nature, way_out.network
        self._there = Pipe(nature, network, way_out.place, goal, self._at_peer)
        self._back = Pipe(nature, network, goal, way_out.place, self._at_us)
        self._listener: Listener | None = listener
        self._answered = False
        if way_out.alive:
            self._there.send(b"")  # the first piece asks for the connection

    def send(self, data: bytes) -> None:
        """Let bytes leave, if the process still lives."""
        if self._exit.alive and not self._closed:
            self._there.send(data)

    def close(self) -> None:
        """Close it at once; what has left still arrives. A second time does nothing."""
        if not self._closed:
            self.send(b"")
        self._closed = True

    def _at_peer(self, data: bytes | None) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            self._peer = listener(self._back.send)
            self._back.send(b"" if self._peer is not None else None)  # the first piece says whether there is one
        elif self._peer is not None:
            self._peer(data)

    def _at_us(self, data: bytes | None) -> None:
        self._exit.host.deliver(lambda: self._tell(data))

    def _tell(self, data: bytes | None) -> None:
        if self._closed:
            return
        alive = self._exit.alive
        if self._answered:
            self._told(data if alive else None)
        else:
            self._answered = True
            self._made(errno.ECONNABORTED if not alive else errno.ECONNREFUSED if data is None else 0)


class StreamTransport(asyncio.Transport):
    """A connection as asyncio's streams write to it. ``leaving`` is shown what is about to leave."""

    def __init__(self, connection: Connection, leaving: Callable[[bytes], None]) -> None:
        super().__init__()
        self._connection = connection
        self._leaving = leaving
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio.WriteTransport."""
        if not self._closing:
            self._leaving(bytes(data))
            self._connection.send(bytes(data))

    def abort(self) -> None:
        """See asyncio.WriteTransport."""
        self._closing = True
        self._connection.close()

    def close(self) -> None:
        """See asyncio.BaseTransport."""
        self.abort()

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._closing


async def open_stream(
    way_out: Exit,
    goal: str,
    listener: Listener,
    limit: int,
    *,
    leaving: Callable[[bytes], None] = lambda data: None,
    came: Callable[[bytes], None] = lambda data: None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As asyncio.open_connection, without a deadline of its own. Raises OSError.

    ``leaving`` is shown bytes before they leave, ``came`` those that came before they are read.
    """
    if not way_out.alive:
        raise ConnectionAbortedError(errno.ECONNABORTED, "this process was killed")
    loop = way_out.nature.loop
    reader = asyncio.StreamReader(limit, loop=loop)
    made: asyncio.Future[int] = loop.create_future()

    def settle(error: int) -> None:
        if not made.done():
            made.set_result(error)

    def take(data: bytes | None) -> None:
        if data:
            came(data)
        if data is None or not way_out.alive:
            reader.set_exception(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        elif data:
            reader.feed_data(data)
        else:
            reader.feed_eof()

    connection = Connection(way_out, goal, listener, settle, take)
    try:
        error = await made
    except asyncio.CancelledError:
        connection.close()
        raise
    if error:
        raise OSError(error, os.strerror(error))
    transport = StreamTransport(connection, leaving)
    return reader, asyncio.StreamWriter(transport, asyncio.StreamReaderProtocol(reader, loop=loop), reader, loop)
