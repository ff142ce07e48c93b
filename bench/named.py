"""BIND on loopback with one zone that takes dynamic updates: Debian's named, as a process of its own."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from bench import programs
from bench.signpost import BARE, NAME, TARGETS, TTL, ZONE
from bench.steering import until
from failover.lab.haproxy import LabError, free_ports
from failover.model import Address, Rfc2136Zone

KEY_NAME = "bench."
ALGORITHM = "hmac-sha256"
PATHS = "/usr/sbin:/sbin:/usr/local/sbin"  # where named is, and where a user does not look
PATIENCE = 1.0  # seconds for one question


def installed() -> str | None:
    """None where BIND and nsupdate are, else what is missing."""
    missing = [name for name in ("named", "nsupdate") if _found(name) is None]
    return f"{', '.join(missing)}: not installed (apt-get install bind9 bind9-dnsutils)" if missing else None


def _found(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=PATHS)


@dataclass(frozen=True, slots=True)
class Named:
    """A running server, and the zone as the controller's record names it."""

    provider: Rfc2136Zone
    key_file: Path

    @property
    def address(self) -> Address:
        """Where it listens, UDP and TCP."""
        return self.provider.server


@asynccontextmanager
async def named(folder: Path) -> AsyncIterator[Named]:
    """Run it in ``folder`` while the block lasts. Raises LabError."""
    missing = installed()
    if missing is not None:
        raise LabError(missing, "apt-get install --no-install-recommends bind9 bind9-dnsutils")
    address, secret = Address("127.0.0.1", free_ports(1)[0]), base64.b64encode(os.urandom(32)).decode()
    key = f'key "{KEY_NAME}" {{ algorithm {ALGORITHM}; secret "{secret}"; }};\n'
    key_file, config, log = folder / "bench.key", folder / "named.conf", folder / "named.log"
    key_file.touch(0o600)
    key_file.write_text(key, encoding="ascii")
    config.write_text(key + _options(folder, address), encoding="utf-8")
    (folder / "zone").write_text(_zone(), encoding="ascii")
    with programs.running([str(_found("named")), "-g", "-n", "1", "-c", str(config)], dict(os.environ), log):
        await until(lambda: _answers(address), f"named answers at {address}; its log is {log}", poll=0.05)
        yield Named(Rfc2136Zone(address, ZONE, KEY_NAME, secret, ALGORITHM), key_file)


def _options(folder: Path, address: Address) -> str:
    grants = " ".join(f"grant {KEY_NAME} name {name} A AAAA CNAME;" for name in (NAME, BARE))
    return f"""
options {{
    directory "{folder}"; pid-file none; lock-file none;
    listen-on port {address.port} {{ {address.host}; }}; listen-on-v6 {{ none; }}; query-source address 127.0.0.1;
    recursion no; dnssec-validation no; empty-zones-enable no; max-cache-size 2m; notify no;
}};
controls {{ }};
zone "{ZONE}" {{ type primary; file "zone"; update-policy {{ {grants} }}; }};
"""


def _zone() -> str:
    lines = [f"$ORIGIN {ZONE}", f"$TTL {TTL}", f"@ SOA ns1 hostmaster 1 3600 600 86400 {TTL}", "@ NS ns1"]
    names = [f"{name} A {TARGETS['main']}" for name in (NAME, BARE)]
    return "\n".join([*lines, "ns1 A 127.0.0.1", *names]) + "\n"


def _answers(address: Address) -> bool:
    try:
        answer = dns.query.udp(dns.message.make_query(ZONE, "SOA"), address.host, PATIENCE, address.port)
    except (OSError, dns.exception.DNSException):
        return False
    return bool(answer.answer)
