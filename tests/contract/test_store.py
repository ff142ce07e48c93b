"""What every store promises (Store, failover/model.py). A new store joins by a row in STORES."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from store_values import DURATION, T0, WAIT, assignment, request

from failover.errors import StoreConflict, StoreError
from failover.model import (
    Answer,
    Commit,
    Event,
    EventKind,
    Gate,
    Held,
    Instant,
    PassedOver,
    Phase,
    Request,
    RequestState,
    Taint,
    Verb,
)
from failover.ports import Store
from failover.simulator.store import Disk, SimStore
from failover.store.sqlite import SqliteStore


@dataclass
class Site:
    """One pool's place in a store, which several daemons open, each at its own boot."""

    connect: Callable[[str], Store]
    opened: list[Store] = field(default_factory=list)

    def open(self, boot: str = "boot-1") -> Store:
        store = self.connect(boot)
        self.opened.append(store)
        return store


def sqlite_site(folder: Path) -> Site:
    return Site(lambda boot: SqliteStore(folder / "state", pool="EXMPL", boot=boot, clock=lambda: T0))


def simulated_site(_: Path) -> Site:
    disk = Disk("EXMPL")
    return Site(lambda boot: SimStore(disk, boot=boot, clock=lambda: T0))


STORES = {"simulated": simulated_site, "sqlite": sqlite_site}


@pytest.fixture(params=sorted(STORES))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = STORES[request.param](tmp_path)
    yield made
    for store in made.opened:
        store.close()


def event(number: int, kind: EventKind = EventKind.DECISION, **detail: object) -> Event:
    return Event(kind, T0.after(number), f"reason {number}", number, "main", detail)


def decider(site: Site, holder: str = "one") -> tuple[Store, int]:
    store = site.open()
    lease = store.acquire(holder, T0, DURATION, WAIT)
    assert lease is not None
    return store, lease.term


# ---------------------------------------------------------------- assignment


def test_an_empty_store_has_no_assignment_no_timers_and_no_lease(site: Site) -> None:
    stored = site.open().load()
    assert (stored.assignment, dict(stored.timers), stored.lease) == (None, {}, None)


def test_everything_of_a_commit_is_read_back_by_another_opening(site: Site) -> None:
    store, term = decider(site)
    rich = assignment(
        1,
        phase=Phase.FENCING,
        target="backup",
        pinned=Held("main", T0.after(5), "said so", "alice"),
        cordoned=(Held("backup"),),
        passed_over=(PassedOver(Gate("proxy-1", "main"), T0),),
        tainted=(Taint(Gate("proxy-2", "main"), T0, T0.after(1)),),
        seen=("main", "backup"),
        failovers=(T0,),
    )
    timers = {"down": {"main": 12.5}}
    status = {"phase": "fencing"}
    store.commit(Commit(term, rich, 0, (event(1),), (), timers, status))
    stored = site.open().load()
    assert stored.assignment == rich
    assert stored.timers == timers
    assert site.open().snapshot() == (status, T0)
    assert [entry.event for entry in site.open().history()] == [event(1)]


def test_what_a_commit_leaves_out_stays_as_it_was(site: Site) -> None:
    store, term = decider(site)
    store.commit(Commit(term, assignment(1), 0, timers={"a": 1}, snapshot={"b": 2}))
    store.commit(Commit(term, events=(event(1),)))
    stored = store.load()
    assert (stored.assignment, stored.timers, store.snapshot()) == (assignment(1), {"a": 1}, ({"b": 2}, T0))


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_commit_on_another_revision_conflicts_and_writes_nothing_at_all(site: Site, expected: int) -> None:
    store, term = decider(site)
    store.commit(Commit(term, assignment(1), 0, timers={"n": 1}))
    store.commit(Commit(term, assignment(2), 1, timers={"n": 2}))
    store.submit(request(1))
    late = Commit(
        term,
        assignment(expected + 1, generation=9),
        expected,
        (event(9),),
        (Answer("id-001", RequestState.DONE, "done"),),
        {"n": 9},
        {"n": 9},
    )
    with pytest.raises(StoreConflict, match="revision 2 is stored"):
        store.commit(late)
    assert store.load().assignment == assignment(2)
    assert store.load().timers == {"n": 2}
    assert store.history() == ()
    assert store.snapshot() is None
    assert store.pending() == (request(1),)


def test_a_commit_of_another_term_conflicts(site: Site) -> None:
    store, term = decider(site)
    for wrong in (term - 1, term + 1):
        with pytest.raises(StoreConflict, match="lease"):
            store.commit(Commit(wrong, assignment(1)))
    assert store.load().assignment is None


def test_nobody_commits_without_a_lease(site: Site) -> None:
    for term in (0, 1):
        with pytest.raises(StoreConflict, match="lease"):
            site.open().commit(Commit(term, events=(event(1),)))


def test_a_revision_that_does_not_rise_is_refused(site: Site) -> None:
    store, term = decider(site)
    store.commit(Commit(term, assignment(1)))
    with pytest.raises(ValueError, match="does not rise"):
        store.commit(Commit(term, assignment(1), 1))


def test_a_generation_never_falls(site: Site) -> None:
    store, term = decider(site)
    store.commit(Commit(term, assignment(1, generation=7)))
    with pytest.raises(ValueError, match="generation 6 falls below the stored 7"):
        store.commit(Commit(term, assignment(2, generation=6), 1))
    assert store.load().assignment == assignment(1, generation=7)


def test_an_event_that_json_cannot_carry_is_refused_before_anything_is_written(site: Site) -> None:
    store, term = decider(site)
    for unfit in (object(), float("nan"), {1: 2}):
        with pytest.raises(ValueError, match=r"stored form|keys must be text|JSON compliant"):
            store.commit(Commit(term, assignment(1), events=(event(1, value=unfit),)))
    assert store.load().assignment is None


# ---------------------------------------------------------------- lease


def test_the_first_to_ask_gets_the_lease_and_a_second_does_not(site: Site) -> None:
    store = site.open()
    lease = store.acquire("one", T0, DURATION, WAIT)
    assert lease is not None
    assert (lease.holder, lease.expires, lease.duration) == ("one", T0.after(DURATION), DURATION)
    assert site.open().acquire("two", T0.after(1), DURATION, WAIT) is None
    assert site.open().load().lease == lease


def test_renewing_keeps_the_term_and_moves_the_expiry(site: Site) -> None:
    store, term = decider(site)
    lease = store.acquire("one", T0.after(20), DURATION, WAIT)
    assert lease is not None
    assert (lease.term, lease.expires) == (term, T0.after(80))


def test_a_holder_that_is_late_renews_as_long_as_nobody_took_over(site: Site) -> None:
    store, term = decider(site)
    lease = store.acquire("one", T0.after(1_000), DURATION, WAIT)
    assert lease is not None
    assert lease.term == term


def test_an_expired_lease_of_a_live_but_silent_holder_is_overtaken_after_the_wait(site: Site) -> None:
    _, term = decider(site)
    second = site.open()
    assert second.acquire("two", T0.after(DURATION + WAIT - 0.1), DURATION, WAIT) is None
    lease = second.acquire("two", T0.after(DURATION + WAIT), DURATION, WAIT)
    assert lease is not None
    assert (lease.holder, lease.term) == ("two", term + 1)


def test_a_renewal_puts_off_the_overtaking(site: Site) -> None:
    first, _ = decider(site)
    second = site.open()
    for seconds in range(0, 600, 20):
        assert first.acquire("one", T0.after(seconds), DURATION, WAIT) is not None
        assert second.acquire("two", T0.after(seconds + 1), DURATION, WAIT) is None


def test_a_lease_of_another_boot_is_judged_by_our_own_clock_alone(site: Site) -> None:
    site.open("other boot").acquire("one", Instant("other boot", 9e9, 0.0), DURATION, WAIT)
    second = site.open()
    assert second.acquire("two", T0, DURATION, WAIT) is None
    assert second.acquire("two", T0.after(DURATION + WAIT - 0.1), DURATION, WAIT) is None
    lease = second.acquire("two", T0.after(DURATION + WAIT), DURATION, WAIT)
    assert lease is not None
    assert lease.term == 2


def test_a_lease_of_another_boot_that_is_renewed_is_not_overtaken(site: Site) -> None:
    first, second = site.open("other boot"), site.open()
    for seconds in range(0, 600, 20):
        other = Instant("other boot", 5.0 + seconds, 0.0)
        assert first.acquire("one", other, DURATION, WAIT) is not None
        assert second.acquire("two", T0.after(seconds), DURATION, WAIT) is None


def test_who_died_is_overtaken_after_the_wait_counted_from_when_it_was_first_noticed(site: Site) -> None:
    first, term = decider(site)
    first.close()  # without resigning: as after a kill
    second = site.open()
    assert second.acquire("two", T0.after(5), DURATION, WAIT) is None
    assert second.acquire("two", T0.after(5 + WAIT - 0.1), DURATION, WAIT) is None
    lease = second.acquire("two", T0.after(5 + WAIT), DURATION, WAIT)
    assert lease is not None
    assert lease.term == term + 1


def test_who_resigned_is_followed_at_once_with_a_new_term(site: Site) -> None:
    first, term = decider(site)
    first.resign("one")
    assert first.load().lease is None
    lease = site.open().acquire("two", T0, DURATION, WAIT)
    assert lease is not None
    assert lease.term == term + 1


def test_whoever_comes_back_after_resigning_gets_a_new_term_too(site: Site) -> None:
    store, term = decider(site)
    store.resign("one")
    with pytest.raises(StoreConflict):
        store.commit(Commit(term, assignment(1)))
    lease = store.acquire("one", T0, DURATION, WAIT)
    assert lease is not None
    assert lease.term == term + 1


def test_resigning_what_one_does_not_hold_changes_nothing(site: Site) -> None:
    first, _ = decider(site)
    second = site.open()
    second.resign("two")
    assert second.load().lease == first.load().lease
    first.resign("nobody")
    assert second.acquire("two", T0.after(WAIT + 1), DURATION, WAIT) is None
    assert second.acquire("two", T0.after(2 * WAIT + 2), DURATION, WAIT) is None


def test_an_overtaken_holder_can_neither_renew_nor_commit(site: Site) -> None:
    first, term = decider(site)
    second = site.open()
    assert second.acquire("two", T0.after(70), DURATION, WAIT) is not None
    assert first.acquire("one", T0.after(71), DURATION, WAIT) is None
    for wrong in (term, term + 1):
        with pytest.raises(StoreConflict):
            first.commit(Commit(wrong, assignment(1)))
    second.commit(Commit(term + 1, assignment(1)))


def test_an_overtaken_holder_that_comes_back_to_life_does_not_take_the_others_for_dead(site: Site) -> None:
    first, _ = decider(site)
    second = site.open()
    assert second.acquire("two", T0.after(70), DURATION, WAIT) is not None
    for seconds in range(71, 400):
        assert first.acquire("one", T0.after(seconds), DURATION, WAIT) is None
        if seconds % 20 == 0:
            assert second.acquire("two", T0.after(seconds), DURATION, WAIT) is not None


def test_the_death_of_one_that_overtook_a_frozen_holder_is_noticed_as_quickly(site: Site) -> None:
    first, _ = decider(site)
    second = site.open()
    assert second.acquire("two", T0.after(70), DURATION, WAIT) is not None
    assert first.acquire("one", T0.after(71), DURATION, WAIT) is None
    assert second.acquire("two", T0.after(90), DURATION, WAIT) is not None
    second.close()
    assert first.acquire("one", T0.after(91), DURATION, WAIT) is None
    lease = first.acquire("one", T0.after(91 + WAIT), DURATION, WAIT)
    assert lease is not None
    assert lease.term == 3


def test_a_new_daemon_is_not_kept_out_by_a_frozen_one_when_the_last_holder_resigned(site: Site) -> None:
    decider(site)  # frozen from here on, with all its locks
    second = site.open()
    assert second.acquire("two", T0.after(70), DURATION, WAIT) is not None
    second.resign("two")
    assert site.open().acquire("three", T0.after(71), DURATION, WAIT) is not None


def test_a_third_daemon_that_only_looks_never_makes_the_holder_lose_the_lease(site: Site) -> None:
    first, term = decider(site)
    others = [site.open() for _ in range(3)]
    for seconds in range(1, 300):
        for other in others:
            assert other.acquire(f"other {id(other)}", T0.after(seconds), DURATION, WAIT) is None
        if seconds % 20 == 0:
            lease = first.acquire("one", T0.after(seconds), DURATION, WAIT)
            assert lease is not None
            assert lease.term == term


def test_of_two_that_wait_for_a_dead_holder_exactly_one_gets_the_lease(site: Site) -> None:
    first, term = decider(site)
    first.close()
    second, third = site.open(), site.open()
    got = []
    for seconds in range(1, 40):
        for name, store in (("two", second), ("three", third)):
            lease = store.acquire(name, T0.after(seconds), DURATION, WAIT)
            if lease is not None:
                got.append((name, lease.term))
    assert set(got) == {("two", term + 1)}


# ---------------------------------------------------------------- requests


def test_requests_wait_in_the_order_of_their_coming_until_they_are_answered(site: Site) -> None:
    store, term = decider(site)
    cli = site.open()
    for number in (2, 1, 3):
        cli.submit(request(number))
    assert [r.id for r in store.pending()] == ["id-002", "id-001", "id-003"]
    accepted = Answer("id-002", RequestState.ACCEPTED, "a handover runs")
    refused = Answer("id-001", RequestState.REFUSED, "not fit")
    store.commit(Commit(term, answers=(accepted, refused)))
    assert [r.id for r in store.pending()] == ["id-002", "id-003"]
    assert cli.answer("id-002") == accepted
    assert cli.answer("id-001") == refused
    assert cli.answer("id-003") == Answer("id-003", RequestState.PENDING, "")
    assert cli.answer("never seen") is None


def test_a_request_comes_back_as_it_was_given(site: Site) -> None:
    full = Request("x", Verb.SWITCHOVER, T0, T0.after(60), "Zoë", "backup", "kernel \ud800 upgrade", 14_400.0, True, 7)
    site.open().submit(full)
    assert site.open().pending() == (full,)


def test_the_same_request_twice_counts_once_and_another_one_under_its_id_is_refused(site: Site) -> None:
    store = site.open()
    store.submit(request(1))
    store.submit(request(1))
    assert store.pending() == (request(1),)
    with pytest.raises(StoreError, match="id-001"):
        store.submit(request(1, Verb.RESUME))


def test_the_hundred_and_first_waiting_request_is_refused_with_a_mend(site: Site) -> None:
    store, term = decider(site)
    for number in range(100):
        store.submit(request(number))
    with pytest.raises(StoreError, match="100 requests wait already") as refusal:
        store.submit(request(100))
    assert refusal.value.mend
    store.commit(Commit(term, answers=(Answer("id-000", RequestState.EXPIRED, "too late"),)))
    store.submit(request(100))
    assert len(store.pending()) == 100


def test_old_answers_are_forgotten_and_waiting_requests_never(site: Site) -> None:
    store, term = decider(site)
    store.submit(request(0))
    for number in range(1, 1_012):
        store.submit(request(number))
        store.commit(Commit(term, answers=(Answer(request(number).id, RequestState.DONE, "done"),)))
    assert store.answer("id-001") is None
    assert store.answer(request(1_011).id) is not None
    assert store.pending() == (request(0),)


def test_changed_tells_of_anothers_request(site: Site) -> None:
    store, _ = decider(site)
    before = store.changed()
    assert store.changed() == before
    site.open().submit(request(1))
    assert store.changed() != before


# ---------------------------------------------------------------- journal


def test_history_pages_by_id_and_filters_by_time(site: Site) -> None:
    store, term = decider(site)
    store.commit(Commit(term, events=tuple(event(n) for n in range(10))))
    entries = store.history()
    assert [e.event.generation for e in entries] == list(range(10))
    assert [e.id for e in entries] == sorted({e.id for e in entries})
    assert [e.event.generation for e in store.history(after=entries[6].id)] == [7, 8, 9]
    assert [e.event.generation for e in store.history(since_utc=T0.utc + 8)] == [8, 9]
    assert [e.event.generation for e in store.history(limit=2)] == [0, 1]
    assert store.history(limit=-1) == ()


def test_a_step_is_unfinished_until_it_is_done_or_failed(site: Site) -> None:
    store, term = decider(site)
    started = [event(n, EventKind.STEP_STARTED, step=f"s{n}") for n in range(3)]
    store.commit(Commit(term, events=tuple(started)))
    assert store.unfinished() == tuple(started)
    store.commit(Commit(term, events=(event(5, EventKind.STEP_DONE, step="s0"),)))
    store.commit(Commit(term, events=(event(6, EventKind.STEP_FAILED, step="s2"),)))
    assert site.open().unfinished() == (started[1],)


def test_a_whole_handover_can_be_reserved_more_than_once(site: Site) -> None:
    store, _ = decider(site)
    store.reserve()
    store.reserve()


def test_no_descriptor_of_a_store_reaches_a_child_process(site: Site) -> None:
    store, _ = decider(site)
    store.reserve()
    for name in os.listdir("/proc/self/fd"):
        try:
            inheritable = os.get_inheritable(int(name))
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        assert not ("/state" in target and inheritable)
