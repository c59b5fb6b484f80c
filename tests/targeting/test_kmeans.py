from __future__ import annotations

import numpy as np
import pytest

from targeting.arrays.id_table import hash64
from targeting.clustering.kmeans import Clustering, bottom, cluster, shown
from targeting.types import F32, Prototypes


def around(centres: F32, sizes: list[int], spread: float, seed: int = 0) -> F32:
    rng = np.random.default_rng(seed)
    points = np.repeat(centres, sizes, axis=0)
    points = points + spread * rng.standard_normal(points.shape)
    rng.shuffle(points)
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_separate_tastes_are_found_and_counted(seed: int) -> None:
    centres, sizes = np.eye(16, dtype=np.float32)[:4], [2000, 1000, 500, 250]
    found = cluster(around(centres, sizes, 0.05), Clustering(prototypes=4), seed)
    assert found.members.tolist() == sizes
    np.testing.assert_allclose(np.diag(found.vectors @ centres.T), 1, atol=0.01)


def test_the_same_seed_gives_the_same() -> None:
    vectors = around(np.eye(16, dtype=np.float32)[:4], [300] * 4, 0.5)
    one, other = (cluster(vectors, Clustering(), 7) for _ in range(2))
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert one.members.sum() == len(vectors)


def test_vectors_all_alike_have_one_prototype() -> None:
    found = cluster(np.tile(np.eye(8, dtype=np.float32)[0], (50, 1)), Clustering(), 0)
    assert found.members.tolist() == [50]
    np.testing.assert_allclose(found.vectors, np.eye(8)[:1], atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_vectors(n: int) -> None:
    vectors = np.eye(8, dtype=np.float32)[:n]
    found = cluster(np.concatenate([vectors, np.zeros((2, 8), np.float32)]), Clustering(), 0)
    assert found.members.tolist() == [1] * n
    assert found.vectors.shape == (n, 8)


def test_less_than_ten_members_are_never_shown() -> None:
    three = Prototypes(np.eye(3, dtype=np.float32), np.asarray([40, 10, 9]))
    assert shown(three).members.tolist() == [40, 10]
    assert shown(three).vectors.shape == (2, 3)


def test_the_sample_is_of_users_not_of_rows() -> None:
    users = [f"u{i}" for i in range(1000)]
    hashes = hash64(users)
    order = np.random.default_rng(0).permutation(1000)
    one = {users[i] for i in bottom(hashes, 5, 100)}
    assert one == {users[order[i]] for i in bottom(hashes[order], 5, 100)}
    assert len(one) == 100
    assert one != {users[i] for i in bottom(hashes, 6, 100)}
    assert len(bottom(hashes, 5, 4096)) == 1000
