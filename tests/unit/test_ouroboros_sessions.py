"""One connection from both ends, without a socket: what each side says, accepts and refuses by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover.model import Tip
from failover.ouroboros import chainsync, handshake, keepalive
from failover.ouroboros.cbor import decode
from failover.ouroboros.chainsync import GENESIS, ORIGIN, Point
from failover.ouroboros.client import Accepted, Client, KeptAlive, TipTold
from failover.ouroboros.client import Event as ClientEvent
from failover.ouroboros.errors import (
    FrameTooLarge,
    MessageTooLarge,
    OutOfTurn,
    ProposalNotRead,
    ProposalRefused,
    ProtocolError,
    QueryAnswered,
    TrailingBytes,
    UnexpectedMessage,
    UnknownProtocol,
    VersionMismatch,
    VersionNotProposed,
    WrongCookie,
    WrongDirection,
    WrongMagic,
    WrongShape,
)
from failover.ouroboros.handshake import Accept, Propose, Refuse, RefuseUnreadable, RefuseVersions, VersionData
from failover.ouroboros.mux import CHAIN_SYNC, HANDSHAKE, KEEP_ALIVE, Mode, frame
from failover.ouroboros.server import Finished, KeepAliveAsked, Server, TipAsked

TIP = Tip(17, "ab" * 32, 7)


def exchange(client: Client, server: Server, said: bytes, tip: Tip = TIP, cut: int = 1 << 16) -> list[ClientEvent]:
    """What the client hears of a well-behaved server, both ways in pieces of ``cut`` bytes."""
    answered = b"".join(
        server.answer(event, tip, 5) for i in range(0, len(said), cut) for event in server.receive(said[i : i + cut])
    )
    return [event for i in range(0, len(answered), cut) for event in client.receive(answered[i : i + cut])]


def shaken(magic: int = 42) -> tuple[Client, Server]:
    client, server = Client(magic), Server(magic)
    assert exchange(client, server, client.propose(0)) == [Accepted(15)]
    return client, server


def reply(protocol: int, payload: bytes) -> bytes:
    return frame(protocol, payload, 0, Mode.RESPONDER)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 8, 9, 1000])
def test_both_sides_agree_however_their_bytes_are_cut(cut: int) -> None:
    client, server = Client(42), Server(42)
    assert exchange(client, server, client.propose(1), cut=cut) == [Accepted(15)]
    for cookie in (0, 23, 24, 255, 256, 65535):
        assert exchange(client, server, client.keep_alive(cookie, 2), cut=cut) == [KeptAlive(cookie)]
        assert exchange(client, server, client.find_tip(3), cut=cut) == [TipTold(TIP)]
    assert exchange(client, server, client.find_tip(3), GENESIS, cut) == [TipTold(Tip(0, "", 0))]
    ended = [server.finished]
    assert exchange(client, server, client.done(4), cut=cut) == []
    assert [*ended, server.finished] == [False, True]
    assert client.pending == server.pending == 0
    assert (client.version, server.version) == (15, 15)


def test_the_highest_common_version_is_chosen() -> None:
    client, server = Client(1, versions=(13, 14)), Server(1, versions=(10, 13))
    assert exchange(client, server, client.propose(0)) == [Accepted(13)]


def test_questions_may_be_pipelined_and_share_frames() -> None:
    client, server = shaken()
    asked = client.keep_alive(1, 0) + client.find_tip(0)
    assert exchange(client, server, asked) == [KeptAlive(1), TipTold(TIP)]
    both = keepalive.encode(keepalive.KeepAlive(1)) + keepalive.encode(keepalive.KeepAlive(2)) + keepalive.DONE
    assert server.receive(frame(KEEP_ALIVE, both, 0)) == [KeepAliveAsked(1), KeepAliveAsked(2), Finished(KEEP_ALIVE)]


def test_the_server_finds_the_origin_and_its_own_tip() -> None:
    _, server = shaken()

    def asked(*points: Point) -> chainsync.Message:
        sent = chainsync.encode(chainsync.FindIntersect(points))
        (event,) = server.receive(frame(CHAIN_SYNC, sent, 0))
        assert event == TipAsked(points)
        answer = server.answer(event, TIP, 0)[8:]
        return chainsync.parse(decode(answer, 65535))

    assert asked() == chainsync.IntersectNotFound(TIP)
    assert asked(Point(3, "cd" * 32)) == chainsync.IntersectNotFound(TIP)
    assert asked(Point(3, "cd" * 32), ORIGIN) == chainsync.IntersectFound(ORIGIN, TIP)
    assert asked(Point(17, "ab" * 32), ORIGIN) == chainsync.IntersectFound(Point(17, "ab" * 32), TIP)


def test_a_message_may_span_frames() -> None:
    client, _ = shaken()
    client.find_tip(0)
    told = chainsync.encode(chainsync.IntersectNotFound(TIP))
    assert client.receive(reply(CHAIN_SYNC, told[:5]) + reply(CHAIN_SYNC, told[5:20])) == []
    assert client.receive(reply(CHAIN_SYNC, told[20:])) == [TipTold(TIP)]


def test_a_handshake_message_may_not_span_frames() -> None:
    client = Client(42)
    client.propose(0)
    accepted = handshake.encode(Accept(15, VersionData(42)))
    with pytest.raises(ProtocolError, match="cut short"):
        client.receive(reply(HANDSHAKE, accepted[:4]) + reply(HANDSHAKE, accepted[4:]))


# ---------------------------------------------------------------- the handshake's ends


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (RefuseVersions((7, 8, 9, 10)), VersionMismatch, "the peer offers 7, 8, 9, 10, we propose 14, 15"),
        (RefuseVersions(()), VersionMismatch, "offers none"),
        (RefuseUnreadable(14, "foo"), ProposalNotRead, "cannot read our proposal of version 14: foo"),
        (Refuse(15, "version data\n\x1b[31m mismatch: \x00"), ProposalRefused, "version data \\[31m mismatch:$"),
        (Accept(13, VersionData(42)), VersionNotProposed, "version 13 was accepted where 14, 15 were proposed"),
        (Accept(15, VersionData(1)), WrongMagic, "network magic 1 where 42 was proposed"),
        (handshake.QueryReply({14: [42, True, 0, True]}), QueryAnswered, "versions instead"),
    ],
)
def test_each_end_of_a_handshake_has_its_own_error(
    answer: handshake.Message, error: type[ProtocolError], words: str
) -> None:
    client = Client(42)
    client.propose(0)
    with pytest.raises(error, match=words) as raised:
        client.receive(reply(HANDSHAKE, handshake.encode(answer)))
    assert str(raised.value).isprintable()


def test_a_refusal_of_any_length_stays_one_short_line() -> None:
    client = Client(42)
    client.propose(0)
    with pytest.raises(ProposalRefused) as raised:
        client.receive(reply(HANDSHAKE, handshake.encode(Refuse(15, "\u202e\r\nno " * 500))))
    assert len(str(raised.value)) < 300
    assert str(raised.value).isprintable()


def test_a_proposal_is_taken_as_the_answer_to_ours() -> None:
    """TCP simultaneous open: both ends are initiators."""
    client = Client(42)
    client.propose(0)
    assert client.receive(Client(42).propose(0)) == [Accepted(15)]
    client = Client(42)
    client.propose(0)
    with pytest.raises(ProposalRefused, match="version data mismatch: network magic 1"):
        client.receive(Client(1).propose(0))


@pytest.mark.parametrize(
    ("proposal", "answer"),
    [
        ({6: [42]}, RefuseVersions((14, 15))),
        ({}, RefuseVersions((14, 15))),
        ({99: "whatever", 14: [42, True, 0, False]}, Accept(14, VersionData(42))),
        ({15: [42, True, 0, False], 14: []}, Accept(15, VersionData(42))),
        ({14: [42, False, 1, False]}, Accept(14, VersionData(42, initiator_only=False))),
        ({15: [42, True], 14: [42, True, 0, False]}, RefuseUnreadable),
        ({15: [1, True, 0, False]}, Refuse),
        ({15: [42, True, 0, True]}, handshake.QueryReply),
    ],
)
def test_the_server_answers_a_proposal_as_a_node_does(proposal: dict[int, object], answer: object) -> None:
    chosen = handshake.choose(Propose(proposal), 42)
    assert chosen == answer or type(chosen) is answer


def test_a_wrong_network_is_told_in_the_reference_implementations_words() -> None:
    client, server = Client(1), Server(42)
    with pytest.raises(ProposalRefused, match="version data mismatch: network magic 1, ours is 42") as raised:
        exchange(client, server, client.propose(0))
    assert "network magic" in raised.value.mend


# ---------------------------------------------------------------- wrong bytes and wrong turns


def answering(protocol: int, payload: bytes) -> Callable[[Client], object]:
    return lambda client: client.receive(reply(protocol, payload))


TOLD = chainsync.encode(chainsync.IntersectNotFound(TIP))
KEPT = keepalive.encode(keepalive.Response(7))


@pytest.mark.parametrize(
    ("peer", "error"),
    [
        (answering(KEEP_ALIVE, keepalive.encode(keepalive.Response(8))), WrongCookie),
        (answering(KEEP_ALIVE, keepalive.encode(keepalive.KeepAlive(7))), UnexpectedMessage),
        (answering(KEEP_ALIVE, KEPT + b"\x00"), TrailingBytes),
        (answering(KEEP_ALIVE, KEPT + b"\x82"), TrailingBytes),
        (answering(KEEP_ALIVE, KEPT + KEPT), TrailingBytes),
        (answering(CHAIN_SYNC, TOLD + TOLD), TrailingBytes),
        (answering(CHAIN_SYNC, chainsync.encode(chainsync.FindIntersect(()))), UnexpectedMessage),
        (answering(CHAIN_SYNC, b"\x81\x01"), WrongShape),
        (answering(CHAIN_SYNC, b"\x98\xff" + b"\x00" * 4095), FrameTooLarge),
        (answering(HANDSHAKE, handshake.encode(Accept(15, VersionData(42)))), UnexpectedMessage),
        (answering(3, b"\x00"), UnknownProtocol),
        (lambda client: client.receive(frame(KEEP_ALIVE, b"\x82\x00\x07", 0)), WrongDirection),
        (lambda client: client.receive(frame(HANDSHAKE, handshake.encode(Refuse(1, "")), 0)), UnexpectedMessage),
    ],
)
def test_a_peer_that_answers_wrongly_is_refused_by_name(
    peer: Callable[[Client], object], error: type[ProtocolError]
) -> None:
    client, _ = shaken()
    client.keep_alive(7, 0)
    client.find_tip(0)
    with pytest.raises(error) as raised:
        peer(client)
    assert raised.type is error


def test_what_was_not_asked_for_is_refused() -> None:
    client, _ = shaken()
    with pytest.raises(UnexpectedMessage, match="nobody asked"):
        client.receive(reply(CHAIN_SYNC, TOLD))
    client = Client(42)
    with pytest.raises(UnexpectedMessage, match="nobody asked"):
        client.receive(reply(HANDSHAKE, handshake.encode(Accept(15, VersionData(42)))))


def test_a_reply_marked_as_a_request_is_refused() -> None:
    client = Client(42)
    client.propose(0)
    with pytest.raises(WrongDirection):
        client.receive(frame(HANDSHAKE, handshake.encode(Accept(15, VersionData(42))), 0))


def test_an_answer_without_an_end_is_given_up() -> None:
    client, _ = shaken()
    client.find_tip(0)
    client.receive(reply(CHAIN_SYNC, b"\x99\x0f\xff"))

    def flood() -> None:
        for _ in range(1000):
            client.receive(reply(CHAIN_SYNC, b"\x18\x00" * 300))
            assert client.pending <= 4096

    with pytest.raises(MessageTooLarge):
        flood()


def test_the_caller_is_told_when_it_is_out_of_turn() -> None:
    fresh = Client(42)
    with pytest.raises(OutOfTurn, match="before the handshake"):
        fresh.keep_alive(1, 0)
    with pytest.raises(OutOfTurn, match="before the handshake"):
        fresh.find_tip(0)
    assert fresh.done(0) == b""
    fresh.propose(0)
    with pytest.raises(OutOfTurn):
        fresh.propose(0)
    client, server = shaken()
    with pytest.raises(OutOfTurn, match="16 bits"):
        client.keep_alive(65536, 0)
    client.keep_alive(1, 0)
    client.find_tip(0)
    with pytest.raises(OutOfTurn, match="second"):
        client.keep_alive(2, 0)
    with pytest.raises(OutOfTurn, match="second"):
        client.find_tip(0)
    assert client.done(0) == b""  # neither mini-protocol can be ended while its question is open
    with pytest.raises(OutOfTurn, match="after the end"):
        client.find_tip(0)
    with pytest.raises(OutOfTurn):
        server.keep_alive(1, 0)
    with pytest.raises(OutOfTurn):
        server.tell(TIP, 0)
    with pytest.raises(OutOfTurn):
        server.shake(Accept(15, VersionData(42)), 0)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (reply(KEEP_ALIVE, KEPT), WrongDirection),
        (frame(KEEP_ALIVE, KEPT, 0), UnexpectedMessage),
        (frame(CHAIN_SYNC, TOLD, 0), UnexpectedMessage),
        (frame(HANDSHAKE, handshake.proposal(42), 0), UnexpectedMessage),
        (frame(KEEP_ALIVE, keepalive.DONE + keepalive.DONE, 0), UnexpectedMessage),
        (frame(10, b"\x00", 0), UnknownProtocol),
    ],
)
def test_a_client_that_errs_is_refused_by_name(said: bytes, error: type[ProtocolError]) -> None:
    _, server = shaken()
    with pytest.raises(error):
        server.receive(said)
    with pytest.raises(UnexpectedMessage, match="where a proposal belongs"):
        Server(42).receive(frame(HANDSHAKE, handshake.encode(Accept(15, VersionData(42))), 0))


# ---------------------------------------------------------------- arbitrary peers

payloads = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from([TOLD, KEPT, keepalive.DONE, chainsync.DONE, chainsync.FIND_NOTHING, handshake.proposal(42)]),
    st.builds(
        lambda m: handshake.encode(m), st.builds(Accept, st.integers(13, 16), st.builds(VersionData, st.just(42)))
    ),
    st.builds(lambda w: handshake.encode(Refuse(15, w)), st.text(max_size=20)),
)
frames = st.builds(frame, st.sampled_from([0, 2, 3, 8, 32767]), payloads, st.integers(0, 2**40), st.sampled_from(Mode))
streams = st.one_of(st.binary(max_size=300), st.lists(frames, max_size=6).map(b"".join))


@settings(max_examples=300)
@given(streams, st.sampled_from([0, 1, 2]), st.data())
def test_no_peer_makes_the_client_raise_anything_but_protocol_errors(
    stream: bytes, stage: int, data: st.DataObject
) -> None:
    client = Client(42)
    if stage:
        client, _ = shaken()
        client.keep_alive(7, 0)
        client.find_tip(0)
    else:
        client.propose(0)
    _pour(client.receive, stream, data)
    assert client.pending < 20_000


@settings(max_examples=300)
@given(streams, st.booleans(), st.data())
def test_no_client_makes_the_server_raise_anything_but_protocol_errors(
    stream: bytes, begun: bool, data: st.DataObject
) -> None:
    server = shaken()[1] if begun else Server(42)

    def receive(piece: bytes) -> object:
        return [server.answer(event, TIP, 0) for event in server.receive(piece)]

    _pour(receive, stream, data)
    assert server.pending < 200_000


def _pour(receive: Callable[[bytes], object], stream: bytes, data: st.DataObject) -> None:
    try:
        while stream:
            cut = data.draw(st.integers(1, len(stream)))
            receive(stream[:cut])
            stream = stream[cut:]
    except ProtocolError as error:
        if not str(error).isprintable():
            raise AssertionError(f"not fit to print: {error}") from error
