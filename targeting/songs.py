"""Which vector has a song, along the axes of the space in use?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
from scipy import sparse

from targeting.axes import axes
from targeting.calibration import Calibration
from targeting.slots import I64, U64, grow, hash64
from targeting.types import F32, Match

# Coordinates of unit vectors this near are the same; float32 rounds at a hundredth of it.
_SAME = 1e-5


class Songs:
    """The songs that anybody heard or that can be retrieved; shared by all partitions of a process.

    A song is its 64-bit hash: that is what histories are stored with, 8 bytes instead of an id. Among a
    million songs two share a hash with a probability of 3e-8; they would then count as one song here.

    A song known by listens alone has no vector; its row is zero. There is one space at a time. Vectors are kept
    stretched along its axes (:mod:`targeting.axes`), which the songs that come first with it decide.
    ``version`` counts the changes of vectors, so that what is derived from them knows when it is stale.
    ``calibration`` turns scores in the space in use into chances; a new space starts without one.
    """

    def __init__(self) -> None:
        self.space: str | None = None
        self.version = 0
        self.calibration: Calibration | None = None
        self._slot_of_id: dict[str, int] = {}
        self._slot_of_hash: dict[int, int] = {}
        self._hashes = np.zeros(0, np.uint64)
        self._vectors = np.zeros((0, 0), np.float32)
        self._changed_in = np.zeros(0, np.int64)
        self._space_since = 0
        self._axes = np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._slot_of_hash)

    @property
    def dimension(self) -> int:
        """Of the space in use; 0 before there is one."""
        return self._vectors.shape[1]

    def vectors(self, slots: I64) -> F32:
        """Unit vectors stretched along the axes, float32 (n, d); zero where unknown."""
        return self._vectors[slots]

    def along_axes(self, vector: F32) -> F32:
        """A vector (d,) of the space, stretched along its axes and brought to unit length; zero stays zero."""
        stretched = vector @ self._axes
        return np.asarray(stretched / (np.linalg.norm(stretched) or 1), np.float32)

    def sums(self, weights: sparse.csr_matrix) -> F32:
        """Weighted sums of vectors, float32 (n, d), for ``weights`` (n, len(self))."""
        return np.asarray(weights @ self._vectors[: len(self)], np.float32)

    def comparable(self, match: Match) -> bool:
        """Whether a new song's vector lies in the space in use."""
        return match.space == self.space and len(match.vector) == self.dimension

    def slots(self, ids: Sequence[str]) -> I64:
        """The slot of each id, int64 (n,); ids that are new become known."""
        found = self._find(ids)
        new = list(dict.fromkeys(ids[at] for at in np.flatnonzero(found < 0).tolist()))
        if not new:
            return found
        self._slot_of_id.update(zip(new, self.slots_of_hashes(hash64(new)).tolist(), strict=True))
        return self._find(ids)

    def slots_of_hashes(self, hashes: U64) -> I64:
        """The slot of each :func:`targeting.slots.hash64`, int64 (n,); hashes that are new become known."""
        each, first, which = np.unique(hashes, return_index=True, return_inverse=True)
        keys: list[int] = each.tolist()
        slots = np.fromiter(map(self._slot_of_hash.get, keys, repeat(-1)), np.int64, len(keys))
        new = np.flatnonzero(slots < 0)
        if len(new):
            # In order of appearance: what is heard together lies together.
            new = new[np.argsort(first[new])]
            slots[new] = len(self) + np.arange(len(new))
            self._slot_of_hash.update(zip((keys[at] for at in new.tolist()), slots[new].tolist(), strict=True))
            grow(self._hashes, len(self))
            grow(self._changed_in, len(self))
            grow(self._vectors, len(self))
            self._hashes[slots[new]] = each[new]
        return slots[which]

    def find(self, ids: Sequence[str]) -> I64:
        """The slot of each id, int64 (n,); -1 where unknown. Nothing becomes known."""
        found = self._find(ids)
        for at in np.flatnonzero(found < 0).tolist():
            # A song restored from a history is known by its hash before anybody names it.
            found[at] = self._slot_of_hash.get(int(hash64([ids[at]])[0]), -1)
        return found

    def hashes(self, slots: I64) -> U64:
        return self._hashes[slots]

    def set_vectors(self, space: str, ids: Sequence[str], vectors: F32) -> None:
        """Gives songs their vectors. Another space than the one in use drops all vectors of the old one.

        The first call with a space decides its axes, so it should bring the whole catalogue.

        Args:
            vectors: float32 (n, d) in the space; rows are brought to unit length.

        Raises:
            ValueError: wrong shape, a NaN or an infinity; nothing changes then.
        """
        rows = np.asarray(vectors, np.float32)
        if rows.ndim != 2 or len(rows) != len(ids):
            raise ValueError(f"vectors of shape {rows.shape} for {len(ids)} songs")
        if not np.isfinite(rows).all():
            raise ValueError("vectors hold a NaN or an infinity")
        if space == self.space and rows.shape[1] != self.dimension:
            raise ValueError(f"space {space!r} has {self.dimension} dimensions, the vectors have {rows.shape[1]}")
        self.version += 1
        slots = self.slots(ids)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        units = np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
        if space != self.space:
            self.space, self._space_since, self.calibration = space, self.version, None
            self._vectors = np.zeros((len(self._hashes), rows.shape[1]), np.float32)
            self._axes = axes(units[units.any(axis=1)])
        stretched = units @ self._axes
        # A catalogue that is set again with one song more must not have every listener computed anew. A product may
        # round a row differently when it has other rows beside it.
        moved = np.abs(self._vectors[slots] - stretched).max(axis=1, initial=0) > _SAME
        self._changed_in[slots[moved]] = self.version
        self._vectors[slots[moved]] = stretched[moved]

    def changed_since(self, version: int) -> I64 | None:
        """Slots whose vector changed after ``version``, int64; None when all did, because the space did."""
        if version < self._space_since:
            return None
        return np.flatnonzero(self._changed_in[: len(self)] > version)

    def _find(self, ids: Sequence[str]) -> I64:
        return np.fromiter(map(self._slot_of_id.get, ids, repeat(-1)), np.int64, len(ids))
