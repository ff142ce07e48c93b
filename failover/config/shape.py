"""The shape of the file: its keys, their defaults and their words, as pydantic models. The JSON Schema comes from here.

The types of the keys are in keys.py; what must hold between values is in rules.py. Every default is model.py's.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from failover.config.keys import (
    AddressText,
    Algorithm,
    Command,
    DnsName,
    DnsServer,
    Duration,
    EndpointUrl,
    FailBack,
    Flag,
    Folder,
    HaproxyName,
    HostGate,
    HostKey,
    KeyFile,
    KeyName,
    LiteralServer,
    Metrics,
    Misses,
    Mode,
    Name,
    Network,
    Part,
    PasswordFile,
    Pem,
    Profile,
    Reached,
    Require,
    Restart,
    Servers,
    Slots,
    Socket,
    SshKeyFile,
    Stats,
    Targets,
    Ttl,
    UnixUser,
    Username,
    Variable,
    ZoneId,
    ZoneName,
    key,
    optional,
)
from failover.model import (
    Address,
    Agent,
    FenceSettings,
    HealthSettings,
    LeaseSettings,
    Nudge,
    PolicySettings,
    Record,
)

MOST_RECORDS, MOST_RESOLVERS, MOST_SERVERS = 16, 8, 16
MOST_AGENTS, MOST_RELAYS = 80, 64  # an agent for each of 16 producers and 64 relays

_OFF = ["/usr/bin/ipmitool", "-H", "10.0.9.1", "-U", "failover", "-f", "/etc/failover/ipmi.password", "power", "off"]
_AGENT = {field.name: field.default for field in fields(Agent)}
_HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDlgoeIxgbm5yQhp1SvZ7yrNEOi1ZOmJ3o3YLuRVPjVC"
_STATUS, _ON = [*_OFF[:-1], "status"], [*_OFF[:-1], "on"]


def _one_of(*keys: str) -> dict[str, Any]:
    return {"oneOf": [{"required": [key]} for key in keys]}


class AgentPart(Part):
    """A host on which the agent runs; it is reached over SSH."""

    model_config = ConfigDict(title="Agent", json_schema_extra=_one_of("host_key", "known_hosts"))
    name: Name = key("Name", "How producers and relays of this file, and the journal, call this host.", "bp1")
    address: AddressText = key("Address", "Where its sshd listens: host:port or [v6]:port, in quotes.", "10.0.1.10:22")
    user: UnixUser = key(
        "User", "Who we are there; sshd lets this user start the agent only.", "failover", _AGENT["user"]
    )
    key_file: SshKeyFile = key(
        "Key file",
        "The OpenSSH private key, without a passphrase, readable by its owner only.",
        "/etc/failover/agent.key",
    )
    host_key: HostKey | None = optional(
        "Host key", "The only key by which the host is known: its type and base64, as in its .pub file.", _HOST_KEY
    )
    known_hosts: Pem | None = optional(
        "Known hosts", "An OpenSSH known_hosts file that has the host's key, instead.", "/etc/failover/known_hosts"
    )


class PowerPart(Part):
    """Commands that switch a producer's machine, run here without a shell: lists of words."""

    model_config = ConfigDict(title="Power")
    off: Command = key("Off", "Switches the machine off. It is believed only once status says so.", _OFF)
    status: Command = key("Status", "Says how it stands: the last word that it prints is on or off.", _STATUS)
    on: Command | None = optional("On", "Switches it on; left out, somebody does that by hand.", _ON)


def _agent_for_gates(schema: dict[str, Any]) -> None:
    schema["dependentRequired"] = {"gates": ["agent"]}


class ProducerPart(Part):
    """A block producer of the pool."""

    model_config = ConfigDict(title="Producer", json_schema_extra=_agent_for_gates)
    name: Name = key("Name", "How commands, metrics and the journal call this producer.", "main")
    address: AddressText = key(
        "Address", "Where its node listens: host:port or [v6]:port, in quotes.", "10.0.1.10:6000"
    )
    site: Name | None = optional("Site", "Where it stands; producers at different sites fail apart.", "home")
    agent: Name | None = optional("Agent", "The agent on its host, by its name in agents.", "bp1")
    gates: list[HostGate] | None = optional(
        "Gates",
        "What the agent can shut on this host: forging (the node has its credentials or none), firewall (its blocks"
        " are let out or dropped).",
        ["forging"],
        minItems=1,
        maxItems=2,
        uniqueItems=True,
    )
    power: PowerPart | None = optional("Power", PowerPart.__doc__ or "", {"off": _OFF, "status": _STATUS})
    metrics: Metrics | None = optional(
        "Metrics",
        "The URL of its node's metrics; left out, they are what the agent tells.",
        "http://10.0.1.10:12798/metrics",
    )


def _one_way_in(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": ["socket"]}, {"required": ["stats"]}]
    schema["dependentRequired"] = {"cert_file": ["key_file"], "key_file": ["cert_file"]}


class ProxyPart(Part):
    """A HAProxy that leads to the producers: by its runtime socket or by its stats page."""

    model_config = ConfigDict(title="Proxy", json_schema_extra=_one_way_in)
    name: Name = key("Name", "How commands, metrics and the journal call this proxy.", "proxy-1")
    backend: HaproxyName = key("Backend", "The backend whose servers are the producers.", "producers")
    socket: Socket | None = optional(
        "Socket", "The runtime API: a unix socket's absolute path, or host:port.", "/run/haproxy/admin.sock"
    )
    stats: Stats | None = optional(
        "Stats page",
        "The URL of the stats page with admin rights, without a user inside.",
        "https://10.0.2.5:8404/stats",
    )
    username: Username | None = optional("User", "The stats page's user (HTTP basic authentication).", "failover")
    password_file: PasswordFile | None = optional(
        "Password file", "A file with the password alone, readable by its owner only.", "/etc/failover/proxy-2.password"
    )
    password_env: Variable | None = optional(
        "Password variable", "The environment variable with the password, instead of a file.", "PROXY_2_PASSWORD"
    )
    ca_file: Pem | None = optional(
        "CA file", "The certificates (PEM) that the stats page's own must chain to.", "/etc/failover/ca.pem"
    )
    cert_file: Pem | None = optional(
        "Client certificate", "The certificate (PEM) that we show to the stats page.", "/etc/failover/client.pem"
    )
    key_file: Pem | None = optional(
        "Client key", "The client certificate's key (PEM), readable by its owner only.", "/etc/failover/client.key"
    )
    watch: HaproxyName | None = optional(
        "Watch backend", "The unrouted backend whose servers are always checked, also in maintenance.", "watch"
    )
    hard_stop_after: Duration | None = optional(
        "Hard stop after", "As in HAProxy's configuration: bounds how long a reload can hide old sessions.", "5s"
    )
    servers: Servers | None = optional(
        "Servers",
        "HAProxy's server for each producer; the producers' own names when left out.",
        {"main": "bp1", "backup": "bp2"},
    )


class Route53Part(Part):
    """A hosted zone of Amazon Route 53."""

    model_config = ConfigDict(title="Route 53")
    zone: ZoneId = key("Zone", "The hosted zone's id, not its name.", "Z0123456789ABC")
    profile: Profile | None = optional(
        "Profile", "The profile of the AWS configuration whose credentials are used.", "failover"
    )
    endpoint_url: EndpointUrl | None = optional(
        "Endpoint", "Another endpoint than Amazon's; http:// on this machine only.", "https://route53.amazonaws.com"
    )


class Rfc2136Part(Part):
    """A zone whose primary server takes dynamic updates signed with TSIG."""

    model_config = ConfigDict(title="RFC 2136", json_schema_extra=_one_of("key_file", "key_env"))
    server: DnsServer = key("Server", "The zone's primary: host, or host:port; port 53 otherwise.", "ns1.example.com")
    zone: ZoneName = key("Zone", "The zone's name.", "example.com.")
    key_name: KeyName | None = optional(
        "Key name", "The TSIG key's name; may be left out where the key's file says it.", "bp-key"
    )
    key_file: KeyFile | None = optional(
        "Key file",
        "A file, readable by its owner only, with the key as tsig-keygen prints it, or with the base64 secret alone.",
        "/etc/failover/bp.key",
    )
    key_env: Variable | None = optional(
        "Key variable", "The environment variable with the key, instead of a file.", "BP_KEY"
    )
    algorithm: Algorithm | None = optional(
        "Algorithm", "The TSIG algorithm; hmac-sha256 where neither this nor the key's file says it.", "hmac-sha256"
    )


class VerifyPart(Part):
    """Whom to ask what the world is told of a record; its zone's authoritative servers when left out."""

    model_config = ConfigDict(title="Verify", json_schema_extra=_one_of("resolvers", "servers"))
    resolvers: list[LiteralServer] | None = optional(
        "Resolvers",
        "Resolvers to ask instead of authoritative servers: private zones answer inside their network only.",
        ["10.0.0.2", "[fd00::1]:53"],
        minItems=1,
        maxItems=MOST_RESOLVERS,
    )
    servers: list[LiteralServer] | None = optional(
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
    name: DnsName = key("Name", "The record's whole name; the last dot may be left out.", "bp.example.com.")
    addresses: Targets = key(
        "Addresses",
        "What the name points at while each producer is active: an IPv4 or IPv6 address, or a host's name (CNAME).",
        {"main": "203.0.113.10", "backup": "203.0.113.20"},
    )
    ttl: Ttl = key("TTL", "How long resolvers may keep an answer, from 60 s to a day.", 60, _RECORD["ttl"])
    route53: Route53Part | None = optional("Route 53", Route53Part.__doc__ or "", {"zone": "Z0123456789ABC"})
    rfc2136: Rfc2136Part | None = optional(
        "RFC 2136",
        Rfc2136Part.__doc__ or "",
        {"server": "ns1.example.com", "zone": "example.com.", "key_file": "/etc/failover/bp.key"},
    )
    verify: VerifyPart | None = optional("Verify", VerifyPart.__doc__ or "", {"resolvers": ["10.0.0.2"]})


def _agent_to_manage(schema: dict[str, Any]) -> None:
    """Whoever ends a relay's sessions, or restarts it, is its agent."""
    managed = {"properties": {"managed": {"const": True}}, "required": ["managed"]}
    restarts = {"properties": {"restart": {"enum": [n.value for n in Nudge if n is not Nudge.NEVER]}}}
    schema["allOf"] = [
        {"if": managed, "then": {"required": ["agent"]}},
        {
            "if": {**restarts, "required": ["restart"]},
            "then": {"required": ["agent"], "properties": {"managed": {"const": True}}},
        },
    ]


class RelayPart(Part):
    """A relay of the pool."""

    model_config = ConfigDict(title="Relay", json_schema_extra=_agent_to_manage)
    name: Name = key("Name", "How commands, metrics and the journal call this relay.", "relay-1")
    address: AddressText = key("Address", "Where its node listens: host:port or [v6]:port, in quotes.", "10.0.2.1:3001")
    agent: Name | None = optional("Agent", "The agent on its host, by its name in agents.", "relay1")
    managed: Flag | None = optional(
        "Managed",
        "Whether its sessions with a producer that lost the role may be ended; it is only watched otherwise."
        " True where it has an agent.",
        True,
    )
    producers: Reached | None = optional(
        "Producers",
        "Under which addresses it reaches producers, where others than theirs.",
        {"main": "203.0.113.10:6000"},
    )
    restart: Restart = key(
        "Restart",
        "What may be done to its node when it stays with the old producer although its sessions were ended.",
        "sighup",
        Nudge.NEVER.value,
    )


_HEALTH, _POLICY, _FENCE, _LEASE = HealthSettings(), PolicySettings(), FenceSettings(), LeaseSettings()


class HealthPart(Part):
    """How producers are pinged and judged."""

    model_config = ConfigDict(title="Health")
    interval: Duration = key("Interval", "From one ping to the next.", "10s", _HEALTH.interval)
    timeout: Duration = key("Timeout", "For a whole ping: name, connection, handshake, tip.", "5s", _HEALTH.timeout)
    fall: Misses = key("Fall", "Failed pings in a row that make a producer down.", 3, _HEALTH.fall)
    rise: Misses = key("Rise", "Good pings in a row that make it up again.", 2, _HEALTH.rise)
    max_gap: Duration = key("Longest gap", "A longer gap in observing restarts the timers.", "30s", _HEALTH.max_gap)
    max_lag: Slots = key(
        "Largest lag", "Slots that a producer may be behind the best tip and still be fit.", 60, _HEALTH.max_lag
    )


class PolicyPart(Part):
    """When the role moves by itself."""

    model_config = ConfigDict(title="Policy")
    fail_over_after: Duration = key(
        "Fail over after",
        "How long the active producer is down before another takes over.",
        "5m",
        _POLICY.fail_over_after,
    )
    fail_back_after: Duration = key(
        "Fail back after",
        "How long the preferred producer is fit before it gets the role back.",
        "30m",
        _POLICY.fail_back_after,
    )
    fail_back: FailBack = key("Fail back", "Whether the role goes back by itself.", "auto", _POLICY.fail_back)


class FencePart(Part):
    """What confirms that a producer is shut out."""

    model_config = ConfigDict(title="Fence")
    require: Require = key(
        "Require",
        "What must confirm: the gates that answer (reachable); one kind of gate that truly fences (confirmed); nothing"
        " where there are records only, and no gate (none).",
        "reachable",
        _FENCE.require,
    )
    proxies_are_only_path: Flag = key(
        "Proxies are the only path",
        "Whether relays reach producers through these proxies only, so that closed proxies truly fence.",
        False,
        _FENCE.proxies_are_only_path,
    )


class LeasePart(Part):
    """Who decides, and for how long."""

    model_config = ConfigDict(title="Lease")
    duration: Duration = key("Duration", "How long the decider decides without renewing.", "60s", _LEASE.duration)
    renew: Duration = key("Renew", "How often it renews.", "20s", _LEASE.renew)
    action_timeout: Duration = key("Action timeout", "How long a step may take.", "10s", _LEASE.action_timeout)


def _gates_or_none(schema: dict[str, Any]) -> None:
    """Proxies, or a gate on every producer's host; or, with ``fence.require: none``, records and no gate."""
    none = {"properties": {"require": {"const": "none"}}, "required": ["require"]}
    gate = {"anyOf": [{"required": ["gates"]}, {"required": ["power"]}]}
    schema["if"] = {"properties": {"fence": none}, "required": ["fence"]}
    schema["then"] = {
        "properties": {"proxies": {"maxItems": 0}, "records": {"minItems": 1}, "producers": {"items": {"not": gate}}},
        "required": ["records"],
    }
    schema["else"] = {
        "anyOf": [
            {"properties": {"proxies": {"minItems": 1}}, "required": ["proxies"]},
            {"properties": {"producers": {"items": {"required": ["gates"]}}}},
        ]
    }


class File(Part):
    """One pool's configuration."""

    model_config = ConfigDict(title="cardano-failover configuration", json_schema_extra=_gates_or_none)
    pool: Name = key("Pool", "The pool's ticker or name; every metric carries it.", "EXMPL")
    network: Network = key("Network", "The Cardano network, by name or by magic.", "mainnet")
    producers: list[ProducerPart] = Field(
        title="Producers",
        description="The pool's block producers in order of preference; the first is the preferred one.",
        examples=[[{"name": "main", "address": "10.0.1.10:6000"}, {"name": "backup", "address": "10.0.2.10:6000"}]],
        json_schema_extra={"minItems": 2, "maxItems": 16},
    )
    agents: list[AgentPart] = Field(
        [],
        title="Agents",
        description="The hosts of producers and relays on which the agent runs.",
        examples=[
            [
                {
                    "name": "bp1",
                    "address": "10.0.1.10:22",
                    "key_file": "/etc/failover/agent.key",
                    "host_key": _HOST_KEY,
                }
            ]
        ],
        json_schema_extra={"maxItems": MOST_AGENTS},
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
    relays: list[RelayPart] = Field(
        [],
        title="Relays",
        description="The pool's relays: whom they are connected to, and whose sessions are ended when the role moved.",
        examples=[[{"name": "relay-1", "address": "10.0.2.1:3001", "agent": "relay1"}]],
        json_schema_extra={"maxItems": MOST_RELAYS},
    )
    references: list[AddressText] = Field(
        [],
        title="References",
        description="Peers that are not ours: tips to compare with, and whether the network's fault is our own.",
        examples=[["relay.example.org:3001"]],
        json_schema_extra={"maxItems": 32},
    )
    mode: Mode = key("Mode", "act, or observe: everything but steps.", "act", "act")
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
