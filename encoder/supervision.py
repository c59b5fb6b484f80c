"""Who shares listeners with whom? Audience vectors and targets of warm songs, from their listens alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Songs compared with all others at once: when each shares listeners with 20,000 songs, 60 MB.
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Targets:
    """What each song should retrieve: padded to k columns, weight 0 where there are fewer.

    Attributes:
        songs: int64 (n, k), the warm songs with the most similar listener sets, itself excluded.
        weights: float32 (n, k), proportional to that similarity, rows sum to 1 (0 if no listener is shared).
    """

    songs: I64
    weights: F32

    def weighed(self, importance: NDArray[np.float64]) -> Targets:
        """The same with rows that sum to the importance (n,) of each song."""
        return Targets(self.songs, (self.weights * importance[:, None]).astype(np.float32))


def listener_rows(plays: sparse.csr_matrix) -> sparse.csr_matrix:
    """float32 csr (songs, users): sets of listeners as rows of unit length."""
    rows = plays.copy().astype(np.float32)
    rows.data[:] = 1
    counts = np.diff(rows.indptr)
    return sparse.diags_array(1 / np.sqrt(np.maximum(counts, 1)), dtype=np.float32).tocsr() @ rows


def audience_vectors(
    listeners: sparse.csr_matrix, rank: int, rng: np.random.Generator, rare: sparse.csr_matrix | None = None
) -> F32:
    """float32 (songs, rank), unit rows: left singular vectors times singular values, largest first.

    The ``rare`` songs' rows follow: their listeners as the right singular vectors see them, on which they have no say.

    Randomised range finder with power iterations (Halko, Martinsson & Tropp, SIAM Review 2011, algorithm 4.4).
    Fewer than ``rank`` columns are returned when there are fewer songs or users.
    """
    n, users = listeners.shape
    rank = min(rank, n, users)
    transposed = listeners.T.tocsr()
    # Some columns more than wanted and four iterations: the spectra here are flat.
    width = min(rank + 64, n, users)
    basis = rng.standard_normal((n, width)).astype(np.float32)
    for _ in range(5):
        basis = linalg.qr(listeners @ (transposed @ basis), mode="economic")[0]
    small = (transposed @ basis).astype(np.float64)
    values, rotation = linalg.eigh(small.T @ small)
    order = np.argsort(-values)[:rank]
    vectors = (basis @ rotation[:, order]) * np.sqrt(np.maximum(values[order], 0))
    if rare is not None and rare.shape[0]:
        # A direction without listeners, of which there are some where songs are fewer than columns, stays empty.
        users = (transposed @ vectors) * (values[order] > 1e-9) / np.maximum(values[order], 1e-9)
        vectors = np.vstack([vectors, rare @ users])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return np.asarray(vectors, np.float32)


def targets(listeners: sparse.csr_matrix, k: int, rare: sparse.csr_matrix | None = None) -> Targets:
    """The k most similar warm songs of each warm song, and of each of the ``rare`` ones, by cosine of listener sets."""
    n = listeners.shape[0]
    k = min(k, n - 1)
    asked = listeners if rare is None else sparse.vstack([listeners, rare], "csr")
    transposed = listeners.T.tocsr()
    # Where fewer songs share a listener, the next song stands in with weight 0: the song itself must not.
    songs = np.repeat((np.arange(asked.shape[0]) + 1)[:, None] % n, k, axis=1)
    weights = np.zeros(songs.shape, np.float32)
    for start in range(0, len(songs), _CHUNK):
        similarity = (asked[start : start + _CHUNK] @ transposed).tocsr()
        for row, (a, b) in enumerate(zip(similarity.indptr[:-1], similarity.indptr[1:], strict=True), start):
            others = a + np.flatnonzero(similarity.indices[a:b] != row)
            if len(others) > k:
                others = others[np.argpartition(similarity.data[others], -k)[-k:]]
            songs[row, : len(others)] = similarity.indices[others]
            weights[row, : len(others)] = similarity.data[others]
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return Targets(songs, weights)
