"""Is one way better than another, or was it luck?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from targeting.slots import I64
from targeting.types import F64

METHOD = (
    "mean over all pairs (split, song) of the difference between two arms on that song; 95 % percentile interval of "
    "2,000 bootstrap resamples of songs, a song that is cold in several splits being drawn as one"
)
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference and its 95 % interval."""

    mean: float
    low: float
    high: float


def difference(one: F64, other: F64, songs: Sequence[str], seed: int = 0) -> Difference:
    """:data:`METHOD` for values float64 (n,) of two arms on the same n pairs; NaN pairs are left out.

    Raises:
        ValueError: no pair is left.
    """
    valid = np.flatnonzero(np.isfinite(one) & np.isfinite(other))
    if not len(valid):
        raise ValueError("no pair to compare")
    _, which = np.unique(np.asarray(songs, object)[valid].astype(str), return_inverse=True)
    sums = np.bincount(which, (one - other)[valid])
    counts = np.bincount(which)
    rng = np.random.default_rng(seed)
    drawn: I64 = rng.integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float(sums.sum() / counts.sum()), float(low), float(high))
