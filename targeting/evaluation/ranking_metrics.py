"""Measures of one song's ranking of users."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from targeting.types import F32

AT = (50, 100, 200)
RECALL_AT = 200
NAMES = (*(f"precision_{n}" for n in AT), f"recall_{RECALL_AT}", "r_precision", "auc")


def judged(scores: F32, listeners: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, float]:
    """Every measure of :data:`NAMES` for scores float32 (n,) and hidden listeners bool (n,).

    Precision@k is the share of listeners among the k highest scores, recall@k the share of the listeners among
    them, R-precision the precision at the number of listeners, AUC the probability that a listener ranks before a
    non-listener. Ties are in random order; AUC counts them as half. Measures without a meaning, for a song without
    listeners or without non-listeners, are NaN.
    """
    shuffled = rng.permutation(len(scores))
    hits = listeners[shuffled[np.argsort(-scores[shuffled], kind="stable")]]
    found = np.concatenate([[0], np.cumsum(hits)])
    total = int(found[-1])
    last = len(hits)
    values = {f"precision_{n}": found[min(n, last)] / n for n in AT}
    values[f"recall_{RECALL_AT}"] = found[min(RECALL_AT, last)] / total if total else np.nan
    values["r_precision"] = found[total] / total if total else np.nan
    others = last - total
    ranks = rankdata(scores)[listeners].sum()
    values["auc"] = (ranks - total * (total + 1) / 2) / (total * others) if total and others else np.nan
    return {name: float(value) for name, value in values.items()}
