"""The library of scenarios, each against what was reviewed, and the stories against what an operator would call right.

``FAILOVER_GOLDEN=write`` writes the golden files anew; read what has changed before it is committed.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from failover.cli import main
from failover.cli.simulate import heading, played
from failover.simulator import scenario
from failover.simulator.faults import KINDS
from failover.simulator.judge import EDGES
from failover.simulator.run import Run
from failover.simulator.telling import told

GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("FAILOVER_GOLDEN") == "write"
MOST_SCENARIOS = 200

# By scenario: how often the role is moved, seconds in which one that was well could have been let in and none was
# (give or take two ticks), and seconds with two reachable, by what allowed it.
STORIES: dict[str, tuple[int, float, dict[str, float]]] = {
    "main-dies-for-good": (1, 310, {}),
    "hung-node": (1, 310, {}),
    "hung-node-plain-checks": (1, 310, {}),
    "hung-node-plain-checks-proxy-gone": (0, 1500, {}),
    "main-sticks": (1, 335, {}),
    "switchover": (1, 10, {}),
    "fail-back": (1, 10, {}),
    "switchover-loses-proxy": (2, 0, {}),
    "site-power-cut": (2, 310, {}),
    "split-sites": (2, 0, {"passed-over": 510}),
    "proxy-blinks": (0, 0, {}),
    "proxy-blinks-while-pinned": (0, 0, {}),
    "crash-loop": (1, 320, {}),
    "two-outages": (1, 310, {}),
    "opened-by-hand": (0, 0, {}),
    "switched-by-hand": (1, 10, {}),
    "nobody-sees-backup": (0, 0, {}),
    "no-proxy-sees-main": (0, 0, {}),
    "one-proxy-sees-backup": (1, 310, {}),
    "backup-dies-while-active": (1, 30, {}),
    "pinned-backup-restarts": (0, 60, {}),
    "opened-after-main-died": (1, 50, {}),
    "cordon-the-active": (1, 10, {}),
    "pause-during-handover": (1, 310, {}),
}


@cache
def run_of(name: str) -> tuple[scenario.Cast, Run]:
    cast = scenario.cast(scenario.find(name))
    return cast, played(cast)


def text_of(name: str) -> str:
    cast, run = run_of(name)
    return "".join(f"{line}\n" for _, line in told(heading(cast), run))


@pytest.mark.parametrize("name", scenario.names())
def test_a_scenario_goes_as_it_was_reviewed(name: str) -> None:
    golden, now = GOLDEN / f"{name}.txt", text_of(name)
    if WRITE:
        golden.write_text(now)
    assert now == golden.read_text(), f"read what has changed; then FAILOVER_GOLDEN=write writes {golden.name} anew"


@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_as_an_experienced_operator_would_call_right(name: str) -> None:
    _, run = run_of(name)
    handovers, none, two = STORIES[name]
    assert run.handovers == handovers
    assert run.outage == pytest.approx(none, abs=20)
    assert {why: seconds for why, seconds in run.overlap.items() if seconds} == {
        why: pytest.approx(seconds, abs=30) for why, seconds in two.items()
    }


def test_no_golden_file_is_left_of_a_scenario_that_is_gone() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(scenario.names())
    assert 30 <= len(scenario.names()) <= MOST_SCENARIOS


def test_the_command_prints_what_the_golden_file_says() -> None:
    done = CliRunner().invoke(main, ["simulate", "--built-in", "--scenario", "proxy-blinks"])
    assert done.exit_code == 0
    assert done.stdout == (GOLDEN / "proxy-blinks.txt").read_text()


def test_the_library_has_a_scenario_for_nearly_every_kind_of_fault() -> None:
    used = {event.kind for each in scenario.library() for event in each.events}
    ends = {"start", "resume", "power-on", "start-controller"}  # what others undo
    assert set(KINDS) - used <= ends | {
        *("crash", "drift", "slow-ticks", "reload-file", "conflict", "lose-acks"),  # by chance, at every point
        *("slow-path", "hang-dns", "refuse-dns", "late-dns"),
    }


def test_every_move_of_the_phase_table_happens_in_the_library() -> None:
    happened = {edge for name in scenario.names() for edge in run_of(name)[1].edges}
    assert set(EDGES) <= happened


def test_no_invariant_is_broken_in_the_library() -> None:
    broken = {name: run.violations for name in scenario.names() if (run := run_of(name)[1]).violations}
    assert broken == {}
