"""The handshake: the initiator proposes versions, the responder accepts one or refuses.

One message is exactly one frame, at most 5760 bytes. Version data: versions 7 to 10 have two entries (magic,
initiator only), 11 to 15 four (and peer sharing, query), 16 a fifth (Peras). Keys are sent in ascending order, which
the reference implementation asks for, and read in any. Versions that are not known are skipped.
Source: ouroboros-network, cddl/specs (handshake-node-to-node-v14, node-to-node-version-data-v14 and -v16) and
Protocol/Handshake/Codec.hs. What version 15 stands for differs between implementations: nothing is inferred from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cbor2

from failover.ouroboros import cbor
from failover.ouroboros.cbor import fields, listed, table, text, truth, whole
from failover.ouroboros.errors import CodecError, WrongShape
from failover.ouroboros.mux import HANDSHAKE, LIMITS

VERSIONS = (14, 15)
KNOWN_VERSIONS = range(7, 17)


@dataclass(frozen=True, slots=True)
class VersionData:
    """What goes with a version. ``initiator_only`` true: the peer shall not use this connection for its own asking."""

    magic: int
    initiator_only: bool = True
    peer_sharing: int = 0
    query: bool = False
    peras: bool = False


@dataclass(frozen=True, slots=True)
class Propose:
    """The initiator's versions, each with its data as decoded but not interpreted, in the order of the bytes."""

    versions: Mapping[int, object]


@dataclass(frozen=True, slots=True)
class Accept:
    """The responder's choice, with the data that both sides agreed on."""

    version: int
    data: VersionData


@dataclass(frozen=True, slots=True)
class RefuseVersions:
    """VersionMismatch: none of the proposed versions; ``versions`` are the responder's."""

    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RefuseUnreadable:
    """HandshakeDecodeError: the data of ``version`` could not be decoded."""

    version: int
    text: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refused: the data of ``version`` are not acceptable (another magic: ``version data mismatch``)."""

    version: int
    text: str


@dataclass(frozen=True, slots=True)
class QueryReply:
    """The responder's versions, as asked for with ``query``; no mini-protocol runs after it."""

    versions: Mapping[int, object]


Refusal = RefuseVersions | RefuseUnreadable | Refuse
Message = Propose | Accept | Refusal | QueryReply


def encode(message: Message) -> bytes:
    """A message as bytes: definite lengths, versions in the order given."""
    match message:
        case Propose(versions):
            return cbor2.dumps([0, dict(versions)])
        case Accept(version, data):
            return cbor2.dumps([1, version, data_of(version, data)])
        case RefuseVersions(numbers):
            return cbor2.dumps([2, [0, list(numbers)]])
        case RefuseUnreadable(version, words):
            return cbor2.dumps([2, [1, version, words]])
        case Refuse(version, words):
            return cbor2.dumps([2, [2, version, words]])
        case QueryReply(versions):
            return cbor2.dumps([3, dict(versions)])


@lru_cache(maxsize=64)  # the same few nodes give the same few answers, ping after ping
def decode(payload: bytes) -> Message:
    """The one message that a frame's payload is. Raises a CodecError."""
    item = cbor.decode(payload, LIMITS[HANDSHAKE])
    entries = listed(item, "handshake message")
    tag = whole(entries[0], 8, "handshake message") if entries else None
    if tag == 0:
        return Propose(_read_versions(fields(item, 2, "proposal")[1]))
    if tag == 1:
        _, number, data = fields(item, 3, "acceptance")
        version = whole(number, 32, "version")
        return Accept(version, read_data(version, data))
    if tag == 2:
        return _read_refusal(fields(item, 2, "refusal")[1])
    if tag == 3:
        return QueryReply(_read_versions(fields(item, 2, "query reply")[1]))
    raise WrongShape(f"handshake message: {tag} is not one of 0, 1, 2, 3")


@lru_cache(maxsize=64)
def proposal(magic: int, versions: tuple[int, ...] = VERSIONS) -> bytes:
    """The bytes of our own proposal: initiator only, no peer sharing, no query."""
    data = VersionData(magic)
    return encode(Propose({v: data_of(v, data) for v in sorted(versions)}))


def data_of(version: int, data: VersionData) -> list[object]:
    """Version data as the list that goes on the wire with ``version``."""
    if version <= 10:
        return [data.magic, data.initiator_only]
    entries: list[object] = [data.magic, data.initiator_only, data.peer_sharing, data.query]
    return [*entries, data.peras] if version >= 16 else entries


def read_data(version: int, item: object) -> VersionData:
    """The data of ``version``, as decoded. Raises WrongShape, also for a version that is not known."""
    if version not in KNOWN_VERSIONS:
        raise WrongShape(f"version {version} is not known: its data cannot be read")
    if version <= 10:
        magic, one_way = fields(item, 2, f"data of version {version}")
        return VersionData(whole(magic, 32, "magic"), truth(one_way, "initiator only"))
    entries = fields(item, 5 if version >= 16 else 4, f"data of version {version}")
    sharing = whole(entries[2], 8, "peer sharing")
    if sharing > (2 if version <= 12 else 1):
        raise WrongShape(f"peer sharing: {sharing} is not a value of version {version}")
    return VersionData(
        whole(entries[0], 32, "magic"),
        truth(entries[1], "initiator only"),
        sharing,
        truth(entries[3], "query"),
        truth(entries[4], "peras") if version >= 16 else False,
    )


def choose(proposed: Propose, magic: int, versions: Sequence[int] = VERSIONS) -> Accept | Refusal | QueryReply:
    """What a responder of network ``magic`` that speaks ``versions`` answers.

    The highest common version; only its data are decoded. The agreed data are one-way when either side is.
    """
    common = [v for v in proposed.versions if v in versions]
    if not common:
        return RefuseVersions(tuple(sorted(versions)))
    version = max(common)
    try:
        theirs = read_data(version, proposed.versions[version])
    except CodecError as error:
        return RefuseUnreadable(version, str(error))
    if theirs.magic != magic:
        return Refuse(version, f"version data mismatch: network magic {theirs.magic}, ours is {magic}")
    if theirs.query:
        ours = VersionData(magic, initiator_only=False)
        return QueryReply({v: data_of(v, ours) for v in sorted(versions)})
    return Accept(version, replace(theirs, peer_sharing=0))


def _read_versions(item: object) -> Mapping[int, object]:
    versions = table(item, "versions")
    for number in versions:
        whole(number, 32, "version")
    return versions


def _read_refusal(item: object) -> Refusal:
    entries = listed(item, "reason of a refusal")
    tag = whole(entries[0], 8, "reason of a refusal") if entries else None
    if tag == 0:
        numbers = listed(fields(item, 2, "version mismatch")[1], "versions")
        return RefuseVersions(tuple(whole(n, 32, "version") for n in numbers))
    if tag not in (1, 2):
        raise WrongShape(f"reason of a refusal: {tag} is not one of 0, 1, 2")
    _, number, words = fields(item, 3, "refusal")
    version = whole(number, 32, "version")
    return (RefuseUnreadable if tag == 1 else Refuse)(version, text(words, "words of a refusal"))
