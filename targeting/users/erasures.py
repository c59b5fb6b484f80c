"""Who asked to be forgotten, and when.

That much must be remembered: inputs from before the request arrive late, again, or out of a retained topic, and must
not bring the user back. What is remembered is a keyed hash of the id and the time, for good; without the key it tells
nobody's name.

The record of a marker names the key by its fingerprint: with another key nobody would be found again, and everybody who
came back would be erased once more. While a key is being replaced the former one is valid, too; a marker is made anew
with the current one when its user is named.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from targeting.types import F64

# Version 1 names no key: it was written before keys had fingerprints, with the only key that there was.
_TIME = struct.Struct("<d")
_UNSIGNED, _SIGNED = b"\x01", b"\x02"


def fingerprint(key: bytes) -> bytes:
    """8 bytes that tell keys apart, and nothing of the key."""
    return blake2b(b"coldstart erasure key", digest_size=8, key=key).digest()


class ForeignKeyError(Exception):
    """Users are remembered with keys that are not known here.

    Attributes:
        found: how many markers, by the fingerprint of their key.
        known: the fingerprints of the keys that are known, the current one first.
    """

    def __init__(self, found: dict[bytes, int], known: Sequence[bytes]) -> None:
        super().__init__(f"{sum(found.values())} erased users are remembered with unknown keys")
        self.found = found
        self.known = known


class Erasures:
    """The markers of one partition.

    Args:
        key: of the keyed hash, up to 64 bytes; another key does not find the markers again.
        former: keys of markers that were made before this one was in use.
    """

    def __init__(self, key: bytes, former: Iterable[bytes] = ()) -> None:
        self._keys = list(dict.fromkeys([key, *former]))
        self._own = fingerprint(key)
        self._times: dict[bytes, float] = {}
        self._others: dict[bytes, bytes] = {}
        """Markers not known to be of the current key, and the fingerprints of their keys; empty: not told."""

    def __len__(self) -> int:
        return len(self._times)

    @property
    def known(self) -> list[bytes]:
        """The fingerprints of the keys, the current one first."""
        return [fingerprint(key) for key in self._keys]

    def marker(self, user_id: str) -> bytes:
        """16 bytes of BLAKE2b, keyed with the current key."""
        return _marker(user_id, self._keys[0])

    def since(self, user_ids: Sequence[str]) -> F64:
        """The moment of each user's latest erasure, float64 (n,), Unix seconds; minus infinity for who never asked."""
        if not self._times:
            return np.full(len(user_ids), -np.inf)
        times, found = self._times, np.full(len(user_ids), -np.inf)
        for key in self._keys if self._others else self._keys[:1]:
            of_key = (times.get(_marker(each, key), -np.inf) for each in user_ids)
            np.maximum(found, np.fromiter(of_key, np.float64, len(user_ids)), out=found)
        return found

    def set(self, marker: bytes, time: float) -> None:
        """Remembers a marker of the current key."""
        self._times[marker] = time
        self._others.pop(marker, None)

    def drop(self, marker: bytes) -> None:
        self._times.pop(marker, None)
        self._others.pop(marker, None)

    def renewed(self, user_ids: Iterable[str]) -> tuple[list[bytes], dict[bytes, float]]:
        """The markers that are to go, and those of the current key that take their place.

        Of the users that are named; and where there is but one key, of all whose record does not name it.
        """
        gone: list[bytes] = []
        new: dict[bytes, float] = {}
        if not self._others:
            return gone, new
        if len(self._keys) == 1:
            return gone, {marker: self._times[marker] for marker in self._others}
        for user in dict.fromkeys(user_ids):
            markers = [_marker(user, key) for key in self._keys]
            if any(marker in self._others for marker in markers):
                there = [marker for marker in markers if marker in self._times]
                gone += [marker for marker in there if marker != markers[0]]
                new[markers[0]] = max(self._times[marker] for marker in there)
        return gone, new

    def load(self, marker: bytes, record: bytes | None) -> None:
        """One marker, read back; None: it is gone.

        Raises:
            ValueError: a record of another version or of broken length.
        """
        if record is None:
            self.drop(marker)
            return
        signed = record[:1] == _SIGNED
        if not (signed or record[:1] == _UNSIGNED) or len(record) != 1 + _TIME.size + len(self._own) * signed:
            raise ValueError(f"an erasure record of {len(record)} bytes, version {record[:1]!r}")
        self.set(marker, _TIME.unpack_from(record, 1)[0])
        if (of := record[1 + _TIME.size :]) != self._own:
            self._others[marker] = of

    def unknown(self) -> dict[bytes, int]:
        """How many markers were made with keys that are not known here, by fingerprint."""
        known = {b"", *self.known}
        return dict(Counter(of for of in self._others.values() if of not in known))

    def loaded(self) -> None:
        """All markers are read back.

        Raises:
            ForeignKeyError: some were made with a key that is not known here.
        """
        if unknown := self.unknown():
            raise ForeignKeyError(unknown, self.known)

    def encode(self, time: float) -> bytes:
        """The record of a marker of the current key."""
        return _encode(time, self._own)

    def records(self) -> list[tuple[bytes, bytes]]:
        """All markers and their records."""
        return [(marker, _encode(time, self._others.get(marker, self._own))) for marker, time in self._times.items()]


def _marker(user_id: str, key: bytes) -> bytes:
    return blake2b(user_id.encode(), digest_size=16, key=key).digest()


def _encode(time: float, of: bytes) -> bytes:
    return (_SIGNED if of else _UNSIGNED) + _TIME.pack(time) + of
