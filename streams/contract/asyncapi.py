"""The contract with other teams: an AsyncAPI 3.0 document of the public topics.

Made from ``topics.py``, ``events.py``, ``json_schema.py`` and ``examples.py``; ``deploy/contract/asyncapi.yaml`` is its
output with the default settings, and a test holds the two equal. ``coldstart contract show`` prints it. 3.0, because
generators of code read nothing of a 3.1 document yet, which has nothing that is needed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from streams.contract.content_modes import STRUCTURED
from streams.contract.event_base import JSON, MAX_ID_LENGTH, Event
from streams.contract.examples import ExampleRecord
from streams.contract.json_schema import HEADER_SCHEMAS, INPUTS, MESSAGES, PAYLOADS, VECTOR, prose, schemas
from streams.contract.record_size import MAX_VALUE_BYTES
from streams.contract.topics import (
    AUDIENCE_VECTORS,
    DEAD_LETTERS,
    PARTITIONER,
    PUSH_TARGETS,
    READ_BY_OTHERS,
    READ_COMPRESSIONS,
    SENT,
    SONG_UPLOADS,
    TOPICS,
    WRITTEN_COMPRESSION,
    Cleanup,
    Naming,
    Topic,
)
from streams.contract.vector_codec import LAYOUT

VERSION: Final = "1.0.0"
"""Of the contract: a field more is a minor version, whatever breaks a producer or consumer a major one."""

_PARTS: Final = "#/components/schemas/"
_BINDING: Final = "0.5.0"
_BINARY: Final = "application/octet-stream"
# Of a value in an example.
_SHOWN: Final = 400


def asyncapi(
    naming: Naming, bootstrap_servers: str, security_protocol: str, replicas: int, examples: Sequence[ExampleRecord]
) -> dict[str, Any]:
    """The document of one installation, as plain data."""
    public = [topic for topic in TOPICS if topic.public]
    carried = {name: event.TOPIC for name, (event, _) in MESSAGES.items()}
    carried |= {f"Structured{name}": MESSAGES[name][0].TOPIC for name in INPUTS}
    carried |= dict.fromkeys(("AudienceVector", VECTOR, "StructuredAudienceVector"), AUDIENCE_VECTORS)
    carried["DeadLetter"] = DEAD_LETTERS
    shown = {name: [_example(each) for each in examples if each.message == name] for name in carried}
    messages = {name: _message(name, *each) for name, each in MESSAGES.items()} | _other_messages()
    messages |= {f"Structured{name}": _structured(name, messages[name]) for name in (*INPUTS, "AudienceVector")}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "coldstart",
            "version": VERSION,
            "license": {"name": "Apache-2.0"},
            "description": "Songs nobody has heard come in, the listeners who will love them come out. A record that "
            "breaks this contract is answered on dead-letters, with its bytes untouched and the reason in its headers. "
            f"A value has at most {MAX_VALUE_BYTES:,} bytes uncompressed, whatever its compression. Fields that are "
            "not named here are ignored, by this system and by consumers of what it writes.",
        },
        "defaultContentType": JSON,
        "servers": {f"kafka{number or ''}": _server(host, security_protocol) for number, host in
                    enumerate(bootstrap_servers.split(","))},
        "channels": {
            topic.name: _channel(topic, naming, replicas, [n for n, t in carried.items() if t is topic])
            for topic in public
        },
        "operations": {f"{_verb(topic)}-{topic.name}": _operation(topic, naming) for topic in public},
        "components": {
            "schemas": schemas() | HEADER_SCHEMAS,
            "messages": {name: {**message, "examples": shown[name]} for name, message in messages.items()},
            "parameters": {
                "prefix": {
                    "description": "Stands before every topic's name: two prefixes are two installations.",
                    "default": naming.prefix,
                }
            },
        },
    }  # fmt: skip


def _server(host: str, security_protocol: str) -> dict[str, Any]:
    return {
        "host": host,
        "protocol": "kafka-secure" if security_protocol.endswith("SSL") else "kafka",
        "description": f"Kafka, {security_protocol}",
    }


def _verb(topic: Topic) -> str:
    return "send" if topic in SENT else "receive"


def _operation(topic: Topic, naming: Naming) -> dict[str, Any]:
    group: dict[str, Any]
    if topic in SENT:
        group = {
            "type": "string",
            "description": "yours: every consumer that must see all records has a group of its own",
        }
    else:
        role = "songs" if topic is SONG_UPLOADS else "audience"
        group = {"type": "string", "enum": [f"{naming.prefix}{role}"], "description": f"of the {role} role"}
    return {
        "action": _verb(topic),
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "summary": f"{topic.meaning[:1].upper()}{topic.meaning[1:]}.",
        "bindings": {"kafka": {"groupId": group, "bindingVersion": _BINDING}},
    }


def _channel(topic: Topic, naming: Naming, replicas: int, messages: list[str]) -> dict[str, Any]:
    sent = topic in SENT
    config: dict[str, Any] = {"cleanup.policy": [topic.cleanup.value], "max.message.bytes": topic.largest}
    if topic.cleanup is Cleanup.COMPACT:
        config["delete.retention.ms"] = int(topic.config()["delete.retention.ms"])
    if topic.retention_ms is not None:
        config["retention.ms"] = topic.retention_ms
    return {
        "address": f"{{prefix}}{topic.name}",
        "parameters": {"prefix": {"$ref": "#/components/parameters/prefix"}},
        "description": f"{topic.meaning[:1].upper()}{topic.meaning[1:]}. Written by: {topic.writers}. "
        f"Key: {topic.key}. " + ("Read it with the consumer's settings in x-consumer." if sent else
                                "Write it with the producer's settings in x-producer."),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "x-key": topic.key,
        "bindings": {
            "kafka": {
                "topic": naming.name(topic),
                "partitions": naming.partitions(topic),
                "replicas": replicas,
                "topicConfiguration": config,
                "bindingVersion": _BINDING,
            }
        },
        **({} if sent else {"x-producer": _producer()}),
        **({"x-consumer": _consumer(topic)} if topic in READ_BY_OTHERS else {}),
    }  # fmt: skip


def _producer() -> dict[str, Any]:
    return {
        "partitioner": PARTITIONER,
        "compression": list(READ_COMPRESSIONS),
        "acks": "all",
        "max-value-bytes": MAX_VALUE_BYTES,
        "description": f"The partition is murmur2 of the key: Java's default, in librdkafka partitioner={PARTITIONER}. "
        "A record in another partition is refused as WrongPartition. "
        f"A value has at most {MAX_VALUE_BYTES:,} bytes uncompressed. Transactions are read committed.",
    }


# The audience role writes in transactions, the songs role does not.
_TRANSACTIONS: Final = {
    PUSH_TARGETS.name: "It is written in transactions: consumers that read committed records see each push_id once. ",
    DEAD_LETTERS.name: "Some of it is written in transactions. ",
}


def _consumer(topic: Topic) -> dict[str, Any]:
    if topic not in SENT:
        # As its producers like.
        written = {"compression": list(READ_COMPRESSIONS)}
        words = "Push systems read it right before they send. Its producers choose compression and transactions. "
    else:
        written = {"compression": [WRITTEN_COMPRESSION]}
        words = f"{_TRANSACTIONS.get(topic.name, '')}Records are not compressed, so that every client reads them. "
    return {
        "isolation.level": "read_committed",
        **written,
        "description": f"{words}The partition is murmur2 of the key.",
    }


def _message(name: str, event: type[Event], types: tuple[str, ...]) -> dict[str, Any]:
    summary, _, rest = prose(event.__doc__).partition("\n\n")
    return {
        "name": name,
        "title": name,
        "summary": summary,
        **({"description": rest} if rest else {}),
        "contentType": JSON,
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/CloudEventHeaders"},
                {"type": "object", "properties": {"ce_type": {"enum": list(types)}}},
            ]
        },
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": _key(event.KEY),
    }


def _structured(name: str, binary: dict[str, Any]) -> dict[str, Any]:
    """The message of structured mode beside that of binary mode."""
    return {
        "name": f"Structured{name}",
        "title": f"Structured{name}",
        "summary": f"{name} as a CloudEvent in structured mode.",
        "contentType": STRUCTURED,
        "headers": {"$ref": f"{_PARTS}StructuredHeaders"},
        "payload": {"$ref": f"{_PARTS}Structured{name}"},
        "bindings": binary["bindings"],
    }


def _key(field: str) -> dict[str, Any]:
    key = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH, "description": f"{field}, UTF-8"}
    return {"kafka": {"key": key, "bindingVersion": _BINDING}}


def _example(record: ExampleRecord) -> dict[str, Any]:
    """As AsyncAPI has it, which knows no key: that one is in the summary."""
    payload: Any = ""
    if record.message in PAYLOADS:
        payload = msgspec.json.decode(record.value or b"")
    elif record.message == "AudienceVector":
        payload = (record.value or b"").hex()
    elif record.value is not None:
        payload = record.value.decode()
        if len(payload) > _SHOWN:
            payload = f"{payload[:_SHOWN]}… and so on, {len(record.value):,} bytes"
    return {
        "name": record.name,
        "summary": f"{record.summary.rstrip('.')}; key {(record.key or b'').decode()}",
        "headers": {name: (value or b"").decode() for name, value in record.headers},
        "payload": payload,
    }


def _other_messages() -> dict[str, Any]:
    return {
        "AudienceVector": {
            "name": "AudienceVector",
            "title": "AudienceVector",
            "summary": "A listener's representation from outside; an empty value means: no vector any more.",
            "description": "The record's timestamp says when it was made. In the examples the bytes are hexadecimal.",
            "contentType": _BINARY,
            "headers": {"$ref": "#/components/schemas/AudienceVectorHeaders"},
            "payload": {
                "type": "string",
                "format": "binary",
                "description": "The layout, byte by byte, is in x-layout; numbers are little-endian.",
                "x-layout": [dict(zip(("offset", "size", "field", "meaning"), each, strict=True)) for each in LAYOUT],
            },
            "bindings": _key("user_id"),
        },
        VECTOR: {
            "name": VECTOR,
            "title": VECTOR,
            "summary": "The same as JSON, for clients that do not write the binary layout.",
            "contentType": JSON,
            "headers": {"$ref": f"{_PARTS}AudienceVectorHeaders"},
            "payload": {"$ref": f"{_PARTS}{VECTOR}"},
            "bindings": _key("user_id"),
        },
        "DeadLetter": {
            "name": "DeadLetter",
            "title": "DeadLetter",
            "summary": "A record that was refused: its key, headers and bytes, and the reason as further headers.",
            "contentType": _BINARY,
            "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
            "payload": {"type": "string", "format": "binary", "description": "the value as it was found"},
        },
    }
