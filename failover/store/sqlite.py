"""The store of one host: ``failover.sqlite`` in the state folder. Touches that folder alone.

Calls are synchronous and must not overlap; they may come from any thread (the daemon gives the store a worker of its
own). Other processes may use the same folder at the same moment: the CLI submits requests and reads.
How the file is kept is database.py's; who may take the lease is lease.py's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

from failover.errors import StoreConflict, StoreError, StoreUnusable
from failover.model import (
    Answer,
    Assignment,
    Commit,
    Event,
    EventKind,
    Instant,
    JournalEntry,
    Lease,
    Request,
    RequestState,
    Stored,
)
from failover.store import codec
from failover.store import folder as state_folder
from failover.store.database import Database, create, look
from failover.store.lease import LeaseRow, Sighting, proves_death, resigned, sight, taken

T = TypeVar("T")

FILE = "failover.sqlite"
JOURNAL_ROWS = 100_000  # beyond these, rows older than JOURNAL_SECONDS go; beyond twice as many, the oldest go
JOURNAL_SECONDS = 30 * 86_400.0
PRUNE_ROWS = 500  # at most so many rows go with one commit, so that no commit is long
HISTORY_ROWS = 10_000  # at most so many rows in one answer
PENDING_REQUESTS = 100
ANSWERED_REQUESTS = 1_000  # answers that are kept; older ones are forgotten
DOCUMENTS = frozenset({"pool", "assignment", "timers", "snapshot", "snapshot at", "lease"})
# What may spend the ballast: a handover or a repair that is under way, not what is written all the time.
HANDOVER = frozenset({EventKind.PHASE_CHANGED, EventKind.STEP_STARTED, EventKind.STEP_DONE, EventKind.STEP_FAILED})
OPEN_STATES = (RequestState.PENDING.value, RequestState.ACCEPTED.value)


class SqliteStore:
    """Store (failover/ports.py) in one SQLite file.

    ``folder``: made (0700) if missing, like the file in it (0600). ``pool``: the name that the file was made for.
    ``boot``: this boot's id, as in every Instant given to ``acquire``. ``holder``: for whom commits are made; learned
    at the first ``acquire`` when empty. ``clock`` dates snapshots and says which journal rows are old.
    ``check=False`` skips reading the whole file (the CLI, which must not hold a running daemon off).
    Raises StoreUnusable, StoreFull.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pool: str,
        boot: str,
        clock: Callable[[], Instant],
        holder: str = "",
        check: bool = True,
        journal_rows: int = JOURNAL_ROWS,
        network_fs_check: Callable[[Path], str | None] = state_folder.network_file_system,
    ) -> None:
        state_folder.prepare(folder)
        if kind := network_fs_check(folder):
            raise StoreUnusable(f"{folder}: on a network file system ({kind})", "set `state:` to a folder on a disk")
        self._set_up(folder, pool, boot, clock, holder, journal_rows)
        self._open(check=check, read_only=False)

    def _set_up(
        self, folder: Path, pool: str, boot: str, clock: Callable[[], Instant], holder: str, journal_rows: int
    ) -> None:
        self._folder, self._pool, self._boot = folder, pool, boot
        self._clock, self._holder, self._journal_rows = clock, holder, journal_rows
        self._lock = state_folder.FolderLock(folder)
        self._sighting: Sighting | None = None

    @classmethod
    def read(cls, folder: Path, pool: str) -> SqliteStore:
        """The store for reading alone; makes nothing, takes no lease. Raises StoreUnusable, also "no state yet"."""
        path = folder / FILE
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreUnusable(f"{path}: no state yet", "start the daemon (failover run)") from error
        except OSError as error:
            raise StoreUnusable(f"{path}: {error.strerror}", "do this as the daemon's user") from error
        store = cls.__new__(cls)
        store._set_up(folder, pool, "", lambda: Instant("", 0.0, 0.0), "", JOURNAL_ROWS)
        store._open(check=False, read_only=True)
        return store

    def _open(self, *, check: bool, read_only: bool) -> None:
        path = self._folder / FILE
        if not read_only:
            create(path, lambda connection: _put(connection, "pool", self._pool))
            state_folder.writable(path)
        self._database = Database(path, read_only=read_only)
        try:
            look(self._database, check=check, migrate_older=not read_only)
            made_for = self._documents().get("pool")
            if made_for != self._pool:
                raise StoreUnusable(
                    f"{path}: belongs to pool {made_for!r}, not {self._pool!r}",
                    "give each pool a state folder of its own (`state:`)",
                )
        except StoreError:
            self._database.close()
            raise

    # ---------------------------------------------------------------- the assignment and what goes with it

    def load(self) -> Stored:
        """The present assignment, timers and lease, all of one moment."""
        documents = self._documents()
        row = self._decode(LeaseRow, documents.get("lease"))
        return Stored(
            assignment=self._decode(Assignment, documents.get("assignment")),
            timers=self._plain(documents.get("timers")) or {},
            lease=row.lease if row else None,
        )

    def commit(self, commit: Commit) -> None:
        """Write all of it or nothing, durably. Raises StoreConflict when revision or term are overtaken.

        An answer to a request that is no longer known is dropped. Raises ValueError, before anything is written, for
        a revision that does not rise and for what JSON cannot carry.
        """
        assignment = commit.assignment
        if assignment is not None and assignment.revision <= commit.expected_revision:
            raise ValueError(f"revision {assignment.revision} does not rise above {commit.expected_revision}")
        documents = self._documents_of(commit)
        rows = [_journal_row(event) for event in commit.events]
        answers = [(answer.state.value, codec.dumps(answer.text), answer.request) for answer in commit.answers]
        old = self._clock().utc - JOURNAL_SECONDS

        def work(connection: sqlite3.Connection) -> None:
            self._still_ours(connection, commit)
            for name, body in documents.items():
                _put(connection, name, body)
            connection.executemany("INSERT INTO journal (utc, kind, step, body) VALUES (?, ?, ?, ?)", rows)
            connection.executemany("UPDATE request SET state = ?, words = ? WHERE id = ?", answers)
            if rows:
                _prune_journal(connection, self._journal_rows, old)
            if answers:
                _prune_requests(connection)

        handover = any(event.kind in HANDOVER for event in commit.events)
        self._database.write(work, spend_ballast=handover)

    def _documents_of(self, commit: Commit) -> dict[str, str]:
        documents: dict[str, str] = {}
        if commit.assignment is not None:
            documents["assignment"] = codec.dumps(commit.assignment)
        if commit.timers is not None:
            documents["timers"] = codec.dumps(commit.timers)
        if commit.snapshot is not None:
            documents["snapshot"] = codec.dumps(commit.snapshot)
            documents["snapshot at"] = codec.dumps(self._clock())
        return documents

    def _still_ours(self, connection: sqlite3.Connection, commit: Commit) -> None:
        row = self._decode(LeaseRow, self._get(connection, "lease"))
        if row is None or not row.holder or row.term != commit.term or (self._holder and row.holder != self._holder):
            held = f"{row.holder or 'nobody'} (term {row.term})" if row else "nobody"
            raise StoreConflict(f"the lease is {held}'s, not ours of term {commit.term}", "observe until it is free")
        if commit.assignment is None:
            return
        stored = self._decode(Assignment, self._get(connection, "assignment"))
        revision, generation = (stored.revision, stored.generation) if stored else (0, 0)
        if revision != commit.expected_revision:
            raise StoreConflict(f"revision {revision} is stored, not {commit.expected_revision}", "read again")
        if commit.assignment.generation < generation:
            raise ValueError(f"generation {commit.assignment.generation} falls below the stored {generation}")

    def reserve(self) -> None:
        """Make sure that a whole handover can be journalled, by a file whose room is given up in need.

        Cheap while that file is there. Raises StoreFull, StoreUnusable.
        """
        self._database.must_write()
        state_folder.keep_ballast(self._folder)

    def snapshot(self) -> tuple[Mapping[str, Any], Instant] | None:
        """The last status document, and when it was written."""
        documents = self._documents()
        at = self._decode(Instant, documents.get("snapshot at"))
        body = self._plain(documents.get("snapshot"))
        return None if at is None or body is None else (body, at)

    # ---------------------------------------------------------------- lease

    def acquire(self, holder: str, now: Instant, duration: float, wait: float) -> Lease | None:
        """Take or renew the lease for ``duration`` seconds; None while somebody else holds it (see Store.acquire).

        ``holder`` names one run of one daemon and must not be used again after a restart.
        """
        self._database.must_write()
        if not holder or now.boot != self._boot:
            raise ValueError(f"holder {holder!r} at boot {now.boot!r}: the store was opened for boot {self._boot!r}")
        locked = self._lock.take()

        def work(connection: sqlite3.Connection) -> tuple[LeaseRow | None, LeaseRow | None]:
            row = self._decode(LeaseRow, self._get(connection, "lease"))
            if row is not None and row.holder not in ("", holder):
                self._sighting = sight(self._sighting, row, locked, now)
                if not self._sighting.may_overtake(now, wait):
                    return row, None
            mine = taken(row, holder, now, duration, locked)
            _put(connection, "lease", codec.dumps(mine))
            return row, mine

        before, mine = self._database.write(work)
        if mine is None:
            # Kept only while it shows that the holder died; else a live holder could not take it.
            if before is not None and not proves_death(before, now):
                self._lock.release()
            return None
        self._holder, self._sighting = holder, None
        return mine.lease

    def resign(self, holder: str) -> None:
        """Give the lease up, so that the next daemon need not wait. Not an error when it is not held."""

        def work(connection: sqlite3.Connection) -> None:
            row = self._decode(LeaseRow, self._get(connection, "lease"))
            if row is not None and row.holder == holder:
                _put(connection, "lease", codec.dumps(resigned(row)))

        self._database.write(work)
        if self._holder in ("", holder):
            self._lock.release()

    # ---------------------------------------------------------------- requests

    def submit(self, request: Request) -> None:
        """Append a request; once more the same one is no error. Raises StoreError when 100 wait already."""
        body = codec.dumps(request)

        def work(connection: sqlite3.Connection) -> None:
            known = connection.execute("SELECT body FROM request WHERE id = ?", (request.id,)).fetchone()
            if known is not None:
                if known[0] != body:
                    raise StoreError(f"request {request.id}: this id was used for another one", "use a fresh id")
                return
            (waiting,) = connection.execute(
                "SELECT count(*) FROM request WHERE state IN (?, ?)", OPEN_STATES
            ).fetchone()
            if waiting >= PENDING_REQUESTS:
                raise StoreError(
                    f"{waiting} requests wait already",
                    "see whether the daemon runs (failover status); it answers or expires them",
                )
            connection.execute(
                "INSERT INTO request (id, state, words, body) VALUES (?, ?, ?, ?)",
                (request.id, RequestState.PENDING.value, codec.dumps(""), body),
            )

        self._database.write(work, spend_ballast=False)  # that room is for the decider's handover

    def pending(self) -> tuple[Request, ...]:
        """Requests that are pending or accepted, oldest first (at most 100)."""
        rows = self._database.read(
            "SELECT body FROM request WHERE state IN (?, ?) ORDER BY seq LIMIT ?", (*OPEN_STATES, PENDING_REQUESTS)
        )
        return tuple(self._sure(Request, body) for (body,) in rows)

    def answer(self, request_id: str) -> Answer | None:
        """What became of a request; None when no such request is known (the last 1,000 answers are kept)."""
        rows = self._database.read("SELECT state, words FROM request WHERE id = ?", (request_id,))
        if not rows:
            return None
        state, words = rows[0]
        try:
            return Answer(request_id, RequestState(state), str(codec.loads_plain(words)))
        except ValueError as error:
            raise self._database.damaged(str(error)) from error

    def changed(self) -> int:
        """A number that changes when another process has written; cheap (reads a few bytes)."""
        return int(self._database.read("PRAGMA data_version")[0][0])

    # ---------------------------------------------------------------- journal

    def history(self, after: int = 0, since_utc: float = 0.0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        """Journal rows with an id above ``after`` and not older than ``since_utc``, oldest first.

        At most ``limit`` (itself at most 10,000): ask again after the last id for more.
        """
        rows = self._database.read(
            "SELECT id, body FROM journal WHERE id > ? AND utc >= ? ORDER BY id LIMIT ?",
            (after, since_utc, max(0, min(limit, HISTORY_ROWS))),
        )
        return tuple(JournalEntry(number, self._sure(Event, body)) for number, body in rows)

    def unfinished(self) -> tuple[Event, ...]:
        """The step-started rows without a step-done or step-failed of the same ``detail["step"]``, oldest first."""
        rows = self._database.read(
            "SELECT body FROM journal AS begun WHERE step IS NOT NULL AND kind = ? AND NOT EXISTS"
            " (SELECT 1 FROM journal AS over WHERE over.step = begun.step AND over.kind IN (?, ?)) ORDER BY id LIMIT ?",
            (EventKind.STEP_STARTED.value, EventKind.STEP_DONE.value, EventKind.STEP_FAILED.value, HISTORY_ROWS),
        )
        return tuple(self._sure(Event, body) for (body,) in rows)

    def close(self) -> None:
        """Let go of the files and of the folder's lock. The lease stays as it is: see ``resign``."""
        self._database.close()
        self._lock.release()

    # ---------------------------------------------------------------- stored values

    def _documents(self) -> dict[str, str]:
        rows = self._database.read("SELECT name, body, crc FROM document")
        if unknown := sorted(repr(name) for name, _, _ in rows if name not in DOCUMENTS):
            raise self._database.damaged(f"holds an unknown {unknown[0]}")
        return {name: self._checked(name, body, crc) for name, body, crc in rows}

    def _get(self, connection: sqlite3.Connection, name: str) -> str | None:
        row = connection.execute("SELECT body, crc FROM document WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._checked(name, *row)

    def _checked(self, name: str, body: object, crc: object) -> str:
        if not isinstance(body, str) or crc32(body.encode()) != crc:
            raise self._database.damaged(f"the {name} does not match its checksum")
        return body

    def _decode(self, kind: type[T], body: str | None) -> T | None:
        return None if body is None else self._sure(kind, body)

    def _sure(self, kind: type[T], body: str) -> T:
        try:
            return codec.loads(kind, body)
        except codec.CodecError as error:
            raise self._database.damaged(str(error)) from error

    def _plain(self, body: str | None) -> Any:
        try:
            return None if body is None else codec.loads_plain(body)
        except codec.CodecError as error:
            raise self._database.damaged(str(error)) from error


def _put(connection: sqlite3.Connection, name: str, body: str) -> None:
    connection.execute(
        "INSERT INTO document (name, body, crc) VALUES (?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET body = excluded.body, crc = excluded.crc",
        (name, body, crc32(body.encode())),
    )


def _journal_row(event: Event) -> tuple[float, str, str | None, str]:
    step = event.detail.get("step")
    return event.at.utc, event.kind.value, None if step is None else str(step), codec.dumps(event)


def _prune_journal(connection: sqlite3.Connection, keep: int, old_utc: float) -> None:
    # Rows go from the front only, so ids have no gaps and the count is a difference.
    first, last = connection.execute("SELECT (SELECT min(id) FROM journal), (SELECT max(id) FROM journal)").fetchone()
    spare, excess = last - first + 1 - keep, last - first + 1 - 2 * keep
    if spare <= 0:
        return
    young = connection.execute(
        "SELECT min(id) FROM journal WHERE id < ? AND utc >= ?", (first + min(spare, PRUNE_ROWS), old_utc)
    ).fetchone()[0]
    upto = first + min(spare, PRUNE_ROWS) if young is None else young
    connection.execute("DELETE FROM journal WHERE id < ?", (max(upto, first + min(excess, PRUNE_ROWS)),))


def _prune_requests(connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM request WHERE seq IN (SELECT seq FROM request WHERE state NOT IN (?, ?)"
        " ORDER BY seq DESC LIMIT -1 OFFSET ?)",
        (*OPEN_STATES, ANSWERED_REQUESTS),
    )
