"""The songs' vectors in one embedding space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting.arrays.id_table import I64, grow
from targeting.arrays.vector_table import bring_to_unit
from targeting.catalogue.whitening import axes
from targeting.types import F32

# Coordinates of unit vectors this near are the same; float32 rounds at a hundredth of it.
_SAME = 1e-5


class EmbeddingSpace:
    """The songs' vectors in one space, by slot (see :mod:`targeting.catalogue.catalogue`), stretched along its axes.

    What is derived from one object can meet only what is derived from the same object: vectors of another space, or
    of this one along other axes, mean something else.
    """

    def __init__(self, name: str | None, units: F32, songs: int) -> None:
        """``units`` float32 (n, d), unit or zero, decide the axes; no song has a vector before :meth:`put`."""
        self.name = name
        some = units.any(axis=1)
        self._axes = axes(units if some.all() else units[some])
        # Row 0 is zero, and that of every song without a vector: songs known by listens alone may be many.
        self._vectors = np.zeros((1, units.shape[1]), np.float32)
        self._row = np.zeros(songs, np.int32)
        self._rows = 1
        self._free = np.zeros(0, np.int32)
        self._changed_in = np.zeros(songs, np.int64)
        self._any = False

    @property
    def dimension(self) -> int:
        return self._vectors.shape[1]

    def grow(self, songs: int) -> None:
        """Makes room for as many songs; new ones have no vector."""
        grow(self._row, songs)
        grow(self._changed_in, songs)

    def has_vector(self, songs: int) -> NDArray[np.bool_]:
        """Which of the first so many songs have a vector that is not zero, bool (songs,)."""
        return self._row[:songs] > 0

    def put(self, slots: I64, units: F32, version: int) -> None:
        """Gives songs their vectors, float32 (n, d), unit or zero; those that differ count as changed in ``version``.

        A catalogue that is set again with one song more must not have every listener computed anew.
        """
        # A product may round a row differently when it has other rows beside it.
        stretched = units @ self._axes
        each, last = np.unique(slots[::-1], return_index=True)
        if len(each) < len(slots):
            # Of a song that is there twice, the last vector counts.
            last = len(slots) - 1 - last
            slots, stretched, units = each, stretched[last], units[last]
        some = units.any(axis=1)
        if self._any:
            moved = np.abs(self._vectors[self._row[slots]] - stretched).max(axis=1, initial=0) > _SAME
            self._changed_in[slots[moved]] = version
        else:
            # All of them are new: a catalogue is large, and there is nothing to compare it with.
            moved = np.ones(len(slots), np.bool_)
            self._changed_in[slots], self._any = version, True
        had = self._row[slots] > 0
        self._release(slots[had & ~some])
        self._allot(slots[~had & some])
        moved &= some
        self._vectors[self._row[slots[moved]]] = stretched[moved]

    def _release(self, slots: I64) -> None:
        rows = self._row[slots]
        self._vectors[rows] = 0
        self._row[slots] = 0
        self._free = np.concatenate([self._free, rows])

    def _allot(self, slots: I64) -> None:
        reused, self._free = self._free[: len(slots)], self._free[len(slots) :]
        first, self._rows = self._rows, self._rows + len(slots) - len(reused)
        grow(self._vectors, self._rows)
        self._row[slots] = np.concatenate([reused, np.arange(first, self._rows, dtype=np.int32)])

    def changed_since(self, version: int) -> I64:
        """Slots whose vector changed after ``version``, int64, ascending."""
        return np.flatnonzero(self._changed_in > version)

    def vectors(self, slots: I64) -> F32:
        """Unit vectors stretched along the axes, float32 (n, d); zero where unknown."""
        return self._vectors[self._row[slots]]

    def sums(self, weights: sparse.csr_matrix) -> F32:
        """Weighted sums of vectors, float32 (n, d), for ``weights`` (n, songs)."""
        shape = weights.shape[0], len(self._vectors)
        by_row = sparse.csr_matrix((weights.data, self._row[weights.indices], weights.indptr), shape=shape)
        return np.asarray(by_row @ self._vectors, np.float32)

    def directions(self, vectors: F32) -> F32:
        """Vectors (n, d) stretched along the axes and brought to unit length, float32; zero stays zero.

        Raises:
            ValueError: another number of dimensions, a NaN or an infinity.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(f"space {self.name!r} has {self.dimension} dimensions, the vectors are {vectors.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            stretched = np.asarray(vectors, np.float32) @ self._axes
            lengths = bring_to_unit(stretched)
        if not np.isfinite(lengths).all():
            raise ValueError("vectors hold a NaN, an infinity, or a number too large to be squared")
        return stretched
