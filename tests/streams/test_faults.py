"""Workers are killed in the middle of their work: every upload is answered, and nobody is pushed twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from encoder import artifact
from encoder import train as training
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import split
from streams.broker import EmbeddedKafka
from streams.clients import admin, producer
from streams.clock import SystemClock
from streams.demo.events import history, upload_event, upload_record
from streams.demo.follow import Follower
from streams.demo.processes import RoleProcess
from streams.events import SongUpload
from streams.provision import create_topics
from streams.publishing import publish
from streams.settings import Kafka
from streams.topics import LISTENS, SONG_UPLOADS, Naming

PARTITIONS = 4
PATIENCE_S = 90.0


@dataclass
class Installation:
    """A published model, replayed listens, and events to upload."""

    kafka: Kafka
    naming: Naming
    uploads: list[SongUpload]
    environment: dict[str, str]
    logs: Path

    def worker(self, name: str, *args: str) -> RoleProcess:
        return RoleProcess(name, args, self.environment, self.logs / f"{name}.log")

    def send_uploads(self, uploads: list[SongUpload], each: Callable[[int], None]) -> None:
        sender = producer(self.kafka)
        for number, event in enumerate(uploads):
            record = upload_record(event, time.time())
            sender.produce(
                self.naming.name(SONG_UPLOADS), key=record.key, value=record.value, headers=list(record.headers)
            )
            sender.poll(0.02)
            each(number)
        assert sender.flush(30) == 0


@pytest.fixture
def installation(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Installation:
    reach = Kafka(bootstrap_servers=kafka.bootstrap_servers)
    naming = Naming(prefix, PARTITIONS, 2)
    client = admin(reach)
    create_topics(client, naming, 1)
    generate(World(users=400, songs=600, seed=3, history=40.0), tmp_path / "data")
    dataset = read_dataset(tmp_path / "data")
    parts = split(dataset, 0)
    trained = training.train(dataset, parts.warm, training.Config(seed=0, epochs=1))
    artifact.save(trained, tmp_path / "model")
    publish(tmp_path / "model", reach, naming, SystemClock())
    sender = producer(reach)
    for record in history(dataset, parts, time.time()):
        sender.produce(naming.name(LISTENS), key=record.key, value=record.value, headers=list(record.headers))
        sender.poll(0)
    assert sender.flush(30) == 0
    songs = [upload_event(dataset, int(row), 100) for row in parts.cold]
    songs = [song for song in songs if song.features or song.tags or song.genres or song.artist_ids]
    uploads = [msgspec.structs.replace(songs[n % len(songs)], song_id=f"new-{n}") for n in range(150)]
    environment = {
        "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": reach.bootstrap_servers,
        "COLDSTART_TOPICS__PREFIX": prefix,
        "COLDSTART_TOPICS__AUDIENCE_PARTITIONS": str(PARTITIONS),
        "COLDSTART_TOPICS__SONGS_PARTITIONS": "2",
        "COLDSTART_SONGS__SESSION_TIMEOUT_S": "6",
        "OMP_NUM_THREADS": "1",
    }
    return Installation(reach, naming, uploads, environment, tmp_path)


@pytest.fixture
def follower(installation: Installation) -> Iterator[Follower]:
    follower = Follower(installation.kafka, installation.naming)
    yield follower
    follower.close()


def wait_until(done: Callable[[], bool], watch: list[RoleProcess], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, what()
        for worker in watch:
            worker.watch()
        time.sleep(0.1)


def test_a_songs_worker_and_an_audience_worker_are_killed_and_started_again(
    installation: Installation, follower: Follower
) -> None:
    songs = installation.worker("songs", "songs")
    audience = [installation.worker(f"audience-{n}", "audience", "--slot", str(n)) for n in range(2)]
    workers = [songs, *audience]
    victims = {40: songs, 80: audience[0]}
    before = {name: worker.pid for name, worker in (("songs", songs), ("audience", audience[0]))}

    def kill_one(number: int) -> None:
        if number in victims:
            victims[number].kill()
        for worker in workers:
            worker.watch()

    try:
        wait_until(lambda: not any(w.readiness() for w in workers), workers, lambda: "workers are not ready")
        installation.send_uploads(installation.uploads, kill_one)
        ids = [song.song_id for song in installation.uploads]
        everyone = set(range(PARTITIONS))
        wait_until(
            lambda: all(follower.answered(song) == everyone for song in ids),
            workers,
            lambda: f"unanswered: {[song for song in ids if follower.answered(song) != everyone]}",
        )
    finally:
        for worker in workers:
            worker.stop()

    assert songs.pid != before["songs"]
    assert audience[0].pid != before["audience"]
    assert follower.doubled == []
    assert follower.dead == []
    # Not vacuous: people were pushed, before the kills and after them.
    pushed = [number for number, song in enumerate(ids) if follower.answers[song].pushes]
    assert min(pushed) < 40
    assert max(pushed) > 80
