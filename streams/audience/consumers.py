"""The inputs of the partitions that this worker holds.

One consumer subscribes to ``listens`` and takes part in the group. Others read the same partitions of the other
inputs, assigned by hand; their offsets are committed for the group by the same transaction. All rebalance
callbacks run inside :meth:`Assignment.poll_listens` and :meth:`Assignment.idle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from streams.audience.decode import INPUTS
from streams.audience.fetching import BATCH_BYTES, fetching, here, readable, told_apart
from streams.audience.positions import TOPIC_OF, InputOffsets
from streams.audience.unheld_partitions import UnheldPartitions
from streams.contract.errors import MustRestart, Unavailable
from streams.contract.topics import Naming
from streams.kafka.clients import Statistics, admin, consumer, list_offsets, taken
from streams.kafka.second_reader import read_batch
from streams.kafka.topic_identity import topic_ids
from streams.runtime.clock import Clock
from streams.runtime.settings import AudienceSettings, KafkaSettings

REREAD: Final = ("preferences", "vectors")
"""Inputs that are their own changelog: compacted, and read from the beginning at every start."""

_COMMANDS_AT_ONCE = 64
# Millions are read in pieces, each a batch of its own.
_PREFERENCES_AT_ONCE = 10_000

# Between two looks at a wrong clock; rebalances wait for it.
_IDLE_S = 0.1


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
        statistics: told what the client of the group measures of itself.
        on_change: called with (new, gone) partition numbers; gone ones are already unassigned everywhere.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        naming: Naming,
        settings: AudienceSettings,
        clock: Clock,
        member: str,
        on_change: Callable[[list[int], list[int]], None],
        client_id: str | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        group = f"{naming.prefix}audience"
        self._names = {name: naming.name(TOPIC_OF[name]) for name in INPUTS}
        self._kafka = kafka
        self._timeout = kafka.request_timeout_s
        self._starts: dict[tuple[str, int], int] = {}
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
            statistics,
            group_instance_id=member,
            client_id=client_id or member,
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=1000,
            # A lost response to JoinGroup is retried after this; at the default of five minutes the worker would stand
            # still for as long. No round takes longer: see the watchdog, and restoring polls.
            max_poll_interval_ms=int(max(settings.session_timeout_s, 2 * settings.watchdog_s) * 1000),
            enable_partition_eof=True,
            auto_offset_reset="error",
            **fetching("listens"),
        )
        # A position that the log does not have is always an error: a restart finds it and says what was lost.
        # These consumers never join their groups or commit to them.
        self._others: dict[str, Consumer] = {
            name: consumer(
                kafka,
                f"{group}-{name}",
                enable_partition_eof=name in REREAD,
                auto_offset_reset="error",
                **fetching(name),
            )
            for name in INPUTS
            if name != "listens"
        }
        self._joined = False
        self._unheld: UnheldPartitions | None = UnheldPartitions(kafka, group, naming.audience_partitions, clock)
        self._join()

    @property
    def group_metadata(self) -> Any:
        """This member's generation, to be taken before a batch is read: a commit after a rebalance is then refused."""
        return self._listens.consumer_group_metadata()

    def topic_partition(self, input_name: str, partition: int, offset: int) -> TopicPartition:
        return TopicPartition(self._names[input_name], partition, offset)

    def _start(self, input_name: str, partition: int, offset: int) -> TopicPartition:
        """Where reading goes on, to be assigned or sought."""
        place = self.topic_partition(input_name, partition, offset)
        self._starts[place.topic, partition] = offset
        return place

    def _readable(self, reader: Consumer, messages: list[Message]) -> list[Message]:
        return readable(reader, messages, self._starts, partial(read_batch, self._kafka))

    def _read(self, reader: Consumer, messages: list[Message]) -> tuple[list[Message], list[Message]]:
        return told_apart(self._readable(reader, messages))

    def committed(self, partitions: Iterable[int]) -> dict[int, InputOffsets]:
        """The group's committed offsets, by partition.

        Raises:
            Unavailable: the broker does not answer.
        """
        numbers = list(partitions)
        wanted = [TopicPartition(topic, p) for p in numbers for topic in self._names.values()]
        try:
            found = self._listens.committed(wanted, timeout=self._timeout)
        except KafkaException as error:
            raise Unavailable(f"committed offsets of partitions {numbers}: {error.args[0].str()}") from error
        offsets = {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}
        return {
            p: InputOffsets(**{name: offsets.get((topic, p), OFFSET_BEGINNING) for name, topic in self._names.items()})
            for p in numbers
        }

    def topic_ids(self) -> dict[str, str]:
        """Input -> the broker's id of its topic.

        Raises:
            Unavailable: the broker does not answer, or a topic is missing.
        """
        found = topic_ids(self._admin, self._names.values(), self._timeout)
        return {name: found[topic] for name, topic in self._names.items()}

    def ranges(self, partitions: Iterable[int]) -> dict[int, dict[str, tuple[int, int]]]:
        """By partition, input -> the first offset that is kept and the end, uncommitted records included.

        Raises:
            Unavailable: the broker does not answer.
        """
        numbers = list(partitions)
        places = [TopicPartition(topic, p) for p in numbers for topic in self._names.values()]
        first, last = (
            self._offsets(places, spec, IsolationLevel.READ_UNCOMMITTED)
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        )
        return {p: {name: (first[t, p], last[t, p]) for name, t in self._names.items()} for p in numbers}

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

    def begin_preferences(self, partition: int) -> None:
        """Read the preferences of a restored partition, all of them; the other inputs wait for :meth:`begin`."""
        self._others["preferences"].incremental_assign([self._start("preferences", partition, OFFSET_BEGINNING)])
        self._preferences_read[partition] = 0

    def begin(self, partition: int, at: InputOffsets) -> None:
        """Read a partition whose preferences are in: vectors from outside all, listens and outcomes on from ``at``.

        Commands wait for :meth:`begin_commands`.
        """
        if at.listens >= 0:
            self._listens.seek(self._start("listens", partition, at.listens))
        self._listens.resume([TopicPartition(self._names["listens"], partition)])
        for name, offset in (("vectors", OFFSET_BEGINNING), ("outcomes", at.outcomes)):
            self._others[name].incremental_assign([self._start(name, partition, offset)])
        if end := self.ends("vectors", [partition])[partition]:
            self._vectors_until[partition] = end

    def begin_commands(self, partition: int, at: InputOffsets) -> None:
        self._others["commands"].incremental_assign([self._start("commands", partition, at.commands)])

    def go_back(self, positions: Mapping[int, InputOffsets]) -> None:
        """After an abort: read again from the last commit."""
        for partition, at in positions.items():
            self._listens.seek(self._start("listens", partition, at.listens))
            for name, reader in self._others.items():
                if partition in {tp.partition for tp in reader.assignment()}:
                    reader.seek(self._start(name, partition, getattr(at, name)))
            self._preferences_read[partition] = 0

    def halt(self, partitions: list[int]) -> None:
        """Read nothing of these partitions, which stay ours, until :meth:`begin`."""
        self._listens.pause([TopicPartition(self._names["listens"], partition) for partition in partitions])
        # Where nothing was ever committed, this is where reading begins again.
        self.again("listens", partitions)
        self._unread(partitions)

    def hold(self) -> None:
        """Read nothing until :meth:`go_on`."""
        self._listens.pause(self._listens.assignment())

    def idle(self, wait_s: float = _IDLE_S) -> None:
        """Take part in the group while nothing is read: after :meth:`hold`. Rebalance callbacks run in this call."""
        self._note_ends(self._read(self._listens, self._listens.consume(1, wait_s))[1])

    def go_on(self, partitions: Iterable[int]) -> None:
        """Read these partitions again; others wait for :meth:`begin`."""
        self._listens.resume([TopicPartition(self._names["listens"], p) for p in partitions])

    def again(self, input_name: str, partitions: Iterable[int]) -> None:
        """Read an input of these partitions from its beginning; of those where it is not begun it will be anyway."""
        reader = self._others.get(input_name, self._listens)
        reading = {tp.partition for tp in reader.assignment()}
        for partition in reading.intersection(partitions):
            reader.seek(self._start(input_name, partition, OFFSET_BEGINNING))

    def poll_listens(self, limit: int) -> Polled:
        """Listens that are here already; rebalance callbacks run in this call."""
        polled = Polled()
        records, ends = self._read(self._listens, here(self._listens, limit))
        self._note_ends(ends)
        polled.add(records, self._held)
        return polled

    def _note_ends(self, ends: Iterable[Message]) -> None:
        self._at_end.update(message.partition() or 0 for message in ends)

    def caught_up(self, partition: int) -> bool:
        """Whether the end of a partition's listens was met since it was assigned, and all the vectors from outside
        that were there then are read."""
        return partition in self._at_end and partition not in self._vectors_until

    def poll_commands(self, wait_s: float) -> Polled:
        """Commands in arrival order; waits for the first, never for more."""
        polled = Polled()
        reader = self._others["commands"]
        polled.add(self._read(reader, taken(reader, _COMMANDS_AT_ONCE, wait_s))[0], self._held)
        return polled

    def poll_outcomes(self, limit: int) -> Polled:
        """Outcomes that are here already."""
        polled = Polled()
        reader = self._others["outcomes"]
        polled.add(self._read(reader, here(reader, limit))[0], self._held)
        return polled

    def poll_vectors(self, limit: int) -> Polled:
        """Vectors from outside that are here already."""
        polled = Polled()
        reader = self._others["vectors"]
        records, ends = self._read(reader, here(reader, limit))
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
        polled, left, size, until = Polled(), _PREFERENCES_AT_ONCE, 0, until or {}
        reader = self._others["preferences"]
        deadline = self._clock.monotonic() + self._timeout
        while True:
            behind = not self.preferences_reached(until)
            before = sum(self._preferences_read[partition] for partition in until)
            messages = self._readable(reader, here(reader, left, 0.005 if behind else 0))
            for message in messages:
                # Control records are never delivered; the end-of-partition event tells that they were passed.
                at = (message.offset() or 0) + (1 if message.error() is None else 0)
                self._preferences_read[message.partition() or 0] = at
            polled.add(told_apart(messages)[0], self._held)
            left -= len(messages)
            size += sum(map(len, messages))
            if not behind or left <= 0 or size >= BATCH_BYTES:
                return polled
            if sum(self._preferences_read[partition] for partition in until) > before:
                deadline = self._clock.monotonic() + self._timeout
            if self._clock.monotonic() > deadline:
                ends = ", ".join(f"[{p}] {self._preferences_read[p]:,} of {end:,}" for p, end in until.items())
                raise MustRestart(f"{self._names['preferences']}: nothing came for {self._timeout:g} s; read: {ends}")

    def rejoin_for_unheld(self) -> None:
        """Ask for another rebalance where the last one left partitions without a member."""
        if self._unheld is None or not self._joined:
            return
        if self._unheld.found():
            self._listens.unsubscribe()
            self._join()
        elif self._unheld.seen_whole:
            self._unheld = None

    def close(self) -> None:
        # The group member first: its last callback still unassigns the others.
        for each in (self._listens, *self._others.values()):
            each.close()

    def _join(self) -> None:
        self._listens.subscribe(
            [self._names["listens"]], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._joined = True
        # Nothing is read before the state is restored, which also says from where.
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
