"""The reference configuration of a proxy, as text: haproxy/*.template filled from the pool's file.

Pure but for reading the templates. Secrets are not written out: HAProxy takes the password from its environment.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from failover import data
from failover.errors import ConfigError
from failover.model import Address, Pool, Proxy
from failover.ouroboros import handshake, mux

PASSWORD_VARIABLE = "FAILOVER_STATS_PASSWORD"  # noqa: S105 - the name of a variable
ADMIN_SOCKET = Path("/run/haproxy/admin.sock")
STATE_FILE = Path("/var/lib/haproxy/server-state")


@dataclass(frozen=True, slots=True)
class Place:
    """What depends on the proxy's host. Durations are HAProxy's own words; ``listen`` is where relays connect."""

    listen: str
    state_file: Path = STATE_FILE
    tls: Path = Path("/etc/haproxy/tls")  # server.pem (certificate and key), and ca.pem for client certificates
    log: str = "/dev/log local0"
    account: str | None = "haproxy"  # user and group; None: as whoever starts it
    admin_socket: Path = ADMIN_SOCKET  # unless the pool's file names another
    interval: str = "5s"
    timeout_check: str = "3s"


def configuration(pool: Pool, proxy: Proxy, place: Place) -> str:
    """The whole haproxy.cfg of one proxy. Raises ConfigError when the file asks for what HAProxy cannot do."""
    watch = _watch(proxy)
    named = any(not _literal(producer.address.host) for producer in pool.producers)
    return data.template("haproxy", "haproxy.cfg.template").substitute(
        pool=pool.name,
        proxy=proxy.name,
        preferred=pool.preferred,
        watch=watch,
        backend=proxy.backend,
        magic=pool.magic,
        proposal=proposal(pool.magic),
        log=place.log,
        account=f"    user {place.account}\n    group {place.account}\n" if place.account else "",
        sockets=_sockets(proxy, place),
        hard_stop_after=_duration(proxy.hard_stop_after),
        state_file=place.state_file,
        timeout_check=place.timeout_check,
        interval=place.interval,
        listen=place.listen,
        resolvers=_RESOLVERS if named else "",
        resolve=" resolvers system init-addr last,libc,none" if named else "",
        watch_servers="\n".join(f"    server {proxy.servers[p.name]} {p.address}" for p in pool.producers),
        routed_servers="\n".join(
            f"    server {proxy.servers[p.name]} {p.address} track {watch}/{proxy.servers[p.name]}"
            + ("" if p.name == pool.preferred else " disabled")
            for p in pool.producers
        ),
        management=_stats(proxy, place) if proxy.stats is not None else "",
    )


def units(proxy: Proxy, place: Place) -> dict[str, str]:
    """The systemd units that dump the proxy's state, by file name."""
    service = data.template("haproxy", "haproxy-state.service.template").substitute(
        socket=admin_socket(proxy, place), state_file=place.state_file
    )
    timer = data.template("haproxy", "haproxy-state.timer.template").substitute()
    return {"haproxy-state.service": service, "haproxy-state.timer": timer}


def proposal(magic: int) -> str:
    """The bytes of a node-to-node proposal for a network, in hexadecimal, for ``tcp-check send-binary``."""
    return mux.frame(mux.HANDSHAKE, handshake.proposal(magic), 0).hex()


def admin_socket(proxy: Proxy, place: Place) -> Path:
    """The unix socket of the runtime API on the proxy's host."""
    return proxy.socket if isinstance(proxy.socket, Path) else place.admin_socket


_RESOLVERS = """
# Producers are named by DNS: follow the name, and start even when it does not resolve.
resolvers system
    parse-resolv-conf
"""


def _sockets(proxy: Proxy, place: Place) -> str:
    group = f" group {place.account}" if place.account else ""
    lines = f"    stats socket {admin_socket(proxy, place)} mode 660{group} level admin expose-fd listeners\n"
    if isinstance(proxy.socket, Address):
        lines += "    # Plain text without a password: let only the controller reach it (a tunnel, a firewall).\n"
        lines += f"    stats socket {_bind(proxy.socket.host, proxy.socket.port)} level admin\n"
    return lines


def _stats(proxy: Proxy, place: Place) -> str:
    url = urlsplit(proxy.stats or "")
    secure = url.scheme == "https"
    bind = _bind(url.hostname or "", url.port or (443 if secure else 80))
    if secure:
        bind += f" ssl crt {place.tls / 'server.pem'} ssl-min-ver TLSv1.2"
    if secure and proxy.cert_file is not None:
        bind += f" ca-file {place.tls / 'ca.pem'} verify required"
    guard, auth, admin = _rights(proxy, secure)
    return data.template("haproxy", "stats.cfg.template").substitute(
        guard=guard, bind=bind, uri=_uri(url), auth=auth, admin=admin
    )


def _rights(proxy: Proxy, secure: bool) -> tuple[str, str, str]:
    """The start-up guard, the ``stats auth`` line and the rule that may change states."""
    if proxy.username is not None:
        if not all(c.isalnum() or c in "._-@" for c in proxy.username):
            raise ConfigError(
                f"proxies {proxy.name}.username: {proxy.username!r} cannot stand in HAProxy's configuration",
                "use letters, digits and any of . _ - @",
            )
        guard = (
            f"# The password is not written here: put {PASSWORD_VARIABLE}=... into HAProxy's environment\n"
            "# (/etc/default/haproxy, mode 0600). It does not start without.\n"
            f'.if !defined({PASSWORD_VARIABLE})\n.alert "set {PASSWORD_VARIABLE} in the environment"\n.endif\n'
        )
        return guard, f'    stats auth "{proxy.username}:${{{PASSWORD_VARIABLE}}}"\n', "TRUE"
    if secure and proxy.cert_file is not None:
        return "", "    # Who may come in at all is decided by the client certificate (bind, above).\n", "TRUE"
    return "", "    # No username in the pool's file: only this host may change states.\n", "{ src 127.0.0.0/8 ::1 }"


def _uri(url: SplitResult) -> str:
    path = url.path or "/"
    return f"{path}?{url.query}" if url.query else path


def _bind(host: str, port: int) -> str:
    """A listening address. A name cannot be bound reliably at start: every address, and the operator narrows it."""
    if not _literal(host):
        return f"*:{port}"
    return f"ipv6@[{host}]:{port}" if ":" in host else f"ipv4@{host}:{port}"


def _watch(proxy: Proxy) -> str:
    if proxy.watch == proxy.backend:
        raise ConfigError(
            f"proxies {proxy.name}.watch: {proxy.watch!r} is also its backend", "name a backend that routes nothing"
        )
    if proxy.watch is not None:
        return proxy.watch
    return "watch" if proxy.backend != "watch" else "watched"


def _duration(seconds: float | None) -> str:
    """HAProxy's word for a duration; without one, what the reference uses."""
    if seconds is None:
        return "5s"
    return f"{seconds:g}s" if seconds == int(seconds) else f"{round(seconds * 1000)}ms"


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
