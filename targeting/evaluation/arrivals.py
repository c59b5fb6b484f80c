"""What finds listeners among users who were nobody's candidates: the song's vector, centroids, or both.

Whoever arrives after the upload, or heard none of the retrieved songs, has no evidence. A partition can score such a
user at once against what a campaign keeps: the song's vector, and centroids of the candidates it had.
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
    """What a campaign keeps.

    Attributes:
        clusters: centroids of the candidates; a user's nearest one counts.
        power: a candidate weighs its score to this power; 0: all alike.
        own: the cosine to the song's own vector is added.
    """

    clusters: int = 1
    power: float = 4.0
    own: bool = True


def score(loaded: Loaded, song: int, how: CampaignVectors) -> F32:
    """The relevance of every user, float32 (users,), at least 0."""
    scored = loaded.scored(song, ScoreWeights())
    users, songs = loaded.tastes(Taste(stretched=True))
    weights = np.power(scored.scores, np.float32(how.power))
    found = kmeans.cluster(users[scored.users], Clustering(how.clusters), song, weights)
    near = (users @ found.vectors.T).max(axis=1, initial=0)
    if how.own:
        near = near + users @ songs[song]
    return np.asarray(np.maximum(near, 0), np.float32)
