"""Loads a case into the code that serves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from targeting.arrays.id_table import I64
from targeting.catalogue.catalogue import Catalogue
from targeting.evaluation import user_vectors
from targeting.evaluation.case import Case
from targeting.evaluation.user_vectors import Taste
from targeting.index import ExactIndex
from targeting.ranking import scoring
from targeting.ranking.scored import Scored
from targeting.ranking.scoring import ScoreWeights
from targeting.types import F32, Match
from targeting.users.histories import UserHistories

# The space's name does not matter here; songs and requests must share one.
_SPACE = "judged"
# Maximum number of retrieved songs, for variants that look further than production.
WIDEST = 200


@dataclass(frozen=True, slots=True)
class Loaded:
    """A case in production's own state: one partition with every user, row = column of ``plays``.

    Attributes:
        found: int64 (m, w), the warm songs most similar to each cold one, nearest first; w = min(n, WIDEST).
        similarities: float32 (m, w), their cosines.
    """

    case: Case
    songs: Catalogue
    histories: UserHistories
    found: I64
    similarities: F32
    _tastes: dict[Taste, tuple[F32, F32]] = field(default_factory=dict)
    _several: dict[int, F32] = field(default_factory=dict)

    def tastes(self, config: Taste) -> tuple[F32, F32]:
        """Unit user vectors (users, d) and unit vectors of the cold songs (m, d) along the same axes."""
        if config not in self._tastes:
            queries = user_vectors.unit(self.case.queries @ user_vectors.space_of(self.case, config))
            self._tastes[config] = user_vectors.vectors(self.case, config), queries
        return self._tastes[config]

    def several(self, count: int) -> F32:
        """Unit vectors along the axes of clusters of each user's songs, (users, count, d); rows of zeros fill up."""
        if count not in self._several:
            self._several[count] = user_vectors.several(self.case, count)
        return self._several[count]

    def match(self, song: int, neighbours: int) -> Match:
        """The request that the songs role would send for a cold song."""
        return Match(
            song_id=self.case.song_ids[song],
            revision=1,
            recording=self.case.song_ids[song],
            title="",
            artist_ids=(),
            space=_SPACE,
            vector=self.case.queries[song],
            neighbours=tuple(_id(row) for row in self.found[song, :neighbours].tolist()),
            similarities=self.similarities[song, :neighbours],
            budget=0,
            requested_at=0,
            expires_at=0,
        )

    def scored(self, song: int, config: ScoreWeights, neighbours: int | None = None, activity: float = 0.0) -> Scored:
        """Production's candidates and scores, by default with production's number of retrieved songs.

        ``activity`` is the power of users' activity.
        """
        match = self.match(song, neighbours or self.case.neighbours)
        return scoring.score(self.histories, self.songs, match, config, activity)

    def spread(self, users: I64, scores: F32) -> F32:
        """Scores of some users as scores of all, float32 (users,); 0 for the others."""
        all_scores = np.zeros(self.case.users, np.float32)
        all_scores[users] = scores
        return all_scores


def load(case: Case) -> Loaded:
    """Loads a case's plays through the partition's own code."""
    songs = Catalogue()
    songs.set_vectors(_SPACE, [_id(row) for row in range(len(case.vectors))], case.vectors)
    histories = UserHistories(songs)
    plays = case.plays.tocoo()
    at = np.zeros(plays.nnz) if case.played_at is None else case.played_at
    # In stream order; undated listens song by song.
    order = np.argsort(at, kind="stable")
    slots = songs.slots([_id(row) for row in range(len(case.vectors))])
    histories.apply(
        histories.plan(
            plays.col[order].astype(np.int64),
            slots[plays.row[order]],
            plays.data[order].astype(np.float32),
            at[order],
        )
    )
    index = ExactIndex(case.vectors.shape[1])
    index.add(np.arange(len(case.vectors)), case.vectors)
    found, similarities = index.search(case.queries, WIDEST)
    return Loaded(case, songs, histories, found, similarities)


def _id(row: int) -> str:
    return f"s{row}"
