"""Split brain: everything that says that two producers may be reachable, by six kinds of evidence. Pure.

| kind | evidence | counts as split brain |
|---|---|---|
| split-brain | a gate is open for a producer that is not to be let in | yes |
| sessions-linger | its gate is closed, and sessions of it run | yes |
| proxies-disagree | answering proxies serve different producers | yes |
| record-divides | a record, or a server's answer, leads to a producer that is up and not active | without any gate |
| both-forge | the about-to-lead counter of a producer rises, and nothing shuts it out for sure | yes |
| tips-diverge | nodes that are up stand on two chains | between two of our producers |

What was found once is found on for as long as nobody can look again: a proxy that falls silent, a record that is not
read, two nodes that have no block in common any more. So neither silence nor a restart heals anything.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace

from . import fence, nodes, signposts
from .board import Way
from .hostgates import GateTrack
from .model import (
    HOST_KINDS,
    Admin,
    Assignment,
    Gate,
    GateKind,
    Health,
    Instant,
    PassedOver,
    Phase,
    Record,
    ServerView,
)
from .signposts import RecordTrack
from .situation import Situation
from .tips import Apart, Block

GATE = "split-brain"
SESSIONS = "sessions-linger"
PROXIES = "proxies-disagree"
RECORD = "record-divides"
FORGE = "both-forge"
TIPS = "tips-diverge"
KINDS = (GATE, SESSIONS, PROXIES, RECORD, FORGE, TIPS)
ALL_PROXIES = "proxies"  # where proxies disagree
NOTHING = "nothing to repair"  # what rule 13 says when it has no step
HASH = 8  # characters of a hash that are shown

Known = Mapping[tuple[str, str], Instant]


@dataclass(frozen=True, slots=True)
class Split:
    """One piece of evidence. ``producers`` are those that it shows to be reachable, or apart."""

    kind: str
    where: str
    what: str
    counts: bool
    producers: tuple[str, ...]
    silent: bool = False  # it cannot be looked at just now

    @property
    def key(self) -> tuple[str, str]:
        """What it is about."""
        return (self.kind, self.where)


def find(s: Situation, known: Known) -> tuple[Split, ...]:
    """All evidence of the moment; ``known`` is what was found the last time."""
    found = _gates(s, known)
    if s.a is None or found:  # with an assignment, whoever is served wrongly has an open gate as well
        found.extend(_proxies(s))
    if s.pool.records:
        found.extend(_records(s, known))
    if s.view.nodes:
        found.extend(_forging(s))
    chains = s.view.chains
    if chains.apart or known:
        found.extend(_tips(s, known))
    return tuple(found)


# ---------------------------------------------------------------- gates and sessions


def _rightful(s: Situation) -> tuple[bool, str | None]:
    """Whom a gate may be open for now; False without an assignment while sessions do not show more than one."""
    a = s.a
    if a is None:
        present = [p for p in s.pool.names if s.session_gates(p)]
        return (True, present[0]) if len(present) > 1 else (False, None)
    if a.phase is Phase.FENCING:
        old = a.active
        stays = old is not None and bool(s.open_gates(old) or s.session_gates(old) or s.not_switched_off(old))
        return True, old if stays else a.target
    return True, a.target if a.phase is Phase.PROMOTING else a.active


def _gates(s: Situation, known: Known) -> list[Split]:
    sure, rightful = _rightful(s)
    if not sure:
        return []
    found = []
    for name, track in s.view.proxies.items():
        answers, reading = track.answers, track.reading
        if answers and reading is not None:
            for producer, server in reading.servers.items():
                if producer != rightful and (server.admin is not Admin.MAINT or server.sessions):
                    found.append(_open(Gate(name, producer), server))
        elif not answers:
            found.extend(_unseen(s, name, rightful, known))
    for gate, host in s.view.gates.items():
        if gate.kind is GateKind.POWER or gate.producer == rightful:
            continue
        if not host.answers:
            found.extend(_unseen(s, gate.place, rightful, known, only=gate.producer))
        elif host.is_open is not False:
            closing = host.is_open is None and (host.sent or (host.reading is not None and host.reading.starting))
            counts = fence.sure(s, gate.producer) is None and not closing
            what = f"{_state(host)}, though {gate.producer} is not active"
            found.append(Split(GATE, str(gate), what, counts, (gate.producer,)))
    if found and rightful is not None and s.down(rightful):  # then nobody is beside anybody: rule 6 follows who is open
        found = [replace(split, counts=False) for split in found]
    if len(found) > 1:
        order = {name: number for number, name in enumerate(s.pool.names)}
        found.sort(key=lambda split: (order[split.producers[0]], split.kind != GATE))
    return found


def _state(track: GateTrack) -> str:
    lacks = "" if track.reading is None or not track.reading.lacks else f" ({track.reading.lacks[0]})"
    return f"{'open' if track.is_open else 'not closed'}{lacks}"


def _open(gate: Gate, server: ServerView) -> Split:
    sessions = f", {server.sessions} session{'s' if server.sessions > 1 else ''}" if server.sessions else ""
    if server.admin is Admin.MAINT:
        what = f"closed, and{sessions.removeprefix(',')} of {gate.producer} run{'s' if server.sessions == 1 else ''} on"
        return Split(SESSIONS, str(gate), f"{what}, though it is not active", True, (gate.producer,))
    what = f"{server.admin.value}{sessions}, though {gate.producer} is not active"
    return Split(GATE, str(gate), what, True, (gate.producer,))


def _unseen(
    s: Situation, place: str, rightful: str | None, known: Known, *, only: str | None = None
) -> Iterator[Split]:
    """Gates of a silent proxy or host: those found open before, and those passed over whose producer is up again."""
    a = s.a
    if a is None or rightful is None or not (known or a.passed_over):
        return
    for producer in s.pool.others(rightful) if only is None else (only,):
        gate = Gate(place, producer)
        health = s.health(producer)
        if fence.sure(s, producer) is not None:
            continue
        if health is Health.DOWN:  # nothing behind it that could be reached
            continue
        whose = place if only is None else f"the host of {producer}"
        was = [kind for kind in (GATE, SESSIONS) if (kind, str(gate)) in known]
        passed = any(over.gate == gate for over in a.passed_over)
        if passed and (was or (health is Health.UP and s.let_in(rightful))):
            what = f"was passed over while {whose} was silent, and {producer} is up: it may be let in there"
            yield Split(GATE, str(gate), what, True, (producer,), silent=True)
            continue
        for kind in was:
            what = f"was {'open' if kind == GATE else 'carrying sessions'} when {whose} last answered"
            yield Split(kind, str(gate), f"{what}, and {producer} is not active", True, (producer,), silent=True)


def _proxies(s: Situation) -> Iterator[Split]:
    served = {name: s.serving_gates(name) for name in s.pool.names}
    present = {name: gates for name, gates in served.items() if gates}
    if len(present) < 2:
        return
    by_proxy: dict[str, list[str]] = {}
    for name, gates in present.items():
        for proxy in gates:
            by_proxy.setdefault(proxy, []).append(name)
    words = "; ".join(f"{p} serves {' and '.join(by_proxy[p])}" for p in s.view.proxies if p in by_proxy)
    what = f"{words}: relays that connect now are divided between them"
    yield Split(PROXIES, ALL_PROXIES, what, True, tuple(present))


# ---------------------------------------------------------------- forging


def _forging(s: Situation) -> Iterator[Split]:
    """Producers beside the active whose node tried slot after slot since the role is settled."""
    a = s.a
    if a is None or a.phase is not Phase.STEADY or a.active is None:
        return
    for name in s.pool.others(a.active):
        track = s.view.nodes.get(name)
        if track is None or not nodes.forged_since(track, a.since, s.now):
            continue
        if fence.sure(s, name) is not None or _walled_in(s, name):  # then nothing gets out
            continue
        alone = nodes.forging_now(s.view.nodes.get(a.active, nodes.NodeTrack()), s.now) is not True
        what = f"its about-to-lead counter rises: it forges with the pool's keys, though {a.active} is active"
        if alone:
            what += f" (whether {a.active} forges is not seen)"
        yield Split(FORGE, name, what, True, (name,))


def _walled_in(s: Situation, name: str) -> bool:
    """Whether its own firewall was shut when it was last seen, and nobody opened it since."""
    tracks = (s.view.gates[gate] for gate in s.switches(name) if gate.kind is GateKind.FIREWALL)
    return any(track.is_open is False and not track.opened for track in tracks)


# ---------------------------------------------------------------- DNS


def _records(s: Situation, known: Known) -> Iterator[Split]:
    a = s.a
    if a is None or a.active is None or a.phase is not Phase.STEADY:
        return
    for record in s.pool.records:
        track = s.view.records[record.label]
        was = (RECORD, record.label) in known
        right = track.rrset is not None and track.rrset.values == (record.targets[a.active],)
        if right and track.wrong_since is None and not was:
            continue
        split = _divided(s, a, record, track, was)
        if split is not None:
            yield split


def _divided(s: Situation, a: Assignment, record: Record, track: RecordTrack, was: bool) -> Split | None:
    """Whoever this record, or a server, leads to besides the active one and that is up; ``was``: so the last time."""
    active, label = a.active or "", record.label
    if s.down(active):  # whoever they lead to is about to be followed
        return None
    says = _says(s, a, record, track, was)
    led = tuple(name for name in s.pool.others(active) if name in says and s.up(name))
    if not led:
        there = any(s.health(name) is not Health.DOWN for name in s.pool.others(active))
        if was and there and not _looked(track):
            what = f"led to another producer than {active} when it was last looked at"
            return Split(RECORD, label, what, s.pool.gateless, (), silent=True)
        return None
    told = "; ".join(
        f"{' and '.join(who[:4])} {'say' if len(who) > 1 else 'says'} {name}" for name, who in says.items()
    )
    names = " and ".join(led)
    if s.pool.gateless:
        what = f"{told}: relays that look it up are led to {names}, which is up, while {active} is active"
    else:
        what = (
            f"{told}: relays that look it up are led past the gates, or to one that is closed; "
            f"two producers are reachable only where {names} can be reached by that address"
        )
    return Split(RECORD, label, what, s.pool.gateless, led)


def _looked(track: RecordTrack) -> bool:
    """Whether provider and servers were asked, and servers that were wrong have answered again."""
    if not track.answers or track.looked_at is None:
        return False
    return track.wrong_since is None or any(answer.fault is None for answer in track.said)


def _says(s: Situation, a: Assignment, record: Record, track: RecordTrack, was: bool) -> dict[str, list[str]]:
    """Who leads to whom, once a change that was made should have reached them; producers in order of preference."""
    said: list[tuple[str, tuple[str, ...]]] = []
    fresh = not s.pool.gateless and s.now.since(a.since) < signposts.PROPAGATION  # beside gates it follows the role
    wanted = record.wanted(a.active or "")
    heard = track.answers or was
    if heard and track.rrset is not None and not fresh and not signposts.in_flight(track, wanted, s.now):
        said.append(("its provider", track.rrset.values))
    under_way = track.change_id is not None
    since = track.accepted_at if under_way else track.wrong_since
    patience = signposts.STALLED if under_way else signposts.PROPAGATION
    late = was or (since is not None and s.now.since(since) >= patience)
    overdue = {answer.server for answer in signposts.overdue(track, s.now)} if late else set()
    counted = bool(said)  # what only repeats the provider counts as the provider does
    said.extend(
        (answer.server, answer.rrset.values)
        for answer in track.said
        if answer.rrset is not None
        and (answer.server in overdue or (counted and signposts.agrees(answer, track.rrset)))
    )
    found: dict[str, list[str]] = {}
    for name in s.pool.names:
        who = [speaker for speaker, values in said if record.targets[name] in values]
        if who:
            found[name] = who
    return found


# ---------------------------------------------------------------- tips


def _tips(s: Situation, known: Known) -> Iterator[Split]:
    chains, names = s.view.chains, s.pool.names
    apart = {frozenset(pair): found for pair, found in chains.apart.items()}
    paired: set[str] = set()
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            where = f"{one}/{other}"
            found = apart.get(frozenset((one, other)))
            if s.health(one) is Health.DOWN or s.health(other) is Health.DOWN:
                continue
            if found is not None and ((s.up(one) and s.up(other)) or (TIPS, where) in known):
                paired |= {one, other}
                yield Split(TIPS, where, _two_chains(s, found, one, other), True, (one, other))
            elif (TIPS, where) in known and not chains.on(one, other):
                what = "were on two chains when they could last be compared"
                yield Split(TIPS, where, what, True, (one, other), silent=True)
    for name in names:
        if name in paired or not s.up(name):
            continue
        against = [reference for reference in s.view.references if frozenset((name, reference)) in apart]
        if against and _alone(s, name, against):
            found = apart[frozenset((name, against[0]))]
            theirs = " and ".join(against)
            what = f"stands on another chain than {theirs}: {_blocks(found, name)}; it, or they, are cut off"
            yield Split(TIPS, name, what, False, (name,))


def _alone(s: Situation, name: str, against: list[str]) -> bool:
    """Whether it is this producer that is on a chain of its own, and not a reference that is."""
    chains = s.view.chains
    if any(chains.on(name, reference) for reference in s.view.references):
        return False
    return len(against) > 1 or not any(chains.on(name, other) for other in s.pool.others(name) if s.up(other))


def _two_chains(s: Situation, apart: Apart, one: str, other: str) -> str:
    with_references = [n for n in (one, other) if any(s.view.chains.on(n, r) for r in s.view.references)]
    who = f"; references are with {with_references[0]}" if len(with_references) == 1 else ""
    if apart.same_slot:
        why = (
            "different blocks of one slot: most likely both forge with the pool's keys (a fork under our own keys), "
            "and the blocks of one of them are lost"
        )
    else:
        why = "two chains: one of them is cut off from the network, or both forge for different relays"
    return f"{_blocks(apart, one)}, {why}{who}"


def _blocks(apart: Apart, first: str) -> str:
    mine, theirs = (apart.mine, apart.theirs) if apart.one == first else (apart.theirs, apart.mine)
    other = apart.other if apart.one == first else apart.one
    return f"{first} had {_block(mine)}, {other} {_block(theirs)}"


def _block(block: Block) -> str:
    return f"block {block.number} {block.hash[:HASH]} of slot {block.slot}"


# ---------------------------------------------------------------- why it is not mended


def worth_telling(s: Situation, split: Split, since: Instant) -> bool:
    """Whether a person should be told: of all that counts, and beside gates of a record that stays as it is.

    By the decider, once it has read every part: whoever only looks on, or has just begun, does not know what is done.
    """
    if s.view.lease is None or s.unread():
        return False
    if split.kind in (GATE, SESSIONS) and not split.counts:
        return False
    if split.counts or split.kind != RECORD or s.now.since(since) >= signposts.STALLED:
        return True
    return any(record.label == split.where and s.disputed(record) for record in s.pool.records)


def hindrance(s: Situation, split: Split, steps: Container[Gate], records: Container[str], verdict: str) -> str:
    """Why nothing is done about it just now; empty when something is. ``verdict`` is what was decided, in words.

    ``steps`` are the gates, ``records`` the records that the plan of this moment moves.
    """
    if split.kind == TIPS:
        return (
            "no step of ours mends a fork: gates that are open beside the active's are closed in any case, and the "
            "next blocks of others decide. See that one alone forges: stop the other's node, or take its keys away"
        )
    if split.kind == RECORD:
        return "" if split.where in records else f"it is not being repaired: {_because(s, verdict)}"
    if split.kind == PROXIES:
        return ""  # said at the gates
    if split.kind == FORGE:
        return _forges_on(s, split, steps, verdict)
    producer, _, proxy = split.where.partition("@")
    if split.silent and proxy in HOST_KINDS:
        return f"its host does not answer: stop {producer}'s node, or cut its host off, until it does"
    if split.silent:
        return f"{proxy} does not answer: stop HAProxy there or cut its port, or stop {producer}'s node, until it does"
    if Gate(proxy, producer) in steps:
        return ""
    if s.gate_contested(Gate(proxy, producer)):
        what = split.where if proxy in HOST_KINDS else proxy
        return f"another hand keeps changing {what}: find it and end it; then close the gate by hand"
    return f"it is not being closed: {_because(s, verdict)}"


def _forges_on(s: Situation, split: Split, steps: Container[Gate], verdict: str) -> str:
    """Why a producer beside the active forges on; empty when it is being stopped."""
    name = split.where
    if not any(gate.kind is GateKind.FORGING for gate in s.pool.gates_of(name)):
        return (
            f"no gate of ours stops it: give {name} a forging gate; or, if relays reach it through the proxies alone, "
            "say so (fence.proxies_are_only_path)"
        )
    if Gate(GateKind.FORGING.value, name) in steps:
        return ""
    return f"it is not being stopped: {_because(s, verdict)}"


def _because(s: Situation, verdict: str) -> str:
    if s.pool.mode == "observe":
        return "mode: observe, nothing is moved"
    return verdict.replace(NOTHING, "no step of ours changes it") if NOTHING in verdict else verdict


# ---------------------------------------------------------------- what allowed it


def allowed(s: Situation, split: Split, passed_over: tuple[PassedOver, ...], tainted: Container[Gate]) -> str:
    """What let it happen, in plain words, as far as it was seen; empty when this evidence says nothing of its own.

    ``passed_over`` and ``tainted`` are the assignment's from before this tick: a gate that answers is dropped there.
    """
    if split.kind == RECORD:
        track = s.view.records.get(split.where)
        other = track is not None and track.foreign
        words = "another hand changed it" if other else "a server went on giving an earlier answer"
        return f"{split.where}: {words}" if not split.silent else ""
    if split.kind == TIPS:
        return f"{' and '.join(split.producers)} built on different blocks"
    if split.kind == FORGE:
        return f"{split.where} has its credentials in memory"
    if split.kind == PROXIES:
        return "" if s.a is not None else "nobody was assigned yet, and the proxies served whom they were left with"
    producer, _, proxy = split.where.partition("@")
    gate, a = Gate(proxy, producer), s.a
    generation = 0 if a is None else a.generation
    if any(over.gate == gate for over in passed_over):
        return f"{gate} was passed over while silent, in generation {generation}, and may still have carried {producer}"
    if proxy in HOST_KINDS:
        host = s.view.gates.get(gate)
        if host is None or host.open_since is None or a is None:
            return ""
        if a.since.since(host.open_since) > 0:
            return f"{gate} was open already when the role went to {a.target or a.active}, in generation {generation}"
        return _came(gate, Way.LATE if host.opened else Way.HAND)
    track_of = s.view.proxies.get(proxy)
    turned = None if track_of is None else track_of.turned.get(producer)
    if gate in tainted:
        return _came(gate, Way.LATE)
    if turned is None:
        return "" if a is None else f"{gate}: not known; it was open when it was first looked at"
    if a is not None and a.generation > 1 and a.since.since(turned.at) > 0:
        return f"{gate} was open already when the role went to {a.target or a.active}, in generation {generation}"
    return _came(gate, turned.way)


def _came(gate: Gate, way: Way) -> str:
    return {
        Way.HAND: f"another hand opened {gate}",
        Way.LATE: f"a late command of ours opened {gate}",
        Way.RELOAD: f"{gate.place} was reloaded or restarted, and came back with {gate} open",
        Way.AWAY: f"{gate} was open when the controller looked again: it had been away",
        Way.SILENCE: f"{gate} was opened while {gate.place} did not answer",
        Way.SESSIONS: f"sessions ran on at {gate}, though it was closed",
    }[way]
