"""What the world is told of one record: by the servers of its zone, or by the resolvers that the file names.

All servers are asked at the same time and within one deadline (question.py); a silent one costs nobody else anything.
What a server says is reported as it is, and what cannot be read ends in a fault, never in an exception.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from failover.errors import RecordUnreachable
from failover.model import Address, DnsAnswer, Fault, Instant, Record, RecordType, RRset
from failover.ports import Host
from failover.records.question import NoAnswer, ask

DNS_PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")
MOST_RESOLVERS = 3  # resolv.conf(5), MAXNS
MOST_SERVERS = 16  # asked at one look
FINDING = 0.5  # of a look's time, at most, goes into finding the servers
KEPT = 3600.0  # seconds for which servers that were found are not looked for again
KEPT_IN_PART = 60.0  # the same where some of them, or all this time, were not found

_KINDS = {
    RecordType.A: dns.rdatatype.A,
    RecordType.AAAA: dns.rdatatype.AAAA,
    RecordType.CNAME: dns.rdatatype.CNAME,
}
_TYPES = {kind: record_type for record_type, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Server:
    """One server to ask. Where its address (a literal one) is not known, ``lost`` says why."""

    label: str
    address: Address | None
    lost: str = ""


class Verifier:
    """VerifyPort (failover/ports.py) for one record.

    Its ``resolvers`` and ``servers`` are literal addresses. ``resolver`` is where the zone's servers are looked for
    (else at the system's resolvers, /etc/resolv.conf), and ``port`` is where those that were found are asked.
    """

    def __init__(self, record: Record, host: Host, *, resolver: tuple[Address, ...] = (), port: int = DNS_PORT) -> None:
        self._label = record.label
        self._host = host
        self._resolver = resolver
        self._port = port
        self._name = dns.name.from_text(record.name)
        self._types = sorted(record.types)
        self._authoritative = not record.resolvers
        self._configured = record.resolvers or record.servers
        self._servers = tuple(Server(_text(each), each) for each in self._configured[:MOST_SERVERS])
        self._until: Instant | None = None  # when they are looked for again; None: at the next look

    async def look(self, timeout: float) -> tuple[DnsAnswer, ...]:
        """Every server's answer within ``timeout`` seconds, configured servers in that order, others by name.

        Raises RecordUnreachable when no server is known and none can be found.
        """
        start = self._host.now()
        servers = await self._known(start, timeout)
        answers = await asyncio.gather(*(self._told(server, start.after(timeout)) for server in servers))
        if all(answer.fault for answer in answers):
            self._until = None
        return tuple(answers)

    async def close(self) -> None:
        """Nothing to let go of: sockets end with the look that they were opened for."""

    # ------------------------------------------------------------ one server

    async def _told(self, server: Server, end: Instant) -> DnsAnswer:
        """What one server says, of every type that the record may have."""
        if server.address is None:
            return DnsAnswer(server.label, self._authoritative, fault=Fault.SILENT, error=server.lost)
        asked = [self._asked(server.label, server.address, _KINDS[each], end) for each in self._types]
        return _together(await asyncio.gather(*asked))

    async def _asked(self, label: str, address: Address, kind: dns.rdatatype.RdataType, end: Instant) -> DnsAnswer:
        query = dns.message.make_query(self._name, kind, flags=0 if self._authoritative else dns.flags.RD)
        try:
            response = await ask(self._host, query, address, self._left(end))
        except NoAnswer as error:
            return DnsAnswer(label, self._authoritative, fault=Fault.SILENT, error=str(error))
        return _read(label, self._authoritative, self._name, kind, response)

    def _left(self, end: Instant) -> float:
        return max(0.0, end.mono - self._host.now().mono)

    # ------------------------------------------------------------ which servers

    async def _known(self, now: Instant, timeout: float) -> tuple[Server, ...]:
        """The servers to ask: configured, or found within the last hour, or now. Raises RecordUnreachable."""
        if self._configured or (self._until is not None and not self._until.reached(now)):
            return self._servers
        try:
            self._servers = await self._found(now.after(timeout * FINDING))
        except NoAnswer as error:
            if not self._servers:
                raise RecordUnreachable(
                    f"{self._label}: the servers of its zone cannot be found: {error}",
                    f"check the name servers of this machine ({RESOLV_CONF}) and the zone's NS records, or name whom "
                    "to ask: verify.servers, or in a private zone verify.resolvers",
                ) from error
            self._until = now.after(KEPT_IN_PART)
        else:
            self._until = now.after(KEPT if all(server.address for server in self._servers) else KEPT_IN_PART)
        return self._servers

    async def _found(self, end: Instant) -> tuple[Server, ...]:
        """The zone's servers, by the first resolver that knows them within its share of the time. Raises NoAnswer."""
        resolvers = self._resolver or system_resolvers()
        failures = []
        for left, resolver in zip(range(len(resolvers), 0, -1), resolvers, strict=True):
            share = self._host.now().after(self._left(end) / left)
            try:
                return await self._delegated(resolver, share)
            except NoAnswer as error:
                failures.append(f"{_text(resolver)}: {error}")
        raise NoAnswer("; ".join(failures))

    async def _delegated(self, resolver: Address, end: Instant) -> tuple[Server, ...]:
        """Every address of every name server of the zone, as one resolver says. Raises NoAnswer."""
        names = await self._name_servers(resolver, end)
        found = await asyncio.gather(*(self._addresses(resolver, name, end) for name in names))
        servers = sorted((server for each in found for server in each), key=_usefulness)[:MOST_SERVERS]
        if not any(server.address for server in servers):
            raise NoAnswer("; ".join(f"{server.label}: {server.lost}" for server in servers[:4]))
        return tuple(sorted(servers, key=lambda server: server.label))

    async def _name_servers(self, resolver: Address, end: Instant) -> list[str]:
        """The names of the zone's servers: what the nearest name at or above the record's has. Raises NoAnswer."""
        zone = self._name
        while zone != dns.name.root:
            response = await self._recurse(resolver, zone, dns.rdatatype.NS, end)
            rrset = _rrset(response, zone, dns.rdatatype.NS)
            if rrset is not None:
                return sorted(_target(rdata) for rdata in rrset)[:MOST_SERVERS]
            # At the record's own name a resolver also fails when that is a CNAME which leads nowhere: go on above it.
            if zone != self._name and response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                raise NoAnswer(f"answers {_code(response)} when asked for the name servers of {zone}")
            zone = zone.parent()
        raise NoAnswer(f"knows no zone that {self._name} is in")

    async def _addresses(self, resolver: Address, name: str, end: Instant) -> list[Server]:
        """One server for each address of ``name``, or one without an address."""
        hosts: set[str] = set()
        failures: set[str] = set()

        async def asked(kind: dns.rdatatype.RdataType) -> None:
            try:
                response = await self._recurse(resolver, dns.name.from_text(name), kind, end)
            except NoAnswer as error:
                failures.add(str(error))
                return
            held = {_address(rdata) for rrset in _of(response.answer, kind) for rdata in rrset}
            hosts.update(held)
            if not held:
                code = response.rcode()
                failures.add("it has none" if code == dns.rcode.NOERROR else f"answers {_code(response)}")

        await asyncio.gather(asked(dns.rdatatype.A), asked(dns.rdatatype.AAAA))
        if not hosts:
            return [Server(name, None, f"its address cannot be found: {', '.join(sorted(failures))}")]
        return [_labelled(name, Address(each, self._port)) for each in hosts]

    async def _recurse(
        self, resolver: Address, name: dns.name.Name, kind: dns.rdatatype.RdataType, end: Instant
    ) -> dns.message.Message:
        return await ask(self._host, dns.message.make_query(name, kind), resolver, self._left(end))


def system_resolvers(path: Path = RESOLV_CONF) -> tuple[Address, ...]:
    """The name servers of resolv.conf(5), three at most; 127.0.0.1 where it names none or is missing, as in libc."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = [words[1] for words in map(str.split, lines) if len(words) > 1 and words[0] == "nameserver"]
    found = [Address(each, DNS_PORT) for each in named if dns.inet.is_address(each)]
    return tuple(found[:MOST_RESOLVERS]) or (Address("127.0.0.1", DNS_PORT),)


def _usefulness(server: Server) -> tuple[bool, bool, str]:
    """By this a part of too many servers is chosen: IPv4 first, which more machines have, without an address last."""
    return server.address is None, server.address is not None and ":" in server.address.host, server.label


def _labelled(name: str, address: Address) -> Server:
    return Server(f"{name} ({_text(address)})", address)


def _text(address: Address) -> str:
    return address.host if address.port == DNS_PORT else str(address)


# ---------------------------------------------------------------- one answer


def _read(
    label: str, authoritative: bool, name: dns.name.Name, kind: dns.rdatatype.RdataType, response: dns.message.Message
) -> DnsAnswer:
    """What an answer says of ``name``: what it holds of ``kind``, a CNAME instead, nothing, or a fault."""
    fault = _fault(authoritative, name, response)
    if fault is not None:
        return DnsAnswer(label, authoritative, fault=Fault.LAME if authoritative else Fault.SILENT, error=fault)
    # An answer with NXDOMAIN can hold a CNAME: the name that it leads to is then what does not exist.
    rrset = _rrset(response, name, dns.rdatatype.CNAME) or _rrset(response, name, kind)
    if rrset is not None:
        read = _target if rrset.rdtype == dns.rdatatype.CNAME else _address
        values = tuple(sorted(read(rdata) for rdata in rrset))
        return DnsAnswer(label, authoritative, RRset(_TYPES[rrset.rdtype], values, rrset.ttl))
    kept = [min(soa.ttl, rdata.minimum) for soa in _above(response, name, dns.rdatatype.SOA) for rdata in _all(soa)]
    return DnsAnswer(label, authoritative, negative_ttl=max(kept, default=None))


def _fault(authoritative: bool, name: dns.name.Name, response: dns.message.Message) -> str | None:
    """Why this is no answer of the kind that was asked for, in words."""
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return f"answers {_code(response)}"
    refers = bool(_above(response, name, dns.rdatatype.NS)) and not response.answer
    if authoritative and not response.flags & dns.flags.AA:
        return f"answers without authority{', and refers to other servers' if refers else ''}"
    if not authoritative and refers and not _above(response, name, dns.rdatatype.SOA):
        return "refers to other servers instead of asking them"
    return None


def _together(answers: Sequence[DnsAnswer]) -> DnsAnswer:
    """One server's answers about one type each as one: a fault first, then what is there."""
    for answer in answers:
        if answer.fault is not None:
            return answer
    sets = {answer.rrset.type: answer.rrset for answer in answers if answer.rrset is not None}
    if not sets:
        kept = [answer.negative_ttl for answer in answers if answer.negative_ttl is not None]
        return replace(answers[0], negative_ttl=max(kept, default=None))
    first = next(iter(sets.values()))
    if len(sets) == 1:
        return replace(answers[0], rrset=first, negative_ttl=None)
    # Several types at once: all the values under the first type, so that nobody takes them for one producer's.
    values = tuple(value for rrset in sets.values() for value in rrset.values)
    merged = RRset(first.type, values, min(rrset.ttl for rrset in sets.values()))
    return replace(answers[0], rrset=merged, negative_ttl=None, error=f"holds {' and '.join(sets)} at once")


def _rrset(response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
    return response.get_rrset(response.answer, name, dns.rdataclass.IN, kind)


def _above(response: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> list[dns.rrset.RRset]:
    """What the authority section has of ``kind``, of a zone that ``name`` can be in."""
    return [rrset for rrset in _of(response.authority, kind) if name.is_subdomain(rrset.name)]


def _of(section: Iterable[dns.rrset.RRset], kind: dns.rdatatype.RdataType) -> list[dns.rrset.RRset]:
    return [rrset for rrset in section if rrset.rdtype == kind and rrset.rdclass == dns.rdataclass.IN]


def _all(rrset: dns.rrset.RRset) -> Iterable[Any]:
    """Its records; dnspython's types do not say which fields they have."""
    return rrset


def _address(rdata: Any) -> str:
    return str(ipaddress.ip_address(rdata.address))


def _target(rdata: Any) -> str:
    return str(rdata.target.canonicalize())


def _code(response: dns.message.Message) -> str:
    return dns.rcode.to_text(response.rcode())
