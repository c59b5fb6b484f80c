"""In which partition a key's records belong: as the Java client, kafkajs and Faust choose by themselves.

librdkafka, and what is made of it, chooses by CRC32 unless it is told ``partitioner=murmur2_random``.
"""

from __future__ import annotations

from aiokafka.partitioner import murmur2  # type: ignore[import-untyped]

from streams.contract.errors import WrongPartition


def partition_of(key: bytes, partitions: int) -> int:
    """Where every record with this key belongs."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def check_partition(key: bytes, partition: int, partitions: int) -> None:
    """Whether a record lies where its key belongs.

    Raises:
        WrongPartition: it does not; the message says where it does, and what to set.
    """
    right = partition_of(key, partitions)
    if partition != right:
        shown = key[:128].decode("utf-8", "backslashreplace")
        raise WrongPartition(
            f"partition: {partition}, key {shown!r} belongs in {right} of {partitions} by murmur2; librdkafka clients "
            "need partitioner=murmur2_random"
        )
