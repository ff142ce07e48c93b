# ruff: noqa: TID251  a bench reads the machine's clock
"""Figures ``help`` and ``ping command``: whole processes, against the interpreter that does nothing."""

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


def _timed(command: Sequence[str], env: dict[str, str]) -> Callable[[], float]:
    """Runs the command once: milliseconds from start to end. The first time is not counted by anyone."""

    def run() -> float:
        began = time.perf_counter()
        subprocess.run(command, env=env, check=True, timeout=LONGEST, stdin=subprocess.DEVNULL, capture_output=True)
        return (time.perf_counter() - began) * 1e3

    run()
    return run


async def _figures(quick: bool, say: Say) -> list[Figure]:
    rounds = 3 if quick else 15
    async with server() as address:
        with TemporaryDirectory(prefix="failover-bench-") as folder:
            env = programs.environment(Path(folder))
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
        Figure("help", help_, "ms", bare, "python -c pass", Aim(8.0), f"failover --help; {note}"),
        Figure(
            "ping command", pinged, "ms", bare, "python -c pass", None,
            f"failover ping HOST:PORT, whole process; {pinged / bare_asyncio:.1f} x `import asyncio`; {note}",
        ),
    ]  # fmt: skip


def figures(quick: bool, say: Say) -> list[Figure]:
    """Both figures."""
    return asyncio.run(_figures(quick, say))
