"""The controller's PingPort on the node-to-node ping: an address in, the tip and the seconds out."""

from __future__ import annotations

from failover.model import Address, Tip
from failover.ouroboros.ping import Resolver, ping
from failover.ports import Host

LINGER = 0.1  # seconds before closing: a FIN that overtakes our Done messages is an error in the node's log


class NodePing:
    """PingPort (failover/ports.py). Names are looked up in threads that are kept for as long as this lives."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._resolver = Resolver(host)

    async def __call__(self, address: Address, magic: int, timeout: float) -> tuple[Tip, float]:
        """The tip, and the seconds that the whole ping took. Raises PingError."""
        linger = min(LINGER, timeout / 10)
        result = await ping(self._host, address, magic, timeout, resolver=self._resolver, linger=linger)
        return result.tip, result.duration_ms / 1e3

    def close(self) -> None:
        """Let go of the threads."""
        self._resolver.close()
