from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targeting.arrays.id_table import IdTable
from targeting.calibration import Calibration, fit
from targeting.ranking.scored import Scored
from targeting.ranking.selection import SelectionContext, choose
from targeting.rules.policy import Policy
from targeting.types import F32, Match
from targeting.users.frequency_caps import FrequencyCaps
from targeting.users.preferences import PreferenceTable
from targeting.users.push_log import Added, PushLog
from targeting.users.score_thresholds import ScoreThresholds

SIMPLE = Calibration((0.2, 0.4, 0.8), (0.0, 0.1, 0.5))


def test_between_knots_it_is_linear_and_beyond_them_flat() -> None:
    asked = np.asarray([0, 0.2, 0.3, 0.6, 0.8, 1], np.float32)
    np.testing.assert_allclose(SIMPLE.chance(asked), [0, 0, 0.05, 0.3, 0.5, 0.5], atol=1e-6)


def test_a_prior_goes_on_beyond_the_last_knot_as_steeply_in_log_odds() -> None:
    asked = np.asarray([0, 0.3, 0.8, 1.2, 1.6], np.float32)
    # From .1 at .4 to .5 at .8 the odds grow ninefold.
    np.testing.assert_allclose(SIMPLE.prior(asked), [0, 0.05, 0.5, 0.9, 81 / 82], rtol=1e-5)


@given(
    st.lists(
        st.tuples(st.floats(0, 1, width=32), st.floats(0, 1)), min_size=1, max_size=40, unique_by=lambda at: at[0]
    ),
    st.lists(st.floats(0, 4, width=32), min_size=2, max_size=50),
)
def test_priors_are_chances_that_never_fall(knots: list[tuple[float, float]], asked: list[float]) -> None:
    some = Calibration(tuple(sorted(score for score, _ in knots)), tuple(sorted(chance for _, chance in knots)))
    scores = np.asarray(sorted(asked), np.float32)
    priors = some.prior(scores)
    assert (np.diff(priors) >= 0).all()
    assert ((some.chance(scores) <= priors) & (priors <= 1)).all()
    within = scores <= some.scores[-1]
    assert (priors[within] == some.chance(scores[within])).all()


@pytest.mark.parametrize("seed", range(3))
def test_known_chances_are_found_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = (rng.random(200_000) ** 3).astype(np.float32)
    truth = 0.02 + 0.6 * scores**2
    found = fit(scores, rng.random(len(scores)) < truth)
    assert np.abs(found.chance(scores) - truth).mean() < 0.006
    best = scores > 0.9
    # Three standard errors of the highest bins.
    assert np.abs(found.chance(scores[best]) - truth[best]).mean() < 0.04


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=2000))
def test_whatever_is_fitted_is_a_calibration_and_survives_json(pairs: list[tuple[float, bool]]) -> None:
    scores = np.asarray([score for score, _ in pairs], np.float32)
    listened = np.asarray([each for _, each in pairs])
    found = fit(scores, listened)
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found
    if len(pairs) <= 200:
        assert found.chances == (pytest.approx(listened.mean()),)


@pytest.mark.parametrize(
    ("scores", "chances"),
    [
        ((), ()),
        ((0.1,), (0.1, 0.2)),
        ((0.2, 0.1), (0, 1)),
        ((0.1, 0.2), (0.5, 0.4)),
        ((0.1,), (1.2,)),
        ((np.nan,), (0.5,)),
    ],
)
def test_what_is_no_map_is_refused(scores: tuple[float, ...], chances: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(scores, chances)


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(ValueError, match="needs scores and chances"):
        Calibration.from_json({"scores": [1.0]})


def candidates(scores: F32, both: bool = True) -> tuple[Match, Scored, IdTable]:
    users = IdTable()
    users.take([f"u{i}" for i in range(len(scores))])
    nothing = np.zeros(0, np.int32)
    rows = np.arange(len(scores))
    scored = Scored(rows, scores, scores / 2, scores / 2, nothing, nothing, np.zeros(0, np.float32), both)
    match = Match("n", 1, "n", "", (), "s", np.zeros(1, np.float32), (), np.zeros(0, np.float32), 9, 0, 1)
    return match, scored, users


def deciding(users: IdTable, calibration: Calibration | None = None, least_chance: float = 0.0) -> SelectionContext:
    policy = Policy(enabled=False)
    consent, ledger = PreferenceTable(policy), PushLog()
    room = FrequencyCaps(policy, consent, ledger, {}, Added(), np.zeros(0, np.int64))
    return SelectionContext(0.0, policy, users, consent, {}, ScoreThresholds(), room, calibration, least_chance)


def test_pushes_tell_chances_and_keep_their_order() -> None:
    match, scored, users = candidates(np.asarray([0.9, 0.3, 0.6, 0.85], np.float32))
    raw = choose(match, scored, np.zeros(4, np.uint8), 4, deciding(users))
    told = choose(match, scored, np.zeros(4, np.uint8), 4, deciding(users, SIMPLE))
    assert told.users.tolist() == raw.users.tolist() == [0, 3, 2, 1]
    assert [each.score for each in told.pushes] == pytest.approx([0.634, 0.568, 0.3, 0.05], abs=1e-3)
    assert all(each.calibrated for each in told.pushes)
    assert not any(each.calibrated for each in raw.pushes)
    assert choose(match, scored, np.zeros(4, np.uint8), 4, deciding(users, SIMPLE, 0.2)).users.tolist() == [0, 3, 2]
    assert choose(match, scored, np.zeros(4, np.uint8), 4, deciding(users, SIMPLE, 0.6)).users.tolist() == [0]
    assert choose(match, scored, np.zeros(4, np.uint8), 4, deciding(users, SIMPLE, 0.7)).users.tolist() == []


def test_a_song_scored_by_one_sign_has_no_chances() -> None:
    match, scored, users = candidates(np.asarray([0.9, 0.3], np.float32), both=False)
    found = choose(match, scored, np.zeros(2, np.uint8), 2, deciding(users, SIMPLE, 0.2))
    assert [each.score for each in found.pushes] == pytest.approx([0.9, 0.3])
    assert not any(each.calibrated for each in found.pushes)
