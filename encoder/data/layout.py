"""The neutral layout: a directory of gzip CSV files, and one archive of dense vectors.

``interactions.csv.gz``   user_id, song_id, play_count, played_at?
``songs.csv.gz``          song_id, name?, artist_id?, album_id?, language?, genre?, duration_sec?
``song_tags.csv.gz``      song_id, tag_id, n_taggers? (the weight; 1 without it); the file may be absent
``tags.csv.gz``           tag_id, tag: the names of the tags; without it an id is its own name
``song_vectors.npz``      ``song_ids``, and one float array (len(song_ids), d) per dense feature; may be absent
``citation.txt``          what to print when the data are used; may be absent

Files are UTF-8 with a header line; further columns are ignored, an empty cell means unknown. ``artist_id``
and ``genre`` may hold several values with ``|`` between them. ``played_at`` is Unix seconds or ISO 8601
(UTC unless it says otherwise). Several rows of one user and one song are one listener: plays are added,
the last date counts.

Problems are counted in ``Dataset.findings``. They are read as well as possible (README.md says how), or refused if a
needed value is wrong or an id unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.content import F32, Bag, ContentTable
from encoder.data.dataset import Dataset
from encoder.data.file_names import CITATION, INTERACTIONS, SONG_TAGS, SONGS, TAGS, VECTORS
from encoder.data.findings import Findings, Kind, LayoutError
from encoder.data.history import History, cells, listeners
from encoder.data.records import Rows, Tell, read
from encoder.data.song_vectors import read_vectors

__all__ = ["LayoutError", "read_dataset", "read_history"]


# The bag that each column of songs.csv.gz fills.
CATEGORIES = {"artist_id": "artists", "album_id": "album", "language": "language", "genre": "genres"}
SEPARATOR = "|"
TAG_BAG = "tags"
DURATION = "duration"

# A billion plays, or taggers, of one song; sums stay far below the limit of float32.
MOST = 1e9
LEAST = float(np.finfo(np.float32).tiny)
# Twelve days, half of the 2**31 milliseconds that an upload may have.
LONGEST_S = 1e6


def read_dataset(path: Path, strict: bool = False, tell: Tell | None = None) -> Dataset:
    """Read a directory in the neutral layout.

    Songs are in the order of ``songs.csv.gz``, including those without listeners, users in order of appearance.
    A song's duration becomes the dense feature ``duration``: float32 (n, 1), log seconds.

    Args:
        strict: refuse everything that ``Dataset.findings`` would hold.
        tell: called while a file is read.

    Raises:
        LayoutError: a file is missing, damaged, or breaks the layout.
    """
    return read_into(Findings(strict), path, tell)


def read_history(path: Path, strict: bool = False, tell: Tell | None = None) -> History:
    """Read the dated listens of a directory one by one; undated ones are left out and counted.

    Raises:
        LayoutError: as :func:`read_dataset`; or no listen has a date.
    """
    dataset, rows = _read(Findings(strict), path, tell)
    if rows.at is None:
        raise LayoutError(
            f"{path / INTERACTIONS}: no listen has a date, so that nothing can be replayed; give it the column "
            "played_at (Unix seconds or ISO 8601)"
        )
    order = np.argsort(rows.at, kind="stable")
    undated = int(np.isnan(rows.at).sum())
    order = order[: len(order) - undated]
    return History(dataset, rows.song[order], rows.user[order], rows.plays[order], rows.at[order], undated)


def read_into(found: Findings, path: Path, tell: Tell | None = None) -> Dataset:
    """Read a directory as :func:`read_dataset` does, collecting problems in ``found``.

    If ``found`` refuses nothing, what would be refused is left out.
    """
    return _read(found, path, tell)[0]


def _read(found: Findings, path: Path, tell: Tell | None) -> tuple[Dataset, _Plays]:
    if not path.is_dir():
        raise LayoutError(f"{path} is not a directory; it should hold {INTERACTIONS} and {SONGS}")
    song_rows, titles, dense, bags = _read_songs(path / SONGS, found, tell)
    if not song_rows:
        # Without a list of songs, nothing else about songs can be checked.
        song_rows = _AnyId()
    if (path / SONG_TAGS).exists():
        bags[TAG_BAG] = _read_tags(path, song_rows, found, tell)
    if (path / VECTORS).exists():
        dense |= read_vectors(path / VECTORS, song_rows, found)
    user_ids, rows = _read_interactions(path / INTERACTIONS, song_rows, found, tell)
    plays, played_at = listeners(rows.song, rows.user, rows.plays, rows.at, (len(song_rows), len(user_ids)))
    dataset = Dataset(
        name=path.resolve().name,
        content=ContentTable(tuple(song_rows), dense, bags),
        user_ids=user_ids,
        plays=plays,
        played_at=played_at,
        citation=_read_citation(path),
        titles=titles,
        findings=tuple(found),
    )
    return dataset, rows


class _AnyId(dict[str, int]):
    """Row numbers for ids in order of appearance."""

    def __missing__(self, id: str) -> int:
        return self.setdefault(id, len(self))


def _read_songs(
    path: Path, found: Findings, tell: Tell | None
) -> tuple[dict[str, int], tuple[str, ...], dict[str, F32], dict[str, Bag]]:
    song_rows: dict[str, int] = {}
    titles: list[str] = []
    durations: list[NDArray[np.float64]] = []
    bags: dict[str, _BagReader] = {}
    for rows in read(path, found, ("song_id",), ("name", "duration_sec", *CATEGORIES), tell):
        ids = rows.ids("song_id")
        start = len(song_rows)
        new: list[int] = []
        for row, song_id in enumerate(ids):
            if song_id == "":
                rows.add(Kind.NO_ID, row, "song_id", "names no song; give every song an id")
            elif song_id in song_rows:
                rows.add(Kind.TWICE, row, "song_id", "stands here a second time; keep one of the two rows")
            else:
                song_rows[song_id] = start + len(new)
                new.append(row)
        names = rows.columns.get("name", [""] * len(ids))
        titles += [names[row] for row in new]
        if "duration_sec" in rows.columns:
            seconds = rows.numbers("duration_sec", f"seconds, 0.001 to {LONGEST_S:g}, or empty", 1e-3, LONGEST_S)
            durations.append(seconds[new])
        for column, name in CATEGORIES.items():
            if column in rows.columns:
                bag = bags.setdefault(name, _BagReader())
                terms = _terms(rows, column)
                for number, row in enumerate(new, start):
                    for term in terms[row]:
                        bag.add(number, term, 1.0)
    if not song_rows:
        found.add(Kind.FILE, path, 0, None, "holds no song; one row per song is needed")
    dense = {}
    if durations:
        dense[DURATION] = np.log(np.concatenate(durations)).astype(np.float32)[:, None]
    return song_rows, tuple(titles), dense, {name: bag.build(len(song_rows)) for name, bag in bags.items()}


def _terms(rows: Rows, column: str) -> list[list[str]]:
    """The values of each cell, without duplicates."""
    found = []
    for row, cell in enumerate(rows.columns[column]):
        terms = cell.split(SEPARATOR)
        bare = [term.strip() for term in terms]
        if bare != terms and any(bare):
            rows.add(Kind.BLANKS, row, column, "has blanks around a value; take them away")
        found.append(sorted(set(filter(None, bare))))
    return found


class _BagReader:
    """Collects the cells of one bag."""

    def __init__(self) -> None:
        self._terms: dict[str, int] = {}
        self._rows: list[int] = []
        self._columns: list[int] = []
        self._weights: list[float] = []

    def add(self, row: int, term: str, weight: float) -> None:
        self._rows.append(row)
        self._columns.append(self._terms.setdefault(term, len(self._terms)))
        self._weights.append(weight)

    def build(self, n: int) -> Bag:
        """The bag over n songs; duplicate cells are summed."""
        cells = (np.asarray(self._weights, np.float32), (self._rows, self._columns))
        return Bag(tuple(self._terms), sparse.csr_matrix(cells, shape=(n, len(self._terms))))


def _read_tags(path: Path, song_rows: Mapping[str, int], found: Findings, tell: Tell | None) -> Bag:
    names: dict[str, str] | None = None
    if (path / TAGS).exists():
        names = {}
        for rows in read(path / TAGS, found, ("tag_id", "tag"), tell=tell):
            for row, (tag_id, name) in enumerate(zip(rows.ids("tag_id"), rows.columns["tag"], strict=True)):
                if tag_id in names:
                    rows.add(Kind.TWICE, row, "tag_id", "stands here a second time; keep one of the two rows")
                else:
                    names[tag_id] = name
    tags: dict[str, int] = {}
    parts: list[tuple[NDArray[Any], ...]] = []
    for rows in read(path / SONG_TAGS, found, ("song_id", "tag_id"), ("n_taggers",), tell):
        songs = rows.known("song_id", song_rows, SONGS)
        weights = np.ones(len(rows))
        if "n_taggers" in rows.columns:
            given = rows.numbers("n_taggers", f"a weight > 0, up to {MOST:g}, or empty", LEAST, MOST)
            weights = np.where(np.isnan(given), 1.0, given)
        usable = songs >= 0
        ids = rows.ids("tag_id")
        if names is not None:
            for row, tag_id in enumerate(ids):
                if tag_id not in names:
                    usable[row] = False
                    rows.add(Kind.UNKNOWN_ID, row, "tag_id", f"is not in {TAGS}; add it there or delete this row")
        numbers = np.array([tags.setdefault(id, len(tags)) if use else -1 for id, use in zip(ids, usable, strict=True)])
        parts.append((songs[usable], numbers[usable], weights[usable], np.asarray(rows.lines)[usable]))
    if not parts:
        return Bag((), sparse.csr_matrix((len(song_rows), 0), dtype=np.float32))
    song, tag, weight, line = (np.concatenate(column) for column in zip(*parts, strict=True))
    again = _again(cells(song, tag, len(tags)), weight, np.zeros(len(song)))
    said = list(tags)
    for row in again.tolist():
        problem = "stands here a second time, with the same song and weight; keep one row"
        found.add(Kind.TWICE, path / SONG_TAGS, int(line[row]), said[tag[row]], problem, "tag_id")
    song, tag, weight = (np.delete(column, again) for column in (song, tag, weight))
    # Two ids may share a name.
    terms: dict[str, int] = {}
    columns = np.array([terms.setdefault(id if names is None else names[id], len(terms)) for id in said], np.int64)
    matrix = sparse.csr_matrix((weight.astype(np.float32), (song, columns[tag])), shape=(len(song_rows), len(terms)))
    return Bag(tuple(terms), matrix)


@dataclass(frozen=True, slots=True)
class _Plays:
    """Rows of listens in file order; ``at`` is NaN if unknown, None if no row has a date."""

    song: NDArray[np.int32]
    user: NDArray[np.int32]
    plays: NDArray[np.float32]
    at: NDArray[np.float64] | None


def _read_interactions(
    path: Path, song_rows: Mapping[str, int], found: Findings, tell: Tell | None
) -> tuple[tuple[str, ...], _Plays]:
    users: dict[str, int] = {}
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]] = []
    dates: list[NDArray[np.float64]] = []
    lines: list[NDArray[np.int64]] = []
    for rows in read(path, found, ("user_id", "song_id", "play_count"), ("played_at",), tell):
        user_ids = rows.ids("user_id")
        song = rows.known("song_id", song_rows, SONGS)
        given = rows.numbers("play_count", f"a number of plays, 0 to {MOST:g}", 0, MOST, Kind.NEEDED)
        usable = (song >= 0) & ~np.isnan(given)
        if "" in user_ids:
            for row, user_id in enumerate(user_ids):
                if user_id == "":
                    usable[row] = False
                    rows.add(Kind.NO_USER, row, "user_id", "names no user; give every user an id")
        known = [user_id for user_id, use in zip(user_ids, usable.tolist(), strict=True) if use]
        user = np.fromiter((users.setdefault(u, len(users)) for u in known), np.int32, len(known))
        song, plays = song[usable], given[usable].astype(np.float32)
        heard = plays > 0
        parts.append((song[heard], user[heard], plays[heard]))
        if "played_at" in rows.columns:
            dates.append(rows.times("played_at")[usable][heard])
            lines.append(np.asarray(rows.lines, np.int64)[usable][heard])
    if not parts:
        found.add(Kind.FILE, path, 0, None, "holds no row; one row per user and song is needed")
        parts.append((np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)))
    song, user, plays = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not dates:
        return tuple(users), _Plays(song, user, plays, None)
    at, line, who, what = np.concatenate(dates), np.concatenate(lines), list(users), list(song_rows)
    again = _again(cells(song, user, len(users)), plays, at)
    for row in again.tolist():
        value = f"{who[user[row]]},{what[song[row]]}"
        problem = "is a listen that stands here a second time, at the same second; keep one row"
        found.add(Kind.TWICE, path, int(line[row]), value, problem)
    keep = np.ones(len(song), np.bool_)
    keep[again] = False
    song, user, plays, at = song[keep], user[keep], plays[keep], at[keep]
    return tuple(users), _Plays(song, user, plays, None if np.isnan(at).all() else at)


def _again(cell: NDArray[np.int64], plays: NDArray[np.floating[Any]], at: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows that repeat an earlier one (same cell, plays and date), ascending."""
    order = np.argsort(cell, kind="stable")
    shared = np.zeros(len(order), bool)
    shared[1:] = cell[order][1:] == cell[order][:-1]
    shared[:-1] |= shared[1:]
    rows = order[shared]
    # Stable: ties keep their file order.
    rows = rows[np.lexsort((plays[rows], at[rows], cell[rows]))]
    one, other = rows[:-1], rows[1:]
    # Unknown dates are never equal.
    same = (cell[one] == cell[other]) & (at[one] == at[other]) & (plays[one] == plays[other])
    return np.sort(other[same])


def _read_citation(path: Path) -> str | None:
    """``citation.txt``, or from a source's own readme its terms of use and what "should" be cited."""
    if (path / CITATION).exists():
        return (path / CITATION).read_text(encoding="utf-8-sig", errors="replace").strip() or None
    if not (path / "source_readme.txt").exists():
        return None
    readme = (path / "source_readme.txt").read_text(encoding="utf-8", errors="replace")
    asked = re.search(r"should cite[^\n]*\n(.+?)(?:\n\s*\n|\Z)", readme, re.DOTALL)
    terms = re.search(r"^.*non-commercial.*$", readme, re.MULTILINE)
    lines = [terms.group()] if terms else []
    if asked:
        lines += asked.group(1).splitlines()
    return "\n".join(line.strip().lstrip("-* ") for line in lines) or None
