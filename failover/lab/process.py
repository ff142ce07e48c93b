"""A child process of the lab, from both ends: how it is started and ended, and how it ends with whoever started it.

Waits are bounded. A child is only ever signalled while it is ours and not yet reaped, so never somebody else.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from failover.host import RealHost
from failover.lab.haproxy import LabError

READY = "ready"
START_TIMEOUT = 15.0  # seconds
STOP_TIMEOUT = 3.0  # seconds until SIGKILL, and again for that
POLL = 0.02  # seconds

_PR_SET_PDEATHSIG = 1


def ready() -> None:
    """Said by a child: what it was started for now works."""
    print(READY, flush=True)


def end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when ``parent`` ends, however that happens (Linux, prctl(2)).

    "Parent" is the thread that started us: a lab that is started in a thread ends with that thread.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked


def haproxy_that_ends_with_us(folder: Path, within: Sequence[str] = ()) -> str:
    """The program to start as ``haproxy``: a script in ``folder`` that ends with us too, where setpriv(1) exists.

    ``within`` are words before the command, as for a Child.
    """
    ends_with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    words = [*within, *ends_with_us, "haproxy"]
    if len(words) == 1:
        return words[0]
    script = folder / "haproxy"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return str(script)


def given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """What a process was started with: ``--scale`` is above 0, and it ends with its ``--parent`` from now on."""
    found = parser.parse_args(argv)
    if not (math.isfinite(found.scale) and found.scale > 0):
        parser.error(f"--scale {found.scale}: give a number above 0")
    if found.parent is not None:
        end_with_parent(found.parent)
    return found


class Child:
    """A Python module that runs as a process of its own. What it writes is kept in ``log``.

    ``within`` are words before its command, of a program that becomes the one that it is given, as nsenter(1) does.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], folder: Path, within: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = [*within, sys.executable, "-m", module, *arguments, "--parent", str(os.getpid())]
        self._process: subprocess.Popen[bytes] | None = None
        self._host = RealHost()

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def status(self) -> int | None:
        """The exit status of a process that ended, negative for a signal, else None."""
        return self._process.poll() if self._process is not None else None

    async def start(self) -> None:
        """Start it and wait until it says that it is ready. Raises LabError with the end of its log."""
        if self.pid is not None:
            raise LabError(
                f"{self.name} runs already", f"end it first: failover lab tell --folder DIR {self.name} kill"
            )
        with self.log.open("wb") as log:
            self._process = process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if not await self._within(START_TIMEOUT, lambda: process.poll() is not None or self._said_ready()):
            raise LabError(f"{self.name} was not ready within {START_TIMEOUT:g} s:\n{self._tail()}")
        if process.poll() is not None:
            raise LabError(f"{self.name} ended with status {process.returncode}: {self._tail()}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. Raises LabError when it does not run."""
        self.running().send_signal(number)

    def running(self) -> subprocess.Popen[bytes]:
        """The process. Raises LabError when it does not run."""
        if self._process is None or self.pid is None:
            raise LabError(f"{self.name} does not run", f"start it: failover lab tell --folder DIR {self.name} restart")
        return self._process

    async def stop(self) -> None:
        """End it, whatever state it is in. Not an error when it has ended."""
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is not None:
                return
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)  # a stopped process takes SIGTERM only when it goes on
            await self._within(STOP_TIMEOUT, lambda: process.poll() is not None)

    async def _within(self, seconds: float, done: Callable[[], bool]) -> bool:
        for _ in range(int(seconds / POLL)):
            if done():
                return True
            await self._host.sleep(POLL)
        return done()

    def _said_ready(self) -> bool:
        return READY in self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def _tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()
