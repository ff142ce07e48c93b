"""Commands at the wrong moment, a bad file on SIGHUP, Ctrl-C in the middle, a full disk: the daemon in front of it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time  # noqa: TID251 - these are real processes
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
import test_cli_daemon
from test_cli_daemon import WAIT, Pool

pool = test_cli_daemon.pool  # the fixture


class Filter:
    """A socket in front of HAProxy's own that reads pass; while ``held``, commands that change a server do not."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self.target = path, target
        self.held = False
        self.refused = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def end(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._ends):
            writer.transport.abort()
        await asyncio.sleep(0)  # noqa: TID251 - real peers, real time

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(self.target)
        self._ends |= {writer, outer}
        back = asyncio.create_task(_pass(inner, writer))
        try:
            while data := await reader.read(65536):
                if self.held and (b"set server" in data or b"shutdown sessions" in data):
                    self.refused += 1
                    break
                outer.write(data)
            else:
                outer.write_eof()
                await back
        except OSError:
            pass
        finally:
            back.cancel()
            self._ends -= {writer, outer}
            writer.transport.abort()
            outer.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
        writer.write_eof()
    except (OSError, RuntimeError):
        return


@pytest.fixture
def held(pool: Pool) -> Iterator[Filter]:
    """The filter, which holds; its pool has steps that may take long, so that a handover stays under way."""
    made = Filter(pool.folder / "filter.sock", pool.lab.socket)
    pool.call(made.start())
    text = pool.text.replace(str(pool.lab.socket), str(made.path))
    pool.file.write_text(
        text.replace("duration: 10s", "duration: 30s").replace("action_timeout: 1s", "action_timeout: 8s")
    )
    pool.adopted()
    made.held = True
    yield made
    made.held = False
    pool.end()
    pool.call(made.end())


def asking(pool: Pool, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "failover", "-c", str(pool.file), *words]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def phase(pool: Pool) -> str:
    return str(json.loads(pool.get("/status")[1])["phase"])


# ---------------------------------------------------------------- while another runs


def test_a_switchover_while_another_runs_is_refused_and_the_first_one_ends_well(pool: Pool, held: Filter) -> None:
    first = asking(pool, "switchover", "--to", "backup", "--yes", "--timeout", "60s")
    pool.until(lambda: phase(pool) == "fencing", "fencing")
    for to in ("backup", "main"):
        second = pool.run("switchover", "--to", to, "--yes")
        assert second.code == 1, second
        assert "a handover to backup is under way" in second.err
    dry = pool.run("switchover", "--to", "main", "--dry-run")
    assert (dry.code, "a handover to backup is under way" in dry.out) == (1, True)
    status = pool.run("status")
    assert (status.code, "Traceback" in status.err) == (1, False)
    held.held = False
    out, err = first.communicate(timeout=WAIT)
    assert first.returncode == 0, (out, err)
    assert pool.gates() == {"main": "closed", "backup": "open"}


def test_ctrl_c_while_a_switchover_is_waited_for_says_that_it_goes_on_and_it_does(pool: Pool, held: Filter) -> None:
    first = asking(pool, "switchover", "--to", "backup", "--yes", "--timeout", "60s")
    pool.until(lambda: phase(pool) == "fencing", "fencing")
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=WAIT)
    assert first.returncode == 130
    assert "what it began goes on" in err
    assert "Traceback" not in err
    held.held = False
    pool.until(lambda: pool.steady("backup"), "the handover ends")
    assert pool.gates() == {"main": "closed", "backup": "open"}


def test_a_switchover_that_takes_longer_than_one_waits_says_that_it_goes_on(pool: Pool, held: Filter) -> None:
    done = pool.run("switchover", "--to", "backup", "--yes", "--timeout", "2s")
    assert done.code == 1
    assert "not done within 2 s: the handover goes on" in done.err
    held.held = False
    pool.until(lambda: pool.steady("backup"), "the handover ends")


def test_ctrl_c_of_the_daemon_in_a_handover_ends_it_with_0_and_the_next_one_finishes(pool: Pool, held: Filter) -> None:
    assert pool.run("switchover", "--to", "backup", "--yes", "--no-wait").code == 0
    pool.until(lambda: phase(pool) == "fencing", "fencing")
    pool.until(lambda: held.refused > 0, "a step was tried")
    pool.daemons[-1].send_signal(signal.SIGINT)
    assert pool.daemons[-1].wait(WAIT) == 0
    assert pool.gates() == {"main": "open", "backup": "closed"}
    stale = pool.run("status", "--json")
    assert (stale.code, json.loads(stale.out)["phase"]) == (3, "fencing")
    held.held = False
    pool.daemon()
    pool.until(lambda: pool.steady("backup"), "finished")
    assert pool.gates() == {"main": "closed", "backup": "open"}


# ---------------------------------------------------------------- a switchover that cannot be


def test_a_switchover_to_an_unknown_the_same_or_a_cordoned_producer_moves_nothing(pool: Pool) -> None:
    pool.adopted()
    before = pool.status()["generation"]
    unknown = pool.run("switchover", "--to", "bakup", "--yes")
    assert unknown.code == 2
    assert "Did you mean 'backup'?" in unknown.err
    same = pool.run("switchover", "--to", "main", "--yes")
    assert (same.code, same.out.splitlines()[-1]) == (0, "main is the active producer already")
    assert pool.run("cordon", "backup").code == 0
    for words in ((), ("--dry-run",)):
        cordoned = pool.run("switchover", "--to", "backup", "--yes", *words)
        assert cordoned.code == 1
        assert "backup is cordoned" in cordoned.out + cordoned.err
    assert pool.status()["generation"] == before
    assert pool.gates() == {"main": "open", "backup": "closed"}


def test_without_yes_and_without_a_terminal_nothing_is_asked_for(pool: Pool) -> None:
    pool.adopted()
    revision = pool.status()["revision"]
    for words in (("switchover", "--to", "backup"), ("release",), ("adopt", "main")):
        done = pool.run(*words)
        assert done.code == 2, done
        assert "--yes" in done.err
    assert pool.status()["revision"] == revision
    assert pool.gates() == {"main": "open", "backup": "closed"}


def said(terminal: int, end: float) -> str:
    """What came from whoever is on the other side; nothing once nobody is left there."""
    assert time.monotonic() < end, "it went on for too long"
    with suppress(OSError):  # how a terminal says that nobody is left
        if select.select([terminal], [], [], 1.0)[0]:
            return os.read(terminal, 65536).decode(errors="replace")
    return ""


@pytest.mark.parametrize(("answer", "code", "active"), [("n\n", 1, "main"), ("y\n", 0, "backup")])
def test_at_a_terminal_a_switchover_asks_before_it_moves(pool: Pool, answer: str, code: int, active: str) -> None:
    pool.adopted()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "failover", "-c", str(pool.file), "switchover", "--to", "backup"]
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown, end = "", time.monotonic() + WAIT
    while "Move the role to backup?" not in shown:
        shown += said(ours, end)
    os.write(ours, answer.encode())
    while child.poll() is None:
        shown += said(ours, end)
    assert child.wait(WAIT) == code, shown
    os.close(ours)
    pool.until(lambda: pool.steady(active), active)


# ---------------------------------------------------------------- the file on SIGHUP


def test_no_bad_file_on_sighup_is_taken_over_and_the_old_one_stays_in_force(pool: Pool) -> None:
    child = pool.adopted()
    gone = f'  - {{name: main, address: "{pool.main.address}"}}\n'
    third = '  - {name: third, address: "127.0.0.9:9"}\n'
    assert gone in pool.text
    bad = {
        "is not YAML": "pool: [\n",
        "an anchor (&)": "pool: &a TEST\n",
        "written twice": pool.text + "pool: TEST\n",
        "shorter than interval x fall": pool.text.replace("fail_over_after: 3s", "fail_over_after: 100ms"),
        "'main' is active, and the new file removes it": pool.text.replace(gone, third),
        "'main' is active, and the new file moves it": pool.text.replace(str(pool.main.address), "127.0.0.9:9"),
        "needs a restart": pool.text.replace("pool: TEST", "pool: OTHER"),
        "there is no such file": None,
    }

    def refusals() -> list[str]:
        return [row["reason"] for row in pool.log() if "the old one stays in force" in row["reason"]]

    for count, (words, text) in enumerate(bad.items(), 1):
        if text is None:
            pool.file.unlink()
        else:
            pool.file.write_text(text)
        child.send_signal(signal.SIGHUP)
        pool.until(lambda count=count: len(refusals()) == count, words)  # type: ignore[misc]
        assert words in refusals()[-1]
    assert child.poll() is None
    pool.file.write_text(pool.text)
    assert pool.steady("main")
    assert pool.gates() == {"main": "open", "backup": "closed"}
    rows = [json.loads(line) for line in pool.run("history", "--json", "--limit", "500").out.splitlines()]
    assert sum("the old one stays in force" in row["reason"] for row in rows) == len(bad)
    assert pool.run("switchover", "--to", "backup", "--yes").code == 0


# ---------------------------------------------------------------- Ctrl-C in the middle of a wait


def test_ctrl_c_ends_history_follow_quietly_after_it_showed_what_came(pool: Pool) -> None:
    pool.adopted()
    child = asking(pool, "history", "--follow", "--json")
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["event"]
    assert pool.run("pause", "--reason", "seen by the follower").code == 0
    line = child.stdout.readline()
    while "seen by the follower" not in line:
        assert line
        line = child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=WAIT)
    assert (child.returncode, err) == (130, "")


def test_status_watch_keeps_the_picture_on_a_terminal_until_ctrl_c(pool: Pool) -> None:
    pool.adopted()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "failover", "-c", str(pool.file), "status", "--watch"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment
    )
    os.close(theirs)
    shown, end = "", time.monotonic() + WAIT
    while "main is active" not in shown:
        shown += said(ours, end)
    child.send_signal(signal.SIGINT)
    while child.poll() is None:
        shown += said(ours, end)
    assert child.wait(WAIT) in (0, 130)
    os.close(ours)
    assert "Traceback" not in shown


# ---------------------------------------------------------------- a full disk


def required(program: str, reason: str) -> None:
    """Skip with the reason; fail where FAILOVER_REQUIRE asks for it."""
    if {program, "all"} & set(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split()):
        pytest.fail(f"FAILOVER_REQUIRE asks for {program}: {reason}")
    pytest.skip(reason)


@pytest.fixture
def small_disk(pool: Pool) -> Iterator[Path]:
    """A file system of 4 MiB for the state folder."""
    if os.geteuid() != 0:
        required("root", "only root can mount a small file system")
    disk = pool.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "none", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        required("root", "no file system can be mounted here")
    yield disk
    pool.end()
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def patience_is_over(pool: Pool) -> bool:
    """Whether main has been down for longer than fail_over_after, 3 s, by what the daemon itself says."""
    document = json.loads(pool.get("/status")[1])
    since = datetime.fromisoformat(document["producers"][0]["since"])
    return bool((datetime.fromisoformat(document["daemon"]["last_tick"]) - since).total_seconds() > 5)


def test_on_a_full_disk_no_handover_starts_it_says_so_and_goes_on_when_there_is_room(
    pool: Pool, small_disk: Path
) -> None:
    pool.file.write_text(pool.text.replace(f"state: {pool.folder}/state", f"state: {small_disk}/state"))
    child = pool.adopted()
    filler = small_disk / "filler"

    def fill() -> bool:
        (small_disk / "state" / "ballast").unlink(missing_ok=True)  # what it keeps for a handover that has begun
        with filler.open("ab", buffering=0) as handle:
            try:
                while handle.write(bytes(4096)):
                    pass
            except OSError:
                pass
        return bool(json.loads(pool.get("/status")[1])["store_error"])

    pool.until(fill, "the full disk is noticed")
    assert "room" in json.loads(pool.get("/status")[1])["store_error"]
    pool.call(pool.main.end())
    pool.until(lambda: json.loads(pool.get("/status")[1])["producers"][0]["health"] == "down", "main is down")
    pool.until(lambda: any("room" in row["reason"] for row in pool.log() if row["event"] == "alert"), "it says so")
    pool.until(lambda: patience_is_over(pool), "patience is over")
    assert phase(pool) == "steady"
    assert pool.gates() == {"main": "open", "backup": "closed"}
    assert pool.run("status").code == 1
    assert pool.run("switchover", "--to", "backup", "--yes", "--timeout", "2s").code == 1
    assert pool.gates() == {"main": "open", "backup": "closed"}
    filler.unlink()
    pool.until(lambda: pool.steady("backup"), "it goes on by itself")
    assert pool.gates() == {"main": "closed", "backup": "open"}
    assert child.poll() is None
