"""Writes a data set in the neutral layout of :mod:`encoder.data.layout`."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from encoder.content import Bag, ContentTable
from encoder.data.dataset import Dataset
from encoder.data.file_names import CITATION, INTERACTIONS, SONG_TAGS, SONGS, VECTORS
from encoder.data.layout import CATEGORIES, DURATION, SEPARATOR, TAG_BAG
from encoder.data.records import CHUNK


def write_dataset(dataset: Dataset, path: Path) -> None:
    """Write a data set in the neutral layout, so that :func:`read_dataset` gives it back.

    Users without a listen are lost: the layout has users only through listens.
    """
    write_songs(path, dataset.content, dataset.titles)
    if dataset.citation:
        (path / CITATION).write_text(dataset.citation + "\n", encoding="utf-8")
    listens = dataset.plays.tocoo()
    songs, users = listens.row, listens.col
    with open_interactions(path, dated=dataset.played_at is not None) as interactions:
        for start in range(0, listens.nnz, CHUNK):
            part = slice(start, start + CHUNK)
            interactions.append(
                [dataset.user_ids[u] for u in users[part]],
                [dataset.song_ids[s] for s in songs[part]],
                listens.data[part],
                None if dataset.played_at is None else dataset.played_at[part],
            )


def write_songs(path: Path, content: ContentTable, titles: Sequence[str] = ()) -> None:
    """Write everything about songs: ``songs.csv.gz``, ``song_tags.csv.gz`` and ``song_vectors.npz``.

    Raises:
        ValueError: the layout has no place for one of the bags or terms.
    """
    path.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Sequence[str]] = {"song_id": content.song_ids}
    if titles:
        columns["name"] = titles
    unknown = set(content.bags) - {TAG_BAG, *CATEGORIES.values()}
    if unknown:
        raise ValueError(f"the layout has no column for {sorted(unknown)}; it has {sorted(CATEGORIES.values())}")
    for column, name in CATEGORIES.items():
        if name in content.bags:
            columns[column] = _joined(content.bags[name], name)
    dense: dict[str, Any] = dict(content.dense)
    if DURATION in dense:
        seconds = np.exp(dense.pop(DURATION)[:, 0].astype(np.float64))
        columns["duration_sec"] = ["" if np.isnan(value) else f"{value:.6g}" for value in seconds]
    with _written(path / SONGS) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    if TAG_BAG in content.bags:
        bag = content.bags[TAG_BAG]
        cells = bag.weights.tocoo()
        with _written(path / SONG_TAGS) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("song_id", "tag_id", "n_taggers"))
            for song, term, weight in zip(cells.row.tolist(), cells.col.tolist(), cells.data.tolist(), strict=True):
                writer.writerow((content.song_ids[song], bag.terms[term], f"{weight:.9g}"))
    if dense:
        np.savez(path / VECTORS, song_ids=np.array(content.song_ids), **dense)


def _joined(bag: Bag, name: str) -> list[str]:
    reserved = [term for term in bag.terms if SEPARATOR in term]
    if reserved:
        raise ValueError(f"{name}: {reserved[0]!r} holds {SEPARATOR!r}, which separates values in the layout")
    starts = bag.weights.indptr.tolist()
    terms = [bag.terms[t] for t in bag.weights.indices]
    return [SEPARATOR.join(terms[a:b]) for a, b in pairwise(starts)]


@dataclass(frozen=True, slots=True)
class Interactions:
    """An ``interactions.csv.gz`` being written."""

    file: TextIO
    dated: bool

    def append(
        self,
        user_ids: Sequence[str],
        song_ids: Sequence[str],
        plays: NDArray[np.float32],
        played_at: NDArray[np.float64] | None = None,
    ) -> None:
        """Write n rows; ids must need no CSV quoting. ``played_at``: Unix seconds, kept to the second."""
        for value in (*set(user_ids), *set(song_ids)):
            if not value or not value.isprintable() or "," in value or '"' in value:
                raise ValueError(f"{value!r} cannot be an id: empty, or with a comma, a quote or a line break")
        counts = [f"{value:.9g}" for value in plays.tolist()]
        columns: list[Sequence[object]] = [user_ids, song_ids, counts]
        if self.dated:
            if played_at is None:
                raise ValueError("these interactions are dated: every row needs played_at")
            columns.append(np.floor(played_at).astype(np.int64).tolist())
        self.file.writelines(f"{','.join(map(str, row))}\n" for row in zip(*columns, strict=True))


@contextmanager
def open_interactions(path: Path, *, dated: bool) -> Iterator[Interactions]:
    """Write ``interactions.csv.gz`` piece by piece, in memory bounded by a piece."""
    path.mkdir(parents=True, exist_ok=True)
    with _written(path / INTERACTIONS) as file:
        file.write(f"user_id,song_id,play_count{',played_at' if dated else ''}\n")
        yield Interactions(file, dated)


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """A gzip text file for writing; the same content always gives the same bytes."""
    with (
        open(path, "wb") as raw,
        # No time and no name in the header. Level 1: level 9 is 6 times slower and 15 % smaller.
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as file,
    ):
        yield file
