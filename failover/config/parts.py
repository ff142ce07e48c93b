"""The values of the file, each checked by itself, and what is wrong with the others. Pure.

Every item and section is checked on its own, so that one mistake does not hide the next. Pydantic's own sentences
never reach an operator: they are put into ours here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from failover.config import scalars
from failover.config.document import Location
from failover.config.finding import names_a_secret
from failover.config.keys import AddressText, Part
from failover.config.shape import (
    AgentPart,
    FencePart,
    File,
    HealthPart,
    LeasePart,
    PolicyPart,
    PowerPart,
    ProducerPart,
    ProxyPart,
    RecordPart,
    RelayPart,
    Rfc2136Part,
    Route53Part,
    VerifyPart,
)

NOT_SUPPORTED = "not supported by this version"
RESERVED = ("metrics", "schedule", "store", "alerts", "dead_man", "quiet", "companions")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which place: the first of ``places`` that is written in the file."""

    places: tuple[Location, ...]
    problem: str
    mend: str
    hidden: bool = False


_SECTIONS: dict[str, type[Part]] = {"health": HealthPart, "policy": PolicyPart, "fence": FencePart, "lease": LeasePart}
_ITEMS: dict[str, type[Part]] = {
    "agents": AgentPart,
    "producers": ProducerPart,
    "proxies": ProxyPart,
    "records": RecordPart,
    "relays": RelayPart,
}
_INNER: dict[str, type[Part]] = {
    "power": PowerPart,
    "route53": Route53Part,
    "rfc2136": Rfc2136Part,
    "verify": VerifyPart,
}
_PARTS = {**_SECTIONS, **_ITEMS, **_INNER}
_INSTEAD: dict[type[Part], str] = {  # of a secret, by where it stands
    AgentPart: "give the path of a private key without a passphrase (key_file)",
    PowerPart: "give it by a file that the command reads, as in ipmitool -f FILE",
    Part: "give the path of a file with it (password_file), or a variable's name (password_env)",
    Rfc2136Part: "give the path of a file with it (key_file), or a variable's name (key_env)",
    Route53Part: "name a profile of the AWS configuration; or leave it to the environment, or to the machine's role",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """The values that are right by themselves. A key that is wrong, or missing though required, is not in ``values``.

    ``values`` has every key of File; an item of a list that is wrong is None in it.
    """

    values: Mapping[str, Any]
    problems: tuple[Problem, ...]


def parts(data: Mapping[str, Any]) -> Parts:
    """Check each value of the file by itself, every one even when others are wrong."""
    values: dict[str, Any] = {}
    found = [_unknown((key,), key, File) for key in data if key not in File.model_fields]
    types = get_type_hints(File, include_extras=True)
    for key, field in File.model_fields.items():
        if key not in data:
            if field.is_required():
                found.append(_absent(key))
            else:
                values[key] = field.get_default()
        elif key in _ITEMS or key == "references":
            adapter = TypeAdapter[Any](_ITEMS.get(key, AddressText))
            if isinstance(data[key], list):
                values[key] = [_checked(adapter, item, (key, i), found) for i, item in enumerate(data[key])]
            else:
                what = scalars.kind(data[key])
                found.append(Problem(((key,),), f"is {what}, not a list", "write one line with - for each item"))
        else:
            value = _checked(TypeAdapter[Any](types[key]), data[key], (key,), found)
            if value is not None:
                values[key] = value
    return Parts(values, tuple(found))


def _checked(adapter: TypeAdapter[Any], value: Any, place: Location, found: list[Problem]) -> Any:
    """The checked value; or None, and why in ``found``."""
    empty = [Problem((at,), "is empty", "write a value, or leave the key out") for at in _empty(value, place)]
    found.extend(empty)
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    else:
        return None if empty else checked
    found.extend(problem for detail in details for problem in _problem(detail, place, value))
    return None


def _empty(value: Any, place: Location) -> Iterator[Location]:
    """Where a key that has no default, and may be left out, is written without a value."""
    if not isinstance(value, dict):
        return
    part = _part((*place, ""))
    for key, inner in value.items():
        field = part.model_fields.get(key)
        if inner is None and field is not None and field.default is None:
            yield (*place, key)
        elif key in _INNER:
            yield from _empty(inner, (*place, key))


def _part(place: Location) -> type[Part]:
    """The mapping in which the last key of a place stands."""
    return next((_PARTS[key] for key in reversed(place[:-1]) if isinstance(key, str) and key in _PARTS), File)


def _absent(key: str) -> Problem:
    return Problem(((key,),), "is missing", f"add {key}: at the top level; failover schema describes it")


def _problem(detail: Any, place: Location, value: Any) -> Iterator[Problem]:
    """One of pydantic's errors in our words."""
    at: Location = (*place, *detail["loc"])
    context = detail.get("ctx", {})
    for key in detail["loc"]:
        value = value[key] if isinstance(value, list) or (isinstance(value, dict) and key in value) else value
    match detail["type"]:
        case scalars.REFUSED:
            yield Problem((at,), context["problem"], context["mend"], context["hidden"])
        case "extra_forbidden":
            yield _unknown(at, str(at[-1]), _part(at))
        case "missing":
            example = (_part(at).model_fields[str(at[-1])].examples or [""])[0]
            yield Problem((at,), "is missing", f"add it, for example {at[-1]}: {_written(example)}")
        case "list_type":
            yield Problem((at,), f"is {scalars.kind(value)}, not a list", "write [VALUE, VALUE]")
        case _:
            mend = "write keys and values below it, or {KEY: VALUE}"
            if value is None:
                mend += "; or leave the key out"
            yield Problem((at,), f"is {scalars.kind(value)}, not a mapping of keys to values", mend)


def _written(example: Any) -> str:
    """An example as an operator would write it."""
    if isinstance(example, dict):
        return "{" + ", ".join(f"{key}: {value}" for key, value in example.items()) + "}"
    if isinstance(example, list):
        return "[" + ", ".join(each if each[0] in "/-" else f'"{each}"' for each in example) + "]"
    return f'"{example}"'


def _unknown(at: Location, key: str, part: type[Part]) -> Problem:
    """A key that is none; its value is never shown, it may be anything."""
    if len(at) == 1 and key in RESERVED:
        return Problem((at,), NOT_SUPPORTED, "remove it; the name is kept for a later version", hidden=True)
    if names_a_secret(key) or (part in (AgentPart, Rfc2136Part) and key == "key"):
        return Problem((at,), "a secret is never written in this file", _INSTEAD.get(part, _INSTEAD[Part]), hidden=True)
    close = difflib.get_close_matches(key[:80], part.model_fields, n=1)
    homes = [place for place, home in _PARTS.items() if key in home.model_fields]
    words = [f"did you mean {close[0]}?"] if close else []
    if key in File.model_fields:
        words.append(f"{key} belongs at the top level")
    elif homes:
        listed = " or ".join(part for part in (", ".join(homes[:-1]), homes[-1]) if part)
        words.append(f"{key} belongs under {listed}")
    mend = " ".join(words) or f"see failover schema; here the keys are {', '.join(part.model_fields)}"
    return Problem((at,), "the key is unknown", mend, hidden=True)
