"""Scenario files as operators write them: what they may say, what they mean, and what is said about a wrong one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from failover import config
from failover.config.finding import InvalidConfig
from failover.errors import ConfigError
from failover.model import Verb
from failover.simulator import scenario
from failover.simulator.faults import KINDS, Fault
from failover.simulator.roles import NEEDS, Roles, lacks
from failover.simulator.scenario import Cast, Unplayable, cast, read

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "simulation.md"
HEAD = "about: A night.\nfor: 1h\n"
OTHER = """\
pool: OTHER
network: preview
producers: [{name: bp-a, address: "10.1.0.1:6000"}, {name: bp-b, address: "10.1.0.2:6000"}]
proxies: [{name: front, socket: /run/haproxy/admin.sock, backend: producers}]
"""
RECORD = """\
pool:
  records:
    - {name: bp.example.com., addresses: {main: 203.0.113.10, backup: 203.0.113.20}, route53: {zone: Z0123456789ABC}}
"""


def events(*lines: str, head: str = HEAD) -> Cast:
    """The scenario with these events, in its own pool."""
    return cast(read(head + "events:\n" + "".join(f"  - {{{line}}}\n" for line in lines), "night.yaml"))


def fault(line: str, head: str = HEAD) -> Fault:
    return events(line, head=head).faults[0]


def findings(text: str) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        cast(read(text, "night.yaml"))
    return [str(finding) for finding in caught.value.findings]


def wrong(line: str) -> str:
    """The one finding about a file with this event, in its fourth line."""
    (found,) = findings(f"{HEAD}events:\n  - {{{line}}}\n")
    assert found.startswith("night.yaml:4: events[0]"), found
    assert " Mend: " in found
    return found


# ---------------------------------------------------------------- what a file means


def test_an_event_has_a_time_a_kind_whom_it_hits_and_for_how_long() -> None:
    assert fault("at: 5m, stop: main, for: 20m") == Fault(300.0, "stop", ("main",), 1200.0)
    assert fault("at: 90, power-off: [main, proxy-1]") == Fault(90.0, "power-off", ("main", "proxy-1"))
    assert fault("at: 0, kill: controller, for: 30s, on: fencing") == Fault(
        0.0, "kill", ("controller",), 30.0, {}, "fencing"
    )


def test_further_keys_are_the_arguments_of_the_kind() -> None:
    assert fault("at: 7m, hand-open: proxy-2, producer: backup").args == {"producer": "backup"}
    assert fault("at: 7m, crash-loop: main, down: 1m, up: 30s").args == {"down": 60.0, "up": 30.0}
    assert fault("at: 7m, step-clock: controller, seconds: -1h").args == {"seconds": -3600.0}
    assert fault("at: 7m, restart: proxy-1, state: stale").args == {"state": "stale"}


def test_a_cut_without_an_other_end_is_a_cut_from_everybody() -> None:
    assert fault("at: 5m, cut: controller, from: [main, proxy-1]").args["from"] == ("main", "proxy-1")
    everybody = fault("at: 5m, cut: controller").args["from"]
    assert everybody == ("main", "backup", "proxy-1", "proxy-2", "relay-1", "relay-2", "reference-1")


def test_a_request_says_what_the_command_line_would() -> None:
    asked = fault("at: 9m, ask: switchover, producer: backup, for: 4h, reason: work, force: true")
    assert asked.targets == ()
    assert asked.args == {
        "verb": "switchover",
        "producer": "backup",
        "seconds": 14400.0,
        "reason": "work",
        "force": True,
    }
    assert asked.lasts is None
    assert fault("at: 9m, ask: pause, for: 2h").args == {"verb": "pause", "seconds": 7200.0}


def test_a_request_is_told_with_all_that_was_asked() -> None:
    asked = fault("at: 9m, ask: switchover, producer: backup, for: 10m, reason: work, force: true")
    assert str(asked) == "the operator: switchover backup --force, for 10 min (work)"
    assert str(fault("at: 9m, ask: pause, for: 2h")) == "the operator: pause, for 2 h"
    assert str(fault("at: 9m, ask: resume, on: fencing")) == "the operator: resume, when fencing begins"


def test_the_end_of_a_fault_is_told_as_what_is_so_then() -> None:
    assert fault("at: 5m, stop: main, for: 3m, on: fencing").end() == "main up again: the process is started"
    cut = fault("at: 5m, cut: [controller, main], from: proxy-1, for: 3m")
    assert cut.end() == "network mended between controller and main / proxy-1"
    by_themselves = {"crash", "suspend", "freeze"}  # the world says nothing when these end
    assert {kind for kind in KINDS if KINDS[kind].undoes and not KINDS[kind].ends} == by_themselves


@pytest.mark.parametrize("verb", list(Verb))
def test_every_request_of_the_command_line_can_be_made(verb: Verb) -> None:
    named = "" if verb in (Verb.PAUSE, Verb.RESUME, Verb.UNPIN, Verb.RELEASE) else ", producer: backup"
    assert fault(f"at: 9m, ask: {verb.value}{named}").args["verb"] == verb.value


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_fault_can_be_written(kind: str) -> None:
    which = {"producer": "main", "proxy": "proxy-1", "reference": "reference-1", "record": "record", "place": "main"}
    hits = KINDS[kind].hits
    value = "switchover" if kind == "ask" else which.get(hits[0], "controller")
    named = ", producer: backup" if "producer" in KINDS[kind].defaults else ""
    lasts = ", for: 1m" if KINDS[kind].undoes else ""
    made = fault(f"at: 1m, {kind}: {value}{named}{lasts}", head=HEAD + RECORD)
    assert made.kind == kind
    assert str(made)


def test_every_argument_of_every_kind_is_checked_by_itself() -> None:
    known = {name for kind in KINDS.values() for name in kind.defaults} | {"reason", "force"}
    assert known - {"verb"} == set(scenario._ARGUMENTS)


def test_a_part_of_a_pools_file_changes_the_built_in_pool() -> None:
    changed = read(HEAD + "pool: {policy: {fail_over_after: 2m}, mode: observe}\nevents: []\n", "x.yaml").pool
    assert changed.policy.fail_over_after == 120.0
    assert changed.policy.fail_back_after == 1800.0
    assert changed.mode == "observe"
    assert changed.names == ("main", "backup")


def test_the_world_around_is_set_up_as_it_says() -> None:
    world = "world: {checks: l4, relays: 3, direct: main, duplex: [backup], active: backup, assigned: false}\n"
    made = cast(read(HEAD + world + "events: []\n", "x.yaml")).setup
    assert (made.checks, made.relays, made.direct, made.duplex) == ("l4", 3, ("main",), ("backup",))
    assert (made.active, made.assigned) == ("backup", False)


def test_the_name_is_the_files_unless_it_says_another() -> None:
    assert read(HEAD + "events: []\n", "/some/where/bad-night.yaml").name == "bad-night"
    assert read(HEAD + "name: other\nevents: []\n", "/some/where/bad-night.yaml").name == "other"


# ---------------------------------------------------------------- roles


def other_pool(text: str = OTHER) -> Cast:
    pool = config.load_text(text).pool
    lines = ("{at: 5m, stop: main}", "{at: 6m, hang: proxies}", "{at: 7m, hand-open: proxy-1, producer: backup}")
    return cast(read(HEAD + "events:\n" + "".join(f"  - {line}\n" for line in lines), "night.yaml"), pool)


def test_roles_stand_for_the_parts_of_the_operators_own_pool() -> None:
    made = other_pool()
    assert [f.targets for f in made.faults] == [("bp-a",), ("front",), ("front",)]
    assert made.faults[2].args == {"producer": "bp-b"}


def test_a_name_that_means_nobody_in_the_operators_pool_is_told_with_the_pools_own_names() -> None:
    pool = config.load_text(OTHER).pool
    with pytest.raises(InvalidConfig) as caught:
        cast(read(HEAD + "events:\n  - {at: 5m, restart: proxy-2}\n", "night.yaml"), pool)
    assert str(caught.value) == (
        "night.yaml:4: events[0].restart: 'proxy-2': is no proxy of pool OTHER. Mend: did you mean proxy-1?"
    )


def test_the_pools_own_names_count_before_roles() -> None:
    pool = config.load_text(OTHER.replace("bp-a", "backup").replace("bp-b", "main")).pool
    roles = Roles.of(pool, 2).known("producer")
    assert roles["main"] == ("main",)
    assert roles["producer-1"] == ("backup",)


def test_a_reference_goes_by_its_address_or_its_number() -> None:
    known = Roles.of(scenario.built_in(), 2).known("reference")
    assert known["relay.example.org:3001"] == known["reference-1"] == known["references"] == ("reference-1",)


def test_in_the_operators_own_pool_the_scenarios_pool_is_not_used_and_that_is_said() -> None:
    pool = config.load_text(OTHER).pool
    made = cast(read(HEAD + "pool: {references: []}\nevents: []\n", "night.yaml"), pool)
    assert made.pool is pool
    assert made.notes == ("night: its own pool: is not used, your file's is",)
    assert other_pool().notes == ()


BEYOND = "so what follows is not what its heading says"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("{mode: observe}", "mode: observe; yours has act"),
        ("{policy: {fail_over_after: 2m}}", "policy.fail_over_after: 2 min; yours has 5 min"),
        (
            "{fence: {require: confirmed, proxies_are_only_path: true}}",
            "fence.require: confirmed and fence.proxies_are_only_path: true; yours has reachable and false",
        ),
    ],
)
def test_what_a_scenario_is_about_and_the_operators_pool_has_not_is_named(part: str, words: str) -> None:
    text = HEAD + f"pool: {part}\nevents: []\n"
    made = cast(read(text, "night.yaml"), config.load_text(OTHER).pool)
    assert made.notes == (f"this scenario is about a pool with {words}, {BEYOND}",)
    assert made.premise == words.partition(";")[0]
    assert cast(read(text, "night.yaml")).notes == ()


def test_a_pool_that_has_what_a_scenario_is_about_is_played_without_that_note() -> None:
    pool = config.load_text(OTHER + "mode: observe\n").pool
    assert cast(read(HEAD + "pool: {mode: observe}\nevents: []\n", "night.yaml"), pool).premise == ""


def test_an_old_workers_bound_that_only_the_operators_proxies_have_is_named() -> None:
    pool = config.load_text(OTHER.replace("backend: producers", "backend: producers, hard_stop_after: 1m")).pool
    assert cast(scenario.find("reload-without-bound"), pool).premise == "proxies[].hard_stop_after: none"


def test_proxies_check_as_the_operators_file_says_unless_the_scenario_is_about_that() -> None:
    watched = config.load_text(OTHER.replace("backend: producers", "backend: producers, watch: watch")).pool
    assert other_pool().setup.checks == "l4"
    assert cast(read(HEAD + "events: []\n", "n.yaml"), watched).setup.checks == "l7"
    plain = cast(read(HEAD + "world: {checks: l4}\nevents: []\n", "n.yaml"), watched)
    assert plain.setup.checks == "l4"
    assert plain.notes == (
        "this scenario is about proxies with world.checks: l4; by your file yours have l7, so what follows is not what "
        "would happen to yours",
    )


@pytest.mark.parametrize("need", [need for need in NEEDS if need != "proxy"])
def test_a_pool_without_what_a_scenario_needs_is_told_so(need: str) -> None:
    pool = config.load_text(OTHER).pool
    with pytest.raises(Unplayable, match="night needs "):
        cast(read(HEAD + f"needs: [{need}]\nevents: []\n", "night.yaml"), pool)


def test_what_a_pool_cannot_play_comes_with_the_command_that_plays_it() -> None:
    pool = config.load_text(OTHER).pool
    night = read(HEAD + "needs: [second-proxy]\nevents: []\n", "./my night.yaml")
    for each, name in ((scenario.find("dns-throttled"), "dns-throttled"), (night, "'./my night.yaml'")):
        with pytest.raises(Unplayable) as caught:
            cast(each, pool)
        command = f"failover simulate --built-in --scenario {name}"
        assert caught.value.mend == f"play it in the built-in pool: {command}"
    with pytest.raises(Unplayable) as caught:
        cast(read(HEAD + "needs: [third-proxy]\nevents: []\n", "n.yaml"), pool)
    assert caught.value.mend == "write what it needs below pool: in n.yaml, and play it with --built-in"


def test_a_pool_with_a_proxy_cannot_play_what_is_about_pools_without() -> None:
    with pytest.raises(Unplayable, match="needs a pool without any proxy"):
        cast(read(HEAD + "needs: no-proxy\nevents: []\n", "night.yaml"))


# ---------------------------------------------------------------- what is said about a wrong one


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("at: 5m, stopp: main", "stopp is no kind of event. Mend: did you mean stop"),
        ("at: 5m", "does not say what happens"),
        ("at: 5m, stop: main, hang: main", "is 2 events at once: stop and hang"),
        ("stop: main", "events[0].at: is missing"),
        ("at: soon, stop: main", "events[0].at: 'soon': is not a duration"),
        ("at: -5m, stop: main", "events[0].at: '-5m': is not a duration"),
        ("at: 2h, stop: main", "events[0].at: '2h': is not before the end of the scenario"),
        ("at: .nan, stop: main", "events[0].at: '.nan': is not a number of seconds"),
        ("at: 5m, stop: mein", "events[0].stop: 'mein': is no producer or proxy or reference of pool EXMPL."),
        ("at: 5m, stop: mein", "did you mean main"),
        ("at: 5m, stop: []", "events[0].stop: must be 1 to 100 names"),
        ("at: 5m, stop: {a: b}", "events[0].stop: is a mapping, not a name"),
        ("at: 5m, stop: 5", "events[0].stop: '5': is a number, not a name"),
        ("at: 5m, lag: proxy-1", "events[0].lag: 'proxy-1': is a proxy, not a producer"),
        ("at: 5m, lag: [main, backup]", "events[0].lag: happens to one at a time"),
        ("at: 5m, lag: producers", "events[0].lag: happens to one at a time"),
        ("at: 5m, stop: main, for: 0", "events[0].for: '0': must be longer than nothing"),
        ("at: 5m, stop: main, for: 8000h", "events[0].for: '8000h': is longer than"),
        ("at: 5m, restart: proxy-1, for: 5m", "events[0].for: '5m': restart happens at one moment and cannot last"),
        ("at: 5m, restart: proxy-1, state: old", "events[0].state: 'old': must be current, stale or none"),
        ("at: 5m, stop: main, on: promotion", "events[0].on: 'promotion': must be fencing, promoting or step"),
        ("at: 5m, stop: main, fro: 5m", "events[0].fro: the key is unknown. Mend: did you mean for?"),
        ("at: 5m, stop: main, producer: backup", "events[0].producer: the key is unknown"),
        ("at: 5m, hand-open: proxy-1", "events[0].producer: is missing"),
        ("at: 5m, hand-open: proxy-1, producer: proxy-2", "events[0].producer: 'proxy-2': is a proxy, not a producer"),
        ("at: 5m, lossy: controller, share: 3", "events[0].share: '3': is not between 0.01 and 0.95"),
        ("at: 5m, throttle: record", "throttle: 'record': is no record of pool EXMPL. Mend: this pool has none"),
        ("at: 5m, cut: main, from: main", "events[0].from: is all on the side of cut:, so nothing is hit. Mend: name"),
        ("at: 5m, cut: [main, backup], from: producer-1", "events[0].from: is all on the side of cut:"),
        ("at: 5m, cut: places", "events[0].cut: is everybody, so nothing is hit. Mend: name two sides"),
        ("at: 5m, lossy: places", "Mend: name two sides, for example {lossy: main, from: controller}"),
        ("at: 5m, stop: main, for: 9999h", "events[0].for: '9999h': is longer than 7 days (168h)"),
        ("at: 5m, ask: swichover, producer: main", "events[0].ask: 'swichover': must be switchover, pause"),
        ("at: 5m, ask: switchover", "producer: is missing. Mend: say whom: {ask: switchover, producer: backup}"),
        ("at: 5m, ask: pause, producer: main", "events[0].producer: 'main': pause names no producer"),
        ("at: 5m, ask: pin, producer: main, force: true", "events[0].force: 'true': pin cannot be forced"),
        ("at: 5m, ask: release, for: 5m", "events[0].for: '5m': release does not end by itself"),
    ],
)  # fmt: skip
def test_a_wrong_event_is_told_with_its_line_its_place_and_a_mend(line: str, words: str) -> None:
    assert words in wrong(line)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "night.yaml:1: the file is empty. Mend: begin with about:, for: and events:"),
        ("- a\n", "the file is not a mapping of keys to values. Mend: begin with about:, for: and events:"),
        ("about: x\nevents: []\n", "for: is missing"),
        ("for: 1h\n", "events: is missing"),
        ("for: 1h\nevents: {}\n", "night.yaml:2: events: is a mapping, not a list"),
        ("for: 1h\nevents: [stop]\n", "events[0]: 'stop': is text, not an event"),
        ("for: 169h\nevents: []\n", "for: '169h': is longer than 7 days (168h)"),
        ("for: 1h\nevents: []\nevent: []\n", "night.yaml:3: event: the key is unknown. Mend: did you mean events?"),
        ("for: 1h\nabout: ''\nevents: []\n", "night.yaml:2: about: is empty, not a sentence"),
        ("for: 1h\nname: a/b\nevents: []\n", "name: 'a/b': cannot be a name"),
        ("for: 1h\nworld: l4\nevents: []\n", "world: 'l4': is text, not a mapping"),
        ("for: 1h\nworld: {relays: 0}\nevents: []\n", "world.relays: '0': is not between 1 and 16"),
        ("for: 1h\nworld: {relay: 2}\nevents: []\n", "world.relay: the key is unknown. Mend: did you mean relays?"),
        ("for: 1h\nworld: {active: bakup}\nevents: []\n", "world.active: 'bakup': is no producer"),
        ("for: 1h\nneeds: [recrod]\nevents: []\n", "'recrod' is nothing that a pool can be asked to have. Mend: did"),
        ("for: 1h\nevents: []\npool: mine\n", "night.yaml:3: pool: 'mine': is text, not a part of a pool's file"),
        ("for: 1h\npool:\n  policy:\n    fall: soon\nevents: []\n", "yaml:4: pool.policy.fall: the key is unknown"),
        ("for: 1h\npool:\n  mode: acting\nevents: []\n", "night.yaml:3: pool.mode: 'acting': must be act or observe"),
        ("for: 1h\npool:\n  polcy: {}\nevents: []\n", "pool.polcy: the key is unknown. Mend: did you mean policy"),
        ("for: 1h\nfor: 2h\nevents: []\n", "night.yaml:2: for: the key is written twice"),
        ("for: 1h\nevents: [\n", "is not YAML"),
        ("for: &a 1h\nevents: []\n", "an anchor (&)"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_with_its_line_and_a_mend(text: str, words: str) -> None:
    assert any(words in found for found in findings(text)), findings(text)


def test_everything_that_is_wrong_is_said_at_once_in_the_files_order() -> None:
    found = findings("for: 1h\nwho: me\nevents:\n  - {at: 5m, stop: main, for: x}\n  - {at: 5m, hange: main}\n")
    assert [each.split(": ")[0] for each in found] == ["night.yaml:2", "night.yaml:4", "night.yaml:5"]


def test_a_file_is_bounded_in_size_and_events(tmp_path: Path) -> None:
    assert "at most 1000 are played" in findings(f"for: 1h\nevents: [{'{}, ' * 1001}]\n")[0]
    path = tmp_path / "big.yaml"
    path.write_text("#" * (scenario.MOST_BYTES + 1))
    with pytest.raises(InvalidConfig, match="is larger than 256 KiB"):
        scenario.load(path)
    path.write_bytes(b"about: \xff\n")
    with pytest.raises(InvalidConfig, match="is not UTF-8"):
        scenario.load(path)


def test_a_value_that_may_be_a_secret_is_not_shown() -> None:
    assert "hunter2" not in wrong("at: 5m, stop: password=hunter2")


# ---------------------------------------------------------------- the library


def test_a_scenario_is_found_by_name_or_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + "events: []\n")
    assert scenario.find(str(path)).name == "mine"
    assert scenario.find("main-dies").name == "main-dies"
    with pytest.raises(ConfigError, match="there is no scenario 'main-dys'") as caught:
        scenario.find("main-dys")
    assert "did you mean main-dies" in caught.value.mend
    for name, file in (("my-night", "./my-night.yaml"), ("", "./night.yaml"), ("a b", "./night.yaml")):
        with pytest.raises(ConfigError, match="there is no scenario") as caught:
            scenario.find(name)
        assert caught.value.mend == (
            f"failover simulate --list names them. A file of your own is given by its path, as in {file}"
        )
    with pytest.raises(InvalidConfig, match="no such file"):
        scenario.find(str(tmp_path / "nothing.yaml"))


def test_every_scenario_of_the_library_says_in_a_sentence_what_happens() -> None:
    found = scenario.library()
    assert len(found) >= 30
    assert all(each.about.endswith(".") and len(each.about) < 200 for each in found)
    assert len({each.about for each in found}) == len(found)


GATELESS = """\
pool: BARE
network: preview
producers: [{name: bp-a, address: "10.1.0.1:6000"}, {name: bp-b, address: "10.1.0.2:6000"}]
proxies: []
fence: {require: none}
records:
  - {name: bp.example.com., addresses: {bp-a: 203.0.113.10, bp-b: 203.0.113.20}, route53: {zone: Z0123456789ABC}}
"""


@pytest.mark.parametrize("text", [OTHER, GATELESS], ids=["one-proxy", "no-proxy"])
def test_every_scenario_of_the_library_can_be_played_or_says_what_it_needs(text: str) -> None:
    pool = config.load_text(text).pool
    for each in scenario.library():
        assert cast(each).faults or not each.events
        if any(lacks(need, Roles.of(pool, 2)) for need in each.needs):
            with pytest.raises(Unplayable, match=f"{each.name} needs "):
                cast(each, pool)
        else:
            assert cast(each, pool).pool is pool


def test_the_library_is_in_the_wheel() -> None:
    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {f"failover/simulator/scenarios/{name}.yaml" for name in scenario.names()} <= packed


# ---------------------------------------------------------------- the docs


def table() -> Sequence[str]:
    """The rows of the docs' table of kinds, as they must stand there."""
    rows = []
    for name, kind in KINDS.items():
        hits = "a verb" if kind is KINDS["ask"] else " or ".join(kind.hits) + (", or several" if kind.many else "")
        given = [
            f"`{key}`" + (f" ({_shown(value)})" if value not in ("", ()) else "")
            for key, value in kind.defaults.items()
        ]
        given = [each for each in given if each != "`verb`"]
        if name == "ask":
            given += ["`reason`", "`force`", "`for`"]
        lasts = "yes" if kind.undoes else "no"
        says = re.sub(r"\{(\w+)\}", lambda match: match[1].upper(), kind.words)
        rows.append(f"| `{name}` | {hits} | {', '.join(given)} | {lasts} | {says} |".replace("|  |", "| |"))
    return rows


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_docs_name_every_kind_of_fault() -> None:
    written = [line for line in DOCS.read_text().splitlines() if line.startswith("| `") and line.count("|") == 6]
    assert written == list(table())


def test_the_example_of_the_docs_can_be_played() -> None:
    _, _, after = DOCS.read_text().partition("```yaml\n")
    made = cast(read(after.partition("```")[0], "night.yaml"))
    assert [fault.kind for fault in made.faults] == ["stop", "restart", "cut", "ask"]
    assert made.pool.policy.fail_over_after == 120.0


def test_the_docs_name_every_key_and_every_need() -> None:
    text = DOCS.read_text()
    assert {f"| {key} |" for key in scenario.KEYS if key != "events"} <= {
        line[: len(line.split("|")[1]) + 2] for line in text.splitlines() if line.startswith("| ")
    }
    assert all(f"`{word}`" in text for word in (*scenario.WORLD, *NEEDS, "no-proxy", *scenario.MOMENTS))
