"""Scores users who were not candidates by the song's vector, centroids, or both.

Users who arrive after the upload, or heard none of the retrieved songs, have no evidence. A partition can score them at
once against what a campaign keeps: the song's vector and centroids of its candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from targeting.clustering import kmeans
from targeting.clustering.kmeans import Clustering
from targeting.evaluation.loaded import Loaded
from targeting.evaluation.user_vectors import Taste
from targeting.ranking.scoring import ScoreWeights
from targeting.types import F32


@dataclass(frozen=True, slots=True)
class CampaignVectors:
    """The vectors that a campaign keeps.

    Attributes:
        clusters: number of centroids of the candidates; a user's nearest one counts.
        power: a candidate's weight is its score to this power; 0 weighs all equally.
        own: whether the cosine to the song's own vector is added.
    """

    clusters: int = 1
    power: float = 4.0
    own: bool = True


def score(loaded: Loaded, song: int, config: CampaignVectors) -> F32:
    """The relevance of every user, float32 (users,), at least 0."""
    scored = loaded.scored(song, ScoreWeights())
    users, songs = loaded.tastes(Taste(stretched=True))
    weights = np.power(scored.scores, np.float32(config.power))
    found = kmeans.cluster(users[scored.users], Clustering(config.clusters), song, weights)
    near = (users @ found.vectors.T).max(axis=1, initial=0)
    if config.own:
        near = near + users @ songs[song]
    return np.asarray(np.maximum(near, 0), np.float32)
