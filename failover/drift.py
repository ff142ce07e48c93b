"""Drift: everything observed that differs from what the assignment says, split brain apart (splits.py). Pure.

Here is what a person sees as drift and is told of it; what is done about it, rule 13 decides (policy.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from . import health, kicks, nodes, signposts
from .board import ProxyTrack
from .hostgates import GateTrack
from .journal import iso
from .model import Drift, Gate, GateKind, Health, Instant, Phase, Record
from .nodes import NodeTrack
from .situation import MOST_FINDINGS, RELOAD_DOUBT, Situation


def _tell_of_standbys(s: Situation, active: str) -> None:
    """Somebody who could not take over is worth knowing of before that is needed."""
    for name in s.pool.others(active):
        if s.health(name) is not Health.DOWN or name not in (s.a.seen if s.a is not None else ()):
            continue
        down = health.down_for(s.view.tracks[name], s.now)
        idle = down if s.a is None else min(down, s.now.since(s.a.since))  # why the role left it was told
        s.wake_in(s.pool.policy.fail_over_after - idle)
        if idle >= s.pool.policy.fail_over_after:
            s.alert(f"standby-down:{name}", f"{name} has been down for {down:.0f} s: it could not take over")


def _tell_of_idle(s: Situation, proxy: str, active: str, since: Instant | None) -> None:
    """A proxy that serves nobody, although the active is there, is told once it has lasted."""
    if since is None or not s.somebody_sees_up(active):
        return
    left = s.pool.policy.fail_over_after - s.now.since(since)
    s.wake_in(left)
    if left <= 0:
        words = f"{proxy} has not served {active} for {s.pool.policy.fail_over_after:g} s: {_why_not(s, proxy, active)}"
        s.alert(f"not-serving:{proxy}", words)


def find(s: Situation, known: Mapping[tuple[str, str], Instant]) -> tuple[Drift, ...]:
    """What differs from the assignment, split brain apart (splits.py); ``known`` dates what was seen before."""
    found: list[tuple[str, str, str]] = []
    for name, track in s.view.proxies.items():
        found.extend((kind, name, what) for kind, what in _proxy_drift(s, name, track))
    a = s.a
    if a is not None:
        late = "may yet be opened by a late command"
        found.extend(("tainted", str(taint.gate), late) for taint in a.tainted)
        passed = "was passed over while silent: it may still carry traffic"
        found.extend(("passed-over", str(over.gate), passed) for over in a.passed_over)
        for exposed in a.exposed:
            what = _exposure(s, exposed.producer)
            found.append(("exposed", exposed.producer, what))
            if s.up(exposed.producer):
                s.alert(f"exposed:{exposed.producer}", what)
        if a.phase is Phase.STEADY and a.active is not None:
            idle = [name for name in s.answering() if name not in s.serving_gates(a.active)]
            for name in idle:
                _tell_of_idle(s, name, a.active, known.get(("not-serving", str(Gate(name, a.active)))))
            _tell_of_standbys(s, a.active)
            found.extend(("not-serving", str(Gate(name, a.active)), _why_not(s, name, a.active)) for name in idle)
    found.extend(_host_drift(s, known))
    found.extend(kicks.drift(s, known))
    _tell_of_lag(s)
    for record in s.pool.records:
        found.extend((kind, record.label, what) for kind, what in _record_drift(s, record))
    return tuple(Drift(kind, where, what, known.get((kind, where), s.now)) for kind, where, what in found)


def _tell_of_lag(s: Situation) -> None:
    """All producers behind the references by as much: nothing can be moved for that, and a person should look."""
    tracks = s.view.tracks.values()
    behind = [t.lag for t in tracks if t.sync is health.Sync.STANDSTILL and t.lag is not None]
    if len(behind) == len(tracks) and min(behind) > s.pool.health.max_lag:
        words = (
            f"references claim a tip at least {min(behind)} slots ahead of every producer: either they are wrong, or "
            "all producers are cut off from the network; which of them is active makes no difference, nothing is moved"
        )
        s.alert("all-lag", words)


def _host_drift(s: Situation, known: Mapping[tuple[str, str], Instant]) -> list[tuple[str, str, str]]:
    """What is not as it should be with gates on producers' own hosts, and with their nodes' credentials."""
    found: list[tuple[str, str, str]] = []
    a = s.a
    active = a.active if a is not None and a.phase is Phase.STEADY else None
    for gate, track in s.view.gates.items():
        if not track.tried:
            continue
        if not track.answers:
            found.append(("gate-silent", str(gate), _told_silent(s, gate)))
            continue
        if s.gate_contested(gate):
            words = "someone else keeps changing it: nothing is opened there"
            found.append(("another-hand", str(gate), words))
            s.alert(f"another-hand:{gate}", f"{gate}: {words}")
        if gate.kind is GateKind.POWER:
            if track.is_open is False:
                found.append(("powered-off", str(gate), _powered_off(s, gate.producer)))
        elif gate.producer == active and track.is_open is not True:
            words = f"{_shut_words(track)}, though {active} is active"
            found.append(("not-serving", str(gate), words))
            _tell_of_shut(s, gate, words, known.get(("not-serving", str(gate))))
        if track.reading is not None:
            found.extend(("host", str(gate), words) for words in track.reading.findings[:MOST_FINDINGS])
    if active is not None and _idle(s, active):
        words = "its about-to-lead counter stands still: it makes no blocks, though it is active"
        found.append(("not-forging", active, words))
        s.alert(f"not-forging:{active}", f"{active}: {words}")
    for name, node in s.view.nodes.items():
        found.extend(("credentials", name, words) for words in _credentials(s, name, node))
    return found


def _tell_of_shut(s: Situation, gate: Gate, words: str, since: Instant | None) -> None:
    """The active's own gate is not open, and that has lasted: nobody makes blocks."""
    if since is None or not s.up(gate.producer):
        return
    left = 2 * s.pool.lease.action_timeout - s.now.since(since)
    s.wake_in(left)
    if left <= 0:
        s.alert(f"not-serving:{gate}", f"{gate} {words}: nobody makes blocks")


def _idle(s: Situation, active: str) -> bool:
    """Whether the active is up, has had the role for a while, and is seen not to try a single slot."""
    node = s.view.nodes.get(active)
    if node is None or s.a is None or not s.up(active):
        return False
    return nodes.forging_now(node, s.now) is False and s.now.since(s.a.since) >= nodes.FRESH


def _told_silent(s: Situation, gate: Gate) -> str:
    left = s.silent_left(gate)
    s.wake_in(left)
    words = s.silence(gate).removeprefix(f"{gate}: ").removeprefix(f"{gate} ")
    if left <= 0:
        s.alert(f"gate-silent:{gate}", f"{gate} has been silent for {s.pool.policy.fail_over_after:g} s: {words}")
    return words


def _shut_words(track: GateTrack) -> str:
    state = "is shut" if track.is_open is False else "is neither open nor shut"
    lacks = "" if track.reading is None or not track.reading.lacks else f" ({track.reading.lacks[0]})"
    return f"{state}{lacks}"


def _powered_off(s: Situation, producer: str) -> str:
    power = next(p.power for p in s.pool.producers if p.name == producer)
    on = " ".join(power.on) if power is not None and power.on is not None else "its own switch"
    return f"{producer}'s machine is switched off: mend it, see that it starts closed, and switch it on by hand ({on})"


def _credentials(s: Situation, name: str, node: NodeTrack) -> list[str]:
    reading = node.reading
    if reading is None:
        return []
    if node.expired_since is not None:
        words = "its KES key or certificate has expired: it can sign no block until new ones are installed"
        s.alert(f"credentials:{name}", f"{name}: {words}")
        return [words]
    gate = s.view.gates.get(Gate(GateKind.FORGING.value, name))
    left = nodes.ends_soon(reading, None if gate is None else gate.reading)
    if left is None:
        return []
    words = f"its KES key ends in {left} periods (36 h each on mainnet): make new ones (install-credentials)"
    s.alert(f"credentials:{name}", f"{name}: {words}")
    return [words]


def _proxy_drift(s: Situation, name: str, track: ProxyTrack) -> list[tuple[str, str]]:
    found = []
    if track.tried and not track.answers:
        words = (track.error or "does not answer").removeprefix(f"{name}: ").removeprefix(f"{name} ")
        found.append(("proxy-silent", words))
        left = s.silent_left(Gate(name, ""))
        s.wake_in(left)
        if s.misdirected(track):
            s.alert(f"misdirected:{name}", f"{name}: {words}; it is not steered until then")
        elif left <= 0:
            s.alert(f"proxy-silent:{name}", f"{name} has been silent for {s.pool.policy.fail_over_after:g} s: {words}")
    if s.contested(name):
        words = "someone else keeps changing it: nothing is opened there"
        found.append(("another-hand", words))
        s.alert(f"another-hand:{name}", f"{name}: {words}")
    bound = next(p.hard_stop_after for p in s.pool.proxies if p.name == name)
    if bound is None and track.reloaded_at is not None:
        left = RELOAD_DOUBT - s.now.since(track.reloaded_at)
        if left > 0:
            s.wake_in(left)
            found.append(("reloaded", "was reloaded and may hide sessions: its hard_stop_after is unknown"))
    return found


def _exposure(s: Situation, producer: str) -> str:
    until = s.believed(producer)
    looked_up = until is not None and s.a is not None and not until.reached(s.now)
    when = f"until {iso(until.utc)}" if until is not None and looked_up else "for longer than a ping interval"
    last = s.view.tracks[producer].last
    if last is not None and last.refused:
        return (
            f"{producer}'s node is gone, and with it every session; but relays may still look its old address up: "
            f"keep it stopped {when}, or they connect to it when it is back"
        )
    rest = "stop its node for longer than a ping interval (that is seen here), and restart relays that stick to it"
    if s.pool.relays and all(relay.managed for relay in s.pool.relays):
        rest = "its relays are made to let go of it, one at a time"
        again = f"; they may look it up {when}" if looked_up else ""
        return f"{producer} is {s.health(producer).value}, and {rest}{again}"
    if looked_up:
        rest = f"nobody looks it up any more after {when.removeprefix('until ')}: then {rest}"
    return (
        f"{producer} is {s.health(producer).value}, and relays that connected to it may stay with it, "
        f"for nothing shuts it out: {rest}"
    )


def _record_drift(s: Situation, record: Record) -> list[tuple[str, str]]:
    a, track = s.a, s.view.records[record.label]
    settled = a is not None and a.phase is Phase.STEADY
    signs = signposts.drift(record, track, a.active if a is not None and settled else None, s.now)
    for sign in signs:
        if sign.alert:
            s.alert(f"{sign.kind}:{record.label}", f"{record.label}: {sign.what}")
    return [(sign.kind, sign.what) for sign in signs]


def _why_not(s: Situation, proxy: str, producer: str) -> str:
    server = s.server(proxy, producer)
    return "was not read" if server is None else f"does not serve the active: {server.admin.value}, {server.status}"
