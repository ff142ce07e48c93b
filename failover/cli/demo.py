"""``failover demo``: the whole story on loopback, narrated, and checked from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from failover.lab.play import Playing
    from failover.lab.story import Claim, Picture, Scene
    from failover.lab.witness import Sample

WIDTH = 100
JOURNAL_ROWS = 30  # shown when something was false
REFRESH = 4  # pictures a second

OPENING = (
    "Stake pools on loopback: real HAProxies and the real controller; nodes, relays and Route 53 are simulated, and "
    "speak their protocols. What is claimed is measured from outside."
)
_STYLES = {"scene": "bold", "say": "", "command": "cyan", "ok": "green", "FALSE": "bold red", "": ""}


@click.command("demo", short_help="two stories, on loopback")
@click.option(
    "--story",
    "name",
    type=click.Choice(["all", "proxies", "names"]),
    default="all",
    show_default=True,
    help="A pool with proxies and a DNS record, one with a record alone, or both, one after the other.",
)
@click.option(
    "--scale", type=click.FloatRange(5, 40), default=20.0, show_default=True, help="How many times faster than in life."
)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where logs and state go; left there. [default: in /tmp]"
)
@click.option("--keep", is_flag=True, help="Leave the folder behind. When something is false it is always left.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON document; narrate on stderr.")
def command(name: str, scale: float, folder: Path | None, keep: bool, as_json: bool) -> None:
    """Play two stories on loopback: the real controller, real HAProxies; simulated nodes, relays and Route 53.

    With proxies: a producer hangs, returns, two are let in at once, a proxy forgets its state, the controller is
    killed, Route 53 hangs, and more. With a DNS record alone: a producer dies, relays follow the name by themselves
    and stay with the old one, a reply is lost, somebody else writes in between.

    What is claimed is measured from outside: by the relays' sessions, HAProxy's statistics, the DNS servers' answers
    and pings of our own. Takes about two minutes; needs haproxy, but for the story "names"; nothing leaves this
    machine.

    Exit status: 0 all of it held; 1 something was false, or a pool did not come up; 2 usage.
    """
    import asyncio

    from failover.lab import haproxy, play, story
    from failover.lab.haproxy import LabError

    shortened = story.shortened(scale)
    chosen = [each for each in play.STORIES if name in ("all", each.name)]
    if haproxy.installed() is not None and not all(each.plan(scale).gateless for each in chosen):
        raise LabError(
            "haproxy is not installed, and nothing simulates it here",
            "apt-get install haproxy, or play the story that needs none: failover demo --story names",
        )
    where = folder.absolute() if folder is not None else Path(tempfile.mkdtemp(prefix="failover-demo-"))
    narrator = Narrator(sys.stderr if as_json else sys.stdout)
    playing = [play.Playing(each, where / each.name, scale, narrator) for each in chosen]
    narrator.begin(scale, shortened)
    good = False
    try:
        found = asyncio.run(_until_told(playing, narrator, scale))
        narrator.end(found)
        good = bool(found["ok"])
    except BaseException as error:
        narrator.stop()
        good = isinstance(error, (KeyboardInterrupt, SystemExit))  # ended on purpose: nothing to look into
        if good:
            narrator.say("Interrupted: every process is ended.")
        raise
    finally:
        if good and folder is None and not keep:
            shutil.rmtree(where, ignore_errors=True)
        elif any(each.stage is not None for each in playing) or folder is None:
            narrator.say(f"Logs and state are left in {where}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    for each in found["stories"]:
        if not each["ok"]:
            narrator.trouble(Path(each["folder"]))
    sys.exit(0 if good else 1)


async def _until_told(stories: Sequence[Playing], narrator: Narrator, scale: float) -> dict[str, Any]:
    """Play all, and end everything in order also at SIGTERM and SIGHUP; Ctrl-C is asyncio's."""
    import asyncio

    from failover.lab import play

    loop, me, told = asyncio.get_running_loop(), asyncio.current_task(), list[int]()

    def end(number: int) -> None:
        told.append(number)
        if me is not None:
            me.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        found: list[dict[str, Any]] = []
        for playing in stories:
            narrator.story(playing, len(found) + 1, len(stories))
            found.append(await playing.play())
        return play.together(found, scale)
    except asyncio.CancelledError:
        if told:
            raise SystemExit(128 + told[0]) from None
        raise


# ---------------------------------------------------------------- telling it


class Narrator:
    """Tells the story: in colour with a live picture below on a terminal, in plain lines elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._console: Console | None = None
        self._live: Live | None = None
        self._playing: Playing | None = None
        self._width = WIDTH

    def begin(self, scale: float, shortened: Sequence[tuple[str, float, float]]) -> None:
        """Before anything happens: what is shown, and with which times."""
        if self._terminal:
            from rich.console import Console
            from rich.live import Live

            self._console = Console(file=self._stream, highlight=False, no_color="NO_COLOR" in os.environ)
            self._width = min(WIDTH, self._console.width)
            self._live = Live(
                console=self._console, get_renderable=self._drawn, refresh_per_second=REFRESH, transient=True
            )
            self._live.start()
        self._lines(*wrapped(OPENING, "", "", self._width), "")
        self._lines(*times_table(scale, shortened))

    def story(self, playing: Playing, number: int, of: int) -> None:
        """A story begins."""
        self._playing = playing
        which = f"Story {number} of {of}" if of > 1 else "The story"
        self._lines("", f"{which}: {playing.story.title}", style="scene")

    def stop(self) -> None:
        """End the live picture."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def scene(self, scene: Scene) -> None:
        """See Audience."""
        self._lines("")
        self._lines(f"{scene.number}. {scene.title}", style="scene")

    def say(self, words: str) -> None:
        """See Audience."""
        self._lines(*wrapped(words, "   ", "   ", self._width), style="command" if words.startswith("$ ") else "say")

    def claim(self, claim: Claim) -> None:
        """See Audience."""
        self._lines(*claim_lines(claim, self._width), style="ok" if claim.ok else "FALSE")

    def end(self, found: dict[str, Any]) -> None:
        """The table, and the sentence that matters most."""
        self.stop()
        for story in found["stories"]:
            self._lines("", headline(story), style="scene")
            if self._console is not None:
                self._console.print(rich_table(story))
            else:
                self._lines(*plain_table(story))
            for sentence in story["conclusion"]:
                self._lines(*wrapped(sentence, "", "   " if sentence.startswith(" ") else "", self._width))
        self._lines("")
        self._lines(verdict(found), style="ok" if found["ok"] else "FALSE")

    def trouble(self, folder: Path) -> None:
        """Where to look, and the end of the journal: often all that a continuous-integration run leaves."""
        words = [sys.executable, "-m", "failover", "-c", str(folder / "failover.yaml"), "history"]
        journal = subprocess.run(
            [*words, "--limit", str(JOURNAL_ROWS)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        click.echo(
            f"the controller's log is {folder / 'controller.log'}; the relays' are {folder}/relay-*.jsonl", err=True
        )
        click.echo(f"the end of its journal (failover -c {folder / 'failover.yaml'} history):", err=True)
        click.echo(journal.stdout or journal.stderr, err=True, nl=False)

    def _lines(self, *lines: str, style: str = "") -> None:
        for line in lines:
            if self._console is None:
                click.echo(line, file=self._stream)
            else:
                from rich.text import Text

                text = Text(line, "" if style == "ok" else _STYLES[style])
                if style == "ok":  # the word alone: a screen of green says nothing
                    text.stylize(_STYLES[style], 0, 8)
                self._console.print(text, soft_wrap=True)
        self._stream.flush()

    def _drawn(self) -> RenderableType:
        from rich.text import Text

        from failover.errors import FailoverError
        from failover.lab.story import picture

        playing = self._playing
        if playing is None or playing.stage is None:
            return Text("starting the pool", "dim")
        try:
            return drawing(picture(playing.stage), playing.stage.scene, len(playing.story.scenes))
        except (FailoverError, OSError):  # a log that is written at this moment: the next picture has it
            return Text("")


def times_table(scale: float, shortened: Sequence[tuple[str, float, float]]) -> list[str]:
    """How much shorter than in life the times are."""
    from failover.status import span

    lines = [f"Times are shortened (--scale {scale:g}):"]
    for name, life, here in shortened:
        lines.append(f"   {name:<24}{f'{here:g} s':>7}  instead of {span(life):<7} ({life / here:.0f} times shorter)")
    return lines


def claim_lines(claim: Claim, width: int) -> list[str]:
    """A claim as it is printed: ok or FALSE, what, the number, and where it was measured."""
    head = "   ok     " if claim.ok else "   FALSE  "
    measured = f": {claim.measured}" if claim.measured else ""
    return wrapped(f"{claim.text}{measured} [{claim.where}]", head, " " * len(head), width)


def wrapped(words: str, head: str, indent: str, width: int) -> list[str]:
    """Lines of at most ``width``."""
    return textwrap.wrap(
        words, width, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def rows(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The table of scenes: verdict, scene, what was measured, how many checks held."""
    made = []
    for scene in found["scenes"]:
        held = sum(claim["ok"] for claim in scene["claims"])
        first_false = next((claim["text"] for claim in scene["claims"] if not claim["ok"]), "nothing was checked")
        result = scene["result"] if scene["ok"] else f"false: {first_false}"
        mark = "ok" if scene["ok"] else "FALSE"
        made.append((mark, f"{scene['number']}. {scene['title']}", result, f"{held}/{len(scene['claims'])}"))
    made.extend(("FALSE", title, "not played", "") for title in found["not_played"])
    return made


def plain_table(found: dict[str, Any]) -> list[str]:
    """The table in plain lines."""
    made = [("", "scene", "measured", "checks"), *rows(found)]
    first = max(len(row[0]) for row in made)
    second = max(len(row[1]) for row in made)
    third = max(len(row[2]) for row in made)
    return [f"{a:<{first}}  {b:<{second}}  {c:<{third}}  {d}".rstrip() for a, b, c, d in made]


def rich_table(found: dict[str, Any]) -> RenderableType:
    """The table for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, ratio in (("", None), ("scene", None), ("measured", 1), ("checks", None)):
        table.add_column(title, ratio=ratio, no_wrap=ratio is None)
    for mark, title, result, held in rows(found):
        table.add_row(f"[{_STYLES[mark]}]{mark}[/]", title, result, held)
    return table


def headline(story: dict[str, Any]) -> str:
    """The line above a story's table."""
    return f"{story['title'][0].upper()}{story['title'][1:]} ({story['seconds']:.0f} s)"


def verdict(found: dict[str, Any]) -> str:
    """The last line."""
    stories = found["stories"]
    if found["ok"]:
        number = sum(len(story["scenes"]) for story in stories)
        of = f" of {len(stories)} stories" if len(stories) > 1 else ""
        return f"All {number} scenes{of} went as told, in {found['seconds']:.0f} s."
    parts = []
    for story in stories:
        wrong = [str(scene["number"]) for scene in story["scenes"] if not scene["ok"]]
        here = [f"scene {', '.join(wrong)}"] if wrong else []
        here += story["false"]
        here += [f"{len(story['not_played'])} not played"] if story["not_played"] else []
        parts += [f"{story['name']}: {'; '.join(here)}"] if here else []
    return f"FALSE: {'. '.join(parts)}. {found['seconds']:.0f} s."


# ---------------------------------------------------------------- the live picture


def drawing(seen: Picture, scene: Scene, of: int) -> RenderableType:
    """The pool from outside, in a few lines: whom each way leads to, whom each relay has, who is stopped."""
    from rich import box
    from rich.panel import Panel
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", style="dim")
    for title in (*seen.producers, *seen.relays):
        table.add_column(title, min_width=18)
    for name, sample in seen.proxies.items():
        cells = [_gate(sample, producer, producer in seen.stopped) for producer in seen.producers]
        table.add_row(name, *cells, *(seen.reached.get((relay, name), "[dim]nobody[/]") for relay in seen.relays))
    signs = [_sign(seen, producer) for producer in seen.producers]
    table.add_row("DNS", *signs, *(_by_name(seen, relay) for relay in seen.relays))
    controller = f"controller pid {seen.controller}" if seen.controller else "[bold red]no controller runs[/]"
    title = f"scene {scene.number} of {of}: {scene.title}" if scene.number else "the pool"
    return Panel(table, title=title, title_align="left", subtitle=controller, subtitle_align="left", box=box.ROUNDED)


def _gate(sample: Sample | None, producer: str, stopped: bool) -> str:
    if sample is None:
        return "[red]proxy is silent[/]"
    hangs = " [red](hangs)[/]" if stopped else ""
    sessions = sample.sessions.get(producer, 0)
    number = f", {sessions} session{'' if sessions == 1 else 's'}" if sessions else ""
    if producer in sample.admitted:
        return f"[green]let in{number}[/]{hangs}"
    return f"[dim]shut out{number}[/]{hangs}"


def _sign(seen: Picture, producer: str) -> str:
    """Which servers point to a producer."""
    down = " [red](down)[/]" if producer in seen.stopped and not seen.proxies else ""
    servers = [server for server, whom in seen.answers.items() if whom == producer]
    return (f"[green]{', '.join(servers)}[/]" if servers else "[dim]-[/]") + down


def _by_name(seen: Picture, relay: str) -> str:
    """Whom a relay has that dials a name; nothing for one that does not."""
    if seen.proxies:
        return ""
    hot = next((producer for (name, _), producer in seen.reached.items() if name == relay), "[dim]nobody[/]")
    warm = [producer for name, producer in sorted(seen.lingering) if name == relay]
    return f"{hot} [red](stays with {', '.join(warm)})[/]" if warm else hot
