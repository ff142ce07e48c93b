"""What the tests with a real HAProxy share: nodes that answer a handshake, relays, and bounded waiting."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from failover.gates.haproxy import proxy_port
from failover.host import RealHost
from failover.lab.haproxy import LabConfig, LabProxy, Style, WayIn, installed
from failover.model import Address, ProxyReading, StepKind, Tip
from failover.ouroboros.errors import ProtocolError
from failover.ouroboros.server import Server
from failover.ports import ProxyPort

MAGIC = 42
WAIT = 15.0  # seconds, an upper bound for everything that HAProxy does by itself
ANSWER = 5.0  # seconds that a call may take
WAYS = [WayIn.SOCKET, WayIn.TCP, WayIn.STATS]


def require_haproxy() -> None:
    """Skip where HAProxy is missing; fail there when it was asked for (FAILOVER_REQUIRE=haproxy or all)."""
    reason = installed()
    if reason is None:
        return
    if {"haproxy", "all"} & set(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split()):
        pytest.fail(f"FAILOVER_REQUIRE asks for haproxy: {reason}")
    pytest.skip(reason)


class Node:
    """A node that answers handshakes; ``hang`` takes connections and says nothing, like a stopped process."""

    def __init__(self, magic: int = MAGIC) -> None:
        self.magic = magic
        self.hang = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def listen(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        """Refuse connections and end those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)  # noqa: TID251 - real peers, real time

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        server = Server(self.magic)
        try:
            while data := await reader.read(65536):
                if self.hang:
                    continue
                for event in server.receive(data):
                    writer.write(server.answer(event, Tip(1, "00" * 32, 1), 0))
        except (OSError, ProtocolError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


class Relay:
    """A relay's connection through a proxy. ``ended`` is set when the proxy closed it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._reading = asyncio.get_running_loop().create_task(self._watch(reader))

    @classmethod
    async def connect(cls, address: Address) -> Relay:
        return cls(*await asyncio.open_connection(address.host, address.port))

    @property
    def ended(self) -> bool:
        return self._reading.done()

    async def end(self) -> None:
        self._writer.transport.abort()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        try:
            while await reader.read(65536):
                pass
        except OSError:
            pass


class World:
    """Two nodes, and one HAProxy in front of them."""

    def __init__(self, lab: LabProxy, main: Node, backup: Node) -> None:
        self.lab = lab
        self.main = main
        self.backup = backup
        self.relays: list[Relay] = []
        self._ports: list[ProxyPort] = []

    def port(self, way: WayIn, **changes: Any) -> ProxyPort:
        port = proxy_port(replace(self.lab.proxy(way), **changes), RealHost())
        self._ports.append(port)
        return port

    async def relay(self) -> Relay:
        relay = await Relay.connect(self.lab.relays)
        self.relays.append(relay)
        return relay

    async def end(self) -> None:
        for relay in self.relays:
            await relay.end()
        for port in self._ports:
            await port.close()

    async def sees(self, port: ProxyPort, wanted: Callable[[ProxyReading], bool]) -> ProxyReading:
        """The first reading that is as wanted; fails with the last one when none comes."""
        reading = await port.read(ANSWER)

        async def right() -> bool:
            nonlocal reading
            reading = await port.read(ANSWER)
            return wanted(reading)

        await until(right, lambda: repr(reading))
        return reading


@asynccontextmanager
async def world(folder: Path, style: Style = Style.REFERENCE, **changes: Any) -> AsyncIterator[World]:
    require_haproxy()
    async with Node() as main, Node() as backup:
        producers: Mapping[str, Address] = {"main": main.address, "backup": backup.address}
        config = replace(LabConfig("proxy-1", producers, MAGIC, style), **changes)
        async with LabProxy(folder, config) as lab:
            made = World(lab, main, backup)
            try:
                yield made
            finally:
                await made.end()


async def until(condition: Callable[[], Awaitable[bool]], told: Callable[[], str] = str) -> None:
    """Wait for a condition, bounded; fails with what ``told`` says."""
    for _ in range(int(WAIT / 0.02)):
        if await condition():
            return
        await asyncio.sleep(0.02)  # noqa: TID251 - real peers, real time
    pytest.fail(f"it did not come to be within {WAIT:g} s: {told()}")


async def close(port: ProxyPort, producer: str) -> bool:
    return await port.set(StepKind.CLOSE, producer, ANSWER, lambda: True)


async def open_(port: ProxyPort, producer: str) -> bool:
    return await port.set(StepKind.OPEN, producer, ANSWER, lambda: True)
