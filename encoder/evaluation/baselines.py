"""Baselines without a network, and the ceiling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse.linalg import svds

from encoder import supervision
from encoder.data.dataset import Dataset
from encoder.data.split import together
from encoder.evaluation.content_matrix import ContentMatrix, Reading, unit, unit_rows
from encoder.evaluation.retrieval_task import Vectors

F32 = NDArray[np.float32]

# Up to this many songs, ridge is solved by a dense factorisation: 8,192 squared are 270 MB of float32.
_DENSE = 8192
# Conjugate gradients usually stop after some 50 steps; the bound guards against rounding.
_STEPS = 500


@dataclass(frozen=True, slots=True)
class Random:
    """A random order."""

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> _Random:  # noqa: ARG002 (nothing is learned)
        return _Random(len(warm.song_ids), np.random.default_rng(seed))


@dataclass(frozen=True, slots=True)
class _Random:
    warm: int
    rng: np.random.Generator

    def scores(self, cold: Dataset) -> F32:
        return self.rng.random((len(cold.song_ids), self.warm), np.float32)


@dataclass(frozen=True, slots=True)
class Popularity:
    """The songs with the most listeners, the same for every cold song."""

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> Vectors:  # noqa: ARG002 (nothing here is random)
        listeners = np.diff(warm.plays.indptr).astype(np.float32)
        return Vectors(listeners[:, None], lambda cold: np.ones((len(cold.song_ids), 1), np.float32))


@dataclass(frozen=True, slots=True)
class ContentNeighbours:
    """Cosine of content."""

    reading: Reading = "schema"

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> _ContentNeighbours:  # noqa: ARG002
        inputs = ContentMatrix.learn(warm, self.reading, seed)
        return _ContentNeighbours(inputs, unit_rows(inputs.rows(warm.content)).T.tocsr())


@dataclass(frozen=True, slots=True)
class _ContentNeighbours:
    inputs: ContentMatrix
    warm: sparse.csr_matrix

    def scores(self, cold: Dataset) -> F32:
        found: F32 = (unit_rows(self.inputs.rows(cold.content)) @ self.warm).toarray()
        return found


@dataclass(frozen=True, slots=True)
class Propagation:
    """Content neighbours, then ItemCF from them: sum over the ``neighbours`` most similar songs i of
    cosine(content)^``power`` times the cosine of the listeners of i and of the warm song j.
    """

    reading: Reading = "logs"
    rare: bool = True
    neighbours: int = 20
    power: float = 2.0

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> _Propagation:
        known = together(warm, rare) if self.rare else warm
        content = ContentNeighbours(self.reading).fit(known, rare, seed)
        listeners = supervision.listener_rows(known.plays)
        return _Propagation(content, listeners, len(warm.song_ids), self.neighbours, self.power)


@dataclass(frozen=True, slots=True)
class _Propagation:
    content: _ContentNeighbours
    listeners: sparse.csr_matrix
    warm: int
    neighbours: int
    power: float

    def scores(self, cold: Dataset) -> F32:
        similarity = np.maximum(self.content.scores(cold), 0)
        k = min(self.neighbours, similarity.shape[1])
        best = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = np.take_along_axis(similarity, best, axis=1) ** self.power
        starts = np.arange(0, best.size + 1, k)
        spread = sparse.csr_matrix((weights.ravel(), best.ravel(), starts), shape=similarity.shape)
        return np.asarray(((spread @ self.listeners) @ self.listeners[: self.warm].T).toarray(), np.float32)


@dataclass(frozen=True, slots=True)
class Ridge:
    """Content to audience vectors (SVD of the listeners, ``rank`` dimensions) by ridge regression."""

    reading: Reading = "logs"
    rare: bool = True
    rank: int = 256
    penalty: float = 1.0

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> Vectors:
        known = together(warm, rare) if self.rare else warm
        inputs = ContentMatrix.learn(known, self.reading, seed)
        rows = inputs.rows(known.content)
        audience = audience_of(warm, rare if self.rare else None, self.rank, seed)
        weights = np.asarray(rows.T @ solve(rows, audience, self.penalty), np.float32)
        return Vectors(audience[: len(warm.song_ids)], lambda cold: unit(inputs.rows(cold.content) @ weights))


def solve(rows: sparse.csr_matrix, targets: F32, penalty: float) -> F32:
    """float32 (n, r): the solution A of (rows rows^T + penalty I) A = targets.

    By Cholesky while the matrix is small, else by conjugate gradients, all columns in parallel (Hestenes & Stiefel
    1952), until every residual is below 1e-3 of its target.
    """
    n = rows.shape[0]
    if n <= _DENSE:
        gram = (rows @ rows.T).toarray().astype(np.float64)
        gram[np.diag_indices(n)] += penalty
        return np.asarray(linalg.solve(gram, targets, assume_a="pos", overwrite_a=True), np.float32)
    transposed = rows.T.tocsr()
    solution = np.zeros_like(targets)
    residual = targets.copy()
    direction = residual.copy()
    size = np.einsum("nr,nr->r", residual, residual)
    enough = 1e-6 * size
    for _ in range(_STEPS):
        if (size <= enough).all():
            break
        image = rows @ (transposed @ direction) + penalty * direction
        step = size / np.maximum(np.einsum("nr,nr->r", direction, image), 1e-30)
        solution += step * direction
        residual -= step * image
        before, size = size, np.einsum("nr,nr->r", residual, residual)
        direction = residual + (size / np.maximum(before, 1e-30)) * direction
    return solution


@dataclass(frozen=True, slots=True)
class ArtistMean:
    """The mean audience vector of the artist's songs; an unknown artist gets nothing."""

    rank: int = 256
    rare: bool = True

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> Vectors:
        bag = (together(warm, rare) if self.rare else warm).content.bags["artists"].weights
        audience = audience_of(warm, rare if self.rare else None, self.rank, seed)
        artists = np.asarray(bag.T @ audience, np.float32)

        def encode(cold: Dataset) -> F32:
            # Columns beyond the warm songs' vocabulary are unknown artists.
            return unit(cold.content.bags["artists"].weights[:, : len(artists)] @ artists)

        return Vectors(audience[: len(warm.song_ids)], encode)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The cold song's own audience in the SVD of the warm songs' listeners: a bound that sees the answer."""

    rank: int = 64

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> Vectors:  # noqa: ARG002 (the ceiling uses neither)
        listeners = supervision.listener_rows(warm.plays)
        rank = min(self.rank, min(listeners.shape) - 1)
        users = svds(listeners, k=rank, random_state=seed)[2].T  # (users, rank)
        return Vectors(unit(listeners @ users), lambda cold: unit(supervision.listener_rows(cold.plays) @ users))


def audience_of(warm: Dataset, rare: Dataset | None, rank: int, seed: int) -> F32:
    """float32 (n, rank), unit rows: the audience vectors of the warm songs, then of the rare ones."""
    listeners = supervision.listener_rows(warm.plays)
    more = None if rare is None else supervision.listener_rows(rare.plays)
    return supervision.audience_vectors(listeners, rank, np.random.default_rng(seed), more)
