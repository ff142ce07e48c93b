"""Configuration files that several tests start from, and what becomes of them.

``AGENT_KEY`` in a text stands for the path of a private key, ``HOST_KEY`` for a host's public one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from failover.config import InvalidConfig, Loaded, load_text

_HOST = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a host").digest())
HOST_KEY = _HOST.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

TWO = """\
pool: EXMPL
network: mainnet
producers:
  - {name: main, address: "10.0.1.10:6000"}
  - {name: backup, address: "10.0.2.10:6000"}
"""
PROXIED = f"""\
{TWO}proxies:
  - {{name: proxy-1, socket: /run/haproxy/admin.sock, backend: producers}}
"""
GATELESS = f"""\
{TWO}records:
  - {{name: bp.example.com, addresses: {{main: 10.0.1.10, backup: 10.0.2.10}}, route53: {{zone: Z0123456789ABC}}}}
fence: {{require: none}}
"""
HOSTED = """\
pool: EXMPL
network: mainnet
agents:
  - {name: bp1, address: "10.0.1.10:22", key_file: AGENT_KEY, host_key: "HOST_KEY"}
  - {name: bp2, address: "10.0.2.10:22", key_file: AGENT_KEY, host_key: "HOST_KEY"}
producers:
  - {name: main, address: "10.0.1.10:6000", agent: bp1, gates: [forging]}
  - {name: backup, address: "10.0.2.10:6000", agent: bp2, gates: [forging]}
"""


def agent_key(folder: Path) -> Path:
    """A private key as ssh-keygen writes it."""
    path = folder / "agent.key"
    path.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh"))
    path.chmod(0o600)
    return path


def with_keys(text: str, key: Path) -> str:
    """The text with both keys in their places."""
    return text.replace("AGENT_KEY", str(key)).replace("HOST_KEY", HOST_KEY)


def accepted(text: str, key: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Loaded:
    """What the loader makes of it; with an agent's ``key`` both keys are put in."""
    return load_text(text if key is None else with_keys(text, key), environ=dict(environ or {}))


def refused(text: str, key: Path | None = None, *, environ: Mapping[str, str] | None = None) -> str:
    """Why the loader refuses it."""
    with pytest.raises(InvalidConfig) as caught:
        accepted(text, key, environ=environ)
    return str(caught.value)
