"""``failover render``: configuration for the parts around the controller, from the same file; reads and prints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from failover.model import Pool, Proxy

LATER = ("topology", "prometheus", "systemd")


class _Targets(click.Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LATER:
            raise click.UsageError(f"render {cmd_name}: not supported by this version", ctx)
        return super().get_command(ctx, cmd_name)


@click.group(name="render", cls=_Targets, short_help="configuration for the parts around, from the same file")
def command() -> None:
    """Print configuration for the parts around the controller, made from the pool's file."""


@command.command("haproxy", short_help="haproxy.cfg of one proxy, or the units that keep its state")
@click.option("--proxy", "name", metavar="NAME", help="The proxy, as named in the file. Not needed when it has one.")
@click.option("--listen", metavar="ADDRESS", help="Where relays connect, as HAProxy binds it. Default: *:PORT.")
@click.option("--unit", is_flag=True, help="Print the systemd units that dump the proxy's state instead.")
@click.pass_context
def haproxy(ctx: click.Context, name: str | None, listen: str | None, unit: bool) -> None:
    """Print the reference HAProxy configuration of one proxy (read haproxy/README.md before using it).

    PORT is the preferred producer's. The stats password is not printed: HAProxy takes it from its environment.
    """
    from failover.gates import haproxy_config

    pool = _pool(ctx)
    proxy = _chosen(pool, name)
    if listen is not None and (not listen.strip() or any(c.isspace() for c in listen.strip())):
        raise click.UsageError(f"--listen: {listen!r} is no address: give one like *:6000 or 10.0.1.5:6000")
    place = haproxy_config.Place(listen=listen.strip() if listen else f"*:{pool.producers[0].address.port}")
    if not unit:
        click.echo(haproxy_config.configuration(pool, proxy, place), nl=False)
        return
    parts = [f"# /etc/systemd/system/{file}\n{text}" for file, text in haproxy_config.units(proxy, place).items()]
    click.echo("\n".join(parts), nl=False)


@command.command("iam", short_help="the least AWS policy for the file's Route 53 records")
@click.pass_context
def iam(ctx: click.Context) -> None:
    """Print the IAM policy with which the file's Route 53 records can be read and changed, and nothing else.

    Attach it to the user or role whose credentials the daemon has.
    """
    from failover.records.iam import policy

    click.echo(json.dumps(policy(_pool(ctx).records), indent=2))


def _pool(ctx: click.Context) -> Pool:
    from failover import config

    given = ctx.obj.get("config") if isinstance(ctx.obj, dict) else None
    loaded = config.load(config.find(given, os.environ, Path.cwd()))
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    return loaded.pool


def _chosen(pool: Pool, name: str | None) -> Proxy:
    names = ", ".join(proxy.name for proxy in pool.proxies) or "none"
    if name is None:
        if len(pool.proxies) == 1:
            return pool.proxies[0]
        raise click.UsageError(f"--proxy is needed: the file has {names}")
    for proxy in pool.proxies:
        if proxy.name == name:
            return proxy
    raise click.UsageError(f"--proxy: no proxy {name!r} in the file; it has {names}")
