from __future__ import annotations

import numpy as np
import pytest

from targeting.live.reverse_scoring import hits, nearest
from targeting.types import F32

D = 24


def unit(shape: tuple[int, ...], seed: int) -> F32:
    found = np.random.default_rng(seed).standard_normal((*shape, D)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=-1, keepdims=True), np.float32)


@pytest.mark.parametrize(("batch", "count", "campaigns"), [(1, 1, 1), (700, 3, 40), (1024, 8, 7), (257, 1, 1100)])
def test_every_pair_at_its_threshold_is_found_with_its_score_and_nearest_prototype(
    batch: int, count: int, campaigns: int
) -> None:
    vectors, prototypes = unit((batch,), 0), unit((count, campaigns), 1)
    thresholds = np.linspace(0.2, 0.5, campaigns, dtype=np.float32)
    thresholds[-1] = np.inf if campaigns > 1 else -1.0
    found = hits(vectors, prototypes, thresholds)
    every = np.einsum("bd,cad->bac", vectors.astype(np.float64), prototypes.astype(np.float64))
    best = every.max(axis=2)
    clear = np.abs(best - thresholds) > 1e-6
    rows, whom = np.nonzero((best >= thresholds) & clear)
    kept = clear[found.rows, found.campaigns]
    np.testing.assert_array_equal(found.rows[kept], rows)
    np.testing.assert_array_equal(found.campaigns[kept], whom)
    np.testing.assert_allclose(found.scores[kept], best[rows, whom], atol=1e-6)
    np.testing.assert_array_equal(found.prototypes[kept], every.argmax(axis=2)[rows, whom])
    assert len(rows)
    assert kept.mean() > 0.999


@pytest.mark.parametrize(("batch", "campaigns"), [(0, 5), (5, 0), (0, 0)])
def test_nobody_or_no_campaign_is_no_hit(batch: int, campaigns: int) -> None:
    assert len(hits(unit((batch,), 0), unit((2, campaigns), 1), np.zeros(campaigns, np.float32))) == 0


def test_the_nearest_of_pairs_in_any_order_and_number_of_each_campaign() -> None:
    rng = np.random.default_rng(0)
    vectors, prototypes = unit((300,), 0), unit((5, 200), 1)
    rows = rng.integers(300, size=4000)
    campaigns = np.minimum(rng.geometric(0.02, 4000), 199)
    expected = np.einsum("nd,cnd->nc", vectors[rows], prototypes[:, campaigns]).argmax(axis=1)
    np.testing.assert_array_equal(nearest(vectors, rows, prototypes, campaigns), expected)
