"""Simulated Cardano nodes: producers and references. What they are, apart from what anybody can see of them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from failover.model import Tip
from failover.simulator.host import draw
from failover.simulator.nature import Nature, Network

SLOTS0 = 5_000_000  # the chain's slot when the world begins
BLOCK_EVERY = 20  # slots; f = 0.05
IN_SYNC = 60  # slots; max_lag of the file, as a rule
CATCHES_UP = 60.0  # slots a second that a node makes up for when it syncs again


class Process(StrEnum):
    """What has become of a node's process."""

    UP = "up"
    DOWN = "down"  # nobody listens: connections are refused
    STARTING = "starting"  # it replays its ledger: nobody listens yet
    HUNG = "hung"  # the kernel accepts connections, nobody answers


class Node:
    """One node. ``syncs`` is asked whether it has anywhere to get blocks from; every change calls nature.changed()."""

    def __init__(self, name: str, nature: Nature, network: Network) -> None:
        self.name = name
        self.process = Process.UP
        self.powered = True
        self.delay = 0.0  # seconds that it takes to answer, besides the network
        self.held_back = 0  # slots that its tip stays behind, whatever it gets
        self.stuck = False  # it answers, but adopts no block any more
        self.fork: int | None = None  # the block number from which on it is on a chain of its own
        self.lies_ahead = 0  # slots by which a foreign or lying peer is ahead of the chain
        self.keyless = False  # its process has no credentials
        self.spent = False  # its KES key can sign no block any more
        self.walled = False  # a firewall lets nobody to it, and nothing of it out
        self.syncs: Callable[[], bool] = lambda: True
        self._nature = nature
        self._network = network
        self._slot = float(SLOTS0)  # how far it had come ...
        self._since = 0.0  # ... at this time
        self._flowing = True  # whether blocks have reached it since then

    @property
    def forges(self) -> bool:
        """Whether it runs as it should: it makes blocks when it is slot leader, if it has the keys (``gets_out``)."""
        return self.powered and self.process is Process.UP

    @property
    def gets_out(self) -> bool:
        """Whether it makes blocks, and nothing on its own host keeps them there."""
        return self.forges and not (self.keyless or self.spent or self.walled)

    @property
    def in_sync(self) -> bool:
        """Whether its tip is as near the chain's as a producer's should be."""
        return abs(self._nature.now() + SLOTS0 - self.slot()) + self.held_back <= IN_SYNC

    @property
    def on_the_chain(self) -> bool:
        """Whether the blocks that it makes are built on everybody's chain, and so can last."""
        return self.in_sync and self.fork is None

    def set(self, process: Process) -> None:
        """Let its process end, start, hang or go on."""
        self.process = process
        self._nature.changed()

    def power(self, *, on: bool) -> None:
        """Take the machine's power, or give it back; the node starts with it."""
        self.powered = on
        self._network.power(self.name, on=on)
        self.set(Process.UP if on else Process.DOWN)

    def reckon(self) -> None:
        """Take note of whether blocks reach it from now on."""
        self._slot, self._since = self.slot(), self._nature.now()
        self._flowing = self.forges and not self.stuck and self.syncs()

    def slot(self) -> float:
        """The slot up to which it knows the chain."""
        now = self._nature.now()
        if not self._flowing:
            return self._slot
        return min(SLOTS0 + now, self._slot + CATCHES_UP * (now - self._since))

    def tip(self) -> Tip:
        """The last block of the chain that it is on."""
        number = (int(self.slot()) - self.held_back + self.lies_ahead) // BLOCK_EVERY
        branch = 0 if self.fork is None or number < self.fork else 1 + draw(0, "branch", self.name) % 1000
        return Tip(number * BLOCK_EVERY, f"{draw(0, 'block', branch, number):016x}" * 4, number)

    def branch_off(self) -> None:
        """Be on a chain of its own from the next block on."""
        self.fork = int(self.slot()) // BLOCK_EVERY + 1

    def heal(self) -> None:
        """All is well with it, at once."""
        self.delay, self.held_back, self.stuck, self.fork, self.lies_ahead = 0.0, 0, False, None, 0
        if not self.powered:
            self._network.power(self.name, on=True)
        self.powered = True
        self.set(Process.UP)
