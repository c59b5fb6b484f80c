"""Ids of the input topics, kept with the song records, and what retention took before it was read.

This role's offsets exist only in its group and say nothing about a later topic of the same name. So each partition of
``songs-ledger`` holds the ids of the topics that its songs came from. Nothing is served without the ledger, so nothing
is served before this check.
"""

from __future__ import annotations

from typing import Final

import structlog
from confluent_kafka import KafkaException, TopicPartition

from streams.contract.errors import RecreatedTopic, Unavailable
from streams.contract.topics import CAMPAIGN_REPORTS, SONG_UPLOADS, SONGS_LEDGER, Naming, Topic
from streams.kafka.clients import admin, consumer, enqueue, producer, watermarks
from streams.kafka.topic_identity import topic_ids
from streams.runtime.metrics import SongsMetrics
from streams.runtime.settings import KafkaSettings
from streams.songs.song_store import Entries

INPUTS: Final = (SONG_UPLOADS, CAMPAIGN_REPORTS)

_ID: Final = b"\xff"

_log = structlog.get_logger(__name__)


def id_key(topic: Topic) -> bytes:
    """Key of a topic's id among the song records: no song's, because it is not UTF-8."""
    return _ID + topic.name.encode()


def is_id(key: bytes) -> bool:
    """Whether an entry of `songs-ledger` is such an id, and no song."""
    return key.startswith(_ID)


def group_of(naming: Naming) -> str:
    """The role's consumer group."""
    return f"{naming.prefix}songs"


class InputTopics:
    """Checks a partition of the song records when it is opened, and takes the ids out of its entries."""

    def __init__(self, kafka: KafkaSettings, naming: Naming, metrics: SongsMetrics) -> None:
        self._kafka = kafka
        self._naming = naming
        self._metrics = metrics

    def __call__(self, partition: int, entries: Entries) -> None:
        """Compare the ids, write those that are not known yet, and report records that are gone.

        Raises:
            RecreatedTopic: an input is not the topic that its songs came from.
            Unavailable: the broker does not answer.
        """
        names = {topic: self._naming.name(topic) for topic in INPUTS}
        now = topic_ids(admin(self._kafka), list(names.values()), self._kafka.request_timeout_s)
        offsets = self._offsets(partition)
        missing: dict[bytes, bytes] = {}
        for topic, name in names.items():
            former = entries.pop(id_key(topic), None)
            if former is None:
                missing[id_key(topic)] = now[name].encode()
            elif former.decode() != now[name]:
                raise RecreatedTopic(topic.name, partition, offsets[name][0], former.decode(), now[name])
            self._report_gap(name, partition, *offsets[name])
        if missing:
            write_ids(self._kafka, self._naming, missing, [partition])

    def _offsets(self, partition: int) -> dict[str, tuple[int | None, int, int]]:
        """Topic -> committed offset, first offset that is kept, and the end."""
        timeout, found = self._kafka.request_timeout_s, {}
        reader = consumer(self._kafka, group_of(self._naming), isolation_level="read_uncommitted")
        places = [TopicPartition(self._naming.name(topic), partition) for topic in INPUTS]
        try:
            for place in reader.committed(places, timeout=timeout):
                at = place.offset if place.offset >= 0 else None
                found[place.topic] = (at, *watermarks(reader, place, timeout))
        except KafkaException as error:
            raise Unavailable(f"offsets of {group_of(self._naming)}: {error.args[0].str()}") from error
        finally:
            reader.close()
        return found

    def _report_gap(self, name: str, partition: int, at: int | None, low: int, end: int) -> None:
        if at is None or low <= at <= end:
            return
        lost = low - at if at < low else at - end
        why = f"retention passed: read up to {at}, kept from {low}" if at < low else f"read up to {at}, ends at {end}"
        self._metrics.records_lost.labels(name).inc(lost)
        _log.error("records lost", topic=name, partition=partition, lost=lost, why=why)


def write_ids(kafka: KafkaSettings, naming: Naming, ids: dict[bytes, bytes], partitions: list[int]) -> None:
    """Write ids into partitions of `songs-ledger`, acknowledged.

    Raises:
        Unavailable: the broker does not acknowledge them.
    """
    sender = producer(kafka)
    for partition in partitions:
        for key, value in ids.items():
            enqueue(sender, naming.name(SONGS_LEDGER), value=value, key=key, partition=partition)
    if sender.flush(kafka.request_timeout_s):
        raise Unavailable(f"{naming.name(SONGS_LEDGER)}: ids of the input topics were not acknowledged")
