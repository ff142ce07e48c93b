"""The lab's chain, and the judgement on the relays' logs: pure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from failover.lab.chain import Chain, teller
from failover.lab.haproxy import LabError
from failover.lab.relay import redial
from failover.lab.sessions import Interval, Log, intervals, overlaps

CHAIN = Chain(epoch=500.0, slot_seconds=0.5, block_every=4)


def session(producer: str, start: float, end: float | None, relay: str = "relay-1", seen: float = 0.0) -> Interval:
    return Interval(relay, "proxy:1", producer, start, end, end if end is not None else seen)


def written(folder: Path, *lines: tuple[float, str, dict[str, object]]) -> Path:
    path = folder / "relay-1.jsonl"
    log = Log(path, "relay-1")
    for at, event, fields in lines:
        log.write(at, event, **fields)
    log.close()
    return path


def opened(at: float, producer: str = "main", target: str = "proxy:1") -> tuple[float, str, dict[str, object]]:
    return at, "opened", {"target": target, "producer": producer, "from": at - 0.01, "tip": 7}


def closed(at: float, producer: str = "main", target: str = "proxy:1") -> tuple[float, str, dict[str, object]]:
    return at, "closed", {"target": target, "producer": producer, "from": 0, "to": at, "why": "told"}


STARTED: tuple[str, dict[str, object]] = ("started", {})
ALIVE: tuple[str, dict[str, object]] = ("alive", {"tips": {}})


def test_two_nodes_tell_the_same_block_and_each_its_own_name() -> None:
    main, backup = CHAIN.tip(510.0, "main"), CHAIN.tip(510.0, "backup")
    assert (main.slot, main.block_no) == (backup.slot, backup.block_no) == (20, 5)
    assert main.hash[:32] == backup.hash[:32]
    assert (teller(main), teller(backup)) == ("main", "backup")


def test_a_block_comes_every_few_slots() -> None:
    slots = [CHAIN.tip(500.0 + 0.5 * slot, "main").slot for slot in range(3, 13)]
    assert slots == [0, 4, 4, 4, 4, 8, 8, 8, 8, 12]


def test_the_tip_is_genesis_before_the_first_block_and_names_nobody() -> None:
    tip = CHAIN.tip(499.0, "main")
    assert (tip.slot, tip.hash, tip.block_no) == (0, "", 0)
    assert teller(tip) is None


def test_a_lagging_tip_is_the_chain_of_that_many_slots_ago() -> None:
    assert CHAIN.tip(550.0, "main", lag=30) == CHAIN.tip(535.0, "main")


def test_redialling_waits_5_10_20_40_80_160_seconds_and_no_more() -> None:
    assert [redial(n, 0.5) for n in range(7)] == [5, 10, 20, 40, 80, 160, 160]
    assert (redial(0, 0.0), redial(5, 0.0), redial(0, 0.75, scale=10)) == (3, 158, 0.6)


def test_a_closed_session_lasts_from_its_handshake_to_its_end(tmp_path: Path) -> None:
    (only,) = intervals(written(tmp_path, (0.5, *STARTED), opened(1.01), closed(9.0)))
    assert (only.relay, only.producer, only.start, only.end, only.why) == ("relay-1", "main", 1.0, 9.0, "told")


def test_a_session_of_a_relay_that_was_killed_lasts_as_long_as_the_relay_was_seen_alive(tmp_path: Path) -> None:
    (only,) = intervals(written(tmp_path, (0.5, *STARTED), opened(1.0), (6.0, *ALIVE)))
    assert (only.end, only.seen, only.until) == (None, 6.0, 6.0)


def test_a_restarted_relay_ends_what_it_had_before_where_it_was_last_seen(tmp_path: Path) -> None:
    path = written(tmp_path, opened(1.0), (6.0, *ALIVE), (20.0, *STARTED), opened(21.0, "backup"), (22.0, *ALIVE))
    assert [(i.producer, i.end, i.seen) for i in intervals(path)] == [("main", 6.0, 6.0), ("backup", None, 22.0)]


def test_a_line_torn_by_the_kill_is_passed_over_and_the_next_relay_begins_a_new_one(tmp_path: Path) -> None:
    path = written(tmp_path, opened(1.0))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"at": 2.0, "rel')
    assert [i.until for i in intervals(path)] == [1.0]
    written(tmp_path, (20.0, *STARTED), opened(21.0))
    assert [i.until for i in intervals(path)] == [1.0, 21.0]


def test_a_log_that_was_edited_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, opened(1.0), closed(2.0))
    path.write_text("nonsense\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(LabError, match="line 1: not JSON"):
        intervals(path)


def test_a_log_that_is_not_there_yet_has_no_sessions(tmp_path: Path) -> None:
    assert intervals(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    ("one", "two", "seconds"),
    [
        (session("main", 0, 10), session("backup", 8, 20, "relay-2"), 2.0),
        (session("main", 0, 10), session("backup", 2, 5), 3.0),
        (session("main", 0, None, seen=9), session("backup", 5, None, seen=8), 3.0),
        (session("main", 0, 10), session("backup", 10, 20), None),
        (session("main", 0, 10), session("backup", 9.9, 20), None),
        (session("main", 0, 10), session("main", 0, 10, "relay-2"), None),
        (session("main", 0, None, seen=9), session("backup", 9, 20), None),
    ],
    ids=["across relays", "within", "both open", "touching", "within tolerance", "same producer", "seen until then"],
)
def test_sessions_with_two_producers_at_once_are_found_and_nothing_else(
    one: Interval, two: Interval, seconds: float | None
) -> None:
    for order in ([one, two], [two, one]):
        found = overlaps(order)
        assert [o.end - o.start for o in found] == ([] if seconds is None else [seconds])
        assert all({o.first.producer, o.second.producer} == {"main", "backup"} for o in found)


def test_every_line_of_the_log_is_one_json_object(tmp_path: Path) -> None:
    lines = written(tmp_path, opened(1.0), (6.0, *ALIVE)).read_text(encoding="utf-8").splitlines()
    assert [(json.loads(line)["event"], json.loads(line)["relay"]) for line in lines] == [
        ("opened", "relay-1"),
        ("alive", "relay-1"),
    ]
