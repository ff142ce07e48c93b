"""The SQLite file and the folder around it: what is refused, and how; what is bounded (failover/store/)."""

from __future__ import annotations

import os
import random  # noqa: TID251 - seeded: which byte is overwritten
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest

from failover.errors import StoreError, StoreUnusable
from failover.model import (
    Answer,
    Assignment,
    Cause,
    Commit,
    Event,
    EventKind,
    Gate,
    Held,
    Instant,
    Phase,
    Request,
    RequestState,
    Taint,
    Verb,
)
from failover.store import database
from failover.store import folder as state_folder
from failover.store.sqlite import FILE, SqliteStore

T0 = Instant("boot-1", 1_000.0, 1_790_000_000.0)
PLAIN = Assignment(1, 1, Phase.STEADY, "main", None, Cause.ADOPTED, T0, "first start")


def connect(folder: Path, **options: object) -> SqliteStore:
    return SqliteStore(folder, **{"pool": "EXMPL", "boot": T0.boot, "clock": lambda: T0} | options)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def file(folder: Path) -> Path:
    """The file of a store that holds an assignment and 50 journal rows; nobody has it open."""
    store = connect(folder)
    assert store.acquire("one", T0, 60.0, 10.0) is not None
    events = tuple(Event(EventKind.DECISION, T0, f"reason {n} " + "x" * 200, n) for n in range(50))
    store.commit(Commit(1, PLAIN, 0, events, (), {"n": 1}, {"phase": "steady"}))
    store.close()
    return folder / FILE


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteStore]:
    made = connect(folder)
    assert made.acquire("one", T0, 60.0, 10.0) is not None
    yield made
    made.close()


# ---------------------------------------------------------------- the folder


def test_the_folder_and_its_files_are_for_their_owner_alone(folder: Path, store: SqliteStore) -> None:
    store.reserve()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {FILE, FILE + "-journal", "ballast"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


def test_folders_above_the_state_folder_are_made_too(tmp_path: Path) -> None:
    connect(tmp_path / "a" / "b" / "c").close()
    assert (tmp_path / "a" / "b" / "c" / FILE).is_file()


def test_a_file_in_the_folders_place_is_refused_by_name(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(StoreUnusable, match=f"{folder}: File exists") as refusal:
        connect(folder)
    assert refusal.value.mend


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "glusterfs", "9p", "afs", "lustre"]
)
def test_a_network_file_system_is_refused_before_anything_is_made(folder: Path, kind: str) -> None:
    mounts = f"22 1 0:21 / /proc rw - proc proc rw\n77 22 0:50 / {folder} rw shared:3 - {kind} host:/x rw\n"

    def told(_: Path) -> str | None:
        found = state_folder.file_system(mounts, "pos:\t0\nflags:\t0100000\nmnt_id:\t77\n")
        return found if found in state_folder.NETWORK else None

    with pytest.raises(StoreUnusable, match=rf"network file system \({kind}\)") as refusal:
        connect(folder, network_fs_check=told)
    assert "state:" in refusal.value.mend
    assert list(folder.iterdir()) == []


def test_the_file_system_is_the_one_that_is_mounted_there(tmp_path: Path) -> None:
    assert state_folder.network_file_system(tmp_path) is None
    assert state_folder.network_file_system(tmp_path / "absent") is None
    mounts = "9 1 8:1 / / rw - ext4 /dev/sda rw\n12 9 0:9 / /a rw - tmpfs none rw\n"
    assert state_folder.file_system(mounts, "mnt_id:\t12\n") == "tmpfs"
    assert state_folder.file_system(mounts, "mnt_id:\t13\n") is None
    assert state_folder.file_system(mounts, "pos:\t0\n") is None


def test_the_state_of_another_pool_is_refused(file: Path) -> None:
    with pytest.raises(StoreUnusable, match="belongs to pool 'EXMPL', not 'OTHER'"):
        connect(file.parent, pool="OTHER")
    with pytest.raises(StoreUnusable, match="belongs to pool 'EXMPL', not 'OTHER'"):
        SqliteStore.read(file.parent, "OTHER")


# ---------------------------------------------------------------- reading alone


def test_reading_shows_what_is_stored_and_makes_nothing(file: Path) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in file.parent.iterdir())
    reader = SqliteStore.read(file.parent, "EXMPL")
    assert reader.load().assignment == PLAIN
    assert reader.snapshot() == ({"phase": "steady"}, T0)
    assert len(reader.history()) == 50
    reader.close()
    assert sorted((p.name, p.stat().st_mtime_ns) for p in file.parent.iterdir()) == before


def test_where_there_is_no_state_reading_says_so_and_makes_nothing(folder: Path) -> None:
    with pytest.raises(StoreUnusable, match="no state yet"):
        SqliteStore.read(folder, "EXMPL")
    assert not folder.exists()


def test_a_store_for_reading_refuses_to_write(file: Path) -> None:
    reader = SqliteStore.read(file.parent, "EXMPL")
    request = Request("x", Verb.PAUSE, T0, T0, "alice")
    calls: tuple[Callable[[], object], ...] = (
        lambda: reader.commit(Commit(1, timers={})),
        lambda: reader.submit(request),
        lambda: reader.acquire("two", T0, 60.0, 10.0),
        lambda: reader.resign("one"),
        reader.reserve,
    )
    for call in calls:
        with pytest.raises(StoreUnusable, match="for reading only"):
            call()
    reader.close()
    assert not (file.parent / "ballast").exists()


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnusable, match="closed"):
        store.load()


# ---------------------------------------------------------------- damage


def refused(file: Path) -> StoreUnusable:
    with pytest.raises(StoreUnusable) as refusal:
        connect(file.parent)
    assert str(file) in str(refusal.value)
    return refusal.value


@pytest.mark.parametrize("length", [0, 1, 100, 511, 512, 4096, 10_000])
def test_a_truncated_file_is_refused_and_left_as_it_is(file: Path, length: int) -> None:
    os.truncate(file, length)
    error = refused(file)
    assert "damaged" in str(error)
    assert "failover adopt" in error.mend
    assert f"mv {file} " in error.mend
    assert file.stat().st_size == length


def test_a_file_that_is_something_else_is_refused(file: Path) -> None:
    file.write_bytes(os.urandom(8192))
    assert "damaged" in str(refused(file))


def test_another_programs_database_is_refused(file: Path) -> None:
    file.unlink()
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE t (x)")
    other.close()
    assert "not a store of this program" in str(refused(file))


def test_a_directory_in_the_files_place_is_refused(file: Path) -> None:
    file.unlink()
    file.mkdir()
    assert "not a file" in str(refused(file))


def test_overwritten_pages_are_refused(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:12288] = b"\xaa" * 8192
    file.write_bytes(content)
    assert "damaged" in str(refused(file))


def test_an_overwritten_byte_is_found_or_changes_nothing_that_decides(file: Path) -> None:
    whole = file.read_bytes()
    chance = random.Random(7)
    found = 0
    for _ in range(150):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        (file.parent / f"{FILE}-journal").unlink(missing_ok=True)
        try:
            store = connect(file.parent)
            try:
                stored = store.load()
                store.history()
            finally:
                store.close()
        except StoreUnusable:
            found += 1
        else:
            assert stored.assignment == PLAIN
            assert stored.lease is not None
            assert stored.timers == {"n": 1}
    assert found > 0


def test_a_letter_changed_in_the_assignment_is_found_by_its_checksum(file: Path) -> None:
    content = file.read_bytes()
    assert content.count(b'"active":"main"') == 1
    file.write_bytes(content.replace(b'"active":"main"', b'"active":"maim"'))
    with pytest.raises(StoreUnusable, match=r"damaged \(the assignment does not match its checksum\)"):
        connect(file.parent)


def test_after_a_damaged_file_was_moved_away_the_start_is_a_first_one(file: Path) -> None:
    journal, kept = file.with_name(FILE + "-journal"), file.with_name("kept")
    crashed = sqlite3.connect(file, isolation_level=None)
    crashed.execute("PRAGMA cache_size=1")  # so that changed pages, and the journal that undoes them, reach the disk
    crashed.execute("BEGIN")
    crashed.execute("UPDATE document SET body = body || ' '")
    crashed.execute("UPDATE journal SET body = body || body")
    shutil.copy(journal, kept)
    crashed.execute("ROLLBACK")
    crashed.close()
    assert kept.read_bytes()[:8] == bytes.fromhex("d9d505f920a163d7")  # SQLite would play it back
    kept.rename(journal)
    file.rename(file.with_name(FILE + ".damaged"))
    store = connect(file.parent)
    assert store.load().assignment is None
    store.close()


def test_a_start_that_was_cut_short_leaves_nothing_in_the_way(folder: Path) -> None:
    folder.mkdir()
    (folder / f"{FILE}.new").write_bytes(b"half a draft" * 1000)
    connect(folder).close()
    assert not (folder / f"{FILE}.new").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_moved_away_in_use_is_noticed_at_the_next_write(file: Path, replaced: bool) -> None:
    store = connect(file.parent)
    assert store.acquire("one", T0, 60.0, 10.0) is not None
    file.rename(file.with_name("elsewhere"))
    if replaced:
        shutil.copy(file.with_name("elsewhere"), file)
    with pytest.raises(StoreUnusable, match="moved or replaced while in use"):
        store.commit(Commit(1, timers={"n": 2}))
    store.close()


def test_a_commit_that_fails_halfway_is_undone_and_leaves_no_transaction_open(file: Path) -> None:
    raw = sqlite3.connect(file, isolation_level=None)
    raw.execute("CREATE TRIGGER mean BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'no'); END")
    store = connect(file.parent)
    commit = Commit(1, replace(PLAIN, revision=2), 1, (Event(EventKind.ALERT, T0, "last"),), (), {"n": 2}, {"n": 2})
    with pytest.raises(StoreUnusable):
        store.commit(commit)
    assert store.load().assignment == PLAIN
    assert store.load().timers == {"n": 1}
    raw.execute("DROP TRIGGER mean")  # would find the file locked if a transaction were open
    raw.close()
    store.commit(commit)
    assert store.load().timers == {"n": 2}
    store.close()


# ---------------------------------------------------------------- versions


def test_a_newer_schema_is_refused_and_kept(file: Path) -> None:
    raw = sqlite3.connect(file)
    raw.execute(f"PRAGMA user_version={len(database.MIGRATIONS) + 1}")
    raw.close()
    error = refused(file)
    assert "newer than this program's" in str(error)
    assert error.mend
    with pytest.raises(StoreUnusable, match="newer"):
        SqliteStore.read(file.parent, "EXMPL")


FIRST_SCHEMA = """
CREATE TABLE document (name TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE request (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
 words TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX request_state ON request (state, seq);
CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, utc REAL NOT NULL, kind TEXT NOT NULL, step TEXT,
 body TEXT NOT NULL);
CREATE INDEX journal_step ON journal (step, kind) WHERE step IS NOT NULL;
PRAGMA application_id=0x0FA1107E;
PRAGMA user_version=1;
"""
WHEN = '{"boot":"boot-1","mono":1000.0,"utc":1790000000.0}'
FIRST_ASSIGNMENT = (
    '{"revision":7,"generation":4,"phase":"fencing","active":"main","target":"backup","cause":"forced",'
    f'"since":{WHEN},"reason":"main is down","term":3,"requested_by":null,"forced_by_hand":false,'
    '"pinned":{"producer":"main","until":null,"reason":"k\\u00fcrzlich","by":"alice"},"cordoned":[],"paused":null,'
    '"released":false,"barred":[],"passed_over":[],"handed_back":[],'
    f'"tainted":[{{"gate":{{"proxy":"p","producer":"main"}},"since":{WHEN},"answered":null}}],'
    '"seen":["main","backup"],"failovers":[],"request":null}'
)


def first_store(folder: Path, assignment: str | None = FIRST_ASSIGNMENT) -> Path:
    """A state folder as the first schema's program left it."""
    folder.mkdir(mode=0o700)
    raw = sqlite3.connect(folder / FILE)
    raw.executescript(FIRST_SCHEMA)
    documents = {"pool": "EXMPL", "timers": '{"n":1}', "snapshot": '{"phase":"fencing"}', "snapshot at": WHEN}
    for name, body in (documents if assignment is None else documents | {"assignment": assignment}).items():
        raw.execute("INSERT INTO document VALUES (?, ?, ?)", (name, body, crc32(body.encode())))
    event = f'{{"kind":"decision","at":{WHEN},"reason":"r","generation":4,"producer":null,"detail":{{}}}}'
    raw.execute("INSERT INTO journal (utc, kind, body) VALUES (?, 'decision', ?)", (T0.utc, event))
    request = (
        f'{{"id":"ask","verb":"pin","at":{WHEN},"expires":{WHEN},"by":"alice","producer":"main","reason":"",'
        '"seconds":null,"force":false,"generation":null}'
    )
    raw.execute("INSERT INTO request (id, state, words, body) VALUES ('ask', 'pending', '', ?)", (request,))
    raw.commit()
    raw.close()
    (folder / FILE).chmod(0o600)
    return folder / FILE


def test_a_state_of_the_first_schema_keeps_everything_and_exposes_nobody(folder: Path) -> None:
    file = first_store(folder)
    for _ in range(2):  # the second time nothing is left to do
        store = connect(folder)
        stored = store.load()
        assert stored.assignment == Assignment(
            7,
            4,
            Phase.FENCING,
            "main",
            "backup",
            Cause.FORCED,
            T0,
            "main is down",
            term=3,
            pinned=Held("main", None, "kürzlich", "alice"),
            tainted=(Taint(Gate("p", "main"), T0),),
            seen=("main", "backup"),
            exposed=(),
        )
        assert stored.timers == {"n": 1}
        assert store.snapshot() == ({"phase": "fencing"}, T0)
        assert [entry.event.reason for entry in store.history()] == ["r"]
        assert [request.id for request in store.pending()] == ["ask"]
        store.close()
    raw = sqlite3.connect(file)
    assert raw.execute("PRAGMA user_version").fetchone() == (len(database.MIGRATIONS),)
    raw.close()


def test_a_state_of_the_first_schema_without_an_assignment_opens_too(folder: Path) -> None:
    first_store(folder, None)
    store = connect(folder)
    assert store.load().assignment is None
    store.close()


def test_a_damaged_assignment_of_the_first_schema_is_not_made_to_look_whole(folder: Path) -> None:
    file = first_store(folder)
    raw = sqlite3.connect(file)
    raw.execute("UPDATE document SET body = replace(body, 'backup', 'nobody') WHERE name = 'assignment'")
    raw.commit()
    raw.close()
    assert "the assignment does not match its checksum" in str(refused(file))


def test_an_older_schema_is_brought_up_by_the_daemon_and_not_by_a_reader(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, ("CREATE TABLE later (x)",)))
    with pytest.raises(StoreUnusable, match="older than this program's"):
        SqliteStore.read(file.parent, "EXMPL")
    store = connect(file.parent)
    assert store.load().assignment == PLAIN
    store.close()
    SqliteStore.read(file.parent, "EXMPL").close()


def test_a_migration_that_fails_leaves_the_older_file_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, ("CREATE TABLE later (x)", "no SQL")))
    with pytest.raises(StoreUnusable):
        connect(file.parent)
    monkeypatch.undo()
    store = connect(file.parent)
    assert store.load().assignment == PLAIN
    store.close()


# ---------------------------------------------------------------- bounds


def rows_after(folder: Path, keep: int, total: int, at: Instant) -> list[int]:
    store = connect(folder, journal_rows=keep)
    assert store.acquire("one", T0, 60.0, 10.0) is not None
    for number in range(total):
        store.commit(Commit(1, events=(Event(EventKind.DECISION, at, "", number),)))
    generations = [entry.event.generation for entry in store.history()]
    store.close()
    return generations


def test_old_journal_rows_go_beyond_the_bound(folder: Path) -> None:
    assert rows_after(folder, 20, 100, T0.after(-31 * 86_400)) == list(range(80, 100))


def test_journal_rows_of_the_last_thirty_days_are_kept_up_to_twice_the_bound(folder: Path) -> None:
    assert rows_after(folder, 20, 35, T0.after(-29 * 86_400)) == list(range(35))


def test_the_journal_never_exceeds_twice_the_bound(folder: Path) -> None:
    assert rows_after(folder, 20, 100, T0) == list(range(60, 100))


def test_ids_go_on_rising_after_rows_were_forgotten_and_the_store_was_opened_again(folder: Path) -> None:
    rows_after(folder, 5, 50, T0)
    store = connect(folder)
    assert store.acquire("one", T0, 60.0, 10.0) is not None
    store.commit(Commit(1, events=(Event(EventKind.DECISION, T0, "last"),)))
    assert store.history()[-1].id == 51
    store.close()


def test_a_locked_file_keeps_a_call_no_longer_than_the_busy_timeout(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    store = connect(file.parent)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for call in (store.load, store.changed, lambda: store.resign("one")):
        with pytest.raises(StoreUnusable, match="kept locked by another process"):
            call()
    other.execute("ROLLBACK")
    other.close()
    store.resign("one")
    store.close()


# ---------------------------------------------------------------- a full disk, by a limit on file sizes

LIMITED = """
import resource, sys
from pathlib import Path
from failover.errors import StoreFull
from failover.model import Assignment, Cause, Commit, Event, EventKind, Instant, Phase
from failover.store.sqlite import FILE, SqliteStore

T0 = Instant("boot-1", 1000.0, 1790000000.0)
folder = Path(sys.argv[1])
store = SqliteStore(folder, pool="EXMPL", boot=T0.boot, clock=lambda: T0)
store.acquire("one", T0, 60.0, 10.0)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / FILE).stat().st_size + 20000, hard))
try:
    store.reserve()
except StoreFull as error:
    print("reserve full", bool(error.mend))
print("ballast", (folder / "ballast").exists())
done = 0
try:
    for revision in range(1, 10000):
        value = Assignment(revision, 1, Phase.STEADY, "main", None, Cause.ADOPTED, T0, "")
        event = Event(EventKind.DECISION, T0, "x" * 500, revision)
        store.commit(Commit(1, value, revision - 1, (event,), (), {"n": revision}))
        done = revision
except StoreFull as error:
    print("commit full", bool(error.mend))
stored = store.load()
print("whole", stored.assignment.revision == done == stored.timers["n"] == store.history()[-1].event.generation)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.reserve()
store.commit(Commit(1, timers={"n": -1}))
print("again", store.load().timers["n"], (folder / "ballast").exists())
store.close()
"""


def test_a_write_that_meets_a_size_limit_is_a_full_store_and_nothing_is_half_written(folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "reserve full True",
        "ballast False",
        "commit full True",
        "whole True",
        "again -1 True",
    ]


def test_a_ballast_of_another_size_is_made_anew(folder: Path, store: SqliteStore) -> None:
    (folder / "ballast").write_bytes(b"cut short")
    store.reserve()
    assert (folder / "ballast").stat().st_size == state_folder.BALLAST_BYTES


def test_a_ballast_that_cannot_be_made_for_another_reason_is_not_called_full(folder: Path, store: SqliteStore) -> None:
    (folder / "ballast").mkdir()
    with pytest.raises(StoreUnusable, match="ballast"):
        store.reserve()
    (folder / "ballast").rmdir()


# ---------------------------------------------------------------- several at once


def test_a_cli_submits_while_the_daemon_commits_and_neither_errors(folder: Path, store: SqliteStore) -> None:
    errors: list[StoreError] = []

    def submit_many() -> None:
        try:
            for number in range(60):
                cli = connect(folder, check=False)
                cli.submit(Request(f"id-{number}", Verb.PAUSE, T0, T0, "alice"))
                cli.close()
        except StoreError as error:
            errors.append(error)

    cli = threading.Thread(target=submit_many)
    cli.start()
    revision = 0
    while cli.is_alive() or store.pending():
        answers = tuple(Answer(r.id, RequestState.DONE, "done") for r in store.pending())
        value = Assignment(revision + 1, 1, Phase.STEADY, "main", None, Cause.ADOPTED, T0, "")
        store.commit(Commit(1, value, revision, (), answers))
        revision += 1
    cli.join()
    assert errors == []
    assert all(store.answer(f"id-{n}") == Answer(f"id-{n}", RequestState.DONE, "done") for n in range(60))


def test_two_first_starts_at_once_make_one_store(folder: Path) -> None:
    stores: list[SqliteStore] = []
    gate = threading.Barrier(6)

    def start() -> None:
        gate.wait()
        stores.append(connect(folder))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = [store.acquire(f"holder {n}", T0, 60.0, 10.0) for n, store in enumerate(stores)]
    assert len(stores) == 6
    assert [lease.term for lease in got if lease is not None] == [1]
    for store in stores:
        store.close()


def test_a_store_opened_in_one_thread_is_used_in_another(store: SqliteStore) -> None:
    terms: list[int] = []
    thread = threading.Thread(target=lambda: terms.append(store.load().lease.term))  # type: ignore[union-attr]
    thread.start()
    thread.join()
    assert terms == [1]


def test_holder_and_boot_must_be_told(store: SqliteStore) -> None:
    for holder, now in (("", T0), ("one", Instant("boot-2", 1.0, 1.0))):
        with pytest.raises(ValueError, match="opened for boot 'boot-1'"):
            store.acquire(holder, now, 60.0, 10.0)
