"""What SSH needs: a user's name, a host's public key, the text of a private key and of a known_hosts file. Pure.

The public key formats are those of RFC 4253, section 6.6, and RFC 5656, section 3.1; the private one is OpenSSH's
own (PROTOCOL.key in its sources). No error shows a key.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from failover.config.regular import Unreadable
from failover.config.scalars import refuse, text

USER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"
_RSA = "ssh-rsa"
TYPES = {  # what a key may be called, and what it is called inside; RSA has three names for one kind of key
    "ssh-ed25519": "ssh-ed25519",
    "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521",
    "rsa-sha2-256": _RSA,
    "rsa-sha2-512": _RSA,
    _RSA: _RSA,
}
HOST_KEY_PATTERN = rf"^(?:{'|'.join(TYPES)}) [A-Za-z0-9+/]+={{0,2}}(?: .*)?$"
MOST_BYTES = 1 << 14  # of a private key's file; RSA with 8192 bits needs 7 KiB
MOST_KNOWN = 1 << 20  # of a known_hosts file
LONGEST_KEY = 4096  # characters of a host's key
MEND = "make one for this alone: ssh-keygen -t ed25519 -N '' -f FILE"

_MAGIC = b"openssh-key-v1\0"
_BEGIN, _END = (f"-----{edge} OPENSSH PRIVATE KEY-----" for edge in ("BEGIN", "END"))
_EXAMPLE = '"ssh-ed25519 AAAA..."'
_COPY = "copy type and base64 from the host's /etc/ssh/ssh_host_ed25519_key.pub, as in " + _EXAMPLE


def user(value: Any) -> str:
    """The name of a user of the host."""
    plain = text(value, "a user's name", '"failover"')
    if not re.fullmatch(USER_PATTERN, plain):
        mend = "use letters, digits, dots, _ and -, at most 32 in all, beginning with a letter or _"
        raise refuse("cannot be the name of a user of the host", mend, hidden=":" in plain)
    return plain


def host_key(value: Any) -> str:
    """A host's public key as ``TYPE BASE64``, its comment taken off, its type as it says itself."""
    plain = text(value, "a host's key", _EXAMPLE, hidden=True)
    words = plain.split()
    if "PRIVATE KEY" in plain:
        raise refuse("is a private key, which is never written in this file", _COPY, hidden=True)
    if len(words) < 2 or words[0] not in TYPES:
        raise refuse(f"is not a host's key: {_instead(words)}", _COPY, hidden=True)
    if len(words[1]) > LONGEST_KEY:
        raise refuse(f"is longer than {LONGEST_KEY} characters", _COPY, hidden=True)
    blob = _decoded(words[1])
    inner, rest = _string(blob or b"")
    if blob is None or inner is None or not rest:
        raise refuse("is damaged: its second word is no key in base64", _COPY, hidden=True)
    if inner != TYPES[words[0]].encode():
        raise refuse(f"is damaged: it is called {words[0]}, and is something else inside", _COPY, hidden=True)
    if not _whole(TYPES[words[0]], rest):
        raise refuse("is damaged: it ends too early, or too late", _COPY, hidden=True)
    return f"{TYPES[words[0]]} {words[1]}"


def _instead(words: list[str]) -> str:
    """What stands there instead of a type and base64."""
    if any(word in TYPES for word in words[1:]):
        return "its type is not the first word; a host's name stands before it only in known_hosts"
    if words and words[0] in TYPES:
        return "the base64 is missing"
    if words and words[0].startswith("SHA256:"):
        return "it is a fingerprint"
    return f"its type is none of {', '.join(TYPES)}"


def private_key(text: str) -> None:
    """Make sure that the text is one private key that works without a passphrase. Raises Unreadable."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if not lines:
        raise Unreadable("the file is empty", MEND)
    if lines[0] != _BEGIN:
        raise _other(lines[0])
    blob = _decoded("".join(lines[1:-1])) if lines[-1] == _END else None
    if blob is None or not blob.startswith(_MAGIC):
        raise _damaged()
    cipher, rest = _string(blob.removeprefix(_MAGIC))
    if cipher not in (None, b"none"):
        mend = f"{MEND}; or take the passphrase off: ssh-keygen -p -N '' -f FILE"
        raise Unreadable("the key is protected by a passphrase, and nobody is there to type it", mend)
    _function, rest = _string(rest)
    _options, rest = _string(rest)
    number, rest = rest[:4], rest[4:]
    public, rest = _string(rest)
    private, rest = _string(rest)
    # The private part begins with the same number twice, by which a wrong passphrase would show.
    if cipher is None or number != b"\0\0\0\1" or not public or private is None or rest:
        raise _damaged()
    if len(private) < 8 or private[:4] != private[4:8]:
        raise _damaged()
    kind = _string(public)[0]
    if kind not in {inner.encode() for inner in TYPES.values()}:
        raise Unreadable("the key is of a kind that cannot be used here", MEND)


def _other(first: str) -> Unreadable:
    """The refusal of a file that begins otherwise than a private key of OpenSSH."""
    if "PRIVATE KEY" in first:
        mend = f"convert it: ssh-keygen -p -N '' -f FILE writes OpenSSH's format; or {MEND}"
        return Unreadable("is a private key in another format than OpenSSH's", mend)
    if first.split()[0] in TYPES:
        return Unreadable("is a public key", "give the path of the private one, without .pub")
    return Unreadable("is not a private key of OpenSSH", MEND)


def _damaged() -> Unreadable:
    return Unreadable("the private key is damaged", MEND)


def known_hosts(text: str) -> None:
    """Make sure that the text has a line with a host's key at all. Raises Unreadable."""
    for line in text.splitlines():
        words = line.split()
        words = words[1:] if words and words[0] == "@cert-authority" else words
        if len(words) > 2 and not words[0].startswith(("#", "@")) and words[1] in TYPES and _decoded(words[2]):
            return
    mend = "write the host's line into it: ssh-keyscan -t ed25519 HOST prints it; compare its fingerprint on the host"
    raise Unreadable("there is no host's key in it", mend)


# ---------------------------------------------------------------- the formats


def _decoded(encoded: str) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None


def _string(data: bytes) -> tuple[bytes | None, bytes]:
    """The string that the bytes begin with, and what follows; None where they end before it does (RFC 4251, 5)."""
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length or len(data) < 4:
        return None, b""
    return data[4 : 4 + length], data[4 + length :]


def _whole(kind: str, rest: bytes) -> bool:
    """Whether what follows the type has as many parts as keys of this kind have, and not a byte more."""
    parts = []
    for _ in range(1 if kind == "ssh-ed25519" else 2):
        part, rest = _string(rest)
        parts.append(part)
    whole = all(parts) and not rest
    return whole and (kind != "ssh-ed25519" or len(parts[0] or b"") == 32)
