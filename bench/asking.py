"""Figures of how often a record's provider is asked: the whole controller on the virtual-time loop.

Each call of the port is one request to Route 53 (a reading is one more for each further page of sets at the name).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from bench import world
from bench.figure import Aim, Figure, Say
from failover.controller import Controller
from failover.model import Change, DnsAnswer, Pool, Record, RecordReading, Route53Zone, RRset
from failover.simulator.host import VirtualHost
from failover.simulator.loop import VirtualLoop

NAME = "bp.bench.test."
SPREADS = 60.0  # seconds from a change to INSYNC
LATENCY = 0.1  # seconds that the provider takes
MOVING = 2  # hours that a failover and the failback after it take
SETTLING = 1800.0  # seconds from the start until nothing of it shows any more
ASKED, CHANGED = Aim(60.0, of="measured"), Aim(0.0, of="measured")


class Provider:
    """RecordPort and VerifyPort over one value; counts what it is asked."""

    def __init__(self, host: VirtualHost, rrset: RRset) -> None:
        self.asked: Counter[str] = Counter()
        self._host = host
        self._held = self._told = rrset
        self._changed = 0.0

    async def _ask(self, what: str) -> None:
        self.asked[what] += 1
        await self._host.sleep(LATENCY)

    async def read(self, timeout: float) -> RecordReading:
        """See RecordPort."""
        await self._ask("read")
        return RecordReading(self._held)

    async def change(self, change: Change, timeout: float, still_valid: Callable[[], bool]) -> str | None:
        """See RecordPort."""
        await self._ask("change")
        self._held, self._changed = change.wanted, self._host.now().mono
        return "C1"

    async def settled(self, change_id: str, timeout: float) -> bool:
        """See RecordPort."""
        await self._ask("settled")
        return self._spread

    async def look(self, timeout: float) -> tuple[DnsAnswer, ...]:
        """See VerifyPort."""
        await self._host.sleep(LATENCY)
        self._told = self._held if self._spread else self._told
        return (DnsAnswer("ns1", True, self._told),)

    async def close(self) -> None:
        """See RecordPort."""

    @property
    def _spread(self) -> bool:
        return self._host.now().mono - self._changed >= SPREADS


def _pool() -> Pool:
    record = Record(NAME, NAME, {"main": "192.0.2.1", "backup": "192.0.2.2"}, Route53Zone("Z1"))
    return replace(world.pool(), records=(record,))


def asked(hours: int, *, moves: bool) -> Counter[str]:
    """What the provider is asked in so many hours; with ``moves`` main is down in the second quarter of the first."""
    of = _pool()

    async def main(loop: VirtualLoop) -> Counter[str]:
        host = VirtualHost(loop, seed=1)
        host.latency = lambda edge: world.LATENCY
        life, store, stop = world.World(host, of), world.MemoryStore(None), asyncio.Event()
        provider = Provider(host, of.records[0].wanted("main"))
        ports = (provider, provider)
        controller = Controller(of, host, store, life.ping, life.ports, records=lambda record: ports, holder="bench")
        running = asyncio.create_task(controller.run(stop))
        await host.sleep(SETTLING)
        before = provider.asked.copy()
        for part in range(hours * 4):
            life.down = "main" if moves and part == 1 else None
            await host.sleep(900.0)
        stop.set()
        await running
        return provider.asked - before

    loop = VirtualLoop(seed=1)
    return loop.run(main(loop))


def figures(hours: int, say: Say) -> list[Figure]:
    """Calls and changes an hour, in steady state."""
    say(f"{hours} virtual hours in steady state, and {MOVING} with a failover and a failback")
    steady, moved = asked(hours, moves=False), asked(MOVING, moves=True)
    changes = moved["change"]
    return [
        Figure(
            "route53, calls", steady.total() / hours, "/hour", None, "", ASKED,
            f"steady state at the default interval, {hours} virtual hours; a change costs 1 more, and asks "
            f"{moved['settled'] / max(1, changes):g} times whether it is INSYNC, which is so after {SPREADS:g} s "
            f"({moved.total()} calls in {MOVING} hours with {changes} changes)",
        ),
        Figure("route53, changes", steady["change"] / hours, "/hour", None, "", CHANGED, "the same hours"),
    ]  # fmt: skip
