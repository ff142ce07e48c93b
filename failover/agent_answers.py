"""What agents answer, read strictly: bytes of one line in, checked values out, or ``Nonsense``. Pure.

An agent's host may have been broken into, so its answers are as untrusted as anything from the network: one JSON
object of at most ``MOST_BYTES``, each field that is used has its type and range, words are bounded and printable.
What is not known here is passed over: a later agent may say more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .model import GateReading, RelayReading, RelaySession

VERSION = 1  # of the protocol
MOST_BYTES = 65_536  # of an answer's line
LONGEST = 300  # characters of one word
MOST_WORDS = 32
MOST_METRICS = 64
MOST_SESSIONS = 1_024
MOST = 2**63 - 1

_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]{0,199}")


class Nonsense(ValueError):
    """An answer that is none. The text says what is wrong with it, and carries no more than a few of its words."""


class OtherVersion(Nonsense):
    """An answer of another version of the protocol."""


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """The node's process as its host shows it. ``started`` is Unix time; ``flag`` is what keeps it from forging."""

    running: bool
    pid: int | None = None
    started: float | None = None
    runtime: str = ""
    flag: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class GateStatus:
    """One gate of the host: its reading, and the highest generation and term that the agent has heard for it."""

    reading: GateReading
    generation: int = 0
    term: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """An agent's answer to ``status``. ``gates`` are by kind, ``metrics`` by name; fuse times are seconds."""

    boot: str
    node: NodeProcess
    gates: Mapping[str, GateStatus]
    metrics: Mapping[str, float]
    metrics_error: str | None = None
    fuse_after: float | None = None
    fuse_left: float | None = None
    topology_path: str | None = None
    topology_text: str | None = None
    topology_error: str | None = None
    agent_version: str = ""
    nudge: str = ""  # what this host's configuration allows beside ending sessions; empty: it did not say


def answer(line: bytes) -> Mapping[str, Any]:
    """The object on one line, with or without ``ok``. Raises Nonsense, OtherVersion."""
    if len(line) > MOST_BYTES:
        raise Nonsense(f"more than {MOST_BYTES // 1024} KiB")
    try:
        found = json.loads(line.decode("ascii"), object_pairs_hook=_once, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, Nonsense) else f"no JSON: {words(line[:60].decode('ascii', 'replace'))!r}"
        raise Nonsense(why) from None
    if not isinstance(found, dict):
        raise Nonsense("no JSON object")
    version = found.get("v")
    if type(version) is not int:
        raise Nonsense("no version `v`")
    if version != VERSION:
        raise OtherVersion(f"version {version} of the protocol, and this is {VERSION}")
    if type(found.get("ok")) is not bool:
        raise Nonsense("neither ok nor not")
    return MappingProxyType(found)


def refusal(said: Mapping[str, Any]) -> tuple[str, str, str]:
    """Kind, error and mend of an answer that is not ok. Raises Nonsense."""
    return _text(said, "kind"), _text(said, "error"), words(str(said.get("mend") or ""))


def status(said: Mapping[str, Any]) -> Status:
    """The values of an answer to ``status``. Raises Nonsense."""
    gates = part(said, "gates")
    fuse = part(said, "fuse") if said.get("fuse") is not None else {}
    topology = part(said, "topology") if said.get("topology") is not None else {}
    return Status(
        boot=_text(said, "boot"),
        node=_node(part(said, "node")),
        gates=MappingProxyType({words(str(kind)): gate(part(gates, kind)) for kind in list(gates)[:MOST_WORDS]}),
        metrics=MappingProxyType(_metrics(part(said, "metrics") if said.get("metrics") is not None else {})),
        metrics_error=_maybe_text(said, "metrics_error"),
        fuse_after=_number(fuse, "after") if fuse else None,
        fuse_left=_number(fuse, "left") if fuse else None,
        topology_path=_maybe_text(topology, "path"),
        topology_text=_long_text(topology, "text") if topology else None,
        topology_error=_maybe_text(said, "topology_error"),
        agent_version=_text(said, "agent"),
        nudge=_maybe_text(said, "nudge") or "",
    )


def gate(said: Mapping[str, Any]) -> GateStatus:
    """One gate's object. Raises Nonsense."""
    state = said.get("open")
    if state is not None and type(state) is not bool:
        raise Nonsense("`open` is neither true, false nor null")
    if type(said.get("certain")) is not bool:
        raise Nonsense("`certain` is neither true nor false")
    reading = GateReading(
        open=state,
        certain=said["certain"],
        shown=_words(said, "shown"),
        lacks=_words(said, "lacks"),
        process=_maybe_text(said, "process"),
        findings=_findings(said),
        starting=said.get("starting") is True,
        kes_left=_maybe_below(said, "kes_left"),
    )
    return GateStatus(reading, _whole(said, "generation"), _whole(said, "term"))


def sessions(said: Mapping[str, Any]) -> tuple[tuple[RelaySession, ...], RelayReading]:
    """The sessions, each with its producer still unnamed, and the reading around them. Raises Nonsense."""
    listed = said.get("sessions")
    if not isinstance(listed, list) or len(listed) > MOST_SESSIONS:
        raise Nonsense("`sessions` is no list, or too long")
    found = []
    for one in listed:
        if not isinstance(one, dict) or type(one.get("inbound")) is not bool:
            raise Nonsense("a session is no object, or does not say who opened it")
        found.append(RelaySession("", _text(one, "peer"), _text(one, "local"), one["inbound"]))
    if type(said.get("running")) is not bool or type(said.get("truncated", False)) is not bool:
        raise Nonsense("`running` or `truncated` is neither true nor false")
    process = _maybe_text(said, "process")
    return tuple(found), RelayReading((), _whole(said, "others"), said["running"], process)


def kicked(said: Mapping[str, Any]) -> int:
    """How many sessions a kick ended. Raises Nonsense."""
    if type(said.get("nudged")) is not bool:
        raise Nonsense("`nudged` is neither true nor false")
    return _whole(said, "ended")


def part(said: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object at ``key``. Raises Nonsense."""
    found = said.get(key)
    if not isinstance(found, dict):
        raise Nonsense(f"`{words(key, 40)}` is no object")
    return found


def words(text: str, most: int = LONGEST) -> str:
    """Somebody else's words made safe to print: one line, no control characters, at most ``most`` characters."""
    line = "".join(c if c.isprintable() else "?" for c in text[:most])
    return line if len(text) <= most else line[:-1] + "…"


# ---------------------------------------------------------------- fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Nonsense("a key is there twice")
    return found


def _constant(name: str) -> float:
    raise Nonsense(f"{name} is no number")


def _text(said: Mapping[str, Any], key: str) -> str:
    found = said.get(key)
    if not isinstance(found, str):
        raise Nonsense(f"`{key}` is no text")
    return words(found)


def _maybe_text(said: Mapping[str, Any], key: str) -> str | None:
    return None if said.get(key) is None else _text(said, key)


def _long_text(said: Mapping[str, Any], key: str) -> str:
    """A file's text: lines and tabs stay, every other control character is replaced."""
    found = said.get(key)
    if not isinstance(found, str):
        raise Nonsense(f"`{key}` is no text")
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in found)


def _whole(said: Mapping[str, Any], key: str) -> int:
    found = said.get(key)
    if type(found) is not int or not 0 <= found <= MOST:
        raise Nonsense(f"`{key}` is no whole number from 0 on")
    return found


def _maybe_below(said: Mapping[str, Any], key: str) -> int | None:
    """A whole number that may be below 0."""
    found = said.get(key)
    if found is not None and (type(found) is not int or not -MOST <= found <= MOST):
        raise Nonsense(f"`{key}` is no whole number")
    return found


def _maybe_whole(said: Mapping[str, Any], key: str) -> int | None:
    return None if said.get(key) is None else _whole(said, key)


def _number(said: Mapping[str, Any], key: str) -> float:
    found: Any = said.get(key)
    if type(found) not in (int, float) or not 0 <= found <= MOST:  # neither infinity nor NaN
        raise Nonsense(f"`{key}` is no number from 0 on")
    return float(found)


def _words(said: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = said.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Nonsense(f"`{key}` is no list of words")
    return tuple(words(one) for one in found[:MOST_WORDS])


def _findings(said: Mapping[str, Any]) -> tuple[str, ...]:
    found = said.get("findings", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Nonsense("`findings` is no list of objects")
    told = ((_text(one, "what"), _maybe_text(one, "mend")) for one in found[:MOST_WORDS])
    return tuple(f"{what}: {mend}" if mend else what for what, mend in told)


def _node(said: Mapping[str, Any]) -> NodeProcess:
    if type(said.get("running")) is not bool:
        raise Nonsense("`running` is neither true nor false")
    return NodeProcess(
        running=said["running"],
        pid=_maybe_whole(said, "pid"),
        started=None if said.get("started") is None else _number(said, "started"),
        runtime=_maybe_text(said, "runtime") or "",
        flag=_maybe_text(said, "flag"),
        version=_maybe_text(said, "version"),
    )


def _metrics(said: Mapping[str, Any]) -> dict[str, float]:
    if len(said) > MOST_METRICS:
        raise Nonsense(f"more than {MOST_METRICS} metrics")
    found: dict[str, float] = {}
    for name, value in said.items():
        if _METRIC.fullmatch(name) is None or type(value) not in (int, float) or not abs(value) <= MOST:
            raise Nonsense(f"metric {words(name, 40)!r} has no name or no number")
        found[name] = float(value)
    return found
