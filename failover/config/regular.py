"""Reading a regular file of bounded size, whatever stands at its path."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from failover.errors import ConfigError

OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Unreadable(ConfigError):
    """The file cannot be used. The message has the reason, never the content."""


def read(path: Path, most: int, *, private: bool = False) -> bytes:
    """At most ``most`` bytes of the file. ``private``: others must have no right to it. Raises Unreadable."""
    try:
        # Not blocking: a named pipe would otherwise hold up the start for ever.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Unreadable("there is no such file", "create it, or correct the path") from None
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be opened: {_reason(error)}", "let the daemon's user read it") from None
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            what = "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"
            raise Unreadable(what, "give the path of a file")
        if private and mode & OTHERS:
            problem = f"others can read the file (mode {stat.S_IMODE(mode):04o})"
            raise Unreadable(problem, f"chmod 600 {shlex.quote(str(path))}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(most)
    except OSError as error:
        raise Unreadable(f"cannot be read: {_reason(error)}", "let the daemon's user read it") from None
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or "the path cannot be used").lower()
