"""What the network still holds of a transaction that is over does nothing to the one that is open then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from installation import PATIENCE_S, Installation
from lying_network import Api, LyingNetwork

from streams.contract.errors import MustRestart
from streams.contract.topics import AUDIENCE_STATE, LISTENS, MAX_RECORD_BYTES
from streams.kafka.clients import consumer
from streams.kafka.transaction import Transactions, Uncertain
from streams.runtime.clock import SystemClock
from streams.runtime.settings import AudienceSettings, KafkaSettings


@pytest.fixture
def net(kafka: KafkaSettings) -> Iterator[LyingNetwork]:
    with LyingNetwork(kafka.bootstrap_servers) as net:
        yield net


@pytest.fixture
def group(here: Installation) -> Iterator[Any]:
    """The metadata of a group's only member, which an honest network serves."""
    member: Consumer = consumer(here.kafka, f"{here.naming.prefix}audience")
    member.subscribe([here.naming.name(LISTENS)])
    deadline = SystemClock().monotonic() + PATIENCE_S
    while not member.assignment():
        assert SystemClock().monotonic() < deadline
        member.poll(0.05)
    yield member.consumer_group_metadata()
    member.close()


def transactions(here: Installation, net: LyingNetwork, timeout_s: float = 10.0) -> Transactions:
    reach = KafkaSettings(bootstrap_servers=net.bootstrap_servers, request_timeout_s=5)
    return Transactions(reach, AudienceSettings(transaction_timeout_s=timeout_s), f"{here.naming.prefix}t")


def write(transaction: Transactions, here: Installation, value: bytes) -> None:
    """Begin, and return when the broker has the record."""
    before = end(here)
    transaction.begin()
    transaction.produce(here.naming.name(AUDIENCE_STATE), 0, b"k", value)
    deadline = SystemClock().monotonic() + PATIENCE_S
    while end(here) == before:
        assert SystemClock().monotonic() < deadline


def end(here: Installation) -> int:
    reader: Consumer = consumer(here.kafka, "end", isolation_level="read_uncommitted")
    try:
        marks = reader.get_watermark_offsets(TopicPartition(here.naming.name(AUDIENCE_STATE), 0), timeout=PATIENCE_S)
        return int(marks[1])
    finally:
        reader.close()


def offsets(here: Installation, offset: int) -> list[TopicPartition]:
    return [TopicPartition(here.naming.name(LISTENS), 0, offset)]


def visible(here: Installation) -> list[bytes | None]:
    return [message.value() for message in here.read(AUDIENCE_STATE, 0)]


def meanwhile(net: LyingNetwork, act: Callable[[], None], at_its_end: Callable[[], None]) -> None:
    """Do something, and something else just before its EndTxn comes to the broker."""
    gate = net.lie("slow request", Api.END_TXN)
    thread = threading.Thread(target=act)
    thread.start()
    assert gate.struck.wait(PATIENCE_S)
    at_its_end()
    gate.released.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_a_commit_that_comes_again_late_does_not_commit_half_of_the_next_transaction(
    here: Installation, net: LyingNetwork, group: Any
) -> None:
    transaction = transactions(here, net)
    late = net.lie("late request", Api.END_TXN)
    write(transaction, here, b"first")
    # The client loses its connection and asks again by itself: no error tells of it.
    transaction.commit(offsets(here, 1), group)
    assert late.struck.is_set()

    def comes() -> None:
        late.released.set()
        assert late.delivered.wait(PATIENCE_S)

    write(transaction, here, b"undone")
    meanwhile(net, transaction.abort, comes)
    assert visible(here) == [b"first"]


def test_offsets_that_come_again_late_do_not_take_the_group_back(
    here: Installation, net: LyingNetwork, group: Any
) -> None:
    transaction = transactions(here, net)
    late = net.lie("late request", Api.TXN_OFFSET_COMMIT)
    write(transaction, here, b"first")
    transaction.commit(offsets(here, 1), group)
    assert late.struck.is_set()

    def comes() -> None:
        late.released.set()
        assert late.delivered.wait(PATIENCE_S)

    write(transaction, here, b"second")
    meanwhile(net, lambda: transaction.commit(offsets(here, 2), group), comes)
    assert visible(here) == [b"first", b"second"]
    assert here.committed("audience", LISTENS, 0) == 2


def test_a_commit_that_nobody_answered_is_over_for_good_once_the_producer_is_renewed(
    here: Installation, net: LyingNetwork, group: Any
) -> None:
    transaction = transactions(here, net, timeout_s=1.0)
    held = net.lie("slow request", Api.END_TXN)
    write(transaction, here, b"uncertain")
    with pytest.raises(Uncertain, match="commit"):
        transaction.commit(offsets(here, 7), group)
    assert held.struck.is_set()
    transaction.recreate()
    # A client may ask once more before it gives up, and be heard: what counts is that it is over.
    before = visible(here)
    assert before in ([], [b"uncertain"])
    # Only now does the broker hear of the first time, while the next transaction is open.
    write(transaction, here, b"next")
    held.released.set()
    transaction.commit(offsets(here, 8), group)
    assert visible(here) == [*before, b"next"]
    assert here.committed("audience", LISTENS, 0) == 8


def test_transactions_that_come_to_nothing_one_after_the_other_ask_for_a_new_process(
    here: Installation, net: LyingNetwork, group: Any
) -> None:
    transaction = transactions(here, net)

    def fail() -> None:
        transaction.begin()
        with pytest.raises(Uncertain):
            transaction.produce(here.naming.name(AUDIENCE_STATE), 0, b"k", bytes(2 * MAX_RECORD_BYTES))

    fail()
    transaction.recreate()
    write(transaction, here, b"v")
    transaction.commit(offsets(here, 1), group)
    for _ in range(3):
        fail()
        transaction.recreate()
    fail()
    with pytest.raises(MustRestart, match="4 commits in a row"):
        transaction.recreate()
