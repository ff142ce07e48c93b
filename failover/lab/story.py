"""What a story is told with: a pool and its controller as processes, a witness from outside, and claims.

A claim is never judged by what the controller says of itself, but by what the relays wrote down, by HAProxy's own
statistics (sampled here), by pings of our own, and by what commands answer. The scenes themselves are in scenes.py.

This module may start the controller and its commands, and wait on the machine's clock; it ends what it started.
"""

from __future__ import annotations

import asyncio
import csv
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from failover.errors import PingError
from failover.host import RealHost
from failover.lab.haproxy import LabError, LabProxy
from failover.lab.pool import LabPool, Plan, Times
from failover.lab.relay import FIRST_REDIAL
from failover.lab.sessions import Interval, Overlap, overlaps
from failover.model import HealthSettings, LeaseSettings, PolicySettings
from failover.ouroboros.ping import ping

SAMPLE_EVERY = 0.05  # seconds from one look at every proxy to the next
ANSWER_WITHIN = 1.0  # seconds for one proxy's statistics
LEAST_SCALE, MOST_SCALE = 5.0, 40.0
# Times faster than in life: as there, relays are to outlast HAProxy's checks of a node that hangs.
RELAYS_FASTEST = 40.0
ACTION_TIMEOUT = 1.5  # seconds; not scaled: what an action takes depends on the machine
SLACK = 15.0  # seconds beyond the configured waits, for a machine that has other things to do
COMMAND_WITHIN = 60.0  # seconds for one command
GRACE = 1.0  # seconds after a repair in which relays may still read the end of a session
POLL = 0.02  # seconds

RELAYS, HAPROXY, PINGED, ANSWERED, SYSTEM = "relays", "HAProxy", "own ping", "command", "system"


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


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which two producers were made reachable on purpose; seconds on CLOCK_BOOTTIME."""

    what: str
    start: float
    end: float

    def covers(self, start: float, end: float) -> bool:
        """Whether an overlap from ``start`` to ``end`` is of its making."""
        return self.start <= start and end <= self.end + GRACE


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


def plan(scale: float) -> Plan:
    """The pool that the story plays in."""
    return Plan(scale=min(RELAYS_FASTEST, 2 * scale), times=times(scale))


def shortened(scale: float) -> list[tuple[str, float, float]]:
    """What was shortened: its name, the seconds in life (the defaults), the seconds here."""
    here = times(scale)
    return [
        ("a ping every", HealthSettings().interval, here.interval),
        ("main is given up after", PolicySettings().fail_over_after, here.fail_over_after),
        ("main returns after", PolicySettings().fail_back_after, here.fail_back_after),
        ("one action may take", LeaseSettings().action_timeout, ACTION_TIMEOUT),
        ("relays redial after", FIRST_REDIAL, FIRST_REDIAL / plan(scale).scale),
    ]


def with_lease(file: Path) -> None:
    """Give the lab's file the demo's lease: the shortest that the margin of 5 s allows."""
    lease = f"lease: {{duration: {2 * ACTION_TIMEOUT + 6:g}s, renew: 1s, action_timeout: {ACTION_TIMEOUT:g}s}}"
    text, found = re.subn(r"^lease:.*$", lease, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found != 1:
        raise LabError(f"{file}: {found} lines begin with lease:", "expected one")
    file.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- the witness


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one proxy, asked at ``sent`` and answered at ``received``.

    ``admitted`` are the producers that are not in maint, ``sessions`` how many each has.
    """

    sent: float
    received: float
    admitted: frozenset[str]
    sessions: Mapping[str, int]

    def reachable(self, producer: str) -> bool:
        """Whether it is let in, or still has a session."""
        return producer in self.admitted or self.sessions.get(producer, 0) > 0


@dataclass(frozen=True, slots=True)
class Span:
    """A run of samples of one proxy that all show one producer reachable: proved from ``start`` to ``end``."""

    proxy: str
    producer: str
    start: float
    end: float


class Witness:
    """Looks at every proxy's own statistics again and again; ``samples`` are None where a proxy did not answer."""

    def __init__(self, proxies: Mapping[str, LabProxy], producers: Sequence[str]) -> None:
        self.samples: dict[str, list[Sample | None]] = {name: [] for name in proxies}
        self._proxies = proxies
        self._producers = producers
        self._host = RealHost()

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            began = self._host.now().mono
            looks = [self._look(name, proxy) for name, proxy in self._proxies.items()]
            await asyncio.gather(*looks)
            await self._host.sleep(SAMPLE_EVERY - (self._host.now().mono - began))

    async def _look(self, name: str, proxy: LabProxy) -> None:
        sent, sample = self._host.now().mono, None
        with suppress(OSError, TimeoutError, KeyError, ValueError):
            async with self._host.timeout(ANSWER_WITHIN):
                answer = await proxy.process.ask("show stat")
            sample = read_sample(answer, proxy.config.backend, self._producers, sent, self._host.now().mono)
        self.samples[name].append(sample)

    def now(self) -> dict[str, Sample | None]:
        """The newest sample of every proxy."""
        return {name: samples[-1] if samples else None for name, samples in self.samples.items()}

    def after(self, since: float) -> list[tuple[str, Sample]]:
        """Every sample that was asked for after ``since``, with its proxy."""
        return [(n, s) for n, samples in self.samples.items() for s in samples if s is not None and s.sent >= since]

    def first(self, producer: str, since: float, proxy: str | None = None) -> float | None:
        """When ``producer`` was first seen let in after ``since``; None if it never was."""
        seen = [s.received for n, s in self.after(since) if producer in s.admitted and proxy in (None, n)]
        return min(seen, default=None)

    def nobody(self, since: float) -> bool:
        """Whether every proxy was asked after ``since``, and at last showed that no producer was reachable."""
        return all(
            s is not None and s.sent >= since and not s.admitted and not any(s.sessions.values())
            for s in self.now().values()
        )

    async def told(self, proxy: str, commands: str) -> Sample | None:
        """Give a proxy commands of which the last is ``show stat``; what it showed, None when it refused."""
        sent, lab = self._host.now().mono, self._proxies[proxy]
        answer = (await lab.process.ask(commands)).strip()
        with suppress(KeyError, ValueError):
            return read_sample(answer, lab.config.backend, self._producers, sent, self._host.now().mono)
        return None

    def longest_gap(self) -> float:
        """The longest time from one look to the next."""
        asked = [[s.sent for s in samples if s is not None] for samples in self.samples.values()]
        return max((b - a for times in asked for a, b in pairwise(times)), default=0.0)

    def count(self) -> int:
        """How many looks were answered."""
        return sum(s is not None for samples in self.samples.values() for s in samples)


def read_sample(text: str, backend: str, producers: Sequence[str], sent: float, received: float) -> Sample:
    """The answer to ``show stat`` as a sample. Raises KeyError or ValueError when a producer's row is missing."""
    table = csv.DictReader(text.removeprefix("# ").splitlines())
    rows = {row["svname"]: row for row in table if row["pxname"] == backend}
    admitted = frozenset(p for p in producers if not rows[p]["status"].startswith("MAINT"))
    return Sample(sent, received, admitted, {p: int(rows[p]["scur"]) for p in producers})


def spans(samples: Mapping[str, Iterable[Sample | None]], producers: Sequence[str]) -> list[Span]:
    """Every run of samples, at least two, that shows a producer reachable."""
    found = []
    for proxy, looks in samples.items():
        for producer in producers:
            run: list[Sample] = []
            for look in (*looks, None):
                if look is not None and look.reachable(producer):
                    run.append(look)
                    continue
                if len(run) > 1:
                    found.append(Span(proxy, producer, run[0].received, run[-1].sent))
                run = []
    return found


def gate_overlaps(found: Sequence[Span]) -> list[tuple[float, float, str]]:
    """Each pair of spans of two different producers at the same time: start, end, in words."""
    both = []
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            start, end = max(one.start, other.start), min(one.end, other.end)
            if one.producer != other.producer and start < end:
                words = f"{one.producer} in {one.proxy} and {other.producer} in {other.proxy} for {end - start:.2f} s"
                both.append((start, end, words))
    return both


@dataclass(frozen=True, slots=True)
class Verdict:
    """How often two producers were reachable at once: by the relays' sessions, and by the proxies' statistics."""

    outside: tuple[str, ...]  # in words, each; must be empty
    forced: int  # pairs of sessions within the windows
    forced_seconds: float  # the longest of them


def judge(
    sessions: Sequence[Interval], looked: Sequence[Span], windows: Sequence[Window], *, tolerance: float
) -> Verdict:
    """Overlaps outside ``windows``, and the number of those inside. ``tolerance`` (seconds) is the relays'."""
    outside = [str(o) for o in overlaps(sessions, tolerance) if not _forced(o.start, o.end, windows)]
    outside += [words for start, end, words in gate_overlaps(looked) if not _forced(start, end, windows)]
    inside: list[Overlap] = [o for o in overlaps(sessions, 0.0) if _forced(o.start, o.end, windows)]
    return Verdict(tuple(outside), len(inside), max((o.end - o.start for o in inside), default=0.0))


def _forced(start: float, end: float, windows: Sequence[Window]) -> bool:
    return any(window.covers(start, end) for window in windows)


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
    """The controller as a process of its own, started as an operator would, and its commands."""

    def __init__(self, file: Path, log: Path) -> None:
        self._file = file
        self.log = log
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
                [*ends_with_us, *self._words("run")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
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
            env={**os.environ, "NO_COLOR": "1"},
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


# ---------------------------------------------------------------- the stage


class Stage:
    """Everything that a scene acts upon and looks at. Claims go into ``scene``, and to the audience."""

    def __init__(self, lab: LabPool, witness: Witness, daemon: Daemon, audience: Audience) -> None:
        self.lab = lab
        self.witness = witness
        self.daemon = daemon
        self.times = lab.times
        self.windows: list[Window] = []
        self.stopped: set[str] = set()
        self.scene = Scene(0, "")
        self.pairs = [(relay, proxy) for relay in lab.relays for proxy in lab.proxies]
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

    # ------------------------------------------------------------ what is seen from outside

    def all_with(self, producer: str) -> bool:
        """Whether every relay has a session with ``producer`` through every proxy, and nobody else is let in."""
        reached = self.lab.reached()
        return all(reached.get(pair) == producer for pair in self.pairs) and self.admits_only(producer)

    def admits_only(self, producer: str) -> bool:
        """Whether every proxy lets in ``producer`` and nobody else."""
        return all(s is not None and s.admitted == {producer} for s in self.witness.now().values())

    def first_session(self, producer: str, since: float) -> float | None:
        """When a relay first had a new session with ``producer`` after ``since``."""
        return min((i.start for i in self.lab.sessions() if i.producer == producer and i.start > since), default=None)

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
    """What is to be seen at one moment, for whoever draws it."""

    proxies: Mapping[str, Sample | None]
    reached: Mapping[tuple[str, str], str]
    stopped: frozenset[str]
    controller: int | None


def picture(stage: Stage) -> Picture:
    """The pool as it is seen from outside now."""
    return Picture(stage.witness.now(), stage.lab.reached(), frozenset(stage.stopped), stage.daemon.pid)
