"""The candidates of a song with their scores, and what these are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64
from targeting.types import F32


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
