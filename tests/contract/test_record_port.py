"""What every way to a record promises (RecordPort and VerifyPort, failover/ports.py), real or simulated.

A new provider joins by a row in ROWS: something that plays a story in a world of its own, on a real loop or a virtual
one.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dns_world
import pytest
import route53_world
from record_world import BACKUP, DYNAMIC, MAIN, NAME, ROUTE53, SWAP, TARGETS, Surroundings

from failover.errors import RecordConflict, RecordError, RecordTimeout, RecordUnreachable
from failover.host import RealHost
from failover.lab.names import NameServer
from failover.lab.route53 import Faults, Pace, Route53
from failover.lab.zone import LiveZone, Zone
from failover.lab.zone import record as lab_record
from failover.model import (
    Address,
    Change,
    DnsAnswer,
    RecordReading,
    RecordType,
    Rfc2136Zone,
    Route53Zone,
    RRset,
)
from failover.ports import Host, RecordPort, VerifyPort
from failover.records import record_port, verify_port
from failover.simulator.loop import VirtualLoop
from failover.simulator.names import SimRecordPort, SimVerifyPort

OTHER = RRset(RecordType.A, ("192.0.2.9",), 60)
ANSWER = 20.0  # seconds; what answers at all answers within
MOST_LOOKS = 600  # a bound, for what spreads


class World(ABC):
    """A record that points at main, its ports, and what may happen to them."""

    port: RecordPort
    verifier: VerifyPort
    host: Host

    @abstractmethod
    async def hold(self, rrset: RRset | None) -> None:
        """Another hand lets the provider hold this."""

    @abstractmethod
    async def held(self) -> RRset | None:
        """What the provider truly holds."""

    @abstractmethod
    async def cut(self) -> None:
        """Let nothing get to the provider any more."""

    @abstractmethod
    def lose_reply(self) -> None:
        """Let changes be made, and their answers lost."""

    async def change(self, change: Change = SWAP) -> str | None:
        return await self.port.change(change, ANSWER, lambda: True)

    async def everywhere(self, rrset: RRset | None) -> tuple[DnsAnswer, ...]:
        """Wait until every server says this; what they said."""
        for _ in range(MOST_LOOKS):
            answers = await self.verifier.look(ANSWER)
            if all(answer.fault is None and answer.rrset == rrset for answer in answers):
                return answers
            await self.host.sleep(0.1)
        raise AssertionError(f"not everywhere: {answers}")


Story = Callable[[World], Coroutine[Any, Any, None]]
Row = Callable[[Path, pytest.MonkeyPatch, Story], None]


# ---------------------------------------------------------------- simulated


class Simulated(World):
    def __init__(self, loop: VirtualLoop, provider: Route53Zone | Rfc2136Zone) -> None:
        around = Surroundings(loop, provider)
        self.network, self.host, self.name = around.network, around.host, around.name
        self.port = SimRecordPort(*around.way)
        self.verifier = SimVerifyPort(*around.way)

    async def hold(self, rrset: RRset | None) -> None:
        if rrset is None:
            self.name.empty()
        else:
            self.name.point(rrset, "another hand")

    async def held(self) -> RRset | None:
        return self.name.rrset

    async def cut(self) -> None:
        self.network.cut(["controller"], ["dns"])

    def lose_reply(self) -> None:
        self.name.loses_replies = True


def simulated(provider: Route53Zone | Rfc2136Zone, folder: Path, monkeypatch: pytest.MonkeyPatch, story: Story) -> None:
    for seed in range(10):
        loop = VirtualLoop(seed=seed)
        loop.run(story(Simulated(loop, provider)))


# ---------------------------------------------------------------- real


class AtRoute53(World):
    def __init__(self, way: AsyncExitStack, live: LiveZone, aws: Route53, servers: tuple[Address, ...]) -> None:
        self.way, self.live, self.aws, self.host = way, live, aws, RealHost()
        record = replace(route53_world.record_of(TARGETS, aws.url, NAME), servers=servers)
        self.port = record_port(record, self.host)
        self.verifier = verify_port(record, self.host)

    async def hold(self, rrset: RRset | None) -> None:
        if rrset is None:
            self.live.remove(NAME)
        else:
            self.live.put(NAME, *rrset.values, ttl=rrset.ttl)

    async def held(self) -> RRset | None:
        held = self.live.zone.at(NAME)
        return RRset(RecordType(held[0].type), held[0].values, held[0].ttl or 0) if held else None

    async def cut(self) -> None:
        await self.way.aclose()

    def lose_reply(self) -> None:
        self.aws.faults = Faults(cut=True, only="ChangeResourceRecordSets")


class AtBind(World):
    def __init__(
        self, way: AsyncExitStack, server: dns_world.DnsServer, between: dns_world.Between, secondary: Address
    ) -> None:
        self.way, self.server, self.between, self.host = way, server, between, RealHost()
        record = dns_world.record_at(server, *TARGETS.values(), server=between.address)
        record = replace(record, servers=(server.address, secondary))
        self.port = record_port(record, self.host)
        self.verifier = verify_port(record, self.host)

    async def hold(self, rrset: RRset | None) -> None:
        if rrset is None:
            self.server.delete(NAME)
        else:
            self.server.set(NAME, rrset.type.value, *rrset.values, ttl=rrset.ttl)

    async def held(self) -> RRset | None:
        values, ttl = self.server.holds(NAME, "A")
        return None if ttl is None else RRset(RecordType.A, values, ttl)

    async def cut(self) -> None:
        await self.way.aclose()

    def lose_reply(self) -> None:
        self.between.answer = lambda message: dns_world.CUT


@asynccontextmanager
async def route53_lab() -> AsyncIterator[World]:
    live = LiveZone(Zone.new("example.test.", route53_world.ZONE, [lab_record(NAME, *MAIN.values)]))
    async with AsyncExitStack() as others, AsyncExitStack() as way:
        servers = [await others.enter_async_context(NameServer([live], lag=0.1)) for _ in range(2)]
        aws = await way.enter_async_context(Route53([live], pace=Pace(insync=0.2, burst=10_000)))
        yield AtRoute53(way, live, aws, tuple(server.address for server in servers))


@asynccontextmanager
async def two_binds(folder: Path) -> AsyncIterator[World]:
    records = ("ns1 60 A 127.0.0.1", f"bp 60 A {MAIN.values[0]}")
    second = dns_world.free_address()
    with ExitStack() as servers:
        primary = servers.enter_context(dns_world.bind(folder, records=records, notify=[second]))
        servers.enter_context(dns_world.bind(folder, secondary_of=primary, address=second))
        async with AsyncExitStack() as way:
            between = await way.enter_async_context(dns_world.Between(primary.address))
            yield AtBind(way, primary, between, second)


def route53(folder: Path, monkeypatch: pytest.MonkeyPatch, story: Story) -> None:
    route53_world.isolated(monkeypatch, folder)

    async def played() -> None:
        async with route53_lab() as world:
            await story(world)
            await world.port.close()

    asyncio.run(played())


def rfc2136(folder: Path, monkeypatch: pytest.MonkeyPatch, story: Story) -> None:
    async def played() -> None:
        async with two_binds(folder) as world:
            await story(world)
            await world.port.close()

    asyncio.run(played())


ROWS: dict[str, Row] = {
    "route53": route53,
    "rfc2136": rfc2136,
    "simulated route53": partial(simulated, ROUTE53),
    "simulated rfc2136": partial(simulated, DYNAMIC),
}


@pytest.fixture(params=sorted(ROWS))
def play(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    """Play a story in a world of every row."""
    return partial(ROWS[request.param], tmp_path, monkeypatch)


Play = Callable[[Story], None]


async def fails(kind: type[RecordError], attempt: Awaitable[object]) -> None:
    with pytest.raises(RecordError) as caught:
        await attempt
    assert type(caught.value) is kind, caught.value
    assert str(caught.value).startswith(NAME)
    assert caught.value.mend


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "rrset", [MAIN, replace(MAIN, ttl=300), replace(MAIN, values=("192.0.2.1", "192.0.2.9"))], ids=str
)
def test_a_reading_shows_what_is_held(play: Play, rrset: RRset) -> None:
    async def story(world: World) -> None:
        await world.hold(rrset)
        assert await world.port.read(ANSWER) == RecordReading(rrset)

    play(story)


def test_a_name_that_is_not_there_reads_as_nothing_and_can_be_created_from_nothing(play: Play) -> None:
    async def story(world: World) -> None:
        await world.hold(None)
        assert await world.port.read(ANSWER) == RecordReading(None)
        assert await world.change(Change(None, MAIN)) is not None
        assert await world.held() == MAIN

    play(story)


# ---------------------------------------------------------------- changing


def test_a_change_swaps_what_is_expected_and_the_next_reading_shows_it(play: Play) -> None:
    async def story(world: World) -> None:
        assert await world.change() is not None
        assert await world.held() == BACKUP
        assert await world.port.read(ANSWER) == RecordReading(BACKUP)
        assert await world.change(Change(BACKUP, MAIN)) is not None
        assert await world.held() == MAIN

    play(story)


@pytest.mark.parametrize(
    ("holds", "expected"),
    [(OTHER, MAIN), (replace(MAIN, ttl=300), MAIN), (None, MAIN), (MAIN, None)],
    ids=["another value", "another ttl", "gone", "appeared"],
)
def test_a_change_whose_expectation_is_overtaken_is_a_conflict_and_changes_nothing(
    play: Play, holds: RRset | None, expected: RRset | None
) -> None:
    async def story(world: World) -> None:
        await world.port.read(ANSWER)
        await world.hold(holds)
        await fails(RecordConflict, world.change(Change(expected, BACKUP)))
        assert await world.held() == holds

    play(story)


def test_a_change_made_twice_is_a_conflict_the_second_time(play: Play) -> None:
    async def story(world: World) -> None:
        await world.change()
        await fails(RecordConflict, world.change())
        assert await world.held() == BACKUP

    play(story)


def test_a_change_to_what_is_expected_already_asks_nobody_and_has_settled(play: Play) -> None:
    async def story(world: World) -> None:
        await world.cut()
        assert await world.change(Change(MAIN, MAIN)) == ""
        assert await world.port.settled("", ANSWER)

    play(story)


def test_nothing_is_sent_when_a_change_is_no_longer_valid(play: Play) -> None:
    async def story(world: World) -> None:
        asked: list[str] = []

        def still_valid() -> bool:
            asked.append("asked")
            return False

        assert await world.port.change(SWAP, ANSWER, still_valid) is None
        assert asked == ["asked"]
        assert await world.held() == MAIN
        assert await world.change() is not None
        assert await world.held() == BACKUP

    play(story)


# ---------------------------------------------------------------- no answer


def test_an_unreachable_provider_is_told_as_such_and_holds_what_it_held(play: Play) -> None:
    async def story(world: World) -> None:
        asked: list[str] = []

        def still_valid() -> bool:
            asked.append("asked")
            return True

        await world.port.read(ANSWER)
        await world.cut()
        await fails(RecordUnreachable, world.port.read(ANSWER))
        await fails(RecordUnreachable, world.port.change(SWAP, ANSWER, still_valid))
        assert asked == []  # there was nothing on which to send
        assert await world.held() == MAIN

    play(story)


def test_a_change_whose_answer_is_lost_is_unknown_and_the_next_reading_shows_what_became_of_it(play: Play) -> None:
    async def story(world: World) -> None:
        world.lose_reply()
        await fails(RecordTimeout, world.change())
        held = await world.held()
        assert held in (MAIN, BACKUP)
        assert await world.port.read(ANSWER) == RecordReading(held)

    play(story)


# ---------------------------------------------------------------- what the world is told


def test_a_change_settles_and_then_every_server_says_the_new_value(play: Play) -> None:
    async def story(world: World) -> None:
        before = await world.everywhere(MAIN)
        change_id = await world.change()
        assert change_id is not None
        for _ in range(MOST_LOOKS):
            if await world.port.settled(change_id, ANSWER):
                break
            await world.host.sleep(0.2)
        assert await world.port.settled(change_id, ANSWER)
        if change_id:  # where a provider has its own word for it, that is true at once; others leave it to the servers
            assert {answer.rrset for answer in await world.verifier.look(ANSWER)} == {BACKUP}
        after = await world.everywhere(BACKUP)
        assert [answer.server for answer in after] == [answer.server for answer in before]
        assert len(after) == 2
        assert all(answer.authoritative for answer in after)

    play(story)


def test_of_a_name_that_is_gone_every_server_says_so_and_for_how_long_that_is_kept(play: Play) -> None:
    async def story(world: World) -> None:
        await world.hold(None)
        for answer in await world.everywhere(None):
            assert answer.negative_ttl is not None
            assert answer.negative_ttl > 0

    play(story)


def test_servers_go_on_answering_while_the_provider_loses_its_replies(play: Play) -> None:
    async def story(world: World) -> None:
        world.lose_reply()
        await fails(RecordTimeout, world.change())
        held = await world.held()
        assert {answer.rrset for answer in await world.everywhere(held)} == {held}

    play(story)
