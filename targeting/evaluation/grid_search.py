"""Finds the best settings of a variant, on songs that are not the test's."""

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

# What is maximised: precision@100 of songs with at least this many listeners.
LISTENERS = 20
MEASURE = "precision_100"
# Songs of each case that are looked at, drawn by a seed: the rows of a data set may stand in an order that means
# something, and the first of them have more listeners than the others.
_SONGS = 100
_SEED = 0


def tuned(arm: RankingVariant, choices: dict[str, tuple[Any, ...]], validation: Sequence[Loaded]) -> RankingVariant:
    """The arm with the best config that is found field by field, all fields twice."""
    known: dict[Any, float] = {}

    def value(config: Any) -> float:
        if config not in known:
            known[config] = _mean(replace(arm, config=config), validation)
        return known[config]

    best = arm.config
    for _ in range(2):
        for field, values in choices.items():
            # The first of equals, the present one before all: a choice without a reason is not a change.
            best = max([best, *(replace(best, **{field: each}) for each in values)], key=value)
    return replace(arm, config=best)


def drawn(case: Case) -> I64:
    """The cold songs that a choice is made on, int64, ascending: some of those with enough listeners."""
    enough = np.flatnonzero(np.diff(case.truth.indptr) >= LISTENERS)
    return np.sort(np.random.default_rng(_SEED).permutation(enough)[:_SONGS])


def _mean(arm: RankingVariant, validation: Sequence[Loaded]) -> float:
    values = []
    for loaded in validation:
        for song in drawn(loaded.case).tolist():
            scores = arm.score(loaded, song, arm.config)
            values.append(judged(scores, loaded.case.listeners(song), np.random.default_rng(song))[MEASURE])
    return float(np.mean(values)) if values else 0.0
