"""The whole core on virtual time: probes, board, tick, store, edges, and what reaches the proxies."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from core_world import Core

from failover.errors import StoreFull
from failover.model import Admin, StepKind, Verb

Story = Callable[[Core], Coroutine[Any, Any, None]]


def play(folder: Path, story: Story, **fields: object) -> Core:
    core = Core(folder, **fields)  # type: ignore[arg-type]
    core.loop.run(story(core))
    assert core.truth.breaches == []
    return core


def test_a_first_start_adopts_the_producer_that_is_up_and_carries_sessions(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        took = await core.until(lambda: core.steady("main"), 30)
        assert took < 5
        await core.leave()
        assert core.recorder.kinds()[-1] == "stopped"

    play(tmp_path, story)


def test_main_dies_and_backup_is_admitted_after_patience(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        took = await core.until(lambda: core.steady("backup"))
        assert took == pytest.approx(300, abs=15)
        assert all(d.admin == {"main": Admin.MAINT, "backup": Admin.READY} for d in core.truth.doors.values())
        core.truth.nodes["main"].up = True
        took = await core.until(lambda: core.steady("main"))
        assert took == pytest.approx(1800, abs=30)
        await core.leave()

    play(tmp_path, story)


def test_the_loser_is_closed_everywhere_before_the_winner_is_opened_anywhere(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        request = await core.ask(Verb.SWITCHOVER, "backup")
        await core.until(lambda: core.steady("backup"), 30)
        answer = core.store.answer(request)
        assert answer is not None
        assert answer.state.value == "done"
        closes = [t for t, kind, _, producer in core.truth.sent if kind is StepKind.CLOSE and producer == "main"]
        opens = [t for t, kind, _, producer in core.truth.sent if kind is StepKind.OPEN and producer == "backup"]
        assert len(closes) == len(opens) == 2
        assert max(closes) < min(opens)
        await core.leave()

    play(tmp_path, story)


def test_a_server_opened_by_hand_is_closed_at_the_next_reading(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.move("p2", "backup", Admin.READY, by_hand=True)
        took = await core.until(lambda: core.truth.admitted() == {"main"}, 30)
        assert took <= core.pool.health.interval / 5 + 0.2
        await core.host.sleep(5)
        assert "split-brain" in core.recorder.kinds()
        assert "split-brain-healed" in core.recorder.kinds()
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("hung", ["p1", "p2", "main", "backup", "127.0.0.99:3001"])
def test_a_part_that_hangs_delays_no_other(tmp_path: Path, hung: str) -> None:
    def paces(folder: Path, part: str | None) -> dict[str, int]:
        async def story(core: Core) -> None:
            core.start()
            await core.until(lambda: core.steady("main"))
            if part is not None:
                core.truth.hung.add(part)
            start = core.truth.now()
            for pace in core.truth.paces.values():
                pace.clear()
            await core.host.sleep(200)
            assert core.truth.now() - start == pytest.approx(200)
            await core.leave()

        core = play(folder, story)
        return {name: len(times) for name, times in core.truth.paces.items() if name != hung}

    usual, disturbed = paces(tmp_path / "a", None), paces(tmp_path / "b", hung)
    assert usual.keys() == disturbed.keys()
    for name, count in usual.items():
        assert disturbed[name] == pytest.approx(count, abs=2), name


def test_a_store_that_hangs_stops_steps_and_delays_no_probe(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.host.hang("store")
        before = len(core.truth.paces["p1"])
        core.truth.move("p2", "backup", Admin.READY, by_hand=True)
        await core.host.sleep(100)
        assert len(core.truth.paces["p1"]) - before == pytest.approx(50, abs=3)
        assert core.truth.sent == []  # nothing was journalled, so nothing was sent
        core.host.heal("store")
        await core.until(lambda: core.truth.admitted() == {"main"}, 60)
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("moment", ["fencing", "promoting"])
def test_killed_in_the_middle_of_a_handover_the_next_daemon_finishes_it(tmp_path: Path, moment: str) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        await core.ask(Verb.SWITCHOVER, "backup")

        def reached() -> bool:
            a = core.controller.report().assignment
            return a is not None and a.phase.value == moment

        for _ in range(2000):
            if reached():
                break
            await core.host.sleep(0.001)
        assert reached()
        await core.kill()
        killed = core.truth.now()
        core.start(name="two")
        await core.until(lambda: core.steady("backup"), 120)
        took = core.truth.now() - killed
        assert took < core.pool.lease.duration + core.pool.lease.action_timeout + 30
        await core.leave()

    core = play(tmp_path, story)
    assert all(d.admin["main"] is Admin.MAINT for d in core.truth.doors.values())


def test_a_full_disk_starts_no_handover_says_so_and_recovers(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.store.fail = StoreFull("the state folder is full")
        core.truth.nodes["main"].up = False
        await core.host.sleep(400)
        assert core.truth.sent == []
        assert core.controller.report().store_error is not None
        assert any("full" in e.reason for e in core.recorder.events if e.kind.value == "alert")
        core.store.fail = None
        await core.until(lambda: core.steady("backup"), 60)
        await core.leave()

    play(tmp_path, story)


def test_an_hour_of_suspension_moves_nothing(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        await core.host.sleep(200)  # 200 of 300 s of patience
        core.host.jump(3600)
        await core.host.sleep(60)
        assert core.truth.sent == []
        took = await core.until(lambda: core.steady("backup"))
        assert took == pytest.approx(240, abs=40)
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_a_clock_that_is_set_moves_nothing(tmp_path: Path, step: float) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        await core.host.sleep(100)
        core.host.step_utc(step)
        await core.host.sleep(100)
        assert core.truth.sent == []
        took = await core.until(lambda: core.steady("backup"))
        assert took == pytest.approx(100, abs=15)
        await core.leave()

    play(tmp_path, story)


def test_stopped_in_good_order_it_resigns_and_the_next_one_starts_at_once(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        await core.leave()
        core.start(name="two")
        took = await core.until(lambda: core.controller.report().held and core.steady("main"), 30)
        assert took < 3
        await core.leave()

    play(tmp_path, story)


def test_the_timers_survive_a_restart(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        await core.host.sleep(200)
        await core.leave()
        await core.host.sleep(5)
        core.start(name="two")
        took = await core.until(lambda: core.steady("backup"))
        assert took == pytest.approx(95, abs=15)
        await core.leave()

    play(tmp_path, story)


def test_an_observer_writes_no_phase_and_sends_nothing(tmp_path: Path) -> None:
    from dataclasses import replace

    from policy_world import make_pool

    async def story(core: Core) -> None:
        core.start()
        await core.host.sleep(30)
        core.truth.nodes["main"].up = False
        await core.host.sleep(600)
        assert core.truth.sent == []
        assert core.store.load().assignment is None
        said = [e.reason for e in core.recorder.events if e.kind.value == "decision"]
        assert any(words.startswith("would: main") for words in said)
        assert any("backup takes over" in words for words in said)
        await core.leave()

    play(tmp_path, story, pool=replace(make_pool(), mode="observe"))


def test_decisions_and_beginnings_are_committed_before_the_first_step_leaves(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))

        def committed(kind: StepKind, proxy: str, producer: str) -> None:
            rows = [e for c in core.store.commits for e in c.events]
            gate = f"{producer}@{proxy}"
            begun = [e for e in rows if e.kind.value == "step-started" and e.detail["gate"] == gate]
            decided = [c.assignment for c in core.store.commits if c.assignment is not None]
            assert begun, f"journal-first: {gate} was sent before it was journalled"
            assert decided[-1] == core.controller.report().assignment

        core.truth.before_send = committed
        await core.ask(Verb.SWITCHOVER, "backup")
        await core.until(lambda: core.steady("backup"), 30)
        await core.leave()

    play(tmp_path, story)


def test_freshness_a_step_that_was_overtaken_on_its_way_is_not_sent(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.holds["p2"] = 5.0
        await core.ask(Verb.SWITCHOVER, "backup")
        await core.host.sleep(2)  # p1 was closed, the step for p2 is on its way
        assert [(kind, proxy) for _, kind, proxy, _ in core.truth.sent] == [(StepKind.CLOSE, "p1")]
        core.host.jump(3600)  # suspended: the lease is long gone
        await core.host.sleep(4)
        results = [e.detail["result"] for e in core.recorder.events if e.kind.value == "step-done"]
        assert results == ["sent", "overtaken"]
        assert len(core.truth.sent) == 1
        core.truth.holds.clear()
        await core.until(lambda: core.steady("backup") or core.steady("main"), 60)
        await core.leave()

    play(tmp_path, story)


def test_freshness_nothing_runs_that_is_older_than_a_generation_already_applied(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.holds["p2"] = 5.0
        await core.ask(Verb.SWITCHOVER, "backup")
        await core.host.sleep(2)
        await core.ask(Verb.SWITCHOVER, "main", force=True)
        await core.host.sleep(2)
        assert core.controller.report().assignment.generation == 3  # type: ignore[union-attr]
        core.truth.holds.clear()
        await core.until(lambda: core.steady("main"), 60)
        stale = [(kind, proxy, producer) for _, kind, proxy, producer in core.truth.sent if producer == "main"]
        assert (StepKind.CLOSE, "p2", "main") not in stale
        await core.leave()

    play(tmp_path, story)


def test_a_changed_file_is_taken_over_between_two_turns(tmp_path: Path) -> None:
    from dataclasses import replace

    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        await core.host.sleep(200)
        faster = replace(core.pool.policy, fail_over_after=220.0)
        core.controller.reload(replace(core.pool, policy=faster))
        took = await core.until(lambda: core.steady("backup"))
        assert took == pytest.approx(20, abs=15)  # the timers went on
        assert "config-reloaded" in core.recorder.kinds()
        await core.leave()

    play(tmp_path, story)


def test_with_no_answer_from_any_reference_nothing_is_moved(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.hung.add("127.0.0.99:3001")
        core.truth.nodes["main"].up = False
        await core.host.sleep(1000)
        assert core.truth.sent == []
        assert core.controller.report().view.isolated
        core.truth.hung.clear()
        took = await core.until(lambda: core.steady("backup"))
        assert took == pytest.approx(310, abs=25)  # patience begins anew
        await core.leave()

    play(tmp_path, story)


def test_two_daemons_only_one_acts_and_the_other_takes_over_after_a_kill(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        first_store, first = core.store, core.task
        core.start(name="two")
        await core.host.sleep(100)
        assert not core.controller.report().held
        assert core.active() == "main"  # it reads what the first one wrote
        first_store.close()
        first.cancel()
        await core.until(lambda: core.controller.report().held, 120)
        core.truth.move("p1", "backup", Admin.READY, by_hand=True)
        await core.until(lambda: core.truth.admitted() == {"main"}, 30)
        await core.leave()

    play(tmp_path, story)


def test_a_proxy_whose_servers_lead_to_each_other_s_addresses_is_not_steered(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.swapped.add("p2")
        core.truth.nodes["main"].up = False
        await core.host.sleep(250)
        assert core.controller.report().view.proxies["p2"].error is not None
        assert "leads to 127.0.0.12:3001, which is backup" in str(core.controller.report().view.proxies["p2"].error)
        assert not [sent for sent in core.truth.sent if sent[2] == "p2"]
        await core.leave()

    play(tmp_path, story)


def test_a_lease_that_the_file_makes_longer_is_kept(tmp_path: Path) -> None:
    from dataclasses import replace

    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        longer = replace(core.pool.lease, duration=120.0, renew=40.0, action_timeout=50.0)
        core.controller.reload(replace(core.pool, lease=longer))
        await core.host.sleep(60)
        for _ in range(120):
            await core.host.sleep(1)
            assert core.controller.report().held
        await core.leave()

    play(tmp_path, story)


def test_a_restarted_daemon_moves_nothing_before_its_own_first_ping(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start(name="one")
        await core.until(lambda: core.steady("main"))
        core.truth.nodes["main"].up = False
        await core.host.sleep(295)
        await core.leave()
        core.truth.nodes["main"].up = True
        await core.host.sleep(18)
        core.start(name="two")
        await core.host.sleep(120)
        assert core.steady("main")
        assert core.truth.sent == []
        await core.leave()

    play(tmp_path, story)


def test_every_step_that_was_journalled_as_begun_has_an_end(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        await core.ask(Verb.SWITCHOVER, "backup")
        core.truth.hung.add("p2")
        await core.host.sleep(60)
        core.truth.hung.clear()
        await core.until(lambda: core.steady("main") or core.steady("backup"), 200)
        await core.host.sleep(15)
        assert core.store.unfinished() == ()
        await core.leave()

    play(tmp_path, story)
