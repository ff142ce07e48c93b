"""What may be so for a while only: it breaks an invariant once it lasts, and is told once while it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from failover.simulator.world import World


class Spans:
    """Since when which things have been so. ``broken`` takes an invariant's name, and what was so."""

    def __init__(self, world: World, broken: Callable[[str, str], None]) -> None:
        self._world = world
        self._broken = broken
        self._since: dict[str, float] = {}
        self._told: set[str] = set()

    def see(self, name: str, so: bool, budget: float, words: str, *, which: str = "") -> None:
        """It is so, or is not, from now on, and may be for ``budget`` seconds. ``which`` tells one of a name apart."""
        key, now = f"{name} {which}", self._world.nature.now()
        if not so:
            self._since.pop(key, None)
            self._told.discard(key)
        elif key not in self._since:
            self._since[key] = now
            self._world.nature.after(budget + 0.001, self._world.reckon)
        elif now - self._since[key] > budget and key not in self._told:
            self._told.add(key)
            self._broken(name, words)
