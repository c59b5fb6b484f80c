"""Workers come, go and are killed, and so is the broker: every upload is answered, and nobody is pushed twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from installation import copies

from streams.runtime.settings import KafkaSettings
from streams.runtime.settings_sources import load_settings
from streams.testbed.chaos.chaos_run import run_chaos
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.chaos.faults import FAULTS
from streams.testbed.demo.follow import Follower

# What a worker's log says when the fault reached it, one of these.
BITES = {
    "old": ("days old",),
    "unusable": ("no state on disk",),
    "full": ("state on disk deleted",),
    # The client's own timeout ends the process before the watchdog does, unless it hangs, too.
    "frozen": ("a batch hangs", "Timed out", "end offsets"),
    "members": ("partitions",),
    "swap": ("space in use",),
}


def all_answered(running: Environment, count: int, between: Callable[[int], None]) -> tuple[Follower, list[str]]:
    """Uploads so many songs to workers that were started, with ``between`` before each; returns when all are answered.

    Everything is stopped then, no push was there twice, and nothing is a dead letter.
    """
    follower = Follower(running.kafka, running.naming)
    try:
        uploads = copies(running.songs, count)
        ids = [song.song_id for song in uploads]

        def each(number: int) -> None:
            between(number)
            running.watch()

        running.wait_until_ready()
        running.upload(uploads, pause_s=0.02, each=each)
        running.wait_until_answered(follower.answered, ids)
    finally:
        running.stop()
        follower.close()
    assert follower.doubled == []
    assert follower.dead == []
    return follower, ids


def test_a_songs_worker_and_an_audience_worker_are_killed_and_started_again(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    running = set_up(kafka, prefix, tmp_path)
    songs = running.start("songs", "songs")
    audience = running.start("audience-0", "audience", "--slot", "0")
    running.start("audience-1", "audience", "--slot", "1")
    victims, before = {40: songs, 80: audience}, (songs.pid, audience.pid)

    def kill_one(number: int) -> None:
        if number in victims:
            victims[number].kill()

    follower, ids = all_answered(running, 150, kill_one)
    assert songs.pid != before[0]
    assert audience.pid != before[1]
    # Not vacuous: people were pushed, before the kills and after them.
    pushed = [number for number, song in enumerate(ids) if follower.answers[song].pushes]
    assert min(pushed) < 40
    assert max(pushed) > 80


# Imported by a worker as it starts: once the file is there, the next commit takes it away and never returns.
HANGING = """
import os, threading
import confluent_kafka

class Producer(confluent_kafka.Producer):
    def commit_transaction(self, *args):
        if {moment!r} == "after the commit":
            super().commit_transaction(*args)
        if os.path.exists({armed!r}):
            os.remove({armed!r})
            threading.Event().wait()
        if {moment!r} == "before the commit":
            super().commit_transaction(*args)

confluent_kafka.Producer = Producer
"""


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
def test_a_commit_that_hangs_for_good_ends_the_worker_and_breaks_no_promise(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, moment: str
) -> None:
    running = set_up(
        kafka, prefix, tmp_path,
        settings={"audience": {"transaction_timeout_s": 2.0, "watchdog_s": 3.0}},
    )  # fmt: skip
    armed, code = tmp_path / "armed", tmp_path / "hanging"
    code.mkdir()
    (code / "sitecustomize.py").write_text(HANGING.format(moment=moment, armed=str(armed)))
    running.start("songs", "songs")
    running.environment["PYTHONPATH"] = str(code)
    worker = running.start("audience-0", "audience", "--slot", "0")
    before = worker.pid

    def hang(number: int) -> None:
        if number == 30:
            armed.touch()

    follower, ids = all_answered(running, 80, hang)
    assert "a batch hangs for more than 3 s" in running.log("audience-0").read_text()
    assert worker.pid != before
    assert any(follower.answers[song].pushes for song in ids[:20])
    assert any(follower.answers[song].pushes for song in ids[40:])


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_by_itself_breaks_no_promise(name: str, tmp_path: Path) -> None:
    """Every upload answered, every push once, every digest equal, and all else that the checker asks."""
    run = run_chaos(load_settings(), seed=1, seconds=1, say=lambda _: None, faults=(name,), folder=tmp_path)
    assert run.verdict.violations == []
    assert [words for _, words in run.struck] == [FAULTS[name].words]
    assert run.verdict.pushes > 0
    # Hostile records come on top; which of all these must be buried, the checker asks one by one.
    assert run.verdict.dead_letters >= run.poisoned
    assert run.verdict.spaces == (2 if name == "swap" else 1)
    said = "".join(log.read_text() for log in tmp_path.glob("audience-*.log*"))
    assert any(words in said for words in BITES.get(name, ("",)))
