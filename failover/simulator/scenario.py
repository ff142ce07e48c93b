"""A scenario: what happens to a pool, as a small YAML file that an operator can write.

``read`` checks a text by itself; ``cast`` gives its roles to the parts of one pool. Both either succeed or raise
InvalidConfig with everything that is wrong, each with its line and its mend. The library is in scenarios/.

    about: The active producer's machine goes down for twenty minutes.
    for: 1h
    events:
      - {at: 5m, stop: main, for: 20m}
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from failover.config import regular, scalars
from failover.config.document import Location, Node
from failover.config.document import read as read_document
from failover.config.finding import Finding, InvalidConfig, dotted, shown, shown_key
from failover.config.regular import Unreadable
from failover.errors import ConfigError, FailoverError
from failover.model import Pool, Verb
from failover.simulator import pools
from failover.simulator.faults import KINDS, Fault, Value, span
from failover.simulator.roles import NEEDS, Roles, lacks

if TYPE_CHECKING:
    from failover.simulator.world import Setup

MOST_BYTES = 256 * 1024
MOST_EVENTS = 1000
MOST_SECONDS = 7 * 86400.0
MOST_TARGETS = 100
LONGEST_TEXT = 500
MOST_RELAYS, MOST_CONTROLLERS = 16, 2
SUFFIXES = (".yaml", ".yml")

BUILT_IN = """\
pool: EXMPL
network: mainnet
producers:
  - {name: main, address: "10.0.1.10:6000"}
  - {name: backup, address: "10.0.2.10:6000"}
proxies:
  - {name: proxy-1, socket: "10.0.1.5:9999", backend: producers, watch: watch, hard_stop_after: 5s}
  - {name: proxy-2, socket: "10.0.2.5:9999", backend: producers, watch: watch, hard_stop_after: 5s}
references: ["relay.example.org:3001"]
"""

KEYS = ("name", "about", "for", "pool", "world", "needs", "events")
WORLD = ("checks", "relays", "direct", "duplex", "served_only", "active", "assigned", "controllers", "fuse")
OF_EVENT = ("at", "for", "on")
OF_ASK = ("reason", "force")
MOMENTS = ("fencing", "promoting", "step")
NAMED = (Verb.SWITCHOVER, Verb.PIN, Verb.CORDON, Verb.UNCORDON, Verb.ADOPT)  # requests that name a producer
LASTING = (Verb.SWITCHOVER, Verb.PIN, Verb.CORDON, Verb.PAUSE)  # requests that may end by themselves


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a scenario. Whom its words mean is known when there is a pool."""

    kind: str
    at: float
    who: tuple[str, ...]
    lasts: float | None
    on: str | None
    args: Mapping[str, Value]
    line: int
    number: int  # from 0, in the file


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked file. ``pool`` is the built-in one with the file's changes; seconds."""

    name: str
    about: str
    seconds: float
    pool: Pool
    changes_pool: bool
    world: Mapping[str, Any]
    lines: Mapping[str, int]  # of the world's keys
    needs: tuple[str, ...]
    events: tuple[Event, ...]
    file: str


@dataclass(frozen=True, slots=True)
class Cast:
    """A scenario that is ready to be played in one pool. ``notes`` say what of it is left out there.

    ``premise``: settings that the scenario is about and this pool has not, as in ``fence.require: confirmed``.
    """

    scenario: Scenario
    pool: Pool
    setup: Setup
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()
    premise: str = ""


class Unplayable(FailoverError):
    """The pool has not the parts that the scenario is about."""


# ---------------------------------------------------------------- where they are


def library() -> tuple[Scenario, ...]:
    """The scenarios that come with the program, by name."""
    return tuple(_of_library(name) for name in names())


def names() -> tuple[str, ...]:
    """The names of the library's scenarios, in alphabetical order."""
    folder = files("failover.simulator") / "scenarios"
    return tuple(sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml")))


def find(name: str) -> Scenario:
    """One of the library by name, or a file by its path (with a / or a suffix). Raises InvalidConfig, FailoverError."""
    if "/" in name or name.endswith(SUFFIXES):
        return load(Path(name))
    if name in names():
        return _of_library(name)
    near = get_close_matches(name[:80], names(), n=2)
    words = f"did you mean {' or '.join(near)}?" if near else "failover simulate --list names them."
    file = name if name and len(name) <= 40 and name.replace("-", "").isalnum() else "night"
    raise ConfigError(
        f"there is no scenario {shown(name)}", f"{words} A file of your own is given by its path, as in ./{file}.yaml"
    )


def load(path: Path) -> Scenario:
    """Read and check one file. Raises InvalidConfig."""
    try:
        content = regular.read(path, MOST_BYTES + 1)
    except Unreadable as error:
        raise InvalidConfig([Finding(str(path), None, "", None, str(error), error.mend)]) from None
    if len(content) > MOST_BYTES:
        problem = f"is larger than {MOST_BYTES // 1024} KiB"
        raise InvalidConfig([Finding(str(path), None, "", None, problem, "is this the right file?")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidConfig([Finding(str(path), None, "", None, "is not UTF-8 text", "save it as UTF-8")]) from None
    return read(text, str(path))


def _of_library(name: str) -> Scenario:
    place = files("failover.simulator") / "scenarios" / f"{name}.yaml"
    return read(place.read_text(encoding="utf-8"), f"{name}.yaml")


# ---------------------------------------------------------------- reading one


def read(text: str, file: str) -> Scenario:
    """Check a scenario's text; ``file`` is what findings call it. Raises InvalidConfig with every finding."""
    try:
        root, doubled = read_document(text, file)
    except InvalidConfig as error:
        raise InvalidConfig([_in_our_words(finding) for finding in error.findings]) from None
    reader = _Reader(file, list(doubled))
    scenario = reader.scenario(root)
    if scenario is None:
        raise InvalidConfig(sorted(reader.findings, key=lambda finding: finding.line or 0))
    return scenario


def _in_our_words(finding: Finding) -> Finding:
    """A finding about the text as a whole, whose mend would speak of a pool's file."""
    if finding.mend.startswith("begin with"):
        return replace(finding, mend="begin with about:, for: and events:")
    return finding


@dataclass(slots=True)
class _Reader:
    """Reads one file, and collects what is wrong with it."""

    file: str
    findings: list[Finding] = field(default_factory=list)

    def wrong(self, node: Node, place: Location, problem: str, mend: str, *, hidden: bool = False) -> None:
        """Note what is wrong with the value at a place."""
        single = not isinstance(node.value, dict | list) and bool(node.text) and not hidden
        value = shown(node.text) if single else None
        self.findings.append(Finding(self.file, node.line, dotted(place), value, problem, mend))

    def value(self, node: Node, place: Location, check: Callable[[Any], Any]) -> Any:
        """A value as ``check`` makes it, or None and a finding."""
        try:
            return check(node.plain())
        except PydanticCustomError as error:
            words = error.context or {}
            self.wrong(node, place, words["problem"], words["mend"], hidden=words["hidden"])
        return None

    def strangers(self, found: Mapping[str, Node], known: Iterable[str], place: Location) -> None:
        """Keys that there are not."""
        keys = list(known)
        for key, node in found.items():
            if key not in keys:
                near = get_close_matches(key[:80], keys, n=1)
                mend = f"did you mean {near[0]}?" if near else f"here the keys are {', '.join(keys)}"
                self.findings.append(
                    Finding(self.file, node.line, dotted((*place, key)), None, "the key is unknown", mend)
                )

    # ------------------------------------------------------------ the file

    def scenario(self, root: Node) -> Scenario | None:
        """The whole of it, or None when something is wrong."""
        assert isinstance(root.value, dict)  # noqa: S101 - the document is a mapping
        top = root.value
        self.strangers(top, KEYS, ())
        stem = Path(self.file).name
        for suffix in SUFFIXES:
            stem = stem.removesuffix(suffix)
        name = self.value(top["name"], ("name",), scalars.name) if "name" in top else stem
        about = self.value(top["about"], ("about",), _about) if "about" in top else ""
        seconds = self._length(top, root)
        pool = self._pool(top.get("pool"))
        world, lines = self._world(top.get("world"))
        needs = self._needs(top.get("needs"))
        events = self._events(top, root, seconds)
        if self.findings or pool is None or seconds is None:
            return None
        changes = "pool" in top
        return Scenario(name, about, seconds, pool, changes, world, lines, needs, events, self.file)

    def _length(self, top: Mapping[str, Node], root: Node) -> float | None:
        if "for" not in top:
            self.wrong(root, ("for",), "is missing", "say how long it is played, for example for: 45m", hidden=True)
            return None
        found: float | None = self.value(top["for"], ("for",), length)
        return found

    def _pool(self, node: Node | None) -> Pool | None:
        """The built-in pool, with this part of a file over it."""
        if node is None:
            return built_in()
        if not isinstance(node.value, dict):
            kind = scalars.kind(node.plain())
            self.wrong(node, ("pool",), f"is {kind}, not a part of a pool's file", "write its keys below it, indented")
            return None
        merged = _merged(_built_in_document(), node.plain())
        try:
            return pools.of_text(json.dumps(merged), self.file)
        except InvalidConfig as error:
            lines = dict(_lines(node, ()))
            self.findings.extend(_moved(finding, lines, node.line) for finding in error.findings)
        return None

    def _world(self, node: Node | None) -> tuple[Mapping[str, Any], Mapping[str, int]]:
        if node is None:
            return {}, {}
        if not isinstance(node.value, dict):
            kind = scalars.kind(node.plain())
            self.wrong(node, ("world",), f"is {kind}, not a mapping", f"its keys are {', '.join(WORLD)}")
            return {}, {}
        self.strangers(node.value, WORLD, ("world",))
        checks: dict[str, Callable[[Any], Any]] = {
            "checks": _word("l7", "l4", "none"),
            "relays": _whole(1, MOST_RELAYS),
            "direct": _names,
            "duplex": _names,
            "served_only": _names,
            "active": scalars.name,
            "assigned": scalars.flag,
            "controllers": _whole(1, MOST_CONTROLLERS),
            "fuse": length,
        }
        present = {key: each for key, each in node.value.items() if key in checks}
        found = {key: self.value(each, ("world", key), checks[key]) for key, each in present.items()}
        return found, {key: each.line for key, each in present.items()}

    def _needs(self, node: Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        found: tuple[str, ...] | None = self.value(node, ("needs",), _names)
        for need in found or ():
            if need not in NEEDS and need != "no-proxy":
                mend = _nearest(need, (*NEEDS, "no-proxy"))
                self.wrong(node, ("needs",), f"{shown(need)} is nothing that a pool can be asked to have", mend)
        return found or ()

    # ------------------------------------------------------------ events

    def _events(self, top: Mapping[str, Node], root: Node, seconds: float | None) -> tuple[Event, ...]:
        if "events" not in top:
            mend = "list what happens; events: [] when nothing does"
            self.wrong(root, ("events",), "is missing", mend, hidden=True)
            return ()
        node = top["events"]
        if not isinstance(node.value, list):
            kind = scalars.kind(node.plain())
            self.wrong(
                node, ("events",), f"is {kind}, not a list", "write a line like - {at: 5m, stop: main, for: 10m}"
            )
            return ()
        if len(node.value) > MOST_EVENTS:
            problem = f"there are {len(node.value)}, and at most {MOST_EVENTS} are played"
            self.wrong(node, ("events",), problem, "split the scenario")
            return ()
        found = [self._event(each, number, seconds) for number, each in enumerate(node.value)]
        return tuple(event for event in found if event is not None)

    def _event(self, node: Node, number: int, seconds: float | None) -> Event | None:
        place: Location = ("events", number)
        example = "write for example {at: 5m, stop: main, for: 10m}"
        if not isinstance(node.value, dict):
            self.wrong(node, place, f"is {scalars.kind(node.plain())}, not an event", example)
            return None
        found, before = node.value, len(self.findings)
        kinds = [key for key in found if key in KINDS]
        if len(kinds) != 1:
            self._no_kind(node, place, kinds, example)
            return None
        kind = kinds[0]
        arguments = dict(KINDS[kind].defaults)
        also = OF_ASK if kind == "ask" else ()
        arguments.pop("verb", None)
        self.strangers(found, (kind, *OF_EVENT, *arguments, *also), place)
        at = self._at(found, node, place, seconds)
        lasts = self._lasts(found, place, kind)
        on = self.value(found["on"], (*place, "on"), _word(*MOMENTS)) if "on" in found else None
        args = self._arguments(found, place, kind, (*arguments, *also))
        who: tuple[str, ...] = ()
        if kind == "ask":
            self._asked(found, place, args, node)
        else:
            who = self.value(found[kind], (*place, kind), _names) or ()
            if not KINDS[kind].many and len(who) > 1:
                self.wrong(found[kind], (*place, kind), "happens to one at a time", "write an event for each")
        if len(self.findings) > before or at is None:
            return None
        return Event(kind, at, who, lasts, on, args, node.line, number)

    def _no_kind(self, node: Node, place: Location, kinds: list[str], example: str) -> None:
        assert isinstance(node.value, dict)  # noqa: S101 - the caller looked
        if kinds:
            problem = f"is {len(kinds)} events at once: {' and '.join(kinds)}"
            self.wrong(node, place, problem, "write one event for each")
            return
        arguments = {name for kind in KINDS.values() for name in kind.defaults}
        unknown = [key for key in node.value if key not in (*OF_EVENT, *OF_ASK, *arguments)]
        near = [match for key in unknown for match in get_close_matches(key[:80], KINDS, n=2)]
        what = f"{shown_key(unknown[0])} is no kind of event" if unknown else "does not say what happens"
        mend = (
            f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else f"{example}; docs/simulation.md lists all"
        )
        self.wrong(node, place, what, mend)

    def _at(self, found: Mapping[str, Node], node: Node, place: Location, seconds: float | None) -> float | None:
        if "at" not in found:
            self.wrong(node, (*place, "at"), "is missing", "say when it happens, for example at: 5m", hidden=True)
            return None
        at: float | None = self.value(found["at"], (*place, "at"), moment)
        if at is not None and seconds is not None and at >= seconds:
            problem = "is not before the end of the scenario"
            self.wrong(found["at"], (*place, "at"), problem, "let it happen earlier, or play longer (for:)")
            return None
        return at

    def _lasts(self, found: Mapping[str, Node], place: Location, kind: str) -> float | None:
        if "for" not in found or kind == "ask":
            return None
        if not KINDS[kind].undoes:
            problem = f"{kind} happens at one moment and cannot last"
            self.wrong(found["for"], (*place, "for"), problem, "remove for:")
            return None
        lasts: float | None = self.value(found["for"], (*place, "for"), length)
        return lasts

    def _arguments(
        self, found: Mapping[str, Node], place: Location, kind: str, known: tuple[str, ...]
    ) -> dict[str, Value]:
        """What is said besides; names of parts as they are written."""
        args: dict[str, Value] = {}
        for name in known:
            if name in found:
                value = self.value(found[name], (*place, name), _ARGUMENTS[name])
                if value is not None:
                    args[name] = value
            elif name == "producer" and kind != "ask":
                place_of = Node(None, found[kind].line)
                self.wrong(place_of, (*place, name), "is missing", "say which, for example producer: backup")
        return args

    def _asked(self, found: Mapping[str, Node], place: Location, args: dict[str, Value], node: Node) -> None:
        """A request's verb, and whether what is said besides belongs to it."""
        verb = self.value(found["ask"], (*place, "ask"), _word(*(verb.value for verb in Verb)))
        if verb is None:
            return
        args["verb"] = verb
        if verb in NAMED and "producer" not in found:
            self.wrong(node, (*place, "producer"), "is missing", f"say whom: {{ask: {verb}, producer: backup}}")
        if "producer" in found and verb not in NAMED:
            self.wrong(found["producer"], (*place, "producer"), f"{verb} names no producer", "remove producer:")
        if "force" in found and verb != Verb.SWITCHOVER:
            self.wrong(found["force"], (*place, "force"), f"{verb} cannot be forced", "remove force:")
        if "for" in found:
            if verb not in LASTING:
                self.wrong(found["for"], (*place, "for"), f"{verb} does not end by itself", "remove for:")
                return
            lasts = self.value(found["for"], (*place, "for"), length)
            if lasts is not None:
                args["seconds"] = lasts


# ---------------------------------------------------------------- single values


def length(value: Any) -> float:
    """Seconds, above zero and at most 7 days."""
    mend = "write for example 90s, 45m or 12h"
    if scalars.seconds(value, mend) > MOST_SECONDS:
        raise scalars.refuse("is longer than 7 days (168h)", mend)
    return scalars.duration(value)


def moment(value: Any) -> float:
    """Seconds after the beginning."""
    mend = "write for example 0, 90s, 5m or 1h30m"
    seconds = scalars.seconds(value, mend)
    if not 0 <= seconds <= MOST_SECONDS:
        raise scalars.refuse("is not within 7 days after the beginning", mend)
    return seconds


def _about(value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else value
    plain = scalars.text(text, "a sentence", '"The active producer stops."')
    if len(plain) > LONGEST_TEXT:
        raise scalars.refuse(f"is longer than {LONGEST_TEXT} characters", "say it in one or two sentences")
    return plain


def _reason(value: Any) -> str:
    plain = scalars.text(value, "a reason", '"maintenance"')
    if len(plain) > LONGEST_TEXT:
        raise scalars.refuse(f"is longer than {LONGEST_TEXT} characters", "say it in a few words")
    return plain


def _names(value: Any) -> tuple[str, ...]:
    """A name or a list of names; whose they are is looked at when there is a pool."""
    several = value if isinstance(value, list) else [value]
    if not several or len(several) > MOST_TARGETS:
        raise scalars.refuse(f"must be 1 to {MOST_TARGETS} names", "write for example main, or [main, proxy-1]")
    return tuple(dict.fromkeys(_one(each) for each in several))


def _one(value: Any) -> str:
    plain = scalars.text(value, "a name", '"main"')
    if len(plain) > 260:
        raise scalars.refuse("is too long for a name", "write for example main")
    return plain


def _word(*choices: str) -> Callable[[Any], str]:
    return lambda value: scalars.choice(value, choices)


def _whole(least: int, most: int) -> Callable[[Any], int]:
    return lambda value: scalars.count(value, least, most, str(least + 1))


def _number(least: float, most: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise scalars.refuse(f"is {scalars.kind(value)}, not a number", f"write a number, as in {least:g}")
        if not least <= value <= most:
            raise scalars.refuse(f"is not between {least:g} and {most:g}", "write a number between them")
        return float(value)

    return check


def _seconds(value: Any) -> float:
    """Seconds, also negative ones: a clock is set back by -1h."""
    mend = "write for example 3s, 10m or -1h"
    if isinstance(value, str) and value.startswith("-"):
        seconds = -scalars.seconds(value[1:], mend)
    else:
        seconds = scalars.seconds(value, mend)
    if not scalars.LEAST_SECONDS <= abs(seconds) <= 100 * 365 * 86400:
        raise scalars.refuse("is no time that is played here", mend)
    return seconds


_ARGUMENTS: Mapping[str, Callable[[Any], Value]] = {
    "about": _word("order", "status"),
    "call": _number(1, 100_000),
    "count": _number(1, 1000),
    "down": length,
    "force": scalars.flag,
    "from": _names,
    "keys": _word("back", "away"),
    "node": _word("told", "untold"),
    "point": _word("before", "effect", "reply"),
    "ppm": _number(-100_000, 100_000),
    "producer": _one,
    "reason": _reason,
    "seconds": _seconds,
    "share": _number(0.01, 0.95),
    "slots": _number(1, 1_000_000),
    "state": _word("current", "stale", "none"),
    "up": length,
}


# ---------------------------------------------------------------- the pool of a scenario


def built_in() -> Pool:
    """The pool that is played where there is no file: two producers, two proxies, one reference."""
    return pools.of_text(BUILT_IN, "the built-in pool")


def _built_in_document() -> dict[str, Any]:
    root, _ = read_document(BUILT_IN, "the built-in pool")
    found: dict[str, Any] = root.plain()
    return found


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; everything else is replaced."""
    found = dict(under)
    for key, value in over.items():
        below = found.get(key)
        found[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return found


def _lines(node: Node, place: Location) -> Iterable[tuple[str, int]]:
    """The line of every place of a part of a file, by the place as findings write it; depth is bounded."""
    yield dotted(place), node.line
    inner: Iterable[tuple[str | int, Node]] = ()
    if isinstance(node.value, dict):
        inner = node.value.items()
    elif isinstance(node.value, list):
        inner = enumerate(node.value)
    for key, each in inner:
        yield from _lines(each, (*place, key))


def _moved(finding: Finding, lines: Mapping[str, int], first: int) -> Finding:
    """A finding about the merged pool at the line of the scenario that it comes from."""
    key, line = finding.key, None
    while key and line is None:
        line = lines.get(key)
        key = key.rpartition("[")[0] if key.endswith("]") else key.rpartition(".")[0]
    return replace(finding, line=line or first, key=f"pool.{finding.key}")


# ---------------------------------------------------------------- giving the roles


def cast(scenario: Scenario, pool: Pool | None = None) -> Cast:
    """Give the scenario's roles to the parts of ``pool``; None: of its own one.

    Raises Unplayable when the pool lacks what the scenario is about, InvalidConfig for names that mean nobody.
    """
    from failover.simulator.world import Setup

    played = scenario.pool if pool is None else pool
    world = dict(scenario.world)
    if pool is not None:
        world.setdefault("checks", _checks(pool))
    roles = Roles.of(played, world.get("relays", Setup().relays))
    missing = [lack for need in scenario.needs if (lack := lacks(need, roles)) is not None]
    if missing:
        raise Unplayable(f"{scenario.name} needs {' and '.join(missing)}", _elsewhere(scenario))
    giver = _Giver(scenario, played.name, roles)
    for key in ("direct", "duplex", "served_only"):
        if key in world:
            world[key] = giver.several(world[key], ("producer",), ("world", key), scenario.lines[key])
    if "active" in world:
        world["active"] = giver.single(world["active"], ("producer",), ("world", "active"), scenario.lines["active"])
    faults = tuple(giver.fault(event) for event in scenario.events)
    if giver.findings:
        raise InvalidConfig(giver.findings)
    differing = () if pool is None else _differing(scenario.pool, pool)
    premise = _joined(f"{name}: {theirs}" for name, theirs, _ in differing)
    notes = () if pool is None else tuple(_notes(scenario, pool, differing, premise))
    return Cast(scenario, played, Setup(**world), faults, notes, premise)


def _elsewhere(scenario: Scenario) -> str:
    """How a scenario can be played that this pool has not the parts for."""
    roles = Roles.of(scenario.pool, scenario.world.get("relays", MOST_RELAYS))
    if any(lacks(need, roles) for need in scenario.needs):
        return f"write what it needs below pool: in {scenario.file}, and play it with --built-in"
    name = scenario.file
    if name.removesuffix(".yaml") in names():  # of the library; a file of that name is given by its path
        name = name.removesuffix(".yaml")
    return f"play it in the built-in pool: {shlex.join(['failover', 'simulate', '--built-in', '--scenario', name])}"


def _checks(pool: Pool) -> str:
    """How this pool's proxies check, as far as its file tells."""
    return "l7" if all(proxy.watch for proxy in pool.proxies) else "l4"


def _notes(scenario: Scenario, pool: Pool, differing: Iterable[tuple[str, str, str]], premise: str) -> Iterator[str]:
    """What of a scenario does not hold in the operator's own pool, a sentence each."""
    if premise:
        yours = _joined(ours for _, _, ours in differing)
        yield (
            f"this scenario is about a pool with {premise}; yours has {yours}, "
            "so what follows is not what its heading says"
        )
    elif scenario.changes_pool:
        yield f"{scenario.name}: its own pool: is not used, your file's is"
    checks = scenario.world.get("checks")
    if checks is not None and pool.proxies and checks != _checks(pool):
        yield (
            f"this scenario is about proxies with world.checks: {checks}; by your file yours have {_checks(pool)}, "
            "so what follows is not what would happen to yours"
        )


def _differing(about: Pool, pool: Pool) -> tuple[tuple[str, str, str], ...]:
    """Settings that a scenario's pool has otherwise than the built-in one, and ``pool`` otherwise than it.

    Each with the scenario's value and the pool's. Producers, records and where proxies are do not count.
    """
    usual = _settings(built_in())
    theirs, ours = _settings(about), _settings(pool)
    return tuple(
        (name, value, ours[name])
        for name, value in theirs.items()
        if value != usual.get(name) and name in ours and value != ours[name]
    )


def _settings(pool: Pool) -> dict[str, str]:
    """A pool's settings by their keys in the file, in words."""
    found = {"mode": pool.mode}
    for part in ("health", "policy", "fence", "lease"):
        of_part = getattr(pool, part)
        found.update((f"{part}.{each.name}", _in_words(getattr(of_part, each.name))) for each in fields(of_part))
    for key in ("watch", "hard_stop_after") if pool.proxies else ():
        values = [getattr(proxy, key) for proxy in pool.proxies]
        if key == "watch":  # its name is nobody's premise
            values = [value is not None for value in values]
        found[f"proxies[].{key}"] = " or ".join(dict.fromkeys(_in_words(value) for value in values))
    return found


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return span(value)
    return "none" if value is None else str(value)


def _joined(words: Iterable[str]) -> str:
    return " and ".join(words)


@dataclass(slots=True)
class _Giver:
    """Puts a pool's parts where a scenario has words."""

    scenario: Scenario
    pool: str
    roles: Roles
    findings: list[Finding] = field(default_factory=list)

    def several(self, words: Iterable[str], kinds: tuple[str, ...], place: Location, line: int) -> tuple[str, ...]:
        """The parts that some words mean, each once; none and a finding for a word that means nobody."""
        known, found = self.roles.known(*kinds), dict[str, None]()
        for word in words:
            if word in known:
                found.update(dict.fromkeys(known[word]))
            else:
                self._nobody(word, kinds, place, line, known)
        return tuple(found)

    def single(self, word: str, kinds: tuple[str, ...], place: Location, line: int) -> str:
        """The one part that a word means."""
        found = self.several((word,), kinds, place, line)
        if len(found) > 1:
            finding = Finding(self.scenario.file, line, dotted(place), shown(word), "means several", "name one of them")
            self.findings.append(finding)
        return found[0] if found else ""

    def _nobody(
        self, word: str, kinds: tuple[str, ...], place: Location, line: int, known: Mapping[str, tuple[str, ...]]
    ) -> None:
        what = " or ".join("part" if kind == "place" else kind for kind in kinds)
        elsewhere = [kind for kind in self.roles.parts if word in self.roles.known(kind)]
        problem = f"is no {what} of pool {self.pool}" if not elsewhere else f"is a {elsewhere[0]}, not a {what}"
        self.findings.append(
            Finding(self.scenario.file, line, dotted(place), shown(word), problem, _nearest(word, tuple(known)))
        )

    def _one_side(self, event: Event, place: Location, said: bool) -> None:
        """A finding about a network fault with nobody on its other side."""
        key, problem = ("from", f"is all on the side of {event.kind}:") if said else (event.kind, "is everybody")
        mend = f"name two sides, for example {{{event.kind}: main, from: controller}}"
        finding = Finding(
            self.scenario.file, event.line, dotted((*place, key)), None, f"{problem}, so nothing is hit", mend
        )
        self.findings.append(finding)

    def fault(self, event: Event) -> Fault:
        """What happens, to whom."""
        kind, place = KINDS[event.kind], ("events", event.number)
        targets = self.several(event.who, kind.hits, (*place, event.kind), event.line) if kind.hits else ()
        if event.who and not kind.many and len(targets) > 1:
            finding = Finding(
                self.scenario.file, event.line, dotted((*place, event.kind)), None, "happens to one at a time",
                "write an event for each",
            )  # fmt: skip
            self.findings.append(finding)
        args = dict(event.args)
        if "producer" in args:
            args["producer"] = self.single(str(args["producer"]), ("producer",), (*place, "producer"), event.line)
        if "from" in kind.defaults:
            said = args.get("from")
            if isinstance(said, tuple):
                others = self.several(said, ("place",), (*place, "from"), event.line)
            else:
                others = self.roles.places()
            args["from"] = tuple(name for name in others if name not in targets)
            if others and not args["from"]:
                self._one_side(event, place, said is not None)
        return Fault(event.at, event.kind, targets, event.lasts, args, event.on)


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(word[:80], known, n=2)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"write one of {', '.join(known[:20])}" if known else "this pool has none"
