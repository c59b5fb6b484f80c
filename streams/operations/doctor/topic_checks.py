"""Topics: are they as declared, is the clock that stamps their records ours, what is refused lately?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from confluent_kafka import KafkaError, Message

from streams.contract.event_time import LOG_APPEND_TIME, MAX_AHEAD_SECONDS
from streams.contract.topics import OPERATIONS
from streams.kafka.clients import enqueue, producer
from streams.kafka.topic_admin import deviations
from streams.operations.buried_records import LetterFilter, read_letters
from streams.operations.doctor.finding import Diagnosis, Patient, error, unknown, warning

_WAYS_OUT: Final = {
    "existence": "`coldstart topics create` creates it; after a deletion, `coldstart topics adopt` too",
    "partitions": "set topics.audience_partitions and topics.songs_partitions to what is there, or use a new prefix: "
    "the number is fixed for the life of a prefix",
    "copies of a partition": "reassign replicas (kafka-reassign-partitions), or correct topics.replication_factor",
}
_SKEW_S: Final = 1.0
_LATELY_S: Final = 900.0


def declared(patient: Patient) -> Iterator[Diagnosis]:
    """Existence, partitions, copies and settings against the declared table."""
    for each in deviations(patient.client, patient.naming, patient.settings.topics.replication_factor, patient.timeout):
        yield error(str(each), _WAYS_OUT.get(each.what, "`coldstart topics update` sets it"))


def clock(patient: Patient) -> Iterator[Diagnosis]:
    """This machine's clock against the broker's, which stamps the deletion of a key that nobody uses."""
    stamped: list[tuple[int, int]] = []
    failed: list[KafkaError] = []

    def delivered(problem: KafkaError | None, message: Message) -> None:
        if problem is not None:
            failed.append(problem)
        else:
            stamped.append(message.timestamp())

    name = patient.naming.name(OPERATIONS)
    sender = producer(patient.settings.kafka)
    for _ in range(2):
        # The second one finds its connection open: the first waits for one.
        before = patient.clock.now()
        enqueue(sender, name, key=b"clock doctor", partition=0, on_delivery=delivered)
        sender.flush(patient.timeout)
        after = patient.clock.now()
    if not stamped or failed:
        why = failed[0].str() if failed else f"no answer in {patient.timeout:g} s"
        yield unknown(
            f"clock: no record can be written to {name} ({why})",
            "see to the topic and to the rights of this user",
        )
        return
    kind, milliseconds = stamped[-1]
    if kind != LOG_APPEND_TIME:
        yield unknown(f"clock: {name} is not stamped by its broker", "`coldstart topics update` sets it")
        return
    there = milliseconds / 1000
    ahead = before - there if before > there else min(0.0, after - there)
    if abs(ahead) > _SKEW_S:
        found = error if abs(ahead) > MAX_AHEAD_SECONDS else warning
        yield found(
            f"clock skew: this machine's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the "
            f"broker's, which says {time.strftime('%H:%M:%S', time.gmtime(there))} UTC",
            "set the wrong one right (NTP: `timedatectl`); beyond "
            f"{MAX_AHEAD_SECONDS:g} s workers consume nothing, or refuse records as from the future",
        )


def refused_lately(patient: Patient) -> Iterator[Diagnosis]:
    """Bad records of the last quarter of an hour, by reason."""
    since = patient.clock.now() - _LATELY_S
    counts: Counter[tuple[str, str, str]] = Counter()
    example: dict[tuple[str, str, str], str] = {}
    for letter in read_letters(patient.settings.kafka, patient.naming, patient.clock, LetterFilter(since=since)):
        kind = letter.topic, letter.error, letter.source
        counts[kind] += 1
        example[kind] = letter.reason
    for kind, number in counts.most_common(3):
        topic, problem, source = kind
        yield warning(
            f"bad records: {number:,} of {topic} from source {source or 'unknown'} were refused in the last "
            f"{_LATELY_S / 60:.0f} minutes: {problem}: {example[kind]}",
            "tell the source's owners; `coldstart dead-letters stats` counts all, `replay` brings them back. A role "
            "that stopped at them (code 65) resumes by `--resume-with-bad`",
        )
