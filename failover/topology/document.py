"""The text of a topology file as a checked value, with everything that is wrong with it.

Texts come from files and from agents, so they are bounded in size and depth and never trusted. What cardano-node
requires and takes for granted is as in its own reader (``TopologyP2P.hs``): ``localRoots`` and ``publicRoots`` must
be there, ``valency`` counts before ``hotValency``, keys that it does not know are passed over in silence.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_BYTES = 256 << 10  # a file with a thousand peers has about 60 KiB
MOST_PEERS = 2_000
MOST_PROBLEMS = 20
SHOWN = 60  # characters of a value that are printed

ONE_WAY = "InitiatorOnly"
DUPLEX = "InitiatorAndResponder"

_TOP = ("bootstrapPeers", "localRoots", "publicRoots", "useLedgerAfterSlot", "peerSnapshotFile")
_LOCAL = (
    "accessPoints",
    "advertise",
    "behindFirewall",
    "diffusionMode",
    "hotValency",
    "trustable",
    "valency",
    "warmValency",
)
_PUBLIC = ("accessPoints", "advertise")
_POINT = ("address", "port")
_COMMENT = re.compile(r"_.*|description|comment|name", re.IGNORECASE)  # what people write for people


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a text, and what to do about it."""

    what: str
    mend: str


@dataclass(frozen=True, slots=True)
class Point:
    """An access point, as written. Without a port the address is a name of SRV records."""

    host: str
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return shown(self.host)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{shown(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Roots:
    """One group of local roots. ``hot`` is how many of its points the node keeps in use."""

    points: tuple[Point, ...]
    hot: int = 1
    trustable: bool = False
    advertise: bool = False
    one_way: bool = False  # the node's own connections to these points carry nothing back: InitiatorOnly
    waits: bool = False  # the node does not dial these points, they dial it: behindFirewall


@dataclass(frozen=True, slots=True)
class Topology:
    """A topology file. ``bootstrap`` is None: no bootstrap peers; ``ledger_after`` is -1: no ledger peers."""

    local: tuple[Roots, ...] = ()
    public: tuple[Point, ...] = ()
    bootstrap: tuple[Point, ...] | None = None
    ledger_after: int = -1

    def points(self) -> Iterator[Point]:
        """Every peer that the file names, wherever."""
        for roots in self.local:
            yield from roots.points
        yield from self.public
        yield from self.bootstrap or ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of a text: the value unless something is wrong, and keys that the node passes over."""

    topology: Topology | None
    problems: tuple[Problem, ...] = ()
    unknown: tuple[str, ...] = ()


def read(text: str) -> Reading:
    """The text of one topology file. Raises nothing: what is wrong is in ``problems``."""
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        mend = "is this the right file? A topology file names some dozens of peers"
        return _wrong(f"it is larger than {MOST_BYTES >> 10} KiB", mend)
    found = _json(text)
    if isinstance(found, Problem):
        return Reading(None, (found,))
    if not isinstance(found, dict):
        return _wrong(f"it is {_kind(found)}, not a topology", "it must be one JSON object: { ... }")
    if (old := _old(found)) is not None:
        return Reading(None, (old,))
    checked = _Checked()
    topology = checked.topology(found)
    if checked.problems:
        return Reading(None, tuple(checked.problems), tuple(checked.unknown))
    return Reading(topology, (), tuple(checked.unknown))


def canonical(host: str) -> str:
    """A spelling that is equal for hosts that are the same by their writing; nothing is looked up.

    ``2001:DB8:0:0::1`` is ``2001:db8::1``, ``::ffff:10.0.1.10`` is ``10.0.1.10``, ``BP.example.`` is ``bp.example``.
    """
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".")
    mapped = literal.ipv4_mapped if isinstance(literal, ipaddress.IPv6Address) else None
    return str(mapped or literal)


def is_literal(host: str) -> bool:
    """Whether the host is an address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def shown(text: str) -> str:
    """A text that others wrote, on one line, in printable ASCII, cut to 60 characters."""
    plain = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text[: SHOWN + 1])
    return plain if len(plain) <= SHOWN else f"{plain[:SHOWN]}..."


# ---------------------------------------------------------------- JSON


def _json(text: str) -> Any:
    """The text as Python's values, or what is wrong with it. Python's own words differ by version and are not used."""
    if not text.strip():
        return Problem("it is empty", "copy the whole file")
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return _damaged(text, error)
    except _DoubledKeyError as error:
        mend = "remove one of the two: which of them the node takes is not to be relied on"
        return Problem(f"it has the key {shown(str(error))!r} twice in one object", mend)
    except RecursionError:
        return Problem("it is nested deeper than any topology", "is this the right file?")
    except ValueError:  # a number of thousands of digits, NaN
        return Problem("it has a number that is none", "write slots, ports and valencies as whole numbers")


def _damaged(text: str, error: json.JSONDecodeError) -> Problem:
    lines = text.splitlines()
    line = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
    here = f": {shown(line)}" if line else " (the text ends too early)"
    what = f"it is damaged JSON at line {error.lineno}, column {error.colno}{here}"
    before = text[: error.pos].rstrip()
    if before.endswith(",") and text[error.pos : error.pos + 1] in ("}", "]"):
        return Problem(what, "remove the comma before that bracket")
    if text[error.pos : error.pos + 1] == "," and text[error.pos + 1 :].lstrip()[:1] in ("}", "]"):
        return Problem(what, "remove that comma")  # newer Pythons point at the comma itself
    return Problem(what, "look there for a comma too many or too few, or a bracket or quote that is missing")


class _DoubledKeyError(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: dict[str, None] = {}
        for key, _ in pairs:
            if key in seen:
                raise _DoubledKeyError(key)
            seen[key] = None
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(word)


def _old(found: Mapping[str, Any]) -> Problem | None:
    """The two formats that came before, by the keys that only they have."""
    mend = "write it in the P2P format: failover render topology --for NAME"
    if "Producers" in found:
        words = 'it is in the old format from before P2P ("Producers": [...])'
        return Problem(words, f"{mend}; nodes from 10.6 on read no other")
    if "LocalRoots" in found or "PublicRoots" in found:
        return Problem(
            'it is in the first P2P format ("LocalRoots": {"groups": [...]}), which newer nodes refuse', mend
        )
    return None


def _wrong(what: str, mend: str) -> Reading:
    return Reading(None, (Problem(what, mend),))


# ---------------------------------------------------------------- keys and types


@dataclass(slots=True)
class _Checked:
    """Walks through the values and takes down what is wrong, so that all of it is told at once."""

    problems: list[Problem] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    peers: int = 0

    def topology(self, found: Mapping[str, Any]) -> Topology:
        self._known(found, _TOP, "")
        local = tuple(self._roots(group, f"localRoots[{i}]") for i, group in self._list(found, "localRoots"))
        public: list[Point] = []
        for i, group in self._list(found, "publicRoots"):
            place = f"publicRoots[{i}]"
            if self._object(group, place):
                self._known(group, _PUBLIC, place)
                self._flag(group, "advertise", place)
                public.extend(self._points(group, place))
        given = found.get("bootstrapPeers")
        bootstrap = None
        if given is not None:
            listed = [self._point(each, f"bootstrapPeers[{i}]") for i, each in self._list(found, "bootstrapPeers")]
            bootstrap = tuple(point for point in listed if point is not None)
        if not isinstance(found.get("peerSnapshotFile"), str | None):
            self._say(
                f"peerSnapshotFile is {_kind(found['peerSnapshotFile'])}, not a path", 'write "FILE", or remove it'
            )
        return Topology(local, tuple(public), bootstrap, self._slot(found))

    def _roots(self, group: Any, place: str) -> Roots:
        if not self._object(group, place):
            return Roots(())
        self._known(group, _LOCAL, place)
        # As the node: the first of the two names counts, where its value is one.
        hot = self._count(group, "valency", place) if "valency" in group else self._count(group, "hotValency", place)
        if "valency" not in group and "hotValency" not in group:
            self._say(f"{place} has no valency", "add hotValency: how many of its peers to keep in use")
        warm = None if group.get("warmValency") is None else self._count(group, "warmValency", place)
        hot = hot or 0
        return Roots(
            tuple(self._points(group, place)),
            hot if warm is None else min(hot, warm),  # as the node: a smaller warmValency cuts the other down
            self._flag(group, "trustable", place),
            self._flag(group, "advertise", place),
            self._mode(group, place),
            self._flag(group, "behindFirewall", place),
        )

    def _mode(self, group: Mapping[str, Any], place: str) -> bool:
        mode = group.get("diffusionMode", DUPLEX)
        if mode in (ONE_WAY, DUPLEX, None):
            return bool(mode == ONE_WAY)
        said = repr(shown(mode)) if isinstance(mode, str) else _kind(mode)
        self._say(f"{place}.diffusionMode is {said}", f'write "{ONE_WAY}" or "{DUPLEX}"')
        return False

    def _points(self, group: Mapping[str, Any], place: str) -> Iterator[Point]:
        for i, each in self._list(group, "accessPoints", place):
            if (point := self._point(each, f"{place}.accessPoints[{i}]")) is not None:
                yield point

    def _point(self, found: Any, place: str) -> Point | None:
        self.peers += 1
        if self.peers > MOST_PEERS:
            if self.peers == MOST_PEERS + 1:
                self._say(f"it names more than {MOST_PEERS} peers", "is this the right file?")
            return None
        if not self._object(found, place):
            return None
        self._known(found, _POINT, place)
        host, port = found.get("address"), found.get("port")
        if not isinstance(host, str) or not host.strip() or len(host) > 255:
            said = "missing" if "address" not in found else f"{_kind(host)}, not an address or a name"
            self._say(f"{place}.address is {said}", 'write "10.0.1.10", "2001:db8::1" or "bp.example.com"')
            return None
        if host.startswith("["):
            mend = "write an IPv6 address without brackets, as in 2001:db8::1"
            self._say(f"{place}.address {shown(host)!r} has brackets, so the node looks it up as a name", mend)
            return None
        if port is None and not is_literal(host):
            return Point(host, None)
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            said = "missing" if port is None else _number(port)
            self._say(f"{place}.port is {said}", "write a number from 1 to 65535, without quotes, as in 3001")
            return None
        return Point(host, port)

    def _slot(self, found: Mapping[str, Any]) -> int:
        slot = found.get("useLedgerAfterSlot")
        if slot is None:
            return -1
        if isinstance(slot, bool) or not isinstance(slot, int | float) or abs(slot) > 2**63:
            mend = "write -1 for no ledger peers, 0 for always, or a slot, without quotes"
            self._say(f"useLedgerAfterSlot is {_kind(slot)}, not a slot", mend)
            return -1
        return -1 if slot < 0 else int(slot)

    def _list(self, found: Mapping[str, Any], key: str, place: str = "") -> list[tuple[int, Any]]:
        name = f"{place}.{key}" if place else key
        if key not in found:
            self._say(f"{name} is missing: the node refuses the file", f'add "{key}": []')
            return []
        if not isinstance(found[key], list):
            self._say(f"{name} is {_kind(found[key])}, not a list", f'write "{key}": [ ... ]')
            return []
        return list(enumerate(found[key]))[: MOST_PEERS + 1]

    def _object(self, found: Any, place: str) -> bool:
        if isinstance(found, dict):
            return True
        self._say(f"{place} is {_kind(found)}, not an object", "write { ... }")
        return False

    def _flag(self, found: Mapping[str, Any], key: str, place: str) -> bool:
        value = found.get(key, False)
        if value is None or isinstance(value, bool):
            return bool(value)
        self._say(f"{place}.{key} is {_kind(value)}, not true or false", "write true or false, without quotes")
        return False

    def _count(self, found: Mapping[str, Any], key: str, place: str) -> int | None:
        value = found.get(key)
        if value is None and key not in found:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_PEERS:
            said = _number(value)
            self._say(f"{place}.{key} is {said}", "write how many peers, as a number without quotes, as in 2")
            return None
        return value

    def _known(self, found: Mapping[str, Any], keys: tuple[str, ...], place: str) -> None:
        for key in found:
            if key not in keys and not _COMMENT.fullmatch(key) and len(self.unknown) < MOST_PROBLEMS:
                self.unknown.append(f"{place}.{shown(key)}" if place else shown(key))

    def _say(self, what: str, mend: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(what, mend))


def _number(value: Any) -> str:
    """A whole number as it is, unless it is too long to print; anything else by its kind."""
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**9
    return str(value) if whole else _kind(value)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
