"""A compacted topic is read to its end, whatever stands there, and followed from there."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from installation import PATIENCE_S, Installation

from streams.contract.cloudevents import Record
from streams.contract.errors import Unavailable
from streams.contract.topics import LISTENS, MODELS, WARM_SONGS, Topic
from streams.kafka.clients import consumer, producer
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import SystemClock


def record(key: str, value: str = "v") -> Record:
    return Record(key.encode(), value.encode(), [])


def snapshot(here: Installation, *topics: Topic, partition: int | None = None) -> Snapshot:
    return Snapshot(here.kafka, [here.naming.name(topic) for topic in topics], SystemClock(), partition)


def keys(messages: list[Message]) -> list[str]:
    return sorted((message.key() or b"").decode() for message in messages)


def transaction(here: Installation, key: str, end: str) -> None:
    """One record in partition 0 within a transaction that is committed, aborted or left open."""
    sender = producer(here.kafka, f"{here.naming.prefix}{key}")
    sender.init_transactions(PATIENCE_S)
    sender.begin_transaction()
    sender.produce(here.naming.name(WARM_SONGS), b"v", key.encode(), partition=0)
    assert sender.flush(PATIENCE_S) == 0
    if end == "commit":
        sender.commit_transaction(PATIENCE_S)
    elif end == "abort":
        sender.abort_transaction(PATIENCE_S)


@pytest.mark.parametrize("last", ["commit", "abort", "open"])
def test_the_end_is_reached_whatever_stands_there(here: Installation, last: str) -> None:
    here.send_all(WARM_SONGS, [record("a"), record("b")], 0)
    transaction(here, "aborted", "abort")
    here.send(WARM_SONGS, record("c"), 1)
    transaction(here, "last", last)
    view = snapshot(here, WARM_SONGS)
    progress: list[tuple[int, int]] = []
    found = list(view.read_to_end(lambda done, total: progress.append((done, total))))
    view.close()
    assert keys(found) == ["a", "b", "c", *(["last"] if last == "commit" else [])]
    totals = {total for _, total in progress}
    assert len(totals) == 1
    assert progress == sorted(progress)
    assert progress[-1][0] >= totals.pop()


def test_an_empty_topic_has_an_end(here: Installation) -> None:
    view = snapshot(here, WARM_SONGS, MODELS)
    assert list(view.read_to_end()) == []
    view.close()


def test_what_comes_later_is_polled_and_only_that(here: Installation) -> None:
    here.send(WARM_SONGS, record("before"))
    view = snapshot(here, WARM_SONGS, MODELS)
    assert keys(list(view.read_to_end())) == ["before"]
    here.send(MODELS, record("model"))
    here.send_all(WARM_SONGS, [record(f"after-{n}") for n in range(5)])
    found: list[Message] = []
    deadline = SystemClock().monotonic() + PATIENCE_S
    while len(found) < 6:
        assert SystemClock().monotonic() < deadline
        found += view.poll(0.5)
    view.close()
    assert keys(found) == [*(f"after-{n}" for n in range(5)), "model"]


def test_one_partition_alone(here: Installation) -> None:
    here.send_all(WARM_SONGS, [record("zero-a"), record("zero-b")], 0)
    here.send(WARM_SONGS, record("one"), 1)
    for partition, expected in enumerate([["zero-a", "zero-b"], ["one"]]):
        view = snapshot(here, WARM_SONGS, partition=partition)
        assert keys(list(view.read_to_end())) == expected
        view.close()


def test_progress_counts_from_where_the_topic_begins(here: Installation) -> None:
    name = here.naming.name(LISTENS)
    here.send_all(LISTENS, [record(f"k{n}") for n in range(10)], 0)
    client = AdminClient(here.kafka.confluent())
    for future in client.delete_records([TopicPartition(name, 0, 6)]).values():
        future.result(PATIENCE_S)
    reader: Consumer = consumer(here.kafka, f"{here.naming.prefix}reader")
    assert reader.get_watermark_offsets(TopicPartition(name, 0), timeout=PATIENCE_S) == (6, 10)
    reader.close()
    view = snapshot(here, LISTENS)
    progress: list[tuple[int, int]] = []
    assert len(list(view.read_to_end(lambda done, total: progress.append((done, total))))) == 4
    view.close()
    assert progress[-1] == (4, 4)


def test_a_missing_topic_is_named_with_the_way_out(here: Installation) -> None:
    with pytest.raises(Unavailable, match=r"topic no\.such, nor\.this: does not exist.*topics create"):
        Snapshot(here.kafka, ["no.such", here.naming.name(MODELS), "nor.this"], SystemClock())
