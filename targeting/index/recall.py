"""How many of the true nearest an index finds, on a sample of its own vectors."""

from __future__ import annotations

import numpy as np

from targeting.index.base import WarmIndex
from targeting.types import F32


def recall(index: WarmIndex, vectors: F32, k: int = 10, sample: int = 32) -> float:
    """Share of the ``k`` truly nearest that a search returns, over evenly spread queries.

    What is compared are similarities, so that equals count, whichever of them was found.

    Args:
        vectors: float32 (n, d), all that the index holds.

    Returns:
        1.0 is exact search; NaN where the index is empty.
    """
    k = min(k, len(vectors), len(index))
    if not k:
        return float("nan")
    queries = vectors[np.unique(np.linspace(0, len(vectors) - 1, min(sample, len(vectors))).astype(np.int64))]
    true = np.partition(queries @ vectors.T, len(vectors) - k, axis=1)[:, len(vectors) - k]
    _, found = index.search(queries, k)
    # Sums in another order differ in the last bits.
    return float(np.mean(found >= true[:, None] - 1e-5))
