"""Time as a dependency: code that decides by time takes a clock; only entry points pass the real one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Wall time and monotonic time, kept apart."""

    def now(self) -> float:
        """Wall clock, Unix seconds: comparable with event times, may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start: for durations and deadlines, never jumps back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to: for tests and replays."""

    wall: float = 0.0
    elapsed: float = 0.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError when ``seconds`` is negative."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: advance({seconds})")
        self.wall += seconds
        self.elapsed += seconds
