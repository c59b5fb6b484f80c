"""The paper's clustering, as a baseline.

Clustering-based Audience Targeting (CAT; "Bootstrapping Contrastive Learning Enhanced Music Cold-Start Matching",
WWW 2023 companion, section 2.3): the listeners of the retrieved songs are clustered, and users near the centroids are
relevant. What the paper leaves open is the config here, chosen on validation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from targeting.clustering import kmeans
from targeting.clustering.kmeans import Clustering
from targeting.evaluation.loaded import Loaded
from targeting.evaluation.user_vectors import Taste
from targeting.ranking.scoring import ScoreWeights
from targeting.types import F32


@dataclass(frozen=True, slots=True)
class ClusteringBaseline:
    """What the paper leaves open.

    Attributes:
        songs: retrieved songs whose listeners are clustered.
        clusters: centroids, of all listeners together or of each song's.
        pooled: whether all listeners are clustered together, or each retrieved song's by themselves.
        sharpness: a listener's weight is the sum over retrieved songs heard of similarity to this power; 0 weighs all
            equally.
        nearest: whether relevance is the cosine to the nearest centroid, or the mean cosine, weighted by mass.
        taste: the vector of a user.
    """

    songs: int = 50
    clusters: int = 8
    pooled: bool = True
    sharpness: float = 0.0
    nearest: bool = True
    taste: Taste = field(default_factory=Taste)


def score(loaded: Loaded, song: int, config: ClusteringBaseline) -> F32:
    """The relevance of every user, float32 (users,), at least 0; a user without a vector has 0."""
    scored = loaded.scored(song, ScoreWeights(sharpness=max(config.sharpness, 1e-6)), config.songs)
    users, _ = loaded.tastes(config.taste)
    clustering = Clustering(prototypes=config.clusters)
    parts = (
        [scored.heard_songs >= 0] if config.pooled else [scored.heard_songs == k for k in range(len(scored.weights))]
    )
    centres, masses = [], []
    for part in parts:
        evidence_sums = np.bincount(
            scored.heard_users[part], scored.weights[scored.heard_songs[part]], loaded.case.users
        )
        listeners = np.flatnonzero(evidence_sums)
        if not len(listeners):
            continue
        weights = (evidence_sums[listeners] if config.sharpness else np.ones(len(listeners))).astype(np.float32)
        found = kmeans.cluster(users[listeners], clustering, song, weights)
        near = (users[listeners] @ found.vectors.T).argmax(axis=1)
        centres.append(found.vectors)
        masses.append(np.bincount(near, weights, len(found.vectors)))
    if not centres:
        return np.zeros(loaded.case.users, np.float32)
    cosines = users @ np.concatenate(centres).T
    if config.nearest:
        return np.asarray(np.maximum(cosines.max(axis=1), 0), np.float32)
    mass = np.concatenate(masses)
    return np.asarray(np.maximum(cosines @ (mass / mass.sum()).astype(np.float32), 0), np.float32)
