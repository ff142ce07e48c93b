"""Incidents of split brain: numbered, dated, told again and again while they last, and reported when they end. Pure.

A ``Ledger`` is folded forward by what each tick has found (``follow``), and gives the rows of the journal that say so.
It is stored with the timers, so that neither a restart nor another decider ends an incident, dates it anew or forgets
when it was last told. An incident lasts from the first row that counts as split brain until none is left; evidence
that cannot be looked at again (a proxy that fell silent) is still found, so silence heals nothing (splits.py).

It is told when it begins, after AGAIN_FIRST (whoever was busy has then had time, and what repairs itself has long done
so), and then each AGAIN_LATER: often enough for a night, and at most 98 times a day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .dates import pack, unpack_date
from .journal import iso, plain
from .model import Event, EventKind, Instant

AGAIN_FIRST = 300.0  # seconds from the first telling to the second
AGAIN_LATER = 900.0  # seconds from one further telling to the next
QUIET = (
    300.0  # seconds after its end for which the same thing, when it returns, is told no sooner than if it had lasted
)
MOST_DEEDS = 50  # steps that one report holds
MOST = 50  # gates, records and causes that one report holds
UNKNOWN = "not known"
GATES = ("split-brain", "sessions-linger")  # kinds that are about one gate
RECORDS = ("record-divides",)


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of evidence, as just found. ``counts``: two producers may be reachable.

    ``what`` is for the journal, ``hindered`` says why nothing is done about it just now (empty: it is being repaired),
    ``allowed`` what let it happen, in plain words.
    """

    kind: str
    where: str
    what: str
    since: Instant
    counts: bool
    producers: tuple[str, ...] = ()
    hindered: str = ""
    allowed: str = ""
    tells: bool = True  # a person should be told

    @property
    def key(self) -> tuple[str, str]:
        """What it is about."""
        return (self.kind, self.where)


@dataclass(frozen=True, slots=True)
class Deed:
    """One step that ended, from the journal's rows; ``step`` is its id."""

    step: str
    at: Instant
    what: str
    result: str


@dataclass(frozen=True, slots=True)
class Told:
    """When something was last told, how often, and since when it is over."""

    at: Instant
    times: int
    ended: Instant | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """One split brain from its beginning: the union of everything that belonged to it."""

    number: int  # 0: seen by a controller that does not decide
    began: Instant
    generation: int
    active: str | None
    key: str  # of its alerts
    kinds: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    done: tuple[Deed, ...] = ()
    dropped: int = 0  # steps beyond MOST_DEEDS
    last_step: str = ""  # the last one that was looked at


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is known of incidents: the last number, all seconds, the open one, open evidence, and what was told when."""

    number: int = 0
    seconds: float = 0.0  # of all that are over
    open: Incident | None = None
    rows: Mapping[tuple[str, str], Instant] = field(default_factory=dict)
    told: Mapping[str, Told] = field(default_factory=dict)

    def seconds_at(self, now: Instant) -> float:
        """Seconds of split brain over the life of the store, an open one included."""
        return self.seconds + (0.0 if self.open is None else now.since(self.open.began))


@dataclass(frozen=True, slots=True)
class Now:
    """What an incident is seen against."""

    at: Instant
    generation: int
    active: str | None
    decides: bool  # whether this controller holds the lease: only then has an incident a number
    deeds: tuple[Deed, ...] = ()


def follow(ledger: Ledger, rows: Sequence[Row], now: Now) -> tuple[Ledger, tuple[Event, ...]]:
    """The ledger after one more look, and what is to be journalled. The same object when nothing has changed."""
    if not rows and ledger.open is None and not ledger.rows and not ledger.told:
        return ledger, ()
    counted = tuple(row for row in rows if row.counts)
    events: list[Event] = []
    open_before, told = ledger.open, _fresh(ledger.told, now.at)
    number, seconds = ledger.number, ledger.seconds
    if open_before is not None and not open_before.began.reached(now.at):
        open_before = replace(open_before, began=now.at)
    incident, grown = open_before, False
    if counted and incident is None:
        number += now.decides
        incident, grown = _begin(counted, number if now.decides else 0, now), True
        events.append(_begun(incident, counted, now))
    elif counted and incident is not None:
        incident, grown = _grow(incident, counted)
        if not incident.number and now.decides:  # seen before we decided: our own journal does not know of it
            number += 1
            incident = replace(incident, number=number)
            events.append(_begun(incident, counted, now))
    if incident is not None:
        incident = _remember(incident, now.deeds)
    if incident is not None and not counted:
        seconds += now.at.since(incident.began)
        events.append(_healed(incident, now))
        incident = None
    events.extend(_tell(told, rows, counted, incident, grown and open_before is not None, now))
    after = Ledger(number, seconds, incident, {row.key: row.since for row in rows}, told)
    return (ledger, tuple(events)) if after == ledger else (after, tuple(events))


def next_telling(ledger: Ledger, now: Instant) -> float | None:
    """Seconds until something is to be told again; None when nothing is."""
    rests = [_rest(told, now) for told in ledger.told.values() if told.ended is None]
    return min(rests, default=None)


# ---------------------------------------------------------------- one incident


def _begin(rows: Sequence[Row], number: int, now: Now) -> Incident:
    began = min((row.since for row in rows), key=lambda since: -now.at.since(since))
    listed = [row.where for row in rows if _listed(row)] or [row.where for row in rows]
    key = " ".join(["split-brain", *listed[:MOST]])
    incident, _ = _grow(Incident(number, began, now.generation, now.active, key), rows)
    return replace(incident, producers=_union(incident.producers, [now.active] if now.active else []))


def _grow(incident: Incident, rows: Sequence[Row]) -> tuple[Incident, bool]:
    """The incident with what is new in these rows; whether there is any."""
    known = {*incident.gates, *incident.records}
    new = [row for row in rows if row.kind not in incident.kinds or (row.where not in known and _listed(row))]
    if not new:
        return incident, False
    grown = replace(
        incident,
        kinds=_union(incident.kinds, [row.kind for row in new]),
        gates=_union(incident.gates, [row.where for row in new if row.kind in GATES]),
        records=_union(incident.records, [row.where for row in new if row.kind in RECORDS]),
        producers=_union(incident.producers, [name for row in new for name in row.producers]),
        allowed=_union(incident.allowed, [row.allowed for row in new if row.allowed]),
    )
    return grown, grown != incident


def _listed(row: Row) -> bool:
    """Whether a report lists where it is: a gate or a record; the other kinds are about the whole pool."""
    return row.kind in GATES or row.kind in RECORDS


def _union(known: tuple[str, ...], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*known, *more)))[:MOST]


def _remember(incident: Incident, deeds: tuple[Deed, ...]) -> Incident:
    """The incident with the steps that ended since it began, or since it was last looked."""
    if not deeds or deeds[-1].step == incident.last_step:
        return incident
    steps = [deed.step for deed in deeds]
    after = steps.index(incident.last_step) + 1 if incident.last_step in steps else 0
    new = [deed for deed in deeds[after:] if not incident.began.since(deed.at) > 0]
    room = max(0, MOST_DEEDS - len(incident.done))
    return replace(
        incident,
        done=(*incident.done, *new[:room]),
        dropped=incident.dropped + len(new[room:]),
        last_step=steps[-1],
    )


def report(incident: Incident, now: Now) -> dict[str, Any]:
    """The report of an incident, JSON-ready, as far as it is known by now. Its keys are a public face (INTERFACE)."""
    return {
        "incident": incident.number or None,
        "began": iso(incident.began.utc),
        "seconds": round(now.at.since(incident.began), 3),
        "generation": incident.generation,
        "active": incident.active,
        "active_after": now.active,
        "kinds": list(incident.kinds),
        "gates": list(incident.gates),
        "records": list(incident.records),
        "producers": list(incident.producers),
        "allowed": list(incident.allowed) or [UNKNOWN],
        "done": [{"at": iso(deed.at.utc), "what": deed.what, "result": deed.result} for deed in incident.done],
        "done_dropped": incident.dropped,
    }


def unreported(begun: Event) -> dict[str, Any]:
    """What the row of its beginning alone says of an incident whose end was never written (a state that was lost)."""
    detail = begun.detail
    return {
        "incident": detail["incident"],
        "began": iso(begun.at.utc),
        "seconds": None,
        "generation": begun.generation,
        "active": None,
        "active_after": None,
        "kinds": list(detail.get("kinds", [])),
        "gates": list(detail.get("gates", [])),
        "records": list(detail.get("records", [])),
        "producers": [],
        "allowed": list(detail.get("allowed", [UNKNOWN])),
        "done": [],
        "done_dropped": 0,
    }


def document(detail: Mapping[str, Any], *, over: bool | None, ended: str | None = None) -> dict[str, Any]:
    """The document of ``history --incident --json``: a report, whether it is over (None: not known), and since when."""
    return {"over": over, "ended": ended, **detail}


def text(doc: Mapping[str, Any]) -> str:
    """A report in plain words, a few lines; ``doc`` as from ``document``."""
    active = doc["active"] or "not known"
    if doc["active_after"] != doc["active"]:
        active += f"; at the end {doc['active_after'] or 'nobody'}"
    end = doc["ended"] or ("not over" if doc["over"] is False else "not in the journal")
    lasted = "not known" if doc["seconds"] is None else f"{doc['seconds']:g} s"
    lines = [
        f"Split brain, incident {doc['incident']}{': not over' if doc['over'] is False else ''}",
        f"began: {doc['began']}",
        f"ended: {end}",
        f"lasted: {lasted}{' so far' if doc['over'] is False else ''}",
        f"active: {active} (generation {doc['generation']})",
        f"producers: {', '.join(doc['producers']) or 'not known'}",
        f"gates: {', '.join(doc['gates']) or 'none'}",
    ]
    if doc["records"]:
        lines.append(f"records: {', '.join(doc['records'])}")
    lines.append(f"seen by: {', '.join(doc['kinds'])}")
    lines.append("what allowed it:")
    lines.extend(f"  {words}" for words in doc["allowed"])
    lines.append("what was done:")
    lines.extend(f"  {deed['at']}  {deed['what']}" for deed in doc["done"])
    if not doc["done"]:
        lines.append("  nothing was sent" + (": it ended by another hand, or by itself" if doc["over"] else ""))
    if doc["done_dropped"]:
        lines.append(f"  and {doc['done_dropped']} more steps: failover history --since {doc['began']}")
    return "\n".join(map(plain, lines))


# ---------------------------------------------------------------- what is said


def _begun(incident: Incident, rows: Sequence[Row], now: Now) -> Event:
    gates_alone = all(row.kind in GATES for row in rows)
    head = "let in beside the active one" if gates_alone else "two producers may be reachable"
    number = f"incident {incident.number}: " if incident.number else ""
    words = f"{number}{head}: " + "; ".join(f"{row.where} {row.what}" for row in rows)
    detail = {
        "incident": incident.number or None,
        "gates": list(incident.gates),
        "records": list(incident.records),
        "kinds": list(incident.kinds),
        "allowed": list(incident.allowed) or [UNKNOWN],
    }
    return Event(EventKind.SPLIT_BRAIN, now.at, words, now.generation, None, detail)


def _healed(incident: Incident, now: Now) -> Event:
    detail = report(incident, now)
    what = f"incident {incident.number}" if incident.number else "split brain"
    words = f"{what} healed after {detail['seconds']:g} s"
    return Event(EventKind.SPLIT_BRAIN_HEALED, now.at, words, now.generation, None, detail)


def _tell(
    told: dict[str, Told],
    rows: Sequence[Row],
    counted: Sequence[Row],
    incident: Incident | None,
    grown: bool,
    now: Now,
) -> list[Event]:
    """The alerts that are due: one for the open incident, one for each piece of evidence that does not count."""
    subjects: dict[str, list[Row]] = {}
    if incident is not None and any(row.tells for row in counted):
        subjects[incident.key] = list(counted)
    for row in rows:
        if not row.counts and row.tells:
            subjects[f"{row.kind}:{row.where}"] = [row]
    events = []
    for key, about in subjects.items():
        before = told.get(key)
        mine = incident is not None and key == incident.key
        if before is None or _rest(before, now.at) <= 0 or (mine and grown):
            told[key] = Told(now.at, 1 if before is None else before.times + 1)
            events.append(_alert(key, about, incident if mine else None, told[key].times, now))
        elif before.ended is not None:
            told[key] = replace(before, ended=None)
    for key, before in told.items():
        if key not in subjects and before.ended is None:
            told[key] = replace(before, ended=now.at)
    return events


def _alert(key: str, rows: Sequence[Row], incident: Incident | None, times: int, now: Now) -> Event:
    since = rows[0].since if incident is None else incident.began
    lasted = now.at.since(since)
    words = "; ".join(f"{row.where}: {row.what}" + (f" ({row.hindered})" if row.hindered else "") for row in rows)
    if lasted >= AGAIN_FIRST / 2:
        words = f"for {lasted / 60:.0f} min: {words}"
    detail: dict[str, Any] = {"alert": key, "times": times}
    if incident is not None:
        detail["incident"] = incident.number or None
    return Event(EventKind.ALERT, now.at, words, now.generation, None, detail)


def _rest(told: Told, now: Instant) -> float:
    """Seconds until it is to be told again."""
    return (AGAIN_FIRST if told.times == 1 else AGAIN_LATER) - now.since(told.at)


def _fresh(told: Mapping[str, Told], now: Instant) -> dict[str, Told]:
    """What was told of things that last, or ended a moment ago; what a clock that was wrong dates later, is of now."""
    sane = {key: each if each.at.reached(now) else replace(each, at=now) for key, each in told.items()}
    return {key: each for key, each in sane.items() if each.ended is None or now.since(each.ended) <= QUIET}


# ---------------------------------------------------------------- across a restart


def dump(ledger: Ledger) -> dict[str, Any]:
    """The ledger, JSON-ready."""
    return {
        "number": ledger.number,
        "seconds": ledger.seconds,
        "open": None if ledger.open is None else _dump_incident(ledger.open),
        "rows": [[kind, where, pack(since)] for (kind, where), since in ledger.rows.items()],
        "told": [[key, pack(t.at), t.times, pack(t.ended)] for key, t in ledger.told.items()],
    }


def restore(document: Any) -> Ledger:
    """The ledger that ``dump`` wrote; an empty one for anything else."""
    try:
        packed = document["open"]
        return Ledger(
            int(document["number"]),
            float(document["seconds"]),
            None if packed is None else _restore_incident(packed),
            {(str(kind), str(where)): unpack_date(since) for kind, where, since in document["rows"]},
            {
                str(key): Told(unpack_date(at), int(times), None if ended is None else unpack_date(ended))
                for key, at, times, ended in document["told"]
            },
        )
    except (KeyError, TypeError, ValueError, IndexError):
        return Ledger()


def _dump_incident(incident: Incident) -> dict[str, Any]:
    return {
        "number": incident.number,
        "began": pack(incident.began),
        "generation": incident.generation,
        "active": incident.active,
        "key": incident.key,
        "kinds": list(incident.kinds),
        "gates": list(incident.gates),
        "records": list(incident.records),
        "producers": list(incident.producers),
        "allowed": list(incident.allowed),
        "done": [[deed.step, pack(deed.at), deed.what, deed.result] for deed in incident.done],
        "dropped": incident.dropped,
        "last_step": incident.last_step,
    }


def _restore_incident(packed: Mapping[str, Any]) -> Incident:
    active = packed["active"]
    return Incident(
        number=int(packed["number"]),
        began=unpack_date(packed["began"]),
        generation=int(packed["generation"]),
        active=None if active is None else str(active),
        key=str(packed["key"]),
        kinds=tuple(map(str, packed["kinds"])),
        gates=tuple(map(str, packed["gates"])),
        records=tuple(map(str, packed["records"])),
        producers=tuple(map(str, packed["producers"])),
        allowed=tuple(map(str, packed["allowed"])),
        done=tuple(Deed(str(s), unpack_date(at), str(what), str(result)) for s, at, what, result in packed["done"]),
        dropped=int(packed["dropped"]),
        last_step=str(packed["last_step"]),
    )
