"""In bulk as one by one: products, the largest, the nearest."""

from __future__ import annotations

import numpy as np
import pytest

from encoder import leave_one_out, resemblance
from encoder.content import ContentTable, SongContent
from encoder.context import largest
from encoder.features import Features, FeatureSchema
from encoder.resemblance import Nearest, Products

N = 600


def songs(directions: int) -> Features:
    """A tag that all songs have and tags that few have, and a sound in so many directions."""
    rng = np.random.default_rng(0)
    sound = rng.normal(size=(N, directions)) @ rng.normal(size=(directions, 8))
    contents = [
        SongContent(
            dense={"audio": sound[row].tolist()},
            bags={"tags": {"common": 1.0} | {f"rare{t}": 1.0 for t in rng.choice(1000, 3, replace=False)}},
        )
        for row in range(N)
    ]
    table = ContentTable.from_songs([str(i) for i in range(N)], contents)
    return FeatureSchema.learn(table).transform(table)


def product(one: Features, two: Features) -> np.ndarray:
    return (one.bags @ two.bags.T).toarray() + one.dense @ two.dense.T


@pytest.mark.parametrize(("m", "k"), [(5, 5), (100, 1), (1000, 20), (1500, 0), (5003, 60), (3000, 700)])
def test_the_largest_are_those_of_a_sort(m: int, k: int) -> None:
    values = np.random.default_rng(m).normal(size=(7, m)).astype(np.float32)
    expected = np.sort(np.argsort(-values, axis=1)[:, :k], axis=1)
    np.testing.assert_array_equal(np.sort(largest(values, k), axis=1), expected)


def test_products_are_those_of_the_features() -> None:
    known = songs(8)
    some = known.rows(np.arange(0, N, 7))
    found = Products(known.bags, known.dense)
    assert not found.approximate
    np.testing.assert_allclose(found(some).numpy(), product(some, known), atol=1e-5)


@pytest.mark.parametrize("few", [N, 10], ids=["in full", "by candidates"])
def test_the_nearest_are_the_largest_products_without_the_one_left_out(
    monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """The sound lies in 3 directions and one tag is common, so that 6 directions hold all that is common."""
    monkeypatch.setattr(resemblance, "_FEW", few)
    monkeypatch.setattr(resemblance, "_DIRECTIONS", 6)
    monkeypatch.setattr(resemblance, "_SHARE", 1)
    known = songs(3)
    nearest = Nearest.among(known.bags, known.dense, 10)
    assert nearest.products.approximate == (few < N)
    left_out = np.where(np.arange(N) % 2, np.arange(N), -1)
    places, similarity = nearest(known, left_out)
    expected = product(known, known)
    expected[left_out >= 0, left_out[left_out >= 0]] = -np.inf
    np.testing.assert_allclose(np.sort(similarity), np.sort(expected)[:, -10:], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, places, axis=1), similarity, atol=1e-5)


def test_in_a_part_of_the_lists_most_of_the_nearest_are_found_and_all_that_share_a_rare_term(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = songs(3)
    exact, _ = Nearest.among(known.bags, known.dense, 10)(known, np.full(N, -1))
    for name, value in {"_FEW": 10, "_DIRECTIONS": 6, "_LIST": 10, "_SHARE": 8}.items():
        monkeypatch.setattr(resemblance, name, value)
    nearest = Nearest.among(known.bags, known.dense, 10)
    found, _ = nearest(known, np.full(N, -1))
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, exact, strict=True)]) > 0.8
    # A song is its own nearest, wherever it lies.
    assert all(row in places for row, places in enumerate(found))
    some = known.rows(np.arange(5))
    places, products = nearest.products.among(some, np.array([7]))
    assert set(places) == {7} | set(nearest.products.rare(some).indices)
    np.testing.assert_allclose(products.numpy(), product(some, known)[:, places], atol=1e-5)


def test_contexts_by_candidates_and_estimated_leverages_are_near_the_exact_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = songs(3)
    vectors = np.random.default_rng(1).normal(size=(N, 5)).astype(np.float32)

    def contexts() -> np.ndarray:
        loo = leave_one_out.fit(
            known,
            vectors,
            bandwidth=2.0,
            ridge=np.full(N, 2.0, np.float32),
            neighbours=5,
            landmarks=300,
            remembered=N,
            rng=np.random.default_rng(2),
        )
        return loo.contexts([known, known.rows(np.roll(np.arange(N), 1))])

    exact = contexts()
    monkeypatch.setattr(resemblance, "_FEW", 10)
    monkeypatch.setattr(resemblance, "_DIRECTIONS", 6)
    monkeypatch.setattr(resemblance, "_SHARE", 1)
    monkeypatch.setattr(leave_one_out, "_SKETCH", 128)
    found = contexts()
    np.testing.assert_allclose(found[..., 5:], exact[..., 5:], atol=1e-4)
    # An estimated leverage is below a tenth, and off by a tenth of that at most in most songs.
    error = np.abs(found[..., :5] - exact[..., :5])
    assert error.max() < 0.1
    assert 0 < np.quantile(error, 0.95) < 0.03
