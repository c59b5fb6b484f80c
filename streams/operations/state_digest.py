"""Digests of a partition's state, from its changelog and from this machine's disk.

Two states are the same if their digests at the same input offsets are. Workers may run meanwhile: the changelog is read
to its end as it is when the reading begins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

from streams.audience.changelog_reader import RestoredExtras, read_changelog
from streams.audience.disk_recovery import refusal, restore
from streams.audience.local_store import Entry, LocalStores
from streams.contract.errors import Refused
from streams.contract.topics import AUDIENCE_STATE, Naming
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings
from targeting.partition.partition import Partition


@dataclass(frozen=True, slots=True)
class Digest:
    """A partition's state in 128 bits.

    Attributes:
        digest: hex.
        at: input -> next offset to read, of the inputs that the state stands for.
        records: how many were read for it.
    """

    partition: int
    digest: str
    at: dict[str, int]
    records: int


def digest(
    kafka: KafkaSettings,
    naming: Naming,
    partition: int,
    clock: Clock,
    new_partition: Callable[[int], Partition],
    stores: LocalStores | None = None,
    without: Mapping[int, Collection[int]] = MappingProxyType({}),
) -> Digest | None:
    """The state of a partition as the changelog alone tells it; with ``stores`` as the disk and the tail do.

    Nothing is written, not even to disk. ``without`` holds offsets by partition to
    leave out, as the workers do. None: there is no usable database of the partition, or a worker holds it.

    Raises:
        Unavailable: the broker does not answer.
        PartitionMismatch, ErasureKeyMismatch: the state is another installation's, or of another key.
        StoreCorrupted: the database is torn, or not of this changelog.
        Refused: the changelog holds what cannot be read.
    """
    state, beside = new_partition(partition), RestoredExtras()
    store = stores.open_existing(partition) if stores else None
    if stores and store is None:
        return None
    start = store.offset if store else 0

    def changelog(since: int) -> Iterator[Entry]:
        return read_changelog(kafka, naming, partition, clock, lambda *_: None, since, without.get(partition, ()))

    def refused(error: Exception) -> Refused:
        return refusal(naming.name(AUDIENCE_STATE), partition, changelog(0), new_partition, without, error)

    try:
        entries = chain(store.entries(), changelog(start)) if store else changelog(0)
        restore(state, entries, beside, start > 0, refused)
    finally:
        if store:
            store.close()
    return Digest(partition, state.digest(), beside.inputs.positions.known(), beside.records)
