"""The command line as a person meets it: help, usage, errors, and what is loaded for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from failover.cli import COMMANDS, main
from failover.errors import ConfigError, FailoverError, StoreUnusable

HEAVY = ("pydantic", "ruamel", "requests", "rich", "starlette", "uvicorn", "prometheus_client", "sqlite3", "asyncio")
FILE = """
pool: EXMPL
network: preview
state: {folder}/state
listen: "127.0.0.1:1"
producers:
  - {{name: main, address: "127.0.0.1:2"}}
  - {{name: backup, address: "127.0.0.1:3"}}
proxies:
  - {{name: p1, socket: /run/haproxy/admin.sock, backend: producers, watch: watch, hard_stop_after: 5s}}
  - name: p2
    stats: https://127.0.0.1:8404/stats
    username: failover
    password_file: {folder}/the password
    backend: producers
    servers: {{main: bp1, backup: bp2}}
    watch: watch
    hard_stop_after: 5s
references: ["127.0.0.1:4", "127.0.0.2:4"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    password = tmp_path / "the password"
    password.touch(0o600)
    password.write_text("hunter2\n")
    path = tmp_path / "failover.yaml"
    path.write_text(FILE.format(folder=tmp_path))
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="failover")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


def test_help_loads_click_alone() -> None:
    code = (
        "import sys\nfrom failover.cli import main\n"
        "try: main(['--help'], prog_name='failover')\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = python(code)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command_in_a_few_words() -> None:
    shown = run("--help").stdout
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert all(entry.short[:40] in shown for entry in COMMANDS.values())


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_of_the_table_is_there_and_has_help(name: str) -> None:
    module, _, attribute = COMMANDS[name].place.partition(":")
    assert isinstance(getattr(import_module(module), attribute), click.Command)
    done = run(name, "--help")
    assert done.exit_code == 0
    assert "Usage: failover" in done.stdout


def test_an_unknown_command_is_a_usage_error_with_the_nearest_one() -> None:
    done = run("swichover", "--to", "x")
    assert done.exit_code == 2
    assert "no command 'swichover'. Did you mean 'switchover'?" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("the file", "mend it"), 2), (FailoverError("it broke", "mend it"), 1), (StoreUnusable("x", "y"), 1)],
)
def test_an_error_is_one_line_on_stderr_then_the_mend(
    error: FailoverError, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr("failover.cli.version.command", broken)
    done = run("version")
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr == f"error: {error}\n  {error.mend}\n"


def test_an_error_with_control_characters_of_a_peer_does_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @click.command()
    def broken() -> None:
        raise FailoverError("it said \x1b[2J")

    monkeypatch.setattr("failover.cli.version.command", broken)
    assert "\x1b" not in run("version").stderr


def test_ctrl_c_ends_quietly_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("failover.cli.version.command", interrupted)
    done = run("version")
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "")


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "failover", "schema"], stdout=pipe, stderr=subprocess.PIPE, timeout=60
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_wrong_file_is_status_2_with_its_line_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("pool: A\nprodusers: []\n")
    for words in (("status",), ("run",), ("switchover", "--to", "main"), ("check",), ("history",)):
        done = run("-c", path, *words)
        assert done.exit_code == 2
        assert f"{path}:2" in done.stderr
        assert done.stdout == ""


def test_a_missing_file_is_status_2() -> None:
    done = run("-c", "/nonexistent/failover.yaml", "status")
    assert done.exit_code == 2
    assert "there is no such file" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("explain",),
        ("switchover", "--to", "backup", "--yes"),
        ("switchover", "--to", "backup", "--dry-run"),
        ("pause",),
        ("resume",),
        ("pin", "main"),
        ("unpin",),
        ("cordon", "main"),
        ("uncordon", "main"),
        ("adopt", "main", "--yes"),
        ("release", "--yes"),
    ],
)
def test_without_a_daemon_the_status_is_3_and_nothing_is_made(file: Path, words: tuple[str, ...]) -> None:
    done = run("-c", file, *words)
    assert done.exit_code == 3
    assert "systemctl start failover" in done.stderr
    assert not (file.parent / "state").exists()


@pytest.mark.parametrize(
    "words",
    [("switchover", "--to", "bakup", "--yes"), ("pin", "bakup"), ("cordon", "bakup"), ("adopt", "bakup", "--yes")],
)
def test_an_unknown_producer_is_refused_before_anything_is_asked(file: Path, words: tuple[str, ...]) -> None:
    done = run("-c", file, *words)
    assert done.exit_code == 2
    assert "Did you mean 'backup'?" in done.stderr


@pytest.mark.parametrize("text", ["soon", "-5m", "0", "999h", "5 minutes", "1e9", "", "nan"])
def test_a_duration_that_is_none_is_a_usage_error(file: Path, text: str) -> None:
    done = run("-c", file, "pause", "--for", text)
    assert done.exit_code == 2
    assert "--for" in done.stderr


def test_history_without_a_state_folder_says_what_to_do(file: Path) -> None:
    done = run("-c", file, "history")
    assert done.exit_code == 1
    assert "no state yet" in done.stderr
    assert run("-c", file, "history", "--since", "yesterday").exit_code == 2


def test_watching_needs_a_terminal(file: Path) -> None:
    done = run("-c", file, "status", "--watch")
    assert done.exit_code == 2
    assert "needs a terminal" in done.stderr


def test_the_handover_by_hand_needs_only_the_file_and_shows_no_password(file: Path) -> None:
    done = run("-c", file, "explain", "--commands")
    assert done.exit_code == 0
    text = done.stdout
    assert "hunter2" not in text
    assert f"\"$(cat '{file.parent}/the password')\"" in text
    close_1 = text.index("set server producers/main state maint; shutdown sessions server producers/main")
    close_2 = text.index("s=bp1&action=maint&b=producers")
    shutdown = text.index("s=bp1&action=shutdown&b=producers")
    open_1 = text.index("set server producers/backup state ready")
    open_2 = text.index("s=bp2&action=ready&b=producers")
    assert max(close_1, close_2, shutdown) < text.index("# 2. Look") < min(open_1, open_2)
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, timeout=30)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_handover_by_hand_goes_to_whom_one_says(file: Path) -> None:
    text = run("-c", file, "explain", "--commands", "--to", "main").stdout
    assert "producers/backup state maint" in text
    assert "producers/main state ready" in text
    assert run("-c", file, "explain", "--to", "main").exit_code == 2


def test_check_offline_reads_the_file_and_the_folder_only(file: Path) -> None:
    done = run("-c", file, "check", "--offline", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert done.exit_code == 0
    assert {f["part"] for f in findings} == {"file", "state"}
    assert all(set(f) == {"severity", "part", "what", "mend"} for f in findings)


def test_check_finds_what_does_not_answer_and_says_what_to_do(file: Path) -> None:
    done = run("-c", file, "check")
    assert done.exit_code == 1
    assert "producer main" in done.stdout
    assert "connection refused" in done.stdout
    assert "hunter2" not in done.stdout
    assert not (file.parent / "state").exists()


def test_a_folder_that_cannot_be_used_is_status_1_with_the_mend(file: Path) -> None:
    (file.parent / "state").write_text("a file")
    done = run("-c", file, "run", "--once")
    assert done.exit_code == 1
    assert "  " in done.stderr.splitlines()[-1]


def test_the_version_for_people_and_for_scripts() -> None:
    about = json.loads(run("version", "--json").stdout)
    assert set(about) == {"version", "python", "platform"}
    assert about["version"] in run("version").stdout
    assert about["version"] in run("--version").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(shell: str) -> None:
    done = run("completion", shell)
    assert done.exit_code == 0
    assert "_FAILOVER_COMPLETE" in done.stdout


def test_completion_of_a_command_loads_no_command() -> None:
    code = (
        "import sys\nfrom failover.cli import main\n"
        "try: main(prog_name='failover')\nexcept SystemExit: pass\n"
        "print([n for n in sys.modules if n.startswith('failover.cli.')], file=sys.stderr)"
    )
    done = python(code, _FAILOVER_COMPLETE="bash_complete", COMP_WORDS="failover swi", COMP_CWORD="1")
    assert done.stdout == "plain,switchover\n"
    assert done.stderr == "[]\n"
