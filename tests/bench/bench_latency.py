"""From an upload to its first push, at a steady rate, through the real broker and worker processes.

    python tests/bench/bench_latency.py --uploads 1100 --warm-up 100 --rate 20

A generated world, a model of one epoch (who is pushed does not matter here), one songs worker and two audience
workers. The cold songs are uploaded again and again under new ids. Latency is what a read_committed consumer sees.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streams.contract.topics import SONG_UPLOADS
from streams.kafka.clients import hand_over, producer
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.dataset_events import upload_record
from streams.testbed.demo.follow import Follower


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--songs", type=int, default=3000)
    parser.add_argument("--uploads", type=int, default=1100)
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--budget", type=int, default=500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedKafka() as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        stage = set_up(kafka, "latency.", Path(name), users=asked.users, songs=asked.songs)
        follower = Follower(kafka, stage.naming)
        try:
            stage.start("songs", "songs")
            for slot in range(2):
                stage.start(f"audience-{slot}", "audience", "--slot", str(slot), "--policy", "off")
            stage.wait_until_ready()
            found = upload_at(stage, follower, asked.uploads, asked.warm_up, asked.rate, asked.budget)
        finally:
            stage.stop()
            follower.close()
    print(json.dumps(found))


def upload_at(
    stage: Environment, follower: Follower, uploads: int, warm_up: int, rate: float, budget: int
) -> dict[str, Any]:
    """Upload songs at a steady rate; the first and the last push of each but the first ``warm_up``, in milliseconds."""
    sent: dict[str, float] = {}
    sender = producer(stage.kafka)
    start = time.monotonic()
    for number in range(uploads):
        song = msgspec.structs.replace(stage.songs[number % len(stage.songs)], song_id=f"new-{number}", budget=budget)
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        sent[song.song_id] = time.time()
        hand_over(sender, stage.naming.name(SONG_UPLOADS), upload_record(song, sent[song.song_id]))
    sender.flush()
    took = time.monotonic() - start
    stage.wait_until_answered(follower.answered, list(sent))
    timed = [(at, follower.answers[song]) for song, at in list(sent.items())[warm_up:]]
    figures: dict[str, Any] = {"uploads": len(timed), "uploads_per_s": round(uploads / took, 1)}
    for which in ("first", "last"):
        values = [1000 * (getattr(answer, which) - at) for at, answer in timed if answer.pushes]
        figures[which] = {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 90, 99)}
        figures[which]["pushed"] = len(values)
    return figures


if __name__ == "__main__":
    main()
