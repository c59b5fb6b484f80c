"""What is asked of a variant, what it may see, and on which songs a hyper-parameter may be chosen."""

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

# Stream of the validation's draw: apart from the splits', whose seeds are 0, 1, 2 and so on.
_VALIDATION = 0x5EED


class FittedModel(Protocol):
    """An arm that has learned the warm songs."""

    def scores(self, cold: Dataset) -> F32:
        """float32 (cold songs, warm songs): the higher, the sooner retrieved."""


class ModelSpec(Protocol):
    """A frozen configuration of an arm: what differs between two trials of it are its fields."""

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> FittedModel:
        """Learns the songs of ``warm``, which it will retrieve, and if it likes those of ``rare``, which it will not.

        Equal arguments give equal scores.
        """


@dataclass(frozen=True, slots=True)
class Vectors:
    """A fitted arm that lives in a space: retrieval is by inner product.

    Attributes:
        warm: float32 (n, d).
        encode: gives float32 (cold songs, d).
    """

    warm: F32
    encode: Callable[[Dataset], F32]

    def scores(self, cold: Dataset) -> F32:
        return np.asarray(self.encode(cold) @ self.warm.T, np.float32)


def in_space(fitted: FittedModel) -> Vectors | None:
    """The fitted arm if it lives in a space; one dimension is none: popularity."""
    return fitted if isinstance(fitted, Vectors) and fitted.warm.shape[1] > 1 else None


@dataclass(frozen=True, slots=True)
class Task:
    """One split as a question.

    Attributes:
        split: rows of the data set.
        warm: the warm songs, all that can be retrieved.
        rare: songs with too few listeners to be warm, for an arm to learn from if it likes.
        cold: the cold songs; their content is what an arm is asked about, their listens only the ceiling may see.
        answer: their true neighbours.
    """

    split: Split
    warm: Dataset
    rare: Dataset
    cold: Dataset
    answer: Truth


def task(dataset: Dataset, parts: Split) -> Task:
    """The question that a split asks."""
    warm, rare, cold = (songs_of(dataset, rows) for rows in (parts.warm, parts.rare, parts.cold))
    return Task(parts, warm, rare, cold, truth(dataset, parts))


def validation(dataset: Dataset, seeds: Sequence[int]) -> Split:
    """The split on which hyper-parameters are chosen: a tenth of the songs, none of them cold under any seed.

    So no song on which a choice was made is ever scored, whichever seed asks. Seeds are left out from the end when
    there are so many that too few songs would be cold under none.

    Raises:
        ValueError: the data set is too small to be split at all.
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
    """The songs as they are at upload: content, and not one listen."""
    return replace(cold, plays=sparse.csr_matrix(cold.plays.shape, dtype=np.float32), played_at=None)


def retrieve(fitted: FittedModel, cold: Dataset, popularity: I64, k: int = K) -> I64:
    """int64 (cold songs, k): warm positions, best first; -1 where there are fewer warm songs than k.

    Equal scores go by ``popularity``, int64 (warm songs,), the number of listeners: an arm that knows nothing about
    a song gives what most people hear, and is not punished with the order of the rows.
    """
    by_popularity = np.argsort(-popularity, kind="stable")
    found = np.full((len(cold.song_ids), k), -1, np.int64)
    width = min(k, len(popularity))
    for start in range(0, len(found), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(found)))
        scores = fitted.scores(songs_of(cold, rows))[:, by_popularity]
        # Only what reaches the last place is sorted: of 20,000 songs a quarter of the time.
        least = np.partition(scores, -width, axis=1)[:, -width]
        for row, own, limit in zip(rows, scores, least, strict=True):
            reaching = np.flatnonzero(own >= limit)
            best = reaching[np.argsort(-own[reaching], kind="stable")[:width]]
            found[row, :width] = by_popularity[best]
    return found
