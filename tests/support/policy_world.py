"""A small world in which the middle decides: ten seconds a turn, values in, decisions out, nothing real.

What is true (who runs, who sees whom, what the proxies route) is kept apart from what the controller is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from failover.board import Board
from failover.model import (
    Address,
    Admin,
    Assignment,
    Cause,
    Check,
    DnsAnswer,
    FenceSettings,
    Gate,
    GateKind,
    GateReading,
    Instant,
    Kick,
    Lease,
    NodeReading,
    Phase,
    Ping,
    Pointing,
    PolicySettings,
    Pool,
    Power,
    Producer,
    Proxy,
    ProxyReading,
    Record,
    RecordReading,
    Relay,
    RelayReading,
    RelaySession,
    Request,
    Route53Zone,
    RRset,
    ServerView,
    Step,
    StepKind,
    Tip,
    Verb,
)
from failover.tick import Memory, Outcome, tick

TURN = 10.0


def instant(seconds: float, boot: str = "boot") -> Instant:
    return Instant(boot, seconds, 1_700_000_000.0 + seconds)


def make_pool(
    *,
    producers: tuple[str, ...] = ("main", "backup"),
    proxies: tuple[str, ...] = ("p1", "p2"),
    references: bool = True,
    require: str = "reachable",
    fail_back: str = "auto",
    hard_stop_after: float | None = 5.0,
    mode: str = "act",
    records: tuple[str, ...] = (),
    gates: tuple[GateKind, ...] = (),
    metrics: bool = False,
    relays: tuple[str, ...] = (),
    only_path: bool | None = None,
) -> Pool:
    only_path = (require == "confirmed" and not gates) if only_path is None else only_path
    return Pool(
        name="TEST",
        network="preview",
        magic=2,
        mode=mode,
        producers=tuple(
            Producer(
                n,
                Address(f"127.0.0.{i + 11}", 3001),
                gates=gates,
                power=POWER if GateKind.POWER in gates else None,
                metrics="http://127.0.0.1:12798/metrics" if metrics else None,
            )
            for i, n in enumerate(producers)
        ),
        relays=tuple(Relay(n, Address(f"127.0.0.{i + 51}", 3001), agent=n, managed=True) for i, n in enumerate(relays)),
        proxies=tuple(
            Proxy(
                n,
                "producers",
                {p: p for p in producers},
                socket=Address("127.0.0.1", 9000 + i),
                watch="watch",
                hard_stop_after=hard_stop_after,
            )
            for i, n in enumerate(proxies)
        ),
        references=(Address("127.0.0.99", 3001),) if references else (),
        records=tuple(make_record(name, producers) for name in records),
        policy=PolicySettings(fail_back=fail_back),
        fence=FenceSettings(require=require, proxies_are_only_path=only_path),
    )


def make_record(name: str, producers: tuple[str, ...] = ("main", "backup")) -> Record:
    addresses = {p: f"203.0.113.{10 * (i + 1)}" for i, p in enumerate(producers)}
    return Record(name, name, addresses, Route53Zone("Z1"))


def make_gateless_pool(**fields: object) -> Pool:
    """A pool that has records and nothing else."""
    return make_pool(proxies=(), require="none", records=("bp.example.com.",), **fields)  # type: ignore[arg-type]


POWER = Power(("/bin/off",), ("/bin/status",), ("/bin/on",))


@dataclass
class Switch:
    """What is true of a gate on a producer's own host."""

    open: bool = False
    answers: bool = True
    certain: bool = True  # whether it can show that it is shut
    stuck: bool = False  # orders are taken, and nothing comes of them
    between: bool = False  # it reads neither open nor closed
    starting: bool = False  # likewise, because its node is being started
    process: str = "1"
    findings: tuple[str, ...] = ()

    def reading(self) -> GateReading:
        lacks = () if self.certain or self.open else ("the counter cannot be read",)
        return GateReading(
            None if self.between or self.starting else self.open,
            self.certain and not self.open,
            ("files gone",),
            lacks,
            self.process,
            self.findings,
            self.starting,
        )


@dataclass
class Party:
    """What is true of a relay: with whom it has sessions, and whom it dials when it has none."""

    sessions: dict[str, str] = field(default_factory=dict)  # by producer: the local end
    dials: tuple[str, ...] = ()  # besides whoever its name leads to
    answers: bool = True
    away: bool = False  # it dials nobody
    count: int = 0


@dataclass
class Node:
    """What is true of a producer."""

    up: bool = True
    hung: bool = False  # TCP connects, nothing answers
    lag: int = 0  # slots behind the chain
    stuck_at: int | None = None

    @property
    def well(self) -> bool:
        return self.up and not self.hung


@dataclass
class Door:
    """What is true of a proxy."""

    checks: str = "l7"  # l7, l4 or none
    answers: bool = True  # its management
    carries: bool = True  # its data path
    blind_to: set[str] = field(default_factory=set)
    admin: dict[str, Admin] = field(default_factory=dict)
    total: int = 1000
    process: str = "1"

    def check(self, name: str, node: Node) -> Check:
        if self.checks == "none":
            return Check.NONE
        if name in self.blind_to or not node.up:
            return Check.FAILED
        if self.checks == "l4":
            return Check.PASSED_L4
        return Check.FAILED if node.hung else Check.PASSED_L7

    def status(self, name: str, node: Node) -> str:
        if self.admin[name] is Admin.MAINT:
            return "MAINT"
        if self.checks == "none":
            return "no check"
        return "DOWN" if self.check(name, node) is Check.FAILED else "UP"

    def admits(self, name: str) -> bool:
        return self.carries and self.admin[name] is not Admin.MAINT and name not in self.blind_to


@dataclass
class Sign:
    """What is true of a record: what its provider holds, and what its servers say."""

    rrset: RRset | None
    answers: bool = True  # its provider
    loses: bool = False  # changes are applied, and their answers lost
    refuses: bool = False  # changes
    unownable: str | None = None
    servers: dict[str, RRset | None] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)  # servers that go on saying what they say

    def spread(self) -> None:
        for server in self.servers:
            if server not in self.frozen:
                self.servers[server] = self.rrset


class World:
    """The truth, the board that is shown to the controller, and the controller's stored value."""

    def __init__(self, pool: Pool, *, checks: str = "l7", active: str | None = "main", assigned: bool = True) -> None:
        self.pool = pool
        self.nodes = {n: Node() for n in pool.names}
        self.doors = {
            p.name: Door(checks, admin={n: Admin.READY if n == active else Admin.MAINT for n in pool.names})
            for p in pool.proxies
        }
        self.signs = {}
        for record in pool.records:
            rrset = record.wanted(active or pool.preferred)
            self.signs[record.label] = Sign(rrset, servers={"ns1": rrset, "ns2": rrset})
        self.switches = {
            gate: Switch(gate.kind is GateKind.POWER or gate.producer == active) for gate in pool.host_gates
        }
        self.parties = {relay.name: Party() for relay in pool.relays}
        self.kicked: list[tuple[float, Kick]] = []
        self.counters = dict.fromkeys(pool.names, 0)
        self.expired: set[str] = set()
        self.pointed: list[tuple[float, Pointing]] = []
        self.reference_up = True
        self.cut: set[str] = set()  # producers and proxies that the controller cannot reach
        self.silent: set[str] = set()  # producers whose host does not even refuse when they are down
        self.t = 0.0
        self.none = 0.0
        self.two = 0.0
        self.assignment: Assignment | None = None
        if assigned and active is not None:
            self.assignment = Assignment(
                1, 1, Phase.STEADY, active, None, Cause.ADOPTED, instant(0), "start", seen=tuple(pool.names)
            )
        self.board = Board(pool, instant(0))
        self.board.lease = Lease("us", 1, instant(1e9))
        self.memory = Memory()
        self.requests: list[Request] = []
        self.outcomes: list[Outcome] = []
        self.generations: list[tuple[float, str, str | None]] = []
        self.answers: dict[str, tuple[str, str]] = {}
        self.alerts: list[str] = []
        self.steps: list[tuple[float, Step]] = []
        self.lose_steps: Callable[[Step], bool] = lambda step: False

    # ------------------------------------------------------------ what the controller sees

    def observe(self) -> None:
        now = instant(self.t)
        for name, node in self.nodes.items():
            best = self.board.yardstick(name, now)
            self.board.post_ping(name, self._ping(name, node, name in self.cut, now), best)
        for address in self.board.references:
            ok = self.reference_up
            tip = Tip(int(self.t) + 1000, "aa", 1) if ok else None
            self.board.post_reference(address, Ping(now, now, ok, tip, stage=None if ok else "connect"))
        for name, door in self.doors.items():
            if not door.answers or name in self.cut:
                self.board.post_silence(name, now, "no answer")
            else:
                self.board.post_reading(name, self.reading(door), now)
        a = self.assignment
        steered = self.pool.mode == "act" and a is not None and not a.released and a.paused is None
        self.board.steering = steered
        for label, sign in self.signs.items():
            if not sign.answers:
                self.board.post_record_silence(label, now, "no answer")
            else:
                self.board.post_record(label, RecordReading(sign.rrset, sign.unownable), now)
            self.board.post_answers(label, tuple(DnsAnswer(s, True, r) for s, r in sign.servers.items()), now)
            sign.spread()

        for gate, switch in self.switches.items():
            if switch.answers and gate.producer not in self.cut:
                self.board.post_gate(gate, switch.reading(), now)
            else:
                self.board.post_gate_silence(gate, now, f"{gate}: no answer")
        for name in self.board.nodes:
            self.counters[name] += int(TURN) if self.makes(name) else 0
            if name not in self.cut and self.nodes[name].up:
                left = 0 if name in self.expired else 40
                self.board.post_node(name, NodeReading(about_to_lead=self.counters[name], kes_remaining=left), now)
            else:
                self.board.post_node_silence(name, now, "no answer")
        for name, party in self.parties.items():
            self._redial(party)
            if not party.answers:
                self.board.post_relay_silence(name, now, "no answer")
                continue
            sessions = tuple(RelaySession(p, f"{p}:3001", local, False) for p, local in party.sessions.items())
            self.board.post_relay(name, RelayReading(sessions), now)

    def _redial(self, party: Party) -> None:
        """A relay keeps what it has, and dials whoever it lists, and where names lead to now."""
        led = {r.points_to(s.rrset) for r, s in zip(self.pool.records, self.signs.values(), strict=True)}
        for name, node in self.nodes.items():
            if not node.up:
                party.sessions.pop(name, None)
            elif not party.away and name not in party.sessions and (name in party.dials or name in led):
                party.count += 1
                party.sessions[name] = f"local:{party.count}"

    def makes(self, name: str) -> bool:
        """Whether this producer makes blocks, wherever they go."""
        switches = {gate.kind: switch.open for gate, switch in self.switches.items() if gate.producer == name}
        return self.nodes[name].well and switches.get(GateKind.FORGING, True) and switches.get(GateKind.POWER, True)

    def _ping(self, name: str, node: Node, cut: bool, now: Instant) -> Ping:
        if cut or not node.up:
            gone = not node.up and name not in self.silent
            return Ping(now, now, False, stage="connect", error="connection refused", refused=gone)
        if node.hung:
            return Ping(now, now, False, stage="handshake", error="silent")
        slot = node.stuck_at if node.stuck_at is not None else int(self.t) + 1000 - node.lag
        return Ping(now, now, True, Tip(slot, "aa", 1), 0.01)

    def reading(self, door: Door) -> ProxyReading:
        servers = {}
        walls = {gate.producer for gate, s in self.switches.items() if gate.kind is GateKind.FIREWALL and not s.open}
        door = replace(door, blind_to=door.blind_to | walls)
        for name, node in self.nodes.items():
            serves = door.admits(name) and node.well and door.status(name, node) in ("UP", "no check")
            servers[name] = ServerView(
                door.admin[name], door.status(name, node), 2 if serves else 0, door.check(name, node)
            )
        return ProxyReading(servers, door.process, self.t + 10_000.0, door.total)

    # ------------------------------------------------------------ one turn

    def ask(self, verb: Verb, producer: str | None = None, *, force: bool = False, seconds: float | None = None) -> str:
        request = Request(
            f"r{len(self.requests)}",
            verb,
            instant(self.t),
            instant(self.t + 60),
            "op",
            producer,
            force=force,
            seconds=seconds,
        )
        self.requests.append(request)
        return request.id

    def pending(self) -> tuple[Request, ...]:
        open_states = ("accepted",)
        return tuple(r for r in self.requests if r.id not in self.answers or self.answers[r.id][0] in open_states)

    def decide(self) -> Outcome:
        """Tick until nothing more is written, as the controller does, and send the steps of the last tick."""
        for _ in range(6):
            outcome = tick(self.pool, self.board.view(), self.assignment, self.pending(), self.memory, instant(self.t))
            self.memory = outcome.memory
            self.outcomes.append(outcome)
            for answer in outcome.answers:
                self.answers[answer.request] = (answer.state.value, answer.text)
            self.alerts.extend(e.reason for e in outcome.events if e.kind.value == "alert")
            if not outcome.changed:
                if outcome.answers:
                    continue
                break
            before = self.assignment
            self.assignment = outcome.assignment
            assert self.assignment is not None
            self.board.settle_unanswered(frozenset(t.gate for t in self.assignment.tainted))
            assert self.assignment is not None
            if before is None or before.generation != self.assignment.generation:
                self.generations.append((self.t, self.assignment.cause.value, self.assignment.target))
        self.send(outcome.steps)
        self.point(outcome.pointings)
        for kick in outcome.kicks:
            self.kicked.append((self.t, kick))
            self.board.post_kicked(kick.relay, kick.producer, kick.generation, instant(self.t))
            self.parties[kick.relay].sessions.pop(kick.producer, None)
        return outcome

    def point(self, pointings: tuple[Pointing, ...]) -> None:
        for pointing in pointings:
            self.pointed.append((self.t, pointing))
            sign, change = self.signs[pointing.record], pointing.change
            self.board.post_pointed(pointing.record, change.wanted, instant(self.t))
            if not sign.answers or sign.refuses or sign.rrset != change.expected:
                self.board.post_unsent(pointing.record, change.wanted)
                self.board.post_point_failed(pointing.record, "refused", instant(self.t))
                continue
            sign.rrset = change.wanted
            if not sign.loses:
                self.board.post_accepted(
                    pointing.record, change.wanted, "", instant(self.t), generation=pointing.generation
                )

    def send(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            self.steps.append((self.t, step))
            if step.gate in self.switches:
                self._switch(step)
                continue
            door = self.doors[step.gate.place]
            self.board.post_sent(step.gate.place, step.kind, step.gate.producer)
            if not door.answers or step.gate.place in self.cut or self.lose_steps(step):
                if step.kind is StepKind.OPEN:
                    self.board.post_unanswered(step.gate, instant(self.t))
                continue
            door.admin[step.gate.producer] = Admin.MAINT if step.kind is StepKind.CLOSE else Admin.READY
        for name in dict.fromkeys(
            step.gate.place for step in steps if step.gate not in self.switches
        ):  # an edge reads back at once
            door = self.doors[name]
            if door.answers and name not in self.cut:
                self.board.post_reading(name, self.reading(door), instant(self.t))

    def _switch(self, step: Step) -> None:
        switch = self.switches[step.gate]
        self.board.post_gate_sent(step.gate, step.kind)
        if not switch.answers or step.gate.producer in self.cut:
            return
        if not switch.stuck:
            switch.open = step.kind is StepKind.OPEN
            if step.gate.kind is GateKind.POWER:
                self.nodes[step.gate.producer].up = switch.open and self.nodes[step.gate.producer].up
        self.board.post_gate(step.gate, switch.reading(), instant(self.t))

    def admitted(self) -> set[str]:
        if self.pool.gateless:
            points = {r.points_to(self.signs[r.label].rrset) for r in self.pool.records}
            return {name for name, node in self.nodes.items() if node.well and name in points}
        walls = {gate.producer for gate, s in self.switches.items() if gate.kind is GateKind.FIREWALL and not s.open}
        return {
            name
            for name in self.nodes
            if self.makes(name)
            and name not in walls
            and (not self.doors or any(door.admits(name) for door in self.doors.values()))
        }

    def run(self, until: float, at: dict[float, Callable[[], object]] | None = None) -> World:
        """Turns of ten seconds until then; ``at`` maps seconds to what happens."""
        pending = dict(at or {})
        while self.t < until:
            for when in sorted(k for k in pending if k <= self.t):
                pending.pop(when)()
            self.observe()
            self.decide()
            admitted = self.admitted()
            if not admitted and any(n.well for n in self.nodes.values()):
                self.none += TURN
            if len(admitted) > 1:
                self.two += TURN
            self.t += TURN
        return self

    # ------------------------------------------------------------ what tests ask

    @property
    def active(self) -> str | None:
        return None if self.assignment is None else self.assignment.active

    def handovers(self) -> list[tuple[str, str | None]]:
        return [(cause, target) for _, cause, target in self.generations]

    def open(self, producer: str) -> list[str]:
        return [n for n, d in self.doors.items() if d.admin[producer] is not Admin.MAINT]

    def set(self, proxy: str, **states: Admin) -> None:
        self.doors[proxy].admin.update(states)

    def hold(self, producer: str, record: str = "bp.example.com.") -> None:
        """Another hand makes the record point at a producer."""
        self.signs[record].rrset = next(r for r in self.pool.records if r.label == record).wanted(producer)

    def told(self, record: str = "bp.example.com.") -> str | None:
        """Whom the record points to, in truth."""
        return next(r for r in self.pool.records if r.label == record).points_to(self.signs[record].rrset)

    def put(self, **fields: object) -> None:
        assert self.assignment is not None
        self.assignment = replace(self.assignment, **fields)  # type: ignore[arg-type]


__all__ = ["TURN", "Door", "Gate", "Node", "World", "instant", "make_gateless_pool", "make_pool", "make_record"]
