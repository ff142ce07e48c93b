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
from failover.config.shape import (
    AddressText,
    FencePart,
    File,
    HealthPart,
    LeasePart,
    Part,
    PolicyPart,
    ProducerPart,
    ProxyPart,
)

NOT_SUPPORTED = "not supported by this version"
RESERVED = (
    "records", "relays", "agents", "metrics", "schedule", "store", "alerts", "dead_man", "quiet", "companions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which place: the first of ``places`` that is written in the file."""

    places: tuple[Location, ...]
    problem: str
    mend: str
    hidden: bool = False


_SECTIONS: dict[str, type[Part]] = {"health": HealthPart, "policy": PolicyPart, "fence": FencePart, "lease": LeasePart}
_ITEMS: dict[str, type[Part]] = {"producers": ProducerPart, "proxies": ProxyPart}
_HOME = {key: place for place, part in {**_SECTIONS, **_ITEMS}.items() for key in part.model_fields} | dict.fromkeys(
    File.model_fields, ""
)


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
    part = _ITEMS.get(str(place[0]))
    empty = (
        [key for key in value if value[key] is None and _may_be_absent(part, key)] if isinstance(value, dict) else []
    )
    found.extend(Problem(((*place, key),), "is empty", "write a value, or leave the key out") for key in empty)
    try:
        checked = adapter.validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    else:
        return None if empty else checked
    found.extend(problem for detail in details for problem in _problem(detail, place, value))
    return None


def _may_be_absent(part: type[Part] | None, key: str) -> bool:
    return part is not None and key in part.model_fields and not part.model_fields[key].is_required()


def _absent(key: str) -> Problem:
    if key == "proxies":
        return Problem(((key,),), f"a pool without a proxy has no gate: {NOT_SUPPORTED}", "add proxies, at least one")
    return Problem(((key,),), "is missing", f"add {key}: at the top level; failover schema describes it")


def _problem(detail: Any, place: Location, value: Any) -> Iterator[Problem]:
    """One of pydantic's errors in our words."""
    at: Location = (*place, *detail["loc"])
    context = detail.get("ctx", {})
    part = _SECTIONS.get(str(place[0])) or _ITEMS.get(str(place[0])) or File
    match detail["type"]:
        case scalars.REFUSED:
            yield Problem((at,), context["problem"], context["mend"], context["hidden"])
        case "extra_forbidden":
            yield _unknown(at, str(at[-1]), part)
        case "missing":
            example = (part.model_fields[str(at[-1])].examples or [""])[0]
            yield Problem((at,), "is missing", f'add it, for example {at[-1]}: "{example}"')
        case _:
            mend = "write keys and values below it, or {KEY: VALUE}"
            if value is None:
                mend += "; or leave the key out"
            yield Problem((at,), f"is {scalars.kind(value)}, not a mapping of keys to values", mend)


def _unknown(at: Location, key: str, part: type[Part]) -> Problem:
    """A key that is none; its value is never shown, it may be anything."""
    if len(at) == 1 and key in RESERVED:
        return Problem((at,), NOT_SUPPORTED, "remove it; the name is kept for a later version", hidden=True)
    if names_a_secret(key):
        mend = "give the path of a file with it (password_file), or a variable's name (password_env)"
        return Problem((at,), "a secret is never written in this file", mend, hidden=True)
    close = difflib.get_close_matches(key[:80], part.model_fields, n=1)
    mend = f"see failover schema; here the keys are {', '.join(part.model_fields)}"
    if key in _HOME:
        mend = f"{key} belongs {'under ' + _HOME[key] if _HOME[key] else 'at the top level'}"
    elif close:
        mend = f"did you mean {close[0]}?"
    return Problem((at,), "the key is unknown", mend, hidden=True)
