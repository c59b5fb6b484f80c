"""Intervals of differences, and what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from significance import LEVEL, resampled_error

F64 = NDArray[np.float64]

METHOD = (
    "mean over seeds of the seed's mean difference on the same cold songs; 95 % interval by the corrected resampled t "
    "(Nadeau & Bengio, Machine Learning 2003): the variance of the seeds' means times 1/seeds + cold/warm songs, for "
    "splits share most of their training songs and some of their cold ones. With one seed: the normal interval over "
    "songs, which leaves the training's randomness out. p is two-sided"
)


def interval(gaps: Sequence[F64], overlap: float) -> dict[str, float]:
    """``mean``, ``low``, ``high`` and ``p`` of the differences of each seed, float64 (songs,) each; see :data:`METHOD`.

    Args:
        overlap: cold songs of a split per warm one; 0 if the seeds share nothing.
    """
    means = np.array([gap.mean() if len(gap) else np.nan for gap in gaps])
    mean = float(means.mean())
    if len(means) > 1:
        error = resampled_error(means, overlap)
        law = stats.t(len(means) - 1)
    elif len(gaps[0]) > 1:
        error, law = gaps[0].std(ddof=1) / np.sqrt(len(gaps[0])), stats.norm
    else:
        return {"mean": mean, "low": np.nan, "high": np.nan, "p": np.nan}
    half = float(law.ppf(1 - LEVEL / 2) * error)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * law.sf(abs(mean) / error) if mean else 1.0
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": float(p)}


def verdict(difference: dict[str, float], apart: bool) -> str:
    """``helps`` or ``hurts`` if a difference is told apart from 0, else ``not told apart``."""
    if not apart:
        return "not told apart"
    return "helps" if difference["mean"] > 0 else "hurts"
