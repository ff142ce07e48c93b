"""``failover lab``, as far as it can be seen without a running lab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from failover.cli.lab import command
from failover.lab.haproxy import LabError


def run(*words: str) -> object:
    return CliRunner().invoke(command, words, catch_exceptions=True).exception


def test_its_help_names_every_subcommand_and_loads_nothing_of_the_lab() -> None:
    code = "import sys; from failover.cli.lab import command; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout
    assert not {"asyncio", "cbor2", "failover.model", "failover.lab"} & set(loaded.split())
    text = CliRunner().invoke(command, ["--help"]).output
    assert all(f"  {name} " in text for name in ("up", "tell", "node", "relay"))


def test_without_a_lab_it_says_how_to_start_one(tmp_path: Path) -> None:
    error = run("tell", "--folder", str(tmp_path), "main", "hang")
    assert isinstance(error, LabError)
    assert "failover lab up" in error.mend


def test_without_haproxy_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = run("up", "--folder", str(tmp_path / "lab"))
    assert isinstance(error, LabError)
    assert "apt-get install haproxy" in error.mend
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--proxies", "0"], "proxies: 0 is not within 1 to 8"),
        (["--relays", "99"], "relays: 99 is not within 1 to 20"),
        (["--scale", "nan"], "scale: nan is not within 0.1 to 100"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, words: list[str], says: str) -> None:
    assert str(run("up", "--folder", str(tmp_path / "lab"), *words)) == says


def test_a_folder_too_long_for_a_socket_is_refused_before_anything_starts(tmp_path: Path) -> None:
    assert "too long for a unix socket" in str(run("up", "--folder", str(tmp_path / ("x" * 90))))


@pytest.mark.parametrize("name", ["node", "relay"])
def test_node_and_relay_tell_their_own_options(name: str) -> None:
    result = CliRunner().invoke(command, [name, "--help"])
    assert (result.exit_code, f"usage: failover lab {name}" in result.output) == (0, True)
