"""A Route 53 endpoint on loopback with one zone, ports to it, and credentials that are nobody's.

Everything goes through ``failed``, so that no error anywhere tells a secret.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from failover.errors import RecordError
from failover.host import RealHost
from failover.lab.httpport import HttpPort, Reply, Request
from failover.lab.names import ANY_PORT
from failover.lab.route53 import Pace, Route53
from failover.lab.zone import LiveZone, RecordSet, Zone, record
from failover.model import Change, Record, Route53Zone, RRset, record_type
from failover.records.route53 import Route53Port

ANSWER = 60.0  # seconds; generous: what answers at all answers within
ZONE = "Z0LAB"
NAME = "bp.example.test."
MAIN, BACKUP = "192.0.2.1", "192.0.2.2"
TARGETS = {"main": MAIN, "backup": BACKUP}
AT_ONCE = Pace(insync=0.0)
KEY, SECRET, TOKEN = "the-access-key-of-the-lab", "s3cr3t/of/the+lab/that/nobody/may/see", "t0ken+of/the/lab=="

E = TypeVar("E", bound=RecordError)

_open: list[Route53Port] = []


def isolated(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let AWS tools see the lab's credentials, and nothing of the machine's; and ask nobody beyond loopback."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "BOTO", "REQUESTS_CA")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "aws-credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


def record_of(targets: dict[str, str], url: str = "", name: str = NAME, profile: str | None = None) -> Record:
    return Record(name, name, targets, Route53Zone(ZONE, profile, url or None))


def port_to(
    url: str, targets: dict[str, str] | None = None, name: str = NAME, profile: str | None = None
) -> Route53Port:
    """A port to an endpoint."""
    made = record_of(targets or TARGETS, url, name, profile)
    assert isinstance(made.provider, Route53Zone)
    _open.append(Route53Port(made, made.provider, RealHost()))
    return _open[-1]


async def close_all() -> None:
    """Close every port that was made."""
    while _open:
        await _open.pop().close()


@dataclass
class World:
    """The lab's endpoint and its zone."""

    aws: Route53
    live: LiveZone

    def port(self, targets: dict[str, str] | None = None, name: str = NAME, profile: str | None = None) -> Route53Port:
        """A port to the endpoint."""
        return port_to(self.aws.url, targets, name, profile)

    def holds(self, name: str = NAME) -> list[tuple[str, tuple[str, ...], int | None]]:
        """What stands at a name: type, values, TTL."""
        return [(s.type, s.values, s.ttl) for s in self.live.zone.at(name)]


@asynccontextmanager
async def world(*sets: RecordSet, pace: Pace = AT_ONCE) -> AsyncIterator[World]:
    """An endpoint whose zone has these sets; without any, the record points at main."""
    live = LiveZone(Zone.new("example.test.", ZONE, sets or [record(NAME, MAIN)]))
    async with Route53([live], pace=pace) as aws:
        yield World(aws, live)


@asynccontextmanager
async def answering(handle: Callable[[Request], Reply]) -> AsyncIterator[str]:
    """The URL of an endpoint that answers each request with what ``handle`` makes of it."""

    async def handled(request: Request) -> Reply:
        return handle(request)

    port = HttpPort("other", ANY_PORT, handled)
    await port.listen()
    try:
        yield f"http://{port.address}"
    finally:
        await port.close()


def xml(root: str, body: str, status: int = 200, **headers: str) -> Reply:
    """A document as Route 53 sends them."""
    text = f'<?xml version="1.0"?>\n<{root} xmlns="https://route53.amazonaws.com/doc/2013-04-01/">{body}</{root}>'
    return Reply(status, text.encode(), {"Content-Type": "text/xml", **headers})


def error_xml(code: str, message: str = "", status: int = 400, **headers: str) -> Reply:
    """An error as Route 53 sends them."""
    inner = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return xml("ErrorResponse", f"{inner}<RequestId>1</RequestId>", status, **headers)


def listing_xml(*sets: str) -> Reply:
    """A listing of these sets, each the XML inside a ResourceRecordSet."""
    inner = "".join(f"<ResourceRecordSet>{one}</ResourceRecordSet>" for one in sets)
    rest = "<IsTruncated>false</IsTruncated><MaxItems>20</MaxItems>"
    return xml("ListResourceRecordSetsResponse", f"<ResourceRecordSets>{inner}</ResourceRecordSets>{rest}")


def a(*values: str, ttl: int = 60) -> RRset:
    """An A, AAAA or CNAME set, by its first value."""
    return RRset(record_type(values[0]), tuple(sorted(values)), ttl)


SWAP = Change(a(MAIN), a(BACKUP))


async def changed(port: Route53Port, change: Change = SWAP, timeout: float = ANSWER) -> str | None:
    """Make a change that stays valid."""
    return await port.change(change, timeout, lambda: True)


async def failed(attempt: Awaitable[Any], kind: type[E], *words: str) -> E:
    """The error of an attempt: of exactly this kind, with these words in it or its mend, and without a secret."""
    with pytest.raises(RecordError) as caught:
        await attempt
    error = caught.value
    whole = everything(error)
    for secret in (KEY, SECRET, TOKEN, "Signature=", "Authorization"):
        assert secret not in whole
    assert "\n" not in str(error) + error.mend
    assert isinstance(error, kind), whole
    for word in words:
        told = f"{error} | {error.mend}"
        assert word in told
    assert error.mend
    return error


def everything(error: BaseException | None) -> str:
    """All that can be printed of an error, and of what it came from."""
    told = []
    while error is not None:
        told += [str(error), repr(error), str(vars(error)), *traceback.format_exception(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(told)
