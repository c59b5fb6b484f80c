"""One vector per row, in pages of fixed size.

float32, 4 bytes a coordinate; or half of that: a direction of float16 and its length. A direction keeps 11 bits of each
coordinate, so that every writing adds an error of 2^-11 of the length at most. The table keeps count of it.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, grow
from targeting.types import F32

F16 = NDArray[np.float16]
_Scalar = TypeVar("_Scalar", bound=np.generic)

# Rows worked on at once: they stay in the second-level cache between being copied and being used.
_AT_ONCE = 512

# How far a vector's direction rounded to float16 lies from it, at most, for a length of 1.
ROUNDING = 2.0**-11


class VectorTable:
    """Vectors by row, float32 or float16; rows never written are zero."""

    def __init__(self, rows: int, dimension: int, half: bool = False) -> None:
        """``half``: directions of float16."""
        self.half = half
        self._vectors = np.zeros((rows, dimension), np.float16 if half else np.float32)
        self._lengths = np.zeros(rows if half else 0, np.float32)
        self._errors = np.zeros(rows if half else 0, np.float32)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dimension(self) -> int:
        return self._vectors.shape[1]

    @property
    def nbytes(self) -> int:
        return self._vectors.nbytes + self._lengths.nbytes + self._errors.nbytes

    def grow(self, rows: int) -> None:
        grow(self._vectors, rows)
        if self.half:
            grow(self._lengths, rows)
            grow(self._errors, rows)

    def read(self, rows: I64) -> F32:
        """What was written, float32 (n, d), copied, within its :meth:`errors`; zero beyond the end."""
        vectors = self._directions(rows)
        if self.half:
            vectors *= _known(self._lengths, rows)[:, None]
        return vectors

    def units(self, rows: I64) -> F32:
        """The same at unit length; zero stays zero."""
        vectors = self._directions(rows)
        bring_to_unit(vectors)
        return vectors

    def errors(self, rows: I64) -> F32:
        """How far what is read may lie from what should have been written, as a share of its length; float32 (n,)."""
        return _known(self._errors, rows)

    def write(self, rows: I64, vectors: F32, errors: F32 | None = None) -> None:
        """Writes vectors (n, d) of rows, each of them once; ``errors`` (n,) says how far off they are already."""
        if not self.half:
            self._vectors[rows] = vectors
            return
        for start in range(0, len(rows), _AT_ONCE):
            block, here = rows[start : start + _AT_ONCE], vectors[start : start + _AT_ONCE].copy()
            self._lengths[block] = bring_to_unit(here)
            self._vectors[block] = halves(here)
        self._errors[rows] = ROUNDING if errors is None else errors + ROUNDING

    def wipe(self, rows: I64) -> None:
        """Writes zero; rows beyond the end are passed over."""
        rows = rows[rows < len(self)]
        self._vectors[rows] = 0
        if self.half:
            self._lengths[rows] = self._errors[rows] = 0

    def cosines(self, rows: I64, vector: F32) -> F32:
        """The cosine of each row with a unit vector (d,), float32 (n,); 0 where a row is zero."""
        cosines = np.empty(len(rows), np.float32)
        copies = np.empty((_AT_ONCE, self.dimension), self._vectors.dtype)
        for start in range(0, len(rows), _AT_ONCE):
            block = rows[start : start + _AT_ONCE]
            # "clip" spares numpy a second buffer; the rows are known to exist.
            here = _single(np.take(self._vectors, block, axis=0, out=copies[: len(block)], mode="clip"))
            lengths = np.sqrt(np.vecdot(here, here))
            np.divide(here @ vector, np.where(lengths > 0, lengths, 1), out=cosines[start : start + _AT_ONCE])
        return cosines

    def written(self) -> I64:
        """The rows that are not zero, int64, ascending."""
        # Comparing bits: numpy compares float16 one by one. A direction that rounds to -0 only is zero all the same.
        bits = self._vectors.view(np.uint16) if self.half else self._vectors
        return np.flatnonzero(bits.any(axis=1))

    def _directions(self, rows: I64) -> F32:
        """Copies of what lies in the rows, float32 (n, d): vectors, or their directions."""
        return _single(_known(self._vectors, rows))


def bring_to_unit(vectors: F32) -> F32:
    """Brings vectors (n, d) to unit length in place, zero stays zero; returns what their lengths were, (n,)."""
    lengths = np.sqrt(np.vecdot(vectors, vectors))
    vectors /= np.where(lengths > 0, lengths, 1)[:, None]
    return np.asarray(lengths, np.float32)


def directions(vectors: F32) -> F32:
    """Vectors (n, d) at unit length, float32; zero stays zero."""
    units = vectors.copy()
    bring_to_unit(units)
    return units


def _known(values: NDArray[_Scalar], rows: I64) -> NDArray[_Scalar]:
    """The values of rows, copied; zero beyond the end."""
    known = rows < len(values)
    if known.all():
        return values[rows]
    found = np.zeros((len(rows), *values.shape[1:]), values.dtype)
    found[known] = values[rows[known]]
    return found


def _single(vectors: NDArray[np.floating]) -> F32:
    return singles(vectors) if vectors.dtype == np.float16 else vectors


def halves(vectors: F32) -> F16:
    """float32 of at most 1 as the nearest float16: what ``astype`` does, in a third of its time.

    The exponents of the two differ by 112: scaled by that, the upper bits of one are the other.
    """
    bits = (vectors * np.float32(2.0**-112)).view(np.int32)
    sign = (bits >> 16) & 0x8000
    bits &= 0x7FFFFFFF
    bits += 0x0FFF + ((bits >> 13) & 1)  # to the nearest, a tie to the even one
    bits >>= 13
    bits |= sign
    return bits.astype(np.uint16).view(np.float16)


def singles(vectors: F16) -> F32:
    """float16 without infinities as float32: what ``astype`` does, in an eighth of its time."""
    bits = vectors.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= -0x70002000  # the sign, which was extended over the bits between, and the 15 others
    found = bits.view(np.float32)
    found *= np.float32(2.0**112)
    return found
