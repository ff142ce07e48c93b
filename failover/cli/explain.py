"""``failover explain``: why it is as it is, what comes next, and how to do it by hand."""

from __future__ import annotations

import json
from typing import Any

import click

from failover import status
from failover.cli import byhand
from failover.cli.daemon import Seen, absence, look
from failover.cli.file import known_producer, loaded
from failover.config import Loaded
from failover.errors import FailoverError


@click.command("explain")
@click.option("--commands", is_flag=True, help="Print the handover by hand, ready to paste; needs no daemon.")
@click.option("--to", metavar="NAME", help="With --commands: to whom. Default: the first that is not active.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(ctx: click.Context, commands: bool, to: str | None, as_json: bool) -> None:
    """Say why this producer is active, which rule decides now and what each rule before it lacked, and what comes next.

    Exit status: 0; 2 the file is wrong; 3 neither a daemon nor its state is there (--commands works without).
    """
    found = loaded(ctx)
    if to is not None:
        known_producer(found.pool, to, ctx)
        if not commands:
            raise click.UsageError("--to is for --commands", ctx)
    if commands:
        lines = _by_hand(found, to)
        click.echo(json.dumps({"commands": lines}, indent=2) if as_json else "\n".join(lines))
        return
    seen = look(found.pool)
    if as_json:
        click.echo(json.dumps(_document(seen), indent=2))
        return
    if seen.age is not None:
        click.echo(absence(found.pool, seen), err=True)
    click.echo("\n".join(sentences(seen.document)))


def _by_hand(found: Loaded, to: str | None) -> list[str]:
    pool = found.pool
    if not pool.proxies:
        raise FailoverError(f"pool {pool.name} has no proxies: there is no gate that could be moved by hand")
    if to is None:
        try:
            active = look(pool).document["active"]
        except FailoverError:
            active = pool.preferred
        to = pool.others(active)[0]
    return byhand.commands(pool, to, byhand.secrets(found.path))


_KEYS = (
    "pool",
    "mode",
    "phase",
    "active",
    "target",
    "generation",
    "since",
    "cause",
    "reason",
    "requested_by",
    "paused",
    "pinned",
    "cordoned",
    "barred",
    "released",
    "isolated",
    "decision",
    "next",
    "drift",
)


def _document(seen: Seen) -> dict[str, Any]:
    picked = {key: seen.document[key] for key in _KEYS}
    return {**picked, "problems": status.problems(seen.document), "age": seen.age}


def sentences(doc: status.Document) -> list[str]:
    """The explanation, line by line."""
    lines = [status.headline(doc)]
    if doc["reason"]:
        by = f" It was asked for by {doc['requested_by']}." if doc["requested_by"] else ""
        lines.append(
            f"Why: {doc['reason']} ({doc['cause']}, generation {doc['generation']}, since {doc['since']}).{by}"
        )
    else:
        lines.append("Why: there is no assignment yet, so nothing is steered.")
    decision = doc["decision"]
    if decision:
        lines += ["", f"Decided now, by rule {decision['rule']} ({decision['title']}): {decision['reason']}."]
        if decision["lacked"]:
            lines.append("The rules before it did not apply:")
            lines.extend(f"  {lack['rule']:>2}. {lack['words']}" for lack in decision["lacked"])
    lines += ["", *_next(doc)]
    found = status.problems(doc)
    if found:
        lines += ["", "Not as it should be:", *(f"  {line}" for line in found)]
    return lines


def _next(doc: status.Document) -> list[str]:
    if doc["next"]:
        return [
            f"Next, should nothing change: {n['action']} in {status.span(n['in_seconds'])} (at {n['at']}); "
            f"it waits for {n['waits_for']}."
            for n in doc["next"]
        ]
    if doc["paused"]:
        return ["Next: nothing by itself; it is paused."]
    if doc["released"]:
        return ["Next: nothing; it is released. failover resume steers again."]
    if doc["phase"] not in (None, "steady"):
        return [f"Next: {doc['target']} is let in once everyone else is confirmed closed."]
    return ["Next: nothing, as long as nothing changes."]
