"""Which campaigns want this user?

Reverse scoring: each new or changed user against the prototypes of every active campaign. It is a matrix product and
a maximum, and nearly all of its time is the product: done one prototype of all campaigns at a time, the maximum is
taken in place while the panel is still in the cache, and no array of all the products is ever written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from targeting.slots import I64
from targeting.types import F32

# Vectors worked on at once: half as many leave the product a tenth slower, twice as many leave the cache.
_AT_ONCE = 512


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
    rows = min(_AT_ONCE, len(vectors))
    best, panel = np.empty((2, rows, campaigns), np.float32)
    reached = np.empty((rows, campaigns), bool)
    found, scores = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, len(vectors) if count else 0, _AT_ONCE):
        here = vectors[start : start + _AT_ONCE]
        top = np.matmul(here, prototypes[0].T, out=best[: len(here)])
        for others in prototypes[1:]:
            np.maximum(top, np.matmul(here, others.T, out=panel[: len(here)]), out=top)
        at = np.flatnonzero(np.greater_equal(top, thresholds, out=reached[: len(here)]))
        found.append(at + start * campaigns)
        scores.append(top.reshape(-1)[at])
    at = np.concatenate(found)
    which, whom = np.divmod(at, max(campaigns, 1))
    return Hits(which, whom, np.concatenate(scores), nearest(vectors, which, prototypes, whom))


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
