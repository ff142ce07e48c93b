"""A pool of one record and no gate, and the real controller that points it from this process.

For route53.py and rfc2136.py. Producers are pinged by rote, and always up; the store, the record's provider and the
look at its servers are real. Everything is so many times faster than in life as the ping interval is shorter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.steering import HOST, ask, until
from failover.controller import Controller
from failover.lab.haproxy import LabError
from failover.model import (
    Address,
    Change,
    Event,
    FenceSettings,
    HealthSettings,
    Instant,
    Phase,
    Ping,
    Pool,
    Producer,
    Record,
    RecordReading,
    Rfc2136Zone,
    Route53Zone,
    Tip,
)
from failover.ports import RecordPort, VerifyPort
from failover.records import record_port, verify_port
from failover.signposts import RecordTrack
from failover.store.sqlite import SqliteStore
from failover.tick import Outcome

ZONE = "bench.test."
NAME = f"bp.{ZONE}"  # what the controller points
BARE = f"bare.{ZONE}"  # what the bare scripts point, beside it
TARGETS = {"main": "192.0.2.1", "backup": "192.0.2.2"}
TTL = 60
LIFE = HealthSettings()


def record(provider: Route53Zone | Rfc2136Zone, servers: tuple[Address, ...]) -> Record:
    """The record, verified at these servers."""
    return Record(NAME, NAME, TARGETS, provider, TTL, servers=servers)


@dataclass(frozen=True, slots=True)
class Move:
    """When one move of the record came how far: seconds of CLOCK_BOOTTIME.

    ``decided`` is when the rules were asked, ``written`` when that was committed; ``sent`` the last moment at which
    the change may be called off; ``insync`` and ``right`` when the controller knew.
    """

    decided: float
    written: float
    sent: float
    accepted: float
    insync: float
    right: float


class TimedPort:
    """A RecordPort that notes when a change is about to leave."""

    def __init__(self, port: RecordPort) -> None:
        self.sent = 0.0
        self._port = port

    async def read(self, timeout: float) -> RecordReading:
        """See RecordPort."""
        return await self._port.read(timeout)

    async def change(self, change: Change, timeout: float, still_valid: Callable[[], bool]) -> str | None:
        """See RecordPort."""

        def noted() -> bool:
            self.sent = HOST.now().mono
            return still_valid()

        return await self._port.change(change, timeout, noted)

    async def settled(self, change_id: str, timeout: float) -> bool:
        """See RecordPort."""
        return await self._port.settled(change_id, timeout)

    async def close(self) -> None:
        """See RecordPort."""
        await self._port.close()


def parts(moves: Sequence[Move]) -> str:
    """Where the time until the change was accepted went, in the middle one of these moves."""
    written, sent, answered = (
        median(spent) * 1e3
        for spent in zip(
            *((m.written - m.decided, m.sent - m.written, m.accepted - m.sent) for m in moves), strict=True
        )
    )
    return f"{written:.1f} ms to write the decision down, {sent:.1f} until the change leaves, {answered:.1f} more"


class Pointer:
    """A controller at work, ``scale`` times faster than in life."""

    def __init__(self, record: Record, folder: Path, scale: float) -> None:
        self.pool = _pool(record, folder, scale)
        self.port = TimedPort(record_port(record, HOST))
        self._record = record
        self._told: list[tuple[float, Event]] = []
        self._stop = asyncio.Event()
        self._store = SqliteStore(self.pool.state, pool=self.pool.name, boot=HOST.now().boot, clock=HOST.now)
        self._controller = Controller(
            self.pool, HOST, self._store, _ping, lambda pool: {}, records=self._ports, observers=(self,)
        )
        self._task = asyncio.create_task(self._controller.run(self._stop))

    @property
    def active(self) -> str | None:
        """The active producer, when no handover is under way."""
        a = self._controller.report().assignment
        return a.active if a is not None and a.phase is Phase.STEADY and self._controller.settled else None

    def fit(self) -> bool:
        """Whether every producer is known to be fit, so that it may be switched over to."""
        return all(track.fit_since is not None for track in self._controller.report().view.tracks.values())

    async def move(self) -> Move:
        """Switch over to the other producer, and wait until the record is everywhere, and seen to be."""
        to = "backup" if self.active == "main" else "main"
        before = self._generation
        self._told.clear()
        ask(self.pool, to)
        await until(lambda: self._generation > before and self.active == to, f"{to} is active")
        await until(lambda: self._track.insync_at is not None, "the change is in sync")
        await until(lambda: self._track.right_at is not None, "every server is right")
        track = self._track
        written, decision = next((at, event) for at, event in self._told if event.generation > before)
        came = (_mono(track.accepted_at), _mono(track.insync_at), _mono(track.right_at))
        return Move(decision.at.mono, written, self.port.sent, *came)

    async def leave(self) -> None:
        """Stop in good order."""
        self._stop.set()
        await self._task
        self._store.close()

    @property
    def _generation(self) -> int:
        a = self._controller.report().assignment
        return 0 if a is None else a.generation

    @property
    def _track(self) -> RecordTrack:
        return self._controller.report().view.records[self._record.label]

    def _ports(self, record: Record) -> tuple[RecordPort, VerifyPort]:
        return self.port, verify_port(record, HOST)

    # ------------------------------------------------------------ as an observer

    def event(self, event: Event) -> None:
        """See Observer."""
        self._told.append((HOST.now().mono, event))

    def ping(self, producer: str, ping: Ping) -> None:
        """See Observer."""

    def ticked(self, seconds: float, outcome: Outcome) -> None:
        """See Observer."""


def _mono(instant: Instant | None) -> float:
    """Of an instant that was waited for."""
    if instant is None:
        raise LabError("the record was changed while it was waited for", "let nothing else change it")
    return instant.mono


def _pool(record: Record, folder: Path, scale: float) -> Pool:
    return Pool(
        name="BENCH",
        network="preview",
        magic=2,
        state=folder / "state",
        producers=tuple(Producer(name, Address(target, 3001)) for name, target in record.targets.items()),
        proxies=(),
        records=(record,),
        health=HealthSettings(interval=LIFE.interval / scale, timeout=LIFE.timeout, max_gap=LIFE.max_gap),
        fence=FenceSettings(require="none"),
    )


async def _ping(address: Address, magic: int, timeout: float) -> tuple[Tip, float]:
    """A PingPort that is content with everybody."""
    return Tip(int(HOST.now().mono), "ab" * 32, 1), 0.001


@asynccontextmanager
async def pointing(record: Record, folder: Path, scale: float) -> AsyncIterator[Pointer]:
    """A controller that points the record while the block lasts."""
    pointer = Pointer(record, folder, scale)
    try:
        await until(lambda: pointer.active is not None and pointer.fit(), "the controller has settled")
        yield pointer
    finally:
        await pointer.leave()
