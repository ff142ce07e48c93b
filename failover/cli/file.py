"""The pool's file, as every command finds it: loaded and checked, with its warnings on stderr."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from failover import config

if TYPE_CHECKING:
    from failover.model import Pool


def loaded(ctx: click.Context, *, warn: bool = False) -> config.Loaded:
    """The file that ``-c``, the environment or the usual places name. Raises ConfigError."""
    given = ctx.obj.get("config") if isinstance(ctx.obj, dict) else None
    found = config.load(config.find(given, os.environ, Path.cwd()))
    if warn:
        for warning in found.warnings:
            click.echo(f"warning: {warning}", err=True)
    return found


def known_producer(pool: Pool, name: str, ctx: click.Context) -> str:
    """``name``, when it is a producer of the pool. Raises UsageError with the nearest one."""
    from failover.cli import did_you_mean

    if name not in pool.names:
        raise click.UsageError(
            f"{name[:80]!r} is no producer of pool {pool.name}.{did_you_mean(name, list(pool.names))}", ctx
        )
    return name


class Duration(click.ParamType[float]):
    """A duration as in the file: 500ms, 10s, 5m, 1h30m, or a number of seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """``value`` in seconds."""
        from pydantic_core import PydanticCustomError

        from failover.config import scalars

        text = str(value)
        number = text.replace(".", "", 1).isdecimal() and len(text) <= 20
        try:
            return scalars.duration(float(text) if number else text)
        except PydanticCustomError as error:
            words = error.context or {}
            self.fail(f"{text[:40]!r} {words.get('problem')}: {words.get('mend')}", param, ctx)


def interactive() -> bool:
    """Whether a person sits at a terminal and can be asked."""
    import sys

    return sys.stdin.isatty() and sys.stdout.isatty()
