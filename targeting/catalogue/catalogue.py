"""The songs, and the spaces that their vectors lie in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, repeat
from typing import Protocol
from weakref import WeakSet

import numpy as np

from targeting.arrays.id_table import I64, U64, HashTable, grow, hash64
from targeting.arrays.vector_table import directions
from targeting.calibration import Calibration
from targeting.catalogue.embedding_space import EmbeddingSpace
from targeting.types import F32, Match

# Songs below which looking for those that nobody needs is not worth it: a megabyte or two.
_FEW = 1 << 14


class Holder(Protocol):
    """Who refers to songs by their slots."""

    def songs_held(self) -> I64:
        """The slots that must stay, int64, in any order, some perhaps more than once."""
        ...

    def songs_gone(self, slots: I64) -> None:
        """None of these, int64, ascending, is held; other songs will get them."""
        ...


class Catalogue:
    """The songs that anybody heard or that can be retrieved; shared by all partitions of a process.

    A song is its 64-bit hash: that is what histories are stored with, 8 bytes instead of an id. Among a
    million songs two share a hash with a probability of 3e-8; they would then count as one song here.

    A song known by listens alone has no vector; its row is zero. One space is in use; another may be coming: it is
    held beside until every audience has vectors in it (:meth:`targeting.users.taste_vectors.TasteVectors.prepare`), and
    then :meth:`switch` puts it in use for all at once. Vectors are kept stretched along the axes of their space
    (:mod:`targeting.catalogue.whitening`), which the songs that come first with it decide.
    ``version`` counts the changes of vectors, so that what is derived from them knows when it is stale.
    ``calibration`` turns scores in the space in use into chances; a new space starts without one.

    A song that has no vector and that no holder refers to is forgotten by the next :meth:`sweep`, and its slot used
    again. Sweeping costs what the table costs and is due when twice as many songs are known as were left by the last.
    """

    def __init__(self) -> None:
        self.version = 0
        self.calibration: Calibration | None = None
        self.in_use = EmbeddingSpace(None, np.zeros((0, 0), np.float32), 0)
        self.to_come: EmbeddingSpace | None = None
        self._slot_of_id: dict[str, int] = {}
        self._slot_of_hash = HashTable()
        self._hashes = np.zeros(0, np.uint64)
        self._slots = 0
        self._free = np.zeros(0, np.int64)
        self._holders: WeakSet[Holder] = WeakSet()
        self._planning: WeakSet[Holder] = WeakSet()
        self._sweep_at = _FEW
        self.sweeps = 0

    def __len__(self) -> int:
        """One more than the highest slot ever given."""
        return self._slots

    @property
    def used(self) -> int:
        """The number of songs that are known."""
        return len(self._slot_of_hash)

    @property
    def space(self) -> str | None:
        """The name of the space in use; None before there is one."""
        return self.in_use.name

    @property
    def coming(self) -> str | None:
        """The name of the coming space; None when there is none."""
        return self.to_come.name if self.to_come else None

    @property
    def dimension(self) -> int:
        """Of the space in use; 0 before there is one."""
        return self.in_use.dimension

    def vectors(self, slots: I64) -> F32:
        """Unit vectors stretched along the axes of the space in use, float32 (n, d); zero where unknown."""
        return self.in_use.vectors(slots)

    def along_axes(self, vector: F32) -> F32:
        """A vector (d,) of the space in use, stretched along its axes, at unit length; zero stays zero.

        Raises:
            ValueError: another number of dimensions, a NaN or an infinity.
        """
        return np.asarray(self.in_use.directions(vector[None])[0], np.float32)

    def comparable(self, match: Match) -> bool:
        """Whether a new song's vector lies in the space in use."""
        return match.space == self.space and len(match.vector) == self.dimension

    def slots(self, ids: Sequence[str]) -> I64:
        """The slot of each id, int64 (n,); ids that are new become known."""
        found = self._find(ids)
        new = list(dict.fromkeys(ids[at] for at in np.flatnonzero(found < 0).tolist()))
        if not new:
            return found
        self._slot_of_id.update(zip(new, self.slots_of_hashes(hash64(new)).tolist(), strict=True))
        return self._find(ids)

    def slots_of_hashes(self, hashes: U64) -> I64:
        """The slot of each :func:`targeting.arrays.id_table.hash64`, int64 (n,); hashes that are new become known."""
        slots = self._slot_of_hash.find(hashes)
        unknown = np.flatnonzero(slots < 0)
        if len(unknown):
            new, first = np.unique(hashes[unknown], return_index=True)
            # In order of appearance: what is heard together lies together.
            new = new[np.argsort(first)]
            given = self._next(len(new))
            self._slot_of_hash.add(new, given)
            grow(self._hashes, len(self))
            self.in_use.grow(len(self))
            if self.to_come:
                self.to_come.grow(len(self))
            self._hashes[given] = new
            slots[unknown] = self._slot_of_hash.find(hashes[unknown])
        return slots

    def find(self, ids: Sequence[str]) -> I64:
        """The slot of each id, int64 (n,); -1 where unknown. Nothing becomes known."""
        found = self._find(ids)
        unnamed = np.flatnonzero(found < 0)
        if len(unnamed):
            # A song restored from a history is known by its hash before anybody names it.
            found[unnamed] = self._slot_of_hash.find(hash64([ids[at] for at in unnamed.tolist()]))
        return found

    def held_by(self, holder: Holder) -> None:
        """From now on, until it is gone, a holder is asked before a song is forgotten."""
        self._holders.add(holder)

    def plans(self, holder: Holder) -> None:
        """A holder begins to plan with slots that it does not hold yet. What it planned before is dropped.

        This is the moment at which songs are forgotten, if that is due and no other holder is planning.
        """
        self._planning.discard(holder)
        if self.used >= self._sweep_at and not self._planning:
            self.sweep()
        self._planning.add(holder)

    def planned(self, holder: Holder) -> None:
        """It holds what it planned with."""
        self._planning.discard(holder)

    def sweep(self) -> None:
        """Forgets the songs that nobody needs. Slots that were looked up before, and are not held, mean nothing now."""
        needed = self.in_use.has_vector(len(self))
        if self.to_come:
            needed |= self.to_come.has_vector(len(self))
        holders = list(self._holders)
        for holder in holders:
            needed[holder.songs_held()] = True
        known = np.ones(len(self), np.bool_)
        known[self._free] = False
        gone = np.flatnonzero(known & ~needed)
        if len(gone):
            self._forget(gone, np.flatnonzero(known & needed))
            for holder in holders:
                holder.songs_gone(gone)
        self.sweeps += 1
        self._sweep_at = max(_FEW, 2 * self.used)

    def _forget(self, gone: I64, kept: I64) -> None:
        self._free = np.union1d(self._free, gone)
        self._hashes[gone] = 0
        self._slot_of_hash = HashTable()
        self._slot_of_hash.add(self._hashes[kept], kept)
        stays = np.zeros(len(self), np.bool_)
        stays[kept] = True
        named = np.fromiter(self._slot_of_id.values(), np.int64, len(self._slot_of_id))
        self._slot_of_id = dict(compress(self._slot_of_id.items(), stays[named].tolist()))

    def _next(self, count: int) -> I64:
        """Slots for so many new songs: free ones first."""
        free, self._free = self._free[:count], self._free[count:]
        first, self._slots = self._slots, self._slots + count - len(free)
        return np.concatenate([free, np.arange(first, self._slots)])

    def hashes(self, slots: I64) -> U64:
        """The :func:`targeting.arrays.id_table.hash64` of the song in each slot, uint64 (n,); 0: a free slot."""
        return self._hashes[slots]

    def set_vectors(self, space: str, ids: Sequence[str], vectors: F32) -> None:
        """Gives songs their vectors in the space in use.

        Another space than the one in use takes its place at once, without the old vectors, and drops a coming one:
        right for the first space; later, every audience would be computed anew before it answers (:meth:`prepare`).
        The first call with a space decides its axes, so it should bring the whole catalogue.

        Args:
            space: its name.
            ids: n songs, which become known; of one that is there twice, the last vector counts.
            vectors: float32 (n, d) in the space; rows are brought to unit length.

        Raises:
            ValueError: wrong shape, a NaN or an infinity; nothing changes then.
        """
        units = _units(ids, vectors, self.in_use if space == self.space else None)
        slots = self.slots(ids)
        if space != self.space:
            self.in_use, self.to_come, self.calibration = EmbeddingSpace(space, units, len(self)), None, None
        self._put(self.in_use, slots, units)

    def add(self, space: str, ids: Sequence[str], vectors: F32) -> None:
        """Gives a few more songs their vectors, or new ones, in the space in use or the coming one.

        Costs what these songs cost, whatever the catalogue's size; only their listeners become stale.

        Args:
            space: its name.
            ids: n songs, which become known; of one that is there twice, the last vector counts.
            vectors: float32 (n, d) in the space; rows are brought to unit length.

        Raises:
            ValueError: neither the space in use nor the coming one; wrong shape, a NaN or an infinity. Nothing
                changes then.
        """
        for each in (self.in_use, self.to_come):
            if each and each.name == space:
                units = _units(ids, vectors, each)
                self._put(each, self.slots(ids), units)
                return
        raise ValueError(f"space {space!r} is neither in use ({self.space!r}) nor coming ({self.coming!r})")

    def prepare(self, space: str, ids: Sequence[str], vectors: F32) -> None:
        """Holds a coming space beside the one in use; replaces another coming one.

        The first call decides the space's axes, so it should bring the whole catalogue; of a space that is coming
        already, vectors are only brought up to date. To prepare the space in use says that it stays: nothing is
        coming any more.

        Args:
            space: its name.
            ids: n songs, which become known; of one that is there twice, the last vector counts.
            vectors: float32 (n, d) in the space; rows are brought to unit length.

        Raises:
            ValueError: wrong shape, a NaN or an infinity; nothing changes then.
        """
        if space == self.space:
            self.set_vectors(space, ids, vectors)
            self.to_come = None
            return
        units = _units(ids, vectors, self.to_come if space == self.coming else None)
        slots = self.slots(ids)
        if self.to_come is None or space != self.coming:
            self.to_come = EmbeddingSpace(space, units, len(self))
        self._put(self.to_come, slots, units)

    def switch(self) -> None:
        """Puts the coming space in use, for all audiences at once; each takes over at its next ``follow_songs``.

        An audience whose ``prepare`` was not done then computes what it lacks.

        Raises:
            ValueError: no space is coming.
        """
        if self.to_come is None:
            raise ValueError("no space is coming")
        self.in_use, self.to_come, self.calibration = self.to_come, None, None
        self.version += 1

    def _put(self, space: EmbeddingSpace, slots: I64, units: F32) -> None:
        self.version += 1
        space.put(slots, units, self.version)

    def _find(self, ids: Sequence[str]) -> I64:
        return np.fromiter(map(self._slot_of_id.get, ids, repeat(-1)), np.int64, len(ids))


def _units(ids: Sequence[str], vectors: F32, space: EmbeddingSpace | None) -> F32:
    """Vectors brought to unit length, float32 (n, d), if they are one for each id and fit the space."""
    rows = np.asarray(vectors, np.float32)
    if rows.ndim != 2 or len(rows) != len(ids):
        raise ValueError(f"vectors of shape {rows.shape} for {len(ids)} songs")
    if not np.isfinite(rows).all():
        raise ValueError("vectors hold a NaN or an infinity")
    if space and rows.shape[1] != space.dimension:
        raise ValueError(f"space {space.name!r} has {space.dimension} dimensions, the vectors have {rows.shape[1]}")
    return directions(rows)
