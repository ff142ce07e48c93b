"""The file's records: what must hold within and between them, what deserves a warning, and building them.

Only ``zones`` reads anything: the keys that records name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from failover.config import dns, hosts, scalars, secret, tsig
from failover.config.document import Location
from failover.config.finding import shown
from failover.config.parts import Parts, Problem
from failover.config.regular import Unreadable
from failover.config.shape import MOST_RECORDS, MOST_RESOLVERS, MOST_SERVERS, RecordPart, Rfc2136Part, VerifyPart
from failover.model import Record, RecordType, Rfc2136Zone, Route53Zone, record_type

LONG_TTL = 300  # seconds, above which a warning says how long the world holds on
_FAMILY = {RecordType.A: "IPv4", RecordType.AAAA: "IPv6"}
_OUR_OWN = "relays that use this name go around the proxies"

Zones = dict[int, Route53Zone | Rfc2136Zone]


# ---------------------------------------------------------------- problems


def problems(parts: Parts) -> Iterator[Problem]:
    """Everything that does not hold within a record, between records, and between records and producers."""
    records: Sequence[RecordPart | None] = parts.values.get("records", [])
    if len(records) > MOST_RECORDS:
        problem = f"there are {len(records)}, and at most {MOST_RECORDS} are allowed"
        yield Problem((("records",),), problem, "remove some")
        return
    producers = parts.values.get("producers", [])
    names = [] if None in producers else [producer.name for producer in producers]
    owned = {record.name: index for index, record in enumerate(records) if record is not None}
    for index, record in enumerate(records):
        if record is None:
            continue
        place: Location = ("records", index)
        yield from _provider(record, place)
        yield from _targets(record, names, place)
        yield from _loops(record, owned, place)
        if record.verify is not None:
            yield from _verify(record.verify, (*place, "verify"))
    yield from _same_names(records)
    if (fence := parts.values.get("fence")) is not None and names:
        direct = fence.require == "none" or parts.values.get("proxies") == []
        yield from _producers_of_others(parts, direct, fence.proxies_are_only_path)


def _provider(record: RecordPart, place: Location) -> Iterator[Problem]:
    if record.route53 is None and record.rfc2136 is None:
        mend = "add route53: {zone: ID}, or rfc2136: {server: HOST, zone: NAME, key_file: PATH}"
        yield Problem((place,), "has neither route53 nor rfc2136", mend)
    if record.route53 is not None and record.rfc2136 is not None:
        yield Problem(((*place, "rfc2136"),), "has both route53 and rfc2136", "keep the one that holds the zone")
    if record.rfc2136 is not None:
        yield from _within(record, record.rfc2136, place)
        yield from _keys(record.rfc2136, (*place, "rfc2136"))


def _within(record: RecordPart, rfc2136: Rfc2136Part, place: Location) -> Iterator[Problem]:
    """The name must lie in its zone, and may be the zone's own only without a CNAME (RFC 1034, section 3.6.2)."""
    if record.name == rfc2136.zone:
        for producer, target in record.addresses.items():
            if record_type(target) is RecordType.CNAME:
                problem = "is a name, and the zone's own name cannot be a CNAME"
                yield Problem(((*place, "addresses", producer),), problem, "write an address, or take a name below")
    elif not record.name.endswith(f".{rfc2136.zone}"):
        problem = f"is outside the zone '{rfc2136.zone}'"
        yield Problem(((*place, "name"),), problem, "correct the name, or rfc2136.zone")


def _keys(rfc2136: Rfc2136Part, place: Location) -> Iterator[Problem]:
    if rfc2136.key_file is None and rfc2136.key_env is None:
        problem = "has neither key_file nor key_env, and changes are signed"
        mend = "add key_file, the path of a file with the key that `tsig-keygen NAME` prints"
        yield Problem((place,), problem, mend)
    if rfc2136.key_file is not None and rfc2136.key_env is not None:
        yield Problem(((*place, "key_env"),), "has both key_file and key_env", "keep one of them")


def _targets(record: RecordPart, names: Sequence[str], place: Location) -> Iterator[Problem]:
    at: Location = (*place, "addresses")
    first: dict[str, str] = {}
    family: tuple[RecordType, str] | None = None
    for producer, target in record.addresses.items():
        if names and producer not in names:
            problem = "is not a producer of this pool"
            yield Problem(((*at, producer),), problem, f"the producers are {', '.join(names[:16])}")
        earlier = first.setdefault(target, producer)
        if earlier != producer:
            problem = f"the same as for {earlier}: the name would not move"
            yield Problem(((*at, producer),), problem, "give each producer its own address")
        kind = record_type(target)
        if kind is RecordType.CNAME:
            continue
        family = family or (kind, producer)
        if kind is not family[0]:
            problem = f"address family mismatch: {_FAMILY[kind]} here, and {_FAMILY[family[0]]} for {family[1]}"
            mend = f"put every {_FAMILY[kind]} address into a second record with the same name"
            yield Problem(((*at, producer),), problem, mend)
    missing = [name for name in names if name not in record.addresses]
    if missing:
        problem = f"has no address for {', '.join(missing[:16])}"
        yield Problem((at,), problem, "add PRODUCER: ADDRESS for each")


def _loops(record: RecordPart, owned: Mapping[str, int], place: Location) -> Iterator[Problem]:
    """A record that leads to a record of this file leads nowhere, or to one that moves by itself."""
    for producer, target in record.addresses.items():
        if target in owned:
            other = owned[target]
            own = target == record.name
            problem = "is the record's own name" if own else f"is the name of records[{other}], which moves by itself"
            yield Problem(((*place, "addresses", producer),), problem, "write the producer's own name or address")


def _verify(verify: VerifyPart, place: Location) -> Iterator[Problem]:
    if verify.resolvers is None and verify.servers is None:
        mend = "add resolvers or servers, or remove verify: then the zone's authoritative servers are asked"
        yield Problem((place,), "has neither resolvers nor servers", mend)
    if verify.resolvers is not None and verify.servers is not None:
        yield Problem(((*place, "servers"),), "has both resolvers and servers", "keep one of them")
    for key, most in (("resolvers", MOST_RESOLVERS), ("servers", MOST_SERVERS)):
        asked = getattr(verify, key)
        if asked is None:
            continue
        if not asked:
            yield Problem(((*place, key),), "is empty", "write at least one address, or leave the key out")
        if len(asked) > most:
            problem = f"there are {len(asked)}, and at most {most} are allowed"
            yield Problem(((*place, key),), problem, "remove some")
        for index, address in enumerate(asked):
            if (earlier := asked.index(address)) != index:
                problem = f"the same address as {key}[{earlier}]"
                yield Problem(((*place, key, index),), problem, "remove one of the two")


def _same_names(records: Sequence[RecordPart | None]) -> Iterator[Problem]:
    """A name stands twice only where one record has its IPv4 addresses and the other its IPv6 addresses."""
    first: dict[str, int] = {}
    pairs: set[str] = set()
    for index, record in enumerate(records):
        if record is None:
            continue
        earlier = records[first.setdefault(record.name, index)]
        if earlier is None or earlier is record:
            continue
        kinds = {_types(earlier), _types(record)}
        if kinds == {frozenset({RecordType.A}), frozenset({RecordType.AAAA})} and record.name not in pairs:
            pairs.add(record.name)
            continue
        problem = f"the same name as records[{first[record.name]}]"
        mend = "remove one of them; a name has two records only when one is all IPv4 and the other all IPv6"
        yield Problem((("records", index, "name"),), problem, mend)


def _types(record: RecordPart) -> frozenset[RecordType]:
    return frozenset(record_type(target) for target in record.addresses.values())


def _producers_of_others(parts: Parts, direct: bool, only_path: bool) -> Iterator[Problem]:
    """Where a record points at a producer's host: the wrong one, or one that only the proxies should reach.

    ``direct``: there is no proxy, and relays reach producers themselves.
    """
    for place, producer, host_of in _at_producers(parts):
        if direct and producer not in host_of:
            problem = f"is where {host_of[0]} listens"
            yield Problem((place,), problem, f"write the address of {producer}; are the two exchanged?")
        elif not direct and only_path:
            problem = f"is where {host_of[0]} listens: {_OUR_OWN}, and fence.proxies_are_only_path is true"
            mend = "write the address of a proxy, or set proxies_are_only_path: false"
            yield Problem((place,), problem, mend)


def _at_producers(parts: Parts) -> Iterator[tuple[Location, str, list[str]]]:
    """Each target that is the host of a producer's address: its place, whose it is, and whose host it is."""
    hosts: dict[str, list[str]] = {}
    for producer in parts.values.get("producers", []):
        hosts.setdefault(scalars.same_host(producer.address.host), []).append(producer.name)
    for index, record in enumerate(parts.values.get("records", [])):
        for producer, target in record.addresses.items() if record is not None else ():
            if scalars.same_host(target) in hosts:
                yield ("records", index, "addresses", producer), producer, hosts[scalars.same_host(target)]


# ---------------------------------------------------------------- warnings


def warnings(parts: Parts) -> Iterator[Problem]:
    """What works, but not as well as it could. Only for files without problems."""
    for index, record in enumerate(parts.values["records"]):
        place: Location = ("records", index)
        if record.ttl > LONG_TTL:
            problem = (
                f"after a handover, resolvers may hold on to the old address for {record.ttl} s,"
                " and cardano-node for its own 60 to 900 s on top"
            )
            yield Problem(((*place, "ttl"),), problem, "lower it; 60 is the shortest that nodes heed")
        for producer, target in record.addresses.items():
            if dns.is_link_local(target):
                problem = "is a link-local address: it means nothing beyond its own link"
                yield Problem(((*place, "addresses", producer),), problem, "write an address that relays can reach")
    ungated = {producer.name for producer in parts.values["producers"] if not hosts.kinds(producer)}
    if parts.values["proxies"]:
        for at, _, host_of in _at_producers(parts):
            if ungated.isdisjoint(host_of):
                continue
            problem = f"is where {host_of[0]} listens: {_OUR_OWN}, and no gate shuts anyone out there"
            yield Problem((at,), problem, "write the address of a proxy, or let no relay use this name")


# ---------------------------------------------------------------- building


def zones(records: Sequence[RecordPart | None], environ: Mapping[str, str], made: Zones) -> Iterator[Problem]:
    """Read the keys that records name, and put each record's zone into ``made`` by the record's index."""
    for index, record in enumerate(records):
        if record is not None and record.route53 is not None:
            part = record.route53
            made[index] = Route53Zone(part.zone, part.profile, part.endpoint_url)
        elif record is not None and record.rfc2136 is not None:
            place: Location = ("records", index, "rfc2136")
            try:
                key, source = _key(record.rfc2136, environ)
            except Unreadable as error:
                source = "key_file" if record.rfc2136.key_file is not None else "key_env"
                yield Problem(((*place, source),), str(error), error.mend)
            else:
                if key is not None:
                    yield from _signed(record.rfc2136, key, place, source, made)


def _key(part: Rfc2136Part, environ: Mapping[str, str]) -> tuple[tsig.Key | None, str]:
    """The key, and the file's key that names it. Raises Unreadable."""
    if part.key_file is not None:
        return tsig.read(secret.text(part.key_file, tsig.MEND)), "key_file"
    if part.key_env is not None:
        return tsig.read(secret.variable(part.key_env, environ, "key_file")), "key_env"
    return None, ""


def _signed(part: Rfc2136Part, key: tsig.Key, place: Location, source: str, made: Zones) -> Iterator[Problem]:
    """The zone with its key, when what the file says of the key and what the key says of itself agree."""
    for word, said, own in (
        ("key_name", part.key_name, key.name),
        ("algorithm", part.algorithm, key.algorithm),
    ):
        if said is not None and own is not None and said != own:
            yield Problem(
                ((*place, word),), f"is not what the key itself says, {shown(own)}", "correct it, or remove it"
            )
    name = key.name or part.key_name
    if name is None:
        problem = "has the secret alone, and there is no key_name"
        yield Problem(((*place, source),), problem, "add key_name, as the zone's server knows the key")
    else:
        zone = Rfc2136Zone(part.server, part.zone, name, key.secret)
        algorithm = key.algorithm or part.algorithm or zone.algorithm
        made[int(place[1])] = replace(zone, algorithm=algorithm)


def build(records: Sequence[RecordPart], names: Sequence[str], zones: Zones) -> tuple[Record, ...]:
    """The records; targets in the producers' order of preference. ``zones`` has one for each."""
    times = [record.name for record in records]
    return tuple(
        Record(
            name=record.name,
            label=record.name if times.count(record.name) == 1 else f"{record.name} {min(_types(record)).value}",
            targets={name: record.addresses[name] for name in names},
            provider=zones[index],
            ttl=record.ttl,
            resolvers=tuple(record.verify.resolvers or ()) if record.verify is not None else (),
            servers=tuple(record.verify.servers or ()) if record.verify is not None else (),
        )
        for index, record in enumerate(records)
    )
