"""The simulated world: the same chances in every arm, and pushes that change what they should and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.data.world import DAY
from streams.contract.errors import Refused
from streams.testbed.simulation.life import Life, PushResponses
from streams.testbed.simulation.random_draws import DrawPurpose, random_draws
from streams.testbed.simulation.scenario import Habits, Scenario
from targeting.arrays.id_table import I64

SMALL = Scenario(users=300, warm=120, new=16, seed=3, days=6, watch=3, shown=150.0)


def run(life: Life, days: int = 6) -> None:
    for day in range(days):
        life.live(life.scenario.launch + day * DAY, life.scenario.launch + (day + 1) * DAY)


def out(scenario: Scenario) -> float:
    """A moment when every new song is out."""
    return float(scenario.uploaded[-1]) + 1


def push_all(life: Life, song: int, at: float) -> PushResponses:
    users = np.arange(life.scenario.users)
    return life.answer(users, np.full(len(users), song), at)


def test_equal_seeds_are_equal_worlds_and_others_are_others() -> None:
    one, same, other = Life(SMALL), Life(SMALL), Life(replace(SMALL, seed=4))
    for life in (one, same, other):
        run(life)
    assert np.array_equal(one.heard, same.heard)
    assert np.array_equal(one.shown, same.shown)
    assert np.array_equal(one.first[1], same.first[1])
    assert not np.array_equal(one.heard, other.heard)


def test_new_songs_are_unheard_of_before_their_upload_and_late_users_silent_before_they_join() -> None:
    life = Life(SMALL)
    assert not life.heard[:, SMALL.new_songs].any()
    assert not life.heard[SMALL.joined > 0].any()
    run(life)
    songs, at = life.first
    released = dict(zip(SMALL.new_songs.tolist(), SMALL.uploaded.tolist(), strict=True))
    assert all(
        time >= released[song] for song, time in zip(songs.tolist(), at.tolist(), strict=True) if song in released
    )


@given(st.integers(0, 2**40), st.sampled_from(DrawPurpose))
def test_draws_are_uniform_and_belong_to_the_pair(seed: int, purpose: DrawPurpose) -> None:
    users, songs = (each.ravel() for each in np.meshgrid(np.arange(60), np.arange(60)))
    found = random_draws(seed, purpose, users, songs)
    assert ((found >= 0) & (found < 1)).all()
    assert abs(found.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(found, random_draws(seed, DrawPurpose(purpose % 6 + 1), users, songs))[0, 1]) < 0.09
    assert abs(np.corrcoef(found, random_draws(seed + 1, purpose, users, songs))[0, 1]) < 0.09
    order = np.random.default_rng(0).permutation(len(users))
    assert np.array_equal(random_draws(seed, purpose, users[order], songs[order]), found[order])


@settings(max_examples=30)
@given(st.permutations(range(20)), st.integers(0, 15))
def test_the_answer_to_a_first_push_does_not_depend_on_who_else_is_pushed(order: list[int], number: int) -> None:
    song, at = int(SMALL.new_songs[number]), out(SMALL)
    everybody = push_all(world(), song, at)
    users = np.asarray(order, np.int64)
    some = world().answer(users, np.full(len(users), song), at)
    for name in ("opened", "listened", "dismissed", "expired", "failed"):
        assert np.array_equal(getattr(some, name), getattr(everybody, name)[users])


def world() -> Life:
    return Life(SMALL)


def test_every_push_has_exactly_one_outcome_and_only_who_opens_listens() -> None:
    life = Life(SMALL)
    found = push_all(life, int(SMALL.new_songs[0]), out(SMALL))
    sums = sum(getattr(found, name).astype(int) for name in ("failed", "opened", "dismissed", "expired"))
    assert (sums == 1).all()
    assert not (found.listened & ~found.opened).any()
    assert found.listens.users.tolist() == np.flatnonzero(found.listened).tolist()
    assert life.heard[found.listens.users, SMALL.new_songs[0]].all()


def test_those_who_listen_are_those_who_like_it() -> None:
    life, at = Life(SMALL), out(SMALL)
    users = np.arange(SMALL.users)
    yes, no = [], []
    for song in SMALL.new_songs.tolist():
        liking = life.affinity(users, np.full(len(users), song), at)
        found = push_all(Life(SMALL), song, at)
        yes.append(liking[found.listened])
        no.append(liking[~found.listened])
    assert np.concatenate(yes).mean() > 5 * np.concatenate(no).mean()


def test_pushes_within_days_tire_and_a_rest_mends_it() -> None:
    rested, tired, later = Life(SMALL), Life(SMALL), Life(SMALL)
    at, songs = out(SMALL), SMALL.new_songs
    fresh = push_all(rested, int(songs[9]), at)
    for song in songs[:8].tolist():
        push_all(tired, song, at)
        push_all(later, song, at - 30 * DAY)
    weary = push_all(tired, int(songs[9]), at)
    mended = push_all(later, int(songs[9]), at)
    stays = ~tired.opted_out & ~later.opted_out
    assert not (weary.opened & ~fresh.opened).any()
    assert weary.opened[stays].sum() < 0.7 * fresh.opened[stays].sum()
    assert mended.opened[stays].sum() > 0.95 * fresh.opened[stays].sum()


def test_nobody_opts_out_within_their_patience_and_who_did_gets_nothing_more() -> None:
    life, at = Life(replace(SMALL, habits=Habits(leaves=1.0, patience=3.0))), out(SMALL)
    songs = SMALL.new_songs.tolist()
    for song in songs[:3]:
        assert not len(push_all(life, song, at).left)
    fourth = push_all(life, songs[3], at)
    assert len(fourth.left)
    assert not fourth.listened[fourth.left].any()
    assert np.array_equal(np.flatnonzero(life.opted_out), fourth.left)
    before = life.pushed.copy()
    fifth = push_all(life, songs[4], at)
    assert fifth.failed[fourth.left].all()
    assert np.array_equal(life.pushed[fourth.left], before[fourth.left])


def test_several_pushes_of_a_user_at_once_tire_as_one_after_the_other_does() -> None:
    at, songs = out(SMALL), SMALL.new_songs[:4]
    users: I64 = np.repeat(np.arange(50), 4)
    together = Life(SMALL).answer(users, np.tile(songs, 50), at)
    alone = Life(SMALL)
    parts = [alone.answer(np.arange(50), np.full(50, song), at).opened for song in songs.tolist()]
    assert np.array_equal(together.opened.reshape(50, 4), np.stack(parts, axis=1))


def test_a_pushed_song_is_come_across_more_afterwards_and_no_other_draw_changes() -> None:
    organic, world = Life(SMALL), Life(SMALL)
    song, at = int(SMALL.new_songs[0]), SMALL.launch + 4 * DAY
    for life in (organic, world):
        run(life, 4)
    told = push_all(world, song, at)
    reached = int(world.shown[song] - organic.shown[song])
    assert reached == SMALL.users
    for life in (organic, world):
        for day in (4, 5):
            life.live(SMALL.launch + day * DAY, SMALL.launch + (day + 1) * DAY)
    assert len(told.listens)
    assert world.shown[song] - reached > organic.shown[song]
    # As many come across as many songs; what one song gains, others lose.
    assert world.shown.sum() - reached == organic.shown.sum()


def test_tastes_turn() -> None:
    life = Life(SMALL)
    users = np.arange(SMALL.users)
    songs = np.full(len(users), SMALL.new_songs[0])
    here, later = (life.affinity(users, songs, at) for at in (0.0, SMALL.world.end))
    assert np.abs(here - later).max() > 0.1


@pytest.mark.parametrize("wrong", [{"days": 3}, {"watch": 0}, {"warm": 0, "new": 3}, {"drift": 9.0}])
def test_a_scenario_that_makes_no_world_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Refused):
        replace(SMALL, **wrong)  # type: ignore[arg-type]
