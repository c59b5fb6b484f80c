"""Reads places of several topics until their ends or until the time is over, and says what was left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

from confluent_kafka import OFFSET_END, KafkaError, Message, TopicPartition

from streams.contract.errors import Unavailable
from streams.contract.topics import Naming, Topic
from streams.kafka.clients import consumer, offsets_at, reader_group, taken, watermarks
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
        # The broker answers a client's requests one after the other: while a fetch waits for records to come, nobody
        # learns an end or an offset. Here nothing is to come.
        more = {"enable_partition_eof": True, "fetch_wait_max_ms": 5}
        self._reader = consumer(kafka, reader_group(naming.prefix + "explain"), **more)
        self._waiting: dict[tuple[str, int], TopicPartition] = {}
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
        topics: dict[str | None, Topic] = {self._naming.name(place.topic): place.topic for place in places}
        self._waiting = {(each.topic, each.partition): each for each in self._starts(places)}
        self._reader.assign(list(self._waiting.values()))
        while self._waiting and self._clock.monotonic() < self._deadline:
            for message in taken(self._reader, 10_000, 0.02):
                # A hundred thousand go through here: nothing more is asked of those that nobody wants.
                if (error := message.error()) is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise Unavailable(f"{message.topic()}[{message.partition()}]: {error.str()}")
                    self._waiting.pop(_place(message), None)
                elif wanted(message) and _place(message) in self._waiting:
                    yield topics[message.topic()], message
        for place in self._reader.position(list(self._waiting.values())):
            low, high = watermarks(self._reader, place, self._timeout)
            # Below 0: nothing came yet.
            read_to = place.offset if place.offset >= 0 else self._waiting[place.topic, place.partition].offset
            if (more := high - max(low, read_to)) > 0:
                self.left[place.topic] = self.left.get(place.topic, 0) + more

    def finish(self, message: Message) -> None:
        """This record was the last that its partition is read for, in the reading that goes on."""
        if (place := self._waiting.pop(_place(message), None)) is not None:
            self._reader.incremental_unassign([place])

    def _starts(self, places: list[ReadFrom]) -> list[TopicPartition]:
        """Where reading begins; partitions that hold nothing as young are left out.

        All are asked for by time, the beginning as time 0: by this the client learns the leaders. Assigned to a
        partition whose leader it does not know, it waits for up to a second.
        """
        wanted = [
            TopicPartition(self._naming.name(each.topic), each.partition, round((each.since or 0) * 1000))
            for each in places
        ]
        found = offsets_at(self._reader, wanted, self._timeout)
        return [each for each in found if each.offset != OFFSET_END]


def _place(message: Message) -> tuple[str, int]:
    return message.topic() or "", message.partition() or 0
