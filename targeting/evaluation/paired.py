"""Paired differences with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from significance import LEVEL, resampled_error
from targeting.arrays.id_table import I64
from targeting.types import F64

METHOD = (
    "mean over all pairs (split, song) of the difference between two variants on that song; 95 % percentile interval "
    "of 2,000 bootstrap resamples of songs, a song that is cold in several splits being drawn as one. With several "
    "splits it is widened to that of the corrected resampled t over them (Nadeau & Bengio, Machine Learning 2003): the "
    "variance of the splits' means times 1/splits + cold/warm songs, or times 1/splits where they share no song"
)
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference, its 95 % interval, and the two-sided p of no difference."""

    mean: float
    low: float
    high: float
    p: float = float("nan")


@dataclass(frozen=True, slots=True)
class Splits:
    """The splits of n pairs.

    Attributes:
        of: the split of each pair, n names.
        overlap: cold songs of a split per warm one if the splits share songs, else 0.
    """

    of: Sequence[str]
    overlap: float = 0.0


def difference(one: F64, other: F64, songs: Sequence[str], splits: Splits | None = None, seed: int = 0) -> Difference:
    """:data:`METHOD` for values float64 (n,) of two variants on the same n pairs; NaN pairs are left out.

    Raises:
        ValueError: no pair is left.
    """
    valid = np.flatnonzero(np.isfinite(one) & np.isfinite(other))
    if not len(valid):
        raise ValueError("no pair to compare")
    gaps = (one - other)[valid]
    found = _bootstrapped(gaps, _numbered(songs, valid), seed)
    if splits is None:
        return found
    which = _numbered(splits.of, valid)
    means = np.bincount(which, gaps) / np.bincount(which)
    if len(means) < 2:
        return found
    error = resampled_error(means, splits.overlap)
    law = stats.t(len(means) - 1)
    half = float(law.ppf(1 - LEVEL / 2)) * error
    p = 2 * float(law.sf(abs(found.mean) / error)) if error else 0.0
    return Difference(
        found.mean, min(found.low, found.mean - half), max(found.high, found.mean + half), max(found.p, p)
    )


def _bootstrapped(gaps: F64, song: I64, seed: int) -> Difference:
    sums, counts = np.bincount(song, gaps), np.bincount(song)
    drawn: I64 = np.random.default_rng(seed).integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * float(1 + beyond) / (1 + _RESAMPLES))
    return Difference(float(sums.sum() / counts.sum()), float(low), float(high), p)


def _numbered(names: Sequence[str], valid: I64) -> I64:
    """Numbers from 0, the same for equal names; int64."""
    _, numbers = np.unique(np.asarray(names, object)[valid].astype(str), return_inverse=True)
    return np.asarray(numbers, np.int64)
