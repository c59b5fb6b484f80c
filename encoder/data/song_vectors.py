"""Dense features of songs, from the archive of the neutral layout."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from encoder.content import F32
from encoder.data.file_names import SONGS
from encoder.data.findings import Findings, Kind


def read_vectors(path: Path, song_rows: Mapping[str, int], found: Findings) -> dict[str, F32]:
    """Dense features over all songs; NaN if the archive has no finite row."""
    arrays = _arrays(path, found)
    if arrays is None:
        return {}
    given = arrays.pop("song_ids", None)
    if given is None or given.ndim != 1:
        what = f"no array song_ids of shape (n,); it holds {sorted(arrays)}"
        found.add(Kind.FILE, path, 0, None, f"has {what}")
        return {}
    places: list[int] = []
    rows: list[int] = []
    for place, song_id in enumerate(map(str, given)):
        bare = song_id.strip()
        if bare != song_id:
            found.add(Kind.BLANKS, path, place + 1, song_id, "has blanks around the id; take them away", "song_ids")
        try:
            row = song_rows[bare]
        except KeyError:
            problem = f"is not in {SONGS}; add it there or leave it out"
            found.add(Kind.UNKNOWN_ID, path, place + 1, song_id, problem, "song_ids")
            continue
        rows.append(row)
        places.append(place)
    first = {row: i for i, row in reversed(list(enumerate(rows)))}
    for i, row in enumerate(rows):
        if first[row] != i:
            problem = "stands there twice; keep one row"
            found.add(Kind.TWICE, path, places[i] + 1, str(given[places[i]]), problem, "song_ids")
    kept = np.array([places[i] for i in first.values()], np.int64)
    dense = {}
    for name, values in arrays.items():
        if values.ndim != 2 or len(values) != len(given) or not np.issubdtype(values.dtype, np.floating):
            problem = (
                f"is {values.dtype} of shape {values.shape}; "
                f"it must be float of shape ({len(given)}, d), one row for each of song_ids"
            )
            found.add(Kind.FILE, path, 0, None, problem, name)
            continue
        with np.errstate(over="ignore"):
            vectors = values.astype(np.float32)
        partial = ~np.isfinite(vectors).all(axis=1) & ~np.isnan(values).all(axis=1)
        for place in np.flatnonzero(partial).tolist():
            problem = "has a vector that is not finite; a missing one is left out, or NaN throughout"
            found.add(Kind.OUT_OF_RANGE, path, place + 1, str(given[place]), problem, name)
        vectors[partial] = np.nan
        found.count(path, name, len(given), int((~np.isnan(values).all(axis=1)).sum()))
        dense[name] = np.full((len(song_rows), values.shape[1]), np.nan, np.float32)
        dense[name][list(first)] = vectors[kept]
    found.finish(path)
    return dense


# What zipfile and numpy raise for bytes that are not an archive of arrays; a header may also claim too much memory.
_UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


def _arrays(path: Path, found: Findings) -> dict[str, NDArray[Any]] | None:
    try:
        # Opened here: numpy leaks the file if it only begins like an archive.
        with open(path, "rb") as file:
            # Without pickle: a foreign archive must not run code.
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, NpzFile):
                with archive:
                    arrays = dict(archive)
                if all(isinstance(values, np.ndarray) for values in arrays.values()):
                    return arrays
                error = "not everything in it is an array"
            else:
                error = "it is no archive, but one array"
    except _UNREADABLE as wrong:
        error = str(wrong)
    way = "write it with numpy.savez, ids as strings (no objects)"
    found.add(Kind.FILE, path, 0, None, f"cannot be read ({error}); {way}")
    return None
