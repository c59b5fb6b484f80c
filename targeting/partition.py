"""What is the whole state of one partition, staged, applied, restored, digested?

The changelog's keys, by their first byte:

| key | value |
|---|---|
| ``m`` | which partition of how many this is |
| ``u`` user id | the user's history (:mod:`targeting.audience`) |
| ``p`` user id | what the user was pushed (:mod:`targeting.ledger`) |
| ``c`` song id | a campaign (:mod:`targeting.campaign`) |

Everything else is derived from these records, from the songs' vectors, and from the preferences, whose
topic is their own changelog: they come back through ``Inputs``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import msgspec
import numpy as np

from targeting import audience, budget, campaign, prototypes, relevance
from targeting.audience import Audience, Heard
from targeting.campaign import Campaign
from targeting.decision import choose
from targeting.ledger import Entries, Ledger
from targeting.policy import Consent, Policy, without
from targeting.slots import I64, Slots, hash64
from targeting.songs import Songs
from targeting.types import Account, End, Inputs, Listens, Match, Outputs, Preferences, Prototypes, Push, Takedown

META, USER, PUSHED, CAMPAIGN = b"m", b"u", b"p", b"c"

# Records taken from the changelog at once, or users encoded at once: enough to be quick, some 20 MB of them.
_CHUNK = 20_000


class ForeignStateError(Exception):
    """The changelog is another partition's, or of another number of partitions.

    Users would have changed partition while what was pushed to them stayed behind, so nothing may start.
    """


@dataclass(frozen=True, slots=True)
class Config:
    """How a partition decides.

    Attributes:
        at_once: share of the budget that is spent on the request itself.
        history: songs remembered of a user.
        half_life: days in which a song's weight in its listener's vector halves.
        least_chance: nobody is pushed whose chance of a listen is less; obeyed where scores are calibrated
            (:attr:`targeting.songs.Songs.calibration`).
    """

    policy: Policy = field(default_factory=Policy)
    relevance: relevance.Relevance = field(default_factory=relevance.Relevance)
    clustering: prototypes.Clustering = field(default_factory=prototypes.Clustering)
    at_once: float = budget.AT_ONCE
    history: int = audience.HISTORY
    half_life: float = audience.HALF_LIFE
    least_chance: float = 0.0


@dataclass(frozen=True, slots=True)
class Staged:
    """What a batch does to the world (``outputs``), and to the state once it is applied."""

    outputs: Outputs
    step: int
    fresh: list[str]
    preferences: Mapping[int, Preferences | None]
    campaigns: Mapping[str, Campaign]
    heard: Heard | None
    pushed: Entries | None


@dataclass(slots=True)
class _Batch:
    """The batch being staged: what its later commands must see of its earlier ones."""

    now: float
    preferences: Mapping[int, Preferences | None]
    campaigns: dict[str, Campaign] = field(default_factory=dict)
    pushed: dict[int, list[I64]] = field(default_factory=dict)  # recording -> rows
    pushes: list[Push] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)


class Partition:
    """A hash-share of the users: their histories, who was pushed what, and the songs' campaigns.

    Not thread-safe. ``stage`` leaves the state as it is; of a song id that it meets for the first time, the
    shared :class:`Songs` keeps the slot whether or not the batch is applied.
    """

    def __init__(self, number: int, partitions: int, songs: Songs, config: Config | None = None) -> None:
        if not 0 <= number < partitions:
            raise ValueError(f"there is no partition {number} of {partitions}")
        self.number = number
        self.partitions = partitions
        self._songs = songs
        self._config = config or Config()
        self._users = Slots()
        self._audience = Audience(songs, self._config.history, self._config.half_life)
        self._ledger = Ledger()
        self._consent = Consent(self._config.policy)
        self._campaigns: dict[str, Campaign] = {}
        self._live: set[str] = set()
        self._next_expiry = np.inf
        self._step = 0
        self._meta = msgspec.json.encode({"version": 1, "partition": number, "partitions": partitions})
        self._meta_written = False

    @property
    def users(self) -> int:
        """The number of users that are known."""
        return self._users.used

    @property
    def campaigns(self) -> int:
        """The number of campaigns that are alive."""
        return len(self._live)

    @property
    def nbytes(self) -> int:
        """Bytes of histories, listeners and vectors."""
        return self._audience.nbytes

    def stage(self, inputs: Inputs) -> Staged:
        """What a batch does, without doing it. Commands see the state before the batch's listens.

        Raises:
            ValueError: columns of different lengths.
        """
        self._audience.follow_songs()
        listens = inputs.listens
        wishes = [(user, wish) for user, wish in inputs.preferences if wish or self._users.find([user])[0] >= 0]
        ids = [user for user, _ in wishes]
        ids.extend(listens.user_ids if listens else ())
        rows, fresh = self._users.plan(ids)
        batch = _Batch(
            inputs.now, {row: wish for row, (_, wish) in zip(rows[: len(wishes)].tolist(), wishes, strict=True)}
        )
        self._expire(batch)
        for command in inputs.commands:
            if isinstance(command, Match):
                self._match(batch, command)
            else:
                self._take_down(batch, command)
        heard, pushed = None, self._pushed(batch)
        changelog: list[tuple[bytes, bytes | None]] = [] if self._meta_written else [(META, self._meta)]
        if listens and len(listens.user_ids):
            heard = self._listen(batch, rows[len(wishes) :], listens)
            _, at = np.unique(rows[len(wishes) :], return_index=True)
            keys = [USER + listens.user_ids[each].encode() for each in at.tolist()]
            changelog += zip(keys, self._audience.encode(heard), strict=True)
        if pushed:
            keys = [PUSHED + self._users.id_of(row).encode() for row in pushed.users.tolist()]
            changelog += zip(keys, self._ledger.encode(pushed), strict=True)
        changelog += [(CAMPAIGN + song_id.encode(), campaign.encode(each)) for song_id, each in batch.campaigns.items()]
        return Staged(
            Outputs(changelog, batch.pushes, batch.accounts),
            self._step,
            fresh,
            batch.preferences,
            batch.campaigns,
            heard,
            pushed,
        )

    def apply(self, staged: Staged) -> None:
        """Takes over a staged batch: the last one staged, and nothing was applied since.

        Raises:
            ValueError: it was staged on another state.
        """
        if staged.step != self._step:
            raise ValueError(f"staged on step {staged.step}, the state is at step {self._step}")
        self._users.take(staged.fresh)
        self._consent.apply(staged.preferences)
        if staged.heard:
            self._audience.apply(staged.heard)
        if staged.pushed:
            self._ledger.apply(staged.pushed)
        if staged.campaigns:
            for song_id, each in staged.campaigns.items():
                self._remember(song_id, each)
            self._note_next_expiry()
        self._meta_written = True
        self._step += 1

    def restore(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Rebuilds the state from changelog records in their order; of a key, the last record counts.

        Raises:
            ForeignStateError: the records are another partition's, or of another number of partitions.
            ValueError: a record of an unknown kind or version, or broken.
        """
        source = iter(records)
        while chunk := dict(islice(source, _CHUNK)):
            self._restore(chunk)
        self._audience.loaded()
        self._ledger.loaded(np.arange(len(self._users)))
        self._note_next_expiry()
        self._step += 1

    def digest(self) -> str:
        """128 bits that two states share when their changelogs say the same, in hex.

        Computed from memory: a sum of hashes, one for each record that the state amounts to, so it depends
        neither on the order of events nor on rows.
        """
        total = 0
        for key, value in self._state():
            hashed = hashlib.blake2b(len(key).to_bytes(4, "little") + key + value, digest_size=16)
            total += int.from_bytes(hashed.digest(), "little")
        return f"{total % 2**128:032x}"

    def accounts(self) -> list[Account]:
        """The accounts of all campaigns that are alive, to be told again."""
        return [self._campaigns[song_id].account() for song_id in sorted(self._live)]

    def _expire(self, batch: _Batch) -> None:
        if batch.now < self._next_expiry:
            return
        for song_id in sorted(self._live):
            each = self._campaigns[song_id]
            if each.match.expires_at <= batch.now:
                self._end(batch, each, End.EXPIRED)

    def _end(self, batch: _Batch, each: Campaign, reason: End) -> None:
        ended = replace(each, ended=reason, ended_at=batch.now)
        batch.campaigns[each.match.song_id] = ended
        batch.accounts.append(ended.account())

    def _campaign(self, batch: _Batch, song_id: str) -> Campaign | None:
        return batch.campaigns.get(song_id) or self._campaigns.get(song_id)

    def _take_down(self, batch: _Batch, command: Takedown) -> None:
        each = self._campaign(batch, command.song_id)
        if each and each.ended is None and command.revision >= each.match.revision:
            self._end(batch, each, command.reason)

    def _match(self, batch: _Batch, match: Match) -> None:
        before = self._campaign(batch, match.song_id)
        if before and match.revision <= before.match.revision:
            account = before.account()
            if match.revision < before.match.revision:
                account = replace(account, revision=match.revision, ended=End.SUPERSEDED)
            batch.accounts.append(account)
            return
        if before and before.ended is None:
            self._end(batch, before, End.SUPERSEDED)
        if match.expires_at <= batch.now:
            nobody = Prototypes(np.zeros((0, len(match.vector)), np.float32), np.zeros(0, np.int64))
            now = Campaign(match, 0, 0, 0, nobody, End.EXPIRED, batch.now)
        else:
            now = self._serve(batch, match, before.pushed if before else 0)
        if before:
            now = replace(now, pushed=now.pushed + before.pushed, listened=before.listened)
        batch.campaigns[match.song_id] = now
        batch.accounts.append(now.account())

    def _serve(self, batch: _Batch, match: Match, spent: int) -> Campaign:
        song_hash, recording = (int(each) for each in hash64([match.song_id, match.recording]))
        scored = relevance.score(self._audience, self._songs, match, self._config.relevance)
        _, heard_it = self._audience.listeners(self._songs.find([match.song_id]))
        allowed = self._consent.allowed(match, scored.users, batch.preferences)
        allowed &= without(
            scored.users,
            [heard_it.astype(np.int64), self._ledger.users(recording), *batch.pushed.get(recording, [])],
        )
        at_once = budget.at_once(match.budget, self._config.at_once)
        most = budget.share(at_once, self.number, self.partitions, song_hash) - spent
        chosen = choose(
            match, scored, allowed, most, self._users, song_hash, self._songs.calibration, self._config.least_chance
        )
        batch.pushes.extend(chosen.pushes)
        batch.pushed.setdefault(recording, []).append(chosen.users)
        return Campaign(
            match, len(scored.users), len(chosen.users), 0, self._prototypes(match, scored.users, song_hash)
        )

    def _prototypes(self, match: Match, candidates: I64, song_hash: int) -> Prototypes:
        how = self._config.clustering
        if not self._songs.comparable(match):
            candidates = candidates[:0]
        sample = candidates[prototypes.bottom(self._users.hashes(candidates), song_hash, how.sample)]
        return prototypes.cluster(self._audience.vectors(sample), how, song_hash)

    def _listen(self, batch: _Batch, users: I64, listens: Listens) -> Heard:
        n = len(listens.user_ids)
        if not len(listens.song_ids) == len(listens.weights) == len(listens.times) == n:
            raise ValueError("the columns of a batch of listens have different lengths")
        heard = self._audience.plan(users, self._songs.slots(listens.song_ids), listens.weights, listens.times)
        live = [each for each in self._live if each not in batch.campaigns]
        live += [song_id for song_id, each in batch.campaigns.items() if each.ended is None]
        slots = self._songs.find(live)
        for at in np.flatnonzero(np.isin(slots, heard.new_songs)).tolist():
            each = batch.campaigns.get(live[at]) or self._campaigns[live[at]]
            more = int(np.count_nonzero(heard.new_songs == slots[at]))
            batch.campaigns[live[at]] = replace(each, listened=each.listened + more)
        return heard

    def _pushed(self, batch: _Batch) -> Entries | None:
        rows = [(recording, users) for recording, parts in batch.pushed.items() for users in parts]
        if not any(len(users) for _, users in rows):
            return None
        recordings = np.asarray([recording for recording, _ in rows], np.uint64)
        return self._ledger.plan(
            np.concatenate([users for _, users in rows]),
            np.repeat(recordings, [len(users) for _, users in rows]),
            batch.now,
        )

    def _remember(self, song_id: str, each: Campaign) -> None:
        self._campaigns[song_id] = each
        if each.ended is None:
            self._live.add(song_id)
        else:
            self._live.discard(song_id)

    def _note_next_expiry(self) -> None:
        self._next_expiry = min((self._campaigns[each].match.expires_at for each in self._live), default=np.inf)

    def _restore(self, chunk: dict[bytes, bytes | None]) -> None:
        kinds: dict[bytes, list[tuple[str, bytes]]] = {META: [], USER: [], PUSHED: [], CAMPAIGN: []}
        for key, value in chunk.items():
            if key[:1] not in kinds:
                raise ValueError(f"a changelog record of unknown kind {key[:1]!r}")
            kinds[key[:1]].append((key[1:].decode(), value or b""))
        for _, value in kinds[META]:
            if value != self._meta:
                raise ForeignStateError(f"the changelog says {value.decode()}, this is {self._meta.decode()}")
            self._meta_written = True
        for song_id, value in kinds[CAMPAIGN]:
            if value:
                self._remember(song_id, campaign.decode(value))
            else:
                self._campaigns.pop(song_id, None)
                self._live.discard(song_id)
        if kinds[USER]:
            lengths, entries = audience.decode([value for _, value in kinds[USER]])
            slots = self._songs.slots_of_hashes(entries["song"])
            self._audience.load(self._rows(kinds[USER]), lengths, slots, entries["weight"], entries["time"])
        if kinds[PUSHED]:
            self._ledger.load(self._rows(kinds[PUSHED]), [value for _, value in kinds[PUSHED]])

    def _rows(self, records: list[tuple[str, bytes]]) -> I64:
        rows, fresh = self._users.plan([user for user, _ in records])
        self._users.take(fresh)
        return rows

    def _state(self) -> Iterator[tuple[bytes, bytes]]:
        """The records that the state amounts to."""
        if self._meta_written:
            yield META, self._meta
        for song_id, each in self._campaigns.items():
            yield CAMPAIGN + song_id.encode(), campaign.encode(each)
        items = iter(self._users.items())
        while chunk := list(islice(items, _CHUNK)):
            rows = np.asarray([row for _, row in chunk], np.int64)
            histories = audience.encode(self._songs, *self._audience.history(rows))
            for (user, _), history, pushed in zip(chunk, histories, self._ledger.records(rows), strict=True):
                if len(history) > 1:
                    yield USER + user.encode(), history
                if pushed:
                    yield PUSHED + user.encode(), pushed
