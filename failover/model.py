"""The values that the parts of the controller hand to each other.

Nothing here does anything: no I/O, no clock, no logging. The words are those of the design:
producer, proxy, gate, assignment, handover, drift. Seconds are floats, slots are integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

# ---------------------------------------------------------------- time


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time that survives a restart.

    ``mono`` is CLOCK_BOOTTIME in seconds and means something only within the boot ``boot``;
    ``utc`` is Unix time in seconds and may be stepped by an administrator.
    """

    boot: str
    mono: float
    utc: float

    def since(self, earlier: Instant) -> float:
        """Seconds from ``earlier`` to this instant, never negative; by UTC when the boots differ."""
        if self.boot == earlier.boot:
            return max(0.0, self.mono - earlier.mono)
        return max(0.0, self.utc - earlier.utc)

    def after(self, seconds: float) -> Instant:
        """The instant ``seconds`` later (or earlier, when negative) on both clocks."""
        return Instant(self.boot, self.mono + seconds, self.utc + seconds)

    def reached(self, now: Instant) -> bool:
        """Whether ``now`` is at or past this instant; by UTC when the boots differ."""
        if self.boot == now.boot:
            return now.mono >= self.mono
        return now.utc >= self.utc


# ---------------------------------------------------------------- what the operator configured


@dataclass(frozen=True, slots=True)
class Address:
    """Where a TCP service listens. ``host`` is a name or a literal IPv4 or IPv6 address, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class GateKind(StrEnum):
    """The kinds of gates. All but ``haproxy`` are on the producer's own host, or switch that host itself."""

    HAPROXY = "haproxy"
    FORGING = "forging"  # the node has its credentials, or it has none
    FIREWALL = "firewall"  # its blocks are let out, or dropped in both directions
    POWER = "power"  # its machine is on, or off


HOST_KINDS = frozenset(kind.value for kind in GateKind if kind is not GateKind.HAPROXY)


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent on one host, as configured: where sshd listens, who we are there, and by which key it is known."""

    name: str
    address: Address
    key_file: Path
    user: str = "failover"
    host_key: str | None = None  # "ssh-ed25519 AAAA...": the only one that is accepted; or
    known_hosts: Path | None = None  # an OpenSSH known_hosts file that has it


@dataclass(frozen=True, slots=True)
class Power:
    """Commands that the operator names, run here without a shell: words, the first an absolute path.

    ``status`` must print ``on`` or ``off`` as the last word of its output; anything else is unknown.
    """

    off: tuple[str, ...]
    status: tuple[str, ...]
    on: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Producer:
    """One block producer of the pool, as configured. ``gates`` are those on its own host, beside the proxies."""

    name: str
    address: Address
    site: str | None = None
    agent: str | None = None  # the name of its host's agent
    gates: tuple[GateKind, ...] = ()  # forging and firewall need the agent, power needs ``power``
    power: Power | None = None
    metrics: str | None = None  # the URL of its node's Prometheus metrics; None: what the agent tells


class Nudge(StrEnum):
    """What may be done to a relay's node when it stays with the old producer although its sessions were ended."""

    NEVER = "never"
    SIGHUP = "sighup"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Relay:
    """One relay, as configured. ``producers`` are the addresses under which it reaches producers, where others."""

    name: str
    address: Address
    agent: str | None = None
    managed: bool = False  # its sessions may be ended; otherwise it is only watched
    producers: Mapping[str, Address] = field(default_factory=dict)
    restart: Nudge = Nudge.NEVER


@dataclass(frozen=True, slots=True)
class Proxy:
    """One HAProxy, as configured. Exactly one of ``socket`` (a path or an address) and ``stats`` (a URL) is set."""

    name: str
    backend: str
    servers: Mapping[str, str]  # producer's name -> HAProxy's server name, one for each producer
    socket: Path | Address | None = None
    stats: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    watch: str | None = None  # the backend whose servers are always checked
    hard_stop_after: float | None = None  # seconds; bounds what a reload can hide; None: unknown


class RecordType(StrEnum):
    """The kinds of DNS records that can point at a producer."""

    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"


@dataclass(frozen=True, slots=True)
class RRset:
    """What a name holds of one type: all values (canonical text, sorted; names absolute and lower case) and their TTL.

    ``ttl`` is in seconds.
    """

    type: RecordType
    values: tuple[str, ...]
    ttl: int

    def __str__(self) -> str:
        return f"{self.type.value} {', '.join(self.values)} (TTL {self.ttl})"


@dataclass(frozen=True, slots=True)
class Route53Zone:
    """A hosted zone of Amazon Route 53. Credentials come from where the AWS tools look for them."""

    zone: str  # the hosted zone's id, without /hostedzone/
    profile: str | None = None  # of the AWS configuration; None: the default one
    endpoint_url: str | None = None  # another endpoint than Amazon's

    @property
    def place(self) -> tuple[str, ...]:
        """What must be the same for a record to be the same, whatever opens it."""
        return ("route53", self.zone, self.endpoint_url or "")


@dataclass(frozen=True, slots=True)
class Rfc2136Zone:
    """A zone whose primary server takes dynamic updates signed with TSIG."""

    server: Address
    zone: str  # absolute, lower case: example.com.
    key_name: str  # absolute, lower case
    key: str = field(repr=False)  # the secret, base64
    algorithm: str = "hmac-sha256"

    @property
    def place(self) -> tuple[str, ...]:
        """What must be the same for a record to be the same, whatever opens it."""
        return ("rfc2136", self.zone, str(self.server))


@dataclass(frozen=True, slots=True)
class Record:
    """One DNS record that points at the active producer. A signpost: it shuts nobody out.

    ``label`` is how commands, metrics and the journal call it: the name, and behind it the type where a second
    record has the same name. ``targets`` has one address, or one absolute name (a CNAME's), for each producer.
    """

    name: str  # absolute, lower case: bp.example.com.
    label: str
    targets: Mapping[str, str]
    provider: Route53Zone | Rfc2136Zone
    ttl: int = 60
    resolvers: tuple[Address, ...] = ()  # verify at these, and not at authoritative servers
    servers: tuple[Address, ...] = ()  # the authoritative servers; empty: found through DNS

    @property
    def types(self) -> frozenset[RecordType]:
        """The types that this record has for one producer or another."""
        return frozenset(record_type(target) for target in self.targets.values())

    def wanted(self, producer: str) -> RRset:
        """What the name is to hold when ``producer`` is active."""
        target = self.targets[producer]
        return RRset(record_type(target), (target,), self.ttl)

    def points_to(self, rrset: RRset | None) -> str | None:
        """The producer that these values point to alone, or None."""
        if rrset is None:
            return None
        found = [n for n, t in self.targets.items() if rrset.values == (t,) and record_type(t) is rrset.type]
        return found[0] if len(found) == 1 else None


def record_type(target: str) -> RecordType:
    """The type of record that holds ``target``: an IPv4 address, an IPv6 address, or a name."""
    if ":" in target:
        return RecordType.AAAA
    return RecordType.A if target.rpartition(".")[2].isdigit() else RecordType.CNAME


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """How producers are pinged and judged; seconds, counts and slots."""

    interval: float = 10.0
    timeout: float = 5.0
    fall: int = 3
    rise: int = 2
    max_gap: float = 30.0
    max_lag: int = 60


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """When the role moves by itself; seconds."""

    fail_over_after: float = 300.0
    fail_back_after: float = 1800.0
    fail_back: str = "auto"  # or "manual"


@dataclass(frozen=True, slots=True)
class FenceSettings:
    """What confirms that a producer is shut out: ``reachable``, ``confirmed``, or ``none`` where there is no gate."""

    require: str = "reachable"
    proxies_are_only_path: bool = False


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """The decider's lease; seconds. ``renew + action_timeout + margin < duration`` always holds."""

    duration: float = 60.0
    renew: float = 20.0
    action_timeout: float = 10.0
    margin: float = 5.0


@dataclass(frozen=True, slots=True)
class Pool:
    """One stake pool: the whole checked configuration file. Producers are in order of preference."""

    name: str
    network: str
    magic: int
    producers: tuple[Producer, ...]
    proxies: tuple[Proxy, ...]
    references: tuple[Address, ...] = ()
    records: tuple[Record, ...] = ()
    agents: tuple[Agent, ...] = ()
    relays: tuple[Relay, ...] = ()
    mode: str = "act"  # or "observe"
    state: Path = Path("/var/lib/failover")
    listen: Address = Address("127.0.0.1", 9465)
    health: HealthSettings = HealthSettings()
    policy: PolicySettings = PolicySettings()
    fence: FenceSettings = FenceSettings()
    lease: LeaseSettings = LeaseSettings()

    @property
    def names(self) -> tuple[str, ...]:
        """The producers' names, in order of preference."""
        return tuple(p.name for p in self.producers)

    @property
    def preferred(self) -> str:
        """The name of the first producer."""
        return self.producers[0].name

    @property
    def gateless(self) -> bool:
        """Whether nothing can shut a producer out: there are records only (``fence.require: none``)."""
        return self.fence.require == "none"

    @property
    def host_gates(self) -> tuple[Gate, ...]:
        """Every gate on a producer's own host, in order of preference of the producers."""
        return tuple(Gate(kind.value, p.name) for p in self.producers for kind in p.gates)

    def gates_of(self, producer: str) -> tuple[Gate, ...]:
        """The gates on this producer's own host."""
        return tuple(gate for gate in self.host_gates if gate.producer == producer)

    def others(self, name: str | None) -> tuple[str, ...]:
        """Every producer's name but this one, in order of preference."""
        return tuple(p.name for p in self.producers if p.name != name)


# ---------------------------------------------------------------- what was observed


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of a node's selected chain. ``hash`` is hexadecimal, and empty at genesis."""

    slot: int
    hash: str
    block_no: int


@dataclass(frozen=True, slots=True)
class Ping:
    """The outcome of one node-to-node ping, dated by its end (``at``) and its start (``started``)."""

    at: Instant
    started: Instant
    ok: bool
    tip: Tip | None = None
    seconds: float | None = None  # of the whole ping
    stage: str | None = None  # where it failed: dns connect handshake keep-alive tip
    error: str | None = None
    refused: bool = False  # no process listens there: whatever was connected to it is not any more


class Check(StrEnum):
    """What a proxy's own check of a server says."""

    PASSED_L7 = "passed-l7"  # a protocol check passed
    PASSED_L4 = "passed-l4"  # the port accepted a connection; a stopped process does that too
    FAILED = "failed"
    NONE = "none"  # not checked (no check configured, or in maint without a watch), or no result yet


class Admin(StrEnum):
    """A server's administrative state in HAProxy."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class ServerView:
    """One producer's server in one proxy, as just read.

    ``status`` is HAProxy's own word (UP, DOWN, MAINT, NOLB, DRAIN or "no check").
    ``address`` is what HAProxy says it connects to, or None where it does not say.
    """

    admin: Admin
    status: str
    sessions: int
    check: Check
    address: str | None = None

    @property
    def serves(self) -> bool:
        """Whether new connections reach this server."""
        return self.admin is Admin.READY and self.status in ("UP", "no check")


@dataclass(frozen=True, slots=True)
class ProxyReading:
    """One answer of a proxy, all servers of its backend that belong to producers, by producer's name.

    ``process`` tells one HAProxy process from the next (pid and start time as far as the way in shows them);
    ``uptime`` is in seconds where known; ``total`` is the backend's cumulated sessions (a fall means a reload).
    ``stopping`` means that the answer came from an old worker: it says nothing about the present one.
    """

    servers: Mapping[str, ServerView]
    process: str | None = None
    uptime: float | None = None
    total: int = 0
    stopping: bool = False
    version: str | None = None


@dataclass(frozen=True, slots=True)
class GateReading:
    """What a gate on a producer's own host said of itself.

    ``open``: whether blocks can pass: True, False, or None in between (neither can be relied on).
    ``certain``: a closed one could show it by everything that its kind can show: files gone, signal delivered and
    the about-to-lead counter flat; both directions cut; ``off`` said by ``status``.
    ``shown`` and ``lacks`` say in words what it could show, and what not. ``process`` tells one run of what it guards
    from the next (the node's pid and start, the host's boot).
    """

    open: bool | None
    certain: bool = False
    shown: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    process: str | None = None
    findings: tuple[str, ...] = ()  # what an operator should mend there, although the gate works
    starting: bool = False  # its node is being started with files in place that it does not forge by
    kes_left: int | None = None  # of a forging gate: KES periods for which what its host holds can sign; 0: none


@dataclass(frozen=True, slots=True)
class NodeReading:
    """What a node says of itself by its metrics, legacy and new names alike; None: it did not say.

    ``starting`` is the share of the replay at start that is done, in percent.
    Source: facts/cardano-node-and-peers.md, Metrics; counters rise over the life of one process only.
    """

    slot: int | None = None
    block: int | None = None
    forging: bool | None = None  # forging_enabled, which lies in some versions
    about_to_lead: int | None = None  # rises each slot while the node holds credentials
    leader: int | None = None
    forged: int | None = None
    adopted: int | None = None
    missed: int | None = None
    kes_period: int | None = None
    kes_remaining: int | None = None  # periods; 0 or less: expired
    certificate_expiry: int | None = None  # the KES period in which the operational certificate ends
    starting: float | None = None
    started: float | None = None  # Unix time at which the process began, where told
    version: str | None = None


@dataclass(frozen=True, slots=True)
class RelaySession:
    """One TCP session between a relay and a producer, as the relay's host shows it.

    ``inbound``: the producer opened it. ``peer`` and ``local`` are "address:port", and tell it from the next one.
    """

    producer: str
    peer: str
    local: str
    inbound: bool


@dataclass(frozen=True, slots=True)
class RelayReading:
    """Who of the producers a relay's node is connected to. ``others`` counts its sessions with anybody else."""

    sessions: tuple[RelaySession, ...]
    others: int = 0
    running: bool = True  # whether its node runs
    process: str | None = None


@dataclass(frozen=True, slots=True)
class RecordReading:
    """What a record's provider holds at its name, of the record's types; None: nothing.

    ``unownable`` says in words why the name must not be changed by us: an alias, a weighted set, another type.
    """

    rrset: RRset | None
    unownable: str | None = None


class Fault(StrEnum):
    """What is wrong with a DNS server's answer, besides what it says."""

    SILENT = "silent"  # no answer, or none that could be read
    LAME = "lame"  # an answer without authority, or a refusal, where there should be authority


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """What one DNS server says of a record's name. ``rrset`` is None where it says that there is none, or at a fault.

    A resolver's ``ttl`` in it is what remains. ``negative_ttl`` (seconds) is for how long "there is none" may be kept.
    """

    server: str
    authoritative: bool  # asked as an authoritative server, not as a resolver
    rrset: RRset | None = None
    fault: Fault | None = None
    error: str | None = None
    negative_ttl: int | None = None


# ---------------------------------------------------------------- what is stored


class Health(StrEnum):
    """Can the producer be spoken to."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


class Phase(StrEnum):
    """Where a pool's assignment stands; see handover.py for what each phase does and when it ends."""

    STEADY = "steady"
    FENCING = "fencing"
    PROMOTING = "promoting"


class Cause(StrEnum):
    """Why a handover was begun."""

    FORCED = "forced"
    AT_ONCE = "at-once"
    VOLUNTARY = "voluntary"
    BY_HAND = "by-hand"
    ADOPTED = "adopted"
    UNFIT = "unfit"
    HAND_BACK = "hand-back"
    TAKEN_BACK = "taken-back"


@dataclass(frozen=True, slots=True)
class Gate:
    """One way by which a producer's blocks reach the network.

    ``place`` is the name of the proxy whose server it is; or, for a gate on the producer's own host, its kind.
    """

    place: str
    producer: str

    def __str__(self) -> str:
        return f"{self.producer}@{self.place}"

    @property
    def kind(self) -> GateKind:
        """What kind of gate it is; proxies cannot have the name of another kind."""
        return GateKind(self.place) if self.place in HOST_KINDS else GateKind.HAPROXY


@dataclass(frozen=True, slots=True)
class Taint:
    """A gate on which an opening was sent and not answered: it may yet open by itself.

    It ends when the gate has answered (``answered``) and reads closed one action timeout later.
    """

    gate: Gate
    since: Instant
    answered: Instant | None = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A silent gate that a forced handover did not wait for."""

    gate: Gate
    at: Instant


@dataclass(frozen=True, slots=True)
class Exposed:
    """A producer that relays may still be connected to, since the role left it and nothing could shut it out.

    It ends when its node is seen gone (its port refuses): that ended every session.
    """

    producer: str
    since: Instant


@dataclass(frozen=True, slots=True)
class Held:
    """A restriction on a producer, or on the pool, that ends by itself when ``until`` is set."""

    producer: str  # empty for the pool (pause)
    until: Instant | None = None
    reason: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The pool's one stored value: who is active, in which phase, at which generation, and why.

    It changes only by compare-and-swap on ``revision``. In steady ``target`` is None; in fencing and promoting
    ``active`` is the old producer (or None) and ``target`` the new one.
    """

    revision: int
    generation: int
    phase: Phase
    active: str | None
    target: str | None
    cause: Cause
    since: Instant
    reason: str
    term: int = 0
    requested_by: str | None = None
    forced_by_hand: bool = False
    pinned: Held | None = None
    cordoned: tuple[Held, ...] = ()
    paused: Held | None = None
    released: bool = False
    barred: tuple[Held, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    handed_back: tuple[str, ...] = ()  # given the role back once, until fit for fail_back_after
    tainted: tuple[Taint, ...] = ()
    seen: tuple[str, ...] = ()
    failovers: tuple[Instant, ...] = ()  # automatic failovers of the last 24 h, oldest first, at most 8
    request: str | None = None  # id of the request that this handover carries out
    exposed: tuple[Exposed, ...] = ()  # of pools without any gate


@dataclass(frozen=True, slots=True)
class Lease:
    """Who decides. ``term`` rises each time the holder changes; ``expires`` is on the holder's own clock."""

    holder: str
    term: int
    expires: Instant
    duration: float = 60.0


class Verb(StrEnum):
    """What an operator asks for."""

    SWITCHOVER = "switchover"
    PAUSE = "pause"
    RESUME = "resume"
    PIN = "pin"
    UNPIN = "unpin"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    ADOPT = "adopt"
    RELEASE = "release"


class RequestState(StrEnum):
    """What became of a request."""

    PENDING = "pending"
    ACCEPTED = "accepted"  # a handover runs for it
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"
    OVERTAKEN = "overtaken"


BEGIN_WITHIN = 60.0  # seconds after which a request that was not begun has expired


@dataclass(frozen=True, slots=True)
class Request:
    """One wish of an operator, as appended to the store by the CLI.

    ``generation`` is the one that the operator saw (None: any); ``seconds`` is how long what it sets shall last.
    """

    id: str
    verb: Verb
    at: Instant
    expires: Instant
    by: str
    producer: str | None = None
    reason: str = ""
    seconds: float | None = None
    force: bool = False
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request, in words."""

    request: str
    state: RequestState
    text: str


class EventKind(StrEnum):
    """The journal's words; INTERFACE, ``history``."""

    HEALTH_CHANGED = "health-changed"
    DECISION = "decision"
    STEP_STARTED = "step-started"
    STEP_DONE = "step-done"
    STEP_FAILED = "step-failed"
    PHASE_CHANGED = "phase-changed"
    SPLIT_BRAIN = "split-brain"
    SPLIT_BRAIN_HEALED = "split-brain-healed"
    DRIFT = "drift"
    REQUEST = "request"
    PAUSED = "paused"
    RESUMED = "resumed"
    PINNED = "pinned"
    UNPINNED = "unpinned"
    ISOLATED = "isolated"
    LEASE = "lease"
    ALERT = "alert"
    CONFIG_RELOADED = "config-reloaded"
    STARTED = "started"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the journal. ``detail`` is small and JSON-ready."""

    kind: EventKind
    at: Instant
    reason: str
    generation: int = 0
    producer: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


class StepKind(StrEnum):
    """What is done to a gate."""

    CLOSE = "close"  # to maint, then end its sessions
    OPEN = "open"  # to ready


@dataclass(frozen=True, slots=True)
class Step:
    """One command to one gate. An edge refuses a step whose generation or term is no longer the present one."""

    kind: StepKind
    gate: Gate
    generation: int
    term: int
    reason: str

    def __str__(self) -> str:
        return f"{self.kind.value} {self.gate}"

    @property
    def producer(self) -> str:
        """Whose gate it is."""
        return self.gate.producer

    @property
    def about(self) -> dict[str, str]:
        """What the journal notes of it, beside its reason."""
        return {"kind": self.kind.value, "gate": str(self.gate)}


KICK = "kick"  # what the journal and the metrics call the ending of a relay's sessions


@dataclass(frozen=True, slots=True)
class Kick:
    """End the sessions of one relay with one producer. An agent refuses it once a newer generation was heard."""

    relay: str
    producer: str
    generation: int
    term: int
    reason: str
    nudge: Nudge = Nudge.NEVER  # besides: make its node read its file again, or start it anew

    def __str__(self) -> str:
        return f"{KICK} {self.relay} off {self.producer}"

    @property
    def about(self) -> dict[str, str]:
        """What the journal notes of it, beside its reason."""
        return {"kind": KICK, "relay": self.relay}


POINT = "point"  # what the journal and the metrics call a change of a record, beside the kinds of steps


@dataclass(frozen=True, slots=True)
class Change:
    """A compare-and-swap of what a name holds: ``wanted`` in place of ``expected`` (None: nothing), or not at all."""

    expected: RRset | None
    wanted: RRset


@dataclass(frozen=True, slots=True)
class Pointing:
    """One change of one record, so that it points at ``producer``. Refused by its edge as an old step is."""

    record: str  # its label
    producer: str
    change: Change
    generation: int
    term: int
    reason: str

    def __str__(self) -> str:
        return f"{POINT} {self.record} to {self.producer}"

    @property
    def about(self) -> dict[str, str]:
        """What the journal notes of it, beside its reason."""
        return {"kind": POINT, "record": self.record}


@dataclass(frozen=True, slots=True)
class Drift:
    """Something observed that differs from what the assignment says.

    ``where`` is a gate, a proxy, a producer or a record.
    """

    kind: str
    where: str
    what: str
    since: Instant
    split_brain: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that one decision writes, in one transaction, before its first step.

    ``assignment`` replaces the stored one if that still has ``expected_revision`` (0: there is none yet).
    None leaves the assignment alone. ``term`` must still be the lease's.
    """

    term: int
    assignment: Assignment | None = None
    expected_revision: int = 0
    events: tuple[Event, ...] = ()
    answers: tuple[Answer, ...] = ()
    timers: Mapping[str, Any] | None = None  # JSON-ready; see health.py
    snapshot: Mapping[str, Any] | None = None  # the status document, for the CLI when no daemon runs


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One row of the journal as stored; ``id`` rises."""

    id: int
    event: Event


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds for a pool."""

    assignment: Assignment | None
    timers: Mapping[str, Any]
    lease: Lease | None
