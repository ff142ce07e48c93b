"""What is the case: pool, board, assignment and now, turned into the answers that rules ask for.

Pure. Every question that two rules share is asked here once: who is up, who says so, which gates are shut,
what still lacks before a fence is complete. It decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from . import health, signposts
from .board import ProxyTrack, View
from .hostgates import GateTrack
from .model import (
    Admin,
    Assignment,
    Cause,
    Check,
    Gate,
    GateKind,
    Health,
    Instant,
    Phase,
    Pool,
    Record,
    ServerView,
)

RELOAD_DOUBT = 86400.0  # seconds for which a reload without a known hard_stop_after is worth showing
LEAST_WAKE = 0.01  # seconds; a rest that rounding leaves must not wake us again and again
MOST_FINDINGS = 8  # of one host that are shown
SERVE_BUDGET = 30.0  # seconds in which every reachable gate is to serve a promoted producer


class Care(StrEnum):
    """How much a fence may leave open."""

    VOLUNTARY = "voluntary"  # every gate answers and is shut
    FORCED = "forced"  # silent gates of a producer that is down by majority may be passed over
    RETURN = "return"  # taking back, handing back, re-opening: as forced, and a silent gate last seen shut is shut
    BY_FORCE = "by-force"  # a person said --force: gates silent for long enough are passed over


def care_of(assignment: Assignment) -> Care:
    """How careful the present handover, or steady state, has to be."""
    if assignment.phase is Phase.STEADY or assignment.cause in (Cause.TAKEN_BACK, Cause.HAND_BACK):
        return Care.RETURN
    if assignment.forced_by_hand:
        return Care.BY_FORCE
    if assignment.cause in (Cause.FORCED, Cause.AT_ONCE, Cause.ADOPTED):
        return Care.FORCED
    return Care.VOLUNTARY


@dataclass(frozen=True, slots=True)
class Votes:
    """Who says that a producer is down, of all vantage points that do not abstain (the controller included)."""

    agree: int
    counted: int
    missing: tuple[str, ...]  # proxies that are counted but do not agree, with the reason

    @property
    def majority(self) -> bool:
        """Whether the ones that agree are a strict majority."""
        return 2 * self.agree > self.counted


class Situation:
    """One instant of one pool, with the questions that the rules ask.

    ``wakes`` collects the instants (mono seconds) at which an answer would change by itself, ``alerts`` what a
    person should be told, by a stable key.
    """

    __slots__ = ("_fit", "_health", "_tainted", "a", "alerts", "now", "pool", "view", "wakes")

    def __init__(self, pool: Pool, view: View, assignment: Assignment | None, now: Instant) -> None:
        self.pool = pool
        self.view = view
        self.a = assignment
        self.now = now
        self.wakes: list[float] = []
        self.alerts: dict[str, str] = {}
        settings = pool.health
        if view.isolated:
            self._health = dict.fromkeys(view.tracks, Health.UNKNOWN)
            self._fit: dict[str, bool | None] = dict.fromkeys(view.tracks, None)
        else:
            self._health = {n: health.health_at(t, now, settings) for n, t in view.tracks.items()}
            self._fit = {n: health.fit_at(t, now, settings) for n, t in view.tracks.items()}
            for name, node in view.nodes.items():
                if node.expired_since is not None and self._fit[name] is not None:
                    self._fit[name] = False
        self._tainted = frozenset(t.gate for t in assignment.tainted) if assignment is not None else frozenset()

    def wake_in(self, seconds: float) -> None:
        """Ask for a tick in so many seconds."""
        if seconds > 0:
            self.wakes.append(self.now.mono + max(seconds, LEAST_WAKE))

    def alert(self, key: str, words: str) -> None:
        """Tell a person, once for as long as it stays the case."""
        self.alerts[key] = words

    # ------------------------------------------------------------ producers

    def health(self, producer: str) -> Health:
        """Up, down or unknown, by our own pings."""
        return self._health[producer]

    def up(self, producer: str) -> bool:
        """Whether our pings say up."""
        return self._health[producer] is Health.UP

    def fit(self, producer: str) -> bool | None:
        """Worth making active, or None when it cannot be told."""
        return self._fit[producer]

    def why_unfit(self, producer: str) -> str | None:
        """What makes a producer unfit that is up, in words; None when nothing measured does."""
        node, track = self.view.nodes.get(producer), self.view.tracks[producer]
        if node is not None and node.expired_since is not None:
            return "has a KES key or certificate that can sign no block any more"
        if track.sync is health.Sync.LAGGING:
            return f"lags {track.lag} slots behind"
        return None

    def unfit_for(self, producer: str) -> float:
        """Seconds for which it has been up and measured unfit."""
        node = self.view.nodes.get(producer)
        expired = 0.0 if node is None or node.expired_since is None else self.now.since(node.expired_since)
        return max(health.unfit_for(self.view.tracks[producer], self.now), expired)

    def held(self, producer: str, which: str) -> bool:
        """Whether ``producer`` is cordoned or barred (``which`` names the assignment's field)."""
        return self.a is not None and any(h.producer == producer for h in getattr(self.a, which))

    def pinned(self, producer: str) -> bool:
        """Whether the role is pinned to ``producer``."""
        return self.a is not None and self.a.pinned is not None and self.a.pinned.producer == producer

    def votes(self, producer: str) -> Votes:
        """Who agrees that ``producer`` is down; the controller itself is counted among them."""
        track = self.view.tracks[producer]
        last = track.last
        controller = self._health[producer] is Health.DOWN
        connected = last is not None and last.stage not in (None, "dns", "connect")
        agree, counted, missing = int(controller), 1, []
        for name, proxy in self.view.proxies.items():
            if not proxy.answers:
                counted += 1
                missing.append(f"{name} does not answer")
                continue
            check = self.check(name, producer)
            if check is Check.FAILED:
                agree, counted = agree + 1, counted + 1
            elif check is Check.PASSED_L7 or (check is Check.PASSED_L4 and not connected):
                counted += 1
                missing.append(f"{name}'s check passes")
        return Votes(agree, counted, tuple(missing))

    def down(self, producer: str) -> bool:
        """Down by majority of the vantage points, our own pings among them."""
        return self._health[producer] is Health.DOWN and self.votes(producer).majority

    def somebody_sees_up(self, producer: str) -> bool:
        """Whether the last ping, or a proxy's check that speaks for up, says that it is there now."""
        track = self.view.tracks[producer]
        if health.stale(track, self.now, self.pool.health) or track.last is None:
            return False
        if track.last.ok:
            return True
        connected = track.last.stage not in (None, "dns", "connect")
        for name, proxy in self.view.proxies.items():
            if proxy.answers:
                check = self.check(name, producer)
                if check is Check.PASSED_L7 or (check is Check.PASSED_L4 and not connected):
                    return True
        return False

    def unseen_for(self, producer: str) -> float:
        """Seconds for which no proxy that answers serves it, and some proxy's check of it fails; 0 when one does."""
        since = [track.blind_since.get(producer) for track in self.view.proxies.values() if track.answers]
        found = [instant for instant in since if instant is not None]
        return min(self.now.since(i) for i in found) if found and len(found) == len(since) else 0.0

    def well_for(self, producer: str) -> float:
        """Seconds of unbroken fitness in which no proxy's check of it failed, and its credentials were good."""
        tracks = () if self.walled(producer) else self.view.proxies.values()
        failed = [track.failed_at[producer] for track in tracks if producer in track.failed_at]
        node = self.view.nodes.get(producer)
        if node is not None and node.sound_since is not None:
            failed.append(node.sound_since)
        fit = health.fit_for(self.view.tracks[producer], self.now)
        return min([fit, *(self.now.since(at) for at in failed)])

    def first(self, candidates: tuple[str, ...], *, fit: bool) -> str | None:
        """The first of ``candidates`` that is fit (or only up), uncordoned, unbarred and can be served by a gate."""
        for name in candidates:
            good = self._fit[name] is True if fit else self._health[name] is Health.UP
            if not good or self.held(name, "barred") or self.held(name, "cordoned"):
                continue
            if self.unservable(name, voluntary=False) is None:
                return name
        return None

    def heirs(self, candidates: tuple[str, ...]) -> tuple[str, ...]:
        """Who could take over by force, best first: fit, else only up, else barred for a while already."""
        able = [n for n in candidates if not self.held(n, "cordoned") and self.unservable(n, voluntary=False) is None]
        free = [n for n in able if not self.held(n, "barred")]
        fit = [n for n in free if self._fit[n] is True]
        up = [n for n in free if self.up(n) and n not in fit]
        last = [n for n in able if self.up(n) and n not in free and self._bar_is_old(n)]
        return (*fit, *up, *last)

    def _bar_is_old(self, producer: str) -> bool:
        """Whether a bar has stood for fail_over_after: then a barred producer is better than nobody."""
        policy = self.pool.policy
        for held in () if self.a is None else self.a.barred:
            if held.producer == producer and held.until is not None:
                left = held.until.since(self.now) - max(0.0, policy.fail_back_after - policy.fail_over_after)
                self.wake_in(left)
                return left <= 0
        return True

    # ------------------------------------------------------------ gates

    def server(self, proxy: str, producer: str) -> ServerView | None:
        """The producer's server in the last good reading of the proxy."""
        reading = self.view.proxies[proxy].reading
        return None if reading is None else reading.servers.get(producer)

    def check(self, proxy: str, producer: str) -> Check:
        """What the proxy's own check of the producer says."""
        server = self.server(proxy, producer)
        return Check.NONE if server is None else server.check

    def answering(self) -> tuple[str, ...]:
        """Proxies whose last reading succeeded."""
        return tuple(name for name, track in self.view.proxies.items() if track.answers)

    def silent(self) -> tuple[str, ...]:
        """Proxies whose last reading failed, or that were never read."""
        return tuple(name for name, track in self.view.proxies.items() if not track.answers)

    def contested(self, proxy: str) -> bool:
        """Whether another hand keeps reversing this proxy: then we stop fighting over it."""
        until = self.view.proxies[proxy].contested_until
        if until is None or until.reached(self.now):
            return False
        self.wake_in(until.mono - self.now.mono)
        return True

    def open_gates(self, producer: str) -> tuple[str, ...]:
        """Answering proxies in which the producer's server is not in maint."""
        return tuple(
            name
            for name in self.answering()
            if (server := self.server(name, producer)) is not None and server.admin is not Admin.MAINT
        )

    def session_gates(self, producer: str) -> tuple[str, ...]:
        """Answering proxies in which sessions of the producer run, also on a server in maint."""
        return tuple(
            name
            for name in self.answering()
            if (server := self.server(name, producer)) is not None and server.sessions > 0
        )

    def present(self, producer: str) -> bool:
        """Whether blocks of the producer get out just now, as far as the gates that answer tell."""
        if self.pool.proxies and not self.session_gates(producer):
            return False
        return all(self.view.gates[gate].is_open is not False for gate in self.switches(producer))

    def serving_gates(self, producer: str) -> tuple[str, ...]:
        """Answering proxies through which new connections reach the producer."""
        return tuple(
            name for name in self.answering() if (server := self.server(name, producer)) is not None and server.serves
        )

    def unservable(self, producer: str, *, voluntary: bool) -> str | None:
        """Why no gate could serve ``producer``, or None when one could (a voluntary move: no gate may doubt it)."""
        if self.pool.gateless:
            return self._unpointable(producer, voluntary)
        shut = self._shut_for_good(producer, voluntary)
        if shut is not None or not self.pool.proxies:
            return shut
        answering = self.answering()
        if not answering:
            return "no proxy answers"
        walled = self.walled(producer)  # then its own firewall lets no proxy look
        failing = [name for name in answering if self.check(name, producer) is Check.FAILED and not walled]
        if voluntary and failing:
            return f"the check of {producer} fails in {', '.join(failing)}"
        if len(failing) == len(answering):
            return f"no proxy that answers can see {producer}"
        return None

    def _shut_for_good(self, producer: str, voluntary: bool) -> str | None:
        """What hinders opening a gate on its own host; one that was last seen open may do, if not voluntarily."""
        for gate in self.switches(producer):
            track = self.view.gates[gate]
            if voluntary and track.answers and track.is_open is None and self._is_target(producer) is False:
                return f"{gate} is neither open nor closed"
            if track.answers or (track.is_open is True and not track.sent and not voluntary):
                continue
            return f"{self.silence(gate)}{'' if voluntary else ', and was not open when it last did'}"
        return None

    def _is_target(self, producer: str) -> bool:
        """Whether a handover gives it the role already: then its gates are on their way."""
        return self.a is not None and producer in (self.a.active, self.a.target)

    # ------------------------------------------------------------ records

    def movable(self) -> tuple[Record, ...]:
        """Records that could be changed now: the provider answers, and the name is ours to change."""
        return tuple(r for r in self.pool.records if self._immovable(r) is None)

    def _immovable(self, record: Record) -> str | None:
        track = self.view.records[record.label]
        if not track.answers:
            return (
                f"{record.label}: {(track.error or 'its provider was not read yet').removeprefix(f'{record.label}: ')}"
            )
        if track.reading is not None and track.reading.unownable is not None:
            return f"{record.label} {track.reading.unownable}"
        return None

    def _unpointable(self, producer: str, voluntary: bool) -> str | None:
        """Why no record (a voluntary move: not every record) could be moved; one that is right need not be."""
        there = self.serving(producer)
        wrong = (record for record in self.pool.records if record.label not in there)
        lacks = [lack for record in wrong if (lack := self._immovable(record)) is not None]
        if lacks and (voluntary or len(lacks) == len(self.pool.records)):
            return lacks[0]
        return None

    def misplaced(self, producer: str) -> tuple[Record, ...]:
        """Records that could be changed now, and do not hold what they should for ``producer``."""
        return tuple(r for r in self.movable() if self.view.records[r.label].rrset != r.wanted(producer))

    def disputed(self, record: Record) -> bool:
        """Whether another hand keeps changing this record: then only a handover changes it, once."""
        track = self.view.records[record.label]
        until = track.contested_until
        if self.a is None or track.moved_in != self.a.generation:
            return False
        if until is None or until.reached(self.now):
            return False
        self.wake_in(until.mono - self.now.mono)
        return True

    def pointed_by_us(self, producer: str) -> bool:
        """Whether we asked lately for a record to point there, and heard of no end."""
        tracks = self.view.records
        return any(
            not sent.answered and sent.rrset == record.wanted(producer)
            for record in self.pool.records
            for sent in tracks[record.label].sent
        )

    def visited(self) -> tuple[str, ...]:
        """Producers that are not active, and to which a record, or a server's answer, leads relays just now."""
        a = self.a
        if a is None or a.phase is not Phase.STEADY or a.active is None or not self.pool.gateless:
            return ()
        if self.down(a.active):  # whoever they lead to is about to be followed
            return ()
        values: set[str] = set()
        for record in self.pool.records:
            track = self.view.records[record.label]
            sets = [track.rrset, *(answer.rrset for answer in track.said)] if track.current else []
            values |= {value for rrset in sets if rrset is not None for value in rrset.values}
        return tuple(p for p in self.pool.others(a.active) if any(r.targets[p] in values for r in self.pool.records))

    def reached(self, producer: str) -> bool:
        """Whether relays may have been led to the producer, as far as we know."""
        unknown = any(not track.tried for track in self.view.records.values())
        return unknown or self.believed(producer) is not None or self.pointed_by_us(producer)

    def signposted(self) -> str | None:
        """The producer at whom every record points that can be read; None when they differ or none can be."""
        found = {
            r.points_to(self.view.records[r.label].rrset)
            for r in self.pool.records
            if self.view.records[r.label].answers
        }
        return found.pop() if len(found) == 1 else None

    def serving(self, producer: str) -> tuple[str, ...]:
        """Gates through which the producer's blocks get out; without any gate, the records that hold its address.

        None at all while a gate on its own host is shut: then nothing gets out through the others either.
        """
        if not self.pool.gateless:
            proxies = self.serving_gates(producer)
            if not self.switched_on(producer) or (self.pool.proxies and not proxies):
                return ()
            return (*proxies, *(str(gate) for gate in self.switches(producer)))
        tracks = self.view.records
        return tuple(r.label for r in self.pool.records if tracks[r.label].rrset == r.wanted(producer))

    def not_yet_serving(self, producer: str) -> tuple[str, ...]:
        """Gates (without any, records) that could serve the producer and do not yet."""
        if self.pool.gateless:
            return tuple(record.label for record in self.misplaced(producer))
        serving = self.serving_gates(producer)
        proxies = (name for name in self.answering() if name not in serving and not self.contested(name))
        shut = (g for g in self.switches(producer) if self.view.gates[g].is_open is not True)
        return (*proxies, *(str(gate) for gate in shut if not self.gate_contested(gate)))

    def let_in(self, producer: str) -> bool:
        """Whether relays that connect now may reach the producer: an open gate, or where there is none, the records."""
        if self.pool.gateless:
            return self.signposted() == producer
        return self.switched_on(producer) and (bool(self.open_gates(producer)) or not self.pool.proxies)

    def believed(self, producer: str) -> Instant | None:
        """Until when, at worst, some relay may take a record for pointing at this producer; None: not any more."""
        untils = []
        for record in self.pool.records:
            track = self.view.records[record.label]
            if record.points_to(track.rrset) == producer:
                untils.append(self.now.after(record.ttl + signposts.NODE_MOST))
            target = record.targets[producer]
            untils.extend(
                belief.at_worst_until(self.now)
                for belief in signposts.believed(track, self.now)
                if belief.rrset is not None and target in belief.rrset.values
            )
        return max(untils, key=lambda until: until.utc, default=None)

    # ------------------------------------------------------------ gates of every kind

    @property
    def strict(self) -> bool:
        """Whether a kind of gate that truly fences has to confirm."""
        return self.pool.fence.require == "confirmed"

    def tainted(self, gate: Gate) -> bool:
        """Whether an opening of ours may yet take effect there."""
        return gate in self._tainted

    def taints(self) -> frozenset[Gate]:
        """All gates at which an opening of ours may yet take effect."""
        return self._tainted

    def ways(self, producer: str) -> tuple[Gate, ...]:
        """Every gate of the producer that is open while it is active and closed while it is not: power is none."""
        proxies = (Gate(name, producer) for name in self.view.proxies)
        return (*proxies, *self.switches(producer))

    def switches(self, producer: str) -> tuple[Gate, ...]:
        """The gates on the producer's own host that go with the role: forging and firewall."""
        return tuple(gate for gate in self.pool.gates_of(producer) if gate.kind is not GateKind.POWER)

    def gate_answers(self, gate: Gate) -> bool:
        """Whether the last reading of the gate succeeded."""
        track: ProxyTrack | GateTrack | None = self.view.proxies.get(gate.place) or self.view.gates.get(gate)
        return track is not None and track.answers

    def gate_contested(self, gate: Gate) -> bool:
        """Whether another hand keeps reversing this gate: then we stop fighting over it."""
        if gate.place in self.view.proxies:
            return self.contested(gate.place)
        until = self.view.gates[gate].contested_until
        if until is None or until.reached(self.now):
            return False
        self.wake_in(until.mono - self.now.mono)
        return True

    def silence(self, gate: Gate) -> str:
        """What is said of a gate that does not answer."""
        if gate.place not in self.view.proxies:
            error = self.view.gates[gate].error
            return f"{gate}: {error.removeprefix(f'{gate}: ')}" if error else f"{gate} does not answer"
        track = self.view.proxies[gate.place]
        return f"{gate.place}: {track.error}" if self.misdirected(track) else f"{gate.place} does not answer"

    def silent_left(self, gate: Gate) -> float:
        """Seconds until a silent gate has been silent for fail_over_after."""
        track = self.view.proxies.get(gate.place) or self.view.gates[gate]
        patience = self.pool.policy.fail_over_after
        return patience if track.silent_since is None else max(0.0, patience - self.now.since(track.silent_since))

    def powered(self, producer: str) -> bool:
        """Whether the producer's machine can be switched off now: its power command answers."""
        return self.gate_answers(Gate(GateKind.POWER.value, producer))

    def not_switched_off(self, producer: str) -> tuple[Gate, ...]:
        """The gates on the producer's own host that go with the role, answer, and do not read closed."""
        gates = ((gate, self.view.gates[gate]) for gate in self.switches(producer))
        return tuple(gate for gate, track in gates if track.answers and track.is_open is not False)

    def switched_on(self, producer: str) -> bool:
        """Whether every gate on its own host that goes with the role reads open; a silent one: when it last did."""
        tracks = (self.view.gates[gate] for gate in self.switches(producer))
        return all(track.is_open is True and (track.answers or not track.sent) for track in tracks)

    def walled(self, producer: str) -> bool:
        """Whether its own firewall is not open: then checks of it fail, and say nothing."""
        gates = (gate for gate in self.switches(producer) if gate.kind is GateKind.FIREWALL)
        return any(self.view.gates[gate].is_open is not True for gate in gates)

    @staticmethod
    def misdirected(track: ProxyTrack) -> bool:
        """Whether a proxy counts as silent because its server of one producer leads to another."""
        return track.error is not None and track.error.startswith("its server")

    def deaf(self) -> bool:
        """Whether references are configured and none of them answered its last ping."""
        return bool(self.view.references) and all(r.misses > 0 for r in self.view.references.values())

    def unread(self) -> tuple[str, ...]:
        """Parts that were neither read nor failed to be read yet."""
        producers = [n for n in self.view.tracks if n not in self.view.pinged]
        proxies = [n for n, t in self.view.proxies.items() if not t.tried]
        references = [n for n, r in self.view.references.items() if r.last is None]
        records = [n for n, t in self.view.records.items() if not t.tried] if self.pool.gateless else []
        gates = [str(gate) for gate, track in self.view.gates.items() if not track.tried]
        return (*producers, *proxies, *references, *records, *gates)
