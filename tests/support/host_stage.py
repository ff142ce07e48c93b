"""A whole pool on hosts of its own: real sshd, agents, HAProxy, BIND, firewalls, and the daemon, between real cables.

    with stage(folder, Plan()) as pool:
        pool.until(pool.steady("main"), "main has the role")
        pool.switchover("backup")
        ...
    # afterwards the pool is judged: what every node forged, and what relays could receive of it

Hosts are network namespaces (netns.py): a controller, producers, relays, and where the plan says so a HAProxy or a
name server. A producer's host has an sshd whose forced command is the agent, and the lab's cardano-node under
``agent.py start``, which a small supervisor starts again whenever it ends, as systemd would. The truth is what nodes
note of themselves slot by slot (failover/lab/cardano.py) and what relays' sessions were; nothing that the controller
says enters the judgement. Times are Unix times in seconds.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time  # noqa: TID251 - real programs, real time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns_world
from netns import Host, Hosts, require_root
from sshd import PRIVSEP, Sshd, require_sshd

from failover.gates import haproxy_config
from failover.host import RealHost
from failover.lab import credentials
from failover.lab.cardano import forged
from failover.lab.haproxy import LabConfig, LabProxy
from failover.lab.sessions import Interval, hot, intervals
from failover.lab.story import secluded
from failover.model import Address

REPOSITORY = Path(__file__).parents[2]
AGENT = REPOSITORY / "failover" / "agent.py"
POOL = "EXMPL"
PORT, RELAY_PORT, METRICS, LISTEN = 6000, 3001, 12798, 9465
USER = 64111  # whom a node runs as that a firewall gates
SLOT = 0.2  # seconds
SCALE = 20.0  # relays redial after 0.25 s, and ask for a name again after 3 s
NOTED = 0.5  # seconds within which a relay on a busy machine has noted that a session ended
WITHIN = 60.0  # seconds, an upper bound for what takes a few
POLL = 0.05
GAP = 3 * SLOT  # between two slots that were checked, in which a node that forges before and after may have forged
INTERVAL, ACTION_TIMEOUT = 4.0, 4.0  # seconds; as long as a login may take where others keep the machine busy
SECONDS_OF_LEASE = 12.0

ADDRESSES = {
    "controller": "10.77.0.1",
    "main": "10.77.1.1",
    "backup": "10.77.2.1",
    "relay-1": "10.77.3.1",
    "relay-2": "10.77.4.1",
    "proxy-1": "10.77.5.1",
    "names": "10.77.6.1",
}
Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pool consists of.

    ``gates``: on each producer's host; empty for a pool that has a record alone. ``managed``: relays have agents.
    ``duplex``: nodes dial relays as well, from their own port; relays are nodes of the lab then. ``power``: main's
    machine can be switched off by a command. ``fuse``: seconds. ``small``: main's keys lie on a disk of 1 MiB.
    """

    gates: tuple[str, ...] = ("forging",)
    relays: int = 1
    managed: bool = False
    proxy: bool = False
    names: bool = False
    duplex: bool = False
    power: bool = False
    require: str = "reachable"
    fuse: float | None = None
    small: bool = False
    fail_over_after: float = 5.0
    fail_back_after: float = 600.0
    rise: int = 1
    lease: float = SECONDS_OF_LEASE


# ---------------------------------------------------------------- inside a namespace


@contextmanager
def inside(host: Host) -> Iterator[None]:
    """This thread's new sockets, and the programs that it starts, are on the host."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(f"/run/netns/{host.namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.setns(other, 0x40000000) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(own, 0x40000000) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(own)
        os.close(other)


def told(path: Path, command: str) -> dict[str, Any]:
    """What a lab node answers on its control socket. Raises OSError when nobody does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        connection.connect(str(path))
        connection.sendall(json.dumps({"command": command}).encode() + b"\n")
        with connection.makefile("rb") as answer:
            return dict(json.loads(answer.readline() or b"{}"))


# ---------------------------------------------------------------- programs

# As systemd does: again whenever it ended. The pidfile is there while it runs.
_SUPERVISOR = """#!/bin/sh
while :; do
    "$@" >>{log} 2>&1 </dev/null &
    echo $! >{pidfile}.new
    mv {pidfile}.new {pidfile}
    wait $!
    echo "it ended with $?" >>{log}
    rm -f {pidfile}
    sleep 0.2
done
"""

# The lab's node as a program of its own. It becomes its own user, where it is told so, before it takes its port, and
# after Python has loaded what it needs: that may lie in root's own folder.
_NODE = """#!{python}
import encodings.ascii, encodings.idna, encodings.latin_1, os, sys
sys.path.insert(0, {repository!r})
from failover.lab import cardano, process
said = process.ready
def ready():
    if {user}:
        os.setgroups([])
        os.setgid({user})
        os.setuid({user})
    said()
process.ready = ready
sys.exit(cardano.main())
"""

# A relay that can be found by its port, in a network of its own that nothing leaves.
_RELAY = """#!{python}
import socket, sys
sys.path.insert(0, {repository!r})
from failover.lab import relay
relay._elsewhere = lambda host: False
door = socket.create_server(("", {port}))
sys.exit(relay.main())
"""


class Supervised:
    """A node on a host that is started again whenever it ends."""

    def __init__(self, host: Host, folder: Path, words: Sequence[str]) -> None:
        self.host = host
        self.pidfile = folder / "node.pid"
        self.log = folder / "node.log"
        self._words = list(words)
        self._script = folder / "supervisor"
        quoted = {"log": shlex.quote(str(self.log)), "pidfile": shlex.quote(str(self.pidfile))}
        self._script.write_text(_SUPERVISOR.format(**quoted), "utf-8")
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """Of the node, while there is one."""
        with suppress(OSError, ValueError):
            return int(self.pidfile.read_text())
        return None

    def start(self) -> None:
        """Start it, and keep it up."""
        self.pidfile.unlink(missing_ok=True)
        self._process = self.host.popen(["sh", str(self._script), *self._words])

    def kill(self) -> None:
        """SIGKILL to the node alone; it comes back."""
        pid = self.pid
        assert pid is not None, f"{self.host.name}'s node does not run"
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it for good."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(WITHIN)
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.pidfile.unlink(missing_ok=True)


@dataclass
class Machine:
    """A host with an sshd that runs the agent, and a node."""

    host: Host
    folder: Path
    sshd: Sshd | None = None
    node: Supervised | None = None

    @property
    def config(self) -> Path:
        """The agent's."""
        return self.folder / "agent.json"

    @property
    def keys(self) -> Path:
        """Where the node reads them."""
        return self.folder / "disk" / "keys"

    @property
    def aside(self) -> Path:
        """Where they are while the gate is closed."""
        return self.folder / "disk" / "aside" / "current"

    @property
    def staging(self) -> Path:
        """Where the operator leaves new ones."""
        return self.folder / "disk" / "staging"

    def agent(self, *words: str) -> list[str]:
        """A command of the agent."""
        return [sys.executable, "-B", "-S", str(AGENT), "--config", str(self.config), *words]

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """A request to the agent by whoever sits at the host."""
        line = json.dumps({"v": 1, "verb": verb, "pool": POOL, "within": 20, **fields}) + "\n"
        return dict(json.loads(self.host.run(self.agent("serve"), input=line, timeout=WITHIN).stdout))

    def serving(self) -> list[int]:
        """The agent's processes that sshd runs for the controller."""
        assert self.sshd is not None
        found = []
        for pid in self.sshd.processes():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if str(AGENT).encode() in words and b"serve" in words and words[0] == sys.executable.encode():
                    found.append(pid)
        return found

    def truth(self, command: str = "state") -> dict[str, Any]:
        """What the node says of itself to nobody but us; empty while it does not run."""
        with suppress(OSError, ValueError):
            return told(self.folder / "run" / "control", command)
        return {}


# ---------------------------------------------------------------- the truth


@dataclass(frozen=True, slots=True)
class Time:
    """A producer from ``start`` to ``end``."""

    producer: str
    start: float
    end: float


def together(times: Iterable[Time]) -> list[tuple[Time, Time]]:
    """Pairs of two producers that share a moment."""
    rows = sorted(times, key=lambda one: (one.start, one.producer))
    return [
        (one, other)
        for number, one in enumerate(rows)
        for other in rows[number + 1 :]
        if one.producer != other.producer and max(one.start, other.start) < min(one.end, other.end)
    ]


class Stage:
    """A pool that plays a story. ``seen`` are all statuses that were looked at."""

    def __init__(self, folder: Path, plan: Plan, hosts: Hosts, stack: ExitStack) -> None:
        self.folder = folder
        self.plan = plan
        self.hosts = hosts
        self.seen: list[Status] = []
        self.machines: dict[str, Machine] = {}
        self.file = folder / "failover.yaml"
        self.log = folder / "controller.log"
        self._stack = stack
        self._daemon: subprocess.Popen[str] | None = None
        now = RealHost().now()
        self._unix = now.utc - now.mono
        self._epoch = now.mono - 5000 * SLOT
        self._user = USER if "firewall" in plan.gates else 0
        self._proxy: LabProxy | None = None
        self._key = folder / "rfc2136.key"
        self._build()

    @property
    def main(self) -> Machine:
        """The preferred producer's."""
        return self.machines["main"]

    @property
    def backup(self) -> Machine:
        """The other producer's."""
        return self.machines["backup"]

    # ------------------------------------------------ building

    def _build(self) -> None:
        self.folder.chmod(0o711)  # nodes that are not root reach their own folders
        PRIVSEP.mkdir(mode=0o755, exist_ok=True)
        names = ["controller", "main", "backup", *(f"relay-{n + 1}" for n in range(self.plan.relays))]
        names += ["proxy-1"] if self.plan.proxy else []
        names += ["names"] if self.plan.names else []
        for name in names:
            self.hosts.add(name, ADDRESSES[name])
        for name, text in (("node", _NODE), ("relay", _RELAY)):
            values = {"python": sys.executable, "repository": str(REPOSITORY), "user": self._user, "port": RELAY_PORT}
            (self.folder / name).write_text(text.format(**values), "utf-8")
            (self.folder / name).chmod(0o755)
        for name in ("main", "backup"):
            self._producer(name)
        if self.plan.proxy:
            self._haproxy()
        if self.plan.names:
            self._bind()
        for number in range(self.plan.relays):
            self._relay(f"relay-{number + 1}")
        for machine in self.machines.values():
            if machine.node is not None:
                machine.node.start()
        self._write_file()
        for name in ("main", "backup"):
            host, port = self.hosts[name], PORT
            host.until_listening(port, WITHIN)

    def _producer(self, name: str) -> None:
        folder = self.folder / name
        folder.mkdir(mode=0o711)
        disk = folder / "disk"
        disk.mkdir(mode=0o711)
        if self.plan.small and name == "main":
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=711", "tmpfs", str(disk)], check=True)
            self._stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=False)
        machine = self.machines[name] = Machine(self.hosts[name], folder)
        for made in ("disk/keys", "disk/staging", "run"):
            (folder / made).mkdir(mode=0o700)
            os.chown(folder / made, self._user, self._user)
        self.new_keys(machine.keys, counter=7)
        self._write_topologies(name)
        self._write_agent(name)
        machine.sshd = self._sshd(machine)
        machine.node = Supervised(machine.host, folder, machine.agent("start", "--", *self._node_words(name)))
        if self.plan.gates and name != "main":
            for gate in self.plan.gates:
                said = machine.ask("close", gate=gate, generation=0, term=0, reason="the standby, from the beginning")
                assert said["ok"], said

    def new_keys(self, folder: Path, counter: int) -> None:
        """Credentials of the pool, as an operator leaves them."""
        paths = credentials.write(folder, counter=counter, kes_period=0, pool_seed=POOL)
        for path in (paths.kes, paths.vrf, paths.certificate):
            os.chown(path, self._user, self._user)

    def _node_words(self, name: str) -> list[str]:
        folder, keys = self.folder / name, self.machines[name].keys
        words = [str(self.folder / "node"), "run", "--topology", str(folder / "topology.json")]
        words += ["--config", str(folder / "config.json"), "--port", str(RELAY_PORT if "relay" in name else PORT)]
        words += ["--host-addr", ADDRESSES[name], "--socket-path", str(folder / "run" / "socket")]
        # A name is part of a lab's tips, and tips that differ for a minute are a split brain to the controller.
        words += [
            "--lab-name",
            name if self.plan.proxy else "pool",
            "--lab-scale",
            str(SCALE),
            "--lab-slot-seconds",
            str(SLOT),
        ]
        words += ["--lab-chain-epoch", repr(self._epoch), "--lab-leads-every", "5", "--lab-metrics", str(METRICS)]
        words += ["--lab-control", str(folder / "run" / "control")]
        if "relay" in name:
            return [*words, "--lab-dial-topology"]
        words += ["--shelley-kes-key", str(keys / "kes.skey"), "--shelley-vrf-key", str(keys / "vrf.skey")]
        words += ["--shelley-operational-certificate", str(keys / "node.cert")]
        words += ["--lab-log", str(self._forging_log(name))]
        return [*words, "--lab-dial-topology", "--lab-duplex"] if self.plan.duplex else words

    def _forging_log(self, name: str) -> Path:
        folder = self.folder / f"{name}-forged"
        if not folder.exists():
            folder.mkdir(mode=0o777)
            folder.chmod(0o777)
        return folder / "forged.jsonl"

    def _write_topologies(self, name: str) -> None:
        """A one-way root to the first relay and a duplex one to the second, where nodes dial at all."""
        groups = []
        if self.plan.duplex and "relay" not in name:
            for number in range(self.plan.relays):
                point = {"address": ADDRESSES[f"relay-{number + 1}"], "port": RELAY_PORT}
                group: dict[str, Any] = {"accessPoints": [point], "advertise": False, "hotValency": 1}
                groups.append(group if number else {**group, "diffusionMode": "InitiatorOnly"})
        elif "relay" in name:
            points = [{"address": ADDRESSES[producer], "port": PORT} for producer in ("main", "backup")]
            groups.append({"accessPoints": points, "advertise": False, "hotValency": 2})
        folder = self.folder / name
        (folder / "topology.json").write_text(json.dumps({"localRoots": groups, "publicRoots": []}), "utf-8")
        (folder / "config.json").write_text("{}", "utf-8")

    def _write_agent(self, name: str) -> None:
        folder = self.folder / name
        node: dict[str, Any] = {"runtime": {"pidfile": str(folder / "node.pid")}, "port": PORT}
        document: dict[str, Any] = {"pool": POOL, "state": str(folder / "state"), "node": node}
        if "relay" in name:
            node["port"] = RELAY_PORT
        else:
            keys = self.machines[name].keys
            node["metrics"] = f"http://127.0.0.1:{METRICS}/metrics"
            node["topology"] = str(folder / "topology.json")
            node["slot"] = SLOT
            if self.plan.gates:
                document["staging"] = str(self.machines[name].staging)
                document["gates"] = list(self.plan.gates)
            if "forging" in self.plan.gates:
                document["put_aside"] = str(folder / "disk" / "aside")
                document["pool_id"] = credentials.pool_id(POOL)
                files = {"kes": "kes.skey", "vrf": "vrf.skey", "certificate": "node.cert"}
                node["credentials"] = {role: str(keys / file) for role, file in files.items()}
            if "firewall" in self.plan.gates:
                sync = [f"{ADDRESSES[f'relay-{n + 1}']}:{RELAY_PORT}" for n in range(self.plan.relays)]
                document["firewall"] = {"user": str(USER), "pingers": [ADDRESSES["controller"]], "sync": sync}
            if self.plan.fuse is not None:
                document["fuse"] = {"after": self.plan.fuse}
        config = folder / "agent.json"
        config.write_text(json.dumps(document), "utf-8")
        config.chmod(0o600)

    def _sshd(self, machine: Machine) -> Sshd:
        home = self.folder / f"{machine.host.name}-sshd"
        own = [f"SetEnv HOME={home}"]  # else bash runs what this machine's root has for logins
        sshd = Sshd(home, machine.agent("serve"), own, listen=machine.host.address, port=22)
        with inside(machine.host):
            return self._stack.enter_context(sshd)

    def _relay(self, name: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        (folder / "run").mkdir()
        os.chown(folder / "run", self._user, self._user)
        machine = self.machines[name] = Machine(self.hosts[name], folder)
        words = [str(self.folder / "relay"), "--name", name, "--log", str(folder / "sessions.jsonl")]
        words += ["--scale", str(SCALE), "--seed", name[-1]]
        if self.plan.duplex:
            self._write_topologies(name)
            words = self._node_words(name)
        elif self.plan.names:
            words += ["--name-target", f"{dns_world.NAME}:{PORT}", "--resolver", f"{ADDRESSES['names']}:53"]
        elif self._proxy is not None:
            words += ["--target", f"{ADDRESSES['proxy-1']}:{self._proxy.relays.port}"]
        else:
            for producer in ("main", "backup"):
                words += ["--target", f"{ADDRESSES[producer]}:{PORT}"]
        machine.node = Supervised(machine.host, folder, words)
        if self.plan.managed:
            self._write_agent(name)
            machine.sshd = self._sshd(machine)

    def _haproxy(self) -> None:
        folder = self.folder / "proxy-1"
        folder.mkdir()
        producers = {name: Address(ADDRESSES[name], PORT) for name in ("main", "backup")}
        config = LabConfig("proxy-1", producers, interval="400ms", timeout_check="1s", host="0.0.0.0")
        self._proxy = LabProxy(folder, config)
        environment = {**os.environ, haproxy_config.PASSWORD_VARIABLE: LabProxy.PASSWORD}
        host = self.hosts["proxy-1"]
        with (folder / "out").open("w") as out:
            host.popen(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], env=environment, stdout=out, stderr=out)
        host.until_listening(self._proxy.relays.port, WITHIN)

    def _bind(self) -> None:
        self._key.touch(0o600)
        self._key.write_text(dns_world.SECRETS[dns_world.KEY_NAME], "utf-8")
        records = (f"ns1 60 A {ADDRESSES['names']}", f"bp 60 A {ADDRESSES['main']}")
        with inside(self.hosts["names"]):
            address = Address(ADDRESSES["names"], 53)
            self._stack.enter_context(dns_world.bind(self.folder, records=records, address=address))

    # ------------------------------------------------ the controller's file

    def _write_file(self) -> None:
        plan, folder = self.plan, self.folder
        lines = [
            f"pool: {POOL}",
            "network: {magic: 42}",
            f"state: {folder / 'controller'}",
            f"listen: 127.0.0.1:{LISTEN}",
        ]
        agents = [name for name, machine in self.machines.items() if machine.sshd is not None and self._has_agent(name)]
        lines += ["agents:"] if agents else []
        for name in agents:
            sshd = self.machines[name].sshd
            assert sshd is not None
            lines.append(
                f'  - {{name: {name}-host, address: "{sshd.address}", user: {sshd.user}, key_file: {sshd.client_key},'
                f' host_key: "{sshd.host_key}"}}'
            )
        lines.append("producers:")
        for name in ("main", "backup"):
            gates = f", agent: {name}-host, gates: [{', '.join(plan.gates)}]" if plan.gates else ""
            power = f", power: {self._power()}" if plan.power and name == "main" else ""
            lines.append(f'  - {{name: {name}, address: "{ADDRESSES[name]}:{PORT}"{gates}{power}}}')
        lines += self._other_lines()
        lines += [
            f"health: {{interval: {INTERVAL}, timeout: {INTERVAL}, fall: 1, rise: {plan.rise}, max_gap: 12,"
            " max_lag: 1000}",
            f"policy: {{fail_over_after: {plan.fail_over_after:g}, fail_back_after: {plan.fail_back_after:g}}}",
            f"fence: {{require: {plan.require}}}",
            f"lease: {{duration: {plan.lease:g}, renew: 1, action_timeout: {ACTION_TIMEOUT:g}}}",
        ]
        self.file.write_text("\n".join(lines) + "\n", "utf-8")

    def _has_agent(self, name: str) -> bool:
        return bool(self.plan.gates) or "relay" in name

    def _other_lines(self) -> list[str]:
        lines = []
        if self._proxy is not None:
            at = f"{ADDRESSES['proxy-1']}:{self._proxy.runtime.port}"
            lines += ["proxies:", f'  - {{name: proxy-1, socket: "{at}", backend: producers, watch: watch,']
            lines.append("     hard_stop_after: 2}")
        if self.plan.names:
            where = f'server: "{ADDRESSES["names"]}:53", zone: {dns_world.ZONE}, key_name: {dns_world.KEY_NAME}'
            lines += ["records:", f"  - name: {dns_world.NAME}", "    ttl: 60"]
            lines.append(f"    addresses: {{main: {ADDRESSES['main']}, backup: {ADDRESSES['backup']}}}")
            lines.append(f"    rfc2136: {{{where}, key_file: {self._key}}}")
            lines.append(f'    verify: {{servers: ["{ADDRESSES["names"]}:53"]}}')
        managed = [name for name, machine in self.machines.items() if "relay" in name and machine.sshd is not None]
        lines += ["relays:"] if managed else []
        for name in managed:
            lines.append(f'  - {{name: {name}, address: "{ADDRESSES[name]}:{RELAY_PORT}", agent: {name}-host}}')
        return lines

    # ------------------------------------------------ main's power

    def _power(self) -> str:
        """The commands of a board that switches main's machine: what it does is told by files."""
        board = self.folder / "board"
        script = self.folder / "bmc"
        board.mkdir()
        (board / "power").write_text("on\n", "utf-8")
        (board / "way").write_text("honest\n", "utf-8")
        script.write_text(
            f"""#!/bin/sh
way=$(cat {board}/way)
[ "$way" = hangs ] && exec sleep 60
echo "$1" >>{board}/asked
case $1 in
off) [ "$way" = lies ] || {{ ip netns pids {self.main.host.namespace} | xargs -r kill -9; echo off >{board}/power; }} ;;
status) cat {board}/power ;;
esac
""",
            "utf-8",
        )
        script.chmod(0o700)
        return f'{{off: ["{script}", "off"], status: ["{script}", "status"]}}'

    def board(self, way: str) -> None:
        """Let main's board be ``honest``, let it lie (``lies``: switching off does nothing), or hang (``hangs``)."""
        (self.folder / "board" / "way").write_text(f"{way}\n", "utf-8")

    def board_was_asked(self, verb: str) -> bool:
        """Whether the controller gave this command."""
        with suppress(FileNotFoundError):
            return verb in (self.folder / "board" / "asked").read_text().split()
        return False

    # ------------------------------------------------ the daemon

    def run(self) -> None:
        """Start the daemon."""
        with self.log.open("a") as log:
            self._daemon = self.hosts["controller"].popen(
                [sys.executable, "-m", "failover", "-c", str(self.file), "run"],
                env={**secluded(os.environ), "NO_COLOR": "1"},
                stdout=log,
                stderr=log,
            )

    def kill_daemon(self) -> None:
        """SIGKILL."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(WITHIN)

    def failover(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of the operator, on the controller's host."""
        return self.hosts["controller"].run(
            [sys.executable, "-m", "failover", "-c", str(self.file), *words], timeout=2 * WITHIN, check=check
        )

    def switchover(self, to: str) -> None:
        """Move the role by hand, and wait for the command's end."""
        self.failover("switchover", "--to", to, "--yes", "--reason", "a story")

    def history(self) -> list[dict[str, Any]]:
        """Everything that was journalled."""
        return [json.loads(line) for line in self.failover("history", "--json").stdout.splitlines()]

    def status(self) -> Status | None:
        """What the daemon shows of itself; None while it does not answer."""
        with suppress(OSError, ValueError, http.client.HTTPException), inside(self.hosts["controller"]):
            connection = http.client.HTTPConnection("127.0.0.1", LISTEN, timeout=5.0)
            try:
                connection.request("GET", "/status")
                status: Status = json.loads(connection.getresponse().read())
            finally:
                connection.close()
            self.seen.append(status)
            return status
        return None

    # ------------------------------------------------ waiting

    def until(self, true: Callable[[Status], bool], what: str, within: float = WITHIN) -> Status:
        """Look at the status again and again; the one that shows it. Raises AssertionError."""
        end, status = time.monotonic() + within, None
        while time.monotonic() < end:
            status = self.status()
            if status is not None and "phase" in status and true(status):
                return status
            time.sleep(POLL)
        raise AssertionError(f"not within {within:g} s: {what}\n{self.told(status)}")

    def await_(self, true: Callable[[], object], what: str, within: float = WITHIN) -> None:
        """Wait for something that is no status. Raises AssertionError."""
        end = time.monotonic() + within
        while not true():
            assert time.monotonic() < end, f"not within {within:g} s: {what}\n{self.told(self.status())}"
            time.sleep(POLL)

    def hold(self, true: Callable[[Status], bool], seconds: float, what: str) -> None:
        """It is so, and stays so for that long: what must not happen has had its time. Raises AssertionError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status()
            assert status is None or true(status), f"no longer: {what}\n{self.told(status)}"
            time.sleep(POLL)

    def told(self, status: Status | None) -> str:
        """What helps to understand a story that went wrong."""
        rows = [f"{self.folder.name}:"]
        if status is not None:
            rows += [f"{key}: {status.get(key)}" for key in ("phase", "active", "target", "cause", "decision", "drift")]
            rows += [str({k: p.get(k) for k in ("name", "health", "fit", "node")}) for p in status.get("producers", ())]
            rows += [str(gate) for gate in status.get("gates", ())]
            rows += [str(relay) for relay in status.get("relays", ())]
        for path in (self.log, *(m.node.log for m in self.machines.values() if m.node is not None)):
            if path.exists():
                rows.append(f"-- {path.name} of {path.parent.name}\n{path.read_text('utf-8', 'replace')[-2500:]}")
        return "\n".join(rows)[-16000:]

    # ------------------------------------------------ what is so

    def steady(self, name: str) -> Callable[[Status], bool]:
        """The role is there, everybody is up, and nothing is amiss; behind a firewall the closed one forges on."""
        usual = [] if "forging" in self.plan.gates or not self.plan.gates else ["both-forge"]

        def is_steady(status: Status) -> bool:
            drift = [found for found in status["drift"] if found["kind"] not in usual]
            amiss = drift or status["split_brain"] or any(row["health"] != "up" for row in status["producers"])
            return status["phase"] == "steady" and status["active"] == name and not amiss

        return is_steady

    def forges(self, name: str) -> bool:
        """Whether its node could make a block now."""
        return bool(self.machines[name].truth("forging").get("forging"))

    def forged(self, name: str) -> list[Time]:
        """When its node could make blocks."""
        found: list[Time] = []
        for span in forged(self._forging_log(name)):
            if found and span.start - found[-1].end <= GAP:
                found[-1] = Time(name, found[-1].start, span.end)
            else:
                found.append(Time(name, span.start, span.end))
        return found

    def all_forged(self) -> list[Time]:
        """Of both producers."""
        return [*self.forged("main"), *self.forged("backup")]

    def reached(self, relay: str) -> list[Time]:
        """When a relay could receive from whom."""
        if self.plan.duplex:
            return self._reached_by_node(relay)
        return self._times(hot(intervals(self.folder / relay / "sessions.jsonl")))

    def connected(self, relay: str) -> list[Time]:
        """When a relay had a session with whom, also one of which it takes no blocks just then."""
        return self._times(intervals(self.folder / relay / "sessions.jsonl"))

    def _times(self, sessions: Iterable[Interval]) -> list[Time]:
        names = {f"{ADDRESSES[name]}:{PORT}": name for name in ("main", "backup")}
        return [
            Time(names.get(one.target, one.producer), one.start + self._unix, one.until + self._unix)
            for one in sessions
        ]

    def _reached_by_node(self, relay: str) -> list[Time]:
        """Sessions that it opened, and those that a producer opened from its own port, which it may use as its own."""
        said, now = self.machines[relay].truth("sessions"), time.time()
        names = {f"{ADDRESSES[name]}:{PORT}": name for name in ("main", "backup")}
        rows = [
            (row["peer"], row["start"], row.get("end", now)) for row in (*said["outbound"], *said["outbound_ended"])
        ]
        rows += [
            (row["peer"], row["start"] + self._unix, (row["end"] or now - self._unix) + self._unix)
            for row in (*said["open"], *said["ended"])
        ]
        return [Time(names[peer], start, end) for peer, start, end in rows if peer in names]

    def received(self) -> list[Time]:
        """When blocks of a producer could reach any relay: it forged, and was connected."""
        found = []
        for relay in (name for name in self.machines if "relay" in name):
            for session in self.reached(relay):
                for span in self.forged(session.producer):
                    start, end = max(session.start, span.start), min(session.end - NOTED, span.end)
                    if start < end:
                        found.append(Time(session.producer, start, end))
        return found

    def die(self, name: str) -> None:
        """A host loses its power: silence from one moment to the next."""
        self.hosts.isolate(name)
        self.machines[name].host.stop()

    def come_back(self, name: str, *, boots: bool = True) -> None:
        """It has power again, and starts as hosts do: the network, the agent's ``boot``, sshd, the node."""
        machine = self.machines[name]
        assert machine.sshd is not None
        assert machine.node is not None
        machine.sshd.kill()
        machine.host.reboot()
        self.hosts.heal(name)
        if boots:
            machine.host.run(machine.agent("boot"), timeout=WITHIN)
        with inside(machine.host):
            machine.sshd.start()
        machine.node.start()

    # ------------------------------------------------ the judgement

    def judge(self) -> None:
        """What holds in every story: never two at once, as nodes and relays have it."""
        assert self.all_forged(), "nobody forged anything: what is judged here?"
        if "forging" in self.plan.gates:
            assert together(self.all_forged()) == [], "two nodes could make blocks at the same time"
        both = together(self.received())
        assert both == [], f"relays could receive two producers' blocks at the same time: {both}"


@contextmanager
def stage(folder: Path, plan: Plan, *, judged: bool = True) -> Iterator[Stage]:
    """A pool that runs, with its daemon, until the block ends; then it is judged. Needs root, and skips without."""
    require_root()
    require_sshd()
    if plan.proxy:
        assert shutil.which("haproxy"), "haproxy is not installed (apt-get install haproxy)"
    with Hosts() as hosts, ExitStack() as stack:
        pool = Stage(folder, plan, hosts, stack)
        pool.run()
        yield pool
        if judged:
            pool.judge()
