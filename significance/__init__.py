"""Which differences between variants are real, where the same few splits and songs judge all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""The chance of an error that is accepted: of an interval to miss, and of a whole table to hold one."""


def resampled_error(means: NDArray[np.float64], overlap: float) -> float:
    """The standard error of the mean over several splits, by the corrected resampled t (Nadeau & Bengio, Machine
    Learning 2003): splits share most of their training songs and some of their cold ones.

    Args:
        means: float64 (n,), n > 1, the mean of each split.
        overlap: cold songs of a split per warm one; 0 if the splits share nothing.
    """
    return float(means.std(ddof=1) * np.sqrt(1 / len(means) + overlap))


def told_apart(p: Sequence[float]) -> list[bool]:
    """Which differences of one table are significant, at 5 % for the whole table (Holm, 1979).

    The k-th smallest p of n must not exceed 5 % / (n - k + 1), and neither may any smaller one exceed its bound; NaN is
    never significant and does not count.
    """
    values = np.asarray(p, np.float64)
    apart = np.zeros(len(values), bool)
    valid = int(np.isfinite(values).sum())
    for place, at in enumerate(np.argsort(values)[:valid]):
        if values[at] > LEVEL / (valid - place):
            break
        apart[at] = True
    return list(map(bool, apart))
