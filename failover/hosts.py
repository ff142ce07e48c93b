"""What is reached on the hosts of one pool: gates, nodes' metrics, relays, over links that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from failover.agent_link import AgentLink
from failover.gates.hostgate import gate_ports, links
from failover.model import Gate, Pool, Producer
from failover.ports import GatePort, Host, NodePort, RelayPort
from failover.probes.metrics import AgentNodePort, HttpNodePort
from failover.relay_port import AgentRelayPort

Lease = Callable[[], "tuple[float, int, int] | None"]


class RealHosts:
    """The ``Hosts`` of ports.py for a pool; connects only when used.

    ``lease`` tells how long the decider's lease still holds: fuses on producers' hosts are told with each status.
    """

    def __init__(self, pool: Pool, host: Host, lease: Lease | None = None) -> None:
        self.links: Mapping[str, AgentLink] = links(pool, host)
        for link in self.links.values():
            link.lease = lease
        self.gates: Mapping[Gate, GatePort] = gate_ports(pool, host, self.links)
        self.nodes: Mapping[str, NodePort] = {
            p.name: self._node(p, host) for p in pool.producers if p.metrics is not None or p.agent is not None
        }
        self.relays: Mapping[str, RelayPort] = {
            relay.name: AgentRelayPort(relay, pool, self.links[relay.agent], host)
            for relay in pool.relays
            if relay.agent is not None
        }

    def _node(self, producer: Producer, host: Host) -> NodePort:
        if producer.metrics is not None:
            return HttpNodePort(producer.metrics, host)
        return AgentNodePort(self.links[producer.agent or ""])

    async def close(self) -> None:
        """Let go of every connection and thread."""
        for gate in self.gates.values():
            await gate.close()
        for node in self.nodes.values():
            await node.close()
        for relay in self.relays.values():
            await relay.close()
        for link in self.links.values():
            await link.close()
