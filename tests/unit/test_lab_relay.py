"""A simulated relay sticks to its sessions, redials as a real one does, and writes down whom it reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from failover.host import RealHost
from failover.lab.chain import Chain
from failover.lab.node import Node
from failover.lab.relay import ALIVE_EVERY, Relay, RelaySettings
from failover.lab.sessions import Interval, intervals
from failover.model import Address

STILL = Chain(RealHost().now().mono - 1000.5 * 3600, 3600.0)
WAIT = 10.0  # seconds, an upper bound for what takes some ms


class Hasty(RealHost):
    """A host that sleeps for some ms only, and remembers for how long it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds != ALIVE_EVERY:
            self.slept.append(seconds)
        await super().sleep(0.002)


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[Relay]:
    task = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool]) -> None:
    async with RealHost().timeout(WAIT):
        while not true():
            await RealHost().sleep(0.005)


def node(name: str, port: int = 0) -> Node:
    return Node(name, Address("127.0.0.1", port), 42, STILL)


def relay(folder: Path, host: Hasty, *targets: Node, scale: float = 1.0) -> Relay:
    settings = RelaySettings("relay-1", tuple(n.address for n in targets), folder / "log.jsonl", scale=scale, seed=3)
    return Relay(settings, host)


def logged(folder: Path) -> list[Interval]:
    return intervals(folder / "log.jsonl")


async def test_it_holds_a_session_with_each_target_and_tells_which_producer_each_one_reached(tmp_path: Path) -> None:
    async with node("main") as main, node("backup") as backup, running(relay(tmp_path, Hasty(), main, backup)):
        await until(lambda: len(logged(tmp_path)) == 2)
        assert {i.producer: i.target for i in logged(tmp_path)} == {
            "main": str(main.address),
            "backup": str(backup.address),
        }
    assert {(i.why, i.end is None) for i in logged(tmp_path)} == {("the relay ended", False)}


async def test_it_asks_again_and_again_on_the_one_session(tmp_path: Path) -> None:
    async with node("main") as main, running(relay(tmp_path, Hasty(), main, scale=1000.0)):
        records: list[dict[str, object]] = []
        async with RealHost().timeout(WAIT):
            while not records or int(str(records[0]["asked"])) < 8:
                records = (await main.tell("sessions"))["open"]
                await RealHost().sleep(0.005)
        assert len(records) == 1
        assert len(logged(tmp_path)) == 1


async def test_it_redials_with_growing_waits_and_begins_anew_after_a_session(tmp_path: Path) -> None:
    host = Hasty()
    async with node("main") as main:
        await main.tell("refuse")
        async with running(relay(tmp_path, host, main)):
            await until(lambda: len(host.slept) >= 7)
            refused = host.slept[:7]
            await main.tell("heal")
            await until(lambda: len(logged(tmp_path)) == 1)
            before = len(host.slept)
            await main.tell("drop")
            await until(lambda: len(logged(tmp_path)) == 2)
    wanted = [5, 10, 20, 40, 80, 160, 160]
    assert refused == [pytest.approx(seconds, abs=2.0) for seconds in wanted]
    assert len({wait - base for wait, base in zip(refused, wanted, strict=True)}) > 1  # the jitter
    assert host.slept[before:] == [pytest.approx(5, abs=2.0)]
    assert "closed" in logged(tmp_path)[0].why or "reset" in logged(tmp_path)[0].why


async def test_the_same_seed_waits_the_same(tmp_path: Path) -> None:
    waits = []
    for name in ("one", "two"):
        host = Hasty()
        (tmp_path / name).mkdir()
        nobody = Address("127.0.0.1", 1)
        async with running(Relay(RelaySettings("relay-1", (nobody,), tmp_path / name / "log.jsonl", seed=9), host)):
            await until(lambda slept=host.slept: len(slept) >= 3)  # type: ignore[misc]
        waits.append(host.slept[:3])
    assert waits[0] == waits[1]


async def test_it_gives_up_a_session_whose_keep_alive_goes_unanswered(tmp_path: Path) -> None:
    async with node("main") as main, running(relay(tmp_path, Hasty(), main, scale=100.0)):
        await until(lambda: len(logged(tmp_path)) == 1)
        await main.tell("hang")
        await until(lambda: logged(tmp_path)[0].end is not None)
        assert "no answer within 1 s" in logged(tmp_path)[0].why


async def test_a_node_of_another_network_is_no_session(tmp_path: Path) -> None:
    host = Hasty()
    async with node("main") as main:
        await main.tell("magic", "7")
        async with running(relay(tmp_path, host, main)):
            await until(lambda: len(host.slept) >= 2)
    assert logged(tmp_path) == []
    assert "magic" in (tmp_path / "log.jsonl").read_text(encoding="utf-8")
