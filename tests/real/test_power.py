"""The power gate: an operator's commands that work, lie, hang, fork, flood and print nonsense."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from failover.errors import GateError, GateRefused, GateTimeout, GateUnreachable
from failover.gates.power import PowerPort
from failover.host import RealHost
from failover.model import Gate, Power, Step, StepKind

ANSWER = 20.0  # seconds that a command may take
SHORT = 1.5  # seconds, for what must time out
SH = "/bin/sh"


def step(kind: StepKind) -> Step:
    return Step(kind, Gate("power", "main"), 3, 2, "a test")


def port(status: str = "echo off", off: str = "true", on: str | None = "true") -> PowerPort:
    """A power gate whose commands are lines of a shell."""
    turned_on = None if on is None else (SH, "-c", on)
    return PowerPort("main", Power((SH, "-c", off), (SH, "-c", status), turned_on), RealHost())


async def error_of(made: PowerPort, kind: StepKind | None = None, timeout: float = ANSWER) -> GateError:
    """What reading (or a step) ends with; it names the producer, and is on one line."""
    with pytest.raises(GateError) as caught:
        await (made.read(timeout) if kind is None else made.set(step(kind), timeout, lambda: True))
    assert "main: power." in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.mend
    return caught.value


@pytest.mark.parametrize(
    ("line", "is_open"),
    [
        ("echo off", False),
        ("echo on", True),
        ("echo 'Chassis Power is Off'", False),
        ("printf 'noise\\nstate: ON'", True),
        ("echo off; echo 'connection is on' >&2", False),
        ("echo off; (sleep 600 &)", False),
    ],
)
async def test_the_last_word_of_status_is_what_counts(line: str, is_open: bool) -> None:
    reading = await port(line).read(ANSWER)
    assert reading.open is is_open
    assert reading.certain is not is_open
    assert reading.shown == (f"status says {'on' if is_open else 'off'}",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("true", "printed '': neither on nor off"),
        ("echo offline", "printed 'offline'"),
        ("echo on off unknown", "'on off unknown'"),
        ("echo off.", "'off.'"),
        ("printf '\\033[2J\\377<html>\\n'", "neither on nor off"),
        ("echo off >&2", "printed ''"),
        ("echo off; exit 1", "ended with status 1: off"),
        ("echo off; echo 'BMC busy' >&2; exit 2", "ended with status 2: BMC busy"),
        ("echo off; kill -9 $$", "was killed by signal 9"),
        ("head -c 200000 /dev/zero | tr '\\0' ' '; echo off", "more than 64 KiB"),
        ("yes off", "more than 64 KiB"),
    ],
)
async def test_whatever_else_status_says_is_unknown(line: str, words: str) -> None:
    error = await error_of(port(line), timeout=SHORT if "64 KiB" in words else ANSWER)
    if isinstance(error, GateTimeout):
        assert "64 KiB" in words, "a command that nobody reads hangs at a full pipe"
    else:
        assert type(error) is GateRefused
        assert words in str(error)


async def test_a_status_that_hangs_is_unknown_and_its_group_is_killed(tmp_path: Path) -> None:
    made = port(f"echo $$ > {tmp_path}/pid; sleep 600 & echo $! > {tmp_path}/child; echo off; wait")
    assert type(await error_of(made, timeout=SHORT)) is GateTimeout
    await gone(tmp_path / "pid")
    await gone(tmp_path / "child")
    assert type(await error_of(made, timeout=SHORT)) is GateTimeout, "the one before is in nobody's way"


async def test_what_a_command_leaves_behind_does_not_stay(tmp_path: Path) -> None:
    assert (await port(f"sleep 600 & echo $! > {tmp_path}/child; echo off").read(ANSWER)).open is False
    await gone(tmp_path / "child")


async def test_one_that_leaves_its_group_and_keeps_the_pipe_delays_nobody(tmp_path: Path) -> None:
    made = port(
        f"setsid sh -c 'echo $$ > {tmp_path}/child; exec sleep 600' & "
        f"while ! test -s {tmp_path}/child; do :; done; echo on"
    )
    try:
        assert (await made.read(ANSWER)).open is True
    finally:
        os.kill(int((tmp_path / "child").read_text("ascii")), signal.SIGKILL)


async def test_an_off_that_lies_is_not_believed(tmp_path: Path) -> None:
    made = port(status="echo on", off="echo off")
    assert await made.set(step(StepKind.CLOSE), ANSWER, lambda: True)
    assert (await made.read(ANSWER)).open is True


async def test_steps_run_their_commands_and_status_shows_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    made = port(f"cat {state}", f"echo off > {state}", f"echo on > {state}")
    assert await made.set(step(StepKind.CLOSE), ANSWER, lambda: True)
    assert (await made.read(ANSWER)).open is False
    assert await made.set(step(StepKind.OPEN), ANSWER, lambda: True)
    assert (await made.read(ANSWER)).open is True
    await made.close()


async def test_nothing_is_run_when_still_valid_says_no(tmp_path: Path) -> None:
    made = port(off=f"touch {tmp_path}/ran", on=f"touch {tmp_path}/ran")
    for kind in StepKind:
        assert not await made.set(step(kind), ANSWER, lambda: False)
    assert not (tmp_path / "ran").exists()


async def test_failing_commands_an_on_may_have_worked_all_the_same() -> None:
    made = port(off="echo 'no such chassis' >&2; exit 5", on="exit 5")
    error = await error_of(made, StepKind.CLOSE)
    assert type(error) is GateRefused
    assert "ended with status 5: no such chassis" in str(error)
    assert type(await error_of(made, StepKind.OPEN)) is GateTimeout
    hangs = port(off="sleep 600", on="sleep 600")
    for kind in StepKind:
        assert type(await error_of(hangs, kind, SHORT)) is GateTimeout


async def test_without_a_command_for_on_it_is_switched_on_by_hand() -> None:
    error = await error_of(port(on=None), StepKind.OPEN)
    assert type(error) is GateRefused
    assert "switched on by hand" in str(error)


@pytest.mark.parametrize("path", ["/nonexistent/ipmitool", "/etc/passwd", "/"])
async def test_a_command_that_cannot_be_started_was_not_run(path: str) -> None:
    made = PowerPort("main", Power((path, "off"), (path, "-P", "sesame"), (path, "on")), RealHost())
    error = await error_of(made)
    assert type(error) is GateUnreachable
    assert path in str(error)
    assert "sesame" not in f"{error} {error.mend}"
    for kind in StepKind:
        assert type(await error_of(made, kind)) is GateUnreachable


async def test_commands_get_a_fixed_environment_no_input_and_no_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    monkeypatch.chdir(tmp_path)
    program = (
        "import os, sys; assert sys.argv[1:] == ['$(id)', '*'], sys.argv; assert sys.stdin.read() == ''; "
        "assert os.getcwd() == '/' and os.getsid(0) == os.getpid(); "
        "assert sorted(os.environ) == ['LANG', 'LC_ALL', 'PATH'], os.environ; "
        "assert sorted(map(int, os.listdir('/proc/self/fd')))[:3] == [0, 1, 2]; print('off')"
    )
    status = (sys.executable, "-S", "-c", program, "$(id)", "*")
    assert (await PowerPort("main", Power(status, status), RealHost()).read(ANSWER)).open is False


async def test_a_closed_port_kills_what_runs(tmp_path: Path) -> None:
    made = port(f"echo $$ > {tmp_path}/pid; sleep 600")
    host = RealHost()
    reading = asyncio.ensure_future(made.read(ANSWER))
    for _ in range(1000):
        if (tmp_path / "pid").exists():
            break
        await host.sleep(0.02)
    await made.close()
    with pytest.raises(GateRefused, match="killed by signal 9"):
        await reading


def runs(file: Path) -> bool:
    try:
        stat = Path(f"/proc/{int(file.read_text('ascii'))}/stat").read_text("ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def gone(file: Path) -> None:
    """Until the process whose number the file has is no more, or a zombie of somebody else's."""
    for _ in range(1000):
        if not runs(file):
            return
        await RealHost().sleep(0.02)
    pytest.fail(f"the process in {file} still runs")
