"""Structured CloudEvents, on every event that others send, and what is refused by its media type."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.contract.cloudevents import Headers, unpack, unpack_many
from streams.contract.content_modes import STRUCTURED
from streams.contract.errors import BadRecord, FromTheFuture, InvalidField, TooLarge, UnknownEventType, UnknownMediaType
from streams.contract.event_base import Event
from streams.contract.events import Listen, PushOutcome, SongUpload, UserPreferences
from streams.contract.record_size import MAX_VALUE_BYTES

NOW = 1_800_000_000.0
INPUTS: tuple[type[Event], ...] = (SongUpload, Listen, PushOutcome, UserPreferences)
HEADERS: Headers = [("content-type", STRUCTURED.encode())]


def binary(cls: type[Event], media: bytes | None = b"application/json") -> Headers:
    return [
        ("ce_id", b"1"), ("ce_source", b"here"), ("ce_type", cls.TYPES[0].encode()), ("ce_specversion", b"1.0"),
        ("ce_time", b"2026-03-01T10:00:00Z"), ("content-type", media),
    ]  # fmt: skip


def key(cls: type[Event]) -> bytes:
    return str(json.loads(cls.EXAMPLE)[cls.KEY]).encode()


def structured(cls: type[Event], **changes: Any) -> bytes:
    event = {
        "specversion": "1.0", "id": "1", "source": "here", "type": cls.TYPES[0], "time": "2026-03-01T10:00:00Z",
        "datacontenttype": "application/json", "data": json.loads(cls.EXAMPLE),
    } | changes  # fmt: skip
    return json.dumps({name: value for name, value in event.items() if value is not ...}).encode()


@pytest.mark.parametrize("cls", INPUTS)
@pytest.mark.parametrize("media", [STRUCTURED, f"{STRUCTURED}; charset=utf-8", f'{STRUCTURED.upper()};charset="UTF-8"'])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"subject": "s-81", "dataschema": "https://example.com/schema", "traceparent": "00-1-2-01", "myextension": 7},
        {"datacontenttype": ..., "subject": None},
        {"datacontenttype": "application/json; charset=utf-8"},
        {"datacontenttype": "application/vnd.acme+json"},
        {"time": "2026-03-01T12:00:00.000000000+02:00"},
    ],
    ids=str,
)
def test_a_structured_event_is_read_as_its_binary_twin(cls: type[Event], media: str, more: dict[str, Any]) -> None:
    told = unpack(cls, key(cls), structured(cls, **more), [("content-type", media.encode())], NOW)
    assert told == unpack(cls, key(cls), cls.EXAMPLE.encode(), binary(cls), NOW)


@pytest.mark.parametrize("cls", INPUTS)
def test_data_may_be_base64_of_the_same_json(cls: type[Event]) -> None:
    value = structured(cls, data=..., data_base64=b64encode(cls.EXAMPLE.encode()).decode())
    assert unpack(cls, key(cls), value, HEADERS, NOW) == unpack(cls, key(cls), cls.EXAMPLE.encode(), binary(cls), NOW)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"id": ...}, InvalidField, "id: attribute missing"),
        ({"id": ""}, InvalidField, "id: attribute missing"),
        ({"id": 7}, InvalidField, "id: 7, expected string or null"),
        ({"source": None}, InvalidField, "source: attribute missing"),
        ({"type": "coldstart.other.v1"}, UnknownEventType, "type: 'coldstart.other.v1' is none of coldstart.listen.v1"),
        ({"specversion": "0.3"}, InvalidField, "specversion: '0.3', this reader knows '1.0'"),
        ({"time": "2026-03-01T10:00:00"}, InvalidField, "time: '2026-03-01T10:00:00' has no offset (append Z for UTC)"),
        ({"time": "2029-01-01T00:00:00Z"}, FromTheFuture, "time: 61920000 s ahead of the broker's clock, 300 allowed"),
        ({"data": ...}, InvalidField, "data: missing"),
        ({"data_base64": ""}, InvalidField, "data, data_base64: both are there, one is allowed"),
        ({"data": ..., "data_base64": "{"}, InvalidField, "data_base64: is not base64"),
        ({"data": [1]}, InvalidField, "value: array, expected object"),
        ({"data": {}}, InvalidField, "listen_id: missing"),
        ({"datacontenttype": "text/xml"}, UnknownMediaType,
         "datacontenttype: 'text/xml' is not read here, application/json is"),
        ({"datacontenttype": "application/json; charset=latin1"}, UnknownMediaType,
         "datacontenttype: 'application/json; charset=latin1': charset latin1 is not read, utf-8 is"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_in_a_structured_event_is_named_as_its_sender_names_it(
    changes: dict[str, Any], error: type[BadRecord], reason: str
) -> None:
    with pytest.raises(BadRecord) as caught:
        unpack(Listen, b"u-5", structured(Listen, **changes), HEADERS, NOW)
    assert (type(caught.value), str(caught.value)) == (error, reason)


READ = "read are application/json with ce_ headers, and application/cloudevents+json"


@pytest.mark.parametrize(
    ("media", "reason"),
    [
        ("application/cloudevents-batch+json; charset=utf-8",
         "'application/cloudevents-batch+json; charset=utf-8': batches are not read, send each event by itself; "
         + READ),
        ("application/cloudevents+avro", "'application/cloudevents+avro' is not read; " + READ),
        ("application/cloudevents+protobuf", "'application/cloudevents+protobuf' is not read; " + READ),
        ("application/avro", "'application/avro' is not read; " + READ),
        ("text/plain", "'text/plain' is not read; " + READ),
        ("application/json; charset=utf-16",
         "'application/json; charset=utf-16': charset utf-16 is not read, utf-8 is"),
        ("application/json;" + "x" * 300, f"317 bytes, 256 allowed; {READ}"),
    ],
)  # fmt: skip
def test_a_batch_or_an_unknown_media_type_is_refused_and_told_what_is_read(media: str, reason: str) -> None:
    for value in (Listen.EXAMPLE.encode(), structured(Listen), b"[]"):
        with pytest.raises(UnknownMediaType) as caught:
            unpack(Listen, b"u-5", value, binary(Listen, media=media.encode()), NOW)
        assert str(caught.value) == f"content-type: {reason}"


@pytest.mark.parametrize("media", [None, b"", b"application/json", b"Application/JSON; charset=UTF-8", b"text/json"])
def test_json_under_any_of_its_names_is_read_in_binary_mode(media: bytes | None) -> None:
    assert unpack(Listen, b"u-5", Listen.EXAMPLE.encode(), binary(Listen, media=media), NOW).id == "1"


def test_a_structured_value_too_large_is_not_opened() -> None:
    value = structured(Listen).ljust(MAX_VALUE_BYTES + 1)
    with pytest.raises(TooLarge):
        unpack(Listen, b"u-5", value, HEADERS, NOW)


@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["specversion", "id", "source", "type", "time", "data", "data_base64", "datacontenttype"]),
        inner, max_size=8,
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_claims_to_be_structured_is_read_or_refused(value: bytes) -> None:
    found = unpack_many(Listen, [(b"u-5", value, HEADERS, (2, round(NOW * 1000)))], NOW)
    assert [at for at, _ in found.bad] == [0]


def test_a_batch_of_both_modes_reads_each_and_knows_both_sources() -> None:
    stamp = (2, round(NOW * 1000))
    twice = [
        (b"u-5", Listen.EXAMPLE.encode(), binary(Listen), stamp),
        (b"u-5", structured(Listen, source="there"), HEADERS, stamp),
        # Attributes stand in the value, whatever the headers say.
        (b"u-5", structured(Listen, source="there"), binary(Listen, media=STRUCTURED.encode()), stamp),
    ] * 2
    found = unpack_many(Listen, twice, NOW)
    assert (found.at, found.bad) == (list(range(6)), [])
    assert found.sources == {b"here", b"there"}
    # Who a header names sent nothing, where the value names another.
    assert unpack_many(Listen, twice[2:3] * 2, NOW).sources == {b"there"}
