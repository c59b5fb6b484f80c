"""Who heard what, and each listener's vector.

One partition's listeners, by row (see :mod:`targeting.arrays.id_table`). What is stored is the history: for each user
the songs with their plays and the time of the last one. Derived from it, and never in the changelog: the listeners of
each song, and each user's vector (:mod:`targeting.users.taste_vectors`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from targeting.arrays.id_table import I64
from targeting.arrays.ragged_array import RaggedArray
from targeting.catalogue.catalogue import Catalogue
from targeting.types import F32, F64
from targeting.users import history_record
from targeting.users.taste_vectors import BLOCK, HALF_LIFE, OutsideChanges, TasteVectors, VectorChanges

# Songs a user. More say little about a taste, and one hoarder would outweigh a hundred listeners.
HISTORY = 500


@dataclass(frozen=True, slots=True)
class HistoryChanges:
    """What a batch of listens changes: the new histories of the users it touches, and the difference.

    Attributes:
        users: int64 (m,), rows, ascending.
        lengths: int64 (m,), songs in each new history.
        songs, weights, times: the new histories, one after the other: slots int32, plays float32, seconds uint32.
        new_users, new_songs: int64, the (user, song) pairs heard for the first time.
        lost_users, lost_songs: int64, the pairs that the cap pushed out.
        kept_users, kept_songs: int64, the pairs of forgotten users that were heard since.
        vectors: what becomes of the users' vectors.
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
    kept_users: I64
    kept_songs: I64
    vectors: VectorChanges


class UserHistories:
    """The listeners of one partition.

    Attributes:
        taste: their vectors. What is planned there is applied here, with the histories.
    """

    def __init__(
        self, songs: Catalogue, history: int = HISTORY, half_life: float = HALF_LIFE, half: bool = False
    ) -> None:
        """``half_life`` is in days; infinity: songs count the same whenever they were heard.

        ``half`` keeps vectors as float16.
        """
        self._songs = songs
        self._history = history
        self._heard = RaggedArray(np.int32, np.float32, np.uint32)
        self._listeners = RaggedArray(np.int32)
        self._rows = 0
        self.taste = TasteVectors(songs, self, half_life, half)
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
        return self._heard.nbytes + self._listeners.nbytes + self.taste.nbytes

    def holds(self, users: I64) -> NDArray[np.bool_]:
        """Which rows have a history or a vector from outside, bool (n,)."""
        return (self._heard.lengths(users) > 0) | self.taste.are_outside(users)

    def plan(
        self, users: I64, songs: I64, weights: F32, times: F64, forgotten: Mapping[int, float] | None = None
    ) -> HistoryChanges:
        """What a batch of listens changes, computed without changing it.

        Of who is forgotten, songs stay that were heard in a later second, as heard once: what came before is not told
        apart from what came after. So it does not matter whether an erasure or a listen after it is read first.

        Args:
            users, songs: int64 (n,), rows and slots, in arrival order.
            weights: float32 (n,), plays.
            times: float64 (n,), Unix seconds.
            forgotten: rows that :meth:`forget` erases before this is applied, and up to when, Unix seconds.
        """
        pair = users << 32 | songs
        pairs, first, which = np.unique(pair, return_index=True, return_inverse=True)
        plays = np.bincount(which, weights, len(pairs)).astype(np.float32)
        last = np.zeros(len(pairs), np.uint32)
        np.maximum.at(last, which, np.clip(times, 0, 2**32 - 1).astype(np.uint32))

        each, since = self._touched(pairs >> 32, forgotten or {})
        lengths, (old_songs, old_weights, old_times) = self._heard.gather(each)
        of_old = np.repeat(np.arange(len(each)), lengths)
        blank = since > -np.inf
        kept = np.zeros(0, np.int64)
        if blank.any():
            stays = old_times > since[of_old]
            of_old, old_songs = of_old[stays], old_songs[stays]
            old_weights, old_times = old_weights[stays], old_times[stays]
            kept = np.flatnonzero(blank[of_old])
            old_weights[kept] = np.minimum(old_weights[kept], 1)
        kept_weighed = self.taste.weights(old_times[kept])
        old_pairs = each[of_old] << 32 | old_songs
        at = np.searchsorted(pairs, old_pairs)
        again = at < len(pairs)
        again[again] = pairs[at[again]] == old_pairs[again]
        at = at[again]
        old_weights[again] += plays[at]
        weighed = self.taste.weights(old_times[again])
        old_times[again] = np.maximum(old_times[again], last[at])
        gain = self.taste.weights(old_times[again]) - weighed

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
            loss = self.taste.weights(all_times[~keep])
            of, all_songs = of[keep], all_songs[keep]
            all_weights, all_times = all_weights[keep], all_times[keep]
            lengths = np.bincount(of, minlength=len(each))

        kept_songs = old_songs[kept].astype(np.int64)
        owners = np.concatenate([of_new, of_old[again], of_old[kept], np.searchsorted(each, lost_users)])
        changed = np.concatenate([new_songs, old_songs[again], kept_songs, lost_songs])
        change = np.concatenate([self.taste.weights(last[order]), gain, kept_weighed, -loss])
        vectors = self.taste.plan(each, owners, changed, change, blank, (lengths, all_songs, all_times))
        return HistoryChanges(
            each, lengths, all_songs, all_weights, all_times, each[of_new], new_songs, lost_users, lost_songs,
            each[of_old[kept]], kept_songs, vectors,
        )  # fmt: skip

    def _touched(self, users: I64, forgotten: Mapping[int, float]) -> tuple[I64, F64]:
        """Whose history changes, rows, ascending; and up to when each is forgotten, Unix seconds, or minus infinity.

        Of those who are forgotten and hear nothing now only who keeps something: the others are erased already.
        """
        rows = np.fromiter(forgotten, np.int64, len(forgotten))
        since = np.fromiter(forgotten.values(), np.float64, len(forgotten))
        if not len(rows):
            each = np.unique(users)
            return each, np.full(len(each), -np.inf)
        lengths, (_, _, times) = self._heard.gather(rows)
        later = times > np.repeat(since, lengths)
        each = np.union1d(users, np.repeat(rows, lengths)[later])
        at = np.searchsorted(each, rows)
        here = at < len(each)
        here[here] = each[at[here]] == rows[here]
        found = np.full(len(each), -np.inf)
        found[at[here]] = since[here]
        return each, found

    def apply(self, planned: HistoryChanges | OutsideChanges) -> None:
        """Takes over what :meth:`plan`, or ``taste.plan_outside``, computed.

        Between planning and applying, nothing may happen to the histories of these users; songs may get other
        vectors, and outside vectors come or go. Outside vectors of a space that is no longer in use are dropped.
        """
        self.taste.follow_songs()
        users = planned.users
        if not len(users):
            return
        self._grow(int(users.max()) + 1)
        if isinstance(planned, OutsideChanges):
            self.taste.apply(planned)
            return
        self._heard.replace(users, planned.lengths, [planned.songs, planned.weights, planned.times])
        self._listeners.append(planned.new_songs, [planned.new_users.astype(np.int32)])
        self._listeners.append(planned.kept_songs, [planned.kept_users.astype(np.int32)])
        if len(planned.lost_users):
            # A pair can be new and lost in one batch, so the appending comes first.
            self._listeners.discard(planned.lost_songs, planned.lost_users)
        self.taste.apply(planned.vectors)

    def forget(self, users: I64) -> None:
        """Erases users: history, listeners, vectors, whether those came from outside. No bytes of them stay."""
        self.taste.follow_songs()
        lengths, (songs, _, _) = self._heard.gather(users)
        self._listeners.discard(songs.astype(np.int64), np.repeat(users, lengths))
        self._heard.erase(users)
        self.taste.forget(users)

    def load(self, users: I64, lengths: I64, songs: I64, weights: F32, times: NDArray[np.uint32]) -> None:
        """Writes whole histories, read back from records; :meth:`loaded` must follow before anything else."""
        self._loading = True
        self._heard.replace(users, lengths, [songs.astype(np.int32), weights, times])
        if len(users):
            self._grow(int(users.max()) + 1)

    def loaded(self) -> None:
        """Derives all that histories imply."""
        self._loading = False
        self.taste.follow_songs()
        counts = np.zeros(len(self._songs), np.int64)
        for block in self._blocks(8):
            lengths, songs, times = self.songs_of(block)
            counts += np.bincount(songs, minlength=len(counts))
            self.taste.make_anew(block, lengths, songs, times)
        self._listeners = RaggedArray(np.int32)
        some = np.flatnonzero(counts)
        self._listeners.reserve(some, counts[some])
        # Block by block, because what stands for all of them at once would be as large as the histories.
        for block in self._blocks(8):
            lengths, songs, _ = self.songs_of(block)
            ends = np.concatenate([[0], np.cumsum(lengths)])
            by_song = sparse.csr_matrix(
                (np.ones(len(songs), np.int8), songs, ends), shape=(len(block), len(counts))
            ).tocsc()
            lengths = np.diff(by_song.indptr).astype(np.int64)
            some = np.flatnonzero(lengths)
            self._listeners.extend(some, lengths[some], [by_song.indices + np.int32(block[0])])

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

    def heard(self, users: I64) -> I64:
        """How many songs each user's history holds, int64 (n,)."""
        return self._heard.lengths(users)

    def encode(self, heard: HistoryChanges) -> list[bytes]:
        """The record of each of ``heard.users``."""
        return history_record.encode(self._songs, heard.lengths, heard.songs, heard.weights, heard.times)

    def listeners_of_any(self, songs: I64) -> NDArray[np.int32]:
        """The rows of the listeners of these songs, with repetitions."""
        _, (users,) = self._listeners.gather(songs)
        return users

    def _grow(self, rows: int) -> None:
        self._rows = max(self._rows, rows)
        self.taste.grow(self._rows)

    def _blocks(self, together: int = 1) -> Iterator[I64]:
        """All rows, some at a time."""
        step = together * BLOCK
        for start in range(0, self._rows, step):
            yield np.arange(start, min(start + step, self._rows))

    def songs_of(self, users: I64) -> tuple[I64, NDArray[np.int32], NDArray[np.uint32]]:
        """Lengths int64 (n,), song slots and times of the histories, one after the other."""
        lengths, (songs, _, times) = self._heard.gather(users)
        return lengths, songs, times


def _latest(of: I64, times: NDArray[np.uint32], lengths: I64, most: int) -> NDArray[np.bool_]:
    """Which entries stay when each owner keeps its ``most`` latest; of equally late ones the last.

    ``of`` is the owner of each entry, ascending; ``lengths`` the entries of each owner.
    """
    order = np.lexsort((np.arange(len(of)), times, of))
    from_last = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(of)) - 1
    keep = np.zeros(len(of), bool)
    keep[order[from_last < most]] = True
    return keep
