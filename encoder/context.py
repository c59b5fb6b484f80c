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
from scipy.linalg import blas, lapack

from encoder.features import Features
from encoder.resemblance import Nearest, Products, largest

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Rows handled at once: against 32,768 remembered songs, 64 MiB of float32.
_CHUNK = 512
# Leverages are first estimated in so many random directions, within 9 %; those above the bound are computed.
_SKETCH = 256
_LEVERAGE = 0.1


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
        """float32 (n, m) kernel values against the landmarks, from inner products with them, and maybe others after."""
        m = len(self.coefficients)
        distance: F32 = self._squares[:m] - 2 * similarity[:, :m]
        distance += squared_lengths(songs.bags, songs.dense)[:, None]
        np.maximum(distance, 0, out=distance)
        distance *= -self.bandwidth / 2
        np.exp(distance, out=distance)
        return distance

    def nearest(self, similarity: F32) -> F32:
        """float32 (n, r): the neighbours' mean; zero for a song that resembles none."""
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


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The memory as seen by its own songs, each with itself left out.

    Attributes:
        memory: the fitted memory.
        songs: features of the n training songs.
        vectors: float32 (n, r), their audience vectors.
        place: int64 (n,), each song's row in the memory, -1 when it is not remembered.
        ridge: float32 (n,), each song's.
        whitening: float32 (m, m), upper triangular W; the hat matrix of songs i and j is (k_i W) . (k_j W) / ridge_j.
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
        r, m = memory.vectors.shape[1], len(memory.coefficients)
        out = np.empty((len(versions), n, memory.width), np.float32)
        landmarks = Products(memory.bags[:m], memory.dense[:m])
        nearest = Nearest.among(memory.bags, memory.dense, memory.neighbours)
        # Songs seen through it have the inner products that they have under the whitening, on average over its draws.
        sketch = self.whitening
        if m > _SKETCH:
            signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (m, _SKETCH))
            sketch = np.asarray(self.whitening @ signs * np.float32(_SKETCH**-0.5))
        both = np.hstack([memory.coefficients, sketch])
        for start in range(0, n, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            ridge = self.ridge[chunk]
            own = self.songs.rows(chunk)
            kernel = memory.kernel(own, landmarks(own))
            predicted, hidden = np.hsplit(kernel @ both, [r])
            leverage = np.einsum("ns,ns->n", hidden, hidden) / ridge
            high = np.flatnonzero(leverage > _LEVERAGE) if m > _SKETCH else np.zeros(0, np.int64)
            exact = _by_triangle(kernel[high], self.whitening)
            leverage[high] = np.einsum("nm,nm->n", exact, exact) / ridge[high]
            influence = _by_triangle(exact, self.whitening, transposed=True)
            # The leverage reaches 1 only without regularisation; the floor guards float32 rounding.
            residual = (self.vectors[chunk] - predicted) / (np.maximum(1 - leverage, 1e-3) * ridge)[:, None]
            for version, features in enumerate(versions):
                part = own if features is self.songs else features.rows(chunk)
                seen = kernel if part is own else memory.kernel(part, landmarks(part))
                predicted, shown = np.hsplit(seen @ both, [r])
                pull = np.einsum("ns,ns->n", shown, hidden)
                pull[high] = np.einsum("nm,nm->n", seen[high], influence)
                out[version, chunk, :r] = predicted - pull[:, None] * residual
                out[version, chunk, r:] = memory.mean(*nearest(part, self.place[chunk]))
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
    products = Products(memory.bags[:m], memory.dense[:m])
    gram = np.zeros((m, m), order="F")
    moment = np.zeros((m, r))
    for start in range(0, n, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        part = songs.rows(chunk)
        scale = 1 / np.sqrt(ridge[chunk, None].astype(np.float64))
        kernel = memory.kernel(part, products(part)) * scale
        # The upper triangle alone, which is all that the factorisation reads: half of the work of kernel.T @ kernel.
        gram = blas.dsyrk(1.0, kernel.T, beta=1.0, c=gram, overwrite_c=1)
        moment += kernel.T @ (vectors[chunk] * scale)
    marks = songs.rows(order[:m])
    own = memory.kernel(marks, products(marks)).astype(np.float64)
    # Songs of equal content make this singular, and rounding to float32 moves its eigenvalues by up to m * 6e-8,
    # 2e-4 for 4,096 landmarks: with 1e-5 here the factorisation failed on songs of artist and album alone.
    gram += own
    gram[np.diag_indices(m)] += 1e-3
    upper = linalg.cholesky(gram, overwrite_a=True)
    # whitening = upper^-1, so that whitening whitening^T = (gram + own)^-1
    whitening, _ = lapack.dtrtri(upper)
    coefficients = linalg.solve_triangular(upper, linalg.solve_triangular(upper, moment, trans="T"))
    memory = Memory(
        memory.bags,
        memory.dense,
        memory.vectors,
        np.ascontiguousarray(coefficients, np.float32),
        bandwidth,
        neighbours,
    )
    place = np.full(n, -1, np.int64)
    place[order] = np.arange(len(order))
    return LeaveOneOut(memory, songs, vectors, place, ridge, np.ascontiguousarray(whitening, np.float32))


def _by_triangle(rows: F32, upper: F32, transposed: bool = False) -> F32:
    """rows @ upper, or rows @ upper.T, in half of the time that a matrix without zeros takes."""
    # In the order of Fortran, a C array is its own transpose.
    product: F32 = blas.strmm(1.0, upper.T, rows.T, lower=1, trans_a=int(transposed)).T
    return product
