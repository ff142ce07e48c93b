"""Secrets and the files beside the configuration that must be there when it is read.

A secret's text leaves this module as a return value alone, never in an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from failover.config import regular
from failover.config.regular import Unreadable

MOST_BYTES = 4096  # of a secret's file


_ALONE = "write the password into it, alone"


def from_file(path: Path) -> str:
    """The password in a file, without its line's end. Raises Unreadable."""
    return _one_line(text(path, _ALONE).removesuffix("\n").removesuffix("\r"), "the file", _ALONE)


def from_environment(name: str, environ: Mapping[str, str]) -> str:
    """The password in an environment variable. Raises Unreadable."""
    return _one_line(variable(name, environ, "password_file"), "the variable", "set it to the password, alone")


def text(path: Path, mend: str, *, most: int = MOST_BYTES, private: bool = True) -> str:
    """The text of a file of at most so many bytes; ``mend`` says what belongs into it. Raises Unreadable.

    ``private``: others must not be able to read it.
    """
    content = regular.read(path, most + 1, private=private)
    if len(content) > most:
        raise Unreadable(f"the file is larger than {most} bytes", mend)
    try:
        found = content.decode("utf-8")
    except UnicodeDecodeError:
        found = ""  # the error itself would carry the bytes
    if content and not found:
        raise Unreadable("the file is not UTF-8 text", mend)
    return found


def variable(name: str, environ: Mapping[str, str], instead: str) -> str:
    """The text of an environment variable; ``instead`` is the key that names a file. Raises Unreadable."""
    if name not in environ:
        raise Unreadable("the environment has no such variable", f"set it, or use {instead}")
    return environ[name]


def require_file(path: Path, *, private: bool) -> None:
    """Make sure that a certificate's or key's file can be read and has a content. Raises Unreadable.

    ``private``: others must not be able to read it.
    """
    if not regular.read(path, 1, private=private):
        raise Unreadable("the file is empty", "put the PEM text into it")


def _one_line(text: str, where: str, mend: str) -> str:
    if not text:
        raise Unreadable(f"{where} is empty", mend)
    if not text.isprintable():
        raise Unreadable(f"{where} has several lines or control characters", mend)
    return text
