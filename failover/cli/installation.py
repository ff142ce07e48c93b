"""What the host of an agent needs: its user, what that user may do, the agent's configuration, units. Pure values.

Least privilege: sshd runs one command for the controller's key, whatever was asked for; that user has no password, no
rights of its own, and one rule in sudoers for exactly that command. What the pool's file does not know stands as a
placeholder, which the agent refuses until it is filled in.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from failover.errors import ConfigError
from failover.model import Agent, GateKind, Nudge, Pool, Producer, Relay

PROGRAM = "/usr/local/lib/failover/agent.py"
CONFIGURATION = "/etc/failover-agent.json"
HOME = "/var/lib/failover-login"
STATE = "/var/lib/failover-agent"
UNIT = "cardano-node.service"
ACCOUNT = "cardano"  # a guess at whom the node runs as; `agent.py check` refuses an account that there is not
SERVE = f"sudo -n {PROGRAM} serve"
CONTROLLER = "ADDRESS-OF-THE-CONTROLLER"
NODE = "/path/to/cardano-node run --config /path/to/config.json --topology /path/to/topology.json"


@dataclass(frozen=True, slots=True)
class File:
    """One file of the host: where it goes, as what, why, and what to do with it.

    ``filled``: somebody writes into it, so it is not replaced.
    """

    path: str
    mode: int
    text: str
    why: str
    more: str = ""
    filled: bool = False

    @property
    def name(self) -> str:
        """As what it is written to a folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Place:
    """One agent's host: the agent, and the producer, the relay, or the node that is both."""

    agent: Agent
    producer: Producer | None
    relay: Relay | None

    @property
    def name(self) -> str:
        """Of its node."""
        node = self.producer or self.relay
        return node.name if node is not None else self.agent.name

    @property
    def kinds(self) -> tuple[GateKind, ...]:
        """The gates that its agent moves."""
        gates = self.producer.gates if self.producer is not None else ()
        return tuple(kind for kind in gates if kind is not GateKind.POWER)


def places(pool: Pool) -> tuple[Place, ...]:
    """Every agent of the file that has a node, in the file's order."""
    found = []
    for agent in pool.agents:
        producer = next((p for p in pool.producers if p.agent == agent.name), None)
        relay = next((r for r in pool.relays if r.agent == agent.name), None)
        if producer is not None or relay is not None:
            found.append(Place(agent, producer, relay))
    return tuple(found)


def place(pool: Pool, name: str) -> Place:
    """The host of one producer or relay. Raises ConfigError."""
    for found in places(pool):
        if name in [node.name for node in (found.producer, found.relay) if node is not None]:
            return found
    nodes: tuple[Producer | Relay, ...] = (*pool.producers, *pool.relays)
    if name in [node.name for node in nodes]:
        raise ConfigError(f"{name} has no agent in the file", "add agent: NAME to it, and that one to agents")
    known = ", ".join(dict.fromkeys(node.name for node in nodes if node.agent is not None)) or "nobody"
    raise ConfigError(f"{name[:80]!r} is no producer and no relay of the file", f"those with an agent are {known}")


# ---------------------------------------------------------------- the agent's configuration


def configuration(pool: Pool, where: Place, fuse: float | None = None) -> dict[str, Any]:
    """``/etc/failover-agent.json`` as far as the pool's file knows it. Raises ConfigError for a fuse without a gate."""
    if fuse is not None and not where.kinds:
        raise ConfigError(f"--fuse: {where.name} has no gate that a fuse could close", "leave it out")
    if where.agent.user == "root":
        mend = "give it an account of its own there, as in user: failover; `render agent` makes it"
        raise ConfigError(f"agents: {where.agent.name}: the controller is not to log in as root", mend)
    node = where.producer or where.relay
    assert node is not None  # noqa: S101 - a place has one
    runs: dict[str, Any] = {
        "runtime": {"systemd": UNIT},
        "port": node.address.port,
        "metrics": "http://127.0.0.1:12798/metrics",
        "topology": "/path/to/topology.json",
    }
    made: dict[str, Any] = {"pool": pool.name, "state": STATE, "node": runs}
    if GateKind.FORGING in where.kinds:
        runs["credentials"] = {
            "kes": "/path/to/kes.skey",
            "vrf": "/path/to/vrf.skey",
            "certificate": "/path/to/node.cert",
        }
        runs["owner"] = ACCOUNT
    if where.kinds:
        made["gates"] = [kind.value for kind in where.kinds]
    if GateKind.FIREWALL in where.kinds:
        peers = [str(relay.address) for relay in pool.relays if relay is not where.relay]
        made["firewall"] = {"user": ACCOUNT, "pingers": [CONTROLLER], "sync": peers or ["ADDRESS-OF-A-RELAY:PORT"]}
    if fuse is not None:
        made["fuse"] = {"after": fuse}
    if where.relay is not None and where.relay.restart is not Nudge.NEVER:
        made["nudge"] = "sighup" if where.kinds else where.relay.restart.value
    return made


# ---------------------------------------------------------------- files


def files(pool: Pool, where: Place, public_key: str, fuse: float | None = None) -> tuple[File, ...]:
    """Every file but the program, in the order in which they are put there. Raises ConfigError."""
    user = where.agent.user
    found = [
        File(
            f"{HOME}/.ssh/authorized_keys", 0o644, authorized(public_key), "all that the controller's key can do", _KEY
        ),
        File("/etc/sudoers.d/failover-agent", 0o440, sudoers(user), f"all that {user} may do as root"),
        File(
            CONFIGURATION,
            0o644,
            json.dumps(configuration(pool, where, fuse), indent=2) + "\n",
            "the agent's configuration",
            _FILL if where.kinds else _FILL_RELAY,
            filled=True,
        ),
    ]
    if GateKind.FORGING in where.kinds:
        why = "a closed producer starts without forging, and stays closed"
        found.append(File(f"/etc/systemd/system/{UNIT}.d/failover.conf", 0o644, _DROP_IN, why, _START, filled=True))
    if where.kinds:
        why = "before the node starts, gates are put as they were (with a fuse: closed)"
        found.append(File("/etc/systemd/system/failover-agent-boot.service", 0o644, _BOOT, why))
    if fuse is not None:
        why = f"closes the gate when no valid lease was heard for {fuse:g} s"
        found.append(File("/etc/systemd/system/failover-fuse.service", 0o644, _fuse(fuse), why))
    return tuple(found)


def authorized(public_key: str) -> str:
    """The line of authorized_keys. Raises ConfigError for what is no public key."""
    words = public_key.split()
    if len(words) < 2 or "\n" in public_key.strip() or not words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise ConfigError("that is no public key of OpenSSH", "give the .pub file of the agent's key_file")
    return f'restrict,command="{SERVE}" {words[0]} {words[1]} failover-controller\n'


def sudoers(user: str) -> str:
    """One rule for one command with one argument; nothing of the caller's environment gets through."""
    return f"Defaults:{user} env_reset, !setenv, !env_keep, !env_check\n{user} ALL=(root) NOPASSWD: {PROGRAM} serve\n"


_KEY = (
    "Whatever is asked for with that key, this command is run: no shell, no terminal, no forwarding. To let it in from "
    'one address only, write from="ADDRESS", before restrict. The file is root\'s, so that the user cannot change it.'
)
_FILL = (
    "Fill in every /path/to, the node's user and, for a firewall, literal addresses. Where the node is not run by "
    'systemd, write {"docker": NAME}, {"podman": NAME} or {"pidfile": PATH}. Credentials are put aside within '
    f"{STATE}; if that is on another file system than they are, add put_aside and staging, two folders "
    'on theirs. Add "pool_id": "pool1...", and those of another pool are refused.'
)
_FILL_RELAY = "Fill in every /path/to. Where the node is not run by systemd: docker, podman or pidfile."
_START = (
    f"Write the node's own command behind -- (systemctl cat {UNIT} shows it). It is started as root, and becomes "
    "node.owner."
)
_DROP_IN = f"""\
[Service]
ExecStart=
ExecStart=+{PROGRAM} start -- {NODE}
"""
_BOOT = f"""\
[Unit]
Description=Gates of this producer as they were, before its node starts
# Other firewalls may clear all rules when they load theirs.
After=local-fs.target nftables.service firewalld.service ufw.service netfilter-persistent.service
Before={UNIT}

[Service]
Type=oneshot
ExecStart={PROGRAM} boot
TimeoutStartSec=60s

[Install]
WantedBy=multi-user.target
# What was closed must be closed again, or the node does not start.
RequiredBy={UNIT}
"""


def _fuse(seconds: float) -> str:
    return f"""\
[Unit]
Description=Closes this producer's gate when no valid lease was heard for {seconds:g} s
After=failover-agent-boot.service
StartLimitIntervalSec=0

[Service]
ExecStart={PROGRAM} fuse
Restart=always
RestartSec=1s

[Install]
WantedBy=multi-user.target
"""


# ---------------------------------------------------------------- the whole, as a shell script


def script(pool: Pool, where: Place, made: Sequence[File], *, from_folder: bool = False) -> str:
    """What root pastes on the host, or, beside files in a folder, runs there. Can be run again."""
    return "\n".join(_lines(pool, where, made, from_folder)) + "\n"


def _lines(pool: Pool, where: Place, made: Sequence[File], from_folder: bool) -> Iterator[str]:
    agent = where.agent
    if from_folder:
        yield from ("#!/bin/sh", "set -eu", 'cd "$(dirname "$0")"')
    yield f"# Pool {pool.name}: the agent on the host of {where.name} ({agent.name}, {agent.address}). As root, there."
    yield ""
    yield "# The program: one file, for Python 3.9 and later, without further packages. It must be root's."
    if from_folder:
        yield f"install -D -o root -g root -m 0755 agent.py {PROGRAM}"
    else:
        yield "# From the controller:  failover render agent --program > agent.py"
        yield f"install -D -o root -g root -m 0755 agent.py {PROGRAM}"
    yield ""
    yield "# Who the controller is here. sshd starts the forced command by /bin/sh; there is no password (*)."
    user = shlex.quote(agent.user)
    yield f"id {user} >/dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir {HOME} \\"
    yield f"  --shell /bin/sh --password '*' {user}"
    yield f"install -d -o root -g root -m 0755 {HOME} {HOME}/.ssh"
    for file in made:
        yield from _one(file, from_folder)
    yield ""
    units = [file.name for file in made if file.path.endswith(".service")]
    yield f"# When {CONFIGURATION} is filled in, this must find nothing:"
    yield f"#   {PROGRAM} check"
    if units:
        yield "# Then:"
        yield "#   systemctl daemon-reload"
        yield f"#   systemctl enable {' '.join(units)}"
    if any(file.path.endswith(".conf") for file in made):
        yield f"#   systemctl restart {UNIT}      (a producer that is not active first)"
    if "failover-fuse.service" in units:
        yield "#   systemctl start failover-fuse.service      (while the controller runs, or it closes at once)"


def _one(file: File, from_folder: bool) -> Iterator[str]:
    yield ""
    words = f"{file.path}: {file.why}." + (f" {file.more}" if file.more else "")
    yield from textwrap.wrap(words, 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    if from_folder:
        if "sudoers" in file.path:
            yield f"visudo -c -q -f {file.name}"  # a damaged file there would lock everybody out of sudo
        keep = f"[ -e {file.path} ] || " if file.filled else ""
        yield f"{keep}install -D -o root -g root -m {file.mode:04o} {file.name} {file.path}"
        return
    folder = file.path.rpartition("/")[0]
    keep = f"[ -e {file.path} ] || " if file.filled else ""
    yield f"mkdir -p {folder}"
    yield f"{keep}cat > {file.path} <<'END'"
    yield file.text.rstrip("\n")
    yield "END"
    yield f"chmod {file.mode:04o} {file.path}"
    if "sudoers" in file.path:
        yield f"visudo -c -q -f {file.path} || rm {file.path}"
