"""User vectors: weighted sums of the songs heard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from targeting.catalogue.whitening import axes
from targeting.clustering.kmeans import Clustering, cluster
from targeting.evaluation.case import Case
from targeting.types import F32

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Taste:
    """Weights of the songs of a history; by default each counts once, as in production.

    Attributes:
        stretched: along the axes of :mod:`targeting.catalogue.whitening`, as in production, instead of the space's own.
        plays: power of the number of plays.
        listeners: power of the song's number of listeners, negative to play down popular songs.
        half_life: days in which a listen's weight halves, counted back from the last listen of the case; 0 for never.
        latest: number of most recently heard songs that count; 0 for all.
    """

    stretched: bool = False
    plays: float = 0.0
    listeners: float = 0.0
    half_life: float = 0.0
    latest: int = 0


def space_of(case: Case, config: Taste) -> F32:
    """The matrix that vectors are multiplied with from the right, float32 (d, d)."""
    return axes(case.vectors) if config.stretched else np.eye(case.vectors.shape[1], dtype=np.float32)


def vectors(case: Case, config: Taste) -> F32:
    """Unit user vectors float32 (users, d); zero for a user without a song.

    Raises:
        ValueError: a half-life or ``latest`` for an undated case.
    """
    if case.played_at is None and (config.half_life or config.latest):
        raise ValueError(f"case {case.name} is undated")
    weights = case.plays.data.astype(np.float64) ** config.plays
    listeners = np.diff(case.plays.indptr).astype(np.float64)
    weights *= np.repeat(np.maximum(listeners, 1) ** config.listeners, np.diff(case.plays.indptr))
    if case.played_at is not None and config.half_life:
        weights *= 0.5 ** ((case.played_at.max() - case.played_at) / (config.half_life * _DAY))
    if case.played_at is not None and config.latest:
        order = np.lexsort((-case.played_at, case.plays.indices))
        owner = case.plays.indices[order]
        place = np.arange(len(owner)) - np.searchsorted(owner, owner)
        weights[order[place >= config.latest]] = 0
    weighted = sparse.csr_matrix((weights, case.plays.indices, case.plays.indptr), case.plays.shape)
    return unit(np.asarray(weighted.T @ case.vectors, np.float32) @ space_of(case, config))


def several(case: Case, count: int) -> F32:
    """Up to ``count`` unit vectors a user along the axes, float32 (users, count, d); rows of zeros fill up.

    They are centres of the user's songs, one for every three songs.
    """
    songs = unit(case.vectors @ space_of(case, Taste(stretched=True)))
    heard = case.plays.T.tocsr()
    found = np.zeros((case.users, count, songs.shape[1]), np.float32)
    for user in range(case.users):
        mine = songs[heard.indices[heard.indptr[user] : heard.indptr[user + 1]]]
        centres = cluster(mine, Clustering(max(1, min(count, len(mine) // 3)), restarts=1), user).vectors
        found[user, : len(centres)] = centres
    return found


def unit(vectors: F32) -> F32:
    """Rows (..., d) at unit length; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
