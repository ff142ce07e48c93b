"""The lab's chain: which slot it is, and where a node's tip stands, from the clock alone. Pure.

Every process that is given the same numbers sees the same chain. A node's name travels in its tip's hash: half of
it is the block's, the other half spells who told it, so that a relay knows whom it reached through a proxy.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from failover.model import Tip
from failover.ouroboros.chainsync import GENESIS, HASH_BYTES

NAME_BYTES = 16
NAME = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{NAME_BYTES - 1}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain whose slot 0 began at ``epoch`` (seconds on CLOCK_BOOTTIME), with a block every few slots."""

    epoch: float
    slot_seconds: float = 1.0
    block_every: int = 4  # slots

    def slot(self, now: float) -> int:
        """The slot at ``now`` (CLOCK_BOOTTIME); 0 before the epoch."""
        return max(0, int((now - self.epoch) / self.slot_seconds))

    def tip(self, now: float, name: str, lag: int = 0) -> Tip:
        """The newest block at ``now``, as the node ``name`` tells it that is ``lag`` slots behind."""
        block = max(0, self.slot(now) - lag) // self.block_every
        if block == 0:
            return GENESIS
        slot = block * self.block_every
        digest = hashlib.sha256(str(slot).encode()).digest()[: HASH_BYTES - NAME_BYTES]
        return Tip(slot, (digest + name.encode().ljust(NAME_BYTES, b"\0")).hex(), block)


def teller(tip: Tip) -> str | None:
    """The name of the lab's node that told this tip; None for genesis and for nodes that are not the lab's."""
    tail = bytes.fromhex(tip.hash)[-NAME_BYTES:].rstrip(b"\0")
    name = tail.decode("ascii", errors="replace")
    return name if NAME.fullmatch(name) else None
