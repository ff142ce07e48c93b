"""Campaigns: a plan drawn from each seed, many runs on all cores, and what they add up to.

A plan is the whole of a run: pool, surroundings and faults. Whatever breaks is made smaller by leaving faults out.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from failover.model import (
    Address,
    FenceSettings,
    GateKind,
    PolicySettings,
    Pool,
    Power,
    Producer,
    Proxy,
    Record,
    Relay,
    Rfc2136Zone,
    Route53Zone,
)
from failover.simulator.clairvoyant import clairvoyant
from failover.simulator.faults import KINDS, Fault, Value, span
from failover.simulator.host import draw, fraction
from failover.simulator.judge import EDGES
from failover.simulator.run import Run, Setup, Violation, play

T = TypeVar("T")

LONG, BRISK = 7200.0, 3000.0  # seconds of a run with the file's own times, and with short ones
WIRE_SHARE = 20  # one seed in so many goes through the text of the real protocols
MOST_VIOLATIONS = 50  # that a summary keeps
MINIMISING = 60  # runs that making one plan smaller may take

MOMENTS = ("fencing", "promoting", "step")
LASTING = (15.0, 45.0, 100.0, 240.0, 420.0, 900.0, 1500.0)

NODES = ("stop", "stop", "hang", "replay", "crash-loop", "slow", "lag", "stick", "fork", "power-off")
NETWORK = ("cut", "cut", "cut-one-way", "slow-path", "lossy", "lie", "reference", "site-cut")
PROXIES = ("hang-proxy", "stop-proxy", "reload", "reload", "restart", "restart", "hand-open", "hand-close", "late")
MACHINE = ("kill", "crash", "crash", "suspend", "freeze", "step-clock", "drift", "slow-ticks", "reload-file", "second")
STATE = ("disk-full", "disk-broken", "lose-acks", "conflict", "controller-power")
DNS = ("throttle", "hang-dns", "refuse-dns", "pending", "lose-dns-replies", "late-dns", "hand-point", "freeze-server")
PEOPLE = ("switchover", "switchover", "force", "pause", "cordon", "pin", "release")
TAMPER = ("roll-back", "delete-state")
AGENTS = ("agent-down", "agent-down", "agent-hang", "agent-slow", "agent-kill", "agent-kill", "host-reboot")
KEYS = ("credentials-by-hand", "credentials-by-hand", "node-restart", "node-restart", "metrics-silent", "kes-expire")
SWITCHES = ("power-hang", "power-lies", "power-lose-reply")
HOSTS = (*AGENTS, *KEYS, *SWITCHES, "firewall-flush")

GATES: Mapping[str, tuple[GateKind, ...]] = {  # of the producers' own, in the profiles that have such
    "hosts": (GateKind.FORGING,),
    "forging": (GateKind.FORGING,),
    "confirmed": (GateKind.FORGING, GateKind.POWER),
    "firewall": (GateKind.FIREWALL,),
    "relays": (),
}

PROFILES: Mapping[str, tuple[str, ...]] = {
    "producers": NODES,
    "handovers": (
        "stop",
        "stop",
        "hang",
        "lag",
        "lag",
        "hang-proxy",
        "late",
        "restart",
        "force",
        "force",
        "crash",
        "switchover",
        "cut",
    ),
    "nodes": (*NODES, *NODES, "kill", "switchover"),
    "network": (*NETWORK, *NETWORK, *NODES),
    "proxies": (*PROXIES, *PROXIES, "stop", "hang", "cut"),
    "controller": (*MACHINE, *STATE, "stop", "hang", "switchover", "hand-open", "cut"),
    "people": (*PEOPLE, *PEOPLE, *NODES, "hand-open", "hand-close"),
    "sites": ("site-power", "site-power", "site-cut", "site-cut", "stop", "restart", "kill"),
    "names": (*DNS, *NODES, "kill", "switchover", "cut"),
    "everything": (*NODES, *NETWORK, *PROXIES, *MACHINE, *STATE, *DNS, *PEOPLE),
    "tampered": (*TAMPER, *NODES, *PROXIES, "kill"),
    "hosts": (*AGENTS, *KEYS, *AGENTS, *KEYS, *NODES, *PROXIES, *PEOPLE, "cut", "cut-one-way", "slow-path", "crash"),
    "forging": (
        *AGENTS,
        *KEYS,
        *AGENTS,
        *KEYS,
        *NODES,
        *PEOPLE,
        "cut",
        "cut",
        "cut-one-way",
        "slow-path",
        "crash",
        "kill",
    ),
    "confirmed": (
        *AGENTS,
        *KEYS,
        *SWITCHES,
        *SWITCHES,
        *NODES,
        *NODES,
        "switchover",
        "force",
        "cut",
        "cut",
        "crash",
        "kill",
    ),
    "firewall": (
        *AGENTS,
        "firewall-flush",
        "firewall-flush",
        "node-restart",
        *NODES,
        *PEOPLE,
        "cut",
        "cut-one-way",
        "crash",
    ),
    "relays": (
        *NODES,
        *DNS,
        "relay-agent-down",
        "relay-agent-down",
        "cut",
        "cut",
        "switchover",
        "switchover",
        "kill",
        "crash",
    ),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One run before it is run. ``seconds`` is without the time in which everything has to come right."""

    seed: int
    profile: str
    pool: Pool
    setup: Setup
    faults: tuple[Fault, ...]
    seconds: float

    def run(self) -> Run:
        """Play it."""
        return play(self.pool, self.faults, self.seconds, seed=self.seed, setup=self.setup, settle=True)


class _Dice:
    """Chance for drawing plans: a seed and how often it was asked."""

    def __init__(self, seed: int) -> None:
        self._seed, self._asked = seed, 0

    def number(self) -> float:
        self._asked += 1
        return fraction(draw(self._seed, "plan", self._asked))

    def below(self, count: int) -> int:
        return int(self.number() * count)

    def pick(self, among: Sequence[T]) -> T:
        return among[self.below(len(among))]


# ---------------------------------------------------------------- pools


def default_pool(
    *,
    producers: int = 2,
    proxies: int = 2,
    references: int = 1,
    records: int = 0,
    route53: bool = True,
    require: str = "reachable",
    hard_stop_after: float | None = 5.0,
    pages: int = 0,
    policy: PolicySettings = PolicySettings(),  # noqa: B008  frozen
    gates: tuple[GateKind, ...] = (),
    relays: int = 0,
) -> Pool:
    """A pool that is nobody's: main and backup behind two proxies, the last ``pages`` of which have stats pages.

    ``gates`` are those on each producer's own host; ``relays`` are managed.
    """
    names = ("main", "backup", "spare")[:producers]
    zone = Route53Zone("Z1") if route53 else Rfc2136Zone(Address("127.0.0.53", 53), "example.com.", "key.", "c2VjcmV0")
    targets = {name: f"203.0.113.{10 * (i + 1)}" for i, name in enumerate(names)}
    return Pool(
        name="EXMPL",
        network="preview",
        magic=2,
        producers=tuple(_producer(n, i, gates) for i, n in enumerate(names)),
        proxies=tuple(
            Proxy(
                f"proxy-{i + 1}",
                "producers",
                {n: n for n in names},
                socket=Path(f"/run/proxy-{i + 1}.sock") if i < proxies - pages else None,
                stats=f"http://127.0.0.{i + 31}:8404/stats" if i >= proxies - pages else None,
                watch="watch",
                hard_stop_after=hard_stop_after,
            )
            for i in range(proxies)
        ),
        references=tuple(Address(f"127.0.0.{i + 91}", 3001) for i in range(references)),
        records=tuple(
            Record(f"bp{i or ''}.example.com.", f"bp{i or ''}.example.com.", targets, zone) for i in range(records)
        ),
        relays=tuple(
            Relay(f"relay-{i + 1}", Address(f"127.0.0.{i + 51}", 3001), agent=f"relay-{i + 1}", managed=True)
            for i in range(relays)
        ),
        policy=policy,
        fence=FenceSettings(require, proxies_are_only_path=require == "confirmed" and not gates),
    )


def _producer(name: str, number: int, gates: tuple[GateKind, ...]) -> Producer:
    address = Address(f"127.0.0.{number + 11}", 3001)
    power = Power(("/usr/bin/off", name), ("/usr/bin/power", name)) if GateKind.POWER in gates else None
    return Producer(name, address, agent=name if gates else None, gates=gates, power=power)


def _pool(dice: _Dice, profile: str, *, wire: bool) -> Pool:
    brisk = dice.number() < 0.5
    policy = PolicySettings(60.0, 300.0) if brisk else PolicySettings()
    if dice.number() < 0.1:
        policy = replace(policy, fail_back="manual")
    names = profile == "names" or dice.number() < 0.15
    gateless = names and dice.number() < 0.4
    require = "none" if gateless else "confirmed" if dice.number() < 0.25 else "reachable"
    return default_pool(
        producers=3 if dice.number() < 0.2 else 2,
        proxies=0 if gateless else dice.pick((1, 2, 2, 2, 3)),
        references=dice.pick((0, 1, 1, 2)),
        records=int(names),
        route53=dice.number() < 0.7,
        require=require,
        hard_stop_after=None if dice.number() < 0.2 and require != "confirmed" else 5.0,
        pages=int(wire),
        policy=policy,
    )


def _hosts_pool(dice: _Dice, profile: str) -> Pool:
    """A pool whose producers have gates of their own, or whose relays are managed."""
    brisk = dice.number() < 0.5
    policy = PolicySettings(60.0, 300.0) if brisk else PolicySettings()
    if dice.number() < 0.1:
        policy = replace(policy, fail_back="manual")
    proxies = profile == "hosts" or (profile == "confirmed" and dice.number() < 0.4)
    gateless = profile == "relays"
    return default_pool(
        producers=3 if dice.number() < 0.25 else 2,
        proxies=dice.pick((1, 2, 2)) if proxies else 0,
        references=dice.pick((0, 1, 1, 2)),
        records=1 if gateless or dice.number() < 0.15 else 0,
        route53=dice.number() < 0.7,
        require="none" if gateless else "confirmed" if profile == "confirmed" else "reachable",
        policy=policy,
        gates=GATES[profile],
        relays=dice.pick((1, 2, 3)) if gateless or dice.number() < 0.3 else 0,
    )


def _setup(dice: _Dice, pool: Pool, *, wire: bool) -> Setup:
    strict = pool.fence.require == "confirmed"
    leaky = not strict and dice.number() < 0.08
    return Setup(
        checks="l7" if strict else dice.pick(("l7", "l7", "l7", "l4", "none")),
        relays=dice.pick((1, 2, 3)),
        direct=(pool.names[-1],) if leaky and dice.number() < 0.5 else (),
        duplex=(pool.names[0],) if leaky and dice.number() < 0.5 else (),
        served_only=(pool.names[-1],) if dice.number() < 0.05 else (),
        assigned=dice.number() < 0.85,
        wire=wire,
    )


# ---------------------------------------------------------------- faults


def plan(seed: int, *, pool: Pool | None = None, profile: str | None = None) -> Plan:
    """The plan that a seed stands for, for a pool of its own or for the one that is given."""
    dice = _Dice(seed)
    name = profile or tuple(PROFILES)[seed % len(PROFILES)]
    wire = seed % WIRE_SHARE == WIRE_SHARE - 1
    drawn = _hosts_pool(dice, name) if name in GATES else _pool(dice, name, wire=wire)
    used = pool or drawn
    setup = _setup(dice, used, wire=wire)
    if name in GATES:
        fuse = 150.0 if used.policy.fail_over_after > 200.0 and dice.number() < 0.25 else None
        setup = replace(setup, direct=(), duplex=(), fuse=fuse)
    if pool is not None:
        setup = replace(setup, assigned=True)
    seconds = LONG if used.policy.fail_over_after > 100 else BRISK
    faults = []
    at = 60.0 + 120.0 * dice.number()
    waiting = 0.7 if name == "handovers" else 0.15
    while at < seconds:
        on = dice.pick(MOMENTS) if dice.number() < waiting else None
        fault = _fault(dice, PROFILES[name], used, at, seconds, on)
        if fault is not None:
            faults.append(fault)
        at += seconds / 40 * 2 * dice.number()
    return Plan(seed, name, used, setup, tuple(faults), seconds)


def _fault(dice: _Dice, kinds: Sequence[str], pool: Pool, at: float, seconds: float, on: str | None) -> Fault | None:
    kind = dice.pick(kinds)
    lasts = dice.pick(LASTING) * (0.5 + dice.number())
    if seconds < LONG:
        lasts /= 4
    producer = dice.pick(pool.names)
    proxy = dice.pick([p.name for p in pool.proxies]) if pool.proxies else ""
    if kind in ("cut", "cut-one-way", "slow-path", "lossy", "site-power", "site-cut"):
        return _of_the_network(dice, kind, pool, at, lasts, on)
    if kind in (*HOSTS, "relay-agent-down"):
        return _of_hosts(dice, kind, pool, producer, at, lasts, on)
    if kind in PEOPLE:
        return _of_people(dice, kind, producer, at, lasts, on)
    if kind in DNS:
        if not pool.records:
            return None
        args: dict[str, Value] = {"producer": producer} if kind == "hand-point" else {}
        args |= {"seconds": 5.0 + 60.0 * dice.number()} if kind == "late-dns" else {}
        return Fault(at, kind, (pool.records[0].label,), None if kind == "hand-point" else lasts, args, on)
    if kind in (*PROXIES, "hang-proxy", "stop-proxy"):
        return _of_proxies(dice, kind, proxy, producer, at, lasts, on) if proxy else None
    if kind in (*MACHINE, *STATE, *TAMPER):
        return _of_the_machine(dice, kind, at, lasts, on)
    if kind == "reference" or kind == "lie":
        if not pool.references:
            return None
        name = f"reference-{1 + dice.below(len(pool.references))}"
        return Fault(at, "stop" if kind == "reference" else "lie", (name,), lasts, {}, on)
    args = {}
    if kind == "crash-loop":
        down = 10.0 + 100.0 * dice.number()
        args = {"down": down, "up": 10.0 + 80.0 * dice.number()}
        lasts *= 2
    elif kind == "slow":
        args = {"seconds": 1.0 + 6.0 * dice.number()}
    return Fault(at, kind, (producer,), lasts, args, on)


def _of_the_network(dice: _Dice, kind: str, pool: Pool, at: float, lasts: float, on: str | None) -> Fault:
    names = (*pool.names, *(p.name for p in pool.proxies))
    if kind == "site-power":
        who = tuple(n for n in (*names, "controller") if dice.number() < 0.4) or (pool.preferred,)
        return Fault(at, "power-off", who, lasts, {}, on)
    everybody = ("controller", *names, "relay-1", *(f"reference-{i + 1}" for i in range(len(pool.references))))
    if kind == "site-cut":
        here = tuple(n for n in everybody if dice.number() < 0.5) or ("controller",)
        there = tuple(n for n in everybody if n not in here) or (pool.preferred,)
        return Fault(at, "cut" if dice.number() < 0.7 else "cut-one-way", here, lasts, {"from": there}, on)
    origin = dice.pick(("controller", "controller", *(p.name for p in pool.proxies), "relay-1"))
    goal = dice.pick([n for n in names if n != origin])
    args: dict[str, Value] = {"from": (goal,)}
    if kind == "slow-path":
        args["seconds"] = dice.pick((0.5, 2.0, 4.0, 6.0, 12.0))
    elif kind == "lossy":
        args["share"] = 0.1 + 0.5 * dice.number()
    return Fault(at, kind, (origin,), lasts, args, on)


def _of_proxies(dice: _Dice, kind: str, proxy: str, producer: str, at: float, lasts: float, on: str | None) -> Fault:
    if kind in ("hang-proxy", "late"):
        return Fault(at, "hang", (proxy,), lasts if kind == "hang-proxy" else 5.0 + 20.0 * dice.number(), {}, on)
    if kind == "stop-proxy":
        return Fault(at, "stop", (proxy,), lasts, {}, on)
    if kind in ("reload", "restart"):
        return Fault(at, kind, (proxy,), None, {"state": dice.pick(("current", "current", "stale", "none"))}, on)
    return Fault(at, kind, (proxy,), None, {"producer": producer}, on)


def _of_hosts(
    dice: _Dice, kind: str, pool: Pool, producer: str, at: float, lasts: float, on: str | None
) -> Fault | None:
    if kind == "relay-agent-down":
        name = dice.pick([relay.name for relay in pool.relays]) if pool.relays else ""
        return Fault(at, "agent-down", (name,), lasts, {}, on) if name else None
    args: dict[str, Value] = {}
    if kind == "agent-kill":
        args, on = {"seconds": 0.05 + 0.6 * dice.number()}, "step"
    elif kind == "agent-slow":
        args = {"seconds": dice.pick((0.5, 2.0, 5.0, 12.0))}
    elif kind == "credentials-by-hand":
        args = {"keys": dice.pick(("back", "back", "away")), "node": "told" if dice.number() < 0.7 else "untold"}
    elif kind in ("node-restart", "host-reboot"):
        args = {"seconds": 5.0 + 80.0 * dice.number()}
    elif kind == "power-lies":
        args = {"about": dice.pick(("order", "order", "status"))}
    return Fault(at, kind, (producer,), lasts if KINDS[kind].undoes else None, args, on)


def _of_people(dice: _Dice, kind: str, producer: str, at: float, lasts: float, on: str | None) -> Fault:
    args: dict[str, Value] = {"verb": kind, "producer": producer}
    if kind == "force":
        args |= {"verb": "switchover", "force": True}
    if kind == "release":
        return Fault(at, "ask", (), None, {"verb": "release"}, on)
    if kind in ("pause", "cordon", "pin") or dice.number() < 0.7:
        args["seconds"] = lasts
    if kind == "pause":
        args.pop("producer")
    return Fault(at, "ask", (), None, args, on)


def _of_the_machine(dice: _Dice, kind: str, at: float, lasts: float, on: str | None) -> Fault:
    who, args = ("controller",), dict[str, Value]()
    short = min(lasts, 300.0)
    if kind == "controller-power":
        return Fault(at, "power-off", who, short, {}, on)
    if kind == "kill":
        return Fault(at, kind, who, 2.0 if dice.number() < 0.6 else short, {}, on)
    if kind == "crash":
        args = {"call": float(1 + dice.below(30)), "point": dice.pick(("before", "effect", "reply"))}
        return Fault(at, kind, who, 60.0, args, on or dice.pick((None, "fencing", "promoting")))
    if kind == "step-clock":
        return Fault(at, kind, who, None, {"seconds": dice.pick((-7200.0, -60.0, 90.0, 86_400.0))}, on)
    if kind == "drift":
        args = {"ppm": dice.pick((-500.0, 200.0, 5000.0))}
    elif kind == "slow-ticks":
        args, lasts = {"seconds": dice.pick((0.2, 1.0, 4.0, 11.0))}, short
    elif kind == "roll-back":
        args = {"seconds": dice.pick((60.0, 600.0, 3600.0))}
    elif kind in ("lose-acks", "conflict"):
        args = {"count": float(1 + dice.below(4))}
    return Fault(at, kind, who, lasts if KINDS[kind].undoes else None, args, on)


# ---------------------------------------------------------------- many runs


@dataclass(frozen=True, slots=True)
class Result:
    """What one run adds to a summary."""

    seed: int
    profile: str
    require: str
    hours: float
    faults: Mapping[str, int]
    violations: tuple[Violation, ...]
    handovers: int
    outage: float
    best: float  # the clairvoyant's outage
    overlap: Mapping[str, float]
    ticks: int
    edges: Mapping[str, int]
    pairs: tuple[tuple[str, str], ...]
    fair: bool  # only producers fail, and the times are the file's own: comparable with a clairvoyant


def result(seed: int, *, pool: Pool | None = None, profile: str | None = None) -> Result:
    """Run one seed."""
    planned = plan(seed, pool=pool, profile=profile)
    run = planned.run()
    kinds = [fault.kind for fault in run.happened]
    quarter = planned.seconds / 12
    pairs = {
        (min(a.kind, b.kind), max(a.kind, b.kind))
        for i, a in enumerate(run.happened)
        for b in run.happened[i + 1 :]
        if b.at - a.at < (a.lasts or quarter)
    }
    return Result(
        seed,
        planned.profile,
        planned.pool.fence.require,
        run.seconds / 3600,
        dict(Counter(kinds)),
        run.violations,
        run.handovers,
        run.outage,
        clairvoyant(planned.pool, run.points, run.seconds),
        run.overlap,
        run.ticks,
        run.edges,
        tuple(sorted(pairs)),
        planned.profile == "producers" and planned.seconds == LONG and _comparable(planned),
    )


def _comparable(planned: Plan) -> bool:
    """Whether a clairvoyant is a fair measure: there are gates, an assignment, and references to see lag by."""
    pool = planned.pool
    return planned.setup.assigned and not pool.gateless and bool(pool.references) and planned.setup.checks == "l7"


def _one(job: tuple[int, Pool | None, str | None]) -> Result:
    seed, pool, profile = job
    return result(seed, pool=pool, profile=profile)


@dataclass(slots=True)
class Summary:
    """What a campaign adds up to."""

    results: list[Result] = field(default_factory=list)

    def add(self, one: Result) -> None:
        """Count one more run."""
        self.results.append(one)

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return len(self.results)

    @property
    def violations(self) -> list[tuple[int, Violation]]:
        """Seeds that broke an invariant, each with the first one; at most 50."""
        found = [(r.seed, r.violations[0]) for r in self.results if r.violations]
        return found[:MOST_VIOLATIONS]

    def ratios(self) -> list[tuple[float, int]]:
        """How much longer than a clairvoyant's our outages were, with the seeds, of runs in which that can be asked."""
        return sorted((r.outage / r.best, r.seed) for r in self.results if r.fair and r.best >= 60.0)

    def sentences(self) -> Iterator[str]:
        """The summary in words."""
        hours = sum(r.hours for r in self.results)
        broken = sum(1 for r in self.results if r.violations)
        yield f"{self.runs} runs, {hours:.0f} simulated hours, {sum(r.ticks for r in self.results)} ticks"
        faults: Counter[str] = Counter()
        for one in self.results:
            faults.update(one.faults)
        yield f"{sum(faults.values())} faults: {', '.join(f'{kind} {n}' for kind, n in faults.most_common())}"
        yield f"{sum(r.handovers for r in self.results)} handovers"
        overlap = _added(r.overlap for r in self.results)
        whys = ", ".join(f"{why} {span(s)}" for why, s in sorted(overlap.items())) or "never"
        yield f"two producers reachable at once, by what allowed it: {whys}"
        ratios = self.ratios()
        if ratios:
            middle, (worst, seed) = median(r for r, _ in ratios), ratios[-1]
            yield (
                f"outages against a clairvoyant with the same waiting times, {len(ratios)} runs: "
                f"median {middle:.3f}, worst {worst:.2f} (seed {seed})"
            )
        longest = max(self.results, key=lambda r: r.outage, default=None)
        if longest is not None:
            outages = [r.outage for r in self.results]
            yield f"outage: median {span(median(outages))}, worst {span(longest.outage)} (seed {longest.seed})"
        yield from self._coverage()
        yield f"violations: {broken}" if broken else "violations: none"

    def _coverage(self) -> Iterator[str]:
        """Which moves of the phase table, and which pairs of faults at the same time, there were."""
        edges: Counter[str] = Counter()
        pairs: set[tuple[str, str]] = set()
        for one in self.results:
            edges.update(one.edges)
            pairs.update(one.pairs)
        never = [edge for edge in EDGES if not edges[edge]]
        seen = ", ".join(f"{edge} {edges[edge]}" for edge in EDGES if edges[edge])
        yield f"phase table: {len(EDGES) - len(never)} of {len(EDGES)} moves: {seen}"
        if never:
            yield f"moves that never happened: {', '.join(never)}"
        kinds = len(KINDS)
        yield f"pairs of faults at the same time: {len(pairs)} of {kinds * (kinds + 1) // 2}"

    def document(self) -> dict[str, Any]:
        """The summary for scripts."""
        ratios = self.ratios()
        return {
            "runs": self.runs,
            "hours": sum(r.hours for r in self.results),
            "ticks": sum(r.ticks for r in self.results),
            "handovers": sum(r.handovers for r in self.results),
            "faults": dict(sum((Counter(r.faults) for r in self.results), Counter())),
            "overlap_seconds": _added(r.overlap for r in self.results),
            "outage_ratio_median": median(r for r, _ in ratios) if ratios else None,
            "outage_ratio_worst": {"ratio": ratios[-1][0], "seed": ratios[-1][1]} if ratios else None,
            "violations": [{"seed": seed, "name": v.name, "at": v.at, "words": v.words} for seed, v in self.violations],
        }


def _added(tables: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for table in tables:
        for name, value in table.items():
            total[name] = total.get(name, 0.0) + value
    return total


def campaign(
    seeds: Sequence[int],
    *,
    pool: Pool | None = None,
    profile: str | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, broken: None,
    summary: Summary | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Summary:
    """Run every seed, in ``jobs`` processes. ``progress`` is told how many are done, and how many broke.

    ``summary``, if given, is filled as it goes, so that an interrupted campaign can still be told. ``enough`` is asked
    after each run whether to leave it at that.
    """
    found = summary if summary is not None else Summary()
    work = [(seed, pool, profile) for seed in seeds]
    broken = 0
    if jobs <= 1:
        for job in work:
            found.add(_one(job))
            broken += bool(found.results[-1].violations)
            progress(found.runs, broken)
            if enough():
                break
        return found
    # Spawned, not forked: the parent may have threads (a progress display).
    with multiprocessing.get_context("spawn").Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as workers:
        for one in workers.imap_unordered(_one, work):
            found.add(one)
            broken += bool(one.violations)
            progress(found.runs, broken)
            if enough():
                workers.terminate()
                break
    found.results.sort(key=lambda r: r.seed)
    return found


def minimise(planned: Plan, violation: Violation) -> Plan:
    """The same plan with as few faults as still break the same invariant."""
    kept, runs = planned, 0

    def breaks(faults: tuple[Fault, ...]) -> bool:
        nonlocal runs
        runs += 1
        tried = replace(kept, faults=faults)
        return any(v.name == violation.name for v in tried.run().violations)

    late = tuple(f for f in kept.faults if f.at <= violation.at)
    if len(late) < len(kept.faults) and breaks(late):
        kept = replace(kept, faults=late)
    size = max(1, len(kept.faults) // 2)
    while runs < MINIMISING:
        for start in range(0, len(kept.faults), size):
            rest = kept.faults[:start] + kept.faults[start + size :]
            if len(rest) < len(kept.faults) and runs < MINIMISING and breaks(rest):
                kept = replace(kept, faults=rest)
                break
        else:
            if size == 1:
                break
            size //= 2
    return kept
