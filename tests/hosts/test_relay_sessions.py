"""A relay's sessions with producers, seen and ended by the agent with real ss between hosts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from netns import Host, Hosts
from tcp_world import Dialled, inside, listen

from failover import agent

PORT = 3001  # the relay's
NODE = 6000  # the producers'
METRICS = 12798


class World:
    """A relay between two producers."""

    def __init__(self, hosts: Hosts) -> None:
        self.relay = hosts.add("relay", "10.77.1.1")
        self.winner = hosts.add("winner", "10.77.2.1")
        self.loser = hosts.add("loser", "10.77.3.1")
        listen(self.relay, PORT)
        for producer in (self.winner, self.loser):
            listen(producer, NODE)
        self.sessions = agent.Sessions(PORT, inside(self.relay))

    def out(self, producer: Host, address: str | None = None) -> Dialled:
        """One that the relay's node dialled from its own port."""
        return Dialled(self.relay, address or producer.address, NODE, local=PORT)

    def into(self, producer: Host, address: str | None = None, local: int = 0) -> Dialled:
        """One that the producer dialled."""
        return Dialled(producer, address or self.relay.address, PORT, local=local)


@pytest.fixture
def world() -> Iterator[World]:
    with Hosts() as hosts:
        yield World(hosts)


def test_who_is_connected_is_told_by_direction_and_others_are_counted(world: World) -> None:
    world.out(world.loser)
    world.into(world.loser)
    world.out(world.winner)
    seen = world.sessions.look([f"{world.loser.address}:{NODE}"])
    assert [(one["peer"].split(":")[0], one["inbound"]) for one in seen["sessions"]] == [
        (world.loser.address, False),
        (world.loser.address, True),
    ]
    assert seen["sessions"][0]["peer"] == f"{world.loser.address}:{NODE}"
    assert all(one["local"] == f"{world.relay.address}:{PORT}" for one in seen["sessions"])
    assert (seen["others"], seen["truncated"]) == (1, False)


def test_a_kick_ends_exactly_the_sessions_with_the_loser(world: World) -> None:
    loser, winner = world.loser, world.winner
    gone = [world.out(loser), world.into(loser), world.out(loser, loser.address6)]
    gone.append(world.into(loser, world.relay.address6))
    kept = [world.out(winner), world.into(winner), world.out(winner, winner.address6)]
    kept.append(Dialled(world.relay, loser.address, NODE))  # another program's on the relay's host
    ended = world.sessions.kick([f"{loser.address}:{NODE}", loser.address6])
    assert ended == 4
    assert all(session.lost for session in gone)
    assert all(session.works for session in kept)
    assert world.sessions.kick([f"{loser.address}:{NODE}", loser.address6]) == 0


def test_one_that_the_nodes_process_dialled_from_any_port_is_its_own(world: World) -> None:
    code = f"""
import socket, sys
door = socket.create_server(("", {PORT + 1}))
session = socket.create_connection(({world.loser.address!r}, {NODE}))
print("up", flush=True)
sys.stdin.read()
"""
    node = world.relay.popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert node.stdout is not None
    assert node.stdout.readline() == "up\n"
    sessions = agent.Sessions(PORT + 1, inside(world.relay))
    assert [one["inbound"] for one in sessions.look([world.loser.address])["sessions"]] == [False]
    assert sessions.look([f"{world.loser.address}:{NODE + 1}"])["sessions"] == []
    assert world.sessions.look([world.loser.address])["sessions"] == []
    assert sessions.kick([world.loser.address]) == 1


def test_more_sessions_than_fit_are_cut_short_and_all_of_them_are_kicked(world: World) -> None:
    code = f"""
import socket, sys
held = [socket.create_connection(({world.relay.address!r}, {PORT})) for _ in range(300)]
print("up", flush=True)
sys.stdin.read()
"""
    many = world.loser.popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert many.stdout is not None
    assert many.stdout.readline() == "up\n"
    seen = world.sessions.look([world.loser.address])
    assert len(seen["sessions"]) == agent.SHOWN_SESSIONS
    assert seen["truncated"]
    assert world.sessions.kick([world.loser.address]) == 300


def test_a_kick_that_ends_nothing_is_an_error_with_its_mend(world: World) -> None:
    run = inside(world.relay)

    def unable(args: list[str], timeout: float, input: str | None = None) -> agent.Ran:  # noqa: A002
        return agent.Ran(args, 0, "", "") if args[:2] == ["ss", "-K"] else run(args, timeout, input)

    session = world.out(world.loser)
    with pytest.raises(agent.Unable, match="did not end 1 sessions") as raised:
        agent.Sessions(PORT, unable).kick([world.loser.address])
    assert "CAP_NET_ADMIN" in raised.value.mend
    assert session.works


def test_nobody_and_no_peer(world: World) -> None:
    world.out(world.loser)
    assert world.sessions.look([]) == {"sessions": [], "others": 1, "truncated": False}
    assert world.sessions.kick([]) == 0


@pytest.mark.parametrize(
    "peer", ["relay.example", "10.0.0.1:0", "10.0.0.1:70000", "*:1", "10.0.0.1 or sport = :22", ""]
)
def test_what_is_no_address_is_refused_before_anything_runs(peer: str) -> None:
    def never(args: list[str], timeout: float, input: str | None = None) -> agent.Ran:  # noqa: A002
        raise AssertionError(args)

    with pytest.raises(agent.BadRequest, match="is no peer"):
        agent.Sessions(PORT, never).kick([peer])
