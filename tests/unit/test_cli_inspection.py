"""What ``failover check`` says of the clock and of the state folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from policy_world import make_pool

from failover.cli.inspection import OFFSETS, Severity, clock, state
from failover.model import Pool, Tip

UTC = 1_800_000_000.0


def judged(late: float, *, magic: int = 764824073, kernel: int | None = 0) -> tuple[str, str]:
    pool = replace(make_pool(), magic=magic)
    tip = Tip(int(UTC - late - OFFSETS.get(magic, 0)), "aa", 1)
    (found,) = clock(pool, [tip, Tip(5, "aa", 1)], UTC, lambda: kernel)
    return found.severity.value, found.what


@pytest.mark.parametrize(("late", "severity"), [(-3600, "error"), (-30, "ok"), (20, "ok"), (3600, "warning")])
def test_the_clock_is_judged_by_the_best_tip_where_slots_have_known_times(late: float, severity: str) -> None:
    assert judged(late)[0] == severity


def test_on_an_unknown_network_only_the_kernel_is_asked() -> None:
    assert judged(3600, magic=42)[0] == "ok"
    assert judged(3600, magic=42, kernel=5) == (
        "note",
        "the kernel does not know of a time server; the times in the journal may be off",
    )


def at(folder: Path) -> Pool:
    return replace(make_pool(), state=folder)


def test_a_folder_that_is_not_there_is_made_later_and_not_now(tmp_path: Path) -> None:
    found = state(at(tmp_path / "a" / "b"))
    assert [f.severity for f in found] == [Severity.OK]
    assert not (tmp_path / "a").exists()


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    (found,) = state(at(tmp_path / "state"))
    assert found.severity is Severity.ERROR
    assert found.mend


def test_a_damaged_store_is_an_error_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "failover.sqlite").write_bytes(b"not a database" * 100)
    found = [f for f in state(at(tmp_path)) if f.severity is Severity.ERROR]
    assert len(found) == 1
    assert "damaged" in found[0].what
    assert found[0].mend
