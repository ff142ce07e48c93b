"""One authoritative zone as Amazon Route 53 keeps it: a value with rules, and that value as it changes over time.

A batch of changes is applied as a whole or refused as a whole, with every complaint in Amazon's words where a source
shows them (botocore's documentation of the service, and errors that its users quote). Order is Route 53's own: by
labels from the right, then by type, then by set identifier. Nothing here does I/O.
"""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import dns.exception
import dns.name
import dns.rdata
import dns.rdatatype

from failover.host import RealHost
from failover.lab.haproxy import LabError
from failover.model import record_type
from failover.ports import Host

TYPES = (
    *("SOA", "A", "TXT", "NS", "CNAME", "MX", "NAPTR", "PTR", "SRV", "SPF", "AAAA", "CAA"),
    *("DS", "TLSA", "SSHFP", "SVCB", "HTTPS"),
)
MOST_TTL = 2**31 - 1
MOST_VALUES = 1000  # in one batch, those of an UPSERT counted twice
MOST_IN_SET = 100
MOST_VERSIONS = 10_000
NAMESERVERS = tuple(f"ns-{n}.awsdns-{n % 60:02}.test." for n in (1, 513, 1025, 1537))
NS_TTL, SOA_TTL = 172800, 900  # seconds, as in every new zone of Route 53
NEGATIVE_TTL = 86400  # seconds: the last number of the SOA that Route 53 makes; the SOA's own TTL is the lower bound

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_ESCAPED = re.compile(r"\\([0-7]{3})|\\(.)|(.)", re.DOTALL)


class BatchRefused(LabError):
    """A batch of changes breaks a rule, so nothing of it was applied. ``messages`` are all the complaints."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__(", ".join(messages), "read the zone again, and change what is there")
        self.messages = tuple(messages)


def labels(name: str) -> tuple[str, ...]:
    """The labels of a name in lower case, octal escapes (``\\052``) resolved; () for the root."""
    found, label = [], ""
    for octal, escaped, plain in _ESCAPED.findall(name.lower()):
        if plain == ".":
            found.append(label)
            label = ""
        else:
            label += chr(int(octal, 8)).lower() if octal else escaped or plain
    return tuple(found if not label else [*found, label]) if name != "." else ()


def canonical(name: str) -> str:
    """The name as Route 53 lists it: lower case, absolute, everything but a-z, 0-9, - and _ as octal escapes."""
    spelt = ["".join(c if c in _PLAIN else f"\\{ord(c):03o}" for c in label) for label in labels(name)]
    return ".".join(spelt) + "."


def dns_name(name: str) -> dns.name.Name:
    """The name for the wire. A dot that is missing at the end is understood."""
    return dns.name.Name([*(label.encode("latin-1") for label in labels(name)), b""])


def text_name(name: dns.name.Name) -> str:
    """A name from the wire, canonical."""
    return canonical(".".join("".join(f"\\{byte:03o}" for byte in label) for label in name.labels))


def _order(name: str) -> str:
    return ".".join(reversed(name.rstrip(".").split("."))) + "."


@dataclass(frozen=True, slots=True)
class Alias:
    """What an alias set stands for: a name in a hosted zone."""

    zone: str
    name: str
    evaluate: bool = False


@dataclass(frozen=True, slots=True)
class RecordSet:
    """All that a zone holds of one name, type and identifier. ``name`` is made canonical; ``ttl`` is in seconds.

    ``policy`` are the elements of Route 53's special sets with their text, such as ("Weight", "10"),
    ("Region", "eu-west-1"), ("Failover", "PRIMARY"), ("MultiValueAnswer", "true"); those have an ``identifier``.
    """

    name: str
    type: str
    ttl: int | None = None
    values: tuple[str, ...] = ()
    identifier: str | None = None
    policy: tuple[tuple[str, str], ...] = ()
    alias: Alias | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", canonical(self.name))

    @property
    def key(self) -> tuple[str, str, str]:
        """What no two sets of a zone share."""
        return self.name, self.type, self.identifier or ""

    @property
    def order(self) -> tuple[str, str, str]:
        """By what a zone is sorted."""
        return _order(self.name), self.type, self.identifier or ""

    def same(self, other: RecordSet) -> bool:
        """Whether both say the same; values have no order."""
        return replace(self, values=tuple(sorted(self.values)), policy=tuple(sorted(self.policy))) == replace(
            other, values=tuple(sorted(other.values)), policy=tuple(sorted(other.policy))
        )

    def __str__(self) -> str:
        what = f"alias of {self.alias.name}" if self.alias else f"{self.ttl} {' '.join(self.values)}"
        special = "".join(f" {key}={value}" for key, value in self.policy)
        return f"{self.name} {self.type} {what}" + (f" [{self.identifier}{special}]" if self.identifier else "")


def record(name: str, *values: str, ttl: int = 60, type: str = "") -> RecordSet:  # noqa: A002  the field's word
    """A plain set; the type follows from the first value (A, AAAA or CNAME) where it is not given."""
    return RecordSet(name, type or record_type(values[0]).value, ttl, values)


class Action(StrEnum):
    """What a change does to a set."""

    CREATE = "CREATE"
    DELETE = "DELETE"
    UPSERT = "UPSERT"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a batch."""

    action: Action
    set: RecordSet


@dataclass(frozen=True, slots=True)
class Zone:
    """A hosted zone: ``sets`` in Route 53's order. ``version`` rises with each change; it is not in the DNS.

    ``id`` is without /hostedzone/. Route 53 leaves the serial number of the SOA as it is, and so does this.
    """

    name: str
    id: str
    sets: tuple[RecordSet, ...]
    version: int = 1

    @classmethod
    def new(
        cls, name: str, zone_id: str, sets: Iterable[RecordSet] = (), nameservers: Sequence[str] = NAMESERVERS
    ) -> Zone:
        """A zone with the NS and SOA sets that Route 53 makes, and these. They are not judged."""
        soa = f"{nameservers[0]} awsdns-hostmaster.amazon.com. 1 7200 900 1209600 {NEGATIVE_TTL}"
        own = [RecordSet(name, "NS", NS_TTL, tuple(nameservers)), RecordSet(name, "SOA", SOA_TTL, (soa,))]
        return cls(canonical(name), zone_id, tuple(sorted([*own, *sets], key=lambda s: s.order)))

    @property
    def nameservers(self) -> tuple[str, ...]:
        """The names of its servers, from the NS set at the apex."""
        return next(s.values for s in self.sets if s.key == (self.name, "NS", ""))

    def holds(self, name: str) -> bool:
        """Whether a canonical name is the zone's or below it."""
        return name == self.name or name.endswith("." + self.name)

    def at(self, name: str, type_: str = "") -> tuple[RecordSet, ...]:
        """The sets at a name, of one type or of all."""
        name = canonical(name)
        return tuple(s for s in self.sets if s.name == name and type_ in ("", s.type))

    def page(self, start: tuple[str, str, str], most: int) -> tuple[tuple[RecordSet, ...], RecordSet | None]:
        """At most so many sets from ``start`` (name, type, identifier; each may be empty), and the one after them."""
        name, type_, identifier = start
        first = (_order(canonical(name)), type_, identifier) if name else ("", "", "")
        found = [s for s in self.sets if s.order >= first]
        return tuple(found[:most]), found[most] if len(found) > most else None

    def changed(self, changes: Sequence[Change]) -> Zone:
        """The zone after a batch. Raises BatchRefused with every complaint."""
        wrong = [*_too_many(changes), *_contradictory(changes)]
        sets = {s.key: s for s in self.sets}
        for change in changes:
            wrong += self._unfit(change.set)
            wrong += _step(sets, change)
        wrong += self._out_of_order({c.set.name for c in changes if c.action is not Action.DELETE}, sets.values())
        wrong += self._incomplete(sets.values())
        if wrong:
            raise BatchRefused(list(dict.fromkeys(wrong)))
        return replace(self, sets=tuple(sorted(sets.values(), key=lambda s: s.order)), version=self.version + 1)

    def _unfit(self, one: RecordSet) -> list[str]:
        try:
            dns_name(one.name)
        except dns.exception.DNSException:
            return [f"FATAL problem: DomainNameNotParseable (Domain name is not valid) encountered with '{one.name}'"]
        if not self.holds(one.name):
            return [f"RRSet with DNS name {one.name} is not permitted in zone {self.name}"]
        if one.type == "CNAME" and one.name == self.name:
            return [f"RRSet of type CNAME with DNS name {one.name} is not permitted at apex in zone {self.name}"]
        if len(one.values) > MOST_IN_SET:
            return [f"Cannot have more than {MOST_IN_SET} records in a RRSet."]
        if len(one.values) > 1 and one.type in ("CNAME", "SOA"):  # not Amazon's words, which no source shows
            return [f"Cannot have more than 1 record in a RRSet of type {one.type}."]
        twice = {v for v in one.values if one.values.count(v) > 1}
        wrong = [f"Duplicate Resource Record: '{value}'" for value in sorted(twice)]
        return wrong + [problem for v in one.values if (problem := _illegal(one.type, v)) is not None]

    def _out_of_order(self, touched: set[str], sets: Iterable[RecordSet]) -> list[str]:
        """What may not stand beside each other, at the names that a batch created or changed."""
        wrong = []
        for name in sorted(touched):
            here = [s for s in sets if s.name == name]
            types = {s.type for s in here}
            if "CNAME" in types and len(types) > 1 and name != self.name:  # at the apex it is refused as such
                wrong += self._beside_cname(name, types)
            for type_ in sorted(types):
                wrong += _mixed([s for s in here if s.type == type_])
        return wrong

    def _beside_cname(self, name: str, types: set[str]) -> list[str]:
        if any(s.type == "CNAME" for s in self.at(name)):  # the double space is Amazon's
            return [
                f"RRSet of type {type_} with DNS name {name} is not permitted because a conflicting RRSet of type  "
                f"CNAME with the same DNS name already exists in zone {self.name}"
                for type_ in sorted(types - {"CNAME"})
            ]
        return [
            f"RRSet of type CNAME with DNS name {name} is not permitted as it conflicts with other records with the "
            f"same DNS name in zone {self.name}"
        ]

    def _incomplete(self, sets: Iterable[RecordSet]) -> list[str]:
        types = [s.type for s in sets if s.name == self.name]
        wrong = [] if types.count("SOA") == 1 else ["A HostedZone must contain exactly one SOA record."]
        if "NS" not in types:
            wrong.append("A HostedZone must contain at least one NS record for the zone itself.")
        return wrong


def _step(sets: dict[tuple[str, str, str], RecordSet], change: Change) -> list[str]:
    """Carry out one change on a working copy; what stood in its way."""
    one, old = change.set, sets.get(change.set.key)
    named = f"name='{one.name}', type='{one.type}'" + (f", set-identifier='{one.identifier}'" if one.identifier else "")
    if change.action is Action.DELETE:
        tried = f"Tried to delete resource record set [{named}] but"
        if old is None:
            return [f"{tried} it was not found"]
        del sets[one.key]  # also a wrong one, or the CREATE behind it would be a second complaint about the same
        return [] if one.same(old) else [f"{tried} the values provided do not match the current values"]
    if change.action is Action.CREATE and old is not None:
        return [f"Tried to create resource record set [{named}] but it already exists"]
    sets[one.key] = one
    return []


def _too_many(changes: Sequence[Change]) -> list[str]:
    count = sum(len(c.set.values) * (2 if c.action is Action.UPSERT else 1) for c in changes)
    return [f"Number of records limit of {MOST_VALUES} exceeded."] if count > MOST_VALUES else []


def _contradictory(changes: Sequence[Change]) -> list[str]:
    """One batch may touch a set once, or delete it and then create it anew."""
    touched: dict[tuple[str, str, str], list[Action]] = {}
    for change in changes:
        touched.setdefault(change.set.key, []).append(change.action)
    return [
        f"The request contains an invalid set of changes for a resource record set '{type_} {name}'"
        for (name, type_, _), actions in touched.items()
        if len(actions) > 1 and actions != [Action.DELETE, Action.CREATE]
    ]


def _mixed(sets: Sequence[RecordSet]) -> list[str]:
    """Sets of one name and type are one plain set, or special ones of one kind."""
    kinds = {tuple(key for key, _ in s.policy if key != "HealthCheckId") for s in sets}
    if len(sets) < 2 or (len(kinds) == 1 and all(s.identifier for s in sets)):
        return []
    return [
        f"RRSet with DNS name {s.name}, type {s.type}"
        + (f", SetIdentifier {s.identifier}" if s.identifier else "")
        + " cannot be created as other RRSets exist with the same name and type."
        for s in sets[-1:]
    ]


def _illegal(type_: str, value: str) -> str | None:
    """What is wrong with a value, in Amazon's words for addresses."""
    try:
        if type_ == "A":
            problem = "ARRDATAIllegalIPv4Address (Value is not a valid IPv4 address)"
            ipaddress.IPv4Address(value)
        elif type_ == "AAAA":
            problem = "AAAARRDATAIllegalIPv6Address (Value is not a valid IPv6 address)"
            ipaddress.IPv6Address(value.replace("%", "/"))  # a scope is none of the DNS's business
        else:
            problem = f"{type_}RRDATANotParseable (Value is not valid for the type)"
            dns.rdata.from_text("IN", dns.rdatatype.from_text(type_), value, origin=dns.name.root, relativize=False)
    except (ValueError, dns.exception.DNSException):
        return f"Invalid Resource Record: 'FATAL problem: {problem} encountered with '{value}''"
    return None


# ---------------------------------------------------------------- over time


@dataclass(frozen=True, slots=True)
class Version:
    """What a zone was from ``at`` on (seconds on the host's clock)."""

    at: float
    zone: Zone


class LiveZone:
    """A zone and what it was before: Route 53 changes it, other hands do, and its servers learn of it later.

    ``history`` has the versions, oldest first, the newest being ``zone``; so a test can see that a name was never
    empty.
    """

    def __init__(self, zone: Zone, host: Host | None = None) -> None:
        self._host = host or RealHost()
        self.history: deque[Version] = deque([Version(self._host.now().mono, zone)], maxlen=MOST_VERSIONS)

    @property
    def zone(self) -> Zone:
        """What it is now."""
        return self.history[-1].zone

    def change(self, changes: Sequence[Change]) -> Zone:
        """Apply a batch. Raises BatchRefused, and then nothing has changed."""
        zone = self.zone.changed(changes)
        self.history.append(Version(self._host.now().mono, zone))
        return zone

    def put(self, name: str, *values: str, ttl: int = 60, type: str = "") -> None:  # noqa: A002
        """Another hand sets these values: by the same rules, but asking nobody. Raises BatchRefused.

        Its set replaces A, AAAA and CNAME sets of other types that would stand in its way.
        """
        one = record(name, *values, ttl=ttl, type=type)
        in_the_way = [
            Change(Action.DELETE, s)
            for s in self.zone.at(name)
            if s.type != one.type and "CNAME" in (s.type, one.type) and s.name != self.zone.name
        ]
        self.change([*in_the_way, Change(Action.UPSERT, one)])

    def remove(self, name: str, type: str = "") -> None:  # noqa: A002
        """Another hand takes away what is at a name, of one type or all. Raises BatchRefused; nothing there: nothing.

        The NS and SOA sets at the apex stay.
        """
        own = {(self.zone.name, "NS"), (self.zone.name, "SOA")}
        changes = [Change(Action.DELETE, s) for s in self.zone.at(name, type) if (s.name, s.type) not in own]
        if changes:
            self.change(changes)

    def seen(self, after: Zone, lag: float) -> Zone:
        """What a server that last knew ``after`` knows now, when it learns of changes ``lag`` seconds late."""
        until = self._host.now().mono - lag
        for version in reversed(self.history):
            if version.zone.version <= after.version:
                break
            if version.at <= until:
                return version.zone
        return after
