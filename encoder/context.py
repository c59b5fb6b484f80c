"""What do the warm songs of similar content say? Two predictions of a song's audience vector, in closed form.

- *Kernel ridge*: k(x, y) = exp(-bandwidth/2 * |x - y|^2) against ``m`` landmark songs (all of them while they are
  few: then it is exact; beyond that the Nystroem approximation of Williams & Seeger, NIPS 2000).
- *Nearest neighbours*: the mean vector of the ``neighbours`` most similar songs, weighted by similarity squared.

A song being trained on must not see its own audience through them: :class:`LeaveOneOut` gives, for any content
of training song i, the prediction of the model fitted without i, exactly and without refitting (the hat-matrix
identity of Allen's PRESS, Technometrics 1974).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from encoder.features import Features

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Rows handled at once: 256 rows against 32,768 remembered songs are 64 MiB of float64.
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Memory:
    """The remembered warm songs; the first ``len(coefficients)`` of them are the landmarks.

    Attributes:
        bags, dense: their features, float32 csr (M, terms) and (M, D).
        vectors: float32 (M, r), their audience vectors.
        coefficients: float32 (m, r) of the kernel ridge.
        bandwidth: of the kernel, per unit of squared distance.
        neighbours: how many of the most similar songs are averaged.
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
        """float32 (n, m) kernel values against the landmarks."""
        m = len(self.coefficients)
        distance: F32 = self._squares[:m] - 2 * similarity[:, :m]
        distance += squared_lengths(songs.bags, songs.dense)[:, None]
        np.maximum(distance, 0, out=distance)
        distance *= -self.bandwidth / 2
        np.exp(distance, out=distance)
        return distance

    def nearest(self, similarity: F32) -> F32:
        """float32 (n, r): the neighbours' mean; zero for a song that resembles none."""
        k = min(self.neighbours, similarity.shape[1])
        if not k:
            return np.zeros((len(similarity), self.vectors.shape[1]), np.float32)
        best = np.argpartition(similarity, -k, axis=1)[:, -k:]
        weights = np.maximum(np.take_along_axis(similarity, best, axis=1), 0) ** 2
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        mean: F32 = np.einsum("nk,nkr->nr", weights, self.vectors[best], dtype=np.float32)
        return mean


def squared_lengths(bags: sparse.csr_matrix, dense: F32) -> F32:
    """float32 (n,) squared lengths of feature rows."""
    squares = np.asarray(bags.multiply(bags).sum(axis=1)).ravel()
    return np.asarray(squares + np.einsum("nd,nd->n", dense, dense), np.float32)


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The memory as seen by its own songs, each with itself left out.

    Attributes:
        memory: the fitted memory.
        songs: features of the n training songs.
        vectors: float32 (n, r), their audience vectors.
        place: int64 (n,), each song's row in the memory, -1 when it is not remembered.
        ridge: float32 (n,), each song's.
        whitening: float32 (m, m); the hat matrix between songs i and j is (k_i W) . (k_j W) / ridge_j.
    """

    memory: Memory
    songs: Features
    vectors: F32
    place: I64
    ridge: F32
    whitening: F32

    def contexts(self, versions: Sequence[Features]) -> F32:
        """float32 (versions, n, 2 r): contexts of versions of the n training songs, each without that song."""
        memory, n = self.memory, len(self.songs)
        out = np.empty((len(versions), n, memory.width), np.float32)
        r = memory.vectors.shape[1]
        for start in range(0, n, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            own = self.songs.rows(chunk)
            kernel = memory.kernel(own, memory.similarity(own))
            hidden = kernel @ self.whitening
            leverage = np.einsum("nm,nm->n", hidden, hidden) / self.ridge[chunk]
            # The leverage reaches 1 only without regularisation; the floor guards float32 rounding.
            residual = (self.vectors[chunk] - kernel @ memory.coefficients) / np.maximum(1 - leverage, 1e-3)[:, None]
            influence = (hidden @ self.whitening.T) / self.ridge[chunk, None]
            remembered = np.flatnonzero(self.place[chunk] >= 0)
            for version, features in enumerate(versions):
                part = features.rows(chunk)
                similarity = memory.similarity(part)
                kernel = memory.kernel(part, similarity)
                pull = np.einsum("nm,nm->n", kernel, influence)
                out[version, chunk, :r] = kernel @ memory.coefficients - pull[:, None] * residual
                similarity[remembered, self.place[chunk][remembered]] = -np.inf
                out[version, chunk, r:] = memory.nearest(similarity)
        return out


def fit(
    songs: Features,
    vectors: F32,
    *,
    bandwidth: float,
    ridge: F32,
    neighbours: int,
    landmarks: int,
    remembered: int,
    rng: np.random.Generator,
    warm: int | None = None,
) -> LeaveOneOut:
    """Fits both predictions of ``vectors`` (n, r) from the songs' features.

    Minimises sum_i |f(x_i) - v_i|^2 / ridge_i + |f|^2 in the kernel's space, over at most ``landmarks`` songs drawn
    at random; the neighbours come from at most ``remembered`` songs, the landmarks among them. Of the first ``warm``
    songs more is known: only when all of them are drawn are others.
    """
    n, r = vectors.shape
    warm = n if warm is None else warm
    order = np.concatenate([rng.permutation(warm), warm + rng.permutation(n - warm)])[: max(landmarks, remembered)]
    m = min(landmarks, n)
    memory = Memory(
        songs.bags[order],
        songs.dense[order],
        vectors[order],
        np.zeros((m, r), np.float32),
        bandwidth,
        neighbours,
    )
    gram = np.zeros((m, m))
    moment = np.zeros((m, r))
    for start in range(0, n, _CHUNK):
        part = songs.rows(slice(start, start + _CHUNK))
        kernel = memory.kernel(part, memory.similarity(part)).astype(np.float64)
        weighted = kernel / ridge[start : start + _CHUNK, None]
        gram += kernel.T @ weighted
        moment += weighted.T @ vectors[start : start + _CHUNK]
    marks = songs.rows(order[:m])
    own = memory.kernel(marks, memory.similarity(marks)).astype(np.float64)
    # Songs of equal content make this singular, and rounding to float32 moves its eigenvalues by up to m * 6e-8,
    # 2e-4 for 4,096 landmarks: with 1e-5 here the factorisation failed on songs of artist and album alone.
    root = linalg.cholesky((own + own.T) / 2 + 1e-3 * np.eye(m), lower=True)
    inner = linalg.solve_triangular(root, linalg.solve_triangular(root, gram, lower=True).T, lower=True)
    upper = linalg.cholesky(inner + np.eye(m), lower=False)
    # whitening = root^-T upper^-1, so that whitening whitening^T = (gram + own)^-1
    whitening = linalg.solve_triangular(root, linalg.solve_triangular(upper, np.eye(m)), lower=True, trans="T")
    coefficients = whitening @ (whitening.T @ moment)
    memory = Memory(
        memory.bags,
        memory.dense,
        memory.vectors,
        coefficients.astype(np.float32),
        bandwidth,
        neighbours,
    )
    place = np.full(n, -1, np.int64)
    place[order] = np.arange(len(order))
    return LeaveOneOut(memory, songs, vectors, place, ridge, whitening.astype(np.float32))
