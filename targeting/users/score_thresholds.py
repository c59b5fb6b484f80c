"""The score that a user asks for before being disturbed.

Users who ignore or dismiss pushes need a higher score, users who open them and listen a lower one (the "interest
boundary" of NetEase's audience targeting). Each user has a threshold: scores are divided by it. It is 2 to the power of
a level that the outcomes of pushes move, that is bounded, and that decays: half of it is gone after 30 days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, grow
from targeting.types import F32, F64, Mark

# Levels, and what moves them. One push opened weighs as much as two ignored, because most pushes are ignored by
# everybody; a dismissal is a plain no.
STEPS: dict[Mark, float] = {
    Mark.OPENED: -0.10,
    Mark.LISTENED: -0.10,
    Mark.COLLECTED: -0.20,
    Mark.EXPIRED: 0.05,
    Mark.DISMISSED: 0.20,
}
# A threshold between a half and two: nobody is lost for good, and nobody gets everything.
HIGHEST = 1.0
HALF_LIFE_S = 30 * 86_400.0

_RECORD = np.dtype([("level", "<f4"), ("at", "<u4")])
_VERSION = b"\x01"


@dataclass(frozen=True, slots=True)
class ThresholdChanges:
    """New levels: rows int64 (n,) ascending, levels float32 (n,), and the times they stand at, uint32 (n,)."""

    users: I64
    levels: F32
    at: NDArray[np.uint32]


class ScoreThresholds:
    """The score thresholds of one partition's users, by row; 1 for who never answered a push."""

    def __init__(self) -> None:
        self._level = np.zeros(0, np.float32)
        self._at = np.zeros(0, np.uint32)

    def thresholds(self, users: I64, now: float) -> F32:
        """What scores of these rows are divided by, float32 (n,), in [1/2, 2]."""
        return np.exp2(self._levels(users, np.full(len(users), now))).astype(np.float32)

    def holds(self, users: I64) -> NDArray[np.bool_]:
        """Which rows have a level, bool (n,)."""
        return self._ats(users) > 0

    def plan(self, users: I64, marks: NDArray[np.uint16], times: F64) -> ThresholdChanges | None:
        """What marks that were set (n,) move, computed without moving it; None where they move nothing."""
        steps = np.zeros(len(users), np.float64)
        for mark, step in STEPS.items():
            steps[(marks & mark) > 0] += step
        moving = np.flatnonzero(steps)
        if not len(moving):
            return None
        each, which = np.unique(users[moving], return_inverse=True)
        at = np.zeros(len(each), np.float64)
        np.maximum.at(at, which, times[moving])
        at = np.maximum(at, self._ats(each))
        levels = self._levels(each, at) + np.bincount(which, steps[moving], len(each))
        return ThresholdChanges(each, np.clip(levels, -HIGHEST, HIGHEST).astype(np.float32), at.astype(np.uint32))

    def apply(self, moved: ThresholdChanges) -> None:
        """Takes over what :meth:`plan` computed on the same state."""
        if len(moved.users):
            for column in (self._level, self._at):
                grow(column, int(moved.users[-1]) + 1)
            self._level[moved.users], self._at[moved.users] = moved.levels, moved.at

    def forget(self, users: I64) -> None:
        """These rows are as if they had never answered."""
        known = users[users < len(self._level)]
        self._level[known], self._at[known] = 0, 0

    def load(self, users: I64, records: Sequence[bytes]) -> None:
        """Writes levels read back from records; an empty record forgets.

        Raises:
            ValueError: a record of another version or of broken length.
        """
        stored = decode(records)
        self.forget(users)
        there = np.fromiter((bool(record) for record in records), np.bool_, len(records))
        order = np.argsort(users[there], kind="stable")
        self.apply(ThresholdChanges(users[there][order], stored["level"][order], stored["at"][order]))

    @staticmethod
    def encode(moved: ThresholdChanges) -> list[bytes]:
        """The record of each of ``moved.users``."""
        return _encode(moved.levels, moved.at)

    def records(self, users: I64) -> list[bytes]:
        """The records of users as they stand; empty for one who never answered."""
        levels, at = np.zeros(len(users), np.float32), np.zeros(len(users), np.uint32)
        known = np.flatnonzero(users < len(self._level))
        levels[known], at[known] = self._level[users[known]], self._at[users[known]]
        return [record if each else b"" for record, each in zip(_encode(levels, at), at.tolist(), strict=True)]

    def _ats(self, users: I64) -> NDArray[np.uint32]:
        at = np.zeros(len(users), np.uint32)
        known = np.flatnonzero(users < len(self._at))
        at[known] = self._at[users[known]]
        return at

    def _levels(self, users: I64, at: F64) -> F64:
        levels = np.zeros(len(users), np.float64)
        known = np.flatnonzero(users < len(self._level))
        rows = users[known]
        age = np.maximum(at[known] - self._at[rows], 0)
        levels[known] = self._level[rows] * np.exp2(-age / HALF_LIFE_S)
        return levels


def _encode(levels: F32, at: NDArray[np.uint32]) -> list[bytes]:
    stored = np.empty(len(levels), _RECORD)
    stored["level"], stored["at"] = levels, at
    packed, size = stored.tobytes(), _RECORD.itemsize
    return [_VERSION + packed[n * size : (n + 1) * size] for n in range(len(levels))]


def decode(records: Sequence[bytes]) -> NDArray[np.void]:
    """``level`` and ``at`` of the records that are not empty.

    Raises:
        ValueError: a record of another version or of broken length.
    """
    for record in records:
        if record and (record[:1] != _VERSION or len(record) != 1 + _RECORD.itemsize):
            raise ValueError(f"a score threshold record of {len(record)} bytes, version {record[:1]!r}")
    return np.frombuffer(b"".join([record[1:] for record in records]), _RECORD)
