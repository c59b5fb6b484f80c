"""Topics on a real broker: made as declared, and every difference found."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from streams.broker import EmbeddedKafka
from streams.clients import admin
from streams.errors import Refused, Unavailable
from streams.provision import create_topics, deviations
from streams.settings import Kafka
from streams.topics import LISTENS, MODELS, PREFERENCES, TOPICS, Naming

PATIENCE_S = 60


@pytest.fixture
def client(kafka: EmbeddedKafka) -> AdminClient:
    return admin(Kafka(bootstrap_servers=kafka.bootstrap_servers))


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
    assert f"{naming.name(LISTENS)}: partitions is 5, declared 3" in map(str, deviations(client, naming))
    assert sorted((each.topic, each.what, each.declared, each.found) for each in deviations(client, naming)) == [
        (naming.name(LISTENS), "partitions", "3", "5"),
        (naming.name(PREFERENCES), "cleanup.policy", "compact", "delete"),
    ]


def test_the_brokers_refusal_names_the_topic(client: AdminClient, naming: Naming) -> None:
    with pytest.raises(Refused, match=rf"topic {naming.prefix}[\w-]+: .*replication factor"):
        create_topics(client, naming, 3)
    assert naming.name(MODELS) not in client.list_topics(timeout=PATIENCE_S).topics


def test_no_broker_is_said_with_the_way_out() -> None:
    nowhere = Kafka(bootstrap_servers="127.0.0.1:9", request_timeout_s=0.3)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9.*coldstart kafka up"):
        admin(nowhere)
