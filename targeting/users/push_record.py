"""Push records: how what a user was pushed is written, and read back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, U64
from targeting.arrays.ragged_array import rows_as_bytes

# A record: one version byte, then one of these for each recording, oldest first. ``at`` is the push's
# ``not_before``, ``marks`` are targeting.types.Mark bits.
PUSHED = np.dtype([("recording", "<u8"), ("artist", "<u8"), ("at", "<u4"), ("marks", "<u2")])
_VERSION = b"\x02"


def encode(
    lengths: I64, recordings: U64, artists: U64, at: NDArray[np.uint32], marks: NDArray[np.uint16]
) -> list[bytes]:
    """The record of each user, of whom ``lengths`` says how many of the rows are theirs, in order."""
    entries = np.empty(len(recordings), PUSHED)
    entries["recording"], entries["artist"], entries["at"], entries["marks"] = recordings, artists, at, marks
    return rows_as_bytes(entries, lengths, _VERSION)


def decode(records: Sequence[bytes]) -> tuple[I64, NDArray[np.void]]:
    """Lengths int64 (n,) and the :data:`PUSHED` rows of records, one after the other; an empty record has none.

    Raises:
        ValueError: a record of another version or of broken length.
    """
    for record in records:
        if record and (record[:1] != _VERSION or (len(record) - 1) % PUSHED.itemsize):
            raise ValueError(f"a push log record of {len(record)} bytes, version {record[:1]!r}")
    lengths = np.fromiter((len(r) // PUSHED.itemsize for r in records), np.int64, len(records))
    return lengths, np.frombuffer(b"".join([record[1:] for record in records]), PUSHED)
