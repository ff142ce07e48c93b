"""Records in the whole core on virtual time: what reaches the provider, when, and that nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from core_world import Core
from policy_world import make_gateless_pool, make_pool

from failover.model import Admin, Change, RecordType, RRset, Verb

NAME = "bp.example.com."
Story = Callable[[Core], Coroutine[Any, Any, None]]


def play(folder: Path, story: Story, *, gateless: bool = False) -> Core:
    core = Core(folder, pool=make_gateless_pool() if gateless else make_pool(records=(NAME,)))
    core.loop.run(story(core))
    assert core.truth.breaches == []
    return core


def told(core: Core) -> str | None:
    return core.pool.records[0].points_to(core.truth.signs[NAME].rrset)


def asked(core: Core, what: str) -> list[float]:
    return [at for at, kind in core.truth.asked if kind == what]


def test_the_record_follows_the_role_while_the_gates_are_opened(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        await core.ask(Verb.SWITCHOVER, "backup")
        await core.until(lambda: core.steady("backup"), 30)
        await core.until(lambda: told(core) == "backup", 5)
        opened = min(at for at, kind, _, _ in core.truth.sent if kind.value == "open")
        assert asked(core, "change") == [pytest.approx(opened, abs=0.5)]
        await core.until(lambda: core.controller.report().view.records[NAME].insync_at is not None, 60)
        assert not any(e.kind.value == "drift" for e in core.recorder.events)
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("fault", ["hangs", "throttles", "loses answers"])
def test_a_provider_in_trouble_does_not_delay_the_proxies(tmp_path: Path, fault: str) -> None:
    took: list[float] = []

    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        await core.host.sleep(1)
        if len(took) == 1:
            core.truth.signs[NAME].loses = fault == "loses answers"
            core.truth.throttled = fault == "throttles"
            core.truth.hung.update({NAME} if fault == "hangs" else ())
        await core.ask(Verb.SWITCHOVER, "backup")
        took.append(await core.until(lambda: core.steady("backup"), 30))
        await core.leave()

    play(tmp_path / "well", story)
    play(tmp_path / "ill", story)
    assert took[1] == pytest.approx(took[0], abs=0.2)


def test_in_steady_state_one_question_a_minute_and_no_change(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        began = core.truth.now()
        await core.host.sleep(3600)
        calls = [kind for at, kind in core.truth.asked if at > began]
        assert len(calls) <= 60
        assert set(calls) == {"read"}
        await core.leave()

    play(tmp_path, story)


def test_ten_minutes_of_throttling_are_borne_with_few_questions(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.throttled = True
        await core.ask(Verb.SWITCHOVER, "backup")
        began = core.truth.now()
        await core.until(lambda: core.steady("backup"), 30)
        await core.host.sleep(600)
        assert len([at for at, _ in core.truth.asked if at > began]) < 40
        core.truth.throttled = False
        await core.until(lambda: told(core) == "backup", 120)
        await core.leave()

    play(tmp_path, story)


def test_a_second_writer_between_reading_and_change_is_not_overwritten_unseen(tmp_path: Path) -> None:
    foreign = RRset(RecordType.A, ("198.51.100.7",), 60)
    expected: list[RRset | None] = []

    async def story(core: Core) -> None:
        def meddle(change: Change) -> None:
            expected.append(change.expected)
            if len(expected) == 1:
                core.truth.signs[NAME].rrset = foreign

        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.before_change = meddle
        await core.ask(Verb.SWITCHOVER, "backup")
        await core.until(lambda: told(core) == "backup", 60)
        assert expected == [core.pool.records[0].wanted("main"), foreign]
        results = [e.detail.get("result") for e in core.recorder.events if e.detail.get("kind") == "point"]
        assert "conflict" in results
        await core.leave()

    play(tmp_path, story)


def test_a_change_whose_answer_was_lost_is_seen_and_not_sent_again(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.signs[NAME].loses = True
        await core.ask(Verb.SWITCHOVER, "backup")
        await core.until(lambda: core.steady("backup"), 60)
        await core.host.sleep(300)
        assert told(core) == "backup"
        assert len(asked(core, "change")) == 1
        assert not any("another hand" in e.reason for e in core.recorder.events)
        await core.leave()

    play(tmp_path, story)


def test_a_plan_that_was_overtaken_while_it_waited_is_never_sent(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        core.truth.holds[NAME] = 8.0  # a connection that takes its time
        await core.ask(Verb.SWITCHOVER, "backup")
        await core.until(lambda: core.steady("backup"), 30)
        await core.ask(Verb.SWITCHOVER, "main")
        await core.until(lambda: core.steady("main"), 30)
        await core.host.sleep(60)
        assert asked(core, "change") == []
        assert told(core) == "main"
        await core.leave()

    play(tmp_path, story)


@pytest.mark.parametrize("gateless", [False, True])
def test_killed_before_during_and_after_the_change_the_next_daemon_ends_it(tmp_path: Path, gateless: bool) -> None:
    for number, delay in enumerate((0.0, 0.02, 0.05, 0.1, 0.5)):

        async def story(core: Core, delay: float = delay) -> None:
            core.start()
            await core.until(lambda: core.steady("main"))
            await core.ask(Verb.SWITCHOVER, "backup")
            await core.until(lambda: bool(asked(core, "change")), 30)
            await core.host.sleep(delay)
            await core.kill()
            core.start(name="two")
            await core.until(lambda: core.steady("backup") and told(core) == "backup", 200)
            await core.host.sleep(120)
            assert told(core) == "backup"
            await core.leave()

        play(tmp_path / str(number), story, gateless=gateless)


def test_without_any_gate_the_handover_ends_with_the_accepted_change_and_does_not_wait_for_it_to_spread(
    tmp_path: Path,
) -> None:
    async def story(core: Core) -> None:
        core.truth.spreads_in = 100_000.0
        core.start()
        await core.until(lambda: core.steady("main"))
        await core.ask(Verb.SWITCHOVER, "backup")
        assert await core.until(lambda: core.steady("backup"), 30) < 2
        await core.host.sleep(900)
        assert any("still not on every server" in e.reason for e in core.recorder.events)
        settled = len(asked(core, "settled"))
        await core.host.sleep(3600)
        assert len(asked(core, "settled")) - settled <= 60
        await core.leave()

    play(tmp_path, story, gateless=True)


def test_a_change_by_another_hand_is_seen_by_the_servers_answers_before_the_next_reading(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        await core.host.sleep(300)
        core.truth.signs[NAME].rrset = core.pool.records[0].wanted("backup")
        await core.until(lambda: told(core) == "main", 61)
        await core.leave()

    play(tmp_path, story)


def test_while_the_lease_is_lost_no_record_is_changed(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        from failover.errors import StoreError

        core.store.fail = StoreError("no")  # commits fail: nothing may be sent
        core.truth.signs[NAME].rrset = core.pool.records[0].wanted("backup")
        await core.host.sleep(200)
        assert asked(core, "change") == []
        core.store.fail = None
        await core.until(lambda: told(core) == "main", 120)
        await core.leave()

    play(tmp_path, story)


def test_what_relays_may_believe_survives_a_restart(tmp_path: Path) -> None:
    async def story(core: Core) -> None:
        core.start()
        await core.until(lambda: core.steady("main"))
        await core.ask(Verb.SWITCHOVER, "backup")
        await core.until(lambda: core.steady("backup"), 30)
        await core.until(lambda: core.controller.report().view.records[NAME].right_at is not None, 100)
        before = core.controller.report().view.records[NAME].believed
        assert [b.rrset for b in before] == [core.pool.records[0].wanted("main")]
        await core.leave()
        core.start(name="two")
        await core.until(lambda: core.steady("backup"))
        assert core.controller.report().view.records[NAME].believed == before
        await core.host.sleep(1100)
        assert core.controller.report().view.records[NAME].believed == ()
        await core.leave()

    core = play(tmp_path, story)
    assert all(d.admin["backup"] is Admin.READY for d in core.truth.doors.values())
