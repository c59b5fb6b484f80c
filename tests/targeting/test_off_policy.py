"""Another way of choosing, judged from a log whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from targeting.evaluation.off_policy import Estimate, spent_so, worth
from targeting.types import F64

SONGS, USERS = 60, 40


def log(seed: int) -> tuple[F64, F64, F64, list[str], float, float]:
    """Pushes made at random with unlike chances, and a way that prefers whom the log avoids.

    Returns:
        answered, shown, would, songs; the answers a push that the way would truly have, and those of the log itself.
    """
    rng = np.random.default_rng(seed)
    fit = rng.random((SONGS, USERS))
    truth = 0.05 + 0.4 * fit * rng.random((SONGS, 1))
    shown, would = 0.1 + 0.5 * (1 - fit), fit**2
    made = rng.random(fit.shape) < shown
    answered = (rng.random(fit.shape) < truth)[made].astype(np.float64)
    songs = [f"s{song}" for song in np.nonzero(made)[0].tolist()]
    true = float((would * truth).sum() / would.sum())
    return answered, shown[made], would[made], songs, true, float((shown * truth).sum() / shown.sum())


def covers(found: Estimate, true: float) -> bool:
    return found.low <= true <= found.high


def test_the_truth_of_another_way_is_found_and_lies_in_nineteen_of_twenty_intervals() -> None:
    logs = [log(seed) for seed in range(100)]
    found = [worth(answered, shown, would, songs) for answered, shown, would, songs, _, _ in logs]
    misses = [each.mean - true for each, (*_, true, _) in zip(found, logs, strict=True)]
    assert abs(np.mean(misses)) < 0.005
    assert 88 <= sum(covers(each, true) for each, (*_, true, _) in zip(found, logs, strict=True)) <= 99
    # What the log itself brought would mislead: it avoids whom the way prefers.
    assert np.mean([true - own for *_, true, own in logs]) > 0.05
    plain = [float(np.mean(answered)) for answered, *_ in logs]
    assert np.mean([own for *_, own in logs]) == pytest.approx(np.mean(plain), abs=0.01)


def test_the_same_way_is_the_plain_mean_and_every_push_counts() -> None:
    answered, shown, _, songs, _, _ = log(0)
    same = worth(answered, shown, shown, songs)
    assert same.mean == pytest.approx(answered.mean())
    assert same.effective == pytest.approx(len(answered))
    assert same.low < same.mean < same.high


def test_few_pushes_that_count_are_told() -> None:
    answered, shown, _, songs, _, _ = log(1)
    one = np.zeros(len(answered))
    one[:3] = 1
    assert worth(answered, shown, one, songs).effective <= 3


def test_spending_over_songs_is_judged_by_their_random_pushes() -> None:
    rng = np.random.default_rng(3)
    chances = rng.beta(2, 10, 400)
    explored = rng.integers(0, 12, 400).astype(float)
    answered = rng.binomial(explored.astype(int), chances).astype(float)
    for pushes in (np.full(400, 70.0), 300 * chances, np.where(chances > 0.2, 100.0, 10.0)):
        found = spent_so(explored, answered, pushes)
        assert covers(found, float(pushes @ chances / pushes.sum()))
        assert spent_so(explored, answered, 5 * pushes).mean == pytest.approx(found.mean)
    alike, better = (spent_so(explored, answered, pushes) for pushes in (np.ones(400), chances))
    assert better.low > alike.high
    seen = explored > 0
    rates = answered[seen] / explored[seen]
    assert alike.mean == pytest.approx(rates.mean())


def test_a_log_that_says_nothing_is_refused() -> None:
    one = np.ones(2)
    for shown, would, words in (
        (np.zeros(2), one, "chances"),
        (one, 2 * one, "chances"),
        (one, np.zeros(2), "says nothing"),
        (np.ones(3), one, "3 and 2 chances"),
    ):
        with pytest.raises(ValueError, match=words):
            worth(one, shown, would, ["a", "b"])
    with pytest.raises(ValueError, match="says nothing"):
        spent_so(np.zeros(4), np.zeros(4), np.ones(4))
