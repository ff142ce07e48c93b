"""What a running controller may take over from a file that was read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from failover.config import compare
from failover.model import (
    Address,
    Agent,
    FenceSettings,
    Gate,
    GateKind,
    HealthSettings,
    Nudge,
    Pool,
    Power,
    Producer,
    Proxy,
    Record,
    Relay,
    Rfc2136Zone,
    Route53Zone,
)

NAMES = ("main", "backup", "third")
OLD = Pool(
    name="EXMPL",
    network="mainnet",
    magic=764824073,
    producers=tuple(Producer(name, Address(name, 6000)) for name in NAMES),
    proxies=tuple(
        Proxy(f"proxy-{i}", "producers", {name: name for name in NAMES}, socket=Path(f"/run/{i}.sock")) for i in (1, 2)
    ),
    records=(
        Record(
            "bp.example.com.",
            "bp.example.com.",
            {name: f"192.0.2.{i}" for i, name in enumerate(NAMES)},
            Route53Zone("Z1"),
        ),
    ),
)


def reasons(new: Pool, *, target: str | None = None, empty: tuple[str, ...] = (), steady: bool = True) -> str:
    found = compare(OLD, new, active="main", target=target, empty_proxies=empty, phase_steady=steady)
    return "\n".join(found)


def without(name: str) -> Pool:
    kept = tuple(producer for producer in OLD.producers if producer.name != name)
    proxies = tuple(replace(p, servers={k: v for k, v in p.servers.items() if k != name}) for p in OLD.proxies)
    return replace(OLD, producers=kept, proxies=proxies)


def with_producer(which: str, **changes: object) -> Pool:
    return replace(
        OLD,
        producers=tuple(replace(p, **changes) if p.name == which else p for p in OLD.producers),  # type: ignore[arg-type]
    )


def with_proxy(**changes: object) -> Pool:
    return replace(OLD, proxies=(OLD.proxies[0], replace(OLD.proxies[1], **changes)))  # type: ignore[arg-type]


def test_the_same_file_and_new_settings_are_taken_over() -> None:
    changed = replace(OLD, health=HealthSettings(interval=5.0), mode="observe", references=(Address("relay", 3001),))
    assert reasons(OLD) == reasons(changed) == reasons(changed, steady=False) == ""


def test_the_active_is_not_removed_renamed_or_readdressed() -> None:
    assert "'main' is active, and the new file removes it" in reasons(without("main"))
    assert "'main' is active, and the new file renames it to 'first'" in reasons(with_producer("main", name="first"))
    moved = with_producer("main", address=Address("main", 6001))
    assert "'main' is active, and the new file moves it from main:6000 to main:6001" in reasons(moved)


def test_the_target_of_a_handover_is_not_removed_either() -> None:
    assert "'backup' is the target of the handover" in reasons(without("backup"), target="backup", steady=False)


def test_another_producer_may_go_in_steady_and_not_during_a_handover() -> None:
    assert reasons(without("third")) == ""
    assert reasons(with_producer("third", address=Address("third", 1))) == ""
    assert "'third' is removed while a handover runs" in reasons(without("third"), steady=False)


def test_a_producer_and_a_proxy_may_come_and_the_order_may_change() -> None:
    fourth = Producer("fourth", Address("fourth", 6000))
    proxies = tuple(replace(p, servers={**p.servers, "fourth": "fourth"}) for p in OLD.proxies)
    third_proxy = replace(proxies[0], name="proxy-3", socket=Path("/run/3.sock"))
    new = replace(OLD, producers=(fourth, *reversed(OLD.producers)), proxies=(third_proxy, *proxies))
    assert reasons(new) == reasons(new, steady=False) == ""


def test_a_proxy_goes_only_when_it_is_confirmed_empty_and_the_pool_is_steady() -> None:
    new = replace(OLD, proxies=OLD.proxies[:1])
    assert "'proxy-2' is removed, and is not confirmed empty" in reasons(new)
    assert reasons(new, empty=("proxy-2",)) == ""
    assert "'proxy-2' is removed while a handover runs" in reasons(new, empty=("proxy-2",), steady=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"socket": Path("/run/other.sock")},
        {"socket": None, "stats": "https://h/stats"},
        {"backend": "other"},
        {"servers": {"main": "main", "backup": "x", "third": "third"}},
    ],
)
def test_a_proxy_that_leads_elsewhere_counts_as_removed(changes: dict[str, object]) -> None:
    assert "'proxy-2' leads to another" in reasons(with_proxy(**changes))
    assert reasons(with_proxy(**changes), empty=("proxy-2",)) == ""


def test_a_proxy_may_get_other_credentials_and_a_watch() -> None:
    new = with_proxy(username="u", password="hunter3", watch="watch", hard_stop_after=5.0)
    assert reasons(new, steady=False) == ""


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("pool", {"name": "OTHER"}),
        ("network", {"network": "preprod", "magic": 1}),
        ("state", {"state": Path("/other")}),
        ("listen", {"listen": Address("127.0.0.1", 1)}),
        ("fence.require", {"proxies": (), "fence": FenceSettings("none")}),
    ],
)
def test_what_the_daemon_was_started_with_needs_a_restart(key: str, changes: dict[str, object]) -> None:
    found = reasons(replace(OLD, **changes), empty=("proxy-1", "proxy-2"))  # type: ignore[arg-type]
    assert found.startswith(f"{key}: changes from ")
    assert "needs a restart of the daemon" in found


def test_a_pool_without_gates_gets_them_by_a_restart_only() -> None:
    old = replace(OLD, proxies=(), fence=FenceSettings("none"))
    (found,) = compare(old, OLD, active="main", target=None, empty_proxies=(), phase_steady=True)
    assert found.startswith("fence.require: changes from 'none' to 'reachable', which needs a restart")


def test_gates_may_be_asked_to_confirm_otherwise_without_a_restart() -> None:
    assert reasons(replace(OLD, fence=FenceSettings("confirmed", True)), steady=False) == ""


def with_record(**changes: object) -> Pool:
    return replace(OLD, records=(replace(OLD.records[0], **changes),))  # type: ignore[arg-type]


def pointing(**targets: str) -> Pool:
    return with_record(targets={**OLD.records[0].targets, **targets})


RECORDS = {
    "removed": (replace(OLD, records=()), "'bp.example.com.' is removed or renamed while a handover runs"),
    "renamed": (with_record(label="b.", name="b."), "'bp.example.com.' is removed or renamed while a handover runs"),
    "another zone": (with_record(provider=Route53Zone("Z2")), "'bp.example.com.' moves to another zone or server"),
    "another endpoint": (with_record(provider=Route53Zone("Z1", None, "https://h")), "moves to another zone or server"),
    "another provider": (
        with_record(provider=Rfc2136Zone(Address("ns1", 53), "example.com.", "k.", "c2VjcmV0")),
        "moves to another zone or server",
    ),
    "the active elsewhere": (pointing(main="192.0.2.9"), "'bp.example.com.' points elsewhere for main, active, while"),
    "the target elsewhere": (pointing(backup="192.0.2.9"), "points elsewhere for backup, the target of the handover"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_what_a_handover_is_about_to_move_stays_until_the_pool_is_steady(case: str) -> None:
    new, words = RECORDS[case]
    assert reasons(new) == ""
    assert words in reasons(new, target="backup", steady=False)
    assert "Mend: reload again when the pool is steady." in reasons(new, target="backup", steady=False)


@pytest.mark.parametrize(
    "new",
    [
        pointing(third="192.0.2.9"),
        with_record(ttl=120),
        with_record(resolvers=(Address("10.0.0.2", 53),)),
        with_record(provider=Route53Zone("Z1", "other")),
        replace(OLD, records=(*OLD.records, replace(OLD.records[0], name="b.example.", label="b.example."))),
    ],
)
def test_what_a_handover_does_not_move_may_change_at_any_time(new: Pool) -> None:
    assert reasons(new, target="backup", steady=False) == ""


# ---------------------------------------------------------------- gates on hosts, agents, relays

HOSTED = replace(
    OLD,
    proxies=(),
    agents=tuple(Agent(f"on-{name}", Address(name, 22), Path("/key"), host_key="ssh-ed25519 A") for name in NAMES),
    producers=tuple(
        replace(producer, agent=f"on-{producer.name}", gates=(GateKind.FORGING, GateKind.FIREWALL))
        for producer in OLD.producers
    ),
    relays=(Relay("relay-1", Address("r1", 3001), "on-r1", managed=True, producers={"main": Address("m", 1)}),),
)
THIRDS = (Gate("forging", "third"), Gate("firewall", "third"))


def hosted_reasons(new: Pool, *, shut: tuple[Gate, ...] = (), steady: bool = True) -> str:
    target = None if steady else "backup"
    found = compare(HOSTED, new, active="main", target=target, empty_proxies=(), phase_steady=steady, shut_gates=shut)
    return "\n".join(found)


def hosted_with(which: str, **changes: object) -> Pool:
    return replace(
        HOSTED,
        producers=tuple(replace(p, **changes) if p.name == which else p for p in HOSTED.producers),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("which", "words"), [("main", "'main' is active"), ("backup", "is the target of the handover")]
)
def test_a_gate_of_the_active_or_the_target_stays_even_when_it_is_shut(which: str, words: str) -> None:
    new = hosted_with(which, gates=(GateKind.FORGING,))
    found = hosted_reasons(new, shut=(Gate("firewall", which),), steady=which == "main")
    assert found.startswith(f"producers: the gate {which}@firewall is removed, and '{which}' is ")
    assert words in found
    assert "Mend: switch over to another producer first, or keep it." in found


def test_a_gate_goes_only_when_it_is_confirmed_closed_and_the_pool_is_steady() -> None:
    new = hosted_with("third", gates=(GateKind.FIREWALL,))
    assert "the gate third@forging is removed, and is not confirmed closed" in hosted_reasons(new)
    assert "and is not confirmed closed" in hosted_reasons(new, shut=(Gate("forging", "backup"),))
    assert hosted_reasons(new, shut=THIRDS) == ""
    assert "third@forging is removed while a handover runs" in hosted_reasons(new, shut=THIRDS, steady=False)


def test_a_producer_takes_its_gates_with_it_only_when_they_are_shut() -> None:
    new = replace(HOSTED, producers=HOSTED.producers[:2])
    assert hosted_reasons(new).count("is not confirmed closed") == 2
    assert hosted_reasons(new, shut=THIRDS[:1]).count("is not confirmed closed") == 1
    assert hosted_reasons(new, shut=THIRDS) == ""


def test_the_active_that_is_removed_is_refused_once() -> None:
    new = replace(HOSTED, producers=HOSTED.producers[1:])
    (found,) = hosted_reasons(new).splitlines()
    assert found.startswith("producers: 'main' is active, and the new file removes it. Mend: switch over to another")


def test_the_agent_of_the_active_stays_also_where_it_has_no_gate_and_of_another_it_may_go() -> None:
    bare = replace(HOSTED, producers=tuple(replace(producer, gates=()) for producer in HOSTED.producers))

    def gone(name: str) -> str:
        new = replace(bare, producers=tuple(replace(p, agent=None) if p.name == name else p for p in bare.producers))
        found = compare(bare, new, active="main", target=None, empty_proxies=(), phase_steady=True)
        return "\n".join(found)

    assert gone("main").startswith("producers: the agent of 'main' is removed, and that is active. Mend: switch over")
    assert gone("third") == ""


def test_an_agent_may_move_and_get_other_keys_and_a_gate_may_come_at_any_time() -> None:
    moved = tuple(
        replace(agent, address=Address("h", 2222), key_file=Path("/other"), user="u", host_key="ssh-ed25519 B")
        for agent in HOSTED.agents
    )
    power = Power(("/bin/p",), ("/bin/q",))
    more = hosted_with("main", gates=(GateKind.FORGING, GateKind.FIREWALL, GateKind.POWER), power=power)
    for new in (replace(HOSTED, agents=moved), more, hosted_with("main", metrics="http://h/metrics")):
        assert hosted_reasons(new) == hosted_reasons(new, steady=False) == ""


def test_relays_change_in_steady_and_stay_while_a_handover_runs() -> None:
    (relay,) = HOSTED.relays
    for new, words in (
        ((), "relays: 'relay-1' is removed or renamed while a handover runs"),
        ((replace(relay, name="r"),), "'relay-1' is removed or renamed"),
        ((replace(relay, agent=None, managed=False),), "'relay-1' is changed while a handover runs"),
        ((replace(relay, producers={"main": Address("m", 2)}),), "'relay-1' is changed"),
    ):
        assert hosted_reasons(replace(HOSTED, relays=new)) == ""
        assert words in hosted_reasons(replace(HOSTED, relays=new), steady=False)
    harmless = (Relay("relay-0", Address("r0", 3001)), replace(relay, restart=Nudge.SIGHUP))
    assert hosted_reasons(replace(HOSTED, relays=harmless), steady=False) == ""


def test_proxies_may_give_way_to_gates_on_hosts_once_they_are_empty() -> None:
    new = replace(HOSTED, relays=())
    assert "'proxy-1' is removed, and is not confirmed empty" in reasons(new)
    assert reasons(new, empty=("proxy-1", "proxy-2")) == ""
