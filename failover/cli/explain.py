"""``failover explain``: why it is as it is, what comes next, and how to do it by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from failover import signposts, status
from failover.cli import byhand
from failover.cli.daemon import Seen, absence, look
from failover.cli.file import known_producer, loaded
from failover.config import Loaded
from failover.errors import FailoverError
from failover.model import RRset, record_type


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
    try:
        seen: Mapping[str, Any] | None = look(pool).document
    except FailoverError:
        seen = None
    if to is None:
        to = pool.others(pool.preferred if seen is None else seen["active"])[0]
    held = {} if seen is None else {r["name"]: _held(r) for r in seen["records"] if _known(r)}
    return byhand.commands(pool, to, byhand.secrets(found.path), byhand.keys(found.path), held)


def _known(record: Mapping[str, Any]) -> bool:
    """Whether its provider was read, and what it holds can stand in a command."""
    plain = all(re.fullmatch(r"[\w.:-]+", value, re.ASCII) for value in record["provider_value"])
    return plain and bool(record["readable"]) and not record["error"]


def _held(record: Mapping[str, Any]) -> RRset | None:
    """What the provider last said that it holds."""
    values = tuple(record["provider_value"])
    return RRset(record_type(values[0]), values, record["ttl"]) if values else None


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
    "fence",
    "exposed",
    "records",
)


def _document(seen: Seen) -> dict[str, Any]:
    picked = {key: seen.document.get(key) for key in _KEYS}
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
    if doc["records"]:
        lines += ["", *_records(doc)]
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
        if doc["fence"] == "none":
            return [f"Next: a record is pointed to {doc['target']}."]
        return [f"Next: {doc['target']} is let in once everyone else is confirmed closed."]
    return ["Next: nothing, as long as nothing changes."]


# ---------------------------------------------------------------- records


def _records(doc: status.Document) -> Iterator[str]:
    """What each record says, what is waited for, and until when relays may believe otherwise."""
    for record in doc["records"]:
        yield f"{record['name']} {_points(record)}."
        yield from (f"  {line}." for line in (*_servers(record), *_waits(record)))
        yield from (f"  {line}" for belief in record["believed"] for line in _believed(belief))
    yield from (f"Exposed since {exposed['since']}: {exposed['producer']}. {_EXPOSED}" for exposed in doc["exposed"])
    if not status.gateless(doc):
        yield _BEHIND_GATES
    else:
        yield _LET_GO if any(relay["managed"] for relay in doc["relays"]) else _NO_GATE


_BEHIND_GATES = "No handover waits for any of this: the proxies move the role, and records follow."
_NO_GATE = (
    "A handover is over once the provider has accepted the change. Nobody waits for what relays believe, nothing makes "
    "them follow sooner, and nothing shuts the other producer out."
)
_LET_GO = (
    "A handover is over once the provider has accepted the change. Managed relays are made to let go of the other "
    "producer one at a time, and again for as long as they may look it up; nothing else shuts it out."
)
_EXPOSED = (
    "The role has left it, and relays may still be connected to it: a node keeps a connection whose name has moved. "
    "It ends when its port is seen to refuse, at a time when no relay looks it up any more: restart its node then. "
    "Where every relay is managed, it also ends once none of them has a session with it then."
)


def _points(record: Mapping[str, Any]) -> str:
    value = ", ".join(record["provider_value"])
    if record["readable"] is None:
        return f"was not read yet; the last that is known is {value}" if value else "was not read yet"
    if not record["readable"]:
        return f"cannot be read ({record['error'] or 'no answer'}); the last that is known is {value or 'nothing'}"
    held = f"points to {status.pointed(record)}, TTL {record['ttl']}" if value else "holds nothing"
    if record["error"]:
        return f"is not ours to change: {record['error']}"
    if record["failure"]:
        return f"{held}, and cannot be changed: {record['failure']}"
    if record["in_sync"]:
        return f"{held}, as it should{_accepted(record)}"
    wanted = ", ".join(record["wanted"])
    return f"{held}; it should hold {wanted}" if wanted and record["pending_since"] is None else held


def _accepted(record: Mapping[str, Any]) -> str:
    accepted, insync = record["accepted_at"], record["insync_at"]
    words = f"; its provider accepted it at {accepted}" if accepted else ""
    return f"{words} and had it everywhere at {insync}" if accepted and insync not in (None, accepted) else words


def _servers(record: Mapping[str, Any]) -> Iterator[str]:
    answers = record["answers"]
    if record["verify_error"]:
        yield f"What the world is told cannot be seen: {record['verify_error']}"
    elif answers:
        agree = sum(answer["agrees"] is True for answer in answers)
        since = f", since {record['verified_at']}" if record["verified_at"] else ""
        yield f"{agree} of {len(answers)} servers agree with that{since}"
    for answer in answers:
        if answer["fault"]:
            yield f"{answer['server']} is {answer['fault']}: {answer['error'] or 'no answer'}; it is not waited for"


def _waits(record: Mapping[str, Any]) -> Iterator[str]:
    waits = []
    if record["pending_since"]:
        what = "to be on every server of its provider (INSYNC)" if record["accepted_at"] else "to be answered"
        waits.append(f"the change, under way for {status.span(record['pending_seconds'])}, {what}")
    waits.extend(
        f"{answer['server']}, which says {status.pointed(answer)}, TTL {answer['ttl'] or '-'}"
        for answer in record["answers"]
        if answer["agrees"] is False
    )
    if waits:
        yield f"Waited for: {'; '.join(waits)}"
    if record["contested_until"]:
        until = record["contested_until"]
        yield f"Another hand keeps changing it: until {until} only a handover changes it, unless that goes on"


def _believed(belief: Mapping[str, Any]) -> Iterator[str]:
    """The time, and how it is made up."""
    near = belief["replaced_at"]
    usually, worst = (status.clock(belief[key], near) for key in ("usually_until", "at_worst_until"))
    yield f"A relay may still hold {status.pointed(belief)}: until {usually} as a rule, until {worst} at worst."
    if belief["settled"]:
        spread = status.span(_seconds(belief["gone_at"]) - _seconds(near))
        begins = f"no server says so any more since {status.clock(belief['gone_at'], near)}, {spread} after the change"
    elif belief["told_by"]:
        says = "says" if len(belief["told_by"]) == 1 else "say"
        begins = f"counted from now on, for {' and '.join(belief['told_by'])} still {says} so"
    else:
        begins = "counted from now on, for no server was looked at since"
    least, most = signposts.NODE_LEAST, signposts.NODE_MOST
    yield f"  That is: {begins}; a resolver may keep it for {belief['ttl']} s; then comes the node's own"
    yield f"  delay, {least:g} s as a rule, {most:g} s where its resolver answered with no time left."


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
