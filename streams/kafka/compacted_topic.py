"""Follows a compacted topic: what it says now, and from now on.

Kafka's consumer groups share partitions out; a cache needs all of them. So the partitions are assigned by
hand, read from the beginning to the end observed at the start, and followed from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from streams.contract.errors import Unavailable
from streams.kafka.access import missing_topics, unreadable
from streams.kafka.clients import consumer, reader_group, taken, watermarks
from streams.kafka.clients import topics as topics_of
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

Progress = Callable[[int, int], None]


class Snapshot:
    """All partitions of some topics, or one of them, from the beginning.

    Args:
        topics: full names; each must exist.
        partition: the only one to read; None reads all.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
        Refused: this client may not see a topic.
    """

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str], clock: Clock, partition: int | None = None) -> None:
        self._kafka, self._clock = kafka, clock
        self._timeout = kafka.request_timeout_s
        self._consumer: Consumer = consumer(kafka, reader_group(topics[0]), enable_partition_eof=True)
        known = topics_of(self._consumer, kafka)
        missing = [topic for topic in topics if topic not in known]
        if missing:
            raise missing_topics(kafka, missing)
        self._partitions = [
            TopicPartition(t, p, OFFSET_BEGINNING)
            for t in topics
            for p in (known[t].partitions if partition is None else [partition])
        ]
        self._consumer.assign(self._partitions)
        self._positions: dict[tuple[str, int], int] = {}

    def read_to_end(self, progress: Progress | None = None) -> Iterator[Message]:
        """Every record that was not read yet, up to the end of each partition as it is when the reading begins.

        Args:
            progress: called with (offsets read, offsets in all).

        Raises:
            Unavailable: the broker does not answer, or nothing came for the request timeout although the end is not
                reached.
            Refused: this client may not read a topic.
        """
        ends = {
            each: marks
            for each, marks in self._watermarks(self._partitions).items()
            if marks[1] > max(marks[0], self._positions.get(each, 0))
        }
        total = sum(high - low for low, high in ends.values())
        read = dict.fromkeys(ends, 0)
        patience = self._clock.monotonic() + self._timeout
        while ends:
            for message in taken(self._consumer, 1000, 0.1):
                patience = self._clock.monotonic() + self._timeout
                key = (message.topic() or "", message.partition() or 0)
                error = message.error()
                position = self._note(message)
                if error is None:
                    yield message
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise unreadable(self._kafka, *key, error)
                if key in ends:
                    # The beginning may have been deleted: offsets count from there.
                    read[key] = position - ends[key][0]
                    if position >= ends[key][1]:
                        del ends[key]
            if progress:
                progress(sum(read.values()), total)
            if self._clock.monotonic() > patience:
                waiting = ", ".join(f"{topic}[{partition}]" for topic, partition in ends)
                raise Unavailable(f"{waiting}: no record for {self._timeout} s and the end is not reached")

    def poll(self, timeout: float, limit: int = 1000) -> list[Message]:
        """What has come since, at most ``limit`` records; waits ``timeout`` seconds for the first."""
        found = taken(self._consumer, limit, timeout)
        for message in found:
            self._note(message)
        return [message for message in found if message.error() is None]

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> its end now, of the partitions of one topic that hold anything.

        Raises:
            Unavailable: the broker does not answer.
        """
        parts = [part for part in self._partitions if part.topic == topic]
        return {partition: high for (_, partition), (low, high) in self._watermarks(parts).items() if high > low}

    def reached(self, topic: str, ends: Mapping[int, int]) -> bool:
        """Whether every record before these ends has been read."""
        return all(self._positions.get((topic, partition), 0) >= end for partition, end in ends.items())

    def close(self) -> None:
        self._consumer.close()

    def _watermarks(self, partitions: Sequence[TopicPartition]) -> dict[tuple[str, int], tuple[int, int]]:
        return {(part.topic, part.partition): watermarks(self._consumer, part, self._timeout) for part in partitions}

    def _note(self, message: Message) -> int:
        # Control records and compacted ones have offsets but are never delivered: only the end-of-partition event
        # tells that the position went past them.
        position = (message.offset() or 0) + (0 if message.error() else 1)
        self._positions[message.topic() or "", message.partition() or 0] = position
        return position
