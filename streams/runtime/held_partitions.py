"""The partitions that a worker holds, and how far each is."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any


class HeldPartitions:
    """Set by the worker, read by whoever asks it for its status."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[int, dict[str, Any]] = {}

    def set(self, partition: int, state: str, **progress: float | None) -> None:
        """The partition is in this state: ``waiting``, ``restoring``, ``restored``,
        ``reading preferences`` or ``serving``."""
        with self._lock:
            self._states[partition] = {"state": state, **progress}

    def serve(self, partitions: Iterable[int]) -> None:
        """These are served, and no others are held."""
        with self._lock:
            self._states = {partition: {"state": "serving"} for partition in partitions}

    def release(self, partition: int) -> None:
        with self._lock:
            self._states.pop(partition, None)

    def states(self) -> Mapping[int, dict[str, Any]]:
        with self._lock:
            return dict(sorted(self._states.items()))
