"""A simulated relay: one connection to each of its targets, to which it sticks until it ends, and a log of it all.

A real relay behaves so, and that is what makes a switch slow and a split brain last: it keeps a session that works,
gives up on one whose keep-alive goes unanswered for 60 s, and redials after 5, 10, 20, 40, 80, 160 s (give or take
2 s). Sources: ouroboros-network, peer selection governor and KeepAlive codec.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from failover.host import RealHost
from failover.lab import process
from failover.lab.chain import teller
from failover.lab.node import parse_address
from failover.lab.sessions import Log
from failover.model import Address, Tip
from failover.ouroboros.client import Accepted, Client, TipTold
from failover.ouroboros.errors import ProtocolError
from failover.ports import Host

ANSWER_WITHIN, HANDSHAKE_WITHIN, ASK_EVERY, ALIVE_EVERY = 60.0, 10.0, 10.0, 5.0  # seconds, at scale 1
LEAST_WAIT, LEAST_ALIVE = 1.0, 0.5  # seconds at any scale: that an answer may take; from one line to the next
FIRST_REDIAL, LAST_REDIAL, JITTER = 5.0, 160.0, 2.0  # seconds, at scale 1
READ_SIZE = 1 << 16


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """What a relay is told when it starts. ``scale``: how many times faster than in life it does everything."""

    name: str
    targets: tuple[Address, ...]
    log: Path
    magic: int = 42
    scale: float = 1.0
    seed: int = 0
    source: str | None = None  # the address that it connects from

    @property
    def ask_every(self) -> float:
        """Seconds from one keep-alive and question for the tip to the next."""
        return ASK_EVERY / self.scale


def redial(failures: int, chance: float, scale: float = 1.0) -> float:
    """Seconds until the next attempt after so many failures in a row; ``chance`` is in [0, 1)."""
    wait = FIRST_REDIAL * 2.0 ** min(failures, 10)
    return (min(LAST_REDIAL, wait) + JITTER * (2 * chance - 1)) / scale


class _Dialogue:
    """One session with one target, from the first byte to the last."""

    def __init__(self, relay: Relay, target: Address) -> None:
        self._relay = relay
        self._client = Client(relay.settings.magic)
        self._target = str(target)
        self._unanswered = 0
        self.accepted: float | None = None
        self.producer: str | None = None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Propose, then ask again and again; why the session ended. Raises OSError, ProtocolError."""
        relay, host = self._relay, self._relay.host
        writer.write(self._client.propose(self._now_us()))
        self._unanswered = 1
        limit = relay.limit(HANDSHAKE_WITHIN)
        until = host.now().mono + limit  # an answer is due, or, when all are there, the next question
        while True:
            try:
                async with host.timeout(max(0.0, until - host.now().mono)):
                    data = await reader.read(READ_SIZE)
            except TimeoutError:
                if self._unanswered:
                    return f"no answer within {limit:g} s"
                self._ask(writer)
                limit = relay.limit(ANSWER_WITHIN)
                until = host.now().mono + limit
                continue
            if not data:
                return "closed by the other end"
            self._take(data)
            if not self._unanswered:  # after the handshake the first question is due at once
                until = host.now().mono + (relay.settings.ask_every if self.producer else 0.0)

    def _ask(self, writer: asyncio.StreamWriter) -> None:
        now_us = self._now_us()
        writer.write(self._client.keep_alive(self._relay.cookie(), now_us) + self._client.find_tip(now_us))
        self._unanswered = 2

    def _take(self, data: bytes) -> None:
        for event in self._client.receive(data):
            self._unanswered -= 1
            if isinstance(event, Accepted):
                self.accepted = self._relay.host.now().mono
            elif isinstance(event, TipTold):
                self._told(event.tip)

    def _told(self, tip: Tip) -> None:
        relay = self._relay
        relay.tips[self._target] = tip.slot
        if self.producer is None:
            self.producer = teller(tip) or "unknown"
            relay.note("opened", target=self._target, producer=self.producer, **{"from": self.accepted}, tip=tip.slot)

    def _now_us(self) -> int:
        return int(self._relay.host.now().mono * 1e6)


class Relay:
    """A relay. ``run`` keeps its sessions until it is cancelled; ``tips`` are the slots last told, by target."""

    def __init__(self, settings: RelaySettings, host: Host | None = None) -> None:
        self.settings = settings
        self.host = host or RealHost()
        self.tips: dict[str, int] = {}
        self._log = Log(settings.log, settings.name)
        self._cookie = 0

    async def run(self) -> None:
        """Dial every target, stick to it, redial; until cancelled."""
        self.note("started")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._live())
                for target in self.settings.targets:
                    tasks.create_task(self._keep(target))
        finally:
            self._log.close()

    def note(self, event: str, **fields: object) -> None:
        """Write one line of the log."""
        self._log.write(self.host.now().mono, event, **fields)

    def limit(self, seconds: float) -> float:
        """A limit at the relay's scale, but long enough for a busy machine."""
        return max(LEAST_WAIT, seconds / self.settings.scale)

    def cookie(self) -> int:
        """The next keep-alive's cookie."""
        self._cookie = (self._cookie + 1) % 2**16
        return self._cookie

    async def _live(self) -> None:
        while True:
            await self.host.sleep(max(LEAST_ALIVE, ALIVE_EVERY / self.settings.scale))
            self.note("alive", tips=self.tips)

    async def _keep(self, target: Address) -> None:
        failures = 0
        while True:
            failures = 0 if await self._session(target) else failures + 1
            key = f"{self.settings.seed} {self.settings.name} {target} {failures}"
            chance = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
            # After a session, and after the first failure, the wait is the shortest.
            await self.host.sleep(redial(max(0, failures - 1), chance, self.settings.scale))

    async def _session(self, target: Address) -> bool:
        """One attempt, and the session if there is one, to its end; whether there was one."""
        dialogue = _Dialogue(self, target)
        local = (self.settings.source, 0) if self.settings.source else None
        why = "the relay ended"
        try:
            async with self.host.timeout(self.limit(HANDSHAKE_WITHIN)):
                reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=local)
            try:
                why = await dialogue.talk(reader, writer)
            finally:
                writer.transport.abort()
        except TimeoutError:
            why = "no connection in time"
        except (OSError, ProtocolError) as error:
            why = str(error)
        finally:
            self.tips.pop(str(target), None)
            if dialogue.producer is None:
                self.note("failed", target=str(target), why=why)
            else:
                ends = {"from": dialogue.accepted, "to": self.host.now().mono}
                self.note("closed", target=str(target), producer=dialogue.producer, **ends, why=why)
        return dialogue.producer is not None


# ---------------------------------------------------------------- as a process


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    """What the process is told when it is started."""
    parser = argparse.ArgumentParser(prog, description="One simulated relay, until it is ended.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--target", required=True, action="append", type=parse_address, metavar="HOST:PORT")
    parser.add_argument("--log", required=True, type=Path, metavar="FILE")
    parser.add_argument("--magic", type=int, default=42)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="how many times faster than in life it does everything"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the jitter between attempts")
    parser.add_argument("--source", metavar="HOST", help="the address to connect from")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent process ends")
    return parser


async def run(settings: RelaySettings) -> None:
    """Run one relay until SIGTERM or SIGINT, then close its sessions in its log."""
    running = asyncio.create_task(Relay(settings).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    process.ready()
    await running


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The process's exit status."""
    parser = arguments(prog)
    given = parser.parse_args(argv)
    if not (math.isfinite(given.scale) and given.scale > 0):
        parser.error(f"--scale {given.scale}: give a number above 0")
    if given.parent is not None:
        process.end_with_parent(given.parent)
    settings = RelaySettings(
        given.name, tuple(given.target), given.log, given.magic, given.scale, given.seed, given.source
    )
    try:
        asyncio.run(run(settings))
    except asyncio.CancelledError:
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
