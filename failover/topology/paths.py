"""Which part of the pool a name or an access point means, and what shuts a producer out whoever connects to it.

Addresses are compared as they are written, in one spelling; where a ``Resolve`` is given, names by what they lead to
as well. The DNS names of the pool's records are never looked up: they lead to whoever is active.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from failover.errors import ConfigError
from failover.model import Address, GateKind, Pool, Producer, Relay
from failover.topology.document import Point, canonical, is_literal

Version = tuple[int, ...]
Resolve = Callable[[str], Sequence[str]]  # a name to literal addresses; none where it cannot be told

ONE_WAY_SINCE = (10, 2)  # the first node with diffusionMode: InitiatorOnly for local roots


def version(text: str) -> Version:
    """``10.5.1`` as numbers. Raises ConfigError."""
    match = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,4}){1,3})(?:-[0-9A-Za-z.]{1,20})?", text)
    if match is None:
        raise ConfigError(f"{text[:40]!r} is no version of cardano-node", "write it as in 10.5.1")
    return tuple(int(part) for part in match[1].split("."))


def dotted(found: Version) -> str:
    """A version as people write it."""
    return ".".join(str(part) for part in found)


def names(pool: Pool) -> tuple[str, ...]:
    """Everybody who can have a file: producers and relays."""
    return (*pool.names, *(relay.name for relay in pool.relays if relay.name not in pool.names))


def node(pool: Pool, name: str) -> tuple[Producer | None, Relay | None]:
    """The producer of that name, the relay, or both where they are one node. Raises ConfigError."""
    for producer in pool.producers:
        if producer.name == name:
            return producer, twin(pool, producer)
    for relay in pool.relays:
        if relay.name == name:
            return next((p for p in pool.producers if twin(pool, p) is relay), None), relay
    raise ConfigError(f"{name[:80]!r} is no producer and no relay of the file", f"it has {', '.join(names(pool))}")


def fenced(producer: Producer) -> bool:
    """Whether a gate on its own host shuts the producer out in both directions: forging, firewall or power."""
    return bool(producer.gates)


def silent(producer: Producer) -> bool:
    """Whether a gate on its own host leaves the producer no blocks to send, whoever it is connected to."""
    return GateKind.FORGING in producer.gates or GateKind.POWER in producer.gates


def one_way(pool: Pool, producer: Producer) -> bool:
    """Whether the producer's own connections must carry nothing back, for blocks to keep to the pool's gates.

    A node that forges nothing, or is off, may connect as it likes. A firewall lets a closed producer connect to its
    sync peers alone, and only one-way, from ports other than its own: with duplex roots it would fall behind.
    """
    if twin(pool, producer) is not None:
        return False  # it serves everybody; what shuts it out is another matter
    if pool.fence.proxies_are_only_path:
        return True
    if GateKind.FIREWALL in producer.gates:
        return True
    return not silent(producer) and bool(pool.proxies or pool.records)


def twin(pool: Pool, producer: Producer) -> Relay | None:
    """The relay that is the same node as this producer: the same agent, or the same address."""
    for relay in pool.relays:
        if relay.agent is not None and relay.agent == producer.agent:
            return relay
        if same(relay.address, Point(producer.address.host, producer.address.port)):
            return relay
    return None


def same(address: Address, point: Point, resolve: Resolve | None = None) -> bool:
    """Whether an access point is this address, by its writing or, where that can be asked, by what names lead to."""
    if point.port != address.port:
        return False
    if canonical(address.host) == canonical(point.host):
        return True
    return bool(resolve is not None and _leads(address.host, resolve) & _leads(point.host, resolve))


def producer_of(pool: Pool, point: Point, relay: Relay | None = None, resolve: Resolve | None = None) -> str | None:
    """The producer that an access point is, for a relay also under the addresses that it has for them."""
    if record_of(pool, point) is not None:
        return None
    for producer in pool.producers:
        if any(same(address, point, resolve) for address in addresses(pool, producer, relay)):
            return producer.name
    return None


def addresses(pool: Pool, producer: Producer, relay: Relay | None = None) -> tuple[Address, ...]:
    """Every address of a producer that the pool's file names."""
    own = [producer.address]
    if relay is not None and producer.name in relay.producers:
        own.append(relay.producers[producer.name])
    own.extend(Address(r.targets[producer.name], producer.address.port) for r in pool.records)
    return tuple(dict.fromkeys(own))


def record_of(pool: Pool, point: Point) -> str | None:
    """The label of the record that an access point goes by."""
    return next((r.label for r in pool.records if canonical(r.name) == canonical(point.host)), None)


def relay_of(pool: Pool, point: Point, resolve: Resolve | None = None) -> Relay | None:
    """The relay that an access point is."""
    return next((relay for relay in pool.relays if same(relay.address, point, resolve)), None)


def _leads(host: str, resolve: Resolve) -> frozenset[str]:
    return frozenset(canonical(found) for found in ((host,) if is_literal(host) else resolve(host)))
