"""``failover history``: the journal, read-only."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import click

from failover import journal
from failover.cli.file import loaded
from failover.host import RealHost
from failover.model import JournalEntry
from failover.store.sqlite import SqliteStore

PAGE = 1000  # rows that are read at a time
MOST = 10_000_000  # rows that one call prints at most
POLL = 0.5  # seconds between looks with --follow
SHOWN = 50  # rows without --since


@click.command("history")
@click.option("--since", metavar="WHEN", help="From then on: a duration back from now (2h), or a time in ISO-8601.")
@click.option("--limit", type=click.IntRange(1), metavar="ROWS", help=f"The last ROWS at most.  [default: {SHOWN}]")
@click.option("--follow", "-f", is_flag=True, help="Go on printing what comes; Ctrl-C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def command(ctx: click.Context, since: str | None, limit: int | None, follow: bool, as_json: bool) -> None:
    """Print decisions and steps with their reasons, oldest first: the last 50, or all of --since.

    Reads the state folder, so it also works when the daemon does not run. Exit status: 0; 1 the state folder cannot be
    read; 2 usage.
    """
    pool = loaded(ctx).pool
    try:
        start = 0.0 if since is None else journal.since(since, RealHost().now().utc)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}", ctx) from None
    store = SqliteStore.read(pool.state, pool.name)
    try:
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
