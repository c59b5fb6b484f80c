"""Whoever sends waits while the client's queue is full, and nothing is lost."""

from __future__ import annotations

from confluent_kafka import Producer
from installation import Installation

from streams.kafka.clients import enqueue
from streams.operations.operator_notes import read_notes, write_note
from streams.runtime.clock import SystemClock


def short_queue(here: Installation) -> Producer:
    """It has room for two records."""
    return Producer(here.kafka.confluent() | {"queue.buffering.max.messages": 2})


def test_notes_that_find_no_room_are_written_all_the_same(here: Installation) -> None:
    sender = short_queue(here)
    for number in range(20):
        write_note(sender, here.naming, "full", f"about {number}", {"number": number})
    assert sender.flush(60) == 0
    found = read_notes(here.kafka, here.naming, SystemClock(), "full")
    assert found == {f"about {number}": {"number": number} for number in range(20)}


def test_who_waits_is_told_and_the_record_comes_after_those_before_it(here: Installation) -> None:
    sender, waited = short_queue(here), list[int]()
    for number in range(20):
        about = f"full {number}".encode()
        enqueue(
            sender, here.naming.prefix + "operations", while_full=lambda at=number: waited.append(at),
            key=about, value=b"{}", partition=0,
        )  # fmt: skip
    assert sender.flush(60) == 0
    # The third is the first without room.
    assert waited
    assert min(waited) == 2
    assert list(read_notes(here.kafka, here.naming, SystemClock(), "full")) == [str(number) for number in range(20)]
