from __future__ import annotations

import numpy as np
import pytest

from targeting.arrays.id_table import I64, U64, hash64
from targeting.live.cat_config import CatConfig
from targeting.live.incremental_cat import CampaignPacing, IncrementalCat
from targeting.types import F32

D = 16
E = np.eye(D, dtype=np.float32)
NOBODY = np.zeros((0, D), np.float32)


class People:
    """Users by row, with vectors that a test moves."""

    def __init__(self, vectors: F32) -> None:
        self.now = vectors.copy()
        self.ids = hash64([f"user-{n}" for n in range(len(vectors))])

    def hashes(self, rows: I64) -> U64:
        return self.ids[rows]

    def vectors(self, rows: I64) -> F32:
        return self.now[rows]

    def rows(self, hashes: U64) -> I64:
        where = {each: row for row, each in enumerate(self.ids.tolist())}
        return np.asarray([where.get(each, -1) for each in hashes.tolist()], np.int64)


def unit(vectors: F32) -> F32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def scattered(n: int, seed: int = 0) -> F32:
    return unit(np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32))


def spend(budget: int = 100, everyone: F32 = NOBODY) -> CampaignPacing:
    return CampaignPacing(budget, 0.0, 1000.0, 1000, everyone)


def opened(
    people: People, config: CatConfig, users: I64 | None = None, key: str = "song", song_vector: F32 = E[0]
) -> IncrementalCat:
    cat = IncrementalCat(D, config, people)
    users = np.arange(len(people.now)) if users is None else users
    cat.open(key, song_vector, users, people.now[users], np.ones(len(users), np.float32), 1, spend())
    return cat


def move(cat: IncrementalCat, people: People, users: I64, to: F32) -> None:
    cat.observe(users, people.now[users], to)
    people.now[users] = to


def test_two_orthogonal_tastes_are_two_centroids() -> None:
    people = People(np.repeat(E[[1, 2]], [30, 20], axis=0))
    found = opened(people, CatConfig(centroids=2)).prototypes("song")
    np.testing.assert_array_equal(found.vectors, E[[1, 2]])
    assert found.members.tolist() == [30, 20]


def test_a_score_is_the_mean_of_the_cosines_to_the_song_and_to_the_nearest_centroid() -> None:
    people = People(np.repeat(E[[1, 2]], [30, 20], axis=0))
    cat = opened(people, CatConfig(centroids=2))
    users = unit(np.asarray([3 * E[0] + 4 * E[1], 3 * E[0] + 4 * E[2], 4 * E[1] + 3 * E[2]]))
    hits = cat.score(users, 0.0)
    assert hits.rows.tolist() == [0, 1, 2]
    np.testing.assert_allclose(hits.scores, [0.7, 0.7, 0.4], rtol=1e-6)
    assert [cat.key(each) for each in hits.campaigns.tolist()] == ["song"] * 3
    assert hits.prototypes[0] == hits.prototypes[2] != hits.prototypes[1]


def test_without_an_audience_the_song_itself_stands_for_it() -> None:
    cat = opened(People(NOBODY), CatConfig(centroids=3))
    assert len(cat.prototypes("song").vectors) == 0
    np.testing.assert_allclose(cat.score(unit(E[:1] + E[1:2]), 0.0).scores, [0.5**0.5], rtol=1e-6)


def test_each_campaign_has_its_own_prototypes_and_a_closed_one_finds_nobody() -> None:
    people = People(np.repeat(E[[1, 2]], [10, 10], axis=0))
    cat = opened(people, CatConfig(), np.arange(10), "one", E[1])
    for n in range(20):
        cat.open(f"more-{n}", E[3], np.zeros(0, np.int64), NOBODY, np.zeros(0, np.float32), 0, spend())
    cat.open("two", E[2], np.arange(10, 20), people.now[10:], np.ones(10, np.float32), 0, spend())

    def wanted() -> list[tuple[int, str]]:
        hits = cat.score(E[1:3], 0.0)
        return [(row, cat.key(each)) for row, each in zip(hits.rows.tolist(), hits.campaigns.tolist(), strict=True)]

    assert wanted() == [(0, "one"), (1, "two")]
    cat.close("one")
    assert wanted() == [(1, "two")]
    assert "one" not in cat
    cat.open("three", E[1], np.arange(10), people.now[:10], np.ones(10, np.float32), 0, spend())
    assert wanted() == [(0, "three"), (1, "two")]
    move(cat, people, np.arange(10), np.repeat(E[4:5], 10, axis=0))
    np.testing.assert_array_equal(cat.prototypes("three").vectors, E[4:5])
    np.testing.assert_array_equal(cat.prototypes("two").vectors, E[2:3])


def test_the_centroid_goes_where_the_audience_goes() -> None:
    people = People(np.repeat(E[1:2], 40, axis=0))
    cat = opened(people, CatConfig())
    move(cat, people, np.arange(40), np.repeat(E[5:6], 40, axis=0))
    np.testing.assert_array_equal(cat.prototypes("song").vectors, E[5:6])


def test_a_share_weighs_half_after_a_half_life_of_observations() -> None:
    people = People(np.repeat(E[1:2], 40, axis=0))
    cat = opened(people, CatConfig(half_life=20))
    move(cat, people, np.arange(20), np.repeat(E[2:3], 20, axis=0))
    # Twenty that moved a half-life later than the twenty that stayed.
    np.testing.assert_allclose(cat.prototypes("song").vectors[0], unit(E[1] + 2 * E[2]), atol=1e-6)


def test_weights_say_how_much_a_member_moves_its_centroid() -> None:
    people = People(E[[1, 2]])
    cat = IncrementalCat(D, CatConfig(), people)
    cat.open("song", E[0], np.arange(2), people.now, np.asarray([1.0, 0.25], np.float32), 0, spend())
    np.testing.assert_allclose(cat.prototypes("song").vectors[0], unit(4 * E[1] + E[2]), atol=1e-6)


@pytest.mark.parametrize("centroids", [1, 4])
def test_a_share_that_is_taken_out_leaves_exactly_what_was_before(centroids: int) -> None:
    people = People(scattered(300))
    cat = opened(people, CatConfig(centroids, sample=200))
    before, there = cat.encode("song"), people.now.copy()
    where = cat.prototypes("song").vectors
    some = cat.members("song")[:50]
    cat = opened(people, CatConfig(centroids, sample=200, half_life=np.inf))
    move(cat, people, some, scattered(50, 7))
    assert np.abs(cat.prototypes("song").vectors - where).max() > 0.01
    # Each goes back, and with no decay nothing tells that anybody ever left, once nearest is again what it was.
    move(cat, people, some, there[some])
    if centroids == 1:
        assert cat.encode("song")[: len(before) // 2] == before[: len(before) // 2]
        np.testing.assert_array_equal(cat.prototypes("song").vectors, where)
    cat.recluster("song")
    assert cat.encode("song") == before


def test_an_observation_of_no_member_changes_nothing() -> None:
    people = People(scattered(300))
    cat = opened(people, CatConfig(2, sample=100), np.arange(200))
    before = cat.encode("song")
    others = np.setdiff1d(np.arange(300), cat.members("song"))
    move(cat, people, others, scattered(len(others), 3))
    assert cat.encode("song") == before


def test_the_order_of_users_changes_nothing() -> None:
    people, order = People(scattered(500)), np.random.default_rng(1).permutation(500)
    one, other = opened(people, CatConfig(4, 200)), opened(people, CatConfig(4, 200), order)
    assert one.encode("song") == other.encode("song")
    old, new = people.now.copy(), scattered(500, 5)
    one.observe(np.arange(500), old, new)
    other.observe(order, old[order], new[order])
    assert one.encode("song") == other.encode("song")


def test_whatever_the_way_reclustering_depends_on_the_members_vectors_only() -> None:
    start, end = scattered(500), scattered(500, 5)
    people = People(start)
    cat = opened(people, CatConfig(4, 200))
    for seed in range(6, 10):
        move(cat, people, np.arange(seed, 500, 3), scattered(len(np.arange(seed, 500, 3)), seed))
    move(cat, people, np.arange(500), end)
    cat.recluster("song")
    straight = opened(People(end), CatConfig(4, 200))
    assert cat.encode("song") == straight.encode("song")


def test_who_is_forgotten_was_never_there() -> None:
    people = People(scattered(300))
    gone = np.arange(0, 300, 7)
    kept = np.setdiff1d(np.arange(300), gone)
    cat = opened(people, CatConfig(sample=1000))
    other = opened(people, CatConfig(sample=1000), kept)
    moved = np.arange(0, 300, 2)
    new = scattered(len(moved), 9)
    cat.observe(moved, people.now[moved], new)
    stays = np.isin(moved, kept)
    other.observe(moved[stays], people.now[moved[stays]], new[stays])
    people.now[moved] = new
    # A half-life counts observations, theirs among them; the direction of what they would leave is what is compared.
    assert cat.forget(gone) == ["song"]
    assert not np.isin(cat.members("song"), gone).any()
    np.testing.assert_allclose(cat.prototypes("song").vectors, other.prototypes("song").vectors, atol=0.01)
    cat.recluster("song")
    other.recluster("song")
    assert cat.encode("song") == other.encode("song")
    assert cat.forget(gone) == []


def test_with_no_decay_who_is_forgotten_leaves_not_a_bit() -> None:
    people = People(scattered(300))
    gone = np.arange(0, 300, 7)
    config = CatConfig(sample=1000, half_life=np.inf)
    cat, other = opened(people, config), opened(people, config, np.setdiff1d(np.arange(300), gone))
    new = scattered(300, 9)
    cat.observe(np.arange(300), people.now, new)
    kept = np.setdiff1d(np.arange(300), gone)
    other.observe(kept, people.now[kept], new[kept])
    people.now = new
    cat.forget(gone)
    np.testing.assert_array_equal(cat._centroid_sums.sums, other._centroid_sums.sums)
    np.testing.assert_array_equal(cat._centroid_sums.prototypes, other._centroid_sums.prototypes)


def test_a_centroid_whose_members_all_go_is_gone() -> None:
    people = People(np.repeat(E[[1, 2]], [30, 20], axis=0))
    cat = opened(people, CatConfig(centroids=2))
    cat.forget(np.arange(30, 50))
    assert cat.prototypes("song").vectors.tolist() == E[1:2].tolist()
    np.testing.assert_allclose(cat.score(E[[2, 1]], 0.0).scores, [0.5])
    cat.forget(np.arange(30))
    assert len(cat.prototypes("song").vectors) == 0
    assert len(cat.score(E[[1]], 0.0)) == 0
    assert len(cat.score(E[[0]], 0.0)) == 1


def test_a_member_without_a_vector_has_no_share_until_it_has_one() -> None:
    people = People(np.repeat(E[[1, 2]], [3, 2], axis=0))
    cat = opened(people, CatConfig())
    move(cat, people, np.asarray([3, 4]), np.zeros((2, D), np.float32))
    assert cat.prototypes("song").members.tolist() == [3]
    np.testing.assert_array_equal(cat.prototypes("song").vectors, E[1:2])
    move(cat, people, np.asarray([4]), E[1:2])
    assert cat.prototypes("song").members.tolist() == [4]
    assert len(cat.members("song")) == 5


def test_those_who_join_are_members_by_their_hashes_as_if_they_had_been_there() -> None:
    people = People(scattered(400))
    cat = opened(people, CatConfig(2, 150), np.arange(200))
    whole = opened(people, CatConfig(2, 150))
    order = np.random.default_rng(0).permutation(np.arange(150, 400))
    for part in np.array_split(order, 5):
        cat.join("song", part, people.now[part], np.ones(len(part), np.float32))
    np.testing.assert_array_equal(cat.members("song"), whole.members("song"))
    cat.recluster("song")
    assert cat.encode("song") == whole.encode("song")


def test_a_member_that_joins_twice_counts_once() -> None:
    people = People(E[[1, 2]])
    cat = opened(people, CatConfig(), np.asarray([0]))
    both = np.asarray([0, 1, 1])
    cat.join("song", both, people.now[both], np.ones(3, np.float32))
    assert cat.prototypes("song").members.tolist() == [2]


def test_a_record_brings_back_every_bit() -> None:
    people = People(scattered(600))
    cat = opened(people, CatConfig(3, 256), song_vector=scattered(1, 4)[0])
    move(cat, people, np.arange(300), scattered(300, 6))
    cat.remain("song", 17)
    cat.forget(np.arange(250, 400))
    record = cat.encode("song")
    other = IncrementalCat(D, CatConfig(3, 256), people)
    other.load("song", record, people.rows)
    assert other.encode("song") == record
    users, new = np.arange(400, 600), scattered(200, 8)
    np.testing.assert_array_equal(other.score(new, 10.0).scores, cat.score(new, 10.0).scores)
    for each in (cat, other):
        each.observe(users, people.now[users], new)
    assert other.encode("song") == cat.encode("song")


def test_a_loaded_campaign_that_lost_members_is_due() -> None:
    people = People(scattered(100))
    cat = opened(people, CatConfig(2))
    record = cat.encode("song")
    other = IncrementalCat(D, CatConfig(2), people)
    other.load("song", record, lambda hashes: np.where(people.rows(hashes) < 10, -1, people.rows(hashes)))
    assert len(other.members("song")) == 90
    assert other.due(1) == ["song"]


@pytest.mark.parametrize("broken", [b"", b"\x07", b"\x01\x00", b"\x01\x95"])
def test_a_broken_record_is_refused(broken: bytes) -> None:
    cat = IncrementalCat(D, CatConfig(), People(E))
    with pytest.raises(ValueError, match="campaign"):
        cat.load("song", broken, lambda hashes: np.zeros(len(hashes), np.int64))
    assert len(cat) == 0


def test_a_record_of_other_dimensions_is_refused() -> None:
    people = People(scattered(20))
    record = opened(people, CatConfig(2)).encode("song")
    with pytest.raises(ValueError, match="3 centroids"):
        IncrementalCat(D, CatConfig(3), people).load("song", record, people.rows)


def test_due_are_those_that_moved_most() -> None:
    people = People(scattered(300))
    cat = IncrementalCat(D, CatConfig(recluster=50), people)
    for key, users in (("few", np.arange(10)), ("many", np.arange(100, 300)), ("some", np.arange(10, 100))):
        cat.open(key, E[0], users, people.now[users], np.ones(len(users), np.float32), 0, spend())
    assert cat.due(5) == []
    move(cat, people, np.arange(300), scattered(300, 1))
    assert cat.due(5) == ["many", "some"]
    assert cat.due(1) == ["many"]
    cat.recluster("many")
    assert cat.due(5) == ["some"]


def test_a_budget_of_nothing_reaches_nobody() -> None:
    people = People(scattered(50))
    cat = IncrementalCat(D, CatConfig(), people)
    cat.open("song", E[0], np.arange(50), people.now, np.ones(50, np.float32), 0, spend(0, people.now))
    assert len(cat.score(people.now, 0.0)) == 0
    cat.open("other", E[0], np.arange(50), people.now, np.ones(50, np.float32), 0, spend(1))
    assert len(cat.score(E[[0]], 0.0)) == 1
    cat.remain("other", 0)
    assert len(cat.score(E[[0]], 0.0)) == 0
    cat.remain("other", 1)
    assert len(cat.score(E[[0]], 1000.0)) == 0


def test_a_threshold_is_reached_by_as_many_as_there_are_pushes() -> None:
    people = People(scattered(20_000))
    cat = IncrementalCat(D, CatConfig(), people)
    cat.open(
        "song",
        E[0],
        np.arange(0),
        NOBODY,
        np.zeros(0, np.float32),
        0,
        CampaignPacing(400, 0.0, 1.0, 20_000, people.now[::5]),
    )
    assert 300 <= len(cat.score(people.now, 0.0)) <= 500


def test_a_campaign_is_opened_once() -> None:
    cat = opened(People(E), CatConfig())
    with pytest.raises(ValueError, match="open"):
        cat.open("song", E[0], np.arange(2), E[:2], np.ones(2, np.float32), 0, spend())


@pytest.mark.parametrize("wrong", [{"centroids": 0}, {"centroids": 128}, {"sample": 1 << 16}, {"half_life": 0.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CatConfig(**wrong)  # type: ignore[arg-type]
