"""Authoritative DNS servers of zones, each at an address of its own, each with its own faults.

``lookup`` says what a zone answers (pure); ``NameServer`` says it over UDP and TCP. A server learns of a change
``lag`` seconds after it was made, as those of Route 53 do, and may be told to misbehave in each of the ways in which
authoritative servers do.

A zone is never cut: an NS set below the apex is told like any other. Of special sets, failover answers PRIMARY,
multi-value answers everything, weighted and latency answer the first by identifier.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from failover.lab import commands
from failover.lab.commands import Command
from failover.lab.dnsport import PAYLOAD, Asked, DnsPort
from failover.lab.zone import LiveZone, RecordSet, Zone, canonical, dns_name, record, text_name
from failover.model import Address
from failover.ports import Host

MOST_CHAIN = 8  # CNAMEs and aliases that are followed
ANY_PORT = Address("127.0.0.1", 0)
IN = dns.rdataclass.IN

COMMANDS: Mapping[str, Command] = {
    "lag": Command("learn of changes so much later", "SECONDS", commands.seconds),
    "freeze": Command("learn of no more changes"),
    "refuse": Command("answer REFUSED: a lame delegation"),
    "no-authority": Command("answer without the AA flag: lame, too"),
    "silent": Command("answer nothing"),
    "truncate": Command("answer TC over UDP, the truth over TCP"),
    "ttl": Command("say this TTL, whatever the zone says", "SECONDS", commands.ttl, "3600"),
    "garble": Command("answer bytes that are no DNS message"),
    "spoof": Command("let another port answer first, with this address", "ADDRESS", commands.address, "192.0.2.66"),
    "heal": Command("end all misbehaviour; learn of what was missed"),
    "state": Command("tell how it is"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a zone says to one question."""

    rcode: dns.rcode.Rcode
    answer: list[dns.rrset.RRset] = field(default_factory=list)
    authority: list[dns.rrset.RRset] = field(default_factory=list)


def lookup(zone: Zone, name: str, type: str) -> Found:  # noqa: A002  the field's word
    """What ``zone`` says about a canonical name within it."""
    answer: list[dns.rrset.RRset] = []
    for _ in range(MOST_CHAIN):
        here = _sets(zone, name)
        if not here:
            return Found(dns.rcode.NXDOMAIN if not answer else dns.rcode.NOERROR, answer, _negative(zone))
        told = _told(zone, here, type)
        if told is not None:
            return Found(dns.rcode.NOERROR, [*answer, _rrset(name, *told)])
        chain = _told(zone, here, "CNAME")
        if chain is None:
            return Found(dns.rcode.NOERROR, answer, _negative(zone))
        answer.append(_rrset(name, *chain))
        name = canonical(chain[2][0])
        if not zone.holds(name):
            return Found(dns.rcode.NOERROR, answer)
    return Found(dns.rcode.SERVFAIL)


def _sets(zone: Zone, name: str) -> tuple[RecordSet, ...]:
    """The sets at a name, those of the wildcard above it, or, where only names below exist, a TXT of nothing."""
    here = zone.at(name)
    if here or any(s.name.endswith("." + name) for s in zone.sets):
        return here or (RecordSet(name, "TXT"),)
    above = name.partition(".")[2]
    while zone.holds(above):
        if any(s.name == above or s.name.endswith("." + above) for s in zone.sets):
            return tuple(replace(s, name=name) for s in zone.at(f"*.{above}"))
        above = above.partition(".")[2]
    return ()


def _told(zone: Zone, here: Sequence[RecordSet], type_: str) -> tuple[str, int, list[str]] | None:
    """Type, TTL and values that these sets give together, or None."""
    sets = [s for s in here if s.type == type_]
    primary = [s for s in sets if ("Failover", "PRIMARY") in s.policy]
    many = [s for s in sets if ("MultiValueAnswer", "true") in s.policy]
    for _ in range(MOST_CHAIN):
        chosen = many or primary[:1] or sets[:1]
        alias = chosen[0].alias if chosen else None
        if alias is None:
            break
        sets, primary, many = [s for s in zone.at(alias.name, type_) if alias.zone == zone.id], [], []
    values = [value for s in chosen for value in s.values]
    return (type_, chosen[0].ttl or 0, values) if values else None


def _rrset(name: str, type_: str, ttl: int, values: Sequence[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(
        dns_name(name), ttl, IN, type_, list(values), origin=dns.name.root, relativize=False
    )


def _negative(zone: Zone) -> list[dns.rrset.RRset]:
    """The SOA as it stands beside "there is none": its TTL is how long that may be kept (RFC 2308)."""
    (soa,) = zone.at(zone.name, "SOA")
    least = int(soa.values[0].split()[-1])
    return [_rrset(zone.name, "SOA", min(soa.ttl or 0, least), soa.values)]


# ---------------------------------------------------------------- a server


@dataclass(frozen=True, slots=True)
class ServerFaults:
    """How a server misbehaves at present; as it stands here, not at all."""

    freeze: bool = False
    refuse: bool = False
    no_authority: bool = False
    silent: bool = False
    truncate: bool = False
    ttl: int | None = None
    garble: bool = False
    spoof: str | None = None


class NameServer:
    """One authoritative server for ``zones`` at ``address`` (port 0: any; ``address`` then tells which).

    ``lag`` is in seconds. ``faults`` may be set at any time. ``counts`` counts questions: all, udp, tcp.
    """

    def __init__(
        self,
        zones: Sequence[LiveZone],
        address: Address = ANY_PORT,
        *,
        lag: float = 0.0,
        name: str = "ns",
        host: Host | None = None,
    ) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self._faults = ServerFaults()
        self._lag = lag
        self._zones = tuple(zones)
        self._known = {live: live.zone for live in self._zones}
        self._port = DnsPort(name, address, self._answer, host)

    async def __aenter__(self) -> NameServer:
        await self._port.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._port.close()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._port.address

    @property
    def faults(self) -> ServerFaults:
        """How it misbehaves."""
        return self._faults

    @faults.setter
    def faults(self, faults: ServerFaults) -> None:
        self._learn()  # what was known when it froze stays known
        self._faults = faults

    @property
    def lag(self) -> float:
        """How many seconds after a change it learns of it."""
        return self._lag

    @lag.setter
    def lag(self, seconds: float) -> None:
        self._learn()  # what it knows it does not forget
        self._lag = seconds

    def knows(self, zone_id: str) -> Zone:
        """What it takes for the zone at present."""
        self._learn()
        return next(zone for zone in self._known.values() if zone.id == zone_id)

    async def tell(self, command: str, value: str | None = None) -> dict[str, Any]:
        """Carry out one of ``COMMANDS``, and tell how the server is then. Raises LabError."""
        given = commands.read(COMMANDS, command, value)
        if command == "lag":
            self.lag = given
        elif command == "heal":
            self.faults = ServerFaults()
        elif command != "state":
            change: dict[str, Any] = {command.replace("-", "_"): True if given is None else given}
            self.faults = replace(self._faults, **change)
        self._learn()
        return {
            "name": self.name,
            "address": str(self.address),
            "lag": self._lag,
            "counts": dict(self.counts),
            "zones": {zone.id: [str(s) for s in zone.sets] for zone in self._known.values()},
            **asdict(self._faults),
        }

    # ------------------------------------------------ one question

    def _learn(self) -> None:
        if not self._faults.freeze:
            self._known = {live: live.seen(zone, self._lag) for live, zone in self._known.items()}

    async def _answer(self, asked: Asked) -> bytes | None:
        self.counts.update(("all", "udp" if asked.udp else "tcp"))
        if self._faults.silent:
            return None
        if self._faults.garble:
            return asked.message.id.to_bytes(2, "big") + b"\x84\x00\xff\xff\xff\xff garbled"
        if self._faults.spoof is not None and asked.udp:
            await self._spoof(asked, self._faults.spoof)
        return asked.wire(self._response(asked))

    def _response(self, asked: Asked) -> dns.message.Message:
        question = asked.message.question
        response = dns.message.make_response(asked.message, our_payload=PAYLOAD)
        if asked.message.opcode() != dns.opcode.QUERY or len(question) != 1 or question[0].rdclass != IN:
            response.set_rcode(dns.rcode.NOTIMP)
            return response
        name = text_name(question[0].name)
        self._learn()
        zones = [zone for zone in self._known.values() if zone.holds(name)]
        if not zones or self._faults.refuse:
            response.set_rcode(dns.rcode.REFUSED)
            return response
        zone = max(zones, key=lambda z: len(z.name))
        if not self._faults.no_authority:
            response.flags |= dns.flags.AA
        if self._faults.truncate and asked.udp:
            response.flags |= dns.flags.TC
            return response
        found = lookup(zone, name, dns.rdatatype.to_text(question[0].rdtype))
        response.set_rcode(found.rcode)
        response.answer, response.authority = found.answer, found.authority
        if self._faults.ttl is not None:
            for rrset in (*found.answer, *found.authority):
                rrset.ttl = self._faults.ttl
        return response

    async def _spoof(self, asked: Asked, address: str) -> None:
        """Send a lie from another port, before the truth."""
        question = asked.message.question[0]
        lie = dns.message.make_response(asked.message)
        lie.flags |= dns.flags.AA
        one = record(text_name(question.name), address)
        lie.answer = [_rrset(one.name, one.type, 60, one.values)]
        loop = asyncio.get_running_loop()
        here, there = (self.address.host, 0), (asked.peer.host, asked.peer.port)
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, here, there)
        transport.sendto(lie.to_wire())
        transport.close()
