"""The configuration: one YAML file, found, read and checked as a whole, and turned into a ``Pool``.

``load`` either returns what the file says, or raises InvalidConfig with everything that is wrong in it. Apart from
the file itself it reads only what the file names: passwords, certificates and keys. It connects to nothing.

document.py   text -> a tree that knows its lines (ruamel.yaml)
scalars.py    single values: durations, addresses, names
dns.py        single values of records
ssh.py        single values and files of SSH
keys.py       the types of keys (pydantic)
shape.py      the keys; the JSON Schema
parts.py      the tree's values by that shape, and pydantic's errors in our words
rules.py      what must hold between values; warnings
hosts.py      the same of agents, gates on hosts and relays; building them
records.py    the same of records; building them
secret.py     passwords, certificates, keys
tsig.py       the text of a key for dynamic updates
regular.py    reading a regular file of bounded size
reload.py     whether a running controller may take over a new file
finding.py    what is said about all of it
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failover.config import hosts, records, regular, rules, secret
from failover.config.document import MOST_BYTES, Node, read, too_large
from failover.config.finding import Finding, InvalidConfig, dotted, shown
from failover.config.parts import Parts, Problem, parts
from failover.config.regular import Unreadable
from failover.config.reload import compare
from failover.config.shape import ProxyPart, schema
from failover.errors import ConfigError
from failover.model import FenceSettings, HealthSettings, LeaseSettings, PolicySettings, Pool, Proxy

__all__ = ["Finding", "InvalidConfig", "Loaded", "compare", "find", "load", "load_text", "schema"]

VARIABLE = "FAILOVER_CONFIG"
LOCAL = "failover.yaml"
SYSTEM = Path("/etc/failover/failover.yaml")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file without a fault: the pool, what deserves a warning, and where it was read."""

    pool: Pool
    warnings: tuple[Finding, ...]
    path: Path


def find(explicit: str | None, environ: Mapping[str, str], cwd: Path, *, system: Path = SYSTEM) -> Path:
    """The file to read: ``-c``, $FAILOVER_CONFIG, ./failover.yaml, /etc/failover/failover.yaml, in this order.

    Raises ConfigError when the one that is named does not exist, or none of the usual ones does.
    """
    for source, named in (("-c/--config", explicit), (f"${VARIABLE}", environ.get(VARIABLE))):
        if named:
            if not os.path.lexists(cwd / named):
                raise ConfigError(f"{source}: {shown(named)}: there is no such file", "correct the path")
            return cwd / named
    for usual in (cwd / LOCAL, system):
        if os.path.lexists(usual):
            return usual
    raise ConfigError(
        f"no configuration: neither {cwd / LOCAL} nor {system} exists",
        f"name the file with -c FILE or ${VARIABLE}, or run where {LOCAL} is",
    )


def load(path: Path, *, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read and check the file, and the secrets that it names. Raises InvalidConfig with every finding."""
    return load_text(_text(path), str(path), environ=environ)


def load_text(text: str, name: str = LOCAL, *, environ: Mapping[str, str] = os.environ) -> Loaded:
    """The same for a text that has been read already; ``name`` is what findings call the file."""
    root, doubled = read(text, name)
    values = parts(root.plain())
    passwords: dict[int, str] = {}
    zones: records.Zones = {}
    found = [
        *values.problems,
        *rules.problems(values),
        *_files(values, environ, passwords),
        *hosts.files(values.values.get("agents", [])),
        *records.zones(values.values.get("records", []), environ, zones),
    ]
    findings = [*doubled, *(_finding(problem, root, name) for problem in found)]
    if findings:
        raise InvalidConfig(sorted(findings, key=lambda finding: finding.line or 0))
    warned = tuple(_finding(problem, root, name) for problem in rules.warnings(values))
    return Loaded(_pool(values.values, passwords, zones), warned, Path(name))


def _text(path: Path) -> str:
    """The file's text. Raises InvalidConfig."""
    try:
        content = regular.read(path, MOST_BYTES + 1)
    except Unreadable as error:
        raise InvalidConfig([Finding(str(path), None, "", None, str(error), error.mend)]) from None
    if len(content) > MOST_BYTES:
        raise too_large(str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    raise InvalidConfig([Finding(str(path), line, "", None, "is not UTF-8 text", "save the file as UTF-8")])


def _files(values: Parts, environ: Mapping[str, str], passwords: dict[int, str]) -> Iterable[Problem]:
    """Read what the proxies name: passwords by the proxy's index into ``passwords``; the rest is only tried."""
    for index, proxy in enumerate(values.values.get("proxies", [])):
        for key in ("password_file", "password_env", "ca_file", "cert_file", "key_file"):
            named = getattr(proxy, key, None)
            if named is None:
                continue
            try:
                if key == "password_file":
                    passwords[index] = secret.from_file(named)
                elif key == "password_env":
                    passwords[index] = secret.from_environment(named, environ)
                else:
                    secret.require_file(named, private=key == "key_file")
            except Unreadable as error:
                yield Problem((("proxies", index, key),), str(error), error.mend)


def _finding(problem: Problem, root: Node, file: str) -> Finding:
    """The problem at the first of its places that is written; else at the nearest line above it."""
    place = next((place for place in problem.places if root.find(place)[1]), problem.places[0])
    node, written = root.find(place)
    value = None
    if written and not problem.hidden and not isinstance(node.value, dict | list) and node.text:
        value = shown(node.text) if isinstance(node.value, str) else shown(node.text).strip("'")
    return Finding(file, node.line, dotted(place), value, problem.problem, problem.mend)


def _pool(values: Mapping[str, Any], passwords: Mapping[int, str], zones: records.Zones) -> Pool:
    network, magic = values["network"]
    names = [producer.name for producer in values["producers"]]
    return Pool(
        name=values["pool"],
        network=network,
        magic=magic,
        producers=hosts.producers(values["producers"]),
        proxies=tuple(_proxy(proxy, names, passwords.get(i)) for i, proxy in enumerate(values["proxies"])),
        references=tuple(values["references"]),
        records=records.build(values["records"], names, zones),
        agents=hosts.agents(values["agents"]),
        relays=hosts.relays(values["relays"], names),
        mode=values["mode"],
        state=values["state"],
        listen=values["listen"],
        health=HealthSettings(**values["health"].model_dump()),
        policy=PolicySettings(**values["policy"].model_dump()),
        fence=FenceSettings(**values["fence"].model_dump()),
        lease=LeaseSettings(**values["lease"].model_dump()),
    )


def _proxy(part: ProxyPart, names: list[str], password: str | None) -> Proxy:
    servers = part.servers or {}
    return Proxy(
        name=part.name,
        backend=part.backend,
        servers={name: servers.get(name, name) for name in names},
        socket=part.socket,
        stats=part.stats,
        username=part.username,
        password=password,
        ca_file=part.ca_file,
        cert_file=part.cert_file,
        key_file=part.key_file,
        watch=part.watch,
        hard_stop_after=part.hard_stop_after,
    )
