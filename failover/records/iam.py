"""The least AWS policy with which the records of a file can be read and swapped at Route 53. A pure value.

https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/specifying-conditions-route53.html (the conditions, and how
their values are spelt)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from failover.errors import ConfigError
from failover.model import Record, RecordType, Route53Zone
from failover.records.route53_sets import escaped

_ACTIONS = ["CREATE", "DELETE"]
_NAMES = "route53:ChangeResourceRecordSetsNormalizedRecordNames"
_TYPES = "route53:ChangeResourceRecordSetsRecordTypes"
_WHAT = "route53:ChangeResourceRecordSetsActions"


def policy(records: Iterable[Record]) -> dict[str, Any]:
    """The policy document. Records of one zone and of the same types share a statement.

    So nobody gets a type at a name that has no use for it. Raises ConfigError when no record is at Route 53.
    """
    zones: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for record in records:
        if isinstance(record.provider, Route53Zone):
            kinds = tuple(kind.value for kind in RecordType if kind in record.types)
            zones.setdefault(record.provider.zone, {}).setdefault(kinds, []).append(_normalized(record.name))
    if not zones:
        raise ConfigError(
            "records: none is at Route 53, so no AWS policy is needed", "give a record `route53: {zone: ...}` first"
        )
    statements = [statement for zone, groups in zones.items() for statement in _of_zone(zone, groups)]
    follow = _allow("FollowChanges", "route53:GetChange", "arn:aws:route53:::change/*")
    return {"Version": "2012-10-17", "Statement": [*statements, follow]}


def _of_zone(zone: str, groups: dict[tuple[str, ...], list[str]]) -> list[dict[str, Any]]:
    arn = f"arn:aws:route53:::hostedzone/{zone}"
    statements = [_allow(f"Read{zone}", "route53:ListResourceRecordSets", arn)]
    for kinds, names in groups.items():
        wanted = {_NAMES: sorted(set(names)), _TYPES: list(kinds), _WHAT: _ACTIONS}
        change = _allow(f"Change{''.join(kinds)}Of{zone}", "route53:ChangeResourceRecordSets", arn)
        # ForAllValues also holds for a request without the key; Null shuts that way.
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition_examples-multi-valued-context-keys.html
        change["Condition"] = {"ForAllValues:StringEquals": wanted, "Null": dict.fromkeys(wanted, "false")}
        statements.append(change)
    return statements


def _allow(sid: str, action: str, resource: str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}


def _normalized(name: str) -> str:
    """Lower case, without the last dot, other characters as octal escapes."""
    return escaped(name).removesuffix(".")
