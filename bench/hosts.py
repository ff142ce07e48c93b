"""Hosts on loopback for bench/agents.py: each a real sshd that runs the real agent, and the lab's cardano-node."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from failover import agent as program
from failover.host import RealHost
from failover.lab import credentials, process
from failover.lab.haproxy import LabError, free_ports
from failover.model import Address, Agent

HOST = RealHost()
POOL = "EXMPL"
MAGIC = 42
WAIT = 20.0  # seconds until an sshd or a node listens, at most
POLL = 0.02
PRIVSEP = Path("/run/sshd")  # compiled into sshd
AGENT = [sys.executable, "-I", str(program.__file__)]


def installed() -> str | None:
    """What is missing for these hosts; None when nothing is."""
    missing = [name for name in ("sshd", "ssh-keygen", "ss") if _program(name) is None]
    return f"not installed: {', '.join(missing)} (apt-get install openssh-server iproute2)" if missing else None


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


@dataclass(frozen=True, slots=True)
class Keys:
    """The controller's key, for all hosts."""

    private: Path
    public: str

    @classmethod
    def made(cls, folder: Path) -> Keys:
        """A new pair in ``folder``. Raises LabError."""
        return cls(folder / "client", keygen(folder / "client"))


def keygen(path: Path) -> str:
    """Make a pair; the public half. Raises LabError."""
    if (missing := installed()) is not None:
        raise LabError(missing)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=WAIT)
    return path.with_name(f"{path.name}.pub").read_text("ascii").strip()


@asynccontextmanager
async def sshd(folder: Path, name: str, keys: Keys, command: Sequence[str]) -> AsyncIterator[Agent]:
    """An sshd that runs ``command`` for whoever comes with the key, as an agent of the pool's file. Raises LabError."""
    port, host_key, words = _configured(folder, keys, command)
    with (folder / "sshd.log").open("wb") as log:
        running = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: ASYNC220
    address = Address("127.0.0.1", port)
    try:
        await listening(address, f"sshd of {name}")
        user = pwd.getpwuid(os.getuid()).pw_name
        yield Agent(name, address, keys.private, user=user, host_key=host_key)
    finally:
        running.terminate()
        running.wait(WAIT)


def _configured(folder: Path, keys: Keys, command: Sequence[str]) -> tuple[int, str, list[str]]:
    """Write what it needs; its port, its host key, and the command that starts it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.getuid() == 0:
        PRIVSEP.mkdir(mode=0o755, exist_ok=True)
    (port,) = free_ports(1)
    host_key = keygen(folder / "host")
    forced = shlex.join(command).replace("\\", "\\\\").replace('"', '\\"')
    (folder / "authorized_keys").write_text(f'restrict,command="{forced}" {keys.public}\n')
    (folder / "authorized_keys").chmod(0o600)
    settings = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host'}",
        f"PidFile {folder / 'pid'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        "StrictModes no",
        "UsePAM no",
        "UseDNS no",
    ]
    (folder / "sshd_config").write_text("\n".join(settings) + "\n")
    return port, host_key, _with_us([_program("sshd") or "sshd", "-D", "-e", "-f", str(folder / "sshd_config")])


def _with_us(words: list[str]) -> list[str]:
    """Should this process be killed, the kernel ends them too."""
    return [*(["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []), *words]


async def listening(address: Address, what: str) -> None:
    """Wait until somebody does there. Raises LabError after WAIT."""
    began = HOST.now()
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.close()
            return
        if HOST.now().since(began) > WAIT:
            raise LabError(f"{what} does not listen at {address} after {WAIT:g} s")
        await HOST.sleep(POLL)


@dataclass(frozen=True, slots=True)
class Place:
    """A host that runs: its agent, where its node listens, and what the node notes."""

    agent: Agent
    address: Address
    folder: Path

    @property
    def config(self) -> Path:
        """The agent's configuration."""
        return self.folder / "agent.json"

    @property
    def log(self) -> str:
        """What the node wrote."""
        return (self.folder / "node.log").read_text("utf-8", "replace")


@asynccontextmanager
async def place(
    folder: Path, name: str, keys: Keys, *, slot: float, gate: bool, peers: Sequence[Address] = ()
) -> AsyncIterator[Place]:
    """A producer's host (``gate``: with a forging gate), or a relay's that dials ``peers``; slots in seconds."""
    home = folder / name
    home.mkdir(mode=0o700)
    port, metrics = free_ports(2)
    words, node = _node(home, name, port, metrics, slot, gate)
    words += [word for peer in peers for word in ("--lab-peer", str(peer))]
    document = {"pool": POOL, "state": str(home / "state"), "node": node, **({"gates": ["forging"]} if gate else {})}
    (home / "agent.json").write_text(json.dumps(document))
    (home / "agent.json").chmod(0o600)
    within = [*AGENT, "--config", str(home / "agent.json"), "start", "--"] if gate else []
    child = process.Child("node", "failover.lab.cardano", words, home, within)
    async with sshd(home / "ssh", name, keys, [*AGENT, "--config", str(home / "agent.json"), "serve"]) as agent:
        try:
            await child.start()
            await listening(Address("127.0.0.1", port), name)
            yield Place(agent, Address("127.0.0.1", port), home)
        finally:
            await child.stop()


def _node(
    home: Path, name: str, port: int, metrics: int, slot: float, gate: bool
) -> tuple[list[str], dict[str, object]]:
    """The node's command line, and what the agent knows of it."""
    (home / "topology.json").write_text('{"localRoots": [], "publicRoots": []}')
    (home / "config.json").write_text("{}")
    node: dict[str, object] = {"runtime": {"pidfile": str(home / "node.pid")}, "port": port, "slot": slot}
    node["metrics"] = f"http://127.0.0.1:{metrics}/metrics"
    words = ["run", "--topology", str(home / "topology.json"), "--config", str(home / "config.json")]
    words += ["--host-addr", "127.0.0.1", "--port", str(port), "--lab-name", name, "--lab-slot-seconds", str(slot)]
    words += ["--lab-pidfile", str(home / "node.pid"), "--lab-metrics", str(metrics), "--lab-magic", str(MAGIC)]
    words += ["--lab-log", str(home / "forged.jsonl"), "--lab-scale", "20"]
    if gate:
        (home / "keys").mkdir(mode=0o700)
        paths = credentials.write(home / "keys", counter=7, kes_period=0, pool_seed=POOL)
        words += ["--shelley-kes-key", str(paths.kes), "--shelley-vrf-key", str(paths.vrf)]
        words += ["--shelley-operational-certificate", str(paths.certificate)]
        node["credentials"] = {"kes": str(paths.kes), "vrf": str(paths.vrf), "certificate": str(paths.certificate)}
        node["owner"] = str(os.geteuid())
    return words, node
