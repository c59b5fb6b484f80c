from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targeting.audience import HALF_LIFE, Audience, decode
from targeting.songs import Songs
from targeting.types import F32

USERS, SONGS, D = 5, 7, 4
START, YEAR = 1_690_000_000, 365 * 86_400
Listen = tuple[int, int, int, int]  # user, song, plays, time

listens = st.lists(
    st.tuples(
        st.integers(0, USERS - 1), st.integers(0, SONGS - 1), st.integers(1, 9), st.integers(START, START + YEAR)
    ),
    max_size=20,
)


def catalogue(known: int = SONGS) -> Songs:
    songs = Songs()
    songs.slots([f"s{i}" for i in range(SONGS)])
    vectors = np.random.default_rng(0).standard_normal((SONGS, D)).astype(np.float32)
    if known:
        songs.set_vectors("space", [f"s{i}" for i in range(known)], vectors[:known])
    return songs


def catalogue_vector(songs: Songs, slot: int) -> F32:
    return songs.vectors(np.asarray([slot]))[0]


def hear(audience: Audience, batch: list[Listen]) -> None:
    user, song, plays, time = np.asarray(batch or np.zeros((0, 4)), np.int64).T
    audience.apply(audience.plan(user, song, plays.astype(np.float32), time.astype(np.float64)))


def histories(audience: Audience) -> list[list[tuple[int, float, int]]]:
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
    audience = Audience(songs, cap)
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
        found = audience.vectors(np.asarray([user]))[0]
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
    audience = Audience(catalogue())
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
    audience = Audience(songs)
    records = dict[int, bytes]()
    for batch in batches:
        user, song, plays, time = np.asarray(batch or np.zeros((0, 4)), np.int64).T
        heard = audience.plan(user, song, plays.astype(np.float32), time.astype(np.float64))
        records.update(zip(heard.users.tolist(), audience.encode(heard), strict=True))
        audience.apply(heard)
    again = Audience(songs)
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
    np.testing.assert_allclose(again.vectors(everybody), audience.vectors(everybody), atol=1e-5)
    for song in range(SONGS):
        (_, theirs), (_, mine) = again.listeners(np.asarray([song])), audience.listeners(np.asarray([song]))
        assert sorted(theirs.tolist()) == sorted(mine.tolist())


def test_a_song_heard_again_weighs_as_if_heard_now() -> None:
    songs = catalogue()
    day = 86_400
    audience = Audience(songs, half_life=10)
    hear(audience, [(0, 0, 1, START), (0, 1, 1, START + 10 * day)])
    first, second = songs.vectors(np.asarray([0, 1]))
    twice = first / 2 + second
    np.testing.assert_allclose(audience.vectors(np.zeros(1, np.int64))[0], twice / np.linalg.norm(twice), atol=1e-6)
    hear(audience, [(0, 0, 1, START + 20 * day)])
    twice = first * 2 + second
    np.testing.assert_allclose(audience.vectors(np.zeros(1, np.int64))[0], twice / np.linalg.norm(twice), atol=1e-6)


@pytest.mark.parametrize("when", [0, 1, START, 2**32 - 1])
def test_listens_of_any_time_make_a_vector(when: int) -> None:
    songs = catalogue()
    for half_life in (1.0, 180.0, float("inf")):
        audience = Audience(songs, half_life=half_life)
        hear(audience, [(0, 0, 1, when), (0, 1, 1, when)])
        both = songs.vectors(np.asarray([0, 1])).sum(axis=0)
        np.testing.assert_allclose(audience.vectors(np.zeros(1, np.int64))[0], both / np.linalg.norm(both), atol=1e-5)
        cosine = audience.cosines(np.zeros(1, np.int64), both / np.linalg.norm(both))
        np.testing.assert_allclose(cosine, [1], atol=1e-5)


def test_vectors_follow_the_songs() -> None:
    songs = catalogue(known=2)
    audience = Audience(songs)
    hear(audience, [(0, 0, 1, 1), (0, 5, 1, 1), (1, 5, 1, 1), (2, 1, 1, 1)])
    assert not audience.vectors(np.asarray([1])).any()
    late = np.ones((1, D), np.float32)
    songs.set_vectors("space", ["s5"], late)
    audience.follow_songs()
    np.testing.assert_allclose(audience.vectors(np.asarray([1])), [songs.along_axes(late[0])], atol=1e-6)
    total = catalogue_vector(songs, 0) + catalogue_vector(songs, 5)
    np.testing.assert_allclose(audience.vectors(np.asarray([0]))[0], total / np.linalg.norm(total), atol=1e-6)
    songs.set_vectors("other", ["s1"], np.eye(9, dtype=np.float32)[3:4])
    audience.follow_songs()
    assert not audience.vectors(np.asarray([0, 1])).any()
    np.testing.assert_array_equal(audience.vectors(np.asarray([2])), np.eye(9)[3:4])


def test_a_space_that_comes_between_planning_and_applying() -> None:
    songs = catalogue()
    audience = Audience(songs)
    hear(audience, [(0, 0, 1, 1)])
    one = np.ones(1, np.int64)
    heard = audience.plan(0 * one, 2 * one, np.ones(1, np.float32), np.ones(1))
    songs.set_vectors("other", ["s0", "s2"], np.eye(6, dtype=np.float32)[:2])
    audience.apply(heard)
    np.testing.assert_allclose(audience.vectors(np.zeros(1, np.int64)), [[0.5**0.5, 0.5**0.5, 0, 0, 0, 0]])


def test_cosines() -> None:
    songs = catalogue()
    audience = Audience(songs)
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(1500), 3)
    ones = np.ones(len(users))
    audience.apply(audience.plan(users, rng.integers(0, SONGS, len(users)), ones.astype(np.float32), ones))
    asked = np.arange(0, 1500, 2)
    vector = catalogue_vector(songs, 3)
    expected = audience.vectors(asked) @ vector
    np.testing.assert_allclose(audience.cosines(asked, vector), expected, atol=1e-6)


@pytest.mark.parametrize("record", [b"\x02", b"\x01" + b"x" * 15, b"\x01" + b"x" * 17])
def test_a_broken_record_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="history record"):
        decode([record])
