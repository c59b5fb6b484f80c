"""A data set in memory: songs with content, users, and who played what how often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.content import ContentTable
from encoder.data.findings import Finding


@dataclass(frozen=True, slots=True)
class Dataset:
    """Songs, users and listens.

    Attributes:
        name: shown in reports.
        content: the content of every song; its row order is the song order of ``plays``.
        user_ids: column order of ``plays``.
        plays: csr (songs, users) float32, the number of plays; only positive entries are stored.
        played_at: float64 Unix seconds of the last play, aligned with ``plays.data``, NaN if unknown;
            None if undated.
        citation: text that the licence wants printed when the data are used; None if there is none.
        titles: a name to show for each song, in song order; empty strings where unknown.
        findings: problems in the files that it was read from.
    """

    name: str
    content: ContentTable
    user_ids: tuple[str, ...]
    plays: sparse.csr_matrix
    played_at: NDArray[np.float64] | None = None
    citation: str | None = None
    titles: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def song_ids(self) -> tuple[str, ...]:
        return self.content.song_ids

    def last_played(self) -> NDArray[np.float64] | None:
        """``played_at`` for weighing listens by age: unknown dates become the earliest known one."""
        if self.played_at is None or not np.isnan(self.played_at).any():
            return self.played_at
        known = self.played_at[~np.isnan(self.played_at)]
        return None if not len(known) else np.where(np.isnan(self.played_at), known.min(), self.played_at)
