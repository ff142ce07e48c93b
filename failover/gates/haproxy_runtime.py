"""HAProxy's runtime API (``stats socket``), over a unix socket or TCP.

One connection per call, in interactive mode (``prompt``), so that the question who answers and the command that
follows share it. Plain text only: ``stats socket ... ssl`` is accepted by HAProxy and speaks plaintext.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from failover.dial import Dial
from failover.errors import GateRefused, GateTimeout, GateUnreachable
from failover.gates import haproxy_answers as answers
from failover.model import Proxy, ProxyReading, StepKind
from failover.ports import Host

R = TypeVar("R")

MAX_ANSWER = 2 * 1024 * 1024  # bytes
PROMPT = b"\n> "
ATTEMPTS = 3  # connections until one reaches the present worker
RETRY = 0.1  # seconds; a reload takes about that long to move the listening socket


@dataclass(slots=True)
class _Progress:
    """How far a call has come; decides what an error means."""

    connected: bool = False
    sent: bool = False  # a command that changes something


class _Conversation:
    """One connection in interactive mode: a command, its answer, the next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, command: str) -> str:
        """The answer to one command, without the prompt. Raises EOFError, OSError, LimitOverrunError."""
        self._writer.write(command.encode() + b"\n")
        raw = await self._reader.readuntil(PROMPT)
        return raw.removesuffix(PROMPT).decode("utf-8", "replace").strip("\n")


class RuntimePort:
    """ProxyPort over the runtime API."""

    def __init__(self, proxy: Proxy, host: Host) -> None:
        assert proxy.socket is not None  # noqa: S101 - proxy_port picked this class for it
        self._proxy = proxy
        self._target = proxy.socket
        self._host = host
        self._process: str | None = None  # of the last reading
        self._dial = Dial(proxy.name, host)

    async def read(self, timeout: float) -> ProxyReading:
        """See ProxyPort. A connection that still reached an old worker reads as ``stopping``."""

        async def look(progress: _Progress) -> ProxyReading:
            async with self._connected(progress, timeout) as line:
                identity = answers.identity_of_info(self._proxy, await line.ask("show info"))
                bits = answers.admin_bits(await line.ask(f"show servers state {self._proxy.backend}"))
                rows = answers.table(self._proxy, await line.ask("show stat"))
            return answers.reading(self._proxy, rows, identity, bits)

        seen = await self._within(timeout, look, change=False)
        if not seen.stopping:
            self._process = seen.process
        return seen

    async def set(self, kind: StepKind, producer: str, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See ProxyPort. False also when overtaken between maint and the end of the sessions: maint stays."""
        server = f"{self._proxy.backend}/{self._proxy.servers[producer]}"

        async def move(progress: _Progress) -> bool:
            for attempt in range(ATTEMPTS):
                if attempt:
                    await self._host.sleep(RETRY)
                async with self._connected(progress, timeout) as line:
                    identity = answers.identity_of_info(self._proxy, await line.ask("show info"))
                    if not identity.stopping:
                        return await self._move(line, identity, kind, server, still_valid, progress)
            raise GateRefused(
                f"{self._proxy.name}: HAProxy is stopping or reloading (pid {identity.pid}); nothing was changed",
                "nothing, if it was reloaded; else start it",
            )

        return await self._within(timeout, move, change=True)

    async def _move(
        self,
        line: _Conversation,
        identity: answers.Identity,
        kind: StepKind,
        server: str,
        still_valid: Callable[[], bool],
        progress: _Progress,
    ) -> bool:
        if kind is StepKind.OPEN:
            same_process(self._proxy, self._process, identity)
            commands = [f"set server {server} state ready"]
        else:
            commands = [f"set server {server} state maint", f"shutdown sessions server {server}"]
        for command in commands:
            if not still_valid():
                return False
            progress.sent = True
            _accepted(self._proxy, command, await line.ask(command))
        return True

    async def close(self) -> None:
        """See ProxyPort."""
        self._dial.close()

    async def _within(self, timeout: float, call: Callable[[_Progress], Awaitable[R]], *, change: bool) -> R:
        """Run ``call`` under one deadline, and say what went wrong by how far it came."""
        progress = _Progress()
        where = f"{self._proxy.name}: {self._target}"
        hangs = "see whether HAProxy hangs"
        try:
            async with self._host.timeout(timeout):
                return await call(progress)
        except TimeoutError as error:
            if progress.sent or (progress.connected and not change):
                raise GateTimeout(
                    f"{where} did not answer within {timeout:g} s", "see whether HAProxy hangs"
                ) from error
            if progress.connected:
                raise GateUnreachable(
                    f"{where} did not answer within {timeout:g} s; no command was sent", hangs
                ) from error
            raise GateUnreachable(
                f"{where} took no connection within {timeout:g} s", "check the address, routing and firewalls"
            ) from error
        except asyncio.LimitOverrunError as error:
            raise GateRefused(
                f"{where} sent more than {MAX_ANSWER // 1024} KiB", "check that it is HAProxy's runtime API"
            ) from error
        except EOFError as error:
            raise self._broken(progress, where, "closed the connection") from error
        except OSError as error:
            raise self._broken(progress, where, error.strerror or str(error)) from error

    def _broken(self, progress: _Progress, where: str, what: str) -> GateTimeout | GateUnreachable:
        if progress.sent:
            return GateTimeout(
                f"{where}: {what} before answering the command: its effect is unknown", "look into its log"
            )
        if progress.connected:
            return GateUnreachable(f"{where}: no answer ({what})", "check that it is HAProxy's runtime API")
        mend = "check that HAProxy runs and that `socket` is its `stats socket`"
        if isinstance(self._target, Path):
            mend += ", and that this user may open it (its `mode` and `group`)"
        return GateUnreachable(f"{where}: {what}", mend)

    @asynccontextmanager
    async def _connected(self, progress: _Progress, timeout: float) -> AsyncIterator[_Conversation]:
        reader, writer = await self._open(timeout)
        try:
            progress.connected = True
            line = _Conversation(reader, writer)
            await line.ask("prompt")
            yield line
        finally:
            writer.transport.abort()  # close() would wait for a peer that hangs

    async def _open(self, timeout: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target, limit=MAX_ANSWER)
        return await self._dial.open(self._target, timeout, MAX_ANSWER)


def same_process(proxy: Proxy, seen: str | None, identity: answers.Identity) -> None:
    """Raises GateRefused when the process that answers is not the one last read (None: never read, or not shown)."""
    if seen is not None and identity.process is not None and seen != identity.process:
        raise GateRefused(
            f"{proxy.name}: HAProxy was reloaded or restarted since it was read ({seen}, now {identity.process}); "
            "nothing was opened",
            "nothing: it is read again first",
        )


def _accepted(proxy: Proxy, command: str, answer: str) -> None:
    """An empty answer is yes. Raises GateRefused for any other."""
    text = answer.strip()
    if not text:
        return
    if text.startswith("Permission denied"):
        mend = "add `level admin` to the `stats socket` line that proxies.socket names"
    elif text.startswith("No such"):
        mend = "correct `backend` or `servers` of the proxy in the file, or HAProxy's configuration"
    elif text.startswith("Proxy is disabled"):
        mend = "nothing, if HAProxy was just reloaded (an old worker answered); else remove `disabled` from the backend"
    else:
        mend = "check HAProxy's version: 2.4 or newer is needed"
    raise GateRefused(f"{proxy.name}: `{command}` was answered {text.splitlines()[0][:120]!r}", mend)
