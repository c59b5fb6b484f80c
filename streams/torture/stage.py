"""What is a small whole installation: topics, a model, listens, and workers?"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encoder import artifact
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import split
from streams.clients import admin, producer
from streams.clock import SystemClock
from streams.demo.events import history, upload_event, upload_record
from streams.demo.feed import hand_over
from streams.envelope import Record
from streams.errors import Unavailable
from streams.events import SongUpload
from streams.provision import create_topics
from streams.publishing import publish
from streams.settings import Kafka
from streams.supervisor import RoleProcess
from streams.topics import LISTENS, SONG_UPLOADS, Naming, Topic

# Restoring, re-joining and a broker's return together take less.
PATIENCE_S = 120.0


@dataclass
class Stage:
    """A published model, listens in their topic, songs to upload, and the workers started so far.

    Attributes:
        songs: uploads made of a generated world, none without content.
        users: who listens in it.
        environment: of the workers: where Kafka is, and what they are to do.
        folder: logs, state and model.
    """

    kafka: Kafka
    naming: Naming
    songs: list[SongUpload]
    users: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    workers: list[RoleProcess] = field(default_factory=list)

    @property
    def partitions(self) -> frozenset[int]:
        return frozenset(range(self.naming.audience_partitions))

    @property
    def state(self) -> Path:
        """What the audience workers keep on disk."""
        return self.folder / "cache" / "state"

    def start(self, name: str, *args: str) -> RoleProcess:
        worker = RoleProcess(name, args, self.environment, self.folder / f"{name}.log")
        self.workers.append(worker)
        return worker

    def watch(self) -> None:
        """Start again what ended. Raises Refused when that does not help."""
        for worker in self.workers:
            worker.watch()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def send(
        self, topic: Topic, records: Sequence[Record], pause_s: float = 0.0, each: Callable[[int], None] | None = None
    ) -> None:
        """Send records and wait for all acknowledgements.

        Args:
            each: called with the number of each record handed over.

        Raises:
            Unavailable: not all were acknowledged in time.
        """
        sender = producer(self.kafka)
        for number, record in enumerate(records):
            hand_over(sender, self.naming.name(topic), record)
            sender.poll(pause_s)
            if each:
                each(number)
        left = sender.flush(PATIENCE_S)
        if left:
            raise Unavailable(f"{self.naming.name(topic)}: {left} records were not acknowledged in {PATIENCE_S:g} s")

    def upload(
        self, songs: Sequence[SongUpload], pause_s: float = 0.0, each: Callable[[int], None] | None = None
    ) -> None:
        self.send(SONG_UPLOADS, [upload_record(song, time.time()) for song in songs], pause_s, each)

    def wait_until_ready(self) -> None:
        self.wait_until(
            lambda: not any(worker.readiness() for worker in self.workers),
            lambda: f"not ready: { {worker.name: worker.readiness() for worker in self.workers} }",
        )

    def wait_until_answered(self, answered: Callable[[str], Collection[int]], song_ids: Sequence[str]) -> None:
        """Wait until every partition has answered for every song."""
        self.wait_until(
            lambda: all(self.partitions <= set(answered(song)) for song in song_ids),
            lambda: f"unanswered: {[song for song in song_ids if not self.partitions <= set(answered(song))]}",
        )

    def wait_until(self, done: Callable[[], bool], what: Callable[[], str]) -> None:
        """Wait for something that must come, starting again what ends meanwhile.

        Raises:
            Unavailable: it did not come; ``what`` says what is missing.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise Unavailable(what())
            self.watch()
            time.sleep(0.05)


def set_stage(
    kafka: Kafka, prefix: str, folder: Path, partitions: int = 4, users: int = 400, songs: int = 600
) -> Stage:
    """Topics, a model of a generated world, and its listens; no workers yet."""
    naming = Naming(prefix, partitions, 2)
    client = admin(kafka)
    create_topics(client, naming, 1)
    generate(World(users=users, songs=songs, seed=3, history=40.0), folder / "data")
    dataset = read_dataset(folder / "data")
    parts = split(dataset, 0)
    # Torch is loaded only where something is trained.
    from encoder import train as training

    # One epoch: what is tested here does not depend on who is pushed.
    artifact.save(training.train(dataset, parts.warm, training.Config(seed=0, epochs=1)), folder / "model")
    publish(folder / "model", kafka, naming, SystemClock())
    uploads = [upload_event(dataset, int(row), 100) for row in parts.cold]
    environment = {
        "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "COLDSTART_TOPICS__PREFIX": prefix,
        "COLDSTART_TOPICS__AUDIENCE_PARTITIONS": str(partitions),
        "COLDSTART_TOPICS__SONGS_PARTITIONS": "2",
        "COLDSTART_PATHS__CACHE": str(folder / "cache"),
        # The broker takes no less; a killed songs worker is missed for this long.
        "COLDSTART_SONGS__SESSION_TIMEOUT_S": "6",
        "OMP_NUM_THREADS": "1",
    }
    with_content = [song for song in uploads if song.features or song.tags or song.genres or song.artist_ids]
    stage = Stage(kafka, naming, with_content, dataset.user_ids, environment, folder)
    stage.send(LISTENS, list(history(dataset, parts, time.time())))
    return stage
