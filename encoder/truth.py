"""The truth for a cold song, and scores against it.

The truth is the 50 warm songs with the most similar sets of listeners by cosine, |A ∩ B| / sqrt(|A| |B|). Songs that
share no listener are never part of it, so a cold song can have fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.data.dataset import Dataset
from encoder.data.split import Split

K = 50
# Cold songs per chunk: a dense block of 256 x 200,000 warm songs is 205 MB.
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Truth:
    """The true neighbours of n cold songs among the warm ones.

    Attributes:
        neighbours: int64 (n, k), positions in the warm list, most similar first, padded with -1.
        cosines: float32 (n, k), the cosine of the two listener sets; 0 beside -1.
        listeners: int64 (n,), each cold song's number of listeners.
    """

    neighbours: NDArray[np.int64]
    cosines: NDArray[np.float32]
    listeners: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of retrieved songs against the truth, per cold song: float64 (n,), each in [0, 1].

    Attributes:
        recall: share of the true neighbours among the first k retrieved.
        ndcg: normalised discounted cumulative gain at k; see :func:`score`.
        quartile: int64 (n,), from 0 for the quarter of songs with the fewest listeners to 3.
    """

    recall: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    quartile: NDArray[np.int64]

    def by_quartile(self, values: NDArray[np.float64]) -> list[float]:
        """The mean of each quartile, the tail first; a quartile without songs is NaN."""
        means = [values[self.quartile == q] for q in range(4)]
        return [float(part.mean()) if len(part) else float("nan") for part in means]


def truth(dataset: Dataset, parts: Split, k: int = K) -> Truth:
    """The top ``k`` warm songs of every cold song by cosine of listener sets; equal cosines by warm position."""
    plays = dataset.plays
    listened = sparse.csr_matrix((np.ones(plays.nnz, np.float32), plays.indices, plays.indptr), plays.shape)
    return neighbours(listened[parts.cold], listened[parts.warm], k)


def neighbours(songs: sparse.csr_matrix, warm: sparse.csr_matrix, k: int) -> Truth:
    """The same for any two listener matrices, 0 or 1, (n, users) and (m, users)."""
    listeners = np.diff(songs.indptr).astype(np.int64)
    popularity = np.sqrt(np.maximum(np.diff(warm.indptr), 1)).astype(np.float32)
    n, m = songs.shape[0], warm.shape[0]
    found = np.full((n, k), -1, np.int64)
    cosines = np.zeros((n, k), np.float32)
    by_user = warm.T.tocsr()
    for start in range(0, n, BLOCK):
        block = slice(start, min(start + BLOCK, n))
        shared = (songs[block] @ by_user).toarray()
        cosine = shared / popularity / np.sqrt(np.maximum(listeners[block], 1)).astype(np.float32)[:, None]
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(cosine, order, axis=1)
        width = min(k, m)
        found[block, :width] = np.where(best > 0, order, -1)
        cosines[block, :width] = best
    return Truth(found, cosines, listeners)


def score(retrieved: NDArray[np.int64], answer: Truth) -> Scores:
    """Recall@k and NDCG@k of retrieved warm positions, int64 (n, k), most similar first; -1 is no song.

    NDCG is binary: a retrieved song at rank r (from 1) gains 1 / log2(r + 1) when it is one of the T true
    neighbours; the sum is divided by that of a perfect ranking, with min(T, k) of them in front.
    A cold song without a true neighbour scores 0; dropping it would flatter.

    Raises:
        ValueError: the numbers of cold songs differ.
    """
    n, k = retrieved.shape
    if n != len(answer.neighbours):
        raise ValueError(f"answers for {n} songs, but the truth has {len(answer.neighbours)}")
    size = (answer.neighbours >= 0).sum(axis=1)
    hits = np.zeros((n, k), bool)
    for row in range(n):
        hits[row] = np.isin(retrieved[row], answer.neighbours[row, : size[row]])
    discount = 1 / np.log2(np.arange(2, max(k, answer.neighbours.shape[1]) + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount[:k])])[np.minimum(size, k)]
    reachable = np.maximum(size, 1)
    return Scores(
        recall=hits.sum(axis=1) / reachable,
        ndcg=(hits @ discount[:k]) / np.where(size > 0, ideal, 1.0),
        quartile=quartiles(answer.listeners),
    )


def quartiles(listeners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Quartile of each song by number of listeners: int64 (n,), 0 is the tail; ties by position."""
    place = np.empty(len(listeners), np.int64)
    place[np.argsort(listeners, kind="stable")] = np.arange(len(listeners))
    return place * 4 // max(len(listeners), 1)
