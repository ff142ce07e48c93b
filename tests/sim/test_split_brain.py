"""Split brain through restarts, reloads and a change of decider, with the whole core on virtual time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from core_world import Core
from test_controller import play

from failover import incidents
from failover.incidents import Ledger
from failover.model import Admin, Event, EventKind, Verb


def stored(core: Core) -> Ledger:
    return incidents.restore(core.store.load().timers.get("incidents"))


def journal(core: Core, *kinds: EventKind) -> list[Event]:
    return [entry.event for entry in core.store.history() if entry.event.kind in kinds]


def split_alerts(core: Core) -> list[Event]:
    return [e for e in journal(core, EventKind.ALERT) if str(e.detail["alert"]).startswith("split-brain")]


async def split(core: Core, name: str = "one") -> float:
    """A paused pool in which somebody opens backup's gate; returns when."""
    core.start(name=name)
    await core.until(lambda: core.steady("main"))
    await core.ask(Verb.PAUSE)
    await core.host.sleep(5)
    core.truth.move("p2", "backup", Admin.READY, by_hand=True)
    opened = core.truth.now()
    await core.until(lambda: bool(split_alerts(core)), 10)
    return opened


def test_the_report_says_what_was_done_and_is_in_the_journal_with_the_next_number(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        for number in (1, 2):
            core.truth.move("p2", "backup", Admin.READY, by_hand=True)
            await core.until(lambda n=number: len(journal(core, EventKind.SPLIT_BRAIN_HEALED)) == n, 30)  # type: ignore[misc]
            await core.host.sleep(400)
        healed = journal(core, EventKind.SPLIT_BRAIN_HEALED)
        assert [e.detail["incident"] for e in healed] == [1, 2]
        report = healed[0].detail
        assert report["gates"] == ["backup@p2"]
        assert report["allowed"] == ["another hand opened backup@p2"]
        assert [(d["what"], d["result"]) for d in report["done"]] == [("close backup@p2: sent", "sent")]
        assert report["seconds"] < 1
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_a_restart_neither_dates_it_anew_nor_heals_it_by_forgetting_nor_tells_it_early(
    tmp_path: Path, killed: bool
) -> None:
    async def story(core: Core) -> None:
        await split(core)
        began = stored(core).open
        assert began is not None
        await core.host.sleep(100)
        await (core.kill() if killed else core.leave())
        core.start(name="two")
        core.truth.hung.add("p2")  # the gate cannot be read again for a while
        await core.until(lambda: core.controller.report().held, 120)
        await core.host.sleep(20)
        outcome = core.recorder.last
        assert outcome is not None
        assert outcome.split_brain
        (gate,) = (d for d in outcome.drift if d.kind == "split-brain")
        assert gate.since == began.began
        assert stored(core).open == began
        assert len(journal(core, EventKind.SPLIT_BRAIN)) == 1
        assert not journal(core, EventKind.SPLIT_BRAIN_HEALED)
        await core.until(lambda: len(split_alerts(core)) == 2, 400)
        first, second = split_alerts(core)
        assert second.at.utc - first.at.utc == pytest.approx(300, abs=11)
        assert second.detail["incident"] == 1
        core.truth.hung.clear()
        await core.ask(Verb.RESUME)
        await core.until(lambda: bool(journal(core, EventKind.SPLIT_BRAIN_HEALED)), 30)
        (healed,) = journal(core, EventKind.SPLIT_BRAIN_HEALED)
        assert healed.detail["seconds"] == pytest.approx(healed.at.utc - began.began.utc, abs=0.01)
        assert [d["what"] for d in healed.detail["done"]] == ["close backup@p2: sent"]
        await core.leave()

    play(tmp_path, story)


def test_a_split_that_ended_while_nobody_watched_is_reported_by_the_next_daemon(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        await split(core)
        await core.leave()
        core.truth.move("p2", "backup", Admin.MAINT, by_hand=True)
        await core.host.sleep(100)
        core.start(name="two")
        await core.until(lambda: bool(journal(core, EventKind.SPLIT_BRAIN_HEALED)), 30)
        (healed,) = journal(core, EventKind.SPLIT_BRAIN_HEALED)
        assert (healed.detail["incident"], healed.detail["done"]) == (1, [])
        assert healed.detail["seconds"] > 100
        assert stored(core).seconds == pytest.approx(healed.detail["seconds"], abs=0.01)
        await core.leave()

    play(tmp_path, story)


def test_one_that_came_while_the_controller_was_away_is_said_to_have(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        await core.host.sleep(20)
        await core.leave()
        core.truth.move("p2", "backup", Admin.READY, by_hand=True)
        await core.host.sleep(100)
        core.start(name="two")
        await core.until(lambda: bool(journal(core, EventKind.SPLIT_BRAIN_HEALED)), 30)
        (healed,) = journal(core, EventKind.SPLIT_BRAIN_HEALED)
        assert healed.detail["allowed"] == ["backup@p2 was open when the controller looked again: it had been away"]
        await core.leave()

    play(tmp_path, story)


def test_a_reloaded_file_keeps_the_incident_its_date_and_its_telling(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        await split(core)
        before = stored(core).open
        await core.host.sleep(50)
        core.controller.reload(replace(core.pool, policy=replace(core.pool.policy, fail_over_after=200.0)))
        await core.host.sleep(150)
        assert stored(core).open == before
        assert len(split_alerts(core)) == 1
        await core.until(lambda: len(split_alerts(core)) == 2, 200)
        await core.leave()

    play(tmp_path, story)


def test_another_decider_takes_the_incident_over(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        await split(core)
        began, first_store, first = stored(core).open, core.store, core.task
        core.start(name="two")
        await core.host.sleep(30)
        assert not core.controller.report().held
        first_store.close()
        first.cancel()
        await core.until(lambda: core.controller.report().held, 120)
        await core.host.sleep(20)
        assert stored(core).open == began
        assert len(journal(core, EventKind.SPLIT_BRAIN)) == 1
        await core.until(lambda: len(split_alerts(core)) == 2, 400)
        await core.leave()

    play(tmp_path, story)


def test_the_row_and_the_timers_are_one_commit(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        await split(core)
        commit = next(c for c in core.store.commits if any(e.kind is EventKind.SPLIT_BRAIN for e in c.events))
        assert commit.timers is not None
        assert incidents.restore(commit.timers["incidents"]).number == 1
        await core.leave()

    play(tmp_path, story)


def test_in_mode_observe_it_is_told_with_the_reason_why_nothing_is_done(tmp_path: Path) -> None:
    from policy_world import make_pool

    async def story(core: Core) -> None:
        core.start()
        await core.host.sleep(30)
        core.truth.move("p2", "backup", Admin.READY, by_hand=True)
        await core.host.sleep(1500)
        told = split_alerts(core)
        assert [round(e.at.utc - told[0].at.utc, -2) for e in told] == [0, 300, 1200]
        assert "mode: observe, nothing is moved" in told[0].reason
        assert core.truth.sent == []
        await core.leave()

    play(tmp_path, story, pool=replace(make_pool(), mode="observe"))
