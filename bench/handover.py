"""Figure ``handover``: from the first command to the first session on the winner, over two real HAProxies.

The session is that of a client in a process of its own which dials again at once (redialer.py). The controller and
the bare script (byhand.py) take turns on the same lab; the controller does not run while the script does.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median

from bench import byhand
from bench.figure import Aim, Figure, Say
from bench.steering import HOST, Steering, ask, lab, reached, steering, until
from failover.lab.pool import LabPool
from failover.model import StepKind

PAUSE = 0.2  # seconds after each handover, for whatever is under way
AIM = Aim(1.5)


async def _ours(at_work: Steering, log: Path, old: str, new: str) -> float:
    """One switchover by the controller: milliseconds."""
    at_work.sent.clear()
    asked = HOST.now().mono
    ask(at_work.pool, new)
    session = await reached(log, new, asked)
    first = min(s.at for s in at_work.sent if (s.kind, s.producer) == (StepKind.CLOSE, old))
    await until(lambda: at_work.active == new, f"{new} is steady")
    return (session.at - first) * 1e3


async def _bare(made: LabPool, log: Path, old: str, new: str) -> float:
    """The same by the script."""
    first = await byhand.handover([proxy.socket for proxy in made.proxies.values()], old, new)
    return ((await reached(log, new, first)).at - first) * 1e3


async def _figures(quick: bool, say: Say) -> list[Figure]:
    rounds = 1 if quick else 6
    ours: list[float] = []
    bare: list[float] = []
    async with lab(interval=0.5) as (made, log):
        await reached(log, "main", 0.0)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: the controller there and back, then the script there and back")
            async with steering(made) as at_work:
                for old, new in (("main", "backup"), ("backup", "main")):
                    ours.append(await _ours(at_work, log, old, new))
                    await HOST.sleep(PAUSE)
            for old, new in (("main", "backup"), ("backup", "main")):
                bare.append(await _bare(made, log, old, new))
                await HOST.sleep(PAUSE)
    return [
        Figure(
            "handover", median(ours), "ms", median(bare), "a bare script, same commands, same order", AIM,
            f"first command to first session on the winner, 2 HAProxies, median of {len(ours)} each; "
            f"ours {min(ours):.1f} to {max(ours):.1f}, bare {min(bare):.1f} to {max(bare):.1f} ms",
        )
    ]  # fmt: skip


def figures(quick: bool, say: Say) -> list[Figure]:
    """The figure."""
    return asyncio.run(_figures(quick, say))
