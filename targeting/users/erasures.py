"""Who asked to be forgotten, and when; and who allows no profiling, which is an erasure without an end.

That much must be remembered: inputs from before the request arrive late, again, or out of a retained topic, and must
not bring the user back. What is remembered is a keyed hash of the id and the time, for good; without the key it tells
nobody's name.

Of users who allow no profiling nothing counts, whenever it was heard. Once they allow it again, they are as if erased
then. That they objected is remembered, so that records that come late do not undo it. Of users who never object nothing
is kept for it.

The record of a marker names the key by its fingerprint: with another key nobody would be found again, and everybody who
came back would be erased once more. While a key is being replaced the former one is valid, too; a marker is made anew
with the current one when its user is named.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from hashlib import blake2b
from math import inf
from typing import NamedTuple

import numpy as np

from targeting.types import F64

# Version 1 names no key: it was written before keys had fingerprints, with the only key that there was. Version 3 is of
# who objected to profiling at least once.
_TIME = struct.Struct("<d")
_MARKER = struct.Struct("<dd?I")
_UNSIGNED, _SIGNED, _OBJECTED = b"\x01", b"\x02", b"\x03"
_FINGERPRINT = 8

# Seconds. The ids of pushes tell erasures apart by whole microseconds (:func:`targeting.types.push_id`); rounding takes
# less than one of these.
_APART = 2e-6


def fingerprint(key: bytes) -> bytes:
    """8 bytes that tell keys apart, and nothing of the key."""
    return blake2b(b"coldstart erasure key", digest_size=_FINGERPRINT, key=key).digest()


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


class Marker(NamedTuple):
    """What is remembered of a user.

    Attributes:
        erased: up to when everything is forgotten, Unix seconds; 0: the user objects, and was never erased.
        said: when it was last said whether profiling is allowed, Unix seconds; 0: it was never said that it is not.
        objects: whether it is not allowed.
        returns: how often it was allowed again.
    """

    erased: float
    said: float = 0.0
    objects: bool = False
    returns: int = 0

    @property
    def since(self) -> float:
        """Up to when nothing counts, Unix seconds; infinity: until profiling is allowed again.

        Later with every return, also where an erasure asked for lies ahead of it: a recording that was pushed may come
        again, and its push must have another id.
        """
        if self.objects:
            return inf
        # A sum would be an object of its own beside the time, of everybody who was ever erased.
        return self.erased + self.returns * _APART if self.returns else self.erased

    def erase(self, time: float) -> Marker:
        """The same user, who asks to be forgotten up to ``time``."""
        return self._replace(erased=max(self.erased, time))

    def says(self, time: float, allowed: bool) -> Marker:
        """The same user, who said at ``time`` whether profiling is allowed.

        What was said before the newest that is known changes nothing; of two at the same time the objection stands.
        Who never objected is not remembered for allowing it.
        """
        if not allowed:
            outdated = time < self.said or (time == self.said and self.objects)
            return self if outdated else self._replace(said=time, objects=True)
        if time <= self.said or not self.said:
            return self
        if not self.objects:
            return self._replace(said=time)
        return Marker(max(self.erased, time), time, objects=False, returns=self.returns + 1)

    def joined(self, other: Marker) -> Marker:
        """Both in one, where two keys remember one user."""
        said, objects = max((self.said, self.objects), (other.said, other.objects))
        return Marker(max(self.erased, other.erased), said, objects, max(self.returns, other.returns))


NEVER = Marker(0.0)
"""Of who neither asked to be forgotten nor objected."""


class Erasures:
    """The markers of one partition.

    Args:
        key: of the keyed hash, up to 64 bytes; another key does not find the markers again.
        former: keys of markers that were made before this one was in use.
    """

    def __init__(self, key: bytes, former: Iterable[bytes] = ()) -> None:
        self._keys = list(dict.fromkeys([key, *former]))
        self._own = fingerprint(key)
        self._times: dict[bytes, float] = {}  # Marker.since
        self._objected: dict[bytes, Marker] = {}
        """Whole markers, of those alone who objected at least once."""
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

    @property
    def objected(self) -> int:
        """How many users objected to profiling at least once."""
        return len(self._objected)

    def markers(self, user_id: str) -> list[bytes]:
        """The marker by every key, the current one first."""
        return [_marker(user_id, key) for key in self._keys]

    def of(self, user_id: str) -> Marker:
        """What is remembered of a user; :data:`NEVER`: nothing."""
        found = (self._whole(each) for each in self.markers(user_id) if each in self._times)
        return reduce(Marker.joined, found, NEVER)

    def since(self, user_ids: Sequence[str]) -> F64:
        """Up to when nothing of each user counts, float64 (n,), Unix seconds: their latest erasure, minus infinity for
        who never asked, infinity for who allows no profiling."""
        if not self._times:
            return np.full(len(user_ids), -np.inf)
        times, found = self._times, np.full(len(user_ids), -np.inf)
        for key in self._keys if self._others else self._keys[:1]:
            of_key = (times.get(_marker(each, key), -np.inf) for each in user_ids)
            np.maximum(found, np.fromiter(of_key, np.float64, len(user_ids)), out=found)
        return found

    def set(self, hashed: bytes, marker: Marker) -> None:
        """Remembers a marker under its user's hash by the current key."""
        self._times[hashed] = marker.since
        if marker.said:
            self._objected[hashed] = marker
        self._others.pop(hashed, None)

    def drop(self, hashed: bytes) -> None:
        self._times.pop(hashed, None)
        self._objected.pop(hashed, None)
        self._others.pop(hashed, None)

    def renewed(self, user_ids: Iterable[str]) -> tuple[list[bytes], dict[bytes, Marker]]:
        """The markers that are to go, and those of the current key that take their place.

        Of the users that are named; and where there is but one key, of all whose record does not name it.
        """
        gone: list[bytes] = []
        new: dict[bytes, Marker] = {}
        if not self._others:
            return gone, new
        if len(self._keys) == 1:
            return gone, {marker: self._whole(marker) for marker in self._others}
        for user in dict.fromkeys(user_ids):
            markers = self.markers(user)
            if any(marker in self._others for marker in markers):
                there = [marker for marker in markers if marker in self._times]
                gone += [marker for marker in there if marker != markers[0]]
                new[markers[0]] = self.of(user)
        return gone, new

    def load(self, hashed: bytes, record: bytes | None) -> None:
        """The marker of a user's hash, read back; None: it is gone.

        Raises:
            ValueError: a record of another version or of broken length.
        """
        if record is None:
            self.drop(hashed)
            return
        marker, of = _decode(record)
        self.set(hashed, marker)
        if of != self._own:
            self._others[hashed] = of

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

    def encode(self, marker: Marker) -> bytes:
        """The record of a marker of the current key."""
        return _encode(marker, self._own)

    def records(self) -> list[tuple[bytes, bytes]]:
        """All markers and their records."""
        return [(each, _encode(self._whole(each), self._others.get(each, self._own))) for each in self._times]

    def _whole(self, hashed: bytes) -> Marker:
        """A marker that is remembered."""
        return self._objected.get(hashed) or Marker(self._times[hashed])


def _marker(user_id: str, key: bytes) -> bytes:
    return blake2b(user_id.encode(), digest_size=16, key=key).digest()


def _encode(marker: Marker, of: bytes) -> bytes:
    if marker.said:
        return _OBJECTED + _MARKER.pack(*marker) + of
    return (_SIGNED if of else _UNSIGNED) + _TIME.pack(marker.erased) + of


def _decode(record: bytes) -> tuple[Marker, bytes]:
    """What a record says, and the fingerprint of its key; empty: it is not told.

    Raises:
        ValueError: a record of another version or of broken length.
    """
    version, form = record[:1], _MARKER if record[:1] == _OBJECTED else _TIME
    of = record[1 + form.size :]
    if (
        version not in (_UNSIGNED, _SIGNED, _OBJECTED)
        or len(record) < 1 + form.size
        or len(of) != (0 if version == _UNSIGNED else _FINGERPRINT)
    ):
        raise ValueError(f"an erasure record of {len(record)} bytes, version {version!r}")
    return Marker(*form.unpack_from(record, 1)), of
