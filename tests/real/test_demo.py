"""The demo on real processes, whole and with short stories: what it says, its exit status, what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from haproxy_world import require_haproxy

from failover.cli import main
from failover.lab import play
from failover.lab.acts import Play
from failover.lab.pool import RECORD
from failover.lab.story import SYSTEM, Stage

WAIT = 60.0  # seconds, an upper bound for what takes a moment


@pytest.fixture(autouse=True)
def _haproxy() -> None:
    require_haproxy()


@pytest.fixture
def place() -> Iterator[Path]:
    """Where temporary folders go: pytest's own are too long for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="demo-", dir="/tmp") as folder:
        yield Path(folder)


async def short(stage: Stage) -> None:
    """As steady, but for the seconds in which nothing moves."""
    stage.daemon.start()
    stage.need(await stage.until(lambda: stage.all_with("main"), 5.0), "main serves", SYSTEM)


async def wrong(stage: Stage) -> None:
    """Claims what is not so."""
    stage.claim(stage.all_with("backup"), "backup serves", SYSTEM, "it does not")


async def both(stage: Stage) -> None:
    """Lets two producers in, and does not say that it was on purpose."""
    await stage.daemon.kill()
    for words in ("set server producers/main state maint", "shutdown sessions server producers/main"):
        await stage.lab.proxies["proxy-2"].process.ask(words)
    await stage.lab.open_by_hand("proxy-2", "backup")
    reached = await stage.until(lambda: "backup" in stage.lab.reached().values(), 5.0)
    await stage.wait(1.0)
    stage.claim(reached, "a relay is with backup", SYSTEM)


async def empty(stage: Stage) -> None:
    """Takes the name away for a moment, and does not claim otherwise."""
    await stage.lab.tell("route53", "remove", RECORD)
    gone = await stage.until(lambda: bool(stage.names.wrong()), 5.0)
    stage.claim(gone, "a server says that there is no such name", SYSTEM)


def played(monkeypatch: pytest.MonkeyPatch, acts: list[Play], *words: str, names: list[Play] | None = None) -> Result:
    """The demo with these scenes: of the story with proxies, or, where ``names`` are given, of both."""
    scenes = {"proxies": acts, "names": acts if names is None else names}
    short = [replace(story, scenes=tuple((act.__name__, act) for act in scenes[story.name])) for story in play.STORIES]
    monkeypatch.setattr(play, "STORIES", tuple(short))
    which = ["--story", "proxies"] if names is None and "--story" not in words else []
    return CliRunner().invoke(main, ["demo", *which, *words])


def test_all_that_both_stories_claim_holds(place: Path) -> None:
    result = CliRunner().invoke(main, ["demo", "--json", "--folder", str(place / "demo")])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [story["name"] for story in document["stories"]] == ["proxies", "names"]
    assert [len(story["scenes"]) for story in document["stories"]] == [10, 8]
    with_proxies, names = document["stories"]
    assert (with_proxies["overlaps"], names["connected"]["overlaps"] > 0) == (0, True)
    for story in document["stories"]:
        assert (story["answers"]["wrong"], story["answers"]["count"] > 100) == ([], True)


def test_a_true_story_exits_zero_and_removes_its_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    result = played(monkeypatch, [short], "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (story,) = document["stories"]
    assert (document["ok"], story["overlaps"], story["not_played"]) == (True, 0, [])
    assert [claim["text"] for claim in story["scenes"][0]["claims"]] == ["main serves"]
    assert "Times are shortened (--scale 20)" in result.stderr
    assert list(place.iterdir()) == []


def test_the_story_without_a_proxy_is_played_without_haproxy(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    result = played(monkeypatch, [short], "--story", "names")
    assert result.exit_code == 0, result.output
    assert "The story: no proxy, a DNS record alone" in result.stdout
    assert "All 1 scenes went as told" in result.stdout
    assert list(place.iterdir()) == []


def test_a_story_that_is_false_does_not_keep_the_other_one_from_being_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = played(monkeypatch, [short, wrong], "--folder", str(tmp_path / "demo"), names=[short])
    assert result.exit_code == 1
    assert "Story 2 of 2: no proxy, a DNS record alone" in result.stdout
    assert result.stdout.count("   ok     main serves [system]") == 2
    assert "FALSE: proxies: scene 2. " in result.stdout
    assert f"the controller's log is {tmp_path / 'demo' / 'proxies' / 'controller.log'}" in result.stderr
    assert "names" not in result.stderr


def test_a_name_without_an_address_exits_non_zero_though_every_claim_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = played(monkeypatch, [empty], "--story", "names", "--folder", str(tmp_path / "demo"))
    assert result.exit_code == 1
    assert "FALSE: names: an answer without exactly one address." in result.stdout
    assert "said no address (NXDOMAIN)" in result.stdout


def test_a_wrong_claim_exits_non_zero_keeps_the_folder_and_shows_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = played(monkeypatch, [short, wrong], "--folder", str(tmp_path / "demo"))
    assert result.exit_code == 1
    assert "   FALSE  backup serves: it does not [system]" in result.stdout
    assert "FALSE: proxies: scene 2." in result.stdout
    assert f"Logs and state are left in {tmp_path / 'demo'}" in result.stdout
    assert "this controller decides" in result.stderr
    assert (tmp_path / "demo" / "proxies" / "controller.log").exists()


def test_two_producers_at_once_exit_non_zero_though_every_claim_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = played(monkeypatch, [short, both], "--folder", str(tmp_path / "demo"))
    assert result.exit_code == 1
    assert "FALSE: proxies: two producers at once." in result.stdout
    assert "main in proxy-1 and backup in proxy-2" in " ".join(result.stdout.split())


def test_a_scene_that_fails_ends_the_story_and_the_rest_is_told_as_not_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(stage: Stage) -> None:
        await stage.lab.tell("main", "dance")

    result = played(monkeypatch, [short, broken, wrong], "--folder", str(tmp_path / "demo"))
    assert result.exit_code == 1
    assert "main knows no command 'dance'" in " ".join(result.stdout.split())
    assert "FALSE: proxies: scene 2; 1 not played." in result.stdout


def test_ctrl_c_ends_every_process_and_exits_130(place: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(place)}
    command = [sys.executable, "-m", "failover", "demo"]
    demo = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "The controller starts" in line:
                break
        demo.send_signal(signal.SIGINT)
        rest = demo.communicate(timeout=WAIT)[0]
    finally:
        demo.kill()
        demo.wait(WAIT)
    assert (demo.returncode, "Interrupted: every process is ended." in rest) == (130, True)
    assert list(place.iterdir()) == []
    commands = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    assert [entry.name for entry in commands if bytes(place) in _command(entry)] == []


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
