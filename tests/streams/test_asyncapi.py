"""The contract with other teams is what the code does."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from streams.contract.asyncapi import VERSION
from streams.contract.cloudevents import pack, unpack
from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import BadRecord, InvalidField
from streams.contract.event_base import Event
from streams.contract.events import PUBLIC_EVENTS
from streams.contract.internal_events import INTERNAL_EVENTS
from streams.contract.released_contracts import FOLDER, as_text, released_versions, version_problem
from streams.contract.topics import DEAD_LETTERS, TOPICS
from streams.operations.published_contract import document

PUBLISHED = Path(__file__).parents[2] / "deploy" / "contract" / "asyncapi.yaml"
NOW = 1_800_000_000.0
DOCUMENT = document()


def resolve(reference: str) -> Any:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [node["$ref"]] if "$ref" in node else [each for value in node.values() for each in references(value)]
    return [each for value in node for each in references(value)] if isinstance(node, list | tuple) else []


def test_the_published_document_is_the_generated_one() -> None:
    text = PUBLISHED.read_text(encoding="utf-8")
    assert text == msgspec.yaml.encode(DOCUMENT).decode(), (
        "the contract changed: coldstart contract show > deploy/contract/asyncapi.yaml"
    )
    assert yaml.safe_load(text) == DOCUMENT


def test_the_version_of_the_contract_says_what_changed_since_the_last_one_that_was_released() -> None:
    """Fails when a change breaks somebody, or changes anything, and VERSION does not say so."""
    assert version_problem(DOCUMENT) is None
    if VERSION in released_versions():
        assert (FOLDER / f"{VERSION}.yaml").read_text(encoding="utf-8") == as_text(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    found = references(DOCUMENT)
    assert len(found) > 20
    for reference in found:
        resolve(reference)


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic.public], ids=lambda topic: topic.name)
def test_every_public_topic_has_a_message_and_an_operation(topic: Any) -> None:
    channel = DOCUMENT["channels"][topic.name]
    assert all(resolve(message["$ref"])["summary"] for message in channel["messages"].values())
    acted = [o for o in DOCUMENT["operations"].values() if o["channel"]["$ref"] == f"#/channels/{topic.name}"]
    assert len(acted) == 1


def test_what_is_internal_stays_out() -> None:
    internal = {topic.name for topic in TOPICS if not topic.public}
    assert internal
    assert not internal & DOCUMENT["channels"].keys()
    assert {cls.__name__ for cls in INTERNAL_EVENTS}.isdisjoint(DOCUMENT["components"]["messages"])


def test_what_we_send_and_receive() -> None:
    sent = {name.removeprefix("send-") for name, o in DOCUMENT["operations"].items() if o["action"] == "send"}
    assert sent == {"push-targets", "campaigns", "dead-letters"}


@pytest.mark.parametrize("cls", PUBLIC_EVENTS, ids=lambda cls: cls.__name__)
def test_every_example_is_a_record_that_is_accepted(cls: type[Event]) -> None:
    key = None
    for ce_type in cls.TYPES:
        headers = pack_headers(ce_type)
        if key is None:
            key = msg_key(cls)
        received = unpack(cls, key, cls.EXAMPLE.encode(), headers, NOW)
        assert received.type == ce_type
        record = pack(received.event, ce_type=ce_type, id="1", source="test", time=NOW)
        assert unpack(cls, record.key, record.value, record.headers, NOW).event == received.event


def pack_headers(ce_type: str) -> list[tuple[str, bytes]]:
    """As the document's header schema demands, written by hand."""
    return [
        ("ce_id", b"1"),
        ("ce_source", b"test"),
        ("ce_type", ce_type.encode()),
        ("ce_specversion", b"1.0"),
        ("ce_time", b"2026-03-01T10:00:00Z"),
    ]


def msg_key(cls: type[Event]) -> bytes:
    values = yaml.safe_load(cls.EXAMPLE)
    return " ".join(str(values[name]) for name in cls.KEY.split(", ")).encode()


def test_required_headers_are_those_the_reader_insists_on() -> None:
    (cls,) = (cls for cls in PUBLIC_EVENTS if cls.__name__ == "Listen")
    required = resolve("#/components/schemas/CloudEventHeaders")["required"]
    whole = pack_headers(cls.TYPES[0])
    assert sorted(required) == sorted(name for name, _ in whole)
    for name in required:
        with pytest.raises(InvalidField, match=name):
            unpack(cls, msg_key(cls), cls.EXAMPLE.encode(), [h for h in whole if h[0] != name], NOW)


@pytest.mark.parametrize("message", DOCUMENT["components"]["messages"].values(), ids=lambda each: each["name"])
def test_every_message_has_headers_and_whole_examples(message: Any) -> None:
    assert message["headers"]
    assert all({"name", "summary", "headers", "payload"} <= each.keys() for each in message["examples"])
    assert message["examples"]


def test_every_reason_for_a_refusal_has_an_example_of_itself() -> None:
    letters = DOCUMENT["components"]["messages"]["DeadLetter"]["examples"]
    told = {each["name"]: each["headers"]["dl_error"] for each in letters}
    assert told == {each.__name__: each.__name__ for each in BadRecord.__subclasses__()}


def test_the_bytes_of_a_vector_lie_as_the_layout_says() -> None:
    message = DOCUMENT["components"]["messages"]["AudienceVector"]
    layout = {each["field"]: int(each["offset"]) for each in message["payload"]["x-layout"]}
    value = bytes.fromhex(next(each["payload"] for each in message["examples"] if each["name"] == "float32"))
    at = {name: value[start : start + 4] for name, start in layout.items()}
    assert (at["magic"], at["version"][0], at["dtype"][0]) == (b"CSVE", 1, 1)
    assert int.from_bytes(at["dimension"][:2], "little") == 3
    assert value[layout["space"] : layout["vector"]].rstrip(b"\0") == b"acme-users-2"
    assert struct.unpack("<3f", value[layout["vector"] :]) == (0.5, -1.0, 0.25)


def test_no_text_is_indented_or_meant_for_another_tool() -> None:
    def texts(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (node[key] for key in ("description", "summary") if isinstance(node.get(key), str))
        for each in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
            yield from texts(each)

    found = [*texts(DOCUMENT)]
    assert len(found) > 100
    assert [text for text in found if "\n " in text or "``" in text or ":class:" in text] == []


def test_dead_letters_carry_the_headers_the_document_promises() -> None:
    letter = dead_letter(Origin("t", 0, 0, 0, None, None, []), "s", InvalidField("x"))
    promised = resolve("#/components/schemas/DeadLetterHeaders")
    assert [name for name, _ in letter.headers] == promised["required"]
    cut = dead_letter(Origin("t", 0, 0, 0, None, b"x" * DEAD_LETTERS.largest, []), "s", InvalidField("x"))
    assert [name for name, _ in cut.headers] == list(promised["properties"])
