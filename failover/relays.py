"""Relays: who of the producers each is connected to, since when; and whose sessions are to be ended. Pure.

A relay keeps a session for as long as it lives, whatever DNS says by now, and DNS alone closes none (facts of
ouroboros-network: Governor/Monitor.hs). So once the role has moved, sessions with the producer that lost it are
ended, at one relay at a time, so that the pool is never without relays; then it is seen whether they came back to
the winner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .dates import pack, unpack
from .model import Instant, RelayReading, RelaySession
from .tracks import ReadTrack

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
class RelayTrack(ReadTrack):
    """What is known of one relay. ``sessions`` are those of the last good reading."""

    reading: RelayReading | None = None
    sessions: tuple[Seen, ...] = ()
    kicked: Mapping[str, Kicked] = field(default_factory=dict)  # by the producer that it was made to let go of

    @property
    def last_kicked(self) -> Kicked | None:
        """The last time that it was made to let go of anybody."""
        return max(self.kicked.values(), key=lambda kicked: kicked.at.utc, default=None)

    def connected(self, producer: str) -> tuple[Seen, ...]:
        """Its sessions with this producer."""
        return tuple(seen for seen in self.sessions if seen.session.producer == producer)


def fold_reading(track: RelayTrack, reading: RelayReading, at: Instant) -> RelayTrack:
    """The track after a good reading; a session that was there before keeps its date."""
    known = {_key(seen.session): seen.since for seen in track.sessions}
    sessions = tuple(Seen(session, known.get(_key(session), at)) for session in reading.sessions)
    return RelayTrack(reading=reading, read_at=at, current=True, sessions=sessions, kicked=track.kicked)


def fold_kicked(track: RelayTrack, producer: str, generation: int, at: Instant) -> RelayTrack:
    """The track once sessions with a loser are about to be ended; what earlier generations did is forgotten."""
    before = track.kicked.get(producer)
    times = before.times if before is not None and before.generation == generation else 0
    kept = {name: kicked for name, kicked in track.kicked.items() if kicked.generation == generation}
    return replace(track, kicked={**kept, producer: Kicked(generation, at, times + 1)})


def _key(session: RelaySession) -> Key:
    return (session.producer, session.peer, session.local)


def dump(track: RelayTrack) -> dict[str, Any]:
    """What must survive a restart, JSON-ready."""
    return {
        "sessions": [
            [s.session.producer, s.session.peer, s.session.local, s.session.inbound, pack(s.since)]
            for s in track.sessions
        ],
        "kicked": {name: [k.generation, pack(k.at), k.times] for name, k in track.kicked.items()},
    }


def restore(document: Any, producers: tuple[str, ...]) -> RelayTrack:
    """The track that ``dump`` wrote; it does not count as tried. Nothing, when another version wrote it otherwise."""
    try:
        rows = [(RelaySession(str(p), str(a), str(b), bool(i)), unpack(at)) for p, a, b, i, at in document["sessions"]]
        dated = {name: (int(g), unpack(at), int(times)) for name, (g, at, times) in document["kicked"].items()}
        return RelayTrack(
            sessions=tuple(Seen(s, since) for s, since in rows if since is not None and s.producer in producers),
            kicked={n: Kicked(g, at, times) for n, (g, at, times) in dated.items() if at is not None},
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return RelayTrack()
