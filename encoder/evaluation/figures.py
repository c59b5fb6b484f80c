"""Turns scores of single songs into figures, differences and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.content_matrix import unit
from encoder.evaluation.intervals import interval
from encoder.supervision import Targets
from encoder.truth import Scores, Truth

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Json = dict[str, Any]

MEASURES = {"recall_50": "recall", "ndcg_50": "ndcg"}
# Listener quartiles of the cold songs, the tail first.
QUARTILES = 4


def values_of(scores: Scores, measure: str) -> F64:
    """float64 (songs,): a measure of :data:`MEASURES`."""
    values: F64 = getattr(scores, MEASURES[measure])
    return values


def summary(runs: Sequence[Scores]) -> Json:
    """:func:`summed` for each measure."""
    places = [run.quartile for run in runs]
    return {measure: summed([values_of(run, measure) for run in runs], places) for measure in MEASURES}


def summed(values: Sequence[F64], places: Sequence[I64]) -> Json:
    """Mean and sample standard deviation over seeds, mean by quartile, and mean of each seed; NaN songs left out.

    Args:
        values, places: of each seed, float64 (songs,), and int64 (songs,), the songs' quartiles.
    """
    means = [_mean(own) for own in values]
    quartiles = [[_mean(own[place == q]) for q in range(QUARTILES)] for own, place in zip(values, places, strict=True)]
    return {
        "mean": float(np.mean(means)),
        "std": float(np.std(means, ddof=1)) if len(means) > 1 else 0.0,
        "quartiles": np.mean(quartiles, axis=0).tolist(),
        "seeds": means,
    }


def paired(ours: Sequence[Scores], other: Sequence[Scores], overlap: float) -> Json:
    """:func:`differing` for each measure: ours minus another's."""
    places = [run.quartile for run in ours]
    found = {}
    for measure in MEASURES:
        gaps = [values_of(a, measure) - values_of(b, measure) for a, b in zip(ours, other, strict=True)]
        found[measure] = differing(gaps, places, overlap)
    return found


def differing(gaps: Sequence[F64], places: Sequence[I64], overlap: float) -> Json:
    """Intervals (:mod:`encoder.evaluation.intervals`) overall and by quartile; NaN songs left out.

    Args:
        gaps, places: of each seed, float64 (songs,), the songs' differences, and int64 (songs,), their quartiles.
        overlap: cold songs of a split per warm one.
    """
    known = [(gap[np.isfinite(gap)], place[np.isfinite(gap)]) for gap, place in zip(gaps, places, strict=True)]
    return interval([gap for gap, _ in known], overlap) | {
        "quartiles": [interval([gap[place == q] for gap, place in known], overlap) for q in range(QUARTILES)]
    }


def _mean(values: F64) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def gauges(cold: F32, warm: F32, answer: Truth) -> dict[str, float]:
    """The shape of a space of unit rows.

    - ``alignment``: mean squared distance of a cold song's vector to those of its true neighbours; 0 is best.
    - ``uniformity``: log mean exp(-2 |a - b|^2) over pairs of cold songs; 0 is collapsed, -4 is spread over a sphere.
    - ``variance``: of the cold songs' vectors, summed over dimensions; 0 is collapsed, 1 is spread evenly.

    Source of the first two: Wang & Isola, ICML 2020.
    """
    cold, warm = unit(cold), unit(warm)
    # Padding has weight 0.
    weights = (answer.neighbours >= 0).astype(np.float64)
    cosines = np.einsum("nd,nkd->nk", cold, warm[np.maximum(answer.neighbours, 0)])
    pairs = (cold @ cold.T)[np.triu_indices(len(cold), 1)].astype(np.float64)
    return {
        "alignment": float((weights * (2 - 2 * cosines)).sum() / max(weights.sum(), 1)),
        "uniformity": float(np.log(np.exp(-2 * (2 - 2 * pairs)).mean())) if len(pairs) else 0.0,
        "variance": float(cold.var(axis=0).sum()),
    }


def skew(targets: Targets, songs: int) -> float:
    """Gini coefficient of how often each warm song is a target: 0 all equally often, 1 one song alone."""
    counts = np.sort(np.bincount(targets.songs[targets.weights > 0], minlength=songs)).astype(np.float64)
    return float(gini(counts))


def gini(values: F64) -> float:
    """The Gini coefficient of values >= 0, float64 (n,); 0 when all are 0."""
    ordered = np.sort(values)
    n, total = len(ordered), ordered.sum()
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))
