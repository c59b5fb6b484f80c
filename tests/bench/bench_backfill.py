"""Backfill at scale: listens a second, sent and from end to end, and the digest after a kill in the middle.

    python -m tests.bench.bench_backfill --listens 2000000 --kill

A broker, a model, and audience workers as processes; each user heard 50 of the model's songs. With --kill the same
history is loaded a second time into another installation by a process that gets SIGKILL half-way and is started again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from streams.contract.topics import OPERATIONS
from streams.kafka.compacted_topic import Snapshot
from streams.operations.backfill import AggregatedHistory, load, wait_until_consumed
from streams.operations.state_digest import digest
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.chaos.environment import Environment, set_up
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition

CLOCK = SystemClock()
HEARD = 50


def history(listens: int, songs: tuple[str, ...]) -> AggregatedHistory:
    rng, users = np.random.default_rng(1), listens // HEARD
    shift = rng.integers(0, len(songs), (users, 1), dtype=np.int32)
    heard = (shift + np.arange(HEARD, dtype=np.int32) * 7) % len(songs)
    times = rng.integers(1_690_000_000, 1_700_000_000, heard.size)
    starts = np.arange(users + 1, dtype=np.int64) * HEARD
    ids = tuple(f"user-{number}" for number in range(users))
    return AggregatedHistory(ids, songs, starts, heard.ravel(), rng.geometric(0.3, heard.size), times)


def send(here: Environment, listens: int) -> None:
    found = load(here.kafka, here.naming, CLOCK, history(listens, tuple(here.warm)))
    print(f"sent {found.sent:,} after {found.before:,} in {found.seconds:.1f} s: {found.sent / found.seconds:,.0f}/s")


def run(kafka: EmbeddedKafka, folder: Path, listens: int, workers: int, kill: bool) -> list[str]:
    reach = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    name = "killed" if kill else "whole"
    (folder / name).mkdir()
    here = set_up(reach, f"{name}.", folder / name, world=folder)
    try:
        for slot in range(workers):
            here.start(f"audience-{slot}", "audience", "--slot", str(slot))
        here.wait_until_ready()
        wait_until_consumed(here.kafka, here.naming, CLOCK, lambda *_: None)
        fill(here, listens, kill)
    finally:
        here.stop()

    def new(number: int) -> Partition:
        return Partition(number, here.naming.audience_partitions, Catalogue(), TargetingConfig())

    found = [digest(here.kafka, here.naming, p, CLOCK, new) for p in sorted(here.partitions)]
    return [each.digest for each in found if each]


def fill(here: Environment, listens: int, kill: bool) -> None:
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    sender = context.Process(target=send, args=(here_without_workers(here), listens))
    sender.start()
    if kill:
        while sent(here) < listens // 2:
            time.sleep(0.2)
        os.kill(sender.pid or 0, signal.SIGKILL)
        sender.join()
        print(f"killed after {sent(here):,} of {listens:,}", flush=True)
        sender = context.Process(target=send, args=(here_without_workers(here), listens))
        sender.start()
    sender.join()
    wait_until_consumed(here.kafka, here.naming, CLOCK, lambda *_: None)
    seconds = time.monotonic() - started
    print(f"{listens:,} listens from end to end in {seconds:.1f} s: {listens / seconds:,.0f}/s", flush=True)


def here_without_workers(here: Environment) -> Environment:
    """What a process can be handed."""
    return Environment(here.kafka, here.naming, [], (), {}, here.folder, warm=here.warm)


def sent(here: Environment) -> int:
    snapshot = Snapshot(here.kafka, [here.naming.name(OPERATIONS)], CLOCK)
    try:
        notes = [msgspec.json.decode(message.value() or b"{}") for message in snapshot.read_to_end()]
    finally:
        snapshot.close()
    return int(notes[-1]["done"]) if notes else 0


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--listens", type=int, default=2_000_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--kill", action="store_true")
    options.add_argument("--folder", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name, EmbeddedKafka(Path(name) / "broker") as kafka:
        folder = Path(name)
        whole = run(kafka, folder, chosen.listens, chosen.workers, kill=False)
        print("digests", *whole)
        if chosen.kill:
            killed = run(kafka, folder, chosen.listens, chosen.workers, kill=True)
            print("the same digests" if killed == whole else f"other digests: {killed}")


if __name__ == "__main__":
    main()
