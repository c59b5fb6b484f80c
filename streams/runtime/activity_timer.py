"""Where the seconds of a loop go, as a counter by activity."""

from __future__ import annotations

from prometheus_client import Counter

from streams.runtime.clock import Clock


class ActivityTimer:
    """Books the time since the last booking; for one thread.

    Args:
        counter: seconds, labelled by activity.
    """

    def __init__(self, counter: Counter, clock: Clock) -> None:
        self._counter = counter
        self._clock = clock
        self._last = clock.monotonic()

    def spent(self, activity: str) -> None:
        """What passed since the last call went into this."""
        now = self._clock.monotonic()
        # A clock that stands, or was moved by a test, takes nothing back.
        self._counter.labels(activity).inc(max(0.0, now - self._last))
        self._last = now
