"""A state folder that cannot be used, through the commands: status 1, why and how to mend, and nothing changed."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from failover.cli import main
from failover.model import Instant
from failover.store import folder as state_folder
from failover.store.sqlite import SqliteStore

FILE = """\
pool: EXMPL
network: mainnet
state: FOLDER/state
listen: "127.0.0.1:1"
producers:
  - {name: main, address: "127.0.0.1:2"}
  - {name: backup, address: "127.0.0.1:3"}
proxies:
  - {name: p1, socket: FOLDER/admin.sock, backend: producers}
"""
DAEMON = (("run",), ("run", "--once"))
READERS = (("history",), ("status",))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "failover.yaml"
    path.write_text(FILE.replace("FOLDER", str(tmp_path)))
    return path


def store(folder: Path, pool: str = "EXMPL") -> Path:
    """A state folder with a store of this version; the path of its database."""
    made = SqliteStore(folder, pool=pool, boot="b", clock=lambda: Instant("b", 0.0, 0.0))
    made.close()
    return next(path for path in folder.iterdir() if path.read_bytes()[:15] == b"SQLite format 3")


def run(file: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["-c", str(file), *words], prog_name="failover")


def refused(file: Path, *words: str) -> str:
    """What it said when it was refused with status 1: the last two lines, what is wrong and the mend."""
    done = run(file, *words)
    assert done.exit_code == 1, (words, done.output)
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # beside the log of a daemon
    assert told[-2].startswith("error: ")
    assert told[-1].startswith("  ")
    assert len(told[-1]) > 10
    return "\n".join(told)


def overwrite(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.seek(4096)
        handle.write(b"\xa5" * 4096)


def truncate(path: Path) -> None:
    os.truncate(path, 1000)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def replace(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to be one\n" * 100)


def newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()


@pytest.mark.parametrize("words", DAEMON + READERS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncate, "damaged"),
        (empty, "damaged"),
        (replace, "damaged"),
        (newer, "schema 99, newer than this program's"),
    ],
)
def test_a_database_that_cannot_be_trusted_is_refused_and_left_as_it_is(
    file: Path, words: tuple[str, ...], spoil: Callable[[Path], None], said: str
) -> None:
    database = store(file.parent / "state")
    spoil(database)
    before = database.read_bytes()
    assert said in refused(file, *words)
    assert database.read_bytes() == before


def test_pages_that_were_overwritten_are_found_when_the_daemon_starts(file: Path) -> None:
    database = store(file.parent / "state")
    overwrite(database)
    before = database.read_bytes()
    for words in DAEMON:
        assert "damaged" in refused(file, *words)
    assert database.read_bytes() == before


@pytest.mark.parametrize("spoil", [truncate, replace, newer])
def test_check_finds_a_database_that_cannot_be_trusted_and_says_what_to_do(
    file: Path, spoil: Callable[[Path], None]
) -> None:
    database = store(file.parent / "state")
    spoil(database)
    before = database.read_bytes()
    done = run(file, "check", "--offline", "--json")
    found = [f for f in json.loads(done.stdout)["findings"] if f["part"] == "state"]
    assert done.exit_code == 1
    assert [f["severity"] for f in found] == ["error"]
    assert found[0]["mend"]
    assert database.read_bytes() == before


def test_after_the_mend_of_a_damaged_database_the_next_command_goes_well(file: Path) -> None:
    database = store(file.parent / "state")
    truncate(database)
    said = refused(file, "history")
    mend = said.partition("(mv ")[2].partition(")")[0].split()
    subprocess.run(["mv", *mend], check=True)
    assert "no state yet" in refused(file, "history")


@pytest.mark.parametrize("words", DAEMON + READERS)
def test_the_state_of_another_pool_is_refused_by_name(file: Path, words: tuple[str, ...]) -> None:
    database = store(file.parent / "state", pool="OTHER")
    before = database.read_bytes()
    assert "OTHER" in refused(file, *words)
    assert database.read_bytes() == before


@pytest.mark.parametrize("words", DAEMON)
def test_a_folder_on_a_network_file_system_is_refused_and_nothing_is_made(
    file: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / "state").mkdir(mode=0o700)
    monkeypatch.setattr(state_folder, "file_system", lambda mounts, info: "nfs4")
    said = refused(file, *words)
    assert "nfs4" in said
    assert "network file system" in said
    assert list((file.parent / "state").iterdir()) == []
    found = json.loads(run(file, "check", "--offline", "--json").stdout)["findings"]
    assert any(f["part"] == "state" and f["severity"] == "error" and "nfs4" in f["what"] for f in found)


@pytest.mark.parametrize("words", DAEMON)
def test_a_disk_without_room_at_the_first_start_is_said_and_leaves_no_half_made_store(
    file: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        required("root", "only root can mount a small file system")
    folder = file.parent / "state"
    folder.mkdir(mode=0o700)
    tried = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "none", str(folder)], check=False)
    if tried.returncode != 0:
        required("root", "no file system can be mounted here")
    try:
        (folder / "filler").write_bytes(bytes(60 * 1024))
        said = refused(file, *words)
        assert "no room" in said
        assert "make room" in said
        assert "no state yet" in refused(file, "history")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def required(program: str, reason: str) -> None:
    """Skip with the reason; fail where FAILOVER_REQUIRE asks for it."""
    if {program, "all"} & set(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split()):
        pytest.fail(f"FAILOVER_REQUIRE asks for {program}: {reason}")
    pytest.skip(reason)


AS_NOBODY = """
import os, sys
sys.path[:0] = sys.argv[2:]
import difflib, getpass, tempfile, uuid, encodings.ascii
import failover.cli.check, failover.cli.history, failover.cli.inspection, failover.cli.run, failover.cli.status
from pathlib import Path
from failover import config
from failover.cli import main

if os.geteuid() == 0:
    config.load(Path(sys.argv[1]))  # what it loads while it runs is not for everybody's eyes everywhere
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for words in (["run"], ["check", "--offline"]):
    sys.stdout.flush()
    try:
        main(["-c", sys.argv[1], *words], prog_name="failover")
    except SystemExit as end:
        print("status", end.code)
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize("kind", ["another's folder", "a folder that cannot be made"])
def test_a_folder_that_is_not_writable_is_refused_with_the_command_that_mends_it(open_place: Path, kind: str) -> None:
    file, folder = open_place / "failover.yaml", open_place / "state"
    file.write_text(FILE.replace("FOLDER", str(open_place)))
    file.chmod(0o644)
    if kind == "another's folder":
        folder.mkdir()
        folder.chmod(0o755 if os.geteuid() == 0 else 0o555)
    elif os.geteuid() != 0:
        open_place.chmod(0o555)
    words = [sys.executable, "-c", AS_NOBODY, str(file), *sys.path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    open_place.chmod(0o755)
    assert done.stdout.splitlines().count("status 1") == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "not writable" in done.stdout
    assert str(folder) in done.stderr
    assert "chown" in done.stderr or "own" in done.stderr
    assert not folder.exists() or list(folder.iterdir()) == []
