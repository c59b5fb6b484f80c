"""A transformed song is a poorer version of itself, never another song."""

import numpy as np
from scipy import sparse

from encoder import views
from encoder.content import Bag, ContentTable

N = 2000


def table() -> ContentTable:
    weights = np.tile(np.array([[100, 1, 0.5]], np.float32), (N, 1))
    return ContentTable(
        tuple(map(str, range(N))),
        {"audio": np.ones((N, 2), np.float32)},
        {"tags": Bag(("rock", "loud", "odd"), sparse.csr_matrix(weights))},
    )


def test_counts_become_what_some_of_the_taggers_would_have_said() -> None:
    weights = views.transformed(table(), np.random.default_rng(0)).bags["tags"].weights.toarray()
    assert (weights <= [100, 1, 0.5]).all()
    np.testing.assert_array_equal(weights, np.where(weights == 0.5, 0.5, np.rint(weights)))
    kept = weights[weights[:, 0] > 0, 0] / 100
    # uniform between .2 and 1, smeared by the binomial draw: mean .6, standard error .01
    assert 0.57 < kept.mean() < 0.63
    assert kept.min() + 0.1 > 0.2
    present = (weights[weights[:, 0] > 0, 1:] > 0).mean(axis=0)
    np.testing.assert_allclose(present, 0.6, atol=0.05)


def test_a_part_in_ten_is_lost_whole() -> None:
    view = views.transformed(table(), np.random.default_rng(0))
    np.testing.assert_allclose(np.isnan(view.dense["audio"][:, 0]).mean(), views.LOST, atol=0.03)
    np.testing.assert_allclose((view.bags["tags"].weights.getnnz(axis=1) == 0).mean(), views.LOST, atol=0.03)


def test_the_original_is_untouched_and_the_seed_decides() -> None:
    songs = table()
    one, two = (views.transformed(songs, np.random.default_rng(1)) for _ in range(2))
    assert (one.bags["tags"].weights != two.bags["tags"].weights).nnz == 0
    assert songs.bags["tags"].weights.nnz == 3 * N
    assert not np.isnan(songs.dense["audio"]).any()
