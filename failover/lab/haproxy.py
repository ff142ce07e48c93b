"""Real HAProxy processes on loopback, for the tests, the lab and the demo.

``HaproxyProcess`` runs one configuration; ``LabProxy`` writes that configuration for given producers and hands out
the ways in as values of the model. Everything started here is ended here, by process id. Waits are bounded.

This module may start processes, write into the folder that it is given, and wait on the machine's clock.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from failover.errors import FailoverError
from failover.gates import haproxy_config
from failover.model import Address, Pool, Producer, Proxy

START_TIMEOUT = 10.0  # seconds; for starting, reloading and ending, each
POLL = 0.02  # seconds
STOP_LOOKS = 20_000  # at a process that was sent SIGSTOP: about a second


class LabError(FailoverError):
    """A process of the lab did not do what it was started for; the message holds the end of its log."""


def installed(binary: str = "haproxy") -> str | None:
    """Why there can be no HAProxy here, or None when there can."""
    return None if shutil.which(binary) else f"{binary} is not installed (apt-get install haproxy)"


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports of ``host`` that nobody listens on at the moment, all different."""
    with_sockets = [socket.socket() for _ in range(count)]
    try:
        for each in with_sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in with_sockets]
    finally:
        for each in with_sockets:
            each.close()


class HaproxyProcess:
    """One real HAProxy with one configuration, as a child process.

    ``socket`` is a unix ``stats socket`` of that configuration, by which its state is seen. With ``master`` it runs
    as a master with workers (-W), which is what a reload needs. ``environment`` is added to ours.
    """

    def __init__(
        self,
        folder: Path,
        config: str,
        socket: Path,
        *,
        state_file: Path | None = None,
        master: bool = True,
        environment: Mapping[str, str] | None = None,
        binary: str = "haproxy",
    ) -> None:
        self.folder = folder
        self.socket = socket
        self.state_file = state_file
        self._file = folder / "haproxy.cfg"
        self._log = folder / "haproxy.log"
        self._file.write_text(config, encoding="utf-8")
        self._master = folder / "master.sock" if master else None
        as_master = ["-W", "-S", f"{self._master},mode,600"] if master else []
        self._command = [binary, *as_master, "-f", str(self._file)]
        self._environment = {**os.environ, **(environment or {})}
        self._child: subprocess.Popen[bytes] | None = None
        self._workers: set[int] = set()  # every worker that was seen; they are ours to end
        self._suspended: set[int] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> int:
        """Start it and wait until it answers; the worker's process id. Raises LabError."""
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        return await self._answering(but=set())

    async def reload(self, config: str | None = None) -> int:
        """Start a new worker (SIGUSR2), and wait until it answers; its process id. The old one ends when it is idle.

        Raises LabError, also when there is no master to ask.
        """
        if self._child is None or self._master is None:
            raise LabError("only a running HAProxy with a master can be reloaded")
        if config is not None:
            self._file.write_text(config, encoding="utf-8")
        old = await self.worker()
        self._child.send_signal(signal.SIGUSR2)
        return await self._answering(but={old})

    async def restart(self, *, keep_state: bool) -> int:
        """End it and start it again; the worker's process id. With ``keep_state`` its states are dumped before.

        Without it the state file is removed, as after a restart on a host that never dumped. Raises LabError.
        """
        if keep_state:
            await self.dump()
        await self.stop()
        if not keep_state and self.state_file is not None:
            self.state_file.unlink(missing_ok=True)
        return await self.start()

    async def dump(self) -> None:
        """Write the states to the state file, as haproxy-state.service does."""
        if self.state_file is None:
            raise LabError("this HAProxy has no state file")
        text = await self.ask("show servers state")
        self.state_file.write_text(text, encoding="utf-8")

    def suspend(self) -> None:
        """Stop the workers in their tracks (SIGSTOP): connections are still taken by the kernel, nothing answers.

        A worker on another core goes on until the signal reaches it: that is waited for, for a moment.
        """
        pids = self._alive()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            self._suspended.add(pid)
        for _ in range(STOP_LOOKS):
            if all(_stands_still(pid) for pid in pids):
                return
            os.sched_yield()

    def resume(self) -> None:
        """Let them go on (SIGCONT)."""
        for pid in self._suspended:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._suspended.clear()

    async def stop(self) -> None:
        """End it, and every worker that was seen. Not an error when it has ended."""
        child, self._child = self._child, None
        if child is None:
            return
        self.resume()
        child.terminate()
        if not await self._within(lambda: child.poll() is not None):
            child.kill()
            await self._within(lambda: child.poll() is not None)
        for pid in self._alive():
            os.kill(pid, signal.SIGKILL)
        self._workers.clear()

    async def kill(self) -> None:
        """SIGKILL, for the master and every worker that was seen. Not an error when it has ended."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pid in self._alive():
            os.kill(pid, signal.SIGKILL)
        await self._within(lambda: child.poll() is not None and not self._alive())
        self._workers.clear()
        self._suspended.clear()

    async def ask(self, command: str) -> str:
        """The answer to one command of the runtime API. Raises OSError, or TimeoutError."""
        return await _ask(self.socket, command)

    async def worker(self) -> int:
        """The process id of the worker that answers now."""
        info = dict(line.split(": ", 1) for line in (await self.ask("show info")).splitlines() if ": " in line)
        if "Pid" not in info or info.get("Stopping") != "0":
            raise LabError("an old worker answered")
        pid = int(info["Pid"])
        self._workers.add(pid)
        return pid

    def log(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:] if self._log.exists() else ""

    def _alive(self) -> list[int]:
        """The workers that still run; a process id is only believed while it runs our configuration."""
        return [pid for pid in self._workers if str(self._file) in _command_line(pid)]

    async def _answering(self, but: set[int]) -> int:
        """Wait for a worker that is none of ``but``, and for a master that is ready for the next signal."""
        child = self._child
        for _ in range(int(START_TIMEOUT / POLL)):
            if child is not None and child.poll() is not None:
                raise LabError(f"haproxy ended with status {child.returncode}:\n{self.log()}")
            with suppress(OSError, LabError):
                pid = await self.worker()
                if pid not in but and await self._master_knows(pid):
                    return pid
            await asyncio.sleep(POLL)  # noqa: TID251 - the lab runs on the machine's clock
        raise LabError(f"haproxy did not answer within {START_TIMEOUT:g} s:\n{self.log()}")

    async def _master_knows(self, pid: int) -> bool:
        """Whether the master is done with the reload: a signal that comes earlier is lost (measured, 2.6.12)."""
        if self._master is None:
            return True
        listed = (await _ask(self._master, "show proc")).splitlines()
        workers = {int(line.split()[0]) for line in listed if "worker" in line and line.split()[0].isdigit()}
        self._workers |= workers
        return pid in workers

    async def _within(self, done: Callable[[], bool]) -> bool:
        for _ in range(int(START_TIMEOUT / POLL)):
            if done():
                return True
            await asyncio.sleep(POLL)  # noqa: TID251 - the lab runs on the machine's clock
        return done()


async def _ask(path: Path, command: str) -> str:
    async with asyncio.timeout(START_TIMEOUT):  # noqa: TID251 - the lab runs on the machine's clock
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(command.encode() + b"\n")
            writer.write_eof()  # the master's own command line ends only so
            answer = await reader.read(-1)
        finally:
            writer.transport.abort()
    return answer.decode()


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").rstrip("\0").split("\0")
    except OSError:
        return []


# ---------------------------------------------------------------- a proxy in front of given producers


class Style(StrEnum):
    """How the lab's HAProxy is configured. All but REFERENCE are what operators may bring."""

    REFERENCE = "reference"  # haproxy/haproxy.cfg.template: watch, track, standby disabled
    PLAIN = "plain"  # plain TCP checks on the routed servers, no watch, everything open
    BACKUP = "backup"  # the same, with the `backup` keyword: it fails over by itself
    UNCHECKED = "unchecked"  # no checks at all


class WayIn(StrEnum):
    """How a HAProxy is managed."""

    SOCKET = "socket"
    TCP = "tcp"
    STATS = "stats"


@dataclass(frozen=True, slots=True)
class LabConfig:
    """What a LabProxy is made of. ``interval`` and ``timeout_check`` are HAProxy's own durations."""

    name: str
    producers: Mapping[str, Address]  # in order of preference
    magic: int = 42
    style: Style = Style.REFERENCE
    backend: str = "producers"
    interval: str = "200ms"
    timeout_check: str = "400ms"
    hard_stop_after: float | None = 2.0
    host: str = "127.0.0.1"  # where it listens


class LabProxy:
    """One HAProxy for given producers, with all three ways in open on loopback.

    ``relays`` is where relays connect. ``process`` starts, reloads, suspends and ends it.
    """

    USERNAME = "failover"
    PASSWORD = "lab"  # noqa: S105 - on loopback, for as long as the lab runs

    def __init__(self, folder: Path, config: LabConfig) -> None:
        self.config = config
        relays, runtime, user, stats = free_ports(4, config.host)
        self.relays = Address(config.host, relays)
        self.runtime = Address(config.host, runtime)
        self.user_runtime = Address(config.host, user)  # without admin level
        self.stats = f"http://{config.host}:{stats}/stats"
        self.socket = folder / "admin.sock"
        self.state_file = folder / "server-state"
        self.process = HaproxyProcess(
            folder,
            self.text(),
            self.socket,
            state_file=self.state_file,
            environment={haproxy_config.PASSWORD_VARIABLE: self.PASSWORD},
        )

    async def __aenter__(self) -> Self:
        await self.process.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.process.stop()

    def proxy(self, way: WayIn = WayIn.SOCKET) -> Proxy:
        """The proxy as a pool's file would name it, by one of its ways in."""
        bare = Proxy(
            name=self.config.name,
            backend=self.config.backend,
            servers={name: name for name in self.config.producers},
            watch="watch" if self.config.style is Style.REFERENCE else None,
            hard_stop_after=self.config.hard_stop_after,
        )
        if way is WayIn.SOCKET:
            return replace(bare, socket=self.socket)
        if way is WayIn.TCP:
            return replace(bare, socket=self.runtime)
        return replace(bare, stats=self.stats, username=self.USERNAME, password=self.PASSWORD)

    def text(self) -> str:
        """Its configuration, with the runtime API on TCP added to what the style has."""
        c = self.config
        producers = tuple(Producer(name, address) for name, address in c.producers.items())
        pool = Pool("LAB", "lab", c.magic, producers, ())
        place = haproxy_config.Place(
            listen=str(self.relays),
            state_file=self.state_file,
            log="127.0.0.1:9 local0",
            account=None,
            admin_socket=self.socket,
            interval=c.interval,
            timeout_check=c.timeout_check,
        )
        text = haproxy_config.configuration(pool, self.proxy(WayIn.STATS), place)
        text = text.replace("fall 3 rise 2", "fall 2 rise 1")
        added = (
            f"    stats socket ipv4@{self.runtime} level admin\n    stats socket ipv4@{self.user_runtime} level user\n"
        )
        text = text.replace("    stats timeout 30s\n", f"{added}    stats timeout 30s\n", 1)
        return text if c.style is Style.REFERENCE else self._without_watch(text)

    def _without_watch(self, text: str) -> str:
        c = self.config
        head, _, rest = text.partition("# No traffic comes here")
        stats = rest[rest.index("# The controller's way in") :]
        check = "" if c.style is Style.UNCHECKED else f" check inter {c.interval} fall 2 rise 1"
        rows = [
            f"    server {name} {address}{check} on-marked-down shutdown-sessions"
            + (" backup" if c.style is Style.BACKUP and number else "")
            for number, (name, address) in enumerate(c.producers.items())
        ]
        return head + "\n".join([f"backend {c.backend}", "    balance first", *rows, "", stats])


def _stands_still(pid: int) -> bool:
    """Whether every thread of a process is stopped, or it is gone."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one ended while we looked
        return not Path(f"/proc/{pid}").exists()
    return all(text.rpartition(")")[2].split()[0] in ("T", "t", "Z", "X") for text in threads)
