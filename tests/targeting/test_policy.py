from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targeting.policy import Consent, Policy, allows, without
from targeting.types import Match, Preferences

SONG = Match(
    "new", 1, "new", "New", ("a1", "a2"), "space", np.ones(1, np.float32), (), np.ones(0, np.float32), 10, 0, 9
)

wishes = st.builds(
    Preferences,
    user_id=st.just("u"),
    opted_in=st.booleans(),
    country=st.sampled_from([None, "DE", "FR", "JP"]),
    muted_artists=st.frozensets(st.sampled_from(["a1", "a2", "a3"])),
    allow_explicit=st.booleans(),
)
matches = st.builds(
    lambda explicit, territories: replace(SONG, explicit=explicit, territories=tuple(territories)),
    st.booleans(),
    st.lists(st.sampled_from(["DE", "FR", "US"]), unique=True),
)
batches = st.dictionaries(st.integers(0, 9), st.none() | wishes, max_size=8)


@pytest.mark.parametrize(
    ("preferences", "song", "allowed"),
    [
        (Preferences("u"), SONG, True),
        (Preferences("u", opted_in=False), SONG, False),
        (Preferences("u", muted_artists=frozenset({"a2"})), SONG, False),
        (Preferences("u", muted_artists=frozenset({"a3"})), SONG, True),
        (Preferences("u", allow_explicit=False), SONG, True),
        (Preferences("u", allow_explicit=False), replace(SONG, explicit=True), False),
        (Preferences("u", country="DE"), replace(SONG, territories=("FR",)), False),
        (Preferences("u", country="FR"), replace(SONG, territories=("FR",)), True),
        (Preferences("u"), replace(SONG, territories=("FR",)), False),
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
    consent, last = Consent(Policy(default=default)), dict[int, Preferences | None]()
    for batch in applied:
        consent.apply(batch)
        last |= batch
    last |= staged
    users = np.asarray([0, 2, 3, 5, 6, 7, 9, 40])
    expected = [allows(last.get(user) or default, match) for user in users.tolist()]
    assert consent.allowed(match, users, staged).tolist() == expected


def test_switched_off_everybody_is_allowed() -> None:
    consent = Consent(Policy(enabled=False))
    nobody = Preferences("u", opted_in=False)
    consent.apply({0: nobody})
    assert consent.allowed(SONG, np.asarray([0, 1]), {1: nobody}).tolist() == [True, True]


def test_without() -> None:
    users = np.asarray([2, 5, 7, 9])
    assert without(users, [np.asarray([5, 1]), np.zeros(0, np.int64), np.asarray([9, 99])]).tolist() == [
        True, False, True, False,
    ]  # fmt: skip
    assert without(users[:0], [np.asarray([5])]).tolist() == []
