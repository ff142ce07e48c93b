"""``failover check``: try the file, and read-only everything that it names."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from failover.cli.file import loaded

if TYPE_CHECKING:
    from failover.cli.inspection import Found
    from failover.config import Finding


@click.command("check")
@click.option("--offline", is_flag=True, help="Only read the file, and what it names on this machine's disk.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(ctx: click.Context, offline: bool, as_json: bool) -> None:
    """Read the file; then look, changing nothing, at every producer, reference, proxy, record, the state
    folder and the clock.

    Exit status: 0 nothing to mend (notes do not count); 1 errors or warnings were found; 2 the file itself is wrong.
    """
    from failover.cli import inspection

    found = loaded(ctx)
    findings = [_of_file(warning) for warning in found.warnings]
    findings.append(inspection.Found(inspection.Severity.OK, "file", f"{found.path} has no error"))
    if offline:
        findings.extend(inspection.state(found.pool))
    else:
        from failover.host import RealHost

        findings.extend(asyncio.run(inspection.everything(found.pool, RealHost())))
        findings.extend(_listen(found.pool))
    bad = sum(f.severity in (inspection.Severity.ERROR, inspection.Severity.WARNING) for f in findings)
    if as_json:
        rows = [{"severity": f.severity.value, "part": f.part, "what": f.what, "mend": f.mend} for f in findings]
        click.echo(json.dumps({"pool": found.pool.name, "findings": rows}, indent=2))
    else:
        _print(findings)
        click.echo(f"{bad} to mend" if bad else "nothing to mend")
    sys.exit(1 if bad else 0)


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
