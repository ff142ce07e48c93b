"""What every gate on a producer's own host promises (GatePort, failover/ports.py). A new one joins by a row."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from agent_world import ANSWER, SHORT, AgentWorld, agent_world
from contracts import contract_of

from failover.errors import GateRefused, GateTimeout, GateUnreachable
from failover.gates.hostgate import gate_ports
from failover.host import RealHost
from failover.model import Address, Gate, GateKind, Pool, Power, Producer, Step, StepKind
from failover.ports import GatePort, Host
from failover.simulator.edges import Exit
from failover.simulator.host import VirtualHost
from failover.simulator.host_edges import SimHosts
from failover.simulator.hosts import ProducerHost
from failover.simulator.loop import VirtualLoop
from failover.simulator.nature import Nature, Network
from failover.simulator.nodes import Node


class Edge(ABC):
    """A gate that is open, and the way to it: ``port``."""

    gate: Gate
    port: GatePort
    refuses_old = True  # whether what guards it remembers generations

    @abstractmethod
    def hang(self) -> None:
        """Let what guards it take requests and not answer."""

    @abstractmethod
    def talk_nonsense(self) -> None:
        """Let it answer with something else."""

    @abstractmethod
    def recover(self) -> None:
        """Let it do its work again."""

    @abstractmethod
    async def stop(self) -> None:
        """Make that nobody is there who could be asked."""

    def __init__(self) -> None:
        self._ahead = 0.0
        real = RealHost()
        self.host: Host = RealHost(boottime=lambda: real.now().mono + self._ahead)

    def later(self, seconds: float) -> None:
        """Let time pass, for the port alone."""
        self._ahead += seconds

    def step(self, kind: StepKind, generation: int = 5, term: int = 2) -> Step:
        return Step(kind, self.gate, generation, term, "a test")

    async def set(self, kind: StepKind, *, generation: int = 5, timeout: float = ANSWER) -> bool:
        return await self.port.set(self.step(kind, generation), timeout, lambda: True)


class AgentEdge(Edge):
    """Forging or firewall, by an agent behind a real sshd."""

    def __init__(self, world: AgentWorld, kind: GateKind) -> None:
        super().__init__()
        self._world = world
        self.gate = Gate(kind.value, "main")
        producer = Producer("main", Address("127.0.0.1", 6000), agent="main-host", gates=(kind,))
        pool = Pool("EXMPL", "preview", 2, (producer,), (), agents=(world.sshd.agent(),))
        self.port = gate_ports(pool, self.host, {"main-host": world.link(self.host)})[self.gate]

    def hang(self) -> None:
        self._world.behave("hang")

    def talk_nonsense(self) -> None:
        self._world.behave("html")

    def recover(self) -> None:
        self._world.behave("well")

    async def stop(self) -> None:
        self._world.sshd.kill()


class PowerEdge(Edge):
    """Power, by scripts over a file."""

    refuses_old = False  # nobody there remembers; the steps are checked right before they are run

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.gate = Gate("power", "main")
        (folder / "state").write_text("on\n", "ascii")
        self.recover()
        words = {verb: (str(folder / "power"), verb) for verb in ("off", "status", "on")}
        producer = Producer("main", Address("127.0.0.1", 6000), gates=(GateKind.POWER,), power=Power(**words))
        self.port = gate_ports(Pool("EXMPL", "preview", 2, (producer,), ()), self.host, {})[self.gate]

    def _script(self, text: str) -> None:
        new = self._folder / "power.new"
        new.write_text(f"#!/bin/sh\ncd {self._folder} || exit 1\n{text}\n", "ascii")
        new.chmod(0o700)
        new.replace(self._folder / "power")

    def hang(self) -> None:
        self._script("sleep 600")

    def talk_nonsense(self) -> None:
        self._script("echo '<html>'; exit 1")

    def recover(self) -> None:
        self._script('case $1 in status) cat state ;; *) echo "$1" > state ;; esac')

    async def stop(self) -> None:
        (self._folder / "power").unlink()


class SimulatedEdge(Edge):
    """Any of them in a simulated world."""

    def __init__(self, loop: VirtualLoop, kind: GateKind) -> None:
        nature = Nature(loop, 1)
        network, power = Network(nature), Power(("/bin/off",), ("/bin/status",), ("/bin/on",))
        producer = Producer("main", Address("127.0.0.1", 6000), agent="main-host", gates=(kind,), power=power)
        pool = Pool("EXMPL", "preview", 2, (producer,), ())
        self._agent = ProducerHost(producer, Node("main", nature, network), nature, active=True, fuse=None)
        nature.changed = self._agent.reckon
        self.host = VirtualHost(loop, seed=1)
        self.gate, self.refuses_old = Gate(kind.value, "main"), kind is not GateKind.POWER
        way_out = Exit(nature, network, self.host)
        self.port = SimHosts(pool, {"main": self._agent}, {}, way_out, lambda: None).gates[self.gate]

    def later(self, seconds: float) -> None:
        """Nothing is remembered there."""

    def hang(self) -> None:
        self._agent.hung = self._agent.power.hung = True

    def talk_nonsense(self) -> None:
        self._agent.babbles = self._agent.power.babbles = True

    def recover(self) -> None:
        self._agent.babbles = self._agent.power.babbles = self._agent.power.hung = False
        self._agent.heal()

    async def stop(self) -> None:
        self._agent.running, self._agent.power.missing = False, True


Story = Callable[[Edge], Awaitable[None]]


def by_agent(kind: GateKind) -> Callable[[Path, Story], None]:
    def run(folder: Path, story: Story) -> None:
        async def main() -> None:
            async with agent_world(folder) as world:
                await story(AgentEdge(world, kind))

        asyncio.run(main())

    return run


def by_command(folder: Path, story: Story) -> None:
    async def main() -> None:
        edge = PowerEdge(folder)
        await story(edge)
        await edge.port.close()

    asyncio.run(main())


def simulated(kind: GateKind) -> Callable[[Path, Story], None]:
    def run(folder: Path, story: Story) -> None:
        loop = VirtualLoop()

        async def main() -> None:
            await story(SimulatedEdge(loop, kind))

        loop.run(main())

    return run


ROWS = {
    "forging, simulated": simulated(GateKind.FORGING),
    "firewall, simulated": simulated(GateKind.FIREWALL),
    "power, simulated": simulated(GateKind.POWER),
    "forging, by an agent": by_agent(GateKind.FORGING),
    "firewall, by an agent": by_agent(GateKind.FIREWALL),
    "power, by commands": by_command,
}
contract = contract_of(ROWS)


# ---------------------------------------------------------------- the promises


@contract
async def test_an_open_gate_reads_open_and_a_closed_one_closed_and_certain(edge: Edge) -> None:
    assert (await edge.port.read(ANSWER)).open is True
    assert await edge.set(StepKind.CLOSE)
    closed = await edge.port.read(ANSWER)
    assert (closed.open, closed.certain) == (False, True)
    assert closed.shown
    assert await edge.set(StepKind.OPEN)
    opened = await edge.port.read(ANSWER)
    assert (opened.open, opened.certain) == (True, False)


@contract
async def test_both_steps_are_idempotent(edge: Edge) -> None:
    assert [await edge.set(StepKind.CLOSE), await edge.set(StepKind.CLOSE)] == [True, True]
    assert (await edge.port.read(ANSWER)).open is False
    assert [await edge.set(StepKind.OPEN), await edge.set(StepKind.OPEN)] == [True, True]
    assert (await edge.port.read(ANSWER)).open is True


@contract
async def test_nothing_is_done_when_still_valid_says_no(edge: Edge) -> None:
    assert await edge.port.set(edge.step(StepKind.CLOSE), ANSWER, lambda: False) is False
    assert (await edge.port.read(ANSWER)).open is True
    await edge.set(StepKind.CLOSE)
    assert await edge.port.set(edge.step(StepKind.OPEN), ANSWER, lambda: False) is False
    assert (await edge.port.read(ANSWER)).open is False


@contract
async def test_a_step_of_an_older_generation_is_refused_where_generations_are_remembered(edge: Edge) -> None:
    await edge.set(StepKind.CLOSE, generation=7)
    if edge.refuses_old:
        with pytest.raises(GateRefused, match="stale"):
            await edge.set(StepKind.OPEN, generation=6)
        assert (await edge.port.read(ANSWER)).open is False


@contract
async def test_one_that_hangs_times_out_and_is_read_again_once_it_answers(edge: Edge) -> None:
    await edge.port.read(ANSWER)
    edge.hang()
    edge.later(1.0)  # longer than one answer serves both gates of a host
    with pytest.raises(GateTimeout):
        await edge.port.read(SHORT)
    edge.recover()
    assert (await edge.port.read(ANSWER)).open is True
    edge.hang()
    with pytest.raises(GateTimeout):
        await edge.set(StepKind.CLOSE, timeout=SHORT)
    edge.recover()
    assert (await edge.port.read(ANSWER)).open is not None


@contract
async def test_nonsense_is_no_reading_and_leaves_an_opening_unknown(edge: Edge) -> None:
    await edge.set(StepKind.OPEN)
    edge.talk_nonsense()
    with pytest.raises(GateTimeout):
        await edge.set(StepKind.OPEN)
    with pytest.raises(GateRefused):
        await edge.port.read(ANSWER)
    edge.recover()
    assert (await edge.port.read(ANSWER)).open is True


@contract
async def test_one_that_is_not_there_is_unreachable_for_readings_and_steps(edge: Edge) -> None:
    await edge.stop()
    with pytest.raises(GateUnreachable):
        await edge.port.read(ANSWER)
    for kind in StepKind:
        with pytest.raises(GateUnreachable):
            await edge.set(kind)


@contract
async def test_a_closed_port_lets_go_and_may_be_closed_again(edge: Edge) -> None:
    await edge.port.read(ANSWER)
    await edge.port.close()
    await edge.port.close()


# ---------------------------------------------------------------- what both gates of one host share


async def test_one_answer_serves_both_gates_of_a_host_but_never_across_a_step(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        kinds = (GateKind.FORGING, GateKind.FIREWALL)
        producer = Producer("main", Address("127.0.0.1", 6000), agent="main-host", gates=kinds)
        pool = Pool("EXMPL", "preview", 2, (producer,), (), agents=(world.sshd.agent(),))
        at_once = RealHost(boottime=lambda: 1000.0)  # no time passes
        forging, firewall = gate_ports(pool, at_once, {"main-host": world.link(at_once)}).values()
        await asyncio.gather(forging.read(ANSWER), firewall.read(ANSWER))
        assert world.verbs == ["status"]
        await firewall.set(Step(StepKind.CLOSE, Gate("firewall", "main"), 5, 2, "a test"), ANSWER, lambda: True)
        assert (await firewall.read(ANSWER)).open is False
        assert (await forging.read(ANSWER)).open is True
        assert world.verbs == ["status", "close", "status"]


async def test_a_gate_that_the_host_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    async with agent_world(tmp_path) as world:
        world.says("status", gates={})
        with pytest.raises(GateRefused, match="main-host has no forging gate"):
            await AgentEdge(world, GateKind.FORGING).port.read(ANSWER)
