"""What a story is told with: a pool and its controller as processes, witnesses from outside, and claims.

A claim is never judged by what the controller says of itself, but by what the relays wrote down, by HAProxy's own
statistics and the DNS servers' answers (sampled all along), by what the provider was asked, by pings of our own, and by
what commands answer. The scenes themselves are in scenes_proxies.py and scenes_names.py.

This module may start the controller and its commands, and wait on the machine's clock; it ends what it started.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from failover.errors import PingError
from failover.host import RealHost
from failover.lab.haproxy import LabError
from failover.lab.name_witness import NameWitness
from failover.lab.pool import RECORD, ROUTE53, TTL, LabPool, Plan, Times
from failover.lab.relay import FIRST_REDIAL
from failover.lab.verdict import Window
from failover.lab.witness import Sample, Witness
from failover.model import HealthSettings, LeaseSettings, PolicySettings
from failover.ouroboros.ping import ping

LEAST_SCALE, MOST_SCALE = 5.0, 40.0
# Times faster than in life: as there, relays are to outlast HAProxy's checks of a node that hangs.
RELAYS_FASTEST = 40.0
ACTION_TIMEOUT = 1.5  # seconds; not scaled: what an action takes depends on the machine
SLACK = 15.0  # seconds beyond the configured waits, for a machine that has other things to do
COMMAND_WITHIN = 60.0  # seconds for one command
POLL = 0.02  # seconds

INSYNC = 60.0  # seconds in which Route 53 has a change everywhere as a rule, and the lab's at scale 1
CHANGE = "ChangeResourceRecordSets"

RELAYS, HAPROXY, DNS, PROVIDER = "relays", "HAProxy", "DNS servers", "Route 53"
PINGED, ANSWERED, SYSTEM = "own ping", "command", "system"


class Broken(Exception):
    """The story cannot go on: what the next scene builds upon did not come to be. Its claim is already FALSE."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that was said and checked. ``where`` it was measured, ``measured`` what was found there."""

    ok: bool
    text: str
    where: str
    measured: str = ""


@dataclass(slots=True)
class Scene:
    """One scene as it was played. ``result`` is its main finding in a few words; ``seconds`` are named numbers."""

    number: int
    title: str
    claims: list[Claim] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    took: float = 0.0
    result: str = ""

    @property
    def ok(self) -> bool:
        """Whether something was claimed, and nothing was false."""
        return bool(self.claims) and all(claim.ok for claim in self.claims)


class Audience(Protocol):
    """Whoever the story is told to."""

    def scene(self, scene: Scene) -> None:
        """A scene begins."""
        ...

    def say(self, words: str) -> None:
        """What happens now."""
        ...

    def claim(self, claim: Claim) -> None:
        """What was checked."""
        ...


# ---------------------------------------------------------------- times


def times(scale: float) -> Times:
    """The demo's times at ``scale``; patience is shortened further than the rest, or nobody would wait for it."""
    if not LEAST_SCALE <= scale <= MOST_SCALE:
        raise LabError(f"scale: {scale:g} is not within {LEAST_SCALE:g} to {MOST_SCALE:g}", "20 is a good one")
    interval = round(HealthSettings().interval / scale, 2)
    return Times(
        interval=interval,
        timeout=interval,
        max_gap=8 * interval,
        fail_over_after=round(12 * interval, 1),
        fail_back_after=round(16 * interval, 1),
        slot=0.1,
    )


def plan(scale: float, *, gateless: bool = False) -> Plan:
    """The pool that a story plays in: proxies with a record beside them, or the record alone."""
    return Plan(scale=min(RELAYS_FASTEST, 2 * scale), times=times(scale), record=True, gateless=gateless)


def shortened(scale: float) -> list[tuple[str, float, float]]:
    """What was shortened: its name, the seconds in life (the defaults), the seconds here."""
    here, rest = times(scale), plan(scale).scale
    return [
        ("a ping every", HealthSettings().interval, here.interval),
        ("main is given up after", PolicySettings().fail_over_after, here.fail_over_after),
        ("main returns after", PolicySettings().fail_back_after, here.fail_back_after),
        ("one action may take", LeaseSettings().action_timeout, ACTION_TIMEOUT),
        ("relays redial after", FIRST_REDIAL, FIRST_REDIAL / rest),
        ("a DNS answer lives for", TTL, TTL / rest),
        ("a change is INSYNC after", INSYNC, INSYNC / rest),
    ]


def with_lease(file: Path) -> None:
    """Give the lab's file the demo's lease: the shortest that the margin of 5 s allows."""
    lease = f"lease: {{duration: {2 * ACTION_TIMEOUT + 6:g}s, renew: 1s, action_timeout: {ACTION_TIMEOUT:g}s}}"
    text, found = re.subn(r"^lease:.*$", lease, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found != 1:
        raise LabError(f"{file}: {found} lines begin with lease:", "expected one")
    file.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- the controller


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left: its exit status, and all that it printed."""

    status: int
    text: str

    @property
    def first(self) -> str:
        """The first line."""
        return self.text.strip().partition("\n")[0]

    @property
    def last(self) -> str:
        """The last line, which says most."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Daemon:
    """The controller as a process of its own, started as an operator would, and its commands.

    ``environment`` is added to ours, of which nothing is taken that leads to AWS or through a proxy for HTTP.
    ``within`` are words before the command, as for process.Child.
    """

    def __init__(self, file: Path, log: Path, environment: Mapping[str, str], within: Sequence[str] = ()) -> None:
        self._file = file
        self._within = within
        self.log = log
        self._environment = {**secluded(os.environ), **environment, "NO_COLOR": "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._host = RealHost()

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> int:
        """Start it, without waiting for anything; its process id."""
        ends_with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._within, *ends_with_us, *self._words("run")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        return self._process.pid

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            await self._gone(5.0)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help. Not an error when it has ended."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        if not await self._gone(2 * ACTION_TIMEOUT + 2):
            await self.kill()

    async def ask(self, *words: str) -> Answer:
        """Run one command of ``failover`` on the pool's file, and wait for it."""
        process = await asyncio.create_subprocess_exec(
            *self._words(*words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
        )
        try:
            async with self._host.timeout(COMMAND_WITHIN):
                output, _ = await process.communicate()
        except TimeoutError:
            return Answer(-1, f"{words[0]} did not end within {COMMAND_WITHIN:g} s")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Answer(process.returncode or 0, output.decode(errors="replace"))

    def _words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "failover", "-c", str(self._file), *words]

    async def _gone(self, within: float) -> bool:
        for _ in range(int(within / POLL)):
            if self._process is None or self._process.poll() is not None:
                return True
            await self._host.sleep(POLL)
        return False


def secluded(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what would lead an AWS client, or a request to loopback, elsewhere."""
    kept = (name for name in environment if not name.startswith("AWS_") and not name.lower().endswith("_proxy"))
    return {name: environment[name] for name in kept}


# ---------------------------------------------------------------- the provider


@dataclass(frozen=True, slots=True)
class Provider:
    """What the lab's Route 53 knows of the requests that it got.

    ``changes`` were asked for, ``applied`` were carried out, ``conflicts`` refused because the zone held something
    else. ``accepted`` are the moments (CLOCK_BOOTTIME) of the latest that were carried out.
    """

    changes: int
    applied: int
    conflicts: int
    accepted: tuple[float, ...]

    def since(self, before: Provider) -> Provider:
        """What has come since ``before``."""
        later = tuple(at for at in self.accepted if at not in before.accepted)
        return Provider(
            self.changes - before.changes, self.applied - before.applied, self.conflicts - before.conflicts, later
        )

    def __str__(self) -> str:
        asked = f"{self.changes} change{'' if self.changes == 1 else 's'} asked for"
        refused = f", {self.conflicts} refused" if self.conflicts else ""
        return f"{asked}, {self.applied} made{refused}"


def read_provider(state: Mapping[str, Any]) -> Provider:
    """What ``state`` of the lab's Route 53 says."""
    accepted = tuple(call["at"] for call in state["calls"] if call["action"] == CHANGE and not call["code"])
    conflicts = state["refused"].get("InvalidChangeBatch", 0)
    return Provider(state["counts"].get(CHANGE, 0), state["applied"], conflicts, accepted)


# ---------------------------------------------------------------- the stage


class Stage:
    """Everything that a scene acts upon and looks at. Claims go into ``scene``, and to the audience.

    ``witness`` looks at the proxies, ``names`` at the DNS servers.
    """

    def __init__(self, lab: LabPool, witness: Witness, names: NameWitness, daemon: Daemon, audience: Audience) -> None:
        self.lab = lab
        self.witness = witness
        self.names = names
        self.daemon = daemon
        self.times = lab.times
        self.windows: list[Window] = []
        self.stopped: set[str] = set()
        self.scene = Scene(0, "")
        by_name = lab.plan.by_name
        self.pairs = [(relay, RECORD) for relay in by_name]
        self.pairs += [(relay, proxy) for relay in lab.relays if relay not in by_name for proxy in lab.proxies]
        self._audience = audience
        self._host = RealHost()

    def now(self) -> float:
        """Seconds on CLOCK_BOOTTIME, as in the relays' logs."""
        return self._host.now().mono

    def say(self, words: str) -> None:
        """Tell what happens now."""
        self._audience.say(words)

    def claim(self, ok: bool, text: str, where: str, measured: str = "") -> bool:
        """Say what was checked, and what came of it."""
        claim = Claim(bool(ok), text, where, measured)
        self.scene.claims.append(claim)
        self._audience.claim(claim)
        return claim.ok

    def need(self, ok: bool, text: str, where: str, measured: str = "") -> None:
        """A claim without which the rest makes no sense. Raises Broken."""
        if not self.claim(ok, text, where, measured):
            raise Broken(text)

    def took(self, name: str, seconds: float) -> float:
        """Keep a measured number; NaN, for what never came, is not kept."""
        if not math.isnan(seconds):
            self.scene.seconds[name] = round(seconds, 3)
        return seconds

    async def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        await self._host.sleep(seconds)

    async def until(self, true: Callable[[], bool], within: float) -> bool:
        """Wait until it is so, at most ``within`` seconds and some slack; whether it is."""
        end = self.now() + within + SLACK
        while self.now() < end:
            if true():
                return True
            await self._host.sleep(POLL)
        return true()

    async def until_so(self, true: Callable[[], Awaitable[bool]], within: float) -> bool:
        """As ``until``, where to find out takes a question."""
        end = self.now() + within + SLACK
        while self.now() < end:
            if await true():
                return True
            await self._host.sleep(POLL)
        return await true()

    async def told(self, *words: str) -> Answer:
        """Say which command is given, and give it."""
        self.say(f"$ failover {' '.join(words)}")
        return await self.daemon.ask(*words)

    async def slot_of(self, producer: str) -> int | None:
        """The slot of a producer's tip by a ping of our own, sent to it directly; None when it does not answer."""
        try:
            told = await ping(self._host, self.lab.addresses[producer], self.lab.plan.magic, 2.0)
        except PingError:
            return None
        return told.tip.slot

    async def connects(self, producer: str) -> bool:
        """Whether a TCP connection to a node comes to be."""
        address = self.lab.addresses[producer]
        try:
            async with self._host.timeout(2.0):
                _, writer = await asyncio.open_connection(address.host, address.port)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    def stop(self, node: str) -> None:
        """SIGSTOP a node."""
        self.lab.suspend(node)
        self.stopped.add(node)

    def go_on(self, node: str) -> None:
        """SIGCONT it."""
        self.lab.resume(node)
        self.stopped.discard(node)

    def kill(self, node: str) -> None:
        """SIGKILL a node."""
        self.lab.kill(node)
        self.stopped.add(node)

    async def restart(self, node: str) -> None:
        """End it if it runs, and start it."""
        await self.lab.restart(node)
        self.stopped.discard(node)

    # ------------------------------------------------------------ what is seen from outside

    def all_with(self, producer: str) -> bool:
        """Whether every relay has a session with ``producer`` on each of its ways, and no proxy lets in another."""
        reached = self.lab.reached()
        return all(reached.get(pair) == producer for pair in self.pairs) and self.admits_only(producer)

    async def provider(self) -> Provider:
        """What the provider was asked so far."""
        return read_provider(await self.lab.tell(ROUTE53, "state"))

    def looked_up(self, relay: str) -> list[str]:
        """The addresses that a relay's last lookup of the name gave it."""
        lines = self.lab.log(relay).read_text(encoding="utf-8").splitlines(keepends=True)
        told = [json.loads(line) for line in lines if '"resolved"' in line and line.endswith("\n")]
        answers: list[str] = told[-1]["answers"] if told else []
        return answers

    def admits_only(self, producer: str) -> bool:
        """Whether every proxy lets in ``producer`` and nobody else."""
        return all(s is not None and s.admitted == {producer} for s in self.witness.now().values())

    def first_session(self, producer: str, since: float, relay: str | None = None) -> float | None:
        """When a relay (this one, or any) first had a new session with ``producer`` after ``since``."""
        new = (i for i in self.lab.sessions() if i.producer == producer and i.start > since)
        return min((i.start for i in new if relay in (None, i.relay)), default=None)

    def gap(self, old: str, new: str, since: float) -> float:
        """Seconds from the end of the last session with ``old`` to the first with ``new`` that began after ``since``.

        Negative when they overlap; NaN when there are none.
        """
        first = self.first_session(new, since)
        ends = [i.until for i in self.lab.sessions() if i.producer == old and i.until > since]
        return float("nan") if first is None or not ends else first - max(ends)

    def changes(self, since: float) -> int:
        """How many sessions began or ended after ``since``."""
        moments = [m for i in self.lab.sessions() for m in (i.start, i.end) if m is not None]
        return sum(m > since for m in moments)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is to be seen at one moment, for whoever draws it. ``answers`` is whom each DNS server's answer names."""

    producers: tuple[str, ...]
    relays: tuple[str, ...]
    proxies: Mapping[str, Sample | None]
    answers: Mapping[str, str]
    reached: Mapping[tuple[str, str], str]
    lingering: frozenset[tuple[str, str]]
    stopped: frozenset[str]
    controller: int | None


def picture(stage: Stage) -> Picture:
    """The pool as it is seen from outside now."""
    lab, names = stage.lab, stage.names
    return Picture(
        lab.plan.producers,
        lab.plan.relay_names,
        stage.witness.now(),
        {server: names.whom(look) for server, look in names.now().items()},
        lab.reached(),
        frozenset(lab.lingering()),
        frozenset(stage.stopped),
        stage.daemon.pid,
    )
