"""A Route 53 endpoint on loopback: the API that boto3 speaks, with Amazon's rules and limits, and faults on demand.

``Route53`` runs inside a program; ``python -m failover.lab.route53`` runs one as a process of its own, together with
the authoritative DNS servers of its zones. Signatures are not verified, but a request must carry one, and its date is
compared with the clock. Sources: botocore's model of the service; its developer guide for throttling (burst 50, 10 a
second, an account) and for one request at a time in a zone.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import shlex
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dns.exception

from failover.host import RealHost
from failover.lab import commands, control, process, route53_xml
from failover.lab.commands import Command
from failover.lab.haproxy import LabError
from failover.lab.httpport import Delivery, HttpPort, Reply, Request
from failover.lab.names import ANY_PORT, NameServer
from failover.lab.node import parse_address
from failover.lab.route53_xml import InputRefused
from failover.lab.zone import NAMESERVERS, BatchRefused, LiveZone, RecordSet, Zone, canonical, dns_name, record
from failover.model import Address
from failover.ports import Host

ACCOUNT = "123456789012"
MOST_PAGE = 300  # sets in one answer
MOST_CHANGES = 10_000  # that are remembered
MOST_CALLS = 1000  # that are remembered
MOST_ZONES = 100
SKEW = 300.0  # seconds that a request's date may be off
DATE = "%Y%m%dT%H%M%SZ"
PREFIX = "/2013-04-01"

_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/,]+)/\d{8}/[^/]+/route53/aws4_request,", re.ASCII)

# What Amazon says beside a code, and with which status; for other codes, and where nothing is said here, 400.
SAID: Mapping[str, tuple[int, str]] = {
    "MissingAuthenticationToken": (403, "Missing Authentication Token"),
    "IncompleteSignature": (400, "Authorization header requires 'Credential' parameter."),
    "InvalidClientTokenId": (403, "The security token included in the request is invalid."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method. Consult the service documentation for details.",
    ),
    "ExpiredToken": (403, "The security token included in the request is expired"),
    "RequestExpired": (400, "Request has expired."),
    "AccessDenied": (403, ""),  # who, what and on which resource
    "Throttling": (400, "Rate exceeded"),
    "ThrottlingException": (400, "Rate exceeded"),
    "PriorRequestNotComplete": (
        400,
        "The request was rejected because Route 53 was still processing a prior request.",
    ),
    "NoSuchHostedZone": (404, "No hosted zone found with ID: {id}"),
    "NoSuchChange": (404, "A change with the specified change ID does not exist."),
    "ServiceUnavailable": (503, "The service is unavailable. Please try again shortly."),
    "InternalFailure": (500, "We encountered an internal error. Please try again."),
}

ACTIONS = ("ListResourceRecordSets", "ChangeResourceRecordSets", "GetChange", "GetHostedZone", "CreateHostedZone")


class Refused(Exception):
    """A request is answered with an error. ``code`` and ``status`` are Amazon's."""

    def __init__(self, code: str, message: str | None = None, status: int | None = None) -> None:
        usual, said = SAID.get(code, (400, f"{code}, as the lab was told"))
        super().__init__(said if message is None else message)
        self.code = code
        self.status = usual if status is None else status


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, and how often one may ask. Seconds; requests; requests a second."""

    insync: float = 60.0  # from a change to its INSYNC
    processing: float = 0.0  # for which a change keeps its zone from the next one
    burst: float = 50.0
    rate: float = 10.0


@dataclass(frozen=True, slots=True)
class Faults:
    """How the endpoint misbehaves at present; as it stands here, not at all.

    ``delay`` passes before a request is carried out, whether or not the client still waits. ``rejected`` has error
    codes by access key, ``*`` for every key. ``only`` is the action that hang, dribble, cut, half, delay and refuse
    are for; empty: all.
    """

    only: str = ""
    hang: bool = False
    dribble: float = 0.0
    cut: bool = False
    half: bool = False
    delay: float = 0.0
    refuse: str = ""
    rejected: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    skew: float = 0.0  # seconds that its clock is ahead
    never_insync: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One request that came: when (the host's clock), what, and the error's code, empty where it was carried out."""

    at: float
    action: str
    code: str


@dataclass(frozen=True, slots=True)
class _Submitted:
    at_utc: float
    insync: float  # seconds on the host's clock


def _record(text: str) -> RecordSet:
    """``NAME TTL VALUE...``, the type following from the first value. Raises ValueError."""
    name, ttl, first, *more = shlex.split(text)
    return record(name, first, *more, ttl=commands.ttl(ttl))


def _key_and_code(text: str) -> tuple[str, str]:
    key, code = text.split()
    return key, code


def _action(text: str) -> str:
    if text not in ACTIONS:
        raise ValueError(text)
    return text


COMMANDS: Mapping[str, Command] = {
    "hang": Command("take requests, answer nothing"),
    "dribble": Command("send replies a byte at a time", "SECONDS", commands.seconds),
    "cut": Command("carry requests out, and lose the replies"),
    "half": Command("carry requests out, and lose half of each reply"),
    "delay": Command("wait before carrying a request out", "SECONDS", commands.seconds),
    "refuse": Command("answer everything with this error", "CODE", str, "AccessDenied"),
    "reject": Command(
        "refuse an access key (* for all) with this error", "KEY CODE", _key_and_code, "'* ExpiredToken'"
    ),
    "read-only": Command("permit no changes"),
    "skew": Command("let its clock be ahead", "SECONDS", commands.number, "600"),
    "never-insync": Command("leave every change PENDING"),
    "only": Command("limit hang, dribble, cut, half, delay and refuse", "ACTION", _action, "ChangeResourceRecordSets"),
    "throttle": Command("refuse everything as too much, for a time", "SECONDS", commands.seconds),
    "busy": Command("be processing another request in every zone, for a time", "SECONDS", commands.seconds),
    "insync": Command("from a change to its INSYNC", "SECONDS", commands.seconds),
    "processing": Command("keep a zone after each change from the next one", "SECONDS", commands.seconds),
    "put": Command("another hand sets values", "NAME TTL VALUE...", _record, "'bp.example.test. 60 192.0.2.9'"),
    "remove": Command("another hand removes what is at a name", "NAME", str, "bp.example.test."),
    "interpose": Command("another hand sets values just before the next change", "NAME TTL VALUE...", _record),
    "heal": Command("end all misbehaviour"),
    "state": Command("tell how it is"),
}


class Route53:
    """A Route 53 endpoint for ``zones`` at ``listen`` (port 0: any; ``address`` and ``url`` then tell which).

    ``faults`` and ``pace`` may be set at any time. ``counts`` counts requests by action, ``refused`` by error code,
    ``applied`` the batches that were applied, and ``calls`` has the last requests. ``interpose``, if set, is called
    once, just before the next change is applied.
    """

    def __init__(
        self,
        zones: Sequence[LiveZone],
        listen: Address = ANY_PORT,
        *,
        pace: Pace = Pace(),
        host: Host | None = None,
    ) -> None:
        self.zones = {live.zone.id: live for live in zones}
        self.pace = pace
        self.counts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.applied = 0
        self.calls: deque[Call] = deque(maxlen=MOST_CALLS)
        self.interpose: Callable[[], None] | None = None
        self._host = host or RealHost()
        self._faults = Faults()
        self._references: dict[str, str] = {}
        self._submitted: dict[str, _Submitted] = {}
        self._busy: dict[str, float] = {}  # until when, by zone
        self._throttled = -math.inf  # until when
        self._tokens = (pace.burst, self._host.now().mono)
        self._port = HttpPort("route53", listen, self._handle, self._host)

    async def __aenter__(self) -> Route53:
        await self._port.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._port.close()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._port.address

    @property
    def url(self) -> str:
        """What clients take as ``endpoint_url``."""
        return f"http://{self.address}"

    @property
    def faults(self) -> Faults:
        """How it misbehaves."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        if not (faults.hang or faults.dribble):
            self._port.let_go()

    def throttle(self, seconds: float) -> None:
        """Refuse everything as too much, for so long."""
        self._throttled = self._host.now().mono + seconds

    def busy(self, seconds: float) -> None:
        """Be processing another client's request in every zone, for so long."""
        self._busy = dict.fromkeys(self.zones, self._host.now().mono + seconds)

    # ------------------------------------------------ what it can be told

    async def tell(self, command: str, value: str | None = None) -> dict[str, Any]:
        """Carry out one of ``COMMANDS``, and tell how the endpoint is then. Raises LabError."""
        given = commands.read(COMMANDS, command, value)
        match command:
            case "throttle":
                self.throttle(given)
            case "busy":
                self.busy(given)
            case "insync" | "processing":
                self.pace = replace(self.pace, **{command: given})
            case "put":
                self._put(given)
            case "interpose":
                self._zone_of(given.name)
                self.interpose = lambda: self._put(given)
            case "remove":
                self._zone_of(given).remove(given)
            case "reject":
                self.faults = replace(self._faults, rejected={**self._faults.rejected, given[0]: given[1]})
            case "heal":
                self.faults, self._throttled, self._busy = Faults(), -math.inf, {}
                self.interpose = None
            case "state":
                pass
            case _:
                change: dict[str, Any] = {command.replace("-", "_"): True if given is None else given}
                self.faults = replace(self._faults, **change)
        return self._state()

    def _put(self, one: RecordSet) -> None:
        self._zone_of(one.name).put(one.name, *one.values, ttl=one.ttl or 0, type=one.type)

    def _zone_of(self, name: str) -> LiveZone:
        return self.zones[_holder([live.zone for live in self.zones.values()], name).id]

    def _state(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "zones": {
                id_: {"name": live.zone.name, "version": live.zone.version, "sets": [str(s) for s in live.zone.sets]}
                for id_, live in self.zones.items()
            },
            "counts": dict(self.counts),
            "refused": dict(self.refused),
            "applied": self.applied,
            "calls": [asdict(call) for call in list(self.calls)[-20:]],
            **asdict(self.pace),
            **asdict(self._faults),
        }

    # ------------------------------------------------ one request

    async def _handle(self, request: Request) -> Reply:
        action, id_ = _route(request)
        self.counts[action] += 1
        faults = self._faults if self._faults.only in ("", action) else Faults()
        if faults.hang:
            self.calls.append(Call(self._host.now().mono, action, "hang"))
            return Reply(delivery=Delivery.NEVER)
        if faults.delay:
            await self._host.sleep(faults.delay)
        number = self._host.new_id()
        try:
            self._admit(request, action, id_, faults.refuse)
            code, reply = "", self._carry_out(action, id_, request)
        except (Refused, InputRefused, BatchRefused) as error:
            code, reply = _told(error, id_, number)
            self.refused[code] += 1
        self.calls.append(Call(self._host.now().mono, action, code))
        delivery = Delivery.CUT if faults.cut else Delivery.HALF if faults.half else Delivery.WHOLE
        headers = {**reply.headers, "Content-Type": "text/xml", "x-amzn-RequestId": number, "Date": self._date()}
        return replace(reply, headers=headers, delivery=delivery, dribble=faults.dribble)

    def _date(self) -> str:
        at = datetime.fromtimestamp(self._host.now().utc + self._faults.skew, UTC)
        return at.strftime("%a, %d %b %Y %H:%M:%S GMT")

    def _admit(self, request: Request, action: str, id_: str, refuse: str) -> None:
        """Who asks, with which right, and how often. Raises Refused."""
        faults = self._faults
        authorization = request.headers.get("authorization")
        if authorization is None:
            raise Refused("MissingAuthenticationToken")
        found = _CREDENTIAL.match(authorization)
        if found is None:
            raise Refused("IncompleteSignature")
        self._judge_date(request.headers.get("x-amz-date", ""))
        code = faults.rejected.get(found[1], faults.rejected.get("*", "")) or refuse
        if not code and faults.read_only and action in ("ChangeResourceRecordSets", "CreateHostedZone"):
            code = "AccessDenied"
        if code == "AccessDenied":
            raise Refused(code, _denied(action, id_))
        if code:
            raise Refused(code)
        if action not in ACTIONS:
            raise Refused("InvalidAction", f"Could not find operation {action}")
        self._take_token()

    def _judge_date(self, date: str) -> None:
        now = self._host.now().utc + self._faults.skew
        try:
            at = datetime.strptime(date, DATE).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise Refused("IncompleteSignature", "Authorization header requires existence of a date.") from None
        if abs(now - at) <= SKEW:
            return
        early, bound = at < now, now - math.copysign(SKEW, now - at)
        spelt = [datetime.fromtimestamp(t, UTC).strftime(DATE) for t in (at, bound, now)]
        said = "Signature expired: {} is now earlier than {} ({} {} 5 min.)" if early else ""
        said = said or "Signature not yet current: {} is still later than {} ({} {} 5 min.)"
        raise Refused("SignatureDoesNotMatch", said.format(*spelt, "-" if early else "+"))

    def _take_token(self) -> None:
        now = self._host.now().mono
        left, then = self._tokens
        left = min(self.pace.burst, left + (now - then) * self.pace.rate)
        if left < 1 or now < self._throttled:
            self._tokens = (left, now)
            raise Refused("Throttling")
        self._tokens = (left - 1, now)

    # ------------------------------------------------ what is asked for

    def _carry_out(self, action: str, id_: str, request: Request) -> Reply:
        if action == "GetChange":
            return Reply(200, self._get_change(id_))
        if action == "CreateHostedZone":
            return self._create_zone(request)
        live = self.zones.get(id_)
        if live is None:
            raise Refused("NoSuchHostedZone")
        if action == "ListResourceRecordSets":
            return Reply(200, _list(live.zone, request.query))
        if action == "GetHostedZone":
            return Reply(200, route53_xml.hosted_zone(live.zone, self._references.get(id_, f"lab-{id_}")))
        return Reply(200, self._change(live, request))

    def _change(self, live: LiveZone, request: Request) -> bytes:
        changes = route53_xml.changes(request.body)
        now, id_ = self._host.now().mono, live.zone.id
        if now < self._busy.get(id_, -math.inf):
            raise Refused("PriorRequestNotComplete")
        interpose, self.interpose = self.interpose, None
        if interpose is not None:
            interpose()
        live.change(changes)
        self.applied += 1
        self._busy[id_] = now + self.pace.processing
        number, at = self._submit()
        return route53_xml.change_info("ChangeResourceRecordSetsResponse", number, "PENDING", at)

    def _submit(self) -> tuple[str, float]:
        """A new change's id, and the Unix time at which it was submitted."""
        if len(self._submitted) >= MOST_CHANGES:
            del self._submitted[next(iter(self._submitted))]
        now = self._host.now()
        number = f"C{self._host.new_id()[:20].upper()}"
        self._submitted[number] = _Submitted(now.utc, now.mono + self.pace.insync)
        return number, now.utc

    def _get_change(self, id_: str) -> bytes:
        submitted = self._submitted.get(id_)
        if submitted is None:
            raise Refused("NoSuchChange")
        done = self._host.now().mono >= submitted.insync and not self._faults.never_insync
        return route53_xml.change_info("GetChangeResponse", id_, "INSYNC" if done else "PENDING", submitted.at_utc)

    def _create_zone(self, request: Request) -> Reply:
        asked = route53_xml.document(request.body, "CreateHostedZoneRequest")
        name, reference = asked.findtext("Name", ""), asked.findtext("CallerReference", "")
        try:
            dns_name(name)
        except dns.exception.DNSException:
            raise Refused("InvalidDomainName", f"Invalid domain name: {name}") from None
        if reference in self._references.values():
            raise Refused("HostedZoneAlreadyExists", f"A hosted zone has already been created with {reference}", 409)
        if len(self.zones) >= MOST_ZONES:
            raise Refused("TooManyHostedZones", "Limits Exceeded: MaximumHostedZones")
        zone = Zone.new(name, f"Z{self._host.new_id()[:20].upper()}")
        self.zones[zone.id] = LiveZone(zone, self._host)
        self._references[zone.id] = reference
        location = {"Location": f"{self.url}{PREFIX}/hostedzone/{zone.id}"}
        return Reply(201, route53_xml.created_zone(zone, reference, *self._submit()), location)


def _route(request: Request) -> tuple[str, str]:
    """The action that a request is for, and the id in its path; for what is none of ours, method and path."""
    parts = request.path.removeprefix(PREFIX).strip("/").split("/")
    if request.path.startswith(PREFIX + "/"):
        match (request.method, *parts):
            case ("GET", "hostedzone", id_, "rrset"):
                return "ListResourceRecordSets", id_
            case ("POST", "hostedzone", id_, "rrset"):
                return "ChangeResourceRecordSets", id_
            case ("GET", "change", id_):
                return "GetChange", id_
            case ("GET", "hostedzone", id_):
                return "GetHostedZone", id_
            case ("POST", "hostedzone"):
                return "CreateHostedZone", ""
    return f"{request.method} {request.path}"[:100], ""


def _told(error: Refused | InputRefused | BatchRefused, id_: str, number: str) -> tuple[str, Reply]:
    """An error's code, and the reply."""
    if isinstance(error, BatchRefused):
        code, status, message = "InvalidChangeBatch", 400, f"[{', '.join(error.messages)}]"
    else:
        code, message = error.code, str(error).replace("{id}", id_)
        status = error.status if isinstance(error, Refused) else 400
    return code, Reply(status, route53_xml.error(code, message, number, status < 500))


def _holder(zones: Iterable[Zone], name: str) -> Zone:
    """The zone that a name is in. Raises LabError."""
    found = [zone for zone in zones if zone.holds(canonical(name))]
    if not found:
        raise LabError(f"{name} is in no zone", "there are: " + ", ".join(zone.name for zone in zones))
    return max(found, key=lambda zone: len(zone.name))


def _denied(action: str, id_: str) -> str:
    kind = "change" if action == "GetChange" else "hostedzone"
    on = f" on resource: arn:aws:route53:::{kind}/{id_}" if id_ else ""
    return (
        f"User: arn:aws:iam::{ACCOUNT}:user/lab is not authorized to perform: route53:{action}{on} "
        f"because no identity-based policy allows the route53:{action} action"
    )


def _list(zone: Zone, query: Mapping[str, str]) -> bytes:
    start = query.get("name", ""), query.get("type", ""), query.get("identifier", "")
    if (start[1] and not start[0]) or (start[2] and not start[1]):
        raise InputRefused("The input is not valid")
    try:
        most = min(MOST_PAGE, int(query.get("maxitems", str(MOST_PAGE))))
    except ValueError:
        most = 0
    if most < 1:
        raise InputRefused(f"Invalid value '{query['maxitems']}' for maxItems")
    return route53_xml.listing(*zone.page(start, most), most)


# ---------------------------------------------------------------- as a process


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """What the process is told when it is started."""
    parser = argparse.ArgumentParser(prog, description="A Route 53 endpoint and its DNS servers, until it is ended.")
    parser.add_argument("--listen", required=True, type=parse_address, metavar="HOST:PORT", help="the HTTP endpoint")
    parser.add_argument("--zone", required=True, action="append", metavar="NAME", help="may be given several times")
    parser.add_argument("--id", required=True, action="append", metavar="ID", help="of each zone, in the same order")
    parser.add_argument("--dns", default=[], action="append", type=parse_address, metavar="HOST:PORT")
    parser.add_argument("--nameserver", action="append", metavar="NAME", help="of the zones' NS sets")
    parser.add_argument("--record", default=[], action="append", metavar="'NAME TTL VALUE...'")
    parser.add_argument("--insync", type=commands.seconds, default=60.0, metavar="SECONDS", help="at scale 1")
    parser.add_argument("--lag", type=commands.seconds, default=30.0, metavar="SECONDS", help="of DNS, at scale 1")
    parser.add_argument("--processing", type=commands.seconds, default=0.0, metavar="SECONDS", help="at scale 1")
    parser.add_argument("--burst", type=commands.seconds, default=50.0, metavar="REQUESTS", help="before throttling")
    parser.add_argument("--rate", type=commands.seconds, default=10.0, metavar="REQUESTS", help="a second, at scale 1")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times faster than in life it does it all")
    parser.add_argument("--control", type=Path, metavar="PATH", help="a unix socket where it can be told things")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent process ends")
    return parser


def _zones(given: argparse.Namespace) -> list[LiveZone]:
    """The zones that are asked for, with their records. Raises LabError."""
    if len(given.zone) != len(given.id) or len(set(given.id)) != len(given.id):
        raise LabError("each --zone needs an --id of its own", "give --zone and --id equally often")
    servers = given.nameserver or NAMESERVERS
    zones = {id_: Zone.new(name, id_, (), servers) for name, id_ in zip(given.zone, given.id, strict=True)}
    sets: dict[str, list[RecordSet]] = {id_: [] for id_ in zones}
    for text in given.record:
        try:
            one = _record(text)
        except ValueError:
            raise LabError(f"--record: {text!r} is no set", "write 'bp.example.test. 60 192.0.2.1'") from None
        sets[_holder(zones.values(), one.name).id].append(one)
    return [LiveZone(Zone.new(zone.name, id_, sets[id_], servers)) for id_, zone in zones.items()]


async def run(given: argparse.Namespace) -> None:
    """Run the endpoint and its DNS servers until SIGTERM or SIGINT. Raises LabError when something cannot listen."""
    ended = asyncio.Event()
    for end in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(end, ended.set)
    scale = given.scale
    pace = Pace(given.insync / scale, given.processing / scale, given.burst, given.rate * scale)
    zones = _zones(given)
    async with AsyncExitStack() as stack:
        parts: dict[str, Route53 | NameServer] = {
            "route53": await stack.enter_async_context(Route53(zones, given.listen, pace=pace))
        }
        for number, address in enumerate(given.dns, 1):
            server = NameServer(zones, address, lag=given.lag / scale, name=f"ns{number}")
            parts[server.name] = await stack.enter_async_context(server)

        async def handle(question: Mapping[str, Any]) -> Mapping[str, Any]:
            part, value = str(question.get("to") or "route53"), question.get("value")
            if part not in parts:
                raise LabError(f"no part {part!r}", "there are " + ", ".join(parts))
            return await parts[part].tell(question["command"], None if value is None else str(value))

        if given.control:
            listener = await control.serve(given.control, handle)
            stack.callback(listener.close)
        process.ready()
        await ended.wait()


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The process's exit status."""
    given = process.given(arguments(prog), argv)
    try:
        asyncio.run(run(given))
    except LabError as error:
        raise SystemExit(f"{error}: {error.mend}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
