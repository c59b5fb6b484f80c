"""Estimates what another policy would have brought, from pushes drawn at random.

Inverse propensity scoring: each logged push is weighted by its probability under the judged policy over that under the
log's (Horvitz and Thompson 1952), normalised by the sum of weights (Swaminathan and Joachims, NIPS 2015). It needs
random pushes, which exploration makes (``reason.why = exploration``, :attr:`Policy.exploration`): best-ranked pushes
have probability 0 or 1 and say nothing about others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from targeting.types import F64

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """Answers per push of the judged policy.

    Attributes:
        mean, low, high: with the 95 % percentile interval of 2,000 bootstrap resamples of songs.
        effective: number of the policy's own pushes that would say as much (Kish 1965). Below a hundred it says little.
    """

    mean: float
    low: float
    high: float
    effective: float


def worth(answered: F64, shown: F64, would: F64, songs: Sequence[str], seed: int = 0) -> Estimate:
    """Answers per push of another policy, from n logged pushes.

    Args:
        answered: float64 (n,), 1 if the push led to a listen, else 0.
        shown: float64 (n,), the probability of this push under the log's policy, above 0.
        would: float64 (n,), the same under the judged policy.
        songs: n ids; users of one song are not independent, so songs are resampled.

    Raises:
        ValueError: chances outside [0, 1], different lengths, or the judged policy makes none of these pushes.
    """
    if not len(answered) == len(shown) == len(would) == len(songs):
        raise ValueError(f"{len(answered)} answers, {len(shown)} and {len(would)} chances, {len(songs)} songs")
    if not ((shown > 0) & (shown <= 1) & (would >= 0) & (would <= 1)).all():
        raise ValueError("chances must lie in [0, 1], and those of the log above 0")
    weights = would / shown
    total = float(weights.sum())
    if not total > 0:
        raise ValueError("the judged policy would make none of these pushes: the log says nothing about it")
    _, which = np.unique(np.asarray(songs, object).astype(str), return_inverse=True)
    gained, weighed = np.bincount(which, weights * answered), np.bincount(which, weights)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(weighed), (_RESAMPLES, len(weighed)))
    sums = weighed[drawn].sum(axis=1)
    means = gained[drawn].sum(axis=1)[sums > 0] / sums[sums > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    effective = total**2 / float((weights**2).sum())
    return Estimate(float(gained.sum()) / total, float(low), float(high), effective)


def spent_so(explored: F64, answered: F64, pushes: F64, seed: int = 0) -> Estimate:
    """Answers per push if each song had this many pushes, from the exploration pushes of each song.

    These go to random candidates. Spreading a song's pushes at random changes every candidate's probability by the same
    factor, ``pushes / explored``, so the number of candidates need not be known. It judges how budgets are spent over
    songs, not who is chosen within one: true levels are higher, because the best are pushed first. Songs without
    exploration are left out.

    Args:
        explored, answered: float64 (n,) songs: their random pushes, and those that led to a listen.
        pushes: float64 (n,), of the judged policy; only ratios count.

    Raises:
        ValueError: as :func:`worth`.
    """
    at = np.flatnonzero(explored > 0)
    counts = explored[at].astype(np.int64)
    each = np.repeat(np.arange(len(at)), counts)
    place = np.arange(len(each)) - np.repeat(np.cumsum(counts) - counts, counts)
    ratios = pushes[at] / explored[at]
    # Any common factor will do; here the largest ratio becomes 1.
    most = float(ratios.max(initial=0)) or 1.0
    would = np.repeat(ratios / most, counts)
    songs = [str(song) for song in each.tolist()]
    return worth((place < answered[at][each]).astype(np.float64), np.ones(len(each)), would, songs, seed)
