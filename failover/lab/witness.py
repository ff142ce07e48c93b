"""What is seen of the proxies from outside, again and again: whom each lets in, by HAProxy's own statistics."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

from failover.host import RealHost
from failover.lab.haproxy import LabProxy

SAMPLE_EVERY = 0.05  # seconds from one look to the next
ANSWER_WITHIN = 1.0  # seconds for one answer


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
