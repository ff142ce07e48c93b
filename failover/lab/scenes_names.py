"""The story of a pool without any gate: a DNS record says where to connect, and nothing shuts anybody out.

Its scenes in their order; each does something, then checks it from outside.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from failover.journal import iso
from failover.lab.acts import (
    BACKUP,
    CALM,
    HANDOVER,
    MAIN,
    Story,
    answers,
    ask_for_switchover,
    calm,
    reached,
    record_follows,
    since,
    steady_status,
    switchover,
)
from failover.lab.pool import RECORD, ROUTE53, TTL
from failover.lab.sessions import overlaps
from failover.lab.story import (
    ACTION_TIMEOUT,
    ANSWERED,
    CHANGE,
    DNS,
    INSYNC,
    PINGED,
    PROVIDER,
    RELAYS,
    SLACK,
    Provider,
    Stage,
    plan,
)
from failover.lab.verdict import Verdict, gateless, never_empty
from failover.model import PolicySettings
from failover.signposts import NODE_LEAST, NODE_MOST
from failover.status import span

LATE = 2 * ACTION_TIMEOUT + 2.0  # seconds; the next controller has acted by then
STRANGER = "127.0.0.99"  # where nobody listens


async def steady(stage: Stage) -> None:
    """The controller starts, and adopts whom the record points to."""
    began = stage.now()
    pid = stage.daemon.start()
    stage.say(f"The controller starts (pid {pid}). Nobody tells it who is active; {RECORD} points to main.")
    said = await steady_status(stage)
    stage.took("adopted", stage.now() - began)
    stage.need(said.status == 0, "it finds out by the record, and `failover status` exits 0", ANSWERED, said.first)
    there = await stage.until(lambda: stage.all_with(MAIN), HANDOVER)
    stage.need(there, "every relay has looked the name up, and is with main", RELAYS, reached(stage))
    stage.claim(stage.names.all_say(MAIN), "every DNS server says main", DNS, answers(stage))
    await calm(stage, CALM)
    asked = await stage.provider()
    stage.claim(not asked.changes, "nothing was changed to find that out", PROVIDER, str(asked))
    stage.scene.result = "main is active, nothing moves"


async def dies(stage: Stage) -> None:
    """main's process dies; after patience the record moves, and relays follow it by themselves."""
    patience, before = stage.times.fail_over_after, await stage.provider()
    began = stage.now()
    stage.kill(MAIN)
    stage.say(
        "main dies (SIGKILL): its port refuses, and its sessions die with it. The record may move after "
        f"{patience:g} s, not sooner."
    )
    refused = await stage.until_so(partial(_refuses, stage, MAIN), 0.0)
    stage.claim(refused, "main takes no connection any more", PINGED)
    moved = await stage.until(lambda: stage.all_with(BACKUP), patience + HANDOVER)
    stage.need(moved, "every relay has found backup by itself", RELAYS, reached(stage))
    await stage.until(lambda: stage.names.all_say(BACKUP), HANDOVER)
    asked = (await stage.provider()).since(before)
    changed = since(began, min(asked.accepted, default=None))
    told = since(began, stage.names.everywhere(BACKUP, began))
    firsts = [stage.first_session(BACKUP, began, relay) for relay in stage.lab.relays]
    served = since(began, max((first for first in firsts if first is not None), default=None))
    stage.took("changed", changed)
    stage.took("told", told)
    stage.took("served", served)
    early = patience - stage.times.interval  # on a busy machine the ping before may have failed already
    stage.claim(changed >= early, f"not before its patience of {patience:g} s", PROVIDER, f"after {changed:.2f} s")
    stage.claim((asked.changes, asked.applied) == (1, 1), "one change was enough", PROVIDER, str(asked))
    stage.claim(stage.names.all_say(BACKUP), "every DNS server says backup", DNS, f"{told - changed:.2f} s after that")
    stage.claim(not overlaps(stage.lab.sessions()), "no relay had both: main was dead", RELAYS)
    life = span(PolicySettings().fail_over_after)
    stage.say(
        f"Of {served:.1f} s, {changed:.1f} s were patience, {told - changed:.1f} s went by until the servers said so, "
        f"and {max(0.0, served - told):.1f} s until resolvers had forgotten and relays looked again. In life that is "
        f"{life}, then up to {INSYNC:g} s, then as a rule up to {TTL + NODE_LEAST:g} s."
    )
    stage.scene.result = f"every relay with backup after {served:.1f} s (patience {patience:g} s)"


async def returns(stage: Stage) -> None:
    """main comes back; nothing goes back by itself."""
    wait = stage.times.fail_back_after + 2 * stage.times.interval
    before = await stage.provider()
    await stage.restart(MAIN)
    stage.say(
        f"main is back. With proxies it would get the role after {stage.times.fail_back_after:g} s. Here nothing could "
        "shut backup out, so the role returns by hand alone."
    )
    well = await stage.until_so(partial(_answers_pings, stage, MAIN), HANDOVER)
    stage.claim(well, "main is well again", PINGED)
    await _fit(stage, MAIN)
    began = stage.now()
    await calm(stage, wait, began)
    looks = stage.names.after(began)
    stayed = all(look.values == (stage.lab.addresses[BACKUP].host,) for look in looks)
    stage.claim(bool(looks) and stayed, "the record stays with backup", DNS, f"{len(looks)} answers in {wait:g} s")
    asked = (await stage.provider()).since(before)
    stage.claim(not asked.changes, "nobody has asked for a change", PROVIDER, str(asked))
    stage.scene.result = f"the record stays with backup for {wait:g} s"


async def trap(stage: Stage) -> None:
    """The role goes back by hand, and relays stay connected to backup: the trap that names set."""
    began = stage.now()
    await switchover(stage, MAIN)
    await record_follows(stage, MAIN, began, "the command")
    lingering = stage.lab.lingering()
    clinging = {(relay, BACKUP) for relay in stage.lab.relays}
    stage.claim(
        lingering == clinging,
        "the trap: every relay is still connected to backup (demoted, not closed)",
        RELAYS,
        f"{len(lingering)} of {len(clinging)}",
    )
    warning = await _warned(stage)
    stage.claim(
        warning.status == 1 and "is up" in warning.what,
        "`failover status` warns of it, and exits 1",
        ANSWERED,
        warning.what,
    )
    last = stage.names.last(BACKUP)
    late = float("nan") if last is None else warning.at_worst - last.utc - TTL - NODE_MOST
    stage.claim(
        -1.0 <= late <= SLACK,  # the time is told in whole seconds
        f"and says until when that may get worse: TTL {TTL} s and a node's {NODE_MOST:g} s after a server last said so",
        ANSWERED,
        warning.until,
    )
    stage.scene.result = f"{len(lingering)} relays stay with backup, and status says so"


async def restarted(stage: Stage) -> None:
    """Nothing but its own end makes relays leave backup."""
    stage.say("Only backup's own end ends that: its node is restarted, once no relay looks its address up any more.")
    host = stage.lab.addresses[MAIN].host
    looked = await stage.until(lambda: all(stage.looked_up(r) == [host] for r in stage.lab.relays), HANDOVER)
    stage.need(looked, "the last lookup of every relay found main alone", RELAYS)
    began = stage.now()
    await stage.restart(BACKUP)
    gone = await stage.until(lambda: not stage.lab.lingering(), HANDOVER)
    await stage.wait(CALM)
    back = [i for i in stage.lab.sessions() if i.producer == BACKUP and i.start > began]
    stage.claim(gone and not back, f"no relay has come back to backup for {CALM:g} s", RELAYS, reached(stage))
    warning = await _warned(stage)
    stage.claim(
        warning.status == 1 and bool(warning.what),
        "the controller warns on: it counts life's times, not the demo's, for it cannot know what relays looked up",
        ANSWERED,
        warning.until,
    )
    stage.scene.result = "no relay is connected to backup any more"


async def reply_lost(stage: Stage) -> None:
    """A change is made and its reply is lost; that is seen, and nothing is done twice."""
    await _fit(stage, BACKUP)
    await stage.lab.tell(ROUTE53, "only", CHANGE)
    await stage.lab.tell(ROUTE53, "cut")
    before, began = await stage.provider(), stage.now()
    stage.say("Route 53 carries out the next change, and its reply is lost on the way.")
    await switchover(stage, BACKUP)
    await record_follows(stage, BACKUP, began, "the command")
    await stage.lab.tell(ROUTE53, "heal")
    asked = (await stage.provider()).since(before)
    once = (asked.changes, asked.applied) == (1, 1)
    stage.claim(once, "that it was made is seen by reading; it is not asked for again", PROVIDER, str(asked))
    stage.scene.result = f"moved in {stage.scene.seconds['moved']:.1f} s, by one change"


async def interposed(stage: Stage) -> None:
    """Somebody else writes between the controller's reading and its change."""
    await _fit(stage, MAIN)
    await stage.lab.tell(ROUTE53, "interpose", f"{RECORD} {TTL} {STRANGER}")
    before, began = await stage.provider(), stage.now()
    stage.say(f"Just before the next change, somebody else writes {STRANGER} into the record.")
    await switchover(stage, MAIN)
    await record_follows(stage, MAIN, began, "the command")
    asked = (await stage.provider()).since(before)
    stage.claim(
        asked.conflicts == 1, "the change is refused: the record is not what it was made from", PROVIDER, str(asked)
    )
    stage.claim(asked.applied == 1, "made from what is there now, it is accepted", PROVIDER)
    answer = await stage.told("history", "--limit", "20")
    stage.claim("changed by another hand" in answer.text, "the journal tells of the other hand", ANSWERED)
    stage.scene.result = f"refused once, seen, moved in {stage.scene.seconds['moved']:.1f} s"


async def killed(stage: Stage) -> None:
    """The controller is killed when its change is on the way; the change comes late, after the next one's."""
    await _fit(stage, BACKUP)
    await stage.lab.tell(ROUTE53, "only", CHANGE)
    await stage.lab.tell(ROUTE53, "delay", f"{LATE:g}")
    before = await stage.provider()
    stage.say(
        f"A switchover to backup is asked for, and its change stays under way for {LATE:g} s. Then comes kill -9: "
        "nobody can call the change back."
    )
    ask_for_switchover(stage, BACKUP)
    sent = await stage.until_so(partial(_asked_since, stage, before), HANDOVER)
    began = stage.now()
    await stage.daemon.kill()
    asked = (await stage.provider()).since(before)
    stage.need(sent and not asked.applied, "killed when the change was sent and not yet made", PROVIDER, str(asked))
    stage.claim(stage.names.all_say(MAIN), "every DNS server says main as yet", DNS, answers(stage))
    await stage.lab.tell(ROUTE53, "heal")
    stage.say("It is started again.")
    stage.daemon.start()
    done = await stage.until(lambda: stage.all_with(BACKUP), ACTION_TIMEOUT + HANDOVER)
    stage.need(done, "the new one finishes: every relay is with backup", RELAYS, reached(stage))
    settled = await stage.until_so(partial(_settled, stage, before), LATE)
    asked = (await stage.provider()).since(before)
    stage.claim(settled and asked.applied == 1, "the change was made once", PROVIDER, str(asked))
    await record_follows(stage, BACKUP, began, "the kill")
    finished = stage.took("finished", since(began, min(asked.accepted, default=None)))
    stage.scene.result = f"the record has moved {finished:.1f} s after the kill, once"


# ---------------------------------------------------------------- what they share


async def _answers_pings(stage: Stage, producer: str) -> bool:
    return await stage.slot_of(producer) is not None


async def _refuses(stage: Stage, producer: str) -> bool:
    return not await stage.connects(producer)


async def _asked_since(stage: Stage, before: Provider) -> bool:
    return (await stage.provider()).changes > before.changes


async def _settled(stage: Stage, before: Provider) -> bool:
    """Whether every change that was asked for was made or refused."""
    asked = (await stage.provider()).since(before)
    return asked.applied + asked.conflicts == asked.changes


async def _status(stage: Stage) -> dict[str, Any]:
    """What ``failover status --json`` says; empty while it says nothing."""
    answer = await stage.daemon.ask("status", "--json")
    try:
        document: dict[str, Any] = json.loads(answer.text)
    except ValueError:
        return {}
    return document


async def _fit(stage: Stage, producer: str) -> None:
    """Wait until the controller has seen that a producer is fit, for else it would rightly refuse to move."""
    for _ in range(40):
        known = (await _status(stage)).get("producers", ())
        if any(p["name"] == producer and p["fit"] for p in known):
            return
        await stage.wait(stage.times.interval)


@dataclass(frozen=True, slots=True)
class Warned:
    """What ``failover status`` says of relays that may stay with backup: its exit status, and the words.

    ``usually`` and ``at_worst`` (Unix time) are until when a relay may still look it up; NaN where none may.
    """

    status: int
    what: str
    usually: float = float("nan")
    at_worst: float = float("nan")

    @property
    def until(self) -> str:
        """These times, in words."""
        if math.isnan(self.at_worst):
            return "no time"
        usually, at_worst = (iso(at)[11:19] for at in (self.usually, self.at_worst))
        return f"usually until {usually}Z, at worst until {at_worst}Z"


async def _warned(stage: Stage) -> Warned:
    """What it says once it has seen that no server says backup any more."""
    told: list[dict[str, Any]] = []
    for _ in range(40):
        records = (await _status(stage)).get("records", ())
        told = [b for record in records for b in record["believed"] if b["points_to"] == BACKUP and b["settled"]]
        if told:
            break
        await stage.wait(stage.times.interval)
    answer = await stage.told("status")
    line = next((line for line in answer.text.splitlines() if f"exposed: {BACKUP}" in line), "")
    what = line.partition("exposed: ")[2].partition(";")[0].partition(": nothing")[0]
    if not told:
        return Warned(answer.status, what)
    ends = (datetime.fromisoformat(told[0][key]).timestamp() for key in ("usually_until", "at_worst_until"))
    return Warned(answer.status, what, *ends)


def _judge(stage: Stage) -> Verdict:
    return gateless(stage.lab.sessions()) + never_empty(stage.names)


STORY = Story(
    name="names",
    title="no proxy, a DNS record alone",
    cast="two producers, two references, two relays that dial a name, Route 53 with two DNS servers, a resolver",
    plan=partial(plan, gateless=True),
    scenes=(
        ("steady", steady),
        ("main dies", dies),
        ("main is back", returns),
        ("back by hand, the trap", trap),
        ("backup is restarted", restarted),
        ("a reply is lost", reply_lost),
        ("another hand in between", interposed),
        ("controller killed midway", killed),
    ),
    judge=_judge,
)
