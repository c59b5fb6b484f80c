"""The state of a partition: its parts, and how a staged batch is taken over."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from targeting.arrays.id_table import I64, IdTable, grow, hash64
from targeting.campaigns import budget
from targeting.campaigns.campaign import CampaignRecord
from targeting.campaigns.spending import Bandit
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.live.live_campaigns import LiveCampaigns, LiveDelta
from targeting.live.user_view import UserView
from targeting.ranking.recalibration import Recalibration
from targeting.ranking.scoring import Ranking
from targeting.types import F64, PartitionOutputs, Preferences
from targeting.users.erasures import Erasures, Marker
from targeting.users.histories import HistoryChanges, UserHistories
from targeting.users.preferences import PreferenceTable
from targeting.users.push_log import Entries, PushLog
from targeting.users.score_thresholds import ScoreThresholds, ThresholdChanges
from targeting.users.taste_vectors import OutsideChanges


@dataclass(frozen=True, slots=True)
class StateChanges:
    """What a batch does to the state.

    Attributes:
        fresh: ids that become known, in the order of their rows; ``fresh_since``: when each was last erased, by row.
        preferences: by row; ``waiting``: of users without a row, by
            :meth:`targeting.users.preferences.PreferenceTable.key`. None: forgotten.
        erased: int64, rows that are forgotten before anything else is applied; ``markers``: by which they are
            remembered, and those that are made anew with the current key; ``unmarked``: those whose place these take.
        campaigns: new or changed, by song id; None: forgotten. ``requests``: those whose request is written anew.
        heard: histories; ``outside``: vectors from outside; ``withdrawn``: int64, rows that have none any more.
        pushes: what was pushed, and what became of it.
        live: what becomes of the live campaigns.
        recalibration: what was learned of pushes from now on; None: as before.
    """

    fresh: list[str]
    fresh_since: Mapping[int, float]
    preferences: Mapping[int, Preferences | None]
    waiting: Mapping[bytes, Preferences | None]
    erased: I64
    markers: Mapping[bytes, Marker]
    unmarked: Sequence[bytes]
    campaigns: Mapping[str, CampaignRecord | None]
    requests: Set[str]
    heard: HistoryChanges | None
    outside: OutsideChanges | None
    withdrawn: I64
    pushes: Entries | None
    score_thresholds: ThresholdChanges | None
    live: LiveDelta
    recalibration: Recalibration | None


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch that is computed and not applied yet: what it does to the world, and to the state.

    Attributes:
        step: of the state that it was staged on; ``sweeps``: of the songs, whose slots it holds.
    """

    outputs: PartitionOutputs
    step: int
    sweeps: int
    changes: StateChanges


class State:
    """The parts of one partition. They change by :meth:`apply` and by being restored alone.

    Attributes:
        campaigns: those that are remembered, by song id; ``running``: the songs whose campaign did not end.
        next_due: when the next campaign expires or is to be forgotten, Unix seconds.
        step: how often the state changed.
        meta_written: whether the changelog says already whose it is.
    """

    def __init__(self, number: int, partitions: int, songs: Catalogue, config: TargetingConfig) -> None:
        if not 0 <= number < partitions:
            raise ValueError(f"there is no partition {number} of {partitions}")
        self.number = number
        self.partitions = partitions
        self.songs = songs
        self.config = config
        self.users = IdTable()
        self.histories = UserHistories(songs, config.history, config.half_life, config.half)
        self.push_log = PushLog()
        self.score_thresholds = ScoreThresholds()
        self.recalibration = Recalibration()
        self.erasures = Erasures(config.erasure_key, config.former_erasure_keys)
        self.preferences = PreferenceTable(config.policy)
        self.campaigns: dict[str, CampaignRecord] = {}
        self.running: set[str] = set()
        self.live_campaigns = LiveCampaigns(config.cat, config.scored, UserView(self.users, self.histories))
        self.bandit = Bandit(config.policy.salt, number, partitions, config.guaranteed)
        self.next_due = np.inf
        self.step = 0
        self.meta_written = False
        self._songs_of: dict[int, set[str]] = {}  # recording -> songs with a campaign
        self._released_in = self.histories.taste.space
        self._since = np.zeros(0, np.float64)
        self._slot_of_song: dict[str, int] = {}
        self._song_of_slot: dict[int, str] = {}
        self._campaign_slots = np.zeros(0, np.int64)
        self._slots_stale = False
        songs.held_by(self)

    @property
    def power(self) -> float:
        """By how much users' activity counts: as the calibration has it; in baselines' scores, not at all."""
        calibration, ranking = self.songs.calibration, self.config.relevance.ranking
        return calibration.activity if calibration and ranking is Ranking.DEFAULT else 0.0

    @property
    def basis(self) -> str | None:
        """What scores rest on: the space in use and, where activity counts, a blank and its power; None: no space."""
        space, power = self.songs.space, self.power
        return f"{space} {power!r}" if space is not None and power else space

    def songs_held(self) -> I64:
        """The slots of all songs that have a campaign; those that anybody heard are held by the histories."""
        return self.campaign_slots()

    def songs_gone(self, slots: I64) -> None:
        """Nothing is kept by the slot of a song without a campaign."""

    def since(self, rows: I64) -> F64:
        """Up to when nothing of known users counts, float64 (n,), Unix seconds; minus infinity: all counts."""
        found = np.full(len(rows), -np.inf)
        at = np.flatnonzero((rows >= 0) & (rows < len(self._since)))
        known = self._since[rows[at]]
        found[at] = np.where(known > 0, known, -np.inf)
        return found

    def songs_of(self, recording: int) -> Collection[str]:
        """The songs with a campaign that are this recording, by its 64-bit hash."""
        return self._songs_of.get(recording, ())

    def campaign_slots(self) -> I64:
        """The song slots of all remembered campaigns, int64, ascending."""
        if self._slots_stale:
            self._campaign_slots = np.sort(np.fromiter(self._slot_of_song.values(), np.int64, len(self._slot_of_song)))
            self._slots_stale = False
        return self._campaign_slots

    def campaign_of_slot(self, slot: int) -> str:
        """The song whose campaign has this slot."""
        return self._song_of_slot[slot]

    def apply(self, staged: Staged) -> None:
        """Takes over a staged batch: the last one staged, and nothing was applied since.

        Raises:
            ValueError: it was staged on another state.
        """
        if staged.step != self.step:
            raise ValueError(f"staged on step {staged.step}, the state is at step {self.step}")
        if staged.sweeps != self.songs.sweeps:
            raise ValueError("songs were forgotten since this was staged, and their slots may be others' now")
        changes = staged.changes
        self.users.take(changes.fresh)
        for row, time in changes.fresh_since.items():
            self._note_since(row, time)
        for hashed in changes.unmarked:
            self.erasures.drop(hashed)
        for hashed, marker in changes.markers.items():
            self.erasures.set(hashed, marker)
        if len(changes.erased):
            self._forget(changes)
        self.preferences.wait(changes.waiting)
        self.preferences.apply(changes.preferences)
        if changes.heard:
            self.histories.apply(changes.heard)
        if len(changes.withdrawn):
            self.histories.taste.drop_outside(changes.withdrawn)
        if changes.outside:
            self.histories.apply(changes.outside)
        if changes.pushes:
            self.push_log.apply(changes.pushes)
        if changes.score_thresholds:
            self.score_thresholds.apply(changes.score_thresholds)
        self.recalibration = changes.recalibration or self.recalibration
        for song_id, each in changes.campaigns.items():
            self._remember(song_id, each)
        if changes.campaigns:
            self._note_next_due()
        self.live_campaigns.apply(changes.live)
        self._release(changes)
        self.meta_written = True
        self.step += 1

    def restored(self, campaigns: Iterable[tuple[str, CampaignRecord]]) -> None:
        """Derives what the records imply, once each part has loaded its own.

        Args:
            campaigns: by song id; asked for once the keys of erasures are found to be known.

        Raises:
            ForeignKeyError: erased users are remembered with a key that is not known here.
        """
        self.erasures.loaded()
        for song_id, each in campaigns:
            self._remember(song_id, each)
        self.histories.loaded()
        self._released_in = self.histories.taste.space
        # Records that delete name users of whom nothing else may be known.
        self.release(self.users.rows())
        self.push_log.loaded(np.arange(len(self.users)))
        if len(self.erasures):
            ids = [user for user, _ in self.users.items()]
            since = self.erasures.since(ids)
            for row, time in zip(self.users.find(ids)[since > 0].tolist(), since[since > 0].tolist(), strict=True):
                self._note_since(row, time)
        self._note_next_due()
        left = {song_id: self.left(self.campaigns[song_id]) for song_id in sorted(self.running)}
        self.live_campaigns.restored(self.basis, left, np.flatnonzero(self._since > 0))
        self.step += 1

    def left(self, each: CampaignRecord) -> int:
        """How many pushes of a campaign's budget are this partition's still."""
        song_hash = int(hash64([each.match.song_id])[0])
        return max(0, budget.share(each.match.budget, self.number, self.partitions, song_hash) - each.counts.pushed)

    def _forget(self, changes: StateChanges) -> None:
        self._forget_rows(changes.erased)
        for row in changes.erased.tolist():
            self._note_since(row, changes.markers[self.erasures.marker(self.users.id_of(row))].since)

    def _release(self, changes: StateChanges) -> None:
        """Gives back the rows of users of whom nothing is left."""
        if self.histories.taste.space is not self._released_in:
            # Vectors from outside went with their space.
            self._released_in = self.histories.taste.space
            self.release(self.users.rows())
        elif len(changes.erased) or len(changes.withdrawn):
            self.release(np.union1d(changes.erased, changes.withdrawn))

    def release(self, rows: I64) -> None:
        """Gives back those of the rows, all in use, that hold nothing: their ids are nowhere in memory any more."""
        rows = rows[~(self.histories.holds(rows) | self.push_log.holds(rows) | self.score_thresholds.holds(rows))]
        if not len(rows):
            return
        ids = [self.users.id_of(row) for row in rows.tolist()]
        self.preferences.leave(rows, ids)
        self._forget_rows(rows)
        self._since[rows[rows < len(self._since)]] = 0
        self.users.release(ids)

    def _forget_rows(self, rows: I64) -> None:
        self.live_campaigns.forget(rows)
        self.histories.forget(rows)
        self.push_log.forget(rows)
        self.score_thresholds.forget(rows)

    def _note_since(self, row: int, time: float) -> None:
        grow(self._since, row + 1)
        self._since[row] = time

    def _remember(self, song_id: str, each: CampaignRecord | None) -> None:
        self._slots_stale = True
        before = self.campaigns.pop(song_id, None)
        self.running.discard(song_id)
        self.bandit.remember(before, each)
        if before:
            self._song_of_slot.pop(self._slot_of_song.pop(song_id), None)
            recording = int(hash64([before.match.recording])[0])
            self._songs_of[recording].discard(song_id)
            if not self._songs_of[recording]:
                del self._songs_of[recording]
        if each is None:
            return
        self.campaigns[song_id] = each
        slot = int(self.songs.slots([song_id])[0])
        self._slot_of_song[song_id] = slot
        self._song_of_slot[slot] = song_id
        self._songs_of.setdefault(int(hash64([each.match.recording])[0]), set()).add(song_id)
        if each.ended is None:
            self.running.add(song_id)

    def _note_next_due(self) -> None:
        self.next_due = min((due(each, self.config) for each in self.campaigns.values()), default=np.inf)


def due(each: CampaignRecord, config: TargetingConfig) -> float:
    """When a campaign expires, or, once it has ended, is to be forgotten; Unix seconds."""
    if each.ended is None:
        return each.match.expires_at
    # As long as its request may come again, and not before its life is over.
    return max(each.ended_at, each.match.expires_at) + config.ended_days * 86_400
