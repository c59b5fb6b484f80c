"""A case: cold songs, the plays of warm songs, and the hidden listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting.arrays.id_table import I64
from targeting.types import F32, F64

# Enough songs for fitting: with more, candidates fill the memory and the figures stay the same.
_ENOUGH = 500


def some(songs: I64) -> I64:
    """All songs, or enough of them, evenly spaced."""
    if len(songs) <= _ENOUGH:
        return songs
    return songs[np.linspace(0, len(songs) - 1, _ENOUGH).astype(np.int64)]


@dataclass(frozen=True, slots=True)
class Case:
    """One split of one data set.

    Attributes:
        name: the split's name in errors and reports.
        song_ids: ids of the m cold songs; the same song has the same id in all splits.
        plays: csr (n, users), plays of the n warm songs: all that targeting may see of listeners.
        vectors: float32 (n, d), unit rows, of the warm songs.
        queries: float32 (m, d), unit rows, of the cold songs, from content alone.
        truth: csr (m, users), a stored entry for each hidden listener.
        played_at: float64, Unix seconds of the last play, aligned with ``plays.data``; None if undated.
        neighbours: warm songs retrieved for a request, as in production.
        groups: name -> bool (users,): groups of users to judge separately as well.

    Raises:
        ValueError: shapes do not agree.
    """

    name: str
    song_ids: tuple[str, ...]
    plays: sparse.csr_matrix
    vectors: F32
    queries: F32
    truth: sparse.csr_matrix
    played_at: F64 | None = None
    neighbours: int = 50
    groups: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, users = self.plays.shape
        m, d = len(self.song_ids), self.vectors.shape[1]
        wanted = {
            "vectors": (self.vectors.shape, (n, d)),
            "queries": (self.queries.shape, (m, d)),
            "truth": (self.truth.shape, (m, users)),
            **{f"group {name}": (group.shape, (users,)) for name, group in self.groups.items()},
        }
        if self.played_at is not None:
            wanted["played_at"] = (self.played_at.shape, (self.plays.nnz,))
        wrong = [f"{what} has shape {have}, not {want}" for what, (have, want) in wanted.items() if have != want]
        if wrong:
            raise ValueError(f"case {self.name}: {'; '.join(wrong)}")

    @property
    def users(self) -> int:
        return int(self.plays.shape[1])

    def listeners(self, song: int) -> NDArray[np.bool_]:
        """The hidden listeners of a cold song, bool (users,)."""
        hidden = np.zeros(self.users, np.bool_)
        hidden[self.truth.indices[self.truth.indptr[song] : self.truth.indptr[song + 1]]] = True
        return hidden
