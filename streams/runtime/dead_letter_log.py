"""Counts dead letters by reason, keeps the latest of each, and logs them without a line a record.

A producer that is wrong is wrong thousands of times a second. A new reason has its line at once, with the number of
records so far; then it is silent for a minute, and the next line tells how many came meanwhile.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prometheus_client import Counter

from streams.runtime.clock import Clock

_SILENCE_S: Final = 60.0
# A reason may quote a field as long as a record.
_TEXT: Final = 300

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _ReasonCount:
    count: int = 0
    unlogged: int = 0
    logged_at: float | None = None
    latest: str = ""
    latest_at: float = 0.0


class DeadLetterLog:
    """The dead letters of one process, by stage and class of error. May be told and asked from any thread.

    Args:
        metric: counts them by stage and error.

    Attributes:
        waiting: whether :meth:`tell` has something to say, now or within a minute.
    """

    def __init__(self, metric: Counter, clock: Clock) -> None:
        self._metric = metric
        self._clock = clock
        self.waiting = False
        self._lock = threading.Lock()
        self._reasons: dict[tuple[str, str], _ReasonCount] = {}

    def note(self, stage: str, error: str, text: str) -> None:
        """A record was buried: by which stage, for which class of error, and why in words."""
        self._metric.labels(stage, error).inc()
        with self._lock:
            reason = self._reasons.setdefault((stage, error), _ReasonCount())
            reason.count += 1
            reason.unlogged += 1
            self.waiting = True
            reason.latest, reason.latest_at = text[:_TEXT], self._clock.now()

    def tell(self) -> None:
        """Log what is due; to be called after each batch, and now and then while there is none."""
        now = self._clock.monotonic()
        with self._lock:
            due = [
                (stage, error, reason, reason.unlogged)
                for (stage, error), reason in self._reasons.items()
                if reason.unlogged and (reason.logged_at is None or now >= reason.logged_at + _SILENCE_S)
            ]
            for _, _, reason, _ in due:
                reason.unlogged, reason.logged_at = 0, now
            self.waiting = any(reason.unlogged for reason in self._reasons.values())
        for stage, error, reason, unlogged in due:
            _log.warning(
                "records sent to dead-letters", stage=stage, error=error, records=unlogged, since_start=reason.count,
                latest=reason.latest,
            )  # fmt: skip

    def shown(self) -> list[dict[str, Any]]:
        """Every reason since the start, the most frequent first."""
        with self._lock:
            found = [
                {
                    "stage": stage,
                    "error": error,
                    "records": reason.count,
                    "latest": reason.latest,
                    "latest_at": datetime.fromtimestamp(reason.latest_at, UTC).isoformat(timespec="milliseconds"),
                }
                for (stage, error), reason in self._reasons.items()
            ]
        return sorted(found, key=lambda each: -int(str(each["records"])))
