"""The split: which songs are cold, and that training never sees their listeners."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from encoder.content import ContentTable, SongContent
from encoder.data.dataset import Dataset
from encoder.data.split import MIN_LISTENERS, RARE_LISTENERS, songs_of, split, together

SONGS, USERS = 60, 40


def dataset(plays: np.ndarray) -> Dataset:
    """Song s has the tag s; the listen of user u to song s is dated 1000 s + u."""
    matrix = sparse.csr_matrix(plays.astype(np.float32))
    song_ids = [f"s{row}" for row in range(len(plays))]
    content = ContentTable.from_songs(song_ids, [SongContent({}, {"tags": {s: 1.0}}) for s in song_ids])
    cells = matrix.tocoo()
    users = tuple(f"u{u}" for u in range(plays.shape[1]))
    return Dataset("d", content, users, matrix, cells.row * 1000.0 + cells.col, titles=tuple(song_ids))


def plays() -> np.ndarray:
    """Song s has s % 12 listeners."""
    rng = np.random.default_rng(0)
    heard = np.zeros((SONGS, USERS))
    for song in range(SONGS):
        heard[song, rng.choice(USERS, song % 12, replace=False)] = rng.integers(1, 9, song % 12)
    return heard


def test_every_song_with_enough_listeners_is_warm_or_cold() -> None:
    parts = split(dataset(plays()), seed=3)
    enough = [song for song in range(SONGS) if song % 12 >= MIN_LISTENERS]
    assert sorted([*parts.warm, *parts.cold]) == enough
    assert len(parts.cold) == round(len(enough) / 10)
    assert (np.diff(parts.warm) > 0).all()
    assert (np.diff(parts.cold) > 0).all()


def test_songs_with_a_few_listeners_are_rare_under_every_seed() -> None:
    few = [song for song in range(SONGS) if RARE_LISTENERS <= song % 12 < MIN_LISTENERS]
    for seed in range(3):
        assert split(dataset(plays()), seed).rare.tolist() == few


def test_two_parts_put_together_are_the_songs_of_both() -> None:
    data, one, two = dataset(plays()), np.array([23, 7]), np.array([35, 2, 11])
    got, expected = together(songs_of(data, one), songs_of(data, two)), songs_of(data, np.concatenate([one, two]))
    np.testing.assert_array_equal(got.plays.toarray(), expected.plays.toarray())
    np.testing.assert_array_equal(got.played_at, expected.played_at)
    assert got.song_ids == got.titles == expected.song_ids
    assert [got.content.song(i) for i in range(5)] == [expected.content.song(i) for i in range(5)]


def test_the_seed_alone_decides() -> None:
    data = dataset(plays())
    np.testing.assert_array_equal(split(data, 3).cold, split(data, 3).cold)
    assert {tuple(split(data, seed).cold) for seed in range(20)} != {tuple(split(data, 0).cold)}


def test_over_seeds_every_song_has_its_turn() -> None:
    data = dataset(plays())
    turns = np.concatenate([split(data, seed).cold for seed in range(300)])
    assert set(turns) == {song for song in range(SONGS) if song % 12 >= MIN_LISTENERS}


def test_no_listen_of_a_cold_song_reaches_training() -> None:
    """Whoever listens to the cold songs, the data that training sees are the same to the bit."""
    original = plays()
    before = dataset(original)
    parts = split(before, seed=1)
    altered = original.copy()
    rng = np.random.default_rng(9)
    for song in parts.cold:
        altered[song] = 0
        altered[song, rng.choice(USERS, 20, replace=False)] = 50
    after = dataset(altered)
    assert (after.plays != before.plays).nnz > 0
    np.testing.assert_array_equal(split(after, seed=1).cold, parts.cold)
    seen, seen_after = songs_of(before, parts.warm), songs_of(after, parts.warm)
    for name in ("data", "indices", "indptr"):
        assert getattr(seen.plays, name).tobytes() == getattr(seen_after.plays, name).tobytes()
    assert seen.played_at is not None
    assert seen_after.played_at is not None
    assert seen.played_at.tobytes() == seen_after.played_at.tobytes()
    assert seen.song_ids == seen_after.song_ids
    assert seen.user_ids == seen_after.user_ids
    for part in (parts.warm, parts.rare):
        assert set(songs_of(before, part).song_ids).isdisjoint(before.song_ids[row] for row in parts.cold)


def test_everything_about_a_song_moves_together() -> None:
    original = plays()
    rows = np.array([23, 7, 35])
    view = songs_of(dataset(original), rows)
    np.testing.assert_array_equal(view.plays.toarray(), original[rows])
    assert view.song_ids == view.titles == ("s23", "s7", "s35")
    assert [list(view.content.song(i).bags["tags"]) for i in range(3)] == [["s23"], ["s7"], ["s35"]]
    cells = view.plays.tocoo()
    np.testing.assert_array_equal(view.played_at, rows[cells.row] * 1000 + cells.col)


def test_too_few_songs_are_refused() -> None:
    with pytest.raises(ValueError, match="3 of 3 songs have at least 5 listeners"):
        split(dataset(np.ones((3, 8))), seed=0)
