"""What is known of one DNS record: what its provider holds, what servers answer, what the world may still believe.

Pure: a ``RecordTrack`` is folded forward by each reading, each accepted change and each look at the servers. A record
is a signpost: it can point, but it cannot shut anyone out, and nobody waits for it.

Theory of operation
- The provider's value is what a compare-and-swap is made from; the servers' answers are what relays get.
- Whatever the name said before is believed on: by resolvers for its TTL, from the moment when no server says it any
  more; then by nodes for their own delay, 60 s as a rule, and 900 s when the resolver gave them a remaining TTL of 0.
  Source: ouroboros-network, LocalRootPeers.hs and DNSActions.hs (clip to 60..900 s; TTL 0, NXDOMAIN: 900 s).
- A value that is neither what we last saw nor what we sent was put there by another hand. It is repaired once; when it
  comes back within an hour we stop fighting for 15 minutes, say so, and only a handover changes the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .dates import pack, unpack
from .model import DnsAnswer, Fault, Instant, Record, RecordReading, RecordType, RRset
from .tracks import ReadTrack

NODE_LEAST, NODE_MOST = 60.0, 900.0  # seconds: the delays between which a node looks a name up again
NO_NAME_TTL = 900.0  # seconds for which "there is no such name" is kept, where no server said otherwise
BELIEFS = 8  # earlier values that are remembered
SILENT_FOR = 3600.0  # seconds after which a server that falls silent is no longer taken to say what it said
SENT = 8  # values of our own that may yet appear
IN_FLIGHT = 20.0  # seconds for which a change that was sent and not refused is not yet missed
SENT_FOR = 600.0  # seconds for which a change without an answer may yet take effect
REVERSALS = 2  # by another hand within REVERSAL_WINDOW: we stop fighting
REVERSAL_WINDOW = 3600.0  # seconds
CONTESTED_FOR = 900.0  # seconds for which only a handover changes the record
PROPAGATION = 60.0  # seconds in which a change reaches every server as a rule (Route 53, ChangeResourceRecordSets)
STALLED = 600.0  # seconds after which a change that has not reached every server is worth telling


@dataclass(frozen=True, slots=True)
class Belief:
    """Something that the record said earlier. ``rrset`` None: that there is no such name.

    ``ttl`` (seconds) is for how long a resolver keeps it; ``gone_at``: since when no server that we ask says it.
    ``told_by``: servers that said it when they last answered, of those heard within SILENT_FOR.
    """

    rrset: RRset | None
    ttl: float
    replaced_at: Instant
    gone_at: Instant | None = None
    told_by: frozenset[str] = frozenset()

    def usually_until(self, now: Instant) -> Instant:
        """Until when most relays may hold it; counted from now on while a server still says it."""
        unusual = self.rrset is None or self.rrset.ttl == 0
        return (self.gone_at or now).after(self.ttl + (NODE_MOST if unusual else NODE_LEAST))

    def at_worst_until(self, now: Instant) -> Instant:
        """Until when a relay may hold it whose resolver answered in the very last second (a remaining TTL of 0)."""
        return (self.gone_at or now).after(self.ttl + NODE_MOST)


@dataclass(frozen=True, slots=True)
class Sent:
    """A value that we asked the provider for, and when; without an answer it may yet appear."""

    rrset: RRset
    at: Instant
    answered: bool = False


@dataclass(frozen=True, slots=True)
class RecordTrack(ReadTrack):
    """What is known of one record. ``reading`` may be from before a restart (then it is not ``current``)."""

    reading: RecordReading | None = None
    sent: tuple[Sent, ...] = ()
    change_id: str | None = None  # of the change that the provider has accepted and not yet brought everywhere
    accepted_at: Instant | None = None  # when our last change was accepted
    insync_at: Instant | None = None  # when the provider said that it is everywhere
    said: tuple[DnsAnswer, ...] = ()  # by the servers
    looked_at: Instant | None = None
    look_error: str | None = None
    wrong_since: Instant | None = None  # since when a server's answer differs from what the provider holds
    right_at: Instant | None = None  # since when every server that answers is right
    believed: tuple[Belief, ...] = ()
    foreign: bool = False  # what it holds was put there by another hand
    reversals: tuple[Instant, ...] = ()
    contested_until: Instant | None = None
    moved_in: int = 0  # the generation of our last accepted change
    failure: str | None = None  # why our last change failed
    failing_since: Instant | None = None

    @property
    def rrset(self) -> RRset | None:
        """What the provider holds, as far as we know."""
        return None if self.reading is None else self.reading.rrset


# ---------------------------------------------------------------- folding


def fold_reading(track: RecordTrack, reading: RecordReading, at: Instant, *, steering: bool = True) -> RecordTrack:
    """The track after the provider was read. ``steering``: we are the one who moves it, so others should not."""
    before = track.reading
    changed = before is not None and before.rrset != reading.rrset
    ours = any(sent.rrset == reading.rrset for sent in track.sent)
    if track.contested_until is not None and track.contested_until.reached(at):
        track = replace(track, contested_until=None)
    if changed and track.current and not ours and steering:
        track = track if track.foreign else _reversed(track, at)
        track = replace(track, foreign=True)
    elif changed:
        track = replace(track, foreign=False)
    if changed:
        track = _superseded(track, at)
    if track.failing_since is not None and track.sent and reading.rrset == track.sent[-1].rrset:
        track = replace(track, failure=None, failing_since=None)
    kept = tuple(sent for sent in track.sent if at.since(sent.at) <= SENT_FOR)
    return replace(track, reading=reading, read_at=at, current=True, silent_since=None, misses=0, error=None, sent=kept)


def fold_sent(track: RecordTrack, wanted: RRset, at: Instant) -> RecordTrack:
    """The track once a change may have left for the provider."""
    return replace(track, sent=(*track.sent, Sent(wanted, at))[-SENT:])


def fold_failed(track: RecordTrack, why: str, at: Instant) -> RecordTrack:
    """The track after a change that failed, in words for a person."""
    return replace(track, failure=why, failing_since=track.failing_since or at)


def fold_unsent(track: RecordTrack, wanted: RRset) -> RecordTrack:
    """The track once it is certain that the last change to these values had no effect and will have none.

    An earlier one that was not answered may yet have.
    """
    mine = [number for number, sent in enumerate(track.sent) if sent.rrset == wanted and not sent.answered]
    return replace(track, sent=tuple(sent for number, sent in enumerate(track.sent) if number not in mine[-1:]))


def fold_accepted(
    track: RecordTrack, wanted: RRset, change_id: str, at: Instant, *, generation: int = 0
) -> RecordTrack:
    """The track once the provider has accepted our change: that is an observation of what it holds."""
    if track.reading is not None and track.reading.rrset != wanted:
        track = _superseded(track, at)
    return replace(
        track,
        sent=tuple(replace(sent, answered=True) if sent.rrset == wanted else sent for sent in track.sent),
        reading=RecordReading(wanted),
        read_at=at,
        current=True,
        silent_since=None,
        misses=0,
        error=None,
        change_id=change_id or None,
        accepted_at=at,
        insync_at=None if change_id else at,
        foreign=False,
        moved_in=generation,
        failure=None,
        failing_since=None,
    )


def fold_settled(track: RecordTrack, at: Instant) -> RecordTrack:
    """The track once the provider says that the change is everywhere."""
    return replace(track, change_id=None, insync_at=at)


def fold_answers(track: RecordTrack, answers: tuple[DnsAnswer, ...], at: Instant) -> RecordTrack:
    """The track after a look at the servers."""
    good = tuple(answer for answer in answers if answer.fault is None)
    right = bool(good) and track.reading is not None and all(agrees(answer, track.rrset) for answer in good)
    wrong = track.reading is not None and any(not agrees(answer, track.rrset) for answer in good)
    if right and track.change_id is not None and track.wrong_since is None:
        right = False  # it may be from before the change that is under way
    right_at = (track.right_at or at) if right else None
    steadily = right_at is not None and at.since(right_at) >= PROPAGATION
    looked = replace(
        track,
        said=answers,
        looked_at=at,
        look_error=None,
        wrong_since=(track.wrong_since or at) if wrong else None if steadily else track.wrong_since,
        right_at=right_at,
    )
    return replace(looked, believed=_unforgotten(_heard(looked, good, at), at))


def _heard(track: RecordTrack, good: tuple[DnsAnswer, ...], at: Instant) -> tuple[Belief, ...]:
    """The beliefs after what servers have just said, new ones among them."""
    believed = [_aged(track, belief, good, at) for belief in track.believed]
    for answer in good if track.reading is not None else ():
        known = any(_same(belief.rrset, answer.rrset) for belief in believed)
        longer = answer.rrset is not None and track.rrset is not None and answer.rrset.ttl > track.rrset.ttl
        if not known and (longer or not _same(answer.rrset, track.rrset)):
            ttl = NO_NAME_TTL if answer.rrset is None else float(answer.rrset.ttl)
            believed.append(Belief(answer.rrset, ttl, at, told_by=frozenset({answer.server})))
    return tuple(believed)


def _aged(track: RecordTrack, belief: Belief, good: tuple[DnsAnswer, ...], at: Instant) -> Belief:
    """One belief after what servers have just said."""
    saying = [answer for answer in good if _same(answer.rrset, belief.rrset)]
    ttls = [float(answer.rrset.ttl) for answer in saying if answer.rrset is not None]
    if belief.rrset is None:
        ttls = [float(answer.negative_ttl) for answer in good if answer.negative_ttl is not None]
    ttl = max([belief.ttl, *ttls]) if belief.rrset is not None else max(ttls, default=belief.ttl)
    if _same(belief.rrset, track.rrset):  # true again; only a longer TTL that a server still gives is worth a date
        longer = track.rrset is not None and any(each > track.rrset.ttl for each in ttls)
        return replace(belief, ttl=ttl, replaced_at=at if longer else belief.replaced_at)
    told_by = (belief.told_by - {answer.server for answer in good}) | {answer.server for answer in saying}
    if not saying and at.since(belief.replaced_at) >= SILENT_FOR:
        told_by = frozenset()
    under_way = track.change_id is not None  # servers that we cannot see may still say it
    gone_at = None if told_by or under_way else belief.gone_at
    if not told_by and not under_way and gone_at is None:
        if good:
            gone_at = at
        elif track.insync_at is not None and at.since(track.insync_at) >= PROPAGATION:
            gone_at = track.insync_at.after(PROPAGATION)
    return replace(belief, ttl=ttl, told_by=told_by, gone_at=gone_at)


def fold_unseen(track: RecordTrack, at: Instant, error: str) -> RecordTrack:
    """The track after a look for which no server could be found."""
    believed = tuple(_aged(track, belief, (), at) for belief in track.believed)
    believed = _unforgotten(believed, at)
    return replace(track, said=(), looked_at=at, look_error=error, right_at=None, believed=believed)


def elsewhere(track: RecordTrack, at: Instant) -> RecordTrack:
    """A fresh track for a name that is now looked after at another provider: what was believed is believed on."""
    return RecordTrack(believed=_superseded(track, at).believed if track.reading is not None else track.believed)


def _superseded(track: RecordTrack, at: Instant) -> RecordTrack:
    """What the name said until now becomes something that may still be believed."""
    before = track.rrset
    ttl = NO_NAME_TTL if before is None else float(before.ttl)
    for belief in track.believed:  # the same values, with a longer TTL that resolvers may not have run down yet
        if _same(belief.rrset, before) and not belief.replaced_at.after(belief.ttl + PROPAGATION).reached(at):
            ttl = max(ttl, belief.ttl)
    others = tuple(belief for belief in track.believed if not _same(belief.rrset, before))
    saying = frozenset(a.server for a in track.said if a.fault is None and _same(a.rrset, before))
    believed = _unforgotten((*others, Belief(before, ttl, at, told_by=saying)), at)
    return replace(
        track, believed=believed, right_at=None, wrong_since=None, change_id=None, accepted_at=None, insync_at=None
    )


def _unforgotten(believed: tuple[Belief, ...], at: Instant) -> tuple[Belief, ...]:
    """Those that some relay may still hold; if there are too many, those that are held longest."""
    kept = [b for b in believed if b.gone_at is None or not b.at_worst_until(at).reached(at)]
    while len(kept) > BELIEFS:
        kept.remove(min(kept, key=lambda belief: belief.at_worst_until(at).utc))
    return tuple(kept)


def _reversed(track: RecordTrack, at: Instant) -> RecordTrack:
    recent = tuple(r for r in track.reversals if at.since(r) <= REVERSAL_WINDOW)
    reversals = (*recent, at)[-REVERSALS:]
    contested = track.contested_until
    if contested is not None or len(reversals) >= REVERSALS:
        contested = at.after(CONTESTED_FOR)
    return replace(track, reversals=reversals, contested_until=contested)


def _same(one: RRset | None, other: RRset | None) -> bool:
    """The same values, whatever the TTL."""
    if one is None or other is None:
        return one is other
    return (one.type, one.values) == (other.type, other.values)


def agrees(answer: DnsAnswer, rrset: RRset | None) -> bool:
    """Whether a server says what the provider holds; a resolver's TTL runs down, an authoritative one's does not."""
    if not _same(answer.rrset, rrset):
        return False
    if answer.rrset is None or rrset is None:
        return True
    return answer.rrset.ttl == rrset.ttl if answer.authoritative else answer.rrset.ttl <= rrset.ttl


# ---------------------------------------------------------------- questions


def believed(track: RecordTrack, now: Instant) -> tuple[Belief, ...]:
    """Earlier values, other than the present one, that some relay may still hold now."""
    others = (b for b in track.believed if not _same(b.rrset, track.rrset))
    return tuple(b for b in others if b.gone_at is None or not b.at_worst_until(now).reached(now))


def overdue(track: RecordTrack, now: Instant) -> tuple[DnsAnswer, ...]:
    """Servers that still say something else, resolvers whose cache may rightly do so apart."""

    def rightly(answer: DnsAnswer) -> bool:
        known = (b for b in track.believed if _same(b.rrset, answer.rrset))
        return any(not b.replaced_at.after(b.ttl + PROPAGATION).reached(now) for b in known)

    return tuple(answer for answer in differing(track) if answer.authoritative or not rightly(answer))


def settled(track: RecordTrack) -> bool:
    """Whether every server that answers is right, and none says anything earlier."""
    told = any(b.gone_at is None and not _same(b.rrset, track.rrset) for b in track.believed)
    return track.right_at is not None and not told


def contested(track: RecordTrack, now: Instant) -> bool:
    """Whether another hand keeps changing it."""
    return track.contested_until is not None and not track.contested_until.reached(now)


def in_flight(track: RecordTrack, wanted: RRset, now: Instant) -> bool:
    """Whether a change to these values has just been sent, and may show at any moment."""
    return any(s.rrset == wanted and not s.answered and now.since(s.at) < IN_FLIGHT for s in track.sent)


def lame(track: RecordTrack) -> tuple[DnsAnswer, ...]:
    """Servers that should be authoritative and are not."""
    return tuple(answer for answer in track.said if answer.fault is Fault.LAME)


def silent(track: RecordTrack) -> tuple[DnsAnswer, ...]:
    """Servers that gave no answer."""
    return tuple(answer for answer in track.said if answer.fault is Fault.SILENT)


def differing(track: RecordTrack) -> tuple[DnsAnswer, ...]:
    """Servers that say something else than the provider holds."""
    good = (answer for answer in track.said if answer.fault is None)
    return tuple(answer for answer in good if not agrees(answer, track.rrset))


# ---------------------------------------------------------------- drift


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing about a record that is not as it should be. ``alert``: a person should be told."""

    kind: str
    what: str
    alert: bool = False


def drift(record: Record, track: RecordTrack, active: str | None, now: Instant) -> tuple[Sign, ...]:
    """What is not as it should be. ``active`` is None while a handover runs, or nobody is assigned."""
    found = []
    if track.tried and not track.answers:
        words = (track.error or "its provider does not answer").removeprefix(f"{record.label}: ")
        found.append(Sign("record-unreadable", words, _lasted(track.silent_since, STALLED, now)))
    elif track.reading is not None and track.reading.unownable is not None:
        found.append(Sign("record-unownable", track.reading.unownable, alert=True))
    elif track.reading is not None and active is not None and not in_flight(track, record.wanted(active), now):
        found.extend(_misplacement(record, track.rrset, record.wanted(active)))
    if track.failure is not None and (active is None or track.rrset != record.wanted(active)):
        words = f"cannot be changed: {track.failure.removeprefix(f'{record.label}: ')}"
        found.append(Sign("record-stuck", words, _lasted(track.failing_since, PROPAGATION, now)))
    if contested(track, now):
        words = (
            "another hand changed it again after it was mended: left as it is for 15 minutes; end what does it, or say "
        )
        words += "again where it is to point (failover switchover --to the active one)"
        found.append(Sign("record-another-hand", words, alert=True))
    found.extend(_told_otherwise(track, now))
    return tuple(found)


def _misplacement(record: Record, rrset: RRset | None, wanted: RRset) -> list[Sign]:
    """How what the provider holds differs from what it should."""
    if rrset == wanted:
        return []
    if rrset is None:
        words = f"holds nothing, and relays that ask are told that there is no such name; it should be {wanted}"
        return [Sign("record-missing", words)]
    if _same(rrset, wanted):
        return [Sign("record-ttl", f"has TTL {rrset.ttl}, and should have {wanted.ttl}")]
    if len(rrset.values) > 1:
        return [Sign("record-several", f"holds {rrset}, and should be {wanted} alone")]
    whose = record.points_to(rrset)
    to = f"points to {whose} ({rrset})" if whose else f"points to {rrset}, which is nobody's"
    return [Sign("record-elsewhere", f"{to}, and should be {wanted}")]


def _told_otherwise(track: RecordTrack, now: Instant) -> list[Sign]:
    """What servers tell the world that the provider does not hold, once it should have reached them."""
    found = []
    if track.change_id is not None:
        if track.accepted_at is not None and _lasted(track.accepted_at, STALLED, now):
            words = (
                f"the change was accepted {now.since(track.accepted_at):.0f} s ago, and is still not on every server"
            )
            found.append(Sign("record-pending", words, alert=True))
    elif _lasted(track.wrong_since, PROPAGATION, now) and overdue(track, now):
        told = "; ".join(f"{a.server} says {a.rrset or 'no such name'}" for a in overdue(track, now)[:4])
        words = f"the provider holds {track.rrset or 'nothing'}, but {told}"
        found.append(Sign("servers-disagree", words, _lasted(track.wrong_since, STALLED, now)))
    shirking = lame(track)
    if shirking:
        words = "; ".join(f"{answer.server}: {answer.error or 'no authority'}" for answer in shirking[:4])
        found.append(Sign("server-lame", words))
    if track.look_error is not None:
        found.append(Sign("record-unverified", track.look_error))
    elif track.said and len(silent(track)) == len(track.said):
        found.append(Sign("record-unverified", f"none of {len(track.said)} servers answers"))
    return found


def _lasted(since: Instant | None, seconds: float, now: Instant) -> bool:
    return since is not None and now.since(since) >= seconds


# ---------------------------------------------------------------- across a restart


def dump(track: RecordTrack) -> dict[str, Any]:
    """What must survive a restart, JSON-ready."""
    return {
        "known": track.reading is not None,
        "rrset": _pack_set(track.rrset),
        "sent": [[_pack_set(sent.rrset), pack(sent.at), sent.answered] for sent in track.sent],
        "change_id": track.change_id,
        "accepted_at": pack(track.accepted_at),
        "insync_at": pack(track.insync_at),
        "right_at": pack(track.right_at),
        "believed": [_pack_belief(belief) for belief in track.believed],
        "foreign": track.foreign,
        "moved_in": track.moved_in,
        "reversals": [pack(r) for r in track.reversals],
        "contested_until": pack(track.contested_until),
    }


def restore(document: Mapping[str, Any]) -> RecordTrack:
    """The track that ``dump`` wrote; it does not count as tried. Raises KeyError, TypeError or ValueError."""
    sent = ((_unpack_set(rrset), unpack(at), bool(answered)) for rrset, at, answered in document["sent"])
    return RecordTrack(
        reading=RecordReading(_unpack_set(document["rrset"])) if document["known"] else None,
        sent=tuple(Sent(rrset, at, told) for rrset, at, told in sent if rrset is not None and at is not None),
        change_id=document["change_id"],
        accepted_at=unpack(document["accepted_at"]),
        insync_at=unpack(document["insync_at"]),
        right_at=unpack(document["right_at"]),
        believed=tuple(_unpack_belief(packed) for packed in document["believed"]),
        foreign=bool(document["foreign"]),
        moved_in=int(document["moved_in"]),
        reversals=tuple(r for r in (unpack(packed) for packed in document["reversals"]) if r is not None),
        contested_until=unpack(document["contested_until"]),
    )


def _pack_belief(belief: Belief) -> list[Any]:
    dates = pack(belief.replaced_at), pack(belief.gone_at)
    return [_pack_set(belief.rrset), belief.ttl, *dates, sorted(belief.told_by)]


def _unpack_belief(packed: list[Any]) -> Belief:
    rrset, ttl, replaced_at, gone_at, told_by = packed
    at = unpack(replaced_at)
    if at is None:
        raise ValueError("a belief without a date")
    return Belief(_unpack_set(rrset), float(ttl), at, unpack(gone_at), frozenset(map(str, told_by)))


def _pack_set(rrset: RRset | None) -> list[Any] | None:
    return None if rrset is None else [rrset.type.value, list(rrset.values), rrset.ttl]


def _unpack_set(packed: list[Any] | None) -> RRset | None:
    return None if packed is None else RRset(RecordType(packed[0]), tuple(map(str, packed[1])), int(packed[2]))
