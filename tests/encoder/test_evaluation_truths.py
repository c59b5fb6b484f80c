"""Truths that hold in a large catalogue: on listens, tastes and noise of which the answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import SCENES, SONGS, USERS
from scipy import sparse

from encoder.content import ContentTable
from encoder.data.dataset import Dataset
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from encoder.data.split import Split, split
from encoder.data.world import catalogue, rows
from encoder.evaluation import truths
from encoder.evaluation.retrieval_task import Task, Vectors, task


@pytest.fixture(scope="module")
def asked(scenes: Dataset, warm_rows: np.ndarray, cold_rows: np.ndarray) -> Task:
    return task(scenes, Split(warm_rows, cold_rows))


@pytest.fixture(scope="module")
def devoted(scenes: Dataset, warm_rows: np.ndarray, cold_rows: np.ndarray) -> Task:
    """The same, and every user hears every song of the own scene."""
    own = np.arange(SCENES * SONGS)[:, None] // SONGS == np.arange(SCENES * USERS)[None] // USERS
    return task(replace(scenes, plays=sparse.csr_matrix(own.astype(np.float32))), Split(warm_rows, cold_rows))


def own_scene(cold: Dataset) -> np.ndarray:
    """float32 (cold, warm), 1 for the songs of a cold song's scene."""
    own = np.array([int(name.removeprefix("song")) // SONGS for name in cold.song_ids])
    return (own[:, None] == np.arange(SCENES * (SONGS - 1))[None] // (SONGS - 1)).astype(np.float32)


def in_scenes() -> Vectors:
    """Every song lies in its scene's direction."""
    axes = np.eye(SCENES, dtype=np.float32)
    return Vectors(np.repeat(axes, SONGS - 1, axis=0), lambda cold: axes[own_scene(cold).argmax(1) // (SONGS - 1)])


def best(cold: Dataset, k: int) -> np.ndarray:
    return np.argsort(-own_scene(cold), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("how", ["cosine", "evidence"])
def test_the_nearest_users_of_a_song_are_those_of_its_scene(asked: Task, how: str) -> None:
    def found(k: int) -> np.ndarray:
        if how == "cosine":
            return truths.audience_precision(asked, in_scenes(), asked.cold, k)
        return truths.evidence_precision(asked, best(asked.cold, SONGS - 1), k)

    # Nobody else heard a song of the scene, and of its 30 users those who listen are counted.
    np.testing.assert_allclose(found(USERS), np.diff(asked.cold.plays.indptr) / USERS)
    np.testing.assert_allclose(found(SCENES * USERS), asked.answer.listeners / (SCENES * USERS))


def test_of_whom_retrieved_songs_say_more_stands_before_others(asked: Task) -> None:
    plays = sparse.csr_matrix(np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0]], np.float32))
    # The song is heard by the user of the first one alone, which says 1; the two behind it say .63 and .5.
    cold = replace(asked.cold, plays=sparse.csr_matrix(np.array([[1, 0, 0]], np.float32)))
    known = replace(asked, warm=replace(asked.warm, plays=plays), cold=cold)
    assert truths.evidence_precision(known, np.array([[0, 1, -1]]), k=1) == [1]
    assert truths.evidence_precision(known, np.array([[0, 1, 2]]), k=1) == [0]
    assert truths.evidence_precision(known, np.array([[-1, 1, -1]]), k=2) == [0]


def test_halves_of_users_agree_where_listeners_leave_no_choice(devoted: Task) -> None:
    asked = devoted
    known = truths.truths(asked, 0, None)
    found = truths.bounds(asked, known)
    # The 14 other songs of the scene are all that share listeners.
    np.testing.assert_array_equal(found["agreement"], 1)
    np.testing.assert_array_equal(found["audience"], asked.answer.listeners / 50)
    first, second = (half.listeners for half in known.halves)
    np.testing.assert_array_equal(first + second, asked.answer.listeners)
    assert "taste" not in found
    retrieved = best(asked.cold, 50)
    judged = truths.judge(asked, known, retrieved, in_scenes(), asked.cold)
    np.testing.assert_array_equal(judged["held_out_recall_50"], 1)
    np.testing.assert_allclose(judged["held_out_ndcg_50"], 1)
    # Another scene's songs, which no half knows.
    other = np.roll(retrieved[:, :14], 1, axis=0)
    assert (truths.judge(asked, known, other, in_scenes(), asked.cold)["held_out_recall_50"] == 0).all()


def test_halves_of_users_who_listen_at_random_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    plays = sparse.csr_matrix((rng.random((600, 200)) < 0.2).astype(np.float32))
    content = ContentTable(tuple(f"s{i}" for i in range(600)), {}, {})
    base = Dataset("chance", content, tuple(f"u{i}" for i in range(200)), plays)
    asked = task(base, split(base, 0))
    agreement = truths.bounds(asked, truths.truths(asked, 0, None))["agreement"].mean()
    # The tops hold 50 of 540 songs, and those of few listeners are a little more often in both.
    assert agreement == pytest.approx(50 / 540, abs=0.04)


def test_a_song_that_one_half_never_heard_is_left_out(asked: Task) -> None:
    known = truths.truths(asked, 0, None)
    gone = replace(known.halves[1], neighbours=np.full_like(known.halves[1].neighbours, -1))
    found = truths.bounds(asked, replace(known, halves=(known.halves[0], gone)))
    assert np.isnan(found["agreement"]).all()


def test_by_taste_the_nearest_songs_of_the_world_are_right(tmp_path: Path) -> None:
    world = World(users=300, songs=400, history=20, seed=5)
    generate(world, tmp_path)
    data = read_dataset(tmp_path)
    asked = task(data, split(data, 0))
    known = truths.truths(asked, 0, world)
    assert known.taste is not None
    taste = catalogue(world).taste
    cold, warm = taste[rows(asked.cold.song_ids)], taste[rows(asked.warm.song_ids)]
    by_taste = Vectors(warm, lambda songs: taste[rows(songs.song_ids)])
    retrieved = np.argsort(-(cold @ warm.T), axis=1)[:, :50]
    judged = truths.judge(asked, known, retrieved, by_taste, asked.cold)
    np.testing.assert_array_equal(judged["taste_recall_50"], 1)
    farthest = np.argsort(cold @ warm.T, axis=1)[:, :50]
    assert (truths.judge(asked, known, farthest, by_taste, asked.cold)["taste_recall_50"] == 0).all()
    # Listeners tell of taste, with noise: more than chance, less than all.
    found = truths.bounds(asked, known)["taste"].mean()
    assert 1.5 * 50 / len(warm) < found < 0.9


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_the_ceiling_is_what_noiseless_similarities_score(noise: float) -> None:
    rng = np.random.default_rng(0)
    n, k = 100_000, 2_000
    true = rng.standard_normal(n)
    halves = [true + noise * rng.standard_normal(n) for _ in range(2)]

    def agreement(one: np.ndarray, other: np.ndarray) -> float:
        tops = [set(np.argsort(-values)[:k].tolist()) for values in (one, other)]
        return len(tops[0] & tops[1]) / k

    half, whole = truths.ceilings(agreement(*halves), k / n)
    assert half == pytest.approx(np.mean([agreement(true, each) for each in halves]), abs=0.02)
    assert whole == pytest.approx(agreement(true, sum(halves)), abs=0.02)


def test_ceilings_at_the_ends() -> None:
    assert truths.ceilings(1.0, 0.02) == (1, 1)
    assert truths.ceilings(0.02, 0.02) == (0.02, 0.02)
    assert truths.overlap(0.0, 0.02) == pytest.approx(0.02)
    assert truths.overlap(1.0, 0.02) == pytest.approx(1, abs=1e-3)
