"""Frames: an 8-byte header and a payload, several mini-protocols on one connection.

    u32 timestamp (microseconds, low 32 bits) | u16 mode bit and protocol number | u16 payload length

All big-endian. The mode bit is 0 from the initiator (who connected) and 1 from the responder. Nobody reads the
timestamp. Source: ouroboros-network, docs/network-spec/mux.tex and Network/Mux/Codec.hs (its comment on the mode bit
says the reverse of its code).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from failover.ouroboros.errors import EmptyFrame, FrameTooLarge, UnknownProtocol

HANDSHAKE = 0
CHAIN_SYNC = 2
KEEP_ALIVE = 8

# Bytes of one message, and of what is buffered for it. Handshake and chain-sync: the specification's. Keep-alive:
# a message has at most 11 bytes; the reference implementation allows more than anyone could mean.
LIMITS: Mapping[int, int] = {HANDSHAKE: 5760, CHAIN_SYNC: 65535, KEEP_ALIVE: 1024}

SENT_PAYLOAD = 12288  # the largest frame that a node sends, and we too

_HEADER = struct.Struct(">IHH")
_RESPONDER = 0x8000


class Mode(IntEnum):
    """Who sends a frame."""

    INITIATOR = 0
    RESPONDER = 1


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as received."""

    protocol: int
    mode: Mode
    timestamp: int
    payload: bytes


def frame(protocol: int, payload: bytes, now_us: int, mode: Mode = Mode.INITIATOR) -> bytes:
    """One message as bytes to send: a frame, or several when it is longer than ``SENT_PAYLOAD``.

    ``now_us`` is any monotonic clock in microseconds. Raises EmptyFrame for an empty payload, and FrameTooLarge
    for a handshake message that a single frame cannot hold.
    """
    word = protocol | _RESPONDER if mode else protocol
    if 0 < len(payload) <= SENT_PAYLOAD:
        return _HEADER.pack(now_us & 0xFFFFFFFF, word, len(payload)) + payload
    if not payload:
        raise EmptyFrame("a frame without payload cannot be sent")
    if protocol == HANDSHAKE:
        raise FrameTooLarge(f"a handshake message of {len(payload)} bytes cannot be sent in one frame")
    pieces = (payload[i : i + SENT_PAYLOAD] for i in range(0, len(payload), SENT_PAYLOAD))
    return b"".join(_HEADER.pack(now_us & 0xFFFFFFFF, word, len(piece)) + piece for piece in pieces)


class Demuxer:
    """Cuts a byte stream into frames, whatever the pieces in which it arrives.

    ``limits`` names the mini-protocols that are spoken, with the largest payload of each: a frame of another
    protocol, or a larger one, is refused by its header alone, so never more than one allowed frame is buffered.
    """

    __slots__ = ("_buffer", "_limits")

    def __init__(self, limits: Mapping[int, int] = LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes, in order. Raises EmptyFrame, FrameTooLarge, UnknownProtocol."""
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        frames: list[Frame] = []
        at, size = 0, len(buffer)
        while size - at >= 8:
            timestamp, word, length = _HEADER.unpack_from(buffer, at)
            protocol = word & 0x7FFF
            self._check(protocol, length)
            end = at + 8 + length
            if end > size:
                break
            mode = Mode.RESPONDER if word & _RESPONDER else Mode.INITIATOR
            frames.append(Frame(protocol, mode, timestamp, bytes(buffer[at + 8 : end])))
            at = end
        if at or buffer is data:
            self._buffer = bytearray(buffer[at:])
        return frames

    def _check(self, protocol: int, length: int) -> None:
        limit = self._limits.get(protocol)
        if limit is None:
            raise UnknownProtocol(f"a frame of mini-protocol {protocol}, which is not spoken here")
        if length > limit:
            raise FrameTooLarge(f"a frame of {length} bytes where mini-protocol {protocol} has at most {limit}")
        if length == 0:
            raise EmptyFrame(f"a frame of mini-protocol {protocol} without payload")
