"""Sends the events of a file, and goes on where a killed attempt ended: ``coldstart send``.

A journal beside the file (``FILE.sent``) says up to where every event is acknowledged; it is replaced whole after each
batch. Whoever is killed in between sends at most one batch again, under the same ids, which the service takes for the
same events.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from streams.contract.errors import Refused, Unavailable
from streams.contract.topics import Naming
from streams.kafka.clients import admin, hand_over, producer, topics
from streams.kafka.topic_identity import cluster_id
from streams.operations.event_files import TYPES, EventFile, FileEvent
from streams.operations.file_check import BadEvent, FileCheck
from streams.runtime.settings import KafkaSettings

BATCH: Final = 1000
"""Events that are acknowledged together."""

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

_ACKNOWLEDGED_S: Final = 120.0


class Journal(msgspec.Struct, frozen=True):
    """What a journal says.

    Attributes:
        cluster, prefix: where the events went.
        events: so many of the file's are done: sent, or left out.
        sent: so many of them are acknowledged.
        sha256: of what these events say.
    """

    cluster: str
    prefix: str
    events: int = 0
    sent: int = 0
    sha256: str = sha256().hexdigest()


@dataclass(slots=True)
class Delivery:
    """What became of this attempt's events.

    Attributes:
        already: events that a former attempt had done.
        sent, skipped: acknowledged ones, and those left out because they are bad.
        places: full topic and partition -> how many went there, and the first and last offset.
    """

    already: int = 0
    sent: int = 0
    skipped: int = 0
    places: dict[tuple[str, int], tuple[int, int, int]] = field(default_factory=dict)

    def note(self, message: Message) -> None:
        at = message.topic() or "", message.partition() or 0
        offset = message.offset() or 0
        count, first, last = self.places.get(at, (0, offset, offset))
        self.places[at] = count + 1, min(first, offset), max(last, offset)


class FileSender:
    """The events of one file on their way to their topics.

    Args:
        read: gives the events in an open file.
        source: ce_source of lines that name none.
        again: forget what the journal says.

    Raises:
        Refused: the journal cannot be read, is about another installation, or the part of the file that was sent has
            changed since.
        Unavailable: no broker answers, or a topic is missing.
    """

    def __init__(
        self, path: Path, read: Callable[[BinaryIO], EventFile], source: str, kafka: KafkaSettings, naming: Naming,
        again: bool = False,
    ) -> None:  # fmt: skip
        self._path, self._read, self._source = path, read, source
        self._kafka, self._naming = kafka, naming
        self.journal = path.with_name(f"{path.name}.sent")
        client = admin(kafka)
        self._topics = set(topics(client, kafka))
        self._cluster = cluster_id(client, kafka)
        self._done = Journal(self._cluster, naming.prefix) if again else self._former()

    @property
    def already(self) -> int:
        """Events that a former attempt has done."""
        return self._done.events

    def check(self, tick: Callable[[int, int], None]) -> tuple[FileCheck, list[BadEvent]]:
        """Judge what is still to be sent.

        Args:
            tick: told the bytes that are read, and the events that are judged.
        """
        check, findings = FileCheck(), list[BadEvent]()
        with self._path.open("rb") as file:
            events, _ = self._rest(file)
            while batch := events.take(BATCH):
                findings += check.look(batch, time.time())
                tick(events.done, check.events)
        return check, findings

    def send(self, bad: set[int], tick: Callable[[int, int], None]) -> Delivery:
        """Send what is still to be sent, but for the events in these lines.

        Raises:
            Unavailable: an event was not acknowledged. What is acknowledged is in the journal.
        """
        delivery = Delivery(already=self._done.events)
        # In a variable until all is acknowledged: a client that is collected drops what it holds.
        sender = producer(self._kafka)
        with self._path.open("rb") as file:
            events, said = self._rest(file)
            while batch := events.take(BATCH):
                good = [each for each in batch if each.line not in bad]
                self._acknowledged(sender, good, delivery)
                _add(said, batch)
                delivery.sent += len(good)
                delivery.skipped += len(batch) - len(good)
                self._keep(
                    msgspec.structs.replace(
                        self._done,
                        events=self._done.events + len(batch),
                        sent=self._done.sent + len(good),
                        sha256=said.hexdigest(),
                    )
                )
                tick(events.done, self._done.events)
        return delivery

    def _acknowledged(self, sender: Producer, batch: list[FileEvent], delivery: Delivery) -> None:
        lost: list[tuple[int, KafkaError]] = []

        def told(line: int) -> Callable[[KafkaError | None, Message], None]:
            return lambda error, message: delivery.note(message) if error is None else lost.append((line, error))

        for each in batch:
            topic = self._naming.name(TYPES[each.type].TOPIC)
            if topic not in self._topics:
                raise Unavailable(f"topic {topic}: does not exist; `coldstart topics create` creates it")
            hand_over(sender, topic, each.record(self._source, time.time()), told(each.line))
        if left := sender.flush(_ACKNOWLEDGED_S):
            raise Unavailable(
                f"{left} events were not acknowledged within {_ACKNOWLEDGED_S:g} s; the same command goes on from there"
            )
        if lost:
            line, error = min(lost, key=lambda each: each[0])
            raise Unavailable(f"line {line}: {error.str()}; {len(lost)} events were not sent, the same command goes on")

    def _rest(self, file: BinaryIO) -> tuple[EventFile, Hash]:
        """The events that are not done, and the hash of those that are: as they were when they were sent."""
        events, said, left = self._read(file), sha256(), self._done.events
        while left and (batch := events.take(min(left, BATCH))):
            _add(said, batch)
            left -= len(batch)
        if said.hexdigest() != self._done.sha256:
            raise Refused(
                f"{self._path}: its first {self._done.events:,} events were sent, and have changed since; to send a "
                "changed file, give it another name, or say --again"
            )
        return events, said

    def _former(self) -> Journal:
        if not self.journal.exists():
            return Journal(self._cluster, self._naming.prefix)
        try:
            done = msgspec.json.decode(self.journal.read_bytes(), type=Journal)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(f"{self.journal}: cannot be read ({error}); remove it to send the whole file") from None
        if (done.cluster, done.prefix) != (self._cluster, self._naming.prefix):
            raise Refused(
                f"{self.journal}: is about topics {done.prefix}* of cluster {done.cluster}, and these are "
                f"{self._naming.prefix}* of {self._cluster}; send all of it --again"
            )
        return done

    def _keep(self, done: Journal) -> None:
        fresh = self.journal.with_name(f"{self.journal.name}.new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(done) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.journal)
        self._done = done


def _add(said: Hash, events: list[FileEvent]) -> None:
    for each in events:
        said.update(each.value if isinstance(each.value, bytes) else str(each.value).encode())
        said.update(b"\n")
