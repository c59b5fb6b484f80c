"""Spreads the work over processes: fits share nothing, so each is a job."""

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
from encoder.data.world import World
from encoder.evaluation import damage, figures
from encoder.evaluation.retrieval_task import ModelSpec, Task, in_space, retrieve, task, unheard, validation
from encoder.evaluation.search import trial
from encoder.evaluation.truths import Truths, judge, truths
from encoder.evaluation.variants import Variant
from encoder.truth import Scores, score

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Result = TypeVar("Result", covariant=True)

FULL = "full"
THINNED = "thinned"
ESTRANGED = "unseen"


@dataclass(slots=True)
class Work:
    """The input of every job.

    Attributes:
        dataset: all songs.
        seeds: no hyper-parameter may be chosen on their cold songs.
        world: the world that the data set was generated from, if any.
    """

    dataset: Dataset
    seeds: tuple[int, ...]
    world: World | None = None
    _known: dict[int | None, Task] = field(default_factory=dict, repr=False)
    _true: dict[int, Truths] = field(default_factory=dict, repr=False)

    def asked(self, seed: int | None) -> Task:
        """The task of a seed, or of the validation split for None; the last one is cached."""
        if seed not in self._known:
            parts = validation(self.dataset, self.seeds) if seed is None else split(self.dataset, seed)
            self._known = {seed: task(self.dataset, parts)}
        return self._known[seed]

    def truths(self, seed: int) -> Truths:
        """The truths of a seed's cold songs; the last ones are cached."""
        if seed not in self._true:
            self._true = {seed: truths(self.asked(seed), seed, self.world)}
        return self._true[seed]


class Job(Protocol[Result]):
    """A job that can be sent to another process."""

    def __call__(self, work: Work) -> Result:
        """Runs the job."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial of a variant's search; returns its value for each song, float64 (songs,), and its seconds."""

    arm: Variant
    values: dict[str, Any]

    def __call__(self, work: Work) -> tuple[F64, float]:
        asked = work.asked(None)
        started = perf_counter()
        return trial(self.arm, self.values, asked), perf_counter() - started


@dataclass(frozen=True, slots=True)
class VariantRun:
    """A variant on a split.

    Attributes:
        scores: by the (damaged) content of the cold songs.
        further: by measure of :mod:`encoder.evaluation.truths`, float64 (cold songs,); none on the validation split.
        seconds: of fitting.
        gauges: of the space, if the variant has one.
        vectors: float32 (warm songs, d) and (cold songs, d), if requested.
    """

    scores: dict[str, Scores]
    further: dict[str, F64]
    seconds: float
    gauges: dict[str, float]
    vectors: tuple[F32, F32] | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Fits and judges a variant on the split of a seed, or on the validation split for None.

    Attributes:
        damaged: whether to judge it on damaged content as well.
        vectors: whether to return the vectors.
    """

    arm: Variant
    model: ModelSpec
    seed: int | None
    damaged: bool
    vectors: bool

    def __call__(self, work: Work) -> VariantRun:
        asked = work.asked(self.seed)
        started = perf_counter()
        fitted = self.model.fit(asked.warm, asked.rare, self.seed or 0)
        seconds = perf_counter() - started
        popularity = np.diff(asked.warm.plays.indptr).astype(np.int64)
        contents = contents_of(asked.cold, work.dataset, self.seed or 0) if self.damaged else {FULL: asked.cold}
        if not self.arm.hears:
            contents = {name: unheard(cold) for name, cold in contents.items()}
        found = {name: retrieve(fitted, cold, popularity) for name, cold in contents.items()}
        scores = {name: score(retrieved, asked.answer) for name, retrieved in found.items()}
        further = {}
        if self.seed is not None:
            further = judge(asked, work.truths(self.seed), found[FULL], fitted, contents[FULL])
        space = in_space(fitted)
        if space is None:
            return VariantRun(scores, further, seconds, {}, None)
        cold = space.encode(contents[FULL])
        gauges = figures.gauges(cold, space.warm, asked.answer)
        return VariantRun(scores, further, seconds, gauges, (space.warm, cold) if self.vectors else None)


def contents_of(cold: Dataset, dataset: Dataset, seed: int) -> Mapping[str, Dataset]:
    """The cold songs as they are, and damaged in each way that the data set's content allows."""
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
    """Each job's place and result: in order in this process, in any order from several."""
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
