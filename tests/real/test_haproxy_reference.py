"""The reference configuration: HAProxy takes it without a warning, and it does what its comments say."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from haproxy_world import ANSWER, require_haproxy, world

from failover.gates import haproxy_config
from failover.lab.haproxy import LabError, LabProxy, WayIn, free_ports
from failover.model import Address, Admin, Pool, Producer, Proxy

SERVERS = {"main": "bp1", "backup": "bp2", "third": "bp3"}
POOL = Pool(
    "EXMPL",
    "mainnet",
    764824073,
    (
        Producer("main", Address("127.0.0.11", 6000)),
        Producer("backup", Address("localhost", 6000)),
        Producer("third", Address("::1", 6000)),
    ),
    (),
)
BARE = Proxy("proxy-1", "producers", SERVERS)
PROXIES = {
    "a unix socket": {"socket": Path("/run/haproxy-of-a-test/admin.sock"), "watch": "watch", "hard_stop_after": 5.0},
    "a TCP socket": {"socket": Address("127.0.0.1", 19999), "backend": "watch"},
    "a TCP socket on IPv6": {"socket": Address("::1", 19999)},
    "a stats page": {"stats": "http://127.0.0.1:8404/stats", "username": "failover", "hard_stop_after": 0.5},
    "a stats page at HAProxy's own path": {"stats": "http://[::1]:8404/haproxy?stats"},
    "a stats page by name": {"stats": "http://proxy.example.internal:8404/"},
    "a stats page with TLS": {"stats": "https://127.0.0.1/stats", "username": "failover"},
    "a stats page with client certificates": {"stats": "https://127.0.0.1/stats", "cert_file": Path("client.crt")},
}


def checked(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "haproxy.cfg").write_text(text)
    return subprocess.run(
        ["haproxy", "-c", "-f", "haproxy.cfg"],
        cwd=folder, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("change", PROXIES.values(), ids=PROXIES.keys())
def test_haproxy_takes_it_without_a_warning(tmp_path: Path, change: dict[str, object]) -> None:
    require_haproxy()
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "ca.pem",
         "-subj", "/CN=lab", "-days", "2"],
        cwd=tmp_path, check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    (tmp_path / "server.pem").write_text((tmp_path / "ca.pem").read_text() + (tmp_path / "key.pem").read_text())
    (tmp_path / "state").write_text("1\n")
    account = "haproxy" if "\nhaproxy:" in Path("/etc/group").read_text() else None
    place = haproxy_config.Place(
        listen="*:6000", state_file=tmp_path / "state", tls=tmp_path, account=account, admin_socket=tmp_path / "a.sock"
    )
    text = haproxy_config.configuration(POOL, replace(BARE, **change), place)  # type: ignore[arg-type]
    result = checked(tmp_path, text, FAILOVER_STATS_PASSWORD="secret")
    said = [line for line in result.stderr.splitlines() if "[NOTICE]" not in line and line.strip()]
    assert not said
    assert result.returncode == 0
    assert result.stdout == "Configuration file is valid\n"


def test_haproxy_does_not_start_without_the_password(tmp_path: Path) -> None:
    require_haproxy()
    proxy = Proxy("proxy-1", "producers", SERVERS, stats="http://127.0.0.1:8404/stats", username="failover")
    result = checked(tmp_path, haproxy_config.configuration(POOL, proxy, haproxy_config.Place(listen="*:6000")))
    assert result.returncode == 1
    assert "set FAILOVER_STATS_PASSWORD in the environment" in result.stderr


def test_the_dumping_unit_writes_what_haproxy_reads_back(tmp_path: Path) -> None:
    """The unit's own command line, run by hand: an empty or foreign answer leaves the old dump alone."""
    if shutil.which("socat") is None:
        pytest.skip("socat is not installed (apt-get install socat)")
    place = haproxy_config.Place(listen="*:1", state_file=tmp_path / "state", admin_socket=tmp_path / "nosuch.sock")
    script = unit_script(haproxy_config.units(Proxy("p", "b", {}, stats="http://127.0.0.1/"), place))
    (tmp_path / "state").write_text("1\nold\n")
    assert subprocess.run(["/bin/sh", "-euc", script], capture_output=True, timeout=30, check=False).returncode != 0
    assert (tmp_path / "state").read_text() == "1\nold\n"


async def test_what_the_unit_dumped_is_in_force_after_a_restart(tmp_path: Path) -> None:
    if shutil.which("socat") is None:
        pytest.skip("socat is not installed (apt-get install socat)")
    async with world(tmp_path) as pool:
        await pool.lab.process.ask("set server producers/main state maint; set server producers/backup state ready")
        place = haproxy_config.Place(listen="", state_file=pool.lab.state_file, admin_socket=pool.lab.socket)
        script = unit_script(haproxy_config.units(pool.lab.proxy(WayIn.STATS), place))
        dump = await asyncio.create_subprocess_exec("/bin/sh", "-euc", script)
        assert await dump.wait() == 0
        await pool.lab.process.stop()
        await pool.lab.process.start()
        reading = await pool.port(WayIn.SOCKET).read(ANSWER)
        assert (reading.servers["main"].admin, reading.servers["backup"].admin) == (Admin.MAINT, Admin.READY)


def unit_script(units: dict[str, str]) -> str:
    start = units["haproxy-state.service"].split("ExecStart=/bin/sh -euc '")[1]
    return start.split("'")[0].replace("\\\n", "")


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    names = []
    for name, text in haproxy_config.units(
        Proxy("p", "b", {}, socket=Path("/run/haproxy/admin.sock")), haproxy_config.Place(listen="")
    ).items():
        (tmp_path / name).write_text(text)
        names.append(str(tmp_path / name))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in result.stderr.splitlines() if "haproxy-state" in line] == []


async def test_the_lab_ends_every_worker_that_it_started(tmp_path: Path) -> None:
    async with world(tmp_path, hard_stop_after=60.0) as pool:
        await pool.relay()
        first = await pool.lab.process.worker()
        second = await pool.lab.process.reload()
        pool.lab.process.suspend()
    assert not runs(first)
    assert not runs(second)


def runs(pid: int) -> bool:
    return os.path.lexists(f"/proc/{pid}/exe")


async def test_the_lab_says_why_haproxy_did_not_start(tmp_path: Path) -> None:
    async with world(tmp_path) as pool:
        (tmp_path / "second").mkdir()
        second = LabProxy(tmp_path / "second", pool.lab.config)
        (tmp_path / "second" / "haproxy.cfg").write_text("nonsense\n")
        with pytest.raises(LabError, match="unknown keyword 'nonsense'"):
            await second.process.start()


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(20))) == 20
