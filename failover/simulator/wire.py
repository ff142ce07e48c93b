"""Proxies and nodes as a simulated controller reaches them through the text of the real protocols.

The same ports as in edges.py, on the same truth: the product's own runtime client (wire_haproxy.py) and its own ping
(wire_node.py), over connections of bytes (streams.py); its own stats page client (wire_stats.py), by request.
"""

from __future__ import annotations

from collections.abc import Mapping

from failover.model import Address
from failover.ports import PingPort, ProxyPort
from failover.simulator.edges import Exit
from failover.simulator.nodes import Node
from failover.simulator.proxies import HAProxy
from failover.simulator.wire_haproxy import WireProxyPort


def make_proxy(haproxy: HAProxy, way_out: Exit) -> ProxyPort:
    """The port of a simulated HAProxy by the way in that the pool's file names."""
    if haproxy.config.stats is None:
        return WireProxyPort(haproxy, way_out)
    from failover.simulator.wire_stats import WireStatsPort  # loads requests, which socket users need not wait for

    return WireStatsPort(haproxy, way_out)


def make_ping(nodes_by_address: Mapping[Address, Node], way_out: Exit) -> PingPort:
    """The node-to-node ping of simulated nodes."""
    from failover.simulator.wire_node import WirePing  # loads cbor2

    return WirePing(nodes_by_address, way_out)
