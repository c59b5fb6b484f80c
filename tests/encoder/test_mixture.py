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
from encoder.fit import Inputs, Run
from encoder.train import train

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


def test_a_network_gone_astray_loses_its_say(world: Dataset) -> None:
    """At a thousand times the usual rate it learns nothing; what the artist's other songs say is right all the same."""
    found = train(world, np.arange(1100), replace(CONFIG, rate=3.0, warm_rate=3.0))
    assert found.gauges["closed"] > 0


def test_the_first_weight_stays_where_none_is_better(world: Dataset) -> None:
    """The ridge alone finds each song's scene, so that no mixture can find more."""
    assert train(world, np.arange(1100), replace(CONFIG, closed=(1.0, 0.0, 0.5))).gauges["closed"] == 1.0


def test_songs_held_back_are_not_asked_about(world: Dataset) -> None:
    features = FeatureSchema.learn(world.content).transform(world.content)
    listeners = supervision.listener_rows(world.plays)
    vectors = supervision.audience_vectors(listeners, 12, np.random.default_rng(0))
    inputs = Inputs([features], np.arange(features.bags.shape[1]), np.zeros((1, len(features), 0), np.float32))
    held = mixture.held_back(1100, np.random.default_rng(0))
    run = Run(CONFIG, inputs, supervision.targets(listeners, 5), vectors, held)
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
