"""Two closed-form predictions of a song's audience vector from warm songs of similar content.

- *Kernel ridge*: k(x, y) = exp(-bandwidth/2 * |x - y|^2) against ``m`` landmark songs (exact while
  all songs are landmarks, else the Nystroem approximation of Williams & Seeger, NIPS 2000).
- *Nearest neighbours*: the mean vector of the ``neighbours`` most similar songs, weighted by similarity squared.

Fitting, and the predictions for songs of the training set: :mod:`encoder.leave_one_out`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.features import Features

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Rows per chunk: 64 MiB of float32 against 32,768 remembered songs.
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Memory:
    """The remembered warm songs; the first ``len(coefficients)`` of them are the landmarks.

    Attributes:
        bags, dense: their features, float32 csr (M, terms) and (M, D).
        vectors: float32 (M, r), their audience vectors.
        coefficients: float32 (m, r) of the kernel ridge.
        bandwidth: of the kernel, per unit of squared distance.
        neighbours: number of most similar songs averaged.
    """

    bags: sparse.csr_matrix
    dense: F32
    vectors: F32
    coefficients: F32
    bandwidth: float
    neighbours: int
    _transposed: sparse.csr_matrix = field(init=False, repr=False, compare=False)
    _squares: F32 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_transposed", self.bags.T.tocsr())
        object.__setattr__(self, "_squares", squared_lengths(self.bags, self.dense))

    @property
    def width(self) -> int:
        """Columns of a context: the two predictions side by side."""
        return 2 * int(self.vectors.shape[1])

    def context(self, songs: Features) -> F32:
        """float32 (n, 2 r) for songs that are not remembered: ridge prediction, then neighbours' mean."""
        out = np.empty((len(songs), self.width), np.float32)
        r = self.vectors.shape[1]
        for start in range(0, len(songs), _CHUNK):
            part = songs.rows(slice(start, start + _CHUNK))
            similarity = self.similarity(part)
            out[start : start + _CHUNK, :r] = self.kernel(part, similarity) @ self.coefficients
            out[start : start + _CHUNK, r:] = self.nearest(similarity)
        return out

    def similarity(self, songs: Features) -> F32:
        """float32 (n, M) inner products of features."""
        products = (songs.bags @ self._transposed).toarray()
        if self.dense.shape[1]:
            products += songs.dense @ self.dense.T
        return np.asarray(products, np.float32)

    def kernel(self, songs: Features, similarity: F32) -> F32:
        """float32 (n, m) kernel values against the landmarks, from inner products that start with the landmarks'."""
        m = len(self.coefficients)
        distance: F32 = self._squares[:m] - 2 * similarity[:, :m]
        distance += squared_lengths(songs.bags, songs.dense)[:, None]
        np.maximum(distance, 0, out=distance)
        distance *= -self.bandwidth / 2
        np.exp(distance, out=distance)
        return distance

    def nearest(self, similarity: F32) -> F32:
        """float32 (n, r): the neighbours' mean; zero for a song similar to none."""
        best = largest(similarity, min(self.neighbours, similarity.shape[1]))
        return self.mean(best, np.take_along_axis(similarity, best, axis=1))

    def mean(self, places: I64, similarity: F32) -> F32:
        """float32 (n, r): the mean of the given remembered songs (n, k), weighted by similarity (n, k) squared."""
        weights = np.maximum(similarity, 0) ** 2
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        n, k = places.shape
        starts = np.arange(n + 1) * k
        spread = sparse.csr_matrix((weights.ravel(), places.ravel(), starts), (n, len(self.vectors)))
        return np.asarray(spread @ self.vectors, np.float32)


def squared_lengths(bags: sparse.csr_matrix, dense: F32) -> F32:
    """float32 (n,) squared lengths of feature rows."""
    squares = np.asarray(bags.multiply(bags).sum(axis=1)).ravel()
    return np.asarray(squares + np.einsum("nd,nd->n", dense, dense), np.float32)


def largest(values: F32, k: int) -> I64:
    """int64 (n, k): columns of the k largest values of each row (n, m), unordered.

    They lie in the k groups with the largest maxima, so only these are partitioned: a fifth of the time for 20 of
    6,670.
    """
    n, m = values.shape
    if k == 0:
        return np.zeros((n, 0), np.int64)
    # As many groups as columns in the k best of them, because both are partitioned.
    each = round(float(np.sqrt(m / k)))
    if each < 2:
        return np.argpartition(values, m - k, axis=1)[:, m - k :]
    # Group g holds columns g, g + groups, g + 2 groups ...: the maxima of all groups are taken over long rows.
    groups = m // each
    maxima = values[:, : groups * each].reshape(n, each, groups).max(axis=1)
    best = np.argpartition(maxima, groups - k, axis=1)[:, groups - k :]
    places = (best[:, None, :] + groups * np.arange(each)[None, :, None]).reshape(n, -1)
    places = np.hstack([places, np.broadcast_to(np.arange(groups * each, m), (n, m - groups * each))])
    inner = np.argpartition(np.take_along_axis(values, places, axis=1), places.shape[1] - k, axis=1)[:, -k:]
    return np.take_along_axis(places, inner, axis=1)
