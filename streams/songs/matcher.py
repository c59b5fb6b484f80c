"""Encoder and index of one space, replaced as one: an upload's vector and its nearest warm songs."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encoder.content import ContentTable, SongContent
from encoder.serving import Encoder
from streams.contract import vector_codec
from streams.contract.errors import InvalidField
from streams.contract.internal_events import Neighbour
from streams.models.registry import WarmSpace
from streams.runtime.metrics import SongsMetrics
from targeting.index import IndexKind, WarmIndex, make_index

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Matched:
    """A song's vector in the binary layout, and the warm songs nearest to it, nearest first."""

    vector: bytes
    neighbours: list[Neighbour]


@dataclass(frozen=True, slots=True)
class Matcher:
    """A pair of encoder and index: a swap of models replaces the whole matcher.

    Its index follows the warm songs of its space. A song keeps its label for good: a concurrent search on another
    thread must not find another song's name under it.
    """

    encoder: Encoder
    index: WarmIndex
    song_ids: list[str] = field(default_factory=list)
    _labels: dict[str, int] = field(default_factory=dict)

    @classmethod
    def build(cls, encoder: Encoder, warm: WarmSpace, kind: IndexKind = IndexKind.AUTO) -> Matcher:
        """Index the warm songs of the encoder's space."""
        matcher = cls(encoder, make_index(encoder.dim, kind))
        warm.changes()
        matcher._add(list(warm.ids), warm.vectors)
        return matcher

    def follow(self, warm: WarmSpace, changed: Collection[str]) -> None:
        """Update the songs that changed, at a cost that does not depend on the catalogue's size."""
        here = [song_id for song_id in changed if song_id in warm]
        gone = [self._labels[song_id] for song_id in changed if song_id not in warm and song_id in self._labels]
        self.index.remove(gone)
        if here:
            self._add(here, np.stack([warm.vector(song_id) for song_id in here]))

    def fitting(self, content: SongContent, metrics: SongsMetrics) -> SongContent:
        """What of a song's content the encoder can take: dense features it never met are left out.

        Raises:
            InvalidField: a dense feature that it knows has another dimension.
        """
        dims = _dims(self.encoder)
        for name, vector in content.dense.items():
            if len(vector) != dims.get(name, len(vector)):
                raise InvalidField(f"features.{name}.vector: {len(vector)} values, the live model takes {dims[name]}")
        fits = what_fits(self.encoder, content)
        metrics.unseen_content.inc(len(content.dense) - len(fits.dense))
        return fits

    def match(self, songs: Sequence[SongContent], neighbours: int, metrics: SongsMetrics) -> list[Matched]:
        """Encode songs, as :meth:`fitting` gave them, and search; with an empty index a song has its vector alone."""
        started = time.perf_counter()
        features = self.encoder.schema.transform(_table(songs))
        metrics.unseen_content.inc(int(features.unseen.sum()))
        encoded = self.encoder.encode_features(features)
        metrics.encode_seconds.observe(time.perf_counter() - started)
        started = time.perf_counter()
        labels, similarities = self.index.search(encoded, neighbours)
        metrics.search_seconds.observe(time.perf_counter() - started)
        return [
            Matched(
                vector_codec.pack(self.encoder.space, vector),
                [
                    Neighbour(self.song_ids[label], round(float(similarity), 6))
                    for label, similarity in zip(row, near, strict=True)
                ],
            )
            for vector, row, near in zip(encoded, labels, similarities, strict=True)
        ]

    def _add(self, song_ids: Sequence[str], rows: F32) -> None:
        # Names first, because a search may find them at once.
        for song_id in song_ids:
            if song_id not in self._labels:
                self._labels[song_id] = len(self.song_ids)
                self.song_ids.append(song_id)
        if song_ids:
            self.index.add([self._labels[song_id] for song_id in song_ids], rows)


def what_fits(encoder: Encoder, content: SongContent) -> SongContent:
    """A song's content without the dense features that the encoder does not take in this size."""
    dims = _dims(encoder)
    fits = {name: vector for name, vector in content.dense.items() if len(vector) == dims.get(name)}
    return SongContent(fits, content.bags)


def encoded(encoder: Encoder, songs: Iterable[SongContent]) -> list[bytes]:
    """The songs' vectors in the encoder's space, in the binary layout, by what of their content fits it."""
    fits = [what_fits(encoder, song) for song in songs]
    return [vector_codec.pack(encoder.space, vector) for vector in encoder.encode(_table(fits))] if fits else []


def _dims(encoder: Encoder) -> dict[str, int]:
    return {dense.name: len(dense.mean) for dense in encoder.schema.dense}


def _table(songs: Sequence[SongContent]) -> ContentTable:
    return ContentTable.from_songs(tuple(str(row) for row in range(len(songs))), songs)
