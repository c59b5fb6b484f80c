"""What a partition costs: bytes a user, listens a second, a request with 20,000 candidates, restoring.

    python tests/bench/bench_targeting.py --users 250000 --partitions 1

Times are CPU seconds of the one thread, which other load on the machine disturbs least; run it with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator

import numpy as np

from targeting.arrays.id_table import hash64
from targeting.calibration import Calibration
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition
from targeting.types import F32, Listens, Match, PartitionInputs

D, SONGS, HEARD = 128, 50_000, 50
NOW = 1_700_000_000.0


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def popular(rng: np.random.Generator, n: int) -> np.ndarray:
    """Songs by a power law: the first ones have most of the listeners."""
    return np.minimum((SONGS * rng.random(n) ** 2.5).astype(np.int64), SONGS - 1)


def records(users: int, hashes: np.ndarray) -> Iterator[tuple[bytes, bytes]]:
    """The changelog of users with 50 songs each."""
    from targeting.users.history_record import HEARD as ENTRY

    rng = np.random.default_rng(1)
    for start in range(0, users, 10_000):
        n = min(10_000, users - start)
        entries = np.zeros((n, HEARD), ENTRY)
        # Distinct songs: a random start and strides through the catalogue, popular ones more often.
        first = popular(rng, n)[:, None]
        entries["song"] = hashes[(first + np.arange(HEARD) ** 2 * 7) % SONGS]
        entries["weight"], entries["time"] = 1, NOW
        for i in range(n):
            yield b"uuser-%09d" % (start + i), b"\x01" + entries[i].tobytes()


def request(vectors: F32, neighbours: np.ndarray, number: int) -> Match:
    return Match(
        f"new-{number}", 1, f"new-{number}", "", (), "bench", vectors[neighbours[0]],
        tuple(f"song-{i}" for i in neighbours), np.linspace(0.9, 0.4, len(neighbours)).astype(np.float32),
        1000, NOW, NOW + 1e6,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=250_000)
    parser.add_argument("--partitions", type=int, default=1, help="held here, with a share of the users each")
    parser.add_argument("--of", type=int, default=4, help="partitions in all, which share a song's budget")
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--activity", type=float, default=0.25, help="its power in scores")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    figures: dict[str, float] = {}

    songs = Catalogue()
    ids = [f"song-{i}" for i in range(SONGS)]
    vectors = rng.standard_normal((SONGS, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    songs.set_vectors("bench", ids, vectors)
    songs.calibration = Calibration((0.0, 1.0), (0.0, 1.0), options.activity)
    hashes = hash64(ids)
    before = resident_mb()

    share = options.users // options.partitions
    spent = 0.0
    held = []
    for number in range(options.partitions):
        partition = Partition(number, options.of, songs)
        started = time.thread_time()
        count = sum(1 for _ in records(share, hashes))
        middle = time.thread_time()
        partition.restore(records(count, hashes))
        # Making the records is no part of it.
        spent += (time.thread_time() - middle) - (middle - started)
        held.append(partition)
    figures["restore_s"] = spent
    figures["bytes_a_user"] = (resident_mb() - before) * 1e6 / options.users
    figures["resident_mb"] = resident_mb()

    # Listens of known users, mostly of songs new to them.
    partition, seconds, n = held[0], [], options.batch
    for _ in range(60):
        users, heard = rng.integers(0, share, n), popular(rng, n)
        listens = Listens(
            [f"user-{i:09d}" for i in users], [f"song-{i}" for i in heard],
            np.ones(n, np.float32), np.full(n, NOW),
        )  # fmt: skip
        started = time.thread_time()
        staged = partition.stage(PartitionInputs(NOW, listens=listens))
        middle = time.thread_time()
        partition.apply(staged)
        seconds.append((middle - started, time.thread_time() - middle))
    stage, apply = np.median(seconds, axis=0)
    figures["listens_per_s"] = n / (stage + apply)
    figures["listens_stage_us"], figures["listens_apply_us"] = stage / n * 1e6, apply / n * 1e6
    figures["changelog_bytes_a_listen"] = sum(len(v or b"") for _, v in staged.outputs.changelog) / n

    took, candidates = [], []
    for number in range(40):
        # Songs of about the popularity that makes 20,000 candidates.
        slots = songs.slots(ids)
        lengths, _ = partition._state.histories.listeners(slots[::50])
        around = int(np.argmin(np.abs(lengths - 20_000 / 50))) * 50
        neighbours = (around + rng.permutation(2000)[:50]) % SONGS
        match = request(vectors, neighbours, number)
        started = time.thread_time()
        staged = partition.stage(PartitionInputs(NOW, commands=[match]))
        took.append(time.thread_time() - started)
        candidates.append(staged.outputs.accounts[0].counts.candidates)
        partition.apply(staged)
    figures["candidates"] = float(np.median(candidates))
    figures["request_ms_p50"], figures["request_ms_p99"] = (np.percentile(took, [50, 99]) * 1e3).tolist()
    started = time.thread_time()
    partition.digest()
    figures["digest_s"] = time.thread_time() - started
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
