"""In which bytes does the vector of each row lie?

Sums of float32, 4 bytes a coordinate; or, in half the memory, directions of float16. A direction keeps 11 bits of each
coordinate: cosines differ by some .0001. It forgets how much was summed, so that nothing can be added to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from targeting.slots import I64, grow
from targeting.types import F32

F16 = NDArray[np.float16]

# Rows worked on at once: they stay in the second-level cache between being copied and being used.
_AT_ONCE = 512


class Arena:
    """Vectors by row, float32 or float16; rows never written are zero."""

    def __init__(self, rows: int, dimension: int, half: bool = False) -> None:
        """``half``: float16; vectors are then brought to unit length as they are written."""
        self.half = half
        self._vectors = np.zeros((rows, dimension), np.float16 if half else np.float32)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dimension(self) -> int:
        return self._vectors.shape[1]

    @property
    def nbytes(self) -> int:
        return self._vectors.nbytes

    def grow(self, rows: int) -> None:
        grow(self._vectors, rows)

    def read(self, rows: I64) -> F32:
        """What was written, float32 (n, d), to the precision of the arena; zero beyond its end."""
        known = rows < len(self)
        if known.all():
            return self._single(self._vectors[rows])
        vectors = np.zeros((len(rows), self.dimension), np.float32)
        vectors[known] = self._single(self._vectors[rows[known]])
        return vectors

    def write(self, rows: I64, vectors: F32) -> None:
        """Writes vectors (n, d) of rows, each of them once."""
        if not self.half:
            self._vectors[rows] = vectors
            return
        for start in range(0, len(rows), _AT_ONCE):
            self._vectors[rows[start : start + _AT_ONCE]] = halves(directions(vectors[start : start + _AT_ONCE]))

    def wipe(self, rows: I64) -> None:
        """Writes zero; rows beyond the end are passed over."""
        self._vectors[rows[rows < len(self)]] = 0

    def cosines(self, rows: I64, vector: F32) -> F32:
        """The cosine of each row with a unit vector (d,), float32 (n,); 0 where a row is zero."""
        cosines = np.empty(len(rows), np.float32)
        copies = np.empty((_AT_ONCE, self.dimension), self._vectors.dtype)
        for start in range(0, len(rows), _AT_ONCE):
            block = rows[start : start + _AT_ONCE]
            # "clip" spares numpy a second buffer; the rows are known to exist.
            here = self._single(np.take(self._vectors, block, axis=0, out=copies[: len(block)], mode="clip"))
            lengths = np.sqrt(np.einsum("ij,ij->i", here, here))
            np.divide(here @ vector, np.where(lengths > 0, lengths, 1), out=cosines[start : start + _AT_ONCE])
        return cosines

    def written(self) -> I64:
        """The rows that are not zero, int64, ascending."""
        # Comparing bits: numpy compares float16 one by one. A direction that rounds to -0 only is zero all the same.
        bits = self._vectors.view(np.uint16) if self.half else self._vectors
        return np.flatnonzero(bits.any(axis=1))

    def _single(self, vectors: NDArray[np.floating]) -> F32:
        return singles(vectors) if self.half else vectors


def directions(vectors: F32) -> F32:
    """Vectors (n, d) at unit length, float32; zero stays zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1)[:, None], np.float32)


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
