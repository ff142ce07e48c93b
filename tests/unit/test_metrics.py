"""The metrics: names as in the interface, every series with its pool, labels bounded."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from policy_world import World, instant, make_gateless_pool, make_pool
from prometheus_client.parser import text_string_to_metric_families
from status_world import report

from failover.metrics import POINT_RESULTS, RESULTS, Metrics
from failover.model import Admin, Event, EventKind, Fault, Ping, Tip, Verb

INTERFACE = (
    "active admitted producer_up producer_fit ping_seconds ping_failures tip_slot generation phase split_brain "
    "split_brains split_brain_seconds drift proxy_reachable proxy_server_open proxy_sessions handovers "
    "handover_seconds steps isolated paused pinned is_decider lease_seconds_left tick_seconds "
    "last_tick_timestamp_seconds alerts_pending build_info next_action_seconds exposed record_readable dns_in_sync "
    "dns_points_to dns_accepted_timestamp_seconds dns_insync_timestamp_seconds dns_verified dns_servers "
    "dns_believed_until_timestamp_seconds gate_open gate_reachable producer_forging kes_periods_left relay_reachable "
    "relay_sessions"
)
RECORD = "bp.example.com."
NAMES = set(INTERFACE.split())
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Watched:
    """A world whose outcomes are fed to metrics."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.metrics = Metrics(world.pool, lambda: instant(world.t), lambda: report(world), "1.2.3")
        self.fed = 0

    def run(self, seconds: float) -> None:
        self.world.run(self.world.t + seconds)
        for outcome in self.world.outcomes[self.fed :]:
            self.metrics.ticked(0.0002, outcome)
            for event in outcome.events:
                self.metrics.event(event)
        self.fed = len(self.world.outcomes)

    def samples(self) -> Samples:
        found = {}
        for family in text_string_to_metric_families(self.metrics.exposition().decode()):
            for sample in family.samples:
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[f"cardano_failover_{name}", tuple(sorted({"pool": "TEST", **labels}.items()))]


def watched() -> Watched:
    made = Watched(World(make_pool()))
    made.run(60)
    return made


def test_the_families_are_those_of_the_interface_and_each_series_carries_its_pool() -> None:
    made = watched()
    families = list(text_string_to_metric_families(made.metrics.exposition().decode()))
    assert {f.name for f in families} == {f"cardano_failover_{name}" for name in NAMES}
    assert all(s.labels["pool"] == "TEST" for f in families for s in f.samples)
    assert all(f.documentation for f in families)
    assert not any(s.name.endswith("_created") for f in families for s in f.samples)


def test_a_steady_pool_reads_as_steady() -> None:
    made = watched()
    assert made.value("active", producer="main") == 1
    assert made.value("active", producer="backup") == 0
    assert made.value("phase", phase="steady") == 1
    assert made.value("phase", phase="fencing") == 0
    assert made.value("proxy_server_open", proxy="p1", producer="backup") == 0
    assert made.value("is_decider") == 1
    assert made.value("last_tick_timestamp_seconds") > 1.7e9
    assert all(not math.isnan(v) for v in made.samples().values())


def test_what_is_unknown_has_no_series() -> None:
    made = Watched(World(make_pool()))
    names = {name for name, _ in made.samples()}
    assert "cardano_failover_producer_up" not in names
    assert "cardano_failover_producer_fit" not in names
    assert "cardano_failover_proxy_server_open" not in names


def test_a_failover_is_counted_with_its_cause_and_its_time() -> None:
    made = watched()
    assert made.value("handovers_total", to="backup", cause="forced") == 0
    made.world.nodes["main"].up = False
    made.run(200)
    assert 0 < made.value("next_action_seconds", action="failover") < 300
    made.run(200)
    assert made.value("handovers_total", to="backup", cause="forced") == 1
    assert made.value("handover_seconds_count") == 1
    assert made.value("generation") == 2


def test_a_running_split_brain_is_counted_as_it_lasts_also_by_the_daemon_after_a_restart() -> None:
    made = watched()
    made.world.ask(Verb.PAUSE)
    made.run(20)
    began = made.world.t
    made.world.set("p1", backup=Admin.READY)
    made.run(70)
    assert made.value("split_brains_total") == 1
    assert made.value("split_brain_seconds_total") == made.world.t - began
    again = Watched(made.world)
    again.run(30)
    assert again.value("split_brains_total") == 1
    assert again.value("split_brain_seconds_total") == made.world.t - began
    again.world.ask(Verb.RESUME)
    again.run(20)
    lasted = again.value("split_brain_seconds_total")
    again.run(500)
    assert again.value("split_brain_seconds_total") == lasted == pytest.approx(100, abs=11)


def test_steps_and_pings_are_counted_by_what_became_of_them() -> None:
    made = watched()
    now = instant(made.world.t)
    made.metrics.event(Event(EventKind.STEP_DONE, now, "", detail={"kind": "close", "result": "sent"}))
    made.metrics.event(Event(EventKind.STEP_FAILED, now, "", detail={"kind": "open", "result": "unknown"}))
    made.metrics.ping("main", Ping(now, now, True, Tip(1, "", 1), 0.02))
    made.metrics.ping("main", Ping(now, now, False, stage="handshake", error="x"))
    made.metrics.ping("a stranger", Ping(now, now, False, stage="\n", error="x"))
    assert made.value("steps_total", kind="close", result="sent") == 1
    assert made.value("steps_total", kind="open", result="unknown") == 1
    assert made.value("ping_seconds_count", producer="main") == 1
    assert made.value("ping_failures_total", producer="main", stage="handshake") == 1
    assert made.value("ping_failures_total", producer="main", stage="tip") == 0
    assert "stranger" not in made.metrics.exposition().decode()


def test_series_of_a_producer_that_left_the_file_end() -> None:
    made = Watched(World(make_pool(producers=("main", "backup", "third"))))
    made.run(30)
    assert made.value("ping_failures_total", producer="third", stage="dns") == 0
    made.metrics.follow(make_pool())
    smaller = World(make_pool())
    smaller.run(30)
    made.world = smaller
    made.metrics._report = lambda: report(smaller)
    assert "third" not in made.metrics.exposition().decode()


# ---------------------------------------------------------------- records


def with_record(*, gateless: bool = False) -> Watched:
    made = Watched(World(make_gateless_pool() if gateless else make_pool(records=(RECORD,))))
    made.run(60)
    return made


def named(made: Watched, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """The samples of one family, without their pool."""
    found = {}
    for (series, labels), value in made.samples().items():
        if series == f"cardano_failover_{name}":
            found[tuple(label for label in labels if label[0] != "pool")] = value
    return found


def test_a_record_in_order_reads_as_in_order() -> None:
    made = with_record()
    assert made.value("record_readable", record=RECORD) == 1
    assert made.value("dns_in_sync", record=RECORD) == 1
    assert made.value("dns_verified", record=RECORD) == 1
    assert made.value("dns_points_to", record=RECORD, producer="main") == 1
    assert made.value("dns_points_to", record=RECORD, producer="backup") == 0
    assert made.value("dns_servers", record=RECORD, state="agreeing") == 2
    for name in ("accepted_timestamp_seconds", "insync_timestamp_seconds", "believed_until_timestamp_seconds"):
        assert named(made, f"dns_{name}") == {}, "nothing was changed, so nothing else is believed"


def test_each_stage_of_a_change_has_a_series_of_its_own() -> None:
    made = with_record()
    made.world.signs[RECORD].frozen.update({"ns1", "ns2"})
    made.world.ask(Verb.SWITCHOVER, "backup")
    made.run(30)
    asked = instant(made.world.t).utc - 30
    track = made.world.board.records[RECORD]
    made.world.board.records[RECORD] = replace(track, change_id="C1", insync_at=None)
    assert made.value("dns_points_to", record=RECORD, producer="backup") == 1
    assert asked <= made.value("dns_accepted_timestamp_seconds", record=RECORD) <= asked + 30
    assert made.value("dns_in_sync", record=RECORD) == 0
    assert named(made, "dns_insync_timestamp_seconds") == {}
    made.world.board.post_settled(RECORD, instant(made.world.t))
    assert made.value("dns_in_sync", record=RECORD) == 1
    assert made.value("dns_insync_timestamp_seconds", record=RECORD) == instant(made.world.t).utc
    assert made.value("dns_verified", record=RECORD) == 0
    made.world.signs[RECORD].frozen.clear()
    made.run(30)
    assert made.value("dns_verified", record=RECORD) == 1


def test_what_relays_may_still_believe_is_a_time_for_each_producer_that_the_record_has_left() -> None:
    made = with_record()
    made.world.ask(Verb.SWITCHOVER, "backup")
    made.run(60)
    gone = made.world.board.records[RECORD].believed[0].gone_at
    assert gone is not None
    left = (("producer", "main"), ("record", RECORD))
    assert named(made, "dns_believed_until_timestamp_seconds") == {left: gone.utc + 60 + 900}
    made.run(1000)
    assert named(made, "dns_believed_until_timestamp_seconds") == {}


def test_what_is_not_known_of_a_record_has_no_series() -> None:
    made = Watched(World(make_pool(records=(RECORD,))))
    for name in ("record_readable", "dns_in_sync", "dns_points_to", "dns_verified", "dns_servers"):
        assert named(made, name) == {}, name
    made.run(60)
    made.world.signs[RECORD].answers = False
    made.run(20)
    assert made.value("record_readable", record=RECORD) == 0
    assert named(made, "dns_in_sync") == named(made, "dns_points_to") == {}
    assert made.value("drift", kind="record-unreadable") == 1


def test_servers_are_counted_by_what_they_say_and_silent_ones_do_not_count_against() -> None:
    made = with_record()
    board = made.world.board
    one, two = board.records[RECORD].said
    lost = replace(two, rrset=None, fault=Fault.SILENT)
    lame = replace(two, rrset=None, fault=Fault.LAME)
    board.post_answers(RECORD, (one, lost, lame, replace(two, rrset=None)), instant(made.world.t))
    for state in ("agreeing", "differing", "silent", "lame"):
        assert made.value("dns_servers", record=RECORD, state=state) == 1
    assert made.value("dns_verified", record=RECORD) == 0
    board.post_answers(RECORD, (one, lost), instant(made.world.t))
    assert made.value("dns_verified", record=RECORD) == 1
    board.post_answers(RECORD, (lost,), instant(made.world.t))
    assert named(made, "dns_verified") == {}


def test_changes_of_records_are_steps_with_two_results_more() -> None:
    made = with_record()
    made.metrics.event(Event(EventKind.STEP_DONE, instant(1), "", detail={"kind": "point", "result": "sent"}))
    made.metrics.event(Event(EventKind.STEP_FAILED, instant(2), "", detail={"kind": "point", "result": "conflict"}))
    of = {kind: set[str]() for kind in ("close", "open", "point")}
    for labels in named(made, "steps_total"):
        of[dict(labels)["kind"]].add(dict(labels)["result"])
    assert of == {"close": set(RESULTS), "open": set(RESULTS), "point": set(POINT_RESULTS)}
    assert made.value("steps_total", kind="point", result="sent") == 1
    assert made.value("steps_total", kind="point", result="conflict") == 1
    assert not any(dict(labels)["kind"] == "point" for labels in named(watched(), "steps_total"))


def test_without_any_gate_nobody_is_called_admitted_and_the_exposed_are_named() -> None:
    made = with_record(gateless=True)
    assert named(made, "admitted") == {}
    made.world.ask(Verb.SWITCHOVER, "backup")
    made.run(60)
    assert made.value("exposed", producer="main") == 1
    assert made.value("exposed", producer="backup") == 0
    assert made.value("drift", kind="exposed") == 1
