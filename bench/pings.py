# ruff: noqa: TID251  a bench reads the machine's clock
"""Figures ``pings`` and ``sessions``: node-to-node pings per second of one process, against bare asyncio clients.

The bare clients send the same bytes in the same number of round trips to the same server, and look at nothing that
comes back. Both sides run ``AT_ONCE`` pings side by side in this process, in turn; the server is another process.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.answering import MAGIC, rote
from bench.figure import Aim, Figure, Say
from failover.host import RealHost
from failover.lab.haproxy import free_ports
from failover.lab.process import Child
from failover.model import Address
from failover.ouroboros.client import Client
from failover.ouroboros.mux import HANDSHAKE
from failover.ouroboros.ping import Session, ping

AT_ONCE = 16
TIMEOUT = 10.0  # seconds
READ_SIZE = 4096
AIM = Aim(0.8, at_least=True)

Work = Callable[[int], Coroutine[None, None, None]]
"""Does so many pings, one after the other."""


def words() -> tuple[bytes, bytes, bytes, bytes]:
    """What a client writes: proposal, keep-alive, question for the tip, and the end."""
    client = Client(MAGIC)
    proposal = client.propose(0)
    client.receive(rote()[HANDSHAKE])
    end = Client(MAGIC)
    end.propose(0)
    end.receive(rote()[HANDSHAKE])
    return proposal, client.keep_alive(0xFFFF, 0), client.find_tip(0), end.done(0)


PROPOSAL, KEEP_ALIVE, FIND_TIP, DONE = words()


# ---------------------------------------------------------------- the clients


def ours(address: Address) -> Work:
    """Pings as the controller sends them."""
    host = RealHost()

    async def work(count: int) -> None:
        for _ in range(count):
            await ping(host, address, MAGIC, TIMEOUT)

    return work


def ours_kept(address: Address) -> Work:
    """Keep-alives and tips on one session that is kept open."""
    host = RealHost()

    async def work(count: int) -> None:
        session = await Session.open(host, address, MAGIC, TIMEOUT)
        for _ in range(count):
            await session.probe(TIMEOUT)
        await session.close()

    return work


def streams(address: Address) -> Work:
    """The same with asyncio's streams."""

    async def work(count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            for question in (PROPOSAL, KEEP_ALIVE, FIND_TIP):
                writer.write(question)
                await reader.read(READ_SIZE)
            writer.write(DONE)
            writer.close()

    return work


def streams_kept(address: Address) -> Work:
    """Keep-alives and tips on one stream."""

    async def work(count: int) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(PROPOSAL)
        await reader.read(READ_SIZE)
        for _ in range(count):
            for question in (KEEP_ALIVE, FIND_TIP):
                writer.write(question)
                await reader.read(READ_SIZE)
        writer.close()

    return work


def sockets(address: Address) -> Work:
    """The same with the event loop's own socket calls."""

    async def work(count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            with socket.socket() as line:
                line.setblocking(False)
                await loop.sock_connect(line, (address.host, address.port))
                for question in (PROPOSAL, KEEP_ALIVE, FIND_TIP):
                    await loop.sock_sendall(line, question)
                    await loop.sock_recv(line, READ_SIZE)
                line.send(DONE)

    return work


# ---------------------------------------------------------------- the measuring


async def rate(work: Work, count: int) -> tuple[float, float]:
    """Pings per second, and per second of this process's CPU time."""
    each = max(1, count // AT_ONCE)
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work(each))
    return each * AT_ONCE / (time.perf_counter() - wall), each * AT_ONCE / (time.process_time() - cpu)


@asynccontextmanager
async def server() -> AsyncIterator[Address]:
    """The server, as a process, for as long as the block."""
    address = Address("127.0.0.1", free_ports(1)[0])
    with TemporaryDirectory(prefix="failover-bench-") as folder:
        child = Child("server", "bench.answering", ["--listen", str(address.port)], Path(folder))
        try:
            await child.start()
            yield address
        finally:
            await child.stop()


async def compare(works: list[Work], count: int, rounds: int) -> list[tuple[float, float]]:
    """The median rates of each, taken in turn, after a round that is not counted."""
    found: list[list[tuple[float, float]]] = [[] for _ in works]
    for number in range(rounds + 1):
        for index, work in enumerate(works):
            rates = await rate(work, count if number else count // 10)
            if number:
                found[index].append(rates)
    return [(median(wall for wall, _ in rates), median(cpu for _, cpu in rates)) for rates in found]


async def _figures(quick: bool, say: Say) -> list[Figure]:
    count, rounds = (200, 1) if quick else (2000, 5)
    async with server() as address:
        say(f"whole pings, {rounds} rounds of {count}")
        mine, with_streams, with_sockets = await compare(
            [ours(address), streams(address), sockets(address)], count, rounds
        )
        say(f"pings on kept-open sessions, {rounds} rounds of {3 * count}")
        kept, kept_streams = await compare([ours_kept(address), streams_kept(address)], 3 * count, rounds)
    cpu = mine[1] / with_streams[1]
    return [
        Figure(
            "pings", mine[0], "/s", with_streams[0], "asyncio streams, same bytes, same server, nothing checked", AIM,
            f"{AT_ONCE} at once, one process; by CPU time the ratio is {cpu:.2f}",
        ),
        Figure("pings, bare sockets", mine[0], "/s", with_sockets[0], "the event loop's sock_* calls, the same"),
        Figure(
            "sessions", kept[0], "/s", kept_streams[0], "keep-alive and tip on one asyncio stream", AIM,
            f"{AT_ONCE} sessions; by CPU time the ratio is {kept[1] / kept_streams[1]:.2f}",
        ),
    ]  # fmt: skip


def figures(quick: bool, say: Say) -> list[Figure]:
    """Both figures."""
    return asyncio.run(_figures(quick, say))
