"""Scores of simpler methods, which the served score is compared with.

Each takes the listeners of a partition, its songs and a request, and returns the candidates; which one decides is
:attr:`targeting.ranking.scoring.ScoreWeights.ranking`.
"""

from __future__ import annotations

import numpy as np

from targeting.arrays.id_table import I64, distinct, hash64
from targeting.catalogue.catalogue import Catalogue
from targeting.clustering.kmeans import Clustering, cluster
from targeting.ranking.scored import Scored
from targeting.types import F32, Match
from targeting.users.histories import UserHistories

# Of the retrieved songs, those whose listeners I2I2U and CAT take; to what power of the similarity a listener weighs in
# CAT's centroid. Chosen on warm songs made cold (evaluation/README.md).
_FEW = 5
_CAT_SHARPNESS = 4.0


def evidence(histories: UserHistories, songs: Catalogue, match: Match) -> Scored:
    """The plain sum of the similarities of the retrieved songs that a user heard."""
    return _said(histories, songs, match, len(match.neighbours), 1.0)


def i2i2u(histories: UserHistories, songs: Catalogue, match: Match) -> Scored:
    """The listeners of the most similar songs, unranked."""
    found = _said(histories, songs, match, _FEW, 1.0)
    return _alone(found, found.users, np.ones(len(found.users), np.float32))


def cat(histories: UserHistories, songs: Catalogue, match: Match) -> Scored:
    """Everybody, by the cosine with the centroid of the listeners of the most similar songs.

    Clustering-based Audience Targeting ("Bootstrapping Contrastive Learning Enhanced Music Cold-Start Matching", WWW
    2023 companion, section 2.3), tuned. By evidence where there is no centroid in the song's space.
    """
    found = _said(histories, songs, match, _FEW, _CAT_SHARPNESS)
    if not songs.comparable(match) or not len(found.users):
        return found
    seed = int(hash64([match.song_id])[0])
    centre = cluster(histories.taste.of(found.users), Clustering(prototypes=1), seed, found.scores).vectors
    if not len(centre):
        return found
    users = histories.taste.everybody()
    return _alone(found, users, np.maximum(histories.taste.cosines(users, centre[0]), 0))


def everybody(histories: UserHistories, songs: Catalogue, match: Match) -> Scored:
    """Everybody, unranked."""
    users = histories.taste.everybody()
    return _alone(_said(histories, songs, match, 0, 1.0), users, np.ones(len(users), np.float32))


def _said(histories: UserHistories, songs: Catalogue, match: Match, first: int, sharpness: float) -> Scored:
    """The listeners of the ``first`` retrieved songs, by what these say, as a share of all that they could."""
    weights = np.maximum(match.similarities[:first], 0).astype(np.float32) ** np.float32(sharpness)
    slots = songs.find(match.neighbours[:first])
    speaking = np.flatnonzero((slots >= 0) & (weights > 0))
    lengths, heard_users = histories.listeners(slots[speaking])
    heard_songs = np.repeat(speaking.astype(np.int32), lengths)
    said = np.bincount(heard_users, weights[heard_songs])
    users = distinct(heard_users)
    share = (said[users] / max(float(weights.sum(dtype=np.float64)), 1e-12)).astype(np.float32)
    return Scored(users, share, share, np.zeros_like(share), heard_users, heard_songs, weights)


def _alone(found: Scored, users: I64, scores: F32) -> Scored:
    """These users by these scores; what was found says only which songs they heard."""
    return Scored(users, scores, np.zeros_like(scores), scores, found.heard_users, found.heard_songs, found.weights)
