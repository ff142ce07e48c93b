"""A small caching resolver on loopback: it forwards to given servers, keeps what they say, and serves what remains.

``Resolver`` runs inside a program; ``python -m failover.lab.resolver`` runs one as a process of its own. TTLs count
down in whole seconds, and an answer of which nothing remains is asked for anew, as BIND does, and Unbound since its
pull request 1181 (2024). Before that Unbound served it for one more second with TTL 0, for which cardano-node waits
900 s; "zero" lets ours do so. "There is none" is kept as the SOA says (RFC 2308). Told to be stale, it serves what has
run out for as long as nobody heals it (RFC 8767 has TTL 30 there).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from failover.host import RealHost
from failover.lab import commands, control, process
from failover.lab.commands import Command
from failover.lab.dnsport import PAYLOAD, Asked, DnsPort
from failover.lab.haproxy import LabError
from failover.lab.names import ANY_PORT
from failover.lab.node import parse_address
from failover.model import Address, record_type
from failover.ports import Host

UPSTREAM_WITHIN = 1.0  # seconds that a server may take to answer
STALE_TTL = 30  # seconds
MOST_KEPT = 10_000
MOST_CHAIN = 8
IN = dns.rdataclass.IN

COMMANDS: Mapping[str, Command] = {
    "zero": Command("serve an answer in its very last second, too, with TTL 0"),
    "stale": Command("serve old answers beyond their TTL, and ask nobody"),
    "lie": Command("answer every question for addresses with this one", "ADDRESS", commands.address, "192.0.2.66"),
    "silent": Command("answer nothing"),
    "flush": Command("forget everything"),
    "heal": Command("end all misbehaviour"),
    "state": Command("tell how it is"),
}


@dataclass(frozen=True, slots=True)
class ResolverFaults:
    """How it misbehaves at present; as it stands here, not at all."""

    zero: bool = False
    stale: bool = False
    lie: str | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer in the cache: from when on the host's clock, for how many of the resolver's seconds, and what."""

    at: float
    ttl: int
    rcode: dns.rcode.Rcode
    answer: tuple[dns.rrset.RRset, ...] = ()
    authority: tuple[dns.rrset.RRset, ...] = ()


Key = tuple[dns.name.Name, dns.rdatatype.RdataType]


class Resolver:
    """A caching resolver at ``listen`` (port 0: any; ``address`` then tells which) that asks ``upstream``, in order.

    ``scale`` is how many of its seconds pass in one of life's. ``faults`` may be set at any time. ``counts`` counts
    questions, those answered from the cache (hits), and those sent upstream (upstream).
    """

    def __init__(
        self,
        upstream: Sequence[Address],
        listen: Address = ANY_PORT,
        *,
        scale: float = 1.0,
        name: str = "resolver",
        host: Host | None = None,
    ) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self.faults = ResolverFaults()
        self._upstream = tuple(upstream)
        self._scale = scale
        self._host = host or RealHost()
        self._kept: dict[Key, Kept] = {}
        self._port = DnsPort(name, listen, self._answer, host)

    async def __aenter__(self) -> Resolver:
        await self._port.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._port.close()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._port.address

    def flush(self) -> None:
        """Forget everything."""
        self._kept.clear()

    async def tell(self, command: str, value: str | None = None) -> dict[str, Any]:
        """Carry out one of ``COMMANDS``, and tell how the resolver is then. Raises LabError."""
        given = commands.read(COMMANDS, command, value)
        match command:
            case "flush":
                self.flush()
            case "heal":
                self.faults = ResolverFaults()
            case "zero" | "stale" | "silent" | "lie":
                change: dict[str, Any] = {command: True if given is None else given}
                self.faults = replace(self.faults, **change)
        kept = {f"{name} {dns.rdatatype.to_text(type_)}": self._left(one) for (name, type_), one in self._kept.items()}
        told = {"name": self.name, "address": str(self.address), "counts": dict(self.counts)}
        return {**told, "kept": kept, **asdict(self.faults)}

    # ------------------------------------------------ one question

    async def _answer(self, asked: Asked) -> bytes | None:
        self.counts["questions"] += 1
        if self.faults.silent:
            return None
        question = asked.message.question
        response = dns.message.make_response(asked.message, recursion_available=True, our_payload=PAYLOAD)
        if asked.message.opcode() != dns.opcode.QUERY or len(question) != 1 or question[0].rdclass != IN:
            response.set_rcode(dns.rcode.NOTIMP)
            return asked.wire(response)
        name, type_ = question[0].name.canonicalize(), question[0].rdtype
        if self.faults.lie is not None and dns.rdatatype.to_text(type_) == record_type(self.faults.lie).value:
            response.answer = [dns.rrset.from_text(name, 60, IN, type_, self.faults.lie)]
            return asked.wire(response)
        kept, left = await self._resolved(name, type_)
        response.set_rcode(kept.rcode)
        stale = left < 0 or (left == 0 < kept.ttl and not self.faults.zero)
        response.answer = _told(kept.answer, left, kept.ttl, stale)
        response.authority = _told(kept.authority, left, kept.ttl, stale)
        return asked.wire(response)

    def _left(self, kept: Kept) -> int:
        """What remains of an answer's TTL, in whole seconds; negative when it has long run out."""
        return kept.ttl - math.floor((self._host.now().mono - kept.at) * self._scale)

    async def _resolved(self, name: dns.name.Name, type_: dns.rdatatype.RdataType) -> tuple[Kept, int]:
        """From the cache, or from upstream; and what remains of its TTL."""
        kept = self._kept.get((name, type_))
        left = -1 if kept is None else self._left(kept)
        if kept is not None and (left > 0 or (left == 0 and self.faults.zero) or self.faults.stale):
            self.counts["hits"] += 1
            return kept, left
        fresh = await self._chased(name, type_)
        if fresh.rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) and (fresh.answer or fresh.authority):
            self._kept.pop((name, type_), None)
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[name, type_] = fresh
        return fresh, fresh.ttl

    async def _chased(self, name: dns.name.Name, type_: dns.rdatatype.RdataType) -> Kept:
        """Ask upstream, and again for the target of a CNAME that was not followed there."""
        answer: list[dns.rrset.RRset] = []
        for _ in range(MOST_CHAIN):
            told = await self._ask(name, type_)
            if told is None:
                break
            answer += told.answer
            target = next((r[0].target for r in reversed(told.answer) if r.rdtype == dns.rdatatype.CNAME), None)
            found = type_ == dns.rdatatype.CNAME or any(r.rdtype == type_ for r in told.answer)
            if target is None or found or told.authority:  # the last: it points into the zone, and to nothing there
                soa = tuple(r for r in told.authority if r.rdtype == dns.rdatatype.SOA)
                ttl = min([r.ttl for r in answer] + [min(r.ttl, r[0].minimum) for r in soa], default=0)
                return Kept(self._host.now().mono, ttl, told.rcode(), tuple(answer), soa)
            name = target
        return Kept(self._host.now().mono, 0, dns.rcode.SERVFAIL)

    async def _ask(self, name: dns.name.Name, type_: dns.rdatatype.RdataType) -> dns.message.Message | None:
        """The first answer of a server that gives one, or None."""
        question = dns.message.make_query(name, type_, flags=0, use_edns=0, payload=PAYLOAD)
        for server in self._upstream:
            self.counts["upstream"] += 1
            try:
                told, _ = await dns.asyncquery.udp_with_fallback(
                    question, server.host, UPSTREAM_WITHIN, server.port, ignore_unexpected=True
                )
            except (OSError, dns.exception.DNSException, EOFError):
                continue
            if told.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) and told.flags & dns.flags.AA:
                return told
        return None


def _told(rrsets: Sequence[dns.rrset.RRset], left: int, whole: int, stale: bool) -> list[dns.rrset.RRset]:
    """The sets with what remains of their TTLs, when ``left`` remains of the ``whole`` answer's."""
    told = []
    for rrset in rrsets:
        ttl = STALE_TTL if stale else max(0, rrset.ttl - (whole - left))
        told.append(dns.rrset.from_rdata_list(rrset.name, ttl, list(rrset)))
    return told


# ---------------------------------------------------------------- as a process


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """What the process is told when it is started."""
    parser = argparse.ArgumentParser(prog, description="A caching resolver, until it is ended.")
    parser.add_argument("--listen", required=True, type=parse_address, metavar="HOST:PORT")
    parser.add_argument("--upstream", required=True, action="append", type=parse_address, metavar="HOST:PORT")
    parser.add_argument("--scale", type=float, default=1.0, help="how many times faster than in life TTLs run out")
    parser.add_argument("--control", type=Path, metavar="PATH", help="a unix socket where it can be told things")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent process ends")
    return parser


async def run(given: argparse.Namespace) -> None:
    """Run one resolver until SIGTERM or SIGINT. Raises LabError when it cannot listen."""
    ended = asyncio.Event()
    for end in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(end, ended.set)
    async with Resolver(given.upstream, given.listen, scale=given.scale) as resolver:

        async def handle(question: Mapping[str, Any]) -> Mapping[str, Any]:
            value = question.get("value")
            return await resolver.tell(question["command"], None if value is None else str(value))

        listener = await control.serve(given.control, handle) if given.control else None
        process.ready()
        await ended.wait()
        if listener is not None:
            listener.close()


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
