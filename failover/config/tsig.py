"""The text of a TSIG key: the base64 secret alone, or a ``key`` clause as tsig-keygen(8) of BIND prints it. Pure.

No error shows the text.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic_core import PydanticCustomError

from failover.config import dns
from failover.config.regular import Unreadable

MEND = "let it hold the base64 secret alone, or the key clause that `tsig-keygen NAME` prints"

# named.conf's words: a comment, a quoted text, a sign, or anything else up to the next of them.
_WORD = re.compile(
    r'\s+|//[^\n]*|#[^\n]*|/\*.*?\*/|"(?P<quoted>[^"\n]*)"|(?P<sign>[{};])|(?P<plain>[^\s{};"]+)', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Key:
    """A key; name and algorithm are those of its clause, or None where the secret stands alone."""

    secret: str = field(repr=False)  # base64
    name: str | None = None  # absolute, lower case
    algorithm: str | None = None


def read(text: str) -> Key:
    """The key that the text holds. Raises Unreadable."""
    plain = text.strip()
    if not plain:
        raise Unreadable("there is no key in it", MEND)
    if re.search(r"[{};]", plain):
        return _clause(_words(plain))
    if len(plain.split()) > 1:
        raise Unreadable("there are several words in it", MEND)
    return Key(_base64(plain))


def _words(text: str) -> list[str]:
    words: list[str] = []
    at = 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise Unreadable("a quote in it has no end", MEND)
        words.extend(word for word in match.group("quoted", "sign", "plain") if word is not None)
        at = match.end()
    return words


def _clause(words: list[str]) -> Key:
    """The key of ``key NAME { algorithm WORD; secret WORD; };`` with its two statements in either order."""
    match words:
        case ["key", name, "{", one, first, ";", other, second, ";", "}", *rest] if rest in ([], [";"]):
            found = {one: first, other: second}
        case ["key", *_] if words.count("key") > 1:
            raise Unreadable("there are several keys in it", "leave the one that the zone's server knows")
        case _:
            raise Unreadable("is not a key clause that can be read", MEND)
    if set(found) != {"algorithm", "secret"}:
        raise Unreadable("the key clause needs algorithm and secret, each once", MEND)
    return Key(
        _base64(found["secret"]),
        _said("name", dns.key_name, name),
        _said("algorithm", dns.algorithm, found["algorithm"]),
    )


def _said(what: str, check: Callable[[str], str], value: str) -> str:
    try:
        return check(value)
    except PydanticCustomError as error:
        refused = error.context or {}
    raise Unreadable(f"the {what} in the key clause {refused['problem']}", refused["mend"])


def _base64(secret: str) -> str:
    try:
        usable = bool(base64.b64decode(secret, validate=True))
    except (binascii.Error, ValueError):
        usable = False
    if not usable:
        raise Unreadable("the secret is not base64", MEND)
    return secret
