"""The shape of the file: its keys, their types and their words, as pydantic models. The JSON Schema comes from here.

A value is checked here by itself only; what must hold between values is in rules.py. Every default is model.py's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from failover.config import scalars
from failover.model import Address, FenceSettings, HealthSettings, LeaseSettings, PolicySettings

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
# "none" is known, so that it can be refused for what it is; the schema does not offer it.
Require = Annotated[str, _choice("reachable", "confirmed", "none"), _enum("reachable", "confirmed")]


def _key(title: str, description: str, example: Any, default: Any = ...) -> Any:
    return Field(default, title=title, description=description, examples=[example])


def _optional(title: str, description: str, example: Any) -> Any:
    """A key that may be left out, but that is not empty where it is written: its schema has no null."""
    return Field(
        None, title=title, description=description, examples=[example], json_schema_extra=lambda s: _without_null(s)
    )


def _without_null(schema: dict[str, Any]) -> None:
    present = [branch for branch in schema.pop("anyOf", []) if branch.get("type") != "null"]
    schema.pop("default", None)
    schema.update(present[0] if len(present) == 1 else {"anyOf": present})


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
        "Require", "Which gates must confirm: those that answer, or all.", "reachable", _FENCE.require
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


class File(Part):
    """One pool's configuration."""

    model_config = ConfigDict(title="cardano-failover configuration")
    pool: Name = _key("Pool", "The pool's ticker or name; every metric carries it.", "EXMPL")
    network: Network = _key("Network", "The Cardano network, by name or by magic.", "mainnet")
    producers: list[ProducerPart] = Field(
        title="Producers",
        description="The pool's block producers in order of preference; the first is the preferred one.",
        examples=[[{"name": "main", "address": "10.0.1.10:6000"}, {"name": "backup", "address": "10.0.2.10:6000"}]],
        json_schema_extra={"minItems": 2, "maxItems": 16},
    )
    proxies: list[ProxyPart] = Field(
        title="Proxies",
        description="The HAProxy instances through which relays reach the producers.",
        examples=[[{"name": "proxy-1", "socket": "/run/haproxy/admin.sock", "backend": "producers"}]],
        json_schema_extra={"minItems": 1, "maxItems": 64},
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
