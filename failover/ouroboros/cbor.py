"""Strict, bounded reading of CBOR items that arrive in pieces.

cbor2 reads the values; this module decides what it gets to see. ``loads`` ignores what follows an item, keeps the
last of two equal keys, follows tags (references to themselves, regular expressions) and must be given the whole
item. So an item is first walked here, without recursion and without reading a byte twice, and only a complete item
without tags, floats, deep nesting or equal keys is handed on. No byte of a peer can raise anything but a CodecError.
"""

from __future__ import annotations

import cbor2

from failover.ouroboros.errors import (
    DuplicateKey,
    Incomplete,
    MalformedCbor,
    MessageTooLarge,
    TooDeep,
    TrailingBytes,
    WrongShape,
)

MAX_DEPTH = 8  # the deepest message here has 5 levels: a list of points within a message

_UINT, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _TAG = range(7)
_OPEN = -1  # in place of a count: an indefinite list, which a break ends
_BREAK = 0xFF
_INDEFINITE_LIST = 0x9F
_PLAIN_VALUES = frozenset((0xF4, 0xF5, 0xF6))  # false, true, null

Buffer = bytes | bytearray


class Splitter:
    """Cuts the byte stream of one mini-protocol into items, whatever the pieces in which it arrives.

    ``limit`` bounds one item in bytes, and with it what is ever buffered. An indefinite list is accepted only at
    nesting depth ``indefinite_at`` (the points of FindIntersect are at 1), never an indefinite map or string.
    """

    __slots__ = ("_at", "_buffer", "_indefinite_at", "_keys", "_left", "_limit")

    def __init__(self, limit: int, indefinite_at: int | None = None) -> None:
        self._limit = limit
        self._indefinite_at = indefinite_at
        self._buffer = bytearray()
        self._at = 0  # everything before it is walked
        self._left: list[int] = []  # for each container that is open, the items that it still lacks
        self._keys: list[set[int] | None] = []  # likewise: the keys of a map so far, None for a list

    @property
    def pending(self) -> int:
        """Bytes of an item that is not complete yet."""
        return len(self._buffer)

    def feed(self, piece: bytes) -> list[object]:
        """The items that ``piece`` completes, in order. Raises a CodecError."""
        buffer: Buffer = piece
        if self._buffer:
            self._buffer += piece  # in place, so that bytes that come one at a time cost no more than in one piece
            buffer = self._buffer
        items: list[object] = []
        start = 0
        while start < len(buffer):
            end = self._walk(buffer, start)
            if end is None:
                break
            items.append(_load(bytes(buffer[start:end])))
            start = self._at = end
        else:
            self._buffer.clear()
            self._at = 0
            return items
        if len(buffer) - start > self._limit:
            raise MessageTooLarge(f"a message of more than {self._limit} bytes")
        if start or buffer is piece:
            self._buffer = bytearray(buffer[start:])
            self._at -= start
        return items

    def _walk(self, buffer: Buffer, start: int) -> int | None:
        """Where the item that begins at ``start`` ends; None when bytes are lacking. Goes on where it stopped."""
        at, size, left, keys = self._at, len(buffer), self._left, self._keys
        while at < size:
            first = buffer[at]
            major, value, after = first >> 5, first & 31, at + 1
            if value > 23:
                if value < 28:
                    after += 1 << (value - 24)
                    if after > size:
                        break
                    value = int.from_bytes(buffer[at + 1 : after], "big")
                else:
                    self._check_indefinite(first)
                    value = _OPEN
            if keys and keys[-1] is not None and not left[-1] & 1:
                _check_key(keys[-1], major, value)
            if major in (_BYTES, _TEXT):
                after += value
                if after - start > self._limit:
                    raise MessageTooLarge(f"a string of {value} bytes where a message has at most {self._limit}")
                if after > size:
                    break
            elif major > _MAP and first != _BREAK:
                _check_plain(first)
            at = after
            if major in (_LIST, _MAP) and value:
                self._enter(major, value)
                continue
            if first == _BREAK:
                left.pop()
                keys.pop()
            while left and left[-1] != _OPEN:
                left[-1] -= 1
                if left[-1]:
                    break
                left.pop()
                keys.pop()
            if not left:
                if at - start > self._limit:
                    raise MessageTooLarge(f"a message of {at - start} bytes where at most {self._limit} are allowed")
                return at
        self._at = at
        return None

    def _enter(self, major: int, value: int) -> None:
        if len(self._left) >= MAX_DEPTH:
            raise TooDeep(f"nested more than {MAX_DEPTH} levels deep")
        if value > self._limit:
            raise MessageTooLarge(f"{value} entries where a message has at most {self._limit} bytes")
        self._left.append(2 * value if major == _MAP else value)
        self._keys.append(set() if major == _MAP else None)

    def _check_indefinite(self, first: int) -> None:
        if first == _BREAK:
            if not self._left or self._left[-1] != _OPEN:
                raise MalformedCbor("a break outside an indefinite list")
        elif first & 31 != 31 or first >> 5 not in (_BYTES, _TEXT, _LIST, _MAP):
            raise MalformedCbor(f"a reserved initial byte: 0x{first:02x}")
        elif first != _INDEFINITE_LIST or len(self._left) != self._indefinite_at:
            raise WrongShape("an indefinite length where a definite one belongs")


def decode(data: bytes, limit: int) -> object:
    """The one item that ``data`` is. Raises Incomplete, TrailingBytes or another CodecError."""
    if len(data) > limit:
        raise MessageTooLarge(f"a message of {len(data)} bytes where at most {limit} are allowed")
    splitter = Splitter(limit)
    end = splitter._walk(data, 0)
    if end is None:
        raise Incomplete(f"a message cut short after {len(data)} bytes")
    if end != len(data):
        raise TrailingBytes(f"{len(data) - end} bytes behind the end of a message")
    return _load(data)


def _load(data: bytes) -> object:
    try:
        return cbor2.loads(data)
    except (cbor2.CBORError, UnicodeDecodeError) as error:
        raise MalformedCbor("text that is not UTF-8") from error


def _check_key(seen: set[int], major: int, value: int) -> None:
    if major != _UINT:
        raise WrongShape("a key of a map that is not a whole number")
    if value in seen:
        raise DuplicateKey(f"the key {value} twice in one map")
    seen.add(value)


def _check_plain(first: int) -> None:
    if first >> 5 == _TAG:
        raise WrongShape("a tag, which no message has")
    if first not in _PLAIN_VALUES:
        raise WrongShape("a float or another simple value, which no message has")


# ---------------------------------------------------------------- shapes


def listed(item: object, what: str) -> list[object]:
    """``item`` as a list. Raises WrongShape, naming ``what`` was read."""
    if not isinstance(item, list):
        raise WrongShape(f"{what}: {kind(item)} where a list belongs")
    return item


def fields(item: object, count: int, what: str) -> list[object]:
    """``item`` as a list of exactly ``count`` entries."""
    entries = listed(item, what)
    if len(entries) != count:
        raise WrongShape(f"{what}: {len(entries)} entries where {count} belong")
    return entries


def whole(item: object, bits: int, what: str) -> int:
    """``item`` as a whole number from 0 to 2**bits - 1. A boolean is none."""
    if type(item) is not int:
        raise WrongShape(f"{what}: {kind(item)} where a whole number belongs")
    if not 0 <= item < 1 << bits:
        raise WrongShape(f"{what}: {item} is not within 0 to {(1 << bits) - 1}")
    return item


def truth(item: object, what: str) -> bool:
    """``item`` as a boolean."""
    if not isinstance(item, bool):
        raise WrongShape(f"{what}: {kind(item)} where true or false belongs")
    return item


def text(item: object, what: str) -> str:
    """``item`` as text."""
    if not isinstance(item, str):
        raise WrongShape(f"{what}: {kind(item)} where text belongs")
    return item


def table(item: object, what: str) -> dict[int, object]:
    """``item`` as a map; its keys are whole numbers, as the walk has seen to."""
    if not isinstance(item, dict):
        raise WrongShape(f"{what}: {kind(item)} where a map belongs")
    return item


_KINDS = {bool: "a boolean", int: "a number", str: "text", bytes: "bytes", list: "a list", dict: "a map"}


def kind(item: object) -> str:
    """What a decoded item is, for a sentence."""
    return _KINDS.get(type(item), "null")
