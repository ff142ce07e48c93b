"""The chain-sync mini-protocol, as far as it tells a node's tip.

FindIntersect without points is always answered with IntersectNotFound and the tip of the selected chain; with origin
as the only point, with IntersectFound and the tip. Both leave the protocol idle, so it can be asked again.
Source: ouroboros-network, network.base.cddl and api Block.hs (encodeTip); ouroboros-consensus, ChainSync/Server.hs.
"""

from __future__ import annotations

from dataclasses import dataclass

import cbor2

from failover.model import Tip
from failover.ouroboros.cbor import fields, kind, listed, whole
from failover.ouroboros.errors import WrongShape

HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Point:
    """A place on a chain. ``hash`` is hexadecimal, and empty at the origin."""

    slot: int
    hash: str


ORIGIN = Point(0, "")
GENESIS = Tip(0, "", 0)


@dataclass(frozen=True, slots=True)
class FindIntersect:
    """The client's question: which of these points, the first that is known, is on your chain?"""

    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class IntersectFound:
    """The server's answer when it knows one of the points."""

    point: Point
    tip: Tip


@dataclass(frozen=True, slots=True)
class IntersectNotFound:
    """The server's answer when it knows none of the points."""

    tip: Tip


@dataclass(frozen=True, slots=True)
class Done:
    """The client says that it will ask no more."""


Message = FindIntersect | IntersectFound | IntersectNotFound | Done

FIND_NOTHING = b"\x82\x04\x80"
DONE = b"\x81\x07"


def encode(message: Message) -> bytes:
    """A message as bytes. Definite lengths throughout."""
    match message:
        case FindIntersect(points):
            return cbor2.dumps([4, [_point(p) for p in points]])
        case IntersectFound(point, tip):
            return cbor2.dumps([5, _point(point), _tip(tip)])
        case IntersectNotFound(tip):
            return cbor2.dumps([6, _tip(tip)])
        case Done():
            return DONE


def parse(item: object) -> Message:
    """A decoded item as a message. Raises WrongShape."""
    entries = listed(item, "chain-sync message")
    tag = whole(entries[0], 8, "chain-sync message") if entries else None
    if tag == 6:
        return IntersectNotFound(_read_tip(fields(item, 2, "chain-sync answer")[1]))
    if tag == 5:
        _, point, tip = fields(item, 3, "chain-sync answer")
        return IntersectFound(_read_point(point), _read_tip(tip))
    if tag == 4:
        points = listed(fields(item, 2, "chain-sync question")[1], "points")
        return FindIntersect(tuple(_read_point(p) for p in points))
    if tag == 7:
        fields(item, 1, "chain-sync done")
        return Done()
    raise WrongShape(f"chain-sync message: {tag} is not one of 4, 5, 6, 7")


def _point(point: Point | Tip) -> list[object]:
    return [point.slot, bytes.fromhex(point.hash)] if point.hash else []


def _tip(tip: Tip) -> list[object]:
    return [_point(tip), tip.block_no]


def _read_point(item: object) -> Point:
    entries = listed(item, "point")
    if not entries:
        return ORIGIN
    slot, digest = fields(item, 2, "point")
    if not isinstance(digest, bytes):
        raise WrongShape(f"block hash: {kind(digest)} where bytes belong")
    if len(digest) != HASH_BYTES:
        raise WrongShape(f"block hash: {len(digest)} bytes where {HASH_BYTES} belong")
    return Point(whole(slot, 64, "slot"), digest.hex())


def _read_tip(item: object) -> Tip:
    point, block_no = fields(item, 2, "tip")
    place = _read_point(point)
    return Tip(place.slot, place.hash, whole(block_no, 64, "block number"))
