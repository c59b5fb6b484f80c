"""Three brokers of which any one may die, also the one that coordinates, and lose its disk."""

from __future__ import annotations

import shutil

import pytest
from confluent_kafka import Consumer

from streams.contract.topics import LISTENS, Naming
from streams.kafka.clients import admin, consumer, producer
from streams.kafka.topic_admin import create_topics, deviations
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedCluster
from streams.testbed.broker.cluster import _java_hash

PATIENCE_S = 60


def read(kafka: KafkaSettings, topic: str) -> list[bytes | None]:
    reader: Consumer = consumer(kafka, "test-cluster", enable_partition_eof=True)
    reader.subscribe([topic])
    values: list[bytes | None] = []
    deadline = SystemClock().monotonic() + PATIENCE_S
    while True:
        assert SystemClock().monotonic() < deadline
        message = reader.poll(1)
        if message is not None and message.error() is not None:
            break
        if message is not None:
            values.append(message.value())
    reader.close()
    return values


@pytest.mark.long
@pytest.mark.kafka
def test_a_coordinator_that_dies_in_a_transaction_and_loses_its_disk_costs_nothing() -> None:
    naming = Naming("three.", 1, 1)
    with EmbeddedCluster() as cluster:
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        client = admin(kafka)
        create_topics(client, naming, 3)
        assert deviations(client, naming, 3) == []
        assert {each.what for each in deviations(client, naming, 1)} == {"copies of a partition"}
        assert cluster.controller() in (1, 2, 3)

        sender = producer(kafka, "three.audience-0", 30.0)
        sender.init_transactions(PATIENCE_S)
        sender.begin_transaction()
        sender.produce(naming.name(LISTENS), b"one")
        sender.flush(PATIENCE_S)
        victim = cluster.transaction_coordinator("three.audience-0")
        cluster.node(victim).kill()
        sender.produce(naming.name(LISTENS), b"two")
        sender.commit_transaction(PATIENCE_S)
        assert cluster.transaction_coordinator("three.audience-0") not in (victim, -1)

        shutil.rmtree(cluster.node(victim).folder / "data")
        cluster.restart()
        deadline = SystemClock().monotonic() + PATIENCE_S
        while not cluster.in_sync():
            assert SystemClock().monotonic() < deadline
        # The copy on the wiped disk is whole: it alone is left to lead, with one other that keeps the quorum.
        other = next(id for id in (1, 2, 3) if id != victim and id != cluster.leader(naming.name(LISTENS), 0))
        cluster.node(other).kill()
        assert read(kafka, naming.name(LISTENS)) == [b"one", b"two"]


def test_a_name_is_hashed_as_java_does() -> None:
    # By Java's String.hashCode: "polygenelubricants" is the smallest int, whose absolute value is none.
    assert [_java_hash(each) for each in ("", "a", "Aa", "BB", "polygenelubricants")] == [0, 97, 2112, 2112, 0]
