"""Whatever the text, the loader returns or raises ConfigError, and nothing else."""

from __future__ import annotations

from pathlib import Path

import config_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover.config import Loaded, load_text
from failover.errors import ConfigError

GOOD = """\
pool: EXMPL
network: {magic: 42}
mode: act
agents:
  - {name: bp1, address: "10.0.1.10:22", user: failover, key_file: AGENT_KEY, host_key: "HOST_KEY root@bp1"}
  - {name: relay1, address: "10.0.2.1:22", key_file: AGENT_KEY, host_key: "HOST_KEY"}
producers:
  - name: main
    address: "10.0.1.10:6000"
    site: home
    agent: bp1
    gates: [forging, firewall]
    power: {off: [/bin/ipmi, -f, /etc/ipmi.password, "off"], status: [/bin/ipmi, status], on: [/bin/ipmi, "on"]}
    metrics: http://10.0.1.10:12798/metrics
  - {name: backup, address: "[2001:db8::1]:6000"}
proxies:
  - name: proxy-1
    stats: https://10.0.2.5:8404/stats
    username: failover
    password_env: PROXY_PASSWORD
    backend: producers
    servers: {main: bp1, backup: bp2}
    hard_stop_after: 5s
records:
  - name: bp.example.com.
    addresses: {main: 203.0.113.10, backup: bp2.example.net}
    ttl: 60
    route53: {zone: Z0123456789ABC, profile: failover, endpoint_url: "http://127.0.0.1:5000"}
    verify: {resolvers: [10.0.0.2, "[fd00::1]:53"]}
  - name: v6.example.com
    addresses: {main: "2001:db8::10", backup: "2001:db8::20"}
    rfc2136: {server: "ns1.example.com:5353", zone: example.com, key_name: bp, key_env: BP_KEY, algorithm: hmac-sha256}
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
health: {interval: 10s, timeout: 0.5, fall: 3, max_lag: 60}
policy: {fail_over_after: 5m, fail_back: auto}
fence: {require: reachable, proxies_are_only_path: false}
lease: {duration: 60s}
"""
GATELESS = """\
pool: EXMPL
network: mainnet
producers:
  - {name: main, address: "10.0.1.10:6000", site: home}
  - {name: backup, address: "[2001:db8::1]:6000"}
"""
GATELESS += GOOD[GOOD.index("records:") : GOOD.index("relays:")] + "fence: {require: none}\n"
HOSTED = (
    config_files.HOSTED
    + 'relays: [{name: relay-2, address: "10.0.2.10:6000", agent: bp2}]\nfence: {require: confirmed}\n'
)
ENVIRON = {"PROXY_PASSWORD": "hunter2", "BP_KEY": "aHVudGVyMg=="}
WORDS = [
    "null", "true", "-1", "1e999", ".nan", "0x1F", "9" * 400, "''", "[]", "{}", "- ", ": ", "? ", "\n", "\n  ", "\t",
    "#", "&a ", "*a", "!!str ", "!", "%", "|", ">", "'", '"', "\\", '"\\x00"', "\u2028", "\x00", "\ud7ff", "ä",
    "[::1]:6000", "http://[", "https://u:p@h/", "h:0", "pool", "records", "1h30m", "---\n", "<<: ", "/proc/self/mem",
    "forging", "firewall", "power", "never", "bp1", "ssh-ed25519 ", "AAAA", "/bin/p", "--password", "false", "host_key",
    "main", "none", "confirmed", "true", "bp.example.com", "203.0.113.10", "::", "0.0.0.0", "*.", "59",
]  # fmt: skip
FILE: list[Path] = []
LINES = GOOD.splitlines(keepends=True)
SCALARS = sorted({word.strip('",[]{}') for line in LINES for word in line.split() if word.strip('",[]{}:-')})


@pytest.fixture(scope="module", autouse=True)
def agent_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A private key for the agents' files; where it is, is known once it has been made."""
    FILE.append(config_files.agent_key(tmp_path_factory.mktemp("keys")))


def with_keys(text: str) -> str:
    return config_files.with_keys(text, FILE[-1])


def loads_or_refuses(text: str) -> None:
    try:
        loaded = load_text(with_keys(text), environ=ENVIRON)
    except ConfigError as error:
        said = str(error)
    else:
        said = f"{loaded.warnings}"
        assert isinstance(loaded, Loaded)
    assert said
    assert "hunter2" not in said
    assert "aHVudGVyMg" not in said


def test_the_good_file_is_good() -> None:
    assert load_text(with_keys(GOOD), environ=ENVIRON).pool.names == ("main", "backup")
    assert len(load_text(with_keys(HOSTED), environ=ENVIRON).pool.host_gates) == 2
    assert load_text(GATELESS, environ=ENVIRON).pool.gateless


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from([*WORDS, *SCALARS, " ", ", "]), max_size=15).map("".join))
def test_any_small_text_is_loaded_or_refused(text: str) -> None:
    loads_or_refuses(text)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([GOOD, HOSTED, GATELESS]),
    st.lists(
        st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), st.sampled_from(WORDS) | st.text(max_size=4)),
        min_size=1,
        max_size=4,
    ),
)
def test_a_good_file_with_cuts_and_insertions_is_loaded_or_refused(
    text: str, edits: list[tuple[int, int, str]]
) -> None:
    for start, removed, added in edits:
        text = text[:start] + added + text[start + removed :]
    loads_or_refuses(text)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([GOOD, HOSTED, GATELESS]),
    st.sampled_from(SCALARS),
    st.sampled_from(WORDS + SCALARS) | st.from_regex(r"[ -~]{0,12}", fullmatch=True),
)
def test_a_good_file_with_one_value_replaced_is_loaded_or_refused(text: str, old: str, new: str) -> None:
    loads_or_refuses(text.replace(old, new, 1))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=30))
def test_the_lines_of_a_good_file_in_any_order_are_loaded_or_refused(lines: list[str]) -> None:
    loads_or_refuses("".join(lines))
