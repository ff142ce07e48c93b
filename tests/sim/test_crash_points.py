"""The controller is killed at every call of a whole handover: before it, after its effect, before its reply."""

from __future__ import annotations

from dataclasses import replace

import pytest

from failover.model import GateKind, HealthSettings, PolicySettings, Pool
from failover.simulator.campaign import default_pool
from failover.simulator.faults import Fault
from failover.simulator.run import Run, play

POINTS = ("before", "effect", "reply")
BEGINS = 31.0  # seconds, when everything was read and nothing is under way
COUNTS = 29.8  # from when on calls are counted
BACK = 3.0  # seconds until whoever keeps it running has started it again


def pool(*, records: int = 0, gates: tuple[GateKind, ...] = ()) -> Pool:
    quick = PolicySettings(fail_over_after=20.0, fail_back_after=60.0)
    made = default_pool(records=records, policy=quick, gates=gates)
    return replace(made, health=HealthSettings(interval=5.0, timeout=2.0, max_gap=30.0))


STORIES: dict[str, tuple[Pool, tuple[Fault, ...], float, int]] = {
    # what happens, how long, and how many calls its whole handover takes at most
    "a switchover": (
        pool(),
        (Fault(BEGINS, "ask", (), None, {"verb": "switchover", "producer": "backup"}),),
        75.0,
        32,
    ),
    "a failover": (pool(), (Fault(BEGINS - 25.0, "stop", ("main",)),), 75.0, 32),
    "a switchover with a record": (
        pool(records=1),
        (Fault(BEGINS, "ask", (), None, {"verb": "switchover", "producer": "backup"}),),
        75.0,
        34,
    ),
    "a switchover with forging gates": (
        pool(gates=(GateKind.FORGING,)),
        (Fault(BEGINS, "ask", (), None, {"verb": "switchover", "producer": "backup"}),),
        90.0,
        60,
    ),
}


def crashed(story: str, call: int, point: str) -> Run:
    of, faults, seconds, _ = STORIES[story]
    crash = Fault(COUNTS, "crash", ("controller",), BACK, {"call": float(call), "point": point})
    return play(of, (crash, *faults), seconds)


@pytest.mark.parametrize("story", STORIES)
def test_the_handover_is_over_within_the_calls_at_which_it_is_killed(story: str) -> None:
    of, faults, seconds, calls = STORIES[story]
    begun = play(of, faults, seconds)
    assert begun.violations == ()
    assert begun.order[-1] == "steady backup"
    late = crashed(story, calls, "before")
    ends = [line.at for line in late.timeline if line.words.startswith("the controller is killed:")]
    steady = [line.at for line in late.timeline if line.words.startswith("steady:")]
    assert ends, "that many calls were never made"
    assert steady[0] < ends[0], "the handover takes more calls than are killed here"


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("story", STORIES)
def test_killed_at_any_call_of_a_handover_it_comes_right_and_two_are_never_reachable(story: str, point: str) -> None:
    wrong = []
    for call in range(1, STORIES[story][3]):
        run = crashed(story, call, point)
        admitted = run.points[-1].admitted
        if run.violations or admitted != ("backup",) or run.overlap:
            wrong.append((call, run.violations, admitted, dict(run.overlap)))
    assert not wrong


@pytest.mark.parametrize("kind", [GateKind.FORGING, GateKind.FIREWALL])
@pytest.mark.parametrize("after", [0.0, 1.0])
def test_an_opening_that_was_under_way_when_the_controller_died_does_not_count_as_shut(
    kind: GateKind, after: float
) -> None:
    """The new controller cannot reach the host to which the opening left: it waits as long as for one that was open."""
    settings = replace(default_pool(proxies=0, gates=(kind,)), policy=PolicySettings(120.0, 600.0))
    hang = Fault(100.0, "hang", ("main",), 127.0)
    opened = play(settings, (hang,), 300.0, settle=False)
    words = f"open backup@{kind.value}: backup is to make the pool's blocks"
    (leaves,) = [line.at for line in opened.timeline if line.words == words]
    faults = (
        hang,
        Fault(leaves + 0.05 + after, "kill", ("controller",), 4.0),
        Fault(leaves + 0.07 + after, "cut", ("backup",), 900.0, {"from": ("controller",)}),
    )
    run = play(settings, faults, 900.0, settle=False)
    assert run.violations == (), run.timeline
