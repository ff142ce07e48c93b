"""``failover schema``: the JSON Schema of the configuration file, so that editors complete and check it."""

from __future__ import annotations

import json

import click


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of the configuration file."""
    from failover.config import schema

    click.echo(json.dumps(schema(), indent=2, ensure_ascii=False))
