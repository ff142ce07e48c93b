"""The controller: the only place that sequences I/O.

Probes post on the board; ``_decide`` ticks, commits what was decided, and only then hands steps to the edges.
Producers, references, proxies, the lease and the store each have a task of their own, so that one that hangs delays
no other. Nothing here knows why something is decided (policy.py) or how it is sent (gates/).

Order of things in one turn: tick until nothing more is written (each tick sees the assignment of the one before),
commit assignment, events, answers and the steps' beginnings in one transaction, hand out the steps.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from . import incidents
from .board import Board, View
from .errors import FailoverError
from .keeper import TROUBLE, Keeper, Written
from .model import (
    POINT,
    Assignment,
    Commit,
    Event,
    EventKind,
    Gate,
    GateKind,
    Instant,
    Kick,
    Lease,
    Phase,
    Ping,
    Pointing,
    Pool,
    Record,
    Request,
    RequestState,
    Step,
    StepKind,
)
from .parts import LeaseLeft, Makers, Parts, end
from .ports import Host, Hosts, PingPort, ProxyPort, RecordPort, Store, VerifyPort
from .tick import Memory, Outcome, tick

RECORDS_MAY_TAKE = 2.0  # seconds for which leaving waits for changes of records that are under way
STORE_POLL = 0.5  # seconds between looks for an operator's request
UNSAVED = 1000  # events kept in memory while the store takes none
FOLDS = 6  # ticks in one turn at most; each writes an assignment that the next one sees


class Observer(Protocol):
    """Somebody who is told what happens: the log, the metrics. Must return at once."""

    def event(self, event: Event) -> None:
        """A row of the journal, committed or (while the store is out of order) only said."""
        ...

    def ping(self, producer: str, ping: Ping) -> None:
        """A ping of a producer ended."""
        ...

    def ticked(self, seconds: float, outcome: Outcome) -> None:
        """One tick took so long and decided this."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a status can be made of, at one instant. ``outcome`` is None before the first tick.

    In mode observe, with nothing assigned, ``assignment`` is the one that the rules presume.
    """

    pool: Pool
    view: View
    assignment: Assignment | None
    outcome: Outcome | None
    lease: Lease | None  # the one that stands in the store, ours or another's
    held: bool  # whether it is ours and fresh
    now: Instant
    started: Instant
    store_error: str | None
    tick_seconds: float


class Controller:
    """One pool's controller. Build it, ``await run(stop)``; ``report()`` is safe to call from the same loop."""

    def __init__(
        self,
        pool: Pool,
        host: Host,
        store: Store,
        ping: PingPort,
        proxies: Callable[[Pool], Mapping[str, ProxyPort]],
        *,
        records: Callable[[Record], tuple[RecordPort, VerifyPort]] | None = None,
        hosts: Callable[[Pool, LeaseLeft], Hosts] | None = None,
        holder: str = "",
        observers: Sequence[Observer] = (),
        snapshot: Callable[[Report], Mapping[str, Any]] | None = None,
    ) -> None:
        self.pool = pool
        self.holder = holder or host.new_id()
        self._host = host
        self._make = Makers(ping, proxies, records, hosts)
        self._observers = tuple(observers)
        self._snapshot = snapshot
        self._keeper = Keeper(store, host, self.holder, self._alert_store)
        self._keeper.settings = pool.lease
        self._started = host.now()
        self._board = Board(pool, self._started)
        self._assignment: Assignment | None = None
        self._requests: tuple[Request, ...] = ()
        self._memory = Memory()
        self._outcome: Outcome | None = None
        self._parts: Parts | None = None
        self._wake = asyncio.Event()
        self._unsaved: deque[Event] = deque(maxlen=UNSAVED)
        self._saved_at: float | None = None
        self._seen_change = -1
        self._unwritten: tuple[str, ...] = ()  # what was told although it could not be written
        self._tick_seconds = 0.0
        self._new_pool: Pool | None = None
        self._lost_before = False
        self._stopping = False
        self._answered: deque[str] = deque(maxlen=UNSAVED)
        self._presumed: deque[str] = deque(maxlen=UNSAVED)  # steps of the daemon before us, whose end nobody saw

    # ------------------------------------------------------------ from outside

    def report(self) -> Report:
        """The present state, for status, metrics and explain."""
        now = self._host.now()
        return Report(
            self.pool,
            self._board.view(),
            self._assignment or self._memory.presumed,
            self._outcome,
            self._keeper.lease or self._keeper.standing,
            self._keeper.fresh(now) is not None,
            now,
            self._started,
            self._keeper.error,
            self._tick_seconds,
        )

    def reload(self, pool: Pool) -> None:
        """Go over to a changed file (checked by the caller) at the next turn; timers of what stays are kept."""
        self._new_pool = pool
        self._wake.set()

    @property
    def settled(self) -> bool:
        """Whether every part was tried, and nothing is under way."""
        outcome = self._outcome
        if outcome is None or outcome.decision.rule == 1:
            return False
        busy = self._parts is not None and (self._parts.busy or self._parts.pointing)
        busy = busy or bool(outcome.steps or outcome.pointings or outcome.kicks)
        return not busy and (self._assignment is None or self._assignment.phase is Phase.STEADY)

    async def run(self, stop: asyncio.Event) -> None:
        """Observe, decide and act until ``stop`` is set; then finish the step that runs, persist, resign."""
        await self._load(first=True)
        self.say(Event(EventKind.STARTED, self._host.now(), f"controller {self.holder} started"))
        watchers = [
            asyncio.create_task(self.supervised("lease", self._keep_lease), name="lease"),
            asyncio.create_task(self.supervised("store", self._watch_store), name="store"),
        ]
        self._start_parts()
        deciding = asyncio.create_task(self._decide(), name="decide")
        stopping = asyncio.create_task(self._stopped(stop), name="stop")
        try:
            await self._first_of(deciding, stopping)
        finally:
            self._stopping = True
            await self._finish_turn(deciding)
            for task in (deciding, stopping, *watchers):
                await end(task)
            await self._finish_steps()
            await self._stop_parts()
            await self._leave()

    async def _first_of(self, deciding: asyncio.Task[None], stopping: asyncio.Task[None]) -> None:
        done = asyncio.Event()
        for task in (deciding, stopping):
            task.add_done_callback(lambda _: done.set())
        await done.wait()
        if deciding.done() and not deciding.cancelled():
            deciding.result()  # a bug in the loop must not look like a clean stop

    async def _stopped(self, stop: asyncio.Event) -> None:
        await stop.wait()

    async def _finish_turn(self, deciding: asyncio.Task[None]) -> None:
        """Let the turn that is under way come to its end."""
        self._wake.set()
        try:
            async with self._host.timeout(self.pool.lease.action_timeout):
                while not deciding.done():
                    await self._host.sleep(0.01)
        except TimeoutError:
            return

    # ------------------------------------------------------------ the parts, and what they ask and tell

    def _start_parts(self) -> None:
        self._parts = Parts(self.pool, self._board, self._host, self._make, self)
        self._parts.start()

    async def _stop_parts(self) -> None:
        if self._parts is not None:
            await self._parts.stop()

    def _at_work(self) -> Parts:
        if self._parts is None:
            raise AssertionError("nothing is decided before the parts are at work")
        return self._parts

    def posted(self) -> None:
        """Something was observed: decide."""
        self._wake.set()

    def pinged(self, producer: str, ping: Ping) -> None:
        """A ping of a producer ended."""
        for observer in self._observers:
            observer.ping(producer, ping)

    def ended(self, event: Event) -> None:
        """What became of a step: journalled with what is decided next, for which the reading that follows wakes us."""
        self._unsaved.append(event)
        self._board.post_ended(event)
        self._tell(event)

    async def supervised(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        """Run a probe again and again; a bug in one part is said aloud and ends neither the part nor the others."""
        while True:
            try:
                await probe()
            except Exception as error:  # noqa: BLE001  any bug of an edge: alerted, and the part goes on
                words = f"{name}: unexpected {type(error).__name__}: {error}"
                self.say(Event(EventKind.ALERT, self._host.now(), words, detail={"alert": f"bug:{name}"}))
                await self._host.sleep(self.pool.health.interval)

    def lease_left(self) -> tuple[float, int, int] | None:
        """What a fuse is told: for how long our lease still holds. Also while released or paused: nobody else decides.

        An observer tells none: its lease is of its own store, and another controller may be the one that steers.
        """
        now, a = self._host.now(), self._assignment
        lease = self._keeper.fresh(now)
        if lease is None or self.pool.mode != "act":
            return None
        return lease.expires.mono - now.mono, 0 if a is None else a.generation, lease.term

    # ------------------------------------------------------------ the lease

    async def _keep_lease(self) -> None:
        while True:
            before, lease = self._keeper.lease, await self._keeper.renew()
            held = self._keeper.holds(lease)
            if held and (before is None or before.term != (lease.term if lease else 0)):
                await self._load(first=False)
                self._board.acting_since = None
                known = self._memory  # what is so now is said anew, to our own journal
                self._memory = Memory(presumed=known.presumed, drift=known.drift, ledger=known.ledger)
            self._keeper.lease = lease
            self._say_lease(held)
            self._wake.set()
            settings = self.pool.lease
            await self._host.sleep(settings.renew if held else min(1.0, settings.action_timeout / 5))

    def _say_lease(self, held: bool) -> None:
        if held is self._lost_before:
            return
        self._lost_before = held
        words = "holds the lease: this controller decides" if held else "lost the lease: observing"
        self.say(Event(EventKind.LEASE, self._host.now(), f"{self.holder} {words}"))

    def may_step(self, step: Step) -> bool:
        """Whether a step may still be sent: asked in the worker immediately before."""
        lease, a = self._keeper.fresh(self._host.now()), self._assignment
        if lease is None or a is None or a.released or self._board.isolated:
            return False
        if step.term != lease.term or step.generation != a.generation:
            return False
        if step.kind is StepKind.OPEN:
            return a.phase is not Phase.FENCING and step.gate.producer == a.active
        if step.gate.kind is GateKind.POWER and a.phase is not Phase.FENCING:
            return False
        return step.gate.producer != (a.target if a.phase is Phase.FENCING else a.active)

    def may_point(self, pointing: Pointing) -> bool:
        """Whether a record may still be changed so: asked in the worker immediately before."""
        lease, a = self._keeper.fresh(self._host.now()), self._assignment
        if lease is None or a is None or a.released or self._board.isolated or a.phase is Phase.FENCING:
            return False
        current = pointing.term == lease.term and pointing.generation == a.generation
        return current and pointing.producer == a.active

    def may_kick(self, kick: Kick) -> bool:
        """Whether a relay's sessions may still be ended: asked immediately before."""
        lease, a = self._keeper.fresh(self._host.now()), self._assignment
        if lease is None or a is None or a.released or self._board.isolated or a.phase is not Phase.STEADY:
            return False
        return kick.term == lease.term and kick.generation == a.generation and kick.producer != a.active

    # ------------------------------------------------------------ the store

    def _alert_store(self, words: str) -> None:
        words = f"the state folder: {words}; nothing new is decided until it can be written"
        event = Event(EventKind.ALERT, self._host.now(), words, detail={"alert": "store"})
        self._unsaved.append(event)  # written when that works again
        self._tell(event)

    async def _load(self, *, first: bool) -> None:
        """Take over what is stored: always when the lease was just won, for another may have written."""

        store = self._keeper.store
        try:
            stored, unfinished = await self._keeper.call(lambda: (store.load(), store.unfinished()))
        except TROUBLE as error:
            self._keeper.broken(error)
            if first:
                raise self._keeper.unusable(error) from error
            return
        now = self._host.now()
        self._assignment = stored.assignment
        ledger = incidents.restore(stored.timers.get("incidents"))
        self._memory = replace(self._memory, ledger=ledger)
        if first:
            self._board = Board(self.pool, now, stored.timers)
        for event in unfinished:  # a step whose end nobody saw may still take effect
            step = str(event.detail.get("step", ""))
            if step not in self._presumed and self._presume(event, now):
                self._presumed.append(step)
                detail = {**event.detail, "result": "unknown"}
                words = f"{event.reason}: its end was not seen"
                self._unsaved.append(Event(EventKind.STEP_FAILED, now, words, event.generation, event.producer, detail))

    def _presume(self, begun: Event, now: Instant) -> bool:
        """Take a step that was begun for one whose effect is unknown; False for those of which nothing follows."""
        gate = _gate(str(begun.detail.get("gate", "")))
        if begun.detail.get("kind") == StepKind.OPEN.value and gate is not None and gate.kind is GateKind.HAPROXY:
            self._board.post_unanswered(gate, now)
            return True
        if begun.detail.get("kind") == StepKind.OPEN.value and gate in self._board.gates:
            read_at = self._board.gates[gate].read_at
            if read_at is None or read_at.since(begun.at) < self.pool.lease.action_timeout:
                self._board.post_gate_sent(gate, StepKind.OPEN)  # until it answers, it was not last seen shut
            return True
        if begun.detail.get("kind") != POINT:
            return False
        producer = begun.producer or ""
        for record in self.pool.records:
            if record.label == begun.detail.get("record") and producer in record.targets:
                self._board.post_pointed(record.label, record.wanted(producer), now)
        return True

    async def _watch_store(self) -> None:
        keeper = self._keeper
        while True:
            try:
                changed = await keeper.call(keeper.store.changed)
                if changed != self._seen_change:
                    pending = await keeper.call(keeper.store.pending)
                    self._requests = tuple(r for r in pending if r.id not in self._answered)
                    self._seen_change = changed
                    if keeper.fresh(self._host.now()) is None:
                        stored = await keeper.call(keeper.store.load)
                        self._assignment = stored.assignment
                        keeper.standing = stored.lease
                    self._wake.set()
                if keeper.fresh(self._host.now()) is None:  # a decider's own writes say whether it works
                    keeper.works()
            except TROUBLE as error:
                keeper.broken(error)
            await self._host.sleep(STORE_POLL)

    # ------------------------------------------------------------ deciding

    async def _decide(self) -> None:
        while not self._stopping:
            wake_in = await self._turn()
            if wake_in is not None and wake_in <= 0:
                await self._host.sleep(0)
                continue
            try:
                async with self._host.timeout(min(self.pool.health.interval, wake_in or self.pool.health.interval)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _turn(self) -> float | None:
        """Tick, commit, hand out steps; returns the seconds until the next tick is due."""
        self._wake.clear()
        if self._new_pool is not None:
            await self._change_pool(self._new_pool)
        now = self._host.now()
        board = self._board
        board.lease = self._keeper.fresh(now)
        board.steering = board.lease is not None and self._steers()
        if board.acting_since is None:
            board.acting_since = now
        before, outcomes = self._assignment, self._fold(now)
        last = outcomes[-1]
        if last.decision.rule == 1:
            board.acting_since = None
        parts = self._at_work()
        orders, points = parts.new_orders(last.steps), parts.new_points(last.pointings)
        ends = parts.new_kicks(last.kicks)
        said = tuple(event for outcome in outcomes for event in outcome.events)
        begun = (order.begins(now) for group in (orders, points, ends) for order in group)
        events = (*said, *begun)
        if points or ends:
            self._saved_at = None  # what the record held until now, and who was made to let go, must outlive us
        for kicked in ends:
            board.post_kicked(kicked.command.relay, kicked.command.producer, kicked.command.generation, now)
        if last.memory.ledger is not self._memory.ledger:
            self._saved_at = None  # an incident is stored with the rows that tell of it
        board.ledger = last.memory.ledger
        if not await self._commit(before, last, outcomes, events, bool(orders or points or ends), now):
            self._outcome = replace(last, steps=(), pointings=(), kicks=())
            board.ledger = self._memory.ledger
            self._memory = replace(self._memory, drift=last.memory.drift)  # the dates stay
            self._tell_unwritten(events)
            return min(1.0, self.pool.lease.action_timeout)
        self._unwritten = ()
        self._outcome = last
        self._memory = last.memory
        carried = frozenset(t.gate for t in last.assignment.tainted) if last.assignment is not None else frozenset()
        board.settle_unanswered(carried)
        parts.hand_out(orders, points, ends, refresh=_moved(before, self._assignment))
        return last.wake_in

    def _steers(self) -> bool:
        a = self._assignment
        return self.pool.mode == "act" and a is not None and not a.released and a.paused is None

    def _tell_unwritten(self, events: tuple[Event, ...]) -> None:
        """What could not be written is at least said, once; it is written, and said again, when that works.

        What did not come about (a phase, a step) is not said.
        """
        so = tuple(event for event in events if event.kind not in (EventKind.STEP_STARTED, EventKind.PHASE_CHANGED))
        about = tuple(f"{event.kind.value} {event.producer} {event.detail.get('alert', '')}" for event in so)
        if about != self._unwritten:
            self._unwritten = about
            for event in so:
                self._tell(event)
                if event.kind is EventKind.ALERT:  # what it is about may be over by then
                    self._unsaved.append(event)

    def _fold(self, now: Instant) -> list[Outcome]:
        """Ticks, each seeing what the one before decided, until nothing more is written."""
        outcomes: list[Outcome] = []
        assignment, memory, requests = self._assignment, self._memory, self._requests
        view = self._board.view()
        for _ in range(FOLDS):
            started = self._host.now().mono
            outcome = tick(self.pool, view, assignment, requests, memory, now)
            self._tick_seconds = self._host.now().mono - started
            outcomes.append(outcome)
            for observer in self._observers:
                observer.ticked(self._tick_seconds, outcome)
            answered = {answer.request for answer in outcome.answers}
            requests = tuple(r for r in requests if r.id not in answered)
            assignment, memory = outcome.assignment, outcome.memory
            if not outcome.changed and not outcome.answers:
                break
        return outcomes

    async def _commit(
        self,
        before: Assignment | None,
        last: Outcome,
        outcomes: list[Outcome],
        events: tuple[Event, ...],
        sends: bool,
        now: Instant,
    ) -> bool:
        """Write what was decided. False: nothing was written, so nothing may be sent."""
        lease = self._board.lease
        changed = last.assignment is not None and last.assignment != before and any(o.changed for o in outcomes)
        answers = tuple(answer for outcome in outcomes for answer in outcome.answers)
        due = self._saved_at is None or now.mono - self._saved_at >= self.pool.health.interval
        needed = changed or answers or sends
        if lease is None:
            for event in events:
                self._tell(event)
            if self._keeper.error is not None:  # nobody may be deciding: written when that works again
                self._unsaved.extend(event for event in events if event.kind is EventKind.ALERT)
            return True
        busy = self._at_work().busy  # a commit now would hold up the decision after it
        if not (needed or due or events or (self._unsaved and not busy)):
            return True
        if not self._board.room and not needed and not due:
            self._unsaved.extend(events)
            return True
        unsaved = tuple(self._unsaved)
        commit = Commit(
            term=lease.term,
            assignment=last.assignment if changed else None,
            expected_revision=0 if before is None else before.revision,
            events=(*unsaved, *events),
            answers=answers,
            timers=self._board.timers(now) if due else None,
            snapshot=self._snapshot(self._upcoming(last, now)) if due and self._snapshot is not None else None,
        )
        begins = changed and last.assignment is not None and last.assignment.phase is not Phase.STEADY
        if not await self._write(commit, reserve=begins or due):
            return False
        for _ in unsaved:
            self._unsaved.popleft()
        for event in events:
            self._tell(event)
        if due:
            self._saved_at = now.mono
        if answers:
            self._seen_change = -1
        self._assignment = last.assignment if changed else self._assignment
        if answers:
            self._answered.extend(a.request for a in answers if a.state is not RequestState.ACCEPTED)
            self._requests = tuple(r for r in self._requests if r.id not in self._answered)
        return True

    def _upcoming(self, outcome: Outcome, now: Instant) -> Report:
        report = self.report()
        return replace(report, assignment=outcome.assignment or report.assignment, outcome=outcome, now=now)

    async def _write(self, commit: Commit, *, reserve: bool) -> bool:
        written = await self._keeper.write(commit, reserve=reserve)
        if written in (Written.OVERTAKEN, Written.UNKNOWN):  # look before deciding again
            await self._load(first=False)
        elif written is Written.FULL:
            self._board.room = False
        if written not in (Written.DONE, Written.DONE_WITHOUT_ROOM):
            return False
        if reserve:
            self._note_room(written is Written.DONE)
        elif self._board.room:
            self._keeper.works()
        return True

    def _note_room(self, room: bool) -> None:
        if self._board.room is not room:
            words = "the state folder has room again"
            if not room:
                words = self._keeper.error = "the state folder has no room for a handover: none will be started"
            self.say(Event(EventKind.ALERT, self._host.now(), words, detail={"alert": "room"}))
        self._board.room = room
        if room:
            self._keeper.works()

    async def _change_pool(self, pool: Pool) -> None:
        self._new_pool = None
        await self._finish_steps()
        await self._stop_parts()
        now = self._host.now()
        board = Board(pool, now, self._board.timers(now))
        board.take_over(self._board, now)
        dropped = sorted({r.name for r in self.pool.records} - {r.name for r in pool.records})
        self.pool, self._board, self._keeper.settings = pool, board, pool.lease
        self._start_parts()
        self.say(Event(EventKind.CONFIG_RELOADED, now, "the configuration file was read again"))
        for name in dropped:
            words = f"{name} is no longer steered: it stays as it is, and relays that use it stay where it leads"
            self.say(Event(EventKind.ALERT, now, words, detail={"alert": f"record-dropped:{name}"}))

    # ------------------------------------------------------------ saying

    def say(self, event: Event) -> None:
        """Tell the observers now, and the journal with the next commit."""
        generation = 0 if self._assignment is None else self._assignment.generation
        event = replace(event, generation=event.generation or generation)
        self._unsaved.append(event)
        self._tell(event)
        self._wake.set()

    def _tell(self, event: Event) -> None:
        for observer in self._observers:
            observer.event(event)

    # ------------------------------------------------------------ leaving

    async def _finish_steps(self) -> None:
        """Give steps that are being sent their time: an abandoned one has an unknown effect."""
        started, limit = self._host.now(), self.pool.lease.action_timeout
        parts = self._at_work()
        while parts.busy and self._host.now().since(started) < limit:
            await self._host.sleep(0.05)
        limit = min(limit, RECORDS_MAY_TAKE)
        while parts.pointing and self._host.now().since(started) < limit:
            await self._host.sleep(0.05)

    async def _leave(self) -> None:
        now, keeper = self._host.now(), self._keeper
        lease = keeper.fresh(now)
        stopped = Event(EventKind.STOPPED, now, f"controller {self.holder} stopped")
        self._tell(stopped)
        try:
            async with self._host.timeout(self.pool.lease.action_timeout):
                if lease is not None:
                    commit = Commit(lease.term, events=(*self._unsaved, stopped), timers=self._board.timers(now))
                    await keeper.when_free(lambda: keeper.store.commit(commit))
                await keeper.when_free(lambda: keeper.store.resign(self.holder))
        except (FailoverError, TimeoutError) as error:
            keeper.broken(error)
        keeper.close()


def _moved(before: Assignment | None, after: Assignment | None) -> bool:
    return after is not None and (
        before is None or before.phase is not after.phase or before.generation != after.generation
    )


def _gate(text: str) -> Gate | None:
    producer, at, proxy = text.partition("@")
    return Gate(proxy, producer) if at else None
