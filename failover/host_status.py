"""Gates on producers' hosts, nodes' own metrics and relays, as the status document has them. Pure.

Keys are part of the public face (``failover status --json``); a gate that does not answer has ``open`` null, and what
it last said under ``last_open``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import fence, nodes
from .journal import iso
from .model import Gate, GateKind, Relay
from .situation import Situation

GATE_COLUMNS = ("gate", "state", "shown by", "")
RELAY_COLUMNS = ("relay", "connected to", "others", "")


def gate(s: Situation, gate: Gate) -> dict[str, Any]:
    """One gate on a producer's own host."""
    track = s.view.gates[gate]
    reading = track.reading
    said = reading is not None and track.current
    return {
        "name": str(gate),
        "kind": gate.kind.value,
        "proxy": None,
        "producer": gate.producer,
        "open": track.is_open if track.answers else None,
        "tainted": False,
        "reachable": track.answers,
        "last_open": track.is_open,
        "certain": reading is not None and track.answers and reading.certain,
        "shown": list(reading.shown) if reading is not None and said else [],
        "lacks": list(reading.lacks) if reading is not None and said else [],
        "error": track.error if track.silent_since is not None else None,
    }


def node(s: Situation, producer: str) -> dict[str, Any] | None:
    """What a producer's node says of itself; null where nobody asks it."""
    track = s.view.nodes.get(producer)
    if track is None:
        return None
    reading = track.reading
    gate = s.view.gates.get(Gate(GateKind.FORGING.value, producer))
    held = None if gate is None else gate.reading
    return {
        "forges": nodes.forging_now(track, s.now),
        "forged": None if reading is None else reading.forged,
        "adopted": None if reading is None else reading.adopted,
        "kes_periods_left": None if reading is None else nodes.periods_left(reading, held),
        "starting_percent": nodes.starting(track, s.now),
        "version": None if reading is None else reading.version,
        "error": track.error,
    }


def relay(s: Situation, relay: Relay) -> dict[str, Any]:
    """One relay of the file. ``connected`` is null for one without an agent: nobody can tell."""
    track = s.view.relays.get(relay.name)
    document: dict[str, Any] = {
        "name": relay.name,
        "address": str(relay.address),
        "managed": relay.managed,
        "reachable": None if track is None else track.answers,
        "connected": None,
        "others": None,
        "ended": None,
        "may_look_up_until": None,
        "error": None,
    }
    if track is None:
        return document
    if track.reading is not None:
        document["connected"] = [
            {"producer": seen.session.producer, "peer": seen.session.peer, "since": iso(seen.since.utc)}
            for seen in track.sessions
        ]
        document["others"] = track.reading.others
    kicked = track.last_kicked
    if kicked is not None:
        document["ended"] = {"generation": kicked.generation, "times": kicked.times, "at": iso(kicked.at.utc)}
    document["error"] = track.error if track.silent_since is not None else None
    document["may_look_up_until"] = _looked_up(s)
    return document


def _looked_up(s: Situation) -> str | None:
    """Until when, at worst, relays may still look up a producer that the role has left."""
    a = s.a
    if a is None or a.active is None or not s.pool.records:
        return None
    untils = [u for p in s.pool.others(a.active) if (u := s.believed(p)) is not None and not u.reached(s.now)]
    return iso(max(untils, key=lambda until: until.utc).utc) if untils else None


def fenced_by(s: Situation, producer: str) -> str | None:
    """The kind of gate that shuts the producer out for sure just now, or null."""
    kind = None if s.pool.gateless else fence.sure(s, producer)
    return None if kind is None else kind.value


# ---------------------------------------------------------------- for people

_STATES = {True: "open", False: "closed", None: "between"}
_POWER = {True: "on", False: "off", None: "unknown"}


def gate_rows(doc: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row for each gate on a producer's own host, as GATE_COLUMNS."""
    rows: list[tuple[str, ...]] = []
    for found in doc["gates"]:
        if found["kind"] == GateKind.HAPROXY.value:
            continue
        words = _POWER if found["kind"] == GateKind.POWER.value else _STATES
        state, remark = words[found["last_open"]], "; ".join(found["lacks"])
        if not found["reachable"]:
            state = "-" if found["last_open"] is None else state
            why = (found["error"] or "").removeprefix(f"{found['name']}: ")
            remark = f"silent; shown is what it last said{': ' + why if why else ''}" if why else "not read yet"
        rows.append((found["name"], state, "; ".join(found["shown"]) or "-", remark))
    return rows


def relay_rows(doc: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row for each relay, as RELAY_COLUMNS."""
    rows: list[tuple[str, ...]] = []
    for found in doc["relays"]:
        if found["connected"] is None:
            remark = "no agent: nobody can tell" if found["reachable"] is None else found["error"] or "not read yet"
            rows.append((found["name"], "?", "-", remark))
            continue
        by: dict[str, int] = {}
        for session in found["connected"]:
            by[session["producer"]] = by.get(session["producer"], 0) + 1
        whom = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in by.items()) or "no producer"
        remark = "" if found["managed"] else "only watched"
        if not found["reachable"]:
            remark = f"silent; shown is what it last said: {found['error']}"
        rows.append((found["name"], whom, str(found["others"]), remark))
    return rows
