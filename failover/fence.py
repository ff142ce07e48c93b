"""The fence: what still lacks until a producer is shut out, and whether it could be shut out now. Pure.

Two questions are kept apart. ``fence.require: reachable`` asks that every gate that answers is shut, and says which
silent ones may be passed over. A fence is *sure* when one kind of gate that truly fences (forging, firewall, power;
proxies only where they are declared to be the only path) confirms for all its instances; that is what ``confirmed``
asks for, and under ``reachable`` it makes waiting for silent gates of other kinds needless.
"""

from __future__ import annotations

from .board import ProxyTrack
from .hostgates import GateTrack
from .model import Admin, Gate, GateKind, Phase
from .situation import RELOAD_DOUBT, Care, Situation

WORDS = {
    GateKind.HAPROXY: "every proxy, the only path, is closed",
    GateKind.FORGING: "forging is off",
    GateKind.FIREWALL: "its firewall is closed in both directions",
    GateKind.POWER: "its power is off",
}


# ---------------------------------------------------------------- a whole fence


def unfenced(s: Situation, target: str, care: Care) -> tuple[str, ...]:
    """What lacks until everyone but ``target`` is fenced as required; empty when nothing does."""
    return tuple(lack for producer in s.pool.others(target) for lack in _open_ways(s, producer, care))


def _open_ways(s: Situation, producer: str, care: Care) -> tuple[str, ...]:
    if s.pool.gateless:
        return ()
    certain = sure(s, producer) is not None
    if certain and care is not Care.VOLUNTARY:
        return ()
    if s.strict and not certain and care is not Care.BY_FORCE:
        found = [lacks[0] for lacks in _true_kinds(s, producer).values()]
        return (f"{producer} is not shut out for sure by any one gate: {'; '.join(found)}",) if found[1:] else (*found,)
    lacks = [not_shut(s, gate, care) for gate in s.ways(producer)]  # a voluntary one leaves nothing open behind it
    return tuple(lack for lack in lacks if lack is not None)


def sure(s: Situation, producer: str) -> GateKind | None:
    """The kind of gate that truly fences the producer now, confirmed for all its instances; None where none does."""
    return next((kind for kind, lacks in _true_kinds(s, producer).items() if not lacks), None)


def relied(s: Situation, target: str) -> str:
    """On what the fence around ``target`` relies, in words; empty where it is proxies as always."""
    words = []
    for producer in s.pool.others(target):
        kind = sure(s, producer)
        if kind is not None and kind is not GateKind.HAPROXY:
            shown = s.view.gates[Gate(kind.value, producer)].reading
            details = "" if shown is None or not shown.shown else f" ({'; '.join(shown.shown[:4])})"
            words.append(f"{producer}: {WORDS[kind]}{details}")
    return "; ".join(words)


def _true_kinds(s: Situation, producer: str) -> dict[GateKind, list[str]]:
    """For each kind of gate that truly fences the producer: what its instances lack."""
    found: dict[GateKind, list[str]] = {}
    if s.pool.proxies and s.pool.fence.proxies_are_only_path:
        lacks = [_proxy_not_shut(s, gate, Care.VOLUNTARY) for gate in s.ways(producer) if gate.place in s.view.proxies]
        found[GateKind.HAPROXY] = [lack for lack in lacks if lack is not None]
    for gate in s.pool.gates_of(producer):
        lack = _host_not_shut(s, gate, Care.VOLUNTARY, certainly=True)
        found[gate.kind] = [] if lack is None else [lack]
    if not found and s.strict:
        found[GateKind.HAPROXY] = [f"{producer} has no gate that truly fences"]
    return found


def passed_over(s: Situation, target: str, care: Care) -> tuple[Gate, ...]:
    """Silent gates of others that a fence which is complete did not wait for."""
    return tuple(
        gate
        for producer in s.pool.others(target)
        if sure(s, producer) is None
        for gate in s.ways(producer)
        if not s.gate_answers(gate) and not last_seen_shut(s, gate, care)
    )


# ---------------------------------------------------------------- one gate


def not_shut(s: Situation, gate: Gate, care: Care) -> str | None:
    """What lacks until the gate is confirmed closed (or rightly passed over); None when nothing does."""
    if gate.place in s.view.proxies:
        return _proxy_not_shut(s, gate, care)
    return _host_not_shut(s, gate, care)


def _proxy_not_shut(s: Situation, gate: Gate, care: Care) -> str | None:
    track = s.view.proxies[gate.place]
    if not track.answers:
        return _silent(s, gate, care)
    server = s.server(gate.place, gate.producer)
    if server is None:
        return f"{gate} was not read"
    if server.admin is not Admin.MAINT:
        return f"{gate} is open ({server.admin.value})"
    if server.sessions:
        return f"{gate} still carries {server.sessions} session{'s' if server.sessions > 1 else ''}"
    if s.tainted(gate):
        return f"{gate} may yet be opened by a late command"
    if not _read_since_phase(s, track):
        return f"{gate.place} was not read since the phase began"
    if care is Care.RETURN and not s.strict and gate.producer in track.clean:
        return None
    return _hidden(s, track, gate.place)


def _host_not_shut(s: Situation, gate: Gate, care: Care, *, certainly: bool = False) -> str | None:
    """``certainly``: as far as its kind can show it at all; otherwise what the gate says of itself is enough."""
    track = s.view.gates[gate]
    if not track.answers or track.reading is None:
        return s.silence(gate) if certainly else _silent(s, gate, care)
    if track.reading.open is not False:
        state = "open" if track.reading.open else "not closed yet"
        lacks = f": {track.reading.lacks[0]}" if track.reading.lacks else ""
        return f"{gate} is {state}{lacks}"
    if not _read_since_phase(s, track):
        return f"{gate} was not read since the phase began"
    if certainly and not track.reading.certain:
        return f"{gate} is closed, but could not show it: {', '.join(track.reading.lacks) or 'it said no more'}"
    return None


def _read_since_phase(s: Situation, track: ProxyTrack | GateTrack) -> bool:
    a = s.a
    if a is None or a.phase is not Phase.FENCING or track.read_at is None:
        return True
    return a.since.boot != s.now.boot or track.read_at.mono > a.since.mono


# ---------------------------------------------------------------- silent gates


def _silent(s: Situation, gate: Gate, care: Care) -> str | None:
    if last_seen_shut(s, gate, care) or _accepted(s, gate, care):
        return None
    silence = s.silence(gate)
    if care is Care.VOLUNTARY:
        return silence
    if care is not Care.BY_FORCE and not s.down(gate.producer):
        return f"{silence}, and {gate.producer} is not down by majority"
    left = s.silent_left(gate)
    if left > 0:
        s.wake_in(left)
        return f"{silence}; it may be passed over in {left:.0f} s"
    return None


def _accepted(s: Situation, gate: Gate, care: Care) -> bool:
    """Steady, and this handover passed the gate over: what was accepted then does not hinder re-opening."""
    a = s.a
    if a is None or care is not Care.RETURN or a.phase is not Phase.STEADY:
        return False
    return any(passed.gate == gate for passed in a.passed_over)


def last_seen_shut(s: Situation, gate: Gate, care: Care) -> bool:
    """A silent gate that last read closed, empty and untainted, with nobody opened since.

    It counts as closed on every return; in a forced handover only for a producer that did not have the role; in a
    voluntary one only on such a producer's own host: its agent opens nothing by an old order, a proxy might.
    """
    a = s.a
    if s.strict or a is None or (care is not Care.RETURN and gate.producer == a.active):
        return False
    if gate.place in s.view.proxies:
        if care is Care.VOLUNTARY:
            return False
        track = s.view.proxies[gate.place]
        if track.reading is None or s.tainted(gate) or gate.producer in track.opened:
            return False
        server = track.reading.servers.get(gate.producer)
        return server is not None and server.admin is Admin.MAINT and server.sessions == 0
    host = s.view.gates[gate]
    return host.reading is not None and host.reading.open is False and not host.opened


# ---------------------------------------------------------------- reloads of proxies


def _hidden_for(s: Situation, track: ProxyTrack, proxy: str) -> float:
    """Seconds for which sessions may yet be hidden by a reload; without a known bound, for ever or not at all."""
    if track.reloaded_at is None:
        return 0.0
    bound = next(p.hard_stop_after for p in s.pool.proxies if p.name == proxy)
    if bound is None:
        return float("inf") if s.strict else 0.0
    return max(0.0, bound - s.now.since(track.reloaded_at))


def _hidden(s: Situation, track: ProxyTrack, proxy: str) -> str | None:
    """A reload hides the old worker's sessions for hard_stop_after; unknown blocks ``confirmed`` only."""
    left = _hidden_for(s, track, proxy)
    if left <= 0:
        return None
    if left == float("inf"):
        return f"{proxy} was reloaded and its hard_stop_after is unknown"
    s.wake_in(left)
    return f"{proxy} was reloaded, and may hide sessions for another {left:.0f} s"


def unbounded_reloads(s: Situation) -> tuple[str, ...]:
    """Proxies that were reloaded within the day, and of which nobody knows how long they hide sessions."""
    bounds = {p.name: p.hard_stop_after for p in s.pool.proxies}
    return tuple(
        name
        for name, track in s.view.proxies.items()
        if bounds[name] is None and track.reloaded_at is not None and s.now.since(track.reloaded_at) < RELOAD_DOUBT
    )


# ---------------------------------------------------------------- whether it could be done now


def unfenceable(s: Situation, target: str, care: Care, *, within: float = 0.0) -> str | None:
    """Why a fence around ``target`` could not complete now, or None: a handover starts only if it could.

    ``within`` (seconds) is how long sessions that a reload hides may hold up a voluntary one.
    """
    if s.pool.gateless:
        return None
    if care is Care.VOLUNTARY:
        late = [str(gate) for gate in s.taints() if gate.producer != target]
        if late:
            return f"{min(late)} may yet be opened by a late command"
        for proxy in s.answering():
            if _hidden_for(s, s.view.proxies[proxy], proxy) > within:
                return _hidden(s, s.view.proxies[proxy], proxy)
        active = None if s.a is None else s.a.active
        if s.strict and active not in (None, target) and s.let_in(active or "") and sure(s, target) is None:
            lack = _true_lack(s, target)
            return f"{target} is not shut out for sure, so that the role could not be taken back: {lack}"
    for producer in s.pool.others(target):
        lack = _unshuttable(s, producer, care)
        if lack is not None:
            return lack
    if s.pool.proxies and not s.answering() and not _other_ways(s, target):
        return "no proxy answers"
    return None


def _other_ways(s: Situation, target: str) -> bool:
    """Whether everyone but the target could be fenced without any proxy."""
    return all(_could_be_sure(s, producer) for producer in s.pool.others(target))


def _could_be_sure(s: Situation, producer: str) -> bool:
    """Whether a gate of its own answers that, once closed, shows it: one that is closed and does not will not.

    Or every proxy answers, where they are the only path.
    """
    if s.pool.proxies and s.pool.fence.proxies_are_only_path and not s.silent():
        return True
    for gate in s.switches(producer):
        track = s.view.gates[gate]
        if track.answers and track.reading is not None and (track.reading.certain or track.is_open is not False):
            return True
    return s.powered(producer) and s.down(producer)


def _unshuttable(s: Situation, producer: str, care: Care) -> str | None:
    """Why this producer could not be shut out now."""
    if care is Care.VOLUNTARY:
        lacks = (_silent(s, gate, care) for gate in s.ways(producer) if not s.gate_answers(gate))
        return next((lack for lack in lacks if lack is not None), None) or _never_sure(s, producer)
    if _could_be_sure(s, producer):
        return None
    if s.strict and care is not Care.BY_FORCE:
        return _never_sure(s, producer) or _true_lack(s, producer)
    for gate in s.ways(producer):
        lack = None if s.gate_answers(gate) else _silent(s, gate, care)
        if lack is not None:
            return lack
    return None


def _never_sure(s: Situation, producer: str) -> str | None:
    """Under ``confirmed``, a producer of which nothing that it has could ever confirm."""
    if not s.strict or s.pool.fence.proxies_are_only_path or s.pool.gates_of(producer):
        return None
    return f"{producer} has no gate that truly fences"


def _true_lack(s: Situation, producer: str) -> str | None:
    return next((lacks[0] for lacks in _true_kinds(s, producer).values() if lacks), None)


# ---------------------------------------------------------------- power


def to_switch_off(s: Situation, target: str, care: Care) -> tuple[Gate, ...]:
    """The machines that a forced fence around ``target`` switches off, because nothing else confirms.

    Never while the producer answers anybody, never in a voluntary handover: then the other gates can be asked.
    """
    if care is Care.VOLUNTARY:
        return ()
    return tuple(
        Gate(GateKind.POWER.value, producer)
        for producer in s.pool.others(target)
        if s.powered(producer) and s.down(producer) and _open_ways(s, producer, care) and _needs_power(s, producer)
    )


def _needs_power(s: Situation, producer: str) -> bool:
    """Whether nothing gentler will do: what answers has two action timeouts to show that it is shut."""
    left = [_time_left(s, gate) for gate in s.switches(producer) if s.gate_answers(gate)]
    if left and min(left) > 0:
        s.wake_in(min(left))
        return False
    return s.strict or any(not s.gate_answers(gate) for gate in s.ways(producer))


def _time_left(s: Situation, gate: Gate) -> float:
    """Seconds that a gate which answers still has: counted while it could be asked to close, and somebody decided."""
    asked = [s.view.gates[gate].answering_since, None if s.a is None else s.a.since, s.view.acting_since]
    spent = min((s.now.since(at) for at in asked if at is not None), default=0.0)
    return 2 * s.pool.lease.action_timeout - spent
