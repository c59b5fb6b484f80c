"""The binary layout of vectors, against bytes made by hand."""

from __future__ import annotations

import itertools
import json
import re
import struct
from base64 import b64encode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streams.contract import vector_codec
from streams.contract.errors import InvalidField, Undecodable


def by_hand(
    values: list[float], space: bytes = b"bcl", magic: bytes = b"CSVE", version: int = 1, dtype: int = 1
) -> bytes:
    """The layout as its description says, field by field."""
    code = {1: "f", 2: "e"}.get(dtype, "f")
    return b"".join([
        magic,
        struct.pack("<B", version),
        struct.pack("<B", dtype),
        struct.pack("<H", len(values)),
        space + b"\0" * (32 - len(space)),
        struct.pack(f"<{len(values)}{code}", *values),
    ])  # fmt: skip


def test_packed_bytes_are_those_of_the_description() -> None:
    packed = vector_codec.pack("bcl-1", np.array([1.5, -2.0, 0.1], np.float32))
    assert packed == by_hand([1.5, -2.0, 0.1], b"bcl-1")
    assert packed[:8] == b"CSVE\x01\x01\x03\x00"
    assert packed[40:44] == b"\x00\x00\xc0\x3f"
    assert len(packed) == 40 + 3 * 4


def test_big_endian_input_is_stored_little_endian() -> None:
    assert vector_codec.pack("s", np.array([1.5], ">f4")) == by_hand([1.5], b"s")


@given(
    vector=arrays.arrays(np.float32, st.integers(1, 300), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    space=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?"), min_size=1, max_size=32),
)  # fmt: skip
def test_what_goes_in_comes_out(vector: vector_codec.F32, space: str) -> None:
    found, back = vector_codec.unpack(vector_codec.pack(space, vector))
    assert found == space
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, vector)


def test_half_precision_is_read() -> None:
    space, vector = vector_codec.unpack(by_hand([0.5, -0.25, 65504], dtype=2))
    assert space == "bcl"
    assert vector.dtype == np.float32
    assert vector.tolist() == [0.5, -0.25, 65504.0]


GOOD = by_hand([1.0, 2.0])


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "0 bytes"),
        (GOOD[:39], "39 bytes, shorter than its 40-byte header"),
        (GOOD[:40], "40 bytes, 48 expected for dimension 2"),
        (GOOD[:-1], "47 bytes, 48 expected"),
        (GOOD + b"\0", "49 bytes, 48 expected"),
        (by_hand([]), "dimension 0"),
        (by_hand([1.0], magic=b"CSVX"), "CSVX"),
        (by_hand([1.0], version=2), "version 2"),
        (by_hand([1.0], dtype=3), "dtype 3"),
        (by_hand([1.0], space=b"\xff"), "not ASCII"),
    ],
)
def test_bytes_of_another_layout_are_refused(data: bytes, part: str) -> None:
    with pytest.raises(Undecodable, match=part):
        vector_codec.unpack(data)
    for batch in ([data, GOOD], [GOOD, data]):
        found = vector_codec.unpack_space(batch, "bcl", 2)
        ((place, error),) = found.bad
        assert batch[place] is data
        assert part in str(error)
        assert found.vectors.tolist() == [[1, 2]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [1, 2])
def test_values_that_are_not_finite_are_refused(value: float, dtype: int) -> None:
    bad = by_hand([1.0, value], dtype=dtype)
    with pytest.raises(InvalidField, match="not finite"):
        vector_codec.unpack(bad)
    good = by_hand([1.0, 1.0], dtype=dtype)
    found = vector_codec.unpack_space([good, bad, good], "bcl", 2)
    ((place, error),) = found.bad
    assert (place, found.at.tolist(), "not finite" in str(error)) == (1, [0, 2], True)


@pytest.mark.parametrize("space", ["", "x" * 33, "schön"])
def test_a_space_that_does_not_fit_is_refused(space: str) -> None:
    with pytest.raises(InvalidField, match="space"):
        vector_codec.pack(space, np.ones(2, np.float32))


@pytest.mark.parametrize("dtype", [1, 2])
def test_a_batch_reads_as_its_members_do(dtype: int) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 7)).tolist()
    packed = [by_hand(row, dtype=dtype) for row in rows]
    found = vector_codec.unpack_space(packed, "bcl", 7)
    assert found.at.tolist() == list(range(50))
    assert (found.elsewhere.tolist(), found.bad) == ([], [])
    np.testing.assert_array_equal(found.vectors, np.stack([vector_codec.unpack(each)[1] for each in packed]))


def in_json(space: str, vector: list[float]) -> bytes:
    return json.dumps({"space": space, "vector": vector}).encode()


def in_event(type: str = "coldstart.audience-vector.v1", **data: object) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "1", "source": "s", "type": type} | data).encode()


@given(st.permutations(range(6)))
def test_json_is_read_like_the_binary_layout_wherever_it_stands_in_a_batch(order: list[int]) -> None:
    kinds = [
        GOOD, GOOD, in_json("bcl", [1, 2]), b" \n" + in_json("bcl", [1.0, 2.0]),
        in_event(data={"space": "bcl", "vector": [1, 2]}), in_event(data_base64=b64encode(GOOD).decode()),
    ]  # fmt: skip
    found = vector_codec.unpack_space([kinds[at] for at in order], "bcl", 2)
    assert (found.at.tolist(), found.bad, found.elsewhere.tolist()) == (list(range(6)), [], [])
    assert found.vectors.tolist() == [[1, 2]] * 6


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (in_json("schön", [1, 2]), r"space: .*, expected string matching"),
        (in_json("bcl", []), r"vector: \[\], expected array of length >= 1"),
        (b'{"space":"bcl","vector":[1,"2"]}', r'vector\[1\]: "2", expected number'),
        (b'{"space":"bcl","vector":[1e39,0]}', "vector: holds a value beyond 32-bit floats"),
        (b'{"space":"bcl"', "vector: "),
        (in_json("bcl", [0, 0]), "nothing but zeros"),
        (in_json("bcl", [1, 2, 3]), "dimension 3, space 'bcl' has 2"),
        (in_event(type="coldstart.listen.v1", data={"space": "bcl", "vector": [1, 2]}), "type: 'coldstart.listen.v1'"),
        (in_event(), "data: missing"),
        (b"{" + b" " * 1_048_576, "1048577 bytes uncompressed"),
    ],
)
def test_json_that_is_no_vector_is_refused_by_name(value: bytes, reason: str) -> None:
    found = vector_codec.unpack_space([GOOD, value], "bcl", 2)
    ((place, error),) = found.bad
    assert (place, found.at.tolist()) == (1, [0])
    assert re.search(reason, str(error))


ODD = {
    "other space": by_hand([1.0, 2.0], b"lcb"), "float16": by_hand([3.0, 4.0], dtype=2), "large": by_hand([1e20, 1.0]),
    "tiny": by_hand([1e-20, 0.0]), "other dimension": by_hand([1.0]), "short": b"short", "zeros": by_hand([0.0, 0.0]),
}  # fmt: skip


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_a_mixed_batch_is_sorted_out_whatever_stands_first(order: tuple[int, ...]) -> None:
    kinds = [GOOD, *ODD.values()]
    batch = [kinds[at] for at in order] + [kinds[at] for at in range(8) if at not in order]
    found = vector_codec.unpack_space(batch, "bcl", 2)
    told = {batch[at]: row for at, row in zip(found.at.tolist(), found.vectors.tolist(), strict=True)}
    assert told == {GOOD: [1, 2], ODD["float16"]: [3, 4]}
    assert found.at.tolist() == sorted(found.at.tolist())
    assert [batch[at] for at in found.elsewhere.tolist()] == [ODD["other space"]]
    assert {batch[at] for at, _ in found.bad} == {
        ODD[each] for each in ("other dimension", "short", "zeros", "large", "tiny")
    }
