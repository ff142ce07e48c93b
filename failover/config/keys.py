"""The types of the file's keys: how each value is checked, and what the JSON Schema says of it.

A value is checked here by itself only. shape.py puts these together to the parts of the file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from failover.config import dns, scalars, ssh
from failover.model import Address, GateKind, Nudge

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

_COMMAND_SCHEMA = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": scalars.LONGEST_WORD},
    "prefixItems": [{"type": "string", "pattern": "^/", "maxLength": scalars.LONGEST_WORD}],
    "minItems": 1,
    "maxItems": scalars.MOST_WORDS,
}
_REACHED_SCHEMA = {
    "type": "object",
    "propertyNames": {"pattern": scalars.NAME_PATTERN},
    "additionalProperties": {"type": "string", "pattern": _ADDRESS_PATTERN},
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
UnixUser = Annotated[str, PlainValidator(ssh.user), _text(ssh.USER_PATTERN)]
HostKey = Annotated[str, PlainValidator(ssh.host_key), _text(ssh.HOST_KEY_PATTERN)]
Command = Annotated[tuple[str, ...], PlainValidator(scalars.command), WithJsonSchema(_COMMAND_SCHEMA)]
Metrics = Annotated[str, PlainValidator(scalars.metrics), _text(r"^https?://[^@?#\s]+$")]
Reached = Annotated[dict[str, Annotated[Address, PlainValidator(scalars.address)]], WithJsonSchema(_REACHED_SCHEMA)]


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
SshKeyFile = Annotated[Path, _path("a file's path", "/etc/failover/agent.key", hidden=True), ABSOLUTE]
HostGate = Annotated[str, PlainValidator(scalars.host_gate), _enum(GateKind.FORGING, GateKind.FIREWALL)]
Restart = Annotated[str, _choice(*Nudge), _enum(*Nudge)]
Algorithm = Annotated[str, PlainValidator(dns.algorithm), _enum(*dns.ALGORITHMS)]
Require = Annotated[str, _choice("reachable", "confirmed", "none"), _enum("reachable", "confirmed", "none")]


def key(title: str, description: str, example: Any, default: Any = ...) -> Any:
    """A key that is required, or has this default."""
    return Field(default, title=title, description=description, examples=[example])


def optional(title: str, description: str, example: Any, **bounds: int) -> Any:
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
