"""The invariants of the design, each by its name, over many bad nights and the moments that matter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
from chaos import Night, night
from policy_world import World, instant, make_pool

from failover.model import Admin, Held, Phase, Verb
from failover.tick import tick

SEEDS = range(60)
READY, MAINT = Admin.READY, Admin.MAINT


@functools.cache
def reachable(seed: int) -> Night:
    return night(seed)


@functools.cache
def confirmed(seed: int) -> Night:
    return night(seed, require="confirmed", by_hand=False)


def test_one_active_and_fence_first_hold_for_every_step_of_every_bad_night() -> None:
    # Watched raises Breach with the invariant's name at the step that breaks it
    for seed in SEEDS:
        assert reachable(seed).world.outcomes
        assert confirmed(seed).world.outcomes


def test_one_active_two_are_never_admitted_where_every_fence_must_be_confirmed() -> None:
    assert {seed: confirmed(seed).world.two for seed in SEEDS if confirmed(seed).world.two} == {}


def test_patience_no_forced_handover_comes_early() -> None:
    assert [e for seed in SEEDS for e in reachable(seed).forced_too_early + confirmed(seed).forced_too_early] == []


def test_patience_no_failback_comes_early() -> None:
    early = [e for seed in SEEDS for e in reachable(seed).failed_back_too_early + confirmed(seed).failed_back_too_early]
    assert early == []


def test_not_blind_nothing_is_sent_while_isolated_or_paused() -> None:
    assert [e for seed in SEEDS for e in reachable(seed).blind_steps] == []


@pytest.mark.parametrize("why", ["no lease", "isolated", "released", "observing", "paused"])
def test_not_blind_no_step_whatever_the_drift(why: str) -> None:
    w = World(make_pool(mode="observe" if why == "observing" else "act"))
    w.run(100)
    if why == "no lease":
        w.board.lease = None
    if why == "released":
        w.put(released=True)
    if why == "paused":
        w.put(paused=Held(""))
    w.set("p2", backup=READY)
    w.observe()
    view = w.board.view()
    if why == "isolated":
        view = replace(view, isolated=True)
    outcome = tick(w.pool, view, w.assignment, (), w.memory, instant(w.t))
    assert outcome.steps == ()
    assert not outcome.changed
    assert outcome.split_brain


def test_freshness_a_step_carries_the_generation_and_term_of_its_decision() -> None:
    w = World(make_pool())
    w.run(400, {100: lambda: w.ask(Verb.SWITCHOVER, "backup")})
    assert w.steps
    assert {step.generation for _, step in w.steps} == {2}
    assert {step.term for _, step in w.steps} == {1}


def test_convergence_after_the_last_fault_heals_the_pool_is_steady_without_drift() -> None:
    unsteady = {}
    for seed in SEEDS:
        w = reachable(seed).world
        last = w.outcomes[-1]
        if w.assignment is None or w.assignment.phase is not Phase.STEADY or last.split_brain:
            unsteady[seed] = last.decision.verdict.reason
        elif not last.drift and w.admitted() != {w.active}:
            unsteady[seed] = f"{w.admitted()} admitted, {w.active} active"
    assert unsteady == {}


def test_no_harm_a_voluntary_handover_leaves_nobody_admitted_for_its_budget_at_most() -> None:
    budget = 2 * make_pool().lease.action_timeout + 30.0
    for lost in ("p1", "p2", None):
        w = World(make_pool())
        moves: dict[float, Callable[[], object]] = {100.0: functools.partial(w.ask, Verb.SWITCHOVER, "backup")}
        if lost is not None:
            moves[110.0] = functools.partial(setattr, w.doors[lost], "answers", False)
        w.run(600, moves)
        assert w.none <= budget


def test_explained_every_decision_says_its_rule_and_what_the_others_lacked() -> None:
    for seed in SEEDS:
        for outcome in reachable(seed).world.outcomes:
            assert outcome.decision.verdict.reason
            assert [n for n, _ in outcome.decision.lacked] == list(range(1, outcome.decision.rule))
            assert all(words for _, words in outcome.decision.lacked)


def test_a_late_opening_taints_its_gate_until_it_has_answered_for_an_action_timeout() -> None:
    w = World(make_pool())
    w.lose_steps = lambda step: step.kind.value == "open" and step.gate.place == "p1"
    w.run(
        200,
        {
            100: lambda: w.ask(Verb.SWITCHOVER, "backup"),
            150: lambda: setattr(w.doors["p1"], "answers", False),
        },
    )
    assert w.assignment is not None
    assert [str(t.gate) for t in w.assignment.tainted] == ["backup@p1"]
    w.lose_steps = lambda step: False
    w.doors["p1"].answers = True
    w.ask(Verb.SWITCHOVER, "main")
    w.observe()
    w.decide()
    assert w.answers["r1"][0] == "refused"
    assert "may yet be opened by a late command" in w.answers["r1"][1]
    w.t += 10.0
    w.run(w.t + 30.0)
    assert w.assignment.tainted == ()


def test_another_hand_that_reverses_us_three_times_is_left_alone_and_reported() -> None:
    w = World(make_pool())
    w.run(400, {float(t): (lambda: w.set("p2", backup=READY)) for t in range(100, 200, 10)})
    closes = [t for t, step in w.steps if step.gate.place == "p2"]
    assert any(d.kind == "another-hand" for o in w.outcomes for d in o.drift)
    assert closes, "the active is served at p1, so the foreign gate is still closed"
    opened = [step for _, step in w.steps if step.kind.value == "open" and step.gate.place == "p2"]
    assert opened == []
