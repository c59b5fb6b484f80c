"""Reads a partition's changelog, and separates the state's own records from the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streams.audience.local_store import Entry, StoreCorrupted
from streams.audience.positions import OFFSETS_KEY, RecordedOffsets
from streams.contract.errors import Unavailable
from streams.contract.topics import AUDIENCE_STATE, Naming
from streams.kafka.access import unreadable
from streams.kafka.clients import consumer, reader_group, taken, watermarks
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings
from targeting.partition.partition import ACCOUNT


class ChangelogClients:
    """The clients that read changelogs, to be used for one partition after another.

    A new client takes longer to connect than a small partition to be read.
    """

    def __init__(self, kafka: KafkaSettings, naming: Naming) -> None:
        group = reader_group(naming.name(AUDIENCE_STATE))
        self.reader: Consumer = consumer(kafka, group, enable_partition_eof=True)
        self.probe: Consumer = consumer(kafka, group, isolation_level="read_uncommitted")
        """Knows the ends, uncommitted records included."""

    def close(self) -> None:
        self.reader.close()
        self.probe.close()


ACCOUNT_PREFIX: Final = ACCOUNT
"""Of the records whose changelog offset is a report's version."""


@dataclass(slots=True)
class RestoredExtras:
    """What a changelog tells beside the state, complete once all its records were read.

    Attributes:
        versions: account key -> changelog offset of its record.
        inputs: where the state stands in its inputs.
        records: how many were read.
    """

    versions: dict[bytes, int] = field(default_factory=dict)
    inputs: RecordedOffsets = field(default_factory=RecordedOffsets)
    records: int = 0


def read_changelog(
    kafka: KafkaSettings,
    naming: Naming,
    partition: int,
    clock: Clock,
    keep_alive: Callable[[int, int], None],
    start: int = 0,
    without: Collection[int] = (),
    clients: ChangelogClients | None = None,
) -> Iterator[Entry]:
    """Every record of a partition's changelog from ``start``, in order, to its end.

    The end includes uncommitted records: the committed end can stop before an open transaction of a dead worker, and
    what lies behind that transaction would be missed.

    Args:
        keep_alive: called about once a second with (offsets read, offsets in all).
        without: offsets of records to leave out, because an operator said so.
        clients: to read with; they stay open. None: its own.

    Raises:
        Unavailable: the broker does not answer, or the changelog does not advance for 75 s.
        Refused: this client may not read it.
        StoreCorrupted: the changelog ends before ``start``: it is not the one that the state on disk came from.
    """
    using = clients or ChangelogClients(kafka, naming)
    place = TopicPartition(naming.name(AUDIENCE_STATE), partition)
    try:
        for message in _to_end(using, kafka, place, clock, keep_alive, start):
            if without and message.offset() in without:
                continue
            yield Entry(message.offset() or 0, message.key() or b"", message.value())
    finally:
        if clients is None:
            using.close()


def state_records(entries: Iterable[Entry], beside: RestoredExtras) -> Iterator[tuple[bytes, bytes | None]]:
    """The records of the state itself, for ``targeting``; what stands beside it is noted on the way."""
    for offset, key, value in entries:
        beside.records += 1
        if key.startswith(OFFSETS_KEY) and beside.inputs.take(key, value):
            continue
        if key.startswith(ACCOUNT_PREFIX):
            beside.versions[key] = offset
            if value is None:
                del beside.versions[key]
        yield key, value


# Nearly always enough: the offsets are the last record of every commit.
_LAST_RECORDS: Final = 256


def read_recorded(kafka: KafkaSettings, naming: Naming, partition: int, clock: Clock) -> RecordedOffsets:
    """Where a partition's state stands in its inputs, from the end of its changelog; nothing where there is none.

    Raises:
        Unavailable: as :func:`read_changelog`.
    """
    clients, place = ChangelogClients(kafka, naming), TopicPartition(naming.name(AUDIENCE_STATE), partition)
    try:
        low, end = watermarks(clients.probe, place, kafka.request_timeout_s)
        span = _LAST_RECORDS
        while True:
            start, found, told = max(low, end - span), RecordedOffsets(), False
            for _, key, value in read_changelog(kafka, naming, partition, clock, lambda *_: None, start, (), clients):
                if key.startswith(OFFSETS_KEY):
                    told |= found.take(key, value) and key == OFFSETS_KEY
            if told or start == low:
                return found
            span *= 16
    finally:
        clients.close()


# Longer than any transaction may stay open: what a dead worker left is aborted by then.
_PATIENCE_S = 75.0


def _to_end(
    clients: ChangelogClients,
    kafka: KafkaSettings,
    place: TopicPartition,
    clock: Clock,
    keep_alive: Callable[[int, int], None],
    start: int,
) -> Iterator[Message]:
    low, end = watermarks(clients.probe, place, kafka.request_timeout_s)
    if start > end:
        raise StoreCorrupted(f"{place.topic}[{place.partition}] ends at {end}, the state on disk stands at {start}")
    low = max(low, start)
    if low == end:
        return
    clients.reader.assign([TopicPartition(place.topic, place.partition, low)])
    at, spoken = low, clock.monotonic()
    patience = clock.monotonic() + _PATIENCE_S
    while at < end:
        # What an earlier assignment left in the queue is not of this partition.
        messages = [each for each in taken(clients.reader, 10_000, 0.05) if each.partition() == place.partition]
        now = clock.monotonic()
        if messages:
            patience = now + _PATIENCE_S
        for message in messages:
            error = message.error()
            at = (message.offset() or 0) + (1 if error is None else 0)
            if error is None:
                yield message
            elif error.code() != KafkaError._PARTITION_EOF:
                raise unreadable(kafka, place.topic, place.partition, error)
        if now - spoken > 1.0:
            spoken = now
            keep_alive(at - low, end - low)
        if now > patience:
            raise Unavailable(f"{place.topic}[{place.partition}]: stands at {at} of {end} for {_PATIENCE_S:g} s")
