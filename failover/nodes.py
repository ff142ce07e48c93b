"""What the nodes' own metrics add up to: who forges, whose credentials end, who is still starting. Pure.

The about-to-lead counter rises once a slot while a node holds credentials, whatever ``forging_enabled`` says: that
metric lies in some versions (facts of cardano-node: the trust table of #5751, #6113, #6576).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .dates import pack, unpack
from .model import GateReading, Instant, NodeReading

FRESH = 60.0  # seconds; two readings further apart do not say whether a counter rises now
LEAST_GAP = 1.0  # seconds between two readings that are compared; slots are 1 s long
SETTLED = 5.0  # seconds after a handover from which on a reading counts: what was read may be a little older than told
SOON = 14  # KES periods (of 36 h on mainnet: three weeks) from which on their end is told


@dataclass(frozen=True, slots=True)
class NodeTrack:
    """What is known of one producer's node. ``forges`` is None while its counter cannot be compared."""

    reading: NodeReading | None = None
    read_at: Instant | None = None
    error: str | None = None
    tried: bool = False
    forges: bool | None = None
    rose_from: Instant | None = None  # the earlier of the two readings between which the counter last rose
    expired_since: Instant | None = None
    sound_since: Instant | None = None  # since when they are good again, after they had expired
    compared: tuple[int, Instant] | None = None  # the counter that the next reading is compared with


def fold(track: NodeTrack, reading: NodeReading, at: Instant, gate: GateReading | None = None) -> NodeTrack:
    """The track after a good reading. ``gate`` is what its forging gate last said, if it has one."""
    forges, compared, rose_from = track.forges, track.compared, track.rose_from
    counter = reading.about_to_lead
    if counter is None:
        forges, compared = None, None
    elif compared is None or counter < compared[0] or _restarted(track.reading, reading):
        forges, compared = None, (counter, at)
    else:
        gap = at.since(compared[1]) if compared[1].boot == at.boot else FRESH + 1
        if gap > FRESH:
            forges, compared = None, (counter, at)
        elif counter > compared[0]:
            rose_from = compared[1]
            forges, compared = True, (counter, at)
        elif gap >= LEAST_GAP * 3:  # several slots without one
            forges, compared = False, (counter, at)
    gone = expired(reading, gate)
    return NodeTrack(
        reading=reading,
        read_at=at,
        tried=True,
        forges=forges,
        rose_from=rose_from if forges is True else None,
        expired_since=(track.expired_since or at) if gone else None,
        sound_since=None if gone else track.sound_since or (at if track.expired_since else None),
        compared=compared,
    )


def fold_unread(track: NodeTrack, at: Instant, error: str) -> NodeTrack:
    """The track after an attempt to read that failed; what was read before is kept until it is old."""
    if track.read_at is not None and at.since(track.read_at) <= FRESH:
        return replace(track, error=error, tried=True)
    # that credentials had expired is so until a reading shows others
    return NodeTrack(error=error, tried=True, expired_since=track.expired_since, sound_since=track.sound_since)


def dump(track: NodeTrack) -> dict[str, Any]:
    """What must survive a restart, JSON-ready: since when its credentials have been expired."""
    return {"expired_since": pack(track.expired_since), "sound_since": pack(track.sound_since)}


def restore(document: Any) -> NodeTrack:
    """The track that ``dump`` wrote. Nothing, when another version wrote it otherwise."""
    try:
        return NodeTrack(expired_since=unpack(document["expired_since"]), sound_since=unpack(document["sound_since"]))
    except (KeyError, TypeError, ValueError, IndexError):
        return NodeTrack()


def _restarted(before: NodeReading | None, now: NodeReading) -> bool:
    if before is None or before.started is None or now.started is None:
        return False
    return abs(before.started - now.started) > 1.0


def periods_left(reading: NodeReading, gate: GateReading | None) -> int | None:
    """The KES periods for which it can sign (0: none); None: nothing tells. ``gate`` is its forging gate's reading.

    The numbers of a node that is shut stay as they were when it was, whatever its host has been given since.
    """
    own = [reading.kes_remaining] if reading.kes_remaining is not None else []
    if reading.kes_period is not None and reading.certificate_expiry is not None:
        own.append(reading.certificate_expiry - reading.kes_period)
    if gate is None or gate.kes_left is None:
        return min(own, default=None)
    return min([gate.kes_left, *own]) if gate.open is True and gate.certain else gate.kes_left


def expired(reading: NodeReading, gate: GateReading | None = None) -> bool:
    """Whether its KES key, or its operational certificate, can sign no block any more."""
    left = periods_left(reading, gate)
    return left is not None and left <= 0


def ends_soon(reading: NodeReading, gate: GateReading | None = None) -> int | None:
    """The KES periods that remain when they are few; None while there are plenty, or nothing is known."""
    left = periods_left(reading, gate)
    return left if left is not None and 0 < left <= SOON else None


def forging_now(track: NodeTrack, now: Instant) -> bool | None:
    """Whether the node was just seen to forge, by its counter; None when nothing recent says so."""
    if track.read_at is None or track.read_at.boot != now.boot or now.since(track.read_at) > FRESH:
        return None
    return track.forges


def forged_since(track: NodeTrack, since: Instant, now: Instant) -> bool:
    """Whether its counter has risen between two readings that were both taken after ``since``."""
    if forging_now(track, now) is not True or track.rose_from is None or track.rose_from.boot != since.boot:
        return False
    return track.rose_from.mono > since.mono + SETTLED


def starting(track: NodeTrack, now: Instant) -> float | None:
    """The share of its replay at start that is done, in percent; None when it is not replaying, or does not say."""
    if track.read_at is None or track.reading is None or now.since(track.read_at) > FRESH:
        return None
    share = track.reading.starting
    return share if share is not None and 0.0 <= share < 100.0 else None
