"""From every starting state, in a world that stays as it is: no oscillation, nobody let in beside, nobody left out.

FAILOVER_FROZEN_STRIDE chooses every n-th of the 21,504 starting states (1: all of them, `make exhaustive`).
"""

from __future__ import annotations

import os

import pytest
from frozen import Start, build, reachable_conflict, starts
from policy_world import World

from failover.model import Phase

STRIDE = int(os.environ.get("FAILOVER_FROZEN_STRIDE", "16"))
UNTIL = 700.0
QUIET = 100.0  # seconds at the end in which nothing more may be sent
PARTS = 4


def shut_out_excused(start: Start, w: World) -> bool:
    """The stated cases in which nobody is admitted though a producer is well."""
    nobody_can_be_moved = not any(start.answering)
    never_adopted = w.assignment is None
    # an active that hangs or is gone, checks that cannot tell, and a proxy that keeps silent: no majority
    no_majority = start.checks != "l7" and not all(start.answering) and start.healths != ("up", "up")
    return nobody_can_be_moved or never_adopted or no_majority


def complaint(start: Start) -> str | None:
    w = build(start).run(UNTIL)
    moves = [g for g in w.generations if not (g[1] == "adopted" and start.assignment[1] is None)]
    if len(moves) > 2:
        return f"{start}: {len(moves)} handovers: {w.handovers()}"
    late = [s for t, s in w.steps if t > UNTIL - QUIET]
    if late:
        return f"{start}: still sends {late[0].kind.value} {late[0].gate} at the end"
    if w.assignment is not None and reachable_conflict(w):
        return f"{start}: two producers admitted through proxies that answer"
    admitted = w.admitted()
    if len(admitted) > 1 and all(start.answering) and w.assignment is not None:
        return f"{start}: two producers admitted though no gate is silent"
    if not admitted and any(n.well for n in w.nodes.values()) and not shut_out_excused(start, w):
        return f"{start}: nobody admitted; {w.outcomes[-1].decision.verdict.reason}"
    unfinished = w.assignment is not None and w.assignment.phase is not Phase.STEADY
    if unfinished and all(start.answering) and start.checks == "l7" and any(n.well for n in w.nodes.values()):
        return f"{start}: never became steady; {w.outcomes[-1].decision.verdict.reason}"
    return None


@pytest.mark.parametrize("part", range(PARTS))
def test_no_starting_state_oscillates_admits_two_or_leaves_the_pool_without_a_producer(part: int) -> None:
    chosen = [s for i, s in enumerate(starts()) if i % STRIDE == 0][part::PARTS]
    complaints = [c for c in map(complaint, chosen) if c is not None]
    assert not complaints, f"{len(complaints)} of {len(chosen)}:\n" + "\n".join(complaints[:10])


def test_there_are_21504_starting_states() -> None:
    assert sum(1 for _ in starts()) == 21504
