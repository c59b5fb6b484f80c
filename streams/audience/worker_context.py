"""What every part of a worker works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.contract.topics import Naming
from streams.runtime.activity_timer import ActivityTimer
from streams.runtime.clock import Clock
from streams.runtime.dead_letter_log import DeadLetterLog
from streams.runtime.health import Heartbeat
from streams.runtime.held_partitions import HeldPartitions
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, KafkaSettings
from streams.runtime.tracing import Tracing


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """How Kafka is reached, what topics are called, how the role is set, and what it measures.

    Attributes:
        heartbeat: beaten by whatever may take long.
        timer: told where the seconds of the poll loop went.
        letters: told of every dead letter.
        tracing: makes a hop of each request that belongs to a trace.
        held: told how far each partition is.
    """

    kafka: KafkaSettings
    naming: Naming
    settings: AudienceSettings
    clock: Clock
    metrics: AudienceMetrics
    heartbeat: Heartbeat
    tracing: Tracing = field(default_factory=Tracing)
    timer: ActivityTimer = field(init=False)
    letters: DeadLetterLog = field(init=False)
    held: HeldPartitions = field(init=False, default_factory=HeldPartitions)

    def __post_init__(self) -> None:
        object.__setattr__(self, "timer", ActivityTimer(self.metrics.busy_seconds, self.clock))
        object.__setattr__(self, "letters", DeadLetterLog(self.metrics.dead_letters, self.clock))
