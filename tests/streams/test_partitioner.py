"""The same key must go to the same partition whoever sends it: co-partitioned topics depend on it."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import Producer
from installation import Installation

from streams.contract.topics import LISTENS
from streams.kafka.clients import producer


def test_librdkafka_and_faust_agree_on_500_keys(here: Installation) -> None:
    partitions = list(range(here.naming.audience_partitions))
    chosen: dict[bytes, int] = {}
    sender: Producer = producer(here.kafka)
    for number in range(500):
        key = f"user-{number}-ü".encode()
        sender.produce(
            here.naming.name(LISTENS),
            key=key,
            on_delivery=lambda _, message: chosen.setdefault(message.key(), message.partition()),
        )
    assert sender.flush(60) == 0

    theirs = {key: DefaultPartitioner()(key, partitions, partitions) for key in chosen}
    assert len(chosen) == 500
    assert chosen == theirs
    # Not vacuous: both partitions are used.
    assert set(chosen.values()) == set(partitions)
