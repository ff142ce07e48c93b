"""The journal's rows as people and scripts read them (failover/journal.py)."""

from __future__ import annotations

import json

import pytest

from failover import journal
from failover.model import Event, EventKind, Instant, JournalEntry

AT = Instant("boot", 1.0, 1_763_626_500.25)  # 2025-11-20T08:15:00.250Z


def test_history_json_has_exactly_the_promised_keys_in_their_order() -> None:
    event = Event(EventKind.STEP_DONE, AT, "closed main@proxy-1", 7, "main", {"step": "7-1", "seconds": 0.2})
    document = journal.document(JournalEntry(3, event))
    assert list(document) == ["at", "generation", "event", "producer", "reason", "detail"]
    assert json.loads(json.dumps(document)) == {
        "at": "2025-11-20T08:15:00.250Z",
        "generation": 7,
        "event": "step-done",
        "producer": "main",
        "reason": "closed main@proxy-1",
        "detail": {"step": "7-1", "seconds": 0.2},
    }


def test_an_event_of_the_pool_as_a_whole_has_a_null_producer_and_an_empty_detail() -> None:
    document = journal.document(JournalEntry(1, Event(EventKind.STARTED, AT, "")))
    assert (document["producer"], document["detail"]) == (None, {})


def test_a_line_tells_when_what_whom_and_why() -> None:
    event = Event(EventKind.DECISION, AT, "rule 9: main is down for 300 s", 7, "backup")
    assert journal.line(event) == "2025-11-20T08:15:00.250Z  g7  decision  backup: rule 9: main is down for 300 s"


def test_a_line_without_producer_and_reason_has_no_loose_ends() -> None:
    assert journal.line(Event(EventKind.STARTED, AT, "")) == "2025-11-20T08:15:00.250Z  g0  started"


def test_a_reason_can_neither_break_the_line_nor_steer_the_terminal() -> None:
    line = journal.line(Event(EventKind.REQUEST, AT, "one\ntwo\r\x1b[31mthree\u2028four\u202efive\x9b6"))
    assert line.endswith("request: one two [31mthree four five 6")


@pytest.mark.parametrize(
    ("utc", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.9996, "1970-01-01T00:00:02.000Z"),
        (-1.0, "1969-12-31T23:59:59.000Z"),
        (1e30, "9999-12-31T23:59:59.999Z"),
        (-1e30, "0001-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_printed_in_utc_with_milliseconds_however_odd_the_clock(utc: float, text: str) -> None:
    assert journal.iso(utc) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("30m", 1800), ("1h30m", 5400), ("90", 90), ("500ms", 0.5), ("1.5h", 5400), ("2d", 172_800)],
)
def test_since_takes_a_duration_back_from_now(text: str, seconds: float) -> None:
    assert journal.since(text, 1_000_000.0) == 1_000_000.0 - seconds


@pytest.mark.parametrize(
    "text",
    ["2025-11-20T08:15:00.250Z", "2025-11-20 08:15:00.250", "2025-11-20T09:15:00.250+01:00", " 20251120T081500.250Z "],
)
def test_since_takes_a_time_and_reads_it_as_utc_when_it_has_no_offset(text: str) -> None:
    assert journal.since(text, 0.0) == AT.utc


def test_since_takes_back_what_the_journal_prints() -> None:
    assert journal.since(journal.iso(AT.utc), 0.0) == AT.utc


@pytest.mark.parametrize("text", ["", "yesterday", "2 weeks", "h", "-2h", "2h 30", "1e3", "nan"])
def test_since_refuses_anything_else_and_says_what_it_takes(text: str) -> None:
    with pytest.raises(ValueError, match="neither a duration like 2h"):
        journal.since(text, 0.0)
