"""The contract's document for one installation: its topics' names, partitions and servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from streams.contract import asyncapi
from streams.contract.cloudevents import ReceivedEvent, unpack
from streams.contract.errors import BadRecord, OperatorSkipped, RefusedOutcome
from streams.contract.events import PushOutcome, SongUpload
from streams.contract.examples import APPENDED, ExampleRecord, example_records, refusal, upload, whole_record
from streams.contract.topics import PUSH_OUTCOMES, SONG_UPLOADS, Naming
from streams.kafka.partitioner import check_partition, partition_of
from streams.runtime.settings import KafkaSettings, TopicSettings
from streams.songs.song_record import entry, novelty
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition
from targeting.types import Mark, Outcomes, PartitionInputs


def document(topics: TopicSettings | None = None, kafka: KafkaSettings | None = None) -> dict[str, Any]:
    """The document as plain data; without settings, of their defaults, as it is kept in the repository."""
    topics, kafka = topics or TopicSettings(), kafka or KafkaSettings()
    naming = topics.naming()
    return asyncapi.asyncapi(
        naming, kafka.bootstrap_servers, kafka.security_protocol, topics.replication_factor, examples(naming)
    )


def examples(naming: Naming) -> list[ExampleRecord]:
    """Every example of the document, as a record."""
    return [*example_records(naming.prefix), *_refused_later(naming), *_refused_outcome(naming)]


def former_upload() -> ExampleRecord:
    """What was uploaded under the same revision before the example of an outdated one."""
    key, headers, _, received = upload()
    value = msgspec.json.encode(_other(received).event)
    again = [(name, b"uploaded-0" if name == "ce_id" else text) for name, text in headers]
    return ExampleRecord("SongUpload", "former", "other content", SONG_UPLOADS, key, again, value)


def _refused_later(naming: Naming) -> Iterator[ExampleRecord]:
    """Examples of what only the songs role can refuse: it knows the partitions, and what it served before."""
    key, headers, value, received = upload()
    right = partition_of(key, naming.songs_partitions)
    wrong = (right + 1) % naming.songs_partitions
    try:
        check_partition(key, wrong, naming.songs_partitions)
    except BadRecord as error:
        yield refusal(naming.prefix, "in another partition than its key's", wrong, (key, headers, value), error)
    known = entry(_other(received), APPENDED, APPENDED, offset=0)
    try:
        novelty(received, known, 1)
    except BadRecord as error:
        yield refusal(
            naming.prefix, "other content under a revision served before", right, (key, headers, value), error
        )
    skipped = OperatorSkipped.at(41, "songs")
    summary = "a good record that an operator had the group pass over"
    yield refusal(naming.prefix, summary, right, (key, headers, value), skipped, "operator.skip")


def _refused_outcome(naming: Naming) -> Iterator[ExampleRecord]:
    """What a partition refuses that never pushed anything."""
    (ce_type,) = PushOutcome.TYPES
    key, headers, value = whole_record(PushOutcome, ce_type)
    event = unpack(PushOutcome, key, value, headers, APPENDED).event
    told = Outcomes(
        [event.user_id], [event.song_id], np.array([Mark.OPENED], np.uint16), np.array([event.at.timestamp()]),
        [event.push_id],
    )  # fmt: skip
    staged = Partition(0, 1, Catalogue()).stage(PartitionInputs(APPENDED, outcomes=told))
    for _, why in staged.outputs.refused:
        yield refusal(
            naming.prefix,
            "an outcome of no push",
            partition_of(key, naming.audience_partitions),
            (key, headers, value),
            RefusedOutcome(why),
            "audience.outcomes",
            PUSH_OUTCOMES,
        )


def _other(received: ReceivedEvent[SongUpload]) -> ReceivedEvent[SongUpload]:
    event = received.event
    former = SongUpload(
        song_id=event.song_id, revision=event.revision, title="Small Hours (Demo)", genres=["dream pop"]
    )
    return ReceivedEvent(former, received.source, "uploaded-0", received.type, received.time)
