"""The stored form of values (failover/store/codec.py): nothing is lost, nothing unknown is let in."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.model import (
    Assignment,
    Cause,
    Event,
    EventKind,
    Exposed,
    Gate,
    Held,
    Instant,
    PassedOver,
    Phase,
    Request,
    Taint,
    Verb,
)
from failover.store import codec
from failover.store.lease import LeaseRow

numbers = st.floats(allow_nan=False, allow_infinity=False)
instants = st.builds(Instant, st.text(max_size=8), numbers, numbers)
names = st.text(max_size=8)
gates = st.builds(Gate, names, names)
helds = st.builds(Held, names, st.none() | instants, names, names)


def several(values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(values, max_size=3).map(tuple)


assignments = st.builds(
    Assignment,
    since=instants,
    pinned=st.none() | helds,
    cordoned=several(helds),
    paused=st.none() | helds,
    barred=several(helds),
    passed_over=several(st.builds(PassedOver, gates, instants)),
    handed_back=several(names),
    tainted=several(st.builds(Taint, gates, instants, st.none() | instants)),
    seen=several(names),
    failovers=several(instants),
    exposed=several(st.builds(Exposed, names, instants)),
)
json_ready = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PLAIN = Assignment(
    3, 2, Phase.FENCING, "main", "backup", Cause.FORCED, Instant("b", 1.5, 2.5), "why", pinned=Held("main")
)


@given(assignments)
def test_every_assignment_comes_back_as_it_was(value: Assignment) -> None:
    assert codec.loads(Assignment, codec.dumps(value)) == value


@given(st.builds(Event, at=instants, detail=st.dictionaries(st.text(max_size=4), json_ready, max_size=3)))
def test_every_event_comes_back_as_it_was(value: Event) -> None:
    assert codec.loads(Event, codec.dumps(value)) == value


@given(st.builds(Request, at=instants, expires=instants, seconds=st.none() | numbers))
def test_every_request_comes_back_as_it_was(value: Request) -> None:
    assert codec.loads(Request, codec.dumps(value)) == value


@given(st.builds(LeaseRow, duration=numbers, expires=instants))
def test_every_lease_comes_back_as_it_was(value: LeaseRow) -> None:
    assert codec.loads(LeaseRow, codec.dumps(value)) == value


@given(assignments)
def test_what_is_stored_is_plain_ascii(value: Assignment) -> None:
    assert codec.dumps(value).isascii()


@pytest.mark.parametrize("name", [f.name for f in fields(Assignment)])
def test_an_assignment_that_lacks_a_key_is_refused(name: str) -> None:
    stored = json.loads(codec.dumps(PLAIN))
    del stored[name]
    with pytest.raises(codec.CodecError, match=f"keys too many or too few: {name}"):
        codec.loads(Assignment, json.dumps(stored))


def test_a_key_that_this_version_does_not_know_is_refused_at_any_depth() -> None:
    stored = json.loads(codec.dumps(PLAIN))
    stored["pinned"]["mood"] = "good"
    with pytest.raises(codec.CodecError, match=r"Assignment\.pinned: keys too many or too few: mood"):
        codec.loads(Assignment, json.dumps(stored))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("revision", "3"),
        ("revision", 3.0),
        ("revision", True),
        ("revision", None),
        ("released", 1),
        ("phase", "asleep"),
        ("phase", ["steady"]),
        ("active", 7),
        ("since", None),
        ("since", []),
        ("seen", "main"),
        ("seen", [1]),
        ("pinned", "main"),
        ("tainted", [{}]),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(name: str, value: object) -> None:
    stored = json.loads(codec.dumps(PLAIN)) | {name: value}
    with pytest.raises(codec.CodecError, match=rf"Assignment\.{name}"):
        codec.loads(Assignment, json.dumps(stored))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "7", "[" * 100_000])
def test_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(codec.CodecError):
        codec.loads(Assignment, text)


@pytest.mark.parametrize("unfit", [float("nan"), float("inf"), object(), {1: 2}, b"bytes", {"a", "b"}])
def test_what_json_cannot_carry_is_refused_when_writing(unfit: object) -> None:
    with pytest.raises(codec.CodecError):
        codec.dumps(Event(EventKind.ALERT, PLAIN.since, "", detail={"value": unfit}))


def test_a_detail_that_contains_itself_is_refused_when_writing() -> None:
    detail: dict[str, object] = {}
    detail["self"] = detail
    with pytest.raises(codec.CodecError):
        codec.dumps(detail)


def test_a_whole_number_where_seconds_are_expected_is_read_as_seconds() -> None:
    assert codec.loads(Instant, '{"boot":"b","mono":1,"utc":2}') == Instant("b", 1.0, 2.0)


def test_the_stored_form_changes_only_together_with_the_schema() -> None:
    # If this fails, stores in the field cannot be read any more: add a migration (database.py), then change it here.
    request = Request("id", Verb.PAUSE, PLAIN.since, PLAIN.since, "alice")
    when = '{"boot":"b","mono":1.5,"utc":2.5}'
    marked = replace(PLAIN, tainted=(Taint(Gate("p", "main"), PLAIN.since),), exposed=(Exposed("main", PLAIN.since),))
    assert codec.dumps(marked) == (
        '{"revision":3,"generation":2,"phase":"fencing","active":"main","target":"backup","cause":"forced",'
        f'"since":{when},"reason":"why","term":0,"requested_by":null,"forced_by_hand":false,'
        '"pinned":{"producer":"main","until":null,"reason":"","by":""},"cordoned":[],"paused":null,"released":false,'
        '"barred":[],"passed_over":[],"handed_back":[],'
        f'"tainted":[{{"gate":{{"place":"p","producer":"main"}},"since":{when},"answered":null}}],'
        f'"seen":[],"failovers":[],"request":null,"exposed":[{{"producer":"main","since":{when}}}]}}'
    )
    assert codec.dumps(request) == (
        f'{{"id":"id","verb":"pause","at":{when},"expires":{when},"by":"alice","producer":null,"reason":"",'
        '"seconds":null,"force":false,"generation":null}'
    )
    assert codec.dumps(Event(EventKind.LEASE, PLAIN.since, "r", 1, None, {"a": [1]})) == (
        f'{{"kind":"lease","at":{when},"reason":"r","generation":1,"producer":null,"detail":{{"a":[1]}}}}'
    )
    assert codec.dumps(LeaseRow("h", 1, 2, True, 60.0, PLAIN.since)) == (
        f'{{"holder":"h","term":1,"serial":2,"locked":true,"duration":60.0,"expires":{when}}}'
    )
