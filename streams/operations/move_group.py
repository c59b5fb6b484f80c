"""Moves a stopped group in its topics: back, or past records that stop it.

The offsets of the audience's group say where its state stands, and the state says the same in its changelog. So one
transaction moves both, with the dead letters of what is skipped; another group has no state to move.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streams.audience.changelog_reader import read_recorded
from streams.audience.consumers import REREAD
from streams.audience.positions import OFFSETS_KEY, TOPIC_OF, InputOffsets, offsets_value
from streams.contract.dead_letters import dead_letter, origin
from streams.contract.errors import OperatorSkipped, RecreatedTopic, Refused, Unavailable
from streams.contract.topics import AUDIENCE_STATE, DEAD_LETTERS, LISTENS, Naming
from streams.kafka.clients import (
    admin,
    consumer,
    enqueue,
    offsets_at,
    producer,
    reader_group,
    reason,
    taken,
    watermarks,
)
from streams.kafka.topic_identity import topic_ids
from streams.operations.stopped_group import wait_until_stopped
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

STAGE: Final = "operator.skip"
"""The stage in the dead letter of a record that an operator skipped."""

AUDIENCE: Final = "audience"
"""The group whose offsets are bound to a state, without the prefix."""

ROLES: Final = (AUDIENCE, "songs")
"""The groups whose records we may skip: we read their dead letters."""

_INPUT_OF: Final = {topic.name: name for name, topic in TOPIC_OF.items()}


@dataclass(frozen=True, slots=True)
class RewindTarget:
    """Where reading goes on: at the first record from a moment on, Unix seconds; so many offsets back; or, with
    neither, at the oldest record that is kept."""

    since: float | None = None
    back: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """One partition of a topic.

    Attributes:
        now: the next offset that the group will read; ``then``: the same after the move.
        skipped: records that it passes over; they get dead letters when the move is made.
    """

    topic: str
    partition: int
    now: int
    then: int
    skipped: Sequence[Message] = field(default=(), repr=False)


class GroupMover:
    """Plans and makes the moves of one group.

    Args:
        group: without the prefix.
    """

    def __init__(self, kafka: KafkaSettings, naming: Naming, clock: Clock, group: str) -> None:
        self._kafka = kafka
        self._naming = naming
        self._clock = clock
        self._group = group.removeprefix(naming.prefix)
        self._client = admin(kafka)

    def plan_rewind(self, target: RewindTarget, only: Iterable[str] = (), recount: bool = False) -> list[Move]:
        """Where a rewind would take the group; nothing is moved.

        Args:
            only: of these topics, with or without the prefix; of all that the group reads.
            recount: listens, too, which are then counted once more.

        Raises:
            Refused: the group never committed; or it does not read such a topic, or must not be moved in it.
            Unavailable: the broker does not answer.
        """
        committed = self._committed()
        topics = {topic for topic, _ in committed}
        wanted = {self._full(topic) for topic in only}
        if unknown := sorted(wanted - topics):
            raise Refused(f"group {self._group}: has no offsets in {', '.join(unknown)}, but in {_listed(topics)}")
        movable = topics - self._reread()
        if self._group == AUDIENCE and not recount:
            movable.discard(listens := self._naming.name(LISTENS))
            if listens in wanted:
                raise Refused(
                    f"{listens}: listens that are read again are counted again. Refused ones come back by `coldstart "
                    "dead-letters replay`; to count all of them once more, add --recount-listens"
                )
        if fixed := sorted(wanted - movable):
            raise Refused(f"{', '.join(fixed)}: read from the beginning at every start anyway")
        reader: Consumer = consumer(self._kafka, reader_group(f"{self._naming.prefix}{self._group}"))
        moves = []
        try:
            for (topic, partition), now in sorted(committed.items()):
                if topic in (wanted or movable):
                    low, _ = watermarks(reader, TopicPartition(topic, partition), self._kafka.request_timeout_s)
                    then = _found(reader, self._kafka, topic, partition, now, low, target)
                    moves.append(Move(topic, partition, now, max(low, then)))
        finally:
            reader.close()
        return [each for each in moves if each.then < each.now]

    def plan_skip(self, topic: str, partition: int, count: int) -> Move:
        """Which records the group would pass over, the next ``count`` that it waits for; nothing is moved.

        Raises:
            Refused: the group has no offset there, nothing waits, or the topic is read from its beginning anyway.
            Unavailable: the broker does not answer, or the records do not come.
        """
        full = self._full(topic)
        if self._group not in ROLES:
            raise Refused(f"group {self._group}: not one of the roles' ({', '.join(ROLES)}); its owner skips records")
        if full in self._reread():
            raise Refused(
                f"{full}: read from the beginning at every start, so that no offset passes over a record; send a newer "
                "record of its key"
            )
        committed = self._committed()
        if (full, partition) not in committed:
            known = _listed(f"{topic}[{partition}]" for topic, partition in committed)
            raise Refused(f"group {self._group}: has no offset in {full}[{partition}], but in {known}")
        now = committed[full, partition]
        waiting = _next(self._kafka, self._clock, full, partition, now, count)
        if not waiting:
            raise Refused(f"group {self._group}: nothing waits in {full}[{partition}] from offset {now} on")
        return Move(full, partition, now, (waiting[-1].offset() or 0) + 1, waiting)

    def make(self, moves: Sequence[Move], patience_s: float) -> None:
        """Make the moves, all of them or none.

        Args:
            patience_s: how long to wait for workers that just ended to leave the group.

        Raises:
            Refused: workers run, or the group was moved since the plan was made.
            RecreatedTopic: the state's offsets are of a former topic.
            Unavailable: the broker does not answer.
        """
        timeout, full = self._kafka.request_timeout_s, f"{self._naming.prefix}{self._group}"
        wait_until_stopped(self._client, full, self._clock, patience_s, timeout)
        sender = producer(self._kafka, f"{full}-offsets", timeout)
        reader: Consumer = consumer(self._kafka, full)
        try:
            # This ends what a former move left open.
            sender.init_transactions(6 * timeout)
            committed = self._committed()
            if changed := [each for each in moves if committed.get((each.topic, each.partition)) != each.now]:
                places = _listed(f"{each.topic}[{each.partition}]" for each in changed)
                raise Refused(f"group {self._group}: moved meanwhile in {places}; make another plan")
            targets = {(each.topic, each.partition): each.then for each in moves}
            states = self._states(moves) if self._group == AUDIENCE else {}
            sender.begin_transaction()
            for partition, (positions, ids) in states.items():
                value = offsets_value(positions, ids)
                enqueue(sender, self._naming.name(AUDIENCE_STATE), value=value, key=OFFSETS_KEY, partition=partition)
                # All of them, as a worker commits them: the group has what the state says.
                for name, at in positions.known().items():
                    targets[self._naming.name(TOPIC_OF[name]), partition] = at
            for message in (message for each in moves for message in each.skipped):
                said = OperatorSkipped.at(message.offset() or 0, self._group)
                letter = dead_letter(origin(message), STAGE, said)
                headers = list(letter.headers)
                letters = self._naming.name(DEAD_LETTERS)
                enqueue(sender, letters, value=letter.value, key=letter.key, partition=0, headers=headers)
            offsets = [TopicPartition(*place, at) for place, at in targets.items()]
            sender.send_offsets_to_transaction(offsets, reader.consumer_group_metadata(), timeout)
            sender.commit_transaction(6 * timeout)
        except KafkaException as error:
            raise Unavailable(
                f"group {full}: {error.args[0].str()}; `coldstart offsets show` says where it is"
            ) from error
        finally:
            reader.close()

    def _full(self, topic: str) -> str:
        return self._naming.prefix + topic.removeprefix(self._naming.prefix)

    def _reread(self) -> set[str]:
        return {self._naming.name(TOPIC_OF[name]) for name in REREAD} if self._group == AUDIENCE else set()

    def _states(self, moves: Sequence[Move]) -> dict[int, tuple[InputOffsets, dict[str, str]]]:
        """Partition -> where its state stands after the moves, and the ids of the topics that this counts in."""
        names = [self._naming.name(topic) for topic in TOPIC_OF.values()]
        now = topic_ids(self._client, names, self._kafka.request_timeout_s)
        found = {}
        for partition in sorted({each.partition for each in moves}):
            recorded = read_recorded(self._kafka, self._naming, partition, self._clock)
            stands, to = recorded.positions.known(), {}
            for name, former in recorded.topic_ids.items():
                if former != (id := now[self._naming.name(TOPIC_OF[name])]):
                    raise RecreatedTopic(TOPIC_OF[name].name, partition, stands.get(name), former, id)
            for each in moves:
                if each.partition != partition:
                    continue
                name = _INPUT_OF[each.topic.removeprefix(self._naming.prefix)]
                if stands.get(name) != each.now:
                    raise Refused(
                        f"{each.topic}[{partition}]: the group stands at {each.now}, the state at {stands.get(name)}; "
                        "`coldstart offsets reset audience --to-state` makes the group follow the state"
                    )
                to[name] = each.then
            found[partition] = replace(recorded.positions, **to), recorded.topic_ids
        return found

    def _committed(self) -> dict[tuple[str, int], int]:
        """Topic and partition -> offset, of this installation's topics.

        Raises:
            Refused: there are none.
            Unavailable: the broker does not answer.
        """
        full, timeout = f"{self._naming.prefix}{self._group}", self._kafka.request_timeout_s
        asked = self._client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(full)], request_timeout=timeout)[
            full
        ]
        try:
            places = asked.result(timeout).topic_partitions
        except (KafkaException, TimeoutError) as error:
            raise Unavailable(f"group {full}: {reason(error)}") from error
        ours = self._naming.by_name()
        found = {
            (each.topic, each.partition): each.offset for each in places if each.topic in ours and each.offset >= 0
        }
        if not found:
            raise Refused(f"group {full}: has committed nothing; `coldstart offsets show` lists the groups")
        return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _found(
    reader: Consumer, kafka: KafkaSettings, topic: str, partition: int, now: int, low: int, target: RewindTarget
) -> int:
    """The offset that a target means in one partition."""
    if target.back is not None:
        return now - target.back
    if target.since is None:
        return low
    asked = [TopicPartition(topic, partition, int(target.since * 1000))]
    (found,) = offsets_at(reader, asked, kafka.request_timeout_s)
    # Nothing is as young as that.
    return found.offset if found.offset >= 0 else now


def _next(kafka: KafkaSettings, clock: Clock, topic: str, partition: int, at: int, count: int) -> list[Message]:
    """The next records that a reader of committed transactions sees, as many as there are."""
    reader: Consumer = consumer(kafka, reader_group(topic), enable_partition_eof=True)
    reader.assign([TopicPartition(topic, partition, at)])
    found: list[Message] = []
    deadline = clock.monotonic() + kafka.request_timeout_s
    try:
        while len(found) < count:
            for message in taken(reader, count - len(found), 0.1):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    return found
                else:
                    raise Unavailable(f"{topic}[{partition}]: {error.str()}")
            if clock.monotonic() > deadline:
                raise Unavailable(f"{topic}[{partition}]: nothing came from offset {at} on, nor its end")
    finally:
        reader.close()
    return found
