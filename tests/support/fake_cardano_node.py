"""A program that does with credentials, SIGHUP and counters what cardano-node does, and nothing else.

It dies of missing files at its start, flag or none; SIGHUP makes it read them again: a missing one disables forging,
a damaged or mismatched one changes nothing, and before its replay ended SIGHUP has no effect.
Source: cardano-node Run.hs updateBlockForging. One line a change of mind goes to ``--log``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import select
import signal
import socket
import sys
import time  # noqa: TID251 - a program of its own, on real time
from pathlib import Path

FLAGS = ("--non-producing-node", "--start-as-non-producing-node")


def words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--shelley-kes-key", type=Path, required=True)
    parser.add_argument("--shelley-vrf-key", type=Path, required=True)
    parser.add_argument("--shelley-operational-certificate", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--slot", type=float, default=0.1)
    parser.add_argument("--replay", type=Path, help="it replays for as long as this file exists")
    parser.add_argument("--names", choices=("old", "new", "none"), default="new")
    parser.add_argument("--deaf", action="store_true", help="forges on, whatever SIGHUP finds")
    for flag in FLAGS:
        parser.add_argument(flag, dest="idle", action="store_true")
    return parser.parse_args()


def fingerprint(options: argparse.Namespace) -> str | None:
    """The set of credentials in short; None: a file is missing. Raises ValueError: they do not belong together."""
    texts = []
    for path in (options.shelley_kes_key, options.shelley_vrf_key, options.shelley_operational_certificate):
        try:
            texts.append(json.loads(path.read_bytes())["cborHex"])
        except FileNotFoundError:
            return None
    kes, certificate = bytes.fromhex(texts[0]), bytes.fromhex(texts[2])
    if certificate[4:36] != hashlib.blake2b(kes[-64:], digest_size=32).digest():
        raise ValueError("KES key and certificate do not belong together")
    return hashlib.blake2b("".join(texts).encode(), digest_size=4).hexdigest()


class Node:
    """The node's mind."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.keys: str | None = None
        self.slots = 0
        self.leads = 0
        self.started = time.monotonic()

    @property
    def replaying(self) -> bool:
        return self.options.replay is not None and self.options.replay.exists()

    def note(self, text: str) -> None:
        with open(self.options.log, "a") as log:
            log.write(f"{os.getpid()} {text}\n")

    def begin(self) -> None:
        try:
            keys = fingerprint(self.options)
        except ValueError as error:
            sys.exit(f"{error}")
        if keys is None:
            self.note("died of missing files")
            sys.exit("a credential is missing")
        self.keys = None if self.options.idle else keys
        self.note(f"started {'idle' if self.options.idle else keys}")

    def hang_up(self) -> None:
        if self.replaying:
            self.note("sighup not effective")
            return
        try:
            keys = fingerprint(self.options)
        except (ValueError, OSError) as error:
            self.note(f"sighup error {type(error).__name__}")
            return
        if not self.options.deaf:
            self.keys = keys
        self.note(f"sighup {keys}")

    def tick(self) -> None:
        slots = int((time.monotonic() - self.started) / self.options.slot)
        if not self.replaying and self.keys is not None:
            self.leads += slots - self.slots
        self.slots = slots

    def metrics(self) -> bytes:
        lead = "Forge_forge_about_to_lead_int" if self.options.names == "old" else "Forge_about_to_lead_counter"
        lines = [
            "# TYPE cardano_node_metrics_slotNum_int gauge",
            f"cardano_node_metrics_slotNum_int {self.slots}",
            'cardano_node_metrics_currentKESPeriod_int{host="a b"} 100',
            'cardano_node_metrics_cardano_build_info{version="10.5.1",version_major="10"} 1',
        ]
        if self.options.names != "none" and (self.leads or not self.options.idle):
            lines.append(f"cardano_node_metrics_{lead} {self.leads}")
        body = "\n".join([*lines, ""]).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def listener(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    made.listen(16)
    return made


def main() -> None:
    if "--version" in sys.argv:
        print(f"cardano-node {os.environ.get('FAKE_NODE_VERSION', '10.5.1')} - linux-x86_64 - ghc-9.6")
        return
    options = words()
    here, there = os.pipe2(os.O_NONBLOCK)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.set_wakeup_fd(there)
    node = Node(options)
    node.begin()
    numbers = listener(options.metrics_port)
    peers: socket.socket | None = None
    while True:
        if peers is None and not node.replaying:
            peers = listener(options.port)
            node.note("listens")
        waiting: list[int | socket.socket] = [here, numbers, *([peers] if peers is not None else [])]
        ready, _, _ = select.select(waiting, [], [], options.slot / 2)
        node.tick()
        if here in ready:
            for _ in os.read(here, 100):
                node.hang_up()
        for one in ready:
            if isinstance(one, socket.socket):
                connection, _ = one.accept()
                with connection:
                    if one is numbers:
                        connection.recv(4096)
                        connection.sendall(node.metrics())


if __name__ == "__main__":
    main()
