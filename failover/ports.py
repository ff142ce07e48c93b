"""The ports behind which the world lies: time and chance, nodes, proxies, the store. Protocols and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from .model import (
    Address,
    Answer,
    Change,
    Commit,
    DnsAnswer,
    Event,
    Gate,
    GateReading,
    Instant,
    JournalEntry,
    Kick,
    Lease,
    NodeReading,
    ProxyReading,
    RecordReading,
    RelayReading,
    Request,
    Step,
    StepKind,
    Stored,
    Tip,
)

R = TypeVar("R")


class Worker(Protocol):
    """One thread of its own for one edge; at most one call runs, and none waits behind one that was given up on."""

    async def call(self, function: Callable[[], R], timeout: float) -> R:
        """Run ``function`` in the worker's thread.

        Raises TimeoutError after ``timeout`` seconds: the call goes on, and its effect is unknown.
        Raises WorkerBusy when it did not run and never will: an earlier call that was given up on still runs, two
        others are before it, or the worker is closed. ``timeout`` covers waiting for the turn.
        """
        ...

    def close(self) -> None:
        """Take no more calls; do not wait for one that runs."""
        ...


class Host(Protocol):
    """Time and chance. Outside the edges nothing reads a clock or sleeps but through this."""

    def now(self) -> Instant:
        """The present instant (CLOCK_BOOTTIME, which does not stop while suspended, and UTC)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; at once when ``seconds`` is not positive."""
        ...

    def timeout(self, seconds: float) -> AbstractAsyncContextManager[Any]:
        """A block that raises TimeoutError when it takes longer than ``seconds``."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...

    def new_id(self) -> str:
        """A fresh identifier, unique across hosts and restarts."""
        ...

    def worker(self, name: str) -> Worker:
        """A new worker for the edge ``name``."""
        ...


class ProxyPort(Protocol):
    """One proxy's management. Every call ends within the timeout that it is given."""

    async def read(self, timeout: float) -> ProxyReading:
        """The producers' servers as they are now. Raises GateUnreachable, GateTimeout, GateRefused."""
        ...

    async def set(self, kind: StepKind, producer: str, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """Close or open the producer's server; idempotent.

        ``still_valid`` is asked immediately before sending each command; when it says no, no more is sent and False is
        returned (a server may then be in maint with its sessions still running).
        Raises GateUnreachable (nothing was sent), GateTimeout (unknown effect), GateRefused (no effect).
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class GatePort(Protocol):
    """One gate on a producer's own host: forging, firewall or power. Every call ends within its timeout."""

    async def read(self, timeout: float) -> GateReading:
        """How it stands now. Raises GateUnreachable, GateTimeout, GateRefused."""
        ...

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """Carry out one step; idempotent, and refused by the agent when it has heard a newer generation or term.

        ``still_valid`` is asked immediately before sending; when it says no, nothing is sent and False is returned.
        True means that it was carried out, not that it is confirmed: that is for ``read`` to say.
        Raises GateUnreachable (nothing was sent), GateTimeout (unknown effect), GateRefused (no effect).
        """
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class NodePort(Protocol):
    """One node's metrics. Every call ends within its timeout."""

    async def read(self, timeout: float) -> NodeReading:
        """What the node says of itself. Raises ProbeError."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class RelayPort(Protocol):
    """One relay's host. Every call ends within its timeout."""

    async def read(self, timeout: float) -> RelayReading:
        """Who of the producers it is connected to. Raises GateUnreachable, GateTimeout, GateRefused."""
        ...

    async def kick(self, kick: Kick, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """End the sessions; idempotent. As ``GatePort.set``."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class Hosts(Protocol):
    """What is reached on the hosts of one pool: gates, nodes' metrics, relays. They may share connections."""

    @property
    def gates(self) -> Mapping[Gate, GatePort]:
        """The port of every gate on a producer's own host."""
        ...

    @property
    def nodes(self) -> Mapping[str, NodePort]:
        """The metrics of producers' nodes, where they are read, by producer."""
        ...

    @property
    def relays(self) -> Mapping[str, RelayPort]:
        """The relays that have an agent, by name."""
        ...

    async def close(self) -> None:
        """Let go of all of it."""
        ...


class RecordPort(Protocol):
    """One record at its provider. Every call ends within the timeout that it is given, or raises."""

    async def read(self, timeout: float) -> RecordReading:
        """What the provider holds now. Raises RecordUnreachable, RecordRefused, RecordThrottled."""
        ...

    async def change(self, change: Change, timeout: float, still_valid: Callable[[], bool]) -> str | None:
        """Swap what the name holds, if it still holds what is expected; else nothing is changed.

        Returns an id to ask ``settled`` about, empty where the provider has no such thing (then it is settled).
        ``still_valid`` is asked immediately before sending; when it says no, nothing is sent and None is returned.
        Raises RecordConflict, RecordRefused, RecordThrottled, RecordUnreachable (all without effect), and
        RecordTimeout (unknown effect). Never sends twice.
        """
        ...

    async def settled(self, change_id: str, timeout: float) -> bool:
        """Whether the change has reached all of the provider's servers (Route 53: INSYNC). Raises as ``read``."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


class VerifyPort(Protocol):
    """What the world is told of one record: its authoritative servers, or the resolvers that the file names."""

    async def look(self, timeout: float) -> tuple[DnsAnswer, ...]:
        """Every server's answer, those that fail among them; never raises for a server. In a steady order.

        Raises RecordUnreachable when the servers themselves cannot be found.
        """
        ...

    async def close(self) -> None:
        """Let go of sockets and threads."""
        ...


class PingPort(Protocol):
    """How a node is pinged."""

    async def __call__(self, address: Address, magic: int, timeout: float) -> tuple[Tip, float]:
        """The tip and the seconds that the whole ping took. Raises PingError."""
        ...


class Store(Protocol):
    """Where the assignment, timers, requests, lease and journal live. Calls are synchronous and short.

    One conformance suite holds for every store. All calls raise StoreUnusable or StoreFull when they must.
    """

    def load(self) -> Stored:
        """The present assignment, timers and lease."""
        ...

    def commit(self, commit: Commit) -> None:
        """Write all of it or nothing. Raises StoreConflict when revision or term are overtaken.

        Raises ValueError, before anything is written, for a revision or generation that falls.
        """
        ...

    def reserve(self) -> None:
        """Make sure that a whole handover can be journalled. Raises StoreFull."""
        ...

    def acquire(self, holder: str, now: Instant, duration: float, wait: float) -> Lease | None:
        """Take or renew the lease for ``duration`` seconds; None while somebody else holds it.

        ``holder`` names one run of one daemon, and is never used again after a restart.

        A foreign lease is overtaken when it has stood unchanged for its duration plus ``wait`` on our own clock,
        or when its holder is known to be dead (same boot, folder lock free) for ``wait`` seconds.
        """
        ...

    def resign(self, holder: str) -> None:
        """Give the lease up, so that the next daemon need not wait. Not an error when it is not held."""
        ...

    def submit(self, request: Request) -> None:
        """Append a request."""
        ...

    def pending(self) -> tuple[Request, ...]:
        """Requests that are pending or accepted, oldest first (at most 100)."""
        ...

    def answer(self, request_id: str) -> Answer | None:
        """What became of a request; None when no such request is known."""
        ...

    def changed(self) -> int:
        """A number that changes when another process has written; cheap."""
        ...

    def history(self, after: int = 0, since_utc: float = 0.0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        """Journal rows with an id above ``after`` and not older than ``since_utc``, oldest first."""
        ...

    def unfinished(self) -> tuple[Event, ...]:
        """The step-started rows without a step-done or step-failed of the same ``detail["step"]``."""
        ...

    def snapshot(self) -> tuple[Mapping[str, Any], Instant] | None:
        """The last status document, and when it was written."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...
