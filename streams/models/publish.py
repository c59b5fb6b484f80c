"""Publishes an artifact and its warm songs.

First every warm song of the new space, acknowledged, then ``models`` flips. Rolling back is publishing the old
artifact again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from encoder.artifact import load_encoder, load_warm, read_manifest
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.errors import Refused, Unavailable
from streams.contract.event_base import MAX_DIMENSION, MAX_ID_LENGTH
from streams.contract.internal_events import LiveModel, WarmSong
from streams.contract.record_size import record_size
from streams.contract.topics import MODELS, WARM_SONGS, Naming
from streams.kafka.access import check_topics
from streams.kafka.clients import admin, hand_over, producer
from streams.models import learned_chances
from streams.models.registry import ENCODER
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

SOURCE = "coldstart/publish"


def publish(
    artifact: Path,
    kafka: KafkaSettings,
    naming: Naming,
    clock: Clock,
    progress: Callable[[int, int], None] | None = None,
) -> LiveModel:
    """Make an artifact live.

    Args:
        artifact: a folder that every worker can read under the same path.
        progress: called with (warm songs handed over, warm songs in all).

    Raises:
        encoder.artifact.ArtifactError, Refused: the artifact is not whole.
        Unavailable: the broker does not answer, or did not acknowledge a record; the old model is still live.
    """
    artifact = artifact.resolve()
    manifest = read_manifest(artifact)
    # A folder that changes meanwhile is refused, here or by every worker.
    summed = sha256((artifact / "manifest.json").read_bytes()).hexdigest()
    # Verifies every file's checksum before anything is published.
    load_encoder(artifact, summed)
    warm, chances = load_warm(artifact, summed), learned_chances.load(artifact)
    if manifest.dim > MAX_DIMENSION:
        raise Refused(
            f"{artifact}: vectors of {manifest.dim} dimensions, {MAX_DIMENSION} allowed; train with a smaller dim"
        )
    # Check that the broker answers before queueing anything.
    check_topics(admin(kafka), kafka, naming, (WARM_SONGS, MODELS))
    sender = _Sender(producer(kafka))
    now, total = clock.now(), len(warm.content)
    for row, song_id in enumerate(warm.content.song_ids):
        content = warm.content.song(row)
        song = WarmSong(
            song_id=song_id,
            space=manifest.space,
            vector=vector_codec.pack(manifest.space, warm.vectors[row]),
            features={name: np.asarray(values, "<f4").tobytes() for name, values in content.dense.items()},
            bags={name: dict(bag) for name, bag in content.bags.items()},
        )
        id = f"{manifest.space}/{song_id}"
        sender.send(naming.name(WARM_SONGS), _fitting(pack(song, id=id, source=SOURCE, time=now)))
        if progress and (row % 1000 == 999 or row == total - 1):
            progress(row + 1, total)
    sender.flush(kafka.request_timeout_s)
    model = LiveModel(
        name=ENCODER,
        uri=artifact.as_uri(),
        manifest_sha256=summed,
        space=manifest.space,
        dim=manifest.dim,
        warm_songs=total,
        published_at=datetime.fromtimestamp(now, UTC),
        chances=chances,
    )
    id = f"{ENCODER}/{manifest.space}/{now:.6f}"
    sender.send(naming.name(MODELS), pack(model, id=id, source=SOURCE, time=now))
    sender.flush(kafka.request_timeout_s)
    return model


def _fitting(record: Record) -> Record:
    """The record of a warm song, if every record that names the song can hold what it says.

    Raises:
        Refused: it cannot.
    """
    song_id = record.key.partition(b" ")[2].decode()
    if not 1 <= len(song_id) <= MAX_ID_LENGTH:
        raise Refused(f"song {song_id!r}: an id of {len(song_id)} characters, 1 to {MAX_ID_LENGTH} allowed")
    size = record_size(record.key, record.value, record.headers)
    if size > WARM_SONGS.largest:
        raise Refused(
            f"song {song_id!r}: its content takes {size:,} bytes, {WARM_SONGS.largest:,} allowed; leave some of it out"
        )
    return record


class _Sender:
    """Sends records; :meth:`flush` returns once all of them are acknowledged."""

    def __init__(self, target: Producer) -> None:
        self._producer = target
        self._failed: KafkaError | None = None

    def send(self, topic: str, record: Record) -> None:
        hand_over(self._producer, topic, record, self._delivered)

    def flush(self, timeout: float) -> None:
        left = self._producer.flush(timeout)
        # The limit applies to a stall: a million songs may take long.
        while left and (after := self._producer.flush(timeout)) < left:
            left = after
        if self._failed is not None:
            raise Unavailable(f"a record was not acknowledged: {self._failed.str()}; the new model is not live")
        if left:
            raise Unavailable(f"{left} records were not acknowledged within {timeout:g} s; the new model is not live")

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self._failed = self._failed or error
