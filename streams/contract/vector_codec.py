"""How a vector is laid out, byte by byte.

    offset  size  field
    0       4     magic, the ASCII letters ``CSVE``
    4       1     version, 1
    5       1     dtype: 1 = float32, 2 = float16
    6       2     dimension d, unsigned, little-endian
    8       32    space, ASCII, padded with NUL on the right
    40      4d/2d the vector, little-endian

A batch of equal layout is read by one ``np.frombuffer`` over the joined values.

JSON is read as well: {"space": "bcl-0a1b2c3d4e5f", "vector": [0.12, -0.4]}.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.contract import vector_json
from streams.contract.errors import BadRecord, InvalidField, Undecodable

F32 = NDArray[np.float32]

_HEADER = struct.Struct("<4sBBH32s")
_MAGIC = b"CSVE"
_VERSION = 1
# Of a vector's squared length: within them nothing overflows or vanishes where float32 is computed with, on any axes.
_SQUARES = 1e-24, 1e24

LAYOUT: tuple[tuple[str, str, str, str], ...] = (
    ("0", "4", "magic", "the ASCII letters CSVE"),
    ("4", "1", "version", "1"),
    ("5", "1", "dtype", "1 = float32, 2 = float16"),
    ("6", "2", "dimension", "d, unsigned"),
    ("8", "32", "space", "whose vector it is: 1 to 32 characters of ASCII, padded with NUL on the right"),
    ("40", "4 d or 2 d", "vector", "d numbers; neither all zero nor one of them infinite or NaN"),
)
"""Offset, size in bytes, name and meaning of each part; numbers are little-endian."""
_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f2")}


def pack(space: str, vector: F32) -> bytes:
    """One float32 vector of shape (d,) as bytes.

    Raises:
        InvalidField: the space is not 1-32 ASCII characters.
    """
    name = space.encode("ascii", "replace")
    if not 1 <= len(name) <= 32 or b"?" in name:
        raise InvalidField(f"space: {space!r} is not 1 to 32 ASCII characters")
    return _HEADER.pack(_MAGIC, _VERSION, 1, len(vector), name) + vector.astype("<f4").tobytes()


def _check(data: bytes) -> tuple[str, np.dtype[Any], int]:
    if len(data) < _HEADER.size:
        raise Undecodable(f"vector: {len(data)} bytes, shorter than its {_HEADER.size}-byte header")
    magic, version, dtype, dim, space = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise Undecodable(f"vector: begins with {magic!r}, not {_MAGIC!r}")
    if version != _VERSION:
        raise Undecodable(f"vector: version {version}, this reader knows {_VERSION}")
    if dtype not in _DTYPES:
        raise Undecodable(f"vector: dtype {dtype}, known are 1 (float32) and 2 (float16)")
    expected = _HEADER.size + dim * _DTYPES[dtype].itemsize
    if dim == 0 or len(data) != expected:
        raise Undecodable(f"vector: {len(data)} bytes, {expected} expected for dimension {dim}")
    try:
        name = space.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise Undecodable(f"vector: space {space!r} is not ASCII") from None
    return name, _DTYPES[dtype], dim


def unpack(data: bytes) -> tuple[str, F32]:
    """The space and the float32 vector (d,) in ``data``.

    Raises:
        Undecodable: the bytes are no vector of this layout.
        InvalidField: the vector holds a value that is not finite.
    """
    space, dtype, _ = _check(data)
    vector = np.frombuffer(data, dtype, offset=_HEADER.size).astype(np.float32)
    if not np.isfinite(vector).all():
        raise InvalidField("vector: holds a value that is not finite")
    return space, vector


def unpack_direction(data: bytes) -> tuple[str, F32]:
    """:func:`unpack` for a vector that only its direction counts of.

    Raises:
        Undecodable, InvalidField: as there, and a vector of zeros alone, or one far from unit length.
    """
    space, vector = unpack(data)
    _check_length(vector)
    return space, vector


def _check_length(vector: F32) -> None:
    if not vector.any():
        raise InvalidField("vector: holds nothing but zeros")
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not _SQUARES[0] <= length**2 <= _SQUARES[1]:
        raise InvalidField(f"vector: its length is {length:g}, from 1e-12 to 1e+12 is allowed")


@dataclass(frozen=True, slots=True)
class OfSpace:
    """What a batch of vectors holds of one space.

    Attributes:
        at: int64 (n,), the places of the vectors of that space, ascending.
        vectors: float32 (n, d).
        elsewhere: int64, the places of good vectors of other spaces.
        bad: place and error of each of the others.
    """

    at: NDArray[np.int64]
    vectors: F32
    elsewhere: NDArray[np.int64]
    bad: list[tuple[int, BadRecord]]


def unpack_space(values: Sequence[bytes], space: str, dim: int) -> OfSpace:
    """The vectors of ``space`` in a batch. Those laid out like the first binary one are read at once, the others, and
    JSON, one by one.

    Bad is what :func:`unpack` refuses, a vector of zeros alone, one far from unit length, and one of ``space`` with
    another dimension than ``dim``.
    """
    at, rows, elsewhere, bad = [], [], [], []
    matrix, alike = np.zeros((0, dim), np.float32), np.zeros(len(values), np.bool_)
    with suppress(Undecodable):
        first = next((value for value in values if value[:4] == _MAGIC), b"")
        name, _, size = _check(first)
        if name == space and size == dim:
            matrix, alike = _alike(values, first)
            # One pass: a NaN or an infinity stays one in a sum of squares, and zeros stay zero.
            with np.errstate(over="ignore", invalid="ignore"):
                squares = np.vecdot(matrix, matrix)
            good = (squares >= _SQUARES[0]) & (squares <= _SQUARES[1])
            alike[np.flatnonzero(alike)[~good]] = False
            matrix = matrix[good] if not good.all() else matrix
    for place in np.flatnonzero(~alike).tolist():
        try:
            found, vector = _read(values[place])
            if found != space:
                elsewhere.append(place)
                continue
            if len(vector) != dim:
                raise InvalidField(f"vector: dimension {len(vector)}, space {space!r} has {dim}")
            _check_length(vector)
        except BadRecord as error:
            bad.append((place, error.without_frames()))
        else:
            at.append(place)
            rows.append(vector)
    places = np.flatnonzero(alike)
    if rows:
        places = np.concatenate([places, np.asarray(at, np.int64)])
        order = np.argsort(places)
        places, matrix = places[order], np.concatenate([matrix, np.asarray(rows)])[order]
    return OfSpace(places, matrix, np.asarray(elsewhere, np.int64), bad)


def _read(value: bytes) -> tuple[str, F32]:
    if not vector_json.is_json(value):
        return unpack(value)
    data = vector_json.data_of(value)
    return vector_json.read(data) if vector_json.is_json(data) else unpack(data)


def _alike(values: Sequence[bytes], first: bytes) -> tuple[F32, NDArray[np.bool_]]:
    """Which values have the length and header of the first, a good vector, bool (n,); and theirs, float32 (m, d)."""
    size = len(first)
    alike = np.fromiter(map(len, values), np.int64, len(values)) == size
    joined = b"".join(values if alike.all() else [v for v, same in zip(values, alike.tolist(), strict=True) if same])
    _, dtype, dim = _check(first)
    records = np.frombuffer(joined, np.dtype([("header", np.uint64, 5), ("vector", dtype, (dim,))]))
    same = (records["header"] == np.frombuffer(first, np.uint64, 5)).all(axis=1)
    alike[np.flatnonzero(alike)] = same
    matrix = records["vector"] if same.all() else records["vector"][same]
    # Spaced by the headers where nothing had to be changed: products read it as fast as a copy, which costs more.
    return matrix.astype(np.float32, copy=False), alike
