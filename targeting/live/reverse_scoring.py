"""Finds the campaigns that want a user.

Reverse scoring: each new or changed user against the prototypes of every active campaign. It is a matrix product and
a maximum, and nearly all of its time is the product: done one prototype of all campaigns at a time, the maximum is
taken in place while the panel is still in the cache, and no array of all the products is ever written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from targeting.arrays.id_table import I64
from targeting.types import F32

# A panel of the product: campaigns are its rows, vectors its columns. As much as the cache of one core holds, twice;
# with vectors as the rows the same product is a fifteenth slower.
_CAMPAIGNS = 1024
_VECTORS = 256


@dataclass(frozen=True, slots=True)
class Hits:
    """Pairs of a vector and a campaign that wants it, by vector, then by campaign; n each.

    Attributes:
        rows: int64, which of the vectors.
        campaigns: int64, which of the campaigns.
        scores: float32.
        prototypes: int64, which prototype of the campaign is the nearest.
    """

    rows: I64
    campaigns: I64
    scores: F32
    prototypes: I64

    def __len__(self) -> int:
        return len(self.rows)


def hits(vectors: F32, prototypes: F32, thresholds: F32) -> Hits:
    """Every pair whose score, the largest product of vector and prototype, reaches the campaign's threshold.

    Args:
        vectors: float32 (b, d).
        prototypes: float32 (C, A, d), the c-th prototype of each campaign.
        thresholds: float32 (A,); infinite: never.
    """
    count, campaigns, _ = prototypes.shape
    size = min(_CAMPAIGNS, campaigns) * min(_VECTORS, len(vectors))
    best, panel = np.empty((2, size), np.float32)
    reached = np.empty(size, bool)
    pairs, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(vectors) if count else 0, _VECTORS):
        columns = vectors[start : start + _VECTORS].T
        for first in range(0, campaigns, _CAMPAIGNS):
            here = prototypes[:, first : first + _CAMPAIGNS]
            shape = here.shape[1], columns.shape[1]
            top, other, over = (each[: shape[0] * shape[1]].reshape(shape) for each in (best, panel, reached))
            np.matmul(here[0], columns, out=top)
            for others in here[1:]:
                np.maximum(top, np.matmul(others, columns, out=other), out=top)
            at = np.flatnonzero(np.greater_equal(top, thresholds[first : first + shape[0], None], out=over))
            whom, which = np.divmod(at, shape[1])
            pairs.append((which + start) * campaigns + whom + first)
            scores.append(top.reshape(-1)[at])
    pair = np.concatenate(pairs)
    order = np.argsort(pair)
    which, whom = np.divmod(pair[order], max(campaigns, 1))
    return Hits(which, whom, np.concatenate(scores)[order], nearest(vectors, which, prototypes, whom))


def nearest(vectors: F32, rows: I64, prototypes: F32, campaigns: I64) -> I64:
    """For each pair of a row of ``vectors`` (b, d) and a campaign, the nearest of its prototypes (C, A, d); int64 (n,).

    Pairs of one campaign are multiplied together, some at a time, so that its prototypes are fetched once for them.
    """
    count, _, dimension = prototypes.shape
    found = np.zeros(len(rows), np.int64)
    if count == 1 or not len(rows):
        return found
    order = np.argsort(campaigns.astype(np.int32), kind="stable")
    each, first, sizes = np.unique(campaigns[order], return_index=True, return_counts=True)
    tiles = -(-sizes // _TILE)
    of_tile = np.repeat(np.arange(len(each)), tiles)
    # The place of each pair among the tiles; places that stay empty hold row 0, and nobody reads what it gives.
    opening = np.cumsum(tiles) - tiles
    place = np.arange(len(rows)) - np.repeat(first - opening * _TILE, sizes)
    laid = np.zeros(len(of_tile) * _TILE, np.int64)
    laid[place] = rows[order]
    best = np.empty(len(laid), np.int64)
    for start in range(0, len(of_tile), _TILES):
        whose = each[of_tile[start : start + _TILES]]
        left = vectors[laid[start * _TILE : (start + len(whose)) * _TILE]].reshape(len(whose), _TILE, dimension)
        products = left @ prototypes[:, whose].transpose(1, 2, 0)
        best[start * _TILE : (start + len(whose)) * _TILE] = products.argmax(axis=2).reshape(-1)
    found[order] = best[place]
    return found


# Pairs of one campaign multiplied together, and how many such products at once: the copies stay in the cache.
_TILE = 16
_TILES = 64
