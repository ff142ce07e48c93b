"""Incidents of split brain: their numbers, their dates, when they are told, and the report of one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from policy_world import World, instant, make_pool

from failover import incidents
from failover.cli import main
from failover.incidents import Deed, Incident, Ledger, Now, Row
from failover.model import Admin, Commit, Event, EventKind, Instant, Verb
from failover.store.sqlite import SqliteStore


def row(where: str = "backup@p1", *, since: float = 100.0, kind: str = "split-brain", counts: bool = True) -> Row:
    return Row(
        kind,
        where,
        "ready",
        instant(since),
        counts,
        (where.partition("@")[0],),
        allowed=f"another hand opened {where}",
    )


def at(seconds: float, *, boot: str = "boot", **fields: Any) -> Now:
    base = Now(instant(seconds, boot), 3, "main", decides=True)
    return replace(base, **fields)


class Followed:
    """A ledger that is followed through time, with the events that came of it."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.events: list[Event] = []

    def see(self, seconds: float, *rows: Row, **fields: Any) -> Followed:
        self.ledger, events = incidents.follow(self.ledger, rows, at(seconds, **fields))
        self.events.extend(events)
        return self

    def restart(self) -> None:
        self.ledger = incidents.restore(json.loads(json.dumps(incidents.dump(self.ledger))))

    def times(self, kind: EventKind) -> list[float]:
        return [event.at.mono for event in self.events if event.kind is kind]


def test_each_incident_has_the_next_number_and_a_whole_report_at_its_end() -> None:
    f = Followed()
    f.see(100, row())
    deed = Deed("s1", instant(101), "close backup@p1: sent", "sent")
    f.see(102, row("backup@p2", since=102), deeds=(deed,))
    f.see(104, deeds=(deed,))
    f.see(900, row(since=900)).see(910)
    begun = [e.detail["incident"] for e in f.events if e.kind is EventKind.SPLIT_BRAIN]
    assert begun == [1, 2]
    healed = next(e for e in f.events if e.kind is EventKind.SPLIT_BRAIN_HEALED)
    assert dict(healed.detail) == {
        "incident": 1,
        "began": "2023-11-14T22:15:00.000Z",
        "seconds": 4.0,
        "generation": 3,
        "active": "main",
        "active_after": "main",
        "kinds": ["split-brain"],
        "gates": ["backup@p1", "backup@p2"],
        "records": [],
        "producers": ["backup", "main"],
        "allowed": ["another hand opened backup@p1", "another hand opened backup@p2"],
        "done": [{"at": "2023-11-14T22:15:01.000Z", "what": "close backup@p1: sent", "result": "sent"}],
        "done_dropped": 0,
    }
    assert f.ledger.seconds_at(instant(5000)) == pytest.approx(14)


def test_it_is_told_at_once_after_five_minutes_and_then_each_quarter_of_an_hour() -> None:
    f = Followed()
    for seconds in range(100, 4000, 10):
        f.see(seconds, row())
    assert f.times(EventKind.ALERT) == [100, 400, 1300, 2200, 3100]
    alerts = [e for e in f.events if e.kind is EventKind.ALERT]
    assert {e.detail["alert"] for e in alerts} == {"split-brain backup@p1"}
    assert [e.detail["times"] for e in alerts] == [1, 2, 3, 4, 5]
    assert alerts[1].reason == "for 5 min: backup@p1: ready"
    assert incidents.next_telling(f.ledger, instant(3990)) == pytest.approx(10)


def test_a_gate_that_comes_in_addition_is_told_at_once_and_once() -> None:
    f = Followed()
    f.see(100, row()).see(150, row(), row("backup@p2", since=150)).see(160, row()).see(170, row(), row("backup@p2"))
    assert f.times(EventKind.ALERT) == [100, 150]


def test_a_restart_resets_no_date_no_number_and_no_telling() -> None:
    f = Followed()
    f.see(100, row())
    for seconds in range(110, 1500, 10):
        f.restart()
        f.see(seconds, row(since=f.ledger.rows["split-brain", "backup@p1"].mono))
    assert f.times(EventKind.ALERT) == [100, 400, 1300]
    assert f.times(EventKind.SPLIT_BRAIN) == [100]
    f.restart()
    f.see(1500)
    (healed,) = (e for e in f.events if e.kind is EventKind.SPLIT_BRAIN_HEALED)
    assert (healed.detail["incident"], healed.detail["seconds"]) == (1, 1400.0)


def test_after_a_reboot_it_is_dated_by_utc() -> None:
    f = Followed()
    f.see(100, row())
    f.restart()
    ledger, events = incidents.follow(f.ledger, (), Now(Instant("other", 5.0, instant(700).utc), 3, "main", True))
    assert events[0].detail["seconds"] == 600.0
    assert ledger.seconds == 600.0


def test_nothing_changes_while_nothing_changes() -> None:
    assert incidents.follow(ledger := Ledger(), (), at(100)) == (ledger, ())
    f = Followed().see(100, row())
    before = f.ledger
    assert f.see(110, row()).ledger is before


def test_what_another_hand_repeats_is_told_at_bounded_intervals_though_each_time_is_an_incident() -> None:
    f = Followed()
    for seconds in range(100, 2000, 20):
        f.see(seconds, row()).see(seconds + 5)
    assert f.times(EventKind.ALERT) == [100, 400, 1300]
    assert f.ledger.number == 95


def test_only_the_decider_gives_numbers_and_takes_over_what_it_saw_before() -> None:
    f = Followed().see(100, row(), decides=False)
    assert f.events[0].detail["incident"] is None
    f.see(130, row())
    assert [e.detail["incident"] for e in f.events if e.kind is EventKind.SPLIT_BRAIN] == [None, 1]
    assert f.ledger.open is not None
    assert f.ledger.open.began == instant(100)


def test_a_report_holds_fifty_steps_and_counts_the_rest() -> None:
    f = Followed().see(100, row())
    deeds: list[Deed] = []
    for number in range(70):
        deeds.append(Deed(f"s{number}", instant(101 + number), "close", "unknown"))
        f.see(101 + number, row(), deeds=tuple(deeds[-50:]))
    assert isinstance(f.ledger.open, Incident)
    assert (len(f.ledger.open.done), f.ledger.open.dropped) == (50, 20)


def test_what_does_not_count_is_told_and_makes_no_incident() -> None:
    f = Followed()
    for seconds in range(100, 700, 10):
        f.see(seconds, row("main", kind="tips-diverge", counts=False))
    assert f.ledger.number == 0
    assert [e.detail["alert"] for e in f.events] == ["tips-diverge:main"] * 2


def test_timers_of_another_form_are_an_empty_ledger() -> None:
    broken = {**incidents.dump(Ledger()), "open": {"number": 1}}
    forms: tuple[object, ...] = (None, {}, [], {"number": "x"}, broken)
    for document in forms:
        assert incidents.restore(document) == Ledger()


def test_why_nothing_is_done_is_said_in_the_alert() -> None:
    w = World(make_pool())
    w.run(60)
    w.ask(Verb.PAUSE)
    w.run(80)
    w.set("p2", backup=Admin.READY)
    w.run(800)
    told = [e for o in w.outcomes for e in o.events if e.detail.get("incident") and e.kind is EventKind.ALERT]
    assert [e.at.mono for e in told] == [80, 380]
    assert "it is not being closed: paused: observing, no step by itself" in told[0].reason


# ---------------------------------------------------------------- history --incident


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file whose state folder holds an incident that is over, one that lasts, and nobody who runs."""
    now = Instant("boot", 1000.0, 1_700_000_000.0)
    store = SqliteStore(
        tmp_path / "state", pool="EXMPL", boot="boot", clock=lambda: now, network_fs_check=lambda path: None
    )
    f = Followed()
    deed = Deed("s1", instant(101), "close backup@p1: sent", "sent")
    f.see(100, row()).see(104, deeds=(deed,)).see(200, row("backup@p2", since=200))
    lease = store.acquire("one", now, 60.0, 10.0)
    assert lease is not None
    store.commit(Commit(lease.term, events=tuple(f.events), timers={"incidents": incidents.dump(f.ledger)}))
    store.close()
    file = tmp_path / "failover.yaml"
    file.write_text(f"""\
pool: EXMPL
network: mainnet
state: {tmp_path / "state"}
producers: [{{name: main, address: "127.0.0.1:6000"}}, {{name: backup, address: "127.0.0.2:6000"}}]
proxies: [{{name: p1, socket: /run/haproxy/admin.sock, backend: producers}}]
""")
    return file


def history(file: Path, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["-c", str(file), "history", *words])
    return result.exit_code, result.stdout, result.stderr


def test_history_prints_the_report_of_one_incident_in_plain_words(kept: Path) -> None:
    assert history(kept, "--incident", "1") == (
        0,
        """\
Split brain, incident 1
began: 2023-11-14T22:15:00.000Z
ended: 2023-11-14T22:15:04.000Z
lasted: 4 s
active: main (generation 3)
producers: backup, main
gates: backup@p1
seen by: split-brain
what allowed it:
  another hand opened backup@p1
what was done:
  2023-11-14T22:15:01.000Z  close backup@p1: sent
""",
        "",
    )


def test_an_incident_that_lasts_is_said_to_be_not_over(kept: Path) -> None:
    status, out, _ = history(kept, "--incident", "2")
    assert status == 0
    assert "ended: not over\n" in out
    assert "what was done:\n  nothing was sent\n" in out


def test_as_json_a_report_is_one_document(kept: Path) -> None:
    over, lasting = (json.loads(history(kept, "--incident", n, "--json")[1]) for n in "12")
    assert (over["over"], over["ended"], over["seconds"]) == (True, "2023-11-14T22:15:04.000Z", 4.0)
    assert (lasting["over"], lasting["ended"], lasting["gates"]) == (False, None, ["backup@p2"])
    assert over.keys() == lasting.keys()


def test_a_number_that_there_is_not_names_the_last_ones(kept: Path) -> None:
    status, out, err = history(kept, "--incident", "9")
    assert (status, out) == (1, "")
    assert "there is no incident 9: the last ones are 1, 2" in err


def test_an_incident_goes_with_no_choice_of_rows(kept: Path) -> None:
    assert history(kept, "--incident", "1", "--since", "2h")[0] == 2
