"""A client that holds one session with each of its targets and dials again at once: the clock of bench/handover.py.

A process of its own, ``python -m bench.redialer --target HOST:PORT --parent PID``. For each session it prints a line
with CLOCK_BOOTTIME at which the handshake was done, and the producer that it reached.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep  # noqa: TID251  a bench waits on the machine's clock

from failover.host import RealHost
from failover.lab import process
from failover.lab.chain import teller
from failover.lab.node import parse_address
from failover.model import Address
from failover.ouroboros.client import Client, TipTold
from failover.ouroboros.errors import ProtocolError

MAGIC = 42
READ_SIZE = 4096
PATIENCE = 60.0  # seconds; a node ends a session that is silent for longer
AGAIN = 0.001  # seconds between attempts
HOST = RealHost()


@dataclass(frozen=True, slots=True)
class Reached:
    """A session that came to be: ``at`` is CLOCK_BOOTTIME in seconds."""

    at: float
    target: str
    producer: str


def sessions(log: Path) -> list[Reached]:
    """What a redialer has printed so far."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    return [Reached(**json.loads(line)) for line in lines if line.startswith("{") and line.endswith("}\n")]


PROPOSAL = Client(MAGIC).propose(0)


def _session(target: Address) -> None:
    """One session, to its end; an attempt that fails costs next to nothing. Raises OSError, ProtocolError."""
    with socket.create_connection((target.host, target.port), PATIENCE) as line:
        line.sendall(PROPOSAL)
        answer = line.recv(READ_SIZE)
        if not answer:
            return
        at = HOST.now().mono
        client = Client(MAGIC)
        client.propose(0)
        client.receive(answer)
        line.sendall(client.find_tip(0))
        for event in client.receive(line.recv(READ_SIZE)):
            if isinstance(event, TipTold):
                reached = {"at": at, "target": str(target), "producer": teller(event.tip) or "unknown"}
                os.write(1, json.dumps(reached).encode() + b"\n")  # whole, though both threads write
                line.recv(1)


def _keep(target: Address) -> None:
    """Sessions, one after the other, until the process is ended."""
    while True:
        with suppress(OSError, ProtocolError):
            _session(target)
        sleep(AGAIN)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", action="append", type=parse_address, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args()
    process.end_with_parent(given.parent)
    threads = [threading.Thread(target=_keep, args=(target,)) for target in given.target]
    for thread in threads:
        thread.start()
    process.ready()
    for thread in threads:
        thread.join()
