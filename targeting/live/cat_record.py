"""The record of a campaign's prototypes: a version byte and MessagePack; users are in it by their hashes."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from targeting.live.cat_config import CatConfig

SPENDING: Final = 6
"""Numbers of :class:`targeting.campaigns.pacing.Opening`: first, scale, budget, remaining, opened, ends."""
MEMBER: Final = np.dtype([("user", "<u8"), ("share", "<u4"), ("weight", "<u2"), ("centroid", "i1")])

_VERSION = b"\x01"


class CatRecord(msgspec.Struct, array_like=True, frozen=True):
    """A campaign as it is stored.

    Attributes:
        song_vector: the song's unit vector, float32 (d,), little-endian.
        sums: the centroids' sums, float64 (centroids, d), little-endian.
        members: an array of :data:`MEMBER`.
        numbers: observations, the scale, and the :data:`SPENDING` numbers.
        seed: of the next clustering.
    """

    song_vector: bytes
    sums: bytes
    members: bytes
    numbers: list[float]
    seed: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CatRecord)


def encode(record: CatRecord) -> bytes:
    """The record as bytes."""
    return _VERSION + _encoder.encode(record)


def decode(record: bytes, dimension: int, config: CatConfig) -> CatRecord:
    """The record that :func:`encode` wrote.

    Raises:
        ValueError: it is of another version, of other dimensions or of another configuration, or broken.
    """
    if record[:1] != _VERSION:
        raise ValueError(f"a campaign's prototypes of version {record[:1]!r}")
    try:
        stored = _decoder.decode(record[1:])
    except msgspec.DecodeError as error:
        raise ValueError(f"broken prototypes of a campaign: {error}") from error
    sizes = len(stored.song_vector), len(stored.sums), len(stored.members) % MEMBER.itemsize
    if sizes != (4 * dimension, 8 * dimension * config.centroids, 0) or len(stored.numbers) != 2 + SPENDING:
        raise ValueError(
            f"prototypes of a campaign of {sizes} bytes: dimension {dimension}, {config.centroids} centroids"
        )
    if len(stored.members) > config.sample * MEMBER.itemsize:
        raise ValueError(f"a campaign of more than {config.sample} members")
    return stored
