"""One record's part of the status document: what its provider holds, what servers say, what relays may still believe.

Pure. Its keys are a public face, as all of the document's are (status.py): they change only on purpose.
"""

from __future__ import annotations

from typing import Any

from . import signposts
from .journal import iso
from .model import DnsAnswer, Instant, Record, RRset
from .signposts import Belief, RecordTrack

OTHER = "other"  # what a record points to that points to somebody, and to no producer alone


def document(record: Record, track: RecordTrack, wanted: RRset | None, now: Instant) -> dict[str, Any]:
    """What is known of the record. ``wanted`` is what it should hold; None: nobody can say."""
    reading, rrset = track.reading, track.rrset
    error = track.error if track.silent_since is not None else None if reading is None else reading.unownable
    failure = track.failure if rrset != wanted else None
    pending = pending_since(track, wanted, now)
    return {
        "name": record.label,
        "readable": track.answers if track.tried else None,
        **_said(record, rrset),
        "provider_value": _values(rrset),
        "wanted": _values(wanted),
        "in_sync": in_sync(track, wanted),
        "error": None if error is None else error.removeprefix(f"{record.label}: "),
        "failure": None if failure is None else failure.removeprefix(f"{record.label}: "),
        "pending_since": _iso(pending),
        "pending_seconds": None if pending is None else round(now.since(pending), 1),
        "accepted_at": _iso(track.accepted_at),
        "insync_at": _iso(track.insync_at),
        "verified_at": _iso(track.right_at),
        "verify_error": track.look_error,
        "contested_until": _iso(track.contested_until) if signposts.contested(track, now) else None,
        "answers": [_answer(record, track, answer) for answer in track.said],
        "believed": [_belief(record, track, belief, now) for belief in outlived(track, now)],
    }


def in_sync(track: RecordTrack, wanted: RRset | None) -> bool | None:
    """Whether the provider holds what it should, and says that all its servers have it; None when unknown."""
    if wanted is None or not track.answers:
        return None
    return track.rrset == wanted and track.change_id is None


def pending_since(track: RecordTrack, wanted: RRset | None, now: Instant) -> Instant | None:
    """Since when a change is under way: accepted and not yet everywhere, or just sent and not yet answered."""
    if track.change_id is not None:
        return track.accepted_at
    if wanted is None or track.rrset == wanted or not signposts.in_flight(track, wanted, now):
        return None
    return next(sent.at for sent in reversed(track.sent) if sent.rrset == wanted and not sent.answered)


def outlived(track: RecordTrack, now: Instant) -> tuple[Belief, ...]:
    """What some relay may still believe, and is not what the provider holds now."""
    present = _held(track.rrset)
    known = track.reading is not None
    return tuple(b for b in signposts.believed(track, now) if not known or _held(b.rrset) != present)


def believed_until(record: Record, track: RecordTrack, producer: str, now: Instant) -> Instant | None:
    """Until when, at worst, a relay may look the producer up though the record has left it; None: not any more."""
    target = record.targets[producer]
    beliefs = [b for b in outlived(track, now) if b.rrset is not None and target in b.rrset.values]
    return max((b.at_worst_until(now) for b in beliefs), key=lambda until: until.utc, default=None)


def _answer(record: Record, track: RecordTrack, answer: DnsAnswer) -> dict[str, Any]:
    """``agrees`` is null where there is nothing to compare: a fault, or a provider that was never read."""
    judged = answer.fault is None and track.reading is not None
    return {
        "server": answer.server,
        "authoritative": answer.authoritative,
        **_said(record, answer.rrset),
        "value": _values(answer.rrset),
        "agrees": signposts.agrees(answer, track.rrset) if judged else None,
        "fault": None if answer.fault is None else answer.fault.value,
        "error": answer.error,
    }


def _belief(record: Record, track: RecordTrack, belief: Belief, now: Instant) -> dict[str, Any]:
    tell = [a.server for a in track.said if a.fault is None and _held(a.rrset) == _held(belief.rrset)]
    return {
        **_said(record, belief.rrset),
        "value": _values(belief.rrset),
        "ttl": round(belief.ttl),
        "told_by": tell,
        "replaced_at": iso(belief.replaced_at.utc),
        "gone_at": _iso(belief.gone_at),
        "settled": belief.gone_at is not None,
        "usually_until": iso(belief.usually_until(now).utc),
        "at_worst_until": iso(belief.at_worst_until(now).utc),
    }


def _said(record: Record, rrset: RRset | None) -> dict[str, Any]:
    if rrset is None:
        return {"points_to": None, "ttl": None}
    return {"points_to": record.points_to(rrset) or OTHER, "ttl": rrset.ttl}


def _held(rrset: RRset | None) -> tuple[str, tuple[str, ...]] | None:
    """Type and values, whatever the TTL."""
    return None if rrset is None else (rrset.type.value, rrset.values)


def _values(rrset: RRset | None) -> list[str]:
    return [] if rrset is None else list(rrset.values)


def _iso(instant: Instant | None) -> str | None:
    return None if instant is None else iso(instant.utc)
