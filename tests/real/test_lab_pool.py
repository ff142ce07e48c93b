"""A whole lab with real HAProxies comes up, can be ill-treated, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from haproxy_world import require_haproxy

from failover import config
from failover.gates.haproxy import proxy_port
from failover.host import RealHost
from failover.lab.haproxy import LabError, WayIn, free_ports
from failover.lab.pool import LabPool, Plan, Times
from failover.lab.sessions import overlaps
from failover.model import Admin
from failover.ouroboros.ping import ping

HOST = RealHost()
WAIT = 20.0  # seconds, an upper bound for what takes a moment
PLAN = Plan(scale=100.0)  # relays redial after 0.05 s
ALL_MAIN = {(f"relay-{r}", f"proxy-{p}"): "main" for r in (1, 2) for p in (1, 2)}


@pytest.fixture(autouse=True)
def _haproxy() -> None:
    require_haproxy()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[LabPool]:
    async with LabPool(tmp_path / "lab", PLAN) as made:
        yield made


async def until(true: Callable[[], bool], told: Callable[[], object] = str) -> None:
    for _ in range(int(WAIT / 0.02)):
        if true():
            return
        await HOST.sleep(0.02)
    pytest.fail(f"it did not come to be within {WAIT:g} s: {told()}")


async def reached(lab: LabPool, wanted: dict[tuple[str, str], str]) -> None:
    await until(lambda: lab.reached() == wanted, lab.reached)


def processes(folder: Path) -> list[int]:
    """Every process that was started with a path in the folder, by its id."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and bytes(folder) in words and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


async def test_the_relays_reach_main_through_both_proxies(lab: LabPool) -> None:
    await reached(lab, ALL_MAIN)
    assert overlaps(lab.sessions()) == []


async def test_the_file_is_a_good_one_and_every_address_in_it_answers(lab: LabPool) -> None:
    loaded = config.load(lab.file)
    assert loaded.warnings == ()
    assert (loaded.pool.names, len(loaded.pool.proxies), loaded.pool.magic) == (("main", "backup"), 2, 42)
    for address in (*(p.address for p in loaded.pool.producers), *loaded.pool.references):
        assert (await ping(HOST, address, loaded.pool.magic, 5.0)).tip.slot > 0


@pytest.mark.parametrize("scale", [0.1, 1, 20, 100])
async def test_the_times_of_every_scale_make_a_file_that_is_accepted(tmp_path: Path, scale: float) -> None:
    plan = Plan(relays=1, scale=scale, ways=(WayIn.SOCKET, WayIn.STATS), times=Times.faster(scale))
    async with LabPool(tmp_path / "lab", plan) as lab:
        pool = config.load(lab.file).pool
        assert (pool.proxies[0].stats, pool.proxies[1].socket) == (None, None)
        assert pool.policy.fail_over_after == pytest.approx(max(1.5, 300 / scale))


async def test_relays_stick_to_main_when_a_proxy_also_opens_backup_and_go_where_main_is_closed(lab: LabPool) -> None:
    await reached(lab, ALL_MAIN)
    before = lab.sessions()
    await lab.open_by_hand("proxy-1", "backup")
    port = proxy_port(lab.proxies["proxy-1"].proxy(), HOST)
    assert (await port.read(5.0)).servers["backup"].admin is Admin.READY
    await port.close()
    assert [(i.start, i.end) for i in lab.sessions()] == [(i.start, None) for i in before]

    await lab.close_by_hand("proxy-1", "main")
    await reached(lab, {key: "backup" if key[1] == "proxy-1" else "main" for key in ALL_MAIN})
    await until(lambda: len(overlaps(lab.sessions())) >= 4)
    await lab.restart_proxy("proxy-1")  # it forgets: main is open, backup is not
    await reached(lab, ALL_MAIN)


async def test_a_suspended_node_still_takes_connections_and_goes_on_when_resumed(
    lab: LabPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("failover.lab.pool.NODE_WITHIN", 0.3)
    address = lab.addresses["backup"]
    lab.suspend("backup")
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.transport.abort()
    with pytest.raises(LabError, match="no answer within"):
        await lab.tell("backup", "state")
    lab.resume("backup")
    assert (await ping(HOST, address, 42, 5.0)).tip.slot > 0


async def test_a_killed_node_is_gone_until_it_is_restarted(lab: LabPool) -> None:
    lab.kill("main")
    await until(lambda: lab.nodes["main"].pid is None)
    with pytest.raises(LabError, match="main does not run"):
        await lab.tell("main", "hang")
    await lab.restart("main")
    await reached(lab, ALL_MAIN)


async def test_a_part_or_a_command_that_is_not_there_is_answered_with_what_is(lab: LabPool) -> None:
    for words, says, mend in (
        (("nobody", "hang"), "no node or relay 'nobody'", "main, backup, reference-1"),
        (("main", "dance"), "main knows no command 'dance'", "stop, continue, kill, restart, hang, refuse"),
        (("proxy-1", "open", "nobody"), "'nobody' is no producer", "main, backup"),
    ):
        with pytest.raises(LabError, match=says) as caught:
            await lab.tell(*words)
        assert mend in caught.value.mend
    assert (await lab.tell("main", "help"))["lag"] == "SLOTS stay so many slots behind"


async def ill_treated(folder: Path) -> None:
    async with LabPool(folder, PLAN) as lab:
        lab.suspend("main")
        lab.kill("relay-1")
        lab.proxies["proxy-1"].process.suspend()
        assert len(processes(folder)) >= 9
        raise ZeroDivisionError


async def test_the_end_of_a_lab_leaves_no_process_whatever_happened_in_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        await ill_treated(tmp_path / "lab")
    assert processes(tmp_path / "lab") == []


async def test_a_lab_whose_port_was_taken_names_it_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.12", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(
            "failover.lab.pool.free_ports", lambda n, host: [port] if host == "127.0.0.12" else free_ports(n, host)
        )
        with pytest.raises(LabError, match=f"backup: cannot listen at 127.0.0.12:{port}: Address already in use"):
            await LabPool(tmp_path / "lab", PLAN).__aenter__()
    assert processes(tmp_path / "lab") == []


async def test_a_folder_is_one_lab_s_at_a_time_and_nothing_else_s(lab: LabPool, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="another lab runs here"):
        await LabPool(lab.folder, PLAN).__aenter__()
    assert lab.file.exists()
    (tmp_path / "letters").write_text("dear", encoding="utf-8")
    with pytest.raises(LabError, match="not a lab's folder"):
        await LabPool(tmp_path, PLAN).__aenter__()
    assert (tmp_path / "letters").exists()


# ---------------------------------------------------------------- the command


@contextmanager
def up(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "from failover.cli.lab import command; command()", "up", "--folder", str(folder)]
    process = subprocess.Popen([*command, "--scale", "100"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "What the relays see" in line:
                break
        yield process
    finally:
        process.kill()
        process.communicate(timeout=WAIT)


async def test_the_command_says_what_to_type_next_and_ends_everything_at_ctrl_c(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    with up(folder) as process:
        assert process.stdout is not None
        assert "reached main through proxy-" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 0
        assert "ending everything" in process.stdout.read()
    assert processes(folder) == []


async def test_a_lab_that_is_killed_takes_its_processes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    with up(folder) as process:
        assert len(processes(folder)) >= 10
        process.kill()
        process.wait(WAIT)
        await until(lambda: processes(folder) == [], lambda: processes(folder))
