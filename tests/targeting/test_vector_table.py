from __future__ import annotations

import numpy as np
import pytest

from targeting.arrays.vector_table import VectorTable, directions, halves, singles
from targeting.types import F32


def random(n: int, d: int = 32) -> F32:
    return np.random.default_rng(n).standard_normal((n, d)).astype(np.float32)


def test_halves_are_the_nearest_float16_and_singles_bring_them_back() -> None:
    every = np.arange(0x3C01, dtype=np.uint16)  # 0 to 1
    every = np.concatenate([every, every | 0x8000]).view(np.float16)
    np.testing.assert_array_equal(singles(every).view(np.int32), every.astype(np.float32).view(np.int32))
    np.testing.assert_array_equal(halves(singles(every)).view(np.int16), every.view(np.int16))
    between = directions(random(300))
    np.testing.assert_array_equal(halves(between), between.astype(np.float16))


@pytest.mark.parametrize("half", [False, True])
def test_rows_are_read_as_written(half: bool) -> None:
    table, vectors = VectorTable(4, 32, half), random(1300)
    rows = np.random.default_rng(0).permutation(2000)[:1300]
    table.grow(2000)
    table.write(rows, vectors)
    found = table.read(rows)
    np.testing.assert_allclose(directions(found), directions(vectors), atol=2.0**-11 if half else 0)
    one = directions(random(1))[0]
    np.testing.assert_allclose(table.cosines(rows, one), directions(vectors) @ one, atol=0.001 if half else 1e-6)
    assert table.written().tolist() == sorted(rows.tolist())
    table.wipe(np.append(rows[3:], 10**6))
    assert table.written().tolist() == sorted(rows[:3].tolist())


@pytest.mark.parametrize("half", [False, True])
def test_rows_never_written_are_zero(half: bool) -> None:
    table = VectorTable(2, 3, half)
    table.write(np.asarray([1]), np.zeros((1, 3), np.float32))
    assert not table.read(np.asarray([0, 1, 7, 10**9])).any()
    assert table.cosines(np.asarray([0, 1]), np.ones(3, np.float32)).tolist() == [0, 0]


def test_halves_take_half_and_a_few_bytes_a_row() -> None:
    assert VectorTable(100, 128, half=True).nbytes == VectorTable(100, 128).nbytes / 2 + 100 * 8


def test_sums_are_read_within_the_errors_that_are_told() -> None:
    """Adding to what is read, again and again, adds up roundings; the count of them is never less than they are."""
    table, exact, rows = VectorTable(200, 16, half=True), np.zeros((200, 16)), np.arange(200)
    for step in range(20):
        added = random(200, 16) * np.float32(2.0 ** (step * 2))
        exact += added
        before = table.read(rows)
        table.write(
            rows, before + added, table.errors(rows) * np.linalg.norm(before, axis=1) / np.linalg.norm(exact, axis=1)
        )
        off = np.linalg.norm(table.read(rows) - exact, axis=1) / np.linalg.norm(exact, axis=1)
        assert (off <= table.errors(rows)).all()
        assert off.max() > 0
    table.write(rows, exact.astype(np.float32))
    assert table.errors(rows).tolist() == [2.0**-11] * 200
