"""What a full node sent and accepted, byte for byte: read here, and written again the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from failover.model import Tip
from failover.ouroboros import chainsync, handshake, keepalive
from failover.ouroboros.cbor import decode
from failover.ouroboros.client import Accepted, Client, Event, KeptAlive, TipTold
from failover.ouroboros.errors import Incomplete, MalformedCbor, ProtocolError, UnexpectedMessage, WrongShape
from failover.ouroboros.mux import CHAIN_SYNC, HANDSHAKE, KEEP_ALIVE, LIMITS, Mode, frame
from failover.ouroboros.server import Server

EXCHANGES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "n2n-golden.json").read_text())
NOT_READABLE = {
    ("not CBOR", "ffffffff"): MalformedCbor,
    ("a list where a map belongs", "820080"): WrongShape,
    ("keep-alive cookie too large", "82001a00010000"): WrongShape,
    # Its hash lacks the last byte: the node waited for it, and so do we.
    (
        "an unknown point",
        "820481821a03520ff458201979d7dd2c7211cb7ce393c83aceca09675ec7786741620676e16c3ad3ac81",
    ): Incomplete,
}
HASH = "32f44d49c2f37485789c913487fb4741315fe7f30fecccbb597ee5ff611f85f207"[:64]


def payloads() -> list[tuple[str, int, str]]:
    return [
        (exchange["name"], side["protocol"], side["payload"])
        for exchange in EXCHANGES
        for step in exchange["steps"]
        for side in (step["send"], step["receive"])
        if side is not None
    ]


def again(protocol: int, payload: bytes) -> bytes:
    """The payload, read as a message and written anew."""
    if protocol == HANDSHAKE:
        return handshake.encode(handshake.decode(payload))
    item = decode(payload, LIMITS[protocol])
    if protocol == KEEP_ALIVE:
        return keepalive.encode(keepalive.parse(item))
    return chainsync.encode(chainsync.parse(item))


@pytest.mark.parametrize(("name", "protocol", "payload"), payloads())
def test_every_golden_payload_is_written_as_it_was_read_or_refused_by_name(
    name: str, protocol: int, payload: str
) -> None:
    refusal = NOT_READABLE.get((name, payload))
    if refusal is not None:
        with pytest.raises(refusal):
            again(protocol & 0x7FFF, bytes.fromhex(payload))
        return
    assert again(protocol & 0x7FFF, bytes.fromhex(payload)).hex() == payload


@pytest.mark.parametrize(
    ("protocol", "payload"),
    [
        (HANDSHAKE, "8200a4078202f4088202f4098202f40a8202f4"),
        (HANDSHAKE, "83010a8202f4"),
        (HANDSHAKE, "82028200840708090a"),
        (HANDSHAKE, "820283010163666f6f"),
        (HANDSHAKE, "820283020163666f6f"),
        (HANDSHAKE, "8200a20e841a2d964a09f500f40f841a2d964a09f500f4"),
        (HANDSHAKE, "83011085182af400f4f5"),
        (HANDSHAKE, "8203a20e84182af400f40f84182af400f4"),
        (KEEP_ALIVE, "8200193039"),
        (KEEP_ALIVE, "8201193039"),
        (KEEP_ALIVE, "820017"),
        (KEEP_ALIVE, "820118ff"),
        (KEEP_ALIVE, "8102"),
        (CHAIN_SYNC, "820480"),
        (CHAIN_SYNC, "82048180"),
        (CHAIN_SYNC, "8107"),
        (CHAIN_SYNC, "830580828000"),
        (CHAIN_SYNC, "82068280" + "00"),
        (
            CHAIN_SYNC,
            "820682821a03520ff458201979d7dd2c7211cb7ce393c83aceca09675ec7786741620676e16c3ad3ac81031a00351333",
        ),
    ],
)
def test_vectors_of_other_implementations_are_written_as_they_were_read(protocol: int, payload: str) -> None:
    assert again(protocol, bytes.fromhex(payload)).hex() == payload


def test_the_proposal_is_the_one_that_a_full_node_accepted() -> None:
    assert handshake.proposal(42).hex() == EXCHANGES[0]["steps"][0]["send"]["payload"]
    assert handshake.proposal(764824073).hex() == "8200a20e841a2d964a09f500f40f841a2d964a09f500f4"


def test_the_client_understands_a_full_nodes_answers() -> None:
    client = Client(42)
    events: list[Event] = []

    def exchange(said: bytes, step: dict[str, Any]) -> None:
        assert said[8:].hex() == step["send"]["payload"]
        received = step["receive"]
        events.extend(
            client.receive(frame(received["protocol"] & 0x7FFF, bytes.fromhex(received["payload"]), 7, Mode(1)))
        )

    shake, keep, tip = EXCHANGES[0]["steps"]
    exchange(client.propose(0), shake)
    exchange(client.keep_alive(12345, 0), keep)
    exchange(client.find_tip(0), tip)
    assert events == [Accepted(15), KeptAlive(12345), TipTold(Tip(17, HASH, 7))]


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda e: str(e["name"]))
def test_our_server_answers_where_a_full_node_does(exchange: dict[str, Any]) -> None:
    server = Server(42, versions=(13, 14, 15))
    for step in exchange["steps"]:
        answers = answer(server, step["send"])
        if step["receive"] is None:  # where the node resets or stays silent, ours refuses, raises or waits
            assert not any(isinstance(a, handshake.Accept) for a in answers)
            continue
        (said,) = answers
        theirs = bytes.fromhex(step["receive"]["payload"])
        if isinstance(said, handshake.Accept):
            # That node would use the connection both ways; the specification has the two agree on one way.
            agreed = handshake.decode(theirs)
            assert isinstance(agreed, handshake.Accept)
            assert (said.version, said.data.magic) == (agreed.version, agreed.data.magic)
        else:
            assert said == theirs


def answer(server: Server, sent: dict[str, Any]) -> list[object]:
    """What our server says to one golden frame: a handshake message, or a reply as bytes; nothing when it raises."""
    try:
        events = server.receive(frame(sent["protocol"], bytes.fromhex(sent["payload"]), 7))
    except ProtocolError:
        return []
    replies = [server.answer(event, Tip(17, HASH, 7), 0)[8:] for event in events]
    return [handshake.decode(reply) if sent["protocol"] == HANDSHAKE else reply for reply in replies]


def test_a_keep_alive_before_the_handshake_is_refused_by_name() -> None:
    with pytest.raises(UnexpectedMessage, match="before the handshake"):
        Server(42).receive(frame(KEEP_ALIVE, bytes.fromhex("8200193039"), 0))
