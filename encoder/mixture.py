"""The weight of kernel ridge beside the network in retrieval, chosen on songs held back from the network.

The network starts from what kernel ridge predicts (:mod:`encoder.context`) and is better where it has seen enough;
where content is thin or odd, kernel ridge can be. Retrieval uses the weighted mean of both cosines, as one inner
product: the two vectors side by side, in their principal directions.

A song held back is still a target of others and in the catalogue, and its contexts leave it out, so as a query it is
like a cold song.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from encoder.context import largest
from encoder.serving import joined
from encoder.supervision import Targets
from encoder.truth import Truth, score

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# One warm song of twenty, at most as many as tell half a point of recall; with fewer than the least, the choice would
# be chance.
_SHARE = 20
_MOST, _LEAST = 400, 50


def held_back(warm: int, rng: np.random.Generator) -> I64:
    """int64, ascending: the warm songs to hold back; none if there are too few."""
    size = min(warm // _SHARE, _MOST)
    return np.sort(rng.permutation(warm)[: size if size >= _LEAST else 0])


def projection(network: F32, audiences: F32, weight: float) -> F32:
    """float32 (w + r, w): the principal directions of n warm songs' two vectors side by side, (n, w) and (n, r).

    An inner product of projected vectors is (1 - weight) times that of the network's vectors plus weight times that of
    the audiences', except for what the last r directions hold, so both fit into an index of width w.
    """
    return _projection(_moments(network, audiences), network.shape[1], weight)


def _moments(network: F32, audiences: F32) -> F32:
    both = np.hstack([network, audiences])
    product: F32 = both.T @ both
    return product


def _projection(moments: F32, width: int, weight: float) -> F32:
    """The same from the vectors' second moments, (w + r, w + r)."""
    scale = np.repeat(np.sqrt([1 - weight, weight]), [width, len(moments) - width])
    _, directions = linalg.eigh(moments * scale * scale[:, None])
    return np.ascontiguousarray(scale[:, None] * directions[:, ::-1][:, :width], np.float32)


def best_weight(
    asked: Sequence[tuple[F32, F32]],
    network: F32,
    audiences: F32,
    targets: Targets,
    held: I64,
    weights: Sequence[float],
) -> float:
    """The weight with the best mean of recall and NDCG over the h songs held back and their versions.

    Another weight replaces the first only if it is better by more than a standard error.

    Args:
        asked: for each version, the network's and ridge's answers for the songs held back, float32 (h, w) and (h, r).
        network, audiences: float32 (n, w) and (n, r), the warm songs' vectors.
    """
    # Padding goes to the end.
    right = -np.sort(-np.where(targets.weights[held] > 0, targets.songs[held], -1), axis=1)
    answer = Truth(right, np.zeros(right.shape, np.float32), np.zeros(len(held), np.int64))
    moments = _moments(network, audiences)
    values = []
    for weight in weights:
        onto = _projection(moments, network.shape[1], weight)
        catalogue = joined(network, audiences, onto)
        value = np.zeros(len(held))
        for query, closed in asked:
            similarity = joined(query, closed, onto) @ catalogue.T
            similarity[np.arange(len(held)), held] = -np.inf
            found = largest(similarity, right.shape[1])
            order = np.argsort(-np.take_along_axis(similarity, found, axis=1), axis=1)
            scores = score(np.take_along_axis(found, order, axis=1), answer)
            value += (scores.recall + scores.ndcg) / 2 / len(asked)
        values.append(value)
    gains = np.array(values) - values[0]
    surely = gains.mean(axis=1) - gains.std(axis=1) / np.sqrt(len(held))
    return float(weights[int(np.argmax(surely))])
