from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from targeting.arrays.id_table import I64
from targeting.arrays.ragged_array import RaggedArray, spans

ROWS = 6
Row = dict[int, list[tuple[int, float]]]


def read(table: RaggedArray, rows: int = ROWS) -> Row:
    lengths, (keys, values) = table.gather(np.arange(rows))
    ends = np.cumsum(lengths)
    return {
        row: list(zip(keys[end - n : end].tolist(), values[end - n : end].tolist(), strict=True))
        for row, (n, end) in enumerate(zip(lengths.tolist(), ends.tolist(), strict=True))
    }


def test_spans() -> None:
    assert spans(np.asarray([5, 0, 9]), np.asarray([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert spans(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_rows_never_written_are_empty() -> None:
    table = RaggedArray(np.int32)
    lengths, (values,) = table.gather(np.asarray([-1, 0, 1000]))
    assert lengths.tolist() == [0, 0, 0]
    assert values.tolist() == []


step = st.one_of(
    st.tuples(st.just("append"), st.lists(st.integers(0, ROWS - 1), max_size=12)),
    st.tuples(st.just("extend"), st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, 9)), max_size=4)),
    st.tuples(st.just("reserve"), st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, 50)), max_size=3)),
    st.tuples(st.just("replace"), st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, 30)), max_size=4)),
    st.tuples(st.just("erase"), st.lists(st.integers(-1, ROWS + 1), max_size=3)),
    st.tuples(st.just("discard"), st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, 40)), max_size=6)),
)


@settings(max_examples=200)
@given(st.lists(step, max_size=25))
def test_it_is_a_dict_of_lists(steps: list[tuple[str, list[object]]]) -> None:
    table, naive = RaggedArray(np.int32, np.float32, page=16), {row: [] for row in range(ROWS)}  # type: ignore[var-annotated]
    at = 0
    for what, arguments in steps:
        if what == "append":
            rows = np.asarray(arguments, np.int64)
            values = np.arange(at, at + len(rows)) % 40 + 1
            table.append(rows, [values.astype(np.int32), values.astype(np.float32) / 2])
            for row, value in zip(rows.tolist(), values.tolist(), strict=True):
                naive[row].append((value, value / 2))
            at += len(rows)
        elif what == "replace":
            lengths_of = dict(arguments)  # type: ignore[call-overload]
            lengths = np.asarray(list(lengths_of.values()), np.int64)
            values = np.arange(at, at + lengths.sum()) % 40 + 1
            table.replace(
                np.asarray(list(lengths_of), np.int64),
                lengths,
                [values.astype(np.int32), values.astype(np.float32)],
            )
            start = 0
            for row, length in lengths_of.items():
                naive[row] = [(value, float(value)) for value in values[start : start + length].tolist()]
                start += length
            at += len(values)
        elif what == "extend":
            more = dict(arguments)  # type: ignore[call-overload]
            lengths = np.asarray(list(more.values()), np.int64)
            values = np.arange(at, at + lengths.sum()) % 40 + 1
            table.extend(
                np.asarray(list(more), np.int64), lengths, [values.astype(np.int32), values.astype(np.float32)]
            )
            start = 0
            for row, length in more.items():
                naive[row] += [(value, float(value)) for value in values[start : start + length].tolist()]
                start += length
            at += len(values)
        elif what == "reserve":
            room = dict(arguments)  # type: ignore[call-overload]
            table.reserve(np.asarray(list(room), np.int64), np.asarray(list(room.values()), np.int64))
        elif what == "erase":
            table.erase(np.asarray(arguments, np.int64))
            naive.update({row: [] for row in arguments if row in naive})  # type: ignore[misc]
        elif arguments:
            table.discard(*np.asarray(arguments, np.int64).T)
            for row, value in arguments:  # type: ignore[misc]
                naive[row] = [entry for entry in naive[row] if entry[0] != value]
        assert read(table) == naive
        for row in range(-1, ROWS + 2):
            values_of, floats_of = (column.tolist() for column in table.row(row))
            assert list(zip(values_of, floats_of, strict=True)) == naive.get(row, [])
        # Nothing stays in holes or behind rows; values are from 1, so that zero is nobody's.
        for column in table._columns:
            assert np.count_nonzero(column) == table.entries


def test_rows_that_all_grow_leave_no_heap_of_holes() -> None:
    """Every row outgrows its place again and again; the holes must be closed."""
    table, rng = RaggedArray(np.int32, page=1024), np.random.default_rng(0)
    for value in range(60):
        for rows in np.array_split(rng.permutation(3000), 30):
            table.append(rows, [np.full(len(rows), value, np.int32)])
    _, (values,) = table.gather(np.arange(3000))
    np.testing.assert_array_equal(values.reshape(3000, 60), np.broadcast_to(np.arange(60), (3000, 60)))
    assert table.entries == 180_000
    # Room behind rows an eighth, holes a tenth, growth an eighth; without cleaning it would be ninefold.
    assert table.nbytes < 1.7 * 4 * 180_000


def test_a_row_longer_than_any_other() -> None:
    table = RaggedArray(np.int32)
    for start in range(0, 300_000, 50_000):
        table.append(np.zeros(50_000, np.int64), [np.arange(start, start + 50_000, dtype=np.int32)])
        table.append(np.arange(1, 100), [np.arange(99, dtype=np.int32)])
    _, (values,) = table.gather(np.asarray([0]))
    np.testing.assert_array_equal(values, np.arange(300_000))


class Moves(RaggedArray):
    """A table that counts the entries it moves, and may not move more than so many."""

    moved = 0
    allowed = 0

    def _move(self, rows: I64, rooms: I64) -> None:
        self.moved += int(self._length[rows].sum())
        assert self.moved <= self.allowed
        super()._move(rows, rooms)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100), st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_write_moves_little_whatever_the_lengths(rows: int, most: int, at_once: int, seed: int) -> None:
    """Rows that grow past a half, a third, ... of a page together: no page can hold two, three, ... of them."""
    table, rng = Moves(np.int32, page=16), np.random.default_rng(seed)
    lengths = np.zeros(rows, np.int64)
    aims = rng.integers(1, most + 1, rows) if seed % 2 else np.full(rows, most)
    while (growing := np.flatnonzero(lengths < aims)).size:
        some = rng.permutation(growing)[:at_once]
        table.moved = 0
        # Those that outgrow their places, and pages moved together for as long as one in 17 frees a page.
        table.allowed = int(lengths[some].sum()) + 16 * 17 * (len(table._held) // 8 + at_once + 2)
        table.append(some, [some.astype(np.int32)])
        lengths[some] += 1
    for row in range(rows):
        assert table.row(row)[0].tolist() == [row] * lengths[row]
    used = np.count_nonzero(table._held) * 16
    assert used <= 2.5 * 1.1 * (lengths + lengths // 8 + 2).sum() + 6 * 16
