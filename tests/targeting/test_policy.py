from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from targeting.arrays.id_table import hash64, mixed
from targeting.rules.policy import Policy, allows, fairness, held_out, hold_back
from targeting.types import Match, Preferences, QuietSpan, Suppression
from targeting.users.preferences import PreferenceTable

SONG = Match(
    "new", 1, "new", "New", ("a1", "a2"), "space", np.ones(1, np.float32), (), np.ones(0, np.float32), 10, 0, 9
)

wishes = st.builds(
    Preferences,
    opted_in=st.booleans(),
    country=st.sampled_from([None, "DE", "FR", "JP"]),
    muted_artists=st.frozensets(st.sampled_from(["a1", "a2", "a3"])),
    allow_explicit=st.booleans(),
)
matches = st.builds(
    lambda explicit, territories: structs.replace(SONG, explicit=explicit, territories=tuple(territories)),
    st.booleans(),
    st.lists(st.sampled_from(["DE", "FR", "US"]), unique=True),
)
batches = st.dictionaries(st.integers(0, 9), st.none() | wishes, max_size=8)


@pytest.mark.parametrize(
    ("preferences", "song", "allowed"),
    [
        (Preferences(), SONG, True),
        (Preferences(opted_in=False), SONG, False),
        (Preferences(muted_artists=frozenset({"a2"})), SONG, False),
        (Preferences(muted_artists=frozenset({"a3"})), SONG, True),
        (Preferences(allow_explicit=False), SONG, True),
        (Preferences(allow_explicit=False), structs.replace(SONG, explicit=True), False),
        (Preferences(country="DE"), structs.replace(SONG, territories=("FR",)), False),
        (Preferences(country="FR"), structs.replace(SONG, territories=("FR",)), True),
        (Preferences(), structs.replace(SONG, territories=("FR",)), False),
    ],
)
def test_each_rule(preferences: Preferences, song: Match, allowed: bool) -> None:
    assert allows(preferences, song) is allowed


@settings(max_examples=200)
@given(st.lists(batches, max_size=4), batches, wishes, matches)
def test_thousands_at_once_are_what_one_by_one_is(
    applied: list[dict[int, Preferences | None]],
    staged: dict[int, Preferences | None],
    default: Preferences,
    match: Match,
) -> None:
    consent, last = PreferenceTable(Policy(default=default)), dict[int, Preferences | None]()
    for batch in applied:
        consent.apply(batch)
        last |= batch
    last |= staged
    users = np.asarray([0, 2, 3, 5, 6, 7, 9, 40])
    expected = [allows(last.get(user) or default, match) for user in users.tolist()]
    assert consent.allowed(match, users, staged).tolist() == expected
    out = [not (last.get(user) or default).opted_in for user in users.tolist()]
    assert consent.opted_out(users, staged).tolist() == out


def test_switched_off_everybody_is_allowed() -> None:
    consent = PreferenceTable(Policy(enabled=False))
    nobody = Preferences(opted_in=False)
    consent.apply({0: nobody})
    assert consent.allowed(SONG, np.asarray([0, 1]), {1: nobody}).tolist() == [True, True]


def test_the_first_reason_that_holds_a_user_back_stays() -> None:
    users, held = np.asarray([2, 5, 7, 9]), np.zeros(4, np.uint8)
    hold_back(held, users, np.asarray([5, 1]), Suppression.HEARD)
    hold_back(held, users, np.zeros(0, np.int64), Suppression.ERASED)
    hold_back(held, users, np.asarray([99, 9, 5]), Suppression.ALREADY_PUSHED)
    assert held.tolist() == [0, Suppression.HEARD, 0, Suppression.ALREADY_PUSHED]
    hold_back(held[:0], users[:0], np.asarray([5]), Suppression.HEARD)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_share_held_out_is_right_and_another_lot_for_each_song_and_salt(share: float) -> None:
    users, n = hash64([f"u{number}" for number in range(20_000)]), 20_000
    policy = Policy(holdout=share)
    found = held_out(users, "new", policy)
    allowed = 5 * (n * share * (1 - share)) ** 0.5
    assert abs(int(found.sum()) - n * share) <= allowed
    for other in (held_out(users, "other", policy), held_out(users, "new", replace(policy, salt="2"))):
        both = int((found & other).sum())
        assert abs(both - n * share**2) <= 5 * (n * share**2 * (1 - share**2)) ** 0.5


def test_who_is_held_out_follows_the_documented_formula() -> None:
    users = hash64([f"u{number}" for number in range(500)])
    draws = mixed(users, int(hash64(["pepper/new"])[0]))
    expected = [int(draw) < 0.3 * 2**64 for draw in draws]
    assert held_out(users, "new", Policy(holdout=0.3, salt="pepper")).tolist() == expected


def test_fairness_falls_from_one_to_nothing() -> None:
    used, pushes = np.arange(6, dtype=np.float64), np.full(6, 4.0)
    found = fairness(used, pushes)
    assert found[[0, 4, 5]].tolist() == pytest.approx([1, 0, 0], abs=1e-12)
    assert (np.diff(found[:5]) < 0).all()
    assert found[2] == pytest.approx((1 - np.exp(-0.5)) / (1 - np.exp(-1)))
    assert fairness(np.asarray([0.0, 50.0]), np.asarray([np.inf, np.inf])).tolist() == [1, 1]


def test_quiet_hours_are_the_users_own_the_staged_ones_first_and_the_default_of_who_never_said() -> None:
    night, noon = (QuietSpan(22 * 60, 7 * 60),), (QuietSpan(0, 12 * 60),)
    consent = PreferenceTable(Policy(default=Preferences(quiet=night)))
    consent.apply({0: Preferences(), 1: Preferences(quiet=noon), 2: None, 3: Preferences(quiet=noon)})
    midnight = 1_700_006_400.0  # 00:00:00 UTC
    staged = {3: None, 4: Preferences(timezone="Asia/Kolkata", quiet=night)}
    found = consent.not_before(np.asarray([4, 3, 2, 1, 0, 99]), midnight, staged)
    # In Kolkata it is 05:30.
    assert ((found - midnight) / 3600).tolist() == [1.5, 7, 7, 12, 0, 7]
    off = PreferenceTable(Policy(enabled=False, default=Preferences(quiet=night)))
    assert off.not_before(np.asarray([0]), midnight, {}).tolist() == [midnight]
