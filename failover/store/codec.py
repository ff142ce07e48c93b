"""The stored form of the model's values: frozen dataclasses to JSON text and back, without loss. Pure.

Decoding is strict: a key too many, a key too few and a value of another type are all errors. A change of a stored
value's fields is therefore a change of the schema, and comes with a migration (database.py, MIGRATIONS).
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


class CodecError(ValueError):
    """The text is not the stored form of the value that was asked for; str() names the place."""


def dumps(value: object) -> str:
    """JSON text, ASCII only, of a dataclass or a JSON-ready value. Raises CodecError for what JSON cannot carry."""
    try:
        return json.dumps(_plain(value, "value"), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (RecursionError, ValueError) as error:
        raise CodecError(str(error) or "nested too deeply") from error


def loads(kind: type[T], text: str) -> T:
    """The value of dataclass ``kind`` that ``text`` was made from. Raises CodecError."""
    return cast(T, _value(kind, loads_plain(text), kind.__name__))


def loads_plain(text: str) -> Any:
    """The JSON-ready value that ``text`` was made from. Raises CodecError."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise CodecError(f"no JSON: {error}") from error


def _plain(value: object, where: str) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise CodecError(f"{where}: keys must be text")
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise CodecError(f"{where}: a {type(value).__name__} has no stored form")


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _value(kind: Any, data: object, where: str) -> object:
    if kind is Any:
        return data
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(kind) if arg is not type(None))
        return None if data is None else _value(inner, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise CodecError(f"{where}: not a list: {data!r}")
        return tuple(_value(get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise CodecError(f"{where}: not an object: {data!r}")
        return data
    if is_dataclass(kind):
        return _record(cast(type, kind), data, where)
    return _scalar(kind, data, where)


def _record(kind: type, data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise CodecError(f"{where}: not an object: {data!r}")
    names = {f.name for f in fields(kind)}
    if unlike := sorted(names ^ data.keys()):
        raise CodecError(f"{where}: keys too many or too few: {', '.join(unlike)}")
    hints = _hints(kind)
    return kind(**{name: _value(hints[name], item, f"{where}.{name}") for name, item in data.items()})


def _scalar(kind: type, data: object, where: str) -> object:
    if issubclass(kind, Enum):
        try:
            return kind(data)
        except ValueError as error:
            raise CodecError(f"{where}: {data!r} is no {kind.__name__}") from error
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if type(data) is not kind:
        raise CodecError(f"{where}: {data!r} is no {kind.__name__}")
    return data
