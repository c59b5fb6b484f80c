"""How do scores of single songs become figures, differences and verdicts?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from encoder.evaluation.inputs import unit
from encoder.supervision import Targets
from encoder.truth import Scores, Truth

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Json = dict[str, Any]

MEASURES = {"recall_50": "recall", "ndcg_50": "ndcg"}
METHOD = (
    "mean over seeds of the seed's mean difference on the same cold songs; 95 % interval by Student's t over seeds, "
    "because a seed changes the cold songs and the training's randomness, and resampling songs would leave the second "
    "out. With one seed: the normal interval over songs, which leaves it out."
)
# Listener quartiles of the cold songs, the tail first.
QUARTILES = 4


def values_of(scores: Scores, measure: str) -> F64:
    """float64 (songs,): a measure of :data:`MEASURES`."""
    values: F64 = getattr(scores, MEASURES[measure])
    return values


def summary(runs: Sequence[Scores]) -> Json:
    """For each measure its mean and sample standard deviation over seeds, the mean by quartile, and each seed's."""
    found = {}
    for measure in MEASURES:
        means = [float(values_of(run, measure).mean()) for run in runs]
        quartiles = np.mean([run.by_quartile(values_of(run, measure)) for run in runs], axis=0)
        found[measure] = {
            "mean": float(np.mean(means)),
            "std": float(np.std(means, ddof=1)) if len(means) > 1 else 0.0,
            "quartiles": quartiles.tolist(),
            "seeds": means,
        }
    return found


def paired(ours: Sequence[Scores], other: Sequence[Scores]) -> Json:
    """Ours minus another's, by :data:`METHOD`, for each measure: overall, and by quartile."""
    found = {}
    for measure in MEASURES:
        gaps = [values_of(a, measure) - values_of(b, measure) for a, b in zip(ours, other, strict=True)]
        places = [run.quartile for run in ours]
        found[measure] = interval(gaps) | {
            "quartiles": [
                interval([gap[place == q] for gap, place in zip(gaps, places, strict=True)]) for q in range(QUARTILES)
            ]
        }
    return found


def interval(gaps: Sequence[F64]) -> dict[str, float]:
    """Mean, low and high of the differences of each seed, float64 (songs,) each; see :data:`METHOD`."""
    means = np.array([gap.mean() if len(gap) else np.nan for gap in gaps])
    if len(means) > 1:
        half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    elif len(gaps[0]) > 1:
        half = stats.norm.ppf(0.975) * gaps[0].std(ddof=1) / np.sqrt(len(gaps[0]))
    else:
        half = np.nan
    mean = means.mean()
    return {"mean": float(mean), "low": float(mean - half), "high": float(mean + half)}


def verdict(difference: dict[str, float]) -> str:
    """``helps`` or ``hurts`` when the interval leaves out 0, else ``nothing``."""
    if difference["low"] > 0:
        return "helps"
    return "hurts" if difference["high"] < 0 else "nothing"


def gauges(cold: F32, warm: F32, answer: Truth) -> dict[str, float]:
    """What a space looks like; both as unit rows.

    - ``alignment``: mean squared distance of a cold song's vector to those of its true neighbours; 0 is best.
    - ``uniformity``: log mean exp(-2 |a - b|^2) over pairs of cold songs; 0 is collapsed, -4 is spread over a sphere.
    - ``variance``: summed over dimensions, of the cold songs' vectors; 0 is collapsed, 1 is spread evenly.

    Source of the first two: Wang & Isola, ICML 2020.
    """
    cold, warm = unit(cold), unit(warm)
    # With padding: weight 0.
    weights = (answer.neighbours >= 0).astype(np.float64)
    cosines = np.einsum("nd,nkd->nk", cold, warm[np.maximum(answer.neighbours, 0)])
    pairs = (cold @ cold.T)[np.triu_indices(len(cold), 1)].astype(np.float64)
    return {
        "alignment": float((weights * (2 - 2 * cosines)).sum() / max(weights.sum(), 1)),
        "uniformity": float(np.log(np.exp(-2 * (2 - 2 * pairs)).mean())) if len(pairs) else 0.0,
        "variance": float(cold.var(axis=0).sum()),
    }


def skew(targets: Targets, songs: int) -> float:
    """Gini coefficient of how often each warm song is another's target: 0 all equally often, 1 one song alone."""
    counts = np.sort(np.bincount(targets.songs[targets.weights > 0], minlength=songs)).astype(np.float64)
    return float(gini(counts))


def gini(values: F64) -> float:
    """The Gini coefficient of values >= 0, float64 (n,); 0 when all are 0."""
    ordered = np.sort(values)
    n, total = len(ordered), ordered.sum()
    if total == 0:
        return 0.0
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))
