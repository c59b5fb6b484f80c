"""What another way of choosing would have brought, estimated from pushes that were made by lot.

Inverse propensity scoring: each logged push counts as often as the way that is judged would have made it for once that
it was made (Horvitz and Thompson 1952), over the sum of these weights (self-normalised; Swaminathan and Joachims, NIPS
2015). It needs pushes made by lot: those to learn (``reason.why = exploration``, :attr:`Policy.exploration`).
Best-ranked pushes have no chance but 0 or 1, and say nothing of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from targeting.types import F64

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """Answers a push of the way that is judged.

    Attributes:
        mean, low, high: with the 95 % percentile interval of 2,000 bootstrap resamples of songs.
        effective: as many pushes of the way itself would tell as much (Kish 1965). Below a hundred, hardly anything.
    """

    mean: float
    low: float
    high: float
    effective: float


def worth(answered: F64, shown: F64, would: F64, songs: Sequence[str], seed: int = 0) -> Estimate:
    """Answers a push of another way, from n logged pushes.

    Args:
        answered: float64 (n,), 1 where the push led to a listen, else 0.
        shown: float64 (n,), the chance with which the log's way made this push, above 0.
        would: float64 (n,), the chance with which the way that is judged would.
        songs: n ids: users of one song are not independent, so songs are what is resampled.

    Raises:
        ValueError: chances out of [0, 1], lengths that differ, or the way that is judged makes none of these pushes.
    """
    if not len(answered) == len(shown) == len(would) == len(songs):
        raise ValueError(f"{len(answered)} answers, {len(shown)} and {len(would)} chances, {len(songs)} songs")
    if not ((shown > 0) & (shown <= 1) & (would >= 0) & (would <= 1)).all():
        raise ValueError("chances must lie in [0, 1], and those of the log above 0")
    weights = would / shown
    total = float(weights.sum())
    if not total > 0:
        raise ValueError("the way that is judged would make none of these pushes: the log says nothing of it")
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
    """Answers a push if a song's pushes were so many, from the pushes to learn of each song.

    These go to candidates by lot. Spreading a song's pushes over its candidates by lot has another chance for each of
    them, but in the same ratio to the log's, ``pushes / explored``: so nobody needs to know how many candidates there
    were. It judges how budgets are spent over songs, not who is chosen within one: true levels are higher, because the
    best are pushed first. Songs that were not explored are left out.

    Args:
        explored, answered: float64 (n,) songs: their pushes by lot, and those that led to a listen.
        pushes: float64 (n,), of the way that is judged; only ratios count.

    Raises:
        ValueError: as :func:`worth`.
    """
    at = np.flatnonzero(explored > 0)
    counts = explored[at].astype(np.int64)
    each = np.repeat(np.arange(len(at)), counts)
    place = np.arange(len(each)) - np.repeat(np.cumsum(counts) - counts, counts)
    ratios = pushes[at] / explored[at]
    # Any common factor will do: the largest ratio is a chance of one.
    most = float(ratios.max(initial=0)) or 1.0
    would = np.repeat(ratios / most, counts)
    songs = [str(song) for song in each.tolist()]
    return worth((place < answered[at][each]).astype(np.float64), np.ones(len(each)), would, songs, seed)
