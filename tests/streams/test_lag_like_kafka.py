"""``coldstart lag`` beside Kafka's own ConsumerGroupCommand, on the same groups of the same broker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from kafka_tools import run
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.topics import (
    LISTENS,
    MATCH_REQUESTS,
    PREFERENCES,
    PUSH_TARGETS,
    SONG_UPLOADS,
    TOPICS,
    Naming,
    Topic,
)
from streams.kafka.clients import admin
from streams.operations.lag_judge import PartitionState
from streams.operations.lag_window import declared_inputs, windows
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka

PATIENCE_S = 60
CLOCK = SystemClock()
HOUR_S = 3600.0


class Row(NamedTuple):
    committed: str
    end: str
    lag: str


class Groups:
    """All topics, and records whose age is known: the declared settings would stamp them anew."""

    def __init__(self, kafka: KafkaSettings, prefix: str, partitions: int = 3) -> None:
        self.kafka = kafka
        self.naming = Naming(prefix, partitions, partitions)
        self.client = admin(self.kafka)
        new = [
            NewTopic(self.naming.name(t), self.naming.partitions(t), 1, config={"message.timestamp.type": "CreateTime"})
            for t in TOPICS
        ]
        for future in self.client.create_topics(new).values():
            future.result(PATIENCE_S)
        self.born = time.time()

    def send(self, topic: Topic, partition: int, ages_s: list[float], transaction: str | None = None) -> None:
        more = {"transactional.id": f"{self.naming.prefix}t"} if transaction else {}
        sender = Producer(self.kafka.confluent() | more)
        if transaction:
            sender.init_transactions(PATIENCE_S)
            sender.begin_transaction()
        for age in ages_s:
            stamp = int((self.born - age) * 1000)
            sender.produce(self.naming.name(topic), b"v", partition=partition, timestamp=stamp)
        assert sender.flush(PATIENCE_S) == 0
        if transaction == "abort":
            sender.abort_transaction(PATIENCE_S)
        elif transaction:
            sender.commit_transaction(PATIENCE_S)

    def commit(self, group: str, topic: Topic, offsets: dict[int, int]) -> None:
        places = [TopicPartition(self.naming.name(topic), partition, offset) for partition, offset in offsets.items()]
        wanted = ConsumerGroupTopicPartitions(f"{self.naming.prefix}{group}", places)
        # A coordinator that has just come up refuses single partitions, and says so beside each.
        while True:
            (future,) = self.client.alter_consumer_group_offsets([wanted]).values()
            refused = [place.error for place in future.result(PATIENCE_S).topic_partitions if place.error]
            if not refused:
                return
            print(refused)
            time.sleep(0.2)

    def according_to_kafka(self) -> dict[tuple[str, str, int], Row]:
        """Of all groups under the prefix, as the command prints them."""
        printed = run(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            "--bootstrap-server", self.kafka.bootstrap_servers, "--describe", "--all-groups", "--timeout", "60000",
        )  # fmt: skip
        self.printed = printed
        rows = {}
        for line in printed.splitlines():
            words = line.split()
            if words and words[0].startswith(self.naming.prefix):
                # From 4.0 on with the leader's epoch after the topic's partition.
                group, topic, partition, *rest = words
                numbers = rest[1:4] if len(rest) == 7 else rest[:3]
                rows[group, topic, int(partition)] = Row(*numbers)
        return rows

    def according_to_us(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        asked = CliRunner().invoke(app, ["lag", "--json", "--window", "1"])
        return {(row["group"], row["topic"], row["partition"]): row for row in json.loads(asked.stdout)}


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaSettings]:
    """One for these tests alone: Kafka's command describes all groups, and stops at one whose topic is gone."""
    with EmbeddedKafka() as kafka:
        yield KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


@pytest.fixture
def groups(broker: KafkaSettings, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Groups:
    monkeypatch.setenv("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", prefix)
    return Groups(broker, prefix)


def test_records_are_those_of_kafkas_own_command_and_seconds_are_true(groups: Groups) -> None:
    prefix = groups.naming.prefix
    groups.send(LISTENS, 0, [HOUR_S, 600, 60, 5])
    groups.send(LISTENS, 1, [900, 30])
    groups.commit("audience", LISTENS, {0: 1, 1: 2, 2: 0})  # behind; idle; empty
    groups.send(MATCH_REQUESTS, 0, [120, 10])
    groups.commit("audience", MATCH_REQUESTS, {0: 1})  # assigned by hand by the role
    groups.send(PREFERENCES, 1, [7200.0])  # no commit on this input
    groups.send(SONG_UPLOADS, 2, [300, 200, 100])  # no commit by this group at all
    groups.send(PUSH_TARGETS, 0, [50, 40, 30])
    groups.commit("pushes", PUSH_TARGETS, {0: 3})
    groups.commit("pushes", PUSH_TARGETS, {0: 0})  # rewound, and stopped
    member = Consumer(groups.kafka.confluent() | {"group.id": f"{prefix}running", "auto.offset.reset": "earliest"})
    with closing(member):
        member.subscribe([groups.naming.name(LISTENS)])
        while not member.assignment():
            member.poll(0.1)
        groups_own = TopicPartition(groups.naming.name(LISTENS), 0, 2)
        member.commit(offsets=[groups_own], asynchronous=False)  # of its three partitions, one

        theirs = groups.according_to_kafka()
        before = time.time()
        ours = groups.according_to_us()
        after = time.time()

    assert len(theirs) >= 8, groups.printed
    assert theirs.keys() <= ours.keys()
    for place, row in theirs.items():
        mine = ours[place]
        assert str(mine["end"]) == row.end, place
        if row.lag != "-":
            assert (str(mine["committed"]), str(mine["records"])) == (row.committed, row.lag), place
        else:
            # Kafka's command says nothing of what was never committed; reading would begin at the oldest record.
            assert (mine["committed"], mine["records"]) == (None, mine["end"]), place

    names = {topic: groups.naming.name(topic) for topic in TOPICS}
    true_ages = {
        (f"{prefix}audience", names[LISTENS], 0): 600,
        (f"{prefix}audience", names[MATCH_REQUESTS], 0): 10,
        (f"{prefix}audience", names[PREFERENCES], 1): 7200,
        (f"{prefix}songs", names[SONG_UPLOADS], 2): 300,
        (f"{prefix}pushes", names[PUSH_TARGETS], 0): 50,
        (f"{prefix}running", names[LISTENS], 0): 60,
        (f"{prefix}running", names[LISTENS], 1): 900,
    }
    for place, row in ours.items():
        if place in true_ages:
            stamp = groups.born - true_ages[place]
            assert before - stamp - 1 <= row["seconds"] <= after - stamp + 1, place
            assert row["state"] == ("STALLED" if place[0] == f"{prefix}running" else "STOPPED"), place
        else:
            assert (row["records"], row["seconds"], row["state"]) == (0, 0.0, "OK"), place
    declared = {(group, topic) for group, topics in declared_inputs(groups.naming).items() for topic in topics}
    assert declared <= {(group, topic) for group, topic, _ in ours}


def test_what_nobody_can_read_is_no_lag_though_kafkas_command_counts_it(groups: Groups) -> None:
    groups.send(PUSH_TARGETS, 0, [60.0], transaction="commit")
    groups.commit("pushes", PUSH_TARGETS, {0: 1})
    groups.send(PUSH_TARGETS, 0, [50.0, 40.0], transaction="abort")
    place = (f"{groups.naming.prefix}pushes", groups.naming.name(PUSH_TARGETS), 0)
    assert groups.according_to_kafka()[place].lag == "4"
    mine = groups.according_to_us()[place]
    assert (mine["committed"], mine["records"], mine["seconds"], mine["state"]) == (1, 0, 0.0, "OK")


def test_a_new_prefix_shows_every_declared_input_from_where_reading_would_begin(groups: Groups) -> None:
    rows = groups.according_to_us()
    wanted = {
        (group, topic, partition)
        for group, topics in declared_inputs(groups.naming).items()
        for topic in topics
        for partition in range(3)
    }
    assert rows.keys() == wanted
    assert {(row["committed"], row["records"], row["state"]) for row in rows.values()} == {(None, 0, "OK")}


def test_a_missing_topic_is_said_beside_the_others_and_refused(groups: Groups) -> None:
    name = groups.naming.name(MATCH_REQUESTS)
    groups.client.delete_topics([name])[name].result(PATIENCE_S)
    while name in admin(groups.kafka).list_topics(timeout=PATIENCE_S).topics:
        time.sleep(0.1)
    asked = CliRunner().invoke(app, ["lag", "--json"])
    assert f"topic {name}: does not exist; `coldstart topics create`" in asked.stderr
    assert {row["topic"] for row in json.loads(asked.stdout)} >= {groups.naming.name(LISTENS)}
    assert asked.exit_code == 2


def test_a_group_that_is_moved_back_while_it_is_watched_is_rewound(groups: Groups) -> None:
    groups.send(PUSH_TARGETS, 0, [50, 40, 30])
    groups.commit("pushes", PUSH_TARGETS, {0: 3})
    watched = windows(groups.kafka, groups.naming, CLOCK, 1.0)
    states = []
    for number, found in enumerate(watched):
        (row,) = (each for each in found.rows if each.lag.group.endswith("pushes") and each.lag.partition == 0)
        states.append(row.state)
        if number == 0:
            groups.commit("pushes", PUSH_TARGETS, {0: 1})
        if row.state is PartitionState.STOPPED:
            break
    watched.close()
    # Not judged before a whole window is there, and forgotten once the window has passed: then nobody reads it.
    assert states[0] is PartitionState.OK
    assert [state for state in dict.fromkeys(states[1:])] == [None, PartitionState.REWOUND, PartitionState.STOPPED]


@pytest.fixture
def watching(groups: Groups) -> Iterator[subprocess.Popen[str]]:
    groups.send(LISTENS, 0, [50])
    command = [sys.executable, "-m", "streams", "lag", "--json", "--watch", "--window", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_watching_prints_a_line_a_sample_and_ends_with_the_code_of_the_last(
    watching: subprocess.Popen[str],
) -> None:
    assert watching.stdout is not None
    rows: list[dict[str, Any]] = []
    while not any(row["state"] == "STOPPED" for row in rows):
        rows = json.loads(watching.stdout.readline())
    watching.send_signal(signal.SIGINT)
    assert all(json.loads(line) for line in watching.stdout.read().splitlines())
    assert watching.wait(PATIENCE_S) == PartitionState.STOPPED.exit_code
