"""A worker's own lag: there from the first answer on, from where reading would begin, and gone with the broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from streams.contract.topics import LISTENS, Naming
from streams.kafka.clients import admin
from streams.kafka.consumer_lag import LagReader, measure
from streams.kafka.lag_monitor import LagMonitor
from streams.runtime.clock import SystemClock
from streams.runtime.metrics import SongsMetrics
from streams.runtime.settings import KafkaSettings

PATIENCE_S = 60
CLOCK = SystemClock()
PARTITIONS = 3


class Here:
    def __init__(self, kafka: KafkaSettings, prefix: str) -> None:
        self.kafka = kafka
        self.naming = Naming(prefix, PARTITIONS, PARTITIONS)
        self.topic, self.group = self.naming.name(LISTENS), f"{prefix}audience"
        new = NewTopic(self.topic, PARTITIONS, 1, config={"message.timestamp.type": "CreateTime"})
        client = admin(self.kafka)
        for future in client.create_topics([new]).values():
            future.result(PATIENCE_S)

    def send(self, partition: int, ages_s: list[float]) -> None:
        sender = Producer(self.kafka.confluent())
        for age in ages_s:
            sender.produce(self.topic, b"v", partition=partition, timestamp=int((CLOCK.now() - age) * 1000))
        assert sender.flush(PATIENCE_S) == 0

    def commit(self, offsets: dict[int, int]) -> None:
        with closing(Consumer(self.kafka.confluent() | {"group.id": self.group})) as member:
            places = [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]
            member.commit(offsets=places, asynchronous=False)


@pytest.fixture
def here(kafka: KafkaSettings, prefix: str) -> Here:
    return Here(kafka, prefix)


@pytest.fixture
def reader(here: Here) -> Iterator[LagReader]:
    with closing(LagReader(here.kafka, here.group, CLOCK)) as reader:
        yield reader


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_commit_the_oldest_record_counts_and_nothing_waiting_is_0(here: Here, reader: LagReader) -> None:
    here.send(0, [600.0, 5.0])
    here.send(1, [600.0, 30.0, 7.0])
    here.commit({1: 1})
    found = reader.read({(here.topic, partition): None for partition in range(PARTITIONS)})
    assert {partition: records for (_, partition), (records, _) in found.items()} == {0: 2, 1: 2, 2: 0}
    assert found[here.topic, 0][1] == pytest.approx(600, abs=5)
    assert found[here.topic, 1][1] == pytest.approx(30, abs=5)
    assert found[here.topic, 2][1] == 0
    # What the worker knows of itself counts before what the group was told.
    found = reader.read({(here.topic, 1): 3, (here.topic, 0): 1})
    assert found[here.topic, 1] == (0, 0.0)
    assert found[here.topic, 0] == (1, pytest.approx(5, abs=5))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 12), min_size=PARTITIONS, max_size=PARTITIONS))
def test_a_worker_and_who_looks_from_outside_say_the_same(here: Here, reader: LagReader, commits: list[int]) -> None:
    for partition in range(PARTITIONS):
        here.send(partition, [100.0 * (partition + 1), 1.0])
    here.commit(dict(enumerate(commits)))
    outside = {(each.topic, each.partition): each for each in measure(here.kafka, here.naming, CLOCK)}
    inside = reader.read(dict.fromkeys(outside, None))
    assert {place: records for place, (records, _) in inside.items()} == {
        place: each.records for place, each in outside.items()
    }
    for place, (_, seconds) in inside.items():
        assert seconds == pytest.approx(outside[place].seconds, abs=5)


def test_gauges_come_with_partitions_and_go_with_them_and_with_the_broker(here: Here) -> None:
    here.send(0, [50.0])
    registry = CollectorRegistry()
    with closing(LagMonitor(here.kafka, here.group, SongsMetrics(registry), CLOCK).start()) as monitor:

        def shown(name: str, partition: int) -> float | None:
            return registry.get_sample_value(
                f"coldstart_lag_{name}", {"topic": here.topic, "partition": str(partition)}
            )

        assert shown("records", 0) is None
        monitor.watch({(here.topic, 0): None, (here.topic, 1): None})
        until(lambda: shown("records", 0) == 1 and shown("records", 1) == 0)
        assert shown("seconds", 0) == pytest.approx(50, abs=10)
        assert shown("seconds", 1) == 0
        monitor.watch({(here.topic, 1): 0})
        until(lambda: shown("records", 0) is None)
        assert shown("seconds", 0) is None
        assert shown("records", 1) == 0
        # A partition that is not there: the broker gives no answer, and nothing is shown instead of something old.
        monitor.watch({(here.topic, 1): 0, (f"{here.topic}-gone", 0): 0})
        until(lambda: shown("records", 1) is None)
