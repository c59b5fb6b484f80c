from __future__ import annotations

import numpy as np

from targeting.catalogue.whitening import axes
from targeting.types import F32


def crowded(n: int, d: int, seed: int = 0) -> F32:
    """Unit vectors most of whose length lies along the first coordinates."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.7
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_an_even_catalogue_stays_as_it_is() -> None:
    even = np.concatenate([np.eye(6), -np.eye(6)]).astype(np.float32)
    np.testing.assert_allclose(axes(even), np.eye(6), atol=1e-6)
    np.testing.assert_array_equal(axes(np.zeros((0, 3), np.float32)), np.eye(3))


def test_the_stretch_is_the_symmetric_inverse_root_of_the_second_moments() -> None:
    vectors = crowded(4000, 8)
    stretch = axes(vectors).astype(float)
    np.testing.assert_array_equal(stretch, stretch.T)
    moments = vectors.T.astype(float) @ vectors / 4000 + (0.25 + 8 / 4000) / 8 * np.eye(8)
    whitened = stretch @ moments @ stretch
    np.testing.assert_allclose(whitened, whitened[0, 0] * np.eye(8), atol=1e-5)
    # Where songs crowd, differences of taste count for less.
    assert np.linalg.norm(stretch[0]) < 0.7 < 1.2 < np.linalg.norm(stretch[7])


def test_few_songs_say_little_about_directions() -> None:
    two = crowded(2, 64)
    # One of the 64 directions would otherwise be shrunk to an eighth.
    assert np.abs(axes(two) - np.eye(64)).max() < 0.1


def test_songs_that_come_later_would_hardly_have_changed_it() -> None:
    catalogue = crowded(2020, 32)
    with_later, without = axes(catalogue), axes(catalogue[:2000])
    assert np.abs(with_later - without).max() < 0.01
