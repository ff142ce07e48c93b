"""The handover by hand: what is printed for records, and in which order. That it works is proven on real servers."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import pytest
from policy_world import World, instant, make_gateless_pool, make_pool
from status_world import report
from topology_world import pool as hosted

from failover import status
from failover.cli import byhand, explain
from failover.cli.byhand import Signing
from failover.model import Address, GateKind, Pool, RecordType, Rfc2136Zone, Route53Zone, RRset, Verb

NAME = "bp.example.com."
SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQ="
RFC2136 = Rfc2136Zone(Address("192.0.2.53", 53), "example.com.", "bp-key.", SECRET)


def pool_with(provider: Route53Zone | Rfc2136Zone, *, gateless: bool = True, **changes: Any) -> Pool:
    pool = make_gateless_pool() if gateless else make_pool(records=(NAME,))
    return replace(pool, records=(replace(pool.records[0], provider=provider, **changes),))


def printed(pool: Pool, held: dict[str, RRset | None] | None = None, signing: Signing | None = None) -> str:
    text = "\n".join(byhand.commands(pool, "backup", {}, [signing], held))
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, timeout=30, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert SECRET not in text
    return text


def calls(text: str) -> list[list[str]]:
    """Every call of aws, as a shell would split it; what stands around ``$( )`` is taken off."""
    joined = re.sub(r"^CHANGE=\$\((.*)\) &&$", r"\1", text, flags=re.MULTILINE)
    return [shlex.split(line) for line in joined.splitlines() if line.lstrip().startswith("aws ")]


def value_of(call: list[str], option: str) -> str:
    return call[call.index(option) + 1]


def change_of(text: str) -> dict[str, Any]:
    """The input of ChangeResourceRecordSets, checked against the service's own model."""
    (call,) = (call for call in calls(text) if "change-resource-record-sets" in call)
    made = {
        "HostedZoneId": value_of(call, "--hosted-zone-id"),
        "ChangeBatch": json.loads(value_of(call, "--change-batch")),
    }
    model = botocore.loaders.Loader().load_service_model("route53", "service-2")
    shape = botocore.model.ServiceModel(model).operation_model("ChangeResourceRecordSets").input_shape
    found = botocore.validate.ParamValidator().validate(made, shape)
    assert not found.has_errors(), found.generate_report()
    return made


def swaps(text: str) -> list[tuple[str, str, int, list[str]]]:
    sets = [(c["Action"], c["ResourceRecordSet"]) for c in change_of(text)["ChangeBatch"]["Changes"]]
    return [(action, s["Type"], s["TTL"], [r["Value"] for r in s["ResourceRecords"]]) for action, s in sets]


# ---------------------------------------------------------------- the order


def test_the_records_come_after_the_proxies() -> None:
    text = printed(pool_with(Route53Zone("Z1"), gateless=False))
    marks = ["# 1. Close main", "# 2. Look", "# 3. Open backup", "# 4. Look", "# 5. Point", "# 6. Look"]
    assert [text.index(mark) for mark in marks] == sorted(text.index(mark) for mark in marks)
    assert "systemctl stop" not in text


def test_without_any_gate_the_old_producer_s_node_is_stopped_first() -> None:
    text = printed(pool_with(Route53Zone("Z1")))
    assert text.index("# 1. Stop the node of main") < text.index("failover ping --network-magic 2 127.0.0.11:3001")
    assert text.index("failover ping") < text.index("# 2. Point the records to backup") < text.index("# 3. Look")
    assert "socat" not in text


def test_a_pool_without_records_gets_no_word_about_them() -> None:
    text = "\n".join(byhand.commands(make_pool(), "backup", {}))
    assert "# 5." not in text
    assert not any(word in text for word in ("aws", "nsupdate", "dig"))


# ---------------------------------------------------------------- Route 53


def test_route_53_swaps_the_old_value_for_the_new_one_in_one_batch() -> None:
    text = printed(pool_with(Route53Zone("Z1")))
    assert change_of(text)["HostedZoneId"] == "Z1"
    assert swaps(text) == [("DELETE", "A", 60, ["203.0.113.10"]), ("CREATE", "A", 60, ["203.0.113.20"])]


def test_one_looks_before_the_change_and_waits_for_insync_after_it() -> None:
    text = printed(pool_with(Route53Zone("Z1", "the profile", "http://127.0.0.1:4000")))
    found = calls(text)
    assert [call[8] for call in found] == ["list-resource-record-sets", "change-resource-record-sets", "wait"]
    assert all(
        call[:8] == ["aws", "--region", "us-east-1", "--profile", "the profile", *found[0][5:7], "route53"]
        for call in found
    )
    assert found[0][5:7] == ["--endpoint-url", "http://127.0.0.1:4000"]
    assert value_of(found[0], "--query") == f"ResourceRecordSets[?Name=='{NAME}']"
    assert found[2][9] == "resource-record-sets-changed"


def test_what_was_last_seen_is_what_is_deleted() -> None:
    several = RRset(RecordType.A, ("198.51.100.7", "203.0.113.10"), 300)
    text = printed(pool_with(Route53Zone("Z1")), {NAME: several})
    assert swaps(text)[0] == ("DELETE", "A", 300, ["198.51.100.7", "203.0.113.10"])
    assert f"# {NAME}: it last held {several}" in text
    assert [swap[0] for swap in swaps(printed(pool_with(Route53Zone("Z1")), {NAME: None}))] == ["CREATE"]
    moved = printed(pool_with(Route53Zone("Z1")), {NAME: RRset(RecordType.A, ("203.0.113.20",), 60)})
    assert "already when it was last seen; go on only if it does not" in moved
    assert swaps(moved)[0] == ("DELETE", "A", 60, ["203.0.113.10"])


def test_what_was_last_seen_comes_from_the_status_unless_it_is_not_known_or_not_plain() -> None:
    world = World(make_pool(records=(NAME,))).run(60)
    world.ask(Verb.SWITCHOVER, "backup")
    world.run(100)

    def seen() -> dict[str, Any]:
        made: dict[str, Any] = status.document(report(world), last_tick=instant(world.t))["records"][0]
        return made

    assert explain._known(seen())
    assert explain._held(seen()) == world.pool.records[0].wanted("backup")
    assert not explain._known({**seen(), "provider_value": ["198.51.100.7'; true"]})
    assert not explain._known({**seen(), "readable": None})
    assert not explain._known({**seen(), "error": "is an alias"})
    assert explain._held({**seen(), "provider_value": [], "ttl": None}) is None


# ---------------------------------------------------------------- RFC 2136


def test_an_update_requires_the_exact_old_value_and_its_key_is_never_printed() -> None:
    text = printed(pool_with(RFC2136), signing=Signing(secret='"$(cat /etc/failover/bp.key)"'))
    assert "printf 'key %s:%s %s\\n' hmac-sha256 bp-key. \"$(cat /etc/failover/bp.key)\"" in text
    script = text[text.index("server 192.0.2.53 53") : text.index("\nEND")].splitlines()
    assert script == [
        "server 192.0.2.53 53",
        "zone example.com.",
        f"prereq yxrrset {NAME} A 203.0.113.10",
        f"update delete {NAME} A",
        f"update add {NAME} 60 A 203.0.113.20",
        "send",
    ]
    assert text.index(f"dig @192.0.2.53 -p 53 +norecurse +noall +comments +answer {NAME} A") < text.index("nsupdate -v")


def test_a_key_clause_is_read_by_nsupdate_itself() -> None:
    assert "nsupdate -v -t 10 -k '/etc/the key' <<'END'" in printed(
        pool_with(RFC2136), signing=Signing(file="'/etc/the key'")
    )


def test_where_nothing_stands_an_update_requires_that_nothing_does() -> None:
    text = printed(pool_with(RFC2136), {NAME: None}, Signing(secret='"$KEY"'))
    assert f"prereq nxrrset {NAME} A\nprereq nxrrset {NAME} CNAME\nupdate add" in text
    assert "update delete" not in text


def keys_in(folder: Path, **rfc2136: str) -> Signing | None:
    file = folder / "failover.yaml"
    file.write_text(json.dumps({"records": [{"name": NAME, "rfc2136": rfc2136}, {"route53": {"zone": "Z1"}}]}))
    found = byhand.keys(file)
    assert found[1] is None
    return found[0]


def test_a_key_is_taken_from_where_the_file_says_in_the_form_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, clause = tmp_path / "the key", f'key "bp-key" {{ algorithm hmac-sha256; secret "{SECRET}"; }};'
    key.write_text(SECRET)
    assert keys_in(tmp_path, key_file=str(key)) == Signing(secret=f"\"$(cat '{key}')\"")
    key.write_text(clause)
    assert keys_in(tmp_path, key_file=str(key)) == Signing(file=f"'{key}'")
    for held in (SECRET, clause):
        monkeypatch.setenv("BP_KEY", held)
        made = keys_in(tmp_path, key_env="BP_KEY")
        assert made is not None
        asked = subprocess.run(
            ["sh", "-c", f"echo {made.secret}"], text=True, capture_output=True, timeout=30, check=False
        )
        assert asked.stdout.strip() == SECRET


# ---------------------------------------------------------------- looking


def looked(**changes: Any) -> list[str]:
    text = printed(pool_with(Route53Zone("Z1"), **changes))
    return [line for line in text.splitlines() if "dig" in line]


def test_the_servers_that_the_file_names_are_asked_for_their_own_word_and_resolvers_for_theirs() -> None:
    two = (Address("192.0.2.1", 53), Address("2001:db8::1", 5353))
    assert looked(servers=two) == [
        f"dig @192.0.2.1 -p 53 +norecurse +noall +comments +answer {NAME} A",
        f"dig @2001:db8::1 -p 5353 +norecurse +noall +comments +answer {NAME} A",
    ]
    assert looked(resolvers=two[:1]) == [f"dig @192.0.2.1 -p 53 +noall +comments +answer {NAME} A"]


def test_otherwise_the_zone_s_servers_are_looked_up() -> None:
    (line,) = looked()
    assert f"dig +noall +answer +authority {NAME} SOA" in line
    (line,) = looked(targets={"main": "a.example.net.", "backup": "192.0.2.1"})
    assert "+authority example.com. SOA" in line


# ---------------------------------------------------------------- gates on producers' own hosts


OWN = (GateKind.FORGING, GateKind.FIREWALL)


def by_hand(pool: Pool, to: str = "backup") -> str:
    text = "\n".join(byhand.commands(pool, to, {}))
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, timeout=30, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    return text


def in_order(text: str, *marks: str) -> bool:
    found = [text.index(mark) for mark in marks]
    return found == sorted(found)


def test_a_pool_with_gates_on_its_hosts_closes_all_looks_and_then_opens() -> None:
    text = by_hand(hosted(gates=OWN))
    assert in_order(
        text,
        "# 1. Close main on its own host",
        "order agent_main close firewall",
        "order agent_main close forging",
        "# 2. Look: do not go on before.",
        'echo "$status" | agent_main | tell',
        "# 3. Open backup on its own host.",
        "order agent_backup open forging",
        "order agent_backup open firewall",
        "# 4. Look: backup must say open: true.",
        'echo "$status" | agent_backup | tell',
        "failover ping --network-magic 2 10.0.1.20:6000",
    )
    assert "socat" not in text
    assert "every proxy" not in text


def test_with_proxies_both_kinds_are_closed_before_either_is_opened() -> None:
    text = by_hand(hosted(proxies=True, gates=(GateKind.FORGING,)))
    maint, ready = "set server producers/main state maint", "set server producers/backup state ready"
    assert in_order(text, "# 1. Close", maint, "order agent_main close forging", "# 2. Look", "# 3. Open", ready)
    assert in_order(text, "order agent_main close forging", "# 2. Look", "order agent_backup open forging", ready)
    assert "firewall" not in text


def test_a_pool_of_proxies_alone_has_no_word_of_agents() -> None:
    text = by_hand(hosted(proxies=True))
    assert not any(word in text for word in ("ssh", "agent", "# 0."))


def test_an_agent_is_asked_with_its_own_key_and_by_the_pinned_host_key_alone() -> None:
    text = by_hand(hosted(gates=OWN))
    (line,) = [line for line in text.splitlines() if line.startswith("agent_main()")]
    words = shlex.split(line)
    assert words[:4] == ["agent_main()", "{", "ssh", "-T"]
    assert words[-3:] == ["failover@10.0.1.1", "serve;", "}"]
    options = [words[index + 1] for index, word in enumerate(words) if word == "-o"]
    assert {"BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"} <= set(options)
    assert "KnownHostsCommand=/bin/echo failover-main-host ssh-ed25519 AAAA" in options
    assert words[words.index("-i") + 1] == "/etc/failover/key"
    known = replace(hosted(gates=OWN).agents[0], host_key=None, known_hosts=Path("/etc/failover/known hosts"))
    assert "'UserKnownHostsFile=/etc/failover/known hosts'" in by_hand(
        replace(hosted(gates=OWN), agents=(known, hosted(gates=OWN).agents[1]))
    )


def test_power_is_only_looked_at_and_switching_off_has_to_be_uncommented() -> None:
    text = by_hand(hosted(gates=(*OWN, GateKind.POWER)))
    lines = [line for line in text.splitlines() if "/usr/bin/off" in line or "/usr/bin/status" in line]
    assert [line.startswith("# ") for line in lines if "/usr/bin/off" in line] == [True]
    assert all(line.startswith("(cd / && env -i PATH=") for line in lines if "/usr/bin/status" in line)
    assert in_order(
        text, "order agent_main close forging", "/usr/bin/off", "# 3. Open", "order agent_backup open forging"
    )
    assert "switch it on by hand" in text


def test_two_names_that_a_shell_cannot_tell_apart_get_two_functions() -> None:
    pool = hosted(gates=OWN)
    first, second = (replace(p, name=name) for p, name in zip(pool.producers, ("bp-1", "bp_1"), strict=True))
    text = by_hand(replace(pool, producers=(first, second)), to="bp_1")
    assert in_order(text, "order agent_bp_1_1 close forging", "order agent_bp_1_2 open forging")
