"""What ``failover run`` loads, and with a record also what its ports load: a program that is timed from outside.

``python -m bench.loading [route53 | rfc2136]``: the record's ports are made and its provider is read once, at an
address where nobody listens. Prints which of the heavy libraries are loaded at the end.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import failover.cli.run  # noqa: F401  what is timed
from failover.errors import RecordUnreachable
from failover.host import RealHost
from failover.model import Address, Record, Rfc2136Zone, Route53Zone
from failover.records import record_port, verify_port

NOBODY = Address("127.0.0.1", 1)
PROVIDERS: dict[str, Route53Zone | Rfc2136Zone] = {
    "route53": Route53Zone("Z0BENCH", endpoint_url=f"http://{NOBODY}"),
    "rfc2136": Rfc2136Zone(NOBODY, "bench.test.", "bench.", "YmVuY2g="),
}
HEAVY = ("boto3", "botocore", "dns")
WITHIN = 30.0  # seconds


async def read(provider: Route53Zone | Rfc2136Zone | None) -> None:
    """Ask this provider once."""
    if provider is None:
        return
    record, host = Record("bp.bench.test.", "bp", {"main": "192.0.2.1"}, provider, servers=(NOBODY,)), RealHost()
    port, verifier = record_port(record, host), verify_port(record, host)
    with suppress(RecordUnreachable):
        await port.read(WITHIN)
    await port.close()
    await verifier.close()


if __name__ == "__main__":
    asyncio.run(read(PROVIDERS[sys.argv[1]] if len(sys.argv) > 1 else None))
    print(*(name for name in HEAVY if name in sys.modules))
