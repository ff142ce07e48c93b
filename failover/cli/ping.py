"""``failover ping``: is there a node, and how far is its chain?

Takes cncli's flags, so that a script written for ``cncli ping`` can call this instead. Imports little: click here,
the rest when a ping is sent.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from failover.errors import PingError
from failover.model import Address
from failover.ouroboros.networks import NETWORKS

if TYPE_CHECKING:
    from failover.ouroboros.ping import PingResult, Resolver
    from failover.ports import Host

AT_ONCE = 64  # targets that are pinged at the same time
MOST_SECONDS = 3600.0
LONGEST_NAME = 253  # of a host, in DNS
INTERRUPTED = 130

_DURATION = re.compile(r"(?P<number>[0-9]*\.?[0-9]+)(?P<unit>ms|s|m|h)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One ping of one target. Exactly one of ``result`` and ``error`` is set; milliseconds."""

    target: Address
    duration_ms: float
    result: PingResult | None = None
    error: PingError | None = None


class Seconds(click.ParamType[float]):
    """A duration: a number of seconds, or 500ms, 2s, 1m."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """``value`` in seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(value)
        seconds = float(match["number"]) * _UNITS[match["unit"]] if match and len(value) <= 20 else 0.0
        if not 0 < seconds <= MOST_SECONDS:
            self.fail(
                f"{value!r} is not a number of seconds above 0 and at most {MOST_SECONDS:g}: "
                "write for example 2, 0.5 or 500ms",
                param,
                ctx,
            )
        return seconds


class Target(click.ParamType[tuple[str, int | None]]):
    """HOST, HOST:PORT, [V6], [V6]:PORT or a bare IPv6 address; the port is None where it is not said."""

    name = "HOST[:PORT]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int | None]:
        """``value`` as a host without brackets, and a port."""
        if isinstance(value, tuple):
            return value
        if not value or not value.isprintable() or " " in value:
            self.fail(f"{value!r}: empty, or with blanks or control characters: write HOST or HOST:PORT", param, ctx)
        host, port = _split(value)
        if value.startswith("[") and not _is_v6(host):
            self.fail(f"{value!r}: what is in brackets is not an IPv6 address: write [V6]:PORT", param, ctx)
        if not host or len(host) > LONGEST_NAME or host.startswith("-"):
            shown = value if len(value) <= LONGEST_NAME else value[:60] + "…"
            self.fail(f"{shown!r} names no host: write HOST, HOST:PORT or [V6]:PORT", param, ctx)
        if port is None:
            return host, None
        if not re.fullmatch("[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) < 0x10000:
            self.fail(f"{value!r}: the port {port[:20]!r} is not a number from 1 to 65535", param, ctx)
        return host, int(port)


def _split(value: str) -> tuple[str, str | None]:
    """Host and port as written; more than one colon without brackets is a bare IPv6 address."""
    if value.startswith("["):
        host, closed, rest = value[1:].partition("]")
        if not closed or rest[:1] not in ("", ":"):
            return "", None
        return host, rest[1:] if rest else None
    if value.count(":") == 1:
        host, _, port = value.partition(":")
        return host, port
    return (value if ":" not in value or _is_v6(value) else ""), None


def _is_v6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


@click.command(name="ping")
@click.argument("targets", nargs=-1, type=Target(), metavar="[HOST[:PORT]]...")
@click.option("-h", "--host", "named", type=Target(), metavar="HOST", help="A host to ping, as for cncli.")
@click.option(
    "-p", "--port", type=click.IntRange(1, 65535), default=3001, show_default=True, help="Where none is said."
)
@click.option(
    "--network-magic",
    "magic",
    type=click.IntRange(0, 0xFFFFFFFF),
    metavar="NUMBER",
    help=f"The network, by its magic number.  [default: {NETWORKS['mainnet']}]",
)
@click.option("--network", type=click.Choice(tuple(NETWORKS)), help="The network, by its name.")
@click.option(
    "-t",
    "--timeout-seconds",
    "timeout",
    type=Seconds(),
    default=2.0,
    show_default=True,
    help="For a whole ping: name, connection, handshake, keep-alive and tip.",
)
@click.option("--count", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="Rounds of pings.")
@click.option("--interval", type=Seconds(), default=1.0, show_default=True, help="From one round to the next.")
@click.option("--cncli", is_flag=True, help="Print exactly the keys that cncli prints, and exit 0 also on errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on a terminal too.")
@click.help_option("--help")
def command(
    targets: tuple[tuple[str, int | None], ...],
    named: tuple[str, int | None] | None,
    port: int,
    magic: int | None,
    network: str | None,
    timeout: float,
    count: int,
    interval: float,
    cncli: bool,
    as_json: bool,
) -> None:
    """Ping Cardano nodes over the node-to-node protocol: TCP, handshake, keep-alive and tip.

    Prints lines on a terminal, and JSON otherwise: an object for one target, a list for several; with --count, one
    document a line. Exit status: 0 all answered, 1 any did not, 2 usage.

    \b
    failover ping relay.example.org:3001 "[2001:db8::1]:6000"
    failover ping -h relay.example.org -p 3001 -t 2
    """
    asked = ([named] if named else []) + list(targets)
    if not asked:
        raise click.UsageError("no host to ping: write failover ping HOST[:PORT], or -h HOST -p PORT")
    if magic is not None and network is not None and NETWORKS[network] != magic:
        raise click.UsageError(
            f"--network {network} has the magic {NETWORKS[network]}, and --network-magic says {magic}: give one of them"
        )
    if magic is None:
        magic = NETWORKS[network or "mainnet"]
    addresses = [Address(host, own or port) for host, own in asked]
    lines = not (cncli or as_json) and sys.stdout.isatty()
    try:
        failed = _rounds(addresses, magic, timeout, count, interval, _Printer(lines, cncli, count > 1))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(1 if failed and not cncli else 0)


def _rounds(
    addresses: Sequence[Address], magic: int, timeout: float, count: int, interval: float, printer: _Printer
) -> int:
    """Ping everything ``count`` times; how many pings failed."""
    import asyncio

    from failover.host import RealHost

    host = RealHost()

    async def run() -> int:
        from failover.ouroboros.ping import Resolver

        # One for each target: two ports of one name are looked up side by side.
        resolvers = [Resolver(host) for _ in addresses]
        failed = 0
        for number in range(count):
            began = host.now().mono
            outcomes = await _round(host, addresses, resolvers, magic, timeout)
            failed += sum(outcome.error is not None for outcome in outcomes)
            printer.show(outcomes)
            if number + 1 < count:
                await host.sleep(began + interval - host.now().mono)
        for resolver in resolvers:
            resolver.close()
        return failed

    return asyncio.run(run())


async def _round(
    host: Host, addresses: Sequence[Address], resolvers: Sequence[Resolver], magic: int, timeout: float
) -> list[Outcome]:
    """Every target once, at most ``AT_ONCE`` at a time, in the order given."""
    import asyncio

    from failover.ouroboros.ping import ping

    outcomes: dict[int, Outcome] = {}
    waiting: Iterator[int] = iter(range(len(addresses)))

    async def work() -> None:
        for index in waiting:
            target = addresses[index]
            began = host.now().mono
            result, failure = None, None
            try:
                result = await ping(host, target, magic, timeout, resolver=resolvers[index])
            except PingError as error:
                failure = error
            spent = result.duration_ms if result else (host.now().mono - began) * 1e3
            outcomes[index] = Outcome(target, spent, result, failure)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(addresses))):
            group.create_task(work())
    return [outcomes[index] for index in range(len(addresses))]


# ---------------------------------------------------------------- what is printed


def document(outcome: Outcome, cncli: bool = False) -> dict[str, Any]:
    """A ping as JSON: cncli's keys first, as cncli prints them (whole milliseconds), then ours, unless ``cncli``."""
    where: dict[str, Any] = {"host": outcome.target.host, "port": outcome.target.port}
    result = outcome.result
    if result is None:
        shown = {"status": "error", **where, "errorMessage": _sentence(outcome.error)}
        own: dict[str, Any] = {
            "stage": outcome.error.stage if outcome.error else None,
            "durationMs": int(outcome.duration_ms),
        }
        return shown if cncli else {**shown, **own}
    shown = {
        "status": "ok",
        **where,
        "networkProtocolVersion": result.version,
        "dnsDurationMs": int(result.dns_ms),
        "connectDurationMs": int(result.connect_ms),
        "handshakeDurationMs": int(result.handshake_ms),
        "durationMs": int(result.duration_ms),
    }
    own = {
        "address": result.address,
        "keepAliveMs": round(result.keep_alive_ms, 3),
        "tip": {"slot": result.tip.slot, "hash": result.tip.hash, "blockNo": result.tip.block_no},
    }
    return shown if cncli else {**shown, **own}


class _Printer:
    """Prints one round after the other: lines for a person, or JSON (one document a line when there are several)."""

    def __init__(self, lines: bool, cncli: bool, several_rounds: bool) -> None:
        self._lines = lines
        self._cncli = cncli
        self._indent = None if several_rounds else 2
        self._colour = "NO_COLOR" not in os.environ

    def show(self, outcomes: Sequence[Outcome]) -> None:
        """Print one round."""
        if self._lines:
            for outcome in outcomes:
                click.echo(self._line(outcome))
            return
        documents = [document(outcome, self._cncli) for outcome in outcomes]
        click.echo(json.dumps(documents[0] if len(documents) == 1 else documents, indent=self._indent))

    def _line(self, outcome: Outcome) -> str:
        result = outcome.result
        if result is None:
            return f"{self._mark('failed', 'red')}  {_sentence(outcome.error)}"
        tip = result.tip
        place = f"slot {tip.slot}, block {tip.block_no}, {tip.hash[:16]}…" if tip.hash else "genesis"
        via = "" if result.address == str(outcome.target) else f" ({result.address})"
        return (
            f"{self._mark('ok', 'green')}  {outcome.target}{via}  {result.duration_ms:.1f} ms"
            f" (connect {result.connect_ms:.1f}, handshake {result.handshake_ms:.1f},"
            f" keep-alive {result.keep_alive_ms:.1f})  version {result.version}  tip {place}"
        )

    def _mark(self, word: str, colour: str) -> str:
        return click.style(word, fg=colour) if self._colour else word


def _sentence(error: PingError | None) -> str:
    if error is None:
        return ""
    return f"{error}; {error.mend}" if error.mend else str(error)
