"""``failover version``: the version, for people and for scripts."""

from __future__ import annotations

import json
import platform

import click

from failover._version import __version__


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document: version, python, platform.")
def command(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        about = {"version": __version__, "python": platform.python_version(), "platform": platform.platform()}
        click.echo(json.dumps(about))
        return
    click.echo(f"failover {__version__} (Python {platform.python_version()})")
