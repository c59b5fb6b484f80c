"""The exact index: one matrix product a search. Right for up to some ten thousand songs, and the judge of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from targeting.index.base import Labels, checked, checked_k, last_of_each
from targeting.types import F32


@dataclass(frozen=True, slots=True)
class _Content:
    """What a search sees. Never changed: a writer puts a new one in its place."""

    labels: Labels
    vectors: F32


class ExactIndex:
    """Exact search by one matrix product; see :class:`targeting.index.base.WarmIndex`.

    A write copies everything: fill it in bulk.

    Args:
        dimension: d; vectors and queries are float32 (n, d), and of unit length where cosines are wanted.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._content = _Content(np.empty(0, np.int64), np.empty((0, dimension), np.float32))

    @property
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        return len(self._content.labels)

    def add(self, labels: Sequence[int] | Labels, vectors: F32) -> None:
        new_labels, new_vectors = last_of_each(labels, checked(vectors, self._dimension, "vectors"))
        kept = self._without(new_labels)
        self._content = _Content(np.concatenate([kept.labels, new_labels]), np.concatenate([kept.vectors, new_vectors]))

    def remove(self, labels: Sequence[int] | Labels) -> None:
        self._content = self._without(np.asarray(labels, np.int64))

    def search(self, queries: F32, k: int) -> tuple[Labels, F32]:
        content = self._content
        array = checked(queries, self._dimension, "queries")
        k = checked_k(k, len(content.labels))
        similarities = array @ content.vectors.T
        if k < len(content.labels):
            best = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        else:
            best = np.broadcast_to(np.arange(k), (len(array), k))
        found = np.take_along_axis(similarities, best, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        return content.labels[best], np.take_along_axis(found, order, axis=1)

    def _without(self, labels: Labels) -> _Content:
        keep = ~np.isin(self._content.labels, labels)
        return _Content(self._content.labels[keep], self._content.vectors[keep])
