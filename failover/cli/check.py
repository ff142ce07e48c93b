"""``failover check``: try the file, and read-only everything that it names."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from failover.cli.file import loaded

if TYPE_CHECKING:
    from failover.cli.host_inspection import Told
    from failover.cli.inspection import Found
    from failover.config import Finding


@click.command("check")
@click.option("--offline", is_flag=True, help="Only read the file, and what it names on this machine's disk.")
@click.option(
    "--topology",
    "given",
    multiple=True,
    metavar="NAME=FILE",
    help="The topology file of a producer or relay, to be looked through for leaks; once for each.",
)
@click.option(
    "--node-version",
    metavar="VERSION",
    help="The cardano-node that reads the --topology files, as in 10.5.1. Default: one that knows all their keys.",
)
@click.option(
    "--footprint",
    is_flag=True,
    help="Print instead what the controller and agents use on each host; from the file alone, nothing is asked.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(
    ctx: click.Context,
    offline: bool,
    given: tuple[str, ...],
    node_version: str | None,
    footprint: bool,
    as_json: bool,
) -> None:
    """Read the file; then look, changing nothing, at every producer, reference, proxy, record, agent and gate, the
    state folder and the clock, and at the topology files that are given or that agents show.

    Exit status: 0 nothing to mend (notes do not count); 1 errors or warnings were found; 2 the file itself is wrong.
    """
    from failover.cli import inspection

    if footprint and (offline or given or node_version is not None):
        raise click.UsageError("--footprint goes with --json alone: it asks nothing, and looks at no topology")
    found = loaded(ctx)
    if footprint:
        from failover.cli import footprint as used

        click.echo(used.text(found.pool, found.path, as_json=as_json))
        return
    topologies = _Topologies.of(found.pool, given, node_version)
    findings = [_of_file(warning) for warning in found.warnings]
    findings.append(inspection.Found(inspection.Severity.OK, "file", f"{found.path} has no error"))
    if offline:
        findings.extend(inspection.state(found.pool))
    else:
        looked, told = asyncio.run(_asked(found.pool))
        findings.extend([*looked, *told.found])
        findings.extend(_listen(found.pool))
        topologies = topologies.beside(told)
    findings.extend(topologies.findings(offline=offline))
    bad = sum(f.severity in (inspection.Severity.ERROR, inspection.Severity.WARNING) for f in findings)
    if as_json:
        rows = [{"severity": f.severity.value, "part": f.part, "what": f.what, "mend": f.mend} for f in findings]
        click.echo(json.dumps({"pool": found.pool.name, "findings": rows}, indent=2))
    else:
        _print(findings)
        click.echo(f"{bad} to mend" if bad else "nothing to mend")
    sys.exit(1 if bad else 0)


async def _asked(pool: Pool) -> tuple[list[Found], Told]:
    """All parts and all hosts, at the same time."""
    from failover.cli import host_inspection, inspection
    from failover.host import RealHost

    host = RealHost()
    async with asyncio.TaskGroup() as group:
        parts = group.create_task(inspection.everything(pool, host))
        hosts = group.create_task(host_inspection.hosts(pool, host))
    return parts.result(), hosts.result()


@dataclass(frozen=True, slots=True)
class _Topologies:
    """The topology files that were given; wrong options are refused before anything is asked."""

    pool: Pool
    files: Mapping[str, Path]
    versions: Mapping[str, tuple[int, ...]]
    told: Mapping[str, str] = field(default_factory=dict)  # texts that came from agents

    @classmethod
    def of(cls, pool: Pool, given: Sequence[str], node_version: str | None) -> _Topologies:
        from failover.cli.topologies import named
        from failover.topology.paths import version

        files = named(pool, given)
        return cls(pool, files, dict.fromkeys(files, version(node_version)) if node_version is not None else {})

    def beside(self, told: Told) -> _Topologies:
        """With those that agents showed; a file that was given stands for its node's."""
        return replace(self, told=told.topologies, versions={**told.versions, **self.versions})

    def findings(self, *, offline: bool) -> list[Found]:
        """What they say; names in them are looked up unless offline."""
        if not self.files and not self.told:
            return []
        from failover.cli import topologies

        given, findings = topologies.texts(self.files)
        texts = {**self.told, **given}
        known: Mapping[str, tuple[str, ...]] = {}
        if not offline:
            from failover.host import RealHost

            known = asyncio.run(topologies.looked_up(self.pool, texts, RealHost()))
        resolve = topologies.resolver_of(known)
        return [*findings, *topologies.topologies(self.pool, texts, resolve=resolve, versions=self.versions)]


def _of_file(warning: Finding) -> Found:
    from failover.cli.inspection import Found, Severity

    place = f"{warning.key}: " if warning.key else ""
    line = f" (line {warning.line})" if warning.line is not None else ""
    # What a pool without any gate cannot promise is said each time, and is no fault of the file.
    severity = Severity.NOTE if warning.key == "fence.require" else Severity.WARNING
    return Found(severity, "file", f"{place}{warning.problem}{line}", warning.mend)


def _listen(pool: Pool) -> list[Found]:
    """Who answers where the daemon is to listen: it, nobody, or somebody else."""
    import socket

    from failover.cli.daemon import TIMEOUT, fetch
    from failover.cli.inspection import Found, Severity
    from failover.errors import FailoverError

    part = "listen"
    try:
        if fetch(pool) is not None:
            return [Found(Severity.OK, part, f"the daemon answers at {pool.listen}")]
        with socket.create_connection((pool.listen.host, pool.listen.port), TIMEOUT):
            words = f"something else than this daemon listens at {pool.listen}"
            return [Found(Severity.ERROR, part, words, "end it, or choose another `listen`")]
    except FailoverError as error:
        return [Found(Severity.ERROR, part, str(error), error.mend)]
    except OSError:
        return [Found(Severity.NOTE, part, f"the daemon does not run (nothing answers at {pool.listen})")]


def _print(findings: Sequence[Found]) -> None:
    colours = {"error": "red", "warning": "yellow", "ok": "green"}
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    parts = max(len(f.part) for f in findings)
    for f in findings:
        word = f.severity.value.ljust(7)
        if colour:
            word = click.style(word, fg=colours.get(f.severity.value))
        lines = [line for line in (f.what, f.mend) if line]
        text = f"{word}  {f.part.ljust(parts)}  {lines[0]}"
        click.echo("".join(c if c.isprintable() or c == "\x1b" else " " for c in text))
        for line in lines[1:]:
            click.echo(" " * (parts + 11) + line)


if TYPE_CHECKING:
    from failover.model import Pool
