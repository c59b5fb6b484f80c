"""The contract with other teams: an AsyncAPI 3.1 document of the public topics.

Generated from ``topics.py`` and ``events.py``; ``deploy/contract/asyncapi.yaml`` is its output, and a test
holds the two equal. ``coldstart topics contract`` prints it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from streams.contract import vector_codec
from streams.contract.event_base import Event
from streams.contract.event_time import MAX_AHEAD_SECONDS
from streams.contract.events import PUBLIC_EVENTS
from streams.contract.record_size import MAX_VALUE_BYTES
from streams.contract.topics import AUDIENCE_VECTORS, CAMPAIGNS, DEAD_LETTERS, PUSH_TARGETS, TOPICS, Topic

# What this system publishes; it consumes every other public topic.
_SENT = (PUSH_TARGETS, CAMPAIGNS, DEAD_LETTERS)


def asyncapi() -> dict[str, Any]:
    """The document as plain data."""
    public = [topic for topic in TOPICS if topic.public]
    structs = PUBLIC_EVENTS
    _, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    messages = {cls.__name__: _message(cls) for cls in structs} | _OTHER_MESSAGES
    carried = {cls.__name__: cls.TOPIC for cls in structs} | {
        "AudienceVector": AUDIENCE_VECTORS,
        "DeadLetter": DEAD_LETTERS,
    }
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "coldstart",
            "version": "1.0.0",
            "description": "Songs nobody has heard come in, the listeners who will love them come out. Every topic "
            "name is preceded by the installation's prefix. A record that breaks this contract is "
            "answered on dead-letters, with its bytes untouched and the reason in its headers. A value has at most "
            f"{MAX_VALUE_BYTES:,} bytes uncompressed, whatever its compression.",
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic, [n for n, t in carried.items() if t is topic]) for topic in public},
        "operations": {f"{_verb(topic)}-{topic.name}": _operation(topic) for topic in public},
        "components": {"schemas": schemas | _HEADER_SCHEMAS, "messages": messages},
    }


def asyncapi_yaml() -> str:
    """The document as YAML."""
    return msgspec.yaml.encode(asyncapi()).decode()


def _verb(topic: Topic) -> str:
    return "send" if topic in _SENT else "receive"


def _operation(topic: Topic) -> dict[str, Any]:
    return {"action": _verb(topic), "channel": {"$ref": f"#/channels/{topic.name}"}}


def _channel(topic: Topic, messages: list[str]) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": f"{topic.meaning}. Written by: {topic.writers}. Key: {topic.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "bindingVersion": "0.5.0",
                "topicConfiguration": {
                    "cleanup.policy": [topic.cleanup.value],
                    **({} if topic.retention_ms is None else {"retention.ms": topic.retention_ms}),
                },
            }
        },
    }


def _message(cls: type[Event]) -> dict[str, Any]:
    return {
        "name": cls.__name__,
        "title": (cls.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/CloudEventHeaders"},
                {"type": "object", "properties": {"ce_type": {"enum": list(cls.TYPES)}}},
            ]
        },
        "payload": {"$ref": f"#/components/schemas/{cls.__name__}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": cls.KEY}, "bindingVersion": "0.5.0"}},
        "examples": [{"payload": msgspec.json.decode(cls.EXAMPLE)}],
    }


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


_HEADER_SCHEMAS: dict[str, Any] = {
    "CloudEventHeaders": {
        "type": "object",
        "description": "CloudEvents 1.0, binary content mode",
        "required": ["ce_id", "ce_source", "ce_type", "ce_specversion", "ce_time"],
        "properties": {
            "ce_id": _text("idempotency key: the same id from the same source is the same event"),
            "ce_source": _text("who sent it"),
            "ce_type": _text("coldstart.<event>.v1"),
            "ce_specversion": _text("version of CloudEvents", const="1.0"),
            "ce_time": _text(
                f"when it happened; more than {MAX_AHEAD_SECONDS / 60:g} minutes ahead is refused", format="date-time"
            ),
            "content-type": _text(
                "media type of the value: application/json, also without it. In application/cloudevents+json "
                "the value holds attributes and event, and no other header is read. Charset: utf-8"
            ),
            "traceparent": _text("W3C trace context, optional"),
        },
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

_BINARY = {"type": "string", "format": "binary"}

_OTHER_MESSAGES: dict[str, Any] = {
    "AudienceVector": {
        "name": "AudienceVector",
        "title": "A listener's representation from outside; an empty value means: no vector any more.",
        "description": (vector_codec.__doc__ or "").strip(),
        "contentType": "application/octet-stream",
        "payload": _BINARY,
        "bindings": {"kafka": {"key": {"type": "string", "description": "user_id"}, "bindingVersion": "0.5.0"}},
    },
    "DeadLetter": {
        "name": "DeadLetter",
        "title": "A bad record: original key and bytes.",
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        "payload": _BINARY,
    },
}
