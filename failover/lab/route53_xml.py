"""The XML of Route 53's API, version 2013-04-01, both ways: what clients send, and what they read. Pure.

Elements and their order are those of botocore's model of the service; the wording of what is refused follows errors
that users of Amazon's quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from failover.lab.zone import MOST_TTL, TYPES, Action, Alias, Change, RecordSet, Zone

NAMESPACE = "https://route53.amazonaws.com/doc/2013-04-01/"
POLICIES = ("Weight", "Region", "Failover", "MultiValueAnswer", "HealthCheckId")
KNOWN = {"Name", "Type", "SetIdentifier", "TTL", "ResourceRecords", "AliasTarget", *POLICIES}


class InputRefused(Exception):
    """A document does not say what it must. ``code`` is Amazon's for it."""

    def __init__(self, message: str, code: str = "InvalidInput") -> None:
        super().__init__(message)
        self.code = code


# ---------------------------------------------------------------- what clients send


def document(body: bytes, root: str) -> ET.Element:
    """The root element of a request's body, its namespace stripped from every name. Raises InputRefused."""
    if b"<!" in body:
        raise InputRefused("Unable to parse request", "MalformedInput")
    try:
        parsed = ET.fromstring(body)  # noqa: S314  no declarations, at most 1 MiB, on loopback
    except ET.ParseError:
        raise InputRefused("Unable to parse request", "MalformedInput") from None
    if parsed.tag != f"{{{NAMESPACE}}}{root}":
        raise InputRefused(f"Unexpected element, expected {root} in {NAMESPACE}", "MalformedInput")
    for element in parsed.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    return parsed


def changes(body: bytes) -> list[Change]:
    """The batch of a ChangeResourceRecordSets. Raises InputRefused."""
    found = document(body, "ChangeResourceRecordSetsRequest").findall("./ChangeBatch/Changes/Change")
    if not found:
        raise InputRefused(
            "Invalid XML ; cvc-complex-type.2.4.b: The content of element 'Changes' is not complete. One of "
            f"'{{\"{NAMESPACE}\":Change}}' is expected."
        )
    return [_change(element, number) for number, element in enumerate(found, 1)]


def _change(element: ET.Element, number: int) -> Change:
    action = _one_of(element.findtext("Action", ""), tuple(Action))
    found = element.find("ResourceRecordSet")
    if found is None:
        raise InputRefused("Invalid XML ; a Change has no ResourceRecordSet.")
    strange = [e.tag for e in found if e.tag not in KNOWN]
    if strange:
        raise InputRefused(f"Invalid request: this endpoint knows no {strange[0]}")
    name, type_ = found.findtext("Name", ""), _one_of(found.findtext("Type", ""), TYPES)
    identifier = found.findtext("SetIdentifier")
    ttl = _ttl(found.findtext("TTL"), number)
    values = tuple(value.text or "" for value in found.findall("./ResourceRecords/ResourceRecord/Value"))
    alias = _alias(found.find("AliasTarget"))
    if (alias is None) == (ttl is None or not values):
        raise InputRefused(
            "Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and ResourceRecords], or "
            f"TrafficPolicyInstanceId], but found {'none' if alias is None else 'more than one'} in Change with "
            f"[Action={action}, Name={name}, Type={type_}, SetIdentifier={identifier or 'null'}]"
        )
    policy = tuple((e.tag, e.text or "") for e in found if e.tag in POLICIES)
    return Change(Action(action), RecordSet(name, type_, ttl, values, identifier, policy, alias))


def _one_of(text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise InputRefused(
            f"Invalid XML ; cvc-enumeration-valid: Value '{text}' is not facet-valid with respect to enumeration "
            f"'[{', '.join(known)}]'. It must be a value from the enumeration."
        )
    return text


def _ttl(text: str | None, number: int) -> int | None:
    if text is None:
        return None
    try:
        ttl = int(text)
    except ValueError:
        raise InputRefused(f"Invalid XML ; cvc-datatype-valid.1.2.1: '{text}' is not a valid value.") from None
    if not 0 <= ttl <= MOST_TTL:
        bound = "greater than or equal to 0" if ttl < 0 else f"less than or equal to {MOST_TTL}"
        raise InputRefused(
            f"1 validation error detected: Value '{ttl}' at 'changeBatch.changes.{number}.member.resourceRecordSet.tTL'"
            f" failed to satisfy constraint: Member must have value {bound}"
        )
    return ttl


def _alias(element: ET.Element | None) -> Alias | None:
    if element is None:
        return None
    zone, name = element.findtext("HostedZoneId", ""), element.findtext("DNSName", "")
    return Alias(zone, name, element.findtext("EvaluateTargetHealth") == "true")


# ---------------------------------------------------------------- what they read


def error(code: str, message: str, request: str, sender: bool = True) -> bytes:
    """An error, as botocore reads it."""
    kind = "Sender" if sender else "Receiver"
    inner = _e("Error", _t("Type", kind) + _t("Code", code) + _t("Message", message)) + _t("RequestId", request)
    return _document("ErrorResponse", inner)


def listing(sets: Sequence[RecordSet], following: RecordSet | None, most: int) -> bytes:
    """The answer to ListResourceRecordSets."""
    inner = _e("ResourceRecordSets", "".join(map(_set, sets))) + _t("IsTruncated", _bool(following is not None))
    if following is not None:
        inner += _t("NextRecordName", following.name) + _t("NextRecordType", following.type)
        inner += _t("NextRecordIdentifier", following.identifier) if following.identifier else ""
    return _document("ListResourceRecordSetsResponse", inner + _t("MaxItems", str(most)))


def change_info(root: str, id_: str, status: str, submitted: float) -> bytes:
    """The answer to ChangeResourceRecordSets and GetChange; ``submitted`` is Unix time."""
    return _document(root, _info(id_, status, submitted))


def hosted_zone(zone: Zone, reference: str, root: str = "GetHostedZoneResponse", info: str = "") -> bytes:
    """The answer to GetHostedZone and, with the ``info`` of the change, CreateHostedZone."""
    inner = _t("Id", f"/hostedzone/{zone.id}") + _t("Name", zone.name) + _t("CallerReference", reference)
    inner += _e("Config", _t("PrivateZone", "false")) + _t("ResourceRecordSetCount", str(len(zone.sets)))
    servers = "".join(_t("NameServer", name.rstrip(".")) for name in zone.nameservers)
    return _document(root, _e("HostedZone", inner) + info + _e("DelegationSet", _e("NameServers", servers)))


def created_zone(zone: Zone, reference: str, change: str, submitted: float) -> bytes:
    """The answer to CreateHostedZone."""
    return hosted_zone(zone, reference, "CreateHostedZoneResponse", _info(change, "PENDING", submitted))


def _info(id_: str, status: str, submitted: float) -> str:
    at = datetime.fromtimestamp(submitted, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    return _e("ChangeInfo", _t("Id", f"/change/{id_}") + _t("Status", status) + _t("SubmittedAt", at))


def _set(one: RecordSet) -> str:
    inner = _t("Name", one.name) + _t("Type", one.type)
    inner += _t("SetIdentifier", one.identifier) if one.identifier else ""
    inner += "".join(_t(key, text) for key, text in one.policy if key != "HealthCheckId")
    if one.alias is not None:
        target = _t("HostedZoneId", one.alias.zone) + _t("DNSName", one.alias.name)
        inner += _e("AliasTarget", target + _t("EvaluateTargetHealth", _bool(one.alias.evaluate)))
    else:
        values = "".join(_e("ResourceRecord", _t("Value", value)) for value in one.values)
        inner += _t("TTL", str(one.ttl)) + _e("ResourceRecords", values)
    inner += "".join(_t(key, text) for key, text in one.policy if key == "HealthCheckId")
    return _e("ResourceRecordSet", inner)


def _document(root: str, inner: str) -> bytes:
    return f'<?xml version="1.0"?>\n<{root} xmlns="{NAMESPACE}">{inner}</{root}>'.encode()


def _e(name: str, inner: str) -> str:
    return f"<{name}>{inner}</{name}>"


def _t(name: str, text: str) -> str:
    return _e(name, escape(text))


def _bool(value: bool) -> str:
    return "true" if value else "false"
