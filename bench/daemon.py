# ruff: noqa: TID251  a bench waits on the machine's clock
"""Figures ``memory`` and ``cpu``: the daemon with one pool, at the file's default pace, in a lab with real HAProxies.

The daemon is scraped once by an HTTP client before it is measured, so that what serves HTTP is loaded and counted.
"""

from __future__ import annotations

import asyncio
import sys
import time
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import programs
from bench.figure import Aim, Figure, Say
from failover import config
from failover.host import RealHost
from failover.lab.haproxy import LabError
from failover.lab.pool import LabPool, Plan, Times
from failover.model import HealthSettings, LeaseSettings, PolicySettings, Pool

HOST = RealHost()
AIM = Aim(70.0, of="measured")
WAIT = 30.0  # seconds until the daemon serves
SETTLED = 3.0  # seconds from then until it has stopped starting


def _resident(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LabError(f"process {pid} has ended", "read its log")


def _cpu(pid: int) -> float:
    """CPU time of its threads since they started: seconds. /proc/PID/stat counts in hundredths, too coarse here."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def _scrape(pool: Pool) -> bool:
    """Whether the daemon serves its metrics and its status."""
    try:
        for path in ("metrics", "status"):
            with urllib.request.urlopen(f"http://{pool.listen}/{path}", timeout=5) as answer:
                answer.read()
    except OSError:
        return False
    return True


def _default_lease(file: Path) -> None:
    """The lab's file with the lease as it is when the file does not speak of it."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("lease:")), encoding="utf-8")


def _end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-500:]


async def _served(pool: Pool, log: Path) -> None:
    began = HOST.now()
    while not await asyncio.to_thread(_scrape, pool):
        if HOST.now().since(began) > WAIT:
            raise LabError(f"the daemon did not serve within {WAIT:g} s: {_end(log)}")
        await HOST.sleep(0.2)


async def _bare(env: dict[str, str], folder: Path) -> float:
    """Resident memory of an interpreter that waits."""
    with programs.running([sys.executable, "-c", "import time; time.sleep(60)"], env, folder / "bare.log") as process:
        await HOST.sleep(0.3)
        return _resident(process.pid)


async def _figures(quick: bool, say: Say) -> list[Figure]:
    window = 2.0 if quick else 30.0
    health, policy = HealthSettings(), PolicySettings()
    times = Times(
        health.interval, health.timeout, health.max_gap, policy.fail_over_after, policy.fail_back_after, slot=1.0
    )
    with TemporaryDirectory(prefix="fob-") as name:
        folder = Path(name)
        env = programs.environment(folder / "byte-code")
        async with LabPool(folder / "lab", Plan(relays=1, scale=1.0, times=times)) as made:
            _default_lease(made.file)
            pool = config.load(made.file).pool
            assert (pool.health, pool.lease) == (health, LeaseSettings())  # noqa: S101  or it is not the default
            say("compiling the daemon, by a start that is not counted")
            log = folder / "daemon.log"
            for counted in (False, True):
                with programs.running(programs.failover("-c", str(made.file), "run"), env, log) as process:
                    await _served(pool, log)
                    if not counted:
                        continue
                    await HOST.sleep(SETTLED)
                    say(f"watching the daemon for {window:g} s")
                    cpu, began = _cpu(process.pid), time.monotonic()
                    await HOST.sleep(window)
                    spent = (_cpu(process.pid) - cpu) / (time.monotonic() - began)
                    resident = _resident(process.pid)
        bare = await _bare(env, folder)
    parts = f"{len(pool.producers)} producers, {len(pool.references)} references, {len(pool.proxies)} proxies, no AWS"
    return [
        Figure("memory", resident, "MB", bare, "an interpreter that waits", AIM, f"resident; {parts}"),
        Figure(
            "cpu", spent * 3600, "s/hour", None, "", None,
            f"the daemon at its default interval ({health.interval:g} s), extrapolated from {window:g} s; "
            f"{spent * 100:.2f} % of one core",
        ),
    ]  # fmt: skip


def figures(quick: bool, say: Say) -> list[Figure]:
    """Both figures."""
    return asyncio.run(_figures(quick, say))
