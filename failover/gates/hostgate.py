"""The gates that an agent moves on a producer's own host: forging and firewall, through one link that they share.

``gate_ports`` and ``links`` build the ports of a whole pool; power is in power.py, and needs no agent. The link is
shared by gates, relays and whoever reads a node's metrics: it is closed by whoever made it, not by a port.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from failover import agent_answers as answers
from failover.agent_answers import Nonsense
from failover.agent_link import AgentLink
from failover.errors import ConfigError, GateRefused
from failover.gates.power import PowerPort
from failover.model import Gate, GateKind, GateReading, Pool, Producer, Step
from failover.ports import GatePort, Host

SHARED = 0.5  # seconds for which one answer to ``status`` serves both gates of a host
LONGEST_REASON = 200  # characters


class HostGatePort:
    """GatePort (failover/ports.py) for what the agent on the producer's host can open and close."""

    kind: GateKind

    def __init__(self, producer: str, link: AgentLink) -> None:
        self._producer = producer
        self._link = link

    async def read(self, timeout: float) -> GateReading:
        """See GatePort. One ``status`` may serve both gates of a host, unless a change was sent since it was asked."""
        found = (await self._link.status(timeout, max_age=SHARED)).gates.get(self.kind.value)
        if found is None:
            agent = self._link.agent.name
            raise GateRefused(
                f"{self._producer}: its agent {agent} has no {self.kind.value} gate",
                f'add "{self.kind.value}" to gates in /etc/failover-agent.json there, or remove it from the file here',
            )
        return found.reading

    async def set(self, step: Step, timeout: float, still_valid: Callable[[], bool]) -> bool:
        """See GatePort."""
        said = await self._link.ask(
            step.kind.value,
            timeout,
            still_valid=still_valid,
            gate=self.kind.value,
            generation=step.generation,
            term=step.term,
            reason=answers.words(step.reason, LONGEST_REASON),
        )
        if said is None:
            return False
        try:
            answers.gate(answers.part(said, "gate"))
        except Nonsense as error:
            raise self._link.nonsense(error, changes=True) from None
        return True

    async def close(self) -> None:
        """See GatePort. The link stays: others use it."""


class ForgingPort(HostGatePort):
    """The producer's credentials: there, or put aside."""

    kind = GateKind.FORGING


class FirewallPort(HostGatePort):
    """The set of addresses whose traffic with the node's user is dropped, both ways."""

    kind = GateKind.FIREWALL


def links(pool: Pool, host: Host) -> Mapping[str, AgentLink]:
    """One link for each agent, by the agent's name; connects only when used."""
    return {agent.name: AgentLink(agent, pool.name, host) for agent in pool.agents}


def gate_ports(pool: Pool, host: Host, links: Mapping[str, AgentLink]) -> Mapping[Gate, GatePort]:
    """A port for each gate on a producer's own host. Raises ConfigError when one has no way in."""
    producers = {producer.name: producer for producer in pool.producers}
    return {gate: _port(gate, producers[gate.producer], host, links) for gate in pool.host_gates}


def _port(gate: Gate, producer: Producer, host: Host, links: Mapping[str, AgentLink]) -> GatePort:
    if gate.kind is GateKind.POWER:
        if producer.power is None:
            raise ConfigError(f"producers {producer.name}: a power gate without commands", "add power: {off, status}")
        return PowerPort(producer.name, producer.power, host)
    if producer.agent is None or producer.agent not in links:
        raise ConfigError(f"producers {producer.name}: a {gate.kind.value} gate without an agent", "add agent")
    kind = ForgingPort if gate.kind is GateKind.FORGING else FirewallPort
    return kind(producer.name, links[producer.agent])
