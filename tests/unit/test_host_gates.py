"""Stories of pools whose producers have gates of their own: forging, firewall, power; and of relays that let go.

Seconds are those of a world that turns every ten seconds; two turns either way are allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from policy_world import World, make_gateless_pool, make_pool

from failover.model import Gate, GateKind, Phase, StepKind, Verb

FORGING, FIREWALL, POWER = GateKind.FORGING, GateKind.FIREWALL, GateKind.POWER


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=20.0)


def steady(world: World, active: str) -> None:
    assert world.assignment is not None
    assert (world.assignment.phase, world.active) == (Phase.STEADY, active)


def forging_only(**fields: object) -> World:
    return World(make_pool(proxies=(), gates=(FORGING,), **fields))  # type: ignore[arg-type]


def gate(world: World, kind: GateKind, producer: str) -> Gate:
    return Gate(kind.value, producer)


def lost(world: World, name: str) -> None:
    """The machine of a producer is gone, and its agent with it."""
    world.nodes[name].up = False
    for each, switch in world.switches.items():
        if each.producer == name and each.kind is not POWER:
            switch.answers = False


def test_a_pool_without_proxies_moves_by_its_forging_gates_alone() -> None:
    w = forging_only()
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(200)
    steady(w, "backup")
    assert not w.switches[gate(w, FORGING, "main")].open
    assert w.switches[gate(w, FORGING, "backup")].open
    assert w.two == 0


def test_nobody_is_opened_before_the_other_is_closed() -> None:
    w = forging_only()
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.switches[gate(w, FORGING, "main")].stuck = True
    w.run(200)
    steady(w, "main")  # taken back: it could not be closed, and it is up
    assert not any(step.kind is StepKind.OPEN and step.gate.producer == "backup" for _, step in w.steps)


def test_a_producer_that_may_still_forge_does_not_count_as_closed() -> None:
    w = forging_only()
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.switches[gate(w, FORGING, "main")].between = True
    w.run(90)
    assert not any(step.kind is StepKind.OPEN and step.gate.producer == "backup" for _, step in w.steps)


def test_an_agent_that_falls_silent_in_the_middle_of_a_handover_is_waited_for() -> None:
    w = forging_only()
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    main = w.switches[gate(w, FORGING, "main")]
    main.stuck = True
    w.run(200, {70: lambda: setattr(main, "answers", False)})
    steady(w, "main")
    assert not w.switches[gate(w, FORGING, "backup")].open


def test_a_dead_standby_that_was_shut_does_not_hold_up_a_switchover_between_the_others() -> None:
    w = World(make_pool(producers=("main", "second", "third"), proxies=(), gates=(FORGING, POWER)))
    w.run(100, {60: lambda: lost(w, "third")})
    w.ask(Verb.SWITCHOVER, "second")
    w.run(300)
    steady(w, "second")
    assert all(switch.open for each, switch in w.switches.items() if each.kind is POWER)
    fenced = [o.decision.verdict.reason for o in w.outcomes if o.decision.verdict.key == "fenced"]
    assert "main: forging is off" in fenced[0]
    assert "third" not in fenced[0]  # silent: nothing shows for sure how it stands


def test_a_standby_that_died_while_it_was_open_holds_up_a_switchover_between_the_others() -> None:
    w = World(make_pool(producers=("main", "second", "third"), proxies=(), gates=(FORGING,)))
    third = w.switches[gate(w, FORGING, "third")]
    third.stuck = third.open = True
    w.run(100, {60: lambda: lost(w, "third")})
    asked = w.ask(Verb.SWITCHOVER, "second")
    w.run(300)
    assert w.answers[asked][0] == "refused"
    assert "third@forging" in w.answers[asked][1]


def test_the_standby_is_closed_when_it_is_found_forging() -> None:
    w = forging_only()
    w.run(60, {30: lambda: setattr(w.switches[gate(w, FORGING, "backup")], "open", True)})
    assert not w.switches[gate(w, FORGING, "backup")].open
    steady(w, "main")
    assert any("backup@forging" in alert for alert in w.alerts)


def test_a_producer_that_came_back_closed_is_opened_again_without_patience() -> None:
    w = forging_only()
    w.run(100, {50: lambda: setattr(w.switches[gate(w, FORGING, "main")], "open", False)})
    assert w.switches[gate(w, FORGING, "main")].open
    assert w.handovers() == []


def test_the_host_of_the_active_dies_and_its_silent_gate_is_passed_over_after_patience() -> None:
    w = forging_only()
    w.run(1000, {100: lambda: lost(w, "main")})
    assert w.handovers() == [("forced", "backup")]
    assert w.none == about(320)
    steady(w, "backup")
    assert any("passed over" in alert for alert in w.alerts)


def test_under_confirmed_a_dead_host_is_not_passed_over() -> None:
    w = forging_only(require="confirmed")
    w.run(2000, {100: lambda: lost(w, "main")})
    assert w.handovers() == []
    assert any("main@forging" in alert for alert in w.alerts)


def test_closed_proxies_confirm_for_a_dead_host_where_they_are_the_only_path() -> None:
    w = World(make_pool(gates=(FORGING,), require="confirmed", only_path=True))
    w.run(1000, {100: lambda: lost(w, "main")})
    assert w.handovers() == [("forced", "backup")]
    steady(w, "backup")
    assert w.none == about(320)


def test_where_proxies_are_the_only_path_the_role_goes_back_at_once_though_a_host_is_silent() -> None:
    w = World(make_pool(gates=(FORGING,), only_path=True), active="backup")
    w.run(500, {100: lambda: lost(w, "backup")})
    assert w.handovers() == [("at-once", "main")]
    assert w.none == about(40)


def test_power_confirms_what_a_dead_host_cannot() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING, POWER), require="confirmed"))
    w.run(1000, {100: lambda: lost(w, "main")})
    assert w.handovers() == [("forced", "backup")]
    steady(w, "backup")
    assert not w.switches[gate(w, POWER, "main")].open
    assert w.switches[gate(w, POWER, "backup")].open


def test_nobody_is_switched_off_in_a_voluntary_handover() -> None:
    w = World(make_pool(gates=(FORGING, POWER)))
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(300)
    steady(w, "backup")
    assert all(switch.open for each, switch in w.switches.items() if each.kind is POWER)


def test_nobody_is_switched_off_who_can_be_asked_to_close() -> None:
    w = World(make_pool(gates=(FORGING, POWER)))
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True)})
    steady(w, "backup")
    assert w.switches[gate(w, POWER, "main")].open


def test_a_switch_that_only_claims_to_be_off_does_not_confirm() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING, POWER), require="confirmed"))
    w.switches[gate(w, POWER, "main")].stuck = True
    w.run(1500, {100: lambda: lost(w, "main")})
    assert w.active == "main"
    assert not w.switches[gate(w, FORGING, "backup")].open


def test_a_sure_fence_need_not_wait_for_a_silent_proxy() -> None:
    w = World(make_pool(gates=(FORGING,)))
    silence: dict[float, Callable[[], object]] = {390: lambda: setattr(w.doors["p2"], "answers", False)}
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True), **silence})
    assert w.handovers() == [("forced", "backup")]
    assert w.none == about(320)
    assert w.two == 0


def test_a_gate_that_could_not_show_that_it_is_shut_does_not_confirm_but_is_reached() -> None:
    strict = forging_only(require="confirmed")
    strict.switches[gate(strict, FORGING, "main")].certain = False
    strict.run(1000, {100: lambda: setattr(strict.nodes["main"], "hung", True)})
    assert not strict.switches[gate(strict, FORGING, "backup")].open
    loose = forging_only()
    loose.switches[gate(loose, FORGING, "main")].certain = False
    loose.run(1000, {100: lambda: setattr(loose.nodes["main"], "hung", True)})
    steady(loose, "backup")


def test_a_target_whose_agent_is_silent_is_no_target() -> None:
    w = forging_only()
    w.switches[gate(w, FORGING, "backup")].answers = False
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True)})
    assert w.handovers() == []
    assert any("backup@forging" in alert for alert in w.alerts)


def test_a_voluntary_handover_waits_for_every_gate() -> None:
    w = World(make_pool(gates=(FORGING,)))
    w.run(60)
    w.switches[gate(w, FORGING, "main")].answers = False
    w.run(80)
    asked = w.ask(Verb.SWITCHOVER, "backup")
    w.run(120)
    assert w.answers[asked][0] == "refused"
    assert "main@forging" in w.answers[asked][1]


def test_a_pool_with_several_backups_keeps_all_but_one_closed() -> None:
    w = World(make_pool(producers=("main", "second", "third"), proxies=(), gates=(FORGING,)))
    w.run(1000, {100: lambda: lost(w, "main")})
    steady(w, "second")
    w.run(2000, {1010: lambda: lost(w, "second")})
    steady(w, "third")
    assert w.two == 0


def test_somebody_who_moved_the_keys_by_hand_while_the_active_is_down_is_followed() -> None:
    w = forging_only()

    def by_hand() -> None:
        w.switches[gate(w, FORGING, "main")].open = False
        w.switches[gate(w, FORGING, "backup")].open = True

    w.run(300, {100: lambda: setattr(w.nodes["main"], "hung", True), 150: by_hand})
    assert w.handovers() == [("adopted", "backup")]
    assert w.two == 0


def test_a_standby_behind_its_firewall_takes_over_although_no_proxy_can_see_it() -> None:
    w = World(make_pool(gates=(FIREWALL,)))
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True)})
    assert w.handovers() == [("forced", "backup")]
    assert w.none == about(320)


def test_a_preferred_one_behind_its_firewall_gets_the_role_back_after_its_patience() -> None:
    w = World(make_pool(gates=(FIREWALL,)), active="backup")
    w.run(2400)
    assert w.handovers() == [("voluntary", "main")]
    assert w.generations[0][0] == about(1800)
    assert w.two == 0


def test_an_active_that_dies_in_the_middle_of_a_switchover_is_left_after_patience() -> None:
    w = forging_only()
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    main = w.switches[gate(w, FORGING, "main")]
    main.stuck = True
    w.run(1000, {70: lambda: lost(w, "main")})
    steady(w, "backup")
    assert w.none == about(330)


def test_a_machine_whose_agent_closes_it_is_not_switched_off_under_confirmed() -> None:
    w = World(make_pool(gates=(FORGING, POWER), require="confirmed"))
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True)})
    steady(w, "backup")
    assert w.switches[gate(w, POWER, "main")].open


def test_keys_that_were_expired_must_be_good_for_all_of_the_failback_patience() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING,), metrics=True), active="backup")
    w.expired.add("main")
    w.run(3500, {1000: w.expired.clear})
    assert [(about(when), target) for when, _, target in w.generations] == [(2810.0, "main")]


def test_the_next_relay_waits_until_the_one_before_is_back() -> None:
    w = World(make_gateless_pool(relays=("r1", "r2")))
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.parties["r1"].away = True
    w.run(200)
    assert [kick.relay for _, kick in w.kicked if kick.generation == 2] == ["r1"]
    w.parties["r1"].away = False
    w.run(300)
    assert [kick.relay for _, kick in w.kicked if kick.generation == 2] == ["r1", "r2"]


def test_a_standby_that_starts_for_minutes_is_no_split_brain() -> None:
    w = forging_only()
    w.run(400, {30: lambda: setattr(w.switches[gate(w, FORGING, "backup")], "starting", True)})
    assert not any(o.split_brain for o in w.outcomes)


def test_both_counters_rising_is_split_brain() -> None:
    w = World(make_pool(metrics=True, gates=()))
    w.run(100)
    assert w.outcomes[-1].split_brain  # the standby has its keys, and nothing but proxies in front
    kinds = {d.kind for d in w.outcomes[-1].drift if d.split_brain}
    assert kinds == {"both-forge"}


@pytest.mark.parametrize("shut", ["proxies that are the only path", "a firewall"])
def test_a_standby_that_forges_where_nothing_of_it_gets_out_is_as_it_should_be(shut: str) -> None:
    w = World(make_pool(metrics=True, only_path=True) if "path" in shut else make_pool(metrics=True, gates=(FIREWALL,)))
    w.run(100)
    assert w.outcomes[-1].drift == ()


def test_a_handover_by_forging_gates_is_no_split_brain_by_its_counters() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING,), metrics=True))
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(600)
    assert not any(o.split_brain for o in w.outcomes)


def test_credentials_that_expired_make_unfit_and_the_role_moves_after_patience() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING,), metrics=True))
    w.run(1000, {100: lambda: w.expired.add("main")})
    assert w.handovers() == [("unfit", "backup")]
    assert any("expired" in alert for alert in w.alerts)


def test_records_and_managed_relays_move_the_sessions_one_relay_at_a_time() -> None:
    w = World(make_gateless_pool(relays=("r1", "r2", "r3")))
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(1500)
    steady(w, "backup")
    times = [t for t, _ in w.kicked]
    assert {kick.relay for _, kick in w.kicked} == {"r1", "r2", "r3"}
    assert all(b - a >= 20 for a, b in pairwise(times))
    assert all(set(party.sessions) == {"backup"} for party in w.parties.values())
    assert w.assignment is not None
    assert w.assignment.exposed == ()


def test_with_managed_relays_a_pool_without_gates_fails_back_by_itself() -> None:
    w = World(make_gateless_pool(relays=("r1", "r2")))

    def off() -> None:
        w.nodes["main"].up = False

    w.run(4000, {100: off, 900: lambda: setattr(w.nodes["main"], "up", True)})
    assert w.handovers() == [("forced", "backup"), ("voluntary", "main")]


def test_with_a_relay_that_is_only_watched_it_does_not() -> None:
    pool = make_gateless_pool(relays=("r1", "r2"))
    pool = replace(pool, relays=(pool.relays[0], replace(pool.relays[1], managed=False)))
    w = World(pool)
    w.run(4000, {100: lambda: setattr(w.nodes["main"], "up", False), 900: lambda: setattr(w.nodes["main"], "up", True)})
    assert w.handovers() == [("forced", "backup")]
    w.ask(Verb.SWITCHOVER, "main")
    w.run(5500)
    assert {kick.relay for _, kick in w.kicked} == {"r1"}
    assert "relay-astray" in {d.kind for d in w.outcomes[-1].drift}


def test_a_relay_that_lists_the_loser_is_told_and_not_kicked_for_ever() -> None:
    w = World(make_gateless_pool(relays=("r1",)))
    w.parties["r1"].dials = ("main", "backup")
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(6000)
    assert 1 <= sum(kick.generation == 2 for _, kick in w.kicked) <= 6
    assert "relay-astray" in {d.kind for d in w.outcomes[-1].drift}


def test_relays_that_list_both_are_left_alone_where_the_loser_does_not_forge() -> None:
    w = forging_only(relays=("r1", "r2"))
    for party in w.parties.values():
        party.dials = ("main", "backup")
    w.run(60)
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(600)
    steady(w, "backup")
    assert w.kicked == []
    assert not [d for d in w.outcomes[-1].drift if d.kind.startswith("relay")]
