"""The exported encoder in numpy: an upload's vector without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from encoder.content import ContentTable
from encoder.context import Memory
from encoder.features import Features, FeatureSchema, select_columns

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# The variance floor of torch's LayerNorm.
_EPSILON = np.float32(1e-5)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Content -> unit vectors in ``space``. Immutable, safe to share between threads.

    Attributes:
        space: name of the embedding space, at most 32 ASCII characters; empty until the encoder is saved, because it
            is derived from the saved files.
        schema: how content becomes features.
        memory: the warm songs that contexts are predicted from.
        columns: int64, the feature columns that the network reads.
        network: the weights of :class:`encoder.model.QueryTower` by name, float32.
        projection: float32 (w + r, d) or None: maps the unit outputs of network (w) and kernel ridge (r), side by
            side, to the vector; without it the network's output is the vector.
        fallback: float32 (d,) unit: the vector of a song about which nothing is known, the warm songs' mean direction.
    """

    space: str
    schema: FeatureSchema
    memory: Memory
    columns: I64
    network: Mapping[str, F32]
    fallback: F32
    projection: F32 | None = None
    _position: I64 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        position = np.full(len(self.schema.idf), -1, np.int64)
        position[self.columns] = np.arange(len(self.columns))
        object.__setattr__(self, "_position", position)

    @property
    def dim(self) -> int:
        return len(self.fallback)

    def encode(self, songs: ContentTable) -> F32:
        """float32 (n, dim), unit rows. Songs without a known feature get ``fallback``.

        Raises:
            ValueError: a dense feature has another dimension than in training.
        """
        return self.encode_features(self.schema.transform(songs))

    def encode_features(self, features: Features) -> F32:
        """:meth:`encode` for n songs already transformed: float32 (n, dim), unit rows.

        Where ``features`` knows nothing of a song, its row is ``fallback``.
        """
        width = len(self.network["context"])
        context = self.memory.context(features) if width else np.zeros((len(features), 0), np.float32)
        vectors = self._forward(features, context)
        if self.projection is not None:
            vectors = joined(vectors, context[:, : self.memory.vectors.shape[1]], self.projection)
        vectors[~features.known] = self.fallback
        return vectors

    def _forward(self, features: Features, context: F32) -> F32:
        """The arithmetic of ``QueryTower.forward``; a parity test compares the two."""
        net, d = self.network, len(self.network["second.bias"])
        x = self.network_bags(features) @ net["bag"]
        x += features.side @ net["side"]
        hidden = np.hstack([x[:, d:], context])
        hidden -= hidden.mean(axis=1, keepdims=True)
        hidden /= np.sqrt(np.mean(hidden**2, axis=1, keepdims=True) + _EPSILON)
        hidden = hidden * net["norm.weight"] + net["norm.bias"]
        hidden = hidden @ net["first.weight"].T + net["first.bias"]
        hidden *= 0.5 * (1 + special.erf(hidden * np.float32(2**-0.5)))
        query = x[:, :d] + context @ net["context"] + hidden @ net["second.weight"].T + net["second.bias"]
        return _unit(query)

    def network_bags(self, features: Features) -> sparse.csr_matrix:
        """float32 csr (n, len(columns)): the bag columns that the network reads."""
        return select_columns(features.bags, self._position, len(self.columns))


def joined(network: F32, closed: F32, projection: F32) -> F32:
    """float32 (n, d), unit rows: two outputs for the same songs, unit (n, w) and any (n, r), as one vector."""
    return _unit(np.hstack([network, _unit(closed)]) @ projection)


def _unit(rows: F32) -> F32:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.float32(1e-9)), np.float32)
