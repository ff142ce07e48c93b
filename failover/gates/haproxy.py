"""The gate that is a HAProxy server: the producer's row in a proxy's backend.

``proxy_port`` picks the way in that the file names: the runtime API (haproxy_runtime.py) or the stats page
(haproxy_stats.py); haproxy_answers.py reads what both say. The rules that both keep:

- Closing is two commands in this order: the server to maint, then its sessions shut. The other way round leaves
  sessions behind (15 of 60 flips, measured). What the commands did is seen by the next ``read``, never assumed.
- No connection outlives a call. A connection that is kept stays with the old worker after a reload, which says
  nothing about the present one and refuses every change.
- A command leaves only over a connection that has just answered who it is. Hence a hung proxy gets no command
  that it could run later, except when it hangs in the instant between.
- Opening needs the process that was read last: another one may have lost every admin state.
- ``still_valid`` is asked last, when all that is left is to send.
"""

from __future__ import annotations

import re

from failover.errors import ConfigError
from failover.model import Proxy
from failover.ports import Host, ProxyPort

# The characters that HAProxy itself allows in names; anything else could end a command early.
_NAME = re.compile(r"[A-Za-z0-9_.:-]+")


def proxy_port(proxy: Proxy, host: Host) -> ProxyPort:
    """The port of one configured proxy; connects only when used. Raises ConfigError when the names cannot be."""
    names = {"backend": proxy.backend, "watch": proxy.watch}
    names.update({f"servers.{producer}": server for producer, server in proxy.servers.items()})
    for key, name in names.items():
        if name is not None and _NAME.fullmatch(name) is None:
            raise ConfigError(
                f"proxies {proxy.name}.{key}: {name!r} is no HAProxy name", "use letters, digits and any of - _ . :"
            )
    if (proxy.socket is None) == (proxy.stats is None):
        raise ConfigError(f"proxies {proxy.name}: exactly one of `socket` and `stats` is needed", "remove one")
    if proxy.socket is not None:
        from failover.gates.haproxy_runtime import RuntimePort

        return RuntimePort(proxy, host)
    from failover.gates.haproxy_stats import StatsPort  # loads requests, which socket users need not wait for

    return StatsPort(proxy, host)
