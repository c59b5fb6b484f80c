"""The retrieval task: what a variant is given, what it must find, and where hyper-parameters may be chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.data.dataset import Dataset
from encoder.data.split import COLD_SHARE, MIN_LISTENERS, Split, rare_rows, songs_of, split
from encoder.truth import BLOCK, K, Truth, truth

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Random stream of the validation draw, apart from the splits', whose seeds are 0, 1, 2 ...
_VALIDATION = 0x5EED


class FittedModel(Protocol):
    """A variant that has learned the warm songs."""

    def scores(self, cold: Dataset) -> F32:
        """float32 (cold songs, warm songs): higher scores are retrieved first."""


class ModelSpec(Protocol):
    """A frozen configuration of a variant; trials differ in its fields."""

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> FittedModel:
        """Learns the songs of ``warm``, which are retrieved, and optionally those of ``rare``, which are not.

        Equal arguments give equal scores.
        """


@dataclass(frozen=True, slots=True)
class Vectors:
    """A fitted variant that lives in a space: retrieval is by inner product.

    Attributes:
        warm: float32 (n, d).
        encode: returns float32 (cold songs, d).
    """

    warm: F32
    encode: Callable[[Dataset], F32]

    def scores(self, cold: Dataset) -> F32:
        return np.asarray(self.encode(cold) @ self.warm.T, np.float32)


def in_space(fitted: FittedModel) -> Vectors | None:
    """The fitted variant if it lives in a space; one dimension, as of popularity, is none."""
    return fitted if isinstance(fitted, Vectors) and fitted.warm.shape[1] > 1 else None


@dataclass(frozen=True, slots=True)
class Task:
    """A split as a retrieval task.

    Attributes:
        split: rows of the data set.
        warm: the warm songs, which can be retrieved.
        rare: songs with too few listeners to be warm, which a variant may learn from.
        cold: the cold songs; variants see their content, only the ceiling their listens.
        answer: their true neighbours.
    """

    split: Split
    warm: Dataset
    rare: Dataset
    cold: Dataset
    answer: Truth


def task(dataset: Dataset, parts: Split) -> Task:
    """The task of a split."""
    warm, rare, cold = (songs_of(dataset, rows) for rows in (parts.warm, parts.rare, parts.cold))
    return Task(parts, warm, rare, cold, truth(dataset, parts))


def validation(dataset: Dataset, seeds: Sequence[int]) -> Split:
    """The split on which hyper-parameters are chosen: a tenth of the songs, none of them cold under any seed.

    So no song on which a choice was made is ever scored. With too many seeds for that, the last ones are dropped.

    Raises:
        ValueError: the data set is too small to split.
    """
    kept = np.flatnonzero(np.diff(dataset.plays.indptr) >= MIN_LISTENERS)
    wanted = max(1, round(len(kept) * COLD_SHARE))
    free = kept
    for seed in seeds:
        fewer = np.setdiff1d(free, split(dataset, seed).cold)
        if len(fewer) < wanted:
            break
        free = fewer
    cold = np.sort(np.random.default_rng(_VALIDATION).permutation(free)[:wanted])
    return Split(np.setdiff1d(kept, cold), cold, rare_rows(dataset))


def unheard(cold: Dataset) -> Dataset:
    """The songs as at upload: content without listens."""
    return replace(cold, plays=sparse.csr_matrix(cold.plays.shape, dtype=np.float32), played_at=None)


def retrieve(fitted: FittedModel, cold: Dataset, popularity: I64, k: int = K) -> I64:
    """int64 (cold songs, k): warm positions, best first, padded with -1.

    Ties go by ``popularity``, int64 (warm songs,), the number of listeners: a variant that knows nothing about a song
    returns popular songs, not the first rows.
    """
    by_popularity = np.argsort(-popularity, kind="stable")
    found = np.full((len(cold.song_ids), k), -1, np.int64)
    width = min(k, len(popularity))
    for start in range(0, len(found), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(found)))
        scores = fitted.scores(songs_of(cold, rows))[:, by_popularity]
        # Sorts only what reaches the last place: a quarter of the time for 20,000 songs.
        least = np.partition(scores, -width, axis=1)[:, -width]
        for row, own, limit in zip(rows, scores, least, strict=True):
            reaching = np.flatnonzero(own >= limit)
            best = reaching[np.argsort(-own[reaching], kind="stable")[:width]]
            found[row, :width] = by_popularity[best]
    return found
