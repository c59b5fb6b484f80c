"""Which warm songs have a similar audience? Encoder and index of one space, replaced as one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoder.content import ContentTable, SongContent
from encoder.serving import Encoder
from streams import vectors
from streams.events import Neighbour
from streams.live import Space
from streams.metrics import SongsMetrics
from targeting.index import HnswIndex, WarmIndex


@dataclass(frozen=True, slots=True)
class Matched:
    """A song's vector in the binary layout, and the warm songs nearest to it, nearest first."""

    vector: bytes
    neighbours: list[Neighbour]


@dataclass(frozen=True, slots=True)
class Matcher:
    """An immutable pair of encoder and index: a swap replaces the whole matcher."""

    encoder: Encoder
    index: WarmIndex
    song_ids: tuple[str, ...]

    @classmethod
    def build(cls, encoder: Encoder, warm: Space) -> Matcher:
        """Index the warm songs of the encoder's space."""
        index = HnswIndex(encoder.dim)
        if warm.ids:
            index.add(np.arange(len(warm.ids)), warm.vectors)
        return cls(encoder, index, tuple(warm.ids))

    def match(self, songs: Sequence[SongContent], neighbours: int, metrics: SongsMetrics) -> list[Matched]:
        """Encode songs and search for each; with an empty index a song has its vector alone."""
        started = time.perf_counter()
        names = tuple(str(row) for row in range(len(songs)))
        features = self.encoder.schema.transform(ContentTable.from_songs(names, songs))
        metrics.unseen_content.inc(int(features.unseen.sum()))
        encoded = self.encoder.encode_features(features)
        metrics.encode_seconds.observe(time.perf_counter() - started)
        started = time.perf_counter()
        labels, similarities = self.index.search(encoded, neighbours)
        metrics.search_seconds.observe(time.perf_counter() - started)
        return [
            Matched(
                vectors.pack(self.encoder.space, vector),
                [
                    Neighbour(self.song_ids[label], round(float(similarity), 6))
                    for label, similarity in zip(row, near, strict=True)
                ],
            )
            for vector, row, near in zip(encoded, labels, similarities, strict=True)
        ]
