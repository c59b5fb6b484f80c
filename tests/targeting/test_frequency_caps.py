"""Room under caps, held to a count over every span."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from targeting.rules.policy import Policy
from targeting.types import FrequencyCap, Mark, Preferences
from targeting.users.frequency_caps import FrequencyCaps
from targeting.users.preferences import PreferenceTable
from targeting.users.push_log import MOST, Added, PushLog

NOW = 1_700_000_000.0
HOUR = 3600.0
NOBODY = np.zeros(0, np.int64)


class Driver:
    """Decisions of batches, each committed at the end of its batch."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.preferences, self.push_log = policy, PreferenceTable(policy), PushLog()
        self.added = Added()
        self.recordings = 0

    def room(
        self, staged: Mapping[int, Preferences | None] | None = None, forgotten: Sequence[int] = ()
    ) -> FrequencyCaps:
        gone = np.asarray(forgotten, np.int64)
        return FrequencyCaps(self.policy, self.preferences, self.push_log, staged or {}, self.added, gone)

    def tell(self, user: int, at: float, artist: int = 0, marks: int = 0) -> None:
        self.recordings += 1
        times, bits = np.asarray([at], np.float64), np.asarray([marks], np.uint16)
        self.added.add(np.asarray([user]), self.recordings, artist, times, bits)

    def commit(self) -> None:
        entries = self.push_log.plan(self.added, None, NOW)
        if entries:
            self.push_log.apply(entries)
        self.added = Added()

    def fits(self, user: int, at: float, artist: int = 0, **room: Sequence[int]) -> bool:
        return bool(self.room(**room).fits(np.asarray([user]), np.asarray([at]), artist)[0])  # type: ignore[arg-type]


def fullest(times: Sequence[float], span: float) -> int:
    """The most that any half-open span holds; one that starts with a push is enough to look at."""
    return max((sum(start <= each < start + span for each in times) for start in times), default=0)


# Near where spans of hours begin and end, with parts of seconds: what waits until a song is there has them, too.
moments = st.builds(lambda hours, tenths: NOW + hours * HOUR + tenths / 10, st.integers(0, 5), st.integers(-15, 15))
asked = st.lists(
    st.tuples(st.integers(0, 1), moments, st.integers(0, 3), st.integers(0, 4), st.booleans()), min_size=20, max_size=60
)


@settings(deadline=None)
@given(asked, st.integers(0, 4), st.sampled_from([1.0, 2.0, 3.0]), st.integers(1, 3))
def test_no_span_ever_holds_more_than_the_cap_in_whatever_order_it_is_decided(
    batch: list[tuple[int, float, int, int, bool]], pushes: int, hours: float, by_artist: int
) -> None:
    driver = Driver(Policy(cap=FrequencyCap(pushes, hours), artist_cap=FrequencyCap(by_artist, 2.0)))
    told: dict[int, list[tuple[float, int]]] = {user: [] for user in range(2)}
    # Moments come in any order, because some are deferred.
    for user, moment, artist, shown, commit in batch:
        if driver.fits(user, moment, artist):
            driver.tell(user, moment, artist, 0 if shown else Mark.HELD_OUT)
            if shown:
                told[user].append((moment, artist))
        if commit:
            driver.commit()
    for mine in told.values():
        assert fullest([at for at, _ in mine], hours * HOUR) <= pushes
        for artist in range(4):
            assert fullest([at for at, by in mine if by == artist], 2 * HOUR) <= by_artist


def test_it_is_free_again_exactly_when_the_span_is_over_and_a_second_longer_before() -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 24.0)))
    driver.tell(0, NOW)
    driver.commit()
    day = 24 * HOUR
    assert [driver.fits(0, NOW + after) for after in (-day - 1, -day, 0, day - 1, day)] == [
        True, False, False, False, True,
    ]  # fmt: skip


@settings(deadline=None)
@given(st.integers(1, 8_760_000), st.integers(-2, 2), st.sampled_from(["applied", "staged", "policy", "artist"]))
@example(8_192_100, -1, "applied")
@example(8_759_999, -1, "applied")
def test_a_cap_of_any_legal_hours_ends_exactly_when_it_says(thousandths: int, beside: int, whose: str) -> None:
    cap, span = FrequencyCap(1, thousandths / 1000), Fraction(thousandths, 1000) * 3600
    policy = {"policy": Policy(cap=cap), "artist": Policy(artist_cap=cap)}.get(whose, Policy())
    driver, wish = Driver(policy), Preferences(cap=cap)
    if whose == "applied":
        driver.preferences.apply({0: wish})
    driver.tell(0, NOW)
    driver.commit()
    after = max(math.ceil(span) + beside, 0)
    staged = {0: wish} if whose == "staged" else {}
    # A push is kept as at most a second later than it is.
    for moment, free in ((NOW + after, after >= span), (NOW - after, after >= span + 1)):
        assert bool(driver.room(staged).fits(np.asarray([0]), np.asarray([moment]), 0)[0]) is free


def test_caps_of_more_pushes_than_a_float32_counts_are_kept_as_they_are() -> None:
    most = 2**53 - 1
    driver = Driver(Policy())
    driver.preferences.apply(
        {0: Preferences(cap=FrequencyCap(most, 1.0)), 1: Preferences(cap=FrequencyCap(2**24 + 1, 1.0))}
    )
    assert driver.preferences.caps(np.asarray([0, 1]), {})[0].tolist() == [most, 2**24 + 1]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(-5, 5), st.integers(0, 2), st.booleans(), st.booleans()), max_size=25
    ),
    st.permutations(range(5)),
    st.lists(st.integers(-5, 5), min_size=5, max_size=5),
    st.lists(st.integers(0, 4), min_size=5, max_size=5),
    st.sets(st.integers(0, 4)),
)
def test_many_users_at_once_are_counted_each_around_a_moment_of_its_own(
    pushes: list[tuple[int, int, int, bool, bool]],
    order: list[int],
    moments: list[int],
    most: list[int],
    gone: set[int],
) -> None:
    # Spans of two hours and moments on the hour, so that many a push lies exactly at an end, which is outside.
    driver = Driver(Policy(artist_cap=FrequencyCap(2, 2.0)))
    driver.preferences.apply(
        {user: Preferences(cap=FrequencyCap(most[user], 2.0)) for user in range(4)}
    )  # the last has no cap
    committed = sum(commit for *_, commit in pushes)
    for part in (pushes[:committed], pushes[committed:]):
        driver.commit()
        for user, hour, artist, out, _ in part:
            driver.tell(user, NOW + hour * HOUR, artist, Mark.HELD_OUT if out else 0)
    users, asked = np.asarray(order), NOW + HOUR * np.asarray(moments, np.float64)
    room = driver.room(forgotten=sorted(gone))
    used, limits = room.used(users, asked)
    for artist in range(3):
        fits = room.fits(users, asked, artist).tolist()
        for place, (user, moment) in enumerate(zip(order, moments, strict=True)):
            # Of those to be forgotten, what is committed counts no more.
            counts = [
                by
                for at, (who, hour, by, out, _) in enumerate(pushes)
                if who == user and -2 < hour - moment <= 2 and not out and (user not in gone or at >= committed)
            ]
            of_artist = 0 if user in gone else counts.count(artist)
            assert used[place] == (len(counts) if user < 4 else 0)
            assert limits[place] == (most[user] if user < 4 else math.inf)
            assert fits[place] is bool(used[place] < limits[place] and of_artist < 2)


def test_decisions_of_the_same_batch_count() -> None:
    driver = Driver(Policy(cap=FrequencyCap(2, 1.0)))
    driver.tell(0, NOW)
    driver.commit()
    assert driver.fits(0, NOW)
    driver.tell(0, NOW)
    driver.tell(1, NOW)
    assert not driver.fits(0, NOW)
    assert driver.fits(1, NOW)


def test_who_is_held_out_has_as_much_room_as_before() -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 1.0), artist_cap=FrequencyCap(1, 1.0)))
    driver.tell(0, NOW, marks=Mark.HELD_OUT)
    assert driver.fits(0, NOW)
    driver.commit()
    assert driver.fits(0, NOW)
    driver.tell(0, NOW, marks=Mark.EXPLORED)
    assert not driver.fits(0, NOW)


def test_an_artist_is_capped_beside_all_the_others() -> None:
    driver = Driver(Policy(artist_cap=FrequencyCap(1, 24.0)))
    driver.tell(0, NOW, artist=7)
    for _ in range(2):  # in the batch, and when it is committed
        assert not driver.fits(0, NOW, artist=7)
        assert driver.fits(0, NOW, artist=8)
        assert driver.fits(1, NOW, artist=7)
        driver.commit()


def test_of_who_is_forgotten_nothing_counts() -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 1.0), artist_cap=FrequencyCap(1, 1.0)))
    driver.tell(0, NOW)
    driver.tell(1, NOW)
    driver.commit()
    assert driver.fits(0, NOW, forgotten=[0])
    assert not driver.fits(1, NOW, forgotten=[0])


def test_a_users_own_cap_comes_before_the_defaults_and_the_policys() -> None:
    driver = Driver(Policy(default=Preferences(cap=FrequencyCap(5, 2.0)), cap=FrequencyCap(9, 9.0)))
    driver.preferences.apply({1: Preferences(cap=FrequencyCap(0, 1.0)), 2: Preferences(), 3: Preferences()})
    users, at = np.arange(5), np.full(5, NOW)
    staged = {3: Preferences(cap=FrequencyCap(2, 1.0)), 1: None}
    assert driver.room().used(users, at)[1].tolist() == [5, 0, 5, 5, 5]
    assert driver.room(staged).used(users, at)[1].tolist() == [5, 5, 5, 2, 5]
    assert not driver.room().fits(users, at, 0)[1]


def test_without_caps_or_switched_off_everybody_fits() -> None:
    for policy in (Policy(), Policy(enabled=False, cap=FrequencyCap(0, 1.0), artist_cap=FrequencyCap(0, 1.0))):
        driver = Driver(policy)
        for _ in range(20):
            driver.tell(0, NOW)
        driver.commit()
        used, pushes = driver.room().used(np.asarray([0]), np.asarray([NOW]))
        assert (used.tolist(), pushes.tolist()) == ([0], [np.inf])
        assert driver.fits(0, NOW)


def test_of_nobody_nothing_is_asked() -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 1.0), artist_cap=FrequencyCap(1, 1.0)))
    driver.tell(0, NOW)
    assert driver.room().fits(NOBODY, np.zeros(0), 0).tolist() == []


def test_who_has_as_many_pushes_as_a_record_holds_gets_no_more_whatever_the_caps() -> None:
    driver = Driver(Policy())
    count = MOST - 1
    known = np.arange(count, dtype=np.uint64) + 1_000_000
    driver.added.users, driver.added.recordings, driver.added.artists = [np.zeros(count, np.int64)], [known], [known]
    driver.added.at, driver.added.marks = [np.full(count, NOW, np.uint32)], [np.zeros(count, np.uint16)]
    driver.commit()
    assert driver.fits(0, NOW)
    driver.tell(0, NOW)
    entries = driver.push_log.plan(driver.added, None, NOW)
    assert entries is not None
    (record,) = driver.push_log.encode(entries)
    assert 800_000 < len(record) < 1_000_000
    driver.commit()
    assert not driver.fits(0, NOW)
    assert driver.fits(1, NOW)
