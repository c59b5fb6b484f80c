"""Recall and cost of the indexes of warm songs: exact, hnswlib, and usearch where it is installed.

Usage: bench_index.py [SONGS ...]; the vectors are unit, of 128 dimensions: 24 directions and noise. Processor time, but
for a search alone, which is elapsed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from targeting.index import ExactIndex, HnswIndex
from targeting.types import F32

D, DIRECTIONS, QUERIES, K = 128, 24, 500, 50


class Usearch:
    """usearch with the settings that :class:`HnswIndex` has."""

    def __init__(self, dimension: int) -> None:
        self._index = import_module("usearch.index").Index(
            ndim=dimension, metric="ip", dtype="f32", connectivity=16, expansion_add=200, expansion_search=200
        )

    def add(self, labels: Any, vectors: F32) -> None:
        self._index.add(np.asarray(labels, np.uint64), vectors, threads=1)

    def search(self, queries: F32, k: int) -> tuple[Any, Any]:
        found = self._index.search(queries, k, threads=1)
        return found.keys.astype(np.int64), 1 - found.distances


def unit(n: int, seed: int) -> F32:
    directions = np.random.default_rng(9).standard_normal((DIRECTIONS, D))
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, DIRECTIONS)) @ directions + 0.75 * rng.standard_normal((n, D))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[float, Any]:
    started = clock()
    result = work()
    return clock() - started, result


def rows(songs: int) -> Iterator[str]:
    vectors, queries = unit(songs, 0), unit(QUERIES, 1)
    exact = ExactIndex(D)
    exact.add(np.arange(songs), vectors)
    truth, _ = exact.search(queries, K)
    kinds: dict[str, Callable[[int], Any]] = {"exact": ExactIndex, "hnswlib": HnswIndex}
    if find_spec("usearch"):
        kinds["usearch"] = Usearch
    for name, kind in kinds.items():
        index = kind(D)
        build, _ = timed(partial(index.add, np.arange(songs), vectors))
        batch, (found, _) = timed(partial(index.search, queries, K))
        alone = [timed(partial(index.search, queries[row : row + 1], K), time.perf_counter)[0] for row in range(200)]
        one, _ = timed(partial(index.add, [songs + 1], queries[:1]))
        recall = np.mean([len({*a} & {*b}) / K for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
        yield (
            f"| {songs:,} | {name} | {recall:.4f} | {build:.2f} s | {one * 1e3:.1f} ms | "
            f"{batch / QUERIES * 1e3:.2f} ms | {np.median(alone) * 1e3:.2f} ms |"
        )


if __name__ == "__main__":
    print("| songs | index | recall@50 | build | add one | search in a batch | search alone |")
    print("|---|---|---|---|---|---|---|")
    for songs in [int(word) for word in sys.argv[1:]] or [20_000, 100_000]:
        for row in rows(songs):
            print(row, flush=True)
