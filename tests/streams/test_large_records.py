"""Memory under records of 5 MB that compression brings under every limit, by the thousand."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from test_million import Answers

from streams.contract.cloudevents import Record, pack
from streams.contract.dead_letters import headers
from streams.contract.events import Listen, SongUpload
from streams.contract.topics import DEAD_LETTERS, LISTENS, SONG_UPLOADS, Topic
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import set_up

COUNT, BYTES = 2_000, 5_000_000
# Both topics hold 10 GB. The songs role takes some 240 MB without records, and keeps 2 MiB of each of those that wait:
# 64 polled, 64 in Faust's stream, 64 taken. The audience role's client unpacks what a fetch of 32 KiB brings, at zstd's
# best 70 records of 5 MB, of two partitions. Both read the first record that waits, to tell its age. Seen: 280 to 336
# and 842 to 1,100 MB; beside other work, when more of it is full at once, 491 to 535 and 1,237 MB.
LARGEST_MB = {"songs": 700.0, "audience": 1400.0}


def example(cls: type[Listen] | type[SongUpload]) -> Record:
    """The contract's example of an event."""
    event = msgspec.json.decode(cls.EXAMPLE.encode(), type=cls)
    return pack(event, ce_type=cls.TYPES[0], id="1", source="test", time=time.time())


def peak_mb(pid: int) -> float:
    """The most that a process ever had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.long
@pytest.mark.kafka
def test_thousands_of_records_of_5_megabytes_take_a_bounded_memory(kafka: KafkaSettings, tmp_path: Path) -> None:
    never = {"stop_at_bad_share": 0}
    reach = kafka
    stage = set_up(reach, "large.", tmp_path, 2, settings={"songs": never, "audience": never})
    stage.patience_s = 600.0
    more = {"compression.type": "zstd", "message.max.bytes": 2 * BYTES, "queue.buffering.max.kbytes": 65_536}
    sender = Producer(reach.confluent() | more | {"partitioner": "murmur2_random"})

    def send(topic: Topic, good: Record) -> None:
        value = good.value[:-1] + b',"note":"' + b"x" * BYTES + b'"}'
        for number in range(COUNT):
            while True:
                try:
                    sender.produce(stage.naming.name(topic), value, str(number), headers=list(good.headers))
                except BufferError:
                    sender.poll(0.1)
                else:
                    break
        assert sender.flush(120) == 0

    # They are there before the roles are: nothing is further behind.
    send(LISTENS, example(Listen))
    send(SONG_UPLOADS, example(SongUpload))
    answers = Answers(stage)
    try:
        stage.start("songs", "songs")
        stage.start("audience", "audience", "--slot", "0")
        started = time.monotonic()
        pids = [worker.pid for worker in stage.workers]
        good = stage.songs[:2]
        stage.upload(good)
        stage.wait_until_answered(answers.of, [song.song_id for song in good])
        stage.wait_until_still()
        seconds = time.monotonic() - started
        assert [worker.pid for worker in stage.workers] == pids
        peaks = {worker.name: peak_mb(worker.pid) for worker in stage.workers}
    finally:
        stage.stop()
        answers.close()
    said: Counter[tuple[str, str]] = Counter()
    letters = Snapshot(reach, [stage.naming.name(DEAD_LETTERS)], SystemClock())
    for letter in letters.read_to_end():
        found = dict(headers(letter))
        said[(found["dl_topic"] or b"").decode(), (found["dl_error"] or b"").decode()] += 1
    letters.close()
    print(f"{2 * COUNT:,} records in {seconds:.0f} s, peaks {peaks}", flush=True)
    assert said == {(stage.naming.name(topic), "TooLarge"): COUNT for topic in (LISTENS, SONG_UPLOADS)}
    assert {name: peak for name, peak in peaks.items() if peak > LARGEST_MB[name]} == {}
