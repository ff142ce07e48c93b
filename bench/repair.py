# ruff: noqa: TID251  a bench needs phases that are by chance
"""Figure ``repair``: a split brain is forced at a proxy, and repaired by the controller, over two real HAProxies.

Forced: at one proxy the active's server is closed and the other's opened, so that a session of the other runs while
the active's go on at the other proxy. Repaired: the other one reads maint there, without a session. Looked at from
outside every ``LOOK`` seconds. A proxy that another hand moved three times is left alone by the controller (rightly),
so a new one is started before that.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from statistics import median

from bench import byhand
from bench.figure import Aim, Figure, Say
from bench.steering import HOST, Steering, lab, reached, steering, until
from failover.lab.haproxy import LabProxy
from failover.model import StepKind
from failover.parts import READS_PER_PING

LOOK = 0.01  # seconds
TRIALS_EACH = 2  # at each proxy, for one controller
SEED = 20


async def _force(proxy: LabProxy, active: str, other: str) -> float:
    """Make it so in one command line; CLOCK_BOOTTIME after it was answered."""
    gone, come = f"{proxy.config.backend}/{active}", f"{proxy.config.backend}/{other}"
    await proxy.process.ask(
        f"set server {gone} state maint;shutdown sessions server {gone};set server {come} state ready"
    )
    return HOST.now().mono


@dataclass(frozen=True, slots=True)
class Trial:
    """One split brain, in seconds: until a reading showed it to the controller, and until it was repaired."""

    seen: float
    repaired: float


async def _trial(at_work: Steering, name: str, proxy: LabProxy) -> Trial:
    """Force it, and wait until the controller has put everything right."""
    at_work.reads.clear()
    at_work.sent.clear()
    forced = await _force(proxy, "main", "backup")
    while not await byhand.is_shut(proxy.socket, "backup"):
        if HOST.now().mono - forced > 10 * at_work.pool.health.interval:
            break  # a figure, though a bad one
        await HOST.sleep(LOOK)
    repaired = HOST.now().mono
    closing = min(s.at for s in at_work.sent if (s.kind, s.producer) == (StepKind.CLOSE, "backup"))
    seen = max((r.at for r in at_work.reads if r.proxy == name and r.at <= closing), default=closing)
    await until(lambda: at_work.active == "main", "main is steady")
    return Trial(seen - forced, repaired - forced)


async def _actions(proxy: LabProxy) -> float:
    """What the same commands cost a bare script at a proxy where the server is shut anyway: seconds."""
    spent = []
    for _ in range(20):
        began = HOST.now().mono
        await byhand.is_shut(proxy.socket, "backup")
        await byhand.shut(proxy.socket, "backup")
        await byhand.is_shut(proxy.socket, "backup")
        spent.append(HOST.now().mono - began)
    return median(spent)


async def _figures(quick: bool, say: Say) -> list[Figure]:
    interval, batches = (0.5, 1) if quick else (5.0, 4)
    chance, pace = random.Random(SEED), interval / READS_PER_PING  # noqa: S311  phases, not secrets
    trials: list[Trial] = []
    async with lab(interval) as (made, log):
        await reached(log, "main", 0.0)
        for number in range(batches):
            say(f"batch {number + 1} of {batches}: {2 * TRIALS_EACH} split brains at random phases")
            async with steering(made) as at_work:
                for name, proxy in [*made.proxies.items()] * TRIALS_EACH:
                    await HOST.sleep(chance.uniform(0.0, 2 * pace))
                    trials.append(await _trial(at_work, name, proxy))
        bare = await _actions(made.proxies["proxy-1"])
    worst = max(trial.repaired for trial in trials)
    actions = median(trial.repaired - trial.seen for trial in trials)
    late = max(trial.seen for trial in trials) / pace
    note = (
        f"split brain forced to repaired, {len(trials)} trials at random phases, proxies read every {pace:g} s; seen "
        f"after at most {late:.3f} of that, then {actions * 1e3:.1f} ms for decision, journal and commands (median, "
        f"our looking every {LOOK * 1e3:g} ms included; {bare * 1e3:.1f} ms by a bare script): allowed on top of 1.0"
    )
    middle = median(trial.repaired for trial in trials)
    return [
        Figure("repair, worst", worst, "s", pace, "the observing interval", Aim(1.0 + actions / pace), note),
        Figure("repair, median", middle, "s", pace, "the observing interval"),
    ]


def figures(quick: bool, say: Say) -> list[Figure]:
    """The worst and the median."""
    return asyncio.run(_figures(quick, say))
