"""A simulated relay: one connection to each of its targets, to which it sticks until it ends, and a log of it all.

A real relay behaves so, and that is what makes a switch slow and a split brain last: it keeps a session that works,
gives up on one whose keep-alive goes unanswered for 60 s, and redials after 5, 10, 20, 40, 80, 160 s (give or take
2 s). Sources: ouroboros-network, peer selection governor and KeepAlive codec.

A target may be a name. Then every address that it resolves to is a peer, hot at once (as with a valency that takes
them all); resolution.py says when it asks again and what becomes of a peer whose address has left the answer. Such a
warm peer stays connected, is asked as before (in life only for its keep-alive; the tip tells who is there), and is
not redialled when its session ends.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import ipaddress
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from failover.host import RealHost
from failover.lab import process
from failover.lab.chain import teller
from failover.lab.node import parse_address
from failover.lab.resolution import Failed, Found, Known, Missing, Promote, Reply, comforter, moves, together
from failover.lab.sessions import Log
from failover.model import Address, Tip
from failover.ouroboros.client import Accepted, Client, TipTold
from failover.ouroboros.errors import ProtocolError
from failover.ports import Host

if TYPE_CHECKING:
    import dns.message

ANSWER_WITHIN, HANDSHAKE_WITHIN, ASK_EVERY, ALIVE_EVERY = 60.0, 10.0, 10.0, 5.0  # seconds, at scale 1
LEAST_WAIT, LEAST_ALIVE = 1.0, 0.5  # seconds at any scale: that an answer may take; from one line to the next
FIRST_REDIAL, LAST_REDIAL, JITTER = 5.0, 160.0, 2.0  # seconds, at scale 1
LOOKUP_WITHIN = 3.0  # seconds, at scale 1
MOST_PEERS = 64  # addresses that names may resolve to; more are not believed
READ_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """What a relay is told when it starts. ``scale``: how many times faster than in life it does everything.

    ``names`` are targets whose host is a name; they need a ``resolver``.
    """

    name: str
    targets: tuple[Address, ...]
    log: Path
    magic: int = 42
    scale: float = 1.0
    seed: int = 0
    source: str | None = None  # the address that it connects from
    names: tuple[Address, ...] = ()
    resolver: Address | None = None
    promote: Promote = Promote.NAMED

    @property
    def ask_every(self) -> float:
        """Seconds from one keep-alive and question for the tip to the next."""
        return ASK_EVERY / self.scale


def redial(failures: int, chance: float, scale: float = 1.0) -> float:
    """Seconds until the next attempt after so many failures in a row; ``chance`` is in [0, 1)."""
    wait = FIRST_REDIAL * 2.0 ** min(failures, 10)
    return (min(LAST_REDIAL, wait) + JITTER * (2 * chance - 1)) / scale


@dataclass(slots=True)
class _Peer:
    """One address that the relay knows. ``dialogue`` is there from the first attempt of a session to its end.

    ``resting``: it has no session, and waits for the next attempt.
    """

    address: Address
    hot: bool = True
    resting: bool = False
    dialogue: _Dialogue | None = None

    @property
    def producer(self) -> str | None:
        """Whom the present session is with; None when there is none."""
        return self.dialogue.producer if self.dialogue is not None else None


class _Dialogue:
    """One session with one peer, from the first byte to the last."""

    def __init__(self, relay: Relay, peer: _Peer) -> None:
        self._relay = relay
        self._client = Client(relay.settings.magic)
        self._peer = peer
        self._unanswered = 0
        self.accepted: float | None = None
        self.producer: str | None = None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Propose, then ask again and again; why the session ended. Raises OSError, ProtocolError."""
        relay, host = self._relay, self._relay.host
        writer.write(self._client.propose(self._now_us()))
        self._unanswered = 1
        limit = relay.limit(HANDSHAKE_WITHIN)
        until = host.now().mono + limit  # an answer is due, or, when all are there, the next question
        while True:
            try:
                async with host.timeout(max(0.0, until - host.now().mono)):
                    data = await reader.read(READ_SIZE)
            except TimeoutError:
                if self._unanswered:
                    return f"no answer within {limit:g} s"
                self._ask(writer)
                limit = relay.limit(ANSWER_WITHIN)
                until = host.now().mono + limit
                continue
            if not data:
                return "closed by the other end"
            self._take(data)
            if not self._unanswered:  # after the handshake the first question is due at once
                until = host.now().mono + (relay.settings.ask_every if self.producer else 0.0)

    def _ask(self, writer: asyncio.StreamWriter) -> None:
        now_us = self._now_us()
        writer.write(self._client.keep_alive(self._relay.cookie(), now_us) + self._client.find_tip(now_us))
        self._unanswered = 2

    def _take(self, data: bytes) -> None:
        for event in self._client.receive(data):
            self._unanswered -= 1
            if isinstance(event, Accepted):
                self.accepted = self._relay.host.now().mono
            elif isinstance(event, TipTold):
                self._told(event.tip)

    def _told(self, tip: Tip) -> None:
        if self.producer is None:
            self.producer = teller(tip) or "unknown"
            self._relay.opened(self._peer, self, tip)
        if self._peer.hot:
            self._relay.tips[str(self._peer.address)] = tip.slot

    def _now_us(self) -> int:
        return int(self._relay.host.now().mono * 1e6)


class Relay:
    """A relay. ``run`` keeps its sessions until it is cancelled; ``tips`` are the slots last told by hot peers."""

    def __init__(self, settings: RelaySettings, host: Host | None = None) -> None:
        self.settings = settings
        self.host = host or RealHost()
        self.tips: dict[str, int] = {}
        self._log = Log(settings.log, settings.name)
        self._cookie = 0
        self._peers: dict[str, _Peer] = {}
        self._roots: dict[Address | None, frozenset[str]] = {None: frozenset(map(str, settings.targets))}  # by name
        self._tasks = asyncio.TaskGroup()

    async def run(self) -> None:
        """Dial every target, stick to it, redial; until cancelled."""
        self.note("started")
        try:
            async with self._tasks:
                self._tasks.create_task(self._live())
                for target in self.settings.targets:
                    self._dial(target)
                if self.settings.resolver is not None:
                    for name in self.settings.names:
                        self._tasks.create_task(self._follow(name, self.settings.resolver))
        finally:
            self._log.close()

    def note(self, event: str, **fields: object) -> None:
        """Write one line of the log."""
        self._log.write(self.host.now().mono, event, **fields)

    def limit(self, seconds: float) -> float:
        """A limit at the relay's scale, but long enough for a busy machine."""
        return max(LEAST_WAIT, seconds / self.settings.scale)

    def cookie(self) -> int:
        """The next keep-alive's cookie."""
        self._cookie = (self._cookie + 1) % 2**16
        return self._cookie

    def opened(self, peer: _Peer, dialogue: _Dialogue, tip: Tip) -> None:
        """A session with ``peer`` has come to be."""
        fields = {"target": str(peer.address), "producer": dialogue.producer}
        self.note("opened", **fields, **{"from": dialogue.accepted}, tip=tip.slot)
        if not peer.hot:  # its address left the answer while it was being dialled
            self.note("demoted", **fields)

    async def _live(self) -> None:
        while True:
            await self.host.sleep(max(LEAST_ALIVE, ALIVE_EVERY / self.settings.scale))
            self.note("alive", tips=self.tips)

    # ------------------------------------------------ names

    async def _follow(self, name: Address, resolver: Address) -> None:
        """Ask for a name's addresses again and again."""
        known = Known()
        while True:
            reply = await self._lookup(name.host, resolver)
            now = self.host.now().mono
            known = known.told(reply, now, self.settings.scale)
            self.note(
                "resolved",
                name=name.host,
                answers=sorted(reply.ttls) if isinstance(reply, Found) else [],
                ttl=reply.ttl if isinstance(reply, Found) else None,
                next_in=round(known.due - now, 3),
                **_why(reply),
            )
            self._settle(name, known)
            await self.host.sleep(known.due - now)

    def _settle(self, name: Address, known: Known) -> None:
        before = self._rooted()
        addresses = {str(a): a for a in (Address(host, name.port) for host in sorted(known.addresses)[:MOST_PEERS])}
        self._roots[name] = frozenset(addresses)
        hot = {key for key, peer in self._peers.items() if peer.hot}
        todo = moves(before, self._rooted(), hot, self._peers.keys() - hot)
        for key in sorted(todo.demote):
            self._turn(self._peers[key], hot=False)
        for key in sorted(todo.promote):
            self._turn(self._peers[key], hot=True)
        for key in sorted(todo.dial):
            self._dial(addresses[key])
        self._comfort()

    def _rooted(self) -> set[str]:
        return {address for addresses in self._roots.values() for address in addresses}

    def _turn(self, peer: _Peer, *, hot: bool) -> None:
        peer.hot = hot
        if not hot:
            self.tips.pop(str(peer.address), None)
        if peer.producer is not None:
            self.note("promoted" if hot else "demoted", target=str(peer.address), producer=peer.producer)

    def _comfort(self) -> None:
        """Promote a warm peer if nobody hot is left and the settings say so."""
        hot = any(peer.hot and not peer.resting for peer in self._peers.values())
        warm = {key for key, peer in self._peers.items() if peer.producer is not None and not peer.hot}
        found = comforter(self.settings.promote, warm, hot)
        if found is not None:
            self._turn(self._peers[found], hot=True)

    async def _lookup(self, name: str, resolver: Address) -> Reply:
        one, other = await asyncio.gather(self._ask(name, "A", resolver), self._ask(name, "AAAA", resolver))
        return together(one, other)

    async def _ask(self, name: str, type_: str, resolver: Address) -> Reply:
        """What the resolver says; over UDP, and over TCP when that was cut short."""
        import dns.asyncquery
        import dns.exception
        import dns.message

        limit = self.limit(LOOKUP_WITHIN)
        try:
            question = dns.message.make_query(name, type_)
            async with self.host.timeout(limit):
                message, _ = await dns.asyncquery.udp_with_fallback(
                    question, resolver.host, port=resolver.port, ignore_unexpected=True, ignore_errors=True
                )
        except TimeoutError:
            return Failed(f"no answer within {limit:g} s")
        except (OSError, EOFError, dns.exception.DNSException) as error:
            return Failed(str(error) or type(error).__name__)
        return reply_of(message)

    # ------------------------------------------------ peers

    def _dial(self, address: Address) -> None:
        peer = self._peers[str(address)] = _Peer(address)
        self._tasks.create_task(self._keep(peer))

    async def _keep(self, peer: _Peer) -> None:
        target, failures = peer.address, 0
        while str(target) in self._rooted():
            failures = 0 if await self._session(peer) else failures + 1
            peer.resting = True
            self._comfort()
            key = f"{self.settings.seed} {self.settings.name} {target} {failures}"
            chance = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
            # After a session, and after the first failure, the wait is the shortest.
            await self.host.sleep(redial(max(0, failures - 1), chance, self.settings.scale))
            peer.resting = False
        del self._peers[str(target)]

    async def _session(self, peer: _Peer) -> bool:
        """One attempt, and the session if there is one, to its end; whether there was one."""
        target, source = peer.address, self.settings.source
        dialogue = peer.dialogue = _Dialogue(self, peer)
        local = (source, 0) if source and (":" in source) == (":" in target.host) else None
        why = "the relay ended"
        try:
            if _elsewhere(target.host):
                raise OSError("not on this machine, which nothing of the lab leaves")
            async with self.host.timeout(self.limit(HANDSHAKE_WITHIN)):
                reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=local)
            try:
                why = await dialogue.talk(reader, writer)
            finally:
                writer.transport.abort()
        except TimeoutError:
            why = "no connection in time"
        except (OSError, ProtocolError) as error:
            why = str(error)
        finally:
            peer.dialogue = None
            self.tips.pop(str(target), None)
            if dialogue.producer is None:
                self.note("failed", target=str(target), why=why)
            else:
                ends = {"from": dialogue.accepted, "to": self.host.now().mono}
                self.note("closed", target=str(target), producer=dialogue.producer, **ends, why=why)
        return dialogue.producer is not None


def reply_of(message: dns.message.Message) -> Reply:
    """What a resolver's answer says: its addresses of the type that was asked for, wherever a CNAME led."""
    import dns.rcode

    code = message.rcode()
    if code == dns.rcode.NXDOMAIN:
        return Missing()
    if code != dns.rcode.NOERROR:
        return Failed(dns.rcode.to_text(code))
    wanted = message.question[0].rdtype
    return Found({str(rdata): rrset.ttl for rrset in message.answer if rrset.rdtype == wanted for rdata in rrset})


def _elsewhere(host: str) -> bool:
    """Whether a literal address is none of the loopback's; a name of this machine is not judged."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _why(reply: Reply) -> dict[str, str]:
    match reply:
        case Missing():
            return {"why": "no such name"}
        case Failed(why):
            return {"why": why}
        case _:
            return {}


# ---------------------------------------------------------------- as a process


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """What the process is told when it is started."""
    parser = argparse.ArgumentParser(prog, description="One simulated relay, until it is ended.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--target", default=[], action="append", type=parse_address, metavar="HOST:PORT")
    parser.add_argument(
        "--name-target",
        default=[],
        action="append",
        type=parse_address,
        metavar="NAME:PORT",
        help="dial what this name resolves to, as cardano-node does",
    )
    parser.add_argument("--resolver", type=parse_address, metavar="HOST:PORT", help="the DNS resolver to ask")
    parser.add_argument(
        "--promote",
        type=Promote,
        choices=list(Promote),
        default=Promote.NAMED,
        help="when a demoted peer becomes hot again: when its name resolves to it, or also when no other one is left",
    )
    parser.add_argument("--log", required=True, type=Path, metavar="FILE")
    parser.add_argument("--magic", type=int, default=42)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="how many times faster than in life it does everything"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the jitter between attempts")
    parser.add_argument("--source", metavar="HOST", help="the address to connect from")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent process ends")
    return parser


async def run(settings: RelaySettings) -> None:
    """Run one relay until SIGTERM or SIGINT, then close its sessions in its log."""
    running = asyncio.create_task(Relay(settings).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    process.ready()
    await running


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The process's exit status."""
    parser = arguments(prog)
    given = process.given(parser, argv)
    if not given.target and not given.name_target:
        parser.error("nobody to dial: give --target or --name-target")
    if given.name_target and given.resolver is None:
        parser.error("--name-target: give a --resolver too")
    settings = RelaySettings(
        given.name,
        tuple(given.target),
        given.log,
        given.magic,
        given.scale,
        given.seed,
        given.source,
        tuple(given.name_target),
        given.resolver,
        given.promote,
    )
    try:
        asyncio.run(run(settings))
    except asyncio.CancelledError:
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
