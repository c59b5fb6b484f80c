"""Every arm answers the same questions: on scenes that share no listener, no tag, no artist and no sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scenes import SMALL, SONGS
from scipy import sparse

from encoder.content import Bag, ContentTable
from encoder.data.dataset import Dataset
from encoder.data.split import Split, songs_of
from encoder.evaluation import baselines, damage
from encoder.evaluation.content_matrix import READINGS, ContentMatrix, Reading
from encoder.evaluation.neural_baselines import CLCRec, DropoutNet
from encoder.evaluation.retrieval_task import ModelSpec, Task, retrieve, task, unheard
from encoder.evaluation.variants import VARIANTS, TrainedEncoder

# Of each scene, one song is cold and two are rare.
K = SONGS - 3

# Which arms find a song's own scene by its content; enrol a new one here.
KNOWING: dict[str, ModelSpec] = {
    "artist_mean": baselines.ArtistMean(rank=8),
    **{f"content_knn {reading}": baselines.ContentNeighbours(reading) for reading in READINGS},
    **{f"ridge {reading}": baselines.Ridge(reading, rank=8) for reading in READINGS},
    **{f"propagation {reading}": baselines.Propagation(reading, neighbours=3) for reading in READINGS},
    "dropoutnet": DropoutNet(rank=8),
    "clcrec": CLCRec(dim=16, between=0.0, epochs=60),
    "bcl": TrainedEncoder(SMALL),
    "bcl_paper": TrainedEncoder(replace(SMALL, contexts=False, loss="bpr", views=0, epochs=30)),
    "ceiling": baselines.Ceiling(rank=8),
}
ALL: dict[str, ModelSpec] = {"random": baselines.Random(), "popularity": baselines.Popularity(), **KNOWING}


@pytest.fixture(scope="module")
def asked(scenes: Dataset, warm_rows: np.ndarray, cold_rows: np.ndarray) -> Task:
    """The scenes with an artist for each."""
    n = len(scenes.song_ids)
    artists = sparse.csr_matrix((np.ones(n, np.float32), (np.arange(n), np.arange(n) // SONGS)))
    bags = {**scenes.content.bags, "artists": Bag(tuple("abcd"), artists)}
    rare = warm_rows % SONGS >= K
    parts = Split(warm_rows[~rare], cold_rows, warm_rows[rare])
    return task(replace(scenes, content=replace(scenes.content, bags=bags)), parts)


def scores(model: ModelSpec, asked: Task, seed: int = 0, cold: Dataset | None = None) -> np.ndarray:
    return model.fit(asked.warm, asked.rare, seed).scores(asked.cold if cold is None else cold)


@pytest.fixture(scope="module")
def answers(asked: Task) -> Callable[[str], np.ndarray]:
    """Each arm's scores, computed once."""
    known: dict[str, np.ndarray] = {}

    def answer(name: str) -> np.ndarray:
        if name not in known:
            known[name] = scores(ALL[name], asked)
        return known[name]

    return answer


def test_every_kind_of_arm_in_the_table_is_tested_here() -> None:
    assert {type(arm.model) for arm in VARIANTS.values()} == {type(model) for model in ALL.values()}


@pytest.mark.parametrize("name", ALL)
def test_there_is_a_finite_score_for_every_pair(name: str, answers: Callable[[str], np.ndarray], asked: Task) -> None:
    found = answers(name)
    assert found.shape == (len(asked.cold.song_ids), len(asked.warm.song_ids))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", KNOWING)
def test_a_cold_song_retrieves_its_own_scene(name: str, answers: Callable[[str], np.ndarray], asked: Task) -> None:
    best = np.argsort(-answers(name), axis=1)[:, :K]
    own = asked.split.warm[best] // SONGS == asked.split.cold[:, None] // SONGS
    # Chance is a quarter.
    assert own.mean() > 0.9


@pytest.mark.parametrize("name", ALL)
def test_a_seed_repeats(name: str, answers: Callable[[str], np.ndarray], asked: Task) -> None:
    np.testing.assert_array_equal(answers(name), scores(ALL[name], asked))


@pytest.mark.parametrize("name", [name for name in ALL if name != "ceiling"])
def test_listens_of_cold_songs_change_nothing(name: str, answers: Callable[[str], np.ndarray], asked: Task) -> None:
    np.testing.assert_array_equal(answers(name), scores(ALL[name], asked, cold=unheard(asked.cold)))


@pytest.mark.parametrize("name", [name for name, arm in VARIANTS.items() if "rare" in arm.space])
def test_arms_learn_from_rare_songs_unless_told_otherwise(name: str, asked: Task) -> None:
    model = next(model for known, model in ALL.items() if known.split()[0] == name)
    without: ModelSpec = replace(model, rare=False)  # type: ignore[type-var, call-arg]
    nothing = songs_of(asked.warm, np.zeros(0, np.int64))
    np.testing.assert_array_equal(scores(without, asked), without.fit(asked.warm, nothing, 0).scores(asked.cold))
    assert not np.array_equal(scores(model, asked), scores(without, asked))


def test_only_the_ceiling_goes_by_the_cold_songs_listens(asked: Task) -> None:
    assert not scores(ALL["ceiling"], asked, cold=unheard(asked.cold)).any()
    assert [name for name, arm in VARIANTS.items() if arm.hears] == ["ceiling"]


def test_popularity_is_the_number_of_listeners(answers: Callable[[str], np.ndarray], asked: Task) -> None:
    np.testing.assert_array_equal(answers("popularity")[0], np.diff(asked.warm.plays.indptr))


def test_equal_scores_go_by_popularity(asked: Task) -> None:
    popularity = np.arange(len(asked.warm.song_ids))
    # Nothing is known of a song without an artist: all scores are 0.
    nobody = replace(asked.cold.content.bags["artists"], weights=sparse.csr_matrix((len(asked.cold.song_ids), 4)))
    cold = replace(asked.cold, content=replace(asked.cold.content, bags={"artists": nobody}))
    found = retrieve(baselines.ArtistMean(rank=8).fit(asked.warm, asked.rare, 0), cold, popularity, k=3)
    np.testing.assert_array_equal(found, np.broadcast_to(popularity[:-4:-1], found.shape))


def test_fewer_warm_songs_than_asked_for_leave_places_open(asked: Task) -> None:
    n = len(asked.warm.song_ids)
    found = retrieve(baselines.Random().fit(asked.warm, asked.rare, 0), asked.cold, np.zeros(n, np.int64), k=n + 2)
    np.testing.assert_array_equal(np.sort(found, axis=1)[:, 2:], np.broadcast_to(np.arange(n), (len(found), n)))
    assert (found[:, -2:] == -1).all()


def test_propagation_is_the_weighted_sum_of_cosines(asked: Task) -> None:
    """On one cold song with two neighbours, counted out."""
    listeners = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], np.float32)
    tags = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 3.0], [1.0, 0.0]], np.float32)
    table = asked.warm.content.from_songs([], [])
    content = replace(
        table, song_ids=("a", "b", "c", "d"), dense={}, bags={"tags": Bag(("x", "y"), sparse.csr_matrix(tags))}
    )
    warm = replace(
        asked.warm, content=content.rows(np.arange(3)), plays=sparse.csr_matrix(listeners), user_ids=tuple("1234")
    )
    cold = replace(warm, content=content.rows(np.array([3])), plays=sparse.csr_matrix((1, 4), dtype=np.float32))
    got = (
        baselines.Propagation("counts", neighbours=2, power=1.0)
        .fit(warm, songs_of(warm, np.zeros(0, np.int64)), 0)
        .scores(cold)
    )
    # Both terms are in two of three songs, so that the idf is the same: cosines of content 1 and 1/sqrt 2.
    cosines = np.array([[1, 0.5, 0], [0.5, 1, 0.5]])
    np.testing.assert_allclose(got[0], np.array([1, 0.5**0.5]) @ cosines, rtol=1e-6)


@pytest.mark.parametrize("penalty", [0.1, 3.0])
def test_conjugate_gradients_solve_the_same_ridge(penalty: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = sparse.random_array((60, 200), density=0.1, rng=rng, dtype=np.float32).tocsr()
    targets = rng.standard_normal((60, 5)).astype(np.float32)
    exact = baselines.solve(rows, targets, penalty)
    monkeypatch.setattr(baselines, "_DENSE", 0)
    np.testing.assert_allclose(baselines.solve(rows, targets, penalty), exact, atol=5e-3 * np.abs(exact).max())


@pytest.mark.parametrize("reading", READINGS)
def test_terms_that_warm_songs_never_had_change_no_row(reading: Reading, asked: Task) -> None:
    inputs = ContentMatrix.learn(asked.warm, reading, seed=0)
    strange = damage.estranged(asked.cold.content, "tags")
    difference = inputs.rows(strange) - inputs.rows(asked.cold.content)
    assert abs(difference).max() == 0


def test_weighed_content_puts_down_what_is_noise() -> None:
    """A song's sound is a noisy place of its audience, its year a place of nothing."""
    rng = np.random.default_rng(0)
    audience = np.arange(300) % 30
    sound = rng.normal(size=(30, 6))[audience] + 0.3 * rng.normal(size=(300, 6))
    dense = {"sound": sound.astype(np.float32), "year": rng.normal(size=(300, 6)).astype(np.float32)}
    plays = (rng.random((300, 300)) < 0.5) & (np.arange(300) % 30 == audience[:, None])
    songs = Dataset(
        "noise",
        ContentTable(tuple(map(str, range(300))), dense),
        tuple(map(str, range(300))),
        sparse.csr_matrix(plays, dtype=np.float32),
    )
    schema = ContentMatrix.learn(songs, "weighed", seed=0).schema
    sound_weight, year_weight = schema.weights
    assert [part.name for part in schema.dense] == ["sound", "year"]
    assert sound_weight > 2 * year_weight
    same = ContentMatrix.learn(songs, "schema", seed=0).schema.weights
    assert same[0] == same[1]
