"""The shape of the file: its keys, their types and their words, as pydantic models. The JSON Schema comes from here.

A value is checked here by itself only; what must hold between values is in rules.py. Every default is model.py's.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from failover.config import dns, scalars
from failover.model import Address, FenceSettings, HealthSettings, LeaseSettings, PolicySettings, Record

MOST_RECORDS, MOST_RESOLVERS, MOST_SERVERS = 16, 8, 16
MOST_LAG = 129_600  # slots: 3k/f on mainnet, the window beyond which a node cannot follow at all


def _text(pattern: str) -> Any:
    return WithJsonSchema({"type": "string", "pattern": pattern})


_ADDRESS_PATTERN = r"^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$"
_DURATION_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": scalars.DURATION_PATTERN},
        {"type": "number", "minimum": scalars.LEAST_SECONDS, "maximum": scalars.MOST_SECONDS},
    ]
}
_NETWORK_SCHEMA = {
    "anyOf": [
        {"type": "string", "enum": list(scalars.NETWORKS)},
        {
            "type": "object",
            "title": "Network by its magic",
            "description": "A network that is not known by name.",
            "examples": [{"magic": 42}],
            "properties": {
                "magic": {
                    "title": "Network magic",
                    "description": "The number that the network's nodes exchange in the handshake.",
                    "examples": [42],
                    "type": "integer",
                    "minimum": 0,
                    "maximum": 2**32 - 1,
                }
            },
            "required": ["magic"],
            "additionalProperties": False,
        },
    ]
}
_SERVERS_SCHEMA = {
    "type": "object",
    "propertyNames": {"pattern": scalars.NAME_PATTERN},
    "additionalProperties": {"type": "string", "pattern": scalars.HAPROXY_PATTERN},
}

_TTL_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": scalars.DURATION_PATTERN},
        {"type": "integer", "minimum": dns.LEAST_TTL, "maximum": dns.MOST_TTL},
    ]
}
_TARGETS_SCHEMA = {
    "type": "object",
    "propertyNames": {"pattern": scalars.NAME_PATTERN},
    "additionalProperties": {"type": "string", "pattern": dns.TARGET_PATTERN},
}

Duration = Annotated[float, PlainValidator(scalars.duration), WithJsonSchema(_DURATION_SCHEMA)]
Name = Annotated[str, PlainValidator(scalars.name), _text(scalars.NAME_PATTERN)]
HaproxyName = Annotated[str, PlainValidator(scalars.haproxy_name), _text(scalars.HAPROXY_PATTERN)]
AddressText = Annotated[Address, PlainValidator(scalars.address), _text(_ADDRESS_PATTERN)]
Flag = Annotated[bool, PlainValidator(scalars.flag), WithJsonSchema({"type": "boolean"})]
Network = Annotated[tuple[str, int], PlainValidator(scalars.network), WithJsonSchema(_NETWORK_SCHEMA)]
Socket = Annotated[
    Path | Address,
    PlainValidator(scalars.socket),
    _text(r"^(?:/.*|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}|[A-Za-z0-9_.-]+:[0-9]{1,5})$"),
]
Stats = Annotated[str, PlainValidator(scalars.stats), _text(r"^https?://[^@?#\s]+$")]
Servers = Annotated[dict[str, str], PlainValidator(scalars.servers), WithJsonSchema(_SERVERS_SCHEMA)]
Username = Annotated[str, PlainValidator(scalars.username), _text(r"^[^:]{1,128}$")]
Variable = Annotated[str, PlainValidator(scalars.variable), _text(scalars.ENVIRON_PATTERN)]
ABSOLUTE = _text("^/")
DnsName = Annotated[str, PlainValidator(dns.name), _text(dns.NAME_PATTERN)]
Targets = Annotated[dict[str, Annotated[str, PlainValidator(dns.target)]], WithJsonSchema(_TARGETS_SCHEMA)]
Ttl = Annotated[int, PlainValidator(dns.ttl), WithJsonSchema(_TTL_SCHEMA)]
ZoneId = Annotated[str, PlainValidator(dns.zone_id), _text(dns.ZONE_ID_PATTERN)]
ZoneName = Annotated[str, PlainValidator(dns.zone), _text(dns.ZONE_PATTERN)]
Profile = Annotated[str, PlainValidator(dns.profile), _text(dns.PROFILE_PATTERN)]
EndpointUrl = Annotated[str, PlainValidator(dns.endpoint_url), _text(r"^https?://[^@?#/\s]+/?$")]
DnsServer = Annotated[Address, PlainValidator(dns.server), _text(dns.SERVER_PATTERN)]
LiteralServer = Annotated[Address, PlainValidator(dns.literal_server), _text(dns.LITERAL_PATTERN)]
KeyName = Annotated[str, PlainValidator(dns.key_name), _text(dns.ZONE_PATTERN)]


def _choice(*choices: str) -> PlainValidator:
    return PlainValidator(partial(scalars.choice, choices=choices))


def _enum(*choices: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(choices)})


def _count(most: int, example: str) -> PlainValidator:
    return PlainValidator(partial(scalars.count, least=1, most=most, example=example))


def _integer(most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": 1, "maximum": most})


def _path(what: str, example: str, *, hidden: bool = False) -> PlainValidator:
    return PlainValidator(partial(scalars.path, what=what, example=example, hidden=hidden))


Mode = Annotated[str, _choice("act", "observe"), _enum("act", "observe")]
FailBack = Annotated[str, _choice("auto", "manual"), _enum("auto", "manual")]
Misses = Annotated[int, _count(100, "3"), _integer(100)]
Slots = Annotated[int, _count(MOST_LAG, "60"), _integer(MOST_LAG)]
Folder = Annotated[Path, _path("a folder's path", "/var/lib/failover"), ABSOLUTE]
Pem = Annotated[Path, _path("a file's path", "/etc/failover/ca.pem"), ABSOLUTE]
PasswordFile = Annotated[Path, _path("a file's path", "/etc/failover/proxy-2.password", hidden=True), ABSOLUTE]
KeyFile = Annotated[Path, _path("a file's path", "/etc/failover/bp.key", hidden=True), ABSOLUTE]
Algorithm = Annotated[str, PlainValidator(dns.algorithm), _enum(*dns.ALGORITHMS)]
Require = Annotated[str, _choice("reachable", "confirmed", "none"), _enum("reachable", "confirmed", "none")]


def _key(title: str, description: str, example: Any, default: Any = ...) -> Any:
    return Field(default, title=title, description=description, examples=[example])


def _optional(title: str, description: str, example: Any, **bounds: int) -> Any:
    """A key that may be left out, but that is not empty where it is written: its schema has no null."""
    extra = partial(_without_null, bounds=bounds)
    return Field(None, title=title, description=description, examples=[example], json_schema_extra=extra)


def _without_null(schema: dict[str, Any], bounds: dict[str, int]) -> None:
    present = [branch for branch in schema.pop("anyOf", []) if branch.get("type") != "null"]
    schema.pop("default", None)
    schema.update(present[0] if len(present) == 1 else {"anyOf": present})
    schema.update(bounds)


class Part(BaseModel):
    """A mapping of the file. Keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ProducerPart(Part):
    """A block producer of the pool."""

    model_config = ConfigDict(title="Producer")
    name: Name = _key("Name", "How commands, metrics and the journal call this producer.", "main")
    address: AddressText = _key(
        "Address", "Where its node listens: host:port or [v6]:port, in quotes.", "10.0.1.10:6000"
    )
    site: Name | None = _optional("Site", "Where it stands; producers at different sites fail apart.", "home")


def _one_way_in(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": ["socket"]}, {"required": ["stats"]}]
    schema["dependentRequired"] = {"cert_file": ["key_file"], "key_file": ["cert_file"]}


class ProxyPart(Part):
    """A HAProxy that leads to the producers: by its runtime socket or by its stats page."""

    model_config = ConfigDict(title="Proxy", json_schema_extra=_one_way_in)
    name: Name = _key("Name", "How commands, metrics and the journal call this proxy.", "proxy-1")
    backend: HaproxyName = _key("Backend", "The backend whose servers are the producers.", "producers")
    socket: Socket | None = _optional(
        "Socket", "The runtime API: a unix socket's absolute path, or host:port.", "/run/haproxy/admin.sock"
    )
    stats: Stats | None = _optional(
        "Stats page",
        "The URL of the stats page with admin rights, without a user inside.",
        "https://10.0.2.5:8404/stats",
    )
    username: Username | None = _optional("User", "The stats page's user (HTTP basic authentication).", "failover")
    password_file: PasswordFile | None = _optional(
        "Password file", "A file with the password alone, readable by its owner only.", "/etc/failover/proxy-2.password"
    )
    password_env: Variable | None = _optional(
        "Password variable", "The environment variable with the password, instead of a file.", "PROXY_2_PASSWORD"
    )
    ca_file: Pem | None = _optional(
        "CA file", "The certificates (PEM) that the stats page's own must chain to.", "/etc/failover/ca.pem"
    )
    cert_file: Pem | None = _optional(
        "Client certificate", "The certificate (PEM) that we show to the stats page.", "/etc/failover/client.pem"
    )
    key_file: Pem | None = _optional(
        "Client key", "The client certificate's key (PEM), readable by its owner only.", "/etc/failover/client.key"
    )
    watch: HaproxyName | None = _optional(
        "Watch backend", "The unrouted backend whose servers are always checked, also in maintenance.", "watch"
    )
    hard_stop_after: Duration | None = _optional(
        "Hard stop after", "As in HAProxy's configuration: bounds how long a reload can hide old sessions.", "5s"
    )
    servers: Servers | None = _optional(
        "Servers",
        "HAProxy's server for each producer; the producers' own names when left out.",
        {"main": "bp1", "backup": "bp2"},
    )


def _one_of(*keys: str) -> dict[str, Any]:
    return {"oneOf": [{"required": [key]} for key in keys]}


class Route53Part(Part):
    """A hosted zone of Amazon Route 53."""

    model_config = ConfigDict(title="Route 53")
    zone: ZoneId = _key("Zone", "The hosted zone's id, not its name.", "Z0123456789ABC")
    profile: Profile | None = _optional(
        "Profile", "The profile of the AWS configuration whose credentials are used.", "failover"
    )
    endpoint_url: EndpointUrl | None = _optional(
        "Endpoint", "Another endpoint than Amazon's; http:// on this machine only.", "https://route53.amazonaws.com"
    )


class Rfc2136Part(Part):
    """A zone whose primary server takes dynamic updates signed with TSIG."""

    model_config = ConfigDict(title="RFC 2136", json_schema_extra=_one_of("key_file", "key_env"))
    server: DnsServer = _key("Server", "The zone's primary: host, or host:port; port 53 otherwise.", "ns1.example.com")
    zone: ZoneName = _key("Zone", "The zone's name.", "example.com.")
    key_name: KeyName | None = _optional(
        "Key name", "The TSIG key's name; may be left out where the key's file says it.", "bp-key"
    )
    key_file: KeyFile | None = _optional(
        "Key file",
        "A file, readable by its owner only, with the key as tsig-keygen prints it, or with the base64 secret alone.",
        "/etc/failover/bp.key",
    )
    key_env: Variable | None = _optional(
        "Key variable", "The environment variable with the key, instead of a file.", "BP_KEY"
    )
    algorithm: Algorithm | None = _optional(
        "Algorithm", "The TSIG algorithm; hmac-sha256 where neither this nor the key's file says it.", "hmac-sha256"
    )


class VerifyPart(Part):
    """Whom to ask what the world is told of a record; its zone's authoritative servers when left out."""

    model_config = ConfigDict(title="Verify", json_schema_extra=_one_of("resolvers", "servers"))
    resolvers: list[LiteralServer] | None = _optional(
        "Resolvers",
        "Resolvers to ask instead of authoritative servers: private zones answer inside their network only.",
        ["10.0.0.2", "[fd00::1]:53"],
        minItems=1,
        maxItems=MOST_RESOLVERS,
    )
    servers: list[LiteralServer] | None = _optional(
        "Servers",
        "The zone's authoritative servers, where they cannot be found through DNS.",
        ["198.51.100.1", "198.51.100.2:5353"],
        minItems=1,
        maxItems=MOST_SERVERS,
    )


_RECORD = {field.name: field.default for field in fields(Record)}


class RecordPart(Part):
    """A DNS record that points at the active producer. It shuts nobody out."""

    model_config = ConfigDict(title="Record", json_schema_extra=_one_of("route53", "rfc2136"))
    name: DnsName = _key("Name", "The record's whole name; the last dot may be left out.", "bp.example.com.")
    addresses: Targets = _key(
        "Addresses",
        "What the name points at while each producer is active: an IPv4 or IPv6 address, or a host's name (CNAME).",
        {"main": "203.0.113.10", "backup": "203.0.113.20"},
    )
    ttl: Ttl = _key("TTL", "How long resolvers may keep an answer, from 60 s to a day.", 60, _RECORD["ttl"])
    route53: Route53Part | None = _optional("Route 53", Route53Part.__doc__ or "", {"zone": "Z0123456789ABC"})
    rfc2136: Rfc2136Part | None = _optional(
        "RFC 2136",
        Rfc2136Part.__doc__ or "",
        {"server": "ns1.example.com", "zone": "example.com.", "key_file": "/etc/failover/bp.key"},
    )
    verify: VerifyPart | None = _optional("Verify", VerifyPart.__doc__ or "", {"resolvers": ["10.0.0.2"]})


_HEALTH, _POLICY, _FENCE, _LEASE = HealthSettings(), PolicySettings(), FenceSettings(), LeaseSettings()


class HealthPart(Part):
    """How producers are pinged and judged."""

    model_config = ConfigDict(title="Health")
    interval: Duration = _key("Interval", "From one ping to the next.", "10s", _HEALTH.interval)
    timeout: Duration = _key("Timeout", "For a whole ping: name, connection, handshake, tip.", "5s", _HEALTH.timeout)
    fall: Misses = _key("Fall", "Failed pings in a row that make a producer down.", 3, _HEALTH.fall)
    rise: Misses = _key("Rise", "Good pings in a row that make it up again.", 2, _HEALTH.rise)
    max_gap: Duration = _key("Longest gap", "A longer gap in observing restarts the timers.", "30s", _HEALTH.max_gap)
    max_lag: Slots = _key(
        "Largest lag", "Slots that a producer may be behind the best tip and still be fit.", 60, _HEALTH.max_lag
    )


class PolicyPart(Part):
    """When the role moves by itself."""

    model_config = ConfigDict(title="Policy")
    fail_over_after: Duration = _key(
        "Fail over after",
        "How long the active producer is down before another takes over.",
        "5m",
        _POLICY.fail_over_after,
    )
    fail_back_after: Duration = _key(
        "Fail back after",
        "How long the preferred producer is fit before it gets the role back.",
        "30m",
        _POLICY.fail_back_after,
    )
    fail_back: FailBack = _key("Fail back", "Whether the role goes back by itself.", "auto", _POLICY.fail_back)


class FencePart(Part):
    """What confirms that a producer is shut out."""

    model_config = ConfigDict(title="Fence")
    require: Require = _key(
        "Require",
        "Which gates must confirm: those that answer, or all; none where there are records only, and no gate.",
        "reachable",
        _FENCE.require,
    )
    proxies_are_only_path: Flag = _key(
        "Proxies are the only path",
        "Whether relays reach producers through these proxies only, so that closed proxies truly fence.",
        False,
        _FENCE.proxies_are_only_path,
    )


class LeasePart(Part):
    """Who decides, and for how long."""

    model_config = ConfigDict(title="Lease")
    duration: Duration = _key("Duration", "How long the decider decides without renewing.", "60s", _LEASE.duration)
    renew: Duration = _key("Renew", "How often it renews.", "20s", _LEASE.renew)
    action_timeout: Duration = _key("Action timeout", "How long a step may take.", "10s", _LEASE.action_timeout)


def _gates_or_none(schema: dict[str, Any]) -> None:
    """Proxies are required; or, with ``fence.require: none``, records, and then there are no proxies."""
    none = {"properties": {"require": {"const": "none"}}, "required": ["require"]}
    schema["if"] = {"properties": {"fence": none}, "required": ["fence"]}
    schema["then"] = {
        "properties": {"proxies": {"maxItems": 0}, "records": {"minItems": 1}},
        "required": ["records"],
    }
    schema["else"] = {"properties": {"proxies": {"minItems": 1}}, "required": ["proxies"]}


class File(Part):
    """One pool's configuration."""

    model_config = ConfigDict(title="cardano-failover configuration", json_schema_extra=_gates_or_none)
    pool: Name = _key("Pool", "The pool's ticker or name; every metric carries it.", "EXMPL")
    network: Network = _key("Network", "The Cardano network, by name or by magic.", "mainnet")
    producers: list[ProducerPart] = Field(
        title="Producers",
        description="The pool's block producers in order of preference; the first is the preferred one.",
        examples=[[{"name": "main", "address": "10.0.1.10:6000"}, {"name": "backup", "address": "10.0.2.10:6000"}]],
        json_schema_extra={"minItems": 2, "maxItems": 16},
    )
    proxies: list[ProxyPart] = Field(
        [],
        title="Proxies",
        description="The HAProxy instances through which relays reach the producers.",
        examples=[[{"name": "proxy-1", "socket": "/run/haproxy/admin.sock", "backend": "producers"}]],
        json_schema_extra={"maxItems": 64},
    )
    records: list[RecordPart] = Field(
        [],
        title="Records",
        description="The DNS records that point at the active producer.",
        examples=[
            [
                {
                    "name": "bp.example.com.",
                    "addresses": {"main": "203.0.113.10", "backup": "203.0.113.20"},
                    "route53": {"zone": "Z0123456789ABC"},
                }
            ]
        ],
        json_schema_extra={"maxItems": MOST_RECORDS},
    )
    references: list[AddressText] = Field(
        [],
        title="References",
        description="Peers that are not ours: tips to compare with, and whether the network's fault is our own.",
        examples=[["relay.example.org:3001"]],
        json_schema_extra={"maxItems": 32},
    )
    mode: Mode = _key("Mode", "act, or observe: everything but steps.", "act", "act")
    state: Folder = Field(
        Path("/var/lib/failover"),
        title="State folder",
        description="Where assignment and journal are kept; an absolute path, never on a network file system.",
        examples=["/var/lib/failover"],
    )
    listen: AddressText = Field(
        Address("127.0.0.1", 9465),
        title="Listen",
        description="Where metrics, health and status are served.",
        examples=["127.0.0.1:9465"],
        json_schema_extra={"default": "127.0.0.1:9465"},
    )
    health: HealthPart = Field(
        HealthPart(), title="Health", description=HealthPart.__doc__, examples=[{"interval": "10s"}]
    )
    policy: PolicyPart = Field(
        PolicyPart(), title="Policy", description=PolicyPart.__doc__, examples=[{"fail_over_after": "5m"}]
    )
    fence: FencePart = Field(
        FencePart(), title="Fence", description=FencePart.__doc__, examples=[{"require": "reachable"}]
    )
    lease: LeasePart = Field(LeasePart(), title="Lease", description=LeasePart.__doc__, examples=[{"duration": "60s"}])


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **File.model_json_schema()}
