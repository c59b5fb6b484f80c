"""How many files must be read to follow a record through each role. ``make walks`` prints them."""

from __future__ import annotations

from pathlib import Path

import pytest
import walks

from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import set_up
from streams.testbed.demo.follow import Follower

MOST = {"upload -> match requests": 14, "match request -> push target": 42}
"""Files, without shared ones. Whoever shortens a walk lowers its number.

The batch of a partition was one file of 727 lines that a request entered 74 times; now one file has the order, and four
have the steps.
"""


@pytest.mark.parametrize("walk", walks.WALKS.values(), ids=walks.WALKS.keys())
def test_a_walk_is_known_by_functions_that_exist(walk: walks.Walk) -> None:
    for file, name in (walk.begins, walk.shown_by):
        assert f"def {name}(" in (walks.ROOT / file).read_text()


def test_a_record_is_followed_through_so_many_files(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = set_up(kafka, prefix, tmp_path, partitions=1, users=150, songs=600)
    here.environment |= walks.environment(tmp_path)
    here.start("songs", "songs")
    here.start("audience", "audience", "--slot", "0")
    follower = Follower(here.kafka, here.naming)
    try:
        here.wait_until_ready()
        # Nothing but the song is on its way then.
        here.wait_until_still()
        here.upload(here.songs[:1])
        here.wait_until_answered(follower.answered, [here.songs[0].song_id])
    finally:
        follower.close()
        here.stop()

    found = walks.read(tmp_path)
    with capsys.disabled():
        print(f"\n{walks.table(found)}")
    for name, files in found.items():
        assert len(walks.own(files)) <= MOST[name], name
