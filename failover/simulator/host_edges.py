"""Hosts as a simulated controller reaches them: gates, metrics and relays, through agents and the operator's commands.

What a call costs and how it fails is as with the real ports (gates/hostgate.py, gates/power.py, relay_port.py): a
request travels over a kept connection, is carried out where it arrives, however its sender fares, and its answer
travels back; any of this may be slow or lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from failover.errors import GateError, GateRefused, GateTimeout, GateUnreachable, ProbeError
from failover.model import Gate, GateKind, GateReading, Kick, NodeReading, Pool, RelayReading, Step, StepKind
from failover.ports import GatePort, NodePort, RelayPort
from failover.simulator.edges import Exit
from failover.simulator.hosts import MARGIN, Agent, Deeds, PowerSwitch, ProducerHost, RelayAgent, Task

Lease = Callable[[], "tuple[float, int, int] | None"]

ASKS, SWITCHES = (0.2, 1.0), (1.0, 3.0)  # seconds that a power command takes: for status, for off


class _Link:
    """The way to one agent."""

    def __init__(self, agent: Agent, place: str, way_out: Exit) -> None:
        self.agent = agent
        self.exit = way_out
        self._place = place

    async def ask(
        self,
        words: str,
        timeout: float,
        deeds: Callable[[float], Deeds],
        *,
        still_valid: Callable[[], bool] | None = None,
    ) -> Any:
        """Let an agent do something; None when ``still_valid`` said no. ``words`` name the call at crash points."""
        way = self.exit
        self.live(f"{words}: before")
        if still_valid is not None and not still_valid():
            return None
        if not way.alive:
            raise self._gone()
        answered: asyncio.Future[Any] = way.nature.loop.create_future()
        trip = way.network.trip(way.place, self._place)
        until = way.nature.now() + timeout - min(MARGIN, 0.15 * timeout)
        if trip is not None:
            way.nature.after(trip, lambda: self._arrive(words, answered, deeds, until, still_valid is not None))
        try:
            async with way.host.timeout(timeout):
                outcome = await answered
        except TimeoutError as error:
            if not way.alive:
                raise self._gone() from error
            said = f"agent {self.agent.name} did not answer within {timeout:g} s"
            if way.network.joined(way.place, self._place) or still_valid is not None:
                raise GateTimeout(said, "see whether its host hangs") from error
            raise GateUnreachable(said, "check routing, and whether the host is up") from error
        self.live(f"{words}: reply")
        return outcome

    def _arrive(
        self, words: str, answered: asyncio.Future[Any], deeds: Callable[[float], Deeds], until: float, locked: bool
    ) -> None:
        agent = self.agent

        def back(outcome: Any, error: GateError | None) -> None:
            if error is None:
                self.exit.survives(f"{words}: effect")
            if agent.babbles:
                said = f"agent {agent.name} answered with what is no answer"
                error = GateTimeout(f"{said}: its effect is unknown") if locked else GateRefused(said)
            self._back(answered, True if outcome is None else outcome, error)

        if isinstance(agent, ProducerHost) and not (agent.node.powered and not agent.rebooting):
            return  # nobody is there to refuse
        if not agent.listens:
            self._back(answered, None, GateUnreachable(f"agent {agent.name}: Connection refused", "check its sshd"))
            return
        agent.take(Task(words, deeds(until), back, until, locked))

    def _back(self, answered: asyncio.Future[Any], outcome: Any, error: GateError | None) -> None:
        def settle() -> None:
            if answered.done():
                return
            if error is None:
                answered.set_result(outcome)
            else:
                answered.set_exception(error)

        way = self.exit
        trip = way.network.trip(self._place, way.place)
        if trip is not None:
            way.nature.after(trip, lambda: way.host.deliver(settle))

    def live(self, moment: str) -> None:
        """A crash point. Raises GateUnreachable when the process was killed there."""
        if not self.exit.survives(moment):
            raise self._gone()

    def _gone(self) -> GateUnreachable:
        return GateUnreachable(f"agent {self.agent.name}: this process was killed; nothing was sent")


class SimGatePort:
    """GatePort on a simulated host: forging or firewall."""

    def __init__(self, host: ProducerHost, kind: GateKind, way_out: Exit, lease: Lease) -> None:
        self._host = host
        self._kind = kind
        self._lease = lease
        self._link = _Link(host, host.name, way_out)

    async def read(self, timeout: float) -> GateReading:
        """See GatePort."""
        lease = self._lease()
        found: GateReading = await self._link.ask(
            f"{self._kind.value} read", timeout, lambda _: self._host.status(self._kind, lease)
        )
        return found

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See GatePort."""

        def deeds(until: float) -> Deeds:
            return self._host.order(self._kind, step.kind, step.generation, step.term, until)

        words = f"{self._kind.value} set {step.kind.value}"
        return await self._link.ask(words, timeout, deeds, still_valid=still_valid) is not None

    async def close(self) -> None:
        """See GatePort."""


class SimPowerPort:
    """GatePort on the switch of one machine: a command that runs here, and talks to a management board of its own."""

    def __init__(self, producer: str, switch: PowerSwitch, way_out: Exit) -> None:
        self._name = producer
        self._switch = switch
        self._exit = way_out

    async def read(self, timeout: float) -> GateReading:
        """See GatePort."""
        self._live("power read: before")
        await self._run(ASKS, timeout)
        if self._switch.babbles:
            raise GateRefused(f"{self._name}: power.status printed neither on nor off")
        reading = self._switch.reading()
        self._live("power read: effect")
        self._live("power read: reply")
        return reading

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See GatePort."""
        opens, words = step.kind is StepKind.OPEN, f"power set {step.kind.value}"
        if opens and not self._switch.starts:
            raise GateRefused(f"{self._name}: power.on is not set: it is switched on by hand")
        self._live(f"{words}: before")
        if not still_valid():
            return False
        await self._run(SWITCHES, timeout)
        if self._switch.babbles:
            said = f"{self._name}: the power command failed"
            raise GateTimeout(f"{said}: its effect is unknown") if opens else GateRefused(said)
        if opens:
            self._switch.on()
        else:
            self._switch.off()
        self._live(f"{words}: effect")
        if self._switch.loses:
            await self._run((timeout + 1.0, timeout + 1.0), timeout)
        self._live(f"{words}: reply")
        return True

    async def close(self) -> None:
        """See GatePort."""

    async def _run(self, takes: tuple[float, float], timeout: float) -> None:
        """The command, as long as it takes. Raises GateTimeout."""
        nature = self._exit.nature
        if self._switch.missing:
            raise GateUnreachable(f"{self._name}: the power command cannot be started", "check its path and rights")
        seconds = nature.between(*takes, "power", self._name)
        try:
            async with self._exit.host.timeout(timeout):
                await self._exit.host.sleep(2 * timeout if self._switch.hung else seconds)
        except TimeoutError as error:
            words = f"{self._name}: the power command did not end within {timeout:g} s: its effect is unknown"
            raise GateTimeout(words, "run it by hand") from error

    def _live(self, moment: str) -> None:
        if not self._exit.survives(moment):
            raise GateUnreachable(f"{self._name}: this process was killed; nothing was run")


class SimNodePort:
    """NodePort on a simulated node."""

    def __init__(self, host: ProducerHost, way_out: Exit, *, by_agent: bool) -> None:
        self._host = host
        self._by_agent = by_agent
        self._link = _Link(host, host.name, way_out)

    async def read(self, timeout: float) -> NodeReading:
        """See NodePort."""
        host = self._host

        def deeds(_: float) -> Deeds:
            yield 0.01
            return _told(host)

        try:
            if self._by_agent:
                found = await self._link.ask("metrics read", timeout, deeds)
            else:
                found = await self._fetch(timeout)
        except GateError as error:
            raise ProbeError(str(error), error.mend) from error
        if isinstance(found, ProbeError):
            raise found
        reading: NodeReading = found
        return reading

    async def _fetch(self, timeout: float) -> NodeReading | ProbeError:
        """Over HTTP: there and back, without an agent."""
        way, name = self._link.exit, self._host.name
        self._link.live("metrics read: before")
        there, back = way.network.trip(way.place, name), way.network.trip(name, way.place)
        if there is None or back is None:
            await way.host.sleep(timeout)
            return ProbeError(f"{name}: its metrics did not come within {timeout:g} s")
        await way.host.sleep(there)
        found = _told(self._host)
        await way.host.sleep(back)
        self._link.live("metrics read: reply")
        return found

    async def close(self) -> None:
        """See NodePort."""


def _told(host: ProducerHost) -> NodeReading | ProbeError:
    try:
        return host.metrics()
    except ProbeError as error:
        return error


class SimRelayPort:
    """RelayPort on a simulated relay's host."""

    def __init__(self, agent: RelayAgent, way_out: Exit) -> None:
        self._agent = agent
        self._link = _Link(agent, agent.name, way_out)

    async def read(self, timeout: float) -> RelayReading:
        """See RelayPort."""
        found: RelayReading = await self._link.ask("relay read", timeout, lambda _: self._agent.sessions())
        return found

    async def kick(self, kick: Kick, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See RelayPort."""
        asked = self._link.ask("relay kick", timeout, lambda _: self._agent.end(kick), still_valid=still_valid)
        return await asked is not None

    async def close(self) -> None:
        """See RelayPort."""


class SimHosts:
    """The ``Hosts`` of ports.py in a simulated world."""

    def __init__(
        self,
        pool: Pool,
        hosts: Mapping[str, ProducerHost],
        relays: Mapping[str, RelayAgent],
        way_out: Exit,
        lease: Lease,
    ) -> None:
        self.gates: Mapping[Gate, GatePort] = {
            gate: SimPowerPort(gate.producer, hosts[gate.producer].power, way_out)
            if gate.kind is GateKind.POWER
            else SimGatePort(hosts[gate.producer], gate.kind, way_out, lease)
            for gate in pool.host_gates
        }
        self.nodes: Mapping[str, NodePort] = {
            p.name: SimNodePort(hosts[p.name], way_out, by_agent=p.metrics is None)
            for p in pool.producers
            if p.metrics is not None or p.agent is not None
        }
        self.relays: Mapping[str, RelayPort] = {
            relay.name: SimRelayPort(relays[relay.name], way_out) for relay in pool.relays if relay.agent is not None
        }

    async def close(self) -> None:
        """See Hosts."""
