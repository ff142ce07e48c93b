"""What a simulated relay does with DNS answers, as cardano-node does; and what its log then tells: pure."""

from __future__ import annotations

import itertools
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import pytest

from failover.lab.relay import reply_of
from failover.lab.resolution import (
    Failed,
    Found,
    Known,
    Missing,
    Moves,
    Promote,
    Reply,
    comforter,
    moves,
    next_wait,
    together,
)
from failover.lab.sessions import Interval, Log, hot, intervals, overlaps

MAIN, BACKUP = "127.0.0.11", "127.0.0.12"
FAILED = Failed("SERVFAIL")


@pytest.mark.parametrize(
    ("ttl", "wait"), [(0, 900), (1, 60), (59, 60), (60, 60), (61, 61), (900, 900), (901, 900), (86400, 900)]
)
def test_a_ttl_is_clipped_to_60_to_900_seconds_and_0_becomes_900(ttl: int, wait: float) -> None:
    assert next_wait(Found({MAIN: ttl}), last=60) == wait


@pytest.mark.parametrize("reply", [Missing(), Found({})])
def test_a_missing_name_and_an_empty_answer_wait_900_seconds(reply: Reply) -> None:
    assert next_wait(reply, last=60) == 900


def test_a_failed_lookup_is_repeated_after_twice_the_last_wait_and_5_seconds_and_never_after_900() -> None:
    def after(last: float) -> list[float]:
        waits = itertools.accumulate(range(7), lambda wait, _: next_wait(FAILED, wait), initial=last)
        return list(waits)[1:]

    assert after(0) == [5, 15, 35, 75, 155, 315, 635]
    assert after(60) == [125, 255, 515, 900, 900, 900, 900]


def test_the_longest_ttl_of_several_addresses_counts_and_0_is_the_longest() -> None:
    assert Found({MAIN: 60, BACKUP: 120}).ttl == 120
    assert Found({MAIN: 0, BACKUP: 120}).ttl == 0
    assert Found({}).ttl is None


@pytest.mark.parametrize(
    ("a", "aaaa", "wanted"),
    [
        (Found({MAIN: 60}), Found({}), Found({MAIN: 60})),
        (Found({MAIN: 60}), Found({"::1": 90}), Found({MAIN: 60, "::1": 90})),
        (Found({MAIN: 60}), FAILED, Found({MAIN: 60})),
        (FAILED, Found({}), Found({})),
        (Missing(), Missing(), Missing()),
        (Missing(), FAILED, FAILED),
        (FAILED, FAILED, FAILED),
    ],
    ids=["v4", "both", "v6 fails", "v4 fails, v6 is empty", "no such name", "no such name or so", "nothing works"],
)
def test_both_families_are_one_answer_and_one_that_fails_leaves_it_to_the_other(
    a: Reply, aaaa: Reply, wanted: Reply
) -> None:
    assert together(a, aaaa) == wanted
    assert together(aaaa, a) == wanted


@pytest.mark.parametrize("reply", [Missing(), FAILED])
def test_a_lookup_that_fails_or_finds_no_name_leaves_the_addresses_as_they_were(reply: Reply) -> None:
    known = Known().told(Found({MAIN: 60}), now=100.0)
    assert known.told(reply, now=160.0).addresses == {MAIN}


def test_an_empty_answer_takes_the_addresses_away() -> None:
    known = Known().told(Found({MAIN: 60}), now=100.0)
    assert known.told(Found({}), now=160.0) == Known(frozenset(), wait=900, due=1060.0)


def test_the_scale_divides_the_wait_and_not_what_follows_from_it() -> None:
    known = Known().told(Found({MAIN: 60}), now=100.0, scale=20)
    assert (known.wait, known.due) == (60, 103.0)
    again = known.told(FAILED, now=103.0, scale=20)
    assert (again.wait, again.due) == (125, 109.25)


# ---------------------------------------------------------------- peers


def test_a_new_address_is_dialled_and_one_that_left_is_demoted_and_nothing_else_happens() -> None:
    assert moves({"main"}, {"backup"}, hot={"main"}, warm=set()) == Moves(
        dial=frozenset({"backup"}), promote=frozenset(), demote=frozenset({"main"})
    )
    assert moves({"main"}, {"main"}, hot={"main"}, warm=set()) == Moves(frozenset(), frozenset(), frozenset())


def test_a_warm_peer_that_is_named_again_is_promoted_on_the_connection_that_it_has() -> None:
    back = moves({"backup"}, {"main"}, hot={"backup"}, warm={"main"})
    assert back == Moves(dial=frozenset(), promote=frozenset({"main"}), demote=frozenset({"backup"}))


def test_a_hot_peer_that_was_in_no_answer_is_left_alone() -> None:
    assert moves({"backup"}, {"backup"}, hot={"main", "backup"}, warm=set()).demote == frozenset()


def test_a_warm_peer_replaces_the_last_hot_one_only_where_that_was_chosen() -> None:
    assert comforter(Promote.NAMED, {"main"}, hot=False) is None
    assert comforter(Promote.LONELY, {"main"}, hot=False) == "main"
    assert comforter(Promote.LONELY, {"main"}, hot=True) is None
    assert comforter(Promote.LONELY, set(), hot=False) is None


# ---------------------------------------------------------------- a resolver's message


def answered(*records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> dns.message.Message:
    response = dns.message.make_response(dns.message.make_query("bp.lab.test.", "A"))
    response.set_rcode(rcode)
    response.answer = [
        dns.rrset.from_text(name, int(ttl), "IN", kind, data) for name, ttl, kind, data in map(str.split, records)
    ]
    return response


def test_the_addresses_of_an_answer_count_wherever_a_cname_leads_and_its_own_ttl_does_not() -> None:
    message = answered("bp.lab.test. 300 CNAME home.lab.test.", f"home.lab.test. 60 A {MAIN}")
    assert reply_of(message) == Found({MAIN: 60})


def test_a_name_that_is_missing_and_an_error_are_told_apart() -> None:
    assert reply_of(answered(rcode=dns.rcode.NXDOMAIN)) == Missing()
    assert reply_of(answered(rcode=dns.rcode.SERVFAIL)) == Failed("SERVFAIL")
    assert reply_of(answered()) == Found({})


# ---------------------------------------------------------------- what the log tells


def log(folder: Path, *lines: tuple[float, str, str]) -> list[Interval]:
    """The sessions of a relay that wrote these lines: at, event, producer."""
    writer = Log(folder / "relay-1.jsonl", "relay-1")
    for at, event, producer in lines:
        writer.write(at, event, target=producer, producer=producer, **{"from": at, "to": at}, why="told")
    writer.close()
    return intervals(folder / "relay-1.jsonl")


def test_a_demoted_session_is_still_one_session_that_is_hot_only_until_then(tmp_path: Path) -> None:
    (session,) = log(tmp_path, (1.0, "opened", "main"), (5.0, "demoted", "main"), (9.0, "closed", "main"))
    assert (session.start, session.end, session.is_hot) == (1.0, 9.0, False)
    assert [(i.start, i.end, i.why) for i in hot([session])] == [(1.0, 5.0, "demoted")]


def test_a_session_that_was_promoted_again_is_hot_twice(tmp_path: Path) -> None:
    (session,) = log(
        tmp_path, (1.0, "opened", "main"), (5.0, "demoted", "main"), (8.0, "promoted", "main"), (9.0, "alive", "")
    )
    assert (session.end, session.is_hot) == (None, True)
    assert [(i.start, i.end) for i in hot([session])] == [(1.0, 5.0), (8.0, None)]


def test_two_connections_are_an_overlap_and_two_that_are_hot_are_a_worse_one(tmp_path: Path) -> None:
    sessions = log(
        tmp_path,
        (1.0, "opened", "main"),
        (5.0, "demoted", "main"),
        (5.1, "opened", "backup"),
        (9.0, "closed", "backup"),
        (9.0, "closed", "main"),
    )
    assert [(o.start, o.end) for o in overlaps(sessions)] == [(5.1, 9.0)]
    assert overlaps(hot(sessions)) == []


def test_a_resolved_name_in_the_log_is_no_session(tmp_path: Path) -> None:
    assert log(tmp_path, (1.0, "resolved", "main")) == []
