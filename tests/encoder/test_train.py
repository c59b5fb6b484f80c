"""Training on a world whose answer is known, and its promises: seeds, resume, views, no leak."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scenes import SCENES, SMALL, SONGS
from scipy import sparse

from encoder import mixture, supervision
from encoder.content import Bag, ContentTable, SongContent
from encoder.data.dataset import Dataset
from encoder.features import FeatureSchema
from encoder.fit import NetworkInputs, TrainingRun, collapse, info_nce
from encoder.optimiser import AdamW
from encoder.serving import joined
from encoder.train import Progress, Trained, train


def same_weights(one: Trained, two: Trained) -> bool:
    return np.array_equal(one.warm_vectors, two.warm_vectors) and all(
        np.array_equal(value, two.encoder.network[name]) for name, value in one.encoder.network.items()
    )


def test_a_cold_song_retrieves_its_own_scene(
    scenes: Dataset, trained: Trained, warm_rows: np.ndarray, cold_rows: np.ndarray
) -> None:
    vectors = trained.encoder.encode(scenes.content.rows(cold_rows))
    best = np.argsort(-(vectors @ trained.warm_vectors.T), axis=1)[:, : SONGS - 1]
    np.testing.assert_array_equal(
        warm_rows[best] // SONGS, np.repeat(cold_rows // SONGS, SONGS - 1).reshape(best.shape)
    )


@pytest.mark.parametrize(
    "change",
    [{"loss": "bpr", "rate": 2e-2}, {"contexts": False, "rate": 2e-2}, {"catalogue": 10, "sampled": 40}, {"views": 0}],
    ids=lambda change: "-".join(change),
)
def test_so_does_every_arm(
    scenes: Dataset, warm_rows: np.ndarray, cold_rows: np.ndarray, change: dict[str, Any]
) -> None:
    arm = train(scenes, warm_rows, replace(SMALL, epochs=12, **change))
    best = (arm.encoder.encode(scenes.content.rows(cold_rows)) @ arm.warm_vectors.T).argmax(axis=1)
    np.testing.assert_array_equal(warm_rows[best] // SONGS, cold_rows // SONGS)


def test_the_sampled_softmax_estimates_the_full_one(scenes: Dataset, warm_rows: np.ndarray) -> None:
    features = FeatureSchema.learn(scenes.content.rows(warm_rows)).transform(scenes.content.rows(warm_rows))
    listeners = supervision.listener_rows(scenes.plays[warm_rows])
    vectors = supervision.audience_vectors(listeners, 12, np.random.default_rng(0))
    inputs = NetworkInputs([features], np.arange(features.bags.shape[1]), np.zeros((1, len(features), 0), np.float32))
    run = TrainingRun(replace(SMALL, sampled=100_000), inputs, supervision.targets(listeners, 5), vectors)
    songs = torch.arange(8)
    query = torch.nn.functional.normalize(torch.randn(8, SMALL.dim, generator=torch.Generator().manual_seed(0)), dim=1)
    assert run.sampled_softmax(query, songs).item() == pytest.approx(run.softmax(query, songs).item(), rel=1e-2)


def test_warm_vectors_are_unit_and_in_the_order_of_the_warm_songs(
    scenes: Dataset, trained: Trained, warm_rows: np.ndarray
) -> None:
    assert trained.warm_vectors.shape == (len(warm_rows), SMALL.dim)
    np.testing.assert_allclose(np.linalg.norm(trained.warm_vectors, axis=1), 1, atol=1e-5)
    assert trained.warm_content.song_ids == tuple(scenes.song_ids[row] for row in warm_rows)


def test_listens_of_cold_songs_do_not_reach_training(
    scenes: Dataset, trained: Trained, warm_rows: np.ndarray, cold_rows: np.ndarray
) -> None:
    plays = scenes.plays.tolil()
    plays[cold_rows] = 7
    assert same_weights(trained, train(replace(scenes, plays=plays.tocsr()), warm_rows, SMALL))


@pytest.fixture(scope="module")
def with_rare(scenes: Dataset, warm_rows: np.ndarray) -> Trained:
    """Trained on 3 warm songs of each scene, the others being rare."""
    return train(scenes, warm_rows[warm_rows % SONGS < 3], SMALL, rare_rows=warm_rows[warm_rows % SONGS >= 3])


def test_rare_songs_are_learned_from_and_not_retrieved(
    scenes: Dataset, with_rare: Trained, warm_rows: np.ndarray, cold_rows: np.ndarray
) -> None:
    warm = warm_rows[warm_rows % SONGS < 3]
    assert with_rare.warm_content.song_ids == tuple(scenes.song_ids[row] for row in warm)
    assert len(with_rare.warm_vectors) == len(warm)
    assert len(with_rare.encoder.memory.vectors) == len(warm_rows)
    best = np.argsort(-(with_rare.encoder.encode(scenes.content.rows(cold_rows)) @ with_rare.warm_vectors.T))[:, :3]
    np.testing.assert_array_equal(warm[best] // SONGS, np.repeat(cold_rows // SONGS, 3).reshape(best.shape))


def test_what_only_rare_songs_say_is_known(scenes: Dataset, warm_rows: np.ndarray) -> None:
    """A term that no warm song has leads to the listeners of the rare songs that have it."""
    n = len(scenes.song_ids)
    rare = warm_rows[warm_rows % SONGS >= 10]
    artists = sparse.lil_matrix((n, SCENES), dtype=np.float32)
    artists[rare, rare // SONGS] = 1
    known = replace(
        scenes.content, dense={}, bags={"artists": Bag(tuple("abcd"), artists.tocsr()), **scenes.content.bags}
    )
    warm = warm_rows[warm_rows % SONGS < 10]
    found = train(replace(scenes, content=known), warm, SMALL, rare_rows=rare)
    songs = ContentTable.from_songs(list("abcd"), [SongContent(bags={"artists": {name: 1.0}}) for name in "abcd"])
    best = (found.encoder.encode(songs) @ found.warm_vectors.T).argmax(axis=1)
    np.testing.assert_array_equal(warm[best] // SONGS, np.arange(SCENES))


def test_without_the_config_rare_songs_are_ignored(scenes: Dataset, warm_rows: np.ndarray) -> None:
    config = replace(SMALL, rare=False, epochs=1)
    warm, rare = warm_rows[::2], warm_rows[1::2]
    assert same_weights(train(scenes, warm, config), train(scenes, warm, config, rare_rows=rare))
    assert not same_weights(
        train(scenes, warm, config), train(scenes, warm, replace(config, rare=True), rare_rows=rare)
    )


def test_an_inner_product_is_the_weighted_mean_of_both_cosines() -> None:
    rng = np.random.default_rng(0)
    # Songs in 3 and in 4 directions: all of it fits into 8.
    network, closed = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 8)), rng.normal(size=(50, 4))
    network, closed = (np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in (network, closed))
    vectors = joined(network, closed, mixture.projection(network, closed, 0.3))
    assert vectors.shape == (50, 8)
    expected = np.float32(0.7) * network @ network.T + np.float32(0.3) * closed @ closed.T
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-5)


def test_the_closed_form_has_a_say(scenes: Dataset, trained: Trained, warm_rows: np.ndarray) -> None:
    alone = train(scenes, warm_rows, replace(SMALL, closed=(0.0,)))
    assert all(np.array_equal(value, trained.encoder.network[name]) for name, value in alone.encoder.network.items())
    assert alone.warm_vectors.shape == trained.warm_vectors.shape
    assert not np.array_equal(alone.warm_vectors, trained.warm_vectors)


def test_another_seed_gives_other_weights(scenes: Dataset, trained: Trained, warm_rows: np.ndarray) -> None:
    assert not same_weights(trained, train(scenes, warm_rows, replace(SMALL, seed=SMALL.seed + 1)))


def test_a_killed_training_resumes_to_the_same_weights(
    scenes: Dataset, trained: Trained, warm_rows: np.ndarray, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.stage == "epochs" and progress.done == 2:
            raise Killed

    checkpoint = tmp_path / "state.safetensors"
    with pytest.raises(Killed):
        train(scenes, warm_rows, SMALL, kill, checkpoint)
    epochs = []
    resumed = train(
        scenes, warm_rows, SMALL, lambda p: epochs.append(p.done) if p.stage == "epochs" else None, checkpoint
    )
    assert min(epochs) == 2
    assert same_weights(trained, resumed)


@pytest.mark.parametrize("change", [{}, {"catalogue": 10, "sampled": 40}], ids=["whole softmax", "sampled softmax"])
def test_a_training_killed_within_an_epoch_resumes_to_the_same_weights(
    scenes: Dataset, warm_rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """A large catalogue has one epoch, of hundreds of steps."""
    config = replace(SMALL, epochs=2, batch=4, **change)
    whole = train(scenes, warm_rows, config)
    monkeypatch.setattr("encoder.train._SAVED", 3)

    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        nonlocal steps
        steps += progress.stage == "epochs"
        if steps == 9:
            raise Killed

    steps, checkpoint = 0, tmp_path / "state.safetensors"
    with pytest.raises(Killed):
        train(scenes, warm_rows, config, kill, checkpoint)
    steps = 10
    assert same_weights(whole, train(scenes, warm_rows, config, kill, checkpoint))
    # After 6 of 28 steps it was written last; the report at the end is one more.
    assert steps - 10 == 28 - 6 + 1


def test_a_card_is_asked_for_in_vain_where_there_is_none(
    scenes: Dataset, warm_rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no card here"):
        train(scenes, warm_rows, SMALL, device="cuda")


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no card on this machine")
        ),
    ],
)
def test_one_seed_on_one_device_gives_the_same_weights(
    scenes: Dataset, trained: Trained, warm_rows: np.ndarray, device: Literal["cpu", "cuda"]
) -> None:
    one, two = (train(scenes, warm_rows, SMALL, device=device) for _ in range(2))
    assert same_weights(one, two)
    # On another device, sums are rounded otherwise.
    np.testing.assert_allclose(
        one.warm_vectors @ one.warm_vectors.T, trained.warm_vectors @ trained.warm_vectors.T, atol=1e-2
    )


def test_a_checkpoint_of_another_run_is_refused(scenes: Dataset, warm_rows: np.ndarray, tmp_path: Path) -> None:
    checkpoint = tmp_path / "state.safetensors"
    train(scenes, warm_rows, replace(SMALL, epochs=1), checkpoint=checkpoint)
    with pytest.raises(ValueError, match="belongs to another run"):
        train(scenes, warm_rows, replace(SMALL, epochs=1, seed=9), checkpoint=checkpoint)


def test_a_single_warm_song_is_refused(scenes: Dataset) -> None:
    with pytest.raises(ValueError, match="at least 2 are needed"):
        train(scenes, np.array([0]), SMALL)


def odd(listens: np.ndarray, sound: np.ndarray | None = None) -> Dataset:
    """Songs by their listens (n, users), tagged by their number modulo 3; with a sound if one is given."""
    n = len(listens)
    tags = sparse.csr_matrix(np.eye(3, dtype=np.float32)[np.arange(n) % 3])
    content = ContentTable(
        tuple(map(str, range(n))),
        {} if sound is None else {"audio": sound.astype(np.float32)},
        {"tags": Bag(("a", "b", "c"), tags)},
    )
    users = tuple(map(str, range(listens.shape[1])))
    return Dataset("odd", content, users, sparse.csr_matrix(listens.astype(np.float32)))


@pytest.mark.parametrize(
    "data",
    [
        odd(np.ones((2, 5))),
        odd(np.ones((20, 5))),
        odd(np.eye(20)),
        odd(np.zeros((20, 5))),
        odd(np.random.default_rng(0).random((20, 2)) < 0.8),
        odd(np.eye(20), np.ones((20, 1))),
        odd(np.eye(20), np.full((20, 2), np.nan)),
    ],
    ids=["two songs", "one audience", "no shared listener", "no listener", "two users", "one sound", "no sound"],
)
@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_odd_data_give_unit_vectors_and_finite_gauges(data: Dataset, loss: Literal["softmax", "bpr"]) -> None:
    found = train(data, np.arange(len(data.song_ids)), replace(SMALL, epochs=2, loss=loss))
    for vectors in (found.warm_vectors, found.encoder.encode(data.content)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert all(np.isfinite(value) for value in found.gauges.values())


def test_targets_are_the_songs_with_the_most_similar_listeners() -> None:
    plays = sparse.csr_matrix(np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 3]], np.float32))
    found = supervision.targets(supervision.listener_rows(plays), 2)
    # cosines of song 0: 2/sqrt(3*2) with 1, 1/sqrt(3*2) with 2, 0 with 3
    assert dict(zip(found.songs[0].tolist(), found.weights[0].tolist(), strict=True)) == {
        1: pytest.approx(2 / 3),
        2: pytest.approx(1 / 3),
    }
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-6)


def test_targets_of_rare_songs_are_warm_ones_and_songs_weigh_by_their_importance() -> None:
    plays = sparse.csr_matrix(np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]], np.float32))
    rare = sparse.csr_matrix(np.array([[0, 0, 0, 1], [1, 1, 0, 0]], np.float32))
    found = supervision.targets(supervision.listener_rows(plays), 2, supervision.listener_rows(rare))
    assert found.songs[3, 0] == 2
    assert found.weights[3].tolist() == [1, 0]
    assert set(found.songs[4]) == {0, 1}
    np.testing.assert_allclose(found.weighed(np.arange(5.0)).weights.sum(axis=1), np.arange(5), rtol=1e-6)


def test_rare_songs_get_their_vectors_in_the_space_of_the_others() -> None:
    plays = (np.random.default_rng(0).random((12, 30)) < 0.4).astype(np.float32)
    listeners = supervision.listener_rows(sparse.csr_matrix(plays))
    vectors = supervision.audience_vectors(listeners, 12, np.random.default_rng(1), listeners[:5])
    np.testing.assert_allclose(vectors[12:], vectors[:5], atol=1e-4)


def test_audience_vectors_keep_the_cosines_of_listener_sets_at_full_rank() -> None:
    plays = (np.random.default_rng(0).random((12, 30)) < 0.4).astype(np.float32)
    listeners = supervision.listener_rows(sparse.csr_matrix(plays))
    vectors = supervision.audience_vectors(listeners, 12, np.random.default_rng(1))
    np.testing.assert_allclose(vectors @ vectors.T, (listeners @ listeners.T).toarray(), atol=1e-4)


def test_info_nce_of_indistinguishable_views_is_the_log_of_the_batch() -> None:
    same = torch.ones(8, 4) / 2
    assert info_nce(same, same, 0.2).item() == pytest.approx(np.log(8), rel=1e-5)
    apart = torch.eye(8)
    assert info_nce(apart, apart, 0.05).item() < 1e-6


def test_the_gauges_tell_how_training_goes(trained: Trained) -> None:
    gauges = trained.gauges
    # 5 targets are drawn nearly by chance from the 13 other songs of a scene; none lies outside it
    assert gauges["recall"] > 5 / 13 - 0.1
    quarters = [gauges[f"recall_q{q}"] for q in range(1, 5)]
    assert np.mean(quarters) == pytest.approx(gauges["recall"], abs=1e-6)
    assert 0 < gauges["alignment"] < 1


def test_gauges_tell_a_collapse() -> None:
    one = torch.ones(8, 4) / 2
    assert collapse(one) == {"uniformity": pytest.approx(0, abs=1e-5), "variance": pytest.approx(0, abs=1e-6)}
    spread = torch.cat([torch.eye(4), -torch.eye(4)])
    gauges = collapse(spread)
    assert gauges["variance"] == pytest.approx(1, rel=1e-5)
    # of 28 pairs, 4 are opposite (squared distance 4) and 24 orthogonal (2)
    assert gauges["uniformity"] == pytest.approx(np.log((4 * np.exp(-8) + 24 * np.exp(-4)) / 28), rel=1e-4)


def test_a_sparse_gradient_moves_its_rows_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 3, generator=generator)
    whole, part = (torch.nn.Parameter(value.clone()) for value in (start, start[[1, 4]]))
    one, two = AdamW([whole], 0.1), AdamW([part], 0.1)
    rows = torch.tensor([4, 1, 4])
    for _ in range(5):
        values = torch.randn(3, 3, generator=generator)
        one.step([torch.sparse_coo_tensor(rows[None], values, start.shape, check_invariants=True)], [0.01])
        two.step([torch.stack([values[1], values[0] + values[2]])], [0.01])
    torch.testing.assert_close(whole[[1, 4]], part)
    assert torch.equal(whole[[0, 2, 3, 5]], start[[0, 2, 3, 5]])


def test_the_optimiser_is_adamw() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(5, generator=generator), torch.randn(20, 5, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    one, two = AdamW([ours], 0.1), torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    for gradient in gradients:
        one.step([gradient], [0.01])
        theirs.grad = gradient
        two.step()
    torch.testing.assert_close(ours, theirs)
