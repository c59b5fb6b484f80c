"""Finds the best settings of a variant on validation songs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from targeting.arrays.id_table import I64
from targeting.evaluation.case import Case
from targeting.evaluation.loaded import Loaded
from targeting.evaluation.ranking_metrics import judged
from targeting.evaluation.ranking_variants import RankingVariant

# The objective is precision@100 of songs with at least this many listeners.
LISTENERS = 20
MEASURE = "precision_100"
# Songs used of each case, drawn by a seed: the order of a data set's rows may mean something, and its first ones have
# more listeners.
_SONGS = 100
_SEED = 0


def tuned(variant: RankingVariant, choices: dict[str, tuple[Any, ...]], validation: Sequence[Loaded]) -> RankingVariant:
    """The variant with the best config found field by field, two rounds over all fields."""
    known: dict[Any, float] = {}

    def value(config: Any) -> float:
        if config not in known:
            known[config] = _mean(replace(variant, config=config), validation)
        return known[config]

    best = variant.config
    for _ in range(2):
        for field, values in choices.items():
            # The first of equals, with the current one in front: no change without a reason.
            best = max([best, *(replace(best, **{field: each}) for each in values)], key=value)
    return replace(variant, config=best)


def drawn(case: Case) -> I64:
    """The cold songs to choose on, int64, ascending: some of those with enough listeners."""
    enough = np.flatnonzero(np.diff(case.truth.indptr) >= LISTENERS)
    return np.sort(np.random.default_rng(_SEED).permutation(enough)[:_SONGS])


def _mean(variant: RankingVariant, validation: Sequence[Loaded]) -> float:
    values = []
    for loaded in validation:
        for song in drawn(loaded.case).tolist():
            scores = variant.score(loaded, song, variant.config)
            values.append(judged(scores, loaded.case.listeners(song), np.random.default_rng(song))[MEASURE])
    return float(np.mean(values)) if values else 0.0
