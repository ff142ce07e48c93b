"""What Route 53 lists at a record's name, judged, and the change batch that swaps it. Pure: values in, values out.

A batch is a compare-and-swap: DELETE must match everything that is stored and CREATE refuses what exists, and Route 53
carries out all of a batch or nothing. Only a simple set can be swapped so: of weighted sets and their like there are
several of one type, an alias has no values, and what else a set may carry (a health check) would be lost.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failover.model import Record, RecordReading, RecordType, RRset

COMMENT = "cardano-failover"  # what a change carries in Route 53's own records

Listed = Mapping[str, Any]
"""A ResourceRecordSet in the shape of botocore's model."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_SIMPLE = frozenset({"Name", "Type", "TTL", "ResourceRecords"})
_KINDS = frozenset(kind.value for kind in RecordType)
_POLICIES = {
    "Weight": "weighted",
    "Region": "latency",
    "Failover": "failover",
    "GeoLocation": "geolocation",
    "GeoProximityLocation": "geoproximity",
    "MultiValueAnswer": "multi-value",
    "CidrRoutingConfig": "CIDR",
}


@dataclass(frozen=True, slots=True)
class Held:
    """What stands at the record's name, and the set itself as it was listed, when it is one that can be swapped."""

    reading: RecordReading
    listed: Listed | None = None


# ---------------------------------------------------------------- names


def escaped(name: str) -> str:
    r"""``name`` as Route 53 spells it: lower case, and ``\052`` (octal) for what is no letter, digit, hyphen or ``_``.

    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DomainNameFormat.html
    """
    return "".join(chr(b) if chr(b) in _PLAIN or chr(b) == "." else f"\\{b:03o}" for b in name.lower().encode())


def canonical_name(listed: str) -> str:
    r"""A listed name, absolute and lower case; an escape remains only where it is needed (``\056`` is no separator)."""
    resolved = re.sub(r"\\([0-3][0-7]{2})", _unescaped, listed.lower())
    return resolved if resolved.endswith(".") else f"{resolved}."


def _unescaped(found: re.Match[str]) -> str:
    character = chr(int(found[1], 8)).lower()
    return character if character in _PLAIN else found[0]


# ---------------------------------------------------------------- what is there


def held(record: Record, sets: Sequence[Listed]) -> Held:
    """What the sets at the record's name (all of them, and no others) mean for it."""
    ours = [s for s in sets if s.get("Type") in record.types]
    for one in ours:
        what = _special(one)
        if what is not None:
            return Held(RecordReading(None, f"{what}: only one simple set can be changed safely"))
    if len(ours) > 1:
        kinds = " and ".join(sorted(str(s["Type"]) for s in ours))
        return Held(RecordReading(None, f"holds {kinds} at once: this record may hold one of them at a time"))
    only = _rrset(ours[0]) if ours else None
    wrong = _beside(record, sets)
    return Held(RecordReading(only, wrong), ours[0] if ours and wrong is None else None)


def _beside(record: Record, sets: Sequence[Listed]) -> str | None:
    """In words, what stands there of other types that keeps this record from being changed."""
    others = {str(s.get("Type")): s for s in sets if s.get("Type") not in record.types}
    wanted = " and ".join(sorted(kind.value for kind in record.types))
    if RecordType.CNAME.value in others:
        cname = others[RecordType.CNAME.value]
        what = _special(cname) or f"is a CNAME (to {', '.join(_values(cname)) or 'nothing'})"
        return f"{what}: this record is of type {wanted}, which cannot stand beside a CNAME"
    if RecordType.CNAME in record.types and others:
        kinds = " and ".join(sorted(others, key=lambda kind: (kind not in _KINDS, kind)))
        return f"holds {kinds}: this record is of type {wanted}, and nothing can stand beside a CNAME"
    return None


def _special(listed: Listed) -> str | None:
    """In words, why this is no simple set; None when it is one."""
    extra = set(listed) - _SIMPLE
    identifier = listed.get("SetIdentifier")
    named = "" if identifier is None else f" (SetIdentifier {_shown(identifier)})"
    policy = next((word for key, word in _POLICIES.items() if key in extra), None)
    if policy is not None:
        return f"is a {policy} {'alias' if 'AliasTarget' in extra else 'set'}{named}"
    if "AliasTarget" in extra:
        return f"is an alias (to {_shown(listed['AliasTarget'].get('DNSName', 'something'))}){named}"
    if identifier is not None:
        return f"is one of several sets by a routing policy{named}"
    if "TrafficPolicyInstanceId" in extra:
        return "was made by a traffic policy"
    if "HealthCheckId" in extra:
        return "has a health check"
    if extra or not listed.get("ResourceRecords") or "TTL" not in listed:
        return "is a set that this version does not know"
    return None


def _shown(text: Any) -> str:
    """Text from outside, on one line and of a bounded length."""
    plain = str(text)[:130]
    return plain if plain.isprintable() else ascii(plain)


def _rrset(listed: Listed) -> RRset:
    """The values of a simple set in canonical text."""
    return RRset(RecordType(listed["Type"]), _values(listed), int(listed["TTL"]))


def _values(listed: Listed) -> tuple[str, ...]:
    kind = listed.get("Type")
    return tuple(sorted(_canonical(kind, str(r.get("Value", ""))) for r in listed.get("ResourceRecords", ())))


def _canonical(kind: Any, value: str) -> str:
    if kind == RecordType.CNAME.value:
        return canonical_name(value.strip())
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        return value.strip().lower()


# ---------------------------------------------------------------- what is sent


def batch(name: str, expected: RRset | None, wanted: RRset, listed: Listed | None) -> dict[str, Any]:
    """The ChangeBatch that puts ``wanted`` in place of ``expected``.

    Where ``listed`` is the expected set in Route 53's own spelling (2001:DB8::1, a name without its last dot), that
    is what is deleted: a DELETE matches nothing that is spelt otherwise.
    """
    changes = [{"Action": "CREATE", "ResourceRecordSet": _spelt(name, wanted)}]
    if expected is not None:
        as_stored = listed is not None and _rrset(listed) == expected
        old = dict(listed) if listed is not None and as_stored else _spelt(name, expected)
        changes.insert(0, {"Action": "DELETE", "ResourceRecordSet": old})
    return {"Comment": COMMENT, "Changes": changes}


def _spelt(name: str, rrset: RRset) -> dict[str, Any]:
    return {
        "Name": escaped(name),
        "Type": rrset.type.value,
        "TTL": rrset.ttl,
        "ResourceRecords": [{"Value": value} for value in rrset.values],
    }
