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

    from failover.lab.scenes import Story
    from failover.lab.story import Claim, Picture, Sample, Scene

WIDTH = 100
JOURNAL_ROWS = 30  # shown when something was false
REFRESH = 4  # pictures a second

_STYLES = {"scene": "bold", "say": "", "command": "cyan", "ok": "green", "FALSE": "bold red", "": ""}


@click.command("demo", short_help="the whole story, on loopback")
@click.option(
    "--scale", type=click.FloatRange(5, 40), default=20.0, show_default=True, help="How many times faster than in life."
)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where logs and state go; left there. [default: in /tmp]"
)
@click.option("--keep", is_flag=True, help="Leave the folder behind. When something is false it is always left.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON document; narrate on stderr.")
def command(scale: float, folder: Path | None, keep: bool, as_json: bool) -> None:
    """Play the whole story on loopback: real HAProxies, simulated nodes and relays, and the real controller.

    A producer hangs, returns, two are let in at once, a proxy forgets its state, the controller is killed, and more.
    What is claimed is measured from outside: by the relays' sessions, HAProxy's statistics and pings of our own. Takes
    about a minute; needs haproxy; nothing leaves this machine.

    Exit status: 0 all of it held; 1 something was false, or the pool did not come up; 2 usage.
    """
    import asyncio

    from failover.lab import haproxy, scenes, story
    from failover.lab.haproxy import LabError

    shortened = story.shortened(scale)
    if haproxy.installed() is not None:
        raise LabError("haproxy is not installed, and nothing simulates it here", "apt-get install haproxy")
    where = folder.absolute() if folder is not None else Path(tempfile.mkdtemp(prefix="failover-demo-"))
    narrator = Narrator(sys.stderr if as_json else sys.stdout)
    playing = scenes.Story(where, scale, narrator, scenes.SCENES)
    narrator.begin(playing, shortened)
    good = False
    try:
        found = asyncio.run(_until_told(playing))
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
        elif playing.stage is not None or folder is None:
            narrator.say(f"Logs and state are left in {where}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    if not good:
        narrator.trouble(where)
    sys.exit(0 if good else 1)


async def _until_told(playing: Story) -> dict[str, Any]:
    """Play, and end everything in order also at SIGTERM and SIGHUP; Ctrl-C is asyncio's."""
    import asyncio

    loop, me, told = asyncio.get_running_loop(), asyncio.current_task(), list[int]()

    def end(number: int) -> None:
        told.append(number)
        if me is not None:
            me.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        return await playing.play()
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
        self._story: Story | None = None
        self._width = WIDTH

    def begin(self, playing: Story, shortened: Sequence[tuple[str, float, float]]) -> None:
        """Before anything happens: what is shown, and with which times."""
        self._story = playing
        if self._terminal:
            from rich.console import Console
            from rich.live import Live

            self._console = Console(file=self._stream, highlight=False, no_color="NO_COLOR" in os.environ)
            self._width = min(WIDTH, self._console.width)
            self._live = Live(
                console=self._console, get_renderable=self._drawn, refresh_per_second=REFRESH, transient=True
            )
            self._live.start()
        self._lines(
            "The story of a stake pool on loopback: real HAProxies and the real controller; nodes and relays are"
        )
        self._lines("simulated, and speak the node-to-node protocol. What is claimed is measured from outside.")
        self._lines("")
        for line in times_table(playing.scale, shortened):
            self._lines(line)

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
        self._lines("")
        if self._console is not None:
            self._console.print(rich_table(found))
        else:
            self._lines(*plain_table(found))
        self._lines("")
        for sentence in conclusion(found):
            self._lines(*wrapped(sentence, "", "", self._width))
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

        stage = None if self._story is None else self._story.stage
        if stage is None:
            return Text("starting the pool", "dim")
        try:
            return drawing(picture(stage), stage.scene, len(self._story.acts) if self._story else 0)
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


def conclusion(found: dict[str, Any]) -> list[str]:
    """The sentences about two producers at once."""
    seen, forced = found["witness"], found["forced"]
    sentences = [
        f"Two producers reachable at once, outside what was forced: {found['overlaps']} times "
        f"({seen['sessions']} sessions that the relays wrote down; {seen['looks']} looks at the proxies, "
        f"at most {seen['longest_gap']:.2f} s apart)."
    ]
    sentences += [f"   {words}" for words in found["overlapping"]]
    if found["windows"]:
        windows = ", ".join(f"{w['seconds']:.2f} s after {w['what']}" for w in found["windows"])
        pairs = "1 pair" if forced["overlaps"] == 1 else f"{forced['overlaps']} pairs"
        longest = f", the longest for {forced['longest']:.2f} s" if forced["overlaps"] else ""
        sentences.append(f"Forced: {windows}; relays had {pairs} of sessions with two producers in there{longest}.")
    return sentences


def verdict(found: dict[str, Any]) -> str:
    """The last line."""
    scenes = found["scenes"]
    if found["ok"]:
        return f"All {len(scenes)} scenes went as told, in {found['seconds']:.0f} s."
    wrong = [str(scene["number"]) for scene in scenes if not scene["ok"]]
    parts = [f"scene {', '.join(wrong)}"] if wrong else []
    parts += ["two producers at once"] if found["overlaps"] else []
    parts += [f"{len(found['not_played'])} not played"] if found["not_played"] else []
    return f"FALSE: {'; '.join(parts)}. {found['seconds']:.0f} s."


# ---------------------------------------------------------------- the live picture


def drawing(seen: Picture, scene: Scene, of: int) -> RenderableType:
    """The pool from outside, in a few lines: whom each proxy lets in, whom each relay has, who is stopped."""
    from rich import box
    from rich.panel import Panel
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", style="dim")
    relays = sorted({relay for relay, _ in seen.reached} | {"relay-1", "relay-2"})
    producers = sorted({p for s in seen.proxies.values() if s is not None for p in s.sessions}, reverse=True)
    for title in (*producers, *relays):
        table.add_column(title, min_width=18)
    for name, sample in seen.proxies.items():
        cells = [_gate(sample, producer, producer in seen.stopped) for producer in producers]
        table.add_row(name, *cells, *(seen.reached.get((relay, name), "[dim]nobody[/]") for relay in relays))
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
