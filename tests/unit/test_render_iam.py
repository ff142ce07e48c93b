"""``failover render iam``: the least AWS policy for the file's Route 53 records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from failover.cli import main
from failover.errors import ConfigError
from failover.model import Address, Record, Rfc2136Zone, Route53Zone
from failover.records.iam import policy

V4 = {"main": "192.0.2.1", "backup": "192.0.2.2"}
V6 = {"main": "2001:db8::1", "backup": "2001:db8::2"}
NAMES = {"main": "bp1.example.net.", "backup": "bp2.example.net."}
BIND = Rfc2136Zone(Address("192.0.2.53", 53), "example.com.", "key.", "c2VjcmV0")

PREFIX = "route53:ChangeResourceRecordSets"
NAME, TYPE, ACTION = (f"{PREFIX}{what}" for what in ("NormalizedRecordNames", "RecordTypes", "Actions"))
KEYS = {NAME, TYPE, ACTION}


def record(name: str, targets: dict[str, str], zone: str = "Z1") -> Record:
    return Record(name, name, targets, Route53Zone(zone))


def allowed(document: dict[str, Any], action: str, resource: str, request: dict[str, list[str]] | None = None) -> bool:
    """What IAM would say, as far as this kind of policy goes; ``request`` has the values of the condition's keys."""
    return any(
        statement["Action"] == action
        and re.fullmatch(re.escape(statement["Resource"]).replace(r"\*", ".*"), resource)
        and _met(statement.get("Condition", {}), request or {})
        for statement in document["Statement"]
    )


def _met(condition: dict[str, Any], request: dict[str, list[str]]) -> bool:
    assert set(condition) <= {"ForAllValues:StringEquals", "Null"}
    equal = condition.get("ForAllValues:StringEquals", {})
    return all(set(request.get(key, [])) <= set(values) for key, values in equal.items()) and all(
        (key not in request) == (absent == "true") for key, absent in condition.get("Null", {}).items()
    )


def batch(name: str, kinds: Iterable[str], actions: Iterable[str] = ("DELETE", "CREATE")) -> dict[str, list[str]]:
    return {NAME: [name], TYPE: list(kinds), ACTION: list(actions)}


def zone(number: str) -> str:
    return f"arn:aws:route53:::hostedzone/{number}"


def test_a_record_can_be_read_swapped_and_followed_and_nothing_else() -> None:
    document = policy([record("bp.example.com.", V4)])
    assert allowed(document, "route53:ListResourceRecordSets", zone("Z1"))
    assert allowed(document, PREFIX, zone("Z1"), batch("bp.example.com", ["A"]))
    assert allowed(document, PREFIX, zone("Z1"), batch("bp.example.com", ["A"], ["CREATE"]))
    assert allowed(document, "route53:GetChange", "arn:aws:route53:::change/C1")
    for request in (
        batch("other.example.com", ["A"]),
        batch("a.bp.example.com", ["A"]),
        batch("bp.example.com", ["TXT"]),
        batch("bp.example.com", ["A", "AAAA"]),
        batch("bp.example.com", ["A"], ["UPSERT"]),
        {**batch("bp.example.com", ["A"]), NAME: ["bp.example.com", "other.example.com"]},
    ):
        assert not allowed(document, PREFIX, zone("Z1"), request)
    assert not allowed(document, PREFIX, zone("Z2"), batch("bp.example.com", ["A"]))
    assert not allowed(document, "route53:ListResourceRecordSets", zone("Z2"))
    assert {statement["Effect"] for statement in document["Statement"]} == {"Allow"}


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_a_request_that_does_not_say_what_it_changes_is_not_allowed(missing: str) -> None:
    document = policy([record("bp.example.com.", V4)])
    request = batch("bp.example.com", ["A"])
    del request[missing]
    assert not allowed(document, PREFIX, zone("Z1"), request)


def test_every_type_that_a_record_can_have_is_allowed_at_once() -> None:
    document = policy([record("bp.example.com.", {"main": "192.0.2.1", "backup": "bp2.example.net."})])
    assert allowed(document, PREFIX, zone("Z1"), batch("bp.example.com", ["A", "CNAME"]))
    assert not allowed(document, PREFIX, zone("Z1"), batch("bp.example.com", ["AAAA"]))


def test_records_of_different_types_do_not_lend_each_other_theirs() -> None:
    document = policy([record("bp.example.com.", V4), record("bp.example.com.", V6), record("x.example.com.", NAMES)])
    for name, kind in (("bp", "A"), ("bp", "AAAA"), ("x", "CNAME")):
        assert allowed(document, PREFIX, zone("Z1"), batch(f"{name}.example.com", [kind]))
    for name, kind in (("bp", "CNAME"), ("x", "A"), ("x", "AAAA")):
        assert not allowed(document, PREFIX, zone("Z1"), batch(f"{name}.example.com", [kind]))


def test_zones_do_not_lend_each_other_names() -> None:
    document = policy([record("bp.example.com.", V4), record("bp.example.net.", V4, "Z2")])
    assert allowed(document, PREFIX, zone("Z2"), batch("bp.example.net", ["A"]))
    assert not allowed(document, PREFIX, zone("Z2"), batch("bp.example.com", ["A"]))
    reads = [s["Resource"] for s in document["Statement"] if s["Action"] == "route53:ListResourceRecordSets"]
    assert reads == [zone("Z1"), zone("Z2")]


def test_names_are_spelt_as_conditions_want_them() -> None:
    document = policy([record("*.BP_1.example.com.", V4)])
    assert allowed(document, PREFIX, zone("Z1"), batch(r"\052.bp_1.example.com", ["A"]))


def test_statements_have_names_of_their_own_in_letters_and_digits() -> None:
    document = policy([record("a.x.", V4), record("b.x.", V6), record("a.x.", V4, "Z1AAA"), record("c.x.", NAMES)])
    names = [statement["Sid"] for statement in document["Statement"]]
    assert len(set(names)) == len(names) == 3 + 1 + 2 + 1
    assert all(re.fullmatch("[A-Za-z0-9]+", name) for name in names)
    assert document["Version"] == "2012-10-17"


def test_records_elsewhere_need_no_policy() -> None:
    elsewhere = Record("bp.example.org.", "bp", V4, BIND)
    assert "example.org" not in json.dumps(policy([elsewhere, record("bp.example.com.", V4)]))
    with pytest.raises(ConfigError, match="none is at Route 53"):
        policy([elsewhere])


# ---------------------------------------------------------------- the command

FILE = """
pool: EXMPL
network: preprod
state: {state}
producers:
  - {{name: main, address: "127.0.0.1:6000"}}
  - {{name: backup, address: "127.0.0.2:6000"}}
proxies:
  - {{name: proxy-1, socket: /run/haproxy/admin.sock, backend: producers, watch: watch, hard_stop_after: 5s}}
"""
RECORDS = """
records:
  - name: bp.example.com.
    addresses: {main: 203.0.113.10, backup: 203.0.113.20}
    route53: {zone: Z0123456789ABC}
"""


def render(folder: Path, more: str) -> Result:
    file = folder / "failover.yaml"
    file.write_text(FILE.format(state=json.dumps(str(folder))) + more)
    return CliRunner().invoke(main, ["-c", str(file), "render", "iam"])


def test_the_policy_is_printed_from_the_pools_file(tmp_path: Path) -> None:
    result = render(tmp_path, RECORDS)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert allowed(document, PREFIX, zone("Z0123456789ABC"), batch("bp.example.com", ["A"]))


def test_a_file_without_a_route_53_record_has_no_policy(tmp_path: Path) -> None:
    result = render(tmp_path, "")
    assert result.exit_code == 2
    assert "none is at Route 53" in result.stderr
    assert result.stdout == ""
