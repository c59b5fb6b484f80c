"""Which warm songs have a similar audience? Encoder and index of one space, replaced as one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoder.content import ContentTable, SongContent
from encoder.serving import Encoder
from streams import vectors
from streams.errors import InvalidField
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

    def fitting(self, content: SongContent, metrics: SongsMetrics) -> SongContent:
        """What of a song's content the encoder can take: dense features it never met are left out.

        Raises:
            InvalidField: a dense feature that it knows has another dimension.
        """
        dims = {dense.name: len(dense.mean) for dense in self.encoder.schema.dense}
        for name, vector in content.dense.items():
            if len(vector) != dims.get(name, len(vector)):
                raise InvalidField(f"features.{name}.vector: {len(vector)} values, the live model takes {dims[name]}")
        known = {name: vector for name, vector in content.dense.items() if name in dims}
        metrics.unseen_content.inc(len(content.dense) - len(known))
        return SongContent(known, content.bags)

    def match(self, songs: Sequence[SongContent], neighbours: int, metrics: SongsMetrics) -> list[Matched]:
        """Encode songs, as :meth:`fitting` gave them, and search; with an empty index a song has its vector alone."""
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
