"""The lab's cardano-node, as a process: what makes it forge and stop, and what its metrics say, by version."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cbor2
import pytest

from failover.errors import PingError
from failover.host import RealHost
from failover.lab import control, credentials
from failover.lab.cardano import forged, roots_of, without_rts
from failover.lab.cardano_version import Version
from failover.lab.chain import Chain
from failover.lab.haproxy import LabError
from failover.lab.node import Node
from failover.lab.process import Child
from failover.model import Address, NodeReading
from failover.ouroboros.ping import ping
from failover.probes.metrics import HttpNodePort, parse

HOST = RealHost()
LONG = 20.0  # seconds, an upper bound for everything that happens by itself
SLOT = 0.02  # seconds
PERIOD = 500
POOL = "pool of these tests"
OLD, NEW = "--non-producing-node", "--start-as-non-producing-node"


class Place:
    """A folder with everything that a node is given, and the node that was started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = credentials.write(folder, counter=3, kes_period=PERIOD - 2, pool_seed=POOL)
        self.topology = folder / "topology.json"
        self.config = folder / "config.json"
        self.log = folder / "slots.log"
        self.control = folder / "c.sock"
        self.topology.write_text('{"localRoots": [], "publicRoots": []}')
        self.config.write_text("{}")
        self.child: Child | None = None

    def words(self, *more: str) -> list[str]:
        files = ["--shelley-kes-key", str(self.paths.kes), "--shelley-vrf-key", str(self.paths.vrf)]
        files += ["--shelley-operational-certificate", str(self.paths.certificate)]
        own = ["--topology", str(self.topology), "--config", str(self.config), "--host-addr", "127.0.0.1"]
        lab = ["--lab-slot-seconds", str(SLOT), "--lab-kes-period", str(PERIOD), "--lab-kes-slots", str(10**9)]
        lab += ["--lab-control", str(self.control), "--lab-metrics", "0", "--lab-log", str(self.log)]
        return ["run", *own, "--port", "0", *files, *lab, "--lab-leads-every", "2", *more]

    def dies(self, *more: str) -> str:
        """What it says when it does not start."""
        done = subprocess.run(
            [sys.executable, "-m", "failover.lab.cardano", *self.words(*more)],
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    @asynccontextmanager
    async def started(self, *more: str) -> AsyncIterator[Place]:
        self.child = Child("node", "failover.lab.cardano", self.words(*more), self.folder)
        try:
            await self.child.start()
            yield self
        finally:
            await self.child.stop()

    async def ask(self, command: str = "state") -> dict[str, Any]:
        return await control.ask(self.control, {"command": command}, LONG)

    async def sighup(self) -> dict[str, Any]:
        """Send it, and wait until it was dealt with."""
        assert self.child is not None
        before = (await self.ask())["sighups"]
        self.child.signal(signal.SIGHUP)

        async def seen() -> bool:
            return bool((await self.ask())["sighups"] > before)

        await eventually(seen)
        return await self.ask()

    async def reading(self) -> NodeReading:
        port = HttpNodePort(f"http://{(await self.ask())['metrics']}/metrics", HOST)
        try:
            return await port.read(LONG)
        finally:
            await port.close()

    async def rises(self) -> bool:
        """Whether the about-to-lead counter, as its metrics tell it, rises over nine slots (tips come every four)."""
        before = (await self.reading()).about_to_lead or 0
        slot = (await self.reading()).slot or 0
        async with HOST.timeout(LONG):
            while ((now := await self.reading()).slot or 0) < slot + 12:
                await HOST.sleep(SLOT)
        return (now.about_to_lead or 0) > before

    def traced(self) -> str:
        assert self.child is not None
        return self.child.log.read_text()


async def eventually(what: Callable[[], Awaitable[bool]]) -> None:
    async with HOST.timeout(LONG):
        while not await what():
            await HOST.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def remove_all(place: Place) -> None:
    for path in (place.paths.kes, place.paths.vrf, place.paths.certificate):
        path.unlink()


def test_credentials_have_the_form_that_cardano_cli_gives_them_and_follow_from_their_seed(place: Place) -> None:
    text = place.paths.certificate.read_text()
    envelope = json.loads(text)
    (hot, counter, period, signature), cold = cbor2.loads(bytes.fromhex(envelope["cborHex"]))
    assert (envelope["type"], counter, period) == ("NodeOperationalCertificate", 3, PERIOD - 2)
    assert [len(part) for part in (hot, signature, cold)] == [32, 64, 32]
    assert hashlib.blake2b(cold, digest_size=28).hexdigest() == credentials.pool_id(POOL)
    assert json.loads(place.paths.kes.read_text())["cborHex"].startswith("590260")
    files = (place.paths.kes, place.paths.vrf, place.paths.certificate)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    kes = place.paths.kes.read_bytes()
    credentials.write(place.folder, counter=4, kes_period=PERIOD, pool_seed=POOL)
    assert place.paths.kes.read_bytes() != kes
    credentials.write(place.folder, counter=3, kes_period=PERIOD - 2, pool_seed=POOL)
    assert (place.paths.kes.read_bytes(), place.paths.certificate.read_text()) == (kes, text)


# ---------------------------------------------------------------- its start


async def test_with_credentials_and_without_the_flag_it_forges_at_once(place: Place) -> None:
    async with place.started("--socket-path", str(place.folder / "n.sock")):
        assert await place.rises()
        state = await place.ask()
        assert (state["forging"], state["holds"]["pool"]) == (True, credentials.pool_id(POOL))
        assert (await ping(HOST, _address(state), 42, LONG)).tip.slot > 0
        _, writer = await asyncio.open_unix_connection(place.folder / "n.sock")
        writer.transport.abort()


def _address(state: dict[str, Any]) -> Address:
    host, _, port = state["address"].rpartition(":")
    return Address(host, int(port))


@pytest.mark.parametrize("gone", ["kes", "vrf", "certificate"])
def test_a_missing_file_ends_its_start_with_the_flag_as_without(place: Place, gone: str) -> None:
    path: Path = getattr(place.paths, gone)
    path.unlink()
    says = place.dies(*([NEW] if gone == "kes" else []))
    assert f"FileDoesNotExistError {str(path)!r}" in says


def put_another_pool_s_key(place: Place) -> None:
    other = place.folder / "other"
    other.mkdir()
    credentials.write(other, counter=3, kes_period=1, pool_seed="another").kes.replace(place.paths.kes)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.paths.kes.write_text(""), "TextEnvelopeAesonDecodeError"),
        (lambda p: p.paths.vrf.write_bytes(p.paths.kes.read_bytes()), "TextEnvelopeTypeError"),
        (put_another_pool_s_key, "MismatchedKesKey"),
        (lambda p: p.paths.vrf.chmod(0o604), '"other" file permissions'),
        (lambda p: p.topology.write_text('{"Producers": []}'), "old topology format"),
        (lambda p: p.config.unlink(), "No such file"),
    ],
    ids=["empty", "of another kind", "another pool's", "open to others", "old topology", "no configuration"],
)
def test_what_it_cannot_use_ends_its_start(place: Place, spoil: Callable[[Place], Any], says: str) -> None:
    spoil(place)
    assert says in place.dies()


@pytest.mark.parametrize(
    ("version", "known"),
    [("8.2.0-pre", OLD), ("8.2.1", ""), ("8.7.2", OLD), ("10.4.1", OLD), ("10.5.1", OLD + NEW), ("11.0.1", OLD + NEW)],
)
def test_each_version_knows_its_flags(version: str, known: str) -> None:
    assert "".join(Version.of(version).flags) == known


def test_a_flag_that_its_version_does_not_know_ends_its_start(place: Place) -> None:
    assert f"Invalid option `{NEW}'" in place.dies(NEW, "--lab-version", "10.4.1")


def test_a_version_before_the_flags_is_not_played() -> None:
    with pytest.raises(LabError, match=r"'1.35.7' is no version of cardano-node that the lab knows"):
        Version.of("1.35.7")


def test_its_version_is_printed_as_the_node_prints_it() -> None:
    command = [sys.executable, "-m", "failover.lab.cardano", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True).stdout
    assert said.splitlines()[0].startswith("cardano-node 10.5.1 - linux-x86_64 - ghc-")


def test_words_for_haskell_s_runtime_are_passed_over() -> None:
    assert without_rts(["run", "+RTS", "-N4", "-RTS", "--port", "1"]) == ["run", "--port", "1"]


# ---------------------------------------------------------------- SIGHUP


async def test_sighup_disables_by_a_missing_file_alone_and_enables_by_good_ones(place: Place) -> None:
    async with place.started():
        kept = place.paths.kes.read_bytes()
        place.paths.kes.write_text("damaged")
        assert (await place.sighup())["forging"] is True
        assert "BlockForgingUpdateError" in place.traced()
        place.paths.kes.unlink()
        assert (await place.sighup())["forging"] is False
        assert not await place.rises()
        place.paths.kes.mkdir()  # it cannot be read, and it is not missing
        assert (await place.sighup())["forging"] is False
        place.paths.kes.rmdir()
        place.paths.kes.write_bytes(kept)
        state = await place.sighup()
        assert (state["forging"], state["sighups"]) == (True, 4)
        assert await place.rises()
        assert ((await place.reading()).missed or 0) >= 8  # the time as standby counts as missed
    first, *_, last = forged(place.log)
    assert first.last + 8 < last.first
    assert first.end < last.start


async def test_a_damaged_file_hides_a_missing_one_that_is_read_after_it(place: Place) -> None:
    async with place.started():
        place.paths.vrf.write_text("damaged")
        place.paths.certificate.unlink()
        assert (await place.sighup())["forging"] is True
        place.paths.vrf.unlink()
        assert (await place.sighup())["forging"] is False


async def test_with_the_flag_it_starts_not_forging_until_sighup(place: Place) -> None:
    async with place.started(NEW):
        assert not await place.rises()
        state = await place.ask()
        assert (state["forging"], state["flag"], (await place.ask("forging"))["spans"]) == (False, NEW, [])
        assert (await place.sighup())["forging"] is True
        assert await place.rises()


async def test_told_to_ignore_its_flag_it_forges_and_says_so_as_was_once_reported(place: Place) -> None:
    async with place.started(NEW, "--lab-ignores-flag", "--lab-version", "11.0.1"):
        assert await place.rises()
        assert (await place.reading()).forging is True


async def test_the_configuration_s_own_key_starts_it_not_forging(place: Place) -> None:
    place.config.write_text('{"StartAsNonProducingNode": true}')
    async with place.started():
        assert (await place.ask())["forging"] is False


async def test_during_the_replay_sighup_is_not_effective_and_what_was_read_is_kept(place: Place) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with place.started("--lab-replay", "600", "--port", str(port), "--lab-version", "10.6.2"):
        remove_all(place)
        assert (await place.sighup())["forging"] is False
        assert "NotEffective" in place.traced()
        reading = await place.reading()
        assert 0 <= (reading.starting or 0) < 10
        assert (reading.slot, reading.about_to_lead) == (None, None)
        with pytest.raises(PingError) as caught:
            await ping(HOST, Address("127.0.0.1", port), 42, LONG)
        assert caught.value.refused
        await place.ask("replayed")

        async def over() -> bool:
            return (await place.ask())["replay"] is None

        await eventually(over)
        assert (await place.ask())["forging"] is True
        assert (await place.reading()).starting is None
        assert (await place.sighup())["forging"] is False


async def test_the_first_version_with_the_flag_dies_of_sighup_during_its_replay(place: Place) -> None:
    async with place.started("--lab-replay", "600", "--lab-version", "8.2.0-pre"):
        child = place.child
        assert child is not None
        child.signal(signal.SIGHUP)

        async def ended() -> bool:
            return child.status == 1

        await eventually(ended)


async def test_sighup_reads_the_topology_again_and_a_bad_one_changes_nothing(place: Place) -> None:
    async with place.started():
        group = {"accessPoints": [{"address": "10.0.2.1", "port": 3001}], "valency": 1}
        place.topology.write_text(json.dumps({"localRoots": [group]}))
        assert (await place.sighup())["roots"] == ["10.0.2.1:3001"]
        place.topology.write_text("{")
        state = await place.sighup()
        assert (state["roots"], "not JSON" in state["topology_error"]) == (["10.0.2.1:3001"], True)


@pytest.mark.parametrize(("version", "one_way"), [("10.1.4", False), ("10.2.1", True)])
def test_one_way_roots_are_passed_over_by_older_versions(place: Place, version: str, one_way: bool) -> None:
    group = {"accessPoints": [{"address": "10.0.2.1", "port": 3001}], "diffusionMode": "InitiatorOnly"}
    place.topology.write_text(json.dumps({"localRoots": [group]}))
    assert roots_of(place.topology, Version.of(version)) == {Address("10.0.2.1", 3001): one_way}


@pytest.mark.parametrize("text", ["[]", "{}", '{"localRoots": 5}', '{"localRoots": [{"accessPoints": [{}]}]}', "\xff"])
def test_a_topology_that_is_none_is_named(place: Place, text: str) -> None:
    place.topology.write_text(text)
    with pytest.raises(ValueError, match=str(place.topology)):
        roots_of(place.topology, Version.of("10.5.1"))


async def test_bulk_credentials_make_it_forge_and_stop_alike(place: Place) -> None:
    bulk = credentials.write_bulk(place.folder / "bulk.json", place.paths)
    words = place.words("--bulk-credentials-file", str(bulk))
    remove_all(place)
    place.words = lambda *more: [*words, *more]  # type: ignore[method-assign]
    async with place.started():
        assert (await place.ask())["forging"] is True
        bulk.unlink()
        assert (await place.sighup())["forging"] is False


# ---------------------------------------------------------------- metrics


async def raw(place: Place) -> str:
    host, _, port = (await place.ask())["metrics"].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.decode().lower().split("content-length: ")[1].split("\r\n")[0])
    body = await reader.readexactly(size)
    writer.transport.abort()
    return body.decode()


def names_of(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if not line.startswith("#")}


@pytest.mark.parametrize(
    ("version", "config", "there", "absent"),
    [
        ("10.5.1", {}, "Forge_forge_about_to_lead_int ", "Forge_about_to_lead_counter"),
        ("10.6.2", {}, "Forge_about_to_lead_counter ", "Forge_forge_about_to_lead_int"),
        (
            "10.5.1",
            {
                "UseTraceDispatcher": True,
                "TraceOptions": {"": {"backends": ["PrometheusSimple nosuffix 127.0.0.1 12798"]}},
            },
            "Forge_about_to_lead ",
            "_counter",
        ),
    ],
)
async def test_its_metrics_have_the_names_of_its_version_and_say_the_same(
    place: Place, version: str, config: dict[str, Any], there: str, absent: str
) -> None:
    place.config.write_text(json.dumps(config))
    async with place.started("--lab-version", version):
        assert await place.rises()
        text = await raw(place)
        assert f"\ncardano_node_metrics_{there}" in text
        assert absent not in text
        assert len(names_of(text)) > 64  # as in life
        reading = parse(text)
        assert (reading.forging, reading.kes_period, reading.kes_remaining) == (True, PERIOD, 60)
        assert reading.certificate_expiry == PERIOD - 2 + 62
        assert (reading.forged or 0) > 0
        assert reading.forged == reading.leader == reading.adopted
        assert reading.started is not None


@pytest.mark.parametrize(
    ("version", "flag", "at_start", "enabled", "disabled"),
    [
        ("8.9.2", OLD, None, None, None),
        ("10.1.4", OLD, True, True, False),
        ("10.2.1", OLD, False, False, False),
        ("10.2.1", "", True, True, False),
        ("10.4.1", OLD, False, True, False),
    ],
)
async def test_forging_enabled_lies_as_in_its_version(
    place: Place, version: str, flag: str, at_start: bool | None, enabled: bool | None, disabled: bool | None
) -> None:
    async with place.started("--lab-version", version, *([flag] if flag else [])):
        assert (await place.ask())["forging"] is (not flag)
        assert (await place.reading()).forging is at_start
        assert (await place.sighup())["forging"] is True
        assert (await place.reading()).forging is enabled
        remove_all(place)
        assert (await place.sighup())["forging"] is False
        assert (await place.reading()).forging is disabled


async def test_with_an_expired_certificate_it_checks_its_slots_and_forges_nothing(place: Place) -> None:
    async with place.started("--lab-kes-evolutions", "2"):
        assert await place.rises()
        reading = await place.reading()
        assert (reading.kes_remaining, reading.forged) == (0, 0)
        assert (await place.ask())["forging"] is False
    assert forged(place.log) == ()


# ---------------------------------------------------------------- sessions, and the truth


async def test_it_keeps_sessions_with_its_peers_and_redials_them(place: Place) -> None:
    chain = Chain(0.0)
    async with Node("relay", Address("127.0.0.1", 0), 42, chain) as relay:
        words = ["--lab-peer", str(relay.address), "--lab-duplex", "--lab-scale", "100"]
        async with place.started(*words):

            async def there() -> bool:
                return bool((await place.ask("sessions"))["outbound"])

            await eventually(there)
            own = (await place.ask())["address"]
            (session,) = (await place.ask("sessions"))["outbound"]
            assert (session["peer"], session["local"]) == (str(relay.address), own)  # duplex: its own port
            assert [r["peer"] for r in (await relay.tell("sessions"))["open"]] == [own]
            await relay.tell("drop")

            async def again() -> bool:
                told = await place.ask("sessions")
                return bool(told["outbound_ended"] and told["outbound"])

            await eventually(again)
            assert (await ping(HOST, _address(await place.ask()), 42, LONG)).tip.slot > 0


async def test_a_root_that_leaves_the_topology_keeps_its_session_and_one_way_roots_have_ports_of_their_own(
    place: Place,
) -> None:
    async with Node("relay", Address("127.0.0.1", 0), 42, Chain(0.0)) as relay:
        point = {"address": relay.address.host, "port": relay.address.port}
        group = {"accessPoints": [point], "diffusionMode": "InitiatorOnly"}
        place.topology.write_text(json.dumps({"localRoots": [group]}))
        async with place.started("--lab-dial-topology", "--lab-duplex", "--lab-scale", "100"):

            async def there() -> bool:
                return bool((await place.ask("sessions"))["outbound"])

            await eventually(there)
            (session,) = (await place.ask("sessions"))["outbound"]
            assert session["one_way"] is True
            assert session["local"] != (await place.ask())["address"]
            place.topology.write_text('{"localRoots": []}')
            await place.sighup()
            assert await there()


async def test_what_it_forged_is_known_after_kill_9_and_a_restart(place: Place) -> None:
    for _ in range(2):
        async with place.started():
            assert await place.rises()
            told = (await place.ask("forging"))["spans"]
            assert place.child is not None
            place.child.signal(signal.SIGKILL)
    found = forged(place.log)
    assert len({span.pid for span in found}) == 2
    assert any(span.first == told[-1]["first"] and span.last >= told[-1]["last"] for span in found)
