"""A partition's changelog is read whole: behind open transactions, with deletions, with its versions."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import Consumer, Producer, TopicPartition
from installation import PATIENCE_S, Installation

from streams.audience.changelog_reader import ACCOUNT_PREFIX, RestoredExtras, read_changelog, state_records
from streams.audience.local_store import Entry
from streams.audience.positions import OFFSETS_KEY, InputOffsets, offsets_value
from streams.contract.cloudevents import Record
from streams.contract.topics import AUDIENCE_STATE
from streams.kafka.clients import consumer, producer
from streams.runtime.clock import SystemClock

Entries = list[tuple[bytes, bytes | None]]


def begin(
    here: Installation,
    name: str,
    entries: Iterable[tuple[bytes, bytes | None]],
    partition: int = 0,
    open_s: float = PATIENCE_S,
) -> Producer:
    """A transaction with these records in it, not yet ended; the broker ends it after ``open_s``."""
    sender = producer(here.kafka, f"{here.naming.prefix}{name}", transaction_timeout_s=open_s)
    sender.init_transactions(PATIENCE_S)
    sender.begin_transaction()
    for key, value in entries:
        sender.produce(here.naming.name(AUDIENCE_STATE), value, key, partition=partition)
    assert sender.flush(PATIENCE_S) == 0
    return sender


def commit(here: Installation, name: str, entries: Iterable[tuple[bytes, bytes | None]], partition: int = 0) -> None:
    begin(here, name, entries, partition).commit_transaction(PATIENCE_S)


def read(here: Installation, partition: int = 0) -> tuple[Entries, RestoredExtras, list[tuple[int, int]]]:
    beside, alive = RestoredExtras(), []
    entries = read_changelog(
        here.kafka, here.naming, partition, SystemClock(), lambda done, total: alive.append((done, total))
    )
    found = list(state_records(entries, beside))
    return found, beside, alive


def test_of_a_campaign_that_was_forgotten_no_version_is_kept() -> None:
    beside = RestoredExtras()
    entries = [
        Entry(4, ACCOUNT_PREFIX + b"a", b"1"),
        Entry(5, ACCOUNT_PREFIX + b"b", b"1"),
        Entry(6, ACCOUNT_PREFIX + b"a", None),
    ]
    assert len(list(state_records(entries, beside))) == 3
    assert beside.versions == {ACCOUNT_PREFIX + b"b": 5}


def committed_end(here: Installation) -> int:
    reader: Consumer = consumer(here.kafka, f"{here.naming.prefix}probe")
    _, end = reader.get_watermark_offsets(TopicPartition(here.naming.name(AUDIENCE_STATE), 0), timeout=PATIENCE_S)
    reader.close()
    return end


def test_nothing_behind_the_open_transaction_of_a_dead_worker_is_missed(here: Installation) -> None:
    # Outside a transaction, so that no mark stands between it and what a reader of the committed end takes for the end.
    here.send(AUDIENCE_STATE, Record(b"u1", b"1", []), 0)
    dead = begin(here, "dead", [(b"u1", b"half-done"), (b"u2", b"half-done")], open_s=2 * PATIENCE_S)
    commit(here, "next", [(b"u3", b"1"), (OFFSETS_KEY, offsets_value(InputOffsets(7, 8, 9), {}))])
    beside, alive = RestoredExtras(), []
    found = state_records(
        read_changelog(here.kafka, here.naming, 0, SystemClock(), lambda *told: alive.append(told)), beside
    )
    # It has begun, so it has asked for the end. A reader that trusts the committed one stops here, before u3.
    assert next(found) == (b"u1", b"1")
    assert committed_end(here) == 1
    dead.abort_transaction(PATIENCE_S)
    assert list(found) == [(b"u3", b"1")]
    assert beside.inputs.positions == InputOffsets(7, 8, 9)
    assert beside.records == 3
    assert all(0 <= done <= total == 6 for done, total in alive)


def test_deletions_and_repeats_come_in_order(here: Installation) -> None:
    commit(here, "w", [(b"u1", b"1"), (b"u2", b"1"), (b"u1", None), (b"u2", b"2")])
    found, _, _ = read(here)
    assert found == [(b"u1", b"1"), (b"u2", b"1"), (b"u1", None), (b"u2", b"2")]


def test_versions_are_the_offsets_of_the_newest_accounts_of_campaigns(here: Installation) -> None:
    # Every committed transaction is followed by a mark that takes an offset of its own.
    commit(here, "w", [(b"n-song1", b"a"), (b"u1", b"a"), (b"n-song2", b"a")])
    commit(here, "w", [(b"n-song1", b"b")])
    aborted = begin(here, "w", [(b"n-song2", b"never")])
    aborted.abort_transaction(PATIENCE_S)
    _, beside, _ = read(here)
    assert beside.versions == {b"n-song1": 4, b"n-song2": 2}


def test_the_newest_positions_count_and_partitions_are_apart(here: Installation) -> None:
    commit(here, "w", [(OFFSETS_KEY, offsets_value(InputOffsets(1, 1, 1), {})), (b"u1", b"1")])
    commit(here, "w", [(OFFSETS_KEY, offsets_value(InputOffsets(listens=5, preferences=6), {}))])
    commit(here, "w", [(b"other", b"1")], partition=1)
    found, beside, _ = read(here)
    assert found == [(b"u1", b"1")]
    assert beside.inputs.positions == InputOffsets(listens=5, preferences=6)
    found, beside, _ = read(here, partition=1)
    assert found == [(b"other", b"1")]
    assert beside.inputs.positions == InputOffsets()


def test_an_empty_changelog_ends_at_once(here: Installation) -> None:
    assert read(here)[:2] == ([], RestoredExtras())
