"""How do rows of different lengths live in flat arrays?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from targeting.slots import I64, grow

Column = NDArray[Any]

# Room left in a row that moves, so that the next few entries do not move it again.
_ROOM = 8


def spans(starts: I64, lengths: I64) -> I64:
    """The positions start, start + 1, ... of every span, one span after the other; int64 (sum(lengths),)."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


class Jagged:
    """Rows of entries; an entry has one value in every column. Rows never written, and row -1, are empty.

    A row lies in one piece with a little room behind it. A row that outgrows its room moves to the end;
    the hole is taken back when holes make up a third (see :meth:`_compact`).
    """

    def __init__(self, *dtypes: DTypeLike) -> None:
        self._columns: list[Column] = [np.zeros(0, dtype) for dtype in dtypes]
        self._start = np.zeros(0, np.int64)
        self._length = np.zeros(0, np.int32)
        self._room = np.zeros(0, np.int32)
        self._end = 0
        self._held = 0  # entries that rows and their room take up; the rest up to _end are holes

    @property
    def entries(self) -> int:
        return int(self._length.sum())

    @property
    def nbytes(self) -> int:
        parts = [*self._columns, self._start, self._length, self._room]
        return sum(part.nbytes for part in parts)

    def lengths(self, rows: I64) -> I64:
        """The number of entries of each row, int64 (n,)."""
        lengths = np.zeros(len(rows), np.int64)
        written = (rows >= 0) & (rows < len(self._length))
        lengths[written] = self._length[rows[written]]
        return lengths

    def gather(self, rows: I64) -> tuple[I64, list[Column]]:
        """The entries of rows, one row after the other.

        Returns:
            lengths int64 (n,), and for each column the values, (sum(lengths),); copies.
        """
        lengths = self.lengths(rows)
        starts = np.zeros(len(rows), np.int64)
        filled = lengths > 0
        starts[filled] = self._start[rows[filled]]
        at = spans(starts, lengths)
        return lengths, [column[at] for column in self._columns]

    def replace(self, rows: I64, lengths: I64, columns: Sequence[Column]) -> None:
        """Writes rows, each of them once, as :meth:`gather` would return them."""
        self._make_room(rows, lengths, keep=False)
        at = spans(self._start[rows], lengths)
        for mine, theirs in zip(self._columns, columns, strict=True):
            mine[at] = theirs
        self._length[rows] = lengths

    def append(self, rows: I64, columns: Sequence[Column]) -> None:
        """Adds one entry to each of ``rows``, in that order; a row may be there more than once."""
        order = np.argsort(rows, kind="stable")
        each, counts = np.unique(rows, return_counts=True)
        old = self.lengths(each)
        self._make_room(each, old + counts, keep=True)
        at = spans(self._start[each] + old, counts)
        for mine, theirs in zip(self._columns, columns, strict=True):
            mine[at] = theirs[order]
        self._length[each] += counts.astype(np.int32)

    def discard(self, rows: I64, values: Column) -> None:
        """Removes from each of ``rows`` the entries whose first column is the value beside it."""
        each, which = np.unique(rows, return_inverse=True)
        lengths, columns = self.gather(each)
        of = np.repeat(np.arange(len(each)), lengths)
        keep = ~np.isin(_pairs(of, columns[0]), _pairs(which, values))
        kept = np.bincount(of[keep], minlength=len(each))
        self.replace(each, kept, [column[keep] for column in columns])

    def _make_room(self, rows: I64, lengths: I64, keep: bool) -> None:
        if not len(rows):
            return
        highest = int(rows.max()) + 1
        for per_row in (self._start, self._length, self._room):
            grow(per_row, highest)
        out = lengths > self._room[rows]
        if not out.any():
            return
        moved, wanted = rows[out], lengths[out]
        rooms = wanted + wanted // _ROOM + 2
        total = int(rooms.sum())
        freed = int(self._room[moved].sum())
        if self._end + total - (self._held - freed) > max(self._held // 2, 4096) + total:
            self._compact()
        for column in self._columns:
            grow(column, self._end + total)
        starts = self._end + np.cumsum(rooms) - rooms
        if keep:
            held = self._length[moved].astype(np.int64)
            source, target = spans(self._start[moved], held), spans(starts, held)
            for column in self._columns:
                column[target] = column[source]
        self._start[moved], self._room[moved] = starts, rooms
        self._end += total
        self._held += total - freed

    def _compact(self) -> None:
        """Moves all rows together, so that there are no holes."""
        rows = np.flatnonzero(self._room)
        rows = rows[np.argsort(self._start[rows], kind="stable")]
        rooms = self._room[rows].astype(np.int64)
        starts = np.cumsum(rooms) - rooms
        lengths = self._length[rows].astype(np.int64)
        source, target = spans(self._start[rows], lengths), spans(starts, lengths)
        for column in self._columns:
            column[target] = column[source]
        self._start[rows] = starts
        self._end = self._held = int(rooms.sum())


def _pairs(left: Column, right: Column) -> I64:
    """Two numbers below 2**31 as one."""
    return np.asarray(left, np.int64) << 32 | np.asarray(right, np.int64)
