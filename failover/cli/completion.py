"""``failover completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash  failover completion bash > /etc/bash_completion.d/failover
    zsh   failover completion zsh > "${fpath[1]}/_failover"
    fish  failover completion fish > ~/.config/fish/completions/failover.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows these three
    root = ctx.find_root()
    made = kind(root.command, {}, "failover", "_FAILOVER_COMPLETE")
    # Not made.source(): that asks the shell for its version, and it need not be installed where this is printed.
    click.echo(made.source_template % made.source_vars())
