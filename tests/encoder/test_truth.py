"""The truth and the scores, on listeners whose cosines can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from encoder.content import ContentTable
from encoder.data.dataset import Dataset
from encoder.data.split import Split
from encoder.truth import Truth, quartiles, score, truth

LISTENERS = [
    {0, 1, 2, 3},  # cold
    {0, 1, 2, 3},  # cosine 1
    {0, 1},  # 2 / sqrt(4 * 2)
    {3, 4, 5, 6},  # 1 / 4
    {4, 5},  # nobody shared
    {0, 1, 2, 3, 4, 5, 6, 7, 8},  # 4 / sqrt(4 * 9)
]


def dataset() -> Dataset:
    plays = np.zeros((len(LISTENERS), 9), np.float32)
    for song, users in enumerate(LISTENERS):
        plays[song, list(users)] = 1 + song * 10  # play counts must not matter
    content = ContentTable(tuple(f"s{i}" for i in range(len(LISTENERS))))
    return Dataset("d", content, tuple("abcdefghi"), sparse.csr_matrix(plays))


PARTS = Split(warm=np.array([1, 2, 3, 4, 5]), cold=np.array([0]))


def test_neighbours_are_ranked_by_the_cosine_of_listener_sets() -> None:
    answer = truth(dataset(), PARTS, k=6)
    np.testing.assert_array_equal(answer.neighbours, [[0, 1, 4, 2, -1, -1]])
    np.testing.assert_allclose(answer.cosines, [[1, 2 / 8**0.5, 4 / 6, 1 / 4, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(answer.listeners, [4])


def test_only_the_first_k_are_true() -> None:
    np.testing.assert_array_equal(truth(dataset(), PARTS, k=2).neighbours, [[0, 1]])


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Split(warm=np.array([0, 1, 2]), cold=np.array([3, 4, 5]))
    whole = truth(dataset(), parts, k=3)
    monkeypatch.setattr("encoder.truth.BLOCK", 2)
    pieces = truth(dataset(), parts, k=3)
    np.testing.assert_array_equal(whole.neighbours, pieces.neighbours)
    np.testing.assert_array_equal(whole.cosines, pieces.cosines)


def answer(*neighbours: list[int]) -> Truth:
    found = np.array(neighbours)
    return Truth(found, (found >= 0).astype(np.float32), np.arange(len(found)))


def test_the_truth_itself_scores_one_and_its_absence_zero() -> None:
    true = answer([3, 1, 2], [5, -1, -1])
    best = score(np.array([[1, 2, 3], [5, 0, 1]]), true)
    np.testing.assert_allclose(best.recall, [1, 1])
    np.testing.assert_allclose(best.ndcg, [1, 1])
    worst = score(np.array([[7, 8, 9], [-1, -1, -1]]), true)
    np.testing.assert_allclose(worst.recall, [0, 0])
    np.testing.assert_allclose(worst.ndcg, [0, 0])


def test_a_late_hit_is_discounted() -> None:
    got = score(np.array([[9, 1, 8]]), answer([1, 2, 3]))
    assert got.recall[0] == pytest.approx(1 / 3)
    assert got.ndcg[0] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3) + 1 / 2))


def test_a_song_without_any_truth_scores_zero() -> None:
    got = score(np.array([[1, 2]]), answer([-1, -1]))
    assert (got.recall[0], got.ndcg[0]) == (0, 0)


def test_quartiles_run_from_the_tail_to_the_head() -> None:
    np.testing.assert_array_equal(quartiles(np.array([90, 10, 40, 20, 70, 30, 80, 60])), [3, 0, 1, 0, 2, 1, 3, 2])
    got = score(np.array([[0], [0], [1], [1]]), answer([0], [1], [1], [0]))
    assert got.by_quartile(got.recall) == [1, 0, 1, 0]


def test_different_songs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 songs"):
        score(np.zeros((2, 3), np.int64), answer([1, 2, 3]))
