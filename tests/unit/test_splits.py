"""Each kind of evidence of split brain: what shows it, what it says, what counts, and what must not raise it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from policy_world import Node, World, instant, make_gateless_pool, make_pool

from failover import splits, tips
from failover.model import Admin, Drift, Instant, Ping, Pool, ProxyReading, Tip, Verb

NAME = "bp.example.com."


class Chained(World):
    """A world in which each node stands on the block that ``tip`` says."""

    def __init__(self, pool: Pool, tip: Callable[[str, float], Tip]) -> None:
        super().__init__(pool)
        self.tip = tip

    def _ping(self, name: str, node: Node, cut: bool, now: Instant) -> Ping:
        ping = super()._ping(name, node, cut, now)
        return replace(ping, tip=self.tip(name, self.t)) if ping.ok else ping


class Lingering(World):
    """A world in which sessions run on at gates that are closed."""

    lingering: tuple[str, ...] = ()

    def reading(self, door):  # type: ignore[no-untyped-def]
        made: ProxyReading = super().reading(door)
        servers = {n: replace(v, sessions=3) if n in self.lingering else v for n, v in made.servers.items()}
        return replace(made, servers=servers)


def found(world: World, kind: str) -> list[Drift]:
    return [d for d in world.outcomes[-1].drift if d.kind == kind]


def block(number: int, chain: str = "a", slot: int | None = None) -> Tip:
    return Tip(number * 20 if slot is None else slot, f"{chain}{number:063x}", number)


# ---------------------------------------------------------------- gates, sessions, proxies


def test_an_open_gate_is_split_brain_and_a_closed_one_with_sessions_is_said_as_what_it_is() -> None:
    w = World(make_pool())
    w.run(60)
    w.ask(Verb.PAUSE)
    w.run(80)
    w.set("p2", backup=Admin.READY)
    w.run(100)
    (gate,) = found(w, splits.GATE)
    assert (gate.where, gate.split_brain) == ("backup@p2", True)
    assert gate.what == "ready, 2 sessions, though backup is not active"
    assert gate.since == instant(80)

    v = Lingering(make_pool())
    v.run(60)
    v.ask(Verb.PAUSE)
    v.run(80)
    v.lingering = ("backup",)
    v.run(100)
    assert found(v, splits.GATE) == []
    gates = found(v, splits.SESSIONS)
    assert [d.where for d in gates] == ["backup@p1", "backup@p2"]
    assert gates[0].what == "closed, and 3 sessions of backup run on, though it is not active"
    assert all(d.split_brain for d in gates)


def test_proxies_that_serve_different_producers_are_said_with_who_serves_whom() -> None:
    w = World(make_pool())
    w.run(60)
    w.ask(Verb.PAUSE)
    w.run(80)
    w.set("p2", backup=Admin.READY, main=Admin.MAINT)
    w.run(100)
    (drift,) = found(w, splits.PROXIES)
    assert drift.what == "p1 serves main; p2 serves backup: relays that connect now are divided between them"
    assert drift.split_brain


def test_a_steady_pool_and_a_handover_in_order_show_no_evidence_at_all() -> None:
    for pool in (make_pool(records=(NAME,)), make_gateless_pool()):
        w = World(pool)
        w.run(100)
        w.ask(Verb.SWITCHOVER, "backup")
        w.run(400)
        assert w.active == "backup"
        assert not [d for o in w.outcomes for d in o.drift if d.kind in splits.KINDS]


def test_a_gate_that_falls_silent_while_open_is_not_healed_by_its_silence() -> None:
    w = World(make_pool())
    w.run(60)
    w.ask(Verb.PAUSE)
    w.run(80)
    w.set("p2", backup=Admin.READY)
    w.run(100)
    w.doors["p2"].answers = False
    w.run(300)
    (gate,) = found(w, splits.GATE)
    assert gate.what == "was open when p2 last answered, and backup is not active"
    assert gate.since == instant(80)
    w.doors["p2"].answers = True
    w.set("p2", backup=Admin.MAINT)
    w.run(320)
    assert not w.outcomes[-1].split_brain


def test_a_gate_that_was_passed_over_counts_once_its_producer_is_up_again() -> None:
    w = World(make_pool())
    w.run(60)
    w.nodes["main"].up = False
    w.doors["p1"].answers = False
    w.run(800)
    assert w.active == "backup"
    assert not w.outcomes[-1].split_brain  # main is down: nothing behind that gate can be reached
    w.put(handed_back=("main",))
    w.nodes["main"].up = True
    w.run(830)
    (gate,) = found(w, splits.GATE)
    assert gate.where == "main@p1"
    assert "passed over while p1 was silent, and main is up" in gate.what
    allowed = w.memory.ledger.open.allowed  # type: ignore[union-attr]
    assert allowed == (f"main@p1 was passed over while silent, in generation {w.assignment.generation}, "  # type: ignore[union-attr]
                       "and may still have carried main",)  # fmt: skip


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("hand", "another hand opened backup@p2"),
        ("reload", "p2 was reloaded or restarted, and came back with backup@p2 open"),
        ("silence", "backup@p2 was opened while p2 did not answer"),
        ("late", "a late command of ours opened backup@p2"),
    ],
)
def test_what_allowed_it_is_told_from_what_was_seen(how: str, words: str) -> None:
    from failover.model import StepKind

    w = World(make_pool())
    w.run(60)
    if how == "reload":
        w.doors["p2"].process = "2"
    if how == "silence":
        w.doors["p2"].answers = False
        w.run(100)
        w.doors["p2"].answers = True
    if how == "late":
        w.board.post_sent("p2", StepKind.OPEN, "backup")
    w.set("p2", backup=Admin.READY)
    w.run(w.t + 30)
    begun = [e for o in w.outcomes for e in o.events if e.kind.value == "split-brain"]
    assert [e.detail["allowed"] for e in begun] == [[words]]


# ---------------------------------------------------------------- records


def test_without_any_gate_a_record_that_leads_to_another_live_producer_is_split_brain() -> None:
    w = World(make_gateless_pool())
    w.run(100)
    w.ask(Verb.PAUSE)
    w.run(120)
    w.hold("backup")
    w.run(150)
    (drift,) = found(w, splits.RECORD)
    assert drift.split_brain
    assert "its provider" in drift.what
    assert "are led to backup, which is up, while main is active" in drift.what
    w.nodes["backup"].up = False
    w.run(250)
    assert found(w, splits.RECORD) == []


def test_beside_gates_it_is_said_that_it_is_a_split_only_where_that_address_can_be_reached() -> None:
    w = World(make_pool(records=(NAME,)))
    w.run(100)
    w.signs[NAME].frozen.add("ns2")
    w.ask(Verb.SWITCHOVER, "backup")
    w.run(150)
    assert found(w, splits.RECORD) == []  # a change takes its time
    w.run(300)
    (drift,) = found(w, splits.RECORD)
    assert not drift.split_brain
    assert "its provider and ns1 say backup" in drift.what or "its provider and ns1 say" in drift.what
    assert "ns2 says main" in drift.what
    assert "only where main can be reached by that address" in drift.what


# ---------------------------------------------------------------- tips


def chain_of(name: str, t: float, *, fork_at: float, forked: str = "backup") -> Tip:
    number = 100 + int(t / 20)
    return block(number, "b" if name == forked and t >= fork_at else "a")


def test_two_producers_that_grow_apart_are_told_after_three_blocks_and_not_before() -> None:
    w = Chained(make_pool(), lambda name, t: chain_of(name, t, fork_at=200))
    w.run(250)
    assert not [d for o in w.outcomes for d in o.drift if d.kind == splits.TIPS]
    w.run(300)
    (drift,) = found(w, splits.TIPS)
    assert (drift.where, drift.split_brain) == ("main/backup", True)
    assert "most likely both forge with the pool's keys (a fork under our own keys)" in drift.what
    alert = next(e for o in w.outcomes for e in o.events if e.detail.get("alert", "").startswith("split-brain"))
    assert "no step of ours mends a fork" in alert.reason
    assert w.steps == []


def test_two_blocks_apart_are_not_enough_however_long_they_take() -> None:
    def tip(name: str, t: float) -> Tip:
        return block(100 + int(t / 100), "b" if name == "backup" and 200 <= t < until else "a")

    until = 400.0
    w = Chained(make_pool(), tip)
    w.run(900)
    assert not [d for o in w.outcomes for d in o.drift if d.kind == splits.TIPS]
    until = 500.0
    w = Chained(make_pool(), tip)
    w.run(490)
    assert found(w, splits.TIPS)


def test_what_a_node_stood_on_before_it_went_down_is_not_held_against_it() -> None:
    def tip(name: str, t: float) -> Tip:
        return block(50 + int(t / 20)) if name == "backup" and t >= 500 else chain_of(name, t, fork_at=200)

    w = Chained(make_pool(), tip)
    w.run(400)
    assert found(w, splits.TIPS)
    w.nodes["backup"].up = False
    w.run(500)
    assert not w.outcomes[-1].split_brain
    w.nodes["backup"].up = True
    w.run(900)  # it follows, far behind: nothing can be compared
    assert not [d for o in w.outcomes[-30:] for d in o.drift if d.kind == splits.TIPS]


def test_a_fork_ends_when_both_are_seen_on_one_chain_and_not_when_one_falls_behind() -> None:
    def tip(name: str, t: float) -> Tip:
        if name == "backup" and 300 <= t < 1200:
            return block(114, "b")  # stands still on its own chain
        return chain_of(name, t, fork_at=200 if t < 300 else 1e9)

    w = Chained(make_pool(), tip)
    w.run(1190)
    assert found(w, splits.TIPS)
    w.run(1220)
    assert found(w, splits.TIPS) == []


@pytest.mark.parametrize("lag", [1, 2, 5, 40, 1000])
def test_a_producer_that_lags_however_far_raises_nothing(lag: int) -> None:
    w = Chained(make_pool(), lambda name, t: block(2000 + int(t / 20) - (lag if name == "backup" else 0)))
    w.run(1500)
    assert not [d for o in w.outcomes for d in o.drift if d.kind == splits.TIPS]


def test_a_producer_that_stands_on_the_losing_block_of_a_battle_and_lags_raises_nothing() -> None:
    w = Chained(
        make_pool(), lambda name, t: block(110, "b") if name == "backup" and t >= 200 else block(100 + int(t / 20))
    )
    w.run(3000)
    assert not [d for o in w.outcomes for d in o.drift if d.kind == splits.TIPS]


def drawn(state: int = 7) -> Iterator[float]:
    """Numbers in [0, 1), the same each time (Knuth's MMIX generator)."""
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield (state >> 11) / 2**53


def readings_apart(rivals: float, readings: int) -> int:
    """Readings at which two nodes counted as apart, on a chain in which so many blocks have a rival."""
    chances, chains, number, apart = drawn(), tips.NONE, 0, 0
    heads = {"main": "a", "backup": "a"}
    for reading in range(readings):  # one each 10 s
        for _ in range(10):
            if next(chances) < 0.05:  # a block in this slot
                number += 1
                battle = next(chances) < rivals
                heads = {n: "b" if battle and next(chances) < 0.5 else "a" for n in heads}
        for name, chain in heads.items():
            chains = tips.read(chains, name, block(number, chain), instant(10.0 * reading))
        apart += bool(chains.apart)
    return apart


def test_slot_battles_as_frequent_as_on_the_network_raise_nothing_in_a_week() -> None:
    assert readings_apart(0.05, 60_480) == 0
    assert readings_apart(1.0, 3_000) > 0  # nothing but battles: that is seen


def test_nodes_that_stand_still_on_two_blocks_of_one_slot_are_told_after_five_minutes() -> None:
    w = Chained(make_pool(references=False), lambda name, t: block(100, "a" if name == "main" else "b", slot=2000))
    w.run(290)
    assert found(w, splits.TIPS) == []
    w.run(330)
    assert found(w, splits.TIPS)


def test_a_reference_on_a_chain_of_its_own_is_not_held_against_producers_that_agree() -> None:
    w = Chained(make_pool(), lambda name, t: block(100 + int(t / 20)))
    post = w.board.post_reference

    def other_chain(name: str, ping: Ping) -> None:
        post(name, replace(ping, tip=block(100 + int(w.t / 20), "c")))

    w.board.post_reference = other_chain  # type: ignore[method-assign]
    w.run(600)
    assert w.board.view().chains.apart
    assert found(w, splits.TIPS) == []
    w.nodes["backup"].up = False
    w.run(700)
    (drift,) = found(w, splits.TIPS)  # alone against it, nobody can say who is right: told, and no split brain
    assert (drift.where, drift.split_brain) == ("main", False)
    assert "stands on another chain than 127.0.0.99:3001" in drift.what


def test_a_node_that_was_gone_comes_back_without_its_old_blocks() -> None:
    chains = tips.NONE
    for number in range(1, 8):
        chains = tips.read(chains, "main", block(number), instant(20.0 * number))
        chains = tips.read(chains, "backup", block(number, "b"), instant(20.0 * number + 5))
    assert list(chains.apart) == [("backup", "main")]
    chains = tips.forget(chains, "backup")
    assert not chains.apart
    chains = tips.read(chains, "backup", block(7), instant(200))
    assert chains.on("main", "backup")
