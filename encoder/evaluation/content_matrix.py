"""Four ways for baselines to read content; each variant's validation chooses one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder import supervision
from encoder.content import ContentTable
from encoder.data.dataset import Dataset
from encoder.features import FeatureSchema
from encoder.tuning import tune

F32 = NDArray[np.float32]

Reading = Literal["counts", "logs", "schema", "weighed"]
READINGS: tuple[Reading, ...] = ("logs", "schema", "counts", "weighed")

# Start of the tuning of content weights, the same as the encoder's.
_RANK, _BANDWIDTH, _RIDGE = 256, 2.0, 0.25


@dataclass(frozen=True, slots=True)
class ContentMatrix:
    """Content as sparse rows, learned on warm songs alone.

    - ``schema``: as the project's encoder reads it (:mod:`encoder.features`), all parts of content weighted equally;
      ``weighed``: with the weights that leave-one-out gives them (:mod:`encoder.tuning`), as in the encoder.
    - ``counts``: TF-IDF, each bag scaled to length 1; ``logs``: the same of log(1 + weight). Dense features are
      standardised and divided by the root of their dimension. A missing block is zero.
    """

    reading: Reading
    schema: FeatureSchema
    idf: dict[str, F32]

    @classmethod
    def learn(cls, known: Dataset, reading: Reading, seed: int) -> ContentMatrix:
        """Learns from the known songs.

        Raises:
            ValueError: no known song has any content.
        """
        content, idf = known.content, {}
        for name, bag in content.bags.items():
            songs = np.bincount(bag.weights.indices[bag.weights.data > 0], minlength=bag.weights.shape[1])
            # Terms that no known song has are ignored.
            idf[name] = np.where(songs, np.log((1 + len(content)) / (1 + songs)) + 1, 0).astype(np.float32)
        schema = FeatureSchema.learn(content)
        if reading == "weighed":
            rng = np.random.default_rng(seed)
            listeners = supervision.listener_rows(known.plays)
            vectors = supervision.audience_vectors(listeners, _RANK, rng)
            ridge = np.full(len(content), _RIDGE, np.float32)
            schema = tune(schema, schema.transform(content), vectors, listeners, _BANDWIDTH, ridge, rng).schema
        return cls(reading, schema, idf)

    def rows(self, songs: ContentTable) -> sparse.csr_matrix:
        """float32 csr (n, width), the blocks side by side."""
        features = self.schema.transform(songs)
        if self.reading in ("schema", "weighed"):
            return sparse.hstack([features.bags, sparse.csr_matrix(features.dense)], "csr", np.float32)
        blocks = [sparse.csr_matrix((len(songs), 0), dtype=np.float32)]
        for name, idf in self.idf.items():
            # Columns beyond the warm songs' vocabulary are unknown terms.
            rows = songs.bags[name].weights[:, : len(idf)].astype(np.float32, copy=True)
            rows.data = (np.log1p(rows.data) if self.reading == "logs" else rows.data) * idf[rows.indices]
            blocks.append(unit_rows(rows))
        for dense in self.schema.dense:
            values = (songs.dense[dense.name] - dense.mean) / dense.scale / np.sqrt(len(dense.mean))
            blocks.append(sparse.csr_matrix(np.nan_to_num(values, nan=0.0)))
        return sparse.hstack(blocks, "csr", np.float32)


def unit_rows(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """csr of the same shape, rows of length 1; an empty row stays empty."""
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    scale = sparse.diags_array((1 / np.maximum(lengths, 1e-12)).astype(np.float32))
    return (scale @ rows).tocsr()


def unit(rows: F32) -> F32:
    """Dense rows of length 1; a row of zeros stays zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
