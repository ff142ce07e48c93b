"""``adopt`` and ``release``: take a pool over, and let go of it."""

from __future__ import annotations

import sys

import click

from failover.cli.file import Duration, known_producer, loaded
from failover.cli.request import Wish, ask, confirm, require_daemon
from failover.model import Verb

WAIT = 30.0  # seconds

_reason = click.option("--reason", default="", metavar="TEXT", help="Why; for the journal.")
_no_wait = click.option("--no-wait", is_flag=True, help="Return once it is asked for.")
_timeout = click.option("--timeout", type=Duration(), default=WAIT, show_default=True, help="How long to wait.")
_yes = click.option("--yes", is_flag=True, help="Do not ask whether it is meant; needed without a terminal.")


@click.command("adopt")
@click.argument("name")
@_reason
@_no_wait
@_timeout
@_yes
@click.pass_context
def adopt(ctx: click.Context, name: str, reason: str, no_wait: bool, timeout: float, yes: bool) -> None:
    """Say that NAME is the active producer: at a first start, or when the assignment was lost or released.

    The others are closed then. Refused while there is an assignment: use switchover. Exit status: 0; 1 refused; 2
    usage; 3 no daemon runs.
    """
    pool = loaded(ctx).pool
    known_producer(pool, name, ctx)
    require_daemon(pool)
    confirm(f"Let {name} be the active producer of {pool.name}, and close all others?", yes=yes, ctx=ctx)
    sys.exit(ask(pool, Wish(Verb.ADOPT, name, reason), wait=None if no_wait else timeout, generation=None))


@click.command("release")
@_reason
@_no_wait
@_timeout
@_yes
@click.pass_context
def release(ctx: click.Context, reason: str, no_wait: bool, timeout: float, yes: bool) -> None:
    """Stop steering, and leave every gate as it stands, until resume (or adopt).

    Observing goes on; nothing fails over. Exit status: 0; 1 failed; 2 usage; 3 no daemon runs.
    """
    pool = loaded(ctx).pool
    require_daemon(pool)
    confirm(f"Stop steering {pool.name}? Nothing fails over then.", yes=yes, ctx=ctx)
    sys.exit(ask(pool, Wish(Verb.RELEASE, None, reason), wait=None if no_wait else timeout, generation=None))
