"""One partition: staged, applied, restored, digested.

A deterministic state machine over a hash-share of the users: :mod:`targeting.partition.state` is what it is made of,
:mod:`targeting.partition.stage` what a batch does to it, :mod:`targeting.partition.changelog` the records of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition import changelog
from targeting.partition.changelog import ACCOUNT, ForeignStateError
from targeting.partition.stage import stage
from targeting.partition.state import Staged, State
from targeting.types import Account, PartitionInputs
from targeting.users.erasures import ForeignKeyError

__all__ = ["ACCOUNT", "ForeignKeyError", "ForeignStateError", "Partition", "Staged", "TargetingConfig"]


class Partition:
    """A hash-share of the users: their histories, who was pushed what, and the songs' campaigns.

    Not thread-safe. ``stage`` leaves the state as it is; of a song id that it meets for the first time, the
    shared :class:`Catalogue` keeps the slot, whether or not the batch is applied, until it looks for those nobody
    needs.
    """

    def __init__(self, number: int, partitions: int, songs: Catalogue, config: TargetingConfig | None = None) -> None:
        self.number = number
        self.partitions = partitions
        self._state = State(number, partitions, songs, config or TargetingConfig())
        self._unreported: set[str] = set()

    @property
    def users(self) -> int:
        """The number of users that are known."""
        return self._state.users.used

    @property
    def campaigns(self) -> int:
        """The number of campaigns that are alive."""
        return len(self._state.running)

    @property
    def scored(self) -> int:
        """The number of campaigns against which users who change are scored."""
        return len(self._state.live_campaigns)

    @property
    def nbytes(self) -> int:
        """Bytes of histories, listeners and vectors."""
        return self._state.histories.nbytes

    def stage(self, inputs: PartitionInputs) -> Staged:
        """What a batch does, without doing it. Commands see the state before the batch's listens.

        Raises:
            ValueError: columns of different lengths.
        """
        self._state.songs.plans(self._state)
        self._state.histories.follow_songs()
        return stage(self._state, inputs)

    def apply(self, staged: Staged) -> None:
        """Takes over a staged batch: the last one staged, and nothing was applied since.

        Raises:
            ValueError: it was staged on another state.
        """
        self._state.apply(staged)
        self._state.songs.planned(self._state)
        self._unreported.update(staged.changes.campaigns)

    def prepare(self, entries: int) -> bool:
        """Works on the coming space of the songs, ``entries`` of histories at most; True when nothing is left to do."""
        return self._state.histories.prepare(entries)

    def check(self, key: bytes, value: bytes | None) -> None:
        """Whether one changelog record can be read; see :func:`targeting.partition.changelog.check`."""
        changelog.check(self._state, key, value)

    def restore(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Rebuilds the state from changelog records in their order; of a key, the last record counts.

        Raises:
            ForeignStateError: the records are another partition's, or of another number of partitions.
            ForeignKeyError: erased users are remembered with a key that is not known here.
            ValueError: a record of an unknown kind or version, or broken.
        """
        changelog.restore(self._state, records)
        # What was counted last may not have been told: also of campaigns that ended, whose listens still promote songs.
        self._unreported.update(self._state.campaigns)

    def digest(self) -> str:
        """128 bits that two states share when their changelogs say the same, in hex."""
        return changelog.digest(self._state)

    def accounts(self) -> list[Account]:
        """The accounts of all campaigns that are alive, to be told again."""
        return [self._account(song_id) for song_id in sorted(self._state.running)]

    def changed_accounts(self) -> list[Account]:
        """The accounts that changed since this was last asked."""
        changed, self._unreported = sorted(self._unreported), set()
        return [self._account(song_id) for song_id in changed if song_id in self._state.campaigns]

    def _account(self, song_id: str) -> Account:
        return self._state.campaigns[song_id].account(self._state.live_campaigns.prototypes(song_id))
