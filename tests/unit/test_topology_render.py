"""The topology files of producers and relays, in pools of every kind of gate."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from topology_world import KINDS, VIA, doubled, pool

from failover import data
from failover.cli.inspection import Severity
from failover.cli.topologies import topologies
from failover.errors import ConfigError
from failover.model import Address, GateKind, Pool, Relay
from failover.topology.paths import names, version
from failover.topology.render import NEWEST, Choice, needs_via, render

PRODUCER = """\
{
  "bootstrapPeers": null,
  "localRoots": [
    {
      "accessPoints": [
        {
          "address": "10.0.2.1",
          "port": 3001
        },
        {
          "address": "relay2.example.com",
          "port": 3001
        }
      ],
      "advertise": false,
      "trustable": true,
      "hotValency": 2,
      "warmValency": 2,
      "diffusionMode": "InitiatorOnly"
    }
  ],
  "publicRoots": [],
  "useLedgerAfterSlot": -1
}
"""
RELAY = """\
{
  "bootstrapPeers": [
    {
      "address": "boot.example.org",
      "port": 3001
    }
  ],
  "localRoots": [
    {
      "accessPoints": [
        {
          "address": "10.0.3.1",
          "port": 6000
        },
        {
          "address": "10.0.3.2",
          "port": 6000
        }
      ],
      "advertise": false,
      "trustable": true,
      "hotValency": 2,
      "warmValency": 2
    }
  ],
  "publicRoots": [],
  "useLedgerAfterSlot": 0
}
"""
BOOTSTRAP = (Address("boot.example.org", 3001),)


def rendered(found: Pool, name: str, choice: Choice | None = None) -> dict[str, Any]:
    document = json.loads(render(found, name, choice or Choice(via=VIA)).text)
    assert isinstance(document, dict)
    return document


def roots(document: dict[str, Any]) -> list[tuple[list[str], str | None]]:
    """Who is listed in each group, and its diffusion mode."""
    return [
        ([f"{p['address']}:{p['port']}" for p in group["accessPoints"]], group.get("diffusionMode"))
        for group in document["localRoots"]
    ]


def test_a_producer_behind_proxies_connects_one_way_to_the_pools_relays_and_to_nobody_else() -> None:
    assert render(KINDS["proxies"], "main", Choice()).text == PRODUCER


def test_a_relay_of_a_pool_with_proxies_connects_to_them_and_not_to_producers() -> None:
    assert render(KINDS["proxies"], "relay-1", Choice(via=VIA, bootstrap=BOOTSTRAP)).text == RELAY


def test_the_reference_files_are_what_is_rendered() -> None:
    assert data.text("topology", "producer.json") == PRODUCER
    assert data.text("topology", "relay.json") == RELAY


@pytest.mark.parametrize(
    ("kind", "one_way"),
    [
        ("proxies", True),
        ("proxies, the only path", True),
        ("a record", True),
        ("proxies and a record", True),
        ("forging", False),
        ("firewall", True),
        ("power", False),
        ("forging and proxies", False),
        ("forging and proxies, the only path", True),
        ("forging and a record", False),
    ],
)
def test_a_producers_connections_are_one_way_where_no_gate_of_its_own_fences_both_directions(
    kind: str, one_way: bool
) -> None:
    for name in ("main", "backup"):
        (group,) = roots(rendered(KINDS[kind], name))
        assert group == (["10.0.2.1:3001", "relay2.example.com:3001"], "InitiatorOnly" if one_way else None)


@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        ("proxies", ["10.0.3.1:6000", "10.0.3.2:6000"]),
        ("proxies and a record", ["10.0.3.1:6000", "10.0.3.2:6000"]),
        ("forging and proxies", ["10.0.3.1:6000", "10.0.3.2:6000"]),
        ("a record", ["bp.example.com:6000"]),
        ("forging and a record", ["bp.example.com:6000"]),
        ("forging", ["10.0.1.10:6000", "10.0.1.20:6000"]),
        ("firewall", ["10.0.1.10:6000", "10.0.1.20:6000"]),
        ("power", ["10.0.1.10:6000", "10.0.1.20:6000"]),
    ],
)
def test_a_relay_goes_by_proxies_else_by_the_record_else_to_every_producer(kind: str, ways: list[str]) -> None:
    document = rendered(KINDS[kind], "relay-1")
    assert roots(document) == [(ways, None)]
    assert document["localRoots"][0]["hotValency"] == len(ways)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rendered_has_no_leak(kind: str) -> None:
    found = KINDS[kind]
    for choice in (Choice(via=VIA), Choice(via=VIA, bootstrap=BOOTSTRAP, ledger_after=5, version=(11, 0, 1))):
        given = {name: render(found, name, choice).text for name in names(found)}
        versions = dict.fromkeys(given, choice.version)
        said = topologies(found, given, versions=versions)
        assert [(f.part, f.severity, f.what) for f in said] == [
            (f"topology {name}", Severity.OK, "no leak") for name in ("main", "backup", "relay-1", "relay-2")
        ]


@pytest.mark.parametrize("kind", ["forging", "power", "forging and proxies", "forging and a record"])
def test_a_relay_that_doubles_as_the_standby_has_one_file_without_a_leak(kind: str) -> None:
    found = doubled(KINDS[kind])
    assert render(found, "relay-3", Choice(via=VIA)) == render(found, "backup", Choice(via=VIA))
    document = rendered(found, "backup")
    assert roots(document)[1] == (["10.0.2.1:3001", "relay2.example.com:3001"], None)
    assert "10.0.1.20:6000" not in roots(document)[0][0]  # itself
    assert document["useLedgerAfterSlot"] == 0
    given = {name: render(found, name, Choice(via=VIA)).text for name in names(found)}
    assert {f.severity for f in topologies(found, given)} == {Severity.OK}


def test_of_a_relay_that_doubles_as_a_producer_behind_proxies_it_is_said_that_nothing_shuts_it_out() -> None:
    remarks = render(doubled(KINDS["proxies"]), "backup", Choice(via=VIA)).remarks
    assert any("backup is a relay too: no proxy and no record shuts it out" in remark for remark in remarks)


def test_a_node_that_is_too_old_gets_no_diffusion_mode_and_it_is_said_what_that_leaves_open() -> None:
    old = render(KINDS["proxies"], "main", Choice(version=(10, 1, 4)))
    assert roots(json.loads(old.text))[0][1] is None
    (remark,) = old.remarks
    assert "node 10.1.4 cannot make one-way connections" in remark
    assert "Use node 10.2 or later" in remark
    assert roots(rendered(KINDS["proxies"], "main", Choice(version=(10, 2))))[0][1] == "InitiatorOnly"
    assert render(KINDS["forging"], "main", Choice(version=(10, 1, 4))).remarks == ()


def test_a_node_from_before_hot_valencies_gets_the_valency_that_every_node_takes() -> None:
    (group,) = rendered(KINDS["forging"], "relay-1", Choice(version=(8, 1, 2)))["localRoots"]
    assert group["valency"] == 2
    assert not {"hotValency", "warmValency"} & set(group)
    (group,) = rendered(KINDS["forging"], "relay-1", Choice(version=(8, 7, 2)))["localRoots"]
    assert (group["hotValency"], group["warmValency"]) == (2, 2)
    assert "valency" not in group


def test_a_relay_without_bootstrap_peers_is_told_where_to_take_them_from() -> None:
    found = render(KINDS["proxies"], "relay-1", Choice(via=VIA))
    assert json.loads(found.text)["bootstrapPeers"] is None
    assert any("--bootstrap HOST:PORT" in remark for remark in found.remarks)
    assert render(KINDS["proxies"], "relay-1", Choice(via=VIA, bootstrap=BOOTSTRAP)).remarks == ()


def test_a_relay_reaches_producers_at_the_addresses_that_the_file_has_for_it() -> None:
    relay = Relay("relay-1", Address("10.0.2.1", 3001), producers={"backup": Address("198.51.100.7", 7000)})
    found = replace(KINDS["forging"], relays=(relay,))
    assert roots(rendered(found, "relay-1"))[0][0] == ["10.0.1.10:6000", "198.51.100.7:7000"]


def test_addresses_are_written_in_one_spelling_and_without_brackets() -> None:
    relay = Relay("relay-1", Address("2001:DB8:0:0::1", 3001))
    assert roots(rendered(replace(KINDS["proxies"], relays=(relay,)), "main"))[0][0] == ["2001:db8::1:3001"]


def test_the_same_pool_gives_the_same_text() -> None:
    assert len({render(KINDS["proxies"], "relay-1", Choice(via=VIA)).text for _ in range(3)}) == 1


def test_where_proxies_listen_is_asked_for_and_not_made_up() -> None:
    found = KINDS["proxies"]
    assert [needs_via(found, name) for name in names(found)] == [False, False, True, True]
    with pytest.raises(ConfigError, match="where relay relay-1 reaches the proxies is not in the file") as caught:
        render(found, "relay-1", Choice())
    assert "--via 10.0.2.5:6000" in caught.value.mend


def test_producers_on_different_ports_cannot_share_a_record() -> None:
    found = KINDS["a record"]
    main, backup = found.producers
    found = replace(found, producers=(main, replace(backup, address=Address("10.0.1.20", 6001))))
    with pytest.raises(ConfigError, match=r"different ports \(main on 6000, backup on 6001\)"):
        render(found, "relay-1", Choice())


def test_a_producer_without_relays_in_the_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="main would have nobody to sync from"):
        render(replace(pool(gates=(GateKind.FORGING,)), relays=()), "main", Choice())


def test_a_name_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'nosuch' is no producer and no relay") as caught:
        render(KINDS["proxies"], "nosuch", Choice())
    assert caught.value.mend == "it has main, backup, relay-1, relay-2"


@pytest.mark.parametrize(("text", "numbers"), [("10.5.1", (10, 5, 1)), ("10.2", (10, 2)), ("8.2.0-pre", (8, 2, 0))])
def test_versions_are_read(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers


@pytest.mark.parametrize("text", ["", "10", "ten", "10.5.1 ", "v10.5.1", "10.5.1.1.1", "10.99999", "１0.5"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no version of cardano-node"):
        version(text)


def test_the_default_version_makes_one_way_connections() -> None:
    assert NEWEST >= (10, 2)
