"""Pools of every kind of gate, with relays, for topology files; and a topology file as a test writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from failover.model import (
    Address,
    Agent,
    FenceSettings,
    GateKind,
    Pool,
    Power,
    Producer,
    Proxy,
    Record,
    Relay,
    Route53Zone,
)

VIA = (Address("10.0.3.1", 6000), Address("10.0.3.2", 6000))
RELAYS = (Relay("relay-1", Address("10.0.2.1", 3001)), Relay("relay-2", Address("relay2.example.com", 3001)))
RECORD = Record(
    "bp.example.com.",
    "bp.example.com.",
    {"main": "203.0.113.10", "backup": "203.0.113.20"},
    Route53Zone("Z1"),
)
PROXIES = tuple(
    Proxy(name, "producers", {"main": "main", "backup": "backup"}, socket=Address("127.0.0.1", port))
    for name, port in (("proxy-1", 9001), ("proxy-2", 9002))
)
OFF = Power(off=("/usr/bin/off",), status=("/usr/bin/status",))


def pool(
    *,
    proxies: bool = False,
    records: bool = False,
    gates: tuple[GateKind, ...] = (),
    only_path: bool = False,
) -> Pool:
    """A pool of two producers and two relays with these gates."""
    producers = tuple(
        Producer(
            name,
            Address(f"10.0.1.{last}", 6000),
            agent=f"{name}-host" if gates else None,
            gates=gates,
            power=OFF if GateKind.POWER in gates else None,
        )
        for name, last in (("main", 10), ("backup", 20))
    )
    agents = tuple(
        Agent(f"{name}-host", Address("10.0.1.1", 22), Path("/etc/failover/key"), host_key="ssh-ed25519 AAAA")
        for name in (("main", "backup") if gates else ())
    )
    require = "none" if records and not proxies and not gates else "reachable"
    return Pool(
        "EXMPL",
        "preview",
        2,
        producers,
        PROXIES if proxies else (),
        records=(RECORD,) if records else (),
        agents=agents,
        relays=RELAYS,
        fence=FenceSettings(require, only_path),
    )


KINDS: Mapping[str, Pool] = {
    "proxies": pool(proxies=True),
    "proxies, the only path": pool(proxies=True, only_path=True),
    "a record": pool(records=True),
    "proxies and a record": pool(proxies=True, records=True),
    "forging": pool(gates=(GateKind.FORGING,)),
    "firewall": pool(gates=(GateKind.FIREWALL,)),
    "power": pool(gates=(GateKind.POWER,)),
    "forging and proxies": pool(proxies=True, gates=(GateKind.FORGING,)),
    "forging and proxies, the only path": pool(proxies=True, gates=(GateKind.FORGING,), only_path=True),
    "forging and a record": pool(records=True, gates=(GateKind.FORGING,)),
}


def doubled(found: Pool) -> Pool:
    """The same pool with a relay on the standby's own node."""
    relay = Relay("relay-3", found.producers[1].address)
    return replace(found, relays=(*found.relays, relay))


def root(*points: str, one_way: bool = False, **keys: Any) -> dict[str, Any]:
    """One group of local roots, all of it in use."""
    group: dict[str, Any] = {
        "accessPoints": [point(each) for each in points],
        "advertise": False,
        "trustable": True,
        "hotValency": len(points),
    }
    if one_way:
        group["diffusionMode"] = "InitiatorOnly"
    return group | keys


def point(written: str) -> dict[str, Any]:
    """``10.0.2.1:3001`` or ``2001:db8::1:3001`` as an access point."""
    host, _, port = written.rpartition(":")
    return {"address": host, "port": int(port)}


def text(*local: dict[str, Any], public: tuple[str, ...] = (), **keys: Any) -> str:
    """A whole file."""
    document = {
        "bootstrapPeers": None,
        "localRoots": list(local),
        "publicRoots": [{"accessPoints": [point(each) for each in public], "advertise": False}] if public else [],
        "useLedgerAfterSlot": -1,
    }
    return json.dumps(document | keys)
