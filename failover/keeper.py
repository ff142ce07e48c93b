"""The controller's dealings with the store: one call at a time, each with a deadline, and what is wrong said once.

It also holds the lease: ours while we have it, and otherwise the one that stands. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from .errors import FailoverError, StoreConflict, StoreError, StoreFull, StoreUnusable, WorkerBusy
from .model import Commit, Instant, Lease, LeaseSettings
from .ports import Host, Store

R = TypeVar("R")

TROUBLE = (StoreError, WorkerBusy, TimeoutError)  # everything that a call can end with
MOST_SAID = 1000  # different troubles remembered as said


class Written(StrEnum):
    """What became of a commit."""

    DONE = "done"
    DONE_WITHOUT_ROOM = "done-without-room"  # written, but a whole handover would not fit
    OVERTAKEN = "overtaken"  # somebody else wrote: look again
    FULL = "full"
    FAILED = "failed"  # nothing was written
    UNKNOWN = "unknown"  # no end within the deadline, or an error of the disk: it may be, or yet become, written


class Keeper:
    """One store and one lease. ``alert`` is told each trouble once, until the store works again."""

    def __init__(self, store: Store, host: Host, holder: str, alert: Callable[[str], None]) -> None:
        self.store = store
        self.holder = holder
        self.settings = LeaseSettings()
        self.lease: Lease | None = None  # ours
        self.standing: Lease | None = None  # another's, as last read
        self.error: str | None = None
        self._host = host
        self._alert = alert
        self._worker = host.worker("store")
        self._turn = asyncio.Lock()
        self._said: set[str] = set()

    async def call(self, function: Callable[[], R]) -> R:
        """Run ``function`` in the store's worker. Raises one of TROUBLE, or what it raises."""
        async with self._turn:  # lease, watch and decisions take turns
            return await self._worker.call(function, self.settings.action_timeout)

    async def when_free(self, function: Callable[[], None]) -> None:
        """The same once a call that was cut short has ended; the caller sets the deadline."""
        while True:
            try:
                return await self.call(function)
            except WorkerBusy:
                await self._host.sleep(0.02)

    async def write(self, commit: Commit, *, reserve: bool) -> Written:
        """Commit; ``reserve`` also makes sure that a whole handover can be journalled."""

        def write() -> bool:
            room = True
            if reserve:
                try:
                    self.store.reserve()
                except StoreFull:
                    room = False
            self.store.commit(commit)
            return room

        try:
            room = await self.call(write)
        except TROUBLE as error:
            self.broken(error)
            if isinstance(error, StoreConflict):
                return Written.OVERTAKEN
            if isinstance(error, StoreFull):
                return Written.FULL
            # An error of the disk may have come after the write: look, before the same is decided again.
            return Written.UNKNOWN if isinstance(error, (TimeoutError, StoreUnusable)) else Written.FAILED
        return Written.DONE if room else Written.DONE_WITHOUT_ROOM

    # ------------------------------------------------------------ the lease

    async def renew(self) -> Lease | None:
        """Take or renew the lease; while the store is out of order, the one that we had until it runs out."""
        before, settings = self.lease, self.settings
        try:
            return await self.call(
                lambda: self.store.acquire(self.holder, self._host.now(), settings.duration, settings.action_timeout)
            )
        except TROUBLE as error:
            self.broken(error)
            return before if before is not None and not before.expires.reached(self._host.now()) else None

    def holds(self, lease: Lease | None) -> bool:
        """Whether a lease is ours."""
        return lease is not None and lease.holder == self.holder

    def fresh(self, now: Instant) -> Lease | None:
        """Our lease, if what remains of it covers a step and the margin."""
        lease, settings = self.lease, self.settings
        if lease is None or not self.holds(lease) or lease.expires.boot != now.boot:
            return None
        return lease if lease.expires.mono - now.mono > settings.action_timeout + settings.margin else None

    # ------------------------------------------------------------ trouble

    def broken(self, error: Exception) -> None:
        """Note that a call failed, and say so unless that was said already."""
        words = self._words(error)
        self.error = words
        if words not in self._said and len(self._said) < MOST_SAID:
            self._said.add(words)
            self._alert(words)

    def unusable(self, error: Exception) -> FailoverError:
        """The error for a store that could not be used when it had to be."""
        if isinstance(error, FailoverError):
            return error
        return StoreUnusable(self._words(error), "see whether its disk hangs; the daemon is started again")

    def _words(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"the state folder did not answer within {self.settings.action_timeout:g} s"
        return str(error)

    def works(self) -> None:
        """Note that it works (again)."""
        self.error = None
        self._said.clear()

    def close(self) -> None:
        """Take no more calls."""
        self._worker.close()
