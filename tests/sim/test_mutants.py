"""Take a guard out of a copy of the middle, and the tests must fail: else they prove nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JUDGES = ("tests/unit/test_invariants.py", "tests/unit/test_stories.py")

MUTANTS = {
    "fencing removed": (
        "situation.py",
        "        lacks = []\n        for producer in self.pool.others(target):",
        1,
        "        return ()\n        lacks = []\n        for producer in self.pool.others(target):",
    ),
    "patience removed": ("health.py", "    return max(0.0, min(whole, summed))", 1, "    return 0.0"),
    "the only live producer may be closed": ("policy.py", "    if not s.somebody_sees_up(active):", 1, "    if False:"),
    "no majority asked": ("situation.py", "        return 2 * self.agree > self.counted", 1, "        return True"),
    "a late opening is forgotten": (
        "tick.py",
        "        if track.read_at.since(answered) >=",
        1,
        "        if True or 0 >=",
    ),
    "isolation ignored": ("policy.py", "    if s.view.isolated:", 1, "    if False:"),
    "failback at once": ("policy.py", "    left = wait - health.fit_for", 1, "    left = 0 * health.fit_for"),
    "laggards are fit": ("health.py", "    if readings >= 2:", 1, "    if readings >= 2 and False:"),
}

RECORD_JUDGES = ("tests/unit/test_signposts.py", "tests/unit/test_record_stories.py", "tests/sim/test_records.py")

RECORD_MUTANTS = {
    "another hand is fought without end": (
        "signposts.py",
        "    if contested is not None or len(reversals) >= REVERSALS:",
        1,
        "    if False:",
    ),
    "an overtaken plan is sent": (
        "controller.py",
        "        current = pointing.term == lease.term and pointing.generation == a.generation",
        1,
        "        return True",
    ),
    "a record moves before the fence": (
        "handover.py",
        '    return Progress(None, f"fencing everyone but {target}: {lacks[0]}", steps=close_steps(s, target))',
        1,
        "    return Progress(None, lacks[0], steps=close_steps(s, target), pointings=pointings(s, target))",
    ),
    "a name that is not ours is changed": (
        "situation.py",
        "        if track.reading is not None and track.reading.unownable is not None:",
        1,
        "        if False:",
    ),
    "without a gate the role goes back by itself": (
        "policy.py",
        '    if s.pool.gateless:\n        return f"nothing could shut {a.active} out',
        1,
        '    if False:\n        return f"nothing could shut {a.active} out',
    ),
    "without a gate no reference is asked": ("policy.py", "    if s.pool.gateless and s.deaf():", 1, "    if False:"),
    "a lost answer is taken for another hand": (
        "signposts.py",
        "    ours = any(sent.rrset == reading.rrset for sent in track.sent)",
        1,
        "    ours = False",
    ),
    "relays that may stay are forgotten": (
        "tick.py",
        "    return not gone or s.reached(producer)",
        1,
        "    return False",
    ),
}


def failing_tests(folder: Path, judges: tuple[str, ...]) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *judges]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return ended.returncode, ended.stdout[-2000:]


@pytest.mark.parametrize("name", [*MUTANTS, *RECORD_MUTANTS])
def test_a_guard_taken_out_is_noticed(name: str, tmp_path: Path) -> None:
    module, guard, count, without = {**MUTANTS, **RECORD_MUTANTS}[name]
    shutil.copytree(ROOT / "failover", tmp_path / "failover", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "failover" / module
    text = path.read_text()
    assert text.count(guard) == count, f"the guard of {name!r} has moved: mend this test"
    path.write_text(text.replace(guard, without))
    code, output = failing_tests(tmp_path, JUDGES if name in MUTANTS else RECORD_JUDGES)
    assert code == 1, f"{name}: the tests still pass\n{output}"
    assert "failed" in output
