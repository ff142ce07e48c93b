"""A seed is the same run on every supported Python, and whatever the order of its sets of strings is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("test_virtual_loop_program.py")
CORE_PROGRAM = ROOT / "tests" / "support" / "core_program.py"
PATIENCE = 120.0


def output(python: str, *arguments: str, hash_seed: str = "0") -> str | None:
    """What the interpreter prints; None if it does not run. Whatever it says against the program is an error."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{CORE_PROGRAM.parent}",
        "PYTHONHASHSEED": hash_seed,
    }
    command = [python, "-B", *arguments]
    ended = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=PATIENCE)
    if arguments[0] != "-c":
        assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.strip() if ended.returncode == 0 else None


def interpreter(version: str) -> str | None:
    """A CPython of this version: ours, one on the path, or one that pyenv has installed."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [sys.executable, shutil.which(f"python{version}")]
    found += [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    asks = "import sys, platform; print(platform.python_implementation(), *sys.version_info[:2])"
    wanted = "CPython " + version.replace(".", " ")
    return next((python for python in found if python is not None and output(python, "-c", asks) == wanted), None)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_seed_is_the_same_run_on_every_python(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no CPython {version} at hand to compare with")
    for seed in ("1", "2", "3"):
        here = output(sys.executable, str(PROGRAM), seed)
        assert [output(python, str(PROGRAM), seed, hash_seed=order) for order in ("0", "4711")] == [here, here]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_core_leaves_the_same_trace_on_every_python(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no CPython {version} at hand to compare with")
    here = output(sys.executable, str(CORE_PROGRAM), "7", str(tmp_path / "here"))
    for order in ("0", "4711"):
        assert output(python, str(CORE_PROGRAM), "7", str(tmp_path / order), hash_seed=order) == here
    assert here != output(sys.executable, str(CORE_PROGRAM), "8", str(tmp_path / "other"))
