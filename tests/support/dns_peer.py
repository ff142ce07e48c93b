"""A DNS server on loopback that says what a script tells it to, byte for byte, over UDP and TCP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from dns_world import free_address

from failover.model import Address


@dataclass(frozen=True)
class Asked:
    """One question as it came in. ``way`` is udp or tcp."""

    message: dns.message.Message
    way: str
    source: tuple[str, int]  # where from
    size: int  # bytes

    @property
    def what(self) -> tuple[str, str]:
        """The name and the type that were asked for."""
        question = self.message.question[0]
        return str(question.name).lower(), question.rdtype.name


@dataclass(frozen=True)
class Elsewhere:
    """A message that comes from another address (or, by default, another port) than the one that was asked."""

    wire: bytes
    host: str = "127.0.0.1"
    same_port: bool = False


@dataclass(frozen=True)
class Raw:
    """Bytes on a TCP connection without the length before them; the connection ends behind them, or hangs."""

    data: bytes
    hang: bool = False


Said = bytes | Elsewhere | Raw
Script = Callable[[Asked], Iterable[Said]]


def reply(
    asked: Asked,
    *records: str,
    aa: bool = True,
    tc: bool = False,
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
    authority: Sequence[str] = (),
    change: Callable[[dns.message.Message], None] | None = None,
) -> bytes:
    """A well-formed answer. ``records`` and ``authority`` are whole lines: "bp.example.test. 60 IN A 192.0.2.1"."""
    message = dns.message.make_response(asked.message)
    message.set_rcode(rcode)
    message.flags |= (dns.flags.AA if aa else 0) | (dns.flags.TC if tc else 0)
    for section, lines in ((message.answer, records), (message.authority, authority)):
        for line in lines:
            name, ttl, kind, record_type, value = line.split(None, 4)
            section.append(dns.rrset.from_text(name, int(ttl), kind, record_type, value))
    if change is not None:
        change(message)
    return message.to_wire(max_size=65535)


def always(*records: str, aa: bool = True, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Script:
    """A script that answers every question with these records."""
    return lambda asked: [reply(asked, *records, aa=aa, rcode=rcode)]


def silence(_: Asked) -> Iterable[Said]:
    """A script that says nothing."""
    return ()


@dataclass
class DnsPeer:
    """``async with DnsPeer(script) as peer``: at ``peer.address`` until the block ends; ``asked`` is what came in."""

    script: Script
    at: Address | None = None
    asked: list[Asked] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        for attempt in range(3):
            self.address = self.at or free_address()
            try:
                await self._listen()
            except OSError:  # somebody else took the port meanwhile
                if attempt == 2 or self.at is not None:
                    raise
            else:
                break
        return self

    async def __aexit__(self, *_: object) -> None:
        self._datagrams.close()
        self._listener.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _listen(self) -> None:
        self._connections: set[asyncio.Task[None]] = set()
        at = (self.address.host, self.address.port)
        self._listener = await asyncio.start_server(self._connected, *at)
        try:
            peer = self

            class Datagrams(asyncio.DatagramProtocol):
                def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
                    peer._datagram(data, source)

            loop = asyncio.get_running_loop()
            self._datagrams, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=at)
        except OSError:
            self._listener.close()
            raise

    def _says(self, data: bytes, way: str, source: tuple[str, int]) -> list[Said]:
        asked = Asked(dns.message.from_wire(data), way, source[:2], len(data))
        self.asked.append(asked)
        return list(self.script(asked))

    def _datagram(self, data: bytes, source: tuple[str, int]) -> None:
        for said in self._says(data, "udp", source):
            if isinstance(said, Elsewhere):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.bind((said.host, self.address.port if said.same_port else 0))
                    other.sendto(said.wire, source)
            else:
                assert isinstance(said, bytes)
                self._datagrams.sendto(said, source)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):  # the client is gone, or the test is over
                await self._answer(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        data = await reader.readexactly(size)
        for said in self._says(data, "tcp", writer.get_extra_info("peername")):
            if isinstance(said, Raw):
                writer.write(said.data)
                if said.hang:
                    await reader.read()
            else:
                assert isinstance(said, bytes)
                writer.write(len(said).to_bytes(2) + said)
            await writer.drain()
