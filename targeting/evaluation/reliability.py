"""Fits and checks the calibration of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targeting import calibration
from targeting.arrays.id_table import I64
from targeting.calibration import Calibration
from targeting.evaluation.case import Case, some
from targeting.evaluation.loaded import load
from targeting.ranking.scoring import ScoreWeights
from targeting.types import F32, F64

# Users of a song within a typical budget.
BEST = 200
_BINS = 20


@dataclass(frozen=True, slots=True)
class Pairs:
    """The candidates of all cold songs: score float32 (n,), outcome bool (n,), song int64 (n,), place int64 (n,)."""

    scores: F32
    listened: NDArray[np.bool_]
    song: I64
    place: I64


def pairs(cases: Sequence[Case], config: ScoreWeights, activity: float = 0.0) -> Pairs:
    """Production's scores at this power of activity, and who listened; of some songs of each case."""
    parts = []
    song = 0
    for case in cases:
        loaded = load(case)
        for row in some(np.arange(len(case.song_ids))).tolist():
            scored = loaded.scored(row, config, activity=activity)
            place = np.empty(len(scored.users), np.int64)
            place[np.argsort(-scored.scores, kind="stable")] = np.arange(len(place))
            parts.append((scored.scores, case.listeners(row)[scored.users], np.full(len(place), song), place))
            song += 1
    scores, listened, songs, places = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Pairs(scores, listened, songs, places)


def fitted(validations: Sequence[Case], config: ScoreWeights | None = None, activity: float = 0.0) -> Calibration:
    """The calibration from the candidates of warm songs made cold, and who of them listened.

    Args:
        config: production's score weights; by default its own.
        activity: the power of activity in these scores.

    Raises:
        ValueError: no case, or no candidate in any.
    """
    known = pairs(validations, config or ScoreWeights(), activity)
    return calibration.fit(known.scores, known.listened, activity)


def reliability(tests: Sequence[Case], config: ScoreWeights, calibrated: Calibration) -> dict[str, Any]:
    """How far chances are from what happened, on songs that the map was not fitted on.

    Returns:
        ``ece``: expected calibration error over all candidates, and over the best 200 of each song; ``base``: share of
        listeners in both; ``bins``: chance, share of listeners and number of pairs, over the best 200;
        ``precision_100``: means of expected and actual precision, and their mean distance by song.
    """
    seen = pairs(tests, config, calibrated.activity)
    chances = calibrated.chance(seen.scores)
    best = seen.place < BEST
    first = seen.place < 100
    counts = np.maximum(np.bincount(seen.song[first]), 1)
    expected = np.bincount(seen.song[first], chances[first]) / counts
    came = np.bincount(seen.song[first], seen.listened[first]) / counts
    return {
        "ece": {
            "all": error(chances, seen.listened),
            f"best_{BEST}": error(chances[best], seen.listened[best]),
        },
        "base": {"all": float(seen.listened.mean()), f"best_{BEST}": float(seen.listened[best].mean())},
        "bins": _bins(chances[best], seen.listened[best]),
        "precision_100": {
            "expected": float(expected.mean()),
            "came": float(came.mean()),
            "distance": float(np.abs(expected - came).mean()),
        },
    }


def error(chances: F32 | F64, listened: NDArray[np.bool_] | F64) -> float:
    """Expected calibration error: mean distance of chance and share of listeners over 20 bins of equal size.

    ``listened``: outcomes or true chances.
    """
    rows = _bins(chances, listened)
    total = sum(row["pairs"] for row in rows)
    return float(sum(row["pairs"] * abs(row["chance"] - row["listened"]) for row in rows) / total)


def _bins(chances: F32 | F64, listened: NDArray[np.bool_] | F64) -> list[dict[str, float]]:
    # Equal chances share a bin, even if that makes bins unequal.
    edges = np.unique(np.quantile(chances, np.linspace(0, 1, _BINS + 1)[1:-1]))
    which = np.searchsorted(edges, chances, side="right")
    pairs = np.bincount(which)
    chance, came = np.bincount(which, chances), np.bincount(which, listened)
    return [
        {"chance": float(chance[at] / pairs[at]), "listened": float(came[at] / pairs[at]), "pairs": int(pairs[at])}
        for at in np.flatnonzero(pairs)
    ]
