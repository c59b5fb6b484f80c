"""The world of :mod:`scenes` and an encoder trained on it, for all tests of this folder."""

import numpy as np
import pytest
from scenes import SCENES, SMALL, SONGS, USERS, song
from scipy import sparse

from encoder.content import ContentTable
from encoder.data.dataset import Dataset
from encoder.train import Trained, train


@pytest.fixture(scope="session")
def scenes() -> Dataset:
    """15 songs in each of 4 scenes; a user listens to songs of one scene only."""
    rng = np.random.default_rng(0)
    songs = [song(row // SONGS, rng) for row in range(SCENES * SONGS)]
    users = np.repeat(np.arange(SCENES), USERS)
    plays = (rng.random((len(songs), len(users))) < 0.5) & (users[None] == np.arange(len(songs))[:, None] // SONGS)
    return Dataset(
        name="scenes",
        content=ContentTable.from_songs([f"song{i}" for i in range(len(songs))], songs),
        user_ids=tuple(f"user{i}" for i in range(len(users))),
        plays=sparse.csr_matrix(plays.astype(np.float32)),
    )


@pytest.fixture(scope="session")
def warm_rows(scenes: Dataset) -> np.ndarray:
    rows = np.arange(len(scenes.song_ids))
    return rows[rows % SONGS != SONGS - 1]


@pytest.fixture(scope="session")
def cold_rows(scenes: Dataset) -> np.ndarray:
    rows = np.arange(len(scenes.song_ids))
    return rows[rows % SONGS == SONGS - 1]


@pytest.fixture(scope="session")
def trained(scenes: Dataset, warm_rows: np.ndarray) -> Trained:
    return train(scenes, warm_rows, SMALL)
