"""Incremental CAT: prototypes that follow the stream.

Incremental CAT (clustering-based audience targeting): a campaign's audience is a few centroids, and whoever comes near
them or the song itself is wanted. A deterministic sample of the audience (:func:`targeting.clustering.kmeans.bottom`)
is clustered; then every member whose vector changes takes its old share out of its centroid and puts a new one into the
nearest; what was put in later weighs more. Re-clustering the sample's vectors as they are begins anew.

All campaigns lie stacked in arrays (:mod:`targeting.live.centroid_sums`), and a batch moves them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, U64, hash64, mixed
from targeting.arrays.ragged_array import RaggedArray
from targeting.campaigns import pacing
from targeting.campaigns.spending import Plan
from targeting.clustering.kmeans import bottom
from targeting.clustering.ward_merge import centroids
from targeting.live import cat_record, reverse_scoring
from targeting.live.cat_config import CatConfig
from targeting.live.cat_record import MEMBER, SPENDING, CatRecord
from targeting.live.centroid_sums import HEAVIEST, CentroidSums, units
from targeting.live.reverse_scoring import Hits
from targeting.types import F32, F64, Prototypes

# Among the numbers of a campaign's spending (cat_record.SPENDING).
_REMAINING = 3


class Users(Protocol):
    """Who the rows are."""

    def hashes(self, rows: I64) -> U64:
        """The :func:`targeting.arrays.id_table.hash64` of their ids, uint64 (n,)."""
        ...

    def vectors(self, rows: I64) -> F32:
        """Their unit vectors, float32 (n, d), zero where there is none: those that :class:`IncrementalCat` was told
        last.
        """
        ...


@dataclass(frozen=True, slots=True)
class CampaignPacing:
    """What a campaign may spend on who comes near.

    Attributes:
        budget: pushes, from ``opened`` until ``ends``, Unix seconds.
        users: who may be scored in that time; ``everyone`` float32 (n, d) are the vectors of some who have one,
            as long as those that will be scored.
    """

    budget: int
    opened: float
    ends: float
    users: int
    everyone: F32


class IncrementalCat:
    """The active campaigns of one partition. Its methods change it at once; only :meth:`score` and readers do not.

    Between two records (:meth:`encode`) what moved is in memory only: a restart loses at most that drift, and the next
    re-clustering, which depends on nothing but the members' vectors, makes up for it. :meth:`forget` names the
    campaigns whose records must be written again.
    """

    # By campaign, and member. Of a place that is free: -1.
    _member: I64
    _rank: U64
    # By campaign.
    _seed: U64
    _scale: F64  # from weights to whole numbers
    _spending: F64  # (A, 6): the first arguments of pacing.thresholds

    def __init__(self, dimension: int, config: CatConfig, users: Users) -> None:
        self.config = config
        self._users = users
        self._centroid_sums = CentroidSums(dimension, config.centroids, config.sample, config.half_life)
        self._slot_of: dict[str, int] = {}
        self._keys: list[str | None] = []
        # For each user the places, campaign * sample + member, that the user has.
        self._places = RaggedArray(np.int64)
        self._allot(0)

    def __len__(self) -> int:
        return len(self._slot_of)

    def __contains__(self, key: str) -> bool:
        return key in self._slot_of

    @property
    def keys(self) -> Sequence[str]:
        """The campaigns, in the order in which they were opened or loaded."""
        return list(self._slot_of)

    def key(self, campaign: int) -> str:
        """The key of a campaign in :class:`Hits`.

        Raises:
            KeyError: it is closed.
        """
        found = self._keys[campaign]
        if found is None:
            raise KeyError(campaign)
        return found

    def open(
        self, key: str, song_vector: F32, users: I64, vectors: F32, weights: F32, seed: int, spend: CampaignPacing
    ) -> None:
        """Begins a campaign: a sample of the candidates is clustered, the first threshold set.

        Args:
            key: the song's id.
            song_vector: float32 (d,), the song's unit vector.
            users, vectors, weights: the candidates, int64 (n,), float32 (n, d), and by how much each moves its
                centroid, float32 (n,), at least 0. Of weights, only the ratios count, to a thousandth of the largest.

        Raises:
            ValueError: a campaign of this key is open.
        """
        if key in self._slot_of:
            raise ValueError(f"campaign {key!r} is open")
        slot = self._take(key)
        self._centroid_sums.song_vectors[slot], self._seed[slot] = song_vector, seed
        hashes = self._users.hashes(users)
        chosen = bottom(hashes, _salt(key), self.config.sample)
        self._scale[slot] = HEAVIEST / (float(weights[chosen].max(initial=0)) or 1.0)
        at = np.arange(len(chosen))
        self._enrol(slot, at, users[chosen], mixed(hashes[chosen], _salt(key)), weights[chosen])
        self._cluster(slot, at, vectors[chosen])
        scores = (spend.everyone @ self._centroid_sums.prototypes[:, slot].T).max(axis=1)
        first = pacing.opening(scores, spend.budget / max(spend.users, 1))
        self._spending[slot] = first.first, first.scale, spend.budget, spend.budget, spend.opened, spend.ends

    def close(self, key: str) -> None:
        """Ends a campaign. Its place is taken by the next one.

        Raises:
            KeyError: no such campaign.
        """
        slot = self._slot_of.pop(key)
        self._keys[slot] = None
        self._leave(slot, np.flatnonzero(self._member[slot] >= 0))
        self._spending[slot] = 0
        self._centroid_sums.clear(slot)

    def remain(self, key: str, pushes: int) -> None:
        """Tells how many pushes of the budget are left."""
        self._spending[self._slot_of[key], _REMAINING] = pushes

    @property
    def places(self) -> Sequence[str | None]:
        """The campaign at each place; None: none."""
        return self._keys

    def thresholds(self, now: float, plan: Plan | None = None) -> F32:
        """The score that is enough in each campaign, float32 (A,), by place; infinite: nobody is wanted."""
        first, scale, budget, remaining, opened, ends = self._spending[: len(self._keys)].T
        if plan is None:
            return pacing.thresholds(first, scale, budget, remaining, opened, ends, now)
        enough = pacing.thresholds(first, scale, budget, remaining, opened, ends, now, plan.rates)
        # Nothing left is infinite, whatever the factor.
        open_ = np.isfinite(enough) & (plan.threshold_factors < 1)
        enough[open_] = np.minimum(enough[open_], np.maximum(enough[open_], 0) * plan.threshold_factors[open_])
        return enough

    def score(self, vectors: F32, now: float, plan: Plan | None = None) -> Hits:
        """Who is wanted by which campaigns: the mean of the cosines to the song and to the nearest centroid.

        Args:
            vectors: float32 (b, d), unit, or multiplied with what their users' scores are multiplied with.
            plan: how campaigns spend, by place (:mod:`targeting.campaigns.spending`); None: as the time has it.

        Returns:
            Pairs at or above the campaign's threshold; ``campaigns`` are for :meth:`key`. More may be wanted at once
            than pushes are left: the best are to be taken first.
        """
        return reverse_scoring.hits(
            vectors, self._centroid_sums.prototypes[:, : len(self._keys)], self.thresholds(now, plan)
        )

    def observe(self, users: I64, old: F32, new: F32) -> None:
        """Members' vectors changed: int64 (m,), each once; float32 (m, d) before and after, zero rows for none."""
        lengths, (places,) = self._places.gather(users)
        if not len(places):
            return
        slots = places // self.config.sample
        self._centroid_sums.events += np.bincount(slots, minlength=len(self._centroid_sums.events))
        self._centroid_sums.move(places, np.repeat(np.arange(len(users)), lengths), old, new)

    def join(self, key: str, users: I64, vectors: F32, weights: F32) -> None:
        """Further listeners, as in :meth:`open`: members from now on if their hashes are low enough.

        Those who are members already stay as they are. A member that has to make room is read from ``Users``.
        """
        slot = self._slot_of[key]
        users, first = np.unique(users, return_index=True)
        fresh = ~np.isin(users, self._member[slot])
        users, vectors, weights = users[fresh], vectors[first[fresh]], weights[first[fresh]]
        ranks = mixed(self._users.hashes(users), _salt(key))
        there = np.flatnonzero(self._member[slot] >= 0)
        # The lowest of both, those who are there before those who come.
        lowest = np.argsort(np.concatenate([self._rank[slot, there], ranks]), kind="stable")[: self.config.sample]
        stays = np.zeros(len(there) + len(users), bool)
        stays[lowest] = True
        out, into = there[~stays[: len(there)]], np.flatnonzero(stays[len(there) :])
        if not len(into):
            return
        if len(out):
            gone = self._users.vectors(self._member[slot, out])
            self._centroid_sums.move(slot * self.config.sample + out, np.arange(len(out)), gone, np.zeros_like(gone))
            self._leave(slot, out)
        at = np.flatnonzero(self._member[slot] < 0)[: len(into)]
        self._enrol(slot, at, users[into], ranks[into], weights[into])
        self._centroid_sums.events[slot] += len(into)
        places, which = slot * self.config.sample + at, np.arange(len(into))
        self._centroid_sums.move(places, which, np.zeros_like(vectors[into]), vectors[into])

    def forget(self, users: I64) -> list[str]:
        """Erases users, int64 (m,), while ``Users`` still knows their vectors: shares and membership are gone.

        What is left is what would be there without them, but for which centroids others went to on the way; the next
        re-clustering ends that too.

        Returns:
            The campaigns they were members of, whose stored records still hold them.
        """
        users = np.unique(users)
        lengths, (places,) = self._places.gather(users)
        if not len(places):
            return []
        vectors = self._users.vectors(users)
        self._centroid_sums.move(places, np.repeat(np.arange(len(users)), lengths), vectors, np.zeros_like(vectors))
        self._vacate(places)
        self._places.erase(users)
        return [self.key(slot) for slot in np.unique(places // self.config.sample).tolist()]

    def prototypes(self, key: str) -> Prototypes:
        """The centroids, without the song's own vector, and how many of the sample each stands for, most first."""
        slot = self._slot_of[key]
        counts = self._centroid_sums.counts[slot].astype(np.int64)
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        return Prototypes(units(self._centroid_sums.sums[slot, order]), counts[order])

    def members(self, key: str) -> I64:
        """The rows of the sample's users, int64, in the order of their hashes."""
        slot = self._slot_of[key]
        users: I64 = self._member[slot, self._ranked(slot)]
        return users

    def due(self, most: int) -> list[str]:
        """At most ``most`` campaigns to be clustered again, those that moved most first: then store their records."""
        moved = np.flatnonzero(self._centroid_sums.events >= self.config.recluster)
        moved = moved[np.argsort(-self._centroid_sums.events[moved], kind="stable")][:most]
        return [self.key(slot) for slot in moved.tolist()]

    def recluster(self, key: str) -> None:
        """Clusters the sample's vectors as they are: the same result whatever way they came there."""
        slot = self._slot_of[key]
        at = self._ranked(slot)
        self._cluster(slot, at, self._users.vectors(self._member[slot, at]))

    def encode(self, key: str) -> bytes:
        """The campaign's record: a version byte and MessagePack; users are in it by their hashes. Nothing changes."""
        slot = self._slot_of[key]
        at = self._ranked(slot)
        members = np.empty(len(at), MEMBER)
        members["user"] = self._users.hashes(self._member[slot, at])
        sums = self._centroid_sums
        members["share"], members["weight"] = sums.share[slot, at], sums.weight[slot, at]
        members["centroid"] = sums.centroid[slot, at]
        return cat_record.encode(
            CatRecord(
                sums.song_vectors[slot].astype("<f4").tobytes(),
                sums.sums[slot].astype("<f8").tobytes(),
                members.tobytes(),
                [float(sums.events[slot]), float(self._scale[slot]), *self._spending[slot].tolist()],
                int(self._seed[slot]),
            )
        )

    def members_of(self, record: bytes) -> U64:
        """The hashes of the users whom a record names, uint64 (n,)."""
        stored = cat_record.decode(record, self._centroid_sums.song_vectors.shape[1], self.config)
        return np.frombuffer(stored.members, MEMBER)["user"]

    def load(self, key: str, record: bytes, rows: Callable[[U64], I64]) -> None:
        """Opens a campaign as :meth:`encode` wrote it.

        Args:
            rows: gives the row of each user's hash, uint64 (n,) to int64 (n,); -1: unknown, and no member any more.
                If one is, or vectors changed since the record was written, shares are in it that will never be taken
                out: :meth:`recluster`. A campaign that lost members is due for it.

        Raises:
            ValueError: the campaign is open; a record of another version, of other dimensions, or broken.
        """
        if key in self._slot_of:
            raise ValueError(f"campaign {key!r} is open")
        stored = cat_record.decode(record, self._centroid_sums.song_vectors.shape[1], self.config)
        members = np.frombuffer(stored.members, MEMBER)
        users = np.asarray(rows(members["user"]), np.int64)
        known = np.flatnonzero(users >= 0)
        slot = self._take(key)
        sums = self._centroid_sums
        sums.song_vectors[slot], self._seed[slot] = np.frombuffer(stored.song_vector, "<f4"), stored.seed
        sums.events[slot], self._scale[slot], *self._spending[slot] = stored.numbers
        if len(known) < len(members):
            sums.events[slot] = max(sums.events[slot], self.config.recluster)
        members, at = members[known], np.arange(len(known))
        self._enrol(slot, at, users[known], mixed(members["user"], _salt(key)), np.zeros(len(at), np.float32))
        stored_sums = np.frombuffer(stored.sums, "<f8").reshape(sums.sums[slot].shape)
        sums.load(slot, at, members["weight"], members["share"], members["centroid"], stored_sums)

    def _cluster(self, slot: int, at: I64, vectors: F32) -> None:
        """Puts members (at, in the order of their hashes) with these vectors into new centroids."""
        config = self.config
        nearest: I64 = np.zeros(len(at), np.int64)
        # One centroid needs no search.
        if config.centroids > 1:
            clustering = replace(config.clustering, prototypes=config.centroids, sample=config.sample)
            weights = self._centroid_sums.weight[slot, at].astype(np.float32)
            found = centroids(vectors, clustering, int(self._seed[slot]), weights)
            if len(found):
                nearest = (vectors @ found.T).argmax(axis=1)
        nearest[~vectors.any(axis=1)] = -1
        self._centroid_sums.restart(slot, at, vectors, nearest)

    # -- members

    def _ranked(self, slot: int) -> I64:
        """The members' indices in the order of their hashes."""
        there = np.flatnonzero(self._member[slot] >= 0)
        return there[np.argsort(self._rank[slot, there], kind="stable")]

    def _enrol(self, slot: int, at: I64, users: I64, ranks: U64, weights: F32) -> None:
        """Writes members without a share at free indices."""
        places = slot * self.config.sample + at
        self._member[slot, at], self._rank[slot, at] = users, ranks
        self._centroid_sums.enrol(places, weights * self._scale[slot])
        self._places.append(users, [places])

    def _leave(self, slot: int, at: I64) -> None:
        """Removes members, whose shares stay where they are."""
        places = slot * self.config.sample + at
        self._places.discard(self._member[slot, at], places)
        self._vacate(places)

    def _vacate(self, places: I64) -> None:
        self._member.reshape(-1)[places] = -1
        self._rank.reshape(-1)[places] = 0
        self._centroid_sums.vacate(places)

    # -- campaigns

    def _take(self, key: str) -> int:
        """The place of a new campaign: a free one, or one more."""
        if len(self._slot_of) < len(self._keys):
            slot = self._keys.index(None)
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
            if slot == len(self._member):
                self._allot(max(2 * slot, 8))
        self._slot_of[key] = slot
        return slot

    def _allot(self, campaigns: int) -> None:
        """Makes room for so many campaigns."""
        fresh: dict[str, NDArray[Any]] = {
            "_member": np.full((campaigns, self.config.sample), -1, np.int64),
            "_rank": np.zeros((campaigns, self.config.sample), np.uint64),
            "_seed": np.zeros(campaigns, np.uint64),
            "_scale": np.zeros(campaigns),
            "_spending": np.zeros((campaigns, SPENDING)),
        }
        for name, column in fresh.items():
            held = getattr(self, name, column[:0])
            column[: len(held)] = held
            setattr(self, name, column)
        self._centroid_sums.grow(campaigns)


def _salt(key: str) -> int:
    return int(hash64([key])[0])
