"""Instants as the state folder keeps them: JSON-ready, ``[boot, mono, utc]``."""

from __future__ import annotations

from typing import Any

from .model import Instant


def pack(instant: Instant | None) -> list[Any] | None:
    """As it is stored; None stays None."""
    return None if instant is None else [instant.boot, instant.mono, instant.utc]


def unpack(packed: Any) -> Instant | None:
    """What was stored; None stays None. Raises as ``unpack_date`` does."""
    return None if packed is None else unpack_date(packed)


def unpack_date(packed: Any) -> Instant:
    """What was stored, where it never is None. Raises IndexError, TypeError, ValueError for what is no instant."""
    return Instant(str(packed[0]), float(packed[1]), float(packed[2]))
