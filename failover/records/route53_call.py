"""One call to Route 53, seen from two threads: the worker that talks, and the loop that may give it up.

How far the call has come decides what its end means: before anything was sent, nothing can happen later; afterwards a
change may yet take effect. A call that was given up on sends nothing any more: its thread finds that out at the next
step, and its connection is cut, so that a peer that dribbles does not hold the thread.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from failover.errors import RecordTimeout, RecordUnreachable


class GivenUp(Exception):
    """Nobody waits any more: nothing more may be sent."""


class Overtaken(Exception):
    """``still_valid`` said no when all that was left was to send."""


class Stage(Enum):
    """How far a call has come."""

    LOADING = "loading"  # boto3 and its client
    CREDENTIALS = "credentials"  # files, environment, a process, AWS's own services
    CONNECTING = "connecting"
    SENT = "sent"  # the request has left, or is about to


class Call:
    """One call. ``still_valid`` is asked right before sending; without it the call is a reading."""

    def __init__(self, timeout: float, still_valid: Callable[[], bool] | None = None) -> None:
        self.timeout = timeout  # seconds, for all of it
        self.stage = Stage.LOADING
        self.begun = False
        self.ended = False  # nothing of it will happen any more
        self.change = still_valid is not None
        self._still_valid = still_valid
        self._lock = threading.Lock()
        self._given_up = False
        self._line: socket.socket | None = None

    # ------------------------------------------------------------ in the worker's thread

    def begin(self) -> None:
        """The thread takes it up. Raises GivenUp."""
        with self._lock:
            self._go_on()
            self.begun = True

    def reach(self, stage: Stage) -> None:
        """The next stage begins. Raises GivenUp."""
        with self._lock:
            self._go_on()
            self.stage = stage

    def connected(self, line: socket.socket) -> None:
        """A connection was made; it is cut when the call is given up. Raises GivenUp, with the connection closed."""
        with self._lock:
            if self._given_up:
                line.close()
            self._go_on()
            self._let_go()
            # A second descriptor of the connection: TLS takes the first one over, and would not let it be cut.
            self._line = line.dup()

    def sending(self) -> None:
        """The request leaves now. Raises Overtaken and GivenUp: then it must not."""
        if self._still_valid is not None and not self._still_valid():
            raise Overtaken
        self.reach(Stage.SENT)

    def end(self) -> None:
        """The thread is done with it."""
        with self._lock:
            self.ended = True
            self._let_go()

    def lost(self, words: str, mend: str = "") -> RecordTimeout | RecordUnreachable:
        """The error for a call without an answer, by what it may have done."""
        if self.change and self.stage is Stage.SENT:
            return RecordTimeout(f"{words}: whether the change was made is unknown", mend)
        return RecordUnreachable(words if self._still_valid is None else f"{words}; nothing was changed", mend)

    def _go_on(self) -> None:
        if self._given_up:
            raise GivenUp

    def _let_go(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    # ------------------------------------------------------------ in the loop

    def give_up(self) -> None:
        """Nothing is sent after this returns, except what the stage already admits to; the connection is cut."""
        with self._lock:
            self._given_up = True
            if self._line is not None:
                with suppress(OSError):
                    self._line.shutdown(socket.SHUT_RDWR)

    @property
    def hangs(self) -> bool:
        """Whether a thread is still busy with it."""
        return self.begun and not self.ended
