"""A scenario on real parts: HAProxies, node-to-node speaking processes, the lab's Route 53, and `failover run`.

``simulated`` plays it in the simulator, ``real`` on this machine; both end in a ``Played``, to be compared. The real
one takes from the simulated one only how far things had come before each event, and how long before: an event comes
as long after the last change of phase as it did there, however busy the machine is.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from failover import config
from failover.errors import StoreError
from failover.host import RealHost
from failover.lab.haproxy import Style, WayIn
from failover.lab.pool import RECORD, ROUTE53, ZONE_ID, LabPool, Plan, Times
from failover.lab.sessions import hot, overlaps
from failover.lab.story import Daemon
from failover.lab.witness import Sample, read_sample
from failover.model import Admin, EventKind, Pool, Request, Verb
from failover.simulator import run as simulator
from failover.simulator.faults import Fault
from failover.simulator.scenario import Cast
from failover.simulator.world import World
from failover.store.sqlite import SqliteStore

POOL = "LAB"
SLOT = 1.0  # seconds, as in life: how far a tip lags is told in slots
SCALE = 100.0  # relays redial after 0.05 s
PHASES = ("steady", "fencing", "promoting")
# Seconds until a proxy's check has noticed: the lab's are asked every 0.2 s, the simulated ones every 2 s.
FALL, RISE = 0.8, 0.4
POLL = 0.03  # seconds
WITHIN = 45.0  # seconds for what takes a few
NOTABLE = 0.5  # seconds; relays on a busy machine notice an end a little late
CALM = 1.0  # seconds in which nothing more may come at the end

HEALTH = re.compile(r"(\S+) is (up|down|unknown)|(isolated|no longer isolated)")
VOTES = re.compile(r"\((\d+ of \d+) agree\)")
NO_PHASE = "before any"
Order = tuple[str, ...]
Grouped = list[tuple[str, dict[str, list[str]]]]


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a scenario: phases and steps as they were, and who is where at the end.

    ``health``: by producer, what it was said to be, one after the other; for ``isolated`` that of the controller.
    ``votes``: how many agreed that a producer was down, at each handover that says so.
    ``admitted``: by proxy, the producers that are not in maint. ``reached``: by relay and proxy (or ``record``), whom
    it has a session with. ``records``: whom each name points to. ``assignment``: phase, active, generation, cause.
    ``split``: whether relays had two producers at once for longer than ``NOTABLE``.
    """

    order: Order
    health: Mapping[str, tuple[str, ...]]
    votes: tuple[str, ...]
    admitted: Mapping[str, frozenset[str]]
    reached: Mapping[tuple[str, str], str]
    records: tuple[str | None, ...]
    assignment: tuple[str, str | None, int, str] | None
    split: bool

    @property
    def end(self) -> tuple[object, ...]:
        """All but the order."""
        return (self.health, self.votes, self.admitted, self.reached, self.records, self.assignment, self.split)


def grouped(order: Order) -> Grouped:
    """The phases, each with its steps by proxy: between proxies there is no order, and a repeated step says nothing."""
    found: Grouped = [(NO_PHASE, {})]
    for word in order:
        if word.split()[0] in PHASES:
            found.append((word, {}))
            continue
        steps = found[-1][1].setdefault(word.partition("@")[2], [])
        if word not in steps:
            steps.append(word)
    return found


def healths(said: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What events say of producers' health and of isolation, by whom they are about, without repetitions."""
    found: dict[str, tuple[str, ...]] = {}
    for words in said:
        about = HEALTH.fullmatch(words.partition(":")[0])
        if about is None:
            continue
        who, what = about.group(1) or "isolated", about.group(2) or about.group(3)
        if found.get(who, ("",))[-1] != what:
            found[who] = (*found.get(who, ()), what)
    return found


# ---------------------------------------------------------------- in the simulator


@dataclass(frozen=True, slots=True)
class Simulated:
    """The simulated run: what came of it, and when (seconds) each phase began."""

    played: Played
    phases: tuple[float, ...]
    broken: tuple[str, ...]


def simulated(cast: Cast) -> Simulated:
    """Play it in the simulator, whose proxies' checks are as quick as the lab's."""
    worlds: list[World] = []

    class Kept(World):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            worlds.append(self)

    setup = replace(cast.setup, check_fall=FALL, check_rise=RISE)
    with patch.object(simulator, "World", Kept):
        run = simulator.play(cast.pool, cast.faults, cast.scenario.seconds, setup=setup)
    (world,) = worlds
    lines = [line for line in run.timeline if line.who == "controller"]
    begun = [line for line in lines if line.words.partition(": ")[0] in PHASES]
    a = world.disk.assignment
    records = cast.pool.records
    played = Played(
        run.order,
        healths(line.words for line in lines),
        tuple(found for line in begun for found in VOTES.findall(line.words)),
        {
            x.name: frozenset(p for p in cast.pool.names if x.admin[p] is not Admin.MAINT)
            for x in world.proxies.values()
        },
        {
            (relay.name, way.goal if way.kind == "proxy" else "record"): way.session.producer
            for relay in world.relays.values()
            for way in relay.ways
            if way.session is not None and way.session.open
        },
        tuple(record.points_to(world.names[record.label].rrset) for record in records),
        None if a is None else (a.phase.value, a.active, a.generation, a.cause.value),
        sum(run.overlap.values()) > NOTABLE,
    )
    return Simulated(played, tuple(line.at for line in begun), tuple(map(str, run.violations)))


# ---------------------------------------------------------------- places with a network between them


@dataclass(slots=True)
class Places:
    """Network namespaces, one for each place, joined by a router that can drop what goes from one to another.

    Every address is one of the loopback's (route_localnet), so that nothing of it could ever leave the machine.
    """

    hosts: Mapping[str, str]
    _prefix: str = ""
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Places:
        self._prefix = f"fo-{os.getpid()}-{id(self) & 0xFFFFFF:x}"
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def within(self, place: str) -> tuple[str, ...]:
        """Words before a command that is to run there."""
        return ("nsenter", f"--net=/run/netns/{self._name(place)}", "--")

    def cut(self, origin: str, goal: str, *, over: bool = False) -> None:
        """Drop every packet from one to the other, or do so no more."""
        words = f"iif to-{self._number(origin)} to {self.hosts[goal]} blackhole"
        _ip(f"-n {self._name('')} rule {'del' if over else 'add'} {words}")

    def _name(self, place: str) -> str:
        return f"{self._prefix}-{self._number(place) if place else 'router'}"

    def _number(self, place: str) -> int:
        return list(self.hosts).index(place)

    def _build(self) -> None:
        router = self._space("")
        self._write(router, {"ip_forward": "1"})
        for place, host in self.hosts.items():
            space, port = self._space(place), f"to-{self._number(place)}"
            _ip(f"link add {port} netns {router} type veth peer name out netns {space}")
            _ip(f"-n {router} link set {port} up")
            self._write(router, {f"conf/{port}/proxy_arp": "1"})
            _ip(f"-n {router} route add {host}/32 dev {port}")
            for address in ("127.0.0.1", host):
                _ip(f"-n {space} addr add {address}/32 dev lo")
            _ip(f"-n {space} link set out up")
            _ip(f"-n {space} route add 127.0.0.0/8 dev out src {host}")

    def _space(self, place: str) -> str:
        name = self._name(place)
        _ip(f"netns add {name}")
        self._stack.callback(_ip, f"netns del {name}")
        _ip(f"-n {name} link set lo up")
        _ip(f"-n {name} addr flush dev lo")
        self._write(name, {"conf/all/route_localnet": "1", "conf/default/route_localnet": "1"})
        return name

    @staticmethod
    def _write(space: str, settings: Mapping[str, str]) -> None:
        words = " && ".join(f"echo {value} > /proc/sys/net/ipv4/{name}" for name, value in settings.items())
        _run(["ip", "netns", "exec", space, "sh", "-c", words])


def _ip(words: str) -> None:
    _run(["ip", *words.split()])


def _run(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


# ---------------------------------------------------------------- on real parts


@dataclass(frozen=True, slots=True)
class _Act:
    """One thing to do, ``at`` seconds of the simulated clock; ``over``: to undo it."""

    at: float
    fault: Fault
    over: bool = False


class Astray(AssertionError):
    """What was waited for did not come."""


async def real(cast: Cast, told: Simulated, folder: Path, starting: asyncio.Semaphore) -> Played:
    """Play it on real parts in ``folder``. Raises Astray when they do not come as far as the simulated ones.

    ``starting`` bounds how many labs start at once: a start keeps a processor busy for seconds, and pings late.
    """
    async with AsyncExitStack() as stack:
        places = _places(cast)
        if places is not None:
            stack.enter_context(places)
        async with starting:
            lab = await stack.enter_async_context(LabPool(folder, _plan(cast, places)))
        _settle_file(lab, cast.pool)
        within = () if places is None else places.within("controller")
        daemon = Daemon(lab.file, folder / "controller.log", lab.environment, within)
        stack.push_async_callback(daemon.stop)
        return await _Stage(cast, told, lab, daemon, places).play()


def needs_root(cast: Cast) -> bool:
    """Whether it needs network namespaces."""
    return any(fault.kind.startswith("cut") for fault in cast.faults)


def _places(cast: Cast) -> Places | None:
    if not needs_root(cast):
        return None
    pool, setup = cast.pool, cast.setup
    hosts = {name: f"127.0.0.{11 + i}" for i, name in enumerate(pool.names)}
    hosts |= {f"reference-{i + 1}": f"127.0.0.{11 + len(pool.names) + i}" for i in range(len(pool.references))}
    hosts |= {f"relay-{i + 1}": f"127.0.1.{i + 1}" for i in range(setup.relays)}
    hosts |= {proxy.name: f"127.0.4.{i + 1}" for i, proxy in enumerate(pool.proxies)}
    return Places(hosts | {"controller": "127.0.5.1"})


def _plan(cast: Cast, places: Places | None) -> Plan:
    pool, setup = cast.pool, cast.setup
    health, policy = pool.health, pool.policy
    return Plan(
        producers=pool.names,
        references=len(pool.references),
        relays=setup.relays,
        proxies=max(1, len(pool.proxies)),
        scale=SCALE,
        ways=(WayIn.SOCKET,) if places is None else (WayIn.TCP,),  # a path leads into every namespace
        times=Times(
            health.interval, health.timeout, health.max_gap, policy.fail_over_after, policy.fail_back_after, SLOT
        ),
        record=bool(pool.records),
        gateless=pool.gateless,
        style={"l7": Style.REFERENCE, "l4": Style.PLAIN, "none": Style.UNCHECKED}[setup.checks],
        within={} if places is None else {name: places.within(name) for name in places.hosts},
    )


def _settle_file(lab: LabPool, pool: Pool) -> None:
    """Let the lab's file have the scenario's lease; the rest of its times it has from the plan."""
    lease = pool.lease
    words = f"lease: {{duration: {lease.duration:g}, renew: {lease.renew:g}, action_timeout: {lease.action_timeout:g}}}"
    text = re.sub(r"^lease:.*$", words, lab.file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lab.file.write_text(text, encoding="utf-8")
    loaded = config.load(lab.file).pool
    assert (loaded.health, loaded.policy, loaded.lease) == (pool.health, pool.policy, pool.lease)
    assert (loaded.fence, loaded.names) == (pool.fence, pool.names)
    assert [proxy.name for proxy in loaded.proxies] == [proxy.name for proxy in pool.proxies]


class _Stage:
    """One playing on real parts."""

    def __init__(self, cast: Cast, told: Simulated, lab: LabPool, daemon: Daemon, places: Places | None) -> None:
        self._cast = cast
        self._told = told
        self._lab = lab
        self._daemon = daemon
        self._places = places
        self._host = RealHost()
        self._order: list[str] = []
        self._said: list[str] = []  # of health and isolation
        self._votes: list[str] = []
        self._phases: list[float] = []  # CLOCK_BOOTTIME
        self._read = 0  # the journal's last row that was read
        self._asked = 0

    async def play(self) -> Played:
        """From the first reading to the end."""
        await self._open_only(self._cast.setup.active or self._cast.pool.preferred)
        self._daemon.start()
        for act in self._acts():
            await self._due(act.at)
            await self._do(act.fault, over=act.over)
        played = await self._now()
        deadline = self._host.now().mono + WITHIN
        while not self._alike(played) and self._host.now().mono < deadline:
            await self._host.sleep(POLL)
            played = await self._now()
        await self._host.sleep(CALM)
        return await self._now()

    def _alike(self, played: Played) -> bool:
        wanted = self._told.played
        return played.end == wanted.end and grouped(played.order) == grouped(wanted.order)

    def _acts(self) -> list[_Act]:
        acts = []
        for fault in self._cast.faults:
            assert fault.on is None, "moments cannot be hit on real parts"
            acts.append(_Act(fault.at, fault))
            if fault.lasts is not None:
                acts.append(_Act(fault.at + fault.lasts, fault, over=True))
        return sorted(acts, key=lambda act: act.at)

    async def _due(self, at: float) -> None:
        """Wait until it has come as far as the simulated world before ``at``, and then as long as there."""
        before = [moment for moment in self._told.phases if moment <= at]
        assert before, "nothing may happen before the pool is steady"
        await self._until(lambda: self._came(len(before)), f"phase {len(before)} of the simulated ones begins")
        moment = self._phases[len(before) - 1] + at - before[-1]
        await self._host.sleep(max(0.0, moment - self._host.now().mono))

    def _came(self, phases: int) -> bool:
        self._follow()
        return len(self._phases) >= phases

    async def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline = self._host.now().mono + WITHIN
        while not true():
            if self._host.now().mono > deadline:
                raise Astray(
                    f"within {WITHIN:g} s it did not come to be that {what}\n"
                    f"real:      {self._order}\nsimulated: {list(self._told.played.order)}\n"
                    f"{self._daemon.log.read_text(errors='replace')[-6000:] if self._daemon.log.exists() else ''}"
                )
            await self._host.sleep(POLL)

    # ------------------------------------------------------------ what is seen

    def _follow(self) -> None:
        """Read what is new in the daemon's journal."""
        with self._store() as store:
            for entry in () if store is None else store.history(after=self._read):
                self._read = entry.id
                event, detail = entry.event, entry.event.detail
                if event.kind is EventKind.PHASE_CHANGED:
                    self._order.append(f"{detail['phase']} {detail['target'] or detail['active']}")
                    self._phases.append(event.at.mono)
                    self._votes.extend(VOTES.findall(event.reason))
                elif event.kind in (EventKind.HEALTH_CHANGED, EventKind.ISOLATED):
                    self._said.append(event.reason)
                elif event.kind is EventKind.STEP_DONE and detail["result"] == "sent" and "gate" in detail:
                    self._order.append(f"{detail['kind']} {detail['gate']}")

    @contextmanager
    def _store(self) -> Iterator[SqliteStore | None]:
        try:
            store = SqliteStore.read(self._lab.folder / "state", POOL)
        except StoreError:  # not made yet
            yield None
            return
        try:
            yield store
        finally:
            store.close()

    def _all_with(self, producer: str) -> bool:
        ways = len(self._cast.pool.proxies) or len(self._cast.pool.records)
        reached = self._lab.reached()
        return len(reached) == self._cast.setup.relays * ways and set(reached.values()) == {producer}

    async def _now(self) -> Played:
        """What is so now: the journal's order; and from outside, who is where."""
        self._follow()
        lab = self._lab
        admitted = {name: (await self._sample(name)).admitted for name in lab.proxies}
        reached = {(relay, way if way in lab.proxies else "record"): who for (relay, way), who in lab.reached().items()}
        with self._store() as store:
            a = None if store is None else store.load().assignment
        assignment = None if a is None else (a.phase.value, a.active, a.generation, a.cause.value)
        split = any(found.end - found.start > NOTABLE for found in overlaps(hot(lab.sessions())))
        records, order, votes = await self._records(), tuple(self._order), tuple(self._votes)
        return Played(order, healths(self._said), votes, admitted, reached, records, assignment, split)

    async def _sample(self, proxy: str) -> Sample:
        lab, now = self._lab.proxies[proxy], self._host.now().mono
        answer = await lab.process.ask("show stat")
        return read_sample(answer, lab.config.backend, self._cast.pool.names, now, now)

    async def _records(self) -> tuple[str | None, ...]:
        if not self._cast.pool.records:
            return ()
        zones = (await self._lab.tell(ROUTE53, "state"))["zones"]
        words = [set(line.split()) for line in zones[ZONE_ID]["sets"] if line.startswith(f"{RECORD} ")]
        found = [name for name in self._cast.pool.names if any(self._lab.addresses[name].host in row for row in words)]
        return (found[0] if len(found) == 1 else None,)

    # ------------------------------------------------------------ what is done

    async def _open_only(self, active: str) -> None:
        """Let every proxy be open to this one alone, whatever its own file says."""
        for proxy in self._lab.proxies:
            for producer in self._cast.pool.names:
                act = self._lab.open_by_hand if producer == active else self._lab.close_by_hand
                await act(proxy, producer)
        await self._until(lambda: self._all_with(active), f"every relay is with {active}")

    async def _do(self, fault: Fault, *, over: bool) -> None:
        acts: Mapping[str, Callable[[Fault, bool], Awaitable[None]]] = {
            "stop": self._stop,
            "start": self._start,
            "hang": self._hang,
            "hand-open": self._hand,
            "hand-close": self._hand,
            "reload": self._reload,
            "restart": self._restart,
            "lag": self._lag,
            "cut": self._cut,
            "kill": self._kill_controller,
            "stop-controller": self._stop_controller,
            "ask": self._ask,
            "lose-dns-replies": self._lose_replies,
        }
        await acts[fault.kind](fault, over)

    async def _stop(self, fault: Fault, over: bool) -> None:
        for name in fault.targets:
            if over:
                await self._start_one(name, "current")
            elif name in self._lab.proxies:
                await self._lab.proxies[name].process.dump()
                await self._lab.proxies[name].process.kill()
            else:
                self._lab.kill(name)

    async def _start(self, fault: Fault, over: bool) -> None:
        for name in fault.targets:
            await self._start_one(name, str(fault.args.get("state", "current")))

    async def _start_one(self, name: str, state: str) -> None:
        if name not in self._lab.proxies:
            await self._lab.restart(name)
            return
        self._forget(name, state)
        await self._lab.proxies[name].process.start()

    async def _reload(self, fault: Fault, over: bool) -> None:
        for name in fault.targets:
            await self._lab.proxies[name].process.dump()
            self._forget(name, str(fault.args.get("state", "current")))
            await self._lab.proxies[name].process.reload()

    async def _restart(self, fault: Fault, over: bool) -> None:
        for name in fault.targets:
            keep = str(fault.args.get("state", "current")) == "current"
            await self._lab.restart_proxy(name, keep_state=keep)

    async def _lag(self, fault: Fault, over: bool) -> None:
        (name,) = fault.targets
        slots = float(str(fault.args.get("slots", 400.0)))
        await (self._lab.tell(name, "heal") if over else self._lab.tell(name, "lag", f"{slots:.0f}"))

    def _forget(self, proxy: str, state: str) -> None:
        assert state in ("current", "none"), f"no old state file is kept here: {state}"
        if state == "none":
            self._lab.proxies[proxy].state_file.unlink(missing_ok=True)

    async def _hang(self, fault: Fault, over: bool) -> None:
        for name in fault.targets:
            if name in self._lab.proxies:
                process = self._lab.proxies[name].process
                process.resume() if over else process.suspend()
            else:
                self._lab.resume(name) if over else self._lab.suspend(name)

    async def _hand(self, fault: Fault, over: bool) -> None:
        act = self._lab.open_by_hand if fault.kind == "hand-open" else self._lab.close_by_hand
        for name in fault.targets:
            await act(name, str(fault.args["producer"]))

    async def _cut(self, fault: Fault, over: bool) -> None:
        others = fault.args["from"]
        assert self._places is not None
        assert isinstance(others, tuple)
        for one in fault.targets:
            for other in others:
                self._places.cut(one, other, over=over)
                self._places.cut(other, one, over=over)

    async def _lose_replies(self, fault: Fault, over: bool) -> None:
        if over:
            await self._lab.tell(ROUTE53, "heal")
        else:
            await self._lab.tell(ROUTE53, "only", "ChangeResourceRecordSets")
            await self._lab.tell(ROUTE53, "cut")

    async def _kill_controller(self, fault: Fault, over: bool) -> None:
        if over:
            self._daemon.start()
        else:
            await self._daemon.kill()

    async def _stop_controller(self, fault: Fault, over: bool) -> None:
        if over:
            self._daemon.start()
        else:
            await self._daemon.stop()

    async def _ask(self, fault: Fault, over: bool) -> None:
        host, now = self._host, self._host.now()
        producer = str(fault.args.get("producer", "")) or None
        store = SqliteStore(self._lab.folder / "state", pool=POOL, boot=now.boot, clock=host.now, check=False)
        try:
            verb = Verb(str(fault.args["verb"]))
            store.submit(Request(host.new_id(), verb, now, now.after(60.0), "operator", producer))
        finally:
            store.close()
