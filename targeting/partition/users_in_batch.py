"""The users of a batch: their rows, what they prefer by now, and which of them are to be forgotten.

Preferences and erasures come first, so everything else in a batch is seen through them: a listen or a vector from
before its user's erasure counts no more, and none of a user who allows no profiling.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, IdTable, hash64
from targeting.partition.state import State
from targeting.types import F64, Listens, OutsideVectors, PartitionInputs, Preferences, Push
from targeting.users.erasures import Marker

# What is asked to be forgotten from before 1970 is asked from then on: a time of 0 says that nobody asked.
_EARLIEST = 1.0


class KnownUsers:
    """The users of a partition, with those who become known by the batch.

    Args:
        users: those known before the batch.
        rows: int64 (n,), the rows of the others; ``ids``: theirs, in the same order.
    """

    def __init__(self, users: IdTable, rows: I64, ids: Sequence[str]) -> None:
        self._users = users
        self._fresh = dict(zip(rows.tolist(), ids, strict=True))

    def id_of(self, row: int) -> str:
        """The id of the user in a row."""
        return self._fresh.get(row) or self._users.id_of(row)

    def hashes(self, rows: I64) -> NDArray[np.uint64]:
        """As :meth:`targeting.arrays.id_table.IdTable.hashes`."""
        if not self._fresh:
            return self._users.hashes(rows)
        found = np.zeros(len(rows), np.uint64)
        new = np.fromiter((row in self._fresh for row in rows.tolist()), np.bool_, len(rows))
        found[~new] = self._users.hashes(rows[~new])
        found[new] = hash64([self._fresh[row] for row in rows[new].tolist()])
        return found


class UsersInBatch:
    """Who a batch is about.

    Attributes:
        fresh: ids that become known, in the order of their rows; ``fresh_since``: by row, when each was last erased.
        known: all users, the fresh ones among them.
        preferences: by row, what this batch says, and what had waited for a fresh user; None: forgotten.
        waiting: the same for users without a row, by :meth:`targeting.users.preferences.PreferenceTable.key`.
        erased: int64, rows that are forgotten, ascending; ``erased_until``: up to when, by row, Unix seconds; infinity
            of who allowed no profiling, also where the same batch allows it again.
        markers: erasure markers to set, by their hash; ``unmarked``: those to drop.
        listens: those that count; None: none. ``listen_rows``: int64, the user of each.
        vectors: those from outside that count; None: none. ``vector_rows``: int64, the user of each.

    Raises:
        ValueError: columns of different lengths.
    """

    def __init__(self, state: State, inputs: PartitionInputs) -> None:
        self._state = state
        self._inputs = inputs
        self._new_markers, forgotten = self._changed_markers(inputs)
        named = [*(user for user, _ in inputs.preferences), *self._new_markers]
        self.unmarked, self.markers = state.erasures.renewed(named)
        self.markers |= {state.erasures.marker(user): marker for user, marker in self._new_markers.items()}
        listens = inputs.listens
        self.listens = self._after_erasure(listens) if listens and len(listens.user_ids) else None
        self.vectors = self._usable(inputs.vectors) if inputs.vectors else None
        ids = list(self.listens.user_ids if self.listens else ())
        first_vector = len(ids)
        ids.extend(self.vectors.user_ids if self.vectors else ())
        rows, self.fresh = state.users.plan(ids)
        self.listen_rows, self.vector_rows = rows[:first_vector], rows[first_vector:]
        fresh_rows, _ = state.users.plan(self.fresh)
        self.known = KnownUsers(state.users, fresh_rows, self.fresh)
        self.preferences, self.waiting = self._preferences(fresh_rows)
        since = state.erasures.since(self.fresh)
        self.fresh_since = {
            row: self._new_markers[user].since if user in self._new_markers else time
            for row, user, time in zip(fresh_rows.tolist(), self.fresh, since.tolist(), strict=True)
            if time > 0 or user in self._new_markers
        }
        # Whoever is erased and is not even known has nothing to forget; the marker is set all the same.
        rows = state.users.find(list(forgotten)).tolist()
        self.erased_until = {row: time for row, time in zip(rows, forgotten.values(), strict=True) if row >= 0}
        self.erased = np.array(sorted(self.erased_until), np.int64)

    def since(self, user_ids: Sequence[str]) -> F64:
        """Up to when nothing of each user counts, this batch included, float64 (n,), Unix seconds; 0 or less: all does;
        infinity: nothing does."""
        state = self._state
        rows = state.users.find(user_ids)
        since = state.since(rows)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown) and len(state.erasures):
            since[unknown] = state.erasures.since([user_ids[at] for at in unknown.tolist()])
        if self._new_markers:
            for at, user in enumerate(user_ids):
                if user in self._new_markers:
                    since[at] = self._new_markers[user].since
        return since

    def with_erasure_times(self, pushes: list[Push]) -> list[Push]:
        """The pushes; those to users who were erased before tell when: what was pushed before that is forgotten."""
        if self._nobody_erased:
            return pushes
        since = self.since([push.user_id for push in pushes]).tolist()
        return [
            msgspec.structs.replace(push, erased_at=time) if time > 0 else push
            for push, time in zip(pushes, since, strict=True)
        ]

    def withdrawn(self) -> I64:
        """The rows of users who have their history's vector again, int64, ascending."""
        vectors = self._inputs.vectors
        if vectors is None:
            return np.zeros(0, np.int64)
        gone = list(vectors.withdrawn)
        if vectors.space != self._state.songs.space:
            # A vector of another space than the one in use is none here.
            gone += vectors.user_ids
        rows = self._state.users.find(gone)
        return np.unique(rows[rows >= 0])

    @property
    def _nobody_erased(self) -> bool:
        return not len(self._state.erasures) and not self._new_markers

    def _changed_markers(self, inputs: PartitionInputs) -> tuple[dict[str, Marker], dict[str, float]]:
        """The markers that change, by id; and up to when what is held of whom is to be forgotten.

        Of a request that was obeyed already nothing changes: requests are read again at every start.
        """
        known = self._state.erasures
        changed: dict[str, Marker] = {}
        forgotten: dict[str, float] = {}

        def take(user: str, before: Marker, after: Marker) -> None:
            if after != before:
                changed[user] = after
            if after.since > before.since:
                forgotten[user] = after.since

        for user, time in inputs.erasures:
            before = changed.get(user) or known.of(user)
            take(user, before, before.erase(max(time, _EARLIEST)))
        # Who never objected has nothing to take back.
        if known.objected or not all(allowed for _, _, allowed in inputs.profiling):
            for user, time, allowed in inputs.profiling:
                before = changed.get(user) or known.of(user)
                take(user, before, before.says(max(time, _EARLIEST), allowed))
        return changed, forgotten

    def _preferences(self, fresh_rows: I64) -> tuple[dict[int, Preferences | None], dict[bytes, Preferences | None]]:
        """What this batch says: by row of users who have one, or get one by it; of the others by their key."""
        table, said = self._state.preferences, dict(self._inputs.preferences)
        found = self._state.users.find(list(said)).tolist()
        by_row = {row: wish for row, wish in zip(found, said.values(), strict=True) if row >= 0}
        by_key = {user: wish for row, (user, wish) in zip(found, said.items(), strict=True) if row < 0}
        waiting: dict[bytes, Preferences | None] = {}
        if table.waiting or by_key:
            columns = zip(fresh_rows.tolist(), self.fresh, table.waited(self.fresh), strict=True)
            for row, user, before in columns:
                wish = by_key.pop(user, before)
                if before is not None:
                    waiting[table.key(user)] = None
                if wish is not None:
                    by_row[row] = wish
        return by_row, waiting | {table.key(user): wish for user, wish in by_key.items()}

    def _after_erasure(self, listens: Listens) -> Listens | None:
        """The listens that count; those from before their user's erasure do not."""
        n = len(listens.user_ids)
        marks = n if listens.marks is None else len(listens.marks)
        if not len(listens.song_ids) == len(listens.weights) == len(listens.times) == marks == n:
            raise ValueError("the columns of a batch of listens have different lengths")
        if self._nobody_erased:
            return listens
        keep = np.flatnonzero(listens.times > self.since(listens.user_ids))
        if len(keep) == n:
            return listens
        if not len(keep):
            return None
        return Listens(
            [listens.user_ids[at] for at in keep.tolist()],
            [listens.song_ids[at] for at in keep.tolist()],
            listens.weights[keep],
            listens.times[keep],
            None if listens.marks is None else listens.marks[keep],
        )

    def _usable(self, vectors: OutsideVectors) -> OutsideVectors | None:
        """The vectors from outside that count: of the space in use, and not from before their user's erasure."""
        if vectors.space != self._state.songs.space or not len(vectors.user_ids):
            return None
        if self._nobody_erased:
            return vectors
        keep = np.flatnonzero(vectors.times > self.since(vectors.user_ids))
        if not len(keep):
            return None
        ids = [vectors.user_ids[at] for at in keep.tolist()]
        return OutsideVectors(vectors.space, ids, vectors.vectors[keep], vectors.times[keep])
