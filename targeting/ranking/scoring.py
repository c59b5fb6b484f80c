"""How likely a user is to love a song.

Two signs, both in [0, 1] and both absolute, so that the scores of two partitions can be compared:

- evidence: which of the retrieved songs the user heard. Each retrieved song weights with its similarity to
  the power of ``sharpness``; the sum, as a share of what all retrieved songs together could say, saturates.
- direct: the cosine of the song's vector with the user's, along the axes of the space
  (:mod:`targeting.catalogue.whitening`).

Their weighted mean says how well song and user fit. A song in another space than the users' is scored by evidence
alone, a song without retrieved songs by its vector alone. Where answers are known to go with it, what fits is
multiplied with the user's activity (:mod:`targeting.ranking.activity`): that is the score.

The rivals that the score is held against are here too (:class:`Ranking`), so that they can be tried on the same stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, distinct, hash64
from targeting.catalogue.catalogue import Catalogue
from targeting.clustering.kmeans import Clustering, cluster
from targeting.ranking.activity import factors
from targeting.types import F32, Match
from targeting.users.histories import UserHistories

# Of the retrieved songs, those whose listeners the rivals I2I2U and CAT take; what power of the similarity a listener
# weighs in CAT's centroid. Chosen on warm songs made cold (evaluation/README.md).
_FEW = 5
_CAT_SHARPNESS = 4.0


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


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """How the two signs become one score.

    Attributes:
        ranking: which score; the others below are the default's.
        sharpness: power of the similarity in the evidence.
        saturation: share of all evidence at which a user reaches 63 % of what evidence can give.
        weight: of evidence in the score; the rest is direct's.
    """

    sharpness: float = 6.0
    saturation: float = 0.2
    weight: float = 0.35
    ranking: Ranking = Ranking.DEFAULT


@dataclass(frozen=True, slots=True)
class Scored:
    """The candidates of a song.

    Attributes:
        users: int64 (n,), rows, ascending.
        scores, evidence, direct: float32 (n,); score = (evidence + direct) * activity, the two parts weighted already.
        heard_users, heard_songs: int64, int32 (t,), every (candidate, index into the neighbours) that was heard.
        weights: float32 (K,), how much each neighbour says.
        both: whether the score has its two parts, so that it means what it means for other songs.
        activity: float32 (n,), in (0, 1]; None where it does not count.
    """

    users: I64
    scores: F32
    evidence: F32
    direct: F32
    heard_users: NDArray[np.int32]
    heard_songs: NDArray[np.int32]
    weights: F32
    both: bool = False
    activity: F32 | None = None

    @property
    def fit(self) -> F32:
        """How well song and user fit, whatever the user's activity, float32 (n,)."""
        return self.scores if self.activity is None else self.evidence + self.direct

    def listening(self) -> Scored:
        """The candidates who heard a retrieved song; all of them where nobody did."""
        if self.both or not len(self.heard_users):
            return self
        keep = np.isin(self.users, self.heard_users)
        return replace(
            self,
            users=self.users[keep],
            scores=self.scores[keep],
            evidence=self.evidence[keep],
            direct=self.direct[keep],
            activity=None if self.activity is None else self.activity[keep],
        )


def score(audience: UserHistories, songs: Catalogue, match: Match, how: ScoreWeights, power: float = 0.0) -> Scored:
    """Finds and scores the candidates: the listeners of the retrieved songs, or everybody when there are none.

    ``power`` is by how much activity counts in the default's scores; rivals know of none.
    """
    if how.ranking is not Ranking.DEFAULT:
        return _RIVALS[how.ranking](audience, songs, match)
    found = _fitting(audience, songs, match, how)
    if not power:
        return found
    activity = factors(audience.heard(found.users), power)
    return replace(found, scores=found.scores * activity, activity=activity)


def _fitting(audience: UserHistories, songs: Catalogue, match: Match, how: ScoreWeights) -> Scored:
    same_space = songs.comparable(match)
    weights = np.maximum(match.similarities, 0).astype(np.float32) ** np.float32(how.sharpness)
    slots = songs.find(match.neighbours)
    speaking = np.flatnonzero((slots >= 0) & (weights > 0))
    lengths, heard_users = audience.listeners(slots[speaking])
    heard_songs = np.repeat(speaking.astype(np.int32), lengths)
    if not len(heard_users):
        users = audience.everybody() if same_space else np.zeros(0, np.int64)
        direct = _direct(audience, songs, match, users) if same_space else np.zeros(0, np.float32)
        nothing = np.zeros(len(users), np.float32)
        return Scored(users, direct, nothing, direct, heard_users, heard_songs, weights)

    said = np.bincount(heard_users, weights[heard_songs])
    users = distinct(heard_users)
    share = said[users] / weights.sum(dtype=np.float64)
    evidence = (-np.expm1(-share / how.saturation)).astype(np.float32)
    if not same_space:
        return Scored(users, evidence, evidence, np.zeros_like(evidence), heard_users, heard_songs, weights)
    evidence *= np.float32(how.weight)
    direct = _direct(audience, songs, match, users) * np.float32(1 - how.weight)
    return Scored(users, evidence + direct, evidence, direct, heard_users, heard_songs, weights, both=True)


def _direct(audience: UserHistories, songs: Catalogue, match: Match, users: I64) -> F32:
    return np.maximum(audience.cosines(users, songs.along_axes(match.vector)), 0)


# -- rivals ----------------------------------------------------------------------------------------------


def _evidence(audience: UserHistories, songs: Catalogue, match: Match) -> Scored:
    return _said(audience, songs, match, len(match.neighbours), 1.0)


def _i2i2u(audience: UserHistories, songs: Catalogue, match: Match) -> Scored:
    found = _said(audience, songs, match, _FEW, 1.0)
    return _alone(found, found.users, np.ones(len(found.users), np.float32))


def _cat(audience: UserHistories, songs: Catalogue, match: Match) -> Scored:
    found = _said(audience, songs, match, _FEW, _CAT_SHARPNESS)
    if not songs.comparable(match) or not len(found.users):
        return found
    seed = int(hash64([match.song_id])[0])
    centre = cluster(audience.vectors(found.users), Clustering(prototypes=1), seed, found.scores).vectors
    if not len(centre):
        return found
    users = audience.everybody()
    return _alone(found, users, np.maximum(audience.cosines(users, centre[0]), 0))


def _random(audience: UserHistories, songs: Catalogue, match: Match) -> Scored:
    users = audience.everybody()
    return _alone(_said(audience, songs, match, 0, 1.0), users, np.ones(len(users), np.float32))


_RIVALS = {Ranking.EVIDENCE: _evidence, Ranking.I2I2U: _i2i2u, Ranking.CAT: _cat, Ranking.RANDOM: _random}


def _said(audience: UserHistories, songs: Catalogue, match: Match, first: int, sharpness: float) -> Scored:
    """The listeners of the ``first`` retrieved songs, by what these say, as a share of all that they could."""
    weights = np.maximum(match.similarities[:first], 0).astype(np.float32) ** np.float32(sharpness)
    slots = songs.find(match.neighbours[:first])
    speaking = np.flatnonzero((slots >= 0) & (weights > 0))
    lengths, heard_users = audience.listeners(slots[speaking])
    heard_songs = np.repeat(speaking.astype(np.int32), lengths)
    said = np.bincount(heard_users, weights[heard_songs])
    users = distinct(heard_users)
    share = (said[users] / max(float(weights.sum(dtype=np.float64)), 1e-12)).astype(np.float32)
    return Scored(users, share, share, np.zeros_like(share), heard_users, heard_songs, weights)


def _alone(found: Scored, users: I64, scores: F32) -> Scored:
    return Scored(users, scores, np.zeros_like(scores), scores, found.heard_users, found.heard_songs, found.weights)
