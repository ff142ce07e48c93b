"""Two of the reference configurations as they run: real daemon, sshd, agents, lab nodes; the role moves there and back.

Nothing that the controller says enters the judgement: each node notes every slot in which it could make a block.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from example_world import NODE, present, yaml
from netns import eventually
from sshd import Sshd, require_sshd

from failover.host import RealHost
from failover.lab import credentials
from failover.lab.cardano import Span, forged
from failover.lab.story import secluded

AGENT = Path(__file__).parents[2] / "failover" / "agent.py"
SLOT = 0.1  # seconds
CONTROLLER, REFERENCE = "203.0.113.100", "203.0.113.200"  # where they stand in the examples' world
PATIENCE = 60.0  # seconds, an upper bound for what takes a few
TIMES = (
    "health: {interval: 2s, timeout: 2s, max_gap: 10s, max_lag: 1000}",
    "policy: {fail_over_after: 30s, fail_back_after: 1h}",
    "lease: {duration: 20s, renew: 1s, action_timeout: 5s}",
)
# A program of its own, so that agents start it as they start cardano-node.
PROGRAM = """#!{python}
import encodings.idna, sys
sys.path.insert(0, {repository!r})
from failover.lab import cardano
sys.exit(cardano.main())
"""


@dataclass
class Machine:
    """One host of the example, at an address of its own on loopback."""

    name: str
    address: str
    folder: Path
    ports: dict[int, int] = field(default_factory=dict)  # the example's port to ours; they share one network here
    node: subprocess.Popen[bytes] | None = None

    def port(self, number: int) -> int:
        """Ours for one of the example's."""
        if number not in self.ports:
            with socket.socket() as free:
                free.bind((self.address, 0))
                self.ports[number] = int(free.getsockname()[1])
        return self.ports[number]

    @property
    def spans(self) -> tuple[Span, ...]:
        """When its node could make blocks."""
        return forged(self.folder / "forged.jsonl")

    def told(self, command: str) -> dict[str, Any]:
        """What its node says of itself to nobody but us."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10.0)
            line.connect(str(self.folder / "control"))
            line.sendall(json.dumps({"command": command}).encode() + b"\n")
            with line.makefile("rb") as answer:
                return dict(json.loads(answer.readline()))


class Running:
    """An example that runs. ``machines`` are by the name of the node."""

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.files = present(name)
        self.text = yaml(name)
        self._stack = stack
        self._epoch = RealHost().now().mono - 5000 * SLOT
        self._program = folder / "cardano-node"
        self._program.write_text(PROGRAM.format(python=sys.executable, repository=str(AGENT.parents[1])))
        self._program.chmod(0o755)
        self.machines: dict[str, Machine] = {}
        self._user = self._public = ""  # who logs in, and the public half of the one key for all hosts
        self._places = self._own_places()
        self.log = folder / "controller.log"
        self._listen = self._place(CONTROLLER, 9465)
        self.file = folder / "failover.yaml"

    # ------------------------------------------------ what is replaced

    def replaced(self) -> str:
        """The example's failover.yaml with what cannot be the same on one machine, and nothing else.

        Addresses: each host's is one of its own in 127.0.0.0/8. Ports: others, for all share one network. Timings:
        seconds for minutes. The network: the lab's. Paths: in the test's folder. References: one node of the lab. The
        login's name: whoever runs the test.
        """
        text = re.sub(r"(\d+(?:\.\d+){3}):(\d+)", lambda at: self._place(at[1], int(at[2])), self.text)
        text = text.replace("/etc/failover/", f"{self.folder}/").replace("network: mainnet", "network: {magic: 42}")
        text = re.sub(r"^references: .*$", f'references: ["{self._place(REFERENCE, 3001)}"]', text, flags=re.MULTILINE)
        text = re.sub(r"^policy: .*$", "\n".join(TIMES), text, flags=re.MULTILINE)
        text = text.replace("key_file:", f"user: {self._user}, key_file:")
        return f'state: {self.folder}/state\nlisten: "{self._listen}"\n{text}'

    def _own_places(self) -> dict[str, str]:
        """Our address for each of the example's; of no other run at the same time."""
        pid = os.getpid()
        prefix = f"127.{64 + (pid >> 8) % 128}.{pid % 256}"
        found = sorted(set(re.findall(r"\d+(?:\.\d+){3}(?=:)", self.text)) | {CONTROLLER, REFERENCE})
        return {address: f"{prefix}.{number + 1}" for number, address in enumerate(found)}

    def _place(self, address: str, port: int) -> str:
        """Our address and port for the example's."""
        ours = self._places[address]
        if ours not in self.machines:
            (self.folder / ours).mkdir()
            self.machines[ours] = Machine(ours, ours, self.folder / ours)
        return f"{ours}:{self.machines[ours].port(port)}"

    # ------------------------------------------------ hosts

    def build(self) -> None:
        """Write every host's files, and start their sshds."""
        hosts = []
        for name, line in re.findall(r"- \{name: (\S+?), (.*)\}", self.text):
            at = re.search(r'address: "([\d.]+):(\d+)"', line)
            assert at is not None
            self._place(at[1], int(at[2]))
            if at[2] == "22":
                hosts.append((self._places[at[1]], int(at[2])))
            elif f"{name}/topology.json" in self.files:
                self.machines[name] = self.machines[self._places[at[1]]]
                self.machines[name].name = name
                self._write(self.machines[name], int(at[2]))
        known = [self._sshd(self.machines[address], port) for address, port in hosts]
        (self.folder / "known_hosts").write_text("".join(known))
        self.file.write_text(self.replaced(), "utf-8")
        reference = self.machines["reference"] = self.machines[self._places[REFERENCE]]
        (reference.folder / "topology.json").write_text('{"localRoots": [], "publicRoots": []}')
        (reference.folder / "config.json").write_text("{}")

    def _sshd(self, machine: Machine, port: int) -> str:
        """Start one that runs the agent for the one key; its line of known_hosts."""
        home = machine.folder / "sshd"
        sshd = Sshd(home, self.agent(machine, "serve"), listen=machine.address, port=machine.port(port))
        self._stack.enter_context(sshd)
        if not self._public:
            self._user, self._public = sshd.user, sshd.public
            (self.folder / "agent.key").write_bytes(sshd.client_key.read_bytes())
            (self.folder / "agent.key").chmod(0o600)
        keys = home / "authorized_keys"
        keys.write_text(keys.read_text().replace(sshd.public, self._public))
        return f"[{machine.address}]:{machine.port(port)} {sshd.host_key}\n"

    def _write(self, machine: Machine, port: int) -> None:
        folder = machine.folder
        topology = json.loads(self.files[f"{machine.name}/topology.json"])
        for group in topology["localRoots"]:
            for point in group["accessPoints"]:
                ours = self._place(point["address"], point["port"])
                point["address"], point["port"] = ours.rpartition(":")[0], int(ours.rpartition(":")[2])
        (folder / "topology.json").write_text(json.dumps(topology))
        (folder / "config.json").write_text("{}")
        if f"{machine.name}/failover-agent.json" not in self.files:
            return
        (folder / "keys").mkdir(mode=0o700)
        credentials.write(folder / "keys", counter=7, kes_period=0, pool_seed="EXMPL")
        text = self._here(machine, self.files[f"{machine.name}/failover-agent.json"])
        document = json.loads(text.replace("/var/lib/failover-agent", f"{folder}/state"))
        document["node"] |= {"runtime": {"pidfile": f"{folder}/node.pid"}, "port": machine.port(port), "slot": SLOT}
        document["node"] |= {"metrics": f"http://{machine.address}:{machine.port(12798)}/metrics"}
        document["node"] |= {"owner": str(os.geteuid())} if "owner" in document["node"] else {}
        (folder / "agent.json").write_text(json.dumps(document))
        (folder / "agent.json").chmod(0o600)

    def _here(self, machine: Machine, text: str) -> str:
        for usual in ("/etc/cardano", "/var/lib/cardano", "/run/cardano"):
            text = text.replace(usual, str(machine.folder))
        return text

    def agent(self, machine: Machine, *words: str) -> list[str]:
        """A command of the agent on a host."""
        return [sys.executable, "-B", "-S", str(AGENT), "--config", str(machine.folder / "agent.json"), *words]

    def start(self, name: str) -> None:
        """Start a node: a producer's by its unit's own command, so by the agent; and wait until it listens."""
        machine = self.machines[name]
        folder, unit = machine.folder, self.files.get(f"{name}/failover.conf", f" -- {NODE.format(port=3001)}")
        words = shlex.split(self._here(machine, unit.rpartition(" -- ")[2]))
        options = dict(zip(words[2::2], words[3::2], strict=True))
        port = machine.port(int(options["--port"]))
        options |= {"--host-addr": machine.address, "--port": str(port), "--lab-name": name}
        options |= {"--lab-slot-seconds": str(SLOT), "--lab-chain-epoch": repr(self._epoch), "--lab-scale": "20"}
        options |= {"--lab-metrics": f"{machine.address}:{machine.port(12798)}", "--lab-leads-every": "5"}
        options |= {"--lab-control": str(folder / "control"), "--lab-log": str(folder / "forged.jsonl")}
        given = [word for pair in options.items() for word in pair if "shelley" not in pair[0] or self.makes(name)]
        command = [str(self._program), "run", *given, "--lab-dial-topology"]
        if self.makes(name):
            command = self.agent(machine, "start", "--", *command)
        with (folder / "node.log").open("ab") as out:
            machine.node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self._stack.callback(end, machine.node)
        (folder / "node.pid").write_text(f"{machine.node.pid}\n")
        eventually(lambda: listens(machine.address, port), f"{name} listens", PATIENCE)

    def makes(self, name: str) -> bool:
        """Whether it is a producer."""
        return f"{name}/failover.conf" in self.files

    # ------------------------------------------------ the controller

    def run(self) -> None:
        """Start the daemon."""
        with self.log.open("ab") as out:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "failover", "-c", str(self.file), "run"],
                env={**secluded(os.environ), "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._stack.callback(end, daemon)

    def until(self, active: str, what: str) -> None:
        """Wait until the role is there, every producer is well, and nothing differs."""

        def settled() -> bool:
            said = self.status()
            well = all(producer["fit"] for producer in said.get("producers", [{"fit": False}]))
            return said.get("phase") == "steady" and said["active"] == active and well and not said["drift"]

        self.wait(settled, what)

    def wait(self, true: Callable[[], bool], what: str) -> None:
        """Poll until it is so; what the daemon said is printed when it never is."""
        try:
            eventually(true, what, PATIENCE)
        except AssertionError:
            print(json.dumps(self.status(), indent=1)[:6000], self.log.read_text()[-6000:])
            raise

    def status(self) -> Mapping[str, Any]:
        """What the daemon says; empty while it does not."""
        with (
            suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://{self._listen}/status", timeout=5.0) as said,
        ):
            return dict(json.loads(said.read()))
        return {}

    def switchover(self, to: str) -> None:
        """By hand; the command waits for its end."""
        done = subprocess.run(
            [sys.executable, "-m", "failover", "-c", str(self.file), "switchover", "--to", to, "--yes"],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.log.read_text()[-4000:]


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def listens(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), 1.0):
        return True
    return False


@contextmanager
def running(name: str, folder: Path, first: str) -> Iterator[Running]:
    """The example at work, begun as its README says: the first producer, the daemon, then the others."""
    require_sshd()
    with ExitStack() as stack:
        found = Running(name, folder, stack)
        found.build()
        others = [each for each in found.machines if found.makes(each) and each != first]
        for node in ("reference", first, *(each for each in found.machines if "relay" in each)):
            found.start(node)
        found.run()
        for node in others:
            closed = found.machines[node].folder / "keys" / "kes.skey"
            found.wait(lambda path=closed: not path.exists(), f"{node} is closed")  # type: ignore[misc]
            found.start(node)
        yield found


def slots(spans: tuple[Span, ...]) -> set[int]:
    return {slot for span in spans for slot in range(span.first, span.last + 1)}


@pytest.mark.parametrize(("name", "backup"), [("forging-only", "backup"), ("relay-as-standby", "standby")])
def test_the_role_moves_there_and_back_and_no_slot_has_two_producers(name: str, backup: str, tmp_path: Path) -> None:
    with running(name, tmp_path, "main") as pool:
        main, other = pool.machines["main"], pool.machines[backup]
        pool.until("main", "main has the role, and everybody is well")
        assert other.spans == (), "its node was started closed"
        relay = pool.machines["relay-1"]
        pool.wait(lambda: len(relay.told("sessions")["outbound"]) == 2, "relay-1 is connected to both producers")
        before = relay.told("sessions")["outbound"]

        pool.switchover(backup)
        pool.until(backup, f"{backup} has the role")
        assert other.told("forging")["forging"]
        assert not main.told("forging")["forging"]

        pool.switchover("main")
        pool.until("main", "main has the role again")
        assert main.told("forging")["forging"]
        assert not other.told("forging")["forging"]

        assert relay.told("sessions")["outbound"] == before, "relays noticed nothing: the same sessions"
        assert slots(main.spans) & slots(other.spans) == set()
        times = sorted((span.first, name) for name, node in (("main", main), (backup, other)) for span in node.spans)
        assert [who for who, _ in groupby(who for _, who in times)] == ["main", backup, "main"]
