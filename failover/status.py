"""The pool at a glance: the status document from what a controller reports, and its rendering for people.

Pure. The document's keys are the public face of ``failover status --json`` and of ``/status`` (INTERFACE): they change
only on purpose. Rendering starts from the document alone, so that it works as well on one that came over HTTP or out
of the state folder. Durations are seconds, times are UTC in ISO-8601 with a Z.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from . import health, host_status, nodes, record_status
from .journal import iso
from .model import Admin, Assignment, Drift, Gate, Health, Held, Instant, Lease, Phase, Pool, Record
from .situation import Situation

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .board import ProxyTrack, View
    from .policy import Decision

Document = Mapping[str, Any]


class Coming(Protocol):
    """An automatic move that is under way to happen; the tick's ``NextAction`` is one."""

    @property
    def action(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def waits_for(self) -> str: ...


class Decided(Protocol):
    """What a document needs of a decision; the tick's ``Outcome`` is one."""

    @property
    def decision(self) -> Decision: ...
    @property
    def drift(self) -> tuple[Drift, ...]: ...
    @property
    def split_brain(self) -> bool: ...
    @property
    def next(self) -> Sequence[Coming]: ...


class Observed(Protocol):
    """What a document is made of; the controller's ``Report`` is one."""

    @property
    def pool(self) -> Pool: ...
    @property
    def view(self) -> View: ...
    @property
    def assignment(self) -> Assignment | None: ...
    @property
    def outcome(self) -> Decided | None: ...
    @property
    def lease(self) -> Lease | None: ...
    @property
    def held(self) -> bool: ...
    @property
    def now(self) -> Instant: ...
    @property
    def store_error(self) -> str | None: ...
    @property
    def tick_seconds(self) -> float: ...


# ---------------------------------------------------------------- the document


def document(
    report: Observed, *, pid: int | None = None, version: str | None = None, last_tick: Instant | None = None
) -> dict[str, Any]:
    """The status document, JSON-ready. ``last_tick`` dates the report's outcome."""
    pool, view, now = report.pool, report.view, report.now
    s = Situation(pool, view, report.assignment, now)
    outcome = report.outcome
    drift = () if outcome is None else outcome.drift
    return {
        "pool": pool.name,
        "mode": pool.mode,
        "fence": pool.fence.require,
        **assigned(report.assignment),
        "isolated": view.isolated,
        "split_brain": outcome is not None and outcome.split_brain,
        "drift": [_drift(d) for d in drift],
        "decision": _decision(outcome),
        "next": _next(outcome, now, last_tick or now),
        "decider": decider(report.lease, now, report.held),
        "producers": [_producer(s, name) for name in pool.names],
        "gates": [
            *(_gate(s, p.name, name) for p in pool.proxies for name in pool.names),
            *(host_status.gate(s, gate) for gate in pool.host_gates),
        ],
        "proxies": [_proxy(p.name, view.proxies[p.name]) for p in pool.proxies],
        "records": [_record(s, record) for record in pool.records],
        "relays": [host_status.relay(s, relay) for relay in pool.relays],
        "store_error": report.store_error,
        "daemon": {
            "pid": pid,
            "version": version,
            "last_tick": None if last_tick is None else iso(last_tick.utc),
            "tick_seconds": round(report.tick_seconds, 6),
        },
    }


def _drift(d: Drift) -> dict[str, Any]:
    return {
        "where": d.where,
        "what": d.what,
        "since": iso(d.since.utc),
        "kind": d.kind,
        "split_brain": d.split_brain,
    }


def assigned(a: Assignment | None) -> dict[str, Any]:
    """The part of the document that only says what is assigned; all of it is there without an assignment, too."""
    return {
        "phase": None if a is None else a.phase.value,
        "active": None if a is None else a.active,
        "target": None if a is None else a.target,
        "generation": 0 if a is None else a.generation,
        "revision": 0 if a is None else a.revision,
        "cordoned": [] if a is None else [_held(h) for h in a.cordoned],
        "barred": [] if a is None else [_held(h) for h in a.barred],
        "released": a is not None and a.released,
        "since": None if a is None else iso(a.since.utc),
        "reason": None if a is None else a.reason,
        "cause": None if a is None else a.cause.value,
        "requested_by": None if a is None else a.requested_by,
        "paused": None if a is None or a.paused is None else _held(a.paused),
        "pinned": None if a is None or a.pinned is None else _held(a.pinned),
        "exposed": [] if a is None else [{"producer": e.producer, "since": iso(e.since.utc)} for e in a.exposed],
    }


def _held(held: Held) -> dict[str, Any]:
    until = None if held.until is None else iso(held.until.utc)
    return {"producer": held.producer or None, "until": until, "reason": held.reason, "by": held.by}


def _decision(outcome: Decided | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    decision = outcome.decision
    lacked = [{"rule": number, "words": words} for number, words in decision.lacked]
    return {"rule": decision.rule, "title": decision.title, "reason": decision.verdict.reason, "lacked": lacked}


def _next(outcome: Decided | None, now: Instant, decided: Instant) -> list[dict[str, Any]]:
    if outcome is None:
        return []
    found = []
    for action in outcome.next:
        at = decided.after(action.seconds)
        left = 0.0 if at.reached(now) else at.since(now)
        found.append(
            {"action": action.action, "at": iso(at.utc), "in_seconds": round(left, 1), "waits_for": action.waits_for}
        )
    return found


def decider(lease: Lease | None, now: Instant, held: bool) -> dict[str, Any]:
    """The holder is null when nobody holds the lease, as far as we know; another boot's clock says nothing."""
    if lease is None:
        return {"holder": None, "expires_in": None, "this_daemon": False}
    same = lease.expires.boot == now.boot
    left = round(max(0.0, lease.expires.mono - now.mono), 1) if same else None
    return {"holder": lease.holder or None, "expires_in": left, "this_daemon": held}


def _producer(s: Situation, name: str) -> dict[str, Any]:
    track = s.view.tracks[name]
    last, state, fit = track.last, s.health(name), s.fit(name)
    because = []
    if state is Health.DOWN:
        because.append("down")
    elif fit is False:
        because.append((s.why_unfit(name) or f"{track.lag} slots behind").removeprefix("lags "))
    return {
        "name": name,
        "address": str(next(p.address for p in s.pool.producers if p.name == name)),
        "health": state.value,
        "detail": _detail(s, name),
        "since": iso(track.since.utc),
        "fit": fit,
        "unfit_because": because,
        "admitted": None if s.pool.gateless else _admitted(s, name),
        "fenced_by": host_status.fenced_by(s, name),
        "node": host_status.node(s, name),
        "ping_seconds": last.seconds if last is not None and last.ok else None,
        "tip_slot": None if track.tip is None else track.tip.slot,
        "last_error": None if last is None else last.error,
    }


def _admitted(s: Situation, name: str) -> bool:
    """Whether its blocks get out, as far as its gates last said: through a proxy if there is one, and none shut."""
    proxies = any(_open(track, name) for track in s.view.proxies.values())
    shut = any(s.view.gates[gate].is_open is False for gate in s.switches(name))
    return (proxies or not s.pool.proxies) and not shut


def _detail(s: Situation, name: str) -> str:
    track = s.view.tracks[name]
    last = track.last
    if s.view.isolated:
        return "not judged: nothing outside answers"
    node = s.view.nodes.get(name)
    share = None if node is None else nodes.starting(node, s.now)
    if share is not None and (last is None or not last.ok):
        return f"starting, replaying {share:.0f} %"
    if last is None:
        return "not pinged yet"
    if health.stale(track, s.now, s.pool.health):
        return "not seen of late"
    if not last.ok:
        return f"no answer ({last.stage or 'ping'})"
    if track.sync is health.Sync.UNMEASURED:
        return "answers; nothing to compare its tip with"
    if track.sync is health.Sync.STANDSTILL:
        if track.lag is not None and track.lag > s.pool.health.max_lag:
            return f"answers; references claim a tip {track.lag} slots ahead of every producer"
        return "answers; the best tip known stands still"
    if track.sync is health.Sync.LAGGING:
        return f"answers, {track.lag} slots behind"
    return "in sync"


def _open(track: ProxyTrack, producer: str) -> bool | None:
    server = None if track.reading is None else track.reading.servers.get(producer)
    return None if server is None else server.admin is not Admin.MAINT


def _gate(s: Situation, proxy: str, producer: str) -> dict[str, Any]:
    """``open`` is null when the proxy does not answer now: what it last said may have changed."""
    track, gate = s.view.proxies[proxy], Gate(proxy, producer)
    return {
        "name": str(gate),
        "kind": "haproxy",
        "proxy": proxy,
        "producer": producer,
        "open": _open(track, producer) if track.answers else None,
        "tainted": s.a is not None and any(t.gate == gate for t in s.a.tainted),
        "reachable": track.answers,
        "last_open": _open(track, producer),
    }


def _proxy(name: str, track: ProxyTrack) -> dict[str, Any]:
    servers = {} if track.reading is None else track.reading.servers
    return {
        "name": name,
        "reachable": track.answers,
        "servers": {
            producer: {"admin": server.admin.value, "status": server.status, "sessions": server.sessions}
            for producer, server in servers.items()
        },
        "error": track.error if track.silent_since is not None else None,
    }


def _record(s: Situation, record: Record) -> dict[str, Any]:
    """A record stays with the old producer until everyone else is fenced; only then is it wanted elsewhere."""
    a = s.a
    whose = None if a is None else a.target if a.phase is Phase.PROMOTING else a.active
    wanted = None if whose is None or whose not in record.targets else record.wanted(whose)
    return record_status.document(record, s.view.records[record.label], wanted, s.now)


# ---------------------------------------------------------------- what is wrong with it


def problems(doc: Document) -> list[str]:
    """What is not as it should be, worst first, a line each; empty when the pool is steady."""
    found = [f"split brain: {d['where']}: {d['what']}" for d in doc["drift"] if _split(d)]
    if doc["split_brain"] and not found:
        found.append("split brain")
    if doc["isolated"]:
        found.append("isolated: nothing outside answers, so nothing is moved")
    if doc["phase"] is None:
        found.append("no assignment: no producer is known to be the active one")
    elif doc["phase"] != Phase.STEADY.value:
        found.append(f"{doc['phase']}: the role goes to {doc['target']}")
    elif doc["active"] is None:
        found.append("nobody is active")
    active = next((p for p in doc["producers"] if p["name"] == doc["active"]), None)
    if active is not None and active["health"] != Health.UP.value:
        error = f": {active['last_error']}" if active["last_error"] else ""
        found.append(f"{active['name']}, the active one, is {active['health']}{error}")
    found.extend(_differs(doc, d) for d in doc["drift"] if not _split(d))
    if doc["store_error"]:
        found.append(f"state folder: {doc['store_error']}")
    return found


def _split(drift: Mapping[str, Any]) -> bool:
    """Whether it counts as split brain; a document that an earlier version left does not say."""
    return bool(drift.get("split_brain", drift["kind"] == "split-brain"))


def _differs(doc: Document, drift: Mapping[str, Any]) -> str:
    if drift["kind"] == "exposed":
        return f"exposed: {drift['what']}"
    part = "record " if any(record["name"] == drift["where"] for record in doc["records"]) else ""
    return f"{part}{drift['where']}: {drift['what']}"


# ---------------------------------------------------------------- for people


def span(seconds: float) -> str:
    """A duration in its two largest units: ``45 s``, ``12 min``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 0, "")):
        if whole >= size:
            rest = whole % size // smaller if smaller else 0
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    raise AssertionError("120 s are minutes")


def headline(doc: Document) -> str:
    """The one line that says most."""
    if doc["phase"] is None:
        state = "no assignment yet"
    elif doc["phase"] == Phase.STEADY.value:
        state = f"{doc['active'] or 'nobody'} is active"
    else:
        state = f"{doc['phase']}: from {doc['active'] or 'nobody'} to {doc['target']}"
        if doc["phase"] == Phase.PROMOTING.value:
            state = f"promoting: {doc['target']} is being let in"
    held = [word for word in ("paused", "released") if doc[word]]
    if doc["mode"] != "act":
        held.insert(0, "observing only")
    if doc["pinned"]:
        held.append(f"pinned to {doc['pinned']['producer']}")
    return f"{doc['pool']}: {state}" + (f" ({', '.join(held)})" if held else "")


def notes(doc: Document) -> list[str]:
    """What a person should know besides the tables: why, restrictions, what comes next, who decides."""
    lines = []
    if doc["reason"]:
        by = f", asked for by {doc['requested_by']}" if doc["requested_by"] else ""
        lines.append(f"since {doc['since']} (generation {doc['generation']}, {doc['cause']}{by}): {doc['reason']}")
    lines.extend(f"{word}{_restriction(doc[word])}" for word in ("paused", "pinned") if doc[word])
    for word in ("cordoned", "barred"):
        lines.extend(f"{held['producer']} is {word}{_restriction(held)}" for held in doc[word])
    if doc["decision"]:
        lines.append(f"now: {doc['decision']['reason']} (rule {doc['decision']['rule']})")
    lines.extend(
        f"next: {n['action']} in {span(n['in_seconds'])}, unless something changes; waits for {n['waits_for']}"
        for n in doc["next"]
    )
    for record in doc["records"]:
        name = f"{record['name']}: " if len(doc["records"]) > 1 else ""
        lines.extend(f"{name}{_outlived(belief)}" for belief in record["believed"])
    if gateless(doc):
        lines.append(NO_GATE)
    lines.append(f"decider: {_who(doc['decider'])}")
    return lines


NO_GATE = (
    "there is no gate: records only say where to connect, and nothing shuts a producer out; relays may stay with "
    "the old one after a handover, so two producers may be reachable at once"
)


def gateless(doc: Document) -> bool:
    """Whether the pool has nothing that could shut a producer out."""
    return bool(doc.get("fence") == "none")


def pointed(said: Mapping[str, Any]) -> str:
    """Whom an answer, an earlier value or a record names, and by what: ``main (203.0.113.10)``."""
    value = ", ".join(said["value"] if "value" in said else said["provider_value"])
    if said["points_to"] in (None, record_status.OTHER):
        return value or "that there is no such name"
    return f"{said['points_to']} ({value})"


def clock(time: str, near: str) -> str:
    """The time of day, with the date only when it is not that of ``near``."""
    hour = f"{time[11:19]}Z"
    return hour if time[:10] == near[:10] else f"{time[:10]} {hour}"


def _outlived(belief: Mapping[str, Any]) -> str:
    usually, worst = (clock(belief[key], belief["replaced_at"]) for key in ("usually_until", "at_worst_until"))
    still = ""
    if belief["told_by"]:
        says = "says" if len(belief["told_by"]) == 1 else "say"
        still = f" ({' and '.join(belief['told_by'])} still {says} so; counted from now)"
    elif not belief["settled"]:
        still = " (no look at the servers since; counted from now)"
    return f"relays may still believe {pointed(belief)}: usually until {usually}, at worst until {worst}{still}"


def _who(found: Mapping[str, Any]) -> str:
    left = found["expires_in"]
    if found["holder"] is None or left == 0:
        return "nobody" if found["holder"] is None else "nobody; the last lease has run out"
    which = "this daemon" if found["this_daemon"] else f"another daemon ({found['holder']})"
    return which if left is None else f"{which}, lease for another {span(left)}"


def _restriction(held: Mapping[str, Any]) -> str:
    until = f" until {held['until']}" if held["until"] else " until it is ended by hand"
    by = f" by {held['by']}" if held["by"] else ""
    return f"{until}{by}" + (f": {held['reason']}" if held["reason"] else "")


PRODUCER_COLUMNS = ("producer", "role", "health", "fit", "admitted", "ping", "tip", "address", "detail")
PROXY_COLUMNS = ("proxy", "producer", "admin", "status", "sessions", "")
RECORD_COLUMNS = ("record", "points to", "value", "ttl", "servers", "state")


def producer_columns(doc: Document) -> tuple[str, ...]:
    """Without any gate nobody can say who is admitted: only to whom the records point."""
    return tuple("pointed to" if gateless(doc) and c == "admitted" else c for c in PRODUCER_COLUMNS)


def producer_rows(doc: Document) -> list[tuple[str, ...]]:
    """One row for each producer, as ``producer_columns``."""
    rows: list[tuple[str, ...]] = []
    for p in doc["producers"]:
        role = "active" if p["name"] == doc["active"] else ""
        if p["name"] == doc["target"] and doc["target"] != doc["active"]:
            role = "target"
        ping = "-" if p["ping_seconds"] is None else f"{p['ping_seconds'] * 1e3:.1f} ms"
        tip = "-" if p["tip_slot"] is None else str(p["tip_slot"])
        fit = {True: "fit", False: "unfit", None: "?"}[p["fit"]]
        admitted = _pointed_to(doc, p["name"]) if gateless(doc) else "yes" if p["admitted"] else "no"
        rows.append((p["name"], role or "-", p["health"], fit, admitted, ping, tip, p["address"], p["detail"]))
    return rows


def _pointed_to(doc: Document, producer: str) -> str:
    found = sum(record["points_to"] == producer for record in doc["records"])
    word = "no" if not found else "yes" if found == len(doc["records"]) else f"{found} of {len(doc['records'])}"
    return f"{word}, exposed" if any(e["producer"] == producer for e in doc["exposed"]) else word


def proxy_rows(doc: Document) -> list[tuple[str, ...]]:
    """One row for each server of each proxy, as PROXY_COLUMNS; one for a proxy that was never read."""
    rows: list[tuple[str, ...]] = []
    tainted = {gate["name"] for gate in doc["gates"] if gate["tainted"]}
    for proxy in doc["proxies"]:
        why = (proxy["error"] or "").removeprefix(f"{proxy['name']}: ")
        silent = "" if proxy["reachable"] else f"silent; shown is what it last said{': ' + why if why else ''}"
        for name, server in proxy["servers"].items():
            remark = silent or ("may yet be opened by a late command" if f"{name}@{proxy['name']}" in tainted else "")
            rows.append((proxy["name"], name, server["admin"], server["status"], str(server["sessions"]), remark))
        if not proxy["servers"]:
            rows.append((proxy["name"], "-", "-", "-", "-", silent or "not read yet"))
    return rows


def record_rows(doc: Document) -> list[tuple[str, ...]]:
    """One row for each record, as RECORD_COLUMNS; ``servers`` are those that agree, of all that were asked."""
    rows: list[tuple[str, ...]] = []
    for record in doc["records"]:
        whom = {None: "-", record_status.OTHER: "nobody"}.get(record["points_to"], record["points_to"])
        value = ", ".join(record["provider_value"]) or "-"
        ttl = "-" if record["ttl"] is None else str(record["ttl"])
        agree = sum(answer["agrees"] is True for answer in record["answers"])
        servers = f"{agree}/{len(record['answers'])}" if record["answers"] else "-"
        rows.append((record["name"], whom, value, ttl, servers, _record_state(record)))
    return rows


def _record_state(record: Mapping[str, Any]) -> str:
    if record["readable"] is None:
        return "not read yet"
    if not record["readable"]:
        return "silent; shown is what it last said"
    if record["error"]:
        return f"not ours to change: {record['error']}"
    if record["failure"]:
        return "cannot be changed"
    if record["pending_seconds"] is not None:
        return f"pending for {span(record['pending_seconds'])}"
    if record["contested_until"]:
        return f"another hand; left alone until {record['contested_until'][11:19]}Z"
    return {True: "in sync", False: "differs", None: "-"}[record["in_sync"]]


def _tables(doc: Document) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    yield producer_columns(doc), producer_rows(doc)
    if doc["proxies"]:
        yield PROXY_COLUMNS, proxy_rows(doc)
    gates = host_status.gate_rows(doc)
    if gates:
        yield host_status.GATE_COLUMNS, gates
    if doc["relays"]:
        yield host_status.RELAY_COLUMNS, host_status.relay_rows(doc)
    if doc["records"]:
        yield RECORD_COLUMNS, record_rows(doc)


def text(doc: Document) -> str:
    """The status for a pipe, a log or a mail: plain lines without colours, ending in a newline."""
    parts = [headline(doc)]
    found = problems(doc)
    if found:
        parts += ["", *(f"! {line}" for line in found)]
    for head, rows in _tables(doc):
        parts += ["", *_columns(head, rows)]
    parts += ["", *notes(doc)]
    return "\n".join(_seemly(part) for part in parts) + "\n"


def _columns(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [tuple(word.upper() for word in head), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _seemly(line: str) -> str:
    """What a peer or an operator wrote may hold control characters; they must not reach a terminal."""
    return "".join(c if c.isprintable() else " " for c in line)


COLOURS = {
    "up": "green",
    "down": "red",
    "fit": "green",
    "unfit": "red",
    "ready": "green",
    "UP": "green",
    "DOWN": "red",
    "active": "bold green",
    "target": "bold yellow",
    "yes": "green",
    "in sync": "green",
}


def picture(doc: Document) -> RenderableType:
    """The status for a terminal, as something that rich renders."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = problems(doc)
    worst = "bold red" if doc["split_brain"] or doc["isolated"] else "bold yellow" if found else "bold green"
    parts: list[RenderableType] = [Text(_seemly(headline(doc)), worst)]
    parts.extend(Text(f"! {_seemly(line)}", "red" if doc["split_brain"] else "yellow") for line in found)
    for head, rows in _tables(doc):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in head:
            table.add_column(column.upper(), no_wrap=True, header_style="dim")
        for row in rows:
            table.add_row(*(Text(_seemly(cell), COLOURS.get(cell, "")) for cell in row))
        parts += [Text(""), table]
    parts += [Text(""), *(Text(_seemly(line), "dim") for line in notes(doc))]
    return Group(*parts)
