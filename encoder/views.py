"""The random transformations of content in the contrastive term.

A song is uploaded with whatever is known that day: with fewer tags, by fewer people, without its sound or
its album. Two such versions of a song are still the same song; an encoder that has seen many of them does
not mistake poor content for another audience.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.content import Bag, ContentTable

F64 = NDArray[np.float64]

# A song keeps between a fifth and all of its tag assignments.
LEAST_KEPT = 0.2
# One whole bag or dense feature of ten is lost.
LOST = 0.1


def transformed(songs: ContentTable, rng: np.random.Generator) -> ContentTable:
    """A random version of each song. What it leaves of a song may be nothing.

    A weight that is a count (of taggers, say) becomes how many of them a binomial draw keeps; any other weight is
    kept or dropped whole.
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
