"""A song's content: named dense vectors and named weighted bags, any of which may be missing.

A *dense* feature is a vector of floats (an audio or text embedding, a log duration). A *bag* maps terms to weights
(tags, genres, language, artists, album). A missing feature is absent, never a zero vector: zero is a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SongContent:
    """The content of one song.

    Attributes:
        dense: name -> vector of floats, shape (d,); d is fixed per name.
        bags: name -> {term: weight}, weights > 0. The names used by the project are ``tags``,
            ``genres``, ``language``, ``artists`` and ``album``.
    """

    dense: Mapping[str, Sequence[float]] = field(default_factory=dict)
    bags: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bag:
    """One named bag over n songs: a sparse (n, len(terms)) float32 matrix of weights."""

    terms: tuple[str, ...]
    weights: sparse.csr_matrix


@dataclass(frozen=True, slots=True)
class ContentTable:
    """The content of n songs, by column.

    Attributes:
        song_ids: n ids, the row order of everything else.
        dense: name -> float32 (n, d); NaN rows for songs without this feature.
        bags: name -> Bag of n rows; empty rows for songs without it.
    """

    song_ids: tuple[str, ...]
    dense: Mapping[str, F32] = field(default_factory=dict)
    bags: Mapping[str, Bag] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.song_ids)

    def rows(self, index: NDArray[np.int64]) -> ContentTable:
        """The table of the given rows, in that order; vocabularies are kept whole.

        Raises:
            IndexError: there is no such row.
        """
        return ContentTable(
            song_ids=tuple(self.song_ids[i] for i in index),
            dense={name: values[index] for name, values in self.dense.items()},
            bags={name: Bag(bag.terms, bag.weights[index]) for name, bag in self.bags.items()},
        )

    def song(self, row: int) -> SongContent:
        """The content of one row, as in an upload.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a table of {len(self)} songs")
        dense = {
            name: [float(value) for value in values[row]]
            for name, values in self.dense.items()
            if not np.isnan(values[row]).any()
        }
        bags = {}
        for name, bag in self.bags.items():
            start, end = bag.weights.indptr[row], bag.weights.indptr[row + 1]
            if end > start:
                terms = bag.weights.indices[start:end]
                weights = bag.weights.data[start:end]
                bags[name] = {bag.terms[t]: float(w) for t, w in zip(terms, weights, strict=True)}
        return SongContent(dense, bags)

    @classmethod
    def from_songs(cls, song_ids: Sequence[str], songs: Sequence[SongContent]) -> ContentTable:
        """The inverse of :meth:`song`: rows in the given order, vocabularies in order of appearance.

        Raises:
            ValueError: two songs give the same dense feature different dimensions.
        """
        n = len(songs)
        dense: dict[str, F32] = {}
        terms: dict[str, dict[str, int]] = {}
        cells: dict[str, tuple[list[int], list[int], list[float]]] = {}
        for row, song in enumerate(songs):
            for name, vector in song.dense.items():
                if name not in dense:
                    dense[name] = np.full((n, len(vector)), np.nan, np.float32)
                if len(vector) != dense[name].shape[1]:
                    raise ValueError(
                        f"dense feature {name!r} of song {song_ids[row]!r} has {len(vector)} values, "
                        f"an earlier song has {dense[name].shape[1]}"
                    )
                dense[name][row] = vector
            for name, bag in song.bags.items():
                vocabulary = terms.setdefault(name, {})
                rows, columns, weights = cells.setdefault(name, ([], [], []))
                for term, weight in bag.items():
                    rows.append(row)
                    columns.append(vocabulary.setdefault(term, len(vocabulary)))
                    weights.append(weight)
        bags = {
            name: Bag(
                tuple(vocabulary),
                sparse.csr_matrix(
                    (np.asarray(cells[name][2], np.float32), (cells[name][0], cells[name][1])),
                    shape=(n, len(vocabulary)),
                ),
            )
            for name, vocabulary in terms.items()
        }
        return cls(tuple(song_ids), dense, bags)
