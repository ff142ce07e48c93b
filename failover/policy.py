"""What is decided, in which order: the ordered rules, one small function each.

Pure. A rule gets the situation and answers with a ``Verdict``, or with the words for what it lacked; the first
verdict wins. ``RULES`` is the order. The tick (tick.py) applies what an operator asked for, walks the rules and
turns the verdict into events, steps and the next wake-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from . import fence, handover, health, kicks
from .model import (
    Answer,
    Assignment,
    Cause,
    GateKind,
    Health,
    Held,
    Kick,
    PassedOver,
    Phase,
    Pointing,
    Request,
    RequestState,
    Step,
    Verb,
)
from .situation import Care, Situation

BY_HAND = "it is moved by hand only, failover switchover"  # where no gate could fence


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule that matched wants. ``key`` is short and stable: a decision is journalled when it changes."""

    key: str
    reason: str
    assignment: Assignment | None = None  # a new value, or None: as it is
    steps: tuple[Step, ...] = ()
    pointings: tuple[Pointing, ...] = ()
    kicks: tuple[Kick, ...] = ()
    answer: Answer | None = None
    alert: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The situation, with the requests that may begin a handover, oldest first."""

    s: Situation
    requests: tuple[Request, ...]
    lease_held: bool
    observing: bool


Rule = Callable[[Asked], "Verdict | str"]


def blind(q: Asked) -> Verdict | str:
    """Rule 1: without a lease, isolated, released, or before every part was tried: nothing."""
    s = q.s
    if not q.lease_held:
        return Verdict("no-lease", "the lease is not held: observing")
    if s.a is not None and s.a.released and not any(r.verb is Verb.ADOPT for r in q.requests):
        for request in q.requests:
            return _refused(request, "the pool is released; `failover resume` first, or `failover adopt NAME`")
        _tell_of_idleness(s, "released")
        return Verdict("released", "released: every gate is left as it stands until resume")
    if s.view.isolated:
        words = "nothing outside answers: our own network is at fault, so nothing is moved"
        for request in q.requests:
            return _refused(request, words)
        if s.a is not None and s.a.phase is not Phase.STEADY:
            s.alert("isolated-handover", f"{words}, in the middle of {s.a.phase.value}: perhaps nobody is admitted")
        return Verdict("isolated", words)
    unread = s.unread()
    if unread:
        return Verdict("unread", f"waiting for a first reading of {', '.join(unread)}")
    return "the lease is held, nothing is isolated, every part was tried"


def by_force(q: Asked) -> Verdict | str:
    """Rule 2: ``adopt`` and ``switchover --force`` come before everything, and interrupt a phase that waits."""
    for request in q.requests:
        if request.verb is Verb.ADOPT:
            return _adopt_by_hand(q.s, request)
        if request.verb is Verb.SWITCHOVER and request.force:
            return _switchover(q.s, request)
    return "nobody asked for adopt or switchover --force"


def unfinished(q: Asked) -> Verdict | str:
    """Rule 3: a phase that is not finished goes on."""
    s = q.s
    if s.a is None or s.a.phase is Phase.STEADY:
        return "no handover is under way"
    refused = _refuse_while_running(q)
    if refused is not None:
        return refused
    progress = handover.go_on(s)
    return Verdict(
        progress.transition or s.a.phase.value,
        progress.reason,
        progress.assignment,
        progress.steps,
        progress.pointings,
        answer=_finished(s.a, progress.assignment),
        alert=progress.alert,
    )


def paused(q: Asked) -> Verdict | str:
    """Rule 4: paused at steady: nothing but requests by hand."""
    s = q.s
    if s.a is None or s.a.paused is None:
        return "not paused"
    for request in q.requests:
        return _switchover(s, request)
    _tell_of_idleness(s, "paused")
    pointing = _left_by_hand(s, s.a)
    also = f"; what was asked for by hand is finished: {', '.join(map(str, pointing))}" if pointing else ""
    words = f"paused{_because(s.a.paused)}: observing, no step by itself{also}"
    return Verdict("paused", words, pointings=pointing)


def _tell_of_idleness(s: Situation, why: str) -> None:
    """Somebody wanted nothing to be moved; that the active is down is worth knowing all the same."""
    active = None if s.a is None else s.a.active
    if active is not None and s.down(active):
        other = "failover adopt NAME" if why == "released" else "failover switchover --to NAME"
        words = f"{active} is down, and nothing is moved while {why}: failover resume, or {other}"
        s.alert(f"{why}-down", words)


def _left_by_hand(s: Situation, a: Assignment) -> tuple[Pointing, ...]:
    """Changes that a switchover by hand has not yet got accepted."""
    if a.cause is not Cause.BY_HAND or a.active is None:
        return ()
    found = handover.pointings(s, a.active)
    return tuple(p for p in found if s.view.records[p.record].moved_in != a.generation)


def first_start(q: Asked) -> Verdict | str:
    """Rule 5: without an assignment, adopt what evidently is; else wait for ``failover adopt NAME``."""
    s = q.s
    if s.a is not None:
        return "there is an assignment"
    for request in q.requests:
        return Verdict("no-assignment", _REFUSED_UNADOPTED, answer=_refuse(request, _REFUSED_UNADOPTED))
    if s.pool.gateless:
        return _first_signposted(s)
    silent = (
        *s.silent(),
        *(str(g) for g in s.pool.host_gates if g.kind is not GateKind.POWER and not s.gate_answers(g)),
    )
    if silent:
        return _unadopted(s, f"no assignment yet, and {', '.join(silent)} does not answer; or: failover adopt NAME")
    carries = "carries sessions" if s.pool.proxies else "may make blocks"
    serving = [p for p in s.pool.names if s.up(p) and s.present(p)]
    if not serving:
        return _unadopted(s, f"no assignment yet: no producer is up and {carries}; say: failover adopt NAME")
    chosen = serving[0] if len(serving) == 1 else next((p for p in serving if s.fit(p)), serving[0])
    those = "carry sessions" if s.pool.proxies else "may make blocks"
    why = f"is up and {carries}" if len(serving) == 1 else f"is the first fit of those that {those}"
    return Verdict("adopted", f"{chosen} {why}: adopted", first_assignment(s, chosen, f"{chosen} {why}", None))


def _first_signposted(s: Situation) -> Verdict:
    """Where there is no gate: the producer that is up and that every record points to."""
    unread = [r.label for r in s.pool.records if not s.view.records[r.label].answers]
    chosen = s.signposted()
    if unread:
        words = f"no assignment yet, and {', '.join(unread)} cannot be read"
    elif chosen is None:
        words = "no assignment yet, and the records do not all point to one producer"
    elif not s.up(chosen):
        words = f"no assignment yet: the records point to {chosen}, which is not up"
    else:
        why = "is up, and the records point to it"
        return Verdict("adopted", f"{chosen} {why}: adopted", first_assignment(s, chosen, f"{chosen} {why}", None))
    return _unadopted(s, f"{words}; or: failover adopt NAME")


def _unadopted(s: Situation, words: str) -> Verdict:
    """Nobody is adopted; when that lasts for longer than a failover would take, a person is told."""
    patience, since = s.pool.policy.fail_over_after, s.view.acting_since
    left = patience if since is None else patience - s.now.since(since)
    if left > 0:
        s.wake_in(left)
    else:
        s.alert("unadopted", words)
    return Verdict("unadopted", words)


def adoption(q: Asked) -> Verdict | str:
    """Rule 6: the active is down and others are up and open: somebody has switched; never close the only live one."""
    s, a = q.s, _assigned(q)
    active = a.active
    if active is None or not s.down(active):
        return f"{active} is not down by majority"
    others = tuple(p for p in s.pool.others(active) if s.up(p) and s.let_in(p))
    doubt = _doubt(s, active, others[0]) if s.pool.gateless and others else None
    if doubt is not None:
        return f"the records point to {others[0]}, but {doubt}"
    if not others:
        return "no other producer is up and open"
    chosen = next((p for p in others if s.fit(p) is True), None)
    if chosen is None:
        s.alert("adoption-unfit", f"{active} is down and {', '.join(others)} is open, though not fit: nobody is closed")
        return f"{', '.join(others)} is up and open, but not fit"
    lack = fence.unfenceable(s, chosen, Care.FORCED)
    if lack is not None:
        s.alert("adoption-waits", f"{active} is down and {chosen} is open, but cannot be adopted yet: {lack}")
        return f"{chosen} is up and open, but cannot be adopted yet: {lack}"
    reason = f"{active} is down and {chosen} is up and open: somebody switched, and it is followed"
    return Verdict("adoption", reason, handover.begin(s, chosen, Cause.ADOPTED, reason), alert=reason)


def _doubt(s: Situation, active: str, other: str) -> str | None:
    """Why a record that leads elsewhere is not followed at once where there is no gate."""
    if s.deaf():
        return "no reference answers just now: our own network may be at fault"
    if s.somebody_sees_up(active):
        return f"{active} has just answered again"
    return "that may be a late change of our own" if s.pointed_by_us(other) else None


def requested(q: Asked) -> Verdict | str:
    """Rule 7: a switchover that an operator asked for."""
    for request in q.requests:
        return _switchover(q.s, request)
    return "nobody asked for a switchover"


def hand_back(q: Asked) -> Verdict | str:
    """Rule 8: a producer whose gate was passed over is fit again while the gate is still silent: it gets the role."""
    s, a = q.s, _assigned(q)
    lack = "no gate was passed over"
    if a.passed_over and a.cause not in (Cause.FORCED, Cause.AT_ONCE):
        return f"gates were passed over, but the handover was not forced by a failure ({a.cause.value})"
    for passed in a.passed_over:
        producer = passed.gate.producer
        proxy = passed.gate.place if passed.gate.kind is GateKind.HAPROXY else str(passed.gate)
        if producer == a.active or s.gate_answers(passed.gate):
            lack = f"{proxy} answers again" if producer != a.active else lack
            continue
        if producer in a.handed_back:
            lack = f"{producer} was handed the role back once already"
        elif s.fit(producer) is not True or s.held(producer, "cordoned"):
            lack = f"{producer}, whose gate {passed.gate} was passed over, is not seen fit"
        elif not s.switched_on(producer):
            lack = f"a gate of {producer}'s own was not open when it last answered"
        elif (missing := fence.unfenceable(s, producer, Care.RETURN)) is not None:
            lack = missing
        else:
            reason = f"{producer} is fit again while {proxy} is silent: it cannot be fenced, {a.active} can"
            moved = handover.begin(s, producer, Cause.HAND_BACK, reason)
            moved = replace(moved, handed_back=(*a.handed_back, producer))
            return Verdict("hand-back", reason, moved, alert=reason)
    return lack


def down(q: Asked) -> Verdict | str:
    """Rule 9: the active is down for as long as patience asks, or the preferred one is fit and waits."""
    s, active = q.s, _assigned(q).active
    if active is None:
        return "nobody is active"
    if s.health(active) is not Health.DOWN:
        return f"{active} is {s.health(active).value}"
    last = s.view.tracks[active].last
    if last is not None and last.ok:
        return f"{active} counts as down still, but has just answered"
    votes = s.votes(active)
    if not votes.majority:
        reason = (
            f"{active} does not answer our pings, but only {votes.agree} of {votes.counted} vantage points agree "
            f"({'; '.join(votes.missing)})"
        )
        s.alert("no-majority", f"{reason}: no failover")
        return reason
    if not s.pool.proxies and s.deaf():
        return f"{active} does not answer, but no reference does just now either: our own network may be at fault"
    heirs, cause, lack = _heirs(s, active)
    lacks = {heir: _cannot_start(s, heir, Care.FORCED) for heir in heirs}
    target = next((heir for heir in heirs if lacks[heir] is None), None)
    if target is None:
        for heir in heirs:
            lack = f"{active} is down, but {heir} cannot take over: {lacks[heir]}"
        if cause is not None:
            s.alert("nobody-takes-over", lack)
        return lack
    reason = f"{active} {_for_how_long(s, active)} ({votes.agree} of {votes.counted} agree): {target} takes over"
    if cause is Cause.AT_ONCE:
        reason = f"{active} is down and {target}, the preferred one, is fit: back at once"
    return Verdict("failover", reason, handover.begin(s, target, cause or Cause.FORCED, reason), alert=reason)


def _for_how_long(s: Situation, active: str) -> str:
    """Since when it is down, or how much of the time it was in trouble, whichever patience went by."""
    track, patience = s.view.tracks[active], s.pool.policy.fail_over_after
    seconds = health.down_for(track, s.now)
    if seconds >= patience:
        return f"is down for {seconds:.0f} s"
    trouble = health.trouble_within(track, s.now, 2 * patience)
    return f"is down, and was in trouble for {trouble:.0f} of the last {2 * patience:.0f} s"


def unfit(q: Asked) -> Verdict | str:
    """Rule 10: the active is up, but measured unfit, or seen by no proxy, for all of fail_over_after."""
    s, a = q.s, _assigned(q)
    active = a.active
    unseen = 0.0 if active is None else s.unseen_for(active)
    if active is None or not s.up(active) or (s.fit(active) is not False and not unseen):
        return f"{active} is not up and measured unfit"
    track = s.view.tracks[active]
    bad = s.fit(active) is False
    what = s.why_unfit(active) or "answers our pings, but no proxy sees it, and none serves it"
    left = s.pool.policy.fail_over_after - max(unseen, s.unfit_for(active) if bad else 0.0)
    if not bad and track.last is not None and track.last.ok and unseen >= s.pool.health.interval * s.pool.health.fall:
        s.alert(f"unseen:{active}", f"{active} {what}")
    if left > 0:
        s.wake_in(left)
        return f"{active} {what}; patience for another {left:.0f} s"
    if s.pinned(active):
        return f"{active} is unfit, but pinned"
    if s.pool.gateless:
        return f"{active} is unfit, but up, and nothing could shut it out: {BY_HAND}"
    return _voluntary(s, s.first(s.pool.others(active), fit=True), Cause.UNFIT, f"{active} {what}")


def cordoned(q: Asked) -> Verdict | str:
    """Rule 11: the active is cordoned and another one is fit."""
    s, a = q.s, _assigned(q)
    active = a.active
    if active is None or not s.held(active, "cordoned"):
        return f"{active} is not cordoned"
    return _voluntary(s, s.first(s.pool.others(active), fit=True), Cause.VOLUNTARY, f"{active} is cordoned")


def failback(q: Asked) -> Verdict | str:
    """Rule 12: the preferred producer has been fit for all of fail_back_after."""
    s, a = q.s, _assigned(q)
    preferred = s.pool.preferred
    if a.active == preferred:
        return f"{preferred}, the preferred one, is active"
    if s.pool.policy.fail_back != "auto":
        return "fail_back: manual"
    if s.pool.gateless:
        unmanaged = kicks.unmanaged(s)
        if unmanaged is not None:
            return f"nothing could shut {a.active} out ({unmanaged}): {BY_HAND} --to {preferred}"
    if a.active is not None and s.pinned(a.active):
        return f"the role is pinned to {a.active}"
    for which in ("cordoned", "barred"):
        if s.held(preferred, which):
            return f"{preferred} is {which}"
    if s.fit(preferred) is not True:
        return f"{preferred} is not fit"
    wait = fail_back_wait(s)
    left = wait - s.well_for(preferred)
    if left > 0:
        s.wake_in(left)
        lack = s.unservable(preferred, voluntary=True)
        if lack is not None:
            return f"{preferred} is fit, but cannot take over: {lack}"
        unseen = s.well_for(preferred) < health.fit_for(s.view.tracks[preferred], s.now)
        since = ", for a proxy did not see it meanwhile" if unseen else ""
        return f"{preferred} is fit, and must stay so for another {left:.0f} s{since}"
    return _voluntary(s, preferred, Cause.VOLUNTARY, f"{preferred} has been fit for {wait:g} s")


def drift(q: Asked) -> Verdict:
    """Rule 13: steady. Repair what differs, but never close anybody while nobody sees the active up."""
    s, a = q.s, _assigned(q)
    active = a.active
    if active is None:
        return Verdict("nobody", "nobody is active: nothing is closed or opened")
    if not s.somebody_sees_up(active):
        return Verdict("unseen", f"nobody sees {active} up just now: nobody is closed")
    closing = tuple(step for step in handover.close_steps(s, active) if _may_close(s, active, step))
    lacks = fence.unfenced(s, active, Care.RETURN)
    wanted = handover.open_steps(s, active)
    opening = () if lacks else wanted
    pointing = handover.pointings(s, active)
    kicking = kicks.plan(s)
    if not closing and wanted and lacks and not pointing and not kicking:
        return Verdict("waits", f"{active} is active; to open {wanted[0].gate} again it waits: {lacks[0]}")
    if not closing and not opening and not pointing and not kicking:
        left = [r.label for r in s.misplaced(active) if s.disputed(r)]
        if left:
            words = (
                f"{', '.join(left)} is left to the other hand for a while: failover switchover --to {active} ends that"
            )
            return Verdict("disputed", f"{active} is active; {words}")
        there = s.view.records
        stuck = [
            r.label for r in s.pool.records if r.points_to(there[r.label].rrset) != active and there[r.label].tried
        ]
        if stuck:
            words = f"{', '.join(stuck)} does not lead to it, and cannot be changed just now"
            return Verdict("stuck", f"{active} is active; {words}")
        return Verdict("steady", f"{active} is active; nothing to repair")
    if opening:
        _tell_of_passed_over(s, active)
    steps = (*closing, *opening)
    names = ", ".join([*(f"{step.kind.value} {step.gate}" for step in steps), *map(str, pointing), *map(str, kicking)])
    words = f"{active} is active; repairing: {names}"
    return Verdict("repair", words, steps=steps, pointings=pointing, kicks=kicking)


def _tell_of_passed_over(s: Situation, active: str) -> None:
    """The active is opened again past silent gates that were last seen open: that is told, as in a handover."""
    accepted = {passed.gate for passed in _passed(s)}
    over = [str(gate) for gate in fence.passed_over(s, active, Care.RETURN) if gate not in accepted]
    if over:
        words = f"{', '.join(over)} passed over: if it still carries traffic, two producers are reachable"
        s.alert(f"passed-over:{','.join(over)}", words)


def _passed(s: Situation) -> tuple[PassedOver, ...]:
    return () if s.a is None else s.a.passed_over


RULES: tuple[tuple[int, str, Rule], ...] = (
    (1, "not blind", blind),
    (2, "by force of hand", by_force),
    (3, "a handover is under way", unfinished),
    (4, "paused", paused),
    (5, "first start", first_start),
    (6, "adoption", adoption),
    (7, "switchover asked for", requested),
    (8, "hand-back", hand_back),
    (9, "the active is down", down),
    (10, "the active is unfit", unfit),
    (11, "the active is cordoned", cordoned),
    (12, "failback", failback),
    (13, "drift", drift),
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, with the number and words of the rule that matched and what the rules before it lacked."""

    rule: int
    title: str
    verdict: Verdict
    lacked: tuple[tuple[int, str], ...]


def decide(q: Asked) -> Decision:
    """The first rule that matches."""
    lacked: list[tuple[int, str]] = []
    for number, title, rule in RULES:
        answer = rule(q)
        if isinstance(answer, Verdict):
            return Decision(number, title, answer, tuple(lacked))
        lacked.append((number, answer))
    raise AssertionError("the last rule always matches")


# ---------------------------------------------------------------- what the rules share


def first_assignment(s: Situation, active: str, reason: str, requested_by: str | None) -> Assignment:
    """The steady assignment that names ``active``, when there was none."""
    seen = tuple(p for p in s.pool.names if p == active or s.up(p))
    cause = Cause.ADOPTED if requested_by is None else Cause.BY_HAND
    return Assignment(
        revision=0,
        generation=1,
        phase=Phase.STEADY,
        active=active,
        target=None,
        cause=cause,
        since=s.now,
        reason=reason,
        requested_by=requested_by,
        seen=seen,
    )


def fail_back_wait(s: Situation) -> float:
    """fail_back_after, doubled with each further automatic failover within 24 hours, at most eightfold."""
    wait = s.pool.policy.fail_back_after
    return wait if s.a is None else wait * handover.damping(s.a, s.now)


def _assigned(q: Asked) -> Assignment:
    if q.s.a is None:
        raise AssertionError("rule 5 matches when there is no assignment")
    return q.s.a


def _because(held: Held) -> str:
    return f" ({held.reason})" if held.reason else ""


def _cannot_start(s: Situation, target: str, care: Care) -> str | None:
    """Why a handover to ``target`` must not begin now."""
    if not s.view.room:
        return "the state folder has no room to journal it"
    if care is Care.VOLUNTARY and s.deaf():
        return "no reference answers just now: our own network may be at fault"
    unservable = s.unservable(target, voluntary=care is Care.VOLUNTARY)
    return unservable if unservable is not None else fence.unfenceable(s, target, care)


def _voluntary(s: Situation, target: str | None, cause: Cause, why: str) -> Verdict | str:
    if target is None:
        return f"{why}, but no other producer is fit, uncordoned, unbarred{_visible(s)}"
    lack = _cannot_start(s, target, Care.VOLUNTARY)
    if lack is not None:
        return f"{why}, but {target} cannot take over: {lack}"
    reason = f"{why}: {target} takes over"
    alert = reason if cause is Cause.UNFIT else None  # others were asked for, or are as it should be
    return Verdict(cause.value, reason, handover.begin(s, target, cause, reason), alert=alert)


def _visible(s: Situation) -> str:
    return " and visible to a proxy" if s.pool.proxies else ""


def _heirs(s: Situation, active: str) -> tuple[tuple[str, ...], Cause | None, str]:
    """Who may take over from an active that is down, best first, and why now; without a cause: what is waited for."""
    preferred = s.pool.preferred
    free = preferred != active and not s.pinned(active) and not s.pool.gateless
    if free and s.first((preferred,), fit=True) is not None:
        return (preferred,), Cause.AT_ONCE, ""
    left = health.patience_left(s.view.tracks[active], s.now, s.pool.policy.fail_over_after)
    if left > 0:
        s.wake_in(left)
        return (), None, f"{active} is down; patience for another {left:.0f} s"
    heirs = s.heirs(s.pool.others(active))
    lack = f"{active} is down, and no other producer is up, uncordoned, unbarred{_visible(s)}"
    lacks = [s.unservable(p, voluntary=False) for p in s.pool.others(active)] if s.pool.gateless else [None]
    unpointable = None if None in lacks else lacks[0]
    if unpointable is not None:
        lack = f"{active} is down, but nobody can take over, for no record can be moved: {unpointable}"
    return heirs, Cause.FORCED, lack


def _may_close(s: Situation, active: str, step: Step) -> bool:
    """Where another hand keeps reversing us, close only while the active is served at another gate."""
    if not s.gate_contested(step.gate):
        return True
    return any(place != step.gate.place for place in s.serving(active))


# ---------------------------------------------------------------- what operators ask for

_REFUSED_UNADOPTED = "there is no assignment yet: say which producer is the active one with `failover adopt NAME`"


def _refuse(request: Request, why: str) -> Answer:
    return Answer(request.id, RequestState.REFUSED, why)


def _refused(request: Request, why: str) -> Verdict:
    return Verdict("refused", f"{request.verb.value} refused: {why}", answer=_refuse(request, why))


def _refuse_while_running(q: Asked) -> Verdict | None:
    for request in q.requests:
        a = q.s.a
        target = a.target if a is not None else None
        return _refused(request, f"a handover to {target} is under way; wait for it, or use --force")
    return None


def _adopt_by_hand(s: Situation, request: Request) -> Verdict:
    name = request.producer or ""
    if name not in s.pool.names:
        return _refused(request, _unknown(s, name))
    if s.a is not None and not s.a.released:
        return _refused(request, f"{s.a.active} is assigned already; use `failover switchover --to {name}`")
    reason = f"{name} adopted by {request.by}" + (f": {request.reason}" if request.reason else "")
    done = Answer(request.id, RequestState.DONE, f"{name} is the active producer")
    first = first_assignment(s, name, reason, request.by)
    if s.a is not None:  # released: what was known of the producers stays known
        first = replace(
            first,
            revision=s.a.revision,
            generation=s.a.generation + 1,
            tainted=s.a.tainted,
            seen=s.a.seen,
            exposed=handover.exposed(s, s.a, name),
        )
    return Verdict("adopted", reason, first, answer=done)


def _unknown(s: Situation, name: str) -> str:
    return f"{name!r} is no producer of this pool; there are {', '.join(s.pool.names)}"


def _switchover(s: Situation, request: Request) -> Verdict:
    """Begin the handover that was asked for, or say why not."""
    a, name = s.a, request.producer or ""
    if a is None:
        return _refused(request, _REFUSED_UNADOPTED)
    if name not in s.pool.names:
        return _refused(request, _unknown(s, name))
    until = None if request.seconds is None else s.now.after(request.seconds)
    # The preferred one needs no pin, unless it was forced upon us while it is not fit: rule 10 would leave it again.
    unpinned = name == s.pool.preferred and (s.fit(name) is True or not request.force)
    pin = None if unpinned else Held(name, until, request.reason, request.by)
    if a.active == name and a.phase is Phase.STEADY:
        again = [record.label for record in s.misplaced(name)]
        words = f"{name} is the active producer already"
        if again:  # a generation of its own: whoever disputes the record is overruled once
            words += f"; {', '.join(again)} is pointed to it again"
            a = replace(a, generation=a.generation + 1, cause=Cause.BY_HAND, requested_by=request.by)
        done = Answer(request.id, RequestState.DONE, words)
        return Verdict("already", words, replace(a, pinned=pin), answer=done)
    why = _unwelcome(s, request, name)
    if why is not None:
        return _refused(request, why)
    reason = f"switchover to {name} asked for by {request.by}" + (f": {request.reason}" if request.reason else "")
    moved = handover.begin(
        s, name, Cause.BY_HAND, reason, requested_by=request.by, request=request.id, by_force=request.force
    )
    moved = replace(moved, pinned=pin, barred=tuple(h for h in moved.barred if h.producer != name))
    accepted = Answer(request.id, RequestState.ACCEPTED, reason)
    return Verdict("switchover", reason, moved, answer=accepted)


def _unwelcome(s: Situation, request: Request, name: str) -> str | None:
    """Why a switchover to ``name`` is refused; --force leaves only what would fail at once."""
    if not s.view.room:
        return "the state folder has no room to journal a handover; make room first"
    if request.force:
        if s.down(name):
            return f"{name} is down by majority: it would be left again at once"
        return s.unservable(name, voluntary=False) or fence.unfenceable(s, name, Care.BY_FORCE)
    track = s.view.tracks[name]
    if s.held(name, "cordoned"):
        return f"{name} is cordoned; `failover uncordon {name}` first, or use --force"
    if s.fit(name) is not True:
        why = s.why_unfit(name)
        if why is None:
            why = f"{track.lag} slots behind" if track.lag else ""
        error = f": {track.last.error}" if track.last is not None and track.last.error else ""
        words = f", {why.removeprefix('lags ')}" if why else ""
        return f"{name} is not fit ({s.health(name).value}{words}{error}); --force overrides"
    lack = s.unservable(name, voluntary=True)
    if lack is None and s.deaf():
        lack = "no reference answers just now: our own network may be at fault; --force overrides"
    if lack is None:
        lack = fence.unfenceable(s, name, Care.VOLUNTARY, within=2 * s.pool.lease.action_timeout)
        if lack is not None and any(not s.gate_answers(gate) for p in s.pool.others(name) for gate in s.ways(p)):
            lack = f"{lack}; --force passes over gates that were silent for {s.pool.policy.fail_over_after:g} s"
    return lack


def _finished(before: Assignment, after: Assignment | None) -> Answer | None:
    """The answer to the request that a handover carried out, once it has ended."""
    if before.request is None or after is None:
        return None
    if after.phase is Phase.STEADY:
        if before.cause is Cause.BY_HAND:
            pin = ""
            if after.pinned is not None:
                until = "until `failover unpin`" if after.pinned.until is None else "for a time"
                pin = f"; the role is pinned there {until}"
            return Answer(before.request, RequestState.DONE, f"{after.active} is the active producer{pin}")
        return Answer(before.request, RequestState.FAILED, f"{after.active} is the active producer: {before.reason}")
    return None
