"""How soon the chances that pushes tell follow people who change.

    OMP_NUM_THREADS=1 python tests/bench/bench_chances.py

A generated world, a model trained on a fifth of its songs with the chances that ``coldstart train`` learns (of being
among the listeners), and one partition, to which 200 of the other songs come a day. Who is pushed listens with a chance
that the world knows: its own; from day 4 on at half the odds; from day 8 on with its logits shrunk to .6. The world is
lived through four times, each time with other songs, and the pushes lie in one pool. Three minutes on one core, and as
many for each further seed.

By how many pushes were judged since people changed, the expected calibration error over 20 bins of the pushes that tell
a chance: of the model's chances and of those told, against the chances that the world knows; and of those told, against
the answers that were drawn. Beside each the floor: what chances would show that are right on average. Against answers
these are draws of the chances that are told; against the world it is what songs make of it, of which nobody knows how
much each appeals: how far told and known lie apart, song by song, with signs by lot.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import MIN_LISTENERS, songs_of
from encoder.data.world import affinity, rows
from encoder.train import TrainingConfig as Training
from encoder.train import train
from streams.models.learned_chances import fit
from targeting.calibration import Calibration
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.evaluation.reliability import error
from targeting.index import ExactIndex
from targeting.partition.partition import Partition
from targeting.ranking.recalibration import SLOT_S
from targeting.rules.policy import Policy
from targeting.types import F32, F64, Listens, Match, PartitionInputs, Push, Tier

USERS, SONGS, WARM = 5000, 12_000, 2400
DAYS, A_DAY, BUDGET, LIVES = 12, 200, 10, 4
BATCHES = 4
DRAWS = 20
SHIFTS = {0: "answers instead of listeners", 4: "half the odds", 8: "logits shrunk to .6"}
SPANS = [0, 1, 500, 1000, 2000, 10**9]


@dataclass(frozen=True, slots=True)
class Made:
    """A world with a model of it; the songs to come have numbers, and vectors float32 (n, d)."""

    world: World
    warm: tuple[str, ...]
    warm_vectors: F32
    index: ExactIndex
    calibration: Calibration
    past: Listens
    numbers: np.ndarray
    vectors: F32


def make(seed: int) -> Made:
    world = World(users=USERS, songs=SONGS, seed=seed, history=150)
    with tempfile.TemporaryDirectory() as folder:
        generate(world, Path(folder))
        data = read_dataset(Path(folder))
    shuffled = np.random.default_rng(seed).permutation(len(data.song_ids))
    warm, coming = np.sort(shuffled[:WARM]), shuffled[WARM:]
    warm = warm[np.diff(data.plays.indptr)[warm] >= MIN_LISTENERS]
    known, training = songs_of(data, warm), Training(seed=seed)
    trained = train(known, np.arange(len(warm)), training)
    fitted = fit(known, np.arange(len(warm)), training)
    assert fitted is not None
    index = ExactIndex(trained.warm_vectors.shape[1])
    index.add(np.arange(len(warm)), trained.warm_vectors)
    plays = known.plays.tocoo()
    assert known.played_at is not None
    past = Listens(
        [known.user_ids[user] for user in plays.col], [known.song_ids[song] for song in plays.row],
        np.ones(plays.nnz, np.float32), known.played_at,
    )  # fmt: skip
    numbers = rows(tuple(data.song_ids[row] for row in coming))
    return Made(
        world,
        known.song_ids,
        trained.warm_vectors,
        index,
        fitted.answers,
        past,
        numbers,
        trained.encoder.encode(data.content.rows(coming)),
    )


def truth(made: Made, pushes: list[Push], shift: int) -> F64:
    """The chance that each is listened to, float64 (n,)."""
    users = rows(tuple(push.user_id for push in pushes))
    songs = np.array([int(push.match.song_id.removeprefix("new-")) for push in pushes])
    chance = affinity(made.world, users, songs, made.world.end)
    logits = np.log(chance / (1 - chance))
    logits = {0: logits, 4: logits - np.log(2), 8: 0.6 * logits}[shift]
    return np.asarray(1 / (1 + np.exp(-logits)))


def live(made: Made, life: int, hours: float) -> Iterator[tuple[int, int, Push, float, bool]]:
    """Every push: since which day people are as they are, how many pushes were judged since, its chance and answer.

    ``hours``: the wait for answers.
    """
    rng = np.random.default_rng([made.world.seed, life])
    policy = Policy(holdout=0.05, exploration=0.02)
    songs = Catalogue()
    songs.set_vectors("space", made.warm, made.warm_vectors)
    songs.calibration = made.calibration
    partition = Partition(0, 1, songs, TargetingConfig(policy=policy, answer_hours=hours))
    now = made.world.end
    partition.apply(partition.stage(PartitionInputs(now, listens=made.past)))
    told: list[float] = []
    answered: list[Push] = []
    for turn in range(DAYS * BATCHES):
        now = made.world.end + (turn + 1) * 86_400 / BATCHES
        shift = max(each for each in SHIFTS if each <= turn // BATCHES)
        if turn == shift * BATCHES:
            told = []
        judged = sum(at // SLOT_S < (now - hours * 3600) // SLOT_S for at in told)
        a_turn = A_DAY // BATCHES
        start = (life * DAYS * BATCHES + turn) * a_turn
        which = slice(start, start + a_turn)
        found, similarities = made.index.search(made.vectors[which], 50)
        each = made.numbers[which].tolist(), made.vectors[which], found, similarities
        commands = [
            Match(
                f"new-{number}", 1, f"new-{number}", "", (f"artist-{number // 8}",), "space", vector,
                tuple(made.warm[song] for song in near),
                np.asarray(like, np.float32), BUDGET, now, now + 28 * 86_400,
            )
            for number, vector, near, like in zip(*each, strict=True)
        ]  # fmt: skip
        listens = Listens(
            [push.user_id for push in answered], [push.match.song_id for push in answered],
            np.ones(len(answered), np.float32), np.full(len(answered), now - 3600.0),
        )  # fmt: skip
        staged = partition.stage(PartitionInputs(now, commands=commands, listens=listens))
        partition.apply(staged)
        pushes = list(staged.outputs.pushes)
        chances = truth(made, pushes, shift)
        answers = (rng.random(len(pushes)) < chances).tolist()
        answered = [push for push, yes in zip(pushes, answers, strict=True) if yes]
        told += [push.not_before for push in pushes]
        columns = zip(pushes, chances.tolist(), answers, strict=True)
        yield from ((shift, judged, push, chance, yes) for push, chance, yes in columns)


def model_chance(made: Made, push: Push) -> float:
    """What the model alone says."""
    return float(made.calibration.prior(np.array([(push.evidence + push.direct) * push.activity], np.float32))[0])


def floors(told: F64, known: F64, songs: F64) -> tuple[float, float]:
    """The errors, against known chances and against answers, that chances of no error would show; (n,) each."""
    rng = np.random.default_rng(0)
    apart = known - told
    # What is wrong with chances as such is no part of it.
    apart -= np.polyval(np.polyfit(told, apart, 3), told)
    song = np.unique(songs, return_inverse=True)[1]
    world = [error(told, told + apart * rng.choice([-1.0, 1.0], song.max() + 1)[song]) for _ in range(DRAWS)]
    return float(np.mean(world)), float(np.mean([error(told, rng.random(len(told)) < told) for _ in range(DRAWS)]))


def report(table: F64) -> None:
    """``table``: a row for each push, as :func:`main` makes them."""
    for tier, words in ((1, "at the request"), (0, "to who came later")):
        print(f"\n## {words}\n\n| people | judged since | pushes | listen | model's error | error | floor ", end="")
        print(f"| error by answers | floor |\n{'|---' * 9}|")
        for shift, what in SHIFTS.items():
            for least, most in pairwise(SPANS):
                here = (table[:, 0] == shift) & (table[:, 2] == tier) & (least <= table[:, 1]) & (table[:, 1] < most)
                if here.sum() >= 500:
                    told, model, known, answers, songs = table[here, 3:].T
                    before = f"{error(model, known):.3f}" if tier else ""
                    world, drawn = floors(told, known, songs)
                    print(
                        f"| {what} | {least} | {here.sum()} | {known.mean():.3f} | {before} | {error(told, known):.3f} "
                        f"| {world:.3f} | {error(told, answers):.3f} | {drawn:.3f} |"
                    )


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seeds", type=int, nargs="+", default=[0])
    ask.add_argument("--hours", type=float, nargs="+", default=[24.0], help="waits for answers, one after the other")
    given = ask.parse_args()
    for seed in given.seeds:
        made = make(seed)
        for hours in given.hours:
            rows_: list[tuple[float, ...]] = []
            for life in range(LIVES):
                for shift, judged, push, chance, yes in live(made, life, hours):
                    if push.calibrated:
                        initial = push.tier is Tier.INITIAL
                        song = float(push.match.song_id.removeprefix("new-"))
                        rows_.append((shift, judged, initial, push.score, model_chance(made, push), chance, yes, song))
            print(f"\n# seed {seed}, a wait of {hours:g} hours")
            report(np.array(rows_, np.float64))


if __name__ == "__main__":
    main()
