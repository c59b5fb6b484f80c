"""The live campaigns of a partition, and the users who match them.

A campaign that has pushes left is held in a :class:`targeting.live.incremental_cat.IncrementalCat`: every user whose
vector is new or changes is scored against all of them at once. What is staged here touches nothing;
:meth:`LiveCampaigns.apply` does.

A campaign's statistics move with every batch, its record is written when they have moved enough, a few records a batch.
So what the changelog holds is at most a little behind, and a restart loses that little: no push, count or cap rests
on it. ``records`` are what was written, and what the digest tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, U64, hash64
from targeting.campaigns.spending import Plan
from targeting.clustering.kmeans import bottom
from targeting.live.cat_config import CatConfig
from targeting.live.incremental_cat import CampaignPacing, IncrementalCat
from targeting.live.user_view import UserSubset, UserView
from targeting.ranking.activity import factors
from targeting.ranking.scored import Scored
from targeting.types import F32, Match, Prototypes

# Records written in a batch because statistics moved, some 20 kB each: they must not outweigh the batch itself.
_WRITTEN = 4

# Campaigns opened in a batch after a change of spaces: each takes milliseconds, and requests wait.
_OPENED = 4

# Users who tell how scores are spread, and by how much the number of users may change before others are asked.
_ASKED = 2048
_GROWN = 1.1

# A candidate weighs its score to this power in its centroid (docs/adr/0017).
_POWER = 4.0


@dataclass(frozen=True, slots=True)
class UserHits:
    """Users who came near a song.

    Attributes:
        users: int64 (n,), rows, ascending.
        fits: float32 (n,), the cosine that, with the user's activity, is over the campaign's threshold.
        activity: float32 (n,), the factor of each.
        prototypes: int64 (n,), the nearest one.
    """

    song_id: str
    users: I64
    fits: F32
    activity: F32
    prototypes: I64


@dataclass(frozen=True, slots=True)
class Opened:
    """A campaign that begins to be scored: its record, the rows of the users in it, in its order, its prototypes."""

    record: bytes
    users: I64
    prototypes: Prototypes


@dataclass(slots=True)
class LiveDelta:
    """What a batch does to the campaigns that are alive.

    Attributes:
        basis, dimension: those that are opened are scored on it (:attr:`LiveCampaigns.basis`); the ones on another are
        gone.
        opened, closed: by song id.
        changed: users whose vector changes, their old vectors and their new ones.
        joined: users who are part of a song's audience from now on, by song id.
        left: pushes that remain, by song id.
        records: what the changelog says of a song from now on; None: nothing.
    """

    basis: str | None
    dimension: int
    opened: dict[str, Opened] = field(default_factory=dict)
    closed: dict[str, None] = field(default_factory=dict)
    changed: tuple[I64, F32, F32] | None = None
    joined: dict[str, I64] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    records: dict[str, bytes | None] = field(default_factory=dict)


class LiveCampaigns:
    """The campaigns of one partition that are scored against users who change.

    Args:
        config: how prototypes follow the stream.
        scored: campaigns at most.

    Attributes:
        records: of each song that is, or was when the changelog was written, scored: what the changelog says.
        basis: what their scores rest on, so that thresholds mean the same: the space in use, and the power of activity;
            ``cat`` holds them.
    """

    def __init__(self, config: CatConfig, scored: int, people: UserView) -> None:
        self.config, self.scored = config, scored
        self.people = people
        self.records: dict[str, bytes] = {}
        self.basis: str | None = None
        self.cat: IncrementalCat | None = None
        self.stale: dict[str, None] = {}
        """Songs whose record is behind, those longest first."""
        self._asked: F32 = np.zeros((0, 0), np.float32)
        self._asked_of: tuple[int, float] = 0, 0.0

    def __len__(self) -> int:
        return len(self.cat) if self.cat else 0

    def __contains__(self, song_id: str) -> bool:
        return self.cat is not None and song_id in self.cat

    @property
    def keys(self) -> Sequence[str]:
        """The songs that are scored, in the order in which they were opened."""
        return self.cat.keys if self.cat else ()

    @property
    def places(self) -> Sequence[str | None]:
        """The songs that are scored, by their place in the matrix product; None: none."""
        return self.cat.places if self.cat else ()

    def prototypes(self, song_id: str) -> Prototypes | None:
        """A campaign's prototypes as they stand; None for one that is not scored."""
        return self.cat.prototypes(song_id) if self.cat and song_id in self.cat else None

    def everyone(self, power: float) -> F32:
        """The unit vectors of some users, the same ones for a while, times their activity to this power: how scores are
        spread over all who have one."""
        used, (before, by) = self.people.users.used, self._asked_of
        if not before <= used <= before * _GROWN or power != by or self._asked.shape[1] != self.dimension:
            rows = self.people.users.rows()
            rows = rows[bottom(self.people.hashes(rows), 0, _ASKED)]
            asked = self.people.vectors(rows)
            if power:
                asked *= factors(self.people.histories.heard(rows), power)[:, None]
            self._asked, self._asked_of = asked[asked.any(axis=1)], (used, power)
        return self._asked

    @property
    def dimension(self) -> int:
        return int(self.people.histories.taste.of(np.zeros(0, np.int64)).shape[1])

    def forget(self, users: I64) -> None:
        """Takes the shares of erased users out, with all that they left behind as their vectors changed."""
        # Their vectors may be among those.
        self._asked, self._asked_of = np.zeros((0, 0), np.float32), (0, 0.0)
        if self.cat:
            for song_id in self.cat.forget(users):
                self.cat.recluster(song_id)
                self.stale[song_id] = None

    def restored(self, basis: str | None, left: dict[str, int], erased: I64) -> None:
        """Opens the campaigns that are alive from their records, where these rest on what is in use.

        Args:
            basis: as :attr:`basis`.
            left: pushes that remain, by song id.
            erased: rows of users who were erased. A record that names one of them, or one who is not even known, may be
                from before: they are no members any more, and it is written again.
        """
        self.basis = basis
        rows = np.delete(np.arange(len(self.people.users)), erased)
        hashes = self.people.hashes(rows)
        order = np.argsort(hashes)
        ranked = hashes[order]

        def rows_of(wanted: U64) -> I64:
            at = np.minimum(np.searchsorted(ranked, wanted), max(len(ranked) - 1, 0))
            return np.where(ranked[at] == wanted, rows[order[at]], -1) if len(ranked) else np.full(len(wanted), -1)

        for song_id, pushes in left.items():
            record = self.records.get(song_id)
            if record is not None and basis is not None and _basis(record) == basis:
                self._load(song_id, record, rows_of)
                if self.cat:
                    self.cat.remain(song_id, pushes)
                    # Vectors moved on since the record was written.
                    self.cat.recluster(song_id)
                    if (rows_of(self.cat.members_of(record[1 + record[0] :])) < 0).any():
                        self.stale[song_id] = None

    def apply(self, delta: LiveDelta) -> None:
        """Takes over what a batch did; the users' vectors are the new ones already."""
        if delta.basis != self.basis:
            self.basis, self.cat = delta.basis, None
            self.stale.clear()
        for song_id, record in delta.records.items():
            self.stale.pop(song_id, None)
            if record is None:
                self.records.pop(song_id, None)
            else:
                self.records[song_id] = record
        for song_id in delta.closed:
            if self.cat and song_id in self.cat:
                self.cat.close(song_id)
        for song_id, opened in delta.opened.items():
            self._load(song_id, opened.record, partial(_in_order, opened.users))
        if self.cat is None:
            return
        # After the opening: a campaign is opened on the vectors from before the batch.
        if delta.changed:
            self.cat.observe(*delta.changed)
        for song_id, users in delta.joined.items():
            if song_id in self.cat:
                # As much as the best of the candidates.
                self.cat.join(song_id, users, self.people.vectors(users), np.ones(len(users), np.float32))
        for song_id, left in delta.left.items():
            if song_id in self.cat:
                self.cat.remain(song_id, left)
        for song_id in self.cat.due(_WRITTEN):
            self.cat.recluster(song_id)
            self.stale[song_id] = None

    def _load(self, song_id: str, record: bytes, rows: Callable[[U64], I64]) -> None:
        if self.cat is None:
            self.cat = IncrementalCat(self.dimension, self.config, self.people)
        self.cat.load(song_id, record[1 + record[0] :], rows)


class LiveStage:
    """What a batch does to the campaigns that are alive: asked and told piece by piece, touching nothing."""

    def __init__(self, live: LiveCampaigns, now: float) -> None:
        self._live = live
        self._now = now
        self._delta = LiveDelta(live.basis, live.dimension)

    def __len__(self) -> int:
        """How many campaigns are scored in this batch."""
        return len(self._live) if self._delta.basis == self._live.basis else 0

    def prototypes(self, song_id: str) -> Prototypes | None:
        """A campaign's prototypes, also of one that opens in this batch; None for one that is not scored."""
        if song_id in self._delta.opened:
            return self._delta.opened[song_id].prototypes
        return None if song_id in self._delta.closed else self._live.prototypes(song_id)

    def follow(self, basis: str | None, dimension: int) -> None:
        """What scores rest on now. On another one than before, every campaign has to be opened anew."""
        self._delta.basis, self._delta.dimension = basis, dimension

    def to_open(self, alive: Iterable[str]) -> list[str]:
        """Of the campaigns that are alive, some that are not scored and may be."""
        room = max(0, min(_OPENED, self._live.scored - self._open_now()))
        return list(islice((song_id for song_id in alive if not self._scores(song_id)), room))

    def open(self, match: Match, song_vector: F32, left: int, users: int, scored: Scored, power: float) -> None:
        """Scores users who change against a song from the next batch on.

        Where too many campaigns are scored already, the one that has been for longest makes room.

        Args:
            song_vector: float32 (d,), the song's unit vector along the axes of the space in use.
            left: pushes that remain.
            users: who may come near.
            scored: the song's candidates.
            power: of activity in scores.
        """
        live = self._live
        if not live.scored:
            return
        if self._open_now() >= live.scored:
            self.close(next(each for each in [*live.keys, *self._delta.opened] if self._scores(each)))
        people = live.people
        # Of what fits alone: the centroid is of tastes, whoever listens much.
        weights = np.power(np.maximum(scored.fit, 0), np.float32(_POWER))
        spend = CampaignPacing(left, self._now, match.expires_at, users, live.everyone(power))
        # The same that it would choose itself: vectors are read of these alone.
        salt = int(hash64([match.song_id])[0])
        chosen = bottom(people.hashes(scored.users), salt, live.config.sample)
        # Of these few alone: with rows up to a partition's last, a table of rows would be most of the work.
        some = UserSubset(people, scored.users[chosen])
        places = np.arange(len(chosen))
        cat = IncrementalCat(self._delta.dimension, live.config, some)
        cat.open(match.song_id, song_vector, places, some.vectors(places), weights[chosen], 0, spend)
        basis = (self._delta.basis or "").encode()
        record = bytes([len(basis)]) + basis + cat.encode(match.song_id)
        opened = Opened(record, some.rows[cat.members(match.song_id)], cat.prototypes(match.song_id))
        self._delta.opened[match.song_id] = opened
        self._delta.records[match.song_id] = record

    def close(self, song_id: str) -> None:
        """The song is not scored any more."""
        self._delta.opened.pop(song_id, None)
        self._delta.closed[song_id] = None
        if song_id in self._live.records:
            self._delta.records[song_id] = None
        else:
            self._delta.records.pop(song_id, None)

    def match(
        self,
        users: I64,
        old: F32,
        new: F32,
        activity: F32,
        thresholds: F32,
        open_: NDArray[np.bool_],
        plan: Plan | None,
    ) -> Iterator[UserHits]:
        """Users whose vectors change, and the campaigns that want them, those first whose turn it is.

        Args:
            users: int64 (m,), rows, each of them once.
            old, new: float32 (m, d), unit or zero.
            activity: float32 (m,): what their scores are multiplied with.
            thresholds: float32 (m,): who has a higher one needs a higher score.
            open_: bool (m,): who may be pushed at all.
            plan: how campaigns spend, in the order of :attr:`LiveCampaigns.places`; None: as the time has it.
        """
        live = self._live
        self._delta.changed = users, old, new
        if live.cat is None or not len(self):
            return
        scored = np.flatnonzero(open_)
        asked = new[scored]
        # The product is as long as what is asked with: so it is the score itself that meets the thresholds.
        lengths = activity[scored] / thresholds[scored]
        asked *= lengths[:, None]
        hits = live.cat.score(asked, self._now, plan)
        if not len(hits):
            return
        order = np.lexsort((users[scored[hits.rows]], hits.campaigns))
        each, first = np.unique(hits.campaigns[order], return_index=True)
        keys, parts = [live.cat.key(campaign) for campaign in each.tolist()], np.split(order, first[1:])
        ranked = list(range(len(keys)))
        if plan is not None:
            priorities = plan.priorities[each].tolist()
            ranked.sort(key=lambda campaign: (-priorities[campaign], keys[campaign]))
        for campaign in ranked:
            at = parts[campaign]
            yield UserHits(
                keys[campaign],
                users[scored[hits.rows[at]]],
                np.minimum(hits.scores[at] / lengths[hits.rows[at]], 1),
                activity[scored[hits.rows[at]]],
                hits.prototypes[at],
            )

    def joined(self, song_id: str, users: I64) -> None:
        """These users are part of the song's audience from now on."""
        self._delta.joined[song_id] = np.union1d(self._delta.joined.get(song_id, np.zeros(0, np.int64)), users)

    def left(self, song_id: str, pushes: int) -> None:
        """So many pushes remain."""
        self._delta.left[song_id] = pushes

    def delta(self) -> LiveDelta:
        """All of it, with a few of the records that fell behind."""
        live = self._live
        if live.cat and len(self):
            waiting = (each for each in live.stale if each in live.cat and each not in self._delta.records)
            basis = (live.basis or "").encode()
            for song_id in islice(waiting, _WRITTEN):
                self._delta.records[song_id] = bytes([len(basis)]) + basis + live.cat.encode(song_id)
        return self._delta

    def _open_now(self) -> int:
        gone = sum(each in self._live for each in self._delta.closed) if len(self) else 0
        return len(self) - gone + len(self._delta.opened)

    def _scores(self, song_id: str) -> bool:
        if song_id in self._delta.opened:
            return True
        return len(self) > 0 and song_id in self._live and song_id not in self._delta.closed


def _in_order(users: I64, _: U64) -> I64:
    return users


def _basis(record: bytes) -> str:
    return record[1 : 1 + record[0]].decode()
