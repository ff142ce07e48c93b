"""``failover switchover``: move the role to a producer in order, and pin it there."""

from __future__ import annotations

import sys

import click

from failover import status
from failover.cli.daemon import fetch
from failover.cli.file import Duration, known_producer, loaded
from failover.cli.request import Wish, ask, confirm, require_daemon
from failover.model import GateKind, Pool, Verb
from failover.signposts import NODE_MOST

WAIT = 120.0  # seconds, by default


@click.command("switchover")
@click.option("--to", "to", metavar="NAME", required=True, help="The producer that is to be active.")
@click.option("--reason", default="", metavar="TEXT", help="Why; for the journal.")
@click.option("--for", "seconds", type=Duration(), help="How long the role stays pinned there. Default: until unpin.")
@click.option("--force", is_flag=True, help="Also to an unfit or cordoned producer, and past silent proxies.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; ask for nothing.")
@click.option("--no-wait", is_flag=True, help="Return once it is asked for.")
@click.option("--timeout", type=Duration(), default=WAIT, show_default=True, help="How long to wait.")
@click.option("--yes", is_flag=True, help="Do not ask whether it is meant; needed without a terminal.")
@click.pass_context
def command(
    ctx: click.Context,
    to: str,
    reason: str,
    seconds: float | None,
    force: bool,
    dry_run: bool,
    no_wait: bool,
    timeout: float,
    yes: bool,
) -> None:
    """Move the role to a producer: close the others everywhere, see them closed, then open it everywhere.

    The role stays pinned there until unpin, or for --for; on the preferred producer no pin is left. An unfit target is
    refused without --force. Without a terminal, --yes is needed.

    Exit status: 0 done; 1 refused or failed (says why); 2 usage; 3 no daemon runs (nothing was asked for).
    """
    pool = loaded(ctx).pool
    known_producer(pool, to, ctx)
    generation = require_daemon(pool)
    document = fetch(pool)
    if dry_run:
        sys.exit(_rehearse(pool, document, to, force))
    if document is not None:
        click.echo(status.headline(document))
    confirm(f"Move the role to {to}?", yes=yes, ctx=ctx)
    wish = Wish(Verb.SWITCHOVER, to, reason, seconds, force)
    sys.exit(ask(pool, wish, wait=None if no_wait else timeout, generation=generation))


def _rehearse(pool: Pool, document: status.Document | None, to: str, force: bool) -> int:
    """Print what would be done, as far as the daemon's status shows; the exit status that it would have."""
    if document is None:
        click.echo("the daemon is restarting: nothing can be said now", err=True)
        return 1
    why = refusals(document, to, force=force)
    if why:
        click.echo(f"would be refused: {'; '.join(why)}")
        return 1
    if document["active"] == to and document["phase"] == "steady":
        click.echo(f"{to} is the active producer already: nothing would be done, but the pin")
        return 0
    for line in plan(pool, document, to):
        click.echo(line)
    return 0


def refusals(document: status.Document, to: str, *, force: bool) -> list[str]:
    """Why the daemon would refuse a switchover now, as far as its status shows; the daemon has the last word."""
    target = next(p for p in document["producers"] if p["name"] == to)
    if document["phase"] is None:
        return ["there is no assignment yet: failover adopt NAME"]
    if document["mode"] != "act":
        return [f"mode: {document['mode']}, nothing is moved"]
    if document["released"]:
        return ["the pool is released: failover resume first"]
    if document["isolated"]:
        return ["nothing outside answers, so nothing is moved"]
    stuck = _immovable(document)
    if force:
        found = [f"{to} is down: it would be left again at once"] if target["health"] == "down" else []
        return found + (stuck[:1] if len(stuck) == len(document["records"]) else [])
    found = []
    if document["phase"] != "steady":
        found.append(f"a handover to {document['target']} is under way")
    if any(held["producer"] == to for held in document["cordoned"]):
        found.append(f"{to} is cordoned")
    if target["fit"] is not True:
        found.append(f"{to} is not fit ({target['health']}: {target['detail']})")
    found.extend(f"{p['name']} does not answer" for p in document["proxies"] if not p["reachable"])
    found.extend(f"{g['name']} does not answer" for g in _own(document) if _holds_up(g, to, document))
    return found + stuck


def _own(document: status.Document) -> list[dict[str, object]]:
    """Gates on producers' own hosts that go with the role: power does not."""
    return [g for g in document["gates"] if g["proxy"] is None and g["kind"] != GateKind.POWER.value]


def _holds_up(gate: dict[str, object], to: str, document: status.Document) -> bool:
    """Whether a voluntary handover waits for this silent gate.

    A standby's that was last seen shut holds up nobody, unless all is to be confirmed.
    """
    if gate["reachable"]:
        return False
    strict = document["fence"] == "confirmed"
    return strict or gate["producer"] in (to, document["active"]) or gate["last_open"] is not False


def _immovable(document: status.Document) -> list[str]:
    """Records that could not be moved; beside proxies nobody waits for them."""
    if not status.gateless(document):
        return []
    stuck = [record for record in document["records"] if not record["readable"] or record["error"]]
    return [f"{record['name']}: {record['error'] or 'its provider was not read yet'}" for record in stuck]


def plan(pool: Pool, document: status.Document, to: str) -> list[str]:
    """The steps of the handover in their order, as sentences."""
    pin = f"leave the role pinned to {to}" if to != pool.preferred else "leave no pin"
    lines = _without_gates(pool, to) if pool.gateless else _through_gates(pool, document, to)
    lines.append(f"steady: {to} is active; {pin}")
    if pool.gateless and document["active"] is not None:
        old, ttl = document["active"], max(record.ttl for record in pool.records)
        late = f"{status.span(ttl + NODE_MOST)} after the last server has dropped it at worst"
        lines.append(f"afterwards, by hand: restart {old}'s node once no relay looks it up any more ({late})")
    return [f"{number}. {line}" for number, line in enumerate(lines, 1)]


def _through_gates(pool: Pool, document: status.Document, to: str) -> list[str]:
    gates = [g for g in document["gates"] if g["kind"] != GateKind.POWER.value]  # a failure alone switches off
    closing = [g["name"] for g in gates if g["producer"] != to and g["open"] is not False]
    opening = [g["name"] for g in gates if g["producer"] == to and g["open"] is not True]
    own = list(dict.fromkeys(f"{g['producer']}@{g['kind']}" for g in _own(document) if g["producer"] != to))
    seen = [f"closed, without a session, in {', '.join(p.name for p in pool.proxies)}"] if pool.proxies else []
    seen += [f"confirmed closed by {' and '.join(own)}"] if own else []
    ending = " and end the sessions there" if pool.proxies else ""
    lines = [
        f"fencing: close {', '.join(closing) or 'nothing'}{ending}",
        f"see everyone but {to} {'; or '.join(seen)}",
        f"promoting: open {', '.join(opening) or 'nothing'}",
    ]
    if pool.records:
        lines.append(f"at the same time, {_pointing(pool, to)}; nobody waits for it")
    return [*lines, f"see {to} served"]


def _without_gates(pool: Pool, to: str) -> list[str]:
    others = " and ".join(pool.others(to))
    return [
        f"fencing: nothing: there is no gate, and {others} may go on reaching relays that are connected to it",
        f"promoting: {_pointing(pool, to)}",
        "see it accepted by the provider of each; relays follow in their own time",
    ]


def _pointing(pool: Pool, to: str) -> str:
    return " and ".join(f"point {record.label} to {to} ({record.targets[to]})" for record in pool.records)
