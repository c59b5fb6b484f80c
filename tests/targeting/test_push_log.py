"""The push log against a list of pushes, kept by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targeting.types import Mark
from targeting.users.push_log import KEPT_S, Added, Entries, Marked, PushLog

NOW = 1_700_000_000
USERS = np.arange(6)

# (user, recording, artist, seconds after NOW, marks)
Push = tuple[int, int, int, int, int]
pushes = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 30),
        st.integers(0, 2),
        st.integers(-5000, 5000),
        st.sampled_from([0, 0, 0, Mark.HELD_OUT, Mark.EXPLORED]),
    ),
    unique_by=lambda push: push[:2],
    max_size=60,
)


def adding(batch: Sequence[Push]) -> Added:
    added = Added()
    for user, recording, artist, at, marks in batch:
        added.add(np.asarray([user]), recording, artist, np.asarray([NOW + at], np.float64), u16([marks]))
    return added


def u16(marks: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    return np.asarray(marks, np.uint16)


def marking(marks: Sequence[tuple[int, int, int]]) -> Marked:
    users, recordings, bits = zip(*marks, strict=True)
    return Marked(np.asarray(users), np.asarray(recordings, np.uint64), u16(bits))


@dataclass
class Driver:
    push_log: PushLog = field(default_factory=PushLog)
    log: dict[int, bytes] = field(default_factory=dict)

    def do(
        self, batch: Sequence[Push] = (), marks: Sequence[tuple[int, int, int]] = (), now: float = NOW
    ) -> Entries | None:
        entries = self.push_log.plan(adding(batch), marking(marks) if marks else None, now)
        if entries:
            assert marks or not set_by(entries)
            self.log |= zip(entries.users.tolist(), self.push_log.encode(entries), strict=True)
            self.push_log.apply(entries)
        return entries

    def restored(self) -> PushLog:
        again = PushLog()
        again.load(np.asarray(list(self.log), np.int64), list(self.log.values()))
        again.loaded(USERS)
        return again


@settings(deadline=None)
@given(pushes, st.data())
def test_all_that_is_asked_of_it_is_what_a_list_says_also_after_a_restart(
    all_pushes: list[Push], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(all_pushes)), max_size=3)))
    driver = Driver()
    for start, end in zip([0, *cuts], [*cuts, len(all_pushes)], strict=True):
        driver.do(all_pushes[start:end])
    at = np.asarray(data.draw(st.lists(st.integers(-9000, 9000), min_size=6, max_size=6)), np.float64)
    seconds = np.asarray(data.draw(st.lists(st.integers(1, 12_000), min_size=6, max_size=6)), np.float64)
    told = [push for push in all_pushes if not push[4] & Mark.HELD_OUT]
    # Kept as up to a second later than they are.
    near = [
        sum(u == user and -seconds[user] < t - at[user] < seconds[user] + 1 for u, _, _, t, _ in told)
        for user in range(6)
    ]
    for push_log in (driver.push_log, driver.restored()):
        assert push_log.within(USERS, NOW + at, seconds).tolist() == near
        assert push_log.within(np.asarray([5, 0, 77]), NOW + at[[5, 0, 0]], seconds[[5, 0, 0]]).tolist() == [
            near[5], near[0], 0,
        ]  # fmt: skip
        for recording in range(31):
            expected = sorted(push[0] for push in all_pushes if push[1] == recording)
            assert sorted(push_log.users(recording).tolist()) == expected
        for artist in range(3):
            users, times = push_log.artist(artist)
            expected_times = sorted((u, NOW + t) for u, _, a, t, _ in told if a == artist)
            assert sorted(zip(users.tolist(), times.tolist(), strict=True)) == expected_times
        assert push_log.records(USERS) == [driver.log.get(user, b"") for user in range(6)]


@settings(deadline=None)
@given(pushes, st.data())
def test_a_mark_is_set_once_and_only_on_what_is_there(all_pushes: list[Push], data: st.DataObject) -> None:
    half = len(all_pushes) // 2
    there = {push[:2]: push[4] for push in all_pushes}
    # Beside what was pushed: what others were, what nobody was, and users who were pushed nothing.
    pairs = st.sampled_from([*there]) if there else st.nothing()
    pairs |= st.tuples(st.integers(0, 7), st.integers(0, 33))
    marks = data.draw(
        st.lists(st.tuples(pairs, st.sampled_from([4, 16, 128, 20])).map(lambda each: (*each[0], each[1])), min_size=1)
    )
    driver = Driver()
    driver.do(all_pushes[:half])
    wanted: dict[tuple[int, int], int] = {}
    for user, recording, bits in marks:
        if (user, recording) in there:
            wanted[user, recording] = wanted.get((user, recording), 0) | bits
    # Half of the pushes come in the batch of their own marks; who is in neither is not written.
    first = driver.do(all_pushes[half:], marks)
    assert set_by(first) == {pair: (bits, there[pair]) for pair, bits in wanted.items()}
    touched = {push[0] for push in all_pushes[half:]} | {user for user, _ in wanted}
    assert {*(first.users.tolist() if first else [])} == touched
    assert driver.do(marks=marks) is None
    # Beside marks that are there already, a new one is all that is set.
    new = [(*push[:2], 512) for push in all_pushes[::2]]
    expected = {(u, r): (512, there[u, r] | wanted.get((u, r), 0)) for u, r, _ in new}
    assert set_by(driver.do(marks=[*marks, *new])) == expected
    assert driver.push_log.records(USERS) == driver.restored().records(USERS)


def set_by(entries: Entries | None) -> dict[tuple[int, int], tuple[int, int]]:
    """The marks that are set, and those before, of each user and recording."""
    if entries is None:
        return {}
    columns = (entries.set_users, entries.set_recordings, entries.set_marks, entries.set_before)
    return {
        (user, recording): (bits, before)
        for user, recording, bits, before in zip(*(each.tolist() for each in columns), strict=True)
    }


def test_nothing_is_planned_of_nothing() -> None:
    assert PushLog().plan(Added(), None, NOW) is None
    assert PushLog().plan(Added(), marking([(0, 1, Mark.OPENED)]), NOW) is None


def test_planning_changes_nothing() -> None:
    driver = Driver()
    driver.do([(0, 1, 1, 0, 0)])
    before = driver.push_log.records(USERS)
    driver.push_log.plan(adding([(1, 1, 1, 0, 0), (0, 2, 1, 0, 0)]), marking([(0, 1, Mark.OPENED)]), NOW)
    assert driver.push_log.records(USERS) == before
    assert driver.push_log.users(1).tolist() == [0]


def test_twenty_deferred_pushes_do_not_hide_the_earlier_ones() -> None:
    driver = Driver()
    driver.do([(3, n, 0, 10 * n, 0) for n in range(3)])
    driver.do([(3, 100 + n, 0, 500_000 + n, 0) for n in range(20)])
    asked = NOW + np.asarray([50.0])
    assert driver.push_log.within(np.asarray([3]), asked, np.asarray([3600.0])).tolist() == [3]
    assert driver.push_log.within(np.asarray([3]), asked, np.asarray([1e6])).tolist() == [23]


def test_of_many_users_with_many_pushes_each_counts_its_own() -> None:
    driver = Driver()
    # As many as stand in a row of their own, one more, and many; the last user's are all far away.
    for user, count in ((1, 8), (2, 9), (3, 20), (5, 12)):
        driver.do([(user, n, 0, 100 * n if user < 5 else 900_000, 0) for n in range(count)])
    asked, seconds = np.full(6, NOW + 50.0), np.asarray([1e6, 101, 1e4, 1e4, 1e6, 1e4])
    for push_log in (driver.push_log, driver.restored()):
        assert push_log.within(USERS, asked, seconds).tolist() == [0, 2, 9, 20, 0, 0]
        assert push_log.within(USERS, asked, np.full(6, 1e6)).tolist() == [0, 8, 9, 20, 0, 12]


def test_whole_seconds_are_rounded_up_so_that_a_span_does_not_end_early() -> None:
    added = Added()
    added.add(np.asarray([0]), 1, 1, np.asarray([NOW + 0.75]), u16([0]))
    push_log = PushLog()
    entries = push_log.plan(added, None, NOW)
    assert entries
    push_log.apply(entries)
    user, span = np.asarray([0]), np.asarray([100.0])
    assert push_log.within(user, np.asarray([NOW + 100.7]), span).tolist() == [1]
    assert push_log.within(user, np.asarray([NOW + 101.0]), span).tolist() == [0]


def test_what_is_older_than_any_campaign_is_dropped_everywhere() -> None:
    driver = Driver()
    driver.do([(0, 1, 9, 0, 0), (0, 2, 9, 1000, 0), (1, 1, 9, 0, 0)])
    entries = driver.do([(0, 3, 8, 1000, 0)], now=NOW + KEPT_S)
    assert entries
    assert (entries.dropped_users.tolist(), entries.dropped_recordings.tolist()) == ([0], [1])
    for push_log in (driver.push_log, driver.restored()):
        assert push_log.users(1).tolist() == [1]
        users, times = push_log.artist(9)
        assert sorted(zip(users.tolist(), times.tolist(), strict=True)) == [(0, NOW + 1000), (1, NOW)]


@settings(deadline=None)
@given(pushes, st.sets(st.integers(0, 9)))
def test_forgetting_leaves_nothing_behind(all_pushes: list[Push], gone: set[int]) -> None:
    driver, without = Driver(), Driver()
    driver.do([(user, 50, 7, 0, 0) for user in range(6)])
    driver.do(all_pushes, now=NOW + KEPT_S)
    without.do([(user, 50, 7, 0, 0) for user in range(6) if user not in gone])
    without.do([push for push in all_pushes if push[0] not in gone], now=NOW + KEPT_S)
    driver.push_log.forget(np.asarray(sorted(gone), np.int64))
    # So long a span that a row's empty places would count, did they stand for the year 1970.
    everything, at = np.full(6, 2e9), np.full(6, NOW, np.float64)
    # As they are left, and once all have come back.
    for back in ([], [(user, 60, 7, 0, 0) for user in range(6)]):
        driver.do(back, now=NOW + KEPT_S)
        without.do(back, now=NOW + KEPT_S)
        one, other = driver.push_log, without.push_log
        assert one.records(USERS) == other.records(USERS)
        assert one.within(USERS, at, everything).tolist() == other.within(USERS, at, everything).tolist()
        for key in [*range(31), 50, 60]:
            assert sorted(one.users(key)) == sorted(other.users(key))
            assert sorted(one.artist(key)[0]) == sorted(other.artist(key)[0])
    driver.push_log.forget(USERS)
    assert len(driver.push_log._of_recording) == len(driver.push_log._of_artist) == 0


def test_fifty_thousand_pushes_in_a_batch_are_all_there() -> None:
    rng = np.random.default_rng(0)
    added, users = Added(), np.arange(5000)
    times = [NOW + rng.integers(0, 86_400, 5000).astype(np.float64) for _ in range(10)]
    for recording, at in enumerate(times):
        added.add(users, recording, recording % 3, at, np.zeros(5000, np.uint16))
    push_log = PushLog()
    entries = push_log.plan(added, None, NOW)
    assert entries
    push_log.apply(entries)
    asked = np.full(5000, NOW + 40_000.0)
    found = push_log.within(users, asked, np.full(5000, 30_000.0))
    assert found.tolist() == (np.abs(np.asarray(times) - asked) < 30_000).sum(axis=0).tolist()
    assert len(push_log.artist(0)[0]) == 20_000


@pytest.mark.parametrize("record", [b"\x01", b"\x02" + b"x" * 21])
def test_a_broken_record_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="push log record"):
        PushLog().load(np.zeros(1, np.int64), [record])


def test_a_push_log_record_of_another_version_is_told_by_it() -> None:
    with pytest.raises(ValueError, match=r"of 23 bytes, version b'\\x07'$"):
        PushLog().load(np.zeros(1, np.int64), [b"\x07" + b"x" * 22])


def test_what_a_batch_adds_is_known_by_its_recording() -> None:
    added = adding([(0, 1, 1, 0, 0), (1, 2, 1, 0, Mark.HELD_OUT), (2, 1, 2, 0, 0)])
    added.add(np.zeros(0, np.int64), 3, 1, np.zeros(0), u16([]))
    assert [added.of_recording(recording).tolist() for recording in (1, 2, 3, 4)] == [[0, 2], [1], [], []]


def test_whoever_was_pushed_or_held_out_once_is_held() -> None:
    driver = Driver()
    driver.do([(1, 1, 1, 0, 0), (3, 1, 1, 0, Mark.HELD_OUT), (4, 1, 1, 0, 0), (4, 2, 1, 0, 0)])
    assert driver.push_log.holds(USERS).tolist() == [False, True, False, True, True, False]


def test_marks_of_many_pushes_in_one_batch_stay_with_their_pushes() -> None:
    driver = Driver()
    driver.do([(user, recording, 1, 0, 0) for user in range(3) for recording in range(4)])
    bits = {(user, recording): (4, 16, 128)[(user + recording) % 3] for user in range(3) for recording in (3, 1)}
    # The same one twice, with another bit.
    entries = driver.do(marks=[(*pair, bit) for pair, bit in bits.items()] + [(1, 3, 4), (5, 3, 4)])
    assert entries
    bits[1, 3] |= 4
    columns = (entries.set_users.tolist(), entries.set_recordings.tolist(), entries.set_marks.tolist())
    assert {(user, recording): mark for user, recording, mark in zip(*columns, strict=True)} == bits


@settings(deadline=None, max_examples=25)
@given(pushes)
def test_every_push_takes_its_marks_and_gives_them_to_no_other(all_pushes: list[Push]) -> None:
    driver = Driver()
    driver.do(all_pushes)
    for user, recording, _, _, marks in all_pushes:
        entries = driver.do(marks=[(user, recording, Mark.OPENED), (user, 99, Mark.OPENED), (77, recording, 4)])
        assert entries
        assert (entries.set_users.tolist(), entries.set_recordings.tolist()) == ([user], [recording])
        assert (entries.set_marks.tolist(), entries.set_before.tolist()) == ([Mark.OPENED], [marks])


def test_what_is_dropped_of_an_artist_takes_nothing_else_with_it_and_brings_nothing_twice() -> None:
    driver = Driver()
    # The artists 1 and 2 are known of told pushes; 3 of one that was held out and is dropped; 1 has one of each kind.
    driver.do([(0, 10, 1, 1000, 0), (0, 11, 2, 1000, 0), (0, 12, 3, 0, Mark.HELD_OUT), (0, 13, 1, 0, 0)])
    driver.do([(0, 14, 1, 1000, Mark.HELD_OUT), (1, 10, 2, 1000, 0)])
    driver.do([(0, 15, 4, 1000, 0)], now=NOW + KEPT_S)
    for push_log in (driver.push_log, driver.restored()):
        for artist, expected in {1: [0], 2: [0, 1], 3: [], 4: [0]}.items():
            users, times = push_log.artist(artist)
            assert sorted(users.tolist()) == expected
            assert set(times.tolist()) <= {NOW + 1000}
        assert [push_log.users(recording).tolist() for recording in (12, 13, 14)] == [[], [], [0]]


@settings(deadline=None)
@given(pushes, st.randoms(use_true_random=False))
def test_a_pair_is_in_the_log_where_a_list_has_it(all_pushes: list[Push], random: Random) -> None:
    pairs = [(user, recording) for user in range(-1, 7) for recording in range(31)]
    random.shuffle(pairs)
    driver = Driver()
    driver.do(all_pushes)
    there = {(user, recording): (NOW + at, marks) for user, recording, _, at, marks in all_pushes}
    users, recordings = zip(*pairs, strict=True)
    for log in (driver.push_log, driver.restored()):
        known, at, marks = log.look(np.asarray(users), np.asarray(recordings, np.uint64))
        assert (at.dtype, marks.dtype) == (np.uint32, np.uint16)
        assert known.tolist() == [pair in there for pair in pairs]
        found = {pair: (int(at[n]), int(marks[n])) for n, pair in enumerate(pairs) if known[n]}
        assert found == {pair: there[pair] for pair in pairs if pair in there}
