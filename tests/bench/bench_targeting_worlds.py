"""Where centroids win: every variant on generated users whose answers to a push are known.

    python tests/bench/bench_targeting_worlds.py --json worlds.json

A world's users have one taste or up to four, four in ten of them arrive late: of these, only the first three songs that
they heard are known. A tenth of the songs is cold; the truth of a cold song is whom of all users it would please, drawn
from the world's own affinity at its end: an answer to a push, which exposure has nothing to do with. The encoder is
trained on the warm songs, without a word about the truth. Settings, the scores' chances and other user vectors are
judged on a tenth of the warm songs made cold, the encoder trained anew without them.

Three minutes a seed and world on one core. The encoder's vectors stay in ``--cache`` for the next run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from encoder.data.dataset import Dataset
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import Split, songs_of, split
from encoder.data.world import CHUNK, affinity, people, rows
from encoder.train import TrainingConfig, train
from targeting.clustering import kmeans
from targeting.evaluation import Case, audience_tables, evaluate
from targeting.evaluation.judge import ALL, OUTSIDE
from targeting.evaluation.loaded import Loaded, load
from targeting.ranking.scoring import ScoreWeights

USERS, SONGS, KNOWN_OF_LATE = 3000, 2500, 3
WORLDS = {"one taste": 1, "several tastes": 4}


def dataset_of(world: World) -> tuple[Dataset, np.ndarray]:
    """The world's data with late users' histories cut to their first songs, and who is late, bool (users,)."""
    with tempfile.TemporaryDirectory() as folder:
        generate(world, Path(folder))
        data = read_dataset(Path(folder))
    people_of = rows(data.user_ids)
    joined = np.concatenate([people(world, chunk).joined for chunk in range(-(-world.users // CHUNK))])[people_of]
    late = joined > world.start
    plays = data.plays.tocoo()
    assert data.played_at is not None
    order = np.lexsort((data.played_at, plays.col))
    owner = plays.col[order]
    nth = np.empty(len(order), np.int64)
    nth[order] = np.arange(len(order)) - np.searchsorted(owner, owner)
    kept = ~late[plays.col] | (nth < KNOWN_OF_LATE)
    cut = sparse.csr_matrix((plays.data[kept], (plays.row[kept], plays.col[kept])), plays.shape)
    dates = sparse.csr_matrix((data.played_at[kept], (plays.row[kept], plays.col[kept])), plays.shape)
    return replace(data, plays=cut, played_at=dates.data), late


def answers(world: World, data: Dataset, songs: np.ndarray) -> sparse.csr_matrix:
    """Who would listen to each song if pushed at the end of the world, drawn once for each pair: csr (songs, users)."""
    users, ids = rows(data.user_ids), rows(tuple(data.song_ids[row] for row in songs))
    chance = affinity(world, np.tile(users, len(ids)), np.repeat(ids, len(users)), world.end)
    drawn = np.random.default_rng([world.seed, 7]).random(len(chance)) < chance
    return sparse.csr_matrix(drawn.reshape(len(ids), len(users)))


def case_of(name: str, world: World, data: Dataset, parts: Split, late: np.ndarray, cache: Path | None) -> Case:
    stored = cache / f"{name}.npz" if cache else None
    if stored and stored.exists():
        arrays = np.load(stored, allow_pickle=False)
        vectors, queries = arrays["vectors"], arrays["queries"]
    else:
        trained = train(data, parts.warm, TrainingConfig(seed=world.seed))
        vectors, queries = trained.warm_vectors, trained.encoder.encode(data.content.rows(parts.cold))
        if stored:
            np.savez(stored, vectors=vectors, queries=queries)
    warm = songs_of(data, parts.warm)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Case(
        name,
        tuple(f"{world.seed}-{data.song_ids[row]}" for row in parts.cold),
        warm.plays,
        vectors,
        queries,
        answers(world, data, parts.cold),
        warm.played_at,
        groups={"late": late},
    )


def costs(loaded: Loaded) -> dict[str, float]:
    """CPU nanoseconds for each user scored by one product, by eight prototypes, and by production."""
    users = np.tile(np.arange(loaded.case.users), 20)
    vectors = loaded.histories.taste.of(users)
    centres = kmeans.cluster(vectors[: loaded.case.users], kmeans.Clustering(), 0).vectors
    song = loaded.case.queries[0]

    def seconds(what: Any, times: int = 20) -> float:
        what()
        start = time.process_time()
        for _ in range(times):
            what()
        return (time.process_time() - start) / times

    pool = len(loaded.scored(0, ScoreWeights()).users)
    return {
        "own vector": seconds(lambda: vectors @ song) / len(users) * 1e9,
        "8 prototypes": seconds(lambda: (vectors @ centres.T).max(axis=1)) / len(users) * 1e9,
        "evidence and own vector, candidates found": seconds(lambda: loaded.scored(0, ScoreWeights())) / pool * 1e9,
    }


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seeds", type=int, default=5)
    ask.add_argument("--json", type=Path, required=True)
    ask.add_argument("--cache", type=Path)
    given = ask.parse_args()
    if given.cache:
        given.cache.mkdir(parents=True, exist_ok=True)
    out: dict[str, Any] = {}
    for name, tastes in WORLDS.items():
        tests, validations = [], []
        for seed in range(given.seeds):
            print(f"{name}, seed {seed}", flush=True)
            world = World(users=USERS, songs=SONGS, seed=seed, tastes=tastes, late=0.4)
            data, late = dataset_of(world)
            parts = split(data, seed)
            tests.append(case_of(f"{name} {seed}", world, data, parts, late, given.cache))
            warm = songs_of(data, parts.warm)
            validations.append(case_of(f"{name} {seed} validation", world, warm, split(warm, seed), late, given.cache))
        out[name] = evaluate(tests, validations, lambda words: print(words, flush=True), "answers to a push")
        out[name]["cost_ns_a_user"] = costs(load(tests[0]))
        given.json.write_text(json.dumps(out, indent=1))
    for name, figures in out.items():
        for group in (ALL, "late", OUTSIDE):
            print(f"\n## {name}, users: {group}\n\n{audience_tables.of_variants(figures, group)}")
        print(f"\n{audience_tables.of_user_vectors(figures)}\n\n{audience_tables.of_calibration(figures)}")
        print(f"\nCPU ns a user scored: {figures['cost_ns_a_user']}")


if __name__ == "__main__":
    main()
