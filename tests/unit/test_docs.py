"""The docs say what the code does."""

from __future__ import annotations

from pathlib import Path

from failover.handover import TRANSITIONS, diagram
from failover.model import Phase

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_diagram_of_the_phases_is_the_one_that_the_table_draws() -> None:
    assert f"```mermaid\n{diagram()}```" in (DOCS / "architecture.md").read_text()


def test_every_phase_can_be_left_and_reached() -> None:
    assert {t.origin for t in TRANSITIONS} == set(Phase)
    assert {t.goal for t in TRANSITIONS} == set(Phase)
