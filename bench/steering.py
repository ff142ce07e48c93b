"""A lab with real HAProxies, and the real controller steering it from this process. For handover.py and repair.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.redialer import Reached, sessions
from failover import config, status
from failover.controller import Controller, Report
from failover.gates.haproxy import proxy_port
from failover.host import RealHost
from failover.lab.haproxy import LabError
from failover.lab.pool import LabPool, Plan, Times
from failover.lab.process import Child
from failover.model import Phase, Pool, ProxyReading, Request, StepKind, Verb
from failover.parts import LeaseLeft
from failover.ports import Hosts, ProxyPort
from failover.probes.ping import NodePing
from failover.store.sqlite import SqliteStore

HOST = RealHost()
WAIT = 30.0  # seconds, an upper bound for what takes a moment
MakeHosts = Callable[[Pool, LeaseLeft], Hosts]


async def until(true: Callable[[], bool], what: str, poll: float = 0.01) -> None:
    """Wait until it is so. Raises LabError after WAIT."""
    began = HOST.now()
    while not true():
        if HOST.now().since(began) > WAIT:
            raise LabError(f"not so after {WAIT:g} s: {what}", "look whether the machine is very busy")
        await HOST.sleep(poll)


def ask(pool: Pool, producer: str) -> None:
    """Ask for a switchover as the command line does: a request appended through a store of its own."""
    store = SqliteStore(pool.state, pool=pool.name, boot=HOST.now().boot, clock=HOST.now, check=False)
    now = HOST.now()
    store.submit(Request(HOST.new_id(), Verb.SWITCHOVER, now, now.after(60.0), "bench", producer))
    store.close()


@asynccontextmanager
async def lab(interval: float) -> AsyncIterator[tuple[LabPool, Path]]:
    """A lab whose producers are pinged every ``interval`` seconds, and the log of a client that redials at once."""
    times = Times(interval, min(5.0, interval), 3 * interval + 5, 300.0, 1800.0, 1.0)
    with TemporaryDirectory(prefix="fob-") as folder:
        async with LabPool(Path(folder) / "lab", Plan(relays=1, scale=1.0, times=times)) as made:
            targets = [word for proxy in made.proxies.values() for word in ("--target", str(proxy.relays))]
            client = Child("redialer", "bench.redialer", targets, Path(folder))
            try:
                await client.start()
                # Until then a proxy may hide an old worker's sessions, and the controller rightly confirms nothing.
                await HOST.sleep(max(float(p.config.hard_stop_after or 0) for p in made.proxies.values()) + 1)
                yield made, client.log
            finally:
                await client.stop()


@dataclass(frozen=True, slots=True)
class Read:
    """A proxy was read; ``at`` is CLOCK_BOOTTIME, here and below."""

    at: float
    proxy: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A command left."""

    at: float
    kind: StepKind
    producer: str


class TimedPort:
    """A ProxyPort that notes when it was read, and when a command is about to leave.

    That is the last moment at which the command may be called off.
    """

    def __init__(self, name: str, port: ProxyPort, reads: list[Read], sent: list[Sent]) -> None:
        self._name = name
        self._port = port
        self._reads = reads
        self._sent = sent

    async def read(self, timeout: float) -> ProxyReading:
        """See ProxyPort."""
        reading = await self._port.read(timeout)
        self._reads.append(Read(HOST.now().mono, self._name))
        return reading

    async def set(self, kind: StepKind, producer: str, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See ProxyPort."""

        def noted() -> bool:
            self._sent.append(Sent(HOST.now().mono, kind, producer))
            return still_valid()

        return await self._port.set(kind, producer, timeout, noted)

    async def close(self) -> None:
        """See ProxyPort."""
        await self._port.close()


class Steering:
    """A controller at work. ``reads`` and ``sent`` are what it did, oldest first; clear them at will."""

    def __init__(self, pool: Pool, hosts: MakeHosts | None = None) -> None:
        self.pool = pool
        self.reads: list[Read] = []
        self.sent: list[Sent] = []
        self._stop = asyncio.Event()
        self._ping = NodePing(HOST)
        self._store = SqliteStore(self.pool.state, pool=self.pool.name, boot=HOST.now().boot, clock=HOST.now)
        self.controller = Controller(
            self.pool, HOST, self._store, self._ping, self._ports, hosts=hosts, snapshot=self._document
        )
        self._task = asyncio.create_task(self.controller.run(self._stop))

    @property
    def active(self) -> str | None:
        """The active producer when all is settled, and nothing differs from what should be."""
        report = self.controller.report()
        a, outcome = report.assignment, report.outcome
        if not self.controller.settled or outcome is None or outcome.drift or a is None or a.phase is not Phase.STEADY:
            return None
        return a.active

    async def leave(self) -> None:
        """Stop in good order."""
        self._stop.set()
        await self._task
        self._ping.close()
        self._store.close()

    def fit(self) -> bool:
        """Whether every producer is known to be fit, so that it may be switched over to."""
        return all(track.fit_since is not None for track in self.controller.report().view.tracks.values())

    def _ports(self, pool: Pool) -> Mapping[str, ProxyPort]:
        return {p.name: TimedPort(p.name, proxy_port(p, HOST), self.reads, self.sent) for p in pool.proxies}

    @staticmethod
    def _document(report: Report) -> dict[str, object]:
        return status.document(report, pid=os.getpid())


@asynccontextmanager
async def steering(made: LabPool | Pool, hosts: MakeHosts | None = None) -> AsyncIterator[Steering]:
    """A controller that steers a lab, or the pool given, while the block lasts."""
    at_work = Steering(made if isinstance(made, Pool) else config.load(made.file).pool, hosts)
    try:
        await until(lambda: at_work.active is not None and at_work.fit(), "the controller has settled")
        yield at_work
    finally:
        await at_work.leave()


async def reached(log: Path, producer: str, after: float) -> Reached:
    """The first session with ``producer`` that came to be after ``after`` (CLOCK_BOOTTIME)."""
    found: list[Reached] = []

    def looked() -> bool:
        found[:] = [s for s in sessions(log) if s.producer == producer and s.at >= after]
        return bool(found)

    await until(looked, f"a session with {producer}", poll=0.05)
    return min(found, key=lambda session: session.at)
