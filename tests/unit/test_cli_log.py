"""The log: lines for people and for machines, bounded, safe on a terminal, never in the way."""

from __future__ import annotations

import io
import json
import threading

from policy_world import instant

from failover import log
from failover.log import Log
from failover.model import Event, EventKind, Ping


def event(kind: EventKind = EventKind.DECISION, reason: str = "why", at: float = 0.0, **detail: object) -> Event:
    return Event(kind, instant(at), reason, 3, "main", detail)


def lines(*events: Event, **options: bool) -> list[str]:
    stream = io.StringIO()
    made = Log(stream, lambda: instant(0), **{"for_people": False, **options})
    for each in events:
        made.event(each)
    made.close()
    return stream.getvalue().splitlines()


def test_a_line_is_one_json_object_with_the_same_keys_always() -> None:
    (line,) = lines(event(EventKind.HEALTH_CHANGED, "main is down", to="down"))
    row = json.loads(line)
    assert list(row) == ["at", "level", "event", "producer", "generation", "reason", "detail"]
    assert (row["level"], row["event"], row["producer"], row["generation"]) == ("warning", "health-changed", "main", 3)


def test_a_line_for_people_says_it_in_words_and_colours_only_when_asked() -> None:
    (plain,) = lines(event(reason="backup takes over"), for_people=True)
    assert plain == "2023-11-14T22:13:20.000Z info    decision: main: backup takes over"
    (coloured,) = lines(event(EventKind.SPLIT_BRAIN), for_people=True, colour=True)
    assert coloured.startswith("\x1b[1;31m")


def test_control_characters_are_escaped_and_lines_are_bounded() -> None:
    bad = "\x1b[2J\nfake line\r" + "x" * 100_000
    for people in (True, False):
        got = lines(event(reason=bad, long="y" * 100_000), for_people=people)
        assert len(got) == 1
        assert got[0].isprintable()
        assert len(got[0]) <= 4 * log.LONGEST + 500


def test_what_stays_broken_is_said_once_and_again_when_it_changes() -> None:
    stuck = [event(EventKind.STEP_FAILED, "refused", at, gate="main@p1") for at in range(10)]
    other = event(EventKind.STEP_FAILED, "refused", 3, gate="main@p2")
    changed = event(EventKind.STEP_FAILED, "timed out", 11, gate="main@p1")
    later = event(EventKind.STEP_FAILED, "timed out", 11 + log.AGAIN, gate="main@p1")
    assert len(lines(*stuck, other, changed, later)) == 4


def test_two_records_that_fail_in_turn_are_each_said_once() -> None:
    names = ("bp.example.com. A", "bp.example.com. AAAA")
    stuck = [
        event(EventKind.STEP_FAILED, f"{name}: refused", at, record=name, result="refused")
        for at in range(10)
        for name in names
    ]
    assert len(lines(*stuck)) == 2


def test_a_health_that_flaps_is_said_each_time() -> None:
    flaps = [event(EventKind.HEALTH_CHANGED, "main is up" if n % 2 else "main is down", n) for n in range(6)]
    assert len(lines(*flaps)) == 6


def test_pings_are_said_only_when_verbose() -> None:
    for verbose in (False, True):
        stream = io.StringIO()
        made = Log(stream, lambda: instant(0), for_people=True, verbose=verbose)
        made.ping("main", Ping(instant(0), instant(0), False, stage="connect", error="refused"))
        made.close()
        assert ("refused" in stream.getvalue()) is verbose


class Stuck(io.StringIO):
    """A terminal that is held: nothing is written until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait(10)
        return super().write(text)


def test_a_held_terminal_holds_up_nobody_and_what_was_lost_is_counted() -> None:
    stream = Stuck()
    made = Log(stream, lambda: instant(0), for_people=True)
    for number in range(log.WAITING + 500):
        made.say(f"line {number}")
    stream.free.set()
    for _ in range(1000):
        if made._lines.empty():
            break
        threading.Event().wait(0.01)
    made.say("after")
    made.close()
    written = stream.getvalue()
    assert "lines were dropped" in written
    assert written.rstrip().endswith("after")


def test_a_stream_that_is_gone_ends_nothing() -> None:
    stream = io.StringIO()
    made = Log(stream, lambda: instant(0), for_people=True)
    stream.close()
    made.say("nobody hears this")
    made.close()
