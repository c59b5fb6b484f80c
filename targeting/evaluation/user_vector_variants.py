"""Compares other user vectors with the sum of the songs heard.

Evidence is production's; the direct part of the score uses another vector for each user, or the nearest of a few.
Measured on validation, so a winner may be shipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from targeting.evaluation.case import Case
from targeting.evaluation.loaded import Loaded
from targeting.evaluation.ranking_variants import RankingVariant
from targeting.evaluation.user_vectors import Taste
from targeting.ranking.scoring import ScoreWeights
from targeting.types import F32
from targeting.users.taste_vectors import HALF_LIFE


@dataclass(frozen=True, slots=True)
class UserVectorVariant:
    """Other user vectors under production's score.

    Attributes:
        taste: how songs are weighted.
        vectors: number of clusters of each user's songs; the nearest to the song counts.
    """

    taste: Taste = field(default_factory=lambda: Taste(stretched=True))
    vectors: int = 1
    relevance: ScoreWeights = field(default_factory=ScoreWeights)


def score(loaded: Loaded, song: int, config: UserVectorVariant) -> F32:
    """Production's score of the candidates with other user vectors, float32 (users,)."""
    scored = loaded.scored(song, config.relevance)
    users, songs = loaded.tastes(config.taste)
    if config.vectors > 1:
        several = loaded.several(config.vectors)
        near = (several[scored.users] @ songs[song]).max(axis=1)
    else:
        near = users[scored.users] @ songs[song]
    direct = np.maximum(near, 0) * np.float32(1 - config.relevance.weight)
    return loaded.spread(scored.users, scored.evidence + direct)


def variants(case: Case) -> list[RankingVariant]:
    """Production's vector, then variants with one change each; those of time only if listens are dated."""
    dated = case.played_at is not None
    served = Taste(stretched=True, half_life=HALF_LIFE if dated else 0.0)
    tastes = {
        f"each song once, half-life {HALF_LIFE:.0f} days" if dated else "each song once": served,
        "not stretched": replace(served, stretched=False),
        "plays^.25": replace(served, plays=0.25),
        "plays^.5": replace(served, plays=0.5),
        "listeners^-.25": replace(served, listeners=-0.25),
        "listeners^-.5": replace(served, listeners=-0.5),
    }
    if dated:
        tastes["no decay"] = replace(served, half_life=0.0)
        tastes |= {f"half-life {days} days": replace(served, half_life=float(days)) for days in (30, 90, 365)}
        tastes["no decay, latest 20 songs"] = replace(served, half_life=0.0, latest=20)
    rows = {name: UserVectorVariant(taste) for name, taste in tastes.items()}
    rows |= {f"{n} vectors a user": UserVectorVariant(served, n) for n in (2, 3, 5)}
    return [RankingVariant(name, config, score) for name, config in rows.items()]
