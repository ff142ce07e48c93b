"""The journal's rows as people and scripts read them, and the points in time that they ask for. Pure.

The keys of ``document`` are the public face of ``history --json`` (INTERFACE): they change only on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from failover.model import Event, JournalEntry

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNSEEMLY = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def iso(utc: float) -> str:
    """Unix seconds as ISO-8601 in UTC with milliseconds and a Z, like 2026-11-20T08:15:00.250Z."""
    try:
        moment = EPOCH + timedelta(milliseconds=round(utc * 1000))
    except (OverflowError, ValueError):
        # A clock that is off by millennia must not keep anyone from reading why the role moved.
        return "9999-12-31T23:59:59.999Z" if utc > 0 else "0001-01-01T00:00:00.000Z"
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def line(event: Event) -> str:
    """One line for a person: when, generation, what, whom, why. Control characters become spaces."""
    words = [iso(event.at.utc), f"g{event.generation}", event.kind.value]
    if event.producer:
        words.append(event.producer)
    head = "  ".join(words)
    return plain(f"{head}: {event.reason}") if event.reason else head


def plain(text: str) -> str:
    """The text with control characters, and those that reorder a line, as spaces: fit for a terminal."""
    return _UNSEEMLY.sub(" ", text)


def document(entry: JournalEntry) -> dict[str, Any]:
    """One object of ``history --json``: at, generation, event, producer, reason, detail; nothing else."""
    event = entry.event
    detail: Mapping[str, Any] = event.detail
    return {
        "at": iso(event.at.utc),
        "generation": event.generation,
        "event": event.kind.value,
        "producer": event.producer,
        "reason": event.reason,
        "detail": dict(detail),
    }


def since(text: str, now_utc: float) -> float:
    """Unix seconds for ``--since``: a duration back from now (``90``, ``2h``, ``1h30m``) or an ISO-8601 time.

    A time without an offset is UTC, as the journal prints it. Raises ValueError with words for the user.
    """
    wanted = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", wanted):
        return now_utc - float(wanted)
    if _PART.match(wanted) and not _PART.sub("", wanted):
        return now_utc - sum(float(number) * UNITS[unit] for number, unit in _PART.findall(wanted))
    try:
        moment = datetime.fromisoformat(wanted)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither a duration like 2h or 30m nor a time like 2026-11-20T08:15Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
