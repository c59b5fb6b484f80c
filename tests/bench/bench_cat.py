"""What incremental CAT is worth against clustering anew, and what it costs.

    OMP_NUM_THREADS=1 python tests/bench/bench_cat.py --json figures.json

An audience of several drifting tastes; each checkpoint compares the mean over all live vectors of the cosine to the
nearest centroid with that of batch k-means (k-means++, five restarts) on all of them. Then 1,000 campaigns: the reverse
scoring kernel alone, the product that bounds it, and a batch of changed users. Times are CPU seconds of the one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from targeting.arrays.id_table import I64, U64, mixed
from targeting.clustering.kmeans import Clustering, cluster
from targeting.clustering.ward_merge import centroids
from targeting.live.cat_config import CatConfig
from targeting.live.incremental_cat import CampaignPacing, IncrementalCat
from targeting.types import F32

D = 128
# A coordinate's spread around the centre of a taste: cosines to it are about .66, as among listeners of one song.
SPREAD = 0.1
CHECKPOINTS = 20


class People:
    """Users whose vectors lie in an array."""

    def __init__(self, vectors: F32) -> None:
        self.now = vectors
        self._hashes = mixed(np.arange(len(vectors), dtype=np.uint64), 77)

    def hashes(self, rows: I64) -> U64:
        return self._hashes[rows]

    def vectors(self, rows: I64) -> F32:
        return self.now[rows]


def unit(vectors: np.ndarray) -> F32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def around(centres: F32, rng: np.random.Generator) -> F32:
    return unit(centres + SPREAD * rng.standard_normal(centres.shape))


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    started = time.thread_time()
    found = work(*arguments)
    return time.thread_time() - started, found


def fit(vectors: F32, centres: F32) -> float:
    return float((vectors @ centres.T).max(axis=1).mean())


def turned(centres: F32, degrees: float, rng: np.random.Generator) -> F32:
    """Each centre turned by an angle into a direction of its own."""
    any_way = rng.standard_normal(centres.shape)
    aside = unit(any_way - (any_way * centres).sum(axis=1, keepdims=True) * centres)
    angle = np.radians(degrees)
    return unit(np.cos(angle) * centres + np.sin(angle) * aside)


def tracking(config: CatConfig, audience: int, degrees: float, seed: int) -> dict[str, float]:
    """Twenty checkpoints of a drifting audience, in between of which a quarter of it is heard of."""
    rng = np.random.default_rng(seed)
    tastes = unit(rng.standard_normal((config.centroids, D)))
    of = rng.choice(config.centroids, audience, p=rng.dirichlet(np.full(config.centroids, 3.0)))
    people = People(around(tastes[of], rng))
    cat = IncrementalCat(D, config, people)
    everyone, ones = np.arange(audience), np.ones(audience, np.float32)
    song_vector = unit(tastes.mean(axis=0))
    spending = CampaignPacing(100, 0, 1, audience, people.now[:2048])
    spent, _ = timed(cat.open, "song", song_vector, everyone, people.now, ones, seed, spending)
    batch, clusterings, ratios = 0.0, 0, []
    for number in range(CHECKPOINTS):
        tastes = turned(tastes, degrees, rng)
        for users in np.array_split(rng.permutation(audience)[: audience // 4], 5):
            new = around(tastes[of[users]], rng)
            old, people.now[users] = people.now[users], new
            seconds, _ = timed(cat.observe, users, old, new)
            spent += seconds
            for key in cat.due(1):
                seconds, _ = timed(cat.recluster, key)
                spent, clusterings = spent + seconds, clusterings + 1
        kmeans = KMeans(config.centroids, init="k-means++", n_init=5, random_state=number)
        seconds, fitted = timed(kmeans.fit, people.now)
        found = unit(fitted.cluster_centers_)
        batch += seconds
        ratios.append(fit(people.now, cat.prototypes("song").vectors) / fit(people.now, found))
    return {
        "fit_least": min(ratios),
        "fit_mean": float(np.mean(ratios)),
        "cpu_share": spent / batch,
        "incremental_cpu_s": spent,
        "batch_cpu_s": batch,
        "reclusterings": clusterings,
    }


def missing(centroids_wanted: int, sample: int, samples: int, seeds: int) -> dict[str, float]:
    """Of how many clusterings a taste is missed: the fit is less than .985 of that of the tastes themselves."""

    def restarting(vectors: F32, seed: int, restarts: int, rounds: int) -> F32:
        return cluster(vectors, Clustering(centroids_wanted, sample, restarts, rounds), seed).vectors

    ways: dict[str, Callable[[F32, int], F32]] = {
        "restarts_3": partial(restarting, restarts=3, rounds=4),
        "restarts_8": partial(restarting, restarts=8, rounds=5),
    }
    merging = Clustering(centroids_wanted, sample, 1, 2)
    ways["merged"] = lambda vectors, seed: centroids(vectors, merging, seed, np.ones(len(vectors), np.float32))
    figures = dict.fromkeys([f"{name}_{what}" for name in ways for what in ("missed", "ms")], 0.0)
    for number in range(samples):
        rng = np.random.default_rng(number)
        tastes = unit(rng.standard_normal((centroids_wanted, D)))
        of = rng.choice(centroids_wanted, 4 * sample, p=rng.dirichlet(np.full(centroids_wanted, 3.0)))
        vectors = around(tastes[of], rng)
        for name, way in ways.items():
            for seed in range(seeds):
                seconds, found = timed(way, vectors[:sample], seed)
                figures[f"{name}_missed"] += (fit(vectors, found) < 0.985 * fit(vectors, tastes)) / samples / seeds
                figures[f"{name}_ms"] += seconds * 1e3 / samples / seeds
    return figures


def turning(config: CatConfig, audience: int, seed: int) -> dict[str, float]:
    """After every taste turned by 60 degrees at once: the worst cosine of the new centres to their nearest centroid."""
    rng = np.random.default_rng(seed)
    tastes = unit(rng.standard_normal((config.centroids, D)))
    of = np.arange(audience) % config.centroids
    people = People(around(tastes[of], rng))
    cat = IncrementalCat(D, config, people)
    ones = np.ones(audience, np.float32)
    cat.open(
        "song",
        tastes[0],
        np.arange(audience),
        people.now,
        ones,
        seed,
        CampaignPacing(1, 0, 1, audience, people.now[:2048]),
    )
    members = np.zeros(audience, bool)
    members[cat.members("song")] = True
    tastes = turned(tastes, 60, rng)
    figures: dict[str, float] = {}
    events, lives = 0, 0
    while lives < 3:
        users = rng.choice(audience, 200, replace=False)
        new = around(tastes[of[users]], rng)
        old, people.now[users] = people.now[users], new
        cat.observe(users, old, new)
        events += int(members[users].sum())
        for key in cat.due(1):
            cat.recluster(key)
        if events >= (lives + 1) * config.half_life:
            lives += 1
            cosines = (tastes @ cat.prototypes("song").vectors.T).max(axis=1)
            figures[f"after_{lives}_half_lives"] = float(cosines.min())
    return figures


def multiplied(vectors: F32, panels: F32) -> None:
    """The kernel's products and nothing else."""
    out = np.empty((panels.shape[1], 256), np.float32)
    for start in range(0, len(vectors), 256):
        here = vectors[start : start + 256].T
        for panel in panels:
            np.matmul(panel, here, out=out[:, : here.shape[1]])


def cost(config: CatConfig, campaigns: int, users: int, batch: int) -> dict[str, float]:
    """The kernel, the product that bounds it, and what a batch of changed users costs beside it."""
    rng = np.random.default_rng(0)
    people = People(unit(rng.standard_normal((users, D), np.float32)))
    cat = IncrementalCat(D, config, people)
    sample, opening = people.now[:2048], []
    for number in range(campaigns):
        song_vector = unit(rng.standard_normal(D))
        candidates = rng.integers(users) + np.arange(4096) * 61
        candidates %= users
        vectors, weights = people.now[candidates], rng.random(4096, np.float32)
        spending = CampaignPacing(75, 0, 1e6, users, sample)
        seconds, _ = timed(cat.open, f"song-{number}", song_vector, candidates, vectors, weights, number, spending)
        opening.append(seconds)
    scoring, observing, product, wanted = [], [], [], 0
    panels = unit(rng.standard_normal((config.centroids, campaigns, D), np.float32))
    for number in range(12):
        moved = rng.permutation(users)[:batch]
        new = unit(rng.standard_normal((batch, D), np.float32))
        old, people.now[moved] = people.now[moved], new
        seconds, hits = timed(cat.score, new, float(number))
        scoring.append(seconds)
        wanted += len(hits)
        observing.append(timed(cat.observe, moved, old, new)[0])
        product.append(timed(multiplied, new, panels)[0])
    keys = cat.keys[:20]
    again = [timed(cat.recluster, key)[0] for key in keys]
    encoding = [timed(cat.encode, key) for key in keys]
    kernel, alone = float(np.median(scoring)), float(np.median(product))
    return {
        "kernel_vectors_per_s": batch / kernel,
        "product_vectors_per_s": batch / alone,
        "kernel_of_product": alone / kernel,
        "wanted_of_pairs": wanted / (12 * batch * campaigns),
        "observe_ms": float(np.median(observing)) * 1e3,
        "observe_of_kernel": float(np.median(observing)) / kernel,
        "pairs_moved": batch * config.sample * campaigns / users,
        "open_ms": float(np.median(opening)) * 1e3,
        "recluster_ms": float(np.median(again)) * 1e3,
        "encode_ms": float(np.median([seconds for seconds, _ in encoding])) * 1e3,
        "record_bytes": len(encoding[0][1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--audience", type=int, default=20_000)
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--users", type=int, default=250_000)
    parser.add_argument("--batch", type=int, default=5000)
    parser.add_argument("--samples", type=int, nargs="+", default=[1024], help="sizes to try")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    never = 1 << 40
    figures: dict[str, dict[str, float]] = {}
    for sample in options.samples:
        for name, often in (("", 4 * sample), (", never clustered again", never)):
            config = CatConfig(8, sample, half_life=float(sample), recluster=often)
            runs = [tracking(config, options.audience, 5, seed) for seed in range(options.seeds)]
            means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
            figures[f"tracking, sample {sample}{name}"] = means | {"fit_least": min(run["fit_least"] for run in runs)}
    figures["clusterings that miss one of 8 tastes"] = missing(8, 1024, 12, 6)
    for count in (1, 8):
        for name, often in (("", 4096), (", never clustered again", never)):
            config = CatConfig(count, recluster=often)
            figures[f"turned by 60 degrees, {count} centroids{name}"] = turning(config, options.audience, 0)
    for count in (8, 1):
        name = f"{options.campaigns} campaigns of {count} centroids"
        figures[name] = cost(CatConfig(count), options.campaigns, options.users, options.batch)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    for title, found in figures.items():
        print(title)
        for name, value in found.items():
            print(f"  {name:24}{value:12,.4g}" if value < 1000 else f"  {name:24}{value:12,.0f}")


if __name__ == "__main__":
    main()
