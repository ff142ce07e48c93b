"""Simulated HAProxies, as measured: admin states, lagging checks, sessions, reloads that hide an old worker.

What holds here is what facts/haproxy.md measured on 2.6, with the reference configuration: ``on-marked-down
shutdown-sessions``, the standby ``disabled`` in the file, checks that go on in maint when the servers track ``watch``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from failover.model import Admin, Check, Proxy, ProxyReading, ServerView
from failover.simulator.nature import Nature, Network
from failover.simulator.nodes import Node, Process

FALL, RISE = 6.0, 4.0  # seconds until a check has noticed: three and two intervals of 2 s
SILENT_PEER = 97.0  # seconds after which a node ends a session whose peer says nothing (keep-alive, 97 s at most)
STAYS_HIDDEN = 72_000.0  # seconds that an old worker without hard-stop-after keeps its sessions


@dataclass(eq=False, slots=True)
class Session:
    """One connection from a relay to a producer: through a proxy's worker, or directly (``proxy`` None)."""

    relay: str
    producer: str
    proxy: str | None
    on_end: Callable[[], None]
    hidden: bool = False  # held by a worker that was told to stop
    open: bool = True
    broken: bool = False  # one side cannot reach the other any more
    serial: int = 0  # tells a direct one from the next

    def end(self) -> None:
        """Close it; the relay notices and dials again."""
        if self.open:
            self.open = False
            self.on_end()


class HAProxy:
    """One proxy's truth. ``checks`` is ``l7`` (a watch backend that is tracked), ``l4`` or ``none``."""

    def __init__(
        self, config: Proxy, nodes: Mapping[str, Node], nature: Nature, network: Network, *, checks: str, active: str
    ) -> None:
        self.name = config.name
        self.config = config
        self.checks = checks
        self.running = True
        self.hung = False
        self.file = {n: Admin.READY if n == next(iter(nodes)) else Admin.MAINT for n in nodes}  # as its file says
        self.admin = {n: Admin.READY if n == active else Admin.MAINT for n in nodes}
        self.dumped = dict(self.admin)  # what an old state file says
        self.sessions: list[Session] = []
        self.pid = 1000
        self.started = -100_000.0
        self.total = 1000
        self.fall, self.rise = FALL, RISE
        self.marked_down = True  # on-marked-down shutdown-sessions: maint ends sessions
        self.swapped = False  # its servers lead to each other's producers
        self.waiting: list[Callable[[], None]] = []  # requests that arrived while it hung
        self.moved_by = dict.fromkeys(nodes, "us")  # who has set a server last: us, a hand, or a file read at a start
        self.moved_at = dict.fromkeys(nodes, -1e9)  # when somebody else did
        self._nodes = nodes
        self._nature = nature
        self._network = network
        self._turn = 0
        self._raw = {n: self._look(n) for n in nodes}
        self._seen = dict(self._raw)
        self._changes = dict.fromkeys(nodes, 0)

    # ------------------------------------------------------------ what it sees

    def _look(self, producer: str) -> Check:
        if self.checks == "none":
            return Check.NONE
        node = self._nodes[producer]
        if not node.powered or node.walled or node.process in (Process.DOWN, Process.STARTING):
            return Check.FAILED
        if not self._network.joined(self.name, producer):
            return Check.FAILED
        if self.checks == "l4":
            return Check.PASSED_L4
        return Check.FAILED if node.process is Process.HUNG else Check.PASSED_L7

    def reckon(self) -> None:
        """Notice, after the time that checks take, what has become of the producers; end what is broken."""
        for name in self._nodes:
            raw = self._look(name)
            if raw is not self._raw[name]:
                self._raw[name] = raw
                self._changes[name] += 1
                delay = self.fall if raw is Check.FAILED else self.rise
                self._nature.after(delay, lambda n=name, c=self._changes[name]: self._noticed(n, c))  # type: ignore[misc]
        for session in tuple(self.sessions):
            self._watch(session)

    def _noticed(self, producer: str, change: int) -> None:
        if self._changes[producer] != change or self._seen[producer] is self._raw[producer]:
            return
        if self.hung or not self.running:  # it looks again when it can
            self._nature.after(self.rise, lambda: self._noticed(producer, change))
            return
        self._seen[producer] = self._raw[producer]
        if self._raw[producer] is Check.FAILED:
            self.shutdown(producer)
        self._nature.changed()

    def _watch(self, session: Session) -> None:
        """End a session whose producer's process is gone, or which has been broken for long."""
        node = self._nodes[session.producer]
        reached = self._network.joined(self.name, session.producer)
        if reached and (node.walled or node.process in (Process.DOWN, Process.STARTING)) and not self.hung:
            self._drop(session)
            return
        answers = node.powered and node.process is not Process.HUNG
        whole = reached and answers and self._network.joined(session.relay, self.name)
        if not whole and not session.broken:
            session.broken = True
            self._nature.after(SILENT_PEER, lambda: self._drop(session) if session.broken and session.open else None)
        elif whole:
            session.broken = False

    # ------------------------------------------------------------ what it carries

    def check(self, producer: str) -> Check:
        """What its check of the producer says now; in maint nothing, unless the server tracks a watched one."""
        if self.checks != "l7" and self.admin[producer] is Admin.MAINT:
            return Check.NONE
        return self._seen[producer]

    def status(self, producer: str) -> str:
        """HAProxy's word for the server."""
        if self.admin[producer] is Admin.MAINT:
            return "MAINT"
        if self.checks == "none":
            return "DRAIN" if self.admin[producer] is Admin.DRAIN else "no check"
        if self._seen[producer] is Check.FAILED:
            return "DOWN"
        return "DRAIN" if self.admin[producer] is Admin.DRAIN else "UP"

    def routable(self) -> list[str]:
        """Producers to which it sends new connections."""
        return [n for n in self._nodes if self.admin[n] is Admin.READY and self.status(n) in ("UP", "no check")]

    def leads_to(self, producer: str) -> str:
        """The producer at whose address the server of this name is."""
        if not self.swapped:
            return producer
        names = list(self._nodes)
        return names[-1 - names.index(producer)]

    def connect(self, relay: str, on_end: Callable[[], None]) -> Session | None:
        """A relay dials: a session, or None when nobody is served."""
        servers = self.routable()
        if not servers or not self.running or self.hung or not self._network.joined(relay, self.name):
            return None
        self._turn += 1
        producer = self.leads_to(servers[self._turn % len(servers)])
        node = self._nodes[producer]
        takes = node.powered and not node.walled and node.process in (Process.UP, Process.HUNG)
        if not takes or not self._network.joined(self.name, producer):
            return None
        session = Session(relay, producer, self.name, on_end)
        self.sessions.append(session)
        self.total += 1
        return session

    def carries(self, session: Session) -> bool:
        """Whether blocks pass through it just now."""
        if not session.open or not self.running or self.hung or not self._nodes[session.producer].gets_out:
            return False
        network = self._network
        return network.open(session.producer, self.name) and network.open(self.name, session.relay)

    def _drop(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
        session.end()
        self._nature.changed()

    def shutdown(self, producer: str) -> None:
        """End a producer's sessions of this worker, as ``shutdown sessions`` does; an old worker's nobody can end."""
        goal = self.leads_to(producer)
        self._forget([s for s in self.sessions if s.producer == goal and not s.hidden])

    # ------------------------------------------------------------ what is done to it

    def reading(self) -> ProxyReading:
        """What it says of itself."""
        servers = {}
        for name in self._nodes:
            goal = self.leads_to(name)
            count = sum(1 for s in self.sessions if s.producer == goal and not s.hidden)
            address = self.addresses.get(goal)
            servers[name] = ServerView(self.admin[name], self.status(name), count, self.check(name), address)
        uptime = float(int(self._nature.now() - self.started))
        return ProxyReading(servers, f"{self.pid}@{int(self.started)}", uptime, self.total)

    addresses: Mapping[str, str] = {}

    def close(self, producer: str) -> None:
        """To maint, and its sessions ended."""
        self.admin[producer] = Admin.MAINT
        self.moved_by[producer] = "us"
        if self.marked_down:
            self.shutdown(producer)
        self._nature.changed()

    def open(self, producer: str) -> None:
        """To ready. A server that was not checked in maint is routable until its first check says otherwise."""
        if self.checks == "l4" and self.admin[producer] is Admin.MAINT:
            self._unchecked(producer)
        self.admin[producer] = Admin.READY
        self.moved_by[producer] = "us"
        self._nature.changed()

    def _unchecked(self, producer: str) -> None:
        """Nobody has looked yet: it counts as up until the check has fallen."""
        if self._raw[producer] is not Check.FAILED:
            return
        self._seen[producer] = Check.PASSED_L4
        self._changes[producer] += 1
        self._nature.after(self.fall, lambda c=self._changes[producer]: self._noticed(producer, c))  # type: ignore[misc]

    def hand(self, producer: str, admin: Admin) -> None:
        """Somebody else sets a server."""
        if self.admin[producer] is not admin:
            self.admin[producer] = admin
            self._moved(producer, "a hand")
        if admin is Admin.MAINT:
            self.shutdown(producer)
        self._nature.changed()

    def _moved(self, producer: str, who: str) -> None:
        self.moved_by[producer], self.moved_at[producer] = who, self._nature.now()

    def hang(self) -> None:
        """As SIGSTOP: the kernel takes connections and requests, nothing is done."""
        self.hung = True
        self._nature.changed()

    def resume(self) -> None:
        """As SIGCONT: what has arrived meanwhile is done now."""
        self.hung = False
        waiting, self.waiting = self.waiting, []
        for request in waiting:
            request()
        self._nature.changed()

    def stop(self) -> None:
        """Its process ends, and every session with it."""
        self.running, self.hung, self.waiting = False, False, []
        self._forget(list(self.sessions))

    def start(self, state: str) -> None:
        """Start with a state file that is ``current`` or ``stale``, or with ``none``."""
        self.running, self.total = True, 0
        self._new_process()
        self._take(state)

    def restart(self, state: str) -> None:
        """Stop and start."""
        before = dict(self.admin)
        self.stop()
        self.admin = before
        self.start(state)

    def reload(self, state: str) -> None:
        """A new worker; the old one keeps its sessions, unseen, until hard-stop-after."""
        if not self.running:
            self.start(state)
            return
        bound = self.config.hard_stop_after
        hidden = [session for session in self.sessions if not session.hidden]
        for session in hidden:
            session.hidden = True
        self._nature.after(STAYS_HIDDEN if bound is None else bound, lambda: self._forget(hidden))
        self.total = 0
        self._new_process()
        self._take(state)

    def _forget(self, ended: list[Session]) -> None:
        """End them all at one instant."""
        self.sessions = [session for session in self.sessions if session not in ended]
        for session in ended:
            session.end()
        self._nature.changed()

    def _new_process(self) -> None:
        self.pid += 1
        self.started = self._nature.now()

    def _take(self, state: str) -> None:
        wanted = {"stale": self.dumped, "none": self.file}.get(state, self.admin)
        for producer, admin in wanted.items():
            if self.admin[producer] is not admin:
                self.admin[producer] = admin
                self._moved(producer, "a file")
        self._nature.changed()

    def heal(self) -> None:
        """It runs, and answers."""
        self.swapped = False
        if not self.running:
            self.start("current")
        if self.hung:
            self.resume()
