"""Who heard what, and what is each listener's vector?

One partition's listeners, by row (see :mod:`targeting.slots`). What is stored is the history: for each user
the songs with their plays and the time of the last one. Derived from it, and never in the changelog: the
listeners of each song, and each user's vector, the sum of the vectors of the songs in the history, each halved in
weight for every half-life that passed since it was last heard.

What is summed is weighed forward (Cormode et al., "Forward decay", ICDE 2009): a listen weighs more the later it is,
and what was summed before need not change. Only directions are ever used, so that the common factor does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting.jagged import Jagged
from targeting.slots import I64, grow
from targeting.songs import Songs
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

# Users whose vectors are computed at once: the histories and vectors of a block fit the cache's reach.
_BLOCK = 65_536

# Users scored at once: their vectors stay in the second-level cache between being copied and being used.
_SCORED = 512


@dataclass(frozen=True, slots=True)
class Heard:
    """What a batch of listens changes: the new histories of the users it touches, and the difference.

    Attributes:
        users: int64 (m,), rows, ascending.
        lengths: int64 (m,), songs in each new history.
        songs, weights, times: the new histories, one after the other: slots int32, plays float32, seconds uint32.
        new_users, new_songs: int64, the (user, song) pairs heard for the first time.
        lost_users, lost_songs: int64, the pairs that the cap pushed out.
        change_users, change_songs, change: int64, int64, float32: by how much each pair's weight changes.
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
    change_users: I64
    change_songs: I64
    change: F32


class Audience:
    """The listeners of one partition."""

    def __init__(self, songs: Songs, history: int = HISTORY, half_life: float = HALF_LIFE) -> None:
        """``half_life`` is in days; infinity: songs count the same whenever they were heard."""
        self._songs = songs
        self._history = history
        self._half_life = half_life * 86_400
        self._heard = Jagged(np.int32, np.float32, np.uint32)
        self._listeners = Jagged(np.int32)
        self._vectors = np.zeros((0, songs.dimension), np.float32)
        self._seen_version = songs.version

    @property
    def nbytes(self) -> int:
        return self._heard.nbytes + self._listeners.nbytes + self._vectors.nbytes

    def plan(self, users: I64, songs: I64, weights: F32, times: F64) -> Heard:
        """What a batch of listens changes, computed without changing it.

        Args:
            users, songs: int64 (n,), rows and slots, in arrival order.
            weights: float32 (n,), plays.
            times: float64 (n,), Unix seconds.
        """
        pair = users << 32 | songs
        pairs, first, which = np.unique(pair, return_index=True, return_inverse=True)
        plays = np.bincount(which, weights, len(pairs)).astype(np.float32)
        last = np.zeros(len(pairs), np.uint32)
        np.maximum.at(last, which, np.clip(times, 0, 2**32 - 1).astype(np.uint32))

        each = np.unique(pairs >> 32)
        lengths, (old_songs, old_weights, old_times) = self._heard.gather(each)
        of_old = np.repeat(np.arange(len(each)), lengths)
        old_pairs = each[of_old] << 32 | old_songs
        at = np.minimum(np.searchsorted(pairs, old_pairs), len(pairs) - 1)
        again = pairs[at] == old_pairs
        at = at[again]
        old_weights[again] += plays[at]
        before = self._weights(old_times[again])
        old_times[again] = np.maximum(old_times[again], last[at])
        again_users, again_songs = each[of_old[again]], old_songs[again].astype(np.int64)
        gain = self._weights(old_times[again]) - before

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
        return Heard(
            each,
            lengths,
            all_songs,
            all_weights,
            all_times,
            each[of_new],
            new_songs,
            lost_users,
            lost_songs,
            np.concatenate([each[of_new], again_users, lost_users]),
            np.concatenate([new_songs, again_songs, lost_songs]),
            np.concatenate([self._weights(last[order]), gain, -loss]),
        )

    def apply(self, heard: Heard) -> None:
        """Takes over what :meth:`plan` computed on the same state."""
        self.follow_songs()
        self._heard.replace(heard.users, heard.lengths, [heard.songs, heard.weights, heard.times])
        self._listeners.append(heard.new_songs, [heard.new_users.astype(np.int32)])
        if len(heard.lost_users):
            # A pair can be new and lost in one batch, so the appending comes first.
            self._listeners.discard(heard.lost_songs, heard.lost_users)
        if len(heard.users):
            grow(self._vectors, int(heard.users[-1]) + 1)
        self._add_vectors(heard.change_users, heard.change_songs, heard.change)

    def load(self, users: I64, lengths: I64, songs: I64, weights: F32, times: NDArray[np.uint32]) -> None:
        """Writes whole histories, read back from records; :meth:`loaded` must follow before anything else."""
        self._heard.replace(users, lengths, [songs.astype(np.int32), weights, times])
        if len(users):
            grow(self._vectors, int(users.max()) + 1)

    def loaded(self) -> None:
        """Derives all that histories imply."""
        users = np.arange(len(self._vectors))
        matrix = self._matrix(users)
        by_song = matrix.tocsc()
        counts = np.diff(by_song.indptr)
        heard = np.flatnonzero(counts)
        self._listeners = Jagged(np.int32)
        self._listeners.replace(heard, counts[heard].astype(np.int64), [by_song.indices])
        self._seen_version = -1
        self.follow_songs()

    def follow_songs(self) -> None:
        """Brings user vectors up to the songs' vectors, where those changed since the last call."""
        if self._seen_version == self._songs.version:
            return
        changed = self._songs.changed_since(self._seen_version)
        if changed is None or self._vectors.shape[1] != self._songs.dimension:
            self._vectors = np.zeros((len(self._vectors), self._songs.dimension), np.float32)
            stale = np.arange(len(self._vectors))
        else:
            _, (users,) = self._listeners.gather(changed)
            stale = np.unique(users).astype(np.int64)
        for start in range(0, len(stale), _BLOCK):
            block = stale[start : start + _BLOCK]
            self._vectors[block] = self._songs.sums(self._matrix(block))
        self._seen_version = self._songs.version

    def history(self, users: I64) -> tuple[I64, NDArray[np.int32], F32, NDArray[np.uint32]]:
        """Lengths int64 (n,), and song slots, plays and times of the histories, one after the other."""
        lengths, (songs, weights, times) = self._heard.gather(users)
        return lengths, songs, weights, times

    def listeners(self, songs: I64) -> tuple[I64, NDArray[np.int32]]:
        """Lengths int64 (n,), and the rows of each song's listeners, one song after the other."""
        lengths, (users,) = self._listeners.gather(songs)
        return lengths, users

    def vectors(self, users: I64) -> F32:
        """Unit user vectors float32 (n, d); zero for a user without a song with a vector."""
        vectors = self._vectors[users]
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        return np.asarray(vectors / np.where(lengths > 0, lengths, 1)[:, None], np.float32)

    def cosines(self, users: I64, vector: F32) -> F32:
        """The cosine of each user's vector with a unit vector (d,), float32 (n,); 0 where a user has none."""
        cosines = np.empty(len(users), np.float32)
        rows = np.empty((_SCORED, self._vectors.shape[1]), np.float32)
        for start in range(0, len(users), _SCORED):
            block = users[start : start + _SCORED]
            here = rows[: len(block)]
            # "clip" spares numpy a second buffer; the rows are known to exist.
            np.take(self._vectors, block, axis=0, out=here, mode="clip")
            lengths = np.sqrt(np.einsum("ij,ij->i", here, here))
            np.divide(here @ vector, np.where(lengths > 0, lengths, 1), out=cosines[start : start + _SCORED])
        return cosines

    def everybody(self) -> I64:
        """The rows of all users with a vector, int64, ascending."""
        return np.flatnonzero(self._vectors.any(axis=1))

    def encode(self, heard: Heard) -> list[bytes]:
        """The record of each of ``heard.users``."""
        return encode(self._songs, heard.lengths, heard.songs, heard.weights, heard.times)

    def _matrix(self, users: I64) -> sparse.csr_matrix:
        """The histories as a csr (n, songs) of the songs' weights."""
        lengths, (songs, _, times) = self._heard.gather(users)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return sparse.csr_matrix((self._weights(times), songs, indptr), shape=(len(users), len(self._songs)))

    def _weights(self, times: NDArray[np.uint32]) -> F32:
        """What a song last heard at these Unix seconds weighs in its listener's vector, float32 (n,)."""
        half_lives = (times - _LANDMARK) / self._half_life
        return np.asarray(np.exp2(np.clip(half_lives, -_FARTHEST, _FARTHEST)), np.float32)

    def _add_vectors(self, users: I64, songs: I64, weights: F32) -> None:
        if not len(users) or not self._songs.dimension:
            return
        each, which = np.unique(users, return_inverse=True)
        pairs = sparse.csr_matrix((weights, (which, songs)), shape=(len(each), len(self._songs)))
        self._vectors[each] += self._songs.sums(pairs)


def encode(
    songs: Songs, lengths: I64, slots: NDArray[np.int32], weights: F32, times: NDArray[np.uint32]
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
    for record in records:
        if record and (record[:1] != _VERSION or (len(record) - 1) % HEARD.itemsize):
            raise ValueError(f"a history record of {len(record)} bytes, version {record[:1]!r}")
    lengths = np.fromiter((len(r) // HEARD.itemsize for r in records), np.int64, len(records))
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
