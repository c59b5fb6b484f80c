"""One transaction over outputs and input offsets: what a commit tells, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from installation import PATIENCE_S, Installation

from streams.contract.errors import MustRestart
from streams.contract.topics import AUDIENCE_STATE, LISTENS
from streams.kafka.clients import consumer
from streams.kafka.transaction import Aborted, Transactions
from streams.runtime.clock import SystemClock
from streams.runtime.settings import AudienceSettings, KafkaSettings


class Member:
    """A member of the audience group; its two partitions are shared with whoever joins."""

    def __init__(self, here: Installation) -> None:
        self.consumer: Consumer = consumer(
            here.kafka, f"{here.naming.prefix}audience", session_timeout_ms=6000, heartbeat_interval_ms=200
        )
        self.consumer.subscribe([here.naming.name(LISTENS)])

    @property
    def metadata(self) -> Any:
        return self.consumer.consumer_group_metadata()

    @property
    def partitions(self) -> int:
        return len(self.consumer.assignment())


@pytest.fixture
def member(here: Installation) -> Iterator[Member]:
    member = Member(here)
    share(member, by=[2])
    yield member
    member.consumer.close()


def share(*members: Member, by: list[int]) -> None:
    """Poll until each holds as many partitions as said."""
    deadline = SystemClock().monotonic() + PATIENCE_S
    while [each.partitions for each in members] != by:
        assert SystemClock().monotonic() < deadline, [each.partitions for each in members]
        for each in members:
            each.consumer.poll(0.05)


def transactions(here: Installation, slot: str = "t") -> Transactions:
    return Transactions(here.kafka, AudienceSettings(), f"{here.naming.prefix}{slot}")


def offsets(here: Installation, offset: int) -> list[TopicPartition]:
    return [TopicPartition(here.naming.name(LISTENS), 0, offset)]


def visible(here: Installation) -> list[tuple[bytes | None, bytes | None]]:
    return [(message.key(), message.value()) for message in here.read(AUDIENCE_STATE, 0)]


def test_offsets_of_records_are_told_by_the_time_commit_returns(here: Installation, member: Member) -> None:
    state = here.naming.name(AUDIENCE_STATE)
    transaction = transactions(here)
    told: dict[bytes, int] = {}
    for round_number in (1, 2):
        transaction.begin()
        for name in (b"a", b"b", b"c"):
            key = name + b"%d" % round_number
            headers = [("h", b"1")] if name == b"a" else []

            def tell(offset: int, key: bytes = key) -> None:
                told[key] = offset

            transaction.produce(state, 0, key, b"v", headers, tell)
        transaction.produce(state, 1, b"elsewhere", None)
        transaction.commit(offsets(here, round_number), member.metadata)
        assert len(told) == 3 * round_number
    found = here.read(AUDIENCE_STATE, 0)
    assert told == {message.key(): message.offset() for message in found}
    # The mark of the first transaction takes an offset too.
    assert sorted(told.values()) == [0, 1, 2, 4, 5, 6]
    assert found[0].headers() == [("h", b"1")]
    assert [(m.key(), m.value()) for m in here.read(AUDIENCE_STATE, 1)] == [(b"elsewhere", None)] * 2
    assert here.committed("audience", LISTENS, 0) == 2


def test_a_batch_of_a_former_generation_is_undone_and_the_next_one_works(here: Installation, member: Member) -> None:
    state = here.naming.name(AUDIENCE_STATE)
    stale = member.metadata
    another = Member(here)
    share(member, another, by=[1, 1])
    transaction = transactions(here)
    transaction.begin()
    transaction.produce(state, 0, b"stale", b"v")
    with pytest.raises(Aborted):
        transaction.commit(offsets(here, 7), stale)
    assert visible(here) == []
    assert here.committed("audience", LISTENS, 0) < 0

    transaction.begin()
    transaction.produce(state, 0, b"fresh", b"v")
    transaction.commit(offsets(here, 7), member.metadata)
    another.consumer.close()
    assert visible(here) == [(b"fresh", b"v")]
    assert here.committed("audience", LISTENS, 0) == 7


def test_a_slot_taken_over_ends_the_former_process_and_its_transaction(here: Installation, member: Member) -> None:
    state = here.naming.name(AUDIENCE_STATE)
    former = transactions(here, "slot")
    former.begin()
    former.produce(state, 0, b"former", b"v")
    successor = transactions(here, "slot")
    with pytest.raises(MustRestart):
        former.commit(offsets(here, 5), member.metadata)
    successor.begin()
    successor.produce(state, 0, b"successor", b"v")
    successor.commit(offsets(here, 1), member.metadata)
    assert visible(here) == [(b"successor", b"v")]
    assert here.committed("audience", LISTENS, 0) == 1


def test_an_aborted_transaction_leaves_nothing(here: Installation, member: Member) -> None:
    transaction = transactions(here)
    transaction.begin()
    transaction.produce(here.naming.name(AUDIENCE_STATE), 0, b"undone", b"v")
    transaction.abort()
    transaction.begin()
    transaction.commit(offsets(here, 3), member.metadata)
    assert visible(here) == []
    assert here.committed("audience", LISTENS, 0) == 3


def test_no_broker_asks_for_a_restart() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:9", request_timeout_s=0.1)
    with pytest.raises(MustRestart, match="transactional id x"):
        Transactions(nowhere, AudienceSettings(), "x")
