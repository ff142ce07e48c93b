"""Take a guard out of the product, and something must notice: else what notices nothing proves nothing.

The table is tests/mutants/table.py; ``make mutants`` lets the simulator hunt all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants.hook import AnchorError, install, mutate, source_of
from mutants.table import MUTANTS, Mutant, named

ROOT = Path(__file__).resolve().parents[2]
JUDGED = [mutant.name for mutant in MUTANTS if mutant.judges]
HUNTED = (
    "confirmed is satisfied with what can be reached",
    "timers are not reset after a gap",
    "sessions that a reload hides are not waited for",
    "the lease is believed although its time is over",
    "steps are sent before they are written",
)


def python(*arguments: str, mutant: str = "") -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": path, "FAILOVER_MUTANT": mutant}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutants_anchor_is_there_once_and_what_replaces_it_compiles(mutant: Mutant) -> None:
    path = source_of(mutant)
    compile(mutate(path.read_text(encoding="utf-8"), mutant), str(path), "exec")


def test_names_of_mutants_are_told_apart_and_each_is_noticed_by_something() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert [mutant.name for mutant in MUTANTS if not mutant.hunts and not mutant.judges] == []


def test_at_least_twenty_five_mutants_are_hunted_by_the_simulator() -> None:
    assert sum(1 for mutant in MUTANTS if mutant.hunts) >= 25


def test_a_guard_that_has_moved_is_an_error_that_names_mutant_module_and_anchor() -> None:
    lost = Mutant("lost", "failover.policy", "no such line", "")
    with pytest.raises(AnchorError, match=r"'lost'.*failover\.policy.*not found.*'no such line'"):
        mutate(source_of(lost).read_text(encoding="utf-8"), lost)
    doubled = Mutant("doubled", "failover.policy", "return ", "")
    with pytest.raises(AnchorError, match=r"found \d+ times"):
        mutate(source_of(doubled).read_text(encoding="utf-8"), doubled)


def test_the_hook_refuses_a_module_that_is_imported_already() -> None:
    import failover.policy

    assert failover.policy.RULES
    with pytest.raises(AnchorError, match=r"failover\.policy is imported already"):
        install(named("failback at once"))


def test_a_module_behind_the_hook_lacks_its_guard_and_the_product_keeps_it() -> None:
    code = "\n".join(
        (
            "from mutants.hook import install",
            "from mutants.table import named",
            "install(named('no majority asked'))",
            "from failover.situation import Votes",
            "print(Votes(0, 3, ()).majority)",
        )
    )
    assert python("-c", code).stdout.strip() == "True"
    assert python("-c", "\n".join(code.splitlines()[3:])).stdout.strip() == "False"


@pytest.mark.parametrize("name", HUNTED)
def test_the_simulator_finds_a_mutant(name: str) -> None:
    ended = python("-m", "mutants", "--one", name)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["found"] is not None, f"{name} survives {result['runs']}"
    whole = python("-m", "mutants", "--control", *result["runs"])
    assert json.loads(whole.stdout) == {}, "the product itself breaks something"


@pytest.mark.parametrize("name", JUDGED)
def test_a_guard_taken_out_is_noticed_by_the_tests_of_the_middle(name: str) -> None:
    plugins = ("-p", "mutants.plugin", "-p", "no:cacheprovider")
    ended = python("-m", "pytest", "-q", "-x", *plugins, *named(name).judges, mutant=name)
    assert ended.returncode == 1, f"{name}: the tests still pass\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}"
    assert "failed" in ended.stdout
