"""Leaks: what a topology file lets a producer's blocks do that the pool's gates cannot stop.

A gate is worth what the topology around it leaves to it. A proxy shuts a producer out only if no relay dials the
producer past it, and if relays cannot use the producer's own connections; a record shuts nobody out; forging,
firewall and power gates do, in both directions (a firewall but for the connections by which a closed producer stays
in sync, which must be one-way). So the same line is right in one pool and a leak in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from failover.model import Pool, Producer, Relay
from failover.topology.document import ONE_WAY, Point, Roots, Topology
from failover.topology.paths import (
    ONE_WAY_SINCE,
    Resolve,
    Version,
    dotted,
    fenced,
    node,
    one_way,
    producer_of,
    record_of,
    relay_of,
    silent,
    twin,
)

SINCE = dotted(ONE_WAY_SINCE)
MOST_NAMED = 5  # access points that one finding lists


class Severity(StrEnum):
    """How bad a leak is; the words are those of ``failover check``."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Leak:
    """One finding about one node's file. ``around``: blocks can pass there beside the proxies."""

    severity: Severity
    part: str
    what: str
    mend: str
    around: bool = False


@dataclass(frozen=True, slots=True)
class _Look:
    """One file with everything that it is judged by."""

    pool: Pool
    part: str
    file: Topology
    version: Version | None
    resolve: Resolve | None

    def leak(self, producer: Producer, what: str, mend: str) -> Leak:
        """A way around the gates: an error, unless a gate on the producer's own host shuts it out all the same."""
        strict = self.pool.fence.proxies_are_only_path
        severity = Severity.WARNING if fenced(producer) and not strict else Severity.ERROR
        if fenced(producer):
            what += f" (only its own gate shuts it out: {', '.join(kind.value for kind in producer.gates)})"
        return Leak(severity, self.part, what, mend, around=True)

    def warn(self, what: str, mend: str) -> Leak:
        return Leak(Severity.WARNING, self.part, what, mend)


def find(
    pool: Pool,
    name: str,
    file: Topology,
    *,
    version: Version | None = None,
    resolve: Resolve | None = None,
) -> tuple[Leak, ...]:
    """What is wrong with the file of one producer or relay. ``version`` is its node's. Raises ConfigError.

    ``resolve`` lets names be compared with addresses; without it they are compared as they are written.
    """
    producer, relay = node(pool, name)
    look = _Look(pool, part(name), file, version, resolve)
    found: list[Leak] = []
    if producer is not None:
        found += _doubled(look, producer) if relay is not None else _producer(look, producer)
        found += _sync(look, producer)
    if relay is not None:
        found += _relay(look, relay, producer)
    found += _trust(look)
    return tuple(found)


def contradiction(pool: Pool, leaks: Sequence[Leak]) -> Leak | None:
    """The error that the pool's file makes when it calls proxies the only path, and a topology shows another."""
    parts = dict.fromkeys(leak.part for leak in leaks if leak.around)
    if not pool.fence.proxies_are_only_path or not parts:
        return None
    what = f"fence.proxies_are_only_path is true, and another path is open: {', '.join(parts)}"
    mend = "close the paths named there, or set it to false: a handover would count as fenced what is not"
    return Leak(Severity.ERROR, "file", what, mend)


def part(name: str) -> str:
    """How findings call the file of a node."""
    return f"topology {name}"


# ---------------------------------------------------------------- producers


def _producer(look: _Look, producer: Producer) -> Iterator[Leak]:
    yield from _outside(look, producer)
    for point in _points(look.file.local):
        other = producer_of(look.pool, point, None, look.resolve)
        if other is not None and other != producer.name:
            if _serves(look, _named(look.pool, other)):
                continue
            what = f"it lists {other} at {point}: blocks of {other} reach the relays through it"
            mend = "remove that access point: producers connect to relays, not to each other"
            yield look.leak(_named(look.pool, other), what, mend)
        elif other is None and look.pool.relays and relay_of(look.pool, point, look.resolve) is None:
            yield Leak(Severity.NOTE, look.part, f"it lists {point}, which is no relay of the file", "")
    if one_way(look.pool, producer):
        yield from _duplex(look, producer)


def _outside(look: _Look, producer: Producer) -> Iterator[Leak]:
    """Peers that are not ours: its blocks leave to them, and they learn where it is."""
    file = look.file
    mend = "a producer connects to the pool's relays alone: "
    if file.public:
        yield look.leak(producer, f"it has public roots: {_listed(file.public)}", mend + 'write "publicRoots": []')
    if file.bootstrap:
        what = f"it has bootstrap peers: {_listed(file.bootstrap)}"
        yield look.leak(producer, what, mend + 'write "bootstrapPeers": null')
    if file.ledger_after >= 0:
        what = f"it takes peers from the ledger (useLedgerAfterSlot {file.ledger_after})"
        yield look.leak(producer, what, mend + 'write "useLedgerAfterSlot": -1')


def _duplex(look: _Look, producer: Producer) -> Iterator[Leak]:
    why = "whoever the record points to"
    if fenced(producer) and not silent(producer):
        why = "as far as its firewall lets these through for it to sync"
    elif look.pool.proxies:
        why = "so a closed proxy does not fence it"
    old = look.version is not None and look.version < ONE_WAY_SINCE
    runs = f"its node ({dotted(look.version)})" if look.version is not None else "its node"
    duplex = [point for roots in look.file.local if not roots.one_way for point in roots.points]
    if duplex:
        what = f"its local roots are duplex: {_listed(duplex)} can take its blocks over its own connections, {why}"
        mend = f'add "diffusionMode": "{ONE_WAY}" to the group (node {SINCE} or later)'
        if old:
            mend = f"{runs} is older than {SINCE}: upgrade it, and then {mend}"
        yield look.leak(producer, what, mend)
    one = [point for roots in look.file.local if roots.one_way for point in roots.points]
    if one and old:
        what = (
            f"{runs} passes over diffusionMode, which counts from {SINCE} on: {_listed(one)} can take its blocks over "
            f"its own connections, {why}"
        )
        other = f"give {producer.name} a forging gate"
        if silent(producer):
            other = "set fence.proxies_are_only_path to false: its own gate shuts it out"
        yield look.leak(producer, what, f"upgrade the node to {SINCE} or later, or {other}")


def _doubled(look: _Look, producer: Producer) -> Iterator[Leak]:
    if silent(producer) and not look.pool.fence.proxies_are_only_path:
        return
    what = f"{producer.name} is a relay too: it serves everybody who connects, and no proxy and no record shuts it out"
    yield look.leak(producer, what, "give it a forging or power gate (`gates`), or a node of its own")


def _sync(look: _Look, producer: Producer) -> Iterator[Leak]:
    """A closed producer hears of blocks only over its own connections: nobody dials it then."""
    own = twin(look.pool, producer)
    relays = [relay for relay in look.pool.relays if relay is not own]
    dialled = [point for roots in look.file.local if roots.hot and not roots.waits for point in roots.points]
    if not dialled:
        lacks = "it has no local root that it dials"
    elif relays and not any(relay_of(look.pool, point, look.resolve) in relays for point in dialled):
        lacks = f"none of its local roots is a relay of the file: {_listed(dialled)}"
    else:
        return
    mend = "list the pool's relays (failover render topology), or correct `relays` in the file"
    if own is None or relays:
        yield look.warn(f"{lacks}; while it is closed it would not stay in sync", mend)


def _trust(look: _Look) -> Iterator[Leak]:
    trusted = any(roots.trustable and roots.points for roots in look.file.local)
    if look.file.bootstrap == () and not trusted:
        what = "bootstrapPeers is an empty list, and no local root is trustable: the node refuses the file"
        yield Leak(Severity.ERROR, look.part, what, 'write "bootstrapPeers": null, or "trustable": true on local roots')


# ---------------------------------------------------------------- relays


def _relay(look: _Look, relay: Relay, itself: Producer | None) -> Iterator[Leak]:
    if look.pool.proxies or look.pool.records:
        yield from _direct(look, relay, itself)
        yield from _way(look, relay)
    else:
        yield from _both(look, relay, itself)
    for roots in look.file.local:
        led = [p for p in roots.points if record_of(look.pool, p) or producer_of(look.pool, p, relay, look.resolve)]
        if roots.advertise and led:
            what = f"it advertises {_listed(led)}: other nodes learn where the producers are"
            yield look.warn(what, 'write "advertise": false on that group')


def _direct(look: _Look, relay: Relay, itself: Producer | None) -> Iterator[Leak]:
    """Producers that it reaches whatever the proxies or the record say."""
    pool, seen = look.pool, set[tuple[str, str]]()
    gate = "the proxies" if pool.proxies else f"the record {pool.records[0].name.removesuffix('.')}"
    mend = f"remove that access point, and leave {gate} alone"
    for point in look.file.points():
        name = producer_of(pool, point, relay, look.resolve)
        if name is None or (itself is not None and name == itself.name) or (name, str(point)) in seen:
            continue
        seen.add((name, str(point)))
        producer = _named(pool, name)
        if _serves(look, producer):
            continue
        if producer_of(pool, point, relay) is None:
            what = f"it lists {point}, a name that now leads to {name}, beside {gate}"
            yield look.leak(producer, what, f"{mend}; an alias of the record is better written as the record itself")
        elif name != pool.preferred:
            what = f"it lists {name}, a standby, at {point}: it takes its blocks whoever is active"
            yield look.leak(producer, what, mend)
        else:
            what = f"it lists {name} directly at {point}, beside {gate}: it stays with it whoever is active"
            yield look.leak(producer, what, mend)


def _way(look: _Look, relay: Relay) -> Iterator[Leak]:
    """Whether it reaches the active producer at all, and by what."""
    pool, points = look.pool, [p for roots in look.file.local if roots.hot for p in roots.points]
    by_record = [point for point in points if record_of(pool, point) is not None]
    ports = {producer.address.port for producer in pool.producers}
    for point in by_record:
        if point.port is not None and point.port not in ports:
            listed = ", ".join(str(port) for port in sorted(ports))
            yield look.warn(f"it connects to {point}, and producers listen on {listed}", "correct the port")
    if not pool.proxies:
        if not by_record:
            what = f"it does not list the record {pool.records[0].name.removesuffix('.')}, which leads to the active"
            yield look.warn(what, "list that name (failover render topology)")
        return
    if by_record and pool.fence.proxies_are_only_path:
        what = f"it goes by a record, past the proxies: {_listed(by_record)}"
        yield Leak(Severity.ERROR, look.part, what, "list the proxies instead", around=True)
    elif by_record:
        what = f"it goes by a record, which closed proxies do not cut: {_listed(by_record)}"
        yield Leak(Severity.NOTE, look.part, what, "")
    known = [p for p in points if producer_of(pool, p, relay, look.resolve) or relay_of(pool, p, look.resolve)]
    if not by_record and len(known) == len(points):
        what = "none of its local roots can be a proxy: each is a producer or relay of the file"
        yield look.warn(what, "list where the proxies listen (failover render topology --via HOST:PORT)")


def _both(look: _Look, relay: Relay, itself: Producer | None) -> Iterator[Leak]:
    """Neither proxies nor records: it must know every producer, and keep every one in use."""
    listed: dict[str, None] = {}
    for roots in look.file.local:
        names = [producer_of(look.pool, point, relay, look.resolve) for point in roots.points]
        here = dict.fromkeys(name for name in names if name is not None)
        listed |= here
        if here and roots.hot < len(roots.points):
            what = f"it keeps {roots.hot} of {len(roots.points)} local roots in use, beside {', '.join(here)}"
            mend = f'write "hotValency": {len(roots.points)}: it may keep a closed producer, and leave out the active'
            yield look.warn(what, mend)
    lacking = [n for n in look.pool.names if n not in listed and (itself is None or n != itself.name)]
    if lacking:
        what = f"it does not list {', '.join(lacking)}: once active, that one is reached over its own connections alone"
        yield look.warn(what, "list every producer (failover render topology)")


def _serves(look: _Look, producer: Producer) -> bool:
    """Whether it may be listed as the relay that it is as well: its own gate shuts the producer in it out."""
    strict = look.pool.fence.proxies_are_only_path
    return twin(look.pool, producer) is not None and fenced(producer) and not strict


# ---------------------------------------------------------------- words


def _points(groups: Sequence[Roots]) -> Iterator[Point]:
    for roots in groups:
        yield from roots.points


def _named(pool: Pool, name: str) -> Producer:
    return next(producer for producer in pool.producers if producer.name == name)


def _listed(points: Sequence[Point]) -> str:
    more = len(points) - MOST_NAMED
    return ", ".join(str(p) for p in points[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
