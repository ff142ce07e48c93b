"""The controller's machine in a simulated world: its clocks, its disk, and the daemons that run on it.

A kill first cuts the daemon's ways out (ports, store, observers) and then throws its tasks away: what its ``finally``
blocks still do reaches nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING

from failover.controller import Controller
from failover.errors import FailoverError
from failover.model import Address, Event, Gate, GateReading, Kick, Phase, Ping, Pool, Record, Step, StepKind, Tip
from failover.ports import GatePort, Hosts, NodePort, PingPort, ProxyPort, RecordPort, RelayPort, VerifyPort
from failover.simulator.edges import Exit, SimPing, SimProxyPort
from failover.simulator.host import UTC0, VirtualHost
from failover.simulator.host_edges import Lease, SimHosts
from failover.simulator.loop import OWNER
from failover.simulator.names import SimRecordPort, SimVerifyPort
from failover.simulator.store import SimStore
from failover.tick import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from failover.model import ProxyReading, RelayReading
    from failover.simulator.world import World

STARTS_AGAIN = 5.0  # seconds after which a daemon that could not start is started again
DISK = 0.002  # seconds that the state folder takes
AWAKE = 1000.0  # seconds for which the machine has been up when the world begins
BOOTS_IN = 20.0  # seconds from power to a running daemon


class Machine:
    """One machine. ``wanted``: whether a daemon is to run on it (whoever keeps it running starts it again)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.boots = 0
        self.powered = True
        self.wanted = True
        self.daemons: list[Daemon] = []
        self.latency = DISK
        self.drift = 0
        self.host = self._boot()
        self._serial = 0

    def _boot(self) -> VirtualHost:
        self.boots += 1
        now = self.world.nature.now()
        host = VirtualHost(
            self.world.nature.loop,
            seed=self.world.nature.seed,
            boot=f"boot-{self.boots}",
            name=f"controller-{self.boots}",
            mono0=AWAKE + now if self.boots == 1 else BOOTS_IN,
            utc0=UTC0 + now,
        )
        host.latency = lambda edge: self.latency
        return host

    @property
    def decider(self) -> Daemon | None:
        """The daemon that holds the lease, as the store says."""
        return next((d for d in self.daemons if d.holds_lease), None)

    def decider_sees_contested(self) -> tuple[bool, ...]:
        """For each proxy, and gate on a host, whether the decider has stopped fighting over it."""
        daemon = self.decider
        if daemon is None or daemon.controller is None:
            return ()
        report = daemon.controller.report()
        untils = [t.contested_until for t in report.view.proxies.values()]
        untils.extend(t.contested_until for t in report.view.gates.values())
        return tuple(until is not None and not until.reached(report.now) for until in untils)

    def start(self, *, second: bool = False) -> Daemon | None:
        """Start a daemon, unless one runs already."""
        self.wanted = True
        if not self.powered or (self.daemons and not second):
            return None
        self._serial += 1
        daemon = Daemon(self, f"controller-{self._serial}")
        self.daemons.append(daemon)
        return daemon

    def start_one(self) -> None:
        """Start a daemon, and see that one runs from now on."""
        self.start()

    def start_second(self) -> None:
        """Start one beside what runs."""
        self.start(second=True)

    def start_again(self) -> None:
        """Start one if there should be one."""
        if self.wanted:
            self.start()

    def kill(self, daemon: Daemon | None = None) -> None:
        """As kill -9."""
        for one in (daemon,) if daemon is not None else tuple(self.daemons):
            one.sever()

    def power(self, *, on: bool) -> None:
        """Take the machine's power, or give it back; then it boots, and the daemon is started."""
        if on is self.powered:
            return
        self.powered = on
        self.world.network.power("controller", on=on)
        if on:
            self.host = self._boot()
            self.host.set_drift(self.drift)
            self.world.nature.after(BOOTS_IN, self.start_again)
        else:
            self.kill()
            self.world.disk.power_cut(lose_unacknowledged=self.world.nature.chance("power cut") < 0.5)


class Daemon:
    """One run of one daemon. It watches its controller for whoever judges."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.world = world = machine.world
        self.exit = Exit(world.nature, world.network, machine.host)
        self.exit.moment = self._moment
        self.outcome: Outcome | None = None
        self.told_split = False  # whether the incident that it sees was alerted
        self.phase: Phase | None = None  # of the assignment, at its last tick
        self.calls = 0
        self.crash_at: tuple[int, str] | None = None  # the number of a call, and before, effect or reply
        self.back_in = STARTS_AGAIN  # seconds after such a crash in which it is started again
        self.store: SimStore | None = None
        self.controller: Controller | None = None
        self._stop = asyncio.Event()
        context = copy_context()
        context.run(OWNER.set, self)
        loop = world.nature.loop
        self.task = context.run(loop.create_task, self._live(), name=name)

    @property
    def alive(self) -> bool:
        """Whether it was not killed."""
        return self.exit.alive

    @property
    def holds_lease(self) -> bool:
        """Whether the lease in the store is its own."""
        lease = self.world.disk.lease
        return self.alive and lease is not None and lease.holder == self.name

    def stop(self) -> None:
        """Ask it to leave in good order."""
        self._stop.set()

    def sever(self) -> None:
        """Kill it: nothing that it does has an effect any more."""
        if not self.exit.alive:
            return
        self.exit.sever()
        if self.store is not None:
            self.store.sever()
        if self in self.machine.daemons:
            self.machine.daemons.remove(self)
        loop = self.world.nature.loop
        loop.call_soon(loop.discard, self)

    async def _live(self) -> None:
        world, host = self.world, self.machine.host
        try:
            self.store = store = SimStore(world.disk, boot=host.boot, clock=host.now)
            store.before = lambda call: self._moment(f"store {call}: before")
            store.after = lambda call: self._moment(f"store {call}: effect")
            self.controller = Controller(
                world.pool,
                host,
                store,
                _WatchedPing(self),
                self._ports,
                records=self._record_ports,
                hosts=self._hosts,
                holder=self.name,
                observers=(self,),
            )
            await self.controller.run(self._stop)
            store.close()
        except FailoverError as error:
            if self.alive:
                world.note(f"the controller could not start: {error}")
        except Exception as error:  # noqa: BLE001  a bug that the run shows is told by its judge
            if self.alive:
                world.judge.broken("crashed", f"the controller ended with {type(error).__name__}: {error}")
        finally:
            if self.alive:
                self._left()

    def _left(self) -> None:
        """It ended by itself: whoever keeps it running starts it again, if it should run."""
        self.exit.sever()
        if self.store is not None:
            self.store.sever()
        if self in self.machine.daemons:
            self.machine.daemons.remove(self)
        self.world.nature.after(STARTS_AGAIN, self.machine.start_again)

    # ------------------------------------------------------------ its ways out

    def _ports(self, pool: Pool) -> Mapping[str, ProxyPort]:
        return {p.name: _WatchedProxy(self, p.name) for p in pool.proxies}

    def _hosts(self, pool: Pool, lease: Lease) -> Hosts:
        return _WatchedHosts(self, SimHosts(pool, self.world.hosts, self.world.agents, self.exit, lease))

    def _record_ports(self, record: Record) -> tuple[RecordPort, VerifyPort]:
        world, host = self.world, self.machine.host
        name = world.names[record.label]
        alive, moment = (lambda: self.alive), self._moment
        return (
            SimRecordPort(name, world.nature, world.network, host, alive=alive, moment=moment),
            SimVerifyPort(name, world.nature, world.network, host, alive=alive),
        )

    def _moment(self, what: str) -> None:
        """A point at which it may be killed: before a call, after its effect, before its reply."""
        call, _, point = what.rpartition(": ")
        if point == "before":
            self.calls += 1
        if self.crash_at is not None and self.crash_at[0] <= self.calls and self.crash_at[1] == point and self.alive:
            self.crash_at = None
            self.world.note(f"the controller is killed: {call}, {point}")
            self.sever()
            self.world.nature.after(self.back_in, self.machine.start_again)

    # ------------------------------------------------------------ Observer

    def event(self, event: Event) -> None:
        """See Observer."""
        if self.alive:
            self.world.heard(self, event)

    def ping(self, producer: str, ping: Ping) -> None:
        """See Observer."""
        if self.alive:
            self.world.judge.pinged(producer, ping)

    def ticked(self, seconds: float, outcome: Outcome) -> None:
        """See Observer."""
        if self.alive:
            self.outcome = outcome
            self.told_split = outcome.split_brain and bool(outcome.memory.ledger.told)
            self.world.judge.ticked(self, outcome)


class _WatchedPing:
    """The way to nodes; pings of references are noted."""

    def __init__(self, daemon: Daemon) -> None:
        world = daemon.world
        self._daemon = daemon
        nodes = {p.address: world.nodes[p.name] for p in world.pool.producers}
        nodes.update({address: world.references[str(address)] for address in world.pool.references})
        self._port: PingPort = world.make_ping(nodes, daemon.exit)

    async def __call__(self, address: Address, magic: int, timeout: float) -> tuple[Tip, float]:
        try:
            found = await self._port(address, magic, timeout)
        except FailoverError:
            self._note(address, ok=False)
            raise
        self._note(address, ok=True)
        return found

    def _note(self, address: Address, *, ok: bool) -> None:
        if self._daemon.alive and address in self._daemon.world.pool.references:
            self._daemon.world.judge.heard_reference(self._daemon, str(address), ok)


class _WatchedProxy:
    """The way to one proxy; what is about to be sent is judged at the last moment."""

    def __init__(self, daemon: Daemon, proxy: str) -> None:
        self._daemon = daemon
        self._proxy = proxy
        self._port: ProxyPort = daemon.world.make_proxy(daemon.world.proxies[proxy], daemon.exit)

    async def read(self, timeout: float) -> ProxyReading:
        found = await self._port.read(timeout)
        if self._daemon.alive:
            self._daemon.world.judge.conduct.read(self._daemon, self._proxy)
        return found

    async def set(self, kind: StepKind, producer: str, timeout: float, still_valid: Callable[[], bool]) -> bool:
        daemon, sent = self._daemon, False

        def valid() -> bool:
            nonlocal sent
            if not still_valid():
                return False
            if daemon.alive and not sent:
                sent = True
                daemon.world.sending(daemon, self._proxy, kind, producer)
            return daemon.alive

        return await self._port.set(kind, producer, timeout, valid)

    async def close(self) -> None:
        await self._port.close()


class _WatchedGate:
    """The way to one gate on a producer's own host; what is about to be sent is judged at the last moment."""

    def __init__(self, daemon: Daemon, gate: Gate, port: GatePort) -> None:
        self._daemon = daemon
        self._gate = gate
        self._port = port

    async def read(self, timeout: float) -> GateReading:
        found = await self._port.read(timeout)
        if self._daemon.alive:
            self._daemon.world.judge.conduct.read(self._daemon, str(self._gate))
        return found

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        daemon = self._daemon

        def valid() -> bool:
            if not still_valid():
                return False
            if daemon.alive:
                daemon.world.sending(daemon, step.gate.place, step.kind, step.gate.producer)
            return daemon.alive

        return await self._port.set(step, timeout, valid)

    async def close(self) -> None:
        await self._port.close()


class _WatchedRelay:
    """The way to one relay's host."""

    def __init__(self, daemon: Daemon, port: RelayPort) -> None:
        self._daemon = daemon
        self._port = port

    async def read(self, timeout: float) -> RelayReading:
        return await self._port.read(timeout)

    async def kick(self, kick: Kick, timeout: float, still_valid: Callable[[], bool]) -> bool:
        daemon = self._daemon

        def valid() -> bool:
            if not still_valid():
                return False
            if daemon.alive:
                daemon.world.kicking(daemon, kick)
            return daemon.alive

        return await self._port.kick(kick, timeout, valid)

    async def close(self) -> None:
        await self._port.close()


class _WatchedHosts:
    """The ways to hosts."""

    def __init__(self, daemon: Daemon, hosts: SimHosts) -> None:
        self.gates: Mapping[Gate, GatePort] = {g: _WatchedGate(daemon, g, port) for g, port in hosts.gates.items()}
        self.nodes: Mapping[str, NodePort] = hosts.nodes
        self.relays: Mapping[str, RelayPort] = {n: _WatchedRelay(daemon, port) for n, port in hosts.relays.items()}

    async def close(self) -> None:
        """See Hosts."""


def typed_ping(nodes: Mapping[Address, object], exit_: Exit) -> PingPort:
    """Pings as values."""
    return SimPing(nodes, exit_)  # type: ignore[arg-type]


def typed_proxy(proxy: object, exit_: Exit) -> ProxyPort:
    """A proxy's management as values."""
    return SimProxyPort(proxy, exit_)  # type: ignore[arg-type]
