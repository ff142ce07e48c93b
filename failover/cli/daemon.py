"""The daemon as a command sees it: its status over HTTP, or what it left in the state folder."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from failover import status
from failover.errors import FailoverError, StoreUnusable
from failover.model import Address, Instant, Lease, Pool
from failover.store.sqlite import SqliteStore

TIMEOUT = 3.0  # seconds for connecting, and for all of the answer
MOST_BYTES = 4 << 20
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where it listens, not where we do


class NoDaemon(FailoverError):
    """A daemon is needed, and none runs."""

    exit_status = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """A status document. ``age`` is None from a daemon that runs, else how many seconds old the document is."""

    document: dict[str, Any]
    age: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The document with where it comes from behind it."""
        return {**self.document, "read_from": "daemon" if self.age is None else "state folder", "age": self.age}


def fetch(pool: Pool) -> dict[str, Any] | None:
    """The status of the daemon that answers on ``listen``; None when none of this pool does. Raises FailoverError."""
    where = Address(_ANY.get(pool.listen.host, pool.listen.host), pool.listen.port)
    connection = http.client.HTTPConnection(where.host, where.port, timeout=TIMEOUT)
    watch = threading.Timer(TIMEOUT, lambda: _hang_up(connection))  # its own timeouts are for each read only
    watch.daemon = True
    try:
        connection.connect()
        watch.start()
        connection.request("GET", "/status", headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read(MOST_BYTES + 1)
        document = json.loads(body) if response.status == 200 and len(body) <= MOST_BYTES else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        watch.cancel()
        connection.close()
    if not isinstance(document, dict) or "pool" not in document:
        return None
    if document["pool"] != pool.name:
        raise FailoverError(
            f"{where}: the daemon of pool {document['pool']!s:.60} answers there, not of {pool.name}",
            "give each pool a `listen` of its own",
        )
    return document


def _hang_up(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def stored(pool: Pool, now: Instant) -> Seen | None:
    """What the daemon left in the state folder, with the newest assignment; None when there is nothing yet."""
    try:
        store = SqliteStore.read(pool.state, pool.name)
    except StoreUnusable as error:
        if "no state yet" in str(error):
            return None
        raise
    try:
        kept, snapshot = store.load(), store.snapshot()
    finally:
        store.close()
    if snapshot is None:
        return None
    document, at = snapshot
    # The snapshot is written now and then, the assignment and the lease always.
    newer = {} if kept.assignment is None else status.assigned(kept.assignment)
    decider = status.decider(kept.lease, now, held=False)
    return Seen({**document, **newer, "decider": decider}, max(0.0, round(now.since(at), 1)))


def lease_of(pool: Pool) -> Lease | None:
    """The lease as stored, held or run out; None without a state folder."""
    try:
        store = SqliteStore.read(pool.state, pool.name)
    except StoreUnusable:
        return None
    try:
        return store.load().lease
    finally:
        store.close()


def look(pool: Pool) -> Seen:
    """The daemon's status, or else the state folder's. Raises NoDaemon when neither has anything to tell."""
    document = fetch(pool)
    if document is not None:
        return Seen(document)
    from failover.host import RealHost

    kept = stored(pool, RealHost().now())
    if kept is None:
        raise NoDaemon(
            f"pool {pool.name}: no daemon answers at {pool.listen}, and {pool.state} has no state yet", START
        )
    return kept


START = "start it (systemctl start failover, or failover run)"


def absence(pool: Pool, seen: Seen) -> str:
    """The sentence that says that no daemon answers, and how old what is shown is."""
    held = (seen.document.get("decider") or {}).get("expires_in")
    what = "the daemon holds the lease, but does not answer" if held else "the daemon does not run"
    return f"{what} (nothing answers at {pool.listen}): this is {status.span(seen.age or 0.0)} old"
