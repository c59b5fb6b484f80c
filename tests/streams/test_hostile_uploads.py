"""Hostile uploads among good ones, on the running songs role: each is answered or buried; nothing grows or stops."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import msgspec
import psutil
import pytest
from confluent_kafka import Producer
from hostile_traffic import Traffic

from streams.contract.cloudevents import Record, unpack
from streams.contract.dead_letters import headers
from streams.contract.events import SongUpload
from streams.contract.topics import DEAD_LETTERS, MATCH_REQUESTS, SONG_UPLOADS, Topic
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.dataset_events import upload_record

GOOD = int(os.environ.get("HOSTILE_GOOD", "10000"))
HOSTILE = 10 * GOOD
PIECES = 20
# What the role may grow by between the first fifth of the records and the last: buffers, and the ledger of the songs.
GROWTH_MB = 120.0


def read(stage: Environment, topic: Topic) -> Snapshot:
    return Snapshot(stage.kafka, [stage.naming.name(topic)], SystemClock())


@pytest.mark.long
@pytest.mark.kafka
def test_each_hostile_upload_is_answered_or_buried_once_and_no_good_one_is_lost(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    reach = kafka
    stage = set_up(reach, "hostile.", tmp_path, 2, settings={"songs": {"stop_at_bad_share": 0}})
    model = msgspec.json.decode((stage.models[0] / "manifest.json").read_bytes())
    traffic = Traffic(5, time.time, (model["space"], model["dim"]), wrong=1.0, uploads=2000)
    choice = random.Random(5)
    sender = Producer(
        stage.kafka.confluent() | {"partitioner": "murmur2_random", "linger.ms": 20, "enable.idempotence": True}
    )
    topic = stage.naming.name(SONG_UPLOADS)

    def send(record: Record | tuple[bytes | None, bytes | None, object]) -> None:
        key, value, more = (record.key, record.value, record.headers) if isinstance(record, Record) else record
        while True:
            try:
                sender.produce(topic, value, key, headers=more)
            except BufferError:
                sender.poll(0.1)
            else:
                sender.poll(0)
                return

    seen: list[float] = []
    good = [f"good-{number}" for number in range(GOOD)]
    try:
        stage.start("songs", "songs")
        stage.wait_until_ready()
        (worker,) = stage.workers
        pid, started = worker.pid, time.monotonic()
        for piece in range(PIECES):
            todo: list[str | None] = [*good[piece::PIECES], *[None] * (HOSTILE // PIECES)]
            choice.shuffle(todo)
            for name in todo:
                if name is None:
                    send(traffic.of(SONG_UPLOADS))
                else:
                    song = msgspec.structs.replace(choice.choice(stage.songs), song_id=name, expires_at=None)
                    send(upload_record(msgspec.structs.replace(song, available_from=None), time.time()))
            # Never further ahead than a piece, so that memory is measured at work and not in a queue.
            assert sender.flush(120) == 0
            stage.wait_until_still()
            seen.append(psutil.Process(worker.pid).memory_info().rss / 2**20)
            print(
                f"{(piece + 1) * len(todo):9,} uploads, {time.monotonic() - started:5.0f} s, {seen[-1]:.0f} MB",
                flush=True,
            )
        assert worker.pid == pid
    finally:
        stage.stop()
    letters, reasons, buried = read(stage, DEAD_LETTERS), Counter[str](), dict[tuple[int, int], tuple[object, ...]]()
    for letter in letters.read_to_end():
        said = {name: value for name, value in headers(letter) if name.startswith("dl_")}
        place = int(said["dl_partition"] or 0), int(said["dl_offset"] or 0)
        assert place not in buried
        assert said["dl_message"]
        reasons[(said["dl_error"] or b"").decode()] += 1
        whole = "dl_value_size" not in said
        buried[place] = (letter.key(), letter.value()) if whole else ()
    requests = read(stage, MATCH_REQUESTS)
    asked = Counter((each.key(), each.partition()) for each in requests.read_to_end())
    uploads, answered = read(stage, SONG_UPLOADS), 0
    for each in uploads.read_to_end():
        place = each.partition() or 0, each.offset() or 0
        if place in buried:
            # Byte for byte.
            assert buried[place] in ((each.key(), each.value()), ())
            assert not (each.key() or b"").startswith(b"good-")
            continue
        event = unpack(SongUpload, each.key(), each.value(), headers(each), each.timestamp()[1] / 1000).event
        assert all(asked[event.song_id.encode(), partition] for partition in stage.partitions), event.song_id
        answered += 1
    for snapshot in (letters, requests, uploads):
        snapshot.close()
    print(f"{answered:,} answered, {len(buried):,} buried: {dict(reasons.most_common())}", flush=True)
    assert answered + len(buried) == GOOD + HOSTILE
    assert len(buried) > HOSTILE / 2
    assert seen[-1] < max(seen[: PIECES // 5]) + GROWTH_MB, [round(each) for each in seen]
