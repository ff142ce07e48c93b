"""The gate that is a machine's power: commands that the operator names, run here.

Each is run without a shell, in ``/``, with a fixed environment, no standard input and a process group of its own,
which is killed at the deadline, and when the command itself has ended: nothing that it leaves behind stays.

What its output does not say in its last word, ``on`` or ``off``, is unknown. ``off`` is believed only when ``status``
says so: that the command for it ended well means nothing.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from failover.agent_answers import words
from failover.errors import GateRefused, GateTimeout, GateUnreachable, WorkerBusy
from failover.model import GateReading, Power, Step, StepKind
from failover.ports import Host

MOST_OUTPUT = 65_536  # bytes
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "LC_ALL": "C"}
SHOWN = 100  # characters of a command or its output, in an error


class PowerPort:
    """GatePort (failover/ports.py) over the operator's commands; one runs at a time."""

    def __init__(self, producer: str, power: Power, host: Host) -> None:
        self._producer = producer
        self._power = power
        self._host = host
        self._turn = asyncio.Lock()
        self._worker = host.worker(f"{producer} power")
        self._running: Run | None = None

    async def read(self, timeout: float) -> GateReading:
        """See GatePort. An ``off`` is certain; GateRefused and GateTimeout mean that it is unknown."""
        command = self._power.status
        run = await self._run("status", command, timeout, lambda: True)
        assert run is not None  # noqa: S101 - nothing was asked before it was started
        if run.status != 0:
            raise GateRefused(f"{self._name('status', command)} {run.end}", "run it by hand as this user")
        said = run.output.split()[-1:]
        state = said[0].lower() if said else ""
        if run.flooded or state not in ("on", "off"):
            what = (
                f"more than {MOST_OUTPUT // 1024} KiB"
                if run.flooded
                else repr(words(" ".join(run.output.split()), SHOWN))
            )
            raise GateRefused(
                f"{self._name('status', command)} printed {what}: neither on nor off",
                "let its last word be on or off; wrap it in a script of yours",
            )
        return GateReading(open=state == "on", certain=state == "off", shown=(f"status says {state}",))

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See GatePort. A command for ``on`` that fails may have worked all the same: GateTimeout."""
        opens = step.kind is StepKind.OPEN
        verb, command = ("on", self._power.on) if opens else ("off", self._power.off)
        if command is None:
            raise GateRefused(
                f"{self._producer}: power.on is not set: it is switched on by hand", "switch it on, or set power.on"
            )
        run = await self._run(verb, command, timeout, still_valid)
        if run is None:
            return False
        if run.status != 0:
            what = f"{self._name(verb, command)} {run.end}"
            mend = "run it by hand as this user"
            raise GateTimeout(f"{what}: its effect is unknown", mend) if opens else GateRefused(what, mend)
        return True

    async def close(self) -> None:
        """See GatePort. A command that still runs is killed."""
        if self._running is not None:
            self._running.kill()
        self._worker.close()

    async def _run(
        self, verb: str, command: tuple[str, ...], timeout: float, still_valid: Callable[[], bool]
    ) -> Run | None:
        """The command, ended; None when ``still_valid`` said no. Raises GateUnreachable, GateTimeout."""
        name = self._name(verb, command)
        begun: list[subprocess.Popen[bytes]] = []
        tried = given_up = False

        def start() -> None:  # in the worker's thread
            nonlocal tried
            if not still_valid():
                return
            tried = True
            begun.append(_start(command))
            if given_up:
                _kill_group(begun[0])

        run: Run | None = None
        try:
            async with self._host.timeout(timeout), self._turn:
                await self._worker.call(start, timeout)
                if not begun:
                    return None
                run = self._running = Run(begun[0])
                await run.ended()
                return run
        except TimeoutError as error:
            if not tried:
                raise GateUnreachable(
                    f"{name} found no time within {timeout:g} s; nothing was run", "see whether commands before it hang"
                ) from error
            mend = "run it by hand as this user; see whether what it talks to hangs"
            raise GateTimeout(f"{name} did not end within {timeout:g} s: its effect is unknown", mend) from error
        except (OSError, WorkerBusy) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise GateUnreachable(f"{name} cannot be started: {why}", "check its path and rights") from error
        finally:
            given_up = True
            if run is not None:
                run.kill()
                self._running = None
            elif begun:  # it was begun when nobody waited for it any more
                _kill_group(begun[0])

    def _name(self, verb: str, command: tuple[str, ...]) -> str:
        """The command in an error: its program alone, since what follows it may be a password."""
        return f"{self._producer}: power.{verb} ({words(shlex.quote(command[0]), SHOWN)})"


class Run:
    """One process that was started: its output while it runs, its end, and the end of its group."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._handle = os.pidfd_open(process.pid)
        self._done = self._loop.create_future()
        self._printed = tuple(Printed(pipe, self._loop) for pipe in (process.stdout, process.stderr) if pipe)
        self._loop.add_reader(self._handle, self._end)

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def end(self) -> str:
        """How it ended, in words, with the last line that it printed."""
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with status {code}"
        line = next((lines[-1] for p in reversed(self._printed) if (lines := p.text.strip().splitlines())), "")
        return f"{how}: {words(line, SHOWN)}" if line else how

    @property
    def output(self) -> str:
        """What it printed to standard output."""
        return self._printed[0].text

    @property
    def flooded(self) -> bool:
        """Whether that was more than ``MOST_OUTPUT``."""
        return self._printed[0].flooded

    async def ended(self) -> None:
        """Wait for its end; not for that of what it started itself."""
        await self._done

    def kill(self) -> None:
        """End its whole group, unless it has ended. It is reaped when it has gone."""
        _kill_group(self._process)

    def _end(self) -> None:
        """Called when it has ended, before it is reaped: take what it printed last, and end what it left."""
        self._loop.remove_reader(self._handle)
        for printed in self._printed:
            printed.close()
        _kill_group(self._process)
        self._process.wait()
        os.close(self._handle)
        if not self._done.done():
            self._done.set_result(None)


class Printed:
    """What comes out of one pipe, as far as ``MOST_OUTPUT``; what is beyond stays in the pipe."""

    def __init__(self, pipe: IO[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._pipe = pipe
        self._loop = loop
        self._bytes = bytearray()
        self.flooded = False
        os.set_blocking(pipe.fileno(), False)
        loop.add_reader(pipe.fileno(), self._read)

    @property
    def text(self) -> str:
        """It, decoded."""
        return self._bytes.decode("utf-8", "replace")

    def close(self) -> None:
        """Take what is there still, without waiting for more."""
        if not self.flooded:
            self._read()
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()

    def _read(self) -> None:
        """Called when something was printed: one bounded read."""
        try:
            data = os.read(self._pipe.fileno(), MOST_OUTPUT + 1)
        except BlockingIOError:
            return
        self._bytes += data
        if len(self._bytes) > MOST_OUTPUT:
            self.flooded = True
            del self._bytes[MOST_OUTPUT:]
        if not data or self.flooded:
            self._loop.remove_reader(self._pipe.fileno())


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # not reaped: its number is still its own
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _start(command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Raises OSError."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
        close_fds=True,
    )
