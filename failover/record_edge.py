"""One record's edge: the task that reads and changes it at its provider, and the one that looks what servers say.

It touches one ``RecordPort``, one ``VerifyPort`` and the board. At most one change waits; a newer one replaces it.
A provider or a server that hangs holds up this record alone: proxies are switched as fast as without it. A change is
never repeated blindly: after one that was refused or not answered the provider is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from . import signposts
from .board import Board
from .edge import GRACE, Order, pause
from .errors import (
    FailoverError,
    RecordConflict,
    RecordError,
    RecordThrottled,
    RecordTimeout,
    RecordUnreachable,
    WorkerBusy,
)
from .model import Event, EventKind, Instant, Pointing, RRset
from .ports import Host, RecordPort, VerifyPort
from .signposts import RecordTrack

QUICK = 20.0  # so many times faster than its steady pace is a change followed at first
SOONER = 6.0  # so many times faster is a provider asked again that did not answer
PATIENT = 1.0  # so many times its steady pace is the longest pause before a change is tried again
MOST_DOUBLINGS = 10

Key = tuple[str, RRset, int, int]


class RecordEdge:
    """Reads, moves and verifies one record.

    ``interval`` and ``look_interval`` are seconds from one reading, and from one look at the servers, to the next;
    ``hurry`` is how long the first pause is before a change that failed is tried again.
    ``posted`` is called after every observation, ``report`` with what became of changes.
    """

    def __init__(
        self,
        name: str,
        port: RecordPort,
        verifier: VerifyPort,
        board: Board,
        host: Host,
        *,
        interval: float,
        look_interval: float,
        hurry: float,
        timeout: float,
        valid: Callable[[Pointing], bool],
        posted: Callable[[], None],
        report: Callable[[Event], None],
    ) -> None:
        self.name = name
        self._port = port
        self._verifier = verifier
        self._board = board
        self._host = host
        self._interval = interval
        self._look_interval = look_interval
        self._hurry = hurry
        self._timeout = timeout
        self._valid = valid
        self._posted = posted
        self._report = report
        self._order: Order[Pointing] | None = None
        self._running: Pointing | None = None
        self._wake = asyncio.Event()
        self._look_wake = asyncio.Event()
        self._held: dict[Key, tuple[int, float]] = {}  # how often in vain, and until when it is held back
        self._read_due = 0.0  # on the monotonic clock, as the next
        self._settle_due = 0.0
        self._settle_pace = look_interval / QUICK  # seconds from one question to the next

    # ------------------------------------------------------------ from the controller

    def wants(self, pointing: Pointing) -> bool:
        """Whether this change is neither under way, nor waiting, nor held back after a failure."""
        key = _key(pointing)
        waiting = None if self._order is None else _key(self._order.command)
        if key == waiting or (self._running is not None and key == _key(self._running)):
            return False
        return key not in self._held or self._host.now().mono >= self._held[key][1]

    def offer(self, order: Order[Pointing]) -> None:
        """Carry this out next; one that still waits is replaced."""
        self._drop()
        self._order = order
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether a change is being sent."""
        return self._running is not None

    async def close(self) -> None:
        """Let go of both ports."""
        await self._port.close()
        await self._verifier.close()

    # ------------------------------------------------------------ the provider

    async def run(self) -> None:
        """Read, change, follow what was changed, for ever; ends only by cancellation."""
        try:
            while True:
                self._wake.clear()
                order, self._order = self._order, None
                if order is not None:
                    self._running = order.command
                    if not await self._change(order):
                        await self._read()
                    self._running = None
                    self._posted()
                elif self._host.now().mono >= self._read_due:
                    await self._read()
                    self._posted()
                elif self._track.change_id is not None and self._host.now().mono >= self._settle_due:
                    await self._settle(self._track.change_id)
                    self._posted()
                await pause(self._host, self._wake, self._next_due() - self._host.now().mono)
        finally:
            self._running = None
            self._drop()

    @property
    def _track(self) -> RecordTrack:
        return self._board.records[self.name]

    def _next_due(self) -> float:
        if self._track.change_id is None:
            return self._read_due
        return min(self._read_due, self._settle_due)

    async def _read(self) -> None:
        before = self._track
        try:
            async with self._host.timeout(self._timeout + GRACE):
                reading = await self._port.read(self._timeout)
        except (RecordError, WorkerBusy) as error:
            self._missed(_with_mend(error))
            return
        except TimeoutError:
            self._missed(f"{self.name}: its provider did not answer within {self._timeout:g} s")
            return
        now = self._host.now()
        self._board.post_record(self.name, reading, now)
        self._read_due = now.mono + self._interval
        if before.rrset != reading.rrset:
            self._look_wake.set()

    def _missed(self, error: str) -> None:
        now = self._host.now()
        self._board.post_record_silence(self.name, now, error)
        doublings = min(self._track.misses - 1, MOST_DOUBLINGS)
        self._read_due = now.mono + min(self._interval, self._look_interval / SOONER * 2**doublings)

    async def _settle(self, change_id: str) -> None:
        """Ask whether the change is everywhere: quickly at first, then ever more seldom."""
        settled = False
        try:
            async with self._host.timeout(self._timeout + GRACE):
                settled = await self._port.settled(change_id, self._timeout)
        except (RecordError, WorkerBusy, TimeoutError):
            settled = False  # asked again later; a provider that is silent shows when it is read
        now = self._host.now()
        if settled:
            self._board.post_settled(self.name, now)
            self._look_wake.set()
            return
        self._settle_pace = min(self._look_interval, self._settle_pace * 1.3)
        self._settle_due = now.mono + self._settle_pace

    # ------------------------------------------------------------ changes

    async def _change(self, order: Order[Pointing]) -> bool:
        """Send one change; False when the provider is to be read now, to see what it holds."""
        pointing = order.command
        wanted = pointing.change.wanted
        self._board.post_pointed(self.name, wanted, self._host.now())
        try:
            async with self._host.timeout(self._timeout + GRACE):
                accepted = await self._port.change(pointing.change, self._timeout, lambda: self._valid(pointing))
        except (RecordTimeout, TimeoutError) as error:
            words = str(error) or f"{self.name}: its provider did not answer within {self._timeout:g} s"
            self._failed(order, f"{words}; it may still take effect", "unknown")
        except asyncio.CancelledError:
            self._failed(order, "abandoned on the way; it may still take effect", "unknown")
            raise
        except RecordConflict as error:
            self._failed(order, _with_mend(error), "conflict")
        except RecordThrottled as error:
            self._failed(order, str(error), "throttled")
            return True  # asking once more would be in vain, too
        except (RecordUnreachable, WorkerBusy) as error:
            self._failed(order, _with_mend(error), "unreachable")
        except RecordError as error:
            self._failed(order, _with_mend(error), "refused")
        else:
            self._done(order, accepted)
            return True
        return False

    def _done(self, order: Order[Pointing], accepted: str | None) -> None:
        pointing, now = order.command, self._host.now()
        if accepted is None:
            self._board.post_unsent(self.name, pointing.change.wanted)
            self._say(order, EventKind.STEP_DONE, f"{pointing}: not sent, overtaken", "overtaken")
            return
        self._held.pop(_key(pointing), None)
        self._board.post_accepted(self.name, pointing.change.wanted, accepted, now, generation=pointing.generation)
        self._settle_pace = self._look_interval / QUICK
        self._settle_due = now.mono + self._settle_pace
        self._read_due = now.mono + self._interval
        self._look_wake.set()
        self._say(order, EventKind.STEP_DONE, f"{pointing}: accepted", "sent")

    def _failed(self, order: Order[Pointing], words: str, result: str) -> None:
        """Held back for a while that doubles, so that nobody is asked the same in vain without end."""
        key = _key(order.command)
        self._held = {k: held for k, held in self._held.items() if k[2] == order.command.generation}
        count = self._held.get(key, (0, 0.0))[0] + 1
        # By chance, for the records of one zone would otherwise get into each other's way again and again.
        wait = self._hurry * 2 ** min(count - 1, MOST_DOUBLINGS) * (0.5 + self._host.random())
        now = self._host.now()
        self._held[key] = (count, now.mono + min(wait, PATIENT * self._look_interval))
        self._board.post_point_failed(self.name, words, now)
        if result != "unknown":
            self._board.post_unsent(self.name, order.command.change.wanted)
        self._say(order, EventKind.STEP_FAILED, words, result)

    def _drop(self) -> None:
        """Say of a change that was journalled as begun that it was not sent after all."""
        order, self._order = self._order, None
        if order is not None:
            self._say(order, EventKind.STEP_DONE, f"{order.command}: not sent", "overtaken")

    def _say(self, order: Order[Pointing], kind: EventKind, words: str, result: str) -> None:
        self._report(order.ends(kind, self._host.now(), words, result))

    # ------------------------------------------------------------ what the world is told

    async def watch(self) -> None:
        """Look at the servers, for ever: often while a change spreads, else at a steady pace."""
        while True:
            self._look_wake.clear()
            started = self._host.now()
            if self._track.tried:
                await self._look()
                self._posted()
            await pause(self._host, self._look_wake, self._look_pace(started) - self._host.now().since(started))

    async def _look(self) -> None:
        try:
            async with self._host.timeout(self._timeout + GRACE):
                answers = await self._verifier.look(self._timeout)
        except (RecordError, WorkerBusy) as error:
            self._board.post_unseen(self.name, self._host.now(), str(error))
            return
        except TimeoutError:
            words = f"its servers did not answer within {self._timeout:g} s"
            self._board.post_unseen(self.name, self._host.now(), words)
            return
        was_right = self._track.right_at is not None
        self._board.post_answers(self.name, answers, self._host.now())
        if was_right and self._track.right_at is None:  # changed behind our back, perhaps: see at once, by one call
            self._read_due = 0.0
            self._wake.set()

    def _look_pace(self, now: Instant) -> float:
        track = self._track
        if not track.tried:
            return self._look_interval / QUICK
        if signposts.settled(track):
            return self._look_interval
        began = track.accepted_at or track.wrong_since
        if began is not None and now.since(began) < signposts.STALLED:
            return self._look_interval / QUICK
        return self._look_interval / 2


def _with_mend(error: FailoverError) -> str:
    """What is wrong and, where a person can do something, what."""
    return f"{error}. Mend: {error.mend}" if error.mend and not error.mend.startswith("nothing") else str(error)


def _key(pointing: Pointing) -> Key:
    """What a change asks for, however it is worded, and whatever it is made from."""
    return (pointing.record, pointing.change.wanted, pointing.generation, pointing.term)
