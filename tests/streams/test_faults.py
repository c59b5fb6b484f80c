"""Workers come, go and are killed, and so is the broker: every upload is answered, and nobody is pushed twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from installation import copies

from streams.broker import EmbeddedKafka
from streams.demo.follow import Follower
from streams.settings import Kafka, load_settings
from streams.torture.faults import FAULTS
from streams.torture.run import torture
from streams.torture.stage import set_stage

# What a worker's log says when the fault reached it, one of these.
BITES = {
    "old": ("days old",),
    "unusable": ("no state on disk",),
    "full": ("state on disk deleted",),
    # The client's own timeout ends the process before the watchdog does, unless it hangs, too.
    "frozen": ("a transaction hangs", "Timed out", "end offsets"),
    "members": ("partitions",),
    "swap": ("space in use",),
}


def test_a_songs_worker_and_an_audience_worker_are_killed_and_started_again(
    kafka: EmbeddedKafka, prefix: str, tmp_path: Path
) -> None:
    running = set_stage(Kafka(bootstrap_servers=kafka.bootstrap_servers), prefix, tmp_path)
    follower = Follower(running.kafka, running.naming)
    try:
        songs = running.start("songs", "songs")
        audience = running.start("audience-0", "audience", "--slot", "0")
        running.start("audience-1", "audience", "--slot", "1")
        victims = {40: songs, 80: audience}
        before = (songs.pid, audience.pid)
        uploads = copies(running.songs, 150)

        def kill_one(number: int) -> None:
            if number in victims:
                victims[number].kill()
            running.watch()

        running.wait_until_ready()
        running.upload(uploads, pause_s=0.02, each=kill_one)
        ids = [song.song_id for song in uploads]
        running.wait_until_answered(follower.answered, ids)
    finally:
        running.stop()
        follower.close()

    assert songs.pid != before[0]
    assert audience.pid != before[1]
    assert follower.doubled == []
    assert follower.dead == []
    # Not vacuous: people were pushed, before the kills and after them.
    pushed = [number for number, song in enumerate(ids) if follower.answers[song].pushes]
    assert min(pushed) < 40
    assert max(pushed) > 80


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_by_itself_breaks_no_promise(name: str, tmp_path: Path) -> None:
    """Every upload answered, every push once, every digest equal, and all else that the checker asks."""
    ordeal = torture(load_settings(), seed=1, seconds=1, say=lambda _: None, faults=(name,), folder=tmp_path)
    assert ordeal.verdict.violations == []
    assert [words for _, words in ordeal.struck] == [FAULTS[name].words]
    assert ordeal.verdict.pushes > 0
    assert ordeal.verdict.dead_letters == ordeal.poisoned
    assert ordeal.verdict.spaces == (2 if name == "swap" else 1)
    said = "".join(log.read_text() for log in tmp_path.glob("audience-*.log*"))
    assert any(words in said for words in BITES.get(name, ("",)))
