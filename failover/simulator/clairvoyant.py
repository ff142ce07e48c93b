"""Somebody who sees everything at once, and waits as long as the policy says: which outage could not be avoided."""

from __future__ import annotations

from collections.abc import Sequence

from failover.model import Pool
from failover.simulator.judge import Point


def clairvoyant(pool: Pool, points: Sequence[Point], seconds: float) -> float:
    """Seconds of our outages that remain to one who knows at each instant who could serve, and moves in no time.

    It begins each outage with the producer that had the role with us, and leaves it after ``fail_over_after``; after
    ``fall`` pings when the preferred one could serve. Whoever comes back counts as up after ``rise`` pings. What it
    would have done otherwise before does not count.
    """
    fall, rise = pool.health.interval * pool.health.fall, pool.health.interval * pool.health.rise
    outage, role = 0.0, pool.preferred
    since: float | None = None  # when the one with the role ceased to serve
    well: dict[str, float] = {}  # from when on each one that could serve counts as up
    ours, was_up = False, True  # whether our outage goes on; whether the one with the role was up
    for point, end in zip(points, [*(p.at for p in points[1:]), seconds], strict=True):
        now, out = point.at, bool(point.servable) and not point.admitted
        well = {n: well.get(n, now + rise if now else 0.0) for n in point.servable}
        if not (out and ours) and point.active is not None and point.active != role:
            role, since = point.active, None
        ours = out
        up = role in point.up
        back = up and not was_up  # up again, and unfit: that is waited for anew (rule 10)
        since = None if role in well else (now if since is None or back else since)
        was_up = up
        if not out or since is None:
            continue
        heir = min(well, key=lambda name: max(well[name], now))
        at_once = heir == pool.preferred and not up  # one that is up and unfit is waited for
        due = max(now, well[heir], since + (fall if at_once else pool.policy.fail_over_after))
        outage += min(due, end) - now
        if due < end:
            role, since = heir, None
    return outage
