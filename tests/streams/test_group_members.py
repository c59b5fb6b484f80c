"""Who is in a group: as librdkafka tells it, and whatever the network does with the answers."""

from __future__ import annotations

import gc
from contextlib import closing

import pytest
from confluent_kafka import Consumer
from installation import PATIENCE_S, Installation
from lying_network import Api, LyingNetwork, seeded

from streams.contract.errors import Unavailable
from streams.contract.topics import LISTENS
from streams.kafka.clients import admin, consumer
from streams.kafka.group_members import GroupMembers, group_members
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings


def joined(here: Installation, count: int) -> list[Consumer]:
    """Members of the group "g" that share all partitions of listens."""
    readers = [
        consumer(here.kafka, "g", client_id=f"member-{number}", partition_assignment_strategy="cooperative-sticky")
        for number in range(count)
    ]
    for reader in readers:
        reader.subscribe([here.naming.name(LISTENS)])
    clock = SystemClock()
    deadline = clock.monotonic() + PATIENCE_S
    while not all(reader.assignment() for reader in readers):
        for reader in readers:
            reader.poll(0.1)
        assert clock.monotonic() < deadline
    return readers


def test_members_are_those_that_librdkafka_tells(here: Installation) -> None:
    one, other = joined(here, 2)
    with closing(one), closing(other):
        client = admin(here.kafka)
        told = client.describe_consumer_groups(["g"])["g"].result(PATIENCE_S)
        expected = {
            (member.client_id, member.host.lstrip("/"), place.partition)
            for member in told.members
            for place in member.assignment.topic_partitions
        }
        found = group_members(here.kafka, "g")
        assert {(each.client_id, each.host, number) for each in found.members for number in each.partitions} == expected
        assert found.settled
        assert found.held == frozenset(range(here.naming.audience_partitions))


def test_a_group_that_nobody_joined_has_no_members(here: Installation) -> None:
    assert group_members(here.kafka, "nobody") == GroupMembers(settled=False, members=())


def test_without_a_broker_the_group_is_named() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout_s=1)
    with pytest.raises(Unavailable, match="group g: cannot be described"):
        group_members(nowhere, "g")


def test_whatever_the_network_does_an_answer_is_right_or_none(here: Installation) -> None:
    """librdkafka's own request ends the process sooner or later, by an assertion."""
    (reader,) = joined(here, 1)
    right = group_members(here.kafka, "g")
    outcomes: list[GroupMembers | None] = []
    with closing(reader), LyingNetwork(here.kafka.bootstrap_servers) as net:
        lied_to = KafkaSettings(bootstrap_servers=net.bootstrap_servers, request_timeout_s=1)
        net.take_chances(seeded(7, {Api.DESCRIBE_GROUPS: 0.5, Api.FIND_COORDINATOR: 0.3, Api.METADATA: 0.2}, 0.5))
        for _ in range(80):
            reader.poll(0)
            try:
                outcomes.append(group_members(lied_to, "g"))
            except Unavailable:
                outcomes.append(None)
    gc.collect()
    assert {each for each in outcomes if each} == {right}
    assert None in outcomes
