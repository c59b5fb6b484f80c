"""Whether what is left of budgets is spent better by answers than by time, without a broker.

    OMP_NUM_THREADS=1 python tests/bench/bench_spending.py --seeds 5 [--budget 300]

The worlds are those of ``coldstart simulate`` with its defaults: the same people, chances, songs, uploads, caps, and a
model trained on the same past. Partitions are called directly, time is the world's own instead of compressed, and
nothing rests on how fast the machine is: the same seeds give the same figures. Some seconds a world and arm.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np

from encoder import train as training
from encoder.data.split import MIN_LISTENERS, rare_rows
from encoder.data.world import DAY, catalogue, rows, song_id, user_id
from streams.models import learned_chances
from streams.testbed.simulation.life import Life, WorldListens
from streams.testbed.simulation.scenario import Scenario
from streams.testbed.simulation.simulation_figures import Figures, Pushes, compare, measure
from streams.testbed.simulation.world_records import dataset
from targeting.calibration import Calibration
from targeting.campaigns.spending import Spending
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.rules.policy import Policy
from targeting.types import F32, FrequencyCap, Mark, Match, Outcomes, PartitionInputs, Preferences, Push
from targeting.types import Listens as Heard

VARIANTS = {"pace": Spending.PACE, "bandit": Spending.BANDIT}
SHOWN = ("reach", "reached_users", "push_listen_rate", "pushes_per_user", "warm_share", "collects", "opt_outs")
START, TURNS_A_DAY, PARTITIONS, BATCH, NEIGHBOURS = 1_700_000_000.0, 8, 2, 500, 50


class Model:
    """What a training on the past gives: warm songs, the new songs' vectors, chances."""

    def __init__(self, scenario: Scenario) -> None:
        data = dataset(Life(scenario))
        known, rare = np.flatnonzero(np.diff(data.plays.indptr) >= MIN_LISTENERS), rare_rows(data)
        config = training.TrainingConfig(seed=scenario.seed)
        trained = training.train(data, known, config, rare_rows=rare)
        fitted = learned_chances.fit(data, np.union1d(known, rare), config)
        self.ids, self.warm = trained.warm_content.song_ids, trained.warm_vectors
        self.chances: Calibration | None = fitted.answers if fitted else None
        vectors = trained.encoder.encode(data.content.rows(scenario.new_songs))
        self.vectors: dict[int, F32] = dict(zip(scenario.new_songs.tolist(), vectors, strict=True))
        self.artist = catalogue(scenario.world).artist

    def match(self, song: int, scenario: Scenario, at: float) -> Match:
        vector = self.vectors[song]
        cosines = self.warm @ vector
        near = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
        id, ends = song_id(song), at + scenario.campaign_days * DAY
        return Match(
            id, 1, id, id, (f"artist {self.artist[song]}",), "space", vector, tuple(self.ids[n] for n in near.tolist()),
            cosines[near], scenario.budget, at, ends,
        )  # fmt: skip


class Town:
    """The partitions of one world, and what they pushed that was not answered yet."""

    def __init__(self, scenario: Scenario, model: Model, spending: Spending) -> None:
        songs = Catalogue()
        songs.set_vectors("space", model.ids, model.warm)
        songs.calibration = model.chances
        policy = Policy(
            cap=FrequencyCap(scenario.caps, 24.0), artist_cap=FrequencyCap(1, 24.0), holdout=0.05, exploration=0.02
        )
        config = TargetingConfig(policy=policy, spending=spending)
        self.partitions = [Partition(number, PARTITIONS, songs, config) for number in range(PARTITIONS)]
        self.waiting: list[Push] = []
        self.shift = START - scenario.launch

    def stage(self, number: int, inputs: PartitionInputs) -> None:
        staged = self.partitions[number].stage(inputs)
        self.partitions[number].apply(staged)
        self.waiting += staged.outputs.pushes

    def hear(self, listens: WorldListens, now: float | None = None) -> None:
        for first in range(0, len(listens), BATCH):
            users, songs, at = (c[first : first + BATCH] for c in (listens.users, listens.songs, listens.at))
            marks = np.where(listens.completed, Mark.COMPLETED, 0) | np.where(listens.collected, Mark.COLLECTED, 0)
            for number in range(PARTITIONS):
                mine = np.flatnonzero(users % PARTITIONS == number)
                if len(mine):
                    ids = [user_id(user) for user in users[mine].tolist()]
                    names = [song_id(song) for song in songs[mine].tolist()]
                    ones, times = np.ones(len(mine), np.float32), np.asarray(at[mine] + self.shift, np.float64)
                    told = Heard(ids, names, ones, times, marks[first:][mine].astype(np.uint16))
                    self.stage(number, PartitionInputs(now or float(times[-1]), listens=told))


def live(scenario: Scenario, model: Model, spending: Spending) -> Figures:
    """One world under one way of spending."""
    life, said, town = Life(scenario), Pushes(), Town(scenario, model, spending)
    town.hear(life.past, START)
    for turn in range(scenario.days * TURNS_A_DAY):
        start, end = (scenario.launch + (turn + more) * DAY / TURNS_A_DAY for more in (0, 1))
        due = (scenario.uploaded >= start) & (scenario.uploaded < end)
        for song, at in zip(
            scenario.new_songs[due].tolist(), (scenario.uploaded[due] + town.shift).tolist(), strict=True
        ):
            for number in range(PARTITIONS):
                town.stage(number, PartitionInputs(at, commands=[model.match(song, scenario, at)]))
        town.hear(life.live(start, end))
        pushes = sorted(town.waiting, key=lambda push: (push.user_id, push.match.song_id))
        town.waiting = []
        if pushes:
            answer(life, said, town, pushes, end)
    return measure(life, said, 20, 0.0, {})


def answer(life: Life, said: Pushes, town: Town, pushes: Sequence[Push], at: float) -> None:
    users, songs = rows([push.user_id for push in pushes]), rows([push.match.song_id for push in pushes])
    answers, now = life.answer(users, songs, at), at + town.shift
    said.sent += len(pushes)
    said.failed += int(answers.failed.sum())
    said.opened += int(answers.opened.sum())
    said.listened += int(answers.listened.sum())
    columns = (
        (Mark.FAILED, answers.failed), (Mark.OPENED, answers.opened), (Mark.DISMISSED, answers.dismissed),
        (Mark.EXPIRED, answers.expired),
    )  # fmt: skip
    marks = sum(np.where(which, int(mark), 0) for mark, which in columns)
    for number in range(PARTITIONS):
        mine = np.flatnonzero(users % PARTITIONS == number).tolist()
        ids, names = [pushes[n].user_id for n in mine], [pushes[n].match.song_id for n in mine]
        outcomes = Outcomes(ids, names, np.asarray(marks, np.uint16)[mine], np.full(len(mine), now))
        left = [user_id(user) for user in answers.left.tolist() if user % PARTITIONS == number]
        wishes = [(id, Preferences(opted_in=False)) for id in left]
        town.stage(number, PartitionInputs(now, preferences=wishes, outcomes=outcomes))
    town.hear(answers.listens, now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=100, help="pushes a song; 300 is more than caps leave room for")
    options = parser.parse_args()
    runs: dict[str, dict[int, Figures]] = {arm: {} for arm in VARIANTS}
    for seed in range(options.seeds):
        scenario = Scenario(users=1500, warm=300, new=60, seed=seed, days=8, watch=4, budget=options.budget)
        model = Model(scenario)
        for arm, spending in VARIANTS.items():
            runs[arm][seed] = live(scenario, model, spending)
    print(json.dumps({arm: {seed: each.values for seed, each in of.items()} for arm, of in runs.items()}))
    print("\n| mean of a world | pace | bandit | bandit - pace, 95 % interval |\n|---|---|---|---|")
    for name in SHOWN:
        means = (float(np.mean([each.values[name] for each in of.values()])) for of in runs.values())
        found = compare("bandit", "pace", name, runs)
        if found is not None:
            gap = found.difference
            pace, bandit = means
            print(f"| {name} | {pace:.4f} | {bandit:.4f} | {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] |")


if __name__ == "__main__":
    main()
