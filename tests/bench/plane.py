"""What is the bench of the audience plane made of: topics with records, and workers that say how fast they are.

    python plane.py BOOTSTRAP PREFIX SLOT PARTITIONS COUNT METRIC [--await PARTITIONS] [--profile FILE]

runs one audience worker in this process until ``METRIC`` has counted ``COUNT`` records or nothing came for 3 s, and
prints one line of JSON: each commit, as :class:`Point`. With ``--await`` it
says so when it holds so many partitions, and begins when it is told a line: several begin together.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from streams.audience.catalogue_sync import CatalogueSync
from streams.audience.gc_tuning import tune_gc
from streams.audience.local_store import LocalStores
from streams.audience.main import changelog_identity, targeting_config
from streams.audience.worker import Worker
from streams.audience.worker_context import WorkerContext
from streams.contract import vector_codec
from streams.contract.cloudevents import pack
from streams.contract.events import Listen
from streams.contract.internal_events import LiveModel, MatchRequest, Neighbour, WarmSong
from streams.contract.topics import AUDIENCE_STATE, AUDIENCE_VECTORS, MATCH_REQUESTS, MODELS, WARM_SONGS, Naming, Topic
from streams.kafka.clients import admin, producer
from streams.kafka.partitioner import partitions_of
from streams.kafka.topic_admin import create_topics
from streams.models.registry import ENCODER, LiveView
from streams.runtime.clock import SystemClock
from streams.runtime.health import Heartbeat, Readiness
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, KafkaSettings
from targeting.arrays.id_table import hash64
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.types import F32, PartitionInputs
from targeting.users.history_record import HEARD

D = 128
SPACE = "bench"
CLOCK = SystemClock()


@dataclass(frozen=True)
class Installation:
    """All topics under a prefix of their own."""

    kafka: KafkaSettings
    naming: Naming

    @classmethod
    @contextmanager
    def made(cls, bootstrap: str, prefix: str, partitions: int = 4) -> Iterator[Installation]:
        """Topics that are there while the block runs."""
        kafka, naming = KafkaSettings(bootstrap_servers=bootstrap), Naming(prefix, partitions, 1)
        client: AdminClient = admin(kafka)
        create_topics(client, naming, 1)
        try:
            yield cls(kafka, naming)
        finally:
            present = [name for name in client.list_topics(timeout=10).topics if name.startswith(prefix)]
            for future in client.delete_topics(present).values():
                future.result(30)

    def send(
        self, topic: Topic, records: Iterable[tuple[bytes, bytes | None, list[tuple[str, bytes]]]], at: int = -1
    ) -> int:
        """Hand over records of (key, value, headers) and wait for all acknowledgements; how many."""
        # Noise does not compress: vectors are sent as they are.
        sender = producer(self.kafka) if topic is not AUDIENCE_VECTORS else Producer(
            self.kafka.confluent() | {"partitioner": "murmur2_random", "linger.ms": 5}
        )  # fmt: skip
        name, count = self.naming.name(topic), 0
        for count, (key, value, headers) in enumerate(records, 1):  # noqa: B007
            while True:
                try:
                    sender.produce(name, value, key, at, headers=[*headers])
                    break
                except BufferError:
                    sender.poll(0.05)
        if sender.flush(300):
            raise SystemExit(f"{name}: records were not acknowledged")
        return count


def units(rng: np.random.Generator, n: int, d: int = D) -> F32:
    rows = rng.standard_normal((n, d), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def publish(here: Installation, songs: int) -> F32:
    """A model without an artifact, and its warm songs: enough for the audience role."""
    rows = units(np.random.default_rng(0), songs)
    now = CLOCK.now()

    def records() -> Iterator[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
        for number, row in enumerate(rows):
            song = WarmSong(song_id=f"song-{number}", space=SPACE, vector=vector_codec.pack(SPACE, row))
            record = pack(song, id=f"w-{number}", source="bench", time=now)
            yield record.key, record.value, record.headers

    here.send(WARM_SONGS, records())
    model = LiveModel(
        name=ENCODER, uri="file:///none", manifest_sha256="0", space=SPACE, dim=D, warm_songs=songs,
        published_at=datetime.fromtimestamp(now, UTC),
    )  # fmt: skip
    record = pack(model, id=SPACE, source="bench", time=now)
    here.send(MODELS, [(record.key, record.value, record.headers)])
    return rows


def outside(count: int, users: int, seed: int = 1) -> Iterator[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """Vectors of users in any order."""
    rng = np.random.default_rng(seed)
    head = vector_codec.pack(SPACE, np.zeros(D, np.float32))[:40]
    for start in range(0, count, 10_000):
        n = min(10_000, count - start)
        packed = units(rng, n).tobytes()
        for at, user in enumerate(rng.integers(0, users, n).tolist()):
            yield b"user-%09d" % user, head + packed[at * 4 * D : (at + 1) * 4 * D], []


def listens(count: int, users: int, songs: int) -> Iterator[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """Listens of users in sessions of ten, as many at once as there are users in a hundred; some songs much oftener."""
    rng = np.random.default_rng(2)
    at_once = max(1, users // 100)
    now, sent = CLOCK.now() - 86_400, 0
    while sent < count:
        who = rng.choice(users, at_once, replace=False)
        for _ in range(10):
            heard = np.minimum((songs * rng.random(at_once) ** 2.5).astype(np.int64), songs - 1)
            for user, song in zip(who.tolist(), heard.tolist(), strict=True):
                if sent == count:
                    return
                when = now + sent * 0.01
                event = Listen(
                    listen_id=f"l-{sent}", user_id=f"user-{user:09d}", song_id=f"song-{song}", source="organic",
                    played_at=datetime.fromtimestamp(when, UTC), ms_played=181_000, completed=True,
                )  # fmt: skip
                record = pack(event, id=event.listen_id, source="bench", time=when)
                yield record.key, record.value, record.headers
                sent += 1


def histories(
    users: int, songs: int, heard: int, seed: int, ids: list[str] | None = None, of: int = 1
) -> Iterator[tuple[bytes, bytes]]:
    """Changelog records of users with so many songs each, who belong in partition ``seed`` of ``of``; popular songs by
    a power law."""
    keys = residents(seed, of)
    rng = np.random.default_rng(seed)
    hashes = hash64(ids or [f"song-{number}" for number in range(songs)])
    for start in range(0, users, 10_000):
        n = min(10_000, users - start)
        entries = np.zeros((n, heard), HEARD)
        # Distinct songs: a start by popularity, and strides through the catalogue from there.
        first = np.minimum((songs * rng.random(n) ** 1.5).astype(np.int64), songs - 1)[:, None]
        entries["song"] = hashes[(first + np.arange(heard) ** 2 * 7) % songs]
        entries["weight"], entries["time"] = 1, CLOCK.now() - 86_400
        packed, size = entries.tobytes(), heard * HEARD.itemsize
        for at, key in enumerate(islice(keys, n)):
            yield b"u" + key, b"\x01" + packed[at * size : (at + 1) * size]


def residents(partition: int, of: int) -> Iterator[bytes]:
    """Ids of users who belong in a partition, ascending."""
    for start in count(0, 10_000):
        some = [b"user-%03d-%07d" % (partition, start + number) for number in range(10_000)]
        for at in np.flatnonzero(partitions_of(some, of) == partition % of).tolist():
            yield some[at]


def preload(here: Installation, users: int, songs: int, heard: int = 50, ids: list[str] | None = None) -> None:
    """The changelog of an installation whose users have listened before; ``users`` over all partitions."""
    of = here.naming.audience_partitions
    for number in range(of):
        empty = Partition(number, of, Catalogue())
        head = [(key, value) for key, value in empty.stage(PartitionInputs(CLOCK.now())).outputs.changelog]

        def records(number: int = number, head: list[tuple[bytes, bytes | None]] = head):  # type: ignore[no-untyped-def]
            for key, value in head:
                yield key, value, []
            for key, value in histories(users // of, songs, heard, number, ids, of):
                yield key, value, []
            yield b"o", b"{}", []

        here.send(AUDIENCE_STATE, records(), number)


def request(
    number: int, rows: F32, budget: int = 1000, life_s: float = 28 * 86_400.0
) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """A song that lies beside one of the catalogue's, with the songs around that one as its neighbours."""
    rng = np.random.default_rng(number)
    now = CLOCK.now()
    around = rng.integers(0, len(rows), 50).tolist()
    own = rows[rng.integers(len(rows))] + 0.1 * rng.standard_normal(D).astype(np.float32)
    own = (own / np.linalg.norm(own)).astype(np.float32)
    event = MatchRequest(
        song_id=f"new-{number}", revision=1, recording=f"new-{number}", title="t", artist_ids=[f"artist-{number}"],
        vector=vector_codec.pack(SPACE, own), budget=budget,
        neighbours=[Neighbour(f"song-{song}", 0.9 - 0.01 * n) for n, song in enumerate(around)],
        uploaded_at=datetime.fromtimestamp(now, UTC), expires_at=datetime.fromtimestamp(now + life_s, UTC),
    )  # fmt: skip
    record = pack(event, ce_type=MatchRequest.REQUESTED, id=f"new-{number}", source="bench", time=now)
    return record.key, record.value, record.headers


def requests(here: Installation, count: int, rows: F32, budget: int = 1000) -> None:
    """The same songs ask every partition."""
    made = [request(number, rows, budget) for number in range(count)]
    for partition in range(here.naming.audience_partitions):
        here.send(MATCH_REQUESTS, made, partition)


class Alone:
    """One audience worker in this process."""

    def __init__(
        self, here: Installation, slot: int, folder: Path | None, config: TargetingConfig | None = None
    ) -> None:
        tune_gc()
        self.registry = CollectorRegistry()
        self.metrics = AudienceMetrics(self.registry)
        self.view = LiveView(here.kafka, here.naming, CLOCK)
        self.songs = Catalogue()
        self.states: dict[int, Partition] = {}
        decides, of = config or targeting_config(AudienceSettings(), obey=True), here.naming.audience_partitions

        def new_partition(number: int) -> Partition:
            self.states[number] = Partition(number, of, self.songs, decides)
            return self.states[number]

        stores = LocalStores(folder or Path("/dev/null"), changelog_identity(here.kafka, here.naming), CLOCK)
        settings = AudienceSettings(start_wait_s=600)
        self.worker = Worker(
            WorkerContext(here.kafka, here.naming, settings, CLOCK, self.metrics, Heartbeat(CLOCK, 60)),
            slot,
            CatalogueSync(self.view, self.songs, settings.objective),
            new_partition,
            stores,
            Readiness().condition("restored", "not yet"),
        )

    def total(self, name: str) -> float:
        """What a counter says, over all its labels."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == f"coldstart_{name}_total"
        )

    def close(self) -> None:
        self.worker.close()
        self.view.close()


class Point(NamedTuple):
    """A commit: monotonic seconds, records committed by then, seconds that the machine's cores have worked."""

    at: float
    done: float
    worked: float


def series(alone: Alone, metric: str, count: int, patience_s: float = 3.0) -> list[Point]:
    """Each commit, until there are as many records or nothing comes any more."""
    counter = getattr(alone.metrics, metric)
    points: list[Point] = []
    last = 0.0
    deadline = time.monotonic() + 60.0
    while last < count and time.monotonic() < deadline:
        alone.worker.round()
        children = counter._metrics.values() if counter._labelnames else [counter]
        now = sum(child._value.get() for child in children)
        if now > last:
            last = now
            cores = psutil.cpu_times()
            points.append(Point(time.monotonic(), now, cores.user + cores.system))
            deadline = points[-1].at + patience_s
    return points


def rate(points: list[Point]) -> float:
    """Records a second, from the first commit to the last: what came before was joining and fetching."""
    return (points[-1].done - points[0].done) / (points[-1].at - points[0].at)


def busy(points: list[Point]) -> float:
    """How many of the machine's cores worked, from the first commit to the last; whoever it was for."""
    return (points[-1].worked - points[0].worked) / (points[-1].at - points[0].at)


def rate_together(all_points: list[list[Point]]) -> float:
    """Records a second of several workers, while all of them were at work.

    Raises:
        SystemExit: one was done before another began.
    """
    start = max(points[0].at for points in all_points)
    end = min(points[-1].at for points in all_points)
    if end <= start:
        raise SystemExit("the workers were never at work together: give them more records")
    total = 0.0
    for points in all_points:
        at, done, _ = np.array(points).T
        total += float(np.interp(end, at, done) - np.interp(start, at, done))
    return total / (end - start)


def worker_process(here: Installation, slot: int, count: int, metric: str, waits_for: int = 0) -> subprocess.Popen[str]:
    """A worker of this file in a process of its own; ``waits_for``: see :func:`together`."""
    more = ["--await", str(waits_for)] if waits_for else []
    return subprocess.Popen(
        [
            sys.executable, __file__, here.kafka.bootstrap_servers, here.naming.prefix, str(slot),
            str(here.naming.audience_partitions), str(count), metric, *more,
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def together(workers: list[subprocess.Popen[str]], first: Callable[[], object]) -> None:
    """Workers that wait begin at once, after all hold what they wait for and ``first`` is done."""
    for each in workers:
        assert each.stdout
        each.stdout.readline()
    first()
    for each in workers:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()


def points_of(process: subprocess.Popen[str]) -> list[Point]:
    said, _ = process.communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"a worker ended with code {process.returncode}")
    return msgspec.json.decode(said.splitlines()[-1], type=list[Point])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap")
    parser.add_argument("prefix")
    for name in ("slot", "partitions", "count"):
        parser.add_argument(name, type=int)
    parser.add_argument("metric")
    parser.add_argument("--await", type=int, dest="awaited", metavar="PARTITIONS")
    parser.add_argument("--profile", type=Path)
    asked = parser.parse_args()
    from streams.runtime.logging import set_up_logs

    set_up_logs("bench", "WARNING")
    here = Installation(KafkaSettings(bootstrap_servers=asked.bootstrap), Naming(asked.prefix, asked.partitions, 1))
    with tempfile.TemporaryDirectory() as folder:
        alone = Alone(here, asked.slot, Path(folder))
        if asked.awaited:
            while len(alone.worker.partitions) != asked.awaited:
                alone.worker.round()
            print(f"holds {asked.awaited}", flush=True)
            sys.stdin.readline()
        profile = cProfile.Profile(time.thread_time) if asked.profile else None
        if profile:
            profile.enable()
        points = series(alone, asked.metric, asked.count)
        if profile:
            profile.disable()
            with asked.profile.open("w") as file:
                pstats.Stats(profile, stream=file).sort_stats("tottime").print_stats(45)
        print(json.dumps(points), flush=True)
        alone.close()


if __name__ == "__main__":
    main()
