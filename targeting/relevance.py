"""How likely is this user to love this song?

Two signs, both in [0, 1] and both absolute, so that the scores of two partitions can be compared:

- evidence: which of the retrieved songs the user heard. Each retrieved song speaks with its similarity to
  the power of ``sharpness``; the sum, as a share of what all retrieved songs together could say, saturates.
- direct: the cosine of the song's vector with the user's, along the axes of the space
  (:mod:`targeting.axes`).

The score is their weighted mean. A song in another space than the users' is scored by evidence alone, a
song without retrieved songs by its vector alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targeting.audience import Audience
from targeting.slots import I64
from targeting.songs import Songs
from targeting.types import F32, Match


@dataclass(frozen=True, slots=True)
class Relevance:
    """How the two signs become one score.

    Attributes:
        sharpness: power of the similarity in the evidence.
        saturation: share of all evidence at which a user reaches 63 % of what evidence can give.
        weight: of evidence in the score; the rest is direct's.
    """

    sharpness: float = 6.0
    saturation: float = 0.2
    weight: float = 0.35


@dataclass(frozen=True, slots=True)
class Scored:
    """The candidates of a song.

    Attributes:
        users: int64 (n,), rows, ascending.
        scores, evidence, direct: float32 (n,); score = evidence + direct, the two parts weighted already.
        heard_users, heard_songs: int64, int32 (t,), every (candidate, index into the neighbours) that was heard.
        speaks: float32 (K,), how much each neighbour says.
        both: whether the score has its two parts, so that it means what it means for other songs.
    """

    users: I64
    scores: F32
    evidence: F32
    direct: F32
    heard_users: NDArray[np.int32]
    heard_songs: NDArray[np.int32]
    speaks: F32
    both: bool = False


def score(audience: Audience, songs: Songs, match: Match, how: Relevance) -> Scored:
    """Finds and scores the candidates: the listeners of the retrieved songs, or everybody when there are none."""
    same_space = songs.comparable(match)
    speaks = np.maximum(match.similarities, 0).astype(np.float32) ** np.float32(how.sharpness)
    slots = songs.find(match.neighbours)
    speaking = np.flatnonzero((slots >= 0) & (speaks > 0))
    lengths, heard_users = audience.listeners(slots[speaking])
    heard_songs = np.repeat(speaking.astype(np.int32), lengths)
    if not len(heard_users):
        users = audience.everybody() if same_space else np.zeros(0, np.int64)
        direct = _direct(audience, songs, match, users) if same_space else np.zeros(0, np.float32)
        nothing = np.zeros(len(users), np.float32)
        return Scored(users, direct, nothing, direct, heard_users, heard_songs, speaks)

    said = np.bincount(heard_users, speaks[heard_songs])
    users = np.flatnonzero(said)
    share = said[users] / speaks.sum(dtype=np.float64)
    evidence = (-np.expm1(-share / how.saturation)).astype(np.float32)
    if not same_space:
        return Scored(users, evidence, evidence, np.zeros_like(evidence), heard_users, heard_songs, speaks)
    evidence *= np.float32(how.weight)
    direct = _direct(audience, songs, match, users) * np.float32(1 - how.weight)
    return Scored(users, evidence + direct, evidence, direct, heard_users, heard_songs, speaks, both=True)


def _direct(audience: Audience, songs: Songs, match: Match, users: I64) -> F32:
    return np.maximum(audience.cosines(users, songs.along_axes(match.vector)), 0)
