"""Checks the files of a data set before training."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from encoder.data.dataset import Dataset
from encoder.data.file_names import CITATION, INTERACTIONS, SONG_TAGS, SONGS, TAGS, VECTORS
from encoder.data.findings import Finding, Findings, Kind
from encoder.data.layout import read_into
from encoder.data.records import Tell
from encoder.data.split import MIN_LISTENERS, split

FILES = (INTERACTIONS, SONGS, SONG_TAGS, TAGS, VECTORS, CITATION)


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a folder.

    Attributes:
        files: name -> bytes; None for one that is absent.
        dataset: what can be read, without what would be refused.
        found: all problems.
        warm, cold: songs by the split of seed 0; with too few songs for a split, 0.
        strict: whether every problem counts as refused.
    """

    folder: Path
    files: dict[str, int | None]
    dataset: Dataset
    found: Findings
    warm: int
    cold: int
    unsplit: str | None
    strict: bool

    @property
    def refused(self) -> list[Finding]:
        """The problems that end a reading."""
        return [each for each in self.found if each.refused or self.strict]

    @property
    def ok(self) -> bool:
        """Whether it can be read and trained on."""
        return not self.refused and self.unsplit is None

    def as_json(self) -> dict[str, Any]:
        """The same as numbers, strings and lists of them."""
        plays, dates = self.dataset.plays, self.dataset.played_at
        listeners = np.diff(plays.indptr)
        heard = np.bincount(plays.indices, minlength=plays.shape[1])
        known = np.empty(0) if dates is None else dates[~np.isnan(dates)]
        return {
            "folder": str(self.folder),
            "ok": self.ok,
            "files": [
                {"name": name, "bytes": size, "columns": self._columns(name), "lines": self._rows(name)}
                for name, size in self.files.items()
            ],
            "songs": len(listeners),
            "songs_without_listeners": int((listeners == 0).sum()),
            "songs_with_too_few_listeners": int((listeners < MIN_LISTENERS).sum()),
            "least_listeners": MIN_LISTENERS,
            "warm_songs": self.warm,
            "cold_songs": self.cold,
            "users": len(heard),
            "users_without_listens": int((heard == 0).sum()),
            "interactions": int(plays.nnz),
            "plays": float(plays.sum(dtype=np.float64)),
            "dated_interactions": len(known),
            "first": _iso(known.min()) if len(known) else None,
            "last": _iso(known.max()) if len(known) else None,
            "findings": [
                {
                    "file": each.file, "column": each.column or None, "what": each.kind.words, "count": each.count,
                    "cure": each.kind.cure, "refused": each.refused or self.strict, "message": each.message,
                    "examples": [{"line": place.line, "value": place.value} for place in each.examples],
                }
                for each in self.found
            ],
            "too_few_songs": self.unsplit,
        }  # fmt: skip

    def _rows(self, name: str) -> int | None:
        return next((cells.rows for (file, _), cells in self.found.columns.items() if file == name), None)

    def _columns(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                "name": column,
                "filled": cells.filled - self.found.count_of(Kind.OUT_OF_RANGE, file, column),
                "unknown": cells.rows - cells.filled,
                "out_of_range": self.found.count_of(Kind.OUT_OF_RANGE, file, column),
            }
            for (file, column), cells in self.found.columns.items()
            if file == name
        ]


def check(folder: Path, strict: bool = False, tell: Tell | None = None) -> Checked:
    """Read a whole folder, collecting every problem.

    Args:
        strict: every problem counts as refused.

    Raises:
        LayoutError: it is not a folder.
    """
    found = Findings(all=True)
    dataset = read_into(found, folder, tell)
    warm, cold, unsplit = 0, 0, None
    try:
        parts = split(dataset, seed=0)
        warm, cold = len(parts.warm), len(parts.cold)
    except ValueError as error:
        unsplit = str(error)
    sizes = {name: (folder / name).stat().st_size if (folder / name).exists() else None for name in FILES}
    return Checked(folder, sizes, dataset, found, warm, cold, unsplit, strict)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
