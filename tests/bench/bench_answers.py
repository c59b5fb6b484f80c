"""What it costs that answers correct chances: requests and listens with it, against ``answer_hours = 0``.

    OMP_NUM_THREADS=1 python tests/bench/bench_answers.py

Two partitions of the same users live through the same days in one process: a song an hour, of whose pushes a fifth is
answered, and a batch of listens after each. They take turns at going first. CPU time of the one thread; the
ratio is that of the sums of both, its interval the bootstrap's over rounds.
"""

from __future__ import annotations

import argparse
import time

import msgspec
import numpy as np
from bench_targeting import NOW, SONGS, D, popular, records, request

from targeting.arrays.id_table import hash64
from targeting.calibration import Calibration
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.types import Listens, PartitionInputs, PartitionOutputs

OF, BATCH, ANSWERED, NEAR = 4, 1000, 0.2, 50
# An hour each. Before the clocks count, the first pushes are judged.
ROUND_S, WARM_UP = 3600.0, 36


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--users", type=int, default=40_000)
    ask.add_argument("--rounds", type=int, default=150)
    ask.add_argument("--candidates", type=int, nargs="+", default=[20_000, 2000])
    given = ask.parse_args()
    print("| what | candidates | pushes | without ms | with ms | ratio | 95 % |\n|---|---|---|---|---|---|---|")
    for candidates in given.candidates:
        for what, (without, with_, found, pushed) in rounds(given.users, given.rounds, candidates).items():
            rng = np.random.default_rng(0)
            draws = rng.integers(0, len(with_), (2000, len(with_)))
            low, high = np.quantile(with_[draws].sum(axis=1) / without[draws].sum(axis=1), [0.025, 0.975])
            ratio = f"{with_.sum() / without.sum():.3f} | {low:.3f} to {high:.3f}"
            medians = " | ".join(f"{np.median(each) * 1e3:.2f}" for each in (without, with_))
            print(f"| {what} | {found:,.0f} | {pushed:,.0f} | {medians} | {ratio} |", flush=True)


def rounds(users: int, count: int, candidates: int) -> dict[str, tuple[np.ndarray, np.ndarray, float, float]]:
    """CPU seconds of each round without and with it, and mean numbers of candidates and pushes, by what was done."""
    rng = np.random.default_rng(0)
    songs = Catalogue()
    ids = [f"song-{i}" for i in range(SONGS)]
    vectors = rng.standard_normal((SONGS, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    songs.set_vectors("bench", ids, vectors)
    songs.calibration = Calibration((0.0, 1.0), (0.02, 0.6), 0.25)
    held = [Partition(0, OF, songs, TargetingConfig(answer_hours=hours)) for hours in (0.0, 24.0)]
    for partition in held:
        partition.restore(records(users, hash64(ids)))
    lengths, _ = held[0]._state.histories.listeners(songs.slots(ids))
    near = np.argsort(np.abs(lengths - 1.2 * candidates / NEAR), kind="stable")[: 4 * NEAR]
    took: dict[str, list[tuple[float, float]]] = {"a request": [], f"{BATCH:,} listens": []}
    found: list[tuple[int, int]] = []
    answers: list[tuple[str, str]] = []
    for number in range(WARM_UP + count):
        now = NOW + number * ROUND_S
        match = request(vectors, rng.choice(near, NEAR, replace=False), number)
        match = msgspec.structs.replace(match, requested_at=now, expires_at=now + 2 * 86_400)
        asked = PartitionInputs(now, commands=[match])
        n = BATCH - len(answers)
        heard = [f"user-{i:09d}" for i in rng.integers(0, users, n)] + [user for user, _ in answers]
        which = [f"song-{i}" for i in popular(rng, n)] + [song for _, song in answers]
        listens = Listens(heard, which, np.ones(BATCH, np.float32), np.full(BATCH, now))
        first = number % 2
        one = _both(held, first, asked)
        two = _both(held, first, PartitionInputs(now, listens=listens))
        pushes = one[1].pushes
        answers = [(push.user_id, push.match.song_id) for push in pushes if rng.random() < ANSWERED]
        if number >= WARM_UP:
            found.append((one[1].accounts[0].counts.candidates, len(pushes)))
            for times, each in zip(took.values(), (one[0], two[0]), strict=True):
                times.append(each)
    assert pushes[0].slope != 1, "nothing was learned"
    return {what: (*np.array(times).T, *np.mean(found, axis=0).tolist()) for what, times in took.items()}


def _both(held: list[Partition], first: int, inputs: PartitionInputs) -> tuple[tuple[float, float], PartitionOutputs]:
    """Seconds that staging and applying take the one without and the one with it, and what the latter said."""
    seconds, said = [0.0, 0.0], PartitionOutputs()
    for which in (first, 1 - first):
        started = time.thread_time()
        staged = held[which].stage(inputs)
        held[which].apply(staged)
        seconds[which] = time.thread_time() - started
        if which:
            said = staged.outputs
    return (seconds[0], seconds[1]), said


if __name__ == "__main__":
    main()
