"""The board: the latest dated observation of every part, folded so that nothing needs to be remembered elsewhere.

Probes post here; the tick reads one frozen ``View``. Nothing here talks to the world. Folding is pure
(``fold_reading``, ``fold_silence``); ``Board`` only holds the present values and says what is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from . import health, hostgates, incidents, nodes, relays, signposts, tips
from .dates import pack, unpack
from .health import Track, Yardstick
from .hostgates import REVERSAL_WINDOW, REVERSALS, GateTrack
from .incidents import Deed, Ledger
from .model import (
    Admin,
    Check,
    DnsAnswer,
    Event,
    Gate,
    GateKind,
    GateReading,
    Health,
    Instant,
    Lease,
    NodeReading,
    Ping,
    Pool,
    ProxyReading,
    RecordReading,
    RelayReading,
    RRset,
    ServerView,
    StepKind,
    Tip,
)
from .nodes import NodeTrack
from .relays import RelayTrack
from .signposts import RecordTrack
from .tips import Chains
from .tracks import ReadTrack, fold_silence

UNWATCHED = 60.0  # seconds between two readings after which nobody was looking


class Way(StrEnum):
    """How a gate that was shut came to be open, or to carry sessions, as far as its readings tell."""

    HAND = "hand"  # it changed under our eyes, and not by us
    LATE = "late"  # an opening of ours was on its way
    RELOAD = "reload"  # its proxy is another process than before
    AWAY = "away"  # nobody was looking
    SILENCE = "silence"  # its proxy did not answer meanwhile
    SESSIONS = "sessions"  # it stayed shut, and sessions run all the same


@dataclass(frozen=True, slots=True)
class Turned:
    """How a gate came to be open, and when that was first read."""

    way: Way
    at: Instant


@dataclass(frozen=True, slots=True)
class ProxyTrack(ReadTrack):
    """What is known of one proxy.

    ``reading`` is the last good one, perhaps from before a restart (then not ``current``).
    ``opened`` names the producers to whom an opening may have been sent since that reading.
    """

    reading: ProxyReading | None = None
    reloaded_at: Instant | None = None
    clean: frozenset[str] = frozenset()  # producers that were closed and empty when it was reloaded: nothing is hidden
    sent: frozenset[str] = frozenset()  # producers whose gate we moved since the last good reading
    opened: frozenset[str] = frozenset()
    reversals: tuple[Instant, ...] = ()
    contested_until: Instant | None = None
    turned: Mapping[str, Turned] = field(default_factory=dict)  # by producer, while its gate is open
    blind_since: Mapping[str, Instant] = field(default_factory=dict)  # by producer, while it fails to see and serve it
    failed_at: Mapping[str, Instant] = field(default_factory=dict)  # by producer, when its check of it last failed


def fold_reading(
    track: ProxyTrack, reading: ProxyReading, at: Instant, hard_stop_after: float | None, max_gap: float = 30.0
) -> ProxyTrack:
    """The track after a good reading. A changed process, or a falling total, is a reload or a restart."""
    before = track.reading
    reloaded_at, clean = track.reloaded_at, track.clean
    if before is None:
        reloaded_at = _reload_before_us(reading, at, hard_stop_after) or reloaded_at
    elif _reloaded(before, reading):
        hiding = reloaded_at is not None and (hard_stop_after is None or at.since(reloaded_at) < hard_stop_after)
        clean = _clean(track) & clean if hiding else _clean(track)
        reloaded_at = at
    reversals, contested = track.reversals, track.contested_until
    if contested is not None and contested.reached(at):
        reversals, contested = (), None
    if before is not None and _moved_by_others(before, reading, track.sent):
        kept = tuple(r for r in reversals if at.since(r) <= REVERSAL_WINDOW)
        reversals = (*kept, at)[-REVERSALS:]
        if contested is not None or len(reversals) >= REVERSALS:
            contested = at.after(REVERSAL_WINDOW)
    return ProxyTrack(
        reading=reading,
        read_at=at,
        current=True,
        reloaded_at=reloaded_at,
        clean=clean,
        reversals=reversals,
        contested_until=contested,
        turned=_turned(track, reading, at),
        blind_since=_blind(track, reading, at, max_gap),
        failed_at={**track.failed_at, **{n: at for n, view in reading.servers.items() if view.check is Check.FAILED}},
    )


def _blind(track: ProxyTrack, reading: ProxyReading, at: Instant, max_gap: float) -> Mapping[str, Instant]:
    """Since when it does not see a producer, nor serve it; a longer gap between readings, or another boot: anew."""
    before = track.read_at
    unbroken = before is not None and before.boot == at.boot and at.mono - before.mono <= max_gap
    known = track.blind_since if unbroken else {}
    return {
        name: known.get(name, at)
        for name, server in reading.servers.items()
        if server.check is Check.FAILED and not server.serves and not server.sessions
    }


def _turned(track: ProxyTrack, reading: ProxyReading, at: Instant) -> Mapping[str, Turned]:
    """How each gate that is open came to be so; one that was open already keeps what was found then."""
    before = track.reading
    found: dict[str, Turned] = {}
    for producer, server in reading.servers.items():
        if server.admin is Admin.MAINT and not server.sessions:
            continue
        earlier = None if before is None else before.servers.get(producer)
        if earlier is not None and (earlier.admin is not Admin.MAINT or earlier.sessions):
            if producer in track.turned:
                found[producer] = track.turned[producer]
            continue
        found[producer] = Turned(_way(track, reading, producer, at), at)
    return found


def _way(track: ProxyTrack, reading: ProxyReading, producer: str, at: Instant) -> Way:
    before = track.reading
    if reading.servers[producer].admin is Admin.MAINT:
        return Way.SESSIONS
    if producer in track.opened:
        return Way.LATE
    if before is not None and _reloaded(before, reading):
        return Way.RELOAD
    if not track.current or before is None or track.read_at is None:
        return Way.AWAY
    if track.silent_since is not None:
        return Way.SILENCE
    return Way.AWAY if at.since(track.read_at) > UNWATCHED else Way.HAND


def _reload_before_us(reading: ProxyReading, at: Instant, hard_stop_after: float | None) -> Instant | None:
    """A proxy first seen may have been reloaded just before: assume the youngest that it can be."""
    if hard_stop_after is None:
        return None
    return at if reading.uptime is None else at.after(-reading.uptime)


def _clean(track: ProxyTrack) -> frozenset[str]:
    """The producers that were last seen closed and empty, and not opened by us since."""
    servers = {} if track.reading is None else track.reading.servers
    shut = {name for name, server in servers.items() if server.admin is Admin.MAINT and server.sessions == 0}
    return frozenset(shut - track.opened)


def _reloaded(before: ProxyReading, now: ProxyReading) -> bool:
    if before.process is not None and now.process is not None and before.process != now.process:
        return True
    if before.uptime is not None and now.uptime is not None and now.uptime + 1.0 < before.uptime:
        return True
    return now.total < before.total


def _moved_by_others(before: ProxyReading, now: ProxyReading, sent: frozenset[str]) -> bool:
    for producer, server in now.servers.items():
        earlier = before.servers.get(producer)
        if earlier is None or producer in sent:
            continue
        if (earlier.admin is Admin.MAINT) != (server.admin is Admin.MAINT):
            return True
    return False


def misdirected(pool: Pool, reading: ProxyReading) -> str | None:
    """What is wrong when a server of one producer leads to another one's address; None where no address is shown.

    An address that is nobody's is left to ``check``: proxies may reach a producer by another way than we do.
    """
    addresses = {str(p.address): p.name for p in pool.producers}
    for producer, server in reading.servers.items():
        whose = None if server.address is None else addresses.get(server.address)
        if whose is not None and whose != producer:
            return f"its server of {producer} leads to {server.address}, which is {whose}: mend `servers`, or HAProxy"
    return None


def fold_sent(track: ProxyTrack, kind: StepKind, producer: str) -> ProxyTrack:
    """The track once a step may have left for the proxy."""
    opened = track.opened | {producer} if kind is StepKind.OPEN else track.opened
    return replace(track, sent=track.sent | {producer}, opened=opened)


@dataclass(frozen=True, slots=True)
class Reference:
    """A peer that is not ours: when it last answered, and how often in a row it did not."""

    misses: int = 0
    last: Ping | None = None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An opening that was sent and not answered: its gate is to be tainted."""

    gate: Gate
    at: Instant


@dataclass(frozen=True, slots=True)
class View:
    """Everything observed, at one instant: the tick's input."""

    tracks: Mapping[str, Track]
    proxies: Mapping[str, ProxyTrack]
    references: Mapping[str, Reference] = field(default_factory=dict)
    records: Mapping[str, RecordTrack] = field(default_factory=dict)  # by label
    gates: Mapping[Gate, GateTrack] = field(default_factory=dict)  # those on producers' own hosts
    nodes: Mapping[str, NodeTrack] = field(default_factory=dict)  # metrics, by producer, where they are read
    relays: Mapping[str, RelayTrack] = field(default_factory=dict)  # those with an agent
    isolated: bool = False
    lease: Lease | None = None
    room: bool = True  # the store can take a whole handover
    acting_since: Instant | None = None  # when this decider began to act: phases get their whole budget from here
    unanswered: tuple[Unanswered, ...] = ()
    pinged: frozenset[str] = frozenset()  # producers whose ping has ended at least once in this process
    chains: Chains = tips.NONE
    deeds: tuple[Deed, ...] = ()  # the last steps that ended


class Board:
    """The present observations of one pool."""

    def __init__(self, pool: Pool, now: Instant, timers: Mapping[str, Any] | None = None) -> None:
        self.pool = pool
        self.lease: Lease | None = None
        self.room = True
        self.acting_since: Instant | None = None
        self.isolated = False
        self._unanswered: dict[Gate, Unanswered] = {}
        self._pinged: set[str] = set()
        self._tips: dict[str, Tip] = {}
        self._chains = tips.NONE
        self._deeds: deque[Deed] = deque(maxlen=incidents.MOST_DEEDS)
        self._best = -1
        self._best_at = now
        timers = timers or {}
        self.ledger: Ledger = incidents.restore(timers.get("incidents"))  # as it was last decided
        stored = timers.get("tracks", {})
        self.tracks: dict[str, Track] = {
            name: health.restore(stored[name], now) if name in stored else health.fresh(now) for name in pool.names
        }
        known = timers.get("proxies", {})
        unbroken = _unbroken(timers, now, pool.health.max_gap)
        self.proxies: dict[str, ProxyTrack] = {
            p.name: _restore_proxy(known[p.name], pool, unbroken) if p.name in known else ProxyTrack()
            for p in pool.proxies
        }
        self.references: dict[str, Reference] = {str(address): Reference() for address in pool.references}
        signs = timers.get("records", {})
        self.records: dict[str, RecordTrack] = {
            r.label: _restore_record(signs[r.label]) if r.label in signs else RecordTrack() for r in pool.records
        }
        gates = timers.get("gates", {})
        self.gates: dict[Gate, GateTrack] = {
            gate: hostgates.restore(gates[str(gate)], unbroken=unbroken) if str(gate) in gates else GateTrack()
            for gate in pool.host_gates
        }
        told = timers.get("nodes", {})
        self.nodes: dict[str, NodeTrack] = {
            p.name: nodes.restore(told[p.name]) if p.name in told else NodeTrack()
            for p in pool.producers
            if p.metrics or p.agent
        }
        linked = timers.get("relays", {})
        self.relays: dict[str, RelayTrack] = {
            r.name: relays.restore(linked[r.name], pool.names) if r.name in linked else RelayTrack()
            for r in pool.relays
            if r.agent is not None
        }
        self.steering = False  # whether what a record holds is ours to say: others who change it are other hands
        for name, track in self.tracks.items():
            if track.tip is not None:
                self._note_tip(name, track.tip, now)

    # ------------------------------------------------------------ posting

    def yardstick(self, producer: str, now: Instant) -> Yardstick:
        """What to judge ``producer``'s next tip against: take it before the ping begins."""
        return health.yardstick(
            self._tips,
            producer,
            self.pool.names,
            self.pool.health.max_lag,
            standing_for=now.since(self._best_at),
        )

    def post_ping(self, producer: str, ping: Ping, best: Yardstick) -> None:
        """Fold one ping of a producer."""
        track = self.tracks[producer]
        self._pinged.add(producer)
        if ping.tip is not None:
            self._note_tip(producer, ping.tip, ping.at)
        track = health.fold(track, ping, best, self.pool.health, self.pool.policy.fail_over_after)
        self._follow_chain(producer, ping, gone=track.health is Health.DOWN)
        self.tracks[producer] = health.reset(track, ping.at) if self.isolated else track
        self._judge_isolation(ping.at)

    def post_reference(self, name: str, ping: Ping) -> None:
        """Fold one ping of a reference."""
        if ping.tip is not None:
            self._note_tip(name, ping.tip, ping.at)
        misses = 0 if ping.ok else self.references[name].misses + 1
        self._follow_chain(name, ping, gone=misses >= self.pool.health.fall)
        self.references[name] = Reference(misses=misses, last=ping)
        self._judge_isolation(ping.at)

    def post_reading(self, proxy: str, reading: ProxyReading, at: Instant) -> None:
        """Fold a good reading of a proxy."""
        hard_stop = next(p.hard_stop_after for p in self.pool.proxies if p.name == proxy)
        self.proxies[proxy] = fold_reading(self.proxies[proxy], reading, at, hard_stop, self.pool.health.max_gap)
        self._judge_isolation(at)

    def post_silence(self, proxy: str, at: Instant, error: str) -> None:
        """Fold a failed attempt to read a proxy."""
        self.proxies[proxy] = fold_silence(self.proxies[proxy], at, error)
        self._judge_isolation(at)

    def post_sent(self, proxy: str, kind: StepKind, producer: str) -> None:
        """Note that a step is about to leave for a proxy."""
        self.proxies[proxy] = fold_sent(self.proxies[proxy], kind, producer)

    def post_gate(self, gate: Gate, reading: GateReading, at: Instant) -> None:
        """Fold a good reading of a gate on a producer's own host."""
        self.gates[gate] = hostgates.fold_reading(self.gates[gate], reading, at)

    def post_gate_silence(self, gate: Gate, at: Instant, error: str) -> None:
        """Fold a failed attempt to read a gate on a producer's own host."""
        self.gates[gate] = fold_silence(self.gates[gate], at, error)

    def post_gate_sent(self, gate: Gate, kind: StepKind) -> None:
        """Note that a step is about to leave for a gate on a producer's own host."""
        self.gates[gate] = hostgates.fold_sent(self.gates[gate], kind)

    def post_gate_unsent(self, gate: Gate, before: GateTrack) -> None:
        """Note that a step did not leave after all; ``before`` is the track from before it was to."""
        self.gates[gate] = replace(self.gates[gate], sent=before.sent, opened=before.opened)

    def post_node(self, producer: str, reading: NodeReading, at: Instant) -> None:
        """Fold what a producer's node says of itself."""
        gate = self.gates.get(Gate(GateKind.FORGING.value, producer))
        self.nodes[producer] = nodes.fold(self.nodes[producer], reading, at, None if gate is None else gate.reading)

    def post_node_silence(self, producer: str, at: Instant, error: str) -> None:
        """Fold that a producer's metrics could not be read."""
        self.nodes[producer] = nodes.fold_unread(self.nodes[producer], at, error)

    def post_relay(self, relay: str, reading: RelayReading, at: Instant) -> None:
        """Fold whom a relay is connected to."""
        self.relays[relay] = relays.fold_reading(self.relays[relay], reading, at)

    def post_relay_silence(self, relay: str, at: Instant, error: str) -> None:
        """Fold a failed attempt to read a relay's sessions."""
        self.relays[relay] = fold_silence(self.relays[relay], at, error)

    def post_kicked(self, relay: str, producer: str, generation: int, at: Instant) -> None:
        """Note that a relay's sessions with a loser are about to be ended."""
        self.relays[relay] = relays.fold_kicked(self.relays[relay], producer, generation, at)

    def post_ended(self, event: Event) -> None:
        """Note that a step ended, by its row of the journal."""
        step, result = str(event.detail.get("step", "")), str(event.detail.get("result", ""))
        self._deeds.append(Deed(step, event.at, event.reason, result))

    def post_unanswered(self, gate: Gate, at: Instant) -> None:
        """Note that an opening was not answered."""
        self._unanswered[gate] = Unanswered(gate, at)

    def post_record(self, record: str, reading: RecordReading, at: Instant) -> None:
        """Fold a good reading of a record's provider."""
        track = self.records[record]
        self.records[record] = signposts.fold_reading(track, reading, at, steering=self.steering and not self.isolated)

    def post_record_silence(self, record: str, at: Instant, error: str) -> None:
        """Fold a failed attempt to read a record's provider."""
        self.records[record] = fold_silence(self.records[record], at, error)

    def post_pointed(self, record: str, wanted: RRset, at: Instant) -> None:
        """Note that a change of a record is about to leave."""
        self.records[record] = signposts.fold_sent(self.records[record], wanted, at)

    def post_point_failed(self, record: str, why: str, at: Instant) -> None:
        """Note why a change failed."""
        self.records[record] = signposts.fold_failed(self.records[record], why, at)

    def post_unsent(self, record: str, wanted: RRset) -> None:
        """Note that a change had no effect."""
        self.records[record] = signposts.fold_unsent(self.records[record], wanted)

    def post_accepted(self, record: str, wanted: RRset, change_id: str, at: Instant, *, generation: int = 0) -> None:
        """Fold that the provider accepted a change that was decided in this generation."""
        track = self.records[record]
        self.records[record] = signposts.fold_accepted(track, wanted, change_id, at, generation=generation)

    def post_settled(self, record: str, at: Instant) -> None:
        """Fold that an accepted change is everywhere."""
        self.records[record] = signposts.fold_settled(self.records[record], at)

    def post_answers(self, record: str, answers: tuple[DnsAnswer, ...], at: Instant) -> None:
        """Fold what the servers say of a record."""
        self.records[record] = signposts.fold_answers(self.records[record], answers, at)

    def post_unseen(self, record: str, at: Instant, error: str) -> None:
        """Fold that no server could be asked about a record."""
        self.records[record] = signposts.fold_unseen(self.records[record], at, error)

    def take_over(self, other: Board, now: Instant) -> None:
        """What timers do not carry, from the board of the file that was in force before."""
        self.room, self.acting_since, self.steering = other.room, other.acting_since, other.steering
        self._unanswered.update(other._unanswered)
        self._deeds.extend(other._deeds)
        sources = {*self.tracks, *self.references}
        for gone in [name for name in other._chains.histories if name not in sources]:
            other._chains = tips.forget(other._chains, gone)
        self._chains = other._chains
        for gate in self.gates:
            if _way_to(self.pool, gate) == _way_to(other.pool, gate):
                self.gates[gate] = other.gates.get(gate, self.gates[gate])
            else:  # another host may answer there: what the one before said means nothing
                self.gates[gate] = GateTrack()
        for name in self.nodes:
            self.nodes[name] = other.nodes.get(name, self.nodes[name])
        old = {(record.name, record.types): record for record in other.pool.records}
        for record in self.pool.records:
            before = old.get((record.name, record.types))
            if before is None:
                self.records[record.label] = RecordTrack()
                continue
            track = other.records[before.label]
            same = record.provider.place == before.provider.place
            self.records[record.label] = track if same else signposts.elsewhere(track, now)

    def settle_unanswered(self, gates: frozenset[Gate]) -> None:
        """Forget unanswered openings that the stored assignment carries as taint by now."""
        for gate in gates:
            self._unanswered.pop(gate, None)

    def _note_tip(self, source: str, tip: Tip, at: Instant) -> None:
        self._tips[source] = tip
        if tip.slot > self._best:
            self._best, self._best_at = tip.slot, at

    def _follow_chain(self, source: str, ping: Ping, *, gone: bool) -> None:
        if ping.tip is not None:
            self._chains = tips.read(self._chains, source, ping.tip, ping.at)
        elif gone:
            self._chains = tips.forget(self._chains, source)

    def _judge_isolation(self, now: Instant) -> None:
        isolated = self._nothing_answers()
        if isolated and not self.isolated:
            for name, track in self.tracks.items():
                self.tracks[name] = health.reset(track, now)
            for name, proxy in self.proxies.items():
                if proxy.silent_since is not None:
                    self.proxies[name] = replace(proxy, silent_since=now)
            self._count_silence_anew(now)
        elif self.isolated and not isolated:
            for name, proxy in self.proxies.items():
                if proxy.silent_since is not None:
                    self.proxies[name] = replace(proxy, silent_since=now)
            self._count_silence_anew(now)
        self.isolated = isolated

    def _count_silence_anew(self, now: Instant) -> None:
        for gate, track in self.gates.items():
            if track.silent_since is not None:
                self.gates[gate] = replace(track, silent_since=now)

    def _nothing_answers(self) -> bool:
        fall = self.pool.health.fall
        if self.references:
            return all(r.misses >= fall for r in self.references.values())
        pings = all(
            t.last is not None and not t.last.ok and _missed(t, self.isolated) >= fall for t in self.tracks.values()
        )
        if any(gate.answers for gate in self.gates.values()) or any(relay.answers for relay in self.relays.values()):
            return False
        return pings and all(p.misses >= fall for p in self.proxies.values())

    # ------------------------------------------------------------ reading

    def view(self) -> View:
        """The present observations, frozen."""
        return View(
            tracks=dict(self.tracks),
            proxies=dict(self.proxies),
            references=dict(self.references),
            records=dict(self.records),
            gates=dict(self.gates),
            nodes=dict(self.nodes),
            relays=dict(self.relays),
            isolated=self.isolated,
            lease=self.lease,
            room=self.room,
            acting_since=self.acting_since,
            unanswered=tuple(self._unanswered.values()),
            pinged=frozenset(self._pinged),
            chains=self._chains,
            deeds=tuple(self._deeds),
        )

    def timers(self, now: Instant) -> dict[str, Any]:
        """What must survive a restart, JSON-ready."""
        return {
            "at": pack(now),
            "tracks": {name: health.dump(track) for name, track in self.tracks.items()},
            "proxies": {name: _dump_proxy(track) for name, track in self.proxies.items() if track.tried},
            "records": {label: signposts.dump(track) for label, track in self.records.items()},
            "gates": {str(gate): hostgates.dump(track) for gate, track in self.gates.items() if track.tried},
            "nodes": {name: nodes.dump(track) for name, track in self.nodes.items()},
            "relays": {name: relays.dump(track) for name, track in self.relays.items()},
            "incidents": incidents.dump(self.ledger),
        }


def _way_to(pool: Pool, gate: Gate) -> object:
    """By what a gate on a producer's own host is reached: an agent's address, or the power commands."""
    producer = next((p for p in pool.producers if p.name == gate.producer), None)
    if producer is None:
        return None
    if gate.kind is GateKind.POWER:
        return producer.power
    return next((agent.address for agent in pool.agents if agent.name == producer.agent), None)


def _missed(track: Track, isolated: bool) -> int:
    """Failed pings in a row; while isolated the counters are reset, and one failure keeps it so."""
    return 1 << 30 if isolated else track.fails


def _dump_proxy(track: ProxyTrack) -> dict[str, Any]:
    reading = track.reading
    return {
        "silent_since": pack(track.silent_since),
        "error": track.error,
        "read_at": pack(track.read_at),
        "reloaded_at": pack(track.reloaded_at),
        "opened": sorted(track.opened | track.sent),
        "blind_since": {name: pack(at) for name, at in track.blind_since.items()},
        "failed_at": {name: pack(at) for name, at in track.failed_at.items()},
        "servers": None
        if reading is None
        else {
            name: [s.admin.value, s.status, s.sessions, s.check.value, s.address] for name, s in reading.servers.items()
        },
        "process": None if reading is None else reading.process,
        "uptime": None if reading is None else reading.uptime,
        "total": 0 if reading is None else reading.total,
    }


def _restore_record(document: Any) -> RecordTrack:
    """What the daemon before us knew of a record; nothing, when another version wrote it in another form."""
    try:
        return signposts.restore(document)
    except (KeyError, TypeError, ValueError):
        return RecordTrack()


def _unbroken(timers: Mapping[str, Any], now: Instant, max_gap: float) -> bool:
    """Whether somebody watched until just now: otherwise silence counts anew."""
    at = unpack(timers.get("at"))
    return at is not None and at.boot == now.boot and 0.0 <= now.mono - at.mono <= max_gap


def _restore_proxy(document: Mapping[str, Any], pool: Pool, unbroken: bool) -> ProxyTrack:
    """What the daemon before us knew: how long it has been silent, and what it last said.

    It does not count as tried: everything is read anew before anything is decided.
    """
    servers = document["servers"]
    names = set(pool.names)
    reading = None
    if servers is not None and set(servers) == names:
        reading = ProxyReading(
            servers={
                name: ServerView(Admin(row[0]), str(row[1]), int(row[2]), Check(row[3]), row[4])
                for name, row in servers.items()
            },
            process=document["process"],
            uptime=document["uptime"],
            total=int(document["total"]),
        )
    return ProxyTrack(
        reading=reading,
        read_at=unpack(document["read_at"]) if reading is not None else None,
        silent_since=unpack(document["silent_since"]) if unbroken else None,
        error=document["error"],
        reloaded_at=unpack(document["reloaded_at"]),
        blind_since=_dates(document.get("blind_since"), names),
        failed_at=_dates(document.get("failed_at"), names),
        opened=frozenset(document["opened"]) & names,
        sent=frozenset(document["opened"]) & names,
    )


def _dates(document: Any, names: set[str]) -> Mapping[str, Instant]:
    """Instants by producer; an earlier version did not write them."""
    found = {} if not isinstance(document, Mapping) else {n: unpack(at) for n, at in document.items() if n in names}
    return {name: at for name, at in found.items() if at is not None}
