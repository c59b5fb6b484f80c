"""The ``operations`` topic: what operators did, in the same transaction as what they did it to.

A note is the newest record of its key; one that is deleted is no note.
"""

from __future__ import annotations

from typing import Any

import msgspec
from confluent_kafka import Producer

from streams.contract.topics import OPERATIONS, Naming
from streams.kafka.clients import enqueue
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings


def read_notes(kafka: KafkaSettings, naming: Naming, clock: Clock, kind: str) -> dict[str, dict[str, Any]]:
    """The notes of one kind, by what they are about.

    Raises:
        Unavailable: the broker does not answer, or the topic does not exist.
    """
    snapshot, found = Snapshot(kafka, [naming.name(OPERATIONS)], clock), {}
    try:
        for message in snapshot.read_to_end():
            name, _, about = (message.key() or b"").decode().partition(" ")
            if name == kind:
                value = message.value()
                found[about] = None if value is None else msgspec.json.decode(value, type=dict[str, Any])
    finally:
        snapshot.close()
    return {about: note for about, note in found.items() if note is not None}


def write_note(sender: Producer, naming: Naming, kind: str, about: str, note: dict[str, Any] | None) -> None:
    """Hand over a note, as a part of the sender's transaction; None deletes it."""
    value = None if note is None else msgspec.json.encode(note)
    enqueue(sender, naming.name(OPERATIONS), value=value, key=f"{kind} {about}".encode(), partition=0)
