"""``failover lab``: a pool of simulated nodes and relays and real HAProxies on loopback, to play with."""

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
    """Simulated nodes and relays and real HAProxies on loopback, to play with. Nothing leaves this machine."""


@command.command("up", short_help="run a whole pool until Ctrl-C")
@_FOLDER
@click.option("--proxies", type=int, default=2, show_default=True, help="How many HAProxies.")
@click.option("--relays", type=int, default=2, show_default=True, help="How many relays.")
@click.option("--scale", type=float, default=20.0, show_default=True, help="How many times faster than in life.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the relays' jitter.")
def up(folder: Path, proxies: int, relays: int, scale: float, seed: int) -> None:
    """Run two producers, two references, relays and HAProxies until Ctrl-C, with a configuration for the controller.

    What was in the lab's folder from an earlier run is removed.
    """
    import asyncio

    from failover.lab.pool import Plan

    asyncio.run(_up(folder, Plan(proxies=proxies, relays=relays, scale=scale, seed=seed)))


@command.command("tell", short_help="make a node, a relay or a proxy of a running lab misbehave")
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON document.")
@click.argument("name", metavar="NODE")
@click.argument("word", metavar="COMMAND")
@click.argument("value", required=False)
def tell(folder: Path, as_json: bool, name: str, word: str, value: str | None) -> None:
    """Tell a part of the running lab something: tell main hang, tell main lag 30, tell proxy-1 open backup.

    With a COMMAND that it does not know, it says what there is.
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
        (f"failover -c {file} run", "the controller"),
        (f"failover -c {file} status --watch", "what it sees"),
        (f"{tell} {first} stop", f"a node that hangs; its end: {first} continue"),
        (f"{tell} {first} lag 100", f"a node that falls behind; its end: {first} heal"),
        (f"{tell} proxy-1 open {second}", "a second producer let in by hand"),
        (f"{tell} proxy-1 restart", "a proxy that forgets its state"),
        (f"{tell} {first} help", "what else it can be told"),
    ]
    width = max(len(line) for line, _ in lines)
    return "\n".join(
        [
            f"\nThe lab is up, {lab.plan.scale:g} times faster than life: {second} takes over after "
            f"{times.fail_over_after:g} s, {first} returns after {times.fail_back_after:g} s.",
            f"Logs and state are in {lab.folder}. Ctrl-C ends it. In another terminal:\n",
            *(f"  {line:<{width}}  # {meaning}" for line, meaning in lines),
            "\nWhat the relays see:",
        ]
    )


class _Told:
    """What has been said of the relays' logs and of processes that ended."""

    def __init__(self, lab: LabPool) -> None:
        self._lab = lab
        self._read: dict[str, int] = {}  # bytes, by relay
        self._ended: set[str] = set()
        self._proxies = {str(proxy.relays): name for name, proxy in lab.proxies.items()}

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
        ended = {name: c.status for name, c in (self._lab.nodes | self._lab.relays).items() if c.status is not None}
        for name in sorted(set(ended) - self._ended):
            start = f"failover lab tell --folder {self._lab.folder} {name} restart"
            click.echo(f"{name} ended with status {ended[name]}; start it: {start}")
        self._ended = set(ended)

    def _say(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return  # torn, when a relay was killed
        through = self._proxies.get(event.get("target", ""), "")
        if event["event"] == "opened":
            click.echo(f"{event['relay']} reached {event['producer']} through {through}")
        elif event["event"] == "closed":
            click.echo(f"{event['relay']} lost {event['producer']} through {through}: {event['why']}")
