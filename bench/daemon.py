# ruff: noqa: TID251  a bench waits on the machine's clock
"""Figures ``memory`` and ``cpu``: the daemon with one pool, at the file's default pace, in a lab with real HAProxies.

The daemon is scraped once by an HTTP client before it is measured, so that what serves HTTP is loaded and counted; and
a record, where it has one, was read at its provider and verified at its servers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import named, programs, route53, signpost
from bench.figure import Aim, Figure, Say
from failover import config
from failover.host import RealHost
from failover.lab.haproxy import LabError
from failover.lab.pool import LabPool, Plan, Times
from failover.model import Address, HealthSettings, LeaseSettings, PolicySettings, Pool

HOST = RealHost()
AIM = Aim(70.0, of="measured")
READ, VERIFIED = "provider_value", "answers"  # of a record in the status
WITH_ROUTE53, WITH_RFC2136 = Aim(1.6), Aim(1.2)
WAIT = 30.0  # seconds until the daemon serves
SETTLED = 3.0  # seconds from then until it has stopped starting


def _resident(pid: int, log: Path) -> float:
    """Resident memory in MB (10^6 bytes). Raises LabError with the end of the log of a process that has ended."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LabError(f"process {pid} has ended: {_end(log)}")


def _cpu(pid: int) -> float:
    """CPU time of its threads since they started: seconds. /proc/PID/stat counts in hundredths, too coarse here."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


def _scrape(pool: Pool, done: str) -> bool:
    """Whether the daemon serves its metrics and its status, and every record's ``done`` there is not empty."""
    try:
        for path in ("metrics", "status"):
            with urllib.request.urlopen(f"http://{pool.listen}/{path}", timeout=5) as answer:
                told = answer.read()
    except OSError:
        return False
    return all(record[done] for record in json.loads(told)["records"])


def _default_lease(file: Path) -> None:
    """The lab's file with the lease as it is when the file does not speak of it."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("lease:")), encoding="utf-8")


def _with_records(file: Path, name: str, *records: str) -> Path:
    """The same file with these records, as ``_record`` writes them."""
    made = file.with_name(f"{name}.yaml")
    made.write_text(f"{file.read_text(encoding='utf-8')}records: [{', '.join(records)}]\n", encoding="utf-8")
    return made


def _record(name: str, provider: str, servers: Sequence[Address]) -> str:
    verify = ", ".join(f'"{server}"' for server in servers)
    targets = ", ".join(f"{producer}: {target}" for producer, target in signpost.TARGETS.items())
    return f"{{name: {name}, addresses: {{{targets}}}, {provider}, verify: {{servers: [{verify}]}}}}"


def _end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-500:]


async def _served(pool: Pool, log: Path, done: str = VERIFIED) -> None:
    began = HOST.now()
    while not await asyncio.to_thread(_scrape, pool, done):
        if HOST.now().since(began) > WAIT:
            raise LabError(f"the daemon did not serve within {WAIT:g} s: {_end(log)}")
        await HOST.sleep(0.2)


async def _bare(env: dict[str, str], folder: Path) -> float:
    """Resident memory of an interpreter that waits."""
    log = folder / "bare.log"
    with programs.running([sys.executable, "-c", "import time; time.sleep(60)"], env, log) as process:
        await HOST.sleep(0.3)
        return _resident(process.pid, log)


@dataclass(frozen=True, slots=True)
class Watched:
    """One daemon: resident memory in MB when it has settled and ``window`` seconds later, and its share of a core."""

    resident: float
    later: float
    share: float


async def _watched(file: Path, env: dict[str, str], window: float = 0.0) -> Watched:
    """Start the daemon with this file, let it settle, and watch it for so many seconds."""
    pool, log = config.load(file).pool, file.with_suffix(".log")
    with programs.running(programs.failover("-c", str(file), "run"), env, log) as process:
        await _served(pool, log)
        await HOST.sleep(SETTLED)
        resident, cpu, began = _resident(process.pid, log), _cpu(process.pid), time.monotonic()
        await HOST.sleep(window)
        share = (_cpu(process.pid) - cpu) / (time.monotonic() - began)
        return Watched(resident, _resident(process.pid, log), share)


async def _compiled(file: Path, env: dict[str, str]) -> None:
    """A start that is not counted: it writes the byte code."""
    log = file.with_suffix(".log")
    with programs.running(programs.failover("-c", str(file), "run"), env, log):
        await _served(config.load(file).pool, log, READ)


async def _all(file: Path, env: dict[str, str], window: float, say: Say) -> tuple[Watched, Watched, Watched]:
    """The daemon with this file, the same with a record at Route 53, and with one at BIND."""
    async with route53.lab(1.0) as (endpoint, _), named.named(file.parent) as bind:
        at_amazon = f'route53: {{zone: {route53.ZONE_ID}, endpoint_url: "{endpoint.url}"}}'
        at_bind = (
            f'rfc2136: {{server: "{bind.address}", zone: {signpost.ZONE}, key_name: {named.KEY_NAME}, '
            f'key_file: "{bind.key_file}"}}'
        )
        amazon = _record(signpost.NAME, at_amazon, endpoint.servers)
        say("compiling the daemon, by a start that is not counted")
        await _compiled(_with_records(file, "both", amazon, _record(signpost.BARE, at_bind, [bind.address])), env)
        say(f"watching the daemon for {window:g} s, then for a moment with a record at Route 53, and with one at BIND")
        return (
            await _watched(file, env, window),
            await _watched(_with_records(file, "route53", amazon), env),
            await _watched(_with_records(file, "rfc2136", _record(signpost.NAME, at_bind, [bind.address])), env),
        )


async def _figures(quick: bool, say: Say) -> list[Figure]:
    window = 2.0 if quick else 20.0
    health, policy = HealthSettings(), PolicySettings()
    times = Times(
        health.interval, health.timeout, health.max_gap, policy.fail_over_after, policy.fail_back_after, slot=1.0
    )
    with TemporaryDirectory(prefix="fob-") as name:
        folder = Path(name)
        env = programs.with_credentials(programs.environment(folder / "byte-code"))
        async with LabPool(folder / "lab", Plan(relays=1, scale=1.0, times=times)) as made:
            _default_lease(made.file)
            pool = config.load(made.file).pool
            assert (pool.health, pool.lease) == (health, LeaseSettings())  # noqa: S101  or it is not the default
            plain, amazon, update = await _all(made.file, env, window, say)
        bare = await _bare(env, folder)
    parts = f"{len(pool.producers)} producers, {len(pool.references)} references, {len(pool.proxies)} proxies"
    against = "the same daemon without a record"
    return [
        Figure(
            "memory", plain.later, "MB", bare, "an interpreter that waits", AIM, f"resident; {parts}, no record"
        ),
        Figure(
            "memory, Route 53", amazon.resident, "MB", plain.resident, against, WITH_ROUTE53,
            f"a record more, read and verified: boto3 and one client, {amazon.resident - plain.resident:.1f} MB",
        ),
        Figure(
            "memory, RFC 2136", update.resident, "MB", plain.resident, against, WITH_RFC2136,
            f"a record more, read and verified: dnspython, {update.resident - plain.resident:.1f} MB",
        ),
        Figure(
            "cpu", plain.share * 3600, "s/hour", None, "", None,
            f"the daemon at its default interval ({health.interval:g} s), extrapolated from {window:g} s; "
            f"{plain.share * 100:.2f} % of one core",
        ),
    ]  # fmt: skip


def figures(quick: bool, say: Say) -> list[Figure]:
    """Memory without a record and with one, and CPU time."""
    return asyncio.run(_figures(quick, say))
