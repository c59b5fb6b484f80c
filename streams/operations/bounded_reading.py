"""Reads places of several topics until their ends or until the time is over, and says what was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, Message, TopicPartition

from streams.contract.errors import Unavailable
from streams.contract.topics import Naming, Topic
from streams.kafka.clients import consumer, reader_group, taken, watermarks
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class ReadFrom:
    """A partition of a topic, from a moment (Unix seconds), or else its beginning."""

    topic: Topic
    partition: int
    since: float | None = None


class BoundedReader:
    """One client for everything that is read: connecting costs more than reading.

    Args:
        seconds: from now on; what is not read by then is left, and listed in :attr:`left`.

    Attributes:
        left: full name of a topic -> how many offsets were not looked at.
    """

    def __init__(self, kafka: KafkaSettings, naming: Naming, clock: Clock, seconds: float) -> None:
        self._naming = naming
        self._clock = clock
        self._timeout = kafka.request_timeout_s
        self._deadline = clock.monotonic() + seconds
        self._reader = consumer(kafka, reader_group(naming.prefix + "explain"), enable_partition_eof=True)
        self.left: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, places: list[ReadFrom], wanted: Callable[[Message], bool]) -> Iterator[tuple[Topic, Message]]:
        """The wanted records of these places up to their ends; stops early when the time is over.

        Raises:
            Unavailable: the broker does not answer, or a topic is missing.
        """
        if not places:
            return
        topics = {self._naming.name(place.topic): place.topic for place in places}
        waiting = {(each.topic, each.partition): each.offset for each in self._starts(places)}
        self._reader.assign([TopicPartition(topic, p, offset) for (topic, p), offset in waiting.items()])
        while waiting and self._clock.monotonic() < self._deadline:
            for message in taken(self._reader, 10_000, 0.02):
                at = message.topic() or "", message.partition() or 0
                error = message.error()
                if error is None:
                    if at in waiting:
                        waiting[at] = (message.offset() or 0) + 1
                    if wanted(message):
                        yield topics[at[0]], message
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.pop(at, None)
                else:
                    raise Unavailable(f"{at[0]}[{at[1]}]: {error.str()}")
        for (topic, p), offset in waiting.items():
            low, high = watermarks(self._reader, TopicPartition(topic, p), self._timeout)
            if (more := high - max(low, offset)) > 0:
                self.left[topic] = self.left.get(topic, 0) + more

    def _starts(self, places: list[ReadFrom]) -> list[TopicPartition]:
        """Where reading begins; partitions that hold nothing as young are left out.

        All are asked for by time, the beginning as time 0: by this the client learns the leaders. Assigned to a
        partition whose leader it does not know, it waits for up to a second.
        """
        wanted = [
            TopicPartition(self._naming.name(each.topic), each.partition, round((each.since or 0) * 1000))
            for each in places
        ]
        try:
            found = self._reader.offsets_for_times(wanted, timeout=self._timeout)
        except KafkaException as error:
            raise Unavailable(f"offsets by time: {error.args[0].str()}") from error
        return [each for each in found if each.offset not in (-1, OFFSET_END)]
