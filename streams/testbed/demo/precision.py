"""Precision of pushes over cold songs whose listeners are known but were hidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.data.dataset import Dataset
from encoder.data.split import Split
from streams.testbed.demo.follow import Answer

CUTS = (50, 100, 200)
ENOUGH_LISTENERS = 20
BUCKETS = ((5, 19), (20, 39), (40, 99), (100, None))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Means over songs. Arms: ``coldstart`` (what was pushed), ``evidence`` (sum of similarities over retrieved
    songs heard), ``i2i2u`` (the retrieved songs' listeners, unranked: the expected value), ``random`` (any user:
    the expected value).

    Attributes:
        songs: judged cold songs with at least 20 listeners.
        precision: arm -> cut -> mean precision.
        recall_200: arm -> mean recall among 200.
        liking: arm -> cut -> mean chance that one of the first so many would listen if shown the song; known for
            generated data alone, else None. A listen in the data needs more: that the user was shown the song, and
            users who are shown more listen to more.
        r_precision: bucket of listeners -> arm -> precision at as many users as the song has listeners, or as
            were pushed if those are fewer; the same number for both arms.
    """

    songs: int
    precision: dict[str, dict[int, float]]
    recall_200: dict[str, float]
    r_precision: dict[str, dict[str, float]]
    liking: dict[str, dict[int, float]] | None = None


def bucket_name(low: int, high: int | None) -> str:
    return f">={low}" if high is None else f"{low}-{high}"


Liking = Callable[[int], NDArray[np.float64]]
"""Row of a song -> the chance that each user, in column order, would listen if shown it."""


def judge(dataset: Dataset, split: Split, answers: Mapping[str, Answer], liking: Liking | None = None) -> Judgement:
    """Judge the pushes for the cold songs that were answered."""
    users = {user_id: column for column, user_id in enumerate(dataset.user_ids)}
    rows = {dataset.song_ids[row]: int(row) for row in split.warm}
    heard = dataset.plays.copy()
    heard.data = np.ones_like(heard.data)
    n = len(dataset.user_ids)
    arms = ("coldstart", "evidence", "i2i2u", "random")
    precision: dict[str, list[list[float]]] = {arm: [] for arm in arms}
    recall: dict[str, list[float]] = {arm: [] for arm in arms}
    liked: dict[str, list[list[float]]] = {arm: [] for arm in arms}
    exact: dict[str, dict[str, list[float]]] = {bucket_name(*b): {"coldstart": [], "evidence": []} for b in BUCKETS}
    for row in split.cold:
        answer = answers.get(dataset.song_ids[row])
        if answer is None or not answer.answered:
            continue
        truth = np.zeros(n, bool)
        truth[heard[row].indices] = True
        listeners = int(truth.sum())
        ranked = [user for _, user in sorted(answer.pushes, key=lambda push: -push[0])]
        columns = np.array([users[user] for user in ranked], np.int64)
        pushed = truth[columns]
        known = [each for each in answer.neighbours if each.song_id in rows]
        similarity = np.array([each.similarity for each in known], np.float32)
        scores = np.asarray(heard[[rows[each.song_id] for each in known]].T @ similarity) if known else np.zeros(n)
        pool = int((scores > 0).sum())
        by_evidence = np.argsort(-scores, kind="stable")[:pool]
        evidence = truth[by_evidence]
        at = max(1, min(listeners, len(pushed)))
        for low, high in BUCKETS:
            if listeners >= low and (high is None or listeners <= high):
                exact[bucket_name(low, high)]["coldstart"].append(float(pushed[:at].sum() / at))
                exact[bucket_name(low, high)]["evidence"].append(float(evidence[:at].sum() / at))
        if listeners < ENOUGH_LISTENERS:
            continue
        in_pool = float(evidence.sum()) / max(1, pool)
        by_arm = {
            "coldstart": [float(pushed[:k].sum()) / k for k in CUTS],
            "evidence": [float(evidence[:k].sum()) / k for k in CUTS],
            "i2i2u": [in_pool * min(1.0, pool / k) for k in CUTS],
            "random": [listeners / n for _ in CUTS],
        }
        if liking is not None:
            chance = liking(int(row))
            liked["coldstart"].append([_first(chance[columns], k) for k in CUTS])
            liked["evidence"].append([_first(chance[by_evidence], k) for k in CUTS])
            liked["i2i2u"].append([_first(chance[by_evidence], pool) for _ in CUTS])
            liked["random"].append([float(chance.mean()) for _ in CUTS])
        for arm, values in by_arm.items():
            precision[arm].append(values)
            recall[arm].append(values[-1] * CUTS[-1] / listeners)
    return Judgement(
        songs=len(precision["random"]),
        precision={arm: dict(zip(CUTS, _mean(precision[arm], len(CUTS)), strict=True)) for arm in arms},
        recall_200={arm: _mean([[value] for value in recall[arm]], 1)[0] for arm in arms},
        r_precision={
            bucket: {arm: _mean([[value] for value in values], 1)[0] for arm, values in by_arm.items()}
            | {"songs": float(len(by_arm["coldstart"]))}
            for bucket, by_arm in exact.items()
        },
        liking=None
        if liking is None
        else {arm: dict(zip(CUTS, _mean(liked[arm], len(CUTS)), strict=True)) for arm in arms},
    )


def _first(values: NDArray[np.float64], k: int) -> float:
    """The mean of the first k values, 0 where there is none."""
    return float(values[:k].mean()) if len(values) else 0.0


def _mean(rows: list[list[float]], width: int) -> list[float]:
    """Column means rounded to 4 places; NaN where there is no row."""
    if not rows:
        return [float("nan")] * width
    means: NDArray[np.float64] = np.asarray(rows, np.float64).mean(axis=0)
    return [round(float(mean), 4) for mean in means]
