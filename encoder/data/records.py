"""The readable records of a gzipped CSV file."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from encoder.data.findings import Findings, Kind

# Rows per chunk of Python strings. With 100,000 the garbage collector walks them repeatedly: 1.6 times slower.
CHUNK = 2_000
# 1900, before which nothing was recorded, to 5138; milliseconds, the usual mistake, are all above.
EARLIEST, LATEST = -2.2e9, 1e11

Tell = Callable[[str, int, int], None]
"""Progress: called with (name of the file, bytes read of it, its size)."""

_BREAK = re.compile("\r\n|\r|\n")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
# From bytes that are not UTF-8, as Python's surrogates, to their Windows-1252 characters; the five that it does not
# define map to themselves.
_WINDOWS = {0xDC00 + byte: bytes([byte]).decode("cp1252", errors="ignore") or chr(byte) for byte in range(0x80, 0x100)}
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive records of one file, by column.

    Attributes:
        lines: line of the file on which each record begins.
    """

    path: Path
    lines: Sequence[int]
    columns: Mapping[str, list[str]]
    found: Findings

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, kind: Kind, row: int, column: str, problem: str) -> None:
        """Count a wrong cell."""
        self.found.add(kind, self.path, self.lines[row], self.columns[column][row], problem, column)

    def ids(self, column: str) -> list[str]:
        """The column, ids stripped of blanks."""
        texts = self.columns[column]
        bare = [text.strip() for text in texts]
        if bare != texts:
            for row, (one, other) in enumerate(zip(texts, bare, strict=True)):
                # A cell of blanks counts as empty.
                if one != other and other:
                    self.add(Kind.BLANKS, row, column, "has blanks around the id; take them away")
        return bare

    def known(self, column: str, rows: Mapping[str, int], where: str) -> NDArray[np.int32]:
        """The row number of each id of the column; -1 if unknown and not refused."""
        ids = self.ids(column)
        try:
            return np.fromiter(map(rows.__getitem__, ids), np.int32, len(ids))
        except KeyError:
            numbers = np.full(len(ids), -1, np.int32)
            for row, id in enumerate(ids):
                if id in rows:
                    numbers[row] = rows[id]
                else:
                    self.add(Kind.UNKNOWN_ID, row, column, f"is not in {where}; add it there or delete this row")
            return numbers

    def numbers(
        self, column: str, expected: str, least: float, most: float, kind: Kind = Kind.OUT_OF_RANGE
    ) -> NDArray[np.float64]:
        """The column as float64 within the bounds; NaN if empty or out of range.

        Args:
            kind: kind of problem for numbers out of range; with ``NEEDED``, also for empty cells.
        """
        texts = self.columns[column]
        numbers: NDArray[np.float64]
        try:
            numbers = np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            # Cell by cell, for empty cells and cells that are not numbers.
            numbers = np.full(len(texts), np.nan)
            for row, text in enumerate(texts):
                with suppress(ValueError):
                    numbers[row] = float(text)
        wrong = ~((numbers >= least) & (numbers <= most))
        for row in np.flatnonzero(wrong).tolist():
            if kind is Kind.NEEDED or texts[row].strip():
                said = "is not a number" if _is_text(texts[row]) else "is out of range"
                self.add(kind, row, column, f"{said}; it must be {expected}")
        numbers[wrong] = np.nan
        return numbers

    def times(self, column: str) -> NDArray[np.float64]:
        """The column as Unix seconds; NaN if empty or not a time."""
        texts = self.columns[column]
        try:
            times = np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            times = np.array([_time(text) for text in texts])
        wrong = ~((times >= EARLIEST) & (times < LATEST))
        for row in np.flatnonzero(wrong).tolist():
            if not texts[row].strip():
                continue
            said = "is no time in Unix seconds; divide milliseconds by 1000"
            if _is_text(texts[row]) and np.isnan(times[row]):
                said = "is neither Unix seconds nor ISO 8601; write it so, or leave it empty"
            self.add(Kind.OUT_OF_RANGE, row, column, said)
        times[wrong] = np.nan
        return times


def _is_text(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _time(text: str) -> float:
    with suppress(ValueError):
        return float(text)
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return float("nan")


def read(
    path: Path, found: Findings, required: Sequence[str], optional: Sequence[str] = (), tell: Tell | None = None
) -> Iterator[Rows]:
    """The records of a CSV file in chunks; ``optional`` columns appear only if the file has them.

    A line that is not UTF-8 is read as Windows-1252, a record with unpaired quotes by its first line; both are
    counted.

    Raises:
        LayoutError: the file is missing, or it or a record cannot be read.
    """
    needed = f"the layout needs it, with columns {','.join(required)}"
    line = 1
    try:
        with path.open("rb") as packed:
            size = path.stat().st_size
            with gzip.GzipFile(fileobj=packed) as file:
                text = _Text(path, _decoded(path, file, found), found)
                header = text.header()
                missing = [name for name in required if name not in header]
                if missing:
                    found.add(
                        Kind.FILE, path, 1, None,
                        f": no column {missing[0]}; the header is {','.join(header)!r} "
                        f"and must have {','.join(required)}",
                    )  # fmt: skip
                    return
                wanted = {name: header.index(name) for name in (*required, *optional) if name in header}
                for lines, records in text.chunks():
                    line = lines[-1]
                    columns = {name: [r[i] for r in records] for name, i in wanted.items()}
                    for name, cells in columns.items():
                        found.count(path, name, len(cells), sum(map(bool, map(str.strip, cells))))
                    yield Rows(path, lines, columns, found)
                    if tell is not None:
                        tell(path.name, packed.tell(), size)
        found.finish(path)
    except FileNotFoundError:
        plain = path.with_suffix("")
        there = f"; {plain.name} is there: compress it with `gzip`" if plain.exists() else ""
        found.add(Kind.FILE, path, 0, None, f"is missing; {needed}{there}")
    except gzip.BadGzipFile as error:
        way = "compress it with `gzip`, or copy it again"
        found.add(Kind.FILE, path, 0, None, f"is not a gzip file, or a damaged one ({error}); {way}")
    except (EOFError, zlib.error) as error:
        found.add(Kind.FILE, path, 0, None, f"is damaged after line {line} ({error}); copy it again")
    except UnicodeDecodeError as error:
        found.add(Kind.FILE, path, 0, None, f"is not {error.encoding} ({error.reason}); convert it with `iconv`")


def _decoded(path: Path, file: gzip.GzipFile, found: Findings) -> Iterator[str]:
    """The lines of the file with their line breaks; bytes that are not UTF-8 become surrogates."""
    start = file.peek(4)[:4]
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8-sig")
    if encoding != "utf-8-sig":
        found.add(Kind.UTF_16, path, 0, None, f"is {encoding.upper()}; convert it to UTF-8 with `iconv`")
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    binary: BinaryIO = file  # type: ignore[assignment]
    return io.TextIOWrapper(binary, encoding=encoding, errors=errors, newline="")


class _Text:
    """Splits text into records, skipping lines that cannot be read."""

    def __init__(self, path: Path, lines: Iterator[str], found: Findings) -> None:
        self._path = path
        self._found = found
        self._fed = _Fed(path, lines, found)
        self._reader = csv.reader(self._fed, strict=True)
        # The line of the next record, and its number of cells.
        self._next = 1
        self._width: int | None = None

    def header(self) -> list[str]:
        for _, records in self._some(1):
            if records and records[0]:
                self._width = len(records[0])
                return [name.strip() for name in records[0]]
        return []

    def chunks(self) -> Iterator[tuple[Sequence[int], list[list[str]]]]:
        """Records as wide as the header, with the line where each begins."""
        for lines, records in self._some(CHUNK):
            # A row of empty cells, as spreadsheets write, is an empty line too.
            if any(len(record) != self._width or not record[0].strip() for record in records):
                kept = [i for i, record in enumerate(records) if self._whole(lines[i], record)]
                lines, records = [lines[i] for i in kept], [records[i] for i in kept]
            if records:
                yield lines, records

    def _whole(self, line: int, record: list[str]) -> bool:
        filled = any(cell.strip() for cell in record)
        if filled and len(record) == self._width:
            return True
        text = ",".join(record)
        if filled:
            problem = f"has {len(record)} columns, the header has {self._width}; complete the line or delete it"
            self._found.add(Kind.RAGGED, self._path, line, text, problem)
        else:
            self._found.add(Kind.EMPTY_LINE, self._path, line, text, "is an empty line; delete it")
        return False

    def _some(self, count: int) -> Iterator[tuple[Sequence[int], list[list[str]]]]:
        while True:
            start, records, wrong = self._next, list[list[str]](), None
            self._fed.held.clear()
            try:
                # Records before an error stay in the list.
                records.extend(islice(self._reader, count))
            except csv.Error as error:
                wrong = error
            used = len(self._fed.held) if wrong is None else _lines(records)
            self._next += used
            if used > len(records):
                begins = [start]
                for record in records[:-1]:
                    begins.append(begins[-1] + _lines([record]))
                yield begins, records
            elif records:
                yield range(start, self._next), records
            if wrong is not None:
                yield from self._mended(self._fed.held[used:], wrong)
            elif not records:
                return

    def _mended(self, held: list[str], error: csv.Error) -> Iterator[tuple[Sequence[int], list[list[str]]]]:
        """The first line of a malformed record, as is; its other lines are read again."""
        line, text = self._next, held[0].rstrip("\r\n")
        self._next += 1
        # An open quote may have swallowed many lines.
        self._fed.again.extendleft(reversed(held[1:]))
        kind, record = Kind.NOT_CSV, list[str]()
        with suppress(csv.Error):
            record = next(csv.reader([text]))
            if self._width in (None, len(record)):
                kind = Kind.QUOTES
        cure = 'quote a value that holds a comma, a line break or a quote, and double the quotes in it (")'
        self._found.add(kind, self._path, line, text, f"is not CSV ({error}); {cure}")
        if kind is Kind.QUOTES:
            yield [line], [record]


class _Fed:
    """Lines for a CSV parser, some of which can be fed again.

    Attributes:
        held: lines fed since this was last cleared.
        again: lines to feed before the next one of the file.
    """

    def __init__(self, path: Path, lines: Iterator[str], found: Findings) -> None:
        self._path = path
        self._lines = lines
        self._found = found
        self._number = 0
        self.held: list[str] = []
        self.again: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else self._new()
        self.held.append(line)
        return line

    def _new(self) -> str:
        line = next(self._lines)
        self._number += 1
        if not line.isascii() and _NOT_UTF8.search(line):
            line = line.translate(_WINDOWS)
            problem = "is not UTF-8; convert the file with `iconv`"
            self._found.add(Kind.ENCODING, self._path, self._number, line.rstrip("\r\n"), problem)
        return line


def _lines(records: list[list[str]]) -> int:
    """Number of lines in the file. Quoted cells may hold line breaks, even in columns that are not read."""
    return len(records) + sum(len(_BREAK.findall(cell)) for record in records for cell in record)
