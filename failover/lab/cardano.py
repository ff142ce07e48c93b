"""A simulated cardano-node: the lab's node with the command line, the credentials and the metrics of a producer.

It obeys what the real one obeys, by version (cardano_version.py; facts of cardano-node: PR #4024, Run.hs
``updateBlockForging``):

- It dies at its start when a credential file that it was given is missing, unusable or (VRF key) open to others, with
  the flag as without; when its configuration or topology cannot be read; and of a flag that its version does not know.
- It forges while it holds credentials in memory: the about-to-lead counter rises once a slot. SIGHUP reads the paths
  given at the start again: a missing file disables, good ones enable, whatever else is wrong changes nothing and is
  traced. Of several faults the first one in the node's order of reading counts: VRF key, certificate, KES key.
- With the flag it starts not forging. What it read at its start it keeps through a replay: removing files meanwhile
  changes nothing, and SIGHUP is not effective before it listens.
- ``forging_enabled`` lies as it does in that version, and numbers about KES stay when forging was disabled.
- SIGHUP reads the topology again; a bad one changes nothing. A root that left it is not redialled, and its session
  stays. One-way roots (InitiatorOnly) are dialled from any port, the others from the node's own when ``--lab-duplex``.

What it does NOT do: make, send or check blocks, keep a chain or a ledger (its tip is the lab's, from the clock; its
leader slots are every so many slots), verify a signature, draw leaders by VRF, evolve a KES key, answer on its local
socket, gossip, resolve names again, take blocks or questions on sessions that it opened or misbehave on them (node.py's
commands are for those that others open), act on a KES agent's socket or on Byron credentials. Between exec and its
handler, a few tenths of a second, SIGHUP kills it; a real node has that moment too, and a shorter one.

What is true of it, by which a story is judged, is told on ``--lab-control`` (node.py's commands, ``forging``, and
``replayed`` to end the replay) and appended slot by slot to ``--lab-log``, which outlives a kill -9: ``forged(path)``
reads that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import stat
import struct
import sys
from collections import deque
from collections.abc import Mapping, MutableSequence, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from failover.host import RealHost
from failover.journal import iso
from failover.lab import control, credentials, process
from failover.lab.cardano_version import NEW_FLAG, OLD_FLAG, Naming, Tells, Version, naming, prometheus
from failover.lab.chain import Chain
from failover.lab.credentials import Held, Missing, Unusable
from failover.lab.haproxy import LabError
from failover.lab.httpport import HttpPort, Reply, Request
from failover.lab.node import BACKLOG, Node, parse_address
from failover.lab.relay import ANSWER_WITHIN, ASK_EVERY, HANDSHAKE_WITHIN, LEAST_WAIT, redial
from failover.model import Address
from failover.ouroboros.client import Accepted, Client
from failover.ouroboros.errors import ProtocolError
from failover.ports import Host

MOST_FILE = 1 << 20  # bytes of a configuration or topology
MOST_ROOTS = 64
MOST_SPANS = 1000
MOST_ENDED = 100  # sessions that are remembered
READ_SIZE = 1 << 16
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
REPLAYED = 99.998  # percent, where a real node's gauge was seen to stay


class Death(Exception):
    """What a node says when it does not start."""


@dataclass(frozen=True, slots=True)
class Kes:
    """How KES periods go by: the one that slot 0 is in, slots in one, and how many a key lasts (mainnet's)."""

    period: int = 0
    slots: int = 129_600
    evolutions: int = 62

    def at(self, slot: int) -> int:
        """The period of a slot."""
        return self.period + slot // self.slots


# ---------------------------------------------------------------- forging


@dataclass(frozen=True, slots=True)
class Span:
    """Slots in a row in which one process could forge. ``start`` and ``end``: Unix time of its first and last check."""

    start: float
    end: float
    first: int
    last: int
    pid: int


def extend(found: MutableSequence[Span], at: float, slot: int, pid: int) -> None:
    """Add a check (Unix time, slot, pid) to the spans before it."""
    before = found[-1] if found else None
    if before is not None and before.pid == pid and before.last + 1 == slot:
        found[-1] = Span(before.start, at, before.first, slot, pid)
    else:
        found.append(Span(at, at, slot, slot, pid))


def forged(log: Path) -> tuple[Span, ...]:
    """What a ``--lab-log`` tells of all processes that wrote it; empty when there is none. Torn lines are skipped."""
    found: list[Span] = []
    with suppress(FileNotFoundError):
        for line in log.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, KeyError):
                row = json.loads(line)
                extend(found, float(row["at"]), int(row["slot"]), int(row["pid"]))
    return tuple(found)


class Forger:
    """What a node does about forging, and what it says of it. It is told the time.

    ``flagged``: it was started as non-producing. ``given``: it was given credentials at all.
    """

    def __init__(
        self, version: Version, kes: Kes, held: Held | None, *, flagged: bool, given: bool, leads: int, log: Path | None
    ) -> None:
        self.held = None if flagged else held
        self.about_to_lead = 0
        self._version = version
        self._kes = kes
        self._flagged = flagged
        self._given = given
        self._leads = leads
        self._log = log
        self._reloads = 0
        self._last: int | None = None  # the slot that was checked last
        self._counts = {"leader": 0, "not_leader": 0, "cannot": 0, "forged": 0, "adopted": 0, "missed": 0}
        self._certificate: dict[str, int] = {}  # gauges: they stay
        self._spans: deque[Span] = deque(maxlen=MOST_SPANS)

    def reload(self, held: Held | None) -> None:
        """A SIGHUP that was effective."""
        self._reloads += 1
        self.held = held

    def able(self, slot: int) -> bool:
        """Whether a block could be signed in this slot."""
        return self.held is not None and 0 <= self._kes.at(slot) - self.held.period < self._kes.evolutions

    def check(self, slot: int, utc: float) -> None:
        """What happens once a slot."""
        if self.held is None or slot == self._last:
            return
        if self._last is not None:
            self._counts["missed"] += max(0, slot - self._last - 1)  # also over a time as standby: #6698
        self._last = slot
        self.about_to_lead += 1
        expiry, period = self.held.period + self._kes.evolutions, self._kes.at(slot)
        self._certificate = {
            "kes_period": period,
            "kes_remaining": max(0, expiry - period),
            "certificate_start": self.held.period,
            "certificate_expiry": expiry,
        }
        if not self.able(slot):
            self._counts["cannot"] += 1
            return
        leads = self._leads > 0 and slot % self._leads == 0
        for count in ("leader", "forged", "adopted") if leads else ("not_leader",):
            self._counts[count] += 1
        self._note(slot, utc)

    def _note(self, slot: int, utc: float) -> None:
        extend(self._spans, utc, slot, os.getpid())
        if self._log is not None:
            line = json.dumps({"at": utc, "slot": slot, "pid": os.getpid()}) + "\n"
            with suppress(OSError), self._log.open("ab", buffering=0) as file:  # a full disk is part of a story
                file.write(line.encode())

    def truth(self, slot: int) -> dict[str, Any]:
        """What is so."""
        return {
            "forging": self.able(slot),
            "holds": asdict(self.held) if self.held is not None else None,
            "about_to_lead": self.about_to_lead,
            "spans": [asdict(span) for span in self._spans],
        }

    def told(self) -> dict[str, float]:
        """What its metrics say."""
        told: dict[str, float] = {}
        said = self._said()
        if said is not None:
            told["forging"] = said
        if self._last is not None:
            told |= {"about_to_lead": self.about_to_lead, **self._counts, **self._certificate}
        return told

    def _said(self) -> int | None:
        truth = int(self.held is not None)
        match self._version.forging_enabled:
            case Tells.NOTHING:
                return None
            case Tells.ONE_AT_START:
                return int(self._given) if not self._reloads else truth
            case Tells.ZERO_FOR_GOOD:
                return 0 if self._flagged else truth
            case Tells.TRUTH:
                return truth


# ---------------------------------------------------------------- the port and the sessions


class Door(Node):
    """The lab's node behind a door that opens when the replay is over. ``shared``: its sessions may use its port."""

    def __init__(self, *arguments: Any, shared: bool, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.opened = False
        self._shared = shared

    async def listen(self) -> None:
        """See Node; nothing while the door is shut."""
        if not self.opened or self._listener is not None:
            return
        if not self._shared:
            await super().listen()
            return
        host, port = self.address.host, self.address.port
        try:
            self._listener = await asyncio.start_server(self._serve, host, port, backlog=BACKLOG, reuse_port=True)
        except OSError as error:
            raise LabError(
                f"{self.name}: cannot listen at {self.address}: {error.strerror}", "choose another"
            ) from None
        self.address = Address(host, self._listener.sockets[0].getsockname()[1])


@dataclass(slots=True)
class Leg:
    """A peer that is dialled, and the session with it; ``local`` is empty while there is none."""

    target: Address
    one_way: bool
    wanted: bool = True
    local: str = ""
    start: float = 0.0  # Unix time

    def record(self) -> dict[str, Any]:
        """The session as it is told."""
        return {"peer": str(self.target), "local": self.local, "one_way": self.one_way, "start": self.start}


class Outbound:
    """The sessions that a node opens: kept, and redialled after 5, 10, 20 ... 160 s (scaled) when they end."""

    def __init__(self, own: Node, magic: int, scale: float, host: Host, *, duplex: bool) -> None:
        self._own = own
        self._magic = magic
        self._scale = scale
        self._host = host
        self._duplex = duplex
        self._legs: dict[str, tuple[Leg, asyncio.Task[None]]] = {}
        self._ended: deque[dict[str, Any]] = deque(maxlen=MOST_ENDED)

    def want(self, targets: Mapping[Address, bool]) -> None:
        """Dial these (to whether one-way). Others that are known are not redialled; their sessions stay."""
        for leg, _ in self._legs.values():
            leg.wanted = leg.target in targets
        for target, one_way in targets.items():
            if str(target) not in self._legs:
                leg = Leg(target, one_way or not self._duplex)
                self._legs[str(target)] = leg, asyncio.create_task(self._keep(leg))

    def told(self) -> dict[str, Any]:
        """The sessions that are open, and those that ended."""
        return {
            "outbound": [leg.record() for leg, _ in self._legs.values() if leg.local],
            "outbound_ended": list(self._ended),
        }

    async def close(self) -> None:
        """End them all."""
        tasks = [task for _, task in self._legs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, leg: Leg) -> None:
        failures = 0
        while leg.wanted:
            failures = 0 if await self._session(leg) else failures + 1
            await self._host.sleep(redial(max(0, failures - 1), self._host.random(), self._scale))
        del self._legs[str(leg.target)]

    async def _session(self, leg: Leg) -> bool:
        """One attempt, and the session if there is one, to its end; whether there was one."""
        why = "the node ended"
        try:
            async with self._host.timeout(self._limit(HANDSHAKE_WITHIN)):
                reader, writer = await self._connected(leg)
            try:
                why = await self._talk(leg, reader, writer)
            finally:
                writer.transport.abort()
        except TimeoutError:
            why = "no connection in time"
        except (OSError, ProtocolError) as error:
            why = str(error)
        finally:
            there = bool(leg.local)
            if there:
                self._ended.append({**leg.record(), "end": self._host.now().utc, "why": why})
            leg.local = ""
        return there

    async def _connected(self, leg: Leg) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        end = socket.socket(socket.AF_INET6 if ":" in leg.target.host else socket.AF_INET)
        try:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)  # else its own port stays taken
            if not leg.one_way:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                end.bind((self._own.address.host, self._own.address.port))
            await asyncio.get_running_loop().sock_connect(end, (leg.target.host, leg.target.port))
            return await asyncio.open_connection(sock=end)
        except BaseException:
            end.close()
            raise

    async def _talk(self, leg: Leg, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Propose, then ask again and again; why the session ended. Raises OSError, ProtocolError."""
        client, cookie, unanswered = Client(self._magic), 0, 1
        writer.write(client.propose(self._now_us()))
        limit = self._limit(HANDSHAKE_WITHIN)
        until = self._host.now().mono + limit  # an answer is due, or, when all are there, the next question
        while True:
            try:
                async with self._host.timeout(max(0.0, until - self._host.now().mono)):
                    data = await reader.read(READ_SIZE)
            except TimeoutError:
                if unanswered:
                    return f"no answer within {limit:g} s"
                cookie = (cookie + 1) % 2**16
                writer.write(client.keep_alive(cookie, self._now_us()) + client.find_tip(self._now_us()))
                unanswered, limit = 2, self._limit(ANSWER_WITHIN)
                until = self._host.now().mono + limit
                continue
            if not data:
                return "closed by the other end"
            for event in client.receive(data):
                unanswered -= 1
                if isinstance(event, Accepted):
                    leg.local = "{}:{}".format(*writer.get_extra_info("sockname")[:2])
                    leg.start = self._host.now().utc
            if not unanswered:  # after the handshake the first question is due at once
                until = self._host.now().mono + (ASK_EVERY / self._scale if cookie else 0.0)

    def _limit(self, seconds: float) -> float:
        return max(LEAST_WAIT, seconds / self._scale)

    def _now_us(self) -> int:
        return int(self._host.now().mono * 1e6)


# ---------------------------------------------------------------- files


def config_of(path: Path) -> dict[str, Any]:
    """A configuration file. Raises Death."""
    try:
        return _object(path)
    except ValueError as error:
        raise Death(f"Error in Configuration: {error}") from None


def roots_of(path: Path, version: Version) -> dict[Address, bool]:
    """The local roots of a topology file, and whether they are one-way. Raises ValueError."""
    document = _object(path)
    if "Producers" in document:
        raise ValueError(f"{path}: the old topology format, which a node with P2P does not read")
    roots: dict[Address, bool] = {}
    try:
        for group in document["localRoots"]:
            one_way = version.one_way_roots and group.get("diffusionMode") == "InitiatorOnly"
            for point in group["accessPoints"]:
                roots[Address(str(point["address"]), int(point["port"]))] = one_way
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: Is your topology file formatted correctly? {type(error).__name__} {error}") from None
    return dict(list(roots.items())[:MOST_ROOTS])


def _object(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MOST_FILE))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: not a JSON object")
    return document


# ---------------------------------------------------------------- the node


class CardanoNode:
    """One node. Raises Death when it cannot start; ``given`` is what ``arguments`` took."""

    def __init__(self, given: argparse.Namespace, host: Host | None = None) -> None:
        self._given = given
        self._host = host or RealHost()
        self._version = Version.of(given.lab_version)
        self._flag = self._known_flag()
        self._config = config_of(given.config)
        self._naming: Naming = naming(self._version, self._config)
        self._roots = self._topology_at_start()
        self._topology_error = ""
        held = self._held_at_start()
        flagged = self._flag is not None or self._configured()
        self._forger = Forger(
            self._version,
            Kes(given.lab_kes_period, given.lab_kes_slots, given.lab_kes_evolutions),
            held,
            flagged=flagged and not given.lab_ignores_flag,
            given=held is not None,
            leads=given.lab_leads_every,
            log=given.lab_log,
        )
        self._chain = Chain(given.lab_chain_epoch, given.lab_slot_seconds)
        scale = given.lab_scale
        address = Address(given.host_addr, given.port)
        self.door = Door(given.lab_name, address, given.lab_magic, self._chain, scale=scale, shared=given.lab_duplex)
        self._outbound = Outbound(self.door, given.lab_magic, scale, self._host, duplex=given.lab_duplex)
        self._metrics: HttpPort | None = None
        self._started = self._host.now()
        self._sighups = 0
        self._replayed = asyncio.Event()

    # ------------------------------------------------ its start

    def _known_flag(self) -> str | None:
        flag = {OLD_FLAG: self._given.non_producing_node, NEW_FLAG: self._given.start_as_non_producing_node}
        found = [name for name, is_set in flag.items() if is_set]
        for name in found:
            if name not in self._version.flags:
                raise Death(f"Invalid option `{name}'\n\nUsage: cardano-node run [--topology FILEPATH] ...")
        if OLD_FLAG in found and NEW_FLAG in self._version.flags:
            trace("Warning", "Startup.DeprecatedFlag", flag=OLD_FLAG, use=NEW_FLAG)
        return found[0] if found else None

    def _configured(self) -> bool:
        return self._version.config_key and self._config.get("StartAsNonProducingNode") is True

    def _topology_at_start(self) -> dict[Address, bool]:
        try:
            return roots_of(self._given.topology, self._version)
        except ValueError as error:
            raise Death(f"Cardano.Node.Configuration.TopologyP2P.readTopologyFile: {error}") from None

    def _held_at_start(self) -> Held | None:
        _check_vrf_permissions(self._given.shelley_vrf_key)
        try:
            return self._read()
        except Missing as error:
            raise Death(f"CredentialsError: FileError (FileDoesNotExistError {str(error.path)!r})") from None
        except Unusable as error:
            raise Death(f"CredentialsError: {error}") from None

    def _read(self) -> Held | None:
        """The credentials at the paths given at the start; None where none were given. Raises Missing, Unusable."""
        given = self._given
        if given.bulk_credentials_file is not None:
            return credentials.read_bulk(given.bulk_credentials_file)
        files = (given.shelley_kes_key, given.shelley_vrf_key, given.shelley_operational_certificate)
        if not any(files):
            return None
        for name, file in zip(("KESKey", "VRFKey", "OCert"), files, strict=True):
            if file is None:
                raise Unusable(f"{name}NotSpecified")
        return credentials.read(credentials.Paths(*files))

    # ------------------------------------------------ its life

    async def run(self) -> int:
        """Live until it is told to end; its exit status. Raises LabError when something of it cannot listen."""
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, self._on_sighup)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end.set)
        listener = await control.serve(self._given.lab_control, self.handle) if self._given.lab_control else None
        if self._given.lab_metrics is not None:
            self._metrics = HttpPort("metrics", self._given.lab_metrics, self._serve_metrics)
            await self._metrics.listen()
        process.ready()
        try:
            async with asyncio.TaskGroup() as tasks:
                ending = [tasks.create_task(end.wait()), tasks.create_task(self.door.died.wait())]
                living = tasks.create_task(self._live())
                for task in ending:
                    task.add_done_callback(lambda _: living.cancel())
                with suppress(asyncio.CancelledError):
                    await living
                for task in ending:
                    task.cancel()
            await self._host.sleep(0.05 if self.door.died.is_set() else 0.0)  # the answer to "die" is on its way
        finally:
            await self._outbound.close()
            await self.door.close()
            if self._metrics is not None:
                await self._metrics.close()
            if listener is not None:
                listener.close()
        return 1 if self.door.died.is_set() else 0

    async def _live(self) -> None:
        with suppress(TimeoutError):
            async with self._host.timeout(self._given.lab_replay):
                await self._replayed.wait()
        self.door.opened = True
        await self.door.listen()
        local = await self._local_socket()
        try:
            trace("Notice", "Startup.Listening", address=str(self.door.address))
            self._dial()
            while True:
                now = self._host.now()
                slot = self._chain.slot(now.mono)
                self._forger.check(slot, now.utc)
                await self._host.sleep(self._chain.epoch + (slot + 1) * self._chain.slot_seconds - now.mono)
        finally:
            if local is not None:
                local.close()

    async def _local_socket(self) -> asyncio.Server | None:
        """The socket of cardano-cli, by which a process is told from others; it answers nothing."""
        path = self._given.socket_path
        if path is None:
            return None
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while await reader.read(READ_SIZE):
                    pass
            writer.transport.abort()

        try:
            return await asyncio.start_unix_server(silent, path)
        except OSError as error:
            raise LabError(f"{path}: {error.strerror or error}", "give --socket-path in a folder of its own") from None

    def _dial(self) -> None:
        targets = dict.fromkeys(self._given.lab_peer, False)
        if self._given.lab_dial_topology:
            targets |= self._roots
        self._outbound.want(targets)

    def _on_sighup(self) -> None:
        self._sighups += 1
        if not self.door.opened:
            trace("Notice", "Startup.BlockForgingUpdate", enabled="NotEffective")
            if self._version.early_sighup_kills:  # #5418
                self.door.died.set()
            return
        try:
            held = self._read()
        except Missing:
            self._forger.reload(None)
            trace("Notice", "Startup.BlockForgingUpdate", enabled="DisabledBlockForging")
        except Unusable as error:
            trace("Error", "Startup.BlockForgingUpdateError", error=str(error))
        else:
            self._forger.reload(held)
            enabled = "EnabledBlockForging" if held is not None else "DisabledBlockForging"
            trace("Notice", "Startup.BlockForgingUpdate", enabled=enabled)
        try:
            self._roots, self._topology_error = roots_of(self._given.topology, self._version), ""
        except ValueError as error:
            self._topology_error = str(error)
            trace("Error", "Startup.NetworkConfigUpdateError", error=str(error))
        else:
            trace("Notice", "Startup.NetworkConfigUpdate", roots=len(self._roots))
            self._dial()

    # ------------------------------------------------ what it says

    async def handle(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to a question on the control socket. Raises LabError."""
        command = question["command"]
        truth = self._forger.truth(self._chain.slot(self._host.now().mono))
        truth["forging"] = truth["forging"] and self.door.opened
        if command == "forging":
            return {"pid": os.getpid(), **truth}
        if command == "replayed":
            self._replayed.set()
            return {}
        value = question.get("value")
        told = await self.door.tell(command, None if value is None else str(value))
        if command == "sessions":
            return {**told, **self._outbound.told()}
        del truth["spans"]
        return {
            **told,
            **truth,
            "pid": os.getpid(),
            "version": self._version.text,
            "flag": self._flag,
            "replay": self._progress(),
            "sighups": self._sighups,
            "metrics": str(self._metrics.address) if self._metrics is not None else None,
            "roots": [str(root) for root in self._roots],
            "topology_error": self._topology_error or None,
            "outbound": len(self._outbound.told()["outbound"]),
        }

    def _progress(self) -> float | None:
        """The share of the replay that is done, in percent; None when it is over."""
        if self.door.opened:
            return None
        gone = self._host.now().mono - self._started.mono
        return round(min(99.9, 100.0 * gone / self._given.lab_replay), 4) if self._given.lab_replay else 99.9

    async def _serve_metrics(self, request: Request) -> Reply:
        if request.method != "GET" or request.path != "/metrics":
            return Reply(404)
        text = prometheus(self._told(), self._version, self._naming)
        return Reply(200, text.encode(), {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    def _told(self) -> dict[str, float]:
        told: dict[str, float] = {"started": int(self._started.utc)}
        progress = self._progress()
        if progress is not None:
            return {**told, "starting": progress}
        tip = self.door.tip
        if self._given.lab_replay:
            told["starting"] = REPLAYED
        hot = len(self._outbound.told()["outbound"])
        return {**told, "slot": tip.slot, "block": tip.block_no, "hot": hot, **self._forger.told()}


def _check_vrf_permissions(path: Path | None) -> None:
    """Raises Death when others may use the VRF key (Run.hs, checkVRFFilePermissions); only at the start."""
    if path is None:
        return
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # said when it is read
    if mode & stat.S_IRWXO:
        raise Death(f'VRF private key file at: {path} has "other" file permissions. Please remove all "other" ones.')


def trace(severity: str, namespace: str, **data: object) -> None:
    """One line of the log, in the form of the new tracing."""
    line = {"at": iso(RealHost().now().utc), "ns": namespace, "data": data, "sev": severity}
    with suppress(OSError):
        print(json.dumps(line), flush=True)


# ---------------------------------------------------------------- the command line


class _Parser(argparse.ArgumentParser):
    """Exits with 1 where argparse exits with 2, as the node does."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{message}\n\n{self.format_usage()}")


def metrics_address(text: str) -> Address:
    """``PORT`` on 127.0.0.1, or ``HOST:PORT``. Raises ValueError."""
    return parse_address(text if ":" in text else f"127.0.0.1:{text}")


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise ValueError(text)
    return number


def arguments() -> argparse.ArgumentParser:
    """The command line of ``cardano-node run``, as far as it is known here, and the lab's own words."""
    run = _Parser("cardano-node run", description="One simulated cardano-node, until it is ended.", allow_abbrev=False)
    for name in ("--topology", "--config"):
        run.add_argument(name, type=Path, required=True, metavar="FILEPATH")
    for name in ("--database-path", "--socket-path", "--shelley-kes-key", "--shelley-vrf-key"):
        run.add_argument(name, type=Path, metavar="FILEPATH")
    for name in ("--shelley-operational-certificate", "--bulk-credentials-file"):
        run.add_argument(name, type=Path, metavar="FILEPATH")
    run.add_argument("--port", type=int, default=0)
    run.add_argument("--host-addr", default="0.0.0.0", metavar="IPV4")  # noqa: S104 - the node's own default
    run.add_argument(OLD_FLAG, action="store_true")
    run.add_argument(NEW_FLAG, action="store_true")
    run.add_argument("--parent", type=int, metavar="PID", help="end when this parent process ends")
    lab = run.add_argument_group("the lab's own")
    lab.add_argument("--lab-version", default="10.5.1", help="whose ways it has")
    lab.add_argument("--lab-name", default="node", help="who tells its tips")
    lab.add_argument("--lab-magic", type=int, default=42)
    lab.add_argument("--lab-scale", type=_positive, default=1.0, help="how many times faster it redials and gives up")
    lab.add_argument("--lab-chain-epoch", type=float, default=0.0, metavar="SECONDS", help="CLOCK_BOOTTIME of slot 0")
    lab.add_argument("--lab-slot-seconds", type=_positive, default=1.0)
    lab.add_argument("--lab-leads-every", type=int, default=20, metavar="SLOTS", help="0: it never leads")
    lab.add_argument("--lab-kes-period", type=int, default=0, help="the KES period that slot 0 is in")
    lab.add_argument("--lab-kes-slots", type=int, default=129_600, help="slots of a KES period")
    lab.add_argument("--lab-kes-evolutions", type=int, default=62, help="periods that a KES key lasts")
    lab.add_argument("--lab-replay", type=float, default=0.0, metavar="SECONDS", help="before it listens")
    lab.add_argument("--lab-ignores-flag", action="store_true", help="forge although started as non-producing (#6576)")
    lab.add_argument("--lab-control", type=Path, metavar="PATH", help="a unix socket where it can be told things")
    lab.add_argument("--lab-log", type=Path, metavar="PATH", help="a line is added for each slot that it forges in")
    lab.add_argument("--lab-pidfile", type=Path, metavar="PATH")
    lab.add_argument("--lab-metrics", type=metrics_address, metavar="[HOST:]PORT", help="of its Prometheus endpoint")
    lab.add_argument("--lab-peer", type=parse_address, action="append", default=[], metavar="HOST:PORT")
    lab.add_argument("--lab-dial-topology", action="store_true", help="dial the topology's local roots as well")
    lab.add_argument("--lab-duplex", action="store_true", help="dial from its own port, but one-way roots")
    return run


def without_rts(words: Sequence[str]) -> list[str]:
    """The words without what is for Haskell's runtime (``+RTS -N4 -RTS``)."""
    kept, inside = [], False
    for word in words:
        inside = (inside or word == "+RTS") and word not in ("-RTS", "--RTS")
        if not inside and word not in ("-RTS", "--RTS"):
            kept.append(word)
    return kept


def main(argv: Sequence[str] | None = None) -> int:
    """The process's exit status: 1 when it did not start or was told to die."""
    words = without_rts(sys.argv[1:] if argv is None else argv)
    command, rest = (words[0], words[1:]) if words else ("", [])
    if command in ("--version", "version"):
        version = rest[1] if rest[:1] == ["--lab-version"] and len(rest) == 2 else "10.5.1"
        print(f"cardano-node {re.sub(r'[^0-9A-Za-z.+-]', '', version)} - linux-x86_64 - ghc-9.6\ngit rev {'0' * 40}")
        return 0
    if command != "run":
        print("Usage: cardano-node (run | version | --version)", file=sys.stderr)
        return 1
    given = arguments().parse_args(rest)
    if given.parent is not None:
        process.end_with_parent(given.parent)
    if given.lab_pidfile is not None:
        given.lab_pidfile.write_text(f"{os.getpid()}\n")
    try:
        return asyncio.run(CardanoNode(given).run())
    except (Death, LabError) as error:
        print(f"cardano-node: {error}", file=sys.stderr)
        return 1
    except BaseExceptionGroup as group:
        if (failed := group.subgroup(LabError)) is None:
            raise
        print(f"cardano-node: {failed.exceptions[0]}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
