"""Weights of the parts of content, chosen by leave-one-out on warm songs.

The blocks' weights in the squared distance between songs, the kernel's width and the ridge depend on the data: the
artist counts if an artist's songs share listeners, tags do not if they are noise. They are chosen by how well kernel
ridge (:mod:`encoder.context`) finds the songs of the most similar listeners for songs left out, over a sample, by
coordinate descent. No cold song is involved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from encoder.features import Features, FeatureSchema

F32 = NDArray[np.float32]

# One evaluation inverts a matrix of this size: 0.2 s. With half of it the choices begin to differ by seed.
_SAMPLE = 1500
# A smaller gain in recall is sampling noise: 1 song of 30 in 1,500 songs' lists is 0.00002.
_GAIN = 2e-4
_ROUNDS = 3
# The truth is a cold song's 50 most similar songs of the whole catalogue; in a sample, the same share.
_TRUTH = 50
_LEAST_TRUTH = 5


@dataclass(frozen=True, slots=True)
class Tuned:
    """The choice: schema with weights, kernel bandwidth, a factor of the ridges, and the recall reached."""

    schema: FeatureSchema
    bandwidth: float
    ridge: float
    recall: float


def tune(
    schema: FeatureSchema,
    songs: Features,
    vectors: F32,
    listeners: sparse.csr_matrix,
    bandwidth: float,
    ridge: F32,
    rng: np.random.Generator,
) -> Tuned:
    """Improves on the given start for n songs with vectors (n, r), listener rows (n, users) and ridges (n,)."""
    sample = rng.permutation(len(songs))[:_SAMPLE]
    trial = _Trial(schema, songs.rows(sample), vectors[sample], listeners[sample], len(songs))
    rates = bandwidth * schema.weights.astype(np.float64)
    ridge, factor = ridge[sample], 1.0
    best = trial.recall(rates, ridge)
    for _ in range(_ROUNDS):
        before = best
        for factors, ridge_factor in _moves(len(rates)):
            reached = trial.recall(rates * factors, ridge * np.float32(factor * ridge_factor))
            if reached > best + _GAIN:
                best, rates, factor = reached, rates * factors, factor * ridge_factor
        if best == before:
            break
    weights = (rates / rates.sum()).astype(np.float32)
    return Tuned(replace(schema, weights=weights), float(rates.sum()), factor, best)


def _moves(blocks: int) -> list[tuple[NDArray[np.float64], float]]:
    """Factors to try for the blocks' rates and the ridge; lowering noise comes before raising anything."""
    ones = np.ones(blocks)
    moves = [(ones * factor, 1.0) for factor in (0.5, 2.0)]
    if blocks > 1:
        moves += [(np.where(np.arange(blocks) == b, factor, 1.0), 1.0) for factor in (0.25, 4.0) for b in range(blocks)]
    return moves + [(ones, factor) for factor in (0.5, 2.0)]


class _Trial:
    """A sample of songs, prepared for evaluation at any rates."""

    def __init__(
        self, schema: FeatureSchema, songs: Features, vectors: F32, listeners: sparse.csr_matrix, catalogue: int
    ) -> None:
        self.distances = _distances(schema, songs)
        self.vectors = vectors
        cosines = (listeners @ listeners.T).toarray()
        np.fill_diagonal(cosines, 0)
        n = len(songs)
        self.k = min(n - 1, max(_LEAST_TRUTH, round(_TRUTH * n / catalogue)))
        self.truth = _top(cosines, self.k) & (cosines > 0)
        self.sizes = np.maximum(self.truth.sum(axis=1), 1)

    def recall(self, rates: NDArray[np.float64], ridge: F32) -> float:
        """Mean recall at k of songs left out, under exp(-1/2 sum of rate times squared distance of each block)."""
        kernel = np.zeros_like(self.distances[0])
        for rate, distance in zip(rates, self.distances, strict=True):
            kernel -= np.float32(rate / 2) * distance
        np.exp(kernel, out=kernel)
        kernel[np.diag_indices_from(kernel)] += ridge
        inverse = linalg.inv(kernel, check_finite=False)
        # Allen's PRESS: the prediction without song i from the inverse that includes it.
        predicted = self.vectors - (inverse @ self.vectors) / np.diag(inverse)[:, None]
        scores = predicted @ self.vectors.T
        np.fill_diagonal(scores, -np.inf)
        found = (_top(scores, self.k) & self.truth).sum(axis=1)
        return float((found / self.sizes).mean())


def _distances(schema: FeatureSchema, songs: Features) -> list[F32]:
    """float32 (n, n) for each block: squared distances at weight 1."""
    distances = []
    start = 0
    for bag, weight in zip(schema.bags, schema.weights, strict=False):
        block = songs.bags[:, start : start + len(bag.terms)]
        distances.append(_squared((block @ block.T).toarray() / weight))
        start += len(bag.terms)
    start = 0
    for dense, weight in zip(schema.dense, schema.weights[len(schema.bags) :], strict=True):
        values = songs.dense[:, start : start + len(dense.mean)]
        distances.append(_squared(values @ values.T / weight))
        start += len(dense.mean)
    return distances


def _squared(products: F32) -> F32:
    lengths = np.diag(products)
    return np.asarray(np.maximum(lengths[:, None] + lengths[None] - 2 * products, 0), np.float32)


def _top(scores: F32, k: int) -> NDArray[np.bool_]:
    """bool, the k largest of each row."""
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, np.argpartition(scores, -k, axis=1)[:, -k:], True, axis=1)
    return mask
