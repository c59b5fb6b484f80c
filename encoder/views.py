"""Random transformations of content for the contrastive term.

A new song may come with fewer tags, from fewer people, without audio or album. Two such versions are the same song;
an encoder that has seen many of them does not mistake thin content for another audience.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.content import Bag, ContentTable

F64 = NDArray[np.float64]

# A song keeps between a fifth and all of its tag assignments.
LEAST_KEPT = 0.2
# One whole bag or dense feature in ten is dropped.
LOST = 0.1


def transformed(songs: ContentTable, rng: np.random.Generator) -> ContentTable:
    """A random version of each song, which may be empty.

    A weight that is a count (such as taggers) becomes a binomial draw of it; other weights are kept or dropped whole.
    """
    n = len(songs)
    kept = rng.uniform(LEAST_KEPT, 1, n)
    bags = {name: _thinned(bag, kept * (rng.random(n) >= LOST), rng) for name, bag in songs.bags.items()}
    dense = {}
    for name, values in songs.dense.items():
        dense[name] = values.copy()
        dense[name][rng.random(n) < LOST] = np.nan
    return ContentTable(songs.song_ids, dense, bags)


def _thinned(bag: Bag, kept: F64, rng: np.random.Generator) -> Bag:
    """The bag with each row's weights thinned to about the share ``kept`` (n,)."""
    matrix = bag.weights
    share = np.repeat(kept, np.diff(matrix.indptr))
    count = np.rint(matrix.data).astype(np.int64)
    drawn = rng.binomial(np.maximum(count, 1), share)
    weights = np.where(matrix.data == count, drawn, matrix.data * (drawn > 0)).astype(np.float32)
    thinned = sparse.csr_matrix((weights, matrix.indices.copy(), matrix.indptr.copy()), matrix.shape)
    thinned.eliminate_zeros()
    return Bag(bag.terms, thinned)
