"""What everything in a simulated world shares: its clock, its chance, its network, and the story that is told of it.

Chance is a hash of (seed, key): asking it in another order, or asking one thing more, changes nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from failover.simulator.host import draw, fraction
from failover.simulator.loop import NANO, VirtualLoop, nanoseconds

RETRANSMIT = 1.0  # seconds until a lost packet is sent again; doubles (TCP's first timeout, RFC 6298)
MOST_LOST = 6  # times in a row that a packet is lost at most


class Nature:
    """Clock and chance of one world, and a list of what happened in it.

    ``changed`` is called after every change of what is true; whoever judges hangs on to it.
    """

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop = loop
        self.seed = seed
        self.story: list[tuple[int, str]] = []  # nanoseconds, words
        self.changed: Callable[[], None] = lambda: None
        self._asked: dict[str, int] = {}

    def now(self) -> float:
        """Seconds since the world began."""
        return self.loop.now_ns / NANO

    def after(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Let something happen in so many seconds."""
        return self.loop.call_at_ns(self.loop.now_ns + max(0, nanoseconds(seconds)), call)

    def chance(self, *key: str | int) -> float:
        """A number in [0, 1) for this key, the next one each time that it is asked."""
        name = "/".join(map(str, key))
        self._asked[name] = count = self._asked.get(name, 0) + 1
        return fraction(draw(self.seed, name, count))

    def between(self, least: float, most: float, *key: str | int) -> float:
        """A number between the two, evenly."""
        return least + (most - least) * self.chance(*key)

    def tell(self, words: str) -> None:
        """Note that something happened in the world, in plain words."""
        self.story.append((self.loop.now_ns, words))
        self.loop.trace(words)


class Network:
    """Who reaches whom, one way at a time, between places that go by name.

    A place is a machine or a service: ``controller``, ``main``, ``proxy-1``, ``relay-1``, ``dns``.
    """

    def __init__(self, nature: Nature) -> None:
        self._nature = nature
        self._cut: dict[tuple[str, str], int] = {}  # how many faults cut this way
        self._slow: dict[tuple[str, str], float] = {}  # seconds more
        self._lossy: dict[tuple[str, str], float] = {}  # share of packets that is lost
        self._off: dict[str, int] = {}  # places without power

    # ------------------------------------------------------------ what happens to it

    def cut(self, origins: Iterable[str], goals: Iterable[str], *, both: bool = True) -> None:
        """Let nothing through from any origin to any goal, and back."""
        for pair in _pairs(origins, goals, both=both):
            self._cut[pair] = self._cut.get(pair, 0) + 1
        self._nature.changed()

    def mend(self, origins: Iterable[str], goals: Iterable[str], *, both: bool = True) -> None:
        """Undo one ``cut`` of the same places."""
        for pair in _pairs(origins, goals, both=both):
            left = self._cut.get(pair, 0) - 1
            if left > 0:
                self._cut[pair] = left
            else:
                self._cut.pop(pair, None)
        self._nature.changed()

    def slow(self, origins: Iterable[str], goals: Iterable[str], seconds: float) -> None:
        """Let every trip take so many seconds more; 0 ends it."""
        for pair in _pairs(origins, goals, both=True):
            self._slow[pair] = seconds

    def lossy(self, origins: Iterable[str], goals: Iterable[str], share: float) -> None:
        """Lose this share of packets (0 to 1); 0 ends it."""
        for pair in _pairs(origins, goals, both=True):
            self._lossy[pair] = share

    def power(self, place: str, *, on: bool) -> None:
        """Take a place off the network, or bring it back."""
        if on:
            self._off.pop(place, None)
        else:
            self._off[place] = 1
        self._nature.changed()

    def heal(self) -> None:
        """Everything reaches everything again."""
        for table in (self._cut, self._slow, self._lossy, self._off):
            table.clear()
        self._nature.changed()

    # ------------------------------------------------------------ what is so

    def open(self, origin: str, goal: str) -> bool:
        """Whether packets get from one to the other."""
        return (origin, goal) not in self._cut and origin not in self._off and goal not in self._off

    def joined(self, a: str, b: str) -> bool:
        """Whether the two can talk: packets get through both ways."""
        return self.open(a, b) and self.open(b, a)

    def fine(self, a: str, b: str) -> bool:
        """Whether the two talk as they should: nothing cut, slow or lost."""
        if self.calm:
            return True
        pairs = ((a, b), (b, a))
        return self.joined(a, b) and not any(self._slow.get(p) or self._lossy.get(p) for p in pairs)

    @property
    def calm(self) -> bool:
        """Whether nothing is wrong anywhere."""
        return not (self._cut or self._off or self._slow or self._lossy)

    def trip(self, origin: str, goal: str) -> float | None:
        """Seconds that a message takes now, or None when it does not arrive."""
        if not self.open(origin, goal):
            return None
        nature, pair = self._nature, (origin, goal)
        seconds = 0.001 + 0.009 * nature.chance("trip", origin, goal) + self._slow.get(pair, 0.0)
        share, again = self._lossy.get(pair, 0.0), RETRANSMIT
        for _ in range(MOST_LOST):
            if not share or nature.chance("loss", origin, goal) >= share:
                break
            seconds, again = seconds + again, 2 * again
        return seconds


def _pairs(origins: Iterable[str], goals: Iterable[str], *, both: bool) -> list[tuple[str, str]]:
    left, right = tuple(origins), tuple(goals)
    pairs = [(a, b) for a in left for b in right if a != b]
    return [*pairs, *((b, a) for a, b in pairs)] if both else pairs
