"""What every part of a worker works with."""

from __future__ import annotations

from dataclasses import dataclass

from streams.contract.topics import Naming
from streams.runtime.clock import Clock
from streams.runtime.health import Heartbeat
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, KafkaSettings


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """How Kafka is reached, what topics are called, how the role is set, and what it measures.

    Attributes:
        heartbeat: beaten by whatever may take long.
    """

    kafka: KafkaSettings
    naming: Naming
    settings: AudienceSettings
    clock: Clock
    metrics: AudienceMetrics
    heartbeat: Heartbeat
