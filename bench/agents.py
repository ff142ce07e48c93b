"""Figures ``agent``: from the decision to "confirmed not forging", a handover over hosts, and what an agent costs.

Everything is real but the nodes, which are the lab's, with slots of one second: sshd, the agent as its forced command,
the controller's links, two HAProxies. The parts:

- Closing. Ours is whatever there is beside the three slots for which the counter must stand still: the request, the
  agent's work, the signal, and that the agent looks at the counter only so often. The signal alone is compared with a
  script on the host that renames the three files and sends SIGHUP.
- The handover. The chain is its dependent steps and nothing else, by a script over links that are open: close the
  loser (answered when it is confirmed), then open the winner. The controller moreover closes and opens two proxies,
  reads everything back, writes it all down, and watches four relays.
- One call: a status over a link that is open, against a bare echo of as many bytes over asyncssh; and the start of an
  agent that answers once, against an interpreter that starts and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import asyncssh

from bench.figure import Aim, Figure, Say, medians
from bench.hosts import AGENT, HOST, MAGIC, POOL, WAIT, Keys, Place, place, sshd
from bench.steering import Steering, ask, steering, until
from failover.agent_link import AgentLink, GateStatus
from failover.hosts import RealHosts
from failover.lab.haproxy import LabConfig, LabError, LabProxy
from failover.model import (
    Gate,
    GateKind,
    GateReading,
    HealthSettings,
    LeaseSettings,
    Pool,
    Producer,
    Relay,
    Step,
    StepKind,
)
from failover.parts import LeaseLeft
from failover.ports import GatePort, Hosts, NodePort, RelayPort

SLOTS = 3  # for which the counter must stand still
# Beside the slots: at most one more, by which the counter may be looked at too late; the signal in a quarter of one.
CONFIRMED, OURS, SIGNAL = Aim(1.5), Aim(1000.0, of="measured"), Aim(250.0, of="measured")
CHAIN = Aim(1.10)
# A status finds the process, reads its metrics and looks at files: some fifty echoes. No more than four interpreters.
STATUS, START, MEMORY = Aim(50.0), Aim(15.0), Aim(4.0)
MIB = 1024.0


# ---------------------------------------------------------------- closing one producer


@dataclass(frozen=True, slots=True)
class Closing:
    """One closing, in milliseconds from the decision: until the node let go, and until that was confirmed."""

    signalled: float
    confirmed: float


def disabled(where: Place, after: float) -> float | None:
    """Unix time at which the node stopped forging, as it traced it; None while it has not."""
    for line in where.log.splitlines():
        if '"DisabledBlockForging"' in line and line.endswith("}"):
            at = datetime.fromisoformat(json.loads(line)["at"]).timestamp()
            if at >= after - 0.001:  # it is told in milliseconds
                return at
    return None


async def let_go(where: Place, after: float) -> float:
    """The same, once it has. Raises LabError."""
    await until(lambda: disabled(where, after) is not None, "the node lets go of its keys", poll=0.005)
    return disabled(where, after) or 0.0


async def rises(link: AgentLink) -> GateStatus:
    """Wait until the producer is seen forging; its gate then. Raises LabError."""
    for _ in range(200):
        gate = (await link.status(WAIT)).gates[GateKind.FORGING.value]
        if gate.reading.open and gate.reading.certain:
            return gate
        await HOST.sleep(0.05)
    raise LabError("the producer is not seen forging", "look whether the machine is very busy")


async def closing(where: Place, link: AgentLink) -> Closing:
    """Close by the controller's link, and open again."""
    heard = await rises(link)
    began = HOST.now()
    said = await order(link, "close", heard)
    reading = (await link.status(WAIT)).gates[GateKind.FORGING.value].reading
    took = HOST.now().since(began)
    if not reading.certain:
        raise LabError(f"not confirmed: {said}", "look whether the machine is very busy")
    at = await let_go(where, began.utc)
    await order(link, "open", heard)
    return Closing((at - began.utc) * 1e3, took * 1e3)


async def order(link: AgentLink, verb: str, heard: GateStatus) -> Mapping[str, object]:
    """An order of the generation and term that the agent has heard last."""
    said = await link.ask(
        verb, WAIT, gate="forging", generation=heard.generation, term=heard.term, reason="a bench"
    )  # fmt: skip
    return said or {}


async def by_hand(where: Place) -> float:
    """The same by a script on the host, up to the node's letting go: milliseconds."""
    keys, aside = where.folder / "keys", where.folder / "aside"
    aside.mkdir(exist_ok=True)
    pid = int((where.folder / "node.pid").read_text())
    began = HOST.now().utc
    for name in ("node.cert", "kes.skey", "vrf.skey"):
        (keys / name).rename(aside / name)
    os.kill(pid, signal.SIGHUP)
    at = await let_go(where, began)
    for name in ("vrf.skey", "kes.skey", "node.cert"):
        (aside / name).rename(keys / name)
    os.kill(pid, signal.SIGHUP)
    return (at - began) * 1e3


async def closings(folder: Path, keys: Keys, slot: float, rounds: int) -> list[Figure]:
    """The figures of closing one producer."""
    async with place(folder, "main", keys, slot=slot, gate=True) as where:
        link = AgentLink(where.agent, POOL, HOST)
        try:
            await closing(where, link)
            found, bare = [], []
            for _ in range(rounds):
                found.append(await closing(where, link))
                bare.append(await by_hand(where))
        finally:
            await link.close()
    slots, confirmed = SLOTS * slot * 1e3, [one.confirmed for one in found]
    signalled = median(one.signalled for one in found)
    split = (
        f"decision to confirmed, median of {rounds}, slots of {slot:g} s: {signalled:.0f} ms until the node let go "
        f"(link, agent, files, signal), {slots:.0f} ms are the slots', the rest is how often the counter is looked at; "
        f"{min(confirmed):.0f} to {max(confirmed):.0f} ms"
    )
    return [
        Figure("agent, confirmed", median(confirmed), "ms", slots, f"{SLOTS} slots alone", CONFIRMED, split),
        Figure("agent, ours", max(0.001, median(confirmed) - slots), "ms", aim=OURS, note="of that, without the slots"),
        Figure(
            "agent, signal", signalled, "ms", median(bare), "a script on the host: three renames and SIGHUP", SIGNAL,
            "decision to the node's letting go",
        ),
    ]  # fmt: skip


# ---------------------------------------------------------------- a handover over hosts


@dataclass
class Times:
    """When steps to hosts' gates left, and when they had ended; CLOCK_BOOTTIME."""

    left: list[tuple[StepKind, float]] = field(default_factory=list)
    ended: list[tuple[StepKind, float]] = field(default_factory=list)


class TimedGate:
    """A GatePort that notes when steps leave and end."""

    def __init__(self, port: GatePort, times: Times) -> None:
        self._port = port
        self._times = times

    async def read(self, timeout: float) -> GateReading:
        """See GatePort."""
        return await self._port.read(timeout)

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See GatePort."""
        self._times.left.append((step.kind, HOST.now().mono))
        done = await self._port.set(step, timeout, still_valid)
        self._times.ended.append((step.kind, HOST.now().mono))
        return done

    async def close(self) -> None:
        """See GatePort."""
        await self._port.close()


class TimedHosts:
    """RealHosts whose gates are timed."""

    def __init__(self, pool: Pool, lease: LeaseLeft, times: Times) -> None:
        self._real = RealHosts(pool, HOST, lease)
        self.gates: Mapping[Gate, GatePort] = {gate: TimedGate(p, times) for gate, p in self._real.gates.items()}
        self.nodes: Mapping[str, NodePort] = self._real.nodes
        self.relays: Mapping[str, RelayPort] = self._real.relays

    async def close(self) -> None:
        """See Hosts."""
        await self._real.close()


@dataclass
class Lab:
    """A pool of two producers, two HAProxies and four relays, each host with its own sshd and agent."""

    pool: Pool
    links: Mapping[str, AgentLink]
    times: Times

    def hosts(self, pool: Pool, lease: LeaseLeft) -> Hosts:
        """What the controller makes its ports of."""
        return TimedHosts(pool, lease, self.times)


@asynccontextmanager
async def lab(folder: Path, keys: Keys, slot: float) -> AsyncIterator[Lab]:
    """The pool while the block lasts; main is open. Raises LabError."""
    async with AsyncExitStack() as stack:
        producers = {
            name: await stack.enter_async_context(place(folder, name, keys, slot=slot, gate=True))
            for name in ("main", "backup")
        }
        proxies = []
        for name in ("proxy-1", "proxy-2"):
            (folder / name).mkdir()
            made = LabConfig(name, {producer: where.address for producer, where in producers.items()})
            proxies.append(await stack.enter_async_context(LabProxy(folder / name, made)))
        doors = [proxy.relays for proxy in proxies]
        relays = {
            name: await stack.enter_async_context(place(folder, name, keys, slot=slot, gate=False, peers=doors))
            for name in ("relay-1", "relay-2", "relay-3", "relay-4")
        }
        links = {name: AgentLink(where.agent, POOL, HOST) for name, where in producers.items()}
        for link in links.values():
            stack.push_async_callback(link.close)
        yield Lab(_pool(folder, producers, proxies, relays), links, Times())


def _pool(folder: Path, producers: Mapping[str, Place], proxies: list[LabProxy], relays: Mapping[str, Place]) -> Pool:
    places = {**producers, **relays}
    return Pool(
        name=POOL,
        network="lab",
        magic=MAGIC,
        producers=tuple(
            Producer(name, where.address, agent=name, gates=(GateKind.FORGING,)) for name, where in producers.items()
        ),
        proxies=tuple(proxy.proxy() for proxy in proxies),
        agents=tuple(where.agent for where in places.values()),
        relays=tuple(Relay(name, where.address, agent=name, managed=True) for name, where in relays.items()),
        state=folder / "state",
        # Six hosts share this machine: all of their agents start within the first reading.
        health=HealthSettings(interval=4.0, timeout=4.0, max_gap=20.0, max_lag=1000),
        lease=LeaseSettings(action_timeout=15.0),
    )


async def _ours(at_work: Steering, made: Lab, new: str) -> float:
    """One switchover by the controller, from the first command to the end of the last: milliseconds."""
    at_work.sent.clear()
    made.times.left.clear()
    made.times.ended.clear()
    ask(at_work.pool, new)
    await until(lambda: at_work.active == new, f"{new} is steady")
    first = min(at for kind, at in _departed(at_work, made) if kind is StepKind.CLOSE)
    last = max(at for kind, at in made.times.ended if kind is StepKind.OPEN)
    return (last - first) * 1e3


def _departed(at_work: Steering, made: Lab) -> list[tuple[StepKind, float]]:
    return [*made.times.left, *((sent.kind, sent.at) for sent in at_work.sent)]


async def _chain(made: Lab, old: str, new: str) -> float:
    """The dependent steps alone: milliseconds."""
    heard = {name: (await link.status(WAIT)).gates[GateKind.FORGING.value] for name, link in made.links.items()}
    began = HOST.now()
    await order(made.links[old], "close", heard[old])
    await order(made.links[new], "open", heard[new])
    return HOST.now().since(began) * 1e3


async def handovers(folder: Path, keys: Keys, slot: float, rounds: int, say: Say) -> list[Figure]:
    """The figure of a whole handover."""
    ours: list[float] = []
    chain: list[float] = []
    async with lab(folder, keys, slot) as made:
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: a handover there and back, then its chain of steps")
            async with steering(made.pool, made.hosts) as at_work:
                ours += [await _ours(at_work, made, new) for new in ("backup", "main")]
            chain += [await _chain(made, old, new) for old, new in (("main", "backup"), ("backup", "main"))]
    return [
        Figure(
            "handover, hosts", median(ours), "ms", median(chain), "close and confirm the loser, open the winner", CHAIN,
            f"first command to the end of the last, 2 producers, 2 HAProxies, 4 relays, slots of {slot:g} s, median of "
            f"{len(ours)} each; ours {min(ours):.0f} to {max(ours):.0f}, chain {min(chain):.0f} to {max(chain):.0f} ms",
        )
    ]  # fmt: skip


# ---------------------------------------------------------------- one call


async def calls(folder: Path, keys: Keys, rounds: int) -> list[Figure]:
    """The figures of one status over a link that is open. Raises LabError."""
    found = []
    async with AsyncExitStack() as stack:
        for gate, home, name in ((True, "producer", "agent, status"), (False, "relay", "agent, status, relay")):
            where = await stack.enter_async_context(place(folder, home, keys, slot=1.0, gate=gate))
            size = len(_answer(where))
            echo = folder / f"{home}.py"
            echo.write_text(f"import sys\nfor line in sys.stdin: print('x' * {size - 1}, flush=True)\n")
            command = [sys.executable, "-I", str(echo)]
            other = await stack.enter_async_context(sshd(folder / f"{home}-echo", "echo", keys, command))
            try:
                ours, bare = await _called(where, other.address.port, keys, size, rounds)
            except asyncssh.Error as error:
                raise LabError(f"the bare echo: {error.reason}") from error
            what = "a producer's host with a forging gate" if gate else "a relay's host"
            note = f"over a link that is open, {what}, {size} bytes, median of {rounds}"
            found.append(Figure(name, ours, "ms", bare, "an echo of as many bytes over bare asyncssh", STATUS, note))
    return found


async def _called(where: Place, port: int, keys: Keys, size: int, rounds: int) -> tuple[float, float]:
    ours, bare = [], []
    link = AgentLink(where.agent, POOL, HOST)
    line, login = b"x" * 60 + b"\n", {"username": where.agent.user, "client_keys": [str(keys.private)]}
    async with (
        asyncssh.connect("127.0.0.1", port, **login, known_hosts=None, config=None, agent_path=None) as connection,
        connection.create_process("x", encoding=None) as process,
    ):
        try:
            for _ in range(rounds + 1):
                began = HOST.now()
                await link.status(WAIT)
                ours.append(HOST.now().since(began) * 1e3)
                began = HOST.now()
                process.stdin.write(line)
                await process.stdout.readexactly(size)
                bare.append(HOST.now().since(began) * 1e3)
        finally:
            await link.close()
            process.stdin.write_eof()
    return median(ours[1:]), median(bare[1:])


def _request() -> bytes:
    return json.dumps({"v": 1, "verb": "status", "pool": POOL, "within": 10}).encode() + b"\n"


def _serve(where: Place) -> list[str]:
    return [*AGENT, "--config", str(where.config), "serve"]


def _answer(where: Place) -> bytes:
    """One agent that is started, asked, and left to end."""
    done = subprocess.run(_serve(where), input=_request(), capture_output=True, timeout=WAIT, check=True)
    if not done.stdout.startswith(b'{"v":1,"ok":true'):
        raise LabError(f"the agent answered {done.stdout[:200]!r}")
    return done.stdout


def _timed(run: Callable[[], object]) -> float:
    began = HOST.now()
    run()
    return HOST.now().since(began) * 1e3


def _resident(command: list[str], said: bytes) -> float:
    """The most memory that a process had that was given a line and answered one: MiB."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise LabError(f"{shlex.join(command)} has no pipes")
        process.stdin.write(said)
        process.stdin.flush()
        process.stdout.readline()
        rows = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        process.stdin.close()
    return next(float(row.split()[1]) for row in rows if row.startswith("VmHWM:")) / MIB


async def costs(folder: Path, keys: Keys, rounds: int) -> list[Figure]:
    """The figures of an agent's start and memory."""
    pass_ = [sys.executable, "-I", "-c", "pass"]
    echo = [sys.executable, "-I", "-c", "import sys\nfor line in sys.stdin: print(1, flush=True)"]
    worker = HOST.worker("costs")
    async with place(folder, "cost", keys, slot=1.0, gate=True) as where:

        def measured() -> tuple[list[float], list[float]]:
            _answer(where)
            started = medians(
                rounds,
                lambda: _timed(lambda: _answer(where)),
                lambda: _timed(lambda: subprocess.run(pass_, check=True, timeout=WAIT)),
            )
            return started, medians(3, lambda: _resident(_serve(where), _request()), lambda: _resident(echo, b"x\n"))

        try:
            started, memory = await worker.call(measured, WAIT * rounds)
        finally:
            worker.close()
    return [
        Figure(
            "agent, start", started[0], "ms", started[1], "python -c pass", START,
            f"a process that answers one status and ends, median of {rounds}; a link keeps those that it starts",
        ),
        Figure("agent, memory", memory[0], "MiB", memory[1], "an interpreter that echoes lines", MEMORY, "peak"),
    ]  # fmt: skip


# ---------------------------------------------------------------- all of it


async def _figures(quick: bool, say: Say) -> list[Figure]:
    slot, rounds = (0.2, 1) if quick else (1.0, 5)
    found: list[Figure] = []
    with TemporaryDirectory(prefix="fob-") as name:
        folder = Path(name)
        keys = Keys.made(folder)
        say("one producer is closed and opened, by the controller's link and by a script in turn")
        (folder / "a").mkdir()
        found += await closings(folder / "a", keys, slot, rounds)
        (folder / "b").mkdir()
        found += await handovers(folder / "b", keys, slot, 1 if quick else 3, say)
        say("one call, its start, its memory")
        (folder / "c").mkdir()
        found += await calls(folder / "c", keys, 5 if quick else 100)
        (folder / "d").mkdir()
        found += await costs(folder / "d", keys, 2 if quick else 20)
    return found


def figures(quick: bool, say: Say) -> list[Figure]:
    """All of them."""
    return asyncio.run(_figures(quick, say))
