"""The keep-alive mini-protocol: a cookie out, the same cookie back.

Source: ouroboros-network, specs/keep-alive.cddl. The responder waits 97 s for the next message, the client 60 s.
"""

from __future__ import annotations

from dataclasses import dataclass

from failover.ouroboros.cbor import fields, listed, whole
from failover.ouroboros.errors import WrongShape

MAX_COOKIE = 0xFFFF


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The client's question. ``cookie`` is within 0 to 65535."""

    cookie: int


@dataclass(frozen=True, slots=True)
class Response:
    """The server's answer, with the question's cookie."""

    cookie: int


@dataclass(frozen=True, slots=True)
class Done:
    """The client says that it will ask no more."""


Message = KeepAlive | Response | Done

DONE = b"\x81\x02"


def encode(message: Message) -> bytes:
    """A message as bytes, in the shortest form."""
    if isinstance(message, Done):
        return DONE
    tag = b"\x82\x00" if isinstance(message, KeepAlive) else b"\x82\x01"
    cookie = message.cookie
    if cookie > 0xFF:
        return tag + b"\x19" + cookie.to_bytes(2, "big")
    return tag + (b"\x18" if cookie > 23 else b"") + cookie.to_bytes(1, "big")


def parse(item: object) -> Message:
    """A decoded item as a message. Raises WrongShape."""
    entries = listed(item, "keep-alive message")
    tag = whole(entries[0], 8, "keep-alive message") if entries else None
    if tag == 2:
        fields(item, 1, "keep-alive done")
        return Done()
    if tag not in (0, 1):
        raise WrongShape(f"keep-alive message: {tag} is not one of 0, 1, 2")
    cookie = whole(fields(item, 2, "keep-alive message")[1], 16, "keep-alive cookie")
    return KeepAlive(cookie) if tag == 0 else Response(cookie)
