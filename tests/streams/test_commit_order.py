"""What a worker reads before it pushes, and what it reads again when a batch came to nothing."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from confluent_kafka import Consumer, ConsumerGroupState
from installation import PATIENCE_S, Installation
from test_worker import Life
from town import CLOCK, USERS, Service, Town

from streams.contract.events import PushTarget
from streams.contract.topics import LISTENS, PUSH_TARGETS, Naming
from streams.kafka.clients import admin, consumer
from streams.kafka.topic_admin import create_topics
from streams.runtime.settings import AudienceSettings, KafkaSettings
from targeting.types import PartitionInputs


@pytest.fixture
def here(kafka: KafkaSettings, prefix: str) -> Installation:
    """One partition: whoever joins the group takes nothing away."""
    made = Installation(kafka, Naming(prefix, 1, 1))
    create_topics(admin(made.kafka), made.naming, 1)
    return made


def test_opt_outs_sent_before_a_request_are_obeyed_by_its_batch_though_they_are_read_slowly(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One record a reading: a batch that takes only what is there has one opt-out. And a round waits for a request.
    monkeypatch.setattr("streams.audience.consumers._PREFERENCES_AT_ONCE", 1)
    town = Town(here)
    town.listen(10 * USERS)
    life = Life(here, settings=AudienceSettings(batch_wait_ms=500))
    life.until(town.everything_read)
    town.prefer(*range(1, USERS), opted_in=False)
    town.ask()
    life.until(town.everything_read)
    pushed = [msgspec.json.decode(message.value() or b"", type=PushTarget) for message in here.read(PUSH_TARGETS)]
    assert [push.user_id for push in pushed] == ["u-0"]
    life.end()


def test_a_batch_that_a_rebalance_undid_is_read_again_in_every_input_and_counts_once(here: Installation) -> None:
    town = Town(here)
    town.listen(10 * USERS)
    service = Service(here, here.kafka)
    service.until(town.everything_read)
    # Every batch from here to the first that is undone meets a rebalance after its records were taken.
    state = service.states[0]
    stage = state.stage

    def meanwhile(inputs: PartitionInputs) -> object:
        join_and_leave(here)
        return stage(inputs)

    state.stage = meanwhile  # type: ignore[method-assign, assignment]
    town.listen(USERS)
    town.prefer(1)
    town.ask()
    service.until(lambda: service.transactions("aborted") > 0)
    state.stage = stage  # type: ignore[method-assign]
    # What comes next must not hide what was undone.
    town.listen(USERS)
    service.until(town.everything_read)
    assert town.judge(service.digests) == USERS
    assert service.ends == []
    service.stop()
    town.close()


def join_and_leave(here: Installation) -> None:
    """The group has another generation when this returns."""
    group = f"{here.naming.prefix}audience"
    client = admin(here.kafka)
    other: Consumer = consumer(
        here.kafka, group, group_instance_id="other", partition_assignment_strategy="cooperative-sticky"
    )
    other.subscribe([here.naming.name(LISTENS)])

    def settled(members: int) -> Callable[[], bool]:
        def told() -> bool:
            other.poll(0.01)
            (found,) = client.describe_consumer_groups([group]).values()
            group_now = found.result(PATIENCE_S)
            return group_now.state == ConsumerGroupState.STABLE and len(group_now.members) == members

        return told

    deadline = CLOCK.monotonic() + PATIENCE_S
    while not settled(2)():
        assert CLOCK.monotonic() < deadline
    other.close()
