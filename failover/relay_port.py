"""One relay's host through its agent: which producers its node is connected to, and the end of such sessions.

A producer is known by the addresses under which the relay reaches it: those of ``relay.producers``; else its own, and
where records point for it. The agent takes an address with its port as what the relay's node dialled there, and what
came in from that host. The latter counts as the producer's when its host has nothing else that is configured, or when
it came from the producer's own port, as a node's connections do; a relay that doubles as the standby stays a relay.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from . import agent_answers as answers
from .agent_answers import Nonsense
from .agent_link import AgentLink
from .errors import GateRefused, GateUnreachable, PingError
from .model import Address, Kick, Pool, Relay, RelayReading, RelaySession
from .ouroboros.ping import Resolver
from .ports import Host

MOST_PEERS = 64  # that an agent takes in one request


@dataclass(frozen=True, slots=True)
class Peer:
    """One numeric address of a producer, as the relay sees it. ``alone``: nothing else of ours is on that host."""

    producer: str
    address: Address
    alone: bool

    def matches(self, seen: Address, *, inbound: bool) -> bool:
        """Whether a session's other end is this."""
        return seen.host == self.address.host and (seen.port == self.address.port or (inbound and self.alone))


class AgentRelayPort:
    """RelayPort (failover/ports.py). The link is shared, and closed by whoever made it."""

    def __init__(self, relay: Relay, pool: Pool, link: AgentLink, host: Host) -> None:
        self._relay = relay
        self._link = link
        self._host = host
        self._resolver = Resolver(host)
        self._found: dict[str, tuple[str, ...]] = {}  # the last addresses of each name
        self._wanted = producers_of(relay, pool)
        self._shared = _elsewhere(pool)

    async def read(self, timeout: float) -> RelayReading:
        """See RelayPort."""
        began = self._host.now().mono
        peers = await self._peers(timeout)
        left = timeout - (self._host.now().mono - began)
        said = await self._link.ask("sessions", left, peers=[str(peer.address) for peer in peers])
        assert said is not None  # noqa: S101 - nothing was asked before sending it
        try:
            found, reading = answers.sessions(said)
            named = [_named(session, peers) for session in found]
        except Nonsense as error:
            raise self._link.nonsense(error) from None
        if said.get("truncated"):
            raise GateRefused(
                f"{self._relay.name}: more sessions with producers than its agent can tell ({len(found)} came)",
                "see what opens so many: ss -tn there",
            )
        return replace(reading, sessions=tuple(session for session in named if session is not None))

    async def kick(self, kick: Kick, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See RelayPort."""
        began = self._host.now().mono
        peers = [str(peer.address) for peer in await self._peers(timeout) if peer.producer == kick.producer]
        left = timeout - (self._host.now().mono - began)
        said = await self._link.ask(
            "kick",
            left,
            still_valid=still_valid,
            peers=peers,
            generation=kick.generation,
            term=kick.term,
            nudge=kick.nudge.value,
        )
        if said is None:
            return False
        try:
            answers.kicked(said)
        except Nonsense as error:
            raise self._link.nonsense(error, changes=True) from None
        return True

    async def close(self) -> None:
        """See RelayPort."""
        self._resolver.close()

    async def _peers(self, timeout: float) -> tuple[Peer, ...]:
        """Every address to ask for. Raises GateUnreachable, GateRefused."""
        found: dict[Address, str] = {}
        for producer, wanted in self._wanted.items():
            for address in wanted:
                for numeric in await self._numeric(address.host, timeout):
                    at = Address(numeric, address.port)
                    if found.setdefault(at, producer) != producer:
                        raise GateRefused(
                            f"{self._relay.name}: {found[at]} and {producer} are both {at}: nobody can tell them apart",
                            "give this relay the addresses under which it reaches each (relays.producers)",
                        )
        holders: dict[str, set[str]] = {}
        for at, producer in found.items():
            holders.setdefault(at.host, set()).add(producer)
        peers = tuple(
            Peer(producer, at, alone=len(holders[at.host]) == 1 and at.host not in self._shared)
            for at, producer in found.items()
        )
        if len(peers) > MOST_PEERS:
            raise GateRefused(
                f"{self._relay.name}: its producers have {len(peers)} addresses, and an agent takes {MOST_PEERS}",
                "name fewer in relays.producers",
            )
        return peers

    async def _numeric(self, name: str, timeout: float) -> tuple[str, ...]:
        """The addresses of a name; those of the last time when it cannot be looked up now."""
        literal = numeric(name)
        if literal is not None:
            return (literal,)
        try:
            # One look at a name must not take the time of the others, nor that of the request itself.
            async with self._host.timeout(timeout / (2 * self._names)):
                found = await self._resolver(name, 0, timeout)
            self._found[name] = tuple(dict.fromkeys(str(one.sockaddr[0]) for one in found))
        except (PingError, TimeoutError) as error:
            if name not in self._found:
                why = str(error) or "no answer in time"
                mend = "check the name, and the name servers of this machine; or give addresses in relays.producers"
                raise GateUnreachable(f"{self._relay.name}: {name} cannot be looked up: {why}", mend) from error
        return self._found[name]

    @property
    def _names(self) -> int:
        """How many lookups one request may need."""
        return max(1, sum(len(wanted) for wanted in self._wanted.values()))


def producers_of(relay: Relay, pool: Pool) -> Mapping[str, tuple[Address, ...]]:
    """Under which addresses, or names, this relay reaches each producer, in the pool's order."""
    found: dict[str, tuple[Address, ...]] = {}
    for producer in pool.producers:
        if producer.name in relay.producers:
            found[producer.name] = (relay.producers[producer.name],)
            continue
        targets = (record.targets[producer.name] for record in pool.records if producer.name in record.targets)
        pointed = (Address(target.removesuffix("."), producer.address.port) for target in targets)
        found[producer.name] = tuple(dict.fromkeys((producer.address, *pointed)))
    return found


def numeric(host: str) -> str | None:
    """A literal address in its one spelling; an IPv4 one in IPv6 clothes as IPv4; None for a name."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def _elsewhere(pool: Pool) -> frozenset[str]:
    """Literal addresses of what is configured and is no producer."""
    others = [relay.address for relay in pool.relays] + list(pool.references)
    others += [proxy.socket for proxy in pool.proxies if isinstance(proxy.socket, Address)]
    return frozenset(found for address in others if (found := numeric(address.host)) is not None)


def _named(session: RelaySession, peers: tuple[Peer, ...]) -> RelaySession | None:
    """The session with its producer's name; None when it is nobody's we asked for. Raises Nonsense."""
    seen = _endpoint(session.peer)
    _endpoint(session.local)
    producer = next((peer.producer for peer in peers if peer.matches(seen, inbound=session.inbound)), None)
    return None if producer is None else replace(session, producer=producer)


def _endpoint(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    found = numeric(host.removeprefix("[").removesuffix("]"))
    if not colon or found is None or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        raise Nonsense(f"{answers.words(text, 60)!r} is no address and port")
    return Address(found, int(port))
