"""Where each group stands in each partition, and the audience's state beside its group."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec

from streams.audience.changelog_reader import read_recorded
from streams.audience.positions import TOPIC_OF
from streams.contract.topics import Naming
from streams.kafka.clients import admin, list_offsets
from streams.kafka.consumer_lag import measure
from streams.operations.move_group import AUDIENCE
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class GroupPosition:
    """One group in one partition.

    Attributes:
        first: the oldest offset that is kept; ``end``: behind the last that is committed.
        committed: the next offset that the group reads; None: it never committed one.
        state: the same as the audience's state says it; None for other groups, and where it says nothing.
        waiting: as :attr:`streams.kafka.consumer_lag.Lag.records`.
    """

    group: str
    topic: str
    partition: int
    first: int
    committed: int | None
    state: int | None
    end: int
    waiting: int

    @property
    def torn(self) -> bool:
        """Whether group and state disagree."""
        return self.state is not None and self.committed is not None and self.state != self.committed


def positions(kafka: KafkaSettings, naming: Naming, clock: Clock, group: str | None = None) -> list[GroupPosition]:
    """By group, topic and partition; workers may run, and then group and state may be read a commit apart.

    Args:
        group: only this one, without the prefix.

    Raises:
        Unavailable: the broker does not answer.
    """
    wanted = None if group is None else naming.prefix + group.removeprefix(naming.prefix)
    lags = [lag for lag in measure(kafka, naming, clock) if wanted in (None, lag.group)]
    places = {(lag.topic, lag.partition) for lag in lags}
    earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    parts = [TopicPartition(*place) for place in places]
    client = admin(kafka)
    firsts = list_offsets(client, parts, earliest, IsolationLevel.READ_UNCOMMITTED, kafka.request_timeout_s)
    stands: dict[tuple[str, int], int] = {}
    audience = f"{naming.prefix}{AUDIENCE}"
    for partition in sorted({lag.partition for lag in lags if lag.group == audience}):
        known = read_recorded(kafka, naming, partition, clock).positions.known()
        stands |= {(naming.name(TOPIC_OF[name]), partition): offset for name, offset in known.items()}
    return [
        GroupPosition(
            lag.group,
            lag.topic,
            lag.partition,
            firsts[lag.topic, lag.partition],
            lag.committed,
            stands.get((lag.topic, lag.partition)) if lag.group == audience else None,
            lag.end,
            lag.records,
        )
        for lag in lags
    ]
