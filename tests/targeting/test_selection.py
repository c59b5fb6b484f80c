"""Who gets a song: answers that follow from the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from targeting.arrays.id_table import IdTable, mixed
from targeting.calibration import Calibration
from targeting.ranking.recalibration import Correction, Examples, Scale
from targeting.ranking.scored import Scored
from targeting.ranking.selection import Selection, SelectionContext, choose, song_and_artist
from targeting.ranking.selection import _top as top
from targeting.rules.policy import Policy, fairness, held_out
from targeting.types import FrequencyCap, Mark, Match, Preferences, Push, PushReason, QuietSpan, Suppression, Tier
from targeting.users.frequency_caps import FrequencyCaps
from targeting.users.preferences import PreferenceTable
from targeting.users.push_log import Added, PushLog
from targeting.users.score_thresholds import ScoreThresholds

NOW = 1_700_000_000.0  # 22:13:20 UTC
HOUR = 3600.0
PLAIN = Policy(fair=False)
SONG = Match(
    "new", 1, "new", "New", ("artist",), "space", np.ones(1, np.float32), ("s0", "s1"),
    np.ones(2, np.float32), 10, NOW, NOW + 48 * HOUR,
)  # fmt: skip
# The chance of a listen is the score itself.
SAME = Calibration((0.0, 1.0), (0.0, 1.0))


def scores_of(values: Sequence[float], rows: Sequence[int] | None = None, evidence: float = 0.25) -> Scored:
    scores = np.asarray(values, np.float32)
    users = np.arange(len(scores)) if rows is None else np.asarray(rows, np.int64)
    nothing = np.zeros(0, np.int32)
    said = scores * np.float32(evidence)
    return Scored(users, scores, said, scores - said, nothing, nothing, np.ones(2, np.float32), both=True)


@dataclass
class Driver:
    policy: Policy = PLAIN
    users: int = 200
    ids: Sequence[str] = ()
    calibration: Calibration | None = None
    least: float = 0.0
    push_log: PushLog = field(default_factory=PushLog)
    score_thresholds: ScoreThresholds = field(default_factory=ScoreThresholds)
    slots: IdTable = field(default_factory=IdTable)
    examples: Examples = field(default_factory=Examples)

    def __post_init__(self) -> None:
        self.slots.take(self.ids or [f"u{n}" for n in range(self.users)])
        self.preferences = PreferenceTable(self.policy)

    def tell(self, users: Sequence[int], times: int = 1) -> None:
        """These users are pushed other songs now."""
        added = Added()
        for number in range(times):
            at = np.full(len(users), NOW)
            added.add(np.asarray(users), 1000 + number, 1000 + number, at, np.zeros(len(users), np.uint16))
        entries = self.push_log.plan(added, None, NOW)
        assert entries
        self.push_log.apply(entries)

    def choose(
        self,
        scored: Scored,
        most: int,
        match: Match = SONG,
        allowed: Sequence[int] | None = None,
        staged: Mapping[int, Preferences | None] | None = None,
        **more: object,
    ) -> Selection:
        may = np.ones(len(scored.users), np.bool_) if allowed is None else np.isin(scored.users, allowed)
        held = np.where(may, 0, Suppression.OPTED_OUT).astype(np.uint8)
        room = FrequencyCaps(self.policy, self.preferences, self.push_log, staged or {}, Added(), np.zeros(0, np.int64))
        by = SelectionContext(
            NOW,
            self.policy,
            self.slots,
            self.preferences,
            staged or {},
            self.score_thresholds,
            room,
            self.calibration,
            self.least,
            self.examples,
        )
        return choose(match, scored, held, most, by, **more)  # type: ignore[arg-type]


def told(chosen: Selection) -> list[str]:
    return [push.user_id for push in chosen.pushes]


def as_ids(numbers: Sequence[int]) -> list[str]:
    return [f"u{number}" for number in numbers]


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=150), st.integers(0, 60), st.data())
def test_the_best_of_the_allowed_are_first_and_a_score_of_zero_is_no_reason(
    tenths: list[int], most: int, data: st.DataObject
) -> None:
    allowed = data.draw(st.sets(st.integers(0, len(tenths) - 1)))
    chosen = Driver().choose(scores_of([each / 10 for each in tenths]), most, allowed=sorted(allowed))
    scores = [push.score for push in chosen.pushes]
    ranked = sorted((tenths[each] for each in allowed if tenths[each]), reverse=True)[:most]
    assert scores == pytest.approx([each / 10 for each in ranked])
    assert len({*told(chosen)}) == len(scores)
    assert {int(user[1:]) for user in told(chosen)} <= allowed
    assert chosen.users.tolist() == [int(user[1:]) for user in told(chosen)]
    assert not chosen.marks.any()
    assert set(chosen.at.tolist()) <= {NOW}


def test_equals_are_chosen_at_random_another_one_for_each_song_and_the_same_whatever_their_rows() -> None:
    same = scores_of([0.5] * 200)
    forwards, backwards = Driver(), Driver(ids=as_ids(range(199, -1, -1)))
    one, again = told(forwards.choose(same, 50)), told(backwards.choose(same, 50))
    assert one == again
    other = told(forwards.choose(same, 50, structs.replace(SONG, song_id="other")))
    assert 3 <= len({*one} & {*other}) <= 25  # 12.5 expected of two independent draws


@settings(deadline=None, max_examples=40)
@given(st.permutations(range(60)), st.integers(1, 40))
def test_nothing_depends_on_the_rows_that_users_have(rows: list[int], most: int) -> None:
    policy = Policy(holdout=0.2, exploration=0.3, salt="x", cap=FrequencyCap(2, 24.0))
    values = [((7 * n) % 11) / 11 for n in range(60)]
    plain, moved = Driver(policy, 60), Driver(policy, ids=as_ids(rows))
    plain.tell([3, 8, 20])
    moved.tell([rows.index(n) for n in (3, 8, 20)])
    one = plain.choose(scores_of(values), most)
    other = moved.choose(scores_of([values[n] for n in rows]), most)
    assert told(one) == told(other)
    assert as_ids(one.users.tolist()) == [f"u{rows[row]}" for row in other.users.tolist()]
    assert one.marks.tolist() == other.marks.tolist()


def test_who_is_held_out_is_listed_not_pushed_and_uses_up_nothing() -> None:
    policy = Policy(fair=False, holdout=0.3)
    driver = Driver(policy)
    values = 1 - np.arange(200) / 400
    out = held_out(driver.slots.hashes(np.arange(200)), "new", policy)
    chosen = driver.choose(scores_of(values.tolist()), 60)
    expected = np.flatnonzero(~out)[:60]
    assert told(chosen) == as_ids(expected.tolist())
    # All that stand before the last one pushed are there, and none after.
    assert chosen.users.tolist() == list(range(int(expected[-1]) + 1))
    assert ((chosen.marks & Mark.HELD_OUT) > 0).tolist() == out[: expected[-1] + 1].tolist()


def test_all_held_out_nobody_is_pushed() -> None:
    chosen = Driver(Policy(holdout=1.0)).choose(scores_of([0.5] * 200), 10)
    assert chosen.pushes == []
    assert (chosen.marks == Mark.HELD_OUT).all()


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("most", [1, 7])
def test_the_share_that_explores_is_right_over_songs_and_takes_no_more_than_the_budget(share: float, most: int) -> None:
    driver = Driver(Policy(exploration=share, fair=False))
    scored = scores_of((1 - np.arange(200) / 400).tolist())
    explored, songs = 0, 300
    for number in range(songs):
        chosen = driver.choose(scored, most, structs.replace(SONG, song_id=f"song-{number}"))
        marked = (chosen.marks & Mark.EXPLORED) > 0
        assert len(chosen.pushes) == len({*told(chosen)}) == most
        assert [push.why is PushReason.EXPLORATION for push in chosen.pushes] == marked.tolist()
        # Those by score are the best, whoever explores.
        assert chosen.users[~marked].tolist() == list(range(int((~marked).sum())))
        explored += int(marked.sum())
    expected = share * most * songs
    # Five standard deviations of a sum of random roundings, each at most a half.
    assert abs(explored - expected) <= 5 * 0.5 * songs**0.5


def test_who_explores_is_drawn_from_all_candidates_alike() -> None:
    driver = Driver(Policy(exploration=1.0))
    scored = scores_of((1 - np.arange(200) / 400).tolist())
    drawn = [driver.choose(scored, 10, structs.replace(SONG, song_id=f"song-{n}")).users for n in range(200)]
    counts = np.bincount(np.concatenate(drawn), minlength=200)
    # 10 each on average, of a binomial distribution: 3.1 either way.
    assert counts.mean() == 10
    assert 2 <= counts.min() <= counts.max() <= 26
    assert abs(counts[:100].sum() - 1000) < 120


def test_who_has_no_room_is_passed_over_for_the_next() -> None:
    driver = Driver(Policy(cap=FrequencyCap(2, 24.0), fair=False))
    driver.tell([0, 2], times=2)
    driver.tell([1], times=1)
    chosen = driver.choose(scores_of((1 - np.arange(200) / 400).tolist()), 4)
    assert told(chosen) == as_ids([1, 3, 4, 5])


def test_where_hundreds_of_the_best_are_full_the_rest_is_still_found() -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 24.0), fair=False), users=3000)
    driver.tell(list(range(2900)))
    chosen = driver.choose(scores_of((1 - np.arange(3000) / 6000).tolist()), 10)
    assert told(chosen) == as_ids(range(2900, 2910))
    assert len(driver.choose(scores_of([0.5] * 3000), 500).pushes) == 100


def test_fair_caps_that_are_partly_used_are_open_at_random_and_closed_places_stay_empty() -> None:
    driver = Driver(Policy(cap=FrequencyCap(3, 24.0)), users=2000)
    driver.tell(list(range(1000)), times=2)
    scored = scores_of((1 - np.arange(2000) / 4000).tolist())
    chosen = driver.choose(scored, 1000)
    # Nobody stands in for the closed ones: all are of the best thousand, as many as the curve says, at random.
    assert {int(user[1:]) for user in told(chosen)} <= set(range(1000))
    chance = float(fairness(np.asarray([2.0]), np.asarray([3.0]))[0])
    assert abs(len(chosen.pushes) - 1000 * chance) < 5 * (1000 * chance * (1 - chance)) ** 0.5
    # Another song finds others open, and one that asks for more finds the unused ones too, all of them.
    assert {*told(driver.choose(scored, 1000, structs.replace(SONG, song_id="other")))} != {*told(chosen)}
    more = told(driver.choose(scored, 2000))
    assert {*more} == {*told(chosen)} | {*as_ids(range(1000, 2000))}


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 60))
@example([3] * 4, 9)
def test_of_the_best_those_are_told_whose_caps_are_open_and_nobody_else(used: list[int], most: int) -> None:
    driver = Driver(Policy(cap=FrequencyCap(3, 24.0)), users=len(used))
    for times in {*used} - {0}:
        driver.tell([user for user, each in enumerate(used) if each == times], times)
    scored = scores_of((1 - np.arange(len(used)) / 400).tolist())
    open_ = told(driver.choose(scored, len(used)))
    assert {*as_ids([user for user, each in enumerate(used) if not each])} <= {*open_}
    assert not {*as_ids([user for user, each in enumerate(used) if each == 3])} & {*open_}
    assert told(driver.choose(scored, most)) == [user for user in as_ids(range(len(used)))[:most] if user in open_]


def test_unused_caps_are_open_to_everybody_and_first_come_fills_up() -> None:
    scored = scores_of((1 - np.arange(200) / 400).tolist())
    assert told(Driver(Policy(cap=FrequencyCap(1, 24.0))).choose(scored, 50)) == as_ids(range(50))
    first_come = Driver(Policy(cap=FrequencyCap(1, 24.0), fair=False))
    first_come.tell(list(range(100)))
    assert told(first_come.choose(scored, 50)) == as_ids(range(100, 150))
    fair = Driver(Policy(cap=FrequencyCap(1, 24.0)))
    fair.tell(list(range(100)))
    assert not fair.choose(scored, 50).pushes


def test_quiet_hours_defer_and_beyond_the_songs_life_pass_over() -> None:
    driver = Driver(users=4)
    evening = Preferences(quiet=(QuietSpan(22 * 60, 7 * 60),))
    always = Preferences(quiet=(QuietSpan(0, 1440),))
    driver.preferences.apply({0: evening, 1: always})
    scored = scores_of([0.9, 0.8, 0.7, 0.6])
    chosen = driver.choose(scored, 2, staged={3: evening})
    morning = 1_700_031_600.0  # 07:00:00 UTC
    assert [(push.user_id, push.not_before) for push in chosen.pushes] == [("u0", morning), ("u2", NOW)]
    assert chosen.at.tolist() == [morning, NOW]
    short = structs.replace(SONG, expires_at=NOW + HOUR)
    assert told(driver.choose(scored, 3, short, staged={3: evening})) == ["u2"]


def test_nobody_is_told_before_the_song_may_be_heard() -> None:
    chosen = Driver(users=3).choose(scores_of([0.5] * 3), 3, structs.replace(SONG, available_from=NOW + 99.5))
    assert chosen.at.tolist() == [NOW + 100] * 3


def test_a_cap_counts_around_the_moment_that_is_told() -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 1.0)), users=1)
    driver.tell([0])
    assert not driver.choose(scores_of([0.5]), 1).pushes
    assert driver.choose(scores_of([0.5]), 1, structs.replace(SONG, available_from=NOW + HOUR)).pushes


def test_a_threshold_divides_the_score_in_rank_and_is_told() -> None:
    driver = Driver(users=3)
    for _ in range(3):
        moved = driver.score_thresholds.plan(
            np.asarray([0]), np.asarray([Mark.DISMISSED], np.uint16), np.asarray([NOW])
        )
        assert moved
        driver.score_thresholds.apply(moved)
    pushes = driver.choose(scores_of([0.7, 0.5, 0.4]), 3).pushes
    assert [push.user_id for push in pushes] == ["u1", "u0", "u2"]  # 0.7 / 2 ** 0.6 is 0.46
    assert [push.score_threshold for push in pushes] == pytest.approx([1, 2**0.6, 1])
    assert [push.score for push in pushes] == pytest.approx([0.5, 0.7, 0.4])
    off = replace(driver, policy=Policy(enabled=False))
    assert told(off.choose(scores_of([0.7, 0.5, 0.4]), 3)) == ["u0", "u1", "u2"]


def test_pushes_tell_what_each_term_gave_to_whom() -> None:
    fitting = scores_of([0.4, 0.8])
    factor = np.asarray([1.0, 0.25], np.float32)
    active = replace(fitting, scores=fitting.scores * factor, activity=factor)
    terms = [
        [(push.user_id, push.evidence, push.direct, push.activity) for push in Driver(users=2).choose(each, 2).pushes]
        for each in (fitting, active)
    ]
    assert terms[0] == [
        ("u1", pytest.approx(0.2), pytest.approx(0.6), 1.0), ("u0", pytest.approx(0.1), pytest.approx(0.3), 1.0),
    ]  # fmt: skip
    assert terms[1] == [
        ("u0", pytest.approx(0.1), pytest.approx(0.3), 1.0), ("u1", pytest.approx(0.2), pytest.approx(0.6), 0.25),
    ]  # fmt: skip


def test_the_least_chance_is_asked_of_the_chance_divided_by_the_threshold() -> None:
    driver = Driver(users=3, calibration=SAME, least=0.45)
    moved = driver.score_thresholds.plan(np.asarray([0]), np.asarray([Mark.DISMISSED], np.uint16), np.asarray([NOW]))
    assert moved
    driver.score_thresholds.apply(moved)
    chosen = driver.choose(scores_of([0.5, 0.46, 0.44]), 3)
    assert told(chosen) == ["u1"]  # 0.5 / 2 ** 0.2 is 0.435
    assert all(push.calibrated for push in chosen.pushes)
    # Scored by one sign alone there are no chances, and nothing to ask of them.
    alone = driver.choose(replace(scores_of([0.5, 0.46, 0.44]), both=False), 3)
    assert len(alone.pushes) == 3
    assert not any(push.calibrated for push in alone.pushes)


def test_the_reason_is_the_louder_sign_or_the_prototype_that_was_met() -> None:
    driver = Driver(users=2)

    def why(chosen: Selection) -> list[Push]:
        return sorted(chosen.pushes, key=lambda push: push.user_id)

    assert [p.why for p in why(driver.choose(scores_of([0.5, 0.5], evidence=0.9), 2))] == [PushReason.EVIDENCE] * 2
    assert [p.why for p in why(driver.choose(scores_of([0.5, 0.5], evidence=0.1), 2))] == [PushReason.DIRECT] * 2
    late = why(driver.choose(scores_of([0.5, 0.5]), 2, tier=Tier.LIVE, prototypes=np.asarray([-1, 3])))
    assert [(p.why, p.prototype, p.tier) for p in late] == [
        (PushReason.DIRECT, None, Tier.LIVE), (PushReason.PROTOTYPE, 3, Tier.LIVE),
    ]  # fmt: skip


def test_the_songs_named_are_those_heard_the_loudest_first() -> None:
    scored = replace(
        scores_of([0.5, 0.4]),
        heard_users=np.asarray([0, 1, 0], np.int32),
        heard_songs=np.asarray([0, 1, 1], np.int32),
        weights=np.asarray([0.2, 0.9], np.float32),
    )
    assert [push.songs for push in Driver(users=2).choose(scored, 2).pushes] == [("s1", "s0"), ("s1",)]


@pytest.mark.parametrize("most", [0, -3])
def test_without_a_budget_nobody_is_chosen(most: int) -> None:
    chosen = Driver(Policy(holdout=1.0, exploration=1.0)).choose(scores_of([0.5] * 9), most)
    assert (chosen.users.tolist(), chosen.at.tolist(), chosen.marks.tolist(), chosen.pushes) == ([], [], [], [])


def test_the_chance_is_told_in_the_place_of_the_score_and_exactly_the_least_is_enough() -> None:
    driver = Driver(users=3, calibration=Calibration((0.0, 1.0), (0.0, 0.5)), least=0.25)
    pushes = driver.choose(scores_of([0.75, 0.5, 0.25]), 3).pushes
    assert [(push.user_id, push.score) for push in pushes] == [("u0", 0.375), ("u1", 0.25)]


@pytest.mark.parametrize("exploration", [0.0, 1.0])
def test_of_one_artist_a_user_gets_no_more_than_the_cap_and_of_others_the_rest(exploration: float) -> None:
    driver = Driver(Policy(artist_cap=FrequencyCap(1, 24.0), fair=False, exploration=exploration), users=3)
    first = driver.choose(scores_of([0.5] * 3), 3)
    _, artist = song_and_artist(SONG)
    added = Added()
    added.add(first.users, 1, artist, first.at, first.marks)
    entries = driver.push_log.plan(added, None, NOW)
    assert entries
    driver.push_log.apply(entries)
    assert not driver.choose(scores_of([0.5] * 3), 3, structs.replace(SONG, song_id="b")).pushes
    # The primary artist counts, and a song of no artist is its own.
    for artists in (("other", "artist"), ()):
        assert (
            len(driver.choose(scores_of([0.5] * 3), 3, structs.replace(SONG, song_id="b", artist_ids=artists)).pushes)
            == 3
        )


def test_a_cap_counts_around_the_moment_to_which_quiet_hours_defer() -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 2.0), fair=False), users=4)
    evening = Preferences(quiet=(QuietSpan(22 * 60, 7 * 60),))
    # Beyond the song's life: no moment at all to count around.
    driver.preferences.apply({0: evening, 1: evening, 2: Preferences(quiet=(QuietSpan(0, 1440),))})
    driver.tell([0, 2, 3])
    added = Added()
    added.add(np.asarray([1]), 5, 5, np.asarray([NOW + 9 * HOUR]), np.zeros(1, np.uint16))
    entries = driver.push_log.plan(added, None, NOW)
    assert entries
    driver.push_log.apply(entries)
    # The first is full now and free in the morning, the second is free now and full in the morning.
    assert told(driver.choose(scores_of([0.5] * 4), 4)) == ["u0"]


def test_switched_off_nobody_is_held_out_and_nobody_explores() -> None:
    off = Driver(Policy(enabled=False, holdout=1.0, exploration=1.0), users=9)
    chosen = off.choose(scores_of([0.9, *[0.5] * 8]), 3)
    assert not chosen.marks.any()
    assert [push.why is PushReason.EXPLORATION for push in chosen.pushes] == [False] * 3


@pytest.mark.parametrize("users", range(72, 79))
def test_as_many_candidates_as_are_looked_at_first_are_looked_at(users: int) -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 24.0), fair=False), users=users)
    driver.tell(list(range(users - 2)))
    values = (1 - np.arange(users) / 400).tolist()
    # Five are asked for and two have room: they are the last, whether or not they are among those looked at first.
    assert told(driver.choose(scores_of(values), 5)) == as_ids([users - 2, users - 1])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 30))
def test_the_top_are_the_most_worth_and_of_equals_those_of_the_smaller_lot(tenths: list[int], most: int) -> None:
    worth = np.asarray(tenths, np.float32)
    draws = mixed(np.arange(len(worth), dtype=np.uint64), 7)
    ranked = sorted(range(len(worth)), key=lambda at: (-tenths[at], int(draws[at])))
    assert top(worth, draws, most).tolist() == ranked[:most]


def test_equal_signs_are_told_as_the_direct_one_and_the_first_prototype_is_one() -> None:
    driver = Driver(users=2)
    assert [push.why for push in driver.choose(scores_of([0.5, 0.5], evidence=0.5), 2).pushes] == [
        PushReason.DIRECT
    ] * 2
    late = driver.choose(scores_of([0.5, 0.4]), 2, tier=Tier.LIVE, prototypes=np.asarray([0, 1])).pushes
    assert [(push.why, push.prototype) for push in late] == [(PushReason.PROTOTYPE, 0), (PushReason.PROTOTYPE, 1)]
    assert [push.prototype for push in driver.choose(scores_of([0.5, 0.5]), 2).pushes] == [None, None]


def test_of_songs_that_speak_equally_those_named_are_the_first_heard() -> None:
    songs = tuple(f"s{n}" for n in range(40))
    match = structs.replace(SONG, neighbours=songs, similarities=np.ones(40, np.float32))
    scored = replace(
        scores_of([0.5]),
        heard_users=np.zeros(40, np.int32),
        heard_songs=np.arange(40, dtype=np.int32),
        weights=np.where(np.arange(40) % 2, 0.5, 0.25).astype(np.float32),
    )
    (push,) = Driver(users=1).choose(scored, 1, match).pushes
    assert push.songs == ("s1", "s3", "s5", "s7", "s9")


def suppressed(chosen: Selection) -> dict[Suppression, int]:
    return {Suppression(why): count for why, count in enumerate(chosen.suppressed.tolist()) if count}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=150),
    st.integers(0, 60),
    st.sampled_from([0.0, 0.3]),
    st.booleans(),
    st.integers(0, 3),
    st.data(),
)
def test_every_candidate_is_pushed_or_suppressed_for_one_reason(
    tenths: list[int], most: int, share: float, fair: bool, cap: int, data: st.DataObject
) -> None:
    n = len(tenths)
    subsets = st.sets(st.integers(0, n - 1))
    allowed, busy, asleep = data.draw(subsets), data.draw(subsets), data.draw(subsets)
    driver = Driver(Policy(fair=fair, cap=FrequencyCap(cap, 24.0), holdout=share, exploration=share))
    if busy:
        driver.tell(sorted(busy))
    day = Preferences(quiet=(QuietSpan(0, 1439),))
    chosen = driver.choose(
        scores_of([each / 10 for each in tenths]), most, structs.replace(SONG, expires_at=NOW + HOUR),
        allowed=sorted(allowed), staged=dict.fromkeys(asleep, day),
    )  # fmt: skip
    why = suppressed(chosen)
    assert len(chosen.pushes) + sum(why.values()) == n
    assert why.get(Suppression.OPTED_OUT, 0) == n - len(allowed)
    assert why.get(Suppression.BELOW_THRESHOLD, 0) == sum(not tenths[user] for user in allowed)
    assert why.get(Suppression.HELD_OUT, 0) == int(np.count_nonzero(chosen.marks & Mark.HELD_OUT))


def test_each_reason_is_told() -> None:
    driver = Driver(Policy(fair=False, cap=FrequencyCap(1, 24.0)), calibration=SAME, least=0.2, users=8)
    driver.tell([2])
    day = {3: Preferences(quiet=(QuietSpan(0, 1439),))}
    scored = scores_of([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.1, 0.0])
    short = structs.replace(SONG, expires_at=NOW + HOUR)
    chosen = driver.choose(scored, 2, short, allowed=[1, 2, 3, 4, 5, 6, 7], staged=day)
    assert told(chosen) == ["u1", "u4"]
    assert suppressed(chosen) == {
        Suppression.OPTED_OUT: 1,
        Suppression.BELOW_THRESHOLD: 2,
        Suppression.QUIET_HOURS: 1,
        Suppression.FREQUENCY_CAP: 1,
        Suppression.BUDGET: 1,
    }
    over = driver.choose(scored, 2, structs.replace(SONG, expires_at=NOW))
    assert suppressed(over) == {Suppression.BELOW_THRESHOLD: 2, Suppression.EXPIRED: 6}


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("calibrated", [True, False])
def test_answers_correct_what_the_model_gave_or_the_score_of_who_came_later(tier: Tier, calibrated: bool) -> None:
    answers = Examples(until=np.inf, model=Correction(-0.5, 0.8), live=Correction(1.0, 0.5))
    driver = Driver(users=2, calibration=SAME if calibrated else None, examples=answers)
    scored = scores_of([0.75, 0.5])
    chosen = driver.choose(scored, 2, tier=tier)
    used = answers.model if calibrated else answers.live if tier is Tier.LIVE else None
    assert [push.score for push in chosen.pushes] == (used.chance(scored.scores) if used else scored.scores).tolist()
    assert {(push.offset, push.slope) for push in chosen.pushes} == {(used.offset, used.slope) if used else (0.0, 1.0)}
    assert {push.calibrated for push in chosen.pushes} == {used is not None}
    # What they teach: of what the model gave, of what came later, or nothing.
    scale = Scale.MODEL if calibrated else Scale.LIVE
    expected = answers.marks(scored.scores, chosen.at, scale) if used else np.zeros(2)
    assert chosen.marks.tolist() == expected.tolist()


def test_who_explores_or_is_held_out_says_so_beside_what_it_teaches() -> None:
    answers = Examples(until=np.inf)
    driver = Driver(Policy(fair=False, holdout=0.3, exploration=0.5), calibration=SAME, examples=answers)
    chosen = driver.choose(scores_of((1 - np.arange(200) / 400).tolist()), 40)
    out, explored = (chosen.marks & Mark.HELD_OUT) > 0, (chosen.marks & Mark.EXPLORED) > 0
    assert (out.any(), explored.any()) == (True, True)
    teaches = answers.marks(np.float32([push.score for push in chosen.pushes]), chosen.at[~out], Scale.MODEL)
    assert chosen.marks[~out].tolist() == (teaches | np.where(explored[~out], Mark.EXPLORED, 0)).tolist()
    assert not (chosen.marks[out] & ~Mark.HELD_OUT).any()


def test_a_score_is_no_chance_and_no_least_chance_is_asked_of_it() -> None:
    assert len(Driver(users=3, least=0.9).choose(scores_of([0.5] * 3), 3).pushes) == 3
    # Nor of a chance, where none is set: a song whose chances are all zero is pushed in the order of its scores.
    never = Driver(users=3, calibration=Calibration((0.0, 1.0), (0.0, 0.0)))
    assert told(never.choose(scores_of([0.2, 0.4, 0.3]), 3)) == ["u1", "u2", "u0"]


def test_each_of_those_whom_a_fair_cap_closes_is_told_so_and_nobody_else_is() -> None:
    driver = Driver(Policy(cap=FrequencyCap(1, 24.0)), users=5)
    driver.tell([1, 3])
    chosen = driver.choose(scores_of([0.9, 0.8, 0.7, 0.6, 0.5]), 5)
    assert told(chosen) == ["u0", "u2", "u4"]
    assert suppressed(chosen) == {Suppression.CAP_RESERVED: 2}
    assert len(chosen.suppressed) == len(driver.choose(scores_of([0.5] * 5), 0).suppressed) == max(Suppression) + 1


def test_whom_a_cap_would_refuse_behind_the_last_one_pushed_is_told_the_budget() -> None:
    driver = Driver(Policy(fair=False, cap=FrequencyCap(1, 24.0)), users=4)
    driver.tell([1, 3])
    chosen = driver.choose(scores_of([0.9, 0.8, 0.7, 0.6]), 2)
    assert told(chosen) == ["u0", "u2"]
    assert suppressed(chosen) == {Suppression.FREQUENCY_CAP: 1, Suppression.BUDGET: 1}
