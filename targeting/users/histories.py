"""Who heard what, and what is each listener's vector?

One partition's listeners, by row (see :mod:`targeting.arrays.id_table`). What is stored is the history: for each user
the songs with their plays and the time of the last one. Derived from it, and never in the changelog: the
listeners of each song, and each user's vector, the sum of the vectors of the songs in the history, each halved in
weight for every half-life that passed since it was last heard. A user's vector may also come from outside: it then
takes the place of the sum, and the history stays what it is.

What is summed is weighed forward (Cormode et al., "Forward decay", ICDE 2009): a listen weighs more the later it is,
and what was summed before need not change. Only directions are ever used, so that the common factor does not matter.
Where vectors are kept as halves, what is added to is rounded each time: a history is summed anew before that shows.

While another space is coming (:meth:`targeting.catalogue.catalogue.Catalogue.prepare`), vectors in it are made beside
those in use, a bounded piece of work at a time, and take their place once the songs switch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting.arrays.id_table import I64, grow
from targeting.arrays.ragged_array import Jagged
from targeting.arrays.vector_table import ROUNDING, Arena, directions
from targeting.catalogue.catalogue import Catalogue
from targeting.catalogue.embedding_space import EmbeddingSpace
from targeting.types import F32, F64

# A history record: one version byte, then one of these for each song, in the order of the history.
HEARD = np.dtype([("song", "<u8"), ("weight", "<f4"), ("time", "<u4")])
_VERSION = b"\x01"

# Songs a user. More say little about a taste, and one hoarder would outweigh a hundred listeners.
HISTORY = 500

# Days in which a song's weight in the user's vector halves; from the user's point of view only differences count.
HALF_LIFE = 180.0

# Weights are powers of two around 2024. Beyond 50 half-lives from there they stay as they are: the squares of a sum of
# them must be no denormal and no infinity in float32. Listens without a date (second 0) all weigh the same.
_LANDMARK = 1_704_067_200.0
_FARTHEST = 50.0

# Users whose vectors are computed at once: the histories and vectors of a block stay in the cache.
_BLOCK = 4096

# How far a vector may be off, as a share of its length, and a cosine with it: less than anybody would notice. Halves
# round by a quarter of it at most, each time.
_OFF = 0.002

# Entries of histories summed in one call of `prepare`: some 30 ms.
_AT_ONCE = 200_000


@dataclass(frozen=True, slots=True)
class HistoryChanges:
    """What a batch of listens changes: the new histories of the users it touches, and the difference.

    Attributes:
        users: int64 (m,), rows, ascending.
        lengths: int64 (m,), songs in each new history.
        songs, weights, times: the new histories, one after the other: slots int32, plays float32, seconds uint32.
        new_users, new_songs: int64, the (user, song) pairs heard for the first time.
        lost_users, lost_songs: int64, the pairs that the cap pushed out.
        change_at, change_songs, change: int64, int64, float32: by how much each pair's weight changes, with the user as
            an index into ``users``.
        before, after: float32 (m, d), the users' vectors, of any length, without the batch and with it; the same for
            a user whose vector comes from outside.
        errors: float32 (m,), how far ``after`` may be off by then, as a share of its length; of halves.
        outside: bool (m,), whose vector comes from outside.
        version: of the songs' vectors that these were computed from.
    """

    users: I64
    lengths: I64
    songs: NDArray[np.int32]
    weights: F32
    times: NDArray[np.uint32]
    new_users: I64
    new_songs: I64
    lost_users: I64
    lost_songs: I64
    change_at: I64
    change_songs: I64
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
    arena: Arena
    made: NDArray[np.bool_]


class UserHistories:
    """The listeners of one partition."""

    def __init__(
        self, songs: Catalogue, history: int = HISTORY, half_life: float = HALF_LIFE, half: bool = False
    ) -> None:
        """``half_life`` is in days; infinity: songs count the same whenever they were heard.

        ``half`` keeps vectors as float16.
        """
        self._songs = songs
        self._history = history
        self._half_life = half_life * 86_400
        self._half = half
        self._heard = Jagged(np.int32, np.float32, np.uint32)
        self._listeners = Jagged(np.int32)
        self._space = songs.in_use
        self._seen_version = songs.version
        self._rows = 0
        self._arena = Arena(0, self._space.dimension, half)
        self._outside = np.zeros(0, bool)
        self._next: _Next | None = None
        self._loading = False
        songs.held_by(self)

    def songs_held(self) -> I64:
        """The slots of all songs that anybody heard."""
        if not self._loading:
            return self._listeners.filled()
        heard = [np.unique(self._heard.gather(block)[1][0]).astype(np.int64) for block in self._blocks(8)]
        return np.concatenate([np.zeros(0, np.int64), *heard])

    def songs_gone(self, slots: I64) -> None:
        """Nobody heard these: their slots go to other songs."""
        self._listeners.erase(slots)

    @property
    def nbytes(self) -> int:
        coming = self._next.arena.nbytes if self._next else 0
        return self._heard.nbytes + self._listeners.nbytes + self._arena.nbytes + coming

    @property
    def space(self) -> EmbeddingSpace:
        """That of the vectors."""
        return self._space

    def holds(self, users: I64) -> NDArray[np.bool_]:
        """Which rows have a history or a vector from outside, bool (n,)."""
        return (self._heard.lengths(users) > 0) | self._is_outside(users)

    def plan(self, users: I64, songs: I64, weights: F32, times: F64, forgotten: Sequence[int] = ()) -> HistoryChanges:
        """What a batch of listens changes, computed without changing it.

        Args:
            users, songs: int64 (n,), rows and slots, in arrival order.
            weights: float32 (n,), plays.
            times: float64 (n,), Unix seconds.
            forgotten: rows that :meth:`forget` erases before this is applied.
        """
        pair = users << 32 | songs
        pairs, first, which = np.unique(pair, return_index=True, return_inverse=True)
        plays = np.bincount(which, weights, len(pairs)).astype(np.float32)
        last = np.zeros(len(pairs), np.uint32)
        np.maximum.at(last, which, np.clip(times, 0, 2**32 - 1).astype(np.uint32))

        each = np.unique(pairs >> 32)
        lengths, (old_songs, old_weights, old_times) = self._heard.gather(each)
        of_old = np.repeat(np.arange(len(each)), lengths)
        blank = np.isin(each, forgotten)
        if blank.any():
            stays = ~blank[of_old]
            of_old, old_songs = of_old[stays], old_songs[stays]
            old_weights, old_times = old_weights[stays], old_times[stays]
        old_pairs = each[of_old] << 32 | old_songs
        at = np.minimum(np.searchsorted(pairs, old_pairs), len(pairs) - 1)
        again = pairs[at] == old_pairs
        at = at[again]
        old_weights[again] += plays[at]
        weighed = self._weights(old_times[again])
        old_times[again] = np.maximum(old_times[again], last[at])
        gain = self._weights(old_times[again]) - weighed

        new = np.ones(len(pairs), bool)
        new[at] = False
        # In order of arrival, so that a history does not depend on the slots that songs happen to have.
        order = np.flatnonzero(new)
        of_new = np.searchsorted(each, pairs[order] >> 32)
        sort = np.lexsort((first[order], of_new))
        order, of_new = order[sort], of_new[sort]
        new_songs = pairs[order] & 0xFFFFFFFF

        of = np.concatenate([of_old, of_new])
        sort = np.argsort(of, kind="stable")
        of = of[sort]
        all_songs = np.concatenate([old_songs, new_songs.astype(np.int32)])[sort]
        all_weights = np.concatenate([old_weights, plays[order]])[sort]
        all_times = np.concatenate([old_times, last[order]])[sort]
        lengths = np.bincount(of, minlength=len(each))

        lost_users = lost_songs = np.zeros(0, np.int64)
        loss = np.zeros(0, np.float32)
        if len(lengths) and lengths.max() > self._history:
            keep = _latest(of, all_times, lengths, self._history)
            lost_users, lost_songs = each[of[~keep]], all_songs[~keep].astype(np.int64)
            loss = self._weights(all_times[~keep])
            of, all_songs = of[keep], all_songs[keep]
            all_weights, all_times = all_weights[keep], all_times[keep]
            lengths = np.bincount(of, minlength=len(each))

        outside = self._is_outside(each) & ~blank
        before = self._arena.read(each)
        before[blank] = 0
        owners = np.concatenate([of_new, of_old[again], np.searchsorted(each, lost_users)])
        changed = np.concatenate([new_songs, old_songs[again], lost_songs])
        change = np.concatenate([self._weights(last[order]), gain, -loss])
        own = ~outside[owners] if outside.any() else slice(None)
        after, errors = self._added(
            self._space, before, self._arena.errors(each), owners[own], changed[own], change[own]
        )
        off = ~outside & _off(errors)
        if off.any():
            of_off = off[of]
            after[off] = self._sums(self._space, lengths[off], all_songs[of_off], all_times[of_off])
            errors[off] = 0
        return HistoryChanges(
            each,
            lengths,
            all_songs,
            all_weights,
            all_times,
            each[of_new],
            new_songs,
            lost_users,
            lost_songs,
            owners,
            changed,
            change,
            before,
            after,
            errors,
            outside,
            self._seen_version,
        )

    def plan_outside(self, users: I64, vectors: F32) -> OutsideChanges:
        """What :meth:`set_outside` sets, computed without setting it: it can be previewed, and then applied.

        Raises:
            ValueError: as there.
        """
        self.follow_songs()
        if len(users) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors for {len(users)} users")
        return OutsideChanges(users, self._space.directions(vectors), self._space)

    def preview(self, planned: HistoryChanges | OutsideChanges) -> tuple[I64, F32, F32]:
        """The users that a plan touches, and their unit vectors as they are and as they will be.

        Returns:
            int64 (m,), float32 (m, d), float32 (m, d); zero for a user without a song with a vector.
        """
        if isinstance(planned, HistoryChanges):
            return planned.users, directions(planned.before), directions(planned.after)
        return planned.users, self._arena.units(planned.users), planned.after

    def apply(self, planned: HistoryChanges | OutsideChanges) -> None:
        """Takes over what :meth:`plan` or :meth:`plan_outside` computed.

        Between planning and applying, nothing may happen to the histories of these users; songs may get other
        vectors, and outside vectors come or go. Outside vectors of a space that is no longer in use are dropped.
        """
        self.follow_songs()
        users = planned.users
        if not len(users):
            return
        self._grow(int(users.max()) + 1)
        if isinstance(planned, OutsideChanges):
            if planned.space is self._space:
                self._arena.write(users, planned.after)
                self._outside[users] = True
            return
        self._heard.replace(users, planned.lengths, [planned.songs, planned.weights, planned.times])
        self._listeners.append(planned.new_songs, [planned.new_users.astype(np.int32)])
        if len(planned.lost_users):
            # A pair can be new and lost in one batch, so the appending comes first.
            self._listeners.discard(planned.lost_songs, planned.lost_users)
        if self._next:
            self._add_next(self._next, planned)
        if planned.version != self._seen_version or (planned.outside != self._outside[users]).any():
            self._make(users)
        elif not planned.outside.any():
            self._arena.write(users, planned.after, planned.errors)
        else:
            own = ~planned.outside
            self._arena.write(users[own], planned.after[own], planned.errors[own])

    def set_outside(self, users: I64, vectors: F32) -> None:
        """Gives users vectors from outside: they count instead of the sum of the history until dropped.

        Args:
            users: int64 (n,), rows, each of them once.
            vectors: float32 (n, d) in the space in use; brought along its axes and to unit length.

        Raises:
            ValueError: wrong shape, a NaN or an infinity; nothing changes then.
        """
        self.apply(self.plan_outside(users, vectors))

    def drop_outside(self, users: I64) -> None:
        """Gives users the vector of their history again; nothing changes for those who have it."""
        self.follow_songs()
        dropped = users[self._is_outside(users)]
        self._outside[dropped] = False
        self._make(dropped)

    def forget(self, users: I64) -> None:
        """Erases users: history, listeners, vectors, whether those came from outside. No bytes of them stay."""
        self.follow_songs()
        lengths, (songs, _, _) = self._heard.gather(users)
        self._listeners.discard(songs.astype(np.int64), np.repeat(users, lengths))
        self._heard.erase(users)
        self._arena.wipe(users)
        self._outside[users[users < len(self._outside)]] = False
        if self._next:
            self._next.arena.wipe(users)

    def load(self, users: I64, lengths: I64, songs: I64, weights: F32, times: NDArray[np.uint32]) -> None:
        """Writes whole histories, read back from records; :meth:`loaded` must follow before anything else."""
        self._loading = True
        self._heard.replace(users, lengths, [songs.astype(np.int32), weights, times])
        if len(users):
            self._grow(int(users.max()) + 1)

    def loaded(self) -> None:
        """Derives all that histories imply."""
        self._loading = False
        self.follow_songs()
        self._next = None
        counts = np.zeros(len(self._songs), np.int64)
        for block in self._blocks(8):
            lengths, songs, times = self._heard_by(block)
            counts += np.bincount(songs, minlength=len(counts))
            self._arena.write(block, self._sums(self._space, lengths, songs, times))
        self._listeners = Jagged(np.int32)
        some = np.flatnonzero(counts)
        self._listeners.reserve(some, counts[some])
        # Block by block, because what stands for all of them at once would be as large as the histories.
        for block in self._blocks(8):
            lengths, songs, _ = self._heard_by(block)
            ends = np.concatenate([[0], np.cumsum(lengths)])
            by_song = sparse.csr_matrix(
                (np.ones(len(songs), np.int8), songs, ends), shape=(len(block), len(counts))
            ).tocsc()
            lengths = np.diff(by_song.indptr).astype(np.int64)
            some = np.flatnonzero(lengths)
            self._listeners.extend(some, lengths[some], [by_song.indices + np.int32(block[0])])

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
            _, (users,) = self._listeners.gather(coming.space.changed_since(self._seen_version))
            coming.made[users] = False
        if space is self._space:
            _, (stale,) = self._listeners.gather(space.changed_since(self._seen_version))
        elif coming and coming.space is space:
            stale = np.flatnonzero(~coming.made[: self._rows])
            self._arena, coming = coming.arena, None
        else:
            self._arena = Arena(self._rows, space.dimension, self._half)
            stale = np.arange(self._rows)
        if space is not self._space:
            self._outside[:] = False
        self._space, self._next, self._seen_version = space, coming, self._songs.version
        self._make(np.unique(stale).astype(np.int64))

    def prepare(self, entries: int = _AT_ONCE) -> bool:
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
            arena = Arena(self._rows, space.dimension, self._half)
            self._next = _Next(space, arena, np.zeros(self._rows, bool))
        coming = self._next
        missing = np.flatnonzero(~coming.made[: self._rows])
        most = int(np.searchsorted(np.cumsum(self._heard.lengths(missing)), entries, side="right"))
        users = missing[: max(most, 1)]
        self._write_sums(space, coming.arena, users)
        coming.made[users] = True
        return len(users) == len(missing)

    def history(self, users: I64) -> tuple[I64, NDArray[np.int32], F32, NDArray[np.uint32]]:
        """Lengths int64 (n,), and song slots, plays and times of the histories, one after the other."""
        lengths, (songs, weights, times) = self._heard.gather(users)
        return lengths, songs, weights, times

    def listeners(self, songs: I64) -> tuple[I64, NDArray[np.int32]]:
        """Lengths int64 (n,), and the rows of each song's listeners, one song after the other."""
        lengths, (users,) = self._listeners.gather(songs)
        return lengths, users

    def listeners_of(self, song: int) -> I64:
        """The rows of one song's listeners, int64 (n,); -1: a song nobody heard."""
        return self._listeners.row(song)[0].astype(np.int64)

    def vectors(self, users: I64) -> F32:
        """Unit user vectors float32 (n, d); zero for a user without a song with a vector."""
        return self._arena.units(users)

    def cosines(self, users: I64, vector: F32) -> F32:
        """The cosine of each user's vector with a unit vector (d,), float32 (n,); 0 where a user has none."""
        return self._arena.cosines(users, vector)

    def heard(self, users: I64) -> I64:
        """How many songs each user's history holds, int64 (n,)."""
        return self._heard.lengths(users)

    def everybody(self) -> I64:
        """The rows of all users with a vector, int64, ascending."""
        return self._arena.written()

    def encode(self, heard: HistoryChanges) -> list[bytes]:
        """The record of each of ``heard.users``."""
        return encode(self._songs, heard.lengths, heard.songs, heard.weights, heard.times)

    def _grow(self, rows: int) -> None:
        self._rows = max(self._rows, rows)
        self._arena.grow(self._rows)
        grow(self._outside, self._rows)
        if self._next:
            self._next.arena.grow(self._rows)
            grow(self._next.made, self._rows)

    def _is_outside(self, users: I64) -> NDArray[np.bool_]:
        known = users < len(self._outside)
        outside = np.zeros(len(users), bool)
        outside[known] = self._outside[users[known]]
        return outside

    def _added(
        self, space: EmbeddingSpace, before: F32, errors: F32, at: I64, songs: I64, weights: F32
    ) -> tuple[F32, F32]:
        """Vectors (n, d) with more of some songs, and how far these may be off; ``at`` are indices into them."""
        matrix = sparse.csr_matrix((weights, (at, songs)), shape=(len(before), len(self._songs)))
        after = before + space.sums(matrix)
        return after, errors * _share(before, after) if self._half else errors

    def _add_next(self, coming: _Next, heard: HistoryChanges) -> None:
        """Adds what was heard to vectors made in the coming space; those that would be too far off are made again."""
        made = coming.made[heard.users]
        users, some = heard.users[made], made[heard.change_at]
        at = (np.cumsum(made) - 1)[heard.change_at[some]]
        before, errors = coming.arena.read(users), coming.arena.errors(users)
        after, errors = self._added(coming.space, before, errors, at, heard.change_songs[some], heard.change[some])
        coming.arena.write(users, after, errors)
        coming.made[users[_off(errors)]] = False

    def _make(self, users: I64) -> None:
        """Sums the histories of users anew, save where the vector comes from outside."""
        self._write_sums(self._space, self._arena, users[~self._outside[users]])

    def _write_sums(self, space: EmbeddingSpace, arena: Arena, users: I64) -> None:
        for start in range(0, len(users), _BLOCK):
            block = users[start : start + _BLOCK]
            arena.write(block, self._sums(space, *self._heard_by(block)))

    def _blocks(self, together: int = 1) -> Iterator[I64]:
        """All rows, some at a time."""
        step = together * _BLOCK
        for start in range(0, self._rows, step):
            yield np.arange(start, min(start + step, self._rows))

    def _heard_by(self, users: I64) -> tuple[I64, NDArray[np.int32], NDArray[np.uint32]]:
        lengths, (songs, _, times) = self._heard.gather(users)
        return lengths, songs, times

    def _sums(self, space: EmbeddingSpace, lengths: I64, songs: NDArray[np.int32], times: NDArray[np.uint32]) -> F32:
        """The vectors that histories, one after the other, add up to; float32 (n, d)."""
        return space.sums(self._matrix(lengths, songs, times))

    def _matrix(self, lengths: I64, songs: NDArray[np.int32], times: NDArray[np.uint32]) -> sparse.csr_matrix:
        """Histories as a csr (n, songs) of the songs' weights."""
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return sparse.csr_matrix((self._weights(times), songs, indptr), shape=(len(lengths), len(self._songs)))

    def _weights(self, times: NDArray[np.uint32]) -> F32:
        """What a song last heard at these Unix seconds weighs in its listener's vector, float32 (n,)."""
        half_lives = (times - _LANDMARK) / self._half_life
        return np.asarray(np.exp2(np.clip(half_lives, -_FARTHEST, _FARTHEST)), np.float32)


def encode(
    songs: Catalogue, lengths: I64, slots: NDArray[np.int32], weights: F32, times: NDArray[np.uint32]
) -> list[bytes]:
    """History records: a version byte and packed :data:`HEARD` entries; n records for n lengths."""
    entries = np.empty(len(slots), HEARD)
    entries["song"], entries["weight"], entries["time"] = songs.hashes(slots.astype(np.int64)), weights, times
    packed = entries.tobytes()
    ends = np.cumsum(lengths) * HEARD.itemsize
    starts = ends - lengths * HEARD.itemsize
    return [_VERSION + packed[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


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


def _latest(of: I64, times: NDArray[np.uint32], lengths: I64, most: int) -> NDArray[np.bool_]:
    """Which entries stay when each owner keeps its ``most`` latest; of equally late ones the last.

    ``of`` is the owner of each entry, ascending; ``lengths`` the entries of each owner.
    """
    order = np.lexsort((np.arange(len(of)), times, of))
    from_last = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(of)) - 1
    keep = np.zeros(len(of), bool)
    keep[order[from_last < most]] = True
    return keep


def _off(errors: F32) -> NDArray[np.bool_]:
    """Which vectors would be too far off once they are rounded again."""
    return ~(errors + ROUNDING <= _OFF)


def _share(before: F32, after: F32) -> F32:
    """The length of each vector (n, d) as a share of that of another; float32 (n,), infinite or NaN if that is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.vecdot(before, before) / np.vecdot(after, after)
    return np.asarray(np.sqrt(squares), np.float32)
