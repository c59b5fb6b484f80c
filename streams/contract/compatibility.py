"""What a change of the contract breaks: those who send by the old one, those who read by it, or nobody.

Two AsyncAPI documents are compared by channel, and from the side of who is at its other end: where this system reads,
everything that was accepted must be; where it writes, nothing may come that could not. A channel that others read
beside this system (it has an ``x-consumer``) is both.

An installation's own affairs are not compared: servers, prefix, numbers of partitions and replicas, group names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from streams.contract.errors import Refused
from streams.contract.schema_changes import SchemaWalk, resolved
from streams.contract.schema_keywords import TEXTS, Shift, facts, same

Facts = dict[str, Any]


class Direction(StrEnum):
    """Of a channel, as this system sees it."""

    INPUT = "input"
    OUTPUT = "output"


class Effect(StrEnum):
    """The worst first."""

    BREAKS_PRODUCERS = "breaks producers"
    BREAKS_CONSUMERS = "breaks consumers"
    COMPATIBLE = "compatible"
    TEXT = "text"

    @property
    def breaks(self) -> bool:
        return self in (Effect.BREAKS_PRODUCERS, Effect.BREAKS_CONSUMERS)


@dataclass(frozen=True, slots=True)
class ContractChange:
    """One change.

    Attributes:
        channel, direction: empty and None where it is about the whole document.
        path: of fields by name, from their event; ``[]`` is an entry of a list, ``{}`` one of an object.
        old, new: what the documents say there; None where one says nothing.
    """

    effect: Effect
    channel: str
    direction: Direction | None
    path: str
    what: str
    old: Any
    new: Any


# Of the document and of its channels, messages and operations.
_INSTALLATION: Final = frozenset(("servers", "parameters"))
_OF_ROOT: Final = frozenset(("asyncapi", "id", "info", "defaultContentType", "channels", "operations", "components"))
# More of it is no harm to whoever sends, less of it none to whoever reads.
_UPPER: Final = ("max.message.bytes", "max-value-bytes")
_KEPT: Final = ("retention.ms", "delete.retention.ms")


def contract_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[ContractChange]:
    """Every change, the worst first, then in the order of the old document.

    Raises:
        Refused: one of them is no AsyncAPI document of the third version, or something in it is malformed.
    """
    found: list[ContractChange] = []
    for document in (old, new):
        if not str(document.get("asyncapi", "")).startswith("3.") or not isinstance(document.get("channels"), Mapping):
            raise Refused("not an AsyncAPI 3 document: asyncapi and channels are needed")
    for path, what, before, after, shift in _document(old, new):
        effects = {_effect(shift, each) for each in Direction}
        found += [ContractChange(each, "", None, path, what, before, after) for each in effects]
    for name in [*old["channels"], *(each for each in new["channels"] if each not in old["channels"])]:
        for direction in Direction:
            try:
                told = [*_channel(name, direction, old, new)]
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise Refused(f"{name}: its channel, or a schema there, is malformed: {error}") from error
            for path, what, before, after, shift in told:
                found.append(ContractChange(_effect(shift, direction), name, direction, path, what, before, after))
    return sorted(found, key=lambda each: [*Effect].index(each.effect))


def needed_version(old: str, changes: list[ContractChange]) -> str:
    """The least version for what follows a version by these changes."""
    major, minor, patch = numbers(old)
    effects = {each.effect for each in changes}
    if any(each.breaks for each in effects):
        return f"{major + 1}.0.0"
    if Effect.COMPATIBLE in effects:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + bool(effects)}"


def numbers(version: str) -> tuple[int, int, int]:
    """A version's parts.

    Raises:
        Refused: it is none.
    """
    try:
        major, minor, patch = map(int, version.split("."))
    except ValueError:
        raise Refused(f"version: {version!r} is not three numbers, such as 1.2.0") from None
    return major, minor, patch


def _effect(shift: Shift, direction: Direction) -> Effect:
    if not shift:
        return Effect.TEXT
    if direction is Direction.INPUT:
        return Effect.BREAKS_PRODUCERS if shift & (Shift.NARROWED | Shift.LOST) else Effect.COMPATIBLE
    return Effect.BREAKS_CONSUMERS if shift & (Shift.WIDENED | Shift.LOST) else Effect.COMPATIBLE


_Told = tuple[str, str, Any, Any, Shift]


def _document(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[_Told]:
    if old["asyncapi"] != new["asyncapi"]:
        yield "asyncapi", "version of AsyncAPI", old["asyncapi"], new["asyncapi"], Shift.GREW
    before, after = ({**each.get("info", {}), "version": ""} for each in (old, new))
    if not same(before, after):
        yield "info", "texts", None, None, Shift.TEXT
    yield from _others("", old, new, _OF_ROOT | _INSTALLATION)


def _channel(name: str, direction: Direction, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[_Told]:
    """Changes of a channel for those at its other end in this direction."""
    before, after = _directions(name, old), _directions(name, new)
    if direction not in before:
        if direction in after:
            yield name, "new channel" if name not in old["channels"] else f"new {direction}", None, name, Shift.GREW
        return
    if direction not in after:
        what = "channel removed" if name not in new["channels"] else f"no {direction} any more"
        yield name, what, name, None, Shift.LOST
        return
    one, other = old["channels"][name], new["channels"][name]
    yield from _settings(_settings_of(one, direction), _settings_of(other, direction))
    yield from _others(name, one, other, {"messages", "bindings", "x-producer", "x-consumer"} | _INSTALLATION)
    acts = [_operations(name, each) for each in (old, new)]
    for each in acts[0].keys() & acts[1].keys():
        yield from _others(each, acts[0][each], acts[1][each], {"action", "channel", "bindings"})
    yield from _messages(name, old, new)


def _directions(name: str, document: Mapping[str, Any]) -> set[Direction]:
    if name not in document["channels"]:
        return set()
    actions = {each.get("action") for each in _operations(name, document).values()} or {"send", "receive"}
    found = {Direction.OUTPUT if each == "send" else Direction.INPUT for each in actions}
    return found | ({Direction.OUTPUT} if "x-consumer" in document["channels"][name] else set())


def _operations(channel: str, document: Mapping[str, Any]) -> dict[str, Facts]:
    operations = document.get("operations", {}).items()
    return {name: each for name, each in operations if each.get("channel") == {"$ref": f"#/channels/{channel}"}}


def _settings_of(channel: Mapping[str, Any], direction: Direction) -> Facts:
    """What is to be known of a channel beside its messages, by path."""
    own = "x-producer" if direction is Direction.INPUT else "x-consumer"
    topic = channel.get("bindings", {}).get("kafka", {}).get("topicConfiguration", {})
    rest = {f"bindings.{name}": each for name, each in channel.get("bindings", {}).items() if name != "kafka"}
    found = {f"{own}.{name}": each for name, each in facts(channel.get(own, {})).items()}
    return found | {f"topicConfiguration.{name}": each for name, each in topic.items()} | rest


def _settings(old: Facts, new: Facts) -> Iterator[_Told]:
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if not same(before, after):
            yield path, path.partition(".")[2], before, after, _shift(path.partition(".")[2], before, after)


def _shift(name: str, old: Any, new: Any) -> Shift:
    """What another value of a setting does."""
    both = isinstance(old, int) and isinstance(new, int)
    if name in _UPPER and both:
        return Shift.NARROWED if new < old else Shift.WIDENED
    if name in _KEPT and both:
        # Where records are kept for less, one that is away misses some; whoever sends sees nothing of it.
        return Shift.WIDENED if new < old else Shift.GREW
    if name == "compression" and isinstance(old, list) and isinstance(new, list):
        gone, come = set(old) - set(new), set(new) - set(old)
        return (Shift.NARROWED if gone else Shift.TEXT) | (Shift.WIDENED if come else Shift.TEXT)
    return Shift.LOST


def _messages(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[_Told]:
    before, after = (_messages_of(each, name) for each in (old, new))
    walk = SchemaWalk(old, new)
    for message in [*before, *(each for each in after if each not in before)]:
        if message not in after:
            yield message, "message removed", message, None, Shift.LOST
        elif message not in before:
            yield message, "new message", None, message, Shift.WIDENED
        else:
            yield from _message(message, before[message], after[message], walk)


def _messages_of(document: Mapping[str, Any], channel: str) -> Facts:
    found = {}
    for name, each in document["channels"][channel].get("messages", {}).items():
        while "$ref" in each:
            each = resolved(document, each["$ref"])
        found[name] = {"contentType": document.get("defaultContentType"), **each}
    return found


def _message(name: str, old: Facts, new: Facts, walk: SchemaWalk) -> Iterator[_Told]:
    keys = [each.get("bindings", {}).get("kafka", {}).get("key", {}) for each in (old, new)]
    schemas = {
        f"{name} key": keys,
        f"{name} headers": [each.get("headers", {}) for each in (old, new)],
        name: [each.get("payload", {}) for each in (old, new)],
    }
    for path, (before, after) in schemas.items():
        for each in walk.of(before, after, path):
            yield each.path, each.what, each.old, each.new, each.shift
    yield from _others(name, old, new, {"headers", "payload", "bindings", "name"})


def _others(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], known: frozenset[str] | set[str]
) -> Iterator[_Told]:
    """Whatever else is said: words, or what nothing is known of here."""
    for key in sorted((old.keys() | new.keys()) - known):
        if not same(old.get(key), new.get(key)):
            text = key in TEXTS or same(facts(old.get(key)), facts(new.get(key)))
            yield f"{path}.{key}".lstrip("."), key, old.get(key), new.get(key), Shift.TEXT if text else Shift.LOST
