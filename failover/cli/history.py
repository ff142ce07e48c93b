"""``failover history``: the journal, read-only; with ``--incident`` the report of one split brain."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import click

from failover import incidents, journal
from failover.cli.file import loaded
from failover.errors import FailoverError
from failover.host import RealHost
from failover.model import EventKind, JournalEntry
from failover.store.sqlite import SqliteStore

PAGE = 1000  # rows that are read at a time
MOST = 10_000_000  # rows that one call prints at most
POLL = 0.5  # seconds between looks with --follow
SHOWN = 50  # rows without --since
LAST = 10  # incidents that are named when there is none of a number


@click.command("history")
@click.option("--since", metavar="WHEN", help="From then on: a duration back from now (2h), or a time in ISO-8601.")
@click.option("--limit", type=click.IntRange(1), metavar="ROWS", help=f"The last ROWS at most.  [default: {SHOWN}]")
@click.option("--follow", "-f", is_flag=True, help="Go on printing what comes; Ctrl-C ends it.")
@click.option(
    "--incident",
    type=click.IntRange(1),
    metavar="N",
    help="The report of split brain number N instead: when, what allowed it, which gates, how long, what was done.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def command(
    ctx: click.Context, since: str | None, limit: int | None, follow: bool, incident: int | None, as_json: bool
) -> None:
    """Print decisions and steps with their reasons, oldest first: the last 50, or all of --since.

    Reads the state folder, so it also works when the daemon does not run. The number of a split brain is in the rows
    split-brain and split-brain-healed (--json), and in its alerts. Exit status: 0; 1 the state folder cannot be read,
    or there is no such incident; 2 usage.
    """
    if incident is not None and (since is not None or limit is not None or follow):
        raise click.UsageError("--incident goes with --json alone", ctx)
    pool = loaded(ctx).pool
    try:
        start = 0.0 if since is None else journal.since(since, RealHost().now().utc)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}", ctx) from None
    store = SqliteStore.read(pool.state, pool.name)
    try:
        if incident is not None:
            found = _incident(store, incident)
            click.echo(json.dumps(found) if as_json else incidents.text(found))
            return
        shown = limit if limit is not None else SHOWN if since is None else MOST
        seen = 0
        for entry in _rows(store, start, shown):
            seen = entry.id
            _print(entry, as_json)
        if follow:
            _follow(store, max(seen, last_id(store)), as_json)
    finally:
        store.close()


def last_id(store: SqliteStore) -> int:
    """The id of the newest row, 0 for none; by halving, for ids have no gaps and looking for one row is cheap."""
    low, step = 0, 1
    while store.history(after=low + step - 1, limit=1):
        low, step = low + step, step * 2
    while step > 1:
        step //= 2
        if store.history(after=low + step - 1, limit=1):
            low += step
    return low


def _incident(store: SqliteStore, number: int) -> dict[str, Any]:
    """The report of one incident. Raises FailoverError, with the last known numbers, when there is none."""
    ledger = incidents.restore(store.load().timers.get("incidents"))
    if ledger.open is not None and ledger.open.number == number:
        assignment, now = store.load().assignment, RealHost().now()
        active = None if assignment is None else assignment.active
        seen = incidents.Now(now, ledger.open.generation, active, decides=False)
        return incidents.document(incidents.report(ledger.open, seen), over=False)
    known: list[int] = [] if ledger.open is None else [ledger.open.number]
    for entry in _backwards(store):
        event = entry.event
        found = event.detail.get("incident")
        if event.kind not in (EventKind.SPLIT_BRAIN, EventKind.SPLIT_BRAIN_HEALED) or not isinstance(found, int):
            continue
        if found == number and event.kind is EventKind.SPLIT_BRAIN_HEALED:
            return incidents.document(event.detail, over=True, ended=journal.iso(event.at.utc))
        if found == number:
            return incidents.document(incidents.unreported(event), over=None)
        if found not in known:
            known.append(found)
        if found < number and len(known) >= LAST:
            break
    numbers = ", ".join(str(n) for n in sorted(known)[-LAST:])
    there = f"the last ones are {numbers}" if numbers else "the journal knows of no split brain"
    raise FailoverError(
        f"there is no incident {number}: {there}", "failover history --since 30d shows all that is kept"
    )


def _backwards(store: SqliteStore) -> Iterator[JournalEntry]:
    """All rows, newest first, a page at a time."""
    after = last_id(store)
    while after > 0:
        start = max(0, after - PAGE)
        yield from reversed(store.history(after=start, limit=after - start))
        after = start


def _rows(store: SqliteStore, since_utc: float, limit: int) -> Iterator[JournalEntry]:
    """The last ``limit`` rows that are not older than ``since_utc``."""
    after = max(0, last_id(store) - limit)
    for _ in range(MOST // PAGE):
        page = store.history(after=after, since_utc=since_utc, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].id


def _follow(store: SqliteStore, seen: int, as_json: bool) -> None:
    pause = threading.Event()
    while True:
        for entry in store.history(after=seen, limit=PAGE):
            seen = entry.id
            _print(entry, as_json)
        pause.wait(POLL)


def _print(entry: JournalEntry, as_json: bool) -> None:
    click.echo(json.dumps(journal.document(entry)) if as_json else journal.line(entry.event))
