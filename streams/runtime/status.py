"""What a role's process tells of itself at ``/status``, put together when it is asked."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from streams.runtime.clock import Clock
from streams.runtime.dead_letter_log import DeadLetterLog
from streams.runtime.health import Heartbeat, Readiness
from streams.runtime.held_partitions import HeldPartitions
from streams.runtime.metrics import RoleMetrics


class RoleStatus:
    """Role, version, readiness, partitions, lag, model and dead letters of one process.

    Args:
        slot: of an audience worker.
        model: tells which model is in use, once that is known.
    """

    def __init__(
        self,
        role: str,
        prefix: str,
        clock: Clock,
        metrics: RoleMetrics,
        readiness: Readiness,
        heartbeat: Heartbeat,
        letters: DeadLetterLog,
        held: HeldPartitions,
        slot: int | None = None,
    ) -> None:
        self._named = {
            "role": role,
            "version": package_version(),
            "instance": instance(),
            "slot": slot,
            "prefix": prefix,
            "started_at": _text(clock.now()),
        }
        self._started = clock.monotonic()
        self._clock = clock
        self._metrics = metrics
        self._readiness = readiness
        self._heartbeat = heartbeat
        self._letters = letters
        self._held = held
        self.model: Callable[[], Mapping[str, object] | None] = lambda: None

    def document(self) -> dict[str, Any]:
        """The status, ready for JSON; times are RFC 3339, lengths of time seconds. What is not known is null."""
        failing = self._readiness.reasons()
        return {
            **self._named,
            "uptime_s": round(self._clock.monotonic() - self._started, 3),
            "last_poll_s": _rounded(self._heartbeat.age()),
            "ready": not failing,
            "conditions": {name: failing.get(name, "ok") for name in self._readiness.names()},
            "notes": self._readiness.notes(),
            "model": self.model(),
            "partitions": [{"partition": number, **state} for number, state in self._held.states().items()],
            "lag": self._lag(),
            "dead_letters": self._letters.shown(),
        }

    def _lag(self) -> list[dict[str, Any]]:
        """By input partition, as the gauges have it."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for name, gauge in (("records", self._metrics.lag_records), ("seconds", self._metrics.lag_seconds)):
            for metric in gauge.collect():
                for sample in metric.samples:
                    place = sample.labels["topic"], int(sample.labels["partition"])
                    entry = found.setdefault(place, {"topic": place[0], "partition": place[1]})
                    entry[name] = _rounded(sample.value)
        return [found[place] for place in sorted(found)]


def package_version() -> str:
    """Of the installed package; ``unknown`` where it runs from its sources alone."""
    try:
        return version("coldstart")
    except PackageNotFoundError:
        return "unknown"


def instance() -> str:
    """Which process this is: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 3)


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
