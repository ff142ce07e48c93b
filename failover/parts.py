"""The parts of one pool at work: a task for each probe and each edge, and the orders that edges are given.

Producers, references, proxies, hosts, records and relays each have a task of their own, so that one that hangs delays
no other. Nothing is decided here: what probes see goes to the board, what edges are told comes from the controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .board import Board
from .edge import Edge, Order
from .errors import PingError, ProbeError, WorkerBusy
from .gate_edges import GateEdge, ProxyEdge
from .model import (
    Address,
    Event,
    Gate,
    GateKind,
    Instant,
    Kick,
    Ping,
    Pointing,
    Pool,
    Record,
    Route53Zone,
    Step,
)
from .ports import Host, Hosts, NodePort, PingPort, ProxyPort, RecordPort, VerifyPort
from .record_edge import RecordEdge
from .relay_edge import RelayEdge

READS_PER_PING = 5  # proxies are read so many times in one ping interval
HOST_READS_PER_PING = 2  # gates on producers' own hosts, and relays: each reading is a call on that host
PINGS_PER_RECORD = 6  # a record's provider is asked once in so many ping intervals, and its servers likewise

LeaseLeft = Callable[[], tuple[float, int, int] | None]  # seconds left of our fresh lease, generation, term


@dataclass(frozen=True, slots=True)
class Makers:
    """How ports are made for a pool. ``records`` and ``hosts`` may be missing where the pool has none."""

    ping: PingPort
    proxies: Callable[[Pool], Mapping[str, ProxyPort]]
    records: Callable[[Record], tuple[RecordPort, VerifyPort]] | None = None
    hosts: Callable[[Pool, LeaseLeft], Hosts] | None = None


class Guards(Protocol):
    """What edges ask immediately before they send, and whom they tell; the controller."""

    def may_step(self, step: Step) -> bool:
        """Whether a step may still be sent."""
        ...

    def may_point(self, pointing: Pointing) -> bool:
        """Whether a record may still be changed so."""
        ...

    def may_kick(self, kick: Kick) -> bool:
        """Whether a relay's sessions may still be ended."""
        ...

    def lease_left(self) -> tuple[float, int, int] | None:
        """What a fuse is told: for how long our lease still holds; None when it is not ours, or we only observe."""
        ...

    def posted(self) -> None:
        """Something was observed."""
        ...

    def pinged(self, producer: str, ping: Ping) -> None:
        """A ping of a producer ended."""
        ...

    def ended(self, event: Event) -> None:
        """A step ended: what became of it."""
        ...

    async def supervised(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        """Run a probe again and again, whatever it raises."""
        ...


class Parts:
    """Everything that talks to the world for one pool. ``start`` it, give it orders, ``stop`` it."""

    def __init__(self, pool: Pool, board: Board, host: Host, makers: Makers, guards: Guards) -> None:
        self._pool = pool
        self._board = board
        self._host = host
        self._make = makers
        self._guards = guards
        self._ports = makers.proxies(pool)
        self._hosts = self._reach_hosts()
        self._edges: dict[str, Edge[Step]] = dict(self._gate_edges())
        self._relays = dict(self._relay_edges())
        self._records = {record.label: self._record_edge(record) for record in pool.records}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look at everything."""
        pool = self._pool
        nodes: Mapping[str, NodePort] = {} if self._hosts is None else self._hosts.nodes
        probes: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            *((f"ping {p.name}", self._producer_probe(p.name, p.address)) for p in pool.producers),
            *((f"reference {a}", self._reference_probe(a)) for a in pool.references),
            *((f"gate {name}", edge.run) for name, edge in self._edges.items()),
            *((f"relay {name}", edge.run) for name, edge in self._relays.items()),
            *((f"metrics {name}", self._node_probe(name, port)) for name, port in nodes.items()),
            *((f"record {name}", edge.run) for name, edge in self._records.items()),
            *((f"servers of {name}", edge.watch) for name, edge in self._records.items()),
        ]
        supervised = self._guards.supervised
        self._tasks = [asyncio.create_task(supervised(name, run), name=name) for name, run in probes]

    async def stop(self) -> None:
        """End every task and let go of every port."""
        for task in self._tasks:
            await end(task)
        self._tasks = []
        for port in self._ports.values():
            await port.close()
        for edge in self._records.values():
            await edge.close()
        if self._hosts is not None:
            await self._hosts.close()

    # ------------------------------------------------------------ edges

    def _reach_hosts(self) -> Hosts | None:
        if not (self._board.gates or self._board.relays or self._board.nodes):
            return None
        if self._make.hosts is None:
            raise ValueError("nobody gave ports to the hosts of this pool")
        return self._make.hosts(self._pool, self._guards.lease_left)

    def _gate_edges(self) -> Sequence[tuple[str, Edge[Step]]]:
        """By the proxy's name; or by the gate, where it is on a producer's own host."""
        pool, board, guards = self._pool, self._board, self._guards
        common: dict[str, Any] = {
            "read_timeout": min(pool.health.timeout, pool.lease.action_timeout),
            "step_timeout": pool.lease.action_timeout,
            "valid": guards.may_step,
            "posted": guards.posted,
            "report": guards.ended,
        }
        pace, host_pace = pool.health.interval / READS_PER_PING, pool.health.interval / HOST_READS_PER_PING
        proxies = [
            (name, ProxyEdge(name, port, board, self._host, interval=pace, **common))
            for name, port in self._ports.items()
        ]
        gates = {} if self._hosts is None else self._hosts.gates
        hosts = [
            (str(gate), GateEdge(gate, port, board, self._host, interval=host_pace, **common))
            for gate, port in gates.items()
        ]
        return [*proxies, *hosts]

    def _relay_edges(self) -> Sequence[tuple[str, RelayEdge]]:
        guards = self._guards
        return [
            (
                name,
                RelayEdge(
                    name,
                    port,
                    self._board,
                    self._host,
                    interval=self._pool.health.interval / HOST_READS_PER_PING,
                    read_timeout=self._pool.lease.action_timeout,
                    step_timeout=self._pool.lease.action_timeout,
                    valid=guards.may_kick,
                    posted=guards.posted,
                    report=guards.ended,
                ),
            )
            for name, port in ({} if self._hosts is None else self._hosts.relays).items()
        ]

    def _record_edge(self, record: Record) -> RecordEdge:
        if self._make.records is None:
            raise ValueError(f"{record.label}: nobody gave a port to its provider")
        port, verifier = self._make.records(record)
        pool = self._pool
        pace = pool.health.interval * PINGS_PER_RECORD
        metered = isinstance(record.provider, Route53Zone)
        shared = sum(isinstance(other.provider, Route53Zone) for other in pool.records) if metered else 1
        return RecordEdge(
            record.label,
            port,
            verifier,
            self._board,
            self._host,
            interval=pace * shared,  # an account's limit holds for all its records together
            look_interval=pace,
            hurry=pool.health.interval / 10,
            timeout=pool.lease.action_timeout,
            valid=self._guards.may_point,
            posted=self._guards.posted,
            report=self._guards.ended,
        )

    # ------------------------------------------------------------ orders

    @property
    def busy(self) -> bool:
        """Whether a step is on its way to a gate or a relay."""
        gates = any(edge.busy for edge in self._edges.values())
        return gates or any(edge.busy for edge in self._relays.values())

    @property
    def pointing(self) -> bool:
        """Whether a change of a record is on its way."""
        return any(edge.busy for edge in self._records.values())

    def new_orders(self, steps: tuple[Step, ...]) -> tuple[Order[Step], ...]:
        """Orders for the steps that are neither under way nor held back."""
        return tuple(
            Order(self._host.new_id(), step)
            for step in steps
            if edge_of(step.gate) in self._edges and self._edges[edge_of(step.gate)].wants(step)
        )

    def new_points(self, pointings: tuple[Pointing, ...]) -> tuple[Order[Pointing], ...]:
        """Orders for the changes of records that are neither under way nor held back."""
        return tuple(
            Order(self._host.new_id(), pointing)
            for pointing in pointings
            if pointing.record in self._records and self._records[pointing.record].wants(pointing)
        )

    def new_kicks(self, kicks: tuple[Kick, ...]) -> tuple[Order[Kick], ...]:
        """Orders for the relays that do not carry one out just now."""
        return tuple(
            Order(self._host.new_id(), kick)
            for kick in kicks
            if kick.relay in self._relays and self._relays[kick.relay].wants(kick)
        )

    def hand_out(
        self,
        orders: tuple[Order[Step], ...],
        points: tuple[Order[Pointing], ...],
        kicks: tuple[Order[Kick], ...],
        *,
        refresh: bool,
    ) -> None:
        """Give each edge its orders. ``refresh``: the others read again now."""
        for name, edge in self._edges.items():
            mine = tuple(order for order in orders if edge_of(order.command.gate) == name)
            if mine:
                edge.offer(mine)
            elif refresh:
                edge.refresh()
        for point in points:
            self._records[point.command.record].offer(point)
        for kick in kicks:
            self._relays[kick.command.relay].offer((kick,))

    # ------------------------------------------------------------ probes

    def _producer_probe(self, name: str, address: Address) -> Callable[[], Awaitable[None]]:
        async def probe() -> None:
            best = self._board.yardstick(name, self._host.now())
            ping = await self._one_ping(address)
            self._board.post_ping(name, ping, best)
            self._guards.pinged(name, ping)
            self._guards.posted()
            await self._pause_after(ping.started)

        return probe

    def _reference_probe(self, address: Address) -> Callable[[], Awaitable[None]]:
        async def probe() -> None:
            ping = await self._one_ping(address)
            self._board.post_reference(str(address), ping)
            self._guards.posted()
            await self._pause_after(ping.started)

        return probe

    def _node_probe(self, name: str, port: NodePort) -> Callable[[], Awaitable[None]]:
        async def probe() -> None:
            started, timeout = self._host.now(), self._pool.health.timeout
            try:
                async with self._host.timeout(timeout + 1.0):
                    reading = await port.read(timeout)
            except (ProbeError, WorkerBusy) as error:
                self._board.post_node_silence(name, self._host.now(), str(error))
            except TimeoutError:
                words = f"the metrics of {name} did not come within {timeout:g} s"
                self._board.post_node_silence(name, self._host.now(), words)
            else:
                self._board.post_node(name, reading, self._host.now())
            self._guards.posted()
            await self._pause_after(started)

        return probe

    async def _one_ping(self, address: Address) -> Ping:
        started, timeout = self._host.now(), self._pool.health.timeout
        try:
            async with self._host.timeout(timeout + 1.0):
                tip, seconds = await self._make.ping(address, self._pool.magic, timeout)
        except PingError as error:
            ended = self._host.now()
            return Ping(ended, started, False, stage=error.stage, error=str(error), refused=error.refused)
        except TimeoutError:
            return Ping(self._host.now(), started, False, stage="dns", error=f"no answer within {timeout:g} s")
        return Ping(self._host.now(), started, True, tip, seconds)

    async def _pause_after(self, started: Instant) -> None:
        await self._host.sleep(self._pool.health.interval - self._host.now().since(started))


def edge_of(gate: Gate) -> str:
    """The key of the edge that moves a gate."""
    return gate.place if gate.kind is GateKind.HAPROXY else str(gate)


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for it; what it raised is of no more interest."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return
