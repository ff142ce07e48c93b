"""One simulated record and what lies around it, for tests of what leads to records."""

from __future__ import annotations

from failover.model import Address, Change, Record, RecordType, Rfc2136Zone, Route53Zone, RRset
from failover.simulator.host import VirtualHost
from failover.simulator.loop import VirtualLoop
from failover.simulator.names import Name
from failover.simulator.nature import Nature, Network

NAME = "bp.example.test."
TARGETS = {"main": "192.0.2.1", "backup": "192.0.2.2"}
MAIN = RRset(RecordType.A, (TARGETS["main"],), 60)
BACKUP = RRset(RecordType.A, (TARGETS["backup"],), 60)
SWAP = Change(MAIN, BACKUP)
ROUTE53 = Route53Zone("Z1")
DYNAMIC = Rfc2136Zone(Address("192.0.2.53", 53), "example.test.", "key.", "")


class Surroundings:
    """A name that points at main, one controller's host, and a network between them. ``way`` is what a port takes."""

    def __init__(
        self, loop: VirtualLoop, provider: Route53Zone | Rfc2136Zone, *, resolvers: tuple[Address, ...] = ()
    ) -> None:
        self.nature = Nature(loop, loop.seed)
        self.network = Network(self.nature)
        self.host = VirtualHost(loop, seed=loop.seed, name="controller")
        self.name = Name(Record(NAME, NAME, TARGETS, provider, resolvers=resolvers), self.nature, MAIN)

    @property
    def way(self) -> tuple[Name, Nature, Network, VirtualHost]:
        return self.name, self.nature, self.network, self.host
