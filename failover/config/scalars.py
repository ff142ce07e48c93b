"""Single values of the file: durations, addresses, names, URLs, paths; text in, checked values out.

Each function takes what YAML made of the text and returns the value, or raises what ``refuse`` makes: a sentence
about the value and its mend. Pure; nothing here looks at another value, a file or the network.
"""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from failover.config.finding import names_a_secret
from failover.model import Address, GateKind

REFUSED = "refused"  # the type of our own errors among pydantic's
NETWORKS = {"mainnet": 764824073, "preprod": 1, "preview": 2, "sanchonet": 4}
LEAST_SECONDS = 0.01
MOST_SECONDS = 30 * 86400.0
DURATION_PATTERN = (
    r"^(?=[0-9])(?:[0-9]+(?:\.[0-9]+)?h)?(?:[0-9]+(?:\.[0-9]+)?m)?(?:[0-9]+(?:\.[0-9]+)?s)?(?:[0-9]+ms)?$"
)
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
HAPROXY_PATTERN = r"^[A-Za-z0-9_.:-]{1,128}$"  # the signs that HAProxy allows in names (its manual, section 2)
ENVIRON_PATTERN = r"^[A-Z_][A-Z0-9_]{0,127}$"
LONGEST_SOCKET = 107  # bytes of a unix socket's path (sockaddr_un of Linux)
LONGEST_PATH = 1024
MOST_WORDS, LONGEST_WORD = 32, 256  # of a command

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")
_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PATH = re.compile(r"[A-Za-z0-9/._~%!$&'()*+,=:-]*")
_IPMI = {"ipmitool": "-P", "ipmipower": "-p"}  # the option that a password follows
_ELSEWHERE = re.compile(r"file|script|path|env|stdin", re.IGNORECASE)  # options that say where a secret is
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def refuse(problem: str, mend: str, *, hidden: bool = False) -> PydanticCustomError:
    """The error of a value: what is wrong with it and the mend; ``hidden`` keeps the value out of the message."""
    return PydanticCustomError(REFUSED, "{problem}", {"problem": problem, "mend": mend, "hidden": hidden})


def kind(value: Any) -> str:
    """What YAML made of a value, in an operator's words."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def text(value: Any, what: str, example: str, *, hidden: bool = False) -> str:
    """Text without control characters; ``what`` and ``example`` say what belongs here."""
    if isinstance(value, bool | int | float):
        raise refuse(f"is {kind(value)}, not {what}", f"put it in quotes, as in {example}", hidden=hidden)
    if not isinstance(value, str):
        raise refuse(f"is {kind(value)}, not {what}", f"write for example {example}", hidden=hidden)
    if not value:
        raise refuse(f"is empty, not {what}", f"write for example {example}", hidden=hidden)
    if any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in value):
        raise refuse("has control characters", f"remove them; write for example {example}", hidden=hidden)
    return value


def duration(value: Any) -> float:
    """Seconds, above zero and at most 30 days."""
    mend = "write for example 500ms, 10s, 5m or 1h30m"
    found = seconds(value, mend)
    if found <= 0:
        raise refuse("must be longer than nothing", mend)
    if found < LEAST_SECONDS:
        raise refuse("is shorter than 10ms", mend)
    if found > MOST_SECONDS:
        raise refuse("is longer than 30 days (720h)", mend)
    return found


def seconds(value: Any, mend: str) -> float:
    """Seconds of any length, infinite and negative ones too; ``mend`` says what belongs here."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise refuse(f"is {kind(value)}, not a duration", mend)
    if isinstance(value, str):
        if len(value) > 40 or not re.fullmatch(DURATION_PATTERN, value):
            raise refuse("is not a duration", mend + ", or a number of seconds without quotes")
        return sum(float(number) * _UNIT[unit] for number, unit in _DURATION_PART.findall(value))
    # A number beyond float's range is as wrong as infinity.
    found = math.copysign(math.inf, value) if abs(value) > 1e300 else float(value)
    if math.isnan(found):
        raise refuse("is not a number of seconds", mend)
    return found


def count(value: Any, least: int, most: int, example: str) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(f"is {kind(value)}, not a whole number", f"write a whole number, as in {example}")
    if not least <= value <= most:
        raise refuse(f"is not between {least} and {most}", f"write for example {example}")
    return value


def flag(value: Any) -> bool:
    """True or false; YAML 1.2 has no yes, no, on or off."""
    if not isinstance(value, bool):
        raise refuse(f"is {kind(value)}, not true or false", "write true or false, without quotes")
    return value


def choice(value: Any, choices: tuple[str, ...]) -> str:
    """One of a few words."""
    listed = " or ".join((", ".join(choices[:-1]), choices[-1]))
    if not isinstance(value, str):
        raise refuse(f"is {kind(value)}, not a word", f"write {listed}")
    if value not in choices:
        raise refuse(f"must be {listed}", f"write {listed}")
    return value


def name(value: Any) -> str:
    """A name that can be a label's value, a file's name and a command's argument."""
    plain = text(value, "a name", '"main"' if isinstance(value, str | None) else '"123"')
    if not re.fullmatch(NAME_PATTERN, plain):
        raise refuse(
            "cannot be a name",
            "use letters, digits, dots, _ and -, at most 63 in all, beginning with a letter or digit",
        )
    return plain


def haproxy_name(value: Any) -> str:
    """A backend's or server's name, as HAProxy itself allows it."""
    plain = text(value, "a name", '"producers"')
    if not re.fullmatch(HAPROXY_PATTERN, plain):
        raise refuse("cannot be a name in HAProxy", "copy it from HAProxy's configuration: letters, digits, _ . : -")
    return plain


def address(value: Any) -> Address:
    """``host:port`` or ``[v6]:port``; the host is a name or a literal address."""
    plain = text(value, "an address", '"10.0.1.10:6000"')
    if plain.isdecimal():
        raise refuse("is a port without a host", f'write "HOST:{plain[:5]}"')
    host, bracket, port = plain[1:].rpartition("]:") if plain.startswith("[") else plain.rpartition(":")
    if not bracket:
        raise refuse("has no port", 'write "HOST:PORT"; there is no default port')
    if not host:
        raise refuse("has no host", 'write "HOST:PORT", as in "10.0.1.10:6000"')
    bracketed = bracket == "]:"
    if bracketed or ":" in host:
        if _ip(host, 6) is None:
            raise refuse("has no IPv6 address that can be read", 'write it as in "[2001:db8::1]:6000", without a zone')
        if not bracketed:
            raise refuse("has an IPv6 address without brackets", 'write "[ADDRESS]:PORT"')
    elif not _is_host(host):
        raise refuse("has a host that is neither a name nor an IPv4 address", 'write for example "10.0.1.10:6000"')
    return Address(host, _port(port))


def _port(written: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", written) or not 1 <= int(written) <= 65535:
        raise refuse("has a port that is not between 1 and 65535", 'write "HOST:PORT", as in "10.0.1.10:6000"')
    return int(written)


def _ip(host: str, version: int) -> str | None:
    """The address in its one canonical spelling, or None when it is none of that version. No zones."""
    try:
        return (
            str(ipaddress.IPv6Address(host) if version == 6 else ipaddress.IPv4Address(host))
            if "%" not in host
            else None
        )
    except ValueError:
        return None


def _is_host(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdecimal():
        return _ip(host, 4) is not None
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def same_host(host: str) -> str:
    """A spelling that is equal for hosts that are the same by their writing; nothing is looked up."""
    return _ip(host, 6) or _ip(host, 4) or host.lower().removesuffix(".")


def on_loopback(host: str) -> bool:
    """Whether the host, by its writing, is this machine."""
    literal = _ip(host, 6) or _ip(host, 4)
    return ipaddress.ip_address(literal).is_loopback if literal else same_host(host) == "localhost"


def path(value: Any, what: str, example: str, *, hidden: bool = False) -> Path:
    """An absolute path. ``hidden``: whoever pastes a password here shall not read it in a log."""
    plain = text(value, what, example, hidden=hidden)
    if not plain.startswith("/"):
        raise refuse("is not an absolute path", f"begin with /, as in {example}", hidden=hidden)
    if len(plain.encode()) > LONGEST_PATH:
        raise refuse(f"is longer than {LONGEST_PATH} bytes", f"write a path, as in {example}", hidden=hidden)
    return Path(plain)


def socket(value: Any) -> Path | Address:
    """HAProxy's runtime API: the path of a unix socket, or an address."""
    plain = text(value, "a socket", "/run/haproxy/admin.sock")
    if plain.startswith("/"):
        if len(plain.encode()) > LONGEST_SOCKET:
            raise refuse(f"is longer than a socket's path can be ({LONGEST_SOCKET} bytes)", "use a shorter path")
        return Path(plain)
    if ":" not in plain:
        raise refuse("is neither an absolute path nor an address", 'write /run/haproxy/admin.sock or "HOST:PORT"')
    return address(plain)


def stats(value: Any) -> str:
    """The URL of HAProxy's stats page, without a secret inside."""
    plain, path = url(value, "https://10.0.2.5:8404/stats", "use username and password_file")
    if not _PATH.fullmatch(path):
        mend = "write the path as in HAProxy's `stats uri`, without ;csv and without blanks"
        raise refuse("has signs in its path that do not belong there", mend)
    return plain


def metrics(value: Any) -> str:
    """The URL of a node's metrics in Prometheus' text format."""
    example = "http://10.0.1.10:12798/metrics"
    plain, path = url(value, example, "let whoever may read them be decided by the network")
    if not _PATH.fullmatch(path):
        raise refuse("has signs in its path that do not belong there", f"write for example {example}")
    return plain


def url(value: Any, example: str, instead: str) -> tuple[str, str]:
    """A URL of HTTP, as written, and its path. ``instead`` says where a user and a password belong."""
    plain = text(value, "a URL", example)
    if "@" in plain:
        raise refuse("has a user or password inside", f"leave them out of the URL; {instead}", hidden=True)
    if "?" in plain or "#" in plain:
        raise refuse("has a query or fragment", f"end the URL after its path, as in {example}", hidden=True)
    if not plain.startswith(("http://", "https://")):
        raise refuse("must be http:// or https://", f"write for example {example}")
    try:
        parts = urlsplit(plain)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    valid = _ip(host, 6) is not None if ":" in host else _is_host(host)
    if not valid or port == 0 or parts.netloc.endswith(":"):
        raise refuse("has no host and port that can be used", f"write for example {example}")
    return plain, parts.path


def username(value: Any) -> str:
    """A user's name for HTTP basic authentication, which ends at the first colon (RFC 7617)."""
    plain = text(value, "a user's name", '"failover"')
    if ":" in plain or len(plain) > 128:
        raise refuse("cannot be a user's name", "a user's name has no colon and at most 128 characters", hidden=True)
    return plain


def variable(value: Any) -> str:
    """The name of an environment variable."""
    plain = text(value, "the name of an environment variable", "PROXY_2_PASSWORD")
    if not re.fullmatch(ENVIRON_PATTERN, plain):
        mend = "write the variable's name, in capitals, as in PROXY_2_PASSWORD; never the password itself"
        raise refuse("is not the name of an environment variable", mend, hidden=True)
    return plain


def network(value: Any) -> tuple[str, int]:
    """The network's name and magic."""
    known = ", ".join(NETWORKS)
    if isinstance(value, dict):
        if set(value) != {"magic"}:
            raise refuse("is a mapping with other keys than magic", f"write {{magic: 42}}, or one of {known}")
        magic = count(value["magic"], 0, 2**32 - 1, "{magic: 42}")
        return next((word for word, number in NETWORKS.items() if number == magic), f"magic-{magic}"), magic
    if isinstance(value, int) and not isinstance(value, bool):
        raise refuse("is a number, not a network", f"write {{magic: {str(value)[:12]}}}, or one of {known}")
    plain = text(value, "a network", "mainnet")
    if plain not in NETWORKS:
        raise refuse("is not a network that is known here", f"write one of {known}, or {{magic: NUMBER}}")
    return plain, NETWORKS[plain]


def servers(value: Any) -> dict[str, str]:
    """A producer's name to HAProxy's server name, in the order of the file."""
    mend = "write {PRODUCER: SERVER} with an entry for each producer, or leave the key out when the names are the same"
    if not isinstance(value, dict):
        raise refuse(f"is {kind(value)}, not a mapping of producers to servers", mend)
    checked = {str(producer): haproxy_name(server) for producer, server in value.items()}
    if len(set(checked.values())) != len(checked):
        raise refuse("names the same server twice", "each producer has a server of its own")
    return checked


def host_gate(value: Any) -> str:
    """A gate that the agent opens and closes on a producer's host."""
    if value == GateKind.POWER:
        raise refuse(
            "is a gate by its commands, and the agent has none", "remove it here, and write power: below the producer"
        )
    return choice(value, (GateKind.FORGING.value, GateKind.FIREWALL.value))


def command(value: Any) -> tuple[str, ...]:
    """A command as words, the first an absolute path. Its words are never shown: one may be a password after all."""
    mend = 'write a list of words, as in [/usr/bin/ipmitool, -H, "10.0.9.1", power, status]; no shell reads it'
    if not isinstance(value, list):
        raise refuse(f"is {kind(value)}, not a list of words", mend, hidden=True)
    if not value:
        raise refuse("is empty, not a list of words", mend, hidden=True)
    if len(value) > MOST_WORDS:
        raise refuse(
            f"has {len(value)} words, and at most {MOST_WORDS} are allowed", "put them into a script", hidden=True
        )
    words = tuple(_word(word, index) for index, word in enumerate(value))
    if not words[0].startswith("/"):
        raise refuse("does not begin with an absolute path", mend, hidden=True)
    if any(map(_tells_a_secret, words)) or _given_to_ipmi(words):
        problem = "has a password among its words, which everybody on this machine can see while it runs"
        mend = "give a password by a file that the command reads, as in ipmitool -f FILE"
        raise refuse(problem, mend, hidden=True)
    return words


def _word(value: Any, index: int) -> str:
    """One word of a command; an empty one, or one of several lines, is a mistake of writing."""
    if not isinstance(value, str):
        mend = (
            "put it in quotes"
            if isinstance(value, bool | int | float)
            else "write a list of words, none of them a list"
        )
        raise refuse(f"has {kind(value)} at [{index}], not a word", mend, hidden=True)
    if not 1 <= len(value) <= LONGEST_WORD or not value.isprintable():
        mend = f"write each word with 1 to {LONGEST_WORD} printable characters; put more into a script"
        raise refuse(f"has something else than a word at [{index}]", mend, hidden=True)
    return value


def _tells_a_secret(word: str) -> bool:
    """Whether a word is, or announces, a password, and not the file that has it."""
    option = re.split("[=/]", word)[0].lstrip("-")
    named = names_a_secret(option) and not _ELSEWHERE.search(option)
    return named or bool(re.search(r"://[^/\s]*:[^/\s]*@", word))


def _given_to_ipmi(words: tuple[str, ...]) -> bool:
    """Whether a tool that is used for this has its password by the option that one finds in its manual first."""
    options = [_IPMI[tool] for word in words if (tool := word.rpartition("/")[2]) in _IPMI]
    return any(word.startswith(option) for option in options for word in words[1:])
