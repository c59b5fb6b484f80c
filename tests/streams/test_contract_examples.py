"""Examples of what this system sends, on the real broker: read as the contract says."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec
import pytest
from confluent_kafka import Message
from installation import Installation

from streams.contract.cloudevents import Record, unpack
from streams.contract.dead_letters import headers
from streams.contract.event_base import Event
from streams.contract.events import Campaign, PushTarget
from streams.contract.json_schema import schema
from streams.contract.topics import DEAD_LETTERS, SENT
from streams.operations.published_contract import examples
from streams.runtime.clock import SystemClock


def check(name: str, value: Any) -> None:
    jsonschema_rs.Draft202012Validator(schema(name), validate_formats=True).validate(value)


def text_of(message: Message) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in headers(message)}


@pytest.fixture
def sent(here: Installation) -> Installation:
    for each in examples(here.naming):
        if each.topic in SENT:
            told = [(name, value or b"") for name, value in each.headers]
            here.send(each.topic, Record(each.key or b"", each.value or b"", told))
    return here


@pytest.mark.parametrize("event", [Campaign, PushTarget])
def test_an_event_is_read_and_fits_its_schema(sent: Installation, event: type[Event]) -> None:
    (found,) = sent.read(event.TOPIC)
    check(event.__name__, msgspec.json.decode(found.value() or b""))
    check("CloudEventHeaders", text_of(found))
    assert unpack(event, found.key(), found.value(), headers(found), SystemClock().now()).type in event.TYPES


def test_dead_letters_are_read_byte_for_byte(sent: Installation) -> None:
    dead = [each for each in examples(sent.naming) if each.topic is DEAD_LETTERS]
    found = sent.read(DEAD_LETTERS)
    assert [(each.value(), headers(each)) for each in found] == [(each.value, each.headers) for each in dead]
    for each in found:
        check("DeadLetterHeaders", text_of(each))
