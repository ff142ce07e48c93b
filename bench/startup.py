# ruff: noqa: TID251  a bench reads the machine's clock
"""Figures of starts: whole processes, against the interpreter that does nothing.

What a record adds to what the daemon loads (loading.py) is compared with the same without a record.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import programs
from bench.answering import MAGIC
from bench.figure import Aim, Figure, Say, medians
from bench.pings import server

LONGEST = 60.0  # seconds
NOTHING = "python -c pass"
LOADING = [sys.executable, "-m", "bench.loading"]
WITH_ROUTE53, WITH_RFC2136 = Aim(2.0), Aim(1.3)


def _timed(command: Sequence[str], env: dict[str, str]) -> Callable[[], float]:
    """Runs the command once: milliseconds from start to end. The first time is not counted by anyone."""

    def run() -> float:
        began = time.perf_counter()
        subprocess.run(command, env=env, check=True, timeout=LONGEST, stdin=subprocess.DEVNULL, capture_output=True)
        return (time.perf_counter() - began) * 1e3

    run()
    return run


def _loaded(command: Sequence[str], env: dict[str, str]) -> str:
    """The heavy libraries that a program of bench/loading.py says it has loaded."""
    done = subprocess.run(command, env=env, check=True, timeout=LONGEST, stdin=subprocess.DEVNULL, capture_output=True)
    return done.stdout.decode().strip() or "neither boto3 nor dnspython"


async def _commands(rounds: int, env: dict[str, str], say: Say) -> list[Figure]:
    """Commands that a person waits for."""
    async with server() as address:
        say("compiling, by a start of each that is not counted")
        ping = programs.failover("ping", str(address), "--network-magic", str(MAGIC), "--json")
        runs = [
            _timed([sys.executable, "-c", "pass"], env),
            _timed(programs.failover("--help"), env),
            _timed([sys.executable, "-c", "import asyncio"], env),
            _timed(ping, env),
        ]
        say(f"starting each {rounds} times")
        bare, help_, bare_asyncio, pinged = medians(rounds, *runs)
    note = f"median of {rounds} starts in turn, compiled"
    return [
        Figure("help", help_, "ms", bare, NOTHING, Aim(8.0), f"failover --help; {note}"),
        Figure(
            "ping command", pinged, "ms", bare, NOTHING, None,
            f"failover ping HOST:PORT, whole process; {pinged / bare_asyncio:.1f} x `import asyncio`; {note}",
        ),
    ]  # fmt: skip


def _imports(rounds: int, env: dict[str, str], say: Say) -> list[Figure]:
    """What the daemon loads: without a record, and with each kind."""
    commands = [LOADING, [*LOADING, "route53"], [*LOADING, "rfc2136"]]
    bare, *runs = (_timed(command, env) for command in ([sys.executable, "-c", "pass"], *commands))
    none, amazon, update = (_loaded(command, env) for command in commands)
    say(f"loading what the daemon loads {rounds} times, without a record and with each kind")
    nothing, without, with_amazon, with_update = medians(rounds, bare, *runs)
    against = "the same without a record"
    note = (
        f"the record's ports made and its provider read once, where nobody listens; median of {rounds} starts in turn"
    )
    return [
        Figure("run, imports", without, "ms", nothing, NOTHING, None, f"what `failover run` loads: {none}"),
        Figure("run, Route 53", with_amazon, "ms", without, against, WITH_ROUTE53, f"{amazon}; {note}"),
        Figure("run, RFC 2136", with_update, "ms", without, against, WITH_RFC2136, f"{update}; {note}"),
    ]


def figures(quick: bool, say: Say) -> list[Figure]:
    """Commands, and the daemon's imports."""
    rounds, slow_rounds = (3, 2) if quick else (15, 7)
    with TemporaryDirectory(prefix="failover-bench-") as folder:
        env = programs.with_credentials(programs.environment(Path(folder)))
        return [*asyncio.run(_commands(rounds, env, say)), *_imports(slow_rounds, env, say)]
