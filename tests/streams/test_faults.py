"""Workers come, go and are killed, and so is the broker: every upload is answered, and nobody is pushed twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import copies

from streams.broker import EmbeddedKafka
from streams.demo.follow import Follower
from streams.settings import Kafka
from streams.torture.stage import Stage, set_stage


@pytest.fixture
def running(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Iterator[Stage]:
    running = set_stage(Kafka(bootstrap_servers=kafka.bootstrap_servers), prefix, tmp_path)
    yield running
    running.stop()


@pytest.fixture
def follower(running: Stage) -> Iterator[Follower]:
    follower = Follower(running.kafka, running.naming)
    yield follower
    follower.close()


def test_a_songs_worker_and_an_audience_worker_are_killed_and_started_again(running: Stage, follower: Follower) -> None:
    songs = running.start("songs", "songs")
    audience = running.start("audience-0", "audience", "--slot", "0")
    running.start("audience-1", "audience", "--slot", "1")
    victims = {40: songs, 80: audience}
    before = (songs.pid, audience.pid)
    uploads = copies(running.songs, 150)

    def kill_one(number: int) -> None:
        if number in victims:
            victims[number].kill()
        for worker in running.workers:
            worker.watch()

    running.wait_until_ready()
    running.upload(uploads, pause_s=0.02, each=kill_one)
    ids = [song.song_id for song in uploads]
    running.wait_until_answered(follower.answered, ids)

    assert songs.pid != before[0]
    assert audience.pid != before[1]
    assert follower.doubled == []
    assert follower.dead == []
    # Not vacuous: people were pushed, before the kills and after them.
    pushed = [number for number, song in enumerate(ids) if follower.answers[song].pushes]
    assert min(pushed) < 40
    assert max(pushed) > 80


@pytest.mark.long
def test_an_audience_worker_joins_and_another_leaves(running: Stage, follower: Follower) -> None:
    # A static member's partitions stay with it for this long after it left.
    running.environment["COLDSTART_AUDIENCE__SESSION_TIMEOUT_S"] = "6"
    running.start("songs", "songs")
    first = running.start("audience-0", "audience", "--slot", "0")
    uploads = copies(running.songs, 200)
    ids = [song.song_id for song in uploads]

    def come_and_go(number: int) -> None:
        if number == 50:
            running.start("audience-1", "audience", "--slot", "1")
        if number == 150:
            running.workers.remove(first)
            first.stop()
        for worker in running.workers:
            worker.watch()

    running.wait_until_ready()
    running.upload(uploads, pause_s=0.1, each=come_and_go)
    running.wait_until_answered(follower.answered, ids)
    assert follower.doubled == []


@pytest.mark.long
def test_the_broker_is_killed_and_started_again(prefix: str, tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path / "kafka") as broker:
        running = set_stage(Kafka(bootstrap_servers=broker.bootstrap_servers), prefix, tmp_path)
        follower = Follower(running.kafka, running.naming)
        try:
            running.start("songs", "songs")
            running.start("audience-0", "audience", "--slot", "0")
            running.start("audience-1", "audience", "--slot", "1")
            uploads = copies(running.songs, 120)
            running.wait_until_ready()
            running.upload(uploads[:60], pause_s=0.02)
            broker.kill()
            broker.restart()
            running.upload(uploads[60:], pause_s=0.02)
            running.wait_until_answered(follower.answered, [song.song_id for song in uploads])
        finally:
            running.stop()
            follower.close()
        assert follower.doubled == []
