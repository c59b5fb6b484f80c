"""The chance of a listen that a score stands for.

A monotone map, fitted where the answer is known: on warm songs that were made cold (then a chance is that of being
among the song's listeners, not of answering a push), or on what earlier pushes led to. With it comes by how much users'
activity counts in the scores that it maps. The map itself changes no order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targeting.types import F32, F64

# Pairs in the bin of the highest scores, and how much larger each next bin is: the highest scores are few, and the
# only ones that a budget buys.
_FIRST = 200
_WIDER = 1.25

# Beyond the last knot log-odds go on as they rise over this share of the knots, the uppermost.
_UPPER = 0.25
_CLOSEST = 1e-4

# Of activity's power: with 2, a user of 100 songs counts a hundred times one of 9, and what fits hardly at all.
STRONGEST = 2.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Knots of a piecewise linear map.

    Beyond the first and the last knot :meth:`chance` is flat; :meth:`prior` goes on to rise beyond the last.

    Attributes:
        scores: ascending.
        chances: as many, in [0, 1], not descending.
        activity: the power of :mod:`targeting.ranking.activity` in these scores, 0 to :data:`STRONGEST`.

    Raises:
        ValueError: no knots, or not as described.
    """

    scores: tuple[float, ...]
    chances: tuple[float, ...]
    activity: float = 0.0

    def __post_init__(self) -> None:
        if not len(self.scores) == len(self.chances) > 0:
            raise ValueError(f"calibration: {len(self.scores)} scores and {len(self.chances)} chances")
        ascending = all(a < b for a, b in pairwise(self.scores)) and all(a <= b for a, b in pairwise(self.chances))
        # A NaN would pass no comparison but that of a single knot.
        if not (ascending and np.isfinite(self.scores).all() and 0 <= self.chances[0] <= self.chances[-1] <= 1):
            raise ValueError("calibration: scores must ascend, chances must not descend and lie in [0, 1]")
        if not 0 <= self.activity <= STRONGEST:
            raise ValueError(f"calibration: activity {self.activity}, 0 to {STRONGEST:g} allowed")

    def chance(self, scores: F32) -> F32:
        """The chance of a listen for each score, float32 (n,); flat beyond the first and the last knot."""
        return np.interp(scores, self.scores, self.chances).astype(np.float32)

    def prior(self, scores: F32) -> F32:
        """The same chance, float32 (n,), but beyond the last knot it goes on to rise, as steeply in log-odds as before.

        Below the first knot it is flat, and above the last where there is no other.

        The last knot is the mean of the best scores that were known. Users who listen to pushes outgrow them, and whose
        scores all stand for one chance cannot be told apart by answers either.
        """
        chances = self.chance(scores)
        beyond = np.flatnonzero(scores > self.scores[-1])
        if not len(beyond) or len(self.scores) == 1:
            return chances
        first = -max(2, int(len(self.scores) * _UPPER) + 1)
        low, high = (_logit(self.chances[at]) for at in (first, -1))
        steepness = (high - low) / (self.scores[-1] - self.scores[first])
        logits = high + steepness * (scores[beyond].astype(np.float64) - self.scores[-1])
        chances[beyond] = np.maximum(self.chances[-1], 1 / (1 + np.exp(-logits)))
        return chances

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; :meth:`from_json` is the inverse."""
        return {"scores": list(self.scores), "chances": list(self.chances), "activity": self.activity}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        """What was written before activity counted has none.

        Raises:
            ValueError: something is missing or out of order.
        """
        if stored.keys() | {"activity"} != {"scores", "chances", "activity"}:
            raise ValueError(f"calibration: has {sorted(stored)}, needs scores and chances")
        scores, chances = (tuple(map(float, stored[name])) for name in ("scores", "chances"))
        return cls(scores, chances, float(stored.get("activity", 0)))


def _logit(chance: float) -> float:
    inside = min(max(chance, _CLOSEST), 1 - _CLOSEST)
    return math.log(inside / (1 - inside))


def fit(scores: F32, listened: NDArray[np.bool_] | F64, activity: float = 0.0) -> Calibration:
    """The isotonic regression of listens (n,), 0 or 1, on scores (n,), over bins that widen from the top down.

    ``activity`` is the power of it that is in these scores.

    Raises:
        ValueError: nothing to fit, or lengths that differ.
    """
    if not len(scores) == len(listened) > 0:
        raise ValueError(f"calibration: {len(scores)} scores and {len(listened)} outcomes")
    # Here, because whoever only asks for chances, such as a worker that starts, needs no scipy.optimize: half a second.
    from scipy.optimize import isotonic_regression

    order = np.argsort(-scores, kind="stable")
    ends, size = [0], float(_FIRST)
    while ends[-1] < len(scores):
        ends.append(min(len(scores), ends[-1] + int(size)))
        size *= _WIDER
    counts = np.diff(ends)
    # From the lowest bin to the highest.
    centres = (np.add.reduceat(scores[order].astype(np.float64), ends[:-1]) / counts)[::-1]
    rates = (np.add.reduceat(np.asarray(listened, np.float64)[order], ends[:-1]) / counts)[::-1]
    weights = counts[::-1].astype(np.float64)
    chances = isotonic_regression(rates, weights=weights).x
    # Bins that were pooled are one knot in their middle, so that between knots a higher score has a higher chance
    # (centered isotonic regression; Oron and Flournoy 2017).
    chances, which = np.unique(chances, return_inverse=True)
    pooled = np.bincount(which, weights)
    centres = np.bincount(which, centres * weights) / pooled
    # Bins of one and the same score are one knot.
    knots, which = np.unique(centres, return_inverse=True)
    chances = np.bincount(which, chances * pooled) / np.bincount(which, pooled)
    # Of equal chances one may come out a rounding below the other.
    chances = np.maximum.accumulate(np.clip(chances, 0, 1))
    return Calibration(tuple(knots.tolist()), tuple(chances.tolist()), activity)
