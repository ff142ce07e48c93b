"""One SQLite file, opened safely or not at all: creation, checks, transactions, and what its errors mean.

Why these settings:
- ``synchronous=FULL`` with a rollback journal: a commit that returned survives a power cut.
- ``journal_mode=PERSIST``, not WAL: no shared memory file, so nothing that some file systems lack and no write
  access for a reader; not DELETE either, where the journal's end is a deletion that FULL does not sync (a power cut
  could bring it back and undo the commit); and the journal keeps its room on the disk from one commit to the next.
- ``BEGIN EXCLUSIVE``: all waiting is done before the first change; a commit never finds the file busy.

The price is that a reader and a writer exclude each other for the milliseconds that each takes.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any, TypeVar
from urllib.parse import quote
from zlib import crc32

from failover.errors import StoreError, StoreFull, StoreUnusable
from failover.store import codec
from failover.store import folder as state_folder

R = TypeVar("R")

BUSY_SECONDS = 2.0
POLL_SECONDS = 0.002  # SQLite's own waiting polls every 100 ms after a while, and starves behind a busy writer
APPLICATION_ID = 0x0FA1107E  # tells this program's file from any other SQLite database
JOURNAL_BYTES = 1 << 20  # the room that the rollback journal keeps at most
SMALLEST = 512  # bytes; no SQLite database is smaller


def _with_exposed(connection: sqlite3.Connection) -> None:
    """Give the stored assignment ``exposed``."""
    _rewrite(connection, lambda stored: {**stored, "exposed": []})


def _with_places(connection: sqlite3.Connection) -> None:
    """A gate's ``proxy`` is its ``place``: there are gates that are on no proxy."""

    def renamed(holder: dict[str, Any]) -> dict[str, Any]:
        gate = dict(holder["gate"])
        return {**holder, "gate": {"place": gate.pop("proxy"), **gate}}

    def rewritten(stored: dict[str, Any]) -> dict[str, Any]:
        return {**stored, **{key: [renamed(each) for each in stored[key]] for key in ("tainted", "passed_over")}}

    _rewrite(connection, rewritten)


def _rewrite(connection: sqlite3.Connection, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the stored assignment. One that does not match its checksum stays as it is: reading it names it."""
    for body, crc in connection.execute("SELECT body, crc FROM document WHERE name = 'assignment'").fetchall():
        if isinstance(body, str) and crc32(body.encode()) == crc:
            grown = codec.dumps(change(codec.loads_plain(body)))
            connection.execute(
                "UPDATE document SET body = ?, crc = ? WHERE name = 'assignment'", (grown, crc32(grown.encode()))
            )


# Element n brings a file from version n to n + 1, by statements and functions, in one transaction. The codec is part
# of the schema: see codec.py.
MIGRATIONS: tuple[tuple[str | Callable[[sqlite3.Connection], None], ...], ...] = (
    (
        "CREATE TABLE document (name TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE request (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
        " state TEXT NOT NULL, words TEXT NOT NULL, body TEXT NOT NULL)",
        "CREATE INDEX request_state ON request (state, seq)",
        "CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, utc REAL NOT NULL,"
        " kind TEXT NOT NULL, step TEXT, body TEXT NOT NULL)",
        "CREATE INDEX journal_step ON journal (step, kind) WHERE step IS NOT NULL",
    ),
    (_with_exposed,),
    (_with_places,),
)


class Database:
    """A connection that is made on first need and remade after it broke. Calls must not overlap.

    Each transaction waits at most ``BUSY_SECONDS`` for other processes.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    def must_write(self) -> None:
        """Raise StoreUnusable when this database was opened for reading only."""
        if self._read_only:
            raise StoreUnusable(f"{self.path}: opened for reading only", "open the store for writing")

    def read(self, sql: str, arguments: Sequence[object] = ()) -> list[Any]:
        """The rows of one SELECT or PRAGMA, which sees one state. Raises StoreUnusable."""
        try:
            return _patiently(lambda: self._connect().execute(sql, arguments).fetchall())
        except sqlite3.Error as error:
            raise self._meaning(error) from error

    def write(self, work: Callable[[sqlite3.Connection], R], *, spend_ballast: bool = True) -> R:
        """Run ``work`` in one transaction: all of it is durable on return, or none of it happened.

        When the disk is full the folder's ballast is given up and the work is done once more.
        Raises StoreFull, StoreUnusable; after an I/O error only a new reading tells what is stored.
        """
        self.must_write()
        try:
            return self._transaction(work)
        except sqlite3.Error as error:
            if not (spend_ballast and _maybe_full(error) and state_folder.drop_ballast(self.path.parent)):
                raise self._meaning(error) from error
        try:
            return self._transaction(work)
        except sqlite3.Error as error:
            raise self._meaning(error) from error

    def close(self) -> None:
        """Let go of the file; later calls raise StoreUnusable."""
        self._closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def damaged(self, what: str) -> StoreUnusable:
        """The error that says that this file cannot be trusted, and what to do."""
        return StoreUnusable(
            f"{self.path}: damaged ({what})",
            f"stop the daemon and move it away (mv {self.path} {self.path}.damaged); then start the daemon, "
            "and name the active producer with `failover adopt NAME` if it cannot tell by itself",
        )

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnusable(f"{self.path}: closed", "open the store again")
        if self._connection is None:
            connection = sqlite3.connect(
                f"file:{quote(str(self.path.absolute()))}?mode=rw",  # rw, also for readers: rolls back after a kill
                uri=True,
                timeout=0.0,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._configure(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        for pragma in (
            "synchronous=FULL",
            "journal_mode=PERSIST",
            f"journal_size_limit={JOURNAL_BYTES}",
            "cell_size_check=ON",
            "trusted_schema=OFF",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def _transaction(self, work: Callable[[sqlite3.Connection], R]) -> R:
        connection = _patiently(self._connect)
        try:
            _patiently(lambda: connection.execute("BEGIN EXCLUSIVE"))
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise
        return result

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._disconnect()  # the file's own journal undoes it at the next opening

    def _meaning(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        if name == "SQLITE_FULL":
            return StoreFull(f"{self.path}: no room; nothing was written", state_folder.MAKE_ROOM)
        if _busy(error):
            return StoreUnusable(
                f"{self.path}: kept locked by another process for {BUSY_SECONDS:g} s",
                f"see who has it open (fuser -v {self.path}); the daemon tries again by itself",
            )
        if name == "SQLITE_READONLY_DBMOVED":
            return self._moved()
        if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN", "SQLITE_AUTH")):
            return StoreUnusable(
                f"{self.path}: cannot be {'read' if self._read_only else 'written'} ({error})",
                "do this as the daemon's user, and let that user own the state folder",
            )
        if name.startswith("SQLITE_IOERR"):
            return self._io_error(name)
        return self.damaged(str(error))

    def _moved(self) -> StoreUnusable:
        return StoreUnusable(f"{self.path}: moved or replaced while in use", "restart the daemon")

    def _io_error(self, name: str) -> StoreError:
        if not self.path.exists():
            return self._moved()
        # A quota or a size limit shows as a write error, too; whether the ballast fits tells it from a failing disk.
        try:
            if "READ" not in name:
                state_folder.keep_ballast(self.path.parent)
        except StoreError as error:
            return error
        return StoreUnusable(f"{self.path}: read or write error ({name})", "look for disk errors (dmesg)")


def _patiently(call: Callable[[], R]) -> R:
    pause = Event()
    for _ in range(round(BUSY_SECONDS / POLL_SECONDS)):
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not _busy(error):
                raise
        pause.wait(POLL_SECONDS)
    return call()


def _busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _maybe_full(error: sqlite3.Error) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR")


def look(database: Database, *, check: bool, migrate_older: bool) -> None:
    """See that the file is ours, whole (``check``: by reading all of it) and of this version. Raises StoreUnusable.

    The size comes from the directory: opening the file beside SQLite and closing it would drop SQLite's locks.
    """
    path = database.path
    if not path.is_file():
        raise database.damaged("not a file")
    if path.stat().st_size < SMALLEST:
        raise database.damaged(f"only {path.stat().st_size} bytes long")
    (application,) = database.read("PRAGMA application_id")[0]
    if application != APPLICATION_ID:
        raise database.damaged("not a store of this program")
    (version,) = database.read("PRAGMA user_version")[0]
    if version > len(MIGRATIONS):
        raise StoreUnusable(
            f"{path}: schema {version}, newer than this program's {len(MIGRATIONS)}",
            "run the newer version of failover again",
        )
    if check:
        (verdict,) = database.read("PRAGMA quick_check(1)")[0]
        if verdict != "ok":
            raise database.damaged(" ".join(str(verdict).split()))
    if version < len(MIGRATIONS):
        if not migrate_older:
            raise StoreUnusable(f"{path}: schema {version}, older than this program's", "start the daemon once")
        database.write(_migrate)


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for steps in MIGRATIONS[version:]:
        for step in steps:
            if isinstance(step, str):
                connection.execute(step)
            else:
                step(connection)
    connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


def create(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Make the file if it is missing: whole under another name, then moved into place.

    So a file of no length under its own name is always damage, and never a start that was cut short.
    Raises StoreFull, StoreUnusable.
    """
    if path.exists():
        return
    draft = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _flock(descriptor, draft)
            if path.exists():
                draft.unlink(missing_ok=True)
                return
            os.ftruncate(descriptor, 0)
            _write_draft(draft, fill)
            os.fsync(descriptor)
            # The journal of a file that was moved away would undo parts of the new one: gone for good, then go on.
            path.with_name(path.name + "-journal").unlink(missing_ok=True)
            _sync_folder(path.parent)
            draft.rename(path)
            _sync_folder(path.parent)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise state_folder.unusable(path, error) from error


def _flock(descriptor: int, draft: Path) -> None:
    pause, step = Event(), 0.02
    for _ in range(round(BUSY_SECONDS / step)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pause.wait(step)
        else:
            return
    raise StoreUnusable(f"{draft}: another process is making the store", "try again")


def _write_draft(draft: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    connection = sqlite3.connect(f"file:{quote(str(draft.absolute()))}?mode=rw", uri=True, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=OFF").close()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        _migrate(connection)
        fill(connection)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise StoreFull(f"{draft}: no room", state_folder.MAKE_ROOM) from error
        raise StoreUnusable(f"{draft}: cannot be written ({error})", "look for disk errors (dmesg)") from error
    finally:
        connection.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
