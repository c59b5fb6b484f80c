"""How long `coldstart explain SONG USER` takes, from the shell's view, behind many records that came since the upload.

    python -m tests.bench.bench_explain [--records 100000] [--runs 9]

Both roles answer a song; then as many match requests and as many push targets of other songs follow, made of that
song's own. All of them lie behind its upload, which is the worst case: what is older is never read.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from confluent_kafka import Message

from streams.contract.cloudevents import Record
from streams.contract.dead_letters import headers
from streams.contract.events import PushTarget
from streams.contract.topics import MATCH_REQUESTS, PUSH_TARGETS, Topic
from streams.kafka.clients import producer
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.follow import Follower


def first(here: Environment, topic: Topic, key: bytes | None) -> Message:
    """A record of the topic, with this key where one is given."""
    snapshot = Snapshot(here.kafka, [here.naming.name(topic)], SystemClock())
    try:
        return next(each for each in snapshot.read_to_end() if key is None or each.key() == key)
    finally:
        snapshot.close()


def fill(here: Environment, topic: Topic, of: Message, song: str, count: int) -> None:
    """Records like one of the song's, of other songs, in all partitions in turn."""
    value, sender = of.value() or b"", producer(here.kafka)
    for number in range(count):
        # Of the same length, so that MessagePack's stays right.
        other = f"{number:0{len(song)}d}".encode()
        key = other if of.key() == song.encode() else of.key()
        record = Record(
            key or b"", value.replace(song.encode(), other), [(name, worth or b"") for name, worth in headers(of)]
        )
        while True:
            try:
                sender.produce(
                    here.naming.name(topic), record.value, record.key, number % len(here.partitions),
                    headers=list(record.headers),
                )  # fmt: skip
                break
            except BufferError:
                sender.poll(0.05)
    sender.flush()


def seconds(here: Environment, *args: str) -> float:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "streams", "explain", *args], env={**os.environ, **here.environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    took = time.monotonic() - started
    if "not looked at" in done.stderr:
        print(done.stderr.strip(), flush=True)
    return took


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--records", type=int, default=100_000)
    options.add_argument("--runs", type=int, default=9)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedKafka(Path(name) / "broker") as kafka:
        here = set_up(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers), "bench-explain.", Path(name))
        try:
            here.start("songs", "songs")
            here.start("audience", "audience", "--slot", "0")
            here.wait_until_ready()
            song = msgspec.structs.replace(here.songs[0], song_id="song-of-this-bench")
            follower = Follower(here.kafka, here.naming)
            here.upload([song])
            here.wait_until_answered(follower.answered, [song.song_id])
            follower.close()
        finally:
            here.stop()
        push = first(here, PUSH_TARGETS, None)
        user = msgspec.json.decode(push.value() or b"", type=PushTarget).user_id
        fill(here, MATCH_REQUESTS, first(here, MATCH_REQUESTS, song.song_id.encode()), song.song_id, chosen.records)
        fill(here, PUSH_TARGETS, push, song.song_id, chosen.records)
        for args in ([song.song_id], [song.song_id, user]):
            took = sorted(seconds(here, *args) for _ in range(chosen.runs))
            print(
                f"explain {' '.join(args)}: {statistics.median(took):.2f} s "
                f"({took[0]:.2f} to {took[-1]:.2f}, {chosen.runs} runs), {chosen.records:,} of each kind",
                flush=True,
            )


if __name__ == "__main__":
    main()
