"""The reference names everything that users see, and what the docs tell people to type is a command that there is."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from policy_world import World, instant, make_gateless_pool, make_pool
from prometheus_client.parser import text_string_to_metric_families
from status_world import report

from failover import agent, config, incidents, journal, splits, status
from failover.cli import COMMANDS, main
from failover.cli.daemon import Seen
from failover.cli.ping import Outcome, document
from failover.config import scalars
from failover.config.parts import RESERVED
from failover.errors import PingError
from failover.handover import TRANSITIONS
from failover.metrics import DRIFTS, POINT_RESULTS, PREFIX, SERVERS, Metrics
from failover.model import (
    KICK,
    POINT,
    Address,
    Admin,
    Cause,
    Event,
    EventKind,
    GateKind,
    JournalEntry,
    StepKind,
    Tip,
    Verb,
)
from failover.ouroboros.ping import PingResult

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "haproxy" / "README.md")
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
HELD = re.compile(r"^(paused|pinned|cordoned\[\]|barred\[\])\.")
SMALLEST = """\
pool: EXMPL
network: mainnet
state: {state}
producers: [{{name: main, address: "127.0.0.1:6000"}}, {{name: backup, address: "127.0.0.2:6000"}}]
proxies: [{{name: proxy-1, socket: /run/haproxy/admin.sock, backend: producers}}]
"""
EMPTY = {"barred"}  # what is barred is a restriction like cordoned


# ---------------------------------------------------------------- reading the docs


def chapter(heading: str) -> str:
    """The text from a heading to the next one of its own or a higher level; ``#`` in code is no heading."""
    level, fenced, found = len(heading.partition(" ")[0]), False, None
    for line in REFERENCE.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        depth = 0 if fenced else len(line) - len(line.lstrip("#"))
        if line.rstrip() == heading:
            found = ""
        elif found is not None and 0 < depth <= level:
            return found
        elif found is not None:
            found += line
    assert found is not None, f"docs/reference.md has no heading {heading!r}"
    return found


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a chapter's tables, by the code in their first cell."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and cells[0].endswith("`"):
            found[cells[0].strip("`")] = cells
    return found


def codes(text: str) -> set[str]:
    """Everything that stands in backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


# ---------------------------------------------------------------- configuration


def keys_of(part: Mapping[str, Any], definitions: Mapping[str, Any], path: str = "/") -> Iterator[tuple[str, str, Any]]:
    """Every key of the JSON Schema: the heading of its section, its name and its schema."""
    for branch in (part, *part.get("anyOf", ()), *part.get("allOf", ())):
        found = definitions[branch["$ref"].rpartition("/")[2]] if "$ref" in branch else branch
        for key, value in found.get("properties", {}).items():
            yield path, key, value
            yield from keys_of(value, definitions, key)
        if "items" in found:
            yield from keys_of(found["items"], definitions, f"{path}[]")


def every_key() -> list[tuple[str, str, Any]]:
    schema = config.schema()
    return list(keys_of(schema, schema.get("$defs", {})))


def test_the_walk_finds_keys_in_every_section() -> None:
    sections = {section for section, _, _ in every_key()}
    records = {"records[]", "route53", "rfc2136", "verify"}
    hosts = {"agents[]", "producers[]", "power", "relays[]"}
    assert sections == {"/", "network", "proxies[]", "health", "policy", "fence", "lease"} | hosts | records


@pytest.mark.parametrize(
    ("section", "key", "value"), every_key(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_key_of_the_file_has_a_row_with_its_default(section: str, key: str, value: Mapping[str, Any]) -> None:
    cells = rows(chapter(f"### `{section}`"))[key]
    assert len(cells) == 5
    assert all(cells[i] for i in (1, 2, 4)), f"{section} {key}: an empty cell"
    default = value.get("default")
    if default is None or isinstance(default, dict | list):
        return
    said = cells[2].strip("`")
    if cells[1] == "duration":
        assert scalars.duration(said) == default
    else:
        assert said == (str(default).lower() if isinstance(default, bool) else str(default))


def test_every_key_of_an_agents_configuration_has_a_row_and_every_row_is_a_key() -> None:
    table = REFERENCE.partition("## 8. The agent on a host")[2]
    rows = re.findall(r"^\| `([a-z_.]+)` \|", table, re.MULTILINE)
    keys = [
        f"{section}.{key}".removeprefix(".")
        for section in ("", "node", "firewall", "fuse")
        for key in agent.KEYS[section]
    ]
    assert sorted(rows) == sorted(keys)


def test_no_row_of_the_configuration_names_a_key_that_there_is_not() -> None:
    known = every_key()
    for section in {section for section, _, _ in known}:
        assert set(rows(chapter(f"### `{section}`"))) == {key for where, key, _ in known if where == section}


def test_every_reserved_name_is_said() -> None:
    assert set(RESERVED) <= codes(chapter("## 1. Configuration"))


# ---------------------------------------------------------------- commands


def every_command(group: click.Group, prefix: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        yield prefix + name
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from every_command(command, f"{prefix}{name} ")


def test_every_command_has_a_row() -> None:
    found = set(every_command(main))
    assert found > set(COMMANDS)
    assert set(rows(chapter("## 2. Commands"))) == found


def every_line() -> Iterator[tuple[str, str]]:
    """Every command line of the docs, with its file: in code blocks, and in backticks within a line."""
    for file in DOCS:
        fenced = False
        for line in file.read_text().splitlines():
            if line.startswith("```"):
                fenced = not fenced
                continue
            for text in [line] if fenced else re.findall(r"`([^`]+)`", line):
                match = re.match(r"(?:\$ |sudo |[\w./-]+/)*failover (?=[-\w])(?P<words>.*)", text.strip())
                if match:
                    yield file.name, match["words"]


def parse(words: str) -> None:
    """Have click parse a command line, and do nothing. Raises click.ClickException."""
    arguments = shlex.split(re.split(r"\s[|>;&]|;", words)[0], comments=True)
    command: click.Command = main
    parent: click.Context | None = None
    while True:
        try:
            context = command.make_context(command.name or "failover", arguments, parent)
        except click.exceptions.Exit:  # --help, --version
            return
        if not isinstance(command, click.Group):
            return
        name, found, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        command, parent = found, context


@pytest.mark.parametrize(("file", "words"), sorted(set(every_line())), ids=lambda part: part)
def test_every_command_line_of_the_docs_parses(
    file: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parse(words)


def test_command_lines_are_found_and_wrong_ones_do_not_parse() -> None:
    assert len(set(every_line())) > 20
    for wrong in ("switchover", "switchover --to main --quickly", "stauts", "render topology", "lab upp"):
        with pytest.raises(click.ClickException):
            parse(wrong)


# ---------------------------------------------------------------- JSON


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a document with its value; lists as ``[]``, servers by NAME."""
    if isinstance(value, dict):
        for key, inner in value.items():
            name = "NAME" if path.endswith(".servers") else key
            inner_path = f"{path}.{name}" if path else name
            yield inner_path, inner
            yield from leaves(inner, inner_path)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, f"{path}[]")


def statuses() -> Iterator[dict[str, Any]]:
    """Status documents in which every part that can be there is there."""
    held = World(make_pool())
    held.run(60)
    held.ask(Verb.CORDON, "backup")
    held.ask(Verb.PIN, "main")
    held.ask(Verb.PAUSE)
    held.set("p1", backup=Admin.READY)
    held.run(90)
    yield Seen(status.document(report(held))).as_json()
    failing = World(make_pool())
    failing.run(60)
    failing.nodes["main"].up = False
    failing.run(120)
    yield Seen(status.document(report(failing))).as_json()
    moved = World(make_gateless_pool())
    moved.run(60)
    moved.signs["bp.example.com."].frozen.add("ns2")
    moved.ask(Verb.SWITCHOVER, "backup")
    moved.run(120)
    yield Seen(status.document(report(moved))).as_json()
    hosts = World(make_pool(proxies=(), gates=(GateKind.FORGING,), metrics=True, relays=("r1",)))
    hosts.parties["r1"].dials = ("main", "backup")
    hosts.run(60)
    hosts.switches[hosts.pool.host_gates[0]].certain = False
    hosts.ask(Verb.SWITCHOVER, "backup")
    hosts.run(120)
    yield Seen(status.document(report(hosts))).as_json()
    led = World(make_gateless_pool(relays=("r1",)))
    led.run(60)
    led.ask(Verb.SWITCHOVER, "backup")
    led.run(120)
    yield Seen(status.document(report(led))).as_json()


def test_every_key_of_the_status_has_a_row_and_every_row_is_a_key() -> None:
    found: dict[str, list[Any]] = {}
    for made in statuses():
        for path, value in leaves(made):
            found.setdefault(path, []).append(value)
    lists = {path for path, values in found.items() if any(isinstance(value, list) for value in values)}
    assert {path for path in lists if not any(found[path])} == EMPTY, "a list whose items were not seen"
    wanted = {HELD.sub("restriction.", path) for path in found if not path.endswith(".NAME")}
    assert set(rows(chapter("### `failover status --json`"))) == wanted


def test_every_key_of_a_ping_has_a_row() -> None:
    target = Address("localhost", 3001)
    well = PingResult("127.0.0.1:3001", 14, 0.1, 0.2, 0.3, 0.4, 1.0, Tip(1, "ab", 1))
    made = (
        document(Outcome(target, 1.0, result=well)),
        document(Outcome(target, 1.0, error=PingError("localhost:3001: refused", "connect"))),
    )
    wanted = {path for one in made for path, _ in leaves(one)}
    assert set(rows(chapter("### `failover ping --json localhost:3001`"))) == wanted


def test_every_key_of_the_history_has_a_row() -> None:
    entry = JournalEntry(1, Event(EventKind.STARTED, instant(0), "started"))
    assert set(rows(chapter("### `failover history --json`"))) == set(journal.document(entry))


def test_every_key_of_the_report_of_an_incident_has_a_row() -> None:
    done = (incidents.Deed("s", instant(0), "close", "sent"),)
    lasting = incidents.Incident(1, instant(0), 1, "main", "split-brain x", done=done)
    seen = incidents.Now(instant(1), 1, "main", decides=True)
    made = incidents.document(incidents.report(lasting, seen), over=False)
    assert set(rows(chapter("### `failover history --incident 7 --json`"))) == {path for path, _ in leaves(made)}
    begun = Event(EventKind.SPLIT_BRAIN, instant(0), "", detail={"incident": 1})
    assert incidents.document(incidents.unreported(begun), over=None).keys() == made.keys()


@pytest.mark.parametrize("words", ["check --offline --json", "version --json"])
def test_every_key_of_what_these_commands_print_has_a_row(words: str, tmp_path: Path) -> None:
    file = tmp_path / "failover.yaml"
    file.write_text(SMALLEST.format(state=tmp_path / "state"))
    result = CliRunner().invoke(main, ["-c", str(file), *words.split()])
    wanted = {path for path, _ in leaves(json.loads(result.stdout))}
    assert set(rows(chapter(f"### `failover {words.replace(' --offline', '')}`"))) == wanted


# ---------------------------------------------------------------- metrics and the journal


def test_every_series_has_a_row_with_its_type_and_labels() -> None:
    relays, gates = ("r1",), (GateKind.FORGING,)
    world = World(make_pool(records=("bp.example.com.",), gates=gates, relays=relays, metrics=True))
    world.run(60)
    world.ask(Verb.SWITCHOVER, "backup")
    world.run(120)
    world.nodes["backup"].up = False
    world.run(180)
    metrics = Metrics(world.pool, lambda: instant(world.t), lambda: report(world), "1.2.3")
    metrics.ticked(0.001, world.outcomes[-1])
    table = rows(chapter("## 4. Metrics"))
    named = set()
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"pool", "le"}
        cells = table[name]
        named.add(name)
        assert cells[1] == family.type, name
        assert codes(cells[2]) == labels, name
    assert set(table) == named
    assert all(name.startswith(PREFIX) for name in named)


def test_every_expression_asks_for_series_that_there_are() -> None:
    text = chapter("## 4. Metrics")
    block = text.partition("```text\n")[2].partition("```")[0]
    asked = set(re.findall(rf"{PREFIX}_\w+", block))
    assert len(asked) > 4
    assert asked <= set(rows(text))


def test_every_event_of_the_journal_has_a_row() -> None:
    assert list(rows(chapter("## 5. The journal's events"))) == [kind.value for kind in EventKind]


def test_every_alert_of_the_code_is_said() -> None:
    sources = "".join(file.read_text() for file in sorted((ROOT / "failover").rglob("*.py")))
    said = codes(chapter("## 5. The journal's events"))
    fixed = set(re.findall(r'\balert\("([\w-]+)"', sources)) | set(re.findall(r'"alert": "([\w-]+)"', sources))
    assert {"no-majority", "room", "config", "store"} <= fixed
    quiet = {"decided", "served", "by-hand"}  # ordinary ends and beginnings, of which nobody need be told
    assert fixed | {move.name for move in TRANSITIONS} - quiet <= said


def signs() -> dict[str, bool]:
    """Every kind of drift of records in the code, and whether it may be alerted."""
    found: dict[str, bool] = {}
    for node in ast.walk(ast.parse((ROOT / "failover" / "signposts.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Sign":
            kind = ast.literal_eval(node.args[0])
            found[kind] = found.get(kind, False) or len(node.args) > 2 or bool(node.keywords)
    return found


def test_every_kind_of_drift_has_a_row_and_a_series() -> None:
    source = "".join((ROOT / "failover" / name).read_text() for name in ("drift.py", "kicks.py"))
    of_gates = set(re.findall(r'found\.(?:append|extend)\(\s*\(?"([\w-]+)"', source)) | {"not-serving"}
    assert {"relay-astray", "proxy-silent", "tainted", "passed-over", "exposed"} <= of_gates
    assert len(signs()) > 8
    assert set(rows(chapter("### Kinds of drift"))) == set(DRIFTS) == of_gates | set(signs()) | set(splits.KINDS)
    assert set(rows(chapter("### Split brain"))) == set(splits.KINDS)


def test_every_alert_about_records_is_said() -> None:
    alerted = {kind for kind, alert in signs().items() if alert}
    assert {"record-unreadable", "record-another-hand"} <= alerted
    assert alerted | {"exposed"} <= codes(chapter("## 5. The journal's events"))
    rows_of_drift = rows(chapter("### Kinds of drift"))
    assert {kind for kind, cells in rows_of_drift.items() if "alerted" in cells[1]} == alerted


def test_every_result_of_a_step_is_said() -> None:
    said = codes(rows(chapter("## 4. Metrics"))[f"{PREFIX}_steps_total"][3])
    assert set(POINT_RESULTS) | {POINT, KICK, *StepKind} == said
    assert set(SERVERS) == codes(rows(chapter("## 4. Metrics"))[f"{PREFIX}_dns_servers"][3])


def test_every_cause_is_said() -> None:
    assert {cause.value for cause in Cause} <= codes(chapter("### `failover status --json`"))
