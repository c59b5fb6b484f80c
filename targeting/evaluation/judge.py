"""Judges the variants by songs and groups of users, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from targeting.evaluation import paired, reliability, user_vector_variants
from targeting.evaluation.activity_power import strength
from targeting.evaluation.case import Case
from targeting.evaluation.grid_search import LISTENERS, tuned
from targeting.evaluation.loaded import load
from targeting.evaluation.ranking_metrics import AT, NAMES, RECALL_AT, judged
from targeting.evaluation.ranking_variants import DATED, DEFAULT, OPEN, SERVED, VARIANTS, RankingVariant
from targeting.types import F64

Json = dict[str, Any]
Tell = Callable[[str], None]

# Ranges of a cold song's listeners: from, below.
BANDS = {"5-19": (5, 20), "20-39": (20, 40), "40-99": (40, 100), ">=100": (100, 1 << 62)}
# Songs of a figure: those with at least 20 listeners, so 100 users can include some, or every cold song.
ENOUGH, EVERY = LISTENERS, 0
# Groups of users: all; candidates of the retrieved songs; users with a vector who are not candidates.
ALL, POOL, OUTSIDE = "all", "pool", "outside"


class Results:
    """One row for each (case, song): its listeners, and each variant's measures among each group of users.

    Attributes:
        overlap: cold songs of a case per warm one, if a song is cold in several cases; else 0.
    """

    def __init__(self) -> None:
        self.songs: list[str] = []
        self.cases: list[str] = []
        self.listeners: list[int] = []
        self.overlap = 0.0
        self.values: dict[tuple[str, str], list[dict[str, float]]] = {}

    def groups(self) -> list[str]:
        """All groups of users, :data:`ALL` first."""
        return list(dict.fromkeys(users for _, users in self.values))

    def of(self, variant: str, users: str, name: str) -> F64:
        """A measure of a variant among some users for all rows, float64 (n,)."""
        return np.asarray([row[name] for row in self.values[variant, users]])

    def mean(self, variant: str, users: str, name: str, rows: np.ndarray) -> tuple[float, float]:
        """Mean over cases of the mean over songs, and its standard deviation over cases; NaN songs left out."""
        values, cases = self.of(variant, users, name), np.asarray(self.cases)
        use = rows & np.isfinite(values)
        means = [values[use & (cases == case)].mean() for case in dict.fromkeys(cases[use].tolist())]
        if not means:
            return float("nan"), float("nan")
        return float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


def evaluate(
    tests: Sequence[Case],
    validations: Sequence[Case],
    tell: Tell = lambda _: None,
    means: str = "membership, not response",
) -> Json:
    """Judges every variant on the cold songs of ``tests``; what is open in a variant is chosen on ``validations``.

    ``means`` names the truth: listeners who found a song by themselves, or answers to a push.

    Returns:
        ``targeting``: variant -> figures over songs with at least 20 listeners and all users; the same over
        ``every_song``, ``by_listeners``, in the ``pool``, ``outside`` of it, and in each of the cases' groups of users.
        ``targeting_default``, ``targeting_config``: the variant that is served; each variant's choices.
        ``paired``, ``paired_method``: default minus every other variant, for all users, over ``every_song``, and for
        each of these groups.
        ``targeting_calibration``, with validations: the map fitted on them, and what :mod:`reliability` says of it on
        the tests.
        ``targeting_user_vectors``, with validations: :mod:`targeting.evaluation.user_vector_variants`, measured on
        them.
        All plain numbers and strings; NaN where there is nothing to measure.
    """
    variants = choose(validations, tell)
    activity = next(variant for variant in variants if variant.name == DEFAULT).config.activity
    results = measure(tests, variants, tell)
    calibration = {}
    if validations:
        tell("calibrating")
        fitted = reliability.fitted(validations, SERVED.config.relevance, activity)
        calibration = {
            "targeting_calibration": {
                "means": means,
                "map": fitted.to_json(),
                **reliability.reliability(tests, SERVED.config.relevance, fitted),
            }
        }
        tell("measuring other user vectors")
        calibration["targeting_user_vectors"] = other_vectors(validations)
    return {
        **calibration,
        "targeting": {variant.name: figures(results, variant.name) for variant in variants},
        "targeting_default": DEFAULT,
        "targeting_config": {variant.name: asdict(variant.config) if variant.config else {} for variant in variants},
        "paired": {
            f"{DEFAULT}-{variant.name}": {
                **against(results, DEFAULT, variant.name),
                "every_song": against(results, DEFAULT, variant.name, fewest=EVERY),
                **{users: against(results, DEFAULT, variant.name, users) for users in results.groups() if users != ALL},
            }
            for variant in variants
            if variant.name != DEFAULT
        },
        "paired_method": paired.METHOD,
    }


def choose(validations: Sequence[Case], tell: Tell = lambda _: None) -> list[RankingVariant]:
    """The variants with the best configs found for open fields; without cases, unchanged."""
    loaded = [load(case) for case in validations]
    variants = []
    for variant in VARIANTS:
        if loaded and variant.name in (*OPEN, DEFAULT):
            tell(f"tuning {variant.name}")
        if loaded and variant is SERVED:
            # As in production: not the best power but one that is enough.
            activity = strength(validations, variant.config.relevance)
            variants.append(replace(variant, config=replace(variant.config, activity=activity)))
        else:
            dated = all(case.played_at is not None for case in validations)
            choices = {field: values for field, values in OPEN.get(variant.name, {}).items() if dated or field != DATED}
            variants.append(tuned(variant, choices, loaded) if loaded else variant)
    return variants


def other_vectors(validations: Sequence[Case]) -> Json:
    """The figures of every variant of user vectors, and each minus the first, which is production's."""
    rows = user_vector_variants.variants(validations[0])
    results = measure(validations, rows)
    enough = np.asarray(results.listeners) >= ENOUGH
    return {
        row.name: {**_block(results, row.name, ALL, enough), "minus_served": against(results, row.name, rows[0].name)}
        for row in rows
    }


def measure(tests: Sequence[Case], variants: Sequence[RankingVariant], tell: Tell = lambda _: None) -> Results:
    """Every measure of every variant for every cold song that has a listener among the users."""
    results = Results()
    if len({song for case in tests for song in case.song_ids}) < sum(len(case.song_ids) for case in tests):
        results.overlap = float(np.mean([len(case.song_ids) / case.plays.shape[0] for case in tests]))
    for case in tests:
        tell(f"judging {case.name}")
        loaded = load(case)
        known = np.bincount(case.plays.indices, minlength=case.users) > 0
        for song, song_id in enumerate(case.song_ids):
            hidden = case.listeners(song)
            pool = np.isin(np.arange(case.users), loaded.scored(song, SERVED.config.relevance).users)
            groups = {ALL: np.ones(case.users, np.bool_), POOL: pool, OUTSIDE: known & ~pool, **case.groups}
            results.songs.append(song_id)
            results.cases.append(case.name)
            results.listeners.append(int(hidden.sum()))
            for variant in variants:
                scores = variant.score(loaded, song, variant.config)
                for group, members in groups.items():
                    # The same order of ties for all variants, another one for each song.
                    row = judged(scores[members], hidden[members], np.random.default_rng(song))
                    results.values.setdefault((variant.name, group), []).append(row)
    return results


def figures(results: Results, variant: str) -> Json:
    """A variant's figures, nested as :func:`evaluate` says."""
    listeners = np.asarray(results.listeners)
    enough = listeners >= ENOUGH
    return {
        **_block(results, variant, ALL, enough),
        "every_song": _block(results, variant, ALL, listeners >= EVERY),
        "by_listeners": {
            band: _block(results, variant, ALL, (listeners >= low) & (listeners < high))
            for band, (low, high) in BANDS.items()
        },
        **{users: _block(results, variant, users, enough) for users in results.groups() if users != ALL},
    }


def against(results: Results, one: str, other: str, users: str = ALL, fewest: int = ENOUGH) -> Json:
    """One variant minus another over songs with at least ``fewest`` listeners: mean, low, high and p by measure."""
    rows = np.flatnonzero(np.asarray(results.listeners) >= fewest)
    songs = [results.songs[row] for row in rows]
    splits = paired.Splits([results.cases[row] for row in rows], results.overlap)
    values = {name: (results.of(one, users, name)[rows], results.of(other, users, name)[rows]) for name in NAMES}
    return {
        name: asdict(paired.difference(mine, theirs, songs, splits))
        for name, (mine, theirs) in values.items()
        if np.isfinite(mine - theirs).any()
    }


def _block(results: Results, variant: str, users: str, rows: np.ndarray) -> Json:
    means = {name: results.mean(variant, users, name, rows) for name in NAMES}
    recall = f"recall_{RECALL_AT}"
    return {
        "songs": int(rows.sum()),
        "precision": {str(n): means[f"precision_{n}"][0] for n in AT},
        recall: means[recall][0],
        "r_precision": means["r_precision"][0],
        "auc": means["auc"][0],
        "std": {
            "precision": {str(n): means[f"precision_{n}"][1] for n in AT},
            **{name: means[name][1] for name in (recall, "r_precision", "auc")},
        },
    }
