"""An installation of its own for one test: the declared topics under a prefix, and what is in them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import msgspec
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy  # type: ignore[import-untyped]
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from streams.contract.cloudevents import Record
from streams.contract.events import SongUpload
from streams.contract.topics import READ_COMPRESSIONS, Naming, Topic
from streams.kafka.clients import admin, consumer
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.topic_admin import create_topics
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings

PATIENCE_S = 60.0

PRODUCERS: Final[dict[str, dict[str, str | int | bool]]] = {
    **{codec: {"compression.type": codec} for codec in READ_COMPRESSIONS},
    "idempotent": {"enable.idempotence": True},
    "transactional": {"compression.type": "gzip"},
}
"""The kinds of producers that are read, with librdkafka's settings."""


@dataclass(frozen=True)
class Installation:
    """All declared topics under a prefix: two audience partitions, two of songs."""

    kafka: KafkaSettings
    naming: Naming

    def send(self, topic: Topic, record: Record, partition: int = -1, compression: str = "lz4") -> None:
        """One record, acknowledged."""
        self.send_all(topic, [record], partition, compression)

    def send_all(self, topic: Topic, records: list[Record], partition: int = -1, compression: str = "lz4") -> None:
        # Not our own producer: an idempotent one asks for its number for half a second, and ours send nothing larger
        # than topics take, however it compresses.
        more = {"partitioner": "murmur2_random", "compression.type": compression, "message.max.bytes": 100_000_000}
        sender = Producer(self.kafka.confluent() | more)
        for each in records:
            sender.produce(
                self.naming.name(topic),
                key=each.key,
                value=each.value,
                headers=list(each.headers),
                partition=partition,
            )
        assert sender.flush(PATIENCE_S) == 0

    def send_as(self, kind: str, topic: Topic, records: list[Record]) -> None:
        """By one of :data:`PRODUCERS`; in a transaction, where it knows them."""
        transactional = {"transactional.id": f"{self.naming.prefix}{kind}"} if kind == "transactional" else {}
        # A batch is sent as it is where a codec makes it no smaller: these records wait for each other.
        more = {"partitioner": "murmur2_random", "linger.ms": 100} | PRODUCERS[kind] | transactional
        sender = Producer(self.kafka.confluent() | more)
        if transactional:
            sender.init_transactions(PATIENCE_S)
            sender.begin_transaction()
        for each in records:
            sender.produce(self.naming.name(topic), each.value, each.key, headers=list(each.headers))
        assert sender.flush(PATIENCE_S) == 0
        if transactional:
            sender.commit_transaction(PATIENCE_S)

    def send_with_bad_header_name(self, topic: Topic, record: Record, partition: int, compression: str) -> None:
        """One record with one header more, whose name is the byte 0xFF: no client lets its user do it by itself."""

        class Name(str):
            def encode(self, *_: Any) -> bytes:  # type: ignore[override]
                return b"\xff"

        async def send() -> None:
            headers = [*record.headers, (Name("-"), b"")]
            client = AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers, compression_type=compression)
            async with client:
                name = self.naming.name(topic)
                await client.send_and_wait(name, record.value, record.key, partition=partition, headers=headers)

        # The other one is C, and takes nothing but a plain str.
        with (
            mock.patch("aiokafka.producer.producer.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy),
            mock.patch("aiokafka.producer.message_accumulator.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy),
        ):
            asyncio.run(send())

    def read(self, topic: Topic, partition: int | None = None) -> list[Message]:
        """What a read_committed reader sees now."""
        snapshot = Snapshot(self.kafka, [self.naming.name(topic)], SystemClock(), partition)
        try:
            return list(snapshot.read_to_end())
        finally:
            snapshot.close()

    def end(self, topic: Topic, partition: int) -> int:
        """Behind the last record, whoever may see it."""
        reader: Consumer = consumer(self.kafka, f"{self.naming.prefix}ends")
        try:
            return int(reader.get_watermark_offsets(TopicPartition(self.naming.name(topic), partition), PATIENCE_S)[1])
        finally:
            reader.close()

    def committed(self, group: str, topic: Topic, partition: int) -> int:
        """The group's offset; negative when there is none."""
        reader: Consumer = consumer(self.kafka, f"{self.naming.prefix}{group}")
        try:
            (found,) = reader.committed([TopicPartition(self.naming.name(topic), partition)], timeout=PATIENCE_S)
        finally:
            reader.close()
        return int(found.offset)


def copies(songs: Sequence[SongUpload], count: int) -> list[SongUpload]:
    """As many uploads as asked for, with ids of their own and the contents of ``songs`` in turn."""
    return [msgspec.structs.replace(songs[n % len(songs)], song_id=f"new-{n}") for n in range(count)]


def recreate(here: Installation, topic: Topic) -> None:
    """Delete a topic and create it anew."""
    clock, client, name = SystemClock(), admin(here.kafka), here.naming.name(topic)
    client.delete_topics([name])[name].result(PATIENCE_S)
    deadline = clock.monotonic() + PATIENCE_S
    while name not in create_topics(client, here.naming, 1):
        assert clock.monotonic() < deadline
