"""Users as incremental CAT sees them: by row, all of a partition or some."""

from __future__ import annotations

from dataclasses import dataclass

from targeting.arrays.id_table import I64, U64, IdTable
from targeting.types import F32
from targeting.users.histories import UserHistories


@dataclass(frozen=True, slots=True)
class UserView:
    """The users of the partition, as :class:`targeting.live.incremental_cat.Users`."""

    users: IdTable
    histories: UserHistories

    def hashes(self, rows: I64) -> U64:
        return self.users.hashes(rows)

    def vectors(self, rows: I64) -> F32:
        return self.histories.taste.of(rows)


@dataclass(frozen=True, slots=True)
class UserSubset:
    """Some of the users, as :class:`targeting.live.incremental_cat.Users`; a row is the place of the user's row in
    ``rows``.
    """

    people: UserView
    rows: I64

    def hashes(self, places: I64) -> U64:
        return self.people.hashes(self.rows[places])

    def vectors(self, places: I64) -> F32:
        return self.people.vectors(self.rows[places])
