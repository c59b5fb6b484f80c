"""Which row belongs to which id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

# Steps of growth in bytes. A large array grows by this much and no more, so that no batch waits for
# gigabytes to be copied or zeroed: `realloc` of a mapping this large moves page tables, not bytes.
_STEP = 8 << 20

# Hashes looked up at once: a dozen arrays of as many numbers, which stay in the cache.
_AT_ONCE = 1 << 14


def hash64(ids: Iterable[str]) -> U64:
    """A 64-bit hash of each id, the same in every process and version (BLAKE2b, little-endian)."""
    return np.frombuffer(b"".join([hashlib.blake2b(each.encode(), digest_size=8).digest() for each in ids]), "<u8")


def mixed(hashes: U64, salt: int) -> U64:
    """Hashes scrambled by a salt: an order of the same users that is another one for each song (SplitMix64)."""
    x = hashes ^ np.uint64(salt)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def distinct(rows: NDArray[np.integer[Any]]) -> I64:
    """The rows that are there, once each, int64, ascending; an eighth of what np.unique takes for some 20,000."""
    ranked = np.sort(rows)
    first = np.ones(len(ranked), np.bool_)
    np.not_equal(ranked[1:], ranked[:-1], out=first[1:])
    return ranked[first].astype(np.int64)


def grow(array: NDArray[np.generic], rows: int) -> None:
    """Makes ``array`` at least ``rows`` long, in place; what is new is zero. No view of it may be alive."""
    if rows <= len(array):
        return
    row_bytes = max(array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)), 1)
    step = min(max(len(array) // 4, 1024), max(_STEP // row_bytes, 1))
    array.resize((max(rows, len(array) + step), *array.shape[1:]), refcheck=False)


class HashTable:
    """64-bit hashes and the number of each, found by the million: an open-addressing table in arrays.

    A dict would need each hash as a Python object, and sorting them, as np.unique does, takes ten times as long.
    """

    def __init__(self) -> None:
        self._count = 0
        self._allot(1024)

    def __len__(self) -> int:
        return self._count

    def find(self, hashes: U64) -> I64:
        """The number of each hash, int64 (n,); -1 where unknown."""
        found = np.empty(len(hashes), np.int64)
        for start in range(0, len(hashes), _AT_ONCE):
            found[start : start + _AT_ONCE] = self._find(hashes[start : start + _AT_ONCE])
        return found

    def _find(self, hashes: U64) -> I64:
        at = self._home(hashes)
        found = self._numbers[at]
        # Most are at home or nowhere; the others go on to the next place, until they meet themselves or a free one.
        left = np.flatnonzero((self._hashes[at] != hashes) & (found >= 0))
        at, hashes = at[left], hashes[left]
        while len(left):
            at = (at + 1) & self._mask
            found[left] = self._numbers[at]
            further = (self._hashes[at] != hashes) & (found[left] >= 0)
            left, hashes, at = left[further], hashes[further], at[further]
        return found

    def add(self, hashes: U64, numbers: I64) -> None:
        """Gives hashes, distinct and all of them unknown so far, their numbers, at least 0."""
        self._count += len(hashes)
        if 2 * self._count > len(self._hashes):
            old = self._numbers >= 0
            known, their = self._hashes[old], self._numbers[old]
            self._allot(2 * 2 ** self._count.bit_length())
            self._place(known, their)
        self._place(hashes, numbers)

    def _place(self, hashes: U64, numbers: I64) -> None:
        at = self._home(hashes)
        while len(hashes):
            free = self._numbers[at] < 0
            # Of several that want one place, one is written last and has it.
            self._numbers[at[free]], self._hashes[at[free]] = numbers[free], hashes[free]
            lost = self._numbers[at] != numbers
            hashes, numbers, at = hashes[lost], numbers[lost], (at[lost] + 1) & self._mask

    def _home(self, hashes: U64) -> I64:
        return (hashes & np.uint64(self._mask)).view(np.int64)

    def _allot(self, size: int) -> None:
        self._mask = size - 1
        self._hashes = np.zeros(size, np.uint64)
        self._numbers = np.full(size, -1, np.int64)


class IdTable:
    """Ids and their rows; rows of released ids are used again.

    The dict compares full ids, so ids of equal hash never meet. Per lookup it costs what an open-addressing
    table in numpy costs, because hashing the string is most of it.
    """

    def __init__(self) -> None:
        self._row_of: dict[str, int] = {}
        self._ids: list[str | None] = []
        self._hashes = np.zeros(0, np.uint64)
        self._free: list[int] = []

    def __len__(self) -> int:
        """One more than the highest row ever given."""
        return len(self._ids)

    @property
    def used(self) -> int:
        """The number of ids."""
        return len(self._row_of)

    def find(self, ids: Sequence[str]) -> I64:
        """The row of each id, int64 (n,); -1 where unknown."""
        return np.fromiter(map(self._row_of.get, ids, repeat(-1)), np.int64, len(ids))

    def plan(self, ids: Sequence[str]) -> tuple[I64, list[str]]:
        """Rows as :meth:`find` gives them, but unknown ids have the rows that :meth:`take` would give them.

        Returns:
            rows int64 (n,), and the unknown ids, once each, to be handed to :meth:`take`. Nothing changes.
        """
        rows = self.find(ids)
        unknown = np.flatnonzero(rows < 0)
        if not len(unknown):
            return rows, []
        new = [ids[at] for at in unknown.tolist()]
        fresh = list(dict.fromkeys(new))
        row_of = dict(zip(fresh, self._next(len(fresh)), strict=True))
        rows[unknown] = np.fromiter(map(row_of.__getitem__, new), np.int64, len(new))
        return rows, fresh

    def take(self, fresh: Sequence[str]) -> I64:
        """Gives each id, all of them unknown so far, its row; int64 (n,)."""
        rows = self._next(len(fresh))
        reused = min(len(fresh), len(self._free))
        for row, each in zip(rows[:reused], fresh, strict=False):
            self._ids[row] = each
        if reused:
            del self._free[-reused:]
        self._ids.extend(fresh[reused:])
        self._row_of.update(zip(fresh, rows, strict=True))
        grow(self._hashes, len(self._ids))
        taken = np.asarray(rows, np.int64)
        self._hashes[taken] = hash64(fresh)
        return taken

    def release(self, ids: Sequence[str]) -> I64:
        """Forgets ids, all of them known, and their hashes; returns the rows, now free, int64 (n,)."""
        rows = [self._row_of.pop(each) for each in ids]
        for row in rows:
            self._ids[row] = None
        self._free.extend(rows)
        released = np.asarray(rows, np.int64)
        self._hashes[released] = 0
        return released

    def id_of(self, row: int) -> str:
        """The id of a row in use.

        Raises:
            KeyError: the row is free.
        """
        found = self._ids[row]
        if found is None:
            raise KeyError(row)
        return found

    def hashes(self, rows: I64) -> U64:
        """The :func:`hash64` of the ids of rows, uint64 (n,)."""
        return self._hashes[rows]

    def rows(self) -> I64:
        """All rows in use, int64, ascending."""
        used = np.ones(len(self._ids), bool)
        used[self._free] = False
        return np.flatnonzero(used)

    def items(self) -> Iterable[tuple[str, int]]:
        """All ids with their rows."""
        return self._row_of.items()

    def _next(self, count: int) -> list[int]:
        """The rows that the next fresh ids get, in their order."""
        reused = min(count, len(self._free))
        first = len(self._ids)
        return [*self._free[len(self._free) - reused :][::-1], *range(first, first + count - reused)]
