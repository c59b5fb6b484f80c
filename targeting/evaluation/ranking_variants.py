"""The compared ways of choosing an audience."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from targeting.evaluation import arrivals, clustering_baseline
from targeting.evaluation.arrivals import CampaignVectors
from targeting.evaluation.clustering_baseline import ClusteringBaseline
from targeting.evaluation.loaded import Loaded
from targeting.evaluation.user_vectors import Taste
from targeting.ranking.activity import factors
from targeting.ranking.scoring import ScoreWeights
from targeting.types import F32

DEFAULT = "coldstart"
"""The variant that the partitions run."""
DATED = "half_life"
"""A field that is open only where listens are dated."""


@dataclass(frozen=True, slots=True)
class RankingVariant:
    """A way of choosing an audience.

    Attributes:
        config: a frozen dataclass, or None if nothing is open.
        score: (loaded case, cold song, config) -> float32 (users,), >= 0; users with 0 are placed at random.
    """

    name: str
    config: Any
    score: Callable[[Loaded, int, Any], F32]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Number of retrieved songs used."""

    songs: int = 50


@dataclass(frozen=True, slots=True)
class SongEvidence:
    """Evidence: number of retrieved songs, power of their similarity, and power of activity."""

    songs: int = 50
    sharpness: float = 1.0
    activity: float = 0.0


def nobody(loaded: Loaded, _song: int, _config: None) -> F32:
    """No score: a random order."""
    return np.zeros(loaded.case.users, np.float32)


def listeners(loaded: Loaded, song: int, config: Retrieved) -> F32:
    """1 for users who heard a retrieved song (I2I2U)."""
    users = loaded.scored(song, ScoreWeights(), config.songs).users
    return loaded.spread(users, np.ones(len(users), np.float32))


def evidence(loaded: Loaded, song: int, config: SongEvidence) -> F32:
    """The sum of the similarities of the retrieved songs that a user heard, each to a power."""
    scored = loaded.scored(song, ScoreWeights(sharpness=config.sharpness), config.songs)
    evidence_sums = np.bincount(scored.heard_users, scored.weights[scored.heard_songs], loaded.case.users)
    heard = loaded.histories.heard(np.arange(loaded.case.users))
    return np.asarray(evidence_sums * factors(heard, config.activity), np.float32)


def direct(loaded: Loaded, song: int, config: Taste) -> F32:
    """The cosine of the song's vector and the user's."""
    users, songs = loaded.tastes(config)
    return np.asarray(np.maximum(users @ songs[song], 0), np.float32)


@dataclass(frozen=True, slots=True)
class ServedScore:
    """Score weights of a partition, and the power of activity."""

    relevance: ScoreWeights = field(default_factory=ScoreWeights)
    activity: float = 0.0


def served(loaded: Loaded, song: int, config: ServedScore) -> F32:
    """The score that a partition computes on a request."""
    scored = loaded.scored(song, config.relevance, activity=config.activity)
    return loaded.spread(scored.users, scored.scores)


@dataclass(frozen=True, slots=True)
class Weighed:
    """The served score with its own weights open; see :class:`targeting.ranking.scoring.ScoreWeights`."""

    sharpness: float = 6.0
    saturation: float = 0.2
    weight: float = 0.35
    activity: float = 0.0


def weighed(loaded: Loaded, song: int, config: Weighed) -> F32:
    """The score of a partition with these weights."""
    weights = ScoreWeights(sharpness=config.sharpness, saturation=config.saturation, weight=config.weight)
    return served(loaded, song, ServedScore(weights, config.activity))


SERVED = RankingVariant(DEFAULT, ServedScore(), served)
VARIANTS = (
    RankingVariant("random", None, nobody),
    RankingVariant("i2i2u", Retrieved(), listeners),
    RankingVariant("evidence_plain", SongEvidence(), evidence),
    RankingVariant("evidence", SongEvidence(), evidence),
    RankingVariant("direct", Taste(), direct),
    RankingVariant("direct_stretched", Taste(stretched=True), direct),
    RankingVariant("cat_literal", ClusteringBaseline(), clustering_baseline.score),
    RankingVariant("cat", ClusteringBaseline(songs=5, clusters=1, sharpness=4.0), clustering_baseline.score),
    RankingVariant("prototypes", CampaignVectors(clusters=8, power=0.0, own=False), arrivals.score),
    RankingVariant("own_and_centroid", CampaignVectors(), arrivals.score),
    RankingVariant("liking", ServedScore(), served),
    RankingVariant("weighed", Weighed(), weighed),
    SERVED,
)

_ACTIVITY = (0.0, 0.1, 0.25, 0.4)
_TASTE: dict[str, tuple[Any, ...]] = {
    "plays": (0.0, 0.25, 0.5),
    "listeners": (0.0, -0.25, -0.5),
    DATED: (0.0, 30.0, 90.0, 180.0, 365.0),
}
_KEPT: dict[str, tuple[Any, ...]] = {"clusters": (1, 2, 4, 8), "power": (0.0, 1.0, 4.0, 8.0)}
# Open fields of a variant with their values, including the current one; chosen on validation.
OPEN: dict[str, dict[str, tuple[Any, ...]]] = {
    "i2i2u": {"songs": (1, 2, 5, 10, 20, 50)},
    "evidence": {
        "songs": (5, 10, 20, 50, 100, 200),
        "sharpness": (1.0, 2.0, 4.0, 6.0, 8.0, 12.0),
        "activity": _ACTIVITY,
    },
    "direct": _TASTE,
    "direct_stretched": _TASTE,
    "cat": {
        "songs": (2, 5, 10, 20, 50),
        "clusters": (1, 2, 5, 8),
        "pooled": (True, False),
        "sharpness": (0.0, 1.0, 4.0, 8.0),
        "nearest": (True, False),
        "taste": (Taste(), Taste(stretched=True), Taste(plays=0.25), Taste(listeners=-0.25)),
    },
    "prototypes": _KEPT,
    "own_and_centroid": _KEPT,
    "weighed": {
        "sharpness": (1.0, 2.0, 4.0, 6.0, 8.0, 12.0),
        "saturation": (0.05, 0.1, 0.2, 0.4, 0.8),
        "weight": (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95),
        "activity": _ACTIVITY,
    },
}
