"""What changed between two JSON Schemas: do values that fitted fit no more, or do others fit now?

A walk of both side by side. What it cannot judge, such as a changed pattern, counts as both, so that it calls no change
harmless that is not; a property test asks a validator about it.

Two rules are a policy's and not a validator's. A field more narrows nothing where unknown fields are ignored, although
somebody may have sent another thing by that name. A field less is a loss although it may still be sent: nobody reads
it, or nobody writes it, any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from streams.contract.errors import Refused
from streams.contract.schema_keywords import (
    HIGHEST,
    LOWEST,
    TEXTS,
    UNSURE,
    SchemaChange,
    Shift,
    bounds,
    canonical,
    choices,
    default,
    facts,
    fits_nothing,
    plain,
    rule_shift,
    same,
    texts,
    values,
)

# What holds of a value whatever else holds.
_RULES: Final = ("pattern", "format", "multipleOf", "uniqueItems", "contentEncoding", "contentMediaType")
_OBJECTS: Final = ("properties", "required", "additionalProperties")
_WALKED: Final = frozenset(
    (
        *LOWEST, *LOWEST.values(), *HIGHEST, *HIGHEST.values(), *_OBJECTS, "type", "enum", "const", "default",
        "items", "propertyNames", "not", "if", "then", "allOf", "anyOf", "$ref",
    )
)  # fmt: skip


@dataclass
class SchemaWalk:
    """Walks of schemas of two documents; a part that both refer to is walked once."""

    old: Mapping[str, Any]
    new: Mapping[str, Any]
    _seen: set[tuple[str, str, int]] = field(default_factory=set)

    def of(self, old: Any, new: Any, path: str, sense: int = 0) -> Iterator[SchemaChange]:
        """Every change from one schema to the other.

        Args:
            sense: 0 where an event must fit. Where a rule asks whether something fits, which is as a validator has it
                and without the policy on fields, 1; and -1 if what fits there is refused.
        """
        old, new = plain(old), plain(new)
        if "$ref" in old and "$ref" in new:
            yield from self._parts(old, new, path, sense)
            return
        if "$ref" in old or "$ref" in new:
            # A part within itself meets what stands on the other side again and again.
            met = canonical(old), canonical(new), sense
            if met in self._seen:
                return
            self._seen.add(met)
        yield from texts(old, new, path)
        old, new = _inlined(old, self.old), _inlined(new, self.new)
        if fits_nothing(old) or fits_nothing(new):
            if fits_nothing(old) != fits_nothing(new):
                shift = Shift.WIDENED if fits_nothing(old) else Shift.NARROWED
                yield SchemaChange(path, "allowed" if fits_nothing(old) else "refused", old, new, shift)
        elif "anyOf" in old or "anyOf" in new:
            yield from self._alternatives(old, new, path, sense)
        else:
            yield from self._types(old, new, path, sense)

    def _parts(self, old: dict[str, Any], new: dict[str, Any], path: str, sense: int) -> Iterator[SchemaChange]:
        before, after = old.pop("$ref"), new.pop("$ref")
        if old or new:
            yield from self.of(old, new, path, sense)
        if (before, after, sense) not in self._seen:
            self._seen.add((before, after, sense))
            name = before.rsplit("/", 1)[-1] if before == after else path
            yield from self.of(resolved(self.old, before), resolved(self.new, after), name, sense)

    # What may be one of several

    def _alternatives(self, old: Any, new: Any, path: str, sense: int) -> Iterator[SchemaChange]:
        # The rules beside them hold of each.
        yield from self._types(_beside(old), _beside(new), path, sense)
        before, after = (_by_type([*each["anyOf"]] if "anyOf" in each else [each], document)
                         for each, document in ((old, self.old), (new, self.new)))  # fmt: skip
        if before is None or after is None:
            if not self._equal(old.get("anyOf"), new.get("anyOf")):
                yield SchemaChange(path, "alternatives", old.get("anyOf"), new.get("anyOf"), UNSURE)
            return
        for one, other in _pairs(before, after):
            yield from self.of(before[one], after[other], path, sense)
        yield from _type(before, after, path)

    def _types(self, old: Any, new: Any, path: str, sense: int) -> Iterator[SchemaChange]:
        before, after = _by_type([old], self.old) or {}, _by_type([new], self.new) or {}
        for one, other in _pairs(before, after):
            yield from self._keywords(before[one], after[other], path, sense)
        yield from _type(before, after, path)

    # What holds of one type

    def _keywords(self, old: Any, new: Any, path: str, sense: int) -> Iterator[SchemaChange]:
        yield from choices(old, new, path)
        yield from bounds(old, new, path)
        if any(key in each for key in _OBJECTS for each in (old, new)):
            yield from self._fields(old, new, path, sense)
        for key, inner in (("items", f"{path}[]"), ("propertyNames", f"{path}{{}} name")):
            if key in old or key in new:
                yield from self.of(old.get(key, {}), new.get(key, {}), inner, sense)
        yield from self._conditions(old, new, path, sense)
        yield from self._all_of(old.get("allOf", []), new.get("allOf", []), path, sense)
        for key in sorted((old.keys() | new.keys()) - _WALKED - TEXTS):
            if key.startswith("x-"):
                shift = Shift.TEXT if same(facts(old.get(key)), facts(new.get(key))) else Shift.LOST
            else:
                shift = rule_shift(key in old, key in new) if key in _RULES else UNSURE
            if (key in old) != (key in new) or not self._equal(old[key], new[key]):
                yield SchemaChange(path, key, old.get(key), new.get(key), shift)

    def _fields(self, old: Any, new: Any, path: str, sense: int) -> Iterator[SchemaChange]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        beyond, within = (plain(each.get("additionalProperties", True)) for each in (old, new))
        for name in [*before, *(each for each in after if each not in before)]:
            inner = f"{path}.{name}"
            if name not in before:
                yield from self._come(after[name], inner, name in needs - needed, beyond, sense)
            elif name not in after:
                yield from self._gone(before[name], inner, within, sense)
            else:
                yield from self.of(before[name], after[name], inner, sense)
                if name not in needed:
                    yield from default(before[name], after[name], inner)
        for name in sorted(needs ^ needed):
            owner, rest = (after, before) if name in needs else (before, after)
            # One that came or went with its field is told with it.
            if name not in owner or name in rest:
                shift = Shift.NARROWED if name in needs else Shift.WIDENED
                yield SchemaChange(f"{path}.{name}", "required", name in needed, name in needs, shift)
        yield from self.of(beyond, within, f"{path}{{}}", sense)

    def _come(self, schema: Any, path: str, needed: bool, beyond: Any, sense: int) -> Iterator[SchemaChange]:
        shift = Shift.NARROWED if needed else Shift.TEXT
        if fits_nothing(beyond):
            shift |= Shift.WIDENED
        elif facts(beyond):
            # It had to fit what all unnamed ones fit.
            yield from self.of(beyond, schema, path, sense)
        else:
            shift |= Shift.NARROWED if sense else Shift.GREW
        if shift:
            yield SchemaChange(path, "new required field" if needed else "new field", None, _short(schema), shift)

    def _gone(self, schema: Any, path: str, within: Any, sense: int) -> Iterator[SchemaChange]:
        shift = Shift.WIDENED if sense else Shift.LOST
        if fits_nothing(within):
            shift = Shift.NARROWED | (shift & Shift.LOST)
        elif facts(within):
            shift |= UNSURE
        yield SchemaChange(path, "field removed", _short(schema), None, shift)

    def _conditions(self, old: Any, new: Any, path: str, sense: int) -> Iterator[SchemaChange]:
        turned, kept = (1 if sense < 0 else -1), (sense or 1)
        if "not" in old and "not" in new:
            yield from _flipped(self.of(old["not"], new["not"], f"{path} not", turned))
        elif "not" in old or "not" in new:
            yield SchemaChange(path, "not", old.get("not"), new.get("not"), rule_shift("not" in old, "not" in new))
        before, after = ({key: each[key] for key in ("if", "then", "else") if key in each} for each in (old, new))
        if before.keys() == after.keys() == {"if", "then"}:
            yield from _flipped(self.of(before["if"], after["if"], f"{path} if", turned))
            yield from self.of(before["then"], after["then"], f"{path} then", kept)
        elif not self._equal(before, after):
            one_more = before.keys() ^ after.keys() == {"if", "then"} and not (before and after)
            shift = rule_shift(bool(before), bool(after)) if one_more else UNSURE
            yield SchemaChange(path, "if", before or None, after or None, shift)

    def _all_of(self, old: list[Any], new: list[Any], path: str, sense: int) -> Iterator[SchemaChange]:
        for before, after in zip(old, new, strict=False):
            yield from self.of(before, after, path, sense)
        for each in old[len(new) :]:
            yield SchemaChange(path, "rule removed", each, None, Shift.WIDENED)
        for each in new[len(old) :]:
            yield SchemaChange(path, "new rule", None, each, Shift.NARROWED)

    def _equal(self, old: Any, new: Any) -> bool:
        """Whether two are equal with all that they refer to."""
        return same(_expanded(old, self.old), _expanded(new, self.new))


def resolved(document: Mapping[str, Any], reference: str) -> Any:
    """What a reference within a document leads to.

    Raises:
        Refused: it leads out of the document, or nowhere.
    """
    found: Any = document
    if not reference.startswith("#/"):
        raise Refused(f"$ref: {reference!r} leads out of the document; bundle it into one file first")
    for part in reference[2:].split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            raise Refused(f"$ref: {reference!r} leads nowhere")
        found = found[part]
    return found


def _inlined(schema: dict[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that is no reference."""
    for _ in range(100):
        if "$ref" not in schema:
            return schema
        rest = {key: value for key, value in schema.items() if key not in TEXTS and key not in ("$ref", "default")}
        target = plain(resolved(document, schema["$ref"]))
        schema = {"allOf": [target, rest]} if rest else target
    raise Refused(f"$ref: {schema['$ref']!r} leads round in a circle")


def _expanded(value: Any, document: Mapping[str, Any], within: tuple[str, ...] = ()) -> Any:
    """A value with what it refers to in place; a part within itself stays a reference."""
    if isinstance(value, list | tuple):
        return [_expanded(each, document, within) for each in value]
    if not isinstance(value, Mapping):
        return value
    found = {name: _expanded(each, document, within) for name, each in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str) and reference not in within:
        found["$ref"] = _expanded(resolved(document, reference), document, (*within, reference))
    return found


def _by_type(branches: list[Any], document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The alternatives by the type of what fits; None where several have one type, or alternatives themselves."""
    found: list[tuple[str, Any]] = []
    for each in map(plain, branches):
        branch = _inlined(each, document)
        if "anyOf" in branch:
            return None
        types = branch.get("type") or _type_of(values(branch))
        if isinstance(types, list):
            found += [(kind, {**branch, "type": kind}) for kind in types]
        elif not fits_nothing(branch):
            found.append((types, each))
    return dict(found) if max(Counter(kind for kind, _ in found).values(), default=0) < 2 else None


def _type_of(listed: Mapping[str, Any] | None) -> str:
    names = {str: "string", bool: "boolean", type(None): "null"}
    kinds = {names.get(type(each), "any") for each in (listed or {}).values()}
    return kinds.pop() if len(kinds) == 1 else "any"


def _covers(wider: str, kind: str) -> bool:
    return wider in (kind, "any") or (wider, kind) == ("number", "integer")


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Which alternatives take the same values."""
    for one in before:
        for other in after:
            gone, come = one not in after and _covers(other, one), other not in before and _covers(one, other)
            if one == other or gone or come:
                yield one, other


def _type(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[SchemaChange]:
    gone = [one for one in before if not any(_covers(other, one) for other in after)]
    come = [one for one in after if not any(_covers(other, one) for other in before)]
    shift = (Shift.NARROWED if gone else Shift.TEXT) | (Shift.WIDENED if come else Shift.TEXT)
    if shift:
        yield SchemaChange(path, "type", " or ".join(sorted(before)), " or ".join(sorted(after)), shift)


def _flipped(changes: Iterator[SchemaChange]) -> Iterator[SchemaChange]:
    turn = {Shift.NARROWED: Shift.WIDENED, Shift.WIDENED: Shift.NARROWED}
    return (replace(each, shift=turn.get(each.shift, each.shift)) for each in changes)


def _beside(schema: dict[str, Any]) -> dict[str, Any]:
    """The rules beside alternatives."""
    return {name: value for name, value in schema.items() if name != "anyOf"} if "anyOf" in schema else {}


def _short(schema: Any) -> Any:
    found = facts(schema)
    return found["$ref"].rsplit("/", 1)[-1] if isinstance(found, dict) and "$ref" in found else found
