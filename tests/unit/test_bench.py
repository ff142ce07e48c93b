"""Every bench runs in its quick mode and yields figures; nothing is asserted about how fast anything is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time  # noqa: TID251  a real program is waited for
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench import hosts, named
from bench.figure import Aim, Figure, interleaved, table
from bench.run import BENCHES
from failover.lab.haproxy import installed

RUN = Path(__file__).parents[2] / "bench" / "run.py"
LONGEST = 60.0  # seconds, an upper bound for what takes a few
FIGURES = {
    "pings": {"pings", "pings, bare sockets", "sessions"},
    "ticks": {"ticks", "ticks, sqlite", "middle, 1 pool", "middle, 10 pools"},
    "startup": {"help", "ping command", "run, imports", "run, Route 53", "run, RFC 2136"},
    "handover": {"handover"},
    "repair": {"repair, worst", "repair, median"},
    "agents": {
        "agent, confirmed",
        "agent, ours",
        "agent, signal",
        "handover, hosts",
        "agent, status",
        "agent, status, relay",
        "agent, start",
        "agent, memory",
    },
    "route53": {"route53, accepted", "route53, INSYNC", "route53, servers", "route53, calls", "route53, changes"},
    "rfc2136": {"rfc2136, nsupdate", "rfc2136, bare"},
    "simulation": {"simulation, quiet", "simulation, ticks", "simulation, faults", "simulation, handovers"},
    "daemon": {"memory", "memory, Route 53", "memory, RFC 2136", "cpu"},
}
WITH_HAPROXY = {"handover", "repair", "agents", "daemon"}
WITH_BIND = {"rfc2136", "daemon"}
WITH_SSHD = {"agents"}
NOTHING = {"route53, changes", "simulation, handovers"}  # what is aimed at, or what little time may bring


def command(name: str) -> list[str]:
    if name in WITH_HAPROXY and (missing := installed()) is not None:
        pytest.skip(missing)
    if name in WITH_BIND and (missing := named.installed()) is not None:
        pytest.skip(missing)
    if name in WITH_SSHD and (missing := hosts.installed()) is not None:
        pytest.skip(missing)
    return [sys.executable, str(RUN), "--quick", "--json", "--only", name]


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_runs_in_quick_mode_and_yields_its_figures(name: str) -> None:
    done = subprocess.run(command(name), capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {figure["name"] for figure in document["figures"]} == FIGURES[name]
    assert {figure["name"] for figure in document["figures"] if not figure["measured"] > 0} <= NOTHING
    assert document["not_measured"] == {}
    assert f"{name}: " in done.stderr, "progress is told"


def mentioning(words: bytes) -> list[int]:
    """The processes that have ``words`` in their command line or in what they inherited as TMPDIR."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and words in told:
            found.append(int(entry.name))
    return found


def waited(true: Callable[[], bool]) -> bool:
    for _ in range(int(LONGEST / 0.05)):
        if true():
            return True
        time.sleep(0.05)
    return true()


def test_ctrl_c_ends_every_process_that_the_bench_started() -> None:
    with TemporaryDirectory(prefix="fob-") as folder:  # pytest's own are too long for HAProxy's sockets
        started = subprocess.Popen(
            command("handover"), env={**os.environ, "TMPDIR": folder}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            # the last one to be started: by then nodes, relays and proxies run
            assert waited(lambda: any("ready" in log.read_text() for log in Path(folder).glob("*/redialer.log")))
            assert len(mentioning(folder.encode())) > 8
            started.send_signal(signal.SIGINT)
            _, told = started.communicate(timeout=LONGEST)
        finally:
            started.kill()
            started.wait()
        assert (started.returncode, told.splitlines()[-1]) == (130, b"interrupted")
        assert mentioning(folder.encode()) == []
        assert list(Path(folder).iterdir()) == []


def test_what_is_compared_is_run_in_turn() -> None:
    ran: list[str] = []

    def run(name: str, value: float) -> Callable[[], float]:
        def ran_once() -> float:
            ran.append(name)
            return value

        return ran_once

    assert interleaved(3, run("ours", 2.0), run("bare", 1.0)) == [[2.0] * 3, [1.0] * 3]
    assert ran == ["ours", "bare", "bare", "ours", "ours", "bare"]


@pytest.mark.parametrize(
    ("measured", "aim", "verdict"),
    [
        (9.0, Aim(0.8, at_least=True), "met"),
        (7.0, Aim(0.8, at_least=True), "missed"),
        (7.0, Aim(0.8), "met"),
        (9.0, Aim(8.0, of="measured"), "missed"),
        (9.0, None, ""),
    ],
)
def test_the_table_tells_the_ratio_and_whether_the_aim_is_met(measured: float, aim: Aim | None, verdict: str) -> None:
    figure = Figure("speed", measured, "/s", 10.0, "something bare", aim)
    row = table([figure]).splitlines()[2]
    assert figure.verdict == verdict
    assert f"{measured / 10:.2f}" in row
    assert row.endswith(verdict)
