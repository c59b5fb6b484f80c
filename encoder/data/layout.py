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
"""

from __future__ import annotations

import csv
import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.content import F32, Bag, ContentTable
from encoder.data.dataset import Dataset

INTERACTIONS = "interactions.csv.gz"
SONGS = "songs.csv.gz"
SONG_TAGS = "song_tags.csv.gz"
TAGS = "tags.csv.gz"
VECTORS = "song_vectors.npz"
CITATION = "citation.txt"

# The bag that each column of songs.csv.gz fills.
CATEGORIES = {"artist_id": "artists", "album_id": "album", "language": "language", "genre": "genres"}
SEPARATOR = "|"
TAG_BAG = "tags"
DURATION = "duration"

# Rows held as Python strings at once. With 100,000 the garbage collector walks them again and again: 1.6
# times slower.
CHUNK = 2_000
# Nobody listened after the year 5138; milliseconds, the usual mistake, all lie beyond it.
LATEST = 1e11


class LayoutError(ValueError):
    """A file is not as the layout says; the message names the file, the place, the value and the way out."""


def read_dataset(path: Path) -> Dataset:
    """Read a directory in the neutral layout.

    Songs stand in the order of ``songs.csv.gz`` (those without listeners too), users in order of
    appearance. A song's duration becomes the dense feature ``duration``: float32 (n, 1), log seconds.

    Raises:
        LayoutError: a file is missing, damaged, or holds something that the layout does not allow.
    """
    if not path.is_dir():
        raise LayoutError(f"{path} is not a directory; it should hold {INTERACTIONS} and {SONGS}")
    song_rows, titles, dense, bags = _read_songs(path / SONGS)
    if (path / SONG_TAGS).exists():
        bags[TAG_BAG] = _read_tags(path, song_rows)
    if (path / VECTORS).exists():
        dense |= _read_vectors(path / VECTORS, song_rows)
    user_ids, plays, played_at = _read_interactions(path / INTERACTIONS, song_rows)
    return Dataset(
        name=path.resolve().name,
        content=ContentTable(tuple(song_rows), dense, bags),
        user_ids=user_ids,
        plays=plays,
        played_at=played_at,
        citation=_read_citation(path),
        titles=titles,
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Consecutive records of one file, by column."""

    path: Path
    first_line: int
    columns: Mapping[str, list[str]]
    records: list[list[str]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def error(self, row: int, column: str, problem: str) -> LayoutError:
        value = self.columns[column][row]
        line = self.first_line + _lines(self.records[:row])
        return LayoutError(f"{self.path}, line {line}, column {column}: {value!r} {problem}")

    def known(self, column: str, rows: Mapping[str, int], where: str) -> NDArray[np.int32]:
        """The row number of each id of the column."""
        ids = self.columns[column]
        try:
            return np.fromiter(map(rows.__getitem__, ids), np.int32, len(ids))
        except KeyError:
            row = next(i for i, value in enumerate(ids) if value not in rows)
            raise self.error(row, column, f"is not in {where}; add it there or delete this row") from None

    def numbers(self, column: str, expected: str, least: float, empty: float | None = None) -> NDArray[np.float64]:
        """The column as finite float64 >= least; an empty cell reads as ``empty`` unless that is None."""
        texts = self.columns[column]
        try:
            values = np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            # Cell by cell: only here is an empty cell, or a wrong one, possible.
            values = np.empty(len(texts))
            for row, text in enumerate(texts):
                if text == "" and empty is not None:
                    values[row] = empty
                    continue
                try:
                    values[row] = float(text)
                except ValueError:
                    raise self.error(row, column, f"is not a number; it must be {expected}") from None
        refused = ~(np.isfinite(values) & (values >= least))
        if empty is not None:
            refused &= np.array([text != "" for text in texts])
        if refused.any():
            raise self.error(int(refused.argmax()), column, f"is out of range; it must be {expected}")
        return values

    def times(self, column: str) -> NDArray[np.float64]:
        """The column as Unix seconds."""
        texts = self.columns[column]
        try:
            values = np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            values = np.empty(len(texts))
            for row, text in enumerate(texts):
                values[row] = self._time(row, column, text)
        refused = ~(np.isfinite(values) & (np.abs(values) < LATEST))
        if refused.any():
            raise self.error(int(refused.argmax()), column, "is no time in Unix seconds; divide milliseconds by 1000")
        return values

    def _time(self, row: int, column: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise self.error(
                row,
                column,
                "is neither Unix seconds nor ISO 8601; date every row, or leave the column out",
            ) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _read(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Iterator[_Rows]:
    """The records of a CSV file in chunks; ``optional`` columns appear only where the file has them."""
    line = 1
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            for name in required:
                if name not in header:
                    raise LayoutError(
                        f"{path}, line 1: no column {name}; the header is {','.join(header)!r} "
                        f"and must have {','.join(required)}"
                    )
            wanted = {name: header.index(name) for name in (*required, *optional) if name in header}
            while True:
                line = reader.line_num + 1
                records: list[list[str]] = []
                # What was read before an error tells where it is.
                try:
                    records.extend(islice(reader, CHUNK))
                except csv.Error as error:
                    raise _not_csv(path, line, records, error) from None
                if not records:
                    return
                if any(len(record) != len(header) for record in records):
                    raise _ragged(path, line, header, records)
                yield _Rows(path, line, {name: [r[i] for r in records] for name, i in wanted.items()}, records)
    except FileNotFoundError:
        raise LayoutError(f"{path} is missing; the layout needs it, with columns {','.join(required)}") from None
    except gzip.BadGzipFile:
        raise LayoutError(f"{path} is not a gzip file; compress it with `gzip`") from None
    except (EOFError, zlib.error) as error:
        raise LayoutError(f"{path} is damaged after line {line} ({error}); copy it again") from None
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except csv.Error as error:
        raise _not_csv(path, line, [], error) from None


def _lines(records: list[list[str]]) -> int:
    """Of the file. A quoted name may hold line breaks, also in a column that is not read."""
    return len(records) + sum(cell.count("\n") for record in records for cell in record)


def _not_utf8(path: Path, error: UnicodeDecodeError) -> LayoutError:
    """Names the first line that holds what is not UTF-8, and the bytes."""
    with gzip.open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                raw.decode()
            except UnicodeDecodeError as here:
                value = raw[max(0, here.start - 20) : here.end + 20]
                return LayoutError(f"{path}, line {number}: {value!r} is not UTF-8; convert the file with `iconv`")
    return LayoutError(f"{path} is not UTF-8 ({error}); convert it with `iconv`")


def _not_csv(path: Path, line: int, before: list[list[str]], error: csv.Error) -> LayoutError:
    """Names the line on which the record begins that cannot be read, and its text.

    Args:
        line: of the first record of ``before``, the records that were read since.
    """
    line += _lines(before)
    with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
        # A quote that is never closed makes one record of all the rest: its first line is what a person can mend.
        text = next(islice(file, line - 1, None), "").rstrip("\r\n")
    value = repr(text) if len(text) <= 200 else f"{text[:200]!r}…"
    return LayoutError(
        f"{path}, line {line}: {value} is not CSV ({error}); quote a value that holds a comma, "
        'a line break or a quote, and double the quotes in it (")'
    )


def _ragged(path: Path, line: int, header: list[str], records: list[list[str]]) -> LayoutError:
    for record in records:
        if len(record) != len(header):
            return LayoutError(
                f"{path}, line {line}: {','.join(record)!r} has {len(record)} columns, the header has "
                f"{len(header)}; complete the line or delete it"
            )
        line += 1 + sum(text.count("\n") for text in record)
    raise AssertionError("called without a ragged record")


def _read_songs(path: Path) -> tuple[dict[str, int], tuple[str, ...], dict[str, F32], dict[str, Bag]]:
    song_rows: dict[str, int] = {}
    titles: list[str] = []
    durations: list[NDArray[np.float64]] = []
    bags: dict[str, _BagReader] = {}
    for rows in _read(path, ("song_id",), ("name", "duration_sec", *CATEGORIES)):
        ids = rows.columns["song_id"]
        start = len(song_rows)
        for row, song_id in enumerate(ids):
            if song_id == "":
                raise rows.error(row, "song_id", "names no song; give every song an id")
            if song_rows.setdefault(song_id, start + row) != start + row:
                raise rows.error(row, "song_id", "stands here a second time; keep one of the two rows")
        titles += rows.columns.get("name", [""] * len(ids))
        if "duration_sec" in rows.columns:
            durations.append(
                rows.numbers("duration_sec", "seconds, at least 0.001, or empty", least=1e-3, empty=np.nan)
            )
        for column, name in CATEGORIES.items():
            if column in rows.columns:
                bag = bags.setdefault(name, _BagReader())
                for row, cell in enumerate(rows.columns[column], start):
                    # A set: a value that stands twice is still one value.
                    for term in sorted(set(filter(None, cell.split(SEPARATOR)))):
                        bag.add(row, term, 1.0)
    if not song_rows:
        raise LayoutError(f"{path} holds no song; one row per song is needed")
    dense = {}
    if durations:
        dense[DURATION] = np.log(np.concatenate(durations)).astype(np.float32)[:, None]
    return song_rows, tuple(titles), dense, {name: bag.build(len(song_rows)) for name, bag in bags.items()}


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
        """The bag over n songs; cells given twice are added up."""
        cells = (np.asarray(self._weights, np.float32), (self._rows, self._columns))
        return Bag(tuple(self._terms), sparse.csr_matrix(cells, shape=(n, len(self._terms))))


def _read_tags(path: Path, song_rows: Mapping[str, int]) -> Bag:
    names: dict[str, str] | None = None
    if (path / TAGS).exists():
        names = {}
        for rows in _read(path / TAGS, ("tag_id", "tag")):
            names.update(zip(rows.columns["tag_id"], rows.columns["tag"], strict=True))
    bag = _BagReader()
    for rows in _read(path / SONG_TAGS, ("song_id", "tag_id"), ("n_taggers",)):
        songs = rows.known("song_id", song_rows, SONGS).tolist()
        weights = [1.0] * len(rows)
        if "n_taggers" in rows.columns:
            weights = rows.numbers("n_taggers", "a weight > 0", least=float(np.finfo(np.float32).tiny)).tolist()
        for row, tag_id in enumerate(rows.columns["tag_id"]):
            if names is not None and tag_id not in names:
                raise rows.error(row, "tag_id", f"is not in {TAGS}; add it there or delete this row")
            bag.add(songs[row], tag_id if names is None else names[tag_id], weights[row])
    return bag.build(len(song_rows))


def _read_vectors(path: Path, song_rows: Mapping[str, int]) -> dict[str, F32]:
    """Dense features over all songs; NaN where the archive has no row, or a row of NaN."""
    try:
        # Without pickle: an archive from elsewhere must not be able to run code.
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise LayoutError(
            f"{path} cannot be read ({error}); write it with numpy.savez, ids as strings (no objects)"
        ) from None
    if "song_ids" not in arrays:
        raise LayoutError(f"{path} has no array song_ids; it holds {sorted(arrays)}")
    ids = [str(song_id) for song_id in arrays.pop("song_ids")]
    unknown = [song_id for song_id in ids if song_id not in song_rows]
    if unknown:
        raise LayoutError(f"{path}, array song_ids: {unknown[0]!r} is not in {SONGS}; add it there or leave it out")
    if len(set(ids)) < len(ids):
        twice = next(song_id for song_id in ids if ids.count(song_id) > 1)
        raise LayoutError(f"{path}, array song_ids: {twice!r} stands there twice; keep one row")
    rows = np.array([song_rows[song_id] for song_id in ids], np.int64)
    dense = {}
    for name, values in arrays.items():
        if values.ndim != 2 or len(values) != len(ids) or not np.issubdtype(values.dtype, np.floating):
            raise LayoutError(
                f"{path}, array {name}: {values.dtype} of shape {values.shape}; "
                f"it must be float of shape ({len(ids)}, d), one row for each of song_ids"
            )
        partial = ~np.isfinite(values).all(axis=1) & ~np.isnan(values).all(axis=1)
        if partial.any():
            song_id = ids[int(partial.argmax())]
            raise LayoutError(
                f"{path}, array {name}: the vector of song {song_id!r} is not finite; "
                "a missing vector is left out, or NaN throughout"
            )
        dense[name] = np.full((len(song_rows), values.shape[1]), np.nan, np.float32)
        dense[name][rows] = values
    return dense


def _read_interactions(
    path: Path, song_rows: Mapping[str, int]
) -> tuple[tuple[str, ...], sparse.csr_matrix, NDArray[np.float64] | None]:
    users: dict[str, int] = {}
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]] = []
    dates: list[NDArray[np.float64]] = []
    for rows in _read(path, ("user_id", "song_id", "play_count"), ("played_at",)):
        user_ids = rows.columns["user_id"]
        user = np.fromiter((users.setdefault(u, len(users)) for u in user_ids), np.int32, len(rows))
        if "" in users:
            raise rows.error(user_ids.index(""), "user_id", "names no user; give every user an id")
        song = rows.known("song_id", song_rows, SONGS)
        plays = rows.numbers("play_count", "a number of plays >= 0", least=0).astype(np.float32)
        heard = plays > 0
        parts.append((song[heard], user[heard], plays[heard]))
        if "played_at" in rows.columns:
            dates.append(rows.times("played_at")[heard])
    if not parts:
        raise LayoutError(f"{path} holds no row; one row per user and song is needed")
    song, user, plays = (np.concatenate(column) for column in zip(*parts, strict=True))
    parts.clear()
    cell = song.astype(np.int64) * len(users) + user
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    played_at = np.maximum.reduceat(np.concatenate(dates)[order], first) if dates else None
    starts = np.searchsorted(cell[first], np.arange(len(song_rows) + 1, dtype=np.int64) * len(users))
    matrix = sparse.csr_matrix(
        (np.add.reduceat(plays[order], first), user[order][first], starts),
        shape=(len(song_rows), len(users)),
    )
    return tuple(users), matrix, played_at


def _read_citation(path: Path) -> str | None:
    """``citation.txt``, or what a source's own readme asks for: its terms of use and what "should" be cited."""
    if (path / CITATION).exists():
        return (path / CITATION).read_text(encoding="utf-8").strip() or None
    if not (path / "source_readme.txt").exists():
        return None
    readme = (path / "source_readme.txt").read_text(encoding="utf-8", errors="replace")
    asked = re.search(r"should cite[^\n]*\n(.+?)(?:\n\s*\n|\Z)", readme, re.DOTALL)
    terms = re.search(r"^.*non-commercial.*$", readme, re.MULTILINE)
    lines = [terms.group()] if terms else []
    if asked:
        lines += asked.group(1).splitlines()
    return "\n".join(line.strip().lstrip("-* ") for line in lines) or None
