"""A pool that exists on a virtual clock only: its pings and proxies, and a store in memory. Nothing real, no chance.

For bench/ticks.py. As little as the controller needs, so that what is measured is the controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from failover.controller import Controller
from failover.errors import PingError, StoreConflict
from failover.model import (
    Address,
    Admin,
    Answer,
    Assignment,
    Cause,
    Check,
    Commit,
    Event,
    Instant,
    JournalEntry,
    Lease,
    Phase,
    Ping,
    Pool,
    Producer,
    Proxy,
    ProxyReading,
    Request,
    ServerView,
    StepKind,
    Stored,
    Tip,
)
from failover.ports import ProxyPort, Store
from failover.simulator.host import VirtualHost
from failover.simulator.loop import VirtualLoop
from failover.store.sqlite import SqliteStore
from failover.tick import Outcome

NAMES = ("main", "backup")
LATENCY = 0.002  # seconds that the store takes


def latency(edge: str) -> float:
    """Seconds that an edge takes. No two are alike, as in life, so each observation brings a tick of its own."""
    return 0.001 + crc32(edge.encode()) % 997 / 100_000


def pool(number: int = 0) -> Pool:
    """A pool as most have it: two producers, two proxies, one reference; the defaults of the file."""
    return Pool(
        name=f"POOL{number}",
        network="preview",
        magic=2,
        producers=tuple(Producer(n, Address(f"127.0.0.{i + 11}", 3001)) for i, n in enumerate(NAMES)),
        proxies=tuple(
            Proxy(n, "producers", {p: p for p in NAMES}, socket=Path("/nowhere"), watch="watch", hard_stop_after=5.0)
            for n in ("proxy-1", "proxy-2")
        ),
        references=(Address("127.0.0.99", 3001),),
    )


def steady(active: str, at: Instant) -> Assignment:
    """An assignment that nothing has to be done for."""
    return Assignment(1, 1, Phase.STEADY, active, None, Cause.ADOPTED, at, "start", term=1, seen=NAMES)


def reading(admin: Mapping[str, Admin], down: str | None, uptime: float) -> ProxyReading:
    """What a proxy says whose servers stand so, and that sees ``down`` failing."""
    servers = {}
    for name, state in admin.items():
        closed, fails = state is Admin.MAINT, name == down
        status = "MAINT" if closed else "DOWN" if fails else "UP"
        check = Check.FAILED if fails else Check.PASSED_L7
        servers[name] = ServerView(state, status, 0 if closed or fails else 2, check)
    return ProxyReading(servers, "1", uptime, 1000)


class World:
    """What is so: which producer is down, and what the proxies route."""

    def __init__(self, host: VirtualHost, of: Pool) -> None:
        self.host = host
        self.down: str | None = None
        self.admin = {p.name: {n: Admin.READY if n == "main" else Admin.MAINT for n in NAMES} for p in of.proxies}
        self._names = {p.address: p.name for p in of.producers}

    async def ping(self, address: Address, magic: int, timeout: float) -> tuple[Tip, float]:
        """A PingPort."""
        seconds = latency(str(address))
        await self.host.sleep(seconds)
        if self.down is not None and self._names.get(address) == self.down:
            raise PingError(f"{address}: connection refused", "connect")
        return Tip(int(self.host.now().mono), "ab" * 32, 1), seconds

    def ports(self, of: Pool) -> Mapping[str, ProxyPort]:
        """The proxies."""
        return {p.name: _Port(self, p.name) for p in of.proxies}


class _Port:
    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name

    async def read(self, timeout: float) -> ProxyReading:
        await self._world.host.sleep(latency(self._name))
        return reading(self._world.admin[self._name], self._world.down, self._world.host.now().mono)

    async def set(self, kind: StepKind, producer: str, timeout: float, still_valid: Callable[[], bool]) -> bool:
        if not still_valid():
            return False
        await self._world.host.sleep(latency(self._name))
        self._world.admin[self._name][producer] = Admin.MAINT if kind is StepKind.CLOSE else Admin.READY
        return True

    async def close(self) -> None:
        return


class MemoryStore:
    """A Store that keeps everything in attributes; of the journal only how many rows there were."""

    def __init__(self, assignment: Assignment | None) -> None:
        self.rows = 0
        self._assignment = assignment
        self._timers: Mapping[str, Any] = {}
        self._lease: Lease | None = None

    def load(self) -> Stored:
        return Stored(self._assignment, self._timers, self._lease)

    def commit(self, commit: Commit) -> None:
        if self._lease is None or commit.term != self._lease.term:
            raise StoreConflict("the lease is another's")
        if commit.assignment is not None:
            if (self._assignment.revision if self._assignment else 0) != commit.expected_revision:
                raise StoreConflict("the assignment is another's")
            self._assignment = commit.assignment
        self._timers = self._timers if commit.timers is None else commit.timers
        self.rows += len(commit.events)

    def reserve(self) -> None:
        return

    def acquire(self, holder: str, now: Instant, duration: float, wait: float) -> Lease | None:
        self._lease = Lease(holder, 1, now.after(duration), duration)
        return self._lease

    def resign(self, holder: str) -> None:
        self._lease = None

    def submit(self, request: Request) -> None:
        return

    def pending(self) -> tuple[Request, ...]:
        return ()

    def answer(self, request_id: str) -> Answer | None:
        return None

    def changed(self) -> int:
        return 0

    def history(self, after: int = 0, since_utc: float = 0.0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        return ()

    def unfinished(self) -> tuple[Event, ...]:
        return ()

    def snapshot(self) -> tuple[Mapping[str, Any], Instant] | None:
        return None

    def close(self) -> None:
        return


class Counter:
    """An observer that counts ticks, and changes of phase."""

    def __init__(self) -> None:
        self.ticks = 0
        self.phases = 0

    def event(self, event: Event) -> None:
        self.phases += event.kind.value == "phase-changed"

    def ping(self, producer: str, ping: Ping) -> None:
        return

    def ticked(self, seconds: float, outcome: Outcome) -> None:
        self.ticks += 1


def sqlite(folder: Path, host: VirtualHost, of: Pool) -> SqliteStore:
    """The real store, in ``folder``."""
    return SqliteStore(folder, pool=of.name, boot=host.boot, clock=host.now, network_fs_check=lambda path: None)


def live(hours: float, make_store: Callable[[VirtualHost, Pool], Store]) -> Counter:
    """Some hours of a pool's life: in each one the main producer is down for a quarter, and takes over again."""
    of, counter = pool(), Counter()

    async def main(loop: VirtualLoop) -> None:
        host = VirtualHost(loop, seed=1)
        host.latency = lambda edge: LATENCY
        world, store, stop = World(host, of), make_store(host, of), asyncio.Event()
        controller = Controller(of, host, store, world.ping, world.ports, holder="bench", observers=(counter,))
        running = asyncio.create_task(controller.run(stop))
        for part in range(round(hours * 4)):
            world.down = "main" if part % 4 == 1 else None
            await host.sleep(900.0)
        stop.set()
        await running
        store.close()

    loop = VirtualLoop(seed=1)
    loop.run(main(loop))
    return counter
