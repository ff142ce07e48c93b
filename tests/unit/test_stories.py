"""The stories of an experienced operator: what happens, and what the controller must make of it.

Seconds are those of a world that turns every ten seconds; two turns either way are allowed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from policy_world import Door, Node, World, instant, make_pool

from failover.model import Admin, Cause, Check, Held, Phase, Step, Verb

READY, MAINT = Admin.READY, Admin.MAINT


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=20.0)


def steady(world: World, active: str) -> None:
    assert world.assignment is not None
    assert (world.assignment.phase, world.active) == (Phase.STEADY, active)


def unsee(world: World, *names: str) -> None:
    """From now on no proxy can reach these producers."""
    for door in world.doors.values():
        door.blind_to = set(names)


def backup_active(world: World) -> World:
    """The same pool, with backup active and main closed, since long ago."""
    world.put(active="backup")
    for proxy in world.doors:
        world.set(proxy, main=MAINT, backup=READY)
    return world


def test_main_dies_one_handover_to_backup_after_patience() -> None:
    w = World(make_pool())
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    assert w.handovers() == [("forced", "backup")]
    assert (w.none, w.two) == (about(310), 0)
    steady(w, "backup")


def test_main_hangs_and_layer_7_checks_agree() -> None:
    w = World(make_pool())
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True)})
    assert w.handovers() == [("forced", "backup")]
    assert (w.none, w.two) == (about(310), 0)


def test_main_hangs_and_plain_checks_abstain() -> None:
    w = World(make_pool(), checks="l4")
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True)})
    assert w.handovers() == [("forced", "backup")]
    assert (w.none, w.two) == (about(310), 0)


def test_main_hangs_with_plain_checks_and_one_proxy_gone_is_no_majority() -> None:
    w = World(make_pool(), checks="l4")

    def fault() -> None:
        w.nodes["main"].hung = True
        w.doors["p1"].answers = w.doors["p1"].carries = False

    w.run(2000, {100: fault})
    assert w.handovers() == []
    assert any("1 of 2 vantage points agree" in alert for alert in w.alerts)
    assert w.none == about(1900)


def test_main_answers_but_its_tip_stands_still() -> None:
    w = World(make_pool())
    w.run(1500, {100: lambda: setattr(w.nodes["main"], "stuck_at", 1100)})
    assert w.handovers() == [("unfit", "backup")]
    assert (w.none, w.two) == (about(10), 0)


def test_main_lags_for_good() -> None:
    w = World(make_pool())
    w.run(1500, {100: lambda: setattr(w.nodes["main"], "lag", 200)})
    assert w.handovers() == [("unfit", "backup")]
    assert (w.none, w.two) == (about(10), 0)


def test_switchover_by_hand_is_pinned() -> None:
    w = World(make_pool())
    w.run(4000, {100: lambda: w.ask(Verb.SWITCHOVER, "backup")})
    assert w.handovers() == [("by-hand", "backup")]
    assert w.answers["r0"][0] == "done"
    assert (w.none, w.two) == (about(10), 0)
    steady(w, "backup")


def test_failback_after_half_an_hour_of_fitness() -> None:
    w = backup_active(World(make_pool()))
    w.run(2000)
    assert w.handovers() == [("voluntary", "main")]
    assert w.generations[0][0] == about(1800)
    assert (w.none, w.two) == (about(10), 0)


def test_a_switchover_that_cannot_be_fenced_is_taken_back_once() -> None:
    w = World(make_pool())

    def lose_p1_after_the_request() -> None:
        w.ask(Verb.SWITCHOVER, "backup")
        w.observe()
        w.doors["p1"].answers = False
        original = w.observe
        w.observe = lambda: None  # type: ignore[method-assign]  # this turn decides on what was just read

        def again() -> None:
            w.observe = original  # type: ignore[method-assign]

        w.restore = again  # type: ignore[attr-defined]

    w.run(4000, {100: lose_p1_after_the_request, 110: lambda: w.restore()})  # type: ignore[attr-defined]
    assert w.handovers() == [("by-hand", "backup"), ("taken-back", "main")]
    assert w.answers["r0"][0] == "failed"
    assert w.assignment is not None
    assert [h.producer for h in w.assignment.barred] in (["backup"], [])
    assert (w.none, w.two) == (0, 0)
    steady(w, "main")


def test_a_site_loses_power_main_and_one_proxy() -> None:
    w = World(make_pool())

    def fault() -> None:
        w.nodes["main"].up = False
        w.doors["p1"].answers = w.doors["p1"].carries = False

    w.run(1000, {100: fault})
    assert w.handovers() == [("forced", "backup")]
    assert any("main@p1 passed over" in alert for alert in w.alerts)
    assert (w.none, w.two) == (about(310), 0)


def test_cut_off_with_backup_then_main_is_seen_again_and_handed_back() -> None:
    w = World(make_pool())

    def cut() -> None:
        w.cut = {"main", "p1"}
        w.doors["p2"].blind_to = {"main"}
        w.doors["p1"].blind_to = {"backup"}

    def main_seen() -> None:
        w.cut = {"p1"}
        w.doors["p2"].blind_to = set()

    w.run(3500, {100: cut, 900: main_seen})
    assert w.handovers() == [("forced", "backup"), ("hand-back", "main")]
    assert any("passed over" in alert for alert in w.alerts)
    assert w.none == 0
    assert w.two == pytest.approx(510, abs=40)
    steady(w, "main")


def test_a_minute_of_fitness_hands_nothing_back() -> None:
    w = backup_active(World(make_pool()))
    w.nodes["main"].up = False
    w.run(
        600,
        {
            300: lambda: setattr(w.nodes["main"], "up", True),
            360: lambda: setattr(w.doors["p1"], "answers", False),
            370: lambda: setattr(w.doors["p1"], "answers", True),
        },
    )
    assert w.handovers() == []


def test_a_minute_of_fitness_hands_nothing_back_when_pinned() -> None:
    w = backup_active(World(make_pool()))
    w.put(pinned=Held("backup"))
    w.nodes["main"].up = False
    w.run(
        600,
        {
            300: lambda: setattr(w.nodes["main"], "up", True),
            360: lambda: setattr(w.doors["p1"], "answers", False),
            370: lambda: setattr(w.doors["p1"], "answers", True),
        },
    )
    assert w.handovers() == []


def test_a_crash_loop_counts_in_sum() -> None:
    w = World(make_pool())

    class Loop:
        def turn(self) -> None:
            if w.t >= 100:
                w.nodes["main"].up = (w.t - 100) % 120 >= 70

    loop = Loop()
    w.run(700, {float(t): loop.turn for t in range(0, 700, 10)})
    assert w.handovers()[0] == ("forced", "backup")
    at_handover = w.generations[0][0]
    down = sum(10 for t in range(100, int(at_handover), 10) if (t - 100) % 120 < 70)
    assert down == about(310)
    assert w.two == 0


def test_two_outages_add_up() -> None:
    w = World(make_pool())
    main = w.nodes["main"]
    w.run(
        900,
        {
            100: lambda: setattr(main, "up", False),
            350: lambda: setattr(main, "up", True),
            390: lambda: setattr(main, "up", False),
        },
    )
    assert w.handovers() == [("forced", "backup")]
    assert w.generations[0][0] == about(440)
    assert w.none == about(310)


def test_somebody_opens_backup_while_main_is_well() -> None:
    w = World(make_pool())
    w.run(600, {100: lambda: w.set("p2", backup=READY)})
    assert w.handovers() == []
    assert w.open("backup") == []
    # seen at the turn in which it can be seen, and closed in that turn
    assert w.two == 0
    assert any(e.kind.value == "split-brain" for o in w.outcomes for e in o.events)


def test_a_switch_by_hand_after_main_died_is_adopted_and_never_undone() -> None:
    w = World(make_pool())

    def by_hand() -> None:
        for proxy in ("p1", "p2"):
            w.set(proxy, main=MAINT, backup=READY)

    w.run(1500, {100: lambda: setattr(w.nodes["main"], "up", False), 110: by_hand})
    assert w.handovers() == [("adopted", "backup")]
    assert (w.none, w.two) == (about(10), 0)
    assert not any(step.kind.value == "close" and step.gate.producer == "backup" for _, step in w.steps)


def test_a_power_cut_takes_controller_and_main() -> None:
    w = World(make_pool())
    w.nodes["main"].up = False
    w.run(800)
    assert w.handovers() == [("forced", "backup")]
    assert w.none == about(310)


def test_nobody_else_can_be_served() -> None:
    w = World(make_pool())
    for door in w.doors.values():
        door.blind_to = {"backup"}
    main = w.nodes["main"]
    w.run(1500, {100: lambda: setattr(main, "up", False), 600: lambda: setattr(main, "up", True)})
    steady(w, "main")
    assert w.none == pytest.approx(515, abs=20)
    assert w.two == 0


def test_no_failback_to_a_main_that_no_proxy_sees() -> None:
    w = backup_active(World(make_pool()))
    for door in w.doors.values():
        door.blind_to = {"main"}
    w.run(3000)
    assert w.handovers() == []
    lacked = dict(w.outcomes[-1].decision.lacked)
    assert "check of main fails" in lacked[12]


def test_one_proxy_cannot_see_backup_and_the_other_serves_it() -> None:
    w = World(make_pool())
    w.doors["p2"].blind_to = {"backup"}
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "up", False)})
    assert w.handovers() == [("forced", "backup")]
    steady(w, "backup")
    assert w.none == about(310)
    assert any(d.kind == "not-serving" and d.where == "backup@p2" for d in w.outcomes[-1].drift)


def test_switchover_by_force_to_a_lagging_backup_stays() -> None:
    w = World(make_pool())
    w.nodes["backup"].lag = 200
    w.run(3000, {100: lambda: w.ask(Verb.SWITCHOVER, "backup", force=True)})
    assert w.handovers() == [("by-hand", "backup")]
    assert (w.none, w.two) == (about(10), 0)
    steady(w, "backup")


def test_switchover_by_force_past_a_silent_proxy_stays_and_is_kept_open() -> None:
    w = World(make_pool())

    def p2_restarts_without_its_state() -> None:
        w.doors["p2"].process = "2"
        w.set("p2", main=READY, backup=MAINT)

    w.run(
        1500,
        {
            100: lambda: setattr(w.doors["p1"], "answers", False),
            200: lambda: w.ask(Verb.SWITCHOVER, "backup", force=True),
            500: lambda: w.ask(Verb.SWITCHOVER, "backup", force=True),
            800: p2_restarts_without_its_state,
        },
    )
    assert w.answers["r0"][0] == "refused"  # silent for less than fail_over_after
    assert w.handovers() == [("by-hand", "backup")]
    assert any("main@p1 passed over" in alert for alert in w.alerts)
    assert w.open("backup") == ["p2"]
    steady(w, "backup")


def test_backup_dies_while_main_is_fit_for_only_a_minute() -> None:
    w = backup_active(World(make_pool()))
    w.nodes["main"].up = False
    w.run(
        700,
        {
            200: lambda: setattr(w.nodes["main"], "up", True),
            280: lambda: setattr(w.nodes["backup"], "up", False),
        },
    )
    assert w.handovers() == [("at-once", "main")]
    assert (w.none, w.two) == (about(40), 0)


def test_a_pinned_backup_that_restarts_within_a_minute_keeps_the_role() -> None:
    w = backup_active(World(make_pool()))
    w.put(pinned=Held("backup"))
    w.run(
        900,
        {
            200: lambda: setattr(w.nodes["backup"], "up", False),
            260: lambda: setattr(w.nodes["backup"], "up", True),
        },
    )
    assert w.handovers() == []
    assert w.none == about(60)


def test_a_lagging_backup_is_better_than_nobody() -> None:
    w = World(make_pool())
    w.nodes["backup"].lag = 200
    w.run(900, {100: lambda: setattr(w.nodes["main"], "up", False)})
    assert w.handovers() == [("forced", "backup")]
    steady(w, "backup")


def test_main_dies_and_somebody_opens_backup_in_one_proxy() -> None:
    w = World(make_pool())
    w.run(
        900,
        {100: lambda: setattr(w.nodes["main"], "up", False), 150: lambda: w.set("p2", backup=READY)},
    )
    assert w.handovers() == [("adopted", "backup")]
    assert (w.none, w.two) == (about(50), 0)


def test_a_promotion_that_is_not_served_goes_back_only_to_somebody_who_can_be_fenced_in() -> None:
    w = World(make_pool())

    def site_loss() -> None:
        w.nodes["main"].up = False
        w.doors["p2"].answers = w.doors["p2"].carries = False

    def promoting_is_blind() -> None:
        if w.assignment is not None and w.assignment.phase is Phase.PROMOTING:
            w.doors["p1"].blind_to = {"backup"}

    turns: dict[float, Callable[[], object]] = {float(t): promoting_is_blind for t in range(300, 600, 10)}
    turns[100] = site_loss
    turns[700] = lambda: setattr(w.nodes["main"], "up", True)
    w.run(4000, turns)
    assert w.handovers() == [("forced", "backup"), ("taken-back", "main")]
    steady(w, "main")
    assert w.admitted() == {"main"}


def test_of_three_producers_the_one_that_can_be_fenced_in_takes_over() -> None:
    w = World(make_pool(producers=("main", "b1", "b2")))

    def p2_goes_silent_with_b2_open() -> None:
        w.doors["p2"].answers = w.doors["p2"].carries = False

    w.run(
        2000,
        {
            100: lambda: setattr(w.nodes["main"], "up", False),
            110: lambda: w.set("p2", b2=READY),
            120: p2_goes_silent_with_b2_open,
        },
    )
    assert w.handovers() == [("forced", "b2")]
    steady(w, "b2")


def test_when_nobody_can_take_over_somebody_is_told() -> None:
    w = World(make_pool())

    def both_die() -> None:
        for node in w.nodes.values():
            node.up = False

    w.run(1000, {100: both_die})
    assert w.handovers() == []
    assert any("no other producer is up" in alert for alert in w.alerts)


def test_a_failed_switchover_does_not_stand_in_the_way_of_a_failover() -> None:
    w = World(make_pool())
    w.run(
        1500,
        {
            100: lambda: w.ask(Verb.SWITCHOVER, "backup"),
            110: lambda: setattr(w.doors["p1"], "answers", False),
            150: lambda: setattr(w.doors["p1"], "answers", True),
            200: lambda: setattr(w.nodes["main"], "up", False),
        },
    )
    steady(w, "backup")
    assert w.none <= 360


def test_no_failback_while_a_reload_may_hide_sessions() -> None:
    w = backup_active(World(make_pool(hard_stop_after=600.0)))
    w.run(1770)
    w.doors["p1"].process = "reloaded"
    w.run(2200)
    assert w.handovers() == []
    assert "may hide sessions" in dict(w.outcomes[-1].decision.lacked)[12]
    w.run(2500)
    assert w.handovers() == [("voluntary", "main")]
    assert w.none == about(10)


def test_proxies_that_restart_without_their_state_serve_the_active_again_at_once() -> None:
    w = backup_active(World(make_pool(hard_stop_after=600.0)))

    def restart() -> None:
        for name in w.doors:
            w.doors[name].process = "restarted"
            w.set(name, main=READY, backup=MAINT)

    w.run(500, {100: restart})
    assert w.handovers() == []
    assert w.none <= 10
    assert w.open("backup") == ["p1", "p2"]


def test_a_switchover_by_force_whose_fence_is_lost_is_taken_back() -> None:
    w = World(make_pool())

    def lose_p2_at_the_first_step(step: Step) -> bool:
        w.doors["p2"].answers = False
        return step.gate.place == "p2"

    def force() -> None:
        w.lose_steps = lose_p2_at_the_first_step
        w.ask(Verb.SWITCHOVER, "backup", force=True)

    w.run(600, {200: force})
    assert w.handovers() == [("by-hand", "backup"), ("taken-back", "main")]
    assert w.none <= 40
    assert w.answers["r0"][0] == "failed"
    assert "not fenced within 20 s" in w.answers["r0"][1]


def test_no_voluntary_handover_begins_while_the_references_do_not_answer() -> None:
    w = World(make_pool())
    w.run(
        300,
        {
            180: lambda: setattr(w, "reference_up", False),
            190: lambda: w.ask(Verb.SWITCHOVER, "backup"),
        },
    )
    assert w.answers["r0"][0] == "refused"
    assert w.none == 0


def test_force_does_not_move_the_role_to_a_producer_that_no_proxy_sees() -> None:
    w = World(make_pool())
    for door in w.doors.values():
        door.blind_to = {"backup"}
    w.run(300, {100: lambda: w.ask(Verb.SWITCHOVER, "backup", force=True)})
    assert w.answers["r0"][0] == "refused"
    assert w.none == 0


def test_a_cordoned_producer_is_never_a_target_even_when_nobody_else_is_left() -> None:
    w = World(make_pool())
    w.run(
        1500,
        {50: lambda: w.ask(Verb.CORDON, "backup"), 100: lambda: setattr(w.nodes["main"], "up", False)},
    )
    assert w.handovers() == []
    assert "no other producer is up, uncordoned" in dict(w.outcomes[-1].decision.lacked)[9]


def test_a_released_pool_refuses_a_switchover_and_takes_an_adoption() -> None:
    w = World(make_pool())
    w.run(
        300,
        {
            50: lambda: w.ask(Verb.RELEASE),
            100: lambda: w.ask(Verb.SWITCHOVER, "backup", force=True),
            150: lambda: w.ask(Verb.ADOPT, "backup"),
        },
    )
    assert [w.answers[f"r{n}"][0] for n in range(3)] == ["done", "refused", "done"]
    steady(w, "backup")
    assert w.assignment is not None
    assert not w.assignment.released
    assert w.open("main") == []  # steered again, so drift is repaired


def test_while_isolated_a_switchover_is_refused_at_once() -> None:
    w = World(make_pool())
    w.run(
        300,
        {
            50: lambda: setattr(w, "reference_up", False),
            200: lambda: w.ask(Verb.SWITCHOVER, "backup", force=True),
        },
    )
    assert w.answers["r0"][0] == "refused"
    assert "our own network" in w.answers["r0"][1]


def test_a_cordoned_active_is_left_at_once() -> None:
    w = World(make_pool())
    w.run(2500, {100: lambda: w.ask(Verb.CORDON, "main")})
    assert w.handovers() == [("voluntary", "backup")]
    assert (w.none, w.two) == (about(10), 0)
    steady(w, "backup")


def test_pause_in_the_middle_of_fencing_finishes_the_handover_first() -> None:
    w = World(make_pool())

    def pause_while_fencing() -> None:
        if w.assignment is not None and w.assignment.phase is Phase.FENCING and not w.requests:
            w.ask(Verb.PAUSE)

    turns: dict[float, Callable[[], object]] = {float(t): pause_while_fencing for t in range(310, 500, 10)}
    turns[100] = lambda: setattr(w.nodes["main"], "up", False)
    turns[600] = lambda: setattr(w.nodes["main"], "up", True)
    w.run(3500, turns)
    assert w.answers["r0"][0] == "done"
    assert w.handovers() == [("forced", "backup")]
    assert w.none == about(310)
    steady(w, "backup")
    assert w.assignment is not None
    assert w.assignment.paused is not None


def test_every_decision_carries_its_rule_and_what_the_rules_before_it_lacked() -> None:
    w = World(make_pool())
    w.run(600, {100: lambda: setattr(w.nodes["main"], "up", False)})
    for outcome in w.outcomes:
        decision = outcome.decision
        assert decision.verdict.reason
        assert [n for n, _ in decision.lacked] == list(range(1, decision.rule))
        assert all(words for _, words in decision.lacked)


def test_instants_of_another_boot_are_compared_by_utc() -> None:
    assert instant(50, "a").since(instant(20, "b")) == 30
    assert Cause.FORCED.value == "forced"


def test_an_active_that_answers_pings_and_that_no_proxy_sees_is_told_of_and_left_after_patience() -> None:
    world = World(make_pool())
    world.run(1500, {100.0: lambda: unsee(world, "main")})
    assert world.handovers() == [("unfit", "backup")]
    assert 400 <= world.generations[0][0] <= 420
    assert any("answers our pings, but no proxy sees it, and none serves it" in words for words in world.alerts)
    assert world.two == 0


def test_an_active_that_one_proxy_still_sees_is_kept() -> None:
    world = World(make_pool())
    world.run(1500, {100.0: lambda: world.doors["p1"].blind_to.add("main")})
    assert world.handovers() == []


def test_after_a_long_silence_a_proxy_counts_anew_how_long_it_has_not_seen_the_active() -> None:
    world = World(make_pool(proxies=("p1",)))
    door = world.doors["p1"]

    def answers(yes: bool) -> None:
        door.answers = yes

    world.run(
        900,
        {100.0: lambda: unsee(world, "main"), 300.0: lambda: answers(False), 350.0: lambda: answers(True)},
    )
    assert [(when, target) for when, _, target in world.generations] == [(650.0, "backup")]


def test_an_active_that_is_served_is_kept_whatever_a_check_says() -> None:
    world = World(make_pool())

    def odd(name: str, node: Node, door: Door) -> Check:
        return Check.FAILED if name == "main" else Check.PASSED_L7

    for door in world.doors.values():
        door.check = lambda name, node, door=door: odd(name, node, door)  # type: ignore[method-assign,misc]
        door.status = lambda name, node, door=door: "MAINT" if door.admin[name] is MAINT else "UP"  # type: ignore[method-assign,misc]
    world.run(1500)
    assert world.handovers() == []


def test_who_was_not_seen_by_a_proxy_goes_back_only_after_the_whole_time_since_then() -> None:
    world = World(make_pool())
    world.run(
        6000,
        {
            100.0: lambda: unsee(world, "main"),
            3000.0: lambda: unsee(world),
        },
    )
    assert world.handovers() == [("unfit", "backup"), ("voluntary", "main")]
    assert world.generations[1][0] >= 3000 + 1800 - 20


def test_while_paused_it_is_told_that_the_active_is_down_and_nothing_is_moved() -> None:
    world = World(make_pool())
    world.ask(Verb.PAUSE)

    def die() -> None:
        world.nodes["main"].up = False

    world.run(1500, {50.0: die})
    assert world.handovers() == []
    assert any(words.startswith("main is down, and nothing is moved while paused") for words in world.alerts)


def test_what_a_reload_may_hide_for_nobody_knows_how_long_is_told_before_the_role_moves() -> None:
    world = World(make_pool(hard_stop_after=None))

    def reload() -> None:
        world.doors["p1"].process = "2"
        world.doors["p1"].total = 0

    world.run(500, {100.0: reload, 120.0: lambda: world.ask(Verb.SWITCHOVER, "backup")})
    assert world.active == "backup"
    assert any("p1 was reloaded, and its hard_stop_after is unknown" in words for words in world.alerts)
