"""Other truths for large catalogues, and how much of a truth is noise.

The truth of :mod:`encoder.truth`, the warm songs with the most similar listeners, is a sample: for a song with few
listeners in a large catalogue, most of the 50 are chance. The alternatives:

- held out: the same truth from each half of the users. The agreement of the halves is its reliability, which gives the
  score of noiseless similarities: the ceiling.
- taste: in a generated world, the 50 warm songs nearest in the space of tastes, without noise.
- audience: the share of the song's listeners among the 50 users nearest to it, a user being the sum of the warm songs
  heard; and among the 50 users with the most evidence from the retrieved songs. It needs no neighbours of songs.
  Variants compare by the second: how much a cosine counts users' activity depends on the space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq
from scipy.stats import norm

from encoder.data.dataset import Dataset
from encoder.data.split import songs_of
from encoder.data.world import World, catalogue, rows
from encoder.evaluation.content_matrix import unit
from encoder.evaluation.retrieval_task import FittedModel, Task, Vectors, in_space
from encoder.truth import BLOCK, K, Truth, neighbours, score

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MEASURES = (
    "held_out_recall_50",
    "held_out_ndcg_50",
    "taste_recall_50",
    "taste_ndcg_50",
    "audience_precision_50",
    "evidence_precision_50",
)
# Random stream of the halves, apart from the splits'.
_HALVES = 0x4A1F
# Integration points over a normal variable's top.
_POINTS = 2000


@dataclass(frozen=True, slots=True)
class Truths:
    """The truths of a split's cold songs.

    Attributes:
        halves: neighbours by the listeners among each half of the users.
        taste: neighbours by taste; None unless the world is known.
    """

    halves: tuple[Truth, Truth]
    taste: Truth | None


def truths(asked: Task, seed: int, world: World | None) -> Truths:
    """The truths of a split."""
    order = np.random.default_rng([_HALVES, seed]).permutation(asked.warm.plays.shape[1])
    middle = len(order) // 2
    first, second = (_among(asked, np.sort(users)) for users in (order[:middle], order[middle:]))
    return Truths((first, second), None if world is None else _by_taste(asked, world))


def _among(asked: Task, users: I64) -> Truth:
    return neighbours(_heard(asked.cold)[:, users], _heard(asked.warm)[:, users], K)


def _by_taste(asked: Task, world: World) -> Truth:
    taste = catalogue(world).taste
    cold, warm = taste[rows(asked.cold.song_ids)], taste[rows(asked.warm.song_ids)]
    k = min(K, len(warm))
    found, cosines = np.empty((len(cold), k), np.int64), np.empty((len(cold), k), np.float32)
    for start in range(0, len(cold), BLOCK):
        block = slice(start, start + BLOCK)
        near = cold[block] @ warm.T
        found[block] = np.argsort(-near, axis=1, kind="stable")[:, :k]
        cosines[block] = np.take_along_axis(near, found[block], axis=1)
    return Truth(found, cosines, np.diff(asked.cold.plays.indptr).astype(np.int64))


def judge(asked: Task, known: Truths, retrieved: I64, fitted: FittedModel, cold: Dataset) -> dict[str, F64]:
    """:data:`MEASURES` of retrieved songs, int64 (m, 50), and of a variant's users, float64 (m,) each.

    NaN for a song without a neighbour in one half of the users; without a space, no audience by cosine. ``cold``: what
    the variant sees of the cold songs.
    """
    both = [score(retrieved, half) for half in known.halves]
    empty = _empty(known)
    found = {
        "held_out_recall_50": np.where(empty, np.nan, np.mean([half.recall for half in both], axis=0)),
        "held_out_ndcg_50": np.where(empty, np.nan, np.mean([half.ndcg for half in both], axis=0)),
    }
    if known.taste is not None:
        scores = score(retrieved, known.taste)
        found |= {"taste_recall_50": scores.recall, "taste_ndcg_50": scores.ndcg}
    space = in_space(fitted)
    if space is not None:
        found["audience_precision_50"] = audience_precision(asked, space, cold)
    return found | {"evidence_precision_50": evidence_precision(asked, retrieved)}


def audience_precision(asked: Task, space: Vectors, cold: Dataset, k: int = K) -> F64:
    """float64 (m,): the share of each cold song's listeners among the k users nearest to it by cosine.

    A user is the sum of the unit vectors of the warm songs heard.
    """
    users = unit(_heard(asked.warm).T @ unit(space.warm)).T
    return _precision(asked, k, lambda block: unit(space.encode(songs_of(cold, block))) @ users)


def evidence_precision(asked: Task, retrieved: I64, k: int = K) -> F64:
    """The same for the k users with the most evidence: each retrieved song heard counts 1 / log2(rank + 1)."""
    heard = _heard(asked.warm)
    says = (retrieved >= 0) / np.log2(np.arange(2, retrieved.shape[1] + 2))
    starts = np.arange(0, retrieved.size + 1, retrieved.shape[1])
    songs = sparse.csr_matrix(
        (says.ravel().astype(np.float32), np.maximum(retrieved, 0).ravel(), starts), (len(retrieved), heard.shape[0])
    )
    return _precision(asked, k, lambda block: np.asarray((songs[block] @ heard).toarray()))


def _precision(asked: Task, k: int, scores_of: Callable[[I64], F32]) -> F64:
    """The share of listeners among the k users with the highest scores: cold songs int64 (b,) -> float32 (b, users)."""
    listeners = _heard(asked.cold)
    k = min(k, listeners.shape[1])
    right = np.zeros(listeners.shape[0])
    for start in range(0, len(right), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(right)))
        best = np.argpartition(-scores_of(block), k - 1, axis=1)[:, :k]
        right[block] = np.take_along_axis(listeners[block].toarray(), best, axis=1).sum(axis=1) / k
    return right


def bounds(asked: Task, known: Truths) -> dict[str, F64]:
    """The truths' own bounds for each cold song, float64 (m,) each.

    - ``agreement``: the share of one half's neighbours among the other's, both ways; NaN if one has none.
    - ``taste``: recall@50 of the neighbours by taste against those by listeners.
    - ``audience``: precision@50 of a ranking that knows every listener.
    """
    first, second = known.halves
    both = [score(first.neighbours, second).recall, score(second.neighbours, first).recall]
    found = {
        "agreement": np.where(_empty(known), np.nan, np.mean(both, axis=0)),
        "audience": np.minimum(asked.answer.listeners, K) / K,
    }
    return found if known.taste is None else found | {"taste": score(known.taste.neighbours, asked.answer).recall}


def ceilings(agreement: float, share: float) -> tuple[float, float]:
    """The recall of noiseless similarities against the truth of half of the users, and of all.

    Assumes similarities that are normal up to a monotone map, with independent noise in the two halves. The agreement
    of tops of ``share`` gives the halves' correlation r; two samples of all users correlate with 2 r / (1 + r)
    (Spearman 1910, Brown 1910), and noiseless similarities with the root of either.

    Args:
        agreement: of the two halves' tops.
        share: of the warm songs in a top.
    """
    if not share < agreement < 1:
        return (1.0, 1.0) if agreement >= 1 else (share, share)
    half = float(brentq(lambda correlation: overlap(correlation, share) - agreement, 0, 1 - 1e-9, xtol=1e-6))
    return overlap(half**0.5, share), overlap((2 * half / (1 + half)) ** 0.5, share)


def overlap(correlation: float, share: float) -> float:
    """The part of one normal variable's top ``share`` that is in another's: P(Y > t | X > t)."""
    least = norm.isf(share)
    top = norm.isf((np.arange(_POINTS) + 0.5) / _POINTS * share)
    noise = np.sqrt(max(1 - correlation**2, 1e-12))
    return float(norm.cdf((correlation * top - least) / noise).mean())


def _empty(known: Truths) -> NDArray[np.bool_]:
    first, second = (half.neighbours[:, 0] < 0 for half in known.halves)
    return np.asarray(first | second, np.bool_)


def _heard(songs: Dataset) -> sparse.csr_matrix:
    """float32 csr (songs, users), 1 for each listener."""
    plays = songs.plays
    return sparse.csr_matrix((np.ones(plays.nnz, np.float32), plays.indices, plays.indptr), plays.shape)
