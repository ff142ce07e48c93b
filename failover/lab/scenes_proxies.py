"""The story of a pool with proxies, and a DNS record beside them: its scenes in their order.

Each does something, then checks it from outside.
"""

from __future__ import annotations

from dataclasses import replace

from failover.lab.acts import (
    BACKUP,
    CALM,
    HANDOVER,
    MAIN,
    Story,
    admitted,
    answers,
    ask_for_switchover,
    calm,
    in_seconds,
    reached,
    record_follows,
    since,
    steady_status,
    switchover,
)
from failover.lab.pool import RECORD, ROUTE53, TTL
from failover.lab.sessions import TOLERANCE
from failover.lab.story import (
    ACTION_TIMEOUT,
    ANSWERED,
    DNS,
    HAPROXY,
    INSYNC,
    PINGED,
    PROVIDER,
    RELAYS,
    SLACK,
    Stage,
    plan,
)
from failover.lab.verdict import Verdict, Window, gated, judge, never_empty
from failover.lab.witness import SAMPLE_EVERY, Sample, spans
from failover.parts import PINGS_PER_RECORD, READS_PER_PING

SECOND = "proxy-2"
LAG = 100  # slots; the file allows 60


async def steady(stage: Stage) -> None:
    """The controller starts, and adopts what it finds."""
    began = stage.now()
    pid = stage.daemon.start()
    stage.say(f"The controller starts as a process of its own (pid {pid}). Nobody tells it who is active.")
    said = await steady_status(stage)
    stage.took("adopted", stage.now() - began)
    stage.need(said.status == 0, "it finds out by itself, and `failover status` exits 0", ANSWERED, said.first)
    there = await stage.until(lambda: stage.all_with(MAIN), HANDOVER)
    stage.need(there, "every relay has its sessions with main, through both proxies", RELAYS, reached(stage))
    stage.claim(stage.admits_only(MAIN), "both proxies let in main alone", HAPROXY, admitted(stage))
    well = [producer for producer in stage.lab.plan.producers if await stage.slot_of(producer) is not None]
    stage.claim(well == [MAIN, BACKUP], "backup is well, too: it is shut out, not dead", PINGED, " and ".join(well))
    stage.claim(stage.names.all_say(MAIN), f"{RECORD} points to main, and not to it", DNS, answers(stage))
    await calm(stage, CALM)
    stage.scene.result = "main is active, nothing moves"


async def other_hand(stage: Stage) -> None:
    """Somebody else changes the record; it is seen, and repaired once."""
    looks = PINGS_PER_RECORD * stage.times.interval
    stage.say(f"Somebody lets {RECORD} point to backup, in Route 53 and behind the controller's back.")
    backup = stage.lab.addresses[BACKUP].host
    before, began = await stage.provider(), stage.now()
    await stage.lab.tell(ROUTE53, "put", f"{RECORD} {TTL} {backup}")

    async def mended() -> bool:
        return bool((await stage.provider()).since(before).accepted)

    await stage.until_so(mended, looks + stage.times.timeout + ACTION_TIMEOUT)
    asked = (await stage.provider()).since(before)
    seconds = stage.took("mended", since(began, max(asked.accepted, default=None)))
    stage.need(
        bool(asked.accepted),
        f"it is pointed to main again (it looks every {looks:.2g} s)",
        PROVIDER,
        in_seconds(seconds),
    )
    await stage.wait(INSYNC / stage.lab.plan.scale)  # no server learns of a change later than that
    told = [look.received for look in stage.names.after(began) if look.values == (backup,)]
    span = max(told) - min(told) if told else 0.0
    right = stage.names.all_say(MAIN)
    stage.claim(right, "every DNS server says main again", DNS, f"for {span:.1f} s the world was told of backup")
    await calm(stage, 0.0, began)
    asked = (await stage.provider()).since(before)
    stage.claim((asked.changes, asked.applied) == (1, 1), "it was repaired once", PROVIDER, str(asked))
    stage.scene.result = f"repaired {seconds:.1f} s after the hand (it looks every {looks:.2g} s)"


async def hang(stage: Stage) -> None:
    """main's process is stopped; backup takes over after its patience."""
    patience = stage.times.fail_over_after
    began = stage.now()
    stage.stop(MAIN)
    stage.say(f"main hangs: its process is stopped (SIGSTOP). backup may take over after {patience:g} s, not sooner.")
    connects, answers = await stage.connects(MAIN), await stage.slot_of(MAIN) is not None
    stage.claim(connects and not answers, "main still takes TCP connections, and answers nothing", PINGED)
    moved = await stage.until(lambda: stage.all_with(BACKUP), patience + HANDOVER)
    stage.need(moved, "every relay has its sessions with backup, through both proxies", RELAYS, reached(stage))
    opened = since(began, stage.witness.first(BACKUP, began))
    served = since(began, stage.first_session(BACKUP, began))
    stage.took("opened", opened)
    stage.took("served", served)
    early = patience - stage.times.interval  # on a busy machine the ping before may have failed already
    stage.claim(opened >= early, f"not before its patience of {patience:g} s", HAPROXY, f"let in after {opened:.2f} s")
    stage.claim(stage.admits_only(BACKUP), "main is shut out in both, though it hangs", HAPROXY, admitted(stage))
    await record_follows(stage, BACKUP, began + opened, "the proxies")
    shut = max((look.sent for _, look in stage.witness.after(began) if look.reachable(MAIN)), default=began)
    told = since(shut, stage.names.first(BACKUP, began))
    stage.claim(told > 0, "no server said so before main was shut out", DNS, f"the first one {told:.2f} s later")
    stage.scene.result = f"backup serves {served:.1f} s after the hang (patience {patience:g} s)"


async def failback(stage: Stage) -> None:
    """main goes on; the role returns after main has been well for long enough, though the record's provider hangs."""
    wait = stage.times.fail_back_after
    await stage.lab.tell(ROUTE53, "hang")
    before, began = await stage.provider(), stage.now()
    stage.go_on(MAIN)
    stage.say(f"main goes on (SIGCONT). It must stay well for {wait:g} s before it gets the role back.")
    stage.say("Route 53 hangs: it takes requests, and answers none. The proxies must not wait for it.")
    back = await stage.until(lambda: stage.all_with(MAIN), wait + HANDOVER)
    stage.need(back, "every relay is back with main", RELAYS, reached(stage))
    opened = stage.took("opened", since(began, stage.witness.first(MAIN, began)))
    gap = stage.took("gap", stage.gap(BACKUP, MAIN, began))
    stage.claim(opened >= wait, f"not before its wait of {wait:g} s", HAPROXY, f"let in after {opened:.2f} s")
    stage.claim(gap > -TOLERANCE, "backup's last session ended before main's first began", RELAYS, f"{gap:.2f} s apart")
    asked = (await stage.provider()).since(before)
    still = stage.names.all_say(BACKUP) and not asked.applied
    stage.claim(still, "nobody waited for the record: every DNS server says backup as yet", DNS, answers(stage))
    healed = stage.now()
    await stage.lab.tell(ROUTE53, "heal")
    stage.say("Route 53 answers again.")
    await record_follows(stage, MAIN, healed, "its return")
    stage.scene.result = f"back after {opened:.1f} s (wait {wait:g} s), relays without for {gap:.2f} s"


async def split(stage: Stage) -> None:
    """Somebody lets backup in by hand at one proxy: two producers are reachable until the controller repairs it."""
    observing = stage.times.interval / READS_PER_PING
    stage.say(f"Somebody lets in backup instead of main in {SECOND}, by hand and behind the controller's back.")
    backend = stage.lab.proxies[SECOND].config.backend
    hand = [
        f"set server {backend}/{BACKUP} state ready",
        f"set server {backend}/{MAIN} state maint",
        f"shutdown sessions server {backend}/{MAIN}",
        "show stat",
    ]
    began = stage.now()
    seen = await stage.witness.told(SECOND, "; ".join(hand))
    other = stage.witness.now()["proxy-1"]
    split_now = seen is not None and seen.admitted == {BACKUP} and other is not None and other.admitted == {MAIN}
    stage.need(split_now, f"split brain: {SECOND} lets in backup while proxy-1 lets in main", HAPROXY)
    shut, restored = await _repaired(stage, "the hand", began, MAIN)
    seconds = stage.took("shut", shut - began)
    stage.took("restored", restored - began)
    limit = observing + stage.times.timeout + ACTION_TIMEOUT
    stage.claim(
        seconds <= limit + SLACK,
        f"backup is shut out again (it looks every {observing:.2g} s)",
        HAPROXY,
        in_seconds(seconds),
    )
    back = await stage.until(lambda: stage.all_with(MAIN), HANDOVER)
    stage.need(back, "every relay is with main again", RELAYS, reached(stage))
    stage.scene.result = f"repaired {seconds:.2f} s after the hand (it looks every {observing:.2g} s)"


async def forgetful(stage: Stage) -> None:
    """A proxy comes back with the states of its file, which are the wrong ones while backup is active."""
    observing = stage.times.interval / READS_PER_PING
    hidden = stage.lab.proxies[SECOND].config.hard_stop_after or 0.0
    stage.say("By its file a proxy starts with main let in. To make that wrong, the role goes to backup first.")
    await switchover(stage, BACKUP)
    stage.say(f"Now {SECOND} is restarted without its state.")
    began = stage.now()
    await stage.lab.restart_proxy(SECOND)
    shut, restored = await _repaired(stage, f"{SECOND}'s restart", began, BACKUP)
    seconds, until = stage.took("shut", shut - began), stage.took("restored", restored - began)
    limit = observing + stage.times.timeout + ACTION_TIMEOUT
    stage.claim(
        seconds <= limit + SLACK, "main is shut out there again, the restart included", HAPROXY, in_seconds(seconds)
    )
    stage.claim(
        until <= limit + hidden + SLACK,
        "backup is let in again: main was out before the restart, so no old session of it can hide",
        HAPROXY,
        in_seconds(until),
    )
    there = await stage.until(lambda: stage.all_with(BACKUP), HANDOVER)
    stage.need(there, "every relay is with backup again", RELAYS, reached(stage))
    stage.scene.result = f"main shut out after {seconds:.2f} s, backup back in after {until:.1f} s"


async def killed(stage: Stage) -> None:
    """The controller is killed where it hurts most: the old producer is shut out, the new one not yet let in."""
    proxy = stage.lab.proxies[SECOND]
    hidden = proxy.config.hard_stop_after or 0.0
    stage.say(
        f"{SECOND} is reloaded, then a switchover to main is asked for. For {hidden:g} s the proxy's old process may "
        "keep sessions where nobody sees them, and fencing has to wait for it. In this wait kill -9 comes."
    )
    await proxy.process.dump()
    await proxy.process.reload()
    asked = stage.now()
    ask_for_switchover(stage, MAIN)
    shut = await stage.until(lambda: stage.witness.nobody(asked), HANDOVER)
    began = stage.now()
    await stage.daemon.kill()
    stage.need(shut, "killed with -9 when backup was out and main not yet in", HAPROXY, admitted(stage))
    await stage.wait(4 * SAMPLE_EVERY)
    still = stage.witness.nobody(began)
    stage.claim(still and stage.daemon.pid is None, "it is dead, and nobody is let in", HAPROXY, admitted(stage))
    stage.say("It is started again.")
    stage.daemon.start()
    done = await stage.until(lambda: stage.all_with(MAIN), ACTION_TIMEOUT + HANDOVER)
    stage.need(done, "the new one finishes: every relay is with main", RELAYS, reached(stage))
    await record_follows(stage, MAIN, began, "the kill")
    finished = stage.took("finished", since(began, stage.witness.first(MAIN, began)))
    gap = stage.took("gap", stage.gap(BACKUP, MAIN, asked))
    stage.claim(gap > -TOLERANCE, "main comes in after the last hidden session with backup", RELAYS, in_seconds(gap))
    stage.scene.result = f"the next one has finished {finished:.1f} s after the kill"


async def by_hand(stage: Stage) -> None:
    """A switchover pins its target; unpin lets failback come."""
    stage.say("An operator moves the role to backup. main has been well all along: only the pin keeps it there.")
    await switchover(stage, BACKUP)
    await calm(stage, CALM)
    began = stage.now()
    answer = await stage.told("unpin")
    stage.need(answer.status == 0, "unpin is done", ANSWERED, answer.last)
    back = await stage.until(lambda: stage.all_with(MAIN), stage.times.fail_back_after + HANDOVER)
    stage.need(back, "without the pin main gets the role back", RELAYS, reached(stage))
    seconds = stage.took("returned", since(began, stage.witness.first(MAIN, began)))
    stage.scene.result = f"moved in {stage.scene.seconds['moved']:.1f} s, pinned, back {seconds:.1f} s after unpin"


async def lagging(stage: Stage) -> None:
    """A switchover to a producer that lags is refused, with the reason."""
    await stage.lab.tell(BACKUP, "lag", str(LAG))
    stage.say(f"backup falls {LAG} slots behind. An operator wants to move the role there all the same.")
    behind = await _behind(stage)
    stage.claim(behind > 60, "backup's tip is behind main's", PINGED, f"{behind} slots")
    await _seen_unfit(stage)
    since = stage.now()
    answer = await stage.told("switchover", "--to", BACKUP, "--yes")
    stage.need(answer.status == 1, "the switchover is refused", ANSWERED, f"exit status {answer.status}")
    stage.claim("slots behind" in answer.text, "and it says why", ANSWERED, answer.last)
    await calm(stage, CALM / 2, since)
    stage.claim(stage.all_with(MAIN), "main has kept the role", RELAYS, reached(stage))
    await stage.lab.tell(BACKUP, "heal")
    stage.scene.result = "refused, with the reason"


async def pause(stage: Stage) -> None:
    """Paused, nothing moves even when the active producer hangs; resumed, it does."""
    patience = stage.times.fail_over_after
    long = 1.5 * patience
    answer = await stage.told("pause", "--reason", "maintenance")
    stage.need(answer.status == 0, "pause is done", ANSWERED, answer.last)
    began = stage.now()
    stage.stop(MAIN)
    stage.say(f"main hangs again, for {long:g} s this time: longer than the patience of {patience:g} s.")
    await stage.wait(long)
    opened = stage.witness.first(BACKUP, began)
    stage.claim(opened is None, f"paused: for {long:g} s nobody else is let in", HAPROXY, admitted(stage))
    resumed = stage.now()
    answer = await stage.told("resume")
    stage.need(answer.status == 0, "resume is done", ANSWERED, answer.last)
    moved = await stage.until(lambda: stage.all_with(BACKUP), HANDOVER)
    stage.need(moved, "backup takes over at once: main was down for long enough", RELAYS, reached(stage))
    seconds = stage.took("served", since(resumed, stage.first_session(BACKUP, resumed)))
    await record_follows(stage, BACKUP, resumed, "resume")
    stage.go_on(MAIN)
    stage.scene.result = f"nothing for {long:g} s; backup serves {seconds:.1f} s after resume"


# ---------------------------------------------------------------- what they share


async def _repaired(stage: Stage, what: str, began: float, rightful: str) -> tuple[float, float]:
    """When the second proxy had nobody but ``rightful`` reachable, and when it let ``rightful`` in; NaN for never.

    Until the first of the two there were two producers on purpose.
    """
    others = [producer for producer in stage.lab.plan.producers if producer != rightful]

    def looks() -> list[Sample]:
        return [sample for name, sample in stage.witness.after(began) if name == SECOND]

    def shut() -> float | None:
        return next((s.received for s in looks() if not any(s.reachable(p) for p in others)), None)

    def restored() -> float | None:
        alone = [s for s in looks() if not any(s.reachable(p) for p in others)]
        return next((s.received for s in alone if s.admitted == {rightful}), None)

    await stage.until(lambda: restored() is not None, HANDOVER)
    end = shut()
    stage.windows.append(Window(what, began, stage.now() if end is None else end))
    return (since(0.0, end), since(0.0, restored()))


async def _behind(stage: Stage) -> int:
    best, slot = await stage.slot_of(MAIN), await stage.slot_of(BACKUP)
    return 0 if best is None or slot is None else best - slot


async def _seen_unfit(stage: Stage) -> None:
    """Wait until the controller has read the lag, twice in a row as it should, for else it would rightly agree."""
    for _ in range(40):
        answer = await stage.daemon.ask("status")
        if "slots behind" in answer.text:
            return
        await stage.wait(stage.times.interval)


def _judge(stage: Stage) -> Verdict:
    witness, sessions = stage.witness, stage.lab.sessions()
    looked = spans(witness.samples, stage.lab.plan.producers)
    named = [replace(session, target=stage.lab.through(session.target)) for session in sessions]
    seen = {"sessions": len(sessions), "looks": witness.count(), "longest_gap": round(witness.longest_gap(), 3)}
    together = judge(named, looked, stage.windows, tolerance=TOLERANCE)
    return gated(together, stage.windows, seen) + never_empty(stage.names)


STORY = Story(
    name="proxies",
    title="two proxies, and a DNS record beside them",
    cast="two producers, two references, two relays, two HAProxies, Route 53 with two DNS servers",
    plan=plan,
    scenes=(
        ("steady", steady),
        ("another hand on the record", other_hand),
        ("main hangs", hang),
        ("main is back, Route 53 hangs", failback),
        ("split brain by hand", split),
        ("proxy-2 forgets its state", forgetful),
        ("controller killed midway", killed),
        ("switchover and unpin", by_hand),
        ("backup lags", lagging),
        ("pause", pause),
    ),
    judge=_judge,
)
