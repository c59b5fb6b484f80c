"""Each user's vector: the sum of the vectors of the songs in the history, or one from outside.

A song's weight halves for every half-life that passed since it was last heard. A user's vector may also come from
outside: it then takes the place of the sum. Derived from histories, and never in the changelog.

What is summed is weighed forward (Cormode et al., "Forward decay", ICDE 2009): a listen weighs more the later it is,
and what was summed before need not change. Only directions are ever used, so that the common factor does not matter.
Where vectors are kept as halves, what is added to is rounded each time: a history is summed anew before that shows.

While another space is coming (:meth:`targeting.catalogue.catalogue.Catalogue.prepare`), vectors in it are made beside
those in use, a bounded piece of work at a time, and take their place once the songs switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting.arrays.id_table import I64, grow
from targeting.arrays.vector_table import ROUNDING, VectorTable, directions
from targeting.catalogue.catalogue import Catalogue
from targeting.catalogue.embedding_space import EmbeddingSpace
from targeting.types import F32

# Days in which a song's weight in the user's vector halves; from the user's point of view only differences count.
HALF_LIFE = 180.0

# Weights are powers of two around 2024. Beyond 50 half-lives from there they stay as they are: the squares of a sum of
# them must be no denormal and no infinity in float32. Listens without a date (second 0) all weigh the same.
_LANDMARK = 1_704_067_200.0
_FARTHEST = 50.0

# Users whose vectors are computed at once: the histories and vectors of a block stay in the cache.
BLOCK = 4096

# How far a vector may be off, as a share of its length, and a cosine with it: less than anybody would notice. Halves
# round by a quarter of it at most, each time.
_OFF = 0.002

# Entries of histories summed in one call of `prepare`: some 30 ms.
AT_ONCE = 200_000


class Heard(Protocol):
    """What users listened to."""

    def songs_of(self, users: I64) -> tuple[I64, NDArray[np.int32], NDArray[np.uint32]]:
        """Lengths int64 (n,), song slots and times of the histories, one after the other."""
        ...

    def heard(self, users: I64) -> I64:
        """How many songs each user's history holds, int64 (n,)."""
        ...

    def listeners_of_any(self, songs: I64) -> NDArray[np.int32]:
        """The rows of the listeners of these songs, with repetitions."""
        ...


@dataclass(frozen=True, slots=True)
class VectorChanges:
    """What a batch of listens does to vectors.

    Attributes:
        users: int64 (m,), rows, ascending.
        at, songs, change: int64, int64, float32: by how much each (user, song) pair's weight changes, with the user as
            an index into ``users``.
        before, after: float32 (m, d), the users' vectors, of any length, without the batch and with it; the same for
            a user whose vector comes from outside.
        errors: float32 (m,), how far ``after`` may be off by then, as a share of its length; of halves.
        outside: bool (m,), whose vector comes from outside.
        version: of the songs' vectors that these were computed from.
    """

    users: I64
    at: I64
    songs: I64
    change: F32
    before: F32
    after: F32
    errors: F32
    outside: NDArray[np.bool_]
    version: int


@dataclass(frozen=True, slots=True)
class OutsideChanges:
    """Vectors from outside, along the axes of the space in use.

    Attributes:
        users: int64 (m,), rows, each of them once.
        after: float32 (m, d), unit vectors or zero.
        space: the one they lie in.
    """

    users: I64
    after: F32
    space: EmbeddingSpace


@dataclass(slots=True)
class _Next:
    """The vectors in the coming space: of the users that are ``made``, bool (n,)."""

    space: EmbeddingSpace
    vectors: VectorTable
    made: NDArray[np.bool_]


class TasteVectors:
    """The vectors of one partition's users, by row.

    Args:
        half_life: in days; infinity: songs count the same whenever they were heard.
        half: vectors are kept as float16.
    """

    def __init__(self, songs: Catalogue, heard: Heard, half_life: float, half: bool) -> None:
        self._songs = songs
        self._heard = heard
        self._half_life = half_life * 86_400
        self._half = half
        self._space = songs.in_use
        self._seen_version = songs.version
        self._rows = 0
        self._vectors = VectorTable(0, self._space.dimension, half)
        self._outside = np.zeros(0, bool)
        self._next: _Next | None = None

    @property
    def nbytes(self) -> int:
        coming = self._next.vectors.nbytes if self._next else 0
        return self._vectors.nbytes + coming

    @property
    def space(self) -> EmbeddingSpace:
        """That of the vectors."""
        return self._space

    def grow(self, rows: int) -> None:
        """Room for so many users."""
        self._rows = max(self._rows, rows)
        self._vectors.grow(self._rows)
        grow(self._outside, self._rows)
        if self._next:
            self._next.vectors.grow(self._rows)
            grow(self._next.made, self._rows)

    def of(self, users: I64) -> F32:
        """Unit user vectors float32 (n, d); zero for a user without a song with a vector."""
        return self._vectors.units(users)

    def cosines(self, users: I64, vector: F32) -> F32:
        """The cosine of each user's vector with a unit vector (d,), float32 (n,); 0 where a user has none."""
        return self._vectors.cosines(users, vector)

    def everybody(self) -> I64:
        """The rows of all users with a vector, int64, ascending."""
        return self._vectors.written()

    def are_outside(self, users: I64) -> NDArray[np.bool_]:
        """Whose vectors come from outside, bool (n,)."""
        known = users < len(self._outside)
        outside = np.zeros(len(users), bool)
        outside[known] = self._outside[users[known]]
        return outside

    def weights(self, times: NDArray[np.uint32]) -> F32:
        """What a song last heard at these Unix seconds weighs in its listener's vector, float32 (n,)."""
        half_lives = (times - _LANDMARK) / self._half_life
        return np.asarray(np.exp2(np.clip(half_lives, -_FARTHEST, _FARTHEST)), np.float32)

    def plan(
        self,
        users: I64,
        at: I64,
        songs: I64,
        change: F32,
        forgotten: NDArray[np.bool_],
        histories: tuple[I64, NDArray[np.int32], NDArray[np.uint32]],
    ) -> VectorChanges:
        """What changed histories do to vectors, computed without doing it.

        Args:
            users: int64 (m,), rows, ascending.
            at, songs, change: as in :class:`VectorChanges`.
            forgotten: bool (m,), who is forgotten before this is applied.
            histories: lengths, slots and times of the new histories, one after the other.
        """
        outside = self.are_outside(users) & ~forgotten
        before = self._vectors.read(users)
        before[forgotten] = 0
        own = ~outside[at] if outside.any() else slice(None)
        after, errors = self._added(self._space, before, self._vectors.errors(users), at[own], songs[own], change[own])
        off = ~outside & _off(errors)
        if off.any():
            lengths, slots, times = histories
            of_off = np.repeat(off, lengths)
            after[off] = self._sums(self._space, lengths[off], slots[of_off], times[of_off])
            errors[off] = 0
        return VectorChanges(users, at, songs, change, before, after, errors, outside, self._seen_version)

    def plan_outside(self, users: I64, vectors: F32) -> OutsideChanges:
        """Vectors from outside for users, computed without setting them: they count instead of the sums.

        Args:
            users: int64 (n,), rows, each of them once.
            vectors: float32 (n, d) in the space in use; brought along its axes and to unit length.

        Raises:
            ValueError: wrong shape, a NaN or an infinity.
        """
        self.follow_songs()
        if len(users) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors for {len(users)} users")
        return OutsideChanges(users, self._space.directions(vectors), self._space)

    def preview(self, planned: VectorChanges | OutsideChanges) -> tuple[I64, F32, F32]:
        """The users that a plan touches, and their unit vectors as they are and as they will be.

        Returns:
            int64 (m,), float32 (m, d), float32 (m, d); zero for a user without a song with a vector.
        """
        if isinstance(planned, VectorChanges):
            return planned.users, directions(planned.before), directions(planned.after)
        return planned.users, self._vectors.units(planned.users), planned.after

    def apply(self, planned: VectorChanges | OutsideChanges) -> None:
        """Takes over a plan; histories have changed already. Outside vectors of another space are dropped."""
        users = planned.users
        if isinstance(planned, OutsideChanges):
            if planned.space is self._space:
                self._vectors.write(users, planned.after)
                self._outside[users] = True
            return
        if self._next:
            self._add_next(self._next, planned)
        if planned.version != self._seen_version or (planned.outside != self._outside[users]).any():
            self._make(users)
        elif not planned.outside.any():
            self._vectors.write(users, planned.after, planned.errors)
        else:
            own = ~planned.outside
            self._vectors.write(users[own], planned.after[own], planned.errors[own])

    def drop_outside(self, users: I64) -> None:
        """Gives users the vector of their history again; nothing changes for those who have it."""
        self.follow_songs()
        dropped = users[self.are_outside(users)]
        self._outside[dropped] = False
        self._make(dropped)

    def forget(self, users: I64) -> None:
        """Erases the vectors of users, and whether they came from outside. No bytes of them stay."""
        self._vectors.wipe(users)
        self._outside[users[users < len(self._outside)]] = False
        if self._next:
            self._next.vectors.wipe(users)

    def make_anew(self, users: I64, lengths: I64, songs: NDArray[np.int32], times: NDArray[np.uint32]) -> None:
        """Writes the vectors that these histories, one after the other, add up to."""
        self._next = None
        self._vectors.write(users, self._sums(self._space, lengths, songs, times))

    def follow_songs(self) -> None:
        """Brings user vectors up to the songs' vectors, where those changed since the last call.

        A space that was prepared takes over as it is, save for users touched since; one that was not has every user
        computed anew. Either way vectors from outside are gone with their space.
        """
        if self._seen_version == self._songs.version:
            return
        space, coming = self._songs.in_use, self._next
        if coming and coming.space not in (space, self._songs.to_come):
            coming = None  # it was called off
        if coming:
            users = self._heard.listeners_of_any(coming.space.changed_since(self._seen_version))
            coming.made[users] = False
        if space is self._space:
            stale: NDArray[np.integer] = self._heard.listeners_of_any(space.changed_since(self._seen_version))
        elif coming and coming.space is space:
            stale = np.flatnonzero(~coming.made[: self._rows])
            self._vectors, coming = coming.vectors, None
        else:
            self._vectors = VectorTable(self._rows, space.dimension, self._half)
            stale = np.arange(self._rows)
        if space is not self._space:
            self._outside[:] = False
        self._space, self._next, self._seen_version = space, coming, self._songs.version
        self._make(np.unique(stale).astype(np.int64))

    def prepare(self, entries: int = AT_ONCE) -> bool:
        """Makes vectors in the coming space, if one is coming, for some more users; to be called until it is true.

        What users listen to meanwhile is added in both spaces; those are made again whose songs get other vectors. So
        it is to be called on until the switch.

        Args:
            entries: of histories that are summed at most, but one user at least.

        Returns:
            whether all users have theirs. The songs may switch once every audience says so in one round.
        """
        self.follow_songs()
        space = self._songs.to_come
        if space is None:
            return True
        if self._next is None:
            table = VectorTable(self._rows, space.dimension, self._half)
            self._next = _Next(space, table, np.zeros(self._rows, bool))
        coming = self._next
        missing = np.flatnonzero(~coming.made[: self._rows])
        most = int(np.searchsorted(np.cumsum(self._heard.heard(missing)), entries, side="right"))
        users = missing[: max(most, 1)]
        self._write_sums(space, coming.vectors, users)
        coming.made[users] = True
        return len(users) == len(missing)

    def _added(
        self, space: EmbeddingSpace, before: F32, errors: F32, at: I64, songs: I64, weights: F32
    ) -> tuple[F32, F32]:
        """Vectors (n, d) with more of some songs, and how far these may be off; ``at`` are indices into them."""
        matrix = sparse.csr_matrix((weights, (at, songs)), shape=(len(before), len(self._songs)))
        after = before + space.sums(matrix)
        return after, errors * _share(before, after) if self._half else errors

    def _add_next(self, coming: _Next, heard: VectorChanges) -> None:
        """Adds what was heard to vectors made in the coming space; those that would be too far off are made again."""
        made = coming.made[heard.users]
        users, some = heard.users[made], made[heard.at]
        at = (np.cumsum(made) - 1)[heard.at[some]]
        before, errors = coming.vectors.read(users), coming.vectors.errors(users)
        after, errors = self._added(coming.space, before, errors, at, heard.songs[some], heard.change[some])
        coming.vectors.write(users, after, errors)
        coming.made[users[_off(errors)]] = False

    def _make(self, users: I64) -> None:
        """Sums the histories of users anew, save where the vector comes from outside."""
        self._write_sums(self._space, self._vectors, users[~self._outside[users]])

    def _write_sums(self, space: EmbeddingSpace, table: VectorTable, users: I64) -> None:
        for start in range(0, len(users), BLOCK):
            block = users[start : start + BLOCK]
            table.write(block, self._sums(space, *self._heard.songs_of(block)))

    def _sums(self, space: EmbeddingSpace, lengths: I64, songs: NDArray[np.int32], times: NDArray[np.uint32]) -> F32:
        """The vectors that histories, one after the other, add up to; float32 (n, d)."""
        return space.sums(self._matrix(lengths, songs, times))

    def _matrix(self, lengths: I64, songs: NDArray[np.int32], times: NDArray[np.uint32]) -> sparse.csr_matrix:
        """Histories as a csr (n, songs) of the songs' weights."""
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return sparse.csr_matrix((self.weights(times), songs, indptr), shape=(len(lengths), len(self._songs)))


def _off(errors: F32) -> NDArray[np.bool_]:
    """Which vectors would be too far off once they are rounded again."""
    return ~(errors + ROUNDING <= _OFF)


def _share(before: F32, after: F32) -> F32:
    """The length of each vector (n, d) as a share of that of another; float32 (n,), infinite or NaN if that is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.vecdot(before, before) / np.vecdot(after, after)
    return np.asarray(np.sqrt(squares), np.float32)
