"""An example record of every public event, and of every reason for which one is refused.

Whole records: key, headers, value. The dead letters are made by the code that makes them in service, so that no example
is told from memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
import numpy as np

from streams.contract import vector_codec
from streams.contract.cloudevents import ReceivedEvent, unpack
from streams.contract.content_modes import STRUCTURED
from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import BadRecord
from streams.contract.event_base import JSON, Event
from streams.contract.events import SongUpload
from streams.contract.json_schema import INPUTS, MESSAGES, VECTOR
from streams.contract.record_size import MAX_VALUE_BYTES
from streams.contract.topics import AUDIENCE_VECTORS, DEAD_LETTERS, SONG_UPLOADS, Topic
from streams.contract.vector_json import JsonVector

_TIME: Final = "2026-03-01T10:00:00Z"
APPENDED: Final = datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC).timestamp()
_STAGE: Final = "songs.validate"

Pairs = list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class ExampleRecord:
    """A record as it stands in a topic.

    Attributes:
        message: the name of its message in the document, such as ``StructuredListen`` or ``DeadLetter``.
        name: which example of it.
        summary: what it shows.
    """

    message: str
    name: str
    summary: str
    topic: Topic
    key: bytes | None
    headers: Pairs
    value: bytes | None


def example_records(prefix: str) -> Iterator[ExampleRecord]:
    """Every example. ``prefix``: of the topics' names, which dead letters tell."""
    for message, (event, types) in MESSAGES.items():
        for ce_type in types:
            key, headers, value = whole_record(event, ce_type)
            yield ExampleRecord(message, ce_type.split(".")[-2], _first_line(event), event.TOPIC, key, headers, value)
            if message in INPUTS:
                yield _structured(message, event.TOPIC, key, headers, value)
    attributes = _headers(JsonVector.TYPE)
    data = JsonVector.EXAMPLE.encode()
    yield _structured("AudienceVector", AUDIENCE_VECTORS, b"u-5", attributes, data)
    yield ExampleRecord(VECTOR, "json", "three dimensions", AUDIENCE_VECTORS, b"u-5", [], data)
    vector = vector_codec.pack("acme-users-2", np.array([0.5, -1.0, 0.25], np.float32))
    yield ExampleRecord("AudienceVector", "float32", "three dimensions", AUDIENCE_VECTORS, b"u-5", [], vector)
    yield ExampleRecord("AudienceVector", "tombstone", "no vector any more", AUDIENCE_VECTORS, b"u-5", [], None)
    for name, (summary, key, headers, value) in refused().items():
        try:
            unpack(SongUpload, key, value, headers, APPENDED)
        except BadRecord as error:
            yield refusal(prefix, summary, 2, (key, headers, value), error)
        else:
            raise ValueError(f"the example of {name} is accepted")


def refused() -> dict[str, tuple[str, bytes, Pairs, bytes]]:
    """By reason, an upload that is refused for it: what is wrong, key, headers, value."""
    key, headers, value = whole_record(SongUpload, SongUpload.UPLOADED)
    ahead = _changed(headers, "ce_time", "9998-01-01T00:00:00Z")
    large = value.replace(b"{", b'{"lyrics":"' + b"la " * (MAX_VALUE_BYTES // 3) + b'",', 1)
    return {
        "Undecodable": ("the JSON ends too early", key, headers, value[:40]),
        "TooLarge": ("a value of more than 1 MiB, uncompressed", key, headers, large),
        "UnknownMediaType": ("CSV", key, _changed(headers, "content-type", "text/csv"), value),
        "UnknownEventType": ("no such event here", key, _changed(headers, "ce_type", "song.uploaded"), value),
        "InvalidField": ("a negative weight", key, headers, value.replace(b'"dream pop":3', b'"dream pop":-3')),
        "KeyMismatch": ("the record's key is not the song_id of its event", b"s-82", headers, value),
        "FromTheFuture": ("the producer's clock is wrong", key, ahead, value),
    }


def whole_record(event: type[Event], ce_type: str) -> tuple[bytes, Pairs, bytes]:
    """An event's example as a record: key, headers, value."""
    value = msgspec.json.format(event.EXAMPLE, indent=-1).encode()
    key = msgspec.json.decode(value, type=event).record_key()
    return key.encode(), _headers(ce_type), value


def _headers(ce_type: str) -> Pairs:
    headers = {
        "ce_id": f"{ce_type.split('.')[-2]}-1", "ce_source": "example", "ce_specversion": "1.0", "ce_time": _TIME,
        "ce_type": ce_type, "content-type": JSON,
    }  # fmt: skip
    return [(name, text.encode()) for name, text in headers.items()]


def _structured(message: str, topic: Topic, key: bytes, headers: Pairs, data: bytes) -> ExampleRecord:
    """The same event in structured mode."""
    attributes = {name.removeprefix("ce_"): (text or b"").decode() for name, text in headers}
    media = attributes.pop("content-type")
    value = msgspec.json.encode({**attributes, "datacontenttype": media, "data": msgspec.Raw(data)})
    name, summary = attributes["type"].split(".")[-2], "attributes and event in one value"
    only: Pairs = [("content-type", STRUCTURED.encode())]
    return ExampleRecord(f"Structured{message}", name, summary, topic, key, only, value)


def _changed(headers: Pairs, name: str, text: str) -> Pairs:
    return [(each, text.encode() if each == name else value) for each, value in headers]


def _first_line(event: type[Event]) -> str:
    return (event.__doc__ or "").strip().splitlines()[0]


def upload() -> tuple[bytes, Pairs, bytes, ReceivedEvent[SongUpload]]:
    """A good upload: key, headers, value, and what is read of them."""
    key, headers, value = whole_record(SongUpload, SongUpload.UPLOADED)
    return key, headers, value, unpack(SongUpload, key, value, headers, APPENDED)


def refusal(
    prefix: str,
    summary: str,
    partition: int,
    record: tuple[bytes, Pairs, bytes],
    error: BadRecord,
    stage: str = _STAGE,
    topic: Topic = SONG_UPLOADS,
) -> ExampleRecord:
    """The dead letter of a record (key, headers and value), an upload unless ``topic`` and ``stage`` say otherwise."""
    key, headers, value = record
    origin = Origin(f"{prefix}{topic.name}", partition, 41, int(APPENDED * 1000), key, value, headers)
    letter = dead_letter(origin, stage, error)
    name = type(error).__name__
    return ExampleRecord("DeadLetter", name, summary, DEAD_LETTERS, letter.key, letter.headers, letter.value)
