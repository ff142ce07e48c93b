"""A zone of the lab keeps Route 53's rules, its order and its words, and its servers learn of a change when they do."""

from __future__ import annotations

from collections.abc import Sequence

import dns.name
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.host import RealHost
from failover.lab.names import Found, lookup
from failover.lab.zone import (
    NAMESERVERS,
    Action,
    Alias,
    BatchRefused,
    Change,
    LiveZone,
    RecordSet,
    Zone,
    canonical,
    dns_name,
    record,
    text_name,
)

BP = record("bp.example.test.", "192.0.2.1")
ZONE = Zone.new("example.test.", "Z1", [BP])
CREATE, DELETE, UPSERT = Action.CREATE, Action.DELETE, Action.UPSERT


def a(name: str, *values: str, ttl: int = 60) -> RecordSet:
    return record(name, *values, ttl=ttl)


def weighted(value: str, identifier: str, key: str = "Weight", text: str = "1") -> RecordSet:
    return RecordSet("w.example.test.", "A", 60, (value,), identifier, ((key, text),))


def values(zone: Zone, name: str) -> dict[str, tuple[str, ...]]:
    return {s.type: s.values for s in zone.at(name)}


def refused(zone: Zone, *changes: tuple[Action, RecordSet]) -> Sequence[str]:
    with pytest.raises(BatchRefused) as caught:
        zone.changed([Change(*change) for change in changes])
    return caught.value.messages


# ---------------------------------------------------------------- changes


def test_a_batch_swaps_the_old_set_for_the_new_one_when_the_old_one_is_as_expected() -> None:
    changed = ZONE.changed([Change(DELETE, BP), Change(CREATE, a("bp.example.test.", "192.0.2.2"))])
    assert values(changed, "bp.example.test.") == {"A": ("192.0.2.2",)}
    assert (changed.version, values(ZONE, "bp.example.test.")) == (ZONE.version + 1, {"A": ("192.0.2.1",)})


def test_creating_what_exists_is_refused() -> None:
    assert refused(ZONE, (CREATE, a("BP.example.test", "192.0.2.2"))) == (
        "Tried to create resource record set [name='bp.example.test.', type='A'] but it already exists",
    )


def test_upsert_creates_and_replaces() -> None:
    zone = ZONE.changed(
        [Change(UPSERT, a("bp.example.test.", "192.0.2.2", ttl=0)), Change(UPSERT, a("x.example.test.", "::1"))]
    )
    assert (values(zone, "bp.example.test."), values(zone, "x.example.test.")) == (
        {"A": ("192.0.2.2",)},
        {"AAAA": ("::1",)},
    )


@pytest.mark.parametrize(
    "other",
    [
        a("bp.example.test.", "192.0.2.2"),
        a("bp.example.test.", "192.0.2.1", ttl=61),
        a("bp.example.test.", "192.0.2.1", "192.0.2.2"),
    ],
    ids=["value", "ttl", "more values"],
)
def test_deleting_what_is_not_as_said_is_refused(other: RecordSet) -> None:
    assert refused(ZONE, (DELETE, other)) == (
        "Tried to delete resource record set [name='bp.example.test.', type='A'] but the values provided do not match "
        "the current values",
    )


@pytest.mark.parametrize(
    "other", [a("no.example.test.", "192.0.2.1"), a("bp.example.test.", "::1")], ids=["name", "type"]
)
def test_deleting_what_is_not_there_is_refused(other: RecordSet) -> None:
    (message,) = refused(ZONE, (DELETE, other))
    assert message.endswith(f"[name='{other.name}', type='{other.type}'] but it was not found")


def test_the_order_of_values_does_not_matter_to_a_delete() -> None:
    zone = Zone.new("example.test.", "Z1", [a("m.example.test.", "192.0.2.1", "192.0.2.2")])
    assert zone.changed([Change(DELETE, a("m.example.test.", "192.0.2.2", "192.0.2.1"))]).at("m.example.test.") == ()


def test_one_wrong_change_refuses_the_whole_batch_and_every_complaint_is_told() -> None:
    wrong = ((CREATE, a("new.example.test.", "192.0.2.7")), (DELETE, a("no.example.test.", "::1")), (CREATE, BP))
    assert len(refused(ZONE, *wrong)) == 2


def invalid(problem: str, value: str) -> str:
    return f"Invalid Resource Record: 'FATAL problem: {problem} encountered with '{value}''"


V4 = "ARRDATAIllegalIPv4Address (Value is not a valid IPv4 address)"
V6 = "AAAARRDATAIllegalIPv6Address (Value is not a valid IPv6 address)"
NO_NAME = "CNAMERRDATANotParseable (Value is not valid for the type)"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (
            a("bp.example.com.", "192.0.2.1"),
            "RRSet with DNS name bp.example.com. is not permitted in zone example.test.",
        ),
        (
            a("anexample.test.", "192.0.2.1"),
            "RRSet with DNS name anexample.test. is not permitted in zone example.test.",
        ),
        (
            a("example.test.", "x.test."),
            "RRSet of type CNAME with DNS name example.test. is not permitted at apex in zone example.test.",
        ),
        (
            a("bp.example.test.", "x.test."),
            "RRSet of type CNAME with DNS name bp.example.test. is not permitted as it conflicts with other records "
            "with the same DNS name in zone example.test.",
        ),
        (record("x.example.test.", "192.0.2.256", type="A"), invalid(V4, "192.0.2.256")),
        (record("x.example.test.", "192.0.2.1", type="AAAA"), invalid(V6, "192.0.2.1")),
        (record("x.example.test.", "fe80::1%lo", type="AAAA"), invalid(V6, "fe80::1%lo")),
        (record("x.example.test.", "no name", type="CNAME"), invalid(NO_NAME, "no name")),
        (a("x.example.test.", "a.test.", "b.test."), "Cannot have more than 1 record in a RRSet of type CNAME."),
        (a("x.example.test.", "192.0.2.1", "192.0.2.1"), "Duplicate Resource Record: '192.0.2.1'"),
        (a("x.example.test.", *(f"192.0.2.{n}" for n in range(101))), "Cannot have more than 100 records in a RRSet."),
        (
            a("x..example.test.", "192.0.2.1"),
            "FATAL problem: DomainNameNotParseable (Domain name is not valid) encountered with 'x..example.test.'",
        ),
    ],
)
def test_a_set_that_breaks_a_rule_is_refused_in_amazon_s_words(made: RecordSet, says: str) -> None:
    assert refused(ZONE, (CREATE, made)) == (says,)
    assert refused(ZONE, (UPSERT, made)) == (says,)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            [(DELETE, BP), (DELETE, BP)],
            "The request contains an invalid set of changes for a resource record set 'A bp.example.test.'",
        ),
        ([(DELETE, ZONE.at("example.test.", "SOA")[0])], "A HostedZone must contain exactly one SOA record."),
        (
            [(DELETE, ZONE.at("example.test.", "NS")[0])],
            "A HostedZone must contain at least one NS record for the zone itself.",
        ),
        (
            [(UPSERT, a(f"n{n}.example.test.", "192.0.2.1")) for n in range(501)],
            "Number of records limit of 1000 exceeded.",
        ),
    ],
)
def test_a_batch_that_breaks_a_rule_is_refused_in_amazon_s_words(
    changes: list[tuple[Action, RecordSet]], says: str
) -> None:
    assert says in refused(ZONE, *changes)


def test_beside_a_cname_nothing_may_be_created() -> None:
    zone = Zone.new("example.test.", "Z1", [record("c.example.test.", "home.example.test.")])
    assert refused(zone, (CREATE, a("c.example.test.", "192.0.2.1"))) == (
        "RRSet of type A with DNS name c.example.test. is not permitted because a conflicting RRSet of type  CNAME "
        "with the same DNS name already exists in zone example.test.",
    )


def test_a_batch_may_turn_a_cname_into_an_address_and_back() -> None:
    cname, address = record("c.example.test.", "home.example.test."), a("c.example.test.", "192.0.2.1")
    zone = Zone.new("example.test.", "Z1", [cname])
    zone = zone.changed([Change(DELETE, cname), Change(CREATE, address)])
    assert values(zone, "c.example.test.") == {"A": ("192.0.2.1",)}
    zone = zone.changed([Change(CREATE, cname), Change(DELETE, address)])
    assert values(zone, "c.example.test.") == {"CNAME": ("home.example.test.",)}


def test_special_sets_stand_beside_each_other_but_not_beside_plain_ones_or_other_kinds() -> None:
    zone = ZONE.changed([Change(CREATE, weighted("192.0.2.1", "a")), Change(CREATE, weighted("192.0.2.2", "b"))])
    assert [s.identifier for s in zone.at("w.example.test.")] == ["a", "b"]
    says = "cannot be created as other RRSets exist with the same name and type."
    named = "RRSet with DNS name w.example.test., type A"
    assert refused(zone, (CREATE, a("w.example.test.", "192.0.2.3"))) == (f"{named} {says}",)
    latency = weighted("192.0.2.3", "0", "Region", "eu-west-1")
    assert refused(zone, (CREATE, latency)) == (f"{named}, SetIdentifier 0 {says}",)
    assert "set-identifier='a'] but it already exists" in refused(zone, (CREATE, weighted("192.0.2.1", "a")))[0]
    heavier = weighted("192.0.2.1", "a", text="2")
    assert "do not match the current values" in refused(zone, (DELETE, heavier))[0]


# ---------------------------------------------------------------- names and order


@pytest.mark.parametrize(
    ("name", "spelt", "wire"),
    [
        ("BP.Example.Test", "bp.example.test.", "bp.example.test."),
        ("*.example.test.", r"\052.example.test.", "*.example.test."),
        (r"\052.example.test.", r"\052.example.test.", "*.example.test."),
        (r"a\056b.test.", r"a\056b.test.", r"a\.b.test."),
        ("_x._tcp.test.", "_x._tcp.test.", "_x._tcp.test."),
        (".", ".", "."),
    ],
)
def test_names_are_listed_as_route_53_spells_them_and_sent_as_dns_does(name: str, spelt: str, wire: str) -> None:
    assert (canonical(name), canonical(canonical(name))) == (spelt, spelt)
    assert dns_name(name) == dns.name.from_text(wire)
    assert text_name(dns.name.from_text(wire.upper())) == spelt


def test_sets_are_ordered_by_labels_from_the_right_then_type_then_identifier() -> None:
    sets = [
        a("b.example.test.", "192.0.2.1"),
        a("a.b.example.test.", "192.0.2.1"),
        a("b-1.example.test.", "192.0.2.1"),
        record("a.example.test.", '"t"', type="TXT"),
        a("a.example.test.", "::1"),
        weighted("192.0.2.2", "b"),
        weighted("192.0.2.1", "a"),
    ]
    told = [
        (s.name.removesuffix("example.test."), s.type, s.identifier) for s in Zone.new("example.test.", "Z1", sets).sets
    ]
    assert told == [
        *[("", "NS", None), ("", "SOA", None), ("a.", "AAAA", None), ("a.", "TXT", None)],
        *[("b-1.", "A", None), ("b.", "A", None), ("a.b.", "A", None), ("w.", "A", "a"), ("w.", "A", "b")],
    ]  # b-1 before b: the order counts the dot behind a label, and - comes before it


NAMES = st.lists(st.sampled_from("ab*-_"), min_size=1, max_size=3).map(
    lambda labels: ".".join([*labels, "example.test."])
)


@given(st.sets(NAMES, max_size=20), st.integers(1, 7))
def test_pages_of_any_size_tell_every_set_once_and_in_order(names: set[str], most: int) -> None:
    zone = Zone.new("example.test.", "Z1", [a(name, "192.0.2.1") for name in names])
    told: list[RecordSet] = []
    start = ("", "", "")
    for _ in range(len(zone.sets)):
        page, following = zone.page(start, most)
        assert 1 <= len(page) <= most
        told += page
        if following is None:
            break
        start = following.key
    assert tuple(told) == zone.sets


def test_a_page_may_start_at_a_name_that_does_not_exist() -> None:
    page, following = ZONE.page(("b.example.test", "", ""), 300)
    assert (page, following) == ((BP,), None)
    assert ZONE.page(("bp.example.test", "AAAA", ""), 300) == ((), None)


# ---------------------------------------------------------------- over time


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.host = RealHost(boottime=lambda: self.now)


def test_a_server_learns_of_a_change_after_its_lag_and_never_forgets_it() -> None:
    clock = Clock()
    live = LiveZone(ZONE, clock.host)
    live.put("bp.example.test.", "192.0.2.2")
    clock.now += 5
    live.put("bp.example.test.", "192.0.2.3")
    assert live.seen(ZONE, 5.001) is ZONE
    middle = live.seen(ZONE, 5.0)
    assert values(middle, "bp.example.test.") == {"A": ("192.0.2.2",)}
    assert live.seen(middle, 9.0) is middle
    assert live.seen(live.zone, 5.0) is live.zone
    assert live.seen(ZONE, 0.0) is live.zone
    assert [values(v.zone, "bp.example.test.")["A"] for v in live.history] == [
        ("192.0.2.1",),
        ("192.0.2.2",),
        ("192.0.2.3",),
    ]


def test_another_hand_sets_removes_and_changes_the_type_by_the_same_rules() -> None:
    live = LiveZone(ZONE)
    live.put("bp.example.test.", "192.0.2.8", "192.0.2.9", ttl=300)
    assert [str(s) for s in live.zone.at("bp.example.test.")] == ["bp.example.test. A 300 192.0.2.8 192.0.2.9"]
    live.put("bp.example.test.", "home.example.test.")
    assert values(live.zone, "bp.example.test.") == {"CNAME": ("home.example.test.",)}
    live.put("bp.example.test.", "2001:db8::1")
    live.put("bp.example.test.", "192.0.2.1")
    assert set(values(live.zone, "bp.example.test.")) == {"A", "AAAA"}
    live.remove("bp.example.test.", "A")
    assert set(values(live.zone, "bp.example.test.")) == {"AAAA"}
    live.remove("bp.example.test.")
    live.remove("example.test.")
    assert (values(live.zone, "bp.example.test."), set(values(live.zone, "example.test."))) == ({}, {"NS", "SOA"})
    with pytest.raises(BatchRefused):
        live.put("bp.example.com.", "192.0.2.1")


# ---------------------------------------------------------------- what DNS says


def told(found: Found) -> tuple[str, list[str], list[str]]:
    lines = [line for rrset in found.answer for line in str(rrset).splitlines()]
    short = [line.replace(".example.test. 60 IN", "", 1) for line in lines]
    return dns.rcode.to_text(found.rcode), short, [str(r) for r in found.authority]


SOA = f"example.test. 900 IN SOA {NAMESERVERS[0]} awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400"
WORLD = Zone.new(
    "example.test.",
    "Z1",
    [
        a("bp.example.test.", "192.0.2.1", "192.0.2.2"),
        record("c.example.test.", "BP.example.test"),
        record("away.example.test.", "bp.example.com."),
        record("gone.example.test.", "none.example.test."),
        record("loop.example.test.", "loop.example.test."),
        a("deep.empty.example.test.", "192.0.2.5"),
        a("*.wild.example.test.", "192.0.2.7"),
        RecordSet("alias.example.test.", "A", alias=Alias("Z1", "bp.example.test.")),
        RecordSet("astray.example.test.", "A", alias=Alias("Z9", "bp.example.test.")),
        RecordSet("f.example.test.", "A", 60, ("192.0.2.9",), "a", (("Failover", "SECONDARY"),)),
        RecordSet("f.example.test.", "A", 60, ("192.0.2.1",), "b", (("Failover", "PRIMARY"),)),
        RecordSet("m.example.test.", "A", 60, ("192.0.2.1",), "a", (("MultiValueAnswer", "true"),)),
        RecordSet("m.example.test.", "A", 60, ("192.0.2.2",), "b", (("MultiValueAnswer", "true"),)),
    ],
)


BOTH = ("A 192.0.2.1", "A 192.0.2.2")
TO_BP = "c CNAME BP.example.test."


@pytest.mark.parametrize(
    ("name", "type_", "rcode", "answer", "negative"),
    [
        ("bp", "A", "NOERROR", [f"bp {a}" for a in BOTH], False),
        ("bp", "AAAA", "NOERROR", [], True),
        ("no", "A", "NXDOMAIN", [], True),
        ("c", "A", "NOERROR", [TO_BP, *(f"bp {a}" for a in BOTH)], False),
        ("c", "CNAME", "NOERROR", [TO_BP], False),
        ("c", "AAAA", "NOERROR", [TO_BP], True),
        ("away", "A", "NOERROR", ["away CNAME bp.example.com."], False),
        ("gone", "A", "NOERROR", ["gone CNAME none.example.test."], True),
        ("loop", "A", "SERVFAIL", [], False),
        ("empty", "A", "NOERROR", [], True),
        ("x.wild", "A", "NOERROR", ["x.wild A 192.0.2.7"], False),
        ("x.deep.empty", "A", "NXDOMAIN", [], True),
        ("alias", "A", "NOERROR", [f"alias {a}" for a in BOTH], False),
        ("astray", "A", "NOERROR", [], True),
        ("f", "A", "NOERROR", ["f A 192.0.2.1"], False),
        ("m", "A", "NOERROR", [f"m {a}" for a in BOTH], False),
    ],
)
def test_a_question_is_answered_as_an_authoritative_server_answers_it(
    name: str, type_: str, rcode: str, answer: list[str], negative: bool
) -> None:
    assert told(lookup(WORLD, f"{name}.example.test.", type_)) == (rcode, answer, [SOA] if negative else [])
