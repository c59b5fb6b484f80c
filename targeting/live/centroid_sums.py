"""What each member has put into its centroid.

A centroid is the direction of the sum of its members' shares, and all campaigns' sums lie stacked in arrays, so that a
batch of changed members moves them at once. A share weighs twice as much for each half-life of observations that passed
since the sample was clustered: that is decay, without touching what is there already.

Shares are whole numbers kept in float64. So adding and taking out are exact: in any order, and with nothing left behind
of a share that was taken out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting.arrays.id_table import I64, distinct
from targeting.live import reverse_scoring
from targeting.types import F32, F64

# A share is a vector in steps of 1 / _FINE, times a weight of up to HEAVIEST, times 2 for each half-life passed, up to
# _HALF_LIVES of them (later ones decay nothing: by then the sample is to be clustered again). 16 + 10 + 12 bits, and 15
# for as many members as a sample may have, are the 53 that float64 counts in exactly.
_FINE = 1 << 16
HEAVIEST = 1 << 10
_HALF_LIVES = 12
MOST_MEMBERS = 1 << 15

# Vectors whose shares move at once. In whole steps they take 2 KB each, old and new: more of them would be fresh memory
# each time, which costs more than the moving; fewer would touch most sums in each part.
_AT_ONCE = 8192


class CentroidSums:
    """Shares and centroids of A campaigns, of C centroids and k members each; a place is campaign * k + member.

    Attributes:
        song_vectors: float32 (A, d), the songs' vectors; who writes one calls :meth:`place`.
        sums: float64 (A, C, d), whole numbers.
        counts: int32 (A, C), members with a share.
        weight, share: uint16 and uint32 (A, k), whole numbers.
        centroid: int8 (A, k), where the share is; -1: none.
        events: float64 (A,), observations since the last clustering.
        prototypes: float32 (C, A, d), (song vector + centroid) / 2; the song's vector where there is no centroid.
    """

    song_vectors: F32
    sums: F64
    counts: NDArray[np.int32]
    weight: NDArray[np.uint16]
    share: NDArray[np.uint32]
    centroid: NDArray[np.int8]
    events: F64
    _stands: I64  # the centroid that stands in each one's place among the prototypes

    def __init__(self, dimension: int, centroids: int, members: int, half_life: float) -> None:
        self.prototypes = np.zeros((centroids, 0, dimension), np.float32)
        self._members = members
        self._half_life = half_life
        self.grow(0)

    def grow(self, campaigns: int) -> None:
        """Makes room for so many campaigns."""
        count, held, d = self.prototypes.shape
        fresh: dict[str, NDArray[Any]] = {
            "song_vectors": np.zeros((campaigns, d), np.float32),
            "sums": np.zeros((campaigns, count, d), np.float64),
            "counts": np.zeros((campaigns, count), np.int32),
            "weight": np.zeros((campaigns, self._members), np.uint16),
            "share": np.zeros((campaigns, self._members), np.uint32),
            "centroid": np.full((campaigns, self._members), -1, np.int8),
            "events": np.zeros(campaigns),
            "_stands": np.zeros((campaigns, count), np.int64),
        }
        for name, column in fresh.items():
            column[:held] = getattr(self, name, column[:0])
            setattr(self, name, column)
        prototypes = np.zeros((count, campaigns, d), np.float32)
        prototypes[:, :held] = self.prototypes
        self.prototypes = prototypes

    def clear(self, campaign: int) -> None:
        """Nothing is left of a campaign."""
        for column in (self.song_vectors, self.sums, self.counts, self.weight, self.share, self.events, self._stands):
            column[campaign] = 0
        self.centroid[campaign] = -1
        self.prototypes[:, campaign] = 0

    def enrol(self, places: I64, weights: F64) -> None:
        """Members without a share; ``weights`` float64 (n,) become whole numbers of 1 to HEAVIEST."""
        self.weight.reshape(-1)[places] = np.clip(np.rint(weights), 1, HEAVIEST)
        self.share.reshape(-1)[places] = 0
        self.centroid.reshape(-1)[places] = -1

    def vacate(self, places: I64) -> None:
        """Members that are none any more, with what their records held."""
        self.weight.reshape(-1)[places] = self.share.reshape(-1)[places] = 0
        self.centroid.reshape(-1)[places] = -1

    def restart(self, campaign: int, members: I64, vectors: F32, nearest: I64) -> None:
        """All shares anew: of ``members`` (n,) with ``vectors`` (n, d), in the centroids ``nearest``, -1 for none."""
        weights = self.weight[campaign, members].astype(np.int64)
        known = np.flatnonzero(nearest >= 0)
        self.centroid[campaign, members] = nearest
        self.share[campaign, members] = np.where(nearest >= 0, weights, 0)
        count = len(self.prototypes)
        shares = sparse.csr_matrix(
            (weights[known].astype(np.float64), (nearest[known], known)), shape=(count, len(members))
        )
        self.sums[campaign] = shares @ _fine(vectors)
        self.counts[campaign] = np.bincount(nearest[known], minlength=count)
        self.events[campaign] = 0
        self.place(np.asarray([campaign]))

    def load(self, campaign: int, members: I64, weights: I64, shares: I64, centroids: I64, sums: F64) -> None:
        """Shares as they were read back, (n,) each, and the sums (C, d)."""
        self.weight[campaign, members], self.share[campaign, members] = weights, shares
        self.centroid[campaign, members] = centroids
        self.counts[campaign] = np.bincount(centroids[centroids >= 0], minlength=len(self.prototypes))
        self.sums[campaign] = sums
        self.sums[campaign, self.counts[campaign] == 0] = 0
        self.place(np.asarray([campaign]))

    def move(self, places: I64, which: I64, old: F32, new: F32) -> None:
        """Takes the share of each place, of vector ``old[which]``, out, and puts one of ``new[which]`` in.

        ``which`` is ascending.
        """
        starts = np.arange(0, len(old), _AT_ONCE)
        touched = [np.zeros(0, np.int64)]
        for start, first, last in zip(starts, *np.searchsorted(which, [starts, starts + _AT_ONCE]), strict=True):
            some = slice(start, start + _AT_ONCE)
            touched.append(self._move(places[first:last], which[first:last] - start, old[some], new[some]))
        self.place(distinct(np.concatenate(touched)))

    def _move(self, places: I64, which: I64, old: F32, new: F32) -> I64:
        """The same at once, without prototypes; returns the campaigns that were touched, some more than once."""
        slots = places // self._members
        centroid, share, weight = self.centroid.reshape(-1), self.share.reshape(-1), self.weight.reshape(-1)
        before, after = centroid[places].astype(np.int64), np.full(len(places), -1)
        known = np.flatnonzero(np.any(new, axis=1)[which])
        near = reverse_scoring.nearest(new, which[known], self.prototypes, slots[known])
        after[known] = self._stands[slots[known], near]
        passed = np.minimum(self.events / self._half_life, _HALF_LIVES)
        added = np.rint(weight[places] * np.exp2(passed)[slots]).astype(np.int64)
        added[after < 0] = 0

        outs = np.flatnonzero(before >= 0)
        first = slots * len(self.prototypes)
        rows = np.concatenate([(first + before)[outs], (first + after)[known]])
        amounts = np.concatenate([-share[places[outs]].astype(np.float64), added[known].astype(np.float64)])
        columns = np.concatenate([which[outs], which[known] + len(old)])
        sums, counts = self.sums.reshape(-1, self.prototypes.shape[2]), self.counts.reshape(-1)
        np.add.at(counts, rows, np.repeat(np.asarray([-1, 1], np.int32), [len(outs), len(known)]))
        touched = np.zeros(len(sums), bool)
        touched[rows] = True
        each = np.flatnonzero(touched)
        moved = sparse.csr_matrix(
            (amounts, ((np.cumsum(touched) - 1)[rows], columns)), shape=(len(each), len(old) + len(new))
        )  # fmt: skip
        sums[each] += moved @ _fine(old, new)
        # Vectors that were read back a bit different leave a trace where nobody is left.
        sums[each[counts[each] == 0]] = 0
        centroid[places], share[places] = after, added
        return each // len(self.prototypes)

    def place(self, slots: I64) -> None:
        """Writes the prototypes of campaigns from their sums."""
        live = self.counts[slots] > 0
        # A centroid of nobody stands where another does, so that it changes no maximum.
        stands = np.where(live, np.arange(len(self.prototypes)), live.argmax(axis=1)[:, None])
        song_vectors = self.song_vectors[slots][:, None]
        centres = units(self.sums[slots[:, None], stands])
        alone = ~live.any(axis=1)
        centres[alone] = song_vectors[alone]
        self.prototypes[:, slots] = ((centres + song_vectors) / 2).swapaxes(0, 1)
        self._stands[slots] = stands


def _fine(*vectors: F32) -> F64:
    """Vectors, one array after the other, in whole steps; exact, because a step is a power of two."""
    found = np.empty((sum(map(len, vectors)), vectors[0].shape[1]), np.float64)
    start = 0
    for each in vectors:
        np.rint(each * np.float32(_FINE), out=found[start : start + len(each)])
        start += len(each)
    return found


def units(sums: F64) -> F32:
    """Sums (..., d) at unit length; zero stays zero."""
    found = sums.astype(np.float32)
    lengths = np.sqrt(np.einsum("...i,...i->...", found, found))
    found /= np.where(lengths > 0, lengths, 1)[..., None]
    return found
