"""A whole small installation for tests of the roles: a generated world, a trained model, listens, and real workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from encoder import artifact
from encoder import train as training
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import split
from streams.clients import admin, producer
from streams.clock import SystemClock
from streams.demo.events import history, upload_event, upload_record
from streams.demo.follow import Follower
from streams.envelope import Record
from streams.events import SongUpload
from streams.provision import create_topics
from streams.publishing import publish
from streams.settings import Kafka
from streams.supervisor import RoleProcess
from streams.topics import LISTENS, SONG_UPLOADS, Naming, Topic

PARTITIONS = 4
EVERYONE = set(range(PARTITIONS))
PATIENCE_S = 90.0


@dataclass
class Running:
    """A published model, listens in their topic, songs to upload, and the workers started so far."""

    kafka: Kafka
    naming: Naming
    songs: list[SongUpload]
    users: tuple[str, ...]
    environment: dict[str, str]
    logs: Path
    workers: list[RoleProcess] = field(default_factory=list)

    def start(self, name: str, *args: str) -> RoleProcess:
        worker = RoleProcess(name, args, self.environment, self.logs / f"{name}.log")
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()

    def send(
        self, topic: Topic, records: Sequence[Record], pause_s: float = 0.0, each: Callable[[int], None] | None = None
    ) -> None:
        """Send records, acknowledged; ``each`` is called with the number of each one sent."""
        sender = producer(self.kafka)
        for number, record in enumerate(records):
            sender.produce(self.naming.name(topic), key=record.key, value=record.value, headers=list(record.headers))
            sender.poll(pause_s)
            if each:
                each(number)
        assert sender.flush(30) == 0

    def upload(
        self, songs: Sequence[SongUpload], pause_s: float = 0.0, each: Callable[[int], None] | None = None
    ) -> None:
        self.send(SONG_UPLOADS, [upload_record(song, time.time()) for song in songs], pause_s, each)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: not any(worker.readiness() for worker in self.workers), lambda: "workers are not ready")

    def wait_until_answered(self, follower: Follower, song_ids: Sequence[str]) -> None:
        self.wait_until(
            lambda: all(follower.answered(song) == EVERYONE for song in song_ids),
            lambda: f"unanswered: {[song for song in song_ids if follower.answered(song) != EVERYONE]}",
        )

    def wait_until(self, done: Callable[[], bool], what: Callable[[], str]) -> None:
        """Wait for something that must come; workers that ended are started again meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, what()
            for worker in self.workers:
                worker.watch()
            time.sleep(0.05)


def install(bootstrap_servers: str, prefix: str, folder: Path) -> Running:
    """Topics, a model of a generated world of 400 users, and their listens; no workers yet."""
    kafka, naming = Kafka(bootstrap_servers=bootstrap_servers), Naming(prefix, PARTITIONS, 2)
    client = admin(kafka)
    create_topics(client, naming, 1)
    generate(World(users=400, songs=600, seed=3, history=40.0), folder / "data")
    dataset = read_dataset(folder / "data")
    parts = split(dataset, 0)
    artifact.save(training.train(dataset, parts.warm, training.Config(seed=0, epochs=1)), folder / "model")
    publish(folder / "model", kafka, naming, SystemClock())
    songs = [upload_event(dataset, int(row), 100) for row in parts.cold]
    environment = {
        "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "COLDSTART_TOPICS__PREFIX": prefix,
        "COLDSTART_PATHS__CACHE": str(folder / "cache"),
        "COLDSTART_TOPICS__AUDIENCE_PARTITIONS": str(PARTITIONS),
        "COLDSTART_TOPICS__SONGS_PARTITIONS": "2",
        # The broker takes no less; a killed songs worker is missed for this long.
        "COLDSTART_SONGS__SESSION_TIMEOUT_S": "6",
        "OMP_NUM_THREADS": "1",
    }
    with_content = [song for song in songs if song.features or song.tags or song.genres or song.artist_ids]
    running = Running(kafka, naming, with_content, dataset.user_ids, environment, folder)
    running.send(LISTENS, list(history(dataset, parts, time.time())))
    return running


def copies(songs: Sequence[SongUpload], count: int) -> list[SongUpload]:
    """As many uploads as asked for, with ids of their own and the contents of ``songs`` in turn."""
    return [msgspec.structs.replace(songs[n % len(songs)], song_id=f"new-{n}") for n in range(count)]
