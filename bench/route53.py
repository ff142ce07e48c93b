# ruff: noqa: TID251  a bench waits on the machine's clock
"""Figures ``route53``: from the decision to the change accepted, to INSYNC, and to all servers right.

The lab's Route 53 with four name servers is a process of its own. Each server learns of a change at a moment of its
own, the last one with INSYNC. The bare script, in a thread of this process, keeps one boto3 client, sends the same
DELETE and CREATE, waits with boto3's own waiter, and asks the servers in a loop. It decides nothing and writes nothing
down. The two take turns, each with a name of its own, through the same delays.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import dns.exception
import dns.message
import dns.query
from botocore.exceptions import BotoCoreError, ClientError

from bench import asking, programs
from bench.figure import Aim, Figure, Say
from bench.signpost import BARE, NAME, TARGETS, TTL, ZONE, Move, parts, pointing, record
from bench.steering import HOST, WAIT
from failover.lab import control
from failover.lab.haproxy import LabError, free_ports
from failover.lab.process import Child
from failover.model import Address, Record, Route53Zone

ZONE_ID = "Z0BENCH"
SERVERS = 4  # as many as Route 53 gives a zone
UNHURRIED = (
    10.0  # how many times faster than in life the first part is: the ticks of more would get in each other's way
)
HURRIED = 60.0  # and the second, which is about waiting
SPREAD = (20.0, 60.0)  # seconds in life from a change to INSYNC, evenly between these
WAITER_DELAY = 30.0  # seconds in life; boto3's waiter for resource_record_sets_changed
LOOK = 1.0  # seconds in life from one look of the script at the servers to the next
SEED = 53
ACCEPTED, INSYNC, RIGHT = Aim(6.0), Aim(1.25), Aim(1.25)


class Lab:
    """The endpoint with its name servers, ``scale`` times faster than in life."""

    def __init__(self, folder: Path, scale: float) -> None:
        endpoint, *dns = (Address("127.0.0.1", port) for port in free_ports(1 + SERVERS))
        self.url = f"http://{endpoint}"
        self.servers = tuple(dns)
        self._socket = folder / "lab.sock"
        words = ["--listen", str(endpoint), "--zone", ZONE, "--id", ZONE_ID, "--control", str(self._socket)]
        words += [word for address in dns for word in ("--dns", str(address))]
        words += [word for name in (NAME, BARE) for word in ("--record", f"{name} {TTL} {TARGETS['main']}")]
        words += ["--scale", f"{scale:g}"]  # for the account's limit of requests a second, too
        self._child = Child("route53", "failover.lab.route53", words, folder)

    async def spread(self, insync: float, lags: Sequence[float]) -> None:
        """From now on a change is INSYNC after so many real seconds, and each server learns of it after its own."""
        await self.tell("route53", "insync", str(insync))
        for number, lag in enumerate(lags, 1):
            await self.tell(f"ns{number}", "lag", str(lag))

    async def counts(self) -> dict[str, int]:
        """Requests so far, by action."""
        return dict((await self.tell("route53", "state"))["counts"])

    async def tell(self, part: str, command: str, value: str | None = None) -> dict[str, Any]:
        """Tell a part one of its commands; how it is then."""
        return await control.ask(self._socket, {"to": part, "command": command, "value": value})

    async def start(self) -> None:
        """Start it. Raises LabError."""
        await self._child.start()

    async def stop(self) -> None:
        """End it."""
        await self._child.stop()

    @property
    def record(self) -> Record:
        """What the controller points."""
        return record(Route53Zone(ZONE_ID, endpoint_url=self.url), self.servers)


@asynccontextmanager
async def lab(scale: float) -> AsyncIterator[tuple[Lab, Path]]:
    """A lab, and a folder."""
    with TemporaryDirectory(prefix="fob-") as name:
        made = Lab(Path(name), scale)
        try:
            await made.start()
            yield made, Path(name)
        finally:
            await made.stop()


# ---------------------------------------------------------------- the bare script


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds from the beginning of one move until it had come so far."""

    accepted: float
    insync: float
    right: float


class Script:
    """What one would write with boto3 and dnspython. Blocks."""

    def __init__(self, made: Lab, scale: float) -> None:
        self._client = boto3.client("route53", endpoint_url=made.url)
        self._servers = made.servers
        self._scale = scale
        self._at = "main"

    def change(self) -> tuple[str, str]:
        """Point at the other one: the change's id, and the address that is to be seen."""
        old, new = self._at, "backup" if self._at == "main" else "main"
        answer = self._client.change_resource_record_sets(
            HostedZoneId=ZONE_ID,
            ChangeBatch={"Changes": [_one("DELETE", TARGETS[old]), _one("CREATE", TARGETS[new])]},
        )
        self._at = new
        return str(answer["ChangeInfo"]["Id"]), TARGETS[new]

    def wait(self, change: str) -> float:
        """Until INSYNC; CLOCK_BOOTTIME."""
        waiter = self._client.get_waiter("resource_record_sets_changed")
        waiter.wait(Id=change, WaiterConfig={"Delay": WAITER_DELAY / self._scale, "MaxAttempts": 60})
        return HOST.now().mono

    def look(self, target: str) -> float:
        """Until every server says so; CLOCK_BOOTTIME."""
        while not all(self._says(server, target) for server in self._servers):
            time.sleep(LOOK / self._scale)
        return HOST.now().mono

    @staticmethod
    def _says(server: Address, target: str) -> bool:
        query = dns.message.make_query(BARE, "A", flags=0)
        answer = dns.query.udp(query, server.host, WAIT, server.port)
        return any(str(rdata) == target for rrset in answer.answer for rdata in rrset)


def _one(action: str, value: str) -> dict[str, Any]:
    held = {"Name": BARE, "Type": "A", "TTL": TTL, "ResourceRecords": [{"Value": value}]}
    return {"Action": action, "ResourceRecordSet": held}


async def _bare(script: Script) -> Took:
    """One move by the script."""
    changing, looking = HOST.worker("bare change"), HOST.worker("bare look")

    def change() -> tuple[float, float, str, str]:
        began = HOST.now().mono
        found, target = script.change()
        return began, HOST.now().mono, found, target

    try:
        began, accepted, found, target = await changing.call(change, WAIT)
        insync, right = await asyncio.gather(
            changing.call(lambda: script.wait(found), WAIT), looking.call(lambda: script.look(target), WAIT)
        )
    except (BotoCoreError, ClientError, dns.exception.DNSException) as error:
        raise LabError(f"the bare script: {error}") from error
    finally:
        changing.close()
        looking.close()
    return Took(accepted - began, insync - began, right - began)


def _ours(move: Move) -> Took:
    return Took(move.accepted - move.decided, move.insync - move.decided, move.right - move.decided)


# ---------------------------------------------------------------- the measuring


async def _accepted(rounds: int, say: Say) -> Figure:
    """Everywhere at once: how long the change itself takes."""
    moves: list[Move] = []
    bare: list[Took] = []
    async with lab(UNHURRIED) as (made, folder), pointing(made.record, folder, UNHURRIED) as pointer:
        await made.spread(0.0, [0.0] * SERVERS)
        script = Script(made, UNHURRIED)
        await _bare(script)
        await pointer.move()
        say(f"{rounds} changes each, by the controller and by the script in turn")
        for _ in range(rounds):
            moves.append(await pointer.move())
            bare.append(await _bare(script))
    ours = [_ours(move).accepted * 1e3 for move in moves]
    script_took = [took.accepted * 1e3 for took in bare]
    return Figure(
        "route53, accepted", median(ours), "ms", median(script_took), "a call of a boto3 client that is kept", ACCEPTED,
        f"decision to the change accepted, median of {rounds}: {parts(moves)}; each change on a connection of its own; "
        f"ours {min(ours):.1f} to {max(ours):.1f}, bare {min(script_took):.1f} to {max(script_took):.1f} ms; the lab's "
        "Route 53 is on loopback, and a real one far away",
    )  # fmt: skip


def _delays(rounds: int) -> list[tuple[float, list[float]]]:
    """For each round the seconds in life until INSYNC, and until each server knows, the last with INSYNC."""
    chance, (least, most) = random.Random(SEED), SPREAD  # noqa: S311  delays, not secrets
    insync = [least + (most - least) * (number + 0.5) / rounds for number in range(rounds)]
    chance.shuffle(insync)
    return [(each, [*(chance.uniform(0.0, each) for _ in range(SERVERS - 1)), each]) for each in insync]


async def _spread(rounds: int, say: Say) -> list[Figure]:
    """INSYNC and the servers, in seconds as in life."""
    ours: list[Took] = []
    bare: list[Took] = []
    late: list[tuple[float, float]] = []
    asked = {"ours": 0, "bare": 0}
    async with lab(HURRIED) as (made, folder), pointing(made.record, folder, HURRIED) as pointer:
        script = Script(made, HURRIED)
        say(f"{rounds} changes each that take {SPREAD[0]:g} to {SPREAD[1]:g} s to spread, {HURRIED:g} times faster")
        for insync, lags in _delays(rounds):
            await made.spread(insync / HURRIED, [lag / HURRIED for lag in lags])
            before = (await made.counts()).get("GetChange", 0)
            ours.append(_ours(await pointer.move()))
            between = (await made.counts())["GetChange"]
            bare.append(await _bare(script))
            asked["ours"] += between - before
            asked["bare"] += (await made.counts())["GetChange"] - between
            late.append((ours[-1].insync * HURRIED - insync, bare[-1].insync * HURRIED - insync))
    lag, bare_lag = ([pair[side] for pair in late] for side in (0, 1))
    note = f"{SPREAD[0]:g} to {SPREAD[1]:g} s after the change, median of {rounds}; everything {HURRIED:g} times faster"
    return [
        Figure(
            "route53, INSYNC", median(t.insync for t in ours) * HURRIED, "s", median(t.insync for t in bare) * HURRIED,
            f"boto3's waiter (every {WAITER_DELAY:g} s)", INSYNC,
            f"decision to INSYNC seen, which is so {note}; seen {median(lag):.1f} s late (at worst {max(lag):.1f}; the "
            f"waiter {median(bare_lag):.1f}, at worst {max(bare_lag):.1f}), as it is asked for ever more seldom: "
            f"{asked['ours'] / rounds:.1f} times a change, the waiter {asked['bare'] / rounds:.1f}",
        ),
        Figure(
            "route53, servers", median(t.right for t in ours) * HURRIED, "s", median(t.right for t in bare) * HURRIED,
            f"dnspython in a loop, every {LOOK:g} s", RIGHT,
            f"decision to all {SERVERS} servers seen right, the last of which is so {note}",
        ),
    ]  # fmt: skip


def figures(quick: bool, say: Say) -> list[Figure]:
    """How long a change takes, and how often is asked when there is none."""
    accepted, spread, hours = (2, 1, 1) if quick else (15, 6, 2)
    with programs.credentials():
        found = [asyncio.run(_accepted(accepted, say)), *asyncio.run(_spread(spread, say))]
    return [*found, *asking.figures(hours, say)]
