"""Relays: who of the producers each is connected to, since when; and whose sessions are to be ended. Pure.

A relay keeps a session for as long as it lives, whatever DNS says by now, and DNS alone closes none (facts of
ouroboros-network: Governor/Monitor.hs). So once the role has moved, sessions with the producer that lost it are
ended, at one relay at a time, so that the pool is never without relays; then it is seen whether they came back to
the winner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .model import Instant, RelayReading, RelaySession

PAUSE = 20.0  # seconds between two relays whose sessions are ended; redialling starts after 5 s (back-off 5, 10, 20...)
AGAIN = 60.0  # seconds after which sessions with the loser that came back are ended again; then twice as long, ...
TRIES = 6  # in one generation, the last after half an hour; a node may remember a name for 900 s and its TTL
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """One session, and since when it has been seen: it is at least that old."""

    session: RelaySession
    since: Instant


@dataclass(frozen=True, slots=True)
class Kicked:
    """That sessions with the loser were ended in a generation: when last, and how often."""

    generation: int
    at: Instant
    times: int


@dataclass(frozen=True, slots=True)
class RelayTrack:
    """What is known of one relay. ``sessions`` are those of the last good reading."""

    reading: RelayReading | None = None
    read_at: Instant | None = None
    current: bool = False
    silent_since: Instant | None = None
    misses: int = 0
    error: str | None = None
    sessions: tuple[Seen, ...] = ()
    kicked: Kicked | None = None

    @property
    def tried(self) -> bool:
        """Whether it was read, or reading it failed, at least once."""
        return self.current or self.misses > 0

    @property
    def answers(self) -> bool:
        """Whether the last attempt to read it succeeded."""
        return self.current and self.silent_since is None

    def connected(self, producer: str) -> tuple[Seen, ...]:
        """Its sessions with this producer."""
        return tuple(seen for seen in self.sessions if seen.session.producer == producer)


def fold_reading(track: RelayTrack, reading: RelayReading, at: Instant) -> RelayTrack:
    """The track after a good reading; a session that was there before keeps its date."""
    known = {_key(seen.session): seen.since for seen in track.sessions}
    sessions = tuple(Seen(session, known.get(_key(session), at)) for session in reading.sessions)
    return RelayTrack(reading=reading, read_at=at, current=True, sessions=sessions, kicked=track.kicked)


def fold_silence(track: RelayTrack, at: Instant, error: str) -> RelayTrack:
    """The track after an attempt to read that failed."""
    return replace(track, silent_since=track.silent_since or at, misses=track.misses + 1, error=error)


def fold_kicked(track: RelayTrack, generation: int, at: Instant) -> RelayTrack:
    """The track once sessions with the loser are about to be ended."""
    before = track.kicked
    times = before.times if before is not None and before.generation == generation else 0
    return replace(track, kicked=Kicked(generation, at, times + 1))


def _key(session: RelaySession) -> Key:
    return (session.producer, session.peer, session.local)


def dump(track: RelayTrack) -> dict[str, Any]:
    """What must survive a restart, JSON-ready."""
    kicked = track.kicked
    return {
        "sessions": [
            [s.session.producer, s.session.peer, s.session.local, s.session.inbound, _pack(s.since)]
            for s in track.sessions
        ],
        "kicked": None if kicked is None else [kicked.generation, _pack(kicked.at), kicked.times],
    }


def restore(document: Any, producers: tuple[str, ...]) -> RelayTrack:
    """The track that ``dump`` wrote; it does not count as tried. Nothing, when another version wrote it otherwise."""
    try:
        rows = [(RelaySession(str(p), str(a), str(b), bool(i)), _unpack(at)) for p, a, b, i, at in document["sessions"]]
        kicked = document["kicked"]
        at = None if kicked is None else _unpack(kicked[1])
        return RelayTrack(
            sessions=tuple(Seen(s, since) for s, since in rows if since is not None and s.producer in producers),
            kicked=None if at is None else Kicked(int(kicked[0]), at, int(kicked[2])),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return RelayTrack()


def _pack(instant: Instant | None) -> list[Any] | None:
    return None if instant is None else [instant.boot, instant.mono, instant.utc]


def _unpack(packed: Any) -> Instant | None:
    return None if packed is None else Instant(str(packed[0]), float(packed[1]), float(packed[2]))
