"""One connection from the responder's end, sans-IO: bytes in, events out; method calls, bytes out.

For simulated nodes and tests. ``receive`` tells what the client asks, ``answer`` says what a well-behaved node
would; a node that is to misbehave calls the other methods, or sends bytes of its own. Times are microseconds of any
monotonic clock, given by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from failover.model import Tip
from failover.ouroboros import chainsync, handshake, keepalive
from failover.ouroboros.cbor import Splitter
from failover.ouroboros.chainsync import ORIGIN, Point
from failover.ouroboros.errors import OutOfTurn, UnexpectedMessage, WrongDirection
from failover.ouroboros.handshake import VERSIONS
from failover.ouroboros.mux import CHAIN_SYNC, HANDSHAKE, KEEP_ALIVE, LIMITS, Demuxer, Frame, Mode, frame


@dataclass(frozen=True, slots=True)
class Proposed:
    """The client proposes versions."""

    proposal: handshake.Propose


@dataclass(frozen=True, slots=True)
class KeepAliveAsked:
    """The client asks whether we are there."""

    cookie: int


@dataclass(frozen=True, slots=True)
class TipAsked:
    """The client asks for an intersection, and with it for the tip."""

    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The client will use this mini-protocol no more."""

    protocol: int


Event = Proposed | KeepAliveAsked | TipAsked | Finished


class Server:
    """A session with a client, for a node of network ``magic`` that speaks ``versions``.

    Once a method raised a ProtocolError, the session is over. ``version`` is the agreed one, None before.
    """

    __slots__ = ("_asked", "_demuxer", "_ended", "_proposed", "_splitters", "magic", "version", "versions")

    def __init__(self, magic: int, versions: tuple[int, ...] = VERSIONS) -> None:
        self.magic = magic
        self.versions = versions
        self.version: int | None = None
        self._proposed = False
        self._demuxer = Demuxer()
        self._splitters: Mapping[int, Splitter] = {
            KEEP_ALIVE: Splitter(LIMITS[KEEP_ALIVE]),
            CHAIN_SYNC: Splitter(LIMITS[CHAIN_SYNC], indefinite_at=1),
        }
        self._asked = {KEEP_ALIVE: 0, CHAIN_SYNC: 0}  # questions that are not answered yet: a client may pipeline
        self._ended: set[int] = set()

    @property
    def finished(self) -> bool:
        """Whether the client has ended both mini-protocols: its FIN is then a clean end."""
        return self._ended == {KEEP_ALIVE, CHAIN_SYNC}

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of a frame or a message."""
        return self._demuxer.pending + sum(s.pending for s in self._splitters.values())

    # ------------------------------------------------ what came

    def receive(self, data: bytes) -> list[Event]:
        """What the client's next bytes mean, however they are cut. Raises a ProtocolError."""
        events: list[Event] = []
        for received in self._demuxer.feed(data):
            if received.mode is not Mode.INITIATOR:
                raise WrongDirection(f"a reply on mini-protocol {received.protocol}, where we asked nothing")
            if received.protocol == HANDSHAKE:
                events.append(self._propose(received))
            else:
                self._take(received, events)
        return events

    def _propose(self, received: Frame) -> Proposed:
        if self._proposed:
            raise UnexpectedMessage("a second handshake message on one connection")
        message = handshake.decode(received.payload)
        if not isinstance(message, handshake.Propose):
            raise UnexpectedMessage("a handshake message of a responder, where a proposal belongs")
        self._proposed = True
        return Proposed(message)

    def _take(self, received: Frame, events: list[Event]) -> None:
        protocol = received.protocol
        if self.version is None:
            raise UnexpectedMessage(f"a message on mini-protocol {protocol} before the handshake")
        for item in self._splitters[protocol].feed(received.payload):
            if protocol in self._ended:
                raise UnexpectedMessage(f"a message on mini-protocol {protocol} after its end")
            events.append(self._read(protocol, item))

    def _read(self, protocol: int, item: object) -> Event:
        message: object = keepalive.parse(item) if protocol == KEEP_ALIVE else chainsync.parse(item)
        match message:
            case keepalive.KeepAlive(cookie):
                self._asked[protocol] += 1
                return KeepAliveAsked(cookie)
            case chainsync.FindIntersect(points):
                self._asked[protocol] += 1
                return TipAsked(points)
            case keepalive.Done() | chainsync.Done():
                self._ended.add(protocol)
                return Finished(protocol)
        raise UnexpectedMessage(f"a message of a responder on mini-protocol {protocol}, where a question belongs")

    # ------------------------------------------------ what to send

    def answer(self, event: Event, tip: Tip, now_us: int) -> bytes:
        """What a well-behaved node whose selected chain ends at ``tip`` answers; empty where nothing is due."""
        match event:
            case Proposed(proposal):
                return self.shake(handshake.choose(proposal, self.magic, self.versions), now_us)
            case KeepAliveAsked(cookie):
                return self.keep_alive(cookie, now_us)
            case TipAsked(points):
                known = [p for p in points if p == ORIGIN or p == Point(tip.slot, tip.hash)]
                return self.tell(tip, now_us, known[0] if known else None)
            case Finished():
                return b""

    def shake(self, message: handshake.Message, now_us: int) -> bytes:
        """An answer to the proposal. With an Accept, the mini-protocols may begin."""
        if not self._proposed or self.version is not None:
            raise OutOfTurn("an answer to a proposal that is not there")
        if isinstance(message, handshake.Accept):
            self.version = message.version
        return frame(HANDSHAKE, handshake.encode(message), now_us, Mode.RESPONDER)

    def keep_alive(self, cookie: int, now_us: int) -> bytes:
        """An answer to a keep-alive."""
        self._answered(KEEP_ALIVE)
        return frame(KEEP_ALIVE, keepalive.encode(keepalive.Response(cookie)), now_us, Mode.RESPONDER)

    def tell(self, tip: Tip, now_us: int, found: Point | None = None) -> bytes:
        """An answer to a question for an intersection: the tip, and the point that was ``found``, if any."""
        self._answered(CHAIN_SYNC)
        message = chainsync.IntersectNotFound(tip) if found is None else chainsync.IntersectFound(found, tip)
        return frame(CHAIN_SYNC, chainsync.encode(message), now_us, Mode.RESPONDER)

    def _answered(self, protocol: int) -> None:
        if not self._asked[protocol]:
            raise OutOfTurn(f"an answer on mini-protocol {protocol} to a question that is not there")
        self._asked[protocol] -= 1
