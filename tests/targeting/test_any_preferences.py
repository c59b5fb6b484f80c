"""Any preferences and any requests that are legal one by one: served without an exception, and nobody pushed against
the rules, at the request, as users come near later, and after a restart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition, TargetingConfig
from targeting.rules.policy import Policy
from targeting.types import (
    FrequencyCap,
    Listens,
    Match,
    PartitionInputs,
    PartitionOutputs,
    Preferences,
    Push,
    QuietSpan,
)

NOW = 1_700_000_000.25
DAY = 86_400.0
LAST = 253_402_300_799.0  # 9999-12-31T23:59:59Z
USERS = [f"u{number}" for number in range(8)]
WARM = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
ALL_DAY = (QuietSpan(0, 720), QuietSpan(720, 0))


def catalogue() -> Catalogue:
    songs = Catalogue()
    songs.set_vectors("space", [f"w{number}" for number in range(len(WARM))], WARM)
    return songs


def song(song_id: str = "new", **changes: object) -> Match:
    fields: dict[str, object] = {
        "song_id": song_id, "revision": 1, "recording": song_id, "title": "", "artist_ids": ("a1",),
        "space": "space", "vector": WARM[0] / np.linalg.norm(WARM[0]), "neighbours": ("w0", "w1", "w2"),
        "similarities": np.array([0.9, 0.8, 0.7], np.float32), "budget": 100, "requested_at": NOW,
        "expires_at": NOW + DAY,
    }  # fmt: skip
    return Match(**(fields | changes))  # type: ignore[arg-type]


def listens(users: Sequence[str], shift: int = 0) -> Listens:
    heard = [f"w{(at + shift) % 3}" for at in range(len(users))]
    return Listens(list(users), heard, np.ones(len(users), np.float32), np.full(len(users), NOW))


class Driver:
    """A partition of eight users who all may like the songs, with its changelog."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.config = TargetingConfig(policy=policy or Policy(fair=False))
        self.partition = Partition(0, 1, catalogue(), self.config)
        self.log: list[tuple[bytes, bytes | None]] = []
        self.do(listens=listens(USERS))

    def do(self, now: float = NOW, **inputs: object) -> PartitionOutputs:
        staged = self.partition.stage(PartitionInputs(now, **inputs))  # type: ignore[arg-type]
        self.partition.apply(staged)
        self.log += staged.outputs.changelog
        return staged.outputs

    def restart(self) -> None:
        digest = self.partition.digest()
        self.partition = Partition(0, 1, catalogue(), self.config)
        self.partition.restore(self.log)
        assert self.partition.digest() == digest


minutes = st.sampled_from([0, 1, 719, 720, 721, 1439]) | st.integers(0, 1439)
quiet_hours = st.sampled_from([(), ALL_DAY, (QuietSpan(0, 1439), QuietSpan(1439, 0)), (QuietSpan(1, 0),)]) | st.lists(
    st.tuples(minutes, minutes).filter(lambda span: span[0] != span[1]).map(lambda span: QuietSpan(*span)), max_size=8
).map(tuple)
artists = st.sampled_from(["a1", "a2", "a3"])
countries = st.sampled_from(["PT", "BR"])
preferences = st.builds(
    Preferences,
    opted_in=st.sampled_from([True, True, True, False]),
    country=st.none() | countries,
    muted_artists=st.frozensets(artists, max_size=2),
    allow_explicit=st.booleans(),
    timezone=st.sampled_from(["UTC", "Asia/Kathmandu", "Pacific/Apia", "Pacific/Kiritimati", "Etc/GMT+12"]),
    quiet=quiet_hours,
    cap=st.none()
    | st.builds(FrequencyCap, st.sampled_from([0, 1, 2, 2**53]), st.sampled_from([0.001, 24.0, 8192.1, 8760.0])),
)
said_by = st.tuples(st.sampled_from(USERS), preferences)
erasures = st.tuples(st.sampled_from(USERS), st.sampled_from([0.0, NOW - DAY, NOW, NOW + 299]))
times = st.one_of(
    st.sampled_from([NOW + 1e-6, NOW + 1, NOW + 3600, NOW + DAY, 2.0**32, 2.0**32 + DAY, LAST]),
    st.floats(NOW - 400 * DAY, NOW + 400 * DAY),
)
requests = st.builds(
    song,
    song_id=st.sampled_from(["new", "newer", "w0"]),
    revision=st.integers(1, 3),
    recording=st.sampled_from(["r1", "r2", "w1"]),
    artist_ids=st.lists(artists, max_size=2).map(tuple),
    budget=st.sampled_from([0, 1, 5, 2**53]),
    expires_at=times,
    available_from=st.sampled_from([0.0, -62_135_596_800.0]) | times,
    explicit=st.booleans(),
    territories=st.lists(countries, max_size=2).map(tuple),
)
policies = st.builds(
    Policy,
    default=st.builds(Preferences, quiet=st.sampled_from([(), ALL_DAY])),
    cap=st.none() | st.just(FrequencyCap(3, 24.0)),
    artist_cap=st.none() | st.just(FrequencyCap(1, 24.0)),
    holdout=st.sampled_from([0.0, 0.3]),
    exploration=st.sampled_from([0.0, 0.5]),
    fair=st.booleans(),
)


def broken(push: Push, wish: Preferences, now: float) -> list[str]:
    """The rules that a push breaks, said apart from the code that obeys them."""
    match, local = push.match, datetime.fromtimestamp(push.not_before, ZoneInfo(wish.timezone))
    clock = local.hour * 60 + local.minute
    found = {
        "opted out": not wish.opted_in,
        "explicit": match.explicit and not wish.allow_explicit,
        "muted": bool(wish.muted_artists & set(match.artist_ids)),
        "territory": bool(match.territories) and wish.country not in match.territories,
        "no moment": not math.isfinite(push.not_before),
        "before now": push.not_before < now,
        "before the release": push.not_before < match.available_from,
        "after the end": push.not_before >= match.expires_at,
        "quiet": any(
            span.start <= clock < span.end if span.start < span.end else not span.end <= clock < span.start
            for span in wish.quiet
        ),
    }
    return [name for name, is_so in found.items() if is_so]


@settings(max_examples=150, deadline=None)
@given(
    policies,
    st.lists(
        st.tuples(st.lists(said_by, max_size=6), st.lists(erasures, max_size=3), st.lists(requests, max_size=3)),
        min_size=1,
        max_size=3,
    ),
)
def test_nobody_is_pushed_against_the_rules_whatever_legal_values_meet(
    policy: Policy, rounds: list[tuple[list[tuple[str, Preferences]], list[tuple[str, float]], list[Match]]]
) -> None:
    driver, wishes = Driver(policy), {user: policy.default for user in USERS}
    told: dict[str, list[float]] = {user: [] for user in USERS}
    for number, (said, erased, asked) in enumerate(rounds):
        now = NOW + number * 3600.5
        wishes |= dict(said)
        pushes = list(driver.do(now, preferences=said, erasures=erased, commands=asked).pushes)
        pushes += driver.do(now, listens=listens(USERS, number + 1)).pushes
        for push in pushes:
            assert broken(push, wishes[push.user_id], now) == []
            told[push.user_id].append(push.not_before)
        for user, moments in told.items():
            cap = wishes[user].cap
            if cap and cap.pushes == 0 and any(push.user_id == user for push in pushes):
                raise AssertionError(f"{user} takes no pushes, and was told at {moments}")
        driver.restart()
        driver.do(now, preferences=list(wishes.items()))


@pytest.mark.parametrize("release", [0.0, NOW + 3600, NOW + 3600.5])
def test_quiet_hours_that_cover_the_whole_day_make_no_candidate(release: float) -> None:
    driver = Driver()
    driver.do(preferences=[("u0", Preferences(quiet=ALL_DAY))])
    pushed = {push.user_id for push in driver.do(commands=[song(available_from=release)]).pushes}
    assert pushed == set(USERS) - {"u0"}


def test_a_release_after_the_end_of_the_calendar_in_a_users_zone_is_pushed_to_the_others() -> None:
    driver = Driver()
    driver.do(preferences=[("u0", Preferences(timezone="Pacific/Kiritimati", quiet=(QuietSpan(0, 60),)))])
    release = song(available_from=LAST - 2, expires_at=LAST)
    assert {push.user_id for push in driver.do(commands=[release]).pushes} == set(USERS) - {"u0"}
