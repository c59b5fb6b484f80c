"""How is the work spread over processes? Fits share nothing, so that each is a job of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from time import perf_counter
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.data.dataset import Dataset
from encoder.data.layout import TAG_BAG
from encoder.data.split import split
from encoder.evaluation import damage, figures
from encoder.evaluation.arms import Arm
from encoder.evaluation.search import trial
from encoder.evaluation.task import Model, Task, Vectors, retrieve, task, unheard, validation
from encoder.truth import Scores, score

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Result = TypeVar("Result", covariant=True)

FULL = "full"
THINNED = "thinned"
ESTRANGED = "unseen"


@dataclass(slots=True)
class Work:
    """What every job reads.

    Attributes:
        dataset: all songs.
        seeds: on whose cold songs no hyper-parameter may be chosen.
    """

    dataset: Dataset
    seeds: tuple[int, ...]
    _known: dict[int | None, Task] = field(default_factory=dict, repr=False)

    def asked(self, seed: int | None) -> Task:
        """The question of a seed, or with None of the validation split; the last one is remembered."""
        if seed not in self._known:
            parts = validation(self.dataset, self.seeds) if seed is None else split(self.dataset, seed)
            self._known = {seed: task(self.dataset, parts)}
        return self._known[seed]


class Job(Protocol[Result]):
    """A piece of work that can be sent to another process."""

    def __call__(self, work: Work) -> Result:
        """Does it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of an arm's search; gives its value for each song, float64 (songs,), and the seconds it took."""

    arm: Arm
    values: dict[str, Any]

    def __call__(self, work: Work) -> tuple[F64, float]:
        asked = work.asked(None)
        started = perf_counter()
        return trial(self.arm, self.values, asked), perf_counter() - started


@dataclass(frozen=True, slots=True)
class Run:
    """An arm on a split.

    Attributes:
        scores: by the content that the cold songs had.
        seconds: that fitting took.
        gauges: of the space, if the arm has one.
        vectors: float32 (warm songs, d) and (cold songs, d), if they were asked for.
    """

    scores: dict[str, Scores]
    seconds: float
    gauges: dict[str, float]
    vectors: tuple[F32, F32] | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Fits an arm on the split of a seed, or with None on the validation split, and judges it.

    Attributes:
        damaged: whether to judge it on less and stranger content, too.
        vectors: whether to give the vectors.
    """

    arm: Arm
    model: Model
    seed: int | None
    damaged: bool
    vectors: bool

    def __call__(self, work: Work) -> Run:
        asked = work.asked(self.seed)
        started = perf_counter()
        fitted = self.model.fit(asked.warm, asked.rare, self.seed or 0)
        seconds = perf_counter() - started
        popularity = np.diff(asked.warm.plays.indptr).astype(np.int64)
        contents = contents_of(asked.cold, work.dataset, self.seed or 0) if self.damaged else {FULL: asked.cold}
        if not self.arm.hears:
            contents = {name: unheard(cold) for name, cold in contents.items()}
        scores = {name: score(retrieve(fitted, cold, popularity), asked.answer) for name, cold in contents.items()}
        # One dimension is no space: popularity.
        if not isinstance(fitted, Vectors) or fitted.warm.shape[1] < 2:
            return Run(scores, seconds, {}, None)
        cold = fitted.encode(contents[FULL])
        gauges = figures.gauges(cold, fitted.warm, asked.answer)
        return Run(scores, seconds, gauges, (fitted.warm, cold) if self.vectors else None)


def contents_of(cold: Dataset, dataset: Dataset, seed: int) -> Mapping[str, Dataset]:
    """The cold songs as they are, and damaged in each way that the content of the data set allows."""
    found = {FULL: cold}
    present = damage.modalities(dataset.content)
    bags = [name for name in present if name in cold.content.bags]
    if TAG_BAG in bags:
        found[THINNED] = replace(cold, content=damage.thinned(cold.content, TAG_BAG, seed))
    for name in present:
        found[f"without_{name}"] = replace(cold, content=damage.without(cold.content, name))
    if bags:
        found[ESTRANGED] = replace(cold, content=damage.estranged(cold.content, bags[0]))
    return found


def each(work: Work, jobs: Sequence[Job[Result]], processes: int) -> Iterator[tuple[int, Result]]:
    """The place of each job and what it gave: in order in this process, or in any order from several."""
    if processes == 1:
        yield from ((place, job(work)) for place, job in enumerate(jobs))
        return
    # Spawned, not forked: a fork of a process whose math libraries have threads can hang.
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (work,)) as pool:
        places = {pool.submit(_do, job): place for place, job in enumerate(jobs)}
        for done in as_completed(places):
            yield places[done], done.result()


_here: list[Work] = []


def _begin(work: Work) -> None:
    _here.append(work)


def _do(job: Job[Result]) -> Result:
    return job(_here[0])
