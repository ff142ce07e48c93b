"""Who may take the lease: the stored row, what one daemon has seen of it, and the rule. Pure.

Other hosts' clocks are never compared with ours. Only within one boot do two processes share CLOCK_BOOTTIME.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from failover.model import Instant, Lease


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """The lease as stored. An empty ``holder`` means that it is free; ``term`` is kept then.

    ``serial`` rises with each write, so an unchanged row is one that nobody renewed.
    ``locked`` says that the holder had the folder's lock when it wrote: only then does a free lock prove it dead.
    """

    holder: str
    term: int
    serial: int
    locked: bool
    duration: float
    expires: Instant

    @property
    def lease(self) -> Lease | None:
        """The lease as the rest of the program sees it; None when it is free."""
        return Lease(self.holder, self.term, self.expires, self.duration) if self.holder else None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one daemon knows of a foreign row: unchanged since when, and its holder's lock free since when."""

    row: LeaseRow
    since: Instant
    free_since: Instant | None = None

    def may_overtake(self, now: Instant, wait: float) -> bool:
        """Whether the holder has lost the lease: expired for ``wait`` seconds, or known dead for as long."""
        same_boot = self.row.expires.boot == now.boot
        expired = same_boot and now.mono >= self.row.expires.mono + wait
        silent = now.mono >= self.since.mono + self.row.duration + wait
        dead = self.free_since is not None and now.mono >= self.free_since.mono + wait
        return expired or silent or dead


def sight(earlier: Sighting | None, row: LeaseRow, lock_is_ours: bool, now: Instant) -> Sighting:
    """The sighting after having looked once more, at ``now``; ``lock_is_ours``: we could take the folder's lock."""
    if earlier is None or earlier.row != row or earlier.since.boot != now.boot:
        earlier = Sighting(row, now)
    dead = lock_is_ours and proves_death(row, now)
    return replace(earlier, free_since=(earlier.free_since or now) if dead else None)


def proves_death(row: LeaseRow, now: Instant) -> bool:
    """Whether the folder's lock, when free, proves that this row's holder is dead."""
    return row.locked and row.expires.boot == now.boot


def taken(row: LeaseRow | None, holder: str, now: Instant, duration: float, locked: bool) -> LeaseRow:
    """The row after ``holder`` took or renewed the lease at ``now``."""
    term, serial = (row.term, row.serial) if row else (0, 0)
    if row is None or row.holder != holder:
        term += 1
    return LeaseRow(holder, term, serial + 1, locked, duration, now.after(duration))


def resigned(row: LeaseRow) -> LeaseRow:
    """The row after its holder gave the lease up."""
    return replace(row, holder="", serial=row.serial + 1, locked=False)
