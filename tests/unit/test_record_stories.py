"""Stories with DNS records: beside proxies, and in pools that have no gate at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_world import World, make_gateless_pool, make_pool

from failover.model import Admin, Held, Phase, RecordType, RRset, Verb

NAME = "bp.example.com."


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=20.0)


def drifts(world: World) -> set[str]:
    return {d.kind for d in world.outcomes[-1].drift}


def test_beside_proxies_the_record_follows_the_role_and_goes_back_with_it() -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    assert (w.active, w.told()) == ("backup", "backup")
    w.nodes["main"].up = True
    w.run(4000)
    assert (w.active, w.told()) == ("main", "main")
    assert [p.producer for _, p in w.pointed] == ["backup", "main"]
    assert w.two == 0


def test_no_record_moves_before_the_old_producer_is_fenced() -> None:
    w = World(make_pool(records=(NAME,)))
    w.lose_steps = lambda step: step.gate.place == "p2"  # main cannot be closed there
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(40)
    assert w.pointed == []
    assert w.told() == "main"


def test_a_provider_that_does_not_answer_delays_no_handover() -> None:
    without, having = World(make_pool()), World(make_pool(records=(NAME,)))
    for w in (without, having):
        for sign in w.signs.values():
            sign.answers = False
        w.run(1000, {100: lambda w=w: setattr(w.nodes["main"], "up", False)})  # type: ignore[misc]
        assert w.active == "backup"
    assert having.none == without.none
    assert [t for t, _, _ in having.generations] == [t for t, _, _ in without.generations]
    assert "record-unreadable" in drifts(having)


def test_a_provider_that_comes_back_is_told_what_is_wanted_now_not_what_was_wanted_then() -> None:
    w = World(make_pool(records=(NAME,)))
    w.signs[NAME].answers = False
    w.run(600, {50: lambda: w.ask(Verb.SWITCHOVER, "backup"), 300: lambda: w.ask(Verb.SWITCHOVER, "main")})
    assert (w.active, w.told()) == ("main", "main")
    w.signs[NAME].answers = True
    w.run(700)
    assert w.pointed == []


def test_a_record_that_another_hand_moved_is_repaired_once_and_left_alone_when_that_comes_back() -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(100)
    w.hold("backup")
    w.run(150)
    assert w.told() == "main"
    assert not any("another hand" in alert for alert in w.alerts)
    w.run(1000)
    w.hold("backup")
    w.run(1800)
    assert w.told() == "backup"
    assert len(w.pointed) == 1
    assert any("another hand changed it again" in alert for alert in w.alerts)
    assert {"record-elsewhere", "record-another-hand"} <= drifts(w)
    w.run(2000)
    assert w.told() == "main"  # a quarter of an hour later it is tried once more


def test_a_handover_moves_even_a_record_that_another_hand_keeps_changing() -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(100)
    for t in (100, 200):
        w.hold("backup")
        w.run(t + 90)
    w.hold("main")
    w.run(400)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(500)
    assert (w.active, w.told()) == ("backup", "backup")


@pytest.mark.parametrize(
    ("rrset", "kind"),
    [
        (None, "record-missing"),
        (RRset(RecordType.A, ("203.0.113.10", "203.0.113.20"), 60), "record-several"),
        (RRset(RecordType.A, ("203.0.113.10",), 0), "record-ttl"),
        (RRset(RecordType.A, ("203.0.113.10",), 86400), "record-ttl"),
        (RRset(RecordType.A, ("198.51.100.7",), 60), "record-elsewhere"),
        (RRset(RecordType.A, ("203.0.113.20",), 60), "record-elsewhere"),
        (RRset(RecordType.CNAME, ("elsewhere.example.net.",), 60), "record-elsewhere"),
    ],
)
def test_each_kind_of_drift_is_named_and_repaired(rrset: RRset | None, kind: str) -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(100)
    w.signs[NAME].rrset = rrset
    w.observe()
    seen = {d.kind for d in w.decide().drift}
    assert kind in seen
    w.run(150)
    assert w.signs[NAME].rrset == w.pool.records[0].wanted("main")
    assert w.pointed[0][1].change.expected == rrset
    assert not any(d.kind.startswith("record-") for d in w.outcomes[-1].drift)


def test_a_name_that_is_not_ours_to_change_is_left_alone_and_told() -> None:
    w = World(make_pool(records=(NAME,)))
    w.signs[NAME].unownable = "is a weighted set (SetIdentifier blue)"
    w.signs[NAME].rrset = None
    w.run(200)
    assert w.pointed == []
    assert "record-unownable" in drifts(w)
    assert any("weighted" in alert for alert in w.alerts)


def test_a_server_that_goes_on_saying_the_old_address_is_named_after_a_minute_and_alerted_after_ten() -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(100)
    w.signs[NAME].frozen.add("ns2")
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(150)
    assert "servers-disagree" not in drifts(w)
    w.run(300)
    told = next(d for d in w.outcomes[-1].drift if d.kind == "servers-disagree")
    assert "ns2 says A 203.0.113.10" in told.what
    assert not any("ns2" in alert for alert in w.alerts)
    w.run(900)
    assert any("ns2" in alert for alert in w.alerts)


def test_while_nobody_sees_the_active_up_no_record_is_repaired() -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(100)
    w.nodes["main"].up = False
    w.run(150)
    w.hold("backup")
    w.run(250)
    assert w.told() == "backup"


# ---------------------------------------------------------------- no gate at all


def test_without_any_gate_a_dead_main_is_left_after_patience_by_moving_the_record() -> None:
    w = World(make_gateless_pool())
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    assert w.handovers() == [("forced", "backup")]
    assert (w.active, w.told()) == ("backup", "backup")
    assert w.none == about(310)
    assert any("nothing shuts main out" in alert for alert in w.alerts)


def test_without_any_gate_nothing_goes_back_by_itself() -> None:
    w = World(make_gateless_pool())
    w.run(
        10_000, {100: lambda: setattr(w.nodes["main"], "up", False), 900: lambda: setattr(w.nodes["main"], "up", True)}
    )
    assert w.handovers() == [("forced", "backup")]
    assert any("by hand only" in words for _, words in w.outcomes[-1].decision.lacked)
    assert w.outcomes[-1].next == ()


def test_without_any_gate_a_backup_that_dies_is_left_only_after_patience() -> None:
    w = World(make_gateless_pool(), active="backup")
    w.run(1000, {100: lambda: setattr(w.nodes["backup"], "up", False)})
    assert w.handovers() == [("forced", "main")]
    assert w.none == about(310)


def test_without_any_gate_no_failover_while_no_reference_answers() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.nodes["main"].up = False
    w.run(390)
    w.reference_up = False  # two misses: not yet isolated
    w.run(410)
    assert w.handovers() == []
    w.reference_up = True
    w.run(1200)
    assert w.handovers() == [("forced", "backup")]


def test_without_any_gate_no_failover_begins_while_the_provider_does_not_answer() -> None:
    w = World(make_gateless_pool())
    w.signs[NAME].answers = False
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    assert w.handovers() == []
    assert any("no record can be moved" in alert for alert in w.alerts)
    w.signs[NAME].answers = True
    w.run(1100)
    assert (w.active, w.told()) == ("backup", "backup")


def test_without_any_gate_an_unfit_active_is_not_left_by_itself() -> None:
    w = World(make_gateless_pool())
    w.run(3000, {100: lambda: setattr(w.nodes["main"], "lag", 500)})
    assert w.handovers() == []
    assert any("nothing could shut it out" in words for _, words in w.outcomes[-1].decision.lacked)


def test_without_any_gate_a_hand_can_switch_and_the_danger_is_said() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    asked = w.ask(Verb.SWITCHOVER, "backup")
    w.run(150)
    assert w.answers[asked][0] == "done"
    assert (w.active, w.told()) == ("backup", "backup")
    assert any("two producers may be reachable" in alert for alert in w.alerts)
    assert "exposed" in drifts(w)


def test_relays_that_stay_with_the_old_producer_are_told_of_until_its_node_is_seen_gone() -> None:
    w = World(make_gateless_pool())
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    w.nodes["main"].up = True
    w.run(3000)
    w.ask(Verb.SWITCHOVER, "main")
    w.run(9000)
    assert w.active == "main"
    exposed = [d.where for d in w.outcomes[-1].drift if d.kind == "exposed"]
    assert exposed == ["backup"]
    assert any("relays that connected to it may stay with it" in alert for alert in w.alerts)
    w.nodes["backup"].up = False  # restarted
    w.run(9030)
    w.nodes["backup"].up = True
    w.run(9100)
    assert "exposed" not in drifts(w)


def test_a_restart_while_relays_may_still_look_the_old_address_up_does_not_end_the_exposure() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(200)
    w.nodes["main"].up = False
    w.run(260)
    w.nodes["main"].up = True
    w.run(400)
    assert "exposed" in drifts(w)


def test_a_host_that_only_falls_silent_may_have_kept_its_sessions() -> None:
    w = World(make_gateless_pool())
    w.silent.add("main")
    w.run(6000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    assert w.active == "backup"
    assert "exposed" in drifts(w)


def test_without_any_gate_and_without_an_assignment_the_one_that_is_up_and_pointed_to_is_adopted() -> None:
    w = World(make_gateless_pool(), active="backup", assigned=False)
    w.run(100)
    assert w.active == "backup"
    assert w.pointed == []


def test_nobody_is_adopted_where_the_record_points_elsewhere_or_to_one_that_is_down() -> None:
    w = World(make_gateless_pool(), assigned=False)
    w.nodes["main"].up = False
    w.run(500)
    assert w.active is None
    w.nodes["main"].up = True
    w.signs[NAME].rrset = RRset(RecordType.A, ("198.51.100.7",), 60)
    w.run(700)
    assert w.active is None
    w.ask(Verb.ADOPT, "main")
    w.run(800)
    assert w.assignment is not None
    assert (w.assignment.active, w.told()) == ("main", "main")


def test_a_record_that_a_person_moved_away_from_a_dead_main_is_followed_without_patience() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.nodes["main"].up = False
    w.run(120)
    w.hold("backup")
    w.run(200)
    assert w.handovers() == [("adopted", "backup")]
    assert w.pointed == []


def test_a_change_whose_answer_is_lost_ends_the_handover_when_it_is_seen() -> None:
    w = World(make_gateless_pool())
    w.signs[NAME].loses = True
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    assert w.assignment is not None
    assert (w.assignment.phase, w.active, w.told()) == (Phase.STEADY, "backup", "backup")
    assert len(w.pointed) == 1
    assert not any("another hand" in alert for alert in w.alerts)


def test_a_provider_that_stops_answering_in_the_middle_is_waited_for_and_told_of() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.nodes["main"].up = False
    w.run(400)
    w.signs[NAME].answers = False
    w.ask(Verb.SWITCHOVER, "backup", force=True)
    w.run(420)
    w.signs[NAME].answers = True
    w.run(1000)
    assert (w.active, w.told()) == ("backup", "backup")


def test_when_the_record_cannot_be_moved_and_main_is_back_the_role_returns_to_where_it_points() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.nodes["main"].up = False
    w.run(400)
    assert w.assignment is not None
    w.put(phase=Phase.PROMOTING, active="backup", target="backup", generation=2)
    w.board.acting_since = None
    w.signs[NAME].answers = False
    w.nodes["main"].up = True
    w.run(500)
    assert w.told() == "main"
    w.signs[NAME].answers = True
    w.run(600)
    assert w.active == w.told()


def test_a_paused_pool_moves_no_record_by_itself() -> None:
    w = World(make_gateless_pool())
    w.put(paused=Held("", None, "tests", "op"))
    w.run(100)
    w.hold("backup")
    w.run(300)
    assert w.pointed == []


def test_observing_a_record_sends_nothing() -> None:
    w = World(replace(make_gateless_pool(), mode="observe"))
    w.run(100)
    w.hold("backup")
    w.run(300)
    assert w.pointed == []


def test_two_records_for_one_pool_both_move() -> None:
    w = World(make_pool(records=("a.example.com.", "b.example.com.")))
    w.run(100)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(200)
    assert {w.told("a.example.com."), w.told("b.example.com.")} == {"backup"}
    assert all(d.admin["backup"] is Admin.READY for d in w.doors.values())


# ---------------------------------------------------------------- what a hard look found


@pytest.mark.parametrize("gateless", [True, False])
def test_a_change_that_is_always_refused_is_told_with_its_reason_and_alerted(gateless: bool) -> None:
    w = World(make_gateless_pool() if gateless else make_pool(records=(NAME,)))
    w.signs[NAME].refuses = True
    w.run(100)
    w.ask(Verb.SWITCHOVER, "backup", force=True)
    w.run(300)
    assert any(d.kind == "record-stuck" for o in w.outcomes for d in o.drift)
    assert any("refused" in alert for alert in w.alerts)
    w.signs[NAME].refuses = False
    w.run(700)
    assert w.told() == w.active
    assert "record-stuck" not in drifts(w)


def test_relays_that_another_hand_led_to_the_standby_are_told_of_after_it_was_mended() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.hold("backup")
    w.run(300)
    assert w.told() == "main"
    assert [d.where for d in w.outcomes[-1].drift if d.kind == "exposed"] == ["backup"]


def test_adopting_by_hand_keeps_who_is_exposed_and_adds_the_one_that_it_leaves() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.ask(Verb.RELEASE)
    w.run(150)
    w.hold("backup")
    w.ask(Verb.ADOPT, "backup")
    w.run(300)
    assert w.assignment is not None
    assert w.assignment.active == "backup"
    assert [e.producer for e in w.assignment.exposed] == ["main"]


def test_without_any_gate_nobody_is_followed_while_no_reference_answers() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.nodes["main"].up = False
    w.run(120)
    w.hold("backup")
    w.reference_up = False
    w.run(130)
    w.reference_up = True
    w.nodes["main"].up = True
    w.run(200)
    assert w.handovers() == []


def test_a_handover_whose_first_change_fails_still_moves_a_contested_record() -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(100)
    for until in (190, 290):
        w.hold("backup")
        w.run(until)
    assert "record-another-hand" in drifts(w)
    w.hold("main")
    w.signs[NAME].refuses = True
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(320)
    assert w.active == "backup"
    w.signs[NAME].refuses = False
    w.run(400)
    assert w.told() == "backup"


def test_a_switchover_under_pause_gets_its_record_too_when_the_provider_answers_again() -> None:
    w = World(make_pool(records=(NAME,)))
    w.put(paused=Held("", None, "tests", "op"))
    w.signs[NAME].answers = False
    w.run(100)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(200)
    assert (w.active, w.told()) == ("backup", "main")
    w.signs[NAME].answers = True
    w.run(300)
    assert w.told() == "backup"
    w.hold("main")
    w.run(500)
    assert w.told() == "main"


def test_what_an_operator_does_to_the_record_under_pause_is_not_held_against_anybody() -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(100)
    w.put(paused=Held("", None, "tests", "op"))
    for until, who in ((200, "backup"), (300, "main"), (400, "backup")):
        w.hold(who)
        w.run(until)
    w.put(paused=None)
    w.run(500)
    assert w.told() == "main"
    assert "record-another-hand" not in drifts(w)


def test_the_role_returns_to_where_a_silent_provider_was_last_read_pointing_when_the_target_dies() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.ask(Verb.SWITCHOVER, "backup")
    w.signs[NAME].refuses = True
    w.run(120)
    w.signs[NAME].answers = False
    w.nodes["backup"].up = False
    w.run(600)
    assert w.assignment is not None
    assert (w.assignment.phase, w.active, w.told()) == (Phase.STEADY, "main", "main")


def test_a_switchover_to_the_active_points_a_disputed_record_to_it_at_once() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    for until in (190, 290):
        w.signs[NAME].rrset = RRset(RecordType.A, ("198.51.100.7",), 60)
        w.run(until)
    assert "failover switchover --to main" in w.outcomes[-1].decision.verdict.reason
    asked = w.ask(Verb.SWITCHOVER, "main")
    w.run(330)
    assert w.answers[asked][0] == "done"
    assert (w.active, w.told()) == ("main", "main")


def test_who_was_never_pointed_to_is_not_exposed_by_a_failover_that_did_not_come_about() -> None:
    w = World(make_gateless_pool())
    w.signs[NAME].refuses = True
    w.run(100)
    w.ask(Verb.SWITCHOVER, "backup", force=True)
    w.run(300)
    assert w.assignment is not None
    assert (w.assignment.active, w.told()) == ("main", "main")
    assert w.assignment.exposed == ()


def test_the_exposed_are_said_to_be_kept_stopped_until_nobody_looks_them_up() -> None:
    w = World(make_gateless_pool())
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    what = next(d.what for d in w.outcomes[-1].drift if d.kind == "exposed")
    assert "keep it stopped until 2023-11-14T22:" in what
    w.nodes["main"].up = True
    w.run(1100)
    what = next(d.what for d in w.outcomes[-1].drift if d.kind == "exposed")
    assert "nobody looks it up any more after 2023-11-14T22:" in what
