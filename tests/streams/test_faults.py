"""Workers are killed in the middle of their work: every upload is answered, and nobody is pushed twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running, copies, install

from streams.broker import EmbeddedKafka
from streams.demo.follow import Follower


@pytest.fixture
def running(kafka: EmbeddedKafka, prefix: str, tmp_path: Path) -> Iterator[Running]:
    running = install(kafka.bootstrap_servers, prefix, tmp_path)
    yield running
    running.stop()


@pytest.fixture
def follower(running: Running) -> Iterator[Follower]:
    follower = Follower(running.kafka, running.naming)
    yield follower
    follower.close()


def test_a_songs_worker_and_an_audience_worker_are_killed_and_started_again(
    running: Running, follower: Follower
) -> None:
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
    running.wait_until_answered(follower, ids)

    assert songs.pid != before[0]
    assert audience.pid != before[1]
    assert follower.doubled == []
    assert follower.dead == []
    # Not vacuous: people were pushed, before the kills and after them.
    pushed = [number for number, song in enumerate(ids) if follower.answers[song].pushes]
    assert min(pushed) < 40
    assert max(pushed) > 80
