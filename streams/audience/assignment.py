"""Which partitions are ours, and what is there to read from them?

One consumer subscribes to ``listens`` and takes part in the group. Others read the same partitions of the other
inputs, assigned by hand; their offsets are committed for the group by the same transaction. All rebalance
callbacks run inside :meth:`Assignment.poll_listens`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from streams.audience.inputs import INPUTS
from streams.audience.positions import TOPIC_OF, Positions
from streams.clients import admin, consumer, list_offsets, taken
from streams.clock import Clock
from streams.errors import ColdstartError, MustRestart, Refused, Unavailable
from streams.kafka.topic_identity import topic_ids
from streams.settings import Audience, Kafka
from streams.topics import Naming

REREAD: Final = ("preferences", "vectors")
"""Inputs that are their own changelog: compacted, and read from the beginning at every start."""

_COMMANDS_AT_ONCE = 64
# Millions are read in pieces, each a batch of its own.
_PREFERENCES_AT_ONCE = 10_000

# A look at a clock that is wrong; rebalances wait for it.
_IDLE_S = 0.1

# What a consumer that is behind holds of records not yet taken: some twenty batches where there are many, so that the
# next one is always there. The broker keeps the rest: a full queue stops fetching.
_QUEUE_KB: Final = {"listens": 16_384, "vectors": 16_384}
_SMALL_QUEUE_KB: Final = 4_096

# What one fetch brings, compressed: the client unpacks all of it before it looks at the queue's bound, and zstd makes
# nine thousand bytes of one. At the client's 1 MiB a partition, 400 listens of 5 MB stood in memory at once, at this a
# third of them. A whole batch comes all the same, so that reading is hardly slower (64 KiB against 1 MiB: no difference
# at 600,000 listens a second).
_FETCH_BYTES: Final = 32_768
_VECTORS_FETCH_BYTES: Final = 131_072


@dataclass(slots=True)
class Polled:
    """What one consumer gave: records by partition."""

    records: dict[int, list[Message]] = field(default_factory=dict)

    def add(self, messages: list[Message], held: set[int]) -> None:
        # What was fetched together lies together.
        for place, run in groupby(messages, Message.partition):
            if place in held:
                self.records.setdefault(place or 0, []).extend(run)


class Assignment:
    """The inputs of the partitions that this member of the group holds.

    Args:
        member: stable name of this worker's slot; a second process with it is fenced by the broker.
        client_id: of the member; its name, if not given.
        on_change: called with (new, gone) partition numbers; gone ones are already unassigned everywhere.
    """

    def __init__(
        self,
        kafka: Kafka,
        naming: Naming,
        settings: Audience,
        clock: Clock,
        member: str,
        on_change: Callable[[list[int], list[int]], None],
        client_id: str | None = None,
    ) -> None:
        group = f"{naming.prefix}audience"
        self._names = {name: naming.name(TOPIC_OF[name]) for name in INPUTS}
        self._timeout = kafka.request_timeout_s
        self._clock = clock
        self._on_change = on_change
        self._held: set[int] = set()
        self._preferences_read: dict[int, int] = {}
        self._vectors_until: dict[int, int] = {}
        self._at_end: set[int] = set()
        self._admin = admin(kafka)
        self._listens: Consumer = consumer(
            kafka,
            group,
            group_instance_id=member,
            client_id=client_id or member,
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=1000,
            enable_partition_eof=True,
            queued_max_messages_kbytes=_QUEUE_KB["listens"],
            auto_offset_reset="error",
            **_fetching("listens"),
        )
        # A position that a log does not have is an error everywhere: a restart finds it, and says what was lost.
        # Groups of these are never joined nor committed to.
        self._others: dict[str, Consumer] = {
            name: consumer(
                kafka,
                f"{group}-{name}",
                enable_partition_eof=name in REREAD,
                queued_max_messages_kbytes=_QUEUE_KB.get(name, _SMALL_QUEUE_KB),
                auto_offset_reset="error",
                **_fetching(name),
            )
            for name in INPUTS
            if name != "listens"
        }
        self._listens.subscribe(
            [self._names["listens"]], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    @property
    def group_metadata(self) -> Any:
        """This member's generation; to be taken before a batch is read, so that a later one is refused."""
        return self._listens.consumer_group_metadata()

    def topic_partition(self, input_name: str, partition: int, offset: int) -> TopicPartition:
        return TopicPartition(self._names[input_name], partition, offset)

    def committed(self, partition: int) -> Positions:
        """The group's committed offsets of one partition.

        Raises:
            Unavailable: the broker does not answer.
        """
        wanted = [TopicPartition(topic, partition) for topic in self._names.values()]
        try:
            found = self._listens.committed(wanted, timeout=self._timeout)
        except KafkaException as error:
            raise Unavailable(f"committed offsets of partition {partition}: {error.args[0].str()}") from error
        offsets = {each.topic: each.offset for each in found if each.offset >= 0}
        return Positions(**{name: offsets.get(topic, OFFSET_BEGINNING) for name, topic in self._names.items()})

    def topic_ids(self) -> dict[str, str]:
        """Input -> the broker's id of its topic.

        Raises:
            Unavailable: the broker does not answer, or a topic is missing.
        """
        found = topic_ids(self._admin, self._names.values(), self._timeout)
        return {name: found[topic] for name, topic in self._names.items()}

    def ranges(self, partition: int) -> dict[str, tuple[int, int]]:
        """Input -> the first offset that is kept and the end, uncommitted records included.

        Raises:
            Unavailable: the broker does not answer.
        """
        first, last = (
            self._offsets(
                [TopicPartition(t, partition) for t in self._names.values()], spec, IsolationLevel.READ_UNCOMMITTED
            )
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        )
        return {name: (first[topic, partition], last[topic, partition]) for name, topic in self._names.items()}

    def ends(self, input_name: str, partitions: Iterable[int]) -> dict[int, int]:
        """The committed end of an input now, by partition.

        Raises:
            Unavailable: the broker does not answer.
        """
        topic = self._names[input_name]
        places = [TopicPartition(topic, p) for p in partitions]
        found = self._offsets(places, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]
        return {partition: offset for (_, partition), offset in found.items()}

    def _offsets(
        self, places: Iterable[TopicPartition], which: OffsetSpec, isolation: IsolationLevel
    ) -> dict[tuple[str, int], int]:
        return list_offsets(self._admin, places, which, isolation, self._timeout)

    def known_end(self, input_name: str, partition: int) -> int | None:
        """The end of an input as the broker told it with the last records, without asking; None before any."""
        place = TopicPartition(self._names[input_name], partition)
        ends = self._others.get(input_name, self._listens).get_watermark_offsets(place, cached=True)
        return None if ends is None or ends[1] < 0 else ends[1]

    def begin_preferences(self, partition: int) -> None:
        """Read the preferences of a restored partition, all of them; the other inputs wait for :meth:`begin`."""
        self._others["preferences"].incremental_assign(
            [self.topic_partition("preferences", partition, OFFSET_BEGINNING)]
        )
        self._preferences_read[partition] = 0

    def begin(self, partition: int, at: Positions) -> None:
        """Read a partition whose preferences are in: vectors from outside all, listens and outcomes on from ``at``.

        Commands wait for :meth:`begin_commands`.
        """
        if at.listens >= 0:
            self._listens.seek(self.topic_partition("listens", partition, at.listens))
        self._listens.resume([TopicPartition(self._names["listens"], partition)])
        for name, offset in (("vectors", OFFSET_BEGINNING), ("outcomes", at.outcomes)):
            self._others[name].incremental_assign([self.topic_partition(name, partition, offset)])
        if end := self.ends("vectors", [partition])[partition]:
            self._vectors_until[partition] = end

    def begin_commands(self, partition: int, at: Positions) -> None:
        self._others["commands"].incremental_assign([self.topic_partition("commands", partition, at.commands)])

    def go_back(self, positions: Mapping[int, Positions]) -> None:
        """After an abort: read again from the last commit."""
        for partition, at in positions.items():
            self._listens.seek(self.topic_partition("listens", partition, at.listens))
            for name, reader in self._others.items():
                if partition in {tp.partition for tp in reader.assignment()}:
                    reader.seek(self.topic_partition(name, partition, getattr(at, name)))
            self._preferences_read[partition] = 0

    def halt(self, partitions: list[int]) -> None:
        """Read nothing of these partitions, which stay ours, until they :meth:`begin` again."""
        self._listens.pause([TopicPartition(self._names["listens"], partition) for partition in partitions])
        # Where nothing was ever committed, this is where reading begins again.
        self.again("listens", partitions)
        self._unread(partitions)

    def hold(self) -> None:
        """Read nothing until :meth:`go_on`."""
        self._listens.pause(self._listens.assignment())

    def idle(self) -> None:
        """Take part in the group while nothing is read; waits a moment."""
        _told_apart(self._listens.consume(1, _IDLE_S))

    def go_on(self, partitions: Iterable[int]) -> None:
        """Read these partitions again; others wait for :meth:`begin`."""
        self._listens.resume([TopicPartition(self._names["listens"], p) for p in partitions])

    def again(self, input_name: str, partitions: Iterable[int]) -> None:
        """Read an input of these partitions from its beginning; of those where it is not begun it will be anyway."""
        reader = self._others.get(input_name, self._listens)
        reading = {tp.partition for tp in reader.assignment()}
        for partition in reading.intersection(partitions):
            reader.seek(self.topic_partition(input_name, partition, OFFSET_BEGINNING))

    def poll_listens(self, limit: int) -> Polled:
        """Listens that are here already; rebalance callbacks run in this call."""
        polled = Polled()
        records, ends = _told_apart(_here(self._listens, limit))
        self._at_end.update(message.partition() or 0 for message in ends)
        polled.add(records, self._held)
        return polled

    def caught_up(self, partition: int) -> bool:
        """Whether the end of a partition's listens was met since it was assigned, and all the vectors from outside
        that were there then are read."""
        return partition in self._at_end and partition not in self._vectors_until

    def poll_commands(self, wait_s: float) -> Polled:
        """Commands in arrival order; waits for the first, never for more."""
        polled = Polled()
        polled.add(_told_apart(taken(self._others["commands"], _COMMANDS_AT_ONCE, wait_s))[0], self._held)
        return polled

    def poll_outcomes(self, limit: int) -> Polled:
        """Outcomes that are here already."""
        polled = Polled()
        polled.add(_told_apart(_here(self._others["outcomes"], limit))[0], self._held)
        return polled

    def poll_vectors(self, limit: int) -> Polled:
        """Vectors from outside that are here already."""
        polled = Polled()
        records, ends = _told_apart(_here(self._others["vectors"], limit))
        polled.add(records, self._held)
        if self._vectors_until:
            read = {partition: (messages[-1].offset() or 0) + 1 for partition, messages in polled.records.items()}
            read |= {message.partition() or 0: message.offset() or 0 for message in ends}
            for partition, at in read.items():
                if at >= self._vectors_until.get(partition, at):
                    self._vectors_until.pop(partition, None)
        return polled

    def preferences_read(self, partition: int) -> int:
        """Up to which offset the preferences of a partition have been polled."""
        return self._preferences_read[partition]

    def preferences_reached(self, until: Mapping[int, int]) -> bool:
        """Whether the preferences before these ends have been polled."""
        return all(self._preferences_read[partition] >= end for partition, end in until.items())

    def poll_preferences(self, until: Mapping[int, int] | None = None) -> Polled:
        """Preferences that are here already; with ``until``, all before these ends, but no more than a piece at once.

        Raises:
            MustRestart: nothing has come for the request timeout, and an end is not reached.
        """
        polled, left, until = Polled(), _PREFERENCES_AT_ONCE, until or {}
        deadline = self._clock.monotonic() + self._timeout
        while True:
            behind = not self.preferences_reached(until)
            before = sum(self._preferences_read[partition] for partition in until)
            messages = self._others["preferences"].consume(left, 0.005 if behind else 0)
            for message in messages:
                # Control records are never delivered; the end-of-partition event tells that they were passed.
                at = (message.offset() or 0) + (1 if message.error() is None else 0)
                self._preferences_read[message.partition() or 0] = at
            polled.add(_told_apart(messages)[0], self._held)
            left -= len(messages)
            if not behind or left <= 0:
                return polled
            if sum(self._preferences_read[partition] for partition in until) > before:
                deadline = self._clock.monotonic() + self._timeout
            if self._clock.monotonic() > deadline:
                ends = ", ".join(f"[{p}] {self._preferences_read[p]:,} of {end:,}" for p, end in until.items())
                raise MustRestart(f"{self._names['preferences']}: nothing came for {self._timeout:g} s; read: {ends}")

    def close(self) -> None:
        # The member first: its last callback still unassigns the others.
        for each in (self._listens, *self._others.values()):
            each.close()

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is read before the state is restored, and that says from where.
        for each in partitions:
            each.offset = OFFSET_BEGINNING
        self._listens.incremental_assign(partitions)
        self._listens.pause(partitions)
        new = [tp.partition for tp in partitions]
        self._held.update(new)
        self._on_change(new, [])

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        gone = [tp.partition for tp in partitions]
        self._unread(gone)
        self._listens.incremental_unassign(partitions)
        self._held.difference_update(gone)
        self._on_change([], gone)

    def _unread(self, partitions: list[int]) -> None:
        for name, reader in self._others.items():
            reading = {tp.partition for tp in reader.assignment()}
            reader.incremental_unassign([TopicPartition(self._names[name], p) for p in partitions if p in reading])
        self._at_end.difference_update(partitions)
        for partition in partitions:
            self._vectors_until.pop(partition, None)


# Bytes of values that make a batch full, whatever their number.
_BATCH_BYTES: Final = 64 * 1_048_576
# Taken between two looks at the bytes.
_PIECE: Final = 128


def _here(reader: Consumer, limit: int) -> list[Message]:
    """What is here already, at most ``limit`` records and about as many bytes as a batch may have."""
    found: list[Message] = []
    size = 0
    while size < _BATCH_BYTES and (left := limit - len(found)) > 0:
        piece = reader.consume(min(left, _PIECE), 0)
        found += piece
        size += sum(map(len, piece))
        if len(piece) < _PIECE:
            break
    return found


def _fetching(input_name: str) -> dict[str, int]:
    size = _VECTORS_FETCH_BYTES if input_name == "vectors" else _FETCH_BYTES
    # The client raises the second to the third.
    return {"max_partition_fetch_bytes": size, "fetch_max_bytes": size, "message_max_bytes": size}


def explained(error: KafkaException) -> ColdstartError:
    """What an error that a consumer raised asks for."""
    cause = error.args[0]
    # A fatal error has one code of its own; what caused it stands in its text alone.
    if cause.fatal() and "group.instance.id" in cause.str():
        return Refused("another process has taken this slot: give every audience worker a --slot of its own")
    return MustRestart(f"Kafka: {cause.str()}")


def _told_apart(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Records, and ends of partitions. Raises what is neither: an error of the client itself."""
    if not any(map(Message.error, messages)):
        return messages, []
    records, ends = [], []
    for message in messages:
        error = message.error()
        if error is None:
            records.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            ends.append(message)
        elif error.fatal():
            raise MustRestart(f"consumer: {error.str()}")
        elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
            raise KafkaException(error)
    return records, ends
