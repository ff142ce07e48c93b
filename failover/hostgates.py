"""What the gates on producers' own hosts have said: forging, firewall and power, folded from their readings. Pure.

A gate of this kind stands for one producer. It is read through the agent on its host, or by the operator's power
command; who decides over it is policy.py, whether it fences is fence.py's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .dates import pack, unpack
from .model import GateReading, Instant, StepKind
from .tracks import ReadTrack

REVERSALS = 3  # by another hand, within REVERSAL_WINDOW: we stop fighting
REVERSAL_WINDOW = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class GateTrack(ReadTrack):
    """What is known of one gate. ``reading`` is the last good one, perhaps from before a restart (not ``current``)."""

    reading: GateReading | None = None
    sent: bool = False  # we moved it since the last good reading
    opened: bool = False  # an opening may have been sent since that reading
    reversals: tuple[Instant, ...] = ()
    contested_until: Instant | None = None
    open_since: Instant | None = None  # since when it has been read as not closed
    answering_since: Instant | None = None  # the first reading of this process after silence, or ever

    @property
    def is_open(self) -> bool | None:
        """What it last said: open, closed, or None in between and before it was read."""
        return None if self.reading is None else self.reading.open


def fold_reading(track: GateTrack, reading: GateReading, at: Instant) -> GateTrack:
    """The track after a good reading."""
    reversals, contested = track.reversals, track.contested_until
    if contested is not None and contested.reached(at):
        reversals, contested = (), None
    before = track.reading
    moved = before is not None and {before.open, reading.open} == {True, False}
    if moved and not track.sent and before is not None and before.process == reading.process:
        kept = tuple(r for r in reversals if at.since(r) <= REVERSAL_WINDOW)
        reversals = (*kept, at)[-REVERSALS:]
        if contested is not None or len(reversals) >= REVERSALS:
            contested = at.after(REVERSAL_WINDOW)
    # what is still in between goes on being of our making
    between = reading.open is None and track.sent
    return GateTrack(
        reading=reading,
        read_at=at,
        current=True,
        sent=between,
        opened=between and track.opened,
        reversals=reversals,
        contested_until=contested,
        open_since=None if reading.open is False else track.open_since or at,
        answering_since=(track.answering_since if track.answers else None) or at,
    )


def fold_sent(track: GateTrack, kind: StepKind) -> GateTrack:
    """The track once a step may have left."""
    return replace(track, sent=True, opened=track.opened or kind is StepKind.OPEN)


def dump(track: GateTrack) -> dict[str, Any]:
    """What must survive a restart, JSON-ready."""
    reading = track.reading
    return {
        "read_at": pack(track.read_at),
        "silent_since": pack(track.silent_since),
        "error": track.error,
        "opened": track.opened,
        "sent": track.sent,
        "reading": None if reading is None else [reading.open, reading.certain, reading.process, reading.kes_left],
    }


def restore(document: Any, *, unbroken: bool) -> GateTrack:
    """The track that ``dump`` wrote; it does not count as tried. Nothing, when another version wrote it otherwise.

    ``unbroken``: somebody watched until just now; otherwise silence counts anew.
    """
    try:
        said = document["reading"]
        reading = None
        if said is not None:
            state = said[0] if said[0] is None else bool(said[0])
            left = None if len(said) < 4 or said[3] is None else int(said[3])  # earlier versions did not keep it
            reading = GateReading(state, False, process=None if said[2] is None else str(said[2]), kes_left=left)
        return GateTrack(
            reading=reading,
            read_at=unpack(document["read_at"]) if reading is not None else None,
            silent_since=unpack(document["silent_since"]) if unbroken else None,
            error=document["error"],
            sent=bool(document["sent"]),
            opened=bool(document["opened"]),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return GateTrack()
