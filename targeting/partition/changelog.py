"""The records that stand for a partition's state: writing and reading them.

Their keys are those of :mod:`targeting.partition.state_keys`.

Everything else is derived from these records, from the songs' vectors, and from preferences and vectors from outside,
whose topics are their own changelogs: they come back through ``PartitionInputs``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec
import numpy as np

from targeting.arrays.id_table import I64
from targeting.campaigns import campaign
from targeting.campaigns.campaign import CampaignRecord
from targeting.partition.state import State, StateChanges
from targeting.partition.state_keys import (
    ACCOUNT,
    ANSWERS,
    ERASED,
    INTEREST,
    META,
    PUSHED,
    REQUEST,
    SHAPE,
    USER,
)
from targeting.ranking import recalibration
from targeting.ranking.recalibration import Recalibration
from targeting.users import history_record
from targeting.users.score_thresholds import ScoreThresholds

# Records taken from the changelog at once, or users encoded at once: enough to be quick, some 20 MB of them.
_CHUNK = 4000

_NOTHING_LEARNED = Recalibration().encode()


class ForeignStateError(Exception):
    """The changelog is another partition's, or of another number of partitions.

    Users would have changed partition while what was pushed to them stayed behind, so nothing may start.
    """


def records_of(state: State, changes: StateChanges, id_of: Callable[[int], str]) -> list[tuple[bytes, bytes | None]]:
    """The records that say what a batch changes, one for each changed key; None deletes.

    Args:
        state: before the batch.
        id_of: the id of the user in a row, of those who become known too.
    """
    records: dict[bytes, bytes | None] = {} if state.meta_written else {META: _meta(state)}
    records |= dict.fromkeys((ERASED + hashed for hashed in changes.unmarked), None)
    for hashed, marker in changes.markers.items():
        records[ERASED + hashed] = state.erasures.encode(marker)
    for row in changes.erased.tolist():
        gone = id_of(row).encode()
        records |= {USER + gone: None, PUSHED + gone: None, INTEREST + gone: None}
    if heard := changes.heard:
        records |= zip(_keys(USER, heard.users, id_of), state.histories.encode(heard), strict=True)
    if pushes := changes.pushes:
        records |= zip(_keys(PUSHED, pushes.users, id_of), state.push_log.encode(pushes), strict=True)
    if moved := changes.score_thresholds:
        records |= zip(_keys(INTEREST, moved.users, id_of), ScoreThresholds.encode(moved), strict=True)
    if changes.recalibration:
        records[ANSWERS] = changes.recalibration.encode()
    for song_id, changed in changes.campaigns.items():
        key = song_id.encode()
        if changed is None:
            records |= {REQUEST + key: None, ACCOUNT + key: None}
            continue
        if song_id in changes.requests:
            records[REQUEST + key] = campaign.encode_request(changed.match)
        records[ACCOUNT + key] = campaign.encode_account(changed)
    for song_id, record in changes.live.records.items():
        records[SHAPE + song_id.encode()] = record
    return list(records.items())


def records(state: State) -> Iterator[tuple[bytes, bytes]]:
    """The records that a state amounts to."""
    if state.meta_written:
        yield META, _meta(state)
    if (learned := state.recalibration.encode()) != _NOTHING_LEARNED:
        yield ANSWERS, learned
    for song_id, each in state.campaigns.items():
        yield REQUEST + song_id.encode(), campaign.encode_request(each.match)
        yield ACCOUNT + song_id.encode(), campaign.encode_account(each)
    for song_id, record in state.live_campaigns.records.items():
        yield SHAPE + song_id.encode(), record
    for marker, record in state.erasures.records():
        yield ERASED + marker, record
    items = iter(state.users.items())
    while chunk := list(islice(items, _CHUNK)):
        rows = np.asarray([row for _, row in chunk], np.int64)
        encoded = history_record.encode(state.songs, *state.histories.history(rows))
        columns = zip(chunk, encoded, state.push_log.records(rows), state.score_thresholds.records(rows), strict=True)
        for (user, _), history, pushed, threshold in columns:
            if len(history) > 1:
                yield USER + user.encode(), history
            if pushed:
                yield PUSHED + user.encode(), pushed
            if threshold:
                yield INTEREST + user.encode(), threshold


def digest(state: State) -> str:
    """128 bits that two states share when their changelogs say the same, in hex.

    Computed from memory: a sum of hashes, one for each record that the state amounts to, so it depends
    neither on the order of events nor on rows.
    """
    total = 0
    for key, value in records(state):
        hashed = hashlib.blake2b(len(key).to_bytes(4, "little") + key + value, digest_size=16)
        total += int.from_bytes(hashed.digest(), "little")
    return f"{total % 2**128:032x}"


def restore(state: State, records: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Rebuilds a new state from changelog records in their order; of a key, the last record counts.

    Raises:
        ForeignStateError: the records are another partition's, or of another number of partitions.
        ForeignKeyError: erased users are remembered with a key that is not known here.
        ValueError: a record of an unknown kind or version, or broken.
    """
    source = iter(records)
    loader = _ChangelogLoader(state)
    while chunk := dict(islice(source, _CHUNK)):
        loader.take(chunk)
    state.restored(loader.campaigns())


def check(state: State, key: bytes, value: bytes | None) -> None:
    """Whether one changelog record can be read. ``state`` is one for this alone, and of no other use afterwards.

    Raises:
        ForeignStateError, ValueError: as :func:`restore`; and whatever bytes that were never written make of it.
    """
    loader = _ChangelogLoader(state)
    loader.take({key: value})
    for record in loader.requests.values():
        campaign.decode_request(record)
    for record in loader.accounts.values():
        campaign.decode_account(record)
    for song_id in list(state.live_campaigns.records):
        try:
            state.live_campaigns.restored(state.basis, {song_id: 1}, np.zeros(0, np.int64))
        finally:
            state.live_campaigns.records.clear()
            state.live_campaigns.cat = None


class _ChangelogLoader:
    """Loads records into a state: what stands for itself at once; campaigns are put together at the end."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.requests: dict[str, bytes] = {}
        self.accounts: dict[str, bytes] = {}

    def take(self, chunk: dict[bytes, bytes | None]) -> None:
        """Loads some records.

        Raises:
            ForeignStateError, ValueError: as :func:`restore`.
        """
        state = self._state
        users: dict[bytes, list[tuple[str, bytes]]] = {USER: [], PUSHED: [], INTEREST: []}
        songs = {REQUEST: self.requests, ACCOUNT: self.accounts, SHAPE: state.live_campaigns.records}
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
                state.erasures.load(key[1:], value)
            elif key == ANSWERS:
                state.recalibration = recalibration.decode(value) if value else Recalibration()
            elif kind == META:
                if value != (own := _meta(state)):
                    raise ForeignStateError(f"the changelog says {(value or b'').decode()}, this is {own.decode()}")
                state.meta_written = True
            else:
                raise ValueError(f"a changelog record of unknown kind {kind!r}")
        if users[USER]:
            lengths, entries = history_record.decode([value for _, value in users[USER]])
            slots = state.songs.slots_of_hashes(entries["song"])
            state.histories.load(self._rows(users[USER]), lengths, slots, entries["weight"], entries["time"])
        if users[PUSHED]:
            state.push_log.load(self._rows(users[PUSHED]), [value for _, value in users[PUSHED]])
        if users[INTEREST]:
            state.score_thresholds.load(self._rows(users[INTEREST]), [value for _, value in users[INTEREST]])

    def campaigns(self) -> Iterator[tuple[str, CampaignRecord]]:
        """The campaigns that the records taken stand for, by song id; decoded one by one.

        Raises:
            ValueError: a request without an account, or an account without a request; a broken record.
        """
        if alone := self.requests.keys() ^ self.accounts.keys():
            raise ValueError(f"campaign {min(alone)!r} has a request or an account, not both")
        return ((song_id, campaign.decode(record, self.accounts[song_id])) for song_id, record in self.requests.items())

    def _rows(self, records: list[tuple[str, bytes]]) -> I64:
        users = self._state.users
        rows, fresh = users.plan([user for user, _ in records])
        users.take(fresh)
        return rows


def _meta(state: State) -> bytes:
    return msgspec.json.encode({"version": 2, "partition": state.number, "partitions": state.partitions})


def _keys(kind: bytes, rows: I64, id_of: Callable[[int], str]) -> list[bytes]:
    return [kind + id_of(row).encode() for row in rows.tolist()]
