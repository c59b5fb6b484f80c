"""Every example of the contract on the real broker: what others send, through the front door; what is sent, read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from confluent_kafka import Message
from installation import Installation

from streams.contract.cloudevents import Record, pack, unpack
from streams.contract.dead_letters import headers
from streams.contract.errors import OperatorSkipped, RefusedOutcome
from streams.contract.event_base import Event
from streams.contract.events import Campaign, PushOutcome, PushTarget
from streams.contract.examples import ExampleRecord
from streams.contract.json_schema import schema
from streams.contract.topics import (
    CAMPAIGNS,
    DEAD_LETTERS,
    PUSH_OUTCOMES,
    PUSH_TARGETS,
    SENT,
    SONG_UPLOADS,
    Topic,
)
from streams.kafka.partitioner import partition_of
from streams.operations.move_group import GroupMover
from streams.operations.published_contract import examples, former_upload
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up

PARTITIONS = 2
Text = dict[str, str]


def text_of(message: Message) -> Text:
    return {name: (value or b"").decode() for name, value in headers(message)}


def check(name: str, value: Any) -> None:
    jsonschema_rs.Draft202012Validator(schema(name), validate_formats=True).validate(value)


def record(example: ExampleRecord) -> Record:
    """As its producer sent it: without what a dead letter says beside it."""
    told = [(name, value or b"") for name, value in example.headers if not name.startswith("dl_")]
    return Record(example.key or b"", example.value, told)  # type: ignore[arg-type]


def letters(here: Installation) -> list[Text]:
    return [text_of(each) for each in here.read(DEAD_LETTERS)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


def installed(kafka: KafkaSettings, prefix: str, folder: Path, world: Path) -> Environment:
    reach = kafka
    stage = set_up(reach, prefix, folder, partitions=PARTITIONS, world=world)
    stage.start("songs", "songs")
    return stage


@pytest.fixture
def stage(kafka: KafkaSettings, prefix: str, tmp_path: Path, world: Path) -> Iterator[Environment]:
    stage = installed(kafka, prefix, tmp_path, world)
    yield stage
    stage.stop()


def test_every_example_of_what_others_send_is_accepted(stage: Environment) -> None:
    here = Installation(stage.kafka, stage.naming)
    stage.start("audience", "audience", "--slot", "0")
    stage.wait_until_ready()
    sent = [each for each in examples(stage.naming) if each.topic not in SENT]
    assert {each.message for each in sent} >= {"SongUpload", "SongTakedown", "StructuredListen", "AudienceVectorJson"}
    for each in sent:
        here.send(each.topic, record(each))
    stage.upload(stage.songs[:1])
    stage.wait_until_still()
    # No push has the id of the example: that one is refused for it, and accepted with the id of a push.
    (example,) = (each for each in examples(stage.naming) if each.name == RefusedOutcome.__name__)
    told = {name: (value or b"").decode() for name, value in example.headers}
    stage.wait_until(lambda: len(letters(here)) >= 2, lambda: f"refused: {letters(here)}")
    refused = letters(here)
    assert {each["dl_message"] for each in refused} == {told["dl_message"]}
    assert {each["dl_stage"] for each in refused} == {told["dl_stage"]}
    assert len(refused) == 2
    push = msgspec.json.decode(here.read(PUSH_TARGETS)[0].value(), type=PushTarget)
    outcome = msgspec.json.decode(PushOutcome.EXAMPLE, type=PushOutcome)
    mine = {"push_id": push.push_id, "user_id": push.user_id, "song_id": push.song_id, "at": push.not_before}
    outcome = msgspec.structs.replace(outcome, **mine)
    here.send(PUSH_OUTCOMES, pack(outcome, id="mine", source="example", time=SystemClock().now()))
    stage.wait_until_still()
    assert len(letters(here)) == 2
    # The last of them takes the song down that the first one uploaded.
    told = [msgspec.json.decode(each.value(), type=Campaign) for each in here.read(CAMPAIGNS) if each.value()]
    assert [each.end_reason for each in told if each.song_id == "s-81"][-1] == "taken-down"
    for topic, event in ((CAMPAIGNS, Campaign), (PUSH_TARGETS, PushTarget)):
        _fits(here, topic, event)


def test_every_example_of_a_refusal_is_refused_for_exactly_that_reason(stage: Environment) -> None:
    here = Installation(stage.kafka, stage.naming)
    stage.wait_until_ready()
    refused = {each.name: each for each in examples(stage.naming) if each.message == "DeadLetter"}
    # Sent in the other test, of an outcome.
    del refused[RefusedOutcome.__name__]
    skipped = refused.pop(OperatorSkipped.__name__)
    here.send(SONG_UPLOADS, record(former_upload()))
    partition = partition_of(skipped.key or b"", stage.naming.partitions(SONG_UPLOADS))
    stage.wait_until(lambda: here.committed("songs", SONG_UPLOADS, partition) > 0, lambda: "not served")
    for each in refused.values():
        told = dict(each.headers)
        wrong = int(told["dl_partition"] or b"") if each.name == "WrongPartition" else -1
        here.send(SONG_UPLOADS, record(each), wrong)
    stage.wait_until(lambda: len(letters(here)) >= len(refused), lambda: f"refused: {letters(here)}")
    stage.stop()

    here.send(SONG_UPLOADS, record(skipped))
    mover = GroupMover(stage.kafka, stage.naming, SystemClock(), "songs")
    mover.make([mover.plan_skip(SONG_UPLOADS.name, partition, 1)], 60)

    found = {each["dl_error"]: each for each in letters(here)}
    assert found.keys() == {*refused, skipped.name}
    for name, example in {**refused, skipped.name: skipped}.items():
        told = {header: (value or b"").decode() for header, value in example.headers}
        check("DeadLetterHeaders", found[name])
        assert found[name].keys() == told.keys()
        assert found[name]["dl_stage"] == told["dl_stage"]
        # Only the clock and the log are other ones.
        differs = r"\d+ s ahead|offset \d+" if name in ("FromTheFuture", skipped.name) else "$^"
        assert re.sub(differs, "", found[name]["dl_message"]) == re.sub(differs, "", told["dl_message"])
    values = {dict(headers(each))["dl_error"]: each.value() for each in here.read(DEAD_LETTERS)}
    assert all(values[name.encode()] == example.value for name, example in refused.items())


def _fits(here: Installation, topic: Topic, event: type[Event]) -> None:
    """What is on a topic is what the contract says."""
    found = [each for each in here.read(topic) if each.value()]
    assert found
    for each in found:
        check(event.__name__, msgspec.json.decode(each.value() or b""))
        check("CloudEventHeaders", text_of(each))
        assert unpack(event, each.key(), each.value(), headers(each), SystemClock().now()).event


def test_every_example_of_what_is_sent_is_read(here: Installation) -> None:
    sent = [each for each in examples(here.naming) if each.topic in SENT]
    for each in sent:
        here.send(each.topic, Record(each.key or b"", each.value or b"", [(n, v or b"") for n, v in each.headers]))
    _fits(here, CAMPAIGNS, Campaign)
    _fits(here, PUSH_TARGETS, PushTarget)
    dead = [each for each in sent if each.topic is DEAD_LETTERS]
    found = here.read(DEAD_LETTERS)
    assert [(each.value(), headers(each)) for each in found] == [(each.value, each.headers) for each in dead]
    for each in found:
        check("DeadLetterHeaders", text_of(each))
