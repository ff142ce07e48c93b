"""From every starting state of a pool with a record, and after nights of faults: what holds for the record.

FAILOVER_FROZEN_STRIDE chooses every n-th of the 4,480 starting states (1: all of them, `make exhaustive`).
"""

from __future__ import annotations

import os

import pytest
from record_frozen import NAME, RecordStart, build, record_night, record_starts

from failover.model import Phase

STRIDE = max(1, int(os.environ.get("FAILOVER_FROZEN_STRIDE", "16")) // 4)
UNTIL = 700.0
QUIET = 100.0  # seconds at the end in which nothing more may be sent
NIGHTS = range(50)


def complaint(start: RecordStart) -> str | None:
    w = build(start).run(UNTIL)
    moves = [g for g in w.generations if not (g[1] == "adopted" and start.assignment[1] is None)]
    if len(moves) > 2:
        return f"{start}: {w.handovers()}"
    late = [p for t, p in w.pointed if t > UNTIL - QUIET]
    if late and start.answers:
        return f"{start}: still sends {late[0]} at the end"
    if w.assignment is None or w.active is None:
        return None
    if not start.answers and w.signs[NAME].rrset != build(start).signs[NAME].rrset:
        return f"{start}: the record moved though its provider does not answer"
    seen_up = w.nodes[w.active].well
    if start.answers and seen_up and w.assignment.phase is Phase.STEADY and w.told() != w.active:
        return f"{start}: {w.active} is active, and the record says {w.signs[NAME].rrset}"
    well = [n for n, node in w.nodes.items() if node.well]
    if start.gateless and start.answers and well and w.admitted() == set():
        return f"{start}: {well} is well, and the record leads to nobody; {w.outcomes[-1].decision.verdict.reason}"
    return None


def test_no_starting_state_oscillates_or_leaves_the_record_wrong() -> None:
    chosen = [s for i, s in enumerate(record_starts()) if i % STRIDE == 0]
    complaints = [c for c in map(complaint, chosen) if c is not None]
    assert not complaints, f"{len(complaints)} of {len(chosen)}:\n" + "\n".join(complaints[:10])


def test_there_are_4480_starting_states() -> None:
    assert sum(1 for _ in record_starts()) == 4480


@pytest.mark.parametrize("gateless", [True, False])
def test_after_a_night_of_faults_the_record_points_to_the_active(gateless: bool) -> None:
    wrong = {}
    for seed in NIGHTS:
        w = record_night(seed, gateless=gateless).world
        if w.assignment is None or w.assignment.phase is not Phase.STEADY or w.told() != w.active:
            wrong[seed] = f"{w.active} is active, the record says {w.told()}: {w.outcomes[-1].decision.verdict.reason}"
    assert wrong == {}


def test_patience_holds_without_any_gate_too_and_nothing_but_a_failure_moves_the_role_by_itself() -> None:
    nights = {seed: record_night(seed, gateless=True) for seed in NIGHTS}
    assert {seed: n.too_early for seed, n in nights.items() if n.too_early} == {}
    assert {seed: n.by_itself for seed, n in nights.items() if n.by_itself} == {}


def test_the_nights_are_nights() -> None:
    nights = [record_night(seed, gateless=True) for seed in NIGHTS]
    assert sum(len(n.world.generations) for n in nights) > len(NIGHTS) / 2
    assert sum(len(n.world.pointed) for n in nights) > len(NIGHTS)
