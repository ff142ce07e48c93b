"""Clocks that are set, machines that were suspended, and requests that cross a handover, on virtual time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from core_world import Core

from failover.model import Admin, Request, StepKind, Verb

Story = Callable[[Core], Coroutine[Any, Any, None]]
BEFORE_1970 = -2_000_000_000.0
STEPS = [-7200.0, 7200.0, BEFORE_1970, 10 * 365 * 86400.0]


def play(folder: Path, story: Story, **fields: Any) -> Core:
    core = Core(folder, **fields)
    core.loop.run(story(core))
    assert core.truth.breaches == []
    return core


async def ask(core: Core, verb: Verb, producer: str | None = None, seconds: float | None = None) -> str:
    """As Core.ask, with an end."""
    now = core.host.now()
    id_ = f"request-{core.loop.count('request')}"
    core.store.submit(Request(id_, verb, now, now.after(60), "op", producer, seconds=seconds))
    core.controller._seen_change = -1  # data_version does not rise for one's own connection
    return id_


async def answered(core: Core, request: str) -> tuple[str, str]:
    """The last word on a request, and why."""

    def final() -> bool:
        answer = core.store.answer(request)
        return answer is not None and answer.state.value not in ("pending", "accepted")

    await core.until(final, 120)
    answer = core.store.answer(request)
    assert answer is not None
    return answer.state.value, answer.text


async def no_step_for(core: Core, seconds: float) -> None:
    before = list(core.truth.sent)
    await core.host.sleep(seconds)
    assert core.truth.sent == before


# ---------------------------------------------------------------- a clock that is set


@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_is_set_in_steady_moves_nothing_and_keeps_the_lease(tmp_path: Path, step: float) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        generation = core.controller.report().assignment.generation  # type: ignore[union-attr]
        told = len(core.recorder.events)
        core.host.step_utc(step)
        await no_step_for(core, 300)
        report = core.controller.report()
        assert report.held
        assert report.assignment is not None
        assert report.assignment.generation == generation
        assert not {"health-changed", "lease", "alert", "drift"} & set(core.recorder.kinds()[told:])
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_is_set_while_a_pause_runs_neither_shortens_nor_extends_it(tmp_path: Path, step: float) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        request = await ask(core, Verb.PAUSE, seconds=1000)
        assert (await answered(core, request))[0] == "done"
        core.truth.nodes["main"].up = False
        await core.host.sleep(100)
        core.host.step_utc(step)
        took = await core.until(lambda: core.steady("backup"))
        assert took == pytest.approx(900, abs=15)
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("step", STEPS)
def test_a_clock_that_is_set_does_not_hurry_a_failback(tmp_path: Path, step: float) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        await core.until(lambda: core.steady("backup"))
        core.truth.nodes["main"].up = True
        await core.host.sleep(600)
        core.host.step_utc(step)
        took = await core.until(lambda: core.steady("main"))
        assert took == pytest.approx(1200, abs=30)
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("step", STEPS)
def test_a_switchover_goes_through_though_the_clock_is_set_in_its_middle(tmp_path: Path, step: float) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.holds["p2"] = 3.0
        request = await ask(core, Verb.SWITCHOVER, "backup")
        await core.host.sleep(2)
        core.host.step_utc(step)
        assert (await answered(core, request))[0] == "done"
        assert core.steady("backup")
        assert all(d.admin == {"main": Admin.MAINT, "backup": Admin.READY} for d in core.truth.doors.values())
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_a_clock_that_is_set_between_two_runs_lets_the_next_daemon_go_on(tmp_path: Path, step: float) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        await core.host.sleep(200)
        await core.leave()
        core.start(name="two")
        core.host.step_utc(step)
        took = await core.until(lambda: core.steady("backup"))
        assert took == pytest.approx(100, abs=20)
        await core.leave()

    play(tmp_path, story)


# ---------------------------------------------------------------- an hour of suspension


@pytest.mark.parametrize("how", ["jump", "suspend"])
def test_an_hour_of_suspension_in_steady_moves_nothing_and_the_lease_is_taken_again(tmp_path: Path, how: str) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        getattr(core.host, how)(3600)
        await core.host.sleep(0.1)  # until it wakes
        await no_step_for(core, 120)
        report = core.controller.report()
        assert report.held
        assert core.steady("main")
        assert "split-brain" not in core.recorder.kinds()
        await core.leave()

    play(tmp_path, story)


def test_an_hour_of_suspension_does_not_count_as_an_hour_of_fitness(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        await core.until(lambda: core.steady("backup"))
        core.truth.nodes["main"].up = True
        await core.host.sleep(300)
        core.host.jump(3600)
        await no_step_for(core, 1200)
        assert core.steady("backup")
        took = await core.until(lambda: core.steady("main"))
        assert took == pytest.approx(620, abs=20)  # begun anew
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("moment", [0.5, 2.0, 3.2])
def test_suspended_for_an_hour_in_a_handover_it_finishes_and_never_admits_two(tmp_path: Path, moment: float) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.holds["p2"] = 3.0
        request = await ask(core, Verb.SWITCHOVER, "backup")
        await core.host.sleep(moment)
        core.host.suspend(3600)
        await core.host.sleep(0.1)  # until it wakes
        state, _ = await answered(core, request)
        assert state in ("done", "failed")
        await core.until(lambda: core.steady("backup") or core.steady("main"), 120)
        active = core.active()
        await core.host.sleep(60)
        assert core.truth.admitted() == {active}
        await core.leave()

    play(tmp_path, story)


def test_a_split_brain_that_came_while_suspended_is_repaired_at_the_next_reading_after_waking(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.host.suspend(3600)
        core.truth.move("p2", "backup", Admin.READY, by_hand=True)
        await core.host.sleep(0.1)  # until it wakes
        took = await core.until(lambda: core.truth.admitted() == {"main"}, 60)
        assert took < core.pool.health.interval
        await core.leave()

    play(tmp_path, story)


def test_a_request_that_was_made_before_an_hour_of_suspension_has_expired(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        request = await ask(core, Verb.SWITCHOVER, "backup")
        core.host.jump(3600)
        state, _ = await answered(core, request)
        assert state != "done"
        assert core.steady("main")
        assert core.truth.sent == []
        await core.leave()

    play(tmp_path, story)


def test_of_two_daemons_the_one_that_was_suspended_sends_nothing_after_the_other_took_over(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        first, first_store, first_task, first_stop = core.controller, core.store, core.task, core.stop
        core.host.suspend(3600)
        core.start(name="two")
        await core.until(lambda: core.controller.report().held, 200)
        core.truth.nodes["main"].up = False
        await core.until(lambda: core.steady("backup"))
        sent = len(core.truth.sent)
        await core.host.sleep(3700)
        assert core.controller.report().held
        assert not first.report().held
        assert len(core.truth.sent) == sent
        assert core.truth.admitted() == {"backup"}
        first_stop.set()
        await first_task
        first_store.close()
        await core.leave()

    play(tmp_path, story)


# ---------------------------------------------------------------- a switchover that cannot be


def test_while_a_handover_runs_another_switchover_is_refused_and_says_which_runs(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.holds["p2"] = 5.0
        first = await ask(core, Verb.SWITCHOVER, "backup")
        await core.host.sleep(2)
        for producer in ("main", "backup"):
            state, text = await answered(core, await ask(core, Verb.SWITCHOVER, producer))
            assert state == "refused"
            assert "a handover to backup is under way" in text
        assert (await answered(core, first))[0] == "done"
        assert core.steady("backup")
        kinds = [(kind, producer) for _, kind, _, producer in core.truth.sent]
        assert set(kinds) == {(StepKind.CLOSE, "main"), (StepKind.OPEN, "backup")}
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("unknown", "'nobody' is no producer of this pool; there are main, backup"),
        ("down", "backup is not fit (down"),
        ("lagging", "slots behind"),
        ("cordoned", "backup is cordoned"),
    ],
)
def test_a_switchover_to_one_who_cannot_be_it_is_refused_with_the_reason_and_nothing_is_sent(
    tmp_path: Path, why: str, words: str
) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        if why == "down":
            core.truth.nodes["backup"].up = False
        elif why == "lagging":
            core.truth.nodes["backup"].lag = 500
        elif why == "cordoned":
            assert (await answered(core, await ask(core, Verb.CORDON, "backup")))[0] == "done"
        await core.host.sleep(60)
        before = core.controller.report().assignment
        request = await ask(core, Verb.SWITCHOVER, "nobody" if why == "unknown" else "backup")
        state, text = await answered(core, request)
        assert state == "refused"
        assert words in text
        assert core.truth.sent == []
        after = core.controller.report().assignment
        assert before is not None
        assert after is not None
        assert (after.generation, after.active, after.pinned) == (before.generation, "main", None)
        await core.leave()

    play(tmp_path, story)


def test_a_switchover_to_the_active_is_done_at_once_and_sends_nothing(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        state, text = await answered(core, await ask(core, Verb.SWITCHOVER, "main"))
        assert (state, text) == ("done", "main is the active producer already")
        assert core.truth.sent == []
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("moment", [0.5, 2.0, 3.2])
def test_stopped_in_good_order_in_a_handover_the_next_daemon_finishes_it(tmp_path: Path, moment: float) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        core.truth.holds["p2"] = 3.0
        request = await ask(core, Verb.SWITCHOVER, "backup")
        await core.host.sleep(moment)
        await core.leave()
        core.truth.holds.clear()
        core.start(name="two")
        await core.until(lambda: core.steady("backup"), 120)
        assert core.store.unfinished() == ()
        assert (await answered(core, request))[0] == "done"
        await core.leave()

    play(tmp_path, story)
