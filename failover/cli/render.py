"""``failover render``: configuration for the parts around the controller, from the same file; reads and prints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from failover.errors import ConfigError, FailoverError

if TYPE_CHECKING:
    from failover.model import Address, Agent, Pool, Proxy
    from failover.topology.paths import Version
    from failover.topology.render import Choice, Rendered

LATER = ("prometheus", "systemd")


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


class _Endpoint(click.ParamType["Address"]):
    """An address as in the file: ``10.0.2.5:6000``, ``[2001:db8::5]:6000``, ``proxy.example.com:6000``."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """``value`` as an address."""
        from pydantic_core import PydanticCustomError

        from failover.config import scalars

        try:
            return scalars.address(str(value))
        except PydanticCustomError as error:
            words = error.context or {}
            self.fail(f"{str(value)[:80]!r} {words.get('problem')}: {words.get('mend')}", param, ctx)


class _NodeVersion(click.ParamType["Version"]):
    """A version of cardano-node as numbers."""

    name = "version"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Version:
        """``value`` as numbers."""
        from failover.topology import paths

        try:
            return paths.version(str(value))
        except ConfigError as error:
            self.fail(f"{error}: {error.mend}", param, ctx)


class _TopologyCommand(click.Command):
    """Knows which options exclude each other before anything is read."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; raises UsageError unless it is one node, or all into a folder."""
        rest = super().parse_args(ctx, args)
        one, everybody, folder = (ctx.params.get(key) for key in ("name", "everybody", "folder"))
        if ctx.resilient_parsing or (one is not None) != bool(everybody):
            if not everybody and folder is not None:
                raise click.UsageError("--output goes with --all; one file is printed: --for NAME > topology.json", ctx)
            if everybody and folder is None:
                raise click.UsageError("--all needs --output FOLDER: it writes one file for each node", ctx)
            return rest
        raise click.UsageError("say for whom: --for NAME (a producer or a relay), or --all --output FOLDER", ctx)


@command.command("topology", cls=_TopologyCommand, short_help="topology.json of a producer or relay, or of all")
@click.option("--for", "name", metavar="NAME", help="The producer or relay, as named in the file.")
@click.option("--all", "everybody", is_flag=True, help="Every producer and relay, into --output.")
@click.option(
    "--output",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write NAME.json files there; the folder is made when it is missing.",
)
@click.option(
    "--via",
    type=_Endpoint(),
    metavar="HOST:PORT",
    multiple=True,
    help="Where relays reach a proxy; once for each. Needed for relays when the file has proxies.",
)
@click.option(
    "--bootstrap",
    type=_Endpoint(),
    metavar="HOST:PORT",
    multiple=True,
    help="A bootstrap peer for relays; once for each. Default: none.",
)
@click.option(
    "--ledger-after",
    type=click.IntRange(min=0),
    metavar="SLOT",
    default=0,
    help="From which slot on relays take peers from the ledger (useLedgerAfterSlot). Default: 0, always.",
)
@click.option(
    "--node-version",
    "version",
    type=_NodeVersion(),
    metavar="VERSION",
    default="10.5.1",
    help="The cardano-node that will read it. Default: 10.5.1.",
)
@click.pass_context
def topology(
    ctx: click.Context,
    name: str | None,
    everybody: bool,
    folder: Path | None,
    via: tuple[Address, ...],
    bootstrap: tuple[Address, ...],
    ledger_after: int,
    version: Version,
) -> None:
    """Print the P2P topology of one producer or relay (see docs/topology.md), or write those of all.

    What the file cannot promise is said on stderr.
    """
    from failover.topology import paths, render

    pool = _pool(ctx)
    if via and not pool.proxies:
        raise click.UsageError("--via: the file has no proxies; relays go by its records, or to each producer")
    choice = render.Choice(via, bootstrap, ledger_after, version)
    if folder is None:
        click.echo(_topology(pool, name or "", choice).text, nl=False)
        return
    files = {each: _topology(pool, each, choice).text for each in paths.names(pool)}
    for each, text in files.items():
        click.echo(_written(folder, f"{each}.json", text))


class _AgentCommand(click.Command):
    """Knows which options exclude each other before anything is read."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; raises UsageError unless it is one host, or the program alone."""
        rest = super().parse_args(ctx, args)
        if ctx.resilient_parsing:
            return rest
        others = [key for key in ("name", "public", "fuse", "folder") if ctx.params.get(key) is not None]
        if ctx.params.get("program") and others:
            raise click.UsageError("--program stands alone: the program is the same on every host", ctx)
        if not ctx.params.get("program") and ctx.params.get("name") is None:
            raise click.UsageError("say for whom: --for NAME (a producer or a relay); or --program", ctx)
        return rest


@command.command("agent", cls=_AgentCommand, short_help="what an agent's host needs: user, sudo rule, files, units")
@click.option("--for", "name", metavar="NAME", help="The producer or relay on that host, as named in the file.")
@click.option(
    "--public-key",
    "public",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The public half of the agent's key. Default: taken from its key_file.",
)
@click.option("--fuse", metavar="DURATION", help="With a fuse that closes after so long without a lease.")
@click.option(
    "--output",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the files there, with the program and install.sh; the folder is made when it is missing.",
)
@click.option("--program", is_flag=True, help="Print the agent itself, for /usr/local/lib/failover/agent.py.")
@click.pass_context
def agent(
    ctx: click.Context, name: str | None, public: Path | None, fuse: str | None, folder: Path | None, program: bool
) -> None:
    """Print what root pastes on the host of one producer or relay, so that the controller can use its agent.

    What the file does not know stands there as /path/to and the like, and is refused by `agent.py check`.
    """
    if program:
        click.echo(_program(), nl=False)
        return
    from failover.cli import installation

    pool = _pool(ctx)
    where = installation.place(pool, name or "")
    seconds = _fuse(pool, fuse) if fuse is not None else None
    made = installation.files(pool, where, _public_key(where.agent, public), seconds)
    if folder is None:
        click.echo(installation.script(pool, where, made), nl=False)
        return
    files = [(file.name, file.text, file.mode) for file in made]
    files.append(("agent.py", _program(), 0o755))
    files.append(("install.sh", installation.script(pool, where, made, from_folder=True), 0o755))
    for file, text, mode in files:
        click.echo(_written(folder, file, text, mode))


def _program() -> str:
    from importlib.resources import files

    return (files("failover") / "agent.py").read_text(encoding="utf-8")


def _fuse(pool: Pool, given: str) -> float:
    """The fuse in seconds. What does not fit the file's other numbers is refused. Raises UsageError."""
    from failover.cli.file import Duration
    from failover.cli.host_inspection import fuse_between

    seconds = Duration().convert(given, None, None)
    least, most = fuse_between(pool)
    if not least < seconds < most:
        raise click.UsageError(
            f"--fuse: {seconds:g} s does not fit the file: it must be above {least:g} s (lease.duration + "
            "action_timeout + margin, so that a change of decider does not blow it) and below "
            f"{most:g} s (policy.fail_over_after, less what it needs to close)"
        )
    return seconds


def _public_key(agent: Agent, given: Path | None) -> str:
    """The public half of the controller's key for this agent. Raises FailoverError."""
    if given is not None:
        text = given.read_text(encoding="utf-8", errors="replace")[:16_384].strip()
        if "PRIVATE KEY" in text:
            raise ConfigError(f"--public-key {given}: is a private key", "give the .pub file beside it")
        return text
    from failover.agent_ssh import credentials

    return credentials(agent).key.export_public_key("openssh").decode("ascii").strip()


def _topology(pool: Pool, name: str, choice: Choice) -> Rendered:
    from failover.topology import paths, render

    if name not in paths.names(pool):
        from failover.cli import did_you_mean

        known = list(paths.names(pool))
        raise click.UsageError(f"--for: no producer or relay {name[:80]!r} in the file.{did_you_mean(name, known)}")
    if not choice.via and render.needs_via(pool, name):
        example = " ".join(
            f"--via 10.0.2.{i + 5}:{pool.producers[0].address.port}" for i in range(min(2, len(pool.proxies)))
        )
        raise click.UsageError(
            f"--via is needed for {name}: where relays reach the proxies is not in the file. "
            f"Give it once for each proxy, as in {example}"
        )
    rendered = render.render(pool, name, choice)
    for remark in rendered.remarks:
        click.echo(f"# {name}: {remark}", err=True)
    return rendered


def _written(folder: Path, file: str, text: str, mode: int = 0o644) -> Path:
    """Write one file whole or not at all, and say where it is."""
    path = folder / file
    part = folder / f".{file}.new"
    try:
        folder.mkdir(exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.chmod(mode)
        part.replace(path)
    except OSError as error:
        raise FailoverError(f"{path}: cannot be written: {error.strerror}", "name a folder of your own") from error
    return path


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
