"""What the world is told of a name, again and again: each DNS server of its zone is asked directly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from failover.host import RealHost
from failover.lab.witness import ANSWER_WITHIN, SAMPLE_EVERY
from failover.model import Address

MOST_TOLD = 10  # answers that were not as they should be, in words


@dataclass(frozen=True, slots=True)
class Look:
    """One answer of one server, asked for at ``sent`` and there at ``received`` (CLOCK_BOOTTIME; ``utc`` is Unix time).

    ``values`` are its addresses; none where it says that there are none, or no such name.
    """

    sent: float
    received: float
    utc: float
    values: tuple[str, ...]
    rcode: str = "NOERROR"


class NameWitness:
    """Asks every server for the addresses of ``name``; ``looks`` are None where a server did not answer.

    ``addresses`` are the producers' ones.
    """

    def __init__(self, name: str, servers: Mapping[str, Address], addresses: Mapping[str, str]) -> None:
        self.name = name
        self.looks: dict[str, list[Look | None]] = {server: [] for server in servers}
        self._servers = servers
        self._addresses = addresses
        self._host = RealHost()

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            began = self._host.now().mono
            await asyncio.gather(*(self._look(server, address) for server, address in self._servers.items()))
            await self._host.sleep(SAMPLE_EVERY - (self._host.now().mono - began))

    async def _look(self, server: str, address: Address) -> None:
        sent, look = self._host.now(), None
        with suppress(OSError, EOFError, TimeoutError, dns.exception.DNSException):
            question = dns.message.make_query(self.name, dns.rdatatype.A)
            async with self._host.timeout(ANSWER_WITHIN):
                answer = await dns.asyncquery.udp(question, address.host, None, address.port, ignore_unexpected=True)
            look = Look(sent.mono, self._host.now().mono, sent.utc, *read_answer(answer))
        self.looks[server].append(look)

    # ------------------------------------------------ what was seen

    def now(self) -> dict[str, Look | None]:
        """The newest look at every server."""
        return {server: looks[-1] if looks else None for server, looks in self.looks.items()}

    def whom(self, look: Look | None) -> str:
        """Whom an answer points at: a producer, or the bare addresses."""
        if look is None:
            return "nothing"
        names = {address: producer for producer, address in self._addresses.items()}
        return " and ".join(names.get(value, value) for value in look.values) or f"no address ({look.rcode})"

    def all_say(self, producer: str) -> bool:
        """Whether every server's newest answer is this producer's address alone."""
        return all(self._says(look, producer) for look in self.now().values())

    def after(self, since: float) -> list[Look]:
        """Every answer that was asked for after ``since``."""
        return [look for looks in self.looks.values() for look in looks if look is not None and look.sent >= since]

    def first(self, producer: str, since: float) -> float | None:
        """When the first answer with this producer's address came that was asked for after ``since``."""
        return min((look.received for look in self.after(since) if self._says(look, producer)), default=None)

    def everywhere(self, producer: str, since: float) -> float | None:
        """When the last of the servers first said this producer's address after ``since``; None if one never did."""
        firsts = []
        for looks in self.looks.values():
            said = (look.received for look in looks if look and look.sent >= since and self._says(look, producer))
            firsts.append(min(said, default=None))
        found = [first for first in firsts if first is not None]
        return max(found) if found and len(found) == len(firsts) else None

    def last(self, producer: str) -> Look | None:
        """The newest answer of any server that has this producer's address."""
        said = (look for look in self.after(0.0) if self._says(look, producer))
        return max(said, key=lambda look: look.sent, default=None)

    def _says(self, look: Look | None, producer: str) -> bool:
        return look is not None and look.values == (self._addresses[producer],)

    def count(self) -> int:
        """How many questions were answered."""
        return len(self.after(0.0))

    def longest_gap(self) -> float:
        """The longest time from one answered question to the next at one server."""
        asked = [[look.sent for look in looks if look is not None] for looks in self.looks.values()]
        return max((b - a for times in asked for a, b in pairwise(times)), default=0.0)

    def wrong(self) -> list[str]:
        """Answers without exactly one address, in words; at most ``MOST_TOLD``."""
        found = []
        for server, looks in self.looks.items():
            found += [f"{server} said {self.whom(look)}" for look in not_one(looks)]
        return found[:MOST_TOLD]


def not_one(looks: Iterable[Look | None]) -> list[Look]:
    """The answers that do not have exactly one address."""
    return [look for look in looks if look is not None and len(look.values) != 1]


def read_answer(answer: dns.message.Message) -> tuple[tuple[str, ...], str]:
    """The addresses in an answer, sorted, and its response code."""
    values = [str(value) for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A for value in rrset]
    return tuple(sorted(values)), dns.rcode.to_text(answer.rcode())
