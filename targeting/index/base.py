"""What every index of warm songs does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from targeting.types import F32

Labels = NDArray[np.int64]


class UnusableIndexError(Exception):
    """A stored index is torn, foreign or of another format; it is to be built again."""


class WarmIndex(Protocol):
    """Labelled vectors, searched by inner product: the cosine, where the caller gives unit vectors.

    Adding a label again replaces its vector. One thread at a time may call ``add`` and ``remove``;
    ``search`` may be called beside it from any thread.
    """

    @property
    def dimension(self) -> int: ...

    def __len__(self) -> int:
        """The number of labels that a search can return."""
        ...

    def add(self, labels: Sequence[int] | Labels, vectors: F32) -> None:
        """Adds or replaces; of a label given twice, the last vector counts.

        Args:
            labels: n labels, each >= 0.
            vectors: float32 (n, d).

        Raises:
            ValueError: wrong shape, a negative label, a NaN or an infinity; nothing is added then.
        """
        ...

    def remove(self, labels: Sequence[int] | Labels) -> None:
        """Labels that are not there are ignored."""
        ...

    def search(self, queries: F32, k: int) -> tuple[Labels, F32]:
        """The ``min(k, len(self))`` most similar labels of each query, most similar first.

        Args:
            queries: float32 (b, d).

        Returns:
            labels int64 (b, k'), similarities float32 (b, k').

        Raises:
            ValueError: wrong shape, a NaN or an infinity, k < 1.
        """
        ...


def checked(vectors: F32, dimension: int, what: str) -> F32:
    """The vectors as contiguous finite float32 (n, dimension), or a ValueError that names ``what``."""
    array = np.ascontiguousarray(vectors, np.float32)
    if array.ndim != 2 or array.shape[1] != dimension:
        raise ValueError(f"{what} have shape {array.shape}, the index takes (n, {dimension})")
    # hnswlib accepts NaN silently and its graph never recovers from it.
    if not np.isfinite(array).all():
        raise ValueError(f"{what} hold a NaN or an infinity")
    return array


def last_of_each(labels: Sequence[int] | Labels, vectors: F32) -> tuple[Labels, F32]:
    """Labels and vectors with each label once, in the order of their last appearance."""
    array = np.asarray(labels, np.int64)
    if array.shape != (len(vectors),):
        raise ValueError(f"{array.shape} labels for {len(vectors)} vectors")
    if len(array) and array.min() < 0:
        raise ValueError(f"labels must be >= 0, got {array.min()}")
    _, from_end = np.unique(array[::-1], return_index=True)
    keep = np.sort(len(array) - 1 - from_end)
    return array[keep], vectors[keep]


def checked_k(k: int, live: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return min(k, live)
