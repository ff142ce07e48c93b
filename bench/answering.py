"""The server that both clients of bench/pings.py talk to: it answers by rote, so that the clients are what is slow.

A process of its own, ``python -m bench.answering --listen PORT --parent PID``. It writes the answers that
failover/ouroboros/server.py gives, made once; it checks nothing, and takes each write of a client as whole frames,
which holds on loopback for messages this small.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import cast

from failover.lab import process
from failover.model import Tip
from failover.ouroboros.client import Client
from failover.ouroboros.mux import CHAIN_SYNC, HANDSHAKE, KEEP_ALIVE
from failover.ouroboros.server import Server

MAGIC = 42
TIP = Tip(123_456_789, "ab" * 32, 10_000_000)
HEADER = 8
DONE_BYTES = 2  # a message that ends a mini-protocol is that short, and is not answered


def rote() -> dict[int, bytes]:
    """The answers to a proposal and to a question for the tip, by mini-protocol, as whole frames."""
    client, server = Client(MAGIC), Server(MAGIC)
    answers = {}
    for protocol, ask in ((HANDSHAKE, client.propose), (CHAIN_SYNC, client.find_tip)):
        (event,) = server.receive(ask(0))
        answers[protocol] = server.answer(event, TIP, 0)
        client.receive(answers[protocol])
    return answers


def _kept_alive(question: bytes) -> bytes:
    """The answer has the question's length and cookie, the responder's bit, and 1 for 0 as the message's kind."""
    return question[:4] + b"\x80" + question[5:9] + b"\x01" + question[10:]


class Answering(asyncio.Protocol):
    """One client."""

    answers = rote()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answer, at = b"", 0
        while at < len(data):
            protocol = data[at + 4] << 8 | data[at + 5]
            length = data[at + 6] << 8 | data[at + 7]
            if length > DONE_BYTES:
                question = data[at : at + HEADER + length]
                answer += _kept_alive(question) if protocol == KEEP_ALIVE else self.answers[protocol]
            at += HEADER + length
        if answer:
            self._transport.write(answer)


async def serve(port: int) -> None:
    """Answer at 127.0.0.1 until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port, backlog=1024)
    process.ready()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    process.end_with_parent(given.parent)
    asyncio.run(serve(given.listen))
