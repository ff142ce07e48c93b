"""The relays' log of sessions, and the judgement on it: were two producers reached at once?

One JSON object a line, appended with a single write each, so that a relay killed at any moment leaves at most one
torn line. Times are seconds on CLOCK_BOOTTIME, comparable across the processes of one boot.

    {"at", "relay", "event": "started"}
    {"at", "relay", "event": "opened", "target", "producer", "from"}            and "tip", as in "alive"
    {"at", "relay", "event": "closed", "target", "producer", "from", "to", "why"}
    {"at", "relay", "event": "failed", "target", "why"}                          no session came to be
    {"at", "relay", "event": "alive", "tips": {target: slot}}                    bounds what is still open

and from relays that are given names:

    {"at", "relay", "event": "resolved", "name", "answers", "ttl", "next_in"}    and "why", when the lookup failed
    {"at", "relay", "event": "demoted", "target", "producer"}                    hot to warm: the address left its name
    {"at", "relay", "event": "promoted", "target", "producer"}                   warm to hot

A session begins hot. The facts say of a demoted peer that its connection is not closed, and that it may be promoted
again. That its blocks are not fetched meanwhile we infer from what warm means in ouroboros-network: only keep-alive
(and peer sharing) runs. So ``overlaps(sessions)`` judges who was *connected* to two producers, one promotion away
from harm; ``overlaps(hot(sessions))`` judges from whom blocks *were fetched*.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from failover.lab.haproxy import LabError

TOLERANCE = 0.25  # seconds; a relay on a busy machine reads the end of a connection a little late


@dataclass(frozen=True, slots=True)
class Interval:
    """One session of a relay with a producer. ``end`` is None where the log does not tell it.

    ``seen`` is the last moment at which the log shows the session, or the relay that holds it, alive. ``turns`` are
    the moments at which a hot session became warm, a warm one hot, and so on.
    """

    relay: str
    target: str
    producer: str
    start: float
    end: float | None
    seen: float
    why: str = ""
    turns: tuple[float, ...] = ()

    @property
    def is_hot(self) -> bool:
        """Whether it is hot at its end, or now."""
        return len(self.turns) % 2 == 0

    @property
    def until(self) -> float:
        """The end, or the last moment that is proved."""
        return self.seen if self.end is None else self.end


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two sessions with two different producers, both open from ``start`` to ``end``: a split brain."""

    first: Interval
    second: Interval
    start: float
    end: float

    def __str__(self) -> str:
        one, two = (f"{i.relay} had {i.producer} through {i.target}" for i in (self.first, self.second))
        return f"for {self.end - self.start:.2f} s {one} while {two}"


class Log:
    """One relay's log, for writing."""

    def __init__(self, path: Path, relay: str) -> None:
        self._relay = relay
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if torn:
            os.write(self._file, b"\n")

    def write(self, at: float, event: str, **fields: Any) -> None:
        """Append one line."""
        line = {"at": round(at, 6), "relay": self._relay, "event": event, **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def intervals(path: Path) -> list[Interval]:
    """Every session in one relay's log, by start. Raises LabError for a line that a killed relay cannot explain."""
    done: list[Interval] = []
    open_: dict[str, Interval] = {}  # by target: a relay holds one session with each
    seen = 0.0
    for line in _lines(path):
        event, target = line["event"], line.get("target", "")
        if event == "started":  # what was open before died with the process
            done += [replace(i, end=seen, seen=seen, why="the relay was killed") for i in open_.values()]
            open_.clear()
        elif event == "opened":
            open_[target] = Interval(line["relay"], target, line["producer"], line["from"], None, line["at"])
        elif event == "closed":
            done.append(replace(open_.pop(target), end=line["to"], seen=line["to"], why=line["why"]))
        elif event in ("demoted", "promoted"):
            open_[target] = replace(open_[target], turns=(*open_[target].turns, line["at"]))
        seen = line["at"]
    done += [replace(i, seen=seen) for i in open_.values()]
    return sorted(done, key=lambda i: i.start)


def overlaps(sessions: Iterable[Interval], tolerance: float = TOLERANCE) -> list[Overlap]:
    """Each pair of sessions with two different producers that were open together for more than ``tolerance`` s."""
    found: list[Overlap] = []
    running: list[Interval] = []
    for session in sorted(sessions, key=lambda i: i.start):
        running = [other for other in running if other.until > session.start]
        for other in running:
            end = min(other.until, session.until)
            if other.producer != session.producer and end - session.start > tolerance:
                found.append(Overlap(other, session, session.start, end))
        running.append(session)
    return found


def hot(sessions: Iterable[Interval]) -> list[Interval]:
    """The parts of the sessions in which they were hot, each as a session of its own, by start."""
    parts: list[Interval] = []
    for session in sessions:
        marks = (session.start, *session.turns)
        for start, end in zip(marks[::2], (*marks[1::2], None), strict=False):
            demoted = session.end if end is None else end
            why = session.why if end is None else "demoted"
            parts.append(replace(session, start=start, end=demoted, why=why, turns=()))
    return sorted(parts, key=lambda i: i.start)


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    torn = 0
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), 1):
        try:
            line = json.loads(text)
        except ValueError:
            torn = number
            continue
        if torn and line["event"] != "started":
            raise LabError(f"{path}, line {torn}: not JSON, though its relay went on", "the log was edited: discard it")
        torn = 0
        yield line
