"""Feeds listens and uploads into their topics, and tells when they are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from encoder.data.dataset import Dataset
from encoder.data.split import Split
from streams.contract.errors import Unavailable
from streams.contract.events import SongUpload
from streams.contract.topics import LISTENS, SONG_UPLOADS, Naming
from streams.kafka.clients import consumer, hand_over, producer
from streams.runtime.settings import KafkaSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.demo.dataset_events import history, poisoned, upload_record

# What has not moved for this long will not move any more.
PATIENCE_S = 90.0

Tick = Callable[[int, int], None]
"""Progress: called with (done, of)."""


def replay(
    dataset: Dataset, parts: Split, kafka: KafkaSettings, naming: Naming, tick: Tick, workers: Sequence[RoleProcess]
) -> int:
    """Send every listen of the warm songs and wait until the audience has committed them; returns how many."""
    total = int(np.diff(dataset.plays.indptr)[parts.warm].sum())
    sender, topic = producer(kafka), naming.name(LISTENS)
    for count, record in enumerate(history(dataset, parts, time.time()), 1):
        hand_over(sender, topic, record)
        if count % 1000 == 0:
            tick(count // 2, total)
    _flush(sender)
    group: Consumer = consumer(kafka, f"{naming.prefix}audience")
    wanted = [TopicPartition(topic, p) for p in range(naming.audience_partitions)]
    done, patience = -1, time.monotonic() + PATIENCE_S
    while done < total:
        committed = sum(max(0, each.offset) for each in group.committed(wanted, timeout=10))
        if committed > done:
            done, patience = committed, time.monotonic() + PATIENCE_S
        if time.monotonic() > patience:
            raise Unavailable(f"{topic}: {done:,} of {total:,} listens consumed, and no more for {PATIENCE_S:g} s")
        tick((total + done) // 2, total)
        for worker in workers:
            worker.watch()
        time.sleep(0.1)
    group.close()
    return total


def upload(
    uploads: Sequence[SongUpload],
    rate: float,
    poison: int,
    kafka: KafkaSettings,
    naming: Naming,
    tick: Tick,
    workers: Sequence[RoleProcess],
) -> tuple[dict[str, float], list[bytes]]:
    """Send the uploads at the asked rate, the malformed ones spread evenly among them.

    Returns:
        song_id -> Unix seconds of its sending, and the values of the malformed ones.
    """
    sender, topic = producer(kafka), naming.name(SONG_UPLOADS)
    sent: dict[str, float] = {}
    bad: list[bytes] = []
    start = time.monotonic()
    for number, event in enumerate(uploads):
        due = start + number / rate
        while (wait := due - time.monotonic()) > 0:
            sender.poll(min(wait, 0.05))
        now = time.time()
        record = upload_record(event, now)
        sent[event.song_id] = now
        hand_over(sender, topic, record)
        while len(bad) * len(uploads) < poison * (number + 1):
            malformed = poisoned(record, len(bad))
            bad.append(malformed.value)
            hand_over(sender, topic, malformed)
        tick(number + 1, len(uploads))
        for worker in workers:
            worker.watch()
    _flush(sender)
    return sent, bad


def _flush(sender: Producer) -> None:
    left = sender.flush(60)
    if left:
        raise Unavailable(f"{left} records were not acknowledged within 60 s")
