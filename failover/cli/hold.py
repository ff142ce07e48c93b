"""``pause resume pin unpin cordon uncordon``: restrictions on what the daemon does by itself."""

from __future__ import annotations

import sys

import click

from failover.cli.file import Duration, known_producer, loaded
from failover.cli.request import Wish, ask, require_daemon
from failover.model import Verb

WAIT = 30.0  # seconds; the daemon answers within one or two

_for = click.option("--for", "seconds", type=Duration(), help="How long. Default: until it is ended by hand.")
_reason = click.option("--reason", default="", metavar="TEXT", help="Why; for the journal.")
_no_wait = click.option("--no-wait", is_flag=True, help="Return once it is asked for.")
_timeout = click.option("--timeout", type=Duration(), default=WAIT, show_default=True, help="How long to wait.")


def _ask(ctx: click.Context, wish: Wish, no_wait: bool, timeout: float) -> None:
    """These hold for whatever generation it is: they move nothing, or only in order."""
    pool = loaded(ctx).pool
    if wish.producer is not None:
        known_producer(pool, wish.producer, ctx)
    require_daemon(pool)
    sys.exit(ask(pool, wish, wait=None if no_wait else timeout, generation=None))


@click.command("pause")
@_for
@_reason
@_no_wait
@_timeout
@click.pass_context
def pause(ctx: click.Context, seconds: float | None, reason: str, no_wait: bool, timeout: float) -> None:
    """Take no automatic steps until resume, or for --for. A handover that runs is finished first.

    Observing and alerting go on, and switchover by hand works. Exit status: 0; 1 failed; 3 no daemon runs.
    """
    _ask(ctx, Wish(Verb.PAUSE, None, reason, seconds), no_wait, timeout)


@click.command("resume")
@_reason
@_no_wait
@_timeout
@click.pass_context
def resume(ctx: click.Context, reason: str, no_wait: bool, timeout: float) -> None:
    """Steer again: ends pause and release. Exit status: 0; 1 failed; 3 no daemon runs."""
    _ask(ctx, Wish(Verb.RESUME, None, reason), no_wait, timeout)


@click.command("pin")
@click.argument("name")
@_for
@_reason
@_no_wait
@_timeout
@click.pass_context
def pin(ctx: click.Context, name: str, seconds: float | None, reason: str, no_wait: bool, timeout: float) -> None:
    """No failback away from NAME; it still fails over when NAME is down.

    Moves nothing: for that, use switchover. Exit status: 0; 1 failed; 2 usage; 3 no daemon runs.
    """
    _ask(ctx, Wish(Verb.PIN, name, reason, seconds), no_wait, timeout)


@click.command("unpin")
@_reason
@_no_wait
@_timeout
@click.pass_context
def unpin(ctx: click.Context, reason: str, no_wait: bool, timeout: float) -> None:
    """End the pin: failback may come again, in its time. Exit status: 0; 1 failed; 3 no daemon runs."""
    _ask(ctx, Wish(Verb.UNPIN, None, reason), no_wait, timeout)


@click.command("cordon")
@click.argument("name")
@_for
@_reason
@_no_wait
@_timeout
@click.pass_context
def cordon(ctx: click.Context, name: str, seconds: float | None, reason: str, no_wait: bool, timeout: float) -> None:
    """NAME is under maintenance: never a target. If it is active, the role moves to another fit producer first.

    That handover follows by itself; see it with failover status. Exit status: 0; 1 failed; 2 usage; 3 no daemon runs.
    """
    _ask(ctx, Wish(Verb.CORDON, name, reason, seconds), no_wait, timeout)


@click.command("uncordon")
@click.argument("name")
@_reason
@_no_wait
@_timeout
@click.pass_context
def uncordon(ctx: click.Context, name: str, reason: str, no_wait: bool, timeout: float) -> None:
    """End the cordon of NAME. Exit status: 0; 1 failed; 2 usage; 3 no daemon runs."""
    _ask(ctx, Wish(Verb.UNCORDON, name, reason), no_wait, timeout)
