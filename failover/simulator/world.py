"""A simulated world: producers, relays, proxies, names, networks, the controller's machine, and what is true of them.

Whatever changes calls ``nature.changed``; then every part takes note (``reckon``) until nothing more follows from it,
and the judge looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from failover.model import (
    Address,
    Assignment,
    Cause,
    Commit,
    Event,
    EventKind,
    Instant,
    Kick,
    Phase,
    Pool,
    StepKind,
)
from failover.ports import PingPort, ProxyPort
from failover.simulator.edges import Exit
from failover.simulator.host import UTC0
from failover.simulator.hosts import ProducerHost, RelayAgent
from failover.simulator.loop import VirtualLoop
from failover.simulator.machine import AWAKE, Daemon, Machine, typed_ping, typed_proxy
from failover.simulator.names import Cache, Name
from failover.simulator.nature import Nature, Network
from failover.simulator.nodes import Node
from failover.simulator.proxies import FALL, RISE, HAProxy
from failover.simulator.relays import Relay, Way
from failover.simulator.roles import relay_names
from failover.simulator.store import Disk, SimStore

if TYPE_CHECKING:
    from failover.simulator.judge import Judge

GLANCE = 5.0  # seconds
MOST_ROUNDS = 100  # of consequences that follow from one change


@dataclass(frozen=True, slots=True)
class Setup:
    """What a pool's file does not say of the world around it.

    ``checks``: how proxies check producers: ``l7`` (a watch backend), ``l4``, ``none``. ``relays`` dial every proxy;
    without one, every record. ``direct``: producers that relays also dial past the proxies; ``duplex``: producers that
    dial relays with connections that go both ways; ``served_only``: producers that get blocks only through relays'
    sessions, so that a closed one falls behind. ``active``: who is open when the world begins. ``assigned``: whether
    the store names it then. ``wire``: calls go through the text of the real protocols. ``marked_down``: maint ends
    sessions (``on-marked-down shutdown-sessions``). ``check_fall``, ``check_rise``: seconds until a proxy's check has
    noticed that a producer is gone, or back. ``fuse``: seconds without a lease after which agents close by themselves.
    A pool's own relays are those of its file; without proxies and records they dial every producer.
    """

    checks: str = "l7"
    relays: int = 2
    direct: tuple[str, ...] = ()
    duplex: tuple[str, ...] = ()
    served_only: tuple[str, ...] = ()
    active: str | None = None
    assigned: bool = True
    controllers: int = 1
    wire: bool = False
    marked_down: bool = True
    check_fall: float = FALL
    check_rise: float = RISE
    fuse: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a timeline: when (seconds), who says it (world, controller, operator, alert, step), and what."""

    at: float
    who: str
    words: str


class World:
    """One pool's world on one loop. ``judge`` is set by whoever runs it, before ``begin``."""

    judge: Judge

    def __init__(self, pool: Pool, loop: VirtualLoop, seed: int, setup: Setup) -> None:
        self.pool = pool
        self.setup = setup
        self.nature = nature = Nature(loop, seed)
        self.network = network = Network(nature)
        self.active0 = setup.active or pool.preferred
        self.nodes = {n: Node(n, nature, network) for n in pool.names}
        self.references = {str(a): Node(f"reference-{i + 1}", nature, network) for i, a in enumerate(pool.references)}
        addresses = {p.name: str(p.address) for p in pool.producers}
        self.proxies: dict[str, HAProxy] = {}
        for config in pool.proxies:
            proxy = HAProxy(config, self.nodes, nature, network, checks=setup.checks, active=self.active0)
            proxy.addresses = addresses
            proxy.marked_down = setup.marked_down
            proxy.fall, proxy.rise = setup.check_fall, setup.check_rise
            self.proxies[config.name] = proxy
        self.names = {r.label: Name(r, nature, r.wanted(self.active0)) for r in pool.records}
        self.relays = {name: self._relay(name) for name in relay_names(pool, setup.relays)}
        for name, node in self.nodes.items():
            node.syncs = self._syncing(name)
        self.hosts = {
            p.name: ProducerHost(p, self.nodes[p.name], nature, active=p.name == self.active0, fuse=setup.fuse)
            for p in pool.producers
            if p.gates or p.agent is not None or p.metrics is not None
        }
        self.agents = {
            r.name: RelayAgent(self.relays[r.name], nature, addresses) for r in pool.relays if r.agent is not None
        }
        self.disk = Disk(pool.name)
        self.disk.on_commit = self._committed
        self.machine = Machine(self)
        self.timeline: list[Line] = []
        self.order: list[str] = []
        self.moments: list[Callable[[str], None]] = []  # told ``fencing``, ``promoting``, ``step``
        self.make_ping: Callable[[Mapping[Address, Node], Exit], PingPort] = typed_ping
        self.make_proxy: Callable[[HAProxy, Exit], ProxyPort] = typed_proxy
        self._reckoning = False
        self._again = False
        self._stored: Assignment | None = None
        nature.changed = self.reckon

    # ------------------------------------------------------------ how it is built

    def _relay(self, name: str) -> Relay:
        pool, nature = self.pool, self.nature
        ways = [Way("proxy", p.name) for p in pool.proxies]
        if not pool.proxies:
            ways.extend(Way("record", r.label, self._lookup(r.label, name)) for r in pool.records)
        direct = self.setup.direct if ways else pool.names
        ways.extend(Way("direct", producer) for producer in direct if producer != name)
        return Relay(name, tuple(ways), self.nodes, self.proxies, nature, self.network)

    def _lookup(self, label: str, relay: str) -> Callable[[], str | None]:
        record = next(r for r in self.pool.records if r.label == label)
        cache = Cache(self.names[label], self.nature, relay)
        whose = {target: producer for producer, target in record.targets.items()}

        def lookup() -> str | None:
            address = cache.address()
            return None if address is None else whose.get(address)

        return lookup

    def _syncing(self, name: str) -> Callable[[], bool]:
        network, relays = self.network, tuple(self.relays)
        if name in self.setup.served_only:
            return lambda: any(name in self._served(relay) for relay in self.relays.values())
        return lambda: any(network.joined(name, relay) for relay in relays)

    def _served(self, relay: Relay) -> tuple[str, ...]:
        return tuple(session.producer for way in relay.ways for session in way.sessions())

    def begin(self) -> None:
        """Let relays dial, put the assignment in the store, start the controller."""
        if self.setup.assigned:
            now = Instant("before", AWAKE, UTC0)
            reason = f"{self.active0} adopted when the world began"
            seen = tuple(self.pool.names)
            first = Assignment(1, 1, Phase.STEADY, self.active0, None, Cause.ADOPTED, now, reason, seen=seen)
            store = SimStore(self.disk, boot=now.boot, clock=lambda: now)
            lease = store.acquire("before", now, 60.0, 10.0)
            store.commit(Commit(1 if lease is None else lease.term, first))
            store.resign("before")
            store.close()
        for relay in self.relays.values():
            relay.start()
        self.reckon()
        self._glance()
        self.machine.start()
        for _ in range(1, self.setup.controllers):
            self.nature.after(3.0, self.machine.start_second)

    def _glance(self) -> None:
        """Tips move without an event: the judge looks from time to time."""
        self.judge.look()
        self.nature.after(GLANCE, self._glance)

    # ------------------------------------------------------------ what is true

    def reckon(self) -> None:
        """Everything takes note of what has changed, until nothing more follows; then the judge looks."""
        if self._reckoning:
            self._again = True
            return
        self._reckoning = True
        for _ in range(MOST_ROUNDS):
            self._again = False
            for node in self.nodes.values():
                node.reckon()
            for host in self.hosts.values():
                host.reckon()
            for proxy in self.proxies.values():
                proxy.reckon()
            for relay in self.relays.values():
                relay.reckon()
            if not self._again:
                break
        self._reckoning = False
        self.judge.look()

    def reached(self) -> dict[str, bool]:
        """Producers whose blocks could reach a relay now; whether that goes past every gate that there is (a leak)."""
        gated = {name for name in self.pool.names if not self.proxies or self.pool.gates_of(name)}
        found: dict[str, bool] = {}
        for name, relay in self.relays.items():
            for way in relay.ways:
                for session in way.sessions():
                    if session.proxy is not None:
                        if self.proxies[session.proxy].carries(session):
                            found[session.producer] = False
                    elif self.nodes[session.producer].gets_out and self.network.open(session.producer, name):
                        found.setdefault(session.producer, way.kind == "direct" and session.producer not in gated)
            for producer in self.setup.duplex:
                if self.nodes[producer].gets_out and self.network.joined(producer, name):
                    found.setdefault(producer, producer not in gated)
        return found

    def servable(self, producer: str) -> bool:
        """Whether it is well, in sync, and could be admitted by somebody who sees everything."""
        node = self.nodes[producer]
        if not node.forges or node.spent or not node.in_sync:
            return False
        if not self.proxies:
            return any(self.network.joined(producer, relay) for relay in self.relays)
        return any(self._passes(x, producer) for x in self.proxies.values())

    def admitted(self, producer: str) -> bool:
        """Whether a relay that connects now reaches it, and it is worth it."""
        if not self.servable(producer) or not self.nodes[producer].gets_out:
            return False
        if not self.proxies and not self.pool.records:
            return True
        if not self.proxies:
            return producer in self.reached()
        return any(self._passes(x, producer) and producer in x.routable() for x in self.proxies.values())

    def _passes(self, proxy: HAProxy, producer: str) -> bool:
        if not proxy.running or proxy.hung or not self.network.joined(proxy.name, producer):
            return False
        return any(self.network.joined(relay, proxy.name) for relay in self.relays)

    def note(self, words: str) -> None:
        """Something happened in the world that belongs into the timeline."""
        self.timeline.append(Line(self.nature.now(), "world", words))
        self.nature.tell(words)

    # ------------------------------------------------------------ what the controller does

    def heard(self, daemon: Daemon, event: Event) -> None:
        """Something was said: for the timeline, and for faults that wait for it."""
        now = self.nature.now()
        kind = event.kind
        if kind is EventKind.PHASE_CHANGED:
            phase = str(event.detail.get("phase", ""))
            self.order.append(f"{phase} {event.detail.get('target') or event.detail.get('active')}")
            self.timeline.append(Line(now, "controller", f"{phase}: {event.reason}"))
        elif kind is EventKind.ALERT:
            self.timeline.append(Line(now, "alert", event.reason))
        elif kind is EventKind.STEP_DONE and event.detail.get("result") == "sent":
            gate = event.detail.get("gate")
            if gate is not None:
                self.order.append(f"{event.detail.get('kind')} {gate}")
            self.timeline.append(Line(now, "step", event.reason))
        elif kind in (EventKind.STEP_STARTED, EventKind.STEP_DONE, EventKind.STEP_FAILED):
            self.timeline.append(Line(now, "step", event.reason))
        else:
            self.timeline.append(Line(now, "controller", event.reason))
        self.nature.loop.trace(f"{kind.value} {event.generation} {event.reason}")
        self.judge.told(daemon, event)
        if kind is EventKind.PHASE_CHANGED:
            self._moment(str(event.detail.get("phase", "")))

    def sending(self, daemon: Daemon, proxy: str, kind: StepKind, producer: str) -> None:
        """A step is about to leave."""
        self.nature.loop.trace(f"{kind.value} {producer}@{proxy}")
        self.judge.sending(daemon, proxy, kind, producer)
        self._moment("step")

    def kicking(self, daemon: Daemon, kick: Kick) -> None:
        """A relay's sessions are about to be ended."""
        self.nature.loop.trace(str(kick))
        self.timeline.append(Line(self.nature.now(), "step", f"{kick}: {kick.reason}"))
        self.judge.kicking(daemon, kick)
        self._moment("step")

    def _moment(self, what: str) -> None:
        for call in tuple(self.moments):
            call(what)

    def _committed(self, commit: Commit) -> None:
        before, after = self._stored, commit.assignment
        if after is not None:
            self._stored = after
            self.judge.assigned(before, after, commit)
