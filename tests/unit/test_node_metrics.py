"""What a node's metrics are taken to say: names, suffixes, labels, numbers that cannot be; and when forging lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from failover.errors import GateUnreachable, ProbeError
from failover.model import NodeReading
from failover.probes.metrics import AgentNodePort, forging_trust, parse, version_numbers

LEGACY = """\
# TYPE cardano_node_metrics_slotNum_int gauge
cardano_node_metrics_slotNum_int 140000123
cardano_node_metrics_blockNum_int 11000456
cardano_node_metrics_forging_enabled 1
cardano_node_metrics_Forge_forge_about_to_lead_int 3482
cardano_node_metrics_Forge_node_is_leader_int 7
cardano_node_metrics_Forge_node_not_leader_int 3475
cardano_node_metrics_Forge_forged_int 6
cardano_node_metrics_Forge_adopted_int 5
cardano_node_metrics_slotsMissedNum_int 4
cardano_node_metrics_currentKESPeriod_int 1080
cardano_node_metrics_remainingKESPeriods_int 20
cardano_node_metrics_operationalCertificateStartKESPeriod_int 1038
cardano_node_metrics_operationalCertificateExpiryKESPeriod_int 1100
cardano_node_metrics_nodeStartTime_int 1790000000
"""
NEW = """\
# TYPE cardano_node_metrics_slotNum_int gauge
cardano_node_metrics_slotNum_int 140000123
cardano_node_metrics_blockNum_int 11000456
cardano_node_metrics_forging_enabled_int 1
cardano_node_metrics_Forge_about_to_lead_counter 3482
cardano_node_metrics_Forge_node_is_leader_counter 7
cardano_node_metrics_Forge_forged_counter 6
cardano_node_metrics_Forge_adopted_counter 5
cardano_node_metrics_slotsMissed_int 4
cardano_node_metrics_currentKESPeriod_int 1080
cardano_node_metrics_remainingKESPeriods_int 20
cardano_node_metrics_operationalCertificateExpiryKESPeriod_int 1100
cardano_node_metrics_node_start_time_int 1790000000
"""
SAME = NodeReading(
    slot=140000123,
    block=11000456,
    forging=True,
    about_to_lead=3482,
    leader=7,
    forged=6,
    adopted=5,
    missed=4,
    kes_period=1080,
    kes_remaining=20,
    certificate_expiry=1100,
    started=1790000000.0,
)


def without_suffixes(text: str) -> str:
    return text.replace("_int ", " ").replace("_counter ", " ")


@pytest.mark.parametrize("text", [LEGACY, NEW, without_suffixes(NEW)], ids=["legacy", "new", "nosuffix"])
def test_legacy_names_new_names_and_names_without_suffix_say_the_same(text: str) -> None:
    assert parse(text) == SAME


def test_the_numbers_that_an_agent_hands_on_say_the_same() -> None:
    numbers = {line.split()[0]: float(line.split()[1]) for line in NEW.splitlines() if not line.startswith("#")}
    assert parse(numbers) == SAME


def test_names_without_the_prefix_are_known_as_well() -> None:
    assert parse(NEW.replace("cardano_node_metrics_", "")) == SAME


def test_where_both_names_are_there_the_new_one_wins_whatever_their_order() -> None:
    old, new = "cardano_node_metrics_Forge_forge_about_to_lead_int 1\n", "Forge_about_to_lead_counter 2\n"
    assert parse(old + new).about_to_lead == parse(new + old).about_to_lead == 2
    assert parse({"slotsMissedNum_int": 1, "slotsMissed_int": 2}).missed == 2


def test_labels_times_and_line_ends_are_passed_over() -> None:
    text = (
        'cardano_node_metrics_slotNum_int{host="a}b",pool="x y"} 42 1790000000000\r\n'
        "cardano_node_metrics_blockNum_int\t7 \n"
    )
    assert (parse(text).slot, parse(text).block) == (42, 7)


def test_a_name_with_two_different_values_is_nobody_s() -> None:
    text = 'slotNum_int{node="a"} 1\nslotNum_int{node="b"} 2\nblockNum_int{n="a"} 3\nblockNum_int{n="b"} 3\n'
    assert (parse(text).slot, parse(text).block) == (None, 3)


@pytest.mark.parametrize(
    "value", ["NaN", "+Inf", "-Inf", "-1", "1.5", "1e30", "1e999", "0x10", "many", "", "1 2 3", "9" * 65]
)
def test_a_number_that_cannot_be_is_not_told(value: str) -> None:
    assert parse(f"slotNum_int {value}\nblockNum_int 9\n") == NodeReading(block=9)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -3, 0.5, True, None, "x", [1], 10**400])
def test_a_value_of_an_agent_that_cannot_be_is_not_told(value: Any) -> None:
    assert parse({"slotNum_int": value, 5: 1, "blockNum_int": 9}) == NodeReading(block=9)  # type: ignore[dict-item]


@pytest.mark.parametrize(("value", "forging"), [("0", False), ("1", True), ("1.0", True), ("2", None), ("NaN", None)])
def test_forging_is_one_or_zero_or_not_told(value: str, forging: bool | None) -> None:
    assert parse(f"forging_enabled_int {value}\n").forging is forging


def test_a_large_whole_number_in_scientific_form_is_whole() -> None:
    assert parse("slotNum_int 1.40000123e+08\n").slot == 140000123


@pytest.mark.parametrize(
    ("text", "starting"),
    [
        ("blockReplayProgress_real 41.0724\n", 41.0724),
        ("blockReplayProgress 41\n", 41.0),
        ("blockReplayProgress_real 0\nslotNum_int 0\n", 0.0),
        ("blockReplayProgress_real 100\n", None),
        ("blockReplayProgress_real 400\n", None),
        ("blockReplayProgress_real 99.99831874795292\nslotNum_int 140000123\n", None),
    ],
    ids=[
        "at start",
        "without suffix",
        "before the first block",
        "done",
        "impossible",
        "left behind by a node that runs",
    ],
)
def test_the_replay_is_shown_until_the_node_has_a_chain(text: str, starting: float | None) -> None:
    assert parse(text).starting == starting


def test_the_version_comes_from_the_build_or_from_its_three_numbers() -> None:
    build = 'cardano_node_metrics_cardano_build_info{compiler_version="9.6",version="10.6.2",revision="8be1"} 1\n'
    assert parse(build).version == "10.6.2"
    numbers = {f"cardano_node_metrics_cardano_version_{part}_int": n for part, n in zip(PARTS, (10, 5, 1), strict=True)}
    assert parse(numbers).version == "10.5.1"
    assert parse({name: n for name, n in numbers.items() if "minor" not in name}).version is None


PARTS = ("major", "minor", "patch")


@pytest.mark.parametrize("text", ["", "\x00\xff", "<html>slotNum_int 5</html>", "a" * 5000 + " 1", "{" * 5000])
def test_what_is_no_metrics_says_nothing(text: str) -> None:
    assert parse(text) == NodeReading()


# ---------------------------------------------------------------- trust


@pytest.mark.parametrize(
    ("version", "forging", "says"),
    [
        (None, True, "not known"),
        ("private build", False, "not known"),
        ("8.9.2", None, "#5751"),
        ("9.0.0", True, "#6113"),
        ("10.1.4", True, "#6113"),
        ("10.1.4", False, None),
        ("10.2.1", False, "goes on saying 0"),
        ("10.2.1", True, None),
        ("10.3.1", True, None),
        ("10.3.1", False, None),
        ("10.5.1", None, "did not tell"),
        ("10.6.2-pre", True, None),
        ("11.0.1", True, "#6576"),
        ("11.0.1", False, None),
        ("11.0.2", True, None),
    ],
)
def test_forging_enabled_is_trusted_by_version_and_by_what_it_says(
    version: str | None, forging: bool | None, says: str | None
) -> None:
    answer = forging_trust(version, NodeReading(forging=forging))
    assert (answer is None) if says is None else (answer is not None and says in answer)


def test_a_version_is_at_least_three_numbers() -> None:
    assert version_numbers("10.5") == (10, 5, 0)
    assert version_numbers("8.2.0-pre") == (8, 2, 0)
    assert version_numbers("10.11.20260723") == (10, 11, 20260723)
    assert version_numbers("x10.5.1") is None


# ---------------------------------------------------------------- through the agent


@dataclass(frozen=True)
class Process:
    version: str | None = None
    started: float | None = None


@dataclass(frozen=True)
class Said:
    metrics: Mapping[str, float] = field(default_factory=lambda: {"slotNum_int": 5.0, "nodeStartTime_int": 100.0})
    metrics_error: str | None = None
    node: Process = field(default_factory=Process)


@dataclass
class Link:
    """An agent that says one thing, or fails."""

    said: Said = field(default_factory=Said)
    error: Exception | None = None

    async def status(self, timeout: float, **fields: Any) -> Said:
        if self.error is not None:
            raise self.error
        return self.said


async def test_an_agent_s_numbers_become_a_reading_and_what_it_knows_of_the_process_goes_first() -> None:
    assert await AgentNodePort(Link()).read(5) == NodeReading(slot=5, started=100.0)
    link = Link(Said(node=Process("10.5.1", 200.5)))
    assert await AgentNodePort(link).read(5) == NodeReading(slot=5, started=200.5, version="10.5.1")


@pytest.mark.parametrize(
    ("link", "says"),
    [
        (Link(Said({}, "connection refused\x1b[31m")), "the agent read no metrics: connection refused [31m"),
        (Link(Said({})), "the agent told no metrics"),
        (Link(error=GateUnreachable("bp1: no route", "look at the cable")), "bp1: no route"),
        (Link(error=TimeoutError()), "the agent did not answer within 5 s"),
    ],
)
async def test_an_agent_without_metrics_is_a_clear_error_with_its_mend(link: Link, says: str) -> None:
    with pytest.raises(ProbeError) as caught:
        await AgentNodePort(link).read(5)
    assert str(caught.value) == says
    assert caught.value.mend
