"""How the controller goes about it: what it may begin, on what evidence, and when it has to yield or to follow.

The judge (judge.py) asks what is true of the world; this asks whether what was decided could be decided, from what
could be seen by whoever looks. It holds on to what was so a while ago, and gives the controller the time to see it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from failover.model import Admin, Assignment, Cause, Check, GateKind, Instant, Phase, Ping, Request, StepKind, Verb
from failover.simulator.hosts import Files
from failover.simulator.nodes import SLOTS0, Process
from failover.simulator.spans import Spans

if TYPE_CHECKING:
    from failover.simulator.machine import Daemon
    from failover.simulator.world import World

SLACK = 0.5  # seconds that rounding and waking may cost a timer
SEEN_WITHIN = 5.0  # seconds after which what another hand did has been seen
GONE = 20.0  # seconds after which everybody who looks has seen that a process is gone: a ping, or a check that falls
FOLLOW = 75.0  # seconds in which what somebody else has switched is followed: three pings to fall, two to rise
HANDS, HANDS_WITHIN, HANDS_APART = 6, 300.0, 6.0  # so often another hand moved a proxy: nothing is opened there
NAME_HANDS, NAME_WITHIN = 6, 3600.0  # likewise a name
UNREAD = 20.0  # seconds after the last good reading of a proxy after which it counts as silent: a read that fails
GIVEN_UP = 45.0  # seconds after which a fence that does not complete is given up: two action timeouts, and the rest
DEAD = 16.0  # seconds after which a process that ended has been missed: a ping, its timeout, and checks
SEEN_LATE = 15.0  # seconds after which new keys have shown in the metrics: a reading, and a turn
TOO_LATE = 15.0  # seconds after it expired that a request may begin something: a turn that was held up
LAG_SLACK = 45  # slots by which our own reckoning of lag may differ: a block, an older yardstick, a ping
CAREFUL = (Cause.VOLUNTARY, Cause.UNFIT, Cause.BY_HAND)
BY_ITSELF = (Cause.FORCED, Cause.AT_ONCE, Cause.VOLUNTARY, Cause.UNFIT)


@dataclass(frozen=True, slots=True)
class _Seen:
    at: Instant
    ok: bool
    lags: bool  # beyond doubt
    near: bool  # beyond doubt


class Conduct:
    """Watches one run. ``broken`` takes an invariant's name, and what was so."""

    def __init__(self, world: World, broken: Callable[[str, str], None]) -> None:
        self.world = world
        self._broken = broken
        self._pings: dict[str, deque[_Seen]] = {n: deque(maxlen=16) for n in world.pool.names}
        self._reads: dict[tuple[str, str], Instant] = {}  # by daemon and proxy: when the last good reading ended
        self._deaf: dict[tuple[str, str], int] = {}
        self._failed_at: dict[tuple[str, str], float] = {}  # when a proxy's check of a producer last failed
        self._failing: tuple[tuple[str, str], ...] = ()
        self._gone: dict[str, float] = {}  # producers whose process is not there, since when
        self._admin: dict[tuple[str, str], Admin] = {}
        self._hands: dict[str, list[float]] = {}  # when another hand moved a gate of a proxy
        self._put_by: dict[str, str] = {}
        self._puts: dict[str, list[float]] = {}  # when another hand changed a name
        self._asked_for: tuple[str, Request] | None = None  # who has the role because somebody asked for it
        self._handed_back: dict[str, Instant] = {}
        self._served_at: dict[str, float] = {}  # when new connections could last reach a producer
        self._serving: tuple[str, ...] = ()
        self._spans = Spans(world, broken)
        self._spent: dict[str, float] = {}  # producers whose keys can sign no block, since when
        self._since_spent: dict[str, float] = {}  # when they last began to be so
        self._sound: dict[str, float] = {}  # when those of others could again
        self._out_at: dict[str, float] = {}  # when nothing on a producer's own host last held it back
        self._asked: dict[str, float] = {}  # since when a producer's agent does what it is told, and can show it
        self._lived: dict[str, float] = {}  # since when a producer runs, and can be reached
        self._fence = ""  # the decider, and the generation, of the fence that is being made

    # ------------------------------------------------------------ as time passes

    def look(self) -> None:
        """Something has changed."""
        world, now = self.world, self.world.nature.now()
        self._failed_at.update(dict.fromkeys(self._failing, now))
        names, proxies = world.pool.names, world.proxies.values()
        self._served_at.update(dict.fromkeys(self._serving, now))
        self._serving = tuple(n for n in names if any(n in x.routable() for x in proxies))
        self._served_at.update(dict.fromkeys(self._serving, now))
        self._failing = tuple((x.name, n) for x in proxies for n in names if x.check(n) is Check.FAILED)
        for name, node in world.nodes.items():
            if node.powered and node.process not in (Process.DOWN, Process.STARTING):
                self._gone.pop(name, None)
            else:
                self._gone.setdefault(name, now)
            self._of_host(name, now)
        for x in proxies:
            for name in names:
                before, self._admin[x.name, name] = self._admin.get((x.name, name)), x.admin[name]
                hands = self._hands.setdefault(x.name, [])
                by_hand = before not in (None, x.admin[name]) and x.moved_by[name] == "a hand"
                if by_hand and (not hands or now - hands[-1] >= HANDS_APART):
                    hands.append(now)
        self._names(now)
        self._follow()
        self._fencing()

    def _of_host(self, name: str, now: float) -> None:
        node = self.world.nodes[name]
        host = self.world.hosts.get(name)
        if node.spent and (name in self._spent or not (host is not None and host.mute)):  # as far as it can be seen
            self._since_spent[name] = self._spent.setdefault(name, now)
        elif not node.spent and self._spent.pop(name, None) is not None:
            self._sound[name] = now
        keyless = node.keyless and (host is None or host.files is not Files.LIVE)
        if not (keyless or node.walled):
            self._out_at[name] = now
        able = host is not None and host.listens and not (host.hung or host.delay or host.mute)
        if able and node.process is not Process.HUNG and self.world.network.fine("controller", name):
            self._asked.setdefault(name, now)
        else:
            self._asked.pop(name, None)
        if node.forges and node.delay < 1.0 and self.world.network.fine("controller", name):
            self._lived.setdefault(name, now)
        else:
            self._lived.pop(name, None)

    def spent_for(self, producer: str) -> float:
        """Seconds for which its keys could sign no block."""
        now = self.world.nature.now()
        if producer not in self._spent and now - self._sound.get(producer, -1e9) > SEEN_LATE:
            return 0.0
        return now - self._since_spent.get(producer, now)

    def sound_for(self, producer: str) -> float:
        """Seconds for which its keys could sign."""
        return self.world.nature.now() - self._sound.get(producer, -1e9)

    def _names(self, now: float) -> None:
        for label, name in self.world.names.items():
            before, self._put_by[label] = self._put_by.get(label, ""), name.put_by
            puts = self._puts.setdefault(label, [])
            if before != name.put_by == "somebody":
                puts.append(now)
            elif name.put_by != before == "somebody":
                lately = [t for t in puts if now - t <= NAME_WITHIN]
                if len(lately) >= NAME_HANDS:
                    self._broken("another-hand", f"{label} was changed back, {len(lately)} times by now")

    def _follow(self) -> None:
        """adoption: what somebody else has switched, or set up before us, is followed soon."""
        world, a = self.world, self.world.disk.assignment
        daemon, disk = world.machine.decider, world.disk
        able = bool(world.proxies) and world.network.calm and daemon is not None and world.pool.mode == "act"
        able = able and not (disk.full or disk.broken or world.machine.latency > 0.1 or world.machine.host.asleep)
        able = able and all(x.running and not x.hung and not x.swapped for x in world.proxies.values())
        able = able and self._references_true() and not any(world.machine.decider_sees_contested())
        open_ = [n for n in world.pool.names if any(n in x.routable() for x in world.proxies.values())]
        nodes = world.nodes
        well = [n for n in open_ if world.servable(n) and nodes[n].delay < 1.0 and not nodes[n].stuck]
        well = [n for n in well if nodes[n].gets_out]
        free = a is not None and a.phase is Phase.STEADY and not a.released and a.paused is None
        gone = able and free and a is not None and a.active in self._gone and bool(well)
        bare = able and a is None and len(well) == 1 and tuple(world.reached()) == tuple(well)
        bare = bare and any(not s.hidden for x in world.proxies.values() for s in x.sessions)
        who = ", ".join(well)
        words = f"{who} is open, alive, and not followed for more than {FOLLOW:g} s"
        self._spans.see("adoption", gone, FOLLOW, words)
        words = f"{who} alone serves, and is not adopted for more than {FOLLOW:g} s"
        self._spans.see("adoption", bare, FOLLOW, words, which="at first")

    def _fencing(self) -> None:
        """no-harm: a fence that does not complete is given up while the old one is well."""
        world, a, disk = self.world, self.world.disk.assignment, self.world.disk
        daemon, machine = world.machine.decider, world.machine
        able = a is not None and a.phase is Phase.FENCING and a.active is not None and a.target != a.active
        able = able and a is not None and not a.released and daemon is not None and daemon.outcome is not None
        able = able and not (disk.full or disk.broken or machine.latency > 0.1 or machine.host.asleep)
        if not able or a is None or a.active is None or daemon is None or daemon.outcome is None:
            self._spans.see("no-harm", False, GIVEN_UP, "")
            return
        node = world.nodes[a.active]
        able = node.forges and node.delay < 1.0 and world.network.joined("controller", a.active)
        able = able and daemon.outcome.decision.rule != 1 and a.cause is not Cause.TAKEN_BACK
        who = f"{daemon.name} {a.generation}"
        if who != self._fence:
            self._fence = who
            self._spans.see("no-harm", False, GIVEN_UP, "")
        words = f"fencing everyone but {a.target} for more than {GIVEN_UP:g} s, though {a.active} is well"
        self._spans.see("no-harm", able, GIVEN_UP, words)

    def _references_true(self) -> bool:
        """Whether there are references, all heard, that say where the chain is."""
        nodes, network = list(self.world.references.values()), self.world.network
        true = all(n.forges and not n.lies_ahead and not n.stuck and n.fork is None and not n.held_back for n in nodes)
        return bool(nodes) and true and all(network.joined("controller", n.name) for n in nodes)

    # ------------------------------------------------------------ what can be seen

    def pinged(self, producer: str, ping: Ping) -> None:
        """A ping of a producer ended."""
        most = self.world.pool.health.max_lag
        lag = SLOTS0 + self.world.nature.now() - ping.tip.slot if ping.tip is not None else None
        lags, near = lag is not None and lag > most + LAG_SLACK, lag is not None and lag < most - LAG_SLACK
        self._pings[producer].append(_Seen(ping.at, ping.ok, lags, near))

    def heard_reference(self, daemon: Daemon, reference: str, ok: bool) -> None:
        """A ping of a reference ended."""
        key = (daemon.name, reference)
        self._deaf[key] = 0 if ok else self._deaf.get(key, 0) + 1

    def read(self, daemon: Daemon, proxy: str) -> None:
        """A proxy was read."""
        self._reads[daemon.name, proxy] = self.world.machine.host.now()

    def could_see(self, daemon: Daemon, proxy: str, since: float) -> bool:
        """Whether the daemon has read the proxy after this time of the world (seconds)."""
        read, world = self._reads.get((daemon.name, proxy)), self.world
        return read is not None and world.machine.host.now().since(read) < world.nature.now() - since

    # ------------------------------------------------------------ what is decided

    def assigned(self, before: Assignment, after: Assignment) -> None:
        """A new assignment is durable."""
        moved = after.generation != before.generation  # several turns of the table may be one commit
        if after.phase is Phase.PROMOTING and (moved or before.phase is Phase.FENCING):
            self._fenced(after if moved else before, after)
        if before.phase is Phase.PROMOTING and after.phase is Phase.STEADY:
            self._served(after.active)
        if not moved or after.phase is Phase.STEADY:
            return
        self._heir(before, after)
        if before.phase is Phase.STEADY or after.cause in BY_ITSELF[1:]:
            self._begun(before, after)
        self._by_request(after)

    def _served(self, active: str | None) -> None:
        """A handover is over when a gate leads to the one who has the role."""
        now = self.world.nature.now()
        if self.world.proxies and active is not None and now - self._served_at.get(active, -1e9) > UNREAD:
            self._broken("no-harm", f"the handover to {active} was ended, and no gate leads there")
        if active is not None and now - self._out_at.get(active, -1e9) > UNREAD:
            self._broken("no-harm", f"the handover to {active} was ended, and its own gates hold it back")

    def _fenced(self, before: Assignment, after: Assignment) -> None:
        """fence-first: on readings since the phase began; what is silent is passed over only where it may be."""
        world, daemon = self.world, self.world.machine.decider
        now = world.machine.host.now()
        careful = after.cause in (Cause.VOLUNTARY, Cause.UNFIT, Cause.BY_HAND)
        for over in after.passed_over:
            if not before.forced_by_hand and (careful or world.pool.fence.require == "confirmed"):
                self._broken("fence-first", f"{over.gate} was passed over in a handover that is {after.cause.value}")
        passed = {over.gate.place for over in after.passed_over}
        hosts = [world.hosts.get(name) for name in world.pool.others(after.active)]
        sure = all(host is not None and bool(host.kinds) and host.shut() for host in hosts)
        for proxy in () if sure else world.proxies:
            read = None if daemon is None else self._reads.get((daemon.name, proxy))
            if read is None or read.boot != now.boot:
                continue
            silence = now.since(read)
            if proxy in passed:
                if silence < world.pool.policy.fail_over_after - SLACK:
                    self._broken("patience", f"{proxy} was passed over after {silence:.1f} s of silence")
            elif not self._there(proxy):
                continue  # silent since: what it last said may count (DESIGN, on return)
            elif before.since.boot == now.boot and read.mono <= before.since.mono and silence < SEEN_WITHIN:
                self._broken("fence-first", f"{proxy} was not read since fencing began")

        self._shut_out(before, after, now)

    def _shut_out(self, before: Assignment, after: Assignment, now: Instant) -> None:
        """fence-first: likewise for gates on producers' hosts; and what was confirmed is so."""
        world, daemon = self.world, self.world.machine.decider
        strict = world.pool.fence.require == "confirmed"
        over = {str(p.gate) for p in after.passed_over}
        for name in world.pool.others(after.active):
            host = world.hosts.get(name)
            if host is None or not host.kinds:
                continue
            for kind in host.kinds:
                gate = f"{name}@{kind.value}"
                read = None if daemon is None else self._reads.get((daemon.name, gate))
                if kind is GateKind.POWER or read is None or read.boot != now.boot:
                    continue
                silence = now.since(read)
                if gate in over and silence < world.pool.policy.fail_over_after - SLACK:
                    self._broken("patience", f"{gate} was passed over after {silence:.1f} s of silence")
            late = min(world.nature.now() - at for at in host.moved_at.values()) < UNREAD
            only = world.pool.fence.proxies_are_only_path and bool(world.proxies)
            lied = host.power.lies == "status"
            if strict and not (host.shut() or late or only or lied or before.forced_by_hand):
                self._broken("fence-first", f"{name} counts as shut out for sure, and makes blocks when it is up")

    def switching_off(self, a: Assignment, producer: str) -> None:
        """no-harm: no machine is switched off that answers, nor outside of a forced fence."""
        lived = self.world.nature.now() - self._lived.get(producer, self.world.nature.now())
        if lived > GONE:
            self._broken("no-harm", f"{producer} is switched off, which answers since {lived:.0f} s")
        asked = self.world.nature.now() - self._asked.get(producer, self.world.nature.now())
        if asked > GONE and len(self.world.hosts[producer].kinds) > 1:
            self._broken("no-harm", f"{producer} is switched off, though its agent could have shut it")
        if a.phase is not Phase.FENCING or (a.cause in CAREFUL and not a.forced_by_hand):
            self._broken("no-harm", f"{producer} is switched off in {a.phase.value} ({a.cause.value})")

    def _there(self, proxy: str) -> bool:
        """Whether the proxy's management can be reached now."""
        x = self.world.proxies[proxy]
        return x.running and not x.hung and self.world.network.fine("controller", proxy)

    def _heir(self, before: Assignment, after: Assignment) -> None:
        """patience: nobody gets the role by itself who is cordoned or barred, or who lags while others do not."""
        target, cause = after.target, after.cause
        if target is None or cause not in (*BY_ITSELF, Cause.ADOPTED):
            return
        cordoned = [h.producer for h in before.cordoned if h in after.cordoned]
        barred = [h.producer for h in before.barred if h in after.barred]
        if cause is not Cause.ADOPTED and target in cordoned:
            self._broken("patience", f"{target} is cordoned, and gets the role ({cause.value})")
        if cause in BY_ITSELF[1:] and target in barred:
            self._broken("patience", f"{target} is barred, and gets the role ({cause.value})")
        last = {name: list(pings)[-4:] for name, pings in self._pings.items()}
        lags = len(last[target]) == 4 and all(p.lags for p in last[target])
        others = [n for n in self.world.pool.others(before.active) if n not in (target, *cordoned, *barred)]
        better = [n for n in others if len(last[n]) == 4 and all(p.near for p in last[n]) and self.world.servable(n)]
        asked = cause is Cause.VOLUNTARY and bool(after.cordoned)  # somebody wants the active one left at once
        if lags and not asked and self._references_true() and (cause is not Cause.FORCED or better):
            self._broken("patience", f"{target} lags, and gets the role ({cause.value})")

    def _begun(self, before: Assignment, after: Assignment) -> None:
        """What was begun from a steady state, and why it might not have been."""
        pool, active, target, cause = self.world.pool, before.active, after.target, after.cause
        now = self.world.machine.host.now()
        if cause is not Cause.BY_HAND and after.requested_by is None:
            if before.released and after.released:
                self._broken("not-blind", f"{cause.value} handover to {target} while released")
            if before.paused is not None and before.paused == after.paused:
                self._broken("not-blind", f"{cause.value} handover to {target} while paused")
        if active is None or target is None:
            return
        if cause in (Cause.VOLUNTARY, Cause.UNFIT, Cause.BY_HAND) and not after.forced_by_hand:
            self._complete(cause, now, (active, target))
        if cause in (Cause.FORCED, Cause.AT_ONCE):
            if not self._majority(active):
                self._broken("patience", f"{active} was left although no majority says that it is down")
            if pool.gateless and self.deaf(self.world.machine.decider, 1):
                self._broken("not-blind", f"{active} was left, without a gate, while no reference answers")
            last = list(self._pings[active])[-pool.health.fall :]
            if len(last) == pool.health.fall and sum(p.ok for p in last) > 1:  # one may have come while it was written
                self._broken("patience", f"{active} was left after {sum(not p.ok for p in last)} failed pings")
        if cause in (Cause.VOLUNTARY, Cause.UNFIT) and not any(h.producer == active for h in after.cordoned):
            agents = [self.world.agents.get(relay.name) for relay in pool.relays if relay.managed]
            let_go = len(agents) == len(pool.relays) > 0 and all(agent is not None for agent in agents)
            if pool.gateless and not let_go:
                self._broken("patience", f"{active} was left by itself, although nothing can shut it out")
            if cause is Cause.VOLUNTARY and pool.policy.fail_back != "auto":
                self._broken("patience", f"{target} got the role back by itself, although that is done by hand")
            self._kept(active, now)
        if cause is Cause.HAND_BACK:
            last_time = self._handed_back.get(target)
            self._handed_back[target] = now
            if last_time is not None and now.since(last_time) < pool.policy.fail_back_after:
                self._broken("patience", f"{target} was handed the role back twice in {now.since(last_time):.0f} s")

    def _complete(self, cause: Cause, now: Instant, whose: tuple[str, str]) -> None:
        """no-harm: what needs every gate is begun only when every gate answers."""
        daemon = self.world.machine.decider
        gates = [str(g) for g in self.world.pool.host_gates if g.producer in whose and g.kind is not GateKind.POWER]
        for place in (*self.world.proxies, *gates):
            read = None if daemon is None else self._reads.get((daemon.name, place))
            if read is not None and read.boot == now.boot and now.since(read) > UNREAD:
                self._broken("no-harm", f"a handover ({cause.value}) was begun while {place} does not answer")

    def _by_request(self, after: Assignment) -> None:
        """freshness: a request that has expired begins nothing. Who has the role by request is remembered."""
        now, self._asked_for = self.world.machine.host.now(), None
        request = None if after.request is None else self.world.disk.requests.get(after.request)
        if request is None or after.cause is not Cause.BY_HAND or after.target is None:
            return
        self._asked_for = (after.target, request)
        late = now.since(request.expires) if request.expires.boot == now.boot else 0.0
        if late > TOO_LATE:
            self._broken("freshness", f"{request.id} began a handover {late:.0f} s after it had expired")

    def _kept(self, active: str, now: Instant) -> None:
        """patience: who has the role by request keeps it until unpin, or until its time is over."""
        if self._asked_for is None or self._asked_for[0] != active:
            return
        request = self._asked_for[1]
        if active == self.world.pool.preferred:
            return  # it is pinned only where it was not fit when it was forced
        asked = list(self.world.disk.requests.values())  # in the order of their coming
        since = asked[asked.index(request) + 1 :] if request in asked else asked
        later = [r for r in since if r.verb in (Verb.SWITCHOVER, Verb.PIN, Verb.UNPIN, Verb.ADOPT)]
        if not later and (request.seconds is None or now.since(request.at) < request.seconds - SLACK):
            self._broken("patience", f"{active} has the role by request, and lost it by itself")

    def _majority(self, producer: str) -> bool:
        """Whether most vantage points may have said that it is down, counting what they said a little while ago."""
        world, agree, counted = self.world, 1, 1
        now, daemon = world.nature.now(), world.machine.decider
        for x in world.proxies.values():
            silent = daemon is None or not self.could_see(daemon, x.name, now - UNREAD)
            key = (x.name, producer)
            if key in self._failing or now - self._failed_at.get(key, -1e9) < GONE:
                agree, counted = agree + 1, counted + 1
            elif silent or x.check(producer) is Check.PASSED_L7:
                counted += 1
        return 2 * agree > counted

    def deaf(self, daemon: Daemon | None, misses: int) -> bool:
        """Whether every reference failed to answer this daemon's last ``misses`` pings."""
        if daemon is None or not self.world.pool.references:
            return False
        return all(self._deaf.get((daemon.name, str(r)), 0) >= misses for r in self.world.pool.references)

    # ------------------------------------------------------------ what is sent

    def sending(self, a: Assignment, proxy: str, kind: StepKind, producer: str) -> None:
        """A step leaves now."""
        world, now = self.world, self.world.nature.now()
        gate = f"{producer}@{proxy}"
        begun = [e for e in world.disk.open_steps.values() if e.detail.get("gate") == gate]
        begun = [e for e in begun if e.detail.get("kind") == kind.value]
        if begun and not any(e.generation == a.generation for e in begun):
            self._broken(
                "freshness", f"{kind.value} {gate} of {begun[-1].generation} left in generation {a.generation}"
            )
        if a.phase is not Phase.STEADY or a.active is None:
            return
        seen = any(x.check(a.active) in (Check.PASSED_L4, Check.PASSED_L7) for x in world.proxies.values())
        gone = not seen and now - self._gone.get(a.active, now) > DEAD
        if kind is StepKind.CLOSE and gone and world.nodes[producer].forges:
            self._broken("no-harm", f"close {gate}, who is alive, while {a.active} is gone")
        hands = [t for t in self._hands.get(proxy, ()) if now - HANDS_WITHIN < t < now - SEEN_WITHIN]
        if kind is StepKind.OPEN and len(hands) >= HANDS:
            self._broken("another-hand", f"open {gate}, although somebody moved that proxy {len(hands)} times")
