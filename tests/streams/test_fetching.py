"""What a consumer of the audience role makes of a batch that its client cannot read."""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streams.audience.fetching import readable
from streams.kafka.second_reader import RecoveredBatch


def told(code: int | None, offset: int) -> Message:
    error = None if code is None else KafkaError(code)
    return Message(topic="t", partition=0, offset=offset, value=b"v", error=error)


def test_a_batch_that_the_client_cannot_read_is_read_once_from_where_reading_began() -> None:
    sought: list[TopicPartition] = []

    class Seeking:
        def seek(self, place: TopicPartition) -> None:
            sought.append(place)

    asked = []

    def read_batch(topic: str, partition: int, offset: int) -> RecoveredBatch:
        asked.append((topic, partition, offset))
        return RecoveredBatch([told(None, 5), told(None, 6)], 7)

    bad = KafkaError._BAD_COMPRESSION
    reader: Consumer = Seeking()  # type: ignore[assignment]
    messages = [told(None, 2), told(bad, 3), told(bad, 3), told(KafkaError._PARTITION_EOF, 9)]
    found = readable(reader, messages, {("t", 0): 5}, read_batch)
    assert [message.offset() for message in found] == [2, 5, 6, 9]
    assert asked == [("t", 0, 5)]
    assert [(place.topic, place.partition, place.offset) for place in sought] == [("t", 0, 7)]
