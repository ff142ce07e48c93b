"""Topology files as ``failover check`` looks at them: given on the command line, or as agents sent them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from failover.cli.inspection import Found, Severity
from failover.config.regular import Unreadable
from failover.config.regular import read as read_file
from failover.errors import PingError
from failover.topology import leaks
from failover.topology.document import MOST_BYTES, canonical, is_literal, read
from failover.topology.paths import ONE_WAY_SINCE, Resolve, Version, dotted, names, node, one_way, record_of

if TYPE_CHECKING:
    from failover.model import Pool
    from failover.ouroboros.ping import Resolver
    from failover.ports import Host

MOST_NAMES = 32  # names that are looked up; files of relays may list friends without end


def named(pool: Pool, options: Sequence[str]) -> dict[str, Path]:
    """``NAME=FILE`` options as files by part. Raises UsageError."""
    found: dict[str, Path] = {}
    for option in options:
        name, equals, file = option.partition("=")
        if not equals or not name or not file:
            raise click.UsageError(
                f"--topology: {option[:80]!r} is not NAME=FILE, as in main=/etc/cardano/topology.json"
            )
        if name not in names(pool):
            known = ", ".join(names(pool))
            raise click.UsageError(f"--topology: {name[:80]!r} is no producer and no relay of the file; it has {known}")
        if name in found:
            raise click.UsageError(f"--topology: {name} is given twice; each node has one file")
        found[name] = Path(file)
    return found


def texts(files: Mapping[str, Path]) -> tuple[dict[str, str], list[Found]]:
    """The files' texts by part, and what is to be said of those that cannot be read."""
    given: dict[str, str] = {}
    found = []
    for name, path in files.items():
        try:
            given[name] = read_file(path, MOST_BYTES + 1).decode("utf-8")
        except Unreadable as error:
            found.append(Found(Severity.ERROR, leaks.part(name), f"{path}: {error}", error.mend))
        except UnicodeDecodeError:
            mend = "is this the right file? JSON is text in UTF-8"
            found.append(Found(Severity.ERROR, leaks.part(name), f"{path}: is not text", mend))
    return given, found


def topologies(
    pool: Pool,
    given: Mapping[str, str],
    *,
    resolve: Resolve | None = None,
    versions: Mapping[str, Version] | None = None,
) -> list[Found]:
    """What the topology files say, as texts by the name of their producer or relay. Raises ConfigError for others.

    ``versions`` are those of the nodes that read the files, where known; ``resolve`` looks a name up.
    """
    found: list[Found] = []
    leaked: list[leaks.Leak] = []
    for name, text in given.items():
        part, reading = leaks.part(name), read(text)
        found.extend(Found(Severity.ERROR, part, problem.what, problem.mend) for problem in reading.problems)
        if reading.unknown:
            words = f"keys that cardano-node passes over: {', '.join(reading.unknown)}"
            found.append(Found(Severity.NOTE, part, words, "see whether they are misspelt"))
        if reading.topology is None:
            continue
        version = (versions or {}).get(name)
        here = leaks.find(pool, name, reading.topology, version=version, resolve=resolve)
        leaked.extend(here)
        found.extend(_found(leak) for leak in here)
        if all(leak.severity is leaks.Severity.NOTE for leak in here):
            found.append(Found(Severity.OK, part, _fine(pool, name, version)))
    against = leaks.contradiction(pool, leaked)
    return found if against is None else [*found, _found(against)]


async def looked_up(pool: Pool, given: Mapping[str, str], host: Host) -> dict[str, tuple[str, ...]]:
    """What the names in the files and in the pool's file lead to, all at the same time; not the records' own names."""
    from failover.ouroboros.ping import Resolver

    resolver = Resolver(host)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {n: group.create_task(_look_up(resolver, n, pool.health.timeout)) for n in _names(pool, given)}
    finally:
        resolver.close()
    return {name: task.result() for name, task in tasks.items()}


def resolver_of(known: Mapping[str, tuple[str, ...]]) -> Resolve:
    """``looked_up``'s answers as a function of any spelling of a name."""
    by_name = {canonical(name): addresses for name, addresses in known.items()}
    return lambda name: by_name.get(canonical(name), ())


def _names(pool: Pool, given: Mapping[str, str]) -> tuple[str, ...]:
    hosts = [p.address.host for p in pool.producers] + [r.address.host for r in pool.relays]
    for text in given.values():
        if (topology := read(text).topology) is not None:
            hosts += [point.host for point in topology.points() if record_of(pool, point) is None]
    return tuple(dict.fromkeys(canonical(host) for host in hosts if not is_literal(host)))[:MOST_NAMES]


async def _look_up(resolver: Resolver, name: str, timeout: float) -> tuple[str, ...]:
    """Nothing where it does not resolve: that is somebody else's finding."""
    try:
        return tuple(str(found.sockaddr[0]) for found in await resolver(name, 0, timeout))
    except (PingError, TimeoutError):
        return ()


def _found(leak: leaks.Leak) -> Found:
    return Found(Severity(leak.severity.value), leak.part, leak.what, leak.mend)


def _fine(pool: Pool, name: str, version: Version | None) -> str:
    producer, _ = node(pool, name)
    if producer is not None and version is None and one_way(pool, producer):
        return f"no leak, if its node is {dotted(ONE_WAY_SINCE)} or later: older ones pass over diffusionMode"
    return "no leak"
