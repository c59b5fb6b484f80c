"""Who asked to be forgotten, and when?

That much must be remembered: inputs from before the request arrive late, again, or out of a retained topic, and must
not bring the user back. What is remembered is a keyed hash of the id and the time, for good; without the key it tells
nobody's name.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from targeting.types import F64

_TIME = struct.Struct("<d")
_VERSION = b"\x01"


class Erasures:
    """The markers of one partition.

    Args:
        key: of the keyed hash, up to 64 bytes; another key does not find the markers again.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._times: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._times)

    def marker(self, user_id: str) -> bytes:
        """16 bytes of keyed BLAKE2b."""
        return blake2b(user_id.encode(), digest_size=16, key=self._key).digest()

    def since(self, user_ids: Sequence[str]) -> F64:
        """The moment of each user's latest erasure, float64 (n,), Unix seconds; minus infinity for who never asked."""
        if not self._times:
            return np.full(len(user_ids), -np.inf)
        times = self._times
        return np.fromiter((times.get(self.marker(each), -np.inf) for each in user_ids), np.float64, len(user_ids))

    def set(self, marker: bytes, time: float) -> None:
        self._times[marker] = time

    def load(self, marker: bytes, record: bytes) -> None:
        """One marker, read back.

        Raises:
            ValueError: a record of another version or of broken length.
        """
        if record[:1] != _VERSION or len(record) != 1 + _TIME.size:
            raise ValueError(f"an erasure record of {len(record)} bytes, version {record[:1]!r}")
        self._times[marker] = _TIME.unpack(record[1:])[0]

    @staticmethod
    def encode(time: float) -> bytes:
        return _VERSION + _TIME.pack(time)

    def records(self) -> list[tuple[bytes, bytes]]:
        """All markers and their records."""
        return [(marker, self.encode(time)) for marker, time in self._times.items()]
