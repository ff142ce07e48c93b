"""DNS names in a simulated world: what is true of one, how the controller reaches it, and what a relay makes of it.

- ``Name`` is the truth: what the provider holds, what each authoritative server says and has said, what is under way.
- ``SimRecordPort`` and ``SimVerifyPort`` are the controller's ways to it, with the provider's own manners: a request to
  Route 53 leaves on a connection that has just been made; an update (RFC 2136) only on one on which the name was just
  read, so that a hung primary gets none.
- ``Cache`` is a relay's way: the rules of failover/lab/resolution.py, looked up as late as somebody asks.

A message that has left arrives whatever becomes of its sender, and has its effect though the answer is lost. Whoever
waits for an answer waits on the clock of its own machine, so that a suspended one does not wake.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

from failover.errors import (
    RecordConflict,
    RecordError,
    RecordRefused,
    RecordThrottled,
    RecordTimeout,
    RecordUnreachable,
)
from failover.lab.resolution import Failed, Found, Known, Missing, Reply
from failover.model import Change, DnsAnswer, Fault, Record, RecordReading, Route53Zone, RRset
from failover.ports import Host
from failover.simulator.host import draw
from failover.simulator.loop import NANO, nanoseconds
from failover.simulator.nature import Nature, Network

R = TypeVar("R")

SERVERS = ("ns1", "ns2")  # of a dynamic zone the first is the primary
SPREAD = (5.0, 60.0)  # seconds until a change at Route 53 has reached a server ("generally" within 60, its reference)
NOTIFIED = (0.1, 5.0)  # seconds until a secondary has a change of its primary (BIND: notify-delay 5 s)
NEGATIVE_TTL = 900  # seconds; Route 53's SOA
LEAST_TTL = 60  # seconds; below it relays and resolvers do as they like
FINDING = 0.5  # of a look's time, at most, goes into finding the servers


class Tried(NamedTuple):
    """One change that reached the provider: when (seconds of the world), from what to what, whether it was applied."""

    at: float
    expected: RRset | None
    wanted: RRset
    applied: bool


class _Marked:
    """The servers that have one fault. Set it, ``|=`` and ``-=`` it; what was so is remembered."""

    def __set_name__(self, owner: type[Name], fault: str) -> None:
        self._fault = fault

    def __get__(self, name: Name, owner: type[Name]) -> Set[str]:
        return name.marked[self._fault]

    def __set__(self, name: Name, servers: Set[str]) -> None:
        name.mark(self._fault, servers)


class Name:
    """What is true of one record.

    ``rrset`` is what the provider holds (None: nothing), ``put_by`` who put it there, ``changes`` what we tried.

    Faults may be set at any time. ``throttled``: everything is refused as too much. ``refuses``: changes are refused,
    in these words. ``hung``: requests are taken, and neither carried out nor answered. ``loses_replies``: changes are
    made, and their answers lost. ``late``: a change is carried out only so many seconds after it arrived, compared
    with what is held then. ``unownable``: the name holds something else, in these words. ``spread``: seconds until a
    change has reached a server, at least and at most; ``pending_for``: seconds until it has reached the last one of
    Route 53's.
    """

    silent = _Marked()  # servers that do not answer
    lame = _Marked()  # that answer without authority
    frozen = _Marked()  # that learn of no more changes, and what they missed when they are released

    def __init__(self, record: Record, nature: Nature, rrset: RRset | None) -> None:
        self.record = record
        self.label = record.label
        self.asynchronous = isinstance(record.provider, Route53Zone)  # accepted first, and everywhere later
        self.rrset = rrset
        self.put_by = ""
        self.changes: list[Tried] = []
        self.spread = SPREAD if self.asynchronous else NOTIFIED
        self.pending_for = 0.0
        self.negative_ttl = NEGATIVE_TTL
        self.throttled = False
        self.loses_replies = False
        self.late = 0.0
        self.refuses: str | None = None
        self.hung = False
        self.unownable: str | None = None
        self._nature = nature
        self.marked: dict[str, frozenset[str]] = {"silent": frozenset(), "lame": frozenset(), "frozen": frozenset()}
        self._versions: list[RRset | None] = [rrset]
        self._reached = dict.fromkeys(SERVERS, 0)  # the newest version that has got to a server,
        self._says = dict.fromkeys(SERVERS, 0)  # and the one that it tells
        self._times: dict[str, list[int]] = {server: [] for server in SERVERS}  # nanoseconds, rising; what it said
        self._told: dict[str, list[DnsAnswer]] = {server: [] for server in SERVERS}  # from then on
        self._settles: dict[str, int] = {}  # nanoseconds, by a change's id
        for server in SERVERS:
            self._note(server)

    # ------------------------------------------------------------ what happens to it

    def point(self, rrset: RRset, who: str) -> None:
        """Another writer puts this there, and asks nobody."""
        self._write(rrset, who)

    def empty(self, who: str = "somebody") -> None:
        """Another writer removes the record: there is no such name any more."""
        self._write(None, who)

    def mark(self, fault: str, servers: Set[str]) -> None:
        """Let these servers, and no others, have this fault (``silent``, ``lame`` or ``frozen``) from now on."""
        before, after = self.marked[fault], frozenset(servers)
        unknown = sorted(after - frozenset(SERVERS))
        if unknown:
            raise ValueError(f"{self.label} has no server {', '.join(unknown)}: it has {', '.join(SERVERS)}")
        self.marked[fault] = after
        for server in SERVERS:
            if (server in before) != (server in after):
                self._note(server)
                self._nature.tell(f"{server} of {self.label} is {fault if server in after else f'no longer {fault}'}")
                self._nature.changed()
                self._learn(server)

    # ------------------------------------------------------------ what is so

    def holds_one(self) -> bool:
        """Whether the provider holds exactly one value, with a TTL that caches keep to. ``put_by`` says whose it is."""
        return self.rrset is not None and len(self.rrset.values) == 1 and self.rrset.ttl >= LEAST_TTL

    def says(self, server: str, at: int | None = None) -> DnsAnswer:
        """What a server answers now, or answered at an earlier time (nanoseconds of the world)."""
        if at is None:
            return self._told[server][-1]
        return self._told[server][max(0, bisect_right(self._times[server], at) - 1)]

    def settled(self, change_id: str) -> bool:
        """Whether the provider says that a change is everywhere (INSYNC); it does not know which servers are frozen."""
        return self._nature.loop.now_ns >= self._settles.get(change_id, 0)

    # ------------------------------------------------------------ what its provider is asked

    def read(self) -> RecordReading:
        """What the provider answers. Raises RecordThrottled."""
        self.admit()
        return RecordReading(None, self.unownable) if self.unownable is not None else RecordReading(self.rrset)

    def admit(self) -> None:
        """Let a request in. Raises RecordThrottled."""
        if self.throttled:
            raise RecordThrottled(f"{self.label}: its provider wants to be asked later", "nothing: it is asked again")

    def swap(self, change: Change, who: str) -> str:
        """Compare and swap; the change's id. Raises RecordThrottled, RecordRefused and RecordConflict."""
        self.admit()
        fits = self.rrset == change.expected and self.unownable is None
        applied = fits and self.refuses is None
        self.changes.append(Tried(self._nature.now(), change.expected, change.wanted, applied))
        if applied:
            return self._write(change.wanted, who)
        if self.refuses is not None:
            raise RecordRefused(f"{self.label}: its provider refuses the change: {self.refuses}", "allow it there")
        self._nature.tell(f"{self.label} is not changed by {who}: it holds {self._held()}")
        raise self.conflict(change)

    def conflict(self, change: Change) -> RecordConflict:
        """What is said of a change whose expectation does not hold."""
        return RecordConflict(
            f"{self.label} was changed by another hand: it holds {self._held()}, not {change.expected or 'nothing'}",
            "nothing: it is read again first",
        )

    # ------------------------------------------------------------ inside

    def _held(self) -> str:
        return self.unownable or str(self.rrset or "nothing")

    def _write(self, rrset: RRset | None, who: str) -> str:
        """Let the provider hold this, and its servers learn of it. The change's id; empty where there are none."""
        nature, number = self._nature, len(self._versions)
        self.rrset, self.put_by = rrset, who
        self._versions.append(rrset)
        nature.tell(f"{self.label} holds {rrset or 'nothing'} at its provider, by {who}")
        delays = self._delays()
        for server, delay in delays.items():
            if delay > 0:
                nature.after(delay, partial(self._reach, server, number))
            else:
                self._reach(server, number)
        nature.changed()
        if not self.asynchronous:
            return ""
        change_id = f"C{number}"
        self._settles[change_id] = nature.loop.now_ns + nanoseconds(max(delays.values()))
        return change_id

    def _delays(self) -> dict[str, float]:
        """Seconds until each server has the change that is being made."""
        nature, (least, most) = self._nature, self.spread
        delays = {server: nature.between(least, most, "spread", self.label, server) for server in SERVERS}
        if self.asynchronous:
            delays[SERVERS[-1]] = max(delays[SERVERS[-1]], self.pending_for)
        else:
            delays[SERVERS[0]] = 0.0  # updates are made there
        return delays

    def _reach(self, server: str, number: int) -> None:
        if number > self._reached[server]:  # an older one that took longer does not come back
            self._reached[server] = number
            self._learn(server)

    def _learn(self, server: str) -> None:
        number = self._reached[server]
        if server in self.frozen or number == self._says[server]:
            return
        self._says[server] = number
        self._note(server)
        self._nature.tell(f"{server} says {self._versions[number] or 'no such name'} of {self.label}")
        self._nature.changed()

    def _note(self, server: str) -> None:
        """Remember what the server answers from now on."""
        rrset = self._versions[self._says[server]]
        if server in self.silent:
            answer = DnsAnswer(server, True, fault=Fault.SILENT, error="no answer")
        elif server in self.lame:
            answer = DnsAnswer(server, True, fault=Fault.LAME, error="answers REFUSED")
        elif rrset is None:
            answer = DnsAnswer(server, True, negative_ttl=self.negative_ttl)
        else:
            answer = DnsAnswer(server, True, rrset)
        self._times[server].append(self._nature.loop.now_ns)
        self._told[server].append(answer)


# ---------------------------------------------------------------- the controller's ways to it


def always() -> bool:
    """Whether the process lives that nobody kills."""
    return True


def unnoticed(moment: str) -> None:
    """What happens at the moments at which nobody does anything."""


@dataclass(frozen=True, slots=True)
class _Way:
    """From one process to one place and back; nothing leaves it once the process is no longer ``alive``."""

    name: Name
    nature: Nature
    network: Network
    host: Host
    place: str
    goal: str
    alive: Callable[[], bool]

    def require_alive(self) -> None:
        """Raises RecordUnreachable after the process was killed."""
        if not self.alive():
            raise RecordUnreachable(f"{self.name.label}: the process was killed", "start it again")

    def left(self, end: float) -> float:
        """Seconds until the clock of the machine reads ``end``."""
        return end - self.host.now().mono

    def there(self) -> float | None:
        """Seconds that a message takes now, or None when it does not arrive."""
        return self.network.trip(self.place, self.goal)

    async def connect(self, end: float) -> bool:
        """Make a connection; False when there was none by ``end`` (seconds on the machine's clock)."""
        there, back = self.there(), self.network.trip(self.goal, self.place)
        left = self.left(end)
        if there is None or back is None or there + back >= left:
            await self.host.sleep(left)
            return False
        await self.host.sleep(there + back)
        return True

    async def carry(self, end: float, trip: float | None, act: Callable[[], R | None]) -> R | None:
        """Send a message off, let it ``act`` where it arrives, and bring back what came of it.

        None when no answer was there by ``end``; ``act`` itself returns None where it gives none. Raises what ``act``
        does (RecordError), once that is back. Two timers at most.
        """
        arrived: asyncio.Future[tuple[R | None, RecordError | None, float | None]]
        arrived = self.nature.loop.create_future()

        def arrive() -> None:
            outcome: R | None = None
            error: RecordError | None = None
            try:
                outcome = act()
            except RecordError as no:
                error = no
            back = self.network.trip(self.goal, self.place) if outcome is not None or error is not None else None
            if not arrived.done():
                arrived.set_result((outcome, error, back))

        if trip is not None:
            self.nature.after(trip, arrive)
        left = self.left(end)
        if trip is None or trip >= left:
            await self.host.sleep(left)
            return None
        # This is not on the clock of this machine, which may be suspended: so nothing is done before the sleep.
        outcome, error, back = await arrived
        left = self.left(end)
        if back is None or back >= left:
            await self.host.sleep(left)
            return None
        await self.host.sleep(back)
        if error is not None:
            raise error
        return outcome


class SimRecordPort:
    """RecordPort for a Name, from ``place`` over the network to ``goal``.

    ``moment`` is called with "record change: before" right before a change is sent, with "record change: effect" right
    after it took effect at the provider, and with "record change: reply" right before the call ends with its answer.
    """

    def __init__(
        self,
        name: Name,
        nature: Nature,
        network: Network,
        host: Host,
        place: str = "controller",
        goal: str = "dns",
        *,
        alive: Callable[[], bool] = always,
        moment: Callable[[str], None] = unnoticed,
    ) -> None:
        self._name = name
        self._way = _Way(name, nature, network, host, place, goal, alive)
        self._moment = moment
        self._closed = False

    async def read(self, timeout: float) -> RecordReading:
        """See RecordPort."""
        return await self._asked(timeout, self._name.read)

    async def change(self, change: Change, timeout: float, still_valid: Callable[[], bool]) -> str | None:
        """See RecordPort. An id is the provider's; a dynamic zone has none."""
        self._require_open()
        if change.expected == change.wanted:
            return ""
        way, end = self._way, self._way.host.now().mono + timeout
        if self._name.asynchronous:
            if not await way.connect(end):
                raise self._unreachable(f"took no connection within {timeout:g} s")
        elif await self._asked(timeout, self._name.read) != RecordReading(change.expected):
            raise self._name.conflict(change)
        self._require_open()
        if not still_valid():
            return None
        self._moment("record change: before")
        way.require_alive()
        trip = way.there()
        trip = None if trip is None else trip + self._name.late
        try:
            change_id = await way.carry(end, trip, partial(self._carried_out, change))
        except RecordError:
            self._replied()
            raise
        if change_id is None:
            raise RecordTimeout(
                f"{self._name.label}: its provider did not answer within {timeout:g} s: whether the change was made "
                "is unknown",
                "nothing: the name is read again first",
            )
        self._replied()
        return change_id

    async def settled(self, change_id: str, timeout: float) -> bool:
        """See RecordPort. A dynamic zone's change has settled when it is answered."""
        self._require_open()
        if not change_id or not self._name.asynchronous:
            return True

        def look() -> bool:
            self._name.admit()
            return self._name.settled(change_id)

        return await self._asked(timeout, look)

    async def close(self) -> None:
        """See RecordPort."""
        self._closed = True

    # ------------------------------------------------------------ inside

    async def _asked(self, timeout: float, look: Callable[[], R]) -> R:
        """What the provider answers to a question, which changes nothing."""
        self._require_open()
        way = self._way

        answer = await way.carry(
            way.host.now().mono + timeout, way.there(), lambda: None if self._name.hung else look()
        )
        way.require_alive()
        if answer is None:
            raise self._unreachable(f"did not answer within {timeout:g} s")
        return answer

    def _carried_out(self, change: Change) -> str | None:
        """At the provider, when the change arrives."""
        if self._name.hung:
            return None
        try:
            change_id = self._name.swap(change, self._way.place)
        except RecordError:
            if self._name.loses_replies:
                return None
            raise
        if self._way.alive():
            self._moment("record change: effect")
        return None if self._name.loses_replies else change_id

    def _replied(self) -> None:
        """The answer to a change is there. Raises RecordUnreachable when the process dies of it."""
        self._moment("record change: reply")
        self._way.require_alive()

    def _require_open(self) -> None:
        self._way.require_alive()
        if self._closed:
            raise self._unreachable("is no longer asked: the port is closed")

    def _unreachable(self, what: str) -> RecordUnreachable:
        return RecordUnreachable(f"{self._name.label}: its provider {what}; nothing was changed", "see its network")


class SimVerifyPort:
    """VerifyPort for a Name: its authoritative servers, or a cache of its own for each resolver that the file names."""

    def __init__(
        self,
        name: Name,
        nature: Nature,
        network: Network,
        host: Host,
        place: str = "controller",
        goal: str = "dns",
        *,
        alive: Callable[[], bool] = always,
    ) -> None:
        record = name.record
        self._way = _Way(name, nature, network, host, place, goal, alive)
        self._resolvers = {str(address): Resolver(name, nature, str(address)) for address in record.resolvers}
        self._found = bool(record.servers or record.resolvers)  # else they are looked for once, through the DNS

    async def look(self, timeout: float) -> tuple[DnsAnswer, ...]:
        """See VerifyPort. A server that is silent costs all of the time."""
        way = self._way
        way.require_alive()
        start = way.host.now().mono
        answers = await way.carry(start + (timeout if self._found else timeout * FINDING), way.there(), self._answers)
        way.require_alive()
        if answers is None and not self._found:
            raise RecordUnreachable(
                f"{way.name.label}: the servers of its zone cannot be found", "check the name servers of this machine"
            )
        self._found = True
        if answers is None:
            servers, why = tuple(self._resolvers) or SERVERS, f"no answer within {timeout:g} s"
            return tuple(DnsAnswer(server, not self._resolvers, fault=Fault.SILENT, error=why) for server in servers)
        if not self._resolvers and any(answer.fault is Fault.SILENT for answer in answers):
            await way.host.sleep(way.left(start + timeout))
        return answers

    async def close(self) -> None:
        """See VerifyPort."""

    def _answers(self) -> tuple[DnsAnswer, ...]:
        if self._resolvers:
            return tuple(resolver.answer() for resolver in self._resolvers.values())
        return tuple(self._way.name.says(server) for server in SERVERS)


# ---------------------------------------------------------------- what resolvers and relays make of it


class Resolver:
    """A resolver that asks the servers once what it told has run out; TTLs count down in whole seconds."""

    def __init__(self, name: Name, nature: Nature, who: str) -> None:
        self._name = name
        self._nature = nature
        self._who = who
        self._kept: DnsAnswer | None = None
        self._at = 0  # nanoseconds

    def answer(self) -> DnsAnswer:
        """What it answers now."""
        now = self._nature.loop.now_ns
        if self._kept is None or now - self._at >= _ttl(self._kept) * NANO:
            self._kept, self._at = _resolved(self._name, self._nature, self._who, now), now
        kept = self._kept
        if kept is None:
            return DnsAnswer(self._who, False, fault=Fault.SILENT, error="answers SERVFAIL")
        return _aged(replace(kept, server=self._who, authoritative=False), (now - self._at) // NANO)


class Cache:
    """What one relay holds of a name, and so whom it dials. No timers: lookups are made up for when somebody asks.

    It asks as failover/lab/resolution.py says: again after 60 to 900 s; no such name, or no answer, leaves what it
    knows. ``who`` is the relay; a relay has one Cache of a name. ``shared``: others ask its resolver, too, as soon as
    an answer has run out there, so that what it is told may be up to a TTL old. ``zero``: and is told in its very last
    second, too, with TTL 0 (Unbound until 2024), for which a node waits 900 s. ``reaches`` says whether the relay
    reaches its resolver; it is asked when a lookup is made up for.
    """

    def __init__(
        self,
        name: Name,
        nature: Nature,
        who: str,
        *,
        shared: bool = False,
        zero: bool = False,
        reaches: Callable[[], bool] = always,
    ) -> None:
        self._name = name
        self._nature = nature
        self._who = who
        self._shared = shared
        self._zero = zero
        self._reaches = reaches
        self._kept: DnsAnswer | None = None  # by its resolver, if that is shared,
        self._fetched = self._runs_out = 0  # from then to then (nanoseconds)
        self._known = Known(due=nature.now())
        self._catch_up()
        # It has been running for a while: relays do not ask at the same time.
        self._known = replace(self._known, due=nature.now() + self._known.wait * nature.chance("phase", *self._key))

    def address(self) -> str | None:
        """What the relay would dial now: an address, or the name that a CNAME holds; of several always the same."""
        self._catch_up()
        addresses = self._known.addresses
        if len(addresses) < 2:
            return next(iter(addresses), None)
        return sorted(addresses)[draw(self._nature.seed, "choice", *self._key) % len(addresses)]

    def addresses(self) -> tuple[str, ...]:
        """All that it holds of the name, in order."""
        self._catch_up()
        return tuple(sorted(self._known.addresses))

    def forget(self) -> None:
        """The relay restarts: it knows nothing, and asks now."""
        self._known = Known(due=self._nature.now())

    @property
    def asks_at(self) -> float:
        """When it asks again (seconds of the world)."""
        self._catch_up()
        return self._known.due

    # ------------------------------------------------------------ inside

    @property
    def _key(self) -> tuple[str, str]:
        return self._who, self._name.label

    def _catch_up(self) -> None:
        now = self._nature.now()
        while (due := self._known.due) <= now:  # each lookup is at least 5 s after the one before
            self._known = self._known.told(self._reply(nanoseconds(due)), due)

    def _reply(self, at: int) -> Reply:
        answer = self._answer(at) if self._reaches() else None
        if answer is None:
            return Failed("no answer")
        return Missing() if answer.rrset is None else Found(dict.fromkeys(answer.rrset.values, answer.rrset.ttl))

    def _answer(self, at: int) -> DnsAnswer | None:
        """What its resolver tells at a time."""
        if not self._shared:
            return self._asked(at)
        while self._kept is None or at >= self._runs_out:  # which it does at least a second later each time
            then = at if self._kept is None else self._runs_out  # when somebody else asked for it
            self._keep(self._asked(then), then)
            if self._kept is None and then == at:
                return None
        return _aged(self._kept, (at - self._fetched) // NANO)

    def _asked(self, at: int) -> DnsAnswer | None:
        return _resolved(self._name, self._nature, self._who, at)

    def _keep(self, answer: DnsAnswer | None, fetched: int) -> None:
        """By its resolver, as long as it lasts."""
        self._kept, self._fetched = answer, fetched
        if answer is not None:
            self._runs_out = fetched + max(1, _ttl(answer) + self._zero) * NANO


def _resolved(name: Name, nature: Nature, who: str, at: int) -> DnsAnswer | None:
    """What a resolver is told at a time (nanoseconds): by a server of its choice, else by another; None: by nobody."""
    first = int(nature.chance("server", who, name.label) * len(SERVERS))
    for number in range(len(SERVERS)):
        answer = name.says(SERVERS[(first + number) % len(SERVERS)], at)
        if answer.fault is None:
            return answer
    return None


def _ttl(answer: DnsAnswer) -> int:
    """Seconds for which an answer may be kept."""
    return answer.rrset.ttl if answer.rrset is not None else answer.negative_ttl or 0


def _aged(answer: DnsAnswer, seconds: int) -> DnsAnswer:
    """The answer with what remains of its TTL."""
    if answer.rrset is not None:
        return replace(answer, rrset=replace(answer.rrset, ttl=answer.rrset.ttl - seconds))
    return replace(answer, negative_ttl=_ttl(answer) - seconds)
