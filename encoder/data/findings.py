"""Problems in the files of a data set, with counts and places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

# Examples of one kind in one column: enough to recognise the mistake; the count says how frequent it is.
EXAMPLES = 3
# Below this many cells, all of them wrong may be chance; above, the column holds something else than its name says.
CHANCE = 10


class LayoutError(ValueError):
    """A file breaks the layout; the message names the file, the place, the value and what to do."""


class Kind(Enum):
    """A kind of problem: its words, and what reading does about it; None if it refuses."""

    OUT_OF_RANGE = "out of range", "read as unknown"
    TWICE = "there before", "left out"
    NO_USER = "without a user", "left out"
    BLANKS = "with blanks around an id", "read without them"
    QUOTES = "with quotes that do not pair", "read as they stand"
    ENCODING = "not UTF-8", "read as Windows-1252"
    UTF_16 = "in UTF-16 or UTF-32", "read as such"
    EMPTY_LINE = "empty", "left out"
    NEEDED = "wrong in a column that is needed", None
    UNKNOWN_ID = "of an unknown id", None
    NO_ID = "without an id", None
    NOT_CSV = "not CSV", None
    RAGGED = "with missing or further columns", None
    COLUMN = "a column that holds something else", None
    FILE = "a file that cannot be used", None

    def __init__(self, words: str, cure: str | None) -> None:
        self.words = words
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found.

    Attributes:
        line: of the file, from 1; for an archive of vectors, the row from 1.
        value: the text found there.
    """

    line: int
    value: str


@dataclass(slots=True)
class Finding:
    """Everything of one kind in one column of one file.

    Attributes:
        column: "" for the line as a whole.
        count: cells or lines.
        examples: the first of them.
        message: the error for the first of them, as a strict reading would raise it.
    """

    file: str
    column: str
    kind: Kind
    message: str
    count: int = 0
    examples: list[Place] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return self.kind.cure is None

    def __str__(self) -> str:
        places = ", ".join(f"{_place(self.file, each.line)}: {_short(each.value)}" for each in self.examples)
        column = f", {_column(self.file, self.column)}" if self.column else ""
        cure = f", {self.kind.cure}" if self.kind.cure else ""
        return f"{self.file}{column}: {self.count:,} {self.kind.words}{cure}" + (f" ({places})" if places else "")


@dataclass(slots=True)
class Column:
    """Cells of one column: how many, and how many of them not empty."""

    rows: int = 0
    filled: int = 0


class Findings:
    """Collects problems while a data set is read.

    Args:
        strict: any problem ends the reading.
        all: none does, so everything that would be refused is known at the end.
    """

    def __init__(self, strict: bool = False, all: bool = False) -> None:
        self._strict = strict
        self._all = all
        self._found: dict[tuple[str, str, Kind], Finding] = {}
        self.columns: dict[tuple[str, str], Column] = {}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found.values())

    def add(self, kind: Kind, path: Path, line: int, value: str | None, problem: str, column: str = "") -> None:
        """Count one problem.

        Args:
            line: 0 for the file as a whole.
            value: None if there is none.
            problem: what is wrong and what to do, as the end of a sentence.

        Raises:
            LayoutError: this reading refuses it.
        """
        found = self._found.get((path.name, column, kind))
        if found is None:
            place = f", {_place(path.name, line)}" if line else ""
            of = f", {_column(path.name, column)}" if column else ""
            message = f"{path}{place}{of}{'' if value is None else f': {_short(value)}'}"
            message += problem if problem.startswith(":") else f" {problem}"
            if not self._all and (self._strict or kind.cure is None):
                raise LayoutError(message)
            found = self._found.setdefault((path.name, column, kind), Finding(path.name, column, kind, message))
        found.count += 1
        if value is not None and len(found.examples) < EXAMPLES:
            found.examples.append(Place(line, value))

    def count(self, path: Path, column: str, rows: int, filled: int) -> None:
        """Count the cells of a column."""
        cells = self.columns.setdefault((path.name, column), Column())
        cells.rows += rows
        cells.filled += filled

    def count_of(self, kind: Kind, file: str, column: str) -> int:
        """How many of a kind were found in a column."""
        found = self._found.get((file, column, kind))
        return 0 if found is None else found.count

    def finish(self, path: Path) -> None:
        """Checks, at the end of a file, for columns that are wrong as a whole.

        Raises:
            LayoutError: there is one, and this reading refuses it.
        """
        for (file, column), cells in self.columns.items():
            wrong = self.count_of(Kind.OUT_OF_RANGE, file, column)
            if file == path.name and cells.filled == wrong >= CHANCE:
                first = self._found[file, column, Kind.OUT_OF_RANGE]
                what = f": all of its {wrong:,} values are out of range. {first.message}"
                self.add(Kind.COLUMN, path, 0, None, what, column)


def _place(file: str, line: int) -> str:
    return f"{'row' if file.endswith('.npz') else 'line'} {line}"


def _column(file: str, column: str) -> str:
    return f"{'array' if file.endswith('.npz') else 'column'} {column}"


def _short(value: str) -> str:
    return repr(value) if len(value) <= 200 else f"{value[:200]!r}…"
