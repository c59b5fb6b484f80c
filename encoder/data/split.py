"""Which songs are cold: one split for training, index, truth and every evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from encoder.data.dataset import Dataset

# Below 5 listeners the cosine of listener sets is mostly chance, so that there is no truth to meet.
MIN_LISTENERS = 5
COLD_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a data set, each int64 and ascending; songs with too few listeners are in neither.

    Attributes:
        warm: songs that people listen to: the only source of training, index, truth and idf.
        cold: songs that are played as if they were uploaded now; their listeners are the answer.
    """

    warm: NDArray[np.int64]
    cold: NDArray[np.int64]


def split(dataset: Dataset, seed: int) -> Split:
    """Drop songs with fewer than 5 listeners, then call a seeded tenth of the rest cold.

    Raises:
        ValueError: too few songs are left for one of the two sides.
    """
    listeners = np.diff(dataset.plays.indptr)
    kept = np.flatnonzero(listeners >= MIN_LISTENERS)
    n_cold = round(len(kept) * COLD_SHARE)
    if n_cold == 0:
        raise ValueError(
            f"{dataset.name}: {len(kept)} of {len(listeners)} songs have at least {MIN_LISTENERS} listeners; "
            "a split needs 6 or more such songs"
        )
    shuffled = np.random.default_rng(seed).permutation(kept)
    return Split(warm=np.sort(shuffled[n_cold:]), cold=np.sort(shuffled[:n_cold]))


def songs_of(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The data set of the given songs, in that order; users keep their columns.

    ``songs_of(dataset, split.warm)`` is all that training may see: no listen of a cold song is in it.
    """
    starts, ends = dataset.plays.indptr[rows], dataset.plays.indptr[rows + 1]
    played_at = None
    if dataset.played_at is not None:
        pieces = [dataset.played_at[a:b] for a, b in zip(starts, ends, strict=True)]
        played_at = np.concatenate(pieces) if pieces else np.empty(0)
    return replace(
        dataset,
        content=dataset.content.rows(rows),
        plays=dataset.plays[rows],
        played_at=played_at,
        titles=tuple(dataset.titles[row] for row in rows) if dataset.titles else (),
    )
