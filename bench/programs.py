"""Programs that are measured from outside: how they are found, what environment they get, and how they end.

Byte code: shells and containers that set PYTHONDONTWRITEBYTECODE would have every start compile the whole package.
The programs here get a folder of their own for it (PYTHONPYCACHEPREFIX), filled by a start that is not counted; so
nothing is written into the checkout either, and what is measured is a start as an installed package has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from failover.lab import pool

ENDING = 10.0  # seconds until SIGKILL


def failover(*arguments: str) -> list[str]:
    """The command line of ``failover``: the console script beside this interpreter."""
    script = Path(sys.executable).with_name("failover")
    return [*([str(script)] if script.exists() else [sys.executable, "-m", "failover"]), *arguments]


def environment(byte_code: Path) -> dict[str, str]:
    """Ours, with byte code written and read under ``byte_code``."""
    without = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**without, "PYTHONPYCACHEPREFIX": str(byte_code), "NO_COLOR": "1"}


def with_credentials(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` with nothing of this machine's AWS settings and HTTP proxies in it, but with the lab's credentials."""
    foreign = ("AWS_", "BOTO")
    kept = {n: v for n, v in env.items() if not n.startswith(foreign) and not n.lower().endswith("_proxy")}
    return {**kept, **pool.ENVIRONMENT, "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def credentials() -> Iterator[None]:
    """This process's own environment with the lab's credentials, while the block lasts."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(with_credentials(before))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def running(command: Sequence[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program while the block lasts, then SIGTERM; should this process be killed, the kernel ends it too."""
    ends_with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with log.open("wb") as out:
        process = subprocess.Popen([*ends_with_us, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(ENDING)
