"""Lag in records and in seconds, against a real broker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.errors import Unavailable
from streams.contract.topics import LISTENS, PUSH_TARGETS, Naming
from streams.kafka import consumer_lag
from streams.runtime.clock import ManualClock, SystemClock
from streams.runtime.settings import KafkaSettings

NOW = 1_700_000_000.0
PATIENCE_S = 60


class FixedWall(SystemClock):
    """Deadlines run, the wall clock stands."""

    def now(self) -> float:
        return NOW


class Installation:
    def __init__(self, kafka: KafkaSettings, prefix: str, partitions: int) -> None:
        self.kafka = kafka
        self.naming = Naming(prefix, partitions, partitions)
        self.prefix = prefix
        self.admin = AdminClient(self.kafka.confluent())
        # Records of a standing clock are years old, and the broker would delete them when it next looks.
        kept = {"retention.ms": "-1"}
        topics = [NewTopic(self.naming.name(topic), partitions, 1, config=kept) for topic in (LISTENS, PUSH_TARGETS)]
        for future in self.admin.create_topics([*topics, NewTopic(f"{prefix}foreign", 1, 1, config=kept)]).values():
            future.result(PATIENCE_S)

    def produce(self, topic: str, partition: int, ages_s: Sequence[float], transaction: str | None = None) -> None:
        """One record for each age before NOW; with ``transaction``: "commit" or "abort"."""
        conf = self.kafka.confluent() | ({"transactional.id": f"{self.prefix}t"} if transaction else {})
        producer = Producer(conf)
        if transaction:
            producer.init_transactions(PATIENCE_S)
            producer.begin_transaction()
        for age in ages_s:
            producer.produce(topic, b"v", partition=partition, timestamp=int((NOW - age) * 1000))
        if transaction == "abort":
            producer.flush(PATIENCE_S)
            producer.abort_transaction(PATIENCE_S)
        elif transaction:
            producer.commit_transaction(PATIENCE_S)
        else:
            assert producer.flush(PATIENCE_S) == 0

    def commit(self, group: str, topic: str, offsets: dict[int, int]) -> None:
        consumer = Consumer(self.kafka.confluent() | {"group.id": group})
        positions = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        consumer.commit(offsets=positions, asynchronous=False)
        consumer.close()

    def measure(self) -> dict[tuple[str, str, int], tuple[int | None, int, int, float | None]]:
        mine = [
            each
            for each in consumer_lag.measure(self.kafka, self.naming, FixedWall())
            if each.group.startswith(self.prefix)
        ]
        return {
            (each.group, each.topic, each.partition): (each.committed, each.end, each.records, each.seconds)
            for each in mine
        }


def test_two_groups_are_behind_by_their_own_records_and_seconds(kafka: KafkaSettings, prefix: str) -> None:
    installation = Installation(kafka, prefix, 3)
    listens = installation.naming.name(LISTENS)
    installation.produce(listens, 0, [3600, 60, 5])
    installation.produce(listens, 1, [10])
    slow, fast = f"{prefix}a", f"{prefix}b"
    installation.commit(slow, listens, {0: 1})
    installation.commit(fast, listens, {0: 2, 1: 1})
    installation.commit(fast, f"{prefix}foreign", {0: 0})
    assert installation.measure() == {
        (slow, listens, 0): (1, 3, 2, 60.0),
        (slow, listens, 1): (None, 1, 1, 10.0),  # never committed: it will begin at the oldest
        (slow, listens, 2): (None, 0, 0, 0.0),
        (fast, listens, 0): (2, 3, 1, 5.0),
        (fast, listens, 1): (1, 1, 0, 0.0),
        (fast, listens, 2): (None, 0, 0, 0.0),
    }


def test_only_committed_records_count_and_what_was_aborted_before_them_does_not(
    kafka: KafkaSettings, prefix: str
) -> None:
    installation = Installation(kafka, prefix, 1)
    targets = installation.naming.name(PUSH_TARGETS)
    group = f"{prefix}push"
    installation.commit(group, targets, {0: 0})
    installation.produce(targets, 0, [500], transaction="abort")
    installation.produce(targets, 0, [40], transaction="commit")
    # The aborted record and its mark are no work; the committed record is, and its mark behind it takes an offset.
    assert installation.measure()[group, targets, 0] == (0, 4, 2, 40.0)
    open_one = Producer(installation.kafka.confluent() | {"transactional.id": f"{prefix}open"})
    open_one.init_transactions(PATIENCE_S)
    open_one.begin_transaction()
    open_one.produce(targets, b"v", partition=0)
    open_one.flush(PATIENCE_S)
    assert installation.measure()[group, targets, 0] == (0, 4, 2, 40.0)
    open_one.abort_transaction(PATIENCE_S)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[tuple[str, int]], int]:
    """Transactions and plain sends with so many records each, and how many of the visible records are done."""
    parts = draw(st.lists(st.tuples(st.sampled_from(["commit", "abort", ""]), st.integers(1, 3)), max_size=4))
    visible = sum(count for how, count in parts if how != "abort")
    return parts, draw(st.integers(0, visible))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs())
@example(log=([("commit", 1), ("abort", 2)], 1))
@example(log=([("abort", 3)], 0))
def test_a_group_is_behind_where_a_record_waits_and_nowhere_else(
    kafka: KafkaSettings, prefix: str, log: tuple[list[tuple[str, int]], int]
) -> None:
    installation = Installation(kafka, f"{prefix}{uuid.uuid4().hex[:12]}.", 1)
    targets, group = installation.naming.name(PUSH_TARGETS), f"{installation.prefix}push"
    parts, done = log
    visible: list[int] = []
    end = 0
    for how, count in parts:
        installation.produce(targets, 0, [60.0] * count, transaction=how or None)
        visible += range(end, end + count) if how != "abort" else ()
        end += count + bool(how)
    installation.commit(group, targets, {0: visible[done - 1] + 1 if done else 0})
    _, ends_at, records, seconds = installation.measure()[group, targets, 0]
    waiting = visible[done:]
    assert ends_at == end
    assert (records, seconds) == ((end - waiting[0], 60.0) if waiting else (0, 0.0))


def test_a_hundred_partitions_all_have_an_age(kafka: KafkaSettings, prefix: str) -> None:
    installation = Installation(kafka, prefix, 100)
    listens = installation.naming.name(LISTENS)
    for partition in range(100):
        installation.produce(listens, partition, [partition + 1.0, 0.5])
    group = f"{prefix}a"
    installation.commit(group, listens, {0: 1})
    found = installation.measure()
    assert found.pop((group, listens, 0)) == (1, 2, 1, 0.5)
    assert found == {(group, listens, at): (None, 2, 2, at + 1.0) for at in range(1, 100)}


def test_verb_prints_the_same_for_people_and_programs(
    kafka: KafkaSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = Installation(kafka, prefix, 1)
    listens = installation.naming.name(LISTENS)
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", prefix)
    monkeypatch.setenv("COLUMNS", "200")
    options = ["lag", "--bootstrap-servers", kafka.bootstrap_servers]
    installation.produce(listens, 0, [1, 1])
    installation.commit(f"{prefix}a", listens, {0: 1})
    options += ["--window", "1"]
    table = CliRunner().invoke(app, options).output
    assert next(line.split() for line in table.splitlines() if "listens" in line)[:5] == ["a", "listens", "1", "1", "1"]
    parts = CliRunner().invoke(app, [*options, "--by-partition"]).output
    assert next(line.split() for line in parts.splitlines() if "listens" in line)[:5] == ["a", "listens", "0", "1", "2"]
    rows = json.loads(CliRunner().invoke(app, [*options, "--json"]).stdout)
    (row,) = (each for each in rows if each["group"] == f"{prefix}a")
    assert (row["committed"], row["end"], row["records"], row["state"]) == (1, 2, 1, "STOPPED")
    assert row["seconds"] > 0


def test_no_cluster_is_said() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:9", request_timeout_s=0.5)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        consumer_lag.measure(nowhere, Naming("x.", 1, 1), ManualClock())
