"""The tick: board + assignment + requests + now -> decision, new assignment, steps, events, next wake-up.

Pure and synchronous. It applies what operators asked of the assignment alone (pause, pin, cordon, ...), ages what
expires, walks the ordered rules (policy.py), and writes down in words what changed. It sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from . import drift as drifts
from . import health, incidents, kicks, policy, splits
from .board import View
from .incidents import Ledger, Row
from .model import (
    Answer,
    Assignment,
    Drift,
    Event,
    EventKind,
    Exposed,
    Gate,
    Held,
    Instant,
    Kick,
    Phase,
    Pointing,
    Pool,
    Request,
    RequestState,
    Step,
    Taint,
    Verb,
)
from .policy import Asked, Decision, Verdict
from .situation import Situation
from .splits import Split

QUIET = 300.0  # seconds without it, after which drift or an alert is worth saying again


@dataclass(frozen=True, slots=True)
class Memory:
    """What the tick remembers from one time to the next only to say things once; nothing is decided from it."""

    decision: tuple[int, str] | None = None
    health: Mapping[str, str] = field(default_factory=dict)
    drift: Mapping[tuple[str, str], Instant] = field(default_factory=dict)
    said: Mapping[str, Instant] = field(default_factory=dict)  # alerts and drift, by when they were last so
    ledger: Ledger = field(default_factory=Ledger)  # incidents of split brain: survives a restart (Board.timers)
    isolated: bool = False
    presumed: Assignment | None = None  # in mode observe: what we would hold the assignment to be


@dataclass(frozen=True, slots=True)
class NextAction:
    """An automatic step that is coming: what, in how many seconds, and what it waits for."""

    action: str  # failover, failback, leave-unfit
    seconds: float
    waits_for: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that one tick decided. ``wake_in`` is in seconds, None when only an observation can change things."""

    decision: Decision
    assignment: Assignment | None
    changed: bool  # the assignment is to be written
    steps: tuple[Step, ...]
    pointings: tuple[Pointing, ...]
    kicks: tuple[Kick, ...]
    events: tuple[Event, ...]
    answers: tuple[Answer, ...]
    drift: tuple[Drift, ...]
    split_brain: bool
    next: tuple[NextAction, ...]
    wake_in: float | None
    memory: Memory


def tick(
    pool: Pool,
    view: View,
    assignment: Assignment | None,
    requests: tuple[Request, ...],
    memory: Memory,
    now: Instant,
) -> Outcome:
    """One decision. Everything that it needs is in its arguments, everything that it wants is in its result."""
    held = view.lease is not None
    observing = pool.mode == "observe"
    current = assignment if not observing else assignment or memory.presumed
    events: list[Event] = []
    answers: list[Answer] = []
    aged = current
    if held:
        aged = _age(pool, view, current, now, events)
        subject = assignment if assignment is None else aged  # what is only presumed cannot be changed
        subject, requests = _apply_requests(pool, subject, requests, now, events, answers)
        aged = subject or aged
    s = Situation(pool, view, aged, now)
    moves = tuple(r for r in requests if r.verb in (Verb.SWITCHOVER, Verb.ADOPT))
    decision = policy.decide(Asked(s, moves, held, observing))
    verdict = decision.verdict
    result: Assignment | None
    steps: tuple[Step, ...]
    pointings: tuple[Pointing, ...]
    if observing:
        result, steps, pointings = aged, (), ()
        presumed = verdict.assignment if verdict.key in ("adopted", "adoption") else memory.presumed
        if verdict.answer is not None:
            answers.append(Answer(verdict.answer.request, RequestState.REFUSED, "mode: observe, nothing is moved"))
    else:
        result, presumed = verdict.assignment or aged, None
        steps, pointings = verdict.steps, verdict.pointings
        if verdict.answer is not None:
            answers.append(verdict.answer)
        _interrupted(assignment, result, answers)
    if presumed is not None and presumed.phase is not Phase.STEADY:
        presumed = replace(presumed, phase=Phase.STEADY, active=presumed.target, target=None)
    changed = held and result is not None and result != assignment and not (observing and assignment is None)
    if changed and result is not None:
        result = replace(result, revision=_revision(assignment) + 1, term=0 if view.lease is None else view.lease.term)
    found = splits.find(s, memory.ledger.rows)
    drift = (*_dated(found, memory, now), *drifts.find(s, memory.drift))
    said = Said(decision, drift, result if changed else None, presumed, observing)
    ledger, told = _follow(s, found, said, current, memory, held)
    fresh_memory = _say(s, said, memory, ledger, events)
    events.extend(told)
    wakes = [w - now.mono for w in s.wakes]
    if ledger.told and (telling := incidents.next_telling(ledger, now)) is not None:
        wakes.append(max(0.01, telling))
    if held:  # only the decider ages what runs out
        wakes.extend(_expiries(result, now))
        wakes.extend(_expiries_of_requests(requests, now))
    if changed or answers:
        wakes.append(0.0)
    return Outcome(
        decision=decision,
        assignment=result,
        changed=changed,
        steps=steps if held and not changed else (),
        pointings=pointings if held and not changed else (),
        kicks=verdict.kicks if held and not changed and not observing else (),
        events=tuple(events),
        answers=tuple(answers),
        drift=drift,
        split_brain=any(d.split_brain for d in drift),
        next=next_actions(s, dict(decision.lacked)),
        wake_in=max(0.0, min(wakes)) if wakes else None,
        memory=fresh_memory,
    )


def _revision(assignment: Assignment | None) -> int:
    return 0 if assignment is None else assignment.revision


# ---------------------------------------------------------------- ageing


def _age(pool: Pool, view: View, a: Assignment | None, now: Instant, events: list[Event]) -> Assignment | None:
    """The assignment with everything dropped that has run out, and with new taints and sightings."""
    if a is None:
        return None
    paused, pinned = a.paused, a.pinned
    if paused is not None and paused.until is not None and paused.until.reached(now):
        events.append(Event(EventKind.RESUMED, now, "the pause ran out", a.generation))
        paused = None
    if pinned is not None and pinned.until is not None and pinned.until.reached(now):
        events.append(Event(EventKind.UNPINNED, now, "the pin ran out", a.generation, pinned.producer))
        pinned = None
    events.extend(
        Event(EventKind.REQUEST, now, f"the cordon of {held.producer} ran out", a.generation, held.producer)
        for held in a.cordoned
        if held.until is not None and held.until.reached(now)
    )
    up = [n for n, t in view.tracks.items() if health.health_at(t, now, pool.health).value == "up"]
    seen = a.seen if all(n in a.seen for n in up) else tuple(n for n in pool.names if n in a.seen or n in up)
    settled = tuple(
        n
        for n in a.handed_back
        if n in view.tracks and health.fit_for(view.tracks[n], now) < pool.policy.fail_back_after
    )
    passed = tuple(p for p in a.passed_over if _still_silent(view, p.gate))
    aged = replace(
        a,
        paused=paused,
        pinned=pinned,
        cordoned=_unexpired(a.cordoned, now),
        barred=_unexpired(a.barred, now),
        tainted=_taints(pool, view, a.tainted, now),
        passed_over=passed,
        handed_back=settled,
        seen=seen,
        exposed=_exposed(Situation(pool, view, a, now)) if pool.gateless else (),
    )
    return a if aged == a else aged


def _still_silent(view: View, gate: Gate) -> bool:
    """Whether a gate that was passed over is still there, and still does not answer."""
    track = view.proxies.get(gate.place) or view.gates.get(gate)
    return track is not None and not track.answers


def _exposed(s: Situation) -> tuple[Exposed, ...]:
    """Who may still be reached, and who relays are being led to."""
    if s.a is None:
        return ()
    kept = tuple(e for e in s.a.exposed if _still_exposed(s, e.producer))
    known = {e.producer for e in kept}
    return (*kept, *(Exposed(p, s.now) for p in s.visited() if p not in known))


def _still_exposed(s: Situation, producer: str) -> bool:
    """Until its node is seen gone, which ends every session, at a time when no relay looks it up any more."""
    track = s.view.tracks.get(producer)
    if track is None or s.a is None or s.a.active == producer:
        return False
    gone = track.last is not None and track.last.refused and not s.view.isolated
    return not (gone or kicks.let_go(s, producer)) or s.reached(producer)


def _unexpired(held: tuple[Held, ...], now: Instant) -> tuple[Held, ...]:
    return tuple(h for h in held if h.until is None or not h.until.reached(now))


def _taints(pool: Pool, view: View, tainted: tuple[Taint, ...], now: Instant) -> tuple[Taint, ...]:
    """A taint ends one action timeout after the gate answered a later request, at the next reading.

    Whether that reading shows it open or closed is then an observation like any other: nothing is under way any more.
    """
    known = {t.gate: t for t in tainted}
    for late in view.unanswered:
        if late.gate not in known or known[late.gate].since != late.at:
            known[late.gate] = Taint(late.gate, late.at)
    kept = []
    for taint in known.values():
        track = view.proxies.get(taint.gate.place)
        if track is None:
            continue
        if not track.answers or track.read_at is None or not taint.since.reached(track.read_at):
            kept.append(replace(taint, answered=None))
            continue
        answered = taint.answered or track.read_at
        if track.read_at.since(answered) >= pool.lease.action_timeout:
            continue
        kept.append(replace(taint, answered=answered))
    return tuple(kept)


def _expiries(a: Assignment | None, now: Instant) -> list[float]:
    if a is None:
        return []
    held = [h for h in (a.paused, a.pinned, *a.cordoned, *a.barred) if h is not None and h.until is not None]
    return [_left(h.until, now) for h in held if h.until is not None]


def _expiries_of_requests(requests: tuple[Request, ...], now: Instant) -> list[float]:
    return [_left(r.expires, now) for r in requests]


def _left(until: Instant, now: Instant) -> float:
    seconds = until.mono - now.mono if until.boot == now.boot else until.utc - now.utc
    return max(0.01, seconds)


# ---------------------------------------------------------------- requests


def _apply_requests(
    pool: Pool,
    a: Assignment | None,
    requests: tuple[Request, ...],
    now: Instant,
    events: list[Event],
    answers: list[Answer],
) -> tuple[Assignment | None, tuple[Request, ...]]:
    """Apply what changes only the assignment; answer what came too late; leave the moves to the rules."""
    moves = []
    for request in requests:
        if a is not None and a.request == request.id:
            continue  # a handover carries it out
        generation = 0 if a is None else a.generation
        if request.expires.reached(now):
            answers.append(Answer(request.id, RequestState.EXPIRED, "expired before it could be carried out"))
        elif request.generation is not None and request.generation != generation and a is not None:
            text = f"made for generation {request.generation}, overtaken by {generation}: look at the status, ask again"
            answers.append(Answer(request.id, RequestState.OVERTAKEN, text))
        elif request.verb in (Verb.SWITCHOVER, Verb.ADOPT):
            moves.append(request)
            continue
        elif a is None:
            text = "there is no assignment yet: `failover adopt NAME` first"
            answers.append(Answer(request.id, RequestState.REFUSED, text))
        else:
            a, answer, event = _apply(pool, a, request, now)
            answers.append(answer)
            events.append(event)
            continue
        events.append(_request_event(request, answers[-1], now, generation))
    return a, tuple(moves)


def _request_event(request: Request, answer: Answer, now: Instant, generation: int) -> Event:
    words = f"{request.verb.value}{' ' + request.producer if request.producer else ''} by {request.by}: {answer.text}"
    detail = {"request": request.id, "state": answer.state.value}
    return Event(EventKind.REQUEST, now, words, generation, request.producer, detail)


def _apply(pool: Pool, a: Assignment, request: Request, now: Instant) -> tuple[Assignment, Answer, Event]:
    """One request that changes only the assignment."""
    name = request.producer or ""
    if request.producer is not None and name not in pool.names:
        text = f"{name!r} is no producer of this pool; there are {', '.join(pool.names)}"
        answer = Answer(request.id, RequestState.REFUSED, text)
        return a, answer, _request_event(request, answer, now, a.generation)
    until = None if request.seconds is None else now.after(request.seconds)
    held = Held(name, until, request.reason, request.by)
    changed, kind, text = _effect(a, request.verb, held)
    answer = Answer(request.id, RequestState.DONE, text)
    detail = {"request": request.id, "by": request.by, "reason": request.reason}
    return changed, answer, Event(kind, now, f"{text} (by {request.by})", a.generation, request.producer, detail)


def _effect(a: Assignment, verb: Verb, held: Held) -> tuple[Assignment, EventKind, str]:
    name = held.producer
    if verb is Verb.PAUSE:
        when = " when the handover that runs is finished" if a.phase is not Phase.STEADY else ""
        return replace(a, paused=held), EventKind.PAUSED, f"paused{when}: no automatic steps"
    if verb is Verb.RESUME:
        return replace(a, paused=None, released=False), EventKind.RESUMED, "resumed"
    if verb is Verb.RELEASE:
        text = "released: every gate is left as it stands; `failover resume` steers again"
        return replace(a, released=True), EventKind.REQUEST, text
    if verb is Verb.PIN:
        return replace(a, pinned=held), EventKind.PINNED, f"pinned to {name}: no failback away from it"
    if verb is Verb.UNPIN:
        return replace(a, pinned=None), EventKind.UNPINNED, "unpinned"
    others = tuple(h for h in a.cordoned if h.producer != name)
    if verb is Verb.CORDON:
        return replace(a, cordoned=(*others, held)), EventKind.REQUEST, f"{name} is cordoned: never a target"
    if verb is Verb.UNCORDON:
        return replace(a, cordoned=others), EventKind.REQUEST, f"{name} is no longer cordoned"
    raise AssertionError(f"{verb} is a move")


def _interrupted(before: Assignment | None, after: Assignment | None, answers: list[Answer]) -> None:
    """A handover that no longer carries out its request has failed it."""
    if before is None or before.request is None or after is None or after.request == before.request:
        return
    if not any(answer.request == before.request for answer in answers):
        answers.append(Answer(before.request, RequestState.FAILED, f"interrupted: {after.reason}"))


# ---------------------------------------------------------------- saying it


@dataclass(frozen=True, slots=True)
class Said:
    """What a tick has come to, for those who put it into words."""

    decision: Decision
    drift: tuple[Drift, ...]
    written: Assignment | None
    presumed: Assignment | None
    observing: bool


def _dated(found: tuple[Split, ...], memory: Memory, now: Instant) -> tuple[Drift, ...]:
    """Evidence of split brain as drift; what was known before, perhaps before a restart, keeps its date."""
    rows, drift = memory.ledger.rows, memory.drift
    return tuple(
        Drift(f.kind, f.where, f.what, rows.get(f.key) or drift.get(f.key) or now, split_brain=f.counts) for f in found
    )


def _follow(
    s: Situation, found: tuple[Split, ...], said: Said, before: Assignment | None, memory: Memory, held: bool
) -> tuple[Ledger, tuple[Event, ...]]:
    """The ledger of incidents after this tick, and what is to be journalled of it."""
    ledger, a = memory.ledger, s.a
    if not found and ledger.open is None and not ledger.rows and not ledger.told:
        return ledger, ()
    verdict = said.decision.verdict
    gates = {step.gate for step in verdict.steps} if not said.observing else set()
    records = {pointing.record for pointing in verdict.pointings} if not said.observing else set()
    passed = () if before is None else before.passed_over
    tainted = {taint.gate for taint in (() if before is None else before.tainted)}
    rows = tuple(
        Row(
            kind=split.kind,
            where=split.where,
            what=split.what,
            since=drift.since,
            counts=split.counts,
            producers=split.producers,
            hindered=splits.hindrance(s, split, gates, records, verdict.reason),
            allowed=splits.allowed(s, split, passed, tainted) if split.key not in ledger.rows else "",
            tells=splits.worth_telling(s, split, drift.since),
        )
        for split, drift in zip(found, said.drift, strict=False)  # evidence of split brain comes first
    )
    seen = incidents.Now(
        at=s.now,
        generation=0 if a is None else a.generation,
        active=None if a is None else a.active,
        decides=held,
        deeds=s.view.deeds,
    )
    return incidents.follow(ledger, rows, seen)


def _say(s: Situation, told: Said, memory: Memory, ledger: Ledger, events: list[Event]) -> Memory:
    """Turn what changed since the last tick into events, and remember what was said."""
    a, now, decision, written = s.a, s.now, told.decision, told.written
    verdict = decision.verdict
    generation = 0 if a is None else a.generation
    _say_health(s, memory, events, generation)
    if s.view.isolated != memory.isolated:
        words = "isolated: nothing outside answers" if s.view.isolated else "no longer isolated"
        events.append(Event(EventKind.ISOLATED, now, words, generation))
    key = (decision.rule, verdict.key)
    would = "would: " if told.observing and decision.rule > 1 else ""
    if key != memory.decision:
        detail = {"rule": decision.rule, "title": decision.title}
        events.append(Event(EventKind.DECISION, now, would + verdict.reason, generation, _about(verdict, a), detail))
    if written is not None and (a is None or written.phase is not a.phase or written.generation != a.generation):
        detail = {"phase": written.phase.value, "active": written.active, "target": written.target}
        detail["cause"] = written.cause.value
        who = written.target or written.active
        events.append(Event(EventKind.PHASE_CHANGED, now, verdict.reason, written.generation, who, detail))
    said = {name: at for name, at in memory.said.items() if now.since(at) <= QUIET}
    _say_drift(s, told.drift, said, events, generation)
    alerts = dict(s.alerts)
    if verdict.alert is not None:
        alerts[f"{verdict.key}:{generation}"] = would + verdict.alert
    if s.view.isolated and s.view.lease is not None:
        alerts.setdefault("isolated", _isolated(s))
    for name, words in alerts.items():
        new = name not in said
        said[name] = now
        if new:
            events.append(Event(EventKind.ALERT, now, words, generation, None, {"alert": name}))
    return Memory(
        decision=key,
        health={n: s.health(n).value for n in s.view.tracks},
        drift={(d.kind, d.where): d.since for d in told.drift},
        said=said,
        ledger=ledger,
        isolated=s.view.isolated,
        presumed=told.presumed,
    )


def _isolated(s: Situation) -> str:
    """What it means, and what would have told more."""
    references = s.view.references
    if len(references) == 1:
        return (
            f"isolated: {next(iter(references))}, the only reference, does not answer; health is unknown, and nothing "
            "is moved. A second reference, at another site, would tell whether it is our own network"
        )
    return "isolated: nothing outside answers; health is unknown, and nothing is moved"


def _about(verdict: Verdict, a: Assignment | None) -> str | None:
    after = verdict.assignment or a
    return None if after is None else after.target or after.active


def _say_health(s: Situation, memory: Memory, events: list[Event], generation: int) -> None:
    for name, track in s.view.tracks.items():
        health = s.health(name).value
        before = memory.health.get(name, "unknown")
        if health != before:
            error = f": {track.last.error}" if track.last is not None and track.last.error else ""
            detail = {"from": before, "to": health}
            words = f"{name} is {health}{error}"
            events.append(Event(EventKind.HEALTH_CHANGED, s.now, words, generation, name, detail))


def _say_drift(
    s: Situation, drift: tuple[Drift, ...], said: dict[str, Instant], events: list[Event], generation: int
) -> None:
    for d in drift:
        name = f"drift {d.kind} {d.where}"
        if name not in said and not d.split_brain:
            detail = {"kind": d.kind}
            events.append(Event(EventKind.DRIFT, s.now, f"{d.where}: {d.what}", generation, None, detail))
        said[name] = s.now


def _free(lack: str) -> str:
    """What a move waits for when its time has come."""
    return f"the way to be free: {lack}" if lack else "the next tick"


def next_actions(s: Situation, lacked: Mapping[int, str]) -> tuple[NextAction, ...]:
    """The automatic moves that are coming, nearest first; ``lacked`` says what a rule waits for besides time."""
    a = s.a
    if a is None or a.active is None or a.phase is not Phase.STEADY or a.released or a.paused is not None:
        return ()
    found = []
    active, track = a.active, s.view.tracks[a.active]
    patience = s.pool.policy.fail_over_after
    if s.health(active).value == "down":
        left = health.patience_left(track, s.now, patience)
        found.append(NextAction("failover", left, f"{active} to stay down" if left > 0 else _free(lacked.get(9, ""))))
    elif not s.pool.gateless and (s.fit(active) is False or s.unseen_for(active)):
        unfit = s.unfit_for(active) if s.fit(active) is False else 0.0
        left = max(0.0, patience - max(unfit, s.unseen_for(active)))
        word = "unfit" if s.fit(active) is False else "unserved"
        found.append(
            NextAction("leave-unfit", left, f"{active} to stay {word}" if left > 0 else _free(lacked.get(10, "")))
        )
    preferred = s.pool.preferred
    by_hand = s.pool.gateless and kicks.unmanaged(s) is not None
    blocked = by_hand or s.pinned(active) or s.held(preferred, "cordoned") or s.held(preferred, "barred")
    if active != preferred and s.fit(preferred) is True and s.pool.policy.fail_back == "auto" and not blocked:
        left = max(0.0, policy.fail_back_wait(s) - s.well_for(preferred))
        found.append(
            NextAction("failback", left, f"{preferred} to stay fit" if left > 0 else _free(lacked.get(12, "")))
        )
    return tuple(sorted(found, key=lambda n: n.seconds))
