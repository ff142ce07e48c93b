"""The firewall gate with real nftables, real ss and real TCP between hosts: what passes and what does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_host import agent_host
from netns import Host, Hosts, eventually
from tcp_world import Dialled, attempt, inside, listen

from failover import agent

PORT = 6000  # the node's
RELAY = 3001
METRICS = 12798
USER = 4711  # the node's; it need not exist


class World:
    """A producer, a relay that it may sync from, another relay, and a host that pings."""

    def __init__(self, hosts: Hosts, state: Path) -> None:
        self.hosts, self.state = hosts, state
        self.main = hosts.add("main", "10.77.1.1")
        self.sync = hosts.add("sync", "10.77.2.1")
        self.relay = hosts.add("relay", "10.77.3.1")
        self.pinger = hosts.add("pinger", "10.77.4.1")
        self.node = listen(self.main, PORT, USER)
        for relay in (self.sync, self.relay, self.pinger):
            listen(relay, RELAY)

    def gate(self, run: agent.Run | None = None, pid: int | None = None, **more: Any) -> agent.Firewall:
        config = {
            "user": str(USER),
            "pingers": [self.pinger.address, self.pinger.address6],
            "sync": [f"{self.sync.address}:{RELAY}", f"[{self.sync.address6}]:{RELAY}"],
            **more,
        }
        return agent.Firewall(config, PORT, self.state, run or inside(self.main), pid)

    def inbound(self, host: Host, address: str | None = None, local: int = 0) -> str:
        return attempt(host, address or self.main.address, PORT, local=local)

    def outbound(self, host: Host, address: str | None = None, local: int = 0) -> str:
        return attempt(self.main, address or host.address, RELAY, USER, local)

    def ruleset(self) -> str:
        return self.main.run(["nft", "-a", "list", "ruleset"]).stdout


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Hosts() as hosts:
        yield World(hosts, tmp_path / "state")


def killed_before(world: World, *words: str) -> None:
    """An agent of its own process begins to close, and gets SIGKILL when it would run the command."""
    run = inside(world.main)

    def until(args: list[str], timeout: float, input: str | None = None) -> agent.Ran:  # noqa: A002
        if tuple(args[: len(words)]) == words:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(args, timeout, input)

    child = os.fork()
    if child == 0:
        try:
            world.gate(until).close()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def test_an_open_gate_lets_everything_pass_and_says_so(world: World) -> None:
    gate = world.gate().read()
    assert (gate["open"], gate["certain"], gate["lacks"], gate["findings"]) == (True, True, [], [])
    assert gate["process"] == agent.boot_id()
    assert world.inbound(world.relay) == "ok"
    assert world.outbound(world.relay) == "ok"


def test_closing_cuts_what_is_connected_in_both_directions_and_both_ends_hear_it(world: World) -> None:
    main, relay = world.main, world.relay
    inbound = Dialled(relay, main.address, PORT)
    inbound6 = Dialled(relay, main.address6, PORT)
    outbound = Dialled(main, relay.address, RELAY, USER)
    duplex = Dialled(main, relay.address, RELAY, USER, local=PORT)
    duplex6 = Dialled(main, relay.address6, RELAY, USER, local=PORT)
    gate = world.gate().close()
    assert (gate["open"], gate["certain"], gate["lacks"], gate["findings"]) == (False, True, [], [])
    for session in (inbound, inbound6, outbound, duplex, duplex6):
        assert session.lost
    left = relay.run(["ss", "-Htn", "state", "established"]).stdout
    assert left == ""


def test_a_closed_gate_refuses_new_connections_in_both_directions(world: World) -> None:
    world.gate().close()
    for address in (world.main.address, world.main.address6):
        assert world.inbound(world.relay, address) == "refused"
        assert world.inbound(world.sync, address) == "refused"
        assert world.inbound(world.sync, address, local=RELAY) == "refused"
    for host in (world.relay, world.pinger):
        assert world.outbound(host) == "refused"
        assert world.outbound(host, host.address6) == "refused"
        assert world.outbound(host, local=PORT) == "refused"


def test_a_closed_producer_can_be_pinged_and_syncs_one_way(world: World) -> None:
    ping = Dialled(world.pinger, world.main.address, PORT)
    sync = Dialled(world.main, world.sync.address, RELAY, USER)
    world.gate().close()
    assert ping.works
    assert sync.works
    for address in (world.main.address, world.main.address6):
        assert world.inbound(world.pinger, address) == "ok"
    for address in (world.sync.address, world.sync.address6):
        assert world.outbound(world.sync, address) == "ok"


def test_a_duplex_connection_is_refused_and_cut_even_to_a_sync_peer(world: World) -> None:
    duplex = Dialled(world.main, world.sync.address, RELAY, USER, local=PORT)
    world.gate().close()
    assert duplex.lost
    assert world.outbound(world.sync, local=PORT) == "refused"


def test_other_users_other_services_and_the_host_itself_are_left_alone(world: World) -> None:
    main, relay = world.main, world.relay
    listen(main, METRICS, USER)
    metrics = Dialled(relay, main.address, METRICS)
    by_another = Dialled(main, relay.address, RELAY, USER + 1)
    within = Dialled(main, "127.0.0.1", PORT, USER)
    gate = world.gate().close()
    assert metrics.works
    assert by_another.works
    assert within.works
    assert attempt(relay, main.address, METRICS) == "ok"
    assert attempt(main, relay.address, RELAY, USER + 1) == "ok"
    assert attempt(main, main.address, PORT, USER) == "ok"
    assert gate["certain"]
    (finding,) = gate["findings"]
    assert "stay within this host" in finding["what"]


def test_names_can_still_be_asked_for_by_udp(world: World) -> None:
    answering = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
    door.bind(("", 53))
    print("up", flush=True)
    door.sendto(*door.recvfrom(99))
"""
    server = world.relay.popen([sys.executable, "-S", "-c", answering], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    world.gate().close()
    asking = f"""
import os, socket
os.setuid({USER})
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
    asked.settimeout(5)
    asked.sendto(b"?", ({world.relay.address!r}, 53))
    print(asked.recv(9))
"""
    assert world.main.run([sys.executable, "-S", "-c", asking]).stdout == "b'?'\n"


def test_nothing_slips_in_while_the_gate_closes(world: World) -> None:
    dialling = """
import os, socket
if os.environ["AS_USER"]:
    os.setuid(int(os.environ["AS_USER"]))
held = []
print("up", flush=True)
while True:
    try:
        held.append(socket.create_connection((os.environ["TO"], int(os.environ["PORT"])), 5))
        held = held[-50:]
    except OSError:
        pass
"""
    ends = ((world.main, world.relay.address, RELAY, USER), (world.relay, world.main.address, PORT, ""))
    for host, address, port, user in ends:
        env = {**os.environ, "AS_USER": str(user), "TO": address, "PORT": str(port)}
        busy = host.popen([sys.executable, "-S", "-c", dialling], stdout=subprocess.PIPE, env=env)
        assert busy.stdout is not None
        assert busy.stdout.readline() == "up\n"
    for _ in range(5):
        world.gate().open()
        eventually(lambda: world.main.run(["ss", "-Htn", "state", "established"]).stdout.count("\n") > 20, "dialled")
        assert world.gate().close()["certain"]
        assert world.main.run(["ss", "-Htn", "state", "established"]).stdout == ""


def test_tables_of_others_stay_as_they_are_byte_for_byte(world: World) -> None:
    theirs = """
table inet filter {
    set s { type ipv4_addr; elements = { 10.0.0.9 }; }
    chain input { type filter hook input priority 0; policy accept; ip saddr @s counter drop; }
}
table ip nat { chain post { type nat hook postrouting priority 100; }; }
"""
    world.main.run(["nft", "-f", "-"], input=theirs)
    before = world.ruleset()
    gate = world.gate()
    gate.close()
    assert world.ruleset().startswith(before.rstrip("\n"))
    assert f"table inet {gate.table}" in world.ruleset()
    gate.open()
    assert world.ruleset() == before


def test_opening_restores_and_both_may_be_asked_twice(world: World) -> None:
    gate = world.gate()
    gate.close()
    once = world.ruleset()
    ping = Dialled(world.pinger, world.main.address, PORT)
    assert gate.close()["certain"]
    assert world.ruleset() == once  # not even loaded anew
    assert ping.works
    for _ in range(2):
        gate = world.gate()
        assert gate.open()["open"] is True
        assert world.ruleset() == ""
    assert world.inbound(world.relay) == "ok"
    assert world.outbound(world.relay) == "ok"
    assert world.outbound(world.relay, local=PORT) == "ok"


def test_a_closed_gate_is_closed_again_after_the_host_restarted(world: World) -> None:
    world.gate().close()
    world.main.reboot()
    assert world.gate().read()["open"] is True
    world.gate().boot()
    listen(world.main, PORT, USER)
    gate = world.gate().read()
    assert (gate["open"], gate["certain"]) == (False, True)
    assert world.inbound(world.relay) == "refused"


def test_an_open_gate_or_one_never_used_stays_open_after_the_host_restarted(world: World) -> None:
    world.gate().boot()
    assert world.gate().read()["open"] is True
    world.gate().close()
    world.gate().open()
    world.gate().boot()
    assert world.ruleset() == ""


def test_a_damaged_record_means_closed_at_the_hosts_start(world: World) -> None:
    world.gate().close()
    (world.state / "firewall").write_text("{")
    world.main.reboot()
    world.gate().boot()
    assert world.gate(pid=0).read()["open"] is False


@pytest.mark.parametrize(
    "change",
    [
        "insert rule inet failover input accept",
        "add element inet failover pingers4 { 10.77.3.1 }",
        "flush chain inet failover output",
        "add chain inet failover input { policy drop; }",
        "flush table inet failover",
    ],
)
def test_a_change_by_another_hand_is_seen_and_mended_by_the_next_close(world: World, change: str) -> None:
    world.gate().close()
    world.main.run(["nft", change])
    gate = world.gate().read()
    assert (gate["open"], gate["certain"]) == (None, False)
    assert "is not as the agent loaded it" in gate["lacks"][0]
    assert world.gate().close()["certain"]


def test_a_table_that_another_hand_removed_means_open_and_is_told(world: World) -> None:
    world.gate().close()
    world.main.run(["nft", "flush", "ruleset"])
    gate = world.gate().read()
    assert gate["open"] is True
    assert "another hand removed it" in gate["findings"][0]["what"]


def test_rules_of_another_configuration_do_not_count_as_closed(world: World) -> None:
    world.gate().close()
    gate = world.gate(pingers=[]).read()
    assert gate["open"] is None
    assert "another configuration" in gate["lacks"][0]
    world.gate(pingers=[]).close()
    assert world.inbound(world.pinger) == "refused"


@pytest.mark.parametrize("before", [("nft", "-f"), ("ss", "-HOtnae"), ("ss", "-K")])
def test_a_close_that_was_killed_is_not_believed_and_is_finished_by_the_next(
    world: World, before: tuple[str, ...]
) -> None:
    session = Dialled(world.main, world.relay.address, RELAY, USER)
    killed_before(world, *before)
    gate = world.gate().read()
    assert gate["open"] is (True if before[0] == "nft" else None)
    assert session.works
    assert world.gate().close()["certain"]
    assert session.lost


def test_the_rules_alone_stop_what_is_still_connected_through_the_nodes_port(world: World) -> None:
    duplex = Dialled(world.main, world.relay.address, RELAY, USER, local=PORT)
    inbound = Dialled(world.relay, world.main.address, PORT)
    killed_before(world, "ss", "-HOtnae")
    for session in (duplex, inbound):
        session.ask()
        assert session.lost  # whoever sends is told at once


def test_a_close_that_was_killed_before_its_rules_is_finished_when_the_host_starts(world: World) -> None:
    killed_before(world, "nft", "-f")
    world.gate().boot()
    assert world.gate().read()["certain"]
    assert world.gate().read()["open"] is False


def test_sessions_that_nothing_ends_are_an_error_with_its_mend(world: World) -> None:
    run = inside(world.main)

    def unable(args: list[str], timeout: float, input: str | None = None) -> agent.Ran:  # noqa: A002
        return agent.Ran(args, 0, "", "") if args[:2] == ["ss", "-K"] else run(args, timeout, input)

    session = Dialled(world.main, world.relay.address, RELAY, USER)
    with pytest.raises(agent.Unable, match="did not end 1 sessions") as raised:
        world.gate(unable).close()
    assert "CONFIG_INET_DIAG_DESTROY" in raised.value.mend
    gate = world.gate().read()
    assert gate["open"] is None
    assert f"{world.relay.address}:{RELAY}" in gate["lacks"][0]
    assert session.works


def test_an_agent_without_the_right_to_change_rules_says_what_it_needs(world: World) -> None:
    def powerless(args: list[str], timeout: float, input: str | None = None) -> agent.Ran:  # noqa: A002
        return agent.run(world.main.command(args, user=USER), timeout, input)

    with pytest.raises(agent.Unable, match="Operation not permitted") as raised:
        world.gate(powerless).close()
    assert "CAP_NET_ADMIN" in raised.value.mend


def test_a_missing_nft_is_named(world: World) -> None:
    def without(args: list[str], timeout: float, input: str | None = None) -> agent.Ran:  # noqa: A002
        return agent.run(["/nowhere/" + args[0]], timeout, input)

    with pytest.raises(agent.Unable, match="nft"):
        world.gate(without).read()


def test_a_record_that_cannot_be_written_does_not_keep_the_gate_from_closing(world: World) -> None:
    (world.state / "firewall").mkdir(parents=True)
    gate = world.gate().close()
    assert gate["certain"] is False
    assert "a restart of the host forgets it" in gate["findings"][0]["what"]
    assert world.inbound(world.relay) == "refused"
    assert world.outbound(world.relay) == "refused"


def test_a_node_in_another_network_is_refused_and_nothing_is_touched(world: World) -> None:
    with pytest.raises(agent.Refused, match="another network namespace"):
        world.gate(pid=world.node).close()
    assert world.ruleset() == ""


def test_a_node_that_may_be_in_another_network_is_not_believed_to_be_closed(world: World) -> None:
    world.main.reboot()
    gate = world.gate().close()
    assert (gate["open"], gate["certain"]) == (None, False)
    assert "in a network of its own" in gate["lacks"][0]
    gate = world.gate(pid=0).close()  # it does not run
    assert (gate["open"], gate["certain"], gate["findings"]) == (False, True, [])


def test_a_node_of_another_user_is_not_believed_to_be_closed(world: World) -> None:
    gate = world.gate(user=USER + 1).close()
    assert (gate["open"], gate["certain"]) == (None, False)
    assert f"user {USER} listens on port {PORT}" in gate["lacks"][0]


def test_a_pinger_that_is_a_sync_peer_too_is_pointed_out(world: World) -> None:
    gate = world.gate(pingers=["10.77.2.0/24", "10.77.2.0/25"]).close()
    assert gate["open"] is False
    assert "sync peer and a pinger" in gate["findings"][0]["what"]


def test_a_thousand_sessions_are_cut_within_the_time_of_one_call(world: World) -> None:
    code = f"""
import socket, sys
held = [socket.create_connection(({world.main.address!r}, {PORT})) for _ in range(1000)]
print("up", flush=True)
sys.stdin.read()
"""
    many = world.relay.popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert many.stdout is not None
    assert many.stdout.readline() == "up\n"
    assert world.gate().close()["certain"]


def test_the_rules_can_be_read_by_people_and_by_nft(world: World) -> None:
    text = world.gate(table="other").rules()
    world.main.run(["nft", "-c", "-f", "-"], input=text)
    assert text.startswith("# What closes this producer's firewall gate.")
    assert "table inet other {" in text
    assert world.ruleset() == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"user": None}, "firewall.user"),
        ({"user": "nobody-of-that-name"}, "there is no user"),
        ({"user": "root"}, "cannot be gated apart"),
        ({"pingers": ["relay.example"]}, "'relay.example' is no address"),
        ({"pingers": "10.0.0.1"}, "must be a list"),
        ({"pingers": ["10.0.0.1/8"]}, "is no address"),
        ({"sync": ["10.0.0.1"]}, "no address with a port"),
        ({"sync": ["fd00::1:3001"]}, "no address with a port"),
        ({"sync": ["10.0.0.1:0"]}, "no address with a port"),
        ({"table": "x; flush ruleset"}, "no table's name"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(agent.Refused, match=said) as raised:
        agent.Firewall({"user": str(USER), **more}, PORT, tmp_path, agent.run)
    assert raised.value.mend


def test_at_a_reboot_a_closed_firewall_comes_back_whatever_is_wrong_with_the_other_gate(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "both").mkdir()
    with agent_host(tmp_path / "both", gates=["forging", "firewall"], firewall={"user": str(USER)}) as host:
        made = agent.Agent(agent.read_config(host.config), inside(world.main))
        made.order("close", {"gate": "firewall", "generation": 1, "term": 1}, agent.Deadline(10.0))
        assert "failover" in world.ruleset()
        world.main.reboot()
        assert "failover" not in world.ruleset()
        (host.state / "agent.json").write_text("")  # a crash at the wrong moment
        monkeypatch.setattr(agent, "Agent", lambda config: made)
        with pytest.raises(agent.Unable, match="is damaged"):
            agent.boot(host.config)
        assert "failover" in world.ruleset()
