"""The phases of a handover: what each does, when it ends, and the steps that it asks for.

Pure. Everything that moves a phase lives here; whether a handover should begin at all is policy.py's.
This file does not know why a handover was begun, only how careful it must be.

Theory of operation
- ``steady(A)``: close everyone else, re-open A. ``fencing(->T)``: close everyone but T, open nobody.
  ``promoting(T)``: everyone else stays closed; open T.
- The assignment is written before the first step of its phase, and each phase looks at readings that were taken
  after it began, so a restart in the middle simply goes on.
- Opening asks the same question each time (``Situation.unfenced``): no gate opens for anyone while another
  producer's gate is not confirmed closed as required.
``TRANSITIONS`` is the table; the docs' diagram is generated from it (``diagram``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import fence, health, signposts
from .model import (
    Admin,
    Assignment,
    Cause,
    Change,
    Exposed,
    Gate,
    Held,
    Instant,
    PassedOver,
    Phase,
    Pointing,
    Step,
    StepKind,
)
from .situation import SERVE_BUDGET, Care, Situation, care_of

FAILOVERS = 8  # automatic failovers remembered
DAY = 86400.0
MOST_LACKS = 4  # of a fence that are told
DAMPING_LIMIT = 8  # fail_back_after is at most so many times as long


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the table: from a phase to a phase, and when."""

    name: str
    origin: Phase
    goal: Phase
    when: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition("decided", Phase.STEADY, Phase.FENCING, "a rule decides for T"),
    Transition("fenced", Phase.FENCING, Phase.PROMOTING, "everyone but T is fenced as required"),
    Transition(
        "taken-back", Phase.FENCING, Phase.FENCING, "not fenced within 2 action timeouts, and the old one is up"
    ),
    Transition("forced", Phase.FENCING, Phase.FENCING, "the active went down, for as long as patience asks"),
    Transition("unfit", Phase.FENCING, Phase.FENCING, "T is no longer fit, and another is"),
    Transition("dead", Phase.FENCING, Phase.FENCING, "T is down and nobody is fit: the first that is up"),
    Transition("served", Phase.PROMOTING, Phase.STEADY, "a gate serves T, and all reachable ones do or 30 s passed"),
    Transition("unserved", Phase.PROMOTING, Phase.FENCING, "no gate serves T for 30 s, or T is down"),
    Transition("by-hand", Phase.FENCING, Phase.FENCING, "switchover --force"),
    Transition("by-hand", Phase.PROMOTING, Phase.FENCING, "switchover --force"),
)


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    rows = [f"    {t.origin.value} --> {t.goal.value}: {t.name}: {t.when}" for t in TRANSITIONS]
    return "\n".join(["stateDiagram-v2", "    [*] --> steady: adopted", *rows, ""])


@dataclass(frozen=True, slots=True)
class Progress:
    """What a phase that is not finished does next: a new assignment, or steps and what is waited for."""

    transition: str | None
    reason: str
    assignment: Assignment | None = None
    steps: tuple[Step, ...] = ()
    pointings: tuple[Pointing, ...] = ()
    alert: str | None = None


# ---------------------------------------------------------------- beginning


def begin(
    s: Situation,
    target: str,
    cause: Cause,
    reason: str,
    *,
    requested_by: str | None = None,
    request: str | None = None,
    by_force: bool = False,
    redirected: bool = False,
) -> Assignment:
    """The assignment that fences everyone but ``target``; its generation is one higher.

    A handover that is only ``redirected`` is the same failover still, and does not count anew for damping.
    """
    a = s.a
    if a is None:
        raise ValueError("a handover needs an assignment to begin from")
    failovers = tuple(f for f in a.failovers if s.now.since(f) <= DAY)
    if cause in (Cause.FORCED, Cause.UNFIT) and not redirected:
        failovers = (*failovers, s.now)[-FAILOVERS:]
    return replace(
        a,
        generation=a.generation + 1,
        phase=Phase.FENCING,
        active=a.active,
        target=target,
        cause=cause,
        since=s.now,
        reason=reason,
        requested_by=requested_by,
        request=request,
        forced_by_hand=by_force,
        failovers=failovers,
        passed_over=(),
    )


def damping(a: Assignment, now: Instant) -> float:
    """By how much failing back is slowed down: doubled with each further automatic failover within 24 hours."""
    recent = sum(1 for f in a.failovers if now.since(f) <= DAY)
    return float(min(DAMPING_LIMIT, 1 << max(0, recent - 1)))


def bar(a: Assignment, producer: str, until: Instant, reason: str) -> Assignment:
    """The assignment with ``producer`` barred from automatic moves until then."""
    others = tuple(h for h in a.barred if h.producer != producer)
    return replace(a, barred=(*others, Held(producer, until, reason, "failover")))


# ---------------------------------------------------------------- steps


def close_steps(s: Situation, keep: str | None) -> tuple[Step, ...]:
    """Close every answering gate of everyone but ``keep`` that is open or carries sessions."""
    steps = []
    for producer in s.pool.others(keep):
        for proxy in s.answering():
            server = s.server(proxy, producer)
            if server is None:
                continue
            if server.admin is not Admin.MAINT:
                steps.append(_step(s, StepKind.CLOSE, Gate(proxy, producer), f"{producer} is not to be reachable"))
            elif server.sessions > 0:
                steps.append(_step(s, StepKind.CLOSE, Gate(proxy, producer), f"{server.sessions} sessions linger"))
        steps.extend(
            _step(s, StepKind.CLOSE, gate, f"{producer} is not to make blocks that get out")
            for gate in s.switches(producer)
            if s.gate_answers(gate) and s.view.gates[gate].is_open is not False
        )
    return tuple(steps)


def open_steps(s: Situation, producer: str) -> tuple[Step, ...]:
    """Open every answering, uncontested gate of ``producer`` that is not ready. The caller has seen the fence."""
    steps = []
    for proxy in s.answering():
        server = s.server(proxy, producer)
        if server is not None and server.admin is not Admin.READY and not s.contested(proxy):
            steps.append(_step(s, StepKind.OPEN, Gate(proxy, producer), f"{producer} is to be reachable"))
    steps.extend(
        _step(s, StepKind.OPEN, gate, f"{producer} is to make the pool's blocks")
        for gate in s.switches(producer)
        if s.gate_answers(gate) and s.view.gates[gate].is_open is not True and not s.gate_contested(gate)
    )
    return tuple(steps)


def switch_off_steps(s: Situation, target: str, care: Care) -> tuple[Step, ...]:
    """Switch the machines off of whom nothing else can fence, in a forced handover; nothing in any other."""
    return tuple(
        _step(s, StepKind.CLOSE, gate, f"{gate.producer} is down, and nothing else shows that it is shut out")
        for gate in fence.to_switch_off(s, target, care)
        if s.view.gates[gate].is_open is not False
    )


def pointings(s: Situation, producer: str) -> tuple[Pointing, ...]:
    """Point every record at ``producer`` that does not, as far as its provider answers. The caller has seen the fence.

    In steady a record that another hand keeps changing is left alone; a handover changes it all the same.
    """
    if s.a is None:
        raise ValueError("a change needs an assignment")
    term = 0 if s.view.lease is None else s.view.lease.term
    found = []
    for record in s.misplaced(producer):
        track, wanted = s.view.records[record.label], record.wanted(producer)
        if s.a.phase is Phase.STEADY and (s.disputed(record) or signposts.in_flight(track, wanted, s.now)):
            continue
        change = Change(track.rrset, wanted)
        reason = f"it holds {track.rrset or 'nothing'}, and relays are to find {producer}"
        found.append(Pointing(record.label, producer, change, s.a.generation, term, reason))
    return tuple(found)


def _step(s: Situation, kind: StepKind, gate: Gate, reason: str) -> Step:
    a, lease = s.a, s.view.lease
    if a is None:
        raise ValueError("a step needs an assignment")
    return Step(kind, gate, a.generation, 0 if lease is None else lease.term, reason)


# ---------------------------------------------------------------- going on


def go_on(s: Situation) -> Progress:
    """What the present phase, fencing or promoting, does next."""
    a = s.a
    if a is None or a.target is None or a.phase is Phase.STEADY:
        raise ValueError("no phase is unfinished")
    return _fencing(s, a, a.target) if a.phase is Phase.FENCING else _promoting(s, a, a.target)


def elapsed(s: Situation, a: Assignment) -> float:
    """Seconds that the phase has had; a decider that took over in the middle gives it its whole budget."""
    spent = s.now.since(a.since)
    if s.view.acting_since is not None:
        spent = min(spent, s.now.since(s.view.acting_since))
    return spent


def _fencing(s: Situation, a: Assignment, target: str) -> Progress:
    lacks = fence.unfenced(s, target, care_of(a))
    if not lacks:
        return _fenced(s, a, target)
    spent, budget = elapsed(s, a), 2 * s.pool.lease.action_timeout
    old = a.active
    if spent < budget:
        s.wake_in(budget - spent)
    elif old is not None and old != target and s.up(old):
        reason = f"{lacks[0]}; not fenced within {budget:g} s and {old} is up: back to {old}"
        return _redirect(s, a, old, Cause.TAKEN_BACK, "taken-back", reason, bar_target=True)
    if care_of(a) is Care.VOLUNTARY and old is not None and old != target and s.down(old):
        left = health.patience_left(s.view.tracks[old], s.now, s.pool.policy.fail_over_after)
        s.wake_in(left)
        if left <= 0:
            reason = f"{old} went down meanwhile: what does not answer need not be waited for; {lacks[0]}"
            return _redirect(s, a, target, Cause.FORCED, "forced", reason)
    if not a.forced_by_hand and (a.cause is not Cause.TAKEN_BACK or s.down(target)):
        rescue = _rescue(s, a, target)
        if rescue is not None:
            return rescue
    steps = (*close_steps(s, target), *switch_off_steps(s, target, care_of(a)))
    alert = None
    if spent >= budget:
        alert = f"{target} is not let in yet, after {budget:g} s: {'; '.join(lacks[:MOST_LACKS])}"
    return Progress(None, f"fencing everyone but {target}: {lacks[0]}", steps=steps, alert=alert)


def _fenced(s: Situation, a: Assignment, target: str) -> Progress:
    passed = tuple(PassedOver(gate, s.now) for gate in fence.passed_over(s, target, care_of(a)))
    relied = fence.relied(s, target)
    reason = f"everyone but {target} is fenced" + (f"; {relied}" if relied else "")
    alert = None
    if passed:
        names = ", ".join(str(p.gate) for p in passed)
        reason = f"{reason}, passing over {names}, which could not be asked"
        alert = f"{names} passed over: if it still carries traffic, two producers are reachable"
    hidden = fence.unbounded_reloads(s)
    if hidden and a.active != target:
        words = (
            f"{', '.join(hidden)} was reloaded, and its hard_stop_after is unknown: sessions of {a.active} that an old "
            f"worker holds may run on, unseen, while {target} takes over"
        )
        alert = words if alert is None else f"{alert}; {words}"
    if s.pool.gateless:
        alert = reason = _unfenced(s, a, target)
    promoted = replace(
        a, phase=Phase.PROMOTING, active=target, since=s.now, passed_over=passed, exposed=exposed(s, a, target)
    )
    return Progress("fenced", reason, promoted, alert=alert)


def exposed(s: Situation, a: Assignment, target: str) -> tuple[Exposed, ...]:
    """Who may still be reached once ``target`` has the role: where there is a gate, nobody."""
    if not s.pool.gateless:
        return ()
    kept = tuple(e for e in a.exposed if e.producer not in (target, a.active))
    left = a.active is not None and a.active != target and s.reached(a.active)
    return (*kept, Exposed(a.active, s.now)) if left and a.active is not None else kept


def _unfenced(s: Situation, a: Assignment, target: str) -> str:
    """What must be said when there is nothing that could shut the old producer out."""
    others = [p for p in s.pool.others(target) if p == a.active or s.up(p)]
    names = " and ".join(others) or "nobody else"
    words = f"there is no gate: nothing shuts {names} out while {target} takes over"
    if any(s.up(p) for p in others):
        words += "; it is up, and two producers may be reachable until every relay has let go of it"
    return words


def _rescue(s: Situation, a: Assignment, target: str) -> Progress | None:
    """Another target when this one is no longer worth it."""
    if s.fit(target) is True or s.view.isolated:
        return None
    others = s.pool.others(target)
    fit = s.first(others, fit=True)
    if fit is not None and fence.unfenceable(s, fit, _care_to(a, fit)) is None:
        cause = Cause.TAKEN_BACK if fit == a.active else Cause.FORCED
        return _redirect(s, a, fit, cause, "unfit", f"{target} is no longer fit and {fit} is")
    if not s.down(target):
        return None
    up = s.first(others, fit=False)
    if up is not None and fence.unfenceable(s, up, _care_to(a, up)) is None:
        cause = Cause.TAKEN_BACK if up == a.active else Cause.FORCED
        return _redirect(s, a, up, cause, "dead", f"{target} is down, nobody is fit, and {up} is up")
    return None


def _care_to(a: Assignment, producer: str) -> Care:
    return Care.RETURN if producer == a.active else Care.FORCED


def _promoting(s: Situation, a: Assignment, target: str) -> Progress:
    spent = elapsed(s, a)
    serving = s.serving(target)
    waiting = s.not_yet_serving(target)
    if serving and (not waiting or spent >= SERVE_BUDGET):
        names = ", ".join(serving)
        reason = f"{names} points to {target}" if s.pool.gateless else f"{target} is served by {names}"
        if waiting:
            reason += f"; {', '.join(waiting)} not yet"
        return Progress("served", reason, settle(s, a, target))
    gone = s.down(target) if a.forced_by_hand else s.down(target) or s.health(target).value == "down"
    alert = None
    if gone or (not serving and spent >= SERVE_BUDGET):
        what = "record points to" if s.pool.gateless else "gate serves"
        alert = f"no {what} {target}, and nobody else can take over safely"
        moved = _unserved(s, a, target, gone)
        if moved is not None:
            return moved
    else:
        s.wake_in(SERVE_BUDGET - spent)
    steps = close_steps(s, target)
    lacks = fence.unfenced(s, target, care_of(a))
    if lacks:
        return Progress(None, f"promoting {target}: {lacks[0]}", steps=steps, alert=alert)
    gateless = s.unservable(target, voluntary=False) if s.pool.gateless else None
    waited = ", ".join(waiting) or gateless or ("a proxy" if s.pool.proxies else "its gates")
    words = f"promoting {target}: waiting for {waited}"
    words += _failures(s)
    steps += open_steps(s, target)
    return Progress(None, words, steps=steps, pointings=pointings(s, target), alert=alert)


def _failures(s: Situation) -> str:
    """Why records could not be changed, where there is nothing else."""
    failures = [t.failure for t in s.view.records.values() if t.failure is not None] if s.pool.gateless else []
    return f" ({failures[0]})" if failures else ""


def _unserved(s: Situation, a: Assignment, target: str, gone: bool) -> Progress | None:
    others = s.pool.others(target)
    fenceable = tuple(p for p in others if fence.unfenceable(s, p, Care.RETURN) is None)
    if s.pool.gateless and not gone:  # a provider that takes no change is nobody's fault: only back to where it points
        fenceable = tuple(p for p in fenceable if s.serving(p))
    heir = s.first(fenceable, fit=True) or s.first(fenceable, fit=False)
    if heir is None and (gone or not s.pool.gateless):  # one that is barred is better than nobody, once the bar is old
        heir = next(iter(s.heirs(fenceable)), None)
    if heir is None:
        return None
    unserved = "no record could be pointed to" if s.pool.gateless else "no gate serves"
    failures = _failures(s)
    why = f"{target} is down" if gone else f"{unserved} {target} after {SERVE_BUDGET:g} s{failures}"
    return _redirect(s, a, heir, Cause.TAKEN_BACK, "unserved", f"{why}: on to {heir}", bar_target=True)


def _redirect(
    s: Situation, a: Assignment, to: str, cause: Cause, name: str, reason: str, *, bar_target: bool = False
) -> Progress:
    """Fence towards another producer, in a generation of its own."""
    moved = begin(s, to, cause, reason, request=a.request, redirected=True)
    if bar_target and a.target is not None:
        again = name == "unserved" or a.cause in (Cause.UNFIT, Cause.VOLUNTARY)
        if again:  # whoever could not be let in by a move of our own, again and again, is tried ever more seldom
            moved = replace(moved, failovers=(*moved.failovers, s.now)[-FAILOVERS:])
        wait = s.pool.policy.fail_back_after * (damping(moved, s.now) if again else 1.0)
        moved = bar(moved, a.target, s.now.after(wait), reason)
    if cause is Cause.TAKEN_BACK or a.cause is Cause.BY_HAND:  # the pin of a switchover that did not succeed
        moved = replace(moved, pinned=None)
    return Progress(name, reason, moved, alert=reason)


def settle(s: Situation, a: Assignment, target: str) -> Assignment:
    """The steady assignment at the end of a handover; its reason stays the one for which that was begun."""
    return replace(
        a,
        phase=Phase.STEADY,
        active=target,
        target=None,
        since=s.now,
        forced_by_hand=False,
        barred=tuple(h for h in a.barred if h.producer != target),
        request=None,
    )
