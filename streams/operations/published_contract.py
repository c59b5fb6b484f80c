"""The contract's document for one installation: its topics' names, partitions and servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streams.contract import asyncapi
from streams.contract.cloudevents import ReceivedEvent
from streams.contract.errors import BadRecord, OperatorSkipped
from streams.contract.events import SongUpload
from streams.contract.examples import APPENDED, ExampleRecord, refusal, upload
from streams.contract.topics import Naming
from streams.kafka.partitioner import check_partition, partition_of
from streams.runtime.settings import KafkaSettings, TopicSettings
from streams.songs.song_record import entry, novelty


def document(topics: TopicSettings | None = None, kafka: KafkaSettings | None = None) -> dict[str, Any]:
    """The document as plain data; without settings, of their defaults, as it is kept in the repository."""
    topics, kafka = topics or TopicSettings(), kafka or KafkaSettings()
    naming = topics.naming()
    return asyncapi.asyncapi(
        naming, kafka.bootstrap_servers, kafka.security_protocol, topics.replication_factor, [*_refused_later(naming)]
    )


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


def _other(received: ReceivedEvent[SongUpload]) -> ReceivedEvent[SongUpload]:
    event = received.event
    former = SongUpload(
        song_id=event.song_id, revision=event.revision, title="Small Hours (Demo)", genres=["dream pop"]
    )
    return ReceivedEvent(former, received.source, "uploaded-0", received.type, received.time)
