"""A lab with a record: Route 53 and its DNS servers answer; relays go by the name, and cling to what it said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import boto3
import dns.asyncquery
import dns.flags
import dns.message
import pytest
from haproxy_world import require_haproxy

from failover import config
from failover.host import RealHost
from failover.lab.haproxy import LabError
from failover.lab.pool import RECORD, ZONE_ID, LabPool, Plan
from failover.lab.sessions import hot, overlaps
from failover.model import Address, Route53Zone

HOST = RealHost()
WAIT = 40.0  # seconds; a relay that is told TTL 0 asks again after 9 s at this scale
PLAN = Plan(gateless=True, scale=100.0)
ALL_MAIN = {("relay-1", RECORD): "main", ("relay-2", RECORD): "main"}
ALL_BACKUP = dict.fromkeys(ALL_MAIN, "backup")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[LabPool]:
    async with LabPool(tmp_path / "lab", PLAN) as made:
        await reached(made, ALL_MAIN)
        yield made


async def until(true: Callable[[], bool], told: Callable[[], object] = str) -> None:
    for _ in range(int(WAIT / 0.05)):
        if true():
            return
        await HOST.sleep(0.05)
    pytest.fail(f"it did not come to be within {WAIT:g} s: {told()}")


async def reached(lab: LabPool, wanted: dict[tuple[str, str], str]) -> None:
    await until(lambda: lab.reached() == wanted, lab.reached)


async def point(lab: LabPool, producer: str) -> None:
    """Another hand lets the name point at a producer."""
    await lab.tell("route53", "put", f"{RECORD} 60 {lab.addresses[producer].host}")


def events(lab: LabPool, relay: str, event: str) -> list[dict[str, Any]]:
    lines = lab.log(relay).read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


async def answers(server: Address, *, tcp: bool) -> tuple[list[str], int, bool]:
    """What a server says of the record: values, TTL, and whether it has the authority to."""
    ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    told = await ask(dns.message.make_query(RECORD, "A"), server.host, 5.0, server.port)
    (rrset,) = told.answer
    return [str(value) for value in rrset], rrset.ttl, bool(told.flags & dns.flags.AA)


async def test_every_relay_of_a_gateless_pool_reaches_main_by_the_name_and_all_producers_have_one_port(
    lab: LabPool,
) -> None:
    assert (lab.proxies, lab.lingering()) == ({}, set())
    assert lab.addresses["main"].port == lab.addresses["backup"].port
    assert lab.addresses["main"].host != lab.addresses["backup"].host
    assert overlaps(lab.sessions()) == []


async def test_the_file_of_a_gateless_pool_is_a_good_one_and_names_what_the_lab_has(lab: LabPool) -> None:
    pool = config.load(lab.file).pool
    assert (pool.gateless, pool.proxies, pool.policy.fail_back) == (True, (), "manual")
    (record,) = pool.records
    assert (record.name, record.ttl, record.servers) == (RECORD, 60, tuple(lab.servers.values()))
    assert record.targets == {name: lab.addresses[name].host for name in ("main", "backup")}
    assert record.provider == Route53Zone(ZONE_ID, endpoint_url=f"http://{lab.addresses['route53']}")


async def test_route_53_and_every_dns_server_tell_of_the_record_with_the_credentials_that_the_lab_gives(
    lab: LabPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
        assert f"export {name}={value}\n" in lab.environment_file.read_text(encoding="utf-8")

    def listed() -> list[dict[str, Any]]:
        client = boto3.client("route53", "us-east-1", endpoint_url=f"http://{lab.addresses['route53']}")
        try:
            found: list[dict[str, Any]] = client.list_resource_record_sets(HostedZoneId=ZONE_ID)["ResourceRecordSets"]
        finally:
            client.close()
        return found

    worker = HOST.worker("route53")
    (a,) = [one for one in await worker.call(listed, WAIT) if one["Name"] == RECORD]
    worker.close()
    host = lab.addresses["main"].host
    assert (a["Type"], a["TTL"], a["ResourceRecords"]) == ("A", 60, [{"Value": host}])
    assert len(lab.servers) == 2
    for server in lab.servers.values():
        for tcp in (False, True):
            assert await answers(server, tcp=tcp) == ([host], 60, True)
    values, ttl, authority = await answers(lab.addresses["resolver-1"], tcp=False)
    assert (values, ttl <= 60, authority) == ([host], True, False)


async def test_when_the_record_moves_relays_go_there_and_cling_to_main_until_main_ends_it(lab: LabPool) -> None:
    await point(lab, "backup")
    await reached(lab, ALL_BACKUP)
    assert lab.lingering() == {("relay-1", "main"), ("relay-2", "main")}
    assert await lab.tell("relay-1", "reached") == {RECORD: "backup", "lingering": ["main"]}
    await until(lambda: len(overlaps(lab.sessions())) >= 2)
    assert [o for o in overlaps(hot(lab.sessions())) if o.first.relay == o.second.relay] == []
    await lab.tell("main", "drop")
    await until(lambda: lab.lingering() == set(), lab.lingering)
    assert lab.reached() == ALL_BACKUP
    looked = len(events(lab, "relay-1", "resolved"))
    await until(lambda: len(events(lab, "relay-1", "resolved")) > looked)
    assert (await lab.tell("main", "state"))["sessions"] == 0


async def test_a_relay_stays_where_a_stale_resolver_leaves_it_while_the_other_goes(tmp_path: Path) -> None:
    async with LabPool(tmp_path / "lab", Plan(gateless=True, scale=100.0, resolvers=2)) as lab:
        await reached(lab, ALL_MAIN)
        await lab.tell("resolver-1", "stale")
        await point(lab, "backup")
        await reached(lab, {**ALL_MAIN, ("relay-2", RECORD): "backup"})
        looked = len(events(lab, "relay-1", "resolved"))
        await until(lambda: len(events(lab, "relay-1", "resolved")) > looked)
        assert lab.reached()["relay-1", RECORD] == "main"
        await lab.tell("resolver-1", "heal")
        await reached(lab, ALL_BACKUP)


async def test_a_resolver_that_is_stopped_fails_lookups_and_ends_no_session(lab: LabPool) -> None:
    before = lab.sessions()
    await lab.tell("resolver-1", "stop")
    await until(lambda: any("why" in line for line in events(lab, "relay-1", "resolved")))
    assert [(i.relay, i.producer, i.start, i.end) for i in lab.sessions()] == [
        (i.relay, i.producer, i.start, None) for i in before
    ]
    await lab.tell("resolver-1", "continue")


async def test_dns_parts_are_told_what_they_understand_and_route_53_begins_anew_when_it_is_restarted(
    lab: LabPool,
) -> None:
    assert (await lab.tell("ns2", "freeze"))["freeze"] is True
    await lab.tell("ns1", "lag", "0")
    await point(lab, "backup")
    main, backup = lab.addresses["main"].host, lab.addresses["backup"].host
    assert (await answers(lab.servers["ns1"], tcp=False))[0] == [backup]
    assert (await answers(lab.servers["ns2"], tcp=False))[0] == [main]
    assert (await lab.tell("route53", "cut"))["cut"] is True
    assert "SECONDS" in (await lab.tell("route53", "help"))["throttle"]
    with pytest.raises(LabError, match="ns1 knows no command 'kill'"):
        await lab.tell("ns1", "kill")
    await lab.tell("route53", "restart")
    assert (await lab.tell("route53", "state"))["cut"] is False
    assert (await answers(lab.servers["ns1"], tcp=False))[0] == [main]
    await lab.tell("route53", "kill")
    await until(lambda: lab.dns["route53"].pid is None)
    with pytest.raises(LabError, match="route53 does not run"):
        await lab.tell("ns1", "state")


async def test_beside_proxies_a_record_leads_further_relays_to_the_same_producers(tmp_path: Path) -> None:
    require_haproxy()
    async with LabPool(tmp_path / "lab", Plan(scale=100.0, record=True, relays=1, named=1, proxies=1)) as lab:
        await reached(lab, {("relay-1", "proxy-1"): "main", ("relay-2", RECORD): "main"})
        loaded = config.load(lab.file)
        assert (len(loaded.pool.proxies), len(loaded.pool.records), loaded.pool.gateless) == (1, 1, False)
        assert any("go around the proxies" in str(warning) for warning in loaded.warnings)
        await point(lab, "backup")
        await reached(lab, {("relay-1", "proxy-1"): "main", ("relay-2", RECORD): "backup"})
        assert lab.lingering() == {("relay-2", "main")}


def test_relays_by_name_without_a_record_are_refused() -> None:
    with pytest.raises(LabError, match="1 relays by name need a record"):
        Plan(named=1)


# ---------------------------------------------------------------- the command


def test_the_command_runs_a_gateless_lab_and_says_how_to_give_the_controller_its_credentials(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    command = [sys.executable, "-c", "from failover.cli.lab import command; command()", "up", "--folder", str(folder)]
    process = subprocess.Popen([*command, "--gateless", "--scale", "100"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "reached" in line and "through" in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=WAIT)
    finally:
        process.kill()
        process.communicate(timeout=WAIT)
    text = "".join(said)
    assert f". {folder}/environment.sh" in text
    assert "returns only by hand" in text
    assert "proxy-1" not in text
    assert f"resolved {RECORD} to 127.0.0.11, and asks again in" in text + rest
    assert f"reached main through {RECORD}" in text
    assert (process.returncode, "ending everything" in rest) == (0, True)
    assert [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if runs_in(entry, folder)] == []


def runs_in(entry: Path, folder: Path) -> bool:
    """Whether a process was started with a path in the folder."""
    try:
        return bytes(folder) in entry.read_bytes()
    except OSError:
        return False
