"""The status document: its keys, its types, and what is called a problem."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from policy_world import World, instant, make_pool
from rich.console import Console
from status_world import report

from failover import status
from failover.cli import switchover
from failover.model import Admin, Gate, GateKind, Pool, Verb

# INTERFACE, JSON; KEYS has what is there besides.
INTERFACE = (
    "pool mode phase active target generation revision cordoned barred released since reason paused pinned isolated "
    "split_brain drift next decider producers gates proxies records relays daemon"
)
OF_PRODUCER = (
    "name address health detail since fit unfit_because admitted fenced_by node ping_seconds tip_slot last_error"
)
KEYS = {*INTERFACE.split(), "decision", "cause", "requested_by", "store_error", "fence", "exposed"}
PRODUCER = set(OF_PRODUCER.split())


def document(world: World, **changes: object) -> dict[str, Any]:
    made = status.document(report(world, **changes), pid=7, version="1", last_tick=instant(world.t))
    back: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    assert back == made
    return back


def settled(pool: Pool | None = None, turns: float = 60) -> World:
    return World(pool or make_pool()).run(turns)


def test_the_keys_are_those_of_the_interface_before_and_after_the_first_tick() -> None:
    fresh = World(make_pool(), assigned=False)
    for world in (fresh, settled()):
        doc = document(world)
        assert set(doc) == KEYS
        assert all(set(p) == PRODUCER for p in doc["producers"])
        for gate in doc["gates"]:
            assert set(gate) == {"name", "kind", "proxy", "producer", "open", "tainted", "reachable", "last_open"}
        for proxy in doc["proxies"]:
            assert set(proxy) == {"name", "reachable", "servers", "error"}
        assert set(doc["daemon"]) == {"pid", "version", "last_tick", "tick_seconds"}


def test_a_steady_pool_is_told_in_full() -> None:
    doc = document(settled())
    assert (doc["phase"], doc["active"], doc["target"], doc["generation"]) == ("steady", "main", None, 1)
    main, backup = doc["producers"]
    assert (main["health"], main["fit"], main["admitted"], backup["admitted"]) == ("up", True, True, False)
    assert main["detail"] == "in sync"
    assert [g["open"] for g in doc["gates"]] == [True, False, True, False]
    assert doc["since"] == "2023-11-14T22:13:20.000Z"
    assert status.problems(doc) == []


def test_a_gate_of_a_silent_proxy_is_unknown_and_the_producer_admitted_as_last_read() -> None:
    world = settled()
    world.doors["p1"].answers = False
    world.run(world.t + 20)
    doc = document(world)
    assert [g["open"] for g in doc["gates"]] == [None, None, True, False]
    assert doc["producers"][0]["admitted"] is True
    assert any("p1" in line for line in status.problems(doc))


def test_a_split_brain_is_the_first_problem_and_named() -> None:
    world = settled()
    world.set("p2", backup=Admin.READY)
    world.observe()
    world.lose_steps = lambda step: True
    world.decide()
    doc = document(world)
    assert doc["split_brain"] is True
    assert status.problems(doc)[0].startswith("split brain: backup@p2")


def test_what_comes_next_is_dated_from_the_tick_and_counts_down() -> None:
    world = settled()
    world.nodes["main"].up = False
    world.run(world.t + 100)
    now = instant(world.t)
    made = report(world, now=now.after(30))
    first = status.document(report(world), last_tick=now)["next"][0]
    later = status.document(made, last_tick=now)["next"][0]
    assert first["action"] == "failover"
    assert 150 < first["in_seconds"] < 300
    assert later["in_seconds"] == pytest.approx(first["in_seconds"] - 30)
    assert later["at"] == first["at"]


def test_what_an_operator_set_is_told_with_its_end_and_reason() -> None:
    world = settled()
    world.ask(Verb.CORDON, "backup", seconds=600)
    world.ask(Verb.PAUSE)
    world.run(world.t + 20)
    doc = document(world)
    assert doc["cordoned"][0]["producer"] == "backup"
    assert doc["cordoned"][0]["until"].endswith("Z")
    assert doc["paused"] == {"producer": None, "until": None, "reason": "", "by": "op"}
    assert "backup is cordoned until" in status.text(doc)
    assert status.problems(doc) == []


def test_a_pool_without_assignment_and_a_dead_active_are_problems() -> None:
    world = settled()
    world.nodes["main"].up = False
    world.run(world.t + 50)
    assert any("main, the active one, is down: connection refused" in p for p in status.problems(document(world)))
    fresh = World(make_pool(), assigned=False)
    assert any("no assignment" in p for p in status.problems(document(fresh)))


def test_the_plain_text_has_no_control_characters_whatever_was_written_into_it() -> None:
    world = settled()
    world.put(reason="\x1b[31mred\x07\nline")
    text = status.text(document(world))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "red" in text


def test_the_picture_renders_on_a_terminal_and_says_the_same_headline() -> None:
    world = settled()
    world.put(reason="\x1b[31m[bold]not markup")
    doc = document(world)
    stream = StringIO()
    Console(file=stream, width=160, no_color=True, highlight=False).print(status.picture(doc))
    drawn = stream.getvalue()
    assert status.headline(doc) in drawn
    assert "[bold]not markup" in drawn
    assert "\x1b[31m" not in drawn


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3600, "1 h"), (3720, "1 h 2 min"), (90000, "1 d 1 h"), (-5, "0 s")],
)
def test_spans_are_told_in_two_units(seconds: float, words: str) -> None:
    assert status.span(seconds) == words


def own_gates() -> World:
    return World(make_pool(proxies=(), gates=(GateKind.FORGING, GateKind.POWER))).run(60)


def plan_of(world: World) -> str:
    return "\n".join(switchover.plan(world.pool, document(world), "backup"))


def test_the_plan_of_a_switchover_says_on_which_gates_it_relies_and_switches_nothing_off() -> None:
    plan = plan_of(own_gates())
    assert "fencing: close main@forging\n" in plan + "\n"
    assert "confirmed closed by main@forging" in plan
    assert "power" not in plan


def test_a_dry_run_is_refused_by_a_silent_gate_as_the_switchover_is() -> None:
    world = own_gates()
    world.switches[Gate(GateKind.FORGING.value, "main")].answers = False
    world.run(world.t + 30)
    assert switchover.refusals(document(world), "backup", force=False) == ["main@forging does not answer"]
    asked = world.ask(Verb.SWITCHOVER, "backup")
    world.run(world.t + 20)
    assert world.answers[asked][0] == "refused"
