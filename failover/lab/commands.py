"""What a part of the lab can be told: a word, and for some words a value. The table is the help, and the check."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from failover.lab.haproxy import LabError


@dataclass(frozen=True, slots=True)
class Command:
    """Something that can be told. ``argument`` is what its value is, or empty where it takes none.

    ``read`` turns the value's text into what it means, or raises ValueError or LabError.
    """

    meaning: str
    argument: str = ""
    read: Callable[[str], Any] = str
    example: str = ""


def number(text: str) -> float:
    """A finite number. Raises ValueError."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(text)
    return found


def seconds(text: str) -> float:
    """A duration of not less than 0. Raises ValueError."""
    found = number(text)
    if found < 0:
        raise ValueError(text)
    return found


def ttl(text: str) -> int:
    """A DNS record's TTL, in seconds. Raises ValueError."""
    found = int(text)
    if not 0 <= found < 2**31:
        raise ValueError(text)
    return found


def address(text: str) -> str:
    """A literal IPv4 or IPv6 address. Raises ValueError."""
    return str(ipaddress.ip_address(text))


def read(commands: Mapping[str, Command], word: str, value: str | None) -> Any:
    """What ``value`` means for the command ``word``; None where it takes none. Raises LabError."""
    known = commands.get(word)
    if known is None:
        raise LabError(f"{word}: no such command", "there are: " + ", ".join(commands))
    if not known.argument:
        if value is not None:
            raise LabError(f"{word} takes no value, {value!r} was given", f"write: {word}")
        return None
    try:
        if not value:
            raise ValueError
        return known.read(value)
    except ValueError:
        given = "nothing" if value is None else repr(value)
        example = f"write for example: {word} {known.example or '3'}"
        raise LabError(f"{word} needs {known.argument}, {given} was given", example) from None
