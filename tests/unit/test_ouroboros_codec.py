"""Frames and CBOR: what is accepted, and the name of what is not."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.model import Tip
from failover.ouroboros import chainsync, handshake, keepalive
from failover.ouroboros.cbor import MAX_DEPTH, Splitter, decode
from failover.ouroboros.errors import (
    CodecError,
    DuplicateKey,
    EmptyFrame,
    FrameTooLarge,
    Incomplete,
    MalformedCbor,
    MessageTooLarge,
    ProtocolError,
    TooDeep,
    TrailingBytes,
    UnknownProtocol,
    WrongShape,
    plain,
)
from failover.ouroboros.mux import CHAIN_SYNC, HANDSHAKE, KEEP_ALIVE, LIMITS, Demuxer, Mode, frame

LIMIT = 5760


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("ff", MalformedCbor),
        ("1c", MalformedCbor),
        ("fe", MalformedCbor),
        ("82009f", WrongShape),  # an indefinite list where a definite one belongs
        ("bf0101ff", WrongShape),
        ("5f4100ff", WrongShape),
        ("62ffff", MalformedCbor),  # not UTF-8
        ("f97e00", WrongShape),  # a float
        ("fb7ff8000000000000", WrongShape),
        ("f7", WrongShape),
        ("f820", WrongShape),
        ("c249010000000000000000", WrongShape),  # a bignum: no tags
        ("d81c81d81d00", WrongShape),  # a list that holds itself
        ("d8238163285b", WrongShape),  # a regular expression
        ("a201010102", DuplicateKey),
        ("a20101180102", DuplicateKey),  # the same key, spelled in two ways
        ("a1616101", WrongShape),
        ("a18001", WrongShape),
        ("82", Incomplete),
        ("", Incomplete),
        ("19ff", Incomplete),
        ("0000", TrailingBytes),
        ("81" * (MAX_DEPTH + 1) + "00", TooDeep),
        ("81" * 5000, TooDeep),
        ("9bffffffffffffffff", MessageTooLarge),
        ("bbffffffffffffffff", MessageTooLarge),
        ("5bffffffffffffffff", MessageTooLarge),
        ("7b7fffffffffffffff", MessageTooLarge),
        ("00" * (LIMIT + 1), MessageTooLarge),
    ],
)
def test_each_wrong_item_has_its_own_error(data: str, error: type[ProtocolError]) -> None:
    with pytest.raises(error) as raised:
        decode(bytes.fromhex(data), LIMIT)
    assert raised.type is error
    assert str(raised.value)


def test_an_indefinite_list_is_accepted_only_where_points_stand() -> None:
    assert Splitter(100, indefinite_at=1).feed(bytes.fromhex("82049fff")) == [[4, []]]
    assert Splitter(100, indefinite_at=1).feed(bytes.fromhex("82049f8080ff")) == [[4, [[], []]]]
    with pytest.raises(WrongShape, match="indefinite"):
        Splitter(100, indefinite_at=1).feed(bytes.fromhex("9f0480ff"))
    with pytest.raises(WrongShape, match="indefinite"):
        Splitter(100).feed(bytes.fromhex("82049fff"))
    with pytest.raises(MalformedCbor, match="break"):
        Splitter(100, indefinite_at=1).feed(bytes.fromhex("8204ff"))


def test_items_come_out_whole_however_they_are_cut() -> None:
    stream = bytes.fromhex("820019303982049f80ff8102a10e84182af500f463616263")
    whole = [[0, 12345], [4, [[]]], [2], {14: [42, True, 0, False]}, "abc"]
    assert Splitter(100, indefinite_at=1).feed(stream) == whole
    splitter = Splitter(100, indefinite_at=1)
    assert [item for i in range(len(stream)) for item in splitter.feed(stream[i : i + 1])] == whole
    assert splitter.pending == 0


@pytest.mark.parametrize("flood", [b"\x98\x40" + b"\x18\x00" * 5000, b"\x98\x28" + b"\x41\x00" * 5000])
def test_never_more_than_one_item_is_buffered(flood: bytes) -> None:
    splitter = Splitter(64)

    def pour() -> None:
        for i in range(len(flood)):
            splitter.feed(flood[i : i + 1])
            assert splitter.pending <= 64

    with pytest.raises(MessageTooLarge):
        pour()


def test_a_frame_is_eight_bytes_and_a_payload() -> None:
    made = frame(KEEP_ALIVE, b"\x81\x02", 0x1_2345_6789, Mode.RESPONDER)
    assert made.hex() == "23456789800800028102"
    (seen,) = Demuxer().feed(made)
    assert (seen.protocol, seen.mode, seen.timestamp, seen.payload) == (8, Mode.RESPONDER, 0x23456789, b"\x81\x02")


def test_a_long_message_is_cut_into_frames_but_a_handshake_message_never_is() -> None:
    long = bytes(30000)
    frames = Demuxer().feed(frame(CHAIN_SYNC, long, 0))
    assert [len(f.payload) for f in frames] == [12288, 12288, 5424]
    assert b"".join(f.payload for f in frames) == long
    with pytest.raises(FrameTooLarge):
        frame(HANDSHAKE, long, 0)
    with pytest.raises(EmptyFrame):
        frame(HANDSHAKE, b"", 0)


@pytest.mark.parametrize(
    ("protocol", "length", "error"),
    [
        (HANDSHAKE, 5761, FrameTooLarge),
        (KEEP_ALIVE, 1025, FrameTooLarge),
        (KEEP_ALIVE, 0, EmptyFrame),
        (3, 1, UnknownProtocol),
        (0x7FFF, 1, UnknownProtocol),
    ],
)
def test_a_frame_is_refused_by_its_header_alone(protocol: int, length: int, error: type[ProtocolError]) -> None:
    with pytest.raises(error):
        Demuxer().feed(struct.pack(">IHH", 0, protocol, length))


@given(st.lists(st.binary(max_size=60), max_size=20), st.data())
def test_frames_come_out_whole_however_they_are_cut(pieces: list[bytes], data: st.DataObject) -> None:
    payloads = [piece for piece in pieces if piece]
    stream = b"".join(frame(CHAIN_SYNC, payload, i) for i, payload in enumerate(payloads))
    demuxer, seen = Demuxer(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        seen += demuxer.feed(stream[:cut])
        stream = stream[cut:]
    assert [f.payload for f in seen] == payloads
    assert demuxer.pending == 0


@given(st.binary(max_size=200), st.sampled_from([None, 1]), st.data())
def test_arbitrary_bytes_raise_nothing_but_codec_errors_and_never_fill_memory(
    junk: bytes, indefinite_at: int | None, data: st.DataObject
) -> None:
    splitter = Splitter(48, indefinite_at)
    try:
        while junk:
            cut = data.draw(st.integers(1, len(junk)))
            splitter.feed(junk[:cut])
            junk = junk[cut:]
            assert splitter.pending <= 48
    except CodecError:
        pass


@given(st.binary(max_size=100))
def test_a_message_decoder_raises_nothing_but_codec_errors(junk: bytes) -> None:
    for prefix in (b"", b"\x82\x00", b"\x82\x00\xa1\x0e", b"\x83\x01\x0f", b"\x82\x02", b"\x82\x02\x83\x02\x0e"):
        with suppress(CodecError):
            handshake.decode(prefix + junk)


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    "payload",
    [
        "80",
        "00",
        "a0",
        "8104",
        "820000",
        "8200f5",
        "8300a000",
        "8204a0",
        "820580",
        "f6",
        "81f5",
        "8120",
        "83010f8201f5",  # two entries for version 15
        "83010f84f5f500f4",  # true is no magic
        "83010f841a2d964a0900f400",  # 0 is not false
        "83010f84182af502f4",  # peer sharing 2
        "83011084182af500f4",  # four entries for version 16
        "83011863841820f500f4",  # a version that nobody knows
        "83010f841b0000000100000000f500f4",  # a magic of more than 32 bits
        "820281",
        "82028100",
        "820282000e",
        "82028200817820",
        "82028301" + "0e00",
        "820284020e6161f6",
        "8202820381",
        "8200a1200100",
    ],
)
def test_a_handshake_message_of_the_wrong_shape_is_refused(payload: str) -> None:
    with pytest.raises(CodecError):
        handshake.decode(bytes.fromhex(payload))


@pytest.mark.parametrize("item", [[], 0, {}, None, [3], [0], [0, True], [0, -1], [0, 65536], [1, "a"], [2, 0], [False]])
def test_a_keep_alive_message_of_the_wrong_shape_is_refused(item: object) -> None:
    with pytest.raises(WrongShape):
        keepalive.parse(item)


@pytest.mark.parametrize(
    "item",
    [
        [],
        [0],
        [6],
        [6, []],
        [6, [[], True]],
        [6, [[], -1]],
        [6, [[], 1 << 64]],
        [6, [[1, b"x" * 31], 1]],
        [6, [[1, "x" * 32], 1]],
        [6, [[1], 1]],
        [6, [[True, b"x" * 32], 1]],
        [5, [[], 0]],
        [5, {}, [[], 0]],
        [4, 0],
        [4, [0]],
        [7, 7],
        ["6"],
    ],
)
def test_a_chain_sync_message_of_the_wrong_shape_is_refused(item: object) -> None:
    with pytest.raises(WrongShape):
        chainsync.parse(item)


slots = st.integers(0, 2**64 - 1)
tips = st.one_of(
    st.just(chainsync.GENESIS), st.builds(Tip, slots, st.binary(min_size=32, max_size=32).map(bytes.hex), slots)
)
points = st.one_of(
    st.just(chainsync.ORIGIN),
    st.builds(chainsync.Point, slots, st.binary(min_size=32, max_size=32).map(bytes.hex)),
)


@given(
    st.one_of(
        st.builds(chainsync.FindIntersect, st.lists(points, max_size=20).map(tuple)),
        st.builds(chainsync.IntersectFound, points, tips),
        st.builds(chainsync.IntersectNotFound, tips),
        st.just(chainsync.Done()),
    )
)
def test_every_chain_sync_message_survives_the_wire(message: chainsync.Message) -> None:
    (item,) = Splitter(LIMITS[CHAIN_SYNC]).feed(chainsync.encode(message))
    assert chainsync.parse(item) == message


magics = st.integers(0, 2**32 - 1)


@given(
    st.one_of(
        st.builds(
            handshake.Accept,
            st.integers(13, 15),
            st.builds(handshake.VersionData, magics, st.booleans(), st.integers(0, 1), st.booleans()),
        ),
        st.builds(handshake.Accept, st.integers(7, 10), st.builds(handshake.VersionData, magics, st.booleans())),
        st.builds(handshake.RefuseVersions, st.lists(st.integers(0, 99), max_size=9).map(tuple)),
        st.builds(handshake.Refuse, st.integers(0, 99), st.text(max_size=300)),
        st.builds(handshake.RefuseUnreadable, st.integers(0, 99), st.text(max_size=300)),
    )
)
def test_every_handshake_message_survives_the_wire(message: handshake.Message) -> None:
    assert handshake.decode(handshake.encode(message)) == message


@given(st.text(max_size=2000))
def test_a_peers_words_are_made_safe_to_print(words: str) -> None:
    shown = plain(words)
    assert len(shown) <= 200
    assert shown.isprintable()
