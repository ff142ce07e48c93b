"""Stories of half-broken hosts: what a pool with gates of its own must not do when agents, power and metrics fail.

Seconds are those of a world that turns every ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from gate_nights import restart
from policy_world import World, instant, make_gateless_pool, make_pool

from failover import nodes
from failover.board import Board
from failover.model import Address, Agent, Gate, GateKind, GateReading, Instant, NodeReading, Phase, StepKind, Verb

FORGING, POWER = GateKind.FORGING, GateKind.POWER


def forging_only(**fields: object) -> World:
    return World(make_pool(proxies=(), gates=(FORGING,), **fields))  # type: ignore[arg-type]


def gate(kind: GateKind, producer: str) -> Gate:
    return Gate(kind.value, producer)


def lost(world: World, name: str) -> None:
    world.nodes[name].up = False
    for each, switch in world.switches.items():
        if each.producer == name and each.kind is not POWER:
            switch.answers = False


def switched_off(w: World) -> list[tuple[float, str]]:
    return [(t, str(s.gate)) for t, s in w.steps if s.gate.kind is POWER and s.kind is StepKind.CLOSE]


def test_the_old_one_dies_with_its_host_in_the_middle_of_a_switchover_and_the_target_takes_over_after_patience() -> (
    None
):
    w = forging_only()
    w.run(60)
    w.nodes["main"].hung = True  # two pings have failed when the operator acts; a node that hangs takes no signal
    w.run(80)
    w.ask(Verb.SWITCHOVER, "backup")
    w.switches[gate(FORGING, "main")].stuck = True
    w.run(5000, {100: lambda: lost(w, "main")})
    assert w.assignment is not None
    assert w.assignment.phase is Phase.STEADY, w.outcomes[-1].decision.verdict.reason
    assert w.admitted() == {"backup"}


def test_a_failback_does_not_begin_to_a_producer_whose_own_gate_is_neither_open_nor_shut() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING,)), active="backup")
    w.switches[gate(FORGING, "main")].between = True
    w.run(2 * 3600)
    assert w.handovers() == []
    assert w.none == 0, f"nobody made blocks for {w.none} s"


def test_a_switchover_to_a_producer_whose_own_gate_is_neither_open_nor_shut_is_refused() -> None:
    w = forging_only()
    w.switches[gate(FORGING, "backup")].between = True
    w.run(60)
    asked = w.ask(Verb.SWITCHOVER, "backup")
    w.run(2000)
    assert w.none <= 60, f"nobody made blocks for {w.none} s; {w.handovers()}"
    assert w.answers[asked][0] == "refused"


def test_power_is_left_alone_while_the_forging_gate_answers_and_can_be_closed_under_confirmed() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING, POWER), require="confirmed"))
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True)})
    assert w.active == "backup"
    assert switched_off(w) == []


def test_power_is_left_alone_while_the_forging_gate_answers_and_only_a_proxy_is_silent() -> None:
    w = World(make_pool(proxies=("p1", "p2", "p3"), gates=(FORGING, POWER)))
    silence: dict[float, Callable[[], object]] = {105: lambda: setattr(w.doors["p3"], "answers", False)}
    w.run(1000, {100: lambda: setattr(w.nodes["main"], "hung", True), **silence})
    assert w.active == "backup"
    assert switched_off(w) == []


def test_power_of_a_third_one_that_holds_up_nothing_is_left_alone() -> None:
    w = World(make_pool(producers=("main", "backup", "third"), proxies=(), gates=(FORGING, POWER)))
    w.run(2000, {50: lambda: lost(w, "third"), 500: lambda: setattr(w.nodes["main"], "hung", True)})
    assert w.active == "backup"
    assert "third@power" not in [g for _, g in switched_off(w)], switched_off(w)


def test_an_active_that_cannot_be_opened_is_told() -> None:
    """Its node came back closed; the standby's agent is silent, so it is not opened (confirmed)."""
    w = forging_only(require="confirmed")
    w.run(100)
    w.switches[gate(FORGING, "backup")].answers = False
    w.run(200)
    w.switches[gate(FORGING, "main")].open = False
    w.switches[gate(FORGING, "main")].process = "2"
    w.run(4000)
    assert w.none > 3000
    assert any("main" in alert for alert in w.alerts), w.alerts


def test_the_role_does_not_go_back_by_hand_back_to_a_producer_whose_silent_gate_was_not_last_seen_open() -> None:
    w = forging_only()
    main = w.switches[gate(FORGING, "main")]

    def closing() -> None:
        main.between = True  # the close is under way when the host dies

    def dies() -> None:
        lost(w, "main")

    def back() -> None:  # the node comes back without its agent, and closed
        w.nodes["main"].up, w.nodes["main"].hung, main.between, main.open = True, False, False, False

    w.run(3000, {100: lambda: setattr(w.nodes["main"], "hung", True), 390: closing, 420: dies, 1200: back})
    assert ("forced", "backup") in w.handovers()
    after = [h for h in w.handovers() if h[0] == "hand-back"]
    assert after == [], w.handovers()


def test_metrics_that_fall_silent_do_not_renew_credentials_that_expired() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING,), metrics=True))
    w.run(60)
    w.expired.add("main")
    w.run(1000)
    assert w.active == "backup"
    post = w.board.post_node

    def mute(name: str, reading: NodeReading, at: Instant) -> None:
        if name == "main":
            w.board.post_node_silence(name, at, "connection refused")
        else:
            post(name, reading, at)

    w.board.post_node = mute  # type: ignore[method-assign,assignment]
    w.run(6000)
    assert w.active == "backup", w.handovers()


def test_a_gate_whose_agent_is_another_one_after_a_reload_is_read_anew() -> None:
    pool = make_pool(proxies=(), gates=(FORGING,))
    agents = tuple(Agent(n, Address(f"127.0.0.{i}", 22), key_file=Path("/k")) for i, n in enumerate(("a", "b"), 61))
    old = replace(
        pool, agents=agents, producers=tuple(replace(p, agent=n) for p, n in zip(pool.producers, "ab", strict=True))
    )
    new = replace(old, producers=tuple(replace(p, agent=n) for p, n in zip(old.producers, "ba", strict=True)))
    w = World(old)
    w.run(60)
    now = instant(w.t)
    board = Board(new, now, w.board.timers(now))
    board.take_over(w.board, now)
    assert not any(track.answers for track in board.gates.values())


def test_a_handover_that_could_not_be_fenced_is_not_tried_each_half_hour() -> None:
    """confirmed; the active lags, closes, and cannot show it: taken back, and tried again and again."""
    w = World(make_pool(proxies=(), gates=(FORGING,), require="confirmed"))
    w.switches[gate(FORGING, "main")].certain = False
    w.nodes["main"].lag = 200
    w.run(12 * 3600)
    assert len(w.handovers()) <= 10, (len(w.handovers()), w.none)


def test_a_fit_producer_is_let_in_when_the_unfit_active_is_shut_and_cannot_be_opened() -> None:
    """confirmed; the active lags and is shut for sure, the other one is fit and shut, but cannot show that."""
    w = World(make_pool(proxies=(), gates=(FORGING,), require="confirmed"), active="backup")
    w.switches[gate(FORGING, "main")].certain = False
    w.switches[gate(FORGING, "backup")].open = False
    w.nodes["backup"].lag = 200
    w.run(3600)
    assert w.admitted(), w.outcomes[-1].decision.verdict.reason


def test_agents_that_answer_are_something_outside_that_answers() -> None:
    w = forging_only(references=False)
    backup = w.nodes["backup"]
    w.run(
        600,
        {
            100: lambda: setattr(w.nodes["main"], "up", False),
            370: lambda: setattr(backup, "up", False),
            410: lambda: setattr(backup, "up", True),
        },
    )
    assert not any("our own network" in o.decision.verdict.reason for o in w.outcomes)
    assert w.handovers() == [("forced", "backup")]


def test_a_fence_that_does_not_come_about_is_told_while_nobody_makes_blocks() -> None:
    """The active hangs and cannot be made to let go of its keys: its agent answers, and its gate stays open."""
    w = forging_only()
    w.run(60)
    w.switches[gate(FORGING, "main")].stuck = True
    w.nodes["main"].hung = True
    w.run(3600)
    assert w.assignment is not None
    assert w.assignment.phase is Phase.FENCING
    told = [alert for alert in w.alerts if "main@forging" in alert]
    assert told, w.alerts


def test_a_relay_whose_sessions_could_not_be_ended_is_not_said_to_have_gone_back() -> None:
    class Clinging(dict[str, str]):
        def pop(self, *key: object) -> None:  # type: ignore[override]
            return None

    w = World(make_gateless_pool(relays=("r1",)))
    w.run(60)
    w.parties["r1"].sessions = Clinging(w.parties["r1"].sessions)  # its agent refuses each kick
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(6000)
    assert not any("went back" in alert for alert in w.alerts), w.alerts


def test_a_relay_that_lists_one_loser_is_still_made_to_let_go_of_another() -> None:
    w = World(make_gateless_pool(producers=("main", "second", "third"), relays=("r1",)))
    w.parties["r1"].dials = ("main",)
    w.run(60)
    w.ask(Verb.SWITCHOVER, "second")
    w.run(5000)
    w.ask(Verb.SWITCHOVER, "third")
    w.run(12000)
    assert "second" not in w.parties["r1"].sessions, ([(t, k.producer) for t, k in w.kicked], w.parties["r1"].sessions)


def test_a_restart_goes_on_counting_for_how_long_credentials_have_been_expired() -> None:
    """As it does for a producer that lags: patience is not begun anew by it (architecture.md, rule 10)."""
    moved = {}
    for trouble in ("expired", "lags"):
        w = forging_only(metrics=True)
        w.run(100)
        if trouble == "expired":
            w.expired.add("main")
        else:
            w.nodes["main"].lag = 200
        w.run(1000, {300: partial(restart, w)})  # type: ignore[arg-type]
        moved[trouble] = w.generations[0][0]
    assert moved["expired"] <= moved["lags"] + 20, moved


def test_an_agent_that_answers_again_has_its_time_to_shut_before_power_is_used() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING, POWER), require="confirmed"))
    w.run(60)
    w.nodes["main"].hung = True
    forging, power = w.switches[gate(FORGING, "main")], w.switches[gate(POWER, "main")]
    forging.stuck, power.answers = True, False

    def silent() -> None:
        forging.answers = False

    def back() -> None:
        forging.answers, forging.stuck, power.answers = True, False, True

    w.run(900, {400: silent, 500: back})
    assert w.active == "backup"
    assert switched_off(w) == []


def test_a_silent_gate_that_is_passed_over_to_open_the_active_again_is_told() -> None:
    w = forging_only()
    w.run(60)
    main, backup = w.switches[gate(FORGING, "main")], w.switches[gate(FORGING, "backup")]
    backup.stuck = backup.open = True  # somebody put its keys back
    w.run(100)
    w.cut.add("backup")  # then its host is cut off, and the active's node comes back closed
    main.open, main.process = False, "2"
    w.run(1500)
    assert main.open
    assert any("backup@forging passed over" in alert for alert in w.alerts), w.alerts


@pytest.mark.parametrize("relays", [("r1",), ("r1", "r2")])
def test_relays_of_which_none_has_the_active_are_told(relays: tuple[str, ...]) -> None:
    w = World(make_gateless_pool(relays=relays))
    w.run(60)
    for party in w.parties.values():
        party.away = True
        party.sessions.clear()
    w.run(3000)
    assert [f"{name} has no session with main" in " ".join(w.alerts) for name in relays] == [True] * len(relays)


def test_a_pool_whose_gates_are_all_shut_at_the_first_start_does_not_wait_in_silence() -> None:
    w = World(make_pool(proxies=(), gates=(FORGING,)), assigned=False)
    w.switches[gate(FORGING, "main")].open = False
    w.board.acting_since = instant(w.t)
    w.run(290)
    assert w.alerts == []
    w.run(400)
    assert [("no assignment yet" in alert, "failover adopt NAME" in alert) for alert in w.alerts] == [(True, True)]


def test_keys_that_were_renewed_on_a_closed_producer_count_although_its_node_tells_old_numbers() -> None:
    old = NodeReading(kes_remaining=0)
    closed, at = GateReading(open=False, certain=True, kes_left=60), instant(10.0)
    told = (None, closed, replace(closed, open=True, certain=False), replace(closed, open=True))
    since = [nodes.fold(nodes.NodeTrack(), old, at, gate).expired_since for gate in told]
    assert since == [at, None, None, at], "by its own numbers only while it is seen to forge by what it holds"
    assert nodes.fold(nodes.NodeTrack(), NodeReading(), at, replace(closed, kes_left=0)).expired_since == at
    assert nodes.ends_soon(NodeReading(kes_remaining=3), closed) is None
    assert nodes.ends_soon(NodeReading(kes_remaining=60), replace(closed, kes_left=3)) == 3


def test_an_active_taken_back_whose_gate_stays_shut_gives_way_to_a_barred_one_once_the_bar_is_old() -> None:
    """Its agent hangs with the lock: nothing opens it, and it is seen shut for certain. Nobody would make blocks."""
    w = forging_only()
    w.run(100)
    main = w.switches[gate(FORGING, "main")]
    main.stuck = main.between = True
    w.ask(Verb.SWITCHOVER, "backup")

    def shut() -> None:
        main.between, main.open = False, False

    w.run(1500, {130: shut})
    assert (w.active, w.two) == ("backup", 0.0), [(t, str(s)) for t, s in w.steps]
