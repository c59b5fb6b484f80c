"""Splits songs into warm, cold and rare, the same way for training, index, truth and evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.content import Bag, ContentTable
from encoder.data.dataset import Dataset

# Below 5 listeners the cosine of listener sets is mostly chance, so there is no truth to score against.
MIN_LISTENERS = 5
# A single listener says nothing about shared listeners.
RARE_LISTENERS = 2
COLD_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a data set, each int64 and ascending; songs with at most one listener are in none of them.

    Attributes:
        warm: songs that can be retrieved; the truth of the cold ones consists of them.
        cold: songs treated as if uploaded now; their listeners are hidden.
        rare: songs with 2 to 4 listeners: too few to be warm or cold, but training may learn from them.
    """

    warm: NDArray[np.int64]
    cold: NDArray[np.int64]
    rare: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def rare_rows(dataset: Dataset) -> NDArray[np.int64]:
    """The songs with 2 to 4 listeners, too few to be warm; the same for every split."""
    listeners = np.diff(dataset.plays.indptr)
    return np.flatnonzero((listeners >= RARE_LISTENERS) & (listeners < MIN_LISTENERS))


def split(dataset: Dataset, seed: int) -> Split:
    """Set songs with fewer than 5 listeners aside; a seeded tenth of the rest is cold.

    Raises:
        ValueError: too few songs are left for one of the two.
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
    return Split(np.sort(shuffled[n_cold:]), np.sort(shuffled[:n_cold]), rare_rows(dataset))


def songs_of(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """The data set of the given songs, in that order; users keep their columns.

    ``songs_of(dataset, split.warm)`` and the same of ``split.rare`` are all that training may see: they hold no listen
    of a cold song.
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


def together(first: Dataset, second: Dataset) -> Dataset:
    """The songs of two parts (:func:`songs_of`) of one data set, ``first`` first."""
    one, two = first.content, second.content
    content = ContentTable(
        (*one.song_ids, *two.song_ids),
        {name: np.vstack([values, two.dense[name]]) for name, values in one.dense.items()},
        {
            name: Bag(bag.terms, sparse.vstack([bag.weights, two.bags[name].weights], "csr"))
            for name, bag in one.bags.items()
        },
    )
    played_at = None
    if first.played_at is not None and second.played_at is not None:
        played_at = np.concatenate([first.played_at, second.played_at])
    plays = sparse.vstack([first.plays, second.plays], "csr")
    return replace(first, content=content, plays=plays, played_at=played_at, titles=(*first.titles, *second.titles))
