"""YAML text as a tree of values that know their lines.

Read from the parser's events, without recursion and without a constructor: nothing that the text says can make
an object, repeat a part of itself, or grow beyond the bounds below. Scalars follow YAML 1.2's core schema, so a
ticker ``NO`` stays text. This module does not know what the keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from failover.config.finding import Finding, InvalidConfig, dotted

MOST_BYTES = 1 << 20
MOST_NODES = 20_000  # a pool of 16 producers, 64 proxies, 64 relays, 80 agents and 16 records needs about 10,000
SOURCE = 300  # characters of a line that are searched for a well-known mistake
DEEPEST = 10  # the deepest value that means something is at 5

Location = tuple[str | int, ...]
Scalar = str | int | float | bool | None

_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BARE_V6 = re.compile(r"""(?<!["'])\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]:[0-9]+""")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line (from 1) of its key, or of itself in a list. ``text`` is a scalar as it was written."""

    value: Scalar | dict[str, Node] | list[Node]
    line: int
    text: str = ""

    def plain(self) -> Any:
        """The value in plain Python, as deep as it goes (the depth is bounded)."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def find(self, location: Sequence[str | int]) -> tuple[Node, bool]:
        """The value at a place and True; or the nearest that is written above that place, and False."""
        node = self
        for part in location:
            inner = node._child(part)
            if inner is None:
                return node, False
            node = inner
        return node, True

    def _child(self, part: str | int) -> Node | None:
        if isinstance(self.value, dict):
            return self.value.get(str(part))
        if isinstance(self.value, list) and isinstance(part, int):
            return self.value[part] if part < len(self.value) else None
        return None


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    node: Node
    key: str | None = None  # read, and its value not yet
    inside: str | None = None  # whose value was begun last
    key_line: int = 0
    doubled: bool = False


@dataclass(slots=True)
class _Builder:
    """Puts the tree together, one event at a time."""

    file: str
    root: Node | None = None
    documents: int = 0
    nodes: int = 0
    stack: list[_Open] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    latest: Node = field(default_factory=lambda: Node(None, 1))

    def fail(self, line: int, problem: str, mend: str) -> InvalidConfig:
        """The text as a whole cannot be used."""
        return InvalidConfig([*self.findings, Finding(self.file, line, self._here(), None, problem, mend)])

    def take(self, event: Any) -> None:
        """Add one event of the parser."""
        line = event.start_mark.line + 1
        if isinstance(event, events.DocumentStartEvent):
            self._document(event, line)
        elif isinstance(event, events.AliasEvent):
            raise self.fail(line, "an alias (*) repeats another part of the file", "write the value out")
        elif isinstance(event, events.CollectionEndEvent):
            self.stack.pop()
        elif isinstance(event, events.NodeEvent):
            self._node(event, line)

    def _document(self, event: Any, line: int) -> None:
        self.documents += 1
        if self.documents > 1:
            raise self.fail(line, "a second document begins here", "keep one document; remove the line ---")
        if event.version is not None or event.tags:
            raise self.fail(line, "has directives (lines that begin with %)", "remove them")

    def _node(self, event: Any, line: int) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise self.fail(line, f"has more than {MOST_NODES} values", "is this the right file?")
        if event.anchor is not None:
            raise self.fail(line, "an anchor (&) names a part of the file", "remove it, and write values out")
        if event.ctag is not None:
            raise self.fail(
                line, "a tag (!) asks for a special type", "remove it; put text that begins with ! in quotes"
            )
        if isinstance(event, events.ScalarEvent):
            plain = bool(event.implicit[0]) and not event.style
            node = Node(_scalar(event.value) if plain else event.value, line, event.value)
        else:
            node = Node({} if isinstance(event, events.MappingStartEvent) else [], line)
        self._place(node, line)
        if not isinstance(event, events.ScalarEvent):
            if len(self.stack) >= DEEPEST:
                raise self.fail(line, f"is nested more than {DEEPEST} levels deep", "see the reference for the shape")
            self.stack.append(_Open(self.latest))

    def _place(self, node: Node, line: int) -> None:
        self.latest = node
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        if isinstance(top.node.value, list):
            top.node.value.append(node)
        elif isinstance(top.node.value, dict):
            if top.key is None:
                self._key(top, top.node.value, node, line)
            else:
                # A value counts from its key's line: that is where an operator looks for it.
                self.latest = Node(node.value, top.key_line, node.text)
                if not top.doubled:
                    top.node.value[top.key] = self.latest
                top.key, top.inside = None, top.key

    def _key(self, top: _Open, entries: dict[str, Node], node: Node, line: int) -> None:
        if isinstance(node.value, dict | list):
            raise self.fail(line, "a mapping or list stands where a key belongs", "write KEY: VALUE")
        top.key, top.key_line = node.text, line
        top.doubled = node.text in entries
        if top.doubled:
            first = entries[node.text].line
            problem = f"the key is written twice, first on line {first}"
            self.findings.append(Finding(self.file, line, self._here(), None, problem, "remove one of the two"))

    def _here(self) -> str:
        place: list[str | int] = []
        for entry in self.stack:
            if isinstance(entry.node.value, list):
                place.append(max(0, len(entry.node.value) - 1))
            elif (key := entry.key or (None if entry is self.stack[-1] else entry.inside)) is not None:
                place.append(key)
        return dotted(place)


def _scalar(text: str) -> Scalar:
    """A plain scalar by YAML 1.2's core schema (section 10.3.2 of the specification)."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _events(text: str) -> Iterator[Any]:
    yield from YAML(typ="safe", pure=True).parse(text)


def read(text: str, file: str) -> tuple[Node, tuple[Finding, ...]]:
    """The tree, and its doubled keys (the first of them counts).

    Raises InvalidConfig when the text is no single, plain YAML mapping within the bounds.
    """
    builder = _Builder(file)
    if len(text) > MOST_BYTES:
        raise too_large(file)
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        code = f"U+{ord(unprintable.group()):04X}"
        raise builder.fail(line, f"has the control character {code}", "remove it; is this a text file?")
    try:
        for event in _events(text):
            builder.take(event)
    except MarkedYAMLError as error:
        raise _syntax(error, text, builder) from None
    except (YAMLError, ValueError, OverflowError):
        # ValueError: an escape such as "\U00110000", beyond Unicode, for which ruamel.yaml has no error of its own.
        line = builder.latest.line
        raise builder.fail(line, "is not YAML, from about this line on", "check escapes and quotes") from None
    root = builder.root
    if root is None or root.value is None:
        raise builder.fail(1, "the file is empty", "begin with pool, network, producers and proxies")
    if not isinstance(root.value, dict):
        raise builder.fail(root.line, "the file is not a mapping of keys to values", "begin with pool: NAME")
    return root, tuple(builder.findings)


def too_large(file: str) -> InvalidConfig:
    """The refusal of a text above the bound."""
    return InvalidConfig([Finding(file, None, "", None, "is larger than 1 MiB", "is this the right file?")])


def _syntax(error: MarkedYAMLError, text: str, builder: _Builder) -> InvalidConfig:
    """A syntax error in few words. The library's snippet of the line is left out: it may show a secret."""
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    source = [each[:SOURCE] for each in text.splitlines()[line - 1 : line]]
    mend = "check the indentation, quotes and brackets here and on the line above"
    if source and _BARE_V6.search(source[0]):
        mend = 'put IPv6 addresses in quotes: "[2001:db8::1]:6000"'
    elif source and "\t" in source[0]:
        mend = "indent with spaces, not tabs"
    problem = _QUOTED.sub(_keep_symbols, str(error.problem or "cannot be read"))
    return builder.fail(line, f"is not YAML: {problem}", mend)


def _keep_symbols(match: re.Match[str]) -> str:
    """Keep what the parser quotes when it is one sign or a token's name, not a word out of the file."""
    inner = match.group()[1:-1]
    return match.group() if len(inner) <= 2 or (inner[0] == "<" and inner[-1] == ">") else "'…'"
