"""A rolling restart under load, as the chart does it: every upload is answered, and no push comes twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from streams.runtime.exit_codes import OK
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.follow import Follower

WORKERS = {"songs": ["songs"], "audience-0": ["audience", "--slot", "0"], "audience-1": ["audience", "--slot", "1"]}


@pytest.fixture
def stage(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> Iterator[Environment]:
    stage = set_up(kafka, prefix, tmp_path, users=200, songs=600)
    yield stage
    stage.stop()


def test_every_upload_is_answered_and_no_push_comes_twice_while_all_workers_are_restarted(stage: Environment) -> None:
    for name, args in WORKERS.items():
        stage.start(name, *args)
    stage.wait_until_ready()
    follower, sent, over = Follower(stage.kafka, stage.naming), list[str](), threading.Event()

    def upload() -> None:
        number = 0
        while not over.wait(0.25):
            song = msgspec.structs.replace(stage.songs[number % len(stage.songs)], song_id=f"rolled-{number}")
            stage.upload([song])
            sent.append(song.song_id)
            number += 1

    uploads = threading.Thread(target=upload)
    uploads.start()
    try:
        for name, args in WORKERS.items():
            (old,) = [worker for worker in stage.workers if worker.name == name]
            stage.workers.remove(old)
            answered = len(follower.answers)
            if name == "songs":
                # Both in the group for a while: the new one first.
                stage.start(name, *args)
                stage.wait_until_ready()
            old.stop()
            assert old.exit_code() == OK
            if name != "songs":
                stage.start(name, *args)
                stage.wait_until_ready()
            stage.wait_until(lambda seen=answered: len(follower.answers) > seen, lambda: "no upload is answered")  # type: ignore[misc]
    finally:
        over.set()
        uploads.join()
    stage.wait_until_answered(follower.answered, sent)
    stage.wait_until_still()
    follower.close()
    assert len(sent) > len(WORKERS)
    assert follower.doubled == []
    assert follower.dead == []
    assert stage.ended == []
