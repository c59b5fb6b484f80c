"""What is wrong with a value, in the words of JSON: the field, what was found there, and what is allowed.

msgspec says ``Expected `float` > 0.0 - at `$.tags[...]` ``. Whoever has to mend it asks which tag, and what it said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import inspect

from streams.contract.errors import BadRecord, InvalidField, Undecodable

_SHOWN: Final = 80
_WORDS: Final = {
    "int": "integer", "float": "number", "str": "string", "bool": "boolean", "bytes": "base64 string",
}  # fmt: skip
_WORD: Final = re.compile(r"`([^`]+)`")
_TIME: Final = "expected RFC 3339 time with an offset, such as 2026-03-01T10:00:00Z"
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|(\[\.\.\.\])")


DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises where a value is not what it should be."""


def refusal_of(error: Exception, cls: type[Any], value: bytes, packed: bool = False, what: str = "value") -> BadRecord:
    """What to raise for one of :data:`DECODE_ERRORS`.

    Args:
        packed: whether the value is MessagePack, not JSON.
        what: names the value where nothing in it can be named.
    """
    if isinstance(error, msgspec.ValidationError):
        return InvalidField(reason(error, cls, value, packed))
    return Undecodable(f"{what}: {error}")


def reason(error: msgspec.ValidationError, cls: type[Any], value: bytes, packed: bool = False) -> str:
    """Why a value is no ``cls``, given the error that decoding it raised.

    Args:
        packed: whether the value is MessagePack, not JSON.
    """
    what, found, where = str(error).rpartition(" - at `")
    if not found:
        what, where = str(error), "$`"
    of_key = where.startswith("key` in `")
    path = where.removeprefix("key` in `").rstrip("`").removeprefix("$")
    place, names = _decoded(value, packed), list[str]()
    for name, index, _ in _STEP.findall(path + ("[...]" if of_key else "")):
        key: Any = name or (int(index) if index else _offender(error, cls, names, place))
        names.append(
            f".{name}" if name else f"[{index}]" if index else f"[{quoted(key)}]" if key is not None else "[...]"
        )
        place = _at(place, key)
        if of_key and not name and not index:
            place = key
            names.pop()
    field = "".join(names).lstrip(".")
    if (missing := re.fullmatch(r"Object missing required field `(.+)`", what)) is not None:
        return f"{field + '.' if field else ''}{missing[1]}: missing"
    shown = f"{'key ' if of_key else ''}{quoted(place)}" if field else _kind(place)
    return f"{field or 'value'}: {shown}, {_allowed(what, cls, path)}"


def _offender(error: msgspec.ValidationError, cls: type[Any], names: list[str], place: Any) -> str | None:
    """The key of the object ``place``, a field of the event itself, whose entry raised the error; None: not found.

    Decoding stops at the first bad entry, so that the first so many entries raise the same if it is among them.
    """
    if not isinstance(place, dict) or len(names) != 1:
        return None
    entries, field = list(place.items()), names[0].removeprefix(".")

    def raises(count: int) -> bool:
        try:
            msgspec.json.decode(msgspec.json.encode({field: dict(entries[:count])}), type=cls)
        except msgspec.ValidationError as again:
            return str(again) == str(error)
        return False

    count = _first(raises, len(entries))
    return entries[count - 1][0] if count else None


def _first(holds: Callable[[int], bool], most: int) -> int:
    """The smallest count from 1 to ``most`` for which it holds, as it does for all above; 0: for none."""
    if not holds(most):
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _allowed(what: str, cls: type[Any], path: str) -> str:
    if "datetime" in what or "RFC3339" in what:
        return _TIME
    if what.startswith("Invalid enum value"):
        return f"expected one of {', '.join(map(str, _values(cls, path)))}"
    expected = _WORD.sub(
        lambda types: " or ".join(_WORDS.get(each, each) for each in types[1].split(" | ")), what.partition(", got ")[0]
    )
    return expected[:1].lower() + expected[1:]


def _values(cls: type[Any], path: str) -> list[Any]:
    """What may stand at a place where one of some values must."""
    type_: Any = inspect.type_info(cls)
    for name, _, _ in _STEP.findall(path):
        type_ = (
            next(each for each in bare_type(type_).fields if each.encode_name == name).type if name else _item(type_)
        )
    return list(bare_type(type_).values)


def _item(type_: Any) -> Any:
    plain = bare_type(type_)
    return plain.value_type if isinstance(plain, inspect.DictType) else plain.item_type


def bare_type(type_: Any) -> Any:
    """A type, as :mod:`msgspec.inspect` tells it, without its bounds and without null."""
    while isinstance(type_, inspect.Metadata | inspect.UnionType):
        if isinstance(type_, inspect.Metadata):
            type_ = type_.type
        else:
            type_ = next(each for each in type_.types if not isinstance(each, inspect.NoneType))
    return type_


def _decoded(value: bytes, packed: bool) -> Any:
    try:
        return msgspec.msgpack.decode(value) if packed else msgspec.json.decode(value)
    except DECODE_ERRORS:
        return None  # What follows the error may be no JSON at all.


def _at(place: Any, key: Any) -> Any:
    try:
        return place[key]
    except (KeyError, IndexError, TypeError):
        return None


def _kind(value: Any) -> str:
    return "array" if isinstance(value, list) else "object" if isinstance(value, dict) else quoted(value)


def quoted(value: Any) -> str:
    """A value as JSON, cut to a length that can be read."""
    try:
        text = msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError):
        text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
