"""The topology file of one producer or relay, from the pool's file: text, and what an operator should know of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from failover.errors import ConfigError
from failover.model import Address, Pool, Producer, Relay
from failover.topology.document import ONE_WAY, canonical
from failover.topology.paths import ONE_WAY_SINCE, Version, dotted, node, one_way, silent, twin

HOT_VALENCY_SINCE = (8, 7)  # hotValency came between 8.1 and 8.7; every node takes valency
NEWEST = (10, 5, 1)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the pool's file does not say: where proxies listen, whom to begin with, and which node reads the file."""

    via: tuple[Address, ...] = ()
    bootstrap: tuple[Address, ...] = ()
    ledger_after: int = 0
    version: Version = NEWEST


@dataclass(frozen=True, slots=True)
class Rendered:
    """One file, and remarks that belong beside it: what it cannot promise, what is left to do."""

    text: str
    remarks: tuple[str, ...] = ()


def needs_via(pool: Pool, name: str) -> bool:
    """Whether the file of this node leads to the proxies, whose addresses for relays the pool's file does not have."""
    return bool(pool.proxies) and node(pool, name)[1] is not None


def render(pool: Pool, name: str, choice: Choice) -> Rendered:
    """The file of a producer or relay. Raises ConfigError when the pool's file does not say enough for it."""
    producer, relay = node(pool, name)
    if relay is None:
        assert producer is not None  # noqa: S101 - node found one of the two
        return _producer(pool, producer, choice)
    return _relay(pool, relay, producer, choice)


def _producer(pool: Pool, producer: Producer, choice: Choice) -> Rendered:
    remarks = []
    closed = one_way(pool, producer)
    if closed and choice.version < ONE_WAY_SINCE:
        remarks.append(
            f"node {dotted(choice.version)} cannot make one-way connections (diffusionMode, from 10.2 on): relays can "
            f"take the blocks of {producer.name} over its own connections to them, and no proxy, record or firewall "
            "that lets it sync stops that. Use node 10.2 or later, or give it a forging or power gate"
        )
    group = _group(_relays(pool, producer, None), choice, closed=closed)
    return _file([group], None, -1, remarks)


def _relay(pool: Pool, relay: Relay, producer: Producer | None, choice: Choice) -> Rendered:
    remarks = []
    groups = [_group(ways(pool, relay, choice.via), choice)]
    if producer is not None:
        others = [each for each in pool.relays if each is not relay]
        if others:
            groups.append(_group(_relays(pool, producer, relay), choice))
        if not silent(producer):
            remarks.append(
                f"{producer.name} is a relay too: no proxy and no record shuts it out. Give it a forging or power gate"
            )
    if not choice.bootstrap:
        remarks.append(
            "no bootstrap peers: a new node finds nobody but the producers to sync from. Take those of your network "
            "from the topology file that its operators publish (--bootstrap HOST:PORT, once for each)"
        )
    return _file(groups, choice.bootstrap or None, choice.ledger_after, remarks)


def ways(pool: Pool, relay: Relay, via: tuple[Address, ...]) -> tuple[Address, ...]:
    """Where a relay finds the active producer: proxies, else records, else every producer. Raises ConfigError."""
    if pool.proxies:
        if not via:
            raise ConfigError(
                f"where relay {relay.name} reaches the proxies is not in the file",
                "say it with --via HOST:PORT, once for each proxy, as in --via 10.0.2.5:6000",
            )
        return via
    if pool.records:
        ports = {producer.address.port: producer.name for producer in pool.producers}
        if len(ports) > 1:
            said = ", ".join(f"{name} on {port}" for port, name in ports.items())
            mend = "let them listen on the same port: a record has none of its own"
            raise ConfigError(f"producers listen on different ports ({said})", mend)
        port = pool.producers[0].address.port
        hosts = dict.fromkeys(record.name.removesuffix(".") for record in pool.records)
        return tuple(Address(host, port) for host in hosts)
    found = [(p, relay.producers.get(p.name, p.address)) for p in pool.producers]
    return tuple(address for p, address in found if twin(pool, p) is not relay)


def _relays(pool: Pool, producer: Producer, itself: Relay | None) -> tuple[Address, ...]:
    found = tuple(relay.address for relay in pool.relays if relay is not itself)
    if not found:
        raise ConfigError(
            f"the file names no relays, so {producer.name} would have nobody to sync from",
            "add `relays:` to the file, each with a name and an address",
        )
    return found


def _group(points: tuple[Address, ...], choice: Choice, *, closed: bool = False) -> dict[str, Any]:
    """Local roots of which all are kept in use: each that is not would be a way that is missing when it is needed."""
    count = len(points)
    group: dict[str, Any] = {"accessPoints": [_point(address) for address in points]}
    group |= {"advertise": False, "trustable": True}
    if choice.version < HOT_VALENCY_SINCE:
        group["valency"] = count
    else:
        group |= {"hotValency": count, "warmValency": count}
    if closed and choice.version >= ONE_WAY_SINCE:
        group["diffusionMode"] = ONE_WAY
    return group


def _point(address: Address) -> dict[str, Any]:
    return {"address": canonical(address.host), "port": address.port}


def _file(
    local: list[dict[str, Any]], bootstrap: tuple[Address, ...] | None, ledger_after: int, remarks: list[str]
) -> Rendered:
    # null, not []: an empty list means bootstrap peers from trustable local roots alone.
    document = {
        "bootstrapPeers": None if bootstrap is None else [_point(address) for address in bootstrap],
        "localRoots": [group for group in local if group["accessPoints"]],
        "publicRoots": [],
        "useLedgerAfterSlot": ledger_after,
    }
    return Rendered(json.dumps(document, indent=2) + "\n", tuple(remarks))
