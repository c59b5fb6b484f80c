"""The generated world keeps its promises: listens follow the stated probabilities, content is informative."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from encoder.data.generate import content, generate, read_world, showings_per_user
from encoder.data.layout import read_dataset
from encoder.data.world import CHUNK, DAY, World, affinity, catalogue, people, rows

SMALL = World(users=300, songs=400, seed=5, history=15, drift=1.5, late=0.5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small")
    generate(SMALL, path)
    return path


def test_the_same_world_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    generate(SMALL, tmp_path)
    for file in sorted(small.iterdir()):
        if file.suffix != ".npz":  # an archive of zip members, which carry the time of writing
            assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name
    for name, values in read_dataset(small).content.dense.items():
        np.testing.assert_array_equal(values, read_dataset(tmp_path).content.dense[name])


def test_another_seed_is_another_world(small: Path, tmp_path: Path) -> None:
    generate(World(users=300, songs=400, seed=6, history=15), tmp_path)
    assert (read_dataset(tmp_path).plays.toarray().sum()) != read_dataset(small).plays.toarray().sum()


def test_the_world_is_kept_beside_its_data(small: Path) -> None:
    assert read_world(small) == SMALL


def test_the_mean_history_is_the_one_asked_for(small: Path) -> None:
    assert read_dataset(small).plays.nnz / SMALL.users == pytest.approx(SMALL.history, rel=0.1)


def test_listens_follow_the_stated_probabilities(small: Path) -> None:
    """Expected listens, from exposure and affinity alone, against those in the files.

    Over all 120,000 pairs of a user and a song, split by affinity at the time of the listen, by exposure of
    the song, and by half of the world's life: listens are independent, so that each count lies within five
    of its standard deviations, and at most the square root of the expectation is one.
    """
    points = 12
    some, songs = people(SMALL, 0), catalogue(SMALL)
    user, song = (grid.ravel() for grid in np.mgrid[: SMALL.users, : SMALL.songs])
    rate = showings_per_user(SMALL) * some.activity[user] * songs.exposure[song]
    since = np.maximum(some.joined[user], songs.released[song])
    groups = (5, 4, 2)
    expected = np.zeros(groups)
    loud = songs.exposure > np.quantile(songs.exposure, [0.5, 0.8, 0.95])[:, None]
    popularity = loud.sum(axis=0)
    middle = (SMALL.start + SMALL.end) / 2

    def group(chance: np.ndarray, what: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.minimum(chance * 5, 4).astype(int), popularity[what], (at > middle).astype(int))

    for point in range(points):
        at = since + (point + 0.5) / points * (SMALL.end - since)
        chance = affinity(SMALL, user, song, at)
        np.add.at(expected, group(chance, song, at), -np.expm1(-rate) * chance / points)

    dataset = read_dataset(small)
    cells = dataset.plays.tocoo()
    at = dataset.played_at
    assert at is not None
    heard_by = rows([dataset.user_ids[u] for u in cells.col])
    heard = rows([dataset.song_ids[s] for s in cells.row])
    observed = np.zeros(groups)
    np.add.at(observed, group(affinity(SMALL, heard_by, heard, at), heard, at), 1)

    assert observed.sum() == dataset.plays.nnz
    for axes in ((1, 2), (0, 2), (0, 1), ()):
        seen, foreseen = observed.sum(axis=axes), expected.sum(axis=axes)
        far = np.abs(seen - foreseen) > 5 * np.sqrt(foreseen) + 1
        assert not far.any(), (axes, seen, foreseen)


def test_nothing_is_heard_before_it_exists(small: Path) -> None:
    dataset = read_dataset(small)
    cells = dataset.plays.tocoo()
    assert dataset.played_at is not None
    joined = people(SMALL, 0).joined[rows([dataset.user_ids[u] for u in cells.col])]
    released = catalogue(SMALL).released[rows([dataset.song_ids[s] for s in cells.row])]
    assert (dataset.played_at >= np.floor(np.maximum(joined, released))).all()
    assert (dataset.played_at < SMALL.end).all()
    assert (released > SMALL.start).mean() > 0.05  # the bound is put to the test


def test_exposure_is_a_power_law() -> None:
    shares = np.sort(catalogue(World(songs=1000, popularity=0.9)).exposure)[::-1]
    np.testing.assert_allclose(shares[0] / shares, np.arange(1, 1001) ** 0.9)
    assert shares.sum() == pytest.approx(1)


def test_tastes_turn_by_the_stated_angle() -> None:
    world = World(users=200, tastes=1, drift=1.0)
    some = people(world, 0)
    np.testing.assert_allclose((some.here * some.there).sum(axis=2), 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(some.there, axis=2), 1, atol=1e-5)
    assert some.turn.mean() == pytest.approx(1.0, abs=0.2)
    still = World(users=200, drift=0.0)
    user, song = np.arange(200), np.arange(200)
    np.testing.assert_array_equal(affinity(still, user, song, still.start), affinity(still, user, song, still.end))


def test_users_have_one_to_several_tastes() -> None:
    here = people(World(users=600, tastes=3), 0).here
    different = np.array([len(np.unique(tastes, axis=0)) for tastes in here])
    np.testing.assert_allclose(np.bincount(different, minlength=4)[1:] / 600, 1 / 3, atol=0.1)


def test_truth_may_be_asked_in_any_order_and_any_chunk() -> None:
    world = World(users=3 * CHUNK)
    rng = np.random.default_rng(0)
    user, song = rng.integers(0, world.users, 500), rng.integers(0, world.songs, 500)
    at = world.start + rng.uniform(0, world.days * DAY, 500)
    together = affinity(world, user, song, at)
    alone = [affinity(world, user[i : i + 1], song[i : i + 1], at[i])[0] for i in range(0, 500, 25)]
    np.testing.assert_allclose(together[::25], alone)


@pytest.mark.parametrize(("user", "song", "says"), [(300, 0, "user rows"), (-1, 0, "user"), (0, 400, "song rows")])
def test_truth_about_nobody_is_refused(user: int, song: int, says: str) -> None:
    with pytest.raises(IndexError, match=says):
        affinity(SMALL, np.array([user]), np.array([song]), 0.0)


def test_parts_of_the_content_are_missing() -> None:
    world = World(songs=4000, missing=0.2)
    table = content(world)
    for values in table.dense.values():
        assert np.isnan(values[:, 0]).mean() == pytest.approx(0.2, abs=0.03)
    for name, bag in table.bags.items():
        empty = np.diff(bag.weights.indptr) == 0
        assert empty.mean() == pytest.approx(0 if name == "artists" else 0.2, abs=0.03), name


def test_artists_have_catalogues_in_one_corner_of_taste() -> None:
    songs = catalogue(World(songs=2000))
    sizes = np.bincount(songs.artist)
    assert sizes.max() > 5 * np.median(sizes)
    for album in np.unique(songs.album):
        assert len(set(songs.artist[songs.album == album])) == 1
    cosines = songs.taste @ songs.taste.T
    same = songs.artist[:, None] == songs.artist
    np.fill_diagonal(same, False)
    assert cosines[same].mean() > 0.7
    assert cosines[~same].mean() < 0.2


def test_audio_tells_of_taste_but_not_in_a_straight_line() -> None:
    """A kernel method recovers taste from audio on unseen songs, and clearly better than the best linear map."""
    world = World(songs=2000, missing=0.0)
    audio = content(world).dense["audio"].astype(np.float64)
    audio = (audio - audio.mean(axis=0)) / audio.std(axis=0)
    taste = catalogue(world).taste.astype(np.float64)
    seen, unseen = np.arange(2000) % 4 > 0, np.arange(2000) % 4 == 0
    squares = (audio**2).sum(axis=1)
    near = np.exp(-(squares[:, None] + squares - 2 * audio @ audio.T) / (4 * audio.shape[1]))

    def explained(kernel: np.ndarray, ridge: float) -> float:
        inside = kernel[np.ix_(seen, seen)] + ridge * np.eye(seen.sum())
        foretold = kernel[np.ix_(unseen, seen)] @ np.linalg.solve(inside, taste[seen])
        return float(1 - ((taste[unseen] - foretold) ** 2).sum() / (taste[unseen] ** 2).sum())

    linear = max(explained(audio @ audio.T, ridge) for ridge in (1.0, 100.0, 1000.0))
    curved = max(explained(near, ridge) for ridge in (0.01, 0.1))
    assert linear > 0.2
    assert curved > linear + 0.1


def test_memory_does_not_grow_with_the_users(tmp_path: Path) -> None:
    def peak(users: int) -> int:
        people.cache_clear()
        tracemalloc.start()
        generate(World(users=users, songs=500, history=5), tmp_path / str(users))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(5 * CHUNK) < 1.5 * peak(CHUNK)


def test_progress_ends_at_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    users = CHUNK + 1
    generate(World(users=users, songs=300, history=3), tmp_path, lambda done, of: seen.append((done, of)))
    assert seen == [(CHUNK, users), (users, users)]


@pytest.mark.parametrize(
    ("field", "value"), [("users", 0), ("songs", 1.5), ("drift", -1.0), ("history", 0.0), ("late", float("nan"))]
)
def test_a_wrong_field_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}={value!r}: must be"):
        World(**{field: value})  # type: ignore[arg-type]


def test_a_catalogue_too_small_for_the_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"history=50 of 60 songs.*lower history or raise songs"):
        generate(World(users=50, songs=60), tmp_path)
    assert list(tmp_path.iterdir()) == []
