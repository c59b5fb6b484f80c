"""What a demo saw: figures, under names that the README explains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streams.testbed.demo.precision import Judgement
from streams.testbed.demo.swap_measurement import SwapFigures


@dataclass(slots=True)
class DemoOutcome:
    """What the demo saw. ``seconds``: phase -> how long; ``memory_mb``: process -> peak resident size."""

    dataset: str
    citation: str | None
    users: int
    warm_songs: int
    uploads: int
    songs_without_content: int
    partitions: int
    answered: int
    dead_letters: int
    dead_letters_identical: bool
    dead_letter_reasons: dict[str, int]
    push_targets: int
    pushes_doubled: int
    latencies: dict[str, list[float]]
    judgement: Judgement
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    listens: int = 0
    example: dict[str, Any] = field(default_factory=dict)
    swapped: SwapFigures | None = None

    @property
    def complete(self) -> bool:
        """Every upload answered by every partition, every bad one by a dead letter, nothing twice, no swap noticed."""
        whole = self.answered == self.uploads and self.dead_letters_identical and not self.pushes_doubled
        return whole and not (self.swapped and self.swapped.verdict)

    def as_json(self) -> dict[str, Any]:
        """The figures, under the names that the README explains."""
        return {
            "dataset": self.dataset,
            "users": self.users,
            "warm_songs": self.warm_songs,
            "listens": self.listens,
            "partitions": self.partitions,
            "uploads": self.uploads,
            "songs_without_content": self.songs_without_content,
            "uploads_answered_by_every_partition": self.answered,
            "dead_letters": self.dead_letters,
            "dead_letters_identical": self.dead_letters_identical,
            "dead_letter_reasons": self.dead_letter_reasons,
            "push_targets": self.push_targets,
            "pushes_doubled": self.pushes_doubled,
            "latency_ms": {
                which: {"p50": _percentile(values, 50), "p99": _percentile(values, 99), "n": len(values)}
                for which, values in self.latencies.items()
            },
            "judged_songs": self.judgement.songs,
            "precision": {
                arm: {str(cut): _number(value) for cut, value in cuts.items()}
                for arm, cuts in self.judgement.precision.items()
            },
            "recall_200": {arm: _number(value) for arm, value in self.judgement.recall_200.items()},
            "liking": self.judgement.liking
            and {
                arm: {str(cut): _number(value) for cut, value in cuts.items()}
                for arm, cuts in self.judgement.liking.items()
            },
            "r_precision": {
                bucket: {arm: _number(value) for arm, value in arms.items()}
                for bucket, arms in self.judgement.r_precision.items()
            },
            "swap": self.swapped and self.swapped.as_json(),
            "seconds": {phase: round(value, 1) for phase, value in self.seconds.items()},
            "memory_mb": {name: round(value) for name, value in self.memory_mb.items()},
        }


def _percentile(values: list[float], which: float) -> float | None:
    return round(float(np.percentile(values, which)), 1) if values else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
