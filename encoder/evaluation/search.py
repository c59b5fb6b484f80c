"""Hyper-parameter search on validation songs, with the same budget for every variant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.retrieval_task import ModelSpec, Task, retrieve, unheard
from encoder.evaluation.variants import Variant
from encoder.truth import Scores, score

F64 = NDArray[np.float64]

# One seed for drawing trials and for their training; another one would be another search.
_SEED = 0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        model: the config of the chosen trial.
        chosen: the open fields and their values.
        value: that trial's mean of recall and NDCG on the validation songs; None if nothing was open.
        trials, of: number of trials made, of possible configs.
        seconds: of all trials.
    """

    model: ModelSpec
    chosen: dict[str, Any]
    value: float | None
    trials: int
    of: int
    seconds: float


def best(arm: Variant, drawn: Sequence[dict[str, Any]], values: Sequence[F64], seconds: float) -> SearchResult:
    """The trial with the largest gain over the first (the variant's own config) minus a standard error.

    So another config replaces the variant's own only if its gain exceeds the noise of the validation songs.

    Args:
        values: of each trial, float64 (songs,), on the same songs.
    """
    gains = np.array(values) - values[0]
    surely = gains.mean(axis=1) - gains.std(axis=1, ddof=1) / math.sqrt(gains.shape[1])
    place = int(np.argmax(surely))
    mean = float(values[place].mean())
    return SearchResult(arm.varied(**drawn[place]), drawn[place], mean, len(drawn), size(arm), seconds)


def untried(arm: Variant) -> SearchResult:
    """The variant's own config."""
    return SearchResult(arm.model, {}, None, 0, size(arm), 0.0)


def size(arm: Variant) -> int:
    """Number of configs in a variant's space."""
    return math.prod(len(values) for values in arm.space.values())


def draws(arm: Variant, budget: int) -> list[dict[str, Any]]:
    """The trials of a search: values by field, the variant's own first, then others without replacement.

    A space smaller than the budget is tried completely; nothing is tried if nothing is open or the budget is 1.
    """
    everything = [dict(zip(arm.space, values, strict=True)) for values in product(*arm.space.values())]
    # A config outside its own space is still the first trial.
    own = [values for values in everything if arm.varied(**values) == arm.model] or [{}]
    others = [values for values in everything if arm.varied(**values) != arm.model]
    order = np.random.default_rng(_SEED).permutation(len(others))
    drawn = [*own, *(others[place] for place in order[: max(0, budget - len(own))])]
    return drawn if len(drawn) > 1 else []


def trial(arm: Variant, values: dict[str, Any], validation: Task) -> F64:
    """The search's objective: mean of recall and NDCG for each validation song, float64 (songs,)."""
    scores = judge(arm, arm.varied(**values), validation, _SEED)
    return (scores.recall + scores.ndcg) / 2


def judge(arm: Variant, model: ModelSpec, task: Task, seed: int) -> Scores:
    """Fits the model on the task's warm songs and scores what it retrieves for the cold ones."""
    cold = task.cold if arm.hears else unheard(task.cold)
    popularity = np.diff(task.warm.plays.indptr).astype(np.int64)
    return score(retrieve(model.fit(task.warm, task.rare, seed), cold, popularity), task.answer)
