from __future__ import annotations

import numpy as np
import pytest

from targeting.campaigns.pacing import opening, thresholds


def at(remaining: float, now: float, budget: float = 100) -> float:
    """The threshold of a campaign from 0 to 1000, opened at .5 with a scale of .1."""
    one = [np.asarray([value]) for value in (0.5, 0.1, budget, remaining, 0.0, 1000.0)]
    return float(thresholds(*one, now)[0])


def test_as_many_users_as_pushes_reach_the_first_threshold() -> None:
    scores = np.arange(1000, dtype=np.float32) / 1000
    for share in (0.05, 0.2, 0.5, 1.0):
        assert (scores >= opening(scores, share).first).sum() == pytest.approx(1000 * share, abs=2)


@pytest.mark.parametrize("wanted", [10, 100, 1000])
def test_a_share_that_a_sample_does_not_show_is_told_by_the_tail(wanted: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.exponential(0.1, 100_000).astype(np.float32)
    reached = (scores >= opening(scores[:2048], wanted / len(scores)).first).sum()
    assert wanted / 3 <= reached <= 3 * wanted


def test_scores_that_are_all_alike_and_none_at_all() -> None:
    alike = opening(np.full(50, 0.3, np.float32), 0.5)
    assert alike.first == pytest.approx(0.3)
    assert alike.scale > 0
    assert 0 < opening(np.zeros(0, np.float32), 0.5).first < 1e-9


def test_on_plan_the_threshold_stays() -> None:
    for passed in (0.0, 0.25, 0.5, 0.99):
        assert at(100 * (1 - passed), 1000 * passed) == pytest.approx(0.5)


def test_ahead_of_the_plan_it_rises_and_behind_it_falls() -> None:
    assert at(remaining=40, now=500) > at(remaining=50, now=500) > at(remaining=60, now=500)
    assert at(remaining=50, now=400) > at(remaining=50, now=600)


def test_a_slow_campaign_asks_for_ten_times_as_many_and_no_worse() -> None:
    assert at(remaining=100, now=999) == pytest.approx(0.5 - 0.1 * np.log(10))


def test_no_push_left_or_no_time_is_never_a_hit() -> None:
    assert at(remaining=0, now=0) == np.inf
    assert at(remaining=50, now=1000) == np.inf
    assert at(remaining=0, now=0, budget=0) == np.inf


@pytest.mark.parametrize("times_as_many", [1, 10, 100])
def test_pushes_spread_over_the_time_however_many_users_come(times_as_many: int) -> None:
    rng, budget, users = np.random.default_rng(0), 500, 20_000
    scores = rng.exponential(0.1, users * times_as_many)
    times = np.sort(rng.random(len(scores))) * 1000
    opened = opening(scores[:2048].astype(np.float32), budget / users)
    remaining, halfway = budget, 0
    for start in range(0, len(scores), 200):
        now = float(times[start])
        one = [np.asarray([value]) for value in (opened.first, opened.scale, budget, remaining, 0.0, 1000.0)]
        reached = int((scores[start : start + 200] >= thresholds(*one, now)).sum())
        remaining -= min(reached, remaining)
        if now < 500:
            halfway = budget - remaining
    assert 0.4 * budget <= halfway <= 0.8 * budget
    assert budget - remaining >= 0.8 * budget
