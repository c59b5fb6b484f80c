"""Which hyper-parameters does an arm get? Those that its own validation prefers, at the same budget for every arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np

from encoder.evaluation.arms import Arm
from encoder.evaluation.task import Model, Task, retrieve, unheard
from encoder.truth import Scores, score

# One seed for the draw of trials and the trials' training: another one would be another search.
_SEED = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search.

    Attributes:
        model: the config of the best trial.
        chosen: the fields that were open, and their values.
        value: mean of recall and NDCG of the best trial on the validation songs; None where nothing was open.
        trials: how many were made.
        seconds: what they took.
    """

    model: Model
    chosen: dict[str, Any]
    value: float | None
    trials: int
    seconds: float


def search(arm: Arm, validation: Task, budget: int, tell: Callable[[int, int], None] = lambda *_: None) -> Found:
    """Tries the arm's own config, then others drawn without replacement from its space, ``budget`` in all.

    An arm whose space is smaller is tried out whole; with a budget below 2 the arm's own config stands untried.
    """
    drawn = draws(arm, budget)
    if budget < 2 or len(drawn) < 2:
        return Found(arm.model, {}, None, 0, 0.0)
    started = perf_counter()
    best: tuple[float, dict[str, Any]] | None = None
    for done, values in enumerate(drawn):
        tell(done, len(drawn))
        scores = judge(arm, arm.varied(**values), validation, _SEED)
        value = float(scores.recall.mean() + scores.ndcg.mean()) / 2
        # The first of equals, so that the arm's own config is left for a reason only.
        if best is None or value > best[0]:
            best = value, values
    assert best is not None
    return Found(arm.varied(**best[1]), best[1], best[0], len(drawn), perf_counter() - started)


def draws(arm: Arm, budget: int) -> list[dict[str, Any]]:
    """The trials of a search: values by field, the arm's own first."""
    everything = [dict(zip(arm.space, values, strict=True)) for values in product(*arm.space.values())]
    # A config outside its own space is still the first trial.
    own = [values for values in everything if arm.varied(**values) == arm.model] or [{}]
    others = [values for values in everything if arm.varied(**values) != arm.model]
    order = np.random.default_rng(_SEED).permutation(len(others))
    return [*own, *(others[place] for place in order[: max(0, budget - len(own))])]


def judge(arm: Arm, model: Model, task: Task, seed: int) -> Scores:
    """Fits the model on the task's warm songs and scores what it retrieves for the cold ones."""
    cold = task.cold if arm.hears else unheard(task.cold)
    popularity = np.diff(task.warm.plays.indptr).astype(np.int64)
    return score(retrieve(model.fit(task.warm, seed), cold, popularity), task.answer)
