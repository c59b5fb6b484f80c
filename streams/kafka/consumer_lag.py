"""How far each group is behind, in records and in seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.contract.errors import Unavailable
from streams.contract.topics import Naming
from streams.kafka import clients
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

# One record of each partition is read to learn its time. What has not come by then is shown as unknown.
_READ_S: Final = 5.0

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Lag:
    """One group on one partition.

    Attributes:
        committed: the next offset that it will process; None when it never committed one.
        end: behind the last record that a reader of committed transactions can see.
        records: offsets from the first record that waits to the end; 0 when none does. What was aborted and the ends of
            transactions take offsets too: those before the first record that waits do not count, those behind it do.
        seconds: age of the first record that waits; 0 when none does, None when it could not be read in time.
    """

    group: str
    topic: str
    partition: int
    committed: int | None
    end: int
    records: int
    seconds: float | None


def measure(kafka: KafkaSettings, naming: Naming, clock: Clock) -> list[Lag]:
    """Every group that reads this installation's topics, by group, topic and partition.

    Asks only; workers are not disturbed.

    Raises:
        Unavailable: the cluster does not answer within ``kafka.request_timeout_s``.
    """
    admin = clients.admin(kafka)
    try:
        return _measure(admin, kafka, naming, clock)
    except (KafkaException, TimeoutError) as error:
        raise Unavailable(f"the cluster does not answer queries about its groups: {error}") from error


def _measure(admin: AdminClient, kafka: KafkaSettings, naming: Naming, clock: Clock) -> list[Lag]:
    timeout = kafka.request_timeout_s
    known = naming.by_name()
    topics = {
        name: sorted(topic.partitions)
        for name, topic in admin.list_topics(timeout=timeout).topics.items()
        if name in known
    }
    committed = _committed(admin, topics, timeout)
    places = {place for _, place in committed}
    starts = _offsets(admin, places, OffsetSpec.earliest(), timeout)  # type: ignore[no-untyped-call]
    ends = _offsets(admin, places, OffsetSpec.latest(), timeout)  # type: ignore[no-untyped-call]

    # A group that never committed, or whose place is already deleted, goes on at the oldest record.
    positions = {key: max(offset or 0, starts[key[1]]) for key, offset in committed.items()}
    behind = {(place, at) for (_, place), at in positions.items() if at < ends[place]}
    with closing(_first_record_reader(kafka, clients.reader_group(min(topics, default="none")))) as reader:
        firsts = first_records(reader, behind, clock)

    now = clock.now()
    lags = []
    for (group, place), at in sorted(positions.items()):
        records, seconds = _waiting(firsts.get((place, at), (at, None)), ends[place], now)
        lags.append(Lag(group, *place, committed[group, place], ends[place], records, seconds))
    return lags


class LagReader:
    """Asks again and again how far some partitions are behind, over connections that stay open.

    Args:
        group: whose committed offsets count where a position is not known; it is not joined.
    """

    def __init__(self, kafka: KafkaSettings, group: str, clock: Clock) -> None:
        self._timeout = kafka.request_timeout_s
        self._clock = clock
        self._admin = clients.admin(kafka)
        self._reader = _first_record_reader(kafka, group)

    def read(self, positions: Mapping[Place, int | None]) -> dict[Place, tuple[int, float | None]]:
        """Records and seconds behind, as :class:`Lag` has them.

        Args:
            positions: the next offset to process; None: what the group committed, or else the oldest record.

        Raises:
            Unavailable: no answer within the request timeout.
        """
        try:
            at = self._begin_at(positions)
            starts = _offsets(self._admin, at, OffsetSpec.earliest(), self._timeout)  # type: ignore[no-untyped-call]
            ends = _offsets(self._admin, at, OffsetSpec.latest(), self._timeout)  # type: ignore[no-untyped-call]
            at = {place: max(offset, starts[place]) for place, offset in at.items()}
            behind = {(place, offset) for place, offset in at.items() if offset < ends[place]}
            firsts = first_records(self._reader, behind, self._clock)
        except (KafkaException, TimeoutError) as error:
            raise Unavailable(f"lag cannot be read: {error}") from error
        now = self._clock.now()
        return {
            place: _waiting(firsts.get((place, offset), (offset, None)), ends[place], now)
            for place, offset in at.items()
        }

    def close(self) -> None:
        self._reader.close()

    def _begin_at(self, positions: Mapping[Place, int | None]) -> dict[Place, int]:
        unknown = [TopicPartition(*place) for place, offset in positions.items() if offset is None or offset < 0]
        committed = self._reader.committed(unknown, timeout=self._timeout) if unknown else []
        found = {place: offset for place, offset in positions.items() if offset is not None and offset >= 0}
        return found | {(each.topic, each.partition): max(0, each.offset) for each in committed}


def _waiting(first: tuple[int, float | None], end: int, now: float) -> tuple[int, float | None]:
    offset, stamp = first
    records = max(0, end - offset)
    return records, 0.0 if not records else None if stamp is None else max(0.0, now - stamp)


def _first_record_reader(kafka: KafkaSettings, group: str) -> Consumer:
    return clients.consumer(
        kafka,
        group,
        # What was aborted, and the ends of transactions, are never delivered: this tells that they were passed.
        enable_partition_eof=True,
        # One record a partition is enough: fetch little.
        fetch_message_max_bytes=16_384,
        queued_min_messages=1,
    )


def _committed(
    admin: AdminClient, topics: Mapping[str, list[int]], timeout: float
) -> dict[tuple[str, Place], int | None]:
    """All partitions of every topic on which a group has committed any."""
    groups = admin.list_consumer_groups(request_timeout=timeout).result(timeout).valid
    answers: list[Future[Any]] = [
        future
        for group in groups
        for future in admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group.group_id)], request_timeout=timeout
        ).values()
    ]
    found: dict[tuple[str, Place], int | None] = {}
    for answer in answers:
        result = answer.result(timeout)
        offsets = {(each.topic, each.partition): each.offset for each in result.topic_partitions}
        for topic in {topic for topic, _ in offsets if topic in topics}:
            for partition in topics[topic]:
                offset = offsets.get((topic, partition), -1)
                found[result.group_id, (topic, partition)] = offset if offset >= 0 else None
    return found


def _offsets(admin: AdminClient, places: Iterable[Place], which: OffsetSpec, timeout: float) -> dict[Place, int]:
    wanted = [TopicPartition(*place) for place in places]
    return clients.list_offsets(admin, wanted, which, IsolationLevel.READ_COMMITTED, timeout)


def first_records(
    reader: Consumer, wanted: set[tuple[Place, int]], clock: Clock
) -> dict[tuple[Place, int], tuple[int, float | None]]:
    """Offset and Unix seconds of the first record at or after each offset; the end, and no time, where none waits;
    missing where nothing came in time."""
    firsts: dict[tuple[Place, int], tuple[int, float | None]] = {}
    deadline = clock.monotonic() + _READ_S
    for turn in _turns(wanted):
        reader.assign([TopicPartition(*place, offset) for place, offset in turn.items()])
        while turn and (left := deadline - clock.monotonic()) > 0:
            for message in reader.consume(len(turn), min(left, 0.05)):
                place, error = (message.topic() or "", message.partition() or 0), message.error()
                if place not in turn or (error is not None and error.code() != KafkaError._PARTITION_EOF):
                    continue
                stamp = message.timestamp()[1] / 1000 if error is None else None
                firsts[place, turn.pop(place)] = message.offset() or 0, stamp
                reader.incremental_unassign([TopicPartition(*place)])
        reader.unassign()
    return firsts


def _turns(wanted: set[tuple[Place, int]]) -> Iterable[dict[Place, int]]:
    """One reader can stand at one offset of a partition at a time."""
    offsets: dict[Place, list[int]] = defaultdict(list)
    for place, offset in wanted:
        offsets[place].append(offset)
    for turn in range(max(map(len, offsets.values()), default=0)):
        yield {place: several[turn] for place, several in offsets.items() if turn < len(several)}
