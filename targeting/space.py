"""Where do the songs lie in one embedding space?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting.arena import bring_to_unit
from targeting.axes import axes
from targeting.slots import I64, grow
from targeting.types import F32

# Coordinates of unit vectors this near are the same; float32 rounds at a hundredth of it.
_SAME = 1e-5


class Space:
    """The songs' vectors in one space, by slot (see :mod:`targeting.songs`), stretched along its axes.

    What is derived from one object can meet only what is derived from the same object: vectors of another space, or
    of this one along other axes, mean something else.
    """

    def __init__(self, name: str | None, units: F32, songs: int) -> None:
        """``units`` float32 (n, d), unit or zero, decide the axes; no song has a vector before :meth:`put`."""
        self.name = name
        some = units.any(axis=1)
        self._axes = axes(units if some.all() else units[some])
        self._vectors = np.zeros((songs, units.shape[1]), np.float32)
        self._changed_in = np.zeros(songs, np.int64)
        self._known = np.zeros(songs, np.bool_)
        self._any = False

    @property
    def dimension(self) -> int:
        return self._vectors.shape[1]

    def grow(self, songs: int) -> None:
        """Makes room for as many songs; new ones have no vector."""
        grow(self._vectors, songs)
        grow(self._changed_in, songs)
        grow(self._known, songs)

    def has_vector(self, songs: int) -> NDArray[np.bool_]:
        """Which of the first so many songs have a vector that is not zero, bool (songs,); a copy."""
        return self._known[:songs].copy()

    def put(self, slots: I64, units: F32, version: int) -> None:
        """Gives songs their vectors, float32 (n, d), unit or zero; those that differ count as changed in ``version``.

        A catalogue that is set again with one song more must not have every listener computed anew.
        """
        # A product may round a row differently when it has other rows beside it.
        stretched = units @ self._axes
        self._known[slots] = units.any(axis=1)
        if not self._any:
            # All of them are new: a catalogue is large, and there is nothing to compare it with.
            self._vectors[slots], self._changed_in[slots], self._any = stretched, version, True
            return
        moved = np.abs(self._vectors[slots] - stretched).max(axis=1, initial=0) > _SAME
        self._changed_in[slots[moved]] = version
        self._vectors[slots[moved]] = stretched[moved]

    def changed_since(self, version: int) -> I64:
        """Slots whose vector changed after ``version``, int64, ascending."""
        return np.flatnonzero(self._changed_in > version)

    def vectors(self, slots: I64) -> F32:
        """Unit vectors stretched along the axes, float32 (n, d); zero where unknown."""
        return self._vectors[slots]

    def sums(self, weights: sparse.csr_matrix) -> F32:
        """Weighted sums of vectors, float32 (n, d), for ``weights`` (n, songs)."""
        return np.asarray(weights @ self._vectors[: weights.shape[1]], np.float32)

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
