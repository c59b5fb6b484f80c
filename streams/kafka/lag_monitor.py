"""Lag of this worker's own partitions, asked of the broker beside the work, as /metrics shows it.

Asked rather than followed: a worker that hangs, restores or cannot commit tells nothing, and its lag is what somebody
needs to see then. One question every few seconds costs nothing that can be measured.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, Self

import structlog

from streams.contract.errors import Unavailable
from streams.kafka.consumer_lag import LagReader, Place
from streams.runtime.clock import Clock
from streams.runtime.metrics import RoleMetrics
from streams.runtime.settings import KafkaSettings

_EVERY_S: Final = 5.0

_log = structlog.get_logger(__name__)


class LagMonitor:
    """Sets the gauges of lag from a thread of its own.

    A gauge is there from the first answer of the broker on, also while nothing was committed yet: lag counts from where
    reading would begin. It is absent while the broker does not answer, and 0 where nothing waits.

    Args:
        group: of the worker; its committed offsets count where the worker says no position.
    """

    def __init__(self, kafka: KafkaSettings, group: str, metrics: RoleMetrics, clock: Clock) -> None:
        self._kafka = kafka
        self._group = group
        self._metrics = metrics
        self._clock = clock
        self._positions: Mapping[Place, int | None] = {}
        self._shown: set[Place] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="lag", daemon=True)

    def start(self) -> Self:
        """Begin to ask; ends with :meth:`close`."""
        self._thread.start()
        return self

    def watch(self, positions: Mapping[Place, int | None]) -> None:
        """From now on these partitions, from these offsets; None: from what the group committed."""
        self._positions = positions

    def close(self) -> None:
        self._closed.set()
        self._thread.join(self._kafka.request_timeout_s + 1)

    def _follow(self) -> None:
        reader: LagReader | None = None
        while not self._closed.is_set():
            positions = self._positions
            try:
                reader = reader or LagReader(self._kafka, self._group, self._clock)
                lags = reader.read(positions) if positions else {}
            except Unavailable as error:
                _log.debug("lag unknown", why=str(error))
                lags = {}
            self._show(lags)
            self._closed.wait(_EVERY_S)
        if reader:
            reader.close()

    def _show(self, lags: Mapping[Place, tuple[int, float | None]]) -> None:
        for topic, partition in self._shown - lags.keys():
            self._metrics.lag_records.remove(topic, str(partition))
            self._metrics.lag_seconds.remove(topic, str(partition))
        self._shown = set(lags)
        for (topic, partition), (records, seconds) in lags.items():
            self._metrics.lag_records.labels(topic, str(partition)).set(records)
            # A record waits whose time did not come: not 0, and no time either.
            self._metrics.lag_seconds.labels(topic, str(partition)).set(float("nan") if seconds is None else seconds)
