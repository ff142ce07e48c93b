"""``failover lab``: simulated nodes and relays, real HAProxies, a Route 53, all on loopback, to play with."""

from __future__ import annotations

import json
import os
import shlex
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from failover.lab.pool import LabPool, Plan

POLL = 0.2  # seconds


def default_folder() -> Path:
    """Where the lab lives unless told otherwise: one for each user."""
    return Path(tempfile.gettempdir()) / f"failover-lab-{os.getuid()}"


_FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), default=default_folder, help="The lab's folder. [default: in /tmp]"
)
_AS_IS: dict[str, Any] = {"ignore_unknown_options": True, "help_option_names": []}


@click.group(name="lab", short_help="simulated nodes and relays, real HAProxies, on loopback")
def command() -> None:
    """Simulated nodes and relays, real HAProxies and a Route 53 on loopback, to play with.

    Nothing leaves this machine.
    """


@command.command("up", short_help="run a whole pool until Ctrl-C")
@_FOLDER
@click.option("--proxies", type=int, default=2, show_default=True, help="How many HAProxies.")
@click.option("--relays", type=int, default=2, show_default=True, help="How many relays.")
@click.option("--records", is_flag=True, help="Also a DNS record beside the proxies, and one more relay that dials it.")
@click.option("--gateless", is_flag=True, help="No proxy: a DNS record alone, and all relays dial it.")
@click.option("--scale", type=float, default=20.0, show_default=True, help="How many times faster than in life.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the relays' jitter.")
def up(folder: Path, proxies: int, relays: int, records: bool, gateless: bool, scale: float, seed: int) -> None:
    """Run two producers, two references, relays and HAProxies until Ctrl-C, with a configuration for the controller.

    With a record there are also a Route 53, its DNS servers and a caching resolver, all simulated.

    What was in the lab's folder from an earlier run is removed.
    """
    import asyncio

    from failover.lab.pool import Plan

    named = 1 if records and not gateless else 0
    plan = Plan(proxies=proxies, relays=relays, scale=scale, seed=seed, record=records, gateless=gateless, named=named)
    asyncio.run(_up(folder, plan))


@command.command("tell", short_help="make a part of a running lab misbehave")
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON document.")
@click.argument("name", metavar="PART")
@click.argument("word", metavar="COMMAND")
@click.argument("value", required=False)
def tell(folder: Path, as_json: bool, name: str, word: str, value: str | None) -> None:
    """Tell a part of the running lab something: tell main hang, tell main lag 30, tell proxy-1 open backup.

    Parts are producers, references, relays and proxies; with a record also route53, its servers (ns1) and resolvers
    (resolver-1). With a COMMAND that it does not know, it says what there is.
    """
    import asyncio

    from failover.lab import control
    from failover.lab.pool import CONTROL

    question = {"to": name, "command": word, "value": value}
    answer = asyncio.run(control.ask(folder.absolute() / CONTROL, question, timeout=30.0))
    if as_json:
        click.echo(json.dumps(answer))
        return
    for key, told in answer.items() or [("", "done")]:
        click.echo(f"{key:<10} {told if isinstance(told, str) else json.dumps(told)}".strip())


@command.command("node", context_settings=_AS_IS, short_help="run one simulated node")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def node(words: tuple[str, ...]) -> None:
    """Run one simulated node until it is ended; --help tells its options."""
    from failover.lab.node import main

    raise SystemExit(main(words, "failover lab node"))


@command.command("relay", context_settings=_AS_IS, short_help="run one simulated relay")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def relay(words: tuple[str, ...]) -> None:
    """Run one simulated relay until it is ended; --help tells its options."""
    from failover.lab.relay import main

    raise SystemExit(main(words, "failover lab relay"))


async def _up(folder: Path, plan: Plan) -> None:
    import asyncio

    from failover.host import RealHost
    from failover.lab.pool import LabPool

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    host = RealHost()
    async with LabPool(folder, plan, click.echo) as lab:
        click.echo(_what_next(lab))
        told = _Told(lab)
        while not ended.is_set():
            told.news()
            await host.sleep(POLL)


def _what_next(lab: LabPool) -> str:
    file, times = shlex.quote(str(lab.file)), lab.times
    folder = "" if lab.folder == default_folder() else f" --folder {shlex.quote(str(lab.folder))}"
    first, second = lab.plan.producers[:2]
    tell = f"failover lab tell{folder}"
    lines = [
        *_credentials(lab),
        (f"failover -c {file} run", "the controller"),
        (f"failover -c {file} status --watch", "what it sees"),
        (f"{tell} {first} stop", f"a node that hangs; its end: {first} continue"),
        (f"{tell} {first} lag 100", f"a node that falls behind; its end: {first} heal"),
        *_of_proxies(lab, tell),
        *_of_record(lab, tell),
        (f"{tell} {first} help", "what else it can be told"),
    ]
    width = max(len(line) for line, _ in lines)
    returns = "returns only by hand" if lab.plan.gateless else f"returns after {times.fail_back_after:g} s"
    return "\n".join(
        [
            f"\nThe lab is up, {lab.plan.scale:g} times faster than life: {second} takes over after "
            f"{times.fail_over_after:g} s, {first} {returns}.",
            f"Logs and state are in {lab.folder}. Ctrl-C ends it. In another terminal:\n",
            *(f"  {line:<{width}}  # {meaning}" for line, meaning in lines),
            "\nWhat the relays see:",
        ]
    )


def _credentials(lab: LabPool) -> list[tuple[str, str]]:
    if not lab.environment:
        return []
    return [(f". {shlex.quote(str(lab.environment_file))}", "credentials for the lab's Route 53; do this first")]


def _of_proxies(lab: LabPool, tell: str) -> list[tuple[str, str]]:
    if not lab.proxies:
        return []
    return [
        (f"{tell} proxy-1 open {lab.plan.producers[1]}", "a second producer let in by hand"),
        (f"{tell} proxy-1 restart", "a proxy that forgets its state"),
    ]


def _of_record(lab: LabPool, tell: str) -> list[tuple[str, str]]:
    from failover.lab.pool import RECORD, ROUTE53, TTL

    if not lab.dns:
        return []
    other = shlex.quote(f"{RECORD} {TTL} {lab.addresses[lab.plan.producers[1]].host}")
    return [
        (f"{tell} {ROUTE53} put {other}", "the record changed by another hand"),
        (f"{tell} {ROUTE53} cut", f"changes whose replies are lost; its end: {ROUTE53} heal"),
        (f"{tell} ns1 freeze", "a DNS server that learns of nothing; its end: ns1 heal"),
        (f"{tell} resolver-1 stale", "a resolver that keeps old answers; its end: resolver-1 heal"),
        *((f"{tell} {relay} reached", "whom a relay reaches by name, and clings to") for relay in lab.plan.by_name[:1]),
    ]


class _Told:
    """What has been said of the relays' logs and of processes that ended."""

    def __init__(self, lab: LabPool) -> None:
        self._lab = lab
        self._read: dict[str, int] = {}  # bytes, by relay
        self._ended: set[str] = set()
        self._answers: dict[str, list[str]] = {}  # what the record last resolved to, by relay

    def news(self) -> None:
        """Say what is new."""
        for name in self._lab.relays:
            with self._lab.log(name).open("rb") as log:
                log.seek(self._read.get(name, 0))
                new = log.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[name] = self._read.get(name, 0) + len(whole)
            for line in whole.splitlines():
                self._say(line)
        ended = {name: c.status for name, c in self._lab.children.items() if c.status is not None}
        for name in sorted(set(ended) - self._ended):
            start = f"failover lab tell --folder {self._lab.folder} {name} restart"
            click.echo(f"{name} ended with status {ended[name]}; start it: {start}")
        self._ended = set(ended)

    def _say(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return  # torn, when a relay was killed
        relay, through = event["relay"], self._lab.through(event.get("target", ""))
        match event["event"]:
            case "opened":
                click.echo(f"{relay} reached {event['producer']} through {through}")
            case "closed":
                click.echo(f"{relay} lost {event['producer']} through {through}: {event['why']}")
            case "demoted":
                click.echo(f"{relay} stays connected to {event['producer']}, which {through} no longer names")
            case "promoted":
                click.echo(f"{relay} takes blocks from {event['producer']} again, on the old connection")
            case "resolved" if self._answers.get(relay) != event["answers"]:
                self._answers[relay] = event["answers"]
                told = ", ".join(event["answers"]) or event.get("why", "no address")
                click.echo(f"{relay} resolved {event['name']} to {told}, and asks again in {event['next_in']:g} s")
