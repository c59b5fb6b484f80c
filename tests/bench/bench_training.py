"""What training on a large catalogue costs, stage by stage, and how good is what comes of it.

    OMP_NUM_THREADS=1 python tests/bench/bench_training.py --users 100000 --songs 200000 --json training.json

CPU seconds of each stage and the peak resident memory after it; then recall@50 and NDCG@50 of up to 3,000 cold songs,
by the truth of listener sets. The world is generated first: a minute for 200,000 songs, and 120 MB in ``--cache`` if
one is given. ``--device`` is that of ``coldstart train``; a card's work is in no CPU second, so seconds are given too.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from encoder.data.dataset import Dataset
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import Split, split
from encoder.train import Progress, train
from encoder.training_config import Device, TrainingConfig
from encoder.truth import K, score, truth

ASKED = 3000


def dataset_of(world: World, cache: Path | None) -> Dataset:
    stored = cache / f"{world.users}-{world.songs}-{world.history:g}-{world.seed}.pickle" if cache else None
    if stored and stored.exists():
        found: Dataset = pickle.loads(stored.read_bytes())
        return found
    with tempfile.TemporaryDirectory() as folder:
        generate(world, Path(folder))
        data = read_dataset(Path(folder))
    if stored:
        stored.write_bytes(pickle.dumps(data))
    return data


def measured(data: Dataset, config: TrainingConfig, device: Device) -> dict[str, Any]:
    """Costs by stage, and figures."""
    parts = split(data, config.seed)
    stages: dict[str, dict[str, float]] = {}
    stage, cpu, wall = "", time.process_time(), time.perf_counter()

    def tell(progress: Progress) -> None:
        nonlocal stage, cpu, wall
        if progress.stage != stage:
            close()
            stage, cpu, wall = progress.stage, time.process_time(), time.perf_counter()

    def close() -> None:
        if stage:
            cost = {"cpu_s": time.process_time() - cpu, "s": time.perf_counter() - wall, "peak_gb": peak()}
            stages[stage] = cost
            print(stage, *(f"{name} {value:.1f}" for name, value in cost.items()), flush=True)

    started = time.process_time()
    trained = train(data, parts.warm, config, tell, rare_rows=parts.rare, device=device)
    close()
    cost = time.process_time() - started
    cold = np.sort(np.random.default_rng(0).permutation(parts.cold)[:ASKED])
    queries = trained.encoder.encode(data.content.rows(cold))
    blocks = [queries[start : start + 100] @ trained.warm_vectors.T for start in range(0, len(queries), 100)]
    found = np.vstack([np.argsort(-block, axis=1)[:, :K] for block in blocks])
    scores = score(found, truth(data, Split(parts.warm, cold)))
    return {
        "warm": len(parts.warm),
        "rare": len(parts.rare),
        "listens": int(data.plays[np.concatenate([parts.warm, parts.rare])].nnz),
        "cpu_s": cost,
        "peak_gb": peak(),
        "stages": stages,
        "recall_50": float(scores.recall.mean()),
        "ndcg_50": float(scores.ndcg.mean()),
        "recall_by_quartile": scores.by_quartile(scores.recall),
        "gauges": trained.gauges,
    }


def peak() -> float:
    """Gigabytes of memory at most resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--users", type=int, default=30_000)
    ask.add_argument("--songs", type=int, default=60_000)
    ask.add_argument("--history", type=float, default=59.0)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    ask.add_argument("--cache", type=Path)
    ask.add_argument("--json", type=Path, required=True)
    given = ask.parse_args()
    data = dataset_of(World(given.users, given.songs, given.seed, given.history), given.cache)
    figures = measured(data, TrainingConfig(seed=given.seed), given.device)
    given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in figures.items() if name not in ("stages", "gauges")}, indent=1))


if __name__ == "__main__":
    main()
