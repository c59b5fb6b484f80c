"""Which settings of an arm are best, judged on songs that are not the test's?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from targeting.evaluation.arms import Arm
from targeting.evaluation.loaded import Loaded
from targeting.evaluation.metrics import judged

# What is maximised: precision@100 of songs with at least this many listeners.
LISTENERS = 20
MEASURE = "precision_100"
# Songs of each case that are looked at: more only make the choice among neighbours on a plateau surer.
_SONGS = 60


def tuned(arm: Arm, choices: dict[str, tuple[Any, ...]], validation: Sequence[Loaded]) -> Arm:
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


def _mean(arm: Arm, validation: Sequence[Loaded]) -> float:
    values = []
    for loaded in validation:
        songs = np.flatnonzero(np.diff(loaded.case.truth.indptr) >= LISTENERS)[:_SONGS]
        for song in songs.tolist():
            scores = arm.score(loaded, song, arm.config)
            values.append(judged(scores, loaded.case.listeners(song), np.random.default_rng(song))[MEASURE])
    return float(np.mean(values)) if values else 0.0
