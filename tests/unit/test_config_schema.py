"""The JSON Schema says of a file what the loader says, and explains each key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from config_files import GATELESS, HOSTED, agent_key, with_keys
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from failover.cli.schema import command
from failover.config import InvalidConfig, load_text
from failover.config.shape import AgentPart, File, PowerPart, ProducerPart, RelayPart
from failover.model import (
    Agent,
    FenceSettings,
    HealthSettings,
    LeaseSettings,
    PolicySettings,
    Pool,
    Power,
    Producer,
    Relay,
)

EXAMPLE = """\
pool: EXMPL
network: mainnet
mode: act
state: /var/lib/failover
listen: 127.0.0.1:9465
agents:
  - name: bp1
    address: "10.0.1.10:22"
    user: failover
    key_file: AGENT_KEY
    host_key: "HOST_KEY root@bp1"
  - {name: relay1, address: "10.0.2.1:22", key_file: AGENT_KEY, host_key: "HOST_KEY"}
producers:
  - name: main
    address: "10.0.1.10:6000"
    site: home
    agent: bp1
    gates: [forging, firewall]
    power: {off: [/usr/bin/ipmi, "off"], status: [/usr/bin/ipmi, status], on: [/usr/bin/ipmi, "on"]}
    metrics: http://10.0.1.10:12798/metrics
  - {name: backup, address: "bp2.example.internal:6000", site: cloud}
proxies:
  - {name: proxy-1, socket: /run/haproxy/admin.sock, backend: producers, watch: watch, hard_stop_after: 5s}
  - name: proxy-2
    stats: https://10.0.2.5:8404/stats
    username: failover
    password_env: PROXY_2_PASSWORD
    ca_file: /etc/hosts
    backend: producers
    servers: {main: bp1, backup: bp2}
records:
  - name: bp.example.com.
    addresses: {main: 203.0.113.10, backup: bp2.example.net}
    ttl: 60
    route53: {zone: Z0123456789ABC, profile: failover, endpoint_url: "https://route53.example.net"}
    verify: {resolvers: [10.0.0.2, "[fd00::1]:53"]}
  - name: v6.example.com
    addresses: {main: "2001:db8::10", backup: "2001:db8::20"}
    ttl: 2m
    rfc2136: {server: "ns1.example.com:5353", zone: example.com, key_name: bp, key_env: BP_KEY, algorithm: hmac-sha512}
    verify: {servers: ["127.0.0.1:5353"]}
relays:
  - name: relay-1
    address: "10.0.2.1:3001"
    agent: relay1
    managed: true
    producers: {main: "203.0.113.10:6000"}
    restart: sighup
  - {name: relay-2, address: "10.0.2.2:3001"}
references: ["relay.example.org:3001"]
health: {interval: 10s, timeout: 5s, fall: 3, rise: 2, max_gap: 30, max_lag: 60}
policy: {fail_over_after: 5m, fail_back_after: 1h30m, fail_back: auto}
fence:  {require: reachable, proxies_are_only_path: false}
lease:  {duration: 60s, renew: 20s, action_timeout: 10s}
"""
ENVIRON = {"PROXY_2_PASSWORD": "hunter2", "BP_KEY": "aHVudGVyMg=="}


@pytest.fixture(scope="module", name="document")
def printed_schema() -> dict[str, Any]:
    result = CliRunner().invoke(command)
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


@pytest.fixture(scope="module", name="load")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pool]:
    """Loads a text whose agents have a private key."""
    key = agent_key(tmp_path_factory.mktemp("keys"))
    return lambda text: load_text(with_keys(text, key), environ=ENVIRON).pool


def errors(document: dict[str, Any], text: str) -> list[str]:
    text = with_keys(text, Path("/etc/failover/agent.key"))
    return [
        error.message for error in Draft202012Validator(document).iter_errors(YAML(typ="safe", pure=True).load(text))
    ]


def properties(part: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(part, dict):
        for key, inner in part.get("properties", {}).items():
            yield f"{path}.{key}", inner
        for key, inner in part.items():
            if key not in ("if", "then", "else"):  # bounds on keys that are described elsewhere
                yield from properties(inner, f"{path}/{key}")
    elif isinstance(part, list):
        for inner in part:
            yield from properties(inner, path)


def test_the_schema_is_itself_valid(document: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(document)


def test_every_key_has_a_title_a_description_and_an_example_that_fits(document: dict[str, Any]) -> None:
    found = dict(properties(document))
    assert len(found) > 60
    for path, written in found.items():
        key = {**document["$defs"].get(written.get("$ref", "").rpartition("/")[2], {}), **written}
        assert key.get("title"), path
        assert key.get("description"), path
        assert key.get("examples"), path
        for example in key["examples"]:
            # The parts are defined beside: an example is checked with the whole document's definitions at hand.
            Draft202012Validator({**key, "$defs": document["$defs"]}).validate(example)


def test_the_example_is_valid_and_loads(document: dict[str, Any], load: Callable[[str], Pool]) -> None:
    assert errors(document, EXAMPLE) == errors(document, HOSTED) == errors(document, GATELESS) == []
    assert load(EXAMPLE).proxies[1].password == "hunter2"
    assert load(HOSTED).host_gates
    assert load(GATELESS).gateless


def test_the_keys_of_the_examples_are_taken_by_the_loader_too(
    document: dict[str, Any], load: Callable[[str], Pool]
) -> None:
    for example in (key for path, key in properties(document) if path.endswith((".host_key", ".off", ".status"))):
        value = json.dumps(example["examples"][0])
        text = EXAMPLE.replace('"HOST_KEY root@bp1"', value) if isinstance(example["examples"][0], str) else EXAMPLE
        assert load(text.replace('[/usr/bin/ipmi, "off"]', value) if value.startswith("[") else text)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("EXMPL", "123"),
        ("EXMPL", "a/b"),
        ("mainnet", "nowhere"),
        ("mainnet", "{magic: -1}"),
        ("mode: act", "mode: go"),
        ("/var/lib", "var/lib"),
        ("10.0.1.10:6000", "10.0.1.10"),
        ("interval: 10s", "interval: soon"),
        ("interval: 10s", "interval: 0"),
        ("fall: 3", "fall: 0"),
        ("fall: 3", "fall: true"),
        ("proxies_are_only_path: false", "proxies_are_only_path: 0"),
        ("require: reachable", "require: none"),
        ("name: main,", ""),
        ("helth", "helth"),
        ("username: failover", "password: hunter2"),
        ("backend: producers, watch", "stats: http://h/s, backend: producers, watch"),
        ("https://", "https://u:p@"),
        ("ca_file:", "cert_file:"),
        ("references:", "refs:"),
        ("site: home", "site: null"),
        ("name: bp.example.com.", 'name: "*.example.com."'),
        ("name: bp.example.com.", "name: 203.0.113.10"),
        ("name: bp.example.com.", "name: bp"),
        ("main: 203.0.113.10", 'main: "203.0.113.10:6000"'),
        ("addresses: {main: 203.0.113.10, backup: bp2.example.net}", "addresses: 203.0.113.10"),
        ("ttl: 60", "ttl: 59"),
        ("ttl: 60", "ttl: 86401"),
        ("Z0123456789ABC", "example.com"),
        ("zone: Z0123456789ABC, ", ""),
        ("profile: failover", "profile: null"),
        ("https://route53", "https://u:p@route53"),
        ("https://route53.example.net", "https://route53.example.net/path"),
        ("verify: {resolvers: [10", "verify: {servers: [127.0.0.1], resolvers: [10"),
        ('[10.0.0.2, "[fd00::1]:53"]', "[ns1.example.com]"),
        ('[10.0.0.2, "[fd00::1]:53"]', "[]"),
        ('[10.0.0.2, "[fd00::1]:53"]', "[" + ", ".join(f"10.0.0.{i}" for i in range(1, 10)) + "]"),
        ("key_env: BP_KEY, ", ""),
        ("key_env: BP_KEY", "key_env: BP_KEY, key_file: /etc/hosts"),
        ("hmac-sha512", "hmac-md5"),
        ("zone: example.com,", "zone: example..com,"),
        ("ns1.example.com:5353", "ns1 example.com"),
        ("ttl: 2m", "route53: {zone: Z1}"),
        ("user: failover", "user: fail over"),
        ("user: failover", "user: null"),
        ("key_file: AGENT_KEY", "key_file: agent.key"),
        ("    key_file: AGENT_KEY\n", ""),
        ("HOST_KEY root", "ssh-dss AAAA root"),
        ('host_key: "HOST_KEY root@bp1"', "known_hosts: known_hosts"),
        ('    host_key: "HOST_KEY root@bp1"\n', ""),
        ('host_key: "HOST_KEY root@bp1"', 'host_key: "HOST_KEY"\n    known_hosts: /etc/hosts'),
        ("gates: [forging, firewall]", "gates: []"),
        ("gates: [forging, firewall]", "gates: [forging, forging]"),
        ("gates: [forging, firewall]", "gates: [forging, power]"),
        ("gates: [forging, firewall]", "gates: forging"),
        ("    agent: bp1\n", ""),
        ('off: [/usr/bin/ipmi, "off"], ', ""),
        ("status: [/usr/bin/ipmi, status]", "status: /usr/bin/ipmi"),
        ("status: [/usr/bin/ipmi, status]", "status: []"),
        ("status: [/usr/bin/ipmi, status]", "status: [ipmi]"),
        ("status: [/usr/bin/ipmi, status]", "status: [/usr/bin/ipmi, 623]"),
        ("status: [/usr/bin/ipmi, status]", "status: [/usr/bin/ipmi, '']"),
        ("status: [/usr/bin/ipmi, status]", "status: [/usr/bin/ipmi" + ", a" * 32 + "]"),
        ("status: [/usr/bin/ipmi, status]", "status: [/usr/bin/ipmi, " + "a" * 257 + "]"),
        ("http://10.0.1.10:12798", "http://u:p@10.0.1.10:12798"),
        ("http://10.0.1.10:12798", "10.0.1.10:12798"),
        ("    agent: relay1\n", ""),
        ("managed: true", "managed: false"),
        ("managed: true", "managed: null"),
        ('producers: {main: "203.0.113.10:6000"}', 'producers: {main: "203.0.113.10"}'),
        ("restart: sighup", "restart: always"),
        ('{name: relay-2, address: "10.0.2.2:3001"}', "{name: relay-2}"),
        ('{name: relay-2, address: "10.0.2.2:3001"}', '{name: relay-2, address: "10.0.2.2:3001", managed: true}'),
    ],
)
def test_the_schema_and_the_loader_refuse_the_same(
    document: dict[str, Any], load: Callable[[str], Pool], good: str, bad: str
) -> None:
    text = EXAMPLE.replace(good, bad, 1) if good in EXAMPLE else f"{EXAMPLE}{bad}: 1\n"
    assert errors(document, text) != []
    with pytest.raises(InvalidConfig):
        load(text)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("fence: {require: none}\n", ""),
        ("require: none", "require: confirmed"),
        ("records:", "records: []\nreferences:"),
        ("fence:", "proxies: [{name: p, socket: /run/p.sock, backend: b}]\nfence:"),
        ('00"}', '00", power: {off: [/bin/p], status: [/bin/q]}}'),
    ],
)
def test_the_schema_and_the_loader_refuse_the_same_of_a_pool_without_a_gate(
    document: dict[str, Any], good: str, bad: str
) -> None:
    text = GATELESS.replace(good, bad, 1)
    assert errors(document, text) != []
    with pytest.raises(InvalidConfig):
        load_text(text, environ=ENVIRON)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (", gates: [forging]", ""),
        (", gates: [forging]", ", power: {off: [/bin/p], status: [/bin/q]}"),
        ("producers:", "fence: {require: none}\nproducers:"),
    ],
)
def test_the_schema_and_the_loader_refuse_the_same_of_a_pool_with_gates_on_its_hosts_alone(
    document: dict[str, Any], load: Callable[[str], Pool], good: str, bad: str
) -> None:
    text = HOSTED.replace(good, bad, 1)
    assert errors(document, text) != []
    with pytest.raises(InvalidConfig):
        load(text)


def test_parts_of_the_file_have_the_keys_of_the_models() -> None:
    for part, value in ((AgentPart, Agent), (PowerPart, Power), (ProducerPart, Producer), (RelayPart, Relay)):
        assert set(part.model_fields) == {field.name for field in fields(value)}


def test_the_file_has_a_key_for_every_setting_of_the_model() -> None:
    keys = {field.name for field in fields(Pool)} - {"name", "magic"}
    assert keys == set(File.model_fields) - {"pool"}
    for section, settings in (
        ("health", HealthSettings),
        ("policy", PolicySettings),
        ("fence", FenceSettings),
        ("lease", LeaseSettings),
    ):
        default = File.model_fields[section].get_default().model_dump()
        assert settings(**default) == settings()
        assert set(default) == {field.name for field in fields(settings)} - {"margin"}
