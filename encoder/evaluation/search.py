"""The hyper-parameters that each variant's own validation prefers, at the same budget for all."""

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

# One seed for the draw of trials and the trials' training: another one would be another search.
_SEED = 0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        model: the config of the trial that was chosen.
        chosen: the fields that were open, and their values.
        value: mean of recall and NDCG of that trial on the validation songs; None where nothing was open.
        trials, of: how many were made, of how many that there are.
        seconds: what they took.
    """

    model: ModelSpec
    chosen: dict[str, Any]
    value: float | None
    trials: int
    of: int
    seconds: float


def best(arm: Variant, drawn: Sequence[dict[str, Any]], values: Sequence[F64], seconds: float) -> SearchResult:
    """The trial with the most gain over the first, which is the arm's own config, after a standard error is taken off.

    So the arm's own is left only for what is better by more than the noise of the validation songs.

    Args:
        values: of each trial, float64 (songs,), on the same songs.
    """
    gains = np.array(values) - values[0]
    surely = gains.mean(axis=1) - gains.std(axis=1, ddof=1) / math.sqrt(gains.shape[1])
    place = int(np.argmax(surely))
    mean = float(values[place].mean())
    return SearchResult(arm.varied(**drawn[place]), drawn[place], mean, len(drawn), size(arm), seconds)


def untried(arm: Variant) -> SearchResult:
    """The arm's own config."""
    return SearchResult(arm.model, {}, None, 0, size(arm), 0.0)


def size(arm: Variant) -> int:
    """How many configs an arm's space has."""
    return math.prod(len(values) for values in arm.space.values())


def draws(arm: Variant, budget: int) -> list[dict[str, Any]]:
    """The trials of a search: values by field, the arm's own first, then others without replacement.

    A space smaller than the budget is tried out whole; nothing is tried where nothing is open, or by a budget of 1.
    """
    everything = [dict(zip(arm.space, values, strict=True)) for values in product(*arm.space.values())]
    # A config outside its own space is still the first trial.
    own = [values for values in everything if arm.varied(**values) == arm.model] or [{}]
    others = [values for values in everything if arm.varied(**values) != arm.model]
    order = np.random.default_rng(_SEED).permutation(len(others))
    drawn = [*own, *(others[place] for place in order[: max(0, budget - len(own))])]
    return drawn if len(drawn) > 1 else []


def trial(arm: Variant, values: dict[str, Any], validation: Task) -> F64:
    """What a search goes by: the mean of recall and NDCG for each validation song, float64 (songs,)."""
    scores = judge(arm, arm.varied(**values), validation, _SEED)
    return (scores.recall + scores.ndcg) / 2


def judge(arm: Variant, model: ModelSpec, task: Task, seed: int) -> Scores:
    """Fits the model on the task's warm songs and scores what it retrieves for the cold ones."""
    cold = task.cold if arm.hears else unheard(task.cold)
    popularity = np.diff(task.warm.plays.indptr).astype(np.int64)
    return score(retrieve(model.fit(task.warm, task.rare, seed), cold, popularity), task.answer)
