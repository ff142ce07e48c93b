"""Seeds that once broke something, or that pass through what others seldom do: played in every run, alike everywhere.

``FAILOVER_GOLDEN=write`` writes the hashes anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from test_repeats import interpreter, output

from failover.simulator.campaign import plan

HERE = Path(__file__).parent
PROGRAM = HERE.parent / "support" / "seed_program.py"
HASHES = HERE / "hashes.txt"
WRITE = os.environ.get("FAILOVER_GOLDEN") == "write"
LINES = [line.split(maxsplit=2) for line in (HERE / "seeds.txt").read_text().splitlines() if not line.startswith("#")]
OLD = {f"{profile}:{seed}": why for profile, seed, why in LINES}
HASHED = tuple(OLD)[:4]


@pytest.mark.parametrize("name", OLD)
def test_no_invariant_is_broken_by_an_old_seed(name: str) -> None:
    profile, _, seed = name.rpartition(":")
    assert plan(int(seed), profile=profile).run().violations == (), OLD[name]


def test_a_seed_leaves_the_trace_that_was_written_down() -> None:
    here = output_here()
    if WRITE:
        HASHES.write_text(here + "\n")
    assert here + "\n" == HASHES.read_text(), (
        "the same bytes on every machine; `make golden` when it changed on purpose"
    )


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_a_seed_leaves_the_same_trace_on_every_python(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no CPython {version} at hand to compare with")
    assert output(python, str(PROGRAM), *HASHED, hash_seed="4711") == output_here()


def output_here() -> str:
    return output(sys.executable, str(PROGRAM), *HASHED) or ""
