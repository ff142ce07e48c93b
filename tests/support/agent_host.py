"""A producer's host in a folder: keys, a configuration, a fake node, and the agent as sshd would run it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time  # noqa: TID251 - these are real processes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

AGENT = Path(__file__).parents[2] / "failover" / "agent.py"
FAKE = Path(__file__).parent / "fake_cardano_node.py"
FILES = {"kes": "kes.skey", "vrf": "vrf.skey", "certificate": "node.cert"}
PATIENCE = 30.0  # seconds that a test waits for what must come
Seen = TypeVar("Seen")


def until(look: Callable[[], Seen | None], what: str) -> Seen:
    """What ``look`` shows, once it shows something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"not seen: {what}")


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def cbor(value: Any) -> bytes:
    """The CBOR of numbers, bytes and lists."""

    def head(major: int, number: int) -> bytes:
        for limit, info, size in ((24, number, 0), (2**8, 24, 1), (2**16, 25, 2), (2**32, 26, 4), (2**64, 27, 8)):
            if number < limit:
                return bytes([major << 5 | info]) + (number.to_bytes(size, "big") if size else b"")
        raise ValueError(number)

    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    return head(4, len(value)) + b"".join(map(cbor, value))


def envelope(kind: str, content: Any) -> str:
    return json.dumps({"type": kind, "description": "", "cborHex": cbor(content).hex()})


COLD = hashlib.blake2b(b"cold", digest_size=32).digest()
POOL_ID = hashlib.blake2b(COLD, digest_size=28).hexdigest()


def key_set(counter: int, *, period: int = 90, cold: bytes = COLD) -> dict[str, str]:
    """A KES key, a VRF key and a certificate that belong together, as cardano-cli writes them."""
    kes = b"".join(hashlib.blake2b(f"kes {counter} {n}".encode()).digest() for n in range(10))[:608]
    hot = hashlib.blake2b(kes[-64:], digest_size=32).digest()
    return {
        "kes": envelope("KesSigningKey_ed25519_kes_2^6", kes),
        "vrf": envelope("VrfSigningKey_PraosVRF", hashlib.blake2b(b"vrf").digest()),
        "certificate": envelope("NodeOperationalCertificate", [[hot, counter, period, bytes(64)], cold]),
    }


class AgentHost:
    """One producer's host. ``close`` ends what it started."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.python = sys.executable
        self.keys = folder / "keys"
        self.state = folder / "state"
        self.staging = folder / "staging"
        self.log = folder / "node.log"
        self.pidfile = folder / "node.pid"
        self.replay = folder / "replaying"
        for made in (self.keys, self.staging):
            made.mkdir(mode=0o700)
        self.port, self.metrics = free_port(), free_port()
        self.config = folder / "agent.json"
        self.document: dict[str, Any] = {
            "pool": "EXMPL",
            "pool_id": POOL_ID,
            "state": str(self.state),
            "staging": str(self.staging),
            "node": {
                "runtime": {"pidfile": str(self.pidfile)},
                "port": self.port,
                "metrics": f"http://127.0.0.1:{self.metrics}/metrics",
                "credentials": {role: str(self.keys / name) for role, name in FILES.items()},
                "owner": str(os.geteuid()),
                "slot": 0.1,
            },
            "gates": ["forging"],
        }
        self.document.update(changes)
        self.write_config()
        self.write_keys(self.keys, key_set(7))
        self.program = folder / "cardano-node"
        self.program.write_text(f"#!{sys.executable}\n{FAKE.read_text()}")
        self.program.chmod(0o755)
        self.started: list[subprocess.Popen[bytes]] = []

    def write_config(self) -> None:
        self.config.write_text(json.dumps(self.document))
        self.config.chmod(0o600)

    @staticmethod
    def write_keys(folder: Path, contents: dict[str, str], *, mode: int = 0o600) -> None:
        for role, text in contents.items():
            path = folder / FILES[role]
            path.unlink(missing_ok=True)
            path.write_text(text)
            path.chmod(mode)

    # -------- the node

    def command(self, *flags: str) -> list[str]:
        words = [str(self.program), "run", "--port", str(self.port), "--metrics-port", str(self.metrics)]
        words += ["--log", str(self.log), "--replay", str(self.replay), "--slot", "0.05"]
        for role, option in (
            ("kes", "--shelley-kes-key"),
            ("vrf", "--shelley-vrf-key"),
            ("certificate", "--shelley-operational-certificate"),
        ):
            words += [option, str(self.keys / FILES[role])]
        return [*words, *flags]

    def run_node(self, *flags: str, by_agent: bool = False, wait: bool = True) -> subprocess.Popen[bytes]:
        """Start the node, by the agent's ``start`` or directly, and write its pidfile."""
        words = self.command(*flags)
        if by_agent:
            words = [*self.agent("start", "--", *words)]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.started.append(process)
        self.pidfile.write_text(f"{process.pid}\n")
        if wait:
            until(lambda: f"{process.pid} listens" in self.said(), "the node listens")
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
        self.started.remove(process)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def forging_since(self) -> list[str]:
        """What the node noted, without its process numbers."""
        return [line.partition(" ")[2] for line in self.said().splitlines()]

    # -------- the agent

    def agent(self, *words: str) -> list[str]:
        return [self.python, "-B", str(AGENT), "--config", str(self.config), *words]

    def raw(self, data: bytes, *before: str) -> list[dict[str, Any]]:
        """What ``serve`` answers to these bytes."""
        ran = subprocess.run([*before, *self.agent("serve")], input=data, capture_output=True, timeout=90, check=False)
        assert ran.stderr == b"", ran.stderr.decode()
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def ask(self, verb: str, **more: Any) -> dict[str, Any]:
        """One request and its answer."""
        request = {"v": 1, "verb": verb, "pool": "EXMPL", "within": 10, **more}
        (answer,) = self.raw(json.dumps(request).encode() + b"\n")
        return answer

    def order(self, verb: str, number: int = 1, **more: Any) -> dict[str, Any]:
        """Open or close the forging gate."""
        return self.ask(verb, gate="forging", generation=number, term=1, reason="a test", **more)

    def gate(self) -> dict[str, Any]:
        """The forging gate as ``status`` has it."""
        answer = self.ask("status")
        assert answer["ok"], answer
        gate: dict[str, Any] = answer["gates"]["forging"]
        return gate

    def cli(self, *words: str, status: int = 0) -> str:
        ran = subprocess.run(self.agent(*words), capture_output=True, text=True, timeout=90, check=False)
        assert ran.returncode == status, ran.stderr + ran.stdout
        return ran.stdout + ran.stderr

    # -------- files

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    @property
    def live(self) -> list[str]:
        return self.names(self.keys)

    @property
    def aside(self) -> list[str]:
        return self.names(self.state / "put-aside" / "current")

    def close(self) -> None:
        for process in list(self.started):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            self.stop(process)


@contextlib.contextmanager
def agent_host(folder: Path, **changes: Any) -> Iterator[AgentHost]:
    host = AgentHost(folder, **changes)
    try:
        yield host
    finally:
        host.close()


def words_of(findings: Sequence[dict[str, str]]) -> str:
    return " | ".join(f"{one['what']} ({one['mend']})" for one in findings)
