"""``failover status``: the pool at a glance."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import TYPE_CHECKING

import click

from failover import status
from failover.cli.daemon import START, Seen, absence, look
from failover.cli.file import loaded

if TYPE_CHECKING:
    from rich.console import RenderableType

    from failover.model import Pool

EVERY = 1.0  # seconds between two pictures of --watch


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--watch", is_flag=True, help="Keep it up to date, on a terminal; Ctrl-C ends it.")
@click.pass_context
def command(ctx: click.Context, as_json: bool, watch: bool) -> None:
    """Show the pool at a glance: from the daemon, or from the state folder when the daemon does not run.

    Exit status: 0 steady; 1 not steady, or something differs, or two producers are reachable; 2 the file is wrong;
    3 the daemon does not run (what it left is shown, with its age).
    """
    if watch and (as_json or not sys.stdout.isatty()):
        raise click.UsageError("--watch needs a terminal, and no --json; for a pipe, call status again and again", ctx)
    pool = loaded(ctx).pool
    if watch:
        _watch(pool)
    seen = look(pool)
    if as_json:
        click.echo(json.dumps(seen.as_json(), indent=2))
    elif sys.stdout.isatty():
        _console().print(status.picture(seen.document))
    else:
        click.echo(status.text(seen.document), nl=False)
    if seen.age is not None:
        click.echo(f"{absence(pool, seen)}\n  {START}", err=True)
    sys.exit(exit_status(seen))


def exit_status(seen: Seen) -> int:
    """0 steady, 1 not, 3 the daemon does not run."""
    if seen.age is not None:
        return 3
    return 1 if status.problems(seen.document) else 0


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, no_color="NO_COLOR" in os.environ, soft_wrap=False)


def _watch(pool: Pool) -> None:
    from rich.live import Live

    pause = threading.Event()
    with Live(console=_console(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(_frame(pool), refresh=True)
            pause.wait(EVERY)


def _frame(pool: Pool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from failover.errors import FailoverError

    try:
        seen = look(pool)
    except FailoverError as error:
        return Text(f"{error}\n{error.mend}", "red")
    parts = [status.picture(seen.document)]
    if seen.age is not None:
        parts.append(Text(absence(pool, seen), "bold red"))
    return Group(*parts)


if TYPE_CHECKING:
    from rich.console import Console
