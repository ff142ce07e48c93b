"""The reference configurations of examples/: each loads, agrees with what is rendered, and plays as its README says.

``FAILOVER_GOLDEN=write`` writes the hosts' files anew; read what has changed before it is committed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from agent_host import FILES, AgentHost, agent_host
from example_world import EXAMPLES, NAMES, loaded, place_of, present, readme, rendered, write, yaml
from policy_world import World

from failover import agent
from failover.cli import installation
from failover.cli.inspection import Severity
from failover.cli.topologies import topologies
from failover.model import Gate, GateKind, Phase, Pool, Verb
from failover.topology.paths import names

WRITE = os.environ.get("FAILOVER_GOLDEN") == "write"
DIES, RETURNS = 200.0, 1200.0  # seconds of a played story
TURNS = 40.0  # seconds that a handover and its decisions may take in a world that turns every ten seconds
DOCUMENTED = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")  # RFC 5737
BACKUP = {"relay-as-standby": "standby", "several-backups": "second"}  # who takes over; backup elsewhere
CUT_OFF = {  # who is seen to make blocks that get out while main is cut off from the controller alone
    "proxies-and-forging": {"main"},
    "power-confirmed": {"main"},
    "forging-only": {"main", "backup"},
    "relay-as-standby": {"main", "standby"},
    "several-backups": {"main", "second"},
}
AGENTS = [
    (name, path.parent.name) for name in NAMES for path in sorted(EXAMPLES.glob(f"{name}/hosts/*/failover-agent.json"))
]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pool(name: str, tmp_path: Path) -> Pool:
    return loaded(name, tmp_path).pool


# ---------------------------------------------------------------- files


def test_the_table_of_the_readme_has_every_example_and_no_other() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    linked = set(re.findall(r"^\| \[[a-z-]+\]\(([a-z-]+)/\)", readme(), re.MULTILINE))
    assert set(NAMES) == folders == linked


def test_an_example_loads_and_its_readme_names_every_warning(name: str, tmp_path: Path) -> None:
    said = [f"- {warning.key}: {warning.problem}" for warning in loaded(name, tmp_path).warnings]
    section = readme(name).partition("## What check warns of\n\n")[2]
    assert section == "".join(f"{line}\n" for line in said) if said else section == "Nothing.\n"


def test_an_example_uses_the_usual_paths_and_addresses_for_documentation_alone(name: str) -> None:
    texts = [yaml(name), readme(name), *present(name).values()]
    networks = [ipaddress.ip_network(network) for network in DOCUMENTED]
    for text in texts:
        for found in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text):
            address = ipaddress.ip_address(found)
            assert found in ("127.0.0.1", "0.0.0.0") or any(address in network for network in networks), found
    assert set(re.findall(r"_file: (/\S+?)[,}\n]", yaml(name))) <= {
        f"/etc/failover/{file}" for file in ("agent.key", "stats.password", "proxies-ca.pem", "tsig.key")
    }


def test_the_files_of_the_hosts_are_what_is_rendered(name: str, pool: Pool) -> None:
    if WRITE:
        write(name, rendered(name, pool))
    assert present(name) == rendered(name, pool), "read what has changed; FAILOVER_GOLDEN=write writes it anew"


def test_the_topologies_have_no_leak(name: str, pool: Pool) -> None:
    files = present(name)
    given = {node: files[f"{place_of(pool, node)}/topology.json"] for node in names(pool)}
    found = topologies(pool, given, versions=dict.fromkeys(given, (10, 5, 1)))
    assert [(one.severity, one.what) for one in found] == [(Severity.OK, "no leak")] * len(given)


# ---------------------------------------------------------------- agents


def on_this_machine(document: dict[str, Any], host: AgentHost) -> dict[str, Any]:
    """An agent's file with the paths, ports and accounts of a host that a test made; without a firewall."""
    node = {**document["node"], "runtime": {"pidfile": str(host.pidfile)}, "port": host.port}
    node |= {"metrics": f"http://127.0.0.1:{host.metrics}/metrics", "topology": str(host.folder / "topology.json")}
    if "credentials" in node:
        node["credentials"] = {role: str(host.keys / FILES[role]) for role in node["credentials"]}
        node["owner"] = str(os.geteuid())
    rest = {key: value for key, value in document.items() if key not in ("firewall", "gates")}
    gates = [gate for gate in document.get("gates", []) if gate != "firewall"]
    return {**rest, "state": str(host.state), "node": node, **({"gates": gates} if gates else {})}


@pytest.mark.parametrize(("name", "place"), AGENTS)
def test_an_agent_finds_nothing_wrong_with_its_file_on_a_host_that_is_so(name: str, place: str, tmp_path: Path) -> None:
    files = present(name)
    with agent_host(tmp_path) as host:
        host.document = on_this_machine(json.loads(files[f"{place}/failover-agent.json"]), host)
        host.write_config()
        (tmp_path / "topology.json").write_text(files[f"{place}/topology.json"])
        host.run_node(by_agent="gates" in host.document)
        assert host.cli("check") == ""


def test_an_agent_takes_its_file_as_it_is(name: str, tmp_path: Path) -> None:
    for file, text in present(name).items():
        if not file.endswith("failover-agent.json"):
            continue
        path = tmp_path / "agent.json"
        path.write_text(text)
        path.chmod(0o644)
        config = agent.read_config(path)
        assert config.runtime == ("systemd", installation.UNIT)
        assert config.firewall.keys() == ({"user", "pingers", "sync"} if "firewall" in config.gates else set())


def test_a_closed_firewall_lets_the_controller_ping_and_the_producer_follow_the_relays(tmp_path: Path) -> None:
    (name,) = (name for name in NAMES if "firewall" in yaml(name))
    for file, text in present(name).items():
        if file.endswith("failover-agent.json"):
            document = json.loads(text)
            firewall = {**document["firewall"], "user": "64111"}
            rules = agent.Firewall(firewall, document["node"]["port"], tmp_path, agent.run).rules()
            assert "elements = { 203.0.113.100/32 }" in rules
            assert "192.0.2.20 . 3001, 198.51.100.20 . 3001" in rules


def test_the_unit_starts_the_node_with_the_files_that_the_agent_moves(name: str) -> None:
    files = present(name)
    for file, text in files.items():
        if file.endswith("/failover.conf"):
            node = json.loads(files[file.replace("failover.conf", "failover-agent.json")])["node"]
            words = text.splitlines()[-1].split()
            options = dict(pairwise(words))
            assert options["--port"] == str(node["port"])
            assert options["--topology"] == node["topology"]
            assert {
                "kes": options["--shelley-kes-key"],
                "vrf": options["--shelley-vrf-key"],
                "certificate": options["--shelley-operational-certificate"],
            } == node["credentials"]


# ---------------------------------------------------------------- played through


class Play:
    """A pool in a world of values. ``two``: seconds in which blocks of two producers got out."""

    def __init__(self, pool: Pool) -> None:
        self.world = World(pool)
        self.world.parties = {n: p for n, p in self.world.parties.items() if n in self.world.board.relays}
        self.two = 0.0
        self.out: set[str] = set()

    def until(self, seconds: float) -> None:
        """Let it go on until then."""
        while self.world.t < seconds:
            self.world.run(self.world.t + 1.0)
            self.out = self.reaching()
            self.two += 10.0 if len(self.out) > 1 else 0.0

    def reaching(self) -> set[str]:
        """Whose blocks get out: without gates, of whoever makes some and has a session with a relay."""
        if not self.world.pool.gateless:
            return self.world.admitted()
        held = {producer for party in self.world.parties.values() for producer in party.sessions}
        return {producer for producer in held if self.world.makes(producer)}

    def die(self, name: str) -> None:
        """A host is gone, and its agent with it."""
        self.world.nodes[name].up = False
        self._each(name, lambda gate: setattr(self.world.switches[gate], "answers", gate.kind is GateKind.POWER))

    def come_back(self, name: str) -> None:
        """It was switched on, and starts with its keys where they were when it died."""
        self.world.nodes[name].up = True
        for field in ("answers", "open"):
            self._each(name, lambda gate, field=field: setattr(self.world.switches[gate], field, True))  # type: ignore[misc]

    def _each(self, name: str, act: Callable[[Gate], None]) -> None:
        for gate in self.world.switches:
            if gate.producer == name:
                act(gate)


def said(seconds: float) -> str:
    return f"after {seconds / 60:g} min"


def test_the_main_producer_dies_and_comes_back_and_the_role_moves_once_each_way(name: str, pool: Pool) -> None:
    play, backup = Play(pool), BACKUP.get(name, "backup")
    world, policy = play.world, pool.policy
    play.until(DIES)
    assert play.out == {"main"}
    play.die("main")
    play.until(RETURNS)
    assert play.out == {backup}
    play.come_back("main")
    play.until(RETURNS + policy.fail_back_after + 600.0)
    assert play.out == {"main"}
    assert world.assignment is not None
    assert (world.assignment.phase, world.active) == (Phase.STEADY, "main")
    assert world.handovers() == [("forced", backup), ("voluntary", "main")]
    there, back = (at for at, _, _ in world.generations)
    assert DIES + policy.fail_over_after <= there <= DIES + policy.fail_over_after + TURNS
    assert RETURNS + policy.fail_back_after <= back <= RETURNS + policy.fail_back_after + TURNS
    claimed = set(re.findall(r"after \d+ min", readme(name)))
    assert {said(policy.fail_over_after), said(policy.fail_back_after)} == claimed
    assert play.two <= longest_together(name)


def longest_together(name: str) -> float:
    """For how many seconds blocks of two may get out, as the README says; 0 where it says nothing of it."""
    found = re.search(r"blocks of both get out\*\*: .*?for up to\s+(\d+) s", readme(name), re.DOTALL)
    return float(found[1]) if found else 0.0


def test_only_the_pool_without_gates_lets_blocks_of_two_out_and_says_for_how_long() -> None:
    assert {name: longest_together(name) for name in NAMES if longest_together(name)} == {"dns-and-relays": 40.0}


def test_a_switchover_moves_the_role_and_back(name: str, pool: Pool) -> None:
    play, backup = Play(pool), BACKUP.get(name, "backup")
    play.until(100.0)
    for target in (backup, "main"):
        asked = play.world.ask(Verb.SWITCHOVER, target)
        play.until(play.world.t + 300.0)
        assert play.out == {target}
        assert play.world.answers[asked][0] == "done"
    assert len(play.world.handovers()) == 2
    assert play.two <= 2 * longest_together(name)


@pytest.mark.parametrize("name", CUT_OFF)
def test_what_a_main_producer_does_that_is_cut_off_from_us_alone_is_as_the_readme_says(name: str, pool: Pool) -> None:
    play = Play(pool)
    play.until(100.0)
    play.world.cut.add("main")
    play.until(100.0 + pool.policy.fail_over_after + 120.0)
    assert play.out == CUT_OFF[name]
    assert "cut off from the controller" in readme(name)
    assert (re.search(r"opened as well: two forge\b", readme(name)) is not None) == (len(CUT_OFF[name]) == 2)


def test_when_the_second_producer_dies_as_well_the_third_takes_over(tmp_path: Path) -> None:
    pool = loaded("several-backups", tmp_path).pool
    play = Play(pool)
    play.until(DIES)
    play.die("main")
    play.until(RETURNS)
    play.die("second")
    play.until(RETURNS + pool.policy.fail_over_after + TURNS)
    assert play.out == {"third"}
    assert play.world.handovers() == [("forced", "second"), ("forced", "third")]
    assert play.two == 0.0


def test_a_machine_is_switched_off_when_it_died_and_never_in_a_switchover(tmp_path: Path) -> None:
    pool = loaded("power-confirmed", tmp_path).pool
    play = Play(pool)
    play.until(100.0)
    play.world.ask(Verb.SWITCHOVER, "backup")
    play.until(400.0)
    power = Gate(GateKind.POWER.value, "backup")
    assert all(switch.open for gate, switch in play.world.switches.items() if gate.kind is GateKind.POWER)
    play.die("backup")
    play.until(800.0)
    assert not play.world.switches[power].open
    assert play.out == {"main"}


def test_nobody_takes_over_while_the_board_of_a_dead_machine_is_silent(tmp_path: Path) -> None:
    play = Play(loaded("power-confirmed", tmp_path).pool)
    play.until(DIES)
    play.die("main")
    play.world.switches[Gate(GateKind.POWER.value, "main")].answers = False
    play.until(3000.0)
    assert play.out == set()
    assert play.world.handovers() == []


def test_a_site_that_is_gone_with_its_proxy_is_passed_over(tmp_path: Path) -> None:
    play = Play(loaded("proxies-and-forging", tmp_path).pool)
    play.until(DIES)
    play.die("main")
    play.world.doors["proxy-1"].answers = play.world.doors["proxy-1"].carries = False
    play.until(DIES + play.world.pool.policy.fail_over_after + 2 * TURNS)
    assert play.out == {"backup"}
    assert any("proxy-1" in alert and "passed over" in alert for alert in play.world.alerts)
