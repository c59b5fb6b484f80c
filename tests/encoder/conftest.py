"""The world of :mod:`scenes` and an encoder trained on it, for all tests of this folder."""

import numpy as np
import pytest
from scenes import SMALL, SONGS, world

from encoder.data.dataset import Dataset
from encoder.train import Trained, train


@pytest.fixture(scope="session")
def scenes() -> Dataset:
    return world()


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
