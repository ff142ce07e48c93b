"""What is the case: pool, board, assignment and now, turned into the answers that rules ask for.

Pure. Every question that two rules share is asked here once: who is up, who says so, which gates are shut,
what still lacks before a fence is complete. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from . import health, signposts
from .board import ProxyTrack, View
from .journal import iso
from .model import Admin, Assignment, Cause, Check, Drift, Gate, Health, Instant, Phase, Pool, Record, ServerView

RELOAD_DOUBT = 86400.0  # seconds for which a reload without a known hard_stop_after is worth showing
LEAST_WAKE = 0.01  # seconds; a rest that rounding leaves must not wake us again and again
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
        """Seconds of unbroken fitness in which no proxy's check of it failed."""
        failed = [track.failed_at[producer] for track in self.view.proxies.values() if producer in track.failed_at]
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

    def serving_gates(self, producer: str) -> tuple[str, ...]:
        """Answering proxies through which new connections reach the producer."""
        return tuple(
            name for name in self.answering() if (server := self.server(name, producer)) is not None and server.serves
        )

    def unservable(self, producer: str, *, voluntary: bool) -> str | None:
        """Why no gate could serve ``producer``, or None when one could (a voluntary move: no gate may doubt it)."""
        if self.pool.gateless:
            return self._unpointable(producer, voluntary)
        answering = self.answering()
        if not answering:
            return "no proxy answers"
        failing = [name for name in answering if self.check(name, producer) is Check.FAILED]
        if voluntary and failing:
            return f"the check of {producer} fails in {', '.join(failing)}"
        if len(failing) == len(answering):
            return f"no proxy that answers can see {producer}"
        return None

    # ------------------------------------------------------------ records

    def movable(self) -> tuple[Record, ...]:
        """Records that could be changed now: the provider answers, and the name is ours to change."""
        return tuple(r for r in self.pool.records if self._immovable(r) is None)

    def _immovable(self, record: Record) -> str | None:
        track = self.view.records[record.label]
        if not track.answers_now:
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
            sets = [track.rrset, *(answer.rrset for answer in track.answers)] if track.current else []
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
            if self.view.records[r.label].answers_now
        }
        return found.pop() if len(found) == 1 else None

    def serving(self, producer: str) -> tuple[str, ...]:
        """Gates through which connections reach the producer; without any gate, the records that hold its address."""
        if not self.pool.gateless:
            return self.serving_gates(producer)
        tracks = self.view.records
        return tuple(r.label for r in self.pool.records if tracks[r.label].rrset == r.wanted(producer))

    def not_yet_serving(self, producer: str) -> tuple[str, ...]:
        """Gates (without any, records) that could serve the producer and do not yet."""
        if self.pool.gateless:
            return tuple(record.label for record in self.misplaced(producer))
        serving = self.serving_gates(producer)
        return tuple(name for name in self.answering() if name not in serving and not self.contested(name))

    def let_in(self, producer: str) -> bool:
        """Whether relays that connect now may reach the producer: an open gate, or where there is none, the records."""
        return self.signposted() == producer if self.pool.gateless else bool(self.open_gates(producer))

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

    # ------------------------------------------------------------ fencing

    def not_shut(self, proxy: str, producer: str, care: Care) -> str | None:
        """What lacks until the gate is confirmed closed (or rightly passed over); None when nothing does."""
        track = self.view.proxies[proxy]
        gate = Gate(proxy, producer)
        if not track.answers:
            return self._silent_gate(track, gate, care)
        server = self.server(proxy, producer)
        if server is None:
            return f"{gate} was not read"
        if server.admin is not Admin.MAINT:
            return f"{gate} is open ({server.admin.value})"
        if server.sessions:
            return f"{gate} still carries {server.sessions} session{'s' if server.sessions > 1 else ''}"
        if gate in self._tainted:
            return f"{gate} may yet be opened by a late command"
        if not self._read_since_phase(track):
            return f"{proxy} was not read since the phase began"
        if care is Care.RETURN and not self._strict and producer in track.clean:
            return None
        return self._hidden(track, proxy)

    def _read_since_phase(self, track: ProxyTrack) -> bool:
        a = self.a
        if a is None or a.phase is not Phase.FENCING or track.read_at is None:
            return True
        return a.since.boot != self.now.boot or track.read_at.mono > a.since.mono

    def _hidden_for(self, track: ProxyTrack, proxy: str) -> float:
        """Seconds for which sessions may yet be hidden by a reload; without a known bound, for ever or not at all."""
        if track.reloaded_at is None:
            return 0.0
        bound = next(p.hard_stop_after for p in self.pool.proxies if p.name == proxy)
        if bound is None:
            return float("inf") if self._strict else 0.0
        return max(0.0, bound - self.now.since(track.reloaded_at))

    def _hidden(self, track: ProxyTrack, proxy: str) -> str | None:
        """A reload hides the old worker's sessions for hard_stop_after; unknown blocks ``confirmed`` only."""
        left = self._hidden_for(track, proxy)
        if left <= 0:
            return None
        if left == float("inf"):
            return f"{proxy} was reloaded and its hard_stop_after is unknown"
        self.wake_in(left)
        return f"{proxy} was reloaded, and may hide sessions for another {left:.0f} s"

    def unbounded_reloads(self) -> tuple[str, ...]:
        """Proxies that were reloaded within the hour, and of which nobody knows how long they hide sessions."""
        bounds = {p.name: p.hard_stop_after for p in self.pool.proxies}
        return tuple(
            name
            for name, track in self.view.proxies.items()
            if bounds[name] is None
            and track.reloaded_at is not None
            and self.now.since(track.reloaded_at) < RELOAD_DOUBT
        )

    @property
    def _strict(self) -> bool:
        return self.pool.fence.require == "confirmed"

    @staticmethod
    def _misdirected(track: ProxyTrack) -> bool:
        return track.error is not None and track.error.startswith("its server")

    def _silent_gate(self, track: ProxyTrack, gate: Gate, care: Care) -> str | None:
        if self._last_seen_shut(track, gate, care) or self._accepted(gate, care):
            return None
        silence = f"{gate.proxy}: {track.error}" if self._misdirected(track) else f"{gate.proxy} does not answer"
        if care is Care.VOLUNTARY or (self._strict and care is not Care.BY_FORCE):
            return silence
        if care is not Care.BY_FORCE and not self.down(gate.producer):
            return f"{silence}, and {gate.producer} is not down by majority"
        left = self.silent_left(gate.proxy)
        if left > 0:
            self.wake_in(left)
            return f"{silence}; it may be passed over in {left:.0f} s"
        return None

    def _accepted(self, gate: Gate, care: Care) -> bool:
        """Steady, and this handover passed the gate over: what was accepted then does not hinder re-opening."""
        a = self.a
        if a is None or care is not Care.RETURN or a.phase is not Phase.STEADY:
            return False
        return any(passed.gate == gate for passed in a.passed_over)

    def _last_seen_shut(self, track: ProxyTrack, gate: Gate, care: Care) -> bool:
        """A silent gate that last read closed, empty and untainted, with nobody opened since.

        It counts as closed on every return; in a forced handover only for a producer that did not have the role.
        """
        a = self.a
        if self._strict or a is None or care is Care.VOLUNTARY:
            return False
        if care is not Care.RETURN and gate.producer == a.active:
            return False
        if track.reading is None or gate in self._tainted or gate.producer in track.opened:
            return False
        server = track.reading.servers.get(gate.producer)
        return server is not None and server.admin is Admin.MAINT and server.sessions == 0

    def silent_left(self, proxy: str) -> float:
        """Seconds until a silent proxy has been silent for fail_over_after."""
        since = self.view.proxies[proxy].silent_since
        patience = self.pool.policy.fail_over_after
        return patience if since is None else max(0.0, patience - self.now.since(since))

    def unfenced(self, target: str, care: Care) -> tuple[str, ...]:
        """What lacks until everyone but ``target`` is fenced as required; empty when nothing does."""
        lacks = []
        for producer in self.pool.others(target):
            for proxy in self.view.proxies:
                lack = self.not_shut(proxy, producer, care)
                if lack is not None:
                    lacks.append(lack)
        return tuple(lacks)

    def passed_over(self, target: str, care: Care) -> tuple[Gate, ...]:
        """Silent gates of others that a fence which is complete did not wait for."""
        return tuple(
            Gate(proxy, producer)
            for producer in self.pool.others(target)
            for proxy in self.silent()
            if not self._last_seen_shut(self.view.proxies[proxy], Gate(proxy, producer), care)
        )

    def unfenceable(self, target: str, care: Care, *, within: float = 0.0) -> str | None:
        """Why a fence around ``target`` could not complete now, or None: a handover starts only if it could.

        ``within`` (seconds) is how long sessions that a reload hides may hold up a voluntary one.
        """
        late = [gate for gate in self._tainted if gate.producer != target]
        if late and care is Care.VOLUNTARY:
            return f"{min(map(str, late))} may yet be opened by a late command"
        if care is Care.VOLUNTARY:
            for proxy in self.answering():
                if self._hidden_for(self.view.proxies[proxy], proxy) > within:
                    return self._hidden(self.view.proxies[proxy], proxy)
        for producer in self.pool.others(target):
            for proxy in self.silent():
                lack = self._silent_gate(self.view.proxies[proxy], Gate(proxy, producer), care)
                if lack is not None:
                    return lack
        return None if self.answering() or self.pool.gateless else "no proxy answers"

    def deaf(self) -> bool:
        """Whether references are configured and none of them answered its last ping."""
        return bool(self.view.references) and all(r.misses > 0 for r in self.view.references.values())

    # ------------------------------------------------------------ drift

    @property
    def _patience(self) -> float:
        return self.pool.policy.fail_over_after

    def _tell_of_standbys(self, active: str) -> None:
        """Somebody who could not take over is worth knowing of before that is needed."""
        for name in self.pool.others(active):
            if self._health[name] is not Health.DOWN or name not in (self.a.seen if self.a is not None else ()):
                continue
            down = health.down_for(self.view.tracks[name], self.now)
            idle = down if self.a is None else min(down, self.now.since(self.a.since))  # why the role left it was told
            self.wake_in(self._patience - idle)
            if idle >= self._patience:
                self.alert(f"standby-down:{name}", f"{name} has been down for {down:.0f} s: it could not take over")

    def _tell_of_idle(self, proxy: str, active: str, since: Instant | None) -> None:
        """A proxy that serves nobody, although the active is there, is told once it has lasted."""
        if since is None or not self.somebody_sees_up(active):
            return
        left = self._patience - self.now.since(since)
        self.wake_in(left)
        if left <= 0:
            words = f"{proxy} has not served {active} for {self._patience:g} s: {self._why_not(proxy, active)}"
            self.alert(f"not-serving:{proxy}", words)

    def unread(self) -> tuple[str, ...]:
        """Parts that were neither read nor failed to be read yet."""
        producers = [n for n in self.view.tracks if n not in self.view.pinged]
        proxies = [n for n, t in self.view.proxies.items() if not t.tried]
        references = [n for n, r in self.view.references.items() if r.last is None]
        records = [n for n, t in self.view.records.items() if not t.tried] if self.pool.gateless else []
        return (*producers, *proxies, *references, *records)

    def drift(self, known: Mapping[tuple[str, str], Instant]) -> tuple[Drift, ...]:
        """What differs from the assignment, split brain apart (splits.py); ``known`` dates what was seen before."""
        found: list[tuple[str, str, str]] = []
        for name, track in self.view.proxies.items():
            found.extend((kind, name, what) for kind, what in self._proxy_drift(name, track))
        a = self.a
        if a is not None:
            late = "may yet be opened by a late command"
            found.extend(("tainted", str(taint.gate), late) for taint in a.tainted)
            passed = "was passed over while silent: it may still carry traffic"
            found.extend(("passed-over", str(over.gate), passed) for over in a.passed_over)
            for exposed in a.exposed:
                what = self._exposure(exposed.producer)
                found.append(("exposed", exposed.producer, what))
                if self.up(exposed.producer):
                    self.alert(f"exposed:{exposed.producer}", what)
            if a.phase is Phase.STEADY and a.active is not None:
                idle = [name for name in self.answering() if name not in self.serving_gates(a.active)]
                for name in idle:
                    self._tell_of_idle(name, a.active, known.get(("not-serving", str(Gate(name, a.active)))))
                self._tell_of_standbys(a.active)
                found.extend(("not-serving", str(Gate(name, a.active)), self._why_not(name, a.active)) for name in idle)
        for record in self.pool.records:
            found.extend((kind, record.label, what) for kind, what in self._record_drift(record))
        return tuple(Drift(kind, where, what, known.get((kind, where), self.now)) for kind, where, what in found)

    def _proxy_drift(self, name: str, track: ProxyTrack) -> list[tuple[str, str]]:
        found = []
        if track.tried and not track.answers:
            words = (track.error or "does not answer").removeprefix(f"{name}: ").removeprefix(f"{name} ")
            found.append(("proxy-silent", words))
            left = self.silent_left(name)
            self.wake_in(left)
            if self._misdirected(track):
                self.alert(f"misdirected:{name}", f"{name}: {words}; it is not steered until then")
            elif left <= 0:
                self.alert(f"proxy-silent:{name}", f"{name} has been silent for {self._patience:g} s: {words}")
        if self.contested(name):
            words = "someone else keeps changing it: nothing is opened there"
            found.append(("another-hand", words))
            self.alert(f"another-hand:{name}", f"{name}: {words}")
        bound = next(p.hard_stop_after for p in self.pool.proxies if p.name == name)
        if bound is None and track.reloaded_at is not None:
            left = RELOAD_DOUBT - self.now.since(track.reloaded_at)
            if left > 0:
                self.wake_in(left)
                found.append(("reloaded", "was reloaded and may hide sessions: its hard_stop_after is unknown"))
        return found

    def _exposure(self, producer: str) -> str:
        until = self.believed(producer)
        looked_up = until is not None and self.a is not None and not until.reached(self.now)
        when = f"until {iso(until.utc)}" if until is not None and looked_up else "for longer than a ping interval"
        last = self.view.tracks[producer].last
        if last is not None and last.refused:
            return (
                f"{producer}'s node is gone, and with it every session; but relays may still look its old address up: "
                f"keep it stopped {when}, or they connect to it when it is back"
            )
        rest = "stop its node for longer than a ping interval (that is seen here), and restart relays that stick to it"
        if looked_up:
            rest = f"nobody looks it up any more after {when.removeprefix('until ')}: then {rest}"
        return (
            f"{producer} is {self.health(producer).value}, and relays that connected to it may stay with it, "
            f"for nothing shuts it out: {rest}"
        )

    def _record_drift(self, record: Record) -> list[tuple[str, str]]:
        a, track = self.a, self.view.records[record.label]
        settled = a is not None and a.phase is Phase.STEADY
        signs = signposts.drift(record, track, a.active if a is not None and settled else None, self.now)
        for sign in signs:
            if sign.alert:
                self.alert(f"{sign.kind}:{record.label}", f"{record.label}: {sign.what}")
        return [(sign.kind, sign.what) for sign in signs]

    def _why_not(self, proxy: str, producer: str) -> str:
        server = self.server(proxy, producer)
        return "was not read" if server is None else f"does not serve the active: {server.admin.value}, {server.status}"
