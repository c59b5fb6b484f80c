"""No change of a schema is called harmless that is not: validators say what fits, before and after."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import jsonschema_rs
import pytest

from streams.contract.errors import Refused
from streams.contract.schema_changes import SchemaWalk
from streams.contract.schema_keywords import Shift

Schema = Any

SCALARS: tuple[Any, ...] = (None, True, False, 0, 1, 2, 3, 1.0, 0.5, 2.5, -1, "", "a", "b", "ab", "abc")
TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
PAIRS = 5000


class Chance(Random):
    """Small schemas and values of few words, so that they meet."""

    def some(self, what: Callable[[], Any], most: int, least: int = 0) -> list[Any]:
        return [what() for _ in range(self.randint(least, most))]

    def name(self) -> str:
        return self.choice("abc")

    def value(self, depth: int = 2) -> Any:
        match self.randrange(3 if depth else 1):
            case 0:
                return self.choice(SCALARS)
            case 1:
                return self.some(lambda: self.value(depth - 1), 3)
        return {self.name(): self.value(depth - 1) for _ in range(self.randint(0, 3))}

    def keyword(self, depth: int) -> tuple[str, Schema]:
        def inner() -> Schema:
            return self.schema(depth - 1)

        small = self.randint(0, 3)
        made: dict[str, Callable[[], Any]] = {
            "type": lambda: self.choice([self.choice(TYPES), self.sample(TYPES, 2)]),
            "enum": lambda: [*{repr(each): each for each in self.sample(SCALARS, small + 1)}.values()],
            "const": lambda: self.choice(SCALARS),
            "pattern": lambda: self.choice(["a", "^b", "^[ab]*$"]),
            "uniqueItems": lambda: small > 1,
            "required": lambda: self.sample("abc", self.randint(0, 2)),
            "propertyNames": lambda: self.choice([{"maxLength": 1}, {"pattern": "a"}, {"enum": ["a", "b"]}]),
            "title": lambda: self.name(),
            "properties": lambda: {self.name(): inner() for _ in range(small)},
            **{key: inner for key in ("items", "additionalProperties", "not", "if", "then", "else")},
            **{key: lambda: self.some(inner, 2, 1) for key in ("anyOf", "allOf", "oneOf")},
            "$ref": lambda: self.choice(["#/$defs/one", "#/$defs/other"]),
            **{f"{side}{what}": lambda: small for side in ("min", "max")
               for what in ("Length", "Items", "Properties", "imum")},
            **{f"exclusive{side}imum": lambda: small for side in ("Min", "Max")},
        }  # fmt: skip
        key = self.choice([*made])
        return key, made[key]()

    def schema(self, depth: int = 2) -> Schema:
        if depth <= 0 or self.random() < 0.1:
            return self.choice([True, False, {}, {"type": self.choice(TYPES)}, {"maximum": 1}, {"const": "a"}])
        return dict(self.keyword(depth) for _ in range(self.randint(1, 3)))

    def neighbour(self, schema: Schema) -> Schema:
        """A schema that differs in one place."""
        if not isinstance(schema, dict) or not schema or self.random() < 0.15:
            return self.schema()
        key = self.choice([*schema])
        rest = {name: each for name, each in schema.items() if name != key}
        match self.randrange(5):
            case 0:
                return rest
            case 1:
                return {**dict([self.keyword(1)]), **schema}
            case 2:
                return {**rest, **dict([self.keyword(1)])}
        value = schema[key]
        if key == "properties":
            name = self.choice([*value, "a"])
            return {**schema, key: {**value, name: self.neighbour(value.get(name, {}))}}
        if isinstance(value, dict):
            return {**schema, key: self.neighbour(value)}
        if key in ("anyOf", "allOf", "oneOf"):
            at = self.randrange(len(value))
            return {**schema, key: [*value[:at], self.neighbour(value[at]), *value[at + 1 :]]}
        return {**schema, key: self.randint(0, 3)} if type(value) is int else rest


def shifts(old: Schema, new: Schema, before: dict[str, Schema], after: dict[str, Schema], sense: int = 0) -> Shift:
    found = Shift.TEXT
    for each in SchemaWalk({"$defs": before}, {"$defs": after}).of(old, new, "", sense):
        found |= each.shift
    return found


def fitting(schema: Schema, parts: dict[str, Schema]) -> Callable[[Any], bool] | None:
    """Whether a value fits; None where the validator says that the schema refers to itself for ever."""
    try:
        return jsonschema_rs.Draft202012Validator({"allOf": [schema], "$defs": parts}).is_valid
    except ValueError:
        return None


@pytest.mark.parametrize("first", [0, pytest.param(PAIRS, marks=pytest.mark.long)])
def test_no_change_is_missed(first: int) -> None:
    told = {each: 0 for each in (Shift.NARROWED, Shift.WIDENED)}
    for seed in range(first, max(PAIRS, 20 * first)):
        chance = Chance(seed)
        old, before = chance.schema(3), {"one": chance.schema(), "other": chance.schema()}
        new = chance.neighbour(old) if chance.random() < 0.8 else old
        after = before if chance.random() < 0.5 else {**before, "one": chance.neighbour(before["one"])}
        was, now = fitting(old, before), fitting(new, after)
        try:
            found = shifts(old, new, before, after, sense=1)
        except Refused:
            continue
        if was is None or now is None:
            continue
        for value in (*SCALARS, *chance.some(chance.value, 30, 30)):
            shift = {(True, False): Shift.NARROWED, (False, True): Shift.WIDENED}.get((was(value), now(value)))
            if shift is not None:
                told[shift] += 1
                assert shift in found, f"{old} {before} -> {new} {after}: {value!r} {shift}, and it is told {found}"
    assert min(told.values()) > PAIRS, told


def test_what_is_equal_has_no_changes() -> None:
    for seed in range(PAIRS // 5):
        chance = Chance(seed)
        schema, parts = chance.schema(3), {"one": chance.schema(), "other": chance.schema()}
        with suppress(Refused):
            assert shifts(schema, schema, parts, parts) == Shift.TEXT


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"type": "integer"}, {"type": "number"}, Shift.WIDENED),
        ({"type": "number"}, {"type": "integer"}, Shift.NARROWED),
        ({"type": "string"}, {"type": "integer"}, Shift.NARROWED | Shift.WIDENED),
        ({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}, Shift.WIDENED),
        ({"type": ["string", "null"]}, {"type": "string"}, Shift.NARROWED),
        ({"type": "string"}, {}, Shift.WIDENED),
        ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}, Shift.TEXT),
        ({"type": "number", "exclusiveMinimum": 0}, {"type": "number", "minimum": 0}, Shift.WIDENED),
        ({"minLength": 0}, {}, Shift.TEXT),
        ({"maxItems": 3}, {"maxItems": 4}, Shift.WIDENED),
        ({"enum": ["a", "b"]}, {"enum": ["b", "a"]}, Shift.TEXT),
        ({"const": "a"}, {"enum": ["a", "b"]}, Shift.WIDENED),
        ({"pattern": "a"}, {"pattern": "b"}, Shift.NARROWED | Shift.WIDENED),
        ({}, {"pattern": "b"}, Shift.NARROWED),
        ({"properties": {}}, {"properties": {"a": {"type": "string"}}}, Shift.GREW),
        ({"properties": {"a": {}}}, {"properties": {}}, Shift.LOST),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"properties": {}, "additionalProperties": False},
         Shift.LOST | Shift.NARROWED),
        ({"additionalProperties": False}, {"properties": {"a": {}}, "additionalProperties": False}, Shift.WIDENED),
        ({"properties": {}}, {"properties": {"a": {}}, "required": ["a"]}, Shift.GREW | Shift.NARROWED),
        ({"properties": {"a": {}}}, {"properties": {"a": {}}, "required": ["a"]}, Shift.NARROWED),
        ({"properties": {"a": {}}, "required": ["a"]}, {"properties": {"a": {"default": 1}}}, Shift.WIDENED),
        ({"properties": {"a": {"default": 1}}}, {"properties": {"a": {"default": 2}}}, Shift.LOST),
        ({"additionalProperties": {"maximum": 3}}, {"additionalProperties": {"maximum": 2}}, Shift.NARROWED),
        ({}, {"additionalProperties": False}, Shift.NARROWED),
        ({"not": {"maximum": 3}}, {"not": {"maximum": 4}}, Shift.NARROWED),
        ({"if": {"maximum": 3}, "then": {"minimum": 1}}, {"if": {"maximum": 2}, "then": {"minimum": 1}}, Shift.WIDENED),
        ({"if": {"maximum": 3}, "then": {"minimum": 1}}, {"if": {"maximum": 3}, "then": {"minimum": 2}},
         Shift.NARROWED),
        ({}, {"if": {"maximum": 3}, "then": {"minimum": 1}}, Shift.NARROWED),
        ({"allOf": [{"maximum": 1}]}, {"allOf": [{"maximum": 1}, {"minimum": 0}]}, Shift.NARROWED),
        ({"title": "a"}, {"title": "b", "description": "c"}, Shift.TEXT),
        ({"x-layout": [{"offset": 0, "meaning": "a"}]}, {"x-layout": [{"offset": 0, "meaning": "b"}]}, Shift.TEXT),
        ({"x-layout": [{"offset": 0}]}, {"x-layout": [{"offset": 4}]}, Shift.LOST),
    ],
    ids=str,
)  # fmt: skip
def test_a_change_is_called_no_worse_than_it_is(old: Schema, new: Schema, found: Shift) -> None:
    assert shifts(old, new, {}, {}) == found


def test_a_reference_that_leads_nowhere_is_told() -> None:
    with pytest.raises(Refused, match="leads nowhere"):
        shifts({"$ref": "#/$defs/one"}, {}, {}, {})
    with pytest.raises(Refused, match="bundle"):
        shifts({"$ref": "other.yaml#/a"}, {}, {}, {})


def test_a_part_within_itself_ends() -> None:
    node = {"properties": {"next": {"anyOf": [{"$ref": "#/$defs/one"}, {"type": "null"}]}, "at": {"maximum": 3}}}
    other = {**node, "properties": {**node["properties"], "at": {"maximum": 2}}}
    found = [*SchemaWalk({"$defs": {"one": node}}, {"$defs": {"one": other}}).of(*[{"$ref": "#/$defs/one"}] * 2, "")]
    assert [(each.path, each.old, each.new) for each in found] == [("one.at", 3, 2)]
