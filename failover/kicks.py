"""Which relays are made to let go of a producer that lost the role, one at a time; and what relays are doing. Pure.

A session that stays with the loser is ended once the role has moved. One that was dialled afterwards comes from a name
that the relay still remembers (ended again, after pauses that double until nobody can remember it), or from a topology
that lists the loser: then ending it changes nothing, and a person is told.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import fence
from .journal import iso
from .model import Instant, Kick, Nudge, Phase, Relay
from .relays import AGAIN, PAUSE, TRIES, Kicked, RelayTrack, Seen
from .situation import Situation

LONGEST_REDIAL = 200.0  # seconds: a back-off of 160 s, its spread, and a session's beginning
ALONE = 60.0  # seconds after which it is told that no relay has a session with the active
NUDGE_FROM = 3  # the try from which on a relay's node is nudged, where that is allowed


def plan(s: Situation) -> tuple[Kick, ...]:
    """The one relay whose sessions with a loser are to be ended now; nothing while another has just been made to."""
    a = s.a
    if a is None or a.phase is not Phase.STEADY or a.active is None:
        return ()
    stuck = [(relay, loser) for relay in s.pool.relays if relay.managed for loser in _losers(s, relay)]
    if not stuck:
        return ()
    lasts = [last for track in s.view.relays.values() if (last := track.last_kicked) is not None]
    since_last = min((s.now.since(last.at) for last in lasts), default=PAUSE)
    if since_last < PAUSE:
        s.wake_in(PAUSE - since_last)
        return ()
    for track in s.view.relays.values():
        last = track.last_kicked
        left = 0.0 if last is None else LONGEST_REDIAL - s.now.since(last.at)
        if left > 0 and track.answers and not track.sessions:  # it is not back yet: one at a time
            s.wake_in(left)
            return ()
    for relay, loser in stuck:
        track = s.view.relays[relay.name]
        kicked = _of_now(s, track, loser)
        if kicked is not None and kicked.times >= TRIES:
            continue
        if kicked is not None and _resting(kicked) > s.now.since(kicked.at):
            s.wake_in(_resting(kicked) - s.now.since(kicked.at))
            continue
        nudge = relay.restart if kicked is not None and kicked.times + 1 >= NUDGE_FROM else Nudge.NEVER
        term = 0 if s.view.lease is None else s.view.lease.term
        reason = f"{relay.name} is still connected to {loser}, and {a.active} is active"
        return (Kick(relay.name, loser, a.generation, term, reason, nudge),)
    return ()


def _of_now(s: Situation, track: RelayTrack, loser: str) -> Kicked | None:
    """How often it was made to let go of this loser since the role moved."""
    kicked = track.kicked.get(loser)
    return kicked if kicked is not None and s.a is not None and kicked.generation == s.a.generation else None


def _resting(kicked: Kicked) -> float:
    """Seconds until a relay that was made to let go is so again: ever longer, past what it may remember of a name."""
    return AGAIN * float(1 << min(kicked.times - 1, TRIES))


def _losers(s: Situation, relay: Relay) -> tuple[str, ...]:
    """The producers without the role with whom sessions of this relay are worth ending."""
    track = s.view.relays.get(relay.name)
    if track is None or not track.answers or s.a is None:
        return ()
    return tuple(p for p in s.pool.others(s.a.active) if any(_sticks(s, seen) for seen in harmful(s, track, p)))


def harmful(s: Situation, track: RelayTrack, producer: str) -> tuple[Seen, ...]:
    """Its sessions with a producer that is not active, unless that makes no blocks for sure."""
    return () if fence.sure(s, producer) is not None else track.connected(producer)


def _sticks(s: Situation, seen: Seen) -> bool:
    """Whether the session was there before the role moved, or may have been dialled by a name that led there."""
    a = s.a
    if a is None:
        return False
    if seen.since.boot != a.since.boot or a.since.since(seen.since) > 0 or seen.since == a.since:
        return True
    return bool(s.pool.records)


def unmanaged(s: Situation) -> str | None:
    """Why relays cannot be relied on to let go of a producer; None when every one of them is managed and answers."""
    if not s.pool.relays:
        return "the file names no relays that could be made to let go"
    for relay in s.pool.relays:
        if not relay.managed:
            return f"{relay.name} is not managed"
        if not s.view.relays[relay.name].answers:
            return f"{relay.name} does not answer"
    return None


def let_go(s: Situation, producer: str) -> bool:
    """Whether every relay of the pool is managed, answers, and is seen without a session with this producer."""
    return unmanaged(s) is None and not any(track.connected(producer) for track in s.view.relays.values())


# ---------------------------------------------------------------- drift


def drift(s: Situation, known: Mapping[tuple[str, str], Instant]) -> list[tuple[str, str, str]]:
    """What relays do that differs from the assignment: kind, relay, words; ``known`` dates what was seen before."""
    found = []
    for relay in s.pool.relays:
        track = s.view.relays.get(relay.name)
        if track is None or not track.tried:
            continue
        if not track.answers:
            found.append(("relay-silent", relay.name, _silence(s, relay, track)))
            continue
        found.extend(("relay-astray", relay.name, words) for words in _astray(s, relay, track))
        lonely = _lonely(s, relay, track, known.get(("relay-alone", relay.name)))
        if lonely is not None:
            found.append(("relay-alone", relay.name, lonely))
    return found


def _silence(s: Situation, relay: Relay, track: RelayTrack) -> str:
    words = (track.error or "its agent does not answer").removeprefix(f"{relay.name}: ")
    patience = s.pool.policy.fail_over_after
    left = patience if track.silent_since is None else patience - s.now.since(track.silent_since)
    s.wake_in(left)
    if left <= 0:
        s.alert(f"relay-silent:{relay.name}", f"{relay.name} has been silent for {patience:g} s: {words}")
    return words


def _astray(s: Situation, relay: Relay, track: RelayTrack) -> list[str]:
    a = s.a
    if a is None or a.phase is not Phase.STEADY or a.active is None:
        return []
    found = []
    for producer in s.pool.others(a.active):
        seen = harmful(s, track, producer)
        if not seen:
            continue
        since = min(seen, key=lambda each: each.since.utc).since
        words = f"is connected to {producer}, which is not active, at least since {iso(since.utc)}"
        words += _expected(s, relay, track, producer)
        found.append(words)
    return found


def _expected(s: Situation, relay: Relay, track: RelayTrack, producer: str) -> str:
    """What comes of it: when it is made to let go, or why it is not."""
    if not relay.managed:
        return "; it is not managed: ask whoever runs it to restart its node"
    kicked = _of_now(s, track, producer)
    if kicked is not None:
        if kicked.times >= TRIES:
            if all(kicked.at.since(seen.since) > 0 for seen in track.connected(producer)):
                words = f"its sessions with {producer} could not be ended: failover history says why"
                s.alert(f"relay-stuck:{relay.name}", f"{relay.name}: {words}")
                return f"; {words}"
            words = f"{relay.name} went back to {producer} {TRIES} times"
            mend = f"its topology lists {producer} (failover check --topology), or its resolver gives the old address"
            s.alert(f"relay-stuck:{relay.name}", f"{words}: {mend}")
            return f"; its sessions were ended {TRIES} times: {mend}"
        until = s.believed(producer)
        may = f"; it may look the old address up until {iso(until.utc)}" if until is not None else ""
        times = f"{kicked.times} time{'s' if kicked.times > 1 else ''}"
        return f"{may}; its sessions were ended {times}, last at {iso(kicked.at.utc)}"
    if not any(_sticks(s, seen) for seen in track.connected(producer)):
        return f"; it dialled {producer} since: its topology lists it (failover check --topology)"
    return "; it is made to let go in its turn"


def _lonely(s: Situation, relay: Relay, track: RelayTrack, since: Instant | None) -> str | None:
    """A relay without a session with the active, where relays connect to producers directly."""
    a = s.a
    if s.pool.proxies or a is None or a.phase is not Phase.STEADY or a.active is None or not s.up(a.active):
        return None
    if track.connected(a.active) or s.now.since(a.since) < LONGEST_REDIAL:
        return None
    words = f"has no session with {a.active}, the active one"
    if track.reading is not None and not track.reading.running:
        return f"{words}: its node does not run"
    others = (other for name, other in s.view.relays.items() if name != relay.name)
    if len(s.view.relays) < len(s.pool.relays) or any(not o.answers or o.connected(a.active) for o in others):
        return words  # another one may have it
    left = ALONE if since is None else ALONE - s.now.since(since)
    s.wake_in(left)
    if left > 0:  # an active that has just died is told otherwise
        return words
    s.alert(f"relay-alone:{relay.name}", f"{relay.name} {words}")
    return words
