"""The simulated store: its faults and crash points, and that it answers as the real one does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from store_values import DURATION, T0, WAIT, assignment, request

from failover.errors import StoreConflict, StoreError, StoreFull, StoreUnusable
from failover.model import (
    Answer,
    Assignment,
    Cause,
    Commit,
    Event,
    EventKind,
    Held,
    Instant,
    Phase,
    Request,
    RequestState,
    Verb,
)
from failover.ports import Store
from failover.simulator.host import draw
from failover.simulator.store import BALLAST_ROWS, STATES, Disk, SimStore
from failover.store.sqlite import ANSWERED_REQUESTS, FILE, SqliteStore


@dataclass
class Clock:
    """Set by hand; two machines, whose clocks go alike but read differently."""

    seconds: float = 0.0

    def now(self, boot: str = T0.boot) -> Instant:
        base = T0 if boot == T0.boot else Instant(boot, 9e6, T0.utc)
        return base.after(self.seconds)


@pytest.fixture
def disk() -> Disk:
    return Disk("EXMPL")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(disk: Disk, clock: Clock) -> SimStore:
    """Open, with the lease at term 1."""
    made = SimStore(disk, boot=T0.boot, clock=clock.now)
    assert made.acquire("one", T0, DURATION, WAIT) is not None
    return made


def another(disk: Disk) -> SimStore:
    return SimStore(disk, boot=T0.boot, clock=lambda: T0)


def event(kind: EventKind = EventKind.DECISION, **detail: object) -> Event:
    return Event(kind, T0, "because", 1, "main", detail)


def row(kind: EventKind = EventKind.DECISION, **detail: object) -> Commit:
    return Commit(1, events=(event(kind, **detail),))


def revised(revision: int) -> Commit:
    return Commit(1, assignment(revision), revision - 1, (event(),), (), {"n": revision}, {"n": revision})


READS: tuple[Callable[[SimStore], object], ...] = (
    lambda store: store.load(),
    lambda store: store.snapshot(),
    lambda store: store.pending(),
    lambda store: store.answer("id-001"),
    lambda store: store.changed(),
    lambda store: store.history(),
    lambda store: store.unfinished(),
)
WRITES: dict[str, Callable[[SimStore], object]] = {
    "commit": lambda store: store.commit(revised(1)),
    "acquire": lambda store: store.acquire("one", T0.after(20), DURATION, WAIT),
    "submit": lambda store: store.submit(request(1)),
    "resign": lambda store: store.resign("one"),
    "reserve": lambda store: store.reserve(),
}


def content(disk: Disk) -> tuple[object, ...]:
    return (
        disk.assignment,
        dict(disk.timers),
        disk.snapshot,
        disk.lease,
        tuple(disk.journal),
        dict(disk.requests),
        dict(disk.answers),
        dict(disk.started),
        dict(disk.open_steps),
        disk.ballast,
    )


# ---------------------------------------------------------------- what a judge reads


def test_a_judge_reads_what_was_committed_from_the_disk(disk: Disk, store: SimStore) -> None:
    assert disk.lease is not None
    assert (disk.lease.holder, disk.lease.term, disk.lease.lease) == ("one", 1, store.load().lease)
    store.submit(request(1))
    store.commit(replace(revised(1), answers=(Answer("id-001", RequestState.DONE, "done"),)))
    assert disk.assignment == assignment(1)
    assert disk.timers == {"n": 1}
    assert disk.snapshot == ({"n": 1}, T0)
    assert [(entry.id, entry.event) for entry in disk.journal] == [(1, event())]
    assert disk.answers == {"id-001": Answer("id-001", RequestState.DONE, "done")}


def test_steps_are_found_by_their_name_and_the_unfinished_apart(disk: Disk, store: SimStore) -> None:
    begun = {name: event(EventKind.STEP_STARTED, step=name) for name in ("a", "b", "c")}
    store.commit(Commit(1, events=tuple(begun.values())))
    store.commit(row(EventKind.STEP_DONE, step="a"))
    store.commit(row(EventKind.STEP_FAILED, step="c"))
    assert disk.started == begun
    assert disk.open_steps == {"b": begun["b"]}


def test_steps_whose_rows_went_with_age_are_no_longer_found_and_the_others_still_are(disk: Disk) -> None:
    store = SimStore(disk, boot=T0.boot, clock=lambda: T0, journal_rows=2)
    store.acquire("one", T0, DURATION, WAIT)
    for name in ("a", "b"):
        store.commit(row(EventKind.STEP_STARTED, step=name))
    store.commit(row(EventKind.STEP_STARTED, step="a"))
    store.commit(Commit(1, events=(event(EventKind.STEP_DONE, step="b"), event())))
    assert [entry.id for entry in disk.journal] == [2, 3, 4, 5]
    assert (list(disk.started), list(disk.open_steps)) == (["b", "a"], ["a"])
    store.commit(Commit(1, events=(event(),) * 3))
    assert [entry.id for entry in disk.journal] == [5, 6, 7, 8]
    assert (disk.started, disk.open_steps, store.unfinished()) == ({}, {}, ())


def test_requests_that_were_answered_long_ago_are_forgotten(disk: Disk, store: SimStore) -> None:
    for number in range(ANSWERED_REQUESTS + 3):
        store.submit(request(number))
        store.commit(Commit(1, answers=(Answer(request(number).id, RequestState.DONE, ""),)))
    assert list(disk.requests) == list(disk.answers) == [request(n).id for n in range(3, ANSWERED_REQUESTS + 3)]


def test_who_resigns_without_ever_having_held_the_lease_lets_go_of_the_lock(disk: Disk, store: SimStore) -> None:
    store.close()
    second = another(disk)
    assert second.acquire("two", T0, DURATION, WAIT) is None
    assert disk.locked_by is second  # it shows that the holder died
    second.resign("two")
    assert disk.locked_by is None


def test_each_durable_commit_is_told_once_and_a_refused_one_never(disk: Disk, store: SimStore) -> None:
    told: list[Commit] = []
    disk.on_commit = told.append
    store.commit(revised(1))
    with pytest.raises(StoreConflict):
        store.commit(revised(1))
    disk.lose_acks = 1
    with pytest.raises(StoreUnusable):
        store.commit(revised(2))
    assert told == [revised(1), revised(2)]


def test_what_a_caller_does_to_its_own_values_later_does_not_reach_the_disk(disk: Disk, store: SimStore) -> None:
    timers: dict[str, Any] = {"down": {"main": 1.0}}
    detail: dict[str, Any] = {"step": "a", "gates": ["p"]}
    store.commit(Commit(1, events=(Event(EventKind.STEP_STARTED, T0, "", detail=detail),), timers=timers))
    timers["down"]["main"] = 2.0
    detail["gates"].append("q")
    store.load().timers["down"]["main"] = 3.0
    assert disk.timers == {"down": {"main": 1.0}}
    assert disk.journal[0].event.detail == {"step": "a", "gates": ["p"]}


# ---------------------------------------------------------------- a full disk


def test_a_full_disk_refuses_commits_and_requests_and_a_first_start(disk: Disk, store: SimStore) -> None:
    disk.full = True
    before = content(disk)
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.commit(row()),
        lambda: store.commit(Commit(1, timers={})),
        lambda: store.commit(row(EventKind.STEP_STARTED)),  # a handover's, but no room was reserved
        lambda: store.submit(request(1)),
        store.reserve,
    )
    for call in calls:
        with pytest.raises(StoreFull, match="no room") as refusal:
            call()
        assert refusal.value.mend
    assert content(disk) == before
    disk.delete()
    with pytest.raises(StoreFull, match="no room"):
        another(disk)


def test_on_a_full_disk_the_lease_is_renewed_and_given_up_and_everything_is_read(disk: Disk, store: SimStore) -> None:
    disk.full = True
    assert store.acquire("one", T0.after(20), DURATION, WAIT) is not None
    store.resign("one")
    assert another(disk).load().lease is None


def test_a_handover_spends_the_ballast_and_other_commits_do_not(disk: Disk, store: SimStore) -> None:
    store.reserve()
    disk.full = True
    store.reserve()  # it is there
    for commit in (row(), Commit(1, timers={})):
        with pytest.raises(StoreFull):
            store.commit(commit)
    kept = disk.ballast
    store.commit(row(EventKind.PHASE_CHANGED))
    assert (kept, disk.ballast) == (True, False)
    assert len(disk.journal) == 1


def test_the_ballasts_room_serves_everybody_until_it_is_used_up_and_is_not_reserved_again(
    disk: Disk, store: SimStore
) -> None:
    store.reserve()
    disk.full = True
    store.commit(row(EventKind.STEP_STARTED, step="a"))
    store.submit(request(1))
    with pytest.raises(StoreFull):
        store.reserve()
    for _ in range(BALLAST_ROWS - 2):
        store.commit(row())
    with pytest.raises(StoreFull):
        store.commit(row(EventKind.STEP_DONE, step="a"))
    assert len(disk.journal) == BALLAST_ROWS - 1


def test_others_may_take_the_ballasts_room(disk: Disk, store: SimStore) -> None:
    store.reserve()
    disk.full = True
    store.commit(row(EventKind.STEP_STARTED, step="a"))
    disk.full = True
    with pytest.raises(StoreFull):
        store.commit(row(EventKind.STEP_DONE, step="a"))


def test_with_room_again_the_ballast_must_be_made_anew(disk: Disk, store: SimStore) -> None:
    store.reserve()
    disk.full = True
    store.commit(row(EventKind.STEP_STARTED))
    disk.full = False
    store.commit(row())
    disk.full = True
    with pytest.raises(StoreFull):
        store.commit(row(EventKind.STEP_DONE))
    disk.full = False
    store.reserve()
    disk.full = True
    store.commit(row(EventKind.STEP_DONE))


# ---------------------------------------------------------------- a broken disk, conflicts, lost acknowledgements


def test_on_a_broken_disk_every_call_fails_in_its_words_and_changes_nothing(disk: Disk, store: SimStore) -> None:
    before = content(disk)
    disk.broken = "the disk is gone"
    for call in (*READS, *WRITES.values()):
        with pytest.raises(StoreUnusable, match="the disk is gone"):
            call(store)
    with pytest.raises(StoreUnusable, match="the disk is gone"):
        another(disk)
    disk.broken = None
    assert content(disk) == before
    store.commit(revised(1))


def test_the_next_so_many_commits_conflict_and_write_nothing(disk: Disk, store: SimStore) -> None:
    disk.conflicts = 2
    before = content(disk)
    for _ in range(2):
        with pytest.raises(StoreConflict):
            store.commit(revised(1))
    assert content(disk) == before
    store.commit(revised(1))


def test_a_commit_whose_acknowledgement_is_lost_is_there_and_its_caller_does_not_know(
    disk: Disk, store: SimStore
) -> None:
    disk.lose_acks = 1
    with pytest.raises(StoreUnusable):
        store.commit(revised(1))
    assert store.load().assignment == assignment(1)
    with pytest.raises(StoreConflict, match="revision 1 is stored"):
        store.commit(revised(1))
    store.commit(revised(2))
    assert disk.lose_acks == 0


# ---------------------------------------------------------------- a power cut


def test_a_power_cut_ends_every_process_and_keeps_what_was_acknowledged(disk: Disk, store: SimStore) -> None:
    cli = another(disk)
    cli.submit(request(1))
    store.commit(revised(1))
    store.reserve()
    before = content(disk)
    disk.power_cut(lose_unacknowledged=True)
    assert content(disk) == before
    assert disk.locked_by is None
    for dead in (store, cli):
        with pytest.raises(StoreUnusable):
            dead.load()


@pytest.mark.parametrize("lost", [False, True])
def test_after_a_power_cut_commits_that_nobody_was_told_of_are_there_or_not(
    disk: Disk, store: SimStore, lost: bool
) -> None:
    store.commit(revised(1))
    before = content(disk)
    disk.lose_acks = 2
    for revision in (2, 3):
        with pytest.raises(StoreUnusable):
            store.commit(revised(revision))
    after = content(disk)
    disk.power_cut(lose_unacknowledged=lost)
    assert content(disk) == (before if lost else after)


def test_an_acknowledged_write_keeps_what_was_written_before_it_through_a_power_cut(
    disk: Disk, store: SimStore
) -> None:
    disk.lose_acks = 1
    with pytest.raises(StoreUnusable):
        store.commit(revised(1))
    another(disk).submit(request(1))
    disk.power_cut(lose_unacknowledged=True)
    assert disk.assignment == assignment(1)


def test_a_write_that_is_cut_off_right_after_its_effect_may_be_lost_with_the_power(disk: Disk, store: SimStore) -> None:
    def cut(_: str) -> None:
        disk.power_cut(lose_unacknowledged=True)

    store.after = cut
    with pytest.raises(StoreUnusable):
        store.commit(revised(1))
    assert disk.assignment is None
    assert disk.lease is not None


# ---------------------------------------------------------------- an older state, and none


def test_an_older_revision_comes_back_with_everything_that_went_with_it(disk: Disk, store: SimStore) -> None:
    store.commit(revised(1))
    store.submit(request(1))
    store.commit(replace(revised(2), events=(event(EventKind.STEP_STARTED, step="a"),)))
    before = content(disk)
    store.acquire("one", T0.after(20), DURATION, WAIT)
    store.commit(replace(revised(3), answers=(Answer("id-001", RequestState.DONE, ""),)))
    store.commit(row(EventKind.STEP_DONE, step="a"))
    changed = store.changed()
    assert disk.roll_back(revision=2) == 2
    assert content(disk) == before
    assert store.changed() != changed
    assert store.load().timers == {"n": 2}
    assert [r.id for r in store.pending()] == ["id-001"]
    assert len(store.unfinished()) == 1
    with pytest.raises(StoreConflict, match="revision 2 is stored"):
        store.commit(revised(4))
    store.commit(revised(3))
    assert [entry.id for entry in disk.journal] == [1, 2, 3]


def test_a_backup_of_so_many_seconds_ago_comes_back(disk: Disk, store: SimStore, clock: Clock) -> None:
    for revision in range(1, 11):
        clock.seconds = 10.0 * revision
        store.commit(revised(revision))
    assert disk.roll_back(seconds=35.0) == 4
    assert store.load().assignment == assignment(6)
    assert disk.roll_back(seconds=1e9) == 6
    assert content(disk)[:5] == (None, {}, None, None, ())


def test_of_earlier_states_a_bounded_number_is_kept(disk: Disk, store: SimStore) -> None:
    for revision in range(1, STATES + 101):
        store.commit(revised(revision))
    assert disk.roll_back(revision=0) == STATES - 1
    assert disk.assignment == assignment(101)


def test_how_far_to_go_back_must_be_said(disk: Disk, store: SimStore) -> None:
    with pytest.raises(ValueError, match="how far back"):
        disk.roll_back()


def test_a_deleted_folder_is_made_anew_and_who_has_the_old_one_open_reads_on_and_writes_nothing(
    disk: Disk, store: SimStore
) -> None:
    store.commit(revised(1))
    store.reserve()
    disk.delete()
    assert not disk.exists
    assert content(disk) == content(Disk("EXMPL"))
    assert store.load().assignment == assignment(1)
    for call in (lambda store: store.commit(revised(2)), WRITES["acquire"], WRITES["submit"], WRITES["resign"]):
        with pytest.raises(StoreUnusable, match="moved or replaced while in use"):
            call(store)
    with pytest.raises(StoreUnusable, match="No such file"):
        store.reserve()
    fresh = another(disk)
    lease = fresh.acquire("two", T0, DURATION, WAIT)  # at once: the old folder's lock holds nobody off
    assert lease is not None
    assert lease.term == 1
    assert fresh.load().assignment is None
    assert store.load().assignment == assignment(1)


# ---------------------------------------------------------------- kill -9


def test_a_severed_store_does_nothing_any_more_and_its_lock_is_free(disk: Disk, store: SimStore) -> None:
    assert disk.locked_by is store
    before = content(disk)
    store.sever()
    store.sever()
    for call in (*READS, *WRITES.values()):
        with pytest.raises(StoreUnusable, match="killed"):
            call(store)
    store.close()
    assert content(disk) == before
    assert disk.locked_by is None


def test_who_closes_a_severed_store_does_not_free_its_successors_lock(disk: Disk, store: SimStore) -> None:
    store.sever()
    second = another(disk)
    assert second.acquire("two", T0, DURATION, WAIT) is None
    store.close()
    assert disk.locked_by is second


def effects(call: str) -> tuple[object, object]:
    """The disk's content before and after the call, when nothing goes wrong."""
    disk = Disk("EXMPL")
    store = another(disk)
    store.acquire("one", T0, DURATION, WAIT)
    before = content(disk)
    WRITES[call](store)
    return before, content(disk)


@pytest.mark.parametrize("call", WRITES)
def test_a_kill_before_a_call_leaves_no_effect_and_one_after_it_leaves_all_of_it(call: str) -> None:
    before, after = effects(call)
    assert before != after
    for hook, expected in (("before", before), ("after", after)):
        disk = Disk("EXMPL")
        store = another(disk)
        store.acquire("one", T0, DURATION, WAIT)
        named: list[str] = []

        def kill(name: str, store: SimStore = store, named: list[str] = named) -> None:
            named.append(name)
            store.sever()

        setattr(store, hook, kill)
        with pytest.raises(StoreUnusable, match="killed"):
            WRITES[call](store)
        assert named == [call]
        assert content(disk) == expected
        assert disk.locked_by is None


def test_crash_points_are_passed_once_a_writing_call_and_never_by_reading(disk: Disk, store: SimStore) -> None:
    passed: list[str] = []
    store.before = lambda name: passed.append(f"before {name}")
    store.after = lambda name: passed.append(f"after {name}")
    for read in READS:
        read(store)
    for call in WRITES.values():
        call(store)
    assert passed == [f"{when} {name}" for name in WRITES for when in ("before", "after")]


def test_a_call_that_was_refused_does_not_pass_the_crash_point_after_it(disk: Disk, store: SimStore) -> None:
    passed: list[str] = []
    store.after = passed.append
    with pytest.raises(StoreConflict):
        store.commit(Commit(9, events=(event(),)))
    assert passed == []


# ---------------------------------------------------------------- the same answers as SQLite

JOURNAL_ROWS = 6  # few, so that old rows go
ODD: tuple[object, ...] = (object(), float("nan"), {1: 2}, (1, (2.5, None)), Phase.STEADY, {"a": [True, "\ud800"]}, T0)
KINDS = (EventKind.STEP_STARTED, EventKind.STEP_DONE, EventKind.STEP_FAILED, EventKind.DECISION)


@dataclass
class Both:
    """One process: a store on either side, opened by the same call."""

    number: int
    boot: str
    real: SqliteStore
    sim: SimStore
    changes: list[int] = field(default_factory=lambda: [-1, -1])
    orphan: bool = False  # its folder was deleted

    @property
    def name(self) -> str:
        return f"holder {self.number}"


class Race:
    """Drawn calls, made on both sides one after the other; every answer must be the same."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.clock = Clock()
        self.disk = Disk("EXMPL")
        self.open: list[Both] = []
        self.copies: list[tuple[int, bytes]] = []  # of the file after each commit, as the Disk keeps its states
        self.asked = 0
        self.opened = 0
        self.outcomes: dict[str, int] = {}

    def pick(self, below: int) -> int:
        self.asked += 1
        return draw(self.seed, "race", self.asked) % below

    def start(self) -> None:
        boot = ("boot-1", "boot-1", "boot-2")[self.pick(3)]
        first = not (self.folder / FILE).exists()
        given: dict[str, Any] = {"boot": boot, "clock": lambda: self.clock.now(boot), "journal_rows": JOURNAL_ROWS}
        real = SqliteStore(self.folder, pool="EXMPL", check=False, **given)
        self.open.append(Both(self.opened, boot, real, SimStore(self.disk, **given)))
        self.opened += 1
        if first:
            self.copies = [(0, (self.folder / FILE).read_bytes())]

    def end(self, both: Both) -> None:
        self.open.remove(both)
        both.real.close()
        both.sim.sever() if self.pick(2) else both.sim.close()

    def same(self, name: str, both: Both, call: Callable[[Store], object]) -> bool:
        real, simulated = outcome(call, both.real), outcome(call, both.sim)
        assert real == simulated, f"call {self.asked}, {name}"
        words = f"{name}: {real[0] if real[0] != 'answer' else 'answer' if real[1] is not None else 'none'}"
        self.outcomes[words] = self.outcomes.get(words, 0) + 1
        return real[0] == "answer"

    def changed(self, both: Both) -> None:
        """Whether either side saw another's write since it was last asked."""
        if not self.same("changed", both, lambda store: store.changed() > 0):
            return
        now = [both.real.changed(), both.sim.changed()]
        moved = [new != old for new, old in zip(now, both.changes, strict=True)]
        assert moved[0] == moved[1], f"call {self.asked}, changed"
        both.changes = now

    # ------------------------------------------------------------ what is drawn

    def turn(self) -> None:
        if not self.open or (len(self.open) < 4 and self.pick(12) == 0):
            self.start()
        self.clock.seconds += (0.0, 0.0, 0.25, 1.0, 5.0, WAIT, 40.0, 71.0)[self.pick(8)]
        both = self.open[self.pick(len(self.open))]
        chance = self.pick(1000)
        if chance < 5:
            self.delete()
        elif chance < 15:
            self.roll_back()
        elif chance < 55:
            self.end(both)
        elif chance < 65:
            both.real.close()
            both.sim.close()
        elif chance < 70:
            self.clock.seconds += 20 * 86_400.0
        elif chance < 350:
            deciders = [each for each in self.open if self.disk.lease and each.name == self.disk.lease.holder]
            self.commit(deciders[0] if deciders and self.pick(3) else both)
        elif chance < 600:
            self.ask_for_the_lease(both)
        elif chance < 700:
            asked = self.request()
            self.same("submit", both, lambda store: store.submit(asked))
        else:
            self.look(both)
        if self.pick(3) == 0:
            for each in self.open:
                self.changed(each)

    def ask_for_the_lease(self, both: Both) -> None:
        holder = ("", "somebody", *[both.name] * 18)[self.pick(20)]
        if self.pick(4) == 0:
            self.same("resign", both, lambda store: store.resign(holder))
            return
        now = self.clock.now(both.boot if self.pick(20) else "boot-3")
        self.same("acquire", both, lambda store: store.acquire(holder, now, DURATION, WAIT))

    def commit(self, both: Both) -> None:
        now, lease = self.clock.now(), self.disk.lease
        present = self.disk.assignment
        revision = present.revision if present else 0
        term = (lease.term if lease else 0) + (0, 0, 0, 0, 0, 0, 0, 0, 1, -1)[self.pick(10)]
        expected = max(0, revision + (0, 0, 0, 0, 0, 0, 0, 1, -1)[self.pick(9)])
        value = None
        if self.pick(2):
            generation = max(0, (present.generation if present else 0) + (0, 0, 1, 1, 1, -1)[self.pick(6)])
            rising = expected + (1, 1, 1, 1, 1, 1, 3, 0)[self.pick(8)]
            value = Assignment(rising, generation, Phase.FENCING, None, "main", Cause.FORCED, now, "", term)
            until = now if self.pick(8) else Instant("boot-1", float("nan"), 0.0)
            value = replace(value, pinned=Held("main", until)) if self.pick(2) else value
        events = tuple(self.event(now) for _ in range((0, 0, 1, 2, 4, 7)[self.pick(6)]))
        answers = tuple(
            Answer(f"id-{self.pick(40)}", list(RequestState)[self.pick(7)], f"{self.pick(5)}")
            for _ in range(self.pick(3))
        )
        timers = ({"n": 1}, {}, {"n": 1.0}, {"odd": self.odd()}, None, None, None, None, None)[self.pick(9)]
        snapshot = {"n": self.pick(3)} if self.pick(3) == 0 else None
        commit = Commit(term, value, expected, events, answers, timers, snapshot)
        went = self.same("commit", both, lambda store: store.commit(commit))
        if went and not both.orphan:
            kept = self.disk.assignment
            self.copies.append((kept.revision if kept else 0, (self.folder / FILE).read_bytes()))

    def event(self, now: Instant) -> Event:
        kind = KINDS[self.pick(len(KINDS))]
        detail: dict[str, Any] = {"step": (None, "None", 3, "3", "a", "b", "c")[self.pick(7)]} if self.pick(3) else {}
        if self.pick(12) == 0:
            detail = {**detail, "odd": self.odd()}
        return Event(kind, now.after(-self.pick(100)), f"{self.pick(9)}", self.pick(4), None, detail)

    def odd(self) -> object:
        return ODD[self.pick(len(ODD))] if self.pick(4) == 0 else 1.5

    def request(self) -> Request:
        return Request(f"id-{self.pick(40)}", list(Verb)[self.pick(2)], T0, T0.after(60), "alice")

    def look(self, both: Both) -> None:
        after, since, limit = self.pick(60), self.clock.now().utc - self.pick(300), self.pick(8) - 1
        reads: dict[str, Callable[[Store], object]] = {
            "load": lambda store: store.load(),
            "snapshot": lambda store: store.snapshot(),
            "pending": lambda store: store.pending(),
            "answer": lambda store: store.answer(f"id-{after}"),
            "history": lambda store: store.history(),
            "some history": lambda store: store.history(after, since, limit),
            "unfinished": lambda store: store.unfinished(),
            "reserve": lambda store: store.reserve(),
        }
        name = [*reads, "changed"][self.pick(len(reads) + 1)]
        if name == "changed":
            self.changed(both)
        else:
            self.same(name, both, reads[name])

    def delete(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
            self.disk.delete()
        for both in self.open:
            both.orphan = True

    def roll_back(self) -> None:
        if not self.folder.exists():
            return
        revision = self.pick(self.copies[-1][0] + 1)
        undone = 0
        while len(self.copies) > 1 and self.copies[-1][0] > revision:
            self.copies.pop()
            undone += 1
        (self.folder / FILE).write_bytes(self.copies[-1][1])
        assert self.disk.roll_back(revision=revision) == undone
        for both in self.open:
            self.changed(both)  # before the file's own counter meets again


def outcome(call: Callable[[Store], object], store: Store) -> tuple[str, object]:
    """What a call came to. Words of errors count where they name no path."""
    try:
        return "answer", call(store)
    except StoreUnusable as error:
        known = ("closed", "moved or replaced while in use", "No such file or directory")
        return "StoreUnusable", [words for words in known if words in str(error)]
    except (StoreError, ValueError) as error:
        return type(error).__name__, str(error)


@pytest.fixture
def race(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Race]:
    made = Race(tmp_path / "state", request.param)
    yield made
    for both in made.open:
        both.real.close()


@pytest.mark.parametrize("race", range(12), indirect=True)
def test_drawn_calls_of_several_processes_have_the_same_answers_as_sqlites(race: Race) -> None:
    for _ in range(300):
        race.turn()
    assert race.outcomes
