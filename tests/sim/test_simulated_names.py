"""Names in a simulated world: each of their faults, what the controller sees of it, and what relays make of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from record_world import BACKUP, DYNAMIC, MAIN, NAME, ROUTE53, SWAP, Surroundings

from failover.errors import (
    RecordConflict,
    RecordError,
    RecordRefused,
    RecordThrottled,
    RecordTimeout,
    RecordUnreachable,
)
from failover.model import (
    Address,
    Change,
    DnsAnswer,
    Fault,
    RecordReading,
    RecordType,
    RRset,
)
from failover.simulator.loop import VirtualLoop
from failover.simulator.names import NEGATIVE_TTL, SERVERS, Cache, SimRecordPort, SimVerifyPort

OTHER = RRset(RecordType.A, ("198.51.100.7",), 300)
WITHIN = 10.0  # seconds that a call may take


class World(Surroundings):
    """One name and its surroundings, on a loop of its own."""

    def __init__(self, *, seed: int = 1, dynamic: bool = False, resolvers: tuple[Address, ...] = ()) -> None:
        self.loop = VirtualLoop(seed=seed)
        super().__init__(self.loop, DYNAMIC if dynamic else ROUTE53, resolvers=resolvers)
        self.lives = True
        self.moments: list[str] = []
        self.at_moment: Callable[[str], None] = lambda moment: None
        self.port = SimRecordPort(*self.way, alive=lambda: self.lives, moment=self._moment)
        self.verifier = SimVerifyPort(*self.way, alive=lambda: self.lives)

    def _moment(self, moment: str) -> None:
        self.moments.append(moment)
        self.at_moment(moment)

    async def change(self, change: Change = SWAP) -> str | None:
        return await self.port.change(change, WITHIN, lambda: True)

    async def held(self) -> RRset | None:
        return (await self.port.read(WITHIN)).rrset

    async def look(self) -> tuple[DnsAnswer, ...]:
        return await self.verifier.look(WITHIN)

    def says(self) -> list[RRset | None]:
        return [self.name.says(server).rrset for server in SERVERS]

    async def fails(self, kind: type[RecordError], attempt: Coroutine[Any, Any, Any], *words: str) -> float:
        """It fails so; the seconds that it took."""
        began = self.nature.now()
        with pytest.raises(RecordError) as caught:
            await attempt
        assert type(caught.value) is kind, caught.value
        assert caught.value.mend
        for word in words:
            assert word in str(caught.value)
        return self.nature.now() - began


Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story, **given: Any) -> World:
    world = World(**given)
    world.loop.run(story(world))
    return world


# ---------------------------------------------------------------- in quiet times


def test_a_reading_and_a_look_cost_two_timers_and_some_milliseconds() -> None:
    async def story(world: World) -> None:
        timers: list[int] = []
        real = world.loop.call_at_ns

        def counted(when: int, *rest: Any, **more: Any) -> asyncio.TimerHandle:
            timers.append(when)
            return real(when, *rest, **more)

        world.loop.call_at_ns = counted  # type: ignore[method-assign, assignment]
        for call in (world.port.read(WITHIN), world.verifier.look(WITHIN)):
            timers.clear()
            began = world.nature.now()
            await call
            assert len(timers) <= 2
            assert 0.0 < world.nature.now() - began < 0.1

    play(story)


@pytest.mark.parametrize("seed", range(5))
def test_a_change_at_route_53_reaches_each_server_after_5_to_60_s_and_settles_with_the_last(seed: int) -> None:
    async def story(world: World) -> None:
        change_id = await world.change()
        assert change_id
        assert world.name.rrset == BACKUP
        began = world.nature.now()
        reached: dict[str, float] = {}
        while not await world.port.settled(change_id, WITHIN):
            for server, answer in zip(SERVERS, world.says(), strict=True):
                if answer == BACKUP:
                    reached.setdefault(server, world.nature.now() - began)
            await world.host.sleep(0.1)
        assert world.says() == [BACKUP, BACKUP]
        took = world.nature.now() - began
        assert all(5 - 0.1 <= each <= 60 + 0.1 for each in reached.values())
        assert max(reached.values(), default=took) <= took <= 60.2
        assert await world.look() == tuple(DnsAnswer(server, True, BACKUP) for server in SERVERS)

    play(story, seed=seed)


def test_a_change_of_a_dynamic_zone_is_settled_at_once_and_its_secondary_follows_within_seconds() -> None:
    async def story(world: World) -> None:
        assert await world.change() == ""
        assert await world.port.settled("", WITHIN)
        assert world.says() == [BACKUP, MAIN]
        await world.host.sleep(5)
        assert world.says() == [BACKUP, BACKUP]

    play(story, dynamic=True)


def test_what_is_judged_of_a_change_is_written_down() -> None:
    async def story(world: World) -> None:
        changed: list[float] = []
        world.nature.changed = lambda: changed.append(world.nature.now())
        await world.change()
        await world.fails(RecordConflict, world.change())
        assert [tuple(tried)[1:] for tried in world.name.changes] == [(MAIN, BACKUP, True), (MAIN, BACKUP, False)]
        assert world.name.put_by == "controller"
        assert world.name.holds_one()
        await world.host.sleep(60)
        assert len(changed) == 3  # at the provider, and at each server
        assert [words for _, words in world.nature.story] == [
            f"{NAME} holds A 192.0.2.2 (TTL 60) at its provider, by controller",
            f"{NAME} is not changed by controller: it holds A 192.0.2.2 (TTL 60)",
            *(words for _, words in world.nature.story[2:]),
        ]
        assert sorted(words for _, words in world.nature.story[2:]) == [
            f"{server} says A 192.0.2.2 (TTL 60) of {NAME}" for server in SERVERS
        ]

    play(story)


@pytest.mark.parametrize(
    ("rrset", "one"),
    [(MAIN, True), (OTHER, True), (None, False), (replace(MAIN, ttl=0), False), (replace(MAIN, ttl=59), False)],
)
def test_one_value_with_a_ttl_of_at_least_60_is_what_a_name_must_hold(rrset: RRset | None, one: bool) -> None:
    async def story(world: World) -> None:
        if rrset is None:
            world.name.empty()
        else:
            world.name.point(rrset, "somebody")
        assert world.name.holds_one() is one
        world.name.point(replace(MAIN, values=("192.0.2.1", "192.0.2.2")), "somebody")
        assert not world.name.holds_one()

    play(story)


# ---------------------------------------------------------------- the provider in trouble


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_throttled_provider_says_so_and_changes_nothing(dynamic: bool) -> None:
    async def story(world: World) -> None:
        world.name.throttled = True
        for attempt in (world.port.read(WITHIN), world.change()):
            assert await world.fails(RecordThrottled, attempt) < 0.1
        if not dynamic:
            await world.fails(RecordThrottled, world.port.settled("C1", WITHIN))
        world.name.throttled = False
        assert await world.held() == MAIN

    play(story, dynamic=dynamic)


def test_a_refusing_provider_says_why_and_can_be_read() -> None:
    async def story(world: World) -> None:
        world.name.refuses = "AccessDenied"
        await world.fails(RecordRefused, world.change(), "AccessDenied")
        assert await world.held() == MAIN
        assert not world.name.changes[0].applied

    play(story)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_reply_that_is_lost_leaves_the_change_made(dynamic: bool) -> None:
    async def story(world: World) -> None:
        world.name.loses_replies = True
        assert await world.fails(RecordTimeout, world.change(), "unknown") == pytest.approx(WITHIN)
        assert await world.held() == BACKUP
        # An update leaves only where the name, just read, holds what is expected.
        await world.fails(RecordConflict if dynamic else RecordTimeout, world.change(Change(OTHER, MAIN)))
        assert await world.held() == BACKUP

    play(story, dynamic=dynamic)


def test_a_late_change_is_made_long_after_its_caller_gave_up() -> None:
    async def story(world: World) -> None:
        world.name.late = 120.0
        assert await world.fails(RecordTimeout, world.change(), "unknown") == pytest.approx(WITHIN)
        world.name.late = 0.0
        assert await world.held() == MAIN
        await world.host.sleep(111)
        assert await world.held() == BACKUP

    play(story)


def test_a_late_change_that_was_overtaken_is_still_a_compare_and_swap() -> None:
    async def story(world: World) -> None:
        world.name.late = 120.0
        await world.fails(RecordTimeout, world.change())
        world.name.late = 0.0
        third = replace(MAIN, values=("192.0.2.3",))
        await world.change(Change(MAIN, third))
        await world.host.sleep(200)
        assert await world.held() == third
        assert [tried.applied for tried in world.name.changes] == [True, False]

    play(story)


def test_a_hung_route_53_leaves_a_change_unknown_and_a_hung_primary_gets_none() -> None:
    async def story(world: World) -> None:
        world.name.hung = True
        kind = RecordTimeout if world.name.asynchronous else RecordUnreachable
        assert await world.fails(kind, world.change()) == pytest.approx(WITHIN)
        assert await world.fails(RecordUnreachable, world.port.read(WITHIN)) == pytest.approx(WITHIN)
        world.name.hung = False
        await world.host.sleep(600)
        assert await world.held() == MAIN
        assert world.name.changes == []

    play(story)
    play(story, dynamic=True)


def test_a_name_that_is_not_ours_is_read_as_such_and_not_changed() -> None:
    async def story(world: World) -> None:
        world.name.unownable = "is an alias (to x.example.test.)"
        assert await world.port.read(WITHIN) == RecordReading(None, "is an alias (to x.example.test.)")
        for expected in (None, MAIN):
            await world.fails(RecordConflict, world.change(Change(expected, BACKUP)), "alias")
        assert world.name.rrset == MAIN

    play(story)
    play(story, dynamic=True)


def test_a_change_that_stays_pending_is_not_settled_and_one_server_says_the_old_value() -> None:
    async def story(world: World) -> None:
        world.name.pending_for = 1800.0
        change_id = await world.change() or ""
        await world.host.sleep(1799)
        assert not await world.port.settled(change_id, WITHIN)
        assert world.says() == [BACKUP, MAIN]
        await world.host.sleep(1)
        assert await world.port.settled(change_id, WITHIN)
        assert world.says() == [BACKUP, BACKUP]

    play(story)


def test_an_older_change_that_takes_longer_does_not_come_back() -> None:
    async def story(world: World) -> None:
        world.name.spread = (100.0, 100.0)
        await world.change()
        world.name.spread = (1.0, 1.0)
        world.name.point(OTHER, "somebody")
        await world.host.sleep(1)
        assert world.says() == [OTHER, OTHER]
        await world.host.sleep(200)
        assert world.says() == [OTHER, OTHER]

    play(story)


# ---------------------------------------------------------------- another writer


def test_another_writer_is_told_of_and_makes_our_change_a_conflict() -> None:
    async def story(world: World) -> None:
        world.name.point(OTHER, "a person")
        await world.fails(RecordConflict, world.change(), "198.51.100.7")
        assert (world.name.rrset, world.name.put_by) == (OTHER, "a person")
        assert world.nature.story[0][1] == f"{NAME} holds A 198.51.100.7 (TTL 300) at its provider, by a person"
        await world.host.sleep(60)
        assert world.says() == [OTHER, OTHER]

    play(story)


def test_a_removed_record_reads_as_nothing_and_servers_say_for_how_long_that_may_be_kept() -> None:
    async def story(world: World) -> None:
        world.name.empty()
        assert await world.port.read(WITHIN) == RecordReading(None)
        await world.host.sleep(60)
        assert await world.look() == tuple(DnsAnswer(each, True, negative_ttl=NEGATIVE_TTL) for each in SERVERS)
        await world.change(Change(None, MAIN))
        assert await world.held() == MAIN

    play(story)


# ---------------------------------------------------------------- servers in trouble


def test_a_silent_server_costs_the_whole_look_and_says_nothing() -> None:
    async def story(world: World) -> None:
        world.name.silent = {"ns1"}
        began = world.nature.now()
        silent, well = await world.look()
        assert world.nature.now() - began == pytest.approx(WITHIN)
        assert (silent.server, silent.fault, silent.rrset) == ("ns1", Fault.SILENT, None)
        assert well == DnsAnswer("ns2", True, MAIN)
        world.name.silent -= {"ns1"}
        assert [answer.fault for answer in await world.look()] == [None, None]

    play(story)


def test_a_lame_server_answers_at_once_and_without_authority() -> None:
    async def story(world: World) -> None:
        world.name.lame |= {"ns2"}
        began = world.nature.now()
        assert [answer.fault for answer in await world.look()] == [None, Fault.LAME]
        assert world.nature.now() - began < 0.1

    play(story)


def test_a_frozen_server_goes_on_saying_what_it_said_while_the_provider_calls_it_settled() -> None:
    async def story(world: World) -> None:
        world.name.frozen = {"ns1"}
        change_id = await world.change() or ""
        await world.host.sleep(3600)
        assert world.says() == [MAIN, BACKUP]
        assert await world.port.settled(change_id, WITHIN)
        world.name.frozen = frozenset()
        assert world.says() == [BACKUP, BACKUP]
        assert [words for _, words in world.nature.story[-2:]] == [
            f"ns1 of {NAME} is no longer frozen",
            f"ns1 says A 192.0.2.2 (TTL 60) of {NAME}",
        ]

    play(story)


def test_a_server_that_there_is_not_cannot_be_faulted() -> None:
    async def story(world: World) -> None:
        with pytest.raises(ValueError, match="no server ns3"):
            world.name.silent = {"ns3"}

    play(story)


def test_named_resolvers_are_asked_instead_and_their_ttl_runs_down() -> None:
    async def story(world: World) -> None:
        world.name.spread = (1.0, 1.0)
        assert await world.look() == (DnsAnswer("192.0.2.8:53", False, MAIN),)
        world.name.point(OTHER, "somebody")
        await world.host.sleep(20)
        assert await world.look() == (DnsAnswer("192.0.2.8:53", False, replace(MAIN, ttl=40)),)
        await world.host.sleep(40)
        assert await world.look() == (DnsAnswer("192.0.2.8:53", False, OTHER),)
        world.name.silent = frozenset(SERVERS)
        await world.host.sleep(300)
        assert [answer.fault for answer in await world.look()] == [Fault.SILENT]

    play(story, resolvers=(Address("192.0.2.8", 53),))


# ---------------------------------------------------------------- the network


def test_nothing_leaves_while_the_way_is_cut_in_either_direction() -> None:
    async def story(world: World) -> None:
        for way in ((["controller"], ["dns"]), (["dns"], ["controller"])):
            world.network.cut(*way, both=False)
            for attempt in (world.port.read(WITHIN), world.change(), world.port.settled("C1", WITHIN)):
                assert await world.fails(RecordUnreachable, attempt) == pytest.approx(WITHIN)
            world.network.mend(*way, both=False)
        assert world.name.changes == []
        assert await world.held() == MAIN

    play(story)


def test_a_change_whose_answer_meets_a_cut_is_unknown_and_made() -> None:
    async def story(world: World) -> None:
        def cut(moment: str) -> None:
            if moment == "record change: effect":
                world.network.cut(["dns"], ["controller"], both=False)

        world.at_moment = cut
        assert await world.fails(RecordTimeout, world.change()) == pytest.approx(WITHIN)
        assert world.name.rrset == BACKUP
        assert world.moments == ["record change: before", "record change: effect"]

    play(story)


def test_a_slow_way_ends_a_call_in_time_and_a_change_that_has_left_is_made_all_the_same() -> None:
    async def story(world: World) -> None:
        world.at_moment = lambda moment: world.network.slow(["controller"], ["dns"], 20.0)
        assert await world.fails(RecordTimeout, world.change()) == pytest.approx(WITHIN)
        assert world.name.rrset == MAIN
        await world.host.sleep(11)
        assert world.name.rrset == BACKUP
        assert await world.fails(RecordUnreachable, world.port.read(WITHIN)) == pytest.approx(WITHIN)

    play(story)


def test_an_answer_that_would_come_too_late_is_not_waited_for() -> None:
    async def story(world: World) -> None:
        world.at_moment = lambda moment: world.network.slow(
            ["dns"], ["controller"], 20.0 if "effect" in moment else 0.0
        )
        assert await world.fails(RecordTimeout, world.change()) == pytest.approx(WITHIN)
        assert world.name.rrset == BACKUP

    play(story)


def test_a_question_that_was_given_up_on_harms_nobody_when_it_arrives() -> None:
    async def story(world: World) -> None:
        world.network.slow(["controller"], ["dns"], 5.0)
        task = asyncio.ensure_future(world.port.read(WITHIN))
        await world.host.sleep(1)
        task.cancel()
        await world.host.sleep(60)
        world.network.heal()
        assert await world.held() == MAIN

    play(story)


def test_servers_that_are_not_reached_are_silent_and_before_they_were_found_that_is_an_error() -> None:
    async def story(world: World) -> None:
        world.network.cut(["controller"], ["dns"])
        assert await world.fails(RecordUnreachable, world.look(), "cannot be found") == pytest.approx(WITHIN / 2)
        world.network.heal()
        assert [answer.fault for answer in await world.look()] == [None, None]
        world.network.cut(["controller"], ["dns"])
        assert [answer.fault for answer in await world.look()] == [Fault.SILENT, Fault.SILENT]

    play(story)


# ---------------------------------------------------------------- the controller in trouble


def test_a_suspended_controller_does_not_wake_and_then_gets_what_was_true_when_its_question_arrived() -> None:
    async def story(world: World) -> None:
        world.nature.after(0.0005, lambda: world.host.suspend(3600))
        world.nature.after(60, lambda: world.name.point(OTHER, "somebody"))
        assert await world.held() == MAIN
        assert world.nature.now() >= 3600
        assert await world.held() == OTHER

    play(story)


def test_a_suspended_controller_sends_no_change_on_a_connection_that_it_was_making() -> None:
    async def story(world: World) -> None:
        world.nature.after(0.0005, lambda: world.host.suspend(3600))
        asked: list[float] = []

        def still_valid() -> bool:
            asked.append(world.nature.now())
            return False

        assert await world.port.change(SWAP, WITHIN, still_valid) is None
        assert asked[0] >= 3600
        assert world.moments == []

    play(story)


@pytest.mark.parametrize(
    ("dies", "held"),
    [("record change: before", MAIN), ("record change: effect", BACKUP), ("record change: reply", BACKUP)],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_process_can_be_killed_before_a_change_after_its_effect_and_before_its_reply(
    dies: str, held: RRset, dynamic: bool
) -> None:
    async def story(world: World) -> None:
        def kill(moment: str) -> None:
            world.lives = world.lives and moment != dies

        world.at_moment = kill
        await world.fails(RecordUnreachable, world.change(), "killed")
        await world.host.sleep(60)
        assert world.name.rrset == held
        assert world.moments[-1] in (dies, "record change: reply")

    play(story, dynamic=dynamic)


def test_nothing_leaves_a_killed_process() -> None:
    async def story(world: World) -> None:
        world.lives = False
        for attempt in (world.port.read(WITHIN), world.change(), world.port.settled("C1", WITHIN), world.look()):
            assert await world.fails(RecordUnreachable, attempt, "killed") == 0.0
        assert world.name.changes == []

    play(story)


def test_a_change_that_has_left_a_process_is_made_after_its_death_unseen() -> None:
    async def story(world: World) -> None:
        world.name.late = 30.0
        task = asyncio.ensure_future(world.change())
        await world.host.sleep(5)
        world.lives = False
        task.cancel()
        await world.host.sleep(60)
        assert world.name.rrset == BACKUP
        assert world.moments == ["record change: before"]

    play(story)


def test_a_closed_port_asks_nobody() -> None:
    async def story(world: World) -> None:
        await world.port.close()
        await world.verifier.close()
        for attempt in (world.port.read(WITHIN), world.change()):
            await world.fails(RecordUnreachable, attempt, "closed")

    play(story)


# ---------------------------------------------------------------- relays


def test_a_relay_dials_the_new_address_within_a_minute_of_its_server() -> None:
    async def story(world: World) -> None:
        relays = [Cache(world.name, world.nature, f"relay-{number}") for number in range(8)]
        assert {relay.address() for relay in relays} == {"192.0.2.1"}
        world.name.spread = (10.0, 10.0)
        await world.change()
        await world.host.sleep(9)
        assert {relay.address() for relay in relays} == {"192.0.2.1"}
        took: dict[int, float] = {}
        for _ in range(80):
            await world.host.sleep(1)
            for number, relay in enumerate(relays):
                if relay.address() == "192.0.2.2":
                    took.setdefault(number, world.nature.now())
        assert len(took) == 8
        assert max(took.values()) <= 72
        assert len({round(each) for each in took.values()}) > 3  # not all at once

    play(story)


def test_when_a_relay_is_asked_changes_nothing_of_what_it_knows() -> None:
    def told(often: bool) -> list[tuple[str | None, float]]:
        known: list[tuple[str | None, float]] = []

        async def story(world: World) -> None:
            relay = Cache(world.name, world.nature, "relay-1", shared=True)
            events: dict[int, Callable[[], None]] = {
                900: lambda: world.name.point(OTHER, "somebody"),
                1100: lambda: setattr(world.name, "silent", {"ns1"}),
                1300: lambda: world.name.point(BACKUP, "somebody"),
                1400: lambda: setattr(world.name, "lame", {"ns2"}),
                2500: lambda: setattr(world.name, "lame", frozenset()),
            }
            for at in range(0, 4000, 20):
                events.get(at, lambda: None)()
                if often or at > 3000:
                    relay.address()
                if at > 3000:
                    known.append((relay.address(), relay.asks_at))
                await world.host.sleep(20)

        play(story)
        return known

    assert told(often=True) == told(often=False)
    assert told(often=False)[-1][0] == "192.0.2.2"


@pytest.mark.parametrize(("ttl", "wait"), [(60, 60), (5, 60), (300, 300), (86400, 900), (0, 900)])
def test_a_relay_asks_again_after_the_ttl_but_within_60_and_900_s(ttl: int, wait: float) -> None:
    async def story(world: World) -> None:
        world.name.spread = (0.0, 0.0)
        world.name.point(replace(MAIN, ttl=ttl), "somebody")
        relay = Cache(world.name, world.nature, "relay-1")
        await world.host.sleep(relay.asks_at - world.nature.now())
        assert relay.asks_at - world.nature.now() == pytest.approx(wait)

    play(story)


def test_a_relay_keeps_its_address_when_the_name_is_gone_and_asks_again_after_900_s() -> None:
    async def story(world: World) -> None:
        world.name.spread = (0.0, 0.0)
        relay = Cache(world.name, world.nature, "relay-1")
        world.name.empty()
        await world.host.sleep(60)
        assert relay.address() == "192.0.2.1"
        world.name.point(BACKUP, "somebody")
        due = relay.asks_at
        assert 840 <= due - world.nature.now() <= 900
        await world.host.sleep(due - world.nature.now() - 1)
        assert relay.address() == "192.0.2.1"
        await world.host.sleep(1)
        assert relay.address() == "192.0.2.2"

    play(story)


def test_a_relay_without_answers_keeps_its_address_and_waits_ever_longer() -> None:
    async def story(world: World) -> None:
        relay = Cache(world.name, world.nature, "relay-1")
        began = relay.asks_at
        world.name.silent = {"ns1"}
        world.name.lame = {"ns2"}
        waits = []
        await world.host.sleep(began - world.nature.now())
        for _ in range(5):
            waits.append(relay.asks_at - world.nature.now())
            await world.host.sleep(waits[-1])
        assert waits == pytest.approx([125, 255, 515, 900, 900])
        assert relay.address() == "192.0.2.1"

    play(story)


def test_a_relay_asks_the_other_server_when_one_is_silent() -> None:
    async def story(world: World) -> None:
        world.name.silent = {"ns1"}
        relays = [Cache(world.name, world.nature, f"relay-{number}") for number in range(8)]
        assert {relay.address() for relay in relays} == {"192.0.2.1"}

    play(story)


def test_a_relay_that_does_not_reach_its_resolver_keeps_what_it_knew_and_one_that_restarts_asks_at_once() -> None:
    async def story(world: World) -> None:
        reaches = [True]
        relay = Cache(world.name, world.nature, "relay-1", reaches=lambda: reaches[0])
        world.name.spread = (0.0, 0.0)
        reaches[0] = False
        world.name.point(BACKUP, "somebody")
        await world.host.sleep(600)
        assert relay.address() == "192.0.2.1"
        relay.forget()
        assert relay.address() is None
        reaches[0] = True
        relay.forget()
        assert relay.address() == "192.0.2.2"

    play(story)


@pytest.mark.parametrize("seed", range(3))
def test_behind_a_shared_resolver_a_relay_may_be_a_ttl_later(seed: int) -> None:
    def longest(shared: bool) -> float:
        took: dict[int, float] = {}

        async def story(world: World) -> None:
            world.name.spread = (0.0, 0.0)
            relays = [Cache(world.name, world.nature, f"relay-{number}", shared=shared) for number in range(20)]
            await world.host.sleep(1000)
            world.name.point(BACKUP, "somebody")
            began = world.nature.now()
            while len(took) < len(relays):
                await world.host.sleep(1)
                for number, relay in enumerate(relays):
                    if relay.address() == "192.0.2.2":
                        took.setdefault(number, world.nature.now() - began)
            await world.host.sleep(3600)
            assert {relay.address() for relay in relays} == {"192.0.2.2"}

        play(story, seed=seed)
        return max(took.values())

    assert 30 < longest(shared=False) <= 61
    assert 61 < longest(shared=True) <= 121


def test_behind_a_shared_resolver_no_relay_goes_back_to_an_address_that_it_left() -> None:
    async def story(world: World) -> None:
        world.name.spread = (0.0, 0.0)
        day = [replace(each, ttl=3600) for each in (MAIN, BACKUP, OTHER)]
        world.name.point(day[0], "somebody")
        relays = [Cache(world.name, world.nature, f"relay-{number}", shared=True) for number in range(20)]
        seen: list[list[str | None]] = [[relay.address()] for relay in relays]
        for rrset in day:
            world.name.point(rrset, "somebody")
            for _ in range(60):
                await world.host.sleep(100)
                for relay, addresses in zip(relays, seen, strict=True):
                    if relay.address() != addresses[-1]:
                        addresses.append(relay.address())
        assert seen == [[rrset.values[0] for rrset in day]] * 20

    play(story)


def test_behind_a_shared_resolver_an_old_value_is_not_kept_for_longer_than_its_own_ttl() -> None:
    async def story(world: World) -> None:
        world.name.spread = (0.0, 0.0)
        relays = [Cache(world.name, world.nature, f"relay-{number}", shared=True) for number in range(20)]
        await world.host.sleep(1000)
        world.name.point(replace(BACKUP, ttl=86400), "somebody")
        await world.host.sleep(121)
        assert {relay.address() for relay in relays} == {"192.0.2.2"}

    play(story)


def test_servers_that_did_not_answer_another_one_are_asked_again_by_a_relay() -> None:
    async def story(world: World) -> None:
        relays = [Cache(world.name, world.nature, f"relay-{number}", shared=True) for number in range(50)]
        await world.host.sleep(1000)
        world.name.silent = frozenset(SERVERS)
        await world.host.sleep(30)
        world.name.silent = frozenset()
        later = [relay for relay in relays if relay.asks_at <= world.nature.now() + 60]
        assert len(later) > 10
        await world.host.sleep(60)
        assert all(relay.asks_at <= world.nature.now() + 60 for relay in later)

    play(story)


def test_an_answer_in_its_very_last_second_holds_a_relay_for_900_s() -> None:
    async def story(world: World) -> None:
        relays = [Cache(world.name, world.nature, f"relay-{n}", shared=True, zero=True) for n in range(50)]
        longest = 0.0
        for _ in range(30):
            await world.host.sleep(60)
            longest = max(longest, *(relay.asks_at - world.nature.now() for relay in relays))
        assert 800 < longest <= 900

    play(story)


def test_of_several_addresses_a_relay_dials_one_and_goes_on_with_it() -> None:
    async def story(world: World) -> None:
        world.name.spread = (0.0, 0.0)
        world.name.point(replace(MAIN, values=("192.0.2.1", "192.0.2.2")), "somebody")
        relays = [Cache(world.name, world.nature, f"relay-{number}") for number in range(12)]
        assert {relay.addresses() for relay in relays} == {("192.0.2.1", "192.0.2.2")}
        chosen = [relay.address() for relay in relays]
        assert set(chosen) == {"192.0.2.1", "192.0.2.2"}
        await world.host.sleep(7200)
        assert [relay.address() for relay in relays] == chosen

    play(story)


# ---------------------------------------------------------------- repeating


async def troubles(world: World) -> None:
    """A bit of everything, in the trace: what was tried, how it ended, and what a relay made of it."""
    relay = Cache(world.name, world.nature, "relay-1", shared=True)
    targets = [MAIN, BACKUP]
    world.network.lossy(["controller"], ["dns"], 0.2)
    for number in range(60):
        chance = world.nature.chance("trouble")
        world.name.throttled = chance < 0.1
        world.name.loses_replies = 0.1 < chance < 0.2
        world.name.late = 90.0 if 0.2 < chance < 0.3 else 0.0
        world.name.silent = {"ns1"} if 0.3 < chance < 0.4 else frozenset()
        world.name.frozen = {"ns2"} if 0.4 < chance < 0.5 else frozenset()
        if 0.5 < chance < 0.6:
            world.name.empty()
        try:
            reading = await world.port.read(WITHIN)
            told = await world.change(Change(reading.rrset, targets[number % 2]))
        except RecordError as error:
            told = f"{type(error).__name__} {error}"
        answers = await world.look()
        world.nature.tell(f"{told} {answers} {relay.address()}")
        await world.host.sleep(world.nature.between(1.0, 100.0, "pause"))


def test_the_same_seed_tells_the_same_story_and_another_seed_another() -> None:
    one, again, other = play(troubles, seed=7), play(troubles, seed=7), play(troubles, seed=8)
    assert one.nature.story == again.nature.story
    assert one.loop.trace_hash() == again.loop.trace_hash()
    assert one.loop.trace_hash() != other.loop.trace_hash()
    assert {tried.applied for tried in one.name.changes} == {True, False}


def test_asking_a_relay_draws_nothing_that_others_would_have_drawn() -> None:
    def story_of(watched: bool) -> list[tuple[int, str]]:
        async def story(world: World) -> None:
            relays = [Cache(world.name, world.nature, "relay-1")] if watched else []
            for expected, wanted in ((MAIN, BACKUP), (BACKUP, MAIN)):
                await world.change(Change(expected, wanted))
                await world.host.sleep(300)
                for relay in relays:
                    relay.address()

        return play(story).nature.story

    assert story_of(True) == story_of(False)
