"""Another space comes while listens do: nobody waits long, and vectors of two spaces never meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from targeting.arrays.vector_table import directions
from targeting.catalogue.catalogue import Catalogue
from targeting.catalogue.embedding_space import EmbeddingSpace
from targeting.types import F32
from targeting.users.histories import UserHistories

USERS, SONGS = 6, 8
HALF_LIFE = 30.0
START = 1_700_000_000
IDS = [f"s{i}" for i in range(SONGS)]


def vectors_of(seed: int, d: int, n: int = SONGS) -> F32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def expected(space: EmbeddingSpace, audience: UserHistories, user: int) -> F32:
    """The vector of the user's history in a space, summed song by song."""
    _, songs, _, times = audience.history(np.asarray([user]))
    weights = 0.5 ** ((START - times.astype(np.float64)) / 86_400 / HALF_LIFE)
    return directions((weights @ space.vectors(songs.astype(np.int64)))[None].astype(np.float32))[0]


class Swapping(RuleBasedStateMachine):
    """Two audiences share songs; spaces come and go between listens, outside vectors and erasures."""

    half = False

    @initialize(known=st.integers(0, SONGS))
    def start(self, known: int) -> None:
        self.songs = Catalogue()
        self.songs.slots(IDS)
        self.audiences = [UserHistories(self.songs, 4, HALF_LIFE, self.half) for _ in range(2)]
        self.outside: list[dict[int, F32]] = [{}, {}]
        if known:
            self.songs.set_vectors("first", IDS[:known], vectors_of(0, 4, known))

    @rule(which=st.integers(0, 1), data=st.data())
    def hear(self, which: int, data: st.DataObject) -> None:
        user, song, day = st.integers(0, USERS - 1), st.integers(0, SONGS - 1), st.integers(0, 90)
        batch = data.draw(st.lists(st.tuples(user, song, day), min_size=1, max_size=8))
        users, songs, days = np.asarray(batch).T
        audience = self.audiences[which]
        heard = audience.plan(users, songs, np.ones(len(batch), np.float32), START + 86_400.0 * days)
        touched, old, new = audience.taste.preview(heard.vectors)
        np.testing.assert_allclose(old, audience.taste.of(touched), atol=1e-6)
        audience.apply(heard)
        np.testing.assert_allclose(new, audience.taste.of(touched), atol=2e-3 if self.half else 1e-6)

    @rule(space=st.sampled_from(["first", "second", "third"]), seed=st.integers(0, 3), n=st.integers(1, SONGS))
    def prepare(self, space: str, seed: int, n: int) -> None:
        self.songs.prepare(space, IDS[:n], vectors_of(seed, {"first": 4, "second": 4, "third": 5}[space], n))

    @rule(which=st.integers(0, 1), entries=st.integers(1, 20))
    def make_some(self, which: int, entries: int) -> None:
        self.audiences[which].taste.prepare(entries)

    @rule(which=st.integers(0, 1), seed=st.integers(0, 9), song=st.integers(0, SONGS - 1))
    def promote(self, which: int, seed: int, song: int) -> None:
        space = self.songs.in_use if which else self.songs.to_come
        if space and space.name:
            self.songs.add(space.name, [IDS[song]], vectors_of(seed, space.dimension, 1))

    @rule()
    def switch(self) -> None:
        if self.songs.coming:
            self.songs.switch()

    @rule()
    def set_at_once(self) -> None:
        self.songs.set_vectors("fourth", IDS, vectors_of(4, 6))

    @rule(which=st.integers(0, 1), user=st.integers(0, USERS + 2), seed=st.integers(0, 9))
    def come_from_outside(self, which: int, user: int, seed: int) -> None:
        audience = self.audiences[which]
        planned = audience.taste.plan_outside(np.asarray([user]), vectors_of(seed, self.songs.dimension, 1))
        _, old, new = audience.taste.preview(planned)
        np.testing.assert_array_equal(old, audience.taste.of(np.asarray([user])))
        audience.apply(planned)
        self.outside[which][user] = new[0]

    @rule(which=st.integers(0, 1), user=st.integers(0, USERS + 2))
    def drop_outside(self, which: int, user: int) -> None:
        self.audiences[which].taste.drop_outside(np.asarray([user]))
        self.outside[which].pop(user, None)

    @rule(which=st.integers(0, 1), user=st.integers(0, USERS + 2))
    def forget(self, which: int, user: int) -> None:
        self.audiences[which].forget(np.asarray([user]))
        self.outside[which].pop(user, None)

    @invariant()
    def every_vector_is_that_of_the_history_in_the_space_in_use(self) -> None:
        if not hasattr(self, "songs"):
            return
        for audience, outside in zip(self.audiences, self.outside, strict=True):
            before = audience.taste.space
            audience.taste.follow_songs()
            if audience.taste.space is not before:
                outside.clear()
            everybody = np.arange(USERS + 3)
            wanted = [
                outside[user] if user in outside else expected(self.songs.in_use, audience, user)
                for user in everybody.tolist()
            ]
            found = audience.taste.of(everybody)
            np.testing.assert_allclose(found, np.asarray(wanted), atol=2e-3 if self.half else 2e-4)
            self.prepared_vectors_are_those_of_the_coming_space(audience)

    def prepared_vectors_are_those_of_the_coming_space(self, audience: UserHistories) -> None:
        coming = audience.taste._next
        if coming is None or coming.space is not self.songs.to_come:
            return
        audience.taste.prepare(1)
        made = np.flatnonzero(coming.made[: audience._rows])
        wanted = np.asarray([expected(coming.space, audience, user) for user in made.tolist()])
        found = directions(coming.vectors.read(made))
        np.testing.assert_allclose(found, wanted.reshape(found.shape), atol=2e-3 if self.half else 2e-4)


class SwappingHalves(Swapping):
    half = True


TestSwapping: Any = Swapping.TestCase
TestSwapping.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSwappingHalves: Any = SwappingHalves.TestCase
TestSwappingHalves.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


def listening(songs: Catalogue, users: int = 40, half: bool = False) -> UserHistories:
    audience, rng = UserHistories(songs, half=half), np.random.default_rng(0)
    rows = np.repeat(np.arange(users), 3)
    times = rng.integers(START, START + 10**7, len(rows)).astype(np.float64)
    audience.apply(audience.plan(rows, rng.integers(0, SONGS, len(rows)), np.ones(len(rows), np.float32), times))
    return audience


def test_no_call_does_more_than_asked_and_the_switch_takes_what_was_made() -> None:
    songs = Catalogue()
    songs.set_vectors("first", IDS, vectors_of(0, 4))
    audience = listening(songs)
    in_first = audience.taste.of(np.arange(40))
    songs.prepare("second", IDS, vectors_of(1, 4))
    calls = 1
    while not audience.taste.prepare(12):
        calls += 1
        np.testing.assert_array_equal(audience.taste.of(np.arange(40)), in_first)
    assert calls >= audience.history(np.arange(40))[0].sum() / 12
    made = audience.taste._next.vectors  # type: ignore[union-attr]
    songs.switch()
    audience.taste.follow_songs()
    assert audience.taste._vectors is made
    assert songs.space == "second"
    assert songs.coming is None
    fresh = Catalogue()
    fresh.set_vectors("second", IDS, vectors_of(1, 4))
    np.testing.assert_allclose(audience.taste.of(np.arange(40)), listening(fresh).taste.of(np.arange(40)), atol=1e-6)


def test_what_was_planned_in_one_space_is_applied_in_another() -> None:
    songs = Catalogue()
    songs.set_vectors("first", IDS, vectors_of(0, 4))
    audience, zero = listening(songs), np.zeros(1, np.int64)
    songs.prepare("second", IDS, vectors_of(1, 4))
    while not audience.taste.prepare():
        pass
    heard = audience.plan(zero, zero, np.ones(1, np.float32), np.asarray([START + 2e7]))
    outside = audience.taste.plan_outside(zero + 1, vectors_of(2, 4, 1))
    songs.switch()
    audience.apply(heard)
    audience.apply(outside)
    again = listening(songs)
    again.apply(again.plan(zero, zero, np.ones(1, np.float32), np.asarray([START + 2e7])))
    np.testing.assert_allclose(audience.taste.of(np.arange(40)), again.taste.of(np.arange(40)), atol=1e-6)


def test_a_rollback_is_preparing_the_old_one() -> None:
    songs = Catalogue()
    songs.set_vectors("first", IDS, vectors_of(0, 4))
    audience = listening(songs)
    before = audience.taste.of(np.arange(40))
    for space, seed in (("second", 1), ("first", 0)):
        songs.prepare(space, IDS, vectors_of(seed, 4))
        assert audience.taste.prepare(10**6)
        songs.switch()
        audience.taste.follow_songs()
        assert songs.space == space
    np.testing.assert_allclose(audience.taste.of(np.arange(40)), before, atol=1e-6)


def test_preparing_the_space_in_use_calls_a_coming_one_off() -> None:
    songs = Catalogue()
    songs.set_vectors("first", IDS, vectors_of(0, 4))
    audience = listening(songs)
    songs.prepare("second", IDS, vectors_of(1, 5))
    assert not audience.taste.prepare(12)
    with_both = audience.nbytes
    songs.prepare("first", IDS, vectors_of(0, 4))
    assert songs.coming is None
    assert audience.taste.prepare()
    assert audience.nbytes < with_both
    with pytest.raises(ValueError, match="no space is coming"):
        songs.switch()
