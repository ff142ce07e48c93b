"""What the file may say of DNS records and of pools without a gate; what is refused, and what deserves a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import TWO, accepted, refused

from failover.config import InvalidConfig, load_text
from failover.model import Address, Record, RecordType, Rfc2136Zone, Route53Zone, RRset

ROUTE53 = (
    f"{TWO}fence: {{require: none}}\n"
    + """\
records:
  - name: bp.example.com.
    addresses: {main: 203.0.113.10, backup: 203.0.113.20}
    ttl: 60
    route53: {zone: Z0123456789ABC}
"""
)
RFC2136 = ROUTE53.replace(
    "route53: {zone: Z0123456789ABC}", "rfc2136: {server: ns1.example.com, zone: example.com., KEY}"
)
SECRET = "aHVudGVyMi1odW50ZXIyLWh1bnRlcjI="  # hunter2, three times
CLAUSE = f'key "bp-key" {{\n\talgorithm hmac-sha512;\n\tsecret "{SECRET}";\n}};\n'
GATED = ROUTE53.replace(
    "fence: {require: none}", "proxies: [{name: p, socket: /run/p.sock, backend: b, watch: w, hard_stop_after: 5s}]"
)
TWO_REFERENCES = "references: ['a:1', 'b:1']\n"


def signed(keys: str = "key_name: bp-key, key_env: KEY") -> str:
    return RFC2136.replace("KEY", keys, 1)


def another(record: str, text: str = ROUTE53) -> str:
    """The file with a second record."""
    return f"{text}  - {{{record}, route53: {{zone: Z0123456789ABC}}}}\n"


def pointing(main: str, backup: str = "203.0.113.20", text: str = ROUTE53) -> str:
    return text.replace("main: 203.0.113.10, backup: 203.0.113.20", f"main: {main}, backup: {backup}")


# ---------------------------------------------------------------- what is accepted


def test_the_smallest_file_without_a_gate_has_one_record_and_every_default() -> None:
    pool = accepted(ROUTE53.replace("    ttl: 60\n", "")).pool
    assert pool.gateless
    assert pool.proxies == ()
    assert pool.records == (
        Record(
            "bp.example.com.",
            "bp.example.com.",
            {"main": "203.0.113.10", "backup": "203.0.113.20"},
            Route53Zone("Z0123456789ABC"),
            60,
        ),
    )


def test_records_stand_beside_proxies() -> None:
    pool = accepted(GATED).pool
    assert not pool.gateless
    assert [record.label for record in pool.records] == ["bp.example.com."]
    assert [proxy.name for proxy in pool.proxies] == ["p"]


@pytest.mark.parametrize(
    ("written", "seconds"), [("60", 60), ("60.0", 60), ("1m", 60), ("90s", 90), ("24h", 86400), ("86400", 86400)]
)
def test_a_ttl_is_read_in_whole_seconds(written: str, seconds: int) -> None:
    (record,) = accepted(ROUTE53.replace("ttl: 60", f"ttl: {written}")).pool.records
    assert record.ttl == seconds


@pytest.mark.parametrize(
    ("main", "backup", "canonical", "types"),
    [
        ("127.0.0.1", "127.0.0.2", "127.0.0.1", {RecordType.A}),
        ("192.168.7.1", "169.254.1.1", "192.168.7.1", {RecordType.A}),
        ('"2001:DB8:0:0::0010"', '"::1"', "2001:db8::10", {RecordType.AAAA}),
        ("BP1.Example.net", "bp2.example.net.", "bp1.example.net.", {RecordType.CNAME}),
        ("home.example.net", "203.0.113.20", "home.example.net.", {RecordType.A, RecordType.CNAME}),
        ('"2001:db8::1"', "home_2.example.net", "2001:db8::1", {RecordType.AAAA, RecordType.CNAME}),
    ],
)
def test_a_target_is_an_address_or_a_name_in_canonical_text(
    main: str, backup: str, canonical: str, types: set[RecordType]
) -> None:
    (record,) = accepted(pointing(main, backup)).pool.records
    assert record.targets["main"] == canonical
    assert record.types == types
    assert record.points_to(record.wanted("main")) == "main"


def test_a_name_is_kept_absolute_and_in_lower_case() -> None:
    (record,) = accepted(ROUTE53.replace("bp.example.com.", "_bp.EXAMPLE.com")).pool.records
    assert (record.name, record.label) == ("_bp.example.com.", "_bp.example.com.")
    assert record.wanted("main") == RRset(RecordType.A, ("203.0.113.10",), 60)


def test_targets_are_in_the_producers_order_whatever_the_files() -> None:
    turned = ROUTE53.replace("{main: 203.0.113.10, backup: 203.0.113.20}", "{backup: 203.0.113.20, main: 203.0.113.10}")
    assert list(accepted(turned).pool.records[0].targets) == ["main", "backup"]


def test_one_name_with_addresses_of_both_families_makes_two_records_that_are_told_apart() -> None:
    text = another('name: BP.example.com, addresses: {main: "2001:db8::1", backup: "2001:db8::2"}')
    records = accepted(another("name: b.example.com, addresses: {main: 10.0.0.1, backup: 10.0.0.2}", text)).pool.records
    assert [record.label for record in records] == ["bp.example.com. A", "bp.example.com. AAAA", "b.example.com."]
    assert [record.name for record in records] == ["bp.example.com.", "bp.example.com.", "b.example.com."]


def test_a_hosted_zone_is_named_by_its_id_with_or_without_the_apis_path() -> None:
    text = ROUTE53.replace(
        "Z0123456789ABC", "/hostedzone/Z1, profile: my-profile, endpoint_url: 'http://127.0.0.1:5000'"
    )
    assert accepted(text).pool.records[0].provider == Route53Zone("Z1", "my-profile", "http://127.0.0.1:5000")


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("10.0.0.2", Address("10.0.0.2", 53)),
        ('"10.0.0.2:5353"', Address("10.0.0.2", 5353)),
        ('"[FD00::1]:54"', Address("fd00::1", 54)),
        ('"[fd00::1]"', Address("fd00::1", 53)),
        ('"fd00::0:1"', Address("fd00::1", 53)),
    ],
)
def test_a_server_to_verify_at_is_an_address_with_port_53_where_none_is_written(written: str, address: Address) -> None:
    asked = accepted(ROUTE53 + f"    verify: {{resolvers: [{written}]}}\n").pool.records[0]
    assert (asked.resolvers, asked.servers) == ((address,), ())
    asked = accepted(ROUTE53 + f"    verify: {{servers: [{written}]}}\n").pool.records[0]
    assert (asked.resolvers, asked.servers) == ((), (address,))


# ---------------------------------------------------------------- keys of dynamic updates


def test_a_secret_alone_is_signed_with_the_files_key_name_and_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    loaded = accepted(signed(f"key_name: BP-key, key_file: {path}").replace("ns1.example.com,", "'10.0.0.1:5353',"))
    zone = Rfc2136Zone(Address("10.0.0.1", 5353), "example.com.", "bp-key.", SECRET, "hmac-sha256")
    assert loaded.pool.records[0].provider == zone
    assert SECRET not in repr(loaded)


def test_a_key_clause_brings_its_own_name_and_algorithm() -> None:
    zone = accepted(signed("key_env: KEY"), environ={"KEY": CLAUSE}).pool.records[0].provider
    assert zone == Rfc2136Zone(Address("ns1.example.com", 53), "example.com.", "bp-key.", SECRET, "hmac-sha512")


def test_a_key_may_also_be_described_where_it_agrees_with_its_clause() -> None:
    text = signed("key_env: KEY, key_name: BP-KEY., algorithm: HMAC-SHA512")
    assert accepted(text, environ={"KEY": CLAUSE}).pool.records[0].provider.key_name == "bp-key."  # type: ignore[union-attr]


PRINTED = """\
key "bp" {
	algorithm hmac-sha384;
	secret "E1sajnwD0oOF+yjmolYfDS9/2BqCcM1ngHYVHxx5iZVKbGmHxPYYYA7PTs/IVl2X";
};
"""  # by tsig-keygen -a hmac-sha384 bp, of BIND 9.18


@pytest.mark.parametrize(
    "text",
    [
        PRINTED,
        f"// for failover\n/* the key\n of bp */ {PRINTED} # no more\n",
        PRINTED.replace('"', ""),
        " ".join(PRINTED.split()).removesuffix(";"),
    ],
)
def test_what_tsig_keygen_prints_is_a_key_as_it_stands(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    zone = accepted(signed(f"key_file: {path}")).pool.records[0].provider
    assert isinstance(zone, Rfc2136Zone)
    assert (zone.key_name, zone.algorithm) == ("bp.", "hmac-sha384")
    assert zone.key == "E1sajnwD0oOF+yjmolYfDS9/2BqCcM1ngHYVHxx5iZVKbGmHxPYYYA7PTs/IVl2X"


KEYS: dict[str, tuple[str, str, str]] = {  # what the file says, what the variable holds, what is said of it
    "no base64": (
        "key_name: k",
        "hunter2!",
        "records[0].rfc2136.key_env: 'KEY': the secret is not base64. Mend: let it",
    ),
    "base64 with a slip": ("key_name: k", "hunter2!x", "the secret is not base64"),
    "no base64 in a clause": ("key_name: k", CLAUSE.replace(SECRET, "hunter2"), "the secret is not base64"),
    "empty base64": ("key_name: k", CLAUSE.replace(SECRET, ""), "the secret is not base64"),
    "nothing": ("key_name: k", " \n", "there is no key in it"),
    "two words": ("key_name: k", f"{SECRET} {SECRET}", "there are several words in it"),
    "two keys": ("key_name: k", CLAUSE * 2, "there are several keys in it. Mend: leave the one that the zone's server"),
    "no end": ("key_name: k", CLAUSE.replace(f'{SECRET}"', "hunter2"), "a quote in it has no end"),
    "no clause": ("key_name: k", "options { hunter2; };", "is not a key clause that can be read"),
    "two secrets": ("key_name: k", CLAUSE.replace("algorithm", "secret"), "needs algorithm and secret, each once"),
    "weak": (
        "key_name: bp-key",
        CLAUSE.replace("sha512", "md5"),
        "the algorithm in the key clause is too weak. Mend: use hmac-sha256, and make a new key for it",
    ),
    "unknown algorithm": (
        "key_name: bp-key",
        CLAUSE.replace("sha512", "sha3"),
        "the algorithm in the key clause must be hmac-sha224, hmac-sha256, hmac-sha384 or hmac-sha512",
    ),
    "another name": (
        "key_name: other",
        CLAUSE,
        "records[0].rfc2136.key_name: 'other': is not what the key itself says, 'bp-key.'. Mend: correct it, or remove",
    ),
    "another algorithm": (
        "algorithm: hmac-sha256",
        CLAUSE,
        "rfc2136.algorithm: 'hmac-sha256': is not what the key itself says, 'hmac-sha512'",
    ),
    "no name": (
        "algorithm: hmac-sha256",
        SECRET,
        "rfc2136.key_env: 'KEY': has the secret alone, and there is no key_name. Mend: add key_name",
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_key_that_is_none_is_refused_and_not_shown(case: str) -> None:
    keys, held, words = KEYS[case]
    message = refused(signed(f"{keys}, key_env: KEY"), environ={"KEY": held})
    assert words in message
    assert message.count("\n") == 0, "one mistake makes one finding"
    assert "hunter2" not in message
    assert SECRET not in message


def test_a_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(CLAUSE)
    for mode in (0o644, 0o640, 0o604):
        path.chmod(mode)
        message = refused(signed(f"key_file: {path}"))
        assert f"records[0].rfc2136.key_file: '{path}': others can read the file (mode {mode:04o})" in message
        assert f"Mend: chmod 600 {path}." in message
    path.chmod(0o600)
    path.write_bytes(b"\xff" * 100)
    assert "the file is not UTF-8 text" in refused(signed(f"key_file: {path}"))
    path.write_bytes(b"x" * 5000)
    assert "the file is larger than 4096 bytes" in refused(signed(f"key_file: {path}"))
    assert "there is no such file" in refused(signed("key_file: /nowhere/key"))
    assert "no such variable. Mend: set it, or use key_file." in refused(signed("key_env: KEY"))


SECRETS = [
    signed("key: hunter2"),
    signed("secret: hunter2"),
    signed("key_secret: hunter2, key_env: KEY"),
    signed("key_file: hunter2"),
    signed("key_env: hunter2"),
    ROUTE53.replace("{zone:", "{secret_access_key: hunter2, zone:"),
    ROUTE53.replace("{zone:", "{endpoint_url: 'https://u:hunter2@h', zone:"),
    ROUTE53.replace("{zone:", "{endpoint_url: 'https://h?token=hunter2', zone:"),
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_of_a_record_is_refused_in_the_file_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_text(text, environ={"KEY": SECRET})
    assert "hunter2" not in f"{caught.value} {caught.value.findings} {caught.value.__cause__!r}"
    assert "Mend: " in str(caught.value)


def test_a_secret_in_the_file_is_sent_to_where_it_belongs() -> None:
    assert "(key_file), or a variable's name (key_env)" in refused(
        signed("key: hunter2, key_env: KEY"), environ={"KEY": SECRET}
    )
    text = ROUTE53.replace("{zone:", "{secret_access_key: hunter2, zone:")
    assert "records[0].route53.secret_access_key: a secret is never written in this file. Mend: name a profile" in (
        refused(text)
    )


# ---------------------------------------------------------------- what is refused


def verified(text: str) -> str:
    return ROUTE53 + f"    verify: {text}\n"


def zoned(**keys: str) -> str:
    return ROUTE53.replace("{zone: Z0123456789ABC}", "{" + ", ".join(f"{k}: {v}" for k, v in keys.items()) + "}")


VALUES: dict[str, tuple[str, str]] = {
    "records is a mapping": (ROUTE53.replace("  - name: bp", "    name: bp"), "records: is a mapping, not a list"),
    "record is text": (ROUTE53 + "  - bp.example.com\n", "records[1]: 'bp.example.com': is text, not a mapping"),
    "no name": (ROUTE53.replace("name: bp.example.com.\n    ", ""), 'is missing. Mend: add it, for example name: "bp.'),
    "no addresses": (
        ROUTE53.replace("    addresses: {main: 203.0.113.10, backup: 203.0.113.20}\n", ""),
        "records[0].addresses: is missing. Mend: add it, for example addresses: {main: 203.0.113.10, backup: 203.0.",
    ),
    "wildcard": (
        ROUTE53.replace("name: bp.example.com.", "name: '*.example.com'"),
        "records[0].name: '*.example.com': is a wildcard, and relays look up one name. Mend: write one whole name",
    ),
    "an address as name": (
        ROUTE53.replace("bp.example.com.", "203.0.113.1"),
        "is an address, not a name. Mend: write a",
    ),
    "relative name": (ROUTE53.replace("bp.example.com.", "bp"), "'bp': has no domain. Mend: write the whole name"),
    "empty label": (
        ROUTE53.replace("bp.example", "bp..example"),
        "is not a name that DNS knows for hosts. Mend: letters",
    ),
    "long label": (ROUTE53.replace("bp.example", "b" * 64 + ".example"), "is not a name that DNS knows for hosts"),
    "long name": (ROUTE53.replace("bp.example", "b." * 130 + "example"), "is not a name that DNS knows for hosts"),
    "umlaut": (ROUTE53.replace("bp.example", "bäp.example"), "other letters in their xn-- form"),
    "number at the end": (ROUTE53.replace("bp.example.com.", "bp.example.1"), "is not a name that DNS knows for hosts"),
    "port in a name": (ROUTE53.replace("bp.example.com.", "'bp.example.com:6000'"), "is not a name that DNS knows"),
    "IPv4 wrong": (
        pointing("203.0.113.300"),
        "records[0].addresses.main: '203.0.113.300': is neither an address nor a name. Mend: write for example 203",
    ),
    "port": (
        pointing("'203.0.113.10:6000'"),
        "'203.0.113.10:6000': has a port, and DNS has none. Mend: write the",
    ),
    "brackets": (pointing("'[2001:db8::1]'"), "'[2001:db8::1]': is in brackets. Mend: write the IPv6 address alone"),
    "IPv6 wrong": (pointing("'2001:::1'"), "has no IPv6 address that can be read. Mend: write it as in 2001:db8::1"),
    "IPv6 zone": (pointing("'fe80::1%eth0'"), "has no IPv6 address that can be read"),
    "IPv4 in IPv6": (pointing("'::ffff:10.0.0.1'"), "is an IPv4 address in IPv6 writing. Mend: write 10.0.0.1."),
    "any IPv4": (
        pointing("0.0.0.0"),
        "records[0].addresses.main: '0.0.0.0': is nobody's address. Mend: write one host's",
    ),
    "any IPv6": (pointing("'::'"), "'::': is nobody's address"),
    "multicast": (pointing("224.0.0.1"), "'224.0.0.1': is a multicast address"),
    "IPv6 multicast": (pointing("'ff02::1'"), "'ff02::1': is a multicast address"),
    "broadcast": (pointing("255.255.255.255"), "'255.255.255.255': is the broadcast address"),
    "relative target": (
        pointing("home"),
        "records[0].addresses.main: 'home': has no domain. Mend: write the whole name",
    ),
    "wildcard target": (pointing("'*.example.net'"), "'*.example.net': is a wildcard"),
    "a number": (pointing("10.1"), "records[0].addresses.main: 10.1: is a number, not an address or a name"),
    "no target": (pointing(""), "records[0].addresses.main: is empty, not an address or a name"),
    "addresses is text": (
        ROUTE53.replace("{main: 203.0.113.10, backup: 203.0.113.20}", "203.0.113.10"),
        "records[0].addresses: '203.0.113.10': is text, not a mapping of keys to values",
    ),
    "TTL 0": (
        ROUTE53.replace("ttl: 60", "ttl: 0"),
        "failover.yaml:10: records[0].ttl: 0: is 0 s, which cardano-node takes for 900 s. Mend: write 60: a node asks",
    ),
    "TTL 0s": (ROUTE53.replace("ttl: 60", "ttl: 0s"), "'0s': is 0 s, which cardano-node takes for 900 s"),
    "TTL below 60": (
        ROUTE53.replace("ttl: 60", "ttl: 59"),
        "records[0].ttl: 59: is shorter than 60 s, and cardano-node asks again after 60 to 900 s. Mend: write 60",
    ),
    "TTL negative": (ROUTE53.replace("ttl: 60", "ttl: -1"), "-1: is shorter than 60 s"),
    "TTL fraction": (ROUTE53.replace("ttl: 60", "ttl: 60.5"), "60.5: is not in whole seconds"),
    "TTL too long": (
        ROUTE53.replace("ttl: 60", "ttl: 25h"),
        "'25h': is longer than a day. Mend: write 60: so long the",
    ),
    "TTL just too long": (ROUTE53.replace("ttl: 60", "ttl: 86401"), "86401: is longer than a day"),
    "TTL infinite": (ROUTE53.replace("ttl: 60", "ttl: .inf"), "is longer than a day"),
    "TTL nan": (ROUTE53.replace("ttl: 60", "ttl: .nan"), "is not a number of seconds"),
    "TTL word": (ROUTE53.replace("ttl: 60", "ttl: short"), "'short': is not a duration. Mend: write 60"),
    "TTL empty": (ROUTE53.replace("ttl: 60", "ttl:"), "records[0].ttl: is empty, not a duration"),
    "unknown key": (
        ROUTE53.replace("addresses:", "address: x\n    addresses:"),
        "records[0].address: the key is unknown. Mend: did you mean addresses? address belongs under agents, "
        "producers or relays.",
    ),
    "key of the zone": (ROUTE53.replace("ttl:", "zone: Z1\n    ttl:"), "zone belongs under route53 or rfc2136"),
    "unknown key in the zone": (
        ROUTE53.replace("{zone:", "{endpoint: x, zone:"),
        "records[0].route53.endpoint: the key is unknown. Mend: did you mean endpoint_url?",
    ),
    "zone is text": (
        ROUTE53.replace("{zone: Z0123456789ABC}", "Z0123456789ABC"),
        "records[0].route53: 'Z0123456789ABC': is text, not a mapping of keys to values",
    ),
    "zone missing": (
        ROUTE53.replace("{zone: Z0123456789ABC}", "{profile: p}"),
        'records[0].route53.zone: is missing. Mend: add it, for example zone: "Z0123456789ABC"',
    ),
    "zone by name": (
        zoned(zone="example.com"),
        "'example.com': is not a hosted zone's id. Mend: copy the id from Route",
    ),
    "zone empty": (ROUTE53.replace("route53: {zone: Z0123456789ABC}", "route53:"), "records[0].route53: is empty"),
    "profile empty": (
        zoned(zone="Z1", profile=""),
        "records[0].route53.profile: is empty. Mend: write a value, or leave",
    ),
    "profile with blanks": (zoned(zone="Z1", profile="' p '"), "cannot be a profile's name"),
    "endpoint in the clear": (
        zoned(zone="Z1", endpoint_url="'http://10.0.0.1:5000'"),
        "records[0].route53.endpoint_url: 'http://10.0.0.1:5000': would send changes over the network in the clear. "
        "Mend: write https://.",
    ),
    "endpoint with a path": (
        zoned(zone="Z1", endpoint_url="'https://h/p'"),
        "has a path. Mend: end the URL after host",
    ),
    "endpoint without scheme": (zoned(zone="Z1", endpoint_url="'h:1'"), "'h:1': must be http:// or https://"),
    "endpoint broken": (zoned(zone="Z1", endpoint_url="'https://[zz/'"), "has no host and port that can be used"),
    "server broken": (
        signed().replace("ns1.example.com,", "'ns1 x',"),
        "has a host that is neither a name nor an IPv4",
    ),
    "server port": (signed().replace("ns1.example.com,", "'ns1:0',"), "has a port that is not between 1 and 65535"),
    "server any": (signed().replace("ns1.example.com,", "0.0.0.0,"), "'0.0.0.0': is nobody's address"),
    "algorithm weak": (
        signed("key_name: k, key_env: KEY, algorithm: hmac-md5"),
        "records[0].rfc2136.algorithm: 'hmac-md5': is too weak. Mend: use hmac-sha256, and make a new key for it",
    ),
    "algorithm sha1": (signed("key_name: k, key_env: KEY, algorithm: HMAC-SHA1"), "'HMAC-SHA1': is too weak"),
    "algorithm full name": (
        signed("key_name: k, key_env: KEY, algorithm: HMAC-MD5.SIG-ALG.REG.INT."),
        "is too weak",
    ),
    "algorithm unknown": (signed("key_name: k, key_env: KEY, algorithm: sha256"), "must be hmac-sha224, hmac-sha256, "),
    "key name": (signed("key_name: k k, key_env: KEY"), "'k k': is not a name that DNS knows for hosts"),
    "resolver is a name": (
        verified("{resolvers: [ns1.example.com]}"),
        "records[0].verify.resolvers[0]: 'ns1.example.com': is a name, and DNS servers are asked by address. Mend:",
    ),
    "resolver unreadable": (
        verified("{resolvers: [10.0.0.300]}"),
        "'10.0.0.300': has a host that is neither a name nor",
    ),
    "resolver port": (verified("{resolvers: ['10.0.0.1:70000']}"), "has a port that is not between 1 and 65535"),
    "resolver is a number": (verified("{resolvers: [53]}"), "53: is a number, not a server. Mend: put it in quotes"),
    "resolvers is text": (
        verified("{resolvers: 10.0.0.2}"),
        "records[0].verify.resolvers: '10.0.0.2': is text, not a",
    ),
    "resolvers empty": (
        verified("{resolvers: }"),
        "records[0].verify.resolvers: is empty. Mend: write a value, or leave",
    ),
    "server is multicast": (verified("{servers: [224.0.0.251]}"), "'224.0.0.251': is a multicast address"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_of_a_record_that_is_wrong_by_itself_is_refused_in_its_own_words(case: str) -> None:
    text, words = VALUES[case]
    message = refused(text, environ={"KEY": SECRET})
    assert words in message
    assert message.count("\n") == 0, "one mistake makes one finding"
    assert "Input should" not in message
    assert "Mend: " in message


RULES: dict[str, tuple[str, str]] = {
    "neither provider": (
        ROUTE53.replace("    route53: {zone: Z0123456789ABC}\n", ""),
        "records[0]: has neither route53 nor rfc2136. Mend: add route53: {zone: ID}, or rfc2136: {server: HOST, zone",
    ),
    "both providers": (
        signed() + "    route53: {zone: Z1}\n",
        "records[0].rfc2136: has both route53 and rfc2136. Mend: keep the one that holds the zone.",
    ),
    "not a producer": (
        pointing("203.0.113.10, third: 203.0.113.30"),
        "records[0].addresses.third: '203.0.113.30': is not a producer of this pool. Mend: the producers are main,",
    ),
    "missing producer": (
        ROUTE53.replace(", backup: 203.0.113.20}", "}"),
        "records[0].addresses: has no address for backup. Mend: add PRODUCER: ADDRESS for each.",
    ),
    "none at all": (
        ROUTE53.replace("{main: 203.0.113.10, backup: 203.0.113.20}", "{}"),
        "records[0].addresses: has no address for main, backup",
    ),
    "the same address": (
        pointing("203.0.113.20"),
        "records[0].addresses.backup: '203.0.113.20': the same as for main: the name would not move. Mend: give each",
    ),
    "the same address otherwise written": (pointing("'2001:db8::1'", "'2001:DB8:0::1'"), "the same as for main"),
    "the same name": (pointing("a.example.net", "A.example.net."), "the same as for main"),
    "families": (
        pointing("203.0.113.10", "'2001:db8::2'"),
        "records[0].addresses.backup: '2001:db8::2': address family mismatch: IPv6 here, and IPv4 for main. Mend: put "
        "every IPv6 address into a second record with the same name.",
    ),
    "own name": (
        pointing("BP.example.com"),
        "records[0].addresses.main: 'BP.example.com': is the record's own name. Mend: write the producer's own name",
    ),
    "another record's name": (
        another("name: b.example.com, addresses: {main: bp.example.com, backup: 10.0.0.2}"),
        "records[1].addresses.main: 'bp.example.com': is the name of records[0], which moves by itself",
    ),
    "outside the zone": (
        signed().replace("name: bp.example.com.", "name: bp.example.org"),
        "records[0].name: 'bp.example.org': is outside the zone 'example.com.'. Mend: correct the name, or",
    ),
    "half a label inside": (
        signed().replace("name: bp.example.com.", "name: bp.myexample.com"),
        "is outside the zone 'example.com.'",
    ),
    "CNAME at the apex": (
        pointing("home.example.net", text=signed().replace("name: bp.", "name: ")),
        "records[0].addresses.main: 'home.example.net': is a name, and the zone's own name cannot be a CNAME",
    ),
    "the same record": (
        another("name: BP.example.com, addresses: {main: 10.0.0.1, backup: 10.0.0.2}"),
        "records[1].name: 'BP.example.com': the same name as records[0]. Mend: remove one of them; a name has two",
    ),
    "names in one of two": (
        another("name: bp.example.com, addresses: {main: '2001:db8::1', backup: b.example.net}"),
        "the same name as records[0]",
    ),
    "a third of one name": (
        another(
            "name: bp.example.com, addresses: {main: '2001:db8::3', backup: '2001:db8::4'}",
            another("name: bp.example.com, addresses: {main: '2001:db8::1', backup: '2001:db8::2'}"),
        ),
        "records[2].name: 'bp.example.com': the same name as records[0]",
    ),
    "seventeen": (
        ROUTE53
        + "".join(another(f"name: b{i}.example.com, addresses: {{main: a.b, backup: b.b}}", "") for i in range(16)),
        "records: there are 17, and at most 16 are allowed",
    ),
    "no key": (
        signed("key_name: k"),
        "records[0].rfc2136: has neither key_file nor key_env, and changes are signed. Mend: add key_file",
    ),
    "two keys": (
        signed("key_name: k, key_env: KEY, key_file: FILE"),
        "records[0].rfc2136.key_env: 'KEY': has both key_file and key_env. Mend: keep one of them.",
    ),
    "verify nowhere": (verified("{}"), "records[0].verify: has neither resolvers nor servers. Mend: add resolvers or"),
    "verify both": (
        verified("{resolvers: [10.0.0.2], servers: [10.0.0.3]}"),
        "records[0].verify.servers: has both resolvers and servers. Mend: keep one of them.",
    ),
    "verify at none": (verified("{resolvers: []}"), "records[0].verify.resolvers: is empty. Mend: write at least one"),
    "verify twice": (
        verified("{resolvers: [10.0.0.2, '10.0.0.2:53']}"),
        "records[0].verify.resolvers[1]: '10.0.0.2:53': the same address as resolvers[0]",
    ),
    "nine resolvers": (
        verified("{resolvers: [" + ", ".join(f"10.0.0.{i}" for i in range(1, 10)) + "]}"),
        "records[0].verify.resolvers: there are 9, and at most 8 are allowed",
    ),
    "seventeen servers": (
        verified("{servers: [" + ", ".join(f"10.0.0.{i}" for i in range(1, 18)) + "]}"),
        "records[0].verify.servers: there are 17, and at most 16 are allowed",
    ),
    "exchanged": (
        pointing("10.0.2.10", "10.0.3.10"),
        "records[0].addresses.main: '10.0.2.10': is where backup listens. Mend: write the address of main; are",
    ),
    "none and the only path": (
        ROUTE53.replace("none}", "none, proxies_are_only_path: true}"),
        "fence.proxies_are_only_path: true: there is no proxy, and so no such path. Mend: remove it.",
    ),
    "no gate and not said": (
        ROUTE53.replace("fence: {require: none}\n", ""),
        "proxies: there is no proxy: nothing could shut a producer out. Mend: add proxies, at least one; or",
    ),
    "around the only path": (
        pointing("10.0.1.10", text=GATED) + "fence: {require: confirmed, proxies_are_only_path: true}\n",
        "records[0].addresses.main: '10.0.1.10': is where main listens: relays that use this name go around the "
        "proxies, and fence.proxies_are_only_path is true. Mend: write the address of a proxy, or set",
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_values_of_records_that_do_not_go_together_are_refused_in_their_own_words(case: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "key").chmod(0o600)
    text, words = RULES[case]
    message = refused(text.replace("FILE", str(tmp_path / "key")), environ={"KEY": SECRET})
    assert words in message
    assert message.count("\n") == 0, "one mistake makes one finding"


def test_a_wrong_producer_or_section_hides_nothing_of_the_records_and_raises_nothing_else() -> None:
    text = pointing("0.0.0.0").replace("{name: backup,", "{name: back up,").replace("require: none", "require: nothing")
    message = refused(another("name: c, addresses: {}", text))
    assert [line.split(": ")[1] for line in message.splitlines()] == [
        "producers[1].name",
        "fence.require",
        "records[0].addresses.main",
        "records[1].name",
    ]


# ---------------------------------------------------------------- warnings


def warned(text: str) -> list[str]:
    return [f"{w.key}: {w.problem}. Mend: {w.mend}" for w in accepted(text, environ={"KEY": SECRET}).warnings]


def test_a_pool_without_a_gate_is_told_what_it_cannot_promise_and_which_gate_would_mend_it() -> None:
    told = warned(ROUTE53 + TWO_REFERENCES)
    assert [line.partition(": ")[0] for line in told] == ["fence.require"] * 3
    for words in (
        "both producers may forge at the same time",
        "stay with it after a handover",
        "that is this controller alone; it goes back only by hand",
    ):
        assert any(words in line for line in told)
    assert all("put a HAProxy in front of the producers" in line for line in told)
    assert any("`failover render haproxy`" in line for line in told)


WARNINGS: dict[str, tuple[str, str, str]] = {
    "no gate": (ROUTE53, GATED, "nothing can shut a producer out"),
    "no reference": (
        ROUTE53,
        ROUTE53 + TWO_REFERENCES,
        "references: there are no references: this pool fails over by the controller's own pings alone, so that "
        "a fault between it and a producer that works makes two forge",
    ),
    "one reference": (
        ROUTE53 + "references: ['a:1']\n",
        ROUTE53 + TWO_REFERENCES,
        "there is one reference only: when it fails, the controller takes itself for isolated, and with no gate it is",
    ),
    "one reference beside gates": (
        ROUTE53 + "references: ['a:1']\n",
        GATED + "references: ['a:1']\n",
        "and with no gate it is all that tells",
    ),
    "fail back": (
        ROUTE53 + "policy: {fail_back: auto}\n",
        ROUTE53 + "policy: {fail_back: manual}\n",
        "policy.fail_back: has no effect: a pool without a gate goes back only by hand, unless all its",
    ),
    "fail back by default": (ROUTE53 + "policy: {fail_back: auto}\n", ROUTE53, "policy.fail_back"),
    "fail back with a gate": (
        ROUTE53 + "policy: {fail_back: auto}\n",
        GATED + "policy: {fail_back: auto}\n",
        "policy.fail_back",
    ),
    "a long TTL": (
        ROUTE53.replace("ttl: 60", "ttl: 301"),
        ROUTE53.replace("ttl: 60", "ttl: 5m"),
        "records[0].ttl: after a handover, resolvers may hold on to the old address for ",
    ),
    "how long": (
        ROUTE53.replace("ttl: 60", "ttl: 301"),
        ROUTE53,
        "for 301 s, and cardano-node for its own 60 to 900 s on top. Mend: lower it; 60 is the shortest that",
    ),
    "link-local": (
        pointing("169.254.1.1"),
        pointing("127.0.0.1"),
        "records[0].addresses.main: is a link-local address: it means nothing beyond its own link",
    ),
    "link-local IPv6": (pointing("'fe80::1'", "'fd00::2'"), pointing("'::1'", "'fd00::2'"), "is a link-local address"),
    "around the proxies": (
        pointing("10.0.2.10", "10.0.9.9", GATED),
        pointing("10.0.8.8", "10.0.9.9", GATED),
        "records[0].addresses.main: is where backup listens: relays that use this name go around the proxies, and no "
        "gate shuts anyone out there. Mend: write the address of a proxy, or let no relay use this name",
    ),
    "a producer's own name": (
        pointing("BP1.example.net", text=GATED.replace("10.0.1.10:6000", "bp1.example.net.:6000")),
        pointing("10.0.1.10", text=ROUTE53),
        "go around the proxies",
    ),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_a_warning_about_records_is_given_where_it_is_due_and_only_there(case: str) -> None:
    due, without, words = WARNINGS[case]
    assert any(words in line for line in warned(due))
    assert not any(words in line for line in warned(without))
