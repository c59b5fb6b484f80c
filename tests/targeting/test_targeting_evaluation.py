from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from targeting.evaluation import DEFAULT, Case, arrivals, evaluate, user_vector_variants
from targeting.evaluation.arrivals import CampaignVectors
from targeting.evaluation.audience_tables import by_listeners, of_calibration, of_user_vectors, of_variants
from targeting.evaluation.grid_search import drawn
from targeting.evaluation.loaded import load
from targeting.evaluation.paired import Splits, difference
from targeting.evaluation.ranking_metrics import judged
from targeting.evaluation.ranking_variants import (
    OPEN,
    SERVED,
    VARIANTS,
    SongEvidence,
    Weighed,
    direct,
    evidence,
    weighed,
)
from targeting.evaluation.reliability import error
from targeting.evaluation.user_vector_variants import UserVectorVariant
from targeting.evaluation.user_vectors import Taste, several, vectors
from targeting.users.histories import HISTORY

SCENES, SONGS, USERS, D = 4, 15, 120, 8


def scenes(seed: int, strays: float = 0.2) -> Case:
    """Songs and users of four scenes that are orthogonal; a user hears own songs, and some of any scene.

    The cold songs lie in the scenes' centres and are heard by every user of the scene and by nobody else.
    """
    rng = np.random.default_rng(seed)
    song_scene, user_scene = np.arange(SCENES * SONGS) % SCENES, np.arange(SCENES * USERS) % SCENES
    own = song_scene[:, None] == user_scene[None]
    heard = np.where(own, rng.random(own.shape) < 0.4, rng.random(own.shape) < 0.4 * strays)
    vectors = np.eye(SCENES, D)[song_scene] + 0.15 * rng.standard_normal((len(song_scene), D))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = np.arange(SCENES)[:, None] == user_scene[None]
    return Case(
        f"scenes {seed}",
        tuple(f"{seed}-{scene}" for scene in range(SCENES)),
        sparse.csr_matrix(heard.astype(np.float32)),
        vectors.astype(np.float32),
        np.eye(SCENES, D, dtype=np.float32),
        sparse.csr_matrix(truth),
        neighbours=SONGS,
    )


def test_where_the_truth_is_a_scene_everything_but_chance_finds_it() -> None:
    figures = evaluate([scenes(0), scenes(1)], [scenes(2)])
    table = figures["targeting"]
    assert {variant.name for variant in VARIANTS} == table.keys()
    assert figures["targeting_default"] == DEFAULT
    for variant in ("direct", "evidence", "cat", DEFAULT):
        assert table[variant]["precision"]["100"] > 0.9
        assert table[variant]["auc"] > 0.97
    # A quarter of the users are right.
    assert abs(table["random"]["precision"]["100"] - 0.25) < 0.06
    assert table["random"]["auc"] == 0.5
    assert 0.3 < table["i2i2u"]["precision"]["100"] < table["evidence"]["precision"]["100"]
    assert table[DEFAULT]["by_listeners"][">=100"]["songs"] == 2 * SCENES
    assert table[DEFAULT]["by_listeners"]["20-39"]["songs"] == 0
    ahead = figures["paired"][f"{DEFAULT}-random"]["precision_100"]
    assert ahead["low"] > 0.6
    # The cold songs of all three cases are alike, so the chances learned on one hold in the others.
    assert figures["targeting_calibration"]["ece"]["all"] < 0.04
    assert figures["targeting_calibration"]["precision_100"]["distance"] < 0.05
    # What is stored reads the same as what was measured.
    stored = json.loads(json.dumps(figures))
    head, _, *rows = of_variants(stored, "pool").splitlines()
    assert head.count("|") == 9
    assert of_variants(stored).splitlines()[0].count("|") == 11
    assert [row.split("`")[1] for row in rows] == [variant.name for variant in VARIANTS]
    assert f"{2 * SCENES} songs" in by_listeners(stored)
    assert "plays^.25" in of_user_vectors(stored)
    assert "membership, not response" in of_calibration(stored)


def test_arms_are_what_their_names_say() -> None:
    case = scenes(0)
    loaded = load(case)
    heard = case.plays.toarray() > 0
    sums = heard.T.astype(np.float32) @ case.vectors
    tastes = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    np.testing.assert_allclose(loaded.tastes(Taste())[0], tastes, atol=1e-5)
    # Production's own vectors of the same users.
    served = loaded.histories.taste.of(np.arange(case.users))
    np.testing.assert_allclose(loaded.tastes(Taste(stretched=True))[0], served, atol=1e-5)
    np.testing.assert_allclose(direct(loaded, 1, Taste()), np.maximum(tastes @ case.queries[1], 0), atol=1e-5)
    cosines = case.vectors @ case.queries[1]
    nearest = np.argsort(-cosines)[:10]
    np.testing.assert_allclose(evidence(loaded, 1, SongEvidence(10)), cosines[nearest] @ heard[nearest], atol=1e-4)
    sharp = (cosines[nearest] ** 3) @ heard[nearest]
    np.testing.assert_allclose(evidence(loaded, 1, SongEvidence(10, sharpness=3)), sharp, atol=1e-4)
    activity = ((1 + heard.sum(axis=0)) / (1 + HISTORY)) ** 0.5
    np.testing.assert_allclose(evidence(loaded, 1, SongEvidence(10, 3, 0.5)), sharp * activity, atol=1e-4)
    # The default's own weights are those that it serves with.
    np.testing.assert_array_equal(weighed(loaded, 1, Weighed()), SERVED.score(loaded, 1, SERVED.config))


def test_what_is_open_is_a_field_and_has_its_present_value_among_the_others() -> None:
    variants = {variant.name: variant.config for variant in VARIANTS}
    for name, choices in OPEN.items():
        for field, values in choices.items():
            assert getattr(variants[name], field) in values


def test_the_songs_that_a_choice_is_made_on_are_any() -> None:
    """Of 400 songs with enough listeners: the first of the rows have the most of them, those drawn as many as all."""
    counts = np.maximum(np.arange(600, 0, -1) - 180, 5)
    truth = sparse.csr_matrix(np.arange(600)[None] < counts[:, None])
    song = np.ones((600, 1), np.float32)
    case = Case("one", tuple(map(str, range(600))), sparse.csr_matrix((1, 600)), song[:1], song, truth)
    found = drawn(case)
    assert len(found) == len(set(found.tolist())) == 100
    assert (counts[found] >= 20).all()
    # Their standard error is 11.5.
    assert counts[found].mean() == pytest.approx(counts[counts >= 20].mean(), abs=35)
    np.testing.assert_array_equal(found, drawn(case))


def test_tastes_forget_and_weigh() -> None:
    songs = np.eye(3, 4, dtype=np.float32)
    plays = sparse.csr_matrix(np.asarray([[16.0], [1.0], [1.0]], np.float32))
    case = Case("one", ("n",), plays, songs, songs[:1], sparse.csr_matrix((1, 1)), np.asarray([0.0, 86_400, 172_800]))

    def weights(config: Taste) -> list[float]:
        found = vectors(case, config)[0]
        return [round(float(each), 4) for each in found / found[2]]

    assert weights(Taste()) == [1, 1, 1, 0]
    assert weights(Taste(plays=0.5)) == [4, 1, 1, 0]
    assert weights(Taste(half_life=1)) == [0.25, 0.5, 1, 0]
    assert weights(Taste(latest=2)) == [0, 1, 1, 0]


def test_several_tastes_of_a_user_are_told_apart() -> None:
    songs = np.eye(4, dtype=np.float32)
    heard = sparse.csr_matrix(np.ones((4, 1), np.float32))
    case = Case("one", ("n",), heard, songs, songs[:1], sparse.csr_matrix((1, 1)))
    # One vector for every three songs: four songs make one, equally near to all.
    np.testing.assert_allclose(several(case, 3)[0], [[0.5] * 4, [0] * 4, [0] * 4], atol=1e-6)
    twice = Case("two", ("n",), sparse.csr_matrix(np.ones((8, 1), np.float32)), np.repeat(songs[:2], 4, 0), songs[:1],
                 sparse.csr_matrix((1, 1)))  # fmt: skip
    np.testing.assert_allclose(sorted(several(twice, 2)[0].tolist()), songs[1::-1], atol=1e-6)


def test_production_with_its_own_user_vectors_is_production() -> None:
    loaded = load(scenes(0))
    for song in range(SCENES):
        np.testing.assert_allclose(
            user_vector_variants.score(loaded, song, UserVectorVariant()),
            SERVED.score(loaded, song, SERVED.config),
            atol=1e-6,
        )


def test_a_campaign_that_keeps_nothing_else_has_the_own_vector() -> None:
    loaded = load(scenes(0))
    users, songs = loaded.tastes(Taste(stretched=True))
    centre = arrivals.score(loaded, 1, CampaignVectors(own=False))
    both = arrivals.score(loaded, 1, CampaignVectors())
    positive = both > 0
    np.testing.assert_allclose((both - users @ songs[1])[positive & (centre > 0)], centre[positive & (centre > 0)],
                               atol=1e-5)  # fmt: skip
    # The weighted centroid lies in the scene that the song is from.
    assert judged(centre, loaded.case.listeners(1), np.random.default_rng(0))["auc"] > 0.95


def test_the_error_of_chances() -> None:
    rng = np.random.default_rng(0)
    chances = rng.random(100_000).astype(np.float32)
    came = rng.random(len(chances)) < chances
    assert error(chances, came) < 0.01
    assert error(chances / 2, came) == pytest.approx(0.25, abs=0.01)
    # The same chance for all is right on average, in whatever order they come.
    assert error(np.full(1000, 0.3, np.float32), np.arange(1000) < 300) == pytest.approx(0, abs=1e-6)


def test_measures_of_a_known_ranking() -> None:
    scores = np.linspace(1, 0, 400).astype(np.float32)
    listeners = np.zeros(400, bool)
    listeners[[*range(30), 150, 399]] = True
    found = judged(scores, listeners, np.random.default_rng(0))
    assert found["precision_50"] == 30 / 50
    assert found["precision_100"] == 30 / 100
    assert found["precision_200"] == 31 / 200
    assert found["recall_200"] == 31 / 32
    assert found["r_precision"] == 30 / 32
    others = 400 - 32
    # After every listener of the first 30 come all others; after the one at 150, those from 151 to 398.
    assert found["auc"] == pytest.approx((30 * others + (399 - 151)) / (32 * others))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(people: list[tuple[int, bool]]) -> None:
    scores = np.asarray([score for score, _ in people], np.float32)
    listeners = np.asarray([listener for _, listener in people])
    found = judged(scores, listeners, np.random.default_rng(0))["auc"]
    pairs = [(a > b) + (a == b) / 2 for a in scores[listeners] for b in scores[~listeners]]
    assert found == pytest.approx(np.mean(pairs)) if pairs else np.isnan(found)


def test_equals_are_put_in_random_order() -> None:
    listeners = np.arange(400) < 100
    values = [
        judged(np.zeros(400, np.float32), listeners, np.random.default_rng(seed))["precision_100"]
        for seed in range(200)
    ]
    # The standard error is .003.
    assert np.mean(values) == pytest.approx(0.25, abs=0.012)


def test_an_interval_knows_which_songs_are_the_same() -> None:
    rng = np.random.default_rng(0)
    once = rng.standard_normal(100) + 0.1
    names = [f"s{i}" for i in range(100)]
    single = difference(once, np.zeros(100), names)
    # The same songs three times say nothing more than once.
    thrice = difference(np.tile(once, 3), np.zeros(300), names * 3)
    assert thrice.mean == pytest.approx(once.mean())
    assert (thrice.low, thrice.high) == pytest.approx((single.low, single.high))
    assert single.high - single.low == pytest.approx(2 * 1.96 * once.std() / 10, rel=0.1)
    with_gap = difference(np.append(once, np.nan), np.zeros(101), [*names, "x"])
    assert with_gap.mean == pytest.approx(single.mean)


def test_an_interval_knows_that_splits_differ() -> None:
    gaps, songs = np.repeat([1.0, 3.0], 500) + np.tile([-0.1, 0.1], 500), [f"s{i}" for i in range(1000)]
    halves = ["a"] * 500 + ["b"] * 500
    alone = difference(gaps, np.zeros(1000), songs)
    assert alone.low == pytest.approx(2 - 1.96 / 1000**0.5, abs=0.01)
    # Means 1 and 3: variance 2, and 12.706 is the 97.5 % point of t with one degree of freedom.
    found = difference(gaps, np.zeros(1000), songs, Splits(halves, overlap=0.5))
    assert (found.mean, found.low) == pytest.approx((2, 2 - 12.706 * 2**0.5), rel=1e-4)
    # t = 2 / sqrt 2 with one degree of freedom, whose law is Cauchy's.
    assert found.p == pytest.approx(1 - 2 * np.arctan(2**0.5) / np.pi)
    # Where the splits agree, the songs decide.
    mixed = difference(gaps, np.zeros(1000), songs, Splits(halves[::2] * 2))
    assert (mixed.low, mixed.high) == (alone.low, alone.high)
    assert mixed.p == alone.p < 0.01


def test_every_cold_song_has_a_say_of_its_own() -> None:
    case = scenes(0)
    # Of one song only ten listeners are known, whom nobody finds: the figures of songs with 20 do not know it.
    truth = case.truth.tolil()
    truth[0] = 0
    truth[0, np.flatnonzero(np.arange(case.users) % SCENES == 1)[:10]] = 1
    figures = evaluate([replace(case, truth=truth.tocsr())], [])["targeting"][DEFAULT]
    assert (figures["songs"], figures["every_song"]["songs"]) == (SCENES - 1, SCENES)
    missed = figures["every_song"]["r_precision"] * SCENES - figures["r_precision"] * (SCENES - 1)
    assert missed == pytest.approx(0, abs=0.1)


def test_users_are_judged_apart() -> None:
    case = scenes(0)
    half = np.arange(case.users) < case.users // 2
    grouped = Case(case.name, case.song_ids, case.plays, case.vectors, case.queries, case.truth, groups={"first": half})
    table = evaluate([grouped], [])["targeting"]
    # 60 of the 240 users are right: there are not more to be found.
    assert table["direct"]["first"]["precision"]["200"] == pytest.approx(60 / 200)
    assert table["direct"]["first"]["recall_200"] > 0.97


@pytest.mark.parametrize("what", ["vectors", "queries", "truth", "played_at"])
def test_shapes_that_do_not_agree_are_named(what: str) -> None:
    case = scenes(0)
    wrong: dict[str, object] = {
        "vectors": case.vectors[1:],
        "queries": case.queries[1:],
        "truth": case.truth[:, 1:],
        "played_at": np.zeros(3),
    }
    given: dict[str, object] = {
        "name": "x", "song_ids": case.song_ids, "plays": case.plays, "vectors": case.vectors,
        "queries": case.queries, "truth": case.truth, what: wrong[what],
    }  # fmt: skip
    with pytest.raises(ValueError, match=what):
        Case(**given)  # type: ignore[arg-type]
