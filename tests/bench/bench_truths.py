"""Which truth holds in how large a catalogue: what each says of itself in worlds of growing size.

    python tests/bench/bench_truths.py [--sizes 5000x3000 20000x20000 50000x100000]

No arm is fitted. In the columns of the known taste a song's own place in the space of tastes stands for the vector that
a perfect reading of content would give, and a user is the sum of the places of the warm songs heard. At most 1,000 cold
songs of a split are asked about. Some minutes of CPU.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from encoder.data.dataset import Dataset
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import split
from encoder.data.world import catalogue, rows
from encoder.evaluation import figures, truths
from encoder.evaluation.retrieval_task import Vectors, task
from encoder.truth import K, quartiles

COLD = 1000
HEAD = (
    "users x songs: warm songs, listens",
    "similar listeners: halves agree",
    "their ceiling",
    "known taste by similar listeners",
    "audience@50 by cosine of the known taste",
    "its bound",
)


def row(world: World) -> str:
    """A row of the table: each measure over all cold songs, and by quartile of their listeners, the tail first."""
    with tempfile.TemporaryDirectory() as folder:
        generate(world, Path(folder))
        data = read_dataset(Path(folder))
    parts = split(data, 0)
    some = np.sort(np.random.default_rng(0).permutation(parts.cold)[:COLD])
    asked = task(data, replace(parts, cold=some))
    known = truths.truths(asked, 0, world)
    found = truths.bounds(asked, known)
    taste = catalogue(world).taste

    def place(songs: Dataset) -> np.ndarray:
        return taste[rows(songs.song_ids)]

    heard = truths.audience_precision(asked, Vectors(place(asked.warm), place), asked.cold)
    quarter, share = quartiles(asked.answer.listeners), K / len(asked.warm.song_ids)

    def cell(values: np.ndarray) -> list[float]:
        summed = figures.summed([values], [quarter])
        return [summed["mean"], *summed["quartiles"]]

    agreement = cell(found["agreement"])
    cells = [
        agreement,
        [truths.ceilings(value, share)[1] for value in agreement],
        cell(found["taste"]),
        cell(heard),
        cell(found["audience"]),
    ]
    name = f"{world.users:,} x {world.songs:,}: {len(asked.warm.song_ids):,}, {data.plays.nnz:,}"
    words = [" ".join(f"{value:.3f}".removeprefix("0") for value in values) for values in cells]
    return f"| {name} | {' | '.join(words)} |"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--sizes", nargs="+", default=["5000x3000", "20000x20000", "50000x100000"])
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for size in ask.parse_args().sizes:
        users, songs = map(int, size.split("x"))
        print(row(World(users=users, songs=songs)), flush=True)


if __name__ == "__main__":
    main()
