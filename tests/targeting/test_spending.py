"""What is left of budgets follows answers; what is guaranteed does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_partition import NOW, WARM, Driver, asking, hearing

from targeting.campaigns.campaign import CampaignRecord
from targeting.campaigns.spending import Bandit, Spending, drawn, known, so_far
from targeting.partition.partition import TargetingConfig
from targeting.rules.policy import Policy
from targeting.types import FrequencyCap, Mark, Match, OutcomeCounts, Outcomes, PartitionOutputs, Push

DAY = 86_400.0
FREE = Policy(cap=FrequencyCap(1000, 24.0), artist_cap=FrequencyCap(1000, 24.0), fair=False)


def campaign(song_id: str, told: int = 0, answered: int = 0, **changes: object) -> CampaignRecord:
    counts = OutcomeCounts(pushed=told, opened=answered, dismissed=told - answered, listened=answered)
    return CampaignRecord(asking(song_id, expires_at=NOW + 28 * DAY, **changes), counts)


def bandit(*campaigns: CampaignRecord, salt: str = "1", number: int = 0, guaranteed: float = 0.0) -> Bandit:
    made = Bandit(salt, number, 1, guaranteed)
    for each in campaigns:
        made.remember(None, each)
    return made


def rates(made: Bandit, *campaigns: CampaignRecord, days: float = 1.0) -> list[float]:
    by_id = {each.match.song_id: each for each in campaigns}
    return made.plan(list(by_id), by_id.get, NOW + days * DAY).rates.tolist()


# -- what is drawn


def test_a_draw_is_one_of_the_beta_distribution_over_the_mean() -> None:
    normals = np.random.default_rng(0).standard_normal((1, 20_000))
    for told, answered, mean, near in ((0, 0, 0.1, 0.06), (50, 12, 0.1, 0.03), (400, 8, 0.05, 0.03)):
        found = drawn(np.array([[told, answered]], float), mean, normals)[0] * mean
        exact = stats.beta(20 * mean + answered, 20 * (1 - mean) + told - answered)
        for share in (0.25, 0.5, 0.75, 0.9):
            assert exact.cdf(np.quantile(found, share)) == pytest.approx(share, abs=near)
        assert found.min() >= mean / 4
        assert found.max() <= mean * 4


def test_what_was_planned_before_a_new_draw_stays_planned() -> None:
    draws = np.array([[2.0, 0.5, 1.0, 4.0]])
    planned = [age * so_far(draws, np.array([age]))[0] for age in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(planned, [0, 0.25, 0.5, 0.625, 0.875, 1.875])
    assert so_far(draws, np.zeros(1))[0] == 2


def test_only_pushes_whose_outcome_was_told_count() -> None:
    assert known(OutcomeCounts(pushed=90, delivered=80, failed=5, opened=4, dismissed=2, expired=10, listened=3)) == (
        16,
        3,
    )
    # Listens may come before outcomes.
    assert known(OutcomeCounts(pushed=90, listened=3)) == (0, 0)


def test_the_mean_follows_what_is_remembered() -> None:
    one, two = campaign("one", 100, 30), campaign("two", 100, 10)
    made = bandit(one, two)
    assert made.mean == pytest.approx(41 / 210)
    made.remember(one, campaign("one", 200, 30))
    assert made.mean == pytest.approx(41 / 310)
    made.remember(two, None)
    assert made.mean == pytest.approx(31 / 210)


def test_campaigns_spend_as_their_pushes_are_answered() -> None:
    songs = [campaign(f"good {n}", 100, 20) for n in range(50)] + [campaign(f"poor {n}", 100, 5) for n in range(50)]
    made = bandit(*songs)
    found = rates(made, *songs, days=20)
    # With twenty pushes of the mean, .125, beside their own hundred.
    assert np.mean(found[:50]) == pytest.approx((20 + 2.5) / 120 / 0.125, rel=0.05)
    assert np.mean(found[50:]) == pytest.approx((5 + 2.5) / 120 / 0.125, rel=0.05)
    # Among those of whom nothing is known some are tried more than others.
    fresh = [campaign(f"new {n}") for n in range(50)]
    assert np.std(rates(made, *fresh, days=0)) > 0.3


def test_without_any_outcome_the_time_alone_decides() -> None:
    songs = [campaign(f"new {n}") for n in range(9)]
    assert rates(bandit(*songs), *songs) == [1.0] * 9


def test_draws_rest_on_salt_partition_song_and_time_alone() -> None:
    songs = [campaign(f"{n}", 40, n) for n in range(10)]
    first = rates(bandit(*songs), *songs)
    assert rates(bandit(*reversed(songs)), *reversed(songs)) == first[::-1]
    assert rates(bandit(*songs), *songs) == first
    for other in (bandit(*songs, salt="2"), bandit(*songs, number=1)):
        assert rates(other, *songs) != first
    assert rates(bandit(*songs), *songs, days=2.0) != first


def test_a_place_without_a_campaign_spends_as_the_time_has_it() -> None:
    song = campaign("a", 100, 50)
    plan = bandit(song, guaranteed=1.0).plan([None, "a", "gone"], {"a": song}.get, NOW + DAY)
    assert (plan.rates[0], plan.rates[2]) == (1, 1)
    assert (plan.threshold_factors[0], plan.threshold_factors[2]) == (1, 1)
    assert plan.rates[1] > 1


def test_what_is_guaranteed_and_late_opens_the_door() -> None:
    none = replace(campaign("a", budget=100), counts=OutcomeCounts(pushed=19, dismissed=500))
    made = bandit(none, campaign("b", 500, 250), guaranteed=0.2)
    factors = [
        float(made.plan(["a"], {"a": none}.get, NOW + hours * 3600).threshold_factors[0]) for hours in (0, 6, 12, 48)
    ]
    assert factors == [1.0, 0.5, 0.0, 0.0]
    assert rates(made, none) == [1.0]
    assert made.owed(none) == 1
    done = replace(none, counts=OutcomeCounts(pushed=20, dismissed=500))
    assert made.owed(done) == 0
    assert made.plan(["a"], {"a": done}.get, NOW + 2 * DAY).threshold_factors[0] == 1
    assert rates(made, done)[0] < 0.5


# -- in a partition


def asked(song_id: str, **changes: object) -> Match:
    return asking(song_id, budget=100, expires_at=NOW + 28 * DAY, artist_ids=(song_id,), **changes)


def answer(driver: Driver, pushes: list[Push], chance: dict[str, float], now: float) -> None:
    """Every push is told: as many of a song's are opened and listened to as its chance says, by turns."""
    if not pushes:
        return
    turn: dict[str, float] = {}
    marks, listened = [], []
    for push in pushes:
        song_id = push.match.song_id
        turn[song_id] = turn.get(song_id, 0.5) + chance[song_id]
        yes = turn[song_id] >= 1
        turn[song_id] -= yes
        marks.append(Mark.OPENED if yes else Mark.DISMISSED)
        if yes:
            listened.append((push.user_id, song_id))
    users, songs = [push.user_id for push in pushes], [push.match.song_id for push in pushes]
    told = Outcomes(users, songs, np.asarray(marks, np.uint16), np.full(len(users), now))
    driver.do(outcomes=told, now=now, listens=hearing(listened, now) if listened else None)


def arrive(driver: Driver, ids: range, now: float) -> PartitionOutputs:
    """Users who are near the songs asked for."""
    return driver.do(listens=hearing([(f"n{i}", f"s{i % WARM * k}") for i in ids for k in (0, 1)], now), now=now)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.9]), min_size=1, max_size=4),
    st.floats(0.05, 0.7),
    st.integers(0, 40),
    st.text("abc", min_size=1, max_size=3),
)
def test_the_floor_holds_whatever_answers_and_draws_are(
    chances: list[float], share: float, known_users: int, salt: str
) -> None:
    """All but one campaign may be refused by everybody: each has its pushes within the day: enough users come near."""
    driver = Driver(TargetingConfig(policy=replace(FREE, salt=salt), guaranteed=share, spending=Spending.BANDIT))
    songs = {f"x{n}": chance for n, chance in enumerate(chances)} | {"loved": 1.0}
    driver.do(listens=hearing([(f"u{i}", f"s{i % WARM}") for i in range(known_users)] or [("u", "s5")]))
    pushed = dict.fromkeys(songs, 0)
    batch = driver.do(*(asked(song_id) for song_id in songs)).pushes
    for hour in range(2, 25, 2):
        for push in batch:
            pushed[push.match.song_id] += 1
        answer(driver, list(batch), songs, NOW + hour * 3600 - 1800)
        batch = arrive(driver, range(30 * hour, 30 * hour + 60), NOW + hour * 3600 - 900).pushes
    for push in batch:
        pushed[push.match.song_id] += 1
    assert min(pushed.values()) >= int(100 * share + 0.5)
    assert driver.restored().digest() == driver.partition.digest()


def live(spending: Spending, chance: dict[str, float], salt: str = "1") -> tuple[Driver, dict[str, int], list[Push]]:
    """Two songs of the same vector, users who take one push a day: how often each is pushed to who comes later."""
    policy = Policy(cap=FrequencyCap(1, 24.0), artist_cap=FrequencyCap(1, 24.0), fair=False, salt=salt)
    driver = Driver(TargetingConfig(policy=policy, at_once=0.3, spending=spending, guaranteed=0.0))
    driver.do(listens=hearing([(f"u{i}", f"s{(i + k) % WARM}") for i in range(400) for k in (0, 1)]))
    pushes = list(driver.do(*(asked(song_id) for song_id in chance)).pushes)
    counts, told = dict.fromkeys(chance, 0), []
    for day in range(1, 10):
        answer(driver, pushes, chance, NOW + day * DAY - 3600)
        pushes = list(arrive(driver, range(10 * day, 10 * day + 10), NOW + day * DAY).pushes)
        told += pushes
        for push in pushes:
            counts[push.match.song_id] += 1
    return driver, counts, told


@pytest.mark.parametrize("salt", ["1", "2"])
def test_of_two_songs_that_want_the_same_users_the_better_answered_one_gets_more(salt: str) -> None:
    for better, worse in (("a", "b"), ("b", "a")):
        _, found, _ = live(Spending.BANDIT, {"a": 0.0, "b": 0.0} | {better: 0.5, worse: 0.05}, salt)
        assert found[better] > 1.5 * found[worse] > 0


def test_what_is_replayed_is_decided_again_and_what_is_restored_is_the_same() -> None:
    one, _, pushes = live(Spending.BANDIT, {"a": 0.5, "b": 0.1})
    two, _, again = live(Spending.BANDIT, {"a": 0.5, "b": 0.1})
    assert [(p.user_id, p.match.song_id, p.score) for p in pushes] == [
        (p.user_id, p.match.song_id, p.score) for p in again
    ]
    assert one.log == two.log
    restored = one.restored()
    assert restored.digest() == one.partition.digest()
    states = [each._state for each in (restored, one.partition)]
    first, second = (each.bandit.plan(["a", "b"], each.campaigns.get, NOW + 27.5 * DAY) for each in states)
    assert first.rates.tolist() == second.rates.tolist()
    assert first.priorities.tolist() == second.priorities.tolist()
    assert states[0].bandit.mean == states[1].bandit.mean
