from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targeting.arrays.id_table import I64
from targeting.catalogue.catalogue import Catalogue
from targeting.types import F32
from targeting.users.histories import UserHistories
from targeting.users.history_record import decode
from targeting.users.taste_vectors import HALF_LIFE

USERS, SONGS, D = 5, 7, 4
START, YEAR = 1_690_000_000, 365 * 86_400
Listen = tuple[int, int, int, int]  # user, song, plays, time

listens = st.lists(
    st.tuples(
        st.integers(0, USERS - 1), st.integers(0, SONGS - 1), st.integers(1, 9), st.integers(START, START + YEAR)
    ),
    max_size=20,
)


def catalogue(known: int = SONGS) -> Catalogue:
    songs = Catalogue()
    songs.slots([f"s{i}" for i in range(SONGS)])
    vectors = np.random.default_rng(0).standard_normal((SONGS, D)).astype(np.float32)
    if known:
        songs.set_vectors("space", [f"s{i}" for i in range(known)], vectors[:known])
    return songs


def catalogue_vector(songs: Catalogue, slot: int) -> F32:
    return songs.vectors(np.asarray([slot]))[0]


def hear(audience: UserHistories, batch: list[Listen]) -> None:
    user, song, plays, time = np.asarray(batch or np.zeros((0, 4)), np.int64).T
    audience.apply(audience.plan(user, song, plays.astype(np.float32), time.astype(np.float64)))


def histories(audience: UserHistories) -> list[list[tuple[int, float, int]]]:
    lengths, songs, weights, times = audience.history(np.arange(USERS))
    flat = list(zip(songs.tolist(), weights.tolist(), times.tolist(), strict=True))
    ends = np.cumsum(lengths).tolist()
    return [flat[end - n : end] for n, end in zip(lengths.tolist(), ends, strict=True)]


def naive_histories(batches: list[list[Listen]], cap: int) -> list[list[tuple[int, float, int]]]:
    """What one listen after the other gives; the cap is applied at the end of a batch, as it is there."""
    users: list[dict[int, list[int]]] = [{} for _ in range(USERS)]
    for batch in batches:
        for user, song, plays, time in batch:
            entry = users[user].setdefault(song, [0, 0])
            entry[0] += plays
            entry[1] = max(entry[1], time)
        for history in users:
            positions = {song: at for at, song in enumerate(history)}
            ranked = sorted(history, key=lambda song: (history[song][1], positions[song]))
            for song in ranked[: max(0, len(history) - cap)]:
                del history[song]
    return [[(song, float(plays), time) for song, (plays, time) in each.items()] for each in users]


@settings(max_examples=150)
@given(st.lists(listens, max_size=6), st.integers(1, 8))
def test_histories_both_ways_and_vectors_are_what_one_listen_after_the_other_gives(
    batches: list[list[Listen]], cap: int
) -> None:
    songs = catalogue()
    audience = UserHistories(songs, cap)
    for batch in batches:
        hear(audience, batch)
    expected = naive_histories(batches, cap)
    assert histories(audience) == expected

    lengths, users = audience.listeners(np.arange(SONGS))
    ends = np.cumsum(lengths).tolist()
    for song, (n, end) in enumerate(zip(lengths.tolist(), ends, strict=True)):
        heard_by = [user for user in range(USERS) if any(song == each for each, _, _ in expected[user])]
        assert sorted(users[end - n : end].tolist()) == heard_by

    for user in range(USERS):
        found = audience.taste.of(np.asarray([user]))[0]
        total = sum(
            (
                catalogue_vector(songs, song) * 0.5 ** ((START - time) / 86_400 / HALF_LIFE)
                for song, _, time in expected[user]
            ),
            np.zeros(D),
        )
        np.testing.assert_allclose(found, total / (np.linalg.norm(total) or 1), atol=1e-4)


@settings(max_examples=50)
@given(listens, listens)
def test_planning_changes_nothing(before: list[Listen], batch: list[Listen]) -> None:
    audience = UserHistories(catalogue())
    hear(audience, before)
    state = histories(audience)
    user, song, plays, time = np.asarray(batch or np.zeros((0, 4)), np.int64).T
    arguments = (user, song, plays.astype(np.float32), time.astype(np.float64))
    one, other = audience.plan(*arguments), audience.plan(*arguments)
    assert histories(audience) == state
    assert audience.encode(one) == audience.encode(other)


@settings(max_examples=50)
@given(st.lists(listens, max_size=4))
def test_records_bring_everything_back(batches: list[list[Listen]]) -> None:
    songs = catalogue()
    audience = UserHistories(songs)
    records = dict[int, bytes]()
    for batch in batches:
        user, song, plays, time = np.asarray(batch or np.zeros((0, 4)), np.int64).T
        heard = audience.plan(user, song, plays.astype(np.float32), time.astype(np.float64))
        records.update(zip(heard.users.tolist(), audience.encode(heard), strict=True))
        audience.apply(heard)
    again = UserHistories(songs)
    lengths, entries = decode(list(records.values()))
    again.load(
        np.asarray(list(records), np.int64),
        lengths,
        songs.slots_of_hashes(entries["song"]),
        entries["weight"],
        entries["time"],
    )
    again.loaded()
    assert histories(again) == histories(audience)
    everybody = np.asarray(sorted(records), np.int64)
    np.testing.assert_allclose(again.taste.of(everybody), audience.taste.of(everybody), atol=1e-5)
    for song in range(SONGS):
        (_, theirs), (_, mine) = again.listeners(np.asarray([song])), audience.listeners(np.asarray([song]))
        assert sorted(theirs.tolist()) == sorted(mine.tolist())


def test_a_song_heard_again_weighs_as_if_heard_now() -> None:
    songs = catalogue()
    day = 86_400
    audience = UserHistories(songs, half_life=10)
    hear(audience, [(0, 0, 1, START), (0, 1, 1, START + 10 * day)])
    first, second = songs.vectors(np.asarray([0, 1]))
    twice = first / 2 + second
    np.testing.assert_allclose(audience.taste.of(np.zeros(1, np.int64))[0], twice / np.linalg.norm(twice), atol=1e-6)
    hear(audience, [(0, 0, 1, START + 20 * day)])
    twice = first * 2 + second
    np.testing.assert_allclose(audience.taste.of(np.zeros(1, np.int64))[0], twice / np.linalg.norm(twice), atol=1e-6)


@pytest.mark.parametrize("when", [0, 1, START, 2**32 - 1])
def test_listens_of_any_time_make_a_vector(when: int) -> None:
    songs = catalogue()
    for half_life in (1.0, 180.0, float("inf")):
        audience = UserHistories(songs, half_life=half_life)
        hear(audience, [(0, 0, 1, when), (0, 1, 1, when)])
        both = songs.vectors(np.asarray([0, 1])).sum(axis=0)
        np.testing.assert_allclose(audience.taste.of(np.zeros(1, np.int64))[0], both / np.linalg.norm(both), atol=1e-5)
        cosine = audience.taste.cosines(np.zeros(1, np.int64), both / np.linalg.norm(both))
        np.testing.assert_allclose(cosine, [1], atol=1e-5)


def test_vectors_follow_the_songs() -> None:
    songs = catalogue(known=2)
    audience = UserHistories(songs)
    hear(audience, [(0, 0, 1, 1), (0, 5, 1, 1), (1, 5, 1, 1), (2, 1, 1, 1)])
    assert not audience.taste.of(np.asarray([1])).any()
    late = np.ones((1, D), np.float32)
    songs.set_vectors("space", ["s5"], late)
    audience.taste.follow_songs()
    np.testing.assert_allclose(audience.taste.of(np.asarray([1])), [songs.along_axes(late[0])], atol=1e-6)
    total = catalogue_vector(songs, 0) + catalogue_vector(songs, 5)
    np.testing.assert_allclose(audience.taste.of(np.asarray([0]))[0], total / np.linalg.norm(total), atol=1e-6)
    songs.set_vectors("other", ["s1"], np.eye(9, dtype=np.float32)[3:4])
    audience.taste.follow_songs()
    assert not audience.taste.of(np.asarray([0, 1])).any()
    np.testing.assert_array_equal(audience.taste.of(np.asarray([2])), np.eye(9)[3:4])


def test_a_space_that_comes_between_planning_and_applying() -> None:
    songs = catalogue()
    audience = UserHistories(songs)
    hear(audience, [(0, 0, 1, 1)])
    one = np.ones(1, np.int64)
    heard = audience.plan(0 * one, 2 * one, np.ones(1, np.float32), np.ones(1))
    songs.set_vectors("other", ["s0", "s2"], np.eye(6, dtype=np.float32)[:2])
    audience.apply(heard)
    np.testing.assert_allclose(audience.taste.of(np.zeros(1, np.int64)), [[0.5**0.5, 0.5**0.5, 0, 0, 0, 0]])


def test_cosines() -> None:
    songs = catalogue()
    audience = UserHistories(songs)
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(1500), 3)
    ones = np.ones(len(users))
    audience.apply(audience.plan(users, rng.integers(0, SONGS, len(users)), ones.astype(np.float32), ones))
    asked = np.arange(0, 1500, 2)
    vector = catalogue_vector(songs, 3)
    expected = audience.taste.of(asked) @ vector
    np.testing.assert_allclose(audience.taste.cosines(asked, vector), expected, atol=1e-6)


@settings(max_examples=100)
@given(st.lists(listens, max_size=4), listens, st.booleans())
def test_a_preview_is_what_applying_makes(before: list[list[Listen]], batch: list[Listen], half: bool) -> None:
    audience = UserHistories(catalogue(), 3, half=half)
    for each in before:
        hear(audience, each)
    user, song, plays, time = np.asarray(batch or np.zeros((0, 4)), np.int64).T
    heard = audience.plan(user, song, plays.astype(np.float32), time.astype(np.float64))
    users, old, new = audience.taste.preview(heard.vectors)
    assert users.tolist() == sorted(set(user.tolist()))
    np.testing.assert_allclose(old, audience.taste.of(users), atol=1e-6)
    audience.apply(heard)
    np.testing.assert_allclose(new, audience.taste.of(users), atol=1e-3 if half else 1e-6)


def test_a_vector_from_outside_counts_until_it_is_dropped() -> None:
    songs = catalogue()
    audience = UserHistories(songs)
    hear(audience, [(0, 0, 1, START), (1, 1, 1, START)])
    theirs = np.asarray([[1, 2, 3, 4], [0, 0, 0, 0]], np.float32)
    users = np.asarray([1, 9])
    planned = audience.taste.plan_outside(users, theirs)
    own = audience.taste.of(users)
    changing, old, new = audience.taste.preview(planned)
    assert changing.tolist() == users.tolist()
    np.testing.assert_array_equal(old, own)
    np.testing.assert_array_equal(audience.taste.of(users), own)
    audience.apply(planned)
    np.testing.assert_array_equal(audience.taste.of(users), new)
    np.testing.assert_allclose(new, [songs.along_axes(theirs[0]), np.zeros(D)], atol=1e-6)

    hear(audience, [(1, 2, 1, START), (0, 2, 1, START), (9, 3, 1, START)])
    np.testing.assert_array_equal(audience.taste.of(users), new)
    songs.set_vectors("space", ["s1"], -np.ones((1, D), np.float32))
    audience.taste.follow_songs()
    np.testing.assert_array_equal(audience.taste.of(users), new)

    audience.taste.drop_outside(np.asarray([0, 1, 9, 77]))
    heard = [catalogue_vector(songs, 1) + catalogue_vector(songs, 2), catalogue_vector(songs, 3)]
    np.testing.assert_allclose(audience.taste.of(users), [each / np.linalg.norm(each) for each in heard], atol=1e-5)


def test_vectors_from_outside_that_come_and_go_between_planning_and_applying() -> None:
    songs = catalogue()
    audience, both = UserHistories(songs), np.asarray([0, 1])
    theirs = np.ones((1, D), np.float32)
    hear(audience, [(0, 0, 1, START), (1, 0, 1, START)])
    set_outside(audience, both[:1], theirs)
    heard = audience.plan(both, both * 0 + 1, np.ones(2, np.float32), np.full(2, float(START)))
    audience.taste.drop_outside(both[:1])
    set_outside(audience, both[1:], theirs)
    audience.apply(heard)
    total = catalogue_vector(songs, 0) + catalogue_vector(songs, 1)
    np.testing.assert_allclose(
        audience.taste.of(both), [total / np.linalg.norm(total), songs.along_axes(theirs[0])], atol=1e-6
    )


@pytest.mark.parametrize(
    "vectors", [np.ones((1, D + 1)), np.ones((2, D)), np.full((1, D), np.nan), np.full((1, D), np.inf)], ids=str
)
def test_a_vector_from_outside_that_does_not_fit_is_refused(vectors: F32) -> None:
    audience = UserHistories(catalogue())
    with pytest.raises(ValueError, match="vectors"):
        set_outside(audience, np.zeros(1, np.int64), vectors.astype(np.float32))
    assert not len(audience.taste.everybody())


def set_outside(audience: UserHistories, users: I64, vectors: F32) -> None:
    audience.apply(audience.taste.plan_outside(users, vectors))


def memory(audience: UserHistories) -> bytes:
    """All bytes of the arrays in which histories, listeners and vectors lie."""
    tables = [audience.taste._vectors, *([audience.taste._next.vectors] if audience.taste._next else [])]
    columns = [*audience._heard._columns, *audience._listeners._columns, *(table._vectors for table in tables)]
    return b"".join(column.tobytes() for column in columns)


@pytest.mark.parametrize("half", [False, True])
def test_a_forgotten_user_leaves_no_bytes(half: bool) -> None:
    """Rows move as histories grow, lose songs to the cap, and pages are moved together; a space is coming."""
    songs, rng = Catalogue(), np.random.default_rng(0)
    ids = [f"s{i}" for i in range(900)]
    songs.set_vectors("space", ids, rng.standard_normal((900, 8)).astype(np.float32))
    audience = UserHistories(songs, 40, half=half)
    gone, weight, outsider = 77, 4242.0, 78
    for step in range(60):
        users = rng.integers(0, 3000, 3000)
        weights = np.where(np.isin(users, [gone]), weight, 1).astype(np.float32)
        # The one to go listens at times of their own, to be searched for.
        times = np.where(users == gone, START + 1_000_003 * step, START).astype(np.float64)
        users = np.append(users, gone)
        audience.apply(
            audience.plan(
                users,
                rng.integers(0, 900, 3001),
                np.append(weights, weight),
                np.append(times, START + 1_000_003 * step),
            )
        )
    songs.prepare("other", ids, rng.standard_normal((900, 8)).astype(np.float32))
    assert audience.taste.prepare(10**9)
    set_outside(audience, np.asarray([outsider]), np.full((1, 8), 0.3, np.float32))
    both = np.asarray([gone, outsider])
    times_of = np.flatnonzero(np.isin(audience._heard._columns[2], START + 1_000_003 * np.arange(1, 60)))
    assert len(times_of) == 40
    tables = [audience.taste._vectors, audience.taste._next.vectors]  # type: ignore[union-attr]
    vectors = [table._vectors[row].tobytes() for table in tables for row in both.tolist()]
    assert all(each in memory(audience) for each in vectors)

    audience.forget(both)
    assert not np.isin(audience._heard._columns[2], START + 1_000_003 * np.arange(1, 60)).any()
    assert not np.isin(audience._heard._columns[1] % weight, 0).any(where=audience._heard._columns[1] != 0)
    assert not np.isin(audience._listeners._columns[0], both).any()
    assert not any(each in memory(audience) for each in vectors)
    assert audience.history(both)[0].tolist() == [0, 0]
    assert not np.isin(both, audience.taste.everybody()).any()
    # The rows are someone else's now: nothing of the past, not even that a vector came from outside.
    audience.apply(audience.plan(both, both * 0, np.ones(2, np.float32), np.full(2, float(START))))
    one = catalogue_vector(songs, 0)
    np.testing.assert_allclose(
        audience.taste.of(both), np.broadcast_to(one / np.linalg.norm(one), (2, 8)), atol=1e-3 if half else 1e-6
    )


@settings(max_examples=100)
@given(
    st.lists(listens, max_size=3),
    listens,
    st.dictionaries(st.integers(0, USERS - 1), st.sampled_from([START, START + YEAR // 2, math.inf])),
    st.booleans(),
)
def test_what_is_left_of_users_who_are_forgotten_is_what_they_heard_later_and_the_batch_that_was_planned(
    before: list[list[Listen]], batch: list[Listen], forgotten: dict[int, float], half: bool
) -> None:
    songs = catalogue()
    planned_first, forgotten_first = UserHistories(songs, 3, half=half), UserHistories(songs, 3, half=half)
    gone = np.asarray(sorted(forgotten), np.int64)
    for audience in (planned_first, forgotten_first):
        for each in before:
            hear(audience, each)
        set_outside(audience, np.asarray([0]), np.ones((1, D), np.float32))
    user, song, plays, time = np.asarray(batch or np.zeros((0, 4)), np.int64).T
    heard = planned_first.plan(user, song, plays.astype(np.float32), time.astype(np.float64), forgotten)
    _, old, new = planned_first.taste.preview(heard.vectors)
    planned_first.forget(gone)
    np.testing.assert_allclose(old, planned_first.taste.of(heard.users), atol=1e-6)
    planned_first.apply(heard)
    lengths, slots, _, times = forgotten_first.history(gone)
    known = zip(np.repeat(gone, lengths).tolist(), slots.tolist(), times.tolist(), strict=True)
    later = [(user, song, 1, time) for user, song, time in known if time > forgotten[user]]
    forgotten_first.forget(gone)
    hear(forgotten_first, [*later, *batch])
    everybody = np.arange(USERS)
    assert histories(planned_first) == histories(forgotten_first)
    np.testing.assert_allclose(planned_first.taste.of(everybody), forgotten_first.taste.of(everybody), atol=1e-6)
    np.testing.assert_allclose(planned_first.taste.of(heard.users), new, atol=1e-3 if half else 1e-6)
    for one in range(SONGS):
        (_, some), (_, others) = (each.listeners(np.asarray([one])) for each in (planned_first, forgotten_first))
        assert sorted(some.tolist()) == sorted(others.tolist())


def test_to_forget_users_without_anything() -> None:
    audience = UserHistories(catalogue())
    audience.forget(np.asarray([0, 5]))
    hear(audience, [(0, 1, 1, START)])
    audience.forget(np.asarray([10**6]))
    assert audience.taste.everybody().tolist() == [0]


def test_halves_score_as_singles_do_in_less_memory() -> None:
    songs, rng = Catalogue(), np.random.default_rng(3)
    songs.set_vectors("space", [f"s{i}" for i in range(500)], rng.standard_normal((500, 128)).astype(np.float32))
    single, half = UserHistories(songs), UserHistories(songs, half=True)
    for day in range(20):
        users = rng.integers(0, 1500, 3000)
        heard = rng.integers(0, 500, 3000)
        for audience in (single, half):
            audience.apply(
                audience.plan(users, heard, np.ones(3000, np.float32), START + 86_400.0 * day + np.zeros(3000))
            )
    everybody = single.taste.everybody()
    assert half.taste.everybody().tolist() == everybody.tolist()
    worst = max(
        np.abs(single.taste.cosines(everybody, vector) - half.taste.cosines(everybody, vector)).max()
        for vector in (songs.along_axes(each) for each in rng.standard_normal((20, 128)).astype(np.float32))
    )
    assert worst < 0.002
    assert single.nbytes - half.nbytes >= 1500 * (128 * 2 - 8)


@pytest.mark.parametrize("record", [b"\x02", b"\x01" + b"x" * 15, b"\x01" + b"x" * 17])
def test_a_broken_record_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="history record"):
        decode([record])
