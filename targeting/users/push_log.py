"""Who was pushed which recording, when, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, U64, grow, mixed
from targeting.arrays.ragged_array import RaggedArray
from targeting.types import F64, Mark
from targeting.users.push_record import PUSHED, decode, encode

# A plain number: with an enum beside it, numpy looks up what it is at every operation.
_HELD_OUT = np.uint16(Mark.HELD_OUT)

# The latest pushes of a user that stand in a row of their own: caps ask for thousands of users at once. A larger cap
# is asked of the whole log, for the few users that have this many.
_LATEST = 8

# Longer than a campaign may live (LONGEST_CAMPAIGN_DAYS of the contract): what is older can meet no request any more.
KEPT_S = 400 * 86_400.0

# Of one user. With more, the user's record would outgrow its topic's 1 MiB; whatever caps say, who has as many waits
# until the oldest are no longer kept. Some room is left for what one batch adds.
MOST = 40_000

# The last second that a row holds: a later push counts as of then.
_LAST = 2.0**32 - 1

U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]


@dataclass(slots=True)
class Added:
    """Pushes, and pushes that were held out, decided in a batch and not yet in the log; n each, in any order."""

    users: list[I64] = field(default_factory=list)
    recordings: list[U64] = field(default_factory=list)
    artists: list[U64] = field(default_factory=list)
    at: list[U32] = field(default_factory=list)
    marks: list[U16] = field(default_factory=list)
    _told: tuple[I64, U64, U32] | None = None

    def add(self, users: I64, recording: int, artist: int, at: F64, marks: U16) -> None:
        """Decisions on one recording: rows, ``not_before`` in Unix seconds, and marks; (n,) each.

        Times are kept in whole seconds, rounded up; see :func:`near`.
        """
        self.users.append(users)
        self.recordings.append(np.full(len(users), recording, np.uint64))
        self.artists.append(np.full(len(users), artist, np.uint64))
        self.at.append(np.minimum(np.ceil(at), _LAST).astype(np.uint32))
        self.marks.append(marks)
        self._told = None

    def told(self) -> tuple[I64, U64, U32]:
        """Those that are not held out: rows, artists and times, (n,) each."""
        if self._told is None:
            kept = np.concatenate([np.zeros(0, np.uint16), *self.marks]) & _HELD_OUT == 0
            columns: tuple[list[Any], ...] = (self.users, self.artists, self.at)
            users, artists, at = (
                np.concatenate([np.zeros(0, dtype), *column])[kept]
                for dtype, column in zip((np.int64, np.uint64, np.uint32), columns, strict=True)
            )
            self._told = users, artists, at
        return self._told

    def of_recording(self, recording: int) -> I64:
        """The rows of the users to whom it is pushed, or from whom it is held out."""
        parts = [u for u, r in zip(self.users, self.recordings, strict=True) if len(r) and r[0] == recording]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Marked:
    """Marks that are to be set on what may be in the log: rows, recordings and one or more bits; n each."""

    users: I64
    recordings: U64
    marks: U16


@dataclass(frozen=True, slots=True)
class Entries:
    """The new rows of the users that a batch touches.

    Attributes:
        users: int64 (m,), rows, ascending.
        lengths: int64 (m,).
        recordings, artists, at, marks: the rows, one after the other.
        added: what is new.
        dropped_users, dropped_recordings, dropped_artists: what was too old to be kept.
        set_users, set_recordings, set_at, set_marks, set_before: marks that were not there before, and those that were.
    """

    users: I64
    lengths: I64
    recordings: U64
    artists: U64
    at: U32
    marks: U16
    added: tuple[I64, U64, U64, U32, U16]
    dropped_users: I64
    dropped_recordings: U64
    dropped_artists: U64
    set_users: I64
    set_recordings: U64
    set_at: U32
    set_marks: U16
    set_before: U16


def near(kept: F64, at: F64, seconds: F64) -> NDArray[np.bool_]:
    """Whether pushes may lie less than ``seconds`` before or after a moment; as many as there are, bool.

    Args:
        kept: when they are, rounded up to whole seconds: up to a second after they really are.
        at, seconds: broadcast against ``kept``.
    """
    # Less than ``seconds`` before, or less than a second more after.
    close: NDArray[np.bool_] = np.abs(kept - (at + 0.5)) < seconds + 0.5
    return close


class PushLog:
    """The pushes of one partition, both ways: a user's recordings are stored; a recording's users, an artist's users
    and each user's latest pushes are derived.

    A recording, or an artist, is its 64-bit hash. Should two ever share one, a user is spared a push.
    """

    def __init__(self) -> None:
        self._pushed = RaggedArray(np.uint64, np.uint64, np.uint32, np.uint16)
        self._of_recording = _PushedUsers()
        self._of_artist = _PushedUsers()
        self._latest = np.zeros((0, _LATEST), np.uint32)  # latest first; 0: none

    def users(self, recording: int) -> I64:
        """The rows of the users who were pushed a recording or held out from it, int64."""
        return self._of_recording.of(recording)[0]

    def artist(self, artist: int) -> tuple[I64, U32]:
        """The rows of the users who were pushed a song of this artist, int64 (n,), and each push's time."""
        return self._of_artist.of(artist)

    def holds(self, users: I64) -> NDArray[np.bool_]:
        """Which rows were pushed anything, or held out from it, bool (n,)."""
        return self._pushed.lengths(users) > 0

    def pushes(self, users: I64) -> tuple[U32, U16]:
        """``not_before`` and marks of all that these rows were pushed, and of what was held out."""
        _, (_, _, at, marks) = self._pushed.gather(users)
        return at, marks

    def look(self, users: I64, recordings: U64) -> tuple[NDArray[np.bool_], U32, U16]:
        """Of each pair (n,) whether it is in the log, ``not_before`` and marks; of negative rows nothing is."""
        each = np.unique(users[users >= 0])
        lengths, (named, _, at, marks) = self._pushed.gather(each)
        if not len(named):
            return np.zeros(len(users), np.bool_), np.zeros(len(users), np.uint32), np.zeros(len(users), np.uint16)
        names, wanted = _pairs(np.repeat(each, lengths), named), _pairs(users, recordings)
        order = np.argsort(names)
        place = order[np.minimum(np.searchsorted(names[order], wanted), len(names) - 1)]
        return (names[place] == wanted) & (users >= 0), at[place], marks[place]

    def full(self, users: I64) -> NDArray[np.bool_]:
        """Which rows hold as much as a user may have, bool (n,)."""
        return self._pushed.lengths(users) >= MOST

    def within(self, users: I64, at: F64, seconds: F64) -> I64:
        """How many pushes of each user are :func:`near` a moment, int64 (n,).

        Args:
            users: int64 (n,), rows; may be rows never pushed.
            at, seconds: float64 (n,).
        """
        counts = np.zeros(len(users), np.int64)
        # Most were never pushed, and only the others are looked at. Lengths of all users stay in the cache.
        known = np.flatnonzero(self._pushed.lengths(users))
        known = known[users[known] < len(self._latest)]
        if not len(known):
            return counts
        latest = self._latest[users[known]].astype(np.float64)
        close = near(latest, at[known, None], seconds[known, None]) & (latest > 0)
        counts[known] = close.sum(axis=1)
        # Earlier pushes than those of a full row may count too: of a large cap, or behind many that are deferred.
        more = known[(latest[:, -1] > 0) & (latest[:, -1] > at[known] - seconds[known])]
        if len(more):
            lengths, (_, _, all_at, marks) = self._pushed.gather(users[more])
            of = np.repeat(np.arange(len(more)), lengths)
            close = near(all_at.astype(np.float64), at[more][of], seconds[more][of]) & ((marks & _HELD_OUT) == 0)
            counts[more] = np.bincount(of[close], minlength=len(more))
        return counts

    def plan(self, added: Added, marked: Marked | None, now: float) -> Entries | None:
        """What a batch changes, computed without changing it; None where it changes nothing.

        Added (user, recording) pairs are new and distinct. Marks on what is not in the log are left out.
        """
        new = (
            np.concatenate([np.zeros(0, np.int64), *added.users]),
            np.concatenate([np.zeros(0, np.uint64), *added.recordings]),
            np.concatenate([np.zeros(0, np.uint64), *added.artists]),
            np.concatenate([np.zeros(0, np.uint32), *added.at]),
            np.concatenate([np.zeros(0, np.uint16), *added.marks]),
        )
        users = new[0] if marked is None else np.concatenate([new[0], marked.users])
        if not len(users):
            return None
        each = np.unique(users)
        lengths, old = self._pushed.gather(each)
        of = np.concatenate([np.repeat(np.arange(len(each)), lengths), np.searchsorted(each, new[0])])
        order = np.argsort(of, kind="stable")
        of = of[order]
        recordings, artists, at, marks = (
            np.concatenate([mine, theirs])[order] for mine, theirs in zip(old, new[1:], strict=True)
        )
        none = np.zeros(0, np.int64)
        set_users, set_recordings, set_at = none, none.astype(np.uint64), none.astype(np.uint32)
        set_marks, set_before = none.astype(np.uint16), none.astype(np.uint16)
        if marked is not None:
            which, bits = _found(of, recordings, np.searchsorted(each, marked.users), marked)
            before = marks[which]
            fresh = bits & ~before
            some = np.flatnonzero(fresh)
            which, fresh, before = which[some], fresh[some], before[some]
            marks[which] |= fresh
            set_users, set_recordings, set_at = each[of[which]], recordings[which], at[which]
            set_marks, set_before = fresh, before
            if not len(which) and not len(new[0]):
                return None
            # Marks on what is not there touch nobody.
            touched = np.isin(each, np.concatenate([new[0], set_users]))
            if not touched.all():
                stays = touched[of]
                of = (np.cumsum(touched) - 1)[of[stays]]
                each = each[touched]
                recordings, artists, at, marks = recordings[stays], artists[stays], at[stays], marks[stays]
        keep = at.astype(np.float64) > now - KEPT_S
        return Entries(
            each,
            np.bincount(of[keep], minlength=len(each)),
            recordings[keep],
            artists[keep],
            at[keep],
            marks[keep],
            new,
            each[of[~keep]],
            recordings[~keep],
            artists[~keep],
            set_users,
            set_recordings,
            set_at,
            set_marks,
            set_before,
        )

    def apply(self, entries: Entries) -> None:
        """Takes over what :meth:`plan` computed on the same state."""
        self._pushed.replace(
            entries.users, entries.lengths, [entries.recordings, entries.artists, entries.at, entries.marks]
        )
        self._index(*entries.added)
        if len(entries.dropped_users):
            self._drop(entries)

    def forget(self, users: I64) -> None:
        """Removes all that is known of these rows."""
        lengths, (recordings, artists, _, _) = self._pushed.gather(users)
        owners = np.repeat(users, lengths)
        self._of_recording.discard(recordings, owners)
        self._of_artist.discard(artists, owners)
        self._pushed.erase(users)
        self._latest[users[users < len(self._latest)]] = 0

    def load(self, users: I64, records: Sequence[bytes]) -> None:
        """Writes rows read back from records (empty: none); :meth:`loaded` must follow before anything else.

        Raises:
            ValueError: a record of another version or of broken length.
        """
        lengths, entries = decode(records)
        self._pushed.replace(users, lengths, [np.ascontiguousarray(entries[name]) for name in PUSHED.names or ()])

    def loaded(self, users: I64) -> None:
        """Derives what the rows of ``users``, all there are, imply."""
        self._of_recording, self._of_artist = _PushedUsers(), _PushedUsers()
        self._latest = np.zeros((0, _LATEST), np.uint32)
        lengths, (recordings, artists, at, marks) = self._pushed.gather(users)
        self._index(np.repeat(users, lengths), recordings, artists, at, marks)

    def encode(self, entries: Entries) -> list[bytes]:
        """The record of each of ``entries.users``."""
        return encode(entries.lengths, entries.recordings, entries.artists, entries.at, entries.marks)

    def records(self, users: I64) -> list[bytes]:
        """The records of users as they stand; empty for a user never pushed."""
        lengths, (recordings, artists, at, marks) = self._pushed.gather(users)
        records = encode(lengths, recordings, artists, at, marks)
        return [record if len(record) > 1 else b"" for record in records]

    def _drop(self, entries: Entries) -> None:
        """Takes what was too old out of what is derived."""
        self._of_recording.discard(entries.dropped_recordings, entries.dropped_users)
        # All that a user got of an artist goes, because times are not looked at; then what was kept comes back.
        self._of_artist.discard(entries.dropped_artists, entries.dropped_users)
        owners = np.repeat(entries.users, entries.lengths)
        gone = _pairs(entries.dropped_users, entries.dropped_artists)
        back = ((entries.marks & _HELD_OUT) == 0) & np.isin(_pairs(owners, entries.artists), gone)
        self._of_artist.add(entries.artists[back], owners[back], entries.at[back])

    def _index(self, users: I64, recordings: U64, artists: U64, at: U32, marks: U16) -> None:
        self._of_recording.add(recordings, users, at)
        told = (marks & _HELD_OUT) == 0
        users, artists, at = users[told], artists[told], at[told]
        self._of_artist.add(artists, users, at)
        if not len(users):
            return
        grow(self._latest, int(users.max()) + 1)
        # The eight latest of what was and what comes. A user may be there more than once.
        order = np.lexsort((at, users))
        each, counts = np.unique(users, return_counts=True)
        from_last = np.repeat(np.cumsum(counts), counts) - np.arange(len(order)) - 1
        late = from_last < _LATEST
        fresh = np.zeros((len(each), _LATEST), np.uint32)
        fresh[np.repeat(np.arange(len(each)), counts)[late], from_last[late]] = at[order][late]
        both = np.concatenate([self._latest[each], fresh], axis=1)
        both.sort(axis=1)
        self._latest[each] = both[:, ::-1][:, :_LATEST]


class _PushedUsers:
    """By the 64-bit hash of a recording or an artist, the users who were pushed it, and when."""

    def __init__(self) -> None:
        self._rows = RaggedArray(np.int32, np.uint32)
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        """The number of keys that anybody is found under."""
        return len(self._row_of)

    def of(self, key: int) -> tuple[I64, U32]:
        users, at = self._rows.row(self._row_of.get(key, -1))
        return users.astype(np.int64), at.copy()

    def add(self, keys: U64, users: I64, at: U32) -> None:
        if not len(keys):
            return
        each, which = np.unique(keys, return_inverse=True)
        rows = [self._row(key) for key in each.tolist()]
        self._rows.append(np.asarray(rows, np.int64)[which], [users.astype(np.int32), at])

    def discard(self, keys: U64, users: I64) -> None:
        rows = np.fromiter((self._row_of.get(key, -1) for key in keys.tolist()), np.int64, len(keys))
        self._rows.discard(rows[rows >= 0], users[rows >= 0].astype(np.int32))
        # A key that nobody is left under is forgotten, and its row used again.
        left = self._rows.lengths(rows)
        gone = {
            key: row
            for key, row, users_left in zip(keys.tolist(), rows.tolist(), left.tolist(), strict=True)
            if row >= 0 and not users_left
        }
        for key in gone:
            del self._row_of[key]
        self._free.extend(gone.values())
        self._rows.erase(np.fromiter(gone.values(), np.int64, len(gone)))

    def _row(self, key: int) -> int:
        row = self._row_of.get(key)
        if row is None:
            row = self._row_of[key] = self._free.pop() if self._free else len(self._row_of)
        return row


def _found(of: I64, recordings: U64, users: I64, marked: Marked) -> tuple[I64, U16]:
    """Where in the rows (``of``: owners, ascending) marks belong, once each, and all the bits for that place."""
    names, wanted = _pairs(of, recordings), _pairs(users, marked.recordings)
    order = np.argsort(names)
    at = np.minimum(np.searchsorted(names[order], wanted), max(len(names) - 1, 0))
    there = names[order][at] == wanted if len(names) else np.zeros(len(wanted), np.bool_)
    place, which = np.unique(order[at[there]], return_inverse=True)
    bits = np.zeros(len(place), np.uint16)
    np.bitwise_or.at(bits, which, marked.marks[there])
    return place, bits


def _pairs(users: I64, recordings: U64) -> U64:
    """One 64-bit number for each pair: equal for equal pairs, and for others with a chance of 2**-64."""
    return mixed(recordings ^ mixed(users.astype(np.uint64), 0), 1)
