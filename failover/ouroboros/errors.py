"""Every way in which a peer, or a byte, can be wrong: one class each.

ProtocolError               the peer's bytes end the connection; str() is one line for a person
├── MuxError                the frames
│   ├── EmptyFrame          a frame without payload
│   ├── FrameTooLarge       a frame larger than any message of its mini-protocol
│   ├── UnknownProtocol     a mini-protocol that is not spoken here
│   └── WrongDirection      a request where a reply belongs, or the other way round
├── CodecError              the bytes of a message
│   ├── MalformedCbor       not CBOR
│   ├── TooDeep             lists within lists within lists
│   ├── MessageTooLarge     more bytes, or more entries, than the message may have
│   ├── Incomplete          a handshake message that its frame cuts short
│   ├── TrailingBytes       something behind the end of the message
│   ├── DuplicateKey        a map with the same key twice
│   └── WrongShape          good CBOR, but not this message: types, lengths, ranges
├── OrderError              the right bytes at the wrong time
│   ├── UnexpectedMessage   the peer speaks out of turn
│   ├── OutOfTurn           we would: the caller asks for a message that the session cannot send now
│   └── WrongCookie         a keep-alive answer to another question
└── HandshakeError          the peer understood, and it comes to nothing
    ├── VersionMismatch     no version in common
    ├── ProposalRefused     refused, with the peer's words (mostly: another network magic)
    ├── ProposalNotRead     the peer says that it cannot decode our proposal
    ├── VersionNotProposed  a version accepted that was never proposed
    ├── WrongMagic          accepted, but for another network
    └── QueryAnswered       a list of versions instead of a connection
"""

from __future__ import annotations

from collections.abc import Iterable

from failover.errors import FailoverError

SHOWN = 200  # characters of a peer's own words that an error repeats


class ProtocolError(FailoverError):
    """The peer's bytes end the connection. The session that raised it must not be used again."""


class MuxError(ProtocolError):
    """A frame is wrong."""


class EmptyFrame(MuxError):
    """A frame without payload."""


class FrameTooLarge(MuxError):
    """A frame larger than any message of its mini-protocol."""


class UnknownProtocol(MuxError):
    """A mini-protocol that is not spoken here."""


class WrongDirection(MuxError):
    """A request where a reply belongs, or the other way round."""


class CodecError(ProtocolError):
    """The bytes of a message are wrong."""


class MalformedCbor(CodecError):
    """Not CBOR."""


class TooDeep(CodecError):
    """Nested more deeply than any message."""


class MessageTooLarge(CodecError):
    """More bytes, or more entries, than the message may have."""


class Incomplete(CodecError):
    """A handshake message that its frame cuts short."""


class TrailingBytes(CodecError):
    """Something behind the end of the message."""


class DuplicateKey(CodecError):
    """A map with the same key twice."""


class WrongShape(CodecError):
    """Good CBOR, but not this message: types, lengths or ranges."""


class OrderError(ProtocolError):
    """The right bytes at the wrong time."""


class UnexpectedMessage(OrderError):
    """The peer speaks out of turn."""


class OutOfTurn(OrderError):
    """The caller asks for a message that the session cannot send now."""


class WrongCookie(OrderError):
    """A keep-alive answer with another cookie than the question's."""


class HandshakeError(ProtocolError):
    """The peer understood, and it comes to nothing."""


class VersionMismatch(HandshakeError):
    """No version in common. ``versions`` are the peer's."""

    def __init__(self, message: str, versions: tuple[int, ...], mend: str = "") -> None:
        super().__init__(message, mend)
        self.versions = versions


class ProposalRefused(HandshakeError):
    """The peer refused, with its own words."""


class ProposalNotRead(HandshakeError):
    """The peer says that it cannot decode our proposal."""


class VersionNotProposed(HandshakeError):
    """The peer accepted a version that was never proposed."""


class WrongMagic(HandshakeError):
    """The peer accepted, but for another network."""


class QueryAnswered(HandshakeError):
    """The peer answered with a list of versions instead of a connection."""


def plain(text: str) -> str:
    """A peer's words made safe to print: one line, no control characters, at most ``SHOWN`` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * SHOWN]).split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def spell(numbers: Iterable[int]) -> str:
    """Version numbers for a sentence, at most 20 of them: ``14, 15``; ``none`` when there are none."""
    shown = [str(n) for n in numbers]
    return ", ".join(shown[:20] + ["…"] * (len(shown) > 20)) or "none"
