"""How far this worker is behind, as /metrics shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from streams.audience.consumers import Assignment
from streams.audience.decode import INPUTS
from streams.audience.task import PartitionTask
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

    def show(self, tasks: Mapping[int, PartitionTask]) -> None:
        """Set the gauges from what was committed last, by partition; at most once a second."""
        if self._clock.monotonic() < self._due:
            return
        self._due = self._clock.monotonic() + _EVERY_S
        now = self._clock.now()
        for partition, task in tasks.items():
            for name, offset in task.at.known().items():
                end = self._assignment.known_end(name, partition)
                if end is None:
                    continue
                topic = self._assignment.topic_partition(name, partition, 0).topic
                behind = 0 if self._assignment.end_met(name, partition) >= end else max(0, end - offset)
                stamp = task.newest.get(name, now)
                self._metrics.lag_records.labels(topic, partition).set(behind)
                self._metrics.lag_seconds.labels(topic, partition).set(max(0.0, now - stamp) if behind else 0.0)

    def forget(self, partition: int) -> None:
        """Somebody else serves it now."""
        for name in INPUTS:
            topic = self._assignment.topic_partition(name, partition, 0).topic
            self._metrics.lag_records.remove(topic, str(partition))
            self._metrics.lag_seconds.remove(topic, str(partition))
