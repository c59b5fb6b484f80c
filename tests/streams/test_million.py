"""A million hostile records on every input topic of both roles, as processes on a real broker: none of them stops."""

from __future__ import annotations

import os
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import psutil
import pytest
from confluent_kafka import Producer
from hostile_traffic import Traffic

from streams.contract.dead_letters import headers
from streams.contract.internal_events import CampaignReport
from streams.contract.topics import (
    AUDIENCE_VECTORS,
    CAMPAIGN_REPORTS,
    DEAD_LETTERS,
    LISTENS,
    MATCH_REQUESTS,
    PREFERENCES,
    PUSH_OUTCOMES,
    PUSH_TARGETS,
    SONG_UPLOADS,
    WARM_SONGS,
)
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import Environment, set_up

EVENTS = int(os.environ.get("HOSTILE_EVENTS", "1000000"))
SHARES = {
    LISTENS: 46, PUSH_OUTCOMES: 16, PREFERENCES: 12, AUDIENCE_VECTORS: 14, SONG_UPLOADS: 6, CAMPAIGN_REPORTS: 3,
    MATCH_REQUESTS: 2, WARM_SONGS: 1,
}  # fmt: skip
PIECES = 20
# What a role may grow by between the first fifth of the records and the last: buffers of clients and of the allocator.
GROWTH_MB = 120.0


def megabytes(stage: Environment) -> dict[str, float]:
    return {worker.name: psutil.Process(worker.pid).memory_info().rss / 2**20 for worker in stage.workers}


class Answers:
    """Which partitions answered for which song; hostile reports stand beside the true ones."""

    def __init__(self, stage: Environment) -> None:
        self._reports = Snapshot(stage.kafka, [stage.naming.name(CAMPAIGN_REPORTS)], SystemClock())
        self._found: dict[str, set[int]] = defaultdict(set)

    def of(self, song_id: str) -> set[int]:
        for message in self._reports.poll(0.0):
            try:
                report = msgspec.json.decode(message.value() or b"", type=CampaignReport)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            self._found[report.song_id].add(report.partition)
        return self._found[song_id]

    def close(self) -> None:
        self._reports.close()


@pytest.mark.long
@pytest.mark.kafka
def test_a_million_hostile_records_stop_no_role_and_leave_memory_flat(kafka: KafkaSettings, tmp_path: Path) -> None:
    never = {"stop_at_bad_share": 0}
    stage = set_up(
        kafka, "million.", tmp_path, 2,
        settings={"songs": never, "audience": {**never, "cap_pushes": 1000, "artist_cap_pushes": 1000}},
    )  # fmt: skip
    model = msgspec.json.decode((stage.models[0] / "manifest.json").read_bytes())
    # Songs of its own: what it says of a song must not outdate the good uploads.
    traffic = Traffic(17, time.time, (model["space"], model["dim"]), users=2000, songs=300, song="h")
    choice, names = random.Random(17), stage.naming
    topics = list(SHARES)
    sender = Producer(stage.kafka.confluent() | {"partitioner": "murmur2_random", "linger.ms": 20})
    answers = Answers(stage)
    sent: Counter[str] = Counter()
    seen: list[dict[str, float]] = []
    good = stage.songs[: 2 * PIECES]
    try:
        stage.start("songs", "songs")
        stage.start("audience", "audience", "--slot", "0")
        stage.wait_until_ready()
        pids = [worker.pid for worker in stage.workers]
        started = time.monotonic()
        for piece in range(PIECES):
            for topic in choice.choices(topics, list(SHARES.values()), k=EVENTS // PIECES):
                key, value, more = traffic.of(topic)
                partition = choice.randrange(names.partitions(topic)) if topic is MATCH_REQUESTS else -1
                while True:
                    try:
                        sender.produce(names.name(topic), value, key, partition, headers=more)
                    except BufferError:
                        sender.poll(0.1)
                    else:
                        break
                sent[topic.name] += 1
                sender.poll(0)
            stage.upload(good[2 * piece : 2 * piece + 2])
            # Never further ahead than a piece, so that memory is measured at work and not in a queue.
            assert sender.flush(120) == 0
            stage.wait_until_answered(answers.of, [song.song_id for song in good[: 2 * piece + 2]])
            seen.append(megabytes(stage))
            print(f"{sum(sent.values()):9,} records, {time.monotonic() - started:5.0f} s, {seen[-1]}", flush=True)
        stage.wait_until_still()
        assert [worker.pid for worker in stage.workers] == pids
        assert not any(worker.readiness() for worker in stage.workers)
    finally:
        stage.stop()
        answers.close()
    dead = Snapshot(stage.kafka, [names.name(DEAD_LETTERS)], SystemClock())
    places: Counter[tuple[bytes | None, ...]] = Counter()
    reasons: Counter[str] = Counter()
    for letter in dead.read_to_end():
        said = dict(headers(letter))
        places[said["dl_topic"], said["dl_partition"], said["dl_offset"]] += 1
        reasons[f"{(said['dl_stage'] or b'').decode()} {(said['dl_error'] or b'').decode()}"] += 1
    dead.close()
    print({topic: count for topic, count in sent.most_common()}, dict(reasons.most_common()), flush=True)
    assert [place for place, count in places.items() if count > 1] == []
    assert len(places) > EVENTS / 10
    pushes = Snapshot(stage.kafka, [names.name(PUSH_TARGETS)], SystemClock())
    ids = Counter(msgspec.json.decode(push.value() or b"")["push_id"] for push in pushes.read_to_end())
    pushes.close()
    assert [id for id, count in ids.items() if count > 1] == []
    assert len(ids) > PIECES
    for worker in seen[0]:
        early = max(each[worker] for each in seen[: PIECES // 5])
        assert seen[-1][worker] < early + GROWTH_MB, (worker, [round(each[worker]) for each in seen])
