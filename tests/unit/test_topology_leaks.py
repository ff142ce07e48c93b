"""What ``failover check`` finds in topology files: leaks by kind of pool, and files that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_world import KINDS, VIA, doubled, pool, root, text

from failover.cli.inspection import Found, Severity
from failover.cli.topologies import looked_up, resolver_of, topologies
from failover.errors import ConfigError
from failover.host import RealHost
from failover.model import Address, GateKind, Pool, Relay
from failover.topology.document import MOST_BYTES, Point, canonical, read
from failover.topology.paths import Resolve, names
from failover.topology.render import Choice, render

GOOD = root("10.0.2.1:3001", "relay2.example.com:3001", one_way=True)
PROXIES = root("10.0.3.1:6000", "10.0.3.2:6000")
BOTH = root("10.0.1.10:6000", "10.0.1.20:6000")


def found_in(
    kind: str | Pool, name: str, file: str, *, version: tuple[int, ...] = (10, 5, 1), resolve: Resolve | None = None
) -> list[Found]:
    chosen = KINDS[kind] if isinstance(kind, str) else kind
    return topologies(chosen, {name: file}, versions={name: version}, resolve=resolve)


def the_one(*arguments: object, **keys: object) -> Found:
    found = [f for f in found_in(*arguments, **keys) if f.part != "file"]  # type: ignore[arg-type]
    assert len(found) == 1, found
    assert found[0].part == f"topology {arguments[1]}"
    return found[0]


def clean(*arguments: object, **keys: object) -> bool:
    return {f.severity for f in found_in(*arguments, **keys)} == {Severity.OK}  # type: ignore[arg-type]


# ---------------------------------------------------------------- relays


def test_a_relay_that_lists_a_producer_beside_the_proxies_is_a_leak() -> None:
    found = the_one("proxies", "relay-1", text(PROXIES, root("10.0.1.10:6000")))
    assert found.severity is Severity.ERROR
    assert found.what.startswith("it lists main directly at 10.0.1.10:6000, beside the proxies")
    assert found.mend == "remove that access point, and leave the proxies alone"


def test_the_standbys_address_on_a_relay_is_a_leak_where_only_proxies_or_a_record_decide() -> None:
    for kind, good in (("proxies", PROXIES), ("a record", root("bp.example.com:6000"))):
        found = the_one(kind, "relay-1", text(good, root("10.0.1.20:6000")))
        assert found.severity is Severity.ERROR
        assert found.what.startswith("it lists backup, a standby, at 10.0.1.20:6000")


def test_a_producer_is_recognised_by_the_address_that_the_record_has_for_it() -> None:
    found = the_one("a record", "relay-1", text(root("bp.example.com:6000"), root("203.0.113.20:6000")))
    assert found.what.startswith("it lists backup, a standby, at 203.0.113.20:6000")
    assert "leave the record bp.example.com alone" in found.mend


def test_a_producer_is_recognised_by_the_address_that_the_relay_has_for_it() -> None:
    chosen = KINDS["proxies"]
    relay = Relay("relay-1", Address("10.0.2.1", 3001), producers={"backup": Address("198.51.100.7", 7000)})
    chosen = replace(chosen, relays=(relay, chosen.relays[1]))
    file = text(PROXIES, root("198.51.100.7:7000"))
    assert the_one(chosen, "relay-1", file).what.startswith("it lists backup")
    assert clean(chosen, "relay-2", file)


def test_a_producer_among_public_roots_or_bootstrap_peers_of_a_relay_is_found_too() -> None:
    assert "main" in the_one("proxies", "relay-1", text(PROXIES, public=("10.0.1.10:6000",))).what
    file = text(PROXIES, bootstrapPeers=[{"address": "10.0.1.20", "port": 6000}])
    assert "backup" in the_one("proxies", "relay-1", file).what


def test_where_producers_have_gates_of_their_own_a_direct_line_beside_proxies_only_warns() -> None:
    found = the_one("forging and proxies", "relay-1", text(PROXIES, root("10.0.1.10:6000")))
    assert found.severity is Severity.WARNING
    assert found.what.endswith("(only its own gate shuts it out: forging)")


@pytest.mark.parametrize("kind", ["forging", "firewall", "power"])
def test_in_a_pool_whose_gate_is_on_the_producers_relays_that_list_both_are_right(kind: str) -> None:
    assert clean(kind, "relay-1", text(BOTH))


def test_in_such_a_pool_a_relay_must_list_every_producer_and_keep_all_in_use() -> None:
    found = the_one("forging", "relay-1", text(root("10.0.1.10:6000")))
    assert (found.severity, found.what.partition(":")[0]) == (Severity.WARNING, "it does not list backup")
    found = the_one("forging", "relay-1", text(BOTH | {"hotValency": 1}))
    assert found.severity is Severity.WARNING
    assert found.what == "it keeps 1 of 2 local roots in use, beside main, backup"
    assert 'write "hotValency": 2' in found.mend


def test_a_relay_without_a_way_to_the_active_producer_is_told_so() -> None:
    assert "none of its local roots can be a proxy" in the_one("proxies", "relay-1", text()).what
    assert "it does not list the record bp.example.com" in the_one("a record", "relay-1", text()).what
    others = text(root("relay2.example.com:3001"))
    assert "none of its local roots can be a proxy" in the_one("proxies", "relay-1", others).what


def test_a_record_with_another_port_than_the_producers_is_told() -> None:
    found = the_one("a record", "relay-1", text(root("bp.example.com:3001")))
    assert found.what == "it connects to bp.example.com:3001, and producers listen on 6000"


def test_a_relay_that_advertises_producers_tells_others_where_they_are() -> None:
    found = the_one("forging", "relay-1", text(BOTH | {"advertise": True}))
    assert found.severity is Severity.WARNING
    assert "it advertises 10.0.1.10:6000, 10.0.1.20:6000" in found.what


def test_a_relay_that_goes_by_a_record_is_noted_beside_proxies_and_an_error_where_they_are_the_only_path() -> None:
    file = text(root("bp.example.com:6000"))
    assert [f.severity for f in found_in("proxies and a record", "relay-1", file)] == [Severity.NOTE, Severity.OK]
    strict = pool(proxies=True, records=True, only_path=True)
    assert [f.severity for f in found_in(strict, "relay-1", file)] == [Severity.ERROR, Severity.ERROR]


# ---------------------------------------------------------------- producers


def test_duplex_roots_on_a_producer_behind_proxies_are_a_leak() -> None:
    file = text(root("10.0.2.1:3001", "relay2.example.com:3001"))
    found = the_one("proxies", "main", file)
    assert found.severity is Severity.ERROR
    assert "its local roots are duplex: 10.0.2.1:3001, relay2.example.com:3001 can take its blocks" in found.what
    assert "so a closed proxy does not fence it" in found.what
    assert found.mend == 'add "diffusionMode": "InitiatorOnly" to the group (node 10.2 or later)'
    assert the_one("a record", "main", file).severity is Severity.ERROR
    assert the_one("firewall", "main", file).severity is Severity.WARNING
    assert clean("forging", "main", file)
    assert clean("forging and proxies", "main", file)


def test_one_duplex_group_beside_a_one_way_one_is_enough() -> None:
    found = the_one("proxies", "main", text(GOOD, root("relay2.example.com:3001")))
    assert "duplex: relay2.example.com:3001 can take" in found.what


@pytest.mark.parametrize(("version", "severity"), [((10, 1, 4), "error"), ((10, 2), "ok"), ((10, 2, 1), "ok")])
def test_one_way_roots_count_only_from_node_10_2_on(version: tuple[int, ...], severity: str) -> None:
    found = the_one("proxies", "main", text(GOOD), version=version)
    assert found.severity.value == severity
    if severity == "error":
        assert "its node (10.1.4) passes over diffusionMode, which counts from 10.2 on" in found.what
        assert "upgrade the node to 10.2 or later" in found.mend


def test_duplex_roots_on_an_old_node_are_mended_by_an_upgrade_first() -> None:
    found = the_one("proxies", "main", text(GOOD | {"diffusionMode": "InitiatorAndResponder"}), version=(9, 2, 1))
    assert found.mend.startswith("its node (9.2.1) is older than 10.2: upgrade it, and then add")


def test_without_the_nodes_version_it_is_said_from_which_one_on_there_is_no_leak() -> None:
    (found,) = topologies(KINDS["proxies"], {"main": text(GOOD)})
    assert (found.severity, found.what) == (
        Severity.OK,
        "no leak, if its node is 10.2 or later: older ones pass over diffusionMode",
    )


@pytest.mark.parametrize(
    ("keys", "what", "mend"),
    [
        ({"public": ("192.0.2.1:3001",)}, "it has public roots: 192.0.2.1:3001", '"publicRoots": []'),
        (
            {"bootstrapPeers": [{"address": "boot.example.org", "port": 3001}]},
            "it has bootstrap peers: boot.example.org:3001",
            '"bootstrapPeers": null',
        ),
        ({"useLedgerAfterSlot": 0}, "it takes peers from the ledger (useLedgerAfterSlot 0)", "-1"),
        ({"useLedgerAfterSlot": 1234.5}, "it takes peers from the ledger (useLedgerAfterSlot 1234)", "-1"),
    ],
)
def test_a_producer_knows_nobody_outside_the_pool(keys: dict[str, object], what: str, mend: str) -> None:
    found = the_one("proxies", "main", text(GOOD, **keys))  # type: ignore[arg-type]
    assert (found.severity, found.what) == (Severity.ERROR, what)
    assert mend in found.mend
    assert the_one("forging", "main", text(GOOD, **keys)).severity is Severity.WARNING  # type: ignore[arg-type]


def test_a_producer_that_lists_another_one_passes_its_blocks_on() -> None:
    found = the_one("proxies", "main", text(GOOD, root("10.0.1.20:6000", one_way=True)))
    assert found.severity is Severity.ERROR
    assert found.what == "it lists backup at 10.0.1.20:6000: blocks of backup reach the relays through it"


@pytest.mark.parametrize(
    "local",
    [
        [],
        [GOOD | {"hotValency": 0}],
        [GOOD | {"behindFirewall": True}],
    ],
)
def test_a_producer_that_dials_no_relay_would_not_stay_in_sync_while_it_is_closed(
    local: list[dict[str, object]],
) -> None:
    found = the_one("proxies", "main", text(*local))
    assert found.severity is Severity.WARNING
    assert found.what == "it has no local root that it dials; while it is closed it would not stay in sync"


def test_a_producer_whose_roots_miss_every_relay_of_the_file_is_told_so() -> None:
    found = found_in("proxies", "main", text(root("192.0.2.9:3001", one_way=True)))
    assert [f.severity for f in found] == [Severity.NOTE, Severity.WARNING]
    assert found[0].what == "it lists 192.0.2.9:3001, which is no relay of the file"
    assert found[1].what.startswith("none of its local roots is a relay of the file: 192.0.2.9:3001")


def test_an_empty_list_of_bootstrap_peers_needs_a_trustable_root() -> None:
    assert clean("proxies", "main", text(GOOD, bootstrapPeers=[]))
    found = the_one("proxies", "main", text(GOOD | {"trustable": False}, bootstrapPeers=[]))
    assert found.severity is Severity.ERROR
    assert "the node refuses the file" in found.what


def test_a_relay_that_doubles_as_a_producer_behind_proxies_cannot_be_shut_out() -> None:
    chosen = doubled(KINDS["proxies"])
    file = render(chosen, "backup", Choice(via=VIA)).text
    found = the_one(chosen, "backup", file)
    assert found.severity is Severity.ERROR
    assert found.what.startswith("backup is a relay too: it serves everybody who connects")
    chosen = doubled(KINDS["firewall"])
    found = the_one(chosen, "backup", render(chosen, "backup", Choice()).text)
    assert (found.severity, found.mend.split(" or ")[0]) == (Severity.WARNING, "give it a forging")


# ---------------------------------------------------------------- the only path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("relay-1", text(PROXIES, root("10.0.1.10:6000"))),
        ("relay-1", text(PROXIES, public=("10.0.1.20:6000",))),
        ("main", text(root("10.0.2.1:3001"))),
        ("main", text(GOOD, public=("192.0.2.1:3001",))),
        ("main", text(GOOD, useLedgerAfterSlot=0)),
    ],
)
@pytest.mark.parametrize("kind", ["proxies, the only path", "forging and proxies, the only path"])
def test_a_path_beside_proxies_contradicts_that_they_are_the_only_one(kind: str, name: str, file: str) -> None:
    *here, against = found_in(kind, name, file)
    assert {f.severity for f in here} == {Severity.ERROR}
    assert (against.severity, against.part) == (Severity.ERROR, "file")
    assert against.what == f"fence.proxies_are_only_path is true, and another path is open: topology {name}"


def test_what_is_no_path_contradicts_nothing() -> None:
    found = found_in("proxies, the only path", "main", text())
    assert [f.part for f in found] == ["topology main"]


# ---------------------------------------------------------------- names and spellings


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("2001:DB8:0:0:0:0:0:A", True),
        ("2001:db8::a", True),
        ("2001:0db8::000a", True),
        ("2001:db8::b", False),
    ],
)
def test_an_ipv6_address_is_the_same_in_every_spelling(written: str, same: bool) -> None:
    chosen = KINDS["proxies"]
    main, backup = chosen.producers
    chosen = replace(chosen, producers=(replace(main, address=Address("2001:db8::a", 6000)), backup))
    file = text(PROXIES, root(f"{written}:6000"))
    assert clean(chosen, "relay-1", file) is not same


def test_an_ipv4_address_written_as_ipv6_is_the_same() -> None:
    assert canonical("::ffff:10.0.1.10") == "10.0.1.10"
    assert "main" in the_one("proxies", "relay-1", text(PROXIES, root("::ffff:10.0.1.10:6000"))).what


def test_names_are_compared_without_case_and_without_the_last_dot() -> None:
    assert clean("a record", "relay-1", text(root("BP.Example.COM.:6000")))
    assert clean("proxies", "main", text(root("Relay2.example.com.:3001", one_way=True)))


def test_another_port_of_a_producers_host_is_another_node() -> None:
    assert clean("proxies", "relay-1", text(PROXIES, root("10.0.1.10:3001")))


def test_a_name_that_leads_to_a_producer_is_found_where_names_can_be_looked_up() -> None:
    file = text(PROXIES, root("standby.example.net:6000"))
    assert clean("proxies", "relay-1", file)
    asked: list[str] = []

    def resolve(name: str) -> tuple[str, ...]:
        asked.append(name)
        return ("192.0.2.99", "10.0.1.20") if name == "standby.example.net" else ()

    found = the_one("proxies", "relay-1", file, resolve=resolve)
    assert found.what == ("it lists standby.example.net:6000, a name that now leads to backup, beside the proxies")
    assert asked


async def test_names_are_looked_up_by_the_machine_and_those_that_do_not_resolve_lead_nowhere() -> None:
    chosen = KINDS["proxies"]
    main, backup = chosen.producers
    relays = (Relay("relay-1", Address("10.0.2.1", 3001)),)
    chosen = replace(chosen, producers=(replace(main, address=Address("127.0.0.1", 6000)), backup), relays=relays)
    nowhere = "x" * 64 + ".example"
    given = {"relay-1": text(PROXIES, root("localhost:6000", f"{nowhere}:6000"))}
    known = await looked_up(chosen, given, RealHost())
    assert "127.0.0.1" in known["localhost"]
    assert known[nowhere] == ()
    found = topologies(chosen, given, resolve=resolver_of(known))
    assert [f.what.partition(",")[0] for f in found] == ["it lists localhost:6000"]


def test_the_records_own_name_is_never_looked_up() -> None:
    asked: list[str] = []

    def resolve(name: str) -> tuple[str, ...]:
        asked.append(name)
        return ("203.0.113.10",)

    assert clean("a record", "relay-1", text(root("bp.example.com:6000")), resolve=resolve)
    assert "bp.example.com" not in asked


# ---------------------------------------------------------------- files that cannot be used


@pytest.mark.parametrize(
    ("file", "what", "mend"),
    [
        ("", "it is empty", "copy the whole file"),
        (" \n", "it is empty", "copy the whole file"),
        ("<html>", "damaged JSON at line 1, column 1: <html>", "look there"),
        ('{\n"localRoots": [],\n"publicRoots": []', "damaged JSON at line 3, column", "look there"),
        ('{"localRoots": [],\n "publicRoots" []}', "damaged JSON at line 2, column 16", "look there"),
        ("[]", "it is a list, not a topology", "one JSON object"),
        ("7", "it is a number, not a topology", "one JSON object"),
        ('{"Producers": [{"addr": "x", "port": 1, "valency": 1}]}', "old format from before P2P", "render topology"),
        ('{"LocalRoots": {"groups": []}, "PublicRoots": []}', "the first P2P format", "render topology"),
        ('{"localRoots": [], "localRoots": []}', "it has the key 'localRoots' twice in one object", "remove one"),
        ('{"localRoots": NaN}', "a number that is none", "whole numbers"),
        ('{"localRoots": ' + "9" * 5000 + "}", "a number", ""),
        ("[" * 100_000, "", ""),
        ("{" + " " * MOST_BYTES + "}", "it is larger than 256 KiB", "is this the right file?"),
        ("é" * (MOST_BYTES // 2 + 1), "it is larger than 256 KiB", "is this the right file?"),
        ("\x1b[31m{", "damaged JSON at line 1, column 1: \\x1b[31m{", "look there"),
    ],
)
def test_what_is_no_topology_is_an_error_with_a_mend(file: str, what: str, mend: str) -> None:
    found = the_one("proxies", "main", file)
    assert found.severity is Severity.ERROR
    assert what in found.what
    assert mend in found.mend
    assert found.mend
    assert found.what.isprintable()
    assert len(found.what) < 200


@pytest.mark.parametrize("end", [",]", ", ]", ",\n]"])
def test_a_trailing_comma_is_named_as_what_it_is(end: str) -> None:
    found = the_one("proxies", "main", '{"publicRoots": [],\n "localRoots": [{}' + end + "}")
    assert "damaged JSON at line " in found.what
    assert "comma" in found.mend


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"localRoots": {}}, "localRoots is an object, not a list"),
        ({"localRoots": ["x"]}, "localRoots[0] is text, not an object"),
        ({"publicRoots": None}, "publicRoots is null, not a list"),
        ({"publicRoots": [[]]}, "publicRoots[0] is a list, not an object"),
        ({"bootstrapPeers": "x"}, "bootstrapPeers is text, not a list"),
        (
            {"bootstrapPeers": [{"address": 5, "port": 1}]},
            "bootstrapPeers[0].address is a number, not an address or",
        ),
        ({"useLedgerAfterSlot": "-1"}, "useLedgerAfterSlot is text, not a slot"),
        ({"useLedgerAfterSlot": True}, "useLedgerAfterSlot is true or false, not a slot"),
        ({"useLedgerAfterSlot": 10**40}, "useLedgerAfterSlot is a number, not a slot"),
        ({"peerSnapshotFile": 5}, "peerSnapshotFile is a number, not a path"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(change: dict[str, object], what: str) -> None:
    assert the_one("proxies", "main", text(GOOD, **change)).what.startswith(what)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"accessPoints": [{"address": "10.0.2.1", "port": "3001"}]}, "localRoots[0].accessPoints[0].port is text"),
        ({"accessPoints": [{"address": "10.0.2.1", "port": 0}]}, "localRoots[0].accessPoints[0].port is 0"),
        ({"accessPoints": [{"address": "10.0.2.1"}]}, "localRoots[0].accessPoints[0].port is missing"),
        ({"accessPoints": [{"port": 1}]}, "localRoots[0].accessPoints[0].address is missing"),
        (
            {"accessPoints": [{"address": "[::1]", "port": 1}]},
            "localRoots[0].accessPoints[0].address '[::1]' has brackets",
        ),
        ({"hotValency": "2"}, "localRoots[0].hotValency is text"),
        ({"hotValency": -1}, "localRoots[0].hotValency is -1"),
        ({"hotValency": True}, "localRoots[0].hotValency is true or false"),
        ({"trustable": "yes"}, "localRoots[0].trustable is text, not true or false"),
        ({"advertise": 1}, "localRoots[0].advertise is a number, not true or false"),
        ({"diffusionMode": "initiatorOnly"}, "localRoots[0].diffusionMode is 'initiatorOnly'"),
        ({"diffusionMode": True}, "localRoots[0].diffusionMode is true or false"),
    ],
)
def test_a_wrong_value_in_a_group_is_named_with_its_place(change: dict[str, object], what: str) -> None:
    found = the_one("proxies", "main", text(GOOD | change))
    assert (found.severity, what in found.what) == (Severity.ERROR, True), found
    assert found.mend


@pytest.mark.parametrize("key", ["localRoots", "publicRoots"])
def test_a_key_that_the_node_needs_is_missed(key: str) -> None:
    document = json.loads(text(GOOD))
    del document[key]
    found = the_one("proxies", "main", json.dumps(document))
    assert f"{key} is missing: the node refuses the file" in found.what


def test_a_group_without_a_valency_is_an_error() -> None:
    group = dict(GOOD)
    del group["hotValency"]
    assert "localRoots[0] has no valency" in the_one("proxies", "main", text(group)).what


def test_everything_that_is_wrong_is_told_at_once_up_to_a_bound() -> None:
    file = text(*({"accessPoints": 5} for _ in range(100)))
    found = found_in("proxies", "main", file)
    assert len(found) == 20
    file = text(root(*("10.0.2.1:3001" for _ in range(2500)), one_way=True, hotValency=2))
    assert "more than 2000 peers" in the_one("proxies", "main", file).what


def test_as_the_node_reads_it_valency_counts_before_hot_valency_and_a_smaller_warm_one_cuts_it_down() -> None:
    def hot(**keys: object) -> int:
        topology = read(text({"accessPoints": [], **keys})).topology
        assert topology is not None
        return topology.local[0].hot

    assert hot(valency=3, hotValency=2) == 3
    assert hot(hotValency=3, warmValency=2) == 2
    assert hot(hotValency=3, warmValency=None) == 3


def test_unknown_keys_are_noted_and_comments_are_not() -> None:
    group = GOOD | {"trustabel": True, "_comment": "ours", "description": "both"}
    found = found_in("proxies", "main", text(group, ledgerPeers=1))
    assert [f.severity for f in found] == [Severity.NOTE, Severity.OK]
    assert found[0].what == "keys that cardano-node passes over: ledgerPeers, localRoots[0].trustabel"


def test_a_name_without_a_port_is_a_name_of_srv_records() -> None:
    topology = read(text({"accessPoints": [{"address": "srv.example.com"}], "hotValency": 1})).topology
    assert topology is not None
    assert topology.local[0].points == (Point("srv.example.com", None),)


def test_a_part_that_the_pool_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="'nosuch' is no producer and no relay"):
        topologies(KINDS["proxies"], {"nosuch": text(GOOD)})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=5) | st.just("10.0.1.10"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["localRoots", "publicRoots", "accessPoints", "address", "port", "hotValency", "bootstrapPeers", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    document=st.dictionaries(st.sampled_from(["localRoots", "publicRoots", "bootstrapPeers", "a"]), JSON, max_size=4),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_whatever_a_file_says_each_finding_is_one_printable_line(document: Mapping[str, object], kind: str) -> None:
    chosen = KINDS[kind]
    said = topologies(chosen, dict.fromkeys(names(chosen), json.dumps(document)))
    assert len(said) >= len(names(chosen))
    for found in said:
        assert found.what.isprintable()
        assert "\n" not in found.mend


def test_every_gate_kind_is_thought_of() -> None:
    assert {kind for chosen in KINDS.values() for p in chosen.producers for kind in p.gates} == set(GateKind) - {
        GateKind.HAPROXY
    }
