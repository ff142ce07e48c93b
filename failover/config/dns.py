"""Single values of records: names, what they point at, times to live, zones, servers; text in, checked values out.

As in scalars.py, each function returns the value or raises what ``refuse`` makes. Pure; nothing is looked up.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import Any
from urllib.parse import urlsplit

from failover.config import scalars
from failover.config.scalars import refuse, text
from failover.model import Address

LEAST_TTL, MOST_TTL = 60, 86_400  # seconds
PORT = 53
LONGEST_NAME = 253  # characters without the last dot (RFC 1035)
ALGORITHMS = ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")
_WEAK = re.compile(r"(?:hmac-?)?(?:md5|sha-?1)(?:\..*)?")

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LAST = rf"(?![0-9]+\.?$){_LABEL}\.?"
_V4 = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
_V6 = r"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*"
NAME_PATTERN = rf"^(?:{_LABEL}\.)+{_LAST}$"
ZONE_PATTERN = rf"^(?:{_LABEL}\.)*{_LAST}$"
TARGET_PATTERN = rf"^(?:{_V4}|{_V6}|(?:{_LABEL}\.)+{_LAST})$"
SERVER_PATTERN = rf"^(?:\[{_V6}\](?::[0-9]{{1,5}})?|{_V6}|[A-Za-z0-9_.-]+(?::[0-9]{{1,5}})?)$"
LITERAL_PATTERN = rf"^(?:\[{_V6}\](?::[0-9]{{1,5}})?|{_V6}|{_V4}(?::[0-9]{{1,5}})?)$"
ZONE_ID_PATTERN = r"^(?:/hostedzone/)?[A-Z0-9]{1,32}$"  # ResourceId of the Route 53 API
PROFILE_PATTERN = r"^\S(?:.{0,126}\S)?$"

_Literal = ipaddress.IPv4Address | ipaddress.IPv6Address


# ---------------------------------------------------------------- names


def name(value: Any) -> str:
    """A record's name: absolute, lower case, with a trailing dot."""
    return _absolute(text(value, "a host's name", '"bp.example.com."'), "bp.example.com.", 2)


def zone(value: Any) -> str:
    """A zone's name: absolute, lower case, with a trailing dot. One label is enough."""
    return _absolute(text(value, "a zone's name", '"example.com."'), "example.com.", 1)


def key_name(value: Any) -> str:
    """A TSIG key's name, which is written as a host's is."""
    return _absolute(text(value, "a key's name", '"bp-key"'), "bp-key", 1)


def _absolute(plain: str, example: str, labels: int) -> str:
    bare = plain.removesuffix(".").lower()
    parts = bare.split(".")
    if _literal(bare) is not None:
        raise refuse("is an address, not a name", f"write a name, as in {example}")
    if "*" in bare:
        raise refuse("is a wildcard, and relays look up one name", f"write one whole name, as in {example}")
    if len(bare) > LONGEST_NAME or parts[-1].isdecimal() or not all(re.fullmatch(_LABEL, part) for part in parts):
        mend = "letters, digits, - and _ between dots, at most 63 each and 253 in all; other letters in their xn-- form"
        raise refuse("is not a name that DNS knows for hosts", mend)
    if len(parts) < labels:
        raise refuse("has no domain", f"write the whole name, as in {example}")
    return f"{bare}."


# ---------------------------------------------------------------- what a record points at


def target(value: Any) -> str:
    """An address or a host's name, in canonical text: compressed, or absolute and lower case."""
    plain = text(value, "an address or a name", '"203.0.113.10"')
    literal = _literal(plain)
    if literal is not None:
        return str(_usable(literal))
    if plain.startswith("["):
        raise refuse("is in brackets", "write the IPv6 address alone, as in 2001:db8::1")
    if ":" in plain:
        host = plain.partition(":")[0]
        if plain.count(":") == 1 and host:
            raise refuse("has a port, and DNS has none", "write the address or name alone; relays know the port")
        raise refuse("has no IPv6 address that can be read", "write it as in 2001:db8::1, without a zone")
    if plain.removesuffix(".").rpartition(".")[2].isdecimal():
        raise refuse("is neither an address nor a name", "write for example 203.0.113.10 or bp1.example.net.")
    return _absolute(plain, "bp1.example.net.", 2)


def is_link_local(target: str) -> bool:
    """Whether a checked target means something on its own link only."""
    literal = _literal(target)
    return literal is not None and literal.is_link_local


def _literal(plain: str) -> _Literal | None:
    try:
        return ipaddress.ip_address(plain) if "%" not in plain else None
    except ValueError:
        return None


def _usable(literal: _Literal) -> _Literal:
    """The address, if it can be one host's."""
    what = None
    if literal.is_unspecified:
        what = "is nobody's address"
    elif literal.is_multicast:
        what = "is a multicast address"
    elif literal == ipaddress.IPv4Address("255.255.255.255"):
        what = "is the broadcast address"
    elif isinstance(literal, ipaddress.IPv6Address) and literal.ipv4_mapped is not None:
        raise refuse("is an IPv4 address in IPv6 writing", f"write {literal.ipv4_mapped}")
    if what is not None:
        raise refuse(what, "write one host's address, as in 203.0.113.10")
    return literal


def ttl(value: Any) -> int:
    """A record's time to live in whole seconds."""
    mend = "write 60: a node asks again no sooner"
    seconds = scalars.seconds(value, mend)
    if seconds == 0:
        raise refuse("is 0 s, which cardano-node takes for 900 s", mend)
    if seconds < LEAST_TTL:
        raise refuse("is shorter than 60 s, and cardano-node asks again after 60 to 900 s", mend)
    if seconds > MOST_TTL:
        raise refuse("is longer than a day", "write 60: so long the world would hold on to the old address")
    if seconds != math.floor(seconds):
        raise refuse("is not in whole seconds", mend)
    return int(seconds)


# ---------------------------------------------------------------- who holds the zone


def zone_id(value: Any) -> str:
    """A Route 53 hosted zone's id; the path that the API puts before it is taken off."""
    plain = text(value, "a hosted zone's id", '"Z0123456789ABC"')
    if not re.fullmatch(ZONE_ID_PATTERN, plain):
        mend = "copy the id from Route 53: capitals and digits, as in Z0123456789ABC; not the zone's name"
        raise refuse("is not a hosted zone's id", mend)
    return plain.removeprefix("/hostedzone/")


def profile(value: Any) -> str:
    """The name of a profile in the AWS configuration."""
    plain = text(value, "a profile's name", '"failover"')
    if not re.fullmatch(PROFILE_PATTERN, plain):
        raise refuse("cannot be a profile's name", "at most 128 characters, without blanks around it")
    return plain


def endpoint_url(value: Any) -> str:
    """The URL of a Route 53 endpoint, without a secret inside; in the clear on this machine only."""
    plain, path = scalars.url(value, "https://route53.amazonaws.com", "let AWS credentials come from a profile")
    if path not in ("", "/"):
        raise refuse("has a path", "end the URL after host and port")
    if plain.startswith("http://") and not scalars.on_loopback(urlsplit(plain).hostname or ""):
        raise refuse("would send changes over the network in the clear", "write https://")
    return plain


def server(value: Any) -> Address:
    """A DNS server: an address or a name, with port 53 where none is written."""
    plain = text(value, "a server", '"10.0.0.2" or "ns1.example.com:53"')
    literal = _literal(plain[1:-1] if plain.startswith("[") and plain.endswith("]") else plain)
    if literal is not None:
        return Address(str(_usable(literal)), PORT)
    if plain.startswith("[") or ":" in plain or plain.isdecimal():
        found = scalars.address(plain)
    else:
        found = Address(scalars.address(f"{plain}:{PORT}").host, PORT)
    literal = _literal(found.host)
    return found if literal is None else Address(str(_usable(literal)), found.port)


def literal_server(value: Any) -> Address:
    """A DNS server by its address: a name would have to be looked up first."""
    found = server(value)
    if _literal(found.host) is None:
        raise refuse("is a name, and DNS servers are asked by address", 'write for example 10.0.0.2 or "10.0.0.2:53"')
    return found


def algorithm(value: Any) -> str:
    """A TSIG algorithm's name (RFC 8945), in lower case and without a trailing dot."""
    plain = text(value, "an algorithm", "hmac-sha256").lower().removesuffix(".")
    if _WEAK.fullmatch(plain):
        raise refuse("is too weak", "use hmac-sha256, and make a new key for it (tsig-keygen NAME)")
    return scalars.choice(plain, ALGORITHMS)
