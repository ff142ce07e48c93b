"""The reference configurations of examples/: each loaded with secrets made for the test, and the files of its hosts.

What stands in a host's folder is what `failover render` prints for that host, with what the pool's file does not know
filled in as an operator would (``FILLED``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import asyncssh

from failover import config
from failover.cli import installation
from failover.config import Loaded
from failover.gates import haproxy_config
from failover.model import Address, Pool
from failover.topology.paths import names
from failover.topology.render import Choice, render

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = (
    "proxies-and-forging",
    "forging-only",
    "dns-and-relays",
    "relay-as-standby",
    "several-backups",
    "power-confirmed",
)
VIA = {"proxies-and-forging": (Address("192.0.2.30", 6000), Address("198.51.100.30", 6000))}
FILLED: Mapping[str, str] = {
    installation.CONTROLLER: "203.0.113.100",
    "/path/to/topology.json": "/etc/cardano/topology.json",
    "/path/to/kes.skey": "/etc/cardano/keys/kes.skey",
    "/path/to/vrf.skey": "/etc/cardano/keys/vrf.skey",
    "/path/to/node.cert": "/etc/cardano/keys/node.cert",
}
NODE = (
    "/usr/local/bin/cardano-node run --config /etc/cardano/config.json --topology /etc/cardano/topology.json"
    " --database-path /var/lib/cardano/db --socket-path /run/cardano/node.socket --host-addr 0.0.0.0 --port {port}"
    " --shelley-kes-key /etc/cardano/keys/kes.skey --shelley-vrf-key /etc/cardano/keys/vrf.skey"
    " --shelley-operational-certificate /etc/cardano/keys/node.cert"
)
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"  # RFC 8709's example
_TSIG = 'key "failover" { algorithm hmac-sha256; secret "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMyYnk="; };\n'


def yaml(name: str) -> str:
    """The example's failover.yaml as it is."""
    return (EXAMPLES / name / "failover.yaml").read_text(encoding="utf-8")


def readme(name: str = "") -> str:
    """The example's README, or that of all of them."""
    return (EXAMPLES / name / "README.md").read_text(encoding="utf-8")


def loaded(name: str, folder: Path) -> Loaded:
    """The example's file, read with keys and secrets that are made in ``folder``."""
    secrets(folder)
    text = yaml(name).replace("/etc/failover/", f"{folder}/")
    return config.load_text(f"state: {folder}/state\n{text}", "failover.yaml", environ={})


def secrets(folder: Path) -> None:
    """Every file that an example's failover.yaml names, of no use to anybody."""
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode("ascii")
    made = {
        "agent.key": key,
        "known_hosts": f"host.example.com {_KEY}\n",
        "stats.password": "not a real one\n",
        "proxies-ca.pem": "-----BEGIN CERTIFICATE-----\n",
        "tsig.key": _TSIG,
        "bmc.password": "not a real one either\n",
    }
    for file, text in made.items():
        (folder / file).touch(0o600)
        (folder / file).write_text(text, encoding="utf-8")


def rendered(name: str, pool: Pool) -> dict[str, str]:
    """What belongs into the example's folder ``hosts``, by path: a folder for each host, named after its node."""
    found: dict[str, str] = {}
    choice = Choice(VIA.get(name, ()))
    for node in names(pool):
        if f"{place_of(pool, node)}/topology.json" not in found:
            found[f"{place_of(pool, node)}/topology.json"] = render(pool, node, choice).text
    for where in installation.places(pool):
        configuration = json.dumps(installation.configuration(pool, where), indent=2) + "\n"
        found[f"{where.name}/failover-agent.json"] = _filled(configuration)
        port = (where.producer or where.relay).address.port  # type: ignore[union-attr]
        for file in installation.files(pool, where, _KEY):
            if file.path.startswith("/etc/systemd/"):
                found[f"{where.name}/{file.name}"] = file.text.replace(installation.NODE, NODE.format(port=port))
    for proxy in pool.proxies:
        place = haproxy_config.Place(listen=f"*:{pool.producers[0].address.port}")
        found[f"{proxy.name}/haproxy.cfg"] = haproxy_config.configuration(pool, proxy, place)
    return found


def place_of(pool: Pool, node: str) -> str:
    """The name of the folder of a node: a node that is a producer and a relay has the producer's."""
    return next((place.name for place in installation.places(pool) if place.relay and place.relay.name == node), node)


def _filled(text: str) -> str:
    """An agent's configuration with the operator's own paths and addresses in it."""
    for placeholder, own in FILLED.items():
        text = text.replace(placeholder, own)
    return text


def present(name: str) -> dict[str, str]:
    """What stands in the example's folder ``hosts``, by path."""
    root = EXAMPLES / name / "hosts"
    return {str(path.relative_to(root)): path.read_text("utf-8") for path in sorted(root.rglob("*")) if path.is_file()}


def write(name: str, files: Mapping[str, str]) -> None:
    """Put these files there, and take away whatever else there is."""
    root = EXAMPLES / name / "hosts"
    for path in (path for path in root.rglob("*") if path.is_file() and str(path.relative_to(root)) not in files):
        path.unlink()
    for file, text in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text, encoding="utf-8")
