"""How far this worker is behind, as /metrics shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from confluent_kafka import Message

from streams.audience.consumers import Assignment
from streams.audience.decode import INPUTS, Records
from streams.audience.positions import InputOffsets
from streams.runtime.clock import Clock
from streams.runtime.metrics import AudienceMetrics

# The ends are what the broker told with the last records, so asking costs nothing; a person looks no oftener.
_EVERY_S: Final = 1.0


class LagGauges:
    """Records and seconds behind, of every input of every held partition, as of the last commit."""

    def __init__(self, metrics: AudienceMetrics, assignment: Assignment, clock: Clock) -> None:
        self._metrics = metrics
        self._assignment = assignment
        self._clock = clock
        self._due = clock.monotonic()
        self._stamps: dict[tuple[str, int], float] = {}

    def committed(self, partition: int, records: Records) -> None:
        """These records of a partition are done."""
        self._stamps |= {
            (name, partition): _stamp(messages[-1]) for name, messages in records.by_input().items() if messages
        }

    def show(self, positions: Mapping[int, InputOffsets]) -> None:
        """Set the gauges from the last committed positions; at most once a second."""
        if self._clock.monotonic() < self._due:
            return
        self._due = self._clock.monotonic() + _EVERY_S
        now = self._clock.now()
        for partition, at in positions.items():
            for name, offset in at.known().items():
                end = self._assignment.known_end(name, partition)
                if end is None:
                    continue
                topic = self._assignment.topic_partition(name, partition, 0).topic
                behind = max(0, end - offset)
                stamp = self._stamps.get((name, partition), now)
                self._metrics.lag_records.labels(topic, partition).set(behind)
                self._metrics.lag_seconds.labels(topic, partition).set(max(0.0, now - stamp) if behind else 0.0)

    def forget(self, partition: int) -> None:
        """Somebody else serves it now."""
        for name in INPUTS:
            self._stamps.pop((name, partition), None)
            topic = self._assignment.topic_partition(name, partition, 0).topic
            self._metrics.lag_records.remove(topic, str(partition))
            self._metrics.lag_seconds.remove(topic, str(partition))


def _stamp(message: Message) -> float:
    return message.timestamp()[1] / 1000
