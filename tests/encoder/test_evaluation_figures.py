"""Figures, differences and verdicts that can be computed by hand; searches and splits that do not leak."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import SMALL
from scipy import sparse

from encoder.content import Bag, ContentTable
from encoder.data.dataset import Dataset
from encoder.data.layout import read_dataset
from encoder.data.split import split
from encoder.evaluation import baselines, compare, damage, figures, intervals
from encoder.evaluation.jobs import Trial, Work, each
from encoder.evaluation.retrieval_task import task, validation
from encoder.evaluation.search import best, draws, judge
from encoder.evaluation.variants import DEFAULT, VARIANTS, TrainedEncoder, Variant
from encoder.supervision import Targets
from encoder.truth import Scores, Truth
from streams.testbed.pages.evaluation_report import html


def scores(*recall: float) -> Scores:
    values = np.array(recall)
    return Scores(values, values / 2, np.arange(len(values)) * 4 // len(values))


def test_a_summary_is_over_seeds_and_quartiles_over_songs() -> None:
    found = figures.summary([scores(0, 0.2, 0.4, 0.6), scores(0.2, 0.4, 0.6, 0.8)])["recall_50"]
    assert found["mean"] == pytest.approx(0.4)
    assert found["std"] == pytest.approx(0.2 / 2**0.5)
    np.testing.assert_allclose(found["quartiles"], [0.1, 0.3, 0.5, 0.7])
    np.testing.assert_allclose(found["seeds"], [0.3, 0.5])


def test_the_interval_is_wider_than_students_by_what_the_splits_share() -> None:
    gaps = [np.array([1.0, 3.0]), np.array([4.0])]
    # Means 2 and 4: variance 2, and 12.706 is the 97.5 % point of t with one degree of freedom.
    apart = intervals.interval(gaps, overlap=0)
    assert (apart["mean"], apart["high"]) == pytest.approx((3.0, 3 + 12.706 * 2**0.5 * 0.5**0.5), rel=1e-4)
    shared = intervals.interval(gaps, overlap=0.5)
    assert shared["low"] == pytest.approx(3 - 12.706 * 2**0.5, rel=1e-4)
    # t = 3 / sqrt 2 with one degree of freedom, whose law is Cauchy's.
    assert shared["p"] == pytest.approx(1 - 2 * np.arctan(3 / 2**0.5) / np.pi)


def test_an_interval_over_resplits_of_the_same_songs_holds_what_it_promises() -> None:
    """Songs' differences are 0 on average, and each split draws a tenth of the songs: no seed is a new sample."""
    rng = np.random.default_rng(0)
    holds = {0.0: 0, 1 / 9: 0}
    for _ in range(1000):
        songs = rng.standard_normal(300)
        gaps = [rng.permutation(songs)[:30] for _ in range(5)]
        for overlap in holds:
            found = intervals.interval(gaps, overlap)
            holds[overlap] += found["low"] <= 0 <= found["high"]
    # Student's t, by its law: 91 %. The standard error of each share is below 1 %.
    assert holds[0.0] / 1000 < 0.93 < holds[1 / 9] / 1000


def test_with_one_seed_the_interval_is_over_songs() -> None:
    found = intervals.interval([np.array([1.0, 2.0, 3.0])], overlap=0.1)
    assert found["high"] - found["mean"] == pytest.approx(1.96 / 3**0.5, rel=1e-3)


def test_an_arm_against_itself_differs_by_nothing() -> None:
    runs = [scores(0.1, 0.5, 0.2, 0.7), scores(0.3, 0.5, 0.1, 0.9)]
    found = figures.paired(runs, runs, overlap=0.1)
    assert found["ndcg_50"]["mean"] == found["ndcg_50"]["low"] == found["ndcg_50"]["quartiles"][2]["high"] == 0
    assert found["ndcg_50"]["p"] == 1


def test_a_verdict_is_corrected_for_all_of_a_table() -> None:
    sure, weak = ({"mean": mean, "low": -1.0, "high": 1.0, "p": p} for mean, p in ((-0.2, 1e-9), (0.1, 0.04)))
    found = compare.verdicts({"recall_50": sure | {"quartiles": [weak, weak]}})
    assert found == {"recall_50": {"overall": "hurts", "quartiles": ["not told apart", "not told apart"]}}
    assert intervals.verdict(weak, True) == "helps"


@pytest.mark.parametrize(("values", "expected"), [([1, 1, 1, 1], 0), ([0, 0, 0, 8], 3 / 4), ([1, 3], 1 / 4), ([0], 0)])
def test_gini(values: list[float], expected: float) -> None:
    assert figures.gini(np.array(values, float)) == pytest.approx(expected)


def test_skew_counts_targets_that_share_a_listener() -> None:
    targets = Targets(np.array([[1, 2], [0, 2], [1, 0]]), np.array([[1, 0], [1, 0], [1, 0]], np.float32))
    # Song 0 is a target once, song 1 twice, song 2 only with weight 0.
    assert figures.skew(targets, 3) == pytest.approx(figures.gini(np.array([1.0, 2.0, 0.0])))


def test_gauges_of_a_collapsed_and_of_a_perfect_space() -> None:
    answer = Truth(np.array([[0, -1], [1, -1]]), np.array([[1, 0], [1, 0]], np.float32), np.array([5, 5]))
    axes = np.eye(2, dtype=np.float32)
    perfect = figures.gauges(3 * axes, axes, answer)
    assert perfect == pytest.approx({"alignment": 0, "uniformity": -4, "variance": 0.5})
    collapsed = figures.gauges(axes[[0, 0]], axes, answer)
    # The second song's true neighbour is at a right angle: squared distance 2, 1 on average.
    assert collapsed == pytest.approx({"alignment": 1, "uniformity": 0, "variance": 0})


def dataset(songs: int = 300, users: int = 60) -> Dataset:
    rng = np.random.default_rng(1)
    plays = sparse.csr_matrix((rng.random((songs, users)) < 0.3).astype(np.float32))
    tags = sparse.csr_matrix(rng.integers(0, 4, (songs, 12)).astype(np.float32))
    content = ContentTable(
        tuple(f"s{i}" for i in range(songs)), {}, {"tags": Bag(tuple(f"tag{t}" for t in range(12)), tags)}
    )
    return Dataset("chance", content, tuple(f"u{i}" for i in range(users)), plays)


def test_no_song_on_which_a_choice_was_made_is_ever_scored() -> None:
    data = dataset()
    seeds = range(5)
    parts = validation(data, seeds)
    for seed in seeds:
        assert not set(parts.cold) & set(split(data, seed).cold)
    assert len(parts.cold) == 30
    assert not set(parts.cold) & set(parts.warm)


def test_with_too_many_seeds_a_tenth_can_still_be_validated_on() -> None:
    assert len(validation(dataset(), range(100)).cold) == 30


def test_a_search_finds_what_is_better() -> None:
    work = Work(dataset(), (0,))
    # Ranks of the ceiling on listeners of chance: the more, the nearer to the cosine itself.
    arm = Variant("", baselines.Ceiling(rank=2), {"rank": (2, 4, 8, 50)}, hears=True)
    drawn = draws(arm, 10)
    values = [Trial(arm, trial)(work)[0] for trial in drawn]
    assert best(arm, drawn, values, 1.0).model == baselines.Ceiling(rank=50)
    assert best(arm, drawn, [np.full(30, 0.5)] * len(drawn), 1.0).model == arm.model


def test_a_search_leaves_an_arms_own_config_only_for_more_than_noise() -> None:
    arm = Variant("", baselines.Ceiling(rank=2), {"rank": (2, 4, 8)}, hears=True)
    drawn: list[dict[str, int]] = [{"rank": 2}, {"rank": 4}, {"rank": 8}]
    own, noise = np.full(100, 0.5), np.tile([0.4, -0.4], 50)
    # A mean gain of .03 with a standard error of .04, and one of .01 for every song alike.
    found = best(arm, drawn, [own, own + 0.03 + noise, own + 0.01], 1.0)
    assert found.model == baselines.Ceiling(rank=8)
    assert (found.value, found.trials, found.of) == (pytest.approx(0.51), 3, 3)
    assert best(arm, drawn[:2], [own, own + 0.03 + noise], 1.0).model == arm.model


def test_other_processes_give_the_same() -> None:
    work = Work(dataset(), (0,))
    jobs = [Trial(VARIANTS["content_knn"], {"reading": reading}) for reading in ("logs", "counts")]
    found = {place: value for place, (value, _) in each(work, jobs, 2)}
    assert len(found) == len(jobs)
    for place, job in enumerate(jobs):
        np.testing.assert_array_equal(found[place], job(work)[0])


def test_trials_are_distinct_and_begin_with_the_arms_own() -> None:
    for arm in VARIANTS.values():
        drawn = draws(arm, 10)
        assert bool(drawn) == bool(arm.space)
        if not drawn:
            continue
        assert arm.varied(**drawn[0]) == arm.model
        assert len({repr(arm.varied(**values)) for values in drawn}) == len(drawn) <= 10


def test_thinning_keeps_five_assignments_and_none_that_was_not_there() -> None:
    content = dataset().content
    thin = damage.thinned(content, "tags", seed=0).bags["tags"].weights.toarray()
    before = content.bags["tags"].weights.toarray()
    np.testing.assert_array_equal(thin.sum(axis=1), np.minimum(before.sum(axis=1), 5))
    assert (thin <= before).all()


def test_a_missing_modality_is_missing_and_the_others_are_not() -> None:
    table = ContentTable(
        ("a",), {"audio": np.ones((1, 2), np.float32)}, {"tags": Bag(("x",), sparse.eye_array(1).tocsr())}
    )
    assert damage.modalities(table) == ("tags", "audio")
    assert damage.without(table, "audio").song(0).dense == {}
    assert damage.without(table, "audio").song(0).bags == table.song(0).bags
    assert damage.without(table, "tags").song(0).bags == {}


@pytest.fixture(scope="module")
def result() -> dict[str, object]:
    """An evaluation of three arms on two seeds, on content that says nothing."""
    arms = {
        "random": baselines.Random(),
        "artist_mean": baselines.ArtistMean(),
        DEFAULT: TrainedEncoder(replace(SMALL, epochs=1)),
        "ceiling": baselines.Ceiling(rank=50),
    }
    return compare.evaluate(
        dataset(),
        2,
        trials=0,
        arms={name: replace(VARIANTS[name], model=model) for name, model in arms.items()}
        | {"bcl_no_contrast": VARIANTS["bcl_no_contrast"]},
    )


def test_the_keys_are_those_that_are_promised(result: dict[str, object]) -> None:
    result = json.loads(json.dumps(result, allow_nan=False))
    assert result["default_arm"] == DEFAULT
    assert result["train_seconds"] == result["arms"][DEFAULT]["train_seconds"] > 0
    for arm in result["arms"].values():
        for measure in ("recall_50", "ndcg_50"):
            assert {"mean", "std", "quartiles"} <= arm[measure].keys()
            assert len(arm[measure]["quartiles"]) == 4
    assert result["paired"].keys() == {f"{DEFAULT}-{name}" for name in result["arms"] if name != DEFAULT}
    assert result["skipped"] == {"artist_mean": "the data have no artists"}


def test_content_that_says_nothing_is_chance_and_the_ceiling_is_not(result: dict[str, object]) -> None:
    recall = {name: arm["recall_50"]["mean"] for name, arm in result["arms"].items()}
    # 50 of 270 warm songs.
    assert recall["random"] == pytest.approx(50 / 270, abs=0.03)
    # What it can learn is who is popular: those are a little more often among the most similar.
    assert recall["random"] < recall[DEFAULT] < 0.3
    assert recall["ceiling"] > 0.8


def test_what_stands_apart_differs_from_the_default_in_that_alone(result: dict[str, object]) -> None:
    ours, apart = (result["arms"][name]["config"] for name in (DEFAULT, "bcl_no_contrast"))
    assert {key for key in ours if ours[key] != apart[key]} == {"contrast"}


def test_unseen_terms_are_ignored_and_counted(result: dict[str, object]) -> None:
    arm = result["arms"][DEFAULT]
    assert arm["content"]["unseen"]["recall_50"] == arm["recall_50"]
    unseen = result["unseen_terms_per_song"]
    assert unseen["unseen"] - unseen["full"] == damage.UNSEEN


def test_the_page_holds_every_arm_and_loads_nothing(result: dict[str, object]) -> None:
    page = html(result)
    assert all(f'<th scope="row">{name}</th>' in page for name in result["arms"])
    assert "src=" not in page
    assert 'href="http' not in page
    assert page.count("<svg") == 3
    # Nor what only TeX reads.
    assert "$" not in page


def test_the_default_must_take_part() -> None:
    with pytest.raises(ValueError, match="bcl must be among them"):
        compare.evaluate(dataset(), 1, arms={"random": VARIANTS["random"]})


def test_ridge_on_real_data_is_what_was_measured_by_other_code(data_dir: Path) -> None:
    """.4089 recall and .4652 NDCG over five seeds, their means' standard deviation .007: three seeds come near."""
    data = read_dataset(data_dir)
    runs = [judge(VARIANTS["ridge"], VARIANTS["ridge"].model, task(data, split(data, seed)), seed) for seed in range(3)]
    found = figures.summary(runs)
    assert found["recall_50"]["mean"] == pytest.approx(0.409, abs=0.01)
    assert found["ndcg_50"]["mean"] == pytest.approx(0.465, abs=0.01)
