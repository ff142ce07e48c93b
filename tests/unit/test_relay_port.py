"""Which of a relay's sessions are with which producer, and by which addresses the agent is asked for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from failover.agent_link import AgentLink
from failover.errors import GateError, GateRefused, GateTimeout, GateUnreachable
from failover.host import RealHost
from failover.model import Address, Agent, Kick, Nudge, Pool, Producer, Record, Relay, Rfc2136Zone
from failover.relay_port import AgentRelayPort

ANSWER = 5.0  # seconds
MAIN = Producer("main", Address("10.0.1.10", 6000))
BACKUP = Producer("backup", Address("10.0.1.20", 6000))
RELAY = Relay("relay-1", Address("10.0.2.1", 3001))
POOL = Pool("EXMPL", "preview", 2, (MAIN, BACKUP), ())


class Answering(AgentLink):
    """A link whose agent says what a test wants."""

    def __init__(self, **said: Any) -> None:
        super().__init__(Agent("relay-1-host", Address("10.0.2.1", 22), Path("/key")), "EXMPL", RealHost())
        self.said = {"running": True, "process": "7.1", "sessions": [], "others": 0, "truncated": False} | said
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def ask(self, verb: str, timeout: float, **fields: Any) -> Mapping[str, Any] | None:
        still_valid = fields.pop("still_valid", None)
        if still_valid is not None and not still_valid():
            return None
        self.asked.append((verb, fields))
        return self.said


def session(peer: str, local: str = "10.0.2.1:41234", *, inbound: bool = False) -> dict[str, Any]:
    return {"peer": peer, "local": local, "inbound": inbound}


def with_port(*hosts: str) -> list[str]:
    return [f"{host}:6000" for host in hosts]


def no_name_server(*_: object, **__: object) -> None:
    raise OSError("no name server")


async def asked_for(pool: Pool, relay: Relay = RELAY) -> list[str]:
    """The addresses that the agent is asked for."""
    link = Answering()
    port = AgentRelayPort(relay, pool, link, RealHost())
    try:
        await port.read(ANSWER)
    finally:
        await port.close()
    peers: list[str] = link.asked[0][1]["peers"]
    return peers


async def test_sessions_are_named_by_their_producers() -> None:
    here = [session("10.0.1.10:6000"), session("10.0.1.20:41000", "10.0.2.1:3001", inbound=True), session("10.9.9.9:1")]
    link = Answering(sessions=here, others=3)
    reading = await AgentRelayPort(RELAY, POOL, link, RealHost()).read(ANSWER)
    assert [(one.producer, one.peer, one.inbound) for one in reading.sessions] == [
        ("main", "10.0.1.10:6000", False),
        ("backup", "10.0.1.20:41000", True),
    ]
    assert (reading.others, reading.running, reading.process) == (3, True, "7.1")


async def test_an_ipv4_peer_in_ipv6_clothes_is_known() -> None:
    link = Answering(sessions=[session("[::ffff:10.0.1.10]:6000")])
    reading = await AgentRelayPort(RELAY, POOL, link, RealHost()).read(ANSWER)
    assert [one.producer for one in reading.sessions] == ["main"]


async def test_producers_are_asked_for_with_their_ports() -> None:
    assert await asked_for(POOL) == ["10.0.1.10:6000", "10.0.1.20:6000"]


async def test_what_came_in_from_a_host_that_several_share_counts_only_from_the_producers_port() -> None:
    doubles = replace(POOL, relays=(RELAY, Relay("relay-2", Address("10.0.1.20", 3001))))
    came = [session(f"10.0.1.20:{port}", "10.0.2.1:3001", inbound=True) for port in (3001, 41000, 6000)]
    reading = await AgentRelayPort(RELAY, doubles, Answering(sessions=came), RealHost()).read(ANSWER)
    assert [(one.producer, one.peer) for one in reading.sessions] == [("backup", "10.0.1.20:6000")]


async def test_producers_on_one_host_are_told_apart_by_their_ports() -> None:
    one_host = replace(POOL, producers=(MAIN, replace(BACKUP, address=Address("10.0.1.10", 6001))))
    link = Answering(sessions=[session("10.0.1.10:6001"), session("10.0.1.10:41000", inbound=True)])
    reading = await AgentRelayPort(RELAY, one_host, link, RealHost()).read(ANSWER)
    assert [one.producer for one in reading.sessions] == ["backup"]


async def test_the_addresses_of_the_relay_come_before_the_producers_own_and_those_of_records() -> None:
    zone = Rfc2136Zone(Address("10.0.9.1", 53), "example.com.", "failover.", "c2VjcmV0")
    targets = {"main": "192.0.2.10", "backup": "192.0.2.20"}
    pool = replace(POOL, records=(Record("bp.example.com.", "bp", targets, zone),))
    assert await asked_for(pool) == with_port("10.0.1.10", "192.0.2.10", "10.0.1.20", "192.0.2.20")
    relay = replace(RELAY, producers={"main": Address("172.16.0.1", 6000)})
    assert await asked_for(pool, relay) == with_port("172.16.0.1", "10.0.1.20", "192.0.2.20")


async def test_producers_that_cannot_be_told_apart_are_an_error() -> None:
    same = replace(RELAY, producers={"main": Address("172.16.0.1", 6000), "backup": Address("172.16.0.1", 6000)})
    with pytest.raises(GateRefused, match=r"main and backup are both 172\.16\.0\.1:6000"):
        await asked_for(POOL, same)


async def test_a_name_is_looked_up_and_one_that_has_no_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    local = replace(POOL, producers=(replace(MAIN, address=Address("localhost", 6000)),))
    assert "127.0.0.1:6000" in await asked_for(local)
    monkeypatch.setattr("socket.getaddrinfo", no_name_server)
    with pytest.raises(GateUnreachable, match="localhost cannot be looked up"):
        await asked_for(local)


async def test_the_last_addresses_serve_while_a_name_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    local = replace(POOL, producers=(replace(MAIN, address=Address("localhost", 6000)),))
    link = Answering(sessions=[session("127.0.0.1:6000")])
    port = AgentRelayPort(RELAY, local, link, RealHost())
    assert len((await port.read(ANSWER)).sessions) == 1
    monkeypatch.setattr("socket.getaddrinfo", no_name_server)
    assert len((await port.read(ANSWER)).sessions) == 1
    await port.close()


async def test_a_kick_names_one_producers_addresses_alone() -> None:
    link = Answering(ended=1, nudged=False)
    port = AgentRelayPort(RELAY, POOL, link, RealHost())
    assert await port.kick(Kick("relay-1", "main", 7, 3, "it lost the role", Nudge.SIGHUP), ANSWER, lambda: True)
    fields = {"peers": ["10.0.1.10:6000"], "generation": 7, "term": 3, "nudge": "sighup"}
    assert link.asked == [("kick", fields)]
    assert not await port.kick(Kick("relay-1", "main", 7, 3, "it lost the role"), ANSWER, lambda: False)
    assert len(link.asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"sessions": None},
        {"sessions": ["10.0.1.10:6000"]},
        {"sessions": [session("10.0.1.10")]},
        {"sessions": [session("main:6000")]},
        {"sessions": [session("10.0.1.10:0")]},
        {"sessions": [session("10.0.1.10:99999")]},
        {"sessions": [session("10.0.1.10:6000", "\x1b[31m")]},
        {"sessions": [session("10.0.1.10:6000") | {"inbound": 1}]},
        {"sessions": [session("10.0.1.10:6000")] * 1025},
        {"others": -1},
        {"others": True},
        {"running": None},
        {"truncated": "no"},
        {"truncated": True},
    ],
)
async def test_sessions_that_make_no_sense_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(GateRefused):
        await AgentRelayPort(RELAY, POOL, Answering(**said), RealHost()).read(ANSWER)


async def test_a_kick_that_is_answered_with_nonsense_may_have_been_carried_out() -> None:
    link = Answering(ended="all")
    with pytest.raises(GateError) as caught:
        await AgentRelayPort(RELAY, POOL, link, RealHost()).kick(
            Kick("relay-1", "main", 7, 3, "r"), ANSWER, lambda: True
        )
    assert type(caught.value) is GateTimeout
