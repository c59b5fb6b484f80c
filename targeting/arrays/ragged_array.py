"""Rows of different lengths in flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from targeting.arrays.id_table import I64, grow

Column = NDArray[Any]

# Room left in a row that moves, so that the next few entries do not move it again.
_ROOM = 8

# Pages of entries moved at once. Where they stand takes 16 bytes each: for millions that would be fresh memory, which
# costs more than the moving.
_AT_ONCE = 2

# Pages that may be half empty without being worth a move.
_SLACK_PAGES = 4

# Pages moved in a row without one becoming free, after which the rest counts as packed. Full pages of short rows free
# one in ten; of rows longer than half a page no two fit together, however often they move.
_FUTILE = 16


def spans(starts: I64, lengths: I64) -> I64:
    """The positions start, start + 1, ... of every span, one span after the other; int64 (sum(lengths),)."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def rows_as_bytes(entries: NDArray[Any], lengths: I64, before: bytes) -> list[bytes]:
    """The bytes of every row, ``before`` in front of each; ``lengths`` says how many entries are a row's, in order."""
    packed, size = entries.tobytes(), entries.dtype.itemsize
    ends = np.cumsum(lengths) * size
    starts = ends - lengths * size
    return [before + packed[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def _pieces(lengths: I64, entries: int) -> Iterator[tuple[slice, slice]]:
    """Runs of rows that have so many entries together at most, or are one row; and where their entries stand."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    start = 0
    while start < len(lengths):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + entries, side="right")) - 1)
        yield slice(start, stop), slice(int(ends[start]), int(ends[stop]))
        start = stop


class RaggedArray:
    """Rows of entries; an entry has one value in every column. Rows never written, and row -1, are empty.

    The columns are divided into pages. A row lies in one piece with a little room behind it, inside one page
    or, if it is longer than a page, over whole pages of its own. A row that outgrows its room moves to the
    page being filled and leaves a hole. When holes take too much, the emptiest page is moved together and
    used again: a bounded piece of work beside each write, instead of a long one now and then. Where that frees
    no page, because rows are too long to share one, it rests until a tenth more pages are in use.

    What is no entry is zero, in holes and behind rows too: an entry that was removed is nowhere in memory.
    """

    def __init__(self, *dtypes: DTypeLike, page: int = 1 << 16) -> None:
        self._columns: list[Column] = [np.zeros(0, dtype) for dtype in dtypes]
        self._page = page
        self._start = np.zeros(0, np.int64)
        self._length = np.zeros(0, np.int32)
        self._room = np.zeros(0, np.int32)  # a multiple of the page for rows that have pages of their own
        self._pages = 0
        self._held = np.zeros(0, np.int64)  # by page: the entries that rows and their room take up
        self._packed = 0  # pages in use when moving them together last came to nothing
        self._filling = -1  # the page being filled, and how far
        self._filled = page

    @property
    def entries(self) -> int:
        return int(self._length.sum())

    @property
    def nbytes(self) -> int:
        parts = [*self._columns, self._start, self._length, self._room, self._held]
        return sum(part.nbytes for part in parts)

    def lengths(self, rows: I64) -> I64:
        """The number of entries of each row, int64 (n,)."""
        lengths = np.zeros(len(rows), np.int64)
        written = (rows >= 0) & (rows < len(self._length))
        lengths[written] = self._length[rows[written]]
        return lengths

    def filled(self) -> I64:
        """The rows that have entries, int64, ascending."""
        return np.flatnonzero(self._length)

    def gather(self, rows: I64) -> tuple[I64, list[Column]]:
        """The entries of rows, one row after the other.

        Returns:
            lengths int64 (n,), and for each column the values, (sum(lengths),); copies.
        """
        lengths = self.lengths(rows)
        starts = np.zeros(len(rows), np.int64)
        filled = lengths > 0
        starts[filled] = self._start[rows[filled]]
        found: list[Column] = [np.empty(int(lengths.sum()), column.dtype) for column in self._columns]
        for some, here in _pieces(lengths, _AT_ONCE * self._page):
            at = spans(starts[some], lengths[some])
            for column, into in zip(self._columns, found, strict=True):
                # "clip" spares numpy a second buffer; the places are known to exist.
                column.take(at, out=into[here], mode="clip")
        return lengths, found

    def row(self, row: int) -> list[Column]:
        """The entries of one row: for each column the values; views, until the next write."""
        start = stop = 0
        if 0 <= row < len(self._length):
            start = int(self._start[row])
            stop = start + int(self._length[row])
        return [column[start:stop] for column in self._columns]

    def replace(self, rows: I64, lengths: I64, columns: Sequence[Column]) -> None:
        """Writes rows, each of them once, as :meth:`gather` would return them."""
        old = self.lengths(rows)
        self._make_room(rows, lengths, keep=False)
        starts = self._start[rows]
        for some, here in _pieces(lengths, _AT_ONCE * self._page):
            at = spans(starts[some], lengths[some])
            for mine, theirs in zip(self._columns, columns, strict=True):
                mine[at] = theirs[here]
        self._length[rows] = lengths
        shorter = np.flatnonzero(lengths < old)
        if len(shorter):
            kept = lengths[shorter]
            self._wipe(self._start[rows[shorter]] + kept, old[shorter] - kept)

    def erase(self, rows: I64) -> None:
        """Empties rows and gives their places back."""
        rows = np.unique(rows[(rows >= 0) & (rows < len(self._length))])
        rows = rows[self._room[rows] > 0]
        self._wipe(self._start[rows], self._length[rows].astype(np.int64))
        self._leave(self._start[rows], self._room[rows].astype(np.int64))
        self._start[rows] = self._length[rows] = self._room[rows] = 0
        self._clean()

    def append(self, rows: I64, columns: Sequence[Column]) -> None:
        """Adds one entry to each of ``rows``, in that order; a row may be there more than once."""
        order = np.argsort(rows, kind="stable")
        each, counts = np.unique(rows, return_counts=True)
        self.extend(each, counts, [column[order] for column in columns])

    def extend(self, rows: I64, lengths: I64, columns: Sequence[Column]) -> None:
        """Adds entries to rows, each of them once: so many to each, one row's after the other's."""
        old = self.lengths(rows)
        self._make_room(rows, old + lengths, keep=True)
        at = spans(self._start[rows] + old, lengths)
        for mine, theirs in zip(self._columns, columns, strict=True):
            mine[at] = theirs
        self._length[rows] += lengths.astype(np.int32)

    def reserve(self, rows: I64, lengths: I64) -> None:
        """Makes room for so many entries in rows, each of them once: they need not move as they grow to that."""
        self._make_room(rows, lengths, keep=True)

    def discard(self, rows: I64, values: Column) -> None:
        """Removes from each of ``rows`` the entries whose first column is the value beside it; values from 0."""
        if not len(rows):
            return
        each, which = np.unique(rows, return_inverse=True)
        lengths, columns = self.gather(each)
        of = np.repeat(np.arange(len(each)), lengths)
        # Rows are long and few entries go: a table of the values spares sorting everything.
        last = int(values.max())
        some = np.zeros(last + 2, bool)
        some[values] = True
        suspects = np.flatnonzero(some[np.minimum(columns[0], last + 1)])
        keep = np.ones(len(of), bool)
        keep[suspects] = ~np.isin(_pairs(of[suspects], columns[0][suspects]), _pairs(which, values))
        kept = np.bincount(of[keep], minlength=len(each))
        self.replace(each, kept, [column[keep] for column in columns])

    def _make_room(self, rows: I64, lengths: I64, keep: bool) -> None:
        """Moves the rows whose room is less than ``lengths``; their entries come along if ``keep``."""
        if not len(rows):
            return
        for per_row in (self._start, self._length, self._room):
            grow(per_row, int(rows.max()) + 1)
        out = lengths > self._room[rows]
        if not out.any():
            return
        moved, wanted = rows[out], lengths[out]
        rooms = wanted + wanted // _ROOM + 2
        rooms = np.where(rooms > self._page, -(-rooms // self._page) * self._page, rooms)
        if not keep:
            self._wipe(self._start[moved], self._length[moved].astype(np.int64))
            self._length[moved] = 0
        self._move(moved, rooms)
        self._clean()

    def _move(self, rows: I64, rooms: I64) -> None:
        starts, lengths = self._place(rooms), self._length[rows].astype(np.int64)
        source, target = spans(self._start[rows], lengths), spans(starts, lengths)
        for column in self._columns:
            column[target] = column[source]
            column[source] = 0
        self._leave(self._start[rows], self._room[rows].astype(np.int64))
        self._start[rows], self._room[rows] = starts, rooms

    def _place(self, rooms: I64) -> I64:
        """The starts of new places for rows of these rooms."""
        starts = np.empty(len(rooms), np.int64)
        ends = np.cumsum(rooms)
        at, before = 0, 0
        while at < len(rooms):
            fit = int(np.searchsorted(ends, before + self._page - self._filled, side="right"))
            if fit > at:
                starts[at:fit] = self._filling * self._page + self._filled + ends[at:fit] - rooms[at:fit] - before
                taken = int(ends[fit - 1]) - before
                self._filled += taken
                self._held[self._filling] += taken
                at = fit
            elif rooms[at] > self._page:
                count = int(rooms[at]) // self._page
                first = self._free_pages(count)
                self._held[first : first + count] = self._page
                starts[at] = first * self._page
                at += 1
            else:
                self._filling, self._filled = self._free_pages(1), 0
            before = int(ends[at - 1]) if at else 0
        return starts

    def _wipe(self, starts: I64, lengths: I64) -> None:
        at = spans(starts, lengths)
        for column in self._columns:
            column[at] = 0

    def _leave(self, starts: I64, rooms: I64) -> None:
        own = rooms > self._page
        np.subtract.at(self._held, starts[~own] // self._page, rooms[~own])
        for start, room in zip(starts[own].tolist(), rooms[own].tolist(), strict=True):
            self._held[start // self._page : (start + room) // self._page] = 0

    def _free_pages(self, count: int) -> int:
        """The first of ``count`` pages in a row that hold nothing."""
        free = self._held[: self._pages] == 0
        if self._filling >= 0:
            free[self._filling] = False
        runs = np.cumsum(np.concatenate([[0], free]))
        found = np.flatnonzero(runs[count:] - runs[:-count] == count)
        if len(found):
            return int(found[0])
        first, self._pages = self._pages, self._pages + count
        grow(self._held, self._pages)
        for column in self._columns:
            grow(column, self._pages * self._page)
        return first

    def _clean(self) -> None:
        """Moves the rows of the emptiest pages together until holes take a tenth at most, or no page becomes free."""
        fewest, futile = self._pages + 1, 0
        while True:
            held = self._held[: self._pages]
            in_use = int(np.count_nonzero(held))
            if in_use * self._page <= 1.1 * held.sum() + _SLACK_PAGES * self._page:
                self._packed = 0
                return
            if in_use <= 1.1 * self._packed:
                return
            futile = 0 if in_use < fewest else futile + 1
            fewest = min(fewest, in_use)
            # A page never holds more than it has, and those of long rows hold all: they are never the emptiest.
            occupied = np.where(held > 0, held, self._page)
            occupied[self._filling] = self._page
            emptiest = int(occupied.argmin())
            if futile > _FUTILE or occupied[emptiest] == self._page:
                self._packed = in_use
                return
            rows = np.flatnonzero((self._start // self._page == emptiest) & (self._room > 0))
            self._move(rows, self._room[rows].astype(np.int64))


def _pairs(left: Column, right: Column) -> I64:
    """Two numbers below 2**31 as one."""
    return np.asarray(left, np.int64) << 32 | np.asarray(right, np.int64)
