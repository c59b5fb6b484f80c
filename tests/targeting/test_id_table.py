from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targeting.arrays.id_table import HashTable, IdTable, distinct, grow, hash64, mixed


def test_the_hash_is_blake2b_whatever_the_process() -> None:
    assert hash64(["u1"])[0] == int.from_bytes(hashlib.blake2b(b"u1", digest_size=8).digest(), "little")


def test_a_plan_says_what_taking_does_and_changes_nothing() -> None:
    slots = IdTable()
    slots.take(["a", "b", "c", "d"])
    slots.release(["b", "d"])
    rows, fresh = slots.plan(["x", "a", "y", "x", "z"])
    assert slots.used == 2
    assert fresh == ["x", "y", "z"]
    np.testing.assert_array_equal(slots.take(fresh), rows[[0, 2, 4]])
    np.testing.assert_array_equal(slots.find(["x", "a", "y", "x", "z"]), rows)
    # The rows of b and d are used again, the third needs a new one.
    assert {*rows[[0, 2]].tolist()} == {1, 3}
    assert len(slots) == 5


def test_rows_in_use() -> None:
    slots = IdTable()
    slots.take(["a", "b", "c"])
    slots.release(["b"])
    assert slots.rows().tolist() == [0, 2]


@given(st.lists(st.integers(0, 9)))
def test_distinct_rows(rows: list[int]) -> None:
    assert distinct(np.asarray(rows, np.int32)).tolist() == sorted(set(rows))


def test_a_free_row_has_neither_id_nor_hash() -> None:
    slots = IdTable()
    slots.take(["a"])
    slots.release(["a"])
    assert slots.hashes(np.zeros(1, np.int64)).tolist() == [0]
    with pytest.raises(KeyError):
        slots.id_of(0)


@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from("abcdefgh"), unique=True))))
def test_slots_are_a_dict(steps: list[tuple[bool, list[str]]]) -> None:
    slots, known = IdTable(), dict[str, int]()
    for adding, ids in steps:
        if adding:
            rows, fresh = slots.plan(ids)
            slots.take(fresh)
            known.update(zip(ids, rows.tolist(), strict=True))
        else:
            gone = [each for each in ids if each in known]
            slots.release(gone)
            for each in gone:
                del known[each]
        assert dict(slots.items()) == known
        assert len(set(known.values())) == len(known)
        for each, row in known.items():
            assert slots.id_of(row) == each
            assert slots.hashes(np.asarray([row])) == hash64([each])


def test_growth_keeps_what_is_there_and_zeroes_the_rest() -> None:
    array = np.arange(6, dtype=np.int64).reshape(3, 2).copy()
    grow(array, 5)
    np.testing.assert_array_equal(array[:3], np.arange(6).reshape(3, 2))
    assert not array[3:].any()
    assert len(array) >= 5


def test_large_arrays_grow_by_steps() -> None:
    array = np.zeros((1 << 20, 16), np.float32)
    grow(array, len(array) + 1)
    assert array.nbytes <= (64 << 20) + (32 << 20)


def test_another_salt_is_another_order() -> None:
    hashes = hash64([f"u{i}" for i in range(1000)])
    one, other = np.argsort(mixed(hashes, 1)), np.argsort(mixed(hashes, 2))
    assert (one == other).mean() < 0.02


def test_numbers_are_found_by_their_hashes_and_by_no_other() -> None:
    numbers, rng = HashTable(), np.random.default_rng(0)
    # Many with the same last bits: they want the same places.
    hashes = np.unique(rng.integers(0, 2**63, 40_000, dtype=np.uint64) << np.uint64(7))
    for part in np.array_split(np.arange(len(hashes)), 7):
        assert (numbers.find(hashes[part]) == -1).all()
        numbers.add(hashes[part], part)
    assert len(numbers) == len(hashes)
    np.testing.assert_array_equal(numbers.find(hashes), np.arange(len(hashes)))
    assert (numbers.find(hashes + np.uint64(1)) == -1).all()
    # The hash 0 is one like any other.
    assert numbers.find(np.zeros(1, np.uint64)) == [-1]
    numbers.add(np.zeros(1, np.uint64), np.asarray([90_000]))
    assert numbers.find(np.zeros(1, np.uint64)) == [90_000]
