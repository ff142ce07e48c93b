"""From every starting state of pools with gates on producers' own hosts, and after nights of faults: what holds.

FAILOVER_FROZEN_STRIDE chooses how many of the 51,450 starting states (1: all of them, `make exhaustive`).
"""

from __future__ import annotations

import functools
import os

import pytest
from gate_frozen import POOLS, Broken, Frozen, GateStart, able, all_doors, build, gate_starts, odd, stay
from gate_nights import GateNight, gate_night

from failover.model import Phase
from failover.situation import Care, care_of

STRIDE = max(1, 10 * int(os.environ.get("FAILOVER_FROZEN_STRIDE", "16")) - 9)
SEEDS = range(300)
WHOLE_HOURS = 37  # of so many starting states that are run, one is run without a shortcut


def in_vain(frozen: Frozen) -> bool:
    """Gates that never shut, or never show it: then handovers are tried again, however seldom."""
    strict = frozen.world.pool.fence.require == "confirmed"
    return odd(frozen, "between") or (strict and odd(frozen, "unsure"))


def waits_for_ever(frozen: Frozen) -> bool:
    """A voluntary handover whose old producer went away with its host: nothing is passed over."""
    a = frozen.world.assignment
    voluntary = a is not None and a.phase is not Phase.STEADY and care_of(a) is Care.VOLUNTARY
    return voluntary and odd(frozen, "silent")


def complaint(start: GateStart, *, shortcut: bool = True) -> str | None:
    frozen = build(start)
    w = frozen.world
    try:
        stay(frozen, shortcut=shortcut)
    except Broken as broken:
        return f"{start}: {broken}"
    moves = [g for g in w.generations if not (g[1] == "adopted" and start.assignment[1] is None)]
    if len(moves) > len(w.pool.names) and not in_vain(frozen):
        return f"{start}: no-livelock: {w.handovers()[:6]}"
    if w.unrecorded:
        return f"{start}: {w.unrecorded[0]}"
    admitted = w.admitted()
    if len(admitted) > 1 and all_doors(w) and not odd(frozen, "silent", "between") and w.assignment is not None:
        return f"{start}: one-active: {admitted} make blocks though every gate answers"
    if w.assignment is None or not all_doors(w) or not able(frozen) or in_vain(frozen) or waits_for_ever(frozen):
        return None
    reason = w.outcomes[-1].decision.verdict.reason
    if not admitted:
        return f"{start}: convergence: {able(frozen)} could make blocks, and nobody does: {reason}"
    if not any(w.fit(name) for name in admitted) and not odd(frozen, "silent", "unsure"):
        return f"{start}: convergence: {admitted} is not fit, {able(frozen)} is: {reason}"
    if w.assignment.phase is not Phase.STEADY:
        return f"{start}: convergence: never became steady: {reason}"
    return None


@pytest.mark.parametrize("pool", POOLS)
def test_no_starting_state_opens_beside_another_oscillates_or_leaves_the_pool_without_blocks(pool: str) -> None:
    chosen = [s for i, s in enumerate(gate_starts()) if i % STRIDE == 0 and s.pool == pool]
    told = [c for i, s in enumerate(chosen) if (c := complaint(s, shortcut=i % WHOLE_HOURS != 0)) is not None]
    assert chosen
    assert not told, f"{len(told)} of {len(chosen)}:\n" + "\n".join(told[:10])


def test_there_are_51450_starting_states_with_gates_on_hosts() -> None:
    assert sum(1 for _ in gate_starts()) == 51450


# ---------------------------------------------------------------- nights


@functools.cache
def night(seed: int) -> GateNight:
    return gate_night(seed)


def test_one_active_and_fence_first_hold_for_every_step_of_every_bad_night() -> None:
    assert {seed: night(seed).broken for seed in SEEDS if night(seed).broken} == {}


def test_whoever_was_passed_over_is_told_in_every_bad_night() -> None:
    assert {seed: night(seed).world.unrecorded[0] for seed in SEEDS if night(seed).world.unrecorded} == {}


def test_patience_no_forced_handover_comes_early_where_producers_have_gates() -> None:
    assert {seed: night(seed).too_early for seed in SEEDS if night(seed).too_early} == {}


def test_under_confirmed_two_never_make_blocks_by_a_step_of_ours() -> None:
    assert {seed: night(seed).two for seed in SEEDS if night(seed).two} == {}


def test_convergence_after_every_bad_night_the_active_alone_makes_blocks() -> None:
    wrong = {seed: night(seed).wrong() for seed in SEEDS if not night(seed).broken}
    assert {seed: words for seed, words in wrong.items() if words is not None} == {}


def test_the_nights_with_gates_are_nights() -> None:
    worlds = [night(seed).world for seed in SEEDS]
    assert sum(len(w.generations) for w in worlds) > len(SEEDS)
    assert sum(len(w.steps) for w in worlds) > 10 * len(SEEDS)
    assert {str(s.gate.kind) for w in worlds for _, s in w.steps} == {"haproxy", "forging", "firewall", "power"}
