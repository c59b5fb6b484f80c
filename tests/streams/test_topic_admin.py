"""Topics on a real broker: made as declared, and every difference found."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from streams.contract.errors import Refused, Unavailable
from streams.contract.topics import AUDIENCE_VECTORS, LISTENS, MODELS, PREFERENCES, SONG_UPLOADS, TOPICS, Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import check_times, create_topics, deviations, update_topics
from streams.runtime.settings import KafkaSettings

PATIENCE_S = 60


@pytest.fixture
def client(kafka: KafkaSettings) -> AdminClient:
    return admin(kafka)


@pytest.fixture
def naming(prefix: str) -> Naming:
    return Naming(prefix, 3, 2)


def test_created_topics_are_as_declared_and_are_created_once(client: AdminClient, naming: Naming) -> None:
    assert sorted(create_topics(client, naming, 1)) == sorted(naming.by_name())
    assert deviations(client, naming) == []
    assert create_topics(client, naming, 1) == []
    present = client.list_topics(timeout=PATIENCE_S).topics
    assert {name: len(present[name].partitions) for name in naming.by_name()} == {
        naming.name(topic): naming.partitions(topic) for topic in TOPICS
    }


def test_what_differs_is_named_with_both_values(client: AdminClient, naming: Naming) -> None:
    assert {(each.topic, each.what, each.found) for each in deviations(client, naming)} == {
        (name, "existence", "missing") for name in naming.by_name()
    }
    foreign = [
        NewTopic(naming.name(LISTENS), 5, 1, config=LISTENS.config()),
        NewTopic(naming.name(PREFERENCES), 3, 1, config=PREFERENCES.config() | {"cleanup.policy": "delete"}),
    ]
    for future in client.create_topics(foreign).values():
        future.result(PATIENCE_S)
    # Theirs are left as they are.
    assert set(create_topics(client, naming, 1)) == naming.by_name().keys() - {each.topic for each in foreign}
    assert f"{naming.name(LISTENS)}: partitions 5, declared 3" in map(str, deviations(client, naming))
    assert sorted((each.topic, each.what, each.declared, each.found) for each in deviations(client, naming)) == [
        (naming.name(LISTENS), "partitions", "3", "5"),
        (naming.name(PREFERENCES), "cleanup.policy", "compact", "delete"),
    ]


def test_topics_from_before_the_broker_stamped_records_are_refused_until_they_are_updated(
    client: AdminClient, naming: Naming
) -> None:
    listens, vectors = naming.name(LISTENS), naming.name(AUDIENCE_VECTORS)
    former = {"message.timestamp.type": "CreateTime", "cleanup.policy": "delete", "segment.ms": "7000000"}
    for future in client.create_topics([NewTopic(name, 3, 1, config=former) for name in (listens, vectors)]).values():
        future.result(PATIENCE_S)
    with pytest.raises(Unavailable, match=f"{naming.name(PREFERENCES)}.*coldstart topics create"):
        check_times(client, naming, [PREFERENCES])
    create_topics(client, naming, 1)
    check_times(client, naming, [PREFERENCES])
    with pytest.raises(
        Refused, match=f"topic {listens}: message.timestamp.type CreateTime, declared LogAppendTime.*topics update"
    ):
        check_times(client, naming, [PREFERENCES, LISTENS])
    with pytest.raises(Refused, match=f"topic {vectors}: message.timestamp.after.max.ms 3600000, declared"):
        check_times(client, naming, [AUDIENCE_VECTORS])
    wrong = deviations(client, naming)
    assert update_topics(client, naming) == wrong
    check_times(client, naming, TOPICS)
    assert (deviations(client, naming), update_topics(client, naming)) == ([], [])
    # What is not declared is the operator's.
    (future,) = client.describe_configs([ConfigResource(ResourceType.TOPIC, listens)]).values()
    assert future.result(PATIENCE_S)["segment.ms"].value == "7000000"


def test_what_an_update_changed_is_in_force_when_it_returns(client: AdminClient, naming: Naming) -> None:
    create_topics(client, naming, 1)
    former = [
        ConfigResource(ResourceType.TOPIC, name, incremental_configs=[
            ConfigEntry("max.message.bytes", "1000", incremental_operation=AlterConfigOpType.SET)
        ])
        for name in naming.by_name()
    ]  # fmt: skip
    for _ in range(20):
        for future in client.incremental_alter_configs(former).values():
            future.result(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while len(deviations(client, naming)) < len(TOPICS):
            assert time.monotonic() < deadline
        assert len(update_topics(client, naming)) == len(TOPICS)
        assert deviations(client, naming) == []


@pytest.mark.parametrize("stamp", [1, 1_700_000_000, None], ids=["1970", "seconds", "ahead"])
def test_a_time_that_a_producer_states_is_the_brokers_own_or_is_refused_by_the_broker(
    client: AdminClient, naming: Naming, kafka: KafkaSettings, stamp: int | None
) -> None:
    create_topics(client, naming, 1)
    stamp = stamp or int((time.time() + 400) * 1000)
    told: list[tuple[KafkaError | None, tuple[int, int]]] = []
    sender = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    began = time.time()
    for topic in (SONG_UPLOADS, AUDIENCE_VECTORS):
        sender.produce(
            naming.name(topic), b"v", b"k", timestamp=stamp, on_delivery=lambda e, m: told.append((e, m.timestamp()))
        )
        assert sender.flush(PATIENCE_S) == 0
    (accepted, (kind, at)), (refused, _) = told
    assert (accepted, kind) == (None, TIMESTAMP_LOG_APPEND_TIME)
    # Both clocks are this machine's; the broker's is rounded down.
    assert began - 1 < at / 1000 <= time.time()
    assert refused is not None
    assert refused.code() == KafkaError.INVALID_TIMESTAMP


def test_the_brokers_refusal_names_the_topic(client: AdminClient, naming: Naming) -> None:
    with pytest.raises(Refused, match=rf"topic {naming.prefix}[\w-]+: .*replication factor"):
        create_topics(client, naming, 3)
    assert naming.name(MODELS) not in client.list_topics(timeout=PATIENCE_S).topics


def test_no_broker_is_said_with_the_way_out() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:9", request_timeout_s=0.3)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9.*coldstart kafka up"):
        admin(nowhere)
