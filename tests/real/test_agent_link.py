"""The link to an agent over a real sshd: who is spoken to, what is sent, and each way in which it can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from agent_host import agent_host
from agent_world import ANSWER, SHORT, AgentWorld, agent_world, stopped
from sshd import fingerprint, hash_names, keygen

import failover.agent
from failover.agent_link import AgentLink
from failover.errors import GateError, GateRefused, GateTimeout, GateUnreachable
from failover.host import RealHost
from failover.model import Address, Pool, Producer, Relay
from failover.relay_port import AgentRelayPort

CLOSE: dict[str, Any] = {"gate": "forging", "generation": 5, "term": 2, "reason": "a test"}


async def error_of(call: Awaitable[object], kind: type[GateError]) -> GateError:
    """What a call ends with: of this kind alone, with its mend, naming the agent, and on one printable line."""
    with pytest.raises(GateError) as caught:
        await call
    assert type(caught.value) is kind, repr(caught.value)
    assert caught.value.mend
    assert "main-host" in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


# ---------------------------------------------------------------- what is asked and answered


async def test_a_status_comes_as_checked_values(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        status = await world.link().status(ANSWER, topology=True)
        assert (status.agent_version, status.boot, status.node.pid, status.node.version) == (
            "0.2.0",
            "boot-1",
            7,
            "10.5.1",
        )
        assert dict(status.metrics) == {"cardano_node_metrics_slotNum_int": 4711.0}
        assert (status.fuse_after, status.fuse_left) == (150.0, 90.5)
        assert (status.topology_path, status.topology_text) == ("/t.json", "{}\n")
        assert sorted(status.gates) == ["firewall", "forging"]
        assert status.gates["forging"].reading.open is True
        request = world.requests[0]
        assert (request["v"], request["pool"], request["topology"]) == (1, "EXMPL", True)
        assert 0 < request["within"] <= ANSWER


async def test_the_lease_is_told_with_each_status_and_nothing_else(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        link.lease = lambda: (41.5, 7, 3)
        await link.status(ANSWER)
        await link.ask("close", ANSWER, **CLOSE)
        link.lease = lambda: None
        await link.status(ANSWER)
        told = [(request.get("lease"), request["verb"]) for request in world.requests]
        assert told == [(None, "status"), (41.5, "status"), (None, "close"), (None, "status")]
        assert (world.requests[1]["generation"], world.requests[1]["term"]) == (7, 3)


async def test_one_connection_serves_every_request_by_one_process_for_readings_and_one_for_changes(
    tmp_path: Path,
) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        first, processes = world.pid, world.sshd.processes()
        await asyncio.gather(*(link.status(ANSWER) for _ in range(10)))
        assert world.pid == first
        assert len(world.requests) == 11
        await link.ask("close", ANSWER, **CLOSE)
        await link.ask("close", ANSWER, **CLOSE)
        assert world.pid != first
        assert world.sshd.processes() == processes, "it was there already, on the same connection"


async def test_a_young_status_is_given_again_but_never_across_a_change(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        before, again = await asyncio.gather(link.status(ANSWER), link.status(ANSWER, max_age=60))
        assert again is before
        await link.ask("close", ANSWER, **CLOSE)
        after = await link.status(ANSWER, max_age=60)
        assert after.gates["forging"].reading.open is False
        assert world.verbs == ["status", "close", "status"]
        assert await link.status(ANSWER) is not after


async def test_nothing_is_sent_when_still_valid_says_no(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        assert await link.ask("close", ANSWER, still_valid=lambda: False, **CLOSE) is None
        assert world.requests == []


async def test_an_agent_that_ended_is_started_again_on_the_same_connection(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        connections = len(world.sshd.processes())
        first = world.pid
        os.kill(first, 9)
        await until(lambda: first not in world.sshd.processes())
        await settled(link)
        await link.status(ANSWER)
        assert world.pid != first
        assert len(world.sshd.processes()) == connections


async def test_a_name_is_looked_up(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        world.sshd.address = Address("localhost", world.sshd.address.port)
        assert (await world.link().status(ANSWER)).boot == "boot-1"


async def test_the_agent_itself_is_understood(tmp_path: Path) -> None:
    """failover/agent.py, and not the fake: on a host whose node does not run."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "node.pid").write_text("4194305\n", "ascii")  # one more than any process can have
    node = {"runtime": {"pidfile": str(tmp_path / "node.pid")}, "port": 6000}
    config = {"pool": "EXMPL", "state": str(tmp_path / "state"), "node": node}
    (tmp_path / "agent.json").write_text(json.dumps(config), "ascii")
    command = [sys.executable, "-S", failover.agent.__file__, "--config", str(tmp_path / "agent.json"), "serve"]
    async with agent_world(tmp_path, command=command) as world:
        link = world.link()
        link.lease = lambda: (50.0, 3, 2)
        status = await link.status(ANSWER, topology=True)
        assert (status.node.running, dict(status.gates), status.metrics_error is None) == (False, {}, False)
        assert status.agent_version == failover.agent.VERSION
        error = await error_of(link.ask("close", ANSWER, **CLOSE), GateRefused)
        assert "forging" in f"{error} {error.mend}"
        pool = Pool("EXMPL", "preview", 2, (Producer("main", Address("10.0.1.10", 6000)),), ())
        port = AgentRelayPort(Relay("relay-1", Address("127.0.0.1", 6000)), pool, link, RealHost())
        reading = await port.read(ANSWER)
        assert (reading.sessions, reading.running) == ((), False)
        await port.close()


# ---------------------------------------------------------------- who is spoken to


async def test_another_host_key_is_an_error_that_shows_it(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        pinned = keygen(tmp_path / "other")
        error = await error_of(world.link(host_key=pinned).status(ANSWER), GateUnreachable)
        assert world.sshd.fingerprint in str(error)
        assert fingerprint(tmp_path / "other.pub") in str(error)
        assert "replace host_key" in error.mend
        assert world.requests == []


async def test_a_host_key_of_another_kind_is_shown_too(tmp_path: Path) -> None:
    async with agent_world(tmp_path, host_key_kind="ecdsa") as world:
        error = await error_of(world.link(host_key=keygen(tmp_path / "other")).status(ANSWER), GateUnreachable)
        assert f"ecdsa-sha2-nistp256 {world.sshd.fingerprint}" in str(error)
        assert (await world.link().status(ANSWER)).boot == "boot-1"


async def test_a_host_key_that_changes_is_noticed_at_the_next_connection(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        world.sshd.kill()
        world.sshd.renew_host_key()
        world.sshd.start()
        await settled(link)
        error = await error_of(link.ask("close", ANSWER, **CLOSE), GateUnreachable)
        assert world.sshd.fingerprint in str(error)
        assert world.verbs == ["status"]


async def test_a_known_hosts_file_pins_host_and_port(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        known = tmp_path / "known_hosts"
        port = world.sshd.address.port
        known.write_text(f"[127.0.0.1]:{port} {world.sshd.host_key}\n", "ascii")
        assert (await world.link(host_key=None, known_hosts=known).status(ANSWER)).boot == "boot-1"
        hash_names(known)
        assert "127.0.0.1" not in known.read_text("ascii")
        assert (await world.link(host_key=None, known_hosts=known).status(ANSWER)).boot == "boot-1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no line for 127.0.0.1:PORT"),
        ("[127.0.0.1]:1 KEY\n", "has no line for 127.0.0.1:PORT"),
        ("[127.0.0.1]:PORT OTHER\n", "showed another host key"),
        ("@revoked [127.0.0.1]:PORT KEY\n[127.0.0.1]:PORT KEY\n", "revoked"),
        ("[127.0.0.1]:PORT\n", "cannot be read"),
        ("\x00\xff", "cannot be read"),
        (None, "no such file"),
    ],
)
async def test_a_known_hosts_file_that_does_not_know_the_host(tmp_path: Path, text: str | None, words: str) -> None:
    async with agent_world(tmp_path) as world:
        known, port = tmp_path / "known_hosts", str(world.sshd.address.port)
        if text is not None:
            text = text.replace("PORT", port).replace("KEY", world.sshd.host_key)
            known.write_text(text.replace("OTHER", keygen(tmp_path / "other")), "latin-1")
        error = await error_of(world.link(host_key=None, known_hosts=known).status(ANSWER), GateUnreachable)
        assert words.replace("PORT", port) in str(error)
        assert world.requests == []


async def test_without_any_pinned_key_nobody_is_spoken_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with agent_world(tmp_path) as world:
        known = tmp_path / ".ssh" / "known_hosts"
        known.parent.mkdir()
        known.write_text(f"[127.0.0.1]:{world.sshd.address.port} {world.sshd.host_key}\n", "ascii")
        monkeypatch.setenv("HOME", str(tmp_path))
        error = await error_of(world.link(host_key=None).status(ANSWER), GateUnreachable)
        assert "not said by which key" in str(error)
        error = await error_of(world.link(host_key="ssh-ed25519 AAAA").status(ANSWER), GateUnreachable)
        assert "no public key" in str(error)


# ---------------------------------------------------------------- how we log in


async def test_a_key_that_is_not_taken_is_named(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        keygen(tmp_path / "other")
        error = await error_of(world.link(key_file=tmp_path / "other").status(ANSWER), GateUnreachable)
        assert "does not take the key" in str(error)
        assert fingerprint(tmp_path / "other.pub") in str(error)
        assert "authorized_keys" in error.mend


async def test_an_sshd_that_asks_for_a_password_gets_none(tmp_path: Path) -> None:
    settings = ["PubkeyAuthentication no", "PasswordAuthentication yes"]
    async with agent_world(tmp_path, settings=settings) as world:
        error = await error_of(world.link().status(ANSWER), GateUnreachable)
        assert "asks for a password" in str(error)
        assert "PubkeyAuthentication yes" in error.mend
        assert "password for" not in (tmp_path / "sshd" / "log").read_text("utf-8")


async def test_nothing_of_an_operators_own_ssh_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ssh-agent, nor the default keys, nor ~/.ssh/config."""
    async with agent_world(tmp_path) as world:
        keygen(tmp_path / "other")
        own = tmp_path / ".ssh"
        own.mkdir()
        (own / "id_ed25519").write_bytes(world.sshd.client_key.read_bytes())
        (own / "id_ed25519").chmod(0o600)
        config = (
            f"ProxyCommand touch {tmp_path}/proxied\nIdentityFile {own}/id_ed25519\nKexAlgorithms none-that-exists\n"
        )
        (own / "config").write_text(config, "utf-8")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "agent"))
            listener.listen()
            listener.setblocking(False)
            error = await error_of(world.link(key_file=tmp_path / "other").status(ANSWER), GateUnreachable)
            assert "does not take the key" in str(error)
            with pytest.raises(BlockingIOError):
                listener.accept()
        assert not (tmp_path / "proxied").exists()


@pytest.mark.parametrize(
    ("way", "words", "mend"),
    [
        ("missing", "no such file", "ssh-keygen"),
        ("others", "can be read by others (mode 0644)", "chmod 600"),
        ("passphrase", "protected by a passphrase", "without one"),
        ("passphrase-pem", "protected by a passphrase", "without one"),
        ("public", "no private key", "private key"),
        ("folder", "not a regular file", "path of a file"),
        ("large", "larger than 64 KiB", "right file"),
    ],
)
async def test_a_key_file_that_cannot_be_used_is_said_before_anything_is_sent(
    tmp_path: Path, way: str, words: str, mend: str
) -> None:
    key = tmp_path / "key"
    if way == "folder":
        key.mkdir()
    elif way == "large":
        key.write_bytes(b"x" * 65_537)
    elif way == "passphrase-pem":
        keygen(key, "rsa", "sesame", "-m", "PEM")
    elif way != "missing":
        keygen(key, passphrase="sesame" if way == "passphrase" else "")
    if way == "public":
        key.write_bytes((tmp_path / "key.pub").read_bytes())
    if way != "missing":
        key.chmod(0o644 if way == "others" else 0o700 if way == "folder" else 0o600)
    async with agent_world(tmp_path) as world:
        error = await error_of(world.link(key_file=key).status(ANSWER), GateUnreachable)
        assert words in str(error)
        assert mend in error.mend
        assert str(key) in str(error)
        assert world.requests == []


async def test_no_secret_and_no_chatter_reach_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        world.sshd.kill()
        await settled(link)
        await error_of(link.status(ANSWER), GateUnreachable)
    assert [record for record in caplog.records if record.name.startswith("asyncssh")] == []


# ---------------------------------------------------------------- what runs there


async def test_without_a_forced_command_requests_reach_no_shell(tmp_path: Path) -> None:
    async with agent_world(tmp_path, authorized="") as world:
        error = await error_of(world.link().status(ANSWER), GateUnreachable)
        assert "ended without an answer" in str(error)
        assert "forced command" in error.mend


@pytest.mark.parametrize(
    ("command", "words", "mend"),
    [
        (["/nonexistent/agent"], "exit status 127", "forced command"),
        (["sh", "-c", "echo 'sudo: a password is required' >&2; exit 1"], "a password is required", "NOPASSWD"),
        (["sh", "-c", "printf '\\033[31mno\\007' >&2; exit 3"], "exit status 3", "log"),
        (["true"], "exit status 0", "log"),
    ],
)
async def test_an_agent_that_does_not_start(tmp_path: Path, command: list[str], words: str, mend: str) -> None:
    async with agent_world(tmp_path, command=command) as world:
        link = world.link()
        error = await error_of(link.status(ANSWER), GateUnreachable)
        assert words in str(error)
        assert mend in error.mend
        opening = await error_of(link.ask("open", ANSWER, **CLOSE), GateUnreachable)
        assert words in str(opening)


# ---------------------------------------------------------------- answers that are none

NONSENSE = [
    ("html", "answered nonsense: no JSON"),
    ("huge", "more than 64 KiB"),
    ("endless", "more than 64 KiB"),
    ("version", "an agent of another version: version 2"),
]


@pytest.mark.parametrize(("way", "words"), NONSENSE)
async def test_nonsense_fails_a_reading_and_leaves_a_change_unknown(tmp_path: Path, way: str, words: str) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        world.behave(way)
        assert words in str(await error_of(link.status(ANSWER), GateRefused))
        error = await error_of(link.ask("close", ANSWER, **CLOSE), GateTimeout)
        assert words in str(error)
        assert "unknown" in str(error)
        world.behave("well")
        assert (await link.status(ANSWER)).boot == "boot-1"


@pytest.mark.parametrize("way", ["hang", "dribble"])
async def test_an_agent_that_hangs_or_dribbles_is_given_up_on(tmp_path: Path, way: str) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        world.behave(way)
        await error_of(link.status(SHORT), GateTimeout)
        world.behave("well")
        await link.status(ANSWER)
        world.behave(way)
        error = await error_of(link.ask("close", SHORT, **CLOSE), GateTimeout)
        assert "the effect is unknown" in str(error)
        world.behave("well")
        assert (await link.status(ANSWER)).boot == "boot-1"


async def test_an_agent_that_dies_in_the_middle_leaves_a_change_unknown(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        world.behave("die")
        assert "exit status 3" in str(await error_of(link.status(ANSWER), GateUnreachable))
        await error_of(link.ask("close", ANSWER, **CLOSE), GateTimeout)
        await error_of(link.ask("open", ANSWER, **CLOSE), GateUnreachable)  # it died at the status before
        assert "open" not in world.verbs
        world.behave("well")
        assert (await link.status(ANSWER)).boot == "boot-1"


@pytest.mark.parametrize("kind", ["stale", "busy", "unable"])
async def test_a_refusal_is_told_in_printable_words_and_the_connection_stays(tmp_path: Path, kind: str) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        first = world.pid
        world.behave(kind)
        error = await error_of(link.ask("close", ANSWER, **CLOSE), GateRefused)
        assert f"refused ({kind}): {kind}: pid 12? held it?" in str(error)
        assert error.mend == f"mend of {kind}"
        world.behave("well")
        await link.status(ANSWER)
        assert world.pid == first


async def test_what_was_said_unasked_is_never_taken_for_an_answer(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        world.behave("twice status")
        await link.status(ANSWER)
        said = await link.ask("close", ANSWER, **CLOSE)
        assert said is not None
        assert said["gate"]["open"] is False


async def test_a_caller_who_leaves_takes_no_answer_of_the_next(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        world.behave("dribble close")
        asking = asyncio.ensure_future(link.ask("close", ANSWER, **CLOSE))
        await until(lambda: "close" in world.verbs)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (await link.status(ANSWER)).boot == "boot-1"


async def test_a_queue_has_an_end(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        world.behave("hang")
        results = await asyncio.gather(*(link.status(SHORT) for _ in range(20)), return_exceptions=True)
        assert [type(result) for result in results].count(GateTimeout) == 1
        full = [result for result in results if "requests wait already" in str(result)]
        assert len(full) == 4
        assert [type(result) for result in results].count(GateUnreachable) == 19


async def test_a_request_that_is_too_long_is_not_sent(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        error = await error_of(world.link().ask("sessions", ANSWER, peers=["x" * 5000]), GateRefused)
        assert "nothing sent" in str(error)
        assert world.requests == []


# ---------------------------------------------------------------- changes and readings, side by side


async def closing(world: AgentWorld, link: AgentLink, timeout: float = ANSWER) -> asyncio.Task[Any]:
    """A close that was sent and is not answered; the agent answers everything else."""
    await link.status(ANSWER)
    before = len(world.requests)
    world.behave("wait close")
    asking = asyncio.ensure_future(link.ask("close", timeout, **CLOSE))
    await until(lambda: "close" in world.verbs[before:])
    return asking


async def test_a_reading_goes_through_while_a_close_is_under_way(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        asking = await closing(world, link)
        status = await link.status(ANSWER)
        assert status.gates["forging"].reading.open is True
        assert await link.ask("sessions", ANSWER, peers=["10.0.1.10:6000"]) is not None
        assert not asking.done()
        world.behave("well")
        said = await asking
        assert said["gate"]["open"] is False


async def test_a_reading_that_is_overdue_or_nonsense_does_not_disturb_a_close_under_way(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        asking = await closing(world, link)
        pid = world.pid
        with stopped(await reader(world, link)):
            await error_of(link.status(SHORT), GateTimeout)
            assert (await link.status(ANSWER)).boot == "boot-1", "by another process"
        world.says("status", agent=7)
        await error_of(link.status(ANSWER), GateRefused)
        assert not asking.done()
        world.behave("well")
        said = await asking
        assert said["gate"]["open"] is False
        await link.ask("close", ANSWER, **CLOSE)
        assert world.pid == pid


async def test_a_close_that_is_overdue_leaves_readings_alone(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        asking = await closing(world, link, SHORT)
        pid = await reader(world, link)
        error = await error_of(asking, GateTimeout)
        assert "the effect is unknown" in str(error)
        await link.status(ANSWER)
        assert world.pid == pid


async def test_a_young_status_is_not_given_again_once_a_change_has_ended_that_was_under_way(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        asking = await closing(world, link)
        during = await link.status(ANSWER, max_age=60)
        assert during.gates["forging"].reading.open is True, "not the one from before it"
        assert await link.status(ANSWER, max_age=60) is during
        world.behave("well")
        await asking
        after = await link.status(ANSWER, max_age=60)
        assert after.gates["forging"].reading.open is False


async def test_a_status_that_a_change_has_overtaken_is_not_kept(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        world.behave("wait status")
        reading = asyncio.ensure_future(link.status(ANSWER))
        await until(lambda: world.verbs == ["status", "status"])
        await link.ask("close", ANSWER, **CLOSE)
        world.behave("well")
        overtaken = await reading
        assert await link.status(ANSWER, max_age=60) is not overtaken


async def test_a_connection_that_died_silently_is_replaced_before_a_change_is_sent(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.ask("close", ANSWER, **CLOSE)
        await link.status(ANSWER)
        old = [pid for pid in world.sshd.processes() if pid != world.sshd.processes()[0]]
        with contextlib.ExitStack() as all_of_it:
            for pid in old:
                all_of_it.enter_context(stopped(pid))
            await error_of(link.status(SHORT), GateTimeout)
            assert await link.ask("close", ANSWER, **CLOSE) is not None
        assert world.verbs == ["close", "status", "close"]


async def test_both_ask_at_once_and_there_is_one_new_connection(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await asyncio.gather(link.status(ANSWER), link.ask("close", ANSWER, **CLOSE))
        log = (tmp_path / "sshd" / "log").read_text("utf-8")
        assert log.count("Accepted publickey") == 1


async def test_an_sshd_that_allows_one_session_a_connection_is_an_error_with_its_mend(tmp_path: Path) -> None:
    async with agent_world(tmp_path, settings=["MaxSessions 1"]) as world:
        link = world.link()
        for call in (link.status(ANSWER), link.ask("close", ANSWER, **CLOSE)):
            error = await error_of(call, GateUnreachable)
            assert "MaxSessions of its sshd_config is too low" in str(error)
            assert "set MaxSessions 10" in error.mend
        assert world.requests == []


async def test_where_no_other_channel_can_be_had_a_close_under_way_keeps_the_connection(tmp_path: Path) -> None:
    async with agent_world(tmp_path, settings=["MaxSessions 2"]) as world:
        link = world.link()
        asking = await closing(world, link)
        with stopped(await reader(world, link)):  # its session is taken for as long as it is there
            await error_of(link.status(SHORT), GateTimeout)
            error = await error_of(link.status(ANSWER), GateUnreachable)
            assert "MaxSessions" in str(error)
            assert not asking.done()
            world.behave("well")
            said = await asking
            assert said["gate"]["open"] is False
            assert (await link.status(ANSWER)).boot == "boot-1", "over another connection"


async def test_the_agent_itself_tells_its_status_while_it_closes(tmp_path: Path) -> None:
    """failover/agent.py, with a node that forges on whatever it is told: the close waits for its counter in vain."""
    (tmp_path / "host").mkdir()
    with agent_host(tmp_path / "host") as host:
        host.run_node("--deaf")
        async with agent_world(tmp_path, command=host.agent("serve")) as world:
            link = world.link()
            await link.status(ANSWER)
            asking = asyncio.ensure_future(link.ask("close", 8.0, **CLOSE))
            await until(lambda: host.live == [])
            for _ in range(5):
                gate = (await link.status(SHORT)).gates["forging"].reading
                assert not asking.done()
                assert (gate.open is False, gate.certain) == (False, False)
            said = await asking
            assert said is not None
            assert said["gate"]["open"] is not False


# ---------------------------------------------------------------- hosts that hang, end and come back


async def test_no_sshd_there_is_unreachable(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        world.sshd.kill()
        error = await error_of(world.link().status(ANSWER), GateUnreachable)
        assert "Connect call failed" in str(error) or "refused" in str(error)
        assert str(world.sshd.address) in error.mend


async def test_what_is_no_sshd_is_unreachable(tmp_path: Path) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3000)
        writer.close()

    async with agent_world(tmp_path) as world:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        async with server:
            world.sshd.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
            await error_of(world.link().status(ANSWER), GateUnreachable)


async def test_an_sshd_that_hangs_takes_no_longer_than_the_deadline_and_gets_no_request(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        world.sshd.suspend()
        error = await error_of(link.status(SHORT), GateUnreachable)
        assert "waiting for the login; nothing was sent" in str(error)
        await error_of(link.ask("close", SHORT, **CLOSE), GateUnreachable)
        world.sshd.resume()
        assert (await link.status(ANSWER)).boot == "boot-1"
        assert world.verbs == ["status"]


async def test_a_host_that_hangs_gets_no_opening_that_it_could_carry_out_later(tmp_path: Path) -> None:
    ahead = 0.0
    real = RealHost()
    host = RealHost(boottime=lambda: real.now().mono + ahead)
    async with agent_world(tmp_path) as world:
        link = world.link(host)
        await link.ask("close", ANSWER, **CLOSE)
        ahead = 60.0
        pid = world.pid
        with stopped(pid):
            error = await error_of(link.ask("open", SHORT, **CLOSE), GateUnreachable)
            assert "nothing was sent" in str(error)
            assert (await link.status(ANSWER)).boot == "boot-1", "another process answers while the old one hangs"
            assert world.pid != pid
        assert await link.ask("open", ANSWER, **CLOSE) is not None
        assert world.verbs == ["close", "status", "status", "open"]


async def test_a_change_sent_to_an_agent_that_hangs_is_unknown(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.ask("close", ANSWER, **CLOSE)
        with stopped(world.pid):
            error = await error_of(link.ask("close", SHORT, **CLOSE), GateTimeout)
            assert "the effect is unknown" in str(error)
            said = await link.ask("close", ANSWER, **CLOSE)
            assert said is not None


async def test_an_sshd_that_was_killed_and_started_again_is_spoken_to_again(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        world.sshd.kill()
        await settled(link)
        await error_of(link.ask("close", ANSWER, **CLOSE), GateUnreachable)
        world.sshd.start()
        assert await link.ask("close", ANSWER, **CLOSE) is not None


async def test_a_closed_link_can_be_used_again(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        link = world.link()
        await link.status(ANSWER)
        await link.close()
        await link.close()
        assert (await link.status(ANSWER)).boot == "boot-1"


# ---------------------------------------------------------------- what is loaded


def test_asyncssh_is_loaded_only_where_an_agent_is_asked() -> None:
    program = (
        "import sys, failover.cli, failover.agent_link, failover.relay_port, failover.gates.hostgate\n"
        "from failover.agent_link import AgentLink\n"
        "sys.exit('asyncssh' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ---------------------------------------------------------------- waiting


async def until(condition: Any) -> None:
    """Wait for something outside, bounded."""
    for _ in range(1000):
        if condition():
            return
        await RealHost().sleep(0.02)
    pytest.fail("it did not come to be within 20 s")


async def reader(world: AgentWorld, link: AgentLink) -> int:
    """The agent's process that takes the readings."""
    await link.status(ANSWER)
    return world.pid


async def settled(link: AgentLink) -> None:
    """Until the link has heard that its agent for readings, or its connection, is gone."""
    await until(lambda: not link._is_ready(link._readings))


# ---------------------------------------------------------------- a host that is slow to let somebody in


@contextlib.asynccontextmanager
async def slow_way(goal: Address, seconds: float) -> AsyncIterator[Address]:
    """A way to ``goal`` on which everything takes so much longer, one thing after the other."""
    host = RealHost()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await host.sleep(seconds)
            writer.write(data)
        writer.close()

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(goal.host, goal.port)
        ways.append(asyncio.gather(carry(reader, back), carry(there, writer)))
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await ways[-1]
        finally:
            back.transport.abort()
            writer.transport.abort()

    ways: list[asyncio.Future[Any]] = []
    server = await asyncio.start_server(both, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await host.sleep(0)


async def test_a_login_that_takes_longer_than_a_request_is_gone_on_with(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world, slow_way(world.sshd.address, 0.12) as address:
        link = world.link(address=address)
        assert "nothing was sent" in str(await error_of(link.status(0.9), GateUnreachable))
        for _ in range(40):
            with contextlib.suppress(GateError):
                await link.status(0.9)
                break
        else:
            raise AssertionError("it was never reached")
