"""What every part of a worker works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.contract.topics import Naming
from streams.runtime.activity_timer import ActivityTimer
from streams.runtime.clock import Clock
from streams.runtime.health import Heartbeat
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, KafkaSettings


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """How Kafka is reached, what topics are called, how the role is set, and what it measures.

    Attributes:
        heartbeat: beaten by whatever may take long.
        timer: told where the seconds of the poll loop went.
    """

    kafka: KafkaSettings
    naming: Naming
    settings: AudienceSettings
    clock: Clock
    metrics: AudienceMetrics
    heartbeat: Heartbeat
    timer: ActivityTimer = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "timer", ActivityTimer(self.metrics.busy_seconds, self.clock))
