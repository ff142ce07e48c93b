"""The log on stderr: a line for each thing that happens, for people on a terminal, as JSON otherwise.

An ``Observer`` of the controller. A journal row becomes a line at once, also while the store is out of order. Writing
is done in a thread of its own behind a bounded queue: a terminal that is held (Ctrl-S) or a pipe that nobody reads
must never hold up the decision loop. What found no place there is counted, and said later.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from .journal import iso
from .model import Event, EventKind, Instant, Ping
from .tick import Outcome

LONGEST = 2000  # characters of a line's words
WAITING = 1000  # lines that wait for the writer
CLOSING = 2.0  # seconds that the last lines may take
AGAIN = 300.0  # seconds after which a line that is still the same is said again

_BY_KIND: Mapping[EventKind, str] = {
    EventKind.ALERT: "warning",
    EventKind.STEP_FAILED: "warning",
    EventKind.DRIFT: "warning",
    EventKind.ISOLATED: "warning",
    EventKind.SPLIT_BRAIN: "error",
}
# What a part that stays broken says again and again; of all else every line counts.
_REPEATING = frozenset(
    {EventKind.ALERT, EventKind.DRIFT, EventKind.STEP_STARTED, EventKind.STEP_DONE, EventKind.STEP_FAILED}
)
_ABOUT = ("gate", "record", "alert", "kind")  # by which key of an event's detail one part is told from another
_COLOURS = {"debug": "2", "warning": "33", "error": "1;31"}


def level(event: Event) -> str:
    """How much an event matters: debug, info, warning or error."""
    if event.kind is EventKind.HEALTH_CHANGED:
        return "warning" if event.detail.get("to") != "up" else "info"
    return _BY_KIND.get(event.kind, "info")


def human(at: float, rank: str, event: str, producer: str | None, words: str, *, colour: bool) -> str:
    """One line for a person; control characters are escaped."""
    whom = f" {producer}:" if producer and not words.startswith(producer) else ""
    line = f"{iso(at)} {rank:<7} {event}:{whom} {_plain(words)}"
    code = _COLOURS.get(rank) if colour else None
    return line if code is None else f"\x1b[{code}m{line}\x1b[0m"


def as_json(
    at: float, rank: str, event: str, producer: str | None, generation: int, words: str, detail: Mapping[str, Any]
) -> str:
    """One JSON object on one line: at, level, event, producer, generation, reason, detail."""
    row = {
        "at": iso(at),
        "level": rank,
        "event": event,
        "producer": producer,
        "generation": generation,
        "reason": words[:LONGEST],
        "detail": dict(detail),
    }
    line = json.dumps(row, ensure_ascii=True, default=str)
    if len(line) > 4 * LONGEST:
        line = json.dumps({**row, "detail": {"cut": True}}, ensure_ascii=True)
    return line


def _plain(words: str) -> str:
    cut = words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


class Log:
    """Writes lines to ``stream``; ``lines`` are JSON unless ``for_people``. Call ``close`` at the end."""

    def __init__(
        self, stream: TextIO, now: Clock, *, for_people: bool, colour: bool = False, verbose: bool = False
    ) -> None:
        self._stream = stream
        self._now = now
        self._for_people = for_people
        self._colour = colour and for_people
        self._verbose = verbose
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self._lost = 0
        self._said: dict[tuple[EventKind, str], tuple[str, float]] = {}
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    # ------------------------------------------------------------ as an Observer

    def event(self, event: Event) -> None:
        """A row of the journal."""
        if not self._repeated(event):
            self._put(
                event.at.utc,
                level(event),
                event.kind.value,
                event.producer,
                event.generation,
                event.reason,
                event.detail,
            )

    def ping(self, producer: str, ping: Ping) -> None:
        """A ping; said only when asked to be verbose."""
        if self._verbose:
            words = f"ok, {(ping.seconds or 0) * 1e3:.1f} ms" if ping.ok else f"failed: {ping.error}"
            tip = {} if ping.tip is None else {"slot": ping.tip.slot}
            self._put(ping.at.utc, "debug", "ping", producer, 0, words, {"stage": ping.stage, **tip})

    def ticked(self, seconds: float, outcome: Outcome) -> None:
        """A tick; what it changed comes as events."""

    # ------------------------------------------------------------ for the rest of the daemon

    def say(self, words: str, rank: str = "info", event: str = "daemon", **detail: Any) -> None:
        """A line about the daemon itself."""
        self._put(self._now().utc, rank, event, None, 0, words, detail)

    def close(self) -> None:
        """Write what waits, for at most CLOSING seconds."""
        try:
            self._lines.put(None, timeout=CLOSING)
        except queue.Full:
            return
        self._writer.join(CLOSING)

    def _repeated(self, event: Event) -> bool:
        """Whether the same was said of the same thing just before: a part that stays broken is not news."""
        if event.kind not in _REPEATING:
            return False
        about = next((str(event.detail[key]) for key in _ABOUT if event.detail.get(key)), "")
        key, words, now = (event.kind, about), f"{event.generation} {event.reason}", event.at.mono
        before = self._said.get(key)
        if before is not None and before[0] == words and 0 <= now - before[1] < AGAIN:
            return True
        self._said.pop(key, None)
        self._said[key] = (words, now)
        if len(self._said) > WAITING:
            self._said.pop(next(iter(self._said)))
        return False

    def _put(
        self,
        at: float,
        rank: str,
        event: str,
        producer: str | None,
        generation: int,
        words: str,
        detail: Mapping[str, Any],
    ) -> None:
        if self._for_people:
            line = human(at, rank, event, producer, words, colour=self._colour)
        else:
            line = as_json(at, rank, event, producer, generation, words, detail)
        try:
            if self._lost:
                self._lines.put_nowait(self._loss(at))
                self._lost = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def _loss(self, at: float) -> str:
        words = f"{self._lost} lines were dropped: nobody read the log"
        if self._for_people:
            return human(at, "warning", "log", None, words, colour=self._colour)
        return as_json(at, "warning", "log", None, 0, words, {})

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                continue  # stderr is gone; the journal has it all


class Bridge(logging.Handler):
    """Takes warnings of libraries (uvicorn, urllib3) into the log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One record of the standard library's logging."""
        rank = "error" if record.levelno >= logging.ERROR else "warning"
        self._log.say(record.getMessage(), rank, "library", logger=record.name)


class Clock(Protocol):
    """Tells the present instant."""

    def __call__(self) -> Instant: ...
