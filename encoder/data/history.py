"""Dated listens in order of time, and the data known at a moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.data.dataset import Dataset

I32 = NDArray[np.int32]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """Every dated listen of a data set, by column, n each, in order of time.

    Attributes:
        dataset: songs and users; ``song`` and ``user`` are rows of its contents and its ``user_ids``.
        at: float64, Unix seconds, ascending; ties in file order.
        undated: number of listens without a date, which are left out.
    """

    dataset: Dataset
    song: I32
    user: I32
    plays: F32
    at: F64
    undated: int = 0

    def __len__(self) -> int:
        return len(self.at)

    def before(self, moment: float) -> int:
        """Number of listens older than a moment; they come first."""
        return int(np.searchsorted(self.at, moment, side="left"))

    def first(self) -> F64:
        """When each song was first heard, float64 (songs,); infinite if never."""
        found = np.full(len(self.dataset.song_ids), np.inf)
        np.minimum.at(found, self.song, self.at)
        return found

    def until(self, moment: float) -> History:
        """The history up to a moment, as a file written then would have it."""
        end = int(np.searchsorted(self.at, moment, side="right"))
        return replace(self, song=self.song[:end], user=self.user[:end], plays=self.plays[:end], at=self.at[:end])

    def known(self, moment: float) -> Dataset:
        """The data set known before a moment: songs heard and users who listened by then."""
        end = self.before(moment)
        songs, song = np.unique(self.song[:end], return_inverse=True)
        users, user = np.unique(self.user[:end], return_inverse=True)
        plays, at = listeners(
            song.astype(np.int32), user.astype(np.int32), self.plays[:end], self.at[:end], (len(songs), len(users))
        )
        whole = self.dataset
        return replace(
            whole,
            content=whole.content.rows(songs.astype(np.int64)),
            user_ids=tuple(whole.user_ids[row] for row in users),
            plays=plays,
            played_at=at,
            titles=tuple(whole.titles[row] for row in songs) if whole.titles else (),
        )


def cells(song: NDArray[np.integer[Any]], user: NDArray[np.integer[Any]], users: int) -> NDArray[np.int64]:
    """One number for each pair of song and user (or song and tag)."""
    return song.astype(np.int64) * users + user


def listeners(
    song: NDArray[np.int32],
    user: NDArray[np.int32],
    plays: NDArray[np.float32],
    at: NDArray[np.float64] | None,
    shape: tuple[int, int],
) -> tuple[sparse.csr_matrix, NDArray[np.float64] | None]:
    """Listens as a matrix of the given shape: plays are summed, the last known date counts."""
    cell = cells(song, user, shape[1])
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    starts = np.searchsorted(cell[first], np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
    # Numpy refuses to reduce an empty array.
    added = np.add.reduceat(plays[order], first) if len(first) else plays
    last = at if at is None or not len(first) else np.fmax.reduceat(at[order], first)
    return sparse.csr_matrix((added, user[order][first], starts), shape=shape), last
