"""What an operator asks of the daemon: appended to the store, then waited for, with every step on the way.

Only the daemon changes phases. A request carries the generation that the operator saw and expires, so that one which
comes too late does nothing.
"""

from __future__ import annotations

import getpass
import os
import platform
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from failover.cli import INTERRUPTED
from failover.cli.daemon import START, NoDaemon, fetch, lease_of
from failover.errors import FailoverError, StoreUnusable
from failover.host import RealHost
from failover.journal import iso, plain
from failover.model import BEGIN_WITHIN, KICK, POINT, Answer, Event, EventKind, Pool, Request, RequestState, Verb
from failover.store.sqlite import FILE, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from failover.model import Instant

LATE = 2.0  # seconds after its expiry within which the daemon may still be writing its answer
POLL = 0.2  # seconds
LOOKS = 25  # polls without an answer between looks at whether the daemon can answer at all
ROWS = 500  # journal rows that are read at a time
_TOLD = (EventKind.PHASE_CHANGED, EventKind.STEP_DONE, EventKind.STEP_FAILED)
_WAITING = (RequestState.PENDING, RequestState.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked, as the command line says it."""

    verb: Verb
    producer: str | None = None
    reason: str = ""
    seconds: float | None = None
    force: bool = False


def ask(pool: Pool, wish: Wish, *, wait: float | None, generation: int | None) -> int:
    """Submit the wish and, unless ``wait`` is None, wait so many seconds for what becomes of it; the exit status.

    ``generation`` is the one that the operator saw; None: any. Raises NoDaemon, StoreError.
    """
    host = RealHost()
    now = host.now()
    if not (pool.state / FILE).exists():
        raise StoreUnusable(f"{pool.state / FILE}: is gone, though a daemon runs", "restart the daemon")
    store = SqliteStore(pool.state, pool=pool.name, boot=now.boot, clock=host.now, check=False)
    try:
        request = _request(wish, host.new_id(), now, generation)
        store.submit(request)
        if wait is None:
            click.echo(f"asked for; it stands until {iso(request.expires.utc)} (request {request.id})")
            return 0
        try:
            answer = _wait(pool, store, request, wait, host.now)
        except KeyboardInterrupt:
            click.echo(
                f"\nno longer waiting; the request stands until {iso(request.expires.utc)}, and what it began goes on\n"
                "  look with: failover status; failover history --follow",
                err=True,
            )
            return INTERRUPTED
    finally:
        store.close()
    return _end(request, answer, wait)


def require_daemon(pool: Pool) -> int | None:
    """See that somebody is there to answer; the generation that it shows, or None when it is only restarting.

    Raises NoDaemon: then nothing was asked.
    """
    document = fetch(pool)
    if document is not None:
        return int(document["generation"])
    lease, now = lease_of(pool), RealHost().now()
    alive = lease is not None and lease.holder and lease.expires.boot == now.boot and not lease.expires.reached(now)
    if not alive:
        raise NoDaemon(
            f"pool {pool.name}: no daemon runs (nothing answers at {pool.listen}, and nobody holds the lease); "
            "nothing was asked for",
            START,
        )
    return None


def confirm(question: str, *, yes: bool, ctx: click.Context) -> None:
    """Ask the person at the terminal. Without a terminal only ``--yes`` will do. Raises UsageError, Abort."""
    from failover.cli.file import interactive

    if yes:
        return
    if not interactive():
        raise click.UsageError("not at a terminal, so nobody can be asked: add --yes", ctx)
    click.confirm(question, abort=True)


def operator() -> str:
    """Who asks, as the journal will show it: user@host; the one who called sudo rather than root."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{platform.node()}"


def _request(wish: Wish, id_: str, now: Instant, generation: int | None) -> Request:
    return Request(
        id=id_,
        verb=wish.verb,
        at=now,
        expires=now.after(BEGIN_WITHIN),
        by=operator(),
        producer=wish.producer,
        reason=wish.reason,
        seconds=wish.seconds,
        force=wish.force,
        generation=generation,
    )


def _wait(pool: Pool, store: SqliteStore, request: Request, seconds: float, clock: Callable[[], Instant]) -> Answer:
    """The last word on the request, or the present one when ``seconds`` are over; tells the journal meanwhile."""
    pause, seen = threading.Event(), 0
    began, turn = clock(), 0
    while clock().since(began) < seconds:
        turn += 1
        answer = store.answer(request.id)
        for entry in store.history(after=seen, since_utc=request.at.utc, limit=ROWS):
            seen = entry.id
            if entry.event.kind in _TOLD and not (answer and answer.state is RequestState.PENDING):
                click.echo(plain(progress(entry.event)))
        if answer is not None and answer.state not in _WAITING:
            return answer
        if answer is not None and answer.state is RequestState.PENDING and clock().since(request.expires) > LATE:
            return Answer(request.id, RequestState.EXPIRED, "no daemon took it up within its time: it will not be run")
        if answer is not None and answer.state is RequestState.PENDING and turn % LOOKS == 0:
            trouble = (fetch(pool) or {}).get("store_error")
            if trouble:  # it cannot even write its refusal
                return Answer(request.id, RequestState.PENDING, f"its state folder: {trouble}")
        pause.wait(POLL)
    return store.answer(request.id) or Answer(request.id, RequestState.PENDING, "")


def progress(event: Event) -> str:
    """One line of progress: a phase or a step, and what became of it."""
    detail = event.detail
    if event.kind is EventKind.PHASE_CHANGED:
        active, target = detail.get("active"), detail.get("target")
        words = {
            "fencing": f"fencing everyone but {target}",
            "promoting": f"promoting {target}",
            "steady": f"steady: {active} is active",
        }.get(str(detail.get("phase")), str(detail.get("phase")))
        return f"{words} ({event.reason})"
    kind, part = detail.get("kind"), detail.get("gate") or detail.get("record") or detail.get("relay")
    if event.kind is EventKind.STEP_DONE and detail.get("result") == "sent":
        if kind == POINT:
            return f"  pointed {part} to {event.producer}: its provider has accepted it"
        if kind == KICK:
            return f"  ended sessions of {part} with {event.producer}"
        return f"  {'opened' if kind == 'open' else 'closed'} {part}"
    return f"  {kind} {part}: {detail.get('result')}: {event.reason}"


def _end(request: Request, answer: Answer, waited: float) -> int:
    if answer.state is RequestState.DONE:
        click.echo(plain(answer.text))
        return 0
    sys.stdout.flush()
    if answer.state is RequestState.ACCEPTED:
        raise FailoverError(f"not done within {waited:g} s: the handover goes on", "look with: failover status")
    if answer.state is RequestState.PENDING:
        until = iso(request.expires.utc)
        trouble = f" ({answer.text})" if answer.text else ""
        words = f"not done within {waited:g} s: the daemon has not answered{trouble}; it may still do so until {until}"
        raise FailoverError(words, "look with: failover status")
    raise FailoverError(plain(f"{answer.state.value}: {answer.text}"), "")
