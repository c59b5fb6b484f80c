"""Fits how much users' activity counts.

Fitted on warm songs made cold, none of which are judged: the power of activity (:mod:`targeting.ranking.activity`) with
which the first users of a song include the most listeners. 0 is among the choices, and stays if no other gains more
than chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from targeting.evaluation.case import Case, some
from targeting.evaluation.loaded import load
from targeting.evaluation.ranking_metrics import AT
from targeting.ranking.activity import factors
from targeting.ranking.scoring import ScoreWeights
from targeting.types import F64

POWERS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
# Minimum listeners of a song to judge by: of fewer, the first 50 users can hardly include any.
LISTENERS = 20
# The gain is flat around its best, while with every step pushes gather on busy users and fit less: the smallest power
# with this share of the gain is enough.
_OF_THE_GAIN = 0.9
# Standard errors below which the best gain counts as chance, being the best of several; and the minimum number of
# songs for a usable standard error.
_STANDARD_ERRORS = 3.0
_FEWEST = 10


def strength(cases: Sequence[Case], config: ScoreWeights | None = None) -> float:
    """The smallest power of activity with nine tenths of the best gain in precision over power 0.

    Args:
        config: production's score weights; by default its own.
    """
    found = precisions(cases, config or ScoreWeights())
    if len(found) < _FEWEST:
        return 0.0
    gains = (found - found[:, :1]).mean(axis=0)
    best = int(gains.argmax())
    gained = found[:, best] - found[:, 0]
    if gains[best] <= _STANDARD_ERRORS * gained.std(ddof=1) / np.sqrt(len(found)):
        return 0.0
    return POWERS[int(np.flatnonzero(gains >= _OF_THE_GAIN * gains[best])[0])]


def precisions(cases: Sequence[Case], config: ScoreWeights) -> F64:
    """The mean of precision@50, @100 and @200 of each song, float64 (songs, powers)."""
    rows = []
    for case in cases:
        loaded = load(case)
        listeners = np.diff(case.truth.indptr)
        for song in some(np.flatnonzero(listeners >= LISTENERS)).tolist():
            scored = loaded.scored(song, config)
            heard, listened = loaded.histories.heard(scored.users), case.listeners(song)[scored.users]
            rows.append([_precision(scored.scores * factors(heard, power), listened) for power in POWERS])
    return np.asarray(rows, np.float64).reshape(len(rows), len(POWERS))


def _precision(scores: np.ndarray, listened: np.ndarray) -> float:
    first = np.arange(len(scores))
    if AT[-1] < len(scores):
        first = np.argpartition(-scores, AT[-1])[: AT[-1]]
    hits = np.cumsum(listened[first[np.argsort(-scores[first], kind="stable")]])
    return float(np.mean([hits[min(n, len(hits)) - 1] / n if len(hits) else 0.0 for n in AT]))
