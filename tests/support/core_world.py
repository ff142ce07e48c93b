"""The real controller on a virtual-time loop, with simulated proxies and pings around it.

The truth (who runs, what proxies route) is policy_world's; here it is reached through the ports, with latencies
drawn from the seed, and every change of it is traced and watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from policy_world import Door, Node, Sign, make_pool

from failover.controller import Controller
from failover.errors import (
    GateTimeout,
    GateUnreachable,
    PingError,
    RecordConflict,
    RecordThrottled,
    RecordTimeout,
    RecordUnreachable,
    StoreError,
)
from failover.model import (
    Address,
    Admin,
    Change,
    Commit,
    DnsAnswer,
    Event,
    Ping,
    Pool,
    ProxyReading,
    Record,
    RecordReading,
    Request,
    ServerView,
    StepKind,
    Tip,
    Verb,
)
from failover.ports import ProxyPort
from failover.simulator.host import UTC0, VirtualHost, draw, fraction
from failover.simulator.loop import VirtualLoop
from failover.store.sqlite import SqliteStore
from failover.tick import Outcome

T0 = 1000.0  # what the virtual machine's clock reads at the start


class Truth:
    """What is so, apart from what the controller can see."""

    def __init__(self, pool: Pool, loop: VirtualLoop, *, seed: int = 0, checks: str = "l7") -> None:
        self.pool, self.loop, self.seed = pool, loop, seed
        self.nodes = {n: Node() for n in pool.names}
        self.doors = {
            p.name: Door(checks, admin={n: Admin.READY if n == pool.preferred else Admin.MAINT for n in pool.names})
            for p in pool.proxies
        }
        self.signs: dict[str, Sign] = {}
        for record in pool.records:
            rrset = record.wanted(pool.preferred)
            self.signs[record.label] = Sign(rrset, servers={"ns1": rrset, "ns2": rrset})
        self.asked: list[tuple[float, str]] = []  # calls to records' providers
        self.spreads_in = 40.0  # seconds from a change until it is on every server
        self.changed_at = 0.0
        self.before_change: Callable[[Change], None] = lambda change: None
        self.throttled = False
        self.hung: set[str] = set()  # proxies and addresses whose calls never come back in time
        self.calls: dict[str, int] = {}
        self.paces: dict[str, list[float]] = {}
        self.sent: list[tuple[float, StepKind, str, str]] = []
        self.breaches: list[str] = []
        self.swapped: set[str] = set()  # proxies whose servers lead to each other's addresses
        self.holds: dict[str, float] = {}  # seconds between a proxy's connection and the moment of sending
        self.admitted_since: dict[str, float] = {}
        self.two = 0.0
        self.before_send: Callable[[StepKind, str, str], None] = lambda kind, proxy, producer: None

    def now(self) -> float:
        return self.loop.now_ns / 1e9

    def latency(self, edge: str) -> float:
        self.calls[edge] = self.calls.get(edge, 0) + 1
        return 0.001 + 0.009 * fraction(draw(self.seed, edge, self.calls[edge]))

    def chain_slot(self) -> int:
        return 5000 + int(self.now())

    def admitted(self) -> set[str]:
        return {n for n, node in self.nodes.items() if node.well and any(d.admits(n) for d in self.doors.values())}

    def move(self, proxy: str, producer: str, admin: Admin, *, by_hand: bool = False) -> None:
        """Change a gate, and watch what that makes true."""
        before = self.admitted()
        self.doors[proxy].admin[producer] = admin
        after = self.admitted()
        self.loop.trace(f"{proxy} {producer} {admin.value} {'by hand' if by_hand else ''}")
        if len(after) > 1 and len(before) <= 1 and not by_hand:
            self.breaches.append(f"{self.now():.3f}: two admitted by us: {sorted(after)}")


class SimProxy:
    """ProxyPort over a Door."""

    def __init__(self, name: str, truth: Truth, host: VirtualHost) -> None:
        self.name, self.truth, self.host = name, truth, host

    async def _travel(self, timeout: float) -> None:
        if self.name in self.truth.hung:
            await self.host.sleep(timeout)
            raise GateTimeout(f"{self.name} did not answer within {timeout:g} s")
        await self.host.sleep(self.truth.latency(self.name))
        if not self.truth.doors[self.name].answers:
            raise GateUnreachable(f"{self.name}: connection refused")

    async def read(self, timeout: float) -> ProxyReading:
        await self._travel(timeout)
        self.truth.paces.setdefault(self.name, []).append(self.truth.now())
        door, servers = self.truth.doors[self.name], {}
        for name, node in self.truth.nodes.items():
            status = door.status(name, node)
            serves = door.admits(name) and node.well and status in ("UP", "no check")
            leads_to = {p.name: str(p.address) for p in self.truth.pool.producers}
            if self.name in self.truth.swapped:
                leads_to = dict(zip(leads_to, reversed(leads_to.values()), strict=True))
            sessions = 2 if serves else 0
            servers[name] = ServerView(door.admin[name], status, sessions, door.check(name, node), leads_to[name])
        return ProxyReading(servers, door.process, self.truth.now() + 10_000.0, door.total)

    async def set(self, kind: StepKind, producer: str, timeout: float, still_valid: Callable[[], bool]) -> bool:
        await self.host.sleep(self.truth.holds.get(self.name, 0.0))  # a connection that takes its time
        if not still_valid():
            return False
        self.truth.before_send(kind, self.name, producer)
        self.truth.sent.append((self.truth.now(), kind, self.name, producer))
        await self._travel(timeout)
        self.truth.move(self.name, producer, Admin.MAINT if kind is StepKind.CLOSE else Admin.READY)
        return True

    async def close(self) -> None:
        return


class SimRecord:
    """RecordPort over a Sign."""

    def __init__(self, record: Record, truth: Truth, host: VirtualHost) -> None:
        self.name, self.truth, self.host = record.label, truth, host

    async def _travel(self, what: str, timeout: float) -> Sign:
        self.truth.asked.append((self.truth.now(), what))
        if self.name in self.truth.hung:
            await self.host.sleep(timeout)
            raise RecordUnreachable(f"{self.name}: no answer within {timeout:g} s")
        await self.host.sleep(10 * self.truth.latency(self.name))
        if self.truth.throttled:
            raise RecordThrottled(f"{self.name}: asked too often")
        return self.truth.signs[self.name]

    async def read(self, timeout: float) -> RecordReading:
        sign = await self._travel("read", timeout)
        return RecordReading(sign.rrset, sign.unownable)

    async def change(self, change: Change, timeout: float, still_valid: Callable[[], bool]) -> str | None:
        await self.host.sleep(self.truth.holds.get(self.name, 0.0))
        if not still_valid():
            return None
        sign = await self._travel("change", timeout)
        self.truth.before_change(change)
        if sign.rrset != change.expected:
            raise RecordConflict(f"{self.name} holds {sign.rrset} by now")
        sign.rrset = change.wanted
        self.truth.changed_at = self.truth.now()
        self.truth.loop.trace(f"{self.name} {change.wanted}")
        if sign.loses:
            await self.host.sleep(timeout)
            raise RecordTimeout(f"{self.name}: no answer within {timeout:g} s")
        return f"C{len(self.truth.asked)}"

    async def settled(self, change_id: str, timeout: float) -> bool:
        await self._travel("settled", timeout)
        return self.truth.now() - self.truth.changed_at >= self.truth.spreads_in

    async def close(self) -> None:
        return


class SimVerifier:
    """VerifyPort over a Sign: servers say what is held once it has spread."""

    def __init__(self, record: Record, truth: Truth, host: VirtualHost) -> None:
        self.name, self.truth, self.host = record.label, truth, host

    async def look(self, timeout: float) -> tuple[DnsAnswer, ...]:
        await self.host.sleep(self.truth.latency(f"servers of {self.name}"))
        sign = self.truth.signs[self.name]
        if self.truth.now() - self.truth.changed_at >= self.truth.spreads_in:
            sign.spread()
        return tuple(DnsAnswer(server, True, rrset) for server, rrset in sign.servers.items())

    async def close(self) -> None:
        return


class SimPing:
    """PingPort over the nodes."""

    def __init__(self, truth: Truth, host: VirtualHost) -> None:
        self.truth, self.host = truth, host
        self.names = {p.address: p.name for p in truth.pool.producers}

    async def __call__(self, address: Address, magic: int, timeout: float) -> tuple[Tip, float]:
        name = self.names.get(address, str(address))
        node = self.truth.nodes.get(name, Node())
        if name in self.truth.hung or node.hung:
            await self.host.sleep(timeout)
            raise PingError(f"{address}: silent", "handshake")
        seconds = self.truth.latency(name)
        await self.host.sleep(seconds)
        self.truth.paces.setdefault(name, []).append(self.truth.now())
        if not node.up:
            raise PingError(f"{address}: connection refused", "connect", refused=True)
        return Tip(self.truth.chain_slot() - node.lag, "ab" * 32, 1), seconds


class Recorder:
    """Observer that keeps and traces every event."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.events: list[Event] = []
        self.outcomes = 0
        self.last: Outcome | None = None

    def event(self, event: Event) -> None:
        self.events.append(event)
        self.loop.trace(f"{event.kind.value} {event.generation} {event.reason}")

    def ping(self, producer: str, ping: Ping) -> None:
        return

    def ticked(self, seconds: float, outcome: Outcome) -> None:
        self.outcomes += 1
        self.last = outcome

    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.events]


class SpiedStore(SqliteStore):
    """A real store that counts, and can be told to fail."""

    fail: StoreError | None = None
    commits: list[Commit]

    def commit(self, commit: Commit) -> None:
        if self.fail is not None:
            raise self.fail
        super().commit(commit)
        self.commits = [*getattr(self, "commits", []), commit]


class Core:
    """One pool's world on one loop: start controllers in it, cut them off, look at what happened."""

    def __init__(
        self, folder: Path, *, seed: int = 0, checks: str = "l7", pool: Pool | None = None, assigned: bool = True
    ) -> None:
        self.folder = folder
        self.pool = pool or make_pool()
        self.loop = VirtualLoop(seed=seed)
        self.truth = Truth(self.pool, self.loop, seed=seed, checks=checks)
        self.host: VirtualHost
        self.store: SpiedStore
        self.recorder: Recorder
        self.controller: Controller
        self.task: asyncio.Task[None]
        self.stop: asyncio.Event

    def start(self, *, name: str = "one") -> Controller:
        """A controller of its own host, with the store in the folder; call inside the loop."""
        self.host = VirtualHost(
            self.loop, seed=self.truth.seed, name=name, mono0=T0 + self.truth.now(), utc0=UTC0 + self.truth.now()
        )
        self.host.latency = lambda edge: 0.002
        self.store = SpiedStore(
            self.folder, pool=self.pool.name, boot="boot-1", clock=self.host.now, network_fs_check=lambda path: None
        )
        self.recorder = Recorder(self.loop)

        def ports(pool: Pool) -> Mapping[str, ProxyPort]:
            return {p.name: SimProxy(p.name, self.truth, self.host) for p in pool.proxies}

        self.controller = Controller(
            self.pool,
            self.host,
            self.store,
            SimPing(self.truth, self.host),
            ports,
            records=lambda record: (
                SimRecord(record, self.truth, self.host),
                SimVerifier(record, self.truth, self.host),
            ),
            holder=name,
            observers=(self.recorder,),
        )
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.controller.run(self.stop), name=f"controller {name}")
        return self.controller

    async def leave(self) -> None:
        """Stop in good order."""
        self.stop.set()
        await self.task
        self.store.close()

    async def kill(self) -> None:
        """As kill -9: the store is cut first, then every task of the incarnation is thrown away."""
        self.store.close()
        self.store.fail = StoreError("cut")
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await self.host.sleep(0)
        await self.host.sleep(0)

    async def until(self, condition: Callable[[], bool], seconds: float = 4000.0) -> float:
        """Wait for it, in steps of a tenth of a second; returns how long it took. A bound, so that a test ends."""
        start = self.truth.now()
        while not condition():
            if self.truth.now() - start > seconds:
                raise AssertionError(f"not so after {seconds:g} s; last: {self.recorder.events[-5:]}")
            await self.host.sleep(0.1)
        return self.truth.now() - start

    async def ask(self, verb: Verb, producer: str | None = None, *, force: bool = False) -> str:
        """What the CLI does: append a request through a store of its own."""
        now = self.host.now()
        request = Request(
            f"request-{self.loop.count('request')}", verb, now, now.after(60), "op", producer, force=force
        )
        self.store.submit(request)
        self.controller._seen_change = -1  # data_version does not rise for one's own connection
        return request.id

    def active(self) -> str | None:
        a = self.controller.report().assignment
        return None if a is None else a.active

    def steady(self, producer: str) -> bool:
        a = self.controller.report().assignment
        return a is not None and a.phase.value == "steady" and a.active == producer
