"""How long uploads wait for their pushes while a model is published and rolled back under load.

    python tests/bench/bench_swap.py --rate 20 --seconds 15

The swap of ``coldstart demo --swap`` on a small stage: a generated world, two models of one epoch, one songs worker and
one audience worker. ``--seconds`` is how long uploads go on before, between and after the two publications.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.chaos.environment import set_up
from streams.testbed.demo.follow import Follower
from streams.testbed.demo.swap_measurement import Target, swap_under_load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--songs", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedKafka() as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        stage = set_up(kafka, "swap.", Path(name), users=asked.users, songs=asked.songs, models=2)
        stage.start("songs", "songs")
        stage.start("audience", "audience", "--slot", "0", "--policy", "off")
        follower = Follower(kafka, stage.naming)
        try:
            stage.wait_until_ready()
            # The first uploads pay for the group's start.
            stage.upload(stage.songs[:20])
            stage.wait_until_answered(follower.answered, [song.song_id for song in stage.songs[:20]])
            first, second = stage.models
            target = Target(kafka, stage.naming, (first, second), stage.environment, follower, stage.workers)
            seen = swap_under_load(target, stage.songs, asked.rate, asked.seconds, lambda *_: None)
        finally:
            stage.stop()
            follower.close()
    print(json.dumps(seen.as_json()))


if __name__ == "__main__":
    main()
