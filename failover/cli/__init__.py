"""The command line: which commands there are, and what an error looks like.

A command's module is loaded when the command is used, and not before: ``failover --help`` loads click alone. Hence
the short texts stand here. Exit status of any command: 0 done, 1 failed, 2 usage or the file, 3 no daemon where one
is needed, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import click

from failover._version import __version__
from failover.errors import ConfigError, FailoverError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

INTERRUPTED = 130
BROKEN_PIPE = 141  # as a shell shows the end by SIGPIPE
USAGE = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: where it is (``module:attribute``), what it does in a few words, and among which others."""

    place: str
    short: str
    section: str


_LOOK, _MOVE, _RUN, _TOOLS = "Look", "Move", "Run", "Tools"

COMMANDS: dict[str, Entry] = {
    "status": Entry("failover.cli.status:command", "The pool at a glance.", _LOOK),
    "explain": Entry("failover.cli.explain:command", "Why this producer is active, and what comes next.", _LOOK),
    "history": Entry("failover.cli.history:command", "Decisions and steps, with reasons.", _LOOK),
    "check": Entry("failover.cli.check:command", "Try the file and everything that it names; changes nothing.", _LOOK),
    "ping": Entry("failover.cli.ping:command", "Ping Cardano nodes over the node-to-node protocol.", _LOOK),
    "switchover": Entry("failover.cli.switchover:command", "Move the role in order, and pin it there.", _MOVE),
    "pause": Entry("failover.cli.hold:pause", "No automatic steps, until resume.", _MOVE),
    "resume": Entry("failover.cli.hold:resume", "Steer again after pause or release.", _MOVE),
    "pin": Entry("failover.cli.hold:pin", "No failback away from a producer.", _MOVE),
    "unpin": Entry("failover.cli.hold:unpin", "End a pin.", _MOVE),
    "cordon": Entry("failover.cli.hold:cordon", "A producer is under maintenance: never a target.", _MOVE),
    "uncordon": Entry("failover.cli.hold:uncordon", "End a cordon.", _MOVE),
    "adopt": Entry("failover.cli.assignment:adopt", "Say which producer is active, without an assignment.", _MOVE),
    "release": Entry("failover.cli.assignment:release", "Stop steering, and leave every gate as it stands.", _MOVE),
    "run": Entry("failover.cli.run:command", "The daemon.", _RUN),
    "demo": Entry("failover.cli.demo:command", "The whole story, on loopback.", _RUN),
    "lab": Entry("failover.cli.lab:command", "Simulated nodes and relays with real proxies, on loopback.", _RUN),
    "simulate": Entry(
        "failover.cli.simulate:command", "What would happen: this pool on a simulated clock, with faults.", _TOOLS
    ),
    "render": Entry("failover.cli.render:command", "Configuration for the parts around, from the same file.", _TOOLS),
    "schema": Entry("failover.cli.schema:command", "The JSON Schema of the file.", _TOOLS),
    "completion": Entry("failover.cli.completion:command", "Completion for bash, zsh or fish.", _TOOLS),
    "version": Entry("failover.cli.version:command", "The version.", _TOOLS),
}


class Failure(click.ClickException):
    """An error of ours as click shows it: one line, then the mend on a line of its own."""

    def __init__(self, error: FailoverError) -> None:
        super().__init__(str(error))
        self.mend = error.mend
        self.status = exit_status(error)

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """As click reads it."""
        return self.status

    def show(self, file: object = None) -> None:
        """Print it on stderr, without control characters that a peer may have sent."""
        click.echo(f"error: {_seemly(self.message)}", err=True)
        if self.mend:
            click.echo(f"  {_seemly(self.mend)}", err=True)


def exit_status(error: FailoverError) -> int:
    """2 for the file and usage, 3 for a daemon that is missing (its error says so itself), 1 for the rest."""
    if isinstance(error, ConfigError):
        return USAGE
    return int(getattr(error, "exit_status", 1))


class Commands(click.Group):
    """The table above as click wants it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the module of one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        try:
            command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise click.UsageError(f"{cmd_name}: not supported by this version", ctx) from None
        assert isinstance(command, click.Command)  # noqa: S101 - the table is ours
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with our own words for a command that is not there."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0][:80]!r}.{did_you_mean(args[0], list(COMMANDS))}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands by the table, so that a key press loads nothing; then click's own."""
        from click.shell_completion import CompletionItem

        named = [CompletionItem(n, help=e.short) for n, e in COMMANDS.items() if n.startswith(incomplete)]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, in sections; loads nothing."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows = [(name, entry.short) for name, entry in COMMANDS.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; errors of ours, Ctrl-C and a reader that went away end quietly and with their status."""
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except FailoverError as error:
            raise Failure(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # What is still buffered must not fail once more at the interpreter's end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        return result


def did_you_mean(word: str, known: list[str]) -> str:
    """A sentence with the nearest of the known words, or with all of them when there are few; begins with a blank."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=2, cutoff=0.6)
    if near:
        return f" Did you mean {' or '.join(repr(n) for n in near)}?"
    return f" There is {', '.join(known)}." if 0 < len(known) <= 8 else ""


def _seemly(text: str) -> str:
    return "".join(c if c == "\n" or c.isprintable() else "�" for c in text)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    help="The pool's file. Default: $FAILOVER_CONFIG, ./failover.yaml, /etc/failover/failover.yaml.",
)
@click.version_option(__version__, prog_name="failover", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, config: str | None) -> None:
    """High availability for Cardano stake pools: one block producer admitted, never two.

    Exit status: 0 done, 1 failed, 2 usage or the file, 3 no daemon where one is needed.
    """
    ctx.obj = {"config": config}
