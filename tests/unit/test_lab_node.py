"""A simulated node answers our ping, and each thing that it can be told has its effect."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from failover.errors import PingError
from failover.host import RealHost
from failover.lab import control
from failover.lab.chain import Chain, teller
from failover.lab.haproxy import LabError
from failover.lab.node import Node
from failover.model import Address
from failover.ouroboros.ping import PingResult, Session, ping

HOST = RealHost()
STILL = Chain(HOST.now().mono - 1000.5 * 3600, 3600.0)  # slot 1000, and for half an hour no other
SHORT = 0.3  # seconds, where no answer is expected
LONG = 5.0


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with Node("main", Address("127.0.0.1", 0), 42, STILL) as made:
        yield made


async def pinged(node: Node, timeout: float = LONG, magic: int = 42) -> PingResult:
    return await ping(HOST, node.address, magic, timeout)


async def failure(node: Node, timeout: float = LONG) -> PingError:
    with pytest.raises(PingError) as caught:
        await pinged(node, timeout)
    return caught.value


async def test_it_answers_our_ping_with_the_chain_s_tip_and_its_name(node: Node) -> None:
    result = await pinged(node)
    assert result.tip == STILL.tip(HOST.now().mono, "main")
    assert (result.tip.slot, result.tip.block_no, teller(result.tip)) == (1000, 250, "main")


async def test_many_connections_are_answered_at_once(node: Node) -> None:
    results = await asyncio.gather(*(pinged(node) for _ in range(50)))
    assert {r.tip.slot for r in results} == {1000}


async def test_hanging_it_takes_the_connection_and_answers_nothing_until_it_is_healed(node: Node) -> None:
    session = await Session.open(HOST, node.address, 42, LONG)
    await node.tell("hang")
    assert (await failure(node, SHORT)).stage == "handshake"
    probe = asyncio.create_task(session.probe(LONG))
    async with HOST.timeout(LONG):
        while not any(r["asked"] for r in (await node.tell("sessions"))["open"]):
            await HOST.sleep(0.005)
    assert not probe.done()
    await node.tell("heal")
    assert (await probe).tip.slot == 1000  # what it owed while it hung was not lost
    await session.close()
    assert (await pinged(node)).tip.slot == 1000


async def test_refusing_it_lets_nobody_connect_but_keeps_its_sessions(node: Node) -> None:
    session = await Session.open(HOST, node.address, 42, LONG)
    state = await node.tell("refuse")
    assert (state["refuse"], (await failure(node)).stage) == (True, "connect")
    assert (await session.probe(LONG)).tip.slot == 1000
    await session.close()
    await node.tell("heal")
    assert (await pinged(node)).tip.slot == 1000


async def test_slow_it_waits_before_each_answer(node: Node) -> None:
    await node.tell("slow", "0.05")
    result = await pinged(node)
    assert result.handshake_ms >= 50


async def test_lagging_it_tells_an_older_tip(node: Node) -> None:
    await node.tell("lag", "10")
    tip = (await pinged(node)).tip
    assert tip == STILL.tip(HOST.now().mono, "main", lag=10)
    assert tip.slot == 988


async def test_frozen_its_tip_stands_still_while_the_chain_goes_on() -> None:
    chain = Chain(HOST.now().mono - 100.0, 0.001, block_every=1)
    async with Node("main", Address("127.0.0.1", 0), 42, chain) as node:
        await node.tell("freeze")
        first = (await pinged(node)).tip
        while chain.slot(HOST.now().mono) <= first.slot:
            await HOST.sleep(0.001)
        assert (await pinged(node)).tip == first
        await node.tell("heal")
        assert (await pinged(node)).tip.slot > first.slot


async def test_of_another_network_it_refuses_ours(node: Node) -> None:
    await node.tell("magic", "7")
    error = await failure(node)
    assert (error.stage, "magic" in str(error)) == ("handshake", True)
    assert (await pinged(node, magic=7)).tip.slot == 1000


async def test_told_to_drop_it_resets_every_session_and_takes_new_ones(node: Node) -> None:
    session = await Session.open(HOST, node.address, 42, LONG)
    await session.probe(LONG)
    await node.tell("drop")
    with pytest.raises(PingError):
        await session.probe(LONG)
    assert (await pinged(node)).tip.slot == 1000


async def test_a_session_that_asks_nothing_after_its_handshake_is_reset() -> None:
    async with Node("main", Address("127.0.0.1", 0), 42, STILL, scale=100) as node:
        reader, writer = await asyncio.open_connection(node.address.host, node.address.port)
        with pytest.raises(ConnectionResetError):
            async with HOST.timeout(LONG):
                await reader.read(1)
        writer.transport.abort()


async def test_it_tells_who_was_connected_and_forgets_who_asked_nothing(node: Node) -> None:
    check = await Session.open(HOST, node.address, 42, LONG)
    await check.close()
    session = await Session.open(HOST, node.address, 42, LONG)
    await session.probe(LONG)
    (record,) = [r for r in (await node.tell("sessions"))["open"] if r["asked"]]
    assert (record["asked"], record["end"], record["version"]) == (2, None, 15)
    assert record["peer"].startswith("127.0.0.1:")
    await session.close()
    async with HOST.timeout(LONG):
        while (await node.tell("sessions"))["open"]:
            await HOST.sleep(0.005)
    (ended,) = (await node.tell("sessions"))["ended"]
    assert ended["peer"] == record["peer"]
    assert record["start"] < ended["end"] <= HOST.now().mono


@pytest.mark.parametrize(
    ("command", "value", "says"),
    [
        ("dance", None, "dance: no such command"),
        ("hang", "3", "hang takes no value, '3' was given"),
        ("lag", None, "lag needs SLOTS, nothing was given"),
        ("lag", "-1", "lag needs SLOTS, '-1' was given"),
        ("slow", "nan", "slow needs SECONDS, 'nan' was given"),
        ("magic", "mainnet", "magic needs MAGIC, 'mainnet' was given"),
    ],
)
async def test_what_it_cannot_be_told_is_refused_with_what_it_knows(
    node: Node, command: str, value: str | None, says: str
) -> None:
    with pytest.raises(LabError) as caught:
        await node.tell(command, value)
    assert str(caught.value) == says
    assert caught.value.mend


async def test_a_taken_port_is_named(node: Node) -> None:
    with pytest.raises(LabError, match=rf"backup: cannot listen at {node.address}"):
        await Node("backup", node.address, 42, STILL).listen()


async def test_as_a_process_it_says_ready_is_told_things_and_dies_when_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", free.getsockname()[1])
    path = tmp_path / "main.sock"
    words = ["--name", "main", "--listen", str(address), "--control", str(path)]
    command = [sys.executable, "-m", "failover.lab.node", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220 - it returns at once
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        assert (await ping(HOST, address, 42, LONG)).tip.slot > 0
        assert (await control.ask(path, {"command": "lag", "value": 30}))["lag"] == 30
        with pytest.raises(LabError, match="no such command"):
            await control.ask(path, {"command": "dance"})
        await control.ask(path, {"command": "die"})
        assert process.wait(LONG) == 1
    finally:
        process.kill()
        process.wait(LONG)
        process.stdout.close()


async def test_a_question_that_is_not_json_or_too_long_does_no_harm(tmp_path: Path, node: Node) -> None:
    server = await control.serve(tmp_path / "c.sock", lambda q: node.tell(q["command"]))
    for words, answer in ((b"hang\n", b"not one line of JSON"), (b"[]\n", b"no command"), (b"x" * 9000 + b"\n", b"")):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "c.sock")
        writer.write(words)
        async with HOST.timeout(LONG):
            assert answer in await reader.read()
        writer.transport.abort()
    assert (await control.ask(tmp_path / "c.sock", {"command": "state"}))["hang"] is False
    server.close()


async def test_a_control_socket_without_anybody_behind_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        await control.ask(tmp_path / "none.sock", {"command": "state"})
    assert "failover lab up" in caught.value.mend
