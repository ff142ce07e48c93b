"""A real sshd on loopback, as the user who runs the tests: own host key, own login key, one forced command.

``with Sshd(folder, command=[...]) as sshd``: at ``sshd.address`` until the block ends, known by ``sshd.host_key``;
``sshd.client_key`` logs in as ``sshd.user``. ``sshd.agent()`` is all of that as the configuration has it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from failover.model import Address, Agent

START = 10.0  # seconds until it listens, at most
POLL = 0.02  # seconds
PRIVSEP = Path("/run/sshd")  # compiled into sshd; its package's own start makes it


def require_sshd() -> str:
    """Its path. Skips where it is missing; with FAILOVER_REQUIRE=all that fails."""
    path = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if path is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd: apt-get install openssh-server")
    return path


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "", *more: str) -> str:
    """Make a key pair at ``path``; the public half as sshd writes it, without the comment."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", *more, "-f", str(path)]
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, timeout=30)
    return path.with_name(path.name + ".pub").read_text("ascii").strip()


def fingerprint(public: Path) -> str:
    """``SHA256:...`` of a public key's file, as ssh-keygen says."""
    said = subprocess.run(["ssh-keygen", "-lf", str(public)], check=True, capture_output=True, text=True, timeout=30)
    return said.stdout.split()[1]


def hash_names(known_hosts: Path) -> None:
    """Hash the names in a known_hosts file, as HashKnownHosts does."""
    words = ["ssh-keygen", "-q", "-H", "-f", str(known_hosts)]
    subprocess.run(words, check=True, capture_output=True, timeout=30)


def pause(seconds: float = POLL) -> None:
    """Wait a little, for somebody else's process; callers bound how often."""
    select.select([], [], [], seconds)


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``, itself first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int((entry / "stat").read_text().rpartition(")")[2].split()[1]), []).append(
                    int(entry.name)
                )
    found = [pid]
    for one in found:
        found += sorted(parents.get(one, []))
    return found


@dataclass
class Sshd:
    """One sshd. ``settings`` are lines of sshd_config, before the usual ones; ``within`` words before the command.

    ``authorized`` is what stands before the key in authorized_keys (None: the forced command and ``restrict``).
    """

    folder: Path
    command: Sequence[str]
    settings: Sequence[str] = ()
    within: Sequence[str] = ()
    listen: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    host_key_kind: str = "ed25519"
    authorized: str | None = None
    address: Address = field(init=False)
    host_key: str = field(init=False)
    client_key: Path = field(init=False)
    user: str = field(init=False)

    def __enter__(self) -> Self:
        self._program = require_sshd()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.client_key = self.folder / "client"
        self.public = keygen(self.client_key)
        self.host_key = keygen(self.folder / "host", self.host_key_kind)
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0 and not self.within:
            PRIVSEP.mkdir(mode=0o755, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def agent(self, name: str = "main-host", **changes: object) -> Agent:
        """This one as an agent of the configuration."""
        ours = {"key_file": self.client_key, "user": self.user, "host_key": self.host_key}
        values = {"address": self.address, **ours, **changes}
        return Agent(name, **values)  # type: ignore[arg-type]

    @property
    def fingerprint(self) -> str:
        """The host key's ``SHA256:...``."""
        return fingerprint(self.folder / "host.pub")

    def renew_host_key(self) -> None:
        """Give it another host key, as a host has that was set up anew; takes effect when it is started again."""
        for name in ("host", "host.pub"):
            (self.folder / name).unlink()
        self.host_key = keygen(self.folder / "host", self.host_key_kind)

    def start(self) -> None:
        """Start it, at the port that it had if it had one."""
        for attempt in range(3):
            port = self.port or _free_port(self.listen)
            self._write(port)
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*self.within, self._program, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
            if self._listens(port):
                self.port = port
                self.address = Address(self.listen, port)
                return
            self.kill()
            if attempt == 2:
                break
        pytest.fail(f"sshd did not start: {(self.folder / 'log').read_text()[-1000:]}")

    def processes(self) -> list[int]:
        """It, its connections, and what they run."""
        return descendants(self._process.pid) if self._process is not None else []

    def suspend(self) -> None:
        """Stop all of it, as a host that hangs."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let all of it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End all of it at once."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def _signal(self, number: int) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _write(self, port: int) -> None:
        forced = shlex.join(self.command).replace("\\", "\\\\").replace('"', '\\"')
        before = f'restrict,command="{forced}" ' if self.authorized is None else self.authorized
        keys = self.folder / "authorized_keys"
        keys.write_text(f"{before}{self.public}\n", "utf-8")
        keys.chmod(0o600)
        usual = [
            f"Port {port}",
            f"ListenAddress {self.listen}",
            f"HostKey {self.folder / 'host'}",
            f"AuthorizedKeysFile {keys}",
            f"PidFile {self.folder / 'pid'}",
            "PubkeyAuthentication yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "MaxStartups 100",
            "SetEnv SHLVL=1",  # bash that sshd starts would read an operator's own start files otherwise
        ]
        (self.folder / "sshd_config").write_text("\n".join([*self.settings, *usual]) + "\n", "utf-8")

    def _listens(self, port: int) -> bool:
        for _ in range(int(START / POLL)):
            assert self._process is not None
            if self._process.poll() is not None:
                return False
            if self.within:  # elsewhere: its log is what can be seen from here
                if f"port {port}" in (self.folder / "log").read_text("utf-8", "replace"):
                    return True
            else:
                with contextlib.suppress(OSError), socket.create_connection((self.listen, port), 1.0):
                    return True
            pause()
        return False


def _free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])
