"""One address where DNS questions are taken, over UDP and over TCP on the same port. What is answered is not its part.

Answers that do not fit a UDP packet are truncated, as the question's EDNS size says. Waits, sizes and the number of
questions at once are bounded.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import dns.exception
import dns.flags
import dns.message

from failover.host import RealHost
from failover.lab.haproxy import LabError
from failover.model import Address
from failover.ports import Host

PAYLOAD = 1232  # bytes of a UDP packet that we say we take
MOST_AT_ONCE = 1000  # questions; more are dropped
IDLE = 10.0  # seconds that a TCP connection may be silent
BIND_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, and how it came. ``peer`` is where the answer goes."""

    message: dns.message.Message
    udp: bool
    peer: Address

    def wire(self, response: dns.message.Message) -> bytes:
        """The answer's bytes, truncated where they must be."""
        most = max(512, min(self.message.payload, PAYLOAD)) if self.udp else 65535
        return response.to_wire(max_size=most, prefer_truncation=True)


Answerer = Callable[[Asked], Awaitable[bytes | None]]
"""The answer's bytes, or None for silence."""


class DnsPort:
    """Takes questions at ``address`` (port 0: any; ``address`` then tells which) between ``listen`` and ``close``."""

    def __init__(self, name: str, address: Address, answer: Answerer, host: Host | None = None) -> None:
        self.name = name
        self.address = address
        self._answer = answer
        self._host = host or RealHost()
        self._server: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Take questions. Raises LabError when the address is taken."""
        attempts = BIND_ATTEMPTS if self.address.port == 0 else 1
        for left in reversed(range(attempts)):
            try:
                await self._bind()
                return
            except OSError as error:
                await self.close()
                if not left:  # a port that is free for TCP may be taken for UDP
                    raise LabError(
                        f"{self.name}: cannot listen at {self.address}: {os.strerror(error.errno or 0)}",
                        "choose another port, or end what listens there",
                    ) from None

    async def close(self) -> None:
        """Take no more questions, and leave those unanswered that are on their way."""
        if self._server is not None:
            self._server.close()
        if self._udp is not None:
            self._udp.close()
        self._server = self._udp = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _bind(self) -> None:
        host = self.address.host
        self._server = await asyncio.start_server(self._serve, host, self.address.port)
        port = self._server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(host, port))
        self.address = Address(host, port)

    def take(self, data: bytes, peer: tuple[str, int]) -> None:
        """A UDP packet came."""
        if len(self._tasks) < MOST_AT_ONCE:
            self._keep(asyncio.get_running_loop().create_task(self._one(data, peer)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, data: bytes, peer: tuple[str, int]) -> None:
        answer = await self._answered(data, True, peer)
        if answer is not None and self._udp is not None:
            self._udp.sendto(answer, peer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._keep(task)
        peer = writer.get_extra_info("peername") or ("unknown", 0)
        try:
            while True:
                async with self._host.timeout(IDLE):
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    data = await reader.readexactly(size)
                answer = await self._answered(data, False, peer)
                if answer is not None:
                    writer.write(struct.pack("!H", len(answer)) + answer)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # whoever asked is gone, or asks no more
        except asyncio.CancelledError:
            if self._server is not None:  # only ``close`` is answered by ending
                raise
        finally:
            writer.transport.abort()

    async def _answered(self, data: bytes, udp: bool, peer: tuple[Any, ...]) -> bytes | None:
        with suppress(dns.exception.DNSException):  # what cannot be read is not answered
            message = dns.message.from_wire(data)
            if not message.flags & dns.flags.QR:
                return await self._answer(Asked(message, udp, Address(str(peer[0]), int(peer[1]))))
        return None


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, port: DnsPort) -> None:
        self._port = port

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._port.take(data, (addr[0], addr[1]))
