"""What the tests of the firewall gate and of relays' sessions share: programs that listen and dial on hosts."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from netns import WAIT, Host

from failover import agent

PEER = str(Path(__file__).with_name("tcp_peer.py"))


def inside(host: Host) -> agent.Run:
    """The agent's way of running commands, on this host."""

    def run(args: Sequence[str], timeout: float, input: str | None = None) -> agent.Ran:  # noqa: A002 - as its own
        return agent.run(host.command(args), timeout, input)

    return run


def _env(user: int) -> dict[str, str]:
    return {**os.environ, "AS_USER": str(user) if user else ""}


def listen(host: Host, port: int, user: int = 0) -> int:
    """Somebody listens and echoes, from now on; the process's number."""
    started = host.popen([sys.executable, "-S", PEER, "listen", str(port)], env=_env(user))
    host.until_listening(port)
    return started.pid


def attempt(host: Host, address: str, port: int, user: int = 0, local: int = 0) -> str:
    """How a new connection fares: ok, refused or silent."""
    args = ["env", f"AS_USER={user or ''}", sys.executable, "-S", PEER, "try", str(local), address, str(port)]
    return host.run(args).stdout.strip()


class Dialled:
    """A session that a program on a host holds."""

    def __init__(self, host: Host, address: str, port: int, user: int = 0, local: int = 0) -> None:
        args = [sys.executable, "-S", PEER, "dial", str(local), address, str(port)]
        pipe = subprocess.PIPE
        self.process = host.popen(args, stdin=pipe, stdout=pipe, env=_env(user))
        assert self._says() == "up", f"{host} could not dial {address}:{port}"

    def _says(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT)
        return self.process.stdout.readline().strip() if ready else "nothing"

    def ask(self) -> None:
        """Let this end send a byte."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    @property
    def works(self) -> bool:
        """Whether a byte comes back."""
        self.ask()
        return self._says() == "here"

    @property
    def lost(self) -> bool:
        """Whether this end heard that the session was cut."""
        return self._says() == "lost"
