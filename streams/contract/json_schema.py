"""JSON Schema of the public events, made from the structs that decode them.

What a struct cannot say in msgspec's own terms stands here: which dates there are, and that an upload has content. A
test compares schemas and decoder on generated events. The schemas keep to what draft 7 and 2020-12 have in common, to
regular expressions that every engine reads alike, and to no ``format`` where something is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from streams.contract.content_modes import STRUCTURED
from streams.contract.event_base import Event
from streams.contract.event_time import CE_TIME_PATTERN, MAX_AHEAD_SECONDS, TIME_PATTERN
from streams.contract.events import PUBLIC_EVENTS, SongUpload
from streams.contract.topics import SENT
from streams.contract.vector_json import JsonVector

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_PARTS: Final = "#/components/schemas/"

# Absent or empty: not all of them may be. Of "any of these is there" generators of code make a type each, and of "not
# this" they make none, so that the rule is: where all are, the event is empty, which it cannot be.
_NO_CONTENT: Final = {
    "features": {"maxProperties": 0},
    "tags": {"maxProperties": 0},
    "genres": {"maxItems": 0},
    "artist_ids": {"maxItems": 0},
}

# Rules of an event that no field has by itself.
_RULES: Final[dict[type[Event], dict[str, Any]]] = {
    SongUpload: {
        "$comment": "at least one of features, tags, genres and artist_ids is there and not empty",
        "if": {"properties": _NO_CONTENT},
        "then": {"maxProperties": 0},
    }
}

_TIME: Final = {
    "type": "string",
    "pattern": TIME_PATTERN,
    "description": "RFC 3339 with an offset, such as 2026-03-01T10:00:00Z; a blank for T and +0100 for +01:00 are read "
    "too. No leap second; years 2 to 9998, year 1 in UTC only.",
    "examples": ["2026-03-01T10:00:00Z", "2026-03-01T11:00:00.250+01:00"],
}


def _caseless(text: str) -> str:
    return "".join(f"[{each.upper()}{each}]" if each.isalpha() else each for each in text)


# What is read in binary mode. Nothing but a charset may begin with ch.
_CHARSET: Final = f'{_caseless("charset")} *= *"?({_caseless("utf")}-?8|{_caseless("us-ascii")})"?'
_PARAMETERS: Final = f"(; *({_CHARSET}|[^ ;Cc][^;]*|[Cc][^;Hh][^;]*) *)*"
_JSON: Final = (
    f"^( *({_caseless('application/json')}|{_caseless('text/json')}|[^; ]*\\+{_caseless('json')}) *{_PARAMETERS})?$"
)
_JSON_TYPES: Final = {"pattern": _JSON, "not": {"pattern": f"^ *{_caseless('application/cloudevents')}"}}
_BASE64: Final = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$"


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


HEADER_SCHEMAS: Final[dict[str, Any]] = {
    "CloudEventHeaders": {
        "type": "object",
        "description": "CloudEvents 1.0, binary content mode. Headers are UTF-8; the last one of a name counts.",
        "required": ["ce_id", "ce_source", "ce_type", "ce_specversion", "ce_time"],
        "properties": {
            "ce_id": _text("idempotency key: the same id from the same source is the same event", minLength=1),
            "ce_source": _text("who sent it", minLength=1),
            "ce_type": _text("coldstart.<event>.v1", minLength=1),
            "ce_specversion": _text("version of CloudEvents", const="1.0"),
            "ce_time": _text(
                "when it happened, RFC 3339; seconds and the offset's minutes may be left out. More than "
                f"{MAX_AHEAD_SECONDS / 60:g} minutes ahead of the broker's clock is refused",
                pattern=CE_TIME_PATTERN,
            ),
            "content-type": _text(
                "media type of the value: application/json, also without this header, or another of JSON; charset: "
                "utf-8. With application/cloudevents+json the value holds attributes and event (structured mode), and "
                "no other header is read",
                **_JSON_TYPES,
            ),
            "traceparent": _text("W3C trace context, optional"),
        },
    },
    "StructuredHeaders": {
        "type": "object",
        "description": "CloudEvents 1.0, structured content mode: the value holds attributes and event. No header but "
        "this one is read.",
        "required": ["content-type"],
        "properties": {
            "content-type": _text(
                f"{STRUCTURED}; charset: utf-8",
                pattern=f"^ *{_caseless(STRUCTURED)} *{_PARAMETERS}$".replace("+", "\\+", 1),
            )
        },
    },
    "AudienceVectorHeaders": {
        "type": "object",
        "description": "None is needed: the record's key and timestamp say whose vector it is and when it was made.",
        "properties": {"content-type": _text("application/octet-stream, if anything")},
    },
    "DeadLetterHeaders": {
        "type": "object",
        "description": "the original headers, and why the record was refused; of a record too large for this topic, "
        "its first bytes and what it was",
        "required": ["dl_topic", "dl_partition", "dl_offset", "dl_timestamp", "dl_stage", "dl_error", "dl_message"],
        "properties": {
            "dl_topic": _text("where the record was found"),
            "dl_partition": _text("its partition"),
            "dl_offset": _text("its offset"),
            "dl_timestamp": _text("its timestamp, Unix milliseconds"),
            "dl_stage": _text("the step that refused it"),
            "dl_error": _text("the class of the error"),
            "dl_message": _text("the field, what is wrong with it, and what is allowed"),
            "dl_key_size": _text("only where the record is cut: bytes of its key"),
            "dl_key_sha256": _text("only where the record is cut: SHA-256 of its key, hexadecimal"),
            "dl_value_size": _text("only where the record is cut: bytes of its value, uncompressed"),
            "dl_value_sha256": _text("only where the record is cut: SHA-256 of its value, hexadecimal"),
            "dl_headers": _text("only where the record is cut: how many headers it had"),
        },
    },
}


def read_as(event: type[Event]) -> Iterator[tuple[type[Event], tuple[str, ...]]]:
    """The structs that records of a public event are read by, each with its ce_types."""
    yield event, tuple(each for each in event.TYPES if each not in event.FORMS)
    yield from ((form, form.TYPES) for form in event.FORMS.values())


MESSAGES: Final = {form.__name__: (form, types) for event in PUBLIC_EVENTS for form, types in read_as(event)}
"""The public events by name, with the ce_types of each."""
INPUTS: Final = tuple(name for name, (event, _) in MESSAGES.items() if event.TOPIC not in SENT)
"""Those that others send."""
VECTOR: Final = "AudienceVectorJson"
"""A vector as JSON, by the name of its message."""
PAYLOADS: Final = (*MESSAGES, VECTOR, *(f"Structured{name}" for name in (*INPUTS, "AudienceVector")))
"""Every message whose value is JSON."""


def schemas() -> dict[str, Any]:
    """Every event and part of one by name; references are to ``#/components/schemas/``."""
    found: dict[str, Any] = {"Time": _TIME}
    for event, _ in MESSAGES.values():
        _, parts = msgspec.json.schema_components([event], ref_template=_PARTS + "{name}")
        for name, part in parts.items():
            found[name] = _plain(part, read=event.TOPIC not in SENT)
            _name_choices(name, found[name].get("properties", {}))
        found[event.__name__] |= _RULES.get(event, {})
    for name in INPUTS:
        found[f"Structured{name}"] = _structured(name, name, MESSAGES[name][1])
    (found[VECTOR],) = msgspec.json.schema_components([JsonVector])[1].values()
    found[VECTOR] |= {"title": VECTOR, "description": f"{prose(JsonVector.__doc__)} Not all numbers are zero."}
    found["StructuredAudienceVector"] = _structured("AudienceVector", VECTOR, (JsonVector.TYPE,))
    return found


def _structured(name: str, data: str, types: tuple[str, ...]) -> dict[str, Any]:
    """A CloudEvent in structured mode. One of a vector need not say when it was: its record's timestamp does."""
    vector = data == VECTOR
    encoded = "base64 of the same JSON" + (", or of the binary layout" if vector else "")
    optional: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    time = {"pattern": CE_TIME_PATTERN}
    return {
        "title": f"Structured{name}",
        "description": f"{name} and its attributes in one value. subject, dataschema and extensions are carried and "
        "not read. Either data or data_base64 is there.",
        "type": "object",
        "properties": {
            "specversion": _text("version of CloudEvents", const="1.0"),
            "id": _text("idempotency key: the same id from the same source is the same event", minLength=1),
            "source": _text("who sent it", minLength=1),
            "type": {"enum": list(types), **({"title": f"Structured{name}Type"} if len(types) > 1 else {})},
            "time": {**optional, "description": "not read"} if vector else _text("when it happened, RFC 3339", **time),
            "datacontenttype": {
                "description": "media type of data: application/json, also without it, or another of JSON",
                "anyOf": [{"type": "string", **({} if vector else {"pattern": _JSON})}, {"type": "null"}],
                "default": None,
            },
            "data": {"anyOf": [{"$ref": f"{_PARTS}{data}"}, {"type": "null"}], "default": None},
            "data_base64": {
                "description": encoded,
                "anyOf": [{"type": "string", "pattern": _BASE64, "contentEncoding": "base64"}, {"type": "null"}],
                "default": None,
            },
        },
        "required": ["specversion", "id", "source", "type", *([] if vector else ["time"])],
        "if": {"properties": {"data": {"type": "null"}}},
        "then": {"required": ["data_base64"], "properties": {"data_base64": {"type": "string"}}},
        "else": {"properties": {"data_base64": {"type": "null"}}},
    }


def schema(name: str) -> dict[str, Any]:
    """The schema of one event, complete in itself.

    Raises:
        KeyError: there is no such event.
    """
    known = schemas() | HEADER_SCHEMAS
    parts: dict[str, Any] = {}

    def local(node: Any) -> Any:
        if isinstance(node, list):
            return [local(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            part = node["$ref"].removeprefix(_PARTS)
            if part not in parts:
                parts[part] = None
                parts[part] = local(known[part])
            return {"$ref": f"#/$defs/{part}"}
        return {key: local(each) for key, each in node.items()}

    whole = local(known[name])
    return {"$schema": DIALECT, "title": name, **whole, **({"$defs": parts} if parts else {})}


def _plain(node: Any, read: bool) -> Any:
    """A schema as it is published: whole paragraphs, and of times that are read all that is read."""
    if isinstance(node, list):
        return [_plain(each, read) for each in node]
    if not isinstance(node, dict):
        return node
    if read and node.get("format") == "date-time":
        return {"$ref": f"{_PARTS}Time"}
    made = {key: _plain(each, read) for key, each in node.items()}
    if isinstance(made.get("description"), str):
        made["description"] = prose(made["description"])
    return made


def _name_choices(name: str, properties: dict[str, Any]) -> None:
    """Give the values that a field may have a name: in generated code they are a type of their own."""
    for field, node in properties.items():
        for each in (node, *node.get("anyOf", ())):
            if "enum" in each and len(each["enum"]) > 1:
                each["title"] = name + "".join(part.title() for part in field.split("_"))


def prose(docstring: str | None) -> str:
    """A docstring's paragraphs, one a line, without what only Sphinx reads."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs).replace(":class:", "")
