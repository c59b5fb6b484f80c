"""One partition: the order of a batch, and how it is applied, restored, digested.

A deterministic state machine over a hash-share of the users: :mod:`targeting.partition.state` is what it is made of,
:mod:`targeting.partition.changelog` the records of it. A batch is computed without touching the state: preferences and
erasures; campaigns whose time is over; commands, in order, on the state before the batch's listens; listens and vectors
from outside; users whose vectors changed, against the live campaigns; what is known of pushes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition import changelog
from targeting.partition.campaigns_in_batch import CampaignCommands, CampaignsInBatch
from targeting.partition.changelog import ForeignStateError
from targeting.partition.feedback import Feedback, judged
from targeting.partition.live_pushes import LivePushes
from targeting.partition.outcome_check import checked
from targeting.partition.state import Staged, State, StateChanges
from targeting.partition.state_keys import ACCOUNT
from targeting.partition.users_in_batch import UsersInBatch
from targeting.types import Account, Listens, PartitionInputs, PartitionOutputs
from targeting.users.erasures import ForeignKeyError

__all__ = ["ACCOUNT", "ForeignKeyError", "ForeignStateError", "Partition", "Staged", "TargetingConfig"]


class Partition:
    """A hash-share of the users: their histories, who was pushed what, and the songs' campaigns.

    Not thread-safe. ``stage`` leaves the state as it is; of a song id that it meets for the first time, the
    shared :class:`Catalogue` keeps the slot, whether or not the batch is applied, until it looks for those nobody
    needs.

    Args:
        number: which partition, from 0.
        partitions: of how many.
        songs: the catalogue, shared by all partitions of a process.
        config: how it decides; None: the defaults.
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

    def user_ids(self) -> Iterator[str]:
        """Everyone who is known."""
        return (user for user, _ in self._state.users.items())

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
        self._state.histories.taste.follow_songs()
        return _staged(self._state, inputs)

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
        return self._state.histories.taste.prepare(entries)

    def check(self, key: bytes, value: bytes | None) -> None:
        """Whether one changelog record can be read. The partition is one for this alone, of no other use afterwards.

        Raises:
            ForeignStateError: the record is another partition's, or of another number of partitions.
            ValueError: a record of an unknown kind or version, or broken. Bytes that were never written may raise any
                other exception.
        """
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


def _staged(state: State, inputs: PartitionInputs) -> Staged:
    now = inputs.now
    users = UsersInBatch(state, inputs)
    known = judged(state, now, bool(inputs.commands))
    campaigns = CampaignsInBatch(state, users, known, now)
    campaigns.live.follow(state.basis, state.songs.dimension)

    commands = CampaignCommands(state, campaigns, now)
    commands.end_due()
    commands.obey(inputs.commands)
    commands.follow_space()

    feedback = Feedback(state, users, campaigns, now)
    heard = outside = None
    if users.listens or users.erased_until:
        listens = users.listens or Listens([], [], np.zeros(0, np.float32), np.zeros(0))
        songs = state.songs.slots(listens.song_ids)
        heard = state.histories.plan(
            users.listen_rows, songs, listens.weights, listens.times, forgotten=users.erased_until
        )
        feedback.count_listeners(heard)
    if users.vectors:
        outside = state.histories.taste.plan_outside(users.vector_rows, users.vectors.vectors)
    withdrawn = users.withdrawn()
    if heard or outside:
        LivePushes(state, users, campaigns, now, heard, outside, withdrawn).push()

    outcomes, refused = checked(state, users, campaigns, inputs.outcomes) if inputs.outcomes else (None, [])
    entries = state.push_log.plan(campaigns.added, feedback.marks(outcomes), now)
    thresholds = feedback.count_marks(entries)
    learned = feedback.learned(known, entries)
    accounts = campaigns.all_accounts()
    changes = StateChanges(
        fresh=users.fresh,
        fresh_since=users.fresh_since,
        preferences=users.preferences,
        waiting=users.waiting,
        erased=users.erased,
        markers=users.markers,
        unmarked=users.unmarked,
        campaigns=campaigns.changed,
        requests=campaigns.requests,
        heard=heard,
        outside=outside,
        withdrawn=withdrawn,
        pushes=entries,
        score_thresholds=thresholds,
        live=campaigns.live.delta(),
        recalibration=learned,
    )
    records = changelog.records_of(state, changes, users.known.id_of)
    outputs = PartitionOutputs(records, campaigns.pushes, accounts, refused, campaigns.suppressed)
    return Staged(outputs, state.step, state.songs.sweeps, changes)
