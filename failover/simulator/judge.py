"""The judge: the invariants of the design, by name, from the truth of the world and not from what is claimed.

It looks after every change of the world, before every step that leaves, after every commit and every tick. What two
producers reachable at once is put down to (``overlap``) has to be named; what cannot be named is a violation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from failover.handover import TRANSITIONS
from failover.model import (
    HOST_KINDS,
    Admin,
    Assignment,
    Cause,
    Check,
    Commit,
    Event,
    EventKind,
    GateKind,
    Instant,
    Kick,
    Phase,
    Ping,
    StepKind,
)
from failover.simulator.conduct import Conduct
from failover.simulator.hosts import HAND, US
from failover.simulator.nodes import SLOTS0
from failover.simulator.spans import Spans
from failover.tick import Outcome

if TYPE_CHECKING:
    from failover.simulator.hosts import ProducerHost
    from failover.simulator.machine import Daemon
    from failover.simulator.world import World

MOST = 20  # violations kept of one run
TAMPERED = 150.0  # seconds for which a state folder that was put back excuses: a lease, and a handover
SEEN_WITHIN = 5.0  # seconds after which the controller has seen what another hand did: two readings and a latency
TOLD_WITHIN = 45.0  # seconds within which two that are reachable are told: what was missed to be seen up, and a reading
HOST_SEEN_WITHIN = 12.0  # seconds likewise for gates on producers' hosts, which are read more seldom
REPAIR = 25.0  # seconds in which a split is ended that can be: two action timeouts and two readings
SLACK = 0.5  # seconds that rounding and waking may cost a timer
SYNC_SLACK = 25  # slots by which our own reckoning of lag may differ: a block, and the time of a ping
PINGS = 4000  # remembered of each producer
KICKS_APART = 19.5  # seconds between the relays that are made to let go, and what waking may cost
OURS = 200.0  # seconds for which a relay without a session may be so because of us: its longest back-off


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold: its name (DESIGN), when (seconds), and what was so."""

    name: str
    at: float
    words: str

    def __str__(self) -> str:
        return f"{self.name}: {self.words}"


@dataclass(frozen=True, slots=True)
class Point:
    """What was so from ``at`` on: who is up, who could be admitted, who is, and who has the role by the store."""

    at: float
    up: tuple[str, ...]
    servable: tuple[str, ...]
    admitted: tuple[str, ...]
    active: str | None


@dataclass(slots=True)
class _Ping:
    at: Instant
    bad: bool  # failed, or perhaps lagging
    ok: bool
    lags: bool  # certainly lagging


class Judge:
    """One run's judge. ``overlap`` and ``lost`` are in seconds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[Violation] = []
        self.overlap: dict[str, float] = {}
        self.lost = 0.0
        self.outage = 0.0
        self.points: list[Point] = []
        self.ticks = 0
        self.handovers = 0
        self.edges: dict[str, int] = {}  # moves of the phase table (handover.TRANSITIONS), and how often
        self._tampered_until = -1.0
        self.tampered = False  # the state folder was put back or deleted: what it said is lost
        self.healed_at: float | None = None
        self.handovers_since_healed = 0
        self._most_handovers = 2
        self._at = 0.0
        self._reached: dict[str, bool] = {}
        self._why: str | None = None
        self._none = False
        self._out = False
        self._spans = Spans(world, self.broken)
        self._pings: dict[str, deque[_Ping]] = {n: deque(maxlen=PINGS) for n in world.pool.names}
        self._visible_at: dict[str, float] = {}  # when a proxy's check of a producer last did not fail
        self._told: list[tuple[str, Event]] = []
        self.conduct = Conduct(world, self.broken)
        self._accepted: frozenset[str] = frozenset()  # gates passed over, while two are reachable because of that
        self._by_force: frozenset[str] = frozenset()  # those of them that a person passed over
        self._kicked: dict[str, float] = {}  # relays that were made to let go, and when last
        self._own = frozenset(g.producer for g in world.pool.host_gates if g.kind is not GateKind.POWER)

    def tamper(self) -> None:
        """The state folder is put back or deleted: until everything was read and put right, anything may be."""
        self.tampered, self._tampered_until = True, self.world.nature.now() + TAMPERED

    def broken(self, name: str, words: str) -> None:
        """An invariant did not hold."""
        if len(self.violations) < MOST:
            at = self.world.nature.now()
            self.violations.append(Violation(name, at, words))
            self.world.nature.loop.trace(f"violation {name}: {words}")

    # ------------------------------------------------------------ the truth, as time passes

    def look(self) -> None:
        """Something has changed: account for the time until now, and look what is so from now on."""
        world, now = self.world, self.world.nature.now()
        self._pass(now)
        self._reached = world.reached()
        stored = world.disk.assignment
        if stored is not None and stored.passed_over:  # forgotten when the proxy answers, before anything is closed
            over = {str(p.gate) for p in stored.passed_over}
            self._accepted |= over
            self._by_force |= over if stored.forced_by_hand else set()
        self._why = self._excuse() if len(self._reached) > 1 else None
        self._accepted = frozenset(gate for gate in self._accepted if self._still_open(gate))
        self._by_force &= self._accepted
        if self._why == "unexplained":
            self.broken("one-active", self._two())
        names = world.pool.names
        servable = tuple(n for n in names if world.servable(n))
        admitted = tuple(n for n in servable if world.admitted(n))
        useful = [name for name in self._reached if world.nodes[name].on_the_chain]
        self._none, self._out = not useful, bool(servable) and not admitted
        a = world.disk.assignment
        up = tuple(n for n in names if world.nodes[n].forges)
        point = Point(now, up, servable, admitted, None if a is None else a.active)
        if not self.points or replace(self.points[-1], at=now) != point:
            self.points.append(point)
        self.conduct.look()
        for name in names:
            if not world.proxies or any(x.check(name) is not Check.FAILED for x in world.proxies.values()):
                self._visible_at[name] = now
        self._harm_now(admitted)
        self._split_now()
        for held in world.names.values():
            if not held.holds_one() and held.put_by != "somebody":
                self.broken("dns-never-empty", f"{held.record.label} does not hold one value with a TTL of 60 or more")

    def _pass(self, now: float) -> None:
        seconds = now - self._at
        self._at = now
        if seconds <= 0:
            return
        if self._why is not None:
            self.overlap[self._why] = self.overlap.get(self._why, 0.0) + seconds
        if self._none:
            self.lost += seconds
        if self._out:
            self.outage += seconds

    def _two(self) -> str:
        gates = [
            f"{p.name}: {', '.join(f'{n} {a.value}' for n, a in p.admin.items())}" for p in self.world.proxies.values()
        ]
        gates.extend(f"{host.name}: {self._states(host)}" for host in self.world.hosts.values() if host.kinds)
        return f"{' and '.join(self._reached)} are both reachable ({'; '.join(gates)})"

    @staticmethod
    def _states(host: ProducerHost) -> str:
        keys = f"files {host.files.value}, {'no keys' if host.node.keyless else 'keys'} in memory"
        return f"{keys}{', walled' if host.node.walled else ''}"

    def _excuse(self) -> str:
        """What two producers reachable at once are put down to."""
        world = self.world
        if world.pool.gateless:
            return "gateless"
        if sum(not leak for leak in self._reached.values()) < 2:
            return "leak"
        strict = world.pool.fence.require == "confirmed"
        rightful = self._rightful()
        found = {self._excuse_of(p): None for p in self._reached if p in self._own and p != rightful}
        for proxy in world.proxies.values():
            for session in proxy.sessions:
                if session.producer == rightful or session.producer in self._own or not proxy.carries(session):
                    continue
                gate = f"{session.producer}@{proxy.name}"
                if session.hidden:
                    why = "unexplained" if strict else "reload"
                elif proxy.moved_by[session.producer] != "us":
                    why = "hand"
                elif proxy.swapped:
                    why = "swap"
                elif gate in self._accepted:
                    why = "unexplained" if strict else "passed-over"
                else:
                    why = "tampered" if world.nature.now() < self._tampered_until else "unexplained"
                found[why] = None
        for why in ("unexplained", "tampered", "hand", "lied", "swap", "passed-over", "reload"):
            if why in found:
                return why
        return "unexplained"

    def _excuse_of(self, producer: str) -> str:
        """Why a producer with gates of its own gets blocks out: any one of them would have held it back."""
        world, host = self.world, self.world.hosts[producer]
        strict = world.pool.fence.require == "confirmed"
        gates = [f"{producer}@{kind.value}" for kind in host.kinds]
        if any(who == HAND for who in host.moved_by.values()):
            return "hand"
        if GateKind.POWER in host.kinds and host.power.lies == "status":
            return "lied"
        if any(gate in self._by_force or (gate in self._accepted and not strict) for gate in gates):
            return "passed-over"
        return "tampered" if world.nature.now() < self._tampered_until else "unexplained"

    def _still_open(self, gate: str) -> bool:
        """Whether a gate that was passed over has not been shut since."""
        producer, _, place = gate.partition("@")
        if place in HOST_KINDS:
            node = self.world.nodes[producer]
            return not (node.keyless if place == GateKind.FORGING.value else node.walled)
        x = self.world.proxies[place]
        return x.admin[producer] is not Admin.MAINT or any(s.producer == producer for s in x.sessions)

    def _rightful(self) -> str | None:
        """Who may be reachable now: in fencing the old one, while it still is."""
        a = self.world.disk.assignment
        if a is None:
            return next(iter(self._reached), None)
        if a.phase is not Phase.FENCING:
            return a.active
        return a.active if a.active in self._reached else a.target

    def _steered(self) -> Daemon | None:
        """The daemon that decides and is free to act, as far as the world lets it."""
        world = self.world
        daemon = world.machine.decider
        a = world.disk.assignment
        if daemon is None or a is None or a.released or a.paused is not None or world.pool.mode != "act":
            return None
        if world.disk.full or world.disk.broken or world.machine.latency > 0.1 or world.machine.host.asleep:
            return None
        parts = (*world.proxies, *world.pool.names)
        if not all(world.network.fine("controller", part) for part in parts):
            return None
        if daemon.outcome is None or daemon.outcome.decision.rule == 1:
            return None
        return daemon

    def _harm_now(self, admitted: tuple[str, ...]) -> None:
        """no-harm: how long nobody is admitted because of a handover, while all is well with its target."""
        world, a = self.world, self.world.disk.assignment
        running = a is not None and a.phase is not Phase.STEADY and a.target is not None and not world.pool.gateless
        well = running and not admitted and self._steered() is not None and world.servable(str(a and a.target))
        well = well and all(x.running and not x.hung and not x.swapped for x in world.proxies.values())
        well = well and not any(world.machine.decider_sees_contested()) and self._agents_fine()
        hidden = max((x.config.hard_stop_after or 0.0 for x in world.proxies.values()), default=0.0)
        budget = 4 * world.pool.lease.action_timeout + 30.0 + hidden  # two of these may go by in taint
        self._spans.see("no-harm", well, budget, f"nobody is admitted for more than {budget:g} s")

    def _split_now(self) -> None:
        """A split that the controller can end is ended soon."""
        world, a = self.world, self.world.disk.assignment
        able = self._why in ("hand", "passed-over", "unexplained") and self._steered() is not None
        able = able and a is not None and a.phase is Phase.STEADY and a.active is not None
        able = able and world.nodes[str(a and a.active)].forges and world.nodes[str(a and a.active)].delay < 1.0
        able = able and all(x.running and not x.hung and not x.swapped for x in world.proxies.values())
        able = able and not any(world.machine.decider_sees_contested()) and self._agents_fine()
        self._spans.see("repair", able, REPAIR, f"{self._two()} for more than {REPAIR:g} s")
        daemon = world.machine.decider
        shown = daemon is not None and daemon.outcome is not None and daemon.outcome.split_brain and daemon.told_split
        blind = self._why in ("hand", "passed-over", "unexplained") and self._watched() and not shown
        words = f"{self._two()} for more than {TOLD_WITHIN:g} s, and nobody was told"
        self._spans.see("split-told", blind, TOLD_WITHIN, words)

    def _agents_fine(self) -> bool:
        """Whether every agent with a gate does what it is told, at once."""
        hosts = [host for host in self.world.hosts.values() if host.kinds]
        lame = (h.hung or h.delay or h.mute or h.power.hung or h.power.lies for h in hosts)
        return not any(lame) and all(h.listens and h.runs for h in hosts)

    def _watched(self) -> bool:
        """Whether somebody decides who can see every gate, and write down what it sees."""
        world, daemon = self.world, self.world.machine.decider
        disk, a = world.disk, world.disk.assignment
        if daemon is None or daemon.outcome is None or disk.full or disk.broken or world.machine.latency > 0.1:
            return False
        if world.machine.host.asleep or a is None or daemon.outcome.decision.verdict.key == "unread":
            return False
        if not all(x.running and not x.hung and not x.swapped for x in world.proxies.values()):
            return False
        if not self._agents_fine() or not all(world.network.fine("controller", host) for host in world.hosts):
            return False
        active = world.nodes.get(str(a.active))
        if active is None or not active.forges or not world.network.fine("controller", active.name):
            return False
        return all(world.network.fine("controller", x) for x in world.proxies)

    # ------------------------------------------------------------ what the controller sees

    def pinged(self, producer: str, ping: Ping) -> None:
        """A ping ended."""
        world = self.world
        lag = 0 if ping.tip is None else SLOTS0 + world.nature.now() - ping.tip.slot
        most = world.pool.health.max_lag
        bad = not ping.ok or lag > most - SYNC_SLACK
        self.conduct.pinged(producer, ping)
        self._pings[producer].append(_Ping(ping.at, bad, ping.ok, lag > most + SYNC_SLACK))

    def heard_reference(self, daemon: Daemon, reference: str, ok: bool) -> None:
        """A ping of a reference ended."""
        self.conduct.heard_reference(daemon, reference, ok)

    def ticked(self, daemon: Daemon, outcome: Outcome) -> None:
        """explained: every decision carries the rule's number and words, and what those before it lacked."""
        self.ticks += 1
        decision = outcome.decision
        self._count_edge(daemon, outcome)
        numbers = tuple(number for number, _ in decision.lacked)
        if not decision.verdict.reason or not decision.title or numbers != tuple(range(1, decision.rule)):
            self.broken("explained", f"rule {decision.rule} decided without saying why")
        elif not all(words for _, words in decision.lacked):
            self.broken("explained", f"rule {decision.rule}: a rule before it did not say what it lacked")

    def _count_edge(self, daemon: Daemon, outcome: Outcome) -> None:
        a = outcome.assignment
        before, daemon.phase = daemon.phase, None if a is None else a.phase
        if not outcome.changed or a is None or before is None:
            return
        if outcome.decision.rule == 3 and outcome.decision.verdict.key in RUNNING:
            edge = outcome.decision.verdict.key
        elif a.phase is not Phase.FENCING or outcome.decision.rule == 3 or outcome.decision.verdict.assignment is None:
            return
        else:
            edge = "decided" if before is Phase.STEADY else f"by-hand from {before.value}"
        self.edges[edge] = self.edges.get(edge, 0) + 1

    def told(self, daemon: Daemon, event: Event) -> None:
        """Something was said; an alert must be in the journal in the end."""
        if event.kind is EventKind.ALERT and daemon.holds_lease:  # who only looks on has no right to write
            self._told.append((daemon.name, event))

    # ------------------------------------------------------------ what the controller decides

    def assigned(self, before: Assignment | None, after: Assignment, commit: Commit) -> None:
        """A new assignment is durable."""
        if before is not None:
            self.conduct.assigned(before, after)
        if before is None or after.generation == before.generation:
            return
        if before.generation > after.generation and not self.tampered:
            self.broken("freshness", f"the generation fell from {before.generation} to {after.generation}")
        put_back = after.generation < before.generation  # the first commit on what was put back begins nothing
        if after.phase is Phase.STEADY and (put_back or not self.world.pool.gateless):
            return
        self.handovers += 1
        if self.healed_at is not None:
            self.handovers_since_healed += 1
        if not any(e.kind is EventKind.PHASE_CHANGED for e in commit.events):
            self.broken("journal-first", f"generation {after.generation} was stored without a word in the journal")
        if before.phase is Phase.STEADY:
            self._patience(before, after)

    def _patience(self, before: Assignment, after: Assignment) -> None:
        """patience: what the pings that were seen say of a handover that was begun."""
        policy, active, target = self.world.pool.policy, before.active, after.target
        if active is None or target is None:
            return
        now = self.world.machine.host.now()
        if after.cause is Cause.FORCED:
            seconds = self._in_trouble(active, now, policy.fail_over_after)
            if seconds < policy.fail_over_after - SLACK:
                self.broken("patience", f"{active} was left after {seconds:.1f} s of trouble")
            if self._answered(active, now):
                self.broken("patience", f"{active} was left although its last ping was answered")
        elif after.cause is Cause.UNFIT:
            unseen = self.world.nature.now() - self._visible_at.get(active, 0.0)
            unseen = max(unseen, self.conduct.spent_for(active))
            seconds = max(unseen, self._in_trouble(active, now, policy.fail_over_after))
            if seconds < policy.fail_over_after - SLACK:
                self.broken("patience", f"{active} was left as unfit after {seconds:.1f} s")
        elif after.cause is Cause.AT_ONCE:
            if self._answered(active, now):
                self.broken("patience", f"{active} was left at once although it had answered")
        elif after.cause is Cause.VOLUNTARY and target == self.world.pool.preferred:
            if any(h.producer == active for h in (*before.cordoned, *after.cordoned)):
                return
            failovers = sum(1 for f in before.failovers if now.since(f) <= 86_400.0)
            wait = policy.fail_back_after * min(8, 1 << max(0, failovers - 1))
            seconds = min(self._fit_for(target, now), self.conduct.sound_for(target))
            if seconds < wait - SLACK:
                self.broken("patience", f"back to {target} after {seconds:.1f} s of fitness, {wait:g} are asked for")

    def _answered(self, producer: str, now: Instant) -> bool:
        """Whether its last ping was answered; what was seen while the decision was written does not count."""
        writing = 2 * self.world.machine.latency + 0.05
        for ping in reversed(self._pings[producer]):
            if not ping.ok:
                return False
            if now.since(ping.at) > writing:
                return True
        return False

    def _in_trouble(self, producer: str, now: Instant, patience: float) -> float:
        """Seconds of trouble that patience may count: the present run, or the sum within twice the time."""
        gap, total, run, bad_since = self.world.pool.health.max_gap, 0.0, 0.0, None
        begin = now.mono - 2 * patience
        last: _Ping | None = None
        for ping in self._pings[producer]:
            if ping.at.boot != now.boot or (last is not None and ping.at.mono - last.at.mono > gap + SLACK):
                total, bad_since = 0.0, None
            if ping.at.boot != now.boot:
                last = None
                continue
            if ping.bad and bad_since is None:
                bad_since = ping.at.mono
            elif not ping.bad and bad_since is not None:
                total += max(0.0, ping.at.mono - max(bad_since, begin)) if ping.at.mono > begin else 0.0
                bad_since = None
            last = ping
        if bad_since is not None:
            run = now.mono - bad_since
            total += now.mono - max(bad_since, begin)
        return max(total, run)

    def _fit_for(self, producer: str, now: Instant) -> float:
        """Seconds for which it was never down, by its pings, nor lagging, and observed without a gap."""
        health = self.world.pool.health
        since, later, fails, lags = now.mono, now, 0, 0
        for ping in reversed(self._pings[producer]):
            fails = 0 if ping.ok else fails + 1
            lags = lags + 1 if ping.lags else 0  # one reading that lags proves nothing
            if ping.at.boot != now.boot or later.mono - ping.at.mono > health.max_gap + SLACK:
                break
            if fails >= health.fall or lags >= 2:
                break
            since, later = ping.at.mono, ping.at
        return now.mono - since

    def sending(self, daemon: Daemon, proxy: str, kind: StepKind, producer: str) -> None:
        """A step leaves now: may it?"""
        world, a = self.world, self.world.disk.assignment
        gate = f"{kind.value} {producer}@{proxy}"
        if a is None:
            self.broken("journal-first", f"{gate} without an assignment")
            return
        self._not_blind(daemon, a, gate)
        self.conduct.sending(a, proxy, kind, producer)
        rightful = a.target if a.phase is Phase.FENCING else a.active
        if kind is StepKind.OPEN and (a.phase is Phase.FENCING or producer != a.active):
            self.broken("freshness", f"{gate} while the store says {a.phase.value} {a.active} -> {a.target}")
        if kind is StepKind.CLOSE and producer == rightful:
            self.broken("freshness", f"{gate} while the store says {a.phase.value} {a.active} -> {a.target}")
        started = (e.detail for e in world.disk.open_steps.values())
        if not any(d.get("kind") == kind.value and d.get("gate") == f"{producer}@{proxy}" for d in started):
            self.broken("journal-first", f"{gate} was not in the journal when it left")
        if kind is StepKind.OPEN:
            self._fence_first(daemon, a, producer, gate)
        elif proxy == GateKind.POWER.value:
            self.conduct.switching_off(a, producer)

    def kicking(self, daemon: Daemon, kick: Kick) -> None:
        """A relay's sessions are about to be ended: may they?"""
        world, now, a = self.world, self.world.nature.now(), self.world.disk.assignment
        if a is None or a.phase is not Phase.STEADY or kick.producer == a.active or kick.generation != a.generation:
            self.broken("freshness", f"{kick} while the store says {a and a.phase.value} {a and a.active}")
        if a is not None:
            self._not_blind(daemon, a, str(kick))
        if not next(relay.managed for relay in world.pool.relays if relay.name == kick.relay):
            self.broken("no-harm", f"{kick}, which is not managed")
        others = [name for name, at in self._kicked.items() if now - at < KICKS_APART and name != kick.relay]
        if others:
            self.broken(
                "no-harm", f"{kick}, although {others[0]} was made to let go {now - self._kicked[others[0]]:.1f} s ago"
            )
        self._kicked[kick.relay] = now
        left = {
            n: [s for s in r.direct() if n != kick.relay or s.producer != kick.producer]
            for n, r in world.relays.items()
        }
        bare = [n for n in left if not left[n] and now - self._kicked.get(n, -1e9) < OURS]
        if len(world.relays) > 1 and not any(left.values()) and len(bare) > 1:
            self.broken("no-harm", f"{kick}, and {', '.join(n for n in bare if n != kick.relay)} has not come back")

    def _not_blind(self, daemon: Daemon, a: Assignment, gate: str) -> None:
        world = self.world
        if a.released or world.pool.mode != "act":
            self.broken("not-blind", f"{gate} while released or observing")
        if a.paused is not None and a.phase is Phase.STEADY:
            self.broken("not-blind", f"{gate} while paused")
        lease, now = world.disk.lease, world.machine.host.now()
        if lease is None or lease.holder != daemon.name:
            self.broken("not-blind", f"{gate} without the lease")
        elif daemon.controller is not None:
            held = daemon.controller.report().lease
            if held is None or held.expires.reached(now):
                self.broken("not-blind", f"{gate} with a lease that has run out")
        if self.conduct.deaf(daemon, world.pool.health.fall):
            self.broken("not-blind", f"{gate} while no reference answers")

    def _fence_first(self, daemon: Daemon, a: Assignment, producer: str, gate: str) -> None:
        """No gate that could be seen is open, or carries, for anybody else."""
        world, now = self.world, self.world.nature.now()
        passed = {str(p.gate) for p in a.passed_over}
        if a.phase is Phase.STEADY:  # the active is opened again: no handover writes down what that passes over
            passed |= {g for o in world.pool.others(producer) for g in self._gates_of(o) if self._told_over(g)}
        for other in world.pool.others(producer):
            if other in self._own and self._held_back(daemon, other, gate, passed):
                continue
            for proxy in world.proxies.values():
                name = f"{other}@{proxy.name}"
                if not proxy.running or proxy.swapped or now - proxy.moved_at[other] < SEEN_WITHIN:
                    continue
                visible = sum(1 for s in proxy.sessions if s.producer == other and not s.hidden)
                shut = proxy.admin[other] is Admin.MAINT and not visible
                strict = world.pool.fence.require == "confirmed"
                if (
                    not strict
                    and proxy.moved_by[other] != "us"
                    and not self.conduct.could_see(daemon, proxy.name, proxy.moved_at[other])
                ):
                    continue  # it changed while it was silent, and was last seen shut
                if shut:
                    self._hidden_ones(proxy.name, other, gate)
                elif name not in passed:
                    self.broken("fence-first", f"{gate} while {name} is {proxy.admin[other].value}, {visible} sessions")
                elif not self._alerted(name):
                    self.broken("journal-first", f"{gate}, passing over {name} without an alert in the journal")

    def _held_back(self, daemon: Daemon, other: str, gate: str, passed: set[str]) -> bool:
        """Whether its own gates hold it back; said, when they do not and nothing else does."""
        world, host, now = self.world, self.world.hosts[other], self.world.nature.now()
        if host.shut():
            return True
        gates = self._gates_of(other)
        late = min(now - at for at in host.moved_at.values()) < HOST_SEEN_WITHIN
        unseen = any(
            who != US and not self.conduct.could_see(daemon, f"{other}@{kind.value}", host.moved_at[kind])
            for kind, who in host.moved_by.items()
        )
        if late or (unseen and world.pool.fence.require != "confirmed") or host.power.lies == "status":
            return True
        if any(name in passed for name in gates):
            if not all(self._alerted(name) for name in gates if name in passed):
                self.broken(
                    "journal-first", f"{gate}, passing over {other}'s own gates without an alert in the journal"
                )
            return False
        only = world.pool.fence.proxies_are_only_path and bool(world.proxies)
        if not only:
            self.broken("fence-first", f"{gate} while {other} is not held back: {self._states(host)}")
        return False

    def _gates_of(self, producer: str) -> list[str]:
        host = self.world.hosts.get(producer)
        return [] if host is None else [f"{producer}@{kind.value}" for kind in host.kinds if kind is not GateKind.POWER]

    def _told_over(self, gate: str) -> bool:
        """Whether a person was told within the hour that this gate is passed over."""
        now, rows = self.world.machine.host.now(), self.world.disk.journal[-2000:]
        told = (r.event for r in rows if r.event.kind is EventKind.ALERT and "passed over" in r.event.reason)
        return any(gate in event.reason and now.since(event.at) < 3600.0 for event in told)

    def _hidden_ones(self, proxy: str, other: str, gate: str) -> None:
        """Sessions that a reload hides are waited for, as far as it is known how long."""
        world = self.world
        x = world.proxies[proxy]
        hidden = [s for s in x.sessions if s.producer == other and s.hidden]
        if not hidden or not any(x.carries(s) for s in hidden) or not world.network.joined("controller", proxy):
            return
        young = world.nature.now() - x.started < SEEN_WITHIN
        known = x.config.hard_stop_after is not None
        if (known or world.pool.fence.require == "confirmed") and not young:
            self.broken("fence-first", f"{gate} while an old worker of {proxy} still carries {other}")

    def _alerted(self, gate: str) -> bool:
        rows = reversed(self.world.disk.journal[-2000:])
        return any(r.event.kind is EventKind.ALERT and gate in r.event.reason for r in rows)

    # ------------------------------------------------------------ in the end

    def heal(self) -> None:
        """Every fault is over: from now on it has to come right."""
        self.look()
        self.healed_at = self.world.nature.now()
        a = self.world.disk.assignment
        if a is not None and (a.cordoned or a.pinned or a.paused or a.barred or a.phase is not Phase.STEADY):
            self._most_handovers = 4  # what somebody asked for, or what was barred, ends meanwhile

    def close(self, *, settled: bool) -> None:
        """The run is over. ``settled``: it had its time to come right."""
        self.look()
        if settled:
            self._convergence()
        self._alerts()

    def _convergence(self) -> None:
        world, a = self.world, self.world.disk.assignment
        daemon = world.machine.decider
        if daemon is None:
            self.broken("convergence", "nobody holds the lease")
            return
        if a is None:
            return  # nothing to adopt may be what is so: an operator is asked
        if a.released:
            return
        if a.phase is not Phase.STEADY:
            self.broken("convergence", f"still {a.phase.value}: {a.active} -> {a.target}")
            return
        reached = tuple(n for n, leak in world.reached().items() if not leak)
        hidden = any(s.hidden for x in world.proxies.values() for s in x.sessions)  # for as long as nobody knows
        if reached != (a.active,) and not world.pool.gateless and not hidden:  # without a gate relays stay
            self.broken("convergence", f"{a.active} is active, reachable: {', '.join(reached) or 'nobody'}")
        drift = [d for d in (daemon.outcome.drift if daemon.outcome else ()) if d.kind in MUST_END]
        if drift:
            self.broken("convergence", f"drift is left: {drift[0].kind} {drift[0].where}: {drift[0].what}")
        if self.handovers_since_healed > self._most_handovers:
            self.broken("convergence", f"{self.handovers_since_healed} handovers after the last fault had ended")

    def _alerts(self) -> None:
        """no alert lost: what a daemon told that was not killed is in the journal, while that could be written."""
        if self.tampered:
            return
        written: dict[tuple[EventKind, str], Instant] = {}
        for row in self.world.disk.journal:
            written[_subject(row.event)] = row.event.at
        alive = {daemon.name for daemon in self.world.machine.daemons}
        for name, event in self._told:
            last = written.get(_subject(event))  # what could not be written at first is said again, and dated anew
            if name in alive and (last is None or last.mono < event.at.mono):
                self.broken("journal-first", f"told, but not in the journal: {event.reason}")
                return


RUNNING = frozenset(t.name for t in TRANSITIONS if t.name not in ("decided", "by-hand"))
EDGES = tuple(f"{t.name} from {t.origin.value}" if t.name == "by-hand" else t.name for t in TRANSITIONS)
MUST_END = ("split-brain", "not-serving", "tainted", "proxy-silent", "gate-silent", "relay-silent")


def _subject(event: Event) -> tuple[EventKind, str]:
    """What an event is about, however it is worded."""
    return (event.kind, str(event.detail.get("alert", "")))
