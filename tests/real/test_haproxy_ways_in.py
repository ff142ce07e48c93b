"""What holds for a HAProxy by each way in: runtime API on a unix socket and on TCP, and the stats page."""

from __future__ import annotations

import time  # noqa: TID251 - a real proxy hangs in real time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from haproxy_world import ANSWER, WAYS, World, close, open_, until, world

from failover.errors import GateRefused, GateTimeout, GateUnreachable
from failover.lab.haproxy import WayIn
from failover.model import Admin, Check, StepKind
from failover.ports import ProxyPort

pytestmark = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
def port(pool: World, way: WayIn) -> ProxyPort:
    return pool.port(way)


async def test_at_start_main_serves_and_the_standby_is_closed_but_checked(pool: World, port: ProxyPort) -> None:
    reading = await pool.sees(port, lambda r: all(s.check is Check.PASSED_L7 for s in r.servers.values()))
    main, backup = reading.servers["main"], reading.servers["backup"]
    assert (main.admin, main.status, main.sessions, main.serves) == (Admin.READY, "UP", 0, True)
    assert (backup.admin, backup.status, backup.sessions, backup.serves) == (Admin.MAINT, "MAINT", 0, False)
    assert main.address == str(pool.main.address)
    assert (reading.stopping, reading.total) == (False, 0)
    assert reading.process is not None
    assert reading.process.split("@")[0] == str(await pool.lab.process.worker())
    assert reading.uptime is not None
    assert reading.version is not None


async def test_every_way_in_reads_the_same(pool: World, way: WayIn) -> None:
    await pool.relay()
    ours, theirs = pool.port(way), pool.port(WayIn.SOCKET)
    await pool.sees(theirs, lambda r: r.servers["main"].sessions == 1)
    for change in (None, "set server producers/main state drain", "set server producers/main weight 0"):
        if change is not None:
            await pool.lab.process.ask(change)
        await pool.sees(theirs, lambda r: all(s.check is Check.PASSED_L7 for s in r.servers.values()))
        first, second = await ours.read(ANSWER), await theirs.read(ANSWER)
        assert replace(first, process=None, uptime=None) == replace(second, process=None, uptime=None)


async def test_closing_ends_the_sessions_and_opening_serves_again(pool: World, port: ProxyPort) -> None:
    relay = await pool.relay()
    before = await pool.sees(port, lambda r: r.servers["main"].sessions == 1)
    assert before.total == 1
    assert await close(port, "main")
    closed = await pool.sees(port, lambda r: r.servers["main"].sessions == 0)
    assert (closed.servers["main"].admin, closed.servers["main"].status) == (Admin.MAINT, "MAINT")

    async def ended() -> bool:
        return relay.ended

    await until(ended)
    assert await open_(port, "backup")
    served = await pool.sees(port, lambda r: r.servers["backup"].serves)
    assert served.servers["backup"].admin is Admin.READY
    await pool.relay()
    moved = await pool.sees(port, lambda r: r.servers["backup"].sessions == 1)
    assert moved.servers["main"].sessions == 0


async def test_both_commands_are_idempotent(pool: World, port: ProxyPort) -> None:
    await port.read(ANSWER)
    assert [await close(port, "main"), await close(port, "main")] == [True, True]
    assert [await open_(port, "main"), await open_(port, "main")] == [True, True]
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.READY


async def test_sessions_that_maint_alone_leaves_are_ended_after_the_state(pool: World, way: WayIn) -> None:
    """Without on-marked-down maint keeps the sessions: the second command ends them, and comes second."""
    text = pool.lab.text().replace(" on-marked-down shutdown-sessions", "")
    await pool.lab.process.reload(text)
    port = pool.port(way)
    await pool.relay()
    await pool.sees(port, lambda r: r.servers["main"].sessions == 1)
    seen: list[tuple[str, str]] = []

    def look() -> bool:
        """What HAProxy holds at the moment before each command leaves."""
        seen.append(rows_now(pool))
        return True

    assert await port.set(StepKind.CLOSE, "main", ANSWER, look)
    assert seen == [("UP", "1"), ("MAINT", "1")]
    await pool.sees(port, lambda r: r.servers["main"].sessions == 0)


async def test_a_step_that_is_overtaken_sends_nothing(pool: World, port: ProxyPort) -> None:
    await port.read(ANSWER)
    assert await port.set(StepKind.CLOSE, "main", ANSWER, lambda: False) is False
    assert await port.set(StepKind.OPEN, "backup", ANSWER, lambda: False) is False
    reading = await port.read(ANSWER)
    assert reading.servers["main"].admin is Admin.READY
    assert reading.servers["backup"].admin is Admin.MAINT


async def test_a_close_that_is_overtaken_in_the_middle_says_so_and_leaves_maint(pool: World, port: ProxyPort) -> None:
    answers = iter([True, False])
    assert await port.set(StepKind.CLOSE, "main", ANSWER, lambda: next(answers)) is False
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.MAINT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backend": "nosuch"}, "no backend 'nosuch'; HAProxy has producers, watch"),
        ({"watch": "nosuch"}, "no backend 'nosuch'; HAProxy has producers, watch"),
        (
            {"servers": {"main": "bp1", "backup": "backup"}},
            "no server 'bp1' in backend 'producers'; it has backup, main",
        ),
    ],
)
async def test_what_is_missing_is_named_with_what_is_there(
    pool: World, way: WayIn, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(GateRefused, match=words) as caught:
        await pool.port(way, **changes).read(ANSWER)
    assert caught.value.mend


@pytest.mark.parametrize("changes", [{"backend": "nosuch"}, {"servers": {"main": "bp1", "backup": "backup"}}])
async def test_a_command_for_what_is_missing_is_refused(pool: World, way: WayIn, changes: dict[str, object]) -> None:
    with pytest.raises(GateRefused, match=r"main|nosuch|bp1") as caught:
        await close(pool.port(way, **changes), "main")
    assert "correct" in caught.value.mend


async def test_nobody_listening_means_that_nothing_was_sent(pool: World, port: ProxyPort) -> None:
    await pool.lab.process.stop()
    with pytest.raises(GateUnreachable):
        await port.read(ANSWER)
    with pytest.raises(GateUnreachable):
        await close(port, "main")


async def test_a_hung_proxy_gets_no_command_that_it_could_run_later(pool: World, port: ProxyPort) -> None:
    await port.read(ANSWER)
    pool.lab.process.suspend()
    with pytest.raises(GateUnreachable, match="no command was sent"):
        await port.set(StepKind.OPEN, "backup", 0.5, lambda: True)
    with pytest.raises(GateTimeout):
        await port.read(0.5)
    pool.lab.process.resume()
    reading = await pool.sees(port, lambda r: True)
    assert reading.servers["backup"].admin is Admin.MAINT


async def test_a_command_that_timed_out_runs_later(pool: World, port: ProxyPort) -> None:
    """HAProxy hangs in the instant between the last look and the command: GateTimeout, and then it is open."""
    await port.read(ANSWER)

    def hang() -> bool:
        pool.lab.process.suspend()
        return True

    with pytest.raises(GateTimeout):
        await port.set(StepKind.OPEN, "backup", 0.7, hang)
    pool.lab.process.resume()
    await pool.sees(port, lambda r: r.servers["backup"].admin is Admin.READY)


async def test_calls_end_within_their_timeout_and_the_next_one_works(pool: World, port: ProxyPort) -> None:
    pool.lab.process.suspend()
    begun = time.monotonic()
    with pytest.raises(GateTimeout):
        await port.read(0.3)
    assert time.monotonic() - begun < 3
    pool.lab.process.resume()
    await pool.sees(port, lambda r: r.servers["main"].admin is Admin.READY)


async def test_nothing_is_opened_in_a_process_that_was_not_read(pool: World, port: ProxyPort) -> None:
    before = await port.read(ANSWER)
    await pool.lab.process.reload()
    with pytest.raises(GateRefused, match="reloaded or restarted since it was read"):
        await open_(port, "backup")
    assert await close(port, "main"), "closing is right in any process"
    after = await port.read(ANSWER)
    assert after.servers["backup"].admin is Admin.MAINT
    assert after.process != before.process
    assert await open_(port, "backup")


async def test_a_reload_hides_sessions_and_is_seen_by_process_and_total(pool: World, port: ProxyPort) -> None:
    relay = await pool.relay()
    before = await pool.sees(port, lambda r: r.servers["main"].sessions == 1)
    await pool.lab.process.reload()
    after = await port.read(ANSWER)
    assert not relay.ended, "the old worker still carries it"
    assert (before.servers["main"].sessions, after.servers["main"].sessions) == (1, 0)
    assert (before.total, after.total) == (1, 0)
    assert before.process != after.process
    assert before.uptime is not None
    assert after.uptime is not None

    async def ended() -> bool:
        return relay.ended

    await until(ended)  # hard-stop-after


async def test_closed_and_opened_gates_outlive_reload_and_restart_when_dumped(pool: World, port: ProxyPort) -> None:
    await port.read(ANSWER)
    await close(port, "main")
    await open_(port, "backup")
    await pool.lab.process.dump()
    await pool.lab.process.reload()
    for _ in range(2):
        reading = await port.read(ANSWER)
        assert {name: server.admin for name, server in reading.servers.items()} == {
            "main": Admin.MAINT,
            "backup": Admin.READY,
        }
        await pool.lab.process.restart(keep_state=True)


async def test_a_restart_without_a_state_file_opens_main_at_most(pool: World, port: ProxyPort) -> None:
    await port.read(ANSWER)
    await close(port, "main")
    await open_(port, "backup")
    await pool.lab.process.restart(keep_state=False)
    reading = await port.read(ANSWER)
    assert reading.servers["main"].admin is Admin.READY
    assert reading.servers["backup"].admin is Admin.MAINT


async def test_a_maint_that_ends_by_itself_is_no_closed_gate_until_it_is_closed(pool: World, port: ProxyPort) -> None:
    """Somebody puts the watch row to maint: the routed row follows, and would follow back."""
    await pool.lab.process.ask("set server watch/main state maint")
    inherited = (await port.read(ANSWER)).servers["main"]
    assert (inherited.admin, inherited.status, inherited.check) == (Admin.READY, "MAINT", Check.NONE)
    await close(port, "main")
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.MAINT
    await pool.lab.process.ask("set server watch/main state ready")
    assert (await port.read(ANSWER)).servers["main"].admin is Admin.MAINT


def rows_now(pool: World) -> tuple[str, str]:
    """Status and sessions of producers/main, asked of HAProxy without this program's code."""
    import socket

    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER)
        line.connect(str(pool.lab.socket))
        line.sendall(b"show stat\n")
        text = b"".join(iter(lambda: line.recv(65536), b"")).decode()
    row = next(line.split(",") for line in text.splitlines() if line.startswith("producers,main,"))
    return row[17], row[4]
