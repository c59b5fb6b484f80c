"""How likely a user is to love a song.

Two signs, both in [0, 1] and both absolute, so that the scores of two partitions can be compared:

- evidence: which of the retrieved songs the user heard. Each retrieved song weights with its similarity to
  the power of ``sharpness``; the sum, as a share of what all retrieved songs together could say, saturates.
- direct: the cosine of the song's vector with the user's, along the axes of the space
  (:mod:`targeting.catalogue.whitening`).

Their weighted mean says how well song and user fit. A song in another space than the users' is scored by evidence
alone, a song without retrieved songs by its vector alone. Where answers are known to go with it, what fits is
multiplied with the user's activity (:mod:`targeting.ranking.activity`): that is the score.

The baselines that it is compared with (:mod:`targeting.ranking.baseline_scores`) can be chosen instead, to try them on
the same stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from targeting.arrays.id_table import I64, distinct
from targeting.catalogue.catalogue import Catalogue
from targeting.ranking import baseline_scores
from targeting.ranking.activity import factors
from targeting.ranking.scored import Scored
from targeting.types import F32, Match
from targeting.users.histories import UserHistories


class Ranking(StrEnum):
    """Who stands first.

    - default: evidence and cosine, as above.
    - evidence: the plain sum of the similarities of the retrieved songs that a user heard.
    - i2i2u: the listeners of the five most similar songs, unranked.
    - cat: everybody, by the cosine with the centroid of these listeners: Clustering-based Audience Targeting
      ("Bootstrapping Contrastive Learning Enhanced Music Cold-Start Matching", WWW 2023 companion, section 2.3), tuned.
    - random: everybody, unranked.
    """

    DEFAULT = "default"
    EVIDENCE = "evidence"
    I2I2U = "i2i2u"
    CAT = "cat"
    RANDOM = "random"


_BASELINES = {
    Ranking.EVIDENCE: baseline_scores.evidence,
    Ranking.I2I2U: baseline_scores.i2i2u,
    Ranking.CAT: baseline_scores.cat,
    Ranking.RANDOM: baseline_scores.everybody,
}


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """How the two signs become one score.

    Attributes:
        ranking: which score; the rest is the default's.
        sharpness: power of the similarity in the evidence.
        saturation: share of all evidence at which a user reaches 63 % of what evidence can give.
        weight: of evidence in the score; the rest is direct's.
    """

    sharpness: float = 6.0
    saturation: float = 0.2
    weight: float = 0.35
    ranking: Ranking = Ranking.DEFAULT


def score(histories: UserHistories, songs: Catalogue, match: Match, config: ScoreWeights, power: float = 0.0) -> Scored:
    """Finds and scores the candidates: the listeners of the retrieved songs, or everybody when there are none.

    ``power`` is by how much activity counts in the default's scores; baselines know of none.
    """
    if config.ranking is not Ranking.DEFAULT:
        return _BASELINES[config.ranking](histories, songs, match)
    found = _fitting(histories, songs, match, config)
    if not power:
        return found
    activity = factors(histories.heard(found.users), power)
    return replace(found, scores=found.scores * activity, activity=activity)


def _fitting(histories: UserHistories, songs: Catalogue, match: Match, config: ScoreWeights) -> Scored:
    same_space = songs.comparable(match)
    weights = np.maximum(match.similarities, 0).astype(np.float32) ** np.float32(config.sharpness)
    slots = songs.find(match.neighbours)
    speaking = np.flatnonzero((slots >= 0) & (weights > 0))
    lengths, heard_users = histories.listeners(slots[speaking])
    heard_songs = np.repeat(speaking.astype(np.int32), lengths)
    if not len(heard_users):
        users = histories.taste.everybody() if same_space else np.zeros(0, np.int64)
        direct = _direct(histories, songs, match, users) if same_space else np.zeros(0, np.float32)
        nothing = np.zeros(len(users), np.float32)
        return Scored(users, direct, nothing, direct, heard_users, heard_songs, weights)

    said = np.bincount(heard_users, weights[heard_songs])
    users = distinct(heard_users)
    share = said[users] / weights.sum(dtype=np.float64)
    evidence = (-np.expm1(-share / config.saturation)).astype(np.float32)
    if not same_space:
        return Scored(users, evidence, evidence, np.zeros_like(evidence), heard_users, heard_songs, weights)
    evidence *= np.float32(config.weight)
    direct = _direct(histories, songs, match, users) * np.float32(1 - config.weight)
    return Scored(users, evidence + direct, evidence, direct, heard_users, heard_songs, weights, both=True)


def _direct(histories: UserHistories, songs: Catalogue, match: Match, users: I64) -> F32:
    return np.maximum(histories.taste.cosines(users, songs.along_axes(match.vector)), 0)
