"""What the file may say, and what is refused, each in its own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import PROXIED, accepted, refused

from failover.config import InvalidConfig, load_text
from failover.model import Address, HealthSettings, LeaseSettings, PolicySettings, Producer

FULL = """\
pool: EXMPL
network: mainnet                 # mainnet, preprod, preview, or {magic: 42}
mode: act
state: /var/lib/failover
listen: 127.0.0.1:9465

producers:                       # in order of preference
  - {name: main,   address: "10.0.1.10:6000", site: home}
  - {name: backup, address: "bp2.example.internal:6000", site: cloud}

proxies:
  - name: proxy-1
    socket: /run/haproxy/admin.sock
    backend: producers
    watch: watch
    hard_stop_after: 5s
  - name: proxy-2
    stats: https://10.0.2.5:8404/stats
    username: failover
    password_file: FOLDER/proxy-2.password
    ca_file: FOLDER/ca.pem
    backend: producers
    servers: {main: bp1, backup: bp2}

references: ["relay.example.org:3001"]
health: {interval: 10s, timeout: 5s, fall: 3, rise: 2, max_gap: 30s, max_lag: 60}
policy: {fail_over_after: 5m, fail_back_after: 30m, fail_back: auto}
fence:  {require: reachable, proxies_are_only_path: false}
lease:  {duration: 60s, renew: 20s, action_timeout: 10s}
"""
PROXIES = "proxies:"
STATS = PROXIED.replace("socket: /run/haproxy/admin.sock", "stats: https://10.0.2.5:8404/stats, EXTRA")


def proxy(**keys: str) -> str:
    """The smallest file with a stats proxy and these further keys."""
    return STATS.replace("EXTRA", ", ".join(f"{key}: {value}" for key, value in keys.items()) or "watch: w")


def main_at(address: str) -> str:
    return PROXIED.replace('"10.0.1.10:6000"', address)


def test_the_smallest_file_takes_every_default_of_the_model() -> None:
    pool = accepted(PROXIED).pool
    assert (pool.name, pool.network, pool.magic, pool.mode) == ("EXMPL", "mainnet", 764824073, "act")
    assert pool.producers[0] == Producer("main", Address("10.0.1.10", 6000))
    assert pool.proxies[0].servers == {"main": "main", "backup": "backup"}
    assert (pool.health, pool.policy, pool.lease) == (HealthSettings(), PolicySettings(), LeaseSettings())
    assert (pool.state, pool.listen) == (Path("/var/lib/failover"), Address("127.0.0.1", 9465))


def test_the_full_example_loads_with_its_password_and_shows_it_nowhere(tmp_path: Path) -> None:
    (tmp_path / "proxy-2.password").write_text("hunter2\n")
    (tmp_path / "proxy-2.password").chmod(0o600)
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    loaded = accepted(FULL.replace("FOLDER", str(tmp_path)))
    first, second = loaded.pool.proxies
    assert (first.socket, first.watch, first.hard_stop_after) == (Path("/run/haproxy/admin.sock"), "watch", 5.0)
    assert (second.password, second.username, second.servers) == (
        "hunter2",
        "failover",
        {"main": "bp1", "backup": "bp2"},
    )
    assert loaded.pool.references == (Address("relay.example.org", 3001),)
    assert loaded.pool.policy == PolicySettings(300.0, 1800.0, "auto")
    assert "hunter2" not in repr(loaded)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1m0.5s", 60.5),
        ("7", 7.0),
        ("2.5", 2.5),
        ("1e1", 10.0),
    ],
)
def test_a_duration_is_read_in_seconds(written: str, seconds: float) -> None:
    pool = accepted(PROXIED.replace("backend:", f"hard_stop_after: {written}, backend:")).pool
    assert pool.proxies[0].hard_stop_after == seconds


@pytest.mark.parametrize(
    ("written", "network", "magic"),
    [
        ("preprod", "preprod", 1),
        ("preview", "preview", 2),
        ("sanchonet", "sanchonet", 4),
        ("{magic: 42}", "magic-42", 42),
        ("{magic: 764824073}", "mainnet", 764824073),
    ],
)
def test_a_network_is_known_by_name_or_magic(written: str, network: str, magic: int) -> None:
    pool = accepted(PROXIED.replace("mainnet", written)).pool
    assert (pool.network, pool.magic) == (network, magic)


@pytest.mark.parametrize("ticker", ["NO", "ON", "22x", "y"])
def test_a_ticker_that_older_yaml_would_misread_stays_text(ticker: str) -> None:
    assert accepted(PROXIED.replace("EXMPL", ticker)).pool.name == ticker


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ('"[2001:db8::1]:6000"', "2001:db8::1"),
        ("bp1.example.org:6000", "bp1.example.org"),
        ("10.0.0.7:6000", "10.0.0.7"),
    ],
)
def test_an_address_is_a_host_and_a_port(written: str, host: str) -> None:
    assert accepted(main_at(written)).pool.producers[0].address == Address(host, 6000)


VALUES: dict[str, tuple[str, str]] = {
    "unknown key": (PROXIED + "helth: {}\n", "failover.yaml:8: helth: the key is unknown. Mend: did you mean health?"),
    "key of another section": (PROXIED + "interval: 1s\n", "interval belongs under health"),
    "top key in a section": (PROXIED + "health: {listen: x}\n", "listen belongs at the top level"),
    "unknown key inside": (PROXIED.replace("backend:", "bakend: x, backend:"), "did you mean backend?"),
    "pool is a number": (
        PROXIED.replace("EXMPL", "123"),
        "pool: 123: is a number, not a name. Mend: put it",
    ),
    "pool is a truth value": (PROXIED.replace("EXMPL", "true"), "pool: true: is a truth value, not a name"),
    "pool empty": (PROXIED.replace("EXMPL", '""'), "pool: is empty, not a name"),
    "pool without value": (PROXIED.replace("EXMPL", ""), "pool: is empty, not a name"),
    "pool missing": (PROXIED.replace("pool: EXMPL\n", ""), "pool: is missing"),
    "name with space": (PROXIED.replace("main,", "ma in,"), "'ma in': cannot be a name"),
    "name with control": (PROXIED.replace("main,", '"ma\\nin",'), "has control characters"),
    "name too long": (PROXIED.replace("main,", "m" * 64 + ","), "cannot be a name"),
    "name is a folder": (PROXIED.replace("main,", '"..",'), "cannot be a name"),
    "name with slash": (PROXIED.replace("main,", "a/b,"), "cannot be a name"),
    "site without value": (PROXIED.replace("{name: main,", "{site: , name: main,"), "producers[0].site: is empty"),
    "network unknown": (PROXIED.replace("mainnet", "testnet"), "'testnet': is not a network that is known here"),
    "network number": (PROXIED.replace("mainnet", "42"), "Mend: write {magic: 42}"),
    "network other key": (PROXIED.replace("mainnet", "{majic: 42}"), "other keys than magic"),
    "magic too large": (PROXIED.replace("mainnet", "{magic: 4294967296}"), "is not between 0 and 4294967295"),
    "magic true": (PROXIED.replace("mainnet", "{magic: true}"), "is a truth value, not a whole number"),
    "mode": (PROXIED + "mode: acting\n", "'acting': must be act or observe"),
    "duration word": (PROXIED + "health: {interval: soon}\n", "health.interval: 'soon': is not a duration"),
    "duration unit order": (PROXIED + "health: {interval: 5s1m}\n", "is not a duration"),
    "duration quoted number": (PROXIED + 'health: {interval: "10"}\n', "a number of seconds without quotes"),
    "duration zero": (PROXIED + "health: {interval: 0}\n", "must be longer than nothing"),
    "duration zero text": (PROXIED + "health: {interval: 0s}\n", "must be longer than nothing"),
    "duration negative": (PROXIED + "health: {interval: -5}\n", "must be longer than nothing"),
    "duration tiny": (PROXIED + "health: {interval: 1e-9}\n", "is shorter than 10ms"),
    "duration nan": (PROXIED + "health: {interval: .nan}\n", "is not a number of seconds"),
    "duration inf": (PROXIED + "health: {interval: .inf}\n", "is longer than 30 days"),
    "duration absurd": (PROXIED + "health: {interval: " + "9" * 400 + "}\n", "is longer than 30 days"),
    "duration absurd text": (PROXIED + "health: {interval: 99999999h}\n", "is longer than 30 days"),
    "duration true": (PROXIED + "health: {interval: true}\n", "is a truth value, not a duration"),
    "duration list": (PROXIED + "health: {interval: [10s]}\n", "is a list, not a duration"),
    "fall zero": (PROXIED + "health: {fall: 0}\n", "health.fall: 0: is not between 1 and 100"),
    "rise zero": (PROXIED + "health: {rise: 0}\n", "health.rise: 0: is not between 1 and 100"),
    "fall true": (PROXIED + "health: {fall: true}\n", "is a truth value, not a whole number"),
    "fall fraction": (PROXIED + "health: {fall: 2.5}\n", "is a number, not a whole number"),
    "max_lag absurd": (PROXIED + "health: {max_lag: 9999999999999}\n", "is not between 1 and 129600"),
    "flag word": (PROXIED + "fence: {proxies_are_only_path: yes}\n", "is text, not true or false"),
    "section empty": (PROXIED + "health:\n", "health: is empty, not a mapping of keys to values"),
    "section is a list": (PROXIED + "health: [1]\n", "health: is a list, not a mapping of keys to values"),
    "producers is a mapping": (
        PROXIED.replace('  - {name: main, address: "10.0.1.10:6000"}\n  - ', "  "),
        "producers: is a mapping, not a list",
    ),
    "producer is text": (
        PROXIED.replace('{name: main, address: "10.0.1.10:6000"}', "main"),
        "producers[0]: 'main': is text, not a mapping of keys to values",
    ),
    "address missing": (
        PROXIED.replace(', address: "10.0.1.10:6000"', ""),
        'producers[0].address: is missing. Mend: add it, for example address: "10.0.1.10:6000"',
    ),
    "address without port": (main_at("10.0.1.10"), "'10.0.1.10': has no port"),
    "address is a port": (main_at("6000"), "6000: is a number, not an address. Mend: put it in quotes"),
    "address without host": (main_at('":6000"'), "has no host"),
    "port zero": (main_at('"h:0"'), "has a port that is not between 1 and 65535"),
    "port too large": (main_at('"h:70000"'), "has a port that is not between 1 and 65535"),
    "port word": (main_at('"h:http"'), "has a port that is not between 1 and 65535"),
    "bare IPv6": (main_at('"2001:db8::1:6000"'), "has an IPv6 address without brackets"),
    "IPv6 list": (main_at("[2001]"), 'is a list, not an address. Mend: write for example "10.0.1.10:6000"'),
    "IPv6 unquoted": (
        PROXIED + "listen: [::1]:9465\n",
        "found '<scalar>'. Mend: put IPv6 addresses in quotes: \"[2001:db8::1]:6000\"",
    ),
    "IPv6 wrong": (main_at('"[zz::1]:6000"'), "has no IPv6 address that can be read"),
    "IPv4 wrong": (main_at('"10.0.1.300:6000"'), "neither a name nor an IPv4 address"),
    "host with blank": (main_at('"a b:6000"'), "neither a name nor an IPv4 address"),
    "state relative": (PROXIED + "state: var/lib\n", "'var/lib': is not an absolute path"),
    "listen not an address": (PROXIED + "listen: everywhere\n", "listen: 'everywhere': has no port"),
    "socket relative": (PROXIED.replace("/run/haproxy/admin.sock", "admin.sock"), "neither an absolute path nor"),
    "socket too long": (PROXIED.replace("/run/haproxy", "/r" * 60), "longer than a socket's path can be"),
    "stats scheme": (
        proxy().replace("https://", "ftp://"),
        "proxies[0].stats: 'ftp://10.0.2.5:8404/stats': must be http:// or https://. Mend: write for example",
    ),
    "stats port": (proxy().replace("8404", "0"), "has no host and port that can be used"),
    "stats broken": (
        proxy().replace("https://10.0.2.5:8404/stats", "'https://[zz/'"),
        "has no host and port that can be used",
    ),
    "stats csv": (proxy().replace("/stats,", "/stats;csv,"), "has signs in its path that do not belong there"),
    "backend with blank": (PROXIED.replace(": producers}", ": a b}"), "cannot be a name in HAProxy"),
    "servers is text": (proxy(servers="bp1"), "is text, not a mapping of producers to servers"),
    "servers same": (proxy(servers="{main: bp, backup: bp}"), "names the same server twice"),
    "variable": (proxy(username="u", password_env="hunter-2"), "is not the name of an environment variable"),
    "reference": (PROXIED + "references: [relay]\n", "references[0]: 'relay': has no port"),
    "references text": (PROXIED + "references: relay:3001\n", "references: 'relay:3001': is text, not a list"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_is_wrong_by_itself_is_refused_in_its_own_words(case: str) -> None:
    text, words = VALUES[case]
    message = refused(text)
    assert words in message
    assert message.count("\n") == 0, "one mistake makes one finding"
    assert "Input should" not in message
    assert "Mend: " in message


RULES: dict[str, tuple[str, str]] = {
    "timeout above interval": (
        PROXIED + "health: {interval: 5s, timeout: 6s}\n",
        "health.timeout: '6s': timeout 6 s is longer than interval 5 s",
    ),
    "gap": (
        PROXIED + "health: {interval: 28s}\n",
        "health.interval: '28s': interval + timeout is 33 s, more than max_gap 30 s",
    ),
    "fail_over_after": (PROXIED + "policy: {fail_over_after: 29s}\n", "shorter than interval x fall, 30 s"),
    "fail_back_after": (PROXIED + "policy: {fail_back_after: 19s}\n", "shorter than interval x rise, 20 s"),
    "lease": (
        PROXIED + "lease: {duration: 35s}\n",
        "renew 20 s + action_timeout 10 s + margin 5 s is 35 s, not less than duration 35 s",
    ),
    "one producer": (
        PROXIED.replace('  - {name: backup, address: "10.0.2.10:6000"}\n', ""),
        "there is only one, and a pool needs at least two",
    ),
    "seventeen producers": (
        PROXIED.replace(
            "proxies:", "".join(f'  - {{name: p{i}, address: "p{i}:1"}}\n' for i in range(15)) + "proxies:"
        ),
        "there are 17, and at most 16 are allowed",
    ),
    "same name": (PROXIED.replace("backup", "main"), "producers[1].name: 'main': the same name as producers[0]"),
    "same address": (PROXIED.replace("10.0.2.10", "10.0.1.10"), "the same address as producers[0]"),
    "same IPv6 address": (
        main_at('"[2001:db8::1]:6000"').replace("10.0.2.10", "[2001:DB8:0::1]"),
        "the same address as producers[0]",
    ),
    "same host name": (main_at("BP.example.:1").replace("10.0.2.10:6000", "bp.example:1"), "the same address"),
    "same socket": (
        PROXIED + "  - {name: proxy-2, socket: /run//haproxy/admin.sock, backend: b}\n",
        "proxies[1].socket: '/run//haproxy/admin.sock': the same socket as proxies[0]",
    ),
    "same stats": (
        proxy() + "  - {name: proxy-2, stats: 'http://10.0.2.5:8404/stats/', backend: b}\n",
        "the same stats as proxies[0]",
    ),
    "same proxy name": (PROXIED + "  - {name: proxy-1, socket: /s, backend: b}\n", "the same name as proxies[0]"),
    "same reference": (PROXIED + "references: ['a.b:1', 'A.b:1']\n", "the same address as references[0]"),
    "own reference": (PROXIED + "references: ['10.0.2.10:6000']\n", "is the address of our producer backup"),
    "no proxies": (
        PROXIED[: PROXIED.index("proxies")],
        "proxies: there is no proxy: nothing could shut a producer out. Mend: add proxies, at least one; or give each "
        "producer gates: [forging] and an agent; or add records, write fence: {require: none}, and see",
    ),
    "empty proxies": (
        PROXIED[: PROXIED.index("proxies")] + "proxies: []\n",
        "failover.yaml:6: proxies: there is no proxy",
    ),
    "neither": (PROXIED.replace("socket: /run/haproxy/admin.sock,", ""), "proxies[0]: has neither socket nor stats"),
    "both": (proxy(socket="/run/s"), "has both socket and stats"),
    "watch": (
        PROXIED.replace("backend:", "watch: producers, backend:"),
        "proxies[0].watch: 'producers': is the same",
    ),
    "unknown producer": (
        proxy(servers="{main: a, backup: b, third: c}"),
        "proxies[0].servers.third: 'c': is not a producer of this pool. Mend: the producers are main, backup.",
    ),
    "producer without server": (proxy(servers="{main: a}"), "proxies[0].servers: has no server for backup"),
    "username alone": (proxy(username="u"), "has a username without a password"),
    "tls on socket": (PROXIED.replace("backend:", "ca_file: /etc/hosts, backend:"), "ca_file goes with stats"),
    "tls without tls": (proxy(ca_file="/etc/hosts").replace("https", "http"), "ca_file has no effect with http://"),
    "confirmed": (
        PROXIED.replace("backend: producers}", "backend: producers, hard_stop_after: 5s}")
        + "fence: {require: confirmed}\n",
        "no gate could ever confirm",
    ),
    "confirmed without a bound": (
        PROXIED + "fence: {require: confirmed, proxies_are_only_path: true}\n",
        "has no hard_stop_after: after a reload nothing could be confirmed any more",
    ),
    "none with a gate": (
        PROXIED + "fence: {require: none}\n",
        "failover.yaml:8: fence.require: 'none': there are proxies, and they are gates. Mend: remove it, or",
    ),
    "none with nothing": (
        PROXIED[: PROXIED.index("proxies")] + "fence: {require: none}\n",
        "fence.require: 'none': there is neither a proxy nor a record: nothing could be moved. Mend: add records",
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_values_that_do_not_go_together_are_refused_in_their_own_words(case: str) -> None:
    text, words = RULES[case]
    message = refused(text)
    assert words in message
    assert message.count("\n") == 0, "one mistake makes one finding"


@pytest.mark.parametrize("key", ["metrics", "schedule", "store", "alerts", "dead_man", "quiet", "companions"])
def test_a_name_kept_for_later_is_not_supported_by_this_version(key: str) -> None:
    assert f"{key}: not supported by this version." in refused(f"{PROXIED}{key}: []\n")


def test_times_that_just_fit_are_accepted_in_spite_of_rounding() -> None:
    text = PROXIED + "health: {interval: 0.1, timeout: 0.1, max_gap: 0.2}\npolicy: {fail_over_after: 0.3}\n"
    assert accepted(text).pool.policy.fail_over_after == 0.3


def test_confirmed_is_accepted_where_proxies_are_the_only_path() -> None:
    bounded = PROXIED.replace("backend: producers}", "backend: producers, hard_stop_after: 5s}")
    text = bounded + "fence: {require: confirmed, proxies_are_only_path: true}\n"
    assert accepted(text).pool.fence.require == "confirmed"


def test_every_mistake_is_named_in_the_order_of_the_file() -> None:
    text = main_at("6000").replace("EXMPL", "1").replace("backend", "bakend") + "health: {timeout: 11s}\nmode: x\n"
    with pytest.raises(InvalidConfig) as caught:
        load_text(text, environ={})
    found = [(finding.line, finding.key) for finding in caught.value.findings]
    assert found == [
        (1, "pool"),
        (4, "producers[0].address"),
        (7, "proxies[0].backend"),
        (7, "proxies[0].bakend"),
        (8, "health.timeout"),
        (9, "mode"),
    ]


def test_a_flood_of_mistakes_is_cut() -> None:
    message = refused(PROXIED + "".join(f"key{i}: 1\n" for i in range(500)))
    assert message.count("\n") == 50
    assert message.endswith("and 450 more findings")


SECRETS = [
    proxy(username="u", password="hunter2"),
    proxy(username="u", passwd="hunter2"),
    proxy(username="u", Pass="hunter2"),
    proxy(username="u", token="[hunter2]"),
    proxy(username="u").replace("watch", "x").replace("username: u", "password:hunter2"),
    proxy().replace("https://", "https://failover:hunter2@"),
    proxy().replace("https://", "ftp://failover:hunter2@"),
    proxy().replace("/stats,", "/stats?password=hunter2,"),
    proxy(username="u", password_file="hunter2"),
    proxy(username="u", password_env="hunter2"),
    proxy(username="failover:hunter2"),
    proxy(username='"!", "password hunter2": 1'),
    proxy(username="u", password="'hunter2"),
    proxy(username="u", password="!hunter2 x"),
    proxy(username="u", password="!hunter2!x x"),
    proxy(username="u", password="*hunter2"),
    proxy(username="u", password="&hunter2 x"),
    proxy(username="u", password="%hunter2"),
    proxy(username="u", password="x: hunter2: y"),
    proxy(username="u", password="{hunter2: {hunter2: 1}}"),
    proxy(username="u", password="1").replace("password: 1", "password: a, password: hunter2"),
    PROXIED + "references: ['failover:hunter2@relay:3001']\n",
    PROXIED + "socket: 'failover:hunter2@relay:3001'\n",
    "password hunter2",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_in_the_file_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_text(text, environ={})
    assert "hunter2" not in f"{caught.value} {caught.value.findings} {caught.value.__cause__!r}"


def test_a_printed_value_is_cut_and_escaped() -> None:
    message = refused(main_at('"' + "x" * 30 + "\\e[31m" + "y" * 5000 + ':1\u202e:"'))
    assert len(message) < 400
    assert "\x1b" not in message
    assert "\u202e" not in message


def warned(text: str) -> set[str]:
    return {finding.key + ": " + finding.problem for finding in accepted(text, environ={"P": "x"}).warnings}


WARNINGS: dict[str, tuple[str, str, str]] = {
    "no references": (PROXIED, PROXIED + "references: ['a:1', 'b:1']\n", "there are no references"),
    "one reference": (
        PROXIED + "references: ['a:1']\n",
        PROXIED + "references: ['a:1', 'b:1']\n",
        "one reference only",
    ),
    "same host": (
        PROXIED + "references: ['a:1', 'A:2']\n",
        PROXIED + "references: ['a:1', 'b:1']\n",
        "all references are at the same host",
    ),
    "no watch": (PROXIED, PROXIED.replace("backend:", "watch: watch, backend:"), "has no watch"),
    "a long hard stop": (
        PROXIED.replace("backend:", "hard_stop_after: 1m, backend:"),
        PROXIED.replace("backend:", "hard_stop_after: 20s, backend:"),
        "a handover is given up after 20 s",
    ),
    "no hard stop": (PROXIED, PROXIED.replace("backend:", "hard_stop_after: 5s, backend:"), "has no hard_stop_after"),
    "clear password": (
        proxy(username="u", password_env="P").replace("https:", "http:"),
        proxy(username="u", password_env="P").replace("https://10.0.2.5", "http://127.0.0.1"),
        "the password crosses the network in the clear",
    ),
    "clear socket": (
        PROXIED.replace("/run/haproxy/admin.sock", "10.0.2.5:9999"),
        PROXIED.replace("/run/haproxy/admin.sock", "localhost:9999"),
        "commands cross the network in the clear",
    ),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_a_warning_is_given_where_it_is_due_and_only_there(case: str) -> None:
    due, without, words = WARNINGS[case]
    assert any(words in warning for warning in warned(due))
    assert not any(words in warning for warning in warned(without))
