"""Says whether a record would be refused if it came now: by the broker, or by the role whose own code reads it here.

What depends on more than the record and the live model is left to the roles: whether a song's revision is outdated,
whether there was such a push. Such a record is refused again, under the same id.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import Message

from streams.audience.decode import Decoder, Records, SpaceInUse
from streams.audience.deduplication import Deduplication
from streams.audience.positions import TOPIC_OF
from streams.contract.cloudevents import unpack
from streams.contract.dead_letters import headers
from streams.contract.errors import BadRecord, FromTheFuture
from streams.contract.event_time import LOG_APPEND_TIME, MAX_AHEAD_SECONDS
from streams.contract.events import SongUpload
from streams.contract.topics import (
    AUDIENCE_VECTORS,
    CAMPAIGN_REPORTS,
    MATCH_REQUESTS,
    MODELS,
    SONG_UPLOADS,
    Naming,
    Topic,
)
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.partitioner import partition_of
from streams.models.registry import ENCODER, read_model
from streams.operations.buried_records import BuriedRecord
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings
from streams.songs.campaign_view import read_report

_INPUT_OF: Final = {topic: name for name, topic in TOPIC_OF.items()}

INPUTS: Final = (SONG_UPLOADS, CAMPAIGN_REPORTS, *_INPUT_OF)
"""What the roles read, and so what a record can come in by."""

CREATE_TIME: Final = 1
"""The kind of timestamp that a producer gives; a vector's says when it was made."""

# Between our roles the sender chooses the partition, not the key.
PLACED: Final = (MATCH_REQUESTS, CAMPAIGN_REPORTS)


def refusal(topic: Topic, letter: BuriedRecord, naming: Naming, space: SpaceInUse | None, now: float) -> str:
    """Why a letter's record would be refused if it came now; empty: nothing is against it.

    Args:
        topic: one of :data:`INPUTS`.
        space: of the live model; None: there is none, and vectors of any space are read.
    """
    try:
        if topic is SONG_UPLOADS:
            unpack(SongUpload, letter.key, letter.value, letter.headers, now)
        elif topic is CAMPAIGN_REPORTS:
            read_report(letter.key, letter.value, letter.headers, now, naming.audience_partitions)
        else:
            return _of_audience(topic, letter, naming, space or SpaceInUse("", 0), now)
    except BadRecord as error:
        return str(error)
    return ""


def live_space(kafka: KafkaSettings, naming: Naming, clock: Clock) -> SpaceInUse | None:
    """The space of the live model; None: there is no model, or none that can be read.

    Raises:
        Unavailable: the broker does not answer.
    """
    found: SpaceInUse | None = None
    snapshot = Snapshot(kafka, [naming.name(MODELS)], clock)
    try:
        for message in snapshot.read_to_end():
            if message.key() == ENCODER.encode():
                try:
                    model = read_model(message.key(), message.value(), headers(message))
                except BadRecord:
                    continue
                found = SpaceInUse(model.space, model.dim)
    finally:
        snapshot.close()
    return found


def _of_audience(topic: Topic, letter: BuriedRecord, naming: Naming, space: SpaceInUse, now: float) -> str:
    ahead = letter.timestamp_ms / 1000 - now
    if topic is AUDIENCE_VECTORS and ahead > MAX_AHEAD_SECONDS:
        # The broker's word, which would end the whole replay.
        raise FromTheFuture(f"timestamp: {ahead:.0f} s ahead of the clock, {MAX_AHEAD_SECONDS:g} allowed")
    stamp = (CREATE_TIME, letter.timestamp_ms) if topic is AUDIENCE_VECTORS else (LOG_APPEND_TIME, int(now * 1000))
    partitions = naming.audience_partitions
    place = letter.partition if topic in PLACED else partition_of(letter.key or b"", partitions)
    message = Message(
        topic=letter.topic, partition=place, offset=0, key=letter.key, value=letter.value,
        headers=list(letter.headers), timestamp=stamp,
    )  # fmt: skip
    records = Records(**{_INPUT_OF[topic]: [message]})
    bad = Decoder(now, lambda _: False, partitions).decode(records, space, Deduplication(0)).bad
    return next(((dict(each.headers)["dl_message"] or b"").decode() for each, _, _ in bad), "")
