"""What ``failover check`` finds on the hosts of producers and relays, over real sshds; and that it changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from agent_world import AgentWorld, agent_world
from click.testing import CliRunner
from fake_agent import GATE
from sshd import keygen
from store_values import DURATION, T0, WAIT, assignment

from failover.cli import main
from failover.cli.host_inspection import Told, hosts
from failover.cli.inspection import Found, Severity
from failover.host import RealHost
from failover.model import (
    Address,
    Commit,
    GateKind,
    LeaseSettings,
    PolicySettings,
    Pool,
    Power,
    Producer,
    Proxy,
    Relay,
)
from failover.store.sqlite import SqliteStore

FORGING = (GateKind.FORGING,)
NAMES = ("main", "backup", "relay-1")
QUICK = ("SetEnv SHLVL=1",)  # bash then passes over what root's own .bashrc does on this machine
WELL = {"open": True, **GATE}
CLOSED = {**GATE, "open": False, "certain": True, "shown": ["files gone"]}
METRICS = {
    "cardano_node_metrics_slotNum_int": 4711,
    "cardano_node_metrics_Forge_about_to_lead_counter": 12,
    "cardano_node_metrics_forging_enabled_int": 1,
    "cardano_node_metrics_remainingKESPeriods_int": 40,
}


@dataclass
class World:
    """Two producers and a relay, each with a host of its own."""

    folder: Path
    hosts: Mapping[str, AgentWorld]
    gates: tuple[GateKind, ...] = FORGING

    def pool(self, **changes: Any) -> Pool:
        producers = tuple(
            Producer(name, Address(f"10.0.1.{10 * (i + 1)}", 6000), agent=name, gates=self.gates)
            for i, name in enumerate(("main", "backup"))
        )
        agents = tuple(world.sshd.agent(name) for name, world in self.hosts.items())
        relays = (Relay("relay-1", Address("10.0.2.1", 3001), agent="relay-1", managed=True),)
        made = Pool("EXMPL", "preview", 2, producers, (), agents=agents, relays=relays, state=self.folder / "state")
        return replace(made, **changes)

    async def check(self, pool: Pool | None = None) -> Told:
        return await hosts(pool or self.pool(), RealHost())

    async def found(self, part: str, pool: Pool | None = None) -> list[tuple[str, str, str]]:
        """What is said of one part: severity, words, mend."""
        told = await self.check(pool)
        return [(f.severity.value, f.what, f.mend) for f in told.found if f.part == part]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Three hosts that have nothing to mend, until the block ends."""
    async with AsyncExitStack() as stack:
        made = {}
        for name in NAMES:
            (folder / name).mkdir()
            made[name] = await stack.enter_async_context(agent_world(folder / name, settings=QUICK))
        for name, gate in (("main", WELL), ("backup", CLOSED)):
            made[name].says("status", gates={"forging": gate}, metrics=METRICS, fuse=None, agent="0.1.0")
        made["relay-1"].says("status", gates={}, fuse=None, agent="0.1.0")
        yield World(folder, made)


def bad(told: Told) -> list[Found]:
    return [f for f in told.found if f.severity in (Severity.ERROR, Severity.WARNING)]


def says(one: World, name: str, **fields: Any) -> None:
    """Change what a host answers to ``status``."""
    path = one.hosts[name].folder / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def only(found: list[tuple[str, str, str]], *severities: str) -> tuple[str, str, str]:
    """The one finding of these severities; it has a mend."""
    (one,) = [each for each in found if each[0] in severities]
    assert one[2]
    return one


# ---------------------------------------------------------------- all is well


async def test_hosts_that_are_well_have_nothing_to_mend_and_nothing_is_changed_there(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        told = await one.check()
        assert bad(told) == []
        parts = {f.part for f in told.found}
        assert parts >= {"agent main", "agent relay-1", "gate main@forging", "gate backup@forging", "metrics main"}
        for name, host in one.hosts.items():
            assert host.verbs == (["status", "sessions"] if name == "relay-1" else ["status"])
            assert host.requests[0]["topology"] is True
            assert "lease" not in host.requests[0], "a fuse must not take a check for a decider"
        assert dict(told.topologies) == dict.fromkeys(NAMES, "{}\n")
        assert told.versions["main"] == (10, 5, 1)
        (answers,) = [f.what for f in told.found if f.part == "agent main"]
        assert "version 0.1.0, pool EXMPL, boot boot-1" in answers
        assert str(one.hosts["main"].sshd.address) in answers


# ---------------------------------------------------------------- agents


async def test_an_agent_that_cannot_be_asked_is_an_error_in_the_link_s_words_and_hides_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        pool = one.pool()
        other = keygen(tmp_path / "other")
        one.hosts["backup"].behave("busy")
        one.hosts["relay-1"].sshd.kill()
        agents = (replace(pool.agents[0], host_key=other), *pool.agents[1:])
        told = await one.check(replace(pool, agents=agents))
        errors = {f.part: f for f in told.found if f.severity is Severity.ERROR}
        assert list(errors) == ["agent main", "agent backup", "agent relay-1"]
        assert "showed another host key" in errors["agent main"].what
        assert "ssh-keygen -lf" in errors["agent main"].mend
        assert errors["agent backup"].what.startswith("refused (busy): ")
        assert errors["agent backup"].mend == "mend of busy"
        assert "no connection" in errors["agent relay-1"].what
        assert not [f for f in told.found if f.part.startswith(("gate", "metrics", "relay"))]


async def test_an_agent_of_another_release_is_a_note_and_of_another_protocol_an_error(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        says(one, "main", agent="0.0.9")
        one.hosts["backup"].behave("version")
        told = await one.check()
        (note,) = [f for f in told.found if f.part == "agent main" and f.severity is Severity.NOTE]
        assert "is version 0.0.9, and this is" in note.what
        (error,) = [f for f in told.found if f.part == "agent backup"]
        assert error.severity is Severity.ERROR
        assert "another version" in error.what


async def test_a_node_that_does_not_run_is_a_warning(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        says(one, "main", node={"running": False, "runtime": "systemd cardano-node.service"})
        assert "its node does not run" in only(await one.found("agent main"), "warning")[1]


# ---------------------------------------------------------------- the fuse


@pytest.mark.parametrize(
    ("after", "severity", "words"),
    [
        (75.0, "error", "too soon: after 75 s"),
        (76.0, "ok", "closes after 76 s"),
        (289.0, "ok", "before another is let in at 300 s"),
        (290.0, "error", "too late: after 290 s, and up to 10 s more"),
    ],
)
async def test_a_fuse_outlasts_a_change_of_decider_and_closes_before_another_is_let_in(
    tmp_path: Path, after: float, severity: str, words: str
) -> None:
    async with world(tmp_path) as one:
        says(one, "main", fuse={"after": after, "left": 60.0})
        (found,) = [f for f in await one.found("agent main") if "fuse" in f[1]]
        assert found[0] == severity
        assert words in found[1]
        assert severity == "ok" or "between 75 and 290" in found[2]


async def test_numbers_that_leave_no_room_for_a_fuse_are_said(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        says(one, "main", fuse={"after": 80.0, "left": 0})
        pool = one.pool(policy=PolicySettings(fail_over_after=85.0), lease=LeaseSettings())
        found = await one.found("agent main", pool)
        assert "raise policy.fail_over_after above 85 s" in only(found, "error")[2]
        assert "heard no lease lately" in only(found, "note")[1]


# ---------------------------------------------------------------- gates


async def test_a_gate_that_the_agent_does_not_have_is_an_error_and_one_that_the_file_does_not_a_warning(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as one:
        says(one, "main", gates={"firewall": CLOSED})
        told = await one.check()
        (error,) = [f for f in told.found if f.part == "gate main@forging"]
        assert (error.severity, error.what) == (Severity.ERROR, "its agent main has no forging gate")
        (extra,) = [f for f in told.found if f.part == "producer main"]
        assert extra.severity is Severity.WARNING
        assert "firewall gate" in extra.what


async def test_a_gate_that_cannot_show_its_state_says_what_it_lacks_and_findings_are_warnings(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        says(one, "main", gates={"forging": {**WELL, "open": None, "lacks": ["the counter still rises"]}})
        finding = {"what": "the node was not started by this agent", "mend": "use start"}
        unsure = {**CLOSED, "certain": False, "lacks": ["no metrics"], "findings": [finding]}
        says(one, "backup", gates={"forging": unsure})
        found = only(await one.found("gate main@forging"), "warning")
        assert "neither open nor closed, and cannot show more: the counter still rises" in found[1]
        words = [each[1] for each in await one.found("gate backup@forging")]
        assert words[0].startswith("closed, and cannot show more: no metrics")
        assert words[1] == "the node was not started by this agent: use start"


async def test_two_producers_with_their_credentials_in_place_are_a_warning(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        says(one, "backup", gates={"forging": WELL})
        assert "main, backup" in only(await one.found("gates"), "warning")[1]


async def test_power_is_asked_how_it_stands_and_never_switched(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        ran = tmp_path / "ran"
        script = tmp_path / "power"
        script.write_text(f'#!/bin/sh\necho "$1" >> {ran}\necho the machine is "$2"\n')
        script.chmod(0o755)
        for state, severities in (("on", ["ok"]), ("off", ["ok", "warning"]), ("asleep", ["error"])):
            power = Power((str(script), "off"), (str(script), "status", state), (str(script), "on"))
            pool = one.pool()
            first = replace(pool.producers[0], gates=(*FORGING, GateKind.POWER), power=power)
            found = await one.found("gate main@power", replace(pool, producers=(first, *pool.producers[1:])))
            assert [each[0] for each in found] == severities, found
        assert set(ran.read_text().split()) == {"status"}


# ---------------------------------------------------------------- nodes


async def test_metrics_say_how_long_a_node_can_sign(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        left = "cardano_node_metrics_remainingKESPeriods_int"
        for periods, severity, words in (
            (40, "ok", "another 40 periods"),
            (3, "warning", "ends in 3"),
            (0, "error", ""),
        ):
            says(one, "main", metrics={**METRICS, left: periods})
            found = await one.found("metrics main")
            assert found[-1][0] == severity
            assert words in found[-1][1]
        ended = {"cardano_node_metrics_currentKESPeriod_int": 500}
        ended["cardano_node_metrics_operationalCertificateExpiryKESPeriod_int"] = 500
        says(one, "main", metrics={**METRICS, **ended})
        assert "certificate ended in KES period 500 (now 500)" in only(await one.found("metrics main"), "error")[1]


async def test_what_metrics_do_not_tell_or_cannot_be_believed_in_is_said(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        says(one, "main", metrics={"cardano_node_metrics_slotNum_int": 1})
        found = await one.found("metrics main")
        assert "about to lead" in only(found, "warning")[1]
        assert "forging_enabled is not relied on" in next(each[1] for each in found if each[0] == "note")
        says(one, "main", metrics={}, metrics_error="http://127.0.0.1:12798/metrics did not answer")
        assert "did not answer" in only(await one.found("metrics main"), "warning")[1]


# ---------------------------------------------------------------- relays


async def test_a_relay_without_a_session_with_any_producer_is_a_warning(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        one.hosts["relay-1"].says("sessions", sessions=[])
        found = await one.found("relay relay-1")
        assert "no session with any producer" in only(found, "warning")[1]


async def test_a_relay_is_to_be_connected_to_the_one_that_is_active_where_that_is_known(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        assert [each[0] for each in await one.found("relay relay-1")] == ["ok"]
        store = SqliteStore(tmp_path / "state", pool="EXMPL", boot=T0.boot, clock=lambda: T0)
        lease = store.acquire("a daemon", T0, DURATION, WAIT)
        assert lease is not None
        store.commit(Commit(lease.term, assignment(1, active="backup")))
        store.close()
        found = only(await one.found("relay relay-1"), "warning")
        assert "no session with backup, which is active" in found[1]


async def test_behind_proxies_a_session_past_them_is_what_is_warned_of(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        proxy = Proxy("proxy-1", "producers", {"main": "main", "backup": "backup"}, socket=tmp_path / "none")
        pool = one.pool(proxies=(proxy,))
        assert "connected to main past the proxies" in only(await one.found("relay relay-1", pool), "warning")[1]
        own = {"peer": "10.0.1.20:41000", "local": "10.0.2.1:3001", "inbound": True}  # a standby's, to stay in sync
        for sessions in ([], [own]):
            one.hosts["relay-1"].says("sessions", sessions=sessions)
            assert [each[0] for each in await one.found("relay relay-1", pool)] == ["ok"]


# ---------------------------------------------------------------- the command

FILE = """
pool: EXMPL
network: preview
state: {folder}/state
listen: "127.0.0.1:{port}"
health: {{timeout: 500ms}}
agents:
{agents}
producers:
  - {{name: main, address: "127.0.0.1:{port}", agent: main, gates: [forging]}}
  - {{name: backup, address: "127.0.0.2:{port}", agent: backup, gates: [forging]}}
relays:
  - {{name: relay-1, address: "127.0.0.3:{port}", agent: relay-1}}
"""


async def test_the_command_looks_through_the_topologies_that_agents_show_unless_it_is_offline(tmp_path: Path) -> None:
    async with world(tmp_path) as one:
        leaky = {"localRoots": [], "publicRoots": [{"accessPoints": [{"address": "192.0.2.9", "port": 3001}]}]}
        says(one, "main", topology={"path": "/t.json", "text": json.dumps(leaky)})
        agents = "\n".join(
            f'  - {{name: {a.name}, address: "{a.address}", user: {a.user}, key_file: {a.key_file}, '
            f'host_key: "{a.host_key}"}}'
            for a in one.pool().agents
        )
        file = tmp_path / "failover.yaml"
        file.write_text(FILE.format(folder=tmp_path, agents=agents, port=one.hosts["main"].sshd.port + 1))

        async def check(*words: str) -> list[dict[str, str]]:
            call = ["-c", str(file), "check", "--json", *words]
            result = await asyncio.to_thread(CliRunner().invoke, main, call)  # noqa: TID251 - it runs a loop of its own
            found: list[dict[str, str]] = json.loads(result.stdout)["findings"]
            return found

        leaks = [f for f in await check() if f["part"] == "topology main"]
        assert any("public roots: 192.0.2.9:3001" in leak["what"] for leak in leaks), leaks
        asked = len(one.hosts["main"].requests)
        clean = tmp_path / "clean.json"
        clean.write_text("{}")
        given = [f for f in await check("--topology", f"main={clean}") if f["part"] == "topology main"]
        assert not any("public roots" in leak["what"] for leak in given), "a file that is given stands for its node's"
        assert len(one.hosts["main"].requests) == asked + 1
        offline = await check("--offline")
        assert len(one.hosts["main"].requests) == asked + 1
        assert not [f for f in offline if f["part"].startswith(("agent", "gate", "topology"))]
