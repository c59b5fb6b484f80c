"""What happens when a record of a partition's state cannot be read.

Nothing is guessed: leaving out a history, a push or an erasure would break a promise to a user. The disk's copy is
rebuilt from the changelog. If the changelog itself holds such a record, the partition is refused, with the place of
every such record and the setting that continues without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from streams.audience.changelog_reader import RestoredExtras, state_records
from streams.audience.local_store import Entry, StoreCorrupted
from streams.contract.errors import ErasureKeyMismatch, PartitionMismatch, Refused, broken_state
from targeting.partition.changelog import ForeignStateError
from targeting.partition.partition import Partition
from targeting.partition.state_keys import ACCOUNT, REQUEST
from targeting.users.erasures import ForeignKeyError

_LOST = "what they say about a user or campaign is lost, such as pushes and erasures"


def restore(
    state: Partition,
    entries: Iterable[Entry],
    beside: RestoredExtras,
    disk: bool,
    refusal: Callable[[Exception], Refused],
) -> None:
    """Fill a new state from its records.

    Args:
        disk: some of the records come from the disk's copy.
        refusal: tells what to raise where records cannot be read that come from the changelog alone.

    Raises:
        PartitionMismatch: the state is another partition's, or of another number of partitions.
        ErasureKeyMismatch: erased users are remembered with a key that is not configured.
        StoreCorrupted: a record cannot be read, and it may be the disk that is wrong.
        Refused: a record cannot be read.
        Exception: whatever reading the entries raises.
    """
    failures: list[BaseException] = []
    try:
        state.restore(state_records(_watched(entries, failures), beside))
    except ForeignStateError as error:
        raise PartitionMismatch(str(error)) from None
    except ForeignKeyError as error:
        raise _key_mismatch(state.number, error) from None
    except Exception as error:
        if failures:
            raise
        if disk:
            raise StoreCorrupted(f"a record of the state cannot be read: {error}") from error
        raise refusal(error) from error


def refusal(
    topic: str,
    partition: int,
    entries: Iterable[Entry],
    new_partition: Callable[[int], Partition],
    already: Mapping[int, Collection[int]],
    error: Exception,
) -> Refused:
    """Why the changelog of a partition is refused: all its records are looked at, one by one.

    Args:
        already: offsets by partition that are left out now.

    Raises:
        Exception: ``error``, where every record can be read: then it is the code that is wrong.
    """
    places = [(partition, offset, why) for offset, why in broken(entries, partition, new_partition)]
    if not places:
        raise error
    return Refused(broken_state(topic, places, "audience.skip_state_records", already, _LOST))


def broken(
    entries: Iterable[Entry], partition: int, new_partition: Callable[[int], Partition]
) -> Iterator[tuple[int, str]]:
    """Offset and reason of each record that cannot be read, or that misses the record which belongs to it."""
    scratch = new_partition(partition)
    halves: dict[bytes, dict[bytes, int]] = {REQUEST: {}, ACCOUNT: {}}
    for entry in entries:
        try:
            for key, value in state_records([entry], RestoredExtras()):
                scratch.check(key, value)
        except Exception as error:  # noqa: BLE001 - whatever a decoder makes of bytes that it never wrote
            yield entry.offset, f"key {entry.key[:64]!r}: {error}"
            continue
        if (half := halves.get(entry.key[:1])) is not None:
            if entry.value is None:
                half.pop(entry.key[1:], None)
            else:
                half[entry.key[1:]] = entry.offset
    for kind, other in ((REQUEST, ACCOUNT), (ACCOUNT, REQUEST)):
        for song, offset in halves[kind].items():
            if song not in halves[other]:
                yield offset, f"key {(kind + song)[:64]!r}: of a campaign's request and account the other is missing"


def _key_mismatch(partition: int, error: ForeignKeyError) -> ErasureKeyMismatch:
    found = ", ".join(f"{count} with the key of fingerprint {of.hex()}" for of, count in error.found.items())
    return ErasureKeyMismatch(
        f"audience.erasure_key: its fingerprint is {error.known[0].hex()}, and partition {partition} remembers erased "
        f"users otherwise: {found}. They would be erased again. Start with that key, or, to replace it, name it in "
        "audience.former_erasure_keys, too"
    )


def _watched(entries: Iterable[Entry], failures: list[BaseException]) -> Iterator[Entry]:
    """The same; notes what reading them raises."""
    try:
        yield from entries
    except GeneratorExit:
        raise
    except BaseException as error:
        failures.append(error)
        raise
