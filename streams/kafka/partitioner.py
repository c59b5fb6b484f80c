"""In which partition a key's records belong: as the Java client, kafkajs and Faust choose by themselves.

librdkafka, and what is made of it, chooses by CRC32 unless it is told ``partitioner=murmur2_random``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streams.contract.errors import WrongPartition

_SEED: Final = np.uint32(0x9747B28C)
_FACTOR: Final = np.uint32(0x5BD1E995)


def partition_of(key: bytes, partitions: int) -> int:
    """Where every record with this key belongs."""
    return int(partitions_of([key], partitions)[0])


def partitions_of(keys: Sequence[bytes], partitions: int) -> NDArray[np.int64]:
    """What :func:`partition_of` says of each key, int64 (n,), for a thousandth of the cost of asking one by one.

    Takes as many bytes for every key as for the longest.
    """
    lengths = np.fromiter(map(len, keys), np.uint32, len(keys))
    # In words of four bytes, filled up with zeros.
    width = int(lengths.max(initial=0)) // 4 + 1
    words = np.array(keys, f"S{4 * width}").view("<u4").reshape(len(keys), width)
    whole, hashes = lengths // 4, _SEED ^ lengths
    longer: slice | NDArray[np.intp] = slice(None)
    for at in range(width - 1):
        if (whole[longer] <= at).any():
            longer = np.flatnonzero(whole > at)
        mixed = words[longer, at] * _FACTOR
        mixed ^= mixed >> np.uint32(24)
        hashes[longer] = hashes[longer] * _FACTOR ^ mixed * _FACTOR
    rest = np.flatnonzero(lengths % 4)
    hashes[rest] = (hashes[rest] ^ words[rest, whole[rest]]) * _FACTOR
    hashes ^= hashes >> np.uint32(13)
    hashes *= _FACTOR
    hashes ^= hashes >> np.uint32(15)
    return ((hashes & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)).astype(np.int64)


def check_partition(key: bytes, partition: int, partitions: int) -> None:
    """Whether a record lies where its key belongs.

    Raises:
        WrongPartition: it does not; the message says where it does, and what to set.
    """
    right = partition_of(key, partitions)
    if partition != right:
        raise _elsewhere(key, partition, right, partitions)


def check_partitions(keys: Sequence[bytes], partition: int, partitions: int) -> list[tuple[int, WrongPartition]]:
    """The place of each key that belongs elsewhere, ascending, with what :func:`check_partition` says of it."""
    right = partitions_of(keys, partitions)
    wrong = np.flatnonzero(right != partition).tolist()
    return [(at, _elsewhere(keys[at], partition, int(right[at]), partitions)) for at in wrong]


def _elsewhere(key: bytes, partition: int, right: int, partitions: int) -> WrongPartition:
    shown = key[:128].decode("utf-8", "backslashreplace")
    return WrongPartition(
        f"partition: {partition}, key {shown!r} belongs in {right} of {partitions} by murmur2; librdkafka clients "
        "need partitioner=murmur2_random"
    )
