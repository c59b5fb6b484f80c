"""The songs role's inputs: the same topics as before, or refused by name; and what retention took."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import TopicPartition
from installation import PATIENCE_S, Installation, recreate
from prometheus_client import CollectorRegistry

from streams.contract.cloudevents import Record
from streams.contract.errors import RecreatedTopic
from streams.contract.topics import SONG_UPLOADS, SONGS_LEDGER
from streams.kafka.clients import admin, consumer
from streams.operations.adopt_topic import adopt
from streams.runtime.clock import SystemClock
from streams.runtime.metrics import SongsMetrics
from streams.songs.input_topics import InputTopics
from streams.songs.song_store import CompactedCache, Entries

CLOCK = SystemClock()


class Ledger:
    """The ledger as the role opens it, with one song in partition 0."""

    def __init__(self, here: Installation) -> None:
        self._here = here
        self.registry = CollectorRegistry()
        self.metrics = SongsMetrics(self.registry)
        here.send(SONGS_LEDGER, Record(b"song", b"entry", []), 0)

    def open(self, partition: int = 0) -> Entries:
        inputs = InputTopics(self._here.kafka, self._here.naming, self.metrics)
        kept = CompactedCache(
            self._here.kafka, self._here.naming.name(SONGS_LEDGER), CLOCK, lambda *_: None, opened=inputs
        )
        return asyncio.run(kept.partition(partition))


@pytest.fixture
def ledger(here: Installation) -> Ledger:
    return Ledger(here)


def test_uploads_deleted_and_created_anew_are_refused_by_name_until_adopted(here: Installation, ledger: Ledger) -> None:
    assert ledger.open() == ledger.open() == {b"song": b"entry"}
    assert ledger.open(1) == {}
    recreate(here, SONG_UPLOADS)
    # Offsets that were set by hand say nothing of it.
    _commit(here, 7)
    for partition in (0, 1):
        with pytest.raises(RecreatedTopic, match="coldstart topics adopt song-uploads"):
            ledger.open(partition)
    adopt(here.kafka, here.naming, "song-uploads", CLOCK, PATIENCE_S)
    assert ledger.open() == {b"song": b"entry"}
    assert here.committed("songs", SONG_UPLOADS, 0) == 0


def test_uploads_that_retention_took_before_they_were_read_are_told(here: Installation, ledger: Ledger) -> None:
    here.send_all(SONG_UPLOADS, [Record(b"k", b"v", [])] * 5, 0)
    _commit(here, 1)
    name = here.naming.name(SONG_UPLOADS)
    client = admin(here.kafka)
    for future in client.delete_records([TopicPartition(name, 0, 4)]).values():
        future.result(PATIENCE_S)
    ledger.open()
    assert ledger.registry.get_sample_value("coldstart_records_lost_total", {"topic": name}) == 3


def _commit(here: Installation, offset: int) -> None:
    reader = consumer(here.kafka, f"{here.naming.prefix}songs")
    reader.commit(offsets=[TopicPartition(here.naming.name(SONG_UPLOADS), 0, offset)], asynchronous=False)
    reader.close()
