"""How long do uploads wait for their requests while models are published and rolled back under load?

    python tests/bench/bench_swap.py --rate 20 --seconds 60

A generated world, two models of one epoch, one songs worker. Latency is from handing an upload over to the broker's
time on its request in the last audience partition, apart from swaps, during one, and while songs are re-anchored
afterwards; a swap lasts from the call of ``publish`` until the first request in the new space.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from encoder import artifact
from encoder import train as training
from encoder.data.layout import read_dataset
from encoder.data.split import split
from streams import vectors
from streams.broker import EmbeddedKafka
from streams.clients import producer
from streams.clock import SystemClock
from streams.demo.events import upload_record
from streams.demo.feed import hand_over
from streams.events import MatchRequest
from streams.publishing import publish
from streams.settings import Kafka
from streams.snapshot import Snapshot
from streams.topics import MATCH_REQUESTS, SONG_UPLOADS
from streams.torture.stage import Stage, set_stage

# Re-anchoring the songs of a run takes less.
AFTER_S = 10.0
REQUESTED = MatchRequest.TYPES[0].encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--songs", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedKafka() as broker:
        kafka = Kafka(bootstrap_servers=broker.bootstrap_servers)
        stage = set_stage(kafka, "swap.", Path(name), users=2000, songs=asked.songs)
        dataset = read_dataset(stage.folder / "data")
        config = training.Config(seed=1, epochs=1)
        artifact.save(training.train(dataset, split(dataset, 0).warm, config), stage.folder / "second")
        stage.start("songs", "songs")
        try:
            stage.wait_until_ready()
            published: list[float] = []

            def swap() -> None:
                for folder in ("second", "model"):
                    time.sleep(asked.seconds / 3)
                    published.append(time.time())
                    publish(stage.folder / folder, kafka, stage.naming, SystemClock())

            swapping = threading.Thread(target=swap)
            swapping.start()
            sent: dict[str, float] = {}
            sender, start, number = producer(kafka), time.monotonic(), 0
            while time.monotonic() < start + asked.seconds:
                song = msgspec.structs.replace(stage.songs[number % len(stage.songs)], song_id=f"new-{number}")
                sent[song.song_id] = time.time()
                hand_over(sender, stage.naming.name(SONG_UPLOADS), upload_record(song, sent[song.song_id]))
                sender.poll(0)
                number += 1
                time.sleep(max(0.0, start + number / asked.rate - time.monotonic()))
            sender.flush()
            swapping.join()
            stage.wait_until(lambda: len(requests(stage)) >= len(sent), lambda: "not all were requested")
            found = requests(stage)
        finally:
            stage.stop()
    print(json.dumps(figures(sent, found, published)))


def requests(stage: Stage) -> dict[str, tuple[float, str]]:
    """Song -> broker's time of its first request in the last partition, Unix seconds, and its space."""
    last = stage.naming.audience_partitions - 1
    snapshot = Snapshot(stage.kafka, [stage.naming.name(MATCH_REQUESTS)], SystemClock(), last)
    found: dict[str, tuple[float, str]] = {}
    for message in snapshot.read_to_end():
        if dict(message.headers() or ())["ce_type"] == REQUESTED:
            request = msgspec.json.decode(message.value() or b"", type=MatchRequest)
            found.setdefault(request.song_id, (message.timestamp()[1] / 1000, vectors.unpack(request.vector)[0]))
    snapshot.close()
    return found


def figures(sent: dict[str, float], found: dict[str, tuple[float, str]], published: list[float]) -> dict[str, object]:
    """Latencies in ms, by whether a swap was going on when the song was uploaded."""
    spaces = [space for _, space in found.values()]
    swaps = []
    for at in published:
        before = next(space for when, space in reversed(sorted(found.values())) if when <= at)
        done = min((when for when, space in found.values() if when > at and space != before), default=at)
        swaps.append((at, done))
    parts: dict[str, list[float]] = {"apart": [], "during": [], "after": []}
    # The first uploads pay for the group's start.
    for song, at in list(sent.items())[20:]:
        during = any(begin - 0.1 <= at <= end + 0.1 for begin, end in swaps)
        after = any(end < at <= end + AFTER_S for _, end in swaps)
        parts["during" if during else "after" if after else "apart"].append(1000 * (found[song][0] - at))
    start = min(sent.values())
    seconds: dict[int, float] = {}
    for song, at in sent.items():
        seconds[int(at - start)] = max(seconds.get(int(at - start), 0.0), round(1000 * (found[song][0] - at)))
    return {
        "uploads": len(sent),
        "unanswered": len(sent.keys() - found.keys()),
        "spaces": len(set(spaces)),
        "longest_ms_by_second": list(seconds.values()),
        "published_at_s": [round(at - start, 1) for at in published],
        "swap_s": [round(end - begin, 2) for begin, end in swaps],
        "latency_ms": {
            name: {"n": len(values)} | {f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 99, 100)}
            for name, values in parts.items()
            if values
        },
    }


if __name__ == "__main__":
    main()
