"""One address where HTTP/1.1 requests are taken, and where replies can be lost, halved, dribbled or never sent.

As much of HTTP as the AWS tools use: a head, a body with Content-Length, connections that are kept. Sizes and waits
are bounded; what breaks a bound ends the connection.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

from failover.host import RealHost
from failover.lab.haproxy import LabError
from failover.model import Address
from failover.ports import Host

MOST_HEAD = 1 << 16  # bytes
MOST_BODY = 1 << 20
IDLE = 60.0  # seconds that a connection may be silent
READ_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``path`` is decoded, without the query; the headers' names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Delivery(StrEnum):
    """What becomes of a reply on its way."""

    WHOLE = "whole"
    CUT = "cut"  # the connection is reset before the first byte
    HALF = "half"  # and here in the middle of the body
    NEVER = "never"  # the connection stays open and silent


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, and how it is delivered. ``dribble`` is the seconds from one byte to the next, or 0."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery: Delivery = Delivery.WHOLE
    dribble: float = 0.0

    def wire(self) -> bytes:
        """The reply's bytes."""
        head = {"Content-Length": str(len(self.body)), **self.headers}
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", *(f"{k}: {v}" for k, v in head.items())]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


class HttpPort:
    """Takes requests at ``address`` (port 0: any; ``address`` then tells which) between ``listen`` and ``close``."""

    def __init__(
        self, name: str, address: Address, handle: Callable[[Request], Awaitable[Reply]], host: Host | None = None
    ) -> None:
        self.name = name
        self.address = address
        self._handle = handle
        self._host = host or RealHost()
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._slow: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        """Take requests. Raises LabError when the address is taken."""
        try:
            self._server = await asyncio.start_server(
                self._serve, self.address.host, self.address.port, limit=MOST_HEAD
            )
        except OSError as error:
            raise LabError(
                f"{self.name}: cannot listen at {self.address}: {os.strerror(error.errno or 0)}",
                "choose another port, or end what listens there",
            ) from None
        self.address = Address(self.address.host, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Take no more requests, and reset the connections that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = [task for task in self._writers.values() if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def let_go(self) -> None:
        """Reset the connections whose replies are dribbled, or never sent."""
        for writer in self._slow:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers[writer] = asyncio.current_task()
        try:
            while await self._send(await self._handle(await self._read(reader)), reader, writer):
                pass
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone, or is no HTTP client
        except asyncio.CancelledError:
            if self._server is not None:  # only ``close`` is answered by ending
                raise
        finally:
            del self._writers[writer]
            self._slow.discard(writer)
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        """The next request. Raises IncompleteReadError at the end, ValueError for what is no request."""
        async with self._host.timeout(IDLE):
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            method, target, version = first.split(" ")
            headers = {name.strip().lower(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
            size = int(headers.get("content-length", "0"))
            if not version.startswith("HTTP/1.") or not 0 <= size <= MOST_BODY or "transfer-encoding" in headers:
                raise ValueError(first)
            body = await reader.readexactly(size)
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return Request(method, unquote(parts.path), query, headers, body)

    async def _send(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Deliver a reply; whether the connection goes on."""
        wire = reply.wire()
        if reply.delivery is Delivery.HALF:
            writer.write(wire[: len(wire) - (len(reply.body) + 1) // 2])
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        elif reply.delivery is Delivery.NEVER:
            self._slow.add(writer)
            while await reader.read(READ_SIZE):  # until whoever asked gives up, or we let go
                pass
        elif reply.delivery is Delivery.WHOLE:
            if reply.dribble:
                self._slow.add(writer)
            step = 1 if reply.dribble else len(wire)
            for start in range(0, len(wire), step):
                writer.write(wire[start : start + step])
                await writer.drain()
                if reply.dribble:
                    await self._host.sleep(reply.dribble)
            self._slow.discard(writer)
            return not writer.transport.is_closing()
        return False
