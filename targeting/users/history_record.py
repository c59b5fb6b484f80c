"""History records: how a user's history is written, and read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64
from targeting.arrays.ragged_array import rows_as_bytes
from targeting.types import F32

if TYPE_CHECKING:
    from targeting.catalogue.catalogue import Catalogue

# A history record: one version byte, then one of these for each song, in the order of the history.
HEARD = np.dtype([("song", "<u8"), ("weight", "<f4"), ("time", "<u4")])
_VERSION = b"\x01"


def encode(
    songs: Catalogue, lengths: I64, slots: NDArray[np.int32], weights: F32, times: NDArray[np.uint32]
) -> list[bytes]:
    """History records: a version byte and packed :data:`HEARD` entries; n records for n lengths."""
    entries = np.empty(len(slots), HEARD)
    entries["song"], entries["weight"], entries["time"] = songs.hashes(slots.astype(np.int64)), weights, times
    return rows_as_bytes(entries, lengths, _VERSION)


def decode(records: Sequence[bytes]) -> tuple[I64, NDArray[np.void]]:
    """Lengths int64 (n,) and the :data:`HEARD` entries of records, one after the other; an empty record has none.

    Raises:
        ValueError: a record of another version or of broken length.
    """
    sizes = np.fromiter(map(len, records), np.int64, len(records))
    versions = {record[:1] for record in records}
    if not versions <= {_VERSION, b""} or ((sizes[sizes > 0] - 1) % HEARD.itemsize).any():
        for record in records:
            if record and (record[:1] != _VERSION or (len(record) - 1) % HEARD.itemsize):
                raise ValueError(f"a history record of {len(record)} bytes, version {record[:1]!r}")
    lengths = sizes // HEARD.itemsize
    return lengths, np.frombuffer(b"".join([record[1:] for record in records]), HEARD)
