"""What became of a schema's single rules: which values fit no more, and which fit now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, Final

from streams.contract.errors import Refused


class Shift(Flag):
    """What became of the values that fit."""

    TEXT = 0
    """Nothing: words for people."""
    NARROWED = auto()
    WIDENED = auto()
    GREW = auto()
    """A field more, which nobody has to know."""
    LOST = auto()
    """What fits is no longer taken, or given, as what it was."""


UNSURE: Final = Shift.NARROWED | Shift.WIDENED


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One change.

    Attributes:
        path: fields by name; ``[]`` is an entry of a list, ``{}`` one of an object.
        old, new: what the schemas say there; None where one says nothing.
    """

    path: str
    what: str
    old: Any
    new: Any
    shift: Shift


TEXTS: Final = frozenset(("title", "summary", "description", "examples", "$comment", "tags", "externalDocs"))
"""Keywords for people."""
LOWEST: Final = {"minimum": "exclusiveMinimum", "minLength": "", "minItems": "", "minProperties": ""}
"""Lower bounds, each with the one that leaves its number out."""
HIGHEST: Final = {"maximum": "exclusiveMaximum", "maxLength": "", "maxItems": "", "maxProperties": ""}


def texts(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[SchemaChange]:
    """Changed words."""
    for key in sorted(TEXTS):
        if not same(old.get(key), new.get(key)):
            yield SchemaChange(path, key, old.get(key), new.get(key), Shift.TEXT)


def choices(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[SchemaChange]:
    """Changes of ``enum`` and ``const``."""
    before, after = values(old), values(new)
    if before is None or after is None:
        shift = Shift.TEXT if before is after else rule_shift(before is not None, after is not None)
    else:
        narrowed, widened = before.keys() - after.keys(), after.keys() - before.keys()
        shift = (Shift.NARROWED if narrowed else Shift.TEXT) | (Shift.WIDENED if widened else Shift.TEXT)
    if shift:
        was, now = (None if each is None else [*each.values()] for each in (before, after))
        yield SchemaChange(path, "values", was, now, shift)


def values(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The only values that fit; None where the schema lists none."""
    if "enum" not in schema:
        return {canonical(schema["const"]): schema["const"]} if "const" in schema else None
    found = {canonical(each): each for each in schema["enum"]}
    return {k: v for k, v in found.items() if k == canonical(schema["const"])} if "const" in schema else found


def bounds(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[SchemaChange]:
    """Changes of lower and upper bounds."""
    for sign, keys in ((1, LOWEST), (-1, HIGHEST)):
        for key, open_ in keys.items():
            before, after = (_strictness(each, key, open_, sign) for each in (old, new))
            if before != after:
                shift = Shift.NARROWED if after > before else Shift.WIDENED
                yield SchemaChange(path, key, _told(old, key, open_), _told(new, key, open_), shift)


def _strictness(schema: Mapping[str, Any], key: str, open_: str, sign: int) -> tuple[float, bool]:
    """A bound as what is greater where it is stricter: the number, and whether that is out itself."""
    counted = sign > 0 and key != "minimum"
    found: list[tuple[float, bool]] = [(0 if counted else float("-inf"), False)]
    for name in {key, open_} & schema.keys():
        if not isinstance(schema[name], int | float):
            raise Refused(f"{name}: {schema[name]!r} is no number")
    if key in schema:
        found.append((sign * schema[key], False))
    if open_ in schema:
        number = schema[open_]
        # Of whole numbers the next one fits.
        whole = schema.get("type") == "integer" and float(number).is_integer()
        found.append((sign * number + 1, False) if whole else (sign * number, True))
    return max(found)


def _told(schema: Mapping[str, Any], key: str, open_: str) -> Any:
    if open_ in schema:
        return f"{'above' if key == 'minimum' else 'below'} {schema[open_]}"
    return schema.get(key)


def default(old: Any, new: Any, path: str) -> Iterator[SchemaChange]:
    """Of a field that may be left out: a change of what that means."""
    before, after = ({"default": each["default"]} if "default" in each else {} for each in (plain(old), plain(new)))
    if not same(before, after):
        yield SchemaChange(path, "default", before.get("default"), after.get("default"), Shift.LOST)


def rule_shift(before: bool, after: bool) -> Shift:
    """Of a rule that holds beside all others and differs: one more narrows, one less widens."""
    return UNSURE if before and after else Shift.NARROWED if after else Shift.WIDENED


def plain(schema: Any) -> dict[str, Any]:
    """A schema as an object."""
    return {} if schema is True else {"not": {}} if schema is False else dict(schema)


def fits_nothing(schema: Mapping[str, Any]) -> bool:
    return "not" in schema and bool(facts(schema) == {"not": {}})


def facts(value: Any) -> Any:
    """A value without words for people."""
    if isinstance(value, Mapping):
        return {name: facts(each) for name, each in value.items() if name not in TEXTS and name != "meaning"}
    return [facts(each) for each in value] if isinstance(value, list | tuple) else value


def same(old: Any, new: Any) -> bool:
    """Whether JSON has the two equal: to it 1 is 1.0, and true is not."""
    return old is new or canonical(old) == canonical(new)


def canonical(value: Any) -> str:
    """A text that is the same for what JSON has equal."""

    def whole(each: Any) -> Any:
        if isinstance(each, Mapping):
            return {str(name): whole(inner) for name, inner in each.items()}
        if isinstance(each, float) and each.is_integer():
            return int(each)
        return [whole(inner) for inner in each] if isinstance(each, list | tuple) else each

    return json.dumps(whole(value), sort_keys=True, default=str)
