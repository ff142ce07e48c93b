"""What the pings of one producer add up to: up, down or unknown since when, in sync or lagging, fit or not.

Pure: values in, values out. A ``Track`` is folded forward by each ping (``fold``) and asked at any instant.
Everything about patience and fitness that needs memory lives here; who agrees that a producer is down
(the proxies' votes) is in situation.py.

Theory of operation
- ``fall`` failed pings in a row make it down, ``rise`` good ones up again; the first good ping ever makes it up.
- Time in trouble (pings that fail, or a tip that lags) is kept as spans, so that a crash loop counts too.
- A gap between two pings longer than ``max_gap``, another boot, or isolation restarts every timer.
- A tip is judged only against tips that were read before the ping began, and lagging takes two readings in a row:
  otherwise the noise of polling breaks four of five half hours of unbroken fitness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from .dates import pack, unpack
from .model import Health, HealthSettings, Instant, Ping, Tip

SPANS = 64  # closed spans of trouble that a track remembers at most
STANDSTILL = 300.0  # seconds: P(no block in 300 s) = 0.95^300 = 2e-7 at f = 0.05 and slots of 1 s


class Sync(StrEnum):
    """How a producer's tip compares with the others'."""

    OK = "ok"
    LAGGING = "lagging"
    UNMEASURED = "unmeasured"  # nobody to compare with: does not make unfit
    STANDSTILL = "standstill"  # the best tip stands still, or the sources disagree: nothing moves on it


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The best tip known before a ping began; ``slot`` is None when there was none to compare with."""

    slot: int | None = None
    standstill: bool = False


@dataclass(frozen=True, slots=True)
class Track:
    """The folded history of one producer's pings. ``since`` dates ``health``."""

    since: Instant
    health: Health = Health.UNKNOWN
    fails: int = 0
    oks: int = 0
    last: Ping | None = None
    tip: Tip | None = None  # the last one read
    bad_from: Instant | None = None  # first failed ping of the present run of failures
    trouble_from: Instant | None = None  # start of the present span of trouble (failing or lagging)
    trouble: tuple[tuple[Instant, Instant], ...] = ()  # earlier spans
    sync: Sync = Sync.UNMEASURED
    lag: int | None = None  # slots behind the yardstick at the last ping
    lag_readings: int = 0  # readings in a row that lagged
    fit_since: Instant | None = None
    unfit_since: Instant | None = None


def fresh(now: Instant) -> Track:
    """A track that knows nothing yet."""
    return Track(since=now)


def reset(track: Track, now: Instant) -> Track:
    """Forget health and timers, as isolation asks; the last ping and tip stay to be shown."""
    if track.health is Health.UNKNOWN and track.fails == 0 and track.fit_since is None and track.unfit_since is None:
        return track
    return replace(fresh(now), last=track.last, tip=track.tip, lag=track.lag)


def yardstick(
    tips: Mapping[str, Tip], judged: str, producers: Iterable[str], max_lag: int, *, standing_for: float
) -> Yardstick:
    """The best tip to judge ``judged`` against.

    ``tips`` are the last tips by source, ``standing_for`` the seconds since the best of them last rose.
    A tip that only references are near is believed where two of them hold it, and our own producers are apart or one:
    a reference that is alone ahead of everyone may lie, and so may all of them where our own agree with each other.
    Should ours be cut off together instead, no move would help either. Then the sources disagree.
    """
    others = {name: tip.slot for name, tip in tips.items() if name != judged}
    if not others:
        return Yardstick()
    own = [tips[name].slot for name in producers if name in tips]
    best = max(others.values())
    near = [name for name, tip in tips.items() if tip.slot >= best - max_lag]
    agree = len(own) > 1 and max(own) - min(own) <= max_lag
    believed = max(own, default=-1) >= best - max_lag or (len(near) > 1 and not agree)
    return Yardstick(best, standstill=standing_for > STANDSTILL or not believed)


def fold(track: Track, ping: Ping, best: Yardstick, settings: HealthSettings, patience: float) -> Track:
    """The track after one more ping. ``patience`` (seconds) bounds how much trouble is worth remembering."""
    if track.last is not None and _gap(track.last.at, ping.at) > settings.max_gap:
        track = reset(track, ping.at)
    track = _count(track, ping, settings)
    track = _compare(track, ping, best, settings)
    track = _trouble(track, ping, patience)
    return _fitness(replace(track, last=ping, tip=ping.tip or track.tip), ping.at)


def _gap(earlier: Instant, later: Instant) -> float:
    if earlier.boot != later.boot:
        return float("inf")
    return later.mono - earlier.mono


def _count(track: Track, ping: Ping, settings: HealthSettings) -> Track:
    fails = 0 if ping.ok else track.fails + 1
    oks = track.oks + 1 if ping.ok else 0
    health = track.health
    if ping.ok and (health is Health.UNKNOWN or (health is Health.DOWN and oks >= settings.rise)):
        health = Health.UP
    elif not ping.ok and health is not Health.DOWN and fails >= settings.fall:
        health = Health.DOWN
    since = track.since if health is track.health else ping.at
    bad_from = None if ping.ok else track.bad_from or ping.at
    return replace(track, health=health, since=since, fails=fails, oks=oks, bad_from=bad_from)


def _compare(track: Track, ping: Ping, best: Yardstick, settings: HealthSettings) -> Track:
    if ping.tip is None:
        return track
    if best.slot is None:
        return replace(track, sync=Sync.UNMEASURED, lag=None, lag_readings=0)
    lag = max(0, best.slot - ping.tip.slot)
    if best.standstill:
        return replace(track, sync=Sync.STANDSTILL, lag=lag, lag_readings=0)
    readings = track.lag_readings + 1 if lag > settings.max_lag else 0
    if readings >= 2:
        sync = Sync.LAGGING
    elif readings == 0:
        sync = Sync.OK
    else:  # the first reading that lags proves nothing yet
        sync = track.sync if track.sync is not Sync.STANDSTILL else Sync.OK
    return replace(track, sync=sync, lag=lag, lag_readings=readings)


def _trouble(track: Track, ping: Ping, patience: float) -> Track:
    bad = not ping.ok or track.sync is Sync.LAGGING
    if bad:
        return track if track.trouble_from is not None else replace(track, trouble_from=ping.at)
    horizon = ping.at.mono - 2 * patience
    spans = tuple(span for span in track.trouble if span[1].mono > horizon)
    if track.trouble_from is not None:
        spans = (*spans, (track.trouble_from, ping.at))
    if spans == track.trouble and track.trouble_from is None:
        return track
    return replace(track, trouble_from=None, trouble=spans[-SPANS:])


def _fitness(track: Track, at: Instant) -> Track:
    is_fit = _fit(track.health, track.sync)
    fit_since = (track.fit_since or at) if is_fit is True else None
    unfit = track.health is Health.UP and track.sync is Sync.LAGGING
    unfit_since = (track.unfit_since or at) if unfit else None
    if fit_since is track.fit_since and unfit_since is track.unfit_since:
        return track
    return replace(track, fit_since=fit_since, unfit_since=unfit_since)


def _fit(health: Health, sync: Sync) -> bool | None:
    if health is Health.DOWN:
        return False
    if health is Health.UNKNOWN:
        return None
    if sync is Sync.LAGGING:
        return False
    return None if sync is Sync.STANDSTILL else True


# ---------------------------------------------------------------- questions, asked at an instant


def stale(track: Track, now: Instant, settings: HealthSettings) -> bool:
    """Whether the last ping is too old to say anything."""
    return track.last is None or _gap(track.last.at, now) > settings.max_gap


def health_at(track: Track, now: Instant, settings: HealthSettings) -> Health:
    """Up, down, or unknown when nothing recent was seen."""
    return Health.UNKNOWN if stale(track, now, settings) else track.health


def fit_at(track: Track, now: Instant, settings: HealthSettings) -> bool | None:
    """Worth making active: True, False, or None when it cannot be told."""
    return None if stale(track, now, settings) else _fit(track.health, track.sync)


def fit_for(track: Track, now: Instant) -> float:
    """Seconds of unbroken fitness."""
    return 0.0 if track.fit_since is None else now.since(track.fit_since)


def unfit_for(track: Track, now: Instant) -> float:
    """Seconds for which it has been up and measured unfit."""
    return 0.0 if track.unfit_since is None else now.since(track.unfit_since)


def down_for(track: Track, now: Instant) -> float:
    """Seconds since the first failed ping of the present run of failures."""
    return 0.0 if track.bad_from is None else now.since(track.bad_from)


def trouble_within(track: Track, now: Instant, window: float) -> float:
    """Seconds in trouble, in sum, within the last ``window`` seconds."""
    start = now.mono - window
    total = sum(max(0.0, to.mono - max(begin.mono, start)) for begin, to in track.trouble if to.boot == now.boot)
    if track.trouble_from is not None and track.trouble_from.boot == now.boot:
        total += now.mono - max(track.trouble_from.mono, start)
    return total


def patience_left(track: Track, now: Instant, patience: float) -> float:
    """Seconds of further failing until the producer has been down for long enough; 0 when it has."""
    whole = patience - down_for(track, now)
    summed = patience - trouble_within(track, now, 2 * patience)
    return max(0.0, min(whole, summed))


# ---------------------------------------------------------------- across a restart


def dump(track: Track) -> dict[str, Any]:
    """The track's timers, JSON-ready."""
    last = track.last
    return {
        "since": pack(track.since),
        "health": track.health.value,
        "fails": track.fails,
        "oks": track.oks,
        "last": None if last is None else {"at": pack(last.at), "started": pack(last.started), "ok": last.ok},
        "tip": None if track.tip is None else [track.tip.slot, track.tip.hash, track.tip.block_no],
        "bad_from": pack(track.bad_from),
        "trouble_from": pack(track.trouble_from),
        "trouble": [[pack(a), pack(b)] for a, b in track.trouble],
        "sync": track.sync.value,
        "lag": track.lag,
        "lag_readings": track.lag_readings,
        "fit_since": pack(track.fit_since),
        "unfit_since": pack(track.unfit_since),
    }


def restore(document: Mapping[str, Any], now: Instant) -> Track:
    """The track that ``dump`` wrote; a fresh one when it is of another boot (other boot, other timer)."""
    since = unpack(document["since"])
    last = document["last"]
    if since is None or last is None:
        return fresh(now)
    at, started = unpack(last["at"]), unpack(last["started"])
    if at is None or started is None or at.boot != now.boot or at.mono > now.mono:
        return fresh(now)
    tip = document["tip"]
    return Track(
        since=since,
        health=Health(document["health"]),
        fails=int(document["fails"]),
        oks=int(document["oks"]),
        last=Ping(at=at, started=started, ok=bool(last["ok"])),
        tip=None if tip is None else Tip(int(tip[0]), str(tip[1]), int(tip[2])),
        bad_from=unpack(document["bad_from"]),
        trouble_from=unpack(document["trouble_from"]),
        trouble=tuple((a, b) for a, b in ((unpack(x), unpack(y)) for x, y in document["trouble"]) if a and b),
        sync=Sync(document["sync"]),
        lag=document["lag"],
        lag_readings=int(document["lag_readings"]),
        fit_since=unpack(document["fit_since"]),
        unfit_since=unpack(document["unfit_since"]),
    )
