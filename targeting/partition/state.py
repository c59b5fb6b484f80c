"""The state of a partition, and the records that stand for it.

The changelog's keys, by their first byte:

| key | value |
|---|---|
| ``m`` | which partition of how many this is |
| ``u`` user id | the user's history (:mod:`targeting.users.histories`) |
| ``p`` user id | what the user was pushed, and what became of it (:mod:`targeting.users.push_log`) |
| ``i`` user id | the user's boundary (:mod:`targeting.users.score_thresholds`) |
| ``e`` marker | an erased user, by keyed hash (:mod:`targeting.users.erasures`) |
| ``c`` song id | a campaign's request (:mod:`targeting.campaigns.campaign`) |
| ``n`` song id | a campaign's account |
| ``k`` song id | a campaign's prototypes and their statistics (:mod:`targeting.live.incremental_cat`) |
| ``a`` | what answers to pushes taught (:mod:`targeting.ranking.recalibration`) |

Everything else is derived from these records, from the songs' vectors, and from preferences and outside vectors, whose
topics are their own changelogs: they come back through ``PartitionInputs``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec
import numpy as np

from targeting.arrays.id_table import I64, Slots, grow, hash64
from targeting.campaigns import budget, campaign
from targeting.campaigns.campaign import CampaignRecord
from targeting.campaigns.spending import Bandit
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.live.live_campaigns import LiveCampaigns, LiveDelta
from targeting.live.user_view import UserView
from targeting.ranking import recalibration
from targeting.ranking.recalibration import Recalibration
from targeting.ranking.scoring import Ranking
from targeting.types import PartitionOutputs, Preferences
from targeting.users import history_record
from targeting.users.erasures import Erasures
from targeting.users.histories import HistoryChanges, UserHistories
from targeting.users.preferences import PreferenceTable
from targeting.users.push_log import Entries, PushLog
from targeting.users.score_thresholds import ScoreThresholds, ThresholdChanges
from targeting.users.taste_vectors import OutsideChanges

META, USER, PUSHED, INTEREST, ERASED = b"m", b"u", b"p", b"i", b"e"
REQUEST, ACCOUNT, SHAPE, ANSWERS = b"c", b"n", b"k", b"a"

# Records taken from the changelog at once, or users encoded at once: enough to be quick, some 20 MB of them.
_CHUNK = 4000

_NOTHING_LEARNED = Recalibration().encode()


class ForeignStateError(Exception):
    """The changelog is another partition's, or of another number of partitions.

    Users would have changed partition while what was pushed to them stayed behind, so nothing may start.
    """


@dataclass(frozen=True, slots=True)
class Staged:
    """What a batch does to the world (``outputs``), and to the state once it is applied.

    Attributes:
        step: of the state that it was staged on; ``sweeps``: of the songs, whose slots it holds.
        fresh: ids that become known, in the order of their rows; ``fresh_since``: when each was last erased.
        preferences: by row; ``waiting``: of users without a row, by
            :meth:`targeting.users.preferences.PreferenceTable.key`.
        erased: rows that are forgotten before anything else is applied; ``markers``: by which they are remembered, and
            those that are made anew with the current key; ``unmarked``: those whose place these take.
        campaigns: new or changed, by song id; None: forgotten.
        outside: vectors from outside; ``withdrawn``: rows that have none any more.
        shift: what becomes of the living campaigns.
        recalibration: what was learned of pushes from now on; None: as before.
    """

    outputs: PartitionOutputs
    step: int
    sweeps: int
    fresh: list[str]
    fresh_since: dict[int, float]
    preferences: Mapping[int, Preferences | None]
    waiting: Mapping[bytes, Preferences | None]
    erased: I64
    markers: Mapping[bytes, float]
    unmarked: Sequence[bytes]
    campaigns: Mapping[str, CampaignRecord | None]
    heard: HistoryChanges | None
    outside: OutsideChanges | None
    withdrawn: I64
    ledger: Entries | None
    interest: ThresholdChanges | None
    shift: LiveDelta
    recalibration: Recalibration | None


class State:
    """The parts of one partition. They change by :meth:`apply` and :meth:`restore` alone."""

    def __init__(self, number: int, partitions: int, songs: Catalogue, config: TargetingConfig) -> None:
        if not 0 <= number < partitions:
            raise ValueError(f"there is no partition {number} of {partitions}")
        self.number = number
        self.partitions = partitions
        self.songs = songs
        self.config = config
        self.users = Slots()
        self.audience = UserHistories(songs, config.history, config.half_life, config.half)
        self.ledger = PushLog()
        self.interest = ScoreThresholds()
        self.recalibration = Recalibration()
        self.erasures = Erasures(config.erasure_key, config.former_erasure_keys)
        self.consent = PreferenceTable(config.policy)
        self.campaigns: dict[str, CampaignRecord] = {}
        self.living = LiveCampaigns(config.cat, config.scored, UserView(self.users, self.audience))
        self.bandit = Bandit(config.policy.salt, number, partitions, config.guaranteed)
        self.live: set[str] = set()
        self._songs_of: dict[int, set[str]] = {}  # recording -> songs with a campaign
        self.step = 0
        self.next_due = np.inf
        """When the next campaign expires or is to be forgotten, Unix seconds."""
        self.meta = msgspec.json.encode({"version": 2, "partition": number, "partitions": partitions})
        self.meta_written = False
        self._released_in = self.audience.space
        self._since = np.zeros(0, np.float64)
        self._slot_of_song: dict[str, int] = {}
        self._song_of_slot: dict[int, str] = {}
        self._campaign_slots = np.zeros(0, np.int64)
        self._slots_stale = False
        songs.held_by(self)

    @property
    def power(self) -> float:
        """By how much users' activity counts: as the calibration has it; in rivals' scores, not at all."""
        calibration, ranking = self.songs.calibration, self.config.relevance.ranking
        return calibration.activity if calibration and ranking is Ranking.DEFAULT else 0.0

    @property
    def basis(self) -> str | None:
        """What scores rest on: the space in use and, where activity counts, a blank and its power; None: no space."""
        space, power = self.songs.space, self.power
        return f"{space} {power!r}" if space is not None and power else space

    def songs_held(self) -> I64:
        """The slots of all songs that have a campaign; those that anybody heard are the audience's."""
        return self.campaign_slots()

    def songs_gone(self, slots: I64) -> None:
        """Nothing is kept by the slot of a song without a campaign."""

    def since(self, rows: I64) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """When known users were last erased, float64 (n,), Unix seconds; minus infinity: never."""
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
        self.users.take(staged.fresh)
        for row, time in staged.fresh_since.items():
            self._note_since(row, time)
        for marker in staged.unmarked:
            self.erasures.drop(marker)
        for marker, time in staged.markers.items():
            self.erasures.set(marker, time)
        if len(staged.erased):
            self._forget(staged)
        self.consent.wait(staged.waiting)
        self.consent.apply(staged.preferences)
        if staged.heard:
            self.audience.apply(staged.heard)
        if len(staged.withdrawn):
            self.audience.drop_outside(staged.withdrawn)
        if staged.outside:
            self.audience.apply(staged.outside)
        if staged.ledger:
            self.ledger.apply(staged.ledger)
        if staged.interest:
            self.interest.apply(staged.interest)
        self.recalibration = staged.recalibration or self.recalibration
        for song_id, each in staged.campaigns.items():
            self._remember(song_id, each)
        if staged.campaigns:
            self._note_next_due()
        self.living.apply(staged.shift)
        self._release(staged)
        self.meta_written = True
        self.step += 1

    def restore(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Rebuilds the state from changelog records in their order; of a key, the last record counts.

        Raises:
            ForeignStateError: the records are another partition's, or of another number of partitions.
            ForeignKeyError: erased users are remembered with a key that is not known here.
            ValueError: a record of an unknown kind or version, or broken.
        """
        source = iter(records)
        requests: dict[str, bytes] = {}
        accounts: dict[str, bytes] = {}
        while chunk := dict(islice(source, _CHUNK)):
            self._restore(chunk, requests, accounts)
        if alone := requests.keys() ^ accounts.keys():
            raise ValueError(f"campaign {min(alone)!r} has a request or an account, not both")
        self.erasures.loaded()
        for song_id, record in requests.items():
            counts, ended, ended_at = campaign.decode_account(accounts[song_id])
            self._remember(song_id, CampaignRecord(campaign.decode_request(record), counts, ended, ended_at))
        self.audience.loaded()
        self._released_in = self.audience.space
        # Records that delete name users of whom nothing else may be known.
        self.release(self.users.rows())
        self.ledger.loaded(np.arange(len(self.users)))
        if len(self.erasures):
            ids = [user for user, _ in self.users.items()]
            since = self.erasures.since(ids)
            for row, time in zip(self.users.find(ids)[since > 0].tolist(), since[since > 0].tolist(), strict=True):
                self._note_since(row, time)
        self._note_next_due()
        left = {each: self.left(self.campaigns[each]) for each in sorted(self.live)}
        self.living.restored(self.basis, left, np.flatnonzero(self._since > 0))
        self.step += 1

    def check(self, key: bytes, value: bytes | None) -> None:
        """Whether one changelog record can be read. For a state of its own, which is of no other use afterwards.

        Raises:
            ForeignStateError, ValueError: as :meth:`restore`; and whatever bytes that were never written make of it.
        """
        requests: dict[str, bytes] = {}
        accounts: dict[str, bytes] = {}
        self._restore({key: value}, requests, accounts)
        for record in requests.values():
            campaign.decode_request(record)
        for record in accounts.values():
            campaign.decode_account(record)
        for song_id in list(self.living.records):
            try:
                self.living.restored(self.basis, {song_id: 1}, np.zeros(0, np.int64))
            finally:
                self.living.records.clear()
                self.living.cat = None

    def left(self, each: CampaignRecord) -> int:
        """How many pushes of a campaign's budget are this partition's still."""
        song_hash = int(hash64([each.match.song_id])[0])
        return max(0, budget.share(each.match.budget, self.number, self.partitions, song_hash) - each.counts.pushed)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """The records that the state amounts to."""
        if self.meta_written:
            yield META, self.meta
        if (learned := self.recalibration.encode()) != _NOTHING_LEARNED:
            yield ANSWERS, learned
        for song_id, each in self.campaigns.items():
            yield REQUEST + song_id.encode(), campaign.encode_request(each.match)
            yield ACCOUNT + song_id.encode(), campaign.encode_account(each)
        for song_id, record in self.living.records.items():
            yield SHAPE + song_id.encode(), record
        for marker, record in self.erasures.records():
            yield ERASED + marker, record
        items = iter(self.users.items())
        while chunk := list(islice(items, _CHUNK)):
            rows = np.asarray([row for _, row in chunk], np.int64)
            encoded = history_record.encode(self.songs, *self.audience.history(rows))
            columns = zip(chunk, encoded, self.ledger.records(rows), self.interest.records(rows), strict=True)
            for (user, _), history, pushed, interest in columns:
                if len(history) > 1:
                    yield USER + user.encode(), history
                if pushed:
                    yield PUSHED + user.encode(), pushed
                if interest:
                    yield INTEREST + user.encode(), interest

    def digest(self) -> str:
        """128 bits that two states share when their changelogs say the same, in hex.

        Computed from memory: a sum of hashes, one for each record that the state amounts to, so it depends
        neither on the order of events nor on rows.
        """
        total = 0
        for key, value in self.records():
            hashed = hashlib.blake2b(len(key).to_bytes(4, "little") + key + value, digest_size=16)
            total += int.from_bytes(hashed.digest(), "little")
        return f"{total % 2**128:032x}"

    def _forget(self, staged: Staged) -> None:
        self._forget_rows(staged.erased)
        for row in staged.erased.tolist():
            self._note_since(row, staged.markers[self.erasures.marker(self.users.id_of(row))])

    def _release(self, staged: Staged) -> None:
        """Gives back the rows of users of whom nothing is left."""
        if self.audience.space is not self._released_in:
            # Vectors from outside went with their space.
            self._released_in = self.audience.space
            self.release(self.users.rows())
        elif len(staged.erased) or len(staged.withdrawn):
            self.release(np.union1d(staged.erased, staged.withdrawn))

    def release(self, rows: I64) -> None:
        """Gives back those of the rows, all in use, that hold nothing: their ids are nowhere in memory any more."""
        rows = rows[~(self.audience.holds(rows) | self.ledger.holds(rows) | self.interest.holds(rows))]
        if not len(rows):
            return
        ids = [self.users.id_of(row) for row in rows.tolist()]
        self.consent.leave(rows, ids)
        self._forget_rows(rows)
        self._since[rows[rows < len(self._since)]] = 0
        self.users.release(ids)

    def _forget_rows(self, rows: I64) -> None:
        self.living.forget(rows)
        self.audience.forget(rows)
        self.ledger.forget(rows)
        self.interest.forget(rows)

    def _note_since(self, row: int, time: float) -> None:
        grow(self._since, row + 1)
        self._since[row] = time

    def _remember(self, song_id: str, each: CampaignRecord | None) -> None:
        self._slots_stale = True
        before = self.campaigns.pop(song_id, None)
        self.live.discard(song_id)
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
            self.live.add(song_id)

    def _note_next_due(self) -> None:
        self.next_due = min((due(each, self.config) for each in self.campaigns.values()), default=np.inf)

    def _restore(
        self, chunk: dict[bytes, bytes | None], requests: dict[str, bytes], accounts: dict[str, bytes]
    ) -> None:
        users: dict[bytes, list[tuple[str, bytes]]] = {USER: [], PUSHED: [], INTEREST: []}
        songs: dict[bytes, dict[str, bytes]] = {REQUEST: requests, ACCOUNT: accounts, SHAPE: self.living.records}
        for key, value in chunk.items():
            kind = key[:1]
            if (of_kind := users.get(kind)) is not None:
                of_kind.append((key[1:].decode(), value or b""))
            elif kind in songs:
                if value is None:
                    songs[kind].pop(key[1:].decode(), None)
                else:
                    songs[kind][key[1:].decode()] = value
            elif kind == ERASED:
                self.erasures.load(key[1:], value)
            elif key == ANSWERS:
                self.recalibration = recalibration.decode(value) if value else Recalibration()
            elif kind == META:
                if value != self.meta:
                    raise ForeignStateError(
                        f"the changelog says {(value or b'').decode()}, this is {self.meta.decode()}"
                    )
                self.meta_written = True
            else:
                raise ValueError(f"a changelog record of unknown kind {kind!r}")
        if users[USER]:
            lengths, entries = history_record.decode([value for _, value in users[USER]])
            slots = self.songs.slots_of_hashes(entries["song"])
            self.audience.load(self._rows(users[USER]), lengths, slots, entries["weight"], entries["time"])
        if users[PUSHED]:
            self.ledger.load(self._rows(users[PUSHED]), [value for _, value in users[PUSHED]])
        if users[INTEREST]:
            self.interest.load(self._rows(users[INTEREST]), [value for _, value in users[INTEREST]])

    def _rows(self, records: list[tuple[str, bytes]]) -> I64:
        rows, fresh = self.users.plan([user for user, _ in records])
        self.users.take(fresh)
        return rows


def due(each: CampaignRecord, config: TargetingConfig) -> float:
    """When a campaign expires, or, once it has ended, is to be forgotten; Unix seconds."""
    if each.ended is None:
        return each.match.expires_at
    # As long as its request may come again, and not before its life is over.
    return max(each.ended_at, each.match.expires_at) + config.ended_days * 86_400
