"""Contexts against their definitions, computed the slow way."""

import numpy as np
import pytest

from encoder import leave_one_out
from encoder.content import ContentTable, SongContent
from encoder.features import Features, FeatureSchema

N = 40
# What is added to the landmarks' kernel lest it be singular is 1e-3, against a ridge of .25.
TOLERANCE = 4e-3


@pytest.fixture(scope="module")
def songs() -> Features:
    rng = np.random.default_rng(0)
    contents = [
        SongContent(
            dense={"audio": rng.normal(size=3).tolist()},
            bags={"tags": {f"t{t}": 1.0 for t in rng.choice(12, 4, replace=False)}},
        )
        for _ in range(N)
    ]
    table = ContentTable.from_songs([str(i) for i in range(N)], contents)
    return FeatureSchema.learn(table).transform(table)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N, 5)).astype(np.float32)


def fit(
    songs: Features,
    vectors: np.ndarray,
    landmarks: int = 100,
    remembered: int = 100,
    ridge: np.ndarray | float = 0.25,
    warm: int | None = None,
) -> leave_one_out.LeaveOneOut:
    return leave_one_out.fit(
        songs,
        vectors,
        bandwidth=2.0,
        ridge=np.full(len(vectors), ridge, np.float32),
        neighbours=3,
        landmarks=landmarks,
        remembered=remembered,
        rng=np.random.default_rng(2),
        warm=warm,
    )


# Songs of few listeners are trusted less than others.
RIDGES = [0.25, 0.15 + 1 / np.arange(1, N + 1)]


@pytest.mark.parametrize("ridge", RIDGES, ids=["one for all", "each its own"])
def test_with_all_songs_as_landmarks_it_is_exact_kernel_ridge(
    songs: Features, vectors: np.ndarray, ridge: np.ndarray | float
) -> None:
    x = np.hstack([songs.bags.toarray(), songs.dense]).astype(np.float64)
    kernel = np.exp(-1.0 * ((x[:, None] - x[None]) ** 2).sum(axis=2))
    expected = kernel @ np.linalg.solve(kernel + ridge * np.eye(N), vectors)
    found = fit(songs, vectors, ridge=ridge).memory.context(songs)[:, :5]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_neighbours_are_weighted_by_squared_similarity(songs: Features, vectors: np.ndarray) -> None:
    x = np.hstack([songs.bags.toarray(), songs.dense])
    similarity = np.maximum(x @ x.T, 0)
    best = np.argsort(-similarity[0])[:3]
    weights = similarity[0, best] ** 2
    found = fit(songs, vectors).memory.context(songs)[0, 5:]
    np.testing.assert_allclose(found, weights @ vectors[best] / weights.sum(), atol=1e-5)


@pytest.mark.parametrize("ridge", RIDGES, ids=["one for all", "each its own"])
@pytest.mark.parametrize("row", [0, 17, N - 1])
def test_leaving_a_song_out_equals_fitting_without_it(
    songs: Features, vectors: np.ndarray, row: int, ridge: np.ndarray | float
) -> None:
    others = np.delete(np.arange(N), row)
    rest = np.broadcast_to(ridge, N)[others]
    without = fit(songs.rows(others), vectors[others], ridge=rest).memory.context(songs.rows(np.array([row])))
    found = fit(songs, vectors, ridge=ridge).contexts([songs])[0, row]
    np.testing.assert_allclose(found, without[0], atol=TOLERANCE)


def test_warm_songs_are_remembered_first(songs: Features, vectors: np.ndarray) -> None:
    assert set(np.flatnonzero(fit(songs, vectors, 10, 25, warm=25).place >= 0)) == set(range(25))
    assert set(range(25)) < set(np.flatnonzero(fit(songs, vectors, 10, 30, warm=25).place >= 0))


def test_another_version_of_a_left_out_song_does_not_see_it_either(songs: Features, vectors: np.ndarray) -> None:
    others = np.delete(np.arange(N), 4)
    without = fit(songs.rows(others), vectors[others]).memory.context(songs.rows(np.array([9])))
    versions = songs.rows(np.where(np.arange(N) == 4, 9, np.arange(N)))
    found = fit(songs, vectors).contexts([songs, versions])[1, 4]
    np.testing.assert_allclose(found, without[0], atol=TOLERANCE)


def test_few_landmarks_and_a_short_memory_bound_what_is_kept(songs: Features, vectors: np.ndarray) -> None:
    loo = fit(songs, vectors, landmarks=10, remembered=25)
    assert loo.memory.coefficients.shape == (10, 5)
    assert loo.memory.vectors.shape == (25, 5)
    assert np.isfinite(loo.contexts([songs])).all()


def test_songs_of_nearly_equal_content_are_no_obstacle() -> None:
    """2,000 songs in 3 crowds of all but the same sound: the kernel's matrix is singular up to rounding."""
    crowd = np.arange(2000) % 3
    sound = (crowd + 0.01 * np.random.default_rng(0).normal(size=2000))[:, None].astype(np.float32)
    songs = ContentTable(tuple(map(str, range(2000))), {"duration": sound})
    vectors = np.eye(3, dtype=np.float32)[crowd]
    loo = fit(FeatureSchema.learn(songs).transform(songs), vectors, landmarks=2000, remembered=2000)
    np.testing.assert_allclose(loo.memory.context(loo.songs)[:, :3], vectors, atol=0.05)
    np.testing.assert_allclose(loo.contexts([loo.songs])[0, :, :3], vectors, atol=0.05)
