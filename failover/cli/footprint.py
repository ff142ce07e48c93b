"""What the controller and agents use, host by host: sockets, files, rules, permissions. From the file alone.

What an agent uses is told by the agent's own program, for the configuration that its host gets; so the two agree.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from failover.cli import installation
from failover.config.document import read
from failover.model import Address, Agent, Pool, Producer, Proxy, Record, Relay, Rfc2136Zone, Route53Zone
from failover.records.iam import policy

_ANY_KEY = "ssh-ed25519 AAAA"  # which files there are does not depend on it
KINDS = 12  # characters of the widest kind that is printed


@dataclass(frozen=True, slots=True)
class Use:
    """One thing that is used: of which kind, what exactly, and what for."""

    kind: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """Everything that is used on one host."""

    host: str
    uses: tuple[Use, ...]


def text(pool: Pool, path: Path, *, as_json: bool = False) -> str:
    """The footprint of the pool's file at ``path``, for people or as one JSON document."""
    root, _ = read(path.read_text(encoding="utf-8-sig"), str(path))
    found = footprint(pool, path, root.plain())
    if as_json:
        hosts = [
            {"host": each.host, "uses": [{"kind": u.kind, "what": u.what, "why": u.why} for u in each.uses]}
            for each in found
        ]
        return json.dumps({"pool": pool.name, "hosts": hosts}, indent=2)
    return "\n\n".join("\n".join([each.host, *map(_line, each.uses)]) for each in found)


def _line(use: Use) -> str:
    return f"  {use.kind.ljust(KINDS)}  {use.what}\n  {' ' * KINDS}    {use.why}"


def footprint(pool: Pool, path: Path, written: Mapping[str, Any]) -> tuple[Footprint, ...]:
    """By host: this one first, then every agent's, nodes without one, proxies, DNS, references.

    ``written`` is the file as it stands, for the names of files and variables with secrets: their values are not used.
    """
    hosts = [Footprint("this host, the controller", tuple(_controller(pool, path, written)))]
    hosts += [Footprint(f"{_title(place)}", tuple(_agent(pool, place))) for place in installation.places(pool)]
    nodes: tuple[Producer | Relay, ...] = (*pool.producers, *pool.relays)
    bare = [node for node in nodes if node.agent is None]
    producers = [p.address for p in pool.producers]
    for node in bare:
        if isinstance(node, Relay) and node.address in producers:
            continue
        uses = tuple(_node(pool, node.name))
        if uses:
            hosts.append(Footprint(f"host of {node.name} ({node.address})", uses))
    hosts += [Footprint(f"host of proxy {proxy.name}", tuple(_proxy(pool, proxy))) for proxy in pool.proxies]
    hosts += [Footprint(title, tuple(uses)) for title, uses in _providers(pool, written).items()]
    hosts += [
        Footprint(f"reference {each}", (Use("listens", f"TCP {each.port}, from the controller", _PINGED),))
        for each in pool.references
    ]
    return tuple(hosts)


_PINGED = "its tip, by the node-to-node protocol, every health.interval"


def _title(place: installation.Place) -> str:
    return f"host of {place.name} (agent {place.agent.name}, {place.agent.address})"


# ---------------------------------------------------------------- the controller


def _controller(pool: Pool, path: Path, written: Mapping[str, Any]) -> Iterator[Use]:
    yield Use("run as", "a user of its own, without root, sudo or capabilities", "the daemon, and commands")
    yield Use("read", f"{path}", "the pool's file: when it starts, and at SIGHUP")
    yield Use("write", f"{pool.state}/ (0700: failover.sqlite with its journal, ballast)", "assignment, journal, lease")
    yield Use(
        "listen", f"TCP {pool.listen}", "/metrics, /healthz, /status; there is no password, and nothing to change"
    )
    yield from _secrets(written)
    for agent in pool.agents:
        yield Use("connect", f"TCP {agent.address} (SSH, as {agent.user})", f"the agent {agent.name}, and nothing else")
    for producer in pool.producers:
        yield Use("connect", f"TCP {producer.address}", f"{producer.name}: health and tip, every health.interval")
        if producer.metrics is not None:
            yield Use("connect", f"TCP {_endpoint(producer.metrics)}", f"{producer.name}: its metrics")
        if producer.power is not None:
            power = producer.power
            for verb, command in (("status", power.status), ("off", power.off), ("on", power.on)):
                if command is not None:
                    yield Use("run", " ".join(command), f"power of {producer.name}: {verb}; without a shell")
    for reference in pool.references:
        yield Use("connect", f"TCP {reference}", f"a reference: {_PINGED}")
    for proxy in pool.proxies:
        where = f"TCP {_endpoint(proxy.stats)}" if proxy.stats is not None else _socket(proxy)
        yield Use("connect", where, f"proxy {proxy.name}: reads and moves the producers' servers of {proxy.backend}")
    yield from _dns(pool)


def _secrets(written: Mapping[str, Any]) -> Iterator[Use]:
    """Files and variables that the pool's file names; each once."""
    found: dict[tuple[str, str], str] = {}
    for agent in written.get("agents") or []:
        found.setdefault(("read", f"{agent['key_file']} (0600)"), "the SSH key that starts agents, and nothing else")
        if "known_hosts" in agent:
            found.setdefault(("read", str(agent["known_hosts"])), "the keys by which agents' hosts are known")
    for proxy in written.get("proxies") or []:
        why = f"proxy {proxy['name']}: "
        for key, what in (("password_file", "its password"), ("key_file", "the client certificate's key")):
            if key in proxy:
                found.setdefault(("read", f"{proxy[key]} (0600)"), why + what)
        for key, what in (("ca_file", "whom its certificate must chain to"), ("cert_file", "the client certificate")):
            if key in proxy:
                found.setdefault(("read", str(proxy[key])), why + what)
        if "password_env" in proxy:
            found.setdefault(("environment", f"${proxy['password_env']}"), why + "its password")
    for record in written.get("records") or []:
        update = record.get("rfc2136") or {}
        if "key_file" in update:
            found.setdefault(("read", f"{update['key_file']} (0600)"), "the TSIG key of dynamic updates")
        if "key_env" in update:
            found.setdefault(("environment", f"${update['key_env']}"), "the TSIG key of dynamic updates")
        if "route53" in record:
            profile = (record["route53"] or {}).get("profile")
            where = "AWS credentials" + (f" of profile {profile}" if profile else "")
            found.setdefault(("read", f"{where}, where the AWS tools look for them"), "Route 53")
    for (kind, what), why in found.items():
        yield Use(kind, what, why)


def _dns(pool: Pool) -> Iterator[Use]:
    yield Use("connect", "UDP and TCP 53 of this host's resolvers", "names in the file; zones' own servers")
    seen: set[str] = set()
    for record in pool.records:
        provider = record.provider
        if isinstance(provider, Route53Zone):
            where = f"TCP {_endpoint(provider.endpoint_url or 'https://route53.amazonaws.com')} (HTTPS)"
        else:
            where = f"TCP {provider.server}"
        if where not in seen:
            seen.add(where)
            yield Use("connect", where, "reads and swaps records")
        asked = record.resolvers or record.servers
        named = ", ".join(map(str, asked)) if asked else "port 53 of the zone's authoritative servers"
        looked = f"UDP and TCP {named}"
        if looked not in seen:
            seen.add(looked)
            yield Use("connect", looked, "what the world is told")


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    return str(Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)))


def _socket(proxy: Proxy) -> str:
    return f"TCP {proxy.socket}" if isinstance(proxy.socket, Address) else f"UNIX {proxy.socket}"


# ---------------------------------------------------------------- producers and relays


def _agent(pool: Pool, place: installation.Place) -> Iterator[Use]:
    port = place.agent.address.port
    yield Use("listens", f"TCP {port} (sshd), from the controller", f"the agent, as user {place.agent.user}")
    yield from _node(pool, place.name)
    for row in of_agent(installation.configuration(pool, place), place.agent):
        yield Use(row["kind"], row["what"], row["why"])
    for file in installation.files(pool, place, _ANY_KEY):
        if file.path != installation.CONFIGURATION:  # the agent has told of that one
            yield Use("file", f"{file.path} (root, {file.mode:04o})", file.why)


def of_agent(configuration: Mapping[str, Any], agent: Agent) -> Sequence[Mapping[str, str]]:
    """What the agent's program says that it uses, with this configuration, as it is installed on its host."""
    from failover import agent as program

    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(configuration, file)
        file.flush()
        rows = program.footprint(program.read_config(Path(file.name)))
        swaps = {str(Path(program.__file__).resolve()): installation.PROGRAM, file.name: installation.CONFIGURATION}
    return [{key: _as_installed(word, swaps, agent) for key, word in row.items()} for row in rows]


def _as_installed(word: str, swaps: Mapping[str, str], agent: Agent) -> str:
    for here, there in swaps.items():
        word = word.replace(here, there)
    rule = "failover ALL="
    return f"{agent.user} ALL={word.removeprefix(rule)}" if word.startswith(rule) else word


def _node(pool: Pool, name: str) -> Iterator[Use]:
    """What reaches a node besides its agent."""
    for producer in pool.producers:
        if producer.name == name:
            yield Use("listens", f"TCP {producer.address.port}, from the controller", _PINGED)
            if producer.metrics is not None:
                yield Use(
                    "listens", f"TCP {_endpoint(producer.metrics)}, from the controller", "its metrics; read only"
                )


# ---------------------------------------------------------------- proxies, DNS


def _proxy(pool: Pool, proxy: Proxy) -> Iterator[Use]:
    moves = f"moves the producers' servers of {proxy.backend}, and ends their sessions"
    if proxy.socket is not None:
        level = "`level admin` of that socket: HAProxy has no narrower one"
        if isinstance(proxy.socket, Address):
            yield Use("listens", f"TCP {proxy.socket}, from the controller alone: it asks for no password", moves)
        else:
            yield Use("socket", f"{proxy.socket} (its group: the controller's user, on this very host)", moves)
        yield Use("permission", level, moves)
    else:
        yield Use("listens", f"TCP {_endpoint(proxy.stats or '')}, from the controller", moves)
        yield Use("permission", "`stats admin` of that page", moves)
    ports = ", ".join(str(producer.address) for producer in pool.producers)
    yield Use("connect", f"TCP {ports}", "HAProxy's own checks, and relays' sessions")


def _providers(pool: Pool, written: Mapping[str, Any]) -> Mapping[str, list[Use]]:
    """What the credentials for records must allow, and need not."""
    found: dict[str, list[Use]] = {}
    if any(isinstance(record.provider, Route53Zone) for record in pool.records):
        found["Route 53"] = list(_route53(pool.records))
    for record in pool.records:
        provider = record.provider
        if isinstance(provider, Rfc2136Zone):
            uses = found.setdefault(f"name server {provider.server}", [])
            kinds = " ".join(sorted(kind.value for kind in record.types))
            grant = f"update-policy {{ grant {provider.key_name} name {record.name} {kinds}; }};"
            uses.append(Use("permission", grant, "swaps that name alone; the key needs no transfer of the zone"))
    return found


def _route53(records: Sequence[Record]) -> Iterator[Use]:
    why = "the least policy is printed by failover render iam; no other action is called"
    for statement in policy(records)["Statement"]:
        wanted = statement.get("Condition", {}).get("ForAllValues:StringEquals", {})
        only = "; ".join(", ".join(values) for values in wanted.values())
        what = f"{statement['Action']} on {statement['Resource']}" + (f", for {only} alone" if only else "")
        yield Use("permission", what, why)
