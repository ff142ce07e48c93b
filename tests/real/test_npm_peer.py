"""Our protocol against an independent implementation of it, in both directions.

The peer is the npm package @harmoniclabs/ouroboros-miniprotocols-ts. It is installed from npm/package-lock.json into
a cache outside the repository. Known limits of it: its client proposes versions 7 to 14 only, and it loses frames
whose header arrives in pieces, so it says nothing about fragmentation.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from failover.errors import PingError
from failover.host import RealHost
from failover.model import Address, Tip
from failover.ouroboros.ping import PingResult, Session, ping
from failover.ouroboros.server import Event, Server

SCRIPTS = Path(__file__).parent / "npm"
MAGIC = 42
HASH = "ab" * 32
PATIENCE = 20.0  # seconds


def unavailable(reason: str) -> NoReturn:
    """Skip, or fail where the environment says that this peer must be there."""
    if {"npm", "all"} & set(os.environ.get("FAILOVER_REQUIRE", "").replace(",", " ").split()):
        pytest.fail(f"FAILOVER_REQUIRE asks for npm: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def modules() -> Path:
    """A folder with the package installed, from the lock file alone; kept from one run to the next."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed")
    lock = SCRIPTS / "package-lock.json"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cardano-failover" / "tests"
    wanted = cache / f"npm-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if wanted.is_dir():
        return wanted
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as fresh:
        for file in (lock, SCRIPTS / "package.json"):
            shutil.copy(file, fresh)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            installed = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=180, check=False)
        except subprocess.TimeoutExpired:
            unavailable("npm ci took more than 180 s")
        if installed.returncode:
            unavailable(f"npm ci failed: {installed.stderr.strip()[-300:]}")
        staged = Path(fresh).rename(f"{fresh}.done")
        try:
            staged.rename(wanted)
        except OSError:  # another run was first
            shutil.rmtree(staged)
        Path(fresh).mkdir()  # for TemporaryDirectory to remove
    return wanted


@contextmanager
def node(modules: Path, script: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A script, which ends with its stdin, and at the latest here."""
    process = subprocess.Popen(
        ["node", str(SCRIPTS / script), *[str(arg) for arg in args]],
        env={**os.environ, "N2N_MODULES": str(modules)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def told(process: subprocess.Popen[str]) -> Any:
    """The one line of JSON that a script prints."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    assert ready, "the script said nothing"
    line = process.stdout.readline()
    assert line, f"the script ended with status {process.wait(PATIENCE)}"
    return json.loads(line)


@contextmanager
def their_node(modules: Path, behaviour: str) -> Iterator[Address]:
    with node(modules, "server.mjs", MAGIC, behaviour) as process:
        yield Address("127.0.0.1", told(process)["port"])


async def pinged(address: Address, magic: int = MAGIC) -> PingResult:
    return await ping(RealHost(), address, magic, PATIENCE)


# ---------------------------------------------------------------- our client, their codecs and multiplexer


async def test_our_ping_gets_version_15_and_the_tip_of_their_server(modules: Path) -> None:
    with their_node(modules, "accept") as address:
        result = await pinged(address)
        assert (result.version, result.tip) == (15, Tip(17, HASH, 7))


async def test_our_session_is_answered_by_their_server_again_and_again(modules: Path) -> None:
    with their_node(modules, "accept") as address:
        session = await Session.open(RealHost(), address, MAGIC, PATIENCE)
        for _ in range(20):
            assert (await session.probe(PATIENCE)).tip == Tip(17, HASH, 7)
        await session.close()


async def test_our_ping_reads_their_genesis_tip(modules: Path) -> None:
    with their_node(modules, "genesis") as address:
        assert (await pinged(address)).tip == Tip(0, "", 0)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("mismatch", "no version in common: the peer offers 7, 13, we propose 14, 15"),
        ("unreadable", "the peer cannot read our proposal of version 15: unordered version"),
        ("refuse", "the peer refused version 15: version data mismatch: another magic"),
    ],
)
async def test_our_ping_tells_each_of_their_refusals(modules: Path, behaviour: str, words: str) -> None:
    with their_node(modules, behaviour) as address, pytest.raises(PingError, match=words) as raised:
        await pinged(address)
    assert raised.value.stage == "handshake"


async def test_their_server_sees_another_magic_in_our_proposal(modules: Path) -> None:
    with their_node(modules, "accept") as address, pytest.raises(PingError, match="version data mismatch"):
        await pinged(address, MAGIC + 1)


# ---------------------------------------------------------------- their clients, our server


class OurNode:
    """Our server on loopback; notes what it was asked."""

    def __init__(self, versions: tuple[int, ...] = (14, 15)) -> None:
        self.versions = versions
        self.seen: list[Event] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = Server(MAGIC, self.versions)
        try:
            while data := await reader.read(4096):
                for event in server.receive(data):
                    self.seen.append(event)
                    writer.write(server.answer(event, Tip(17, HASH, 7), 0))
        finally:
            writer.close()


async def asked(modules: Path, ours: OurNode, magic: int) -> Any:
    """What their client tells of our server."""
    server = await asyncio.start_server(ours.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with node(modules, "client.mjs", port, magic) as process:
            worker = RealHost().worker("script")
            try:
                return await worker.call(lambda: told(process), PATIENCE)
            finally:
                worker.close()


async def test_their_clients_get_through_handshake_keep_alive_and_tip_with_our_server(modules: Path) -> None:
    assert await asked(modules, OurNode(), MAGIC) == {
        "version": 14,
        "magic": MAGIC,
        "cookie": 54321,
        "tip": {"point": {"blockHeader": {"hash": HASH, "slot": 17}}, "blockNo": 7},
        "origin": True,
    }


async def test_their_client_understands_our_servers_refusals(modules: Path) -> None:
    refused = await asked(modules, OurNode(), MAGIC + 1)
    assert refused["refused"]["version"] == 14
    assert refused["refused"]["errorMessage"].startswith("version data mismatch:")
    refused = await asked(modules, OurNode(versions=(15, 16)), MAGIC)
    assert refused["refused"]["validVersions"] == [15, 16]
