"""How a vector is laid out, byte by byte.

    offset  size  field
    0       4     magic, the ASCII letters ``CSVE``
    4       1     version, 1
    5       1     dtype: 1 = float32, 2 = float16
    6       2     dimension d, unsigned, little-endian
    8       32    space, ASCII, padded with NUL on the right
    40      4d/2d the vector, little-endian

A batch of equal vectors is read by one ``np.frombuffer`` over the joined values.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streams.errors import InvalidField, Undecodable

F32 = NDArray[np.float32]

_HEADER = struct.Struct("<4sBBH32s")
_MAGIC = b"CSVE"
_VERSION = 1
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


def unpack_batch(values: Sequence[bytes]) -> tuple[str, F32]:
    """The common space and the float32 (n, d) matrix of n >= 1 vectors with identical headers.

    Raises:
        Undecodable: the vectors differ in space, dtype or dimension, or one is no vector.
        InvalidField: a value is not finite.
    """
    space, dtype, dim = _check(values[0])
    header, size = values[0][: _HEADER.size], len(values[0])
    if any(len(value) != size or value[: _HEADER.size] != header for value in values):
        raise Undecodable("vectors: the batch mixes spaces, dtypes or dimensions")
    record = np.dtype([("header", "V40"), ("vector", dtype, (dim,))])
    matrix = np.frombuffer(b"".join(values), record)["vector"].astype(np.float32)
    if not np.isfinite(matrix).all():
        raise InvalidField("vectors: a value is not finite")
    return space, matrix
