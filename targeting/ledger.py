"""Who was already pushed which recording?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targeting.jagged import Jagged
from targeting.slots import I64, U64

# A ledger record: one version byte, then one of these for each recording pushed, oldest first.
PUSHED = np.dtype([("recording", "<u8"), ("at", "<u4")])
_VERSION = b"\x01"


@dataclass(frozen=True, slots=True)
class Entries:
    """The new ledger rows of users that are pushed in a batch.

    Attributes:
        users: int64 (m,), rows, ascending.
        lengths: int64 (m,).
        recordings, at: the rows, one after the other: uint64 hashes, uint32 seconds.
        added_users, added_recordings: what is new.
    """

    users: I64
    lengths: I64
    recordings: U64
    at: NDArray[np.uint32]
    added_users: I64
    added_recordings: U64


class Ledger:
    """The pushes of one partition, both ways: a user's recordings are stored, a recording's users derived.

    A recording is its 64-bit hash. Should two ever share one, a user is spared a push.
    """

    def __init__(self) -> None:
        self._pushed = Jagged(np.uint64, np.uint32)
        self._users = Jagged(np.int32)
        self._row_of: dict[int, int] = {}  # recording -> row of _users

    def users(self, recording: int) -> I64:
        """The rows of the users who were pushed a recording, int64."""
        row = self._row_of.get(recording)
        if row is None:
            return np.zeros(0, np.int64)
        _, (users,) = self._users.gather(np.asarray([row]))
        return users.astype(np.int64)

    def plan(self, users: I64, recordings: U64, now: float) -> Entries:
        """What pushes add, computed without adding it; (user, recording) pairs are new and distinct."""
        each = np.unique(users)
        lengths, (old_recordings, old_at) = self._pushed.gather(each)
        of = np.concatenate([np.repeat(np.arange(len(each)), lengths), np.searchsorted(each, users)])
        order = np.argsort(of, kind="stable")
        return Entries(
            each,
            np.bincount(of, minlength=len(each)),
            np.concatenate([old_recordings, recordings])[order],
            np.concatenate([old_at, np.full(len(users), int(now), np.uint32)])[order],
            users,
            recordings,
        )

    def apply(self, entries: Entries) -> None:
        """Takes over what :meth:`plan` computed on the same state."""
        self._pushed.replace(entries.users, entries.lengths, [entries.recordings, entries.at])
        self._index(entries.added_users, entries.added_recordings)

    def load(self, users: I64, records: Sequence[bytes]) -> None:
        """Writes rows read back from records (empty: none); :meth:`loaded` must follow before anything else.

        Raises:
            ValueError: a record of another version or of broken length.
        """
        for record in records:
            if record and (record[:1] != _VERSION or (len(record) - 1) % PUSHED.itemsize):
                raise ValueError(f"a ledger record of {len(record)} bytes, version {record[:1]!r}")
        lengths = np.fromiter((len(r) // PUSHED.itemsize for r in records), np.int64, len(records))
        entries = np.frombuffer(b"".join([record[1:] for record in records]), PUSHED)
        self._pushed.replace(users, lengths, [entries["recording"], entries["at"]])

    def loaded(self, users: I64) -> None:
        """Derives what the rows of ``users``, all there are, imply."""
        self._users, self._row_of = Jagged(np.int32), {}
        lengths, (recordings, _) = self._pushed.gather(users)
        self._index(np.repeat(users, lengths), recordings)

    def encode(self, entries: Entries) -> list[bytes]:
        """The record of each of ``entries.users``."""
        return _encode(entries.lengths, entries.recordings, entries.at)

    def records(self, users: I64) -> list[bytes]:
        """The records of users as they stand; empty for a user never pushed."""
        lengths, (recordings, at) = self._pushed.gather(users)
        records = _encode(lengths, recordings, at)
        return [record if len(record) > 1 else b"" for record in records]

    def _index(self, users: I64, recordings: U64) -> None:
        each, which = np.unique(recordings, return_inverse=True)
        rows = [self._row_of.setdefault(recording, len(self._row_of)) for recording in each.tolist()]
        self._users.append(np.asarray(rows, np.int64)[which], [users.astype(np.int32)])


def _encode(lengths: I64, recordings: U64, at: NDArray[np.uint32]) -> list[bytes]:
    entries = np.empty(len(recordings), PUSHED)
    entries["recording"], entries["at"] = recordings, at
    packed = entries.tobytes()
    ends = np.cumsum(lengths) * PUSHED.itemsize
    starts = ends - lengths * PUSHED.itemsize
    return [_VERSION + packed[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
