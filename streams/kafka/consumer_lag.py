"""How far each group is behind, in records and in seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConsumerGroupListing, OffsetSpec

from streams.contract.errors import Unavailable
from streams.contract.topics import Naming
from streams.kafka import clients
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

# One record of each partition is read to learn its time. What has not come by then is shown as unknown.
_READ_S: Final = 5.0

Place = tuple[str, int]
"""Topic and partition."""

_NOBODY: Final[frozenset[int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Lag:
    """One group on one partition.

    Attributes:
        committed: the next offset that it will process; None when it never committed one.
        end: behind the last record that a reader of committed transactions can see.
        records: offsets from the first record that waits to the end; 0 when none does. What was aborted and the ends of
            transactions take offsets too: those before the first record that waits do not count, those behind it do.
        seconds: age of the first record that waits; 0 when none does, None when it could not be read in time.
        served: whether a member of the group has a partition of this number: what a member subscribes is assigned, and
            it reads the same partition of its other inputs.
    """

    group: str
    topic: str
    partition: int
    committed: int | None
    end: int
    records: int
    seconds: float | None
    served: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """Every group on every partition, at one time.

    Attributes:
        lags: by group, topic and partition.
        gaps: what cannot be measured, each with the reason: a topic that is missing, a partition without a leader.
    """

    lags: list[Lag]
    gaps: list[str]


def measure(kafka: KafkaSettings, naming: Naming, clock: Clock) -> list[Lag]:
    """Every group that has committed an offset of this installation's topics, by group, topic and partition.

    Asks only; workers are not disturbed.

    Raises:
        Unavailable: the cluster does not answer within ``kafka.request_timeout_s``.
    """
    with closing(LagSurveyor(kafka, naming, clock)) as surveyor:
        return surveyor.survey().lags


class LagSurveyor:
    """Asks again and again how far all groups are behind, over connections that stay open.

    Args:
        inputs: group -> its topics, full names, that are looked at also while it has committed nothing: then it is
            behind from where reading would begin, the oldest record that is kept.

    Raises:
        Unavailable: no broker answers.
        Refused: the brokers do not let this client in.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        naming: Naming,
        clock: Clock,
        inputs: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        self._timeout = kafka.request_timeout_s
        self._naming = naming
        self._clock = clock
        self._inputs = inputs
        self._admin = clients.admin(kafka)
        self._reader = _first_record_reader(kafka, clients.reader_group(min(naming.by_name())))

    def survey(self) -> Survey:
        """Ask once.

        Raises:
            Unavailable: no answer within the request timeout.
        """
        try:
            return self._survey()
        except (KafkaException, TimeoutError) as error:
            why = clients.reason(error)
            raise Unavailable(f"the cluster does not answer queries about its groups: {why}") from error

    def close(self) -> None:
        self._reader.close()

    def _survey(self) -> Survey:
        topics, gaps = self._topics()
        groups = _groups(self._admin, self._timeout)
        committed = {
            (group, (topic, partition)): None
            for group, names in self._inputs.items()
            for topic in names
            for partition in topics.get(topic, ())
        } | _committed(self._admin, groups, topics, self._timeout)
        places = {place for _, place in committed}
        starts = _offsets(self._admin, places, OffsetSpec.earliest(), self._timeout)  # type: ignore[no-untyped-call]
        ends = _offsets(self._admin, places, OffsetSpec.latest(), self._timeout)  # type: ignore[no-untyped-call]

        # A group that never committed, or whose place is already deleted, goes on at the oldest record.
        positions = {key: max(offset or 0, starts[key[1]]) for key, offset in committed.items()}
        behind = {(place, at) for (_, place), at in positions.items() if at < ends[place]}
        firsts = first_records(self._reader, behind, self._clock)
        served = _served(self._admin, groups, {group for group, _ in committed}, self._timeout)

        now = self._clock.now()
        lags = []
        for (group, place), at in sorted(positions.items()):
            records, seconds = _waiting(firsts.get((place, at), (at, None)), ends[place], now)
            held = served.get(group, _NOBODY)
            lags.append(
                Lag(
                    group,
                    *place,
                    committed[group, place],
                    ends[place],
                    records,
                    seconds,
                    held is None or place[1] in held,
                )
            )
        return Survey(lags, gaps)

    def _topics(self) -> tuple[dict[str, list[int]], list[str]]:
        """Topic -> partitions that have a leader, and what is not there."""
        present = self._admin.list_topics(timeout=self._timeout).topics
        known = self._naming.by_name()
        topics, gaps = {}, []
        for name in known:
            parts = present[name].partitions if name in present else {}
            topics[name] = sorted(number for number, part in parts.items() if part.leader >= 0)
            gaps += [
                f"topic {name}[{number}]: no leader; start broker {' or '.join(map(str, part.replicas))}, which has it"
                for number, part in sorted(parts.items())
                if part.leader < 0
            ]
            if name not in present and any(name in names for names in self._inputs.values()):
                gaps.append(f"topic {name}: does not exist; `coldstart topics create` creates it")
        return topics, gaps


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
            raise Unavailable(f"lag cannot be read: {clients.reason(error)}") from error
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
        # One record a partition is enough: 16 KiB of each may be 30 records of 5 MB.
        **clients.fetch_bounds(1_024, 16_384),
        queued_min_messages=1,
    )


def _groups(admin: AdminClient, timeout: float) -> list[ConsumerGroupListing]:
    """The groups of all brokers: whose broker did not answer would look as if they had committed nothing."""
    listed = admin.list_consumer_groups(request_timeout=timeout).result(timeout)
    if listed.errors:
        raise KafkaException(listed.errors[0])
    found: list[ConsumerGroupListing] = listed.valid
    return found


def _committed(
    admin: AdminClient, groups: Iterable[ConsumerGroupListing], topics: Mapping[str, list[int]], timeout: float
) -> dict[tuple[str, Place], int | None]:
    """All partitions of every topic on which a group has committed any."""
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


def _served(
    admin: AdminClient, groups: Iterable[ConsumerGroupListing], wanted: Collection[str], timeout: float
) -> dict[str, frozenset[int] | None]:
    """Group -> partition numbers that its members have; None: it has members, and what they have is not known."""
    staffed = [
        group.group_id
        for group in groups
        if group.group_id in wanted and group.state not in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)
    ]
    found: dict[str, frozenset[int] | None] = dict.fromkeys(staffed)
    answers = admin.describe_consumer_groups(staffed, request_timeout=timeout) if staffed else {}
    for group, answer in answers.items():
        try:
            described = answer.result(timeout)
        except KafkaException as error:
            if error.args[0].code() < 0:
                # The client's own: there is no answer.
                raise
            # The group ended meanwhile, or this client may not describe it.
            continue
        if described.state == ConsumerGroupState.STABLE:
            assignments = [member.assignment.topic_partitions for member in described.members]
            found[group] = frozenset(place.partition for places in assignments for place in places)
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
