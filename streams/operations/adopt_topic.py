"""Accepts an input topic that was deleted and created again, or the state's positions over the group's."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.audience.positions import ADOPTED_PREFIX, TOPIC_OF
from streams.contract.errors import Refused, Unavailable
from streams.contract.topics import AUDIENCE_STATE, Naming
from streams.kafka.clients import admin, enqueue, producer
from streams.kafka.topic_identity import topic_ids
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings
from streams.songs.input_topics import INPUTS, group_of, id_key, write_ids

ADOPTABLE = (*(topic.name for topic in TOPIC_OF.values()), *(topic.name for topic in INPUTS), AUDIENCE_STATE.name)
"""Topics that can be adopted, without the prefix."""


def adopt(kafka: KafkaSettings, naming: Naming, topic: str, clock: Clock, patience_s: float) -> str:
    """Accept a topic as it is now, read from its beginning; ``audience-state``: the state's positions over the group's.

    Args:
        topic: without the installation's prefix.
        patience_s: how long to wait for workers that just ended to leave their group.

    Returns:
        What was done.

    Raises:
        Refused: no input of this name; or, of the songs role's inputs and of audience-state, workers still run.
        Unavailable: the broker does not answer, or the topic is missing.
    """
    client = admin(kafka)
    if topic == AUDIENCE_STATE.name:
        group = f"{naming.prefix}audience"
        _without_members(lambda: _drop_group(client, group, kafka.request_timeout_s), group, clock, patience_s)
        return f"group {group} starts from the positions in {topic}"
    for name, declared in TOPIC_OF.items():
        if declared.name == topic:
            full = naming.name(declared)
            id = topic_ids(client, [full], kafka.request_timeout_s)[full]
            sender = producer(kafka)
            for partition in range(naming.audience_partitions):
                key = ADOPTED_PREFIX + name.encode()
                enqueue(sender, naming.name(AUDIENCE_STATE), value=id.encode(), key=key, partition=partition)
            if sender.flush(kafka.request_timeout_s):
                raise Unavailable(f"{naming.name(AUDIENCE_STATE)}: not acknowledged; adopt {topic} again")
            return f"{full} (id {id}) is read from its beginning when the audience workers start"
    of_songs = next((each for each in INPUTS if each.name == topic), None)
    if of_songs is None:
        raise Refused(f"topic {topic}: not an input; allowed: {', '.join(ADOPTABLE)}")
    full, group, partitions = naming.name(of_songs), group_of(naming), list(range(naming.songs_partitions))
    id = topic_ids(client, [full], kafka.request_timeout_s)[full]

    def to_the_beginning() -> None:
        _to_the_beginning(client, group, full, partitions, kafka.request_timeout_s)

    _without_members(to_the_beginning, group, clock, patience_s)
    write_ids(kafka, naming, {id_key(of_songs): id.encode()}, partitions)
    return f"{full} (id {id}) is read from its beginning when the songs workers start"


_BUSY = (KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS)


def _without_members(do: Callable[[], None], group: str, clock: Clock, patience_s: float) -> None:
    """Do it once the group is empty: a worker that was killed stays in it until its session ends."""
    deadline = clock.monotonic() + patience_s
    while True:
        try:
            do()
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return
            if code not in _BUSY:
                raise Unavailable(f"group {group}: {error.args[0].str()}") from error
            if clock.monotonic() > deadline:
                raise Refused(f"group {group}: workers are running; stop them all, then adopt again") from error
            time.sleep(0.5)
        else:
            return


def _drop_group(client: AdminClient, group: str, timeout: float) -> None:
    client.delete_consumer_groups([group], request_timeout=timeout)[group].result(timeout)


def _to_the_beginning(client: AdminClient, group: str, topic: str, partitions: list[int], timeout: float) -> None:
    offsets = [TopicPartition(topic, partition, 0) for partition in partitions]
    asked = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, offsets)], request_timeout=timeout)
    for each in asked[group].result(timeout).topic_partitions:
        if each.error is not None:
            raise KafkaException(each.error)
