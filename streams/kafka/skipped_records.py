"""Records of the cached topics that could not be read, and who is told of them.

Every worker of both roles reads ``warm-songs`` and ``models`` from the beginning at each start. If each of them buried
what it cannot read, a bad record would get a dead letter at every start. So a reader skips the record, counts it, logs
it and shows it in ``/readyz``; the songs worker that owns the partition writes the single dead letter
(``songs/burials.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Collection

import structlog
from confluent_kafka import Message
from prometheus_client import Counter

from streams.contract.dead_letters import Origin, origin
from streams.contract.errors import BadRecord, InvalidField
from streams.runtime.health import Readiness

# Waiting for their dead letter. Beyond this a record is counted and logged only; it is still in its topic.
_MOST_BYTES = 16 * 2**20

_log = structlog.get_logger(__name__)


class Skipped:
    """The records that a process skipped. May be told from any thread.

    Args:
        metric: counts them by topic and error.
        readiness: shows how many there are, and the latest.
        bury: whether this process writes dead letters; else nothing is kept for it.
    """

    def __init__(self, metric: Counter | None = None, readiness: Readiness | None = None, bury: bool = False) -> None:
        self._metric = metric
        self._readiness = readiness
        self._bury = bury
        self._lock = threading.Lock()
        self._waiting: list[tuple[Origin, BadRecord]] = []
        self._bytes = 0
        self.count = 0

    def add(self, message: Message, error: BadRecord) -> None:
        """A record was skipped."""
        found = origin(message)
        where = f"{found.topic}[{found.partition}] at offset {found.offset}"
        _log.warning("record skipped", topic=found.topic, partition=found.partition, offset=found.offset,
                     error=type(error).__name__, reason=str(error)[:500])  # fmt: skip
        if self._metric is not None:
            self._metric.labels(found.topic, type(error).__name__).inc()
        with self._lock:
            self.count += 1
            self._note(f"{where}: {error}")
            size = len(found.value or b"") + len(found.key or b"")
            if self._bury and self._bytes + size <= _MOST_BYTES:
                self._waiting.append((found, error.without_frames()))
                self._bytes += size

    def add_misfits(self, topic: str, count: int, why: str) -> None:
        """Records that had been read turned out not to fit the others. They were not kept and get no dead letter."""
        _log.warning("records skipped", topic=topic, count=count, reason=why)
        if self._metric is not None:
            self._metric.labels(topic, InvalidField.__name__).inc(count)
        with self._lock:
            self.count += count
            self._note(why)

    def take(self, partitions: Collection[int]) -> list[tuple[Origin, BadRecord]]:
        """Those of some partitions that wait for their dead letter, in the order in which they were met."""
        if not self._waiting:
            return []
        with self._lock:
            taken = [each for each in self._waiting if each[0].partition in partitions]
            self._waiting = [each for each in self._waiting if each[0].partition not in partitions]
            self._bytes = sum(len(each.value or b"") + len(each.key or b"") for each, _ in self._waiting)
        return taken

    def _note(self, latest: str) -> None:
        if self._readiness is not None:
            said = f"{self.count} records of cached topics are skipped; the latest: {latest[:300]}"
            self._readiness.note("skipped", said)
