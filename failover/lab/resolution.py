"""What a node does with what DNS says of a local root: when it asks again, whom it dials, whom it demotes. Pure.

Read in ouroboros-network, ``RootPeersDNS/LocalRootPeers.hs``, ``DNSActions.hs`` and ``Governor/Monitor.hs``:

* A and AAAA are asked together. When one of the two fails the other one counts alone, even if it is empty.
* The longest TTL of the addresses counts, TTL 0 as the longest of all; the next lookup is 60 to 900 s away.
* A failed lookup, and a name that does not exist is one, leaves what was known as it was. It is tried again after
  twice the last wait and 5 s more, at most 900 s; for a name that does not exist after 900 s.
* An empty answer is an answer: the addresses are gone, and the next lookup is 900 s away.
* When an address leaves, its active (hot) peer is demoted to warm. Its connection is not closed, and it stays known.

The limits are those of cardano-node 10.5 (network 0.21.3 and later; before: up to 24 h, and 3 h for no such name).
We infer that 900 s also bounds the doubling. What a node does with a known warm peer later on depends on the rest of
its peers, so that is a choice here: ``Promote``.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

SHORTEST, LONGEST = 60.0, 900.0  # seconds from a lookup to the next
MORE = 5.0  # seconds, on top of twice the last wait, after a failure


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: every address (literal) with its TTL in seconds. It may be empty."""

    ttls: Mapping[str, int]

    @property
    def ttl(self) -> int | None:
        """The TTL that counts; None for an empty answer."""
        return 0 if 0 in self.ttls.values() else max(self.ttls.values(), default=None)


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such name (NXDOMAIN)."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The resolver did not answer, or with an error."""

    why: str


Reply = Found | Missing | Failed


def together(one: Reply, other: Reply) -> Reply:
    """What the replies for A and AAAA say of the name."""
    match one, other:
        case Found(), Found():
            return Found({**one.ttls, **other.ttls})
        case (Found() as found, _) | (_, Found() as found):
            return found
        case (Failed() as failed, _) | (_, Failed() as failed):
            return failed  # asked again earlier than a name that is missing
        case _:
            return Missing()


def next_wait(reply: Reply, last: float) -> float:
    """Seconds from this lookup to the next; ``last`` were those from the one before to this, 0 for the first."""
    match reply:
        case Found(ttls=ttls) if not ttls:
            return LONGEST
        case Found():
            return min(LONGEST, max(SHORTEST, float(reply.ttl or LONGEST)))
        case Missing():
            return LONGEST
        case Failed():
            return min(LONGEST, 2 * last + MORE)


@dataclass(frozen=True, slots=True)
class Known:
    """What a node knows of one name: its addresses, and the moment (CLOCK_BOOTTIME) at which it asks again.

    ``wait`` are the seconds, as in life, that it waits for that.
    """

    addresses: frozenset[str] = frozenset()
    wait: float = 0.0
    due: float = 0.0

    def told(self, reply: Reply, now: float, scale: float = 1.0) -> Known:
        """What it knows after this reply. ``scale``: how many times faster than in life it waits."""
        addresses = frozenset(reply.ttls) if isinstance(reply, Found) else self.addresses
        wait = next_wait(reply, self.wait)
        return Known(addresses, wait, now + wait / scale)


class Promote(StrEnum):
    """When a warm peer becomes hot again."""

    NAMED = "named"  # when the name again resolves to it
    LONELY = "lonely"  # also when no hot peer is left, and none is being dialled


@dataclass(frozen=True, slots=True)
class Moves:
    """What is done about peers when an answer has changed."""

    dial: frozenset[str]
    promote: frozenset[str]
    demote: frozenset[str]


def moves(before: Set[str], after: Set[str], hot: Set[str], warm: Set[str]) -> Moves:
    """What follows when an answer changes ``before`` to ``after``; ``hot`` and ``warm`` peers are connected or dialled.

    A hot peer that was never in the answer is left alone: nothing left.
    """
    return Moves(
        dial=frozenset(after - hot - warm), promote=frozenset(after & warm), demote=frozenset((before - after) & hot)
    )


def comforter(promote: Promote, warm: Set[str], hot: bool) -> str | None:
    """The warm peer that is promoted because none is hot or being dialled (``hot``); None: nobody is."""
    return min(warm, default=None) if promote is Promote.LONELY and not hot else None
