"""Which remembered songs resemble many songs, and how much? The numbers of :class:`encoder.context.Memory` in bulk.

A term that many songs have is cheap in a dense matrix product and dear in a sparse one, a term that few have the other
way round: both kinds are handled apart. For the most similar of many songs, all are compared in a few principal
directions of what is common plus what is rare exactly, and only the best of that are compared in full.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from encoder.features import Features, select_columns

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# A term of one remembered song in so many is common; at most so many terms are, 12 MB against 3,072 songs.
_COMMON = 64
_MOST_COMMON = 1024
# Up to so many songs comparing all in full is as fast.
_FEW = 8192
_DIRECTIONS = 128
# Songs compared in full for each that is wanted.
_SPARE = 3


class Products:
    """Inner products of many songs' features with those of M songs.

    Args:
        bags, dense: of the M songs, float32 csr (M, terms) and (M, D).
        directions: if given, the common terms and dense features count only in so many principal directions.
    """

    def __init__(self, bags: sparse.csr_matrix, dense: F32, directions: int | None = None) -> None:
        often = np.bincount(bags.indices, minlength=bags.shape[1])
        order = np.argsort(-often, kind="stable")[:_MOST_COMMON]
        common = np.zeros(bags.shape[1], bool)
        common[order[often[order] * _COMMON >= max(bags.shape[0], 1)]] = True
        self._common, self._rare = np.flatnonzero(common), np.flatnonzero(~common & (often > 0))
        self._position = np.full(bags.shape[1], -1, np.int64)
        self._position[self._common] = np.arange(len(self._common))
        self._rare_position = np.full(bags.shape[1], -1, np.int64)
        self._rare_position[self._rare] = np.arange(len(self._rare))
        self._of_rare = bags[:, self._rare].T.tocsr()
        table = np.hstack([bags[:, self._common].toarray(), dense])  # (M, common + D)
        self._basis: F32 | None = None
        self.approximate = directions is not None and directions < table.shape[1]
        if self.approximate:
            values, vectors = linalg.eigh(table.T @ table)
            self._basis = np.ascontiguousarray(vectors[:, np.argsort(-values)[:directions]], np.float32)
            table = table @ self._basis
        self._table = np.ascontiguousarray(table.T, np.float32)
        self._room = np.zeros((0, bags.shape[0]), np.float32)

    def __call__(self, songs: Features) -> F32:
        """float32 (n, M); the next call writes over it, because fresh memory costs as much as the product."""
        c = len(self._common)
        common = select_columns(songs.bags, self._position, c)
        if self._basis is None:
            products = common @ self._table[:c]
            if songs.dense.shape[1]:
                products += songs.dense @ self._table[c:]
        else:
            if len(self._room) < len(songs):
                self._room = np.empty((len(songs), self._table.shape[1]), np.float32)
            directions = common @ self._basis[:c] + songs.dense @ self._basis[c:]
            products = np.matmul(directions, self._table, out=self._room[: len(songs)])
        rare = select_columns(songs.bags, self._rare_position, len(self._rare)) @ self._of_rare
        rows = np.repeat(np.arange(len(songs)), np.diff(rare.indptr))
        # Each place stands once in a sparse matrix, so that adding by index loses nothing.
        products[rows, rare.indices] += rare.data
        return np.asarray(products, np.float32)


@dataclass(frozen=True, slots=True)
class Nearest:
    """The ``count`` most similar of M songs, for many songs."""

    bags: sparse.csr_matrix
    dense: F32
    count: int
    products: Products

    @classmethod
    def among(cls, bags: sparse.csr_matrix, dense: F32, count: int) -> Nearest:
        few = bags.shape[0] <= _FEW
        return cls(bags, dense, min(count, bags.shape[0]), Products(bags, dense, None if few else _DIRECTIONS))

    def __call__(self, songs: Features, left_out: I64) -> tuple[I64, F32]:
        """int64 and float32 (n, count): places among the M songs, and their inner products.

        Args:
            left_out: int64 (n,), for each song the place of one that does not count, or -1. Where fewer than ``count``
                are left, it stands there all the same, with a product of -inf.
        """
        similarity = self.products(songs)
        rows = np.flatnonzero(left_out >= 0)
        similarity[rows, left_out[rows]] = -np.inf
        if not self.products.approximate:
            best = largest(similarity, self.count)
            return best, np.take_along_axis(similarity, best, axis=1)
        candidates = largest(similarity, min(similarity.shape[1], _SPARE * self.count))
        exact = self._exact(songs, candidates)
        exact[candidates == left_out[:, None]] = -np.inf
        place = largest(exact, self.count)
        return np.take_along_axis(candidates, place, axis=1), np.take_along_axis(exact, place, axis=1)

    def _exact(self, songs: Features, candidates: I64) -> F32:
        """float32 (n, c): the inner products with the given candidates."""
        n, c = candidates.shape
        own = songs.bags[np.repeat(np.arange(n), c)]
        products = np.asarray(own.multiply(self.bags[candidates.ravel()]).sum(axis=1), np.float32).reshape(n, c)
        if self.dense.shape[1]:
            products += np.einsum("nd,ncd->nc", songs.dense, self.dense[candidates])
        return products


def largest(values: F32, k: int) -> I64:
    """int64 (n, k): places of the k largest of each row (n, m), in no order.

    They lie in the k groups with the largest maxima, so that what has to be partitioned is short: a fifth of the time
    for 20 of 6,670.
    """
    n, m = values.shape
    if k == 0:
        return np.zeros((n, 0), np.int64)
    # As many groups as places in the k best of them: both are partitioned.
    each = round(float(np.sqrt(m / k)))
    if each < 2:
        return np.argpartition(values, m - k, axis=1)[:, m - k :]
    # Group g is g, g + groups, g + 2 groups and so on: the maxima of all groups at once are those of long rows.
    groups = m // each
    maxima = values[:, : groups * each].reshape(n, each, groups).max(axis=1)
    best = np.argpartition(maxima, groups - k, axis=1)[:, groups - k :]
    places = (best[:, None, :] + groups * np.arange(each)[None, :, None]).reshape(n, -1)
    places = np.hstack([places, np.broadcast_to(np.arange(groups * each, m), (n, m - groups * each))])
    inner = np.argpartition(np.take_along_axis(values, places, axis=1), places.shape[1] - k, axis=1)[:, -k:]
    return np.take_along_axis(places, inner, axis=1)
