"""One connection from the initiator's end, sans-IO: bytes in, events out; method calls, bytes out.

The client proposes, then may ask for a keep-alive and for the tip, each as often as it likes but one at a time, then
says that it is done. Whatever the peer sends that was not asked for ends the session with a ProtocolError, so a
flooding peer costs no more than one frame. Times are microseconds of any monotonic clock, given by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from failover.model import Tip
from failover.ouroboros import chainsync, handshake, keepalive
from failover.ouroboros.cbor import Splitter
from failover.ouroboros.errors import (
    OutOfTurn,
    ProposalNotRead,
    ProposalRefused,
    QueryAnswered,
    TrailingBytes,
    UnexpectedMessage,
    VersionMismatch,
    VersionNotProposed,
    WrongCookie,
    WrongDirection,
    WrongMagic,
    plain,
    spell,
)
from failover.ouroboros.handshake import VERSIONS
from failover.ouroboros.mux import CHAIN_SYNC, HANDSHAKE, KEEP_ALIVE, LIMITS, Demuxer, Frame, Mode, frame


@dataclass(frozen=True, slots=True)
class Accepted:
    """The handshake is done."""

    version: int


@dataclass(frozen=True, slots=True)
class KeptAlive:
    """The peer answered the keep-alive, with the right cookie."""

    cookie: int


@dataclass(frozen=True, slots=True)
class TipTold:
    """The peer told its tip."""

    tip: Tip


Event = Accepted | KeptAlive | TipTold


# The answer to FindIntersect has at most 110 bytes, so we need not be ready for the largest chain-sync message.
_LIMITS: Mapping[int, int] = {**LIMITS, CHAIN_SYNC: 4096}


class Handshake(Enum):
    """Where the handshake stands."""

    NEW = "new"
    PROPOSED = "proposed"
    ACCEPTED = "accepted"


_CHECK_NETWORK = "check that the network magic is the one of the node's network"


class Client:
    """A session with a peer of network ``magic``. Once a method raised a ProtocolError, the session is over.

    ``version`` is the agreed version, None before the peer accepted.
    """

    __slots__ = ("_cookie", "_demuxer", "_done", "_finding", "_shaking", "_splitters", "_versions", "magic", "version")

    def __init__(self, magic: int, versions: tuple[int, ...] = VERSIONS) -> None:
        self.magic = magic
        self.version: int | None = None
        self._versions = versions
        self._demuxer = Demuxer(_LIMITS)
        self._splitters: Mapping[int, Splitter] = {
            KEEP_ALIVE: Splitter(_LIMITS[KEEP_ALIVE]),
            CHAIN_SYNC: Splitter(_LIMITS[CHAIN_SYNC], indefinite_at=1),
        }
        self._shaking = Handshake.NEW
        self._cookie: int | None = None  # of the keep-alive that is not answered yet
        self._finding = False  # whether a FindIntersect is not answered yet
        self._done = False

    # ------------------------------------------------ what to send

    def propose(self, now_us: int) -> bytes:
        """The proposal; first of all, and once."""
        if self._shaking is not Handshake.NEW:
            raise OutOfTurn("a second proposal on one connection")
        self._shaking = Handshake.PROPOSED
        return frame(HANDSHAKE, handshake.proposal(self.magic, self._versions), now_us)

    def keep_alive(self, cookie: int, now_us: int) -> bytes:
        """A keep-alive with a ``cookie`` within 0 to 65535."""
        self._check_open("a keep-alive")
        if self._cookie is not None:
            raise OutOfTurn("a second keep-alive before the first is answered")
        if not 0 <= cookie <= keepalive.MAX_COOKIE:
            raise OutOfTurn(f"the keep-alive cookie {cookie}: it has 16 bits")
        self._cookie = cookie
        return frame(KEEP_ALIVE, keepalive.encode(keepalive.KeepAlive(cookie)), now_us)

    def find_tip(self, now_us: int) -> bytes:
        """A FindIntersect without points, which any node answers with its tip."""
        self._check_open("a question for the tip")
        if self._finding:
            raise OutOfTurn("a second question for the tip before the first is answered")
        self._finding = True
        return frame(CHAIN_SYNC, chainsync.FIND_NOTHING, now_us)

    def done(self, now_us: int) -> bytes:
        """The end of both mini-protocols, after which the peer takes a FIN for a clean end; empty when there is none.

        A mini-protocol whose question is not answered cannot be ended; nothing is sent for it.
        """
        if self._shaking is not Handshake.ACCEPTED or self._done:
            return b""
        self._done = True
        words = b"" if self._finding else frame(CHAIN_SYNC, chainsync.DONE, now_us)
        return words if self._cookie is not None else words + frame(KEEP_ALIVE, keepalive.DONE, now_us)

    # ------------------------------------------------ what came

    def receive(self, data: bytes) -> list[Event]:
        """What the peer's next bytes mean, however they are cut. Raises a ProtocolError."""
        events: list[Event] = []
        for received in self._demuxer.feed(data):
            if received.protocol == HANDSHAKE:
                events.append(self._shake(received))
            else:
                self._take(received, events)
        return events

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of a frame or a message."""
        return self._demuxer.pending + sum(s.pending for s in self._splitters.values())

    def _check_open(self, what: str) -> None:
        if self._shaking is not Handshake.ACCEPTED or self._done:
            raise OutOfTurn(f"{what} {'after the end' if self._done else 'before the handshake'} of the session")

    def _take(self, received: Frame, events: list[Event]) -> None:
        protocol = received.protocol
        if received.mode is not Mode.RESPONDER:
            raise WrongDirection(f"a request on mini-protocol {protocol}, where we accept replies only")
        splitter = self._splitters[protocol]
        if not self._awaits(protocol):
            raise UnexpectedMessage(f"{len(received.payload)} bytes on mini-protocol {protocol} that nobody asked for")
        for item in splitter.feed(received.payload):
            if not self._awaits(protocol):
                raise TrailingBytes(f"a second message on mini-protocol {protocol} behind the answer")
            events.append(self._kept_alive(item) if protocol == KEEP_ALIVE else self._told(item))
        if splitter.pending and not self._awaits(protocol):
            raise TrailingBytes(f"{splitter.pending} bytes on mini-protocol {protocol} behind the answer")

    def _awaits(self, protocol: int) -> bool:
        return self._cookie is not None if protocol == KEEP_ALIVE else self._finding

    def _kept_alive(self, item: object) -> KeptAlive:
        message = keepalive.parse(item)
        if not isinstance(message, keepalive.Response):
            raise UnexpectedMessage("a keep-alive message of a client, where an answer belongs")
        if message.cookie != self._cookie:
            raise WrongCookie(f"the keep-alive cookie {message.cookie} came back where {self._cookie} was sent")
        self._cookie = None
        return KeptAlive(message.cookie)

    def _told(self, item: object) -> TipTold:
        message = chainsync.parse(item)
        if not isinstance(message, chainsync.IntersectNotFound | chainsync.IntersectFound):
            raise UnexpectedMessage("a chain-sync message of a client, where an answer belongs")
        self._finding = False
        return TipTold(message.tip)

    # ------------------------------------------------ the handshake

    def _shake(self, received: Frame) -> Accepted:
        if self._shaking is not Handshake.PROPOSED:
            raise UnexpectedMessage("a handshake message that nobody asked for")
        message = handshake.decode(received.payload)
        # In a TCP simultaneous open both ends are initiators: the peer's proposal is then its answer to ours.
        if isinstance(message, handshake.Propose):
            message = handshake.choose(message, self.magic, self._versions)
        elif received.mode is not Mode.RESPONDER:
            raise WrongDirection("a handshake reply marked as a request")
        if not isinstance(message, handshake.Accept):
            raise _refusal(message, self._versions)
        if message.version not in self._versions:
            raise VersionNotProposed(
                f"version {message.version} was accepted where {spell(self._versions)} were proposed"
            )
        if message.data.magic != self.magic:
            raise WrongMagic(
                f"the peer accepted for network magic {message.data.magic} where {self.magic} was proposed",
                _CHECK_NETWORK,
            )
        self._shaking = Handshake.ACCEPTED
        self.version = message.version
        return Accepted(message.version)


def _refusal(message: handshake.Message, ours: tuple[int, ...]) -> Exception:
    match message:
        case handshake.RefuseVersions(versions):
            return VersionMismatch(
                f"no version in common: the peer offers {spell(versions)}, we propose {spell(ours)}",
                versions,
                "update the older of the two",
            )
        case handshake.RefuseUnreadable(version, words):
            return ProposalNotRead(f"the peer cannot read our proposal of version {version}: {plain(words)}")
        case handshake.Refuse(version, words):
            return ProposalRefused(f"the peer refused version {version}: {plain(words)}", _CHECK_NETWORK)
        case _:
            return QueryAnswered("the peer answered with its versions instead of accepting one")
