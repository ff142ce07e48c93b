"""What every ping of a node promises (PingPort, failover/ports.py), simulated and real. A new one joins by a row."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from contracts import contract_of

from failover.errors import PingError
from failover.host import RealHost
from failover.lab.chain import Chain
from failover.lab.node import Node as LabNode
from failover.model import Address, Tip
from failover.ports import PingPort
from failover.probes.ping import NodePing
from failover.simulator.edges import Exit, SimPing
from failover.simulator.host import VirtualHost
from failover.simulator.loop import VirtualLoop
from failover.simulator.nature import Nature, Network
from failover.simulator.nodes import Node, Process
from failover.simulator.wire import make_ping

MAGIC = 42
PATIENCE = 20.0  # seconds, for what must come through on any machine
SHORT = 0.4  # seconds, for what must time out


class Peer(ABC):
    """A node that is up, and the way to it. Its chain stands still for as long as a test takes."""

    port: PingPort
    address: Address

    @property
    @abstractmethod
    def tip(self) -> Tip:
        """What it says its tip is."""

    @abstractmethod
    async def refuse(self) -> None:
        """Let nobody listen any more."""

    @abstractmethod
    async def hang(self) -> None:
        """Let it take connections and say nothing."""

    @abstractmethod
    async def slow(self, seconds: float) -> None:
        """Let it take so long to answer, at least."""

    @abstractmethod
    async def lag(self, slots: int) -> None:
        """Let it stay so many slots behind."""

    @abstractmethod
    async def heal(self) -> None:
        """All is well with it again."""

    async def fails(self) -> PingError:
        """How a ping fails now."""
        with pytest.raises(PingError) as caught:
            await self.port(self.address, MAGIC, SHORT)
        return caught.value


class LabPeer(Peer):
    """The lab's node on loopback, and the controller's own ping."""

    def __init__(self, node: LabNode, port: NodePing) -> None:
        self.port = port
        self.address = node.address
        self._node = node

    @property
    def tip(self) -> Tip:
        return self._node.tip

    async def refuse(self) -> None:
        await self._node.tell("refuse")

    async def hang(self) -> None:
        await self._node.tell("hang")

    async def slow(self, seconds: float) -> None:
        await self._node.tell("slow", str(seconds))

    async def lag(self, slots: int) -> None:
        await self._node.tell("lag", str(slots))

    async def heal(self) -> None:
        await self._node.tell("heal")


class SimulatedPeer(Peer):
    """A simulated node."""

    def __init__(self, loop: VirtualLoop, make: Callable[[Mapping[Address, Node], Exit], PingPort]) -> None:
        nature = Nature(loop, seed=1)
        network = Network(nature)
        self.address = Address("10.0.1.10", 6000)
        self._node = Node("main", nature, network)
        self.port = make({self.address: self._node}, Exit(nature, network, VirtualHost(loop, seed=1)))

    @property
    def tip(self) -> Tip:
        return self._node.tip()

    async def refuse(self) -> None:
        self._node.set(Process.DOWN)

    async def hang(self) -> None:
        self._node.set(Process.HUNG)

    async def slow(self, seconds: float) -> None:
        self._node.delay = seconds

    async def lag(self, slots: int) -> None:
        self._node.held_back = slots

    async def heal(self) -> None:
        self._node.heal()


Story = Callable[[Peer], Awaitable[None]]


def simulated(make: Callable[[Mapping[Address, Node], Exit], PingPort]) -> Callable[[Path, Story], None]:
    def run(folder: Path, story: Story) -> None:
        async def main() -> None:
            await story(SimulatedPeer(loop, make))

        loop = VirtualLoop()
        loop.run(main())

    return run


def lab(folder: Path, story: Story) -> None:
    async def main() -> None:
        host = RealHost()
        chain = Chain(host.now().mono - 1_000_000.0, slot_seconds=1000.0)
        async with LabNode("main", Address("127.0.0.1", 0), MAGIC, chain, host=host) as node:
            port = NodePing(host)
            try:
                await story(LabPeer(node, port))
            finally:
                port.close()

    asyncio.run(main())


ROWS = {"simulated, as values": simulated(SimPing), "simulated, as bytes": simulated(make_ping), "the lab's node": lab}
contract = contract_of(ROWS)


# ---------------------------------------------------------------- the promises


@contract
async def test_a_node_that_is_up_tells_its_tip_and_the_time_it_took(peer: Peer) -> None:
    tip, seconds = await peer.port(peer.address, MAGIC, PATIENCE)
    assert tip == peer.tip
    assert tip.block_no > 0
    assert 0 < seconds < PATIENCE


@contract
async def test_a_node_that_lags_tells_an_older_tip(peer: Peer) -> None:
    newest = peer.tip
    await peer.lag(20)
    tip, _ = await peer.port(peer.address, MAGIC, PATIENCE)
    assert tip == peer.tip
    assert tip.slot == newest.slot - 20
    assert tip.hash != newest.hash


@contract
async def test_where_nobody_listens_the_connection_is_refused(peer: Peer) -> None:
    await peer.refuse()
    error = await peer.fails()
    assert (error.stage, error.refused) == ("connect", True)
    assert str(error) == f"{peer.address}: connection refused"
    await peer.heal()
    assert (await peer.port(peer.address, MAGIC, PATIENCE))[0] == peer.tip


@contract
async def test_a_node_that_hangs_is_connected_to_and_silent(peer: Peer) -> None:
    await peer.hang()
    error = await peer.fails()
    assert (error.stage, error.refused) == ("handshake", False)
    assert str(error) == f"{peer.address}: connected, but the handshake was not answered within {SHORT:g} s"
    await peer.heal()
    assert (await peer.port(peer.address, MAGIC, PATIENCE))[0] == peer.tip


@contract
async def test_a_node_that_is_slower_than_the_timeout_fails_behind_the_connection(peer: Peer) -> None:
    await peer.slow(1.0)
    error = await peer.fails()
    assert error.stage in ("handshake", "keep-alive", "tip")
    assert not error.refused
    assert str(error).endswith(f"within {SHORT:g} s")


@contract
async def test_a_slow_node_is_waited_for_and_its_time_is_told(peer: Peer) -> None:
    await peer.slow(0.05)
    tip, seconds = await peer.port(peer.address, MAGIC, PATIENCE)
    assert tip == peer.tip
    assert seconds >= 0.05
