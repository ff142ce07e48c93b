"""A pool's state folder in memory, and stores that are open on it: what SqliteStore does, without files and JSON.

The tests make the same calls to both (tests/contract, tests/sim). One thing is coarser here: on a full disk every
commit that changes something needs room, while SQLite still overwrites a value with one of the same size, and fills
up pages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, TypeVar

from failover.errors import StoreConflict, StoreError, StoreFull, StoreUnusable
from failover.model import (
    Answer,
    Assignment,
    Cause,
    Commit,
    Event,
    EventKind,
    Exposed,
    Gate,
    Held,
    Instant,
    JournalEntry,
    Lease,
    PassedOver,
    Phase,
    Request,
    RequestState,
    Stored,
    Taint,
)
from failover.store import codec
from failover.store.folder import MAKE_ROOM
from failover.store.lease import LeaseRow, Sighting, proves_death, resigned, sight, taken
from failover.store.sqlite import (
    ANSWERED_REQUESTS,
    HANDOVER,
    HISTORY_ROWS,
    JOURNAL_ROWS,
    JOURNAL_SECONDS,
    PENDING_REQUESTS,
    PRUNE_ROWS,
)

T = TypeVar("T")

STATES = 500  # earlier states that are kept, one for each commit
BALLAST_ROWS = 2_000  # journal rows that fit into the room of the ballast; small ones take 160 bytes in SQLite
WAITING = frozenset({RequestState.PENDING, RequestState.ACCEPTED})
_OVER = frozenset({EventKind.STEP_DONE, EventKind.STEP_FAILED})
_STEPS = _OVER | {EventKind.STEP_STARTED}


@dataclass(frozen=True, slots=True)
class _State:
    """One moment of a file. What it refers to is never changed; rows may be added behind the first ``rows``."""

    utc: float
    version: int
    assignment: Assignment | None
    timers: Mapping[str, Any] | None
    snapshot: tuple[Mapping[str, Any], Instant] | None
    lease: LeaseRow | None
    requests: dict[str, Request]
    answers: dict[str, Answer]
    journal: list[JournalEntry]
    rows: int
    last: int

    @property
    def revision(self) -> int:
        return self.assignment.revision if self.assignment else 0


class _File:
    """What the database file holds. A store keeps the one that it opened, also when that was deleted."""

    def __init__(self) -> None:
        self.version = 0  # another one after each write; an older one again when an older state was put back
        self.writes = 0
        self.assignment: Assignment | None = None
        self.timers: Mapping[str, Any] | None = None
        self.snapshot: tuple[Mapping[str, Any], Instant] | None = None
        self.lease: LeaseRow | None = None
        self.requests: dict[str, Request] = {}  # in the order of their coming; replaced, never changed, like answers
        self.answers: dict[str, Answer] = {}
        self.journal: list[JournalEntry] = []
        self.last = 0  # the last row's id
        self.steps: dict[str, list[JournalEntry]] = {}  # rows of the three kinds, by their step
        self.started: dict[str, Event] = {}
        self.open_steps: dict[str, Event] = {}
        self.states: deque[_State] = deque(maxlen=STATES)
        self.unsure: _State | None = None  # before the first write that nobody was told of

    def state(self, utc: float) -> _State:
        return _State(
            utc,
            self.version,
            self.assignment,
            self.timers,
            self.snapshot,
            self.lease,
            self.requests,
            self.answers,
            self.journal,
            len(self.journal),
            self.last,
        )

    def restore(self, state: _State) -> None:
        self.version, self.assignment, self.timers = state.version, state.assignment, state.timers
        self.snapshot, self.lease, self.last = state.snapshot, state.lease, state.last
        self.requests, self.answers = state.requests, state.answers
        self.journal = state.journal[: state.rows]
        self.steps, self.started, self.open_steps = {}, {}, {}
        for entry in self.journal:
            self._index(entry)

    def wrote(self) -> None:
        self.writes += 1
        self.version = self.writes

    # ---------------------------------------------------------------- journal

    def append(self, event: Event) -> None:
        self.last += 1
        entry = JournalEntry(self.last, event)
        self.journal.append(entry)
        if event.kind in _STEPS:
            self._index(entry)

    def _index(self, entry: JournalEntry) -> None:
        event = entry.event
        name = event.detail.get("step")
        if event.kind not in _STEPS or name is None:
            return
        step = str(name)
        rows = self.steps.setdefault(step, [])
        rows.append(entry)
        if event.kind in _OVER:
            self.open_steps.pop(step, None)
            return
        self.started.setdefault(step, event)
        if not any(row.event.kind in _OVER for row in rows):
            self.open_steps.setdefault(step, event)

    def prune(self, keep: int, old_utc: float) -> None:
        """Let rows go from the front, as SqliteStore does."""
        rows = len(self.journal)
        spare = min(rows - keep, PRUNE_ROWS)
        if spare <= 0:
            return
        old = (n for n, entry in enumerate(islice(self.journal, spare)) if entry.event.at.utc >= old_utc)
        gone = max(next(old, spare), min(rows - 2 * keep, PRUNE_ROWS))
        if gone <= 0:
            return
        leaving, self.journal = self.journal[:gone], self.journal[gone:]
        for name in dict.fromkeys(str(entry.event.detail.get("step")) for entry in leaving):
            left = [row for row in self.steps.pop(name, ()) if row.id > leaving[-1].id]
            self.started.pop(name, None)
            self.open_steps.pop(name, None)
            for row in left:
                self._index(row)

    def unfinished(self) -> list[JournalEntry]:
        rows = [row for step in self.open_steps for row in self.steps[step]]
        return sorted(rows, key=lambda row: row.id)[:HISTORY_ROWS]

    # ---------------------------------------------------------------- requests

    def reply(self, answers: tuple[Answer, ...]) -> bool:
        """Note what became of requests that are known; whether any is."""
        known = {answer.request: answer for answer in answers if answer.request in self.requests}
        if known:
            self.answers = {**self.answers, **known}
        answered = [name for name, answer in self.answers.items() if answer.state not in WAITING] if answers else []
        if forgotten := dict.fromkeys(answered[: max(0, len(answered) - ANSWERED_REQUESTS)]):
            self.requests = {name: request for name, request in self.requests.items() if name not in forgotten}
            self.answers = {name: answer for name, answer in self.answers.items() if name not in forgotten}
        return bool(known)

    def waiting(self) -> tuple[Request, ...]:
        return tuple(self.requests[name] for name, answer in self.answers.items() if answer.state in WAITING)


class _Folder:
    """One state folder. A store that locked it keeps that lock when it is deleted and another one is made."""

    def __init__(self) -> None:
        self.made = False
        self.file = _File()
        self.locked_by: SimStore | None = None
        self.ballast = False


class Disk:
    """What survives of one pool: its state folder, apart from every process. Several SimStores may be open on it.

    For a judge to read, never to change: the attributes below ``faults``. Faults are set by the simulation, at any
    time: ``full``; ``broken`` (every call raises StoreUnusable with these words); ``lose_acks`` (so many commits become
    durable and then raise StoreUnusable); ``conflicts`` (so many commits raise StoreConflict and write nothing).
    ``on_commit`` is called after each commit that became durable, whether or not its caller learns of it.
    """

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.broken: str | None = None
        self.lose_acks = 0
        self.conflicts = 0
        self.on_commit: Callable[[Commit], None] | None = None
        self._full = False
        self._room = 0  # journal rows that fit on the full disk
        self._folder = _Folder()
        self._stores: dict[SimStore, None] = {}  # that are neither closed nor severed, in the order of their opening

    def __str__(self) -> str:
        return f"simulated state of {self.pool}"

    # ---------------------------------------------------------------- faults

    @property
    def full(self) -> bool:
        """Whether others have filled the disk. A lease is renewed all the same: it is overwritten in its place.

        The first commit of a handover then spends the ballast, whose room serves every later write until it is used
        up, or until this is set once more (others took it). With room again, ``reserve`` makes another ballast.
        """
        return self._full

    @full.setter
    def full(self, value: bool) -> None:
        self._full, self._room = value, 0

    def power_cut(self, *, lose_unacknowledged: bool) -> None:
        """End every process, and with ``lose_unacknowledged`` forget the last writes that nobody was told of.

        What was acknowledged stays, and with it everything that was written before.
        """
        for store in tuple(self._stores):
            store.sever()
        file = self._folder.file
        if file.unsure is not None and lose_unacknowledged:
            file.restore(file.unsure)
            while file.states and file.states[-1].version > file.version:
                file.states.pop()
            if not file.states:
                file.states.append(file.unsure)
        file.unsure = None

    def roll_back(self, *, revision: int | None = None, seconds: float | None = None) -> int:
        """Put an older copy of everything in place, as a restored backup does; how many commits that undid.

        It is the newest state after a commit that has at most ``revision`` and is at least ``seconds`` older than the
        last commit, by UTC; of the last 500 the oldest where none is old enough. Open stores see it at once, as they
        do when a file is copied over SQLite's: ``sever`` them first where the daemon is to have been stopped.
        """
        if revision is None and seconds is None:
            raise ValueError("say how far back: a revision, or seconds")
        file = self._folder.file
        states = file.states
        latest = states[-1].utc if states else 0.0
        undone = 0
        while len(states) > 1 and (
            (revision is not None and states[-1].revision > revision)
            or (seconds is not None and states[-1].utc > latest - seconds)
        ):
            states.pop()
            undone += 1
        if states:
            file.restore(states[-1])
            file.unsure = None
        return undone

    def delete(self) -> None:
        """Remove the folder with all that is in it; whoever opens a store next makes a new one.

        A store that has the old one open goes on reading it. What it would write raises StoreUnusable ("moved or
        replaced while in use") as long as it is open, and it keeps the old folder's lock, which holds nobody off.
        """
        self._folder = _Folder()

    # ---------------------------------------------------------------- what a judge reads

    @property
    def exists(self) -> bool:
        """Whether there is a folder with a store in it."""
        return self._folder.made

    @property
    def assignment(self) -> Assignment | None:
        """The stored assignment."""
        return self._folder.file.assignment

    @property
    def timers(self) -> Mapping[str, Any]:
        """The stored timers."""
        return self._folder.file.timers or {}

    @property
    def snapshot(self) -> tuple[Mapping[str, Any], Instant] | None:
        """The last status document, and when it was written."""
        return self._folder.file.snapshot

    @property
    def lease(self) -> LeaseRow | None:
        """The lease's row: an empty ``holder`` says that it is free, ``term`` stays; None before the first one."""
        return self._folder.file.lease

    @property
    def journal(self) -> list[JournalEntry]:
        """The journal's rows, oldest first. Ask anew after each event: old rows go, and older states come back."""
        return self._folder.file.journal

    @property
    def requests(self) -> Mapping[str, Request]:
        """Requests by their id, in the order of their coming."""
        return self._folder.file.requests

    @property
    def answers(self) -> Mapping[str, Answer]:
        """What became of each request, by its id, in the order of their coming."""
        return self._folder.file.answers

    @property
    def started(self) -> Mapping[str, Event]:
        """The journal's step-started rows by their step; those of finished steps too."""
        return self._folder.file.started

    @property
    def open_steps(self) -> Mapping[str, Event]:
        """The step-started rows, by their step, of steps that are neither done nor failed."""
        return self._folder.file.open_steps

    @property
    def locked_by(self) -> SimStore | None:
        """The store that has the folder's lock."""
        return self._folder.locked_by

    @property
    def ballast(self) -> bool:
        """Whether the room of a handover is kept."""
        return self._folder.ballast

    # ---------------------------------------------------------------- for SimStore

    def _take_room(self, rows: int, *, spend_ballast: bool) -> None:
        if not self._full:
            return
        if self._room < rows and spend_ballast and self._folder.ballast:
            self._folder.ballast, self._room = False, self._room + BALLAST_ROWS
        if self._room < rows:
            raise StoreFull(f"{self}: no room; nothing was written", MAKE_ROOM)
        self._room -= rows

    def _keep_ballast(self) -> None:
        if not self._folder.made:
            raise StoreUnusable(f"{self}, ballast: No such file or directory", "restart the daemon")
        if self._full and not self._folder.ballast:
            raise StoreFull(f"{self}, ballast: no room", MAKE_ROOM)
        self._folder.ballast = True


class SimStore:
    """Store (failover/ports.py) on a Disk, for one process; it behaves as SqliteStore does.

    ``boot``, ``clock``, ``holder`` and ``journal_rows`` are SqliteStore's. ``before`` and ``after`` are crash points:
    called with the method's name before a writing call touches the disk, and after what it did. A hook may call
    ``sever``; the call then raises StoreUnusable. Raises StoreUnusable, StoreFull, as opening a file does.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        boot: str,
        clock: Callable[[], Instant],
        holder: str = "",
        journal_rows: int = JOURNAL_ROWS,
    ) -> None:
        self.before: Callable[[str], None] | None = None
        self.after: Callable[[str], None] | None = None
        self._disk, self._boot, self._clock = disk, boot, clock
        self._holder, self._journal_rows = holder, journal_rows
        self._closed = self._severed = False
        self._sighting: Sighting | None = None
        self._locked: _Folder | None = None
        self._must_work()
        folder = disk._folder
        if not folder.made:
            if disk.full:
                raise StoreFull(f"{disk}: no room", MAKE_ROOM)
            folder.made = True
            folder.file.states.append(folder.file.state(clock().utc))
        self._file = folder.file
        self._seen, self._changes = self._file.version, 1
        disk._stores[self] = None

    def sever(self) -> None:
        """Do what kill -9 does: the lock is free, and every later call raises StoreUnusable and does nothing."""
        self._severed = True
        self.close()

    def close(self) -> None:
        """Let go of the disk and of the folder's lock. The lease stays as it is: see ``resign``."""
        self._closed = True
        self._unlock()
        self._disk._stores.pop(self, None)

    # ---------------------------------------------------------------- the assignment and what goes with it

    def load(self) -> Stored:
        """The present assignment, timers and lease."""
        file = self._read()
        return Stored(file.assignment, _copy(file.timers or {}), file.lease.lease if file.lease else None)

    def snapshot(self) -> tuple[Mapping[str, Any], Instant] | None:
        """The last status document, and when it was written."""
        kept = self._read().snapshot
        return None if kept is None else (_copy(kept[0]), kept[1])

    def commit(self, commit: Commit) -> None:
        """Write all of it or nothing. Raises StoreConflict, and ValueError before anything is written."""
        assignment = commit.assignment
        if assignment is not None:
            if assignment.revision <= commit.expected_revision:
                raise ValueError(f"revision {assignment.revision} does not rise above {commit.expected_revision}")
            assignment = _sure(assignment)
        timers = None if commit.timers is None else _stored(commit.timers)
        snapshot = None if commit.snapshot is None else _stored(commit.snapshot)
        events = [_stored_event(event) for event in commit.events]
        now = self._clock()

        file = self._begin("commit")
        if self._disk.conflicts > 0:
            self._disk.conflicts -= 1
            raise StoreConflict("another writer was first", "read again")
        self._still_ours(file, commit)
        known = any(answer.request in file.requests for answer in commit.answers)
        writes = bool(assignment or events or known or _other(timers, file.timers))
        if snapshot is not None and not writes:
            writes = file.snapshot is None or now != file.snapshot[1] or _other(snapshot, file.snapshot[0])
        if writes:
            handover = any(event.kind in HANDOVER for event in events)
            self._touch(file, max(1, len(events)), spend_ballast=handover)
            file.assignment = assignment or file.assignment
            file.timers = file.timers if timers is None else timers
            file.snapshot = file.snapshot if snapshot is None else (snapshot, now)
            for event in events:
                file.append(event)
            file.reply(commit.answers)
            if events:
                file.prune(self._journal_rows, now.utc - JOURNAL_SECONDS)
        self._committed(file, commit, now, writes)

    def _still_ours(self, file: _File, commit: Commit) -> None:
        row = file.lease
        if row is None or not row.holder or row.term != commit.term or (self._holder and row.holder != self._holder):
            held = f"{row.holder or 'nobody'} (term {row.term})" if row else "nobody"
            raise StoreConflict(f"the lease is {held}'s, not ours of term {commit.term}", "observe until it is free")
        if commit.assignment is None:
            return
        stored = file.assignment
        revision, generation = (stored.revision, stored.generation) if stored else (0, 0)
        if revision != commit.expected_revision:
            raise StoreConflict(f"revision {revision} is stored, not {commit.expected_revision}", "read again")
        if commit.assignment.generation < generation:
            raise ValueError(f"generation {commit.assignment.generation} falls below the stored {generation}")

    def _committed(self, file: _File, commit: Commit, now: Instant, writes: bool) -> None:
        disk = self._disk
        file.states.append(file.state(now.utc))
        if disk.on_commit is not None:
            disk.on_commit(commit)
        self._done("commit")
        if disk.lose_acks > 0:
            disk.lose_acks -= 1
            raise StoreUnusable(f"{disk}: read or write error (SQLITE_IOERR_FSYNC)", "look for disk errors (dmesg)")
        if writes:
            file.unsure = None

    def reserve(self) -> None:
        """Make sure that a whole handover can be journalled. Raises StoreFull, StoreUnusable."""
        self._reach("reserve")
        self._disk._keep_ballast()
        self._done("reserve")

    # ---------------------------------------------------------------- lease

    def acquire(self, holder: str, now: Instant, duration: float, wait: float) -> Lease | None:
        """Take or renew the lease for ``duration`` seconds; None while somebody else holds it (see Store.acquire)."""
        if not holder or now.boot != self._boot:
            raise ValueError(f"holder {holder!r} at boot {now.boot!r}: the store was opened for boot {self._boot!r}")
        self._reach("acquire")
        locked = self._lock()
        file = self._open()
        row = file.lease
        if row is not None and row.holder not in ("", holder):
            self._sighting = sight(self._sighting, row, locked, now)
            if not self._sighting.may_overtake(now, wait):
                # Kept only while it shows that the holder died; else a live holder could not take it.
                if not proves_death(row, now):
                    self._unlock()
                self._done("acquire")
                return None
        mine = _sure(taken(row, holder, now, duration, locked))
        self._touch(file, 0)
        file.lease = mine
        self._done("acquire")
        file.unsure = None
        self._holder, self._sighting = holder, None
        return mine.lease

    def resign(self, holder: str) -> None:
        """Give the lease up, so that the next daemon need not wait. Not an error when it is not held."""
        file = self._begin("resign")
        if file.lease is not None and file.lease.holder == holder:
            self._touch(file, 0)
            file.lease = resigned(file.lease)
            self._done("resign")
            file.unsure = None
        else:
            self._done("resign")
        if self._holder in ("", holder):
            self._unlock()

    def _lock(self) -> bool:
        folder = self._disk._folder
        if self._locked is None:
            if not folder.made:
                raise StoreUnusable(f"{self._disk}: No such file or directory", "restart the daemon")
            if folder.locked_by is None:
                folder.locked_by, self._locked = self, folder
        return self._locked is not None

    def _unlock(self) -> None:
        if self._locked is not None:
            self._locked.locked_by = None
            self._locked = None

    # ---------------------------------------------------------------- requests

    def submit(self, request: Request) -> None:
        """Append a request; once more the same one is no error. Raises StoreError when 100 wait already."""
        body = codec.dumps(request)
        file = self._begin("submit")
        known = file.requests.get(request.id)
        if known is not None:
            if codec.dumps(known) != body:
                raise StoreError(f"request {request.id}: this id was used for another one", "use a fresh id")
            self._done("submit")
            return
        if (waiting := len(file.waiting())) >= PENDING_REQUESTS:
            raise StoreError(
                f"{waiting} requests wait already",
                "see whether the daemon runs (failover status); it answers or expires them",
            )
        self._touch(file, 1)
        file.requests = {**file.requests, request.id: request}
        file.answers = {**file.answers, request.id: Answer(request.id, RequestState.PENDING, "")}
        self._done("submit")
        file.unsure = None

    def pending(self) -> tuple[Request, ...]:
        """Requests that are pending or accepted, oldest first (at most 100)."""
        return self._read().waiting()[:PENDING_REQUESTS]

    def answer(self, request_id: str) -> Answer | None:
        """What became of a request; None when no such request is known (the last 1,000 answers are kept)."""
        return self._read().answers.get(request_id)

    def changed(self) -> int:
        """A number that changes when another store has written."""
        self._read()
        return self._changes

    # ---------------------------------------------------------------- journal

    def history(self, after: int = 0, since_utc: float = 0.0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        """Journal rows with an id above ``after`` and not older than ``since_utc``, oldest first, at most ``limit``."""
        journal = self._read().journal
        start = max(0, after - journal[0].id + 1) if journal else 0  # ids have no gaps
        rows = (journal[n] for n in range(start, len(journal)))
        return tuple(islice((e for e in rows if e.event.at.utc >= since_utc), max(0, min(limit, HISTORY_ROWS))))

    def unfinished(self) -> tuple[Event, ...]:
        """The step-started rows without a step-done or step-failed of the same ``detail["step"]``, oldest first."""
        return tuple(entry.event for entry in self._read().unfinished())

    # ---------------------------------------------------------------- one call

    def _must_live(self) -> None:
        if self._severed:
            raise StoreUnusable(f"{self._disk}: this process was killed", "")

    def _must_work(self) -> None:
        self._must_live()
        if self._disk.broken is not None:
            raise StoreUnusable(self._disk.broken, "look for disk errors (dmesg)")

    def _open(self) -> _File:
        if self._closed:
            raise StoreUnusable(f"{self._disk}: closed", "open the store again")
        file = self._file
        if file.version != self._seen:
            self._seen, self._changes = file.version, self._changes + 1
        return file

    def _read(self) -> _File:
        self._must_work()
        return self._open()

    def _reach(self, name: str) -> None:
        """A writing call is about to touch the disk."""
        self._must_live()
        if self.before is not None:
            self.before(name)
        self._must_work()

    def _begin(self, name: str) -> _File:
        self._reach(name)
        return self._open()

    def _touch(self, file: _File, rows: int, *, spend_ballast: bool = False) -> None:
        """See that the file can be changed; nothing may fail between this and the change."""
        if file is not self._disk._folder.file:
            raise StoreUnusable(f"{self._disk}: moved or replaced while in use", "restart the daemon")
        self._disk._take_room(rows, spend_ballast=spend_ballast)
        if file.unsure is None:
            file.unsure = file.state(file.states[-1].utc)
        file.wrote()
        self._seen = file.version

    def _done(self, name: str) -> None:
        """What the call does is done; its caller has yet to learn of it."""
        if self.after is not None:
            self.after(name)
        self._must_live()


# ---------------------------------------------------------------- what is kept of a value

_ENUMS = (Phase, Cause)
_FIELDS: dict[type, tuple[str, ...]] = {
    kind: tuple(f.name for f in fields(kind))
    for kind in (Assignment, Exposed, Gate, Held, Instant, LeaseRow, PassedOver, Taint)
}
_ATOMS = frozenset({str, int, bool, type(None), *_ENUMS})


class _UnusualError(Exception):
    """A value that only the codec can tell about."""


def _sound(value: object) -> bool:
    """Whether a frozen value is what the codec would give back; False: it may yet be."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is float:
        return bool(value - value == 0.0)  # type: ignore[operator]  # neither NaN nor infinite
    if kind is tuple:
        return all(map(_sound, value))  # type: ignore[call-overload]
    names = _FIELDS.get(kind)
    return names is not None and all(_sound(getattr(value, name)) for name in names)


def _sure(value: T) -> T:
    return value if _sound(value) else codec.loads(type(value), codec.dumps(value))


def _plain(value: object) -> Any:
    """The value as JSON would give it back, in lists and dicts of its own. Raises _UnusualError."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is dict:
        copy = {}
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                raise _UnusualError
            copy[key] = item if type(item) is str else _plain(item)
        return copy
    if kind is list or kind is tuple:
        return [_plain(item) for item in value]  # type: ignore[attr-defined]
    if kind is float and value - value == 0.0:  # type: ignore[operator]
        return value
    raise _UnusualError


def _stored(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy of a JSON-ready value. Raises CodecError as the codec does."""
    try:
        return _plain(value)  # type: ignore[no-any-return]
    except (_UnusualError, RecursionError):
        return codec.loads_plain(codec.dumps(value))  # type: ignore[no-any-return]


def _stored_event(event: Event) -> Event:
    try:
        if not _sound(event.at):
            raise _UnusualError
        detail = _plain(event.detail)
    except (_UnusualError, RecursionError):
        return codec.loads(Event, codec.dumps(event))
    return Event(event.kind, event.at, event.reason, event.generation, event.producer, detail)


def _other(value: Mapping[str, Any] | None, kept: Mapping[str, Any] | None) -> bool:
    """Whether writing ``value`` changes a file that holds ``kept``: SQLite leaves pages alone that stay as they are."""
    return value is not None and (value != kept or repr(value) != repr(kept))


def _copy(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return _plain(value)  # type: ignore[no-any-return]
