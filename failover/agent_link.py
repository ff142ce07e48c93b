"""The link to one host's agent: requests out, checked answers in, over one SSH connection that is kept open.

The rules:

- Two ``serve`` processes on that connection, started with it: one for changes (and the status before an opening), one
  for readings. A reading does not wait behind a ``close`` that watches the counter. On each channel one request at a
  time, in the order of asking; each has one deadline for everything: its turn, the name, the connection, the answer.
- Answers have no numbers. So whoever leaves before the whole answer is there (a deadline, a cancelled caller, nonsense)
  takes the channel along, and no answer can be taken for another request's. The other channel stays.
- A connection that was lost is made anew by the next request, once, for both channels and within its deadline. One on
  which an answer is overdue, and nothing else was heard, has to show that it lives: whoever asks next starts a channel
  on it. When sshd does not start one, the connection counts as dead and goes, unless a request is out on the other
  channel: that one is left to its end. When to ask again after a failure is the caller's to say.
- An ``open`` leaves only over a channel that has answered within ``FRESH`` seconds: a host that hangs gets no opening
  that it could carry out when it goes on, except when it hangs in the instant between.
- A kept status is given again only while no change was sent and none has ended since it was asked for.
- What went wrong is said by how far a request came. Nothing sent: GateUnreachable. A change sent and not answered, or
  answered with nonsense: GateTimeout, since it may have been carried out. Anything answered with no: GateRefused.

asyncssh is loaded at the first request (agent_ssh.py), in this agent's own thread, which also reads the key's file.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import agent_answers as answers
from .agent_answers import GateStatus, NodeProcess, Nonsense, OtherVersion, Status
from .errors import GateError, GateRefused, GateTimeout, GateUnreachable, PingError, WorkerBusy
from .model import Agent
from .ouroboros.ping import Resolver, SocketAddress
from .ports import Host, Worker

if TYPE_CHECKING:
    from .agent_ssh import Channel, Connection, Credentials

__all__ = ["AgentLink", "GateStatus", "NodeProcess", "Status"]

CHANGING = ("open", "close", "kick", "install-credentials")
MOST_REQUEST = 4_096  # bytes of a line
LONGEST_WITHIN = 30.0  # seconds; an agent gives up by then in any case
QUEUE = 16  # requests that may wait for their turn on a channel
FRESH = 2.0  # seconds
LOGIN_WITHIN = 20.0  # seconds
MOST_ADDRESSES = 4  # of a name that are tried

Lease = Callable[[], "tuple[float, int, int] | None"]


@dataclass(slots=True)
class _Lane:
    """One of the two channels, and the turn of those who ask over it."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    channel: Channel | None = None
    out: bool = False  # a request was sent, and its answer is not there yet
    answered: float = float("-inf")  # when this channel last did, in seconds of the host's clock


@dataclass(slots=True)
class _Progress:
    """How far a request has come; decides what an error means."""

    changes: bool
    lane: _Lane
    timeout: float
    until: float  # on the host's clock
    stage: str = "its turn"
    asked: bool = False  # something was sent: the request, or the status before an opening
    sent: bool = False  # the request itself


@dataclass(slots=True)
class _Attempt:
    """A connection that is being made. ``timeout`` is of the request that began it."""

    timeout: float
    stage: str = "its key's file"
    task: asyncio.Task[None] | None = None


class AgentLink:
    """One agent. ``lease`` is the controller's to set: seconds that its lease still lasts, generation, term.

    What ``lease`` gives is told with each ``status``; the fuse on the host listens to that.
    """

    def __init__(self, agent: Agent, pool_name: str, host: Host) -> None:
        self.agent = agent
        self.lease: Lease | None = None
        self._pool = pool_name
        self._host = host
        self._changes = _Lane()
        self._readings = _Lane()
        self._connecting = asyncio.Lock()
        self._files: Worker | None = None
        self._names = Resolver(host)
        self._connection: Connection | None = None
        self._attempt: _Attempt | None = None  # to make one
        self._era = 0  # rises when a change is sent, and when it has ended
        self._status: tuple[int, float, Status] | None = None  # in which era and when it was asked for, and what came

    async def ask(
        self, verb: str, timeout: float, *, still_valid: Callable[[], bool] | None = None, **fields: Any
    ) -> Mapping[str, Any] | None:
        """One request and its answer, whose fields are yet to be checked; ``ok`` is true in it.

        ``still_valid`` is asked immediately before sending; when it says no, nothing is sent and None is returned.
        Raises GateUnreachable, GateTimeout, GateRefused.
        """
        async with self._one(verb in CHANGING, timeout) as progress:
            return await self._exchange(progress, verb, still_valid, fields)

    async def status(self, timeout: float, *, max_age: float = 0.0, **fields: Any) -> Status:
        """What the agent says of its host; the lease is told along. ``topology=True`` asks for the topology file.

        One that was asked for at most ``max_age`` seconds ago may be given again, unless a change was sent or has ended
        since. It is asked and answered while a change is under way, too.
        Raises GateUnreachable, GateTimeout, GateRefused.
        """
        async with self._one(False, timeout) as progress:
            if not fields and self._status is not None:
                era, asked, found = self._status
                if era == self._era and self._host.now().mono - asked <= max_age:
                    return found
            return await self._ask_status(progress, fields)

    async def close(self) -> None:
        """Let go of the connection and the threads; a later request takes them up again."""
        if self._attempt is not None and self._attempt.task is not None:
            self._attempt.task.cancel()
            await asyncio.gather(self._attempt.task, return_exceptions=True)
            self._attempt = None
        self._drop()
        self._names.close()
        if self._files is not None:
            self._files.close()
            self._files = None

    def nonsense(self, error: Nonsense, *, changes: bool = False) -> GateError:
        """What an answer that makes no sense means; the channel goes with it, unless the next request is out on it.

        A change may have been carried out all the same (GateTimeout); a reading just failed (GateRefused).
        """
        lane = self._changes if changes else self._readings
        if not lane.out:
            self._cut(lane)
        return self._unintelligible(error, changes)

    # ---------------------------------------------------------------- one request

    @asynccontextmanager
    async def _one(self, changes: bool, timeout: float) -> AsyncIterator[_Progress]:
        """The turn of one request, under its deadline, with whatever breaks said in our words."""
        lane = self._changes if changes else self._readings
        progress = _Progress(changes, lane, timeout, self._host.now().mono + timeout)
        if lane.waiting >= QUEUE:
            raise GateUnreachable(f"{self._where}: {QUEUE} requests wait already", "see why it answers so slowly")
        lane.waiting += 1
        try:
            async with self._host.timeout(timeout), lane.turn:
                try:
                    yield progress
                except TimeoutError:
                    raise
                except (EOFError, OSError) as error:
                    raise self._broken(progress, error) from error
                finally:
                    if lane.out:  # it leaves without the answer
                        self._cut(lane)
        except TimeoutError as error:
            if progress.asked:
                self._doubt(timeout)
            raise self._late(progress) from error
        finally:
            lane.waiting -= 1

    async def _exchange(
        self,
        progress: _Progress,
        verb: str,
        still_valid: Callable[[], bool] | None,
        fields: Mapping[str, Any],
    ) -> Mapping[str, Any] | None:
        lane = progress.lane
        channel = await self._usable(progress)
        if verb == "open" and self._host.now().mono - lane.answered > FRESH:
            await self._ask_status(progress, {})
            channel = await self._usable(progress)
        line = self._line(verb, progress.until, fields)
        if still_valid is not None and not still_valid():
            return None
        progress.stage = "an answer"
        progress.asked = progress.sent = lane.out = True
        self._era += progress.changes
        try:
            try:
                channel.send(line)
            except BrokenPipeError:  # it has just ended: nothing left for it, and in a moment it is known why
                progress.sent = False
            said = await channel.line()
        finally:
            self._era += progress.changes
        lane.out = False
        lane.answered = self._host.now().mono
        if self._connection is not None:
            self._connection.doubted = False
        return self._accepted(progress, said)

    async def _ask_status(self, progress: _Progress, fields: Mapping[str, Any]) -> Status:
        """Ask for the status, as a request of its own or before an opening."""
        era, asked = self._era, self._host.now().mono
        told = self.lease() if self.lease is not None else None
        if told is not None and told[0] > 0:
            fields = {**fields, "lease": round(told[0], 3), "generation": told[1], "term": told[2]}
        before = replace(progress, changes=False) if progress.changes else progress
        try:
            said = await self._exchange(before, "status", None, fields)
            assert said is not None  # noqa: S101 - nothing was asked before sending it
            found = answers.status(said)
        except Nonsense as error:
            self._cut(progress.lane)
            raise self._unintelligible(error, changes=False) from None
        finally:
            progress.stage = before.stage
            progress.asked = before.asked
        self._status = (era, asked, found)
        return found

    def _line(self, verb: str, until: float, fields: Mapping[str, Any]) -> bytes:
        """The request as bytes. Raises GateRefused when it would be too long."""
        within = max(0.0, min(LONGEST_WITHIN, until - self._host.now().mono))
        request = {"v": answers.VERSION, "verb": verb, "pool": self._pool, "within": round(within, 3), **fields}
        line = json.dumps(request, separators=(",", ":")).encode("ascii") + b"\n"
        if len(line) > MOST_REQUEST:
            raise GateRefused(
                f"{self._where}: {verb} would take {len(line)} bytes, and an agent reads {MOST_REQUEST}; nothing sent",
                "fewer or shorter addresses",
            )
        return line

    def _accepted(self, progress: _Progress, line: bytes) -> Mapping[str, Any]:
        """The answer, if it is one and says yes."""
        try:
            said = answers.answer(line)
            if said["ok"]:
                return said
            kind, error, mend = answers.refusal(said)
        except Nonsense as nonsense:
            self._cut(progress.lane)
            raise self._unintelligible(nonsense, progress.changes) from None
        raise GateRefused(f"{self._where} refused ({kind}): {error}", mend)

    # ---------------------------------------------------------------- connection and channel

    async def _usable(self, progress: _Progress) -> Channel:
        """A channel that runs; the one that is there, or another on the same connection, or everything anew."""
        lane = progress.lane
        if not self._is_ready(lane):
            progress.stage = "a connection"
            async with self._connecting:
                if not self._is_ready(lane):  # or the other channel's request has just seen to it
                    self._cut(lane)
                    if not await self._restarted(progress):
                        await self._connect(progress)
        assert lane.channel is not None  # noqa: S101 - started, or an error was raised
        return lane.channel

    def _is_ready(self, lane: _Lane) -> bool:
        connection, channel = self._connection, lane.channel
        lives = connection is not None and connection.alive and not connection.doubted
        return lives and channel is not None and channel.usable

    async def _restarted(self, progress: _Progress) -> bool:
        """Whether the agent was started once more on the connection that is there; when not, there is none now.

        It gets half of the time that is left, so that a new connection can be made in the other half. Raises what was
        in the way when a request is out on the other channel, which must not lose its connection for this.
        """
        connection = self._connection
        other = self._readings if progress.lane is self._changes else self._changes
        if connection is not None and connection.alive:
            progress.stage = "the start of the agent"
            left = max(0.0, progress.until - self._host.now().mono)
            try:
                async with self._host.timeout(left if other.out else left / 2):
                    await self._start(connection, progress.lane)
                return True
            except (GateUnreachable, OSError):  # TimeoutError is one
                if other.out and connection.alive:
                    raise
        self._drop()
        return False

    async def _start(self, connection: Connection, lane: _Lane) -> None:
        lane.channel = await connection.serve()
        lane.answered = float("-inf")
        connection.doubted = False

    async def _connect(self, progress: _Progress) -> None:
        """Wait for a connection; it goes on being made when the request's time is over, for the next one to find."""
        attempt = self._attempt
        if attempt is None or attempt.task is None or attempt.task.done():
            attempt = self._attempt = _Attempt(max(0.0, progress.until - self._host.now().mono))
            attempt.task = asyncio.get_running_loop().create_task(self._log_in(attempt))
            attempt.task.add_done_callback(_seen)
        assert attempt.task is not None  # noqa: S101 - just made
        try:
            await asyncio.shield(attempt.task)
        finally:
            progress.stage = attempt.stage

    async def _log_in(self, attempt: _Attempt) -> None:
        """Make the connection, and start the agent for both channels: one that cannot have two is told at once.

        A host that is slow to let somebody in (a busy machine, a name that sshd looks up) would never be reached, if
        each request began anew. Finding it takes no longer than the request's own time.
        """
        connection: Connection | None = None
        try:
            async with self._host.timeout(LOGIN_WITHIN):
                own = await self._credentials(attempt.timeout)
                attempt.stage = "a connection"
                sock = await self._dial(attempt.timeout)
                from .agent_ssh import connect  # loaded by ``_credentials``, in its thread

                attempt.stage = "the login"
                connection = await connect(self.agent, own, sock)
                attempt.stage = "the start of the agent"
                changes, readings = await connection.serve(), await connection.serve()
        except BaseException as error:
            if connection is not None:
                connection.abort()
            if isinstance(error, TimeoutError):
                raise OSError(f"no end of {attempt.stage} within {LOGIN_WITHIN:g} s") from error
            raise
        self._connection, self._changes.channel, self._readings.channel = connection, changes, readings
        self._changes.answered = self._readings.answered = float("-inf")

    async def _credentials(self, timeout: float) -> Credentials:
        """Read anew for each connection: keys are replaced while the daemon runs."""

        def read() -> Credentials:
            from .agent_ssh import credentials

            return credentials(self.agent)

        if self._files is None:
            self._files = self._host.worker(f"{self.agent.name} key")
        try:
            return await self._files.call(read, timeout)
        except WorkerBusy as error:
            raise OSError(f"reading {self.agent.key_file} hangs") from error

    async def _dial(self, timeout: float) -> socket.socket:
        """A connected socket, to the first address that takes a connection; they share the time."""
        address = self.agent.address
        began = self._host.now().mono
        try:
            found = (await self._names(address.host, address.port, timeout))[:MOST_ADDRESSES]
        except PingError as error:
            raise OSError(str(error)) from error
        last: OSError | None = None
        for index, where in enumerate(found):
            left = max(0.0, timeout - (self._host.now().mono - began))
            try:
                async with self._host.timeout(left / (len(found) - index)):
                    return await _connected(where)
            except OSError as error:  # TimeoutError is one
                last = error
        raise last or OSError(f"no address for {address.host}")

    def _doubt(self, seconds: float) -> None:
        """An answer is overdue: unless something was heard in that time, the connection has to show that it lives."""
        heard = max(self._changes.answered, self._readings.answered)
        if self._connection is not None and self._host.now().mono - heard >= seconds:
            self._connection.doubted = True

    def _cut(self, lane: _Lane) -> None:
        """End one channel, and with it the agent's process behind it."""
        if lane.channel is not None:
            lane.channel.abort()
        lane.channel, lane.out = None, False

    def _drop(self) -> None:
        """End the connection, and with it both channels."""
        if self._connection is not None:
            self._connection.abort()
        self._connection = self._changes.channel = self._readings.channel = None

    # ---------------------------------------------------------------- errors in our words

    @property
    def _where(self) -> str:
        return f"agent {self.agent.name}"

    def _unintelligible(self, error: Nonsense, changes: bool) -> GateError:
        if isinstance(error, OtherVersion):
            words, mend = f"is an agent of another version: {error}", "install the agent of this release there"
        else:
            words, mend = f"answered nonsense: {error}", "check that its forced command runs failover/agent.py serve"
        if changes:
            return GateTimeout(f"{self._where} {words}; the effect is unknown", mend)
        return GateRefused(f"{self._where} {words}", mend)

    def _late(self, progress: _Progress) -> GateError:
        what = f"{self._where} did not answer within {progress.timeout:g} s"
        mend = "see whether its host or its node hangs"
        if progress.sent and progress.changes:
            return GateTimeout(f"{what}: the effect is unknown", mend)
        if progress.stage == "its turn":
            return GateUnreachable(f"{what}: other requests took all of it; nothing was sent", mend)
        if progress.changes:
            return GateUnreachable(f"{what}, waiting for {progress.stage}; nothing was sent", mend)
        if progress.sent:
            return GateTimeout(what, mend)
        mend = f"check the address {self.agent.address}, routing, firewalls and sshd there"
        return GateUnreachable(f"{what}, waiting for {progress.stage}; nothing was sent", mend)

    def _broken(self, progress: _Progress, error: EOFError | OSError) -> GateError:
        channel = progress.lane.channel
        complaint = channel.complaint if channel is not None else ""
        number = error.errno if isinstance(error, OSError) else None
        why = answers.words((os.strerror(number) if number else str(error)) or "it ended")
        if progress.sent and progress.changes:
            return GateTimeout(f"{self._where}: {why} before it answered: the effect is unknown", "look into its log")
        if progress.asked:
            more = f": {complaint}" if complaint else ""
            return GateUnreachable(f"{self._where} ended without an answer ({why}){more}", _start_mend(complaint))
        mend = f"check the address {self.agent.address}, and that sshd runs there"
        return GateUnreachable(f"{self._where}: no connection to {self.agent.address}: {why}", mend)


def _seen(task: asyncio.Task[None]) -> None:
    """What an attempt ended with is told to whoever waits for it; nobody may do so by then."""
    if not task.cancelled():
        task.exception()


async def _connected(where: SocketAddress) -> socket.socket:
    """A non-blocking socket, connected; closed when that fails."""
    sock = socket.socket(where.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, where.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _start_mend(complaint: str) -> str:
    if "password is required" in complaint or complaint.startswith("sudo:"):
        return "give the agent's user its sudo rule, with NOPASSWD"
    if "not found" in complaint or "No such file" in complaint or "Permission denied" in complaint:
        return "check the forced command in its user's authorized_keys, and that the agent is installed"
    return "look into its log on that host"
