"""The node-to-node ping on asyncio: a name or an address in, times and a tip out, or one PingError.

A thin shell around the sans-IO client; the only module of this package that touches sockets. One deadline covers all
of it: name, connection, handshake, keep-alive, tip and a polite end. Plain non-blocking sockets instead of streams:
a ping is three short exchanges, and closing a socket needs no event loop, so nothing is left open when cancelled.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from failover.errors import PingError, WorkerBusy
from failover.model import Address, Tip
from failover.ouroboros.client import Client, Event, TipTold
from failover.ouroboros.errors import ProtocolError, plain
from failover.ouroboros.failures import explain
from failover.ports import Host, Worker

T = TypeVar("T")

STAGES = ("dns", "connect", "handshake", "keep-alive", "tip")
MAX_ADDRESSES = 8  # of one name, in the order in which the resolver gives them
MAX_NAMES = 256  # that one Resolver keeps a thread for
READ_SIZE = 4096  # no answer is longer
DRAIN_READS = 16  # before the end, so that unread bytes do not turn our FIN into a reset


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A numeric address as the socket module wants it."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        return str(Address(self.sockaddr[0], self.sockaddr[1]))


Resolve = Callable[[str, int, float], Awaitable[Sequence[SocketAddress]]]


class Socket(Protocol):
    """What a session needs of a non-blocking socket."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...
    def getsockopt(self, level: int, option: int, /) -> int: ...
    def fileno(self) -> int: ...
    def connect_ex(self, address: Any, /) -> int: ...
    def send(self, data: bytes, /) -> int: ...
    def recv(self, most: int, /) -> bytes: ...
    def close(self) -> None: ...


class Sockets(Protocol):
    """Where sockets come from, and who calls back when one is ready: a simulation's, in place of the system's."""

    def socket(self, family: int, kind: int) -> Socket: ...
    def add_reader(self, fd: int, call: Callable[[], None]) -> object: ...
    def add_writer(self, fd: int, call: Callable[[], None]) -> object: ...
    def remove_reader(self, fd: int) -> object: ...
    def remove_writer(self, fd: int) -> object: ...


@dataclass(frozen=True, slots=True)
class Probe:
    """One keep-alive and one tip on an open session; milliseconds."""

    keep_alive_ms: float
    tip_ms: float
    tip: Tip


@dataclass(frozen=True, slots=True)
class PingResult:
    """A ping that came through. ``address`` is the numeric one that answered; times are milliseconds.

    ``duration_ms`` runs from the call to the tip's arrival, addresses that failed before included.
    """

    address: str
    version: int
    dns_ms: float
    connect_ms: float
    handshake_ms: float
    keep_alive_ms: float
    duration_ms: float
    tip: Tip


class Resolver:
    """Names to addresses by getaddrinfo, each name in a thread of its own, so that one that hangs delays no other.

    Keep one for as long as names are looked up again and again: while a lookup that was given up on still runs, the
    next one of that name fails at once instead of taking another thread.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._workers: dict[str, Worker] = {}

    async def __call__(self, name: str, port: int, timeout: float) -> Sequence[SocketAddress]:
        """The addresses of ``name``, in the system's order, one or more. Raises PingError, TimeoutError."""
        worker = self._workers.get(name)
        if worker is None:
            if len(self._workers) >= MAX_NAMES:
                raise PingError(f"{name}: more than {MAX_NAMES} names at once", "dns", "use addresses")
            worker = self._workers[name] = self._host.worker(f"resolve {name}")
        try:
            return await worker.call(lambda: _look_up(name, port), timeout)
        except WorkerBusy as error:
            raise PingError(
                f"{name}: an earlier lookup of the name still runs", "dns", "check the name servers of this machine"
            ) from error

    def close(self) -> None:
        """Let go of the threads."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()


async def ping(
    host: Host,
    address: Address,
    magic: int,
    timeout: float,
    *,
    resolver: Resolve | None = None,
    linger: float = 0.0,
    sockets: Sockets | None = None,
) -> PingResult:
    """One whole ping within ``timeout`` seconds: name, connection, handshake, keep-alive, tip, polite end.

    All addresses of a name are tried in turn, each with a fair share of the time left. ``linger`` is how many
    seconds the peer may take to end its side before we close (a node whose responders still run logs an error).
    Raises PingError and nothing else; the connection is closed in any case, also when cancelled.
    """
    session, probe, spent = await _reach(host, address, magic, timeout, resolver, Session._probe, sockets)
    await session.close(min(linger, timeout - spent / 1e3))
    return PingResult(
        session.address,
        session.version,
        session.dns_ms,
        session.connect_ms,
        session.handshake_ms,
        probe.keep_alive_ms,
        spent,
        probe.tip,
    )


class Session:
    """A connection that is kept open: ``open`` once, ``probe`` again and again, ``close``.

    After an error the session is closed. Times are milliseconds. A node ends a session that is silent for 97 s.
    """

    __slots__ = (
        "_asked",
        "_broken",
        "_client",
        "_event",
        "_fd",
        "_host",
        "_loop",
        "_ready",
        "_socket",
        "_stage",
        "_waiter",
        "_where",
        "connect_ms",
        "dns_ms",
        "handshake_ms",
    )

    def __init__(
        self,
        host: Host,
        address: Address,
        where: SocketAddress,
        magic: int,
        dns_ms: float,
        sockets: Sockets | None = None,
    ) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._ready = sockets or self._loop  # who calls back
        self._client = Client(magic)
        make: Callable[[int, int], Socket] = sockets.socket if sockets else socket.socket
        self._socket = make(where.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._stage = "connect"
        self._fd = self._socket.fileno()
        self._event: Event | None = None  # the last answer
        self._waiter: asyncio.Future[None] | None = None
        self._broken: Exception | None = None  # what ended the connection while nobody waited for an answer
        self._asked = address
        self._where = where
        self.dns_ms = dns_ms
        self.connect_ms = 0.0
        self.handshake_ms = 0.0

    @classmethod
    async def open(
        cls, host: Host, address: Address, magic: int, timeout: float, *, resolver: Resolve | None = None
    ) -> Session:
        """A session after its handshake, within ``timeout`` seconds. Raises PingError."""
        session, _, _ = await _reach(host, address, magic, timeout, resolver, None)
        return session

    @property
    def address(self) -> str:
        """The numeric address and the port that the session is connected to."""
        return str(self._where)

    @property
    def version(self) -> int:
        """The agreed version of the protocol."""
        return self._client.version or 0

    async def probe(self, timeout: float) -> Probe:
        """One keep-alive and one tip, within ``timeout`` seconds. Raises PingError."""
        self._stage = "keep-alive"
        if self._fd < 0:
            raise PingError(f"{self._label()}: the session is closed", self._stage, "open a new one")
        probed = None
        try:
            async with self._host.timeout(timeout):
                probed = await self._probe()
        except (OSError, EOFError, ProtocolError) as error:
            raise self._failure(error, timeout) from error
        finally:
            if probed is None:
                self._shut()
        return probed

    async def close(self, linger: float = 0.0) -> None:
        """End both mini-protocols, give the peer ``linger`` seconds to end its side, and close. Never fails.

        What has come unread is taken first: Linux makes a reset of a close with unread bytes.
        """
        try:
            words = self._client.done(_us(self._host.now().mono))
            if words:
                self._socket.send(words)
            if linger > 0 and self._broken is None:
                async with self._host.timeout(linger):
                    await self._wait()
            for _ in range(DRAIN_READS):
                if not self._socket.recv(READ_SIZE):
                    break
        except (OSError, EOFError, ProtocolError):
            return  # BlockingIOError: all is read; TimeoutError: enough waited; any other: nobody is left
        finally:
            self._shut()

    async def _connect(self) -> None:
        """The connection and the handshake."""
        began = self._host.now().mono
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failed = self._socket.connect_ex(self._where.sockaddr)
        if failed == errno.EINPROGRESS:
            self._ready.add_writer(self._fd, self._wake)
            await self._wait()
            failed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed:
            raise OSError(failed, os.strerror(failed))
        # One reader for the whole session: registering it anew for each answer costs more than the answer.
        self._ready.add_reader(self._fd, self._read)
        self._ready.remove_writer(self._fd)
        connected = self._host.now().mono
        self.connect_ms = (connected - began) * 1e3
        self._stage = "handshake"
        await self._exchange(self._client.propose(_us(connected)))
        self.handshake_ms = (self._host.now().mono - connected) * 1e3

    async def _probe(self) -> Probe:
        """One keep-alive and one tip, without a deadline of its own."""
        self._stage = "keep-alive"
        began = self._host.now().mono
        cookie = int(self._host.random() * 0x10000)
        await self._exchange(self._client.keep_alive(cookie, _us(began)))
        self._stage = "tip"
        kept = self._host.now().mono
        told = await self._exchange(self._client.find_tip(_us(kept)))
        assert isinstance(told, TipTold)  # noqa: S101  the client lets nothing through that was not asked for
        return Probe((kept - began) * 1e3, (self._host.now().mono - kept) * 1e3, told.tip)

    async def _exchange(self, words: bytes) -> Event | None:
        """Send ``words`` and wait for the answer."""
        # A few bytes always fit into the send buffer, unless the peer has long stopped reading.
        if self._broken is None and self._socket.send(words) != len(words):
            raise BlockingIOError(errno.EAGAIN, "the peer takes no bytes")
        await self._wait()
        return self._event

    async def _wait(self) -> None:
        """Until ``_read`` or ``_wake`` has something to tell. Raises what broke the connection."""
        if self._broken is None:
            waiter = self._waiter = self._loop.create_future()
            await waiter
        if self._broken is not None:
            raise self._broken

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read(self) -> None:
        """Called by the event loop when bytes have come: one bounded read, so that a flood starves nobody."""
        try:
            data = self._socket.recv(READ_SIZE)
            if not data:
                raise EOFError
            events = self._client.receive(data)
            if not events:
                return
            self._event = events[0]
        except BlockingIOError:
            return
        except (OSError, EOFError, ProtocolError) as error:
            self._ready.remove_reader(self._fd)
            self._broken = error
        self._wake()

    def _shut(self) -> None:
        """Close the socket, at once and from anywhere; a second time does nothing."""
        if self._fd >= 0:
            self._ready.remove_reader(self._fd)
            self._ready.remove_writer(self._fd)
            self._socket.close()
            self._fd = -1

    def _failure(self, error: Exception, timeout: float) -> PingError:
        return explain(error, self._stage, self._label(), timeout, self._client.pending)

    def _label(self) -> str:
        literal = self._where.sockaddr[0] == self._asked.host
        return str(self._asked) if literal else f"{self._asked} ({self.address})"


# ---------------------------------------------------------------- from a name to a session


async def _reach(
    host: Host,
    address: Address,
    magic: int,
    timeout: float,
    resolver: Resolve | None,
    work: Callable[[Session], Awaitable[T]] | None,
    sockets: Sockets | None = None,
) -> tuple[Session, Any, float]:
    """The first address with which handshake and ``work`` succeed: its session, what ``work`` gave, milliseconds."""
    began = host.now().mono
    failures: list[PingError] = []
    session: Session | None = None
    try:
        async with host.timeout(timeout):
            found = await _addresses(host, address, timeout, resolver)
            looked_up = host.now().mono
            for index, where in enumerate(found):
                others = len(found) - index - 1
                share = (timeout - (host.now().mono - began)) / (others + 1) if others else timeout
                try:
                    session = Session(host, address, where, magic, (looked_up - began) * 1e3, sockets)
                    outcome = await _attempt(session, work, share if others else None)
                except (OSError, EOFError, ProtocolError) as error:
                    failures.append(
                        session._failure(error, share) if session else explain(error, "connect", str(address), share)
                    )
                    if session:
                        session._shut()
                        session = None
                else:
                    reached, session = session, None
                    return reached, outcome, (host.now().mono - began) * 1e3
    except OSError as error:  # TimeoutError is one
        late = session._failure(error, timeout) if session else explain(error, "dns", str(address), timeout)
        failures.append(late)
    finally:
        if session:
            session._shut()
    raise _verdict(failures)


async def _attempt(session: Session, work: Callable[[Session], Awaitable[T]] | None, share: float | None) -> T | None:
    """One address, within ``share`` seconds when others wait for their turn."""
    if share is not None:
        async with session._host.timeout(share):
            return await _attempt(session, work, None)
    await session._connect()
    return await work(session) if work else None


async def _addresses(host: Host, address: Address, timeout: float, resolver: Resolve | None) -> Sequence[SocketAddress]:
    """The numeric addresses of ``address``, one or more and at most ``MAX_ADDRESSES``. Raises PingError."""
    if not 0 < address.port < 0x10000:
        raise PingError(f"{address}: port {address.port} is not within 1 to 65535", "connect")
    literal = _literal(address.host, address.port)
    if literal:
        return (literal,)
    if resolver:
        found = await resolver(address.host, address.port, timeout)
    else:
        own = Resolver(host)
        try:
            found = await own(address.host, address.port, timeout)
        finally:
            own.close()
    if not found:
        raise PingError(f"{address.host}: the name has no address", "dns", "check the name")
    return found[:MAX_ADDRESSES]


def _literal(name: str, port: int) -> SocketAddress | None:
    """``name`` when it is a numeric address already; None for anything else."""
    try:
        socket.inet_pton(socket.AF_INET, name)
        return SocketAddress(socket.AF_INET, (name, port))
    except (OSError, ValueError):
        if ":" not in name:
            return None
    try:
        info = socket.getaddrinfo(name, port, socket.AF_INET6, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, ValueError):
        return None
    return SocketAddress(socket.AF_INET6, _without_zone(info[0][4]))


def _look_up(name: str, port: int) -> list[SocketAddress]:
    """The system's answer, waiting as long as it takes: to be called in a thread of its own. Raises PingError."""
    try:
        infos = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise explain(error, "dns", name, 0) from error
    except ValueError as error:  # a label that is too long or empty, a null byte
        raise PingError(f"{plain(name)}: not a name that can be looked up", "dns", "check the name") from error
    return [SocketAddress(family, _without_zone(sockaddr)) for family, _, _, _, sockaddr in infos]


def _without_zone(sockaddr: tuple[Any, ...]) -> tuple[Any, ...]:
    """asyncio would look up ``fe80::1%eth0`` again; the zone is in the tuple's last entry anyway."""
    return (str(sockaddr[0]).partition("%")[0], *sockaddr[1:])


# ---------------------------------------------------------------- the end of it


def _verdict(failures: Sequence[PingError]) -> PingError:
    """The failure of the address that came furthest; the others are counted."""
    last = max(failures, key=lambda failure: STAGES.index(failure.stage))
    if len(failures) == 1:
        return last
    words = f"{last} (and {len(failures) - 1} more of its addresses failed)"
    return PingError(words, last.stage, last.mend, refused=all(failure.refused for failure in failures))


def _us(seconds: float) -> int:
    return int(seconds * 1e6)
