"""The say of the closed form: as much as songs held back call for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import SMALL
from scipy import sparse

from encoder import mixture, supervision
from encoder.content import Bag, ContentTable
from encoder.data.dataset import Dataset
from encoder.features import FeatureSchema
from encoder.fit import NetworkInputs, TrainingRun
from encoder.supervision import Targets

SCENES, SONGS = 100, 11


@pytest.fixture(scope="module")
def world() -> Dataset:
    """1,100 songs of 100 scenes that share no listener; a song's artist is of its scene."""
    n = SCENES * SONGS
    scene = np.arange(n) % SCENES
    users = np.repeat(np.arange(SCENES), 20)
    plays = (np.random.default_rng(0).random((n, len(users))) < 0.5) & (users[None] == scene[:, None])
    artists = sparse.csr_matrix((np.ones(n, np.float32), (np.arange(n), scene)))
    content = ContentTable(tuple(map(str, range(n))), {}, {"artists": Bag(tuple(map(str, range(SCENES))), artists)})
    return Dataset("world", content, tuple(map(str, users)), sparse.csr_matrix(plays.astype(np.float32)))


CONFIG = replace(SMALL, dim=100, tune=False, factors=100, targets=10, batch=256, views=0, closed=(0.0, 0.5, 1.0))


def right_and_wrong() -> tuple[np.ndarray, np.ndarray, Targets]:
    """200 songs of 20 scenes: unit rows that tell the scenes apart and rows that tell nothing; what should be found."""
    scene = np.arange(200) % 20
    right = np.eye(20, dtype=np.float32)[scene]
    wrong = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    wrong /= np.linalg.norm(wrong, axis=1, keepdims=True)
    others = np.array([[j for j in range(200) if j % 20 == i % 20 and j != i] for i in range(200)])
    return right, wrong, Targets(others, np.full(others.shape, 1 / 9, np.float32))


HELD = np.arange(0, 200, 3)


@pytest.mark.parametrize("first", [0.0, 0.5, 1.0])
def test_the_first_weight_stays_where_none_is_better(first: float) -> None:
    right, _, targets = right_and_wrong()
    asked = [(right[HELD], right[HELD])]
    assert mixture.best_weight(asked, right, right, targets, HELD, (first, 0.0, 0.5, 1.0)) == first


def test_who_is_wrong_has_no_say() -> None:
    right, wrong, targets = right_and_wrong()
    for network, closed, expected in ((wrong, right, 1.0), (right, wrong, 0.0)):
        asked = [(network[HELD], closed[HELD])]
        assert mixture.best_weight(asked, right, right, targets, HELD, (0.5, 0.0, 1.0)) == expected


def test_songs_held_back_are_not_asked_about(world: Dataset) -> None:
    features = FeatureSchema.learn(world.content).transform(world.content)
    listeners = supervision.listener_rows(world.plays)
    vectors = supervision.audience_vectors(listeners, 12, np.random.default_rng(0))
    inputs = NetworkInputs([features], np.arange(features.bags.shape[1]), np.zeros((1, len(features), 0), np.float32))
    held = mixture.held_back(1100, np.random.default_rng(0))
    run = TrainingRun(CONFIG, inputs, supervision.targets(listeners, 5), vectors, held)
    asked, query = [], run.query
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "query", lambda songs, *rest: asked.append(songs) or query(songs, *rest))
        for epoch in range(3):
            list(run.epoch(epoch))
    # Every other song is, in every epoch, and more often where views of it are compared.
    assert set(torch.cat(asked).tolist()) == set(range(1100)) - set(held.tolist())
    assert len(held) == 55


@pytest.mark.parametrize(("warm", "held"), [(999, 0), (1000, 50), (100_000, 400)])
def test_a_twentieth_is_held_back_within_bounds(warm: int, held: int) -> None:
    assert len(mixture.held_back(warm, np.random.default_rng(0))) == held
