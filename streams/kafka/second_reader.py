"""Reads a batch that librdkafka cannot.

librdkafka reads no zstd batch that unpacks beyond a bound, and repeats that error forever. Another client reads that
one batch, within a bound of its own. This is rare, so each read may open its own connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Message

from streams.contract.errors import MustRestart
from streams.runtime.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class RecoveredBatch:
    """Its records, and the offset after it."""

    records: list[Message]
    next_offset: int


def read_batch(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> RecoveredBatch:
    """The batch that holds an offset, from there on; empty if it was aborted.

    Raises:
        MustRestart: nothing came for the request timeout.
    """
    # The calling thread may run an event loop one day; this one is private.
    return asyncio.run(_read(kafka, topic, partition, offset))


async def _read(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> RecoveredBatch:
    # Only the songs role has these loaded.
    from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]
    from aiokafka.errors import KafkaError  # type: ignore[import-untyped]

    from streams.kafka.batches import kept, read_leniently

    read_leniently()
    place = TopicPartition(topic, partition)
    client: Any = AIOKafkaConsumer(
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        # The broker gives the first batch whole, however small the limit.
        fetch_max_bytes=1,
        max_partition_fetch_bytes=1,
        key_deserializer=kept,
        value_deserializer=kept,
        **kafka.aiokafka(),
    )
    try:
        async with asyncio.timeout(kafka.request_timeout_s):
            await client.start()
            client.assign([place])
            client.seek(place, offset)
            while True:
                found = (await client.getmany(place, timeout_ms=100)).get(place, [])
                if (after := await client.position(place)) > offset:
                    return RecoveredBatch([_message(each) for each in found], after)
    except (KafkaError, TimeoutError) as error:
        raise MustRestart(f"{topic}[{partition}]: the batch at offset {offset} does not come: {error!r}") from error
    finally:
        await client.stop()


def _message(record: Any) -> Message:
    # aiokafka numbers the kinds of timestamps from 0.
    stamp = (record.timestamp_type + 1, record.timestamp)
    return Message(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
        timestamp=stamp,
    )
