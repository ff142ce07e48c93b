"""What the tests of agents share: a real sshd whose forced command is the fake agent, and a link to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fake_agent
from sshd import Sshd

from failover.agent_link import AgentLink
from failover.host import RealHost
from failover.ports import Host

POOL = "EXMPL"
ANSWER = 20.0  # seconds that a call may take
SHORT = 1.5  # seconds, for what must time out
# A shell that sshd starts reads its user's .bashrc unless it runs below another: what stands there is not tested here.
PLAIN = "SetEnv SHLVL=2"


class AgentWorld:
    """One host with its sshd and its agent; ``link()`` makes links to it."""

    def __init__(self, folder: Path, sshd: Sshd) -> None:
        self.folder = folder
        self.sshd = sshd
        self._links: list[AgentLink] = []

    def link(self, host: Host | None = None, **changes: object) -> AgentLink:
        link = AgentLink(self.sshd.agent(**changes), POOL, host or RealHost())  # type: ignore[arg-type]
        self._links.append(link)
        return link

    def behave(self, way: str) -> None:
        """How the agent is to answer from now on: ``WAY`` or ``WAY VERB``; see fake_agent.py."""
        (self.folder / "mode").write_text(way, "utf-8")

    def says(self, verb: str, **fields: Any) -> None:
        """What it answers to a verb besides, or instead."""
        (self.folder / f"{verb}.json").write_text(json.dumps(fields), "utf-8")

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What came in, oldest first."""
        try:
            return [json.loads(line) for line in (self.folder / "requests").read_text("utf-8").splitlines()]
        except FileNotFoundError:
            return []

    @property
    def verbs(self) -> list[str]:
        return [request["verb"] for request in self.requests]

    @property
    def pid(self) -> int:
        """Of the agent's process that took the last request."""
        return int((self.folder / "pid").read_text("utf-8"))

    async def end(self) -> None:
        for link in self._links:
            await link.close()


@asynccontextmanager
async def agent_world(folder: Path, settings: Sequence[str] = (), **more: Any) -> AsyncIterator[AgentWorld]:
    """The host, until the block ends; ``settings`` are lines of its sshd_config."""
    command = [sys.executable, "-S", fake_agent.__file__, str(folder)]
    with Sshd(folder / "sshd", settings=[*settings, PLAIN], **{"command": command, **more}) as sshd:
        made = AgentWorld(folder, sshd)
        try:
            yield made
        finally:
            await made.end()


@contextlib.contextmanager
def stopped(pid: int) -> Any:
    """The process hangs for the block, as by SIGSTOP, and is killed afterwards: nobody else would."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
